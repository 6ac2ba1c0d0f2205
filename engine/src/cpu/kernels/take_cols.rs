//! `take_cols`: columns in another order.

use crate::cpu::pool::Pool;

/// `out[r][c] = x[r][columns[c]]`, rows of as many columns as there are numbers; numbers beyond stand for the last column.
pub fn take_cols(pool: &Pool, x: &[f32], columns: &[f32], out: &mut [f32]) {
    let n = columns.len();
    pool.rows_mut(out, n, |r, out| {
        let x = &x[r * n..][..n];
        out.iter_mut().zip(columns).for_each(|(out, column)| *out = x[(*column as usize).min(n - 1)]);
    });
}
