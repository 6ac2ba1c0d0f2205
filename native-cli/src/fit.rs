//! What context of a model fits which device, and refusing what fits none before it is loaded.

use std::sync::Arc;

use ir_engine::cpu::{Cpu, CpuOptions};
use ir_engine::device::{Device, KvKind, RunnerOptions, Split, SplitOptions};
use ir_engine::gpu::{self, Gpu, GpuOptions};
use ir_engine::model::Model;
use ir_engine::plan::{CacheLayout, PAGE, Plan as EnginePlan};
use ir_store::{Need, Plan};
use serde_json::{Value as Json, json};

use crate::compute::{self, ready};
use crate::failure::{Failure, Result};
use crate::info::{grouped, human_bytes};

/// A device of this machine and its memory.
struct Room {
    /// As `--device` names it.
    device: String,
    /// The hardware, for a GPU, and its number.
    name: Option<String>,
    adapter: Option<usize>,
    total: Option<u64>,
    free: Option<u64>,
}

/// The processor and all GPUs that are no software.
fn rooms() -> Vec<Room> {
    let memory = ir_store::memory();
    let (total, free) = (memory.map(|m| m.total), memory.and_then(|m| m.free));
    let cpu = Room { device: "cpu".into(), name: None, adapter: None, total, free };
    let adapters = if compute::may_have_gpu() { ready(gpu::adapters()) } else { Vec::new() };
    let adapters = adapters.into_iter().enumerate().filter(|(_, a)| a.kind != "software");
    let gpu = |(i, a): (usize, gpu::AdapterDescription)| Room {
        device: format!("gpu:{i}"),
        name: Some(a.name),
        adapter: Some(i),
        total: a.memory,
        free: None,
    };
    [cpu].into_iter().chain(adapters.map(gpu)).collect()
}

/// A context that is worth a model's being divided over devices.
const DIVIDED_CONTEXT: usize = 8192;

/// How a model that a GPU does not hold would be divided between it and the processor.
fn divided(adapter: usize, plan: &EnginePlan, context: u64) -> Option<String> {
    let context = usize::try_from(context).unwrap_or(usize::MAX).min(DIVIDED_CONTEXT);
    let layout = CacheLayout::of(plan, KvKind::F16);
    let windows = layout.groups.iter().filter(|group| group.window.is_some());
    let options = RunnerOptions {
        max_tokens: compute::MAX_TOKENS,
        max_outputs: 16,
        kv: KvKind::F16,
        n_pages: context.div_ceil(PAGE),
        n_window_pages: windows.map(|group| group.pages(context, compute::MAX_TOKENS)).max().unwrap_or(0),
        n_states: if plan.states.is_empty() { 0 } else { 34 },
    };
    let gpu = Gpu::open_now(&GpuOptions { adapter: Some(adapter), ..GpuOptions::default() }).ok()?;
    let cpu = Device::Cpu(Arc::new(Cpu::new(&CpuOptions::default()).ok()?));
    let split = Split::new(cpu, vec![Device::Gpu(Arc::new(gpu))], SplitOptions::default()).ok()?;
    Some(match split.holds(plan, &options) {
        Ok((0, _)) => "not one layer fits with its cache".into(),
        Ok((n, all)) => {
            format!(
                "{n} of {all} layers fit with {} tokens of context; the processor computes the others",
                grouped(context as u64)
            )
        }
        Err(why) => format!("cannot run it: {why}"),
    })
}

/// What fits each device: its name and a sentence.
pub(crate) fn lines(need: &Need, plan: &EnginePlan) -> Vec<(String, String)> {
    let line = |room: Room| {
        let adapter = room.adapter;
        let name = room.name.map(|name| format!("{name}, ")).unwrap_or_default();
        let Some(total) = room.total else {
            return (room.device, format!("{name}its memory is not known"));
        };
        let free = room.free.map(|free| format!(" ({} free now)", human_bytes(free))).unwrap_or_default();
        let fits = match need.context_in(total) {
            Some(n) if n == need.context => format!("the whole context of {} tokens", grouped(n)),
            Some(n) => format!("{} tokens of context", grouped(n)),
            None => adapter
                .and_then(|adapter| divided(adapter, plan, need.context))
                .unwrap_or_else(|| format!("does not fit: {}", need.refusal(total).unwrap_or_default())),
        };
        (room.device, format!("{name}{}{free}: {fits}", human_bytes(total)))
    };
    rooms().into_iter().map(line).collect()
}

/// The same as JSON.
pub(crate) fn as_json(need: &Need) -> Json {
    let one = |room: Room| {
        json!({ "device": room.device, "name": room.name, "memory": room.total, "free": room.free,
            "context": room.total.and_then(|total| need.context_in(total)),
            "refusal": room.total.and_then(|total| need.refusal(total)) })
    };
    rooms().into_iter().map(one).collect()
}

/// Refuses a model that the device has no room for: it would be read from disk again and again.
pub(crate) fn check(model: &Model, device: &Device, kv: KvKind) -> Result {
    // A model is divided between a GPU and the processor: what they have together counts.
    let memory = ir_store::memory().map(|m| m.total.saturating_add(device.memory().unwrap_or(0)));
    let need = Need::new(model.file(), model.plan(), model.spec().n_context, kv);
    match memory.and_then(|memory| need.refusal(memory)) {
        Some(why) => Err(Failure::run(format!(
            "{} has no room for this model: {why}. `ir info MODEL --fit` shows what fits where; --any-size runs it all the \
             same, slowly",
            device.name()
        ))),
        None => Ok(()),
    }
}

/// Refuses to fetch what no device here has room for.
pub(crate) fn check_plan(plan: &Plan) -> Result {
    let cache = CacheLayout { kind: KvKind::F16, groups: Vec::new(), state_bytes: 0 };
    let need = Need { weights: plan.bytes, parameters: 0, cache, context: 1 };
    let fits = |bytes: u64| need.context_in(bytes).is_some();
    // Asking for GPUs takes a moment: only where it matters.
    if ir_store::memory().is_none_or(|m| fits(m.total)) || rooms().iter().any(|r| r.total.is_none_or(fits)) {
        return Ok(());
    }
    let (name, size) = (plan.name.short(), human_bytes(plan.bytes));
    Err(Failure::run(format!(
        "{name} has {size}, which no device here has room for, so it was not fetched: name a smaller quantisation, or fetch it \
         all the same with `ir pull {name}`"
    )))
}
