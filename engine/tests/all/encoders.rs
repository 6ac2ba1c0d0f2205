//! Models that read a text both ways: their embeddings and scores, and the logits of decoders behind them, against PyTorch,
//! whatever runs beside them; what they refuse.

use std::path::PathBuf;
use std::sync::Arc;

use crate::common::{data, npy, relative_error, shared, skipped};
use ir_engine::check::check;
use ir_engine::cpu::{Activations, Cpu, CpuOptions, simd};
use ir_engine::device::{Device, KvKind, RunnerOptions, kv_bytes};
use ir_engine::model::{Model, ModelOptions, Pooling};
use ir_engine::plan::{Inputs, PAGE};
use ir_engine::run::{
    EmbedRequest, Engine, EngineOptions, Event, RankRequest, Request, SeqId, embed_ids, rank_request, wait,
};
use serde_json::Value as Json;

/// Goldens of the project, and those beside it.
const OWN: &[&str] = &["bert", "gemma-embedding", "xlm-roberta-rerank"];
const SHARED: &[&str] = &["bert-cls", "modernbert", "nomic-bert", "xlm-roberta", "qwen3-embedding", "qwen3-reranker"];

/// Goldens whose folders are read.
pub(crate) const FOLDERS: &[&str] = &[
    "bert",
    "bert-cls",
    "bert-rerank",
    "gemma-embedding",
    "modernbert",
    "nomic-bert",
    "qwen3-embedding",
    "qwen3-reranker",
    "xlm-roberta",
    "xlm-roberta-rerank",
];

/// Relative error of scalar kernels in float32: sums in another order than PyTorch's.
const F32: f64 = 1e-4;
/// As users run it: a cache in half precision, each instruction set's own order of sums and its own activations.
const AS_RUN: f64 = 2e-2;

struct Golden {
    name: &'static str,
    model: Arc<Model>,
    json: Json,
}

impl Golden {
    fn open(name: &'static str, folder: PathBuf) -> Golden {
        Golden::with(name, folder, "model-bf16.gguf")
    }

    fn with(name: &'static str, folder: PathBuf, model: &str) -> Golden {
        let json = serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap();
        let model = Model::open(&folder.join(model), &ModelOptions::default()).unwrap();
        Golden { name, model: Arc::new(model), json }
    }

    fn own(name: &'static str) -> Golden {
        Golden::open(name, data().join("golden").join(name))
    }

    fn text(&self, key: &str) -> &str {
        self.json[key].as_str().unwrap()
    }

    fn numbers(&self, key: &str) -> Vec<f32> {
        self.json[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
    }

    /// The ids as the reference has them.
    fn ids(&self) -> Vec<u32> {
        self.numbers("ids").into_iter().map(|id| id as u32).collect()
    }

    /// What is asked, as it is made here.
    fn request(&self) -> RankRequest {
        if self.model.ranks() {
            return rank_request(&self.model, self.text("query"), self.text("document")).unwrap();
        }
        of(embed_ids(self.model.tokenizer(), self.text("prompt")))
    }
}

/// A text.
fn of(prompt: Vec<u32>) -> RankRequest {
    RankRequest { prompt, ..RankRequest::default() }
}

fn goldens() -> Vec<Golden> {
    let others =
        shared("golden").into_iter().flat_map(|root| SHARED.iter().map(move |n| Golden::open(n, root.join(n))));
    OWN.iter().map(|name| Golden::own(name)).chain(others).collect()
}

fn cpu(simd: &str, activations: Activations) -> Device {
    let options = CpuOptions { threads: Some(2), simd: Some(simd.into()), activations };
    Device::Cpu(Arc::new(Cpu::new(&options).unwrap()))
}

fn scalar() -> Device {
    cpu("scalar", Activations::F32)
}

fn engine(model: &Arc<Model>, device: &Device, options: &EngineOptions) -> Engine {
    Engine::new(Arc::clone(model), device, options).unwrap()
}

/// What comes of texts that are all added at once, in order: raw embeddings or scores.
fn run(engine: &mut Engine, texts: &[RankRequest]) -> Vec<Vec<f32>> {
    let ranks = engine.model().ranks();
    let add = |engine: &mut Engine, text: &RankRequest| match ranks {
        true => engine.rank(text.clone(), 0.0),
        false => {
            let prompt = text.prompt.clone();
            engine.embed(EmbedRequest { prompt, normalize: false, ..EmbedRequest::default() }, 0.0)
        }
    };
    let ids: Vec<SeqId> = texts.iter().map(|text| add(engine, text).unwrap()).collect();
    let mut got = vec![None; texts.len()];
    while !engine.is_idle() {
        for event in wait(engine.step(&|| 0.0)).unwrap() {
            let at = ids.iter().position(|id| *id == event.seq()).unwrap();
            match event {
                Event::Embedding { values, .. } => got[at] = Some(values),
                other => panic!("{other:?}"),
            }
        }
    }
    got.into_iter().map(Option::unwrap).collect()
}

fn agree(goldens: Vec<Golden>, device: &Device, kv: KvKind, tolerance: f64) {
    let mut faults = Vec::new();
    for golden in goldens {
        let ours = golden.request();
        assert_eq!(ours.prompt, golden.ids(), "{}", golden.name);
        // Of models that tell the texts of a pair apart the reference says which token is of which.
        if let Some(types) = golden.json["token_type_ids"].as_array() {
            assert_eq!(ours.second, types.iter().position(|of| of == 1), "{}", golden.name);
        }
        let options = EngineOptions { kv, ..EngineOptions::default() };
        let got = run(&mut engine(&golden.model, device, &options), &[ours]).remove(0);
        let error = if golden.model.ranks() {
            assert_eq!(got.len(), 1);
            (f64::from(got[0]) - golden.json["score"].as_f64().unwrap()).abs()
        } else {
            relative_error(&got, &golden.numbers("embedding"))
        };
        println!("{} on {} kv {kv:?}: error {error:.1e}", golden.name, device.name());
        if error.is_nan() || error > tolerance {
            faults.push(format!("{}: error {error:e} above {tolerance:e}", golden.name));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn embeddings_and_scores_agree_with_pytorch() {
    agree(goldens(), &scalar(), KvKind::F32, F32);
    for table in simd::available() {
        agree(goldens(), &cpu(table.name, Activations::Quantised), KvKind::F16, AS_RUN);
    }
}

#[test]
fn embeddings_and_scores_of_folders_agree_with_pytorch() {
    let Some(root) = shared("golden") else { return };
    let goldens = FOLDERS.iter().map(|name| Golden::with(name, root.join(name), "hf")).collect();
    agree(goldens, &scalar(), KvKind::F32, F32);
}

#[cfg(feature = "gpu")]
#[test]
fn embeddings_and_scores_on_a_gpu_agree_with_pytorch() {
    use ir_engine::gpu::{Forms, Gpu, GpuOptions};
    for (forms, kv, tolerance) in [("base", KvKind::F32, F32), ("base+dot4", KvKind::F16, AS_RUN)] {
        let options = GpuOptions { forms: Some(Forms::parse(forms).unwrap()), ..GpuOptions::default() };
        match Gpu::open_now(&options) {
            Ok(gpu) => agree(goldens(), &Device::Gpu(Arc::new(gpu)), kv, tolerance),
            Err(error) => return skipped(error),
        }
    }
}

/// Logits of the decoder's tokens behind what the encoder has read, so many tokens to a step.
fn decoded(golden: &Golden, device: &Device, at_once: usize) -> Vec<f32> {
    let ids = |key| golden.numbers(key).into_iter().map(|id| id as u32).collect::<Vec<_>>();
    let (source, decoder) = (ids("ids"), ids("decoder_ids"));
    let n_pages = (source.len() + decoder.len()).div_ceil(PAGE);
    let (max_tokens, max_outputs, kv) = (source.len(), decoder.len(), KvKind::F32);
    let options = RunnerOptions { max_tokens, max_outputs, kv, n_pages, n_states: 1, n_window_pages: 0 };
    let mut runner = device.prepare(Arc::clone(golden.model.plan()), options).unwrap();
    let (tables, sources) = (vec![(0..n_pages as u32).rev().collect()], vec![source.len() as u32]);
    let mut inputs = Inputs { tables: tables.clone(), sources: sources.clone(), source: true, ..Inputs::default() };
    source.iter().zip(0..).for_each(|(id, position)| _ = inputs.push(*id, position, 0));
    runner.submit(&inputs).unwrap().wait().unwrap();
    let (mut logits, mut position) = (Vec::new(), source.len() as u32);
    for ids in decoder.chunks(at_once) {
        inputs = Inputs { tables: tables.clone(), sources: sources.clone(), ..Inputs::default() };
        ids.iter().zip(position..).for_each(|(id, position)| _ = inputs.push(*id, position, 0));
        inputs.outputs = (0..ids.len() as u32).collect();
        logits.extend(runner.submit(&inputs).unwrap().wait().unwrap().logits);
        position += ids.len() as u32;
    }
    logits
}

/// Encoders in front of decoders, all tokens of the decoder at once and one by one.
fn decoders_agree(names: &[&'static str], device: &Device) {
    let Some(root) = shared("golden") else { return };
    for name in names {
        let (golden, want) = (Golden::open(name, root.join(name)), npy(&root.join(name).join("logits.npy")));
        for at_once in [usize::MAX, 1] {
            let error = relative_error(&decoded(&golden, device, at_once), &want);
            println!("{name} on {}: error {error:.1e}", device.name());
            assert!(error <= F32, "{name} on {}, {at_once} at once: error {error:e}", device.name());
        }
    }
}

#[test]
fn decoders_behind_encoders_agree_with_pytorch() {
    decoders_agree(&["t5", "t5-flan"], &scalar());
}

#[cfg(feature = "gpu")]
#[test]
fn decoders_behind_encoders_on_a_gpu_agree_with_pytorch() {
    use ir_engine::gpu::{Forms, Gpu, GpuOptions};
    match Gpu::open_now(&GpuOptions { forms: Some(Forms::BASE), ..GpuOptions::default() }) {
        Ok(gpu) => decoders_agree(&["t5"], &Device::Gpu(Arc::new(gpu))),
        Err(error) => skipped(error),
    }
}

/// Op by op: the encoder's in a step of its source, the decoder's behind it.
#[test]
fn checking_compares_encoders_and_their_decoders() {
    let Some(root) = shared("golden") else { return };
    let golden = Golden::open("t5-flan", root.join("t5-flan"));
    let ids = golden.ids();
    let (mut all, device) = (Vec::new(), scalar());
    check(golden.model.plan(), &device, &device, &ids, KvKind::F32, &mut |compared| all.push(compared)).unwrap();
    assert!(all.iter().all(|compared| compared.error == 0.0), "a device differs from itself");
    for (part, steps) in [("enc.", 1), ("dec.", 2), ("cross_attn", 2)] {
        let mut rows: Vec<usize> = all.iter().filter(|c| c.scope.contains(part)).map(|c| c.rows).collect();
        rows.dedup();
        assert_eq!(rows, [ids.len() - 1, 1][..steps], "{part}");
    }
}

/// Types tell the texts of a pair apart, and the first row of their table is that of models which do not.
#[test]
fn a_reranker_of_berts_kind_sees_where_the_second_text_begins() {
    let Some(folder) = shared("golden/bert-rerank") else { return };
    let golden = Golden::with("bert-rerank", folder, "hf");
    let pair = golden.request();
    let score = |second| {
        let mut engine = engine(&golden.model, &scalar(), &EngineOptions::default());
        run(&mut engine, &[RankRequest { second, ..pair.clone() }]).remove(0)[0]
    };
    let [right, none, end] = [pair.second, None, Some(pair.prompt.len())].map(score);
    assert!((right - none).abs() > 1e-3, "{right} {none}");
    assert_eq!(none.to_bits(), end.to_bits());
}

/// Texts of 1 to 100 tokens; two of three are pairs.
fn texts(golden: &Golden) -> Vec<RankRequest> {
    let ids = golden.ids();
    let lengths = [1, 2, 3, 4, 15, 16, 17, 40, 70, 100];
    let text = |(i, n): (usize, &usize)| {
        let second = (i % 3 > 0).then_some(n / 2);
        RankRequest { second, ..of(ids[i..].iter().chain(&ids).cycle().take(*n).copied().collect()) }
    };
    lengths.iter().enumerate().map(text).collect()
}

#[test]
fn every_way_of_running_gives_the_same_bits() {
    let pairs = shared("golden/bert-rerank").map(|folder| Golden::with("bert-rerank", folder, "hf"));
    for golden in OWN.iter().map(|name| Golden::own(name)).chain(pairs) {
        let (texts, device, model) = (texts(&golden), scalar(), &golden.model);
        let d = EngineOptions::default;
        let alone: Vec<Vec<f32>> = texts
            .iter()
            .map(|text| run(&mut engine(model, &device, &d()), std::slice::from_ref(text)).remove(0))
            .collect();
        assert!(alone.windows(2).all(|w| w[0] != w[1]));
        let small = kv_bytes(model.plan(), KvKind::F16, 8);
        for (name, options) in [
            ("batch", d()),
            ("two at a time", EngineOptions { max_sequences: 2, ..d() }),
            ("chunks are for others", EngineOptions { chunk: 1, ..d() }),
            ("rows rise to a text", EngineOptions { max_rows: 9, context: Some(100), ..d() }),
            ("few pages", EngineOptions { kv_budget: small, ..d() }),
        ] {
            let mut engine = engine(model, &device, &options);
            for _ in 0..2 {
                assert_eq!(run(&mut engine, &texts), alone, "{} {name}", golden.name);
            }
        }
    }
}

#[test]
fn what_a_model_is_not_for_is_refused_in_a_sentence() {
    let (embeds, ranks) = (Golden::own("bert"), Golden::own("xlm-roberta-rerank"));
    let made = |golden: &Golden| engine(&golden.model, &scalar(), &EngineOptions::default());
    let (mut embedder, mut ranker) = (made(&embeds), made(&ranks));
    let request = || Request { prompt: vec![2, 286, 3], ..Request::default() };
    let said = |result: ir_engine::Result<SeqId>| result.unwrap_err().to_string();
    assert!(said(embedder.add(request(), 0.0)).contains("makes embeddings and generates no text"));
    assert!(said(ranker.add(request(), 0.0)).contains("ranks texts and generates none"));
    assert!(said(embedder.rank(of(vec![2, 286, 3]), 0.0)).contains("ranks no texts"));
    let text = EmbedRequest { prompt: vec![2, 286, 3], ..EmbedRequest::default() };
    let mean = EmbedRequest { pooling: Some(Pooling::Mean), ..text.clone() };
    assert!(said(ranker.embed(text, 0.0)).contains("no embedding"));
    assert!(said(ranker.embed(mean, 0.0)).contains("no embedding"));
    let n = embedder.context();
    let long = EmbedRequest { prompt: vec![286; n + 1], ..EmbedRequest::default() };
    assert!(said(embedder.embed(long, 0.0)).contains(&format!("{} tokens and the context holds {n}", n + 1)));
    let n = ranker.context();
    assert!(said(ranker.rank(of(vec![80; n + 1]), 0.0)).contains(&format!("the context holds {n}")));
    let pair = RankRequest { second: Some(4), ..of(vec![2, 286, 3]) };
    assert!(said(ranker.rank(pair, 0.0)).contains("second text begins at 4 of a pair of 3 tokens"));
    let beyond = EngineOptions { context: Some(100_000), ..EngineOptions::default() };
    let error = Engine::new(Arc::clone(&embeds.model), &scalar(), &beyond).unwrap_err().to_string();
    assert!(error.contains("256 positions"), "{error}");
    assert!(rank_request(&embeds.model, "a", "b").is_err());
}

#[test]
fn a_pair_is_joined_by_the_template_without_reading_the_query_as_one() {
    let Some(folder) = shared("golden/qwen3-reranker") else { return };
    let golden = Golden::open("qwen3-reranker", folder);
    let joined = |query: &str, text: &str| {
        let pair = rank_request(&golden.model, query, text).unwrap();
        assert_eq!(pair.second, None);
        golden.model.tokenizer().decode(&pair.prompt, true)
    };
    let said = joined("a {document} b", "c {query} d");
    assert!(said.contains("<Query>: a {document} b\n") && said.contains("<Document>: c {query} d"), "{said}");
}
