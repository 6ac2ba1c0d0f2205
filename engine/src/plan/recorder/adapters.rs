//! Adapters (LoRA; Hu et al. 2021), recorded: beside a product, those with the two thin matrices of every adapter at once. A
//! row's factors decide what of each is added, so rows of one step may use different ones.

use std::collections::HashMap;

use super::{Recorder, Shape};
use crate::error::Result;
use crate::plan::{Act, Epilogue, Heads, Lookup, Norm, Op, Rows, Slot, View, WeightId};

/// The matrices that all adapters have beside a weight: `y += B (s * (A x))`, where `s` has a row's factor of each adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adapted {
    /// `[adapters * rank, columns of the weight]`, those of each adapter one after the other; beside a table
    /// `[rows of the table, adapters * rank]`, of which rows are looked up.
    pub a: WeightId,
    /// `[rows of the weight, adapters * rank]`; beside a table `[its columns, adapters * rank]`.
    pub b: WeightId,
}

/// What a recorder knows of adapters.
#[derive(Debug, Default)]
pub(super) struct Adapters {
    /// How much of each is used where nothing else is said.
    pub scales_unsaid: Vec<f32>,
    products: HashMap<WeightId, Adapted>,
    tables: HashMap<WeightId, Adapted>,
    /// Slots with the factors of each adapter.
    scales: HashMap<Rows, Slot>,
}

impl Recorder {
    /// Adapters may be used by rows, each so much where nothing else is said.
    pub fn set_adapters(&mut self, scales: Vec<f32>) {
        self.adapters.scales_unsaid = scales;
    }

    /// Products with this weight are adapted from here on.
    pub fn adapt(&mut self, weight: WeightId, adapted: Adapted) {
        self.adapters.products.insert(weight, adapted);
    }

    /// Rows of this table, looked up by tokens, are adapted from here on.
    pub fn adapt_table(&mut self, table: WeightId, adapted: Adapted) {
        self.adapters.tables.insert(table, adapted);
    }

    /// Whether a product with this weight is. What would follow it in one op is recorded behind it then.
    pub(super) fn is_adapted(&self, weight: WeightId) -> bool {
        self.adapters.products.contains_key(&weight)
    }

    /// The slot with the factors of adapters for rows of this kind.
    pub fn adapter_scales(&mut self, rows: Rows) -> Result<Slot> {
        if let Some(slot) = self.adapters.scales.get(&rows) {
            return Ok(*slot);
        }
        let n = self.adapters.scales_unsaid.len();
        let slot = match rows {
            Rows::Tokens | Rows::Sources => {
                let out = self.slot(rows, n);
                self.push(Op::AdapterScales { out });
                out
            }
            Rows::Outputs => {
                let of_tokens = self.adapter_scales(Rows::Tokens)?;
                self.take_rows(of_tokens)?
            }
            Rows::Pools | Rows::Adapted => {
                self.expect(false, || "products with pooled rows take no adapters".into())?;
                self.slot(rows, n)
            }
        };
        self.adapters.scales.insert(rows, slot);
        Ok(slot)
    }

    /// Adds what adapters make of `x` to the result of a product with `weight`, if it is adapted.
    pub(super) fn add_adapters(&mut self, x: Slot, norm: Option<Norm>, weight: WeightId, then: Epilogue) -> Result<()> {
        let Some(Adapted { a, b }) = self.adapters.products.get(&weight).copied() else { return Ok(()) };
        let (to, factor) = match then {
            Epilogue::Store { out } => (out, 1.0),
            Epilogue::Add { to, factor, .. } => (to, factor),
            Epilogue::Act { .. } | Epilogue::Glu { .. } | Epilogue::Heads { .. } => {
                return self.expect(false, || "an adapted product is followed by nothing in its op".into());
            }
        };
        self.only_adapted(|rec| {
            let Shape { rows, .. } = rec.shape(x);
            let scales = rec.adapter_scales(rows)?;
            let thin = rec.product(x, super::Product { weight: a, norm, scale: None, bias: None }, |rec, shape| {
                Ok(Epilogue::Store { out: rec.slot(shape.rows, shape.cols) })
            })?;
            rec.add_thin(thin, scales, b, to, factor)
        })
    }

    /// The same of rows of a table.
    pub(super) fn embed_adapters(&mut self, table: WeightId, to: Slot) -> Result<()> {
        let Some(Adapted { a, b }) = self.adapters.tables.get(&table).copied() else { return Ok(()) };
        self.only_adapted(|rec| {
            let Shape { rows, .. } = rec.shape(to);
            let scales = rec.adapter_scales(rows)?;
            let thin = rec.slot(rows, rec.weights[a.0 as usize].cols);
            rec.push(Op::Embed { table: a, by: Lookup::Token, out: thin });
            rec.add_thin(thin, scales, b, to, 1.0)
        })
    }

    fn add_thin(&mut self, thin: Slot, scales: Slot, b: WeightId, to: Slot, factor: f32) -> Result<()> {
        let (cols, n) = (self.shape(thin).cols, self.adapters.scales_unsaid.len());
        self.expect(n > 0 && cols.is_multiple_of(n), || format!("{cols} columns are not those of {n} adapters"))?;
        self.gate(self.all(thin), self.all(scales), Act::Identity, cols / n)?;
        self.linear_add(thin, b, to, factor)
    }

    /// Records ops that steps without adapters pass over. Those of sources and pools are in steps that are rare anyway.
    fn only_adapted(&mut self, f: impl FnOnce(&mut Recorder) -> Result<()>) -> Result<()> {
        let when = if self.when == Rows::Tokens { Rows::Adapted } else { self.when };
        self.only_with(when, f)
    }

    /// What [`Epilogue::Heads`] does, in ops of their own. Gives the view of the queries.
    pub(super) fn heads_apart(&mut self, rows: Slot, heads: Heads) -> Result<View> {
        let Heads { layer, n_heads, clamp, q_norm, k_norm, v_norm, rope, norms_after_rope } = heads;
        let kv = self.kv[layer];
        let (q, k, v) = (n_heads * kv.k_dim, kv.n_kv_heads * kv.k_dim, kv.n_kv_heads * kv.v_dim);
        self.expect_heads(&heads, self.shape(rows))?;
        self.expect(clamp.is_none(), || {
            "this family bounds queries, keys and values, which is not supported together with adapters of them".into()
        })?;
        let mut views = [self.view(rows, 0, q)?, self.view(rows, q, k)?, self.view(rows, q + k, v)?];
        if norms_after_rope {
            self.rope_apart(&views, kv.k_dim, rope)?;
        }
        for (view, norm) in views.iter_mut().zip([q_norm, k_norm, v_norm]) {
            if let Some(norm) = norm {
                let normed = self.norm(*view, norm)?;
                *view = self.all(normed);
            }
        }
        if !norms_after_rope {
            self.rope_apart(&views, kv.k_dim, rope)?;
        }
        let [q, k, v] = views;
        self.kv_write(k, None, Some(v), layer)?;
        Ok(q)
    }

    fn rope_apart(&mut self, views: &[View; 3], head_dim: usize, rope: Option<usize>) -> Result<()> {
        let Some(rope) = rope else { return Ok(()) };
        let [q, k, _] = *views;
        if q.slot == k.slot {
            return self.rope(View { cols: q.cols + k.cols, ..q }, head_dim, 0, rope);
        }
        self.rope(q, head_dim, 0, rope)?;
        self.rope(k, head_dim, 0, rope)
    }
}
