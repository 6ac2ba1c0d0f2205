//! A decoder's spec from the keys and tensors that all decoder-only GGUF files share. What a family adds is in `families`.

use super::common::{Keys, MAX_COLS, MAX_HEAD_DIM, MAX_LAYERS, rope_table};
use super::spec::{Attn, Embedding, Ffn, Head, Heads, Layer, ModelSpec, NormStyle, Normed, Norms, Pooling, Wiring};
use crate::error::{Error, Result};
use crate::plan::{Act, NormKind, RopeStyle};

/// A decoder of plain layers: norms in front, grouped heads, a feed-forward part, one after the other.
pub(super) fn decoder(keys: &Keys, style: RopeStyle, kind: NormKind, act: Act) -> Result<ModelSpec> {
    let n_layers = keys.count("block_count", MAX_LAYERS)?;
    let n_tensors = keys.file.tensors().len();
    if n_layers > n_tensors {
        return Err(Error::format(format!("the file claims {n_layers} layers, but holds {n_tensors} tensors")));
    }
    keys.expect_causal()?;
    let (width, norm) = (keys.count("embedding_length", MAX_COLS)?, keys.norm(kind)?);
    let layer = |i: usize| {
        let attn = Attn::Heads(heads(keys, style, i, width, norm)?);
        let ffn = Ffn::Dense { hidden: keys.per_layer("feed_forward_length", i, None)?, act };
        let norms = |name| Norms { before: Normed::By(name), after: Normed::No };
        let (attn_norms, ffn_norms) = (norms("attn_norm"), norms("ffn_norm"));
        Ok(Layer { attn, attn_norms, ffn, ffn_norms, wiring: Wiring::Serial, residual: 1.0 })
    };
    Ok(ModelSpec {
        family: keys.arch.to_owned(),
        width,
        n_context: keys.count("context_length", u32::MAX >> 1)?,
        norm,
        embedding: Embedding { scale: 1.0, norm: Normed::No },
        layers: (0..n_layers).map(layer).collect::<Result<_>>()?,
        output_norm: Normed::By("output_norm"),
        head: Head { scale: 1.0, cap: None },
        pooling: Pooling::from_meta(keys.file.meta())?,
    })
}

fn heads(keys: &Keys, style: RopeStyle, i: usize, width: usize, norm: NormStyle) -> Result<Heads> {
    let n_heads = keys.per_layer("attention.head_count", i, None)?;
    let n_kv_heads = keys.per_layer("attention.head_count_kv", i, Some(n_heads))?;
    if !n_heads.is_multiple_of(n_kv_heads) {
        return Err(Error::shape(format!("layer {i}: {n_heads} query heads do not divide over {n_kv_heads}")));
    }
    let head_dim = keys.per_layer("attention.key_length", i, Some(width / n_heads))?;
    let v_dim = keys.per_layer("attention.value_length", i, Some(width / n_heads))?;
    let wide = |d: usize| d == 0 || d > MAX_HEAD_DIM || d.saturating_mul(n_heads) > MAX_COLS as usize;
    if wide(head_dim) || wide(v_dim) {
        return Err(Error::shape(format!("layer {i}: {n_heads} heads of {head_dim} and {v_dim} are out of range")));
    }
    Ok(Heads {
        n_heads,
        n_kv_heads,
        head_dim,
        v_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        cap: None,
        clamp: None,
        rope: Some(rope_table(keys, style, head_dim, None)?),
        qk_norm: norm,
        window: keys.opt_u32("attention.sliding_window")?.filter(|w| *w > 0),
    })
}

impl ModelSpec {
    /// Changes the heads of every layer.
    pub(super) fn each_heads(mut self, mut change: impl FnMut(usize, &mut Heads) -> Result<()>) -> Result<ModelSpec> {
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let Attn::Heads(heads) = &mut layer.attn;
            change(i, heads)?;
        }
        Ok(self)
    }

    /// Changes every layer.
    pub(super) fn each_layer(mut self, mut change: impl FnMut(usize, &mut Layer)) -> ModelSpec {
        self.layers.iter_mut().enumerate().for_each(|(i, layer)| change(i, layer));
        self
    }

    /// A parallel residual: both parts read the same stream.
    pub(super) fn parallel(self) -> ModelSpec {
        self.each_layer(|_, layer| layer.wiring = Wiring::Parallel)
    }

    /// Norms behind both parts, by these tensors.
    pub(super) fn post_norms(self, attn: &'static str, ffn: &'static str) -> ModelSpec {
        self.each_layer(|_, layer| {
            (layer.attn_norms.after, layer.ffn_norms.after) = (Normed::By(attn), Normed::By(ffn));
        })
    }

    /// Every `period`-th layer sees everything and the others a window of the file's size, or of `absent` if the file has
    /// none. Layers with a window turn by a rotation of their own: with `base`, not scaled.
    pub(super) fn windows(
        self,
        keys: &Keys,
        period: usize,
        absent: Option<u32>,
        rope: WindowRope,
    ) -> Result<ModelSpec> {
        let marks = keys.windowed(self.layers.len(), period, false)?;
        let size = keys.opt_u32("attention.sliding_window")?.or(absent).filter(|n| *n > 0);
        self.each_heads(|i, heads| {
            heads.window = size.filter(|_| marks[i]);
            let Some(table) = &heads.rope else { return Ok(()) };
            heads.rope = match (rope, marks[i] && size.is_some()) {
                (WindowRope::Base(absent), true) => {
                    let base = keys.factor("rope.freq_base_swa")?.unwrap_or(absent);
                    Some(rope_table(keys, table.style, heads.head_dim, Some(base))?)
                }
                (WindowRope::Only, false) if size.is_some() => None,
                _ => heads.rope.take(),
            };
            Ok(())
        })
    }
}

/// How the rotation of layers with a window differs from that of the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum WindowRope {
    /// It does not.
    Same,
    /// The layers with a window turn by this base if the file names none, without scaling.
    Base(f32),
    /// Only layers with a window turn.
    Only,
}
