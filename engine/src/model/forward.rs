//! The one transformer: records any spec.

use std::ops::Range;

use super::feed::Early;
use super::parts;
use super::spec::{Layer, Mixer, ModelSpec, NormStyle, Normed, Norms, Route, Wiring};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::file::ModelFile;
use crate::plan::{Act, Lookup, Norm, NormKind, Plan, Product, Recorder, Rows, Slot};

/// Records a model's plan.
///
/// # Errors
/// A tensor that is missing or of the wrong shape is named.
pub(super) fn record(spec: &ModelSpec, file: &ModelFile) -> Result<Plan> {
    let mut rec = Recorder::new();
    let weights = Weights::new(file);
    rec.scope("embed");
    let table = weights.table(&mut rec, "token_embd.weight", spec.width)?;
    let embedded = rec.embed(table, Lookup::Token)?;
    let n_vocab = file.tensor("token_embd.weight").map_or(0, |t| t.n_elements() as usize / spec.width);
    let (weights_of, prefix, caches) = (&weights, String::new(), Vec::new());
    let mut model = Part {
        spec,
        weights: weights_of,
        rec: &mut rec,
        prefix,
        index: 0,
        caches,
        own: None,
        chosen: None,
        again: None,
    };
    let x = model.embedding(embedded)?;
    let x = match &spec.route {
        Route::Plain => model.layers(0..spec.layers.len(), x)?,
        Route::Streams(streams) => model.alternating(streams, x)?,
        Route::Cycles { per_stack, low } => model.cycles(*per_stack, *low, x)?,
    };
    model.prefix.clear();
    model.rec.scope("head");
    let norm = model.norm(spec.norm, spec.output_norm, &[spec.width], spec.width)?;
    let head = match weights.has("output.weight") {
        true => model.product("output", &["output"], &[n_vocab], spec.width)?,
        false => {
            let (names, rows) = (["output.weight".into()], [n_vocab]);
            let bias = weights.bias(&mut rec, "output", &names, &rows)?;
            Product { scale: weights.scale(&mut rec, "output", &names, &rows, 1)?, bias, ..table.into() }
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
    let plan = rec.finish(logits);
    parts::expect_all_read(file, spec, &plan, &weights.into_read())?;
    Ok(plan)
}

/// A part of a model that is being recorded.
pub(super) struct Part<'a> {
    pub(super) spec: &'a ModelSpec,
    pub(super) weights: &'a Weights<'a>,
    pub(super) rec: &'a mut Recorder,
    /// Of the names of tensors: a layer's, or none.
    pub(super) prefix: String,
    /// The layer's place among all.
    pub(super) index: usize,
    /// Layers that keep keys and values, and their caches.
    pub(super) caches: Vec<(usize, usize)>,
    /// What every token has for every layer, and columns of a layer.
    pub(super) own: Option<(Slot, usize)>,
    /// The positions that the last index chose.
    pub(super) chosen: Option<Slot>,
    /// The embedded rows, which layers add again.
    again: Option<Slot>,
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
        if spec.embedding.positions {
            let table = self.weights.table(self.rec, "position_embd.weight", spec.width)?;
            let positions = self.rec.embed(table, Lookup::Position)?;
            self.rec.add(x, positions, 1.0)?;
        }
        if let Some(n) = spec.embedding.per_layer {
            self.own = Some((self.own_rows(n, x)?, n));
        }
        let x = match self.norm(spec.norm, spec.embedding.norm, &[spec.width], spec.width)? {
            Some(norm) => self.rec.norm(self.rec.all(x), norm)?,
            None => x,
        };
        if spec.embedding.again {
            let one = self.constants(x, "one", &[1.0])?;
            self.again = Some(self.rec.mix(self.rec.all(x), self.rec.all(one), spec.width)?);
        }
        Ok(x)
    }

    /// What every token has for every layer: rows of a table of their own and a product with the embedded rows.
    fn own_rows(&mut self, n: usize, x: Slot) -> Result<Slot> {
        let (width, cols) = (self.spec.width, n * self.spec.layers.len());
        let table = self.weights.table(self.rec, "per_layer_token_embd.weight", cols)?;
        let own = self.rec.embed(table, Lookup::Token)?;
        self.rec.scale(own, (n as f32).sqrt(), None)?;
        let product = self.product("per_layer_model_proj", &["per_layer_model_proj"], &[cols], width)?;
        let rows = self.rec.linear(x, product)?;
        self.rec.scale(rows, 1.0 / (width as f32).sqrt(), None)?;
        if let Some(norm) = self.norm(self.spec.norm, Normed::By("per_layer_proj_norm"), &[n], n)? {
            let rows = self.rec.norm(self.rec.all(rows), norm)?;
            self.rec.add(own, rows, 1.0)?;
        }
        self.rec.scale(own, std::f32::consts::FRAC_1_SQRT_2, None)?;
        Ok(own)
    }

    /// The same numbers for every row of `like`: runs of one column less their mean are 0, and these are added.
    pub(super) fn constants(&mut self, like: Slot, name: &str, values: &[f32]) -> Result<Slot> {
        let bias = Some(self.weights.constant(self.rec, name, Some(values), values.len()));
        let view = self.rec.view(like, 0, values.len())?;
        self.rec.norm(view, Norm { kind: NormKind::Layer, eps: 1.0, group: 1, weight: None, bias })
    }

    /// Layers one after the other; gives the stream behind them.
    fn layers(&mut self, range: Range<usize>, mut x: Slot) -> Result<Slot> {
        for i in range {
            let layer = &self.spec.layers[i];
            (self.index, self.prefix) = (i, format!("blk.{}.", layer.block));
            x = self.layer(layer, x)?;
        }
        Ok(x)
    }

    /// Two stacks in turn, the first `low` times for each time of the second.
    fn cycles(&mut self, per_stack: usize, low: usize, x: Slot) -> Result<Slot> {
        let width = self.spec.width;
        let state = self.weights.vector(self.rec, "hrm.z_l_init", width)?;
        let zero = Norm { kind: NormKind::Layer, eps: 1.0, group: 1, weight: None, bias: Some(state) };
        let mut states = [self.rec.norm(self.rec.all(x), zero)?, x];
        for (i, first) in (0..self.spec.layers.len()).step_by(per_stack).enumerate() {
            let one = self.constants(x, "one", &[1.0])?;
            let sum = self.rec.mix(self.rec.all(states[0]), self.rec.all(one), width)?;
            self.rec.add(sum, states[1], 1.0)?;
            let rows = self.layers(first..first + per_stack, sum)?;
            if let Some(norm) = self.norm(self.spec.norm, Normed::Bare, &[], width)? {
                states[usize::from(i % (low + 1) == low)] = self.rec.norm(self.rec.all(rows), norm)?;
            }
        }
        Ok(states[1])
    }

    /// A layer; gives the stream behind it.
    fn layer(&mut self, layer: &Layer, x: Slot) -> Result<Slot> {
        self.rec.scope(self.name("attn"));
        let early = self.early(layer, x)?;
        if let Wiring::Normed(factor) = layer.wiring {
            self.carried(layer, factor, early, x)?;
        } else {
            self.both_parts(layer, early, x)?;
        }
        self.own_row(x)?;
        match (self.has("layer_output_scale.weight"), self.again) {
            (true, Some(again)) => {
                let weight = self.weights.vector(self.rec, &self.name("layer_output_scale.weight"), 1)?;
                let one = self.constants(x, "one", &[1.0])?;
                self.rec.scale(one, 1.0, Some(weight))?;
                let more = self.rec.mix(self.rec.all(again), self.rec.all(one), self.spec.width)?;
                self.rec.add(x, more, 1.0)?;
            }
            (true, None) => {
                let weight = self.weights.vector(self.rec, &self.name("layer_output_scale.weight"), 1)?;
                self.rec.scale(x, 1.0, Some(weight))?;
            }
            (false, _) => {}
        }
        // Norms of the stream itself are named as the model's.
        let prefix = std::mem::take(&mut self.prefix);
        let norm = self.norm(self.spec.norm, layer.behind, &[self.spec.width], self.spec.width)?;
        self.prefix = prefix;
        norm.map_or(Ok(x), |norm| self.rec.norm(self.rec.all(x), norm))
    }

    /// Adds what the layer makes of the token's own row for it, if tokens have any.
    fn own_row(&mut self, x: Slot) -> Result<()> {
        let Some((own, n)) = self.own else { return Ok(()) };
        let branch = self.own_branch(own, n, x)?;
        self.add(branch, x, 1.0)
    }

    /// What the layer makes of the stream and the token's own row.
    pub(super) fn own_branch(&mut self, own: Slot, n: usize, x: Slot) -> Result<Branch> {
        let width = self.spec.width;
        let product = self.product("inp_gate", &["inp_gate"], &[n], width)?;
        let input = self.rec.linear_act(x, product, Act::GeluTanh)?;
        let view = self.rec.view(own, self.index * n, n)?;
        self.rec.gate(self.rec.all(input), view, Act::Identity, 1)?;
        let product = self.product("proj", &["proj"], &[width], n)?;
        let norm = self.norm(self.spec.norm, Normed::By("post_norm"), &[width], width)?;
        Ok(Branch::Product { input, product, norm })
    }

    fn both_parts(&mut self, layer: &Layer, early: Early, x: Slot) -> Result<()> {
        let mixed = layer.mixers.iter().map(|mixer| self.mix(mixer, layer, x)).collect::<Result<Vec<_>>>()?;
        let add_mixed = |me: &mut Self| mixed.into_iter().try_for_each(|branch| me.add(branch, x, layer.residual));
        // In a parallel layer the feed-forward part has read the stream before anything is added to it.
        if layer.wiring == Wiring::Serial {
            add_mixed(self)?;
            self.rec.scope(self.name("ffn"));
            let ffn = layer.ffn.as_ref().map(|ffn| self.ffn(ffn, layer, early, x)).transpose()?;
            return ffn.map_or(Ok(()), |branch| self.add(branch, x, layer.residual));
        }
        self.rec.scope(self.name("ffn"));
        let ffn = layer.ffn.as_ref().map(|ffn| self.ffn(ffn, layer, early, x)).transpose()?;
        add_mixed(self)?;
        ffn.map_or(Ok(()), |branch| self.add(branch, x, layer.residual))
    }

    pub(super) fn mix(&mut self, mixer: &Mixer, layer: &Layer, x: Slot) -> Result<Branch> {
        match mixer {
            Mixer::Heads(heads) => self.heads(heads, layer, x),
            Mixer::Latent(latent) => self.latent(latent, layer, x),
            Mixer::DeltaNet(ssm) => self.delta_net(ssm, layer, x),
            Mixer::Mamba(ssm) => self.mamba(ssm, layer, x),
            Mixer::Mamba2(ssm) => self.mamba2(ssm, layer, x),
            Mixer::Kda(kda) => self.kda(kda, layer, x),
            Mixer::Lightning(lightning) => self.lightning(lightning, layer, x),
            Mixer::Output => {
                let normed = self.mixer_input(layer, x)?;
                let product = self.product("attn_output", &["attn_output"], &[self.spec.width], self.spec.width)?;
                self.mixer_output(layer, normed, product)
            }
            Mixer::ShortConv(taps) => self.short_conv(*taps, layer, x),
        }
    }

    /// `x += factor * norm(branch)`.
    pub(super) fn add(&mut self, branch: Branch, x: Slot, factor: f32) -> Result<()> {
        let (rows, norm) = match branch {
            Branch::Product { input, product, norm: None } => {
                return self.rec.linear_add(input, product, x, factor);
            }
            Branch::Product { input, product, norm } => (self.rec.linear(input, product)?, norm),
            Branch::Rows { rows, norm } => (rows, norm),
        };
        let rows = match norm {
            Some(norm) => self.rec.norm(self.rec.all(rows), norm)?,
            None => rows,
        };
        self.rec.add(x, rows, factor)
    }

    /// Parts that read and add to the stream as it is behind their norms.
    fn carried(&mut self, layer: &Layer, factor: f32, early: Early, x: Slot) -> Result<()> {
        let bare = |norms: Norms| Norms { before: Normed::No, ..norms };
        let parts = Layer { attn_norms: bare(layer.attn_norms), ffn_norms: bare(layer.ffn_norms), ..layer.clone() };
        self.carry(layer.attn_norms.before, factor, x, |me, normed| {
            layer.mixers.iter().map(|mixer| me.mix(mixer, &parts, normed)).collect()
        })?;
        self.rec.scope(self.name("ffn"));
        self.carry(layer.ffn_norms.before, factor, x, |me, normed| {
            layer.ffn.iter().map(|ffn| me.ffn(ffn, &parts, early, normed)).collect()
        })
    }

    /// `x = factor * norm(x) + what the parts make of norm(x)`.
    fn carry(
        &mut self,
        normed: Normed,
        factor: f32,
        x: Slot,
        parts: impl FnOnce(&mut Self, Slot) -> Result<Vec<Branch>>,
    ) -> Result<()> {
        let width = self.spec.width;
        let Some(norm) = self.norm(self.spec.norm, normed, &[width], width)? else { return Ok(()) };
        let normed = self.rec.norm(self.rec.all(x), norm)?;
        let branches = parts(self, normed)?;
        self.rec.scale(x, 0.0, None)?;
        self.rec.add(x, normed, factor)?;
        branches.into_iter().try_for_each(|branch| self.add(branch, x, 1.0))
    }

    /// Rows of a matrix, its name without `.weight`.
    pub(super) fn rows_of(&self, tensor: &str) -> Result<usize> {
        let name = self.name(&format!("{tensor}.weight"));
        let rows = self.weights.dims(&name).and_then(|dims| usize::try_from(*dims.get(1)?).ok());
        rows.ok_or_else(|| Error::format(format!("tensor {name} is missing or no matrix")))
    }

    /// The norm behind a part.
    pub(super) fn norm_after(&mut self, norms: Norms) -> Result<Option<Norm>> {
        let width = self.spec.width;
        let style = NormStyle { eps: self.spec.eps_after.unwrap_or(self.spec.norm.eps), ..self.spec.norm };
        self.norm(style, norms.after, &[width], width)
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

    /// A norm inside a part, if the file has one.
    pub(super) fn part_norm(&mut self, tensor: &'static str, cols: usize) -> Result<Option<Norm>> {
        let normed = if self.has(&format!("{tensor}.weight")) { Normed::By(tensor) } else { Normed::No };
        self.norm(self.spec.norm, normed, &[cols], cols)
    }
}
