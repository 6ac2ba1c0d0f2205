//! `ir serve`: from flags to a running server. What it answers is `ir-server`'s.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ir_engine::builtin;
use ir_engine::device::Device;
use ir_engine::run::{DiskCache, EngineOptions, RamCache};
use ir_server::job::{KeepAlive, ModelRef};
use ir_server::{Guard, Hub, HubOptions, Limits, Listener, PoolOptions, PrefixCaches, Registry};
use ir_store::Place;
use tokio::net::TcpListener;

use crate::args::{DeviceArgs, DeviceChoice, ExpertsChoice, LayersChoice, LogFormat, LogLevel, ServeArgs};
use crate::compute;
use crate::failure::{Failure, Result};
use crate::models;
use crate::term;

/// Memory that a model's cache may take where no context is asked for.
const KV_BUDGET: u64 = 2 << 30;

/// How long work that nobody waits for any more may go on when the server has ended.
const LEFTOVERS: Duration = Duration::from_secs(1);

/// Serves until Ctrl-C or SIGTERM; a second one ends it at once.
pub(crate) fn serve(args: ServeArgs) -> Result {
    log(args.log, args.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::run(format!("cannot start threads: {e}")))?;
    let result = runtime.block_on(listen(args));
    runtime.shutdown_timeout(LEFTOVERS);
    result
}

fn log(level: LogLevel, format: LogFormat) {
    use tracing::level_filters::LevelFilter;
    let level = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let writer = tracing_subscriber::fmt().with_max_level(level).with_target(false).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => writer.with_ansi(false).init(),
        LogFormat::Json => writer.json().flatten_event(true).with_span_list(false).init(),
    }
}

async fn listen(args: ServeArgs) -> Result {
    // From here on, so that whoever saw the greeting can end it.
    let (once, twice) = (told(1), told(2));
    let guard = guard(&args);
    let (listener, url) = bind(&args).await?;
    let local = !matches!(&listener, Listener::Tcp(tcp) if !tcp.local_addr().is_ok_and(|a| a.ip().is_loopback()));
    let guard = Guard { check_host: local, ..guard };
    let served = served(&args)?;
    if (!args.lora.lora.is_empty() || !args.lora.lora_scaled.is_empty()) && served.len() != 1 {
        return Err(Failure::usage("--lora is for one model: name it, as in ir serve model.gguf --lora adapter.gguf"));
    }
    // What is named here is loaded now, so that a model that cannot be is known before a client asks.
    let first = served.iter().map(|(name, _)| name.clone());
    let names: Vec<String> = first.chain(args.pin.iter().cloned()).collect();
    let limits = Limits { grace: Duration::from_secs(args.grace.into()), ..Limits::default() };
    let has_page = guard.page.is_some();
    let hub = Hub::new(options(args, served)?);
    for name in &names {
        let wanted = ModelRef { name: name.clone(), ..ModelRef::default() };
        hub.open(&wanted).await.map_err(|e| Failure::run(e.message))?;
    }
    let first = names.first().map_or(builtin::NAME, String::as_str);
    term::remark(&greeting(&url, first, has_page));
    let app = ir_server::router(hub.clone(), guard);
    let serving = ir_server::serve(listener, app, hub.clone(), limits, once);
    tokio::select! {
        () = serving => {
            hub.flush_disk();
            term::remark("Ended.");
        }
        () = twice => term::remark("Ended at once."),
    }
    Ok(())
}

fn guard(args: &ServeArgs) -> Guard {
    let page = args.ui.clone().or_else(page_beside);
    Guard { keys: args.api_key.clone(), origins: args.cors.clone(), check_host: true, page }
}

/// What to try.
fn greeting(url: &Url, model: &str, has_page: bool) -> String {
    let (curl, shown) = match url {
        Url::Http(addr) => (format!("curl http://{addr}"), format!("http://{addr}")),
        Url::Unix(path) => {
            (format!("curl --unix-socket {} http://localhost", path.display()), path.display().to_string())
        }
    };
    let mut text = format!(
        "Listening on {shown} (Ctrl-C ends it). Try:\n  \
         {curl}/api/generate -d '{{\"model\": \"{model}\", \"prompt\": \"Who are you?\"}}'"
    );
    if let Url::Http(addr) = url {
        text += &format!(
            "\n  OPENAI_BASE_URL=http://{addr}/v1 and OLLAMA_HOST={addr} for programs; http://{addr}/docs lists the API"
        );
        if has_page {
            text += &format!("\n  http://{addr}/ui is a page to chat on");
        }
    }
    text
}

/// Where clients find the server.
enum Url {
    Http(SocketAddr),
    Unix(PathBuf),
}

/// Listens where `--addr` says.
async fn bind(args: &ServeArgs) -> Result<(Listener, Url)> {
    if let Some(path) = args.addr.strip_prefix("unix:") {
        return bind_unix(Path::new(path));
    }
    let addr = address(&args.addr).await?;
    if !addr.ip().is_loopback() && args.api_key.is_empty() && !args.no_key {
        return Err(Failure::usage(format!(
            "{addr} can be reached from other machines: give --api-key, or --no-key to serve anyone"
        )));
    }
    let listener = TcpListener::bind(addr).await.map_err(|e| {
        Failure::run(format!("cannot listen on {addr}: {e} (is a server running there? --addr names another place)"))
    })?;
    let addr = listener.local_addr().unwrap_or(addr);
    Ok((Listener::Tcp(listener), Url::Http(addr)))
}

#[cfg(unix)]
fn bind_unix(path: &Path) -> Result<(Listener, Url)> {
    let socket = ir_server::UnixSocket::bind(path)
        .map_err(|e| Failure::run(format!("cannot listen at {}: {e}; --addr names another place", path.display())))?;
    Ok((Listener::Unix(socket), Url::Unix(path.to_owned())))
}

#[cfg(not(unix))]
fn bind_unix(_: &Path) -> Result<(Listener, Url)> {
    Err(Failure::usage("this system has no Unix sockets: give --addr HOST:PORT"))
}

async fn address(text: &str) -> Result<SocketAddr> {
    let wrong = |why: String| Failure::usage(format!("--addr {text:?}: {why}; give HOST:PORT as in 127.0.0.1:11434"));
    let mut found = tokio::net::lookup_host(text).await.map_err(|e| wrong(e.to_string()))?;
    found.next().ok_or_else(|| wrong("no such host".into()))
}

/// The browser page's folder beside this program: as packages install it, or as it is built in a clone.
fn page_beside() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?.canonicalize().ok()?;
    let folder = program.parent()?;
    let places = ["ui", "../share/ir/ui", "../../web/dist"];
    places.into_iter().map(|p| folder.join(p)).find(|p| p.join("index.html").is_file())
}

/// The files that are named, by name.
fn served(args: &ServeArgs) -> Result<Vec<(String, Place)>> {
    let found = |model: &String| {
        let place = models::find(model, &args.file)?;
        Ok((place.name(), place))
    };
    args.model.iter().map(found).collect()
}

/// Leaves out what is about GPUs.
fn undivided(args: &mut DeviceArgs) {
    (args.gpu_layers, args.experts) = (LayersChoice::Auto, ExpertsChoice::WithLayer);
    (args.gpu_memory, args.split, args.gpu_forms) = (None, Vec::new(), None);
}

/// Other names of models.
fn aliases(args: &ServeArgs) -> Result<BTreeMap<String, String>> {
    let split = |text: &String| {
        let pair = text.split_once('=').filter(|(name, model)| !name.is_empty() && !model.is_empty());
        let pair = pair.map(|(name, model)| (name.to_owned(), model.to_owned()));
        pair.ok_or_else(|| Failure::usage(format!("--alias {text:?}: give NAME=MODEL as in gpt-4o=qwen3-8b")))
    };
    args.alias.iter().map(split).collect()
}

fn options(args: ServeArgs, served: Vec<(String, Place)>) -> Result<HubOptions> {
    let keep_alive = match ir_server::duration(&args.keep_alive) {
        Some(seconds) if seconds < 0.0 => KeepAlive::Forever,
        Some(seconds) => Duration::try_from_secs_f64(seconds).map_or(KeepAlive::Forever, KeepAlive::For),
        None => return Err(Failure::usage("--keep-alive takes seconds or a time such as 5m or 1h30m")),
    };
    let folder = models::folder(args.file.place.store.models.as_deref());
    let store = folder.is_some().then(|| models::store(&args.file.place.store)).transpose()?;
    let pinned = args.pin.iter().cloned().collect();
    let registry = Registry { served, aliases: aliases(&args)?, pinned, store, ..Registry::default() };
    let engine = EngineOptions {
        context: args.ctx.map(|n| n as usize),
        kv_budget: KV_BUDGET,
        kv: compute::kv_kind(args.device.kv_type),
        max_sequences: args.parallel,
        ..EngineOptions::default()
    };
    let model = models::options(&args.file, &args.lora)?;
    let (device, threads) = (args.device, args.threads.threads);
    // The device of the flags opens now, so that a wrong flag is known before a client asks.
    let compute::Chosen { device: opened, why } = compute::choose(&device, threads)?;
    if let Some(why) = why {
        tracing::info!("{why}");
    }
    let default = device.device.to_string();
    let open = {
        let default = default.clone();
        move |name: &str, layers: Option<usize>| {
            if name == default && layers.is_none() {
                return Ok(opened.clone());
            }
            let mut args = DeviceArgs { device: name.parse()?, ..device.clone() };
            match layers {
                // A server that was told to leave GPUs alone does.
                _ if args.device == DeviceChoice::Cpu => undivided(&mut args),
                Some(0) => {
                    args.device = DeviceChoice::Cpu;
                    undivided(&mut args);
                }
                Some(n) => args.gpu_layers = LayersChoice::Count(n),
                None => {}
            }
            let other = compute::choose(&args, threads).map(|chosen| chosen.device);
            match other.map_err(|e| e.sentence().unwrap_or("it does not open").to_owned())? {
                // There is one processor, and one pool of threads for it.
                Device::Cpu(_) => match &opened {
                    Device::Split(split) => Ok(split.cpu().clone()),
                    opened => Ok(opened.clone()),
                },
                other => Ok(other),
            }
        }
    };
    let disk = match &args.cache_dir {
        Some(folder) => Some(DiskCache::open(folder, u64::from(args.cache_disk) << 30)?),
        None => None,
    };
    let ram = Some(u64::from(args.cache_ram) << 20).filter(|bytes| *bytes > 0).map(RamCache::new);
    let models = PoolOptions {
        registry,
        open_device: Box::new(open),
        device: default,
        engine,
        model,
        keep_alive,
        max_models: args.max_models,
        memory: u64::from(args.memory) << 30,
        any_size: args.any_size,
        prefix_caches: PrefixCaches { ram, disk },
    };
    let deadline = args.deadline.map(|s| Duration::from_secs(s.into()));
    Ok(HubOptions { models, queue: args.queue, deadline, log_prompts: args.log_prompts })
}

/// Is ready after so many of Ctrl-C and SIGTERM, counted from this call on.
#[cfg(unix)]
fn told(times: usize) -> impl Future<Output = ()> + Send {
    use tokio::signal::unix::{SignalKind, signal};
    let both = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = both else { return std::future::pending().await };
        for _ in 0..times {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
    }
}

/// Is ready after so many Ctrl-C.
#[cfg(not(unix))]
async fn told(times: usize) {
    for _ in 0..times {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
