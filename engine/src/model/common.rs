//! The keys that decoder-only GGUF files share, read with their defaults.
//! llama.cpp's writer stores every key it knows, used or not: an empty array, and a factor of 0, count as absent.

use super::spec::{Layer, Mixer, ModelSpec, NormStyle};
use super::weights::{self, ROPE_FACTORS};
use super::{parts, rope};
use crate::error::{Error, Result};
use crate::file::ModelFile;
use crate::meta::{Meta, Value, shown};
use crate::plan::{AttentionMask, LongRope, NormKind, RopeStyle, RopeTable};

/// The largest layer count, width or context accepted: far above any model, and small enough that sizes cannot overflow.
pub(super) const MAX_LAYERS: u32 = 4096;
pub(super) const MAX_COLS: u32 = 1 << 20;
pub(super) const MAX_TAPS: u32 = 64;
pub(super) const MAX_EXPERTS: u32 = 1 << 14;
pub(super) const MAX_HEAD_DIM: usize = 4096;

/// The keys of one architecture.
pub(super) struct Keys<'a> {
    pub file: &'a ModelFile,
    pub arch: &'a str,
    /// Whether the ends of YaRN's ramp are rounded to whole pairs.
    pub yarn_rounds: bool,
    /// Elements that turn in layers without a window, if the file's number is that of layers with one.
    pub rope_dims: Option<usize>,
    /// How the names of the layers' tensors begin, in front of the layer's number.
    pub prefix: &'static str,
    /// The key of their number.
    pub blocks: &'static str,
}

impl Keys<'_> {
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    /// The value of a key, if the file says something with it.
    fn said(&self, key: &str) -> Option<Value<'_>> {
        self.file.meta().get(key).filter(|value| !value.as_array().is_some_and(|array| array.is_empty()))
    }

    fn opt<'a, T>(&'a self, name: &str, read: impl Fn(&'a Meta, &str) -> Result<Option<T>>) -> Result<Option<T>> {
        let key = self.key(name);
        if self.said(&key).is_some() { read(self.file.meta(), &key) } else { Ok(None) }
    }

    pub(super) fn opt_u32(&self, name: &str) -> Result<Option<u32>> {
        self.opt(name, Meta::opt_u32)
    }

    pub(super) fn opt_f32(&self, name: &str) -> Result<Option<f32>> {
        self.opt(name, Meta::opt_f32)
    }

    pub(super) fn opt_str(&self, name: &str) -> Result<Option<&str>> {
        self.opt(name, Meta::opt_str)
    }

    pub(super) fn opt_bool(&self, name: &str) -> Result<Option<bool>> {
        self.opt(name, Meta::opt_bool)
    }

    /// Refuses a file that says its rows see later rows, of a family whose rows here do not.
    pub(super) fn expect_mask(&self, spec: &ModelSpec) -> Result<()> {
        let of = |layer: &Layer| {
            layer.mixers.iter().all(|m| matches!(m, Mixer::Heads(h) if h.mask == AttentionMask::Bidirectional))
        };
        match self.opt_bool("attention.causal")? {
            Some(false) if !spec.layers.iter().all(of) => Err(Error::unsupported(format!(
                "this {} model reads a text in both directions (attention.causal is false), which is not supported",
                spec.family
            ))),
            _ => Ok(()),
        }
    }

    /// Labels of the head that ranks; 0 if the file does not say.
    pub(super) fn n_labels(&self) -> Result<usize> {
        Ok(self.file.meta().opt_array(&self.key("classifier.output_labels"))?.map_or(0, |labels| labels.len()))
    }

    /// A count between 1 and `max`.
    pub(super) fn count(&self, name: &str, max: u32) -> Result<usize> {
        let key = self.key(name);
        let n = self.file.meta().u32(&key)?;
        self.in_range(&key, n, max)
    }

    /// Layers of the model itself: `block_count` also counts the blocks behind them, which draft tokens.
    pub(super) fn n_layers(&self) -> Result<usize> {
        let n_blocks = self.count(self.blocks, MAX_LAYERS)?;
        let n_tensors = self.file.tensors().len();
        if n_blocks > n_tensors {
            return Err(Error::format(format!("the file claims {n_blocks} layers, but holds {n_tensors} tensors")));
        }
        let n_draft = self.opt_u32("nextn_predict_layers")?.unwrap_or(0) as usize;
        let left = n_blocks.checked_sub(n_draft).filter(|n| *n > 0);
        left.ok_or_else(|| Error::format(format!("{n_draft} of {n_blocks} layers draft tokens, and none is left")))
    }

    fn in_range(&self, key: &str, n: u32, max: u32) -> Result<usize> {
        if n == 0 || n > max {
            return Err(Error::format(format!("metadata key {key:?} is {n}, but should be between 1 and {max}")));
        }
        Ok(n as usize)
    }

    /// What a key says of this layer: its one value for all, or that of its array. The key is whole.
    pub(super) fn nth(&self, key: &str, layer: usize) -> Result<Option<Value<'_>>> {
        let value = self.said(key);
        let Some(array) = value.and_then(|value| value.as_array()) else { return Ok(value) };
        let nth = array.iter().nth(layer);
        nth.map(Some).ok_or_else(|| Error::format(format!("metadata key {key:?} has no value for layer {layer}")))
    }

    /// The same of the architecture's key of this name.
    pub(super) fn of_layer(&self, name: &str, layer: usize) -> Result<Option<Value<'_>>> {
        self.nth(&self.key(name), layer)
    }

    /// A count for this layer.
    pub(super) fn per_layer(&self, name: &str, layer: usize, absent: Option<usize>) -> Result<usize> {
        let key = self.key(name);
        let Some(value) = self.nth(&key, layer)? else {
            return absent.ok_or_else(|| Error::format(format!("metadata key {key:?} is missing")));
        };
        let n = value.as_u64().and_then(|n| u32::try_from(n).ok());
        let n = n.ok_or_else(|| Error::format(format!("metadata key {key:?} has no count for layer {layer}")))?;
        self.in_range(&key, n, MAX_COLS)
    }

    /// The largest count of all layers: one number, or an array.
    pub(super) fn most(&self, name: &str) -> Result<usize> {
        let key = self.key(name);
        let value = self.said(&key);
        let most = value.and_then(|value| match value.as_array() {
            Some(array) => array.iter().filter_map(|v| v.as_u64()).max(),
            None => value.as_u64(),
        });
        let n = most.and_then(|n| u32::try_from(n).ok());
        self.in_range(&key, n.ok_or_else(|| Error::format(format!("metadata key {key:?} is missing")))?, MAX_COLS)
    }

    /// A number for this layer.
    pub(super) fn layer_f32(&self, name: &str, layer: usize) -> Result<Option<f32>> {
        let key = self.key(name);
        let Some(value) = self.nth(&key, layer)? else { return Ok(None) };
        let number = value.as_f64().map(|x| Some(x as f32));
        number.ok_or_else(|| Error::format(format!("metadata key {key:?} has no number for layer {layer}")))
    }

    /// Elements of each of `n_heads`, if the file says so under this key.
    pub(super) fn head_size(&self, name: &str, absent: usize, n_heads: usize) -> Result<usize> {
        let n = self.opt_u32(name)?.filter(|n| *n > 0).map_or(absent, |n| n as usize);
        if n > MAX_HEAD_DIM || n.saturating_mul(n_heads) > MAX_COLS as usize {
            return Err(Error::shape(format!("{n_heads} heads of {n} are out of range")));
        }
        Ok(n)
    }

    /// A number other than 0, which stands for absence.
    pub(super) fn factor(&self, name: &str) -> Result<Option<f32>> {
        Ok(self.opt_f32(name)?.filter(|x| *x != 0.0))
    }

    /// The base of rotations.
    pub(super) fn base(&self) -> Result<f32> {
        Ok(self.factor("rope.freq_base")?.unwrap_or(10_000.0))
    }

    /// Whether positions have several axes (M-RoPE): the file shares the pairs of a head out among them.
    pub(super) fn has_axes(&self) -> Result<bool> {
        let key = self.key("rope.dimension_sections");
        let sections = self.file.meta().opt_array(&key)?;
        Ok(sections.is_some_and(|s| s.len() >= 2 && s.iter().take(2).all(|n| n.as_i64().is_some_and(|n| n > 0))))
    }

    /// Whether the file has this tensor of a layer.
    pub(super) fn has(&self, layer: usize, tensor: &str) -> bool {
        self.file.tensor(&format!("{}{layer}.{tensor}", self.prefix)).is_some()
    }

    /// The norms' formula, whose epsilon has a key of its own for each kind.
    pub(super) fn norm(&self, kind: NormKind) -> Result<NormStyle> {
        let name = match kind {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer => "attention.layer_norm_epsilon",
        };
        // Some files of RMS norms name the epsilon of the others.
        let other = self.key("attention.layer_norm_epsilon");
        let (key, own) = (self.key(name), self.opt_f32(name)?);
        let eps = match own {
            Some(eps) => eps,
            None if kind == NormKind::Rms && self.file.meta().get(&other).is_some() => self.file.meta().f32(&other)?,
            None => self.file.meta().f32(&key)?,
        };
        if !(eps.is_finite() && eps >= 0.0) {
            return Err(Error::format(format!("metadata key {key:?} is {eps}, but should be a small positive number")));
        }
        Ok(NormStyle { kind, eps })
    }

    /// Whether each layer's attention sees a window only: by the file's array or period, else by the family's period
    /// (every `n`-th layer sees everything).
    pub(super) fn windowed(&self, n_layers: usize, period: usize, full_first: bool) -> Result<Vec<bool>> {
        let key = self.key("attention.sliding_window_pattern");
        let every = |n: usize| move |i: usize| n == 0 || if full_first { !i.is_multiple_of(n) } else { i % n < n - 1 };
        let Some(value) = self.said(&key) else { return Ok((0..n_layers).map(every(period)).collect()) };
        let Some(array) = value.as_array() else {
            let n = value.as_u64().and_then(|n| usize::try_from(n).ok());
            let n = n.ok_or_else(|| Error::format(format!("metadata key {key:?} is neither a number nor an array")))?;
            return Ok((0..n_layers).map(every(n)).collect());
        };
        let marks: Vec<bool> = array.iter().take(n_layers).map(|mark| is_marked(&mark)).collect();
        if marks.len() < n_layers {
            return Err(Error::format(format!(
                "metadata key {key:?} has {} entries for {n_layers} layers",
                marks.len()
            )));
        }
        Ok(marks)
    }
}

/// Whether a mark says yes: true, or a number other than 0.
pub(super) fn is_marked(mark: &Value<'_>) -> bool {
    mark.as_bool() == Some(true) || mark.as_u64().is_some_and(|n| n > 0)
}

/// The rotation of heads of `head_dim`: as the file says for all, or for layers with a window, which have another base and are
/// scaled or not.
pub(super) fn rope_table(
    keys: &Keys,
    style: RopeStyle,
    head_dim: usize,
    window: Option<(f32, bool)>,
) -> Result<RopeTable> {
    let of_all = keys.opt_u32("rope.dimension_count")?;
    let own = if window.is_some() { keys.opt_u32("rope.dimension_count_swa")?.filter(|n| *n > 0) } else { None };
    let dims = own.or(of_all).map_or(head_dim, |n| n as usize);
    let dims = if window.is_none() { keys.rope_dims.unwrap_or(dims) } else { dims };
    if dims == 0 || dims > head_dim || !dims.is_multiple_of(2) {
        return Err(Error::shape(format!("rope turns {dims} elements of heads of {head_dim}")));
    }
    if let Some((base, false)) = window {
        return rope::table(style, dims, base, rope::Scaling::None, None);
    }
    let scaling = scaling(keys)?;
    let factors = |name: &str| match keys.file.tensor(name).filter(|t| !parts::is_unused(keys.arch, t.name())) {
        // Those of fewer pairs are the first of them.
        Some(tensor) => weights::vector(keys.file, tensor, (dims / 2).max(tensor.n_elements() as usize)).map(Some),
        None => Ok(None),
    };
    let [plain, short, long] = ROPE_FACTORS;
    // Two sets are LongRoPE, whatever the file's kind of scaling.
    let is_long = keys.file.tensor(plain).is_none();
    let base = match window {
        Some((base, _)) => base,
        None => keys.base()?,
    };
    let own = if is_long { factors(short)? } else { factors(plain)? };
    let mut table = rope::table(style, dims, base, scaling, own.as_deref())?;
    table.magnitude *= keys.factor("rope.scaling.attn_factor")?.unwrap_or(1.0);
    if let Some(factors) = factors(long)?.filter(|_| is_long) {
        let inv_freq = rope::table(style, dims, base, scaling, Some(&factors))?.inv_freq;
        table.long = Some(LongRope { beyond: original_context(keys)?, inv_freq });
    }
    Ok(table)
}

/// Positions before scaling.
fn original_context(keys: &Keys) -> Result<usize> {
    match keys.opt_u32("rope.scaling.original_context_length")?.filter(|n| *n > 0) {
        Some(n) => Ok(n as usize),
        None => keys.count("context_length", u32::MAX >> 1),
    }
}

/// How the file scales rotations. A factor of 0 counts as none.
fn scaling(keys: &Keys) -> Result<rope::Scaling> {
    let factor = match keys.factor("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.factor("rope.scale_linear")?,
    };
    let factor = factor.unwrap_or(1.0);
    Ok(match keys.opt_str("rope.scaling.type")?.unwrap_or("linear") {
        "none" => rope::Scaling::None,
        "linear" | "longrope" => rope::Scaling::Linear(factor),
        "yarn" => rope::Scaling::Yarn(rope::Yarn {
            factor,
            n_original: original_context(keys)? as f32,
            fast: keys.factor("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
            slow: keys.factor("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
            rounds: keys.yarn_rounds,
            log_multiplier: keys.factor("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0),
        }),
        other => {
            let other = shown(other.as_bytes());
            return Err(Error::unsupported(format!("rope scaling {other} is not supported yet")));
        }
    })
}
