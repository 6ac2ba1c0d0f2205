//! A decoder's spec from the keys and tensors that all decoder-only GGUF files share. What a family adds is in `families`.

use super::common::{Keys, MAX_COLS, MAX_EXPERTS, MAX_HEAD_DIM, MAX_TAPS, rope_table};
use super::folder::HALVES;
use super::spec::{
    Embedding, Ffn, Head, Heads, Latent, Layer, Mixer, ModelSpec, Moe, NormStyle, Normed, Norms, Pooling, Ranking, Ssm,
    Wiring,
};
use crate::error::{Error, Result};
use crate::plan::{Act, Gated, NormKind, RopeStyle, Routing, Scoring, Sight};

/// A decoder of plain layers: norms in front, grouped heads, a feed-forward part, one after the other.
pub(super) fn decoder(keys: &Keys, style: RopeStyle, kind: NormKind, act: Act) -> Result<ModelSpec> {
    let n_layers = keys.n_layers()?;
    let style = if keys.file.meta().opt_bool(HALVES)? == Some(true) { RopeStyle::Halves } else { style };
    let [positions, types] =
        ["position_embd", "token_types"].map(|table| keys.file.tensor(&format!("{table}.weight")).is_some());
    let (width, norm) = (keys.count("embedding_length", MAX_COLS)?, keys.norm(kind)?);
    let layer = |i: usize| {
        let mixers = mixers(keys, style, i, width, norm)?;
        let ffn = match keys.has(i, "ffn_gate_inp.weight") {
            true => Some(Ffn::Moe(experts(keys, i, act)?)),
            false if keys.has(i, "ffn_up.weight") || mixers.is_empty() => {
                Some(Ffn::Dense { hidden: keys.per_layer("feed_forward_length", i, None)?, act })
            }
            false => None,
        };
        let norms = |name| Norms { before: Normed::By(name), ..Norms::default() };
        let (attn_norms, ffn_norms) = (norms("attn_norm"), norms("ffn_norm"));
        Ok(Layer { mixers, attn_norms, ffn, ffn_norms, cross: None, wiring: Wiring::Serial, residual: 1.0 })
    };
    Ok(ModelSpec {
        family: keys.arch.to_owned(),
        width,
        n_context: keys.count("context_length", u32::MAX >> 1)?,
        norm,
        embedding: Embedding { scale: 1.0, norm: Normed::No, positions, types },
        layers: (0..n_layers).map(layer).collect::<Result<_>>()?,
        layer_prefix: "blk.",
        encoder: None,
        output_norm: Normed::By("output_norm"),
        head: Head { scale: 1.0, cap: None },
        generates: true,
        pooling: Pooling::from_meta(keys.file.meta())?,
        // The head of a causal model that ranks is made of rows of its head of tokens: those of the words it would answer.
        ranking: Ranking { rows: Pooling::Last, act: Act::Tanh, softmax: keys.n_labels()? > 1 },
    })
}

/// What a layer mixes rows with, by its tensors. A layer that has neither these nor a feed-forward part counts as one of
/// attention, so that what is missing is named.
fn mixers(keys: &Keys, style: RopeStyle, i: usize, width: usize, norm: NormStyle) -> Result<Vec<Mixer>> {
    let mut all = Vec::new();
    let delta = keys.has(i, "ssm_ba.weight") || keys.has(i, "ssm_alpha.weight");
    if delta {
        all.push(Mixer::DeltaNet(ssm(keys)?));
    } else if keys.has(i, "ssm_in.weight") {
        all.push(Mixer::Mamba2(mamba2(keys, i)?));
    } else if keys.has(i, "shortconv.conv.weight") {
        all.push(Mixer::ShortConv(keys.count("shortconv.l_cache", MAX_TAPS)?));
    }
    if keys.has(i, "attn_kv_a_mqa.weight") {
        all.push(Mixer::Latent(latent(keys, style, i)?));
        return Ok(all);
    }
    let attends = !delta && (keys.has(i, "attn_q.weight") || keys.has(i, "attn_qkv.weight"));
    let feeds = keys.has(i, "ffn_up.weight") || keys.has(i, "ffn_gate_inp.weight");
    if attends || all.is_empty() && !feeds {
        all.push(Mixer::Heads(heads(keys, style, i, width, norm)?));
    }
    Ok(all)
}

/// The shape of a recurrent mixer by its keys.
fn ssm(keys: &Keys) -> Result<Ssm> {
    let n_heads = keys.count("ssm.time_step_rank", MAX_COLS)?;
    let n_k_heads = keys.opt_u32("ssm.group_count")?.filter(|n| *n > 0).map_or(1, |n| n as usize);
    let inner = keys.count("ssm.inner_size", MAX_COLS)?;
    let k_dim = keys.count("ssm.state_size", MAX_COLS)?;
    let fits =
        inner.is_multiple_of(n_heads) && n_heads.is_multiple_of(n_k_heads) && k_dim * n_k_heads <= MAX_COLS as usize;
    if !fits || inner / n_heads * k_dim > MAX_COLS as usize {
        return Err(Error::shape(format!(
            "{n_heads} recurrent heads over {n_k_heads} of {k_dim} elements do not divide {inner} columns"
        )));
    }
    let taps = keys.count("ssm.conv_kernel", MAX_TAPS)?;
    Ok(Ssm { taps, n_heads, n_k_heads, k_dim, v_dim: inner / n_heads, tiled: false })
}

fn mamba2(keys: &Keys, i: usize) -> Result<Ssm> {
    if keys.has(i, "ssm_x.weight") {
        return Err(Error::unsupported("recurrent layers of Mamba 1 (tensor ssm_x) are not supported yet"));
    }
    ssm(keys)
}

/// Latent attention by its keys; real head sizes are those with `_mla`.
fn latent(keys: &Keys, style: RopeStyle, i: usize) -> Result<Latent> {
    if !keys.has(i, "attn_k_b.weight") {
        return Err(Error::unsupported(
            "this file holds latent attention in its old form (tensor attn_kv_b): convert the model anew",
        ));
    }
    let n_heads = keys.per_layer("attention.head_count", i, None)?;
    let count = |name: &str| keys.count(name, MAX_HEAD_DIM as u32);
    let (key, v_dim) = (count("attention.key_length_mla")?, count("attention.value_length_mla")?);
    let (rank, rope_dim) = (count("attention.kv_lora_rank")?, count("rope.dimension_count")?);
    if rope_dim >= key || n_heads.saturating_mul(rank + key) > MAX_COLS as usize {
        return Err(Error::shape(format!(
            "layer {i}: latent heads of {key} elements, {rope_dim} turning, over {rank}"
        )));
    }
    let mut rope = rope_table(keys, style, rope_dim, None)?;
    let mut scale = 1.0 / (key as f32).sqrt();
    // The file's multiplier is a tenth of the one of the formula, which here is on the scores and not on what turns.
    if let Some(multiplier) = keys.factor("rope.scaling.yarn_log_multiplier")? {
        let factor = keys.factor("rope.scaling.factor")?.unwrap_or(1.0);
        scale *= (1.0 + multiplier * factor.ln()).powi(2);
        rope.magnitude = keys.factor("rope.scaling.attn_factor")?.unwrap_or(1.0);
    }
    Ok(Latent { n_heads, nope_dim: key - rope_dim, rope_dim, v_dim, rank, scale, rope: Some(rope) })
}

fn heads(keys: &Keys, style: RopeStyle, i: usize, width: usize, norm: NormStyle) -> Result<Heads> {
    let n_heads = keys.per_layer("attention.head_count", i, None)?;
    let n_kv_heads = keys.per_layer("attention.head_count_kv", i, Some(n_heads))?;
    if !n_heads.is_multiple_of(n_kv_heads) {
        return Err(Error::shape(format!("layer {i}: {n_heads} query heads do not divide over {n_kv_heads}")));
    }
    let head_dim = keys.per_layer("attention.key_length", i, Some(width / n_heads))?;
    let v_dim = keys.per_layer("attention.value_length", i, Some(width / n_heads))?;
    let wide = |d: usize| d == 0 || d > MAX_HEAD_DIM || d.saturating_mul(n_heads) > MAX_COLS as usize;
    if wide(head_dim) || wide(v_dim) {
        return Err(Error::shape(format!("layer {i}: {n_heads} heads of {head_dim} and {v_dim} are out of range")));
    }
    Ok(Heads {
        n_heads,
        n_kv_heads,
        head_dim,
        v_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        cap: None,
        clamp: None,
        rope: Some(rope_table(keys, style, head_dim, None)?),
        qk_norm: norm,
        qk_norm_after_rope: false,
        temperature: None,
        stem: "attn",
        out: "attn_output",
        relative: None,
        alibi: keys.factor("attention.max_alibi_bias")?,
        sight: Sight::Before,
        window: keys.opt_u32("attention.sliding_window")?.filter(|w| *w > 0),
    })
}

/// The experts of a layer: their width is the tensor's.
fn experts(keys: &Keys, i: usize, act: Act) -> Result<Moe> {
    let n = keys.count("expert_count", MAX_EXPERTS)?;
    let used = keys.per_layer("expert_used_count", i, None)?;
    let name = format!("blk.{i}.ffn_down_exps.weight");
    let tensor = keys.file.tensor(&name);
    let tensor = tensor.ok_or_else(|| Error::format(format!("layer {i} chooses experts, but there is no {name}")))?;
    let hidden = tensor.dims().first().and_then(|n| usize::try_from(*n).ok()).filter(|n| *n <= MAX_COLS as usize);
    let hidden = hidden.ok_or_else(|| Error::shape(format!("tensor {name} is out of range")))?;
    if used > n {
        return Err(Error::format(format!("layer {i} uses {used} of {n} experts")));
    }
    let groups = keys.opt_u32("expert_group_count")?.filter(|n| *n > 1).map_or(1, |n| n as usize);
    let groups_used = keys.opt_u32("expert_group_used_count")?.filter(|n| *n > 0).map_or(groups, |n| n as usize);
    let routing = Routing { scoring: Scoring::Softmax, used, groups, groups_used, renorm: true, scale: 1.0 };
    Ok(Moe { n, hidden, gated: Gated::plain(act), routing })
}

/// How experts are chosen where it is the family that says so, or the file.
#[derive(Debug, Clone, Copy)]
pub(super) enum By<T> {
    /// The family; keys that say otherwise are passed over.
    Family(T),
    /// The file's key; this if there is none.
    Key(T),
}

impl ModelSpec {
    /// The rule by which experts are chosen: scores, and whether a row's weights are divided by their sum. The file's factor
    /// on the weights is used if it says either.
    pub(super) fn routed(mut self, keys: &Keys, scoring: By<Scoring>, renorm: By<bool>) -> Result<ModelSpec> {
        let scaled = matches!(scoring, By::Key(_)) || matches!(renorm, By::Key(_));
        let scoring = match scoring {
            By::Family(scoring) => scoring,
            By::Key(absent) => match keys.opt_u32("expert_gating_func")? {
                None | Some(0) => absent,
                Some(1) => Scoring::Softmax,
                Some(2) => Scoring::Sigmoid,
                Some(3) => Scoring::SoftmaxOfPicked,
                Some(4) => Scoring::SqrtSoftplus,
                Some(other) => {
                    return Err(Error::unsupported(format!("experts chosen by gating function {other} are not known")));
                }
            },
        };
        let renorm = match renorm {
            By::Family(renorm) => renorm,
            By::Key(absent) => keys.opt_bool("expert_weights_norm")?.unwrap_or(absent),
        };
        let scale = if scaled { keys.factor("expert_weights_scale")?.unwrap_or(1.0) } else { 1.0 };
        for layer in &mut self.layers {
            if let Some(Ffn::Moe(moe)) = &mut layer.ffn {
                moe.routing = Routing { scoring, renorm, scale, ..moe.routing };
            }
        }
        Ok(self)
    }

    /// A factor on the weights of experts.
    pub(super) fn weighted(self, scale: f32) -> ModelSpec {
        self.each_layer(|_, layer| {
            if let Some(Ffn::Moe(moe)) = &mut layer.ffn {
                moe.routing.scale = scale;
            }
        })
    }

    /// Changes the heads of every layer.
    pub(super) fn each_heads(mut self, mut change: impl FnMut(usize, &mut Heads) -> Result<()>) -> Result<ModelSpec> {
        for (i, layer) in self.layers.iter_mut().enumerate() {
            for mixer in &mut layer.mixers {
                if let Mixer::Heads(heads) = mixer {
                    change(i, heads)?;
                }
            }
        }
        Ok(self)
    }

    /// Changes every layer.
    pub(super) fn each_layer(mut self, mut change: impl FnMut(usize, &mut Layer)) -> ModelSpec {
        self.layers.iter_mut().enumerate().for_each(|(i, layer)| change(i, layer));
        self
    }

    /// A parallel residual: both parts read the same stream.
    pub(super) fn parallel(self) -> ModelSpec {
        self.each_layer(|_, layer| layer.wiring = Wiring::Parallel)
    }

    /// Norms behind both parts, by these tensors.
    pub(super) fn post_norms(self, attn: &'static str, ffn: &'static str) -> ModelSpec {
        self.each_layer(|_, layer| {
            (layer.attn_norms.after, layer.ffn_norms.after) = (Normed::By(attn), Normed::By(ffn));
        })
    }

    /// An encoder: rows see all of their text, and there is no head. A file that says nothing of pooling has a head that
    /// ranks, or wants the mean.
    pub(super) fn both_ways(mut self, keys: &Keys) -> Result<ModelSpec> {
        self.generates = false;
        if self.pooling == Pooling::None {
            let ranks = ["cls", "cls.output"].iter().any(|t| keys.file.tensor(&format!("{t}.weight")).is_some());
            self.pooling = if ranks { Pooling::Rank } else { Pooling::Mean };
        }
        self.ranking = Ranking { rows: Pooling::Cls, act: Act::Tanh, softmax: false };
        self.each_heads(|_, heads| {
            heads.sight = Sight::Both;
            Ok(())
        })
    }

    /// Norms behind the additions and none in front of the parts or of the head.
    pub(super) fn norms_on_stream(mut self, attn: &'static str, ffn: &'static str) -> ModelSpec {
        self.output_norm = Normed::No;
        self.each_layer(|_, layer| {
            layer.attn_norms = Norms { stream: Normed::By(attn), ..Norms::default() };
            layer.ffn_norms = Norms { stream: Normed::By(ffn), ..Norms::default() };
        })
    }

    /// Every `period`-th layer sees everything and the others a window of the file's size, or of `absent` if the file has
    /// none. Layers with a window turn by a rotation of their own: with `base`, not scaled.
    pub(super) fn windows(
        self,
        keys: &Keys,
        period: usize,
        absent: Option<u32>,
        rope: WindowRope,
    ) -> Result<ModelSpec> {
        let marks = keys.windowed(self.layers.len(), period, false)?;
        self.windows_at(keys, &marks, absent, rope)
    }

    /// The layers of these marks see a window: as [`ModelSpec::windows`] has it.
    pub(super) fn windows_at(
        self,
        keys: &Keys,
        marks: &[bool],
        absent: Option<u32>,
        rope: WindowRope,
    ) -> Result<ModelSpec> {
        let size = keys.opt_u32("attention.sliding_window")?.or(absent).filter(|n| *n > 0);
        self.each_heads(|i, heads| {
            heads.window = size.filter(|_| marks[i]);
            let Some(table) = &heads.rope else { return Ok(()) };
            heads.rope = match (rope, marks[i] && size.is_some()) {
                (WindowRope::Base(absent), true) => {
                    let base = keys.factor("rope.freq_base_swa")?.unwrap_or(absent);
                    Some(rope_table(keys, table.style, heads.head_dim, Some(base))?)
                }
                (WindowRope::Only, false) if size.is_some() => None,
                _ => heads.rope.take(),
            };
            Ok(())
        })
    }
}

/// How the rotation of layers with a window differs from that of the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum WindowRope {
    /// It does not.
    Same,
    /// The layers with a window turn by this base if the file names none, without scaling.
    Base(f32),
    /// Only layers with a window turn.
    Only,
}
