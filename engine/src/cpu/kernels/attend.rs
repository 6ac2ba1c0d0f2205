//! `attend`: attention over paged keys and values, one pass with a running maximum (Milakov and Gimelshein 2018).
//! Neighbouring rows of a sequence share the reading of its pages.

use std::ops::Range;

use super::kv_write::{Columns, KvLayer};
use super::softcap;
use crate::cpu::pool::{PARTS_PER_THREAD, Pool};
use crate::cpu::simd::panels::Panels;
use crate::cpu::simd::tile::Weights;
use crate::cpu::simd::{Table, TileKernels};
use crate::dtype::DType;
use crate::plan::{AttentionMask, Inputs, PAGE, Relative, Temperature};

/// What stays the same over a step.
#[derive(Debug, Clone, Copy)]
pub struct Attend<'a> {
    /// Query heads.
    pub n_heads: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Soft cap of the scaled scores.
    pub cap: Option<f32>,
    /// Which rows a row sees.
    pub mask: AttentionMask,
    /// Of these so many positions.
    pub window: Option<u32>,
    /// Positions of the runs of which a row sees its own.
    pub chunk: Option<u32>,
    /// The positions that a row sees, in their order: all others are passed over.
    pub chosen: Option<Columns<'a>>,
    /// Factor on the queries by position.
    pub temperature: Option<Temperature>,
    /// Slopes of the heads: times the distance, taken from scaled scores.
    pub slopes: Option<&'a [f32]>,
    /// Summands on scores by distance, with their elements.
    pub relative: Option<(Relative, &'a [f32])>,
    /// Scores of the heads that have no value.
    pub sinks: Option<&'a [f32]>,
}

/// Positions that enter the softmax together, counted from the first of the sequence: the same for a row however a
/// prompt was cut.
const BLOCK: usize = 4 * PAGE;

/// Query heads of neighbouring rows that share the reading of a page.
const TOGETHER: usize = 64;

impl Attend<'_> {
    /// The positions that a row at `position` sees, its text in the step ending at `end` and its source taking the first
    /// `n_source` positions.
    fn span(&self, position: u32, end: u32, n_source: u32) -> Range<usize> {
        let (first, end) = match (self.mask, self.window) {
            (AttentionMask::Causal, window) => {
                let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
                let run = self.chunk.map_or(0, |n| position - position % n);
                (first.max(run).max(n_source), position + 1)
            }
            (AttentionMask::Cross, _) => (0, n_source),
            (AttentionMask::Bidirectional, None) => (0, end),
            (AttentionMask::Bidirectional, Some(window)) => {
                (position.saturating_sub(window / 2), end.min((position + 1).saturating_add(window / 2)))
            }
        };
        first as usize..end as usize
    }

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
                *score -= slopes[h] * (position as usize).abs_diff(first + i) as f32;
            }
        }
        if let Some((of, elements)) = self.relative {
            for (i, score) in scores.iter_mut().enumerate() {
                let (here, there) = (position as usize, first + i);
                let bucket = of.bucket(here.abs_diff(there), there > here, self.mask == AttentionMask::Bidirectional);
                *score += elements[bucket * self.n_heads + h];
            }
        }
    }
}

/// `out[r][h] = softmax(cap(scale * q[r][h] . K)) . V` over the positions that the row sees. `scratch` is
/// memory that is used again from call to call.
///
/// Positions are taken in their order, in blocks that depend on nothing else, so a row's result does not depend on what
/// else is in the step.
#[expect(clippy::too_many_arguments, reason = "an op with its operands; each is named at the call")]
pub fn attend(
    t: &Table,
    pool: &Pool,
    scratch: &mut Vec<f32>,
    inputs: &Inputs,
    q: Columns<'_>,
    layer: &KvLayer,
    op: Attend<'_>,
    out: &mut [f32],
) {
    let shape = layer.shape();
    let group = op.n_heads / shape.n_kv_heads;
    let ends = inputs.ends();
    let n_rows = out.len() / (op.n_heads * shape.v_dim);
    // A value that is a part of its key is summed with the rest of the key, which is left out at the end.
    let width = if shape.v_in_k { shape.k_dim } else { shape.v_dim };
    let together = rows_together(n_rows, group, shape.n_kv_heads, pool.threads());
    let size = together * group * width;
    let len = n_rows.div_ceil(together) * shape.n_kv_heads * size;
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    // One task is the query heads of some rows that share a key-value head.
    pool.chunks_mut(&mut scratch[..len], size, |task, acc| {
        let (first, head) = (task / shape.n_kv_heads * together, task % shape.n_kv_heads);
        let rows = first..(first + together).min(n_rows);
        for rows in sequences(inputs, rows) {
            let acc = &mut acc[(rows.start - first) * group * width..][..rows.len() * group * width];
            Rows { t, inputs, ends: &ends, q, layer, op, group, head, rows, width }.attend(acc);
        }
    });
    let done = &*scratch;
    pool.rows_mut(out, op.n_heads * shape.v_dim, |r, out| {
        for (head, out) in out.chunks_exact_mut(group * shape.v_dim).enumerate() {
            let task = r / together * shape.n_kv_heads + head;
            let from = &done[task * size + r % together * group * width..][..group * width];
            for (out, from) in out.chunks_exact_mut(shape.v_dim).zip(from.chunks_exact(width)) {
                out.copy_from_slice(&from[..shape.v_dim]);
            }
        }
    });
}

/// Rows of a task: as many as [`TOGETHER`] allows while there are parts enough for all threads.
fn rows_together(n_rows: usize, group: usize, n_kv_heads: usize, threads: usize) -> usize {
    let mut rows = (TOGETHER / group).clamp(1, n_rows.max(1));
    while rows > 1 && n_rows.div_ceil(rows) * n_kv_heads < threads * PARTS_PER_THREAD {
        rows /= 2;
    }
    rows
}

/// The parts of `rows` that are neighbouring positions of one sequence.
fn sequences(inputs: &Inputs, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let mut start = rows.start;
    std::iter::from_fn(move || {
        let first = start;
        let mut end = first;
        while end < rows.end
            && inputs.seqs[end] == inputs.seqs[first]
            && inputs.positions[end] as usize == inputs.positions[first] as usize + (end - first)
        {
            end += 1;
        }
        start = end;
        (first < end).then_some(first..end)
    })
}

/// The query heads of neighbouring rows of a sequence that share a key-value head: `group` for each row.
struct Rows<'a> {
    t: &'a Table,
    inputs: &'a Inputs,
    /// Where the text of each sequence ends in the step.
    ends: &'a [u32],
    q: Columns<'a>,
    layer: &'a KvLayer,
    op: Attend<'a>,
    group: usize,
    head: usize,
    rows: Range<usize>,
    width: usize,
}

/// What a task uses again from page to page.
struct Work {
    /// The running maximum and sum of each query head.
    max: Vec<f32>,
    sum: Vec<f32>,
    /// `[query head][BLOCK]`.
    scores: Vec<f32>,
    /// Weights or scores of one page: `[query head][positions]`.
    page: Vec<f32>,
    /// A page as floats.
    floats: Vec<f32>,
    keys: Weights,
    /// The queries, if they are enough for the tile.
    panels: Option<(TileKernels, Panels)>,
}

impl Rows<'_> {
    /// `acc`: `[query head][width]`.
    fn attend(&self, acc: &mut [f32]) {
        let seq = self.inputs.seqs[self.rows.start];
        let (end, n_source) = (self.ends[seq as usize], self.inputs.n_source(seq));
        let span = |r: usize| self.op.span(self.inputs.positions[r], end, n_source);
        let spans: Vec<_> = self.rows.clone().map(span).collect();
        let first = spans.iter().map(|s| s.start).min().unwrap_or(0) / BLOCK;
        let end = spans.iter().map(|s| s.end).max().unwrap_or(0);
        let mut work = self.work();
        acc.fill(0.0);
        for block in (first * BLOCK..end).step_by(BLOCK) {
            // Pages that no row sees may have been given back.
            let seen = |page: &usize| spans.iter().any(|s| s.start < page + PAGE && s.end > *page);
            let pages: Vec<usize> = (block..end.min(block + BLOCK)).step_by(PAGE).filter(seen).collect();
            for page in &pages {
                self.scores(&spans, *page, block, &mut work);
            }
            for (i, span) in spans.iter().enumerate() {
                let seen = span.start.max(block)..span.end.min(block + BLOCK);
                if !seen.is_empty() {
                    self.weigh(i, seen, block, &mut work, acc);
                }
            }
            for page in &pages {
                self.values(&spans, *page, block, &mut work, acc);
            }
        }
        for (acc, sum) in acc.chunks_exact_mut(self.width).zip(&work.sum) {
            (self.t.scale)(acc, 1.0 / sum);
        }
    }

    fn work(&self) -> Work {
        let n = self.rows.len() * self.group;
        let (mut max, mut sum) = (vec![f32::NEG_INFINITY; n], vec![0.0; n]);
        if let Some(sinks) = self.op.sinks {
            // As if a position had come first whose value is zero.
            let sinks = &sinks[self.head * self.group..][..self.group];
            max.chunks_exact_mut(self.group).for_each(|max| max.copy_from_slice(sinks));
            sum.fill(1.0);
        }
        let panels = self.t.attend_tile.filter(|tile| n >= tile.rows && self.k_dim() <= tile.block).map(|tile| {
            let q: Vec<&[f32]> = self.rows.clone().flat_map(|r| self.queries(r).chunks_exact(self.k_dim())).collect();
            let mut panels = Panels::default();
            for (mut panel, q) in panels.resize(n, self.k_dim(), tile.layout, tile.rows).zip(q.chunks(tile.rows)) {
                panel.pack_f32(q, 0..self.k_dim(), tile.lanes);
            }
            (tile, panels)
        });
        let (scores, page) = (vec![0.0; n * BLOCK], vec![0.0; n.next_multiple_of(16) * PAGE]);
        Work { max, sum, scores, page, floats: Vec::new(), keys: Weights::EMPTY, panels }
    }

    fn k_dim(&self) -> usize {
        self.layer.shape().k_dim
    }

    /// A row's queries of this key-value head: `[group][k_dim]`.
    fn queries(&self, r: usize) -> &[f32] {
        let len = self.group * self.k_dim();
        &self.q.row(r)[self.head * len..][..len]
    }

    /// The pages of the sequence.
    fn page_id(&self, page: usize) -> u32 {
        self.inputs.table(self.inputs.seqs[self.rows.start], self.layer.group())[page / PAGE]
    }

    /// A page as floats; as it lies if it is read only a few times and no row of blocks.
    fn floats<'a>(&self, bytes: &'a [u8], n: usize, floats: &'a mut Vec<f32>) -> (DType, &'a [u8]) {
        let dtype = self.layer.dtype();
        if !dtype.is_plain() {
            floats.resize(bytes.len() / dtype.block_bytes() * dtype.block_len(), 0.0);
            (dtype.traits().decode)(bytes, floats);
            return (DType::F32, bytemuck::cast_slice(floats));
        }
        if dtype != DType::F16 || n <= self.group {
            return (dtype, bytes);
        }
        floats.resize(bytes.len() / 2, 0.0);
        (self.t.from_f16)(bytes, floats);
        (DType::F32, bytemuck::cast_slice(floats))
    }

    /// The scores of the page that begins at position `page`.
    fn scores(&self, spans: &[Range<usize>], page: usize, block: usize, work: &mut Work) {
        let (k_dim, group) = (self.k_dim(), self.group);
        let keys = self.layer.keys(self.page_id(page), self.head);
        let Work { scores, page: few, floats, keys: unpacked, panels, .. } = work;
        if let Some((tile, panels)) = panels {
            let (_, keys) = self.floats(keys, usize::MAX, floats);
            (tile.unpack)(keys, k_dim * 4, 0, unpacked);
            let n = tile.rows * PAGE;
            for (i, scores) in scores.chunks_mut(tile.rows * BLOCK).enumerate() {
                (tile.multiply)(unpacked, panels, i, &[], &mut few[..n]);
                for (to, from) in scores.chunks_exact_mut(BLOCK).zip(few.chunks_exact(PAGE)) {
                    to[page - block..][..PAGE].copy_from_slice(from);
                }
            }
            return;
        }
        let (dtype, keys) = self.floats(keys, 0, floats);
        let size = dtype.block_bytes();
        for (i, span) in spans.iter().enumerate() {
            let Some((from, n)) = within(span, page) else { continue };
            let few = &mut few[..group * n];
            let keys = &keys[from * k_dim * size..];
            (self.t.attend_scores)(dtype, self.queries(self.rows.start + i), keys, k_dim, n, few);
            for (to, few) in scores[i * group * BLOCK..].chunks_exact_mut(BLOCK).zip(few.chunks_exact(n)) {
                to[page - block + from..][..n].copy_from_slice(few);
            }
        }
    }

    /// Turns the scores of row `i`, which sees the positions `seen` of the block, into weights, and shrinks what `acc`
    /// holds if a larger score has come.
    fn weigh(&self, i: usize, seen: Range<usize>, block: usize, work: &mut Work, acc: &mut [f32]) {
        let position = self.inputs.positions[self.rows.start + i];
        for h in 0..self.group {
            let n = i * self.group + h;
            let scores = &mut work.scores[n * BLOCK..][seen.start - block..seen.end - block];
            self.op.finish(self.t, scores, self.head * self.group + h, seen.start, position);
            let chosen = self.op.chosen.map(|chosen| chosen.row(self.rows.start + i));
            if chosen.is_some_and(|chosen| !keep_chosen(chosen, seen.start, scores)) {
                scores.fill(0.0);
                continue;
            }
            let max = (self.t.max)(scores);
            if max > work.max[n] {
                let shrink = (work.max[n] - max).exp();
                work.sum[n] *= shrink;
                (self.t.scale)(&mut acc[n * self.width..][..self.width], shrink);
                work.max[n] = max;
            }
            work.sum[n] += (self.t.exp_sum)(scores, work.max[n]);
        }
    }

    /// Adds the weighted values of the page that begins at position `page`.
    fn values(&self, spans: &[Range<usize>], page: usize, block: usize, work: &mut Work, acc: &mut [f32]) {
        let (id, width, group) = (self.page_id(page), self.width, self.group);
        let values =
            if self.layer.shape().v_in_k { self.layer.keys(id, self.head) } else { self.layer.values(id, self.head) };
        let Work { scores, page: weights, floats, .. } = work;
        let (dtype, values) = self.floats(values, spans.len() * group, floats);
        let mut first = 0;
        while first < spans.len() {
            let seen = within(&spans[first], page);
            let rows = spans[first..].iter().take_while(|s| within(s, page) == seen).count();
            if let Some((from, n)) = seen {
                let weights = &mut weights[..rows * group * n];
                for (to, scores) in weights.chunks_exact_mut(n).zip(scores.chunks_exact(BLOCK).skip(first * group)) {
                    to.copy_from_slice(&scores[page - block + from..][..n]);
                }
                let acc = &mut acc[first * group * width..][..rows * group * width];
                (self.t.attend_values)(dtype, weights, &values[from * width * dtype.block_bytes()..], width, n, acc);
            }
            first += rows;
        }
    }
}

/// Takes from the softmax what is not among the positions chosen, which are in their order; `first` is that of the first score.
/// Whether any is left.
fn keep_chosen(chosen: &[f32], first: usize, scores: &mut [f32]) -> bool {
    let at = |position: &f32| position.to_bits() as usize;
    let from = chosen.partition_point(|position| at(position) < first);
    let mut kept =
        chosen[from..].iter().map(|position| at(position) - first).take_while(|at| *at < scores.len()).peekable();
    let any = kept.peek().is_some();
    let mut keep = vec![false; scores.len()];
    kept.for_each(|at| keep[at] = true);
    for (score, _) in scores.iter_mut().zip(keep).filter(|(_, keep)| !keep) {
        *score = f32::NEG_INFINITY;
    }
    any
}

/// The part of a page that lies in a span: from which of its positions on, and how many; `None` for none.
fn within(span: &Range<usize>, page: usize) -> Option<(usize, usize)> {
    let (from, end) = (span.start.saturating_sub(page), span.end.min(page + PAGE));
    (page + from < end).then(|| (from, end - page - from))
}

#[cfg(test)]
#[path = "../tests/attend.rs"]
mod tests;
