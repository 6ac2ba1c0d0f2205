//! [`Pipeline`]: the micro-batches of one step on their way through the stages of a divided plan.
//!
//! At each tick a micro-batch enters the stage behind the one it was in, so that different parts compute different
//! micro-batches. GPUs are given their stages first, earlier ones before later ones: what a later one waits for was submitted
//! a tick before. The processor, which computes at once, comes last.

use std::collections::HashMap;

use super::readback::SlotReadback;
use super::split_runner::SplitRunner;
use super::{Readback, Runner};
use crate::error::{Error, Result};
use crate::plan::{Inputs, Slot, Stage};

/// One step on its way.
pub(super) struct Pipeline<'a> {
    runner: &'a mut SplitRunner,
    stages: &'a [Stage],
    batches: &'a [Inputs],
    /// Rows that left a part, for the stage that they enter: by stage, micro-batch and slot.
    crossing: HashMap<(usize, usize, Slot), SlotReadback>,
    /// By stage how many micro-batches it was given, and how many of them are known to be computed.
    progress: Vec<(usize, usize)>,
    results: Vec<(Readback, usize)>,
}

impl<'a> Pipeline<'a> {
    /// There is more than one micro-batch only if every part has one stage.
    pub(super) fn new(runner: &'a mut SplitRunner, stages: &'a [Stage], batches: &'a [Inputs]) -> Pipeline<'a> {
        let (crossing, progress, results) = (HashMap::new(), vec![(0, 0); stages.len()], Vec::new());
        Pipeline { runner, stages, batches, crossing, progress, results }
    }

    /// Starts everything; the results are on their way back.
    pub(super) fn run(mut self) -> Result<Readback> {
        for tick in 0..self.stages.len() + self.batches.len() - 1 {
            let entered: Vec<usize> = (0..self.stages.len())
                .filter(|stage| tick.checked_sub(*stage).is_some_and(|batch| batch < self.batches.len()))
                .collect();
            for at_once in [false, true] {
                for stage in entered.iter().copied() {
                    if self.computes_at_once(stage)? == at_once {
                        self.enter(stage, tick - stage)?;
                    }
                }
            }
        }
        let mut results = self.results;
        match results.len() {
            0 => Err(Error::shape("a plan without ops")),
            1 => Ok(results.remove(0).0),
            _ => Ok(Readback::Several(results)),
        }
    }

    fn computes_at_once(&mut self, stage: usize) -> Result<bool> {
        Ok(matches!(self.runner.part(self.stages[stage].part)?, Runner::Cpu(_)))
    }

    /// A micro-batch enters a stage: its device gets what it reads, computes, and gives what later stages read.
    fn enter(&mut self, stage: usize, batch: usize) -> Result<()> {
        let (stages, inputs) = (self.stages, &self.batches[batch]);
        let Stage { part, ops, enters } = &stages[stage];
        for (from, slot) in enters {
            let Some(rows) = self.crossing.remove(&(stage, batch, *slot)) else { continue };
            let rows = rows.wait()?;
            self.progress[source(stages, stage, *from)].1 = batch + 1;
            self.runner.note_crossed(4 * rows.len() as u64);
            self.runner.part(*part)?.set_slot(*slot, inputs, &rows)?;
        }
        self.progress[stage].0 = batch + 1;
        self.runner.note_at_work(self.progress.iter().filter(|(given, computed)| given > computed).count());
        let runner = self.runner.part(*part)?;
        if stage + 1 == stages.len() {
            let readback = runner.submit_from(ops.start, inputs)?;
            self.results.push((readback, inputs.outputs.len()));
        } else {
            runner.run_unchecked(ops.clone(), inputs)?;
        }
        if self.computes_at_once(stage)? {
            self.progress[stage].1 = batch + 1;
        }
        self.leave(stage, batch)
    }

    /// Starts to read what later stages take from this one, before its device computes anything else.
    fn leave(&mut self, stage: usize, batch: usize) -> Result<()> {
        let (stages, inputs) = (self.stages, &self.batches[batch]);
        let part = stages[stage].part;
        for (later, entered) in stages.iter().enumerate().skip(stage + 1) {
            for (from, slot) in &entered.enters {
                let rows = inputs.count(self.runner.plan().slot(*slot).rows);
                if *from == part && source(stages, later, part) == stage && rows > 0 {
                    let read = self.runner.part(part)?.begin_slot(*slot, inputs)?;
                    self.crossing.insert((later, batch, *slot), read);
                }
            }
        }
        Ok(())
    }
}

/// The last stage of a part before another stage.
fn source(stages: &[Stage], before: usize, part: usize) -> usize {
    stages[..before].iter().rposition(|stage| stage.part == part).unwrap_or(0)
}
