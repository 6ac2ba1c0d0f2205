//! A list: families whose layers differ from one another, or have parts beside the usual ones.

use super::super::attention::slopes;
use super::super::common::{Keys, MAX_COLS, MAX_LAYERS, is_marked, rope_table};
use super::super::decoder::decoder;
use super::super::spec::{
    Beside, Cycles, Ffn, Layer, Lightning, Mixer, ModelSpec, Moe, Normed, Norms, Route, Second, Streams, Wiring,
};
use super::super::words::{By, WindowRope};
use super::{CLAMPED, gemma, glm_routed, llama, one_norm, qwen, scaled};
use crate::error::{Error, Result};
use crate::plan::Act::{GeluTanh, Relu, Silu, Softplus};
use crate::plan::NormKind::{self, Rms};
use crate::plan::RopeStyle::{Halves, Interleaved};
use crate::plan::Scoring::{Sigmoid, Softmax};
use crate::plan::Temperature;

/// Layers without a window have heads of another size and factors of the rotation; some read the keys and values of others.
/// Tokens may have rows of their own for every layer, and dense parts experts beside them.
pub(super) fn gemma4(keys: &Keys) -> Result<ModelSpec> {
    let spec = gemma(keys)?.post_norms("post_attention_norm", "post_ffw_norm");
    let n_shared = keys.opt_u32("attention.shared_kv_layers")?.unwrap_or(0) as usize;
    let first = spec.layers.len().saturating_sub(n_shared);
    let spec = with_own_rows(keys, spec.windows(keys, 6, None, WindowRope::Base(10_000.0))?, first)?;
    spec.beside_dense(keys, None, |moe| Beside {
        moe,
        norms: Norms { before: Normed::By("pre_ffw_norm_2"), after: Normed::By("post_ffw_norm_2"), ..Norms::default() },
        dense_after: Normed::By("post_ffw_norm_1"),
        scale: 1.0,
        early: false,
    })
}

/// Four streams; gates that are far below the others are left out in the first layers.
pub(super) fn gemma3n(keys: &Keys) -> Result<ModelSpec> {
    let spec = gemma(keys)?.post_norms("post_attention_norm", "post_ffw_norm");
    let n = spec.layers.len();
    let first = keys.opt_u32("attention.shared_kv_layers")?.map_or(20, |shared| n.saturating_sub(shared as usize));
    let mut spec = with_own_rows(keys, spec.windows(keys, 5, None, WindowRope::Base(10_000.0))?, first)?;
    let count = |name: &str, absent| Ok::<_, Error>(keys.opt_u32(name)?.map_or(absent, |n| n as usize));
    let (streams, active) = (count("altup.num_inputs", 4)?, count("altup.active_idx", 0)?);
    if !(2..=64).contains(&streams) || active >= streams {
        return Err(Error::format(format!("{streams} alternating streams, of which number {active} is worked on")));
    }
    // Files without the key are those that only llama.cpp knows.
    let of_sample = keys.layer_f32("activation_sparsity_scale", 0)?.is_none();
    let sparse = |i: usize| match keys.layer_f32("activation_sparsity_scale", i)? {
        Some(bound) => Ok::<_, Error>(Some(bound).filter(|bound| bound.is_finite())),
        None => Ok(Some(1.644_853_6).filter(|_| i < 10)),
    };
    let sparse = (0..n).map(sparse).collect::<Result<_>>()?;
    spec.route = Route::Streams(Streams { n: streams, active, sparse, of_sample });
    Ok(spec)
}

/// What Gemma 3n and 4 share: plain scores, norms on values, rows of tokens for layers. Layers from `first` on read the last
/// one before them of the same kind.
fn with_own_rows(keys: &Keys, mut spec: ModelSpec, first: usize) -> Result<ModelSpec> {
    spec.head.cap = Some(keys.factor("final_logit_softcapping")?.unwrap_or(30.0));
    let norm = keys.file.tensor("per_layer_proj_norm.weight");
    let n = norm.and_then(|norm| usize::try_from(norm.n_elements()).ok()).filter(|n| *n <= MAX_COLS as usize);
    spec.embedding.per_layer = n.filter(|_| keys.file.tensor("per_layer_token_embd.weight").is_some());
    let mut owners = [None, None];
    Ok(spec.with_heads(|i, heads| {
        (heads.scale, heads.v_norm) = (1.0, true);
        let owner = &mut owners[usize::from(heads.window.is_some())];
        heads.shared = if i < first { None } else { *owner };
        if heads.shared.is_none() {
            *owner = Some(i);
        }
    }))
}

/// Layers that see runs of positions, and every fourth one that sees all, does not turn and heats its queries. The weights of
/// experts are on what they take.
pub(super) fn llama4(keys: &Keys) -> Result<ModelSpec> {
    let spec = llama(keys)?.routed(keys, By::Family(Sigmoid), By::Family(false))?;
    let spec = spec.each_moe(|_, moe| moe.weighs_input = true);
    let (n, every) = (spec.layers.len(), keys.opt_u32("attention.sliding_window")? == Some(0));
    let marks = keys.windowed(n, 4, false)?;
    let normed = keys.opt_u32("expert_count")? != Some(128);
    Ok(spec.with_heads(|i, heads| {
        heads.window = None;
        heads.chunk = Some(8192).filter(|_| !every && marks[i]);
        let turns = every || (i + 1) % 4 != 0;
        (heads.qk_norm_bare, heads.qk_norm_after_rope) = (turns && normed, true);
        if !turns {
            heads.rope = None;
            heads.temperature = Some(Temperature { factor: 0.1, length: 8192.0, offset: 1.0 });
        }
    }))
}

/// A gate on attention; every fourth layer does not turn.
pub(super) fn afmoe(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = glm_routed(keys)?.post_norms("post_attention_norm", "post_ffw_norm");
    spec.embedding.scale = (spec.width as f32).sqrt();
    Ok(spec.windows(keys, 4, None, WindowRope::Scaled)?.turning(|i, _| (i + 1) % 4 != 0))
}

/// The activation xIELU, without a gate.
pub(super) fn apertus(keys: &Keys) -> Result<ModelSpec> {
    let number = |name: &str, i: usize| -> Result<f32> {
        let value = keys.nth(name, i)?.and_then(|v| v.as_f64());
        let value = value.ok_or_else(|| Error::format(format!("metadata key {name:?} has no number for layer {i}")))?;
        Ok(value as f32)
    };
    let softplus = |x: f32| x.exp().ln_1p();
    let mut spec = qwen(keys)?;
    for (i, layer) in spec.layers.iter_mut().enumerate() {
        let linear = number("xielu.beta", i)?;
        let positive = softplus(number("xielu.alpha_p", i)?);
        let negative = linear + softplus(number("xielu.alpha_n", i)?);
        if let Some(Ffn::Dense { hidden, .. }) = layer.ffn {
            layer.ffn = Some(Ffn::Bent { hidden, positive, negative, linear });
        }
    }
    Ok(spec)
}

/// A dense part as wide as the stream, and experts that read what the layer reads.
pub(super) fn arctic(keys: &Keys) -> Result<ModelSpec> {
    let spec = llama(keys)?;
    let width = spec.width;
    spec.beside_dense(keys, Some(width), |moe| beside("ffn_norm_exps", moe, 1.0, true))
}

fn beside(norm: &'static str, moe: Moe, scale: f32, early: bool) -> Beside {
    let norms = Norms { before: Normed::By(norm), ..Norms::default() };
    Beside { moe, norms, dense_after: Normed::No, scale, early }
}

/// Factors and caps everywhere; the dense part is beside the experts in Grok 2.
pub(super) fn grok(keys: &Keys) -> Result<ModelSpec> {
    let last = if keys.has(0, "layer_output_norm.weight") { "layer_output_norm" } else { "post_ffw_norm" };
    let mut spec = decoder(keys, Halves, Rms, GeluTanh)?.post_norms("attn_output_norm", last);
    spec.embedding.scale = keys.factor("embedding_scale")?.unwrap_or(78.383_67);
    spec.head.scale = keys.factor("logit_scale")?.unwrap_or(0.577_350_3);
    spec.head.cap = keys.factor("final_logit_softcapping")?;
    let scale = keys.factor("attention.output_scale")?.unwrap_or(0.088_388_35);
    let cap = keys.factor("attn_logit_softcapping")?.unwrap_or(30.0);
    let spec = spec.with_heads(|_, heads| (heads.scale, heads.cap) = (scale, Some(cap)));
    spec.beside_dense(keys, None, |moe| beside("ffn_norm", moe, std::f32::consts::FRAC_1_SQRT_2, false))
}

/// Experts are chosen by what the layer reads; every fourth layer, from the first on, sees all and does not turn.
pub(super) fn smallthinker(keys: &Keys) -> Result<ModelSpec> {
    let spec = decoder(keys, Halves, Rms, Relu)?.routed(keys, By::Key(Sigmoid), By::Family(true))?;
    let spec = spec.each_moe(|_, moe| moe.early = true);
    let marks = keys.windowed(spec.layers.len(), 4, true)?;
    let spec = spec.windowed(keys, &marks, None, WindowRope::Scaled)?;
    if keys.opt_u32("attention.sliding_window")?.is_none_or(|n| n == 0) {
        return Ok(spec);
    }
    Ok(spec.with_heads(|i, heads| heads.window = Some(4096).filter(|_| marks[i])).turning(|i, _| i % 4 != 0))
}

/// The layers run several times, each time with keys and values of their own.
pub(super) fn nanbeige(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = llama(keys)?;
    let n = keys.opt_u32("num_loops")?.unwrap_or(1).max(1) as usize;
    if n * spec.layers.len() > 4096 {
        return Err(Error::limit(format!("{} layers that run {n} times are too many", spec.layers.len())));
    }
    let mut pass: Vec<Layer> = spec.layers.clone();
    if let Some(last) = pass.last_mut()
        && keys.opt_bool("skip_loop_final_norm")? != Some(true)
    {
        last.behind = Normed::By("output_norm");
    }
    let last = std::mem::take(&mut spec.layers);
    spec.layers = (1..n).flat_map(|_| pass.iter().cloned()).chain(last).collect();
    Ok(spec)
}

pub(super) fn plamo3(keys: &Keys) -> Result<ModelSpec> {
    let spec = qwen(keys)?.post_norms("post_attention_norm", "post_ffw_norm");
    spec.windows(keys, 8, None, WindowRope::Base(10_000.0))
}

/// Sinks, found in the file; the layers that turn are named.
pub(super) fn granite_swa(keys: &Keys) -> Result<ModelSpec> {
    let spec = scaled(keys, llama(keys)?, [1.0, 1.0, 1.0])?.windows(keys, 0, None, WindowRope::Same)?;
    let turns = |i: usize| Ok(keys.of_layer("attention.rope_pattern", i)?.is_none_or(|mark| is_marked(&mark)));
    let turns = (0..spec.layers.len()).map(turns).collect::<Result<Vec<bool>>>()?;
    Ok(spec.turning(|i, _| turns[i]))
}

/// A gate on attention; only layers with a window turn.
pub(super) fn muse_glimmer(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = llama(keys)?.post_norms("post_attention_norm", "post_ffw_norm");
    (spec.eps_after, spec.embedding.norm) = (Some(1e-8), Normed::Bare);
    spec.head.scale = keys.factor("logit_scale")?.unwrap_or(1.0);
    spec.head.cap = keys.factor("final_logit_softcapping")?;
    Ok(spec.windows(keys, 4, None, WindowRope::Base(keys.base()?))?.turning(|_, heads| heads.window.is_some()))
}

/// A gate that does not saturate; only layers that see all are scaled.
pub(super) fn laguna(keys: &Keys) -> Result<ModelSpec> {
    let spec = glm_routed(keys)?;
    let marks = keys.windowed(spec.layers.len(), 4, true)?;
    Ok(spec.windowed(keys, &marks, None, WindowRope::Base(keys.base()?))?.with_heads(|_, heads| heads.gate = Softplus))
}

/// A gate for each head; layers without a window turn half as many elements; gates of experts are limited behind their
/// activation.
pub(super) fn step35(keys: &Keys) -> Result<ModelSpec> {
    let rope_dims = match (keys.opt_u32("rope.dimension_count")?, keys.opt_u32("attention.key_length")?) {
        (Some(n), _) | (None, Some(n)) => Some(n as usize / 2),
        (None, None) => Some(keys.count("embedding_length", MAX_COLS)? / keys.most("attention.head_count")? / 2),
    };
    let halved = &Keys { rope_dims, ..*keys };
    let spec = glm_routed(halved)?.windows(keys, 0, None, WindowRope::Base(10_000.0))?;
    spec.limited(keys, true, "swiglu_clamp_shexp")
}

/// One norm for both parts; layers with a window and the first, dense ones turn. Shared experts count half.
pub(super) fn cohere2moe(keys: &Keys) -> Result<ModelSpec> {
    let rms = keys.opt_f32("attention.layer_norm_rms_epsilon")?.is_some_and(|eps| eps != 0.0);
    let kind = if rms { Rms } else { NormKind::Layer };
    let spec = decoder(keys, Interleaved, kind, Silu)?.routed(keys, By::Key(Sigmoid), By::Key(false))?;
    let mut spec = one_norm(spec.parallel()).each_moe(|_, moe| moe.shared_scale = 0.5);
    spec.head.scale = keys.factor("logit_scale")?.unwrap_or(1.0);
    let marks = keys.windowed(spec.layers.len(), 4, true)?;
    let dense = keys.opt_u32("leading_dense_block_count")?.unwrap_or(0) as usize;
    Ok(spec.windowed(keys, &marks, None, WindowRope::Same)?.turning(|i, _| i < dense || marks[i]))
}

/// Norms without weights; every layer adds the embedded row again.
pub(super) fn talkie(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = qwen(keys)?;
    (spec.embedding.norm, spec.embedding.again) = (Normed::Bare, true);
    spec.head.scale = keys.factor("logit_scale")?.unwrap_or(1.0);
    Ok(spec.bare_norms().with_heads(|_, heads| (heads.qk_norm_bare, heads.qk_norm_after_rope) = (true, true)))
}

/// Smaller experts, each behind several of the others.
pub(super) fn grovemoe(keys: &Keys) -> Result<ModelSpec> {
    let per = keys.count("experts_per_group", 1 << 14)?;
    let scale = keys.factor("expert_group_scale")?.unwrap_or(1.0);
    let dims = |i: usize| keys.file.tensor(&format!("blk.{i}.ffn_down_chexps.weight")).map(|tensor| tensor.dims());
    Ok(qwen(keys)?.each_moe(|i, moe| {
        let hidden = dims(i).and_then(|dims| usize::try_from(*dims.first()?).ok()).filter(|n| *n <= MAX_COLS as usize);
        moe.second = hidden.map(|hidden| Second { n: moe.n.div_ceil(per), per, hidden, scale });
    }))
}

/// Latent attention in the older form, and fixed factors.
pub(super) fn minicpm3(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = qwen(keys)?;
    (spec.embedding.scale, spec.head.scale) = (12.0, 256.0 / spec.width as f32);
    let residual = 1.4 / (spec.layers.len() as f32).sqrt();
    Ok(spec.each_layer(|_, layer| layer.residual = residual))
}

/// Mamba with heads, or attention whose scores go by the width of its values.
pub(super) fn plamo2(keys: &Keys) -> Result<ModelSpec> {
    Ok(qwen(keys)?
        .post_norms("post_attention_norm", "post_ffw_norm")
        .with_heads(|_, heads| heads.scale = 1.0 / (heads.v_dim as f32).sqrt()))
}

/// Delta rules with decays of elements, or latent attention; nothing turns.
pub(super) fn kimi_linear(keys: &Keys) -> Result<ModelSpec> {
    let spec = llama(keys)?.routed(keys, By::Key(Softmax), By::Family(true))?;
    Ok(spec.latent(|latent| latent.rope = None).kda(|kda| kda.lower = None))
}

/// The same with latent attention that turns and decays of another form.
pub(super) fn bailingmoe3(keys: &Keys) -> Result<ModelSpec> {
    let spec = if keys.has_axes()? { qwen(keys)? } else { llama(keys)? };
    Ok(spec
        .routed(keys, By::Key(Softmax), By::Key(false))?
        .limited(keys, true, "swiglu_clamp_shexp")?
        .kda(|kda| kda.sign = 1.0))
}

/// Linear attention at fixed rates in layers that have a norm for it; the stream goes on from behind its norms.
pub(super) fn minimax01(keys: &Keys) -> Result<ModelSpec> {
    let spec = qwen(keys)?;
    let (last, factor) = (spec.layers.len().max(2) - 1, keys.factor("residual_scale")?.unwrap_or(1.0));
    Ok(spec.each_layer(|i, layer| {
        layer.wiring = Wiring::Normed(factor);
        if let [Mixer::Heads(heads)] = &layer.mixers[..]
            && keys.has(i, "attn_norm_2.weight")
        {
            let share = 1.0 - i as f32 / last as f32 + 1e-5;
            let decay = slopes(heads.n_heads, 8.0).iter().map(|slope| -slope * share).collect();
            layer.mixers = vec![Mixer::Lightning(Lightning { dim: heads.head_dim, decay })];
        }
    }))
}

/// Values of another width than keys, and a factor on what attention gives.
pub(super) fn mimo2(keys: &Keys) -> Result<ModelSpec> {
    let spec = qwen(keys)?.routed(keys, By::Family(Sigmoid), By::Family(true))?;
    let scale = keys.factor("attention.value_scale")?.unwrap_or(1.0);
    let spec = spec.windows(keys, 0, None, WindowRope::Base(10_000.0))?;
    Ok(spec.with_heads(|_, heads| heads.out_scale = scale))
}

/// A clamped gate. An index chooses blocks of keys; contexts end where it would leave some out.
pub(super) fn minimax_m3(keys: &Keys) -> Result<ModelSpec> {
    let spec = qwen(keys)?.routed(keys, By::Key(Softmax), By::Key(false))?.gated(CLAMPED);
    let blocks = keys.count("attention.indexer.top_k", u32::MAX >> 1)?;
    Ok(spec.seen_whole(blocks.saturating_mul(keys.count("attention.indexer.block_size", u32::MAX >> 1)?)))
}

/// As Kimi Linear, with soft bounds of gates; parts read a mixture of what the stream was every so many layers.
pub(super) fn kimi_k3(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = llama(keys)?.routed(keys, By::Key(Softmax), By::Key(false))?.latent(|latent| latent.rope = None);
    let bound = keys.factor("activation.situ_beta")?;
    let bound = bound.ok_or_else(|| Error::format("kimi-k3 models have a bound of gates (activation.situ_beta)"))?;
    let other = keys.factor("activation.situ_linear_beta")?.filter(|bound| *bound > 0.0);
    spec.soft_bounds = [Some(bound), other];
    if let Some(every) = keys.opt_u32("attn_res.block_size")?.filter(|n| *n > 0) {
        let n = spec.layers.len().div_ceil(every as usize);
        if n > 64 {
            return Err(Error::limit(format!("a stream that is kept {n} times is kept too often")));
        }
        spec.route = Route::Banked(every as usize);
    }
    Ok(spec)
}

/// Several streams side by side, latent attention that does not turn, delta rules with decays of elements. An index chooses
/// pools of keys; contexts end where it would leave some out.
pub(super) fn glm5_next(keys: &Keys) -> Result<ModelSpec> {
    if keys.opt_bool("attention.indexer.kpool_select_tail")? != Some(true) {
        return Err(Error::unsupported("glm5-next models whose rows do not see the last keys are not supported"));
    }
    let own = keys.of_layer("swiglu_clamp_shexp", 0)?.is_some();
    let spec = llama(keys)?.routed(keys, By::Key(Sigmoid), By::Key(false))?;
    let spec = spec.limited(keys, false, if own { "swiglu_clamp_shexp" } else { "swiglu_clamp_exp" })?;
    let rounds = Some(keys.count("hyper_connection.sinkhorn_iterations", 1000)?);
    let spec = spec.seen_whole(keys.count("attention.indexer.top_k", u32::MAX >> 1)?);
    spec.kda(|kda| kda.eps = 1e-6).streams(keys, [2.0, 0.0], rounds)
}

/// Several streams side by side, latent attention with sinks and a gate. If there is an index, the last elements of its keys turn.
pub(super) fn hy_v4(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = llama(keys)?.routed(keys, By::Key(Sigmoid), By::Key(false))?.limited(keys, true, "")?;
    if keys.opt_u32("attention.indexer.top_k")?.is_some_and(|n| n > 0) {
        let eps = spec.norm.eps;
        spec = spec.indexed(keys, Interleaved, |_| true)?.latent(|latent| {
            if let Some(index) = &mut latent.index {
                (index.first, index.eps) = (index.dim - 2 * index.rope.inv_freq.len(), eps);
            }
        });
    }
    let eps = keys.factor("hyper_connection.epsilon")?.unwrap_or(0.0);
    let most = keys.factor("hyper_connection.magnitude")?.unwrap_or(2.0);
    spec.streams(keys, [most, eps], None)
}

/// Two stacks of layers that run in cycles, each on the sum of what both gave last; all norms are without weights.
pub(super) fn hrm_text(keys: &Keys) -> Result<ModelSpec> {
    if keys.file.tensors().iter().any(|tensor| tensor.name().ends_with(".scale")) {
        return Err(Error::unsupported(
            "hrm_text models with factors beside matrices (.scale) are not supported: several runs share a matrix, and \
             whose factor it is is not known",
        ));
    }
    let mut spec = qwen(keys)?.bare_norms();
    (spec.embedding.scale, spec.output_norm) = (keys.factor("embedding_scale")?.unwrap_or(1.0), Normed::No);
    let count = |name: &str| keys.count(name, MAX_LAYERS);
    let (n, high, low) = (count("hrm.layers_per_stack")?, count("hrm.h_cycles")?, count("hrm.l_cycles")?);
    if n.saturating_mul(high).saturating_mul(low + 1) != spec.layers.len() {
        let all = spec.layers.len();
        return Err(Error::format(format!("{high} cycles of {low} and one runs of {n} layers are not {all} layers")));
    }
    spec.layers.truncate(2 * n);
    [n - 1, 2 * n - 1].into_iter().for_each(|last| spec.layers[last].behind = Normed::Bare);
    let stack = |first: usize| spec.layers[first..first + n].to_vec();
    let cycle = |_| (0..low).map(|_| stack(0)).chain(std::iter::once(stack(n)));
    spec.layers = (0..high).flat_map(cycle).flatten().collect();
    spec.route = Route::Cycles(Cycles { layers: n, low });
    Ok(spec)
}

/// The same; of the layers of models with long contexts only every fourth has an index.
pub(super) fn glm_dsa(keys: &Keys) -> Result<ModelSpec> {
    let spec = llama(keys)?.routed(keys, By::Key(Sigmoid), By::Key(false))?;
    let long = spec.n_context >= 1 << 20;
    spec.indexed(keys, Interleaved, |i| !long || i < 2 || (i + 2) % 4 == 0)
}

/// Latent attention to what an index chooses, or in windows with sizes of its own.
pub(super) fn dots3note(keys: &Keys) -> Result<ModelSpec> {
    let spec = llama(keys)?.routed(keys, By::Key(Softmax), By::Key(false))?;
    let marks = keys.windowed(spec.layers.len(), 0, false)?;
    let count = |name: &str| keys.count(name, 4096);
    let base = keys.factor("rope.freq_base_swa")?.unwrap_or(10_000.0);
    let spec = spec.try_mixers(|i, mixer| {
        let Mixer::Latent(latent) = mixer else { return Ok(()) };
        if !marks[i] {
            return Ok(());
        }
        let key = count("attention.key_length_mla_swa")?.max(latent.rope_dim + 1);
        latent.nope_dim = key - latent.rope_dim;
        (latent.v_dim, latent.rank) = (count("attention.value_length_mla_swa")?, count("attention.kv_lora_rank_swa")?);
        latent.scale = 1.0 / (key as f32).sqrt();
        latent.rope = Some(rope_table(keys, Interleaved, latent.rope_dim, Some((base, true)))?);
        latent.window = keys.opt_u32("attention.sliding_window")?.filter(|n| *n > 0);
        Ok(())
    })?;
    spec.indexed(keys, Halves, |_| true)
}
