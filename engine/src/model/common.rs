//! A spec from the keys that all decoder-only GGUF files share. What a family adds is in `families`.
//! llama.cpp's writer stores every key it knows, used or not: an empty array, and a factor of 0, count as absent.

use super::rope::{self, Scaling, Yarn};
use super::spec::{Attn, Ffn, Heads, Layer, ModelSpec, Pooling};
use crate::error::{Error, Result};
use crate::file::ModelFile;
use crate::meta::shown;
use crate::plan::{Act, RopeStyle, RopeTable};

/// The largest layer count, width or context accepted: far above any model, and small enough that sizes cannot overflow.
const MAX_LAYERS: u32 = 4096;
const MAX_COLS: u32 = 1 << 20;
const MAX_HEAD_DIM: usize = 4096;

/// The keys of one architecture.
pub(super) struct Keys<'a> {
    pub file: &'a ModelFile,
    pub arch: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    /// The key's name, if the file says something with it.
    fn said(&self, name: &str) -> Option<String> {
        let key = self.key(name);
        let value = self.file.meta().get(&key)?;
        (!value.as_array().is_some_and(|array| array.is_empty())).then_some(key)
    }

    fn opt_u32(&self, name: &str) -> Result<Option<u32>> {
        self.said(name).map_or(Ok(None), |key| self.file.meta().opt_u32(&key))
    }

    /// A factor or base, for which 0 means none.
    fn opt_factor(&self, name: &str) -> Result<Option<f32>> {
        let found = self.said(name).map_or(Ok(None), |key| self.file.meta().opt_f32(&key))?;
        Ok(found.filter(|x| *x != 0.0))
    }

    fn opt_str(&self, name: &str) -> Result<Option<&str>> {
        self.said(name).map_or(Ok(None), |key| self.file.meta().opt_str(&key))
    }

    /// Refuses models whose rows see later rows: attention here is causal.
    fn expect_causal(&self) -> Result<()> {
        let Some(key) = self.said("attention.causal") else { return Ok(()) };
        match self.file.meta().opt_bool(&key)? {
            Some(false) => Err(Error::unsupported(
                "this model reads a text in both directions (attention.causal is false), which is not supported yet",
            )),
            _ => Ok(()),
        }
    }

    /// Positions whose queries have no factor that grows with the position.
    pub(super) fn plain_queries(&self, n_context: usize) -> Result<usize> {
        if self.opt_factor("attention.temperature_scale")?.is_none() {
            return Ok(n_context);
        }
        let length = self.opt_u32("attention.temperature_length")?.filter(|n| *n > 0);
        Ok(n_context.min(length.map_or(original_context(self, n_context)?, |n| n as usize)))
    }

    /// A count between 1 and `max`.
    fn count(&self, name: &str, max: u32) -> Result<usize> {
        let key = self.key(name);
        let n = self.file.meta().u32(&key)?;
        self.in_range(&key, n, max)
    }

    fn in_range(&self, key: &str, n: u32, max: u32) -> Result<usize> {
        if n == 0 || n > max {
            return Err(Error::format(format!("metadata key {key:?} is {n}, but should be between 1 and {max}")));
        }
        Ok(n as usize)
    }

    /// A count for this layer: one number for all, or an array with one per layer.
    fn per_layer(&self, name: &str, layer: usize, absent: Option<usize>) -> Result<usize> {
        let key = self.key(name);
        let Some(value) = self.said(name).and_then(|key| self.file.meta().get(&key)) else {
            return absent.ok_or_else(|| Error::format(format!("metadata key {key:?} is missing")));
        };
        let number = match value.as_array() {
            Some(array) => array.iter().nth(layer).and_then(|v| v.as_u64()),
            None => value.as_u64(),
        };
        let n = number.and_then(|n| u32::try_from(n).ok());
        let n = n.ok_or_else(|| Error::format(format!("metadata key {key:?} has no count for layer {layer}")))?;
        self.in_range(&key, n, MAX_COLS)
    }
}

/// A dense decoder: RMS norms, grouped heads, SwiGLU. Norms on heads are read off the tensors that are present.
pub(super) fn dense(keys: &Keys, style: RopeStyle) -> Result<ModelSpec> {
    let n_layers = n_layers(keys)?;
    keys.expect_causal()?;
    let width = keys.count("embedding_length", MAX_COLS)?;
    let layers = (0..n_layers).map(|i| dense_layer(keys, style, i, width)).collect::<Result<_>>()?;
    Ok(ModelSpec {
        family: keys.arch.to_owned(),
        width,
        n_context: keys.count("context_length", u32::MAX >> 1)?,
        norm_eps: keys.file.meta().f32(&keys.key("attention.layer_norm_rms_epsilon"))?,
        layers,
        pooling: Pooling::from_meta(keys.file.meta())?,
    })
}

/// Layers of the model itself: `block_count` also counts blocks that draft tokens, which come last.
fn n_layers(keys: &Keys) -> Result<usize> {
    let n_blocks = keys.count("block_count", MAX_LAYERS)?;
    let n_tensors = keys.file.tensors().len();
    if n_blocks > n_tensors {
        return Err(Error::format(format!("the file claims {n_blocks} layers, but holds {n_tensors} tensors")));
    }
    let n_draft = keys.opt_u32("nextn_predict_layers")?.unwrap_or(0) as usize;
    match n_blocks.checked_sub(n_draft).filter(|n| *n > 0) {
        Some(n) => Ok(n),
        None => Err(Error::format(format!("{n_draft} of the file's {n_blocks} blocks draft tokens: no model is left"))),
    }
}

/// Positions the model was trained on before its rope was scaled.
fn original_context(keys: &Keys, n_context: usize) -> Result<usize> {
    let original = keys.opt_u32("rope.scaling.original_context_length")?.filter(|n| *n > 0);
    Ok(original.map_or(n_context, |n| n as usize))
}

fn dense_layer(keys: &Keys, style: RopeStyle, i: usize, width: usize) -> Result<Layer> {
    let n_heads = keys.per_layer("attention.head_count", i, None)?;
    let n_kv_heads = keys.per_layer("attention.head_count_kv", i, Some(n_heads))?;
    if !n_heads.is_multiple_of(n_kv_heads) {
        return Err(Error::shape(format!("layer {i}: {n_heads} query heads do not divide over {n_kv_heads}")));
    }
    let head_dim = keys.per_layer("attention.key_length", i, Some(width / n_heads))?;
    let v_dim = keys.per_layer("attention.value_length", i, Some(width / n_heads))?;
    let wide = |d: usize| d == 0 || d > MAX_HEAD_DIM || d.saturating_mul(n_heads) > MAX_COLS as usize;
    let too_many = wide(head_dim) || wide(v_dim);
    if too_many {
        return Err(Error::shape(format!("layer {i}: {n_heads} heads of {head_dim} and {v_dim} are out of range")));
    }
    let window = keys.opt_u32("attention.sliding_window")?.filter(|w| *w > 0);
    let heads = Heads {
        n_heads,
        n_kv_heads,
        head_dim,
        v_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        rope: Some(rope_table(keys, style, head_dim)?),
        qk_norm: keys.file.tensor(&format!("blk.{i}.attn_q_norm.weight")).is_some(),
        window,
    };
    let hidden = keys.per_layer("feed_forward_length", i, None)?;
    Ok(Layer { attn: Attn::Heads(heads), ffn: Ffn::Dense { hidden, act: Act::Silu } })
}

fn rope_table(keys: &Keys, style: RopeStyle, head_dim: usize) -> Result<RopeTable> {
    let dims = keys.opt_u32("rope.dimension_count")?.map_or(head_dim, |n| n as usize);
    if dims == 0 || dims > head_dim || !dims.is_multiple_of(2) {
        return Err(Error::shape(format!("rope turns {dims} elements of heads of {head_dim}")));
    }
    let factors = match keys.file.tensor("rope_freqs.weight") {
        Some(tensor) => Some(super::weights::vector(keys.file, tensor, dims / 2)?),
        None => None,
    };
    let base = keys.opt_factor("rope.freq_base")?.unwrap_or(10_000.0);
    let mut table = rope::table(style, dims, base, scaling(keys)?, factors.as_deref())?;
    table.magnitude *= keys.opt_factor("rope.scaling.attn_factor")?.unwrap_or(1.0);
    Ok(table)
}

/// How the file scales its rope. A factor without a type scales linearly, as in files from before the type was written.
fn scaling(keys: &Keys) -> Result<Scaling> {
    let factor = keys.opt_factor("rope.scaling.factor")?;
    let factor = factor.or(keys.opt_factor("rope.scale_linear")?).unwrap_or(1.0);
    match keys.opt_str("rope.scaling.type")?.unwrap_or("linear") {
        "none" => Ok(Scaling::None),
        "linear" => Ok(Scaling::Linear(factor)),
        "yarn" => Ok(Scaling::Yarn(Yarn {
            factor,
            original: original_context(keys, keys.count("context_length", u32::MAX >> 1)?)?,
            beta_fast: keys.opt_factor("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
            beta_slow: keys.opt_factor("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
            log_multiplier: keys.opt_factor("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0),
        })),
        other => {
            let other = shown(other.as_bytes());
            Err(Error::unsupported(format!("rope scaling {other} is not supported yet")))
        }
    }
}
