//! `gate`: an activation of other columns as a factor, in place.

use super::act;
use super::kv_write::Columns;
use crate::cpu::pool::Pool;
use crate::plan::{Act, View};

/// `x[r][c] *= act(gate[r][c / group])` in the columns `view` of rows of `cols`.
pub fn gate(pool: &Pool, x: &mut [f32], cols: usize, view: View, gate: Columns<'_>, activation: Act, group: usize) {
    pool.rows_mut(x, cols, |r, row| {
        let row = &mut row[view.start..view.start + view.cols];
        for (run, gate) in row.chunks_exact_mut(group).zip(gate.row(r)) {
            let factor = act::value(activation, *gate);
            run.iter_mut().for_each(|x| *x *= factor);
        }
    });
}
