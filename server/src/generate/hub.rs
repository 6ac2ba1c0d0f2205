//! [`Hub`]: where requests meet engines. Bounds the queue, keeps deadlines, has jobs begun and ended. Cloning shares it.
//! How models come and go is in `models`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::choice::Choice;
use super::job::{Job, MAX_CHOICES, ModelRef};
use super::running::Running;
use super::{recipe, request};
use crate::engine::error::{ApiError, Kind, panicked};
use crate::engine::output_queue::OutputQueue;
use crate::engine::stats::{Counter, Counters};
use crate::engine::worker::{Submission, Work};
use crate::models::loaded::{Lease, Loaded};
use crate::models::pool::{ModelPool, PoolOptions};
use crate::models::prefix_caches::PrefixCaches;
use crate::models::registry::{Entry, Registry};

/// How a hub works.
pub struct HubOptions {
    /// Which models there are, and how they are loaded.
    pub models: PoolOptions,
    /// Requests that may wait beyond those that run.
    pub queue: usize,
    /// The longest a request may take.
    pub deadline: Option<Duration>,
    /// Whether prompts are written to the log.
    pub log_prompts: bool,
}

/// The handle that API handlers have. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Hub(Arc<Inner>);

/// What a server is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    /// What runs may finish, nothing new begins.
    Draining,
    /// What still runs is told to end.
    Ending,
}

#[derive(Debug)]
struct Inner {
    models: ModelPool,
    deadline: Option<Duration>,
    log_prompts: bool,
    queue: Arc<Semaphore>,
    n_places: usize,
    /// Requests that found the queue full.
    rejected: Counter,
    /// Threads that may render, tokenize and compile grammars at once.
    preparing: Semaphore,
    phase: watch::Sender<Phase>,
}

impl Hub {
    /// Where the starts of conversations are kept.
    pub(crate) fn prefix_caches(&self) -> &PrefixCaches {
        self.0.models.prefix_caches()
    }

    /// Waits until what is to be kept in the cache's folder is written; blocks.
    pub fn flush_disk(&self) {
        self.0.models.flush_disk();
    }

    /// A hub with no model loaded. Belongs into a tokio runtime.
    pub fn new(options: HubOptions) -> Hub {
        let HubOptions { models, queue, deadline, log_prompts } = options;
        let n_places = (models.engine.max_sequences + queue).clamp(1, 1 << 16);
        let n_threads = std::thread::available_parallelism().map_or(2, |n| n.get());
        Hub(Arc::new(Inner {
            models: ModelPool::new(models),
            deadline,
            log_prompts,
            queue: Arc::new(Semaphore::new(n_places)),
            n_places,
            rejected: Counter::default(),
            preparing: Semaphore::new(n_threads),
            phase: watch::Sender::new(Phase::Serving),
        }))
    }

    /// The models that are known.
    pub fn registry(&self) -> &Registry {
        self.0.models.registry()
    }

    /// The models that are loaded.
    pub fn loaded(&self) -> Vec<Arc<Loaded>> {
        self.0.models.loaded()
    }

    /// The model of clients who name none: the one used last, or else the first that is known.
    pub fn default_model(&self) -> String {
        self.0.models.default_model()
    }

    /// Requests that wait or run.
    pub fn in_flight(&self) -> usize {
        self.0.n_places - self.0.queue.available_permits()
    }

    /// What the server is about to do.
    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.0.phase.subscribe()
    }

    /// Requests that found the queue full.
    pub(crate) fn rejected(&self) -> u64 {
        self.0.rejected.get()
    }

    /// A model, loaded if it is not. Where that takes time, a place in the queue is taken for it.
    ///
    /// # Errors
    /// An unknown name, a file that does not open, a device that does not, a full queue.
    pub async fn open(&self, wanted: &ModelRef) -> Result<Lease, ApiError> {
        let (entry, wanted) = &self.meant(wanted)?;
        if let Some(lease) = self.0.models.ready(entry, wanted) {
            return Ok(lease);
        }
        let _place = self.place(1)?;
        self.in_time(self.deadline(Instant::now(), None), self.0.models.open(entry.clone(), wanted)).await
    }

    /// The model that a client means, and how it is to be loaded: where the client does not say, as its recipe does.
    fn meant(&self, wanted: &ModelRef) -> Result<(Entry, ModelRef), ApiError> {
        let (entry, mut wanted) = (self.registry().find(wanted)?, wanted.clone());
        wanted.load.context = wanted.load.context.or_else(|| entry.recipe.context());
        Ok((entry, wanted))
    }

    /// The models: how they stand, what happens to them.
    pub(crate) fn models(&self) -> &ModelPool {
        &self.0.models
    }

    /// Unloads a model as soon as nobody uses it. Says whether it was loaded.
    ///
    /// # Errors
    /// It is pinned.
    pub fn unload(&self, entry: &Entry) -> Result<bool, ApiError> {
        self.0.models.unload(entry)
    }

    /// Starts a job.
    ///
    /// # Errors
    /// A full queue, an unknown model, values out of range, a prompt that is too long, a grammar that cannot be held to.
    pub async fn run(&self, mut job: Job) -> Result<Running, ApiError> {
        let (started, created) = (Instant::now(), SystemTime::now());
        let n = job.n.max(1);
        if n > MAX_CHOICES {
            return Err(ApiError::param("n", format!("n is {n}: ask for at most {MAX_CHOICES} completions")));
        }
        let entry;
        (entry, job.model) = self.meant(&job.model)?;
        recipe::apply(&entry.recipe, &mut job);
        let permit = self.place(n)?;
        let (deadline, job) = (self.deadline(started, job.deadline), Arc::new(job));
        let begin = async {
            let lease = self.0.models.open(entry, &job.model).await?;
            let (job, loaded) = (Arc::clone(&job), Arc::clone(&lease.loaded));
            let stops = job.stop.clone();
            let (turn, request) = self.prepared(move || request::generate(&loaded, &job)).await?;
            if self.0.log_prompts {
                let prompt = lease.model().tokenizer().decode(&request.prompt, true);
                tracing::info!(model = lease.name, prompt, "prompt");
            }
            // Made before it is submitted, so that its drop cancels even if the client leaves right here.
            let running = Running {
                created,
                output_queue: Arc::new(OutputQueue::new(n)),
                choices: (0..n).map(|_| Choice::new(turn.reader())).collect(),
                prompt: request.prompt.clone(),
                started,
                submitted: started.elapsed(),
                deadline,
                dropped_messages: turn.dropped_messages,
                stops,
                phase: self.0.phase.subscribe(),
                ready: VecDeque::new(),
                lease,
                _permit: permit,
            };
            let seed = request.sampling.seed;
            let submission = |place: usize| {
                let mut request = Box::new(request.clone());
                request.sampling.seed = seed.wrapping_add(place as u64);
                Submission { work: Work::Generate(request), output_queue: Arc::clone(&running.output_queue), place }
            };
            running.lease.submit((0..n).map(submission).collect()).await?;
            Ok(running)
        };
        self.in_time(deadline, begin).await
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
        let (entry, wanted) = self.meant(wanted)?;
        self.0.models.open(entry, &wanted).await
    }

    /// When a request that began at `started` must have ended.
    pub(crate) fn deadline(&self, started: Instant, wanted: Option<Duration>) -> Option<Instant> {
        let least = [wanted, self.0.deadline].into_iter().flatten().min();
        least.and_then(|d| started.checked_add(d))
    }

    /// Sequences that one model computes together.
    pub(crate) fn parallel(&self) -> usize {
        self.0.models.parallel()
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

    /// What was counted, by model.
    pub(crate) fn all_counters(&self) -> Vec<(String, Arc<Counters>)> {
        self.0.models.all_counters()
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
