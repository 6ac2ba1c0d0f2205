//! [`Device`]: where plans run. Above this line nobody knows which device it is.

use std::sync::Arc;

use crate::cpu::{Cpu, CpuRunner};
use crate::error::{Error, Result};
use crate::plan::{Inputs, Plan, Slot};
pub use crate::plan::{KvKind, RunnerOptions};

/// A device that plans can be prepared for. Cloning shares it.
#[derive(Debug, Clone)]
pub enum Device {
    /// This machine's processor.
    Cpu(Arc<Cpu>),
}

impl Device {
    /// The device's name for people.
    pub fn name(&self) -> String {
        match self {
            Device::Cpu(cpu) => cpu.name(),
        }
    }

    /// Makes a plan ready to run: buffers and cache pages are reserved, weights are taken up where the device needs it.
    ///
    /// # Errors
    /// Where memory does not suffice or the plan asks for what the device cannot do.
    pub fn prepare(&self, plan: Arc<Plan>, options: RunnerOptions) -> Result<Runner> {
        match self {
            Device::Cpu(cpu) => Ok(Runner::Cpu(CpuRunner::new(Arc::clone(cpu), plan, options)?)),
        }
    }
}

/// A plan on a device, with its cache.
#[derive(Debug)]
pub enum Runner {
    /// On the processor.
    Cpu(CpuRunner),
}

impl Runner {
    /// Starts a step. The CPU computes it at once; other devices may still be at work when this returns.
    ///
    /// # Errors
    /// Where the inputs contradict themselves or the limits, or the device failed.
    pub fn submit(&mut self, inputs: &Inputs) -> Result<Readback> {
        let options = self.options();
        if inputs.n_rows() == 0 || inputs.n_rows() > options.max_tokens || inputs.outputs.len() > options.max_outputs {
            let (rows, outputs) = (inputs.n_rows(), inputs.outputs.len());
            return Err(Error::shape(format!(
                "a step of {rows} rows and {outputs} outputs exceeds the runner's limits"
            )));
        }
        match self {
            Runner::Cpu(runner) => {
                inputs.check(runner.n_token_ids(), options.n_pages).map_err(Error::Shape)?;
                Ok(Readback(Output { logits: runner.run(inputs), n_vocab: runner.plan().n_vocab() }))
            }
        }
    }

    /// Computes some of the plan's ops on what its slots hold: for examining ops one by one.
    ///
    /// # Errors
    /// Where the inputs contradict themselves or the limits, or the device failed.
    pub fn run_ops(&mut self, ops: std::ops::Range<usize>, inputs: &Inputs) -> Result<()> {
        match self {
            Runner::Cpu(runner) => runner.run_ops(ops, inputs),
        }
        Ok(())
    }

    /// Overwrites a slot: `rows x cols` as the inputs say.
    ///
    /// # Errors
    /// Where the device failed.
    pub fn set_slot(&mut self, slot: Slot, inputs: &Inputs, data: &[f32]) -> Result<()> {
        match self {
            Runner::Cpu(runner) => runner.set_slot(slot, inputs, data),
        }
        Ok(())
    }

    /// What a slot holds: `rows x cols` as the inputs say.
    ///
    /// # Errors
    /// Where the device failed.
    pub fn slot(&mut self, slot: Slot, inputs: &Inputs) -> Result<Vec<f32>> {
        match self {
            Runner::Cpu(runner) => Ok(runner.slot(slot, inputs).to_vec()),
        }
    }

    /// What the runner has room for.
    pub fn options(&self) -> RunnerOptions {
        match self {
            Runner::Cpu(runner) => runner.options(),
        }
    }

    /// The plan that runs.
    pub fn plan(&self) -> &Arc<Plan> {
        match self {
            Runner::Cpu(runner) => runner.plan(),
        }
    }
}

/// A step's results on their way back.
#[derive(Debug)]
pub struct Readback(Output);

impl Readback {
    /// The results where they are there already; the readback itself where not.
    ///
    /// # Errors
    /// Where the device failed in the meantime.
    pub fn ready(self) -> Result<Result<Output, Readback>> {
        Ok(Ok(self.0))
    }

    /// Waits for the results.
    ///
    /// # Errors
    /// Where the device failed in the meantime.
    pub async fn read(self) -> Result<Output> {
        Ok(self.0)
    }
}

/// What a step gives back.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// `[outputs, n_vocab]`.
    pub logits: Vec<f32>,
    /// Columns of a row.
    pub n_vocab: usize,
}

impl Output {
    /// The logits of the `i`-th wanted row.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.logits[i * self.n_vocab..(i + 1) * self.n_vocab]
    }
}

/// Memory that the cache of a plan takes for `n_pages` pages, in bytes.
pub fn kv_bytes(plan: &Plan, kind: KvKind, n_pages: usize) -> u64 {
    (plan.kv_elements_per_token() * kind.bytes() * crate::plan::PAGE) as u64 * n_pages as u64
}
