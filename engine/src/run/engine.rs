//! [`Engine`]: a model on a device with a scheduler before it. `begin`, `finish`, and the step between them.

use std::sync::Arc;

use super::chain::ChainLength;
use super::request::{EmbedRequest, Event, Request, SeqId};
use super::scheduler::Limits;
use super::steps::Steps;
use super::vocabulary::ModelVocabulary;
use crate::device::{Device, KvKind, Output, Readback, Runner, RunnerOptions, kv_bytes};
use crate::error::{Error, Result};
use crate::model::{Makes, Model};
use crate::plan::PAGE;
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
    /// Pages of the cache.
    pub pages: usize,
    /// Pages that no sequence holds; they may still hold prefixes.
    pub free_pages: usize,
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
        let plan = model.plan();
        if model.spec().makes == Makes::Sound {
            return Err(Error::unsupported(
                "this model makes sound, not text: its logits can be computed (ir logits), but no text generated",
            ));
        }
        if plan.n_token_ids() < plan.n_vocab() {
            return Err(Error::format("the model can choose tokens that it has no embedding for: the file is damaged"));
        }
        expect_room(model, options)?;
        let mut limits = limits(model, options);
        let most_states = device.max_states(plan);
        // Each running sequence has two.
        limits.seqs = limits.seqs.min(most_states / 2).max(1);
        let n_states = n_states(plan.state_bytes(), &limits, options)?.min(most_states);
        let left = options.kv_budget.saturating_sub(plan.state_bytes().saturating_mul(n_states as u64));
        let options = &EngineOptions { kv_budget: left, ..options.clone() };
        let n_pages = n_pages(kv_bytes(plan, options.kv, 1), &limits, options)?.min(device.max_pages(plan, options.kv));
        // The context that remains says which rotations a plan has.
        limits.context = limits.context.min(n_pages.saturating_mul(PAGE));
        Ok((
            limits,
            RunnerOptions { max_tokens: limits.rows, max_outputs: limits.seqs, kv: options.kv, n_pages, n_states },
        ))
    }

    /// An engine on a runner that has the model's weights and this room.
    pub(crate) fn with_runner(
        model: Arc<Model>,
        device: &Device,
        runner: Runner,
        limits: Limits,
        chain: Option<usize>,
    ) -> Engine {
        let RunnerOptions { n_pages, n_states, .. } = runner.options();
        let mut steps = Steps::new(Arc::new(ModelVocabulary::new(Arc::clone(&model))), limits, n_pages, n_states);
        if device.picks() {
            steps.let_device_pick();
        }
        let chain = ChainLength::new(chain);
        steps.set_chain(chain.next());
        Engine { model, device: device.clone(), runner, steps, chain, begun: None }
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
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
        self.steps.add(request, n_source, now)
    }

    /// Queues a text to make an embedding of; it is computed together with what else runs and ends with
    /// [`Event::Embedding`].
    ///
    /// # Errors
    /// Values out of range, a text longer than the context, or a model that ranks pairs of texts instead.
    pub fn embed(&mut self, request: EmbedRequest, now: f64) -> Result<SeqId> {
        let pooling = self.model.embeds(request.pooling)?;
        self.steps.embed(request, pooling, self.model.plan().n_pooled(), now)
    }

    /// Queues a pair of texts, as [`super::rank_ids`] joins them, to be scored. Ends with [`Event::Embedding`], whose one
    /// value is the score.
    ///
    /// # Errors
    /// Token ids out of range, a pair longer than the context, or a model that does not rank.
    pub fn rank(&mut self, pair: Vec<u32>, now: f64) -> Result<SeqId> {
        self.model.expect_ranking()?;
        let request = EmbedRequest { prompt: pair, pooling: None, dimensions: None, normalize: false };
        self.steps.rank(request, self.model.spec().ranking, self.model.plan().n_pooled(), now)
    }

    /// Ends a sequence: its `Done` comes with the next events. Says whether it was there.
    pub fn cancel(&mut self, id: SeqId, now: f64) -> bool {
        self.steps.cancel(id, now)
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
        self.steps.finish(&output, now)
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
        let (pages, free_pages) = scheduler.n_pages();
        let (states, kept_states) = scheduler.n_states();
        Stats {
            waiting: scheduler.n_waiting(),
            running: scheduler.n_running(),
            pages,
            free_pages,
            states,
            kept_states,
            preemptions: scheduler.n_preempted(),
        }
    }
}

/// Puts the token that ends a text behind one that has none, if the model wants it; gives the number of tokens.
fn close(ids: &mut Vec<u32>, tokenizer: &Tokenizer) -> usize {
    if tokenizer.add_eos() && ids.last().copied() != tokenizer.eos() {
        ids.extend(tokenizer.eos());
    }
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

/// Tokens of a text at most that a model which reads it in one step takes unless asked for more: a step's buffers are made
/// for it.
const WHOLE_TEXT: usize = 8192;

/// Refuses a context beyond the model's table of positions.
fn expect_room(model: &Model, options: &EngineOptions) -> Result<()> {
    match (options.context, model.plan().n_positions()) {
        (Some(context), n) if context > n => Err(Error::limit(format!(
            "the model has {n} positions: ask for a context of {n} tokens at most, not {context}"
        ))),
        _ => Ok(()),
    }
}

fn limits(model: &Model, options: &EngineOptions) -> Limits {
    let (plan, n_context) = (model.plan(), model.spec().n_context);
    let whole = plan.reads_both_ways();
    let own = if whole { n_context.min(WHOLE_TEXT) } else { n_context };
    let context = options.context.unwrap_or(own).min(plan.n_positions()).min(u32::MAX as usize);
    let seqs = options.max_sequences.clamp(1, 1024);
    let in_one = whole || plan.reads_source();
    let rows = options.max_rows.max(if in_one { context.min(WHOLE_TEXT.max(options.context.unwrap_or(0))) } else { 0 });
    let rows = rows.clamp(1, 1 << 16);
    Limits { rows, chunk: options.chunk, seqs: seqs.min(rows), context, reuse: options.reuse && !whole, whole }
}

/// Pages in the cache: enough for every sequence's whole context and one more for what is kept, if the budget allows.
fn n_pages(page_bytes: u64, limits: &Limits, options: &EngineOptions) -> Result<usize> {
    let affordable = options.kv_budget / page_bytes.max(1);
    let per_sequence = limits.context.div_ceil(PAGE) as u64;
    if let Some(context) = options.context
        && per_sequence > affordable
    {
        let (need, budget) = ((per_sequence * page_bytes).div_ceil(1 << 20), options.kv_budget >> 20);
        return Err(Error::limit(format!(
            "a context of {context} tokens needs {need} MiB of cache and the budget is {budget} MiB: \
             ask for a shorter context or allow more"
        )));
    }
    let n = affordable.min(per_sequence * (limits.seqs as u64 + 1)).min(1 << 30) as usize;
    if n == 0 || limits.context < 2 {
        return Err(Error::limit("the cache must hold two tokens at least: raise its budget or the context"));
    }
    Ok(n)
}

/// The largest number of snapshots of states.
const MOST_SNAPSHOTS: u64 = 64;

/// Slots for states of `bytes`: two for each running sequence, two snapshots, and more that take at most an eighth of what is
/// left of the cache's budget.
///
/// # Errors
/// If the slots of the running sequences alone exceed the budget.
fn n_states(bytes: u64, limits: &Limits, options: &EngineOptions) -> Result<usize> {
    if bytes == 0 {
        return Ok(0);
    }
    let running = 2 * limits.seqs as u64;
    if bytes.saturating_mul(running) > options.kv_budget {
        return Err(Error::limit(format!(
            "the states of {} sequences need {} MiB and the cache's budget is {} MiB: allow fewer at once or more memory",
            limits.seqs,
            bytes.saturating_mul(running).div_ceil(1 << 20),
            options.kv_budget >> 20
        )));
    }
    let left = (options.kv_budget - bytes * running).saturating_sub(2 * bytes);
    Ok((running + 2 + (left / 8 / bytes).min(MOST_SNAPSHOTS - 2)) as usize)
}
