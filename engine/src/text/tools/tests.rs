//! A list: tool calls in every format, whole, cut at every place, malformed and hostile.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

/// What a text came to, however it was cut: texts joined, calls in order.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    text: String,
    thinking: String,
    calls: Vec<(String, Json)>,
}

/// Joins pieces and checks that they tell one story.
fn gather(pieces: impl IntoIterator<Item = Piece>) -> Outcome {
    let mut out = Outcome::default();
    let mut open: Option<(usize, String, String, String)> = None;
    let mut n = 0;
    for piece in pieces {
        match piece {
            Piece::Text(text) => {
                assert!(open.is_none() && !text.is_empty());
                out.text += &text;
            }
            Piece::Thinking(text) => out.thinking += &text,
            Piece::CallStart { index, id, name } => {
                assert!(open.is_none() && index == n, "one call at a time");
                n += 1;
                open = Some((index, id, name, String::new()));
            }
            Piece::Arguments { index, fragment } => {
                let call = open.as_mut().unwrap();
                assert!(call.0 == index && !fragment.is_empty());
                call.3 += &fragment;
            }
            Piece::CallEnd { index, call } => {
                let (open_index, id, name, arguments) = open.take().unwrap();
                assert_eq!((open_index, Some(id), &name), (index, call.id, &call.name));
                assert_eq!(serde_json::from_str::<Json>(&arguments).unwrap(), call.arguments, "{arguments}");
                out.calls.push((name, call.arguments));
            }
            Piece::CallBroken { index, text } => {
                assert_eq!(open.take().unwrap().0, index);
                out.text += &text;
            }
        }
    }
    assert!(open.is_none());
    out
}

fn parse(format: ToolFormat, pieces: &[&str]) -> Outcome {
    let mut parser = ToolParser::new(format, &["f", "get_weather", "add", "no-args"], 7);
    let mut all = Vec::new();
    for piece in pieces {
        all.extend(parser.push(piece));
    }
    all.extend(parser.finish());
    gather(all)
}

/// Parses the text whole, cut once at every place, and character by character.
fn every_way(format: ToolFormat, text: &str) -> Outcome {
    let whole = parse(format, &[text]);
    for (at, _) in text.char_indices() {
        assert_eq!(parse(format, &[&text[..at], &text[at..]]), whole, "{format:?} {text:?} cut at {at}");
    }
    let chars: Vec<String> = text.chars().map(String::from).collect();
    let chars: Vec<&str> = chars.iter().map(String::as_str).collect();
    assert_eq!(parse(format, &chars), whole, "{format:?} {text:?} by characters");
    whole
}

/// Calls as `(name, arguments)`, with arguments as JSON text.
type Want<'a> = &'a [(&'a str, &'a str)];

fn check(format: ToolFormat, text: &str, answer: &str, calls: Want) {
    let got = every_way(format, text);
    let want: Vec<(String, Json)> =
        calls.iter().map(|(n, a)| ((*n).to_owned(), serde_json::from_str(a).unwrap())).collect();
    assert_eq!((got.text.as_str(), &got.calls), (answer, &want), "{format:?} {text:?}");
    for (got, want) in got.calls.iter().zip(&want) {
        assert_eq!(got.1.to_string(), want.1.to_string(), "the order of keys");
    }
}

#[test]
fn hermes() {
    let cases: &[(&str, &str, Want)] = &[
        (
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"z\": 1, \"a\": [\"}\", {\"k\": \"\\\"\"}]}}\n</tool_call>",
            "",
            &[("f", r#"{"z":1,"a":["}",{"k":"\""}]}"#)],
        ),
        (
            "I look.\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>\n{\"name\":\"add\",\"arguments\":{\"a\":1,\"b\":2}}</tool_call>\n",
            "I look.",
            &[("f", "{}"), ("add", r#"{"a":1,"b":2}"#)],
        ),
        ("<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call> Done.", " Done.", &[("f", "{}")]),
        ("<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call>", "", &[("f", r#"{"a":1}"#)]),
        ("<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>", "", &[("f", r#"{"a":1}"#)]),
        (
            "<tool_call>{\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1}}}</tool_call>",
            "",
            &[("f", r#"{"a":1}"#)],
        ),
        ("<tool_call>{\"name\": \"f\"}</tool_call>", "", &[("f", "{}")]),
        ("<tool_call>{\"name\": \"unknown\", \"arguments\": null}</tool_call>", "", &[("unknown", "{}")]),
        (
            "<tool_call>[{\"name\":\"f\",\"arguments\":{}}, {\"name\":\"add\",\"arguments\":{\"a\":2}}]</tool_call>",
            "",
            &[("f", "{}"), ("add", r#"{"a":2}"#)],
        ),
        (
            "<tool_call>{\"name\":\"f\",\"arguments\":{}}\n{\"name\":\"add\",\"arguments\":{\"a\":2}}</tool_call>",
            "",
            &[("f", "{}"), ("add", r#"{"a":2}"#)],
        ),
        // A last bracket or a closing tag is missing.
        ("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"é🦀\"}\n</tool_call>", "", &[("f", r#"{"a":"é🦀"}"#)]),
        ("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}", "", &[("f", r#"{"a":1}"#)]),
        ("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}", "", &[("f", r#"{"a":1}"#)]),
        // No calls.
        ("a <tool_calls> b", "a <tool_calls> b", &[]),
        ("<tool_call>nothing</tool_call>", "<tool_call>nothing</tool_call>", &[]),
        (
            "x  <tool_call>{\"name\": \"f\", \"arguments\": {\"a\": }}</tool_call> y",
            "x  <tool_call>{\"name\": \"f\", \"arguments\": {\"a\": }}</tool_call> y",
            &[],
        ),
        (
            "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"</tool_call>",
            "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"</tool_call>",
            &[],
        ),
        (
            "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>",
            "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>",
            &[],
        ),
        ("<tool_call>{\"arguments\": {}}</tool_call>", "<tool_call>{\"arguments\": {}}</tool_call>", &[]),
        ("<tool_call>{\"name\": 1}</tool_call>", "<tool_call>{\"name\": 1}</tool_call>", &[]),
        ("<tool_call>", "<tool_call>", &[]),
        ("<tool_c", "<tool_c", &[]),
        (
            "bad <tool_call>{]</tool_call><tool_call>{\"name\":\"f\"}</tool_call>",
            "bad <tool_call>{]</tool_call>",
            &[("f", "{}")],
        ),
        (" \n text \n ", " \n text \n ", &[]),
        ("", "", &[]),
    ];
    for (text, answer, calls) in cases {
        check(ToolFormat::Hermes, text, answer, calls);
    }
}

#[test]
fn llama() {
    let cases: &[(&str, &str, Want)] = &[
        (
            "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}}",
            "",
            &[("get_weather", r#"{"city":"Paris"}"#)],
        ),
        ("\n\n{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}\n", "", &[("f", "{}")]),
        (
            "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"a\": 1}}; {\"name\": \"add\", \"parameters\": {}}",
            "",
            &[("f", r#"{"a":1}"#), ("add", "{}")],
        ),
        ("Sure.<|python_tag|>f.call(query=\"x (y)\")", "Sure.", &[("f", r#"{"query":"x (y)"}"#)]),
        ("<|python_tag|>brave_search.call(query='x')", "", &[("brave_search.call", r#"{"query":"x"}"#)]),
        (
            "[f(a=1), add(a=2, b={'k': [True, None]})]",
            "",
            &[("f", r#"{"a":1}"#), ("add", r#"{"a":2,"b":{"k":[true,null]}}"#)],
        ),
        ("[no-args()]", "", &[("no-args", "{}")]),
        ("<|python_start|>[f(a='[)')]<|python_end|>", "", &[("f", r#"{"a":"[)"}"#)]),
        // Answers that only look like calls.
        ("{\"name\": \"Bob\", \"parameters\": {}}", "{\"name\": \"Bob\", \"parameters\": {}}", &[]),
        ("{\"title\": \"x\", \"name\": \"f\"}", "{\"title\": \"x\", \"name\": \"f\"}", &[]),
        ("{}", "{}", &[]),
        ("{ 1 }", "{ 1 }", &[]),
        ("[link](http://x)", "[link](http://x)", &[]),
        ("[1, 2]", "[1, 2]", &[]),
        ("[f(a=1), other(b=2)]", ", other(b=2)]", &[("f", r#"{"a":1}"#)]),
        ("[f(a=g())]", "[f(a=g())]", &[]),
        ("f is a function", "f is a function", &[]),
        ("  [ ]", "  [ ]", &[]),
        ("Say {\"name\": \"f\", \"parameters\": {}}", "Say {\"name\": \"f\", \"parameters\": {}}", &[]),
    ];
    for (text, answer, calls) in cases {
        check(ToolFormat::Llama3, text, answer, calls);
        check(ToolFormat::Pythonic, text, answer, calls);
    }
}

#[test]
fn mistral() {
    let cases: &[(&str, &str, Want)] = &[
        (
            "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"id\": \"abc123def\"}, {\"name\": \"add\", \"arguments\": {}}]",
            "",
            &[("f", r#"{"a":1}"#), ("add", "{}")],
        ),
        (
            "Well.[TOOL_CALLS]f[ARGS]{\"a\": \"[TOOL_CALLS]\"}[TOOL_CALLS]add[CALL_ID]abc123def[ARGS]{}",
            "Well.",
            &[("f", r#"{"a":"[TOOL_CALLS]"}"#), ("add", "{}")],
        ),
        ("[TOOL_CALLS]f{\"a\": 1}", "", &[("f", r#"{"a":1}"#)]),
        ("[TOOL_CALLS]{\"name\": \"f\", \"arguments\": {}}", "", &[("f", "{}")]),
        ("[TOOL_CALLS]f[ARGS]{\"a\": ", "[TOOL_CALLS]f[ARGS]{\"a\": ", &[]),
        ("[TOOL_CALLS]f[ARGS]{a}x", "[TOOL_CALLS]f[ARGS]{a}x", &[]),
        ("[TOOL_CALLS]not a name{}", "[TOOL_CALLS]not a name{}", &[]),
        ("[TOOL_CALLS][]", "[TOOL_CALLS][]", &[]),
        ("[TOOL", "[TOOL", &[]),
    ];
    for (text, answer, calls) in cases {
        check(ToolFormat::Mistral, text, answer, calls);
        check(ToolFormat::MistralList, text, answer, calls);
    }
}

#[test]
fn deepseek() {
    let cases: &[(&str, &str, Want)] = &[
        (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            "",
            &[("f", r#"{"a":1}"#), ("add", "{}")],
        ),
        (
            "Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": \"é\"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            "Let me see.",
            &[("f", r#"{"a":"é"}"#), ("add", "{}")],
        ),
        ("<｜tool▁calls▁begin｜>x", "<｜tool▁calls▁begin｜>x", &[]),
        (
            "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\"}<｜tool▁call▁end｜>",
            "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\"}<｜tool▁call▁end｜>",
            &[],
        ),
        ("<｜tool", "<｜tool", &[]),
    ];
    for (text, answer, calls) in cases {
        check(ToolFormat::DeepSeek, text, answer, calls);
        check(ToolFormat::DeepSeekFenced, text, answer, calls);
    }
}

#[test]
fn gemma() {
    let cases: &[(&str, &str, Want)] = &[
        ("```tool_code\nget_weather(city=\"Rome\")\n```", "", &[("get_weather", r#"{"city":"Rome"}"#)]),
        ("Ok:\n```tool_code\nprint(f(a=1))\n```", "Ok:", &[("f", r#"{"a":1}"#)]),
        ("```tool_code\n[f(a=1), add()]\n```", "", &[("f", r#"{"a":1}"#), ("add", "{}")]),
        ("```tool_code\nf(a=1)\nadd(a=2)\n```\nDone", "\nDone", &[("f", r#"{"a":1}"#), ("add", r#"{"a":2}"#)]),
        ("```json\n{\"name\": \"f\", \"parameters\": {\"a\": 1}}\n```", "", &[("f", r#"{"a":1}"#)]),
        ("{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "", &[("f", r#"{"a":1}"#)]),
        ("```json\n{\"city\": 1}\n```", "```json\n{\"city\": 1}\n```", &[]),
        ("```python\nf(a=1)\n```", "```python\nf(a=1)\n```", &[]),
        ("```tool_code\nx = 1\n```", "```tool_code\nx = 1\n```", &[]),
    ];
    for (text, answer, calls) in cases {
        check(ToolFormat::Gemma, text, answer, calls);
    }
}

#[test]
fn harmony() {
    let cases: &[(&str, &str, &str, Want)] = &[
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hello.<|return|>",
            "Hm.",
            "Hello.",
            &[],
        ),
        (
            "<|channel|>analysis<|message|>Need f.<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": \"<|end|>\"}<|call|>",
            "Need f.",
            "",
            &[("f", r#"{"a":"<|end|>"}"#)],
        ),
        (
            "<|start|>assistant to=functions.add<|channel|>commentary json<|message|>{\"a\":1}",
            "",
            "",
            &[("add", r#"{"a":1}"#)],
        ),
        (" to=functions.add<|channel|>commentary<|message|> {}<|call|>", "", "", &[("add", "{}")]),
        (
            "<|channel|>commentary<|message|>I will call.<|end|><|start|>assistant<|channel|>commentary to=f<|message|>{}<|call|>",
            "",
            "I will call.",
            &[("f", "{}")],
        ),
        ("Plain words", "", "Plain words", &[]),
        ("<|channel|>final<|message|>a < b <| c", "", "a < b <| c", &[]),
        ("<|channel|>analysis<|message|>never ends", "never ends", "", &[]),
        (
            "<|channel|>commentary to=functions.f<|message|>code<|call|>",
            "",
            "<|channel|>commentary to=functions.f<|message|>code",
            &[],
        ),
        (
            "<|channel|>commentary to=functions.f<|message|>{\"a\": <|call|>",
            "",
            "<|channel|>commentary to=functions.f<|message|>{\"a\": <|call|>",
            &[],
        ),
        ("<|channel|>fin", "", "<|channel|>fin", &[]),
    ];
    for (text, thinking, answer, calls) in cases {
        check(ToolFormat::Harmony, text, answer, calls);
        assert_eq!(parse(ToolFormat::Harmony, &[text]).thinking, *thinking);
    }
}

/// The model's own answers, from its golden file.
#[test]
fn ir_tiny_golden_replies() {
    let golden: Json = serde_json::from_str(include_str!("../../../models/ir-tiny/golden.json")).unwrap();
    let mut n_calls = 0;
    for chat in golden["chats"].as_array().unwrap() {
        let reply = chat["reply"].as_str().unwrap();
        let got = every_way(ToolFormat::Hermes, reply);
        match reply.strip_prefix("<tool_call>\n").and_then(|r| r.strip_suffix("\n</tool_call>")) {
            None => assert_eq!((got.text.as_str(), got.calls.len()), (reply, 0)),
            Some(inner) => {
                let call: Json = serde_json::from_str(inner).unwrap();
                assert_eq!(got.text, "");
                assert_eq!(got.calls, [(call["name"].as_str().unwrap().to_owned(), call["arguments"].clone())]);
                n_calls += 1;
            }
        }
    }
    assert!(n_calls >= 3, "{n_calls}");
}

#[test]
fn arguments_stream_as_they_come() {
    let mut parser = ToolParser::new(ToolFormat::Hermes, &["f"], 1);
    assert_eq!(parser.push("Hi <tool_call>{\"name\": \"f\", \"argu"), [Piece::Text("Hi".into())]);
    let pieces = parser.push("ments\": {\"a\": \"b");
    let [Piece::CallStart { index: 0, id, name }, Piece::Arguments { index: 0, fragment }] = &pieces[..] else {
        panic!("{pieces:?}")
    };
    assert_eq!((name.as_str(), fragment.as_str()), ("f", "{\"a\": \"b"));
    assert!(id.starts_with("call_") && id.len() == 13, "{id}");
    assert_eq!(parser.push("c\"}"), [Piece::Arguments { index: 0, fragment: "c\"}".into() }]);
    let call = ToolCall { id: Some(id.clone()), name: "f".into(), arguments: json!({"a": "bc"}) };
    assert_eq!(parser.push("}"), [Piece::CallEnd { index: 0, call }]);
    assert!(parser.push("\n</tool_call>\n").is_empty() && parser.finish().is_empty());

    let ids = |seed| (0..4).map(move |i| call_id(seed, i));
    let mut all: Vec<String> = (0..1000).flat_map(ids).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 4000);
}

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

/// Megabytes of what parsers like least go through, come back whole, and fast enough for a test.
#[test]
fn hostile_output_is_linear() {
    let units = [
        "<tool_call>",
        "<tool_call>{",
        "{\"name\":",
        "{\"name\":\"f\",\"arguments\":{",
        "[",
        "[f(",
        "[TOOL_CALLS]",
        "[TOOL_CALLS]f[ARGS]{",
        "```json{",
        "```json\n{\"name\":\"f\",",
        "```tool_code\nf(",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{",
        "<|channel|>",
        "<|start|>",
        "<|channel|>commentary to=f<|message|>",
        "<|channel|>commentary to=f<|message|>{",
        " ",
        "\n<tool_call> ",
        "\"",
        "\\",
        "<",
        "é",
        "f",
        "<|python_tag|>",
        "<|python_tag|>f(a='",
    ];
    for format in FORMATS {
        for unit in units {
            let text = unit.repeat((200_000 / unit.len()).max(1));
            let whole = parse(format, &[&text]);
            let pieces: Vec<&str> = unit_pieces(&text, unit.len());
            assert_eq!(parse(format, &pieces), whole, "{format:?} {unit:?}");
            if format != ToolFormat::Harmony {
                assert_eq!(whole, Outcome { text, ..Outcome::default() }, "{format:?} {unit:?}");
            }
        }
    }
}

fn unit_pieces(text: &str, size: usize) -> Vec<&str> {
    (0..text.len()).step_by(size).map(|at| &text[at..(at + size).min(text.len())]).collect()
}

#[test]
fn deep_nesting_is_no_call() {
    for open in ["[", "{\"a\":"] {
        let deep = open.repeat(10_000);
        let text = format!("<tool_call>{{\"name\":\"f\",\"arguments\":{{\"a\":{deep}");
        assert_eq!(parse(ToolFormat::Hermes, &[&text]).text, text);
    }
    let text = format!("[f(a={}{})]", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(parse(ToolFormat::Pythonic, &[&text]).text, text);
}

#[test]
fn formats_are_told_by_templates_and_tokens() {
    let cases: &[(&str, &[&str], Option<ToolFormat>)] = &[
        ("... <tool_call>\\n{ ...", &[], Some(ToolFormat::Hermes)),
        ("{{ '<|python_tag|>' }} \"parameters\": ", &["<|eom_id|>"], Some(ToolFormat::Llama3)),
        ("[func_name1(params_name1=params_value1)]", &["<|python_start|>"], Some(ToolFormat::Pythonic)),
        ("[AVAILABLE_TOOLS] [TOOL_CALLS] ", &["[TOOL_CALLS]"], Some(ToolFormat::MistralList)),
        ("[TOOL_CALLS] [ARGS]", &["[TOOL_CALLS]"], Some(ToolFormat::Mistral)),
        (
            "'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' ```json",
            &[],
            Some(ToolFormat::DeepSeekFenced),
        ),
        (
            "'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>'+ tool['function']['name'] + '<｜tool▁sep｜>'",
            &[],
            Some(ToolFormat::DeepSeek),
        ),
        ("<|channel|>analysis", &[], Some(ToolFormat::Harmony)),
        ("<start_of_turn>", &["<start_of_turn>", "<end_of_turn>"], Some(ToolFormat::Gemma)),
        ("", &["[TOOL_CALLS]", "[ARGS]"], Some(ToolFormat::Mistral)),
        ("{{ m.content }}", &["<s>"], None),
    ];
    for (template, tokens, want) in cases {
        assert_eq!(ToolFormat::detect(template, &|t| tokens.contains(&t)), *want, "{template}");
    }
}

proptest! {
    /// Text without markup goes through as it is, in any pieces.
    #[test]
    fn text_passes_unchanged(words in proptest::collection::vec("[ -~éλ🦀\n]{0,12}", 0..12)) {
        let text = words.concat();
        for format in FORMATS {
            let pieces: Vec<&str> = words.iter().map(String::as_str).collect();
            let got = parse(format, &pieces);
            prop_assert_eq!(&got, &Outcome { text: text.clone(), ..Outcome::default() }, "{:?}", format);
        }
    }

    /// Any mixture of markup and fragments comes to the same in any pieces, and nothing but markup and white space around
    /// calls is lost.
    #[test]
    fn pieces_do_not_matter(parts in proptest::collection::vec(proptest::sample::select(PARTS), 0..10)) {
        let text = parts.concat();
        for format in FORMATS {
            let whole = every_way(format, &text);
            if whole.calls.is_empty() && format != ToolFormat::Harmony {
                prop_assert_eq!(&whole.text, &text);
            }
        }
    }
}

const PARTS: &[&str] = &[
    "<tool_call>",
    "</tool_call>",
    "{\"name\": \"f\", \"arguments\": {\"a\": 1}}",
    "{\"name\": \"f\", ",
    "\"arguments\": {",
    "}",
    "}}",
    "{",
    "[",
    "]",
    ",",
    "\"",
    "\\",
    " ",
    "\n",
    "text",
    "é",
    "[TOOL_CALLS]",
    "f",
    "[ARGS]",
    "{}",
    "<|python_tag|>",
    "f(a=1)",
    "f(",
    ")",
    "[f(a='x')]",
    "```tool_code\n",
    "```json\n",
    "```",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
    "<|channel|>",
    "final",
    "analysis",
    "commentary to=functions.f",
    "<|message|>",
    "<|end|>",
    "<|start|>assistant",
    "<|call|>",
    "<",
    "<|",
    "                                        ",
];
