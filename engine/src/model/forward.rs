//! The one transformer: records any spec.

use super::spec::{self, Attn, Ffn, Layer, ModelSpec, NormStyle, Normed, Wiring};
use super::weights::Weights;
use crate::error::Result;
use crate::file::ModelFile;
use crate::plan::{Attend, Gated, Heads, KvShape, Norm, Plan, Product, Recorder, Rows, Slot};

/// Records a model's plan.
///
/// # Errors
/// A tensor that is missing or of the wrong shape is named.
pub(super) fn record(spec: &ModelSpec, file: &ModelFile) -> Result<Plan> {
    let mut rec = Recorder::new();
    let weights = Weights { file };
    rec.scope("embed");
    let table = weights.table(&mut rec, "token_embd.weight", spec.width)?;
    let embedded = rec.embed(table)?;
    let mut model = Part { spec, weights: &weights, rec: &mut rec, prefix: String::new() };
    let x = model.embedding(embedded)?;
    for (i, layer) in spec.layers.iter().enumerate() {
        let mut part = Part { spec, weights: &weights, rec: &mut rec, prefix: format!("blk.{i}.") };
        part.layer(layer, x)?;
    }
    rec.scope("head");
    let n_vocab = file.tensor("token_embd.weight").map_or(0, |t| t.dims().get(1).copied().unwrap_or(0)) as usize;
    let mut model = Part { spec, weights: &weights, rec: &mut rec, prefix: String::new() };
    let norm = model.norm(spec.norm, spec.output_norm, &[spec.width], spec.width)?;
    let head = match weights.has("output.weight") {
        true => model.product("output", &["output"], &[n_vocab], spec.width)?,
        false => {
            Product { bias: weights.bias(&mut rec, "output", &["output.weight".into()], &[n_vocab])?, ..table.into() }
        }
    };
    // The mean of normed rows, for embeddings: the steps that want none pass it over.
    rec.only_with(Rows::Pools, |rec| {
        let normed = match norm {
            Some(norm) => rec.norm(rec.all(x), norm)?,
            None => x,
        };
        rec.pool(normed)
    })?;
    let taken = rec.take_rows(x)?;
    let logits = rec.linear(taken, Product { norm, ..head })?;
    if spec.head.scale != 1.0 {
        rec.scale(logits, spec.head.scale, None)?;
    }
    spec.head.cap.map_or(Ok(()), |cap| rec.softcap(logits, cap))?;
    Ok(rec.finish(logits))
}

struct Part<'a> {
    spec: &'a ModelSpec,
    weights: &'a Weights<'a>,
    rec: &'a mut Recorder,
    /// Of the names of tensors: a layer's, or none.
    prefix: String,
}

/// What a part of a layer leaves to be added to the stream: a product that is not recorded yet.
struct Branch {
    input: Slot,
    product: Product,
    norm: Option<Norm>,
}

impl Part<'_> {
    fn name(&self, tensor: &str) -> String {
        format!("{}{tensor}", self.prefix)
    }

    fn has(&self, tensor: &str) -> bool {
        self.weights.has(&self.name(tensor))
    }

    /// The embedded rows as the layers take them.
    fn embedding(&mut self, x: Slot) -> Result<Slot> {
        let spec = self.spec;
        if spec.embedding.scale != 1.0 {
            self.rec.scale(x, spec.embedding.scale, None)?;
        }
        match self.norm(spec.norm, spec.embedding.norm, &[spec.width], spec.width)? {
            Some(norm) => self.rec.norm(self.rec.all(x), norm),
            None => Ok(x),
        }
    }

    fn layer(&mut self, layer: &Layer, x: Slot) -> Result<()> {
        self.rec.scope(self.name("attn"));
        let Attn::Heads(heads) = &layer.attn;
        let attn = self.heads(heads, layer, x)?;
        match layer.wiring {
            Wiring::Serial => {
                self.add(attn, x, layer.residual)?;
                self.rec.scope(self.name("ffn"));
                let ffn = self.ffn(&layer.ffn, layer, x)?;
                self.add(ffn, x, layer.residual)
            }
            // The feed-forward part has read the stream before attention is added to it.
            Wiring::Parallel => {
                self.rec.scope(self.name("ffn"));
                let ffn = self.ffn(&layer.ffn, layer, x)?;
                self.add(attn, x, layer.residual)?;
                self.add(ffn, x, layer.residual)
            }
        }
    }

    /// `x += factor * norm(product)`.
    fn add(&mut self, branch: Branch, x: Slot, factor: f32) -> Result<()> {
        let Branch { input, product, norm } = branch;
        let Some(norm) = norm else { return self.rec.linear_add(input, product, x, factor) };
        let y = self.rec.linear(input, product)?;
        let normed = self.rec.norm(self.rec.all(y), norm)?;
        self.rec.add(x, normed, factor)
    }

    /// A norm of runs of `group` columns, whose weights have one of these lengths.
    fn norm(&mut self, style: NormStyle, normed: Normed, lengths: &[usize], group: usize) -> Result<Option<Norm>> {
        let NormStyle { kind, eps } = style;
        let (weight, bias) = match normed {
            Normed::No => return Ok(None),
            Normed::Bare => (None, None),
            Normed::By(tensor) => self.weights.norm(self.rec, &self.name(tensor), lengths)?,
        };
        Ok(Some(Norm { kind, eps, group, weight, bias }))
    }

    /// The product of one matrix of several tensors (their names without `.weight`), with their biases.
    fn product(&mut self, name: &str, tensors: &[&str], rows: &[usize], cols: usize) -> Result<Product> {
        let names: Vec<String> = tensors.iter().map(|t| format!("{}.weight", self.name(t))).collect();
        let weight = self.weights.matrix(self.rec, &self.name(name), &names, rows, cols)?;
        let bias = self.weights.bias(self.rec, &self.name(name), &names, rows)?;
        Ok(Product { bias, ..Product::from(weight) })
    }

    fn heads(&mut self, h: &spec::Heads, layer: &Layer, x: Slot) -> Result<Branch> {
        let width = self.spec.width;
        let (q, k, v) = (h.n_heads * h.head_dim, h.n_kv_heads * h.head_dim, h.n_kv_heads * h.v_dim);
        let norm = self.norm(self.spec.norm, layer.attn_norms.before, &[width], width)?;
        let product = match self.has("attn_qkv.weight") {
            true => self.product("attn_qkv", &["attn_qkv"], &[q + k + v], width)?,
            false => self.product("attn_qkv", &["attn_q", "attn_k", "attn_v"], &[q, k, v], width)?,
        };
        let q_norm = self.head_norm(h, "attn_q_norm", q)?;
        let k_norm = self.head_norm(h, "attn_k_norm", k)?;
        let cache = self.rec.kv_layer(KvShape { n_kv_heads: h.n_kv_heads, k_dim: h.head_dim, v_dim: h.v_dim });
        let rope = h.rope.as_ref().map(|table| self.rec.rope_table(table.clone()));
        let (n_heads, clamp) = (h.n_heads, h.clamp);
        let heads = Heads { layer: cache, n_heads, clamp, q_norm, k_norm, v_norm: None, rope };
        let q = self.rec.linear_heads(x, Product { norm, ..product }, heads)?;
        let attend = Attend { layer: cache, n_heads, scale: h.scale, cap: h.cap, window: h.window };
        let seen = self.rec.attend(q, attend)?;
        let cols = h.n_heads * h.v_dim;
        let product = self.product("attn_output", &["attn_output"], &[width], cols)?;
        let after = self.norm(self.spec.norm, layer.attn_norms.after, &[width], width)?;
        Ok(Branch { input: seen, product, norm: after })
    }

    /// A norm on queries or keys of `cols` columns, if the file has one: by heads with common weights or weights of their
    /// own, or, if the weights are as long as all heads of a file whose weights are a vector, over the whole row.
    fn head_norm(&mut self, h: &spec::Heads, tensor: &'static str, cols: usize) -> Result<Option<Norm>> {
        let weight = format!("{}.weight", self.name(tensor));
        let Some(dims) = self.weights.dims(&weight) else { return Ok(None) };
        let whole = dims.len() == 1 && cols != h.head_dim && dims[0] == cols as u64;
        let group = if whole { cols } else { h.head_dim };
        self.norm(h.qk_norm, Normed::By(tensor), &[h.head_dim, cols], group)
    }

    fn ffn(&mut self, ffn: &Ffn, layer: &Layer, x: Slot) -> Result<Branch> {
        let width = self.spec.width;
        let Ffn::Dense { hidden, act } = *ffn;
        let norm = self.norm(self.spec.norm, layer.ffn_norms.before, &[width], width)?;
        let up = self.weights.dims(&self.name("ffn_up.weight"));
        let fused = up.is_some_and(|dims| dims.get(1) == Some(&(2 * hidden as u64)));
        let input = if self.has("ffn_gate.weight") || fused {
            let product = match fused {
                true => self.product("ffn_gate_up", &["ffn_up"], &[2 * hidden], width)?,
                false => self.product("ffn_gate_up", &["ffn_gate", "ffn_up"], &[hidden, hidden], width)?,
            };
            self.rec.linear_glu(x, Product { norm, ..product }, Gated::plain(act))?
        } else {
            let product = self.product("ffn_up", &["ffn_up"], &[hidden], width)?;
            self.rec.linear_act(x, Product { norm, ..product }, act)?
        };
        let product = self.product("ffn_down", &["ffn_down"], &[width], hidden)?;
        let after = self.norm(self.spec.norm, layer.ffn_norms.after, &[width], width)?;
        Ok(Branch { input, product, norm: after })
    }
}
