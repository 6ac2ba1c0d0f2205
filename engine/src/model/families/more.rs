//! A list: families whose layers differ from one another, or have parts beside the usual ones.

use super::super::common::{Keys, MAX_COLS};
use super::super::decoder::{By, WindowRope, decoder};
use super::super::spec::{
    Beside, Ffn, Layer, Makes, ModelSpec, Moe, Normed, Norms, Route, Second, Streams,
};
use super::{gemma, llama, one_norm, qwen, unturned};
use crate::error::{Error, Result};
use crate::plan::Act::{GeluErf, GeluTanh, Relu, ReluSquared, Silu};
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
        norms: Norms { before: Normed::By("pre_ffw_norm_2"), after: Normed::By("post_ffw_norm_2") },
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
    spec.each_heads(|i, heads| {
        (heads.scale, heads.v_norm) = (1.0, true);
        let owner = &mut owners[usize::from(heads.window.is_some())];
        heads.shared = if i < first { None } else { *owner };
        if heads.shared.is_none() {
            *owner = Some(i);
        }
        Ok(())
    })
}

/// Layers that see runs of positions, and every fourth one that sees all, does not turn and heats its queries. The weights of
/// experts are on what they take.
pub(super) fn llama4(keys: &Keys) -> Result<ModelSpec> {
    let spec = llama(keys)?.routed(keys, By::Family(Sigmoid), By::Family(false))?;
    let spec = spec.each_moe(|_, moe| moe.weighs_input = true);
    let (n, every) = (spec.layers.len(), keys.opt_u32("attention.sliding_window")? == Some(0));
    let marks = keys.windowed(n, 4, false)?;
    let normed = keys.opt_u32("expert_count")? != Some(128);
    spec.each_heads(|i, heads| {
        heads.window = None;
        heads.chunk = Some(8192).filter(|_| !every && marks[i]);
        let turns = every || (i + 1) % 4 != 0;
        (heads.qk_norm_bare, heads.qk_norm_after_rope) = (turns && normed, true);
        if !turns {
            heads.rope = None;
            heads.temperature = Some(Temperature { factor: 0.1, length: 8192.0, offset: 1.0 });
        }
        Ok(())
    })
}

/// The activation xIELU, without a gate.
pub(super) fn apertus(keys: &Keys) -> Result<ModelSpec> {
    let number = |name: &str, i: usize| -> Result<f32> {
        let value = keys.file.meta().get(name).and_then(|value| match value.as_array() {
            Some(array) => array.iter().nth(i).and_then(|v| v.as_f64()),
            None => value.as_f64(),
        });
        value
            .map(|x| x as f32)
            .ok_or_else(|| Error::format(format!("metadata key {name:?} has no number for layer {i}")))
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
    let norms = Norms { before: Normed::By(norm), after: Normed::No };
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
    let spec = spec.each_heads(|_, heads| {
        (heads.scale, heads.cap) = (scale, Some(cap));
        Ok(())
    })?;
    spec.beside_dense(keys, None, |moe| beside("ffn_norm", moe, std::f32::consts::FRAC_1_SQRT_2, false))
}

/// Experts are chosen by what the layer reads; every fourth layer, from the first on, sees all and does not turn.
pub(super) fn smallthinker(keys: &Keys) -> Result<ModelSpec> {
    let spec = decoder(keys, Halves, Rms, Relu)?.routed(keys, By::Key(Sigmoid), By::Family(true))?;
    let spec = spec.each_moe(|_, moe| moe.early = true);
    let marks = keys.windowed(spec.layers.len(), 4, true)?;
    spec.windowed(keys, &marks, None, WindowRope::Scaled)?.each_heads(|i, heads| {
        if keys.opt_u32("attention.sliding_window")?.is_some_and(|n| n > 0) {
            heads.window = Some(4096).filter(|_| marks[i]);
            heads.rope = heads.rope.take().filter(|_| i % 4 != 0);
        }
        Ok(())
    })
}

/// Only layers with a window turn; gates are limited.
pub(super) fn maple(keys: &Keys) -> Result<ModelSpec> {
    qwen(keys)?.windows(keys, 0, None, WindowRope::Only)?.limited(keys, false)
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

/// One norm for both parts; layers with a window and the first, dense ones turn. Shared experts count half.
pub(super) fn cohere2moe(keys: &Keys) -> Result<ModelSpec> {
    let rms = keys.opt_f32("attention.layer_norm_rms_epsilon")?.is_some_and(|eps| eps != 0.0);
    let kind = if rms { Rms } else { NormKind::Layer };
    let spec = decoder(keys, Interleaved, kind, Silu)?.routed(keys, By::Key(Sigmoid), By::Key(false))?;
    let mut spec = one_norm(spec.parallel()).each_moe(|_, moe| moe.shared_scale = 0.5);
    spec.head.scale = keys.factor("logit_scale")?.unwrap_or(1.0);
    let marks = keys.windowed(spec.layers.len(), 4, true)?;
    let dense = keys.opt_u32("leading_dense_block_count")?.unwrap_or(0) as usize;
    spec.windowed(keys, &marks, None, WindowRope::Same)?.each_heads(|i, heads| {
        heads.rope = heads.rope.take().filter(|_| i < dense || marks[i]);
        Ok(())
    })
}

/// Norms without weights; every layer adds the embedded row again.
pub(super) fn talkie(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = qwen(keys)?;
    (spec.embedding.norm, spec.embedding.again, spec.output_norm) = (Normed::Bare, true, Normed::Bare);
    spec.head.scale = keys.factor("logit_scale")?.unwrap_or(1.0);
    let spec = spec.each_layer(|_, layer| {
        (layer.attn_norms.before, layer.ffn_norms.before) = (Normed::Bare, Normed::Bare);
    });
    spec.each_heads(|_, heads| {
        (heads.qk_norm_bare, heads.qk_norm_after_rope) = (true, true);
        Ok(())
    })
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

/// Latent attention; squared ReLU without a gate.
pub(super) fn plm(keys: &Keys) -> Result<ModelSpec> {
    decoder(keys, Interleaved, Rms, ReluSquared)
}

/// Mamba, or attention that does not turn.
pub(super) fn jamba(keys: &Keys) -> Result<ModelSpec> {
    unturned(qwen(keys)?.routed(keys, By::Family(Softmax), By::Family(false))?, None)
}

/// Text in, codes of sound out.
pub(super) fn qwen3tts(keys: &Keys) -> Result<ModelSpec> {
    Ok(ModelSpec { makes: Makes::Sound, ..qwen(keys)? })
}

/// The same with layer norms; what makes sound of its rows is in another file.
pub(super) fn pockettts(keys: &Keys) -> Result<ModelSpec> {
    Ok(ModelSpec { makes: Makes::Sound, ..decoder(keys, Interleaved, NormKind::Layer, GeluErf)? })
}

/// Latent attention to what an index of keys chooses.
pub(super) fn deepseek32(keys: &Keys) -> Result<ModelSpec> {
    llama(keys)?.routed(keys, By::Key(Softmax), By::Key(false))?.indexed(keys, Halves, |_| true)
}

/// The same; of the layers of models with long contexts only every fourth has an index.
pub(super) fn glm_dsa(keys: &Keys) -> Result<ModelSpec> {
    let spec = llama(keys)?.routed(keys, By::Key(Sigmoid), By::Key(false))?;
    let long = spec.n_context >= 1 << 20;
    spec.indexed(keys, Interleaved, |i| !long || i < 2 || (i + 2) % 4 == 0)
}
