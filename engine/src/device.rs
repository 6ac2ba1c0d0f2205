//! [`Device`]: where plans run. Above this line nobody knows which device it is.

mod kept;
#[cfg(not(target_arch = "wasm32"))]
mod micro_batches;
#[cfg(not(target_arch = "wasm32"))]
mod pipeline;
mod placement;
mod readback;
#[cfg(not(target_arch = "wasm32"))]
mod split;
#[cfg(not(target_arch = "wasm32"))]
mod split_runner;

use std::sync::Arc;

use crate::cpu::{Cpu, CpuRunner};
use crate::error::{Error, Result};
#[cfg(feature = "gpu")]
use crate::gpu::{Gpu, GpuRunner};
use crate::plan::{CacheLayout, Inputs, Plan, Rows, Slot, WeightId};
pub use crate::plan::{KvKind, RunnerOptions};
#[cfg(not(target_arch = "wasm32"))]
use readback::SlotReadback;
pub use readback::{Output, Picked, Readback};
#[cfg(not(target_arch = "wasm32"))]
pub use split::{Experts, GpuLayers, Split, SplitOptions};
#[cfg(not(target_arch = "wasm32"))]
pub use split_runner::SplitRunner;

/// A device that plans can be prepared for. Cloning shares it.
#[derive(Debug, Clone)]
pub enum Device {
    /// This machine's processor.
    Cpu(Arc<Cpu>),
    /// A graphics processor.
    #[cfg(feature = "gpu")]
    Gpu(Arc<Gpu>),
    /// Several devices, over which a model is divided.
    #[cfg(not(target_arch = "wasm32"))]
    Split(Arc<Split>),
}

impl Device {
    /// The device's name for people.
    pub fn name(&self) -> String {
        match self {
            Device::Cpu(cpu) => cpu.name(),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.name(),
            #[cfg(not(target_arch = "wasm32"))]
            Device::Split(split) => split.name(),
        }
    }

    /// The device opened again, after a loss. A processor is never lost.
    ///
    /// # Errors
    /// Where it does not open.
    pub async fn reopen(&self) -> Result<Device> {
        match self {
            Device::Cpu(_) => Ok(self.clone()),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => Ok(Device::Gpu(Arc::new(gpu.reopen().await?))),
            #[cfg(not(target_arch = "wasm32"))]
            Device::Split(split) => Ok(Device::Split(Arc::new(split.reopen().await?))),
        }
    }

    /// Bytes of the device's own memory; `None` for a processor, which has the machine's, and where it is not known.
    pub fn memory(&self) -> Option<u64> {
        match self {
            Device::Cpu(_) => None,
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.description().memory,
            #[cfg(not(target_arch = "wasm32"))]
            Device::Split(split) => split.gpus().iter().map(Device::memory).sum(),
        }
    }

    /// Cache pages that the device can hold at once, whatever its memory.
    #[cfg_attr(not(feature = "gpu"), expect(unused_variables, reason = "only a GPU asks what the cache looks like"))]
    pub fn max_pages(&self, plan: &Plan, kv: KvKind) -> usize {
        match self {
            Device::Cpu(_) => usize::MAX,
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.max_pages(plan, kv),
            #[cfg(not(target_arch = "wasm32"))]
            Device::Split(split) => split.gpus().iter().map(|gpu| gpu.max_pages(plan, kv)).min().unwrap_or(usize::MAX),
        }
    }

    /// Slots of states that the device can hold at once, whatever its memory.
    #[cfg_attr(not(feature = "gpu"), expect(unused_variables, reason = "only a GPU asks what a state looks like"))]
    pub fn max_states(&self, plan: &Plan) -> usize {
        match self {
            Device::Cpu(_) => usize::MAX,
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.max_states(plan),
            #[cfg(not(target_arch = "wasm32"))]
            Device::Split(split) => split.gpus().iter().map(|gpu| gpu.max_states(plan)).min().unwrap_or(usize::MAX),
        }
    }

    /// Whether weights go to the device, and can be fed to a [`Runner`] piece by piece. Otherwise they are read from the plan
    /// where they are.
    pub fn takes_weights(&self) -> bool {
        match self {
            Device::Cpu(_) => false,
            #[cfg(feature = "gpu")]
            Device::Gpu(_) => true,
            #[cfg(not(target_arch = "wasm32"))]
            Device::Split(_) => false,
        }
    }

    /// Makes a plan ready to run: buffers and cache pages are reserved, weights are taken up where the device needs it.
    ///
    /// # Errors
    /// Where memory does not suffice or the plan asks for what the device cannot do.
    pub fn prepare(&self, plan: Arc<Plan>, options: RunnerOptions) -> Result<Runner> {
        match self {
            Device::Cpu(cpu) => Ok(Runner::Cpu(CpuRunner::new(Arc::clone(cpu), plan, options)?)),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => Ok(Runner::Gpu(gpu.prepare(plan, options)?)),
            #[cfg(not(target_arch = "wasm32"))]
            Device::Split(split) => split.prepare(&plan, options),
        }
    }
}

/// A plan on a device, with its cache.
#[derive(Debug)]
pub enum Runner {
    /// On the processor.
    Cpu(CpuRunner),
    /// On a GPU.
    #[cfg(feature = "gpu")]
    Gpu(GpuRunner),
    /// On several devices.
    #[cfg(not(target_arch = "wasm32"))]
    Split(Box<SplitRunner>),
}

/// Every kind of rows.
const ROWS: [Rows; 4] = [Rows::Tokens, Rows::Sources, Rows::Outputs, Rows::Pools];

impl Runner {
    /// Starts a step. The CPU computes it at once; other devices may still be at work when this returns.
    ///
    /// # Errors
    /// Where the inputs contradict themselves or the limits, or the device failed.
    pub fn submit(&mut self, inputs: &Inputs) -> Result<Readback> {
        self.check(inputs)?;
        if !inputs.next.is_empty() && !self.chains() {
            return Err(Error::shape("a device that does not pick tokens by itself computes no chain of steps"));
        }
        match self {
            Runner::Cpu(_) => self.submit_from(0, inputs),
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => {
                let n_vocab = runner.plan().n_vocab();
                Ok(Readback::Gpu { results: runner.submit(inputs)?, wants: inputs.wants.clone(), n_vocab })
            }
            #[cfg(not(target_arch = "wasm32"))]
            Runner::Split(runner) => runner.submit(inputs),
        }
    }

    /// Starts the end of a step whose ops before `first` have been computed.
    fn submit_from(&mut self, first: usize, inputs: &Inputs) -> Result<Readback> {
        let n_vocab = self.plan().n_vocab();
        match self {
            Runner::Cpu(runner) => {
                let logits = runner.run_from(first, inputs);
                Ok(Readback::Done(Output { logits, n_vocab, pooled: runner.pooled(inputs), ..Output::default() }))
            }
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => {
                let results = runner.submit_from(first, inputs)?;
                Ok(Readback::Gpu { results, wants: inputs.wants.clone(), n_vocab })
            }
            #[cfg(not(target_arch = "wasm32"))]
            Runner::Split(_) => Err(Error::shape("a part of a plan is not divided again")),
        }
    }

    /// Whether the device does what [`crate::plan::Want`] asks, or always gives logits.
    pub fn picks(&self) -> bool {
        match self {
            Runner::Cpu(_) => false,
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.picks(),
            #[cfg(not(target_arch = "wasm32"))]
            Runner::Split(runner) => runner.picks(),
        }
    }

    /// Whether steps can follow one another on the device: see [`Inputs::next`].
    pub fn chains(&self) -> bool {
        match self {
            Runner::Cpu(_) => false,
            #[cfg(feature = "gpu")]
            Runner::Gpu(_) => true,
            #[cfg(not(target_arch = "wasm32"))]
            Runner::Split(_) => false,
        }
    }

    /// Refuses inputs that contradict themselves or the runner's limits.
    fn check(&self, inputs: &Inputs) -> Result<()> {
        let options = self.options();
        if inputs.n_rows() == 0 || ROWS.iter().any(|rows| inputs.count(*rows) > options.most(*rows)) {
            let [tokens, sources, outputs, pools] = ROWS.map(|rows| inputs.count(rows));
            let rows = tokens + sources;
            return Err(Error::shape(format!(
                "a step of {rows} rows, {outputs} outputs and {pools} pools exceeds the runner's limits"
            )));
        }
        let n_positions = self.plan().n_positions();
        let beyond = inputs.last_position();
        if beyond as usize >= n_positions {
            return Err(Error::limit(format!("position {beyond} is beyond the model's table of {n_positions}")));
        }
        if !self.plan().states.is_empty() {
            inputs.check_states(options.n_states).map_err(Error::Shape)?;
        }
        inputs.check_adapters(self.plan().adapters.len()).map_err(Error::Shape)?;
        inputs.check(self.n_token_ids(), options.n_pages).map_err(Error::Shape)?;
        inputs.check_windows(self.plan().windows.len(), options.pages(1)).map_err(Error::Shape)
    }

    /// Computes some of the plan's ops on what its slots hold: for examining ops one by one.
    ///
    /// # Errors
    /// Where the inputs contradict themselves or the limits, or the device failed.
    pub fn run_ops(&mut self, ops: std::ops::Range<usize>, inputs: &Inputs) -> Result<()> {
        self.check(inputs)?;
        if ops.start > ops.end || ops.end > self.plan().ops.len() {
            return Err(Error::shape(format!("the plan has {} ops, not {ops:?}", self.plan().ops.len())));
        }
        self.run_unchecked(ops, inputs)
    }

    /// [`Runner::run_ops`] of inputs that were checked.
    fn run_unchecked(&mut self, ops: std::ops::Range<usize>, inputs: &Inputs) -> Result<()> {
        match self {
            Runner::Cpu(runner) => runner.run_ops(ops, inputs),
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.run_ops(ops, inputs)?,
            #[cfg(not(target_arch = "wasm32"))]
            Runner::Split(runner) => runner.run_ops(ops, inputs)?,
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
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.set_slot(slot, inputs, data)?,
            #[cfg(not(target_arch = "wasm32"))]
            Runner::Split(runner) => runner.set_slot(slot, inputs, data)?,
        }
        Ok(())
    }

    /// What a slot holds: `rows x cols` as the inputs say. Waits for the device: not for a page.
    ///
    /// # Errors
    /// Where the device failed.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn slot(&mut self, slot: Slot, inputs: &Inputs) -> Result<Vec<f32>> {
        self.begin_slot(slot, inputs)?.wait()
    }

    /// Starts to read what a slot holds; what is computed later does not change it.
    #[cfg(not(target_arch = "wasm32"))]
    fn begin_slot(&mut self, slot: Slot, inputs: &Inputs) -> Result<SlotReadback> {
        match self {
            Runner::Cpu(runner) => Ok(SlotReadback::Done(runner.slot(slot, inputs).to_vec())),
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => Ok(SlotReadback::Gpu(runner.slot(slot, inputs)?)),
            Runner::Split(runner) => Ok(SlotReadback::Done(runner.slot(slot, inputs)?)),
        }
    }

    /// Takes bytes of a weight's segment that the plan does not hold, from `offset` on; those before must have come.
    ///
    /// # Errors
    /// [`Error::Request`] on a device that takes no weights or where bytes were left out, or what the device says.
    pub fn feed(&mut self, weight: WeightId, segment: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        match self {
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.feed(weight, segment, offset, bytes),
            _ => Err(Error::request(format!(
                "weight {} from {offset}, {} bytes: this device reads weights from the plan (segment {segment})",
                weight.0,
                bytes.len()
            ))),
        }
    }

    /// Ends the feeding of weights. `plan` may differ from the runner's in its rotation frequencies, whose factors may have
    /// come last.
    ///
    /// # Errors
    /// Where a weight was begun and not ended, `plan` differs otherwise, or the device failed.
    pub fn fed(&mut self, plan: &Arc<Plan>) -> Result<()> {
        match self {
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => {
                runner.fed()?;
                runner.set_ropes(Arc::clone(plan))?;
            }
            _ => {}
        }
        let _ = plan;
        Ok(())
    }

    /// What was fed so far is on the device, and its staging memory is given back: to be awaited now and then in a page.
    ///
    /// # Errors
    /// Where the device failed.
    pub async fn settled(&self) -> Result<()> {
        match self {
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.settled().await,
            _ => Ok(()),
        }
    }

    /// Tells that the last step, or chain, took so many seconds from [`submit`](Runner::submit) to its results: devices that must not
    /// be kept busy for long at a time learn from it how much they are given at once.
    pub fn took(&mut self, seconds: f64) {
        match self {
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.took(seconds),
            #[cfg(not(target_arch = "wasm32"))]
            Runner::Split(runner) => runner.took(seconds),
            _ => {}
        }
        let _ = seconds;
    }

    /// Rows that a step should have at most, so that the device is not kept busy for long at a time.
    pub fn brisk_rows(&self) -> usize {
        match self {
            Runner::Cpu(_) => usize::MAX,
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.brisk_rows(),
            #[cfg(not(target_arch = "wasm32"))]
            Runner::Split(runner) => runner.brisk_rows(),
        }
    }

    /// What the runner has room for.
    pub fn options(&self) -> RunnerOptions {
        match self {
            Runner::Cpu(runner) => runner.options(),
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.options(),
            #[cfg(not(target_arch = "wasm32"))]
            Runner::Split(runner) => runner.options(),
        }
    }

    /// The plan that runs.
    pub fn plan(&self) -> &Arc<Plan> {
        match self {
            Runner::Cpu(runner) => runner.plan(),
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.plan(),
            #[cfg(not(target_arch = "wasm32"))]
            Runner::Split(runner) => runner.plan(),
        }
    }

    /// Rows of the token table.
    pub(crate) fn n_token_ids(&self) -> usize {
        match self {
            Runner::Cpu(runner) => runner.n_token_ids(),
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.n_token_ids(),
            #[cfg(not(target_arch = "wasm32"))]
            Runner::Split(runner) => runner.n_token_ids(),
        }
    }
}

/// Memory that the cache of a plan takes for `n_pages` pages in every group of layers, in bytes.
pub fn kv_bytes(plan: &Plan, kind: KvKind, n_pages: usize) -> u64 {
    CacheLayout::of(plan, kind).bytes(|_| n_pages, 0)
}
