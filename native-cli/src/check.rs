//! `ir check`: two devices op by op, and the first op that disagrees.

use ir_engine::check::{self, Compared, Worst};
use ir_engine::cpu::{Activations, Cpu, CpuOptions};
use ir_engine::device::{Device, KvKind};
use ir_engine::gpu::Forms;

use crate::args::{ActivationsChoice, CheckArgs};
use crate::compute;
use crate::failure::{Failure, Result};
use crate::models::{self, Opening};
use crate::term::Out;

/// Most tokens of the prompt that are used: enough for tiles with a ragged edge.
const MAX_TOKENS: usize = 100;

/// Relative error behind an op: f32 sums in another order and a driver's exponentials; a single op's result
/// may be small against its terms, so this is wider than for whole models.
const F32: f64 = 1e-4;
/// Keys and values rounded to halves: sums in another order decide which of two neighbours, 2^-11 apart, an element
/// becomes.
const KV_F16: f64 = 5e-4;
/// Halves in tiles.
const F16: f64 = 5e-3;
/// Activations rounded to 8 bits.
const INT8: f64 = 3e-2;

/// Compares and prints.
pub(crate) fn check(args: &CheckArgs) -> Result {
    let place = models::find(&args.model, &args.file)?;
    let model = place.record(&args.file, &args.lora)?;
    let mut ids = match &args.ids {
        Some(ids) => compute::known_ids(ids, &model.plan)?,
        None => ir_engine::run::prompt_ids(&place.tokenizer(&model, &args.file)?, &args.prompt),
    };
    ids.truncate(MAX_TOKENS.min(model.spec.n_context));
    let device = compute::device(&args.device, args.threads.threads)?;
    let threads = args.threads.threads.map(usize::from);
    let options = CpuOptions { threads, simd: Some("scalar".into()), activations: Activations::F32 };
    let truth = Device::Cpu(std::sync::Arc::new(Cpu::new(&options)?));
    let tolerance = args.tolerance.unwrap_or_else(|| tolerance(args, &device));
    let (mut n, mut worst, mut first) = (0, 0.0f64, None);
    let mut out = Out::new();
    let mut failed = Ok(());
    let kv = compute::kv_kind(args.device.kv_type);
    check::check(&model.plan, &truth, &device, &ids, kv, &mut |compared| {
        n += 1;
        // A NaN must count as the worst.
        let wrong = compared.error.is_nan() || compared.error > tolerance;
        worst = if compared.error.is_nan() { compared.error } else { worst.max(compared.error) };
        if args.verbose && failed.is_ok() {
            failed = out.line(line(&compared));
        }
        if wrong && first.is_none() {
            first = Some(compared);
        }
    })?;
    failed?;
    match first {
        None => out.line(format!(
            "{} agrees with {} over {n} ops: largest relative error {worst:.1e}, {tolerance:.0e} allowed",
            device.name(),
            truth.name()
        )),
        Some(first) => Err(Failure::run(format!(
            "{} disagrees with {}, first in {}: more than {tolerance:.0e}",
            device.name(),
            truth.name(),
            line(&first)
        ))),
    }
}

fn line(compared: &Compared) -> String {
    let Compared { rows, op, scope, name, error, worst } = compared;
    let Worst { row, column, want, got } = worst;
    format!(
        "op {op} ({scope}: {name}), {rows} rows: relative error {error:.1e}, most in row {row}, column {column}: \
         {got:e} for {want:e}"
    )
}

fn tolerance(args: &CheckArgs, device: &Device) -> f64 {
    let gpus = match device {
        Device::Split(split) => split.gpus(),
        device => std::slice::from_ref(device),
    };
    let form = |has: fn(Forms) -> bool| gpus.iter().any(|d| compute::only_gpu(d).is_some_and(|gpu| has(gpu.forms())));
    // The processor computes a part at least where layers or experts are left to it.
    let on_cpu = matches!(device, Device::Cpu(_)) || args.device.divides().is_some();
    match device {
        _ if form(|forms| forms.dot4) => INT8,
        _ if on_cpu && args.device.activations == ActivationsChoice::Quantised => INT8,
        _ if on_cpu && compute::kv_kind(args.device.kv_type) == KvKind::Blocks8 => INT8,
        _ if form(|forms| forms.f16) => F16,
        _ if compute::kv_kind(args.device.kv_type) == KvKind::F16 => KV_F16,
        _ => F32,
    }
}
