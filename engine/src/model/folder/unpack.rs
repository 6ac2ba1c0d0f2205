//! Weights that were quantised before they were published: FP8 (one scale, one for each row, or for blocks), GPTQ, AWQ and
//! compressed-tensors. Integers become blocks of types that hold them exactly; FP8 becomes f16, which holds every value of
//! it, with a factor for each row beside the matrix. Both are made when they are first asked for.

use super::views;
use crate::bytes::Bytes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::file::safetensors::{Element, Stored};
use crate::file::{Folder, Source};
use crate::meta::shown;
use crate::quant;
use crate::quant::integers::{holding, holds, push};

/// A matrix of quantised weights.
pub(super) struct Unpacked {
    /// `[columns, rows]`.
    pub(super) dims: Vec<u64>,
    pub(super) dtype: DType,
    pub(super) source: Source,
    /// A factor for each row, or for all.
    pub(super) factors: Option<Vec<f32>>,
}

/// What a tensor is among those of a quantised matrix.
pub(super) enum Role {
    /// A tensor as any other.
    None,
    /// Read together with the matrix.
    Beside,
    /// The matrix, by its name without ending.
    Matrix,
}

/// Endings of what stands beside packed integers, and beside FP8.
const BESIDE_INTEGERS: [&str; 7] =
    ["qzeros", "scales", "g_idx", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx"];
const BESIDE_FLOATS: [&str; 5] =
    ["weight_scale", "weight_scale_inv", "input_scale", "activation_scale", "output_scale"];

/// What this tensor is.
pub(super) fn role(folder: &Folder, tensor: &Stored) -> Role {
    let Some((base, ending)) = tensor.name.rsplit_once('.') else { return Role::None };
    let packed = |ending: &str| folder.tensor(&format!("{base}.{ending}")).is_some();
    let weight = folder.tensor(&format!("{base}.weight"));
    let rounded = weight.is_some_and(|w| matches!(w.element, Element::F8_E4M3 | Element::I8));
    match ending {
        "qweight" | "weight_packed" => Role::Matrix,
        "weight" if rounded => Role::Matrix,
        _ if BESIDE_INTEGERS.contains(&ending) && (packed("qweight") || packed("weight_packed")) => Role::Beside,
        _ if BESIDE_FLOATS.contains(&ending) && rounded => Role::Beside,
        _ => Role::None,
    }
}

fn odd(base: &str, why: &str) -> Error {
    Error::unsupported(format!("the quantised matrix {} {why}", shown(base.as_bytes())))
}

/// Integers of a matrix, and how they are packed.
#[derive(Clone)]
struct Packed {
    words: Bytes,
    bits: usize,
    rows: usize,
    cols: usize,
    layout: Layout,
}

/// How integers lie in words of 32 bits.
#[derive(Clone, Copy)]
enum Layout {
    /// Words of one row's neighbouring columns, a row of words for each; `[cols / n, rows]` words.
    Gptq,
    /// Words of one column's neighbouring rows, in an order of their own; `[cols, rows / n]` words.
    Awq,
    /// Words of one row's neighbouring columns, row by row; `[rows, cols / n]` words.
    Rows,
}

/// The order in which AWQ packs eight rows.
const AWQ: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

fn bits_of(words: &[u8], word: usize, bits: usize, i: usize) -> i32 {
    let bytes = words.get(4 * word..4 * word + 4).and_then(|b| b.first_chunk()).copied().unwrap_or_default();
    (u32::from_le_bytes(bytes) >> (bits * i) & ((1 << bits) - 1)) as i32
}

impl Packed {
    fn get(&self, row: usize, col: usize) -> i32 {
        let n = 32 / self.bits;
        match self.layout {
            Layout::Gptq => bits_of(&self.words, col / n * self.rows + row, self.bits, col % n),
            Layout::Awq => bits_of(&self.words, col * (self.rows / n) + row / n, self.bits, AWQ[row % n]),
            Layout::Rows => bits_of(&self.words, row * (self.cols / n) + col / n, self.bits, col % n),
        }
    }
}

/// Scales and zeros of groups of columns.
#[derive(Clone)]
struct Groups {
    /// `[groups, rows]`, or `[rows, groups]`.
    scales: Vec<f32>,
    by_rows: bool,
    zeros: Vec<i32>,
    /// Columns of a group.
    size: usize,
    n: usize,
    /// The group of each column, if they do not lie in order.
    of_column: Option<Vec<usize>>,
}

impl Groups {
    fn at(&self, rows: usize, row: usize, group: usize) -> usize {
        if self.by_rows { row * self.n + group } else { group * rows + row }
    }
}

/// The matrix of this name, `tensor` being its packed weights.
///
/// # Errors
/// [`Error::Unsupported`] for forms that are not known, [`Error::Shape`] and [`Error::Format`] for what does not fit together.
pub(super) fn unpack(folder: &Folder, method: &serde_json::Value, tensor: &Stored) -> Result<Unpacked> {
    let (base, ending) = tensor.name.rsplit_once('.').unwrap_or((&tensor.name, ""));
    let beside = |ending: &str| folder.tensor(&format!("{base}.{ending}"));
    match (ending, tensor.element) {
        ("weight", Element::F8_E4M3) => {
            let scale = beside("weight_scale_inv").or(beside("weight_scale"));
            floats(base, tensor, scale, method)
        }
        ("weight", Element::I8) => bytes(base, tensor, beside("weight_scale")),
        ("weight_packed", Element::I32) => compressed(base, tensor, &beside, method),
        ("qweight", Element::I32) => grouped(base, tensor, &beside, method),
        _ => Err(odd(base, &format!("is of type {}, which is not read", tensor.element.name()))),
    }
}

fn numbers(t: &Stored) -> Result<Vec<f32>> {
    views::floats(&t.bytes, views::dtype(t)?)
}

/// The value of an FP8 byte with 4 bits of exponent and 3 of mantissa.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = match exponent {
        // There are no infinities, and one NaN of each sign, which no weight is.
        15 if byte & 7 == 7 => f32::NAN,
        0 => mantissa * 2f32.powi(-9),
        e => (1.0 + mantissa / 8.0) * 2f32.powi(e - 7),
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

/// FP8 with one scale, one for each row, or one for each block of rows and columns.
fn floats(base: &str, t: &Stored, scale: Option<&Stored>, method: &serde_json::Value) -> Result<Unpacked> {
    let [rows, cols] = *t.shape() else { return Err(odd(base, "has no two dimensions")) };
    let (rows, cols) = (rows as usize, cols as usize);
    let scales = scale.map_or(Ok(vec![1.0]), numbers)?;
    let block =
        |i: usize| method.get("weight_block_size").and_then(|b| b.get(i)?.as_u64()).unwrap_or(128).max(1) as usize;
    let blocks = cols.div_ceil(block(1));
    // Of each row's scales the largest is its factor, and the others are relative to it.
    let (factors, relative): (Vec<f32>, Option<Vec<f32>>) = match scales.len() {
        1 => (scales, None),
        n if n == rows && scale.is_some_and(|s| s.shape().len() == 1 || s.shape().last() == Some(&1)) => (scales, None),
        n if n == rows.div_ceil(block(0)) * blocks => {
            let of = |r: usize| &scales[r / block(0) * blocks..][..blocks];
            let most: Vec<f32> =
                (0..rows).map(|r| of(r).iter().fold(0.0f32, |a, b| if b.abs() > a.abs() { *b } else { a })).collect();
            let part = |r: usize| of(r).iter().map(move |s| *s).collect::<Vec<f32>>();
            let relative = (0..rows).flat_map(|r| {
                let most = most[r];
                part(r).into_iter().map(move |s| if most == 0.0 { 0.0 } else { s / most })
            });
            let relative = relative.collect();
            (most, Some(relative))
        }
        n => return Err(odd(base, &format!("has {n} scales, which fit neither its rows nor its blocks"))),
    };
    let (data, width) = (t.bytes.clone(), block(1));
    let source = Source::made(move || {
        let values: Vec<f32> = (0..=255).map(e4m3).collect();
        let mut out = Vec::with_capacity(2 * data.len());
        let mut row = vec![0.0; cols];
        for (r, bytes) in data.chunks_exact(cols).enumerate() {
            for (c, (out, byte)) in row.iter_mut().zip(bytes).enumerate() {
                let relative = relative.as_ref().map_or(1.0, |all| all[r * blocks + c / width]);
                *out = values[usize::from(*byte)] * relative;
            }
            quant::encode(DType::F16, &row, &mut out)?;
        }
        Ok(out)
    });
    Ok(Unpacked { dims: vec![cols as u64, rows as u64], dtype: DType::F16, source, factors: Some(factors) })
}

/// Integers of 8 bits, each row with a scale.
fn bytes(base: &str, t: &Stored, scale: Option<&Stored>) -> Result<Unpacked> {
    let [rows, cols] = *t.shape() else { return Err(odd(base, "has no two dimensions")) };
    let scales = numbers(scale.ok_or_else(|| odd(base, "has no scale"))?)?;
    let dtype = holding(-128, 127).filter(|d| (cols as usize).is_multiple_of(d.block_len()));
    let dtype = dtype.ok_or_else(|| odd(base, "has rows that are no whole blocks of 32"))?;
    if scales.len() != 1 && scales.len() as u64 != rows {
        return Err(odd(base, "has scales that do not fit its rows"));
    }
    let data = t.bytes.clone();
    let source = Source::made(move || {
        let mut out = Vec::new();
        for block in data.as_chunks::<32>().0 {
            push(dtype, 1.0, &block.map(|b| i32::from(b as i8)), &mut out);
        }
        Ok(out)
    });
    Ok(Unpacked { dims: vec![cols, rows], dtype, source, factors: Some(scales) })
}

/// GPTQ and AWQ.
fn grouped<'a>(
    base: &str,
    t: &Stored,
    beside: &impl Fn(&str) -> Option<&'a Stored>,
    method: &serde_json::Value,
) -> Result<Unpacked> {
    let awq = method.get("quant_method").and_then(|m| m.as_str()) == Some("awq");
    let bits = method.get("bits").or(method.get("w_bit")).and_then(|b| b.as_u64()).unwrap_or(4) as usize;
    if ![4, 8].contains(&bits) || awq && bits != 4 {
        return Err(odd(base, &format!("has {bits} bits, which is not read")));
    }
    let n = 32 / bits;
    let [a, b] = *t.shape() else { return Err(odd(base, "has no two dimensions")) };
    let (a, b) = (a as usize, b as usize);
    let (cols, rows) = if awq { (a, b * n) } else { (a * n, b) };
    let scales = beside("scales").ok_or_else(|| odd(base, "has no scales"))?;
    let groups = scales.shape().first().map_or(0, |g| *g as usize);
    if groups == 0 || !cols.is_multiple_of(groups) || scales.n_elements() != (groups * rows) as u64 {
        return Err(odd(base, "has scales that do not fit its shape"));
    }
    let zeros = beside("qzeros").ok_or_else(|| odd(base, "has no zeros"))?;
    if zeros.element != Element::I32 || zeros.n_elements() != (groups * rows.div_ceil(n)) as u64 {
        return Err(odd(base, "has zeros that do not fit its shape"));
    }
    // The first format of GPTQ stores one less.
    let second =
        ["checkpoint_format", "format"].iter().any(|key| method.get(key).and_then(|f| f.as_str()) == Some("gptq_v2"));
    let one = i32::from(!awq && !second);
    let word = |g: usize, row: usize| g * rows.div_ceil(n) + row / n;
    let zero = |g: usize, row: usize| {
        bits_of(&zeros.bytes, word(g, row), bits, if awq { AWQ[row % n] } else { row % n }) + one
    };
    let zeros = (0..groups).flat_map(|g| (0..rows).map(move |row| (g, row))).map(|(g, row)| zero(g, row)).collect();
    let size = cols / groups;
    let layout = if awq { Layout::Awq } else { Layout::Gptq };
    let packed = Packed { words: t.bytes.clone(), bits, rows, cols, layout };
    let of_column = order(base, beside("g_idx"), cols, groups, size)?;
    finish(base, packed, Groups { scales: numbers(scales)?, by_rows: false, zeros, size, n: groups, of_column })
}

/// The group of each column, if they do not lie in order.
fn order(base: &str, indices: Option<&Stored>, cols: usize, groups: usize, size: usize) -> Result<Option<Vec<usize>>> {
    let Some(t) = indices else { return Ok(None) };
    if t.element != Element::I32 || t.n_elements() != cols as u64 {
        return Err(odd(base, "has an order of columns that does not fit its shape"));
    }
    let all: Vec<usize> = t.bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b) as usize).collect();
    if all.iter().any(|g| *g >= groups) {
        return Err(odd(base, "has columns of groups that it does not have"));
    }
    Ok((all.iter().enumerate().any(|(c, g)| *g != c / size)).then_some(all))
}

/// Compressed-tensors' packed integers.
fn compressed<'a>(
    base: &str,
    t: &Stored,
    beside: &impl Fn(&str) -> Option<&'a Stored>,
    method: &serde_json::Value,
) -> Result<Unpacked> {
    let groups = method.get("config_groups").and_then(|g| g.as_object()).and_then(|g| g.values().next());
    let bits = groups.and_then(|g| g.get("weights")?.get("num_bits")?.as_u64()).unwrap_or(4) as usize;
    let [rows, words] = *t.shape() else { return Err(odd(base, "has no two dimensions")) };
    if ![4, 8].contains(&bits) || beside("weight_zero_point").is_some() || beside("weight_g_idx").is_some() {
        return Err(odd(
            base,
            "is packed in a way that is not read (zero points, an order of columns, or other than 4 and 8 bits)",
        ));
    }
    let (rows, cols) = (rows as usize, words as usize * (32 / bits));
    let scales = beside("weight_scale").ok_or_else(|| odd(base, "has no scale"))?;
    let n = scales.shape().last().map_or(1, |n| *n as usize);
    if scales.n_elements() != (rows * n) as u64 || !cols.is_multiple_of(n) {
        return Err(odd(base, "has scales that do not fit its shape"));
    }
    let zeros = vec![1 << (bits - 1); rows * n];
    let packed = Packed { words: t.bytes.clone(), bits, rows, cols, layout: Layout::Rows };
    finish(base, packed, Groups { scales: numbers(scales)?, by_rows: true, zeros, size: cols / n, n, of_column: None })
}

/// Blocks that hold the integers exactly; f16 where groups are mixed or scales are out of its range.
fn finish(base: &str, packed: Packed, groups: Groups) -> Result<Unpacked> {
    let (rows, cols) = (packed.rows, packed.cols);
    let dims = vec![cols as u64, rows as u64];
    let most = (1 << packed.bits) - 1;
    let (low, high) = groups.zeros.iter().fold((i32::MAX, i32::MIN), |(a, b), z| (a.min(*z), b.max(*z)));
    let plain = groups.of_column.is_none() && groups.size.is_multiple_of(32) && groups.scales.iter().all(|s| holds(*s));
    let dtype = holding(-high, most - low).filter(|_| plain);
    if !cols.is_multiple_of(32) {
        return Err(odd(base, "has rows that are no whole blocks of 32"));
    }
    let source = Source::made(move || {
        let mut out = Vec::new();
        let mut values = vec![0.0; cols];
        for row in 0..rows {
            if let Some(dtype) = dtype {
                for block in (0..cols).step_by(32) {
                    let at = groups.at(rows, row, block / groups.size);
                    let zero = groups.zeros[at];
                    let levels = std::array::from_fn(|i| packed.get(row, block + i) - zero);
                    push(dtype, groups.scales[at], &levels, &mut out);
                }
                continue;
            }
            for (col, value) in values.iter_mut().enumerate() {
                let group = groups.of_column.as_ref().map_or(col / groups.size, |of| of[col]);
                let at = groups.at(rows, row, group);
                *value = groups.scales[at] * (packed.get(row, col) - groups.zeros[at]) as f32;
            }
            quant::encode(DType::F16, &values, &mut out)?;
        }
        Ok(out)
    });
    Ok(Unpacked { dims, dtype: dtype.unwrap_or(DType::F16), source, factors: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fp8_values_are_those_of_the_format() {
        let cases =
            [(0x00, 0.0), (0x01, 0.001953125), (0x08, 0.015625), (0x38, 1.0), (0x3c, 1.5), (0x7e, 448.0), (0xc0, -2.0)];
        for (byte, value) in cases {
            assert_eq!(e4m3(byte), value, "{byte:#x}");
        }
        assert!(e4m3(0x7f).is_nan());
    }
}
