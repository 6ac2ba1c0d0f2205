//! Hyper-connections, recorded: several streams, of which every part reads a sum, and to all of which it is added.

use super::feed::Early;
use super::forward::{Branch, Part};
use super::spec::{Hyper, Normed};
use crate::error::{Error, Result};
use crate::plan::{Act, Product, Slot};

impl Part<'_> {
    /// All layers, from the embedded rows to those in front of the last norm.
    pub(super) fn hyper(&mut self, h: &Hyper, x: Slot) -> Result<Slot> {
        let (width, n) = (self.spec.width, h.n);
        let ones = self.constants(x, "ones", &vec![1.0; n])?;
        let mut streams = self.rec.mix(self.rec.all(x), self.rec.all(ones), width)?;
        for (i, layer) in self.spec.layers.iter().enumerate() {
            self.enter(i, layer);
            self.rec.scope(self.name("attn"));
            streams = self.connect(h, "hc_attn", streams, |me, x| me.mixed(layer, x))?;
            self.rec.scope(self.name("ffn"));
            streams = self.connect(h, "hc_ffn", streams, |me, x| me.fed(layer, Early::default(), x))?;
        }
        self.prefix.clear();
        let factors = match self.has("output_hc_fn.weight") {
            true => self.factors(h, "output_hc", streams, &[n])?,
            false => self.constants(streams, "mean", &vec![1.0 / n as f32; n])?,
        };
        self.rec.mix(self.rec.all(streams), self.rec.all(factors), width)
    }

    /// The streams behind a part of a layer.
    fn connect(
        &mut self,
        h: &Hyper,
        name: &str,
        streams: Slot,
        part: impl FnOnce(&mut Self, Slot) -> Result<Vec<Branch>>,
    ) -> Result<Slot> {
        let (width, n) = (self.spec.width, h.n);
        let all = [n, n, n * n];
        let factors = self.factors(h, name, streams, if h.rounds.is_some() { &all } else { &all[..2] })?;
        let read = self.rec.view(factors, 0, n)?;
        let x = self.rec.mix(self.rec.all(streams), read, width)?;
        let mut rows = None;
        for branch in part(self, x)? {
            match rows {
                None => rows = Some(self.rows(branch)?),
                Some(rows) => self.add(branch, rows, 1.0)?,
            }
        }
        let rows = rows.ok_or_else(|| Error::format(format!("{name}: a layer without this part")))?;
        let by = self.rec.view(factors, n, n)?;
        let [most, more] = h.most.map(|x| self.weights.constant(self.rec, "most", Some(&vec![x; n]), n));
        self.rec.act(by, Act::Sigmoid, None, Some(most))?;
        self.rec.act(by, Act::Identity, Some(more), None)?;
        let rows = self.rec.mix(self.rec.all(rows), by, width)?;
        let Some(rounds) = h.rounds else {
            self.rec.add(streams, rows, 1.0)?;
            return Ok(streams);
        };
        let between = self.rec.view(factors, 2 * n, n * n)?;
        self.rec.balance(between, n, rounds, h.eps)?;
        let streams = self.rec.mix(self.rec.all(streams), between, width)?;
        self.rec.add(streams, rows, 1.0)?;
        Ok(streams)
    }

    /// Products with the normed streams, of which each group has a scale: those of the sum that is read, made ready, those by
    /// which the part is added, and those between streams, which the file has by the streams that they are for.
    fn factors(&mut self, h: &Hyper, name: &str, streams: Slot, groups: &[usize]) -> Result<Slot> {
        let (n, rows) = (h.n, groups.iter().sum());
        let [matrix, base, scale] = ["fn", "base", "scale"].map(|end| self.name(&format!("{name}_{end}.weight")));
        let place = |i: usize| if i < 2 * n { i } else { (i - 2 * n) % n * n + (i - 2 * n) / n + 2 * n };
        let order: Vec<_> = (0..rows).map(place).map(|i| i..i + 1).collect();
        let bias = [(base.clone(), rows, order.clone())];
        let product = self.weights.slices(self.rec, name, &[(matrix, rows, order)], n * self.spec.width)?;
        let bias = Some(self.weights.slices(self.rec, &base, &bias, 1)?.weight);
        let scale = Some(self.weights.repeated(self.rec, &scale, groups, 1.0)?);
        let norm = self.model_norm(Normed::Bare, n * self.spec.width)?;
        let factors = self.rec.linear(streams, Product { norm, scale, bias, ..product })?;
        let read = self.rec.view(factors, 0, n)?;
        let eps = self.weights.constant(self.rec, "eps", Some(&vec![h.eps; n]), n);
        self.rec.act(read, Act::Sigmoid, None, None)?;
        self.rec.act(read, Act::Identity, Some(eps), None)?;
        Ok(factors)
    }
}
