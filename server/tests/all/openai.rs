//! OpenAI's API against ir-tiny, in this process.

use crate::common::{TestServer, text};
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value as Json, json};

const STORY: &str = "Tell me a story about a fox and a drum";
const CAPITAL: &str = "The capital of France is Paris.";

fn question(more: Json) -> Json {
    let mut body = json!({
        "model": "ir-tiny",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "temperature": 0,
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The JSON of a stream's events, and that it ended as it should.
async fn events(server: &TestServer, path: &str, body: Json) -> Vec<Json> {
    let (status, text) = server.post(path, &body).await;
    assert_eq!(status, 200, "{text}");
    let data = text.split("\n\n").filter_map(|e| e.lines().find_map(|l| l.strip_prefix("data: ")));
    let mut all: Vec<&str> = data.collect();
    if path != "/v1/responses" {
        assert_eq!(all.pop(), Some("[DONE]"));
    }
    all.into_iter().map(|d| serde_json::from_str(d).unwrap()).collect()
}

fn golden_tools() -> Vec<Json> {
    let golden: Json = serde_json::from_str(include_str!("../../../engine/models/ir-tiny/golden.json")).unwrap();
    let chats = golden["chats"].as_array().unwrap().clone();
    chats.into_iter().filter(|c| c.get("tools").is_some_and(|t| !t.is_null())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chats_stream_is_the_whole_answer_in_pieces() {
    let server = TestServer::tiny();
    let (status, whole) = server.ask("/v1/chat/completions", question(json!({}))).await;
    assert_eq!((status, &whole["choices"][0]["message"]["content"]), (200, &json!(CAPITAL)), "{whole}");
    let stream = question(json!({"stream": true, "stream_options": {"include_usage": true}}));
    let chunks = events(&server, "/v1/chat/completions", stream).await;
    let text: String = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    let last = chunks.last().unwrap();
    assert_eq!((text.as_str(), &last["usage"]["total_tokens"]), (CAPITAL, &whole["usage"]["total_tokens"]));
    assert!(chunks.iter().all(|c| c["id"] == chunks[0]["id"] && c["created"] == chunks[0]["created"]));
    assert_eq!(chunks[chunks.len() - 2]["choices"][0]["finish_reason"], "stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_chats_with_tools() {
    let server = TestServer::tiny();
    let chats = golden_tools();
    assert_eq!(chats.len(), 4);
    for chat in chats {
        let body = json!({"messages": chat["messages"], "tools": chat["tools"]});
        let (status, whole) = server.ask("/v1/chat/completions", question(body.clone())).await;
        assert_eq!(status, 200, "{whole}");
        let choice = &whole["choices"][0];
        let reply = chat["reply"].as_str().unwrap();
        let inner = reply.strip_prefix("<tool_call>").and_then(|r| r.strip_suffix("</tool_call>"));
        let Some(inner) = inner else {
            assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(reply), &json!("stop")));
            continue;
        };
        let call: Json = serde_json::from_str(inner).unwrap();
        let got = &choice["message"]["tool_calls"][0]["function"];
        let arguments: Json = serde_json::from_str(got["arguments"].as_str().unwrap()).unwrap();
        // A call of a tool that is not there, as this small model makes them, is held to one that is.
        let mut names = chat["tools"].as_array().unwrap().iter().map(|tool| &tool["function"]["name"]);
        let name = names.clone().find(|name| **name == call["name"]).or_else(|| names.next()).unwrap();
        assert_eq!((&got["name"], &arguments), (name, &call["arguments"]));
        assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&Json::Null, &json!("tool_calls")));
        let mut streamed = body;
        streamed["stream"] = true.into();
        let chunks = events(&server, "/v1/chat/completions", question(streamed)).await;
        let parts = chunks.iter().map(|c| &c["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"]);
        let text: String = parts.filter_map(Json::as_str).collect();
        assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), call["arguments"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grammars_hold_answers_and_calls() {
    let server = TestServer::tiny();
    let color = json!({"type": "string", "enum": ["red", "green", "blue"]});
    let schema = json!({"type": "object", "properties": {"color": color}, "required": ["color"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "c", "schema": schema, "strict": true}});
    let (status, held) = server.ask("/v1/chat/completions", question(json!({"response_format": format}))).await;
    let text = held["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("{status} {held}"));
    let value: Json = serde_json::from_str(text).unwrap();
    assert!(["red", "green", "blue"].contains(&value["color"].as_str().unwrap()), "{text}");

    let tools = json!([{"type": "function", "function": {"name": "pick", "parameters": schema}}]);
    for choice in [json!("required"), json!({"type": "function", "function": {"name": "pick"}})] {
        let body = question(json!({"tools": tools, "tool_choice": choice, "max_tokens": 100}));
        let (_, forced) = server.ask("/v1/chat/completions", body).await;
        let call = &forced["choices"][0]["message"]["tool_calls"][0]["function"];
        assert_eq!(call["name"], "pick", "{forced}");
        assert!(call["arguments"].as_str().unwrap().contains("color"), "{forced}");
    }
    let strict = json!({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "c", "schema": strict, "strict": true}});
    let (status, refused) = server.ask("/v1/chat/completions", question(json!({"response_format": format}))).await;
    assert_eq!((status, &refused["error"]["param"]), (400, &json!("response_format")), "{refused}");
    let broken = question(json!({"grammar": "root ::= ("}));
    let (status, refused) = server.ask("/v1/chat/completions", broken).await;
    assert_eq!((status, &refused["error"]["param"]), (400, &json!("grammar")), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_of_several_prompts() {
    let server = TestServer::tiny();
    let body = |prompt: Json, more: Json| {
        let mut body = json!({"model": "ir-tiny", "prompt": prompt, "max_tokens": 8, "temperature": 0});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let (_, one) = server.ask("/v1/completions", body(json!(STORY), json!({}))).await;
    let text = one["choices"][0]["text"].as_str().unwrap().to_owned();
    assert_eq!(
        (&one["choices"][0]["finish_reason"], &one["usage"]["completion_tokens"]),
        (&json!("length"), &json!(8))
    );
    let (_, many) = server.ask("/v1/completions", body(json!(["Once", STORY]), json!({"n": 2, "echo": true}))).await;
    let texts: Vec<_> = many["choices"].as_array().unwrap().iter().map(|c| c["text"].as_str().unwrap()).collect();
    assert_eq!(texts.len(), 4);
    assert!(texts[0].starts_with("Once") && texts[0] == texts[1], "{texts:?}");
    assert_eq!((texts[2], texts[3]), (format!("{STORY}{text}").as_str(), texts[2]));
    let chunks = events(&server, "/v1/completions", body(json!(["Once", STORY]), json!({"stream": true}))).await;
    let second = chunks.iter().map(|c| &c["choices"][0]).filter(|c| c["index"] == 1);
    assert_eq!(second.filter_map(|c| c["text"].as_str()).collect::<String>(), text);
    let (status, wrong) = server.ask("/v1/completions", body(json!([999_999]), json!({}))).await;
    assert_eq!((status, &wrong["error"]["param"]), (400, &json!("prompt")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responses_stream_is_the_whole_response_in_pieces() {
    let server = TestServer::tiny();
    let body = |stream: bool| json!({"model": "ir-tiny", "input": "What is the capital of France?", "temperature": 0, "stream": stream});
    let (status, whole) = server.ask("/v1/responses", body(false)).await;
    assert_eq!((status, &whole["output"][0]["content"][0]["text"]), (200, &json!(CAPITAL)), "{whole}");
    let told = events(&server, "/v1/responses", body(true)).await;
    assert!(told.iter().enumerate().all(|(i, e)| e["sequence_number"] == i));
    let last = told.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    assert_eq!(last["response"]["usage"]["total_tokens"], whole["usage"]["total_tokens"]);
    assert_eq!(last["response"]["output"][0]["content"], whole["output"][0]["content"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_in_both_forms() {
    let server = TestServer::tiny();
    let body = |more: Json| {
        let mut body = json!({"model": "ir-tiny", "input": ["a fox", "a drum"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let (status, floats) = server.ask("/v1/embeddings", body(json!({}))).await;
    assert_eq!(status, 200, "{floats}");
    let first: Vec<f64> =
        floats["data"][0]["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    // f32 sums of 256 squares, each rounded to 2^-24: 1e-5 is a hundred times what they lose.
    assert!((first.iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 1e-5);
    let (_, packed) = server.ask("/v1/embeddings", body(json!({"encoding_format": "base64"}))).await;
    let length = packed["data"][0]["embedding"].as_str().unwrap().len();
    assert_eq!(length, (first.len() * 4).div_ceil(3) * 4);
    let (_, short) = server.ask("/v1/embeddings", body(json!({"dimensions": 16}))).await;
    assert_eq!(short["data"][1]["embedding"].as_array().unwrap().len(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_have_a_status_a_sentence_and_a_field() {
    let server = TestServer::tiny();
    let image = json!([{"type": "image_url", "image_url": {"url": "x"}}]);
    let cases = [
        ("/v1/chat/completions", question(json!({"model": "nope"})), 404, Json::Null, "not found"),
        ("/v1/chat/completions", question(json!({"temperature": "hot"})), 400, json!("temperature"), "invalid type"),
        ("/v1/chat/completions", question(json!({"messages": []})), 400, json!("messages"), "too short"),
        (
            "/v1/chat/completions",
            question(json!({"messages": [{"role": "user", "content": "w ".repeat(20_000)}]})),
            400,
            Json::Null,
            "maximum context length is 1024 tokens. However",
        ),
        ("/chat/completions", json!({}), 404, Json::Null, "end the base URL with /v1"),
        (
            "/v1/chat/completions",
            question(json!({"messages": [{"role": "user", "content": image}]})),
            400,
            json!("messages[0].content[0]"),
            "does not support vision",
        ),
        ("/v1/completions", json!({"model": "ir-tiny"}), 400, json!("prompt"), "missing field"),
        ("/v1/completions", json!({"model": "ir-tiny", "prompt": "a", "suffix": "b"}), 400, Json::Null, "insert"),
        ("/v1/responses", json!({"model": "ir-tiny"}), 400, json!("input"), "missing field"),
        ("/v1/embeddings", json!({"model": "ir-tiny", "input": []}), 400, json!("input"), "1 to"),
        ("/v1/nowhere", json!({}), 404, Json::Null, "not found"),
    ];
    for (path, body, status, param, part) in cases {
        let (got, answer) = server.ask(path, body).await;
        let error = &answer["error"];
        assert_eq!((got, &error["param"]), (status, &param), "{path} {answer}");
        assert!(error["message"].as_str().unwrap().contains(part) && error["type"].is_string(), "{path} {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_and_found() {
    let server = TestServer::tiny();
    let get = async |path: &str| {
        let request = Request::get(path).header("host", "localhost").body(Body::empty()).unwrap();
        let (status, body) = text(server.send(request).await).await;
        (status, serde_json::from_str::<Json>(&body).unwrap())
    };
    assert_eq!(get("/v1/models").await.1["data"][0]["id"], "ir-tiny");
    assert_eq!(get("/v1/models/ir-tiny").await.1["object"], "model");
    let (status, missing) = get("/v1/models/some/where").await;
    assert_eq!((status, &missing["error"]["code"]), (404, &json!("model_not_found")));
    server.ask("/v1/chat/completions", question(json!({"max_tokens": 1}))).await;
    assert_eq!(get("/v1/models").await.1["data"][0]["meta"]["n_vocab"], 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_its_places() {
    let server = TestServer::tiny();
    for _ in 0..20 {
        let body = json!({"model": "ir-tiny", "prompt": [STORY, "Once"], "n": 2, "stream": true, "ignore_eos": true});
        let request = Request::post("/v1/completions").body(Body::from(body.to_string())).unwrap();
        let response = server.send(request).await;
        assert_eq!(response.status(), 200);
        drop(response);
    }
    assert_eq!(server.hub.in_flight(), 0);
}
