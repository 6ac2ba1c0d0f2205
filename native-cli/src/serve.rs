//! `ir serve`: from flags to a running server. What it answers is `ir-server`'s.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ir_engine::builtin;
use ir_engine::model::ModelOptions;
use ir_engine::run::EngineOptions;
use ir_server::job::{KeepAlive, ModelRef};
use ir_server::{Guard, Hub, HubOptions, Limits, Registry};
use tokio::net::TcpListener;

use crate::args::{DeviceArgs, ServeArgs};
use crate::compute;
use crate::failure::{Failure, Result};
use crate::models::{self, Place};
use crate::term;

/// Memory that a model's cache may take where no context is asked for.
const KV_BUDGET: u64 = 2 << 30;

/// Serves until Ctrl-C or SIGTERM.
pub(crate) fn serve(args: ServeArgs) -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::run(format!("cannot start threads: {e}")))?;
    runtime.block_on(listen(args))
}

async fn listen(args: ServeArgs) -> Result {
    let addr = address(&args.addr).await?;
    if !addr.ip().is_loopback() && args.api_key.is_empty() && !args.no_key {
        return Err(Failure::usage(format!(
            "{addr} can be reached from other machines: give --api-key, or --no-key to serve anyone"
        )));
    }
    let guard = Guard { keys: args.api_key.clone(), origins: args.cors.clone(), check_host: addr.ip().is_loopback() };
    let served = served(&args)?;
    let names: Vec<String> = served.iter().map(|(name, _)| name.clone()).collect();
    let hub = Hub::new(options(args, served)?).map_err(|e| Failure::run(format!("cannot start a thread: {e}")))?;
    for name in &names {
        let wanted = ModelRef { name: name.clone(), ..ModelRef::default() };
        hub.open(&wanted).await.map_err(|e| Failure::run(e.message))?;
    }
    let listener = TcpListener::bind(addr).await.map_err(|e| {
        Failure::run(format!("cannot listen on {addr}: {e} (is a server running there? --addr names another place)"))
    })?;
    let addr = listener.local_addr().unwrap_or(addr);
    let first = names.first().map_or(builtin::NAME, String::as_str);
    term::remark(&format!(
        "Listening on http://{addr} (Ctrl-C ends it). Try:\n  \
         curl http://{addr}/api/generate -d '{{\"model\": \"{first}\", \"prompt\": \"Who are you?\"}}'"
    ));
    let app = ir_server::router(hub.clone(), guard);
    ir_server::serve(listener, app, hub, Limits::default(), end()).await;
    term::remark("Ended.");
    Ok(())
}

async fn address(text: &str) -> Result<SocketAddr> {
    let wrong = |why: String| Failure::usage(format!("--addr {text:?}: {why}; give HOST:PORT as in 127.0.0.1:11434"));
    let mut found = tokio::net::lookup_host(text).await.map_err(|e| wrong(e.to_string()))?;
    found.next().ok_or_else(|| wrong("no such host".into()))
}

/// The files that are named, by name.
fn served(args: &ServeArgs) -> Result<Vec<(String, PathBuf)>> {
    let mut served = Vec::new();
    for model in &args.models {
        let place = models::find(model, &args.file)?;
        let name = place.name();
        if let Place::File(path) = place {
            served.push((name, path));
        }
    }
    Ok(served)
}

fn options(args: ServeArgs, served: Vec<(String, PathBuf)>) -> Result<HubOptions> {
    let keep_alive = match ir_server::duration(&args.keep_alive) {
        Some(seconds) if seconds < 0.0 => KeepAlive::Forever,
        Some(seconds) => Duration::try_from_secs_f64(seconds).map_or(KeepAlive::Forever, KeepAlive::For),
        None => return Err(Failure::usage("--keep-alive takes seconds or a time such as 5m or 1h30m")),
    };
    let folder = models::folder(args.file.place.models.as_deref());
    let list = {
        let folder = folder.clone();
        move || {
            let named = folder.as_deref().map(models::named).unwrap_or_default();
            named.into_iter().map(|m| (m.name, m.path)).collect()
        }
    };
    let registry = Registry { served, aliases: Default::default(), folder, list_folder: Box::new(list) };
    let engine = EngineOptions {
        context: args.ctx.map(|n| n as usize),
        kv_budget: KV_BUDGET,
        kv: compute::kv_kind(args.device.kv_type),
        max_sequences: args.parallel,
        ..EngineOptions::default()
    };
    let model = ModelOptions { no_mmap: args.file.place.no_mmap, tokenizer_pre: args.file.tokenizer_pre.clone() };
    let (device, threads) = (args.device, args.threads.threads);
    // The device of the flags opens now, so that a wrong flag is known before a client asks.
    let opened = compute::device(&device, threads)?;
    let default = "default".to_owned();
    let open = move |name: &str| {
        if name == "default" {
            return Ok(opened.clone());
        }
        let choice = name.parse()?;
        let args = DeviceArgs { device: choice, ..device.clone() };
        compute::device(&args, threads).map_err(|e| e.sentence().unwrap_or("it does not open").to_owned())
    };
    Ok(HubOptions {
        registry,
        open_device: Box::new(open),
        device: default,
        engine,
        model,
        queue: args.queue,
        keep_alive,
        max_models: args.max_models,
        memory: u64::from(args.memory) << 30,
        deadline: args.deadline.map(|s| Duration::from_secs(s.into())),
    })
}

/// Ctrl-C or SIGTERM.
async fn end() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
