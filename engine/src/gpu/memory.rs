//! What a runner holds on the device: weights in planes, activation buffers, cache pages, scratch. Sizes are added up
//! before anything is allocated. How weights get there is in `upload`.

use std::collections::{BTreeMap, BTreeSet};

use super::Gpu;
use super::constants::Constants;
use super::dispatch::{Resource, most_sorted};
use super::parts::{Part, Use, split};
use super::planes::units;
use super::{lower, step};
use crate::error::{Error, Result};
use crate::plan::{Epilogue, KvKind, Op, PAGE, Pick, Plan, RunnerOptions, Slot, TOP, Weight, WeightId};

/// The buffers of a runner, by what they are.
#[derive(Debug)]
pub(super) struct Memory {
    buffers: BTreeMap<u64, wgpu::Buffer>,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// A resource as a number, for looking it up.
fn id(resource: Resource) -> u64 {
    let (kind, a, b) = match resource {
        Resource::Buffer(i) => (0, i, 0),
        Resource::Part(w, i) => (1, w.0 as usize, i),
        Resource::Constants => (2, 0, 0),
        Resource::KPages(i) => (3, i, 0),
        Resource::VPages(i) => (4, i, 0),
        Resource::Splits => (5, 0, 0),
        Resource::Bytes(i) => (6, i, 0),
        Resource::Picked => (8, 0, 0),
        Resource::Pairs(i) => (9, i, 0),
        Resource::Stats(i) => (10, i, 0),
        Resource::States(i) => (11, i, 0),
        Resource::Order => (12, 0, 0),
        Resource::Tiles => (13, 0, 0),
        Resource::Finished => (14, 0, 0),
    };
    kind << 56 | (a as u64) << 28 | b as u64
}

/// The weights that are multiplied with or looked up in, and how.
fn matrices(plan: &Plan) -> BTreeMap<WeightId, Use> {
    let mut all = BTreeMap::new();
    for entry in &plan.ops {
        let (weight, matrices, then) = match entry.op {
            Op::Embed { table, by: _, out: _ } => (table, 1, None),
            Op::Linear { x: _, norm: _, weight, scale: _, bias: _, then } => (weight, 1, Some(then)),
            Op::ExpertLinear {
                x: _,
                each: _,
                pick: Pick { picks: _, used: _, of },
                weight,
                scale: _,
                bias: _,
                then,
            } => (weight, of, Some(then)),
            Op::HeadLinear { x: _, weight, n_heads, pass: _, out: _ } => (weight, n_heads, None),
            Op::Norm { x: _, norm: _, out: _ }
            | Op::Route { x: _, bias: _, routing: _, out: _ }
            | Op::Combine { x: _, pick: _, weighted: _, out: _ }
            | Op::Mix { x: _, coef: _, width: _, out: _ }
            | Op::Balance { x: _, n: _, rounds: _, eps: _ }
            | Op::Select { q: _, weights: _, layer: _, out: _ }
            | Op::Gate { x: _, gate: _, act: _, group: _ }
            | Op::Conv { x: _, weight: _, bias: _, act: _, state: _, out: _ }
            | Op::Recur {
                q: _,
                k: _,
                v: _,
                decay: _,
                rates: _,
                beta: _,
                v_scale: _,
                skip: _,
                form: _,
                state: _,
                out: _,
            }
            | Op::Rope { x: _, head_dim: _, first: _, rope: _ }
            | Op::KvWrite { k: _, tail: _, v: _, layer: _ }
            | Op::Attend {
                q: _,
                layer: _,
                n_heads: _,
                scale: _,
                cap: _,
                mask: _,
                window: _,
                chunk: _,
                chosen: _,
                temperature: _,
                slopes: _,
                relative: _,
                sinks: _,
                out: _,
            }
            | Op::Act { x: _, act: _, bias: _, factor: _ }
            | Op::Glu { x: _, gated: _, out: _ }
            | Op::Add { x: _, y: _, factor: _ }
            | Op::Scale { x: _, factor: _, weight: _ }
            | Op::Softcap { x: _, cap: _ }
            | Op::TakeRows { x: _, out: _ }
            | Op::TakeCols { x: _, columns: _, out: _ }
            | Op::AdapterScales { out: _ }
            | Op::Pool { x: _, out: _ } => continue,
        };
        let paired = match then {
            Some(Epilogue::Glu { gated: _, product: _, out: _ }) => true,
            Some(
                Epilogue::Store { out: _ }
                | Epilogue::Add { to: _, factor: _, product: _ }
                | Epilogue::Act { act: _, out: _ }
                | Epilogue::Heads { heads: _, out: _ },
            )
            | None => false,
        };
        let known = all.entry(weight).or_insert(Use { paired, matrices });
        known.paired |= paired;
    }
    all
}

/// The parts of every weight that is a matrix; none for vectors.
pub(super) fn parts(plan: &Plan, max_bytes: u64) -> Vec<Vec<Part>> {
    let all = matrices(plan);
    let of = |(i, weight): (usize, &Weight)| {
        all.get(&WeightId(i as u32)).map_or(Vec::new(), |how| split(weight, *how, max_bytes))
    };
    plan.weights.iter().enumerate().map(of).collect()
}

/// Elements of K and of V that a page of a layer takes.
pub(super) fn page_elements(plan: &Plan, layer: usize) -> [usize; 2] {
    let kv = plan.kv[layer];
    let v_dim = if kv.v_in_k { 0 } else { kv.v_dim };
    [kv.k_dim, v_dim].map(|dim| kv.n_kv_heads * PAGE * dim.next_multiple_of(4))
}

/// Bytes of so many elements of a page. A scale of 8-bit blocks takes a word here.
pub(super) fn page_bytes(kv: KvKind, elements: usize) -> u64 {
    match kv {
        KvKind::Blocks8 => elements as u64 / 32 * 36,
        KvKind::F16 | KvKind::F32 => kv.row_bytes(elements) as u64,
    }
}

/// What a step needs besides its dispatches' bindings: the constants, and the buffers of results that the plan's ops write.
fn results(plan: &Plan) -> Vec<Resource> {
    let written = |slot: &Slot| plan.writes(*slot);
    let slots = std::iter::once(plan.logits).chain(plan.pooled).filter(written);
    slots.map(|slot| Resource::Buffer(plan.slot(slot).buffer)).chain([Resource::Constants]).collect()
}

/// Bytes of the results of splits of attend_vec, at most one for each row and head, and of counters: for those splits, and for
/// the heads of few rows.
fn splits(plan: &Plan) -> [u64; 2] {
    let of_heads = plan.heads.iter().map(|heads| heads.n_heads + 2 * plan.kv[heads.layer].n_kv_heads);
    let mut splits = [0, 4 * lower::FEW * of_heads.max().unwrap_or(0)];
    for entry in &plan.ops {
        if let Op::Attend {
            q: _,
            layer,
            n_heads,
            scale: _,
            cap: _,
            mask: _,
            window: _,
            chunk: _,
            chosen: _,
            temperature: _,
            slopes: _,
            relative: _,
            sinks: _,
            out: _,
        } = entry.op
        {
            let n = n_heads * step::MAX_SPLITS;
            splits = [splits[0].max(n * (1 + plan.kv[layer].v_dim.div_ceil(4)) * 16), splits[1].max(4 * n)];
        }
    }
    splits.map(|bytes| bytes as u64)
}

/// Bytes of sorted picks, and of their tiles.
fn sorted(plan: &Plan, options: &RunnerOptions) -> [u64; 2] {
    let mut words = [0, 0];
    for entry in &plan.ops {
        if let Op::ExpertLinear { x: _, each: _, pick, weight: _, scale: _, bias: _, then: _ } = entry.op {
            let picks = options.most(plan.slot(pick.picks).rows) * pick.used;
            words = [words[0].max(picks), words[1].max(1 + 3 * most_sorted(picks, pick.of))];
        }
    }
    words.map(|n| 4 * n as u64)
}

/// Every buffer that a plan needs, and its size in bytes.
fn sizes(
    plan: &Plan,
    parts: &[Vec<Part>],
    constants: &Constants,
    used: &BTreeSet<u64>,
    options: &RunnerOptions,
) -> Vec<(Resource, u64, String)> {
    let mut all = Vec::new();
    for (i, buffer) in plan.buffers.iter().enumerate() {
        let rows = options.most(buffer.rows);
        all.push((Resource::Buffer(i), rows as u64 * buffer.cols as u64 * 4, "activations".to_owned()));
        let blocks = (units(buffer.cols) * lower::FEW) as u64;
        all.push((Resource::Bytes(i), 48 * blocks, "activations".to_owned()));
    }
    for (i, weight) in plan.weights.iter().enumerate() {
        let w = WeightId(i as u32);
        for (j, part) in parts[i].iter().enumerate() {
            all.push((Resource::Part(w, j), part.layout.bytes, weight.name.clone()));
        }
    }
    all.push((Resource::Constants, constants.bytes, "norms, biases and other vectors".into()));
    for layer in 0..plan.kv.len() {
        let n_pages = options.pages(plan.kv_groups[layer]);
        let bytes = |elements: usize| page_bytes(options.kv, elements) * n_pages as u64;
        let [k, v] = page_elements(plan, layer).map(bytes);
        all.push((Resource::KPages(layer), k, "the cache".into()));
        all.push((Resource::VPages(layer), v, "the cache".into()));
    }
    for (i, n) in plan.states.iter().enumerate() {
        all.push((Resource::States(i), 4 * *n as u64 * options.n_states as u64, "the states of sequences".into()));
    }
    let [order, tiles] = sorted(plan, options);
    all.push((Resource::Order, order, "picks".into()));
    all.push((Resource::Tiles, tiles, "picks".into()));
    let [splits, finished] = splits(plan);
    all.push((Resource::Splits, splits, "attention".into()));
    all.push((Resource::Finished, finished, "attention".into()));
    all.push((Resource::Picked, options.max_outputs as u64 * 4, "picks".into()));
    let rounds = if plan.has_head() { lower::rounds(plan.n_vocab()) } else { Vec::new() };
    for (round, chunks) in rounds.into_iter().take(2).enumerate() {
        let n = (options.max_outputs * chunks) as u64;
        all.push((Resource::Pairs(round), n * TOP as u64 * 8, "the largest logits".into()));
        all.push((Resource::Stats(round), n * 8, "the largest logits".into()));
    }
    let given = results(plan);
    all.retain(|(resource, ..)| used.contains(&id(*resource)) || given.contains(resource));
    all
}

/// Bytes of what `used` names.
pub(super) fn bytes(
    plan: &Plan,
    parts: &[Vec<Part>],
    constants: &Constants,
    used: impl Iterator<Item = Resource>,
    options: &RunnerOptions,
) -> u64 {
    sizes(plan, parts, constants, &used.map(id).collect(), options).iter().map(|size| size.1).sum()
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
        constants: &Constants,
        used: impl Iterator<Item = Resource>,
        options: &RunnerOptions,
    ) -> Result<Memory> {
        let used: BTreeSet<u64> = used.map(id).collect();
        let sizes = sizes(plan, parts, constants, &used, options);
        let bytes = sizes.iter().map(|s| s.1).sum();
        check(gpu, &sizes, bytes, options)?;
        let mut memory = Memory { buffers: BTreeMap::new(), bytes };
        for (resource, size, name) in sizes {
            memory.buffers.insert(id(resource), gpu.buffer(&name, size));
        }
        memory.write_ropes(gpu, plan, constants)?;
        let buffer = memory.get(Resource::Constants)?;
        for (byte, begins) in constants.all_buckets() {
            gpu.queue().write_buffer(buffer, byte, bytemuck::cast_slice(begins));
        }
        Ok(memory)
    }

    /// Writes the plan's rotation frequencies.
    ///
    /// # Errors
    /// None but errors of this library.
    pub(super) fn write_ropes(&self, gpu: &Gpu, plan: &Plan, constants: &Constants) -> Result<()> {
        let buffer = self.get(Resource::Constants)?;
        for (i, rope) in plan.ropes.iter().enumerate() {
            gpu.queue().write_buffer(buffer, constants.rope_byte(i), bytemuck::cast_slice(&rope.inv_freq));
        }
        Ok(())
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

fn check(gpu: &Gpu, sizes: &[(Resource, u64, String)], bytes: u64, options: &RunnerOptions) -> Result<()> {
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
    let of_cache = |r: &Resource| matches!(r, Resource::KPages(_) | Resource::VPages(_));
    let cache: u64 = sizes.iter().filter(|s| of_cache(&s.0)).map(|s| s.1).sum();
    let (page, fixed) = (cache / options.n_pages.max(1) as u64, bytes - cache);
    let what_fits = match budget.checked_sub(fixed) {
        Some(rest) if rest >= page && page > 0 => {
            format!("a context of {} tokens would fit", rest / page * PAGE as u64)
        }
        _ => "choose a smaller model or --device cpu".into(),
    };
    Err(Error::limit(format!("the model needs {} of the {} allowed: {what_fits}", mib(bytes), mib(budget))))
}
