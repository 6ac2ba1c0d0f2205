//! Grammars of tool calls: what a random walk writes in any format, the parser of that format reads back.

use ir_engine::text::constrain::{Grammar, Tool, ToolChoice, tool_grammar};
use ir_engine::text::tools::{Piece, ToolFormat, ToolParser};
use serde_json::{Value as Json, json};

use super::schemas::valid;
use super::walk::{Words, made, tiny};
use crate::common::exam::Random;

const FORMATS: [ToolFormat; 9] = [
    ToolFormat::Hermes,
    ToolFormat::Llama3,
    ToolFormat::Pythonic,
    ToolFormat::Mistral,
    ToolFormat::MistralList,
    ToolFormat::DeepSeek,
    ToolFormat::DeepSeekFenced,
    ToolFormat::Harmony,
    ToolFormat::Gemma,
];

/// Calls that a format's parser finds, and the text beside them.
fn read(format: ToolFormat, names: &[&str], text: &str) -> (Vec<(String, Json)>, String) {
    let mut parser = ToolParser::new(format, names, 7);
    let pieces = parser.push(text).into_iter().chain(parser.finish());
    let (mut calls, mut rest) = (Vec::new(), String::new());
    for piece in pieces {
        match piece {
            Piece::CallEnd { call, .. } => calls.push((call.name, call.arguments)),
            Piece::Text(text) | Piece::CallBroken { text, .. } => rest += &text,
            _ => {}
        }
    }
    (calls, rest)
}

fn parameters() -> [(&'static str, Option<Json>); 4] {
    let place = json!({"type": "object", "properties": {"lat": {"type": "number"}, "name": {"type": "string"}}, "required": ["name"]});
    [
        (
            "get_weather",
            Some(json!({"type": "object", "required": ["city"], "properties": {
                "city": {"type": "string", "minLength": 1}, "days": {"type": "integer", "minimum": 1, "maximum": 14},
                "unit": {"enum": ["C", "F"]}}})),
        ),
        (
            "get",
            Some(
                json!({"type": "object", "properties": {"a": {"type": ["boolean", "null"]}, "tags": {"type": "array", "uniqueItems": true}}}),
            ),
        ),
        (
            "move-to",
            Some(json!({"type": "object", "required": ["to"], "$defs": {"place": place}, "properties": {
                "to": {"$ref": "#/$defs/place"}, "why": {"type": "string"}}})),
        ),
        ("now", None),
    ]
}

/// The vocabulary of single bytes with every tag as a control token, and that of the built-in model without most.
fn vocabularies() -> Vec<Words> {
    let tags = [
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁calls▁end｜>",
        "<|start|>",
        "<|channel|>",
        "<|message|>",
        "<|constrain|>",
        "<|end|>",
        "<|call|>",
        "<|return|>",
    ];
    let tags: Vec<(&str, i32)> = tags.iter().map(|tag| (*tag, 3)).collect();
    vec![Words::of(made(&tags)), Words::of(made(&[("get", 1)]))]
}

#[test]
fn every_format_reads_back_what_its_grammar_writes() {
    let tools = parameters();
    let tools: Vec<Tool> = tools.iter().map(|(name, schema)| Tool { name, parameters: schema.as_ref() }).collect();
    let names: Vec<&str> = tools.iter().map(|tool| tool.name).collect();
    let mut random = Random(9);
    let (mut n_calls, mut several) = (0, Vec::new());
    for words in vocabularies() {
        for format in FORMATS {
            let both =
                [true, false].map(|parallel| [ToolChoice::Required, ToolChoice::Named("get")].map(|c| (c, parallel)));
            for (choice, parallel) in both.into_iter().flatten() {
                let constraint = words.compile(&tool_grammar(format, &tools, choice, parallel).unwrap());
                for favoured in [&b""[..], b"\"gn{}c:,t\n;", b"a\\\"0"] {
                    let text = String::from_utf8(words.walk(constraint.clone(), favoured, &mut random)).unwrap();
                    let (calls, rest) = read(format, &names, &text);
                    assert!(rest.trim().is_empty() && !calls.is_empty(), "{format:?}: {text:?} left {rest:?}");
                    assert!(parallel || calls.len() == 1, "{format:?}: {text:?}");
                    n_calls += calls.len();
                    several.extend((calls.len() > 1).then_some(format));
                    for (name, arguments) in calls {
                        assert!(choice == ToolChoice::Required || name == "get", "{format:?}: {text:?}");
                        let schema = tools.iter().find(|tool| tool.name == name).unwrap().parameters;
                        match schema {
                            Some(schema) => valid(schema, schema, &arguments)
                                .unwrap_or_else(|e| panic!("{format:?}: {e}: {text:?}")),
                            None => assert_eq!(arguments, json!({})),
                        }
                    }
                }
            }
        }
    }
    println!("{n_calls} calls, {} answers with several", several.len());
    // A message of Harmony's holds one call and ends the answer.
    for format in FORMATS.into_iter().filter(|format| *format != ToolFormat::Harmony) {
        assert!(several.contains(&format), "{format:?} never made two calls");
    }
}

#[test]
fn calls_as_models_write_them_are_accepted() {
    let schema =
        json!({"type": "object", "properties": {"a": {"type": "integer"}, "s": {"type": "string"}}, "required": ["a"]});
    let tools = [Tool { name: "f", parameters: Some(&schema) }, Tool { name: "g", parameters: None }];
    let good = [
        (
            ToolFormat::Hermes,
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1, \"s\": \"é\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>",
        ),
        (ToolFormat::Llama3, "{\"name\": \"f\", \"parameters\": {\"a\": 1}}"),
        (ToolFormat::Pythonic, "[f(a=1, s=\"x\"), g()]"),
        (ToolFormat::Mistral, "[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]g[ARGS]{}"),
        (
            ToolFormat::MistralList,
            "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\", \"arguments\": {}}]",
        ),
        (
            ToolFormat::DeepSeek,
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        (
            ToolFormat::DeepSeekFenced,
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        (
            ToolFormat::Harmony,
            "<|channel|>analysis<|message|>I \"think\".<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": 1}",
        ),
        (ToolFormat::Gemma, "```tool_code\nf(a=1)\n```"),
    ];
    for words in vocabularies().iter().chain([tiny()]) {
        for (format, text) in good {
            let grammar = tool_grammar(format, &tools, ToolChoice::Required, true).unwrap();
            assert!(words.accepts(&grammar, text), "{format:?} should write {text}");
            let single = tool_grammar(format, &tools, ToolChoice::Required, false).unwrap();
            let n = read(format, &["f", "g"], text).0.len();
            assert_eq!(words.accepts(&single, text), n == 1, "{format:?} with {n} calls: {text}");
            assert!(!words.accepts(&grammar, &text.replace("\"a\"", "\"b\"").replace("a=", "b=")), "{format:?}");
            assert!(!words.accepts(&grammar, "Sure!"), "{format:?}");
        }
    }
}

#[test]
fn what_cannot_be_enforced_is_said() {
    let list = json!({"type": "array"});
    let either = json!({"anyOf": [{"properties": {"a": {}}}]});
    let odd = json!({"properties": {"a b": {"type": "string"}}, "required": ["a b"]});
    let said = |format, tools: &[Tool], choice| match tool_grammar(format, tools, choice, true) {
        Err(error) => error.to_string(),
        Ok(grammar) => panic!("{grammar:?}"),
    };
    let tool = |name, parameters| [Tool { name, parameters }];
    assert!(said(ToolFormat::Hermes, &[], ToolChoice::Required).contains("1 to"));
    assert!(said(ToolFormat::Hermes, &tool("f", None), ToolChoice::Named("g")).contains("\"g\""));
    assert!(said(ToolFormat::Mistral, &tool("a b", None), ToolChoice::Required).contains("\"a b\""));
    assert!(said(ToolFormat::Hermes, &tool("f", Some(&list)), ToolChoice::Required).contains("\"f\""));
    assert!(said(ToolFormat::Pythonic, &tool("f", Some(&either)), ToolChoice::Required).contains("anyOf"));
    assert!(said(ToolFormat::Gemma, &tool("f", Some(&odd)), ToolChoice::Required).contains("\"a b\""));
    assert!(matches!(
        tool_grammar(ToolFormat::Hermes, &tool("a \"b\"", None), ToolChoice::Required, false),
        Ok(Grammar::Tools(_))
    ));
}
