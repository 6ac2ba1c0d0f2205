//! The one transformer: records any spec.

use super::spec::{Attn, Ffn, Heads, Layer, ModelSpec};
use super::weights::Weights;
use crate::error::Result;
use crate::file::ModelFile;
use crate::plan::{Act, KvShape, NormKind, Plan, Recorder, Rows, Slot};

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
    let n_vocab = file.tensor("token_embd.weight").map_or(0, |t| t.n_elements() as usize / spec.width);
    let norm = weights.vector(&mut rec, "output_norm.weight", spec.width)?;
    let head = match weights.has("output.weight") {
        true => weights.matrix(&mut rec, "output", &["output.weight".into()], &[n_vocab], spec.width)?,
        false => table,
    };
    let bias = weights.bias(&mut rec, "output", &["output.weight".into()], &[n_vocab])?;
    // The mean of normed rows, for embeddings: the steps that want none pass it over.
    rec.only_with(Rows::Pools, |rec| {
        let normed = rec.norm(rec.all(x), norm, NormKind::Rms, spec.norm_eps, spec.width)?;
        rec.pool(normed)
    })?;
    let taken = rec.take_rows(x)?;
    let logits = rec.fuse(|rec| {
        let normed = rec.norm(rec.all(taken), norm, NormKind::Rms, spec.norm_eps, spec.width)?;
        rec.linear(normed, head, bias)
    })?;
    Ok(rec.finish(logits))
}

struct Part<'a> {
    spec: &'a ModelSpec,
    weights: &'a Weights<'a>,
    rec: &'a mut Recorder,
    prefix: String,
}

/// The tensors of a norm and the matrix behind it, without the layer's prefix.
struct NormLinear<'a> {
    norm: &'a str,
    name: &'a str,
    tensors: &'a [&'a str],
}

impl Part<'_> {
    fn name(&self, tensor: &str) -> String {
        format!("{}.{tensor}", self.prefix)
    }

    /// Whether the file holds this tensor of the layer.
    fn has(&self, tensor: &str) -> bool {
        self.weights.has(&self.name(tensor))
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

    /// Norm of the stream and one matrix of several tensors on it, gated where asked, as one group.
    fn norm_linear(&mut self, x: Slot, names: NormLinear, rows: &[usize], glu: Option<Act>) -> Result<Slot> {
        let NormLinear { norm, name, tensors } = names;
        let width = self.spec.width;
        let names: Vec<String> = tensors.iter().map(|t| self.name(t)).collect();
        let norm = self.weights.vector(self.rec, &self.name(norm), width)?;
        let matrix = self.weights.matrix(self.rec, &self.name(name), &names, rows, width)?;
        let bias = self.weights.bias(self.rec, &self.name(name), &names, rows)?;
        let eps = self.spec.norm_eps;
        self.rec.fuse(|rec| {
            let normed = rec.norm(rec.all(x), norm, NormKind::Rms, eps, width)?;
            let y = rec.linear(normed, matrix, bias)?;
            glu.map_or(Ok(y), |act| rec.glu(y, act))
        })
    }

    /// A matrix and the addition of its result to the stream, as one group.
    fn linear_add(&mut self, x: Slot, input: Slot, cols: usize, tensor: &str) -> Result<()> {
        let names = [self.name(tensor)];
        let name = self.name(tensor.trim_end_matches(".weight"));
        let matrix = self.weights.matrix(self.rec, &name, &names, &[self.spec.width], cols)?;
        let bias = self.weights.bias(self.rec, &name, &names, &[self.spec.width])?;
        self.rec.fuse(|rec| {
            let y = rec.linear(input, matrix, bias)?;
            rec.add(x, y)
        })
    }

    fn heads(&mut self, h: &Heads, x: Slot) -> Result<()> {
        let (q_cols, k_cols, v_cols) = (h.n_heads * h.head_dim, h.n_kv_heads * h.head_dim, h.n_kv_heads * h.v_dim);
        let (tensors, rows): (&[&str], &[usize]) = match self.has("attn_qkv.weight") {
            true => (&["attn_qkv.weight"], &[q_cols + k_cols + v_cols]),
            false => (&["attn_q.weight", "attn_k.weight", "attn_v.weight"], &[q_cols, k_cols, v_cols]),
        };
        let names = NormLinear { norm: "attn_norm.weight", name: "attn_qkv", tensors };
        let qkv = self.norm_linear(x, names, rows, None)?;
        let norms = match h.qk_norm {
            true => Some((
                self.weights.vector(self.rec, &self.name("attn_q_norm.weight"), h.head_dim)?,
                self.weights.vector(self.rec, &self.name("attn_k_norm.weight"), h.head_dim)?,
            )),
            false => None,
        };
        let layer = self.rec.kv_layer(KvShape { n_kv_heads: h.n_kv_heads, k_dim: h.head_dim, v_dim: h.v_dim });
        let rope = h.rope.as_ref().map(|table| self.rec.rope_table(table.clone()));
        let eps = self.spec.norm_eps;
        let q = self.rec.fuse(|rec| {
            let mut q = rec.view(qkv, 0, q_cols)?;
            let mut k = rec.view(qkv, q_cols, k_cols)?;
            let v = rec.view(qkv, q_cols + k_cols, v_cols)?;
            if let Some((q_norm, k_norm)) = norms {
                let q_normed = rec.norm(q, q_norm, NormKind::Rms, eps, h.head_dim)?;
                let k_normed = rec.norm(k, k_norm, NormKind::Rms, eps, h.head_dim)?;
                (q, k) = (rec.all(q_normed), rec.all(k_normed));
            }
            if let Some(rope) = rope {
                rec.rope(q, h.head_dim, rope)?;
                rec.rope(k, h.head_dim, rope)?;
            }
            rec.kv_write(k, v, layer)?;
            Ok(q)
        })?;
        let seen = self.rec.attend(q, layer, h.n_heads, h.scale, h.window)?;
        self.linear_add(x, seen, h.n_heads * h.v_dim, "attn_output.weight")
    }

    fn dense(&mut self, hidden: usize, act: Act, x: Slot) -> Result<()> {
        let (tensors, rows): (&[&str], &[usize]) = match self.has("ffn_gate.weight") {
            true => (&["ffn_gate.weight", "ffn_up.weight"], &[hidden, hidden]),
            // Gate rows first, then up.
            false => (&["ffn_up.weight"], &[2 * hidden]),
        };
        // Some files name the norm by its place behind attention.
        let behind = !self.has("ffn_norm.weight") && self.has("post_attention_norm.weight");
        let norm = if behind { "post_attention_norm.weight" } else { "ffn_norm.weight" };
        let names = NormLinear { norm, name: "ffn_gate_up", tensors };
        let gated = self.norm_linear(x, names, rows, Some(act))?;
        self.linear_add(x, gated, hidden, "ffn_down.weight")
    }
}
