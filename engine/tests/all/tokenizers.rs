//! Tokenizers against reference ids, on arbitrary text, on hostile vocabularies and texts, and against the clock.

use std::collections::BTreeSet;
use std::path::Path;

use crate::common::{data, seconds, shared, timed};
use ir_engine::file::ModelFile;
use ir_engine::meta::MetaBuilder;
use ir_engine::text::{Decoder, Tokenizer};
use proptest::prelude::*;

fn read(path: &Path) -> Tokenizer {
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

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn ids(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Families of the project's own fixtures, whose prompts are tokenized as their reference implementation does.
const OWN_FAMILIES: &[&str] = &["llama-tied", "llama2-spm", "llama3", "qwen2", "qwen3"];

/// Further ones, in the shared folder.
const SHARED_FAMILIES: &[&str] = &[
    "bert",
    "bert-cls",
    "gemma-embedding",
    "modernbert",
    "nomic-bert",
    "qwen3-embedding",
    "t5",
    "t5-flan",
    "xlm-roberta",
];

/// A golden folder's prompt: our ids, and the reference's. A reranker's pair of texts is no prompt.
fn encoded(folder: &Path) -> Result<(Vec<u32>, Vec<u32>), String> {
    let golden = json(&folder.join("golden.json"));
    let prompt = golden["prompt"].as_str().ok_or("no prompt")?;
    let file = ModelFile::open(&folder.join("model-bf16.gguf")).map_err(|e| e.to_string())?;
    let tokenizer = Tokenizer::from_meta(file.meta(), None).map_err(|e| e.to_string())?;
    Ok((tokenizer.encode(prompt, true, true), ids(&golden["ids"])))
}

#[test]
fn golden_families() {
    let check = |root: &Path, name: &str| {
        let (ours, want) = encoded(&root.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(ours, want, "{name}");
    };
    OWN_FAMILIES.iter().for_each(|name| check(&data().join("golden"), name));
    let Some(shared) = shared("golden") else { return };
    let claimed: Vec<&str> = [OWN_FAMILIES, SHARED_FAMILIES].concat();
    claimed.iter().for_each(|name| check(&shared, name));
    let folders = std::fs::read_dir(&shared).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let rest: BTreeSet<String> = folders
        .filter(|name| !claimed.contains(&name.as_str()) && shared.join(name).join("model-bf16.gguf").exists())
        .collect();
    for name in rest {
        let found = match encoded(&shared.join(&name)) {
            Ok((ours, want)) if ours == want => "its prompt's tokens agree".to_owned(),
            Ok(_) => "its prompt's tokens differ".to_owned(),
            Err(error) => error,
        };
        eprintln!("not claimed yet: {name}: {found}");
    }
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

/// A megabyte of one repeated thing must not cost much more than sixteen sixteenths of it do. The printed rates are the point
/// otherwise.
#[test]
fn fast_on_english_and_near_linear_on_noise() {
    const FLOOR_MB_PER_SECOND: f64 = 1.0;
    /// By the logarithm of the length, and because a megabyte does not fit the caches that a sixteenth does. Quadratic cost
    /// has 16.
    const DEARER: f64 = 8.0;
    let Some(design) = shared("DESIGN.md") else { return };
    let english = std::fs::read_to_string(design).unwrap().repeat(16);
    const NOISE: [&str; 9] = ["a", " ", "\n", "7", "\u{301}", "aA1 ", "<|", "A中", "'"];
    for name in ["bert-bge", "deepseek-llm", "gemma-4", "llama-bpe", "llama-spm", "qwen2"] {
        let Some(path) = shared(&format!("tokenizers/ggml-vocab-{name}.gguf")) else { return };
        let file = ModelFile::open(&path).unwrap();
        let tokenizer = Tokenizer::from_meta(file.meta(), None).unwrap();
        let load = seconds(1, || drop(Tokenizer::from_meta(file.meta(), None).unwrap())) * 1e3;
        let encode = |text: &str| drop(std::hint::black_box(tokenizer.encode(text, false, true)));
        let rate = english.len() as f64 / 1e6 / seconds(2, || encode(&english));
        let mut line = format!("{name}: opens in {load:.0} ms, English {rate:.1} MB/s, seconds per MB of noise:");
        for what in NOISE {
            let (long, short) = (what.repeat((1 << 20) / what.len()), what.repeat((1 << 16) / what.len()));
            let long = seconds(1, || encode(&long));
            let short = seconds(1, || (0..16).for_each(|_| encode(&short)));
            line += &format!(" {what:?} {long:.2} ({:.1} times what 16 parts take)", long / short);
            // What takes no time to speak of shows nothing.
            assert!(long < 0.1 || long < DEARER * short, "{line}");
        }
        eprintln!("{line}");
        assert!(!timed() || rate > FLOOR_MB_PER_SECOND, "{line}");
    }
}

/// Printable characters for bytes, as GPT-2's vocabulary has them.
fn byte_chars() -> Vec<String> {
    let printable = |b: u32| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 0x100;
    let mut spell = |b: u32| {
        let code = if printable(b) { b } else { next };
        next += u32::from(!printable(b));
        char::from_u32(code).unwrap().to_string()
    };
    (0..256).map(&mut spell).collect()
}

/// A byte-level tokenizer with a few merges.
fn byte_level(pre: &str) -> Tokenizer {
    let mut tokens = byte_chars();
    let merges = ["a b", "Ġ Ġ", "ab Ġ", "Ġ t", "Ġt he", "h e", "Ã ¤", "ĠĠ ĠĠ", "ðŁ ĺ", "ð Ł", "1 2", "' s", "Ċ Ċ"];
    tokens.extend(merges.map(|m| m.replace(' ', "")));
    tokens.extend(["<|user|>", "<|end|>"].map(String::from));
    let mut types = vec![1; tokens.len()];
    let n = types.len();
    (types[n - 2], types[n - 1]) = (4, 3);
    let meta = MetaBuilder::new()
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", pre)
        .strs("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &types)
        .strs("tokenizer.ggml.merges", &merges)
        .u32("tokenizer.ggml.bos_token_id", 3);
    Tokenizer::from_meta(&meta.build(), None).unwrap()
}

/// A SentencePiece tokenizer with byte fallback and a few tokens.
fn spm() -> Tokenizer {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    tokens.extend((0..256).map(|b| format!("<0x{b:02X}>")));
    tokens.extend(
        ["▁", "▁▁", "▁▁▁▁", "a", "b", "ab", "▁a", "▁the", "▁t", "he", "h", "e", "t", "ä", "x▁", "</", "s>"]
            .map(String::from),
    );
    let types: Vec<i32> =
        (0..tokens.len()).map(|i| [2, 3, 3].get(i).copied().unwrap_or(if i < 259 { 6 } else { 1 })).collect();
    let scores: Vec<f32> = (0..tokens.len()).map(|i| -(i as f32 % 7.0)).collect();
    let meta = MetaBuilder::new()
        .str("tokenizer.ggml.model", "llama")
        .strs("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &types)
        .f32s("tokenizer.ggml.scores", &scores);
    Tokenizer::from_meta(&meta.build(), None).unwrap()
}

proptest! {
    #[test]
    fn byte_level_gives_any_text_back(text in ".{0,40}", noise in "[ \\t\\r\\nab12'sthe<|>end中ä😀]{0,60}") {
        let text = text + &noise;
        // These have the characters themselves for tokens, and bytes as `<0xE9>`.
        let escaping = ["gemma4", "granite-embed-multi-311m", "sarvam-moe"];
        for pre in Tokenizer::known_pre().filter(|pre| !escaping.contains(pre)) {
            let tokenizer = byte_level(pre);
            let ids = tokenizer.encode(&text, false, false);
            prop_assert_eq!(tokenizer.decode(&ids, true), text.as_str(), "{}", pre);
            let mut decoder = Decoder::new(false);
            let streamed: String = ids.iter().map(|id| decoder.push(&tokenizer, *id)).collect();
            prop_assert_eq!(streamed + &decoder.finish(), text.as_str(), "{}", pre);
        }
    }

    #[test]
    fn sentencepiece_gives_any_text_back(text in "[^▁]{0,40}", noise in "[ abthex</s>中ä😀\\n]{0,60}") {
        let text = text + &noise;
        let tokenizer = spm();
        let ids = tokenizer.encode(&text, true, false);
        prop_assert!(!ids[1..].iter().any(|id| tokenizer.is_control(*id)), "control tokens from plain text");
        prop_assert_eq!(tokenizer.decode(&ids, false), text);
    }

    #[test]
    fn hostile_vocabularies_do_no_harm(
        tokens in prop::collection::vec("[ab▁Ġ<|>]{0,4}|.{0,3}", 0..40),
        bytes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..4),
        merges in prop::collection::vec("[ab▁Ġ ]{0,5}|.{0,3}", 0..40),
        types in prop::collection::vec(-1..8, 50),
        scores in prop::collection::vec(any::<f32>(), 50),
        special in prop::collection::vec(0..60u32, 4),
        text in "[ab <|>\\n]{0,60}.{0,20}",
        model in 0..7usize,
    ) {
        let tokens: Vec<Vec<u8>> = tokens.into_iter().map(String::into_bytes).chain(bytes).collect();
        let mut meta = MetaBuilder::new()
            .str("tokenizer.ggml.model", ["llama", "gpt2", "gemma4", "bert", "t5", "rwkv", "plamo2"][model])
            .strs("tokenizer.ggml.tokens", &tokens)
            .strs("tokenizer.ggml.merges", &merges)
            .i32s("tokenizer.ggml.token_type", &types)
            .f32s("tokenizer.ggml.scores", &scores)
            .bool("tokenizer.ggml.add_eos_token", true);
        for (name, id) in ["bos", "eos", "unknown", "fim_pad"].into_iter().zip(special) {
            meta = meta.u32(&format!("tokenizer.ggml.{name}_token_id"), id);
        }
        let tokenizer = Tokenizer::from_meta(&meta.build(), Some("llama-bpe")).unwrap();
        let n = tokenizer.n_vocab();
        for (add, parse) in [(false, false), (true, true)] {
            let ids = tokenizer.encode(&text, add, parse);
            prop_assert!(ids.iter().all(|id| *id < n));
            tokenizer.decode(&ids, parse);
        }
        for id in [0, 1, n, u32::MAX] {
            let _ = (tokenizer.token_bytes(id), tokenizer.piece(id), tokenizer.is_eog(id), tokenizer.is_control(id));
        }
        prop_assert!(tokenizer.eog().iter().all(|id| *id < n));
    }
}

#[test]
fn damaged_vocabularies_are_errors() {
    let base = || MetaBuilder::new().str("tokenizer.ggml.model", "gpt2").str("tokenizer.ggml.pre", "gpt-2");
    let many = vec!["a b"; 5000];
    let cases = [
        (MetaBuilder::new(), "the file has no tokenizer"),
        (MetaBuilder::new().str("tokenizer.ggml.model", "runes").strs("tokenizer.ggml.tokens", &["a"]), "\"runes\""),
        (base(), "tokenizer.ggml.tokens"),
        (base().i32s("tokenizer.ggml.tokens", &[1]), "array of strings"),
        (base().strs("tokenizer.ggml.tokens", &["a"]), "tokenizer.ggml.merges"),
        (base().strs("tokenizer.ggml.tokens", &["a"]).i32s("tokenizer.ggml.token_type", &[]), "0 entries for 1 tokens"),
        (base().strs("tokenizer.ggml.tokens", &["a", "b", "ab"]).strs("tokenizer.ggml.merges", &many), "collide"),
        (
            MetaBuilder::new()
                .str("tokenizer.ggml.model", "llama")
                .strs("tokenizer.ggml.tokens", &["a"])
                .f32s("tokenizer.ggml.scores", &[]),
            "0 entries for 1 tokens",
        ),
        (
            base().str("x", "").strs("tokenizer.ggml.tokens", &["a"]).u32("tokenizer.ggml.merges", 1),
            "should be an array",
        ),
        (
            MetaBuilder::new()
                .str("tokenizer.ggml.model", "gpt2")
                .str("tokenizer.ggml.pre", "new-one")
                .strs("tokenizer.ggml.tokens", &["a"]),
            "--tokenizer-pre",
        ),
    ];
    for (meta, expected) in cases {
        let error = Tokenizer::from_meta(&meta.build(), None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn special_tokens_and_ends() {
    let tokenizer = byte_level("llama-bpe");
    let (user, end) = (tokenizer.id_of("<|user|>").unwrap(), tokenizer.id_of("<|end|>").unwrap());
    // The name brings BOS; user-defined tokens are always parsed, control tokens where asked for.
    assert_eq!(tokenizer.encode("<|user|>a<|end|>", true, true), [3, user, 97, end]);
    let plain = tokenizer.encode("<|user|>a<|end|>", false, false);
    assert_eq!(plain[..2], [user, 97]);
    assert!(plain.len() > 5 && !plain.contains(&end));
    assert_eq!((tokenizer.eot(), tokenizer.eog()), (Some(end), &[end][..]));
    assert_eq!(tokenizer.decode(&[user, 97, end], false), "<|user|>a");
    assert_eq!(tokenizer.decode(&[user, 97, end], true), "<|user|>a<|end|>");
    assert!(!byte_level("qwen2").add_bos());

    let tokenizer = spm();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.eog()), (Some(1), Some(2), &[2][..]));
    let space_a = tokenizer.id_of("▁a").unwrap();
    // A space is put before the text and behind a special token.
    assert_eq!(tokenizer.encode("a</s>a", true, true), [1, space_a, 2, space_a]);
    assert_eq!(tokenizer.decode(&[1, space_a, space_a], false), "a a");
    assert_eq!(tokenizer.encode("", true, true), [1]);
}

#[test]
fn streams_whole_characters() {
    let tokenizer = byte_level("gpt-2");
    let mut decoder = Decoder::new(false);
    // The fixture's first 256 tokens are the bytes.
    let mut push = |bytes: &[u8]| bytes.iter().map(|b| decoder.push(&tokenizer, (*b).into())).collect::<Vec<_>>();
    assert_eq!(push("é😀".as_bytes()), ["", "é", "", "", "", "😀"]);
    // A character that breaks off is replaced when the next byte shows it; a lone continuation at once.
    assert_eq!(push(&[0xF0, 0x9F, b'a', 0x80, 0xFF]), ["", "", "\u{fffd}a", "\u{fffd}", "\u{fffd}"]);
    assert_eq!(push(&[0xE2, 0x82]), ["", ""]);
    assert_eq!(decoder.finish(), "\u{fffd}");
    assert_eq!(decoder.finish(), "");
}
