//! `linear`: activations times the transpose of a weight, spread over threads. A weight is a list of row segments that
//! fill consecutive output columns. The inner loops are in the tables of `cpu::simd`.

use std::cell::Cell;
use std::ops::Range;

use crate::cpu::pool::{Columns, PARTS_PER_THREAD, Pool};
use crate::cpu::simd::panels::{PanelMut, Panels, copy_exactly};
use crate::cpu::simd::q8::{Q8, Q8Row};
use crate::cpu::simd::tile::Weights;
use crate::cpu::simd::{Table, TileKernels, TypeKernels};
use crate::dtype::DType;
use crate::plan::Segment;

/// What quantised weights are multiplied with. Plain weights always meet floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activations {
    /// Activations as they are.
    F32,
    /// Activations in 8 bits with a scale for each 32.
    #[default]
    Quantised,
}

/// Memory that [`linear`] uses again from call to call.
#[derive(Debug, Default)]
pub struct Scratch {
    q8: Q8,
    /// Activations laid out for the tiles of each weight type in use.
    panels: Vec<Panels>,
}

/// Activation rows given together to one pass over a weight row.
const FEW: usize = 8;

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
    let q8 = &mut scratch.q8;
    if mode == Activations::Quantised && segments.iter().any(|s| quantised(s.dtype)) {
        quantise(table, pool, x, k, q8);
    }
    let floats: Vec<&[f32]> = x.chunks_exact(k).collect();
    let quants: Vec<Q8Row<'_>> = (0..q8.rows()).map(|r| q8.row(r)).collect();
    let tiles: Vec<Option<TileKernels>> = segments.iter().map(|s| tiled(table, s.dtype, rows, mode)).collect();
    pack(pool, &tiles, &floats, &quants, &mut scratch.panels);
    let panels = &scratch.panels;
    let step = tiles.iter().flatten().map(|t| t.columns).max().unwrap_or(1);
    pool.columns(out, n, pool.threads() * PARTS_PER_THREAD, step, |range, mut view| {
        let mut tile = TILE.take();
        for (s, rows, at) in pieces(segments, range.clone()) {
            let segment = &segments[s];
            let piece = Piece { segment, kernels: table.of(segment.dtype), rows, at };
            let panels = tiles[s].and_then(|t| Some((t, panels.iter().find(|p| p.layout == t.layout)?)));
            if let Some((kernels, panels)) = panels {
                piece.many(&kernels, panels, &mut tile, &mut view);
            } else if mode == Activations::Quantised && quantised(segment.dtype) {
                piece.few(&quants, piece.kernels.dots_q8, &mut view);
            } else {
                piece.few(&floats, piece.kernels.dots_f32, &mut view);
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

const fn quantised(dtype: DType) -> bool {
    !dtype.is_plain()
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

/// The many-rows form of a segment, where it has one and it pays: from a full panel of activation rows on, as measured
/// on AVX2.
fn tiled(table: &Table, dtype: DType, rows: usize, mode: Activations) -> Option<TileKernels> {
    let tile = table.of(dtype).tile?;
    (rows >= tile.rows && (mode == Activations::Quantised || !quantised(dtype))).then_some(tile)
}

/// Lays out the activations for each kind of tile in use, in parallel.
fn pack(pool: &Pool, tiles: &[Option<TileKernels>], floats: &[&[f32]], quants: &[Q8Row<'_>], all: &mut Vec<Panels>) {
    let mut kinds: Vec<&TileKernels> = tiles.iter().flatten().collect();
    kinds.sort_by_key(|t| t.layout);
    kinds.dedup_by_key(|t| t.layout);
    all.resize_with(kinds.len(), Panels::default);
    for (t, panels) in kinds.into_iter().zip(all) {
        let k = floats[0].len();
        let mut parts: Vec<PanelMut<'_>> = panels.resize(floats.len(), k, t.layout, t.rows).collect();
        pool.chunks_mut(&mut parts, 1, |i, part| {
            let range = i * t.rows..((i + 1) * t.rows).min(floats.len());
            if t.layout.0 == 1 {
                part[0].pack_f32(&floats[range], t.lanes);
            } else {
                part[0].pack_q8(&quants[range], t.lanes);
            }
        });
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
    kernels: &'a TypeKernels,
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

    /// The many-rows form: a tile of weight rows, unpacked once, against every panel.
    fn many(&self, t: &TileKernels, x: &Panels, tile: &mut Weights, view: &mut Columns<'_, f32>) {
        let row_bytes = self.segment.row_bytes;
        let mut out = [0.0; 16 * 16];
        let out = &mut out[..t.rows * t.columns];
        for first in self.rows.clone().step_by(t.columns) {
            let n = t.columns.min(self.rows.end - first);
            (t.unpack)(&self.segment.bytes[first * row_bytes..(first + n) * row_bytes], row_bytes, tile);
            let at = self.at + first - self.rows.start;
            // The next tile's bytes come from memory while this one is multiplied, a share with each panel.
            let ahead =
                &self.segment.bytes[(first + n) * row_bytes..(first + n + t.columns).min(self.rows.end) * row_bytes];
            let panels = view.rows().div_ceil(t.rows);
            let mut shares = ahead.chunks(ahead.len().div_ceil(panels).next_multiple_of(64).max(64));
            for panel in 0..panels {
                (t.multiply)(tile, x, panel, shares.next().unwrap_or_default(), out);
                for r in 0..t.rows.min(view.rows() - panel * t.rows) {
                    let (to, from) = (&mut view.row_mut(panel * t.rows + r)[at..at + n], &out[r * t.columns..][..n]);
                    match n {
                        4 => copy_exactly::<4, _>(to, from),
                        8 => copy_exactly::<8, _>(to, from),
                        16 => copy_exactly::<16, _>(to, from),
                        32 => copy_exactly::<32, _>(to, from),
                        _ => to.copy_from_slice(from),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::exam::{Random, tables};

    fn segment(dtype: DType, rows: usize, bytes: &[u8]) -> Segment {
        let (bytes, row_bytes) = (bytes.to_vec().into(), bytes.len() / rows);
        Segment { name: String::new(), dtype, rows, bytes, row_bytes, offset: 0 }
    }

    /// Every table gives the same bits for a row alone, among few, and among many, with any number of threads.
    #[test]
    fn batches_and_threads_change_no_bit() {
        let mut random = Random(21);
        let mut scratch = Scratch::default();
        for table in tables() {
            for (i, dtype) in DType::ALL.iter().enumerate() {
                let k = [256, 512, 768, 1280][i % 4];
                let other = DType::ALL[(i * 5 + 1) % DType::ALL.len()];
                let w = [random.weights(*dtype, 37 * k, 0.1), random.weights(other, 21 * k, 0.1)];
                let segments = [segment(*dtype, 37, &w[0]), segment(other, 21, &w[1])];
                let (rows, n) = (21, 58);
                let (x, bias) = (random.floats(rows * k), random.floats(n));
                let mut run = |threads, x: &[f32]| {
                    let mut out = vec![f32::NAN; x.len() / k * n];
                    let (pool, mode) = (Pool::new(threads), Activations::Quantised);
                    linear(table, &pool, &mut scratch, &segments, k, x, mode, None, Some(&bias), &mut out);
                    out.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
                };
                let single: Vec<u32> = x.chunks_exact(k).flat_map(|x| run(1, x)).collect();
                assert!(single.iter().all(|v| f32::from_bits(*v).is_finite()));
                assert_eq!(run(1, &x), single, "{} {dtype} all rows", table.name);
                assert_eq!(run(3, &x), single, "{} {dtype} three threads", table.name);
                let chunked: Vec<u32> = x.chunks(5 * k).flat_map(|x| run(2, x)).collect();
                assert_eq!(chunked, single, "{} {dtype} chunks of 5", table.name);
            }
        }
    }

    /// Plain types of any width, against the definition computed here.
    #[test]
    fn plain_types_of_any_width() {
        let mut random = Random(22);
        let mut scratch = Scratch::default();
        let pool = Pool::new(2);
        for table in tables() {
            for k in [1, 5, 31, 33, 70] {
                for rows in [1, 3, 9, 40] {
                    let n = 19;
                    let w = random.weights(DType::F32, n * k, 1.0);
                    let x = random.floats(rows * k);
                    let mut out = vec![f32::NAN; rows * n];
                    let segments = [segment(DType::F32, n, &w)];
                    linear(table, &pool, &mut scratch, &segments, k, &x, Activations::F32, None, None, &mut out);
                    let w: Vec<f64> =
                        w.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect();
                    for (i, got) in out.iter().enumerate() {
                        let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
                        let exact: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * w).sum();
                        assert!((f64::from(*got) - exact).abs() < 1e-5, "{} k={k} rows={rows}", table.name);
                    }
                }
            }
        }
    }
}
