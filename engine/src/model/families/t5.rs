//! T5: an encoder, and a decoder that attends to what it has read.

use crate::error::{Error, Result};
use crate::model::common::Keys;
use crate::model::decoder::decoder;
use crate::model::spec::{Encoder, Heads, Mixer, ModelSpec, Normed, Norms, RelativeTable};
use crate::plan::Act::{GeluTanh, Relu};
use crate::plan::AttentionMask;
use crate::plan::NormKind::Rms;
use crate::plan::RopeStyle::Halves;

/// The distance from which on all are alike: no file says another.
const FAR: usize = 128;

/// The logits of a model whose head is its token table are divided by the root of its width.
pub(super) fn t5(keys: &Keys) -> Result<ModelSpec> {
    let own = keys.opt_u32("decoder_block_count")?.is_some();
    let blocks = if own { "decoder_block_count" } else { keys.blocks };
    let decoder = Keys { prefix: "dec.blk.", blocks, ..*keys };
    let mut spec = side(&decoder, "dec.blk.0.attn_rel_b.weight", AttentionMask::Causal)?.each_layer(|_, layer| {
        if let [Mixer::Heads(own)] = &layer.mixers[..] {
            let cross = Heads {
                stem: "cross_attn",
                out: "cross_attn_o",
                mask: AttentionMask::Cross,
                relative: None,
                ..own.clone()
            };
            layer.cross = Some((cross, Norms { before: Normed::By("cross_attn_norm"), ..Norms::default() }));
        }
    });
    spec.output_norm = Normed::By("dec.output_norm");
    let start = keys.opt_u32("decoder_start_token_id")?.unwrap_or(0);
    spec.encoder = Some(Encoder { layers: encoder(keys)?.layers, norm: Normed::By("enc.output_norm"), start });
    if keys.file.tensor("output.weight").is_none() {
        spec.head.scale = 1.0 / (spec.width as f32).sqrt();
    }
    Ok(spec)
}

/// The encoder alone.
pub(super) fn t5encoder(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = encoder(keys)?;
    spec.output_norm = Normed::By("enc.output_norm");
    spec.both_ways(keys)
}

fn encoder(keys: &Keys) -> Result<ModelSpec> {
    side(&Keys { prefix: "enc.blk.", ..*keys }, "enc.blk.0.attn_rel_b.weight", AttentionMask::Bidirectional)
}

/// Heads whose scores are not scaled and have summands by distance, those of the first layer in all that have none.
fn side(keys: &Keys, shared: &'static str, mask: AttentionMask) -> Result<ModelSpec> {
    let act = if keys.has(0, "ffn_gate.weight") { GeluTanh } else { Relu };
    let buckets = keys.opt_u32("attention.relative_buckets_count")?.filter(|n| *n >= 4).map_or(32, |n| n as usize);
    if buckets > FAR {
        return Err(Error::unsupported(format!("{buckets} buckets of distances are more than the {FAR} known")));
    }
    let relative = Some(RelativeTable { shared, buckets, far: FAR });
    Ok(decoder(keys, Halves, Rms, act)?.with_heads(|_, heads| {
        (heads.scale, heads.rope, heads.out) = (1.0, None, "attn_o");
        (heads.relative, heads.mask) = (relative, mask);
    }))
}
