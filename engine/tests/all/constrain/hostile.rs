//! Grammars meant to hurt: a sentence, in bounded time, without a panic that reaches anybody.

use std::fmt::Write;
use std::time::{Duration, Instant};

use ir_engine::text::constrain::Grammar;
use serde_json::{Value as Json, json};

use super::walk::tiny;
use crate::common::exam::Random;

/// A compilation and some masks take at most this, on any machine: an idle one takes a hundredth.
const LONGEST: Duration = Duration::from_secs(60);

/// Compiles a grammar and goes on by some tokens; gives what was said against it, if anything.
fn survive(grammar: &Grammar) -> Option<String> {
    let start = Instant::now();
    let said = match tiny().constrainer.compile(grammar) {
        Err(error) => Some(error.to_string()),
        Ok(mut constraint) => {
            let mut random = Random(5);
            let mut said = None;
            for _ in 0..30 {
                let allowed = match constraint.allowed() {
                    Ok(allowed) => allowed.to_vec(),
                    Err(error) => {
                        said = Some(error.to_string());
                        break;
                    }
                };
                let from = random.below(allowed.len());
                let word = (from..allowed.len()).chain(0..from).find(|i| allowed[*i] != 0).unwrap();
                let token = (word * 32) as u32 + allowed[word].trailing_zeros();
                if tiny().tokenizer.is_eog(token) || constraint.is_done() {
                    break;
                }
                constraint.accept(token).unwrap();
            }
            said
        }
    };
    let shown: String = format!("{grammar:?}").chars().take(120).collect();
    let took = start.elapsed();
    assert!(took < LONGEST, "{took:?}: {shown}");
    if let Some(said) = &said {
        let sentence =
            !said.contains('\n') && !said.contains("backtrace") && !said.contains("verbose") && said.len() < 500;
        assert!(sentence && !said.is_empty(), "{shown}: {said}");
    }
    said
}

fn refused(grammar: &Grammar) {
    let shown: String = format!("{grammar:?}").chars().take(120).collect();
    assert!(survive(grammar).is_some(), "{shown} was taken");
}

/// `a0 a0`, `a1: a0 a0`, ...: a text of 2 to the 40th.
fn doubling(define: &str, prefix: &str, root: &str) -> String {
    let mut out = format!("{root}{define}{prefix}40\n{prefix}0{define}\"x\"\n");
    (1..=40).for_each(|i| _ = writeln!(out, "{prefix}{i}{define}{prefix}{} {prefix}{}", i - 1, i - 1));
    out
}

fn chain(define: &str, prefix: &str, root: &str, n: usize) -> String {
    let mut out = format!("{root}{define}{prefix}0\n{prefix}{n}{define}\"x\"\n");
    (0..n).for_each(|i| _ = writeln!(out, "{prefix}{i}{define}{prefix}{}", i + 1));
    out
}

#[test]
fn regular_expressions_and_lark() {
    let regex = |text: String| Grammar::Regex(text);
    for text in [
        "(".repeat(100_000),
        "(".repeat(300) + &")".repeat(300),
        "[".into(),
        "\\".into(),
        "a{1000000000}".into(),
        "(a{1000}){1000}".into(),
        "(a|b|c)*a(a|b|c){200}".into(),
        "(?R)".into(),
        "\\1".into(),
        "a**".into(),
        "/".into(),
        "\n".into(),
        "\0".into(),
        "((((a*)*)*)*)*".into(),
        "\\p{L}{5000}x".into(),
    ] {
        survive(&regex(text));
    }
    refused(&regex("x".repeat(1 << 20)));
    refused(&Grammar::Lark("(".repeat(100_000)));
    refused(&Grammar::Lark(format!("start: {}\"a\"{}", "(".repeat(50_000), ")".repeat(50_000))));
    for text in [
        doubling(": ", "a", "start"),
        doubling(": ", "A", "start"),
        chain(": ", "a", "start", 1900),
        chain(": ", "A", "start", 1900),
    ] {
        survive(&Grammar::Lark(text));
    }
    refused(&Grammar::Lark(chain(": ", "a", "start", 5000)));
    for text in [
        "start: start",
        "start: start start | \"a\" |",
        "start: (start?)* \"a\"",
        "start: A\nA: A",
        "start: \"\"",
        "start: %json {\"type\": 5}",
        "start: %json {\"$ref\": \"http://example.invalid/x\"}",
        "start: @other",
        "start: <[99999999]>",
        "start: <[*]>",
        "start: \"a\"{0,1000000000}",
        "%llguidance {\"allow_invalid_utf8\": true}\nstart: /./",
        "%llguidance {\"no_such\": [",
        "start: /a/ & /b/",
        "start: ~/a/",
        "\u{0}",
        "start[max_tokens=0]: \"a\"",
        "start: \"é\".. \"a\"",
    ] {
        survive(&Grammar::Lark(text.into()));
    }
}

#[test]
fn gbnf() {
    let grammar = |text: String| Grammar::Gbnf(text);
    for text in [
        doubling(" ::= ", "a", "root"),
        chain(" ::= ", "a", "root", 1900),
        "root ::= root".into(),
        "root ::= root*".into(),
    ] {
        survive(&grammar(text));
    }
    for text in [
        "root ::= ".to_owned() + &"(".repeat(100_000),
        chain(" ::= ", "a", "root", 5000),
        "root ::= \"x\"{100000000}".into(),
        "#".repeat(1 << 20),
        "root ::= \"\u{1F980}".into(),
        "root ::= \"\\".into(),
        "root ::= [\\".into(),
        "root ::= <".into(),
        "root ::= !<a>".into(),
        "root ::= <[1000000000000]>".into(),
    ] {
        refused(&grammar(text));
    }
    survive(&grammar("root ::= ((((\"x\"{0,1000}){0,1000}){0,1000}){0,1000})".into()));
}

/// Random bytes of a grammar's alphabet.
#[test]
fn mutated_grammars() {
    let mut random = Random(6);
    let parts = [
        "root", " ::= ", "\n", "(", ")", "\"a\"", "[a-z]", "[^\"]", "*", "+", "?", "{2,3}", "|", " ", "b", "#", "\\",
        "<", ">", ".", "start: ", "/x/", "%json {}",
    ];
    let mut n_good = 0;
    for i in 0..1500 {
        let n = 1 + random.below(12);
        let body: String = (0..n).map(|_| parts[random.below(parts.len())]).collect();
        let grammar = if i % 2 == 0 {
            Grammar::Gbnf(format!("root ::= {body}"))
        } else {
            Grammar::Lark(format!("start: {body}"))
        };
        n_good += usize::from(survive(&grammar).is_none());
    }
    println!("{n_good} of 1500 mutated grammars are grammars");
    assert!(n_good > 30);
}

#[test]
fn schemas() {
    let deep = (0..60).fold(json!({"type": "null"}), |inner, _| json!({"type": "array", "items": inner}));
    let wide: Vec<String> = (0..3000).map(|i| format!("value {i}")).collect();
    let fields: serde_json::Map<String, Json> =
        (0..400).map(|i| (format!("field{i}"), json!({"type": "string"}))).collect();
    let chain = |n: usize| {
        let defs: serde_json::Map<String, Json> = (0..=n)
            .map(|i| {
                (
                    format!("d{i}"),
                    if i < n {
                        json!({"items": {"$ref": format!("#/$defs/d{}", i + 1)}, "type": "array"})
                    } else {
                        json!({"type": "null"})
                    },
                )
            })
            .collect();
        json!({"$ref": "#/$defs/d0", "$defs": defs})
    };
    for schema in [
        deep,
        json!({"enum": wide}),
        json!({"type": "object", "properties": fields}),
        chain(400),
        json!({"type": "string", "pattern": "(a|aa)*b{1,1000}"}),
        json!({"type": "string", "minLength": 1_000_000_000}),
        json!({"type": "string", "maxLength": 1_000_000_000}),
        json!({"type": "array", "minItems": 1_000_000_000, "items": {"type": "null"}}),
        json!({"type": "array", "maxItems": 4_000_000_000u64, "items": {"type": "null"}}),
        json!({"type": "integer", "multipleOf": 0}),
        json!({"type": "integer", "multipleOf": 1e-300}),
        json!({"type": "number", "minimum": 1e300}),
        json!({"type": "integer", "minimum": i64::MIN, "maximum": u64::MAX}),
        json!({"type": "integer", "minimum": 9.3e18}),
        json!({"const": 1e300}),
        json!({"allOf": [{"type": "number", "multipleOf": 65537}, {"type": "number", "multipleOf": 65539.5}]}),
        json!({"type": "🦀".repeat(40)}),
        json!({"const": {"🦀".repeat(40): "🦀".repeat(40)}}),
        json!({"minimum": "🦀".repeat(60)}),
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"anyOf": [{"$ref": "#"}]}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        json!({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
        json!({"patternProperties": {"^a": {}, "a$": {}}}),
        json!({"patternProperties": {"(": {}}}),
        json!({"x-guidance": {"no": 1}}),
        json!({"type": ["object", 7]}),
        json!({"properties": 7}),
        json!({"required": "a"}),
        json!({"items": [{"type": "null"}, {"type": "boolean"}]}),
        json!({"anyOf": []}),
        json!({"enum": []}),
    ] {
        survive(&Grammar::JsonSchema(schema));
    }
    refused(&Grammar::JsonSchema(chain(2000)));
    for schema in [
        json!({"type": "nothing"}),
        json!({"$ref": "#/$defs/none"}),
        json!({"type": "string", "minLength": 5, "maxLength": 4}),
    ] {
        refused(&Grammar::JsonSchema(schema));
    }
}
