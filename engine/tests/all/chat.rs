//! Chat templates against what Hugging Face's `apply_chat_template` made of the same chats.

use std::path::Path;

use ir_engine::builtin;
use ir_engine::error::Error;
use ir_engine::file::ModelFile;
use ir_engine::meta::{Meta, MetaBuilder};
use ir_engine::text::chat::{ChatTemplate, Message, Now, RenderInput, Source, ThinkSplitter};
use serde_json::Value as Json;

/// The chats of `ir-tiny`, prompts included: the template in its file must give them byte for byte.
#[test]
fn ir_tiny_prompts_are_exact() {
    let data: Json = serde_json::from_str(include_str!("../data/chat/ir-tiny.json")).unwrap();
    let file = ModelFile::from_bytes(builtin::bytes()).unwrap();
    let template = ChatTemplate::from_meta(file.meta(), &|_| false).unwrap().unwrap();
    assert!(template.supports_system() && template.supports_tools() && !template.thinks());
    let chats = data["chats"].as_array().unwrap();
    assert!(chats.len() >= 30);
    let mut with_tools = 0;
    for chat in chats {
        let messages: Vec<Message> = serde_json::from_value(chat["messages"].clone()).unwrap();
        let tools = chat["tools"].as_array().cloned().unwrap_or_default();
        with_tools += usize::from(!tools.is_empty());
        let input =
            RenderInput { messages: &messages, tools: &tools, add_generation_prompt: true, ..RenderInput::default() };
        assert_eq!(template.render(&input).unwrap().text, chat["prompt"].as_str().unwrap());
    }
    assert!(with_tools >= 4);
}

/// The chats of `cases.json` by name.
fn cases(dir: &Path) -> Json {
    serde_json::from_str(&std::fs::read_to_string(dir.join("cases.json")).unwrap()).unwrap()
}

/// What a template makes of a case, in the form of `expected.json`.
fn outcome(template: &Result<ChatTemplate, Error>, case: &Json) -> Result<String, String> {
    let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
    let template = template.as_ref().map_err(|e| e.to_string())?;
    let input = RenderInput {
        messages: &messages,
        tools: case["tools"].as_array().map_or(&[], Vec::as_slice),
        add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap_or(true),
        bos: "<s>",
        eos: "</s>",
        think: case["think"].as_bool(),
        kwargs: case["kwargs"].as_object(),
        now: Now { unix_seconds: 1_735_603_200, utc_offset: 0 },
    };
    template.render(&input).map(|rendered| rendered.text).map_err(|e| e.to_string())
}

/// Refusals of templates that folding the turns serves.
const FOLDED: [&str; 3] = [
    "Turns must alternate, but turn 2 is by user.",
    "A tool answers, but none was called.",
    "This model takes no system turn",
];

/// Compares one outcome with Python's; the reason where they differ.
fn differs(got: &Result<String, String>, want: &Json) -> Option<String> {
    let same = match (got, want["text"].as_str(), want["raised"].as_str()) {
        // Python prints an absent content as `None`.
        (Ok(text), Some(expected), _) => text == expected || *text == expected.replace("None", ""),
        (Err(sentence), None, Some(raised)) => *sentence == format!("chat template: {raised}"),
        (Err(_), None, None) => true,
        // What a template refuses is folded together and laid out all the same, where that helps.
        (Ok(text), None, Some(raised)) => FOLDED.contains(&raised) && !text.contains("None"),
        // Python stops at a loop over `None`; a loop that does not run serves everyone better.
        (Ok(_), None, None) => want["error"].as_str() == Some("TypeError: 'NoneType' object is not iterable"),
        _ => false,
    };
    (!same).then(|| format!("ours {got:?}\n  want {want}"))
}

fn check(dir: &Path) {
    let expected: Json = serde_json::from_str(&std::fs::read_to_string(dir.join("expected.json")).unwrap()).unwrap();
    let cases = cases(dir);
    let (mut seen, mut wrong) = (0, Vec::new());
    for (name, entry) in expected["templates"].as_object().unwrap() {
        let template = ChatTemplate::new(entry["source"].as_str().unwrap(), None);
        for (case, want) in entry["cases"].as_object().unwrap() {
            seen += 1;
            let why = differs(&outcome(&template, &cases[case]), want);
            wrong.extend(why.map(|w| format!("{name} with {case}:\n  {w}")));
        }
    }
    for entry in expected["snippets"].as_array().unwrap() {
        seen += 1;
        let source = entry["source"].as_str().unwrap();
        let why = differs(&outcome(&ChatTemplate::new(source, None), &cases["snippets"]), entry);
        wrong.extend(why.map(|w| format!("{source:?}:\n  {w}")));
    }
    assert!(seen > 150, "only {seen} outcomes to compare");
    assert!(wrong.is_empty(), "{} of {seen} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Templates in the style of the hub's and some hundred snippets of Jinja: as Python renders them.
#[test]
fn templates_render_as_in_python() {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/chat"));
}

fn chat(pairs: &[(&str, &str)]) -> Vec<Message> {
    pairs.iter().map(|(role, content)| Message::new(*role, *content)).collect()
}

/// Where a template comes from: the file, its variant for tools, the family, nowhere.
#[test]
fn templates_are_found() {
    let messages = chat(&[("user", "hi")]);
    let tools = [serde_json::json!({"type": "function", "function": {"name": "f"}})];
    let meta = MetaBuilder::new()
        .str("tokenizer.chat_template", "plain {{ messages[0].content }}")
        .str("tokenizer.chat_template.tool_use", "tools {{ tools[0].function.name }}")
        .build();
    let template = ChatTemplate::from_meta(&meta, &|_| false).unwrap().unwrap();
    assert_eq!(template.source(), Source::File);
    let with = |tools: &[Json]| {
        template.render(&RenderInput { messages: &messages, tools, ..RenderInput::default() }).unwrap().text
    };
    assert_eq!((with(&[]).as_str(), with(&tools).as_str()), ("plain hi", "tools f"));
    let none = Meta::default();
    let family = ChatTemplate::from_meta(&none, &|t| t.starts_with("<|im_")).unwrap().unwrap();
    assert_eq!(family.source(), Source::Family("phi-4"));
    assert!(ChatTemplate::from_meta(&none, &|_| false).unwrap().is_none());
    let broken = MetaBuilder::new().str("tokenizer.chat_template", "a\n{% if %}").build();
    let template = ChatTemplate::from_meta(&broken, &|_| true).unwrap().unwrap();
    assert_eq!((template.source(), template.broken()), (Source::File, Some("unexpected end of block (line 2)")));
    assert!(!template.supports_system() && !template.supports_tools() && !template.thinks());
    let input = RenderInput { messages: &messages, ..RenderInput::default() };
    let sentence = template.render(&input).unwrap_err().to_string();
    assert!(sentence.starts_with("chat template: the one of the model's file does not parse"), "{sentence}");
    assert!(sentence.contains("(unexpected end of block (line 2))") && sentence.contains("without it"), "{sentence}");
}

/// What a template can do is found without asking it to fail.
#[test]
fn capabilities_are_probed() {
    let read = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/chat/templates").join(name);
        ChatTemplate::new(&std::fs::read_to_string(path).unwrap(), None).unwrap()
    };
    let found = |name: &str| {
        let t = read(name);
        (t.supports_system(), t.supports_tools(), t.thinks(), t.can_switch_thinking())
    };
    assert_eq!(found("alternating.jinja"), (true, true, false, false));
    assert_eq!(found("no-system.jinja"), (true, false, false, false), "into the user's turn");
    assert_eq!(found("lines.jinja"), (true, false, false, false));
    assert_eq!(found("reasoning.jinja"), (true, false, true, true));
    assert_eq!(found("macros.jinja"), (true, true, false, false));
    let folded = read("no-system.jinja")
        .render(&RenderInput { messages: &chat(&[("system", "s"), ("user", "u")]), ..RenderInput::default() });
    assert_eq!(folded.unwrap().text, "<turn>user\ns\n\nu<end>\n");
}

/// A prompt that ends inside the reasoning says so, and the model's stream splits accordingly.
#[test]
fn reasoning_is_told_from_the_answer() {
    let source = include_str!("../data/chat/templates/reasoning.jinja");
    let template = ChatTemplate::new(source, None).unwrap();
    let messages = chat(&[("user", "2+2?")]);
    let render = |think| {
        let base = RenderInput { messages: &messages, add_generation_prompt: true, ..RenderInput::default() };
        template.render(&RenderInput { think, ..base }).unwrap()
    };
    assert!(render(None).thinking && render(Some(true)).thinking && !render(Some(false)).thinking);
    let tags = template.think_tags().unwrap();
    let mut splitter = ThinkSplitter::new(tags, render(None).thinking);
    let (mut thinking, mut answer) = (String::new(), String::new());
    for piece in ["Two and", " two.\n</th", "ink>\n\n", "4"].map(|p| splitter.push(p)) {
        thinking += &piece.thinking;
        answer += &piece.answer;
    }
    assert_eq!((thinking.as_str(), answer.as_str()), ("Two and two.", "4"));
}

/// A chat far longer than any context stays within the limits that stop hostile templates.
#[test]
fn long_chats_fit_the_limits() {
    let text = "A sentence of no great length, again. ".repeat(50);
    let mut messages = vec![Message::new("system", text.clone())];
    messages.extend((0..1000).map(|i| Message::new(["user", "assistant"][i % 2], text.clone())));
    let expected: Json = serde_json::from_str(include_str!("../data/chat/expected.json")).unwrap();
    for (name, entry) in expected["templates"].as_object().unwrap() {
        if name == "no-system.jinja" {
            continue;
        }
        let template = ChatTemplate::new(entry["source"].as_str().unwrap(), None).unwrap();
        let rendered = template.render(&RenderInput { messages: &messages, ..RenderInput::default() });
        let len = rendered.unwrap_or_else(|e| panic!("{name}: {e}")).text.len();
        assert!(len > 400 * text.len(), "{name}: {len}");
    }
}
