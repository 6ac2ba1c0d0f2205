//! The families: from a file to a spec. A family says only what goes beyond the common keys.

mod known;

use super::common::{self, Keys};
use super::parts;
use super::spec::{Attn, Ffn, Heads, ModelSpec};
use crate::error::{Error, Result};
use crate::file::ModelFile;
use crate::meta::shown;
use crate::plan::RopeStyle::{Halves, Interleaved};

type Family = fn(&Keys) -> Result<ModelSpec>;

/// Architecture name in the file, and what it means.
const FAMILIES: &[(&str, Family)] = &[
    ("llama", interleaved),
    ("mistral3", mistral3),
    ("qwen2", halves),
    ("qwen3", halves),
    ("qwen", qwen),
    ("qwen2vl", halves),
    ("qwen3vl", halves),
    ("baichuan", baichuan),
    ("chatglm", interleaved),
    ("cogvlm", halves),
    ("ernie4_5", interleaved),
    ("exaone", halves),
    ("internlm2", interleaved),
    ("openelm", halves),
    ("paddleocr", halves),
    ("pangu-embedded", halves),
    ("phi3", phi3),
    ("seed_oss", halves),
    ("smollm3", smollm3),
    ("xverse", interleaved),
];

/// The spec of a file.
///
/// # Errors
/// An architecture that is not supported, with what it needs beyond those that are, or a file of a supported one with
/// parts that are not.
pub(super) fn spec(file: &ModelFile) -> Result<ModelSpec> {
    let arch = file.meta().arch()?;
    let Some((_, family)) = FAMILIES.iter().find(|(name, _)| *name == arch) else {
        return Err(Error::unsupported(unsupported(file, arch)));
    };
    let spec = family(&Keys { file, arch })?;
    parts::expect_supported(file, &spec)?;
    Ok(spec)
}

/// Why an architecture cannot run: by what is known of it, else by the file's tensors.
fn unsupported(file: &ModelFile, arch: &str) -> String {
    let Some(needs) = known::needs(arch) else {
        let known: Vec<_> = FAMILIES.iter().map(|(name, _)| *name).collect();
        let (arch, known) = (shown(arch.as_bytes()), known.join(", "));
        let parts = match parts::named(file).join(", ") {
            none if none.is_empty() => none,
            parts => format!("; its tensors ask for {parts}"),
        };
        return format!("architecture {arch} is not known{parts} (supported: {known})");
    };
    let experts = if parts::has_experts(file) && !needs.contains("experts") { ", a mixture of experts" } else { "" };
    format!("architecture {arch} is not supported yet: it needs {needs}{experts}")
}

/// Families whose q and k rows are permuted in the file, so that neighbouring elements rotate together.
fn interleaved(keys: &Keys) -> Result<ModelSpec> {
    common::dense(keys, Interleaved)
}

/// Families whose heads rotate in halves. Biases, norms on heads and fused matrices are found in the file. For text the
/// three position axes of models with images are one.
fn halves(keys: &Keys) -> Result<ModelSpec> {
    common::dense(keys, Halves)
}

/// Mistral 3: queries are scaled by their position, which is not supported yet, but is no scale up to some length.
fn mistral3(keys: &Keys) -> Result<ModelSpec> {
    let spec = common::dense(keys, Interleaved)?;
    let n_context = keys.plain_queries(spec.n_context)?;
    Ok(ModelSpec { n_context, ..spec })
}

/// Qwen 1: the key counts gate and up together.
fn qwen(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = common::dense(keys, Halves)?;
    for layer in &mut spec.layers {
        let Ffn::Dense { hidden, .. } = &mut layer.ffn;
        *hidden /= 2;
    }
    Ok(spec)
}

/// Baichuan 7B. The 13B model has no key of its own that says how positions enter: its layers tell.
fn baichuan(keys: &Keys) -> Result<ModelSpec> {
    let spec = common::dense(keys, Interleaved)?;
    if spec.layers.len() == 40 {
        return Err(Error::unsupported(
            "Baichuan 13B is not supported yet: it needs position biases on scores (ALiBi)",
        ));
    }
    Ok(spec)
}

/// Phi 3 and 4: its window is for prompts beyond what the model was trained on, and llama.cpp ignores it.
fn phi3(keys: &Keys) -> Result<ModelSpec> {
    each_heads(common::dense(keys, Halves)?, |_, heads| heads.window = None)
}

/// SmolLM 3: every fourth layer knows no positions.
fn smollm3(keys: &Keys) -> Result<ModelSpec> {
    each_heads(common::dense(keys, Interleaved)?, |i, heads| {
        if (i + 1).is_multiple_of(4) {
            heads.rope = None;
        }
    })
}

/// Changes the attention of every layer.
fn each_heads(mut spec: ModelSpec, change: impl Fn(usize, &mut Heads)) -> Result<ModelSpec> {
    for (i, layer) in spec.layers.iter_mut().enumerate() {
        let Attn::Heads(heads) = &mut layer.attn;
        change(i, heads);
    }
    Ok(spec)
}
