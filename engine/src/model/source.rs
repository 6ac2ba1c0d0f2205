//! An encoder in front of a decoder, recorded, and what the decoder's heads take from it.

use super::forward::{Branch, Part};
use super::spec::{self, Encoder, ModelSpec, Norms};
use super::weights::Weights;
use crate::error::Result;
use crate::plan::{Attend, AttentionMask, KvShape, Lookup, Product, Recorder, Relative, Rows, Slot, WeightId};

/// Records an encoder; gives its normed rows.
pub(super) fn read_source(
    spec: &ModelSpec,
    encoder: &Encoder,
    weights: &Weights,
    rec: &mut Recorder,
    table: WeightId,
) -> Result<Slot> {
    let before = rec.set_when(Rows::Sources);
    let mut x = rec.embed(table, Lookup::Token)?;
    let mut part = Part::new(spec, weights, rec);
    for (i, layer) in encoder.layers.iter().enumerate() {
        (part.index, part.prefix) = (i, format!("enc.blk.{}.", layer.block));
        x = part.layer(layer, x)?;
    }
    part.prefix.clear();
    if let Some(norm) = part.norm(spec.norm, encoder.norm, &[spec.width], spec.width)? {
        x = part.rec.norm(part.rec.all(x), norm)?;
    }
    rec.set_when(before);
    Ok(x)
}

impl Part<'_> {
    /// Summands on scores by distance: the layer's own, or those that it shares.
    pub(super) fn relative(&mut self, h: &spec::Heads) -> Result<Option<Relative>> {
        let Some(spec::RelativeTable { shared, buckets, far }) = h.relative else { return Ok(None) };
        let own = self.name("attn_rel_b.weight");
        let name = if self.weights.has(&own) { &own } else { shared };
        let weight = self.weights.vector(self.rec, name, buckets * h.n_heads)?;
        Ok(Some(Relative { weight, buckets, far }))
    }

    /// Attention to the rows `source` of an encoder, whose keys and values are kept while the sequence is generated.
    pub(super) fn cross(&mut self, h: &spec::Heads, norms: Norms, x: Slot, source: Slot) -> Result<Branch> {
        let width = self.spec.width;
        self.rec.scope(self.name(h.stem));
        let (q, k, v) = (h.n_heads * h.head_dim, h.n_kv_heads * h.head_dim, h.n_kv_heads * h.v_dim);
        let part = |part: &str| format!("{}_{part}", h.stem);
        let norm = self.model_norm(norms.before, width)?;
        let layer =
            self.rec.kv_layer(KvShape { n_kv_heads: h.n_kv_heads, k_dim: h.head_dim, v_dim: h.v_dim, v_in_k: false });
        let kept = self.product(&part("kv"), &[&part("k"), &part("v")], &[k, v], width)?;
        let before = self.rec.set_when(Rows::Sources);
        let rows = self.rec.linear(source, kept)?;
        let (keys, values) = (self.rec.view(rows, 0, k)?, self.rec.view(rows, k, v)?);
        self.rec.kv_write(keys, None, Some(values), layer)?;
        self.rec.set_when(before);
        let product = self.product(&part("q"), &[&part("q")], &[q], width)?;
        let queries = self.rec.linear(x, Product { norm, ..product })?;
        let attend = Attend { mask: AttentionMask::Cross, ..Attend::plain(layer, h.n_heads, h.scale) };
        let seen = self.rec.attend(self.rec.all(queries), attend)?;
        let product = self.product(h.out, &[h.out], &[width], h.n_heads * h.v_dim)?;
        let norm = self.norm_after(norms)?;
        Ok(Branch::Product { input: seen, product, norm })
    }
}
