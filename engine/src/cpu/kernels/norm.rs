//! `norm`: root-mean-square normalisation of runs of columns.

use super::kv_write::Columns;
use crate::cpu::pool::Pool;
use crate::cpu::simd::Table;

/// For every row of `x` and every run of `weight.len()` columns: `out = x / sqrt(mean(x^2) + eps) * weight`.
/// `out` has rows of as many columns as `x` views.
pub fn norm(t: &Table, pool: &Pool, x: Columns<'_>, weight: &[f32], eps: f32, out: &mut [f32]) {
    let group = weight.len();
    pool.rows_mut(out, x.view.cols, |r, out| {
        for (x, out) in x.row(r).chunks_exact(group).zip(out.chunks_exact_mut(group)) {
            let mean = (t.sum_squares)(x) / group as f32;
            (t.scale_mul)(x, 1.0 / (mean + eps).sqrt(), weight, out);
        }
    });
}
