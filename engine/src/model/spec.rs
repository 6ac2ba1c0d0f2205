//! [`ModelSpec`]: a transformer as a value. Plain data, nothing computes here.

use crate::error::{Error, Result};
use crate::meta::{Meta, Value};
use crate::plan::{Act, RopeTable};

/// Everything that tells one model of the known parts from another.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// The architecture's name in the file.
    pub family: String,
    /// Columns of the residual stream.
    pub width: usize,
    /// Positions the model was made for.
    pub n_context: usize,
    /// Added under the root of every norm.
    pub norm_eps: f32,
    /// The layers in order.
    pub layers: Vec<Layer>,
    /// How the rows of a text become its embedding.
    pub pooling: Pooling,
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

/// One layer: attention, then feed-forward, each behind a norm and added to the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// How rows see one another.
    pub attn: Attn,
    /// What each row does by itself.
    pub ffn: Ffn,
}

/// Kinds of attention.
#[derive(Debug, Clone, PartialEq)]
pub enum Attn {
    /// Query heads over fewer or as many key-value heads (Ainslie et al. 2023).
    Heads(Heads),
}

/// Grouped-head attention.
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
    /// How positions turn queries and keys; `None` if they do not.
    pub rope: Option<RopeTable>,
    /// A norm on each query and key head, by the weights that the file holds.
    pub qk_norm: bool,
    /// Positions a row sees, itself included.
    pub window: Option<u32>,
}

/// Kinds of feed-forward part.
#[derive(Debug, Clone, PartialEq)]
pub enum Ffn {
    /// `down(act(gate(x)) * up(x))`.
    Dense {
        /// Columns between.
        hidden: usize,
        /// On the gate.
        act: Act,
    },
}
