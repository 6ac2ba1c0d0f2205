//! The GGUF header: magic, version, metadata and the tensor table, checked before anything is believed.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Opening files and split sets is in `mod.rs`.

use super::tensor::Tensor;
use crate::bytes::Bytes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::meta::{Meta, Stop, shown};

/// Where a file does not say `general.alignment`.
pub(super) const DEFAULT_ALIGNMENT: u64 = 32;
/// No known file aligns beyond a page.
const MAX_ALIGNMENT: u64 = 1 << 20;
/// The format says 64; forks go beyond.
const MAX_NAME: u64 = 1024;
const MAX_DIMS: usize = 4;
/// The largest models have some thousands; tables are indexed with `u32`.
const MAX_TENSORS: u64 = 1 << 24;

/// A parsed header of one file.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) meta: Meta,
    /// In the file's order, offsets absolute in the file, every range inside it.
    pub(super) tensors: Vec<Tensor>,
}

impl Header {
    /// Reads the header from the first bytes of a file that is `total` bytes long.
    /// [`Stop::More`] where these bytes end inside the header.
    pub(super) fn parse(bytes: &Bytes, total: u64) -> Result<Header, Stop> {
        let version = version(bytes)?;
        let (Some(n_tensors), Some(n_pairs)) = (u64_at(bytes, 8), u64_at(bytes, 16)) else {
            return Err(Stop::More(24));
        };
        if n_tensors > MAX_TENSORS {
            return Err(bad(format!("the file claims {n_tensors} tensors, but at most {MAX_TENSORS} are read")));
        }
        let (meta, table) = Meta::parse(bytes, 24, n_pairs)?;
        let alignment = alignment(&meta)?;
        let (mut tensors, end) = table_entries(bytes, table, n_tensors)?;
        let data = (end as u64).checked_next_multiple_of(alignment).ok_or_else(|| bad("the header's end overflows"))?;
        place(&mut tensors, data, alignment, total)?;
        Ok(Header { version, meta, tensors })
    }
}

/// What a header problem means for someone who has the whole file.
pub(super) fn explain(stop: Stop, total: u64) -> Error {
    Error::format(match stop {
        Stop::Bad(why) => why,
        Stop::More(need) => format!(
            "the header needs at least {need} bytes, but the file has {total}: it is damaged or cut short, download it again"
        ),
    })
}

fn bad(why: impl Into<String>) -> Stop {
    Stop::Bad(why.into())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn version(bytes: &[u8]) -> Result<u32, Stop> {
    if !bytes.starts_with(b"GGUF") {
        if b"GGUF".starts_with(bytes) && !bytes.is_empty() {
            return Err(Stop::More(24));
        }
        return Err(bad(super::magic::not_gguf(bytes)));
    }
    match u32_at(bytes, 4).ok_or(Stop::More(24))? {
        version @ (2 | 3) => Ok(version),
        1 => Err(bad("this is GGUF version 1, of August 2023, which is no longer read: \
             download a newer file of this model or convert it again")),
        v if (1..=0xffff).contains(&v.swap_bytes()) => Err(bad("this is a big-endian GGUF, which is not read: \
             download the little-endian file or convert it with gguf_convert_endian.py of llama.cpp")),
        v => Err(bad(format!(
            "GGUF version {v} is not known (2 and 3 are): the file is damaged or newer than this program"
        ))),
    }
}

/// The alignment of tensor data that the metadata asks for.
pub(super) fn alignment(meta: &Meta) -> Result<u64, Stop> {
    let given = meta.opt_u32("general.alignment").map_err(|e| bad(e.to_string()))?;
    match given.map_or(DEFAULT_ALIGNMENT, u64::from) {
        a if a.is_power_of_two() && a <= MAX_ALIGNMENT => Ok(a),
        a => Err(bad(format!("general.alignment is {a}, but must be a power of two up to {MAX_ALIGNMENT}"))),
    }
}

/// The tensor table's entries, their offsets still relative to the data, and where the table ends.
fn table_entries(bytes: &[u8], start: usize, count: u64) -> Result<(Vec<Tensor>, usize), Stop> {
    // An entry takes at least 24 bytes (8 + 0 + 4 + 0 + 4 + 8) and a `Tensor` at most three times that.
    let fits = (bytes.len().saturating_sub(start) / 24) as u64;
    let mut tensors = Vec::with_capacity(count.min(fits) as usize);
    let mut at = start;
    for index in 0..count {
        let (tensor, end) = entry(bytes, at, index)?;
        tensors.push(tensor);
        at = end;
    }
    Ok((tensors, at))
}

/// One entry: `u64 length + name, u32 n_dims, n_dims × u64, u32 type, u64 offset`.
fn entry(bytes: &[u8], start: usize, index: u64) -> Result<(Tensor, usize), Stop> {
    let more = |at: usize, n: usize| Stop::More((at + n) as u64);
    let name_len = u64_at(bytes, start).ok_or(more(start, 8))?;
    if name_len > MAX_NAME {
        return Err(bad(format!("the name of tensor {index} is {name_len} bytes long, but may be {MAX_NAME}")));
    }
    let at = start + 8 + name_len as usize;
    let n_dims = u32_at(bytes, at).ok_or(more(at, 4))?;
    let name = &bytes[start + 8..at];
    let name_text = std::str::from_utf8(name)
        .map_err(|_| bad(format!("the name of tensor {index}, {}, is not UTF-8", shown(name))))?;
    let n_dims = usize::try_from(n_dims).ok().filter(|n| *n <= MAX_DIMS).ok_or_else(|| {
        bad(format!("tensor {} has {n_dims} dimensions, but at most {MAX_DIMS} are possible", shown(name)))
    })?;
    let at = at + 4;
    let mut dims = [1; MAX_DIMS];
    for (i, dim) in dims.iter_mut().enumerate().take(n_dims) {
        *dim = u64_at(bytes, at + 8 * i).ok_or(more(at, 8 * n_dims))?;
    }
    let at = at + 8 * n_dims;
    // The format has four dimensions, and those that a file leaves out are 1: [64, 260, 1, 1] is [64, 260].
    let n_dims = (1..n_dims).rev().find(|i| dims[*i] != 1).map_or(n_dims.min(1), |last| last + 1);
    let (Some(type_id), Some(offset)) = (u32_at(bytes, at), u64_at(bytes, at + 4)) else { return Err(more(at, 12)) };
    let n_elements = dims.iter().try_fold(1u64, |n, dim| n.checked_mul(*dim));
    let n_elements = match n_elements {
        Some(0) => return Err(bad(format!("tensor {} has a dimension of 0", shown(name)))),
        Some(n) if i64::try_from(n).is_ok() => n,
        _ => return Err(bad(format!("the dimensions of tensor {} overflow", shown(name)))),
    };
    if DType::of(type_id).is_some_and(DType::is_of_folders) {
        return Err(bad(format!("tensor {} has the type id {type_id}, which no GGUF file can have", shown(name))));
    }
    let len = match DType::from_id(type_id) {
        Err(_) => 0,
        Ok(dtype) if !dims[0].is_multiple_of(dtype.block_len() as u64) => {
            let (row, block) = (dims[0], dtype.block_len());
            return Err(bad(format!(
                "tensor {} has rows of {row} elements, but {dtype} needs a multiple of {block}",
                shown(name)
            )));
        }
        Ok(dtype) => dtype
            .file_bytes_for(n_elements)
            .ok_or_else(|| bad(format!("the byte length of tensor {} overflows", shown(name))))?,
    };
    Ok((Tensor { name: name_text.into(), dims, n_dims: n_dims as u8, part: 0, type_id, offset, len }, at + 12))
}

/// Makes offsets absolute and checks that every tensor lies inside the file, aligned, and alone.
fn place(tensors: &mut [Tensor], data: u64, alignment: u64, total: u64) -> Result<(), Stop> {
    for tensor in &mut *tensors {
        if !tensor.offset.is_multiple_of(alignment) {
            let (name, offset) = (shown(tensor.name.as_bytes()), tensor.offset);
            return Err(bad(format!("tensor {name} lies at offset {offset}, which is no multiple of {alignment}")));
        }
        let start = data.checked_add(tensor.offset);
        if start.and_then(|s| s.checked_add(tensor.len)).is_none() {
            return Err(bad(format!("the offset of tensor {} overflows", shown(tensor.name.as_bytes()))));
        }
        tensor.offset += data;
    }
    let end = tensors.iter().map(|t| t.offset + t.len).max().unwrap_or(0);
    if end > total {
        let missing = end - total;
        return Err(bad(format!(
            "the file is cut short: its tensors end at byte {end}, but it has {total}, so {missing} bytes are missing: \
             download it again"
        )));
    }
    let order = by_offset(tensors);
    for (i, this) in order.iter().enumerate() {
        let this = *this as usize;
        let next = order.get(i + 1).map(|n| &tensors[*n as usize]);
        let limit = next.map_or(total, |t| t.offset);
        let tensor = &tensors[this];
        if let Some(next) = next.filter(|_| limit == tensor.offset || limit < tensor.offset + tensor.len) {
            let (a, b) = (shown(tensor.name.as_bytes()), shown(next.name.as_bytes()));
            return Err(bad(format!("tensors {a} and {b} overlap in the file")));
        }
        if tensor.dtype().is_err() {
            tensors[this].len = limit - tensors[this].offset;
        }
    }
    Ok(())
}

/// Tensor indices in the order of their place in the file.
pub(super) fn by_offset(tensors: &[Tensor]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..tensors.len() as u32).collect();
    order.sort_unstable_by_key(|i| (tensors[*i as usize].offset, *i));
    order
}
