//! Linear: activations times the transpose of a weight, spread over threads. A weight is a list of row segments that
//! fill consecutive output columns. The inner loops are in the tables of `cpu::simd`.

use std::ops::Range;

use super::pool::{Columns, Pool};
use super::simd::q8::{Q8, Q8Row};
use super::simd::{Table, TypeKernels};
use crate::dtype::DType;

/// Weight rows of one type; row `i` makes one output column.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// How the rows are stored.
    pub dtype: DType,
    /// Rows, each of the weight's whole width.
    pub rows: usize,
    /// The rows, one after the other, at any alignment.
    pub bytes: &'a [u8],
}

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
}

/// Activation rows given together to one pass over a weight row.
const FEW: usize = 8;

/// `out[r][c] = x[r] . w[c] + bias[c]`, where the columns `c` run through the rows of all segments.
/// `x`: n x `k`; `out`: n x (rows of all segments).
///
/// # Panics
/// Where the lengths disagree.
#[expect(clippy::too_many_arguments, reason = "an op with its operands; each is named at the call")]
pub fn linear(
    table: &Table,
    pool: &Pool,
    scratch: &mut Scratch,
    segments: &[Segment<'_>],
    k: usize,
    x: &[f32],
    mode: Activations,
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    let n: usize = segments.iter().map(|s| s.rows).sum();
    if n == 0 || x.is_empty() {
        return;
    }
    let rows = x.len() / k;
    assert!(x.len() == rows * k && out.len() == rows * n, "activations {} and output {}", x.len(), out.len());
    assert!(bias.is_none_or(|b| b.len() == n), "a bias of another length than the output");
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
    pool.columns(out, n, pool.threads() * PARTS_PER_THREAD, 1, |range, mut view| {
        for (segment, rows, at) in pieces(segments, range.clone()) {
            let few = Few { segment, kernels: table.of(segment.dtype), rows, at };
            if mode == Activations::Quantised && quantised(segment.dtype) {
                few.run(&quants, few.kernels.dots_q8, &mut view);
            } else {
                few.run(&floats, few.kernels.dots_f32, &mut view);
            }
        }
        if let Some(bias) = bias {
            for r in 0..view.rows() {
                (table.add)(view.row_mut(r), &bias[range.clone()]);
            }
        }
    });
}

/// Parts of the columns for each thread: more than one, so that a thread that lost its core holds up less.
const PARTS_PER_THREAD: usize = 4;

const fn quantised(dtype: DType) -> bool {
    !matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
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

/// The segments that make the columns of `range`: each with its own rows and the place of the first in the range.
fn pieces<'a>(
    segments: &'a [Segment<'a>],
    range: Range<usize>,
) -> impl Iterator<Item = (&'a Segment<'a>, Range<usize>, usize)> {
    segments
        .iter()
        .scan(0, |end, s| {
            let start = *end;
            *end += s.rows;
            Some((s, start..*end))
        })
        .filter_map(move |(s, columns)| {
            let (from, to) = (range.start.max(columns.start), range.end.min(columns.end));
            (from < to).then(|| (s, from - columns.start..to - columns.start, from - range.start))
        })
}

/// The few-rows form: one pass over each weight row for up to [`FEW`] activation rows.
struct Few<'a> {
    segment: &'a Segment<'a>,
    kernels: &'a TypeKernels,
    rows: Range<usize>,
    at: usize,
}

impl Few<'_> {
    fn run<X>(&self, x: &[X], dots: fn(&[u8], &[X], &mut [f32]), view: &mut Columns<'_, f32>) {
        let row_bytes = self.segment.bytes.len() / self.segment.rows;
        for (i, row) in self.rows.clone().enumerate() {
            let w = &self.segment.bytes[row * row_bytes..(row + 1) * row_bytes];
            for (chunk, x) in x.chunks(FEW).enumerate() {
                let mut out = [0.0; FEW];
                dots(w, x, &mut out[..x.len()]);
                for (r, v) in out[..x.len()].iter().enumerate() {
                    view.row_mut(chunk * FEW + r)[self.at + i] = *v;
                }
            }
        }
    }
}
