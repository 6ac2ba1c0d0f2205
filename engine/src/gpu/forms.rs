//! Which forms of the kernels run: what the adapter has, and what the caller forces. No device here.

use crate::error::{Error, Result};

/// Forms of kernels beyond the base form, which needs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forms {
    /// Tiles of halves in products of many rows; sums stay f32.
    pub f16: bool,
    /// Reductions by subgroup operations.
    pub subgroups: bool,
    /// Activations as blocks of signed bytes in products of few rows.
    pub dot4: bool,
    /// Products of many rows by cooperative matrices, which wgpu calls experimental: only where it is asked for.
    pub coopmat: bool,
    /// Splits of attention joined by the workgroup that finishes last, through memory that workgroups see of each other.
    pub coherent: bool,
    /// Products of few rows where a subgroup owns rows of the weight and nothing waits between units: needs `subgroups`.
    pub owned: bool,
    /// Heads with norms, and those of an 8-bit cache, made ready in products of few rows by the workgroup that finishes one
    /// last: needs `coherent`.
    pub heads: bool,
}

impl Forms {
    /// Nothing beyond WebGPU's defaults.
    pub const BASE: Forms = Forms {
        f16: false,
        subgroups: false,
        dot4: false,
        coopmat: false,
        coherent: false,
        owned: false,
        heads: false,
    };

    /// The forms that `text` names, joined by `+`: `base`, `f16`, `subgroups`, `dot4`, `coopmat`, `coherent`, `owned`, `heads`.
    ///
    /// # Errors
    /// Names a word that is no form.
    pub fn parse(text: &str) -> Result<Forms> {
        let mut forms = Forms::BASE;
        for word in text.split('+') {
            match word {
                "base" => {}
                "f16" => forms.f16 = true,
                "subgroups" => forms.subgroups = true,
                "dot4" => forms.dot4 = true,
                "coopmat" => forms.coopmat = true,
                "coherent" => forms.coherent = true,
                "owned" => forms.owned = true,
                "heads" => forms.heads = true,
                _ => {
                    return Err(Error::request(format!(
                        "{word:?} is no kernel form: use base, f16, subgroups, dot4, coopmat, coherent, owned, heads, joined by +"
                    )));
                }
            }
        }
        if forms.owned && !forms.subgroups {
            return Err(Error::request("the kernel form \"owned\" needs subgroups: use base+subgroups+owned"));
        }
        if forms.heads && !forms.coherent {
            return Err(Error::request("the kernel form \"heads\" needs coherent: use base+coherent+heads"));
        }
        Ok(forms)
    }
}

impl std::fmt::Display for Forms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("base")?;
        for (on, name) in [
            (self.f16, "f16"),
            (self.subgroups, "subgroups"),
            (self.dot4, "dot4"),
            (self.coopmat, "coopmat"),
            (self.coherent, "coherent"),
            (self.owned, "owned"),
            (self.heads, "heads"),
        ] {
            if on {
                write!(f, "+{name}")?;
            }
        }
        Ok(())
    }
}
