//! Grammars of tool calls: what a random walk writes in any format, the parser of that format reads back.

use ir_engine::text::constrain::{Grammar, Tool, ToolChoice, begun_call, tool_grammar, tools_or};
use ir_engine::text::tools::{Piece, ToolFormat, ToolParser};
use serde_json::{Value as Json, json};

use super::schemas::valid;
use super::walk::{Words, made, tiny};
use crate::common::exam::Random;

/// Formats whose calls a grammar writes.
fn formats() -> Vec<ToolFormat> {
    let tool = [Tool { name: "f", parameters: None }];
    ToolFormat::all().filter(|format| tool_grammar(*format, &tool, ToolChoice::Required, true).is_ok()).collect()
}

/// Calls that a format's parser finds, and the text beside them.
fn read(format: ToolFormat, tools: &[Tool], text: &str) -> (Vec<(String, Json)>, String) {
    let tools = tools.iter().map(|tool| (tool.name.to_owned(), tool.parameters.cloned())).collect();
    let mut parser = ToolParser::with_schemas(format, tools, 7);
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
    let formats = formats();
    assert!(formats.len() > 25, "{formats:?}");
    let mut random = Random(9);
    let (mut n_calls, mut several) = (0, Vec::new());
    for words in vocabularies() {
        for format in formats.iter().copied() {
            let both =
                [true, false].map(|parallel| [ToolChoice::Required, ToolChoice::Named("get")].map(|c| (c, parallel)));
            for (choice, parallel) in both.into_iter().flatten() {
                let constraint = words.compile(&tool_grammar(format, &tools, choice, parallel).unwrap());
                for favoured in [&b""[..], b"\"gn{}c:,t\n;", b"a\\\"0"] {
                    let text = String::from_utf8(words.walk(constraint.clone(), favoured, &mut random)).unwrap();
                    let (calls, rest) = read(format, &tools, &text);
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
    for format in formats.into_iter().filter(|format| *format != ToolFormat::Harmony) {
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
        (
            ToolFormat::FunctionTags,
            "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n<parameter=s>\n<p>é</p>\n</parameter>\n</function>\n</tool_call>\n\
             <tool_call>\n<function=g>\n</function>\n</tool_call>",
        ),
        (ToolFormat::Pairs, "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>"),
        (ToolFormat::Recipient, "f\n{\"a\": 1}>>>g\n{}"),
        (ToolFormat::Prefixed, "<|tools_prefix|>[{\"f\": {\"a\": 1}}, {\"g\": {}}]<|tools_suffix|>"),
    ];
    for words in vocabularies().iter().chain([tiny()]) {
        for (format, text) in good {
            let grammar = tool_grammar(format, &tools, ToolChoice::Required, true).unwrap();
            assert!(words.accepts(&grammar, text), "{format:?} should write {text}");
            let single = tool_grammar(format, &tools, ToolChoice::Required, false).unwrap();
            let n = read(format, &tools, text).0.len();
            assert_eq!(words.accepts(&single, text), n == 1, "{format:?} with {n} calls: {text}");
            assert!(
                !words.accepts(
                    &grammar,
                    &text.replace("\"a\"", "\"b\"").replace("a=", "b=").replace("=a>", "=b>").replace(">a<", ">b<")
                ),
                "{format:?}"
            );
            assert!(!words.accepts(&grammar, "Sure!"), "{format:?}");
        }
    }
}

/// A call that an answer has begun by itself is held from there, and what follows it is free; an answer that is to be JSON may
/// be calls instead.
#[test]
fn begun_calls_and_calls_or_json() {
    let schema =
        json!({"type": "object", "properties": {"a": {"type": "integer"}, "s": {"type": "string"}}, "required": ["a"]});
    let tools = [Tool { name: "get_f", parameters: Some(&schema) }, Tool { name: "g", parameters: None }];
    let mut n = 0;
    for words in vocabularies().iter().chain([tiny()]) {
        for format in formats() {
            let Some((trigger, grammar)) = begun_call(format, &tools).unwrap() else { continue };
            let whole = words.compile(&tool_grammar(format, &tools, ToolChoice::Named("get_f"), false).unwrap());
            let text = String::from_utf8(words.walk(whole, b"", &mut Random(3))).unwrap();
            let (_, rest) =
                text.split_once(trigger).unwrap_or_else(|| panic!("{format:?}: {trigger:?} is not in {text:?}"));
            assert!(words.accepts(&grammar, rest), "{format:?}: {rest:?}");
            assert!(!words.accepts(&grammar, &rest.replacen("get_f", "get_h", 1)), "{format:?}: {rest:?}");
            n += 1;
        }
        let answer = json!({"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]});
        let either = tools_or(ToolFormat::Hermes, &tools, true, Grammar::JsonSchema(answer)).unwrap();
        assert!(words.accepts(&either, "{\"x\": true}"));
        assert!(words.accepts(&either, "<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>"));
        assert!(!words.accepts(&either, "{\"a\": 1}") && !words.accepts(&either, "Sure"));
    }
    assert!(n > 50, "{n}");
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
