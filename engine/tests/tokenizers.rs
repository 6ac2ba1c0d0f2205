//! Tokenizers against reference ids, on arbitrary text, on hostile vocabularies and texts, and against the clock.

#![allow(clippy::print_stderr, reason = "tests say what they skip and measure")]

use std::time::Instant;

mod common;

use common::{data, shared};
use ir_engine::file::ModelFile;
use ir_engine::text::{Decoder, Tokenizer};

fn read(path: &std::path::Path) -> Tokenizer {
    Tokenizer::from_meta(ModelFile::open(path).unwrap().meta(), None).unwrap()
}

fn open(path: &str) -> Option<Tokenizer> {
    Some(read(&shared(path)?))
}

const VOCABULARIES: [&str; 10] =
    ["bert-bge", "deepseek-llm", "gemma-4", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "qwen35", "starcoder"];

#[test]
fn llama_cpp_texts() {
    for name in VOCABULARIES {
        let path = format!("tokenizers/ggml-vocab-{name}.gguf");
        let Some(tokenizer) = open(&path) else { return };
        let texts = std::fs::read_to_string(shared(&format!("{path}.inp")).unwrap()).unwrap();
        let ids = std::fs::read_to_string(shared(&format!("{path}.out")).unwrap()).unwrap();
        let separator = "\n__ggml_vocab_test__\n";
        let texts: Vec<&str> = texts.strip_suffix(separator).unwrap_or(&texts).split(separator).collect();
        let ids: Vec<Vec<u32>> =
            ids.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect()).collect();
        assert_eq!(texts.len(), ids.len(), "{name}");
        assert!(ids.len() > 40, "{name}");
        let mut wrong = 0;
        for (text, ids) in texts.iter().zip(&ids) {
            let ours = tokenizer.encode(text, false, false);
            if ours != *ids {
                eprintln!("{name}: {text:?}\n  ours {ours:?}\n  want {ids:?}");
                wrong += 1;
            }
        }
        assert_eq!(wrong, 0, "{name}");
    }
}

fn json(path: &std::path::Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn ids(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn golden_families() {
    let roots = [Some(data().join("golden")), shared("golden")].into_iter().flatten();
    let mut n = 0;
    for folder in roots.flat_map(|root| std::fs::read_dir(root).unwrap()) {
        let folder = folder.unwrap().path();
        let (golden, model) = (folder.join("golden.json"), folder.join("model-bf16.gguf"));
        if !model.exists() {
            continue;
        }
        let golden = json(&golden);
        let tokenizer = read(&model);
        let ours = tokenizer.encode(golden["prompt"].as_str().unwrap(), true, true);
        assert_eq!(ours, ids(&golden["ids"]), "{}", folder.display());
        n += 1;
    }
    assert!(n >= 5, "only {n} families");
}

#[test]
fn golden_models() {
    let Some(path) = shared("models/golden.json") else { return };
    let golden = json(&path);
    let mut n = 0;
    for (model, cases) in golden.as_object().unwrap() {
        // The golden file names more models than are kept, and some by another folder.
        let file = model.rsplit('/').next().unwrap();
        let folders = ["stories260K", "babyllama-1M"].map(|folder| format!("models/{folder}/{file}"));
        let Some(tokenizer) = folders.iter().find_map(|path| open(path)) else { continue };
        for case in cases.as_array().unwrap() {
            assert_eq!(
                tokenizer.encode(case["prompt"].as_str().unwrap(), true, true),
                ids(&case["prompt_ids"]),
                "{model}"
            );
            let mut decoder = Decoder::new(false);
            let text: String = ids(&case["greedy_ids"]).iter().map(|id| decoder.push(&tokenizer, *id)).collect();
            assert_eq!(text, case["greedy_text"].as_str().unwrap(), "{model}");
            n += 1;
        }
    }
    assert!(n >= 10, "only {n} cases");
}

#[test]
fn golden_ir_tiny() {
    let Some(path) = shared("models/ir-tiny/golden.json") else { return };
    let golden = json(&path);
    let tokenizer = open("models/ir-tiny/ir-tiny-q4_0.gguf").unwrap();
    let chats = golden["chats"].as_array().unwrap();
    assert!(chats.len() > 10);
    for chat in chats {
        let prompt = chat["prompt"].as_str().unwrap();
        let prompt_ids = ids(&chat["prompt_ids"]);
        assert_eq!(tokenizer.encode(prompt, false, true), prompt_ids);
        assert_eq!(tokenizer.decode(&prompt_ids, true), prompt);
        let reply = ids(&chat["reply_ids"]);
        assert!(tokenizer.is_eog(*reply.last().unwrap()));
    }
}

/// Megabytes per second of encoding, the best of three.
fn speed(tokenizer: &Tokenizer, text: &str) -> f64 {
    let run = || {
        let start = Instant::now();
        std::hint::black_box(tokenizer.encode(text, false, true));
        text.len() as f64 / 1e6 / start.elapsed().as_secs_f64()
    };
    (0..3).map(|_| run()).fold(0.0, f64::max)
}

/// The floor is far below what is measured on an idle machine (README has the numbers), because tests share the machine.
#[test]
fn fast_on_english_and_near_linear_on_noise() {
    let Some(design) = shared("DESIGN.md") else { return };
    let english = std::fs::read_to_string(design).unwrap().repeat(80);
    let noise: [(&str, String); 10] = [
        ("a", "a".repeat(1 << 20)),
        ("space", " ".repeat(1 << 20)),
        ("newline", "\n".repeat(1 << 20)),
        ("digit", "7".repeat(1 << 20)),
        ("mark", "\u{301}".repeat(1 << 19)),
        ("aA1", "aA1 ".repeat(1 << 18)),
        ("han", "我".repeat(349_525)),
        ("<|", "<|".repeat(1 << 19)),
        ("A中", "A中".repeat(1 << 18)),
        ("apostrophe", "'".repeat(1 << 20)),
    ];
    for name in VOCABULARIES {
        let Some(path) = shared(&format!("tokenizers/ggml-vocab-{name}.gguf")) else { return };
        let start = Instant::now();
        let tokenizer = read(&path);
        let load = start.elapsed().as_secs_f64() * 1e3;
        let rate = speed(&tokenizer, &english);
        let mut line = format!("{name}: load {load:.0} ms, English {rate:.1} MB/s, seconds per MB of noise:");
        for (what, text) in &noise {
            let seconds = 1.0 / speed(&tokenizer, text);
            line += &format!(" {what} {seconds:.2}");
            assert!(seconds < 5.0, "{line}");
        }
        eprintln!("{line}");
        assert!(rate > 1.0, "{line}");
    }
}
