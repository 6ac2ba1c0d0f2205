//! A decoder's spec from the keys and tensors that all decoder-only GGUF files share. What a family adds is in `families`.

use super::common::{Keys, MAX_COLS, MAX_EXPERTS, MAX_HEAD_DIM, MAX_TAPS, rope_table};
use super::spec::{
    Embedding, Ffn, Head, Heads, Kda, Latent, Layer, Mixer, ModelSpec, Moe, NormStyle, Normed, Norms, OutputKind,
    Pooling, Ranking, Route, Ssm, TokenTypes, Wiring,
};
use crate::error::{Error, Result};
use crate::folder::HALVES;
use crate::plan::{Act, AttentionMask, Gated, NormKind, RopeStyle, Routing, Scoring};

/// A decoder of plain layers: norms in front, grouped heads, a feed-forward part, one after the other.
pub(super) fn decoder(keys: &Keys, style: RopeStyle, kind: NormKind, act: Act) -> Result<ModelSpec> {
    let n_layers = keys.n_layers()?;
    let style = if keys.file.meta().opt_bool(HALVES)? == Some(true) { RopeStyle::Halves } else { style };
    let [positions, types] =
        ["position_embd", "token_types"].map(|table| keys.file.tensor(&format!("{table}.weight")).is_some());
    let types = if types { TokenTypes::First } else { TokenTypes::No };
    let (width, norm) = (keys.count("embedding_length", MAX_COLS)?, keys.norm(kind)?);
    let layer = |i: usize| {
        let mixers = mixers(keys, style, i, width, norm)?;
        let ffn = match keys.has(i, "ffn_gate_inp.weight") {
            true => Some(Ffn::Moe(experts(keys, i, act)?)),
            false if keys.has(i, "ffn_up.weight") || mixers.is_empty() => {
                let hidden = keys.per_layer("feed_forward_length", i, None)?;
                Some(Ffn::Dense { hidden, gated: Gated::plain(act) })
            }
            false => None,
        };
        let norms = |name| Norms { before: Normed::By(name), ..Norms::default() };
        let (attn_norms, ffn_norms) = (norms("attn_norm"), norms("ffn_norm"));
        let (cross, beside, wiring, behind) = (None, None, Wiring::Serial, Normed::No);
        Ok(Layer { block: i, mixers, attn_norms, cross, ffn, ffn_norms, beside, wiring, residual: 1.0, behind })
    };
    Ok(ModelSpec {
        family: keys.arch.to_owned(),
        width,
        n_context: keys.count("context_length", u32::MAX >> 1)?,
        norm,
        eps_after: None,
        embedding: Embedding { positions, types, ..Embedding::plain() },
        layers: (0..n_layers).map(layer).collect::<Result<_>>()?,
        route: Route::Plain,
        layer_prefix: keys.prefix,
        encoder: None,
        output_norm: Normed::By("output_norm"),
        head: Head { scale: 1.0, cap: None },
        generates: true,
        pooling: Pooling::from_meta(keys.file.meta())?,
        output: OutputKind::Text,
        soft_bounds: [None; 2],
        unindexed: false,
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
    } else if keys.has(i, "ssm_x.weight") {
        all.push(Mixer::Mamba(mamba(keys, i)?));
    } else if keys.has(i, "ssm_in.weight") {
        all.push(Mixer::Mamba2(ssm(keys)?));
    } else if keys.has(i, "ssm_conv1d_q.weight") {
        all.push(Mixer::Kda(kda(keys)?));
        return Ok(all);
    } else if keys.has(i, "shortconv.conv.weight") {
        all.push(Mixer::ShortConv(keys.count("shortconv.l_cache", MAX_TAPS)?));
    }
    if keys.has(i, "attn_kv_a_mqa.weight") {
        all.push(Mixer::Latent(latent(keys, style, i, width)?));
        return Ok(all);
    }
    let queries = keys.has(i, "attn_q.weight") || keys.has(i, "attn_qkv.weight");
    if all.is_empty() && !queries && keys.has(i, "attn_output.weight") {
        all.push(Mixer::Output);
    }
    let attends = !delta && queries;
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
    Ok(Ssm { taps, n_heads, n_k_heads, k_dim, v_dim: inner / n_heads, tiled: false, norms: false })
}

/// Mamba: every channel is a head, if there is a decay for each element of its state.
fn mamba(keys: &Keys, i: usize) -> Result<Ssm> {
    let (inner, k_dim) = (keys.count("ssm.inner_size", MAX_COLS)?, keys.count("ssm.state_size", MAX_COLS)?);
    let rates = keys.file.tensor(&format!("blk.{i}.ssm_a")).map_or(0, |tensor| tensor.n_elements());
    let n_heads = if rates == (inner * k_dim) as u64 { inner } else { keys.count("ssm.time_step_rank", MAX_COLS)? };
    if !inner.is_multiple_of(n_heads) || inner.saturating_mul(k_dim) > 16 * MAX_COLS as usize {
        return Err(Error::shape(format!("{n_heads} recurrent heads do not divide {inner} columns of {k_dim}")));
    }
    let taps = keys.count("ssm.conv_kernel", MAX_TAPS)?;
    let norms = keys.opt_bool("ssm.dt_b_c_rms")? == Some(true);
    Ok(Ssm { taps, n_heads, n_k_heads: 1, k_dim, v_dim: inner / n_heads, tiled: false, norms })
}

/// Delta rules with decays of elements: as many heads as the layers of attention have.
fn kda(keys: &Keys) -> Result<Kda> {
    let (taps, dim) = (keys.count("ssm.conv_kernel", MAX_TAPS)?, keys.count("kda.head_dim", MAX_HEAD_DIM as u32)?);
    let n_heads = keys.most("attention.head_count")?;
    if n_heads.saturating_mul(3 * dim) > MAX_COLS as usize {
        return Err(Error::shape(format!("{n_heads} recurrent heads of {dim} are out of range")));
    }
    let eps = keys.norm(NormKind::Rms)?.eps;
    Ok(Kda { taps, n_heads, dim, lower: keys.factor("kda.gate_lower_bound")?, sign: -1.0, eps })
}

/// Latent attention by its keys; real head sizes are those with `_mla`.
fn latent(keys: &Keys, style: RopeStyle, i: usize, width: usize) -> Result<Latent> {
    let n_heads = keys.per_layer("attention.head_count", i, None)?;
    let count = |name: &str| keys.count(name, MAX_HEAD_DIM as u32);
    // Files that hold both matrices as one have the real sizes under the plain names.
    let real = |name: &str| match keys.opt_u32(&format!("{name}_mla"))?.filter(|n| *n > 0) {
        Some(_) => count(&format!("{name}_mla")),
        None => keys.per_layer(name, i, Some(width / n_heads)),
    };
    let (key, v_dim) = (real("attention.key_length")?, real("attention.value_length")?);
    let rank = count("attention.kv_lora_rank")?;
    let rope_dim = match keys.opt_u32("rope.dimension_count")? {
        Some(0) => 0,
        _ => keys.head_size("rope.dimension_count", key, 1)?,
    };
    let halved = keys.has(i, "attn_k_b.weight");
    if rope_dim > key || rope_dim == key && halved || n_heads.saturating_mul(rank + key) > MAX_COLS as usize {
        return Err(Error::shape(format!(
            "layer {i}: latent heads of {key} elements, {rope_dim} turning, over {rank}"
        )));
    }
    let mut rope = if rope_dim > 0 { Some(rope_table(keys, style, rope_dim, None)?) } else { None };
    let mut scale = 1.0 / (key as f32).sqrt();
    // The file's multiplier is a tenth of the one of the formula, which here is on the scores and not on what turns.
    if let Some(multiplier) = keys.factor("rope.scaling.yarn_log_multiplier")?
        && let Some(rope) = &mut rope
    {
        let factor = keys.factor("rope.scaling.factor")?.unwrap_or(1.0);
        scale *= (1.0 + multiplier * factor.ln()).powi(2);
        rope.magnitude = keys.factor("rope.scaling.attn_factor")?.unwrap_or(1.0);
    }
    Ok(Latent { n_heads, nope_dim: key - rope_dim, rope_dim, v_dim, rank, scale, rope, window: None, index: None })
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
        qk_norm_bare: false,
        v_norm: false,
        shared: None,
        out_scale: 1.0,
        gate: Act::Sigmoid,
        temperature: None,
        stem: "attn",
        out: "attn_output",
        relative: None,
        alibi: keys.factor("attention.max_alibi_bias")?,
        mask: AttentionMask::Causal,
        window: keys.opt_u32("attention.sliding_window")?.filter(|w| *w > 0),
        chunk: None,
    })
}

/// The experts of a layer: their width is the tensor's.
pub(super) fn experts(keys: &Keys, i: usize, act: Act) -> Result<Moe> {
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
    let gated = Gated::plain(act);
    let (early, weighs_input, second) = (false, false, None);
    Ok(Moe { n, hidden, gated, shared: gated, shared_scale: 1.0, routing, early, weighs_input, second })
}
