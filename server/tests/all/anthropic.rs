//! Anthropic's API against ir-tiny, in this process.

use crate::common::TestServer;
use serde_json::{Value as Json, json};

const CAPITAL: &str = "The capital of France is Paris.";

fn question(more: Json) -> Json {
    let messages = json!([{"role": "user", "content": "What is the capital of France?"}]);
    let mut body = json!({"model": "ir-tiny", "messages": messages, "max_tokens": 60, "temperature": 0});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn events(server: &TestServer, body: Json) -> Vec<Json> {
    let (status, text) = server.post("/v1/messages", &body).await;
    assert_eq!(status, 200, "{text}");
    let read = |event: &str| {
        let name = event.lines().find_map(|l| l.strip_prefix("event: ")).unwrap().to_owned();
        let data: Json = serde_json::from_str(event.lines().find_map(|l| l.strip_prefix("data: ")).unwrap()).unwrap();
        assert_eq!(data["type"], name.as_str());
        data
    };
    text.split("\n\n").filter(|e| !e.is_empty()).map(read).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_the_whole_message_in_pieces() {
    let server = TestServer::tiny();
    let (status, whole) = server.ask("/v1/messages", question(json!({}))).await;
    assert_eq!((status, &whole["content"]), (200, &json!([{"type": "text", "text": CAPITAL}])), "{whole}");
    let told = events(&server, question(json!({"stream": true}))).await;
    let text: String = told.iter().filter_map(|e| e["delta"]["text"].as_str()).collect();
    assert_eq!((text.as_str(), &told.last().unwrap()["type"]), (CAPITAL, &json!("message_stop")));
    let end = &told[told.len() - 2];
    assert_eq!((&end["delta"]["stop_reason"], &whole["stop_reason"]), (&json!("end_turn"), &json!("end_turn")));
    assert_eq!(end["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_sequence_that_ended_it_is_named() {
    let server = TestServer::tiny();
    let (_, stopped) = server.ask("/v1/messages", question(json!({"stop_sequences": ["Paris", " of"]}))).await;
    assert_eq!((&stopped["stop_reason"], &stopped["stop_sequence"]), (&json!("stop_sequence"), &json!(" of")));
    assert_eq!(stopped["content"][0]["text"], "The capital");
    let (_, ended) = server.ask("/v1/messages", question(json!({"stop_sequences": ["nowhere"]}))).await;
    assert_eq!((&ended["stop_reason"], &ended["stop_sequence"]), (&json!("end_turn"), &Json::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_forced_and_counted() {
    let server = TestServer::tiny();
    let color = json!({"type": "string", "enum": ["red", "green"]});
    let schema = json!({"type": "object", "properties": {"color": color}, "required": ["color"]});
    let tools = json!([{"name": "pick", "input_schema": schema}]);
    for choice in [json!({"type": "any"}), json!({"type": "tool", "name": "pick"})] {
        let (_, forced) = server.ask("/v1/messages", question(json!({"tools": tools, "tool_choice": choice}))).await;
        let block = &forced["content"][0];
        assert_eq!(
            (&block["type"], &block["name"], &forced["stop_reason"]),
            (&json!("tool_use"), &json!("pick"), &json!("tool_use"))
        );
        assert!(["red", "green"].contains(&block["input"]["color"].as_str().unwrap()), "{forced}");
        assert!(block["id"].as_str().unwrap().starts_with("toolu_"), "{forced}");
    }
    let count =
        async |body: Json| server.ask("/v1/messages/count_tokens", body).await.1["input_tokens"].as_u64().unwrap();
    let (plain, with_tools) = (count(question(json!({}))).await, count(question(json!({"tools": tools}))).await);
    let (_, answer) = server.ask("/v1/messages", question(json!({}))).await;
    let usage = &answer["usage"];
    let prompt = usage["input_tokens"].as_u64().unwrap() + usage["cache_read_input_tokens"].as_u64().unwrap();
    assert!(plain == prompt && with_tools > plain, "{plain} {prompt} {with_tools}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_have_anthropics_form() {
    let server = TestServer::tiny();
    let long = json!({"messages": [{"role": "user", "content": "w ".repeat(20_000)}]});
    let cases = [
        (question(json!({"model": "nope"})), 404, "not_found_error", "not found"),
        (question(json!({"max_tokens": "x"})), 400, "invalid_request_error", "max_tokens"),
        (question(json!({"messages": []})), 400, "invalid_request_error", "at least one message"),
        (question(long), 400, "invalid_request_error", "tokens > 1024 maximum"),
    ];
    for (body, status, kind, part) in cases {
        let (got, answer) = server.ask("/v1/messages", body).await;
        assert_eq!(
            (got, &answer["type"], &answer["error"]["type"]),
            (status, &json!("error"), &json!(kind)),
            "{answer}"
        );
        assert!(answer["error"]["message"].as_str().unwrap().contains(part), "{answer}");
    }
}
