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
    let allowed = |on_cpu: bool| args.tolerance.unwrap_or_else(|| tolerance(args, &device, on_cpu));
    // The largest error on a GPU and on the processor, and whether anything was computed there.
    let (mut n, mut worst, mut first) = (0, [None::<f64>; 2], None);
    let mut out = Out::new();
    let mut failed = Ok(());
    let kv = compute::kv_kind(args.device.kv_type);
    check::check(&model.plan, &truth, &device, &ids, kv, &mut |compared| {
        n += 1;
        // A NaN must count as the worst.
        let wrong = compared.error.is_nan() || compared.error > allowed(compared.on_cpu);
        let worst = worst[usize::from(compared.on_cpu)].get_or_insert(0.0);
        *worst = if compared.error.is_nan() { compared.error } else { worst.max(compared.error) };
        if args.verbose && failed.is_ok() {
            failed = out.line(line(&compared));
        }
        if wrong && first.is_none() {
            first = Some(compared);
        }
    })?;
    failed?;
    match first {
        None => {
            let of = |on_cpu: bool, place: &str| {
                let worst = worst[usize::from(on_cpu)]?;
                Some(format!("{worst:.1e}{place}, {:.0e} allowed", allowed(on_cpu)))
            };
            let errors = match worst {
                [Some(_), Some(_)] => [of(false, " on the GPU"), of(true, " on the processor")],
                _ => [of(false, ""), of(true, "")],
            };
            let errors: Vec<String> = errors.into_iter().flatten().collect();
            out.line(format!(
                "{} agrees with {} over {n} ops: largest relative error {}",
                device.name(),
                truth.name(),
                errors.join("; ")
            ))
        }
        Some(first) => Err(Failure::run(format!(
            "{} disagrees with {}, first in {}: more than {:.0e}",
            device.name(),
            truth.name(),
            line(&first),
            allowed(first.on_cpu)
        ))),
    }
}

fn line(compared: &Compared) -> String {
    let Compared { rows, op, scope, name, error, worst, on_cpu: _ } = compared;
    let Worst { row, column, want, got } = worst;
    format!(
        "op {op} ({scope}: {name}), {rows} rows: relative error {error:.1e}, most in row {row}, column {column}: \
         {got:e} for {want:e}"
    )
}

fn tolerance(args: &CheckArgs, device: &Device, on_cpu: bool) -> f64 {
    let gpus = match device {
        Device::Split(split) => split.gpus(),
        device => std::slice::from_ref(device),
    };
    let form = |has: fn(Forms) -> bool| gpus.iter().any(|d| compute::only_gpu(d).is_some_and(|gpu| has(gpu.forms())));
    let kv = compute::kv_kind(args.device.kv_type);
    match (on_cpu, kv) {
        (true, _) if args.device.activations != ActivationsChoice::F32 => INT8,
        (_, KvKind::Blocks8) => INT8,
        (false, _) if form(|forms| forms.dot4) => INT8,
        (false, _) if form(|forms| forms.rounds_to_halves()) => F16,
        (_, KvKind::F16) => KV_F16,
        _ => F32,
    }
}
