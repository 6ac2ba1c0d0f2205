//! `glu`: gated activation.

use crate::cpu::pool::Pool;
use crate::cpu::simd::Table;
use crate::plan::Act;

/// Columns one task takes of a single row.
const CHUNK: usize = 4096;

/// `out[r] = act(x[r][..n]) * x[r][n..]`, rows of `x` being `2 n` long.
pub fn glu(t: &Table, pool: &Pool, x: &[f32], act: Act, n: usize, out: &mut [f32]) {
    let Act::Silu = act;
    if out.len() == n {
        let (gate, up) = x[..2 * n].split_at(n);
        return pool.chunks_mut(out, CHUNK, |i, out| {
            let range = i * CHUNK..i * CHUNK + out.len();
            (t.silu_mul)(&gate[range.clone()], &up[range], out);
        });
    }
    pool.rows_mut(out, n, |r, out| {
        let (gate, up) = x[2 * n * r..2 * n * (r + 1)].split_at(n);
        (t.silu_mul)(gate, up, out);
    });
}
