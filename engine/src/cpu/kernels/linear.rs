//! `linear`: activations times the transpose of a weight, spread over threads. A weight is a list of row segments that
//! fill consecutive output columns. The inner loops are in the tables of `cpu::simd`.

use std::cell::Cell;
use std::ops::Range;

use crate::cpu::pool::{Columns, PARTS_PER_THREAD, Pool};
use crate::cpu::simd::dot_rows::ROWS;
use crate::cpu::simd::panels::{PanelMut, Panels, copy_exactly};
use crate::cpu::simd::q8::{Q8, Q8Row};
use crate::cpu::simd::tile::Weights;
use crate::cpu::simd::{PLAIN_BLOCK, RowsKernel, Table, TileKernels, TypeKernels};
use crate::dtype::DType;
use crate::plan::Segment;

/// What weights are multiplied with. F32 and F16 weights always meet floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activations {
    /// Activations as they are.
    F32,
    /// Beside quantised weights in 8 bits with a scale for each 32.
    #[default]
    Quantised,
    /// The same, and rounded to BF16 beside BF16 weights where the processor multiplies such pairs.
    Bf16,
}

/// Memory that [`linear`] uses again from call to call.
#[derive(Debug, Default)]
pub struct Scratch {
    q8: Q8,
    /// Activations rounded to BF16, in pairs.
    pairs: Vec<f32>,
    /// Activations laid out for the tiles of each weight type in use, a layout for each block of columns.
    panels: Vec<Vec<Panels>>,
}

/// Activation rows given together to one pass over a weight row.
const FEW: usize = 8;
/// Weight rows that are multiplied with every few activation rows in turn.
const WEIGHT_ROWS: usize = 32;

/// `out[r][c] = (x[r] . w[c]) * scale[c] + bias[c]`, where the columns `c` run through the rows of all segments.
/// `x`: n x `k`; `out`: n x (rows of all segments).
///
/// # Panics
/// Where the lengths disagree.
#[expect(clippy::too_many_arguments, reason = "an op with its operands; each is named at the call")]
pub fn linear(
    table: &Table,
    pool: &Pool,
    scratch: &mut Scratch,
    segments: &[Segment],
    k: usize,
    x: &[f32],
    mode: Activations,
    scale: Option<&[f32]>,
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    let n: usize = segments.iter().map(|s| s.rows).sum();
    if n == 0 || x.is_empty() {
        return;
    }
    let rows = x.len() / k;
    assert!(x.len() == rows * k && out.len() == rows * n, "activations {} and output {}", x.len(), out.len());
    let fits = |vector: Option<&[f32]>| vector.is_none_or(|v| v.len() == n);
    assert!(fits(scale) && fits(bias), "factors or a bias of another length than the output");
    for s in segments {
        let row = s.dtype.bytes_for(k);
        assert!(row.and_then(|b| b.checked_mul(s.rows)) == Some(s.bytes.len()), "a {} segment of wrong size", s.dtype);
    }
    let forms: Vec<Form> = segments.iter().map(|s| Form::of(table, s.dtype, k, mode)).collect();
    if forms.contains(&Form::Quants) {
        quantise(table, pool, x, k, &mut scratch.q8);
    }
    if forms.contains(&Form::Pairs) {
        round(pool, x, k, &mut scratch.pairs);
    }
    let rows = Rows {
        floats: x.chunks_exact(k).collect(),
        pairs: scratch.pairs.chunks_exact((k / 2).max(1)).take(rows).collect(),
        quants: (0..scratch.q8.rows()).map(|r| scratch.q8.row(r)).collect(),
    };
    let tiles: Vec<Option<TileKernels>> =
        segments.iter().zip(&forms).map(|(s, form)| form.tile(table, s.dtype, rows.floats.len())).collect();
    pack(pool, &tiles, &rows, &mut scratch.panels);
    let panels = &scratch.panels;
    let step = tiles.iter().flatten().map(|t| t.columns).max().unwrap_or(1);
    pool.columns(out, n, pool.threads() * PARTS_PER_THREAD, step, |range, mut view| {
        let mut tile = TILE.take();
        for (s, range, at) in pieces(segments, range.clone()) {
            let piece = Piece { segment: &segments[s], rows: range, at };
            let kernels = table.of(piece.segment.dtype);
            let panels = tiles[s].and_then(|t| Some((t, panels.iter().find(|p| p[0].layout == t.layout)?)));
            match (panels, forms[s], kernels) {
                (Some((kernels, panels)), ..) => piece.many(&kernels, panels, &mut tile, &mut view),
                (None, Form::Quants, _) => piece.few(&rows.quants, kernels.dots_q8, &mut view),
                (None, Form::Pairs, TypeKernels { pairs: Some(pairs), .. }) => {
                    piece.few(&rows.pairs, pairs.dots, &mut view);
                }
                (None, _, TypeKernels { rows: Some(kernel), .. }) if rows.floats.len() > 1 => {
                    piece.some(&rows.floats, *kernel, &mut view);
                }
                _ => piece.few(&rows.floats, kernels.dots_f32, &mut view),
            }
        }
        if let Some(scale) = scale {
            for r in 0..view.rows() {
                view.row_mut(r).iter_mut().zip(&scale[range.clone()]).for_each(|(x, s)| *x *= s);
            }
        }
        if let Some(bias) = bias {
            for r in 0..view.rows() {
                (table.add)(view.row_mut(r), &bias[range.clone()]);
            }
        }
        TILE.set(tile);
    });
}

thread_local! {
    /// A thread's tile between parts.
    static TILE: Cell<Weights> = const { Cell::new(Weights::EMPTY) };
}

/// What a segment's weights are multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Floats,
    /// Numbers of BF16 in pairs.
    Pairs,
    /// Blocks of 8 bits.
    Quants,
}

impl Form {
    fn of(table: &Table, dtype: DType, k: usize, mode: Activations) -> Form {
        match mode {
            Activations::Quantised | Activations::Bf16 if !dtype.is_plain() => Form::Quants,
            Activations::Bf16 if k.is_multiple_of(2) && table.of(dtype).pairs.is_some() => Form::Pairs,
            _ => Form::Floats,
        }
    }

    /// The many-rows form, where there is one and it pays: of block types from a full panel of activation rows on, as
    /// measured on AVX2.
    fn tile(self, table: &Table, dtype: DType, rows: usize) -> Option<TileKernels> {
        let kernels = table.of(dtype);
        match self {
            Form::Quants => kernels.tile.filter(|tile| rows >= tile.rows),
            Form::Pairs => kernels.pairs.map(|pairs| pairs.tile).filter(|_| rows >= PLAIN_ROWS),
            Form::Floats => {
                let least = if kernels.rows.is_some() { MORE_ROWS } else { PLAIN_ROWS };
                kernels.tile.filter(|_| dtype.is_plain() && rows >= least)
            }
        }
    }
}

/// Activation rows from which on the tiles of plain types pay: making one costs what multiplying so many rows does, and the
/// few-rows form is quick.
const PLAIN_ROWS: usize = 24;
/// The same where there is a form for some rows, which is quicker.
const MORE_ROWS: usize = 128;

/// Rows of activations in each form that is in use.
struct Rows<'a> {
    floats: Vec<&'a [f32]>,
    pairs: Vec<&'a [f32]>,
    quants: Vec<Q8Row<'a>>,
}

/// Rounds rows of `k` columns to BF16, half to even; two neighbours take the place of a float.
fn round(pool: &Pool, x: &[f32], k: usize, pairs: &mut Vec<f32>) {
    let bf16 = |x: f32| {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        if x.is_nan() { 0x7fc0 } else { rounded }
    };
    pairs.resize(x.len() / 2, 0.0);
    pool.chunks_mut(pairs, k / 2 * 8, |i, pairs| {
        for (pair, x) in pairs.iter_mut().zip(x[i * k * 8..].chunks_exact(2)) {
            *pair = f32::from_bits(bf16(x[0]) | bf16(x[1]) << 16);
        }
    });
}

/// Quantises the rows of `x`, in parallel where there are many.
fn quantise(table: &Table, pool: &Pool, x: &[f32], k: usize, q8: &mut Q8) {
    q8.resize(x.len() / k, k);
    let mut rows: Vec<_> = q8.rows_mut().zip(x.chunks_exact(k)).map(Some).collect();
    pool.chunks_mut(&mut rows, 8, |_, rows| {
        for (out, x) in rows.iter_mut().filter_map(Option::take) {
            (table.quantise)(x, out);
        }
    });
}

/// Lays out the activations for each kind of tile in use, in parallel.
fn pack(pool: &Pool, tiles: &[Option<TileKernels>], rows: &Rows<'_>, all: &mut Vec<Vec<Panels>>) {
    let mut kinds: Vec<&TileKernels> = tiles.iter().flatten().collect();
    kinds.sort_by_key(|t| t.layout);
    kinds.dedup_by_key(|t| t.layout);
    all.resize_with(kinds.len(), Vec::new);
    for (t, blocks) in kinds.into_iter().zip(all) {
        let x = if t.layout.0 == 2 { &rows.pairs } else { &rows.floats };
        let k = x[0].len();
        blocks.resize_with(k.div_ceil(t.block), Panels::default);
        for (b, panels) in blocks.iter_mut().enumerate() {
            let columns = b * t.block..k.min((b + 1).saturating_mul(t.block));
            let mut parts: Vec<PanelMut<'_>> = panels.resize(x.len(), columns.len(), t.layout, t.rows).collect();
            pool.chunks_mut(&mut parts, 1, |i, part| {
                let range = i * t.rows..((i + 1) * t.rows).min(x.len());
                if t.layout.0 <= 2 {
                    part[0].pack_f32(&x[range], columns.clone(), t.lanes);
                } else {
                    part[0].pack_q8(&rows.quants[range], t.lanes);
                }
            });
        }
    }
}

/// The segments that make the columns of `range`: the index of each, its own rows, and the place of the first in the
/// range.
fn pieces(segments: &[Segment], range: Range<usize>) -> Vec<(usize, Range<usize>, usize)> {
    let (mut found, mut start) = (Vec::new(), 0);
    for (i, s) in segments.iter().enumerate() {
        let (from, to) = (range.start.max(start), range.end.min(start + s.rows));
        if from < to {
            found.push((i, from - start..to - start, from - range.start));
        }
        start += s.rows;
    }
    found
}

/// Rows of a segment that one part computes.
struct Piece<'a> {
    segment: &'a Segment,
    rows: Range<usize>,
    /// The place of the first row in the part's columns.
    at: usize,
}

impl Piece<'_> {
    /// The few-rows form: one pass over each weight row for up to [`FEW`] activation rows.
    fn few<X>(&self, x: &[X], dots: fn(&[u8], &[X], &mut [f32]), view: &mut Columns<'_, f32>) {
        let row_bytes = self.segment.row_bytes;
        let bytes = &self.segment.bytes[self.rows.start * row_bytes..self.rows.end * row_bytes];
        let rows = bytes.chunks_exact(row_bytes);
        if x.len() == 1 {
            let out = &mut view.row_mut(0)[self.at..][..self.rows.len()];
            return rows.zip(out.chunks_mut(1)).for_each(|(w, out)| dots(w, x, out));
        }
        for (i, w) in rows.enumerate() {
            for (chunk, x) in x.chunks(FEW).enumerate() {
                let mut out = [0.0; FEW];
                dots(w, x, &mut out[..x.len()]);
                for (r, v) in out[..x.len()].iter().enumerate() {
                    view.row_mut(chunk * FEW + r)[self.at + i] = *v;
                }
            }
        }
    }

    /// The form for some rows: a few weight rows, which stay in a cache, against every few activation rows.
    fn some(&self, x: &[&[f32]], kernel: RowsKernel, view: &mut Columns<'_, f32>) {
        let (bytes, row_bytes) = (&self.segment.bytes, self.segment.row_bytes);
        let (blocks, groups) = (x[0].len().div_ceil(PLAIN_BLOCK), x.len().div_ceil(ROWS));
        for b in 0..blocks {
            for first in self.rows.clone().step_by(WEIGHT_ROWS) {
                let n = WEIGHT_ROWS.min(self.rows.end - first);
                let next = first + n..(first + 2 * n).min(self.rows.end);
                let mut ahead = self.ahead(next, blocks, b, groups);
                let at = self.at + first - self.rows.start;
                for (group, x) in x.chunks(ROWS).enumerate() {
                    let mut out = [0.0; ROWS * WEIGHT_ROWS];
                    let out = &mut out[..x.len() * n];
                    let w = &bytes[first * row_bytes..(first + n) * row_bytes];
                    kernel(w, row_bytes, b, x, ahead.next().unwrap_or_default(), out);
                    for (r, out) in out.chunks(n).enumerate() {
                        put(&mut view.row_mut(group * ROWS + r)[at..at + n], out, b > 0);
                    }
                }
            }
        }
    }

    /// The many-rows form: a tile of weight rows, unpacked once, against every panel; block of columns by block.
    fn many(&self, t: &TileKernels, blocks: &[Panels], tile: &mut Weights, view: &mut Columns<'_, f32>) {
        let (bytes, row_bytes) = (&self.segment.bytes, self.segment.row_bytes);
        let mut out = [0.0; 16 * 16];
        let out = &mut out[..t.rows * t.columns];
        let panels = view.rows().div_ceil(t.rows);
        for (b, x) in blocks.iter().enumerate() {
            for first in self.rows.clone().step_by(t.columns) {
                let n = t.columns.min(self.rows.end - first);
                (t.unpack)(&bytes[first * row_bytes..(first + n) * row_bytes], row_bytes, b, tile);
                let at = self.at + first - self.rows.start;
                let mut ahead =
                    self.ahead(first + n..(first + n + t.columns).min(self.rows.end), blocks.len(), b, panels);
                for panel in 0..panels {
                    (t.multiply)(tile, x, panel, ahead.next().unwrap_or_default(), out);
                    for r in 0..t.rows.min(view.rows() - panel * t.rows) {
                        let to = &mut view.row_mut(panel * t.rows + r)[at..at + n];
                        put(to, &out[r * t.columns..][..n], b > 0);
                    }
                }
            }
        }
    }

    /// The bytes that the next tile is made of, in about as many shares as there are panels: they come from memory while
    /// this tile is multiplied.
    fn ahead(&self, rows: Range<usize>, blocks: usize, block: usize, panels: usize) -> impl Iterator<Item = &[u8]> {
        let row_bytes = self.segment.row_bytes;
        let (part, whole) = (row_bytes / blocks, rows.len() * row_bytes / blocks);
        let runs = if blocks == 1 { usize::from(!rows.is_empty()) } else { rows.len() };
        let run = if blocks == 1 { whole } else { part };
        let share = whole.div_ceil(panels).next_multiple_of(64).max(64);
        (0..runs).flat_map(move |r| {
            let from = (rows.start + r) * row_bytes + block * part;
            self.segment.bytes[from..from + run].chunks(share)
        })
    }
}

/// Stores the results of a tile's columns, or adds them to those of the blocks before.
fn put(to: &mut [f32], from: &[f32], add: bool) {
    if add {
        return to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
    }
    match from.len() {
        4 => copy_exactly::<4, _>(to, from),
        8 => copy_exactly::<8, _>(to, from),
        16 => copy_exactly::<16, _>(to, from),
        32 => copy_exactly::<32, _>(to, from),
        _ => to.copy_from_slice(from),
    }
}

#[cfg(test)]
#[path = "../tests/linear.rs"]
mod tests;
