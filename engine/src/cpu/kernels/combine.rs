//! `combine`: the weighted sum of what a row's experts gave.

use crate::cpu::pool::Pool;
use crate::cpu::simd::Table;

/// `out[r] = sum over j of weights[r][j] * x[r][j]`, rows of `x` being `used * n` long, those of `picks` indices and then
/// weights, which are taken as 1 if not `weighted`. The picks are added in their order.
pub fn combine(
    t: &Table,
    pool: &Pool,
    x: &[f32],
    picks: &[f32],
    (used, weighted): (usize, bool),
    n: usize,
    out: &mut [f32],
) {
    pool.rows_mut(out, n, |r, out| {
        out.fill(0.0);
        let weights = &picks[r * 2 * used + used..(r + 1) * 2 * used];
        for (x, weight) in x[r * used * n..(r + 1) * used * n].chunks_exact(n).zip(weights) {
            (t.axpy)(out, if weighted { *weight } else { 1.0 }, x);
        }
    });
}
