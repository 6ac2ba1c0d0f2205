//! What clients of several APIs expect alike: wishes that are passed over and counted, refusals in each API's own words,
//! packed bodies, values and lists of other servers.

use std::collections::HashSet;
use std::io::Write;

use crate::clients::{chat, merged, response};
use crate::common::{TestServer, text};
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value as Json, json};

#[tokio::test(flavor = "multi_thread")]
async fn reasoning_is_a_wish_but_where_ollama_refuses() {
    let server = TestServer::tiny();
    for (path, body) in [
        ("/v1/chat/completions", chat(json!({"reasoning_effort": "high"}))),
        (
            "/v1/chat/completions",
            chat(json!({"reasoning": {"effort": "enormous"}, "think": true, "enable_thinking": true})),
        ),
        ("/v1/responses", response(json!({"reasoning": {"effort": "medium", "summary": "auto"}}))),
        ("/v1/messages", chat(json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}))),
    ] {
        server.answered(path, body).await;
    }
    let (status, refused) = server.ask("/api/chat", chat(json!({"think": true}))).await;
    assert!(status == 400 && refused["error"].as_str().unwrap().contains("does not support thinking"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_does_not_fit_is_refused_in_each_apis_words() {
    let server = TestServer::tiny();
    let long = "w ".repeat(3000);
    let messages = json!({"messages": [{"role": "user", "content": long}]});
    let (status, error) = server.ask("/v1/chat/completions", chat(messages.clone())).await;
    let error = &error["error"];
    assert_eq!(
        (status, &error["code"], &error["n_ctx"]),
        (400, &json!("context_length_exceeded"), &json!(1024)),
        "{error}"
    );
    let tokens = error["n_prompt_tokens"].as_u64().unwrap();
    let message = error["message"].as_str().unwrap();
    assert!(
        message.starts_with("This model's maximum context length is 1024 tokens.")
            && message.contains(&tokens.to_string())
    );
    let (status, error) = server.ask("/v1/messages", chat(messages.clone())).await;
    assert_eq!(
        (status, &error["error"]["message"]),
        (400, &json!(format!("prompt is too long: {tokens} tokens > 1024 maximum")))
    );
    let (status, error) = server.ask("/v1/responses", response(json!({"input": long}))).await;
    assert_eq!((status, &error["error"]["code"]), (400, &json!("context_length_exceeded")));
    let (status, stream) = server.post("/v1/responses", &response(json!({"input": long, "stream": true}))).await;
    assert!(
        status == 200 && stream.contains("response.failed") && stream.contains("context_length_exceeded"),
        "{stream}"
    );
    let body = merged(chat(messages), json!({"truncate": false, "options": {"num_ctx": 9000}}));
    let (status, error) = server.ask("/api/chat", body).await;
    let sentence = error["error"].as_str().unwrap();
    assert!(
        status == 400 && sentence.contains("made for no more") && !sentence.contains("larger num_ctx"),
        "{sentence}"
    );
    let body = json!({"model": "ir-tiny", "prompt": "w ".repeat(200), "raw": true, "options": {"num_ctx": 64}});
    let (_, error) = server.ask("/api/generate", body).await;
    assert!(error["error"].as_str().unwrap().contains("ask for a larger num_ctx"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_bodies_and_halves_of_characters_are_read() {
    let server = TestServer::tiny();
    let body = chat(json!({"max_tokens": 1})).to_string();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(body.as_bytes()).unwrap();
    for (encoding, bytes, want) in
        [("gzip", gzip.finish().unwrap(), 200), ("zstd", body.clone().into_bytes(), 400), ("br", vec![1], 400)]
    {
        let request =
            Request::post("/v1/chat/completions").header("host", "localhost").header("content-encoding", encoding);
        let (status, answer) = text(server.send(request.body(Body::from(bytes)).unwrap()).await).await;
        assert_eq!(status, want, "{answer}");
    }
    let count = async |content: &str| {
        let body = format!(r#"{{"model": "ir-tiny", "messages": [{{"role": "user", "content": "{content}"}}]}}"#);
        let request = Request::post("/v1/chat/completions/input_tokens").header("host", "localhost");
        text(server.send(request.body(Body::from(body)).unwrap()).await).await
    };
    let (half, replaced) = (count(r"half \ud83e end").await, count("half \u{fffd} end").await);
    assert_eq!((half.0, &half), (200, &replaced));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_passed_over_is_counted_by_api_and_field() {
    let server = TestServer::tiny();
    let tools = json!([{"type": "web_search"}]);
    for _ in 0..2 {
        server
            .answered(
                "/v1/responses",
                response(json!({"prompt_cache_key": "k", "tools": tools, "text": {"verbosity": "low"}})),
            )
            .await;
    }
    server.answered("/v1/chat/completions", chat(json!({"store": true, "reasoning_effort": "low"}))).await;
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}});
    let called = json!([
        {"role": "user", "content": "Add."},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "3"},
    ]);
    server.answered("/v1/chat/completions", chat(json!({"messages": called}))).await;
    let ollama = json!({"model": "ir-tiny", "messages": chat(json!({}))["messages"], "stream": false, "brand_new": 1});
    server.answered("/api/chat", ollama).await;
    let (_, page) = server.get("/metrics").await;
    let page = page.as_str().unwrap();
    for line in [
        r#"ir_ignored_total{api="responses",field="prompt_cache_key"} 2"#,
        r#"ir_ignored_total{api="responses",field="tools.web_search"} 2"#,
        r#"ir_ignored_total{api="responses",field="text.verbosity"} 2"#,
        r#"ir_ignored_total{api="openai",field="store"} 1"#,
        r#"ir_ignored_total{api="openai",field="reasoning of a model that does not reason"} 1"#,
        r#"ir_ignored_total{api="ollama",field="brand_new"} 1"#,
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    assert!(!page.contains("[].tool_calls"), "what an answer has is read in a history:\n{page}");
    for read in ["\"model\"", "\"messages\"", "\"temperature\"", "\"max_output_tokens\""] {
        assert!(!page.contains(&format!("field={read}")), "{read}\n{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_other_servers_are_taken() {
    let server = TestServer::tiny();
    let mut texts = Vec::new();
    for seed in 1..4 {
        let answer =
            server.answered("/v1/chat/completions", chat(json!({"top_p": 0, "temperature": 1, "seed": seed}))).await;
        texts.push(answer["choices"][0]["message"]["content"].clone());
    }
    assert!(texts.iter().all(|t| *t == texts[0]), "{texts:?}");
    let schema = json!({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": false});
    let format = json!({"response_format": {"type": "json_schema", "schema": schema}});
    let answer = server.answered("/v1/chat/completions", chat(format)).await;
    let held: Json = serde_json::from_str(answer["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
    assert!(held["a"].is_boolean(), "{answer}");
    let (_, version) = server.get("/api/version").await;
    let numbers: Vec<u32> = version["version"].as_str().unwrap().split('.').map(|n| n.parse().unwrap()).collect();
    assert!(numbers >= vec![0, 13, 4] && version["ir"].is_string(), "{version}");
    let chat_count = server.count("/v1/chat/completions/input_tokens", chat(json!({}))).await;
    assert_eq!(chat_count, server.count("/v1/responses/input_tokens", response(json!({}))).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_models_hold_what_every_sdk_reads() {
    let server = TestServer::tiny();
    let (_, list) = server.get("/v1/models").await;
    let entry = &list["data"][0];
    for (field, want) in [
        ("id", json!("ir-tiny")),
        ("object", json!("model")),
        ("type", json!("model")),
        ("display_name", json!("ir-tiny")),
        ("max_input_tokens", json!(1024)),
        ("context_length", json!(1024)),
    ] {
        assert_eq!(entry[field], want, "{field}");
    }
    assert!(entry["created_at"].as_str().unwrap().ends_with('Z') && entry["created"].is_u64(), "{entry}");
    assert_eq!(
        (&list["has_more"], &list["first_id"], &list["models"][0]["name"]),
        (&json!(false), &json!("ir-tiny"), &json!("ir-tiny"))
    );
    assert_eq!(server.get("/v1/models?client_version=0.171.0").await.1["models"], json!([]));
    assert_eq!(server.get("/v1/models/ir-tiny").await.1["display_name"], json!("ir-tiny"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_metrics_is_what_prometheus_reads() {
    let server = TestServer::tiny();
    server.answered("/v1/chat/completions", chat(json!({"brand \"new\"": 1}))).await;
    let (_, page) = server.get("/metrics").await;
    let (mut families, mut samples) = (HashSet::new(), HashSet::new());
    let (mut family, mut kind) = (String::new(), "");
    for line in page.as_str().unwrap().lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "{family} comes twice");
        } else if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, of) = of.split_once(' ').unwrap();
            assert!(name == family && ["counter", "gauge", "histogram"].contains(&of), "{line}");
            kind = of;
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok() && samples.insert(sample), "{line}");
            let name = sample.split('{').next().unwrap();
            let rest = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} stands under {family}"));
            let own = if kind == "histogram" { ["_bucket", "_sum", "_count"].contains(&rest) } else { rest.is_empty() };
            assert!(own && sample.ends_with('}') == sample.contains('{'), "{line}");
        }
    }
    let whole = r#"ir_request_seconds_bucket{model="ir-tiny",le="+Inf"}"#;
    assert!(families.len() > 40 && samples.contains(whole), "{page}");
    assert!(samples.contains(r#"ir_ignored_total{api="openai",field="brand \"new\""}"#), "{page}");
}
