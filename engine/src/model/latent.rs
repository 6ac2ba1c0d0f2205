//! Latent attention, recorded. Absorbed: keys and values of all heads are one row per token, and each head has a matrix that
//! brings its query there and one that brings back what it saw. Files of an older form have keys and values made of that row.

use super::forward::{Branch, Part};
use super::spec::{Index, Latent, Layer, NormStyle, Normed};
use crate::error::{Error, Result};
use crate::plan::{Act, Attend, KvShape, NormKind, Product, Slot, View, WeightId};

impl Part<'_> {
    pub(super) fn latent(&mut self, l: &Latent, layer: &Layer, x: Slot) -> Result<Branch> {
        let (width, turning) = (self.spec.width, l.rope_dim);
        let normed = self.mixer_input(layer, x)?;
        let rope = l.rope.as_ref().map(|table| self.rec.rope_table(table.clone()));
        let (q, few) = self.latent_queries(l, normed)?;
        if let Some(index) = &l.index {
            self.choose(index, few, normed)?;
        }
        let row = self.product("attn_kv_a_mqa", &["attn_kv_a_mqa"], &[l.rank + turning], width)?;
        let row = self.rec.linear(normed, row)?;
        let mut tail = if turning > 0 { Some(self.rec.view(row, l.rank, turning)?) } else { None };
        if let (Some(own), Some(norm)) = (tail, self.part_norm("attn_k_norm", turning)?) {
            let normed = self.rec.norm(own, norm)?;
            tail = Some(self.rec.all(normed));
        }
        if let (Some(rope), Some(tail)) = (rope, tail) {
            self.rec.rope(self.rec.all(q), l.nope_dim + turning, l.nope_dim, rope)?;
            self.rec.rope(tail, turning, 0, rope)?;
        }
        let kept = self.rec.view(row, 0, l.rank)?;
        let kept = match self.norm(self.spec.norm, Normed::By("attn_kv_a_norm"), &[l.rank], l.rank)? {
            Some(norm) => self.rec.norm(kept, norm)?,
            None => row,
        };
        let seen = match self.has("attn_kv_b.weight") {
            true => self.unfolded(l, q, kept, tail)?,
            false => self.absorbed(l, q, kept, tail)?,
        };
        if self.has("attn_gate.weight") {
            let (n, cols) = (self.rows_of("attn_gate")?, l.n_heads * l.v_dim);
            let product = self.product("attn_gate", &["attn_gate"], &[n], width)?;
            let gate = self.rec.linear(normed, product)?;
            self.rec.gate(self.rec.all(seen), self.rec.all(gate), Act::Sigmoid, cols / n.max(1))?;
        }
        let product = self.product("attn_output", &["attn_output"], &[width], l.n_heads * l.v_dim)?;
        self.mixer_output(layer, seen, product)
    }

    /// What the heads see over one row per token.
    fn absorbed(&mut self, l: &Latent, q: Slot, kept: Slot, tail: Option<View>) -> Result<Slot> {
        let shape = KvShape { n_kv_heads: 1, k_dim: l.rank + l.rope_dim, v_dim: l.rank, v_in_k: true };
        let cache = self.rec.kv_layer(shape);
        self.rec.kv_write(self.rec.all(kept), tail, None, cache)?;
        let to_row = self.head_matrices("attn_k_b", l, l.rank, l.nope_dim)?;
        let q = self.rec.head_linear(q, to_row, l.n_heads, l.rope_dim)?;
        let chosen = self.chosen.filter(|_| l.index.is_some());
        let attend = Attend { window: l.window, chosen, ..Attend::plain(cache, l.n_heads, l.scale) };
        let seen = self.rec.attend(self.rec.all(q), attend)?;
        let back = self.head_matrices("attn_v_b", l, l.v_dim, l.rank)?;
        self.rec.head_linear(seen, back, l.n_heads, 0)
    }

    /// The same with keys and values of every head, from files that hold both matrices as one.
    fn unfolded(&mut self, l: &Latent, q: Slot, kept: Slot, tail: Option<View>) -> Result<Slot> {
        let (h, n, v) = (l.n_heads, l.nope_dim, l.v_dim);
        let keys = (0..h).map(|i| i * (n + v)..i * (n + v) + n);
        let values = (0..h).map(|i| i * (n + v) + n..(i + 1) * (n + v));
        let parts = [(self.name("attn_kv_b.weight"), h * (n + v), keys.chain(values).collect())];
        let product = self.weights.slices(self.rec, &self.name("attn_kv_b"), &parts, l.rank)?;
        let rows = self.rec.linear(kept, product)?;
        let shape = KvShape { n_kv_heads: h, k_dim: n + l.rope_dim, v_dim: v, v_in_k: false };
        let cache = self.rec.kv_layer(shape);
        let v = self.rec.view(rows, h * n, h * v)?;
        let (k, tail) = match tail {
            // Keys that turn as a whole are the same for all heads.
            Some(tail) if n == 0 => {
                let ones = self.constants(kept, "ones", &vec![1.0; h])?;
                let copies = self.rec.mix(tail, self.rec.all(ones), l.rope_dim)?;
                (self.rec.all(copies), None)
            }
            tail => (self.rec.view(rows, 0, h * n)?, tail),
        };
        self.rec.kv_write(k, tail, Some(v), cache)?;
        self.rec.attend(self.rec.all(q), Attend::plain(cache, h, l.scale))
    }

    /// The positions that a layer's index chooses, from then on.
    fn choose(&mut self, index: &Index, few: Option<Slot>, normed: Slot) -> Result<()> {
        let width = self.spec.width;
        let Index { n_heads, dim, top, .. } = *index;
        if !index.own {
            return Ok(());
        }
        let few = few.ok_or_else(|| Error::unsupported("an index of keys without a row of its own for queries"))?;
        let rank = self.rows_of("attn_q_a")?;
        let rope = self.rec.rope_table(index.rope.clone());
        let product = self.product("indexer.attn_q_b", &["indexer.attn_q_b"], &[n_heads * dim], rank)?;
        let q = self.rec.linear(few, product)?;
        self.rec.rope(self.rec.all(q), dim, 0, rope)?;
        let product = self.product("indexer.attn_k", &["indexer.attn_k"], &[dim], width)?;
        let k = self.rec.linear(normed, product)?;
        let style = NormStyle { kind: NormKind::Layer, eps: 1e-6 };
        let k = match self.norm(style, Normed::By("indexer.k_norm"), &[dim], dim)? {
            Some(norm) => self.rec.norm(self.rec.all(k), norm)?,
            None => k,
        };
        self.rec.rope(self.rec.all(k), dim, 0, rope)?;
        let cache = self.rec.kv_layer(KvShape { n_kv_heads: 1, k_dim: dim, v_dim: dim, v_in_k: true });
        self.rec.kv_write(self.rec.all(k), None, None, cache)?;
        let product = self.product("indexer.proj", &["indexer.proj"], &[n_heads], width)?;
        let weights = self.rec.linear(normed, product)?;
        self.chosen = Some(self.rec.select(self.rec.all(q), self.rec.all(weights), cache, top)?);
        Ok(())
    }

    /// Queries of all heads, and the row that they come through if the file has it.
    fn latent_queries(&mut self, l: &Latent, normed: Slot) -> Result<(Slot, Option<Slot>)> {
        let (width, cols) = (self.spec.width, l.n_heads * (l.nope_dim + l.rope_dim));
        let dims = self.weights.dims(&self.name("attn_q_a.weight")).map(<[u64]>::to_vec);
        let rank = dims.and_then(|dims| usize::try_from(*dims.get(1)?).ok());
        let Some(rank) = rank else {
            let product = self.product("attn_q", &["attn_q"], &[cols], width)?;
            return Ok((self.rec.linear(normed, product)?, None));
        };
        let product = self.product("attn_q_a", &["attn_q_a"], &[rank], width)?;
        let row = self.rec.linear(normed, product)?;
        let product = self.product("attn_q_b", &["attn_q_b"], &[cols], rank)?;
        let norm = self.norm(self.spec.norm, Normed::By("attn_q_a_norm"), &[rank], rank)?;
        if l.index.is_none() {
            return Ok((self.rec.linear(row, Product { norm, ..product })?, None));
        }
        let row = match norm {
            Some(norm) => self.rec.norm(self.rec.all(row), norm)?,
            None => row,
        };
        Ok((self.rec.linear(row, product)?, Some(row)))
    }

    /// A matrix for each head.
    fn head_matrices(&mut self, tensor: &str, l: &Latent, rows: usize, cols: usize) -> Result<WeightId> {
        let names = [format!("{}.weight", self.name(tensor))];
        self.weights.stack(self.rec, &self.name(tensor), &names, &[rows], (cols, l.n_heads))
    }
}
