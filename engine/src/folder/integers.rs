//! [`Integers`]: a matrix of integers in groups of columns with a scale and a zero point each, as GPTQ, AWQ and
//! compressed-tensors pack it. An element is `scale * (integer - zero point)`.

use std::ops::Range;

use super::quantised::{Numbers, Settings, shape_of, wrong};
use crate::bytes::Bytes;
use crate::dtype::DType;
use crate::error::Result;
use crate::file::safetensors::{Element, Stored};
use crate::quant::integers::{holds, push};

/// Columns of a block of the types that hold integers.
const BLOCK: usize = 32;
/// The slots in which AWQ packs eight neighbouring rows.
const AWQ: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// A matrix of integers.
#[derive(Debug)]
pub(super) struct Integers {
    pub(super) rows: usize,
    pub(super) cols: usize,
    values: Values,
    groups: Groups,
    /// The range of integers less zero points, if blocks hold them exactly.
    pub(super) span: Option<(i32, i32)>,
    /// The columns in the order of their groups, which is that of the blocks, if it is not their own.
    pub(super) columns: Option<Vec<u32>>,
    /// Rows have a scale each, which is written beside the matrix.
    beside: bool,
}

/// Integers by row and column.
#[derive(Debug)]
enum Values {
    Packed(Packed),
    /// A byte each, with sign; so many columns.
    Bytes(Bytes, usize),
}

/// Integers without sign in words of 32 bits, neighbours in one word.
#[derive(Debug)]
struct Packed {
    words: Bytes,
    /// 2, 4 or 8.
    bits: usize,
    /// Neighbours in a word are columns of a row, and not rows of a column.
    along_row: bool,
    /// Words from one row (or word of rows) to the next, and from one column (or word of columns) to the next.
    strides: [usize; 2],
    awq: bool,
}

/// Scales and zero points.
#[derive(Debug)]
struct Groups {
    n: usize,
    /// Columns of a group.
    size: usize,
    scales: Numbers,
    /// Scales from one row to the next, and from one group to the next.
    strides: [usize; 2],
    zeros: Zeros,
    /// The group of each column, if they are not in order.
    of_column: Option<Vec<u32>>,
}

#[derive(Debug)]
enum Zeros {
    Same(i32),
    /// By row and group, and what is to be added.
    Each(Values, i32),
}

impl Packed {
    fn get(&self, row: usize, col: usize) -> i32 {
        let (log, mask) = ((32 / self.bits).trailing_zeros(), 32 / self.bits - 1);
        let (row, col, slot) =
            if self.along_row { (row, col >> log, col & mask) } else { (row >> log, col, row & mask) };
        let slot = if self.awq { AWQ[slot % 8] } else { slot };
        let at = 4 * (row * self.strides[0] + col * self.strides[1]);
        let word = self.words.get(at..).and_then(|b| b.first_chunk()).copied().unwrap_or_default();
        (u32::from_le_bytes(word) >> (self.bits * slot) & ((1 << self.bits) - 1)) as i32
    }
}

impl Values {
    fn get(&self, row: usize, col: usize) -> i32 {
        match self {
            Values::Packed(packed) => packed.get(row, col),
            Values::Bytes(bytes, cols) => bytes.get(row * cols + col).map_or(0, |b| i32::from(*b as i8)),
        }
    }

    /// The smallest and the largest that there may be.
    fn range(&self) -> (i32, i32) {
        match self {
            Values::Packed(packed) => (0, (1 << packed.bits) - 1),
            Values::Bytes(..) => (-128, 127),
        }
    }
}

impl Groups {
    /// The group of a column.
    fn of(&self, column: usize) -> usize {
        self.of_column.as_ref().map_or(column / self.size, |of| of[column] as usize)
    }

    fn scale(&self, row: usize, group: usize) -> f32 {
        self.scales.get(row * self.strides[0] + group * self.strides[1])
    }

    fn zero(&self, row: usize, group: usize) -> i32 {
        match &self.zeros {
            Zeros::Same(zero) => *zero,
            Zeros::Each(values, offset) => values.get(row, group) + offset,
        }
    }
}

/// Bits of an integer, by the words of 32 bits that so many integers take. Few integers take as many words in several sizes: then
/// it is the size that is said.
fn bits_of(base: &str, n: usize, words: usize, settings: &Settings) -> Result<usize> {
    let fits = |bits: &usize| [2, 4, 8].contains(bits) && n.div_ceil(32 / bits) == words;
    let bits = settings.bits.filter(fits).or_else(|| [2, 4, 8].into_iter().find(fits));
    bits.ok_or_else(|| wrong(base, &format!("has {words} words for {n} integers, which are not of 2, 4 or 8 bits")))
}

/// A tensor of words of these two dimensions.
fn words_of(base: &str, tensor: Option<&Stored>, what: &str, shape: [usize; 2]) -> Result<Bytes> {
    let fits = |t: &&Stored| t.element == Element::I32 && t.shape() == shape.map(|n| n as u64);
    let tensor = tensor.ok_or_else(|| wrong(base, &format!("has no {what} beside it")))?;
    let tensor =
        Some(tensor).filter(fits).ok_or_else(|| wrong(base, &format!("has {what} that do not fit its shape")))?;
    Ok(tensor.bytes.clone())
}

impl Integers {
    /// GPTQ and AWQ.
    pub(super) fn grouped<'a>(
        base: &str,
        tensor: &Stored,
        beside: &impl Fn(&str) -> Option<&'a Stored>,
        settings: &Settings,
    ) -> Result<Integers> {
        let [high, wide] = shape_of(base, tensor)?;
        let scale = beside("scales");
        let scales = Numbers::new(base, scale)?;
        let [n, rows] = scale.map_or(Ok([0, 0]), |s| shape_of(base, s))?;
        let zeros = beside("qzeros").ok_or_else(|| wrong(base, "has no zero points beside it"))?;
        let bits = bits_of(base, rows, shape_of(base, zeros)?[1], settings)?;
        let n_rows = rows.div_ceil(32 / bits);
        let zeros = words_of(base, Some(zeros), "zero points", [n, n_rows])?;
        let (cols, fits) = if settings.awq {
            (high, wide == n_rows && bits == 4)
        } else {
            (high.saturating_mul(32 / bits), wide == rows)
        };
        if !fits {
            return Err(wrong(base, "has scales and zero points that do not fit its shape"));
        }
        let awq = settings.awq;
        let words = tensor.bytes.clone();
        let strides = if awq { [1, n_rows] } else { [1, rows] };
        let values = Values::Packed(Packed { words, bits, along_row: !awq, strides, awq });
        let zeros = Values::Packed(Packed { words: zeros, bits, along_row: false, strides: [1, n_rows], awq });
        let zeros = Zeros::Each(zeros, settings.zero_offset);
        let size = group_size(base, cols, n, settings)?;
        let of_column = order(base, beside("g_idx"), cols, n, size)?;
        let groups = Groups { n, size, scales, strides: [1, rows], zeros, of_column };
        Ok(Integers::new(rows, cols, values, groups))
    }

    /// The packed integers of compressed-tensors.
    pub(super) fn compressed<'a>(
        base: &str,
        tensor: &Stored,
        beside: &impl Fn(&str) -> Option<&'a Stored>,
        settings: &Settings,
    ) -> Result<Integers> {
        let [rows, wide] = shape_of(base, tensor)?;
        let shape = beside("weight_shape").ok_or_else(|| wrong(base, "has no shape beside it"))?;
        let cols = last_of(shape).ok_or_else(|| wrong(base, "has a shape beside it that is none"))?;
        let bits = bits_of(base, cols, wide, settings)?;
        let values = Packed { words: tensor.bytes.clone(), bits, along_row: true, strides: [wide, 1], awq: false };
        let (n, strides, scales) = by_row(base, beside("weight_scale"), rows)?;
        let zeros = match beside("weight_zero_point") {
            None => Zeros::Same(1 << (bits - 1)),
            Some(t) if t.element == Element::I8 => Zeros::Each(bytes_of(base, t, rows, n)?, 1 << (bits - 1)),
            Some(t) => {
                let words = words_of(base, Some(t), "zero points", [rows.div_ceil(32 / bits), n])?;
                Zeros::Each(Values::Packed(Packed { words, bits, along_row: false, strides: [n, 1], awq: false }), 0)
            }
        };
        let size = group_size(base, cols, n, settings)?;
        let of_column = order(base, beside("weight_g_idx"), cols, n, size)?;
        let groups = Groups { n, size, scales, strides, zeros, of_column };
        Ok(Integers::new(rows, cols, Values::Packed(values), groups))
    }

    /// A byte for each integer.
    pub(super) fn of_bytes<'a>(
        base: &str,
        tensor: &Stored,
        beside: &impl Fn(&str) -> Option<&'a Stored>,
    ) -> Result<Integers> {
        let [rows, cols] = shape_of(base, tensor)?;
        let (n, strides, scales) = by_row(base, beside("weight_scale"), rows)?;
        let zeros = match beside("weight_zero_point") {
            Some(t) => Zeros::Each(bytes_of(base, t, rows, n)?, 0),
            None => Zeros::Same(0),
        };
        let size = group_size(base, cols, n, &Settings::default())?;
        let groups = Groups { n, size, scales, strides, zeros, of_column: None };
        Ok(Integers::new(rows, cols, Values::Bytes(tensor.bytes.clone(), cols), groups))
    }

    fn new(rows: usize, cols: usize, values: Values, groups: Groups) -> Integers {
        let each = (0..rows).flat_map(|row| (0..groups.n).map(move |group| (row, group)));
        let (low, high) = match &groups.zeros {
            Zeros::Same(zero) => (*zero, *zero),
            Zeros::Each(..) => each
                .map(|(row, group)| groups.zero(row, group))
                .fold((i32::MAX, i32::MIN), |(low, high), zero| (low.min(zero), high.max(zero))),
        };
        let (least, most) = values.range();
        let exact = (0..groups.scales.len()).all(|i| holds(groups.scales.get(i)));
        let beside = groups.n == 1 && !exact;
        let columns = groups.of_column.as_ref().map(|of| {
            let mut columns: Vec<u32> = (0..of.len() as u32).collect();
            columns.sort_by_key(|column| of[*column as usize]);
            columns
        });
        // Each block is of one group.
        let whole = match (&groups.of_column, &columns) {
            (Some(of), Some(columns)) => {
                columns.chunks(BLOCK).all(|block| block.iter().all(|c| of[*c as usize] == of[block[0] as usize]))
            }
            _ => groups.n == 1 || groups.size.is_multiple_of(BLOCK),
        };
        let in_blocks = cols.is_multiple_of(BLOCK) && whole && (exact || beside);
        let span = in_blocks.then_some((least - high, most - low));
        Integers { rows, cols, values, groups, span, columns, beside }
    }

    /// The factor of each row, if the rows lack it.
    pub(super) fn factors(&self) -> Option<Vec<f32>> {
        let scale = |row| self.groups.scale(row, 0);
        self.beside.then(|| (0..self.rows).map(scale).collect())
    }

    /// Appends rows in blocks of a type that holds the integers, their columns in the order of `columns`.
    pub(super) fn write_blocks(&self, rows: Range<usize>, dtype: DType, out: &mut Vec<u8>) {
        let column = |place: usize| self.columns.as_ref().map_or(place, |columns| columns[place] as usize);
        for row in rows {
            for first in (0..self.cols).step_by(BLOCK) {
                let group = self.groups.of(column(first));
                let zero = self.groups.zero(row, group);
                let scale = if self.beside { 1.0 } else { self.groups.scale(row, group) };
                let integers = std::array::from_fn(|i| self.values.get(row, column(first + i)) - zero);
                push(dtype, scale, &integers, out);
            }
        }
    }

    /// Values of a row; `whole` says if its factor is in them.
    pub(super) fn values(&self, row: usize, whole: bool, out: &mut [f32]) {
        let of_group = |group: usize| {
            let scale = if self.beside && !whole { 1.0 } else { self.groups.scale(row, group) };
            (scale, self.groups.zero(row, group))
        };
        let all: Vec<(f32, i32)> = (0..self.groups.n).map(of_group).collect();
        for (col, out) in out.iter_mut().enumerate() {
            let (scale, zero) = all[self.groups.of(col)];
            *out = scale * (self.values.get(row, col) - zero) as f32;
        }
    }
}

/// Columns of each of `n` groups.
fn group_size(base: &str, cols: usize, n: usize, settings: &Settings) -> Result<usize> {
    let said = settings.group_size.filter(|size| cols.div_ceil(*size) == n);
    let even = (n > 0 && cols.is_multiple_of(n)).then(|| cols / n.max(1));
    let size = said.or(even).filter(|size| *size > 0);
    size.ok_or_else(|| wrong(base, &format!("has {n} groups for {cols} columns")))
}

/// Scales that lie row by row, or one for all: the number of groups, how far apart scales of rows and groups are, the scales.
fn by_row(base: &str, scale: Option<&Stored>, rows: usize) -> Result<(usize, [usize; 2], Numbers)> {
    let scales = Numbers::new(base, scale)?;
    match scales.len() {
        1 => Ok((1, [0, 0], scales)),
        len if len.is_multiple_of(rows) => Ok((len / rows, [len / rows, 1], scales)),
        len => Err(wrong(base, &format!("has {len} scales for {rows} rows"))),
    }
}

/// Zero points of a byte each, row by row.
fn bytes_of(base: &str, tensor: &Stored, rows: usize, n: usize) -> Result<Values> {
    let fits = tensor.element == Element::I8 && Some(tensor.bytes.len()) == rows.checked_mul(n);
    let values = fits.then(|| Values::Bytes(tensor.bytes.clone(), n));
    values.ok_or_else(|| wrong(base, "has zero points that do not fit its scales"))
}

/// The last number of a tensor of two integers.
fn last_of(tensor: &Stored) -> Option<usize> {
    let n = match tensor.element {
        Element::I64 => i64::from_le_bytes(*tensor.bytes.get(8..)?.first_chunk()?),
        Element::I32 => i64::from(i32::from_le_bytes(*tensor.bytes.get(4..)?.first_chunk()?)),
        _ => return None,
    };
    usize::try_from(n).ok().filter(|n| *n > 0)
}

/// The group of each column, if they are not in order (GPTQ's act-order).
fn order(base: &str, indices: Option<&Stored>, cols: usize, n: usize, size: usize) -> Result<Option<Vec<u32>>> {
    let Some(t) = indices else { return Ok(None) };
    if t.element != Element::I32 || t.n_elements() != cols as u64 {
        return Err(wrong(base, "has an order of columns that does not fit its shape"));
    }
    let all: Vec<i32> = t.bytes.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b)).collect();
    // Compressed-tensors writes -1 if there is no order.
    if all.iter().all(|group| *group == -1) {
        return Ok(None);
    }
    let all: Option<Vec<u32>> =
        all.into_iter().map(|group| u32::try_from(group).ok().filter(|g| (*g as usize) < n)).collect();
    let all = all.ok_or_else(|| wrong(base, "has a column of a group that it does not have"))?;
    Ok((all.iter().enumerate().any(|(col, group)| *group as usize != col / size)).then_some(all))
}

#[cfg(test)]
mod tests;
