//! The one transformer: records any spec.

use std::ops::Range;

use super::feed::Early;
use super::parts;
use super::source::read_source;
use super::spec::{Cycles, Layer, Mixer, ModelSpec, NormStyle, Normed, Norms, Route, Wiring};
use super::weights::{Weights, whole};
use crate::adapter::{Attached, Beside, Rows};
use crate::error::{Error, Result};
use crate::file::ModelFile;
use crate::plan::{Lookup, Norm, NormKind, Plan, Product, Recorder, Slot, WeightId};

/// Records a model's plan.
///
/// # Errors
/// A tensor that is missing or of the wrong shape is named, and one that an adapter changes and cannot.
pub(super) fn record(spec: &ModelSpec, file: &ModelFile, adapters: &[Attached]) -> Result<Plan> {
    let mut rec = Recorder::new();
    rec.set_adapters(adapters.iter().map(|of| of.scale).collect());
    let beside = Beside::new(adapters, file)?;
    let weights = Weights::new(file, &beside);
    rec.scope("embed");
    let table = weights.table(&mut rec, "token_embd.weight", spec.width)?;
    let source = match &spec.encoder {
        Some(encoder) => Some(read_source(spec, encoder, &weights, &mut rec, table)?),
        None => None,
    };
    rec.scope("embed");
    let embedded = rec.embed(table, Lookup::Token)?;
    let mut model = Part { source, ..Part::new(spec, &weights, &mut rec) };
    let x = model.embedding(embedded)?;
    let x = match &spec.route {
        Route::Plain => model.layers(0..spec.layers.len(), x)?,
        Route::Streams(streams) => model.alternating(streams, x)?,
        Route::Banked(every) => model.banked(*every, x)?,
        Route::Hyper(hyper) => model.hyper(hyper, x)?,
        Route::Cycles(cycles) => model.cycles(*cycles, x)?,
    };
    rec.scope("head");
    let plan = head(spec, file, &weights, rec, x, table)?;
    parts::expect_all_read(file, spec, &plan, &weights.into_read())?;
    beside.expect_all_used()?;
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
    let mut model = Part::new(spec, weights, &mut rec);
    let norm = model.norm(spec.norm, spec.output_norm, &[spec.width], spec.width)?;
    if !spec.generates {
        let pooled = model.pooled(x, norm)?;
        return Ok(rec.finish(pooled));
    }
    let n_vocab = file.tensor("token_embd.weight").map_or(0, |t| t.n_elements() as usize / spec.width);
    let head = match weights.has("output.weight") {
        true => model.product("output", &["output"], &[n_vocab], spec.width)?,
        false => {
            weights.adapt_head(model.rec, table, n_vocab, spec.width)?;
            let rows = [("output.weight".into(), n_vocab, whole(n_vocab))];
            let bias = weights.bias(model.rec, "output", &rows)?;
            Product { scale: weights.scale(model.rec, "output", &rows, 1)?, bias, ..table.into() }
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
    /// The layer's place among all.
    pub(super) index: usize,
    /// Rows of an encoder, which layers attend to.
    source: Option<Slot>,
    /// Layers that keep keys and values, and their caches.
    pub(super) caches: Vec<(usize, usize)>,
    /// What every token has for every layer, and columns of a layer.
    pub(super) own: Option<(Slot, usize)>,
    /// The positions that the last index chose.
    pub(super) chosen: Option<Slot>,
    /// The embedded rows, which layers add again.
    pub(super) again: Option<Slot>,
}

/// What a part of a layer leaves to be added to the stream, behind its norm.
pub(super) enum Branch {
    /// A product that is not recorded yet.
    Product { input: Slot, product: Product, norm: Option<Norm> },
    /// Rows.
    Rows { rows: Slot, norm: Option<Norm> },
}

impl<'a> Part<'a> {
    /// The model itself, in front of its first layer.
    pub(super) fn new(spec: &'a ModelSpec, weights: &'a Weights<'a>, rec: &'a mut Recorder) -> Part<'a> {
        let (prefix, index, source, caches) = (String::new(), 0, None, Vec::new());
        Part { spec, weights, rec, prefix, index, source, caches, own: None, chosen: None, again: None }
    }

    pub(super) fn name(&self, tensor: &str) -> String {
        format!("{}{tensor}", self.prefix)
    }

    pub(super) fn has(&self, tensor: &str) -> bool {
        self.weights.has(&self.name(tensor))
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
            self.enter(i, layer);
            x = self.layer(layer, x)?;
        }
        Ok(x)
    }

    /// The stacks of a cycle in turn; gives what the high one gives last.
    fn cycles(&mut self, Cycles { layers, low }: Cycles, mut high: Slot) -> Result<Slot> {
        let first = Some(self.weights.vector(self.rec, "hrm.z_l_init", self.spec.width)?);
        // Runs of one column less their mean are 0.
        let norm = Norm { kind: NormKind::Layer, eps: 1.0, group: 1, weight: None, bias: first };
        let mut lower = self.rec.norm(self.rec.all(high), norm)?;
        for (run, start) in (0..self.spec.layers.len()).step_by(layers).enumerate() {
            let is_low = run % (low + 1) < low;
            let (stack, other) = if is_low { (&mut lower, high) } else { (&mut high, lower) };
            self.rec.add(*stack, other, 1.0)?;
            *stack = self.layers(start..start + layers, *stack)?;
        }
        Ok(high)
    }

    /// What follows is the layer's, the `index`-th of all.
    pub(super) fn enter(&mut self, index: usize, layer: &Layer) {
        (self.index, self.prefix) = (index, format!("{}{}.", self.spec.layer_prefix, layer.block));
    }

    /// A layer; gives the slot of the stream behind it.
    pub(super) fn layer(&mut self, layer: &Layer, x: Slot) -> Result<Slot> {
        self.rec.scope(self.name("attn"));
        let early = self.early(layer, x)?;
        let x = match layer.wiring {
            Wiring::Normed(factor) => self.carried(layer, factor, early, x)?,
            Wiring::Serial => self.serial(layer, early, x)?,
            Wiring::Parallel => self.parallel(layer, early, x)?,
        };
        self.own_row(x)?;
        self.layer_factor(x)?;
        // Norms of the stream itself are named as the model's.
        let prefix = std::mem::take(&mut self.prefix);
        let norm = self.model_norm(layer.behind, self.spec.width)?;
        self.prefix = prefix;
        self.behind(norm, x)
    }

    /// What all mixers make of the stream.
    pub(super) fn mixed(&mut self, layer: &Layer, x: Slot) -> Result<Vec<Branch>> {
        layer.mixers.iter().map(|mixer| self.mix(mixer, layer, x)).collect()
    }

    /// What the feed-forward part makes of it, if there is one.
    pub(super) fn fed(&mut self, layer: &Layer, early: Early, x: Slot) -> Result<Vec<Branch>> {
        self.rec.scope(self.name("ffn"));
        layer.ffn.iter().map(|ffn| self.ffn(ffn, layer, early, x)).collect()
    }

    fn serial(&mut self, layer: &Layer, early: Early, x: Slot) -> Result<Slot> {
        let mixed = self.mixed(layer, x)?;
        let mut x = self.join(mixed, layer.attn_norms, x, layer.residual)?;
        if let (Some((heads, norms)), Some(source)) = (&layer.cross, self.source) {
            let branch = self.cross(heads, *norms, x, source)?;
            x = self.join(vec![branch], *norms, x, layer.residual)?;
        }
        let fed = self.fed(layer, early, x)?;
        self.join(fed, layer.ffn_norms, x, layer.residual)
    }

    /// The feed-forward part reads the stream before anything is added to it.
    fn parallel(&mut self, layer: &Layer, early: Early, x: Slot) -> Result<Slot> {
        let mixed = self.mixed(layer, x)?;
        let fed = self.fed(layer, early, x)?;
        mixed.into_iter().chain(fed).try_for_each(|branch| self.add(branch, x, layer.residual))?;
        Ok(x)
    }

    /// Adds what a part made to the stream `x`, and normalises the stream if there are norms for that; gives its slot.
    fn join(&mut self, branches: Vec<Branch>, norms: Norms, x: Slot, factor: f32) -> Result<Slot> {
        let width = self.spec.width;
        let Some(norm) = self.model_norm(norms.stream, width)? else {
            branches.into_iter().try_for_each(|branch| self.add(branch, x, factor))?;
            return Ok(x);
        };
        let Some(again) = self.model_norm(norms.again, width)? else {
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
                self.mixer_output(layer, normed, "attn_output", None)
            }
            Mixer::ShortConv(taps) => self.short_conv(*taps, layer, x),
        }
    }

    /// `x += factor * norm(branch)`.
    pub(super) fn add(&mut self, branch: Branch, x: Slot, factor: f32) -> Result<()> {
        if let Branch::Product { input, product, norm: None } = branch {
            return self.rec.linear_add(input, product, x, factor);
        }
        let rows = self.rows(branch)?;
        self.rec.add(x, rows, factor)
    }

    /// `norm(branch)`.
    pub(super) fn rows(&mut self, branch: Branch) -> Result<Slot> {
        let (rows, norm) = match branch {
            Branch::Product { input, product, norm } => (self.rec.linear(input, product)?, norm),
            Branch::Rows { rows, norm } => (rows, norm),
        };
        self.behind(norm, rows)
    }

    /// Parts that read and add to the stream as it is behind their norms.
    fn carried(&mut self, layer: &Layer, factor: f32, early: Early, x: Slot) -> Result<Slot> {
        let bare = |norms: Norms| Norms { before: Normed::No, ..norms };
        let parts = Layer { attn_norms: bare(layer.attn_norms), ffn_norms: bare(layer.ffn_norms), ..layer.clone() };
        self.carry(layer.attn_norms.before, factor, x, |me, normed| {
            layer.mixers.iter().map(|mixer| me.mix(mixer, &parts, normed)).collect()
        })?;
        self.rec.scope(self.name("ffn"));
        self.carry(layer.ffn_norms.before, factor, x, |me, normed| {
            layer.ffn.iter().map(|ffn| me.ffn(ffn, &parts, early, normed)).collect()
        })?;
        Ok(x)
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
        let Some(norm) = self.model_norm(normed, width)? else { return Ok(()) };
        let normed = self.rec.norm(self.rec.all(x), norm)?;
        let branches = parts(self, normed)?;
        self.rec.scale(x, 0.0, None)?;
        self.rec.add(x, normed, factor)?;
        branches.into_iter().try_for_each(|branch| self.add(branch, x, 1.0))
    }

    /// Rows of a matrix, its name without `.weight`. Files leave out a last dimension of 1.
    pub(super) fn rows_of(&self, tensor: &str) -> Result<usize> {
        let name = self.name(&format!("{tensor}.weight"));
        let rows = self.weights.dims(&name).and_then(|dims| usize::try_from(dims.get(1).copied().unwrap_or(1)).ok());
        rows.ok_or_else(|| Error::format(format!("tensor {name} is missing")))
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

    /// The same over runs of so many columns, by the formula of the stream's norms.
    pub(super) fn model_norm(&mut self, normed: Normed, cols: usize) -> Result<Option<Norm>> {
        self.norm(self.spec.norm, normed, &[cols], cols)
    }

    /// Rows behind a norm, if there is one.
    pub(super) fn behind(&mut self, norm: Option<Norm>, x: Slot) -> Result<Slot> {
        norm.map_or(Ok(x), |norm| self.rec.norm(self.rec.all(x), norm))
    }

    /// Rows times a matrix, its name without `.weight`.
    pub(super) fn times(&mut self, x: Slot, tensor: &str, rows: usize) -> Result<Slot> {
        let product = self.matrix(tensor, rows, self.rec.all(x).cols)?;
        self.rec.linear(x, product)
    }

    /// The product of one matrix.
    pub(super) fn matrix(&mut self, tensor: &str, rows: usize, cols: usize) -> Result<Product> {
        self.product(tensor, &[tensor], &[rows], cols)
    }

    /// The product of one matrix of several tensors (their names without `.weight`), with their factors and biases.
    pub(super) fn product(&mut self, name: &str, tensors: &[&str], rows: &[usize], cols: usize) -> Result<Product> {
        let parts = tensors.iter().zip(rows);
        let parts = parts.map(|(t, rows)| (self.name(&format!("{t}.weight")), *rows, whole(*rows)));
        self.slices(name, &parts.collect::<Vec<_>>(), cols)
    }

    /// The product with some rows of tensors, with the factors and biases of these rows.
    pub(super) fn slices(&mut self, name: &str, parts: &[Rows], cols: usize) -> Result<Product> {
        let name = self.name(name);
        let product = self.weights.slices(self.rec, &name, parts, cols)?;
        Ok(Product { bias: self.weights.bias(self.rec, &name, parts)?, ..product })
    }

    /// A norm inside a part, if the file has one.
    pub(super) fn part_norm(&mut self, tensor: &'static str, cols: usize) -> Result<Option<Norm>> {
        let normed = if self.has(&format!("{tensor}.weight")) { Normed::By(tensor) } else { Normed::No };
        self.model_norm(normed, cols)
    }
}
