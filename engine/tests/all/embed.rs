//! Embeddings of real models. The head is linear, so the head applied to an embedding that was not normalised must give
//! what PyTorch gives: the logits of the last row, of the first, or the mean of all rows' logits. Then: batch equals
//! single, chunked equals whole, preempted equals undisturbed; and what the file's metadata says.

use std::sync::Arc;

use crate::common::{Golden, data, relative_error, skipped};
use ir_engine::bytes::Bytes;
use ir_engine::cpu::{Activations, Cpu, CpuOptions, simd};
use ir_engine::device::{Device, KvKind, kv_bytes};
use ir_engine::file::{GgufWriter, ModelFile};
use ir_engine::meta::{Meta, MetaBuilder};
use ir_engine::model::{Model, ModelOptions, Pooling};
use ir_engine::plan::{Epilogue, Op, PAGE};
use ir_engine::run::{
    EmbedRequest, Engine, EngineOptions, Event, FinishReason, Request, Sampling, SeqId, Usage, embed_ids, wait,
};

const FAMILIES: &[&str] = &["llama3", "llama-tied", "llama2-spm", "qwen2", "qwen3"];
const POOLINGS: [Pooling; 3] = [Pooling::Mean, Pooling::Cls, Pooling::Last];

/// Relative errors allowed against PyTorch, in the L2 norm; logits as in `families.rs`. In float32: some 16 sums in a row
/// of at most 96 products each, at 2^-24 a product.
const F32: f64 = 1e-4;
/// With a cache in half precision: each value is wrong by at most 2^-11, in three layers, and each key, which moves the
/// weights, by as much once more. These files' weights are plain and meet floats on every device, so nothing is added.
const F16_KV: f64 = 2e-3;

fn cpu(simd: &str, activations: Activations) -> Device {
    let options = CpuOptions { threads: Some(2), simd: Some(simd.into()), activations };
    Device::Cpu(Arc::new(Cpu::new(&options).unwrap()))
}

fn scalar() -> Device {
    cpu("scalar", Activations::F32)
}

/// Runs texts to their embeddings, all added at once; gives each one's embedding and usage in order.
fn embeddings(engine: &mut Engine, requests: &[EmbedRequest]) -> Vec<(Vec<f32>, Usage)> {
    let ids: Vec<SeqId> = requests.iter().map(|r| engine.embed(r.clone(), 0.0).unwrap()).collect();
    let mut got = vec![None; requests.len()];
    while !engine.is_idle() {
        for event in wait(engine.step(&|| 0.0)).unwrap() {
            let at = ids.iter().position(|id| *id == event.seq());
            match event {
                Event::Embedding { values, usage, .. } => got[at.unwrap()] = Some((values, usage)),
                Event::Error { error, .. } => panic!("{error}"),
                Event::Token { .. } | Event::Done { .. } => assert_eq!(at, None, "a text is not continued"),
            }
        }
    }
    got.into_iter().map(Option::unwrap).collect()
}

fn engine(model: &Arc<Model>, device: &Device, options: &EngineOptions) -> Engine {
    Engine::new(Arc::clone(model), device, options).unwrap()
}

/// In the L2 norm.
fn length(values: &[f32]) -> f64 {
    values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

fn text(ids: &[u32], pooling: Pooling) -> EmbedRequest {
    EmbedRequest { prompt: ids.to_vec(), pooling: Some(pooling), normalize: false, ..EmbedRequest::default() }
}

/// The logits that the model's head makes of an embedding.
fn head(model: &Model, embedding: &[f32]) -> Vec<f32> {
    let plan = model.plan();
    let weight = plan.ops.iter().rev().find_map(|e| match e.op {
        Op::Linear { weight, bias: None, then: Epilogue::Store { out }, .. } if out == plan.logits => {
            Some(plan.weight(weight))
        }
        _ => None,
    });
    let [segment] = weight.unwrap().segments.as_slice() else { panic!("one segment") };
    let mut values = vec![0.0; segment.rows * embedding.len()];
    ir_engine::quant::decode(segment.dtype, &segment.bytes, &mut values).unwrap();
    let dot = |row: &[f32]| row.iter().zip(embedding).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32;
    values.chunks_exact(embedding.len()).map(dot).collect()
}

/// What PyTorch's logits `[rows, n]` say of an embedding.
fn pooled(logits: &[f32], n: usize, pooling: Pooling) -> Vec<f32> {
    let rows = logits.len() / n;
    let mean = |i: usize| logits.iter().skip(i).step_by(n).map(|x| f64::from(*x)).sum::<f64>() / rows as f64;
    match pooling {
        Pooling::Mean => (0..n).map(|i| mean(i) as f32).collect(),
        Pooling::Cls => logits[..n].to_vec(),
        _ => logits[logits.len() - n..].to_vec(),
    }
}

fn agrees_with_pytorch(device: &Device, kv: KvKind, tolerance: f64) {
    for name in FAMILIES {
        let golden = Golden::load(name);
        let (model, ids, n_vocab) = (Arc::new(golden.model), golden.ids, golden.logits.len());
        let n_vocab = n_vocab / ids.len();
        let requests = POOLINGS.map(|pooling| text(&ids, pooling));
        let options = EngineOptions { kv, kv_budget: 1 << 24, ..EngineOptions::default() };
        let got = embeddings(&mut engine(&model, device, &options), &requests);
        for (pooling, (values, usage)) in POOLINGS.iter().zip(got) {
            assert_eq!((values.len(), usage.prompt_tokens), (model.spec().width, ids.len()));
            let error = relative_error(&head(&model, &values), &pooled(&golden.logits, n_vocab, *pooling));
            println!("{name} {pooling:?} on {} kv {kv:?}: relative error {error:.1e}", device.name());
            assert!(error <= tolerance, "{name} {pooling:?}: relative error {error:e} above {tolerance:e}");
        }
    }
}

#[test]
fn embeddings_agree_with_pytorch() {
    agrees_with_pytorch(&scalar(), KvKind::F32, F32);
    for table in simd::available() {
        agrees_with_pytorch(&cpu(table.name, Activations::Quantised), KvKind::F16, F16_KV);
    }
}

#[cfg(feature = "gpu")]
#[test]
fn embeddings_on_a_gpu_agree_with_pytorch() {
    use ir_engine::gpu::{Forms, Gpu, GpuOptions};
    for (forms, kv, tolerance) in
        [("base", KvKind::F32, F32), ("base", KvKind::F16, F16_KV), ("base+dot4", KvKind::F16, F16_KV)]
    {
        let options = GpuOptions { forms: Some(Forms::parse(forms).unwrap()), ..GpuOptions::default() };
        match Gpu::open_now(&options) {
            Ok(gpu) => agrees_with_pytorch(&Device::Gpu(Arc::new(gpu)), kv, tolerance),
            Err(error) => return skipped(error),
        }
    }
}

/// Texts of 1 to 100 tokens, some with a common start, in every kind of pooling.
fn texts(golden: &Golden) -> Vec<EmbedRequest> {
    let all = [golden.ids.as_slice(), &golden.greedy].concat();
    let from = |at: usize, n: usize| all[at..].iter().chain(&all).cycle().take(n).copied().collect::<Vec<u32>>();
    let lengths = [1, 15, 16, 17, 40, 70, 100];
    let text = |(i, n): (usize, usize)| text(&from(if i % 2 == 0 { 0 } else { i }, n), POOLINGS[i % 3]);
    (0..2).flat_map(|round| lengths.iter().enumerate().map(move |(i, n)| (i + round, *n))).map(text).collect()
}

#[test]
fn every_way_of_running_gives_the_same_embedding() {
    let golden = Golden::load("qwen3");
    let requests = texts(&golden);
    let (model, device) = (Arc::new(golden.model), scalar());
    let d = EngineOptions::default;
    let alone: Vec<Vec<f32>> = requests
        .iter()
        .map(|r| {
            embeddings(&mut engine(&model, &device, &EngineOptions { reuse: false, ..d() }), std::slice::from_ref(r))
        })
        .map(|mut got| got.remove(0).0)
        .collect();
    // Rows behind the last norm are about as long as one another.
    let rows = requests.iter().zip(&alone).filter(|(r, _)| r.pooling != Some(Pooling::Mean));
    let row = rows.map(|(_, row)| length(row)).fold(0.0, f64::max);
    let small = kv_bytes(model.plan(), KvKind::F16, 8);
    for (name, options, preempts) in [
        ("batch", d(), false),
        ("batch, nothing reused", EngineOptions { reuse: false, ..d() }, false),
        ("two at a time", EngineOptions { max_sequences: 2, ..d() }, false),
        ("chunks of 1", EngineOptions { chunk: 1, ..d() }, false),
        ("chunks of 7", EngineOptions { chunk: 7, ..d() }, false),
        ("steps of 9 rows", EngineOptions { max_rows: 9, ..d() }, false),
        ("preempted", EngineOptions { kv_budget: small, max_rows: 30, ..d() }, true),
    ] {
        let mut engine = engine(&model, &device, &options);
        // Among texts that are continued.
        let n_done = 2;
        for seed in 0..n_done {
            let (prompt, sampling) = (requests[5].prompt.clone(), Sampling { seed, ..Sampling::default() });
            let request = Request { prompt, sampling, max_tokens: Some(20), ignore_eos: true, ..Request::default() };
            engine.add(request, 0.0).unwrap();
        }
        let mut largest = 0f64;
        for round in 0..2 {
            for ((request, (got, usage)), want) in requests.iter().zip(embeddings(&mut engine, &requests)).zip(&alone) {
                let error = relative_error(&got, want);
                let (n, pooling) = (request.prompt.len(), request.pooling.unwrap());
                // Two sums of n rows, each wrong by 2^-24 of all rows' lengths for a row at the most.
                let allowed = 2.0 * n as f64 * 0.5f64.powi(24) * row / length(want);
                largest = largest.max(error / allowed);
                assert!(
                    error <= allowed,
                    "{name}: {n} tokens, {pooling:?}: relative error {error:e} above {allowed:e}"
                );
                // One row is not summed, whatever the chunks.
                assert!(pooling == Pooling::Mean || got == *want, "{name}: {n} tokens, {pooling:?}: other bits");
                let reusable = if pooling == Pooling::Last && options.reuse { (n - 1) / PAGE * PAGE } else { 0 };
                assert!(usage.cached_tokens <= reusable, "{name}: {pooling:?} took rows that count from the cache");
                if round == 1 && name == "batch" {
                    assert_eq!(usage.cached_tokens, reusable, "{n} tokens, {pooling:?}");
                }
            }
        }
        println!("{name}: at most {largest:.2} of the error that roundings may make");
        let n = engine.stats().preemptions;
        assert_eq!(preempts, n > 0, "{name}: {n} preemptions");
    }
}

#[test]
fn cut_and_normalised_embeddings_have_the_length_one() {
    let golden = Golden::load("llama3");
    let (model, ids) = (Arc::new(golden.model), golden.ids);
    let mut engine = engine(&model, &scalar(), &EngineOptions::default());
    let raw = embeddings(&mut engine, &[text(&ids, Pooling::Mean)]).remove(0).0;
    for (dimensions, normalize) in [(None, true), (Some(7), true), (Some(7), false), (Some(raw.len()), true)] {
        let request = EmbedRequest { dimensions, normalize, ..text(&ids, Pooling::Mean) };
        let got = embeddings(&mut engine, &[request]).remove(0).0;
        let kept = &raw[..dimensions.unwrap_or(raw.len())];
        let scale = if normalize { 1.0 / length(kept) } else { 1.0 };
        let want: Vec<f32> = kept.iter().map(|x| (f64::from(*x) * scale) as f32).collect();
        // Both are rounded to float32 once.
        assert!(relative_error(&got, &want) <= 0.5f64.powi(23), "{dimensions:?}, {normalize}");
    }
}

#[test]
fn what_cannot_be_embedded_is_refused_and_what_is_cancelled_ends() {
    let golden = Golden::load("llama3");
    let (model, ids) = (Arc::new(golden.model), golden.ids);
    let mut engine = engine(&model, &scalar(), &EngineOptions { chunk: 8, ..EngineOptions::default() });
    let n = engine.context();
    assert!(n > 8);
    let mut refused = |request: EmbedRequest| engine.embed(request, 0.0).unwrap_err().to_string();
    assert!(refused(text(&vec![5; n + 1], Pooling::Mean)).contains("shorten the text"));
    assert!(refused(text(&[], Pooling::Last)).contains("empty"));
    assert!(refused(text(&[5, u32::MAX], Pooling::Last)).contains("token id 4294967295"));
    assert!(refused(EmbedRequest { dimensions: Some(0), ..text(&ids, Pooling::Mean) }).contains("dimensions is 0"));
    assert!(refused(EmbedRequest { dimensions: Some(1 << 40), ..text(&ids, Pooling::Mean) }).contains("ask for 1 to"));
    assert!(refused(text(&ids, Pooling::Rank)).contains("mean, cls or last"));
    // A text may fill the context: nothing follows it.
    let whole = embeddings(&mut engine, &[text(&vec![5; n], Pooling::Mean)]).remove(0);
    assert_eq!(whole.1.prompt_tokens, n);
    let id = engine.embed(text(&vec![5; n], Pooling::Mean), 0.0).unwrap();
    assert!(wait(engine.step(&|| 0.0)).unwrap().is_empty(), "one chunk of several");
    assert!(engine.cancel(id, 0.0) && !engine.cancel(id, 0.0));
    let events = engine.take_events();
    assert!(
        matches!(&events[..], [Event::Done { reason: FinishReason::Cancelled, seq, .. }] if *seq == id),
        "{events:?}"
    );
    assert!(engine.is_idle());
}

/// The file of a golden model with more metadata.
fn with(golden: &Golden, change: impl Fn(MetaBuilder) -> MetaBuilder) -> Result<Model, String> {
    let file = golden.model.file();
    let meta = file.meta().iter().fold(MetaBuilder::new(), |meta, (key, value)| meta.value(&key, value));
    let mut writer = GgufWriter::new(change(meta)).unwrap();
    for tensor in file.tensors() {
        writer.tensor(tensor.name(), tensor.dims(), tensor.dtype().unwrap()).unwrap();
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes, &mut |i| file.bytes(&file.tensors()[i]).unwrap().to_vec()).unwrap();
    Model::from_bytes(Bytes::from(bytes), &ModelOptions::default()).map_err(|e| e.to_string())
}

#[test]
fn the_file_says_how_rows_are_pooled() {
    let golden = Golden::load("qwen3");
    assert_eq!(golden.model.spec().pooling, Pooling::None);
    let alone = |model: Model, pooling: Option<Pooling>| {
        let mut engine = engine(&Arc::new(model), &scalar(), &EngineOptions::default());
        let request = EmbedRequest { pooling, ..text(&golden.ids, Pooling::Last) };
        embeddings(&mut engine, &[request]).remove(0).0
    };
    let plain = |pooling| alone(with(&golden, |meta| meta).unwrap(), pooling);
    let (mean, last) = (plain(Some(Pooling::Mean)), plain(Some(Pooling::Last)));
    assert_eq!(plain(None), last, "a model made to generate gives its last row");
    assert_ne!(mean, last);
    for (id, pooling) in (0..).zip(Pooling::ALL) {
        let model = with(&golden, |meta| meta.u32("qwen3.pooling_type", id)).unwrap();
        assert_eq!(model.spec().pooling, pooling);
        if pooling == Pooling::Rank {
            let mut engine = engine(&Arc::new(model), &scalar(), &EngineOptions::default());
            let request = EmbedRequest { pooling: None, ..text(&golden.ids, Pooling::Last) };
            assert!(engine.embed(request, 0.0).unwrap_err().to_string().contains("a score of two texts"));
        } else {
            assert_eq!(alone(model, None), plain(Some(pooling)));
        }
    }
    let error = with(&golden, |meta| meta.u32("qwen3.pooling_type", 5)).unwrap_err();
    assert!(error.contains("qwen3.pooling_type") && error.contains('5'), "{error}");
    let error = with(&golden, |meta| meta.bool("qwen3.attention.causal", false)).unwrap_err();
    assert!(error.contains("in both directions"), "{error}");
    assert!(with(&golden, |meta| meta.bool("qwen3.attention.causal", true)).is_ok());
}

#[test]
fn bos_and_eos_stand_around_a_text_once() {
    let golden = Golden::load("llama2-spm");
    let key = |name: &str| format!("tokenizer.ggml.add_{name}_token");
    for (bos, eos) in [(false, false), (true, false), (false, true), (true, true)] {
        let meta = golden.model.file().meta();
        let kept = meta.iter().filter(|(k, _)| *k != key("bos") && *k != key("eos"));
        let meta = kept.fold(MetaBuilder::new(), |meta, (key, value)| meta.value(&key, value));
        let meta = meta.bool(&key("bos"), bos).bool(&key("eos"), eos).build();
        let tokenizer = ir_engine::Tokenizer::from_meta(&meta, None).unwrap();
        let (first, last) = (tokenizer.bos().unwrap(), tokenizer.eos().unwrap());
        let around = |text: &str| {
            let ids = embed_ids(&tokenizer, text);
            [first, last].map(|id| ids.iter().filter(|i| **i == id).count())
        };
        assert_eq!(around("a fox"), [usize::from(bos), usize::from(eos)]);
        assert_eq!(around("<s>a fox</s>"), [1, 1], "what the text brings is not doubled");
    }
}

/// Encoders that were converted before files said what stands around a text: WordPiece puts a separator behind it.
#[test]
fn a_separator_ends_a_text_of_files_that_do_not_say_so() {
    let file = ModelFile::open(&data().join("golden/bert/model-bf16.gguf")).unwrap();
    let whole = file.meta();
    let tokenizer = |meta: &Meta| ir_engine::Tokenizer::from_meta(meta, None).unwrap();
    let silent = whole.iter().filter(|(key, _)| !key.starts_with("tokenizer.ggml.add_"));
    let silent = silent.fold(MetaBuilder::new(), |meta, (key, value)| meta.value(&key, value)).build();
    let (ids, said) = (embed_ids(&tokenizer(&silent), "a fox"), embed_ids(&tokenizer(whole), "a fox"));
    assert_eq!(ids, said);
    assert_eq!(ids.last().copied(), tokenizer(&silent).separator());
    assert_eq!(embed_ids(&tokenizer(&silent), "a fox[SEP]"), ids, "what the text brings is not doubled");
}
