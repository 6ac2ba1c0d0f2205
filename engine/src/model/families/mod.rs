//! The families: from a file to a spec. A family says only what goes beyond the common keys and tensors.

use super::common::Keys;
use super::decoder::{WindowRope, decoder};
use super::spec::{Ffn, ModelSpec, Normed};
use crate::error::{Error, Result};
use crate::file::ModelFile;
use crate::meta::shown;
use crate::plan::Act::{GeluTanh, ReluSquared, Silu};
use crate::plan::NormKind::{Layer, Rms};
use crate::plan::RopeStyle::{Halves, Interleaved};

type Family = fn(&Keys) -> Result<ModelSpec>;

/// Architecture name in the file, and what it means.
const FAMILIES: &[(&str, Family)] = &[
    ("llama", llama),
    ("mistral3", llama),
    ("internlm2", llama),
    ("xverse", llama),
    ("ernie4_5", llama),
    ("smollm3", smollm3),
    ("granite", granite),
    ("minicpm", minicpm),
    ("arcee", arcee),
    ("chatglm", llama),
    ("command-r", command_r),
    ("cohere2", cohere2),
    ("olmo", olmo),
    ("qwen", qwen1),
    ("qwen2", qwen),
    ("qwen3", qwen),
    ("exaone", qwen),
    ("pangu-embedded", qwen),
    ("cogvlm", qwen),
    ("seed_oss", seed_oss),
    ("qwen2vl", qwen),
    ("qwen3vl", qwen),
    ("paddleocr", qwen),
    ("plamo", plamo),
    ("phi2", phi2),
    ("phi3", phi3),
    ("gemma", gemma),
    ("gemma2", gemma2),
    ("gemma3", gemma3),
    ("olmo2", olmo2),
    ("exaone4", exaone4),
    ("glm4", glm4),
    ("falcon", falcon),
    ("gptneox", gptneox),
    ("stablelm", stablelm),
    ("starcoder2", starcoder2),
    ("codeshell", starcoder2),
    ("orion", orion),
    ("nemotron", nemotron),
    ("jais2", nemotron),
];

/// The spec of a file.
///
/// # Errors
/// An unknown architecture is named, with those that are known.
pub(super) fn spec(file: &ModelFile) -> Result<ModelSpec> {
    let arch = file.meta().arch()?;
    let Some((_, family)) = FAMILIES.iter().find(|(name, _)| *name == arch) else {
        let known: Vec<_> = FAMILIES.iter().map(|(name, _)| *name).collect();
        let known = known.join(", ");
        let arch = shown(arch.as_bytes());
        return Err(Error::unsupported(format!("architecture {arch} is not supported yet (known: {known})")));
    };
    if file.tensor("blk.0.ffn_gate_exps.weight").is_some() || file.tensor("blk.0.ffn_gate_inp.weight").is_some() {
        return Err(Error::unsupported("mixture-of-experts models are not supported yet"));
    }
    family(&Keys { file, arch })
}

/// Llama 1 to 3 and Mistral: q and k rows in the file are permuted for interleaved rotation.
fn llama(keys: &Keys) -> Result<ModelSpec> {
    decoder(keys, Interleaved, Rms, Silu)
}

/// Every fourth layer does not turn.
fn smollm3(keys: &Keys) -> Result<ModelSpec> {
    llama(keys)?.each_heads(|i, heads| {
        heads.rope = heads.rope.take().filter(|_| (i + 1) % 4 != 0);
        Ok(())
    })
}

/// Factors on embedding, scores, branches and logits.
fn granite(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = scaled(keys, llama(keys)?, [1.0, 1.0, 1.0])?;
    if keys.file.meta().opt_bool(&keys.key("rope.scaling.finetuned"))? == Some(false) {
        spec = spec.each_heads(|_, heads| {
            heads.rope = None;
            Ok(())
        })?;
    }
    Ok(spec)
}

fn minicpm(keys: &Keys) -> Result<ModelSpec> {
    let spec = llama(keys)?;
    let absent = [12.0, 1.4 / (spec.layers.len() as f32).sqrt(), spec.width as f32 / 256.0];
    scaled(keys, spec, absent)
}

/// The file's factors on embedding and branches and the divisor of logits, or those given; a factor on scores.
fn scaled(keys: &Keys, mut spec: ModelSpec, [embedding, residual, logits]: [f32; 3]) -> Result<ModelSpec> {
    spec.embedding.scale = keys.factor("embedding_scale")?.unwrap_or(embedding);
    spec.head.scale = 1.0 / keys.factor("logit_scale")?.unwrap_or(logits);
    let residual = keys.factor("residual_scale")?.unwrap_or(residual);
    let scores = keys.factor("attention.scale")?;
    spec.each_layer(|_, layer| layer.residual = residual).each_heads(|_, heads| {
        heads.scale = scores.unwrap_or(heads.scale);
        Ok(())
    })
}

/// No gate: squared ReLU.
fn arcee(keys: &Keys) -> Result<ModelSpec> {
    decoder(keys, Interleaved, Rms, ReluSquared)
}

/// One norm for both parts, which read the same stream; factor on the logits.
fn command_r(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = decoder(keys, Interleaved, Layer, Silu)?.parallel();
    spec.head.scale = keys.factor("logit_scale")?.unwrap_or(1.0);
    Ok(one_norm(spec))
}

fn cohere2(keys: &Keys) -> Result<ModelSpec> {
    command_r(keys)?.windows(keys, 4, None, WindowRope::Only)
}

/// Feed-forward reads what attention reads.
fn one_norm(spec: ModelSpec) -> ModelSpec {
    spec.each_layer(|_, layer| layer.ffn_norms.before = layer.attn_norms.before)
}

/// Norms without weights; queries, keys and values clamped.
fn olmo(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = decoder(keys, Interleaved, Layer, Silu)?;
    spec.output_norm = Normed::Bare;
    let clamp = keys.factor("attention.clamp_kqv")?;
    let spec = spec.each_layer(|_, layer| {
        (layer.attn_norms.before, layer.ffn_norms.before) = (Normed::Bare, Normed::Bare);
    });
    spec.each_heads(|_, heads| {
        heads.clamp = clamp;
        Ok(())
    })
}

/// Qwen 1: the key of the feed-forward part counts gate and up together.
fn qwen1(keys: &Keys) -> Result<ModelSpec> {
    Ok(qwen(keys)?.each_layer(|_, layer| {
        let Ffn::Dense { hidden, .. } = &mut layer.ffn;
        *hidden /= 2;
    }))
}

/// Qwen 2 (biases) and Qwen 3 (norms on heads): both are found in the file.
fn qwen(keys: &Keys) -> Result<ModelSpec> {
    decoder(keys, Halves, Rms, Silu)
}

/// The norm in front of the feed-forward part has another name.
fn seed_oss(keys: &Keys) -> Result<ModelSpec> {
    Ok(qwen(keys)?.each_layer(|_, layer| layer.ffn_norms.before = Normed::By("post_attention_norm")))
}

fn plamo(keys: &Keys) -> Result<ModelSpec> {
    Ok(one_norm(qwen(keys)?.parallel()))
}

fn phi2(keys: &Keys) -> Result<ModelSpec> {
    Ok(one_norm(decoder(keys, Halves, Layer, GeluTanh)?.parallel()))
}

/// Phi 3 and 4: fused matrices, found in the file. Its window key is not used.
fn phi3(keys: &Keys) -> Result<ModelSpec> {
    qwen(keys)?.each_heads(|_, heads| {
        heads.window = None;
        Ok(())
    })
}

/// Embedding times the root of its width; the norms' weights hold their 1.
fn gemma(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = decoder(keys, Halves, Rms, GeluTanh)?;
    spec.embedding.scale = (spec.width as f32).sqrt();
    Ok(spec)
}

/// Scores scaled by the width of the stream over the heads in the largest models (by their layers), by heads otherwise.
fn gemma_scores(spec: ModelSpec, largest: usize) -> Result<ModelSpec> {
    let (width, all) = (spec.width as f32, spec.layers.len());
    spec.each_heads(|_, heads| {
        if all == largest {
            heads.scale = 1.0 / (width / heads.n_heads as f32).sqrt();
        }
        Ok(())
    })
}

fn gemma2(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = gemma_scores(gemma(keys)?.post_norms("post_attention_norm", "post_ffw_norm"), 46)?;
    spec.head.cap = Some(keys.factor("final_logit_softcapping")?.unwrap_or(30.0));
    let cap = keys.factor("attn_logit_softcapping")?.unwrap_or(50.0);
    spec.windows(keys, 2, Some(4096), WindowRope::Same)?.each_heads(|_, heads| {
        heads.cap = Some(cap);
        Ok(())
    })
}

fn gemma3(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = gemma_scores(gemma(keys)?.post_norms("post_attention_norm", "post_ffw_norm"), 62)?;
    spec.head.cap = keys.factor("final_logit_softcapping")?;
    spec.windows(keys, 6, None, WindowRope::Base(10_000.0))
}

/// OLMo 2 and 3: norms behind the parts only.
fn olmo2(keys: &Keys) -> Result<ModelSpec> {
    let base = keys.factor("rope.freq_base")?.unwrap_or(10_000.0);
    post_only(qwen(keys)?).windows(keys, 4, None, WindowRope::Base(base))
}

/// No norms in front of the parts.
fn post_only(spec: ModelSpec) -> ModelSpec {
    spec.post_norms("post_attention_norm", "post_ffw_norm").each_layer(|_, layer| {
        (layer.attn_norms.before, layer.ffn_norms.before) = (Normed::No, Normed::No);
    })
}

/// Windows only in the large model, whose layers without a window do not turn.
fn exaone4(keys: &Keys) -> Result<ModelSpec> {
    let spec = post_only(qwen(keys)?);
    match spec.layers.len() {
        64 => spec.windows(keys, 4, Some(4096), WindowRope::Only),
        _ => spec.each_heads(|_, heads| {
            heads.window = None;
            Ok(())
        }),
    }
}

fn glm4(keys: &Keys) -> Result<ModelSpec> {
    Ok(llama(keys)?.post_norms("post_attention_norm", "post_ffw_norm"))
}

/// One norm, or in the 40B one for each part.
fn falcon(keys: &Keys) -> Result<ModelSpec> {
    Ok(decoder(keys, Halves, Layer, GeluTanh)?.parallel().each_layer(|i, layer| {
        layer.ffn_norms.before = Normed::By("attn_norm");
        if keys.has(i, "attn_norm_2.weight") {
            layer.attn_norms.before = Normed::By("attn_norm_2");
        }
    }))
}

fn gptneox(keys: &Keys) -> Result<ModelSpec> {
    let spec = decoder(keys, Halves, Layer, GeluTanh)?;
    let parallel = keys.file.meta().opt_bool(&keys.key("use_parallel_residual"))? != Some(false);
    Ok(if parallel { spec.parallel() } else { spec })
}

/// The parts read the same stream if there is one norm for both.
fn stablelm(keys: &Keys) -> Result<ModelSpec> {
    let spec = decoder(keys, Halves, Layer, Silu)?;
    if keys.has(0, "ffn_norm.weight") {
        return Ok(spec);
    }
    Ok(one_norm(spec.parallel()))
}

fn starcoder2(keys: &Keys) -> Result<ModelSpec> {
    decoder(keys, Halves, Layer, GeluTanh)
}

fn orion(keys: &Keys) -> Result<ModelSpec> {
    decoder(keys, Halves, Layer, Silu)
}

/// No gate: squared ReLU.
fn nemotron(keys: &Keys) -> Result<ModelSpec> {
    decoder(keys, Halves, Layer, ReluSquared)
}
