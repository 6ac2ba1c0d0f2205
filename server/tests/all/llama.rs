//! llama-server's addresses against ir-tiny, in this process.

use crate::common::{TestServer, text};
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value as Json, json};

#[tokio::test(flavor = "multi_thread")]
async fn tokens_go_there_and_back() {
    let server = TestServer::tiny();
    let content = "The fox <|im_end|> and the drüm 🦀";
    for parse_special in [true, false] {
        let body = json!({"content": content, "parse_special": parse_special, "with_pieces": true});
        let (status, cut) = server.ask("/tokenize", body.clone()).await;
        assert_eq!(status, 200, "{cut}");
        let ids: Vec<u64> = cut["tokens"].as_array().unwrap().iter().map(|t| t["id"].as_u64().unwrap()).collect();
        let bytes = cut["tokens"].as_array().unwrap().iter().flat_map(|t| match &t["piece"] {
            Json::String(text) => text.clone().into_bytes(),
            other => other.as_array().unwrap().iter().map(|b| b.as_u64().unwrap() as u8).collect(),
        });
        assert_eq!(String::from_utf8(bytes.collect()).unwrap(), content);
        let (_, plain) = server.ask("/tokenize", json!({"content": content, "parse_special": parse_special})).await;
        assert_eq!(plain["tokens"], json!(ids));
        let (_, back) = server.ask("/detokenize", json!({"tokens": ids, "model": "ir-tiny"})).await;
        assert_eq!(back["content"], content);
    }
    for body in [json!({"tokens": [1, 99_999_999]}), json!({"tokens": "x"}), json!({})] {
        let (status, answer) = server.ask("/detokenize", body).await;
        assert!(status == 400 && answer["error"]["type"] == "invalid_request_error", "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_is_shown_as_the_model_reads_it() {
    let server = TestServer::tiny();
    let body = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi fox"}]}]});
    let (status, answer) = server.ask("/apply-template", body.clone()).await;
    let prompt = answer["prompt"].as_str().unwrap_or_else(|| panic!("{status} {answer}"));
    assert!(prompt.contains("user\nHi fox<|im_end|>") && prompt.ends_with("<|im_start|>assistant\n"), "{prompt}");
    // What is shown is what a chat computes: as many tokens.
    let (_, tokens) = server.ask("/tokenize", json!({"content": prompt, "add_special": true})).await;
    let chat = json!({"model": "ir-tiny", "messages": [{"role": "user", "content": "Hi fox"}], "stream": false});
    let (_, chat) = server.ask("/api/chat", chat).await;
    let counted = tokens["tokens"].as_array().unwrap().len() as u64;
    let doubled = u64::from(prompt.starts_with("<s>"));
    assert_eq!(chat["prompt_eval_count"].as_u64().unwrap(), counted - doubled);
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_and_what_is_not_here() {
    let server = TestServer::tiny();
    let get = |path: &str| server.send(Request::get(path).body(Body::empty()).unwrap());
    let (status, props) = text(get("/props").await).await;
    let props: Json = serde_json::from_str(&props).unwrap();
    assert_eq!((status, &props["model_alias"], &props["total_slots"]), (200, &json!("ir-tiny"), &json!(4)));
    assert_eq!(props["default_generation_settings"]["n_ctx"], 1024);
    assert_eq!(get("/props?model=nope").await.status(), 404);
    for path in ["/rerank", "/v1/rerank", "/v1/reranking"] {
        let (status, answer) = server.ask(path, json!({"query": "a", "documents": ["b"]})).await;
        assert!(status == 400 && answer["error"]["message"].as_str().unwrap().contains("reranker"), "{answer}");
    }
    for path in ["/health", "/v1/health"] {
        assert_eq!(text(get(path).await).await, (200, "{\"status\":\"ok\"}".into()));
    }
}
