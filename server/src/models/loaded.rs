//! [`Loaded`]: a model that an engine runs, as the handlers see it; [`Lease`]: the promise that it stays.

use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use ir_engine::model::Model;
use ir_engine::run::Stats;
use ir_engine::text::constrain::{Constrainer, Vocabulary};
use ir_store::{Place, Recipe};

use super::capabilities::Capabilities;
use super::model_ref::KeepAlive;
use super::pool::Inner;
use crate::engine::error::ApiError;
use crate::engine::output_queue::lock;
use crate::engine::worker::{Shared, Submission, Worker};

/// A loaded model.
#[derive(Debug)]
pub struct Loaded {
    /// The name it is listed by.
    pub name: String,
    /// Where it comes from.
    pub place: Place,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Tokens of a sequence at most.
    pub context: usize,
    /// The device it runs on, for people.
    pub device: String,
    /// Bytes of its file and of the cache at its largest.
    pub size: u64,
    /// Bytes that it takes of each GPU's memory, with the GPU's name.
    pub device_bytes: Vec<(String, u64)>,
    /// It is never unloaded to make room or because nobody asks it.
    pub pinned: bool,
    pub(crate) id: u64,
    /// The thread that owns its engine.
    pub(crate) worker: Worker,
    /// The device as it was asked for: by a client, or by the server's settings.
    pub(crate) asked_device: String,
    /// Layers that were asked to be on GPUs.
    pub(crate) asked_gpu_layers: Option<usize>,
    pub(crate) model: Arc<Model>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) life: Mutex<Life>,
    /// Made when a grammar is first asked for.
    pub(crate) constrainer: OnceLock<Result<Constrainer, ApiError>>,
    /// How much of each adapter is used where a request says nothing.
    pub(crate) lora: Mutex<Vec<f32>>,
}

/// Who uses a model and how long it stays.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    pub(crate) users: usize,
    pub(crate) last_used: Instant,
    /// It is to be unloaded as soon as nobody uses it.
    pub(crate) leaving: bool,
    /// When it is unloaded if nobody uses it; `None`: when the memory is needed.
    pub(crate) expires: Option<Instant>,
}

impl Loaded {
    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Counts of its engine after the last step.
    pub fn stats(&self) -> Stats {
        *lock(&self.shared.stats)
    }

    /// When it is unloaded if nobody asks it; `None`: when the memory is needed, or never.
    pub fn expires_at(&self) -> Option<SystemTime> {
        if self.pinned {
            return None;
        }
        let expires = lock(&self.life).expires?;
        Some(SystemTime::now() + expires.saturating_duration_since(Instant::now()))
    }

    /// What compiles grammars for this model. The first call takes a fraction of a second: not for async threads.
    pub(crate) fn constrainer(&self) -> Result<&Constrainer, ApiError> {
        let make = || Constrainer::new(&Vocabulary::of(self.model.tokenizer())).map_err(ApiError::from);
        self.constrainer.get_or_init(make).as_ref().map_err(ApiError::clone)
    }

    /// How much of each adapter is used where a request says nothing.
    pub(crate) fn lora(&self) -> Vec<f32> {
        lock(&self.lora).clone()
    }

    /// Sets how much of each adapter is used where a request says nothing: of those that are not named, nothing.
    ///
    /// # Errors
    /// As [`check_lora`](Loaded::check_lora).
    pub(crate) fn set_lora(&self, scales: &[(usize, f32)]) -> Result<(), ApiError> {
        self.check_lora(scales)?;
        let mut all = lock(&self.lora);
        all.fill(0.0);
        for (id, scale) in scales {
            if let Some(place) = all.get_mut(*id) {
                *place = *scale;
            }
        }
        Ok(())
    }

    /// # Errors
    /// A number that no adapter of the model has, or a scale that is none.
    pub(crate) fn check_lora(&self, scales: &[(usize, f32)]) -> Result<(), ApiError> {
        self.model.check_adapters(scales).map_err(|e| ApiError::param("lora", format!("lora: {e}")))
    }

    /// Queues sequences of one request, all or none.
    ///
    /// # Errors
    /// What the engine refuses; where the model was unloaded.
    pub(crate) async fn submit(&self, all: Vec<Submission>) -> Result<(), ApiError> {
        self.worker.submit(self.id, all).await
    }

    /// Whether only loading anew helps: its engine failed, or its file is another by now.
    pub(crate) fn is_stale(&self) -> bool {
        self.shared.broken.load(Ordering::Acquire) || self.model.file().is_outdated()
    }

    /// Whether what runs on it has ended, or will at the next step.
    pub(crate) fn is_broken(&self) -> bool {
        self.shared.broken.load(Ordering::Acquire) || self.model.file().check_unchanged().is_err()
    }
}

/// A loaded model that is not unloaded while this lives.
#[derive(Debug)]
pub struct Lease {
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) pool: Arc<Inner>,
    pub(crate) keep_alive: KeepAlive,
    /// How the model is to be run, as the name says by which it was asked for.
    pub recipe: Arc<Recipe>,
    /// What loading took; zero where it was loaded.
    pub load: Duration,
}

impl Deref for Lease {
    type Target = Loaded;

    fn deref(&self) -> &Loaded {
        &self.loaded
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let now = Instant::now();
        {
            let mut life = lock(&self.loaded.life);
            life.users -= 1;
            life.last_used = now;
            life.expires = match self.keep_alive {
                _ if life.leaving => Some(now),
                // So far in the future that no clock holds it: for ever.
                KeepAlive::For(time) => now.checked_add(time),
                KeepAlive::Forever => None,
            };
        }
        self.pool.changed.notify_waiters();
        self.pool.sweep.notify_one();
    }
}
