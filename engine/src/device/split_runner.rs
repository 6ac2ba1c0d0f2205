//! [`SplitRunner`]: a plan in parts, each on a device of its own. A step runs stage by stage (`pipeline`); what crosses from one
//! device to another are rows of activations.

use std::ops::Range;
use std::sync::Arc;

use super::micro_batches::MicroBatches;
use super::pipeline::Pipeline;
use super::split::behind_layers;
use super::{Device, Readback, Runner};
use crate::error::{Error, Result};
use crate::plan::{Inputs, Plan, RunnerOptions, Slot, Stage};

/// A plan over several devices, each with the weights and caches of its part.
#[derive(Debug)]
pub struct SplitRunner {
    plan: Arc<Plan>,
    options: RunnerOptions,
    /// By part; none for one without ops.
    runners: Vec<Option<Runner>>,
    stages: Vec<Stage>,
    /// The part of each op, and its place there.
    places: Vec<(usize, usize)>,
    /// The part that wrote a slot last, of ops that were run one by one.
    holders: Vec<Option<usize>>,
    n_token_ids: usize,
    placement: String,
    crossed: u64,
    /// Whether every part has one stage, so that a part may begin the next micro-batch before the step's end.
    once: bool,
    micro: MicroBatches,
    most_at_work: usize,
}

impl SplitRunner {
    /// Prepares the parts of a plan on their devices.
    pub(super) fn new(
        devices: &[&Device],
        plan: &Arc<Plan>,
        part_of: &[usize],
        layers: &[Range<usize>],
        options: RunnerOptions,
        micro_batches: Option<usize>,
    ) -> Result<SplitRunner> {
        let division = plan.divide(part_of)?;
        let last = division.stages.last().map_or(0, |stage| stage.part);
        let result = |slot: Slot| division.parts.iter().position(|part| part.writes(slot)).is_none_or(|p| p == last);
        if !result(plan.logits) || !plan.pooled.is_none_or(result) {
            return Err(Error::shape("the parts of a plan must end with the one that writes its results"));
        }
        let mut next = vec![0; division.parts.len()];
        let place = |part: &usize| {
            next[*part] += 1;
            (*part, next[*part] - 1)
        };
        let places = part_of.iter().map(place).collect();
        let n_parts = division.parts.iter().filter(|part| !part.ops.is_empty()).count();
        let once = division.stages.len() == n_parts;
        let mut runners = Vec::new();
        for (part, device) in division.parts.into_iter().zip(devices) {
            let has_ops = !part.ops.is_empty();
            runners.push(has_ops.then(|| device.prepare(Arc::new(part), options)).transpose()?);
        }
        Ok(SplitRunner {
            plan: Arc::clone(plan),
            options,
            runners,
            stages: division.stages,
            places,
            holders: vec![None; plan.slots.len()],
            n_token_ids: plan.n_token_ids(),
            placement: placement(devices, part_of, layers, behind_layers(plan)),
            crossed: 0,
            once,
            micro: MicroBatches::new(micro_batches),
            most_at_work: 0,
        })
    }

    /// Starts a step. Its micro-batches go through the stages one behind the other, so that devices work at the same time.
    pub(super) fn submit(&mut self, inputs: &Inputs) -> Result<Readback> {
        let mut batches = vec![];
        if self.once && !inputs.source {
            let within = self.plan.states.is_empty() && !self.plan.reads_both_ways();
            let n = self.micro.next(inputs.n_rows());
            batches = if n > 1 { inputs.micro_batches(n, within) } else { batches };
            self.micro.begun(inputs.n_rows(), n, batches.len().max(1));
        }
        let batches = if batches.is_empty() { std::slice::from_ref(inputs) } else { &batches };
        let stages = std::mem::take(&mut self.stages);
        let readback = Pipeline::new(self, &stages, batches).run();
        self.stages = stages;
        readback
    }

    /// Learns that the last step took so many seconds.
    pub(super) fn took(&mut self, seconds: f64) {
        self.micro.took(seconds);
    }

    /// How many devices were at work at the same time, at most.
    pub fn most_at_work(&self) -> usize {
        self.most_at_work
    }

    /// Copies a slot's rows from one part to another.
    fn copy(&mut self, slot: Slot, from: usize, to: usize, inputs: &Inputs) -> Result<()> {
        if inputs.count(self.plan.slot(slot).rows) == 0 {
            return Ok(());
        }
        let rows = self.part(from)?.slot(slot, inputs)?;
        self.crossed += 4 * rows.len() as u64;
        self.part(to)?.set_slot(slot, inputs, &rows)
    }

    pub(super) fn part(&mut self, part: usize) -> Result<&mut Runner> {
        let runner = self.runners.get_mut(part).and_then(Option::as_mut);
        runner.ok_or_else(|| Error::shape(format!("part {part} of the plan has no ops")))
    }

    /// Computes ops one by one, each where it is.
    pub(super) fn run_ops(&mut self, ops: Range<usize>, inputs: &Inputs) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        for i in ops {
            let (part, at) = self.places[i];
            let op = &plan.ops[i].op;
            for slot in op.reads() {
                if let Some(from) = self.holders[slot.0 as usize].filter(|from| *from != part) {
                    self.copy(slot, from, part, inputs)?;
                }
            }
            self.part(part)?.run_unchecked(at..at + 1, inputs)?;
            if let Some(slot) = op.writes() {
                self.holders[slot.0 as usize] = Some(part);
            }
        }
        Ok(())
    }

    /// Overwrites a slot wherever there is one.
    pub(super) fn set_slot(&mut self, slot: Slot, inputs: &Inputs, data: &[f32]) -> Result<()> {
        self.holders[slot.0 as usize] = None;
        let having = self.runners.iter_mut().flatten().filter(|runner| runner.plan().has_buffer(slot));
        for runner in having {
            runner.set_slot(slot, inputs, data)?;
        }
        Ok(())
    }

    /// What a slot holds where it was written last.
    pub(super) fn slot(&mut self, slot: Slot, inputs: &Inputs) -> Result<Vec<f32>> {
        let any = || self.runners.iter().position(|r| r.as_ref().is_some_and(|r| r.plan().has_buffer(slot)));
        let part = self.holders[slot.0 as usize].or_else(any).unwrap_or(0);
        self.part(part)?.slot(slot, inputs)
    }

    /// Whether the last part's device picks tokens.
    pub(super) fn picks(&self) -> bool {
        let last = self.stages.last().and_then(|stage| self.runners.get(stage.part)?.as_ref());
        last.is_some_and(Runner::picks)
    }

    /// The fewest rows that a part's device wants.
    pub(super) fn brisk_rows(&self) -> usize {
        self.runners.iter().flatten().map(Runner::brisk_rows).min().unwrap_or(usize::MAX)
    }

    /// Whether the processor computes this op.
    pub(super) fn computes_on_cpu(&self, op: usize) -> bool {
        let runner = self.places.get(op).and_then(|(part, _)| self.runners.get(*part)?.as_ref());
        runner.is_some_and(|runner| matches!(runner, Runner::Cpu(_)))
    }

    /// What the runner has room for.
    pub fn options(&self) -> RunnerOptions {
        self.options
    }

    /// The whole plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Rows of the token table.
    pub(super) fn n_token_ids(&self) -> usize {
        self.n_token_ids
    }

    /// Which layers are where, for people.
    pub fn placement(&self) -> &str {
        &self.placement
    }

    /// Bytes of activations that have crossed from device to device.
    pub fn crossed(&self) -> u64 {
        self.crossed
    }

    /// The parts with their runners, in the order of the model's layers.
    pub(super) fn runners(&self) -> impl Iterator<Item = &Runner> {
        self.runners.iter().flatten()
    }

    /// The same, to be changed.
    pub(super) fn runners_mut(&mut self) -> impl Iterator<Item = &mut Runner> {
        self.runners.iter_mut().flatten()
    }

    /// Notes that so many bytes of activations crossed.
    pub(super) fn note_crossed(&mut self, bytes: u64) {
        self.crossed += bytes;
    }

    /// Notes how many devices are at work.
    pub(super) fn note_at_work(&mut self, n: usize) {
        self.most_at_work = self.most_at_work.max(n);
    }
}

/// For example `layers 1 to 12 on CPU, 13 to 28 and the head on GPU, experts of 16 layers on CPU`.
fn placement(devices: &[&Device], part_of: &[usize], layers: &[Range<usize>], behind: usize) -> String {
    // Experts apart, a layer is where its last op is that no expert has.
    let home = |layer: &Range<usize>| part_of[layer.clone()].iter().copied().max().unwrap_or(0);
    let head_at = part_of.last().copied().unwrap_or(0);
    let homes: Vec<usize> = layers.iter().map(home).collect();
    let (mut at, mut runs) = (0, Vec::new());
    for run in homes.chunk_by(|a, b| a == b) {
        let (first, last) = (at + 1, at + run.len());
        let which = if first == last { format!("layer {first}") } else { format!("layers {first} to {last}") };
        let head = if last == layers.len() && head_at == run[0] { " and the head" } else { "" };
        runs.push(format!("{which}{head} on {}", devices[run[0]].name()));
        at = last;
    }
    if homes.last().is_some_and(|home| *home != head_at) {
        runs.push(format!("the head on {}", devices[head_at].name()));
    }
    let own = |layer: &Range<usize>| layer.start..layer.end.min(behind);
    let apart = |(layer, home): (&Range<usize>, &usize)| part_of[own(layer)].iter().any(|part| part != home);
    let n = layers.iter().zip(&homes).filter(|pair| apart(*pair)).count();
    let experts = if n == 0 { String::new() } else { format!(", experts of {n} layers on {}", devices[0].name()) };
    format!("{}{experts}", runs.join(", "))
}
