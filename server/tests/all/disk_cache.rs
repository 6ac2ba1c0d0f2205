//! A conversation is gone on with after a restart of the server, from the cache's folder, and after its model was unloaded, from
//! memory: what its first turn computed is found there.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value as Json, json};

use crate::common::{Settings, TestServer, text};

fn chat(messages: &Json) -> Json {
    json!({ "model": "ir-tiny", "messages": messages, "max_tokens": 24, "temperature": 0, "logprobs": true })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_after_a_restart() {
    let folder = std::env::temp_dir().join(format!("ir-server-cache-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let start = || TestServer::with(Settings { cache_dir: Some(folder.clone()), ..Settings::default() });
    let story = "Once there was a fox who lived in a wood and had a red hat. ".repeat(12);
    let mut messages = json!([{ "role": "user", "content": story }]);
    let server = start();
    let (status, first) = server.ask("/v1/chat/completions", chat(&messages)).await;
    assert_eq!(status, 200, "{first}");
    server.hub.flush_disk();
    drop(server);
    let said = first["choices"][0]["message"]["content"].clone();
    messages
        .as_array_mut()
        .unwrap()
        .extend([json!({ "role": "assistant", "content": said }), json!({ "role": "user", "content": "And then?" })]);
    let (status, fresh) = TestServer::tiny().ask("/v1/chat/completions", chat(&messages)).await;
    assert_eq!((status, &fresh["usage"]["prompt_tokens_details"]["cached_tokens"]), (200, &json!(0)));
    let server = start();
    let (status, second) = server.ask("/v1/chat/completions", chat(&messages)).await;
    assert_eq!((status, &second["choices"][0]), (200, &fresh["choices"][0]), "another answer than without the cache");
    let cached = second["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    let before = first["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(cached + 16 > before, "{cached} tokens were found of a first turn of {before}");
    let request = Request::get("/metrics").header("host", "localhost").body(Body::empty()).unwrap();
    let (_, metrics) = text(server.send(request).await).await;
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(value("ir_disk_cache_loaded_bytes_total ") > 0.0 && value("ir_disk_cache_damaged_total ") == 0.0);
    assert_eq!(value("ir_cache_bytes_held{"), 0.0);
    assert!(value("ir_cache_bytes_evictable{") > 0.0 && value("ir_cache_bytes{") > value("ir_cache_bytes_evictable{"));
    drop(server);
    // What is written behind the answers may come while it goes.
    let _ = std::fs::remove_dir_all(folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_after_its_model_was_unloaded() {
    let server = TestServer::with(Settings { cache_ram: Some(1 << 30), ..Settings::default() });
    let story = "Once there was a fox who lived in a wood and had a red hat. ".repeat(12);
    let messages = json!([{ "role": "user", "content": story }]);
    let (status, first) = server.ask("/v1/chat/completions", chat(&messages)).await;
    assert_eq!(status, 200, "{first}");
    let (status, unloaded) = server.ask("/api/generate", json!({ "model": "ir-tiny", "keep_alive": 0 })).await;
    assert_eq!((status, &unloaded["done_reason"]), (200, &json!("unload")), "{unloaded}");
    let (status, second) = server.ask("/v1/chat/completions", chat(&messages)).await;
    assert_eq!((status, &second["choices"][0]), (200, &first["choices"][0]), "another answer than before");
    let cached = second["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    let prompt = first["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(cached + 17 > prompt, "{cached} tokens were found of {prompt}");
}
