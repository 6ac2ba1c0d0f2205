//! What ops are made of besides slots and weights: norms, activations, rotations, heads, what happens behind a product,
//! choices of experts.

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
    /// `ln(1 + exp(x))`.
    Softplus,
    /// `sqrt(max(x, 0))`.
    Sqrt,
    /// `exp(x) - 1 - x` below 0, and 0 above: what bends xIELU (Huang et al. 2024).
    ExpBelow,
    /// `x`.
    Identity,
}

impl Act {
    /// Every activation.
    pub const ALL: &'static [Act] = &[
        Act::Silu,
        Act::GeluTanh,
        Act::GeluErf,
        Act::GeluQuick,
        Act::Relu,
        Act::ReluSquared,
        Act::Sigmoid,
        Act::Tanh,
        Act::Sqrt,
        Act::ExpBelow,
    ];
}

/// A gated activation: `act(min(gate, limit)) * (clamp(up, -limit, limit) + up_offset)` (Shazeer 2020; with a limit and an
/// offset as in gpt-oss), or `min(act(gate), limit)` as its first factor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gated {
    /// On the gate.
    pub act: Act,
    /// Bound of the gate from above and of the other half on both sides; none if infinite.
    pub limit: f32,
    /// Whether the activation of the gate is bounded, and not the gate (Step 3.5).
    pub limits_result: bool,
    /// Added to the other half.
    pub up_offset: f32,
}

impl Gated {
    /// `act(gate) * up`.
    pub const fn plain(act: Act) -> Gated {
        Gated { act, limit: f32::INFINITY, limits_result: false, up_offset: 0.0 }
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
    /// Other frequencies for long contexts.
    pub long: Option<LongRope>,
}

/// Frequencies of contexts beyond a length (LongRoPE; Ding et al. 2024). Which set applies is said by the context that a plan
/// is prepared for, so that keys of both never meet: see [`super::Plan::for_context`].
#[derive(Debug, Clone, PartialEq)]
pub struct LongRope {
    /// Positions up to which the table's own frequencies apply.
    pub beyond: usize,
    /// As many as the table has.
    pub inv_freq: Vec<f32>,
}

/// What follows a product of queries, keys and values, in this order: clamp, norms, rotation of queries and keys, cache
/// write; norms and rotation the other way round if `norms_after_rope`. The columns are those of all query heads, then of all key heads, then of all value heads.
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
    /// Whether the norms follow the rotation.
    pub norms_after_rope: bool,
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
pub enum Epilogue {
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

impl Epilogue {
    /// The slot that takes the product itself on a device that does not finish it at once.
    pub fn product(self) -> Slot {
        match self {
            Epilogue::Store { out } | Epilogue::Act { act: _, out } | Epilogue::Heads { heads: _, out } => out,
            Epilogue::Add { to: _, factor: _, product } | Epilogue::Glu { gated: _, product, out: _ } => product,
        }
    }

    /// The slot that holds the result.
    pub fn result(self) -> Slot {
        match self {
            Epilogue::Store { out }
            | Epilogue::Act { act: _, out }
            | Epilogue::Glu { gated: _, product: _, out }
            | Epilogue::Heads { heads: _, out } => out,
            Epilogue::Add { to, factor: _, product: _ } => to,
        }
    }
}

/// What a row of an embedding table is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The row's token.
    Token,
    /// The row's position in its sequence.
    Position,
    /// Which text of a pair the row belongs to: 0 or 1.
    Segment,
}

/// Which rows of its sequence a row sees, as far as a window lets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionMask {
    /// Itself and those before it. A window of `n` is the last `n` of these.
    #[default]
    Causal,
    /// All rows of its text, which are all in the step (encoders). A window of `n` is those at most `n / 2` away.
    Bidirectional,
    /// All rows of its source, which an encoder has read, and none of its own text.
    Cross,
}

/// Summands on the scores of every head by the distance of the two rows (T5; Raffel et al. 2020). Distances share buckets:
/// small ones have one each, larger ones are shared out by their logarithm up to `far`, and beyond it is the last one. Where
/// rows see later rows, those have the upper half of the buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relative {
    /// `buckets * heads` elements: those of a bucket for all heads, one bucket after the other.
    pub weight: WeightId,
    /// At least 4.
    pub buckets: usize,
    /// At least `buckets`.
    pub far: usize,
}

impl Relative {
    /// The bucket of a row `distance` away, and that of one behind instead of in front.
    pub fn bucket(&self, distance: usize, behind: bool, both: bool) -> usize {
        let n = if both { self.buckets / 2 } else { self.buckets };
        let first = if both && behind { n } else { 0 };
        let exact = n / 2;
        if distance < exact {
            return first + distance;
        }
        let share = (distance as f32 / exact as f32).ln() / (self.far as f32 / exact as f32).ln();
        first + (exact + (share * (n - exact) as f32) as usize).min(n - 1)
    }
}

/// A factor on the queries that grows with their position `p`: `1 + factor * ln(floor((p + offset) / length) + 1)`
/// (Llama 4).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    /// On the logarithm.
    pub factor: f32,
    /// Positions of a step of the floor.
    pub length: f32,
    /// Added to the position.
    pub offset: f32,
}

/// How logits of experts become scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scoring {
    /// Softmax over all experts.
    Softmax,
    /// Sigmoid of each.
    Sigmoid,
    /// The logits choose; the weights are the softmax over the chosen ones.
    SoftmaxOfPicked,
    /// `sqrt(softplus(x))`.
    SqrtSoftplus,
    /// SparseMixer (Liu et al. 2024): the logits choose one expert after the other, and each one's weight is its share in the
    /// softmax over those logits `x` that are left (its own, `top`, among them) with `top - x <= within * max(|x|, top)`.
    SparseMixer {
        /// How far below the chosen one, relatively.
        within: f32,
    },
}

/// How the experts of a row are chosen and weighted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Routing {
    /// From logits to scores.
    pub scoring: Scoring,
    /// Experts that a row uses.
    pub used: usize,
    /// Groups of neighbouring experts, and how many of them may be chosen from: those with the largest sums of their two
    /// best scores. One group is none.
    pub groups: usize,
    /// At most `groups`.
    pub groups_used: usize,
    /// Whether the weights of a row are divided by their sum.
    pub renorm: bool,
    /// Factor on the weights.
    pub scale: f32,
}

/// Which matrices of a stack each row is multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// `[rows, 2 * used]`: indices as the bits of unsigned integers, then weights. What [`super::Op::Route`] writes.
    pub picks: Slot,
    /// Picks of a row.
    pub used: usize,
    /// Matrices of the stack.
    pub of: usize,
}

/// A recurrence over the rows of a sequence. Each head keeps a matrix `S` of `k_dim x v_dim`. For a row with query `q`, key
/// `k`, value `v` and logarithm of decay `g`: `S = exp(g) S`; `S += k v^T`, or `S += beta k (v - S^T k)^T` with a correction;
/// the head gives `S^T q`. Mamba 2 (Dao and Gu 2024) and gated delta nets (Yang et al. 2024).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recurrence {
    /// Heads of values, which are those of the state.
    pub n_heads: usize,
    /// Heads of queries and keys, of which each serves `n_heads / n_k_heads` of values.
    pub n_k_heads: usize,
    /// Elements of a query or key head.
    pub k_dim: usize,
    /// Elements of a value head.
    pub v_dim: usize,
    /// Whether value head `h` has key head `h % n_k_heads`, and not `h / (n_heads / n_k_heads)`.
    pub tiled: bool,
    /// Factor on the queries.
    pub q_scale: f32,
    /// Factor on the keys.
    pub k_scale: f32,
}

impl Recurrence {
    /// Elements of one sequence's state.
    pub fn n_state(&self) -> usize {
        self.n_heads * self.k_dim * self.v_dim
    }
}
