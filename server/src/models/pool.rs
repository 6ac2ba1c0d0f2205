//! [`ModelPool`]: the models that are known and those that are loaded. Gives out leases; how models come and go is in
//! `loading`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ir_engine::model::ModelOptions;
use ir_engine::run::{DiskCache, EngineOptions};
use tokio::sync::Notify;

use super::devices::{Devices, OpenDevice, devices};
use super::downloads::Downloads;
use super::events::{Events, Status};
use super::loaded::{Lease, Loaded};
use super::loading::{self, Key, Next, Slot, Slots};
use super::model_ref::{KeepAlive, ModelRef};
use super::prefix_caches::PrefixCaches;
use super::registry::{Entry, Registry};
use crate::engine::error::ApiError;
use crate::engine::output_queue::lock;
use crate::engine::stats::Counters;

/// Which models there are, and how they are loaded.
pub struct PoolOptions {
    /// The models that are known.
    pub registry: Registry,
    /// Opens devices.
    pub open_device: OpenDevice,
    /// The device where a client names none.
    pub device: String,
    /// How engines are made; `max_sequences` is the number of requests that one model computes together.
    pub engine: EngineOptions,
    /// How files are opened.
    pub model: ModelOptions,
    /// How long a model stays loaded after its last request.
    pub keep_alive: KeepAlive,
    /// Models loaded at once, at most; 0: as many as the memory holds.
    pub max_models: usize,
    /// Bytes that loaded models may take; a single model may take more.
    pub memory: u64,
    /// Whether models are loaded that the device has no room for, and that are therefore slow.
    pub any_size: bool,
    /// Where the starts of conversations are kept beyond a model's life.
    pub prefix_caches: PrefixCaches,
}

/// How models are loaded: the rest of [`PoolOptions`].
pub(crate) struct LoadingOptions {
    pub(crate) device: String,
    pub(crate) engine: EngineOptions,
    pub(crate) model: ModelOptions,
    pub(crate) keep_alive: KeepAlive,
    pub(crate) max_models: usize,
    pub(crate) memory: u64,
    pub(crate) any_size: bool,
    pub(crate) prefix_caches: PrefixCaches,
}

/// The models. Cloning shares them.
#[derive(Debug, Clone)]
pub(crate) struct ModelPool(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) registry: Registry,
    pub(crate) options: LoadingOptions,
    pub(crate) models: Mutex<Slots>,
    /// Models that gave their memory back because nobody asked them.
    pub(crate) sleeping: Mutex<BTreeSet<Key>>,
    pub(crate) devices: Devices,
    pub(crate) next_id: AtomicU64,
    counters: Mutex<BTreeMap<String, Arc<Counters>>>,
    pub(crate) events: Arc<Events>,
    pub(crate) downloads: Arc<Downloads>,
    /// A model was loaded, unloaded or let go.
    pub(crate) changed: Notify,
    /// An expiry changed.
    pub(crate) sweep: Notify,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelPool").field("models", &self.models).finish_non_exhaustive()
    }
}

impl ModelPool {
    /// A pool with nothing loaded. Belongs into a tokio runtime.
    pub(crate) fn new(options: PoolOptions) -> ModelPool {
        let PoolOptions {
            registry,
            open_device,
            device,
            engine,
            model,
            keep_alive,
            max_models,
            memory,
            any_size,
            prefix_caches,
        } = options;
        let inner = Arc::new(Inner {
            registry,
            models: Mutex::default(),
            devices: devices(open_device),
            next_id: AtomicU64::new(0),
            counters: Mutex::default(),
            events: Arc::default(),
            downloads: Arc::default(),
            sleeping: Mutex::default(),
            changed: Notify::new(),
            sweep: Notify::new(),
            options: LoadingOptions { device, engine, model, keep_alive, max_models, memory, any_size, prefix_caches },
        });
        tokio::spawn(loading::sweep(Arc::downgrade(&inner)));
        ModelPool(inner)
    }

    /// The models that are known.
    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Where the starts of conversations are kept.
    pub(crate) fn prefix_caches(&self) -> &PrefixCaches {
        &self.0.options.prefix_caches
    }

    /// Waits until what is to be kept in the folder is written.
    pub(crate) fn flush_disk(&self) {
        self.0.options.prefix_caches.disk.iter().for_each(DiskCache::flush);
    }

    /// The models that are loaded.
    pub(crate) fn loaded(&self) -> Vec<Arc<Loaded>> {
        let models = lock(&self.0.models);
        models.values().filter_map(|s| if let Slot::Ready(l) = s { Some(Arc::clone(l)) } else { None }).collect()
    }

    /// The model of clients who name none: the one used last, or else the first that is known.
    pub(crate) fn default_model(&self) -> String {
        let last = self.loaded().into_iter().max_by_key(|l| lock(&l.life).last_used);
        last.map(|l| l.name.clone()).or_else(|| self.registry().first()).unwrap_or_default()
    }

    /// How a model stands.
    pub(crate) fn status(&self, key: &Key) -> Status {
        match lock(&self.0.models).get(key) {
            Some(Slot::Ready(_)) => Status::Loaded,
            Some(Slot::Loading(..)) => Status::Loading,
            None if lock(&self.0.sleeping).contains(key) => Status::Sleeping,
            None => Status::Unloaded,
        }
    }

    /// What happens to models.
    pub(crate) fn events(&self) -> &Arc<Events> {
        &self.0.events
    }

    /// Pulls that nobody waits for.
    pub(crate) fn downloads(&self) -> &Arc<Downloads> {
        &self.0.downloads
    }

    /// The model, where it is loaded as wanted.
    pub(crate) fn ready(&self, entry: &Entry, wanted: &ModelRef) -> Option<Lease> {
        self.0.peek(entry, &wanted.load).map(|loaded| self.lease(entry, loaded, wanted, Duration::ZERO))
    }

    /// A model, loaded if it is not; waits for room and for others who load it.
    ///
    /// # Errors
    /// A file that does not open, a device that does not.
    pub(crate) async fn open(&self, entry: Entry, wanted: &ModelRef) -> Result<Lease, ApiError> {
        let started = Instant::now();
        let mut waited = false;
        loop {
            // Registered before the look, so that no change is missed.
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            match self.0.look(&entry, &wanted.load) {
                Next::Use(loaded) => {
                    let load = if waited { started.elapsed() } else { Duration::ZERO };
                    return Ok(self.lease(&entry, loaded, wanted, load));
                }
                Next::Load(done, loading) => {
                    // The load goes on when the client leaves: others may wait for it.
                    tokio::spawn(loading::load(Arc::clone(&self.0), entry.clone(), wanted.load.clone(), done));
                    loading::joined(loading).await?;
                }
                Next::Join(loading) => loading::joined(loading).await?,
                Next::Wait => changed.await,
                Next::Never(error) => return Err(error),
            }
            waited = true;
        }
    }

    /// Unloads a model as soon as nobody uses it. Says whether it was loaded.
    ///
    /// # Errors
    /// It is pinned.
    pub(crate) fn unload(&self, entry: &Entry) -> Result<bool, ApiError> {
        self.0.unload(entry)
    }

    fn lease(&self, entry: &Entry, loaded: Arc<Loaded>, wanted: &ModelRef, load: Duration) -> Lease {
        let keep_alive = wanted.keep_alive.unwrap_or(self.0.options.keep_alive);
        Lease { loaded, pool: Arc::clone(&self.0), keep_alive, recipe: Arc::clone(&entry.recipe), load }
    }

    /// Sequences that one model computes together.
    pub(crate) fn parallel(&self) -> usize {
        self.0.options.engine.max_sequences.max(1)
    }

    /// What was counted, by model.
    pub(crate) fn all_counters(&self) -> Vec<(String, Arc<Counters>)> {
        lock(&self.0.counters).iter().map(|(name, counters)| (name.clone(), Arc::clone(counters))).collect()
    }
}

impl Inner {
    /// The counts of a model of this name.
    pub(crate) fn counters(&self, name: &str) -> Arc<Counters> {
        Arc::clone(lock(&self.counters).entry(name.to_owned()).or_default())
    }
}
