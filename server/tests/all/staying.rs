//! Which models stay loaded, and what happens when a loaded model's file changes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use ir_engine::builtin;
use ir_server::job::KeepAlive;
use ir_store::{Settings as StoreSettings, Store};
use serde_json::{Value as Json, json};

use crate::common::{Settings, TestServer, folder, text};

#[tokio::test(flavor = "multi_thread")]
async fn pinned_models_stay() {
    let server = TestServer::with(Settings {
        files: 3,
        max_models: 2,
        pinned: vec!["model-0", "MODEL-1"],
        keep_alive: KeepAlive::For(Duration::from_millis(50)),
        ..Settings::default()
    });
    let load = |name: &str| server.ask("/api/generate", json!({"model": name}));
    let names = || server.hub.loaded().iter().map(|l| l.name.clone()).collect::<Vec<_>>();
    assert_eq!((load("model-0").await.0, load("model-2").await.0), (200, 200));
    // Room is made by who is not pinned, be it asked later; and time does nothing.
    assert_eq!(load("model-1").await.0, 200);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(names(), ["model-0", "model-1"]);
    let (status, answer) = server.ask("/api/generate", json!({"model": "model-0", "keep_alive": 0})).await;
    assert!(status == 403 && answer["error"].as_str().unwrap().contains("pinned"), "{status} {answer}");
    let (status, answer) = load("model-2").await;
    assert!(status == 503 && answer["error"].as_str().unwrap().contains("no room"), "{status} {answer}");
    assert_eq!(names(), ["model-0", "model-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_or_replaced_is_loaded_anew_and_the_server_lives() {
    let folder = folder("changed");
    let path = folder.join("big.gguf");
    let whole = builtin::bytes().to_vec();
    std::fs::write(&path, &whole).unwrap();
    let mut settings = StoreSettings::new(&folder);
    settings.foreign.clear();
    let store = Some(Store::new(settings));
    let server = TestServer::with(Settings { store, ..Settings::default() });
    let ask = |model: &str| {
        let body = json!({"model": model, "prompt": "Hello!", "stream": false, "options": {"temperature": 0}});
        async { server.ask("/api/generate", body).await }
    };
    let (status, before) = ask("big").await;
    assert_eq!(status, 200, "{before}");
    // What `cp new.gguf big.gguf` does first.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(4096).unwrap();
    let (status, answer) = ask("big").await;
    assert!(status == 500 && answer["error"].as_str().unwrap().contains("big"), "{status} {answer}");
    assert_eq!(ask("ir-tiny").await.0, 200);
    std::fs::write(&path, &whole).unwrap();
    let (status, after) = ask("big").await;
    assert_eq!((status, &after["response"]), (200, &before["response"]));
    // Replaced by a rename: the next request has the new one, and nobody fails.
    let first = server.hub.loaded().into_iter().find(|l| l.name == "big").unwrap();
    std::fs::write(folder.join("new"), &whole).unwrap();
    std::fs::rename(folder.join("new"), &path).unwrap();
    assert_eq!(ask("big").await.0, 200);
    let second = server.hub.loaded().into_iter().find(|l| l.name == "big").unwrap();
    assert!(!Arc::ptr_eq(&first, &second), "the old file is still in use");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_answer_ends_with_a_sentence_when_its_file_is_written_to() {
    let folder = folder("running");
    let path = folder.join("big.gguf");
    std::fs::write(&path, builtin::bytes().to_vec()).unwrap();
    let server = TestServer::with(Settings {
        store: Some(Store::new(StoreSettings::new(&folder))),
        simd: "scalar",
        ..Settings::default()
    });
    let format = json!({"type": "string", "minLength": 20_000});
    let body =
        json!({"model": "big", "prompt": "Hello!", "raw": true, "format": format, "options": {"num_predict": -1}});
    let ask = Request::post("/api/generate").header("host", "localhost").body(Body::from(body.to_string())).unwrap();
    let response = server.send(ask).await;
    assert_eq!(response.status(), 200);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(0).unwrap();
    let (_, all) = text(response).await;
    let last: Json = serde_json::from_str(all.lines().last().unwrap()).unwrap();
    assert!(last["error"].as_str().unwrap_or("").contains("was changed while it was in use"), "{last}");
    assert_eq!(server.ask("/api/generate", json!({"model": "ir-tiny"})).await.0, 200);
}
