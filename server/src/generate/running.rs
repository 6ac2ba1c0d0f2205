//! [`Running`]: a job under way, as a stream of outputs. Dropping it cancels what has not ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ir_engine::run::FinishReason;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::choice::Choice;
use crate::engine::error::{ApiError, unloaded};
use crate::engine::output_queue::{Batch, End, OutputQueue};
use crate::engine::stats;
use crate::generate::hub::{self, Phase};
use crate::generate::job::{Answer, Collector, Done, Event, Output, Reason, Usage};
use crate::models::loaded::{Lease, Loaded};

/// A job under way.
#[derive(Debug)]
pub struct Running {
    pub(crate) lease: Lease,
    /// When it was asked for.
    pub created: SystemTime,
    pub(crate) output_queue: Arc<OutputQueue>,
    pub(crate) choices: Vec<Choice>,
    pub(crate) prompt: Vec<u32>,
    pub(crate) started: Instant,
    /// From the start until the engine had it.
    pub(crate) submitted: Duration,
    pub(crate) deadline: Option<Instant>,
    pub(crate) dropped_messages: usize,
    pub(crate) stops: Vec<String>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) ready: VecDeque<Output>,
    /// Places in the queue, given back with this.
    pub(crate) _permit: OwnedSemaphorePermit,
}

impl Running {
    /// The model that runs it.
    pub fn model(&self) -> &Loaded {
        &self.lease
    }

    /// Tokens of the prompt.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.prompt.len()
    }

    /// What happens next; `None` when every completion has ended.
    pub async fn next(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.ready.pop_front() {
                return Some(output);
            }
            let place = self.choices.iter().position(|c| !c.ended)?;
            let output_queue = Arc::clone(&self.output_queue);
            let deadline = self.deadline;
            // What ends a job comes first: an output queue that is never empty must not keep it from ending.
            tokio::select! {
                biased;
                () = hub::ending(&mut self.phase) => self.fail(place, hub::shutting_down()),
                () = hub::at(deadline) => self.fail(place, hub::late()),
                (choice, batch) = output_queue.take() => self.read(choice, batch),
            }
        }
    }

    /// All completions at once.
    ///
    /// # Errors
    /// What the first of them failed with.
    pub async fn collect(mut self) -> Result<Vec<Answer>, ApiError> {
        let mut collectors: Vec<Collector> = self.choices.iter().map(|_| Collector::default()).collect();
        let mut answers: Vec<Option<Answer>> = self.choices.iter().map(|_| None).collect();
        while let Some(Output { choice, event }) = self.next().await {
            match event {
                Event::Delta(delta) => collectors[choice].push(delta),
                Event::Done(done) => answers[choice] = Some(std::mem::take(&mut collectors[choice]).finish(done)),
                Event::Failed(error) => return Err(error),
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    fn fail(&mut self, choice: usize, error: ApiError) {
        self.choices.iter().filter(|c| !c.ended).for_each(|_| self.lease.shared.counters.end(stats::End::Failed));
        self.choices.iter_mut().for_each(|c| c.ended = true);
        self.output_queue.leave();
        self.ready.push_back(Output { choice, event: Event::Failed(error) });
    }

    fn read(&mut self, choice: usize, mut batch: Batch) {
        let c = &mut self.choices[choice];
        if c.ended {
            return;
        }
        let deltas = c.read(&mut batch);
        self.ready.extend(deltas.into_iter().map(|delta| Output { choice, event: Event::Delta(delta) }));
        match batch.end {
            Some(End::Done(finish, usage)) => self.done(choice, finish, usage),
            Some(End::Failed(error)) => self.fail(choice, error),
            // Completions are no texts to embed.
            Some(End::Embedded(..)) | None => {}
        }
    }

    fn done(&mut self, choice: usize, finish: FinishReason, usage: ir_engine::run::Usage) {
        let c = &mut self.choices[choice];
        c.ended = true;
        let reason = match finish {
            FinishReason::Stop(_) if c.reader.n_calls() > 0 => Reason::ToolCalls,
            FinishReason::Stop(_) => Reason::Stop,
            FinishReason::Length => Reason::Length,
            FinishReason::Cancelled => return self.fail(choice, unloaded()),
        };
        let stop_string = match finish {
            FinishReason::Stop(Some(place)) => self.stops.get(place).cloned(),
            _ => None,
        };
        let seconds = |s: f64| Duration::try_from_secs_f64(s.max(0.0)).unwrap_or_default();
        let tokenizer = self.lease.loaded.model.tokenizer();
        let mut tokens = self.prompt.clone();
        tokens.extend(c.ids.iter().filter(|id| !tokenizer.is_eog(**id)));
        let usage = Usage {
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.cached_tokens,
            completion_tokens: usage.completion_tokens,
            thinking_tokens: c.thinking_tokens,
            total: self.started.elapsed(),
            load: self.lease.load,
            queued: seconds(usage.queued),
            prompt: seconds(usage.prompt),
            generation: seconds(usage.generation),
            dropped_messages: self.dropped_messages,
        };
        self.lease.shared.counters.done(reason, &usage, self.submitted);
        self.ready.push_back(Output { choice, event: Event::Done(Done { reason, stop_string, usage, tokens }) });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.choices.iter().filter(|c| !c.ended).for_each(|_| self.lease.shared.counters.end(stats::End::Cancelled));
        self.output_queue.leave();
    }
}
