//! Chat templates against what Hugging Face's `apply_chat_template` made of the same chats.

use std::path::Path;

use ir_engine::error::Error;
use ir_engine::text::chat::{ChatTemplate, Message, Now, RenderInput};
use serde_json::Value as Json;

/// The chats of `ir-tiny`, prompts included: its template must give them byte for byte.
#[test]
fn ir_tiny_prompts_are_exact() {
    let data: Json = serde_json::from_str(include_str!("data/chat/ir-tiny.json")).unwrap();
    let template = ChatTemplate::new(data["template"].as_str().unwrap(), None).unwrap();
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

/// Compares one outcome with Python's; the reason where they differ.
fn differs(got: &Result<String, String>, want: &Json) -> Option<String> {
    let same = match (got, want["text"].as_str(), want["raised"].as_str()) {
        (Ok(text), Some(expected), _) => text == expected,
        (Err(sentence), None, Some(raised)) => *sentence == format!("chat template: {raised}"),
        (Err(_), None, None) => true,
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
