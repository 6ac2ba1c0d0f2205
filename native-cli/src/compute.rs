//! From device flags to a device, and token ids to logits on it: one sequence, or several of one length in step. For the
//! commands that look at raw logits; talking goes through the engine.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ir_engine::cpu::{Activations, Cpu, CpuOptions};
use ir_engine::device::{Device, Experts, GpuLayers, KvKind, Output, Runner, RunnerOptions, Split, SplitOptions};
use ir_engine::gpu::{self, Forms, Gpu, GpuOptions};
use ir_engine::plan::{Inputs, PAGE, Plan};
use ir_engine::run::{Sampler, Sampling};

use crate::args::{ActivationsChoice, DeviceArgs, DeviceChoice, ExpertsChoice, KvChoice, LayersChoice};
use crate::failure::{Failure, Result};
use crate::term;

/// Rows of a step whose logits are wanted, at most.
pub(crate) const MAX_OUTPUTS: usize = 64;

/// Rows of a step, at most, where nothing else is asked.
pub(crate) const MAX_TOKENS: usize = 512;

/// The device that the flags ask for. A GPU's pipelines are made when they are wanted.
pub(crate) fn device(args: &DeviceArgs, threads: Option<u16>) -> Result<Device> {
    chosen(args, threads, None).map(|chosen| chosen.device)
}

/// A device, and why it was taken.
pub(crate) struct Chosen {
    pub device: Device,
    /// Of a choice that the program made: a line for people.
    pub why: Option<String>,
}

/// The device that the flags ask for, and why it is that one if they leave it open. For models that stay: a GPU's pipelines
/// are made while one loads.
pub(crate) fn choose(args: &DeviceArgs, threads: Option<u16>) -> Result<Chosen> {
    chosen(args, threads, Some(gpu::threads_of_pipelines()))
}

fn chosen(args: &DeviceArgs, threads: Option<u16>, compile_ahead: Option<usize>) -> Result<Chosen> {
    let (cpu_only, gpu_only) = (args.device == DeviceChoice::Cpu, matches!(args.device, DeviceChoice::Gpu(_)));
    if let Some(flag) = args.divides().or(args.gpu_forms.as_ref().map(|_| "--gpu-forms")).filter(|_| cpu_only) {
        return Err(Failure::usage(format!("{flag} is about GPUs: leave out --device cpu, or give --device gpu")));
    }
    let (adapters, why) = match &args.device {
        DeviceChoice::Cpu => return Ok(Chosen { device: cpu(args, threads)?, why: None }),
        DeviceChoice::Gpu(all) if all.is_empty() => (vec![None], None),
        DeviceChoice::Gpu(all) => (all.iter().copied().map(Some).collect(), None),
        DeviceChoice::Auto => match best(args) {
            Ok((index, name)) => (vec![Some(index)], Some(format!("{name} computes (--device cpu: the processor)"))),
            Err(why) if args.gpu_forms.is_some() => {
                return Err(Failure::usage(format!(
                    "--gpu-forms chooses kernels of a GPU, and {why}: give --device gpu"
                )));
            }
            Err(why) => {
                let (device, flag) = (cpu(args, threads)?, args.divides());
                let flag = flag.map(|flag| format!(", and {flag} has no effect")).unwrap_or_default();
                let why = Some(format!("{} computes: {why}{flag}", device.name()));
                return Ok(Chosen { device, why });
            }
        },
    };
    if !args.split.is_empty() && args.split.len() != adapters.len() {
        let (n, m) = (args.split.len(), adapters.len());
        return Err(Failure::usage(format!(
            "--split has {n} shares and --device names {m} GPUs: give a share for each, as in --device gpu:0,gpu:1 --split 3,1"
        )));
    }
    let gpus = adapters.into_iter().map(|adapter| gpu(args, adapter, compile_ahead)).collect::<Result<Vec<_>>>()?;
    let split = Split::new(cpu(args, threads)?, gpus, split_options(args, !gpu_only))?;
    Ok(Chosen { device: Device::Split(Arc::new(split)), why })
}

/// How the flags divide a model.
fn split_options(args: &DeviceArgs, or_cpu: bool) -> SplitOptions {
    SplitOptions {
        layers: match args.gpu_layers {
            LayersChoice::Auto => GpuLayers::Auto,
            LayersChoice::Count(n) => GpuLayers::Count(n),
        },
        shares: args.split.clone(),
        experts: match args.experts {
            ExpertsChoice::WithLayer => Experts::WithLayer,
            ExpertsChoice::OnCpu(n) => Experts::OnCpu(n),
        },
        or_cpu,
        micro_batches: None,
    }
}

/// The best GPU that is not software, its number and name; or why there is none.
fn best(args: &DeviceArgs) -> std::result::Result<(usize, String), &'static str> {
    if args.simd != "auto" {
        return Err("--simd chooses its kernels");
    }
    if !may_have_gpu() {
        return Err("no GPU was found");
    }
    let all = ready(gpu::adapters());
    match all.iter().position(|a| a.kind != "software") {
        Some(index) => Ok((index, all[index].name.clone())),
        None if all.is_empty() => Err("no GPU was found"),
        None => Err("the only GPU here is a software one"),
    }
}

/// Whether the system shows a driver of a GPU. Asking for adapters without one takes a fifth of a second, and loads software.
pub(crate) fn may_have_gpu() -> bool {
    const DRIVERS: [&str; 6] = ["renderD", "nvidia", "dxg", "mali", "kgsl", "pvr"];
    if !cfg!(target_os = "linux") {
        return true;
    }
    let names =
        ["/dev", "/dev/dri"].into_iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    names.into_iter().any(|entry| DRIVERS.iter().any(|driver| entry.file_name().to_string_lossy().starts_with(driver)))
}

fn gpu(args: &DeviceArgs, adapter: Option<usize>, compile_ahead: Option<usize>) -> Result<Device> {
    let forms = args.gpu_forms.as_deref().map(Forms::parse).transpose().map_err(|e| Failure::usage(e.to_string()))?;
    let memory = args.gpu_memory.map(|gib| (gib * f64::from(1 << 30)) as u64);
    let pipelines = pipelines_folder();
    let options = GpuOptions { adapter, forms, memory, pipelines, compile_ahead, ..GpuOptions::default() };
    let gpu = Gpu::open_now(&options)?;
    gpu.notes().iter().for_each(|note| say(note));
    Ok(Device::Gpu(Arc::new(gpu)))
}

/// Where the drivers' compiled pipelines are kept.
fn pipelines_folder() -> Option<PathBuf> {
    use etcetera::BaseStrategy;
    Some(etcetera::choose_base_strategy().ok()?.cache_dir().join("ir").join("pipelines"))
}

/// A line for whoever runs this: in the log where there is one.
fn say(note: &str) {
    if tracing::enabled!(tracing::Level::WARN) {
        tracing::warn!("{note}");
    } else {
        term::remark(note);
    }
}

/// The GPU that computes a model which it holds whole.
pub(crate) fn only_gpu(device: &Device) -> Option<&Arc<Gpu>> {
    match device {
        Device::Gpu(gpu) => Some(gpu),
        Device::Split(split) => match split.gpus() {
            [only] => only_gpu(only),
            _ => None,
        },
        Device::Cpu(_) => None,
    }
}

/// What a future gives that is ready at its first poll, as those about GPUs are natively.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    ir_engine::run::wait(future)
}

fn cpu(args: &DeviceArgs, threads: Option<u16>) -> Result<Device> {
    let activations = match args.activations {
        ActivationsChoice::F32 => Activations::F32,
        ActivationsChoice::Quantised => Activations::Quantised,
        ActivationsChoice::Bf16 => Activations::Bf16,
    };
    let options = CpuOptions { threads: threads.map(usize::from), simd: Some(args.simd.clone()), activations };
    Ok(Device::Cpu(Arc::new(Cpu::new(&options).map_err(|e| Failure::usage(e.to_string()))?)))
}

/// How the cache stores its elements.
pub(crate) fn kv_kind(choice: KvChoice) -> KvKind {
    match choice {
        KvChoice::F16 => KvKind::F16,
        KvChoice::F32 => KvKind::F32,
        KvChoice::Blocks8 => KvKind::Blocks8,
    }
}

/// One sequence on a device, or several that are always equally long.
pub(crate) struct Sequence {
    runner: Runner,
    inputs: Inputs,
    whole: bool,
    n_past: usize,
    submitting: Duration,
}

impl Sequence {
    /// A sequence with room for `n_context` tokens, in steps of at most `max_tokens` rows.
    pub(crate) fn new(
        device: &Device,
        plan: &Arc<Plan>,
        kv: KvKind,
        n_context: usize,
        max_tokens: usize,
    ) -> Result<Sequence> {
        Sequence::several(device, plan, kv, n_context, max_tokens, 1)
    }

    /// So many sequences with room for `n_context` tokens each.
    pub(crate) fn several(
        device: &Device,
        plan: &Arc<Plan>,
        kv: KvKind,
        n_context: usize,
        max_tokens: usize,
        n_sequences: usize,
    ) -> Result<Sequence> {
        let each = n_context.div_ceil(PAGE);
        let n_pages = each * n_sequences;
        // A text that is read both ways is read in one step.
        let whole = plan.reads_both_ways();
        let max_tokens = if whole { n_context } else { max_tokens };
        let max_tokens = max_tokens.min(n_pages * PAGE).max(n_sequences);
        let options = RunnerOptions {
            max_tokens,
            max_outputs: MAX_OUTPUTS.min(max_tokens),
            kv,
            n_pages,
            n_states: n_sequences,
            n_window_pages: 0,
        };
        let runner = device.prepare(plan.for_context(n_context), options)?;
        let pages: Vec<u32> = (0..n_pages as u32).collect();
        let inputs = Inputs { tables: pages.chunks(each.max(1)).map(<[u32]>::to_vec).collect(), ..Inputs::default() };
        Ok(Sequence { runner, inputs, whole, n_past: 0, submitting: Duration::ZERO })
    }

    /// Forgets all tokens.
    pub(crate) fn reset(&mut self) {
        self.n_past = 0;
    }

    /// Reads the source of the only sequence: what an encoder is given before anything is generated.
    pub(crate) fn source(&mut self, tokens: &[u32]) -> Result {
        self.inputs.source = true;
        self.step(tokens, 0)?;
        (self.inputs.source, self.inputs.sources) = (false, vec![tokens.len() as u32]);
        Ok(())
    }

    /// Appends tokens to the first sequence, at most as many as a step has rows; gives the logits of the last `n_outputs`
    /// of them.
    pub(crate) fn step(&mut self, tokens: &[u32], n_outputs: usize) -> Result<Output> {
        let rows = tokens.iter().enumerate().map(|(i, token)| (*token, i, 0));
        self.submit(rows, tokens.len() - n_outputs.min(tokens.len())..tokens.len(), tokens.len())
    }

    /// Appends a token to every sequence, another to each; gives the logits behind them.
    pub(crate) fn step_all(&mut self, token: u32, n_vocab: u32) -> Result<Output> {
        let rows = (0..self.inputs.tables.len() as u32).map(|seq| ((token + seq) % n_vocab, 0, seq));
        self.submit(rows, 0..self.inputs.tables.len(), 1)
    }

    /// Runs a step of rows: token, place behind what is there, sequence. Logits are wanted of the rows `wanted`; all
    /// sequences grow by `n`.
    fn submit(
        &mut self,
        rows: impl Iterator<Item = (u32, usize, u32)>,
        wanted: Range<usize>,
        n: usize,
    ) -> Result<Output> {
        let inputs = &mut self.inputs;
        inputs.tokens.clear();
        inputs.positions.clear();
        inputs.seqs.clear();
        rows.for_each(|(token, at, seq)| _ = inputs.push(token, (self.n_past + at) as u32, seq));
        inputs.outputs = wanted.map(|i| i as u32).collect();
        self.runner.plan().use_adapters(inputs);
        let started = Instant::now();
        let readback = self.runner.submit(inputs)?;
        self.submitting = started.elapsed();
        self.n_past += n;
        Ok(readback.wait()?)
    }

    /// What computes: the device, or which layers are on which.
    pub(crate) fn placement(&self) -> String {
        self.runner.placement()
    }

    /// What the last step took before its results were waited for.
    pub(crate) fn submitting(&self) -> Duration {
        self.submitting
    }

    /// What runs, and the inputs of the last step.
    pub(crate) fn last_step(&mut self) -> (&mut Runner, &Inputs) {
        (&mut self.runner, &self.inputs)
    }

    /// Appends tokens of which no logits are wanted.
    pub(crate) fn skip(&mut self, tokens: &[u32]) -> Result {
        let max_tokens = self.runner.options().max_tokens;
        for chunk in tokens.chunks(max_tokens) {
            self.step(chunk, 0)?;
        }
        Ok(())
    }

    /// Appends the same tokens to every sequence; no logits are wanted.
    pub(crate) fn skip_all(&mut self, tokens: &[u32]) -> Result {
        let n_sequences = self.inputs.tables.len();
        let most = (self.runner.options().max_tokens / n_sequences).max(1);
        for chunk in tokens.chunks(most) {
            let of = |seq: u32| chunk.iter().enumerate().map(move |(i, token)| (*token, i, seq));
            self.submit((0..n_sequences as u32).flat_map(of), 0..0, chunk.len())?;
        }
        Ok(())
    }

    /// Appends tokens and hands every one's row of logits to `row`, in order. A text that is read as a whole is computed anew
    /// for as many rows of logits as the device has room for.
    pub(crate) fn rows(&mut self, tokens: &[u32], row: &mut dyn FnMut(&[f32]) -> Result) -> Result {
        let options = self.runner.options();
        let most = options.max_outputs.min(options.max_tokens);
        for start in (0..tokens.len()).step_by(most) {
            let wanted = start..(start + most).min(tokens.len());
            let n = wanted.len();
            let output = if self.whole {
                let rows = tokens.iter().enumerate().map(|(i, token)| (*token, i, 0));
                self.submit(rows, wanted, 0)?
            } else {
                self.step(&tokens[wanted], n)?
            };
            (0..n).try_for_each(|i| row(output.row(i)))?;
        }
        Ok(())
    }
}

/// The ids of `--ids`, which must be of the model's vocabulary.
pub(crate) fn known_ids(ids: &[u32], plan: &Plan) -> Result<Vec<u32>> {
    let n_vocab = plan.n_vocab();
    match ids.iter().find(|id| **id as usize >= n_vocab) {
        Some(id) => Err(Failure::usage(format!("--ids: {id} is outside the model's vocabulary of {n_vocab}"))),
        None => Ok(ids.to_vec()),
    }
}

/// Refuses to go on with a text token by token if the model reads texts as a whole.
pub(crate) fn expect_next(plan: &Plan) -> Result {
    match plan.reads_both_ways() {
        true => Err(Failure::run(
            "this model reads a text both ways and predicts no next token: `ir logits` gives what it predicts in each place",
        )),
        false => Ok(()),
    }
}

/// The token with the largest logit, the first of equals.
pub(crate) fn argmax(row: &[f32]) -> Result<u32> {
    Ok(Sampler::new(Sampling::greedy()).sample(row, &[])?)
}
