//! `mix`: sums of a row's streams.

use super::kv_write::Columns;
use crate::cpu::pool::Pool;
use crate::cpu::simd::Table;

/// `out[r][i] = sum over j of coef[r][i][j] * x[r][j]`, streams being runs of `width` columns and `cols` those of a row of
/// `out`. The streams are added in their order.
pub fn mix(t: &Table, pool: &Pool, x: Columns<'_>, coef: Columns<'_>, width: usize, cols: usize, out: &mut [f32]) {
    let n_in = x.view.cols / width;
    pool.rows_mut(out, cols, |r, out| {
        let (x, coef) = (x.row(r), coef.row(r));
        for (out, coef) in out.chunks_exact_mut(width).zip(coef.chunks_exact(n_in)) {
            out.fill(0.0);
            for (x, c) in x.chunks_exact(width).zip(coef) {
                (t.axpy)(out, *c, x);
            }
        }
    });
}
