//! Mamba and the mixer of PLaMo 2, recorded: steps, keys and queries come of what the convolution gives.

use std::ops::Range;

use super::forward::{Branch, Part};
use super::spec::{Layer, Normed, Ssm};
use crate::error::{Error, Result};
use crate::plan::{Act, Norm, Product, Recur, Slot, View};

impl Part<'_> {
    /// Mamba, each of whose channels is a head of one element with a decay of its own for each element of the state. Heads of
    /// several elements have one decay, and lie in the file as PLaMo 2 has them.
    pub(super) fn mamba(&mut self, s: &Ssm, layer: &Layer, x: Slot) -> Result<Branch> {
        let (h, inner, n, width) = (s.n_heads, s.n_heads * s.v_dim, s.k_dim, self.spec.width);
        let wide = s.v_dim > 1;
        let normed = self.mixer_input(layer, x)?;
        // What is convolved, then the gate: one after the other, or by heads, the gate first.
        let runs = |at: usize| (0..h).map(move |i| (2 * i + at) * s.v_dim..(2 * i + at + 1) * s.v_dim);
        let whole = std::iter::once(0..2 * inner);
        let order: Vec<Range<usize>> = if wide { runs(1).chain(runs(0)).collect() } else { whole.collect() };
        let parts = [(self.name("ssm_in.weight"), 2 * inner, order)];
        let product = self.weights.slices(self.rec, &self.name("ssm_in"), &parts, width)?;
        let rows = self.rec.linear(normed, product)?;
        let mixed = self.ssm_conv(rows, 0, inner, s.taps)?;
        let rank = self.weights.dims(&self.name("ssm_dt.weight")).and_then(|d| usize::try_from(*d.first()?).ok());
        let rank = rank.ok_or_else(|| Error::format(format!("tensor {} is missing", self.name("ssm_dt.weight"))))?;
        let (dt_at, b_at) = if wide { (2 * n, 0) } else { (0, rank) };
        let mut part = |part: &str, range: Range<usize>| {
            let parts = [(self.name("ssm_x.weight"), rank + 2 * n, vec![range])];
            let product = self.weights.slices(self.rec, &format!("{}.{part}", self.name("ssm_x")), &parts, inner)?;
            self.rec.linear(mixed, product)
        };
        let (dt, keys) = (part("dt", dt_at..dt_at + rank)?, part("bc", b_at..b_at + 2 * n)?);
        let k = self.state_norm("ssm_b_norm", s, self.rec.view(keys, 0, n)?)?;
        let q = self.state_norm("ssm_c_norm", s, self.rec.view(keys, n, n)?)?;
        let (dt, decay) = self.steps(s, dt, rank)?;
        let rates = if wide { None } else { Some(self.named("ssm_a", h * n)?) };
        let skip = Some(self.named("ssm_d", h)?);
        let v = self.rec.all(mixed);
        let recur = Recur { q, k, v, decay, rates, beta: None, v_scale: Some(dt), skip };
        let seen = self.rec.recur(s.recurrence(1.0), recur)?;
        let gate = self.rec.view(rows, inner, inner)?;
        self.rec.gate(self.rec.all(seen), gate, Act::Silu, 1)?;
        self.mixer_output(layer, seen, "ssm_out", None)
    }

    /// Steps of time, and what heads decay by: the steps themselves if there are rates for elements.
    fn steps(&mut self, s: &Ssm, dt: Slot, rank: usize) -> Result<(View, View)> {
        let h = s.n_heads;
        let norm = self.state_norm_of("ssm_dt_norm", s, rank)?;
        let times = if s.v_dim > 1 { vec![0..h, 0..h] } else { std::iter::once(0..h).collect() };
        let parts = [(self.name("ssm_dt.weight"), h, times)];
        let product = self.weights.slices(self.rec, &self.name("ssm_dt"), &parts, rank)?;
        let bias = Some(self.named("ssm_dt.bias", h)?);
        let rows = self.rec.linear(dt, Product { norm, ..product })?;
        let steps = self.rec.view(rows, 0, h)?;
        self.rec.act(steps, Act::Softplus, bias, None)?;
        if s.v_dim == 1 {
            return Ok((steps, steps));
        }
        let (decay, rates) = (self.rec.view(rows, h, h)?, Some(self.named("ssm_a", h)?));
        self.rec.act(decay, Act::Softplus, bias, rates)?;
        Ok((steps, decay))
    }

    /// A norm of what the state takes, if the file has one or the model has it without weights.
    fn state_norm_of(&mut self, tensor: &'static str, s: &Ssm, n: usize) -> Result<Option<Norm>> {
        let normed = match self.has(&format!("{tensor}.weight")) || self.has(tensor) {
            true => Normed::By(tensor),
            false if s.norms => Normed::Bare,
            false => Normed::No,
        };
        self.model_norm(normed, n)
    }

    fn state_norm(&mut self, tensor: &'static str, s: &Ssm, x: View) -> Result<View> {
        let Some(norm) = self.state_norm_of(tensor, s, x.cols)? else { return Ok(x) };
        let normed = self.rec.norm(x, norm)?;
        Ok(self.rec.all(normed))
    }
}
