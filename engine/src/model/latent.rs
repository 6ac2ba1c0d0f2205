//! Latent attention, recorded in its absorbed form: keys and values of all heads are one row per token, and each head has a
//! matrix that brings its query there and one that brings back what it saw.

use super::forward::{Branch, Part};
use super::spec::{Latent, Layer, Normed};
use crate::error::Result;
use crate::plan::{Attend, KvShape, Product, Slot, WeightId};

impl Part<'_> {
    pub(super) fn latent(&mut self, l: &Latent, layer: &Layer, x: Slot) -> Result<Branch> {
        let (width, turning) = (self.spec.width, l.rope_dim);
        let normed = self.mixer_input(layer, x)?;
        let rope = l.rope.as_ref().map(|table| self.rec.rope_table(table.clone()));
        let q = self.latent_queries(l, normed)?;
        let row = self.product("attn_kv_a_mqa", &["attn_kv_a_mqa"], &[l.rank + turning], width)?;
        let row = self.rec.linear(normed, row)?;
        let tail = self.rec.view(row, l.rank, turning)?;
        if let Some(rope) = rope {
            self.rec.rope(self.rec.all(q), l.nope_dim + turning, l.nope_dim, rope)?;
            self.rec.rope(tail, turning, 0, rope)?;
        }
        let kept = self.rec.view(row, 0, l.rank)?;
        let kept = match self.norm(self.spec.norm, Normed::By("attn_kv_a_norm"), &[l.rank], l.rank)? {
            Some(norm) => self.rec.norm(kept, norm)?,
            None => row,
        };
        let shape = KvShape { n_kv_heads: 1, k_dim: l.rank + turning, v_dim: l.rank, v_in_k: true };
        let cache = self.rec.kv_layer(shape);
        self.rec.kv_write(self.rec.all(kept), Some(tail), None, cache)?;
        let to_row = self.head_matrices("attn_k_b", l, l.rank, l.nope_dim)?;
        let q = self.rec.head_linear(q, to_row, l.n_heads, turning)?;
        let seen = self.rec.attend(self.rec.all(q), Attend::plain(cache, l.n_heads, l.scale))?;
        let back = self.head_matrices("attn_v_b", l, l.v_dim, l.rank)?;
        let seen = self.rec.head_linear(seen, back, l.n_heads, 0)?;
        let product = self.product("attn_output", &["attn_output"], &[width], l.n_heads * l.v_dim)?;
        self.mixer_output(layer, seen, product)
    }

    /// Queries of all heads, through a row of their own if the file has it.
    fn latent_queries(&mut self, l: &Latent, normed: Slot) -> Result<Slot> {
        let (width, cols) = (self.spec.width, l.n_heads * (l.nope_dim + l.rope_dim));
        let dims = self.weights.dims(&self.name("attn_q_a.weight")).map(<[u64]>::to_vec);
        let rank = dims.and_then(|dims| usize::try_from(*dims.get(1)?).ok());
        let Some(rank) = rank else {
            let product = self.product("attn_q", &["attn_q"], &[cols], width)?;
            return self.rec.linear(normed, product);
        };
        let product = self.product("attn_q_a", &["attn_q_a"], &[rank], width)?;
        let row = self.rec.linear(normed, product)?;
        let norm = self.norm(self.spec.norm, Normed::By("attn_q_a_norm"), &[rank], rank)?;
        let product = self.product("attn_q_b", &["attn_q_b"], &[cols], rank)?;
        self.rec.linear(row, Product { norm, ..product })
    }

    /// A matrix for each head.
    fn head_matrices(&mut self, tensor: &str, l: &Latent, rows: usize, cols: usize) -> Result<WeightId> {
        let names = [format!("{}.weight", self.name(tensor))];
        self.weights.stack(self.rec, &self.name(tensor), &names, &[rows], (cols, l.n_heads))
    }
}
