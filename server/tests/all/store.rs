//! What clients do with the models of the store: pull, push, create, copy, delete, send files, over Ollama's and
//! llama-server's addresses, against a hub and registry on loopback.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures_util::StreamExt;
use ir_engine::builtin;
use ir_server::job::KeepAlive;
use ir_store::{Digest, ModelName, Settings as StoreSettings, Store};
use serde_json::{Value as Json, json};

use crate::common::{Settings, TestServer, folder, text};

#[path = "../../store/tests/store/hub.rs"]
mod hub;
use hub::{Faults, Hub};

fn store(name: &str, hub: &str) -> Arc<Store> {
    let mut settings = StoreSettings::new(folder(name));
    (settings.hub, settings.registry) = (hub.to_owned(), hub.to_owned());
    settings.tuning.first_wait = Duration::from_millis(2);
    settings.tuning.longest_wait = Duration::from_millis(20);
    settings.tuning.min_range = 64 << 10;
    Store::new(settings)
}

fn server(store: &Arc<Store>) -> TestServer {
    TestServer::with(Settings { store: Some(Arc::clone(store)), ..Settings::default() })
}

async fn request(server: &TestServer, method: &str, path: &str, body: impl Into<Body>) -> (u16, String) {
    let request = Request::builder().method(method).uri(path).header("host", "localhost").body(body.into()).unwrap();
    text(server.send(request).await).await
}

async fn get(server: &TestServer, path: &str) -> Json {
    let (status, text) = request(server, "GET", path, Body::empty()).await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The names in Ollama's list, and in OpenAI's.
async fn names(server: &TestServer) -> Vec<String> {
    let all =
        |list: &Json, key: &str| list.as_array().unwrap().iter().map(|m| m[key].as_str().unwrap().to_owned()).collect();
    let tags: Vec<String> = all(&get(server, "/api/tags").await["models"], "name");
    assert_eq!(tags, all(&get(server, "/v1/models").await["data"], "id") as Vec<String>);
    tags
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_pulled_listed_asked_and_deleted() {
    let hub = Hub::start();
    let tiny = builtin::bytes().to_vec();
    hub.model(
        "library/fox",
        "latest",
        &[("model", &tiny), ("system", b"You are a fox."), ("params", br#"{"top_k": 7}"#)],
    );
    let server = server(&store("pull", &hub.url()));
    let lines = server.lines("/api/pull", json!({"model": "fox"})).await;
    let steps: Vec<&str> = lines.iter().map(|l| l["status"].as_str().unwrap()).collect();
    let mut told = steps.clone();
    told.dedup();
    assert_eq!(
        (told[0], told[told.len() - 3..].to_vec()),
        ("pulling manifest", vec!["verifying sha256 digest", "writing manifest", "success"])
    );
    let digest = format!("sha256:{}", hub::sha256(&tiny));
    let whole = lines.iter().rfind(|l| l["digest"] == digest.as_str()).unwrap();
    assert_eq!((&whole["completed"], &whole["total"]), (&json!(tiny.len()), &json!(tiny.len())));
    assert_eq!(whole["status"], format!("pulling {}", &digest[7..19]));
    assert_eq!(names(&server).await, ["fox:latest", "ir-tiny"]);
    let tags = get(&server, "/api/tags").await;
    let listed = &tags["models"][0];
    assert_eq!(listed["digest"].as_str().unwrap().len(), 64);
    assert_eq!(listed["details"]["quantization_level"], tags["models"][1]["details"]["quantization_level"]);
    // Known by either form of its name, with what its Modelfile says.
    let (_, shown) = server.ask("/api/show", json!({"model": "FOX"})).await;
    assert_eq!(
        (&shown["system"], &shown["parameters"]),
        (&json!("You are a fox."), &json!(format!("{:30} 7", "top_k")))
    );
    assert!(shown["modelfile"].as_str().unwrap().starts_with("FROM fox:latest\n"), "{shown}");
    assert!(server.hub.loaded().is_empty(), "showing a model loads nothing");
    let messages = json!([{"role": "user", "content": "Hello!"}]);
    let (_, prompt) = server.ask("/apply-template", json!({"model": "fox", "messages": messages})).await;
    assert!(prompt["prompt"].as_str().unwrap().contains("You are a fox."), "{prompt}");
    let chat = json!({"model": "fox", "messages": messages, "options": {"num_predict": 3}, "stream": false});
    assert_eq!(server.ask("/api/chat", chat).await.0, 200);
    assert_eq!(server.hub.loaded()[0].name, "fox:latest");
    // Again: nothing is fetched but the manifest.
    hub.sent();
    let (status, answer) = server.ask("/api/pull", json!({"name": "fox", "stream": false})).await;
    assert_eq!((status, answer), (200, json!({"status": "success"})));
    assert_eq!(hub.sent(), 0);
    let delete = json!({"model": "fox"}).to_string();
    assert_eq!(request(&server, "DELETE", "/api/delete", delete.clone()).await, (200, String::new()));
    assert!(server.hub.loaded().is_empty());
    assert_eq!(request(&server, "DELETE", "/api/delete", delete).await.0, 404);
    assert_eq!(names(&server).await, ["ir-tiny"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_of_one_model_share_a_download() {
    let hub = Hub::start();
    let weights = hub::random_bytes(3_000_000, 5);
    hub.model("library/big", "latest", &[("model", &weights)]);
    hub.faults(Faults { pause: Some(Duration::from_millis(2)), ..Faults::default() });
    let server = server(&store("shared", &hub.url()));
    let ask = || async { server.lines("/api/pull", json!({"model": "big"})).await };
    let all = futures_util::future::join_all((0..4).map(|_| ask())).await;
    assert!(all.iter().all(|lines| lines.last().unwrap()["status"] == "success"), "{all:?}");
    let sent = hub.sent();
    assert!(sent < weights.len() as u64 + 10_000, "{sent} bytes for one file of {}", weights.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_its_pull_and_the_next_goes_on() {
    let hub = Hub::start();
    let weights = hub::random_bytes(4_000_000, 6);
    hub.model("library/big", "latest", &[("model", &weights)]);
    hub.faults(Faults { pause: Some(Duration::from_millis(3)), ..Faults::default() });
    let server = server(&store("leaving", &hub.url()));
    let ask = Request::post("/api/pull").header("host", "localhost").body(Body::from(r#"{"model": "big"}"#)).unwrap();
    let mut body = server.send(ask).await.into_body().into_data_stream();
    loop {
        let piece = body.next().await.unwrap().unwrap();
        let line: Json = serde_json::from_slice(&piece).unwrap();
        if line["completed"].as_u64().is_some_and(|n| n > 1_000_000) {
            break;
        }
    }
    drop(body);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let first = hub.sent();
    assert!(first < weights.len() as u64, "the pull went on although nobody listened");
    hub.faults(Faults::default());
    let lines = server.lines("/api/pull", json!({"model": "big"})).await;
    assert_eq!(lines.last().unwrap()["status"], "success");
    let second = hub.sent();
    assert!(second < weights.len() as u64 - 500_000, "it began anew: {second} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_pulled_says_why() {
    let hub = Hub::start();
    let server = server(&store("refused", &hub.url()));
    let lines = server.lines("/api/pull", json!({"model": "nosuch"})).await;
    assert_eq!(lines[0]["status"], "pulling manifest");
    assert!(lines[1]["error"].as_str().unwrap().contains("nosuch"), "{lines:?}");
    let (status, answer) = server.ask("/api/pull", json!({"model": "nosuch", "stream": false})).await;
    assert!(status == 404 && answer["error"].as_str().unwrap().contains("nosuch"), "{status} {answer}");
    for (body, part) in [
        (json!({}), "model is required"),
        (json!({"model": "../../x"}), "file"),
        (json!({"model": "a b"}), "no model's name"),
        (json!({"model": "http://evil.example/x.gguf"}), "https"),
    ] {
        let (status, answer) = server.ask("/api/pull", body.clone()).await;
        assert_eq!(status, 400, "{body} {answer}");
        assert!(answer["error"].as_str().unwrap().contains(part), "{body} {answer}");
    }
    // What is known here is there, whatever a registry says.
    let (_, answer) = server.ask("/api/pull", json!({"model": "ir-tiny:latest", "stream": false})).await;
    assert_eq!(answer, json!({"status": "success"}));
    server.ask("/api/create", json!({"model": "mine", "from": "ir-tiny", "stream": false})).await;
    let lines = server.lines("/api/pull", json!({"model": "mine"})).await;
    assert_eq!(lines.last().unwrap()["status"], "success", "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_made_copied_and_sent() {
    let hub = Hub::start();
    let server = server(&store("made", &hub.url()));
    let create = json!({"model": "pirate", "from": "ir-tiny", "system": "Arr.", "parameters": {"temperature": 0, "stop": ["X"]},
        "license": "MIT", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ahoy"}]});
    let lines = server.lines("/api/create", create).await;
    assert!(lines[0]["status"].as_str().unwrap().starts_with("creating new layer sha256:"), "{lines:?}");
    assert_eq!(lines.last().unwrap()["status"], "success");
    let (_, prompt) = server
        .ask("/apply-template", json!({"model": "pirate", "messages": [{"role": "user", "content": "Who?"}]}))
        .await;
    let prompt = prompt["prompt"].as_str().unwrap();
    let at = |part: &str| prompt.find(part).unwrap_or_else(|| panic!("{part} is not in {prompt}"));
    assert!(at("Arr.") < at("Ahoy") && at("Ahoy") < at("Who?"));
    let (status, text) =
        request(&server, "POST", "/api/copy", r#"{"source": "pirate", "destination": "captain:v2"}"#).await;
    assert_eq!((status, text.as_str()), (200, ""));
    let (_, shown) = server.ask("/api/show", json!({"model": "captain:v2"})).await;
    assert_eq!((&shown["system"], &shown["license"]), (&json!("Arr."), &json!("MIT")));
    // A file is sent, and a model made of it.
    let tiny = builtin::bytes().to_vec();
    let digest = Digest::of(&tiny).to_string();
    let path = format!("/api/blobs/{digest}");
    // The built-in model's weights are there already; others are not.
    assert_eq!(request(&server, "HEAD", &path, Body::empty()).await.0, 200);
    let other = Digest::of(b"other").to_string();
    let other_path = format!("/api/blobs/{other}");
    assert_eq!(request(&server, "HEAD", &other_path, Body::empty()).await.0, 404);
    let (status, answer) = request(&server, "POST", &other_path, "wrong").await;
    assert!(status == 400 && answer.contains("digest mismatch, expected sha256:"), "{status} {answer}");
    assert_eq!(request(&server, "POST", &other_path, "other").await.0, 201);
    assert_eq!(request(&server, "POST", &other_path, "other").await.0, 200);
    let made = json!({"model": "sent", "files": {"tiny.gguf": digest}, "stream": false});
    assert_eq!(server.ask("/api/create", made).await, (200, json!({"status": "success"})));
    assert_eq!(names(&server).await, ["captain:v2", "pirate:latest", "sent:latest", "ir-tiny"]);
    let none = Digest::of(b"none").to_string();
    for (body, status, part) in [
        (json!({"model": "x"}), 400, "neither 'from' or 'files'"),
        (json!({"model": "x", "from": "/etc/passwd"}), 404, "no file"),
        (json!({"model": "x", "from": "nosuch"}), 404, "nosuch"),
        (json!({"model": "x", "from": "ir-tiny", "adapters": {"a": digest}}), 400, "adapters"),
        (json!({"model": "x", "files": {"x.gguf": other}}), 400, "x.gguf: this is a text file"),
        (json!({"model": "x", "files": {"x.gguf": none}}), 404, "no blob"),
        (json!({"model": "x", "files": {"model.safetensors": digest}}), 400, "safetensors"),
        (json!({"model": "x", "from": "ir-tiny", "quantize": "q9"}), 400, "quantise"),
        (json!({"model": "x", "from": "ir-tiny", "license": 5}), 400, "license"),
        (json!({"model": "./x", "from": "ir-tiny"}), 400, "plain name"),
    ] {
        let mut body = body;
        body["stream"] = false.into();
        let (got, answer) = server.ask("/api/create", body.clone()).await;
        assert_eq!(got, status, "{body} {answer}");
        assert!(answer["error"].as_str().unwrap().contains(part), "{body} {answer}");
    }
    for (path, body, status, part) in [
        ("/api/copy", json!({"source": "nosuch", "destination": "b"}), 404, "nosuch"),
        ("/api/copy", json!({"source": "pirate", "destination": "../b"}), 400, "invalid"),
        ("/api/copy", json!({"destination": "b"}), 400, "source is required"),
        ("/api/push", json!({"model": "hf.co/a/b"}), 400, "registries"),
        ("/api/push", json!({"model": "nosuch"}), 404, "nosuch"),
    ] {
        let (got, answer) = server.ask(path, body.clone()).await;
        assert!(got == status && answer["error"].as_str().unwrap().contains(part), "{path} {body} {got} {answer}");
    }
    assert_eq!(request(&server, "HEAD", "/api/blobs/sha256:..%2F..%2Fx", Body::empty()).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_pushed() {
    let hub = Hub::start();
    let server = server(&store("pushed", &hub.url()));
    server.ask("/api/create", json!({"model": "mine", "from": "ir-tiny", "stream": false})).await;
    let name = format!("{}/me/mine", hub.host());
    let copy = json!({"source": "mine", "destination": name}).to_string();
    assert_eq!(request(&server, "POST", "/api/copy", copy).await.0, 200);
    let lines = server.lines("/api/push", json!({"model": name})).await;
    assert_eq!(
        (&lines[0]["status"], &lines.last().unwrap()["status"]),
        (&json!("retrieving manifest"), &json!("success"))
    );
    let back = self::server(&store("pushed-back", &hub.url()));
    assert_eq!(back.ask("/api/pull", json!({"model": name, "stream": false})).await.0, 200);
    assert_eq!(names(&back).await.len(), 2);
}

/// The events of `/models/sse`, as far as `last`.
async fn until(
    events: &mut (impl StreamExt<Item = Result<axum::body::Bytes, axum::Error>> + Unpin),
    last: &str,
) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(60), events.next()).await;
        let piece = next.unwrap_or_else(|_| panic!("{last} did not come: {all:?}")).unwrap().unwrap();
        let text = String::from_utf8(piece.to_vec()).unwrap();
        let Some(data) = text.strip_prefix("data: ") else { continue };
        let event: Json = serde_json::from_str(data).unwrap();
        let status = event["data"]["status"].as_str().or(event["event"].as_str()).unwrap();
        all.push(format!("{} {status}", event["model"].as_str().unwrap()));
        all.dedup();
        if all.last().is_some_and(|e| e == last) {
            return all;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn llama_servers_list_says_how_models_stand_and_tells_what_happens() {
    let hub = Hub::start();
    hub.file("/me/fox/fox-Q4_K_M.gguf", &builtin::bytes());
    let store = store("llama", &hub.url());
    let server = TestServer::with(Settings {
        store: Some(store),
        keep_alive: KeepAlive::For(Duration::from_millis(300)),
        ..Settings::default()
    });
    let watch = Request::get("/models/sse").header("host", "localhost").body(Body::empty()).unwrap();
    let mut events = Box::pin(server.send(watch).await.into_body().into_data_stream());
    let name = "hf.co/me/fox:Q4_K_M";
    assert_eq!(server.ask("/models", json!({"model": name})).await, (200, json!({"success": true})));
    let seen = until(&mut events, &format!("{name} download_finished")).await;
    assert_eq!(seen[0], format!("{name} downloading"));
    let status = || async {
        let list = get(&server, "/models").await;
        let model = list["data"].as_array().unwrap().iter().find(|m| m["id"] == name).cloned().unwrap();
        model["status"]["value"].as_str().unwrap().to_owned()
    };
    assert_eq!(status().await, "unloaded");
    assert_eq!(server.ask("/models/load", json!({"model": name})).await.0, 200);
    let seen = until(&mut events, &format!("{name} sleeping")).await;
    assert_eq!(seen, [format!("{name} loading"), format!("{name} loaded"), format!("{name} sleeping")]);
    assert_eq!(status().await, "sleeping");
    // The next request wakes it.
    let (code, _) = server.ask("/api/generate", json!({"model": name, "keep_alive": -1})).await;
    assert_eq!((code, status().await.as_str()), (200, "loaded"));
    assert_eq!(server.ask("/models/unload", json!({"model": name})).await.0, 200);
    assert_eq!(status().await, "unloaded");
    let (code, answer) = server.ask("/models/unload", json!({"model": name})).await;
    assert!(code == 400 && answer["error"]["message"].as_str().unwrap().contains("not loaded"), "{code} {answer}");
    assert_eq!(server.ask("/models/load", json!({"model": "nosuch"})).await.0, 404);
    let (code, answer) = server.ask("/models", json!({"model": "../x"})).await;
    assert!(code == 400 && answer["error"]["type"] == "invalid_request_error", "{code} {answer}");
    server.ask("/models", json!({"model": "hf.co/me/none"})).await;
    until(&mut events, "hf.co/me/none download_failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_nobody_waits_for_can_be_ended() {
    let hub = Hub::start();
    hub.file("/me/big/big-Q4_K_M.gguf", &hub::random_bytes(8_000_000, 2));
    hub.faults(Faults { pause: Some(Duration::from_millis(5)), ..Faults::default() });
    let server = server(&store("ended", &hub.url()));
    let watch = Request::get("/models/sse").header("host", "localhost").body(Body::empty()).unwrap();
    let mut events = Box::pin(server.send(watch).await.into_body().into_data_stream());
    let name = "hf.co/me/big";
    server.ask("/models", json!({"model": name})).await;
    until(&mut events, &format!("{name} download_progress")).await;
    let list = get(&server, "/models").await;
    let model = list["data"].as_array().unwrap().iter().find(|m| m["id"] == name).unwrap();
    let progress = model["status"]["progress"].as_object().unwrap().values().next().unwrap();
    assert!(model["status"]["value"] == "downloading" && progress["total"] == 8_000_000, "{model}");
    assert_eq!(server.ask("/models/unload", json!({"model": name})).await.0, 200);
    until(&mut events, &format!("{name} download_failed")).await;
    assert!(hub.sent() < 8_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_many_models_open_no_file_twice() {
    let store = store("many", "http://127.0.0.1:9");
    let file = ir_store::Modelfile { from: "ir-tiny".into(), ..ir_store::Modelfile::default() };
    store.create(&ModelName::parse("m-0").unwrap(), &file, None, &mut |_| {}).unwrap();
    for i in 1..40 {
        let name = ModelName::parse(&format!("m-{i}")).unwrap();
        store.copy(&ModelName::parse("m-0").unwrap(), &name).unwrap();
    }
    // Folders that have just been written to are read again, since their times are too coarse to tell.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let server = server(&store);
    assert_eq!(names(&server).await.len(), 41);
    // Other tests of this process open files too: none at all while one of the lists is made is enough.
    let mut quiet = false;
    for _ in 0..50 {
        let before = ir_store::files_opened();
        assert_eq!(names(&server).await.len(), 41);
        quiet |= ir_store::files_opened() == before;
    }
    assert!(quiet, "a second list opened files");
}
