//! The recorder: one method per op, shapes checked as they are recorded. Looks eager, only appends to a list.

mod adapters;
mod attend;
mod columns;
mod picks;
mod recurrent;

pub use adapters::Adapted;
pub use attend::Attend;
pub use picks::ExpertEpilogue;
pub use recurrent::Recur;

use std::collections::HashMap;

use super::slots::{self, Kept, Shape};
use super::{
    Act, Entry, Epilogue, Gated, Heads, KvShape, Lookup, Norm, Op, Plan, Prologue, RopeTable, Rows, SEGMENTS, Slot,
    View, Weight, WeightId,
};
use crate::error::{Error, Result};
use adapters::Adapters;

/// A product as it is asked for: `norm(x) * weight^T * scale + bias`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Product {
    /// `[rows, columns of x]`.
    pub weight: WeightId,
    /// In front of the product.
    pub norm: Option<Norm>,
    /// One factor per row of the weight.
    pub scale: Option<WeightId>,
    /// One summand per row of the weight.
    pub bias: Option<WeightId>,
}

impl From<WeightId> for Product {
    /// `x * weight^T`.
    fn from(weight: WeightId) -> Product {
        Product { weight, norm: None, scale: None, bias: None }
    }
}

/// Appends ops to a plan. Nothing is computed and no device is needed.
#[derive(Debug, Default)]
pub struct Recorder {
    ops: Vec<Entry>,
    shapes: Vec<Shape>,
    weights: Vec<Weight>,
    ropes: Vec<RopeTable>,
    kv: Vec<KvShape>,
    states: Vec<usize>,
    heads: Vec<Heads>,
    scope: String,
    when: Rows,
    pooled: Option<Slot>,
    adapters: Adapters,
    /// The orders of the columns of weights.
    orders: HashMap<WeightId, WeightId>,
}

impl Recorder {
    /// An empty recording.
    pub fn new() -> Recorder {
        Recorder::default()
    }

    /// Adds a weight.
    pub fn weight(&mut self, weight: Weight) -> WeightId {
        self.weights.push(weight);
        WeightId(self.weights.len() as u32 - 1)
    }

    /// Adds a rotation table, or finds the equal one that is there.
    pub fn rope_table(&mut self, table: RopeTable) -> usize {
        let found = self.ropes.iter().position(|t| *t == table);
        found.unwrap_or_else(|| {
            self.ropes.push(table);
            self.ropes.len() - 1
        })
    }

    /// Adds a layer to the cache.
    pub fn kv_layer(&mut self, shape: KvShape) -> usize {
        self.kv.push(shape);
        self.kv.len() - 1
    }

    /// Names what follows.
    pub fn scope(&mut self, name: impl Into<String>) {
        self.scope = name.into();
    }

    /// Records the ops of `f` for steps that have rows of this kind: nothing else may read what they write.
    pub fn only_with<T>(&mut self, rows: Rows, f: impl FnOnce(&mut Recorder) -> Result<T>) -> Result<T> {
        let before = self.set_when(rows);
        let result = f(self);
        self.set_when(before);
        result
    }

    /// What follows is for steps that have rows of this kind: nothing else may read what it writes. Gives the kind before.
    pub fn set_when(&mut self, rows: Rows) -> Rows {
        std::mem::replace(&mut self.when, rows)
    }

    fn slot(&mut self, rows: Rows, cols: usize) -> Slot {
        self.shapes.push(Shape { rows, cols });
        Slot(self.shapes.len() as u32 - 1)
    }

    fn shape(&self, slot: Slot) -> Shape {
        self.shapes[slot.0 as usize]
    }

    fn push(&mut self, op: Op) {
        self.ops.push(Entry { op, scope: self.scope.clone(), when: self.when });
    }

    fn expect(&self, ok: bool, what: impl FnOnce() -> String) -> Result<()> {
        if ok { Ok(()) } else { Err(Error::shape(format!("{}: {}", self.scope, what()))) }
    }

    fn expect_rows(&self, id: WeightId, rows: usize) -> Result<()> {
        let w = &self.weights[id.0 as usize];
        self.expect(w.rows() == rows && w.cols == 1, || {
            format!("{} should have {rows} elements, but is {} x {}", w.name, w.rows(), w.cols)
        })
    }

    /// All columns of a slot.
    pub fn all(&self, slot: Slot) -> View {
        View { slot, start: 0, cols: self.shape(slot).cols }
    }

    /// `cols` columns of a slot from `start`.
    pub fn view(&self, slot: Slot, start: usize, cols: usize) -> Result<View> {
        let width = self.shape(slot).cols;
        let inside = start.checked_add(cols).is_some_and(|end| end <= width) && cols > 0;
        self.expect(inside, || format!("columns {start}..{start}+{cols} do not lie in a slot of {width}"))?;
        Ok(View { slot, start, cols })
    }

    /// A slot that no op fills: whoever runs the plan writes it first. For single ops under examination.
    pub fn input(&mut self, rows: Rows, cols: usize) -> Slot {
        self.slot(rows, cols)
    }

    /// `[Tokens, width]`, or `[Sources, width]` among ops for sources, from the table of tokens, positions or segments.
    pub fn embed(&mut self, table: WeightId, by: Lookup) -> Result<Slot> {
        if by == Lookup::Segment {
            let w = &self.weights[table.0 as usize];
            self.expect(w.rows() >= SEGMENTS, || format!("{} has {} rows, not {SEGMENTS}", w.name, w.rows()))?;
        }
        let rows = if self.when == Rows::Sources { Rows::Sources } else { Rows::Tokens };
        let out = self.slot(rows, self.weights[table.0 as usize].cols);
        self.push(Op::Embed { table, by, out });
        if by == Lookup::Token {
            self.embed_adapters(table, out)?;
        }
        Ok(out)
    }

    /// Checks a norm of `cols` columns.
    fn expect_norm(&self, norm: &Norm, cols: usize) -> Result<()> {
        let group = norm.group;
        self.expect(group > 0 && cols.is_multiple_of(group), || format!("{cols} columns in groups of {group}"))?;
        for id in norm.weight.into_iter().chain(norm.bias) {
            let rows = if self.weights[id.0 as usize].rows() == cols { cols } else { group };
            self.expect_rows(id, rows)?;
        }
        Ok(())
    }

    /// Normalises runs of columns.
    pub fn norm(&mut self, x: View, norm: Norm) -> Result<Slot> {
        self.expect_norm(&norm, x.cols)?;
        let out = self.slot(self.shape(x.slot).rows, x.cols);
        self.push(Op::Norm { x, norm, out });
        Ok(out)
    }

    /// Records a product, whose result `then` places; gives the slot of the result. `then` is given the recorder, a slot
    /// for the product, and its shape.
    fn product(
        &mut self,
        x: Slot,
        product: Product,
        then: impl FnOnce(&mut Recorder, Shape) -> Result<Epilogue>,
    ) -> Result<Slot> {
        let Product { weight, norm, scale, bias } = product;
        let (shape, w) = (self.shape(x), &self.weights[weight.0 as usize]);
        let rows = w.rows();
        self.expect(w.cols == shape.cols, || {
            format!("{} takes {} columns, but its input has {}", w.name, w.cols, shape.cols)
        })?;
        for vector in scale.into_iter().chain(bias) {
            self.expect_rows(vector, rows)?;
        }
        let (own, (x, norm)) = ((x, norm), self.in_order(x, norm, weight)?);
        let norm = match norm {
            Some(norm) => {
                self.expect_norm(&norm, shape.cols)?;
                Some(Prologue { norm, normed: self.slot(shape.rows, shape.cols) })
            }
            None => None,
        };
        let then = then(self, Shape { rows: shape.rows, cols: rows })?;
        self.push(Op::Linear { x, norm, weight, scale, bias, then });
        self.add_adapters(own.0, own.1, weight, then)?;
        Ok(then.result())
    }

    /// The product by itself.
    pub fn linear(&mut self, x: Slot, product: impl Into<Product>) -> Result<Slot> {
        self.product(x, product.into(), |rec, shape| Ok(Epilogue::Store { out: rec.slot(shape.rows, shape.cols) }))
    }

    /// `to += factor * product`.
    pub fn linear_add(&mut self, x: Slot, product: impl Into<Product>, to: Slot, factor: f32) -> Result<()> {
        self.product(x, product.into(), |rec, shape| {
            let stream = rec.shape(to);
            rec.expect(to != x && stream.rows == shape.rows && stream.cols == shape.cols, || {
                format!("cannot add {} columns to {}", shape.cols, stream.cols)
            })?;
            Ok(Epilogue::Add { to, factor, product: rec.slot(shape.rows, shape.cols) })
        })?;
        Ok(())
    }

    /// `act(product)`.
    pub fn linear_act(&mut self, x: Slot, product: impl Into<Product>, act: Act) -> Result<Slot> {
        let product = product.into();
        if self.is_adapted(product.weight) {
            let out = self.linear(x, product)?;
            self.act(self.all(out), act, None, None)?;
            return Ok(out);
        }
        self.product(x, product, |rec, shape| Ok(Epilogue::Act { act, out: rec.slot(shape.rows, shape.cols) }))
    }

    /// The gated activation of the product's halves.
    pub fn linear_glu(&mut self, x: Slot, product: impl Into<Product>, gated: Gated) -> Result<Slot> {
        let product = product.into();
        if self.is_adapted(product.weight) {
            let rows = self.linear(x, product)?;
            return self.glu(rows, gated);
        }
        self.product(x, product, |rec, shape| {
            rec.expect_halves(shape.cols)?;
            let product = rec.slot(shape.rows, shape.cols);
            Ok(Epilogue::Glu { gated, product, out: rec.slot(shape.rows, shape.cols / 2) })
        })
    }

    /// Queries, keys and values, made ready for attention. Gives the view of the queries.
    pub fn linear_heads(&mut self, x: Slot, product: impl Into<Product>, heads: Heads) -> Result<View> {
        let product = product.into();
        let kv = self.kv[heads.layer];
        let q_cols = heads.n_heads * kv.k_dim;
        if self.is_adapted(product.weight) {
            let rows = self.linear(x, product)?;
            return self.heads_apart(rows, heads);
        }
        let slot = self.product(x, product, |rec, shape| {
            rec.expect_heads(&heads, shape)?;
            rec.heads.push(heads);
            Ok(Epilogue::Heads { heads: rec.heads.len() - 1, out: rec.slot(shape.rows, shape.cols) })
        })?;
        self.view(slot, 0, q_cols)
    }

    fn expect_heads(&self, heads: &Heads, shape: Shape) -> Result<()> {
        let KvShape { n_kv_heads, k_dim, v_dim, v_in_k } = self.kv[heads.layer];
        let (q, k, v) = (heads.n_heads * k_dim, n_kv_heads * k_dim, n_kv_heads * v_dim);
        let rows = matches!(shape.rows, Rows::Tokens | Rows::Sources);
        self.expect(rows && shape.cols == q + k + v && heads.n_heads > 0 && !v_in_k, || {
            format!("{} columns are no {} query heads, {n_kv_heads} keys and values", shape.cols, heads.n_heads)
        })?;
        for (norm, cols) in [(heads.q_norm, q), (heads.k_norm, k), (heads.v_norm, v)] {
            norm.map_or(Ok(()), |norm| self.expect_norm(&norm, cols))?;
        }
        heads.rope.map_or(Ok(()), |rope| self.expect_rope(q + k, k_dim, 0, rope))
    }

    fn expect_halves(&self, cols: usize) -> Result<()> {
        self.expect(cols.is_multiple_of(2), || format!("{cols} columns are no gate and up"))
    }

    fn expect_rope(&self, cols: usize, head_dim: usize, first: usize, rope: usize) -> Result<()> {
        let dims = 2 * self.ropes[rope].inv_freq.len();
        self.expect(head_dim > 0 && cols.is_multiple_of(head_dim) && dims <= head_dim - first, || {
            format!("rope turns {dims} elements of heads of {head_dim} in {cols} columns")
        })
    }

    /// Rotates heads in place, each from its element `first` on.
    pub fn rope(&mut self, x: View, head_dim: usize, first: usize, rope: usize) -> Result<()> {
        self.expect(first < head_dim, || format!("heads of {head_dim} do not turn from element {first} on"))?;
        self.expect_rope(x.cols, head_dim, first, rope)?;
        self.push(Op::Rope { x, head_dim, first, rope });
        Ok(())
    }

    /// Stores keys and values.
    pub fn kv_write(&mut self, k: View, tail: Option<View>, v: Option<View>, layer: usize) -> Result<()> {
        let kv = self.kv[layer];
        let k_cols = k.cols + tail.map_or(0, |tail| tail.cols * kv.n_kv_heads);
        let fits = k_cols == kv.n_kv_heads * kv.k_dim
            && v.is_none() == kv.v_in_k
            && v.is_none_or(|v| v.cols == kv.n_kv_heads * kv.v_dim);
        self.expect(fits, || format!("keys of {k_cols} columns and their values do not fit the cache"))?;
        self.push(Op::KvWrite { k, tail, v, layer });
        Ok(())
    }

    /// `factor * act(x + bias)`, in place.
    pub fn act(&mut self, x: View, act: Act, bias: Option<WeightId>, factor: Option<WeightId>) -> Result<()> {
        for vector in bias.into_iter().chain(factor) {
            self.expect_rows(vector, x.cols)?;
        }
        self.push(Op::Act { x, act, bias, factor });
        Ok(())
    }

    /// Gated activation of `[gate | up]`.
    pub fn glu(&mut self, x: Slot, gated: Gated) -> Result<Slot> {
        let shape = self.shape(x);
        self.expect_halves(shape.cols)?;
        let out = self.slot(shape.rows, shape.cols / 2);
        self.push(Op::Glu { x, gated, out });
        Ok(out)
    }

    /// `x += factor * y`.
    pub fn add(&mut self, x: Slot, y: Slot, factor: f32) -> Result<()> {
        let (a, b) = (self.shape(x), self.shape(y));
        self.expect(a.rows == b.rows && a.cols == b.cols && x != y, || {
            format!("cannot add {} columns to {}", b.cols, a.cols)
        })?;
        self.push(Op::Add { x, y, factor });
        Ok(())
    }

    /// `x *= factor * weight`, the weight being one element or one per column.
    pub fn scale(&mut self, x: Slot, factor: f32, weight: Option<WeightId>) -> Result<()> {
        if let Some(weight) = weight {
            let rows = if self.weights[weight.0 as usize].rows() == 1 { 1 } else { self.shape(x).cols };
            self.expect_rows(weight, rows)?;
        }
        self.push(Op::Scale { x, factor, weight });
        Ok(())
    }

    /// `x = cap * tanh(x / cap)`.
    pub fn softcap(&mut self, x: Slot, cap: f32) -> Result<()> {
        self.expect(cap.is_finite() && cap > 0.0, || format!("a soft cap of {cap}"))?;
        self.push(Op::Softcap { x, cap });
        Ok(())
    }

    /// The rows whose logits are wanted.
    pub fn take_rows(&mut self, x: Slot) -> Result<Slot> {
        let shape = self.shape(x);
        self.expect(shape.rows == Rows::Tokens, || "rows are taken once".into())?;
        let out = self.slot(Rows::Outputs, shape.cols);
        self.push(Op::TakeRows { x, out });
        Ok(out)
    }

    /// The means of rows that are wanted. A plan has one such op at most.
    pub fn pool(&mut self, x: Slot) -> Result<Slot> {
        let shape = self.shape(x);
        let first = !self.ops.iter().any(|e| matches!(e.op, Op::Pool { .. }));
        self.expect(shape.rows == Rows::Tokens && first, || "rows are pooled once".into())?;
        let out = self.slot(Rows::Pools, shape.cols);
        self.push(Op::Pool { x, out });
        self.pooled = Some(out);
        Ok(out)
    }

    /// What a step gives back of its pools: a slot made of [`Recorder::pool`]'s, which it is if nothing else is said.
    pub fn gives_pooled(&mut self, slot: Slot) {
        self.pooled = Some(slot);
    }

    /// Ends the recording: assigns buffers. `logits` is what a step gives back; of a model that has none, the slot that
    /// it gives back of its pools.
    pub fn finish(self, logits: Slot) -> Plan {
        let pooled = self.pooled;
        let results = std::iter::once(logits).chain(pooled);
        let kept = Kept { enters: Vec::new(), leaves: results.map(|slot| (usize::MAX, slot)).collect() };
        let (slots, buffers) = slots::assign(&self.ops, &self.shapes, &self.weights, &kept);
        let (windows, kv_groups) = super::layout::groups(&self.ops, self.kv.len());
        Plan {
            ops: self.ops,
            slots,
            buffers,
            weights: self.weights,
            ropes: self.ropes,
            kv: self.kv,
            windows,
            kv_groups,
            states: self.states,
            heads: self.heads,
            logits,
            pooled,
            adapters: self.adapters.scales_unsaid,
        }
    }
}
