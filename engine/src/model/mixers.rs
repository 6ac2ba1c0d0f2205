//! The shapes of what rows see one another by: attention, latent attention, recurrences. Plain data, nothing computes here.

use super::spec::NormStyle;
use crate::plan::{Act, AttentionMask, RopeTable, Temperature};

/// Ways in which rows see one another.
#[derive(Debug, Clone, PartialEq)]
pub enum Mixer {
    /// Query heads over fewer or as many key-value heads (Ainslie et al. 2023).
    Heads(Heads),
    /// Heads over one latent row per token (DeepSeek-V2, 2024).
    Latent(Latent),
    /// A gated delta net (Yang et al. 2024).
    DeltaNet(Ssm),
    /// Mamba (Gu and Dao 2023), and what has its inputs with heads as Mamba 2.
    Mamba(Ssm),
    /// Mamba 2 (Dao and Gu 2024).
    Mamba2(Ssm),
    /// Delta rule with a decay for each element of the keys (Kimi Linear, 2025).
    Kda(Kda),
    /// Linear attention whose heads decay at fixed rates (Lightning Attention; Qin et al. 2024).
    Lightning(Lightning),
    /// A gated convolution of so many taps (LFM 2).
    ShortConv(usize),
    /// The output matrix alone, where attention was pruned to it.
    Output,
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
    /// Positions a row sees, itself included.
    pub window: Option<u32>,
    /// How the positions that are seen are chosen, if not all are.
    pub index: Option<Index>,
}

/// An index of keys, by which heads choose what they see (DeepSeek Sparse Attention, 2025).
#[derive(Debug, Clone, PartialEq)]
pub struct Index {
    /// Heads of the index.
    pub n_heads: usize,
    /// Elements of its keys.
    pub dim: usize,
    /// Positions that are chosen.
    pub top: usize,
    /// How its queries and keys turn.
    pub rope: RopeTable,
    /// The first of their elements that does.
    pub first: usize,
    /// Of the norm of its keys.
    pub eps: f32,
    /// Whether the layer has an index, and does not take the choice of the one before.
    pub own: bool,
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
    /// Norms without weights on what the state takes, if the file has none with them.
    pub norms: bool,
}

/// The shape of delta-rule heads with decays of their own for elements of keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kda {
    /// Taps of the convolutions.
    pub taps: usize,
    /// Heads.
    pub n_heads: usize,
    /// Elements of a head's query, key and value.
    pub dim: usize,
    /// The least logarithm of decay, which is this times a sigmoid then; else it is `-exp(A) softplus(..)`.
    pub lower: Option<f32>,
    /// Sign of the file's rates inside that sigmoid.
    pub sign: f32,
    /// Added to the squares of queries and keys, which get unit length.
    pub eps: f32,
}

/// The shape of linear attention with fixed rates.
#[derive(Debug, Clone, PartialEq)]
pub struct Lightning {
    /// Elements of a head.
    pub dim: usize,
    /// Logarithms of the heads' decay.
    pub decay: Vec<f32>,
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
    /// Whether they are there without weights in the file.
    pub qk_norm_bare: bool,
    /// A norm without weights on values.
    pub v_norm: bool,
    /// The layer whose keys and values are read, if there are none of its own.
    pub shared: Option<usize>,
    /// Factor on what attention gives.
    pub out_scale: f32,
    /// On the gate of what attention gives, if the file has one.
    pub gate: Act,
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
    pub mask: AttentionMask,
    /// Of these so many positions.
    pub window: Option<u32>,
    /// Positions of the runs of which a row sees its own.
    pub chunk: Option<u32>,
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
