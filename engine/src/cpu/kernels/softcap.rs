//! `softcap`: a smooth limit on every element, in place (Gemma 2).

use crate::cpu::pool::Pool;

/// Elements one task takes: enough to outweigh handing it out.
const CHUNK: usize = 4096;

/// `x = cap * tanh(x / cap)`.
pub fn softcap(pool: &Pool, x: &mut [f32], cap: f32) {
    pool.chunks_mut(x, CHUNK, |_, x| x.iter_mut().for_each(|x| *x = value(*x, cap)));
}

/// One element.
pub fn value(x: f32, cap: f32) -> f32 {
    cap * (x / cap).tanh()
}
