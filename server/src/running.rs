//! [`Running`]: a job under way, as a stream of outputs. Dropping it cancels what has not ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ir_engine::run::Finish;
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::error::{ApiError, Kind};
use crate::job::{Answer, Collector, Delta, Done, Event, Output, Part, Reason, Usage};
use crate::loaded::{Lease, Loaded};
use crate::mailbox::{End, Letters, Mailbox};
use crate::prompt::Reader;

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
    pub(crate) deadline: Option<Instant>,
    pub(crate) dropped_messages: usize,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) ready: VecDeque<Output>,
    /// Places in the queue, given back with this.
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// One completion.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) reader: Reader,
    ids: Vec<u32>,
    n_calls: usize,
    thinking_tokens: usize,
    ended: bool,
}

impl Choice {
    pub(crate) fn new(reader: Reader) -> Choice {
        Choice { reader, ..Choice::default() }
    }
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
            let late = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let mut stop = self.stop.clone();
            let stopped = async move {
                // Where the hub is gone, so is the engine: that too is a shutdown.
                let _ = stop.wait_for(|stop| *stop).await;
            };
            tokio::select! {
                biased;
                (choice, letters) = mailbox.take() => self.read(choice, letters),
                () = late => self.fail(place, ApiError::new(Kind::Deadline, "the request took longer than its deadline")),
                () = stopped => {
                    self.fail(place, ApiError::new(Kind::Unavailable, "the server is shutting down"));
                }
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
        self.choices.iter_mut().for_each(|c| c.ended = true);
        self.mailbox.leave();
        self.ready.push_back(Output { choice, event: Event::Failed(error) });
    }

    fn read(&mut self, choice: usize, letters: Letters) {
        let c = &mut self.choices[choice];
        if c.ended {
            return;
        }
        let mut delta = Delta { logprobs: letters.logprobs, ..Delta::default() };
        if c.reader.is_thinking() {
            c.thinking_tokens += letters.ids.len();
        }
        c.ids.extend(letters.ids);
        c.reader.push(&letters.text, &mut delta.parts);
        if letters.end.is_some() {
            c.reader.finish(&mut delta.parts);
        }
        c.n_calls += delta.parts.iter().filter(|p| matches!(p, Part::CallEnd { .. })).count();
        if !delta.parts.is_empty() || !delta.logprobs.is_empty() {
            self.ready.push_back(Output { choice, event: Event::Delta(delta) });
        }
        match letters.end {
            Some(End::Done(finish, usage)) => self.done(choice, finish, usage),
            Some(End::Failed(error)) => self.fail(choice, error),
            None => {}
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
        self.ready.push_back(Output { choice, event: Event::Done(Done { reason, usage, tokens }) });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.mailbox.leave();
    }
}
