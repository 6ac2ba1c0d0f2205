//! From a spec and a file to the weight table: names and shapes checked, row groups formed, nothing copied or decoded.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;

use super::columns::COLUMNS;
use super::factors::{self, floats, plain_rows};
use super::parts;
use crate::adapter::{Beside, Rows};
use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::file::{ModelFile, Table, Tensor};
use crate::plan::{Product, Recorder, Segment, Weight, WeightId};

/// Rows of a tensor at most: token ids are 32 bits, of which the sign is not used.
const MAX_ROWS: usize = i32::MAX as usize;

/// Finds a model's tensors and adds them to a recording.
pub(super) struct Weights<'a> {
    pub file: &'a ModelFile,
    /// Names of the tensors whose numbers recording has read.
    read: RefCell<HashSet<String>>,
    adapters: &'a Beside<'a>,
}

/// The factors of rotations, which recording reads.
pub(super) const ROPE_FACTORS: [&str; 3] =
    ["rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"];

/// Whether recording itself reads the tensor of this name. Of a file that arrives in pieces these are kept, and the model is
/// recorded anew once they are there.
pub fn read_at_recording(table: &Table, name: &str) -> bool {
    let ends = [
        ".act.scales",
        ".attn_q_norm.weight",
        ".attn_k_norm.weight",
        ".ssm_a",
        "_attn_scale.weight",
        "_ffn_scale.weight",
        "_hc_scale.weight",
        COLUMNS,
    ];
    let is_vector = ends.iter().any(|end| name.ends_with(end));
    ROPE_FACTORS.contains(&name) || is_vector || factors::is_read(table, name)
}

/// Reads a small vector of [`read_at_recording`] as f32 (norms stay in the file). Ones where it has not arrived yet.
pub(super) fn vector(file: &ModelFile, tensor: &Tensor, n: usize) -> Result<Vec<f32>> {
    Ok(arrived(file, tensor, n)?.unwrap_or_else(|| vec![1.0; n]))
}

/// The same; `None` if it has not arrived yet.
pub(super) fn arrived(file: &ModelFile, tensor: &Tensor, n: usize) -> Result<Option<Vec<f32>>> {
    if tensor.n_elements() != n as u64 {
        let (name, has) = (tensor.name(), tensor.n_elements());
        return Err(Error::shape(format!("tensor {name} should have {n} elements, but has {has}")));
    }
    let dtype = tensor.dtype()?;
    match file.held(tensor)? {
        Some(bytes) => {
            let mut out = vec![1.0; n];
            crate::quant::decode(dtype, &bytes, &mut out)?;
            Ok(Some(out))
        }
        None if read_at_recording(file.table(), tensor.name()) => Ok(None),
        None => Err(Error::Reload("a tensor that recording reads was not kept")),
    }
}

impl<'a> Weights<'a> {
    /// The tensors of a file, and what adapters have beside them.
    pub(super) fn new(file: &'a ModelFile, adapters: &'a Beside<'a>) -> Weights<'a> {
        Weights { file, read: RefCell::default(), adapters }
    }

    /// Names of the tensors whose numbers recording has read.
    pub(super) fn into_read(self) -> HashSet<String> {
        self.read.into_inner()
    }

    /// Recording has read the numbers of this tensor.
    pub(super) fn note_read(&self, name: &str) {
        self.read.borrow_mut().insert(name.to_owned());
    }

    fn find(&self, name: &str) -> Result<&Tensor> {
        let missing = || Error::format(format!("tensor {name} is missing: the file is no complete model of its kind"));
        self.file.tensor(name).ok_or_else(missing)
    }

    /// Whether the file holds this tensor, and its architecture uses it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.file.tensor(name).is_some() && !parts::is_unused(self.file.meta().arch().unwrap_or_default(), name)
    }

    /// The tensor's rows of `cols` columns, of which there must be `rows` where that is known: in one segment, but for
    /// tensors that several files or ranges hold.
    pub(super) fn segments(&self, name: &str, rows: Option<usize>, cols: usize) -> Result<Vec<Segment>> {
        let tensor = self.find(name)?;
        let dtype = tensor.dtype()?;
        let (dims, wrong) = (tensor.dims(), |want: String| {
            Error::shape(format!("tensor {name} should be {want}, but is {:?}", tensor.dims()))
        });
        let vector = cols == 1 && dims.len() == 1;
        let (has_cols, has_rows) = match *dims {
            [n] if vector => (1, n),
            // A vector of each of several parts: heads, experts, columns.
            _ if cols == 1 && rows.is_some_and(|rows| tensor.n_elements() == rows as u64) => (1, tensor.n_elements()),
            [n] => (n, 1),
            [c, r] => (c, r),
            // Matrices one after the other.
            [c, r, e] => (c, r.saturating_mul(e)),
            _ => return Err(wrong("a matrix".into())),
        };
        if has_cols != cols as u64 || rows.is_some_and(|rows| has_rows != rows as u64) {
            let rows = rows.map_or("n".to_owned(), |r| r.to_string());
            return Err(wrong(if cols == 1 { format!("[{rows}]") } else { format!("[{cols}, {rows}]") }));
        }
        let Some(row_bytes) = dtype.bytes_for(cols) else {
            return Err(wrong(format!("rows of whole {dtype} blocks of {}", dtype.block_len())));
        };
        let rows = usize::try_from(has_rows).ok().filter(|rows| *rows <= MAX_ROWS);
        let rows = rows.ok_or_else(|| wrong(format!("a matrix of up to {MAX_ROWS} rows")))?;
        if has_rows.checked_mul(row_bytes as u64) != Some(tensor.byte_len()) {
            return Err(wrong(format!("{has_rows} rows of {row_bytes} bytes")));
        }
        let Some(pieces) = self.file.pieces(tensor)? else {
            return Ok(vec![Segment {
                name: name.to_owned(),
                dtype,
                rows,
                bytes: Bytes::default(),
                row_bytes,
                offset: 0,
            }]);
        };
        let whole_rows = pieces.len() == 1 || pieces.iter().all(|p| p.len().is_multiple_of(row_bytes));
        let pieces = if whole_rows { pieces } else { vec![self.file.bytes(tensor)?] };
        if pieces.iter().map(|p| p.len()).sum::<usize>() as u64 != tensor.byte_len() {
            return Err(wrong(format!("{has_rows} rows of {row_bytes} bytes")));
        }
        let mut offset = 0;
        let segment = |bytes: Bytes| {
            let (rows, at) = (bytes.len() / row_bytes, offset);
            offset += bytes.len() as u64;
            Segment { name: name.to_owned(), dtype, rows, bytes, row_bytes, offset: at }
        };
        Ok(pieces.into_iter().map(segment).collect())
    }

    /// Rows of several tensors, one after the other, as one weight. `rows[i]` output columns come from `names[i]`.
    pub(super) fn matrix(
        &self,
        rec: &mut Recorder,
        name: &str,
        names: &[String],
        rows: &[usize],
        cols: usize,
    ) -> Result<WeightId> {
        let all = names.iter().zip(rows).map(|(n, r)| self.segments(n, Some(*r), cols)).collect::<Result<Vec<_>>>()?;
        let segments = all.into_iter().flatten().collect();
        let weight = rec.weight(Weight { name: name.to_owned(), cols, segments });
        let parts = names.iter().zip(rows).map(|(name, rows)| (name.clone(), *rows, whole(*rows)));
        self.adapters.product(rec, weight, name, &parts.collect::<Vec<_>>(), cols)?;
        Ok(weight)
    }

    /// What adapters have beside products with a token table that is the head, too.
    pub(super) fn adapt_head(&self, rec: &mut Recorder, table: WeightId, rows: usize, cols: usize) -> Result<()> {
        self.adapters.product(rec, table, "output", &[("output.weight".into(), rows, whole(rows))], cols)
    }

    /// The token table, whose row count is the vocabulary's.
    pub(super) fn table(&self, rec: &mut Recorder, name: &str, cols: usize) -> Result<WeightId> {
        let segments = self.segments(name, None, cols)?;
        let rows = segments.iter().map(|s| s.rows).sum();
        let table = rec.weight(Weight { name: name.trim_end_matches(".weight").to_owned(), cols, segments });
        if name == "token_embd.weight" {
            self.adapters.table(rec, table, rows, cols)?;
        }
        Ok(table)
    }

    /// The first row of a table, as a vector of `cols`.
    pub(super) fn first_row(&self, rec: &mut Recorder, name: &str, cols: usize) -> Result<WeightId> {
        let rows = part(&self.segments(name, None, cols)?, 0, 1)?;
        let row = rows.into_iter().next().ok_or_else(|| Error::shape(format!("tensor {name} has no rows")))?;
        if row.dtype.block_len() > 1 {
            return Err(Error::unsupported(format!("tensor {name} is a table of {}", row.dtype)));
        }
        let segment = Segment { rows: cols, row_bytes: row.row_bytes / cols, ..row };
        Ok(rec.weight(Weight { name: name.trim_end_matches(".weight").to_owned(), cols: 1, segments: vec![segment] }))
    }

    /// A tensor's dimensions, if the file holds it.
    pub(super) fn dims(&self, name: &str) -> Option<&[u64]> {
        self.file.tensor(name).map(|tensor| tensor.dims())
    }

    /// A norm's weights and bias, `name` being without `.weight`: vectors of one of these lengths, also where the file
    /// has them in two dimensions.
    pub(super) fn norm(
        &self,
        rec: &mut Recorder,
        name: &str,
        lengths: &[usize],
    ) -> Result<(Option<WeightId>, Option<WeightId>)> {
        let mut load = |name: String| {
            let tensor = self.find(&name)?;
            let n = lengths.iter().find(|n| **n as u64 == tensor.n_elements()).or(lengths.first()).copied();
            self.vector(rec, &name, n.unwrap_or_default()).map(Some)
        };
        // Some files leave the ending out.
        let full = format!("{name}.weight");
        let weight = load(if !self.has(&full) && self.has(name) { name.to_owned() } else { full })?;
        let bias = format!("{name}.bias");
        Ok((weight, if self.has(&bias) { load(bias)? } else { None }))
    }

    /// A vector of `rows` values, which no file holds as they are; `None` as long as they are not known.
    pub(super) fn constant(&self, rec: &mut Recorder, name: &str, values: Option<&[f32]>, rows: usize) -> WeightId {
        let segment = plain_rows(rows, values.map_or(Bytes::default(), floats));
        rec.weight(Weight { name: name.to_owned(), cols: 1, segments: vec![segment] })
    }

    /// A vector of `n`.
    pub(super) fn vector(&self, rec: &mut Recorder, name: &str, n: usize) -> Result<WeightId> {
        let segments = self.segments(name, Some(n), 1)?;
        if let Some(blocks) = segments.iter().find(|s| s.dtype.block_len() > 1) {
            return Err(Error::unsupported(format!("tensor {name} is a {} vector", blocks.dtype)));
        }
        Ok(rec.weight(Weight { name: name.trim_end_matches(".weight").to_owned(), cols: 1, segments }))
    }

    /// Numbers of a tensor times a factor, each so many times over.
    pub(super) fn repeated(&self, rec: &mut Recorder, name: &str, times: &[usize], factor: f32) -> Result<WeightId> {
        let each = |(x, times): (&f32, &usize)| std::iter::repeat_n(factor * x, *times);
        let numbers = self.numbers(name, times.len())?;
        let values = numbers.map(|v| v.iter().zip(times).flat_map(each).collect::<Vec<f32>>());
        Ok(self.constant(rec, name.trim_end_matches(".weight"), values.as_deref(), times.iter().sum()))
    }

    /// 1 over each number of a tensor.
    pub(super) fn reciprocals(&self, rec: &mut Recorder, name: &str, n: usize) -> Result<WeightId> {
        let values = self.numbers(name, n)?.map(|v| v.iter().map(|x| 1.0 / x).collect::<Vec<f32>>());
        Ok(self.constant(rec, name, values.as_deref(), n))
    }

    /// The numbers of a tensor that recording reads; `None` if they have not arrived.
    pub(super) fn numbers(&self, name: &str, n: usize) -> Result<Option<Vec<f32>>> {
        self.note_read(name);
        arrived(self.file, self.find(name)?, n)
    }

    /// The product with rows of several tensors, one after the other, and the factors beside them.
    pub(super) fn slices(&self, rec: &mut Recorder, name: &str, parts: &[Rows], cols: usize) -> Result<Product> {
        let mut segments = Vec::new();
        for (tensor, rows, ranges) in parts {
            let whole = self.segments(tensor, Some(*rows), cols)?;
            for range in ranges {
                segments.extend(part(&whole, range.start, range.len())?);
            }
        }
        let scale = self.scale(rec, name, parts, 1)?;
        let weight = rec.weight(Weight { name: name.to_owned(), cols, segments });
        if let Some(columns) = self.columns(rec, name, parts, cols)? {
            rec.reorder(weight, columns);
        }
        self.adapters.product(rec, weight, name, parts, cols)?;
        Ok(Product { scale, ..weight.into() })
    }

    /// The biases beside tensors of which rows are used (`x.weight` -> `x.bias`); `None` if the file holds none of them. Where
    /// it holds some, the others are zeros.
    pub(super) fn bias(&self, rec: &mut Recorder, name: &str, parts: &[Rows]) -> Result<Option<WeightId>> {
        if parts.iter().all(|(tensor, ..)| !self.has(&tensor.replace(".weight", ".bias"))) {
            return Ok(None);
        }
        let mut segments = Vec::new();
        for (tensor, rows, ranges) in parts {
            let whole = self.bias_rows(tensor, *rows)?;
            for range in ranges {
                segments.extend(part(&whole, range.start, range.len())?);
            }
        }
        Ok(Some(rec.weight(Weight { name: format!("{name}.bias"), cols: 1, segments })))
    }

    /// A stack of `n` matrices, each of whose rows come from several tensors, one after the other: `rows[i]` of `names[i]`,
    /// which hold the rows of all matrices.
    pub(super) fn stack(
        &self,
        rec: &mut Recorder,
        name: &str,
        names: &[String],
        rows: &[usize],
        shape: (usize, usize),
    ) -> Result<WeightId> {
        self.stack_of(rec, name, names, rows, shape, 0..shape.1)
    }

    /// A stack of some of `n` matrices, of which each may be there several times.
    pub(super) fn stack_of(
        &self,
        rec: &mut Recorder,
        name: &str,
        names: &[String],
        rows: &[usize],
        (cols, n): (usize, usize),
        which: impl Iterator<Item = usize>,
    ) -> Result<WeightId> {
        let all = rows.iter().map(|r| r.checked_mul(n).filter(|all| *all <= MAX_ROWS));
        let all = all.collect::<Option<Vec<_>>>();
        let all = all.ok_or_else(|| Error::limit(format!("{n} matrices of {rows:?} rows are too many")))?;
        let whole = names.iter().zip(&all).map(|(name, all)| self.segments(name, Some(*all), cols));
        let whole = whole.collect::<Result<Vec<_>>>()?;
        let mut segments = Vec::new();
        for e in which {
            for (segment, rows) in whole.iter().zip(rows) {
                segments.extend(part(segment, e * rows, *rows)?);
            }
        }
        Ok(rec.weight(Weight { name: name.to_owned(), cols, segments }))
    }

    /// The biases that go with a stack's `names`, in the stack's order; `None` if the file holds none of them.
    pub(super) fn stack_bias(
        &self,
        rec: &mut Recorder,
        name: &str,
        names: &[String],
        rows: &[usize],
        n: usize,
    ) -> Result<Option<WeightId>> {
        let names: Vec<String> = names.iter().map(|n| n.replace(".weight", ".bias")).collect();
        if !names.iter().any(|n| self.has(n)) {
            return Ok(None);
        }
        self.stack(rec, &format!("{name}.bias"), &names, rows, (1, n)).map(Some)
    }
}

/// Rows of a tensor's segments.
fn part(whole: &[Segment], first: usize, rows: usize) -> Result<Vec<Segment>> {
    let (mut parts, mut before, end) = (Vec::new(), 0, first + rows);
    for segment in whole {
        let (from, to) = (first.max(before), end.min(before + segment.rows));
        if from < to {
            parts.push(rows_of(segment, from - before, to - from)?);
        }
        before += segment.rows;
    }
    Ok(parts)
}

/// Rows of a segment.
fn rows_of(segment: &Segment, first: usize, rows: usize) -> Result<Segment> {
    let (from, to) = (first * segment.row_bytes, (first + rows) * segment.row_bytes);
    let short = || Error::format(format!("tensor {} ends before its last row", segment.name));
    let bytes =
        if segment.bytes.is_empty() { Bytes::default() } else { segment.bytes.slice(from..to).ok_or_else(short)? };
    Ok(Segment { bytes, rows, offset: segment.offset + from as u64, ..segment.clone() })
}

/// All rows of a tensor, as one range.
pub(super) fn whole(rows: usize) -> Vec<Range<usize>> {
    std::iter::once(0..rows).collect()
}
