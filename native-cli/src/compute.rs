//! From device flags to a device, and token ids to logits on it, one sequence at a time. For the commands that look at
//! raw logits; talking goes through the engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ir_engine::cpu::{Activations, Cpu, CpuOptions};
use ir_engine::device::{Device, KvKind, Output, Runner, RunnerOptions};
use ir_engine::gpu::{self, Forms, Gpu, GpuOptions};
use ir_engine::plan::{Inputs, PAGE, Plan};
use ir_engine::run::{Sampler, Sampling};

use crate::args::{ActivationsChoice, DeviceArgs, DeviceChoice, KvChoice};
use crate::failure::{Failure, Result};

/// Rows of a step whose logits are wanted, at most.
pub(crate) const MAX_OUTPUTS: usize = 64;

/// Rows of a step, at most, where nothing else is asked.
pub(crate) const MAX_TOKENS: usize = 512;

/// The device that the flags ask for.
pub(crate) fn device(args: &DeviceArgs, threads: Option<u16>) -> Result<Device> {
    let (cpu_only, gpu_only) = (args.device == DeviceChoice::Cpu, matches!(args.device, DeviceChoice::Gpu(_)));
    if cpu_only && args.gpu_forms.is_some() {
        return Err(Failure::usage("--gpu-forms chooses kernels of a GPU: give --device gpu with it"));
    }
    if gpu_only && args.simd != "auto" {
        return Err(Failure::usage("--simd chooses kernels of the processor: leave it out with --device gpu"));
    }
    let forms = args.gpu_forms.as_deref().map(Forms::parse).transpose().map_err(|e| Failure::usage(e.to_string()))?;
    let adapter = match args.device {
        DeviceChoice::Cpu => return cpu(args, threads),
        DeviceChoice::Gpu(adapter) => adapter,
        DeviceChoice::Auto => match ready(gpu::adapters()).iter().position(|a| a.kind != "software") {
            Some(index) => Some(index),
            None => return cpu(args, threads),
        },
    };
    Ok(Device::Gpu(Arc::new(Gpu::open_now(&GpuOptions { adapter, forms, ..GpuOptions::default() })?)))
}

/// What a future gives that is ready at its first poll, as those about GPUs are natively.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    ir_engine::run::wait(future)
}

fn cpu(args: &DeviceArgs, threads: Option<u16>) -> Result<Device> {
    let activations = match args.activations {
        ActivationsChoice::F32 => Activations::F32,
        ActivationsChoice::Quantised => Activations::Quantised,
    };
    let options = CpuOptions { threads: threads.map(usize::from), simd: Some(args.simd.clone()), activations };
    Ok(Device::Cpu(Arc::new(Cpu::new(&options).map_err(|e| Failure::usage(e.to_string()))?)))
}

/// How the cache stores its elements.
pub(crate) fn kv_kind(choice: KvChoice) -> KvKind {
    match choice {
        KvChoice::F16 => KvKind::F16,
        KvChoice::F32 => KvKind::F32,
    }
}

/// One sequence on a device.
pub(crate) struct Sequence {
    runner: Runner,
    inputs: Inputs,
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
        let n_pages = n_context.div_ceil(PAGE);
        let max_tokens = max_tokens.min(n_pages * PAGE).max(1);
        let options = RunnerOptions { max_tokens, max_outputs: MAX_OUTPUTS.min(max_tokens), kv, n_pages };
        let runner = device.prepare(Arc::clone(plan), options)?;
        let inputs = Inputs { tables: vec![(0..n_pages as u32).collect()], ..Inputs::default() };
        Ok(Sequence { runner, inputs, n_past: 0, submitting: Duration::ZERO })
    }

    /// Forgets all tokens.
    pub(crate) fn reset(&mut self) {
        self.n_past = 0;
    }

    /// Appends tokens, at most as many as a step has rows; gives the logits of the last `n_outputs` of them.
    pub(crate) fn step(&mut self, tokens: &[u32], n_outputs: usize) -> Result<Output> {
        let inputs = &mut self.inputs;
        inputs.tokens.clear();
        inputs.positions.clear();
        inputs.seqs.clear();
        for (i, token) in tokens.iter().enumerate() {
            inputs.push(*token, (self.n_past + i) as u32, 0);
        }
        inputs.outputs = (tokens.len() - n_outputs.min(tokens.len())..tokens.len()).map(|i| i as u32).collect();
        let started = Instant::now();
        let readback = self.runner.submit(inputs)?;
        self.submitting = started.elapsed();
        self.n_past += tokens.len();
        Ok(readback.wait()?)
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

    /// Appends tokens and hands every one's row of logits to `row`, in order.
    pub(crate) fn rows(&mut self, tokens: &[u32], row: &mut dyn FnMut(&[f32]) -> Result) -> Result {
        let options = self.runner.options();
        for chunk in tokens.chunks(options.max_outputs.min(options.max_tokens)) {
            let output = self.step(chunk, chunk.len())?;
            (0..chunk.len()).try_for_each(|i| row(output.row(i)))?;
        }
        Ok(())
    }
}

/// The token with the largest logit, the first of equals.
pub(crate) fn argmax(row: &[f32]) -> Result<u32> {
    Ok(Sampler::new(Sampling::greedy()).sample(row, &[])?)
}
