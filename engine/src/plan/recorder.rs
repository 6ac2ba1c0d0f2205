//! The recorder: one method per op, shapes checked as they are recorded. Looks eager, only appends to a list.

use super::slots::{self, Shape};
use super::{
    Act, BufferInfo, Entry, KvShape, NormKind, Op, Plan, RopeTable, Rows, Slot, SlotInfo, View, Weight, WeightId,
};
use crate::error::{Error, Result};

/// Appends ops to a plan. Nothing is computed and no device is needed.
#[derive(Debug, Default)]
pub struct Recorder {
    ops: Vec<Entry>,
    shapes: Vec<Shape>,
    weights: Vec<Weight>,
    ropes: Vec<RopeTable>,
    kv: Vec<KvShape>,
    scope: String,
    group: usize,
    depth: usize,
    when: Rows,
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

    /// Records the ops of `f` as one fusion group.
    pub fn fuse<T>(&mut self, f: impl FnOnce(&mut Recorder) -> Result<T>) -> Result<T> {
        self.depth += 1;
        let result = f(self);
        self.depth -= 1;
        self.close_group();
        result
    }

    /// Records the ops of `f` for steps that have rows of this kind: nothing else may read what they write.
    pub fn only_with<T>(&mut self, rows: Rows, f: impl FnOnce(&mut Recorder) -> Result<T>) -> Result<T> {
        let before = std::mem::replace(&mut self.when, rows);
        let result = f(self);
        self.when = before;
        result
    }

    fn close_group(&mut self) {
        if self.depth == 0 && self.ops.last().is_some_and(|e| e.group == self.group) {
            self.group += 1;
        }
    }

    fn slot(&mut self, rows: Rows, cols: usize) -> Slot {
        self.shapes.push(Shape { rows, cols });
        Slot(self.shapes.len() as u32 - 1)
    }

    fn shape(&self, slot: Slot) -> Shape {
        self.shapes[slot.0 as usize]
    }

    fn push(&mut self, op: Op) {
        self.ops.push(Entry { op, group: self.group, scope: self.scope.clone(), when: self.when });
        self.close_group();
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

    /// `[Tokens, width]` from the token table.
    pub fn embed(&mut self, table: WeightId) -> Result<Slot> {
        let out = self.slot(Rows::Tokens, self.weights[table.0 as usize].cols);
        self.push(Op::Embed { table, out });
        Ok(out)
    }

    /// Normalises runs of `group` columns.
    pub fn norm(&mut self, x: View, weight: WeightId, norm: NormKind, eps: f32, group: usize) -> Result<Slot> {
        self.expect(group > 0 && x.cols.is_multiple_of(group), || format!("{} columns in groups of {group}", x.cols))?;
        self.expect_rows(weight, group)?;
        let out = self.slot(self.shape(x.slot).rows, x.cols);
        self.push(Op::Norm { x, weight, norm, eps, group, out });
        Ok(out)
    }

    /// `x * weight^T + bias`.
    pub fn linear(&mut self, x: Slot, weight: WeightId, bias: Option<WeightId>) -> Result<Slot> {
        let (shape, w) = (self.shape(x), &self.weights[weight.0 as usize]);
        let rows = w.rows();
        self.expect(w.cols == shape.cols, || {
            format!("{} takes {} columns, but its input has {}", w.name, w.cols, shape.cols)
        })?;
        if let Some(bias) = bias {
            self.expect_rows(bias, rows)?;
        }
        let out = self.slot(shape.rows, rows);
        self.push(Op::Linear { x, weight, bias, out });
        Ok(out)
    }

    /// Rotates heads in place.
    pub fn rope(&mut self, x: View, head_dim: usize, rope: usize) -> Result<()> {
        let dims = 2 * self.ropes[rope].inv_freq.len();
        self.expect(head_dim > 0 && x.cols.is_multiple_of(head_dim) && dims <= head_dim, || {
            format!("rope turns {dims} elements of heads of {head_dim} in {} columns", x.cols)
        })?;
        self.push(Op::Rope { x, head_dim, rope });
        Ok(())
    }

    /// Stores keys and values.
    pub fn kv_write(&mut self, k: View, v: View, layer: usize) -> Result<()> {
        let kv = self.kv[layer];
        let fits = k.cols == kv.n_kv_heads * kv.k_dim && v.cols == kv.n_kv_heads * kv.v_dim;
        self.expect(fits, || format!("keys of {} and values of {} columns do not fit the cache", k.cols, v.cols))?;
        self.push(Op::KvWrite { k, v, layer });
        Ok(())
    }

    /// Attention over the layer's pages.
    pub fn attend(&mut self, q: View, layer: usize, n_heads: usize, scale: f32, window: Option<u32>) -> Result<Slot> {
        let kv = self.kv[layer];
        let fits = n_heads.is_multiple_of(kv.n_kv_heads) && q.cols == n_heads * kv.k_dim;
        self.expect(fits, || {
            format!("{n_heads} query heads in {} columns do not fit {} heads of {}", q.cols, kv.n_kv_heads, kv.k_dim)
        })?;
        let out = self.slot(self.shape(q.slot).rows, n_heads * kv.v_dim);
        self.push(Op::Attend { q, layer, n_heads, scale, window, out });
        Ok(out)
    }

    /// Gated activation of `[gate | up]`.
    pub fn glu(&mut self, x: Slot, act: Act) -> Result<Slot> {
        let shape = self.shape(x);
        self.expect(shape.cols.is_multiple_of(2), || format!("{} columns are no gate and up", shape.cols))?;
        let out = self.slot(shape.rows, shape.cols / 2);
        self.push(Op::Glu { x, act, out });
        Ok(out)
    }

    /// `x += y`.
    pub fn add(&mut self, x: Slot, y: Slot) -> Result<()> {
        let (a, b) = (self.shape(x), self.shape(y));
        self.expect(a.rows == b.rows && a.cols == b.cols && x != y, || {
            format!("cannot add {} columns to {}", b.cols, a.cols)
        })?;
        self.push(Op::Add { x, y });
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
        Ok(out)
    }

    /// Ends the recording: assigns buffers.
    pub fn finish(self, logits: Slot) -> Plan {
        let pooled = self.ops.iter().find_map(|e| match e.op {
            Op::Pool { out, .. } => Some(out),
            _ => None,
        });
        let (buffer_of, buffers): (Vec<usize>, Vec<BufferInfo>) =
            slots::assign(&self.ops, &self.shapes, logits, pooled);
        let slots = self.shapes.iter().zip(buffer_of);
        Plan {
            slots: slots.map(|(s, buffer)| SlotInfo { rows: s.rows, cols: s.cols, buffer }).collect(),
            ops: self.ops,
            buffers,
            weights: self.weights,
            ropes: self.ropes,
            kv: self.kv,
            logits,
            pooled,
        }
    }
}
