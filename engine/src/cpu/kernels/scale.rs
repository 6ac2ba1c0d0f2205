//! `scale`: factors on every element, in place.

use crate::cpu::pool::Pool;

/// `x[r][c] *= factor * weight[c]` for rows of `cols`; a weight of one element serves all columns.
pub fn scale(pool: &Pool, x: &mut [f32], cols: usize, factor: f32, weight: Option<&[f32]>) {
    pool.rows_mut(x, cols, |_, row| match weight {
        None => row.iter_mut().for_each(|x| *x *= factor),
        Some([one]) => row.iter_mut().for_each(|x| *x *= factor * one),
        Some(weight) => row.iter_mut().zip(weight).for_each(|(x, w)| *x *= factor * w),
    });
}
