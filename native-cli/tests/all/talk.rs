//! `ir run` as people use it: golden chats, pipes, Ctrl-C, models by name.

use std::io::{BufRead, BufReader, Read, Write};

use crate::common::{command, engine, finish, ir, ir_with, read_json, reworked, scratch, shared, tiny};

/// Gaps between the best and the second token below this may flip when weights are quantised (`golden.json`, "note").
const NEAR_TIE: f64 = 0.3;

#[test]
fn golden_chats_of_the_built_in_model() {
    let golden = read_json(&engine().join("models/ir-tiny/golden.json"));
    let chats = golden["chats"].as_array().unwrap();
    let (mut n_equal, mut n_asked) = (0, 0);
    for chat in chats.iter().filter(|c| c["min_margin"].as_f64().unwrap() >= NEAR_TIE) {
        // The command asks one question; whole chats with tools go through the library.
        let messages = chat["messages"].as_array().unwrap();
        let roles: Vec<&str> = messages.iter().map(|m| m["role"].as_str().unwrap()).collect();
        let content = |i: usize| messages[i]["content"].as_str().unwrap();
        let prompt = chat["prompt"].as_str().unwrap();
        let ran = match roles[..] {
            _ if prompt.contains("<tools>") => continue,
            ["user"] => ir(&["run", "ir-tiny", content(0), "--temp", "0"]),
            ["system", "user"] => ir(&["run", "ir-tiny", content(1), "--system", content(0), "--temp", "0"]),
            _ => ir(&["run", "ir-tiny", prompt, "--raw", "--temp", "0"]),
        };
        let reply = chat["reply"].as_str().unwrap();
        assert_eq!(ran.ok().text().trim_end(), reply.trim_end(), "{prompt}");
        n_asked += usize::from(roles == ["user"]);
        n_equal += 1;
    }
    eprintln!("{n_equal} of {} golden chats are clear of near-ties, and equal", chats.len());
    assert!(n_equal >= 15 && n_asked >= 10, "{n_equal} {n_asked}");
}

#[test]
fn greedy_text_of_real_models_equals_the_reference() {
    let Some(golden) = shared("models/golden.json") else { return };
    let golden = read_json(&golden);
    let files = [
        ("stories260K/stories260K.gguf", "stories260K/stories260K.gguf"),
        ("stories260K/stories260K-conv-F16.gguf", "stories260K/stories260K-conv-F16.gguf"),
        ("babyllama-tok361/babyllama-tok361-F32.gguf", "babyllama-1M/babyllama-tok361-F32.gguf"),
        ("babyllama-tok361/babyllama-tok361-F16.gguf", "babyllama-1M/babyllama-tok361-F16.gguf"),
        ("babyllama-tok361/babyllama-tok361-BF16.gguf", "babyllama-1M/babyllama-tok361-BF16.gguf"),
    ];
    for (key, file) in files {
        let Some(path) = shared(&format!("models/{file}")) else { continue };
        let path = path.to_str().unwrap();
        let cases = golden[key].as_array().unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let (prompt, ids) = (case["prompt"].as_str().unwrap(), case["greedy_ids"].as_array().unwrap());
            let n = ids.len().to_string();
            let ran = ir(&["run", path, prompt, "--raw", "--temp", "0", "-n", &n]).ok();
            let text = case["greedy_text"].as_str().unwrap();
            assert_eq!(ran.text().trim_end(), text.trim_end(), "{file}");
            let ran = ir(&["logits", path, prompt, "-n", &n]).ok().json();
            assert_eq!((&ran["ids"], &ran["greedy"]), (&case["prompt_ids"], &case["greedy_ids"]), "{file}");
        }
    }
}

#[test]
fn the_prompt_is_the_argument_and_what_is_piped_in() {
    let answer = |args: &[&str], stdin: &str| ir_with(args, stdin).ok().text();
    let joined = answer(&["run", "ir-tiny", "--temp", "0", "Spell the word", "--raw"], "fox\n");
    assert_eq!(joined, answer(&["run", "ir-tiny", "--temp", "0", "--raw", "Spell the word\n\nfox"], ""));
    assert_ne!(joined, answer(&["run", "ir-tiny", "--temp", "0", "--raw", "Spell the word"], ""));
    let hello = answer(&["run", "ir-tiny", "--temp", "0", "Hello!"], "");
    assert_eq!(hello, "Hello! How can I help you?\n");
    assert_eq!(answer(&["run", "--temp", "0"], "Hello!\n"), hello, "the default model, asked by a pipe");
}

#[test]
fn a_seed_gives_the_same_answer_and_no_seed_another() {
    let story =
        |extra: &[&str]| ir(&[&["run", "ir-tiny", "Tell me a story.", "--temp", "1.5"], extra].concat()).ok().text();
    assert_eq!(story(&["--seed", "7"]), story(&["--seed", "7"]));
    assert_ne!(story(&["--seed", "7"]), story(&["--seed", "8"]));
    let unseeded: std::collections::HashSet<String> = (0..4).map(|_| story(&[])).collect();
    assert!(unseeded.len() > 1, "four stories were one");
}

#[test]
fn counts_are_printed_where_they_are_asked_for() {
    let ran = ir(&["run", "ir-tiny", "Hello!", "--verbose", "--temp", "0"]).ok();
    assert_eq!(ran.text(), "Hello! How can I help you?\n");
    for word in [
        "model:     ir-tiny",
        "device:    cpu",
        "load:",
        "prompt:    26 tokens",
        "generated: 11 tokens",
        "ended by stop",
        "memory:",
    ] {
        assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
    }
    assert!(!ir(&["run", "ir-tiny", "Hello!"]).ok().stderr.contains("load:"));
}

#[test]
fn answers_end_where_they_are_told_to() {
    let words = |args: &[&str]| ir(&[&["run", "ir-tiny", "Tell me a story.", "--temp", "0"], args].concat()).ok();
    let whole = words(&[]).text();
    let cut = words(&["-n", "5"]);
    assert!(whole.starts_with(cut.text().trim_end()) && cut.text().len() < whole.len());
    assert!(!cut.stderr.contains("context"), "{}", cut.stderr);
    let full = words(&["--ctx", "48"]);
    assert!(whole.starts_with(full.text().trim_end()) && full.text().len() < whole.len());
    assert!(full.stderr.contains("context of 48 tokens is full"), "{}", full.stderr);
    let long = ir(&["run", "ir-tiny", &"long ".repeat(3000)]);
    assert_eq!(long.code, Some(1));
    assert!(long.stderr.contains("context"), "{}", long.stderr);
    for kv in ["f16", "f32"] {
        assert_eq!(
            words(&["--kv-type", kv, "--threads", "1", "--no-mmap", "-n", "8"]).text(),
            words(&["-n", "8"]).text()
        );
    }
}

#[test]
fn the_built_in_model_says_once_that_it_is_tiny() {
    let home = scratch().join(format!("home-{}", std::process::id()));
    std::fs::create_dir_all(&home).unwrap();
    let ask = |args: &[&str]| {
        let mut command = command(args);
        command.env("HOME", &home).env("USERPROFILE", &home);
        finish(command.stdin(std::process::Stdio::null()).spawn().unwrap()).ok().stderr
    };
    let first = ask(&["run", "ir-tiny", "Hello!"]);
    assert!(first.contains("toy") && first.contains("ir run FILE.gguf"), "{first}");
    assert_eq!(ask(&["run", "ir-tiny", "Hello!"]), "");
    std::fs::remove_dir_all(home).unwrap();
}

#[test]
fn models_of_the_folder_are_known_by_name() {
    let folder = scratch().join("models");
    std::fs::create_dir_all(folder.join("team")).unwrap();
    std::fs::copy(tiny(), folder.join("team/little.gguf")).unwrap();
    std::fs::write(folder.join("broken.gguf"), "GGUF").unwrap();
    let folder = folder.to_str().unwrap();
    let list = ir(&["list", "--models", folder]).ok().text();
    assert!(list.contains("ir-tiny ") && list.contains("team/little ") && list.contains("broken "), "{list}");
    let list = ir(&["list", "--models", folder, "--json"]).ok().json();
    let names: Vec<_> = list.as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ir-tiny", "broken", "team/little"]);
    assert_eq!(list[2]["parameters"], list[0]["parameters"]);
    let ran = ir(&["run", "team/little", "Hello!", "--temp", "0", "--models", folder]).ok();
    assert_eq!(ran.text(), "Hello! How can I help you?\n");
    let mut by_environment = command(&["info", "team/little", "--json"]);
    by_environment.env("IR_MODELS", folder);
    assert_eq!(finish(by_environment.spawn().unwrap()).ok().json()["architecture"], "llama");
}

#[test]
fn a_broken_pipe_is_quiet() {
    let mut child = command(&["run", "ir-tiny", "Tell me a story.", "--temp", "0"]).spawn().unwrap();
    drop(child.stdin.take());
    let mut stdout = child.stdout.take().unwrap();
    let mut start = [0; 4];
    stdout.read_exact(&mut start).unwrap();
    drop(stdout);
    let ran = finish(child);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(!ran.stderr.contains("pipe") && !ran.stderr.contains("ir:"), "{}", ran.stderr);
}

#[test]
fn the_answer_streams() {
    let mut child = command(&["run", "ir-tiny", "Once", "--raw", "--temp", "0", "--simd", "scalar"]).spawn().unwrap();
    drop(child.stdin.take());
    let mut stdout = child.stdout.take().unwrap();
    let mut pieces = 0;
    let mut buffer = [0; 4096];
    while stdout.read(&mut buffer).unwrap() > 0 {
        pieces += 1;
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(pieces > 1, "all at once");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_one_question_with_130() {
    // Scalar kernels and a long context, so that it is still at work when the signal comes.
    let args = ["run", "ir-tiny", "Tell me a story.", "--raw", "--temp", "2", "--ctx", "100000", "--simd", "scalar"];
    let mut child = command(&[&args[..], &["--top-k", "0", "--top-p", "1", "--min-p", "0"]].concat()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"").unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.fill_buf().unwrap();
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    drop(stdout);
    let ran = finish(child);
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    assert!(!ran.stderr.contains("ir:"), "{}", ran.stderr);
}

/// The built-in model with a template that opens the reasoning, unless it is told not to.
fn reasoning_model() -> String {
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
        <|im_start|>assistant\n{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n\
        {% else %}<think>\n{% endif %}";
    crate::common::reworked("reasoning.gguf", template, &[])
}

#[test]
fn reasoning_is_shown_hidden_or_switched_off() {
    let model = reasoning_model();
    let ask = |how: &[&str]| ir(&[&["run", &model, "Hello!", "--temp", "0", "-n", "24"], how].concat()).ok().text();
    let shown = ask(&[]);
    assert!(shown.starts_with("Thinking...\n") && shown.len() > 14, "{shown:?}");
    assert_eq!(ask(&["--think", "on"]), shown);
    assert_eq!(ask(&["--think", "hide"]), "", "the toy never closes the tag, so all of it is reasoning");
    let off = ask(&["--think", "off"]);
    assert!(!off.contains("Thinking") && off.trim().len() > 1, "{off:?}");
    let plain = ir(&["run", "ir-tiny", "Hello!", "--think", "off", "--temp", "0"]).ok();
    assert!(plain.stderr.contains("no switch"), "{}", plain.stderr);
    let hidden = ir(&["run", "ir-tiny", "Hello!", "--think", "hide", "--temp", "0"]).ok();
    assert!(hidden.stderr.contains("nothing to hide"), "{}", hidden.stderr);
    let raw = ir(&["run", "ir-tiny", "Hello!", "--think", "on", "--raw", "-n", "1"]).ok();
    assert!(raw.stderr.contains("without a template"), "{}", raw.stderr);
}

#[test]
fn a_template_that_does_not_parse_leaves_plain_text() {
    let file = reworked("broken-template.gguf", "{% if %}", &[]);
    let ran = ir(&["run", &file, "Once", "-n", "4"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("does not parse") && ran.stderr.contains("--raw"), "{}", ran.stderr);
    let raw = ["run", &file, "--raw", "Once", "-n", "4", "--temp", "0"];
    let with = ["run", "ir-tiny", "--raw", "Once", "-n", "4", "--temp", "0"];
    assert_eq!(ir(&raw).ok().text(), ir(&with).ok().text());
    let info = ir(&["info", &file]).ok().text();
    assert!(info.contains("template of the file, which does not parse"), "{info}");
}
