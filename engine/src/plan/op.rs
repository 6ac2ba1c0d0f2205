//! The ops: the whole vocabulary of computation. What each computes is defined by the scalar kernel of the same name.

use super::{Slot, WeightId};

/// Neighbouring columns of a slot, the same in every row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The slot.
    pub slot: Slot,
    /// First column.
    pub start: usize,
    /// Number of columns.
    pub cols: usize,
}

/// How a norm centres and scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// `x / sqrt(mean(x^2) + eps)` (Zhang and Sennrich 2019).
    Rms,
}

/// A gate's activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// `x * sigmoid(x)`.
    Silu,
}

/// Which elements of a head rotate together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// Elements `2i` and `2i + 1` (GGUF files of the llama architecture).
    Interleaved,
    /// Elements `i` and `i + dims / 2` ("NeoX"; most other files).
    Halves,
}

/// Rotary position embedding (Su et al. 2021): element pair `i` at position `p` turns by `p * inv_freq[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeTable {
    /// Which elements form a pair.
    pub style: RopeStyle,
    /// One frequency per pair, scaling already applied; twice its length is the number of elements that rotate.
    pub inv_freq: Vec<f32>,
    /// Factor on the rotated elements (YaRN's attention factor; 1 otherwise).
    pub magnitude: f32,
}

macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident = $snake:literal { $($(#[$field_doc:meta])* $field:ident: $ty:ty,)* })*) => {
        /// One op. `Rope` and `Add` work in place; the others write a fresh slot.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub enum Op { $($(#[$doc])* $name { $($(#[$field_doc])* $field: $ty,)* },)* }

        /// An op without its operands.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the names are those of the ops")]
        pub enum OpKind { $($name,)* }

        impl OpKind {
            /// Every op.
            pub const ALL: &'static [OpKind] = &[$(OpKind::$name),*];

            /// The op's name in plans, kernels, shaders and the exam.
            pub fn name(self) -> &'static str {
                match self { $(OpKind::$name => $snake,)* }
            }
        }

        impl Op {
            /// Which op this is.
            pub fn kind(&self) -> OpKind {
                match self { $(Op::$name { .. } => OpKind::$name,)* }
            }
        }
    };
}

ops! {
    /// `out[r] = table[token of row r]`.
    Embed = "embed" {
        /// `[vocabulary, width]`.
        table: WeightId,
        /// `[Tokens, width]`.
        out: Slot,
    }
    /// Normalises each run of `group` columns of `x` and multiplies by the weight.
    Norm = "norm" {
        /// The columns to normalise.
        x: View,
        /// `group` factors.
        weight: WeightId,
        /// The formula.
        norm: NormKind,
        /// Added under the root.
        eps: f32,
        /// Columns normalised together: all of them, or one head.
        group: usize,
        /// `[rows, x.cols]`.
        out: Slot,
    }
    /// `out = x * weight^T + bias`.
    Linear = "linear" {
        /// `[rows, weight.cols]`.
        x: Slot,
        /// `[out.cols, x.cols]`, in row segments.
        weight: WeightId,
        /// `out.cols` summands.
        bias: Option<WeightId>,
        /// `[rows, weight.rows]`.
        out: Slot,
    }
    /// Rotates the heads of `x` in place by their rows' positions.
    Rope = "rope" {
        /// Whole heads.
        x: View,
        /// Elements of one head; those beyond the table's stay.
        head_dim: usize,
        /// Index into [`super::Plan::ropes`].
        rope: usize,
    }
    /// Stores keys and values of every row in its sequence's page.
    KvWrite = "kv_write" {
        /// `n_kv_heads * k_dim` columns.
        k: View,
        /// `n_kv_heads * v_dim` columns.
        v: View,
        /// Index into [`super::Plan::kv`].
        layer: usize,
    }
    /// Causal attention of every row over its own sequence's pages (Vaswani et al. 2017; grouped heads).
    Attend = "attend" {
        /// `n_heads * k_dim` columns.
        q: View,
        /// Index into [`super::Plan::kv`].
        layer: usize,
        /// Query heads, a multiple of the layer's `n_kv_heads`.
        n_heads: usize,
        /// Factor on the scores.
        scale: f32,
        /// A row sees this many positions, itself included; all where `None`.
        window: Option<u32>,
        /// `[Tokens, n_heads * v_dim]`.
        out: Slot,
    }
    /// `out = act(x[.., ..n]) * x[.., n..]` with `n` half of `x`'s columns (Shazeer 2020).
    Glu = "glu" {
        /// `[rows, 2 * n]`: gate, then up.
        x: Slot,
        /// On the gate.
        act: Act,
        /// `[rows, n]`.
        out: Slot,
    }
    /// `x += y`, in place.
    Add = "add" {
        /// Changed.
        x: Slot,
        /// Of the same shape.
        y: Slot,
    }
    /// The rows whose logits are wanted.
    TakeRows = "take_rows" {
        /// `[Tokens, n]`.
        x: Slot,
        /// `[Outputs, n]`.
        out: Slot,
    }
    /// The mean of neighbouring rows, for every [`super::Pool`] of the step; one row is its own mean.
    Pool = "pool" {
        /// `[Tokens, n]`.
        x: Slot,
        /// `[Pools, n]`.
        out: Slot,
    }
}

impl Op {
    /// Slots whose old contents the op needs, in-place ones included.
    pub fn reads(&self) -> Vec<Slot> {
        match *self {
            Op::Embed { .. } => vec![],
            Op::Norm { x, .. } | Op::Rope { x, .. } => vec![x.slot],
            Op::Linear { x, .. } | Op::Glu { x, .. } | Op::TakeRows { x, .. } | Op::Pool { x, .. } => {
                vec![x]
            }
            Op::KvWrite { k, v, .. } => vec![k.slot, v.slot],
            Op::Attend { q, .. } => vec![q.slot],
            Op::Add { x, y } => vec![x, y],
        }
    }

    /// The slot the op writes, if any (`KvWrite` writes pages instead).
    pub fn writes(&self) -> Option<Slot> {
        match *self {
            Op::Embed { out, .. }
            | Op::Norm { out, .. }
            | Op::Linear { out, .. }
            | Op::Attend { out, .. }
            | Op::Glu { out, .. }
            | Op::TakeRows { out, .. }
            | Op::Pool { out, .. } => Some(out),
            Op::Rope { x, .. } => Some(x.slot),
            Op::Add { x, .. } => Some(x),
            Op::KvWrite { .. } => None,
        }
    }

    /// Whether the op changes a slot it also reads.
    pub fn is_in_place(&self) -> bool {
        matches!(self, Op::Rope { .. } | Op::Add { .. })
    }

    /// Weights the op reads.
    pub fn weights(&self) -> Vec<WeightId> {
        match *self {
            Op::Embed { table, .. } => vec![table],
            Op::Norm { weight, .. } => vec![weight],
            Op::Linear { weight, bias, .. } => std::iter::once(weight).chain(bias).collect(),
            _ => vec![],
        }
    }
}
