//! Hostile folders: a small model's config.json, safetensors and tokenizer.json are mutated and opened. Each must load or be
//! refused: no panic, no hang, no single allocation above four times the files plus 64 KiB. `IR_FUZZ_FOLDERS` sets the number.

use super::random::Random;
use super::watch;
use ir_engine::model::{Model, ModelOptions};

const FOLDERS: u64 = 1_500;

const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
 "num_key_value_heads": 2, "num_hidden_layers": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "vocab_size": 300,
 "tie_word_embeddings": true, "rope_theta": 10000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
 "high_freq_factor": 4.0, "original_max_position_embeddings": 16}, "sliding_window": 8, "layer_types": ["sliding_attention"]}"#;

/// The weights: zeros.
fn weights() -> Vec<u8> {
    let layer = "model.layers.0";
    let all = [
        ("model.embed_tokens.weight".to_owned(), vec![300, 32]),
        ("model.norm.weight".to_owned(), vec![32]),
        (format!("{layer}.input_layernorm.weight"), vec![32]),
        (format!("{layer}.post_attention_layernorm.weight"), vec![32]),
        (format!("{layer}.self_attn.q_proj.weight"), vec![32, 32]),
        (format!("{layer}.self_attn.k_proj.weight"), vec![16, 32]),
        (format!("{layer}.self_attn.v_proj.weight"), vec![16, 32]),
        (format!("{layer}.self_attn.o_proj.weight"), vec![32, 32]),
        (format!("{layer}.mlp.gate_proj.weight"), vec![64, 32]),
        (format!("{layer}.mlp.up_proj.weight"), vec![64, 32]),
        (format!("{layer}.mlp.down_proj.weight"), vec![32, 64]),
    ];
    let (mut at, mut parts) = (0, Vec::new());
    for (name, shape) in &all {
        let len = 2 * shape.iter().product::<usize>();
        parts.push(format!(r#""{name}":{{"dtype":"BF16","shape":{shape:?},"data_offsets":[{at},{}]}}"#, at + len));
        at += len;
    }
    let header = format!("{{{}}}", parts.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + at, 0);
    file
}

/// Bytes, a few words and what merges make of them.
fn tokenizer() -> String {
    let mut printable: Vec<char> = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ').collect();
    printable.extend((0..68).filter_map(|i| char::from_u32(256 + i)));
    let mut vocab: Vec<String> = printable.iter().map(char::to_string).collect();
    vocab.extend(["th", "the", "Ġthe", "<s>"].map(str::to_owned));
    let vocab: Vec<String> =
        vocab.iter().enumerate().map(|(i, t)| format!("{}:{i}", serde_json::to_string(t).unwrap())).collect();
    format!(
        r#"{{"added_tokens":[{{"id":{},"content":"<s>","special":true}}],"normalizer":null,"pre_tokenizer":{{"type":"ByteLevel",
        "add_prefix_space":false,"use_regex":true}},"post_processor":{{"type":"TemplateProcessing","single":[{{"SpecialToken":
        {{"id":"<s>","type_id":0}}}},{{"Sequence":{{"id":"A","type_id":0}}}}]}},"model":{{"type":"BPE","unk_token":null,
        "vocab":{{{}}},"merges":["t h",["th","e"],"Ġ the"]}}}}"#,
        vocab.len() - 1,
        vocab.join(",")
    )
}

/// Bytes changed, cut, doubled, or numbers and words of the format put in.
pub(crate) fn mutate(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    const WORDS: [&str; 22] = [
        "0",
        "-1",
        "1e999",
        "4294967295",
        "18446744073709551615",
        "9223372036854775807",
        "null",
        "true",
        "[]",
        "{}",
        "\"\"",
        "[[[[[[",
        "\"BF16\"",
        "\"F8_E4M3\"",
        "\"I32\"",
        "\\ud800",
        "NaN",
        "Infinity",
        "\u{0}",
        ",",
        "\"Unigram\"",
        "\"WordPiece\"",
    ];
    let mut out = bytes.to_vec();
    // The header and what is small are where it matters.
    let end = out.len().min(2200);
    for _ in 0..1 + random.below(3) {
        let at = random.below(end.min(out.len()).max(1));
        match random.below(6) {
            0 if !out.is_empty() => out[at.min(bytes.len() - 1)] ^= 1 << random.below(8),
            1 => out.truncate(at),
            2 => drop(out.drain(at..(at + 1 + random.below(24)).min(out.len()))),
            3 => {
                let piece = out[at..(at + 1 + random.below(200)).min(out.len())].to_vec();
                out.splice(at..at, piece);
            }
            _ => {
                let word = WORDS[random.below(WORDS.len())];
                // In place of a number, if there is one ahead.
                let from = out[at..].iter().position(u8::is_ascii_digit).map_or(at, |n| at + n);
                let to = from + out[from..].iter().position(|b| !b.is_ascii_digit()).unwrap_or(0);
                out.splice(from..to, word.bytes());
            }
        }
    }
    out
}

#[test]
fn mutated_folders_load_or_are_refused() {
    let n: u64 = std::env::var("IR_FUZZ_FOLDERS").map_or(FOLDERS, |text| text.parse().unwrap());
    let folder = std::env::temp_dir().join(format!("ir-fuzz-folder-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let whole = [
        ("config.json", CONFIG.as_bytes().to_vec()),
        ("model.safetensors", weights()),
        ("tokenizer.json", tokenizer().into_bytes()),
    ];
    let size: usize = whole.iter().map(|(_, bytes)| bytes.len()).sum();
    let options = ModelOptions { no_mmap: true, ..ModelOptions::default() };
    let open = || {
        watch::reset();
        let opened = Model::open(&folder, &options);
        (opened, watch::largest())
    };
    for (name, bytes) in &whole {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    let (opened, _) = open();
    let ids = opened.unwrap().tokenizer().encode("the the", true, true);
    assert_eq!(ids.len(), 3, "the folder opens before it is mutated: {ids:?}");
    let mut loaded = 0;
    for i in 0..n {
        let random = &mut Random::new(i);
        let (name, bytes) = &whole[random.below(3)];
        let mutated = mutate(bytes, random);
        std::fs::write(folder.join(name), &mutated).unwrap();
        let (opened, largest) = open();
        assert!(largest <= 4 * (size + mutated.len()) + (64 << 10), "folder {i}: an allocation of {largest} bytes");
        match opened {
            Ok(model) => {
                loaded += 1;
                std::hint::black_box(model.tokenizer().encode("the \u{1f600} <s>", true, true));
            }
            Err(error) => {
                let error = error.to_string();
                assert!(error.len() < 2000 && !error.contains(['\n', '\u{1b}']), "folder {i}: {error:?}");
            }
        }
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    std::fs::remove_dir_all(&folder).unwrap();
    eprintln!("{n} mutated folders: {loaded} loaded, {} were refused", n - loaded);
    assert!(n < 1000 || (n / 50..n).contains(&loaded), "the mutations are too tame or too wild: {loaded} of {n}");
}
