//! Weights: matrices in the file's own blocks, as lists of row segments.

use crate::bytes::Bytes;
use crate::dtype::DType;

/// Index into [`super::Plan::weights`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub u32);

/// Rows of one tensor, or of a part of one, of one storage type.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The tensor's name in the file; empty for rows that no file holds (zeros for an absent bias).
    pub name: String,
    /// How the rows are stored.
    pub dtype: DType,
    /// Number of rows (output columns).
    pub rows: usize,
    /// `rows * bytes per row`, in the file's layout, at any alignment. Empty while a file is still being fed.
    pub bytes: Bytes,
    /// Bytes of one row.
    pub row_bytes: usize,
    /// Where in the tensor's bytes the first row begins.
    pub offset: u64,
}

impl Segment {
    /// Bytes that all rows take.
    pub fn n_bytes(&self) -> u64 {
        self.rows as u64 * self.row_bytes as u64
    }
}

/// A matrix `[rows, cols]`: the segments' rows, one after the other. A vector of `n` is `[n, 1]`.
///
/// This one notion covers q, k, v stored apart or fused, gate and up likewise, and mixed types inside a group.
#[derive(Debug, Clone)]
pub struct Weight {
    /// A name for people, for example `blk.0.attn_qkv`.
    pub name: String,
    /// Input columns.
    pub cols: usize,
    /// Output columns, in order.
    pub segments: Vec<Segment>,
}

impl Weight {
    /// Total rows.
    pub fn rows(&self) -> usize {
        self.segments.iter().map(|s| s.rows).sum()
    }
}
