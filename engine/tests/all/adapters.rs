//! Adapters (LoRA): GGUF and PEFT forms against merged weights, several in one batch, on the processor and on a GPU; the keys of
//! their pages; and what is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use ir_engine::bytes::Bytes;
use ir_engine::convert::{Job, Settings};
use ir_engine::cpu::{Activations, Cpu, CpuOptions};
use ir_engine::device::{Device, KvKind, RunnerOptions};
use ir_engine::dtype::DType;
use ir_engine::file::{GgufWriter, ModelFile};
use ir_engine::meta::MetaBuilder;
use ir_engine::model::{Adapter, Attached, Model, ModelOptions, inspect_with, open_file};
use ir_engine::plan::{Inputs, PAGE, Plan};
use ir_engine::run::{DiskCache, Engine, EngineOptions, Event, Request, Sampling, Usage, wait};

use crate::common::exam::Random;
use crate::common::shared;
use crate::made::{Written, le_bytes};

/// A matrix of an adapter: its pair of matrices in GGUF's order of rows.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) a: Vec<f32>,
    pub(crate) b: Vec<f32>,
    pub(crate) cols: usize,
    pub(crate) rows: usize,
}

/// An adapter that is made for a model: random matrices of this rank beside tensors.
#[derive(Clone)]
pub(crate) struct MadeAdapter {
    pub(crate) arch: String,
    pub(crate) rank: usize,
    pub(crate) alpha: f32,
    pub(crate) pairs: BTreeMap<String, Made>,
}

pub(crate) const ATTENTION: &[&str] = &["attn_q", "attn_k", "attn_v", "attn_output"];
pub(crate) const ALL: &[&str] = &["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

impl MadeAdapter {
    /// Random matrices beside these of every layer's tensors, and beside others.
    pub(crate) fn new(base: &Written, arch: &str, seed: u64, rank: usize, parts: &[&str]) -> MadeAdapter {
        let mut random = Random(seed);
        let mut pairs = BTreeMap::new();
        for (name, (dims, ..)) in &base.tensors {
            let part = name.strip_suffix(".weight").unwrap_or_default();
            let part = part.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).map_or(part, |(_, part)| part);
            if !parts.contains(&part) {
                continue;
            }
            let (cols, rows) = (dims[0] as usize, dims[1] as usize);
            let (a_n, b_n) = if part == "token_embd" { (rows * rank, cols * rank) } else { (cols * rank, rows * rank) };
            let size = 0.3 / (cols as f32).sqrt();
            let a = random.floats(a_n).iter().map(|x| x * size).collect();
            let b = random.floats(b_n);
            pairs.insert(name.clone(), Made { a, b, cols, rows });
        }
        assert!(!pairs.is_empty(), "the model has none of {parts:?}");
        MadeAdapter { arch: arch.into(), rank, alpha: 2.0 * rank as f32, pairs }
    }

    pub(crate) fn gguf(&self) -> Bytes {
        let meta = MetaBuilder::new()
            .str("general.architecture", &self.arch)
            .str("general.type", "adapter")
            .str("adapter.type", "lora")
            .f32("adapter.lora.alpha", self.alpha)
            .str("adapter.lora.task_name", "made");
        self.gguf_with(meta)
    }

    pub(crate) fn gguf_with(&self, meta: MetaBuilder) -> Bytes {
        let mut writer = GgufWriter::new(meta).unwrap();
        let mut data = Vec::new();
        let rank = self.rank as u64;
        for (name, Made { a, b, cols, rows }) in &self.pairs {
            let table = name == "token_embd.weight";
            let (a_dims, b_dims) = match table {
                true => ([rank, *rows as u64], [rank, *cols as u64]),
                false => ([*cols as u64, rank], [rank, *rows as u64]),
            };
            writer.tensor(&format!("{name}.lora_a"), &a_dims, DType::F32).unwrap();
            writer.tensor(&format!("{name}.lora_b"), &b_dims, DType::F32).unwrap();
            data.extend([le_bytes(a), le_bytes(b)]);
        }
        let mut out = Vec::new();
        writer.write(&mut out, &mut |i| data[i].clone()).unwrap();
        Bytes::from(out)
    }

    /// The two files of PEFT, for a model of `head` rows a head whose queries and keys GGUF files have woven.
    pub(crate) fn peft(&self, head: usize) -> (String, Bytes) {
        let names = [
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("ffn_gate", "mlp.gate_proj"),
            ("ffn_up", "mlp.up_proj"),
            ("ffn_down", "mlp.down_proj"),
        ];
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        for (name, Made { a, b, cols, rows }) in &self.pairs {
            let rest = name.strip_prefix("blk.").unwrap_or(name).strip_suffix(".weight").unwrap();
            let (theirs, woven) = match rest.split_once('.') {
                Some((layer, part)) => {
                    let (_, theirs) = names.iter().find(|(ours, _)| *ours == part).unwrap();
                    (format!("model.layers.{layer}.{theirs}"), head > 0 && ["attn_q", "attn_k"].contains(&part))
                }
                None if rest == "output" => ("lm_head".to_owned(), false),
                None => ("model.embed_tokens".to_owned(), false),
            };
            let r = self.rank;
            let b = match woven {
                // Row `head * len + 2 i + j` of the file is row `head * len + j * len / 2 + i` here.
                true => {
                    let mut out = vec![0.0; b.len()];
                    for row in 0..*rows {
                        let (at, i) = (row / head * head, row % head);
                        let from = at + if i < head / 2 { 2 * i } else { 2 * (i - head / 2) + 1 };
                        out[row * r..][..r].copy_from_slice(&b[from * r..][..r]);
                    }
                    out
                }
                false => b.clone(),
            };
            let table = name == "token_embd.weight";
            let a =
                if table { (0..r).flat_map(|i| (0..*rows).map(move |t| a[t * r + i])).collect() } else { a.clone() };
            let (ends, shapes) = match table {
                true => (["lora_embedding_A", "lora_embedding_B"], [[r, *rows], [*cols, r]]),
                false => (["lora_A.weight", "lora_B.weight"], [[r, *cols], [*rows, r]]),
            };
            for ((end, shape), values) in ends.into_iter().zip(shapes).zip([a, b]) {
                let from = data.len();
                data.extend(le_bytes(&values));
                let info = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [from, data.len()]});
                header.insert(format!("base_model.model.{theirs}.{end}"), info);
            }
        }
        let header = serde_json::Value::Object(header).to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(data);
        let config = serde_json::json!({
            "peft_type": "LORA", "r": self.rank, "lora_alpha": self.alpha, "bias": "none", "use_dora": false,
            "modules_to_save": null, "alpha_pattern": {}, "rank_pattern": {}, "fan_in_fan_out": false
        });
        (config.to_string(), Bytes::from(file))
    }

    /// Adds what the adapter changes to a model's weights.
    pub(crate) fn merge(&self, into: &mut Written, scale: f32) {
        let (r, factor) = (self.rank, scale * self.alpha / self.rank as f32);
        for (name, Made { a, b, cols, rows }) in &self.pairs {
            let table = name == "token_embd.weight";
            let (_, _, data) = into.tensors.get_mut(name).unwrap();
            for (i, value) in data.chunks_exact_mut(4).enumerate() {
                let (row, col) = (i / cols, i % cols);
                assert!(row < *rows);
                let of = |k: usize| match table {
                    true => a[row * r + k] * b[col * r + k],
                    false => b[row * r + k] * a[k * cols + col],
                };
                let x = f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
                let sum = f64::from(x) + f64::from(factor) * (0..r).map(|k| f64::from(of(k))).sum::<f64>();
                value.copy_from_slice(&(sum as f32).to_le_bytes());
            }
        }
    }
}

pub(crate) fn attached(adapter: Adapter, scale: f32) -> Attached {
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
fn what_is_no_adapter_for_a_model_is_refused_by_name() {
    let written = Written::golden("llama3", &[]);
    let base = written.bytes();
    let made = MadeAdapter::new(&written, "llama", 1, 4, ATTENTION);
    let file = || ModelFile::from_bytes(base.clone()).unwrap();
    let refusal = |adapter: ir_engine::Result<Adapter>| match adapter {
        Err(error) => error.to_string(),
        Ok(adapter) => inspect_with(&file(), &[attached(adapter, 1.0)]).unwrap_err().to_string(),
    };
    let gguf = |change: &dyn Fn(&mut MadeAdapter)| {
        let mut made = made.clone();
        change(&mut made);
        refusal(Adapter::from_bytes(made.gguf()))
    };
    let says = |said: String, words: &[&str]| assert!(words.iter().all(|word| said.contains(word)), "{said}");
    says(gguf(&|made| made.arch = "qwen2".into()), &["qwen2", "llama"]);
    let rename = |made: &mut MadeAdapter, to: &str| {
        let (_, pair) = made.pairs.pop_first().unwrap();
        made.pairs.insert(to.into(), pair);
    };
    says(gguf(&|made| rename(made, "blk.99.attn_q.weight")), &["blk.99.attn_q.weight", "another model"]);
    says(gguf(&|made| rename(made, "blk.0.attn_norm.weight")), &["blk.0.attn_norm.weight"]);
    says(gguf(&|made| rename(made, "blk.0.ffn_down.weight")), &["blk.0.ffn_down.weight", "another model"]);
    says(gguf(&|made| made.alpha = f32::INFINITY), &["factor"]);
    says(gguf(&|made| made.pairs.values_mut().for_each(|pair| pair.a[0] = f32::NAN)), &["numbers that are none"]);
    let meta = |kind: &str| {
        let meta = MetaBuilder::new().str("general.architecture", "llama").str("general.type", "adapter");
        refusal(Adapter::from_bytes(made.gguf_with(meta.str("adapter.type", kind))))
    };
    says(meta("control_vector"), &["control_vector"]);
    says(refusal(Adapter::from_bytes(base.clone())), &["no adapter"]);
    let as_model = ir_engine::model::inspect(&ModelFile::from_bytes(made.gguf()).unwrap()).unwrap_err().to_string();
    says(as_model, &["--lora"]);

    let (config, weights) = made.peft(head(&base, "llama"));
    let peft = |from: &str, to: &str| {
        assert!(config.contains(from), "{config}");
        refusal(Adapter::from_peft(config.replace(from, to).as_bytes(), &weights))
    };
    says(peft("\"use_dora\":false", "\"use_dora\":true"), &["use_dora"]);
    says(peft("\"bias\":\"none\"", "\"bias\":\"all\""), &["biases"]);
    says(peft("\"modules_to_save\":null", "\"modules_to_save\":[\"lm_head\"]"), &["modules_to_save"]);
    says(peft("\"LORA\"", "\"IA3\""), &["IA3"]);
    says(peft("\"alpha_pattern\":{}", "\"alpha_pattern\":{\".*q_proj\":1}"), &["regular expression"]);
    says(refusal(Adapter::from_peft(b"[]", &weights)), &["adapter_config.json"]);
    let renamed = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut bytes = weights.to_vec();
        let at: Vec<usize> =
            (0..bytes.len() - from.len()).filter(|i| bytes[*i..].starts_with(from.as_bytes())).collect();
        at.iter().for_each(|i| bytes[*i..*i + to.len()].copy_from_slice(to.as_bytes()));
        refusal(Adapter::from_peft(config.as_bytes(), &Bytes::from(bytes)))
    };
    says(renamed("q_proj.lora_A", "q_what.lora_A"), &["q_what", "incomplete"]);
    says(renamed("self_attn.q_proj", "self_what.q_proj"), &["self_what.q_proj"]);
    says(renamed("lora_B.weight", "lora_M.weight"), &["lora_M"]);
}

#[test]
fn factors_are_those_of_the_config() {
    let written = Written::golden("llama3", &[]);
    let base = written.bytes();
    let mut made = MadeAdapter::new(&written, "llama", 1, 4, ATTENTION);
    let ids = ids(12, 7);
    let of = |adapter: Adapter| logits(&cpu("scalar"), &plan(&base, &[attached(adapter, 1.0)]), &[(&ids, &[1.0])]);
    let (config, weights) = made.peft(head(&base, "llama"));
    let peft = |from: &str, to: &str| of(Adapter::from_peft(config.replace(from, to).as_bytes(), &weights).unwrap());
    // alpha / sqrt(rank), with a rank of 4, is twice alpha / rank.
    let root = peft("\"bias\"", "\"use_rslora\":true,\"bias\"");
    let own = peft("\"alpha_pattern\":{}", &format!("\"alpha_pattern\":{{\"self_attn.q_proj\":{}}}", 2.0 * made.alpha));
    made.alpha *= 2.0;
    assert_eq!(root, of(Adapter::from_bytes(made.gguf()).unwrap()));
    made.alpha /= 2.0;
    for (name, pair) in &mut made.pairs {
        if name.ends_with("attn_q.weight") {
            pair.b.iter_mut().for_each(|x| *x *= 2.0);
        }
    }
    assert_eq!(own, of(Adapter::from_bytes(made.gguf()).unwrap()));
    // Without an alpha the factor is 1.
    made.alpha = made.rank as f32;
    let one = of(Adapter::from_bytes(made.gguf()).unwrap());
    made.alpha = 0.0;
    assert_eq!(one, of(Adapter::from_bytes(made.gguf()).unwrap()));
}
