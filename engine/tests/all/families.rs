//! Every family against PyTorch: logits and greedy choices of the golden files (`tests/data/golden`).

use crate::common::{Golden, argmax, relative_error, shared};
use ir_engine::cpu::{Activations, Cpu, CpuOptions, simd};
use ir_engine::device::{Device, KvKind, RunnerOptions};
use ir_engine::plan::{Inputs, PAGE};

const FAMILIES: &[&str] = &["llama3", "llama-tied", "llama2-spm", "qwen2", "qwen3"];

/// Logits of every position of `ids`, in one step.
pub(crate) fn logits(golden: &Golden, ids: &[u32], simd: &str, activations: Activations, kv: KvKind) -> Vec<f32> {
    let options = CpuOptions { threads: Some(2), simd: Some(simd.into()), activations };
    let device = Device::Cpu(std::sync::Arc::new(Cpu::new(&options).unwrap()));
    let n_pages = ids.len().div_ceil(PAGE);
    let options =
        RunnerOptions { max_tokens: ids.len(), max_outputs: ids.len(), kv, n_pages, n_states: 1, n_window_pages: 0 };
    // The context that the references were made for.
    let plan = golden.model.plan().for_context(golden.model.spec().n_context);
    let mut runner = device.prepare(plan, options).unwrap();
    let mut inputs = Inputs { tables: vec![(0..n_pages as u32).rev().collect()], ..Inputs::default() };
    for (i, id) in ids.iter().enumerate() {
        inputs.push(*id, i as u32, 0);
    }
    inputs.outputs = (0..ids.len() as u32).collect();
    let readback = runner.submit(&inputs).unwrap();
    readback.ready().unwrap().unwrap().logits
}

/// Families that run and whose goldens are kept beside the project.
const CLAIMED: &[&str] = &[
    "cohere2",
    "deepseek-v2",
    "deepseek-v3",
    "dots1",
    "ernie45-moe",
    "exaone4",
    "falcon",
    "falcon-40b",
    "falcon-h1",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3n",
    "gemma4",
    "gemma4-moe",
    "glm4",
    "glm4-moe",
    "glm4-moe-lite",
    "glm4-moe-mtp",
    "gpt-oss",
    "gpt2",
    "gptneox",
    "granite",
    "granite-hybrid",
    "granite-moe",
    "hunyuan-dense",
    "hunyuan-moe",
    "lfm2",
    "lfm2-moe",
    "llama-yarn",
    "llama4",
    "mamba",
    "mamba2",
    "minimax-m2",
    "mistral3",
    "mixtral",
    "nemotron-h",
    "nemotron-h-moe",
    "olmo2",
    "olmo3",
    "olmoe",
    "phi2",
    "phi3",
    "phi3-longrope",
    "qwen2-moe",
    "qwen2-yarn",
    "qwen3-moe",
    "qwen3-next",
    "qwen35",
    "qwen35-moe",
    "qwen35-mtp",
    "seed-oss",
    "smollm3",
    "stablelm",
    "stablelm-parallel",
    "starcoder2",
];

/// Largest relative error allowed on scalar kernels with f32 activations: float32 sums in another order than PyTorch's.
const SCALAR_F32: f64 = 1e-4;
/// The definition, and how near it must be.
pub(crate) const SCALAR: (Form, f64) = (("scalar", Activations::F32, KvKind::F32), SCALAR_F32);
/// The same with a half-precision cache: 11 bits of significand in every key and value.
const SCALAR_F16_KV: f64 = 2e-3;
/// As users run it: half-precision cache, each instruction set's own order of sums and its own activations.
const AS_RUN: f64 = 2e-2;
/// Steps whose margin must exceed twice the largest error, or the argmax would prove nothing.
const QUALIFYING: f64 = 0.7;

/// What is wrong with a family's logits and choices, if anything.
pub(crate) fn check(golden: &Golden, name: &str, (simd, activations, kv): Form, tolerance: f64) -> Option<String> {
    let n = golden.ids.len();
    let n_vocab = golden.model.plan().n_vocab();
    let ids: Vec<u32> = golden.ids.iter().chain(&golden.greedy).copied().collect();
    let got = logits(golden, &ids, simd, activations, kv);
    let error = relative_error(&got[..n * n_vocab], &golden.logits);
    let worst = got.iter().zip(&golden.logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let (mut qualifying, mut faults) = (0, Vec::new());
    for (step, (id, margin)) in golden.greedy.iter().zip(&golden.margins).enumerate() {
        if *margin > 2.0 * worst {
            let row = &got[(n - 1 + step) * n_vocab..(n + step) * n_vocab];
            if argmax(row) != *id {
                faults.push(format!("step {step}, margin {margin}, largest error {worst}"));
            }
            qualifying += 1;
        }
    }
    let steps = golden.greedy.len();
    println!(
        "{name} {simd} {activations:?} kv {kv:?}: relative error {error:.1e}, {qualifying} of {steps} steps agree"
    );
    if error.is_nan() || error > tolerance {
        faults.push(format!("relative error {error:e} above {tolerance:e}"));
    } else if (qualifying as f64) < QUALIFYING * steps as f64 {
        faults.push(format!("only {qualifying} of {steps} steps qualify"));
    }
    (!faults.is_empty()).then(|| format!("{name} {simd} {activations:?} {kv:?}: {}", faults.join("; ")))
}

/// Instruction set, activations and cache.
pub(crate) type Form = (&'static str, Activations, KvKind);

/// The goldens of every family that runs, if they are at hand: those of the project always are.
pub(crate) fn goldens() -> Vec<(&'static str, Golden)> {
    let own = FAMILIES.iter().map(|name| (*name, Golden::load(name)));
    let folder = shared("golden");
    let others = CLAIMED.iter().filter_map(|name| Some((*name, Golden::open(&folder.as_ref()?.join(name)))));
    own.chain(others).collect()
}

fn check_all(forms: &[(Form, f64)]) {
    let mut faults = Vec::new();
    for (name, golden) in goldens() {
        faults.extend(forms.iter().filter_map(|(form, tolerance)| check(&golden, name, *form, *tolerance)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn scalar_kernels_agree_with_pytorch() {
    check_all(&[
        (("scalar", Activations::F32, KvKind::F32), SCALAR_F32),
        (("scalar", Activations::F32, KvKind::F16), SCALAR_F16_KV),
    ]);
}

#[test]
fn every_instruction_set_agrees_with_pytorch_as_users_run_it() {
    let forms = simd::available().into_iter().map(|t| ((t.name, Activations::Quantised, KvKind::F16), AS_RUN));
    check_all(&forms.collect::<Vec<_>>());
}
