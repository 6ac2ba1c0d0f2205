//! The text parts of Gemma 4, Gemma 3n and Llama 4: names and settings that no other family has.

use super::config::missing;
use super::keys::Keys;
use super::rows::odd_shape;
use super::tensors::{Door, Named};
use super::views;
use crate::error::{Error, Result};

type Names = &'static [(&'static str, &'static str)];

/// Gemma 4 and 3n.
pub(super) const GEMMA: Names = &[
    ("post_attention_layernorm", "post_attention_norm"),
    // Rows that tokens have for every layer.
    ("embed_tokens_per_layer", "per_layer_token_embd"),
    ("per_layer_model_projection", "per_layer_model_proj"),
    ("per_layer_projection_norm", "per_layer_proj_norm"),
    ("per_layer_input_gate", "inp_gate"),
    ("per_layer_projection", "proj"),
    ("post_per_layer_input_norm", "post_norm"),
    ("layer_scalar", "layer_output_scale.weight"),
    // Experts beside the dense part.
    ("post_feedforward_layernorm_1", "post_ffw_norm_1"),
    ("pre_feedforward_layernorm_2", "pre_ffw_norm_2"),
    ("post_feedforward_layernorm_2", "post_ffw_norm_2"),
    ("router.proj", "ffn_gate_inp"),
    ("router.scale", "ffn_gate_inp.scale"),
    ("router.per_expert_scale", "ffn_down_exps.scale"),
    ("experts.gate_up_proj", "ffn_gate_up_exps.weight"),
    ("experts.down_proj", "ffn_down_exps.weight"),
    // Several streams.
    ("altup.correct_output_scale", "altup_correct_scale.weight"),
    ("altup.correction_coefs", "altup_correct_coef"),
    ("altup.prediction_coefs", "altup_predict_coef"),
    ("altup.modality_router", "altup_router"),
    ("altup.router_norm", "altup_router_norm"),
    ("laurel.linear_left", "laurel_l"),
    ("laurel.linear_right", "laurel_r"),
    ("laurel.post_laurel_norm", "laurel_post_norm"),
];

/// What layers are, for each.
fn kinds(keys: &Keys<'_, '_>) -> Result<Vec<bool>> {
    let (config, name) = (keys.config(), "layer_types");
    let kinds = config.layer_types().ok_or_else(|| missing(&[name]))?;
    if kinds.len() as u64 != u64::from(config.layers()?) {
        return Err(Error::format("config.json has layer_types for another number of layers"));
    }
    Ok(kinds.iter().map(|kind| *kind == "sliding_attention").collect())
}

/// Layers without a window have heads of another size, of which only the first pairs turn; some may have other numbers of heads
/// for keys, and those that read the keys of others wider feed-forward parts.
pub(super) fn gemma4(keys: &mut Keys<'_, '_>) -> Result<()> {
    let sliding = kinds(keys)?;
    let config = keys.config();
    if config.str(&["use_bidirectional_attention"]) == Some("all") {
        return Err(Error::unsupported("this Gemma 4 reads texts both ways, which is not supported"));
    }
    let (of_window, of_all) = (config.count(&["head_dim"])?, config.count(&["global_head_dim"])?);
    let kv = config.count(&["num_key_value_heads"])?;
    let alike = config.bool(&["attention_k_eq_v"]) == Some(true);
    let kv_of_all = config.u32(&["num_global_key_value_heads"]).filter(|_| alike).unwrap_or(kv);
    let shared = config.u32(&["num_kv_shared_layers"]).unwrap_or(0);
    let wide = config.bool(&["use_double_wide_mlp"]) == Some(true);
    let first = sliding.len().saturating_sub(shared as usize);
    let hidden = config.count(&["intermediate_size"])?;
    let feeds: Vec<u32> =
        (0..sliding.len()).map(|i| if wide && i >= first { hidden.saturating_mul(2) } else { hidden }).collect();
    let heads: Vec<u32> = sliding.iter().map(|window| if *window { kv } else { kv_of_all }).collect();
    let own = config.u32(&["hidden_size_per_layer_input"]).unwrap_or(0);
    let proportional = config.rope_kind() == "proportional";
    let (part, factor) = (config.rope_number("partial_rotary_factor"), config.rope_number("factor"));
    keys.u32s("feed_forward_length", &feeds);
    keys.u32s("attention.head_count_kv", &heads);
    for (name, size) in [("", of_all), ("_swa", of_window)] {
        keys.u32(&format!("attention.key_length{name}"), Some(size));
        keys.u32(&format!("attention.value_length{name}"), Some(size));
        keys.u32(&format!("rope.dimension_count{name}"), Some(size));
    }
    keys.u32("attention.shared_kv_layers", Some(shared));
    keys.u32("embedding_length_per_layer_input", Some(own));
    if proportional {
        // Pairs behind the part that turns are held still by a divisor.
        let pairs = of_all.min(1 << 16) / 2;
        let turning = (part.unwrap_or(1.0) * f64::from(of_all) / 2.0) as u32;
        let factors = (0..pairs).map(|i| if i < turning { factor.unwrap_or(1.0) as f32 } else { 1e30 }).collect();
        keys.door.numbers("rope_freqs.weight", factors);
    }
    Ok(())
}

/// Several streams, and gates that are left out where they are far below the others: a share of them in each layer.
pub(super) fn gemma3n(keys: &mut Keys<'_, '_>) -> Result<()> {
    let n = kinds(keys)?.len();
    let config = keys.config();
    let numbers = |name: &str| config.get(&[name]).and_then(|list| list.as_array());
    let shares = match numbers("activation_sparsity_pattern") {
        Some(list) => list.iter().map(|share| share.as_f64().unwrap_or(0.0)).collect(),
        None => vec![config.f32(&["activation_sparsity_pattern"]).map_or(0.0, f64::from); n],
    };
    let feeds: Option<Vec<u32>> = numbers("intermediate_size")
        .map(|list| list.iter().map(|n| n.as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0)).collect());
    if shares.len() != n || feeds.as_ref().is_some_and(|feeds| feeds.len() != n) {
        return Err(Error::format("config.json has lists for another number of layers"));
    }
    let bounds: Vec<f32> = shares.into_iter().map(bound).collect();
    keys.f32s("activation_sparsity_scale", &bounds);
    if let Some(feeds) = feeds {
        keys.u32s("feed_forward_length", &feeds);
    }
    keys.copy("altup.active_idx", &["altup_active_idx"]);
    keys.copy("altup.num_inputs", &["altup_num_inputs"]);
    keys.copy("embedding_length_per_layer_input", &["hidden_size_per_layer_input"]);
    keys.copy("attention.shared_kv_layers", &["num_kv_shared_layers"]);
    Ok(())
}

/// Below how many deviations above the mean a share of numbers lies that are spread normally.
fn bound(share: f64) -> f32 {
    if share <= 0.0 {
        return f32::NEG_INFINITY;
    }
    let below = |x: f64| 0.5 * (1.0 + libm::erf(x / std::f64::consts::SQRT_2));
    let (mut low, mut high) = (-10.0, 10.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if below(middle) < share { low = middle } else { high = middle }
    }
    low as f32
}

/// Experts lie on their side, gate and up beside each other.
pub(super) fn llama4_experts(door: &mut Door<'_>, named: &Named<'_>) -> Result<bool> {
    let parts: &[&str] = match named.name {
        "feed_forward.experts.gate_up_proj" => &["ffn_gate_exps", "ffn_up_exps"],
        "feed_forward.experts.down_proj" => &["ffn_down_exps"],
        _ => return Ok(false),
    };
    let t = named.tensor;
    let &[n, cols, rows] = t.shape() else { return Err(odd_shape(t)) };
    let shape = [n as usize, cols as usize, rows as usize];
    let each = rows as usize / parts.len();
    for (i, part) in parts.iter().enumerate() {
        let wanted = (i * each..(i + 1) * each).step_by(1);
        let source = views::turned(vec![t.bytes.clone()], t.element.size() as usize, shape, wanted);
        door.put(named.called(&format!("{part}.weight")), vec![cols, each as u64, n], views::dtype(t)?, source);
    }
    Ok(true)
}

pub(super) const LLAMA4: Names = &[
    ("feed_forward.router", "ffn_gate_inp"),
    ("feed_forward.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("feed_forward.shared_expert.up_proj", "ffn_up_shexp"),
    ("feed_forward.shared_expert.down_proj", "ffn_down_shexp"),
];

/// What the architecture has as it is, `config.json` may not say otherwise.
pub(super) fn llama4(keys: &mut Keys<'_, '_>) -> Result<()> {
    let config = keys.config();
    let number = |name: &str, absent: f32| config.f32(&[name]).unwrap_or(absent);
    let turns = config.get(&["no_rope_layers"]).and_then(|list| list.as_array()).filter(|list| !list.is_empty());
    let usual = |(i, mark): (usize, &serde_json::Value)| mark.as_u64() == Some(u64::from((i + 1) % 4 != 0));
    let every = config.u32(&["no_rope_layer_interval"]).unwrap_or(4);
    let experts = config.u32(&["num_local_experts"]).unwrap_or(0);
    let normed = config.bool(&["use_qk_norm"]).unwrap_or(true);
    let heated = config.bool(&["attn_temperature_tuning"]).unwrap_or(true)
        && number("attn_scale", 0.1) == 0.1
        && number("floor_scale", 8192.0) == 8192.0;
    if !turns.map_or(every == 4, |list| list.iter().enumerate().all(usual))
        || !heated
        || number("attention_chunk_size", 8192.0) != 8192.0
        || normed != (experts != 128)
    {
        return Err(Error::unsupported(
            "this Llama 4 sees, turns or scales otherwise than the published ones, which is not supported",
        ));
    }
    let (head, step) = (config.head_dim()?, config.u32(&["interleave_moe_layer_step"]));
    keys.copy("feed_forward_length", &["intermediate_size_mlp"]);
    keys.copy("expert_feed_forward_length", &["intermediate_size"]);
    keys.u32("interleave_moe_layer_step", step);
    keys.u32("rope.dimension_count", Some(head));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::bound;

    #[test]
    fn bounds_are_quantiles_of_the_normal_distribution() {
        assert!((bound(0.95) - 1.644_853_6).abs() < 1e-6 && bound(0.5).abs() < 1e-6);
        assert!(bound(0.0) == f32::NEG_INFINITY && bound(2.0).is_finite() && bound(f64::NAN).is_finite());
    }
}
