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
    /// `(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps)` (Ba et al. 2016).
    Layer,
}

/// A norm of runs of columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm {
    /// The formula.
    pub kind: NormKind,
    /// Added under the root.
    pub eps: f32,
    /// Columns that are normalised together: all of them, or one head.
    pub group: usize,
    /// Factors on the result: `group` of them, the same for every run, or one per column. Ones if `None`.
    pub weight: Option<WeightId>,
    /// Summands behind the factors, as many as `weight` may have.
    pub bias: Option<WeightId>,
}

/// An activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2`.
    GeluTanh,
    /// `x * (1 + erf(x / sqrt(2))) / 2` (Hendrycks and Gimpel 2016).
    GeluErf,
    /// `x * sigmoid(1.702 x)`.
    GeluQuick,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)^2` (So et al. 2021).
    ReluSquared,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `tanh(x)`.
    Tanh,
}

impl Act {
    /// Every activation.
    pub const ALL: &'static [Act] =
        &[Act::Silu, Act::GeluTanh, Act::GeluErf, Act::GeluQuick, Act::Relu, Act::ReluSquared, Act::Sigmoid, Act::Tanh];
}

/// A gated activation: `act(min(gate, limit)) * (clamp(up, -limit, limit) + up_offset)` (Shazeer 2020; with a limit and an
/// offset as in gpt-oss).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gated {
    /// On the gate.
    pub act: Act,
    /// Bound of the gate from above and of the other half on both sides; none if infinite.
    pub limit: f32,
    /// Added to the other half.
    pub up_offset: f32,
}

impl Gated {
    /// `act(gate) * up`.
    pub const fn plain(act: Act) -> Gated {
        Gated { act, limit: f32::INFINITY, up_offset: 0.0 }
    }
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

/// What follows a product of queries, keys and values, in this order: clamp, norms, rotation of queries and keys, cache
/// write. The columns are those of all query heads, then of all key heads, then of all value heads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// Index into [`super::Plan::kv`].
    pub layer: usize,
    /// Query heads, a multiple of the layer's `n_kv_heads`.
    pub n_heads: usize,
    /// All columns are limited to `-clamp..clamp`.
    pub clamp: Option<f32>,
    /// Of the queries, by heads or as a whole.
    pub q_norm: Option<Norm>,
    /// Of the keys.
    pub k_norm: Option<Norm>,
    /// Of the values.
    pub v_norm: Option<Norm>,
    /// Index into [`super::Plan::ropes`]; no rotation if `None`.
    pub rope: Option<usize>,
}

/// A norm in front of a product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prologue {
    /// Over all columns of the product's input, or runs of them.
    pub norm: Norm,
    /// Scratch `[rows, input columns]`: a device that normalises apart from the product keeps the result here.
    pub normed: Slot,
}

/// What happens to a product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Then {
    /// It is the result.
    Store {
        /// `[rows, weight.rows]`.
        out: Slot,
    },
    /// `to += factor * product`.
    Add {
        /// Changed, `[rows, weight.rows]`.
        to: Slot,
        /// On the product.
        factor: f32,
        /// Scratch `[rows, weight.rows]` for devices that add apart from the product.
        product: Slot,
    },
    /// `out = act(product)`.
    Act {
        /// On every element.
        act: Act,
        /// `[rows, weight.rows]`.
        out: Slot,
    },
    /// `out = gated activation of the product's halves`: gate, then up.
    Glu {
        /// The formula.
        gated: Gated,
        /// Scratch `[rows, weight.rows]` for devices that multiply the halves apart from the product.
        product: Slot,
        /// `[rows, weight.rows / 2]`.
        out: Slot,
    },
    /// Queries, keys and values are made ready: see [`Heads`]. Keys and values go to the cache.
    Heads {
        /// Index into [`super::Plan::heads`].
        heads: usize,
        /// `[rows, weight.rows]`: the queries in its first columns are what attention reads; the rest is scratch.
        out: Slot,
    },
}

impl Then {
    /// The slot that takes the product itself on a device that does not finish it at once.
    pub fn product(self) -> Slot {
        match self {
            Then::Store { out } | Then::Act { act: _, out } | Then::Heads { heads: _, out } => out,
            Then::Add { to: _, factor: _, product } | Then::Glu { gated: _, product, out: _ } => product,
        }
    }

    /// The slot that holds the result.
    pub fn result(self) -> Slot {
        match self {
            Then::Store { out }
            | Then::Act { act: _, out }
            | Then::Glu { gated: _, product: _, out }
            | Then::Heads { heads: _, out } => out,
            Then::Add { to, factor: _, product: _ } => to,
        }
    }
}

macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident = $snake:literal { $($(#[$field_doc:meta])* $field:ident: $ty:ty,)* })*) => {
        /// One op: the largest unit that any device runs in one launch. A device may use several launches for an op, never one
        /// launch for two ops.
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
    /// Normalises runs of columns.
    Norm = "norm" {
        /// The columns to normalise.
        x: View,
        /// The formula.
        norm: Norm,
        /// `[rows, x.cols]`.
        out: Slot,
    }
    /// `product = norm(x) * weight^T * scale + bias`, and what happens to it then.
    Linear = "linear" {
        /// `[rows, weight.cols]`.
        x: Slot,
        /// Of `x`, in front of the product.
        norm: Option<Prologue>,
        /// `[weight.rows, weight.cols]`, in row segments.
        weight: WeightId,
        /// One factor per column of the product.
        scale: Option<WeightId>,
        /// One summand per column of the product.
        bias: Option<WeightId>,
        /// What happens to the product.
        then: Then,
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
        /// Soft cap: scores become `cap * tanh(score / cap)` in front of the softmax (Gemma 2).
        cap: Option<f32>,
        /// A row sees this many positions, itself included; all if `None`.
        window: Option<u32>,
        /// `[Tokens, n_heads * v_dim]`.
        out: Slot,
    }
    /// `x = act(x)`, in place.
    Act = "act" {
        /// Changed.
        x: Slot,
        /// On every element.
        act: Act,
    }
    /// `out = gated activation of x[.., ..n] and x[.., n..]` with `n` half of `x`'s columns.
    Glu = "glu" {
        /// `[rows, 2 * n]`: gate, then up.
        x: Slot,
        /// The formula.
        gated: Gated,
        /// `[rows, n]`.
        out: Slot,
    }
    /// `x += factor * y`, in place.
    Add = "add" {
        /// Changed.
        x: Slot,
        /// Of the same shape.
        y: Slot,
        /// On `y`.
        factor: f32,
    }
    /// `x *= factor * weight`, in place.
    Scale = "scale" {
        /// Changed.
        x: Slot,
        /// On every element.
        factor: f32,
        /// One factor for all columns, or one per column.
        weight: Option<WeightId>,
    }
    /// `x = cap * tanh(x / cap)`, in place.
    Softcap = "softcap" {
        /// Changed.
        x: Slot,
        /// Not 0.
        cap: f32,
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
            Op::Linear { x, then: Then::Add { to, .. }, .. } => vec![x, to],
            Op::Linear { x, .. } | Op::Glu { x, .. } | Op::TakeRows { x, .. } | Op::Pool { x, .. } => vec![x],
            Op::Act { x, .. } | Op::Scale { x, .. } | Op::Softcap { x, .. } => vec![x],
            Op::KvWrite { k, v, .. } => vec![k.slot, v.slot],
            Op::Attend { q, .. } => vec![q.slot],
            Op::Add { x, y, .. } => vec![x, y],
        }
    }

    /// The slot the op writes, if any (`KvWrite` writes pages instead).
    pub fn writes(&self) -> Option<Slot> {
        match *self {
            Op::Embed { out, .. }
            | Op::Norm { out, .. }
            | Op::Attend { out, .. }
            | Op::Glu { out, .. }
            | Op::TakeRows { out, .. }
            | Op::Pool { out, .. } => Some(out),
            Op::Linear { then, .. } => Some(then.result()),
            Op::Rope { x, .. } => Some(x.slot),
            Op::Add { x, .. } | Op::Act { x, .. } | Op::Scale { x, .. } | Op::Softcap { x, .. } => Some(x),
            Op::KvWrite { .. } => None,
        }
    }

    /// Slots that hold nothing before and after the op.
    pub fn scratch(&self) -> Vec<Slot> {
        let Op::Linear { norm, then, .. } = *self else { return vec![] };
        let product = Some(then.product()).filter(|product| *product != then.result());
        norm.map(|p| p.normed).into_iter().chain(product).collect()
    }

    /// Whether the op changes a slot it also reads.
    pub fn is_in_place(&self) -> bool {
        self.writes().is_some_and(|out| self.reads().contains(&out))
    }
}
