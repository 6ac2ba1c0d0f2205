//! The one transformer: records any spec.

use super::parts;
use super::source::read_source;
use super::spec::{self, Ffn, Layer, Mixer, ModelSpec, NormStyle, Normed, Norms, Wiring};
use super::weights::{Weights, whole};
use crate::error::Result;
use crate::file::ModelFile;
use crate::plan::{Act, Attend, Gated, Heads, KvShape, Lookup, Norm, Plan, Product, Recorder, Slot, WeightId};

/// Records a model's plan.
///
/// # Errors
/// A tensor that is missing or of the wrong shape is named.
pub(super) fn record(spec: &ModelSpec, file: &ModelFile) -> Result<Plan> {
    let mut rec = Recorder::new();
    let weights = Weights::new(file);
    rec.scope("embed");
    let table = weights.table(&mut rec, "token_embd.weight", spec.width)?;
    let source = match &spec.encoder {
        Some(encoder) => Some(read_source(spec, encoder, &weights, &mut rec, table)?),
        None => None,
    };
    rec.scope("embed");
    let embedded = rec.embed(table, Lookup::Token)?;
    let mut model = Part { spec, weights: &weights, rec: &mut rec, prefix: String::new() };
    let x = model.embedding(embedded)?;
    let mut x = x;
    for (i, layer) in spec.layers.iter().enumerate() {
        let prefix = format!("{}{i}.", spec.layer_prefix);
        let mut part = Part { spec, weights: &weights, rec: &mut rec, prefix };
        x = part.layer(layer, x, source)?;
    }
    rec.scope("head");
    let plan = head(spec, file, &weights, rec, x, table)?;
    parts::expect_all_read(file, spec, &plan, &weights.into_read())?;
    Ok(plan)
}

/// Records what follows the layers.
fn head(
    spec: &ModelSpec,
    file: &ModelFile,
    weights: &Weights,
    mut rec: Recorder,
    x: Slot,
    table: WeightId,
) -> Result<Plan> {
    let mut model = Part { spec, weights, rec: &mut rec, prefix: String::new() };
    let norm = model.norm(spec.norm, spec.output_norm, &[spec.width], spec.width)?;
    if !spec.generates {
        let pooled = model.pooled(x, norm)?;
        return Ok(rec.finish(pooled));
    }
    let n_vocab = file.tensor("token_embd.weight").map_or(0, |t| t.n_elements() as usize / spec.width);
    let head = match weights.has("output.weight") {
        true => model.product("output", &["output"], &[n_vocab], spec.width)?,
        false => {
            let (names, rows) = (["output.weight".into()], [n_vocab]);
            let bias = weights.bias(model.rec, "output", &names, &rows)?;
            Product { scale: weights.scale(model.rec, "output", &names, &rows, 1)?, bias, ..table.into() }
        }
    };
    if spec.encoder.is_none() {
        model.pooled(x, norm)?;
    }
    let taken = rec.take_rows(x)?;
    let logits = rec.linear(taken, Product { norm, ..head })?;
    if spec.head.scale != 1.0 {
        rec.scale(logits, spec.head.scale, None)?;
    }
    spec.head.cap.map_or(Ok(()), |cap| rec.softcap(logits, cap))?;
    Ok(rec.finish(logits))
}

/// A part of a model that is being recorded.
pub(super) struct Part<'a> {
    pub(super) spec: &'a ModelSpec,
    pub(super) weights: &'a Weights<'a>,
    pub(super) rec: &'a mut Recorder,
    /// Of the names of tensors: a layer's, or none.
    pub(super) prefix: String,
}

/// What a part of a layer leaves to be added to the stream, behind its norm.
pub(super) enum Branch {
    /// A product that is not recorded yet.
    Product { input: Slot, product: Product, norm: Option<Norm> },
    /// Rows.
    Rows { rows: Slot, norm: Option<Norm> },
}

impl Part<'_> {
    pub(super) fn name(&self, tensor: &str) -> String {
        format!("{}{tensor}", self.prefix)
    }

    pub(super) fn has(&self, tensor: &str) -> bool {
        self.weights.has(&self.name(tensor))
    }

    /// The embedded rows as the layers take them.
    fn embedding(&mut self, x: Slot) -> Result<Slot> {
        let spec = self.spec;
        if spec.embedding.scale != 1.0 {
            self.rec.scale(x, spec.embedding.scale, None)?;
        }
        if spec.embedding.types {
            let first = self.weights.first_row(self.rec, "token_types.weight", spec.width)?;
            self.rec.act(self.rec.all(x), Act::Identity, Some(first), None)?;
        }
        if spec.embedding.positions {
            let table = self.weights.table(self.rec, "position_embd.weight", spec.width)?;
            let positions = self.rec.embed(table, Lookup::Position)?;
            self.rec.add(x, positions, 1.0)?;
        }
        match self.norm(spec.norm, spec.embedding.norm, &[spec.width], spec.width)? {
            Some(norm) => self.rec.norm(self.rec.all(x), norm),
            None => Ok(x),
        }
    }

    /// Records a layer; gives the slot of the stream behind it.
    pub(super) fn layer(&mut self, layer: &Layer, x: Slot, source: Option<Slot>) -> Result<Slot> {
        self.rec.scope(self.name("attn"));
        let mixed = layer.mixers.iter().map(|mixer| self.mix(mixer, layer, x)).collect::<Result<Vec<_>>>()?;
        // In a parallel layer the feed-forward part has read the stream before anything is added to it.
        if layer.wiring == Wiring::Serial {
            let mut x = self.join(mixed, layer.attn_norms, x, layer.residual)?;
            if let (Some((heads, norms)), Some(source)) = (&layer.cross, source) {
                let branch = self.cross(heads, *norms, x, source)?;
                x = self.join(vec![branch], *norms, x, layer.residual)?;
            }
            self.rec.scope(self.name("ffn"));
            let ffn = layer.ffn.as_ref().map(|ffn| self.ffn(ffn, layer, x)).transpose()?;
            return self.join(ffn.into_iter().collect(), layer.ffn_norms, x, layer.residual);
        }
        self.rec.scope(self.name("ffn"));
        let ffn = layer.ffn.as_ref().map(|ffn| self.ffn(ffn, layer, x)).transpose()?;
        mixed.into_iter().chain(ffn).try_for_each(|branch| self.add(branch, x, layer.residual))?;
        Ok(x)
    }

    /// Adds what a part made to the stream `x`, and normalises the stream if there are norms for that; gives its slot.
    fn join(&mut self, branches: Vec<Branch>, norms: Norms, x: Slot, factor: f32) -> Result<Slot> {
        let width = self.spec.width;
        let Some(norm) = self.norm(self.spec.norm, norms.stream, &[width], width)? else {
            branches.into_iter().try_for_each(|branch| self.add(branch, x, factor))?;
            return Ok(x);
        };
        let Some(again) = self.norm(self.spec.norm, norms.again, &[width], width)? else {
            branches.into_iter().try_for_each(|branch| self.add(branch, x, factor))?;
            return self.rec.norm(self.rec.all(x), norm);
        };
        // The input is wanted a second time, so it is added to what the part made and not the other way round.
        let mut sum = None;
        for branch in branches {
            let rows = self.rows(branch)?;
            match sum {
                None => sum = Some(rows),
                Some(sum) => self.rec.add(sum, rows, 1.0)?,
            }
        }
        let Some(sum) = sum else { return Ok(x) };
        self.rec.scale(sum, factor, None)?;
        self.rec.add(sum, x, 1.0)?;
        let once = self.rec.norm(self.rec.all(sum), norm)?;
        self.rec.add(once, x, 1.0)?;
        self.rec.norm(self.rec.all(once), again)
    }

    fn mix(&mut self, mixer: &Mixer, layer: &Layer, x: Slot) -> Result<Branch> {
        match mixer {
            Mixer::Heads(heads) => self.heads(heads, layer, x),
            Mixer::Latent(latent) => self.latent(latent, layer, x),
            Mixer::DeltaNet(ssm) => self.delta_net(ssm, layer, x),
            Mixer::Mamba2(ssm) => self.mamba2(ssm, layer, x),
            Mixer::ShortConv(taps) => self.short_conv(*taps, layer, x),
        }
    }

    /// `x += factor * norm(branch)`.
    fn add(&mut self, branch: Branch, x: Slot, factor: f32) -> Result<()> {
        if let Branch::Product { input, product, norm: None } = branch {
            return self.rec.linear_add(input, product, x, factor);
        }
        let rows = self.rows(branch)?;
        self.rec.add(x, rows, factor)
    }

    /// `norm(branch)`.
    fn rows(&mut self, branch: Branch) -> Result<Slot> {
        let (rows, norm) = match branch {
            Branch::Product { input, product, norm } => (self.rec.linear(input, product)?, norm),
            Branch::Rows { rows, norm } => (rows, norm),
        };
        norm.map_or(Ok(rows), |norm| self.rec.norm(self.rec.all(rows), norm))
    }

    /// A norm of runs of `group` columns, whose weights have one of these lengths.
    pub(super) fn norm(
        &mut self,
        style: NormStyle,
        normed: Normed,
        lengths: &[usize],
        group: usize,
    ) -> Result<Option<Norm>> {
        let NormStyle { kind, eps } = style;
        let (weight, bias) = match normed {
            Normed::No => return Ok(None),
            Normed::Bare => (None, None),
            Normed::By(tensor) => self.weights.norm(self.rec, &self.name(tensor), lengths)?,
        };
        Ok(Some(Norm { kind, eps, group, weight, bias }))
    }

    /// The product of one matrix of several tensors (their names without `.weight`), with their factors and biases.
    pub(super) fn product(&mut self, name: &str, tensors: &[&str], rows: &[usize], cols: usize) -> Result<Product> {
        let names: Vec<String> = tensors.iter().map(|t| format!("{}.weight", self.name(t))).collect();
        let weight = self.weights.matrix(self.rec, &self.name(name), &names, rows, cols)?;
        let scale = self.weights.scale(self.rec, &self.name(name), &names, rows, 1)?;
        let bias = self.weights.bias(self.rec, &self.name(name), &names, rows)?;
        Ok(Product { scale, bias, ..Product::from(weight) })
    }

    fn heads(&mut self, h: &spec::Heads, layer: &Layer, x: Slot) -> Result<Branch> {
        let width = self.spec.width;
        let (q, k, v) = (h.n_heads * h.head_dim, h.n_kv_heads * h.head_dim, h.n_kv_heads * h.v_dim);
        let norm = self.norm(self.spec.norm, layer.attn_norms.before, &[width], width)?;
        let q_rows = self.weights.dims(&self.name("attn_q.weight")).and_then(|dims| dims.get(1).copied());
        let gated = q_rows == Some(2 * q as u64);
        let product = match self.has("attn_qkv.weight") {
            true => self.product("attn_qkv", &["attn_qkv"], &[q + k + v], width)?,
            false if gated => self.beside_gates(h, [q, k, v])?,
            false => self.product("attn_qkv", &["attn_q", "attn_k", "attn_v"], &[q, k, v], width)?,
        };
        let q_norm = self.head_norm(h, "attn_q_norm", q)?;
        let k_norm = self.head_norm(h, "attn_k_norm", k)?;
        let shape = KvShape { n_kv_heads: h.n_kv_heads, k_dim: h.head_dim, v_dim: h.v_dim, v_in_k: false };
        let cache = self.rec.kv_layer(shape);
        let rope = h.rope.as_ref().map(|table| self.rec.rope_table(table.clone()));
        let (n_heads, clamp) = (h.n_heads, h.clamp);
        let heads = Heads {
            layer: cache,
            n_heads,
            clamp,
            q_norm,
            k_norm,
            v_norm: None,
            rope,
            norms_after_rope: h.qk_norm_after_rope,
        };
        let q = self.rec.linear_heads(x, Product { norm, ..product }, heads)?;
        let slopes =
            h.alibi.map(|most| self.weights.constant(self.rec, "slopes", Some(&slopes(n_heads, most)), n_heads));
        let sinks = match self.has("attn_sinks.weight") {
            true => Some(self.weights.vector(self.rec, &self.name("attn_sinks.weight"), n_heads)?),
            false => None,
        };
        let (scale, temperature, relative) = (h.scale, h.temperature, self.relative(h)?);
        let attend = Attend {
            layer: cache,
            n_heads,
            scale,
            cap: h.cap,
            sight: h.sight,
            window: h.window,
            temperature,
            slopes,
            relative,
            sinks,
        };
        let seen = self.rec.attend(q, attend)?;
        let cols = h.n_heads * h.v_dim;
        if self.has("attn_gate.weight") || gated {
            self.gate(h, gated, norm, x, seen)?;
        }
        let sub_norm = self.part_norm("attn_sub_norm", cols)?;
        let product = self.product("attn_output", &[h.out], &[width], cols)?;
        let norm = self.norm(self.spec.norm, layer.attn_norms.after, &[width], width)?;
        Ok(Branch::Product { input: seen, product: Product { norm: sub_norm, ..product }, norm })
    }

    /// Queries, keys and values of a file whose tensor of queries has each head's gate behind its query.
    fn beside_gates(&mut self, h: &spec::Heads, [q, k, v]: [usize; 3]) -> Result<Product> {
        let name = |tensor: &str| self.name(tensor);
        let queries = (0..h.n_heads).map(|i| 2 * i * h.head_dim..(2 * i + 1) * h.head_dim).collect();
        let parts = [
            (name("attn_q.weight"), 2 * q, queries),
            (name("attn_k.weight"), k, whole(k)),
            (name("attn_v.weight"), v, whole(v)),
        ];
        self.weights.slices(self.rec, &name("attn_qkv"), &parts, self.spec.width)
    }

    /// A gate on what attention saw: an element for each column, or for each head. It has a tensor of its own, or lies
    /// `inside` that of the queries.
    fn gate(&mut self, h: &spec::Heads, inside: bool, norm: Option<Norm>, x: Slot, seen: Slot) -> Result<()> {
        let cols = h.n_heads * h.v_dim;
        let rows = self.weights.dims(&self.name("attn_gate.weight")).and_then(|dims| dims.get(1).copied());
        let n = if !inside && rows == Some(h.n_heads as u64) { h.n_heads } else { cols };
        let product = if inside {
            let gates = (0..h.n_heads).map(|i| (2 * i + 1) * h.head_dim..(2 * i + 2) * h.head_dim).collect();
            let parts = [(self.name("attn_q.weight"), 2 * h.n_heads * h.head_dim, gates)];
            self.weights.slices(self.rec, &self.name("attn_gate"), &parts, self.spec.width)?
        } else {
            self.product("attn_gate", &["attn_gate"], &[n], self.spec.width)?
        };
        let gate = self.rec.linear(x, Product { norm, ..product })?;
        self.rec.gate(self.rec.all(seen), self.rec.all(gate), Act::Sigmoid, cols / n)
    }

    /// A norm inside a part, if the file has one.
    pub(super) fn part_norm(&mut self, tensor: &'static str, cols: usize) -> Result<Option<Norm>> {
        let normed = if self.has(&format!("{tensor}.weight")) { Normed::By(tensor) } else { Normed::No };
        self.norm(self.spec.norm, normed, &[cols], cols)
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
        match ffn {
            Ffn::Dense { hidden, act } => self.dense(*hidden, *act, layer, x),
            Ffn::Moe(moe) => self.moe(moe, layer, x),
        }
    }

    fn dense(&mut self, hidden: usize, act: Act, layer: &Layer, x: Slot) -> Result<Branch> {
        let width = self.spec.width;
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
        let sub_norm = self.part_norm("ffn_sub_norm", hidden)?;
        let product = self.product("ffn_down", &["ffn_down"], &[width], hidden)?;
        let norm = self.norm(self.spec.norm, layer.ffn_norms.after, &[width], width)?;
        Ok(Branch::Product { input, product: Product { norm: sub_norm, ..product }, norm })
    }
}

/// Slopes of the heads whose steepest has about `2^(-most / heads)` (ALiBi; Press et al. 2022).
fn slopes(n_heads: usize, most: f32) -> Vec<f32> {
    let n = if n_heads.is_power_of_two() { n_heads } else { n_heads.next_power_of_two() / 2 };
    let slope = |h: usize| match h < n {
        true => (-most * (h + 1) as f32 / n as f32).exp2(),
        false => (-most * (2 * (h - n) + 1) as f32 / (2 * n) as f32).exp2(),
    };
    (0..n_heads).map(slope).collect()
}
