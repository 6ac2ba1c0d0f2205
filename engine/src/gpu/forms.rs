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
    pub coopmat: Option<Matrices>,
    /// Splits of attention joined by the workgroup that finishes last, through memory that workgroups see of each other.
    pub coherent: bool,
    /// Products of few rows where a subgroup owns rows of the weight and nothing waits between units: needs `subgroups`.
    pub owned: bool,
}

/// How products of many rows are computed with the form `coopmat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Matrices {
    /// By what the adapter lists: matrices of 16 if it has them, else of 8. A device that is open has one of the others.
    #[default]
    Listed,
    /// By matrices of 8 x 8, of halves with `f16` and else of f32.
    Eight,
    /// By matrices of 16 x 16 of halves, in subgroups of at most so many invocations.
    Sixteen(u32),
    /// As with matrices of 16 x 16, but each invocation multiplies for itself: slow, for examining on any adapter what is
    /// around the products.
    Plain,
}

impl Matrices {
    /// Whether activations come as halves that the op in front of the product makes.
    pub(super) fn takes_halves(self) -> bool {
        matches!(self, Matrices::Sixteen(_) | Matrices::Plain)
    }
}

impl Forms {
    /// Whether products round both factors to halves.
    pub fn rounds_to_halves(&self) -> bool {
        self.f16 || self.coopmat.is_some_and(Matrices::takes_halves)
    }

    /// Nothing beyond WebGPU's defaults.
    pub const BASE: Forms =
        Forms { f16: false, subgroups: false, dot4: false, coopmat: None, coherent: false, owned: false };

    /// The forms that `text` names, joined by `+`: `base`, `f16`, `subgroups`, `dot4`, `coopmat`, `coherent`, `owned`.
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
                "coopmat" => forms.coopmat = Some(Matrices::Listed),
                "coherent" => forms.coherent = true,
                "owned" => forms.owned = true,
                _ => {
                    return Err(Error::request(format!(
                        "{word:?} is no kernel form: use base, f16, subgroups, dot4, coopmat, coherent, owned, joined by +"
                    )));
                }
            }
        }
        if forms.owned && !forms.subgroups {
            return Err(Error::request("the kernel form \"owned\" needs subgroups: use base+subgroups+owned"));
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
            (self.coopmat.is_some(), "coopmat"),
            (self.coherent, "coherent"),
            (self.owned, "owned"),
        ] {
            if on {
                write!(f, "+{name}")?;
            }
        }
        Ok(())
    }
}
