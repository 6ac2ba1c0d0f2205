//! `pool`: the mean of neighbouring rows.

use crate::cpu::pool::Pool as Threads;
use crate::cpu::simd::Table;
use crate::plan::Pool;

/// `out[i]` is the mean of the rows `pools[i]` of `x`, rows of `cols`. Rows are added in their order, so the result is the
/// same bits on every instruction set; one row is its own mean.
pub fn pool(t: &Table, threads: &Threads, x: &[f32], cols: usize, pools: &[Pool], out: &mut [f32]) {
    threads.chunks_mut(out, cols, |i, out| {
        let first = pools[i].first as usize * cols;
        let mut rows = x[first..first + pools[i].rows as usize * cols].chunks_exact(cols);
        if let Some(row) = rows.next() {
            out.copy_from_slice(row);
        }
        rows.for_each(|row| (t.add)(out, row));
        let n = pools[i].rows as f32;
        out.iter_mut().for_each(|sum| *sum /= n);
    });
}
