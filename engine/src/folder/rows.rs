//! A list: the families that folders are read of, by the names that both sides have for them, and what each adds to the names
//! and settings that all share.

use std::ops::Range;

use super::config::Config;
use super::encoders;
use super::keys::Keys;
use super::multimodal;
use super::pooling;
use super::t5;
use super::tensors::{Door, Named};
use super::views;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::file::safetensors::Stored;
use crate::meta::shown;
use crate::quant::FLOATS_OF_4;

/// A family.
pub(super) struct Row {
    /// The classes that PyTorch runs it with (`architectures` in `config.json`).
    pub(super) classes: &'static [&'static str],
    /// If more than the class decides.
    pub(super) when: fn(&Config) -> bool,
    /// The architecture's name in GGUF files.
    pub(super) arch: &'static str,
    /// Names of tensors that mean something else here than elsewhere.
    pub(super) names: &'static [(&'static str, &'static str)],
    /// Whether GGUF files have q and k permuted for rotations of neighbours.
    pub(super) halves: bool,
    /// Whether windows may differ from layer to layer.
    pub(super) windows: bool,
    /// Norms that are stored less one, by their names in GGUF files.
    pub(super) minus_one: &'static [&'static str],
    /// What the class has where `config.json` says nothing.
    pub(super) defaults: &'static str,
    /// Tensors that are more than a name; whether this was one.
    pub(super) tensor: fn(&mut Door<'_>, &Named<'_>) -> Result<bool>,
    /// The matrices that `tensor` takes, without their ending: quantised ones are made plain numbers first.
    pub(super) taken: &'static [&'static str],
    /// Keys of its own.
    pub(super) keys: fn(&mut Keys<'_, '_>) -> Result<()>,
}

const PLAIN: Row = Row {
    classes: &[],
    when: |_| true,
    arch: "",
    names: &[],
    halves: false,
    windows: false,
    minus_one: &[],
    defaults: "{}",
    tensor: |_, _| Ok(false),
    taken: &[],
    keys: |_| Ok(()),
};

/// The norm behind attention in front of the feed-forward part has its GGUF name from its place.
const POST_ATTENTION: &[(&str, &str)] = &[("post_attention_layernorm", "post_attention_norm")];
const GEMMA_NORMS: &[&str] = &["attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm", "output_norm"];
const GEMMA3_NORMS: &[&str] =
    &["attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm", "output_norm", "attn_q_norm", "attn_k_norm"];
const QWEN_NORMS: &[&str] = &["attn_norm", "post_attention_norm", "attn_q_norm", "attn_k_norm", "output_norm"];

pub(super) const ROWS: &[Row] = &[
    Row {
        classes: &["LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM"],
        arch: "llama",
        halves: true,
        keys: with_turning,
        ..PLAIN
    },
    Row {
        classes: &["Mistral3ForConditionalGeneration", "Ministral3ForCausalLM"],
        arch: "mistral3",
        halves: true,
        keys: mistral3,
        ..PLAIN
    },
    Row { classes: &["SmolLM3ForCausalLM"], arch: "smollm3", halves: true, keys: with_turning, ..PLAIN },
    Row { classes: &["GraniteForCausalLM"], arch: "granite", halves: true, keys: granite, ..PLAIN },
    Row {
        classes: &["GraniteMoeForCausalLM"],
        arch: "granitemoe",
        halves: true,
        tensor: granite_experts,
        taken: &["block_sparse_moe.input_linear", "shared_mlp.input_linear", "shared_mlp.output_linear"],
        keys: granite,
        ..PLAIN
    },
    Row {
        classes: &["GraniteMoeHybridForCausalLM"],
        arch: "granitehybrid",
        halves: true,
        tensor: granite_experts,
        taken: &["block_sparse_moe.input_linear", "shared_mlp.input_linear", "shared_mlp.output_linear"],
        keys: granite_hybrid,
        ..PLAIN
    },
    Row { classes: &["Cohere2ForCausalLM"], arch: "cohere2", windows: true, keys: cohere2, ..PLAIN },
    Row { classes: &["Qwen2ForCausalLM"], arch: "qwen2", ..PLAIN },
    Row { classes: &["Qwen2MoeForCausalLM"], arch: "qwen2moe", ..PLAIN },
    Row { classes: &["Qwen3ForCausalLM"], arch: "qwen3", keys: pooling::qwen3, ..PLAIN },
    Row { classes: &["Qwen3MoeForCausalLM"], arch: "qwen3moe", ..PLAIN },
    Row {
        classes: &["Qwen3NextForCausalLM"],
        arch: "qwen3next",
        names: POST_ATTENTION,
        minus_one: QWEN_NORMS,
        tensor: qwen3next,
        taken: &["linear_attn.in_proj_qkvz"],
        keys: delta_nets,
        ..PLAIN
    },
    Row {
        classes: &["Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM"],
        arch: "qwen35",
        names: POST_ATTENTION,
        minus_one: QWEN_NORMS,
        keys: qwen35,
        ..PLAIN
    },
    Row {
        classes: &["Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM"],
        arch: "qwen35moe",
        names: POST_ATTENTION,
        minus_one: QWEN_NORMS,
        tensor: fused_experts,
        keys: qwen35,
        ..PLAIN
    },
    Row { classes: &["SeedOssForCausalLM"], arch: "seed_oss", names: POST_ATTENTION, ..PLAIN },
    Row { classes: &["OlmoeForCausalLM"], arch: "olmoe", ..PLAIN },
    Row {
        classes: &["Olmo2ForCausalLM", "Olmo3ForCausalLM"],
        arch: "olmo2",
        names: POST_ATTENTION,
        windows: true,
        keys: olmo2,
        ..PLAIN
    },
    Row { classes: &["Exaone4ForCausalLM"], arch: "exaone4", names: POST_ATTENTION, windows: true, ..PLAIN },
    Row {
        classes: &["Glm4ForCausalLM"],
        arch: "glm4",
        names: &[("post_self_attn_layernorm", "post_attention_norm"), ("post_mlp_layernorm", "post_ffw_norm")],
        defaults: r#"{"partial_rotary_factor": 0.5}"#,
        ..PLAIN
    },
    Row {
        classes: &["Glm4MoeForCausalLM"],
        arch: "glm4moe",
        names: POST_ATTENTION,
        defaults: r#"{"partial_rotary_factor": 0.5}"#,
        keys: sigmoid,
        ..PLAIN
    },
    Row {
        classes: &["DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "Glm4MoeLiteForCausalLM"],
        arch: "deepseek2",
        tensor: latent,
        taken: &["self_attn.kv_b_proj"],
        keys: deepseek2,
        ..PLAIN
    },
    Row { classes: &["Dots1ForCausalLM"], arch: "dots1", keys: sigmoid, ..PLAIN },
    Row { classes: &["Ernie4_5_MoeForCausalLM"], arch: "ernie4_5-moe", keys: ernie, ..PLAIN },
    Row { classes: &["HunYuanDenseV1ForCausalLM"], arch: "hunyuan-dense", keys: hunyuan, ..PLAIN },
    Row { classes: &["HunYuanMoEV1ForCausalLM"], arch: "hunyuan-moe", keys: hunyuan, ..PLAIN },
    Row { classes: &["MiniMaxM2ForCausalLM"], arch: "minimax-m2", keys: sigmoid, ..PLAIN },
    Row {
        classes: &["GptOssForCausalLM"],
        arch: "gpt-oss",
        names: POST_ATTENTION,
        windows: true,
        tensor: gpt_oss,
        keys: gpt_oss_keys,
        ..PLAIN
    },
    Row { classes: &["GPT2LMHeadModel"], arch: "gpt2", tensor: gpt2, ..PLAIN },
    Row { classes: &["Lfm2ForCausalLM"], arch: "lfm2", keys: lfm2, ..PLAIN },
    Row { classes: &["Lfm2MoeForCausalLM"], arch: "lfm2moe", keys: lfm2, ..PLAIN },
    Row {
        classes: &["Mamba2ForCausalLM"],
        arch: "mamba2",
        defaults: r#"{"max_position_embeddings": 1048576, "num_attention_heads": 0, "expand": 2, "conv_kernel": 4}"#,
        keys: mamba2,
        ..PLAIN
    },
    Row {
        classes: &["FalconH1ForCausalLM"],
        arch: "falcon-h1",
        names: &[("pre_ff_layernorm.weight", "ffn_norm")],
        tensor: falcon_h1,
        taken: &[
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "feed_forward.gate_proj",
            "feed_forward.down_proj",
            "mamba.in_proj",
            "mamba.out_proj",
        ],
        keys: falcon_h1_keys,
        ..PLAIN
    },
    Row {
        classes: &["NemotronHForCausalLM"],
        when: |c| !has_experts(c),
        arch: "nemotron_h",
        keys: nemotron_h,
        ..PLAIN
    },
    Row { classes: &["NemotronHForCausalLM"], when: has_experts, arch: "nemotron_h_moe", keys: nemotron_h, ..PLAIN },
    Row { classes: &["PhiForCausalLM"], arch: "phi2", ..PLAIN },
    Row { classes: &["Phi3ForCausalLM"], arch: "phi3", keys: with_turning, ..PLAIN },
    Row {
        classes: &["PhiMoEForCausalLM", "PhimoeForCausalLM"],
        arch: "phimoe",
        defaults: r#"{"rms_norm_eps": 1e-5, "router_jitter_noise": 0.01}"#,
        keys: phimoe,
        ..PLAIN
    },
    Row { classes: &["GemmaForCausalLM"], arch: "gemma", minus_one: GEMMA_NORMS, ..PLAIN },
    Row {
        classes: &["Gemma2ForCausalLM"],
        arch: "gemma2",
        names: POST_ATTENTION,
        minus_one: GEMMA_NORMS,
        windows: true,
        ..PLAIN
    },
    Row {
        classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
        arch: "gemma3",
        names: POST_ATTENTION,
        minus_one: GEMMA3_NORMS,
        windows: true,
        // Published settings leave out what the class has.
        defaults: r#"{"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 131072, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
            "sliding_window": 4096, "tie_word_embeddings": true}"#,
        ..PLAIN
    },
    Row {
        classes: &["FalconForCausalLM"],
        arch: "falcon",
        names: &[("ln_attn", "attn_norm_2"), ("ln_mlp", "attn_norm")],
        defaults: r#"{"max_position_embeddings": 2048, "tie_word_embeddings": true}"#,
        tensor: falcon,
        taken: &["self_attention.query_key_value"],
        keys: falcon_keys,
        ..PLAIN
    },
    Row {
        classes: &["GPTNeoXForCausalLM"],
        arch: "gptneox",
        defaults: r#"{"rotary_pct": 0.25}"#,
        tensor: neox,
        taken: &["attention.query_key_value"],
        keys: neox_keys,
        ..PLAIN
    },
    Row {
        classes: &["StableLmForCausalLM", "StableLMEpochForCausalLM"],
        arch: "stablelm",
        defaults: r#"{"partial_rotary_factor": 0.25}"#,
        keys: |keys| {
            let parallel = keys.config().bool(&["use_parallel_residual"]);
            keys.bool("use_parallel_residual", parallel);
            Ok(())
        },
        ..PLAIN
    },
    Row { classes: &["Starcoder2ForCausalLM"], arch: "starcoder2", ..PLAIN },
    Row {
        classes: &["Gemma3TextModel"],
        when: |c| c.bool(&["use_bidirectional_attention"]) == Some(true),
        arch: "gemma-embedding",
        names: POST_ATTENTION,
        minus_one: GEMMA3_NORMS,
        windows: true,
        ..PLAIN
    },
    Row {
        classes: &["Gemma4ForConditionalGeneration", "Gemma4ForCausalLM"],
        arch: "gemma4",
        names: multimodal::GEMMA,
        windows: true,
        defaults: r#"{"tie_word_embeddings": true}"#,
        keys: multimodal::gemma4,
        ..PLAIN
    },
    Row {
        classes: &["Gemma3nForConditionalGeneration", "Gemma3nForCausalLM"],
        arch: "gemma3n",
        names: multimodal::GEMMA,
        windows: true,
        defaults: r#"{"tie_word_embeddings": true, "altup_active_idx": 0, "altup_num_inputs": 4,
            "num_kv_shared_layers": 15}"#,
        keys: multimodal::gemma3n,
        ..PLAIN
    },
    Row {
        classes: &["T5ForConditionalGeneration"],
        arch: "t5",
        defaults: r#"{"tie_word_embeddings": true, "n_positions": 512, "feed_forward_proj": "relu",
            "relative_attention_num_buckets": 32, "layer_norm_epsilon": 1e-6, "decoder_start_token_id": 0}"#,
        tensor: t5::tensor,
        keys: t5::keys,
        ..PLAIN
    },
    Row {
        classes: &["Llama4ForConditionalGeneration", "Llama4ForCausalLM"],
        arch: "llama4",
        names: multimodal::LLAMA4,
        tensor: multimodal::llama4_experts,
        keys: multimodal::llama4,
        ..PLAIN
    },
    Row {
        classes: &["BertModel", "BertForSequenceClassification"],
        arch: "bert",
        names: encoders::BERT,
        tensor: encoders::bert,
        keys: encoders::bert_keys,
        ..PLAIN
    },
    Row {
        classes: &["XLMRobertaModel", "XLMRobertaForSequenceClassification"],
        arch: "bert",
        names: encoders::BERT,
        tensor: encoders::xlm_roberta,
        keys: encoders::bert_keys,
        ..PLAIN
    },
    Row {
        classes: &["ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification"],
        arch: "modern-bert",
        names: encoders::MODERN_BERT,
        tensor: encoders::modern_bert,
        keys: encoders::modern_bert_keys,
        ..PLAIN
    },
    Row {
        classes: &["NomicBertModel"],
        arch: "nomic-bert",
        names: encoders::NOMIC_BERT,
        tensor: encoders::nomic_bert,
        keys: encoders::nomic_bert_keys,
        ..PLAIN
    },
    Row {
        classes: &["MambaForCausalLM"],
        arch: "mamba",
        defaults: r#"{"max_position_embeddings": 1048576, "num_attention_heads": 0, "expand": 2, "conv_kernel": 4,
            "state_size": 16, "tie_word_embeddings": true}"#,
        keys: mamba,
        ..PLAIN
    },
];

/// The columns of a head that turn, also where all do.
fn with_turning(keys: &mut Keys<'_, '_>) -> Result<()> {
    let config = keys.config();
    let part =
        config.rope_number("partial_rotary_factor").or_else(|| config.f32(&["partial_rotary_factor"]).map(f64::from));
    let dims = (f64::from(config.head_dim()?) * part.unwrap_or(1.0)) as u32;
    keys.u32("rope.dimension_count", Some(dims));
    Ok(())
}

/// The norms are layer norms whatever their epsilon is called, and the router looks as far as its noise reached in training.
fn phimoe(keys: &mut Keys<'_, '_>) -> Result<()> {
    keys.only(&[("hidden_act", "silu"), ("num_experts_per_tok", "2")])?;
    keys.copy_f32("attention.layer_norm_epsilon", &["rms_norm_eps"]);
    keys.copy_f32("router_jitter_noise", &["router_jitter_noise"]);
    let (short, long) = (keys.config().rope_number("short_mscale"), keys.config().rope_number("long_mscale"));
    if short != long {
        return Err(Error::unsupported("this folder scales rotations otherwise in long contexts (long_mscale)"));
    }
    with_turning(keys)
}

fn mistral3(keys: &mut Keys<'_, '_>) -> Result<()> {
    let config = keys.config();
    let (log, scale) = (config.rope_number("mscale_all_dim"), config.rope_number("llama_4_scaling_beta"));
    keys.f32("rope.scaling.yarn_log_multiplier", log.map(|x| x as f32));
    keys.f32("attention.temperature_scale", scale.map(|x| x as f32));
    with_turning(keys)
}

fn granite(keys: &mut Keys<'_, '_>) -> Result<()> {
    keys.copy_f32("attention.scale", &["attention_multiplier"]);
    keys.copy_f32("embedding_scale", &["embedding_multiplier"]);
    keys.copy_f32("residual_scale", &["residual_multiplier"]);
    keys.copy_f32("logit_scale", &["logits_scaling"]);
    with_turning(keys)
}

/// Gate and up of experts, and of the shared one, in one matrix.
fn granite_experts(door: &mut Door<'_>, named: &Named<'_>) -> Result<bool> {
    match named.name {
        "block_sparse_moe.input_linear.weight" => gate_and_up(door, named, "ffn_gate_exps", "ffn_up_exps"),
        // Without experts the shared one is the feed-forward part.
        "shared_mlp.input_linear.weight" if has_experts(&door.config) => {
            gate_and_up(door, named, "ffn_gate_shexp", "ffn_up_shexp")
        }
        "shared_mlp.input_linear.weight" => gate_and_up(door, named, "ffn_gate", "ffn_up"),
        "shared_mlp.output_linear.weight" if !has_experts(&door.config) => {
            door.whole(named.called("ffn_down.weight"), named.tensor).map(|()| true)
        }
        _ => Ok(false),
    }
}

fn has_experts(config: &Config) -> bool {
    let n = config.u32(&["num_local_experts", "n_routed_experts", "num_experts"]).unwrap_or(0);
    // Nemotron's class has a number of experts also where no layer has any.
    n > 0 && config.str(&["hybrid_override_pattern"]).is_none_or(|pattern| pattern.contains('E'))
}

/// The halves of each matrix's rows: gate, then up.
fn gate_and_up(door: &mut Door<'_>, named: &Named<'_>, gate: &str, up: &str) -> Result<bool> {
    let (n, rows, cols) = match *named.tensor.shape() {
        [rows, cols] => (1, rows, cols),
        [n, rows, cols] => (n, rows, cols),
        _ => return Err(odd_shape(named.tensor)),
    };
    let half = rows / 2;
    for (name, first) in [(gate, 0), (up, half)] {
        let ranges: Vec<Range<u64>> = (0..n).map(|e| e * rows + first..e * rows + first + half).collect();
        let dims = if n == 1 { vec![cols, half] } else { vec![cols, half, n] };
        door.rows(named.called(&format!("{name}.weight")), named.tensor, &ranges, dims)?;
    }
    Ok(true)
}

pub(super) fn odd_shape(t: &Stored) -> Error {
    Error::shape(format!(
        "tensor {} has the shape {:?}, which its model cannot have",
        shown(t.name.as_bytes()),
        t.shape()
    ))
}

fn granite_hybrid(keys: &mut Keys<'_, '_>) -> Result<()> {
    let config = keys.config();
    let inner = config.u32(&["mamba_expand"]).unwrap_or(2).saturating_mul(config.width()?);
    let kv = config.u32(&["num_key_value_heads"]).unwrap_or(0);
    let types = config.layer_types().unwrap_or_default();
    let heads: Vec<u32> = types.iter().map(|t| if *t == "attention" { kv } else { 0 }).collect();
    let rope = config.str(&["position_embedding_type"]) != Some("nope");
    let shared = config.u32(&["shared_intermediate_size"]);
    let experts = has_experts(config);
    keys.u32s("attention.head_count_kv", &heads);
    keys.copy("ssm.conv_kernel", &["mamba_d_conv"]);
    keys.copy("ssm.state_size", &["mamba_d_state"]);
    keys.copy("ssm.group_count", &["mamba_n_groups"]);
    keys.copy("ssm.time_step_rank", &["mamba_n_heads"]);
    keys.u32("ssm.inner_size", Some(inner));
    keys.u32("expert_shared_feed_forward_length", shared.filter(|_| experts));
    keys.u32("feed_forward_length", shared.filter(|_| !experts));
    keys.bool("rope.scaling.finetuned", Some(rope));
    granite(keys)
}

fn cohere2(keys: &mut Keys<'_, '_>) -> Result<()> {
    keys.copy_f32("logit_scale", &["logit_scale"]);
    keys.str("rope.scaling.type", "none");
    with_turning(keys)
}

/// Queries, keys, values and gates of a key head's group are beside each other.
fn qwen3next(door: &mut Door<'_>, named: &Named<'_>) -> Result<bool> {
    if named.name != "linear_attn.in_proj_qkvz.weight" {
        return Ok(false);
    }
    let config = &door.config;
    let of = |name: &str| config.count(&[name]).map(|n| u64::from(n.min(1 << 20)));
    let (k, v) = (of("linear_key_head_dim")?, of("linear_value_head_dim")?);
    let (groups, heads) = (of("linear_num_key_heads")?, of("linear_num_value_heads")?);
    let r = heads / groups.max(1);
    let all = 2 * k + 2 * r * v;
    let (rows, cols) = views::rows_and_cols(named.tensor);
    if rows != groups * all {
        return Err(odd_shape(named.tensor));
    }
    let part = |from: u64, n: u64| (0..groups).map(move |g| g * all + from..g * all + from + n);
    let qkv: Vec<_> = part(0, k).chain(part(k, k)).chain(part(2 * k, r * v)).collect();
    let z: Vec<_> = part(2 * k + r * v, r * v).collect();
    door.rows(named.called("attn_qkv.weight"), named.tensor, &qkv, vec![cols, groups * (2 * k + r * v)])?;
    door.rows(named.called("attn_gate.weight"), named.tensor, &z, vec![cols, heads * v])?;
    Ok(true)
}

fn delta_nets(keys: &mut Keys<'_, '_>) -> Result<()> {
    let config = keys.config();
    let (heads, v) = (config.count(&["linear_num_value_heads"])?, config.count(&["linear_value_head_dim"])?);
    let every = config.u32(&["full_attention_interval"]).unwrap_or(4);
    keys.copy("ssm.conv_kernel", &["linear_conv_kernel_dim"]);
    keys.copy("ssm.state_size", &["linear_key_head_dim"]);
    keys.copy("ssm.group_count", &["linear_num_key_heads"]);
    keys.u32("ssm.time_step_rank", Some(heads));
    keys.u32("ssm.inner_size", Some(heads.saturating_mul(v)));
    keys.u32("full_attention_interval", Some(every));
    Ok(())
}

fn qwen35(keys: &mut Keys<'_, '_>) -> Result<()> {
    keys.grouped();
    let sections = keys.config().rope().and_then(|r| r.get("mrope_section")).and_then(|s| s.as_array());
    let sections =
        sections.map(|s| s.iter().take(3).map(|n| n.as_u64().unwrap_or(0) as u32).chain([0]).collect::<Vec<_>>());
    if let Some(sections) = sections {
        keys.u32s("rope.dimension_sections", &sections);
    }
    delta_nets(keys)
}

/// Experts in one tensor, gate and up in one matrix.
fn fused_experts(door: &mut Door<'_>, named: &Named<'_>) -> Result<bool> {
    match named.name {
        "mlp.experts.gate_up_proj" => gate_and_up(door, named, "ffn_gate_exps", "ffn_up_exps"),
        _ => Ok(false),
    }
}

/// Layers with a window are not scaled and turn by the same base.
fn olmo2(keys: &mut Keys<'_, '_>) -> Result<()> {
    let base = keys.config().rope_base();
    keys.f32("rope.freq_base_swa", base);
    Ok(())
}

/// Experts are scored by sigmoids if nothing else is said.
fn sigmoid(keys: &mut Keys<'_, '_>) -> Result<()> {
    if keys.config().str(&["scoring_func"]).is_none() {
        keys.u32("expert_gating_func", Some(2));
    }
    Ok(())
}

/// Keys and values come out of one matrix; GGUF files have it in two, that of keys on its side.
fn latent(door: &mut Door<'_>, named: &Named<'_>) -> Result<bool> {
    if named.name != "self_attn.kv_b_proj.weight" {
        return Ok(false);
    }
    let config = &door.config;
    let of = |name: &str| config.count(&[name]).map(u64::from);
    let (heads, k, v, rank) =
        (u64::from(config.heads()?), of("qk_nope_head_dim")?, of("v_head_dim")?, of("kv_lora_rank")?);
    if named.tensor.shape() != [heads.saturating_mul(k + v), rank] {
        return Err(odd_shape(named.tensor));
    }
    let part =
        |from: u64, n: u64| (0..heads).map(move |h| h * (k + v) + from..h * (k + v) + from + n).collect::<Vec<_>>();
    let (dtype, size) = (views::dtype(named.tensor)?, named.tensor.element.size() as usize);
    let keys = views::pieces(named.tensor, &part(0, k))?;
    let turned = views::turned(keys, size, [heads as usize, k as usize, rank as usize], (0..rank as usize).step_by(1));
    door.put(named.called("attn_k_b.weight"), vec![k, rank, heads], dtype, turned);
    door.rows(named.called("attn_v_b.weight"), named.tensor, &part(k, v), vec![rank, v, heads])?;
    Ok(true)
}

fn deepseek2(keys: &mut Keys<'_, '_>) -> Result<()> {
    let config = keys.config();
    let (nope, turning) = (config.count(&["qk_nope_head_dim"])?, config.count(&["qk_rope_head_dim"])?);
    let (v, rank) = (config.count(&["v_head_dim"])?, config.count(&["kv_lora_rank"])?);
    let log = config.rope_number("mscale_all_dim").filter(|_| config.rope_kind() == "yarn");
    let v2 = config.class() == "DeepseekV2ForCausalLM";
    keys.u32("attention.head_count_kv", Some(1));
    keys.u32("attention.key_length", Some(rank.saturating_add(turning)));
    keys.u32("attention.value_length", Some(rank));
    keys.u32("attention.key_length_mla", Some(nope.saturating_add(turning)));
    keys.u32("attention.value_length_mla", Some(v));
    keys.u32("attention.kv_lora_rank", Some(rank));
    keys.copy("attention.q_lora_rank", &["q_lora_rank"]);
    keys.u32("rope.dimension_count", Some(turning));
    // The file's multiplier is a tenth of the one of the formula.
    keys.f32("rope.scaling.yarn_log_multiplier", log.map(|x| 0.1 * x as f32));
    if v2 { Ok(()) } else { sigmoid(keys) }
}

fn ernie(keys: &mut Keys<'_, '_>) -> Result<()> {
    let config = keys.config();
    let shared = config.u32(&["moe_num_shared_experts"]).zip(config.u32(&["moe_intermediate_size"]));
    keys.u32("expert_shared_feed_forward_length", shared.map(|(n, width)| n.saturating_mul(width)).filter(|n| *n > 0));
    keys.copy("interleave_moe_layer_step", &["moe_layer_interval"]);
    Ok(())
}

/// A base that grows with the context, once and for all.
fn hunyuan(keys: &mut Keys<'_, '_>) -> Result<()> {
    let config = keys.config();
    let alpha = config.rope_number("alpha").filter(|a| *a > 0.0);
    let (base, dims) = (config.rope_base().unwrap_or(10_000.0), f64::from(config.head_dim()?));
    if let Some(alpha) = alpha.filter(|_| dims > 2.0) {
        keys.f32("rope.freq_base", Some((f64::from(base) * alpha.powf(dims / (dims - 2.0))) as f32));
        keys.u32("context_length", Some(256 * 1024));
    }
    Ok(())
}

/// Experts lie on their side, gate and up in turns; or they are in MXFP4, rows as they should be.
fn gpt_oss(door: &mut Door<'_>, named: &Named<'_>) -> Result<bool> {
    let t = named.tensor;
    let parts: &[(&str, (usize, usize))] = &[("gate", (0, 2)), ("up", (1, 2))];
    let down: &[(&str, (usize, usize))] = &[("down", (0, 1))];
    let (parts, what) = match named.name.strip_prefix("mlp.experts.") {
        Some(rest) if rest.starts_with("gate_up_proj") => (parts, &rest["gate_up_proj".len()..]),
        Some(rest) if rest.starts_with("down_proj") => (down, &rest["down_proj".len()..]),
        _ => return Ok(false),
    };
    for (part, (first, step)) in parts {
        let name = |ending: &str| named.called(&format!("ffn_{part}_exps.{ending}"));
        match (what, t.shape()) {
            ("", &[n, cols, rows]) => {
                let source = views::turned(
                    vec![t.bytes.clone()],
                    t.element.size() as usize,
                    [n as usize, cols as usize, rows as usize],
                    (*first..rows as usize / step * step).step_by(*step),
                );
                door.put(name("weight"), vec![cols, rows / *step as u64, n], views::dtype(t)?, source);
            }
            ("_bias", &[n, rows]) => {
                let source = views::every(t.bytes.clone(), views::dtype(t)?, *first, *step);
                door.put(name("bias"), vec![rows / *step as u64, n], DType::F32, source);
            }
            ("_blocks", &[n, rows, blocks, 16]) => {
                let scales = t.name.replace("_blocks", "_scales");
                let bytes = |s: &Stored| s.element.size() == 1;
                let scales =
                    door.folder.tensor(&scales).filter(|s| s.shape() == [n, rows, blocks] && bytes(s) && bytes(t));
                let scales = scales
                    .ok_or_else(|| Error::format(format!("the scales of {} are missing", shown(t.name.as_bytes()))))?;
                let source =
                    views::floats_of_4(t.bytes.clone(), scales.bytes.clone(), blocks as usize, (*first, *step));
                door.put(name("weight"), vec![blocks * 32, rows / *step as u64, n], FLOATS_OF_4, source);
            }
            // Read with the blocks.
            ("_scales", _) => {}
            _ => return Err(odd_shape(t)),
        }
    }
    Ok(true)
}

fn gpt_oss_keys(keys: &mut Keys<'_, '_>) -> Result<()> {
    let hidden = keys.config().u32(&["intermediate_size"]);
    keys.u32("expert_feed_forward_length", hidden);
    Ok(())
}

/// Matrices lie on their side.
fn gpt2(door: &mut Door<'_>, named: &Named<'_>) -> Result<bool> {
    let name = match named.name {
        "attn.c_attn.bias" => return door.whole(named.called("attn_qkv.bias"), named.tensor).map(|()| true),
        "attn.c_proj.bias" => return door.whole(named.called("attn_output.bias"), named.tensor).map(|()| true),
        "attn.c_attn.weight" => "attn_qkv.weight",
        "attn.c_proj.weight" => "attn_output.weight",
        "mlp.c_fc.weight" => "ffn_up.weight",
        "mlp.c_proj.weight" => "ffn_down.weight",
        _ => return Ok(false),
    };
    let t = named.tensor;
    let [cols, rows] = *t.shape() else { return Err(odd_shape(t)) };
    let source = views::turned(
        vec![t.bytes.clone()],
        t.element.size() as usize,
        [1, cols as usize, rows as usize],
        (0..rows as usize).step_by(1),
    );
    door.put(named.called(name), vec![cols, rows], views::dtype(t)?, source);
    Ok(true)
}

fn lfm2(keys: &mut Keys<'_, '_>) -> Result<()> {
    // What the class makes of its settings is seen in the tensors.
    let hidden = keys.door.dims_of(".ffn_down.weight").and_then(|d| u32::try_from(*d.first()?).ok());
    let config = keys.config();
    let kv = config.u32(&["num_key_value_heads"]).unwrap_or(0);
    let types = config.layer_types().unwrap_or_default();
    let heads: Vec<u32> = types.iter().map(|t| if *t == "full_attention" { kv } else { 0 }).collect();
    keys.u32("feed_forward_length", hidden);
    keys.u32s("attention.head_count_kv", &heads);
    keys.copy("shortconv.l_cache", &["conv_L_cache"]);
    keys.u32("expert_gating_func", Some(2));
    Ok(())
}

fn mamba(keys: &mut Keys<'_, '_>) -> Result<()> {
    keys.only(&[("hidden_act", "silu")])?;
    let config = keys.config();
    let width = config.width()?;
    let inner = config
        .u32(&["intermediate_size"])
        .map_or_else(|| Ok(config.count(&["expand"])?.saturating_mul(width)), Ok::<_, Error>)?;
    let rank = config.u32(&["time_step_rank"]).unwrap_or(width.div_ceil(16));
    keys.copy("ssm.conv_kernel", &["conv_kernel"]);
    keys.copy("ssm.state_size", &["state_size"]);
    keys.u32("ssm.time_step_rank", Some(rank));
    keys.u32("ssm.inner_size", Some(inner));
    keys.u32("attention.head_count", Some(0));
    keys.u32("feed_forward_length", Some(0));
    keys.copy_f32("attention.layer_norm_rms_epsilon", &["layer_norm_epsilon"]);
    Ok(())
}

fn mamba2(keys: &mut Keys<'_, '_>) -> Result<()> {
    let config = keys.config();
    let inner = config.count(&["expand"])?.saturating_mul(config.width()?);
    keys.copy("ssm.conv_kernel", &["conv_kernel"]);
    keys.copy("ssm.state_size", &["state_size"]);
    keys.copy("ssm.group_count", &["n_groups"]);
    keys.copy("ssm.time_step_rank", &["num_heads"]);
    keys.u32("ssm.inner_size", Some(inner));
    keys.u32("attention.head_count", Some(0));
    keys.u32("feed_forward_length", Some(0));
    keys.copy_f32("attention.layer_norm_rms_epsilon", &["layer_norm_epsilon", "rms_norm_eps"]);
    Ok(())
}

/// Factors that GGUF files have multiplied into the matrices stand beside them.
fn falcon_h1(door: &mut Door<'_>, named: &Named<'_>) -> Result<bool> {
    let config = &door.config;
    let of = |name: &str| config.f32(&[name]).unwrap_or(1.0);
    let nth = |name: &str, i: usize| config.get(&[name]).and_then(|v| v.get(i)?.as_f64()).map_or(1.0, |x| x as f32);
    let (attn, ffn) = (of("attention_in_multiplier"), "mlp_multipliers");
    let (ours, factor) = match named.name {
        "self_attn.q_proj.weight" | "self_attn.v_proj.weight" => {
            (if named.name.contains("q_proj") { "attn_q" } else { "attn_v" }, attn)
        }
        "self_attn.k_proj.weight" => ("attn_k", attn * of("key_multiplier")),
        "self_attn.o_proj.weight" => ("attn_output", of("attention_out_multiplier")),
        "feed_forward.gate_proj.weight" => ("ffn_gate", nth(ffn, 0)),
        "feed_forward.down_proj.weight" => ("ffn_down", nth(ffn, 1)),
        "mamba.out_proj.weight" => ("ssm_out", of("ssm_out_multiplier")),
        "mamba.in_proj.weight" => {
            let count = |name: &str| config.count(&[name]).map(|n| n as usize);
            let (inner, heads) = (count("mamba_d_ssm")?, count("mamba_n_heads")?);
            let states = count("mamba_n_groups")? * count("mamba_d_state")?;
            let parts = [inner, inner, states, states, heads];
            let factor = |i: usize| of("ssm_in_multiplier") * nth("ssm_multipliers", i);
            if parts.iter().sum::<usize>() as u64 != views::rows_and_cols(named.tensor).0 {
                return Err(odd_shape(named.tensor));
            }
            let all: Vec<f32> =
                parts.iter().enumerate().flat_map(|(i, n)| std::iter::repeat_n(factor(i), *n)).collect();
            door.numbers(&named.called("ssm_in.scale"), all);
            return door.whole(named.called("ssm_in.weight"), named.tensor).map(|()| true);
        }
        _ => return Ok(false),
    };
    door.numbers(&named.called(&format!("{ours}.scale")), vec![factor]);
    door.whole(named.called(&format!("{ours}.weight")), named.tensor).map(|()| true)
}

fn falcon_h1_keys(keys: &mut Keys<'_, '_>) -> Result<()> {
    keys.factors();
    keys.copy("ssm.conv_kernel", &["mamba_d_conv"]);
    keys.copy("ssm.inner_size", &["mamba_d_ssm"]);
    keys.copy("ssm.state_size", &["mamba_d_state"]);
    keys.copy("ssm.time_step_rank", &["mamba_n_heads"]);
    keys.copy("ssm.group_count", &["mamba_n_groups"]);
    keys.copy_f32("embedding_scale", &["embedding_multiplier"]);
    keys.copy_f32("logit_scale", &["lm_head_multiplier"]);
    Ok(())
}

/// A letter says what a layer is: Mamba, attention, feed-forward, experts.
fn nemotron_h(keys: &mut Keys<'_, '_>) -> Result<()> {
    let config = keys.config();
    let pattern: Vec<char> = match config.str(&["hybrid_override_pattern"]) {
        Some(letters) => letters.chars().collect(),
        None => {
            let types = config.list("layers_block_type").or_else(|| config.layer_types()).unwrap_or_default();
            let letter = |t: &&str| match *t {
                "attention" => '*',
                "mlp" => '-',
                "moe" => 'E',
                _ => 'M',
            };
            types.iter().map(letter).collect()
        }
    };
    let kv = config.u32(&["num_key_value_heads"]).unwrap_or(0);
    let hidden = config
        .u32(&["moe_intermediate_size"])
        .filter(|_| pattern.contains(&'E'))
        .or(config.u32(&["intermediate_size"]));
    let heads: Vec<u32> = pattern.iter().map(|c| if *c == '*' { kv } else { 0 }).collect();
    let feeds: Vec<u32> =
        pattern.iter().map(|c| if ['-', 'E'].contains(c) { hidden.unwrap_or(0) } else { 0 }).collect();
    let (mamba, dim) = (config.count(&["mamba_num_heads"])?, config.count(&["mamba_head_dim"])?);
    keys.u32s("attention.head_count_kv", &heads);
    keys.u32s("feed_forward_length", &feeds);
    keys.copy("ssm.conv_kernel", &["conv_kernel"]);
    keys.copy("ssm.state_size", &["ssm_state_size"]);
    keys.copy("ssm.group_count", &["n_groups"]);
    keys.u32("ssm.time_step_rank", Some(mamba));
    keys.u32("ssm.inner_size", Some(mamba.saturating_mul(dim)));
    keys.bool("rope.scaling.finetuned", Some(false));
    keys.copy_f32("attention.layer_norm_rms_epsilon", &["layer_norm_epsilon", "norm_eps", "rms_norm_eps"]);
    sigmoid(keys)
}

/// Rows of q, k and v out of groups: the queries of a key head, the key, the value.
fn ungrouped(groups: u64, queries: u64, dim: u64) -> Vec<Range<u64>> {
    let all = queries + 2;
    let part = |from: u64, n: u64| (0..groups).map(move |g| (g * all + from) * dim..(g * all + from + n) * dim);
    part(0, queries).chain(part(queries, 1)).chain(part(queries + 1, 1)).collect()
}

fn qkv(door: &mut Door<'_>, named: &Named<'_>, groups: u64) -> Result<bool> {
    let heads = u64::from(door.config.heads()?);
    let ending = if named.name.ends_with(".bias") { "bias" } else { "weight" };
    let (rows, cols) = match *named.tensor.shape() {
        [rows] => (rows, None),
        [rows, cols] => (rows, Some(cols)),
        _ => return Err(odd_shape(named.tensor)),
    };
    let all = heads.saturating_add(groups.saturating_mul(2));
    if groups == 0 || !heads.is_multiple_of(groups) || !rows.is_multiple_of(all) {
        return Err(odd_shape(named.tensor));
    }
    let ranges = ungrouped(groups, heads / groups, rows / all);
    let dims = cols.into_iter().chain([rows]).collect();
    door.rows(named.called(&format!("attn_qkv.{ending}")), named.tensor, &ranges, dims)?;
    Ok(true)
}

fn falcon(door: &mut Door<'_>, named: &Named<'_>) -> Result<bool> {
    if !named.name.starts_with("self_attention.query_key_value.") {
        return Ok(false);
    }
    let groups = falcon_groups(&door.config)?;
    qkv(door, named, groups.into())
}

/// Key heads: their number, one, or as many as there are queries, by the class's generations.
fn falcon_groups(config: &Config) -> Result<u32> {
    if config.bool(&["new_decoder_architecture"]) == Some(true) {
        return config.count(&["num_kv_heads", "n_head_kv"]);
    }
    if config.bool(&["multi_query"]) == Some(false) { config.heads() } else { Ok(1) }
}

fn falcon_keys(keys: &mut Keys<'_, '_>) -> Result<()> {
    let config = keys.config();
    if config.bool(&["alibi"]) == Some(true) || config.bool(&["parallel_attn"]) == Some(false) {
        return Err(Error::unsupported(
            "this generation of Falcon (biases by distance, parts one after the other) is not supported",
        ));
    }
    let groups = falcon_groups(config)?;
    keys.u32("attention.head_count_kv", Some(groups));
    Ok(())
}

fn neox(door: &mut Door<'_>, named: &Named<'_>) -> Result<bool> {
    if !named.name.starts_with("attention.query_key_value.") {
        return Ok(false);
    }
    let heads = door.config.heads()?;
    qkv(door, named, heads.into())
}

fn neox_keys(keys: &mut Keys<'_, '_>) -> Result<()> {
    let config = keys.config();
    let (heads, parallel) = (config.heads()?, config.bool(&["use_parallel_residual"]));
    keys.u32("attention.head_count_kv", Some(heads));
    keys.bool("use_parallel_residual", Some(parallel.unwrap_or(true)));
    Ok(())
}

/// Architectures that run and whose folders are not read yet.
#[cfg(test)]
pub(super) const WITHOUT: &[&str] = &[
    "afmoe",
    "apertus",
    "arcee",
    "arctic",
    "baichuan",
    "bailingmoe",
    "bailingmoe2",
    "bailingmoe3",
    "bitnet",
    "bloom",
    "chatglm",
    "codeshell",
    "cogvlm",
    "cohere2moe",
    "command-r",
    "dbrx",
    "deci",
    "deepseek",
    "deepseek2-ocr",
    "deepseek32",
    "dots3note",
    "dream",
    "ernie4_5",
    "eurobert",
    "exaone",
    "exaone-moe",
    "glm-dsa",
    "glm5-next",
    "granite_swa",
    "grok",
    "grovemoe",
    "hrm_text",
    "hunyuan_vl",
    "hy_v3",
    "hy_v4",
    "internlm2",
    "jais",
    "jais2",
    "jamba",
    "jina-bert-v2",
    "jina-bert-v3",
    "kimi-k3",
    "kimi-linear",
    "laguna",
    "llada",
    "llada-moe",
    "llama-embed",
    "maincoder",
    "maple",
    "mellum",
    "mimo2",
    "minicpm",
    "minicpm3",
    "minimax-01",
    "minimax-m3",
    "mistral4",
    "mpt",
    "muse-glimmer",
    "nanbeige",
    "nemotron",
    "neo-bert",
    "nomic-bert-moe",
    "olmo",
    "openelm",
    "orion",
    "paddleocr",
    "pangu-embedded",
    "plamo",
    "plamo2",
    "plamo3",
    "plm",
    "pockettts",
    "qwen",
    "qwen2vl",
    "qwen3tts",
    "qwen3vl",
    "qwen3vlmoe",
    "refact",
    "rnd1",
    "smallthinker",
    "spark2_5",
    "starcoder",
    "step35",
    "t5encoder",
    "talkie",
    "xverse",
];
