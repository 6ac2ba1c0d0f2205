//! Walks a plan over buffers in memory. Each op's work is in `kernels`.

use std::sync::Arc;

use super::Cpu;
use super::kernels::attend::{self, Attend};
use super::kernels::conv::{self, Conv};
use super::kernels::expert_linear::{self, Gathered, Rows, Stack};
use super::kernels::kv_write::{self, Columns, KvLayer};
use super::kernels::linear;
use super::kernels::recur::{self, Recur, States};
use super::kernels::rope::{self, Angles};
use super::kernels::{
    act, adapter_scales, add, balance, combine, embed, gate, glu, head_linear, heads, mix, norm, pool, route, scale,
    select, softcap, take_cols, take_rows,
};
use super::zeroed::Zeroed;
use crate::error::{Error, Result};
use crate::plan::{
    CacheLayout, Epilogue, Heads, Inputs, KvShape, Lookup, Norm, Op, Pick, Plan, Prologue, RunnerOptions, Slot, View,
    Weight, WeightId, state_of,
};

/// A plan on the processor: activation buffers, the cache, and the small weights decoded. Matrices are read in place.
#[derive(Debug)]
pub struct CpuRunner {
    cpu: Arc<Cpu>,
    plan: Arc<Plan>,
    options: RunnerOptions,
    buffers: Vec<Zeroed<f32>>,
    vectors: Vec<Vec<f32>>,
    pub(super) kv: Vec<KvLayer>,
    pub(super) states: Vec<States>,
    angles: Vec<Angles>,
    scratch: linear::Scratch,
    gathered: Gathered,
    attend: Vec<f32>,
    n_token_ids: usize,
}

impl CpuRunner {
    /// Reserves buffers and cache. The system gives most of the memory only when it is used.
    ///
    /// # Errors
    /// Where a size overflows, or a vector of the model cannot be decoded.
    pub fn new(cpu: Arc<Cpu>, plan: Arc<Plan>, options: RunnerOptions) -> Result<CpuRunner> {
        if plan.weights.iter().flat_map(|w| &w.segments).any(|s| s.bytes.len() as u64 != s.n_bytes()) {
            return Err(Error::Reload("the model's weights are not held here"));
        }
        let too_big = || Error::limit("the model's buffers or cache exceed the address space");
        let mut buffers = Vec::new();
        for buffer in &plan.buffers {
            let n = buffer.cols.checked_mul(options.most(buffer.rows)).filter(|n| *n < isize::MAX as usize / 4);
            buffers.push(Zeroed::new(n.ok_or_else(too_big)?)?);
        }
        let cache = CacheLayout::of(&plan, options.kv).bytes(|group| options.pages(group), 0);
        usize::try_from(cache).ok().filter(|n| *n < isize::MAX as usize).ok_or_else(too_big)?;
        // A part of a model has no pages in layers that its ops do not write.
        let written: Vec<usize> = plan.ops.iter().filter_map(|e| plan.cache_written(&e.op)).collect();
        let layer = |(layer, (shape, group)): (usize, (&KvShape, &usize))| {
            let n_pages = if written.contains(&layer) { options.pages(*group) } else { 0 };
            KvLayer::new(options.kv, *shape, *group, n_pages)
        };
        let kv = plan.kv.iter().zip(&plan.kv_groups).enumerate().map(layer).collect::<Result<_>>()?;
        let vectors = plan.weights.iter().map(vector).collect::<Result<_>>()?;
        let used: Vec<usize> = plan.ops.iter().filter_map(|e| state_of(&e.op)).collect();
        let state = |(i, n): (usize, &usize)| States::new(if used.contains(&i) { *n } else { 0 }, options.n_states);
        let states = plan.states.iter().enumerate().map(state).collect::<Result<_>>()?;
        let angles = plan.ropes.iter().map(|_| Angles::default()).collect();
        let (scratch, gathered, n_token_ids) = (linear::Scratch::default(), Gathered::default(), plan.n_token_ids());
        let attend = Vec::new();
        Ok(CpuRunner {
            cpu,
            plan,
            options,
            buffers,
            vectors,
            kv,
            states,
            angles,
            scratch,
            gathered,
            attend,
            n_token_ids,
        })
    }

    /// Computes a step; gives the logits `[outputs, vocabulary]`. The inputs must have been checked.
    pub fn run(&mut self, inputs: &Inputs) -> Vec<f32> {
        self.run_from(0, inputs)
    }

    /// [`CpuRunner::run`] of a step whose ops before `first` have been computed.
    pub fn run_from(&mut self, first: usize, inputs: &Inputs) -> Vec<f32> {
        self.run_ops(first..self.plan.ops.len(), inputs);
        if self.plan.slot(self.plan.logits).rows == crate::plan::Rows::Pools {
            return Vec::new();
        }
        self.read(self.plan.logits, inputs).to_vec()
    }

    /// The means of rows that the step just computed wanted: `[pools, width]`.
    pub fn pooled(&self, inputs: &Inputs) -> Vec<f32> {
        self.plan.pooled.map_or(Vec::new(), |slot| self.read(slot, inputs).to_vec())
    }

    /// Computes these ops alone, on what the slots hold; ops that the step does not need are passed over.
    pub fn run_ops(&mut self, ops: std::ops::Range<usize>, inputs: &Inputs) {
        let plan = Arc::clone(&self.plan);
        for (angles, table) in self.angles.iter_mut().zip(&plan.ropes) {
            angles.fill(table, &inputs.positions);
        }
        for entry in plan.ops[ops].iter().filter(|e| inputs.count(e.when) > 0) {
            self.op(&plan, &entry.op, inputs);
        }
    }

    /// Overwrites a slot's rows in this step.
    pub fn set_slot(&mut self, slot: Slot, inputs: &Inputs, data: &[f32]) {
        self.write(slot, inputs, |_, out| out.copy_from_slice(data));
    }

    /// What a slot holds in this step: `rows x cols`.
    pub fn slot(&self, slot: Slot, inputs: &Inputs) -> &[f32] {
        self.read(slot, inputs)
    }

    /// The processor.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// What the runner has room for.
    pub fn options(&self) -> RunnerOptions {
        self.options
    }

    /// The plan that runs.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Rows of the token table.
    pub fn n_token_ids(&self) -> usize {
        self.n_token_ids
    }

    /// Elements that a slot has in this step.
    fn len(&self, slot: Slot, inputs: &Inputs) -> usize {
        let info = self.plan.slot(slot);
        inputs.count(info.rows) * info.cols
    }

    fn read(&self, slot: Slot, inputs: &Inputs) -> &[f32] {
        &self.buffers[self.plan.slot(slot).buffer][..self.len(slot, inputs)]
    }

    fn columns(&self, view: View, inputs: &Inputs) -> Columns<'_> {
        Columns { data: self.read(view.slot, inputs), width: self.plan.slot(view.slot).cols, view }
    }

    /// Runs `f` with the written slot's data taken out of its buffer, so that the others can be read meanwhile.
    fn write(&mut self, slot: Slot, inputs: &Inputs, f: impl FnOnce(&mut Self, &mut [f32])) {
        let (buffer, len) = (self.plan.slot(slot).buffer, self.len(slot, inputs));
        let mut data = std::mem::take(&mut self.buffers[buffer]);
        f(self, &mut data[..len]);
        self.buffers[buffer] = data;
    }

    fn op(&mut self, plan: &Plan, op: &Op, inputs: &Inputs) {
        let cpu = Arc::clone(&self.cpu);
        let (t, threads) = (cpu.table, &*cpu.pool);
        let cols = |slot: Slot| plan.slot(slot).cols;
        match *op {
            Op::Embed { table, by, out } => {
                let first;
                let ids = match by {
                    Lookup::Token => &inputs.tokens,
                    Lookup::Position => &inputs.positions,
                    Lookup::Segment if inputs.segments.is_empty() => {
                        first = vec![0; inputs.n_rows()];
                        &first
                    }
                    Lookup::Segment => &inputs.segments,
                };
                self.write(out, inputs, |_, out| embed::embed(threads, plan.weight(table), ids, out));
            }
            Op::AdapterScales { out } => {
                self.write(out, inputs, |_, out| adapter_scales::adapter_scales(&inputs.adapters, out));
            }
            Op::Norm { x, norm, out } => self.norm(x, &norm, out, inputs),
            Op::Linear { x, norm, weight, scale, bias, then } => {
                let x = match norm {
                    None => x,
                    Some(Prologue { norm, normed }) => {
                        self.norm(View { slot: x, start: 0, cols: cols(x) }, &norm, normed, inputs);
                        normed
                    }
                };
                self.write(then.product(), inputs, |me, out| {
                    let mut scratch = std::mem::take(&mut me.scratch);
                    let (weight, x) = (plan.weight(weight), me.read(x, inputs));
                    let (scale, bias) = (scale.map(|s| me.vector(s)), bias.map(|b| me.vector(b)));
                    let (segments, k, mode) = (&weight.segments, weight.cols, cpu.activations);
                    linear::linear(t, threads, &mut scratch, segments, k, x, mode, scale, bias, out);
                    me.scratch = scratch;
                });
                self.then(plan, then, 1, inputs);
            }
            Op::Rope { x, head_dim, first, rope } => self.write(x.slot, inputs, |me, data| {
                let style = plan.ropes[rope].style;
                rope::rope(threads, data, cols(x.slot), x, head_dim, first, style, &me.angles[rope]);
            }),
            Op::KvWrite { k, tail, v, layer } => {
                let mut kv = std::mem::take(&mut self.kv);
                let columns = |view: View| self.columns(view, inputs);
                kv_write::kv_write(t, inputs, columns(k), tail.map(columns), v.map(columns), &mut kv[layer]);
                self.kv = kv;
            }
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
                out,
            } => {
                self.write(out, inputs, |me, out| {
                    let mut scratch = std::mem::take(&mut me.attend);
                    let (slopes, sinks) = (slopes.map(|s| me.vector(s)), sinks.map(|s| me.vector(s)));
                    let chosen = chosen.map(|slot| me.columns(View { slot, start: 0, cols: cols(slot) }, inputs));
                    let relative = relative.map(|of| (of, me.vector(of.weight)));
                    let op = Attend {
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
                    };
                    attend::attend(t, threads, &mut scratch, inputs, me.columns(q, inputs), &me.kv[layer], op, out);
                    me.attend = scratch;
                });
            }
            Op::Select { q, weights, layer, out } => self.write(out, inputs, |me, data| {
                let both = (me.columns(q, inputs), me.columns(weights, inputs));
                select::select(t, threads, inputs, both, &me.kv[layer], cols(out), data);
            }),
            Op::Route { x, bias, routing, out } => self.write(out, inputs, |me, out| {
                let bias = bias.map(|b| me.vector(b));
                route::route(threads, me.read(x, inputs), cols(x), bias, &routing, out);
            }),
            Op::ExpertLinear { x, each, pick, weight, scale, bias, then } => {
                self.write(then.product(), inputs, |me, out| {
                    let (mut scratch, mut gathered) =
                        (std::mem::take(&mut me.scratch), std::mem::take(&mut me.gathered));
                    let (weight, Pick { picks, used, of: n }) = (plan.weight(weight), pick);
                    let (scale, bias) = (scale.map(|s| me.vector(s)), bias.map(|b| me.vector(b)));
                    let stack = Stack { segments: &weight.segments, n, k: weight.cols, scale, bias };
                    let rows = Rows { x: me.read(x, inputs), each, picks: me.read(picks, inputs), used };
                    let mode = cpu.activations;
                    expert_linear::expert_linear(t, threads, &mut scratch, &mut gathered, &stack, rows, mode, out);
                    (me.scratch, me.gathered) = (scratch, gathered);
                });
                self.then(plan, then, pick.used, inputs);
            }
            Op::HeadLinear { x, weight, n_heads, pass, out } => self.write(out, inputs, |me, out| {
                let (mut scratch, mut gathered) = (std::mem::take(&mut me.scratch), std::mem::take(&mut me.gathered));
                let weight = plan.weight(weight);
                let heads = head_linear::Heads { segments: &weight.segments, n: n_heads, k: weight.cols, pass };
                let (x, mode) = (me.read(x, inputs), cpu.activations);
                head_linear::head_linear(t, threads, &mut scratch, &mut gathered, &heads, x, mode, out);
                (me.scratch, me.gathered) = (scratch, gathered);
            }),
            Op::Combine { x, pick: Pick { picks, used, of: _ }, weighted, out } => {
                self.write(out, inputs, |me, data| {
                    let (x, picks) = (me.read(x, inputs), me.read(picks, inputs));
                    combine::combine(t, threads, x, picks, (used, weighted), cols(out), data);
                })
            }
            Op::Gate { x, gate, act, group } => self.write(x.slot, inputs, |me, data| {
                gate::gate(threads, data, cols(x.slot), x, me.columns(gate, inputs), act, group);
            }),
            Op::Mix { x, coef, width, out } => self.write(out, inputs, |me, data| {
                let (x, coef) = (me.columns(x, inputs), me.columns(coef, inputs));
                mix::mix(t, threads, x, coef, width, cols(out), data);
            }),
            Op::Conv { x, weight, bias, act, state, out } => {
                let mut states = std::mem::take(&mut self.states);
                self.write(out, inputs, |me, out| {
                    let op = Conv { weight: me.vector(weight), bias: bias.map(|b| me.vector(b)), act };
                    conv::conv(t, threads, inputs, me.columns(x, inputs), op, &mut states[state], out);
                });
                self.states = states;
            }
            Op::Recur { q, k, v, decay, rates, beta, v_scale, skip, form, state, out } => {
                let mut states = std::mem::take(&mut self.states);
                self.write(out, inputs, |me, out| {
                    let columns = |view: View| me.columns(view, inputs);
                    let (q, k, v, decay) = (columns(q), columns(k), columns(v), columns(decay));
                    let (beta, v_scale, skip) = (beta.map(columns), v_scale.map(columns), skip.map(|s| me.vector(s)));
                    let rates = rates.map(|rates| me.vector(rates));
                    let op = Recur { form, q, k, v, decay, rates, beta, v_scale, skip };
                    recur::recur(t, threads, inputs, &op, &mut states[state], out);
                });
                self.states = states;
            }
            Op::Act { x, act, bias, factor } => self.write(x.slot, inputs, |me, data| {
                let (bias, factor) = (bias.map(|b| me.vector(b)), factor.map(|f| me.vector(f)));
                act::act(t, threads, data, cols(x.slot), x, act, bias, factor);
            }),
            Op::Balance { x, n, rounds, eps } => self.write(x.slot, inputs, |_, data| {
                balance::balance(threads, data, cols(x.slot), x, n, rounds, eps);
            }),
            Op::Glu { x, gated, out } => self.write(out, inputs, |me, data| {
                glu::glu(t, threads, me.read(x, inputs), gated, cols(out), data);
            }),
            Op::Add { x, y, factor } => {
                self.write(x, inputs, |me, data| add::add(t, threads, data, me.read(y, inputs), factor));
            }
            Op::Scale { x, factor, weight } => self.write(x, inputs, |me, data| {
                scale::scale(threads, data, cols(x), factor, weight.map(|w| me.vector(w)));
            }),
            Op::Softcap { x, cap } => self.write(x, inputs, |_, data| softcap::softcap(threads, data, cap)),
            Op::TakeRows { x, out } => self.write(out, inputs, |me, data| {
                take_rows::take_rows(me.read(x, inputs), cols(x), &inputs.outputs, data);
            }),
            Op::TakeCols { x, columns, out } => self.write(out, inputs, |me, data| {
                take_cols::take_cols(threads, me.read(x, inputs), me.vector(columns), data);
            }),
            Op::Pool { x, out } => self.write(out, inputs, |me, data| {
                pool::pool(t, threads, me.read(x, inputs), cols(x), &inputs.pools, data);
            }),
        }
    }

    fn norm(&mut self, x: View, norm: &Norm, out: Slot, inputs: &Inputs) {
        let cpu = Arc::clone(&self.cpu);
        self.write(out, inputs, |me, out| {
            norm::norm(cpu.table, &cpu.pool, me.columns(x, inputs), &me.norm_of(norm), out);
        });
    }

    /// What follows a product that lies in `then`'s own slot, in `parts` equal parts of its columns.
    fn then(&mut self, plan: &Plan, then: Epilogue, parts: usize, inputs: &Inputs) {
        let cpu = Arc::clone(&self.cpu);
        let (t, threads) = (cpu.table, &*cpu.pool);
        match then {
            Epilogue::Store { out: _ } => {}
            Epilogue::Add { to, factor, product } => {
                self.write(to, inputs, |me, to| add::add(t, threads, to, me.read(product, inputs), factor));
            }
            Epilogue::Act { act, out } => self.write(out, inputs, |_, data| {
                let cols = plan.slot(out).cols;
                act::act(t, threads, data, cols, View { slot: out, start: 0, cols }, act, None, None);
            }),
            Epilogue::Glu { gated, product, out } => self.write(out, inputs, |me, data| {
                glu::glu(t, threads, me.read(product, inputs), gated, plan.slot(out).cols / parts, data);
            }),
            Epilogue::Heads { heads, out } => {
                let Heads { layer, n_heads, clamp, q_norm, k_norm, v_norm, rope, norms_after_rope } = plan.heads[heads];
                let mut kv = std::mem::take(&mut self.kv);
                self.write(out, inputs, |me, rows| {
                    let norms = [q_norm, k_norm, v_norm].map(|norm| norm.map(|norm| me.norm_of(&norm)));
                    let rope = rope.map(|rope| (plan.ropes[rope].style, &me.angles[rope]));
                    let op = heads::Heads { n_heads, clamp, norms, rope, norms_after_rope };
                    heads::heads(t, threads, inputs, rows, &op, &mut kv[layer]);
                });
                self.kv = kv;
            }
        }
    }

    fn norm_of(&self, norm: &Norm) -> norm::Norm<'_> {
        let Norm { kind, eps, group, weight, bias } = *norm;
        let (weight, bias) = (weight.map(|w| self.vector(w)), bias.map(|b| self.vector(b)));
        norm::Norm { kind, eps, group, weight, bias }
    }

    fn vector(&self, id: WeightId) -> &[f32] {
        &self.vectors[id.0 as usize]
    }
}

/// A vector's elements as f32; nothing for matrices.
fn vector(weight: &Weight) -> Result<Vec<f32>> {
    if weight.cols > 1 {
        return Ok(Vec::new());
    }
    let mut out = vec![0.0; weight.rows()];
    let mut rest = &mut out[..];
    for segment in &weight.segments {
        let (part, tail) = rest.split_at_mut(segment.rows);
        crate::quant::decode(segment.dtype, &segment.bytes, part)?;
        rest = tail;
    }
    Ok(out)
}
