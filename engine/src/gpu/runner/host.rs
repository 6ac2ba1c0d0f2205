//! What a step takes of the host: commands, bytes, and pipelines that are still to be made.

use super::GpuRunner;
use crate::gpu::step::StepWords;
use crate::plan::Inputs;

/// What a step takes of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostCost {
    /// Dispatches, with those that pick tokens.
    pub dispatches: usize,
    /// Commands that are encoded: for each dispatch its pipeline, its bind group and itself, and copies of results.
    pub commands: usize,
    /// Bytes that are written to the device.
    pub bytes: u64,
}

impl GpuRunner {
    /// How many dispatches a step with these inputs takes up to its logits.
    pub fn n_dispatches(&self, inputs: &Inputs) -> usize {
        let counts = StepWords::default().write(inputs);
        self.steps.launches.iter().filter(|l| l.dispatch.workgroups(&counts) > 0).count()
    }

    /// What a step with these inputs takes of the host. All that the runner itself does for a step is done here too, and nothing
    /// that wgpu does: a step like the one before allocates nothing here.
    pub fn host_cost(&mut self, inputs: &Inputs) -> HostCost {
        let counts = self.words.write(inputs);
        let results = self.results(&counts);
        let picking = results.picked + results.top > 0;
        let picks = self.picks.launches.iter().filter(|_| picking);
        let all = self.steps.launches.iter().chain(picks);
        let dispatches = all.filter(|launch| launch.dispatch.workgroups(&counts) > 0).count();
        let copies = [results.values, results.picked, results.top, results.stats, results.pooled];
        let copies = copies.iter().filter(|words| **words > 0).count();
        HostCost { dispatches, commands: 3 * dispatches + copies, bytes: 4 * self.words.words.len() as u64 }
    }
}
