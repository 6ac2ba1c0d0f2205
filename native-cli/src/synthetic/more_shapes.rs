//! Shapes of synthetic models, continued: latent attention, and kinds of families as they are published, scaled down to about half
//! a billion weights.

use super::shapes::{self, Draft, Feed, Fill};

/// Gemma 4's small kind: windows, layers that read another's cache, and an embedding of each layer's own beside the stream.
pub(super) fn gemma4(d: &mut Draft) {
    let (width, n_layers, n_heads, dim, window_dim, hidden, own, n_shared) =
        (1024, 20u32, 8, 512, 256, 4096, 128, 5u32);
    d.begin("gemma4", width, n_layers, 131_072, 1e-6);
    d.counts(&[
        ("feed_forward_length", hidden),
        ("attention.head_count", n_heads),
        ("attention.head_count_kv", 1),
        ("attention.key_length", dim),
        ("attention.value_length", dim),
        ("attention.key_length_swa", window_dim),
        ("attention.value_length_swa", window_dim),
        ("attention.sliding_window", 512),
        ("attention.shared_kv_layers", n_shared.into()),
        ("embedding_length_per_layer_input", own),
        ("rope.dimension_count", dim),
        ("rope.dimension_count_swa", window_dim),
    ]);
    d.number("rope.freq_base", 1e6);
    d.number("rope.freq_base_swa", 1e4);
    d.number("final_logit_softcapping", 30.0);
    let has_window = |i: u32| !(i + 1).is_multiple_of(5);
    let pattern: Vec<bool> = (0..n_layers).map(has_window).collect();
    d.meta = std::mem::take(&mut d.meta).bools("gemma4.attention.sliding_window_pattern", &pattern);
    d.tensor("rope_freqs.weight", &[dim / 2], Fill::Constant(1.0));
    d.matrix_of_vocabulary("per_layer_token_embd", own * u64::from(n_layers));
    d.matrix("per_layer_model_proj", width, own * u64::from(n_layers));
    d.ones("per_layer_proj_norm", own);
    for i in 0..n_layers {
        d.layer(i);
        let dim = if has_window(i) { window_dim } else { dim };
        d.ones("attn_norm", width);
        d.matrix("attn_q", width, n_heads * dim);
        d.ones("attn_q_norm", dim);
        if i < n_layers - n_shared {
            d.matrix("attn_k", width, dim);
            d.matrix("attn_v", width, dim);
            d.ones("attn_k_norm", dim);
        }
        d.matrix("attn_output", n_heads * dim, width);
        for norm in ["post_attention_norm", "ffn_norm", "post_ffw_norm", "post_norm"] {
            d.ones(norm, width);
        }
        d.feed_forward(hidden);
        d.matrix("inp_gate", width, own);
        d.matrix("proj", own, width);
        d.tensor("layer_output_scale.weight", &[1], Fill::Constant(1.0));
    }
}

/// gpt-oss: experts with biases, windows at every other layer, sinks.
pub(super) fn gpt_oss(d: &mut Draft) {
    let (width, n_layers, n_heads, n_kv_heads, dim, n, hidden) = (1024, 8u32, 16, 4, 64, 32, 1024);
    d.begin("gpt-oss", width, n_layers, 131_072, 1e-5);
    d.counts(&[
        ("feed_forward_length", hidden),
        ("expert_feed_forward_length", hidden),
        ("expert_count", n),
        ("expert_used_count", 4),
        ("attention.head_count", n_heads),
        ("attention.head_count_kv", n_kv_heads),
        ("attention.key_length", dim),
        ("attention.value_length", dim),
        ("attention.sliding_window", 128),
    ]);
    d.number("rope.freq_base", 150_000.0);
    d.matrix_of_vocabulary("output", width);
    for i in 0..n_layers {
        d.layer(i);
        d.ones("attn_norm", width);
        d.attention(n_heads * dim, n_kv_heads * dim, n_heads * dim);
        let kv = n_kv_heads * dim;
        for (name, columns) in [("attn_q", n_heads * dim), ("attn_k", kv), ("attn_v", kv), ("attn_output", width)] {
            d.tensor(&format!("{name}.bias"), &[columns], Fill::Constant(0.0));
        }
        d.tensor("attn_sinks.weight", &[n_heads], Fill::Constant(0.5));
        d.ones("post_attention_norm", width);
        d.experts(n, hidden);
        d.tensor("ffn_gate_inp.bias", &[n], Fill::Constant(0.0));
        for (name, columns) in [("ffn_gate_exps", hidden), ("ffn_up_exps", hidden), ("ffn_down_exps", width)] {
            d.tensor(&format!("{name}.bias"), &[columns, n], Fill::Constant(0.0));
        }
    }
}

/// LFM 2: short convolutions, and attention at every third layer.
pub(super) fn lfm2(d: &mut Draft) {
    let (width, n_layers, n_heads, n_kv_heads, dim, hidden, taps) = (1024, 24u32, 16, 8, 64, 4608, 3);
    d.begin("lfm2", width, n_layers, 128_000, 1e-5);
    d.counts(&[
        ("feed_forward_length", hidden),
        ("attention.head_count", n_heads),
        ("shortconv.l_cache", taps),
        ("vocab_size", 32_768),
    ]);
    let attends = |i: u32| i % 3 == 2;
    let heads: Vec<i32> = (0..n_layers).map(|i| if attends(i) { n_kv_heads as i32 } else { 0 }).collect();
    d.meta = std::mem::take(&mut d.meta).i32s("lfm2.attention.head_count_kv", &heads);
    d.number("rope.freq_base", 1e6);
    d.last_norm = Some("token_embd_norm");
    for i in 0..n_layers {
        d.layer(i);
        d.ones("attn_norm", width);
        if attends(i) {
            d.attention(n_heads * dim, n_kv_heads * dim, n_heads * dim);
            d.ones("attn_q_norm", dim);
            d.ones("attn_k_norm", dim);
        } else {
            d.tensor("shortconv.conv.weight", &[taps, width], Fill::Constant(0.25));
            d.matrix("shortconv.in_proj", width, 3 * width);
            d.matrix("shortconv.out_proj", width, width);
        }
        d.ones("ffn_norm", width);
        d.feed_forward(hidden);
    }
}

/// Nomic's BERT: an encoder with rotations and gates.
pub(super) fn nomic(d: &mut Draft) {
    let (width, n_layers, n_heads, hidden) = (768, 12u32, 12, 3072);
    d.begin("nomic-bert", width, n_layers, 2048, 1e-12);
    d.counts(&[("feed_forward_length", hidden), ("attention.head_count", n_heads), ("pooling_type", 1)]);
    d.number("attention.layer_norm_epsilon", 1e-12);
    d.number("rope.freq_base", 1000.0);
    let meta = std::mem::take(&mut d.meta).bool("nomic-bert.attention.causal", false);
    d.meta = meta.u32("tokenizer.ggml.token_type_count", 2);
    d.last_norm = None;
    let norm = |d: &mut Draft, name: &str| {
        d.ones(name, width);
        d.tensor(&format!("{name}.bias"), &[width], Fill::Constant(0.0));
    };
    norm(d, "token_embd_norm");
    d.tensor("token_types.weight", &[width, 2], Fill::Constant(0.0));
    for i in 0..n_layers {
        d.layer(i);
        d.matrix("attn_qkv", width, 3 * width);
        d.matrix("attn_output", width, width);
        norm(d, "attn_output_norm");
        d.feed_forward(hidden);
        norm(d, "layer_output_norm");
    }
}

/// Qwen3.5's mixture: layers of the dense one, with experts and one that every row uses.
pub(super) fn qwen35moe(d: &mut Draft) {
    shapes::qwen35(d, "qwen35moe", 1024, 8, [8, 2, 256], [16, 16, 128], Feed::Experts { n: 64, used: 8, hidden: 256 });
}

/// DeepSeek-V2's kind, as large as the others.
pub(super) fn latent(d: &mut Draft) {
    deepseek2(d, 1024, 8, Rows { n_heads: 16, nope: 128, rope: 64, value: 128, q: 768, kv: 512 }, [64, 6, 512], 4096);
}

/// The same, tiny.
pub(super) fn tiny_latent(d: &mut Draft) {
    deepseek2(d, 256, 3, Rows { n_heads: 4, nope: 32, rope: 32, value: 64, q: 256, kv: 256 }, [8, 2, 256], 512);
}

/// Sizes of latent attention: a head's elements that do not turn, those that do, a value's; the rows of queries and of keys.
struct Rows {
    n_heads: u64,
    nope: u64,
    rope: u64,
    value: u64,
    q: u64,
    kv: u64,
}

/// DeepSeek-V2: a dense layer, then experts and two that every row uses.
fn deepseek2(d: &mut Draft, width: u64, n_layers: u32, rows: Rows, experts: [u64; 3], hidden: u64) {
    let (Rows { n_heads, nope, rope, value, q, kv }, [n, used, expert], shared) = (rows, experts, 2);
    d.begin("deepseek2", width, n_layers, 131_072, 1e-6);
    d.counts(&[
        ("feed_forward_length", hidden),
        ("leading_dense_block_count", 1),
        ("expert_feed_forward_length", expert),
        ("expert_count", n),
        ("expert_used_count", used),
        ("expert_shared_count", shared),
        ("expert_gating_func", 1),
        ("attention.head_count", n_heads),
        ("attention.head_count_kv", 1),
        ("attention.q_lora_rank", q),
        ("attention.kv_lora_rank", kv),
        ("attention.key_length", kv + rope),
        ("attention.value_length", kv),
        ("attention.key_length_mla", nope + rope),
        ("attention.value_length_mla", value),
        ("rope.dimension_count", rope),
    ]);
    d.number("rope.freq_base", 1e4);
    d.number("expert_weights_scale", 1.0);
    for i in 0..n_layers {
        d.layer(i);
        d.ones("attn_norm", width);
        d.matrix("attn_q_a", width, q);
        d.ones("attn_q_a_norm", q);
        d.matrix("attn_q_b", q, n_heads * (nope + rope));
        d.matrix("attn_kv_a_mqa", width, kv + rope);
        d.ones("attn_kv_a_norm", kv);
        d.tensor("attn_k_b.weight", &[nope, kv, n_heads], Fill::OfHeads);
        d.stack("attn_v_b", kv, value, n_heads);
        d.matrix("attn_output", n_heads * value, width);
        d.ones("ffn_norm", width);
        if i == 0 {
            d.feed_forward(hidden);
            continue;
        }
        d.experts(n, expert);
        d.shared_expert(shared * expert);
    }
}
