//! Properties of serving, in this process or over a loopback socket: deadlines, disconnects, keep-alive and memory, the
//! end of streams, limits of HTTP, what is watched.

use std::time::{Duration, Instant};

use crate::common::{Settings, TestServer, text};
use axum::body::Body;
use axum::http::Request;
use ir_server::{Guard, Limits, Listener};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

const QUESTION: &str = "Tell me a story about a fox and a drum";

/// An answer as long as the context: a text in quotes that must not end before.
fn endless() -> Json {
    json!({"model": "ir-tiny", "prompt": QUESTION, "raw": true, "format": {"type": "string", "minLength": 20_000},
        "options": {"num_predict": -1, "temperature": 1}})
}

fn post(path: &str, body: &Json) -> Request<Body> {
    Request::post(path).header("host", "localhost").body(Body::from(body.to_string())).unwrap()
}

/// Waits until `done` says yes; a minute is a hang.
async fn soon(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_whole_answers_and_streams() {
    // On the slowest kernels, so that no machine has an answer as long as the context before.
    let deadline = Some(Duration::from_millis(300));
    let server = TestServer::with(Settings { deadline, simd: "scalar", ..Settings::default() });
    let mut body = endless();
    let lines = server.lines("/api/generate", body.clone()).await;
    assert!(lines.last().unwrap()["error"].as_str().unwrap().contains("deadline"), "{:?}", lines.last());
    body["stream"] = false.into();
    let (status, answer) = server.ask("/api/generate", body).await;
    assert!(status == 504 && answer["error"].as_str().unwrap().contains("deadline"), "{status} {answer}");
    soon("the end of the late one", || server.hub.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_stops_the_engine_within_steps() {
    let server = TestServer::tiny();
    let response = server.send(post("/api/generate", &endless())).await;
    drop(response);
    let loaded = server.hub.loaded().remove(0);
    soon("the sequence's end", || loaded.stats().running == 0 && loaded.stats().waiting == 0).await;
    assert_eq!(loaded.stats().pages, loaded.stats().free_pages, "pages are held for nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_alive_unloads_in_time_and_memory_unloads_the_longest_unused() {
    let server = TestServer::with(Settings { files: 3, max_models: 2, ..Settings::default() });
    let load = |name: &str, keep: Json| {
        let body = json!({"model": name, "keep_alive": keep});
        async { server.ask("/api/generate", body).await }
    };
    let names = || {
        let mut names: Vec<String> = server.hub.loaded().iter().map(|l| l.name.clone()).collect();
        names.sort();
        names
    };
    assert_eq!(load("model-0", json!("1s")).await.0, 200);
    assert_eq!(names(), ["model-0"]);
    soon("the unloading", || names().is_empty()).await;
    for (name, want) in [("model-0", vec!["model-0"]), ("model-1", vec!["model-0", "model-1"])] {
        load(name, json!(-1)).await;
        assert_eq!(names(), want);
    }
    load("model-0", json!(-1)).await;
    load("model-2", json!(-1)).await;
    assert_eq!(names(), ["model-0", "model-2"], "the longest unused goes");
    // One that is used stays, and who wants another waits for it.
    let busy = server.send(post("/api/generate", &json!({"model": "model-0", "prompt": QUESTION, "raw": true}))).await;
    load("model-2", json!(-1)).await;
    load("model-1", json!(-1)).await;
    assert!(names().contains(&"model-0".to_owned()), "{:?}", names());
    drop(busy);
    let (_, shown) = text(server.send(Request::get("/api/ps").body(Body::empty()).unwrap()).await).await;
    let shown: Json = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["models"].as_array().unwrap().len(), 2, "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unload_waits_for_who_uses_the_model() {
    let server = TestServer::tiny();
    let busy = server.send(post("/api/generate", &endless())).await;
    let (_, answer) = server.ask("/api/generate", json!({"model": "ir-tiny", "keep_alive": 0})).await;
    assert_eq!((&answer["done_reason"], server.hub.loaded().len()), (&json!("unload"), 1));
    drop(busy);
    soon("the unloading", || server.hub.loaded().is_empty()).await;
    // A device by the name that the server was started with is the same device: nothing is loaded anew.
    let ask = |options: Json| server.ask("/api/generate", json!({"model": "ir-tiny", "options": options}));
    ask(json!({})).await;
    let first = server.hub.loaded().remove(0);
    assert_eq!(ask(json!({"device": "cpu"})).await.0, 200);
    assert!(std::sync::Arc::ptr_eq(&first, &server.hub.loaded()[0]));
    let (status, answer) = ask(json!({"device": "abacus"})).await;
    assert!(status == 400 && answer["error"].as_str().unwrap().contains("abacus"), "{status} {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_budget_holds_one_model_at_a_time() {
    let server = TestServer::with(Settings { files: 2, memory: 1 << 20, ..Settings::default() });
    for name in ["model-0", "model-1", "model-0"] {
        let (status, answer) = server.ask("/api/generate", json!({"model": name, "keep_alive": -1})).await;
        assert_eq!(status, 200, "{answer}");
        let names: Vec<String> = server.hub.loaded().iter().map(|l| l.name.clone()).collect();
        assert_eq!(names, [name]);
    }
}

/// A server on a loopback port, with a way to end it.
struct OnPort {
    address: std::net::SocketAddr,
    end: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

async fn on_port(server: &TestServer, limits: Limits) -> OnPort {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, told) = oneshot::channel::<()>();
    let (app, hub) = (server.app.clone(), server.hub.clone());
    let ended = tokio::spawn(ir_server::serve(Listener::Tcp(listener), app, hub, limits, async {
        let _ = told.await;
    }));
    OnPort { address, end, ended }
}

async fn all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn raw(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_do_not_come_end_the_connection_and_other_requests_go_on() {
    let server = TestServer::tiny();
    let limits = Limits { headers: Duration::from_millis(300), ..Limits::default() };
    let port = on_port(&server, limits).await;
    let mut half = TcpStream::connect(port.address).await.unwrap();
    half.write_all(b"POST /api/generate HTTP/1.1\r\nHost: local").await.unwrap();
    let mut other = TcpStream::connect(port.address).await.unwrap();
    other.write_all(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(all(&mut other).await.contains("version"));
    // Long before the usual limit.
    let started = Instant::now();
    all(&mut half).await;
    assert!(started.elapsed() < Limits::default().headers / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_the_limit_is_refused_and_brackets_too() {
    let server = TestServer::tiny();
    let big = Body::from(vec![b' '; ir_server::http::MAX_BODY + 1]);
    let (status, answer) = text(server.send(Request::post("/api/chat").body(big).unwrap()).await).await;
    assert!(status == 413 && answer.contains("32 MiB"), "{status} {answer}");
    for body in ["[".repeat(1 << 20), format!("{{\"format\": {}", "{\"a\":".repeat(200_000))] {
        let (status, _) = text(server.send(Request::post("/api/chat").body(Body::from(body)).unwrap()).await).await;
        assert_eq!(status, 400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_loses_its_connection() {
    let server = TestServer::tiny();
    let limits = Limits { write: Duration::from_millis(500), ..Limits::default() };
    let port = on_port(&server, limits).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(port.address).await.unwrap();
    // More than any system's buffers hold: several megabytes to an answer.
    let n = 12;
    let mut body = endless();
    (body["logprobs"], body["top_logprobs"]) = (true.into(), 20.into());
    stream.write_all(raw("/api/generate", &body.to_string()).repeat(n).as_bytes()).await.unwrap();
    let mut quiet = 0;
    let started = Instant::now();
    while quiet < 30 {
        assert!(started.elapsed() < Duration::from_secs(300), "it still computes for nobody");
        tokio::time::sleep(Duration::from_millis(50)).await;
        quiet = if server.hub.in_flight() == 0 && !server.hub.loaded().is_empty() { quiet + 1 } else { 0 };
    }
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let done = String::from_utf8_lossy(&bytes).matches("\"done\":true").count();
    assert!(done < n, "all {n} answers fitted into the buffers");
    assert_eq!(server.ask("/api/generate", json!({"model": "ir-tiny"})).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_lets_finish_what_can_and_tells_the_rest() {
    let server = TestServer::with(Settings { parallel: 8, ..Settings::default() });
    let port = on_port(&server, Limits { grace: Duration::from_millis(200), ..Limits::default() }).await;
    let mut streams = Vec::new();
    for i in 0..6u32 {
        let mut stream = TcpStream::connect(port.address).await.unwrap();
        let mut body = endless();
        if i.is_multiple_of(2) {
            // These end by themselves within the grace, or nearly.
            body["options"]["num_predict"] = 30.into();
        }
        stream.write_all(raw("/api/generate", &body.to_string()).as_bytes()).await.unwrap();
        let mut first = [0; 64];
        stream.read_exact(&mut first).await.unwrap();
        assert!(first.starts_with(b"HTTP/1.1 200"));
        streams.push(stream);
    }
    port.end.send(()).unwrap();
    for stream in &mut streams {
        let answer = all(stream).await;
        let last = answer.lines().rev().find(|l| l.starts_with('{')).unwrap_or_else(|| panic!("{answer}"));
        let last: Json = serde_json::from_str(last).unwrap();
        let told = last["error"].as_str().is_some_and(|e| e.contains("shutting down"));
        assert!(told || last["done"] == true, "{last}");
    }
    tokio::time::timeout(Duration::from_secs(60), port.ended).await.unwrap().unwrap();
    assert!(TcpStream::connect(port.address).await.is_err(), "it still listens");
    let (status, _) = server.ask("/api/generate", json!({"model": "ir-tiny", "prompt": "x"})).await;
    assert_eq!(status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_wanted_where_there_are_some() {
    let server = TestServer::guarded(Guard { keys: vec!["one".into(), "two".into()], ..Guard::default() });
    let request = |path: &str, header: Option<(&str, &str)>| {
        let mut request = Request::get(path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        request.body(Body::empty()).unwrap()
    };
    let cases = [
        ("/api/tags", None, 401),
        ("/api/tags", Some(("authorization", "Bearer nope")), 401),
        ("/api/tags", Some(("authorization", "Bearer two")), 200),
        ("/api/tags", Some(("x-api-key", "one")), 200),
        ("/metrics", None, 401),
        ("/health", None, 200),
        ("/", None, 200),
    ];
    for (path, header, status) in cases {
        assert_eq!(server.send(request(path, header)).await.status(), status, "{path} {header:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_go_in_and_out_and_counts_rise() {
    let server = TestServer::tiny();
    let id = |given: Option<&str>| {
        let mut request = Request::get("/api/version");
        if let Some(given) = given {
            request = request.header("x-request-id", given);
        }
        let sent = server.send(request.body(Body::empty()).unwrap());
        async { sent.await.headers()["x-request-id"].to_str().unwrap().to_owned() }
    };
    assert_eq!(id(Some("abc-7")).await, "abc-7");
    let (one, two) = (id(None).await, id(None).await);
    assert!(one != two && one.len() == 16, "{one} {two}");
    assert_ne!(id(Some(&"x".repeat(200))).await.len(), 200);
    let body = json!({"model": "ir-tiny", "prompt": QUESTION, "stream": false, "options": {"num_predict": 8}});
    let (_, answer) = server.ask("/api/generate", body.clone()).await;
    server.ask("/api/generate", body).await;
    let (status, page) = text(server.send(Request::get("/metrics").body(Body::empty()).unwrap()).await).await;
    assert_eq!(status, 200);
    let value = |line: &str| {
        let found = page.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{line} is not in\n{page}")).parse::<f64>().unwrap()
    };
    let n = answer["eval_count"].as_f64().unwrap();
    assert_eq!(value("ir_generated_tokens_total{model=\"ir-tiny\"}"), 2.0 * n);
    assert_eq!(value("vllm:generation_tokens_total{model_name=\"ir-tiny\"}"), 2.0 * n);
    assert_eq!(value("llamacpp:tokens_predicted_total"), 2.0 * n);
    assert_eq!(value("vllm:time_to_first_token_seconds_count{model_name=\"ir-tiny\"}"), 2.0);
    assert_eq!(value("vllm:num_requests_running{model_name=\"ir-tiny\"}"), 0.0);
    assert!(value("ir_cached_tokens_total{model=\"ir-tiny\"}") > 0.0, "the second prompt is in the cache");
    assert_eq!(value("ir_http_requests_total{path=\"/api/generate\",method=\"POST\",status=\"200\"}"), 2.0);
    for line in page.lines().filter(|l| !l.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(!name.is_empty() && value.parse::<f64>().is_ok(), "{line}");
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_its_owners_and_goes_with_the_server() {
    use std::os::unix::fs::PermissionsExt;
    let server = TestServer::tiny();
    let path = std::env::temp_dir().join(format!("ir-socket-{}", std::process::id()));
    // What a server that was killed leaves behind is replaced; a file is not.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let socket = ir_server::UnixSocket::bind(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(ir_server::UnixSocket::bind(&path).is_err(), "a server listens there");
    let (end, told) = oneshot::channel::<()>();
    let serving =
        ir_server::serve(Listener::Unix(socket), server.app.clone(), server.hub.clone(), Limits::default(), async {
            let _ = told.await;
        });
    let serving = tokio::spawn(serving);
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    end.send(()).unwrap();
    serving.await.unwrap();
    assert!(!path.exists(), "the socket is left behind");
    std::fs::write(&path, "x").unwrap();
    assert!(ir_server::UnixSocket::bind(&path).is_err(), "a file is not replaced");
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_shown_with_its_headers() {
    let folder = std::env::temp_dir().join(format!("ir-page-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("index.html"), "<p>hello").unwrap();
    std::fs::write(folder.join("ir.wasm"), b"\0asm").unwrap();
    let page = Some(folder.clone());
    let server = TestServer::guarded(Guard { keys: vec!["k".into()], page, ..Guard::default() });
    let get = |path: &str| server.send(Request::get(path).body(Body::empty()).unwrap());
    assert_eq!(get("/ui").await.headers()["location"], "/ui/");
    let response = get("/ui/").await;
    assert_eq!(response.headers()["cross-origin-embedder-policy"], "require-corp");
    assert_eq!(response.headers()["cross-origin-opener-policy"], "same-origin");
    assert!(response.headers()["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
    assert_eq!(text(response).await, (200, "<p>hello".into()));
    assert_eq!(get("/ui/ir.wasm").await.headers()["content-type"], "application/wasm");
    for path in ["/ui/nope", "/ui/../Cargo.toml", "/ui/%2e%2e/%2e%2e/etc/passwd"] {
        assert_eq!(get(path).await.status(), 404, "{path}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
