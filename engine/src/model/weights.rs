//! From a spec and a file to the weight table: names and shapes checked, row groups formed, nothing copied or decoded.

use crate::bytes::Bytes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::file::{ModelFile, Tensor};
use crate::plan::{Recorder, Segment, Weight, WeightId};

/// Rows of a tensor at most: token ids are 32 bits, of which the sign is not used.
const MAX_ROWS: usize = i32::MAX as usize;

/// Finds a model's tensors and adds them to a recording.
pub(super) struct Weights<'a> {
    pub file: &'a ModelFile,
}

/// Tensors that recording itself reads, by name. Of a file that arrives in pieces these are kept, and the model is
/// recorded anew once they are there.
pub const READ_AT_RECORDING: &[&str] = &["rope_freqs.weight"];

/// Reads a small vector of [`READ_AT_RECORDING`] as f32 (norms stay in the file). Ones where it has not arrived yet.
pub(super) fn vector(file: &ModelFile, tensor: &Tensor, n: usize) -> Result<Vec<f32>> {
    if tensor.n_elements() != n as u64 {
        let (name, has) = (tensor.name(), tensor.n_elements());
        return Err(Error::shape(format!("tensor {name} should have {n} elements, but has {has}")));
    }
    let (dtype, mut out) = (tensor.dtype()?, vec![1.0; n]);
    match file.held(tensor)? {
        Some(bytes) => crate::quant::decode(dtype, &bytes, &mut out)?,
        None if READ_AT_RECORDING.contains(&tensor.name()) => {}
        None => return Err(Error::Reload("a tensor that recording reads was not kept")),
    }
    Ok(out)
}

impl Weights<'_> {
    fn find(&self, name: &str) -> Result<&Tensor> {
        let missing = || Error::format(format!("tensor {name} is missing: the file is no complete model of its kind"));
        self.file.tensor(name).ok_or_else(missing)
    }

    /// Whether the file holds this tensor.
    pub(super) fn has(&self, name: &str) -> bool {
        self.file.tensor(name).is_some()
    }

    /// The tensor's rows of `cols` columns, of which there must be `rows` where that is known.
    fn segment(&self, name: &str, rows: Option<usize>, cols: usize) -> Result<Segment> {
        let tensor = self.find(name)?;
        let dtype = tensor.dtype()?;
        let (dims, wrong) = (tensor.dims(), |want: String| {
            Error::shape(format!("tensor {name} should be {want}, but is {:?}", tensor.dims()))
        });
        let vector = cols == 1 && dims.len() == 1;
        let (has_cols, has_rows) = match *dims {
            [n] if vector => (1, n),
            // A weight for each element of each head.
            [n, m] if cols == 1 && rows.is_some_and(|rows| n.checked_mul(m) == Some(rows as u64)) => (1, n * m),
            [n] => (n, 1),
            [c, r] => (c, r),
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
        let bytes = self.file.held(tensor)?.unwrap_or_default();
        Ok(Segment { name: name.to_owned(), dtype, rows, bytes, row_bytes })
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
        let segments = names.iter().zip(rows).map(|(n, r)| self.segment(n, Some(*r), cols)).collect::<Result<_>>()?;
        Ok(rec.weight(Weight { name: name.to_owned(), cols, segments }))
    }

    /// The token table, whose row count is the vocabulary's.
    pub(super) fn table(&self, rec: &mut Recorder, name: &str, cols: usize) -> Result<WeightId> {
        let segment = self.segment(name, None, cols)?;
        Ok(rec.weight(Weight { name: name.trim_end_matches(".weight").to_owned(), cols, segments: vec![segment] }))
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
        let weight = load(format!("{name}.weight"))?;
        let bias = format!("{name}.bias");
        Ok((weight, if self.has(&bias) { load(bias)? } else { None }))
    }

    /// A vector of `n`.
    fn vector(&self, rec: &mut Recorder, name: &str, n: usize) -> Result<WeightId> {
        let segment = self.segment(name, Some(n), 1)?;
        if segment.dtype.block_len() > 1 {
            return Err(Error::unsupported(format!("tensor {name} is a {} vector", segment.dtype)));
        }
        Ok(rec.weight(Weight { name: name.trim_end_matches(".weight").to_owned(), cols: 1, segments: vec![segment] }))
    }

    /// The biases that go with `names` (`x.weight` -> `x.bias`), or `None` where the file holds none of them.
    /// Where it holds some, the others are zeros.
    pub(super) fn bias(
        &self,
        rec: &mut Recorder,
        name: &str,
        names: &[String],
        rows: &[usize],
    ) -> Result<Option<WeightId>> {
        let names: Vec<String> = names.iter().map(|n| n.replace(".weight", ".bias")).collect();
        if !names.iter().any(|n| self.has(n)) {
            return Ok(None);
        }
        let segment = |(name, rows): (&String, &usize)| {
            if self.has(name) {
                return self.segment(name, Some(*rows), 1);
            }
            let bytes = Bytes::from(vec![0; 4 * rows]);
            Ok(Segment { name: String::new(), dtype: DType::F32, rows: *rows, bytes, row_bytes: 4 })
        };
        let segments = names.iter().zip(rows).map(segment).collect::<Result<_>>()?;
        Ok(Some(rec.weight(Weight { name: format!("{name}.bias"), cols: 1, segments })))
    }
}
