//! Second turns of coding clients as they were recorded, in small: whatever the API and whatever stands beside the words, the
//! model reads one conversation. Prompts are compared by their tokens. First turns, tools and answers are in `clients`.

use crate::clients::{chat, merged, response};
use crate::common::{TestServer, serving};
use ir_server::{Guard, router};
use serde_json::{Value as Json, json};

const DIRECTIONS: &str = "Be brief. Work in /home/u/p.";
const ASKED: &str = "Read a.txt";
const RESULT: &str = "No such file.";

const CHAT: &str = "/v1/chat/completions/input_tokens";
const RESPONSES: &str = "/v1/responses/input_tokens";
const MESSAGES: &str = "/v1/messages/count_tokens";

fn schema() -> Json {
    json!({"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]})
}

/// A chat of these turns, with the one tool.
fn talk(messages: Json) -> Json {
    let function = json!({"name": "read", "description": "Reads.", "parameters": schema()});
    chat(json!({"messages": messages, "tools": [{"type": "function", "function": function}]}))
}

/// The same as a response's input.
fn items(input: Json) -> Json {
    let tool = json!({"type": "function", "name": "read", "description": "Reads.", "parameters": schema()});
    response(json!({"input": input, "tools": [tool], "store": false}))
}

fn call() -> Json {
    json!({"id": "call_1", "type": "function", "function": {"name": "read", "arguments": "{\"path\":\"\"}"}})
}

/// Directions, a question, an answer with a call and the result, plainly.
fn plain(calls: usize) -> Json {
    let mut turns = vec![
        json!({"role": "system", "content": DIRECTIONS}),
        json!({"role": "user", "content": ASKED}),
        json!({"role": "assistant", "tool_calls": vec![call(); calls]}),
    ];
    turns.extend(vec![json!({"role": "tool", "tool_call_id": "call_1", "content": RESULT}); calls]);
    talk(Json::from(turns))
}

#[tokio::test(flavor = "multi_thread")]
async fn second_turns_over_chat_completions() {
    let server = TestServer::tiny();
    let said = |more: Json| merged(json!({"role": "assistant", "tool_calls": [call()]}), more);
    let system = json!({"role": "system", "content": DIRECTIONS});
    let user = json!({"role": "user", "content": ASKED});
    let result = json!({"role": "tool", "content": RESULT, "tool_call_id": "call_1"});
    let want = server.count(CHAT, plain(1)).await;
    for (client, turns) in [
        ("opencode", json!([system, user, said(json!({"content": "", "reasoning_content": "Hmm yes"})), result])),
        ("continue", json!([system, user, said(json!({"content": ""})), result])),
        ("cline", json!([system, user, said(json!({"content": null, "reasoning_content": "Hmm yes"})), result])),
        (
            "copilot",
            json!([
                system,
                user,
                said(json!({"content": null, "refusal": null, "reasoning_content": "Hmm yes"})),
                result
            ]),
        ),
        ("an SDK's dump", {
            let empty =
                json!({"content": null, "refusal": null, "audio": null, "function_call": null, "annotations": null});
            json!([system, user, said(empty), result])
        }),
        ("gptme", {
            let text = |text: &str| json!([{"type": "text", "text": text}]);
            let result = json!({"role": "tool", "content": text(RESULT), "tool_call_id": "call_1"});
            json!([{"role": "system", "content": text(DIRECTIONS)}, {"role": "user", "content": text(ASKED)}, said(json!({})), result])
        }),
    ] {
        assert_eq!(server.count(CHAT, talk(turns)).await, want, "{client}");
    }
    // Two calls and both results are there, and what an answer says beside its call.
    let two = server.count(CHAT, plain(2)).await;
    assert!(two > want, "{two} and {want}");
    let (told, words) = (said(json!({"content": "I look."})), json!({"role": "assistant", "content": "I look."}));
    let nanocoder = server.count(CHAT, talk(json!([system, user, told, result]))).await;
    let (without, with) = (json!([system, user]), json!([system, user, words]));
    let told = server.count(CHAT, talk(with)).await - server.count(CHAT, talk(without)).await;
    assert!(nanocoder > want && told > 0, "{nanocoder} and {want}");
    // Directions in front of one another are all read.
    let three = json!([system, system, system, user, said(json!({})), result]);
    let more = server.count(CHAT, talk(three)).await - want;
    let one = json!([system, system, user, said(json!({})), result]);
    assert_eq!(more, 2 * (server.count(CHAT, talk(one)).await - want));
}

#[tokio::test(flavor = "multi_thread")]
async fn second_turns_over_responses_and_messages() {
    let server = TestServer::tiny();
    let want = server.count(CHAT, plain(2)).await;
    let call =
        |id: &str| json!({"type": "function_call", "call_id": id, "name": "read", "arguments": "{\"path\":\"\"}"});
    let output = |id: &str| json!({"type": "function_call_output", "call_id": id, "output": RESULT});
    let named = |id: &str| merged(call(id), json!({"id": format!("fc_{id}")}));
    let user = json!({"role": "user", "content": [{"type": "input_text", "text": ASKED}]});
    let thought = json!({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hmm yes"}], "status": "completed"});
    for (client, input) in [
        (
            "opencode",
            json!([{"role": "system", "content": DIRECTIONS}, user, call("a"), call("b"), output("a"), output("b")]),
        ),
        (
            "pi",
            json!([{"role": "developer", "content": DIRECTIONS}, user, thought, named("a"), named("b"), output("a"), output("b")]),
        ),
    ] {
        assert_eq!(server.count(RESPONSES, items(input)).await, want, "{client}");
    }
    let used = |id: &str| json!({"type": "tool_use", "id": id, "name": "read", "input": {"path": ""}});
    let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id, "content": RESULT});
    let copilot = json!({
        "system": [{"type": "text", "text": DIRECTIONS}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": ASKED}]},
            {"role": "assistant", "content": [used("a"), used("b")]},
            {"role": "user", "content": [result("a"), result("b")]},
        ],
        "tools": [{"name": "read", "description": "Reads.", "input_schema": schema()}],
    });
    assert_eq!(server.count(MESSAGES, chat(copilot)).await, want, "copilot over messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_counted_in_openais_form() {
    let server = TestServer::tiny();
    let counted = server.answered(RESPONSES, json!({"model": "ir-tiny", "input": "What is 2 + 3?"})).await;
    assert_eq!(counted["object"], json!("response.input_tokens"));
    let answer = server.answered("/v1/responses", response(json!({"input": "What is 2 + 3?"}))).await;
    assert_eq!(counted["input_tokens"], answer["usage"]["input_tokens"]);
}

/// A template that refuses what clients send, as some models have it.
const STRICT: &str = "{%- for m in messages -%}{%- if m.role == 'system' and not loop.first -%}\
    {{- raise_exception('System message must be at the beginning.') -}}{%- endif -%}\
    {%- if loop.index > 1 and m.role == loop.previtem.role -%}{{- raise_exception('Roles must alternate.') -}}{%- endif -%}\
    {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}{%- endfor -%}\
    {%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}";

/// A server whose ir-tiny has the strict template: it is put over the other in the file, which is no shorter.
fn strict() -> TestServer {
    let mut file = ir_engine::builtin::bytes().to_vec();
    let own = ir_engine::file::ModelFile::from_bytes(ir_engine::builtin::bytes()).unwrap();
    let own = own.meta().opt_str("tokenizer.chat_template").unwrap().unwrap().as_bytes().to_vec();
    let at = file.windows(own.len()).position(|window| window == own).unwrap();
    let comment = own.len().checked_sub(STRICT.len() + 4).expect("the template fits");
    let text = format!("{{#{}#}}{STRICT}", " ".repeat(comment));
    file[at..at + own.len()].copy_from_slice(text.as_bytes());
    let path = crate::common::folder("strict").join("strict.gguf");
    std::fs::write(&path, file).unwrap();
    let hub = serving(vec![("strict".into(), path)]);
    TestServer { app: router(hub.clone(), Guard { check_host: true, ..Guard::default() }), hub }
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_that_a_template_refuses_are_folded_together() {
    let server = strict();
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let of = |messages: Json| merged(chat(json!({"messages": messages})), json!({"model": "strict", "max_tokens": 4}));
    for (given, folded) in [
        (
            json!([turn("system", "x"), turn("system", "y"), turn("user", "a")]),
            json!([turn("system", "x\n\ny"), turn("user", "a")]),
        ),
        (
            json!([turn("developer", "x"), turn("system", "y"), turn("user", "a")]),
            json!([turn("system", "x\n\ny"), turn("user", "a")]),
        ),
        (
            json!([turn("system", "x"), turn("user", "a"), turn("system", "y"), turn("user", "b")]),
            json!([turn("system", "x"), turn("user", "a\n\ny\n\nb")]),
        ),
        (json!([turn("user", "a"), turn("user", "b")]), json!([turn("user", "a\n\nb")])),
        (
            json!([turn("user", "a"), turn("assistant", "b"), turn("assistant", "c"), turn("user", "d")]),
            json!([turn("user", "a"), turn("assistant", "b\n\nc"), turn("user", "d")]),
        ),
    ] {
        server.answered("/v1/chat/completions", of(given.clone())).await;
        let two = (server.count(CHAT, of(given.clone())).await, server.count(CHAT, of(folded)).await);
        assert_eq!(two.0, two.1, "{given}");
    }
    let messages = json!([turn("user", "a"), turn("system", "tokens left"), turn("user", "b")]);
    let body = merged(of(messages), json!({"system": "x"}));
    server.answered("/v1/messages", body).await;
    let input = json!([turn("developer", "d1"), turn("developer", "d2"), turn("user", "env"), turn("user", "hi")]);
    server.answered("/v1/responses", merged(response(json!({"input": input})), json!({"model": "strict"}))).await;
}
