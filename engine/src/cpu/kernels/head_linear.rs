//! `head_linear`: every head's columns times a matrix of its own (latent attention: DeepSeek-V2, 2024).

use super::expert_linear::Gathered;
use super::linear::{Activations, Scratch, linear};
use crate::cpu::pool::Pool;
use crate::cpu::simd::Table;
use crate::plan::Segment;

/// The matrices of the heads.
#[derive(Debug)]
pub struct Heads<'a> {
    /// The row segments of each matrix, one matrix after the other.
    pub segments: &'a [Segment],
    /// Heads.
    pub n: usize,
    /// Input columns of each.
    pub k: usize,
    /// Columns behind these that are passed on.
    pub pass: usize,
}

/// `out[r][h] = [x[r][h][..k] * matrix[h]^T, x[r][h][k..]]`.
#[expect(clippy::too_many_arguments, reason = "an op with its operands; each is named at the call")]
pub fn head_linear(
    t: &Table,
    pool: &Pool,
    scratch: &mut Scratch,
    gathered: &mut Gathered,
    heads: &Heads<'_>,
    x: &[f32],
    mode: Activations,
    out: &mut [f32],
) {
    let (k, per) = (heads.k, heads.segments.len() / heads.n);
    let m: usize = heads.segments[..per].iter().map(|s| s.rows).sum();
    let (from, to) = (k + heads.pass, m + heads.pass);
    let n_rows = x.len() / (heads.n * from);
    for h in 0..heads.n {
        let inputs = x.chunks_exact(heads.n * from).map(|row| &row[h * from..][..from]);
        gathered.x.clear();
        inputs.clone().for_each(|head| gathered.x.extend_from_slice(&head[..k]));
        gathered.out.resize(n_rows * m, 0.0);
        let segments = &heads.segments[h * per..(h + 1) * per];
        linear(t, pool, scratch, segments, k, &gathered.x, mode, None, None, &mut gathered.out);
        let outputs = out.chunks_exact_mut(heads.n * to).map(|row| &mut row[h * to..][..to]);
        for ((head, input), product) in outputs.zip(inputs).zip(gathered.out.chunks_exact(m)) {
            head[..m].copy_from_slice(product);
            head[m..].copy_from_slice(&input[k..]);
        }
    }
}
