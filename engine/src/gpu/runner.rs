//! A plan on a GPU: dispatches with their pipelines, bind groups and parameters, prepared once and replayed every step.

mod chain;
mod feed;
mod host;
#[cfg(not(target_arch = "wasm32"))]
mod kept;
mod launch;
#[cfg(not(target_arch = "wasm32"))]
mod profile;
mod slots;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

#[cfg(not(target_arch = "wasm32"))]
pub use profile::Timed;

pub use host::HostCost;

use super::constants::Constants;
use super::dispatch::{Counts, Dispatch, Resource};
use super::making::Making;
use super::memory::{self, Memory};
use super::pace::Pace;
use super::parts::Part;
use super::readback::{GpuReadback, Parts, Spare, staging_bytes};
use super::step::{self, StepWords};
use super::upload::Upload;
use super::{Gpu, lower};
use crate::error::{Error, Result};
use crate::plan::{Inputs, KvKind, Plan, Rows, RunnerOptions, Slot, TOP};
use launch::{Launch, Prepared};

/// A plan on a GPU, with its weights and cache.
#[derive(Debug)]
pub struct GpuRunner {
    gpu: Arc<Gpu>,
    plan: Arc<Plan>,
    options: RunnerOptions,
    parts: Vec<Vec<Part>>,
    constants: Box<Constants>,
    memory: Memory,
    upload: Upload,
    pace: Pace,
    /// Operations of the step that was submitted last.
    work: u64,
    /// Whether it has many rows.
    many: bool,
    steps: Prepared,
    picks: Prepared,
    making: Making,
    /// What makes the blocks of a slot that was filled from elsewhere.
    blocks: BTreeMap<Slot, Prepared>,
    words: Box<StepWords>,
    step: wgpu::Buffer,
    spare: Spare,
    /// The next step, if it will be like the last one.
    ahead: Option<Encoded>,
    n_token_ids: usize,
    /// Which round of top_k gives the largest logits of a row.
    last_round: usize,
}

/// A step as commands: those that no submission has taken yet, and where its results will lie.
#[derive(Debug)]
struct Encoded {
    /// The first op in it.
    first: usize,
    counts: Counts,
    commands: wgpu::CommandBuffer,
    staging: wgpu::Buffer,
    parts: Parts,
}

/// Whether a step is one for the kernels of many rows.
fn is_many(counts: &Counts) -> bool {
    counts.n_rows() > lower::FEW
}

/// What computes a plan, and what picks tokens behind it.
fn dispatches(
    gpu: &Gpu,
    plan: &Plan,
    parts: &[Vec<Part>],
    constants: &Constants,
    kv: KvKind,
) -> Result<[Vec<Dispatch>; 2]> {
    plan.kv.iter().try_for_each(|shape| shape.expect_blocks(kv))?;
    let lowering = lower::Lowering { plan, parts, constants, forms: gpu.forms(), kv };
    let all = lowering.lower(0..plan.ops.len())?;
    // Only a model has logits of its outputs; a plan for examining ops may end with anything, and not every part of a plan
    // that was divided has them.
    let has_logits = plan.writes(plan.logits) && plan.has_head();
    Ok([all, if has_logits { lower::sample(plan, gpu.forms()) } else { Vec::new() }])
}

/// Bytes of device memory that a runner of a plan takes.
///
/// # Errors
/// What the device cannot compute, by name.
pub(super) fn bytes(gpu: &Gpu, plan: &Plan, options: &RunnerOptions) -> Result<u64> {
    let (parts, constants) = (memory::parts(plan, gpu.max_part), Constants::new(plan));
    let [all, picks] = dispatches(gpu, plan, &parts, &constants, options.kv)?;
    let used = all.iter().chain(&picks).flat_map(|d| d.bindings.iter().map(|b| b.1));
    Ok(memory::bytes(plan, &parts, &constants, used, options))
}

impl GpuRunner {
    /// Allocates everything and uploads the weights that the plan holds; others are fed.
    ///
    /// # Errors
    /// Where memory does not suffice or a shape is beyond the kernels.
    pub(super) fn new(gpu: Arc<Gpu>, plan: Arc<Plan>, options: RunnerOptions) -> Result<GpuRunner> {
        gpu.check()?;
        let parts = memory::parts(&plan, gpu.max_part);
        let constants = Box::new(Constants::new(&plan));
        let [dispatches, picks] = dispatches(&gpu, &plan, &parts, &constants, options.kv)?;
        let used = dispatches.iter().chain(&picks).flat_map(|d| d.bindings.iter().map(|b| b.1));
        let memory = Memory::new(&gpu, &plan, &parts, &constants, used, &options)?;
        let n_words = step::words(options.max_tokens, options.max_outputs) + 2 * options.n_pages;
        let n_words = n_words + plan.adapters.len() * options.max_tokens;
        let step = gpu.buffer("step", 4 * n_words as u64);
        let n_token_ids = plan.n_token_ids();
        let last_round = if plan.has_head() { lower::rounds(plan.n_vocab()).len() - 1 } else { 0 };
        let (steps, none, words) = (Prepared::default(), Prepared::default(), Box::default());
        let (upload, pace, picks_prepared) = (Upload::default(), Pace::new(gpu.options.work_per_submit), none);
        let mut runner = GpuRunner {
            gpu,
            plan,
            options,
            parts,
            constants,
            memory,
            upload,
            pace,
            work: 0,
            many: false,
            steps,
            picks: picks_prepared,
            making: Making::default(),
            blocks: BTreeMap::new(),
            words,
            step,
            spare: Spare::default(),
            ahead: None,
            n_token_ids,
            last_round,
        };
        runner.steps = runner.prepare(dispatches)?;
        runner.picks = runner.prepare(picks)?;
        // A software adapter's compiler would take the processor from the loading.
        let software = runner.gpu.description().kind == "software";
        if let Some(n_threads) = runner.gpu.options.compile_ahead.filter(|_| !software) {
            runner.make_pipelines(n_threads)?;
        }
        runner.feed_plan()?;
        runner.gpu.check()?;
        Ok(runner)
    }

    /// Sends a step's inputs; makes room for them first where page lists are longer than foreseen.
    fn write_step(&mut self, inputs: &Inputs) -> Result<Counts> {
        let counts = self.words.write(inputs);
        let bytes = 4 * self.words.words.len() as u64;
        if bytes > self.step.size() {
            if bytes > self.gpu.max_binding() {
                return Err(Error::limit("the step's page lists are longer than the GPU binds: use fewer sequences"));
            }
            self.ahead = None;
            self.blocks.clear();
            self.step = self.gpu.buffer("step", bytes.next_power_of_two().min(self.gpu.max_binding()));
            let dispatches = |p: &mut Prepared| p.launches.drain(..).map(|l| l.dispatch).collect();
            let (steps, picks) = (dispatches(&mut self.steps), dispatches(&mut self.picks));
            (self.steps, self.picks) = (self.prepare(steps)?, self.prepare(picks)?);
        }
        self.gpu.queue().write_buffer(&self.step, 0, bytemuck::cast_slice(&self.words.words));
        Ok(counts)
    }

    /// Encodes what the step wants of these launches; submits whenever enough work has come together. Gives the encoder that
    /// holds the rest.
    fn encode<'a>(
        &self,
        launches: impl Iterator<Item = &'a Launch>,
        counts: &Counts,
        encoder: wgpu::CommandEncoder,
    ) -> Result<wgpu::CommandEncoder> {
        let mut encoder = encoder;
        let most = self.pace.most(is_many(counts));
        let mut launches = launches.peekable();
        while launches.peek().is_some() {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            let mut work = 0;
            for launch in launches.by_ref() {
                work += launch.record(&self.gpu, counts, &mut pass)?;
                if work > most {
                    break;
                }
            }
            drop(pass);
            if launches.peek().is_some() {
                self.gpu.queue().submit([encoder.finish()]);
                encoder = self.encoder();
            }
        }
        Ok(encoder)
    }

    /// The launches of some ops.
    fn launches(&self, ops: Range<usize>) -> impl Iterator<Item = &Launch> {
        self.steps.launches.iter().filter(move |launch| ops.contains(&launch.dispatch.op))
    }

    /// Whether tokens can be picked: the plan writes logits.
    pub fn picks(&self) -> bool {
        !self.picks.launches.is_empty()
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        self.gpu.device().create_command_encoder(&Default::default())
    }

    /// Computes a step and starts to read back what is wanted of its outputs. The inputs must have been checked.
    ///
    /// A step of few rows is often followed by one of the same counts, which is encoded while the device computes.
    ///
    /// # Errors
    /// Where the device failed.
    pub fn submit(&mut self, inputs: &Inputs) -> Result<GpuReadback> {
        if inputs.next.is_empty() { self.submit_from(0, inputs) } else { self.submit_chain(inputs) }
    }

    /// [`GpuRunner::submit`] of a step whose ops before `first` have been computed.
    ///
    /// # Errors
    /// Where the device failed.
    pub fn submit_from(&mut self, first: usize, inputs: &Inputs) -> Result<GpuReadback> {
        self.gpu.check()?;
        let counts = self.write_step(inputs)?;
        self.many = is_many(&counts);
        self.work = self.work_of(&counts);
        let encoded = match self.ahead.take() {
            Some(ahead) if ahead.counts == counts && ahead.first == first => ahead,
            _ => self.encode_step(first, counts)?,
        };
        let Encoded { commands, staging, parts, .. } = encoded;
        let index = self.gpu.queue().submit([commands]);
        self.keep_pipelines();
        if !self.many && self.work <= self.pace.most(false) {
            self.ahead = Some(self.encode_step(first, counts)?);
        }
        Ok(GpuReadback::new(Arc::clone(&self.gpu), staging, parts, index, &self.spare))
    }

    /// Writes the file of pipelines if it is time to, which it is not while more are being made.
    fn keep_pipelines(&self) {
        if self.making.is_done() {
            self.gpu.keep_pipelines();
        }
    }

    /// Arithmetic operations of a step.
    fn work_of(&self, counts: &Counts) -> u64 {
        let live = self.steps.launches.iter().filter(|l| l.dispatch.workgroups(counts) > 0);
        live.map(|l| l.work(counts)).sum()
    }

    /// What comes back of a step.
    fn results(&self, counts: &Counts) -> Parts {
        let n = counts.outputs;
        // A part of a plan that was cut gives what its own ops write.
        let elements = |slot: Slot| match self.plan.writes(slot) {
            true => counts.rows(self.plan.slot(slot).rows) * self.plan.slot(slot).cols,
            false => 0,
        };
        let (picks, tops) = (counts.picks && self.picks(), counts.tops && self.picks());
        Parts {
            values: if counts.logits && Some(self.plan.logits) != self.plan.pooled {
                elements(self.plan.logits)
            } else {
                0
            },
            picked: if picks { n } else { 0 },
            top: if tops { n * TOP } else { 0 },
            stats: if tops { n } else { 0 },
            pooled: self.plan.pooled.map_or(0, elements),
        }
    }

    /// Encodes a step from an op on, and the way back of its results.
    fn encode_step(&self, first: usize, counts: Counts) -> Result<Encoded> {
        let parts = self.results(&counts);
        let staging = self.staging(parts);
        let commands = self.encode_into(first, &counts, parts, &staging, 0)?;
        Ok(Encoded { first, counts, commands, staging, parts })
    }

    /// Encodes a step from an op on, whose results go to `staging` from byte `at` on; submits what goes beyond one submission.
    fn encode_into(
        &self,
        first: usize,
        counts: &Counts,
        parts: Parts,
        staging: &wgpu::Buffer,
        at: u64,
    ) -> Result<wgpu::CommandBuffer> {
        let mut encoder = self.encode(self.launches(first..usize::MAX), counts, self.encoder())?;
        // Logits are wanted as they are, before changes.
        let mut at = at;
        let mut copy = |encoder: &mut wgpu::CommandEncoder, from: Resource, words: usize| -> Result<()> {
            if words > 0 {
                encoder.copy_buffer_to_buffer(self.memory.get(from)?, 0, staging, at, 4 * words as u64);
                at += 4 * words as u64;
            }
            Ok(())
        };
        let last = self.last_round;
        copy(&mut encoder, Resource::Buffer(self.plan.slot(self.plan.logits).buffer), parts.values)?;
        if parts.picked + parts.top > 0 {
            encoder = self.encode(self.picks.launches.iter(), counts, encoder)?;
        }
        copy(&mut encoder, Resource::Picked, parts.picked)?;
        copy(&mut encoder, Resource::Pairs(last % 2), 2 * parts.top)?;
        copy(&mut encoder, Resource::Stats(last % 2), 2 * parts.stats)?;
        if let Some(slot) = self.plan.pooled {
            copy(&mut encoder, Resource::Buffer(self.plan.slot(slot).buffer), parts.pooled)?;
        }
        Ok(encoder.finish())
    }

    /// Learns how fast the device is: the last step took so many seconds from its submission to its results.
    pub fn took(&mut self, seconds: f64) {
        self.pace.took(self.many, self.work, seconds);
    }

    /// Rows of a step of which no dispatch takes long, as far as the device was measured.
    pub fn brisk_rows(&self) -> usize {
        let of_tokens =
            self.steps.launches.iter().filter(|l| matches!(l.dispatch.when.0, Rows::Tokens | Rows::Sources));
        let largest = of_tokens.map(|l| l.dispatch.work).max().unwrap_or(0);
        self.pace.rows(largest)
    }

    fn staging(&self, parts: Parts) -> wgpu::Buffer {
        let size = staging_bytes(parts);
        self.spare.take(size).unwrap_or_else(|| {
            self.gpu.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("results"),
                size,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
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

    /// Bytes that the runner holds on the device.
    pub fn bytes(&self) -> u64 {
        self.memory.bytes
    }

    /// Whether the device tells when its work began and ended.
    pub fn has_timestamps(&self) -> bool {
        self.gpu.has_timestamps()
    }
}
