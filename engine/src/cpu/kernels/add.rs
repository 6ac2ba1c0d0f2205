//! `add`: element by element, in place.

use crate::cpu::pool::Pool;
use crate::cpu::simd::Table;

/// Elements one task takes: enough to outweigh handing it out.
const CHUNK: usize = 4096;

/// `x += factor * y`.
pub fn add(t: &Table, pool: &Pool, x: &mut [f32], y: &[f32], factor: f32) {
    pool.chunks_mut(x, CHUNK, |i, x| {
        let y = &y[i * CHUNK..i * CHUNK + x.len()];
        if factor == 1.0 { (t.add)(x, y) } else { (t.axpy)(x, factor, y) }
    });
}
