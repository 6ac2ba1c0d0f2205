//! Answers of `ir run` held to grammars, with the built-in model.

use crate::common::{ir, reworked, scratch, tiny};

const ASK: [&str; 5] = ["run", "ir-tiny", "Tell me a story about a fox and a drum", "--temp", "0"];

fn answer(more: &[&str]) -> String {
    ir(&[&ASK[..], more].concat()).ok().text().trim_end().to_owned()
}

#[test]
fn answers_are_held_to_what_is_asked_for() {
    let schema = r#"{"type": "object", "properties": {"hero": {"enum": ["fox", "drum"]}, "n": {"type": "integer", "maximum": 9, "minimum": 0}}, "required": ["hero", "n"]}"#;
    let file = scratch().join("schema.json");
    std::fs::write(&file, schema).unwrap();
    for given in [schema, file.to_str().unwrap()] {
        let value: serde_json::Value = serde_json::from_str(&answer(&["-j", given])).unwrap();
        assert!(["fox", "drum"].contains(&value["hero"].as_str().unwrap()) && value["n"].as_u64().unwrap() < 10);
    }
    assert!(["yes", "no"].contains(&answer(&["--grammar", "root ::= \"yes\" | \"no\""]).as_str()));
    let digits = answer(&["--regex", "[0-9]{3}-[0-9]{2}"]);
    assert!(digits.len() == 6 && digits.as_bytes()[3] == b'-', "{digits}");
    let (gbnf, lark) = (scratch().join("a.gbnf"), scratch().join("a.lark"));
    std::fs::write(&gbnf, "root ::= [a-c]{4}").unwrap();
    std::fs::write(&lark, "start: /[x-z]{4}/").unwrap();
    let from = |file: &std::path::Path| answer(&["--grammar-file", file.to_str().unwrap()]);
    assert!(from(&gbnf).len() == 4 && from(&gbnf).bytes().all(|b| (b'a'..=b'c').contains(&b)));
    assert!(from(&lark).len() == 4 && from(&lark).bytes().all(|b| (b'x'..=b'z').contains(&b)));
}

#[test]
fn a_grammar_holds_behind_reasoning_that_the_model_chooses_to_open() {
    let file = ir_engine::file::ModelFile::open(&tiny()).unwrap();
    let plain = file.meta().str("tokenizer.chat_template").unwrap();
    let asks = "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}";
    let none = "{%- if enable_thinking is false -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}";
    assert!(plain.contains(asks));
    let template = plain.replace(asks, &format!("{asks}{none}"));
    // The first word of its answer opens the reasoning, and that of the second sentence closes it.
    let model = reworked("opens.gguf", &template, &[("Type", "<think>"), ("\u{120}It", "</think>")]);
    let ask = |more: &[&str]| {
        let text = ir(&[&["run", &model, "How do I start the server?", "--temp", "0"], more].concat()).ok().text();
        text.trim_end().to_owned()
    };
    let free = ask(&[]);
    let (thought, said) = free.strip_prefix("Thinking...\n").unwrap().split_once("\n...done thinking.\n\n").unwrap();
    assert_eq!(thought, "`ir serve`.");
    assert!(said.starts_with("listens on"), "{said}");
    let regex = ["--regex", "[0-9]{3}-[0-9]{2}"];
    let digits = |text: &str| text.len() == 6 && text.as_bytes()[3] == b'-';
    let held = ask(&regex);
    let (before, after) = held.split_once("\n...done thinking.\n\n").unwrap_or_else(|| panic!("{held}"));
    assert!(before.ends_with(thought) && digits(after), "{held}");
    let off = ask(&[&regex[..], &["--think", "off"]].concat());
    assert!(digits(&off), "{off}");
}

#[test]
fn what_is_malformed_is_said() {
    let fails = |more: &[&str], expected: &str| {
        let ran = ir(&[&ASK[..], more].concat());
        assert!(ran.code == Some(2) && ran.stderr.contains(expected), "{more:?}: {}", ran.stderr);
    };
    fails(&["--grammar", "root ::= (\"a\""], "line 1: a parenthesis is not closed");
    fails(&["--regex", "a(b"], "unclosed group");
    fails(&["-j", "{\"type\": \"nothing\"}"], "nothing");
    fails(&["-j", "{"], "no JSON");
    fails(&["--grammar-file", "no-such-file.gbnf"], "no-such-file.gbnf");
    fails(&["--regex", "a", "-j", "{}"], "cannot be used with");
}
