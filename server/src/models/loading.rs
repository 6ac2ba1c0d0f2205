//! Loading and unloading: which models an [`Inner`] holds, when one makes room for another, when one expires. Who waits
//! for them is in `pool`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use ir_engine::device::{Device, KvKind};
use ir_engine::error::Error;
use ir_engine::model::{Model, ModelOptions};
use ir_engine::run::{Engine, EngineOptions};
use ir_store::Need;
use tokio::sync::watch;

use super::capabilities::Capabilities;
use super::events::{Status, What};
use super::loaded::{Life, Loaded};
use super::model_ref::LoadOptions;
use super::pool::Inner;
use super::registry::Entry;
use crate::engine::error::{ApiError, Kind, panicked};
use crate::engine::output_queue::lock;
use crate::engine::worker::Shared;

/// What tells models apart: their files; `None` is the built-in one.
pub(crate) type Key = Option<PathBuf>;

/// The slots of the models that are loaded or about to be.
pub(crate) type Slots = BTreeMap<Key, Slot>;

/// How a load ended, once it has.
pub(crate) type Loading = watch::Receiver<Option<Result<(), ApiError>>>;

/// A model that is loaded or about to be.
#[derive(Debug)]
pub(crate) enum Slot {
    /// And the bytes of its file.
    Loading(Loading, u64),
    Ready(Arc<Loaded>),
}

/// What to do about a model that is wanted.
pub(crate) enum Next {
    Use(Arc<Loaded>),
    Join(Loading),
    Load(watch::Sender<Option<Result<(), ApiError>>>, Loading),
    Wait,
    /// Nothing that is loaded will ever make room.
    Never(ApiError),
}

/// Whether a model can come in.
enum Room {
    Free,
    /// When somebody lets go of a model.
    Later,
    Never,
}

impl Inner {
    /// What to do, decided and noted in one go.
    pub(crate) fn look(&self, entry: &Entry, load: &LoadOptions) -> Next {
        let mut models = lock(&self.models);
        if let Some(loaded) = used(&models, entry, load) {
            return Next::Use(loaded);
        }
        let key = entry.key();
        match models.get(&key) {
            Some(Slot::Loading(loading, _)) => return Next::Join(loading.clone()),
            Some(Slot::Ready(loaded)) => {
                if lock(&loaded.life).users > 0 && !loaded.is_broken() {
                    return Next::Wait;
                }
                self.drop_model(&mut models, &key, Status::Unloaded);
            }
            None => {}
        }
        let size = entry.place.bytes();
        match self.make_room(&mut models, size) {
            Room::Free => {}
            Room::Later => return Next::Wait,
            Room::Never => return Next::Never(self.full(entry)),
        }
        let (done, loading) = watch::channel(None);
        models.insert(key, Slot::Loading(loading.clone(), size));
        self.events.tell(&entry.name, What::Status(Status::Loading));
        Next::Load(done, loading)
    }

    /// The model, if it is loaded as wanted; counted as used.
    pub(crate) fn peek(&self, entry: &Entry, load: &LoadOptions) -> Option<Arc<Loaded>> {
        used(&lock(&self.models), entry, load)
    }

    fn full(&self, entry: &Entry) -> ApiError {
        let what = format!(
            "there is no room for {}: the models that are pinned, which are never unloaded, take what --memory and \
             --max-models allow",
            entry.name
        );
        ApiError::new(Kind::Unavailable, what)
    }

    /// Unloads a model as soon as nobody uses it. Says whether it was loaded.
    ///
    /// # Errors
    /// It is pinned.
    pub(crate) fn unload(&self, entry: &Entry) -> Result<bool, ApiError> {
        let mut models = lock(&self.models);
        let key = entry.key();
        lock(&self.sleeping).remove(&key);
        let Some(Slot::Ready(loaded)) = models.get(&key) else { return Ok(false) };
        if loaded.pinned {
            let what = format!("{} is pinned: it stays loaded until the server ends", loaded.name);
            return Err(ApiError::new(Kind::Forbidden, what));
        }
        let idle = {
            let mut life = lock(&loaded.life);
            (life.expires, life.leaving) = (Some(Instant::now()), true);
            life.users == 0
        };
        if idle {
            self.drop_model(&mut models, &key, Status::Unloaded);
            self.changed.notify_waiters();
        }
        Ok(true)
    }

    fn drop_model(&self, models: &mut Slots, key: &Key, now: Status) {
        if let Some(Slot::Ready(loaded)) = models.remove(key) {
            tracing::info!(model = loaded.name, "unloaded");
            loaded.worker.drop_engine(loaded.id);
            match now {
                Status::Sleeping => lock(&self.sleeping).insert(key.clone()),
                _ => lock(&self.sleeping).remove(key),
            };
            self.events.tell(&loaded.name, What::Status(now));
        }
    }

    /// Unloads idle models, the longest unused first, until one of `size` fits; never one that is busy or pinned. Nothing
    /// else loaded: it fits.
    fn make_room(&self, models: &mut Slots, size: u64) -> Room {
        loop {
            let bytes = |slot: &Slot| match slot {
                Slot::Ready(loaded) => loaded.size,
                Slot::Loading(_, size) => *size,
            };
            let used = models.values().map(bytes).fold(0, u64::saturating_add);
            let many = self.options.max_models > 0 && models.len() >= self.options.max_models;
            if models.is_empty() || (!many && used.saturating_add(size) <= self.options.memory) {
                return Room::Free;
            }
            let idle = models.iter().filter_map(|(key, slot)| match slot {
                Slot::Ready(loaded) if !loaded.pinned => {
                    let life = *lock(&loaded.life);
                    (life.users == 0).then(|| (life.last_used, key.clone()))
                }
                _ => None,
            });
            let Some((_, key)) = idle.min() else {
                let stays = |slot: &Slot| matches!(slot, Slot::Ready(loaded) if loaded.pinned);
                return if models.values().all(stays) { Room::Never } else { Room::Later };
            };
            self.drop_model(models, &key, Status::Unloaded);
        }
    }

    /// Opens a model and hands its engine to the thread. Blocks.
    fn load(&self, entry: &Entry, wanted: &LoadOptions) -> Result<Arc<Loaded>, ApiError> {
        let options = &self.options;
        let name = wanted.device.as_deref().unwrap_or(&options.device);
        let (device, worker) = (self.devices)(name, wanted.gpu_layers)?;
        // Adapters are those of the models that the server was started with.
        let adapters = if self.registry.is_served(entry) { options.model.adapters.clone() } else { Vec::new() };
        let lora = Mutex::new(adapters.iter().map(|of| of.scale).collect());
        let model = entry.place.model(&ModelOptions { adapters, ..options.model.clone() });
        let failed = |e: Error| not_loadable(&entry.name, &e);
        let model = Arc::new(model.map_err(failed)?);
        if !options.any_size {
            fits(&entry.name, &model, &device, options.engine.kv)?;
        }
        let most = model.spec().n_context;
        let context = wanted.context.map(|c| c.clamp(2, most.max(2))).or(options.engine.context);
        let engine_options = EngineOptions { context, ..options.engine.clone() };
        let mut engine =
            Engine::new(Arc::clone(&model), &device, &engine_options).map_err(|e| match wanted.context {
                // A context that the client asked for and the memory cannot hold is the client's to change.
                Some(_) => ApiError::param("num_ctx", e.to_string()),
                None => failed(e),
            })?;
        if let Some(store) = options.prefix_caches.store() {
            engine.keep_in(store);
        }
        let cache = engine.stats().cache_bytes;
        let shared = Arc::new(Shared { counters: self.counters(&entry.name), ..Shared::default() });
        *lock(&shared.stats) = engine.stats();
        let now = Instant::now();
        let loaded = Arc::new(Loaded {
            name: entry.name.clone(),
            place: entry.place.clone(),
            capabilities: Capabilities::of_model(model.meta(), model.template(), &|text| model.tokenizer().id_of(text)),
            pinned: entry.pinned,
            context: engine.context(),
            device: engine.placement(),
            size: entry.place.bytes().saturating_add(cache),
            device_bytes: engine.device_bytes(),
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            worker,
            asked_device: name.to_owned(),
            asked_gpu_layers: wanted.gpu_layers,
            model,
            shared: Arc::clone(&shared),
            life: Mutex::new(Life {
                users: 0,
                last_used: now,
                leaving: false,
                expires: Some(now + Duration::from_secs(60)),
            }),
            constrainer: OnceLock::new(),
            lora,
        });
        loaded.worker.host(loaded.id, Box::new(engine), shared)?;
        Ok(loaded)
    }

    /// Unloads what expired; gives when the next will.
    fn expire(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut models = lock(&self.models);
        let mut next: Option<Instant> = None;
        let mut old = Vec::new();
        for (key, slot) in models.iter() {
            let Slot::Ready(loaded) = slot else { continue };
            if loaded.pinned {
                continue;
            }
            let life = *lock(&loaded.life);
            match life.expires.filter(|_| life.users == 0) {
                Some(at) if at <= now => old.push((key.clone(), life.leaving)),
                Some(at) => next = Some(next.map_or(at, |n| n.min(at))),
                None => {}
            }
        }
        for (key, leaving) in &old {
            self.drop_model(&mut models, key, if *leaving { Status::Unloaded } else { Status::Sleeping });
        }
        if !old.is_empty() {
            self.changed.notify_waiters();
        }
        next
    }
}

/// Refuses a model that the device has no room for: it would be read from disk again and again.
fn fits(name: &str, model: &Model, device: &Device, kv: KvKind) -> Result<(), ApiError> {
    let memory = if device.takes_weights() { device.memory() } else { ir_store::memory().map(|m| m.total) };
    let need = Need::new(model.file(), model.plan(), model.spec().n_context, kv);
    match memory.and_then(|memory| need.refusal(memory)) {
        Some(why) => Err(ApiError::new(Kind::Internal, format!("the model {name} cannot be loaded: {why}"))),
        None => Ok(()),
    }
}

fn used(models: &Slots, entry: &Entry, load: &LoadOptions) -> Option<Arc<Loaded>> {
    let Some(Slot::Ready(loaded)) = models.get(&entry.key()) else { return None };
    serves(loaded, load).then(|| {
        let mut life = lock(&loaded.life);
        // Who asks for it again wants it to stay.
        life.leaving = false;
        life.users += 1;
        drop(life);
        Arc::clone(loaded)
    })
}

/// Whether a loaded model serves what is asked of loading.
fn serves(loaded: &Loaded, wanted: &LoadOptions) -> bool {
    let most = loaded.model.spec().n_context;
    let long_enough = wanted.context.is_none_or(|c| c.min(most) <= loaded.context);
    let there = wanted.device.as_ref().is_none_or(|device| *device == loaded.asked_device);
    let layers = wanted.gpu_layers.is_none() || wanted.gpu_layers == loaded.asked_gpu_layers;
    long_enough && there && layers && !loaded.is_stale()
}

/// What a file that is listed lacks or has too much of: a family that is not built yet is no fault of the server.
fn not_loadable(name: &str, error: &Error) -> ApiError {
    let kind = if matches!(error, Error::Unsupported(_)) { Kind::NotImplemented } else { Kind::Internal };
    ApiError::new(kind, format!("the model {name} cannot be loaded: {error}"))
}

/// Waits for a load.
pub(crate) async fn joined(mut loading: Loading) -> Result<(), ApiError> {
    match loading.wait_for(Option::is_some).await {
        Ok(done) => done.clone().unwrap_or(Ok(())),
        Err(_) => Err(panicked()),
    }
}

/// Loads a model and tells whoever waits for it.
pub(crate) async fn load(
    inner: Arc<Inner>,
    entry: Entry,
    wanted: LoadOptions,
    done: watch::Sender<Option<Result<(), ApiError>>>,
) {
    let started = Instant::now();
    let result = {
        let (inner, entry) = (Arc::clone(&inner), entry.clone());
        tokio::task::spawn_blocking(move || inner.load(&entry, &wanted)).await.unwrap_or_else(|_| Err(panicked()))
    };
    let mut models = lock(&inner.models);
    let result = match result {
        Ok(loaded) => {
            let (model, device, seconds) = (&loaded.name, &loaded.device, started.elapsed().as_secs_f64());
            tracing::info!(model, device, context = loaded.context, seconds, "loaded");
            inner.events.tell(model, What::Status(Status::Loaded));
            lock(&inner.sleeping).remove(&entry.key());
            models.insert(entry.key(), Slot::Ready(loaded));
            Ok(())
        }
        Err(error) => {
            models.remove(&entry.key());
            inner.events.tell(&entry.name, What::LoadFailed(error.message.clone()));
            tracing::warn!(model = entry.name, error = error.message, "not loaded");
            Err(error)
        }
    };
    drop(models);
    done.send_replace(Some(result));
    inner.changed.notify_waiters();
    inner.sweep.notify_one();
}

/// Unloads models when their time comes, as long as there is a hub.
pub(crate) async fn sweep(hub: std::sync::Weak<Inner>) {
    loop {
        let Some(inner) = hub.upgrade() else { return };
        let next = inner.expire();
        let longest = Instant::now() + Duration::from_secs(5);
        let until = next.map_or(longest, |at| at.min(longest));
        // Waking every few seconds also lets the task end when the hub is gone.
        let _ = tokio::time::timeout_at(until.into(), inner.sweep.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_that_is_not_built_is_no_failure_of_the_server() {
        let error = not_loadable("m", &Error::unsupported("x models are not supported yet"));
        assert_eq!(
            (error.kind, error.message.as_str()),
            (Kind::NotImplemented, "the model m cannot be loaded: x models are not supported yet")
        );
        assert_eq!(not_loadable("m", &Error::format("the file is cut short")).kind, Kind::Internal);
    }
}
