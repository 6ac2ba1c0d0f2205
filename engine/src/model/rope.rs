//! Rotation frequencies: plain, linearly scaled, and with per-pair factors (Llama 3).

use crate::error::{Error, Result};
use crate::plan::{RopeStyle, RopeTable};

/// How positions beyond the trained length are squeezed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scaling {
    None,
    /// All frequencies divided by this (Chen et al. 2023).
    Linear(f32),
}

/// Frequencies `base^(-2i / dims)`, scaled. `factors` divide them one by one: that is how GGUF carries Llama 3's scaling.
pub(super) fn table(
    style: RopeStyle,
    dims: usize,
    base: f32,
    scaling: Scaling,
    factors: Option<&[f32]>,
) -> Result<RopeTable> {
    let linear = match scaling {
        Scaling::None => 1.0,
        Scaling::Linear(factor) => f64::from(factor),
    };
    let inv_freq: Vec<f32> = (0..dims / 2)
        .map(|i| {
            let plain = f64::from(base).powf(-(2.0 * i as f64) / dims as f64);
            (plain / linear / factors.map_or(1.0, |f| f64::from(f[i]))) as f32
        })
        .collect();
    if inv_freq.iter().any(|f| !f.is_finite()) {
        return Err(Error::format("the rope base, scaling factor or rope_freqs.weight give no finite frequencies"));
    }
    Ok(RopeTable { style, inv_freq, magnitude: 1.0 })
}
