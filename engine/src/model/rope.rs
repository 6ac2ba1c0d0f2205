//! Rotation frequencies: plain, linearly scaled, by YaRN, and with per-pair factors (Llama 3).

use crate::error::{Error, Result};
use crate::plan::{RopeStyle, RopeTable};

/// How positions beyond the trained length are squeezed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scaling {
    None,
    /// All frequencies divided by this (Chen et al. 2023).
    Linear(f32),
    Yarn(Yarn),
}

/// YaRN (Peng et al. 2023): fast pairs keep their frequency, slow ones are divided by the factor, those between are mixed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Yarn {
    /// How many times longer than the trained context.
    pub factor: f32,
    /// Tokens of the trained context.
    pub original: usize,
    /// Turns within the trained context: pairs with more keep their frequency, ...
    pub beta_fast: f32,
    /// ... pairs with fewer are divided.
    pub beta_slow: f32,
    /// Weight of a second logarithm that the magnitude is divided by; 0 for none.
    pub log_multiplier: f32,
}

impl Yarn {
    /// How much of pair `i`'s frequency stays as it is, from 1 (all) to 0 (all of it is divided).
    fn kept(&self, i: usize, dims: usize, base: f32) -> f64 {
        let (dims, base) = (dims as f64, f64::from(base));
        // The pair that makes so many turns within the trained context.
        let pair = |turns: f32| {
            let length = self.original as f64 / (f64::from(turns) * std::f64::consts::TAU);
            dims * length.ln() / (2.0 * base.ln())
        };
        let (low, high) = (pair(self.beta_fast).floor().max(0.0), pair(self.beta_slow).ceil().min(dims - 1.0));
        1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0)
    }

    /// The factor on rotated elements.
    fn magnitude(&self) -> f64 {
        let m = |by: f32| 1.0 + 0.1 * f64::from(by) * f64::from(self.factor).ln();
        m(1.0) / m(self.log_multiplier)
    }
}

/// Frequencies `base^(-2i / dims)`, scaled. `factors` divide them one by one: that is how GGUF carries Llama 3's scaling.
pub(super) fn table(
    style: RopeStyle,
    dims: usize,
    base: f32,
    scaling: Scaling,
    factors: Option<&[f32]>,
) -> Result<RopeTable> {
    let magnitude = match scaling {
        Scaling::Yarn(yarn) => yarn.magnitude() as f32,
        Scaling::None | Scaling::Linear(_) => 1.0,
    };
    let inv_freq: Vec<f32> = (0..dims / 2)
        .map(|i| {
            let plain = f64::from(base).powf(-(2.0 * i as f64) / dims as f64);
            let own = plain / factors.map_or(1.0, |f| f64::from(f[i]));
            let scaled = match scaling {
                Scaling::None => own,
                Scaling::Linear(factor) => own / f64::from(factor),
                Scaling::Yarn(yarn) => {
                    let kept = yarn.kept(i, dims, base);
                    own / f64::from(yarn.factor) * (1.0 - kept) + own * kept
                }
            };
            scaled as f32
        })
        .collect();
    if inv_freq.iter().any(|f| !f.is_finite()) || !magnitude.is_finite() {
        return Err(Error::format("the rope base, scaling factor or rope_freqs.weight give no finite frequencies"));
    }
    Ok(RopeTable { style, inv_freq, magnitude })
}
