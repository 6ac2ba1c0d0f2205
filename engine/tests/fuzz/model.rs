//! Hostile models: files of the golden families are mutated and loaded as models, tokenizer and chat template included.
//! Each must load or be refused: no panic, no hang, no single allocation above four times the file plus 64 KiB.
//! `IR_FUZZ_MODELS` sets the number of mutated files.

use std::sync::atomic::{AtomicU64, Ordering};

use super::mutate::{Seed, mutate, seed};
use super::random::Random;
use super::watch;
use ir_engine::bytes::Bytes;
use ir_engine::error::Result;
use ir_engine::file::ModelFile;
use ir_engine::model::{Model, ModelOptions};
use ir_engine::text::Tokenizer;

/// Mutated models in a plain run of the test; `.ci/run --full` takes 500,000.
const MODELS: u64 = 2_000;
const TEXT: &str = "Hello wörld\n <s> 123 \u{1f600}";

fn golden() -> Vec<Seed> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden");
    let read = |name| seed(std::fs::read(folder.join(name).join("model-bf16.gguf")).unwrap());
    ["llama3", "llama-tied", "llama2-spm", "qwen2", "qwen3"].into_iter().map(read).collect()
}

/// Loads the model, and the tokenizer alone where it does not load: `ir tokenize` takes such files.
fn load(bytes: &Bytes) -> Result<Model> {
    let file = ModelFile::from_bytes(bytes.clone())?;
    if let Ok(tokenizer) = Tokenizer::from_meta(file.meta(), None) {
        let ids = tokenizer.encode(TEXT, true, true);
        std::hint::black_box(tokenizer.decode(&ids, true));
    }
    let model = Model::from_file(file, &ModelOptions::default())?;
    std::hint::black_box(model.plan().to_string());
    Ok(model)
}

fn check(bytes: Vec<u8>) -> bool {
    let limit = 4 * bytes.len() + (64 << 10);
    let bytes = Bytes::from(bytes);
    watch::reset();
    let loaded = load(&bytes);
    let largest = watch::largest();
    assert!(largest <= limit, "an allocation of {largest} bytes for a file of {}", bytes.len());
    if let Err(error) = &loaded {
        let error = error.to_string();
        // The longest is the list of all pre-tokenizers.
        assert!(error.len() < 2000 && !error.contains('\n'), "{error}");
    }
    loaded.is_ok()
}

/// Names the file that a panic is about.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the panic is about mutated model {}", self.0);
        }
    }
}

#[test]
fn mutated_models_load_or_are_refused() {
    let n: u64 = std::env::var("IR_FUZZ_MODELS").map_or(MODELS, |text| text.parse().unwrap());
    let seeds = golden();
    for seed in &seeds {
        assert!(check(seed.bytes.clone()), "a golden model loads");
    }
    let (next, loaded) = (AtomicU64::new(0), AtomicU64::new(0));
    let n_threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= n {
                        break;
                    }
                    let _named = Named(i);
                    if check(mutate(&seeds, &mut Random::new(i))) {
                        loaded.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let loaded = loaded.into_inner();
    eprintln!("{n} mutated models: {loaded} loaded, {} were refused", n - loaded);
    assert!(n < 1000 || (n / 50..n).contains(&loaded), "the mutations are too tame or too wild: {loaded} of {n}");
}

/// A name of a megabyte is not repeated in the error about it.
#[test]
fn hostile_names_are_cut_in_errors() {
    let long = "\n\u{1b}[31m".repeat(200_000);
    let golden = &golden()[0];
    let real = ModelFile::from_bytes(golden.bytes.clone().into()).unwrap();
    for key in ["general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre", "llama.rope.scaling.type"] {
        let meta = real
            .meta()
            .iter()
            .filter(|(k, _)| k != key)
            .fold(ir_engine::meta::MetaBuilder::new().str(key, &long), |meta, (key, value)| meta.value(&key, value));
        let mut writer = ir_engine::file::GgufWriter::new(meta).unwrap();
        for tensor in real.tensors() {
            writer.tensor(tensor.name(), tensor.dims(), tensor.dtype().unwrap()).unwrap();
        }
        let mut bytes = Vec::new();
        writer.write(&mut bytes, &mut |i| real.bytes(&real.tensors()[i]).unwrap().to_vec()).unwrap();
        let Err(error) = Model::from_bytes(bytes.into(), &ModelOptions::default()) else { continue };
        let error = error.to_string();
        assert!(error.len() < 2000 && !error.contains(['\n', '\u{1b}']), "{key}: {} bytes", error.len());
    }
}
