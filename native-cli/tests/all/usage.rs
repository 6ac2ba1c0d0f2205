//! What a user meets who types something wrong, or nothing: exit codes, one sentence on stderr, help.

use crate::common::{ir, ir_with, scratch, shared, tiny, write};

/// Runs it, expects this exit code and one line on stderr that holds these words.
fn fails(args: &[&str], code: i32, words: &[&str]) {
    let ran = ir(args);
    assert_eq!(ran.code, Some(code), "{args:?}: {}", ran.stderr);
    assert_eq!(ran.stdout, b"", "{args:?}");
    let complaint: Vec<&str> = ran.stderr.lines().filter(|l| l.starts_with("ir: ")).collect();
    assert_eq!(complaint.len(), 1, "{args:?}: {}", ran.stderr);
    for word in words {
        assert!(complaint[0].contains(word), "{args:?}: {:?} lacks {word:?}", complaint[0]);
    }
    assert!(!ran.stderr.contains("panicked") && !ran.stderr.contains("backtrace"), "{}", ran.stderr);
}

#[test]
fn unknown_models_exit_2_and_say_how_to_ask_the_built_in_one() {
    let how = "ir run ir-tiny \"...\"";
    fails(&["run", "missing.gguf", "hello"], 2, &["missing.gguf", how]);
    fails(&["run", "nope"], 2, &["nope", how]);
    fails(&["run", "Tell me a story"], 2, &["Tell me a story", how]);
    for command in ["info", "tokenize", "logits", "bench"] {
        fails(&[command, "nope"], 2, &["nope", "ir list"]);
    }
    fails(&["perplexity", "nope", "-f", "x"], 2, &["nope"]);
}

#[test]
fn files_that_are_no_models_exit_1_and_say_what_they_are() {
    let whole = std::fs::read(tiny()).unwrap();
    let cut = write("cut.gguf", &whole[..whole.len() / 2]);
    let headless = write("headless.gguf", &whole[..1000]);
    let text = write("notes.txt", b"Dear diary, today I downloaded a model.\n");
    let empty = write("empty.gguf", b"");
    let folder = scratch().join("folder");
    std::fs::create_dir_all(&folder).unwrap();
    fails(&["run", &cut, "hello"], 1, &["cut.gguf", "download"]);
    fails(&["run", &headless, "hello"], 1, &["headless.gguf"]);
    fails(&["run", &text, "hello"], 1, &["notes.txt", "text file"]);
    fails(&["run", &empty, "hello"], 1, &["empty.gguf"]);
    fails(&["run", folder.to_str().unwrap(), "hello"], 1, &["a folder without config.json"]);
    for command in ["info", "tokenize", "logits"] {
        fails(&[command, &text], 1, &["text file"]);
    }
    if let Some(old) = shared("models/stories260K/version1-rejected.gguf") {
        fails(&["run", old.to_str().unwrap(), "hello"], 1, &["version 1"]);
    }
}

#[test]
fn values_out_of_range_exit_2() {
    fails(&["run", "ir-tiny", "hello", "--temp", "-1"], 2, &["temperature"]);
    fails(&["run", "ir-tiny", "hello", "--top-p", "7"], 2, &["top_p"]);
    fails(&["run", "ir-tiny", "hello", "--simd", "sse9"], 2, &["sse9", "scalar"]);
    fails(&["run", "ir-tiny"], 2, &["prompt is empty"]);
    fails(&["logits", "ir-tiny", "--ids", "1,99999"], 2, &["99999"]);
    fails(&["bench", "--synthetic", "1b"], 2, &["SHAPE-TYPE", "q4_0"]);
    fails(&["bench", "ir-tiny", "-p", "4096"], 2, &["context"]);
    fails(&["tokenize", "ir-tiny", "x", "--tokenizer-pre", "nope"], 1, &["nope"]);
    let copy = write("copy.gguf", &std::fs::read(tiny()).unwrap());
    fails(&["run", &copy, "x", "--tokenizer-pre", "nope"], 1, &["copy.gguf: ", "nope"]);
    fails(&["run", "ir-tiny", "x", "--gpu-forms", "base", "--device", "cpu"], 2, &["--gpu-forms", "--device gpu"]);
    fails(&["run", "ir-tiny", "x", "--gpu-forms", "base+fast", "--device", "gpu"], 2, &["\"fast\" is no", "coherent"]);
    fails(&["run", "ir-tiny", "x", "--gpu-forms", "base+owned", "--device", "gpu"], 2, &["needs subgroups"]);
    fails(&["run", "ir-tiny", "x", "--gpu-forms", "base+heads", "--device", "gpu"], 2, &["needs coherent"]);
    for flags in [["--gpu-layers", "3"], ["--gpu-memory", "1"], ["--experts", "cpu"], ["--split", "1"]] {
        fails(&["run", "ir-tiny", "x", "--device", "cpu", flags[0], flags[1]], 2, &[flags[0], "--device cpu"]);
    }
    fails(&["run", "ir-tiny", "x", "--device", "gpu:0", "--split", "3,1"], 2, &["2 shares", "names 1 GPUs"]);
    for (flag, value, word) in [
        ("--split", "0,1", "above zero"),
        ("--split", "-1,2", "above zero"),
        ("--device", "gpu:0,cpu", "gpu:0,gpu:1"),
        ("--gpu-layers", "some", "auto, all, or a number"),
        ("--gpu-memory", "0", "above zero"),
        ("--experts", "disk", "cpu, gpu, or a number"),
    ] {
        let ran = ir(&["run", "ir-tiny", "x", &format!("{flag}={value}")]);
        assert!(ran.code == Some(2) && ran.stderr.contains(word), "{flag} {value}: {}", ran.stderr);
    }
    fails(&["run", "ir-tiny", "x", "--device", "gpu:99"], 1, &["99"]);
    fails(&["list", "--models", "nowhere"], 2, &["nowhere", "does not exist"]);
    fails(&["list", "--models", &copy], 2, &["copy.gguf", "no folder"]);
}

#[test]
fn numbers_that_cannot_be_used_are_explained() {
    let cases: [(&[&str], &str); 7] = [
        (&["run", "ir-tiny", "x", "--ctx", "1"], "--ctx must be at least 2"),
        (&["run", "ir-tiny", "x", "-n", "-2"], "a whole number from -1"),
        (&["run", "ir-tiny", "x", "--seed", "99999999999999999999"], "a whole number from -1"),
        (&["perplexity", "ir-tiny", "-f", "x", "--chunks", "0"], "a whole number from 1"),
        (&["logits", "ir-tiny", "-n", "99999999999999999999", "x"], "a whole number from 0"),
        (&["logits", "ir-tiny", "--ids", "1,x"], "joined by commas"),
        (&["info", "ir-tiny", "--tokenizer-pre", "gpt-2"], "unexpected argument"),
    ];
    for (args, what) in cases {
        let ran = ir(args);
        assert_eq!(ran.code, Some(2), "{args:?}");
        assert!(ran.stderr.contains(what), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn minus_one_is_none_as_users_of_llama_cpp_write_it() {
    let ask = |extra: &[&str]| ir(&[&["run", "ir-tiny", "Hello!", "--temp", "0"], extra].concat()).ok().text();
    assert_eq!(ask(&["-n", "-1", "--seed", "-1", "--top-k", "-1"]), ask(&[]));
}

#[test]
fn wrong_flags_exit_2() {
    for args in [&["run", "--frobnicate"][..], &["frobnicate"], &["run", "a", "b", "c"], &["run", "--device", "abacus"]]
    {
        let ran = ir(args);
        assert_eq!(ran.code, Some(2), "{args:?}");
        assert!(ran.stderr.contains("error:"), "{}", ran.stderr);
    }
}

#[test]
fn help_reads_like_a_manual() {
    let help = ir(&["--help"]).ok().text();
    for word in ["Examples:", "Exit codes:", "IR_MODELS", "ir run ir-tiny", "perplexity", "completions"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    for command in ["run", "list", "info", "tokenize", "logits", "bench", "perplexity", "completions"] {
        let help = ir(&[command, "--help"]).ok().text();
        assert!(help.contains("Usage: ir ") && help.lines().count() > 8, "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 120), "{help}");
        assert_eq!(ir(&["help", command]).ok().text(), help);
    }
    let version = ir(&["--version"]).ok().text();
    assert_eq!(version, format!("ir {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(ir(&[]).code, Some(2));
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = ir(&["completions", shell]).ok().text();
        assert!(script.contains("perplexity") && script.contains("repeat-penalty"), "{shell}");
    }
}

#[test]
fn a_file_that_is_not_utf8_is_named() {
    let latin = write("latin.txt", b"caf\xe9");
    fails(&["tokenize", "ir-tiny", "-f", &latin], 1, &["latin.txt", "UTF-8"]);
    fails(&["perplexity", "ir-tiny", "-f", &latin], 1, &["UTF-8"]);
    let short = write("short.txt", b"A short text.");
    fails(&["perplexity", "ir-tiny", "-f", &short], 1, &["--ctx"]);
    fails(&["perplexity", "ir-tiny", "-f", "missing.txt"], 1, &["missing.txt"]);
    assert_eq!(ir_with(&["tokenize", "ir-tiny", "--json"], "Hello").ok().json()["ids"][0], 42);
}
