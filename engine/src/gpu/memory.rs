//! What a runner holds on the device: weights in planes, activation buffers, cache pages, scratch. Sizes are added up
//! before anything is allocated. How weights get there is in `upload`.

use std::collections::{BTreeMap, BTreeSet};

use super::Gpu;
use super::dispatch::Resource;
use super::parts::{Part, split};
use super::planes::units;
use super::{lower, step};
use crate::error::{Error, Result};
use crate::plan::{Op, PAGE, Plan, RunnerOptions, TOP, Weight, WeightId};

/// The buffers of a runner, by what they are.
#[derive(Debug)]
pub(super) struct Memory {
    buffers: BTreeMap<u64, wgpu::Buffer>,
    vectors: BTreeMap<WeightId, Vec<(Resource, usize)>>,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// A resource as a number, for looking it up.
fn id(resource: Resource) -> u64 {
    let (kind, a, b) = match resource {
        Resource::Buffer(i) => (0, i, 0),
        Resource::Part(w, i) => (1, w.0 as usize, i),
        Resource::Vector(w) => (2, w.0 as usize, 0),
        Resource::Vectors(w, v) => (3, w.0 as usize, v.0 as usize),
        Resource::Freqs(i) => (4, i, 0),
        Resource::KPages(i) => (5, i, 0),
        Resource::VPages(i) => (6, i, 0),
        Resource::Splits => (7, 0, 0),
        Resource::Bytes => (8, 0, 0),
        Resource::Scales => (9, 0, 0),
        Resource::Picked => (10, 0, 0),
        Resource::Pairs(i) => (11, i, 0),
        Resource::Stats(i) => (12, i, 0),
    };
    kind << 56 | (a as u64) << 28 | b as u64
}

/// The weights that are multiplied with or looked up in, and of those the ones whose halves are gate and up.
fn matrices(plan: &Plan) -> (BTreeSet<WeightId>, BTreeSet<WeightId>) {
    let (mut all, mut paired) = (BTreeSet::new(), BTreeSet::new());
    for (i, entry) in plan.ops.iter().enumerate() {
        match entry.op {
            Op::Embed { table, .. } => _ = all.insert(table),
            Op::Linear { weight, out, .. } => {
                all.insert(weight);
                let next = plan.ops.get(i + 1).map(|e| e.op);
                if matches!(next, Some(Op::Glu { x, .. }) if x == out) {
                    paired.insert(weight);
                }
            }
            _ => {}
        }
    }
    (all, paired)
}

/// The parts of every weight that is a matrix; none for vectors.
pub(super) fn parts(plan: &Plan, max_bytes: u64) -> Vec<Vec<Part>> {
    let (all, paired) = matrices(plan);
    let of = |(i, weight): (usize, &Weight)| {
        let id = WeightId(i as u32);
        if all.contains(&id) { split(weight, paired.contains(&id), max_bytes) } else { Vec::new() }
    };
    plan.weights.iter().enumerate().map(of).collect()
}

/// Elements of K and of V that a page of a layer takes.
pub(super) fn page_elements(plan: &Plan, layer: usize) -> [usize; 2] {
    let kv = plan.kv[layer];
    [kv.k_dim, kv.v_dim].map(|dim| kv.n_kv_heads * PAGE * dim.next_multiple_of(4))
}

/// Every buffer that a plan needs, and its size in bytes.
fn sizes(
    plan: &Plan,
    parts: &[Vec<Part>],
    used: &BTreeSet<u64>,
    options: &RunnerOptions,
) -> Vec<(Resource, u64, String)> {
    let mut all = Vec::new();
    for (i, buffer) in plan.buffers.iter().enumerate() {
        let rows = options.most(buffer.rows);
        all.push((Resource::Buffer(i), rows as u64 * buffer.cols as u64 * 4, "activations".to_owned()));
    }
    for (i, weight) in plan.weights.iter().enumerate() {
        let w = WeightId(i as u32);
        for (j, part) in parts[i].iter().enumerate() {
            all.push((Resource::Part(w, j), part.layout.bytes, weight.name.clone()));
        }
        if weight.cols == 1 {
            all.push((Resource::Vector(w), weight.rows() as u64 * 4, weight.name.clone()));
        }
    }
    for (i, rope) in plan.ropes.iter().enumerate() {
        all.push((Resource::Freqs(i), rope.inv_freq.len() as u64 * 4, "rope frequencies".into()));
    }
    let mut splits = 0;
    for layer in 0..plan.kv.len() {
        let bytes = |elements: usize| (elements * options.kv.bytes()) as u64 * options.n_pages as u64;
        let [k, v] = page_elements(plan, layer).map(bytes);
        all.push((Resource::KPages(layer), k, "the cache".into()));
        all.push((Resource::VPages(layer), v, "the cache".into()));
    }
    let mut widest = 0;
    for entry in &plan.ops {
        match entry.op {
            Op::Attend { n_heads, layer, .. } => {
                splits = splits.max(n_heads * (1 + plan.kv[layer].v_dim.div_ceil(4)) * step::MAX_SPLITS * 16);
            }
            Op::Linear { x, .. } => widest = widest.max(units(plan.slot(x).cols)),
            _ => {}
        }
    }
    all.push((Resource::Splits, splits as u64, "attention".into()));
    all.push((Resource::Bytes, (widest * lower::FEW * 32) as u64, "activations".into()));
    all.push((Resource::Scales, (widest * lower::FEW * 16) as u64, "activations".into()));
    all.push((Resource::Picked, options.max_outputs as u64 * 4, "picks".into()));
    for (round, chunks) in lower::rounds(plan.n_vocab()).into_iter().take(2).enumerate() {
        let n = (options.max_outputs * chunks) as u64;
        all.push((Resource::Pairs(round), n * TOP as u64 * 8, "the largest logits".into()));
        all.push((Resource::Stats(round), n * 8, "the largest logits".into()));
    }
    all.retain(|(resource, ..)| used.contains(&id(*resource)) || matches!(resource, Resource::Buffer(_)));
    all
}

impl Memory {
    /// Allocates what `used` names. Weights are zeros until `upload` brings them.
    ///
    /// # Errors
    /// [`Error::Limit`] where it exceeds the budget or what one buffer can hold, with what would fit.
    pub(super) fn new(
        gpu: &Gpu,
        plan: &Plan,
        parts: &[Vec<Part>],
        used: impl Iterator<Item = Resource>,
        options: &RunnerOptions,
    ) -> Result<Memory> {
        let mut pairs = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for resource in used {
            ids.insert(id(resource));
            if let Resource::Vectors(a, b) = resource {
                pairs.insert(id(resource), (a, b));
            }
        }
        let sizes = sizes(plan, parts, &ids, options);
        let bytes = sizes.iter().map(|s| s.1).sum();
        check(gpu, plan, &sizes, bytes, options)?;
        let mut memory = Memory { buffers: BTreeMap::new(), vectors: BTreeMap::new(), bytes };
        for (resource, size, name) in sizes {
            memory.buffers.insert(id(resource), gpu.buffer(&name, size));
        }
        for (key, (a, b)) in pairs {
            let (n, m) = (plan.weight(a).rows(), plan.weight(b).rows());
            memory.buffers.insert(key, gpu.buffer("norms", 4 * (n as u64 + m as u64)));
            memory.vectors.entry(a).or_default().push((Resource::Vectors(a, b), 0));
            memory.vectors.entry(b).or_default().push((Resource::Vectors(a, b), n));
        }
        for w in (0..plan.weights.len()).map(|i| WeightId(i as u32)) {
            if memory.buffers.contains_key(&id(Resource::Vector(w))) {
                memory.vectors.entry(w).or_default().push((Resource::Vector(w), 0));
            }
        }
        memory.write_ropes(gpu, plan);
        Ok(memory)
    }

    /// Writes the plan's rotation frequencies.
    pub(super) fn write_ropes(&self, gpu: &Gpu, plan: &Plan) {
        for (i, rope) in plan.ropes.iter().enumerate() {
            if let Some(buffer) = self.buffers.get(&id(Resource::Freqs(i))) {
                gpu.queue().write_buffer(buffer, 0, bytemuck::cast_slice(&rope.inv_freq));
            }
        }
    }

    /// The buffers that hold a vector's elements as floats, and from which element on.
    pub(super) fn vectors(&self, weight: WeightId) -> impl Iterator<Item = &(Resource, usize)> {
        self.vectors.get(&weight).into_iter().flatten()
    }

    /// The buffer of a resource.
    ///
    /// # Errors
    /// Where there is none: an error of this library.
    pub(super) fn get(&self, resource: Resource) -> Result<&wgpu::Buffer> {
        self.buffers.get(&id(resource)).ok_or_else(|| Error::Device(format!("{resource:?} was not allocated")))
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}

fn check(gpu: &Gpu, plan: &Plan, sizes: &[(Resource, u64, String)], bytes: u64, options: &RunnerOptions) -> Result<()> {
    let most = gpu.max_binding();
    if let Some((resource, size, name)) = sizes.iter().find(|s| s.1 > most) {
        return Err(Error::limit(match resource {
            Resource::KPages(_) | Resource::VPages(_) => {
                let pages = most / (size / options.n_pages.max(1) as u64).max(1);
                format!("the GPU takes at most {pages} cache pages of {PAGE} tokens: ask for a shorter context")
            }
            _ => format!("{name} needs {}, more than the {} that the GPU binds at once", mib(*size), mib(most)),
        }));
    }
    let Some(budget) = gpu.memory_budget().filter(|budget| bytes > *budget) else { return Ok(()) };
    let cache: usize = (0..plan.kv.len()).map(|l| page_elements(plan, l).iter().sum::<usize>()).sum();
    let page = (cache * options.kv.bytes()) as u64;
    let fixed = bytes - page * options.n_pages as u64;
    let what_fits = match budget.checked_sub(fixed) {
        Some(rest) if rest >= page && page > 0 => {
            format!("a context of {} tokens would fit", rest / page * PAGE as u64)
        }
        _ => "choose a smaller model or --device cpu".into(),
    };
    Err(Error::limit(format!("the model needs {} of the {} allowed: {what_fits}", mib(bytes), mib(budget))))
}
