//! [`ModelSpec`]: a transformer as a value. Plain data, nothing computes here.

use crate::error::{Error, Result};
use crate::meta::{Meta, Value};
use crate::plan::{Act, Gated, NormKind, RopeTable, Routing, Sight, Temperature};

/// Everything that tells one model of the known parts from another.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// The architecture's name in the file.
    pub family: String,
    /// Columns of the residual stream.
    pub width: usize,
    /// Positions the model was made for.
    pub n_context: usize,
    /// Formula of the norms of the stream.
    pub norm: NormStyle,
    /// From tokens to the stream.
    pub embedding: Embedding,
    /// The layers in order.
    pub layers: Vec<Layer>,
    /// How the names of the layers' tensors begin, in front of the layer's number.
    pub layer_prefix: &'static str,
    /// What reads a text in front of these layers, if anything does.
    pub encoder: Option<Encoder>,
    /// The norm in front of the head.
    pub output_norm: Normed,
    /// From the stream to logits.
    pub head: Head,
    /// Whether there are logits. Encoders have no head.
    pub generates: bool,
    /// How the rows of a text become its embedding.
    pub pooling: Pooling,
    /// How they become its score, if `pooling` says that they do.
    pub ranking: Ranking,
}

/// How a pair of texts gets its score: by a head over pooled rows, which is found in the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranking {
    /// Which rows the head reads.
    pub rows: Pooling,
    /// Behind the head's first matrix.
    pub act: Act,
    /// Whether the score is the first label's share in the softmax over all, and not its logit.
    pub softmax: bool,
}

/// The encoder in front of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoder {
    /// Its layers; the names of their tensors begin with `enc.blk.`.
    pub layers: Vec<Layer>,
    /// The norm behind them.
    pub norm: Normed,
    /// The token that the decoder starts with.
    pub start: u32,
}

/// A norm's formula.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormStyle {
    /// How it centres and scales.
    pub kind: NormKind,
    /// Added under the root.
    pub eps: f32,
}

/// Whether a norm stands at a place, and by which weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Normed {
    /// There is none.
    #[default]
    No,
    /// There is one without weights.
    Bare,
    /// With the weights of this tensor, and its bias if the file has one. The name is without `.weight` and, in a layer,
    /// without the layer's prefix.
    By(&'static str),
}

/// From tokens to the residual stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Embedding {
    /// Factor on the rows of the token table.
    pub scale: f32,
    /// A norm on them.
    pub norm: Normed,
    /// Whether rows of a table of positions are added.
    pub positions: bool,
    /// Whether the first row of a table of token types is added.
    pub types: bool,
}

/// From the normed stream to logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Head {
    /// Factor on the logits.
    pub scale: f32,
    /// Their soft cap, behind the factor.
    pub cap: Option<f32>,
}

/// How the normed rows of a text become one embedding. What GGUF calls `{arch}.pooling_type`, numbered 0 to 4 in this
/// order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooling {
    /// The file names none: a model made to generate. Its embedding is that of the last token, as Ollama has it; the
    /// only row of a causal model that knows the whole text.
    #[default]
    None,
    /// The mean of all rows.
    Mean,
    /// The first row.
    Cls,
    /// The last row.
    Last,
    /// No embedding but a score of a pair of texts, from a head that the file brings (rerankers).
    Rank,
}

impl Pooling {
    /// Every kind, at the place that is its number in a file.
    pub const ALL: [Pooling; 5] = [Pooling::None, Pooling::Mean, Pooling::Cls, Pooling::Last, Pooling::Rank];

    /// What a file says; [`Pooling::None`] if it says nothing, which some write as -1.
    ///
    /// # Errors
    /// A kind that is not known.
    pub fn from_meta(meta: &Meta) -> Result<Pooling> {
        let key = format!("{}.pooling_type", meta.arch()?);
        let unsaid = |v: Value| {
            v.as_i64() == Some(-1) || v.as_u64() == Some(u32::MAX.into()) || v.as_array().is_some_and(|a| a.is_empty())
        };
        if meta.get(&key).is_some_and(unsaid) {
            return Ok(Pooling::None);
        }
        let Some(id) = meta.opt_u32(&key)? else { return Ok(Pooling::None) };
        Pooling::ALL.get(id as usize).copied().ok_or_else(|| {
            Error::unsupported(format!("metadata key {key:?} is {id}, a kind of pooling that is not known"))
        })
    }

    /// The name that llama.cpp's `--pooling` has for it: `none`, `mean`, `cls`, `last`, `rank`.
    pub fn name(self) -> &'static str {
        ["none", "mean", "cls", "last", "rank"][self as usize]
    }
}

/// One layer: attention and feed-forward, each between optional norms and added to the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// How rows see one another: what all of these make of one input is added. Some layers have none.
    pub mixers: Vec<Mixer>,
    /// Norms around them.
    pub attn_norms: Norms,
    /// Attention to what the encoder has read, behind the first part, with the norms around it.
    pub cross: Option<(Heads, Norms)>,
    /// What each row does by itself, if anything.
    pub ffn: Option<Ffn>,
    /// Norms around it.
    pub ffn_norms: Norms,
    /// Which stream the feed-forward part reads.
    pub wiring: Wiring,
    /// Factor on what both parts add to the stream.
    pub residual: f32,
}

/// Norms around a part of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Norms {
    /// Of the part's input.
    pub before: Normed,
    /// Of its output, in front of the addition.
    pub after: Normed,
    /// Of the stream, behind the addition (BERT).
    pub stream: Normed,
    /// Of the stream once more, behind a second addition of the part's input.
    pub again: Normed,
}

/// How a layer's parts are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wiring {
    /// `x += A(x); x += F(x)`.
    Serial,
    /// `x += A(x) + F(x)` (GPT-J, PaLM).
    Parallel,
}

/// Ways in which rows see one another.
#[derive(Debug, Clone, PartialEq)]
pub enum Mixer {
    /// Query heads over fewer or as many key-value heads (Ainslie et al. 2023).
    Heads(Heads),
    /// Heads over one latent row per token (DeepSeek-V2, 2024).
    Latent(Latent),
    /// A gated delta net (Yang et al. 2024).
    DeltaNet(Ssm),
    /// Mamba 2 (Dao and Gu 2024).
    Mamba2(Ssm),
    /// A gated convolution of so many taps (LFM 2).
    ShortConv(usize),
}

/// Latent attention. Whether queries come through a row of their own is found in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Latent {
    /// Query heads.
    pub n_heads: usize,
    /// Elements of a head that do not turn.
    pub nope_dim: usize,
    /// Elements that do, the same key for all heads.
    pub rope_dim: usize,
    /// Elements of a value head.
    pub v_dim: usize,
    /// Elements of the latent row.
    pub rank: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// How positions turn; not at all if `None`.
    pub rope: Option<RopeTable>,
}

/// The shape of a recurrent mixer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ssm {
    /// Taps of the convolution.
    pub taps: usize,
    /// Heads of values.
    pub n_heads: usize,
    /// Heads of queries and keys ("groups").
    pub n_k_heads: usize,
    /// Elements of a query or key head.
    pub k_dim: usize,
    /// Elements of a value head.
    pub v_dim: usize,
    /// Whether value head `h` has key head `h % n_k_heads`.
    pub tiled: bool,
}

/// Grouped-head attention. Norms on queries and keys, biases and whether the matrices are fused are found in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Heads {
    /// Query heads.
    pub n_heads: usize,
    /// Key-value heads.
    pub n_kv_heads: usize,
    /// Elements of a query or key head.
    pub head_dim: usize,
    /// Elements of a value head.
    pub v_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Soft cap on the scores.
    pub cap: Option<f32>,
    /// Queries, keys and values are limited to `-clamp..clamp`.
    pub clamp: Option<f32>,
    /// How positions turn queries and keys; not at all if `None`.
    pub rope: Option<RopeTable>,
    /// Formula of the norms on queries and keys, if the file has any.
    pub qk_norm: NormStyle,
    /// Whether they follow the rotation.
    pub qk_norm_after_rope: bool,
    /// Factor on the queries by position.
    pub temperature: Option<Temperature>,
    /// How the names of its tensors begin.
    pub stem: &'static str,
    /// The name of the matrix behind it.
    pub out: &'static str,
    /// Summands on the scores by distance.
    pub relative: Option<RelativeTable>,
    /// The largest bias by distance (ALiBi), of which the heads' slopes are made.
    pub alibi: Option<f32>,
    /// Which rows a row sees.
    pub sight: Sight,
    /// Of these so many positions.
    pub window: Option<u32>,
}

/// Where summands by distance are, and how distances share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelativeTable {
    /// The tensor of layers that have none of their own.
    pub shared: &'static str,
    /// Buckets of distances.
    pub buckets: usize,
    /// The distance from which on all are in the last bucket.
    pub far: usize,
}

/// Kinds of feed-forward part.
#[derive(Debug, Clone, PartialEq)]
pub enum Ffn {
    /// `down(act(gate(x)) * up(x))`, or `down(act(up(x)))` if the file has no gate.
    Dense {
        /// Columns between.
        hidden: usize,
        /// On the gate, or on what there is instead.
        act: Act,
    },
    /// Experts, of which each row uses a few (Shazeer et al. 2017).
    Moe(Moe),
}

/// A mixture of experts. Biases, shared experts and their gate are found in the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moe {
    /// Experts.
    pub n: usize,
    /// Columns between, of each.
    pub hidden: usize,
    /// Of gate and up.
    pub gated: Gated,
    /// How they are chosen.
    pub routing: Routing,
}
