//! The storage types of tensors under the name by which the tree knows them. The table that makes them is in `quant`.

pub use crate::quant::DType;
