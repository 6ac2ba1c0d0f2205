//! What a file's tensors say about the parts of its model, and that none is passed over: a tensor that nothing reads
//! would mean a wrong answer.

use std::collections::HashSet;

use super::spec::ModelSpec;
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

/// Tensors that a text's logits do not depend on.
fn is_beside(name: &str, spec: &ModelSpec) -> bool {
    let (layer, in_layer) = in_layer(name);
    // Blocks behind the last layer, and what `nextn` names, draft tokens.
    let drafts = layer.is_some_and(|i| i >= spec.layers.len()) || in_layer.starts_with("nextn.");
    // For activations in 4 bits, which are not used here.
    let input_scale = name.ends_with(".input_scale");
    // What some files carry for images and sound, and the head that ranks pairs of texts.
    let media = ["v.", "mm.", "a."].iter().any(|start| name.starts_with(start)) || in_layer.starts_with("vis_");
    let ranks = name.starts_with("cls.");
    drafts || input_scale || media || ranks
}

/// # Errors
/// A tensor of the file that the recorded plan leaves unread, by its name. `scales` are those whose numbers it holds.
pub(super) fn expect_all_read(file: &ModelFile, spec: &ModelSpec, plan: &Plan, scales: &HashSet<String>) -> Result<()> {
    let segments = plan.weights.iter().flat_map(|w| &w.segments);
    let read: HashSet<&str> = segments.map(|s| s.name.as_str()).chain([ROPE_FACTORS]).collect();
    let is_unread = |t: &&Tensor| {
        let name = t.name();
        !read.contains(name) && !scales.contains(name) && !is_beside(name, spec)
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
