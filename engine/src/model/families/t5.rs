//! T5: an encoder, and a decoder that attends to what it has read.

use crate::error::{Error, Result};
use crate::model::common::{Keys, MAX_COLS, MAX_HEAD_DIM, MAX_LAYERS};
use crate::model::spec::{
    Embedding, Encoder, Ffn, Head, Heads, Layer, Makes, Mixer, ModelSpec, Normed, Norms, Pooling, Ranking,
    RelativeTable, Route, Wiring,
};
use crate::plan::Act::{GeluTanh, Relu, Sigmoid, Tanh};
use crate::plan::NormKind::Rms;
use crate::plan::{Gated, Sight};

/// Which of the two.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Encoder,
    Decoder,
}

/// The distance from which on all are alike: no file says another.
const FAR: usize = 128;

/// The logits of a model whose head is its token table are divided by the root of its width.
pub(super) fn t5(keys: &Keys) -> Result<ModelSpec> {
    let mut spec = model(keys, Side::Decoder)?;
    let layers = layers(keys, Side::Encoder)?;
    let start = keys.opt_u32("decoder_start_token_id")?.unwrap_or(0);
    spec.encoder = Some(Encoder { layers, norm: Normed::By("enc.output_norm"), start });
    spec.generates = true;
    if keys.file.tensor("output.weight").is_none() {
        spec.head.scale = 1.0 / (spec.width as f32).sqrt();
    }
    Ok(spec)
}

/// The encoder alone.
pub(super) fn t5encoder(keys: &Keys) -> Result<ModelSpec> {
    model(keys, Side::Encoder)?.both_ways(keys)
}

fn model(keys: &Keys, side: Side) -> Result<ModelSpec> {
    let (layer_prefix, output_norm) = match side {
        Side::Encoder => ("enc.blk.", "enc.output_norm"),
        Side::Decoder => ("dec.blk.", "dec.output_norm"),
    };
    Ok(ModelSpec {
        family: keys.arch.to_owned(),
        width: keys.count("embedding_length", MAX_COLS)?,
        n_context: keys.count("context_length", u32::MAX >> 1)?,
        norm: keys.norm(Rms)?,
        eps_after: None,
        embedding: Embedding::plain(),
        layers: layers(keys, side)?,
        route: Route::Plain,
        layer_prefix,
        encoder: None,
        output_norm: Normed::By(output_norm),
        head: Head { scale: 1.0, cap: None },
        generates: false,
        pooling: Pooling::from_meta(keys.file.meta())?,
        ranking: Ranking { rows: Pooling::Mean, act: Tanh, softmax: false },
        makes: Makes::Text,
    })
}

fn layers(keys: &Keys, side: Side) -> Result<Vec<Layer>> {
    let n_blocks = keys.n_layers()?;
    let n = match side {
        Side::Decoder if keys.opt_u32("decoder_block_count")?.is_some() => {
            keys.count("decoder_block_count", MAX_LAYERS)?
        }
        _ => n_blocks,
    };
    if n > keys.file.tensors().len() {
        return Err(Error::format(format!("the file claims {n} layers, which it does not hold")));
    }
    let (tensor, shared, sight) = match side {
        Side::Encoder => ("enc.blk.0.ffn_gate.weight", "enc.blk.0.attn_rel_b.weight", Sight::Both),
        Side::Decoder => ("dec.blk.0.ffn_gate.weight", "dec.blk.0.attn_rel_b.weight", Sight::Before),
    };
    let act = if keys.file.tensor(tensor).is_some() { GeluTanh } else { Relu };
    let buckets = keys.opt_u32("attention.relative_buckets_count")?.filter(|n| *n >= 4).map_or(32, |n| n as usize);
    if buckets > FAR {
        return Err(Error::unsupported(format!("{buckets} buckets of distances are more than the {FAR} known")));
    }
    let relative = Some(RelativeTable { shared, buckets, far: FAR });
    let norms = |name| Norms { before: Normed::By(name), ..Norms::default() };
    let layer = |i: usize| {
        let own = heads(keys, i)?;
        let cross = Heads { stem: "cross_attn", out: "cross_attn_o", sight: Sight::Source, ..own.clone() };
        Ok(Layer {
            block: i,
            mixers: vec![Mixer::Heads(Heads { relative, sight, ..own })],
            attn_norms: norms("attn_norm"),
            cross: (side == Side::Decoder).then(|| (cross, norms("cross_attn_norm"))),
            ffn: Some(Ffn::Dense { hidden: keys.per_layer("feed_forward_length", i, None)?, gated: Gated::plain(act) }),
            ffn_norms: norms("ffn_norm"),
            beside: None,
            wiring: Wiring::Serial,
            residual: 1.0,
            behind: Normed::No,
        })
    };
    (0..n).map(layer).collect()
}

/// Heads of a size of their own, whose scores are not scaled.
fn heads(keys: &Keys, i: usize) -> Result<Heads> {
    let n_heads = keys.per_layer("attention.head_count", i, None)?;
    let head_dim = keys.count("attention.key_length", MAX_HEAD_DIM as u32)?;
    let v_dim = keys.count("attention.value_length", MAX_HEAD_DIM as u32)?;
    if head_dim.max(v_dim).saturating_mul(n_heads) > MAX_COLS as usize {
        return Err(Error::shape(format!("layer {i}: {n_heads} heads of {head_dim} and {v_dim} are out of range")));
    }
    Ok(Heads {
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        v_dim,
        scale: 1.0,
        cap: None,
        clamp: None,
        rope: None,
        qk_norm: keys.norm(Rms)?,
        qk_norm_after_rope: false,
        qk_norm_bare: false,
        v_norm: false,
        shared: None,
        out_scale: 1.0,
        gate: Sigmoid,
        temperature: None,
        stem: "attn",
        out: "attn_o",
        relative: None,
        alibi: None,
        sight: Sight::Before,
        window: None,
        chunk: None,
    })
}
