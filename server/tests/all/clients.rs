//! What coding clients send, in small: tools and histories of every kind, what becomes of them in the prompt, and every
//! kind of answer sent back as it came. Prompts are compared by their tokens with those of plainer requests.

use crate::common::{TestServer, text};
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value as Json, json};

const LINE: &str = "[image left out: this model reads text only]";

pub(crate) fn merged(mut body: Json, more: Json) -> Json {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

pub(crate) fn response(more: Json) -> Json {
    merged(json!({"model": "ir-tiny", "input": "Go", "max_output_tokens": 60, "temperature": 0}), more)
}

pub(crate) fn chat(more: Json) -> Json {
    let messages = json!([{"role": "user", "content": "Go"}]);
    merged(json!({"model": "ir-tiny", "messages": messages, "max_tokens": 60, "temperature": 0}), more)
}

fn function(name: &str) -> Json {
    let parameters =
        json!({"type": "object", "properties": {"a": {"type": "integer", "maximum": 9}}, "required": ["a"]});
    json!({"type": "function", "name": name, "description": "d", "strict": false, "parameters": parameters})
}

fn namespace(name: &str, tools: &[Json]) -> Json {
    json!({"type": "namespace", "name": name, "description": "What it does.", "tools": tools})
}

impl TestServer {
    pub(crate) async fn answered(&self, path: &str, body: Json) -> Json {
        let (status, answer) = self.ask(path, body.clone()).await;
        assert_eq!(status, 200, "{answer}\n{body}");
        answer
    }

    /// Tokens of a request's prompt.
    pub(crate) async fn count(&self, path: &str, body: Json) -> u64 {
        let answer = self.answered(path, body).await;
        answer["input_tokens"].as_u64().unwrap_or_else(|| panic!("{answer}"))
    }

    /// That two inputs of responses give one prompt.
    async fn alike(&self, given: Json, plain: Json) {
        let path = "/v1/responses/input_tokens";
        let counts = (self.count(path, given.clone()).await, self.count(path, plain.clone()).await);
        assert_eq!(counts.0, counts.1, "{given}\n{plain}");
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Json) {
        let request = Request::get(path).header("host", "localhost").body(Body::empty()).unwrap();
        let (status, body) = text(self.send(request).await).await;
        (status, serde_json::from_str(&body).unwrap_or(Json::String(body)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_namespaces_are_offered_and_called_back() {
    let server = TestServer::tiny();
    let tools = json!([function("run"), namespace("agents", &[function("close")]), {"type": "web_search"},
        {"type": "image_generation"}, {"type": "local_shell"}]);
    server
        .alike(response(json!({"tools": tools})), response(json!({"tools": [function("run"), function("close")]})))
        .await;
    for choice in [
        json!({"type": "function", "name": "close"}),
        json!({"type": "function", "name": "close", "namespace": "agents"}),
    ] {
        let body = response(json!({"tools": tools, "tool_choice": choice}));
        let answer = server.answered("/v1/responses", body.clone()).await;
        let call = &answer["output"][0];
        assert_eq!(
            (&call["type"], &call["name"], &call["namespace"]),
            (&json!("function_call"), &json!("close"), &json!("agents"))
        );
        let result = json!({"type": "function_call_output", "call_id": call["call_id"], "output": "done"});
        let next = response(json!({"tools": tools, "input": [{"role": "user", "content": "Go"}, call, result]}));
        server.answered("/v1/responses", next).await;
    }
    // The same names of two namespaces are told apart.
    let two = json!([namespace("a", &[function("wait")]), namespace("b", &[function("wait")])]);
    let choice = json!({"type": "function", "name": "wait", "namespace": "b"});
    let answer = server.answered("/v1/responses", response(json!({"tools": two, "tool_choice": choice}))).await;
    assert_eq!((&answer["output"][0]["name"], &answer["output"][0]["namespace"]), (&json!("wait"), &json!("b")));
    // What is demanded and cannot be is refused.
    for body in [
        json!({"tool_choice": {"type": "web_search"}}),
        json!({"tool_choice": "required", "tools": [{"type": "web_search"}]}),
    ] {
        let (status, refused) = server.ask("/v1/responses", response(merged(json!({"tools": tools}), body))).await;
        assert_eq!((status, &refused["error"]["param"]), (400, &json!("tool_choice")), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_that_come_later_and_tools_of_texts() {
    let server = TestServer::tiny();
    let exec = json!({"type": "custom", "name": "exec", "description": "d", "format": {"type": "grammar", "syntax": "regex", "definition": "[ab]{3}"}});
    let later = json!({"type": "additional_tools", "role": "developer", "tools": [namespace("functions", &[exec.clone(), function("wait")])]});
    let go = json!({"role": "user", "content": "Go"});
    let choice = json!({"type": "custom", "name": "exec"});
    let given = json!({"input": [later, go], "tool_choice": choice});
    let answer = server.answered("/v1/responses", response(given.clone())).await;
    let call = &answer["output"][0];
    assert_eq!(
        (&call["type"], &call["name"], &call["namespace"]),
        (&json!("custom_tool_call"), &json!("exec"), &json!("functions"))
    );
    let written = call["input"].as_str().unwrap();
    assert!(written.len() == 3 && written.bytes().all(|b| b == b'a' || b == b'b'), "{call}");
    let (status, stream) = server.post("/v1/responses", &response(merged(given, json!({"stream": true})))).await;
    assert!(status == 200 && stream.contains("response.custom_tool_call_input.done"), "{stream}");
    let output = json!({"type": "custom_tool_call_output", "call_id": call["call_id"], "output": [{"type": "input_text", "text": "ok"}]});
    let found = json!({"type": "tool_search_output", "call_id": "s", "status": "completed", "tools": [namespace("agents", &[function("close")])]});
    let search =
        json!({"type": "tool_search_call", "call_id": "s", "execution": "client", "arguments": {"query": "q"}});
    let (input, choice) = (json!([go, call, output, search, found]), json!({"type": "function", "name": "close"}));
    let next = response(json!({"tools": [exec], "input": input, "tool_choice": choice}));
    let answer = server.answered("/v1/responses", next).await;
    assert_eq!((&answer["output"][0]["name"], &answer["output"][0]["namespace"]), (&json!("close"), &json!("agents")));
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_of_every_kind_are_turns_lines_or_nothing() {
    let server = TestServer::tiny();
    let (go, more) = (json!({"role": "user", "content": "Go"}), json!({"role": "user", "content": "More"}));
    let call = |name: &str, arguments: &str| json!({"type": "function_call", "call_id": "c", "name": name, "arguments": arguments});
    let output = |text: &str| json!({"type": "function_call_output", "call_id": "c", "output": text});
    let said = |text: &str| json!({"role": "assistant", "content": text});
    let image = json!([{"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "high"}]);
    let thought = json!({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Look."}], "encrypted_content": "Zm9y"});
    for (given, plain) in [
        (
            json!([go, call("view", "{}"), {"type": "function_call_output", "call_id": "c", "output": image}]),
            json!([go, call("view", "{}"), output(LINE)]),
        ),
        (
            json!([{"role": "user", "content": image}, said("A cat."), more]),
            json!([{"role": "user", "content": LINE}, said("A cat."), more]),
        ),
        (
            json!([go, {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "x"}, {"type": "custom_tool_call_output", "call_id": "c", "output": "ok"}]),
            json!([go, call("patch", "{\"input\":\"x\"}"), output("ok")]),
        ),
        (
            json!([go, {"type": "web_search_call", "id": "w", "status": "completed", "action": {"query": "q"}}, more]),
            json!([go, said("[web_search_call {\"action\":{\"query\":\"q\"}}]"), more]),
        ),
        (
            json!([go, thought, call("run", "{\"a\":1}"), output("ok")]),
            json!([go, thought, call("run", "{\"a\": 1}"), output("ok")]),
        ),
        (
            json!([go, {"type": "compaction", "encrypted_content": "x"}, {"type": "brand_new", "x": 1}, more]),
            json!([go, more]),
        ),
        // Of other servers: what has no id, no text, or is one thing where a list should be.
        (
            json!([go, {"type": "function_call_output", "output": {"a": 1}}, {"type": "tool_search_call", "call_id": null, "arguments": {}, "execution": "server"}, null, {"type": "reasoning", "summary": "x"}, more]),
            json!([go, output("{\"a\":1}"), call("tool_search", "{}"), {"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}]}, more]),
        ),
        (
            json!([go, {"role": "assistant", "content": {"type": "output_text", "text": "A cat."}}, {"role": "assistant", "content": [{"type": "output_text", "text": null}, null]}, more]),
            json!([go, said("A cat."), said(""), more]),
        ),
        (json!([go, call("run", "{\"a\": "), output("no")]), json!([go, call("run", "{\"a\": "), output("no")])),
    ] {
        server.alike(response(json!({"input": given})), response(json!({"input": plain}))).await;
    }
    let (status, refused) =
        server.ask("/v1/responses", response(json!({"input": [{"role": "user", "content": image}]}))).await;
    assert_eq!((status, &refused["error"]["param"]), (400, &json!("input[0].content[0]")), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_are_kept_gone_on_from_and_forgotten() {
    let server = TestServer::tiny();
    let first = server.answered("/v1/responses", response(json!({"input": "What is the capital of France?"}))).await;
    let (id, item) = (first["id"].as_str().unwrap(), &first["output"][0]);
    assert_eq!(first["store"], json!(true));
    let whole = json!([{"role": "user", "content": "What is the capital of France?"}, item, {"role": "user", "content": "More"}]);
    let reference = json!([whole[0], {"type": "item_reference", "id": item["id"]}, whole[2]]);
    server.alike(response(json!({"input": reference})), response(json!({"input": whole}))).await;
    server
        .alike(response(json!({"input": "More", "previous_response_id": id})), response(json!({"input": whole})))
        .await;
    let body = response(json!({"input": "More", "previous_response_id": id, "instructions": "Be brief."}));
    let second = server.answered("/v1/responses", body).await;
    assert_eq!(second["previous_response_id"], json!(id));
    let third = response(json!({"input": "On", "previous_response_id": second["id"]}));
    let rest = json!([whole[0], item, whole[2], second["output"][0], {"role": "user", "content": "On"}]);
    server.alike(third.clone(), response(json!({"input": rest}))).await;

    assert_eq!(server.get(&format!("/v1/responses/{id}")).await, (200, first.clone()));
    let (_, items) = server.get(&format!("/v1/responses/{id}/input_items")).await;
    assert_eq!(items["data"][0]["content"], json!("What is the capital of France?"));
    let delete =
        Request::delete(format!("/v1/responses/{id}")).header("host", "localhost").body(Body::empty()).unwrap();
    assert_eq!(text(server.send(delete).await).await.0, 200);
    assert_eq!(server.get(&format!("/v1/responses/{id}")).await.0, 404);
    let (status, lost) = server.ask("/v1/responses", third).await;
    assert!(status == 404 && lost["error"]["message"].as_str().unwrap().contains(id), "{lost}");
    let (status, lost) =
        server.ask("/v1/responses", response(json!({"input": [{"type": "item_reference", "id": "msg_x"}]}))).await;
    assert!(status == 404 && lost["error"]["message"].as_str().unwrap().contains("msg_x"), "{lost}");
    let unkept = server.answered("/v1/responses", response(json!({"store": false}))).await;
    assert_eq!(server.get(&format!("/v1/responses/{}", unkept["id"].as_str().unwrap())).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_asked_is_answered_with_nothing() {
    let server = TestServer::tiny();
    for body in [
        json!({"input": []}),
        json!({"input": ""}),
        json!({"generate": false}),
        json!({"input": [], "instructions": "Be brief."}),
    ] {
        let answer = server.answered("/v1/responses", response(body)).await;
        assert_eq!((&answer["status"], &answer["output"]), (&json!("completed"), &json!([])), "{answer}");
    }
    let (status, stream) = server.post("/v1/responses", &response(json!({"input": [], "stream": true}))).await;
    assert!(status == 200 && stream.contains("event: response.completed"), "{stream}");
    assert_eq!(server.hub.loaded().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_taken_back_as_they_came() {
    let server = TestServer::tiny();
    let tool = json!({"type": "function", "function": function("pick")});
    let required = json!({"tools": [tool], "tool_choice": "required"});
    for more in [json!({}), required, json!({"functions": [function("pick")], "function_call": {"name": "pick"}})] {
        let answer = server.answered("/v1/chat/completions", chat(more.clone())).await;
        let message = &answer["choices"][0]["message"];
        if more.get("functions").is_some() {
            assert_eq!(
                (&message["function_call"]["name"], &answer["choices"][0]["finish_reason"]),
                (&json!("pick"), &json!("function_call"))
            );
        }
        let extra = merged(
            message.clone(),
            json!({"reasoning": "hm", "reasoning_content": "hm", "annotations": [], "audio": null}),
        );
        for message in [message, &extra] {
            let messages = json!([{"role": "user", "content": "Go"}, message, {"role": "user", "content": "More"}]);
            server.answered("/v1/chat/completions", chat(json!({"messages": messages}))).await;
        }
    }
    let pick = json!({"name": "pick", "input_schema": function("pick")["parameters"]});
    for more in [json!({}), json!({"tools": [pick], "tool_choice": {"type": "any"}})] {
        let answer = server.answered("/v1/messages", chat(more)).await;
        let result = json!([{"type": "tool_result", "tool_use_id": answer["content"][0]["id"].as_str().unwrap_or("x"), "content": "1"}]);
        let messages = json!([{"role": "user", "content": "Go"}, {"role": "assistant", "content": answer["content"]}, {"role": "user", "content": result}]);
        server.answered("/v1/messages", chat(json!({"messages": messages}))).await;
    }
    for more in [json!({}), json!({"tools": [tool], "tool_choice": "required"})] {
        let body = merged(chat(more), json!({"stream": false, "options": {"num_predict": 60, "temperature": 0}}));
        let answer = server.answered("/api/chat", body).await;
        let messages =
            json!([{"role": "user", "content": "Go"}, answer["message"], {"role": "user", "content": "More"}]);
        server.answered("/api/chat", merged(chat(json!({"messages": messages})), json!({"stream": false}))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_claude_code() {
    let server = TestServer::tiny();
    let (path, mut counts) = ("/v1/messages/count_tokens", Vec::new());
    let billing = |n: u32| json!({"type": "text", "text": format!("x-anthropic-billing-header: cc_version=2.1.{n}; cch={n}{n};")});
    let system = |n: u32| json!({"system": [billing(n), {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}}]});
    for body in [system(1), system(99_999), json!({"system": "You are an agent."})] {
        counts.push(server.count(path, chat(body)).await);
    }
    assert!(counts.iter().all(|n| *n == counts[0]), "{counts:?}");
    let web = json!({"type": "web_search_20250305", "name": "web_search", "max_uses": 8});
    let pick = |deferred: bool| json!({"name": "pick", "input_schema": {"type": "object"}, "defer_loading": deferred});
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}});
    let result = |content: Json| {
        json!([{"role": "user", "content": "Go"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Read", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": content, "is_error": true}]},
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}])
    };
    for (given, plain) in [
        (json!({"tools": [web], "tool_choice": {"type": "auto"}}), json!({})),
        (json!({"tools": [pick(true)]}), json!({})),
        (json!({"tools": [pick(false), web]}), json!({"tools": [pick(false)]})),
        (json!({"messages": result(json!([image]))}), json!({"messages": result(json!(LINE))})),
        (
            json!({"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "high"}, "context_management": {"edits": []},
            "safeguards": [{"type": "dangerous_tool_use"}], "metadata": {"user_id": "{}"}}),
            json!({}),
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": "A fox."}}, {"type": "brand_new", "x": 1}]}]}),
            json!({"messages": [{"role": "user", "content": "A fox."}]}),
        ),
    ] {
        let two = (server.count(path, chat(given.clone())).await, server.count(path, chat(plain)).await);
        assert_eq!(two.0, two.1, "{given}");
        server.answered("/v1/messages?beta=true", chat(given)).await;
    }
    let demanded = chat(json!({"tools": [web], "tool_choice": {"type": "tool", "name": "web_search"}}));
    assert_eq!(server.ask("/v1/messages", demanded).await.0, 400);
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer", "maximum": 9}}, "required": ["a"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "schema": schema});
    for form in [json!({"output_format": format}), json!({"output_config": {"format": format, "effort": "low"}})] {
        let answer = server.answered("/v1/messages", chat(form)).await;
        let held: Json = serde_json::from_str(answer["content"][0]["text"].as_str().unwrap()).unwrap();
        assert!(held["a"].is_i64(), "{answer}");
    }
}
