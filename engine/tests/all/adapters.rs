//! Adapters (LoRA): GGUF and PEFT forms against merged weights, several in one batch, on the processor and on a GPU; the keys of
//! their pages; and what is refused.

mod made;
mod refused;

use std::sync::Arc;

use ir_engine::bytes::Bytes;
use ir_engine::convert::{Job, Settings};
use ir_engine::cpu::{Activations, Cpu, CpuOptions};
use ir_engine::device::{Device, KvKind, RunnerOptions};
use ir_engine::file::ModelFile;
use ir_engine::model::{Adapter, Attached, Model, ModelOptions, inspect_with, open_file};
use ir_engine::plan::{Inputs, PAGE, Plan};
use ir_engine::run::{DiskCache, Engine, EngineOptions, Event, Request, Sampling, Usage, wait};

use crate::common::shared;
use crate::made::Written;
use made::{ALL, ATTENTION, MadeAdapter};

fn attached(adapter: Adapter, scale: f32) -> Attached {
    Attached { name: "made".into(), adapter: Arc::new(adapter), scale }
}

fn of_gguf(made: &MadeAdapter, scale: f32) -> Attached {
    attached(Adapter::from_bytes(made.gguf()).unwrap(), scale)
}

fn cpu(simd: &str) -> Device {
    let options = CpuOptions { threads: Some(1), simd: Some(simd.into()), activations: Activations::F32 };
    Device::Cpu(Arc::new(Cpu::new(&options).unwrap()))
}

fn plan(base: &Bytes, adapters: &[Attached]) -> Arc<Plan> {
    Arc::new(inspect_with(&ModelFile::from_bytes(base.clone()).unwrap(), adapters).unwrap().1)
}

/// Logits of sequences of ids, all of them in one step, each with its factors of adapters.
fn logits(device: &Device, plan: &Arc<Plan>, seqs: &[(&[u32], &[f32])]) -> Vec<Vec<f32>> {
    let n: usize = seqs.iter().map(|(ids, _)| ids.len()).sum();
    let each = seqs.iter().map(|(ids, _)| ids.len().div_ceil(PAGE)).max().unwrap();
    let n_pages = each * seqs.len();
    let options = RunnerOptions {
        max_tokens: n,
        max_outputs: n,
        kv: KvKind::F32,
        n_pages,
        n_states: seqs.len(),
        n_window_pages: 0,
    };
    let mut runner = device.prepare(Arc::clone(plan), options).unwrap();
    let mut inputs = Inputs::default();
    for (seq, (ids, scales)) in seqs.iter().enumerate() {
        inputs.tables.push((0..each as u32).map(|page| page * seqs.len() as u32 + seq as u32).collect());
        for (i, id) in ids.iter().enumerate() {
            inputs.push(*id, i as u32, seq as u32);
            inputs.adapters.extend_from_slice(scales);
        }
    }
    if inputs.adapters.iter().all(|scale| *scale == 0.0) {
        inputs.adapters.clear();
    }
    inputs.outputs = (0..n as u32).collect();
    let all = runner.submit(&inputs).unwrap().wait().unwrap().logits;
    let n_vocab = all.len() / n;
    let mut rest = &all[..];
    seqs.iter()
        .map(|(ids, _)| {
            let (own, behind) = rest.split_at(ids.len() * n_vocab);
            rest = behind;
            own.to_vec()
        })
        .collect()
}

fn ids(n: u32, step: u32) -> Vec<u32> {
    (0..n).map(|i| (step * i + 3) % 200).collect()
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Goldens with the architecture's name and what an adapter changes.
fn models() -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
    vec![
        ("llama3", "llama", ALL.to_vec()),
        ("llama3", "llama", [ALL, &["output", "token_embd"]].concat()),
        ("llama3", "llama", vec!["attn_v"]),
        ("qwen2", "qwen2", ALL.to_vec()),
        ("qwen3", "qwen3", ALL.to_vec()),
    ]
}

#[test]
fn an_adapter_computes_what_merged_weights_do() {
    let ids = ids(24, 7);
    for (name, arch, parts) in models() {
        let base = Written::golden(name, &[]);
        let made = MadeAdapter::new(&base, arch, 11, 5, &parts);
        let second = MadeAdapter::new(&base, arch, 12, 8, ATTENTION);
        let mut merged = base.clone();
        made.merge(&mut merged, 0.5);
        second.merge(&mut merged, -0.25);
        let (base, merged) = (base.bytes(), merged.bytes());
        let adapters = [of_gguf(&made, 0.5), of_gguf(&second, -0.25)];
        let adapted = plan(&base, &adapters);
        for simd in ["scalar", "auto"] {
            let device = cpu(simd);
            let plain = logits(&device, &plan(&base, &[]), &[(&ids, &[])]);
            let expected = logits(&device, &plan(&merged, &[]), &[(&ids, &[])]);
            let got = logits(&device, &adapted, &[(&ids, &[0.5, -0.25])]);
            let (off, moved) = (worst(&got[0], &expected[0]), worst(&plain[0], &expected[0]));
            assert!(off < 1e-4 && moved > 0.01, "{name} {parts:?} {simd}: off by {off}, moved by {moved}");
            // Without an adapter the bits are those of the model alone.
            assert_eq!(logits(&device, &adapted, &[(&ids, &[0.0, 0.0])]), plain, "{name} {parts:?} {simd}");
        }
    }
}

/// Rows of a head of a model.
fn head(base: &Bytes, arch: &str) -> usize {
    let file = ModelFile::from_bytes(base.clone()).unwrap();
    let count = |name: &str| file.meta().get(&format!("{arch}.{name}")).and_then(|v| v.as_u64()).map(|n| n as usize);
    count("attention.key_length")
        .unwrap_or_else(|| count("embedding_length").unwrap() / count("attention.head_count").unwrap())
}

#[test]
fn both_forms_of_an_adapter_give_the_same_logits() {
    let ids = ids(24, 7);
    for (name, arch, woven) in [("llama3", "llama", true), ("qwen2", "qwen2", false), ("qwen3", "qwen3", false)] {
        let written = Written::golden(name, &[]);
        let parts: Vec<&str> =
            ALL.iter().copied().chain(written.tensors.contains_key("output.weight").then_some("output")).collect();
        let made = MadeAdapter::new(&written, arch, 21, 4, &[&parts[..], &["token_embd"]].concat());
        let base = written.bytes();
        let (config, weights) = made.peft(if woven { head(&base, arch) } else { 0 });
        let peft = Adapter::from_peft(config.as_bytes(), &weights).unwrap();
        let gguf = of_gguf(&made, 1.0);
        assert_eq!((peft.ranks(), peft.n_params()), (gguf.adapter.ranks(), gguf.adapter.n_params()));
        assert_ne!(peft.digest(), gguf.adapter.digest());
        let device = cpu("scalar");
        let [a, b] = [gguf, attached(peft, 1.0)].map(|of| logits(&device, &plan(&base, &[of]), &[(&ids, &[1.0])]));
        assert_eq!(a, b, "{name}");
    }
}

/// A published folder runs with both forms as its GGUF file does.
#[test]
fn adapters_of_folders_are_those_of_their_files() {
    let Some(golden) = shared("golden/llama3") else { return };
    let ids = ids(24, 7);
    let folder = open_file(&golden.join("hf"), false).unwrap();
    let file = ModelFile::open(&golden.join("model-bf16.gguf")).unwrap();
    let made = MadeAdapter::new(&Written::golden("llama3", &[]), "llama", 5, 4, ALL);
    let base = Bytes::read(&golden.join("model-bf16.gguf")).unwrap();
    let (config, weights) = made.peft(head(&base, "llama"));
    let device = cpu("scalar");
    let of = |file: &ModelFile, adapter: Adapter| {
        let plan = Arc::new(inspect_with(file, &[attached(adapter, 1.0)]).unwrap().1);
        logits(&device, &plan, &[(&ids, &[1.0])]).remove(0)
    };
    let peft = || Adapter::from_peft(config.as_bytes(), &weights).unwrap();
    let gguf = || Adapter::from_bytes(made.gguf()).unwrap();
    let expected = of(&file, gguf());
    for (what, got) in [
        ("PEFT, file", of(&file, peft())),
        ("PEFT, folder", of(&folder, peft())),
        ("GGUF, folder", of(&folder, gguf())),
    ] {
        let off = worst(&got, &expected);
        assert!(off < 1e-4, "{what}: off by {off}");
    }
}

/// Eight sequences: two adapters, both, and none.
const SCALES: [[f32; 2]; 8] =
    [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.5, -0.5], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]];

fn eight() -> Vec<Vec<u32>> {
    (0..8).map(|i| ids([24, 1, 17, 33, 5, 2, 40, 9][i as usize], 5 + 2 * i)).collect()
}

#[test]
fn two_adapters_and_none_in_a_batch_of_eight_are_eight_single_runs() {
    let texts = eight();
    for (name, arch) in [("llama3", "llama"), ("qwen3", "qwen3")] {
        let written = Written::golden(name, &[]);
        let adapters = [
            of_gguf(&MadeAdapter::new(&written, arch, 1, 4, ALL), 1.0),
            of_gguf(&MadeAdapter::new(&written, arch, 2, 7, ATTENTION), 1.0),
        ];
        let plan = plan(&written.bytes(), &adapters);
        for simd in ["scalar", "auto"] {
            let device = cpu(simd);
            let seqs: Vec<(&[u32], &[f32])> = texts.iter().zip(&SCALES).map(|(t, s)| (&t[..], &s[..])).collect();
            let together = logits(&device, &plan, &seqs);
            for (i, (seq, got)) in seqs.iter().zip(&together).enumerate() {
                let alone = logits(&device, &plan, std::slice::from_ref(seq)).remove(0);
                assert!(got.iter().zip(&alone).all(|(a, b)| a == b), "{name} {simd}: sequence {i}");
            }
        }
    }
}

/// Tokens and their log-probabilities, bit for bit, of requests that run together.
fn answers(engine: &mut Engine, requests: &[Request]) -> Vec<(Vec<(u32, u32)>, Usage)> {
    let seqs: Vec<_> = requests.iter().map(|request| engine.add(request.clone(), 0.0).unwrap()).collect();
    let mut all = vec![(Vec::new(), None); seqs.len()];
    while !engine.is_idle() {
        for event in wait(engine.step(&|| 0.0)).unwrap() {
            let (answer, used) = &mut all[seqs.iter().position(|seq| *seq == event.seq()).unwrap()];
            match event {
                Event::Token { id, logprobs, .. } => answer.push((id, logprobs.unwrap().chosen.logprob.to_bits())),
                Event::Done { usage, .. } => *used = Some(usage),
                other => panic!("{other:?}"),
            }
        }
    }
    all.into_iter().map(|(answer, used)| (answer, used.unwrap())).collect()
}

fn request(prompt: Vec<u32>, adapters: Option<Vec<(usize, f32)>>) -> Request {
    let (max_tokens, sampling) = (Some(12), Sampling::greedy());
    Request { prompt, adapters, max_tokens, sampling, ignore_eos: true, logprobs: Some(1), ..Request::default() }
}

fn model(base: &Bytes, adapters: Vec<Attached>) -> Arc<Model> {
    let options = ModelOptions { adapters, ..ModelOptions::default() };
    Arc::new(Model::from_bytes(base.clone(), &options).unwrap())
}

fn two(written: &Written) -> Vec<Attached> {
    let of = |seed, rank, parts| of_gguf(&MadeAdapter::new(written, "llama", seed, rank, parts), 1.0);
    vec![of(1, 4, ALL), of(2, 7, ATTENTION)]
}

#[test]
fn an_engine_answers_eight_requests_as_it_answers_each() {
    let written = Written::golden("llama3", &[]);
    let model = model(&written.bytes(), two(&written));
    let options = EngineOptions { context: Some(256), reuse: false, ..EngineOptions::default() };
    let engine = |device: &Device| Engine::new(Arc::clone(&model), device, &options).unwrap();
    let pairs = |scales: &[f32; 2]| Some(scales.iter().copied().enumerate().collect());
    let requests: Vec<Request> = eight().into_iter().zip(&SCALES).map(|(text, s)| request(text, pairs(s))).collect();
    let device = cpu("scalar");
    let together = answers(&mut engine(&device), &requests);
    let alone: Vec<_> = requests.iter().flat_map(|r| answers(&mut engine(&device), std::slice::from_ref(r))).collect();
    assert!(together.iter().map(|a| &a.0).eq(alone.iter().map(|a| &a.0)));
    // What is not said is as the model was opened.
    let unsaid = answers(&mut engine(&device), &[request(eight().remove(0), None)]);
    let said = answers(&mut engine(&device), &[request(eight().remove(0), Some(vec![(0, 1.0), (1, 1.0)]))]);
    assert_eq!(unsaid[0].0, said[0].0);
    assert_ne!(unsaid[0].0, together[0].0);
    let wrong = engine(&device).add(request(vec![1], Some(vec![(2, 1.0)])), 0.0).unwrap_err().to_string();
    assert!(wrong.contains("0 to 1"), "{wrong}");
    let wrong = engine(&device).add(request(vec![1], Some(vec![(0, f32::NAN)])), 0.0).unwrap_err().to_string();
    assert!(wrong.contains("scale"), "{wrong}");
}

#[test]
fn pages_belong_to_the_adapters_that_filled_them() {
    let written = Written::golden("llama3", &[]);
    let (base, prompt) = (written.bytes(), ids(100, 7));
    let folder = std::env::temp_dir().join(format!("ir-adapters-{}", std::process::id()));
    let engine = |adapters: Vec<Attached>, disk: bool| {
        let options = EngineOptions { context: Some(256), ..EngineOptions::default() };
        let mut engine = Engine::new(model(&base, adapters), &cpu("scalar"), &options).unwrap();
        if disk {
            assert!(engine.keep_in(Box::new(DiskCache::open(&folder, 1 << 30).unwrap())));
        }
        engine
    };
    let cases = [vec![(0, 1.0)], vec![], vec![(1, 1.0)], vec![(0, 0.5)], vec![(0, 1.0), (1, 0.25)], vec![(1, 0.0)]];
    let run = |engine: &mut Engine, adapters: &[(usize, f32)]| {
        answers(engine, &[request(prompt.clone(), Some(adapters.to_vec()))]).remove(0)
    };
    let mut one = engine(two(&written), true);
    let mut fresh = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        let (answer, usage) = run(&mut one, case);
        // The last is none, which the second was.
        assert_eq!(usage.cached_tokens > 0, i == 5, "{case:?}");
        assert_eq!(answer, run(&mut engine(two(&written), false), case).0, "{case:?}");
        fresh.push(answer);
    }
    for (case, before) in cases.iter().zip(&fresh) {
        let (answer, usage) = run(&mut one, case);
        assert!(usage.cached_tokens >= 80 && answer == *before, "{case:?}: {usage:?}");
    }
    drop(one);
    // In a folder pages are found by what adapters hold, whatever their numbers are.
    let mut other = engine(two(&written).into_iter().rev().collect(), true);
    let (answer, usage) = run(&mut other, &[(1, 1.0)]);
    assert!(usage.cached_tokens >= 80 && answer == fresh[0], "{usage:?}");
    assert_eq!(run(&mut other, &[(1, 0.75)]).1.cached_tokens, 0);
    drop(other);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn merged_files_compute_what_adapters_do() {
    let ids = ids(24, 7);
    let written = Written::golden("llama3", &[]);
    let made = MadeAdapter::new(&written, "llama", 3, 4, &[ALL, &["token_embd", "output"]].concat());
    let base = written.bytes();
    let path = std::env::temp_dir().join(format!("ir-merged-{}.gguf", std::process::id()));
    let device = cpu("scalar");
    let merge = |file: &ModelFile, adapter: Adapter, scale: f32| {
        let settings = Settings { merged: vec![attached(adapter, scale)], ..Settings::default() };
        Job::new(file, &settings).unwrap().write(&path, 2, &mut |_| true).unwrap();
        let plan = Arc::new(inspect_with(&ModelFile::read(&path).unwrap(), &[]).unwrap().1);
        std::fs::remove_file(&path).unwrap();
        logits(&device, &plan, &[(&ids, &[])]).remove(0)
    };
    let file = ModelFile::from_bytes(base.clone()).unwrap();
    let expected = logits(&device, &plan(&base, &[of_gguf(&made, 0.5)]), &[(&ids, &[0.5])]).remove(0);
    let off = worst(&merge(&file, Adapter::from_bytes(made.gguf()).unwrap(), 0.5), &expected);
    assert!(off < 1e-4, "off by {off}");
    let (config, weights) = made.peft(head(&base, "llama"));
    let off = worst(&merge(&file, Adapter::from_peft(config.as_bytes(), &weights).unwrap(), 0.5), &expected);
    assert!(off < 1e-4, "PEFT: off by {off}");
    // A folder is written with what is merged; both are rounded to the folder's type.
    if let Some(golden) = shared("golden/llama3") {
        let made = MadeAdapter::new(&written, "llama", 3, 4, ALL);
        let (config, weights) = made.peft(head(&base, "llama"));
        let folder = open_file(&golden.join("hf"), false).unwrap();
        let file = ModelFile::open(&golden.join("model-bf16.gguf")).unwrap();
        let a = merge(&folder, Adapter::from_peft(config.as_bytes(), &weights).unwrap(), 0.5);
        let b = merge(&file, Adapter::from_bytes(made.gguf()).unwrap(), 0.5);
        let off = worst(&a, &b);
        assert!(off < 1e-2, "a folder: off by {off}");
    }
}

#[cfg(feature = "gpu")]
#[test]
fn a_gpu_computes_what_the_processor_does() {
    use crate::common::relative_error;
    use ir_engine::gpu::{Forms, Gpu, GpuOptions};
    let written = Written::golden("llama3", &[]);
    let base = written.bytes();
    let parts = [ALL, &["output", "token_embd"]].concat();
    let adapters = [
        of_gguf(&MadeAdapter::new(&written, "llama", 1, 5, &parts), 1.0),
        of_gguf(&MadeAdapter::new(&written, "llama", 2, 16, ATTENTION), 1.0),
    ];
    let (adapted, texts) = (plan(&base, &adapters), eight());
    let seqs: Vec<(&[u32], &[f32])> = texts.iter().zip(&SCALES).map(|(t, s)| (&t[..], &s[..])).collect();
    for (forms, most) in [("base", 1e-4), ("base+f16+subgroups", 1e-2), ("base+dot4", 1e-4)] {
        let options = GpuOptions { forms: Some(Forms::parse(forms).unwrap()), ..GpuOptions::default() };
        let gpu = match Gpu::open_now(&options) {
            Ok(gpu) => Device::Gpu(Arc::new(gpu)),
            Err(error) => return crate::common::skipped(error),
        };
        let wanted = logits(&cpu("scalar"), &adapted, &seqs);
        for (got, want) in logits(&gpu, &adapted, &seqs).iter().zip(&wanted) {
            let error = relative_error(got, want);
            assert!(error < most, "{forms}, together: {error:e}");
        }
        for (seq, want) in seqs.iter().zip(&wanted).take(6) {
            let error = relative_error(&logits(&gpu, &adapted, std::slice::from_ref(seq))[0], want);
            assert!(error < most, "{forms}, alone: {error:e}");
        }
    }
}

#[test]
fn a_model_over_two_devices_uses_them_too() {
    use ir_engine::device::{GpuLayers, Split, SplitOptions};
    let written = Written::golden("llama3", &[]);
    let (adapted, texts) = (plan(&written.bytes(), &two(&written)), eight());
    let seqs: Vec<(&[u32], &[f32])> = texts.iter().zip(&SCALES).map(|(t, s)| (&t[..], &s[..])).collect();
    let cpu = cpu("scalar");
    let options = SplitOptions { layers: GpuLayers::Count(1), ..SplitOptions::default() };
    let split = Device::Split(Arc::new(Split::new(cpu.clone(), vec![cpu.clone()], options).unwrap()));
    assert!(logits(&split, &adapted, &seqs) == logits(&cpu, &adapted, &seqs));
    // A step without any of them, and one row.
    let few = [(&texts[0][..], &[0.0, 0.0][..])];
    assert!(logits(&split, &adapted, &few) == logits(&cpu, &adapted, &few));
}
