//! How a pull goes on: events as Ollama's pull has them, for any number that watch. The last watcher that leaves stops it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::store::locked;

/// A step of a pull, or how far one has come. As JSON it is a line of Ollama's `/api/pull`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Event {
    /// `pulling manifest`, `pulling 0123456789ab`, `verifying sha256 digest`, `writing manifest`, `success`.
    pub status: String,
    /// The blob's digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Its bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Bytes of it that are here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// All steps so far; the last is under way.
    steps: Vec<Event>,
    end: Option<Result>,
    watchers: usize,
}

/// What the thread of a pull writes and watchers read.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    version: watch::Sender<u64>,
    stop: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new() -> Arc<Shared> {
        Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            version: watch::Sender::new(0),
            stop: watch::Sender::new(false),
        })
    }

    fn tell(&self) {
        // Under the lock, so that no watcher misses it between its look and its wait.
        let _state = locked(&self.state);
        self.version.send_modify(|v| *v += 1);
        self.changed.notify_all();
    }

    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Begins a step.
    pub(crate) fn step(&self, event: Event) {
        let mut state = locked(&self.state);
        if state.steps.last() != Some(&event) {
            state.steps.push(event);
        }
        drop(state);
        self.tell();
    }

    pub(crate) fn status(&self, status: &str) {
        self.step(Event { status: status.to_owned(), ..Event::default() });
    }

    /// So many bytes of the step under way are here.
    pub(crate) fn completed(&self, bytes: u64, total: Option<u64>) {
        if let Some(step) = locked(&self.state).steps.last_mut() {
            step.completed = Some(bytes);
            step.total = total.or(step.total);
        }
        self.tell();
    }

    pub(crate) fn end(&self, result: Result) {
        locked(&self.state).end = Some(result);
        self.tell();
    }

    /// A watcher, unless the pull has ended or been stopped.
    pub(crate) fn watch(self: &Arc<Shared>) -> Option<Watcher> {
        let mut state = locked(&self.state);
        if state.end.is_some() || *self.stop.borrow() {
            return None;
        }
        state.watchers += 1;
        drop(state);
        Some(Watcher { shared: Arc::clone(self), at: 0, shown: None, ended: false })
    }
}

/// Watches a pull. If all watchers are dropped, the pull stops; what has arrived is kept.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    /// The step that is shown now.
    at: usize,
    shown: Option<Event>,
    ended: bool,
}

impl Watcher {
    /// What is new, without waiting. `None` within is the end.
    fn ready(&mut self) -> Option<Option<Result<Event>>> {
        if self.ended {
            return Some(None);
        }
        let state = locked(&self.shared.state);
        while self.at < state.steps.len() {
            let step = &state.steps[self.at];
            if self.shown.as_ref() != Some(step) {
                self.shown = Some(step.clone());
                return Some(Some(Ok(step.clone())));
            }
            if self.at + 1 == state.steps.len() {
                break;
            }
            (self.at, self.shown) = (self.at + 1, None);
        }
        let end = state.end.clone()?;
        drop(state);
        self.ended = true;
        Some(end.err().map(Err))
    }

    /// The next event; an error ends the pull, and `None` follows the last. Waits for it.
    pub fn next_blocking(&mut self) -> Option<Result<Event>> {
        loop {
            if let Some(next) = self.wait(Duration::from_secs(3600)) {
                return next;
            }
        }
    }

    /// The same, and `None` outside if nothing happens for so long.
    pub fn wait(&mut self, most: Duration) -> Option<Option<Result<Event>>> {
        let before = *self.shared.version.borrow();
        if let Some(next) = self.ready() {
            return Some(next);
        }
        let shared = Arc::clone(&self.shared);
        let state = locked(&shared.state);
        let same = |_: &mut State| *shared.version.borrow() == before;
        let waited = shared.changed.wait_timeout_while(state, most, same);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.ready()
    }

    /// The next event, for programs with an asynchronous runtime of their own.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        let mut version = self.shared.version.subscribe();
        loop {
            version.mark_unchanged();
            if let Some(next) = self.ready() {
                return next;
            }
            if version.changed().await.is_err() {
                return Some(Err(Error::cancelled()));
            }
        }
    }

    /// Stops the pull for all that watch it. The end comes as an event.
    pub fn stop(&self) {
        self.shared.stop.send_replace(true);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut state = locked(&self.shared.state);
        state.watchers -= 1;
        if state.watchers == 0 {
            self.shared.stop.send_replace(true);
        }
    }
}
