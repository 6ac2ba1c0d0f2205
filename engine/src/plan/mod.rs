//! The neck: a model's computation as a flat list of ops over slots and weights. No device, no model family, no file.
//!
//! A plan is recorded once per model. Row counts are symbolic ([`Rows`]), so the same plan serves prefill, decode and
//! mixed batches. Devices walk [`Plan::ops`]; nothing below this module knows what a model is.

mod divide;
mod inputs;
mod layout;
mod micro;
mod op;
mod options;
mod parts;
mod recorder;
mod show;
mod slots;
#[cfg(test)]
mod tests;
mod weight;

use std::sync::Arc;

use crate::error::{Error, Result};

pub(crate) use divide::state_of;
pub use divide::{Division, Stage};
pub use inputs::{CachePlace, Change, Inputs, PAGE, Pool, SEGMENTS, StateSlots, TOP, Want};
pub use layout::{CacheGroup, CacheLayout};
pub use op::{Op, OpKind};
pub use options::{KvKind, RunnerOptions};
pub use parts::{
    Act, AttentionMask, Epilogue, Gated, Heads, LongRope, Lookup, Norm, NormKind, Pick, Prologue, Recurrence, Relative,
    RopeStyle, RopeTable, Routing, Scoring, Temperature, View,
};
pub use recorder::{Adapted, Attend, ExpertEpilogue, Product, Recorder, Recur};
pub use weight::{Segment, Weight, WeightId};

/// How many rows a slot has in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Rows {
    /// Every token of the step.
    #[default]
    Tokens,
    /// The rows whose logits are wanted.
    Outputs,
    /// The means of rows that are wanted.
    Pools,
    /// Every token of a step that reads sources: texts in front of those that the plan generates. Such a step has no
    /// [`Rows::Tokens`].
    Sources,
    /// Every token of a step of which some row uses an adapter. Ops are recorded for such steps; slots have other rows.
    Adapted,
}

/// An activation: `rows x cols` of f32, row-major. Several slots may live in one buffer, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// A slot's shape and the buffer it lives in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// Symbolic row count.
    pub rows: Rows,
    /// Columns.
    pub cols: usize,
    /// Index into [`Plan::buffers`]; `usize::MAX` for a slot that no op touches.
    pub buffer: usize,
    /// What its readers take.
    pub readers: Readers,
}

/// The forms in which the readers of a slot take its rows. The op that writes a slot may write either form or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readers {
    /// f32.
    pub floats: bool,
    /// Blocks of 32 in 8 bits with a scale, on devices that multiply block-quantised weights with such activations: every
    /// segment of the reading product's weight is block-quantised, and no norm stands between.
    pub blocks: bool,
}

/// A physical buffer: large enough for the widest slot that ever lives in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferInfo {
    /// Symbolic row count.
    pub rows: Rows,
    /// Columns of the widest slot.
    pub cols: usize,
}

/// What one layer keeps per token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Heads of K and of V.
    pub n_kv_heads: usize,
    /// Elements of one K head.
    pub k_dim: usize,
    /// Elements of one V head.
    pub v_dim: usize,
    /// Whether a value is the first elements of its key: then nothing else is kept (latent attention).
    pub v_in_k: bool,
}

impl KvShape {
    /// Bytes that one token occupies.
    pub fn token_bytes(&self, kind: KvKind) -> usize {
        let values = if self.v_in_k { 0 } else { kind.row_bytes(self.v_dim) };
        self.n_kv_heads * (kind.row_bytes(self.k_dim) + values)
    }

    /// Refuses heads that are no whole blocks of a kind.
    ///
    /// # Errors
    /// Such heads, with their length.
    pub fn expect_blocks(&self, kind: KvKind) -> Result<()> {
        let (block, v_dim) = (kind.dtype().block_len(), if self.v_in_k { 0 } else { self.v_dim });
        match [self.k_dim, v_dim].into_iter().find(|dim| !dim.is_multiple_of(block)) {
            Some(dim) => Err(Error::unsupported(format!(
                "a cache of {} takes heads of a multiple of {block} elements, and this model's have {dim}: use f16",
                kind.name()
            ))),
            None => Ok(()),
        }
    }
}

/// One op in its place.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The op.
    pub op: Op,
    /// Which part of the model asked for it, for example `blk.3.attn`.
    pub scope: String,
    /// Only steps that have rows of this kind need it; the others may pass it over.
    pub when: Rows,
}

/// A recorded model.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The ops in order.
    pub ops: Vec<Entry>,
    /// Every slot, by [`Slot`].
    pub slots: Vec<SlotInfo>,
    /// The physical buffers.
    pub buffers: Vec<BufferInfo>,
    /// Every weight, by [`WeightId`].
    pub weights: Vec<Weight>,
    /// Rotation tables, by the index that [`Op::Rope`] carries.
    pub ropes: Vec<RopeTable>,
    /// Cache shapes, one per layer that keeps keys and values.
    pub kv: Vec<KvShape>,
    /// The groups of `kv`: layers that keep the same positions, all (`None`) or the last so many, have page tables in common.
    /// All comes first, then falling windows.
    pub windows: Vec<Option<u32>>,
    /// The group of each entry of `kv`.
    pub kv_groups: Vec<usize>,
    /// Elements (f32) of every state that a sequence keeps, by the index that recurrent ops carry.
    pub states: Vec<usize>,
    /// Heads made ready behind a product, by the index that [`Epilogue::Heads`] carries.
    pub heads: Vec<Heads>,
    /// `[Outputs, vocabulary]`: what a step gives back. A model without a head has its pooled slot here.
    pub logits: Slot,
    /// `[Pools, width]`: what a step gives back too, where the plan pools.
    pub pooled: Option<Slot>,
    /// Adapters that a row may use, and how much of each it does where nothing else is said.
    pub adapters: Vec<f32>,
}

impl Plan {
    /// Shape and buffer of a slot.
    pub fn slot(&self, slot: Slot) -> &SlotInfo {
        &self.slots[slot.0 as usize]
    }

    /// Whether any op of the plan touches a slot, so that it has a buffer.
    pub fn has_buffer(&self, slot: Slot) -> bool {
        self.slot(slot).buffer != usize::MAX
    }

    /// A weight.
    pub fn weight(&self, id: WeightId) -> &Weight {
        &self.weights[id.0 as usize]
    }

    /// Whether any op writes a slot; in a part of a plan that was cut, one of its own.
    pub fn writes(&self, slot: Slot) -> bool {
        self.ops.iter().any(|entry| entry.op.writes() == Some(slot))
    }

    /// Columns of the slot an op writes that hold its result, if not all do: behind [`Epilogue::Heads`] only the queries do.
    pub fn result_columns(&self, op: &Op) -> Option<usize> {
        let Op::Linear { then: Epilogue::Heads { heads, .. }, .. } = *op else { return None };
        Some(self.heads[heads].n_heads * self.kv[self.heads[heads].layer].k_dim)
    }

    /// Token ids that the plan takes: rows of its token table, or all if it has none.
    pub fn n_token_ids(&self) -> usize {
        let table = self.ops.iter().find_map(|e| match e.op {
            Op::Embed { table, by: Lookup::Token, .. } => Some(self.weight(table).rows()),
            _ => None,
        });
        table.unwrap_or(usize::MAX)
    }

    /// The plan for contexts of up to so many tokens: rotations have the frequencies that go with them.
    pub fn for_context(self: &Arc<Plan>, context: usize) -> Arc<Plan> {
        let long = |rope: &RopeTable| rope.long.as_ref().is_some_and(|long| context > long.beyond);
        if !self.ropes.iter().any(long) {
            return Arc::clone(self);
        }
        let mut plan = Plan::clone(self);
        for rope in plan.ropes.iter_mut().filter(|rope| long(rope)) {
            rope.inv_freq = rope.long.take().map_or(Vec::new(), |long| long.inv_freq);
        }
        Arc::new(plan)
    }

    /// Whether rows see later rows of their text, so that all of it must be in one step.
    pub fn reads_both_ways(&self) -> bool {
        self.ops.iter().any(|e| matches!(e.op, Op::Attend { mask: AttentionMask::Bidirectional, .. }))
    }

    /// Whether an encoder reads a source before the plan generates.
    pub fn reads_source(&self) -> bool {
        self.ops.iter().any(|e| e.when == Rows::Sources)
    }

    /// Says in a step's inputs that each of its rows uses the adapters as far as nothing else is said.
    pub fn use_adapters(&self, inputs: &mut Inputs) {
        inputs.adapters.clear();
        if self.adapters.iter().any(|scale| *scale != 0.0) {
            (0..inputs.n_rows()).for_each(|_| inputs.adapters.extend_from_slice(&self.adapters));
        }
    }

    /// Whether there are logits.
    pub fn has_head(&self) -> bool {
        self.slot(self.logits).rows == Rows::Outputs
    }

    /// Columns of the logits; of a model without a head the token ids that it takes.
    pub fn n_vocab(&self) -> usize {
        if self.slot(self.logits).rows == Rows::Pools { self.n_token_ids() } else { self.slot(self.logits).cols }
    }

    /// Numbers of an embedding or score; 0 where the plan pools nothing.
    pub fn n_pooled(&self) -> usize {
        self.pooled.map_or(0, |slot| self.slot(slot).cols)
    }

    /// Bytes of one sequence's states.
    pub fn state_bytes(&self) -> u64 {
        self.states.iter().map(|n| 4 * *n as u64).sum()
    }

    /// Positions that the plan takes: rows of its table of positions, or all if it has none.
    pub fn n_positions(&self) -> usize {
        let table = self.ops.iter().find_map(|e| match e.op {
            Op::Embed { table, by: Lookup::Position, .. } => Some(self.weight(table).rows()),
            _ => None,
        });
        table.unwrap_or(usize::MAX)
    }

    /// Bytes of all weights as they are in the file.
    pub fn weight_bytes(&self) -> u64 {
        self.weights.iter().flat_map(|w| &w.segments).map(|s| s.n_bytes()).sum()
    }
}
