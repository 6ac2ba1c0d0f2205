//! Views of tensors on disk: ranges of rows in place, small vectors made f32, matrices turned onto their feet.

use std::iter::StepBy;
use std::ops::Range;

use crate::bytes::Bytes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::file::Source;
use crate::file::safetensors::{Element, Stored};
use crate::meta::shown;
use crate::quant;

/// The storage type of a tensor of plain numbers.
pub(super) fn dtype(t: &Stored) -> Result<DType> {
    Ok(match t.element {
        Element::F32 => DType::F32,
        Element::F16 => DType::F16,
        Element::BF16 => DType::BF16,
        other => {
            let name = shown(t.name.as_bytes());
            return Err(Error::unsupported(format!(
                "tensor {name} is of type {}, which is not read yet",
                other.name()
            )));
        }
    })
}

/// Rows and columns: all but the last dimension together, and the last.
pub(super) fn rows_and_cols(t: &Stored) -> (u64, u64) {
    match t.shape() {
        [] => (1, 1),
        [rest @ .., cols] => (rest.iter().product(), *cols),
    }
}

/// The shape in GGUF's order, without dimensions of 1 in the middle of a convolution's `[channels, 1, taps]`.
pub(super) fn dims(t: &Stored) -> Vec<u64> {
    match t.shape() {
        [] => vec![1],
        [channels, 1, taps] => vec![*taps, *channels],
        shape => shape.iter().rev().copied().collect(),
    }
}

/// Whether a tensor is a vector, also as a row or column of a matrix, or a convolution's taps.
pub(super) fn is_small(t: &Stored) -> bool {
    t.shape().iter().filter(|d| **d != 1).count() <= 1 || matches!(t.shape(), [_, 1, _])
}

/// Some of a tensor's rows, in place.
pub(super) fn pieces(t: &Stored, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
    let (rows, cols) = rows_and_cols(t);
    let row = cols * t.element.size();
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => merged.push(range.clone()),
        }
    }
    let piece = |range: &Range<u64>| {
        let inside = range.start <= range.end && range.end <= rows;
        let bytes = inside.then(|| t.bytes.slice((range.start * row) as usize..(range.end * row) as usize)).flatten();
        let short =
            || Error::shape(format!("tensor {} has {rows} rows, too few for its model", shown(t.name.as_bytes())));
        bytes.ok_or_else(short)
    };
    merged.iter().map(piece).collect()
}

/// Values of plain numbers.
pub(super) fn floats(bytes: &[u8], dtype: DType) -> Result<Vec<f32>> {
    let mut values = vec![0.0; bytes.len() / dtype.block_bytes()];
    quant::decode(dtype, bytes, &mut values)?;
    Ok(values)
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Pieces as one vector of f32, each element changed.
pub(super) fn vector(pieces: Vec<Bytes>, dtype: DType, change: impl Fn(f32) -> f32 + Send + Sync + 'static) -> Source {
    Source::made(move || {
        let mut values = Vec::new();
        for piece in &pieces {
            values.extend(floats(piece, dtype)?);
        }
        values.iter_mut().for_each(|x| *x = change(*x));
        Ok(bytes_of(&values))
    })
}

/// Numbers that no file holds.
pub(super) fn numbers(values: Vec<f32>) -> Source {
    Source::Pieces(vec![Bytes::from(bytes_of(&values))])
}

/// Rows of a tensor as one vector of f32: every `step`-th element from `first` on.
pub(super) fn every(bytes: Bytes, dtype: DType, first: usize, step: usize) -> Source {
    Source::made(move || {
        let values = floats(&bytes, dtype)?;
        Ok(bytes_of(&values.into_iter().skip(first).step_by(step.max(1)).collect::<Vec<_>>()))
    })
}

/// Matrices that lie on their side, `n` of `[cols, rows]` one after the other, of whose rows some are wanted: each turned to
/// `[wanted, cols]`. `size` is that of an element.
pub(super) fn turned(
    pieces: Vec<Bytes>,
    size: usize,
    [n, cols, rows]: [usize; 3],
    wanted: StepBy<Range<usize>>,
) -> Source {
    Source::made(move || {
        let bytes: Vec<u8> = pieces.iter().flat_map(|p| p.iter().copied()).collect();
        let kept = wanted.len();
        if bytes.len() != n * cols * rows * size {
            return Err(Error::shape(format!("{n} matrices of {cols} x {rows} do not take {} bytes", bytes.len())));
        }
        let mut out = vec![0u8; n * kept * cols * size];
        for m in 0..n {
            for c in 0..cols {
                let from = (m * cols + c) * rows;
                for (r, row) in wanted.clone().enumerate() {
                    let (a, b) = ((from + row) * size, ((m * kept + r) * cols + c) * size);
                    out[b..b + size].copy_from_slice(&bytes[a..a + size]);
                }
            }
        }
        Ok(out)
    })
}

/// MXFP4 as it is published, bytes of two neighbours each and scales apart, as blocks: of `rows` rows of `n` blocks every
/// `step`-th from `first` on.
pub(super) fn floats_of_4(packed: Bytes, scales: Bytes, n: usize, (first, step): (usize, usize)) -> Source {
    Source::made(move || {
        let rows = scales.len() / n;
        let mut out = Vec::with_capacity(rows / step * n * 17);
        for block in (first..rows).step_by(step).flat_map(|row| row * n..(row + 1) * n) {
            out.push(scales[block]);
            out.extend(packed[block * 16..].first_chunk().map(quant::of_pairs).unwrap_or_default());
        }
        Ok(out)
    })
}
