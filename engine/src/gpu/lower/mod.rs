//! From ops to dispatches: one arm per op, none of which looks at another op. Pure; tested without a device. Row counts are
//! not known here: each dispatch says for how many rows it is meant.

mod attend;
mod heads;
mod linear;
mod picks;
mod recurrent;
mod rows;
mod sample;
mod stacks;

use std::ops::{Range, RangeInclusive};

use ir_shaders::step_word;

pub(super) use sample::{rounds, sample};

use crate::error::{Error, Result};
use crate::gpu::constants::Constants;
use crate::gpu::dispatch::{Count, Dispatch, Grid, Key, Resource};
use crate::gpu::forms::Forms;
use crate::gpu::parts::Part;
use crate::gpu::planes::{feature, units};
use crate::plan::{KvKind, Lookup, Op, Plan, Rows, Slot, View, WeightId};

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
    pub constants: &'a Constants,
    pub forms: Forms,
    pub kv: KvKind,
}

/// The word of the step that counts these rows.
fn rows_at(rows: Rows) -> u32 {
    match rows {
        Rows::Tokens | Rows::Sources | Rows::Adapted => step_word("STEP_N_TOKENS"),
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
        for at in range {
            let (entry, done) = (&self.plan.ops[at], out.len());
            self.op(&entry.op, &mut out)?;
            out.extend(entry.op.writes().and_then(|slot| self.blocks(slot)));
            for dispatch in &mut out[done..] {
                dispatch.op = at;
                // What only pooling needs: other steps pass it over.
                if entry.when == Rows::Pools && dispatch.grid.count == Count::Rows(Rows::Tokens) {
                    dispatch.grid.count = Count::Pooled;
                }
                // What reads sources is in steps of sources alone.
                if entry.when == Rows::Sources {
                    dispatch.of_sources();
                }
                // And what only adapters need.
                if let (Rows::Adapted, Count::Rows(rows)) = (entry.when, dispatch.grid.count) {
                    dispatch.grid.count = Count::Adapted(rows);
                }
            }
        }
        Ok(out)
    }

    fn op(&self, op: &Op, out: &mut Vec<Dispatch>) -> Result<()> {
        match *op {
            Op::Embed { table, by, out: to } => self.embed(table, by, to, out),
            Op::AdapterScales { out: to } => {
                out.push(self.elementwise("adapter_scales", &[], &[("out", to)], to, &[]));
            }
            Op::Route { x, bias, routing, out: to } => out.push(self.route(x, bias, &routing, to)?),
            Op::ExpertLinear { x, each, pick, weight, scale, bias, then } => {
                self.expert_linear(x, each, pick, weight, [scale, bias], then, out)?;
            }
            Op::HeadLinear { x, weight, n_heads, pass, out: to } => self.head_linear(x, weight, n_heads, pass, to, out),
            Op::Combine { x, pick, weighted, out: to } => {
                out.push(self.combine(x, pick, weighted, to));
            }
            Op::Gate { x, gate, act, group } => out.push(self.gate(x, gate, act, group)),
            Op::Mix { x, coef, width, out: to } => out.push(self.mix(x, coef, width, to)),
            Op::Conv { x, weight, bias, act, state, out: to } => {
                out.push(self.conv(x, weight, bias, act, state, to)?);
            }
            Op::Recur { q, k, v, decay, rates, beta, v_scale, skip, form, state, out: to } => {
                let op = recurrent::Recur { q, k, v, decay, rates, beta, v_scale, skip, form, state, to };
                out.push(self.recur(&op)?);
            }
            Op::Norm { x, norm, out: to } => out.push(self.norm(x, &norm, self.all(to), ANY)),
            Op::Linear { x, norm, weight, scale, bias, then } => {
                self.linear(x, norm, weight, [scale, bias], then, out)?;
            }
            Op::Rope { x, head_dim, first, rope } => out.push(self.rope(x, head_dim, first, rope)),
            Op::KvWrite { k, tail, v, layer } => out.push(self.kv_write(k, tail, v, layer)),
            Op::Select { q, weights, layer, out: to } => out.push(self.select(q, weights, layer, to)?),
            Op::Balance { x, n, rounds, eps } => out.push(self.balance(x, n, rounds, eps)?),
            Op::Attend {
                q,
                layer,
                n_heads,
                scale,
                cap,
                mask,
                window,
                chunk,
                chosen,
                temperature,
                slopes,
                relative,
                sinks,
                out: to,
            } => {
                let op = attend::Attend {
                    q,
                    layer,
                    n_heads,
                    scale,
                    cap,
                    mask,
                    window,
                    chunk,
                    chosen,
                    temperature,
                    slopes,
                    relative,
                    sinks,
                    to,
                };
                attend::attend(self, &op, out)?;
            }
            Op::Act { x, act, bias, factor } => out.push(self.act(x, act, bias, factor)),
            Op::Glu { x, gated, out: to } => out.push(self.glu(x, gated, to, 1)),
            Op::Add { x, y, factor } => {
                out.push(self.elementwise("add", &[], &[("x", x), ("y", y)], x, &[("factor", factor.to_bits())]));
            }
            Op::Scale { x, factor, weight } => out.push(self.scale(x, factor, weight)),
            Op::Softcap { x, cap } => {
                out.push(self.elementwise("softcap", &[], &[("x", x)], x, &[("cap", cap.to_bits())]));
            }
            Op::TakeRows { x, out: to } => {
                out.push(self.elementwise("take_rows", &[], &[("x", x), ("out", to)], to, &[]));
            }
            Op::TakeCols { x, columns, out: to } => {
                let at = [("columns_at", self.constants.word(Some(columns)))];
                out.push(self.elementwise("take_cols", &[], &[("x", x), ("out", to)], to, &at));
            }
            Op::Pool { x, out: to } => out.push(self.elementwise("pool", &[], &[("x", x), ("out", to)], to, &[])),
        }
        Ok(())
    }

    fn part(&self, weight: WeightId) -> &[Part] {
        &self.parts[weight.0 as usize]
    }

    fn buffer(&self, slot: Slot) -> Resource {
        Resource::Buffer(self.plan.slot(slot).buffer)
    }

    /// All columns of a slot.
    fn all(&self, slot: Slot) -> View {
        View { slot, start: 0, cols: self.plan.slot(slot).cols }
    }

    fn embed(&self, table: WeightId, by: Lookup, to: Slot, out: &mut Vec<Dispatch>) {
        let more: &[&str] = match by {
            Lookup::Token => &[],
            Lookup::Position => &["POSITION"],
            Lookup::Segment => &["SEGMENT"],
        };
        let cols = self.plan.weight(table).cols;
        for (index, part) in self.part(table).iter().enumerate() {
            let planes = part.layout.starts.map(|byte| (byte / 16) as u32);
            for range in part.joined().iter().filter(|r| r.at == 0) {
                out.push(Dispatch {
                    key: Key {
                        kernel: "embed",
                        features: [&[feature(part.dtype)], more].concat(),
                        consts: vec![("WG", WG)],
                    },
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

    /// The word of the step that says where the page tables of a cache's group begin.
    pub(super) fn tables(&self, layer: usize) -> u32 {
        crate::gpu::step::tables_word(self.plan.kv_groups[layer])
    }

    /// The feature that says how pages are stored.
    pub(super) fn kv_features(&self) -> Vec<&'static str> {
        match self.kv {
            KvKind::F16 => vec!["KV_F16"],
            KvKind::Blocks8 => vec!["KV_Q8"],
            KvKind::F32 => vec![],
        }
    }

    /// An error about a shape that the kernels cannot take.
    pub(super) fn too_large(what: String) -> Error {
        Error::unsupported(format!("{what}: run this model with --device cpu"))
    }
}
