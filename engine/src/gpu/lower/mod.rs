//! From ops to dispatches: one arm per op, and the fusion groups that have a kernel of their own. Pure; tested without a
//! device. Row counts are not known here: each dispatch says for how many rows it is meant.

mod attend;
mod linear;
mod rope;
mod sample;

use std::ops::{Range, RangeInclusive};

use ir_shaders::step_word;

use linear::Product;
pub(super) use sample::{rounds, sample};

use crate::error::{Error, Result};
use crate::gpu::dispatch::{Count, Dispatch, Grid, Key, Resource};
use crate::gpu::forms::Forms;
use crate::gpu::parts::Part;
use crate::gpu::planes::{feature, units};
use crate::plan::{Entry, KvKind, Op, Plan, Rows, Slot, View, WeightId};

/// Invocations of a workgroup in most kernels.
const WG: u32 = 64;
/// Products of up to this many rows read each weight once per `ROWS` rows; larger ones go by tiles.
pub(super) const FEW: usize = 8;
const ANY: RangeInclusive<usize> = 1..=usize::MAX;
const MANY: RangeInclusive<usize> = FEW + 1..=usize::MAX;

/// What lowering needs to know besides the plan.
pub(super) struct Lowering<'a> {
    pub plan: &'a Plan,
    /// The parts of each weight that is a matrix.
    pub parts: &'a [Vec<Part>],
    pub forms: Forms,
    pub kv: KvKind,
}

/// The word of the step that counts these rows.
fn rows_at(rows: Rows) -> u32 {
    match rows {
        Rows::Tokens => step_word("STEP_N_TOKENS"),
        Rows::Outputs => step_word("STEP_N_OUTPUTS"),
        Rows::Pools => step_word("STEP_N_POOLS"),
    }
}

impl Lowering<'_> {
    /// The dispatches of some of the plan's ops.
    ///
    /// # Errors
    /// Where a shape is beyond what the kernels take.
    pub(super) fn lower(&self, range: Range<usize>) -> Result<Vec<Dispatch>> {
        let mut out = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let group = self.plan.ops[at].group;
            let n = self.plan.ops[at..range.end].iter().take_while(|e| e.group == group).count();
            let done = out.len();
            let used = self.fused(&self.plan.ops[at..at + n], &mut out)?;
            for dispatch in &mut out[done..] {
                dispatch.op = at;
                // What only pooling needs: other steps pass it over.
                if self.plan.ops[at].when == Rows::Pools && dispatch.grid.count == Count::Rows(Rows::Tokens) {
                    dispatch.grid.count = Count::Pooled;
                }
            }
            at += used;
        }
        Ok(out)
    }

    /// Lowers the first op of a group's rest, with those that go with it; gives their number.
    fn fused(&self, ops: &[Entry], out: &mut Vec<Dispatch>) -> Result<usize> {
        if self.forms.fuse {
            if let Some((product, used)) = self.product(ops) {
                self.linear(&product, out)?;
                return Ok(used);
            }
            if let Some(used) = self.rope_kv(ops, out) {
                return Ok(used);
            }
        }
        self.single(&ops[0].op, out)?;
        Ok(1)
    }

    /// Whether `slot` is read by one op only, so that it need not exist.
    fn read_once(&self, slot: Slot) -> bool {
        slot != self.plan.logits && self.plan.ops.iter().filter(|e| e.op.reads().contains(&slot)).count() == 1
    }

    fn part(&self, weight: WeightId) -> &[Part] {
        &self.parts[weight.0 as usize]
    }

    fn buffer(&self, slot: Slot) -> Resource {
        Resource::Buffer(self.plan.slot(slot).buffer)
    }

    fn norm(
        &self,
        x: View,
        weight: WeightId,
        eps: f32,
        group: usize,
        out: Slot,
        when: RangeInclusive<usize>,
    ) -> Dispatch {
        let rows = self.plan.slot(x.slot).rows;
        let features = if self.forms.subgroups { vec!["SUBGROUPS"] } else { vec![] };
        let wg = if group > 512 { 256 } else { WG };
        Dispatch {
            key: Key { kernel: "norm", features, consts: vec![("WG", wg)] },
            bindings: vec![("x", self.buffer(x.slot)), ("weight", Resource::Vector(weight)), ("out", self.buffer(out))],
            params: vec![
                ("rows_at", rows_at(rows)),
                ("x_start", x.start as u32),
                ("x_stride", self.plan.slot(x.slot).cols as u32),
                ("run", group as u32),
                ("n_runs", (x.cols / group) as u32),
                ("eps", eps.to_bits()),
            ],
            grid: Grid { count: Count::Rows(rows), block: 1, times: x.cols / group, per: 1 },
            when: (rows, when),
            op: 0,
            work: 0,
        }
    }

    /// An op by itself.
    fn single(&self, op: &Op, out: &mut Vec<Dispatch>) -> Result<()> {
        let cols = |slot: Slot| self.plan.slot(slot).cols;
        match *op {
            Op::Embed { table, out: to } => self.embed(table, to, out),
            Op::Norm { x, weight, eps, group, out: to, .. } => out.push(self.norm(x, weight, eps, group, to, ANY)),
            Op::Linear { x, weight, bias, out: to } => {
                self.linear(&Product { x, weight, bias, norm: None, glu: false, add: false, out: to }, out)?;
            }
            Op::Rope { x, head_dim, rope } => out.push(self.rope(x, head_dim, rope)),
            Op::KvWrite { k, v, layer } => out.push(self.kv_write(k, v, layer)),
            Op::Attend { q, layer, n_heads, scale, window, out: to } => {
                attend::attend(self, q, layer, n_heads, scale, window, to, out)?;
            }
            Op::Glu { x, out: to, .. } => {
                out.push(self.elementwise("glu", x, vec![("x", x), ("out", to)], cols(to)));
            }
            Op::Add { x, y } => out.push(self.elementwise("add", x, vec![("x", x), ("y", y)], cols(x))),
            Op::TakeRows { x, out: to } => {
                out.push(self.elementwise("take_rows", to, vec![("x", x), ("out", to)], cols(x)));
            }
            Op::Pool { x, out: to } => {
                out.push(self.elementwise("pool", to, vec![("x", x), ("out", to)], cols(x)));
            }
        }
        Ok(())
    }

    /// A kernel with one invocation per element: `n` per row of `like`.
    fn elementwise(&self, kernel: &'static str, like: Slot, slots: Vec<(&'static str, Slot)>, n: usize) -> Dispatch {
        let rows = self.plan.slot(like).rows;
        let mut params = vec![("n", n as u32)];
        if !matches!(kernel, "take_rows" | "pool") {
            params.push(("rows_at", rows_at(rows)));
        }
        Dispatch {
            key: Key { kernel, features: vec![], consts: vec![("WG", WG)] },
            bindings: slots.into_iter().map(|(name, slot)| (name, self.buffer(slot))).collect(),
            params,
            grid: Grid { count: Count::Rows(rows), block: 1, times: n, per: WG as usize },
            when: (rows, ANY),
            op: 0,
            work: 0,
        }
    }

    fn embed(&self, table: WeightId, to: Slot, out: &mut Vec<Dispatch>) {
        let cols = self.plan.weight(table).cols;
        for (index, part) in self.part(table).iter().enumerate() {
            let planes = part.layout.starts.map(|byte| (byte / 16) as u32);
            for range in part.joined().iter().filter(|r| r.at == 0) {
                out.push(Dispatch {
                    key: Key { kernel: "embed", features: vec![feature(part.dtype)], consts: vec![("WG", WG)] },
                    bindings: vec![
                        ("w", Resource::Part(table, index)),
                        ("picked", Resource::Picked),
                        ("out", self.buffer(to)),
                    ],
                    params: vec![
                        ("row_offset", range.row as u32),
                        ("n", range.n as u32),
                        ("units", units(cols) as u32),
                        ("cols", cols as u32),
                        ("plane1", planes[1]),
                        ("plane2", planes[2]),
                        ("plane3", planes[3]),
                    ],
                    grid: Grid { count: Count::Rows(Rows::Tokens), block: 1, times: 1, per: 1 },
                    when: (Rows::Tokens, ANY),
                    op: 0,
                    work: 0,
                });
            }
        }
    }

    /// The feature that stores pages as halves.
    pub(super) fn kv_features(&self) -> Vec<&'static str> {
        match self.kv {
            KvKind::F16 => vec!["KV_F16"],
            KvKind::F32 => vec![],
        }
    }

    /// An error about a shape that the kernels cannot take.
    pub(super) fn too_large(what: String) -> Error {
        Error::unsupported(format!("{what}: run this model with --device cpu"))
    }
}
