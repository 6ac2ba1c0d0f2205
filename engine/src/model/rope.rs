//! Rotation frequencies: plain, linearly scaled, by YaRN, and with per-pair factors (Llama 3).

use crate::error::{Error, Result};
use crate::plan::{RopeStyle, RopeTable};

/// How positions beyond the trained length are squeezed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scaling {
    None,
    /// All frequencies divided by this (Chen et al. 2023).
    Linear(f32),
    /// Slow pairs divided by the factor, fast ones kept, a ramp between (Peng et al. 2023).
    Yarn(Yarn),
}

/// YaRN's numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Yarn {
    /// The context grows by this.
    pub factor: f32,
    /// Positions before.
    pub n_original: f32,
    /// Turns within these positions from which a pair is kept, and up to which it is divided.
    pub fast: f32,
    pub slow: f32,
    /// Whether the ends of the ramp are rounded outwards to whole pairs.
    pub rounds: bool,
    /// Of `0.1 * ln(factor)` in the divisor of the magnitude; 0 if there is no divisor.
    pub log_multiplier: f32,
}

impl Yarn {
    /// Where between kept (1) and divided (0) pair `i` of `dims / 2` is.
    fn kept(&self, i: usize, dims: usize, base: f64) -> f64 {
        let turns_at = |turns: f32| {
            let ratio = f64::from(self.n_original) / (2.0 * std::f64::consts::PI * f64::from(turns));
            dims as f64 * ratio.ln() / (2.0 * base.ln())
        };
        let (low, high) = (turns_at(self.fast), turns_at(self.slow));
        let (low, high) = if self.rounds { (low.floor(), high.ceil()) } else { (low, high) };
        let (low, high) = (low.max(0.0), high.min(dims as f64 - 1.0));
        1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0)
    }

    /// Factor on the rotated elements.
    fn magnitude(&self) -> f32 {
        let of = |multiplier: f32| 1.0 + 0.1 * multiplier * self.factor.ln();
        if self.log_multiplier == 0.0 { of(1.0) } else { of(1.0) / of(self.log_multiplier) }
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
    let inv_freq: Vec<f32> = (0..dims / 2)
        .map(|i| {
            let plain = f64::from(base).powf(-(2.0 * i as f64) / dims as f64);
            let plain = plain / factors.map_or(1.0, |f| f64::from(f[i]));
            let scaled = match scaling {
                Scaling::None => plain,
                Scaling::Linear(factor) => plain / f64::from(factor),
                Scaling::Yarn(yarn) => {
                    let kept = yarn.kept(i, dims, f64::from(base));
                    plain / f64::from(yarn.factor) * (1.0 - kept) + plain * kept
                }
            };
            scaled as f32
        })
        .collect();
    let magnitude = match scaling {
        Scaling::Yarn(yarn) => yarn.magnitude(),
        Scaling::None | Scaling::Linear(_) => 1.0,
    };
    if inv_freq.iter().chain([&magnitude]).any(|f| !f.is_finite()) {
        return Err(Error::format("the rope base, scaling factor or rope_freqs.weight give no finite frequencies"));
    }
    Ok(RopeTable { style, inv_freq, magnitude, long: None })
}
