//! What the server's tests share: a router over ir-tiny in this process, and requests to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use ir_engine::cpu::{Cpu, CpuOptions};
use ir_engine::device::Device;
use ir_engine::model::{Attached, ModelOptions};
use ir_engine::run::{DiskCache, EngineOptions, RamCache};
use ir_server::job::KeepAlive;
use ir_server::{Guard, Hub, HubOptions, PoolOptions, PrefixCaches, Registry, router};
use ir_store::{Place, Store};
use serde_json::Value as Json;
use tower::ServiceExt;

/// What tests change about a server.
pub(crate) struct Settings {
    pub(crate) queue: usize,
    pub(crate) parallel: usize,
    pub(crate) deadline: Option<Duration>,
    /// Names `model-0`, `model-1`, ... for so many copies of ir-tiny.
    pub(crate) files: usize,
    pub(crate) max_models: usize,
    pub(crate) memory: u64,
    /// Where prefixes are kept beyond the server's life.
    pub(crate) cache_dir: Option<PathBuf>,
    /// Bytes of the cache of prefixes in memory.
    pub(crate) cache_ram: Option<u64>,
    /// Instruction set of the kernels.
    pub(crate) simd: &'static str,
    /// The models of this machine.
    pub(crate) store: Option<Arc<Store>>,
    /// Names of models that are never unloaded.
    pub(crate) pinned: Vec<&'static str>,
    pub(crate) keep_alive: KeepAlive,
    /// Adapters of `model-0` and so on.
    pub(crate) adapters: Vec<Attached>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            queue: 512,
            parallel: 4,
            deadline: None,
            files: 0,
            max_models: 0,
            memory: 1 << 30,
            simd: "auto",
            store: None,
            pinned: Vec::new(),
            keep_alive: KeepAlive::For(Duration::from_secs(300)),
            cache_dir: None,
            cache_ram: None,
            adapters: Vec::new(),
        }
    }
}

/// A hub that knows ir-tiny.
pub(crate) fn hub(settings: Settings) -> Hub {
    let files: Vec<(String, PathBuf)> = (0..settings.files).map(copy).collect();
    hub_of(settings, files)
}

/// A hub that knows these files too.
pub(crate) fn serving(files: Vec<(String, PathBuf)>) -> Hub {
    hub_of(Settings::default(), files)
}

fn hub_of(settings: Settings, files: Vec<(String, PathBuf)>) -> Hub {
    let served = files.into_iter().map(|(name, path)| (name, Place::File(path))).collect();
    let pinned = settings.pinned.iter().map(|name| (*name).to_owned()).collect();
    let registry = Registry { served, pinned, store: settings.store, ..Registry::default() };
    let simd = settings.simd;
    let open = move |name: &str, _: Option<usize>| match name {
        "cpu" => Cpu::new(&CpuOptions { threads: Some(1), simd: Some(simd.into()), ..CpuOptions::default() })
            .map(|cpu| Device::Cpu(Arc::new(cpu)))
            .map_err(|e| e.to_string()),
        other => Err(format!("there is no device {other:?}")),
    };
    let models = PoolOptions {
        registry,
        open_device: Box::new(open),
        device: "cpu".into(),
        engine: EngineOptions { max_sequences: settings.parallel, kv_budget: 64 << 20, ..EngineOptions::default() },
        model: ModelOptions { adapters: settings.adapters, ..ModelOptions::default() },
        keep_alive: settings.keep_alive,
        max_models: settings.max_models,
        memory: settings.memory,
        any_size: false,
        prefix_caches: PrefixCaches {
            ram: settings.cache_ram.map(RamCache::new),
            disk: settings.cache_dir.map(|folder| DiskCache::open(&folder, 1 << 30).unwrap()),
        },
    };
    Hub::new(HubOptions { models, queue: settings.queue, deadline: settings.deadline, log_prompts: false })
}

/// A folder of its own for a test.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("server-store").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A file of ir-tiny by a name of its own, in this process's folder of temporary files.
fn copy(i: usize) -> (String, PathBuf) {
    let folder = std::env::temp_dir().join(format!("ir-server-tests-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("model-{i}.gguf"));
    // Another test's, which may be mapped just now, is as good.
    if !path.exists() {
        let unfinished = folder.join(format!("model-{i}-{:?}", std::thread::current().id()));
        std::fs::write(&unfinished, ir_engine::builtin::bytes().to_vec()).unwrap();
        std::fs::rename(unfinished, &path).unwrap();
    }
    (format!("model-{i}"), path)
}

/// The server without a connection.
pub(crate) struct TestServer {
    pub(crate) app: Router,
    pub(crate) hub: Hub,
}

impl TestServer {
    /// With ir-tiny and no key.
    pub(crate) fn tiny() -> TestServer {
        TestServer::with(Settings::default())
    }

    /// With other settings.
    pub(crate) fn with(settings: Settings) -> TestServer {
        let hub = hub(settings);
        TestServer { app: router(hub.clone(), Guard { check_host: true, ..Guard::default() }), hub }
    }

    /// With another guard.
    pub(crate) fn guarded(guard: Guard) -> TestServer {
        let hub = hub(Settings::default());
        TestServer { app: router(hub.clone(), guard), hub }
    }

    /// The answer to a request.
    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.app.clone().oneshot(request).await.unwrap()
    }

    /// Status and body of a POST.
    pub(crate) async fn post(&self, path: &str, body: &Json) -> (u16, String) {
        let request = Request::post(path).header("host", "localhost").body(Body::from(body.to_string())).unwrap();
        text(self.send(request).await).await
    }

    /// Status and JSON of a POST.
    pub(crate) async fn ask(&self, path: &str, body: Json) -> (u16, Json) {
        let (status, text) = self.post(path, &body).await;
        (status, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
    }

    /// The lines of a streamed answer.
    pub(crate) async fn lines(&self, path: &str, body: Json) -> Vec<Json> {
        let (status, text) = self.post(path, &body).await;
        assert_eq!(status, 200, "{text}");
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }
}

/// Status and body.
pub(crate) async fn text(response: Response<Body>) -> (u16, String) {
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), 64 << 20).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}
