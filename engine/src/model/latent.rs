//! Latent attention, recorded. Absorbed: keys and values of all heads are one row per token, and each head has a matrix that
//! brings its query there and one that brings back what it saw. Files of an older form have keys and values made of that row.

use super::forward::{Branch, Part};
use super::spec::{Index, Latent, Layer, NormStyle, Normed};
use crate::error::{Error, Result};
use crate::plan::{Act, Attend, KvShape, NormKind, Product, Slot, View, WeightId};

impl Part<'_> {
    pub(super) fn latent(&mut self, l: &Latent, layer: &Layer, x: Slot) -> Result<Branch> {
        let turning = l.rope_dim;
        let normed = self.mixer_input(layer, x)?;
        let rope = l.rope.as_ref().map(|table| self.rec.rope_table(table.clone()));
        let (q, few) = self.latent_queries(l, normed)?;
        if let Some(index) = &l.index {
            self.choose(index, few, normed)?;
        }
        let row = self.times(normed, "attn_kv_a_mqa", l.rank + turning)?;
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
        let kept = match self.model_norm(Normed::By("attn_kv_a_norm"), l.rank)? {
            Some(norm) => self.rec.norm(kept, norm)?,
            None => row,
        };
        let seen = match self.has("attn_kv_b.weight") {
            true => self.unfolded(l, q, kept, tail)?,
            false => self.absorbed(l, q, kept, tail)?,
        };
        if self.has("attn_gate.weight") {
            let (n, cols) = (self.rows_of("attn_gate")?, l.n_heads * l.v_dim);
            let gate = self.times(normed, "attn_gate", n)?;
            self.rec.gate(self.rec.all(seen), self.rec.all(gate), Act::Sigmoid, cols / n.max(1))?;
        }
        self.mixer_output(layer, seen, "attn_output", None)
    }

    /// What the heads see over one row per token.
    fn absorbed(&mut self, l: &Latent, q: Slot, kept: Slot, tail: Option<View>) -> Result<Slot> {
        let shape = KvShape { n_kv_heads: 1, k_dim: l.rank + l.rope_dim, v_dim: l.rank, v_in_k: true };
        let cache = self.rec.kv_layer(shape);
        self.rec.kv_write(self.rec.all(kept), tail, None, cache)?;
        let to_row = self.head_matrices("attn_k_b", l, l.rank, l.nope_dim)?;
        let q = self.rec.head_linear(q, to_row, l.n_heads, l.rope_dim)?;
        let chosen = self.chosen.filter(|_| l.index.is_some());
        let sinks = self.optional("attn_sinks.weight", l.n_heads)?;
        let attend = Attend { window: l.window, chosen, sinks, ..Attend::plain(cache, l.n_heads, l.scale) };
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
        let Index { n_heads, dim, top, first, eps, .. } = *index;
        if !index.own {
            return Ok(());
        }
        let few = few.ok_or_else(|| Error::unsupported("an index of keys without a row of its own for queries"))?;
        let rope = self.rec.rope_table(index.rope.clone());
        let q = self.times(few, "indexer.attn_q_b", n_heads * dim)?;
        self.rec.rope(self.rec.all(q), dim, first, rope)?;
        let k = self.times(normed, "indexer.attn_k", dim)?;
        let style = NormStyle { kind: NormKind::Layer, eps };
        let norm = self.norm(style, Normed::By("indexer.k_norm"), &[dim], dim)?;
        let k = self.behind(norm, k)?;
        self.rec.rope(self.rec.all(k), dim, first, rope)?;
        let cache = self.rec.kv_layer(KvShape { n_kv_heads: 1, k_dim: dim, v_dim: dim, v_in_k: true });
        self.rec.kv_write(self.rec.all(k), None, None, cache)?;
        let weights = self.times(normed, "indexer.proj", n_heads)?;
        self.chosen = Some(self.rec.select(self.rec.all(q), self.rec.all(weights), cache, top)?);
        Ok(())
    }

    /// Queries of all heads, and the row that they come through if the file has it.
    fn latent_queries(&mut self, l: &Latent, normed: Slot) -> Result<(Slot, Option<Slot>)> {
        let cols = l.n_heads * (l.nope_dim + l.rope_dim);
        if !self.has("attn_q_a.weight") {
            return Ok((self.times(normed, "attn_q", cols)?, None));
        }
        let rank = self.rows_of("attn_q_a")?;
        let row = self.times(normed, "attn_q_a", rank)?;
        let product = self.matrix("attn_q_b", cols, rank)?;
        let norm = self.model_norm(Normed::By("attn_q_a_norm"), rank)?;
        if l.index.is_none() {
            return Ok((self.rec.linear(row, Product { norm, ..product })?, None));
        }
        let row = self.behind(norm, row)?;
        Ok((self.rec.linear(row, product)?, Some(row)))
    }

    /// A matrix for each head.
    fn head_matrices(&mut self, tensor: &str, l: &Latent, rows: usize, cols: usize) -> Result<WeightId> {
        let names = [format!("{}.weight", self.name(tensor))];
        self.weights.stack(self.rec, &self.name(tensor), &names, &[rows], (cols, l.n_heads))
    }
}
