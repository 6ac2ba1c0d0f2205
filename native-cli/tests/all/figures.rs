//! The commands that measure and show: logits, tokens, metadata, speed, perplexity.

use std::path::Path;

use crate::common::{engine, ir, ir_with, npy, read_json, scratch, shared, tiny, write};

/// Scalar kernels with f32 activations and cache differ from PyTorch by the order of sums only.
const SCALAR_F32: f64 = 1e-4;
/// As users run it: half-precision cache and quantised activations.
const AS_RUN: f64 = 2e-2;

fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let distance: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    (distance / b.iter().map(|b| square(f64::from(*b))).sum::<f64>()).sqrt()
}

#[test]
fn logits_equal_the_reference() {
    let exact = ["--simd", "scalar", "--activations", "f32", "--kv-type", "f32", "--device", "cpu"];
    for family in ["llama3", "llama-tied", "llama2-spm", "qwen2", "qwen3"] {
        let folder = engine().join("tests/data/golden").join(family);
        let golden = read_json(&folder.join("golden.json"));
        let (file, prompt) = (folder.join("model-bf16.gguf"), golden["prompt"].as_str().unwrap());
        let ids: Vec<String> = golden["ids"].as_array().unwrap().iter().map(|id| id.to_string()).collect();
        let out = scratch().join(format!("{family}.npy"));
        let (rows, cols, want) = npy(&folder.join("logits.npy"));
        let run = |extra: &[&str], tolerance: f64| {
            let args = [&["logits", file.to_str().unwrap(), "-o", out.to_str().unwrap(), "-n", "4"], extra].concat();
            let ran = ir(&args).ok().json();
            assert_eq!(ran["ids"], golden["ids"], "{family}");
            let (r, c, got) = npy(&out);
            assert_eq!((r, c), (rows, cols), "{family}");
            let error = relative_error(&got, &want);
            assert!(error <= tolerance, "{family} {extra:?}: relative error {error:e}");
            ran
        };
        let by_text = run(&[&[prompt], &exact[..]].concat(), SCALAR_F32);
        let by_ids = run(&[&["--ids", &ids.join(",")], &exact[..]].concat(), SCALAR_F32);
        assert_eq!(by_text, by_ids);
        run(&[prompt], AS_RUN);
        let margins = golden["greedy_margin"].as_array().unwrap().iter().map(|m| m.as_f64().unwrap());
        let clear = margins.take(4).take_while(|m| *m > 0.01).count();
        let greedy = |of: &serde_json::Value| of["greedy"].as_array().unwrap()[..clear].to_vec();
        assert_eq!(greedy(&by_text), greedy(&golden), "{family}");
    }
}

#[test]
fn more_rows_than_a_step_gives_are_written_in_groups() {
    let out = scratch().join("long.npy");
    let text = "a fox and a drum ".repeat(40);
    let ran = ir(&["logits", "ir-tiny", &text, "-o", out.to_str().unwrap()]).ok().json();
    let (rows, cols, values) = npy(&out);
    let n = ran["ids"].as_array().unwrap().len();
    assert!(n > 200);
    assert_eq!((rows, cols, values.len()), (n, 1024, n * 1024));
    assert_eq!(ran["greedy"], serde_json::json!([]));
    assert!(values.iter().all(|x| x.is_finite()));
    let piped = ir_with(&["logits", "ir-tiny"], &text).ok().json();
    assert_eq!(piped["ids"], ran["ids"]);
}

#[test]
fn vocabulary_files_tokenize_as_the_reference_does() {
    for name in ["qwen2", "llama-spm", "bert-bge"] {
        let Some(file) = shared(&format!("tokenizers/ggml-vocab-{name}.gguf")) else { continue };
        let beside = |ending: &str| std::fs::read_to_string(format!("{}.{ending}", file.display())).unwrap();
        let (inputs, outputs) = (beside("inp"), beside("out"));
        let inputs: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
        let mut n_cases = 0;
        for (text, line) in inputs.iter().zip(outputs.lines()).filter(|(text, _)| !text.contains('\0')) {
            let want: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
            let args = ["tokenize", file.to_str().unwrap(), "--json", "--no-bos", "--no-special"];
            assert_eq!(ir_with(&args, text).ok().json()["ids"], serde_json::json!(want), "{name}: {text:?}");
            n_cases += 1;
        }
        assert!(n_cases > 30, "{name}: {n_cases} cases");
        let info = ir(&["info", file.to_str().unwrap(), "--json"]).ok().json();
        assert!(info["cannot_run"].as_str().unwrap().contains("vocabulary"), "{info}");
        assert!(ir(&["info", file.to_str().unwrap()]).ok().text().contains("tokenizer.ggml.model"));
        assert_eq!(ir(&["run", file.to_str().unwrap(), "hello"]).code, Some(1));
    }
}

#[test]
fn tokens_come_from_argument_file_and_pipe_alike() {
    let text = "Zwölf Äpfel<|im_end|>\n";
    let file = write("text.txt", text.as_bytes());
    let by_argument = ir(&["tokenize", "ir-tiny", text, "--json"]).ok().json();
    assert_eq!(ir(&["tokenize", "ir-tiny", "-f", &file, "--json"]).ok().json(), by_argument);
    assert_eq!(ir_with(&["tokenize", "ir-tiny", "--json"], text).ok().json(), by_argument);
    assert_eq!(ir_with(&["tokenize", "ir-tiny", "-f", "-", "--json"], text).ok().json(), by_argument);
    let ids = by_argument["ids"].as_array().unwrap();
    assert!(ids.contains(&2.into()), "the end of turn is one token");
    let table = ir(&["tokenize", "ir-tiny", text]).ok().text();
    assert_eq!(table.lines().count(), ids.len() + 1);
    assert!(table.contains("<|im_end|>") && table.contains("\\xc3"), "{table}");
    assert!(ir(&["tokenize", "ir-tiny", "x", "--no-bos"]).ok().text().contains(" token"));
    let by_ids = ir(&["logits", "--ids", "1, 2", "ir-tiny"]).ok().json();
    assert_eq!(by_ids["ids"], serde_json::json!([1, 2]), "the list takes no more than its own argument");
    assert_eq!(ir(&["tokenize", "ir-tiny", "", "--json"]).ok().json()["ids"], serde_json::json!([]));
}

#[test]
fn info_shows_figures_metadata_tensors_and_plan() {
    let folder = shared("golden/qwen3/hf").map(|folder| ir(&["info", folder.to_str().unwrap()]).ok().text());
    assert!(folder.is_none_or(|text| text.contains("Hugging Face folder") && !text.contains("GGUF")));
    let file = tiny();
    for model in ["ir-tiny", file.to_str().unwrap()] {
        let text = ir(&["info", model]).ok().text();
        for word in
            ["3.2M (3,214,080)", "1,024 tokens", "2,560 bytes per token", "Q4_0", "llama.block_count", "1,024 Str: ["]
        {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(text.contains("GGUF version 3"), "{text}");
        assert!(text.lines().all(|l| l.chars().count() < 160), "long values are cut: {text}");
        assert!(ir(&["info", model, "--tensors"]).ok().text().contains("blk.4.ffn_down.weight"));
        let plan = ir(&["info", model, "--plan"]).ok().text();
        assert!(plan.contains("attend") && plan.contains("linear"), "{plan}");
        let both = ir(&["info", model, "--plan", "--tensors"]).ok().text();
        assert!(both.starts_with(plan.trim_end()) && both.contains("blk.4.ffn_down.weight"), "{both}");
        let json = ir(&["info", model, "--json", "--tensors"]).ok().json();
        assert_eq!((&json["parameters"], &json["layers"]), (&3_214_080.into(), &5.into()));
        assert_eq!(json["tensors"].as_array().unwrap().len(), 47);
        assert_eq!(json["metadata"]["tokenizer.ggml.tokens"]["length"], 1024);
    }
}

#[test]
fn synthetic_models_are_measured_without_a_file() {
    let args = ["bench", "--synthetic", "tiny-q4_0", "-p", "8,16", "-n", "4", "-r", "2", "-t", "1,2", "-b", "8"];
    let table = ir(&args).ok().text();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2 + 2 * 3, "{table}");
    assert!(lines.iter().all(|l| l.starts_with('|') && l.ends_with('|')), "{table}");
    assert!(lines[2].contains("pp8") && lines[2].contains('±') && lines[4].contains("tg4"), "{table}");
    let json = ir(&[&args[..], &["--json"]].concat()).ok().json();
    assert_eq!(json.as_array().unwrap().len(), 6);
    assert!(json[0]["tokens_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(json[0]["seconds"].as_array().unwrap().len(), 2);
    let several =
        ["bench", "--synthetic", "tiny-q4_0", "-p", "0", "-n", "20", "-r", "2", "--parallel", "1,16", "--json"];
    let json = ir(&several).ok().json();
    assert_eq!((&json[0]["test"], &json[1]["test"]), (&"tg20".into(), &"tg20x16".into()));
    // Rates are of all tokens of all sequences: 20 x 16.
    let (seconds, rate) = (json[1]["seconds"].as_array().unwrap(), json[1]["tokens_per_second"].as_f64().unwrap());
    let mean = seconds.iter().map(|s| 320.0 / s.as_f64().unwrap()).sum::<f64>() / 2.0;
    assert!((rate / mean - 1.0).abs() < 1e-9, "{rate} {mean}");
    assert!(ir(&["bench", "ir-tiny", "--parallel", "65"]).stderr.contains("1..=64"));
    let by_default = ir(&["bench", "ir-tiny", "-r", "1"]).ok().text();
    assert!(by_default.contains("pp512") && by_default.contains("tg128"), "{by_default}");
}

#[test]
fn a_depth_is_in_front_of_what_is_measured() {
    let args = ["bench", "ir-tiny", "-p", "8", "-n", "4", "-d", "0,40", "-r", "1", "--json"];
    let json = ir(&args).ok().json();
    let names: Vec<&str> = json.as_array().unwrap().iter().map(|line| line["test"].as_str().unwrap()).collect();
    assert_eq!(names, ["pp8", "tg4", "pp8 @ d40", "tg4 @ d40"]);
    assert!(ir(&["bench", "ir-tiny", "-d", "1020", "-n", "0", "-p", "8"]).stderr.contains("pp8 @ d1020"));
}

#[test]
fn the_machine_itself_is_measured() {
    let json = ir(&["bench", "--machine", "-t", "1", "--json"]).ok().json();
    let rows = json.as_array().unwrap();
    assert!(!rows.is_empty());
    for row in rows {
        for key in ["read_bytes_per_second", "f32_operations_per_second", "byte_operations_per_second"] {
            assert!(row[key].as_f64().unwrap() > 0.0, "{row}");
        }
    }
    let table = ir(&["bench", "--machine", "-t", "1", "--simd", "scalar"]).ok().text();
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(ir(&["bench", "--machine", "--simd", "neon9"]).stderr.contains("neon9"));
    for unused in [["-p", "8"], ["--device", "gpu"], ["--kv-type", "f32"]] {
        assert!(ir(&[&["bench", "--machine"], &unused[..]].concat()).stderr.contains(unused[0]), "{unused:?}");
    }
}

/// A program that answers as llama-bench does, with 2 tokens per second; from its `n`th measurement on it fails, and always
/// with this flag.
#[cfg(unix)]
fn peer(name: &str, fails_at: usize, flag: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in --help) echo '--n-prompt --output --repack'; exit 0;; esac\necho \"$@\" >> \"$0.log\"\n\
         case \"$*\" in *'{flag}'*) kill -ILL $$;; esac\n\
         [ $(wc -l < \"$0.log\") -lt {fails_at} ] || {{ echo no memory >&2; exit 3; }}\necho '[{{\"avg_ts\": 2.0}}]'\n"
    );
    let path = write(name, script.as_bytes());
    let _ = std::fs::remove_file(format!("{path}.log"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[cfg(unix)]
#[test]
fn a_peer_is_run_in_turn_and_may_fail() {
    let file = engine().join("tests/data/golden/qwen2/model-bf16.gguf");
    let base = ["bench", file.to_str().unwrap(), "-p", "8", "-n", "4", "-r", "2", "-t", "1", "--json", "--against"];
    let run = |peer: &str| ir(&[&base[..], &[peer]].concat()).ok();
    let good = peer("peer-good.sh", 99, "--none");
    let json = run(&good).json();
    assert_eq!((&json[0]["test"], &json[1]["test"]), (&"pp8".into(), &"tg4".into()));
    for line in json.as_array().unwrap() {
        assert_eq!(line["peer"]["tokens_per_second"], 2.0);
        let pairs = line["pairs"].as_array().unwrap();
        assert_eq!(pairs.len(), 2);
        let mean = pairs.iter().map(|p| p[0].as_f64().unwrap() / p[1].as_f64().unwrap()).sum::<f64>() / 2.0;
        assert!((line["ratio"].as_f64().unwrap() / mean - 1.0).abs() < 1e-9, "{line}");
    }
    let asked = std::fs::read_to_string(format!("{good}.log")).unwrap();
    // Both layouts are tried first, then the better one is measured as often as asked for.
    assert_eq!(asked.lines().count(), 2 * (2 + 2), "{asked}");
    assert!(asked.lines().next().unwrap().contains("-p 8 -n 0 -t 1 -b 512 -ub 512 -d 0"), "{asked}");

    let missing = run("/nowhere/llama-bench");
    assert!(missing.stderr.contains("cannot be run") && missing.json()[1]["tokens_per_second"].is_f64());
    let other = run("/bin/ls");
    assert!(other.stderr.contains("is no llama-bench") && other.json()[0]["ratio"].is_null(), "{}", other.stderr);
    let broken = run(&peer("peer-broken.sh", 4, "--none"));
    assert!(broken.stderr.contains("failed on pp8") && broken.stderr.contains("no memory"), "{}", broken.stderr);
    let json = broken.json();
    assert!(json[0]["ratio"].is_f64() && json[1]["ratio"].is_null() && json[1]["tokens_per_second"].is_f64());
    // A layout that crashes leaves the other.
    let half = run(&peer("peer-half.sh", 99, "--repack 1"));
    assert!(half.stderr.contains("with --repack 1") && !half.stderr.contains("only ir"), "{}", half.stderr);
    assert!(half.json()[1]["ratio"].is_f64());
}

#[test]
fn perplexity_tells_what_the_model_knows_from_what_it_does_not() {
    let golden = read_json(&engine().join("models/ir-tiny/golden.json"));
    let stories: Vec<&str> = golden["chats"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|c| c["reply"].as_str().filter(|r| r.len() > 200))
        .collect();
    let measure = |name: &str, text: &str| {
        let file = write(name, text.as_bytes());
        let ran = ir(&["perplexity", "ir-tiny", "-f", &file, "--ctx", "64", "--json"]).ok().json();
        assert!(ran["windows"].as_u64().unwrap() > 0 && ran["tokens"].as_u64().unwrap() >= 31);
        ran["perplexity"].as_f64().unwrap()
    };
    let known = measure("known.txt", &stories.join("\n"));
    let unknown = measure("unknown.txt", &"fn main() { println!(\"{}\", 42 ^ 7); }\n".repeat(20));
    assert!(known < 10.0 && unknown > 10.0 * known, "{known} {unknown}");
    let file = Path::new("known.txt");
    let text = ir(&["perplexity", "ir-tiny", "-f", file.to_str().unwrap(), "--ctx", "64"]).ok().text();
    assert!(text.starts_with("[1]") && text.contains("Final estimate: PPL = "), "{text}");
}

/// A golden file whose tokenizer is named `test`, as in llama.cpp's own test files.
fn without_a_tokenizer() -> String {
    let mut bytes = std::fs::read(engine().join("tests/data/golden/qwen2/model-bf16.gguf")).unwrap();
    let key = b"tokenizer.ggml.model";
    // The key, the value's type in 4 bytes and its length in 8.
    let at = bytes.windows(key.len()).position(|w| w == key).unwrap() + key.len() + 12;
    assert_eq!(&bytes[at..at + 4], b"gpt2");
    bytes[at..at + 4].copy_from_slice(b"test");
    write("no-tokenizer.gguf", &bytes)
}

#[test]
fn a_model_without_a_tokenizer_runs_on_ids() {
    let file = without_a_tokenizer();
    let with = engine().join("tests/data/golden/qwen2/model-bf16.gguf");
    let logits = |file: &str| ir(&["logits", file, "--ids", "1,2,3", "-n", "4"]).ok().json();
    assert_eq!(logits(&file), logits(with.to_str().unwrap()));
    let checked = ir(&["check", &file, "--ids", "1,2,3,4,5"]).ok();
    assert!(checked.text().contains("agrees with"), "{}", checked.text());
    ir(&["bench", &file, "-p", "4", "-n", "2", "-r", "1"]).ok();
    let info = ir(&["info", &file, "--json"]).ok().json();
    assert!(info["no_text"].as_str().unwrap().contains("\"test\""), "{info}");
    for args in
        [&["run", &file, "hello"][..], &["logits", &file, "hello"], &["check", &file], &["embed", &file, "hello"]]
    {
        let ran = ir(args);
        assert_eq!(ran.code, Some(1), "{args:?}: {}", ran.stderr);
        let lines: Vec<&str> = ran.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "{args:?}: {}", ran.stderr);
        assert!(
            lines[0].contains("takes token ids and no text") && lines[0].contains("ir logits --ids"),
            "{}",
            lines[0]
        );
    }
}

#[test]
fn the_context_of_logits_is_what_is_asked_for() {
    let run = |args: &[&str]| ir(&[&["logits", "ir-tiny", "--ids", "1,2,3"], args].concat());
    let plain = run(&["-n", "3"]).ok().json();
    assert_eq!(run(&["-n", "3", "--ctx", "6"]).ok().json(), plain);
    assert_eq!(run(&["-n", "3", "--ctx", "1000"]).ok().json(), plain);
    for (args, code, says) in [
        (&["--ctx", "0"][..], 2, "from 1 to"),
        (&["--ctx", "-1"], 2, "--ctx"),
        (&["--ctx", "2"], 1, "ask for more"),
        (&["-n", "3", "--ctx", "5"], 1, "exceed --ctx 5"),
        (&["--ctx", "1025"], 2, "the model's context of 1024"),
        (&["--ctx", "99999999999999999999999"], 2, "from 1 to"),
    ] {
        let ran = run(args);
        assert_eq!(ran.code, Some(code), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(says), "{args:?}: {}", ran.stderr);
    }
}

/// Removes what earlier runs left under names that start so.
fn remove(start: &str) {
    let entries = std::fs::read_dir(scratch()).unwrap().map(|entry| entry.unwrap().path());
    let old = entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(start));
    old.for_each(|path| std::fs::remove_file(path).unwrap());
}

#[test]
fn a_file_is_quantised_shown_and_run() {
    let to = "tiny-rounded.gguf";
    remove("tiny-rounded");
    let planned = ir(&["quantize", "ir-tiny", to, "Q4_0", "--dry-run", "--tensor-type", "ffn_down=Q8_0"]).ok().text();
    assert!(
        planned.contains("blk.0.ffn_down.weight") && planned.contains("-> Q8_0") && planned.contains("would be"),
        "{planned}"
    );
    assert!(!scratch().join(to).exists());
    let said = ir(&["quantize", "ir-tiny", to, "Q8_0"]).ok().text();
    assert!(said.contains("of weights are"), "{said}");
    let info = ir(&["info", to, "--json"]).ok().json();
    assert!(info.to_string().contains("Q8_0"), "{info}");
    assert!(!ir(&["run", to, "Who are you?", "--temp", "0", "-n", "8"]).ok().text().trim().is_empty());
}

#[test]
fn a_file_is_cut_joined_and_runs_in_parts() {
    let file = tiny();
    let whole = file.to_str().unwrap();
    ["tiny-cut", "tiny-joined"].iter().for_each(|start| remove(start));
    let said = ir(&["split", whole, "cut/tiny", "--max-tensors", "40"]);
    assert_eq!(said.code, Some(1), "a folder that is not there: {}", said.stderr);
    let parts = ir(&["split", whole, "tiny-cut", "--max-size", "1M"]).ok().text();
    let parts: Vec<&str> = parts.lines().collect();
    assert!(parts.len() > 1 && parts[0].starts_with("tiny-cut-00001-of-"), "{parts:?}");
    assert!(!ir(&["run", parts[1], "Who are you?", "--temp", "0", "-n", "8"]).ok().text().trim().is_empty());
    let again = ir(&["split", whole, "tiny-cut", "--max-size", "1M"]);
    assert!(again.code == Some(1) && again.stderr.contains("is there already"), "{}", again.stderr);
    ir(&["merge", parts[1], "tiny-joined.gguf"]).ok();
    assert!(std::fs::read(scratch().join("tiny-joined.gguf")).unwrap() == std::fs::read(whole).unwrap());
    for (args, code, says) in [
        (&["merge", parts[0], "tiny-joined.gguf"][..], 1, "is there already"),
        (&["merge", "tiny-joined.gguf", "other.gguf"], 1, "one file"),
        (&["split", "tiny-joined.gguf", "other"], 1, "fit into one part"),
        (&["split", "tiny-joined.gguf", "other", "--max-size", "12"], 2, "500M"),
        (&["split", "tiny-joined.gguf", "other", "--max-tensors", "0"], 2, "from 1"),
    ] {
        let ran = ir(args);
        assert_eq!(ran.code, Some(code), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(says), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn columns_that_matter_are_measured_and_used() {
    let story =
        "Once upon a time there was a fox who had a drum. He played it every day, and his friends came to listen. ";
    let text = write("matters.txt", story.repeat(40).as_bytes());
    let measure = ["imatrix", "ir-tiny", "-f", &text, "-o", "matters.gguf", "--ctx", "64", "--chunks", "4"];
    let said = ir(&measure).ok().text();
    assert!(said.contains("from 4 windows of 64 tokens"), "{said}");
    let rounded = ["quantize", "ir-tiny", "mattered.gguf", "Q4_0", "--imatrix", "matters.gguf"];
    assert!(ir(&rounded).ok().text().contains("of weights are"));
    let none = ir(&["imatrix", "ir-tiny", "-f", &text, "-o", "no/such.gguf", "--ctx", "64", "--chunks", "1"]);
    assert!(none.code == Some(1) && none.stderr.contains("such.gguf"), "{}", none.stderr);
}

#[test]
fn predictions_are_kept_and_compared() {
    let story =
        "Once upon a time there was a fox who had a drum. He played it every day, and his friends came to listen. ";
    let text = write("kept.txt", story.repeat(20).as_bytes());
    ir(&["quantize", "ir-tiny", "kept-rounded.gguf", "Q4_0", "--tensor-type", "ffn_down=TQ2_0", "--pure"]).ok();
    let kept = [
        "perplexity",
        "ir-tiny",
        "-f",
        &text,
        "--ctx",
        "64",
        "--chunks",
        "3",
        "--save-all-logits",
        "kept.bin",
        "--json",
    ];
    let plain = ir(&kept).ok().json();
    let compare = |model: &str| ir(&["perplexity", model, "--kl-base", "kept.bin", "--json"]).ok().json();
    let number = |json: &serde_json::Value, key: &str| json[key].as_f64().unwrap();
    let (same, other) = (compare("ir-tiny"), compare("kept-rounded.gguf"));
    assert!((number(&same, "perplexity") / number(&plain, "perplexity") - 1.0).abs() < 1e-6, "{same}");
    // What is kept ends at a probability of e^-16.
    assert!(number(&same, "base_perplexity") < 1.001 * number(&plain, "perplexity"), "{same}");
    assert!(number(&same, "kld").abs() < 1e-4 && number(&same, "same_top") > 0.98, "{same}");
    assert!(number(&other, "kld") > number(&same, "kld").abs(), "{other}");
    assert!(ir(&["perplexity", "ir-tiny", "--kl-base", "kept.bin"]).ok().text().contains("KL divergence"));
    for (args, code, says) in [
        (&["perplexity", "ir-tiny", "--kl-base", &text][..], 1, "keeps no predictions"),
        (&["perplexity", "ir-tiny", "--kl-base", "kept.bin", "--ctx", "64"], 2, "--ctx"),
        (&["perplexity", "ir-tiny"], 2, "--file"),
    ] {
        let ran = ir(args);
        assert_eq!(ran.code, Some(code), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(says), "{args:?}: {}", ran.stderr);
    }
}
