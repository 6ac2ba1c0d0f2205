//! [`GgufWriter`]: writes GGUF files and split sets, tensor by tensor. For files made of others, tests and
//! synthetic models.

use std::io::{self, Write};

use super::gguf::{DEFAULT_ALIGNMENT, alignment};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::meta::MetaBuilder;

/// A file to be written: metadata and the shapes of its tensors. Their data is asked for while writing.
#[derive(Debug, Clone)]
pub struct GgufWriter {
    version: u32,
    alignment: u64,
    meta: MetaBuilder,
    tensors: Vec<Declared>,
    /// The index that the whole set gives this part's first tensor.
    first: usize,
}

#[derive(Debug, Clone)]
struct Declared {
    name: String,
    dims: Vec<u64>,
    dtype: DType,
    len: u64,
}

impl GgufWriter {
    /// A version 3 file with this metadata, aligned as its `general.alignment` says (32 where it does not).
    ///
    /// # Errors
    /// Where that alignment is impossible.
    pub fn new(meta: MetaBuilder) -> Result<GgufWriter> {
        let alignment = alignment(&meta.clone().build()).map_err(|stop| super::gguf::explain(stop, 0))?;
        Ok(GgufWriter { version: 3, alignment, meta, tensors: Vec::new(), first: 0 })
    }

    /// Writes this format version instead (2 and 3 differ in nothing but the number).
    pub fn version(mut self, version: u32) -> GgufWriter {
        self.version = version;
        self
    }

    /// Declares the next tensor; `dims[0]` elements are contiguous.
    ///
    /// # Errors
    /// [`Error::Shape`] where its rows are no whole number of blocks or its size overflows, [`Error::Unsupported`] for types
    /// that no GGUF file has.
    pub fn tensor(&mut self, name: &str, dims: &[u64], dtype: DType) -> Result<()> {
        if dtype.is_of_folders() {
            let instead = dtype.in_files();
            return Err(Error::unsupported(format!("GGUF files have no type {dtype}: its values are {instead} there")));
        }
        let wrong = || Error::shape(format!("a tensor of {dtype} cannot have the shape {dims:?}"));
        let n = dims.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).ok_or_else(wrong)?;
        let row = dims.first().copied().unwrap_or(1);
        let len = dtype.file_bytes_for(row).and_then(|_| dtype.file_bytes_for(n)).ok_or_else(wrong)?;
        self.tensors.push(Declared { name: name.into(), dims: dims.into(), dtype, len });
        Ok(())
    }

    /// The bytes before the tensor data: header, metadata, table, padding.
    pub fn header(&self) -> Vec<u8> {
        let (n_pairs, pairs) = self.meta.encoded();
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend(n_pairs.to_le_bytes());
        out.extend(pairs);
        let mut offset = 0u64;
        for tensor in &self.tensors {
            out.extend((tensor.name.len() as u64).to_le_bytes());
            out.extend(tensor.name.as_bytes());
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            out.extend(tensor.dims.iter().flat_map(|d| d.to_le_bytes()));
            out.extend((tensor.dtype as u32).to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += self.padded(tensor.len);
        }
        out.resize(self.padded(out.len() as u64) as usize, 0);
        out
    }

    /// Bytes of the whole file.
    pub fn byte_len(&self) -> u64 {
        self.header().len() as u64 + self.tensors.iter().map(|t| self.padded(t.len)).sum::<u64>()
    }

    /// Writes the file; `data(i)` gives the bytes of the `i`-th declared tensor (of a split set: of all its parts).
    ///
    /// # Errors
    /// What `out` returns, and `InvalidInput` where a tensor's data is not as long as its shape takes.
    pub fn write(&self, out: &mut dyn Write, data: &mut dyn FnMut(usize) -> Vec<u8>) -> io::Result<()> {
        out.write_all(&self.header())?;
        for (i, tensor) in self.tensors.iter().enumerate() {
            let bytes = data(self.first + i);
            if bytes.len() as u64 != tensor.len {
                let what = format!("tensor {:?} takes {} bytes, not {}", tensor.name, tensor.len, bytes.len());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            out.write_all(&bytes)?;
            let padding = self.padded(tensor.len) - tensor.len;
            io::copy(&mut io::Read::take(io::repeat(0), padding), out)?;
        }
        Ok(())
    }

    /// Bytes of zeros behind the data of the `i`-th declared tensor.
    pub fn padding(&self, i: usize) -> usize {
        self.tensors.get(i).map_or(0, |t| (self.padded(t.len) - t.len) as usize)
    }

    /// The parts of a split set, the tensors shared out evenly in order. The first part has the metadata.
    pub fn split(self, n_parts: u16) -> Vec<GgufWriter> {
        let n_each = self.tensors.len().div_ceil(n_parts.max(1).into());
        self.into_parts(&vec![n_each; n_parts.into()])
    }

    /// The parts of a split set, each of so many of the tensors as `shares` says. The first part has the metadata.
    pub fn into_parts(self, shares: &[usize]) -> Vec<GgufWriter> {
        let n_tensors = self.tensors.len();
        let n_parts = u16::try_from(shares.len()).unwrap_or(u16::MAX);
        let mut tensors = self.tensors.into_iter();
        let mut meta = Some(self.meta);
        let mut first = 0;
        let mut parts = Vec::new();
        for (no, share) in (0..n_parts).zip(shares) {
            // Only the first part repeats what the metadata says of alignment, so the others have the default.
            let alignment = if no == 0 { self.alignment } else { DEFAULT_ALIGNMENT };
            let meta = meta.take().unwrap_or_default();
            let meta = meta.u16("split.no", no).u16("split.count", n_parts);
            let meta = meta.i32("split.tensors.count", n_tensors as i32);
            let tensors: Vec<_> = tensors.by_ref().take(*share).collect();
            let n = tensors.len();
            parts.push(GgufWriter { version: self.version, alignment, meta, tensors, first });
            first += n;
        }
        parts
    }

    fn padded(&self, len: u64) -> u64 {
        len.next_multiple_of(self.alignment)
    }
}
