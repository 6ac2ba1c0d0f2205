//! [`ModelEvent`]: what happens to models, for whoever watches.

use std::collections::BTreeMap;

use tokio::sync::broadcast;

/// Events that a slow watcher may fall behind.
const KEPT: usize = 256;

/// How a model stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// It is being fetched.
    Downloading,
    /// It is being loaded.
    Loading,
    /// It is loaded.
    Loaded,
    /// It was loaded, nobody asked it for its time, and it gave its memory back; the next request loads it.
    Sleeping,
    /// It is not loaded.
    Unloaded,
}

impl Status {
    /// llama-server's word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Status::Downloading => "downloading",
            Status::Loading => "loading",
            Status::Loaded => "loaded",
            Status::Sleeping => "sleeping",
            Status::Unloaded => "unloaded",
        }
    }
}

/// What happened to a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    /// It stands so now.
    Status(Status),
    /// It could not be loaded.
    LoadFailed(String),
    /// So much of its files has come: bytes that are here, and bytes of all, by digest.
    Progress(BTreeMap<String, (u64, u64)>),
    /// It has been fetched.
    Fetched,
    /// It could not be fetched.
    FetchFailed(String),
    /// Its name is gone.
    Removed,
}

/// What happened to which model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ModelEvent {
    pub(crate) model: String,
    pub(crate) what: What,
}

/// The way to those who watch.
#[derive(Debug)]
pub(crate) struct Events(broadcast::Sender<ModelEvent>);

impl Default for Events {
    fn default() -> Events {
        Events(broadcast::Sender::new(KEPT))
    }
}

impl Events {
    /// Tells it; nobody may be there.
    pub(crate) fn tell(&self, model: &str, what: What) {
        let _ = self.0.send(ModelEvent { model: model.to_owned(), what });
    }

    /// What happens from now on.
    pub(crate) fn watch(&self) -> broadcast::Receiver<ModelEvent> {
        self.0.subscribe()
    }
}
