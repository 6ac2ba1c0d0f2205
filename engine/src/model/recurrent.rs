//! Recurrent mixers, recorded: gated delta nets, Mamba 2, gated convolutions.

use super::forward::{Branch, Part};
use super::spec::{Layer, Normed, Ssm};
use super::weights::whole;
use crate::error::Result;
use crate::plan::{Act, Norm, NormKind, Product, Recur, Recurrence, Slot, WeightId};

impl Part<'_> {
    /// The stream behind the norm in front of the mixer.
    pub(super) fn mixer_input(&mut self, layer: &Layer, x: Slot) -> Result<Slot> {
        let norm = self.model_norm(layer.attn_norms.before, self.spec.width)?;
        self.behind(norm, x)
    }

    /// The last matrix of a mixer, behind a norm if there is one, and the norm behind it.
    pub(super) fn mixer_output(
        &mut self,
        layer: &Layer,
        input: Slot,
        tensor: &str,
        norm: Option<Norm>,
    ) -> Result<Branch> {
        let (width, cols) = (self.spec.width, self.rec.all(input).cols);
        let product = Product { norm, ..self.matrix(tensor, width, cols)? };
        Ok(Branch::Product { input, product, norm: self.model_norm(layer.attn_norms.after, width)? })
    }

    /// A vector whose name has this ending or none.
    pub(super) fn named(&mut self, tensor: &str, n: usize) -> Result<WeightId> {
        self.weights.vector(self.rec, &self.name(tensor), n)
    }

    /// The same; `None` if the file has none.
    pub(super) fn optional(&mut self, tensor: &str, n: usize) -> Result<Option<WeightId>> {
        if self.has(tensor) { self.named(tensor, n).map(Some) } else { Ok(None) }
    }

    /// Convolution of the first columns of `x`, with an activation and the file's bias if there is one.
    pub(super) fn ssm_conv(&mut self, x: Slot, start: usize, cols: usize, taps: usize) -> Result<Slot> {
        let weight = self.named("ssm_conv1d.weight", cols * taps)?;
        let bias = self.optional("ssm_conv1d.bias", cols)?;
        let view = self.rec.view(x, start, cols)?;
        self.rec.conv(view, weight, bias, taps, Some(Act::Silu))
    }

    /// `[queries, keys, values, gate, strengths, decays]` of the normed stream.
    fn delta_inputs(&mut self, s: &Ssm, qkv: usize) -> Result<Product> {
        let (h, inner, name) = (s.n_heads, s.n_heads * s.v_dim, |tensor: &str| self.name(tensor));
        let mut parts = if self.has("attn_qkv.weight") {
            vec![(name("attn_qkv.weight"), qkv, whole(qkv)), (name("attn_gate.weight"), inner, whole(inner))]
        } else {
            // Older files have everything of a key head together: query, key, values, gates.
            let ends = [s.k_dim, s.k_dim, inner / s.n_k_heads, inner / s.n_k_heads];
            let starts = [0, s.k_dim, 2 * s.k_dim, 2 * s.k_dim + ends[2]];
            let per = starts[3] + ends[3];
            let rows = |i: usize| (0..s.n_k_heads).map(move |g| g * per + starts[i]..g * per + starts[i] + ends[i]);
            vec![(name("ssm_in.weight"), qkv + inner, (0..4).flat_map(rows).collect())]
        };
        if self.has("ssm_ba.weight") {
            // For each key head the strengths of its value heads, then their decays.
            let r = h / s.n_k_heads;
            let rows = |at: usize| (0..s.n_k_heads).map(move |g| (2 * g + at) * r..(2 * g + at + 1) * r);
            parts.push((name("ssm_ba.weight"), 2 * h, rows(0).chain(rows(1)).collect()));
        } else {
            parts.push((name("ssm_beta.weight"), h, whole(h)));
            parts.push((name("ssm_alpha.weight"), h, whole(h)));
        }
        self.weights.slices(self.rec, &name("ssm_in"), &parts, self.spec.width)
    }

    /// A gated delta net.
    pub(super) fn delta_net(&mut self, s: &Ssm, layer: &Layer, x: Slot) -> Result<Branch> {
        let (keys, inner, h) = (s.n_k_heads * s.k_dim, s.n_heads * s.v_dim, s.n_heads);
        let (qkv, eps) = (2 * keys + inner, self.spec.norm.eps);
        let normed = self.mixer_input(layer, x)?;
        let product = self.delta_inputs(s, qkv)?;
        let rows = self.rec.linear(normed, product)?;
        let mixed = self.ssm_conv(rows, 0, qkv, s.taps)?;
        // Queries and keys of unit length: a norm without weights, over the root of the width.
        let unit = Norm { kind: NormKind::Rms, eps: eps / s.k_dim as f32, group: s.k_dim, weight: None, bias: None };
        let view = self.rec.view(mixed, 0, 2 * keys)?;
        let qk = self.rec.norm(view, unit)?;
        let root = 1.0 / (s.k_dim as f32).sqrt();
        let beta = self.rec.view(rows, qkv + inner, h)?;
        self.rec.act(beta, Act::Sigmoid, None, None)?;
        let decay = self.rec.view(rows, qkv + inner + h, h)?;
        let (bias, factor) = (self.named("ssm_dt.bias", h)?, self.named("ssm_a", h)?);
        self.rec.act(decay, Act::Softplus, Some(bias), Some(factor))?;
        let (q, k) = (self.rec.view(qk, 0, keys)?, self.rec.view(qk, keys, keys)?);
        let v = self.rec.view(mixed, 2 * keys, inner)?;
        let form = Recurrence { q_scale: root * root, ..s.recurrence(root) };
        let recur = Recur { q, k, v, decay, rates: None, beta: Some(beta), v_scale: None, skip: None };
        let seen = self.rec.recur(form, recur)?;
        let norm = self.model_norm(Normed::By("ssm_norm"), s.v_dim)?;
        let out = self.behind(norm, seen)?;
        let gate = self.rec.view(rows, qkv, inner)?;
        self.rec.gate(self.rec.all(out), gate, Act::Silu, 1)?;
        self.mixer_output(layer, out, "ssm_out", None)
    }

    /// Mamba 2.
    pub(super) fn mamba2(&mut self, s: &Ssm, layer: &Layer, x: Slot) -> Result<Branch> {
        let (keys, inner, h) = (s.n_k_heads * s.k_dim, s.n_heads * s.v_dim, s.n_heads);
        let (mixed_cols, all) = (inner + 2 * keys, 2 * inner + 2 * keys + h);
        let normed = self.mixer_input(layer, x)?;
        // The steps twice: as they are, and as logarithms of decay.
        let parts = [(self.name("ssm_in.weight"), all, vec![0..all, all - h..all])];
        let weight = self.weights.slices(self.rec, &self.name("ssm_in"), &parts, self.spec.width)?;
        let rows = self.rec.linear(normed, weight)?;
        let mixed = self.ssm_conv(rows, inner, mixed_cols, s.taps)?;
        let (bias, factor) = (self.named("ssm_dt.bias", h)?, self.named("ssm_a", h)?);
        let (dt, decay) = (self.rec.view(rows, all - h, h)?, self.rec.view(rows, all, h)?);
        self.rec.act(dt, Act::Softplus, Some(bias), None)?;
        self.rec.act(decay, Act::Softplus, Some(bias), Some(factor))?;
        let v = self.rec.view(mixed, 0, inner)?;
        let (k, q) = (self.rec.view(mixed, inner, keys)?, self.rec.view(mixed, inner + keys, keys)?);
        let skip = Some(self.named("ssm_d", h)?);
        let recur = Recur { q, k, v, decay, rates: None, beta: None, v_scale: Some(dt), skip };
        let seen = self.rec.recur(s.recurrence(1.0), recur)?;
        let gate = self.rec.view(rows, 0, inner)?;
        self.rec.gate(self.rec.all(seen), gate, Act::Silu, 1)?;
        let norm = match self.has("ssm_norm.weight") {
            true => self.norm(self.spec.norm, Normed::By("ssm_norm"), &[inner], inner / s.n_k_heads)?,
            false => None,
        };
        self.mixer_output(layer, seen, "ssm_out", norm)
    }

    /// `out(c * conv(b * u))` with `b`, `c` and `u` of the normed stream.
    pub(super) fn short_conv(&mut self, taps: usize, layer: &Layer, x: Slot) -> Result<Branch> {
        let width = self.spec.width;
        let normed = self.mixer_input(layer, x)?;
        let name = self.name("shortconv.in_proj.weight");
        let mut product = |part: &str, range| {
            let parts = [(name.clone(), 3 * width, vec![range])];
            let weight = self.weights.slices(self.rec, &format!("{}.{part}", self.name("shortconv")), &parts, width)?;
            self.rec.linear(normed, weight)
        };
        let (b, cu) = (product("b", 0..width)?, product("cu", width..3 * width)?);
        let u = self.rec.view(cu, width, width)?;
        self.rec.gate(u, self.rec.all(b), Act::Identity, 1)?;
        let weight = self.named("shortconv.conv.weight", width * taps)?;
        let mixed = self.rec.conv(u, weight, None, taps, None)?;
        let c = self.rec.view(cu, 0, width)?;
        self.rec.gate(self.rec.all(mixed), c, Act::Identity, 1)?;
        self.mixer_output(layer, mixed, "shortconv.out_proj", None)
    }
}

impl Ssm {
    /// Queries and keys have this factor.
    pub(super) fn recurrence(&self, scale: f32) -> Recurrence {
        let Ssm { taps: _, n_heads, n_k_heads, k_dim, v_dim, tiled, norms: _ } = *self;
        Recurrence { n_heads, n_k_heads, k_dim, v_dim, tiled, q_scale: scale, k_scale: scale }
    }
}
