//! [`Running`]: a job under way, as a stream of outputs. Dropping it cancels what has not ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ir_engine::run::Finish;
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::choice::Choice;
use crate::error::{ApiError, Kind};
use crate::hub::{self, Phase};
use crate::job::{Answer, Collector, Done, Event, Output, Reason, Usage};
use crate::loaded::{Lease, Loaded};
use crate::mailbox::{End, Letters, Mailbox};
use crate::meters;

/// A job under way.
#[derive(Debug)]
pub struct Running {
    pub(crate) lease: Lease,
    /// When it was asked for.
    pub created: SystemTime,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) choices: Vec<Choice>,
    pub(crate) prompt: Vec<u32>,
    pub(crate) started: Instant,
    /// From the start until the engine had it.
    pub(crate) submitted: Duration,
    pub(crate) deadline: Option<Instant>,
    pub(crate) dropped_messages: usize,
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
            let mailbox = Arc::clone(&self.mailbox);
            let deadline = self.deadline;
            // What ends a job comes first: a mailbox that is never empty must not keep it from ending.
            tokio::select! {
                biased;
                () = hub::ending(&mut self.phase) => self.fail(place, hub::shutting_down()),
                () = hub::at(deadline) => self.fail(place, hub::late()),
                (choice, letters) = mailbox.take() => self.read(choice, letters),
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
        self.choices.iter().filter(|c| !c.ended).for_each(|_| self.lease.shared.meters.end(meters::End::Failed));
        self.choices.iter_mut().for_each(|c| c.ended = true);
        self.mailbox.leave();
        self.ready.push_back(Output { choice, event: Event::Failed(error) });
    }

    fn read(&mut self, choice: usize, mut letters: Letters) {
        let c = &mut self.choices[choice];
        if c.ended {
            return;
        }
        let deltas = c.read(&mut letters);
        self.ready.extend(deltas.into_iter().map(|delta| Output { choice, event: Event::Delta(delta) }));
        match letters.end {
            Some(End::Done(finish, usage)) => self.done(choice, finish, usage),
            Some(End::Failed(error)) => self.fail(choice, error),
            // Completions are no texts to embed.
            Some(End::Embedded(..)) | None => {}
        }
    }

    fn done(&mut self, choice: usize, finish: Finish, usage: ir_engine::run::Usage) {
        let c = &mut self.choices[choice];
        c.ended = true;
        let reason = match finish {
            Finish::Stop if c.n_calls > 0 => Reason::ToolCalls,
            Finish::Stop => Reason::Stop,
            Finish::Length => Reason::Length,
            Finish::Cancelled => {
                return self.fail(choice, ApiError::new(Kind::Unavailable, "the model was unloaded: ask again"));
            }
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
        self.lease.shared.meters.done(reason, &usage, self.submitted);
        self.ready.push_back(Output { choice, event: Event::Done(Done { reason, usage, tokens }) });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.choices.iter().filter(|c| !c.ended).for_each(|_| self.lease.shared.meters.end(meters::End::Cancelled));
        self.mailbox.leave();
    }
}
