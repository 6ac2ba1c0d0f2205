//! What a runner of a plan is to have room for.

use super::Rows;
use crate::dtype::DType;
use crate::quant;

/// How the cache stores keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvKind {
    /// Half precision: half the memory, and what other engines do.
    #[default]
    F16,
    /// Single precision, for comparing engines.
    F32,
    /// Blocks of 32 with a scale, in 8 bits: half the memory of halves. Heads must be whole blocks.
    Blocks8,
}

impl KvKind {
    /// Every kind.
    pub const ALL: [KvKind; 3] = [KvKind::F16, KvKind::F32, KvKind::Blocks8];

    /// The storage type.
    pub fn dtype(self) -> DType {
        match self {
            KvKind::F16 => DType::F16,
            KvKind::F32 => DType::F32,
            KvKind::Blocks8 => quant::CACHE_BLOCKS,
        }
    }

    /// Bytes of a key or a value of one head.
    pub fn row_bytes(self, n: usize) -> usize {
        let dtype = self.dtype();
        n.div_ceil(dtype.block_len()) * dtype.block_bytes()
    }

    /// The name that users write.
    pub fn name(self) -> String {
        self.dtype().name().to_lowercase()
    }
}

/// What a runner must have room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunnerOptions {
    /// Rows of one step at most.
    pub max_tokens: usize,
    /// Rows whose logits one step can give, and means of rows that it can give besides.
    pub max_outputs: usize,
    /// How the cache stores its elements.
    pub kv: KvKind,
    /// Pages in the cache, of the first group of caches.
    pub n_pages: usize,
    /// Pages of each further group, which has a window. 0: as many as the first, and steps bring the first one's tables
    /// for all.
    pub n_window_pages: usize,
    /// Slots for the states of sequences; none are needed by a plan without recurrent parts.
    pub n_states: usize,
}

impl RunnerOptions {
    /// Pages of a group.
    pub fn pages(&self, group: usize) -> usize {
        if group == 0 || self.n_window_pages == 0 { self.n_pages } else { self.n_window_pages }
    }

    /// Rows of this kind that one step has at most.
    pub fn most(&self, rows: Rows) -> usize {
        match rows {
            Rows::Tokens | Rows::Sources | Rows::Adapted => self.max_tokens,
            Rows::Outputs | Rows::Pools => self.max_outputs,
        }
    }
}
