//! Encoders: models that read a text both ways and make embeddings or scores.

use super::unturned;
use crate::error::Result;
use crate::model::common::Keys;
use crate::model::decoder::decoder;
use crate::model::spec::{ModelSpec, Normed, Pooling, Ranking, TokenTypes};
use crate::model::words::WindowRope;
use crate::plan::Act::{GeluErf, Silu};
use crate::plan::NormKind::Layer;
use crate::plan::RopeStyle::{Halves, Interleaved};
use crate::plan::{Act, NormKind, RopeStyle};

/// The wiring of BERT: a norm on what is embedded, and norms of the stream behind each part.
pub(super) fn post_normed(keys: &Keys, act: Act) -> Result<ModelSpec> {
    let mut spec = decoder(keys, Halves, Layer, act)?.norms_on_stream("attn_output_norm", "layer_output_norm");
    spec.embedding.norm = Normed::By("token_embd_norm");
    spec.both_ways(keys)
}

/// BERT, RoBERTa and XLM-R, whose tables of positions the file holds without the rows for padding. Rerankers that say so tell
/// the texts of a pair apart by the types of their tokens.
pub(super) fn bert(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = unturned(post_normed(keys, GeluErf)?, None)?;
    if spec.pooling == Pooling::Rank && keys.opt_bool("pairs_have_types")? == Some(true) {
        spec.embedding.types = TokenTypes::OfPair;
    }
    Ok(spec)
}

/// Biases by distance. Some have norms on queries and keys, and a second norm behind attention.
pub(super) fn jina_bert_v2(keys: &Keys) -> Result<ModelSpec> {
    let spec = unturned(post_normed(keys, GeluErf)?, Some(8.0))?;
    Ok(spec.each_layer(|i, layer| {
        if keys.has(i, "attn_norm_2.weight") {
            layer.attn_norms.again = Normed::By("attn_norm_2");
        }
    }))
}

/// Norms in front of the parts, but for the first layer's attention; every third layer sees everything, the first being
/// one of these.
pub(super) fn modern_bert(keys: &Keys) -> Result<ModelSpec> {
    let act = match keys.opt_str("hidden_activation")? {
        Some("silu" | "swish") => Silu,
        _ => GeluErf,
    };
    let mut spec = decoder(keys, Halves, Layer, act)?.both_ways(keys)?.each_layer(|i, layer| {
        if !keys.has(i, "attn_norm.weight") {
            layer.attn_norms.before = Normed::No;
        }
    });
    spec.embedding.norm = Normed::By("token_embd_norm");
    let rows = if keys.opt_u32("classifier.pooling_type")? == Some(2) { Pooling::Cls } else { Pooling::Mean };
    spec.ranking = Ranking { rows, act: GeluErf, softmax: false };
    let marks = keys.windowed(spec.layers.len(), 3, true)?;
    spec.windowed(keys, &marks, None, WindowRope::Base(10_000.0))
}

pub(super) fn neo_bert(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = plain(keys, Interleaved, NormKind::Rms)?;
    spec.output_norm = Normed::By("enc.output_norm");
    Ok(spec)
}

fn plain(keys: &Keys, style: RopeStyle, norm: NormKind) -> Result<ModelSpec> {
    decoder(keys, style, norm, Silu)?.both_ways(keys)
}
