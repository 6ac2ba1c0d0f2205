//! [`Hub`]: where requests meet engines. Loads models when they are asked for, unloads them when nobody does, bounds the
//! queue, and hands jobs to the engine's thread. Cloning shares it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use ir_engine::builtin;
use ir_engine::device::{Device, kv_bytes};
use ir_engine::model::{Model, ModelOptions};
use ir_engine::run::{Engine, EngineOptions, Request};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::error::{ApiError, Kind};
use crate::job::{Job, KeepAlive, LoadOptions, MAX_CHOICES, ModelRef, Prompt};
use crate::loaded::{self, Lease, Life, Loaded};
use crate::mailbox::{Mailbox, lock};
use crate::prompt::{self, Prepared};
use crate::registry::{Entry, Place, Registry};
use crate::running::{Choice, Running};
use crate::worker::{self, Command, Submission};

/// Opens a device by its name (`cpu`, `gpu`, `gpu:N`, `auto`); an error is one sentence.
pub type OpenDevice = Box<dyn Fn(&str) -> Result<Device, String> + Send + Sync>;

/// How a hub works.
pub struct HubOptions {
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
    /// Requests that may wait beyond those that run.
    pub queue: usize,
    /// How long a model stays loaded after its last request.
    pub keep_alive: KeepAlive,
    /// Models loaded at once, at most; 0: as many as the memory holds.
    pub max_models: usize,
    /// Bytes that loaded models may take; a single model may take more.
    pub memory: u64,
    /// The longest a request may take.
    pub deadline: Option<Duration>,
}

/// The handle that API handlers have. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Hub(Arc<Inner>);

type Loading = watch::Receiver<Option<Result<(), ApiError>>>;

#[derive(Debug)]
enum Slot {
    Loading(Loading),
    Ready(Arc<Loaded>),
}

pub(crate) struct Inner {
    options: HubOptions,
    worker: Sender<Command>,
    models: Mutex<BTreeMap<Place, Slot>>,
    devices: Mutex<HashMap<String, Device>>,
    next_id: AtomicU64,
    queue: Arc<Semaphore>,
    n_places: usize,
    stop: watch::Sender<bool>,
    /// A model was loaded, unloaded or let go.
    pub(crate) changed: Notify,
    /// An expiry changed.
    pub(crate) sweep: Notify,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("models", &self.models).finish_non_exhaustive()
    }
}

/// What to do about a model that is wanted.
enum Next {
    Use(Arc<Loaded>),
    Join(Loading),
    Load(watch::Sender<Option<Result<(), ApiError>>>, Loading),
    Wait,
}

impl Hub {
    /// A hub and its engine's thread. Belongs into a tokio runtime.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn new(options: HubOptions) -> std::io::Result<Hub> {
        let n_places = (options.engine.max_sequences + options.queue).clamp(1, 1 << 16);
        let inner = Arc::new(Inner {
            worker: worker::start()?,
            models: Mutex::default(),
            devices: Mutex::default(),
            next_id: AtomicU64::new(0),
            queue: Arc::new(Semaphore::new(n_places)),
            n_places,
            stop: watch::Sender::new(false),
            changed: Notify::new(),
            sweep: Notify::new(),
            options,
        });
        tokio::spawn(sweep(Arc::downgrade(&inner)));
        Ok(Hub(inner))
    }

    /// The models that are known.
    pub fn registry(&self) -> &Registry {
        &self.0.options.registry
    }

    /// The models that are loaded.
    pub fn loaded(&self) -> Vec<Arc<Loaded>> {
        let models = lock(&self.0.models);
        models.values().filter_map(|s| if let Slot::Ready(l) = s { Some(Arc::clone(l)) } else { None }).collect()
    }

    /// Requests that wait or run.
    pub fn in_flight(&self) -> usize {
        self.0.n_places - self.0.queue.available_permits()
    }

    /// A model, loaded if it is not.
    ///
    /// # Errors
    /// An unknown name, a file that does not open, a device that does not.
    pub async fn open(&self, wanted: &ModelRef) -> Result<Lease, ApiError> {
        let entry = self.registry().find(wanted)?;
        let started = Instant::now();
        loop {
            // Registered before the look, so that no change is missed.
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            match self.look(&entry, &wanted.load) {
                Next::Use(loaded) => {
                    let load = if loaded_since(&loaded, started) { started.elapsed() } else { Duration::ZERO };
                    let keep_alive = wanted.keep_alive.unwrap_or(self.0.options.keep_alive);
                    return Ok(Lease { loaded, hub: Arc::clone(&self.0), keep_alive, load });
                }
                Next::Load(done, loading) => {
                    // The load goes on when the client leaves: others may wait for it.
                    tokio::spawn(load(Arc::clone(&self.0), entry.clone(), wanted.load.clone(), done));
                    joined(loading).await?;
                }
                Next::Join(loading) => joined(loading).await?,
                Next::Wait => changed.await,
            }
        }
    }

    /// What to do, decided and noted in one go.
    fn look(&self, entry: &Entry, load: &LoadOptions) -> Next {
        let mut models = lock(&self.0.models);
        match models.get(&entry.place) {
            Some(Slot::Loading(loading)) => return Next::Join(loading.clone()),
            Some(Slot::Ready(loaded)) if fits(loaded, load) => {
                lock(&loaded.life).users += 1;
                return Next::Use(Arc::clone(loaded));
            }
            Some(Slot::Ready(loaded)) => {
                if lock(&loaded.life).users > 0 && !loaded.is_broken() {
                    return Next::Wait;
                }
                self.0.drop_model(&mut models, &entry.place);
            }
            None => {}
        }
        if !self.0.make_room(&mut models, size_on_disk(&entry.place)) {
            return Next::Wait;
        }
        let (done, loading) = watch::channel(None);
        models.insert(entry.place.clone(), Slot::Loading(loading.clone()));
        Next::Load(done, loading)
    }

    /// Unloads a model as soon as nobody uses it. Says whether it was loaded.
    pub fn unload(&self, entry: &Entry) -> bool {
        let mut models = lock(&self.0.models);
        let Some(Slot::Ready(loaded)) = models.get(&entry.place) else { return false };
        let idle = {
            let mut life = lock(&loaded.life);
            life.expires = Some(Instant::now());
            life.users == 0
        };
        if idle {
            self.0.drop_model(&mut models, &entry.place);
            self.0.changed.notify_waiters();
        }
        true
    }

    /// Starts a job.
    ///
    /// # Errors
    /// A full queue, an unknown model, values out of range, a prompt that is too long.
    pub async fn run(&self, job: Job) -> Result<Running, ApiError> {
        let (started, created) = (Instant::now(), SystemTime::now());
        let n = job.n.max(1);
        if n > MAX_CHOICES {
            return Err(ApiError::param("n", format!("n is {n}: ask for at most {MAX_CHOICES} completions")));
        }
        let permit = self.place(n)?;
        let deadline = [job.deadline, self.0.options.deadline].into_iter().flatten().min();
        let deadline = deadline.and_then(|d| started.checked_add(d));
        let lease = match deadline {
            Some(at) => tokio::time::timeout_at(at.into(), self.open(&job.model)).await.map_err(|_| late())??,
            None => self.open(&job.model).await?,
        };
        let seed = job.sampling.seed.unwrap_or_else(random_seed);
        let context = job.model.load.context.map_or(lease.context, |c| c.min(lease.context));
        let (job, model) = (Arc::new(job), Arc::clone(lease.model()));
        let prepared = {
            let job = Arc::clone(&job);
            tokio::task::spawn_blocking(move || prompt::prepare(&model, &job, context, seed)).await
        };
        let Prepared { ids, reader, dropped_messages } = prepared.map_err(|_| panicked())??;
        let mailbox = Arc::new(Mailbox::new(n));
        let request = request(&job, &lease, ids.clone(), context, seed)?;
        let choices = (0..n).map(|_| Choice::new(reader.clone())).collect();
        let (prompt, stop) = (ids, self.0.stop.subscribe());
        // Made first, so that its drop cancels what is submitted even if the client leaves right here.
        let ready = VecDeque::new();
        let running = Running {
            lease,
            created,
            mailbox,
            choices,
            prompt,
            started,
            deadline,
            dropped_messages,
            stop,
            ready,
            _permit: permit,
        };
        self.submit(&running, request, n).await?;
        Ok(running)
    }

    async fn submit(&self, running: &Running, request: Request, n: usize) -> Result<(), ApiError> {
        let seed = request.sampling.seed;
        let submission = |place: usize| {
            let mut request = request.clone();
            request.sampling.seed = seed.wrapping_add(place as u64);
            Submission { request, mailbox: Arc::clone(&running.mailbox), place }
        };
        let (reply, answer) = oneshot::channel();
        let all = (0..n).map(submission).collect();
        let command = Command::Submit { id: running.lease.id, all, reply };
        self.0.worker.send(command).map_err(|_| panicked())?;
        answer.await.map_err(|_| panicked())?
    }

    /// Places in the queue.
    fn place(&self, n: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        if *self.0.stop.borrow() {
            return Err(ApiError::new(Kind::Unavailable, "the server is shutting down"));
        }
        let permit = Arc::clone(&self.0.queue).try_acquire_many_owned(n as u32);
        permit
            .map_err(|_| ApiError::new(Kind::Busy, "server busy, please try again.  maximum pending requests exceeded"))
    }

    /// Gives what runs `grace` to finish and then ends every stream with an error that says why.
    pub async fn shut_down(&self, grace: Duration) {
        let all = Arc::clone(&self.0.queue).acquire_many_owned(self.0.n_places as u32);
        let _ = tokio::time::timeout(grace, all).await;
        self.0.stop.send_replace(true);
    }
}

impl Inner {
    fn drop_model(&self, models: &mut BTreeMap<Place, Slot>, place: &Place) {
        if let Some(Slot::Ready(loaded)) = models.remove(place) {
            tracing::info!(model = loaded.name, "unloaded");
            // Without its thread there is nothing to drop.
            let _ = self.worker.send(Command::Drop { id: loaded.id });
        }
    }

    /// Unloads idle models, the longest unused first, until one of `size` fits. Nothing else loaded: it fits.
    fn make_room(&self, models: &mut BTreeMap<Place, Slot>, size: u64) -> bool {
        loop {
            let used: u64 = models.values().map(|s| if let Slot::Ready(l) = s { l.size } else { 0 }).sum();
            let many = self.options.max_models > 0 && models.len() >= self.options.max_models;
            if models.is_empty() || (!many && used.saturating_add(size) <= self.options.memory) {
                return true;
            }
            let idle = models.iter().filter_map(|(place, slot)| match slot {
                Slot::Ready(loaded) => {
                    let life = *lock(&loaded.life);
                    (life.users == 0).then(|| (life.last_used, place.clone()))
                }
                Slot::Loading(_) => None,
            });
            let Some((_, place)) = idle.min() else { return false };
            self.drop_model(models, &place);
        }
    }

    fn device(&self, name: &str) -> Result<Device, ApiError> {
        let mut devices = lock(&self.devices);
        if let Some(device) = devices.get(name) {
            return Ok(device.clone());
        }
        let device = (self.options.open_device)(name).map_err(|e| ApiError::param("device", e))?;
        devices.insert(name.to_owned(), device.clone());
        Ok(device)
    }

    /// Opens a model and hands its engine to the thread. Blocks.
    fn load(&self, entry: &Entry, wanted: &LoadOptions) -> Result<Arc<Loaded>, ApiError> {
        let options = &self.options;
        let device = self.device(wanted.device.as_deref().unwrap_or(&options.device))?;
        let model = match &entry.place {
            Place::Builtin => Model::from_bytes(builtin::bytes(), &options.model),
            Place::File(path) => Model::open(path, &options.model),
        };
        let failed = |e: ir_engine::error::Error| {
            ApiError::new(Kind::Internal, format!("the model {} cannot be loaded: {e}", entry.name))
        };
        let model = Arc::new(model.map_err(failed)?);
        let most = model.spec().n_context;
        let context = wanted.context.map(|c| c.min(most)).or(options.engine.context);
        let engine_options = EngineOptions { context, ..options.engine.clone() };
        let engine = Engine::new(Arc::clone(&model), &device, &engine_options).map_err(failed)?;
        let cache = kv_bytes(model.plan(), engine_options.kv, engine.stats().pages);
        let shared = Arc::default();
        let now = Instant::now();
        let loaded = Arc::new(Loaded {
            name: entry.name.clone(),
            capabilities: loaded::capabilities(&model),
            context: engine.context(),
            device: device.name(),
            size: size_on_disk(&entry.place) + cache,
            on_gpu: device.picks(),
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            asked_device: wanted.device.clone(),
            model,
            shared: Arc::clone(&shared),
            life: Mutex::new(Life { users: 0, last_used: now, expires: Some(now + Duration::from_secs(60)) }),
        });
        let command = Command::Host { id: loaded.id, engine: Box::new(engine), shared };
        self.worker.send(command).map_err(|_| panicked())?;
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

/// Whether a loaded model serves what is asked of loading.
fn fits(loaded: &Loaded, wanted: &LoadOptions) -> bool {
    let most = loaded.model.spec().n_context;
    let long_enough = wanted.context.is_none_or(|c| c.min(most) <= loaded.context);
    let there = wanted.device.is_none() || wanted.device == loaded.asked_device;
    long_enough && there && !loaded.is_broken()
}

/// Whether the model was loaded for whoever waits since `then`.
fn loaded_since(loaded: &Loaded, then: Instant) -> bool {
    lock(&loaded.life).last_used >= then
}

fn size_on_disk(place: &Place) -> u64 {
    match place {
        Place::Builtin => builtin::bytes().len() as u64,
        Place::File(path) => std::fs::metadata(path).map_or(0, |m| m.len()),
    }
}

async fn joined(mut loading: Loading) -> Result<(), ApiError> {
    match loading.wait_for(Option::is_some).await {
        Ok(done) => done.clone().unwrap_or(Ok(())),
        Err(_) => Err(panicked()),
    }
}

async fn load(inner: Arc<Inner>, entry: Entry, wanted: LoadOptions, done: watch::Sender<Option<Result<(), ApiError>>>) {
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
async fn sweep(hub: std::sync::Weak<Inner>) {
    loop {
        let Some(inner) = hub.upgrade() else { return };
        let next = inner.expire();
        let longest = Instant::now() + Duration::from_secs(5);
        let until = next.map_or(longest, |at| at.min(longest));
        // Waking every few seconds also lets the task end when the hub is gone.
        let _ = tokio::time::timeout_at(until.into(), inner.sweep.notified()).await;
    }
}

fn request(job: &Job, lease: &Lease, ids: Vec<u32>, context: usize, seed: u64) -> Result<Request, ApiError> {
    let model = lease.model();
    let mut sampling = job.defaults.clone().recommended(model.meta());
    let changes = &job.sampling;
    macro_rules! take {
        ($($field:ident),*) => { $(if let Some(value) = changes.$field { sampling.$field = value; })* };
    }
    take!(
        temperature,
        top_k,
        top_p,
        min_p,
        typical_p,
        repeat_penalty,
        presence_penalty,
        frequency_penalty,
        repeat_last_n
    );
    sampling.logit_bias.clone_from(&changes.logit_bias);
    sampling.seed = seed;
    let room = context - ids.len();
    let chat = matches!(job.prompt, Prompt::Chat(_) | Prompt::Continue { .. });
    let request = Request {
        prompt: ids,
        max_tokens: Some(job.max_tokens.map_or(room, |n| n.min(room))),
        sampling,
        stop: job.stop.clone(),
        ignore_eos: job.ignore_eos,
        show_special: false,
        show: if chat { ir_engine::text::tools::ToolFormat::token_ids(model.tokenizer()) } else { Vec::new() },
        logprobs: job.logprobs,
        ..Request::default()
    };
    if job.grammar.is_some() {
        return Err(ApiError::new(Kind::NotImplemented, "constrained output is not part of this build"));
    }
    request.check(model.plan().n_vocab())?;
    Ok(request)
}

fn late() -> ApiError {
    ApiError::new(Kind::Deadline, "the request took longer than its deadline")
}

fn panicked() -> ApiError {
    ApiError::new(Kind::Internal, "the server failed within: its log says more")
}

/// A number that nobody could guess: the standard library keys its hash tables with the system's randomness.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
