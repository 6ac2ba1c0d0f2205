//! What a runner of a plan is to have room for.

use super::Rows;

/// How the cache stores keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvKind {
    /// Half precision: half the memory, and what other engines do.
    #[default]
    F16,
    /// Single precision, for comparing engines.
    F32,
}

impl KvKind {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            KvKind::F16 => 2,
            KvKind::F32 => 4,
        }
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
    /// Pages in the cache.
    pub n_pages: usize,
    /// Slots for the states of sequences; none are needed by a plan without recurrent parts.
    pub n_states: usize,
}

impl RunnerOptions {
    /// Rows of this kind that one step has at most.
    pub fn most(&self, rows: Rows) -> usize {
        match rows {
            Rows::Tokens | Rows::Sources => self.max_tokens,
            Rows::Outputs | Rows::Pools => self.max_outputs,
        }
    }
}
