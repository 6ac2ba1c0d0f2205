//! Rows of a tensor as a GGUF file has them: of a folder, permuted, reordered and multiplied as converters do, since other
//! programs expect that (the engine itself reads them where they are: see `folder`).

use std::ops::Range;

use super::merged::{Delta, Share};
use super::named;
use crate::bytes::Bytes;
use crate::cpu::simd::encoders;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::file::{ModelFile, Tensor};
use crate::folder::{FACTORS, GROUPED, HALVES, SCALES};
use crate::meta::Meta;
use crate::quant;

/// A tensor's rows.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    tensor: &'a Tensor,
    pieces: Vec<Bytes>,
    pub(super) dtype: DType,
    pub(super) cols: usize,
    pub(super) rows: usize,
    row_bytes: usize,
    order: Order,
    /// A factor for all rows, or for each.
    factors: Vec<f32>,
    /// What adapters add.
    merged: Vec<Share<'a>>,
}

/// In which order rows, or parts of them, are written.
#[derive(Debug, Clone, Copy)]
enum Order {
    AsIs,
    /// Heads of so many rows, whose halves are woven into each other.
    Woven(usize),
    /// From row `from` on, `keys * each` groups of `len` rows beside their key, dealt out among the keys.
    Dealt {
        from: usize,
        keys: usize,
        each: usize,
        len: usize,
    },
    /// The same of columns.
    DealtColumns {
        keys: usize,
        each: usize,
        len: usize,
    },
}

fn flag(meta: &Meta, key: &str) -> bool {
    meta.opt_bool(key).ok().flatten() == Some(true)
}

/// Whether a tensor is multiplied into another, and is none of the new file.
pub(super) fn is_folded(file: &ModelFile, name: &str) -> bool {
    flag(file.meta(), FACTORS) && name.ends_with(".scale")
}

/// Whether a key says what the new file has in its weights, or is of the folder alone.
pub(super) fn is_folded_key(meta: &Meta, key: &str) -> bool {
    let scale = key.ends_with(".embedding_scale") || key.ends_with(".logit_scale");
    key.starts_with("folder.") || scale && flag(meta, SCALES)
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a ModelFile, tensor: &'a Tensor, merged: Vec<Share<'a>>) -> Result<Reader<'a>> {
        let dtype = tensor.dtype()?;
        let cols = usize::try_from(tensor.dims().first().copied().unwrap_or(1)).unwrap_or(usize::MAX);
        let row_bytes =
            dtype.bytes_for(cols).ok_or_else(|| Error::shape(format!("tensor {} overflows", named(tensor))))?;
        let rows = usize::try_from(tensor.n_elements()).unwrap_or(usize::MAX) / cols.max(1);
        let pieces = file.pieces(tensor)?.ok_or(Error::Reload("the model's weights are not held here"))?;
        let whole_rows = pieces.iter().all(|p| p.len().is_multiple_of(row_bytes.max(1)));
        let pieces = if whole_rows { pieces } else { vec![file.bytes(tensor)?] };
        // Vectors are reordered by their elements.
        let vector = tensor.dims().len() == 1;
        let order = order(file, tensor.name(), if vector { cols } else { rows })?;
        if let Order::DealtColumns { keys, each, len } = order
            && keys.checked_mul(each).and_then(|n| n.checked_mul(len)) != Some(cols)
        {
            return Err(Error::shape(format!(
                "tensor {} has {cols} columns, which its model cannot have",
                named(tensor)
            )));
        }
        if matches!(order, Order::AsIs) || vector && !dtype.is_plain() {
            let factors = factors(file, tensor, rows)?;
            return Ok(Reader { tensor, pieces, dtype, cols, rows, row_bytes, order: Order::AsIs, factors, merged });
        }
        let (cols, rows, row_bytes) = if vector { (1, cols, dtype.block_bytes()) } else { (cols, rows, row_bytes) };
        let factors = factors(file, tensor, rows)?;
        Ok(Reader { tensor, pieces, dtype, cols, rows, row_bytes, order, factors, merged })
    }

    /// Whether adapters change it, so that its rows are those of no file.
    pub(super) fn is_merged(&self) -> bool {
        !self.merged.is_empty()
    }

    /// Where row `r` of the new file is in the old one.
    fn place(&self, r: usize) -> usize {
        match self.order {
            Order::Woven(len) => r / len * len + r % 2 * (len / 2) + r % len / 2,
            Order::Dealt { from, keys, each, len } if r >= from => {
                let (group, i) = ((r - from) / len, (r - from) % len);
                from + (group % keys * each + group / keys) * len + i
            }
            _ => r,
        }
    }

    /// Row `r` of the old file.
    fn row(&self, mut r: usize) -> Result<&[u8]> {
        for piece in &self.pieces {
            let rows = piece.len() / self.row_bytes.max(1);
            if r < rows {
                return Ok(&piece[r * self.row_bytes..(r + 1) * self.row_bytes]);
            }
            r -= rows;
        }
        Err(Error::format(format!("tensor {} ends before its last row", named(self.tensor))))
    }

    /// Bytes of rows as they are to be in a file of the same type.
    pub(super) fn bytes(&self, rows: Range<usize>) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(rows.len().saturating_mul(self.row_bytes));
        // Groups of columns that are no whole blocks are encoded anew, and so are plain numbers that are multiplied.
        let unit = match self.order {
            Order::DealtColumns { len, .. } => self.dtype.bytes_for(len),
            _ => Some(self.row_bytes),
        };
        let Some(unit) = unit.filter(|_| self.factors.is_empty() || !self.dtype.is_plain()) else {
            let mut values = Vec::new();
            self.values(rows, &self.deltas()?, &mut values)?;
            encoders::encode(self.dtype, &values, None, &mut out)?;
            return Ok(out);
        };
        for r in rows {
            let (place, start) = (self.place(r), out.len());
            let units = self.row(place)?.chunks_exact(unit);
            match self.order {
                Order::DealtColumns { keys, each, .. } => {
                    let units: Vec<&[u8]> = units.collect();
                    (0..units.len()).for_each(|i| out.extend_from_slice(units[i % keys * each + i / keys]));
                }
                _ => units.for_each(|unit| out.extend_from_slice(unit)),
            }
            if let Some(factor) = self.factor(place) {
                quant::integers::multiply(self.dtype, &mut out[start..], factor);
            }
        }
        Ok(out)
    }

    /// The factor of row `r` of the old file.
    fn factor(&self, r: usize) -> Option<f32> {
        self.factors.get(if self.factors.len() == 1 { 0 } else { r }).copied()
    }

    /// What adapters add, for [`values`](Reader::values).
    pub(super) fn deltas(&self) -> Result<Vec<Delta>> {
        self.merged.iter().map(|share| share.delta(self.tensor)).collect()
    }

    /// Values of rows in place of what is in `out`.
    pub(super) fn values(&self, rows: Range<usize>, deltas: &[Delta], out: &mut Vec<f32>) -> Result<()> {
        out.resize(rows.len() * self.cols, 0.0);
        for (r, out) in rows.zip(out.chunks_exact_mut(self.cols.max(1))) {
            let place = self.place(r);
            encoders::decode(self.dtype, self.row(place)?, out)?;
            if let Some(factor) = self.factor(place) {
                out.iter_mut().for_each(|x| *x *= factor);
            }
            deltas.iter().for_each(|delta| delta.add(place, out));
            if let Order::DealtColumns { keys, each, len } = self.order {
                let old = out.to_vec();
                for (c, out) in out.iter_mut().enumerate() {
                    let (group, i) = (c / len, c % len);
                    *out = old[(group % keys * each + group / keys) * len + i];
                }
            }
        }
        Ok(())
    }

    /// Gives back the memory of rows that were read, where a file is mapped and they lie as they are written.
    pub(super) fn forget(&self, rows: Range<usize>) {
        if matches!(self.order, Order::Dealt { .. }) {
            return;
        }
        let mut first = 0;
        for piece in &self.pieces {
            let n = piece.len() / self.row_bytes.max(1);
            let (start, end) = (rows.start.max(first), rows.end.min(first + n));
            if start < end {
                let range = (start - first) * self.row_bytes..(end - first) * self.row_bytes;
                piece.slice(range).iter().for_each(Bytes::drop_pages);
            }
            first += n;
        }
    }
}

/// A count of the architecture.
fn count(file: &ModelFile, name: &str) -> Option<usize> {
    let meta = file.meta();
    let value = meta.get(&format!("{}.{name}", meta.arch().ok()?))?;
    let number = match value.as_array() {
        Some(array) => array.iter().find_map(|v| v.as_u64().filter(|n| *n > 0)),
        None => value.as_u64(),
    };
    number.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0)
}

/// How a tensor of so many rows is to be reordered.
fn order(file: &ModelFile, name: &str, rows: usize) -> Result<Order> {
    let part = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).map_or("", |(_, part)| part);
    let wrong = || Error::shape(format!("tensor {name} has {rows} rows, which its model cannot have"));
    if flag(file.meta(), HALVES) && ["attn_q.weight", "attn_q.bias", "attn_k.weight", "attn_k.bias"].contains(&part) {
        let width = || Some(count(file, "embedding_length")? / count(file, "attention.head_count")?);
        let len = count(file, "attention.key_length").or_else(width).ok_or_else(wrong)?;
        return if len.is_multiple_of(2) && rows.is_multiple_of(len) { Ok(Order::Woven(len)) } else { Err(wrong()) };
    }
    if !flag(file.meta(), GROUPED) {
        return Ok(Order::AsIs);
    }
    let of = |name: &str| count(file, name).ok_or_else(wrong);
    let (heads, keys, inner, key) =
        (of("ssm.time_step_rank")?, of("ssm.group_count")?, of("ssm.inner_size")?, of("ssm.state_size")?);
    let (each, width) = (heads / keys, inner / heads);
    let (from, len, all) = match part {
        // Queries and keys are in front.
        "attn_qkv.weight" | "ssm_conv1d.weight" if file.tensor(&name.replace(part, "ssm_a")).is_some() => {
            (2 * keys * key, width, 2 * keys * key + inner)
        }
        "attn_gate.weight" => (0, width, inner),
        "ssm_alpha.weight" | "ssm_beta.weight" | "ssm_a" | "ssm_dt.bias" => (0, 1, heads),
        "ssm_out.weight" => return Ok(Order::DealtColumns { keys, each, len: width }),
        _ => return Ok(Order::AsIs),
    };
    if rows == all { Ok(Order::Dealt { from, keys, each, len }) } else { Err(wrong()) }
}

/// The factors beside a tensor.
fn factors(file: &ModelFile, tensor: &Tensor, rows: usize) -> Result<Vec<f32>> {
    let meta = file.meta();
    if !flag(meta, FACTORS) {
        return Ok(Vec::new());
    }
    let arch = meta.arch().unwrap_or_default();
    let key = match tensor.name() {
        "token_embd.weight" => "embedding_scale",
        "output.weight" => "logit_scale",
        _ => "",
    };
    if let Some(factor) = meta.opt_f32(&format!("{arch}.{key}"))?.filter(|_| flag(meta, SCALES)) {
        return Ok(vec![factor]);
    }
    let beside = tensor.name().strip_suffix(".weight").map(|base| format!("{base}.scale"));
    let Some(scale) = beside.and_then(|name| file.tensor(&name)) else { return Ok(Vec::new()) };
    let mut values = vec![0.0; scale.n_elements() as usize];
    quant::decode(scale.dtype()?, &file.bytes(scale)?, &mut values)?;
    if values.len() != 1 && values.len() != rows {
        return Err(Error::shape(format!("tensor {} has {} factors for {rows} rows", named(tensor), values.len())));
    }
    Ok(values)
}
