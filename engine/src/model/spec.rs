//! [`ModelSpec`]: a transformer as a value. Plain data, nothing computes here.

pub use super::mixers::{Heads, Index, Kda, Latent, Lightning, Mixer, RelativeTable, Ssm};
use crate::error::{Error, Result};
use crate::meta::{Meta, Value};
use crate::plan::{Act, Gated, NormKind, Routing};

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
    /// Epsilon of the norms behind parts, if it is another.
    pub eps_after: Option<f32>,
    /// From tokens to the stream.
    pub embedding: Embedding,
    /// The layers in order.
    pub layers: Vec<Layer>,
    /// What stands in the way of one stream through all layers in turn.
    pub route: Route,
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
    /// What the logits are for.
    pub output: OutputKind,
    /// Soft bounds of gates and of what they gate: `b tanh(g / b) sigmoid(g) * l tanh(u / l)` instead of `act(g) * u` if there
    /// is the first (SiTU; Kimi K3).
    pub soft_bounds: [Option<f32>; 2],
    /// Whether an index of keys in the file would choose all that a row of any context sees.
    pub unindexed: bool,
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

/// What a model's logits are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutputKind {
    /// The next token of a text.
    #[default]
    Text,
    /// Codes of sound, or nothing by themselves.
    Sound,
    /// The tokens of all masked places of a text at once (diffusion).
    Masked,
}

/// How the stream goes through the layers.
#[derive(Debug, Clone, PartialEq)]
pub enum Route {
    /// From one to the next.
    Plain,
    /// Several streams side by side, of which each layer works on one (Gemma 3n).
    Streams(Streams),
    /// As plain, but that the stream is kept every so many layers and begins anew with what attention gives, and every part reads
    /// a mixture of what was kept and the stream (Kimi K3).
    Banked(usize),
    /// Several streams side by side: each part reads a sum of them and is added to all (hyper-connections; Zhu et al. 2024).
    Hyper(Hyper),
    /// A low and a high stack of layers in turn, each on the sum of what both gave last (HRM; Wang et al. 2025).
    Cycles(Cycles),
}

/// How streams side by side are joined. Factors are products with the streams, which the file has scales and summands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hyper {
    /// How many.
    pub n: usize,
    /// Added to the factors of the sum that a part reads.
    pub eps: f32,
    /// The most that a part is added by, and what is added to that.
    pub most: [f32; 2],
    /// Rounds in which factors between the streams are balanced; without them each stream stays as it is.
    pub rounds: Option<usize>,
}

/// How stacks take turns. The spec's layers are those of all runs, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cycles {
    /// Layers of a stack.
    pub layers: usize,
    /// Runs of the low stack in front of each of the high one.
    pub low: usize,
}

/// Alternating updates (AltUp; Baykal et al. 2023) with low-rank paths beside attention.
#[derive(Debug, Clone, PartialEq)]
pub struct Streams {
    /// How many.
    pub n: usize,
    /// The one that layers work on.
    pub active: usize,
    /// Of each layer: gates below this many deviations above their mean are left out.
    pub sparse: Vec<Option<f32>>,
    /// Whether deviations are those of a sample (n - 1) and not of all.
    pub of_sample: bool,
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
    /// Columns of the row that every token has for every layer besides, if it has any (Gemma 3n).
    pub per_layer: Option<usize>,
    /// Whether every layer adds the embedded rows again, by a factor of its own.
    pub again: bool,
    /// Which row of a table of token types is added.
    pub types: TokenTypes,
}

/// The rows of a table of token types (segments; BERT) that are added to those of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenTypes {
    /// There is none.
    #[default]
    No,
    /// The first, for every token.
    First,
    /// That of the text of a pair which the token belongs to.
    OfPair,
}

impl Embedding {
    /// The rows of the token table as they are.
    pub fn plain() -> Embedding {
        Embedding {
            scale: 1.0,
            norm: Normed::No,
            positions: false,
            per_layer: None,
            again: false,
            types: TokenTypes::No,
        }
    }
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

/// One layer: attention and feed-forward, each between optional norms and added to the stream. What follows them (a row of
/// its own for every token, a factor) is found in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// The number in its tensors' names: layers that run several times have the same.
    pub block: usize,
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
    /// Experts beside a feed-forward part that is not one of experts.
    pub beside: Option<Beside>,
    /// Which stream the feed-forward part reads.
    pub wiring: Wiring,
    /// Factor on what both parts add to the stream.
    pub residual: f32,
    /// A norm of the stream itself behind the layer.
    pub behind: Normed,
}

/// Experts whose rows are added to those of the dense part.
#[derive(Debug, Clone, PartialEq)]
pub struct Beside {
    /// They themselves.
    pub moe: Moe,
    /// Norms around them.
    pub norms: Norms,
    /// The norm of the dense part's rows, in front of the sum.
    pub dense_after: Normed,
    /// Factor on the sum.
    pub scale: f32,
    /// Whether they read what the layer reads, and not what attention has been added to (Arctic).
    pub early: bool,
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
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wiring {
    /// `x += A(x); x += F(x)`.
    Serial,
    /// `x += A(x) + F(x)` (GPT-J, PaLM).
    Parallel,
    /// `x = s N(x) + A(N(x))`, and likewise `F`: the stream goes on from behind the norms, by this factor (MiniMax 01).
    Normed(f32),
}

/// Kinds of feed-forward part.
#[derive(Debug, Clone, PartialEq)]
pub enum Ffn {
    /// `down(act(gate(x)) * up(x))`, or `down(act(up(x)))` if the file has no gate.
    Dense {
        /// Columns between.
        hidden: usize,
        /// Of gate and up, or of what there is instead.
        gated: Gated,
    },
    /// `down(bent(up(x)))` with `bent(u) = linear u + positive u^2` above 0 and `linear u + negative (exp(u) - 1 - u)` below
    /// (xIELU; Huang and Schlag 2024).
    Bent {
        /// Columns between.
        hidden: usize,
        /// The factors on either side, and of both.
        positive: f32,
        /// Below 0.
        negative: f32,
        /// Of the input itself.
        linear: f32,
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
    /// The same of shared experts.
    pub shared: Gated,
    /// Factor on the sum with shared experts, if there are any.
    pub shared_scale: f32,
    /// How they are chosen.
    pub routing: Routing,
    /// Whether they are chosen by what the layer reads, without a norm (SmallThinker).
    pub early: bool,
    /// Whether the weights multiply what experts take, and not what they give (Llama 4).
    pub weighs_input: bool,
    /// Smaller experts that take what these give.
    pub second: Option<Second>,
}

/// Experts each of which stands behind several of the first ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Second {
    /// How many.
    pub n: usize,
    /// Experts of the first set that one of them serves.
    pub per: usize,
    /// Columns between, of each.
    pub hidden: usize,
    /// Factor on what they add.
    pub scale: f32,
}
