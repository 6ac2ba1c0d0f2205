//! [`Store::pull`]: from a name to a model that is here. A pull runs on a thread of its own, which all who want the same
//! model watch.

use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};

use crate::digest::Digest;
use crate::disk::Lock;
use crate::download;
use crate::error::{Error, Result};
use crate::http::Http;
use crate::manifest::Layer;
use crate::name::ModelName;
use crate::plan::{self, Plan};
use crate::progress::{Shared, Watcher};
use crate::store::{Store, locked};

fn runtime() -> Result<Runtime> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Error::unsupported(format!("cannot start a thread: {e}")))
}

/// Does something that waits for the network, also if the caller is inside a runtime.
pub(crate) fn on_a_thread<T: Send>(work: impl FnOnce(&Runtime) -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| work(&runtime()?));
        thread.join().unwrap_or_else(|_| Err(Error::unsupported("asking the network ended unexpectedly")))
    })
}

impl Store {
    /// Fetches a model, or joins the pull of it that runs.
    ///
    /// # Errors
    /// The name is that of a file, or no thread can be started. What goes wrong later comes as an event.
    pub fn pull(self: &Arc<Store>, name: &ModelName) -> Result<Watcher> {
        self.begin(name, None)
    }

    /// The same with a plan that was made before.
    ///
    /// # Errors
    /// As [`Store::pull`].
    pub fn pull_planned(self: &Arc<Store>, plan: Plan) -> Result<Watcher> {
        self.begin(&plan.name.clone(), Some(plan))
    }

    fn begin(self: &Arc<Store>, name: &ModelName, plan: Option<Plan>) -> Result<Watcher> {
        let Some(key) = name.key() else {
            return Err(Error::name(format!("{name} is a file of this machine: there is nothing to pull")));
        };
        let mut pulls = locked(&self.pulls);
        pulls.retain(|_, pull| pull.strong_count() > 0);
        if let Some(watcher) = pulls.get(&key).and_then(|pull| pull.upgrade()?.watch()) {
            return Ok(watcher);
        }
        let shared = Shared::new();
        let watcher = shared.watch().ok_or_else(Error::cancelled)?;
        pulls.insert(key, Arc::downgrade(&shared));
        let (store, name) = (Arc::clone(self), name.clone());
        let work = move || {
            let result = runtime().and_then(|runtime| {
                let http = Http::new(store.settings.tuning.clone(), shared.stopped())?;
                runtime.block_on(run(&store, &http, &name, plan, &shared))
            });
            shared.end(result);
        };
        std::thread::Builder::new()
            .name("ir-pull".into())
            .spawn(work)
            .map_err(|e| Error::unsupported(format!("cannot start a thread: {e}")))?;
        Ok(watcher)
    }
}

async fn run(store: &Store, http: &Http, name: &ModelName, plan: Option<Plan>, shared: &Shared) -> Result {
    shared.status("pulling manifest");
    let plan = match plan {
        Some(plan) => plan,
        None => plan::make(store, http, name).await?,
    };
    download::room(store, &plan.blobs)?;
    let mut wanted = Wanted::new(store, plan.blobs.iter().filter_map(|b| b.digest))?;
    let mut known = Vec::new();
    for blob in &plan.blobs {
        let (digest, size) = download::fetch(store, http, blob, shared).await?;
        wanted.add(store, &digest)?;
        known.push((digest, size));
    }
    shared.status("verifying sha256 digest");
    shared.status("writing manifest");
    publish(store, &plan, &known)?;
    drop(wanted);
    // Models of several files get the names of their files now, so that lists can read them.
    store.resolve(&plan.name)?;
    shared.status("success");
    Ok(())
}

/// Writes the manifest, unless a blob vanished meanwhile.
fn publish(store: &Store, plan: &Plan, known: &[(Digest, u64)]) -> Result {
    let Some(key) = plan.name.key() else { return Ok(()) };
    let _lock = store.lock()?;
    for (digest, size) in known {
        if !store.has_blob(digest, Some(*size))? {
            return Err(Error::corrupt(format!(
                "the blob {digest} was removed while its model was pulled: pull it again"
            )));
        }
    }
    let bytes = match &plan.manifest {
        Some(bytes) => bytes.clone(),
        None => {
            let kind = if plan.blobs.iter().any(|b| b.role == "file") { "safetensors" } else { "gguf" };
            let config = serde_json::json!({ "model_format": kind }).to_string();
            let digest = store.put(config.as_bytes())?;
            plan.manifest(Layer::new("", digest, config.len() as u64), known).bytes()
        }
    };
    store.publish(&key, &bytes)
}

/// The digests that this pull or creation needs, where collectors of other processes see them. They go when this ends.
#[derive(Debug)]
pub(crate) struct Wanted {
    path: std::path::PathBuf,
    _lock: Lock,
}

impl Wanted {
    pub(crate) fn new(store: &Store, digests: impl Iterator<Item = Digest>) -> Result<Wanted> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = store.own("pulls", &name)?;
        // Under the store's lock, so that no collector comes between the file and its lock.
        let _store = store.lock()?;
        let lock = Lock::attempt(&path)?.ok_or_else(|| Error::unsupported("two processes have the same number"))?;
        let mut wanted = Wanted { path, _lock: lock };
        for digest in digests {
            wanted.note(&digest)?;
        }
        Ok(wanted)
    }

    /// Notes one more.
    pub(crate) fn add(&mut self, store: &Store, digest: &Digest) -> Result {
        let _store = store.lock()?;
        self.note(digest)
    }

    fn note(&mut self, digest: &Digest) -> Result {
        use std::io::Write;
        let file = std::fs::OpenOptions::new().append(true).open(&self.path);
        file.and_then(|mut f| writeln!(f, "{digest}")).map_err(|e| Error::disk("write", &self.path, &e))
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
