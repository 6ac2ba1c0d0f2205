//! Attention over grouped heads, recorded.

use super::forward::{Branch, Part};
use super::spec::{Heads, Layer, NormStyle, Normed};
use super::weights::whole;
use crate::error::{Error, Result};
use crate::plan::{self, Attend, KvShape, Norm, NormKind, Product, Slot, View};

impl Part<'_> {
    pub(super) fn heads(&mut self, h: &Heads, layer: &Layer, x: Slot) -> Result<Branch> {
        let width = self.spec.width;
        let norm = self.model_norm(layer.attn_norms.before, width)?;
        // Queries may have their gates behind them in the file.
        let q_rows = self.weights.dims(&self.name("attn_q.weight")).and_then(|dims| dims.get(1).copied());
        let gated = q_rows == Some(2 * (h.n_heads * h.head_dim) as u64);
        let (q, cache) = match h.shared {
            Some(of) => self.queries(h, of, norm, x)?,
            None => self.queries_keys_values(h, gated, norm, x)?,
        };
        let Heads { n_heads, scale, cap, mask, window, chunk, temperature, .. } = *h;
        let slopes =
            h.alibi.map(|most| self.weights.constant(self.rec, "slopes", Some(&slopes(n_heads, most)), n_heads));
        let sinks = self.optional("attn_sinks.weight", n_heads)?;
        let relative = self.relative(h)?;
        let whole = Attend::plain(cache, n_heads, scale);
        let attend = Attend { cap, mask, window, chunk, temperature, slopes, relative, sinks, ..whole };
        let seen = self.rec.attend(q, attend)?;
        if h.out_scale != 1.0 {
            self.rec.scale(seen, h.out_scale, None)?;
        }
        let cols = n_heads * h.v_dim;
        if self.has("attn_gate.weight") || gated {
            self.gate(h, gated, norm, x, seen)?;
        }
        let sub_norm = self.part_norm("attn_sub_norm", cols)?;
        let product = self.product("attn_output", &[h.out], &[width], cols)?;
        let norm = self.norm_after(layer.attn_norms)?;
        Ok(Branch::Product { input: seen, product: Product { norm: sub_norm, ..product }, norm })
    }

    /// Queries, and the cache that their keys and values go to.
    fn queries_keys_values(&mut self, h: &Heads, gated: bool, norm: Option<Norm>, x: Slot) -> Result<(View, usize)> {
        let width = self.spec.width;
        let (q, k, v) = (h.n_heads * h.head_dim, h.n_kv_heads * h.head_dim, h.n_kv_heads * h.v_dim);
        let product = match self.has("attn_qkv.weight") {
            true => self.matrix("attn_qkv", q + k + v, width)?,
            false if gated => self.beside_gates(h, [q, k, v])?,
            // Without values of their own, keys are values too, as they are in front of norm and rotation.
            false if !self.has("attn_v.weight") && k == v => {
                self.product("attn_qkv", &["attn_q", "attn_k", "attn_k"], &[q, k, k], width)?
            }
            false => self.product("attn_qkv", &["attn_q", "attn_k", "attn_v"], &[q, k, v], width)?,
        };
        let q_norm = self.head_norm(h, "attn_q_norm", q)?;
        // Keys have one only if queries have one.
        let k_norm = if q_norm.is_some() { self.head_norm(h, "attn_k_norm", k)? } else { None };
        let bare = Norm { kind: NormKind::Rms, eps: h.qk_norm.eps, group: h.v_dim, weight: None, bias: None };
        let shape = KvShape { n_kv_heads: h.n_kv_heads, k_dim: h.head_dim, v_dim: h.v_dim, v_in_k: false };
        let layer = self.rec.kv_layer(shape);
        self.caches.push((self.index, layer));
        let heads = plan::Heads {
            layer,
            n_heads: h.n_heads,
            clamp: h.clamp,
            q_norm,
            k_norm,
            v_norm: h.v_norm.then_some(bare),
            rope: h.rope.as_ref().map(|table| self.rec.rope_table(table.clone())),
            norms_after_rope: h.qk_norm_after_rope,
        };
        Ok((self.rec.linear_heads(x, Product { norm, ..product }, heads)?, layer))
    }

    /// Queries of a layer that reads the keys and values of layer `of`, and their cache.
    fn queries(&mut self, h: &Heads, of: usize, norm: Option<Norm>, x: Slot) -> Result<(View, usize)> {
        let cache = self.caches.iter().find(|(layer, _)| *layer == of).map(|(_, cache)| *cache);
        let cache = cache.ok_or_else(|| Error::format(format!("layer {of} has no keys and values to share")))?;
        let cols = h.n_heads * h.head_dim;
        let product = match self.has("attn_qkv.weight") {
            true => {
                let all = cols + h.n_kv_heads * (h.head_dim + h.v_dim);
                let parts = [(self.name("attn_qkv.weight"), all, whole(cols))];
                self.slices("attn_q", &parts, self.spec.width)?
            }
            false => self.matrix("attn_q", cols, self.spec.width)?,
        };
        let rows = self.rec.linear(x, Product { norm, ..product })?;
        let norm = self.head_norm(h, "attn_q_norm", cols)?;
        let q = self.behind(norm, rows)?;
        if let Some(table) = &h.rope {
            let rope = self.rec.rope_table(table.clone());
            self.rec.rope(self.rec.all(q), h.head_dim, 0, rope)?;
        }
        Ok((self.rec.all(q), cache))
    }

    /// Queries, keys and values of a file whose tensor of queries has each head's gate behind its query.
    fn beside_gates(&mut self, h: &Heads, [q, k, v]: [usize; 3]) -> Result<Product> {
        let name = |tensor: &str| self.name(tensor);
        let queries = (0..h.n_heads).map(|i| 2 * i * h.head_dim..(2 * i + 1) * h.head_dim).collect();
        let parts = [
            (name("attn_q.weight"), 2 * q, queries),
            (name("attn_k.weight"), k, whole(k)),
            (name("attn_v.weight"), v, whole(v)),
        ];
        self.slices("attn_qkv", &parts, self.spec.width)
    }

    /// A gate on what attention saw: an element for each column, or for each head. It has a tensor of its own, or lies
    /// `inside` that of the queries.
    fn gate(&mut self, h: &Heads, inside: bool, norm: Option<Norm>, x: Slot, seen: Slot) -> Result<()> {
        let cols = h.n_heads * h.v_dim;
        let per_head = !inside && self.rows_of("attn_gate")? == h.n_heads;
        let n = if per_head { h.n_heads } else { cols };
        let product = if inside {
            let gates = (0..h.n_heads).map(|i| (2 * i + 1) * h.head_dim..(2 * i + 2) * h.head_dim).collect();
            let parts = [(self.name("attn_q.weight"), 2 * h.n_heads * h.head_dim, gates)];
            self.slices("attn_gate", &parts, self.spec.width)?
        } else {
            self.matrix("attn_gate", n, self.spec.width)?
        };
        let gate = self.rec.linear(x, Product { norm, ..product })?;
        self.rec.gate(self.rec.all(seen), self.rec.all(gate), h.gate, cols / n)
    }

    /// A norm on queries or keys of `cols` columns, if the family or the file has one: by heads with common weights, weights
    /// of their own, or a factor for each, or, if the weights are as long as all heads of a file whose weights are a vector,
    /// over the whole row.
    fn head_norm(&mut self, h: &Heads, tensor: &'static str, cols: usize) -> Result<Option<Norm>> {
        let weight = format!("{}.weight", self.name(tensor));
        let Some(dims) = self.weights.dims(&weight).map(<[u64]>::to_vec) else {
            let NormStyle { kind, eps } = h.qk_norm;
            let bare = Norm { kind, eps, group: h.head_dim, weight: None, bias: None };
            return Ok(h.qk_norm_bare.then_some(bare));
        };
        if dims == [1, (cols / h.head_dim) as u64] {
            let NormStyle { kind, eps } = h.qk_norm;
            let weight = self.weights.repeated(self.rec, &weight, &vec![h.head_dim; cols / h.head_dim], 1.0)?;
            return Ok(Some(Norm { kind, eps, group: h.head_dim, weight: Some(weight), bias: None }));
        }
        let whole = dims.len() == 1 && cols != h.head_dim && dims[0] == cols as u64;
        let group = if whole { cols } else { h.head_dim };
        self.norm(h.qk_norm, Normed::By(tensor), &[h.head_dim, cols], group)
    }
}

/// Slopes of the heads whose steepest has about `2^(-most / heads)` (ALiBi; Press et al. 2022).
pub(super) fn slopes(n_heads: usize, most: f32) -> Vec<f32> {
    let n = if n_heads.is_power_of_two() { n_heads } else { n_heads.next_power_of_two() / 2 };
    let slope = |h: usize| match h < n {
        true => (-most * (h + 1) as f32 / n as f32).exp2(),
        false => (-most * (2 * (h - n) + 1) as f32 / (2 * n) as f32).exp2(),
    };
    (0..n_heads).map(slope).collect()
}
