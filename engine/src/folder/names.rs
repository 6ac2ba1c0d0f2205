//! A list: names of tensors in folders, and in GGUF files. The beginning that goes with a class (`model.`, `transformer.h.`) is
//! taken off before they are looked up, and endings (`.weight`, `.bias`) are kept.

/// Beginnings of names that say nothing about the tensor. The first that fits is taken off.
pub(super) const BEGINNINGS: &[&str] = &[
    "model.language_model.",
    "language_model.model.",
    "language_model.",
    "model.",
    "transformer.",
    "backbone.",
    "gpt_neox.",
    "bert.",
    "roberta.",
];

/// What comes before a layer's number.
pub(super) const LAYERS: &[&str] = &["layers.", "h.", "encoder.layer.", "encoder.layers."];

/// Tensors that are no part of a text model's computation: what PyTorch keeps beside weights, and what reads images and sound or
/// drafts tokens.
pub(super) fn is_beside(name: &str) -> bool {
    const BEGINNINGS: &[&str] = &[
        "visual.",
        "vision_tower.",
        "vision_model.",
        "vision_embed_tokens.",
        "model.visual.",
        "model.vision_tower.",
        "model.vision_model.",
        "model.embed_vision.",
        "model.embed_audio.",
        "model.audio_tower.",
        "audio_tower.",
        "multi_modal_projector.",
        "model.multi_modal_projector.",
        "mtp.",
    ];
    const ENDINGS: &[&str] = &[
        "rotary_emb.inv_freq",
        ".attn.bias",
        ".attn.masked_bias",
        ".attention.bias",
        ".attention.masked_bias",
        "embeddings.position_ids",
    ];
    BEGINNINGS.iter().any(|b| name.starts_with(b)) || ENDINGS.iter().any(|e| name.ends_with(e))
}

/// Outside layers.
pub(super) const WHOLE: &[(&str, &str)] = &[
    ("embed_tokens", "token_embd"),
    ("wte", "token_embd"),
    ("word_embeddings", "token_embd"),
    ("embed_in", "token_embd"),
    ("embeddings", "token_embd"),
    ("wpe", "position_embd"),
    ("norm", "output_norm"),
    ("ln_f", "output_norm"),
    ("final_layer_norm", "output_norm"),
    ("final_layernorm", "output_norm"),
    ("norm_f", "output_norm"),
    ("embedding_norm", "token_embd_norm"),
    ("lm_head", "output"),
    ("embed_out", "output"),
];

/// In a layer.
pub(super) const IN_LAYER: &[(&str, &str)] = &[
    // Norms.
    ("input_layernorm", "attn_norm"),
    ("ln_1", "attn_norm"),
    ("operator_norm", "attn_norm"),
    ("norm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("ln_2", "ffn_norm"),
    ("ffn_norm", "ffn_norm"),
    ("pre_ff_layernorm", "ffn_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    // Attention.
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.out_proj", "attn_output"),
    ("self_attn.dense", "attn_output"),
    ("attention.dense", "attn_output"),
    ("self_attention.dense", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.q_layernorm", "attn_q_norm"),
    ("self_attn.k_layernorm", "attn_k_norm"),
    ("self_attn.query_layernorm", "attn_q_norm"),
    ("self_attn.key_layernorm", "attn_k_norm"),
    ("self_attn.sinks", "attn_sinks.weight"),
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_a_layernorm", "attn_q_a_norm"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
    // Feed-forward parts.
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.fc1", "ffn_up"),
    ("mlp.fc2", "ffn_down"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
    ("mlp.dense_h_to_4h", "ffn_up"),
    ("mlp.dense_4h_to_h", "ffn_down"),
    ("feed_forward.gate_proj", "ffn_gate"),
    ("feed_forward.up_proj", "ffn_up"),
    ("feed_forward.down_proj", "ffn_down"),
    ("feed_forward.w1", "ffn_gate"),
    ("feed_forward.w3", "ffn_up"),
    ("feed_forward.w2", "ffn_down"),
    // Mixtures.
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.gate.wg", "ffn_gate_inp"),
    ("mlp.router", "ffn_gate_inp"),
    ("feed_forward.gate", "ffn_gate_inp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("block_sparse_moe.router.layer", "ffn_gate_inp"),
    ("mlp.gate.e_score_correction_bias", "exp_probs_b.bias"),
    ("mlp.moe_statics.e_score_correction_bias", "exp_probs_b.bias"),
    ("block_sparse_moe.e_score_correction_bias", "exp_probs_b.bias"),
    ("feed_forward.expert_bias", "exp_probs_b.bias"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.shared_mlp.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_mlp.up_proj", "ffn_up_shexp"),
    ("mlp.shared_mlp.down_proj", "ffn_down_shexp"),
    ("mlp.experts.down_proj", "ffn_down_exps.weight"),
    ("block_sparse_moe.output_linear", "ffn_down_exps"),
    ("shared_mlp.output_linear", "ffn_down_shexp"),
    // Recurrent layers and convolutions.
    ("mamba.in_proj", "ssm_in"),
    ("mamba.conv1d", "ssm_conv1d"),
    ("mamba.D", "ssm_d"),
    ("mamba.dt_bias", "ssm_dt.bias"),
    ("mamba.norm", "ssm_norm"),
    ("mamba.out_proj", "ssm_out"),
    ("mixer.in_proj", "ssm_in"),
    ("mixer.conv1d", "ssm_conv1d"),
    ("mixer.D", "ssm_d"),
    ("mixer.x_proj", "ssm_x"),
    ("mixer.dt_proj", "ssm_dt"),
    ("mixer.dt_bias", "ssm_dt.bias"),
    ("mixer.norm", "ssm_norm"),
    ("mixer.out_proj", "ssm_out"),
    ("mixer.q_proj", "attn_q"),
    ("mixer.k_proj", "attn_k"),
    ("mixer.v_proj", "attn_v"),
    ("mixer.o_proj", "attn_output"),
    ("mixer.up_proj", "ffn_up"),
    ("mixer.down_proj", "ffn_down"),
    ("mixer.gate", "ffn_gate_inp"),
    ("mixer.gate.e_score_correction_bias", "exp_probs_b.bias"),
    ("mixer.shared_experts.up_proj", "ffn_up_shexp"),
    ("mixer.shared_experts.down_proj", "ffn_down_shexp"),
    ("linear_attn.conv1d", "ssm_conv1d"),
    ("linear_attn.dt_bias", "ssm_dt.bias"),
    ("linear_attn.norm", "ssm_norm"),
    ("linear_attn.out_proj", "ssm_out"),
    ("linear_attn.in_proj_ba", "ssm_ba"),
    ("linear_attn.in_proj_qkv", "attn_qkv"),
    ("linear_attn.in_proj_z", "attn_gate"),
    ("linear_attn.in_proj_a", "ssm_alpha"),
    ("linear_attn.in_proj_b", "ssm_beta"),
    ("conv.conv", "shortconv.conv"),
    ("conv.in_proj", "shortconv.in_proj"),
    ("conv.out_proj", "shortconv.out_proj"),
    // Blocks that draft tokens.
    ("eh_proj", "nextn.eh_proj"),
    ("enorm", "nextn.enorm"),
    ("hnorm", "nextn.hnorm"),
    ("embed_tokens", "nextn.embed_tokens"),
    ("shared_head.head", "nextn.shared_head_head"),
    ("shared_head.norm", "nextn.shared_head_norm"),
];

/// Logarithms of decays, which GGUF files hold as decays.
pub(super) const LOG_DECAYS: &[&str] = &["mamba.A_log", "mixer.A_log", "linear_attn.A_log"];

/// Experts that are apart: what comes before their number, and what of an expert is what.
pub(super) const EXPERTS: &[&str] =
    &["mlp.experts.", "block_sparse_moe.experts.", "feed_forward.experts.", "mixer.experts."];
pub(super) const OF_EXPERT: &[(&str, &str)] = &[
    ("gate_proj.weight", "ffn_gate_exps.weight"),
    ("up_proj.weight", "ffn_up_exps.weight"),
    ("down_proj.weight", "ffn_down_exps.weight"),
    ("w1.weight", "ffn_gate_exps.weight"),
    ("w3.weight", "ffn_up_exps.weight"),
    ("w2.weight", "ffn_down_exps.weight"),
];

/// Matrices that are apart outside layers, by what comes before their number.
pub(super) const STACKED: &[(&str, &str)] =
    &[("altup_projections.", "altup_proj.weight"), ("altup_unembed_projections.", "altup_unembd_proj.weight")];
