//! What a file's tensors say about the parts of its model, and that none is passed over: a tensor that nothing reads
//! would mean a wrong answer.

use std::collections::HashSet;

use super::spec::ModelSpec;
use super::weights::READ_AT_RECORDING;
use crate::error::{Error, Result};
use crate::file::{ModelFile, Tensor};
use crate::meta::shown;
use crate::plan::Plan;

/// Parts that are not supported, by how the names of their tensors begin, `blk.N.` left out.
const PARTS: &[(&str, &str)] = &[
    ("ffn_gate_inp", EXPERTS),
    ("ffn_gate_exps", EXPERTS),
    ("ffn_up_exps", EXPERTS),
    ("ffn_gate_up_exps", EXPERTS),
    ("ffn_down_exps", EXPERTS),
    ("attn_sinks", "attention sinks"),
    ("attn_kv_a_mqa", "latent attention"),
    ("attn_gate", "a gate on attention"),
    ("attn_norm.bias", "layer norms"),
    ("output_norm.bias", "layer norms"),
    ("attn_norm_2", "parallel residuals"),
    ("position_embd", "learned positions"),
    ("attn_rel_b", "position biases on scores"),
    ("ssm_", "recurrent layers"),
    ("time_mix", "recurrent layers"),
    ("shortconv", "short convolutions"),
    ("post_ffw_norm", "norms behind attention and feed-forward"),
    ("indexer", "an index of keys"),
    ("cross_attn", "cross-attention"),
    ("rope_factors_", "long rope factors"),
    ("per_layer_", "embeddings per layer"),
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

/// Whether a file holds experts.
pub(super) fn has_experts(file: &ModelFile) -> bool {
    named(file).contains(&EXPERTS)
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
/// A part of the file's model that is not supported, by its name.
pub(super) fn expect_supported(file: &ModelFile, spec: &ModelSpec) -> Result<()> {
    let needed = |t: &&Tensor| !is_beside(t.name(), spec);
    let found = file.tensors().iter().filter(needed).find_map(|t| Some((t, part(t)?)));
    let Some((tensor, part)) = found else { return Ok(()) };
    let (arch, name) = (&spec.family, shown(tensor.name().as_bytes()));
    Err(Error::unsupported(format!(
        "architecture {arch} with {part} is not supported yet (the file has a tensor {name})"
    )))
}

/// # Errors
/// A tensor of the file that the recorded plan leaves unread, by its name.
pub(super) fn expect_all_read(file: &ModelFile, spec: &ModelSpec, plan: &Plan) -> Result<()> {
    let segments = plan.weights.iter().flat_map(|w| &w.segments);
    let read: HashSet<&str> = segments.map(|s| s.name.as_str()).chain(READ_AT_RECORDING.iter().copied()).collect();
    let unread = |t: &&Tensor| !read.contains(t.name()) && !is_beside(t.name(), spec);
    let n = file.tensors().iter().filter(unread).count();
    let Some(tensor) = file.tensors().iter().find(unread) else { return Ok(()) };
    let name = shown(tensor.name().as_bytes());
    let more = if n > 1 { format!(" and {} more", n - 1) } else { String::new() };
    Err(Error::unsupported(format!(
        "tensor {name}{more} would be read by no part of a {} model, and its answers would be wrong: this kind of file is \
         not supported yet",
        spec.family
    )))
}
