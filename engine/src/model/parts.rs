//! What a file's tensors say about the parts of its model, and that none is passed over: a tensor that nothing reads
//! would mean a wrong answer.

use std::collections::HashSet;

use super::spec::{Ffn, Mixer, ModelSpec};
use super::weights::ROPE_FACTORS;
use crate::error::{Error, Result};
use crate::file::{ModelFile, Tensor};
use crate::meta::shown;
use crate::plan::Plan;

/// Parts that are not supported, at least not in every architecture, by how the names of their tensors begin, `blk.N.` left
/// out.
const PARTS: &[(&str, &str)] = &[
    ("attn_gate", "a gate on attention"),
    ("attn_kv_a_mqa", "latent attention"),
    ("attn_norm_2", "a second norm in front of attention"),
    ("attn_rel_b", "position biases on scores"),
    ("attn_sinks", "attention sinks"),
    ("cross_attn", "cross-attention"),
    ("ffn_gate_exps", EXPERTS),
    ("ffn_gate_inp", EXPERTS),
    ("ffn_gate_up_exps", EXPERTS),
    ("hc_", "hyper-connections"),
    ("indexer", "an index of keys"),
    ("per_layer_", "embeddings per layer"),
    ("position_embd", "learned positions"),
    ("post_attention_norm", "norms behind attention and feed-forward"),
    ("post_ffw_norm", "norms behind attention and feed-forward"),
    ("rope_factors_", "long rope factors"),
    ("shortconv", "short convolutions"),
    ("ssm_", "recurrent layers"),
    ("time_mix", "recurrent layers"),
];

const EXPERTS: &str = "a mixture of experts";

/// A tensor's name without its layer, and the layer.
fn in_layer(name: &str) -> (Option<usize>, &str) {
    let layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    match layer.and_then(|(layer, rest)| Some((layer.parse().ok()?, rest))) {
        Some((layer, rest)) => (Some(layer), rest),
        None => (None, name),
    }
}

fn part(tensor: &Tensor) -> Option<&'static str> {
    let (_, name) = in_layer(tensor.name());
    PARTS.iter().find(|(start, _)| name.starts_with(start)).map(|(_, part)| *part)
}

/// The unsupported parts that a file's tensors are for, each once.
pub(super) fn named(file: &ModelFile) -> Vec<&'static str> {
    let mut parts: Vec<&str> = Vec::new();
    for part in file.tensors().iter().filter_map(part) {
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts
}

/// By architecture, the ends of names of tensors that llama.cpp reads from a file and then computes without. No converter
/// writes them; its tests do.
const UNUSED: &[(&str, &[&str])] = &[
    ("bailingmoe3", QKV_BIASES),
    ("cogvlm", &["rope_freqs.weight"]),
    ("dream", &["output.bias"]),
    ("ernie4_5", &["attn_output.bias"]),
    ("ernie4_5-moe", &["attn_output.bias"]),
    ("falcon-h1", &["attn_output.bias", "rope_freqs.weight"]),
    ("glm5-next", QKV_BIASES),
    ("kimi-k3", QKV_BIASES),
    ("kimi-linear", QKV_BIASES),
    ("llada", PLAIN),
    ("mimo2", QKV_BIASES),
    ("pangu-embedded", &["rope_freqs.weight"]),
    ("qwen2vl", &["output.bias"]),
    ("refact", PLAIN),
];

const PLAIN: &[&str] = &["attn_output.bias", "ffn_gate.bias", "ffn_up.bias", "ffn_down.bias", "rope_freqs.weight"];

const QKV_BIASES: &[&str] = &["attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_qkv.bias"];

/// Architectures whose layers llama.cpp computes without a dense part where they have experts, although files may have both.
const DENSE_UNUSED: &[&str] = &["hy_v3", "mimo2", "step35"];

/// Whether an architecture is computed without a tensor, although files may have it.
pub(super) fn is_unused(arch: &str, name: &str) -> bool {
    let ends = UNUSED.iter().find(|(of, _)| *of == arch).map_or(&[][..], |(_, ends)| ends);
    ends.contains(&in_layer(name).1)
}

/// Tensors that a text's logits do not depend on.
fn is_beside(name: &str, file: &ModelFile, spec: &ModelSpec) -> bool {
    let (layer, in_layer) = in_layer(name);
    // Blocks behind the last layer, and what `nextn` names, draft tokens.
    let drafts =
        layer.is_some_and(|i| spec.layers.iter().all(|layer| i > layer.block)) || in_layer.starts_with("nextn.");
    // For activations in 4 bits, which are not used here.
    let input_scale = name.ends_with(".input_scale");
    // What some files carry for images and sound, and the head that ranks pairs of texts.
    let media = ["v.", "mm.", "a."].iter().any(|start| name.starts_with(start)) || in_layer.starts_with("vis_");
    let ranks = name.starts_with("cls.");
    // Keys and values of layers that read those of another.
    let shared = |mixer: &Mixer| matches!(mixer, Mixer::Heads(heads) if heads.shared.is_some());
    let layer = layer.and_then(|i| spec.layers.iter().find(|layer| layer.block == i));
    let unread = ["attn_k.", "attn_v.", "attn_k_norm."].iter().any(|start| in_layer.starts_with(start))
        && layer.is_some_and(|layer| layer.mixers.iter().any(shared));
    let dense = ["ffn_gate.", "ffn_up.", "ffn_down."].iter().any(|start| in_layer.starts_with(start))
        && DENSE_UNUSED.contains(&spec.family.as_str())
        && layer.is_some_and(|layer| matches!(layer.ffn, Some(Ffn::Moe(_))));
    let index = in_layer.starts_with("indexer") && spec.unindexed;
    // Beside what was made of it for delta nets.
    let older = in_layer.starts_with("ssm_in.")
        && layer.is_some_and(|layer| layer.mixers.iter().any(|mixer| matches!(mixer, Mixer::DeltaNet(_))));
    // A norm on keys whose queries have none.
    let lone = in_layer.starts_with("attn_k_norm.")
        && spec.family == "mpt"
        && file.tensor(&name.replace("attn_k_norm.", "attn_q_norm.")).is_none();
    drafts
        || index
        || older
        || lone
        || input_scale
        || media
        || ranks
        || unread
        || dense
        || is_unused(&spec.family, name)
}

/// # Errors
/// A tensor of the file that the recorded plan leaves unread, by its name. `noted` are those whose numbers recording read.
pub(super) fn expect_all_read(file: &ModelFile, spec: &ModelSpec, plan: &Plan, noted: &HashSet<String>) -> Result<()> {
    let segments = plan.weights.iter().flat_map(|w| &w.segments);
    let read: HashSet<&str> = segments.map(|s| s.name.as_str()).chain(ROPE_FACTORS).collect();
    let is_unread = |t: &&Tensor| {
        let name = t.name();
        !read.contains(name) && !noted.contains(name) && !is_beside(name, file, spec)
    };
    let unread: Vec<&Tensor> = file.tensors().iter().filter(is_unread).collect();
    let Some(first) = unread.first() else { return Ok(()) };
    let more = if unread.len() > 1 { format!(" and {} more", unread.len() - 1) } else { String::new() };
    let what = unread.iter().find_map(|t| part(t)).map_or(String::new(), |part| format!(", for {part},"));
    Err(Error::unsupported(format!(
        "this kind of {} model is not supported yet: nothing would read tensor {}{more}{what} and the answers would be wrong",
        spec.family,
        shown(first.name().as_bytes())
    )))
}
