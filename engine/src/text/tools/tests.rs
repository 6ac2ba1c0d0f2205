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
    /// A call that the limit cut: what was sent of its arguments, and what is whole of them.
    cut: Option<(String, Json)>,
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
            Piece::CallCut { index, call } => {
                let (open_index, id, name, arguments) = open.take().unwrap();
                assert_eq!((open_index, Some(id), &name), (index, call.id, &call.name));
                out.cut = Some((arguments, call.arguments));
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
        "<function=",
        "<function=f>",
        "<function=f><parameter=a>",
        "<invoke name=\"f\">",
        "<tool_call>f<arg_key>a</arg_key><arg_value>",
        ">>>",
        ">>>f\n{",
        "<|tool_call>call:f{",
        "]<]minimax[>[<invoke name=\"f\">",
        " to=f<|message|><atem:invoke name=\"f\">",
    ];
    for format in ToolFormat::all() {
        for unit in units {
            let text = unit.repeat((200_000 / unit.len()).max(1));
            let whole = parse(format, &[&text]);
            let pieces: Vec<&str> = unit_pieces(&text, unit.len());
            assert_eq!(parse(format, &pieces), whole, "{format:?} {unit:?}");
            if all_is_text(format) {
                assert_eq!(whole, Outcome { text, ..Outcome::default() }, "{format:?} {unit:?}");
            }
        }
    }
}

/// Whether a format drops no markup but that of calls.
fn all_is_text(format: ToolFormat) -> bool {
    format.row().around.is_empty() && !format.frames_answers()
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

/// A call of every other form, as templates write it, behind some words; then two.
#[test]
fn forms_of_families() {
    let weather = ("get_weather", r#"{"city":"Röm","days":2}"#);
    let (one, both): (Want, Want) = (&[weather], &[weather, ("no-args", "{}")]);
    let object = "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Röm\", \"days\": 2}}";
    let none = "{\"name\": \"no-args\", \"arguments\": {}}";
    let list = format!("[{object}, {none}]");
    use ToolFormat as F;
    let cases: &[(ToolFormat, String, Want)] = &[
        (F::Lists, format!("\n<tool_calls>{list}</tool_calls>\n"), both),
        (F::Lines, format!("<tool_calls>\n{object}\n{none}\n</tool_calls>"), both),
        (F::UpperLists, format!("<TOOLCALL>{list}</TOOLCALL>"), both),
        (F::ToolCallToken, format!("<|tool_call|>{list}"), both),
        (F::Functools, format!(" functools{list}"), both),
        (F::FunctionCall, format!("<|function_call|>{object}"), one),
        (F::FunctionTurn, format!("<|message_sep|>\n\nfunction call<|role_sep|>\n{object}<|message_sep|>\n\n"), one),
        (
            F::Prefixed,
            "<|tools_prefix|>[{\"get_weather\": {\"city\": \"Röm\", \"days\": 2}}, {\"no-args\": {}}]<|tools_suffix|>".into(),
            both,
        ),
        (
            F::Actions,
            "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"get_weather\", \"parameters\": {\"city\": \"Röm\", \"days\": 2}},\n    \
             {\"tool_call_id\": \"1\", \"tool_name\": \"no-args\", \"parameters\": {}}\n]<|END_ACTION|>"
                .into(),
            both,
        ),
        (
            F::ActionFence,
            "Action: ```json\n[\n    {\n        \"tool_name\": \"get_weather\",\n        \"parameters\": {\"city\": \"Röm\", \"days\": 2}\n    }\n]```".into(),
            one,
        ),
        (F::PythonTagged, "<|tool_call_start|>[get_weather(city='Röm', days=2), no-args()]<|tool_call_end|>".into(), both),
        (
            F::Sections,
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{\"city\": \"Röm\", \"days\": 2}<|tool_call_end|>\
             <|tool_call_begin|>functions.no-args:1<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>"
                .into(),
            both,
        ),
        (
            F::Numbered,
            "<|tool_calls|><|tool_call:begin|>call00001<|tool_call:name|>get_weather<|tool_call:args|>{\"city\": \"Röm\", \"days\": 2}<|tool_call:end|>\
             <|tool_call:begin|>call00002<|tool_call:name|>no-args<|tool_call:args|>{}<|tool_call:end|>"
                .into(),
            both,
        ),
        (
            F::FunctionTag,
            "<function=get_weather>{\"city\": \"Röm\", \"days\": 2}</function><function=no-args>{}</function>".into(),
            both,
        ),
        (F::Recipient, "get_weather\n{\"city\": \"Röm\", \"days\": 2}>>>no-args\n{}".into(), both),
        (
            F::FunctionTags,
            "<tool_call>\n<function=get_weather>\n<parameter=city>\nRöm\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>\n\
             <tool_call>\n<function=no-args>\n</function>\n</tool_call>"
                .into(),
            both,
        ),
        (
            F::SeedTags,
            "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Röm</parameter>\n<parameter=days>2</parameter>\n</function>\n</seed:tool_call>".into(),
            one,
        ),
        (
            F::FunctionParams,
            "<function name=\"get_weather\"><param name=\"city\">Röm</param><param name=\"days\">2</param></function>\n<function name=\"no-args\"></function>".into(),
            both,
        ),
        (
            F::InvokeTags,
            "<minimax:tool_call>\n<invoke name=\"get_weather\">\n<parameter name=\"city\">Röm</parameter>\n<parameter name=\"days\">2</parameter>\n</invoke>\n\
             <invoke name=\"no-args\">\n</invoke>\n</minimax:tool_call>"
                .into(),
            both,
        ),
        (
            F::Invoke,
            "\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"get_weather\">\n<｜DSML｜parameter name=\"city\" string=\"true\">Röm</｜DSML｜parameter>\n\
             <｜DSML｜parameter name=\"days\" string=\"false\">2</｜DSML｜parameter>\n</｜DSML｜invoke>\n<｜DSML｜invoke name=\"no-args\">\n\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>"
                .into(),
            both,
        ),
        (
            F::Pairs,
            "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Röm</arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>\n\
             <tool_call>no-args</tool_call>"
                .into(),
            both,
        ),
        (
            F::PairsOpensource,
            "<tool_calls:opensource>\n<tool_call:opensource>get_weather<tool_sep:opensource>\n<arg_key:opensource>city</arg_key:opensource>\n\
             <arg_value:opensource>Röm</arg_value:opensource>\n<arg_key:opensource>days</arg_key:opensource>\n<arg_value:opensource>2</arg_value:opensource>\n\
             </tool_call:opensource>\n<tool_call:opensource>no-args<tool_sep:opensource>\n</tool_call:opensource>\n</tool_calls:opensource>"
                .into(),
            both,
        ),
        (
            F::Open,
            "<|open|>response<|sep|><|close|>response<|sep|><|open|>tools<|sep|><|open|>call tool=\"get_weather\" index=\"1\"<|sep|>\
             <|open|>argument key=\"city\" type=\"string\"<|sep|>Röm<|close|>argument<|sep|><|open|>argument key=\"days\" type=\"number\"<|sep|>2<|close|>argument<|sep|>\
             <|close|>call<|sep|><|open|>call tool=\"no-args\" index=\"2\"<|sep|><|close|>call<|sep|><|close|>tools<|sep|><|close|>message<|sep|>"
                .into(),
            both,
        ),
        (
            F::Elements,
            "]<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name=\"get_weather\">]<]minimax[>[<city>Röm]<]minimax[>[</city>]<]minimax[>[<days>2]<]minimax[>[</days>]<]minimax[>[</invoke>\n\
             ]<]minimax[>[<invoke name=\"no-args\">]<]minimax[>[</invoke>\n]<]minimax[>[</tool_call>"
                .into(),
            both,
        ),
        (
            F::Quoted,
            "<|tool_call>call:get_weather{city:<|\"|>Röm<|\"|>,days:2}<tool_call|><|tool_call>call:no-args{}<tool_call|>".into(),
            both,
        ),
        (
            F::Recipients,
            " to=get_weather<|message|><atem:function_calls>\n<atem:invoke name=\"get_weather\">\n<atem:parameter name=\"city\">Röm</atem:parameter>\n\
             <atem:parameter name=\"days\">2</atem:parameter>\n</atem:invoke>\n</atem:function_calls><|eom|><|start|>assistant to=no-args<|message|>\
             <atem:function_calls>\n<atem:invoke name=\"no-args\">\n</atem:invoke>\n</atem:function_calls><|eot|>"
                .into(),
            both,
        ),
    ];
    for (format, text, want) in cases {
        check(*format, text, "", want);
        if !format.frames_answers() {
            check(*format, &format!("Let me look.{text}"), "Let me look.", want);
        }
        let spaced = format!("<function={text}");
        every_way(*format, &spaced);
    }
    let tested: Vec<_> = cases.iter().map(|case| case.0).collect();
    let old = [
        F::Hermes,
        F::Llama3,
        F::Pythonic,
        F::Mistral,
        F::MistralList,
        F::DeepSeek,
        F::DeepSeekFenced,
        F::Harmony,
        F::Gemma,
    ];
    assert!(ToolFormat::all().all(|format| tested.contains(&format) || old.contains(&format)));
}

/// Values in markup: typed by the schema, nested, with markup of other kinds in them.
#[test]
fn values_in_markup() {
    let schema = json!({"type": "object", "properties": {
        "code": {"type": "string"}, "n": {"type": "integer"}, "l": {"type": "array", "items": {"type": "string"}},
        "o": {"type": "object", "properties": {"a": {"type": "number"}}}}});
    let calls = |format, text: &str| {
        let mut parser = ToolParser::with_schemas(format, vec![("f".into(), Some(schema.clone()))], 1);
        let pieces = parser.push(text).into_iter().chain(parser.finish());
        gather(pieces).calls.into_iter().map(|(_, arguments)| arguments.to_string()).collect::<Vec<_>>()
    };
    let text = "<function=f><parameter=code>\nif a < b:\n  print('<p>')</p>\n\n</parameter><parameter=n>7</parameter>\
        <parameter=l>['x', \"y\"]</parameter><parameter=o>{\"a\": 1.5}</parameter></function>";
    let want = r#"{"code":"if a < b:\n  print('<p>')</p>\n","n":7,"l":["x","y"],"o":{"a":1.5}}"#;
    assert_eq!(calls(ToolFormat::FunctionTags, text), [want]);
    let s = "]<]minimax[>[";
    let text = format!(
        "{s}<invoke name=\"f\">{s}<code>1{s}</code>{s}<l>{s}<item>2{s}</item>{s}<item>x{s}</item>{s}</l>{s}<o>{s}<a>1.5{s}</a>{s}</o>{s}</invoke>"
    );
    assert_eq!(calls(ToolFormat::Elements, &text), [r#"{"code":"1","l":["2","x"],"o":{"a":1.5}}"#]);
    let text = "<|tool_call>call:f{code:<|\"|>{a}, <tool_<|\"|>,l:[<|\"|>x<|\"|>],o:{<|\"|>a<|\"|>:-1.5}}<tool_call|>";
    assert_eq!(calls(ToolFormat::Quoted, text), [r#"{"code":"{a}, <tool_","l":["x"],"o":{"a":-1.5}}"#]);
}

/// An answer that its limit cuts: the call is given once, as far as it came, and no markup is text.
#[test]
fn what_the_limit_cuts() {
    let cut = |format, text: &str| {
        let mut parser = ToolParser::new(format, &["f", "get_weather"], 1);
        let whole = gather(parser.push(text).into_iter().chain(parser.cut()));
        let mut parser = ToolParser::new(format, &["f", "get_weather"], 1);
        let mut pieces: Vec<Piece> = text.chars().flat_map(|c| parser.push(&c.to_string())).collect();
        pieces.extend(parser.cut());
        assert_eq!(gather(pieces), whole, "{text}");
        whole
    };
    let call =
        "Hm.<tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": \"R\", \"l\": [1, {\"a\": \"x\"}]}}\n</tool_call>";
    let (mut cuts, mut nothing) = (0, 0);
    for at in 0..=call.len() {
        let got = cut(ToolFormat::Hermes, &call[..at]);
        assert!("Hm.<to".starts_with(&got.text) && (got.text.len() <= 3 || at < 7), "{got:?}");
        match (&got.cut, &got.calls[..]) {
            (Some((sent, whole)), []) => {
                assert!(call.contains(sent) && whole.is_object(), "{got:?}");
                cuts += 1;
            }
            (None, []) => nothing += 1,
            (None, [_]) => assert!(at >= call.len() - "}\n</tool_call>".len()),
            other => panic!("{other:?}"),
        }
    }
    assert!(cuts > 30 && nothing > 20, "{cuts} {nothing}");
    let cases = [
        (ToolFormat::Hermes, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"x", r#"{"a":"x"}"#),
        (ToolFormat::Hermes, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1, \"b", r#"{"a":1}"#),
        (ToolFormat::Hermes, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": [1, [2, tr", r#"{"a":[1,[2]]}"#),
        (ToolFormat::Mistral, "[TOOL_CALLS]f[ARGS]{", "{}"),
        (ToolFormat::FunctionTags, "<function=f>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\nx", r#"{"a":1}"#),
        (ToolFormat::Harmony, "<|channel|>commentary to=functions.f<|message|>{\"a\": {\"b\": \"", r#"{"a":{"b":""}}"#),
    ];
    for (format, text, want) in cases {
        let got = cut(format, text);
        assert_eq!((got.text.as_str(), got.cut.unwrap().1.to_string().as_str()), ("", want), "{text}");
    }
    assert_eq!(cut(ToolFormat::Hermes, "a < b, a <").text, "a < b, a <");
    assert_eq!(cut(ToolFormat::Hermes, "a <tool_ca").text.trim_end(), "a");
    assert_eq!(cut(ToolFormat::Llama3, "{\"title\": ").text, "{\"title\": ");
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
        for format in ToolFormat::all() {
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
        for format in ToolFormat::all() {
            let whole = every_way(format, &text);
            if whole.calls.is_empty() && all_is_text(format) {
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
    "<function=",
    "f>",
    "<parameter=a>",
    "</parameter>",
    "</function>",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
    "<invoke name=\"f\">",
    "</invoke>",
    ">>>",
    "all\n",
    "<|tool_call>call:",
    "<tool_call|>",
    "<|\"|>",
];
