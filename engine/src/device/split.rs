//! [`Split`]: several devices as one. Where the layers of a model go is decided when it is prepared, when its weights and the
//! room for its cache are known.

use std::ops::Range;
use std::sync::Arc;

use super::split_runner::SplitRunner;
use super::{Device, Runner};
use crate::error::{Error, Result};
use crate::plan::{Op, Plan, RunnerOptions, state_of};

/// How many of a model's layers lie on GPUs. They are the last ones, with the head behind them if there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GpuLayers {
    /// As many as their memory holds, with the cache.
    #[default]
    Auto,
    /// So many, or all if the model has fewer.
    Count(usize),
}

/// Where the experts of a mixture are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Experts {
    /// Where their layer is.
    #[default]
    WithLayer,
    /// On the processor, those of the last so many layers; the rest of each layer stays where it is.
    OnCpu(usize),
}

/// How a model is divided over devices.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SplitOptions {
    /// Layers on the GPUs.
    pub layers: GpuLayers,
    /// What part of those layers each GPU takes, as ratios; by its memory if empty.
    pub shares: Vec<f32>,
    /// The experts of mixtures.
    pub experts: Experts,
    /// Whether a model that no GPU can run is left to the processor, instead of an error.
    pub or_cpu: bool,
    /// Into how many micro-batches a step is cut at most. `None`: as many as pay by what steps are measured to take.
    pub micro_batches: Option<usize>,
}

/// What lies on GPUs: the last layers, and the head behind them or not.
#[derive(Debug, Clone, Copy, Default)]
struct OnGpus {
    layers: usize,
    head: bool,
}

/// A processor and GPUs, over which models are divided.
#[derive(Debug)]
pub struct Split {
    cpu: Device,
    gpus: Vec<Device>,
    options: SplitOptions,
}

/// Percent of a GPU's free memory that a model may take if nothing was said.
const USABLE: u64 = 90;

impl Split {
    /// These devices as one. The GPUs take layers in this order.
    ///
    /// # Errors
    /// Shares that are not as many as the GPUs, not finite, or not above zero.
    pub fn new(cpu: Device, gpus: Vec<Device>, options: SplitOptions) -> Result<Split> {
        let shares = &options.shares;
        if !shares.is_empty() && shares.len() != gpus.len() {
            let (n, m) = (shares.len(), gpus.len());
            return Err(Error::request(format!("the split has {n} shares for {m} GPUs: give one for each")));
        }
        if let Some(share) = shares.iter().find(|share| !(share.is_finite() && **share > 0.0)) {
            return Err(Error::request(format!("a share of the split must be above zero, not {share}")));
        }
        Ok(Split { cpu, gpus, options })
    }

    /// The processor.
    pub fn cpu(&self) -> &Device {
        &self.cpu
    }

    /// The GPUs.
    pub fn gpus(&self) -> &[Device] {
        &self.gpus
    }

    /// The GPUs' names; the processor's if there are none.
    pub fn name(&self) -> String {
        let names: Vec<String> = self.gpus.iter().map(Device::name).collect();
        if names.is_empty() { self.cpu.name() } else { names.join(" and ") }
    }

    /// The same devices opened again; a GPU that does not open is left out.
    pub(super) async fn reopen(&self) -> Result<Split> {
        let (mut gpus, mut shares) = (Vec::new(), Vec::new());
        for (i, gpu) in self.gpus.iter().enumerate() {
            if let Ok(gpu) = Box::pin(gpu.reopen()).await {
                gpus.push(gpu);
                shares.extend(self.options.shares.get(i));
            }
        }
        Ok(Split { cpu: self.cpu.clone(), gpus, options: SplitOptions { shares, ..self.options.clone() } })
    }

    /// Divides a plan and prepares the parts.
    pub(super) fn prepare(&self, plan: &Arc<Plan>, options: RunnerOptions) -> Result<Runner> {
        let layers = layers(plan);
        let GpuLayers::Count(n) = self.options.layers else { return self.prepare_fitting(plan, options, &layers) };
        let on_gpus = OnGpus { layers: n.min(layers.len()), head: true };
        self.prepare_with(&self.gpus, plan, options, &layers, on_gpus)
    }

    /// As many layers on GPUs as fit. If a device refuses what should have fitted, fewer are tried, on the device opened anew.
    fn prepare_fitting(&self, plan: &Arc<Plan>, options: RunnerOptions, layers: &[Range<usize>]) -> Result<Runner> {
        let mut on_gpus = match self.fitting(plan, &options, layers) {
            Err(_) if self.options.or_cpu => OnGpus::default(),
            fitting => fitting?,
        };
        let mut gpus = self.gpus.clone();
        loop {
            let n = &mut on_gpus.layers;
            match self.prepare_with(&gpus, plan, options, layers, OnGpus { layers: *n, head: on_gpus.head }) {
                Err(Error::Unsupported(_)) if *n > 0 && self.options.or_cpu => *n = 0,
                Err(Error::Device(_) | Error::Lost(_) | Error::Limit(_)) if *n > 0 => {
                    *n -= (*n / 8).max(1);
                    gpus = gpus.iter().map(reopened).collect::<Result<_>>()?;
                }
                prepared => return prepared,
            }
        }
    }

    /// How many of a plan's layers the GPUs hold, and how many there are.
    ///
    /// # Errors
    /// As preparing the plan has.
    pub fn holds(&self, plan: &Plan, options: &RunnerOptions) -> Result<(usize, usize)> {
        let layers = layers(plan);
        Ok((self.fitting(plan, options, &layers)?.layers, layers.len()))
    }

    /// The largest number of layers of which every GPU holds its share, with the head behind them, or without it where a large
    /// vocabulary leaves no room for a layer.
    ///
    /// # Errors
    /// A budget that was given and does not hold one layer, or what a GPU cannot compute, by name.
    fn fitting(&self, plan: &Plan, options: &RunnerOptions, layers: &[Range<usize>]) -> Result<OnGpus> {
        for head in [true, false] {
            let (mut low, mut high) = (0, layers.len());
            while low < high {
                let n = high - (high - low) / 2;
                if self.fits(plan, options, layers, OnGpus { layers: n, head })? { low = n } else { high = n - 1 }
            }
            if low > 0 {
                return Ok(OnGpus { layers: low, head });
            }
        }
        let said = self.gpus.iter().any(|gpu| gpu.said_budget().is_some());
        if said && !self.options.or_cpu {
            return Err(Error::limit(
                "the GPU memory that is allowed does not hold one layer and its cache: allow more, or use --device cpu",
            ));
        }
        Ok(OnGpus::default())
    }

    fn fits(&self, plan: &Plan, options: &RunnerOptions, layers: &[Range<usize>], on_gpus: OnGpus) -> Result<bool> {
        let division = plan.divide(&self.parts(&self.gpus, plan, layers, on_gpus))?;
        for (gpu, part) in self.gpus.iter().zip(division.parts.iter().skip(1)) {
            let Some(budget) = gpu.budget() else { continue };
            if gpu.bytes_of(part, options)? > budget {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn prepare_with(
        &self,
        gpus: &[Device],
        plan: &Arc<Plan>,
        options: RunnerOptions,
        layers: &[Range<usize>],
        on_gpus: OnGpus,
    ) -> Result<Runner> {
        let part_of = self.parts(gpus, plan, layers, on_gpus);
        let devices: Vec<&Device> = std::iter::once(&self.cpu).chain(gpus).collect();
        if let Some(only) = part_of.first().filter(|first| part_of.iter().all(|part| part == *first)) {
            return devices[*only].prepare(Arc::clone(plan), options);
        }
        let runner = SplitRunner::new(&devices, plan, &part_of, layers, options, self.options.micro_batches)?;
        Ok(Runner::Split(Box::new(runner)))
    }

    /// The device of each op: 0 is the processor, others are counted from 1.
    fn parts(&self, gpus: &[Device], plan: &Plan, layers: &[Range<usize>], on_gpus: OnGpus) -> Vec<usize> {
        let whole = layers.len();
        let n = if gpus.is_empty() { 0 } else { on_gpus.layers };
        let mut part_of = vec![0; plan.ops.len()];
        let shares = self.shares(gpus);
        let (mut from, mut before) = (uncut(plan, layers, whole - n), 0.0);
        for (i, share) in shares.iter().enumerate() {
            before += share;
            let end = (whole - n) + (before * n as f64).round() as usize;
            let end = if i + 1 == shares.len() { whole } else { uncut(plan, layers, end.clamp(from, whole)) };
            for layer in &layers[from..end] {
                part_of[layer.clone()].fill(i + 1);
            }
            from = end;
        }
        if !on_gpus.head {
            part_of[behind_layers(plan)..].fill(0);
        }
        let Experts::OnCpu(last) = self.options.experts else { return part_of };
        for layer in &layers[whole.saturating_sub(last)..] {
            experts(plan, layer.clone()).for_each(|op| part_of[op] = 0);
        }
        part_of
    }

    /// What part of the layers each GPU takes, all together 1.
    fn shares(&self, gpus: &[Device]) -> Vec<f64> {
        let memory = || gpus.iter().map(|gpu| gpu.budget().map(|bytes| bytes as f64)).collect::<Option<Vec<_>>>();
        let shares = match self.options.shares.as_slice() {
            [] => memory().filter(|all| all.iter().all(|bytes| *bytes > 0.0)).unwrap_or_else(|| vec![1.0; gpus.len()]),
            given => given.iter().map(|share| f64::from(*share)).collect(),
        };
        let sum: f64 = shares.iter().sum();
        shares.iter().map(|share| share / sum).collect()
    }
}

impl Device {
    /// Bytes of device memory that were said to be allowed.
    fn said_budget(&self) -> Option<u64> {
        match self {
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.memory_budget(),
            _ => None,
        }
    }

    /// Bytes of device memory that a model may take: what was said, or a part of what is free now; `None` where nobody knows.
    fn budget(&self) -> Option<u64> {
        self.said_budget().or_else(|| Some(self.free_memory().or_else(|| self.memory())? / 100 * USABLE))
    }

    /// Bytes of a GPU's own memory that are free now; `None` where the driver does not say.
    fn free_memory(&self) -> Option<u64> {
        match self {
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.free_memory(),
            _ => None,
        }
    }

    /// Bytes of device memory that a runner of a plan takes; none of a processor's.
    #[cfg_attr(not(feature = "gpu"), expect(unused_variables, reason = "only a GPU has memory of its own"))]
    fn bytes_of(&self, plan: &Plan, options: &RunnerOptions) -> Result<u64> {
        match self {
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.bytes_of(plan, options),
            _ => Ok(0),
        }
    }
}

/// A device opened anew, as after a refusal, which it does not forget.
fn reopened(device: &Device) -> Result<Device> {
    match device {
        #[cfg(feature = "gpu")]
        Device::Gpu(gpu) => gpu.reopen_now().map(|gpu| Device::Gpu(Arc::new(gpu))),
        device => Ok(device.clone()),
    }
}

/// The ops of each layer, in order. What comes before the first belongs to it, and what comes behind the last to that one.
pub(super) fn layers(plan: &Plan) -> Vec<Range<usize>> {
    let mut layers: Vec<Range<usize>> = Vec::new();
    let mut last: Option<&str> = None;
    for (i, entry) in plan.ops.iter().enumerate() {
        if let Some(name) = layer_name(&entry.scope) {
            if last.is_some_and(|last| last != name) {
                layers.push(i..i);
            }
            last = Some(name);
        }
        if layers.is_empty() {
            layers.push(0..0);
        }
        if let Some(layer) = layers.last_mut() {
            layer.end = i + 1;
        }
    }
    layers
}

/// The first op behind a plan's last layer.
pub(super) fn behind_layers(plan: &Plan) -> usize {
    plan.ops.iter().rposition(|entry| layer_name(&entry.scope).is_some()).map_or(0, |last| last + 1)
}

/// `blk.3` of `blk.3.attn`, `enc.blk.3` of `enc.blk.3.ffn`.
fn layer_name(scope: &str) -> Option<&str> {
    let number = scope.find("blk.")? + "blk.".len();
    let digits = scope[number..].find(|c: char| !c.is_ascii_digit()).unwrap_or(scope.len() - number);
    (digits > 0).then(|| &scope[..number + digits])
}

/// The first layer from `at` on before which a plan can be divided: no cache or state is used on both sides.
fn uncut(plan: &Plan, layers: &[Range<usize>], at: usize) -> usize {
    let used = |ops: Range<usize>| {
        let ops = || plan.ops[ops.clone()].iter().map(|entry| &entry.op);
        let caches = ops().filter_map(|op| plan.cache_of(op)).map(|i| (0, i));
        caches.chain(ops().filter_map(state_of).map(|i| (1, i))).collect::<std::collections::BTreeSet<_>>()
    };
    let free = |at: usize| {
        let Some(layer) = layers.get(at) else { return true };
        used(0..layer.start).is_disjoint(&used(layer.start..plan.ops.len()))
    };
    (at..layers.len()).find(|at| free(*at)).unwrap_or(layers.len())
}

/// The ops of a layer that multiply with experts, and what stands between those and their sum.
fn experts(plan: &Plan, layer: Range<usize>) -> impl Iterator<Item = usize> {
    let mut theirs = Vec::new();
    layer.filter(move |i| {
        let op = &plan.ops[*i].op;
        let own = matches!(op, Op::ExpertLinear { .. });
        let on_theirs = op.reads().iter().any(|slot| theirs.contains(slot));
        let sum = matches!(op, Op::Combine { .. });
        if (own || on_theirs) && !sum {
            theirs.extend(op.writes());
        }
        own || on_theirs
    })
}
