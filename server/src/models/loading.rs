//! Loading and unloading: which models an [`Inner`] holds, when one makes room for another, when one expires. Who waits
//! for them is in `pool`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use ir_engine::builtin;
use ir_engine::device::kv_bytes;
use ir_engine::error::Error;
use ir_engine::model::Model;
use ir_engine::run::{Engine, EngineOptions};
use tokio::sync::watch;

use super::capabilities;
use super::loaded::{Life, Loaded};
use super::model_ref::LoadOptions;
use super::pool::Inner;
use super::registry::{Entry, Place};
use crate::engine::error::{ApiError, Kind, panicked};
use crate::engine::output_queue::lock;
use crate::engine::worker::Shared;

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
}

impl Inner {
    /// What to do, decided and noted in one go.
    pub(crate) fn look(&self, entry: &Entry, load: &LoadOptions) -> Next {
        let mut models = lock(&self.models);
        if let Some(loaded) = used(&models, entry, load) {
            return Next::Use(loaded);
        }
        match models.get(&entry.place) {
            Some(Slot::Loading(loading, _)) => return Next::Join(loading.clone()),
            Some(Slot::Ready(loaded)) => {
                if lock(&loaded.life).users > 0 && !loaded.is_broken() {
                    return Next::Wait;
                }
                self.drop_model(&mut models, &entry.place);
            }
            None => {}
        }
        let size = size_on_disk(&entry.place);
        if !self.make_room(&mut models, size) {
            return Next::Wait;
        }
        let (done, loading) = watch::channel(None);
        models.insert(entry.place.clone(), Slot::Loading(loading.clone(), size));
        Next::Load(done, loading)
    }

    /// The model, if it is loaded as wanted; counted as used.
    pub(crate) fn peek(&self, entry: &Entry, load: &LoadOptions) -> Option<Arc<Loaded>> {
        used(&lock(&self.models), entry, load)
    }

    /// Unloads a model as soon as nobody uses it. Says whether it was loaded.
    pub(crate) fn unload(&self, entry: &Entry) -> bool {
        let mut models = lock(&self.models);
        let Some(Slot::Ready(loaded)) = models.get(&entry.place) else { return false };
        let idle = {
            let mut life = lock(&loaded.life);
            (life.expires, life.leaving) = (Some(Instant::now()), true);
            life.users == 0
        };
        if idle {
            self.drop_model(&mut models, &entry.place);
            self.changed.notify_waiters();
        }
        true
    }

    fn drop_model(&self, models: &mut BTreeMap<Place, Slot>, place: &Place) {
        if let Some(Slot::Ready(loaded)) = models.remove(place) {
            tracing::info!(model = loaded.name, "unloaded");
            loaded.worker.drop_engine(loaded.id);
        }
    }

    /// Unloads idle models, the longest unused first, until one of `size` fits. Nothing else loaded: it fits.
    fn make_room(&self, models: &mut BTreeMap<Place, Slot>, size: u64) -> bool {
        loop {
            let bytes = |slot: &Slot| match slot {
                Slot::Ready(loaded) => loaded.size,
                Slot::Loading(_, size) => *size,
            };
            let used = models.values().map(bytes).fold(0, u64::saturating_add);
            let many = self.options.max_models > 0 && models.len() >= self.options.max_models;
            if models.is_empty() || (!many && used.saturating_add(size) <= self.options.memory) {
                return true;
            }
            let idle = models.iter().filter_map(|(place, slot)| match slot {
                Slot::Ready(loaded) => {
                    let life = *lock(&loaded.life);
                    (life.users == 0).then(|| (life.last_used, place.clone()))
                }
                Slot::Loading(..) => None,
            });
            let Some((_, place)) = idle.min() else { return false };
            self.drop_model(models, &place);
        }
    }

    /// Opens a model and hands its engine to the thread. Blocks.
    fn load(&self, entry: &Entry, wanted: &LoadOptions) -> Result<Arc<Loaded>, ApiError> {
        let options = &self.options;
        let name = wanted.device.as_deref().unwrap_or(&options.device);
        let (device, worker) = (self.devices)(name)?;
        let model = match &entry.place {
            Place::Builtin => Model::from_bytes(builtin::bytes(), &options.model),
            Place::File(path) => Model::open(path, &options.model),
        };
        let failed = |e: Error| not_loadable(&entry.name, &e);
        let model = Arc::new(model.map_err(failed)?);
        let most = model.spec().n_context;
        let context = wanted.context.map(|c| c.clamp(2, most.max(2))).or(options.engine.context);
        let engine_options = EngineOptions { context, ..options.engine.clone() };
        let engine = Engine::new(Arc::clone(&model), &device, &engine_options).map_err(|e| match wanted.context {
            // A context that the client asked for and the memory cannot hold is the client's to change.
            Some(_) => ApiError::param("num_ctx", e.to_string()),
            None => failed(e),
        })?;
        let cache = kv_bytes(model.plan(), engine_options.kv, engine.stats().pages);
        let shared = Arc::new(Shared { counters: self.counters(&entry.name), ..Shared::default() });
        *lock(&shared.stats) = engine.stats();
        let now = Instant::now();
        let loaded = Arc::new(Loaded {
            name: entry.name.clone(),
            place: entry.place.clone(),
            capabilities: capabilities::of_model(model.meta(), model.template(), &|text| model.tokenizer().id_of(text)),
            context: engine.context(),
            device: device.name(),
            size: size_on_disk(&entry.place) + cache,
            on_gpu: device.picks(),
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            worker,
            asked_device: name.to_owned(),
            model,
            shared: Arc::clone(&shared),
            life: Mutex::new(Life {
                users: 0,
                last_used: now,
                leaving: false,
                expires: Some(now + Duration::from_secs(60)),
            }),
            constrainer: OnceLock::new(),
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
        for (place, slot) in models.iter() {
            let Slot::Ready(loaded) = slot else { continue };
            let life = *lock(&loaded.life);
            match life.expires.filter(|_| life.users == 0) {
                Some(at) if at <= now => old.push(place.clone()),
                Some(at) => next = Some(next.map_or(at, |n| n.min(at))),
                None => {}
            }
        }
        for place in &old {
            self.drop_model(&mut models, place);
        }
        if !old.is_empty() {
            self.changed.notify_waiters();
        }
        next
    }
}

fn used(models: &BTreeMap<Place, Slot>, entry: &Entry, load: &LoadOptions) -> Option<Arc<Loaded>> {
    let Some(Slot::Ready(loaded)) = models.get(&entry.place) else { return None };
    fits(loaded, load).then(|| {
        let mut life = lock(&loaded.life);
        // Who asks for it again wants it to stay.
        life.leaving = false;
        life.users += 1;
        drop(life);
        Arc::clone(loaded)
    })
}

/// Whether a loaded model serves what is asked of loading.
fn fits(loaded: &Loaded, wanted: &LoadOptions) -> bool {
    let most = loaded.model.spec().n_context;
    let long_enough = wanted.context.is_none_or(|c| c.min(most) <= loaded.context);
    let there = wanted.device.as_ref().is_none_or(|device| *device == loaded.asked_device);
    long_enough && there && !loaded.is_broken()
}

/// What a file that is listed lacks or has too much of: a family that is not built yet is no fault of the server.
fn not_loadable(name: &str, error: &Error) -> ApiError {
    let kind = if matches!(error, Error::Unsupported(_)) { Kind::NotImplemented } else { Kind::Internal };
    ApiError::new(kind, format!("the model {name} cannot be loaded: {error}"))
}

fn size_on_disk(place: &Place) -> u64 {
    match place {
        Place::Builtin => builtin::bytes().len() as u64,
        // A folder's files together.
        Place::File(path) if path.is_dir() => std::fs::read_dir(path).map_or(0, |entries| {
            let size =
                |entry: std::io::Result<std::fs::DirEntry>| Some(std::fs::metadata(entry.ok()?.path()).ok()?.len());
            entries.filter_map(size).fold(0, u64::saturating_add)
        }),
        Place::File(path) => std::fs::metadata(path).map_or(0, |m| m.len()),
    }
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
            models.insert(entry.place.clone(), Slot::Ready(loaded));
            Ok(())
        }
        Err(error) => {
            models.remove(&entry.place);
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
