//! [`Engine`]: a model on a device with a scheduler before it. `begin`, `finish`, and the step between them.

use std::sync::Arc;

use super::chain::ChainLength;
use super::digest;
use super::lasting::{self, PageStore};
use super::pages::PageKey;
use super::request::{EmbedRequest, Event, RankRequest, Request, SeqId};
use super::room;
use super::scheduler::{Limits, PageCounts, Room, UsedAdapters};
use super::steps::Steps;
use super::vocabulary::ModelVocabulary;
use crate::device::{Device, KvKind, Output, Readback, Runner, RunnerOptions};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::plan::CacheLayout;
use crate::text::Tokenizer;

/// What an engine may take.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineOptions {
    /// Tokens of one sequence at most, prompt and answer. `None`: the model's own length, or as much of it as the
    /// cache can hold.
    pub context: Option<usize>,
    /// Bytes that the cache may grow to. Memory is taken when pages are first used.
    pub kv_budget: u64,
    /// How the cache stores its elements.
    pub kv: KvKind,
    /// Sequences that are computed together; more wait in the queue.
    pub max_sequences: usize,
    /// Rows of a step at most, of all sequences together.
    pub max_rows: usize,
    /// Prompt rows of one sequence in a step at most.
    pub chunk: usize,
    /// Whether a prompt's start that was computed before is used again.
    pub reuse: bool,
    /// Steps in a row that a device which picks tokens itself computes without the host, where nothing needs it between them.
    /// `None`: as many as pay by what steps are measured to take; 1: never more than one.
    pub chain: Option<usize>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            context: None,
            kv_budget: 2 << 30,
            kv: KvKind::F16,
            max_sequences: 16,
            max_rows: 512,
            chunk: 512,
            reuse: true,
            chain: None,
        }
    }
}

/// Counts for people and dashboards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sequences in the queue.
    pub waiting: usize,
    /// Sequences that run.
    pub running: usize,
    /// Pages of the cache, of all groups of layers.
    pub pages: usize,
    /// Pages that no sequence holds; they may still hold prefixes.
    pub free_pages: usize,
    /// Bytes that the cache may take: pages and states.
    pub cache_bytes: u64,
    /// Bytes that running sequences hold.
    pub held_bytes: u64,
    /// Bytes that hold prefixes, to be used again until the room is needed for something else.
    pub evictable_bytes: u64,
    /// Slots for the states of recurrent parts.
    pub states: usize,
    /// Those that hold the state at the end of a prefix, to be used again.
    pub kept_states: usize,
    /// Times a sequence gave its pages to an older one and had to be computed again.
    pub preemptions: u64,
}

/// Runs requests over one model. One owner drives it:
///
/// ```text
/// while let Some(readback) = engine.begin(now)? {
///     for event in engine.finish(readback.read().await?, now)? { ... }
/// }
/// ```
///
/// `now` is the host's clock in seconds from any start; the engine has none of its own.
pub struct Engine {
    model: Arc<Model>,
    device: Device,
    runner: Runner,
    steps: Steps,
    chain: ChainLength,
    layout: CacheLayout,
    store: Option<Box<dyn PageStore>>,
    /// What pages of sequences without adapters begin with.
    root: PageKey,
    /// When the step under way was submitted, and how many are in its chain.
    begun: Option<(f64, usize)>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("context", &self.context()).field("stats", &self.stats()).finish()
    }
}

impl Engine {
    /// Prepares a model on a device.
    ///
    /// # Errors
    /// A context that the budget cannot hold, a budget below one page, [`Error::Reload`] where the model's weights are not
    /// at hand, or what the device says.
    pub fn new(model: Arc<Model>, device: &Device, options: &EngineOptions) -> Result<Engine> {
        if !model.has_weights() {
            return Err(Error::Reload("the model's weights are not held here"));
        }
        let (limits, room) = Engine::room(&model, device, options)?;
        let runner = device.prepare(model.plan().for_context(limits.context), room)?;
        Ok(Engine::with_runner(model, device, runner, limits, options.chain))
    }

    /// What an engine with these options has room for.
    pub(crate) fn room(model: &Model, device: &Device, options: &EngineOptions) -> Result<(Limits, RunnerOptions)> {
        room::room(model, device, options)
    }

    /// An engine on a runner that has the model's weights and this room.
    pub(crate) fn with_runner(
        model: Arc<Model>,
        device: &Device,
        runner: Runner,
        limits: Limits,
        chain: Option<usize>,
    ) -> Engine {
        let (options, plan) = (runner.options(), model.plan().for_context(limits.context));
        let layout = CacheLayout::of(&plan, options.kv);
        let groups = plan.windows.iter().enumerate();
        let groups = groups.map(|(group, window)| (*window, options.pages(group))).collect();
        let root = digest::root(&model, &plan, &layout, runner.kind());
        let room = Room { groups, n_states: options.n_states };
        let mut steps = Steps::new(Arc::new(ModelVocabulary::new(Arc::clone(&model))), limits, &room);
        if runner.picks() {
            steps.let_device_pick();
        }
        let chain = ChainLength::new(if runner.chains() { chain } else { Some(1) });
        steps.set_chain(chain.next());
        Engine { model, device: device.clone(), runner, steps, chain, layout, store: None, root, begun: None }
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// What computes, for people: the device's name, or which layers are on which.
    pub fn placement(&self) -> String {
        self.runner.placement()
    }

    /// Bytes that the model, its cache and its buffers take on each GPU, with the GPU's name.
    pub fn device_bytes(&self) -> Vec<(String, u64)> {
        self.runner.device_bytes()
    }

    /// The device in use.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Opens a lost device again and prepares the model on it. Sequences are computed again from their tokens and go on
    /// as before: their streams see only a pause.
    ///
    /// # Errors
    /// [`Error::Reload`] where the weights arrived in pieces and are held nowhere but on the device that was lost; where the
    /// device does not open, or what it says.
    pub async fn recover(&mut self) -> Result<()> {
        if !self.model.has_weights() {
            return Err(Error::Reload("the device was lost and the model's weights with it"));
        }
        self.device = self.device.reopen().await?;
        let plan = self.model.plan().for_context(self.context());
        self.runner = self.device.prepare(plan, self.runner.options())?;
        self.steps.forget();
        Ok(())
    }

    /// Tokens of one sequence at most, prompt and answer.
    pub fn context(&self) -> usize {
        self.steps.scheduler().limits().context
    }

    /// What the cache takes, per token, window and sequence.
    pub fn cache_layout(&self) -> &CacheLayout {
        &self.layout
    }

    /// Keeps the starts of finished sequences in a store from here on, and looks there for those of new ones. Says whether
    /// the device gives its pages: without that nothing is kept.
    pub fn keep_in(&mut self, store: Box<dyn PageStore>) -> bool {
        if self.runner.gives_pages() {
            self.steps.scheduler_mut().note_left();
            self.store = Some(store);
        }
        self.store.is_some()
    }

    /// Queues a request. An encoder reads the whole prompt, closed by the token that ends a text, and what is generated begins
    /// behind the decoder's own first token.
    ///
    /// # Errors
    /// Values out of range, a prompt that leaves no room for an answer in the context, or a model without a head.
    pub fn add(&mut self, request: Request, now: f64) -> Result<SeqId> {
        self.model.expect_head()?;
        let mut request = request;
        let n_source = match (&self.model.spec().encoder, request.prompt.is_empty()) {
            (Some(encoder), false) => {
                let n = close(&mut request.prompt, self.model.tokenizer());
                request.prompt.push(encoder.start);
                n
            }
            _ => 0,
        };
        let used = self.used_adapters(request.adapters.as_deref())?;
        self.steps.add(request, n_source, used, now)
    }

    /// What is used of the model's adapters where this is asked.
    fn used_adapters(&self, asked: Option<&[(usize, f32)]>) -> Result<UsedAdapters> {
        let attached = self.model.adapters();
        let mut scales: Vec<f32> = attached.iter().map(|of| of.scale).collect();
        if let Some(asked) = asked {
            self.model.check_adapters(asked)?;
            scales.fill(0.0);
            asked.iter().for_each(|(i, scale)| scales[*i] = *scale);
        }
        Ok(match scales.iter().all(|scale| *scale == 0.0) {
            true => UsedAdapters { scales: Arc::new([]), root: self.root },
            false => UsedAdapters { root: digest::adapted(self.root, &self.model, &scales), scales: scales.into() },
        })
    }

    /// Queues a text to make an embedding of; it is computed together with what else runs and ends with
    /// [`Event::Embedding`].
    ///
    /// # Errors
    /// Values out of range, a text longer than the context, or a model that ranks pairs of texts instead.
    pub fn embed(&mut self, request: EmbedRequest, now: f64) -> Result<SeqId> {
        let pooling = self.model.embeds(request.pooling)?;
        let used = self.used_adapters(request.adapters.as_deref())?;
        self.steps.embed(request, pooling, self.model.plan().n_pooled(), used, now)
    }

    /// Queues a pair of texts, as [`super::rank_request`] joins them, to be scored. Ends with [`Event::Embedding`], whose one
    /// value is the score.
    ///
    /// # Errors
    /// Token ids out of range, a pair longer than the context, or a model that does not rank.
    pub fn rank(&mut self, request: RankRequest, now: f64) -> Result<SeqId> {
        self.model.expect_ranking()?;
        let used = self.used_adapters(request.adapters.as_deref())?;
        self.steps.rank(request, self.model.spec().ranking, used, now)
    }

    /// Ends a sequence: its `Done` comes with the next events. Says whether it was there.
    pub fn cancel(&mut self, id: SeqId, now: f64) -> bool {
        let there = self.steps.cancel(id, now);
        self.save_left();
        there
    }

    /// Nothing is left to compute or to report.
    pub fn is_idle(&self) -> bool {
        self.steps.is_idle()
    }

    /// Starts a step; `None` when no sequence needs one. A step that is never finished, or fails, is scheduled again.
    ///
    /// # Errors
    /// [`Error::Lost`] where [`Engine::recover`] helps, [`Error::Changed`] where the model's file was written to, others where
    /// the device failed.
    pub fn begin(&mut self, now: f64) -> Result<Option<Readback>> {
        if let Some(store) = &self.store {
            lasting::restore(&**store, &mut self.runner, self.steps.scheduler_mut());
        }
        match self.steps.begin(now) {
            Some(inputs) => {
                self.model.file().check_unchanged()?;
                self.begun = Some((now, 1 + inputs.next.len()));
                self.runner.submit(inputs).map(Some)
            }
            None => Ok(None),
        }
    }

    /// Takes a step's results: chooses tokens and says what happened.
    ///
    /// # Errors
    /// Where the results do not belong to the step; [`Error::Changed`] where the model's file was written to meanwhile, so that
    /// they may be wrong.
    pub fn finish(&mut self, output: Output, now: f64) -> Result<Vec<Event>> {
        self.model.file().check_unchanged()?;
        if let Some((begun, steps)) = self.begun.take() {
            self.runner.took(now - begun);
            self.steps.set_brisk_rows(self.runner.brisk_rows());
            if self.steps.decodes() {
                self.chain.took(steps, now - begun);
                self.steps.set_chain(self.chain.next());
            }
        }
        let events = self.steps.finish(&output, now)?;
        self.save_left();
        Ok(events)
    }

    /// Hands what ended sequences left behind to the store, before a step writes over it.
    fn save_left(&mut self) {
        if let Some(store) = &self.store {
            lasting::save(&**store, &mut self.runner, self.steps.scheduler_mut().take_left());
        }
    }

    /// One step, waiting for its results: what happened, empty when nothing is left to do. `clock` gives seconds. A device
    /// that was lost is opened again, once.
    ///
    /// # Errors
    /// Where the device failed.
    pub async fn step(&mut self, clock: &dyn Fn() -> f64) -> Result<Vec<Event>> {
        match self.try_step(clock).await {
            Err(Error::Lost(_)) => {
                self.recover().await?;
                self.try_step(clock).await
            }
            done => done,
        }
    }

    async fn try_step(&mut self, clock: &dyn Fn() -> f64) -> Result<Vec<Event>> {
        match self.begin(clock())? {
            Some(readback) => {
                let output = readback.read().await?;
                self.finish(output, clock())
            }
            None => Ok(self.steps.take_events()),
        }
    }

    /// Events that wait for no step: of cancelled sequences.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.steps.take_events()
    }

    /// Forgets everything in the cache; running sequences are computed again from their tokens and go on as before.
    pub fn forget(&mut self) {
        self.steps.forget();
    }

    /// Counts for people and dashboards.
    pub fn stats(&self) -> Stats {
        let scheduler = self.steps.scheduler();
        let counts: Vec<PageCounts> = scheduler.pages().collect();
        let (states, kept_states) = scheduler.n_states();
        let bytes = |count: fn(&PageCounts) -> usize, states: usize| {
            self.layout.bytes(|group| counts.get(group).map_or(0, count), states)
        };
        let held_states = scheduler.n_held_states();
        Stats {
            waiting: scheduler.n_waiting(),
            running: scheduler.n_running(),
            pages: counts.iter().map(|c| c.all).sum(),
            free_pages: counts.iter().map(|c| c.free).sum(),
            cache_bytes: bytes(|c| c.all, states),
            held_bytes: bytes(|c| c.all - c.free, held_states),
            evictable_bytes: bytes(|c| c.kept, kept_states),
            states,
            kept_states,
            preemptions: scheduler.n_preempted(),
        }
    }
}

/// Puts the token that ends a text behind one that has none, if the model wants it; gives the number of tokens.
fn close(ids: &mut Vec<u32>, tokenizer: &Tokenizer) -> usize {
    tokenizer.close(ids);
    ids.len()
}

/// Waits for a future on this thread by polling it: for programs without an executor. A device that computes at once
/// is ready at the first poll.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::hint::spin_loop();
    }
}
