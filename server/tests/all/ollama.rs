//! Ollama's API against ir-tiny, in this process.

use crate::common::{Settings, TestServer, text};
use axum::body::Body;
use axum::http::Request;
use serde_json::json;

const QUESTION: &str = "Tell me a story about a fox and a drum";

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_the_whole_answer_in_pieces() {
    let server = TestServer::tiny();
    let body = |stream: bool| {
        let options = json!({"temperature": 0, "num_predict": 24});
        json!({"model": "ir-tiny", "prompt": QUESTION, "stream": stream, "options": options})
    };
    let lines = server.lines("/api/generate", body(true)).await;
    let (status, whole) = server.ask("/api/generate", body(false)).await;
    assert_eq!(status, 200);
    let pieces: String = lines.iter().map(|l| l["response"].as_str().unwrap()).collect();
    // How many pieces it comes in depends on how fast it is read: one at least, and the end.
    assert!(lines.len() > 1 && !pieces.is_empty(), "{lines:?}");
    assert_eq!(whole["response"], pieces.as_str());
    let last = lines.last().unwrap();
    assert_eq!((&last["done"], &last["eval_count"]), (&json!(true), &whole["eval_count"]));
    assert!(last["context"].as_array().unwrap().len() > 24);
    assert!(lines[..lines.len() - 1].iter().all(|l| l["done"] == false));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_together_answer_as_alone() {
    let server = TestServer::tiny();
    let body = |i: usize| {
        let message = json!({"role": "user", "content": format!("{QUESTION} number {i}")});
        let options = json!({"temperature": 0, "num_predict": 16, "seed": i});
        json!({"model": "IR-Tiny:latest", "messages": [message], "stream": false, "options": options})
    };
    let mut alone = Vec::new();
    for i in 0..6 {
        alone.push(server.ask("/api/chat", body(i)).await.1["message"].clone());
    }
    let together = futures_util::future::join_all((0..6).map(|i| server.ask("/api/chat", body(i)))).await;
    for (i, (status, answer)) in together.into_iter().enumerate() {
        assert_eq!((status, &answer["message"]), (200, &alone[i]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_have_a_status_and_a_sentence() {
    let server = TestServer::tiny();
    let deep = format!("{{\"options\": {}", "[".repeat(1 << 20));
    let cases = [
        ("/api/generate", json!({"model": "nope", "prompt": "x"}), 404, "model 'nope' not found"),
        ("/api/chat", json!({"messages": [{"role": "user", "content": "x"}]}), 400, "model is required"),
        (
            "/api/generate",
            json!({"model": "ir-tiny", "prompt": "x", "options": {"top_k": "a"}}),
            400,
            "of type integer",
        ),
        ("/api/generate", json!({"model": "ir-tiny", "prompt": "x", "top_logprobs": 21}), 400, "between 0 and 20"),
        ("/api/generate", json!({"model": "ir-tiny", "prompt": "x", "raw": true, "system": "s"}), 400, "raw mode"),
        (
            "/api/generate",
            json!({"model": "ir-tiny", "prompt": "x", "images": ["aGk="]}),
            400,
            "does not support vision",
        ),
        ("/api/generate", json!({"model": "/etc/passwd", "prompt": "x"}), 404, "not found"),
        (
            "/api/generate",
            json!({"model": "ir-tiny", "prompt": "w ".repeat(20_000), "raw": true}),
            400,
            "exceeds the context",
        ),
        ("/api/pull", json!({"model": "x"}), 501, "no models folder"),
        ("/nowhere", json!({}), 404, "404 page not found"),
    ];
    for (path, body, status, part) in cases {
        let (got, answer) = server.ask(path, body).await;
        assert_eq!(got, status, "{path} {answer}");
        assert!(answer["error"].as_str().unwrap().contains(part), "{path} {answer}");
    }
    for (body, part) in [(String::new(), "missing request body"), (deep, "recursion limit")] {
        let request = Request::post("/api/chat").body(Body::from(body)).unwrap();
        let (status, answer) = text(server.send(request).await).await;
        assert!(status == 400 && answer.contains(part), "{status} {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_prompt_loads_and_unloads() {
    let server = TestServer::tiny();
    let (_, loaded) = server.ask("/api/generate", json!({"model": "ir-tiny"})).await;
    assert_eq!(loaded["done_reason"], "load");
    assert_eq!(server.hub.loaded().len(), 1);
    let (_, gone) = server.ask("/api/chat", json!({"model": "ir-tiny", "messages": [], "keep_alive": 0})).await;
    assert_eq!(gone["done_reason"], "unload");
    assert!(server.hub.loaded().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_its_place() {
    let server = TestServer::tiny();
    for _ in 0..50 {
        let body = json!({"model": "ir-tiny", "prompt": QUESTION, "raw": true, "options": {"num_predict": 400}});
        let request = Request::post("/api/generate").body(Body::from(body.to_string())).unwrap();
        drop(server.send(request).await);
    }
    assert_eq!(server.hub.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_so() {
    let server = TestServer::with(Settings { queue: 1, parallel: 1, ..Settings::default() });
    let ask = || {
        let body = json!({"model": "ir-tiny", "prompt": QUESTION, "raw": true, "options": {"num_predict": 400}});
        server.send(
            Request::post("/api/generate").header("host", "localhost").body(Body::from(body.to_string())).unwrap(),
        )
    };
    let held = [ask().await, ask().await];
    let third = ask().await;
    assert_eq!(third.headers()["retry-after"], "1");
    let (status, answer) = text(third).await;
    assert_eq!((status, answer.contains("server busy, please try again.")), (503, true), "{answer}");
    drop(held);
    assert_eq!(ask().await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_hosts_are_refused() {
    let server = TestServer::tiny();
    let request = |host: &str| Request::get("/api/version").header("host", host).body(Body::empty()).unwrap();
    assert_eq!(server.send(request("evil.example:11434")).await.status(), 403);
    assert_eq!(server.send(request("localhost:11434")).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_streams_with_a_record() {
    let server = TestServer::tiny();
    let options = json!({"num_predict": 100_000});
    let body = json!({"model": "ir-tiny", "prompt": QUESTION, "raw": true, "options": options});
    let request = Request::post("/api/generate").body(Body::from(body.to_string())).unwrap();
    let response = server.send(request).await;
    server.hub.shut_down(std::time::Duration::ZERO).await;
    let (_, all) = text(response).await;
    let last: serde_json::Value = serde_json::from_str(all.lines().last().unwrap()).unwrap();
    assert!(last["error"].as_str().unwrap_or("").contains("shutting down") || last["done"] == true, "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_models_can_do_is_listed_without_loading_them() {
    let server = TestServer::with(Settings { files: 1, ..Settings::default() });
    let get = || server.send(Request::get("/api/tags").header("host", "localhost").body(Body::empty()).unwrap());
    for _ in 0..2 {
        let (status, listed) = text(get().await).await;
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let models = listed["models"].as_array().unwrap();
        assert_eq!((status, models.len()), (200, 2), "{listed}");
        assert!(models.iter().all(|m| m["capabilities"] == json!(["completion", "tools"])), "{listed}");
        assert_eq!(models[1]["details"]["context_length"], 1024);
    }
    assert!(server.hub.loaded().is_empty());
    // What is listed is what a loaded model says of itself.
    let (_, shown) = server.ask("/api/show", json!({"model": "model-0"})).await;
    assert_eq!(shown["capabilities"], json!(["completion", "tools"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_may_ask_are_told_so_beforehand_and_strangers_get_nothing() {
    let server = TestServer::tiny();
    let ask = |method: &str, host: &str, origin: Option<&str>| {
        let mut request = Request::builder().method(method).uri("/api/chat").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin).header("access-control-request-method", "POST");
            request = request.header("access-control-request-headers", "content-type,x-stainless-os");
        }
        server.send(request.body(Body::empty()).unwrap())
    };
    let told = ask("OPTIONS", "localhost:11434", Some("http://localhost:3000")).await;
    assert_eq!(told.status(), 204);
    let header = |name: &str| told.headers().get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
    assert_eq!(header("access-control-allow-origin"), "http://localhost:3000");
    assert_eq!(header("access-control-allow-headers"), "content-type,x-stainless-os");
    assert!(header("access-control-allow-methods").contains("POST"));
    assert_eq!((header("access-control-max-age"), text(told).await.1), ("43200".into(), String::new()));
    assert_eq!(ask("OPTIONS", "localhost:11434", None).await.status(), 204);
    // A page that this server gave out itself asks no stranger.
    assert_eq!(ask("OPTIONS", "192.168.1.2:11434", Some("http://192.168.1.2:11434")).await.status(), 204);
    for (method, host, origin) in [
        ("OPTIONS", "localhost:11434", Some("https://evil.example")),
        ("POST", "localhost:11434", Some("https://evil.example")),
        ("POST", "localhost:11434", Some("null")),
        ("OPTIONS", "evil.example", None),
        ("OPTIONS", "evil.example", Some("http://evil.example")),
    ] {
        assert_eq!(ask(method, host, origin).await.status(), 403, "{method} {host} {origin:?}");
    }
}
