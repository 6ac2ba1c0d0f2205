//! `adapter_scales`: the factors of adapters of every row, as the step brings them.

/// `out[r][a] = factors[r][a]`, and 0 where the step brings none.
pub fn adapter_scales(factors: &[f32], out: &mut [f32]) {
    if factors.is_empty() {
        out.fill(0.0);
    } else {
        out.copy_from_slice(&factors[..out.len()]);
    }
}
