//! `attend`: causal attention over paged keys and values, one pass with a running maximum (Milakov and Gimelshein 2018).

use super::kv_write::{Columns, KvLayer};
use super::softcap;
use crate::cpu::pool::Pool;
use crate::cpu::simd::Table;
use crate::plan::{Inputs, PAGE, Temperature};

/// What stays the same over a step.
#[derive(Debug, Clone, Copy)]
pub struct Attend<'a> {
    /// Query heads.
    pub n_heads: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Soft cap of the scaled scores.
    pub cap: Option<f32>,
    /// Positions a row sees, itself included.
    pub window: Option<u32>,
    /// Factor on the queries by position.
    pub temperature: Option<Temperature>,
    /// Slopes of the heads: times the distance, taken from scaled scores.
    pub slopes: Option<&'a [f32]>,
    /// Scores of the heads that have no value.
    pub sinks: Option<&'a [f32]>,
}

impl Attend<'_> {
    /// Turns scores of head `h` against `n` positions from `first` on, the row being at `position`, into what the softmax
    /// takes.
    fn finish(&self, t: &Table, scores: &mut [f32], h: usize, first: usize, position: u32) {
        let temperature = self
            .temperature
            .map_or(1.0, |of| 1.0 + of.factor * (((position as f32 + of.offset) / of.length).floor() + 1.0).ln());
        (t.scale)(scores, self.scale * temperature);
        if let Some(cap) = self.cap {
            scores.iter_mut().for_each(|score| *score = softcap::value(*score, cap));
        }
        if let Some(slopes) = self.slopes {
            for (i, score) in scores.iter_mut().enumerate() {
                *score -= slopes[h] * (position as usize - first - i) as f32;
            }
        }
    }
}

/// `out[r][h] = softmax(cap(scale * q[r][h] . K)) . V` over the positions up to and including the row's own.
///
/// Pages are taken in the order of positions, so a row's result does not depend on what else is in the step.
pub fn attend(
    t: &Table,
    pool: &Pool,
    inputs: &Inputs,
    q: Columns<'_>,
    layer: &KvLayer,
    op: Attend<'_>,
    out: &mut [f32],
) {
    let shape = layer.shape();
    let group = op.n_heads / shape.n_kv_heads;
    // One task is one row's query heads that share a key-value head: neighbours in `out`.
    pool.chunks_mut(out, group * shape.v_dim, |task, out| {
        let (r, head) = (task / shape.n_kv_heads, task % shape.n_kv_heads);
        let position = inputs.positions[r];
        let first = op.window.map_or(0, |w| (position + 1).saturating_sub(w));
        let pages = &inputs.tables[inputs.seqs[r] as usize];
        let q = &q.row(r)[head * group * shape.k_dim..][..group * shape.k_dim];
        let mut run = Running { max: vec![f32::NEG_INFINITY; group], sum: vec![0.0; group] };
        if let Some(sinks) = op.sinks {
            // As if a position had come first whose value is zero.
            run.max.copy_from_slice(&sinks[head * group..(head + 1) * group]);
            run.sum.fill(1.0);
        }
        let mut scores = vec![0.0; group * PAGE];
        out.fill(0.0);
        let seen = first as usize / PAGE..=position as usize / PAGE;
        for (page, id) in pages.iter().enumerate().take(seen.end() + 1).skip(*seen.start()) {
            let from = (first as usize).saturating_sub(page * PAGE);
            let n = (position as usize + 1 - page * PAGE).min(PAGE) - from;
            let (dtype, size, scores) = (layer.dtype(), layer.dtype().block_bytes(), &mut scores[..group * n]);
            let keys = &layer.keys(*id, head)[from * shape.k_dim * size..];
            (t.attend_scores)(dtype, q, keys, shape.k_dim, n, scores);
            for (h, scores) in scores.chunks_exact_mut(n).enumerate() {
                op.finish(t, scores, head * group + h, page * PAGE + from, position);
            }
            run.weigh(t, scores, n, out);
            let values = &layer.values(*id, head)[from * shape.v_dim * size..];
            (t.attend_values)(dtype, scores, values, shape.v_dim, n, out);
        }
        for (out, sum) in out.chunks_exact_mut(shape.v_dim).zip(&run.sum) {
            (t.scale)(out, 1.0 / sum);
        }
    });
}

/// The running maximum and sum of each head's weights.
struct Running {
    max: Vec<f32>,
    sum: Vec<f32>,
}

impl Running {
    /// Turns a page's scores (`heads x n`) into weights, and shrinks what `out` (`heads x v_dim`) holds where a larger
    /// score has come.
    fn weigh(&mut self, t: &Table, scores: &mut [f32], n: usize, out: &mut [f32]) {
        let v_dim = out.len() / self.max.len();
        for (h, scores) in scores.chunks_exact_mut(n).enumerate() {
            let max = (t.max)(scores);
            if max > self.max[h] {
                let shrink = (self.max[h] - max).exp();
                self.sum[h] *= shrink;
                (t.scale)(&mut out[h * v_dim..(h + 1) * v_dim], shrink);
                self.max[h] = max;
            }
            self.sum[h] += (t.exp_sum)(scores, self.max[h]);
        }
    }
}
