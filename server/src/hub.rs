//! [`Hub`]: where requests meet engines. Bounds the queue, has models loaded, hands sequences to the engine's thread.
//! Cloning shares it. How models come and go is in `loading`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use ir_engine::device::Device;
use ir_engine::model::ModelOptions;
use ir_engine::run::EngineOptions;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::choice::Choice;
use crate::error::{ApiError, Kind};
use crate::job::{Capabilities, Job, KeepAlive, MAX_CHOICES, ModelRef};
use crate::loaded::{Lease, Loaded};
use crate::loading::{self, Next, Slot};
use crate::mailbox::{Mailbox, lock};
use crate::meters::{Counter, Meters};
use crate::registry::{Entry, Place, Registry};
use crate::running::Running;
use crate::sequence::{self, Sequence};
use crate::watch::Traffic;
use crate::worker::{self, Command, Submission, Work};

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
    /// Whether prompts are written to the log.
    pub log_prompts: bool,
}

/// The handle that API handlers have. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Hub(pub(crate) Arc<Inner>);

/// What a server is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    /// What runs may finish, nothing new begins.
    Draining,
    /// What still runs is told to end.
    Ending,
}

pub(crate) struct Inner {
    pub(crate) options: HubOptions,
    pub(crate) worker: Sender<Command>,
    pub(crate) models: Mutex<BTreeMap<Place, Slot>>,
    pub(crate) devices: Mutex<HashMap<String, Device>>,
    pub(crate) next_id: AtomicU64,
    meters: Mutex<BTreeMap<String, Arc<Meters>>>,
    /// What models of files can do, by the files' digests.
    abilities: Mutex<HashMap<String, Capabilities>>,
    queue: Arc<Semaphore>,
    n_places: usize,
    traffic: Traffic,
    /// Requests that found the queue full.
    pub(crate) rejected: Counter,
    /// Threads that may render, tokenize and compile grammars at once.
    preparing: Semaphore,
    phase: watch::Sender<Phase>,
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

impl Hub {
    /// A hub and its engine's thread. Belongs into a tokio runtime.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn new(options: HubOptions) -> std::io::Result<Hub> {
        let n_places = (options.engine.max_sequences + options.queue).clamp(1, 1 << 16);
        let n_threads = std::thread::available_parallelism().map_or(2, |n| n.get());
        let inner = Arc::new(Inner {
            worker: worker::start()?,
            models: Mutex::default(),
            devices: Mutex::default(),
            next_id: AtomicU64::new(0),
            meters: Mutex::default(),
            abilities: Mutex::default(),
            queue: Arc::new(Semaphore::new(n_places)),
            n_places,
            traffic: Traffic::default(),
            rejected: Counter::default(),
            preparing: Semaphore::new(n_threads),
            phase: watch::Sender::new(Phase::Serving),
            changed: Notify::new(),
            sweep: Notify::new(),
            options,
        });
        tokio::spawn(loading::sweep(Arc::downgrade(&inner)));
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

    /// The model of clients who name none: the one used last, or else the first that is known.
    pub fn default_model(&self) -> String {
        let last = self.loaded().into_iter().max_by_key(|l| lock(&l.life).last_used);
        let first = || self.registry().list().into_iter().next().map(|e| e.name);
        last.map(|l| l.name.clone()).or_else(first).unwrap_or_default()
    }

    /// Requests that wait or run.
    pub fn in_flight(&self) -> usize {
        self.0.n_places - self.0.queue.available_permits()
    }

    /// A model, loaded if it is not. Where that takes time, a place in the queue is taken for it.
    ///
    /// # Errors
    /// An unknown name, a file that does not open, a device that does not, a full queue.
    pub async fn open(&self, wanted: &ModelRef) -> Result<Lease, ApiError> {
        let entry = self.registry().find(wanted)?;
        if let Some(loaded) = self.0.peek(&entry, &wanted.load) {
            return Ok(self.lease(loaded, wanted, Duration::ZERO));
        }
        let _place = self.place(1)?;
        self.in_time(self.deadline(Instant::now(), None), self.opened(entry, wanted)).await
    }

    /// What the model of a file of this digest can do: found once and then remembered.
    pub(crate) fn capabilities_by(&self, digest: &str, find: impl FnOnce() -> Capabilities) -> Capabilities {
        if let Some(known) = lock(&self.0.abilities).get(digest) {
            return *known;
        }
        let found = find();
        let mut all = lock(&self.0.abilities);
        // Files that come and go must not fill the memory.
        if all.len() >= 4096 {
            all.clear();
        }
        *all.entry(digest.to_owned()).or_insert(found)
    }

    /// Unloads a model as soon as nobody uses it. Says whether it was loaded.
    pub fn unload(&self, entry: &Entry) -> bool {
        self.0.unload(entry)
    }

    async fn opened(&self, entry: Entry, wanted: &ModelRef) -> Result<Lease, ApiError> {
        let started = Instant::now();
        let mut waited = false;
        loop {
            // Registered before the look, so that no change is missed.
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            match self.0.look(&entry, &wanted.load) {
                Next::Use(loaded) => {
                    let load = if waited { started.elapsed() } else { Duration::ZERO };
                    return Ok(self.lease(loaded, wanted, load));
                }
                Next::Load(done, loading) => {
                    // The load goes on when the client leaves: others may wait for it.
                    tokio::spawn(loading::load(Arc::clone(&self.0), entry.clone(), wanted.load.clone(), done));
                    loading::joined(loading).await?;
                }
                Next::Join(loading) => loading::joined(loading).await?,
                Next::Wait => changed.await,
            }
            waited = true;
        }
    }

    fn lease(&self, loaded: Arc<Loaded>, wanted: &ModelRef, load: Duration) -> Lease {
        let keep_alive = wanted.keep_alive.unwrap_or(self.0.options.keep_alive);
        Lease { loaded, hub: Arc::clone(&self.0), keep_alive, load }
    }

    /// Starts a job.
    ///
    /// # Errors
    /// A full queue, an unknown model, values out of range, a prompt that is too long, a grammar that cannot be held to.
    pub async fn run(&self, job: Job) -> Result<Running, ApiError> {
        let (started, created) = (Instant::now(), SystemTime::now());
        let n = job.n.max(1);
        if n > MAX_CHOICES {
            return Err(ApiError::param("n", format!("n is {n}: ask for at most {MAX_CHOICES} completions")));
        }
        let entry = self.registry().find(&job.model)?;
        let permit = self.place(n)?;
        let (deadline, job) = (self.deadline(started, job.deadline), Arc::new(job));
        let begin = async {
            let lease = self.opened(entry, &job.model).await?;
            let (job, loaded) = (Arc::clone(&job), Arc::clone(&lease.loaded));
            let sequence = self.prepared(move || sequence::generate(&loaded, &job)).await?;
            let Sequence { request, reader, dropped_messages } = sequence;
            if self.0.options.log_prompts {
                let prompt = lease.model().tokenizer().decode(&request.prompt, true);
                tracing::info!(model = lease.name, prompt, "prompt");
            }
            // Made before it is submitted, so that its drop cancels even if the client leaves right here.
            let running = Running {
                created,
                mailbox: Arc::new(Mailbox::new(n)),
                choices: (0..n).map(|_| Choice::new(reader.clone())).collect(),
                prompt: request.prompt.clone(),
                started,
                submitted: started.elapsed(),
                deadline,
                dropped_messages,
                phase: self.0.phase.subscribe(),
                ready: VecDeque::new(),
                lease,
                _permit: permit,
            };
            let seed = request.sampling.seed;
            let submission = |place: usize| {
                let mut request = Box::new(request.clone());
                request.sampling.seed = seed.wrapping_add(place as u64);
                Submission { work: Work::Generate(request), mailbox: Arc::clone(&running.mailbox), place }
            };
            self.submit(&running.lease, (0..n).map(submission).collect()).await?;
            Ok(running)
        };
        self.in_time(deadline, begin).await
    }

    /// Has sequences queued, all or none.
    pub(crate) async fn submit(&self, lease: &Lease, all: Vec<Submission>) -> Result<(), ApiError> {
        let (reply, answer) = oneshot::channel();
        self.0.worker.send(Command::Submit { id: lease.id, all, reply }).map_err(|_| panicked())?;
        answer.await.map_err(|_| panicked())?
    }

    /// Does work that takes a processor's time, with as many others as there are processors.
    pub(crate) async fn prepared<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        // The semaphore is never closed.
        let _turn = self.0.preparing.acquire().await.map_err(|_| panicked())?;
        tokio::task::spawn_blocking(work).await.map_err(|_| panicked())?
    }

    /// The result of `work`, unless its time is over or the server ends.
    pub(crate) async fn in_time<T>(
        &self,
        deadline: Option<Instant>,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let mut phase = self.0.phase.subscribe();
        tokio::select! {
            biased;
            () = ending(&mut phase) => Err(shutting_down()),
            () = at(deadline) => Err(late()),
            done = work => done,
        }
    }

    pub(crate) async fn opened_by_name(&self, wanted: &ModelRef) -> Result<Lease, ApiError> {
        self.opened(self.registry().find(wanted)?, wanted).await
    }

    /// When a request that began at `started` must have ended.
    pub(crate) fn deadline(&self, started: Instant, wanted: Option<Duration>) -> Option<Instant> {
        let least = [wanted, self.0.options.deadline].into_iter().flatten().min();
        least.and_then(|d| started.checked_add(d))
    }

    /// Sequences that one model computes together.
    pub(crate) fn parallel(&self) -> usize {
        self.0.options.engine.max_sequences.max(1)
    }

    /// Places in the queue.
    pub(crate) fn place(&self, n: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        if *self.0.phase.borrow() != Phase::Serving {
            return Err(shutting_down());
        }
        Arc::clone(&self.0.queue).try_acquire_many_owned(n as u32).map_err(|_| {
            self.0.rejected.add(1);
            ApiError::new(Kind::Busy, "server busy, please try again.  maximum pending requests exceeded")
        })
    }

    /// Takes no more requests, gives what runs `grace` to finish, and then ends every stream with an error that says why.
    pub async fn shut_down(&self, grace: Duration) {
        self.0.phase.send_replace(Phase::Draining);
        let all = Arc::clone(&self.0.queue).acquire_many_owned(self.0.n_places as u32);
        let _ = tokio::time::timeout(grace, all).await;
        self.0.phase.send_replace(Phase::Ending);
    }

    /// What was counted of HTTP.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.0.traffic
    }

    /// What was counted, by model.
    pub(crate) fn all_meters(&self) -> Vec<(String, Arc<Meters>)> {
        lock(&self.0.meters).iter().map(|(name, meters)| (name.clone(), Arc::clone(meters))).collect()
    }
}

impl Inner {
    /// The counts of a model of this name.
    pub(crate) fn meters(&self, name: &str) -> Arc<Meters> {
        Arc::clone(lock(&self.meters).entry(name.to_owned()).or_default())
    }
}

/// Waits until streams are told to end.
pub(crate) async fn ending(phase: &mut watch::Receiver<Phase>) {
    // Where the hub is gone, so is the engine: that too is an end.
    let _ = phase.wait_for(|phase| *phase == Phase::Ending).await;
}

/// Waits until a deadline, if there is one.
pub(crate) async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

pub(crate) fn late() -> ApiError {
    ApiError::new(Kind::Deadline, "the request took longer than its deadline")
}

pub(crate) fn shutting_down() -> ApiError {
    ApiError::new(Kind::Unavailable, "the server is shutting down")
}

pub(crate) fn panicked() -> ApiError {
    ApiError::new(Kind::Internal, "the server failed within: its log says more")
}
