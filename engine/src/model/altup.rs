//! Alternating updates, recorded: several streams, of which every layer works on one and corrects all.

use super::forward::{Branch, Part};
use super::spec::{Ffn, Layer, NormStyle, Normed, Streams};
use crate::error::{Error, Result};
use crate::plan::{Act, Norm, NormKind, Product, Slot, View};

impl Part<'_> {
    /// All layers, from the embedded rows to those in front of the last norm.
    pub(super) fn alternating(&mut self, s: &Streams, x: Slot) -> Result<Slot> {
        let mut streams = self.spread(s, x)?;
        for (i, layer) in self.spec.layers.iter().enumerate() {
            self.enter(i, layer);
            self.rec.scope(self.name("attn"));
            streams = self.alternating_layer(s, layer, streams)?;
        }
        self.prefix.clear();
        self.gather(s, streams)
    }

    /// The factors that pick some of the streams: one row of them for each result.
    fn picking(&mut self, like: Slot, name: &str, n: usize, rows: &[Option<usize>]) -> Result<View> {
        let of = |row: &Option<usize>| (0..n).map(|j| f32::from(u8::from(Some(j) == *row))).collect::<Vec<f32>>();
        let slot = self.constants(like, name, &rows.iter().flat_map(of).collect::<Vec<f32>>())?;
        Ok(self.rec.all(slot))
    }

    /// Rows made as long as those of `like`, run by run of the stream's width.
    fn as_long_as(&mut self, rows: Slot, like: Slot) -> Result<Slot> {
        let width = self.spec.width;
        let unit = Norm { kind: NormKind::Rms, eps: 1e-10, group: width, weight: None, bias: None };
        let rows = self.rec.norm(self.rec.all(rows), unit)?;
        let square = self.rec.mix(self.rec.all(like), self.rec.all(like), 1)?;
        let all = self.rec.all(rows);
        self.rec.gate(all, self.rec.all(square), Act::Sqrt, all.cols)?;
        self.rec.scale(rows, 1.0 / (width as f32).sqrt(), None)?;
        Ok(rows)
    }

    /// The streams at first: the embedded rows, and products with them.
    fn spread(&mut self, s: &Streams, x: Slot) -> Result<Slot> {
        let (width, others) = (self.spec.width, s.n - 1);
        let ones = self.constants(x, "ones", &vec![1.0; others])?;
        let copies = self.rec.mix(self.rec.all(x), self.rec.all(ones), width)?;
        let names = ["altup_proj.weight".to_owned()];
        let stack = self.weights.stack(self.rec, "altup_proj", &names, &[width], (width, others))?;
        let made = self.rec.head_linear(copies, stack, others, 0)?;
        let made = self.as_long_as(made, x)?;
        let own: Vec<Option<usize>> = (0..s.n).map(|i| (i == s.active).then_some(0)).collect();
        let own = self.picking(x, "own", 1, &own)?;
        let streams = self.rec.mix(self.rec.all(x), own, width)?;
        let rest: Vec<Option<usize>> = (0..s.n).map(|i| self.other(s, i)).collect();
        let rest = self.picking(x, "rest", others, &rest)?;
        let made = self.rec.mix(self.rec.all(made), rest, width)?;
        self.rec.add(streams, made, 1.0)?;
        Ok(streams)
    }

    /// Which of the streams that are not worked on a stream is.
    fn other(&self, s: &Streams, i: usize) -> Option<usize> {
        (i != s.active).then(|| if i < s.active { i } else { i - 1 })
    }

    /// The mean of the streams, those that were not worked on brought back by products.
    fn gather(&mut self, s: &Streams, streams: Slot) -> Result<Slot> {
        let (width, others) = (self.spec.width, s.n - 1);
        let first = self.picking(streams, "first", s.n, &[Some(s.active)])?;
        let x = self.rec.mix(self.rec.all(streams), first, width)?;
        let rest: Vec<Option<usize>> = (0..s.n).filter(|i| *i != s.active).map(Some).collect();
        let rest = self.picking(streams, "rest", s.n, &rest)?;
        let rest = self.rec.mix(self.rec.all(streams), rest, width)?;
        let names = ["altup_unembd_proj.weight".to_owned()];
        let stack = self.weights.stack(self.rec, "altup_unembd_proj", &names, &[width], (width, others))?;
        let back = self.rec.head_linear(rest, stack, others, 0)?;
        let back = self.as_long_as(back, x)?;
        let ones = self.constants(x, "ones", &vec![1.0; others])?;
        let sum = self.rec.mix(self.rec.all(back), self.rec.all(ones), width)?;
        self.rec.add(x, sum, 1.0)?;
        self.rec.scale(x, 1.0 / s.n as f32, None)?;
        Ok(x)
    }

    /// Factors between streams, by the stream that is worked on: so many for each, and the identity if each stays.
    fn coefficients(&mut self, tensor: &str, s: &Streams, x: Slot, constant: &[f32]) -> Result<Slot> {
        let width = self.spec.width;
        let norm = self.model_norm(Normed::By("altup_router_norm"), width)?;
        let product = self.matrix("altup_router", s.n, width)?;
        let modes = self.rec.linear(x, Product { norm, ..product })?;
        self.rec.scale(modes, 1.0 / width as f32, None)?;
        self.rec.act(self.rec.all(modes), Act::Tanh, None, None)?;
        let product = self.product(tensor, &[tensor], &[constant.len()], s.n)?;
        let coef = self.rec.linear(modes, product)?;
        let bias = self.weights.constant(self.rec, "kept", Some(constant), constant.len());
        self.rec.act(self.rec.all(coef), Act::Identity, Some(bias), None)?;
        Ok(coef)
    }

    /// Predicts all streams, works on one, corrects all by what became of it.
    fn alternating_layer(&mut self, s: &Streams, layer: &Layer, streams: Slot) -> Result<Slot> {
        let (width, n) = (self.spec.width, s.n);
        let first = self.picking(streams, "first", n, &[Some(s.active)])?;
        let active = self.rec.mix(self.rec.all(streams), first, width)?;
        let identity: Vec<f32> = (0..n * n).map(|i| f32::from(u8::from(i / n == i % n))).collect();
        let coef = self.coefficients("altup_predict_coef", s, active, &identity)?;
        let predicted = self.rec.mix(self.rec.all(streams), self.rec.all(coef), width)?;
        let own = self.rec.view(coef, s.active * n, n)?;
        let x = self.rec.mix(self.rec.all(streams), own, width)?;
        let made = self.work(s, layer, x)?;
        let coef = self.coefficients("altup_correct_coef", s, made, &vec![1.0; n])?;
        self.rec.add(made, x, -1.0)?;
        let correction = self.rec.mix(self.rec.all(made), self.rec.all(coef), width)?;
        self.rec.add(predicted, correction, 1.0)?;
        // The token's own row of the layer goes to the streams that were not worked on.
        let own = self.rec.view(coef, s.active, 1)?;
        let corrected = self.rec.mix(self.rec.all(made), own, width)?;
        self.rec.add(corrected, x, 1.0)?;
        let scale = self.weights.vector(self.rec, &self.name("altup_correct_scale.weight"), width)?;
        self.rec.scale(corrected, 1.0, Some(scale))?;
        let Some((rows, cols)) = self.own else { return Ok(predicted) };
        let branch = self.own_branch(rows, cols, corrected)?;
        let more = self.rows(branch)?;
        let others: Vec<Option<usize>> = (0..n).map(|i| (i != s.active).then_some(0)).collect();
        let others = self.picking(streams, "others", 1, &others)?;
        let more = self.rec.mix(self.rec.all(more), others, width)?;
        self.rec.add(predicted, more, 1.0)?;
        Ok(predicted)
    }

    /// Attention with a low-rank path beside it, and the feed-forward part.
    fn work(&mut self, s: &Streams, layer: &Layer, x: Slot) -> Result<Slot> {
        let width = self.spec.width;
        let normed = self.mixer_input(layer, x)?;
        let rank = self.rows_of("laurel_l")?;
        let few = self.times(normed, "laurel_l", rank)?;
        let product = self.matrix("laurel_r", width, rank)?;
        let norm = self.model_norm(Normed::By("laurel_post_norm"), width)?;
        let beside = self.rows(Branch::Product { input: few, product, norm })?;
        for mixer in &layer.mixers {
            let branch = self.mix(mixer, layer, x)?;
            let rows = self.rows(branch)?;
            self.rec.add(beside, rows, 1.0)?;
        }
        self.rec.add(beside, normed, 1.0)?;
        self.rec.add(beside, x, 1.0)?;
        self.rec.scale(beside, std::f32::consts::FRAC_1_SQRT_2, None)?;
        self.rec.scope(self.name("ffn"));
        let branch = self.sparse_ffn(s, layer, beside)?;
        self.add(branch, beside, 1.0)?;
        Ok(beside)
    }

    /// A feed-forward part of whose gates only those far above their mean count.
    fn sparse_ffn(&mut self, s: &Streams, layer: &Layer, x: Slot) -> Result<Branch> {
        let width = self.spec.width;
        let Some(Ffn::Dense { hidden, gated }) = layer.ffn else {
            return Err(Error::unsupported("alternating updates around other than a dense feed-forward part"));
        };
        let before = self.model_norm(layer.ffn_norms.before, width)?;
        let after = self.norm_after(layer.ffn_norms)?;
        let Some(deviations) = s.sparse.get(self.index).copied().flatten() else {
            let (input, product) = self.dense(hidden, gated, before, x)?;
            return Ok(Branch::Product { input, product, norm: after });
        };
        let gate = self.matrix("ffn_gate", hidden, width)?;
        let gate = self.rec.linear(x, Product { norm: before, ..gate })?;
        let up = self.matrix("ffn_up", hidden, width)?;
        let up = self.rec.linear(x, Product { norm: before, ..up })?;
        // Gates in deviations from their mean; what lies above the bound, times the deviation.
        let style = NormStyle { kind: NormKind::Layer, eps: 1e-20 };
        let norm = Norm { kind: style.kind, eps: style.eps, group: hidden, weight: None, bias: None };
        let far = self.rec.norm(self.rec.all(gate), norm)?;
        let deviation = self.rec.mix(self.rec.all(gate), self.rec.all(far), 1)?;
        let of_sample = (hidden as f32 / (hidden as f32 - 1.0)).sqrt();
        let bound = deviations * if s.of_sample { of_sample } else { 1.0 };
        let bound = self.weights.constant(self.rec, "bound", Some(&vec![-bound; hidden]), hidden);
        let all = self.rec.all(far);
        self.rec.act(all, Act::Relu, Some(bound), None)?;
        self.rec.gate(all, self.rec.all(deviation), Act::Identity, hidden)?;
        self.rec.scale(far, 1.0 / hidden as f32, None)?;
        self.rec.gate(self.rec.all(up), all, gated.act, 1)?;
        let product = self.matrix("ffn_down", width, hidden)?;
        Ok(Branch::Product { input: up, product, norm: after })
    }
}
