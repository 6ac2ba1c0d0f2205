//! Text is text: what a message spells is no markup, whatever the template; and harmless texts make the ids that they
//! always made. `IR_TEMPLATES` names a folder of more templates to prove it on.

use std::collections::BTreeSet;
use std::path::Path;

use ir_engine::text::Tokenizer;
use ir_engine::text::chat::{ChatTemplate, Marked, Message, RenderInput, ToolCall};
use serde_json::{Value as Json, json};

use crate::common::skipped;
use crate::constrain::walk::made;

/// Places of a chat where somebody's text stands.
const PLACES: [&str; 8] = ["system", "user", "answer", "reasoning", "argument", "result", "tool", "last"];

/// A chat with a text in one place.
fn chat(place: &str, text: &str) -> (Vec<Message>, Vec<Json>) {
    let at = |name: &str, usual: &str| if name == place { text.to_owned() } else { usual.to_owned() };
    let call = ToolCall {
        id: Some("call00001".into()),
        name: "get".into(),
        arguments: json!({"city": at("argument", "Rome")}),
    };
    let answer =
        Message { reasoning_content: Some(at("reasoning", "hm")), ..Message::new("assistant", at("answer", "b")) };
    let mut messages = vec![Message::new("user", at("user", "a")), answer];
    if place == "system" {
        messages.insert(0, Message::new("system", text));
    }
    if ["argument", "result"].contains(&place) {
        messages.push(Message::new("user", "c"));
        messages.push(Message { role: "assistant".into(), tool_calls: vec![call], ..Message::default() });
        let id = Some("call00001".into());
        messages.push(Message {
            tool_name: Some("get".into()),
            tool_call_id: id,
            ..Message::new("tool", at("result", "21"))
        });
    } else {
        messages.push(Message::new("user", at("last", "c")));
    }
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let function = json!({"name": "get", "description": at("tool", "what it does"), "parameters": parameters});
    let tools = if place == "tool" { vec![json!({"type": "function", "function": function})] } else { Vec::new() };
    (messages, tools)
}

fn marked(
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
    place: &str,
    text: &str,
) -> Option<(Marked, Vec<u32>, String)> {
    let (messages, tools) = chat(place, text);
    let input = RenderInput {
        messages: &messages,
        tools: &tools,
        add_generation_prompt: true,
        bos: "<s>",
        eos: "</s>",
        ..RenderInput::default()
    };
    let plain = template.render(&input).ok()?.text;
    let marked = template.render_marked(&input, tokenizer).unwrap();
    let ids = tokenizer.encode_guarded(&marked.rendered.text, &marked.guards);
    Some((marked, ids, plain))
}

/// What a template's source spells like control tokens.
fn spelled(source: &str) -> Vec<String> {
    let mut found: BTreeSet<String> = ["<|im_start|>", "<|im_end|>", "<s>", "[INST]"].map(str::to_owned).into();
    for (open, close) in [('<', '>'), ('[', ']')] {
        for (at, _) in source.match_indices(open) {
            let rest: String = source[at + 1..].chars().take(40).take_while(|c| *c != close).collect();
            let word = |c: char| c.is_alphanumeric() || "|/_-:▁｜".contains(c);
            let sign = if open == '[' {
                rest.len() > 2 && rest.chars().all(|c| c.is_ascii_uppercase() || "_/".contains(c))
            } else {
                true
            };
            if !rest.is_empty() && rest.chars().all(word) && source[at + 1 + rest.len()..].starts_with(close) && sign {
                found.insert(format!("{open}{rest}{close}"));
            }
        }
    }
    found.remove("</s>");
    found.into_iter().collect()
}

fn check(name: &str, source: &str, examined: &mut BTreeSet<String>) -> usize {
    let Ok(template) = ChatTemplate::new(source, None) else { return 0 };
    let specials = spelled(source);
    let tokenizer = made(&specials.iter().map(|text| (text.as_str(), 3)).collect::<Vec<_>>());
    let controls = |ids: &[u32]| ids.iter().filter(|id| tokenizer.is_control(**id)).copied().collect::<Vec<_>>();
    let mut proven = 0;
    for place in PLACES {
        for text in ["ab", "if a < b[1]: # <b>\n  x[2] <", "<", "x <| y|>", "\"<\" \\ 'é🦀' {{ x }} {% y %}"] {
            let Some((marked, ids, plain)) = marked(&template, &tokenizer, place, text) else { continue };
            assert_eq!(marked.rendered.text, plain, "{name}, {place}: {text:?}");
            assert_eq!(ids, tokenizer.encode(&plain, false, true), "{name}, {place}: {text:?}");
            assert!(marked.examined.is_empty());
        }
        let Some((.., harmless, _)) = marked(&template, &tokenizer, place, "ab") else { continue };
        for special in specials.iter().map(String::as_str).chain(["</s>"]) {
            let Some((marked, ids, plain)) = marked(&template, &tokenizer, place, &format!("a{special}b")) else {
                continue;
            };
            // A template may leave a turn out, or what it takes for reasoning.
            if !marked.examined.is_empty() {
                assert!(marked.examined.iter().all(|e| e == special), "{name}, {place}: {special}: {marked:?}");
                examined.insert(format!("{name}: {special} ({place})"));
                continue;
            }
            let (got, want) = (controls(&ids), controls(&harmless));
            assert!(got == want, "{name}, {place}: {special} is markup in {plain:?}\n{:?}", marked.rendered.text);
            proven += 1;
        }
    }
    proven
}

fn folder(path: &Path) -> Vec<(String, String)> {
    let mut files: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "jinja"));
    files.sort();
    let read = |file: std::path::PathBuf| (file.display().to_string(), std::fs::read_to_string(file).unwrap());
    files.into_iter().map(read).collect()
}

#[test]
fn what_messages_spell_is_no_markup() {
    let mut templates = folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/chat/templates"));
    let chatml = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";
    let harmony =
        "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content|trim|upper }}<|end|>{% endfor %}";
    let ascii = "{% for m in messages %}<|a|>{{ m|tojson(ensure_ascii=true) }}<|b|>{% endfor %}";
    let letters = "{% for m in messages %}<|a|>{% for c in m.content %}{{ c }}{% endfor %}<|b|>{% endfor %}";
    let halves = "{% for m in messages %}{{ m.content.replace('a', '') }}<|b|>{% endfor %}<|a|>";
    for source in [chatml, harmony, ascii, letters, halves] {
        templates.push((source.into(), source.into()));
    }
    match std::env::var_os("IR_TEMPLATES") {
        Some(path) => templates.extend(folder(Path::new(&path))),
        None => skipped("templates beside the project's own: name a folder by IR_TEMPLATES"),
    }
    let mut examined = BTreeSet::new();
    let proven: usize = templates.iter().map(|(name, source)| check(name, source, &mut examined)).sum();
    println!("{proven} texts in {} templates; examined:\n{examined:#?}", templates.len());
    assert!(proven > 300, "{proven}");
}

/// What makes markup only together: two messages' halves, a template that takes something out or writes small letters.
#[test]
fn no_markup_is_put_together_of_texts() {
    let tokenizer = made(&[("<|x|>", 3), ("<|end|>", 4)]);
    let controls = |source: &str, texts: &[&str]| {
        let template = ChatTemplate::new(source, None).unwrap();
        let messages: Vec<Message> = texts.iter().map(|text| Message::new("user", *text)).collect();
        let input = RenderInput { messages: &messages, ..RenderInput::default() };
        let marked = template.render_marked(&input, &tokenizer).unwrap();
        let ids = tokenizer.encode_guarded(&marked.rendered.text, &marked.guards);
        ids.iter().filter(|id| **id >= 256).count()
    };
    let joined = "{% for m in messages %}{{ m.content }}{% endfor %}<|x|>";
    assert_eq!(controls(joined, &["a", "b"]), 1);
    assert_eq!(controls(joined, &["a<|", "x|>b"]), 1);
    assert_eq!(controls(joined, &["a<|end|>"]), 1, "a token of users that is spelled like a control token");
    assert_eq!(controls("{% for m in messages %}{{ m.content|lower }}{% endfor %}", &["<|X|>"]), 0);
    assert_eq!(controls("{{ messages[0].content.replace('_', '') }}", &["<|_x|>"]), 0);
    assert_eq!(controls("<|{{ messages[0].content }}|>", &["x"]), 1, "what the template puts together is its own");
    // A template that examines a spelling: it counts in the assistant's turns, and nowhere else.
    let cut = "{% for m in messages %}{{ m.content.split('<|x|>')[-1] if m.role == 'assistant' else m.content }};{% endfor %}";
    let template = ChatTemplate::new(cut, None).unwrap();
    let messages = [Message::new("user", "a<|x|>b"), Message::new("assistant", "a<|x|>b")];
    let input = RenderInput { messages: &messages, ..RenderInput::default() };
    let marked = template.render_marked(&input, &tokenizer).unwrap();
    assert_eq!((marked.rendered.text.as_str(), &marked.examined[..]), ("a<|x|>b;b;", &["<|x|>".to_owned()][..]));
    assert!(tokenizer.encode_guarded(&marked.rendered.text, &marked.guards).iter().all(|id| *id < 256));
}
