//! Linear attention with rates of its own, recorded: delta rules with decays for elements of keys, and fixed rates.

use super::forward::{Branch, Part};
use super::spec::{Kda, Layer, Lightning, Normed};
use crate::error::Result;
use crate::plan::{Act, Norm, NormKind, Recur, Recurrence, Slot, View};

impl Part<'_> {
    /// A delta rule whose keys decay element by element.
    pub(super) fn kda(&mut self, s: &Kda, layer: &Layer, x: Slot) -> Result<Branch> {
        let (h, dim, width, n) = (s.n_heads, s.dim, self.spec.width, s.n_heads * s.dim);
        let normed = self.mixer_input(layer, x)?;
        let product = match self.has("attn_qkv.weight") {
            true => self.matrix("attn_qkv", 3 * n, width)?,
            false => self.product("attn_qkv", &["attn_q", "attn_k", "attn_v"], &[n; 3], width)?,
        };
        let rows = self.rec.linear(normed, product)?;
        let taps = ["q", "k", "v"].map(|part| self.name(&format!("ssm_conv1d_{part}.weight")));
        let taps = self.weights.matrix(self.rec, &self.name("ssm_conv1d"), &taps, &[n * s.taps; 3], 1)?;
        let mixed = self.rec.conv(self.rec.all(rows), taps, None, s.taps, Some(Act::Silu))?;
        // Queries and keys of unit length.
        let unit = Norm { kind: NormKind::Rms, eps: s.eps / dim as f32, group: dim, weight: None, bias: None };
        let view = self.rec.view(mixed, 0, 2 * n)?;
        let qk = self.rec.norm(view, unit)?;
        let decay = self.kda_decay(s, normed)?;
        let product = self.matrix("ssm_beta", h, width)?;
        let beta = self.rec.linear_act(normed, product, Act::Sigmoid)?;
        let root = 1.0 / (dim as f32).sqrt();
        let (q_scale, k_scale) = (root * root, root);
        let form = Recurrence { n_heads: h, n_k_heads: h, k_dim: dim, v_dim: dim, tiled: false, q_scale, k_scale };
        let (q, k) = (self.rec.view(qk, 0, n)?, self.rec.view(qk, n, n)?);
        let v = self.rec.view(mixed, 2 * n, n)?;
        let beta = Some(self.rec.all(beta));
        let seen = self.rec.recur(form, Recur { q, k, v, decay, rates: None, beta, v_scale: None, skip: None })?;
        let norm = self.model_norm(Normed::By("ssm_norm"), dim)?;
        let out = self.behind(norm, seen)?;
        let gate = self.narrowed("ssm_g", n, normed)?;
        self.rec.gate(self.rec.all(out), self.rec.all(gate), Act::Sigmoid, 1)?;
        self.mixer_output(layer, out, "attn_output", None)
    }

    /// Logarithms of decay of every element of the keys.
    fn kda_decay(&mut self, s: &Kda, normed: Slot) -> Result<View> {
        let n = s.n_heads * s.dim;
        let rows = self.narrowed("ssm_f", n, normed)?;
        let (decay, bias) = (self.rec.all(rows), Some(self.named("ssm_dt.bias", n)?));
        let sign = if s.lower.is_some() { s.sign } else { 1.0 };
        let rates = self.weights.repeated(self.rec, &self.name("ssm_a"), &vec![s.dim; s.n_heads], sign)?;
        let Some(lower) = s.lower else {
            self.rec.act(decay, Act::Softplus, bias, Some(rates))?;
            return Ok(decay);
        };
        self.rec.act(decay, Act::Identity, bias, Some(rates))?;
        let lower = self.weights.constant(self.rec, "lower", Some(&vec![lower; n]), n);
        self.rec.act(decay, Act::Sigmoid, None, Some(lower))?;
        Ok(decay)
    }

    /// The product with one matrix (`x`, or `x_a` if it is as wide), or with two and few columns between (`x_a`, `x_b`).
    fn narrowed(&mut self, tensor: &str, n: usize, x: Slot) -> Result<Slot> {
        let (a, b) = (format!("{tensor}_a"), format!("{tensor}_b"));
        if !self.has(&format!("{b}.weight")) {
            let one = if self.has(&format!("{a}.weight")) { a.as_str() } else { tensor };
            return self.times(x, one, n);
        }
        let between = self.rows_of(&a)?;
        let few = self.times(x, &a, between)?;
        self.times(few, &b, n)
    }

    /// Linear attention whose heads decay at fixed rates.
    pub(super) fn lightning(&mut self, s: &Lightning, layer: &Layer, x: Slot) -> Result<Branch> {
        let (h, dim, width) = (s.decay.len(), s.dim, self.spec.width);
        let n = h * dim;
        let normed = self.mixer_input(layer, x)?;
        // In the file, heads with their query, key and value.
        let rows = |at: usize| (0..h).map(move |i| (3 * i + at) * dim..(3 * i + at + 1) * dim);
        let parts = [(self.name("attn_qkv.weight"), 3 * n, rows(0).chain(rows(1)).chain(rows(2)).collect())];
        let product = self.weights.slices(self.rec, &self.name("attn_qkv"), &parts, width)?;
        let qkv = self.rec.linear_act(normed, product, Act::Silu)?;
        let decay = self.constants(normed, "decay", &s.decay)?;
        let [q, k, v] = [0, n, 2 * n].map(|at| View { slot: qkv, start: at, cols: n });
        let decay = self.rec.all(decay);
        let (q_scale, k_scale) = (1.0, 1.0);
        let form = Recurrence { n_heads: h, n_k_heads: h, k_dim: dim, v_dim: dim, tiled: false, q_scale, k_scale };
        let recur = Recur { q, k, v, decay, rates: None, beta: None, v_scale: None, skip: None };
        let seen = self.rec.recur(form, recur)?;
        let norm = self.model_norm(Normed::By("attn_norm_2"), n)?;
        let out = self.behind(norm, seen)?;
        let gate = self.times(normed, "attn_gate", n)?;
        self.rec.gate(self.rec.all(out), self.rec.all(gate), Act::Sigmoid, 1)?;
        self.mixer_output(layer, out, "attn_output", None)
    }
}
