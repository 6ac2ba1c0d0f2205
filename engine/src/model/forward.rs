//! The one transformer: records any spec.

use super::spec::{self, Attn, Ffn, Layer, ModelSpec};
use super::weights::Weights;
use crate::error::Result;
use crate::file::ModelFile;
use crate::plan::{Act, Attend, Gated, Heads, KvShape, Norm, NormKind, Plan, Product, Recorder, Rows, Slot, WeightId};

/// Records a model's plan.
///
/// # Errors
/// A tensor that is missing or of the wrong shape is named.
pub(super) fn record(spec: &ModelSpec, file: &ModelFile) -> Result<Plan> {
    let mut rec = Recorder::new();
    let weights = Weights { file };
    rec.scope("embed");
    let table = weights.table(&mut rec, "token_embd.weight", spec.width)?;
    let x = rec.embed(table)?;
    for (i, layer) in spec.layers.iter().enumerate() {
        let mut part = Part { spec, weights: &weights, rec: &mut rec, prefix: format!("blk.{i}") };
        part.layer(layer, x)?;
    }
    rec.scope("head");
    let n_vocab = file.tensor("token_embd.weight").map_or(0, |t| t.dims().get(1).copied().unwrap_or(0)) as usize;
    let weight = weights.vector(&mut rec, "output_norm.weight", spec.width)?;
    let norm = rms(spec, weight, spec.width);
    let head = match weights.has("output.weight") {
        true => weights.matrix(&mut rec, "output", &["output.weight".into()], &[n_vocab], spec.width)?,
        false => table,
    };
    let bias = weights.bias(&mut rec, "output", &["output.weight".into()], &[n_vocab])?;
    // The mean of normed rows, for embeddings: the steps that want none pass it over.
    rec.only_with(Rows::Pools, |rec| {
        let normed = rec.norm(rec.all(x), norm)?;
        rec.pool(normed)
    })?;
    let taken = rec.take_rows(x)?;
    let logits = rec.linear(taken, Product { norm: Some(norm), bias, ..Product::from(head) })?;
    Ok(rec.finish(logits))
}

/// The family's norm of runs of `group` columns.
fn rms(spec: &ModelSpec, weight: WeightId, group: usize) -> Norm {
    Norm { kind: NormKind::Rms, eps: spec.norm_eps, group, weight: Some(weight), bias: None }
}

struct Part<'a> {
    spec: &'a ModelSpec,
    weights: &'a Weights<'a>,
    rec: &'a mut Recorder,
    prefix: String,
}

impl Part<'_> {
    fn name(&self, tensor: &str) -> String {
        format!("{}.{tensor}", self.prefix)
    }

    fn layer(&mut self, layer: &Layer, x: Slot) -> Result<()> {
        self.rec.scope(self.name("attn"));
        match &layer.attn {
            Attn::Heads(heads) => self.heads(heads, x)?,
        }
        self.rec.scope(self.name("ffn"));
        match layer.ffn {
            Ffn::Dense { hidden, act } => self.dense(hidden, act, x),
        }
    }

    /// The product of one matrix, of several tensors, with the stream behind the norm.
    fn normed(&mut self, norm: &str, name: &str, tensors: &[&str], rows: &[usize]) -> Result<Product> {
        let weight = self.weights.vector(self.rec, &self.name(norm), self.spec.width)?;
        let norm = Some(rms(self.spec, weight, self.spec.width));
        Ok(Product { norm, ..self.product(name, tensors, rows, self.spec.width)? })
    }

    /// The product of one matrix of several tensors.
    fn product(&mut self, name: &str, tensors: &[&str], rows: &[usize], cols: usize) -> Result<Product> {
        let names: Vec<String> = tensors.iter().map(|t| self.name(t)).collect();
        let weight = self.weights.matrix(self.rec, &self.name(name), &names, rows, cols)?;
        let bias = self.weights.bias(self.rec, &self.name(name), &names, rows)?;
        Ok(Product { bias, ..Product::from(weight) })
    }

    fn head_norm(&mut self, tensor: &str, head_dim: usize) -> Result<Norm> {
        let weight = self.weights.vector(self.rec, &self.name(tensor), head_dim)?;
        Ok(rms(self.spec, weight, head_dim))
    }

    fn heads(&mut self, h: &spec::Heads, x: Slot) -> Result<()> {
        let rows = [h.n_heads * h.head_dim, h.n_kv_heads * h.head_dim, h.n_kv_heads * h.v_dim];
        let tensors = &["attn_q.weight", "attn_k.weight", "attn_v.weight"];
        let product = self.normed("attn_norm.weight", "attn_qkv", tensors, &rows)?;
        let (q_norm, k_norm) = match h.qk_norm {
            true => (
                Some(self.head_norm("attn_q_norm.weight", h.head_dim)?),
                Some(self.head_norm("attn_k_norm.weight", h.head_dim)?),
            ),
            false => (None, None),
        };
        let layer = self.rec.kv_layer(KvShape { n_kv_heads: h.n_kv_heads, k_dim: h.head_dim, v_dim: h.v_dim });
        let rope = Some(self.rec.rope_table(h.rope.clone()));
        let heads = Heads { layer, n_heads: h.n_heads, clamp: None, q_norm, k_norm, v_norm: None, rope };
        let q = self.rec.linear_heads(x, product, heads)?;
        let attend = Attend { layer, n_heads: h.n_heads, scale: h.scale, cap: None, window: h.window };
        let seen = self.rec.attend(q, attend)?;
        let cols = h.n_heads * h.v_dim;
        let product = self.product("attn_output", &["attn_output.weight"], &[self.spec.width], cols)?;
        self.rec.linear_add(seen, product, x, 1.0)
    }

    fn dense(&mut self, hidden: usize, act: Act, x: Slot) -> Result<()> {
        let tensors = &["ffn_gate.weight", "ffn_up.weight"];
        let product = self.normed("ffn_norm.weight", "ffn_gate_up", tensors, &[hidden, hidden])?;
        let gated = self.rec.linear_glu(x, product, Gated::plain(act))?;
        let product = self.product("ffn_down", &["ffn_down.weight"], &[self.spec.width], hidden)?;
        self.rec.linear_add(gated, product, x, 1.0)
    }
}
