//! `glu`: gated activation.

use super::act;
use crate::cpu::pool::Pool;
use crate::cpu::simd::Table;
use crate::plan::{Act, Gated};

/// Columns one task takes of a single row.
const CHUNK: usize = 4096;

/// `out[r] = gated(x[r][..n], x[r][n..])`, rows of `x` being `2 n` long.
pub fn glu(t: &Table, pool: &Pool, x: &[f32], gated: Gated, n: usize, out: &mut [f32]) {
    if out.len() == n {
        let (gate, up) = x[..2 * n].split_at(n);
        return pool.chunks_mut(out, CHUNK, |i, out| {
            let range = i * CHUNK..i * CHUNK + out.len();
            multiply(t, gated, &gate[range.clone()], &up[range], out);
        });
    }
    pool.rows_mut(out, n, |r, out| {
        let (gate, up) = x[2 * n * r..2 * n * (r + 1)].split_at(n);
        multiply(t, gated, gate, up, out);
    });
}

fn multiply(t: &Table, gated: Gated, gate: &[f32], up: &[f32], out: &mut [f32]) {
    let Gated { act, limit, limits_result, up_offset } = gated;
    match act {
        Act::Silu if gated == Gated::plain(act) => (t.silu_mul)(gate, up, out),
        Act::GeluTanh if gated == Gated::plain(act) => (t.gelu_mul)(gate, up, out),
        Act::GeluErf if gated == Gated::plain(act) => {
            out.copy_from_slice(gate);
            (t.gelu_erf)(out);
            out.iter_mut().zip(up).for_each(|(out, up)| *out *= up);
        }
        _ => {
            for (out, (gate, up)) in out.iter_mut().zip(gate.iter().zip(up)) {
                let first = match limits_result {
                    true => act::value(act, *gate).min(limit),
                    false => act::value(act, gate.min(limit)),
                };
                *out = first * (up.clamp(-limit, limit) + up_offset);
            }
        }
    }
}
