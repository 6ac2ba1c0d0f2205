//! [`Device`]: where plans run. Above this line nobody knows which device it is.

mod kept;

use std::sync::Arc;

use crate::cpu::{Cpu, CpuRunner};
use crate::error::{Error, Result};
#[cfg(feature = "gpu")]
use crate::gpu::{Gpu, GpuReadback, GpuRunner, Results};
use crate::plan::{CacheLayout, Inputs, Plan, Rows, Slot, WeightId};
pub use crate::plan::{KvKind, RunnerOptions};
#[cfg(feature = "gpu")]
use crate::plan::{TOP, Want};

/// A device that plans can be prepared for. Cloning shares it.
#[derive(Debug, Clone)]
pub enum Device {
    /// This machine's processor.
    Cpu(Arc<Cpu>),
    /// A graphics processor.
    #[cfg(feature = "gpu")]
    Gpu(Arc<Gpu>),
}

impl Device {
    /// The device's name for people.
    pub fn name(&self) -> String {
        match self {
            Device::Cpu(cpu) => cpu.name(),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.name(),
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
        }
    }

    /// Whether the device does what [`crate::plan::Want`] asks, or always gives logits.
    pub fn picks(&self) -> bool {
        match self {
            Device::Cpu(_) => false,
            #[cfg(feature = "gpu")]
            Device::Gpu(_) => true,
        }
    }

    /// Bytes of the device's own memory; `None` for a processor, which has the machine's, and where it is not known.
    pub fn memory(&self) -> Option<u64> {
        match self {
            Device::Cpu(_) => None,
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.description().memory,
        }
    }

    /// Cache pages that the device can hold at once, whatever its memory.
    #[cfg_attr(not(feature = "gpu"), expect(unused_variables, reason = "only a GPU asks what the cache looks like"))]
    pub fn max_pages(&self, plan: &Plan, kv: KvKind) -> usize {
        match self {
            Device::Cpu(_) => usize::MAX,
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.max_pages(plan, kv),
        }
    }

    /// Slots of states that the device can hold at once, whatever its memory.
    #[cfg_attr(not(feature = "gpu"), expect(unused_variables, reason = "only a GPU asks what a state looks like"))]
    pub fn max_states(&self, plan: &Plan) -> usize {
        match self {
            Device::Cpu(_) => usize::MAX,
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.max_states(plan),
        }
    }

    /// Whether weights go to the device, and can be fed to a [`Runner`] piece by piece. Otherwise they are read from the plan
    /// where they are.
    pub fn takes_weights(&self) -> bool {
        match self {
            Device::Cpu(_) => false,
            #[cfg(feature = "gpu")]
            Device::Gpu(_) => true,
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
        let n_vocab = self.plan().n_vocab();
        match self {
            Runner::Cpu(_) if !inputs.next.is_empty() => {
                Err(Error::shape("a processor does not pick tokens, so its steps are no chain"))
            }
            Runner::Cpu(runner) => {
                let logits = runner.run(inputs);
                Ok(Readback::Done(Output { logits, n_vocab, pooled: runner.pooled(inputs), ..Output::default() }))
            }
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => {
                Ok(Readback::Gpu { results: runner.submit(inputs)?, wants: inputs.wants.clone(), n_vocab })
            }
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
        match self {
            Runner::Cpu(runner) => runner.run_ops(ops, inputs),
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.run_ops(ops, inputs)?,
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
        }
        Ok(())
    }

    /// What a slot holds: `rows x cols` as the inputs say. Waits for the device: not for a page.
    ///
    /// # Errors
    /// Where the device failed.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn slot(&mut self, slot: Slot, inputs: &Inputs) -> Result<Vec<f32>> {
        match self {
            Runner::Cpu(runner) => Ok(runner.slot(slot, inputs).to_vec()),
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => Ok(runner.slot(slot, inputs)?.wait()?.values),
        }
    }

    /// Takes bytes of a weight's segment that the plan does not hold, from `offset` on; those before must have come.
    ///
    /// # Errors
    /// [`Error::Request`] on a device that takes no weights or where bytes were left out, or what the device says.
    pub fn feed(&mut self, weight: WeightId, segment: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        match self {
            Runner::Cpu(_) => Err(Error::request(format!(
                "weight {} from {offset}, {} bytes: a processor reads weights from the plan (segment {segment})",
                weight.0,
                bytes.len()
            ))),
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.feed(weight, segment, offset, bytes),
        }
    }

    /// Ends the feeding of weights. `plan` may differ from the runner's in its rotation frequencies, whose factors may have
    /// come last.
    ///
    /// # Errors
    /// Where a weight was begun and not ended, `plan` differs otherwise, or the device failed.
    pub fn fed(&mut self, plan: &Arc<Plan>) -> Result<()> {
        match self {
            Runner::Cpu(_) => {}
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => {
                runner.fed()?;
                runner.set_ropes(Arc::clone(plan))?;
            }
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
            Runner::Cpu(_) => Ok(()),
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.settled().await,
        }
    }

    /// Tells that the last step, or chain, took so many seconds from [`submit`](Runner::submit) to its results: devices that must not
    /// be kept busy for long at a time learn from it how much they are given at once.
    pub fn took(&mut self, seconds: f64) {
        match self {
            Runner::Cpu(_) => {}
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.took(seconds),
        }
        let _ = seconds;
    }

    /// Rows that a step should have at most, so that the device is not kept busy for long at a time.
    pub fn brisk_rows(&self) -> usize {
        match self {
            Runner::Cpu(_) => usize::MAX,
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.brisk_rows(),
        }
    }

    /// What the runner has room for.
    pub fn options(&self) -> RunnerOptions {
        match self {
            Runner::Cpu(runner) => runner.options(),
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.options(),
        }
    }

    /// The plan that runs.
    pub fn plan(&self) -> &Arc<Plan> {
        match self {
            Runner::Cpu(runner) => runner.plan(),
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.plan(),
        }
    }

    /// Rows of the token table.
    pub(crate) fn n_token_ids(&self) -> usize {
        match self {
            Runner::Cpu(runner) => runner.n_token_ids(),
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.n_token_ids(),
        }
    }
}

/// A step's results on their way back.
#[derive(Debug)]
pub enum Readback {
    /// They are there.
    Done(Output),
    /// They are being copied from a GPU.
    #[cfg(feature = "gpu")]
    Gpu {
        /// The results.
        results: GpuReadback,
        /// What was wanted of each output.
        wants: Vec<Want>,
        /// Columns of a row.
        n_vocab: usize,
    },
}

impl Readback {
    /// The results where they are there already; the readback itself where not.
    ///
    /// # Errors
    /// Where the device failed in the meantime.
    pub fn ready(self) -> Result<Result<Output, Readback>> {
        match self {
            Readback::Done(output) => Ok(Ok(output)),
            #[cfg(feature = "gpu")]
            Readback::Gpu { results, wants, n_vocab } => Ok(match results.ready()? {
                Ok(results) => Ok(Output::of(results, &wants, n_vocab)),
                Err(results) => Err(Readback::Gpu { results, wants, n_vocab }),
            }),
        }
    }

    /// The results, waited for by blocking: not for a page.
    ///
    /// # Errors
    /// Where the device failed in the meantime.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(self) -> Result<Output> {
        match self {
            Readback::Done(output) => Ok(output),
            #[cfg(feature = "gpu")]
            Readback::Gpu { results, wants, n_vocab } => Ok(Output::of(results.wait()?, &wants, n_vocab)),
        }
    }

    /// The results, waited for. Natively the first poll waits for the device.
    ///
    /// # Errors
    /// Where the device failed in the meantime.
    pub async fn read(self) -> Result<Output> {
        match self {
            Readback::Done(output) => Ok(output),
            #[cfg(feature = "gpu")]
            Readback::Gpu { results, wants, n_vocab } => Ok(Output::of(results.await?, &wants, n_vocab)),
        }
    }
}

/// What a device made of an output instead of giving its logits back.
#[derive(Debug, Clone, PartialEq)]
pub enum Picked {
    /// This token; `None` where the row's logits are damaged or all are minus infinity.
    Token(Option<u32>),
    /// The largest logits with their tokens, falling, minus infinities left out. Empty where the row is damaged.
    Top(Vec<(f32, u32)>),
}

/// What a step gives back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    /// `[outputs, n_vocab]`; empty where the device picked for every output.
    pub logits: Vec<f32>,
    /// Columns of a row.
    pub n_vocab: usize,
    /// Per output what the device picked, `None` where its logits are to be used; empty where it picks none.
    pub picked: Vec<Option<Picked>>,
    /// The same of each step of a chain that followed.
    pub later: Vec<Vec<Option<Picked>>>,
    /// `[pools, width]`: the means of rows that were wanted.
    pub pooled: Vec<f32>,
}

impl Output {
    #[cfg(feature = "gpu")]
    fn of(results: Results, wants: &[Want], n_vocab: usize) -> Output {
        let picked = wants.iter().enumerate().map(|(i, want)| match want {
            Want::Logits => None,
            Want::Pick { .. } => Some(Picked::Token(results.picked.get(i).copied().filter(|t| *t != u32::MAX))),
            Want::Top => {
                let sound = results.stats.get(i).is_some_and(|(top, sum)| top.is_finite() && sum.is_finite());
                let row = results.top.chunks(TOP).nth(i).filter(|_| sound).unwrap_or_default();
                Some(Picked::Top(row.iter().copied().filter(|c| c.0 > f32::NEG_INFINITY).collect()))
            }
        });
        let token = |token: &u32| Some(Picked::Token(Some(*token).filter(|t| *t != u32::MAX)));
        let later = results.picked.chunks(wants.len().max(1)).skip(1).map(|row| row.iter().map(token).collect());
        let (picked, later) = (picked.collect(), later.collect());
        Output { picked, later, logits: results.values, n_vocab, pooled: results.pooled }
    }

    /// The logits of the `i`-th wanted row.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.logits[i * self.n_vocab..(i + 1) * self.n_vocab]
    }
}

/// Memory that the cache of a plan takes for `n_pages` pages in every group of layers, in bytes.
pub fn kv_bytes(plan: &Plan, kind: KvKind, n_pages: usize) -> u64 {
    CacheLayout::of(plan, kind).bytes(|_| n_pages, 0)
}
