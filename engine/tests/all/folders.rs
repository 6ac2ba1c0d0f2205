//! Folders of safetensors: each golden's folder computes what its reference says, and holds what its GGUF holds.

use std::collections::BTreeSet;
use std::path::Path;

use crate::common::{Golden, shared};
use crate::encoders;
use crate::families::{SCALAR, check};
use ir_engine::file::ModelFile;
use ir_engine::model::{Model, ModelOptions, folder_families, open_file};
use ir_engine::quant;

/// Golden folders, at least one of every architecture that folders are read of.
const FOLDERS: &[&str] = &[
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
    "llama-tied",
    "llama-yarn",
    "llama2-spm",
    "llama3",
    "llama4",
    "mamba",
    "mamba2",
    "minimax-m2",
    "mistral-swa",
    "mistral3",
    "mixtral",
    "nemotron-h",
    "nemotron-h-moe",
    "olmo2",
    "olmo3",
    "olmoe",
    "phi2",
    "phi3",
    "phimoe",
    "qwen2",
    "qwen2-moe",
    "qwen2-yarn",
    "qwen3",
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

/// Encoders with decoders: their folders hold what their GGUF files hold.
const IN_TWO_PARTS: &[&str] = &["t5", "t5-flan"];

/// All of them.
fn all() -> impl Iterator<Item = &'static &'static str> {
    FOLDERS.iter().chain(encoders::FOLDERS).chain(IN_TWO_PARTS)
}

#[test]
fn folders_agree_with_pytorch() {
    let Some(goldens) = shared("golden") else { return };
    let mut faults = Vec::new();
    for name in FOLDERS {
        let dir = goldens.join(name);
        let model = match Model::open(&dir.join("hf"), &ModelOptions::default()) {
            Ok(model) => model,
            Err(e) => {
                faults.push(format!("{name}: {e}"));
                continue;
            }
        };
        let prompt = Golden::prompt(&dir);
        let ids = model.tokenizer().encode(&prompt, true, true);
        let golden = Golden::with(&dir, model);
        if ids != golden.ids {
            faults.push(format!("{name}: {prompt:?} is {ids:?}, not {:?}", golden.ids));
        }
        faults.extend(check(&golden, name, SCALAR.0, SCALAR.1));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_family_of_folders_has_one() {
    let Some(goldens) = shared("golden") else { return };
    let arch = |name: &&str| {
        let file = open_file(&goldens.join(name).join("hf"), false).ok()?;
        Some(file.meta().arch().unwrap().to_owned())
    };
    let tested: BTreeSet<String> = all().filter_map(arch).collect();
    let untested: Vec<_> = folder_families().map(|(arch, _)| arch).filter(|a| !tested.contains(*a)).collect();
    assert!(untested.is_empty(), "no folder test: {}", untested.join(", "));
}

/// What is wrong with a folder's tensors beside those of its GGUF: shapes, and the bits of what is neither rotated nor tiled.
fn differences(name: &str, folder: &ModelFile, gguf: &ModelFile) -> Vec<String> {
    let mut faults = Vec::new();
    for theirs in gguf.tensors() {
        let Some(ours) = folder.tensor(theirs.name()) else {
            faults.push(format!("{name}: no {}", theirs.name()));
            continue;
        };
        if ours.n_elements() != theirs.n_elements() {
            faults.push(format!("{name}: {} is {:?}, not {:?}", ours.name(), ours.dims(), theirs.dims()));
            continue;
        }
        let values = |file: &ModelFile, t: &ir_engine::file::Tensor| {
            let mut out = vec![0.0; t.n_elements() as usize];
            quant::decode(t.dtype().unwrap(), &file.bytes(t).unwrap(), &mut out).unwrap();
            out
        };
        let (mut a, mut b) = (values(folder, ours), values(gguf, theirs));
        // Exponentials and powers are rounded by who computes them.
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs());
        if !near(&a, &b) {
            // Rows in another order are the same rows.
            let order = |v: &mut Vec<f32>| v.sort_by(f32::total_cmp);
            order(&mut a);
            order(&mut b);
            if !near(&a, &b) {
                faults.push(format!("{name}: {} has other values", ours.name()));
            }
        }
    }
    faults
}

#[test]
fn a_folder_holds_what_its_gguf_holds() {
    let Some(goldens) = shared("golden") else { return };
    // Factors are beside the matrices in one and in them in the other; drafts are left out of one; some have no GGUF that says
    // what they compute.
    let other = ["falcon-h1", "qwen35-mtp", "mistral-swa", "phimoe", "bert-rerank"];
    let mut faults = Vec::new();
    for name in all().filter(|name| !other.contains(name)) {
        let dir = goldens.join(name);
        let gguf = ModelFile::open(&dir.join("model-bf16.gguf")).unwrap();
        match open_file(&dir.join("hf"), false) {
            Ok(folder) => faults.extend(differences(name, &folder, &gguf)),
            Err(e) => faults.push(format!("{name}: {e}")),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_is_no_folder_of_a_model_is_said() {
    let root = std::env::temp_dir().join(format!("ir-folders-{}", std::process::id()));
    std::fs::create_dir_all(&root).unwrap();
    let says = |path: &Path| open_file(path, false).unwrap_err().to_string();
    assert!(says(&root).contains("config.json"), "{}", says(&root));
    let config = |text: &str| std::fs::write(root.join("config.json"), text).unwrap();
    config(r#"{"architectures": ["LlamaForCausalLM"]}"#);
    assert!(says(&root).contains("download the model's weights"), "{}", says(&root));
    std::fs::write(root.join("pytorch_model.bin"), b"PK").unwrap();
    assert!(says(&root).contains("pickles"), "{}", says(&root));
    let index = |name: &str| {
        let text = format!(r#"{{"weight_map": {{"a": "{name}"}}}}"#);
        std::fs::write(root.join("model.safetensors.index.json"), text).unwrap();
    };
    index("../../etc/x.safetensors");
    assert!(says(&root).contains("no shard"), "{}", says(&root));
    index("model-00001-of-00002.safetensors");
    assert!(says(&root).contains("missing"), "{}", says(&root));
    std::fs::remove_file(root.join("model.safetensors.index.json")).unwrap();
    std::fs::write(root.join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
    assert!(says(&root).contains("config.json does not say"), "{}", says(&root));
    config(r#"{"architectures": ["WhateverForCausalLM"]}"#);
    assert!(says(&root).contains("Whatever"), "{}", says(&root));
    config("{");
    assert!(says(&root).contains("JSON"), "{}", says(&root));
    std::fs::remove_dir_all(&root).unwrap();
}
