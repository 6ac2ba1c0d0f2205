//! Whole models on this machine's GPU, software adapters included, against PyTorch's logits and the CPU. Skips are said on
//! stderr.
#![cfg(feature = "gpu")]

use std::sync::Arc;
use std::time::Duration;

use crate::common::{Golden, alone, argmax, full, relative_error, shared, skipped};
use ir_engine::check::{Compared, check as compare};
use ir_engine::cpu::{Activations, Cpu, CpuOptions};
use ir_engine::device::{Device, KvKind, Runner, RunnerOptions};
use ir_engine::gpu::{Forms, Gpu, GpuOptions};
use ir_engine::plan::{Inputs, PAGE};
use ir_engine::run::{Engine, EngineOptions, Event, Request, Sampling, wait};

const FAMILIES: &[&str] = &["llama3", "llama-tied", "llama2-spm", "qwen2", "qwen3"];

/// The forms of kernels under test, what the cache stores, and the relative error of the logits that this allows: f32
/// arithmetic; halves in tiles; activations rounded to 8 bits (of plain weights, which have no such form, nothing is).
const FORMS: &[(&str, KvKind, f64)] = &[
    ("base", KvKind::F32, 1e-4),
    ("base", KvKind::F16, 2e-3),
    ("base+f16+subgroups", KvKind::F16, 1e-2),
    ("base+dot4", KvKind::F16, 2e-2),
    ("base+coherent+heads", KvKind::F16, 2e-3),
    ("base+subgroups+owned", KvKind::F16, 2e-3),
    ("base+subgroups+dot4+owned", KvKind::F16, 2e-2),
];

fn gpu(options: GpuOptions) -> Option<Device> {
    match Gpu::open_now(&options) {
        Ok(gpu) => Some(Device::Gpu(Arc::new(gpu))),
        Err(error) => {
            skipped(error);
            None
        }
    }
}

/// Logits of the next tokens of sequence 0, in one step.
fn step(runner: &mut Runner, inputs: &mut Inputs, ids: &[u32], first: usize) -> Vec<f32> {
    inputs.tokens.clear();
    inputs.positions.clear();
    inputs.seqs.clear();
    for (i, id) in ids.iter().enumerate() {
        inputs.push(*id, (first + i) as u32, 0);
    }
    inputs.outputs = (0..ids.len() as u32).collect();
    runner.submit(inputs).unwrap().wait().unwrap().logits
}

/// Logits of every position: chunks of these sizes, the last repeated.
fn logits(device: &Device, golden: &Golden, ids: &[u32], kv: KvKind, chunks: &[usize]) -> Vec<f32> {
    let n_pages = ids.len().div_ceil(PAGE);
    let options =
        RunnerOptions { max_tokens: ids.len(), max_outputs: ids.len(), kv, n_pages, n_states: 1, n_window_pages: 0 };
    let mut runner = device.prepare(golden.model.plan().clone(), options).unwrap();
    let mut inputs = Inputs { tables: vec![(0..n_pages as u32).rev().collect()], ..Inputs::default() };
    let mut out = Vec::new();
    let mut at = 0usize;
    for chunk in chunks.iter().chain(std::iter::repeat(chunks.last().unwrap())) {
        let end = ids.len().min(at.saturating_add(*chunk));
        if at == end {
            break;
        }
        out.extend(step(&mut runner, &mut inputs, &ids[at..end], at));
        at = end;
    }
    out
}

/// Steps whose margin must exceed twice the largest error, or the argmax would prove nothing.
const QUALIFYING: f64 = 0.7;

fn check(device: &Device, golden: &Golden, name: &str, kv: KvKind, tolerance: f64, chunks: &[usize]) {
    let (n, n_vocab) = (golden.ids.len(), golden.model.plan().n_vocab());
    let ids: Vec<u32> = golden.ids.iter().chain(&golden.greedy).copied().collect();
    let got = logits(device, golden, &ids, kv, chunks);
    let error = relative_error(&got[..n * n_vocab], &golden.logits);
    let worst = got.iter().zip(&golden.logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let what = format!("{name} on {} kv {kv:?}, chunks {chunks:?}", device.name());
    let mut qualifying = 0;
    for (step, (id, margin)) in golden.greedy.iter().zip(&golden.margins).enumerate() {
        if *margin > 2.0 * worst {
            let row = &got[(n - 1 + step) * n_vocab..(n + step) * n_vocab];
            assert_eq!(argmax(row), *id, "{what}: step {step}, margin {margin}, largest error {worst}");
            qualifying += 1;
        }
    }
    let steps = golden.greedy.len();
    println!("{what}: relative error {error:.1e}, {qualifying} of {steps} steps agree");
    assert!(error <= tolerance, "{what}: relative error {error:e} above {tolerance:e}");
    assert!(qualifying as f64 >= QUALIFYING * steps as f64, "{what}: only {qualifying} of {steps} steps qualify");
}

#[test]
fn families_agree_with_pytorch() {
    for (forms, kv, tolerance) in FORMS {
        let options = GpuOptions { forms: Some(Forms::parse(forms).unwrap()), ..GpuOptions::default() };
        let Some(device) = gpu(options) else { return };
        for name in FAMILIES {
            let golden = Golden::load(name);
            // All at once by tiles; then prefill in ragged chunks and decode token by token.
            for chunks in [&[usize::MAX][..], &[20, 5, 1]] {
                check(&device, &golden, name, *kv, *tolerance, chunks);
            }
        }
    }
}

/// Families of the other kinds, whose goldens lie beside the project: mixtures, states beside a cache, values inside keys
/// with groups of experts, windows. Kernels are compiled anew for each family, so that most of them are for `IR_FULL=1`.
const KINDS: &[&str] = &["mixtral", "qwen35", "deepseek-v3", "gemma3"];
const MORE_KINDS: &[&str] = &["qwen3-moe", "qwen3-next", "deepseek-v2", "gemma2"];

#[test]
fn mixtures_states_and_latent_attention_agree_with_pytorch() {
    let options = GpuOptions { forms: Some(Forms::BASE), ..GpuOptions::default() };
    let (Some(folder), Some(device)) = (shared("golden"), gpu(options)) else { return };
    if !full() {
        skipped(format!("{MORE_KINDS:?} on a GPU are for IR_FULL=1"));
    }
    for name in KINDS.iter().chain(MORE_KINDS.iter().filter(|_| full())) {
        let golden = Golden::open(&folder.join(name));
        // Whole, and in chunks that carry states over, down to single rows.
        for chunks in [&[usize::MAX][..], &[20, 5, 1]] {
            check(&device, &golden, name, KvKind::F32, 1e-4, chunks);
        }
        // Its heads are whole blocks: keys and values in 8 bits.
        if *name == "gemma3" {
            check(&device, &golden, name, KvKind::Blocks8, 2e-2, &[20, 5, 1]);
        }
    }
}

/// Every op against the definition.
fn compared(device: &Device, golden: &Golden) -> Vec<Compared> {
    let options = CpuOptions { threads: Some(2), simd: Some("scalar".into()), activations: Activations::F32 };
    let truth = Device::Cpu(Arc::new(Cpu::new(&options).unwrap()));
    let mut all = Vec::new();
    let mut report = |c| all.push(c);
    compare(golden.model.plan(), &truth, device, &golden.ids, KvKind::F16, &mut report).unwrap();
    all
}

/// Relative error behind an op on f32 forms.
const OP: f64 = 1e-4;

#[test]
fn every_op_of_every_family_computes_what_the_definition_says() {
    // Each family's kernels are compiled anew: one of each kind in every run, all of them in a full one.
    let of_run = |name: &str| full() || FAMILIES.contains(&name) || KINDS.contains(&name);
    let all_forms: &[&str] = if full() { &["base", "base+subgroups"] } else { &["base"] };
    for forms in all_forms {
        let options = GpuOptions { forms: Some(Forms::parse(forms).unwrap()), ..GpuOptions::default() };
        let Some(device) = gpu(options) else { return };
        for (name, golden) in crate::families::goldens().iter().filter(|(name, _)| of_run(name)) {
            let all = compared(&device, golden);
            let worst = all.iter().map(|c| c.error).fold(0.0, f64::max);
            println!("{name}, {forms}: {} ops, largest relative error {worst:.1e}", all.len());
            let wrong = all.iter().find(|c| c.error.is_nan() || c.error > OP);
            assert!(all.len() > 10 && wrong.is_none(), "{name}, {forms}: {wrong:?}");
        }
    }
}

#[test]
fn the_comparison_op_by_op_finds_a_broken_kernel() {
    let broken = [
        ("qwen3", "attend_tile", "base + j < high", "base + j + 1u < high", "attend"),
        ("qwen3", "linear_vec", "return act(gate) * up;", "return act(up) * gate;", "linear"),
        ("qwen3", "heads", "a * turn.x - b * turn.y", "a * turn.x + b * turn.y", "linear"),
        // Heads at the end of their product: how they are turned, and where they are stored.
        ("llama3", "linear_vec", "turned(at.pair + 1u, position, v.zw)", "v.zw", "linear"),
        (
            "llama3",
            "linear_vec",
            "put_two(at.is_v, place, at.b, v.zw)",
            "put_two(at.is_v, place, at.a, v.zw)",
            "attend",
        ),
    ];
    for name in ["qwen3", "llama3"] {
        let Some(device) = gpu(GpuOptions { forms: Some(Forms::BASE), ..GpuOptions::default() }) else { return };
        let golden = Golden::load(name);
        let all = compared(&device, &golden);
        assert!(all.len() > 10 && all.iter().all(|c| c.error <= OP), "{all:?}");
        for (_, kernel, text, instead, op) in broken.iter().filter(|broken| broken.0 == name) {
            let sabotage = Some((*kernel, *text, *instead));
            let Some(device) = gpu(GpuOptions { forms: Some(Forms::BASE), sabotage, ..GpuOptions::default() }) else {
                return;
            };
            let all = compared(&device, &golden);
            let first = all.iter().find(|c| c.error.is_nan() || c.error > OP);
            assert_eq!(first.map(|c| c.name), Some(*op), "{kernel} broken: {text}");
            assert_eq!(first.map(|c| c.scope.starts_with("blk.0.")), Some(true), "{kernel} broken: {text}");
        }
    }
}

#[test]
fn tensors_beyond_the_binding_limit_are_split() {
    // Every matrix of the model is larger.
    // Every prompt is split over many submissions, too.
    let (max_part, work) = (Some(6 << 10), Some(100_000));
    let options = GpuOptions { forms: Some(Forms::BASE), max_part, work_per_submit: work, ..GpuOptions::default() };
    let Some(device) = gpu(options) else { return };
    let golden = Golden::load("llama3");
    check(&device, &golden, "llama3, split", KvKind::F16, 2e-3, &[20, 5, 1]);
}

fn runner(device: &Device, golden: &Golden, n_pages: usize) -> ir_engine::error::Result<Runner> {
    let options =
        RunnerOptions { max_tokens: 64, max_outputs: 64, kv: KvKind::F16, n_pages, n_states: 1, n_window_pages: 0 };
    device.prepare(golden.model.plan().clone(), options)
}

#[test]
fn a_budget_is_kept_and_the_error_says_what_fits() {
    let golden = Golden::load("llama3");
    let base = GpuOptions { forms: Some(Forms::BASE), ..GpuOptions::default() };
    let Some(Device::Gpu(whole)) = gpu(base.clone()) else { return };
    let bytes = |n_pages| match runner(&Device::Gpu(Arc::clone(&whole)), &golden, n_pages).unwrap() {
        Runner::Gpu(runner) => runner.bytes(),
        Runner::Cpu(_) | Runner::Split(_) => unreachable!("a GPU was asked for"),
    };
    let budget = bytes(8);
    let Some(small) = gpu(GpuOptions { memory: Some(budget), ..base }) else { return };
    runner(&small, &golden, 8).unwrap();
    let error = runner(&small, &golden, 100).unwrap_err().to_string();
    assert!(error.contains(&format!("a context of {} tokens would fit", 8 * PAGE)), "{error}");
}

#[test]
fn a_lost_device_says_so_and_another_goes_on() {
    let golden = Golden::load("llama3");
    let Some(Device::Gpu(lost)) = gpu(GpuOptions::default()) else { return };
    let mut runner_of_lost = runner(&Device::Gpu(Arc::clone(&lost)), &golden, 4).unwrap();
    let mut inputs = Inputs { tables: vec![vec![0]], ..Inputs::default() };
    inputs.push(1, 0, 0);
    inputs.outputs = vec![0];
    let under_way = runner_of_lost.submit(&inputs).unwrap();
    lost.lose();
    for error in [under_way.wait().unwrap_err(), runner_of_lost.submit(&inputs).unwrap_err()] {
        assert!(matches!(error, ir_engine::error::Error::Lost(_)), "{error}");
    }
    let Some(device) = gpu(GpuOptions::default()) else { return };
    check(&device, &golden, "llama3, after a loss", KvKind::F16, 1e-2, &[20, 5, 1]);
}

/// When a device is lost.
#[derive(Clone, Copy)]
enum Loss {
    Before(usize),
    After(Duration),
}

/// Tokens that an engine generates by chains of so many steps; the device is lost before step `lose_at`, or so long after the
/// second step began.
fn generate(device: Device, golden: &str, chain: usize, lose_at: Option<Loss>) -> Vec<u32> {
    let Some(golden) = (match FAMILIES.contains(&golden) {
        true => Some(Golden::load(golden)),
        false => shared("golden").map(|folder| Golden::open(&folder.join(golden))),
    }) else {
        return Vec::new();
    };
    let options = EngineOptions { kv_budget: 16 << 20, chain: Some(chain), ..EngineOptions::default() };
    let mut engine = Engine::new(Arc::new(golden.model), &device, &options).unwrap();
    for seed in 0..3 {
        let prompt = (1..20 + seed as u32).collect();
        // One takes the largest logit, the others draw.
        let temperature = if seed == 0 { 0.0 } else { 0.9 };
        let sampling = Sampling { temperature, seed, top_k: 0, top_p: 1.0, ..Sampling::default() };
        let request =
            Request { prompt, sampling, max_tokens: Some(30 - seed as usize), ignore_eos: true, ..Request::default() };
        engine.add(request, 0.0).unwrap();
    }
    let (mut tokens, mut losers) = (vec![Vec::new(); 3], Vec::new());
    for step in 0.. {
        if engine.is_idle() {
            break;
        }
        match (engine.device(), lose_at) {
            (Device::Gpu(gpu), Some(Loss::Before(at))) if at == step => gpu.lose(),
            (Device::Gpu(gpu), Some(Loss::After(time))) if step == 1 => {
                let gpu = Arc::clone(gpu);
                losers.push(std::thread::spawn(move || {
                    std::thread::sleep(time);
                    gpu.lose();
                }));
            }
            _ => {}
        }
        for event in wait(engine.step(&|| 0.0)).unwrap() {
            if let Event::Token { seq, id, .. } = event {
                tokens[seq.0 as usize % 3].push(id);
            }
        }
    }
    losers.into_iter().for_each(|loser| loser.join().unwrap());
    tokens.concat()
}

#[test]
fn sequences_outlive_their_device() {
    let base = GpuOptions { forms: Some(Forms::BASE), ..GpuOptions::default() };
    let (Some(a), Some(b), Some(c)) = (gpu(base.clone()), gpu(base.clone()), gpu(base)) else { return };
    let undisturbed = generate(a, "qwen3", 1, None);
    assert_eq!(undisturbed.len(), 87);
    assert_eq!(generate(b, "qwen3", 1, Some(Loss::Before(5))), undisturbed);
    assert_eq!(generate(c, "qwen3", 4, Some(Loss::Before(3))), undisturbed, "lost behind a chain");
}

/// Wherever in a chain the device is lost, before, within or behind it.
#[test]
fn sequences_outlive_a_device_that_is_lost_at_any_moment() {
    let base = GpuOptions { forms: Some(Forms::BASE), ..GpuOptions::default() };
    let Some(device) = gpu(base.clone()) else { return };
    let undisturbed = generate(device, "llama3", 1, None);
    for milliseconds in [0, 1, 3, 10, 30] {
        let Some(device) = gpu(base.clone()) else { return };
        let loss = Loss::After(Duration::from_millis(milliseconds));
        assert_eq!(generate(device, "llama3", 8, Some(loss)), undisturbed, "lost after {milliseconds} ms");
    }
}

/// Chains give the bits of single steps: of a cache, and of states that they carry over.
#[test]
fn chains_give_what_single_steps_give() {
    let Some(device) = gpu(GpuOptions { forms: Some(Forms::BASE), ..GpuOptions::default() }) else { return };
    for golden in ["llama3", "qwen3-next"] {
        let single = generate(device.clone(), golden, 1, None);
        for chain in [2, 7, 32] {
            assert_eq!(generate(device.clone(), golden, chain, None), single, "{golden}, chains of {chain}");
        }
    }
}

#[test]
fn memory_is_given_back() {
    if !alone(module_path!(), "memory_is_given_back") {
        return;
    }
    // Each runner takes 20 MB; a hundred of them at once would not fit the budget of a small machine.
    let Some(device) = gpu(GpuOptions { forms: Some(Forms::BASE), ..GpuOptions::default() }) else { return };
    let golden = Golden::load("llama3");
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/statm").ok()?;
        status.split_whitespace().nth(1)?.parse::<u64>().ok().map(|pages| pages * 4096)
    };
    let mut after_first = None;
    for i in 0..20 {
        let mut runner = runner(&device, &golden, 10_000).unwrap();
        let mut inputs = Inputs { tables: vec![vec![0]], ..Inputs::default() };
        inputs.push(1, 0, 0);
        inputs.outputs = vec![0];
        runner.submit(&inputs).unwrap().wait().unwrap();
        if i == 3 {
            after_first = resident();
        }
    }
    match (after_first, resident()) {
        (Some(before), Some(after)) => {
            println!("resident after 4 runners {before}, after 20 {after}");
            assert!(after < before + (32 << 20), "{before} bytes grew to {after}");
        }
        _ => skipped("this system does not tell its resident memory"),
    }
}
