//! [`Tensor`]: one line of a file's tensor table: a name, a shape, a type and a range of bytes.
//! The bytes themselves are [`super::ModelFile::bytes`] or arrive through [`super::PushReader`].

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::meta::shown;

/// A tensor as the file's table describes it. Its range lies inside the file: that is checked at open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    pub(super) name: Box<str>,
    pub(super) dims: [u64; 4],
    pub(super) n_dims: u8,
    pub(super) part: u16,
    pub(super) type_id: u32,
    /// Absolute in its file.
    pub(super) offset: u64,
    pub(super) len: u64,
}

// The table is allocated for as many tensors as could fit the file at 24 bytes each: see `gguf::table_entries`.
const _: () = assert!(size_of::<Tensor>() <= 72);

impl Tensor {
    /// A tensor of this shape that lies in no GGUF.
    ///
    /// # Errors
    /// [`Error::Shape`] where no tensor of the type can have the shape.
    pub(super) fn described(name: &str, dims: &[u64], dtype: DType) -> Result<Tensor> {
        let wrong =
            || Error::shape(format!("tensor {} of {dtype} cannot have the shape {dims:?}", shown(name.as_bytes())));
        let mut all = [1; 4];
        // Dimensions of 1 at the end are left out, so that more than four may be given.
        let used = dims.iter().rposition(|d| *d != 1).map_or(dims.len().min(1), |last| last + 1);
        all.get_mut(..used).ok_or_else(wrong)?.copy_from_slice(&dims[..used]);
        let n = all.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).filter(|n| *n > 0).ok_or_else(wrong)?;
        let len = dtype.file_bytes_for(all[0]).and_then(|_| dtype.file_bytes_for(n)).ok_or_else(wrong)?;
        Ok(Tensor { name: name.into(), dims: all, n_dims: used as u8, part: 0, type_id: dtype as u32, offset: 0, len })
    }

    /// The name, such as `blk.0.attn_q.weight`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shape in GGUF's order: `dims()[0]` elements are contiguous (a row), `dims()[1]` is the number of rows.
    /// Dimensions of 1 at the end are left out, as if the file did not have them; the first one stays. Empty for a scalar.
    pub fn dims(&self) -> &[u64] {
        &self.dims[..self.n_dims.into()]
    }

    /// Number of elements: the product of the dimensions.
    pub fn n_elements(&self) -> u64 {
        self.dims.iter().product()
    }

    /// The storage type.
    ///
    /// # Errors
    /// [`Error::Unsupported`] names tensor and type where this version cannot read it.
    pub fn dtype(&self) -> Result<DType> {
        // A table read from a file has no ids of folders: see `gguf::entry`.
        if let Some(dtype) = DType::of(self.type_id) {
            return Ok(dtype);
        }
        DType::from_id(self.type_id)
            .map_err(|why| Error::unsupported(format!("tensor {}: {why}", shown(self.name.as_bytes()))))
    }

    /// The storage type's id as the file has it.
    pub fn type_id(&self) -> u32 {
        self.type_id
    }

    /// The first byte's place in the file (in its part of a split set).
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes in the file. For a type this version cannot read: up to the next tensor or the file's end.
    pub fn byte_len(&self) -> u64 {
        self.len
    }

    /// The part of a split set that holds the tensor, from 0.
    pub fn part(&self) -> usize {
        self.part.into()
    }
}
