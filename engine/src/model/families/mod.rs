//! A list: the families, from a file to a spec. A family says only what goes beyond the common keys and tensors.

mod encoders;
mod known;
mod more;
mod prefixes;
mod t5;

pub use prefixes::{Prefix, task_prefixes};

use super::common::Keys;
use super::decoder::decoder;
use super::parts;
use super::spec::{Ffn, Mixer, ModelSpec, Normed, OutputKind};
use super::words::{By, WindowRope};
use crate::error::{Error, Result};
use crate::file::ModelFile;
use crate::folder::GROUPED;
use crate::meta::shown;
use crate::plan::Act::{GeluErf, GeluQuick, GeluTanh, ReluSquared, Silu};
use crate::plan::NormKind::{Layer, Rms};
use crate::plan::RopeStyle::{Halves, Interleaved};
use crate::plan::Scoring::{Sigmoid, Softmax, SoftmaxOfPicked, SparseMixer};
use crate::plan::{Gated, Temperature};

type Family = fn(&Keys) -> Result<ModelSpec>;

/// Architecture name in the file, and what it means.
const FAMILIES: &[(&str, Family)] = &[
    ("llama", llama),
    ("mistral3", mistral3),
    ("internlm2", llama),
    ("xverse", llama),
    ("ernie4_5", llama),
    // Every fourth layer does not turn.
    ("smollm3", |keys| Ok(llama(keys)?.turning(|i, _| (i + 1) % 4 != 0))),
    ("granite", granite),
    ("minicpm", minicpm),
    // No gate: squared ReLU.
    ("arcee", |keys| decoder(keys, Interleaved, Rms, ReluSquared)),
    ("chatglm", llama),
    ("command-r", command_r),
    ("cohere2", |keys| command_r(keys)?.windows(keys, 4, None, WindowRope::Only)),
    ("olmo", olmo),
    ("qwen", qwen1),
    ("qwen2", qwen),
    ("qwen3", qwen),
    ("exaone", qwen),
    ("pangu-embedded", qwen),
    ("cogvlm", qwen),
    // The norm in front of the feed-forward part has another name.
    ("seed_oss", |keys| Ok(qwen(keys)?.ffn_norm("post_attention_norm"))),
    ("qwen2vl", qwen),
    ("qwen3vl", qwen),
    ("paddleocr", qwen),
    ("qwen2moe", qwen2moe),
    ("qwen3moe", qwen),
    ("qwen3vlmoe", qwen),
    ("olmoe", qwen2moe),
    ("dbrx", dbrx),
    ("granitemoe", granitemoe),
    ("deepseek", deepseek),
    ("deepseek2", deepseek2),
    ("mistral4", deepseek2),
    ("deepseek2-ocr", dots1),
    ("dots1", dots1),
    ("ernie4_5-moe", llama),
    ("hunyuan-dense", hunyuan),
    ("hunyuan-moe", hunyuan),
    ("hunyuan_vl", hunyuan),
    ("maincoder", |keys| norms_after_rope(llama(keys)?)),
    ("glm4moe", |keys| Ok(glm_routed(keys)?.ffn_norm("post_attention_norm"))),
    ("minimax-m2", |keys| qwen(keys)?.routed(keys, By::Key(Softmax), By::Family(true))),
    ("exaone-moe", exaone_moe),
    ("bailingmoe", |keys| llama(keys)?.routed(keys, By::Family(Softmax), By::Key(false))),
    ("bailingmoe2", dots1),
    ("hy_v3", glm_routed),
    ("mellum", |keys| qwen(keys)?.windows(keys, 4, None, WindowRope::Base(keys.base()?))),
    ("gpt-oss", gpt_oss),
    ("openelm", qwen),
    ("gpt2", gpt2),
    ("starcoder", gpt2),
    ("bloom", bloom),
    ("jais", jais),
    ("refact", refact),
    ("baichuan", baichuan),
    ("mpt", mpt),
    ("bitnet", qwen),
    ("qwen3next", qwen3next),
    ("qwen35", qwen35),
    ("qwen35moe", qwen35),
    ("lfm2", lfm2),
    ("lfm2moe", lfm2),
    ("mamba2", llama),
    ("falcon-h1", falcon_h1),
    ("granitehybrid", granite),
    ("nemotron_h", nemotron_h),
    ("nemotron_h_moe", nemotron_h),
    ("plamo", |keys| Ok(one_norm(qwen(keys)?.parallel()))),
    ("phi2", |keys| Ok(one_norm(decoder(keys, Halves, Layer, GeluTanh)?.parallel()))),
    ("phi3", phi3),
    ("phimoe", phimoe),
    ("gemma", gemma),
    ("gemma2", gemma2),
    ("gemma3", gemma3),
    // OLMo 2 and 3: norms behind the parts only.
    ("olmo2", |keys| post_only(qwen(keys)?).windows(keys, 4, None, WindowRope::Base(keys.base()?))),
    ("exaone4", exaone4),
    ("glm4", glm4),
    ("falcon", falcon),
    ("gptneox", gptneox),
    ("stablelm", stablelm),
    ("starcoder2", starcoder2),
    ("codeshell", starcoder2),
    ("orion", |keys| decoder(keys, Halves, Layer, Silu)),
    ("nemotron", nemotron),
    ("jais2", nemotron),
    ("mamba", llama),
    ("deci", llama),
    ("gemma4", more::gemma4),
    ("gemma3n", more::gemma3n),
    ("llama4", more::llama4),
    ("afmoe", more::afmoe),
    ("apertus", more::apertus),
    ("arctic", more::arctic),
    ("grok", more::grok),
    ("smallthinker", more::smallthinker),
    // Only layers with a window turn; gates are limited.
    ("maple", |keys| qwen(keys)?.windows(keys, 0, None, WindowRope::Only)?.limited(keys, false, "swiglu_clamp_shexp")),
    ("nanbeige", more::nanbeige),
    ("plamo3", more::plamo3),
    ("granite_swa", more::granite_swa),
    ("muse-glimmer", more::muse_glimmer),
    // A gate for each head.
    ("spark2_5", |keys| decoder(keys, Halves, Rms, GeluTanh)?.windows(keys, 0, None, WindowRope::Scaled)),
    ("laguna", more::laguna),
    ("step35", more::step35),
    ("cohere2moe", more::cohere2moe),
    ("talkie", more::talkie),
    ("grovemoe", more::grovemoe),
    ("minicpm3", more::minicpm3),
    // Latent attention; squared ReLU without a gate.
    ("plm", |keys| decoder(keys, Interleaved, Rms, ReluSquared)),
    // Mamba, or attention that does not turn.
    ("jamba", |keys| unturned(qwen(keys)?.routed(keys, By::Family(Softmax), By::Family(false))?, None)),
    ("plamo2", more::plamo2),
    ("kimi-linear", more::kimi_linear),
    ("bailingmoe3", more::bailingmoe3),
    ("minimax-01", more::minimax01),
    // Latent attention to what an index of keys chooses.
    ("deepseek32", |keys| llama(keys)?.routed(keys, By::Key(Softmax), By::Key(false))?.indexed(keys, Halves, |_| true)),
    ("glm-dsa", more::glm_dsa),
    ("dots3note", more::dots3note),
    // Text in, codes of sound out.
    ("qwen3tts", |keys| Ok(ModelSpec { output: OutputKind::Sound, ..qwen(keys)? })),
    // The same with layer norms; what makes sound of its rows is in another file.
    ("pockettts", |keys| Ok(ModelSpec { output: OutputKind::Sound, ..decoder(keys, Interleaved, Layer, GeluErf)? })),
    ("dream", |keys| Ok(qwen(keys)?.masked())),
    ("llada", |keys| Ok(llama(keys)?.masked())),
    ("llada-moe", |keys| Ok(qwen2moe(keys)?.masked())),
    ("rnd1", |keys| Ok(qwen(keys)?.masked())),
    ("mimo2", more::mimo2),
    ("hrm_text", more::hrm_text),
    ("minimax-m3", more::minimax_m3),
    ("kimi-k3", more::kimi_k3),
    ("glm5-next", more::glm5_next),
    ("hy_v4", more::hy_v4),
    ("bert", encoders::bert),
    ("nomic-bert", |keys| encoders::post_normed(keys, Silu)),
    // Experts without gate in some layers, found in the file; their weights are not divided by their sum.
    ("nomic-bert-moe", |keys| {
        encoders::post_normed(keys, GeluErf)?.routed(keys, By::Family(Softmax), By::Family(false))
    }),
    ("jina-bert-v2", encoders::jina_bert_v2),
    ("jina-bert-v3", |keys| encoders::post_normed(keys, GeluErf)),
    ("modern-bert", encoders::modern_bert),
    ("neo-bert", encoders::neo_bert),
    ("eurobert", |keys| qwen(keys)?.both_ways(keys)),
    ("llama-embed", |keys| llama(keys)?.both_ways(keys)),
    // Gemma 3 both ways, with two more matrices behind the pooling.
    ("gemma-embedding", |keys| gemma3(keys)?.both_ways(keys)),
    ("t5", t5::t5),
    ("t5encoder", t5::t5encoder),
];

/// The spec of a file.
///
/// # Errors
/// An architecture that is not supported, with what it needs beyond those that are.
pub(super) fn spec(file: &ModelFile) -> Result<ModelSpec> {
    let arch = file.meta().arch()?;
    let Some((_, family)) = FAMILIES.iter().find(|(name, _)| *name == arch) else {
        return Err(Error::unsupported(unsupported(file, arch)));
    };
    let keys = Keys { file, arch, yarn_rounds: true, rope_dims: None, prefix: "blk.", blocks: "block_count" };
    let spec = family(&keys)?;
    keys.expect_mask(&spec)?;
    Ok(spec)
}

/// Why an architecture cannot run: by what is known of it, else by the file's tensors.
fn unsupported(file: &ModelFile, arch: &str) -> String {
    if let Some(needs) = known::needs(arch) {
        return format!("architecture {arch} is not supported yet: it needs {needs}");
    }
    let supported: Vec<_> = FAMILIES.iter().map(|(name, _)| *name).collect();
    let parts = match parts::named(file).join(", ") {
        none if none.is_empty() => none,
        parts => format!("; its tensors are for {parts}"),
    };
    format!("architecture {} is not known{parts} (supported: {})", shown(arch.as_bytes()), supported.join(", "))
}

/// Llama 1 to 3 and Mistral: q and k rows in the file are permuted for interleaved rotation.
fn llama(keys: &Keys) -> Result<ModelSpec> {
    decoder(keys, Interleaved, Rms, Silu)
}

/// Queries grow with their position where the file says so.
fn mistral3(keys: &Keys) -> Result<ModelSpec> {
    let spec = llama(keys)?;
    let Some(factor) = keys.factor("attention.temperature_scale")? else { return Ok(spec) };
    let length = match keys.opt_u32("attention.temperature_length")?.filter(|n| *n > 0) {
        Some(n) => n,
        None => keys.opt_u32("rope.scaling.original_context_length")?.filter(|n| *n > 0).unwrap_or(8192),
    };
    Ok(spec.with_heads(|_, heads| heads.temperature = Some(Temperature { factor, length: length as f32, offset: 0.0 })))
}

/// Factors on embedding, scores, branches and logits.
fn granitemoe(keys: &Keys) -> Result<ModelSpec> {
    scaled(keys, llama(keys)?, [1.0, 1.0, 1.0])
}

/// The same; some do not turn.
fn granite(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = granitemoe(keys)?;
    if keys.opt_bool("rope.scaling.finetuned")? == Some(false) {
        spec = spec.with_heads(|_, heads| heads.rope = None);
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
    Ok(spec
        .each_layer(|_, layer| layer.residual = residual)
        .with_heads(|_, heads| heads.scale = scores.unwrap_or(heads.scale)))
}

/// One norm for both parts, which read the same stream; factor on the logits.
fn command_r(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = decoder(keys, Interleaved, Layer, Silu)?.parallel();
    spec.head.scale = keys.factor("logit_scale")?.unwrap_or(1.0);
    Ok(one_norm(spec))
}

/// Feed-forward reads what attention reads.
fn one_norm(spec: ModelSpec) -> ModelSpec {
    spec.each_layer(|_, layer| layer.ffn_norms.before = layer.attn_norms.before)
}

/// Norms without weights; queries, keys and values clamped.
fn olmo(keys: &Keys) -> Result<ModelSpec> {
    let clamp = keys.factor("attention.clamp_kqv")?;
    Ok(decoder(keys, Interleaved, Layer, Silu)?.bare_norms().with_heads(|_, heads| heads.clamp = clamp))
}

/// Qwen 1: the key of the feed-forward part counts gate and up together.
fn qwen1(keys: &Keys) -> Result<ModelSpec> {
    Ok(qwen(keys)?.each_layer(|_, layer| {
        if let Some(Ffn::Dense { hidden, .. }) = &mut layer.ffn {
            *hidden /= 2;
        }
    }))
}

/// Qwen 2 (biases) and Qwen 3 (norms on heads): both are found in the file.
fn qwen(keys: &Keys) -> Result<ModelSpec> {
    decoder(keys, Halves, Rms, Silu)
}

/// Phi 3 and 4: fused matrices, found in the file. Its window key is not used.
fn phi3(keys: &Keys) -> Result<ModelSpec> {
    Ok(qwen(keys)?.with_heads(|_, heads| heads.window = None))
}

/// Phi 3.5 MoE. A file that says how far its router looks is computed as PyTorch does; others, which llama.cpp's converter
/// wrote, as llama.cpp does: norms without a mean, and a softmax over all experts.
fn phimoe(keys: &Keys) -> Result<ModelSpec> {
    match keys.opt_f32("router_jitter_noise")? {
        Some(noise) => decoder(keys, Halves, Layer, Silu)?.routed(
            keys,
            By::Family(SparseMixer { within: 2.0 * noise }),
            By::Family(false),
        ),
        None => phi3(keys),
    }
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
    Ok(spec.with_heads(|_, heads| {
        if all == largest {
            heads.scale = 1.0 / (width / heads.n_heads as f32).sqrt();
        }
    }))
}

fn gemma2(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = gemma_scores(gemma(keys)?.post_norms("post_attention_norm", "post_ffw_norm"), 46)?;
    spec.head.cap = Some(keys.factor("final_logit_softcapping")?.unwrap_or(30.0));
    let cap = keys.factor("attn_logit_softcapping")?.unwrap_or(50.0);
    Ok(spec.windows(keys, 2, Some(4096), WindowRope::Same)?.with_heads(|_, heads| heads.cap = Some(cap)))
}

fn gemma3(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = gemma_scores(gemma(keys)?.post_norms("post_attention_norm", "post_ffw_norm"), 62)?;
    spec.head.cap = keys.factor("final_logit_softcapping")?;
    spec.windows(keys, 6, None, WindowRope::Base(10_000.0))
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
        _ => Ok(spec.with_heads(|_, heads| heads.window = None)),
    }
}

/// Files with three position axes rotate in halves.
fn glm4(keys: &Keys) -> Result<ModelSpec> {
    let spec = if keys.has_axes()? { qwen(keys)? } else { llama(keys)? };
    Ok(spec.post_norms("post_attention_norm", "post_ffw_norm"))
}

/// One norm, or in the 40B one for each part.
fn falcon(keys: &Keys) -> Result<ModelSpec> {
    Ok(decoder(keys, Halves, Layer, GeluErf)?.parallel().each_layer(|i, layer| {
        layer.ffn_norms.before = Normed::By("attn_norm");
        if keys.has(i, "attn_norm_2.weight") {
            layer.attn_norms.before = Normed::By("attn_norm_2");
        }
    }))
}

fn gptneox(keys: &Keys) -> Result<ModelSpec> {
    let spec = decoder(keys, Halves, Layer, GeluErf)?;
    let parallel = keys.opt_bool("use_parallel_residual")? != Some(false);
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

/// No gate: squared ReLU.
fn nemotron(keys: &Keys) -> Result<ModelSpec> {
    decoder(keys, Halves, Layer, ReluSquared)
}

/// Experts whose weights are not divided by their sum.
fn qwen2moe(keys: &Keys) -> Result<ModelSpec> {
    qwen(keys)?.routed(keys, By::Family(Softmax), By::Family(false))
}

/// Clamped heads; the norm in front of the experts has another name.
fn dbrx(keys: &Keys) -> Result<ModelSpec> {
    let clamp = keys.factor("attention.clamp_kqv")?;
    let spec = decoder(keys, Halves, Layer, Silu)?;
    let spec = spec.ffn_norm("attn_output_norm");
    Ok(spec.with_heads(|_, heads| heads.clamp = clamp))
}

fn deepseek(keys: &Keys) -> Result<ModelSpec> {
    let spec = llama(keys)?.routed(keys, By::Family(Softmax), By::Family(false))?;
    Ok(spec.weighted(keys.factor("expert_weights_scale")?.unwrap_or(1.0)))
}

/// Latent attention, found in the file.
fn deepseek2(keys: &Keys) -> Result<ModelSpec> {
    llama(keys)?.routed(keys, By::Key(Softmax), By::Key(false))
}

fn dots1(keys: &Keys) -> Result<ModelSpec> {
    qwen(keys)?.routed(keys, By::Key(Softmax), By::Key(false))
}

/// Norms on heads behind the rotation.
fn hunyuan(keys: &Keys) -> Result<ModelSpec> {
    norms_after_rope(qwen(keys)?)
}

fn norms_after_rope(spec: ModelSpec) -> Result<ModelSpec> {
    Ok(spec.with_heads(|_, heads| heads.qk_norm_after_rope = true))
}

/// Sigmoid scores unless the file says otherwise.
fn glm_routed(keys: &Keys) -> Result<ModelSpec> {
    qwen(keys)?.routed(keys, By::Key(Sigmoid), By::Key(false))
}

/// Layers without a window do not turn.
fn exaone_moe(keys: &Keys) -> Result<ModelSpec> {
    let spec = qwen(keys)?.routed(keys, By::Key(Softmax), By::Key(false))?;
    spec.windows(keys, 4, Some(128), WindowRope::Only)
}

/// A gate whose other half has 1 added, both clamped.
const CLAMPED: Gated = Gated { act: GeluQuick, limit: 7.0, limits_result: false, up_offset: 1.0 };

/// Sinks, found in the file; a clamped gate; the softmax is over the chosen experts.
fn gpt_oss(keys: &Keys) -> Result<ModelSpec> {
    let keys = &Keys { yarn_rounds: false, ..*keys };
    let spec = qwen(keys)?.routed(keys, By::Family(SoftmaxOfPicked), By::Family(false))?.gated(CLAMPED);
    let spec = spec.ffn_norm("post_attention_norm");
    spec.windows(keys, 2, None, WindowRope::Same)
}

/// Positions by a table, which is found in the file.
fn gpt2(keys: &Keys) -> Result<ModelSpec> {
    unturned(decoder(keys, Halves, Layer, GeluTanh)?, None)
}

/// No rotation; biases by distance if this or the file says so.
fn unturned(spec: ModelSpec, alibi: Option<f32>) -> Result<ModelSpec> {
    Ok(spec.with_heads(|_, heads| (heads.rope, heads.alibi) = (None, alibi.or(heads.alibi))))
}

fn bloom(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = unturned(decoder(keys, Halves, Layer, GeluTanh)?, Some(8.0))?;
    spec.embedding.norm = Normed::By("token_embd_norm");
    Ok(spec)
}

/// Scores are divided by the width of a head.
fn jais(keys: &Keys) -> Result<ModelSpec> {
    Ok(unturned(decoder(keys, Halves, Layer, Silu)?, None)?
        .with_heads(|_, heads| heads.scale = 1.0 / heads.head_dim as f32))
}

/// Has no experts, although some files of this name claim so.
fn refact(keys: &Keys) -> Result<ModelSpec> {
    if keys.has(0, "ffn_gate_inp.weight") {
        return Err(Error::unsupported("refact models with a mixture of experts are not supported: none is known"));
    }
    unturned(llama(keys)?, Some(8.0))
}

/// Positions go by the number of layers: the 7B rotates, the 13B has biases by distance.
fn baichuan(keys: &Keys) -> Result<ModelSpec> {
    let spec = llama(keys)?;
    match spec.layers.len() {
        32 => Ok(spec),
        n => unturned(spec, (n == 40).then_some(8.0)),
    }
}

/// Norms on whole queries and keys and clamped heads, if the file has them.
fn mpt(keys: &Keys) -> Result<ModelSpec> {
    let clamp = keys.factor("attention.clamp_kqv")?;
    Ok(unturned(decoder(keys, Halves, Layer, GeluErf)?, None)?.with_heads(|_, heads| heads.clamp = clamp))
}

/// Gated delta nets and, every few layers, attention with a gate beside its queries.
fn qwen3next(keys: &Keys) -> Result<ModelSpec> {
    Ok(qwen(keys)?.ffn_norm("post_attention_norm"))
}

/// The same with value heads in the order of a tiled key.
fn qwen35(keys: &Keys) -> Result<ModelSpec> {
    let tiled = keys.file.meta().opt_bool(GROUPED)? != Some(true);
    Ok(qwen3next(keys)?.each_mixer(|_, mixer| {
        if let Mixer::DeltaNet(ssm) = mixer {
            ssm.tiled = tiled;
        }
    }))
}

/// Gated convolutions or attention. The norm in front of the head has the name of another.
fn lfm2(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = qwen(keys)?.routed(keys, By::Key(Sigmoid), By::Family(true))?;
    spec.output_norm = Normed::By("token_embd_norm");
    Ok(spec)
}

/// Mamba 2 and attention side by side.
fn falcon_h1(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = qwen(keys)?;
    // GGUF files have these multiplied into the matrices.
    spec.embedding.scale = keys.factor("embedding_scale")?.unwrap_or(1.0);
    spec.head.scale = keys.factor("logit_scale")?.unwrap_or(1.0);
    Ok(spec)
}

/// A layer is one part: Mamba 2, attention without rotation, or squared ReLU.
fn nemotron_h(keys: &Keys) -> Result<ModelSpec> {
    let spec = decoder(keys, Halves, Rms, ReluSquared)?.routed(keys, By::Key(Sigmoid), By::Key(false))?;
    unturned(one_norm(spec), None)
}

#[cfg(test)]
mod tests {
    use super::{FAMILIES, known};

    /// Folders of a family are read by its row in `folder/rows.rs`, and then it is in the test of folders; or it is in the
    /// list of those without, there.
    #[test]
    fn every_family_has_a_row_for_folders_or_says_that_it_has_none() {
        for (name, _) in FAMILIES {
            assert!(crate::folder::is_decided(name), "{name}: give it a row in folder/rows.rs, or add it to WITHOUT");
        }
    }

    /// A family that was added needs nothing any more.
    #[test]
    fn no_architecture_is_both_supported_and_not() {
        for (name, _) in FAMILIES {
            assert!(known::needs(name).is_none(), "{name} is supported: take it from the list of those that are not");
        }
    }
}
