//! The ops: the whole vocabulary of computation. What each computes is defined by the scalar kernel of the same name.

use super::{
    Act, AttentionMask, Epilogue, Gated, Lookup, Norm, Pick, Prologue, Recurrence, Relative, Routing, Slot,
    Temperature, View, WeightId,
};

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
    /// `out[r] = table[token or position of row r]`.
    Embed = "embed" {
        /// `[vocabulary or positions, width]`.
        table: WeightId,
        /// What a row is found by.
        by: Lookup,
        /// `[Tokens, width]`.
        out: Slot,
    }
    /// What of each adapter is added to a row's products: see [`super::Inputs::adapters`].
    AdapterScales = "adapter_scales" {
        /// `[rows, adapters]`: 0 for those that a row does not use.
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
        then: Epilogue,
    }
    /// Rotates the heads of `x` in place by their rows' positions.
    Rope = "rope" {
        /// Whole heads.
        x: View,
        /// Elements of one head; those that the table has no pairs for stay.
        head_dim: usize,
        /// The first element of a head that turns.
        first: usize,
        /// Index into [`super::Plan::ropes`].
        rope: usize,
    }
    /// Stores keys and values of every row in its sequence's page.
    KvWrite = "kv_write" {
        /// `n_kv_heads * k_dim` columns, less those of `tail`.
        k: View,
        /// The last elements of the keys, which lie elsewhere and are the same for all heads.
        tail: Option<View>,
        /// `n_kv_heads * v_dim` columns; none if a value is a part of its key.
        v: Option<View>,
        /// Index into [`super::Plan::kv`].
        layer: usize,
    }
    /// Attention of every row over its own sequence's pages (Vaswani et al. 2017; grouped heads).
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
        /// Which rows a row sees.
        mask: AttentionMask,
        /// Of these so many positions; all if `None`.
        window: Option<u32>,
        /// A row sees the positions of its own run of so many, counted from the first (Llama 4).
        chunk: Option<u32>,
        /// A row sees these positions alone: what [`Op::Select`] writes.
        chosen: Option<Slot>,
        /// Factor on the queries by position.
        temperature: Option<Temperature>,
        /// One slope per head: what it times the distance is is taken from a scaled score (ALiBi; Press et al. 2022).
        slopes: Option<WeightId>,
        /// Summands on the scores by distance.
        relative: Option<Relative>,
        /// One score per head that takes part in the softmax and has no value ("attention sinks").
        sinks: Option<WeightId>,
        /// `[Tokens, n_heads * v_dim]`.
        out: Slot,
    }
    /// The positions whose index keys are most alike to a row (DeepSeek Sparse Attention, 2025): those with the largest `sum over
    /// heads of weights[h] * max(q[h] . k, 0)`, equal ones by the lower position.
    Select = "select" {
        /// `n_heads * k_dim` columns.
        q: View,
        /// One per head.
        weights: View,
        /// Index into [`super::Plan::kv`]: keys of one head, without values.
        layer: usize,
        /// `[Tokens, top]`: positions in their order as the bits of unsigned integers, and `u32::MAX` where there are fewer.
        out: Slot,
    }
    /// Chooses experts for every row by its logits, equal scores by the lower index.
    Route = "route" {
        /// `[rows, experts]`: logits.
        x: Slot,
        /// One summand per expert on the scores that choose; the weights are without it.
        bias: Option<WeightId>,
        /// The rule.
        routing: Routing,
        /// `[rows, 2 * used]`: see [`Pick::picks`].
        out: Slot,
    }
    /// For every row and each of its picks `product = x * weight[pick]^T * scale[pick] + bias[pick]`, and what happens to it
    /// then, for the picks of a row one after the other. Only the matrices that were picked are read.
    ExpertLinear = "expert_linear" {
        /// `[rows, cols]`, or `[rows, used * cols]` if `each`.
        x: Slot,
        /// Whether every pick of a row has columns of its own in `x`.
        each: bool,
        /// Which matrices.
        pick: Pick,
        /// A stack `[of * rows, cols]`: the row segments of each matrix, one matrix after the other.
        weight: WeightId,
        /// `of * rows` factors.
        scale: Option<WeightId>,
        /// `of * rows` summands.
        bias: Option<WeightId>,
        /// `Store`, `Act` or `Glu`, of `used` times the columns of one.
        then: Epilogue,
    }
    /// The product of every head's columns with a matrix of its own. Of each head `pass` more columns follow those that are
    /// multiplied, and are passed on behind its product.
    HeadLinear = "head_linear" {
        /// `[rows, n_heads * (cols + pass)]`.
        x: Slot,
        /// A stack `[n_heads * n, cols]`.
        weight: WeightId,
        /// Heads.
        n_heads: usize,
        /// Columns of each head that are passed on.
        pass: usize,
        /// `[rows, n_heads * (n + pass)]`.
        out: Slot,
    }
    /// `out[r] = sum over the picks of r of their weight times their columns of x`; without the weights if not `weighted`.
    Combine = "combine" {
        /// `[rows, used * n]`.
        x: Slot,
        /// The weights.
        pick: Pick,
        /// Whether they count: not where they have been on what the experts take (Llama 4).
        weighted: bool,
        /// `[rows, n]`.
        out: Slot,
    }
    /// `x[.., c] *= act(gate[.., c / group])`, in place; the gate lies in another slot.
    Gate = "gate" {
        /// Changed.
        x: View,
        /// `x.cols / group` columns.
        gate: View,
        /// On the gate.
        act: Act,
        /// Columns that share an element of the gate: 1, a head, or all.
        group: usize,
    }
    /// Sums of streams, each a run of `width` columns: `out[stream i] = sum over j of coef[i][j] * x[stream j]`.
    Mix = "mix" {
        /// `n_in * width` columns.
        x: View,
        /// `n_out * n_in` columns, those of each sum one after the other.
        coef: View,
        /// Columns of a stream.
        width: usize,
        /// `[rows, n_out * width]`.
        out: Slot,
    }
    /// Makes logits between streams factors whose sums are about 1 both ways, in place (Sinkhorn and Knopp 1967): of `n` sums of
    /// `n` streams, those of each sum one after the other. First the softmax over the sums for each stream, plus `eps`, then,
    /// `rounds` times in all, each sum's factors are divided by their sum plus `eps`; between two rounds each stream's are.
    Balance = "balance" {
        /// `n * n` columns, changed.
        x: View,
        /// Streams.
        n: usize,
        /// At least 1.
        rounds: usize,
        /// Added to factors and to what divides them.
        eps: f32,
    }
    /// Causal convolution of every column over its sequence's rows: `out[t][c] = act(sum over j of weight[c][j] *
    /// x[t - taps + 1 + j][c] + bias[c])`. The rows before the step come from the state, and before the sequence are zeros.
    Conv = "conv" {
        /// The columns.
        x: View,
        /// `x.cols * taps` elements, the taps of a column one after the other, the last of which is the row's own.
        weight: WeightId,
        /// `x.cols` summands.
        bias: Option<WeightId>,
        /// On the sum.
        act: Option<Act>,
        /// Index into [`super::Plan::states`]: the last `taps - 1` rows.
        state: usize,
        /// `[Tokens, x.cols]`.
        out: Slot,
    }
    /// The recurrence of every head over its sequence's rows, row by row.
    Recur = "recur" {
        /// `n_k_heads * k_dim` columns.
        q: View,
        /// Likewise.
        k: View,
        /// `n_heads * v_dim` columns.
        v: View,
        /// Logarithms of decay: one per head, or one per element of each head's key.
        decay: View,
        /// `n_heads * k_dim` factors on the decay, which is one per head then (Mamba).
        rates: Option<WeightId>,
        /// One per head: corrects by what the state has for the key already (delta rule).
        beta: Option<View>,
        /// One per head: a factor on the values.
        v_scale: Option<View>,
        /// One per head: so many times the values, without their factor, are added to the result.
        skip: Option<WeightId>,
        /// The shape.
        form: Recurrence,
        /// Index into [`super::Plan::states`].
        state: usize,
        /// `[Tokens, n_heads * v_dim]`.
        out: Slot,
    }
    /// `x = factor * act(x + bias)`, in place.
    Act = "act" {
        /// Changed.
        x: View,
        /// On every element.
        act: Act,
        /// `x.cols` summands.
        bias: Option<WeightId>,
        /// `x.cols` factors.
        factor: Option<WeightId>,
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
    /// `out[r][c] = x[r][columns[c]]`: columns in the order in which a matrix has them (GPTQ's act-order).
    TakeCols = "take_cols" {
        /// `[rows, n]`.
        x: Slot,
        /// `n` whole numbers, each below `n`.
        columns: WeightId,
        /// `[rows, n]`.
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
            Op::Embed { .. } | Op::AdapterScales { .. } => vec![],
            Op::Norm { x, .. } | Op::Rope { x, .. } => vec![x.slot],
            Op::Linear { x, then: Epilogue::Add { to, .. }, .. } => vec![x, to],
            Op::Linear { x, .. } | Op::Glu { x, .. } | Op::TakeRows { x, .. } | Op::Pool { x, .. } => vec![x],
            Op::Act { x, .. } | Op::Balance { x, .. } => vec![x.slot],
            Op::Scale { x, .. } | Op::Softcap { x, .. } | Op::TakeCols { x, .. } => vec![x],
            Op::Conv { x, .. } => vec![x.slot],
            Op::Recur { q, k, v, decay, beta, v_scale, .. } => {
                [q, k, v, decay].into_iter().chain(beta).chain(v_scale).map(|view| view.slot).collect()
            }
            Op::Route { x, .. } => vec![x],
            Op::ExpertLinear { x, pick, .. } | Op::Combine { x, pick, .. } => vec![x, pick.picks],
            Op::Gate { x, gate, .. } => vec![x.slot, gate.slot],
            Op::Mix { x, coef, .. } => vec![x.slot, coef.slot],
            Op::KvWrite { k, tail, v, .. } => [k].into_iter().chain(tail).chain(v).map(|view| view.slot).collect(),
            Op::HeadLinear { x, .. } => vec![x],
            Op::Attend { q, chosen, .. } => std::iter::once(q.slot).chain(chosen).collect(),
            Op::Select { q, weights, .. } => vec![q.slot, weights.slot],
            Op::Add { x, y, .. } => vec![x, y],
        }
    }

    /// The slot the op writes, if any (`KvWrite` writes pages instead).
    pub fn writes(&self) -> Option<Slot> {
        match *self {
            Op::Embed { out, .. }
            | Op::AdapterScales { out }
            | Op::Norm { out, .. }
            | Op::Attend { out, .. }
            | Op::Select { out, .. }
            | Op::Glu { out, .. }
            | Op::Route { out, .. }
            | Op::Combine { out, .. }
            | Op::Mix { out, .. }
            | Op::HeadLinear { out, .. }
            | Op::Conv { out, .. }
            | Op::Recur { out, .. }
            | Op::TakeRows { out, .. }
            | Op::TakeCols { out, .. }
            | Op::Pool { out, .. } => Some(out),
            Op::Linear { then, .. } | Op::ExpertLinear { then, .. } => Some(then.result()),
            Op::Rope { x, .. } | Op::Act { x, .. } | Op::Gate { x, .. } | Op::Balance { x, .. } => Some(x.slot),
            Op::Add { x, .. } | Op::Scale { x, .. } | Op::Softcap { x, .. } => Some(x),
            Op::KvWrite { .. } => None,
        }
    }

    /// Slots that hold nothing before and after the op.
    pub fn scratch(&self) -> Vec<Slot> {
        let (norm, then) = match *self {
            Op::Linear { norm, then, .. } => (norm, then),
            Op::ExpertLinear { then, .. } => (None, then),
            _ => return vec![],
        };
        let product = Some(then.product()).filter(|product| *product != then.result());
        norm.map(|p| p.normed).into_iter().chain(product).collect()
    }

    /// Whether the op changes a slot it also reads.
    pub fn is_in_place(&self) -> bool {
        self.writes().is_some_and(|out| self.reads().contains(&out))
    }
}
