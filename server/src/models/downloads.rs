//! [`Downloads`]: pulls that go on although nobody waits for them, as llama-server's clients ask for them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ir_store::{Event, ModelName, Store, Watcher};
use tokio::sync::Notify;

use super::events::{Events, Status, What};
use crate::engine::output_queue::lock;

/// Bytes that are here, and bytes of all, of each file by its digest.
pub(crate) type Progress = BTreeMap<String, (u64, u64)>;

/// What is being fetched, by name.
#[derive(Debug, Default)]
pub(crate) struct Downloads(Mutex<BTreeMap<String, Running>>);

#[derive(Debug)]
struct Running {
    progress: Progress,
    stop: Arc<Notify>,
}

impl Downloads {
    /// How far each has come.
    pub(crate) fn all(&self) -> BTreeMap<String, Progress> {
        lock(&self.0).iter().map(|(name, running)| (name.clone(), running.progress.clone())).collect()
    }

    /// Stops one. Says whether there was one.
    pub(crate) fn stop(&self, name: &str) -> bool {
        let running = lock(&self.0);
        running.get(name).map(|running| running.stop.notify_one()).is_some()
    }

    fn note(&self, name: &str, event: &Event) -> Option<Progress> {
        let (digest, completed, total) = (event.digest.clone()?, event.completed?, event.total?);
        let mut all = lock(&self.0);
        let running = all.get_mut(name)?;
        running.progress.insert(digest, (completed, total));
        Some(running.progress.clone())
    }

    /// Begins one, unless it runs already.
    ///
    /// # Errors
    /// The name cannot be fetched.
    pub(crate) fn begin(
        self: &Arc<Downloads>,
        store: &Arc<Store>,
        name: &ModelName,
        events: &Arc<Events>,
    ) -> ir_store::Result<()> {
        let key = name.short();
        let stop = Arc::new(Notify::new());
        {
            let mut all = lock(&self.0);
            if all.contains_key(&key) {
                return Ok(());
            }
            all.insert(key.clone(), Running { progress: Progress::new(), stop: Arc::clone(&stop) });
        }
        let watcher = store.pull(name).inspect_err(|_| {
            lock(&self.0).remove(&key);
        })?;
        let (downloads, events) = (Arc::clone(self), Arc::clone(events));
        tokio::spawn(async move {
            events.tell(&key, What::Status(Status::Downloading));
            let end = downloads.follow(&key, watcher, &stop, &events).await;
            lock(&downloads.0).remove(&key);
            events.tell(&key, end.map_or_else(What::FetchFailed, |()| What::Fetched));
        });
        Ok(())
    }

    async fn follow(&self, key: &str, mut watcher: Watcher, stop: &Notify, events: &Events) -> Result<(), String> {
        loop {
            let next = tokio::select! {
                next = watcher.next() => next,
                () = stop.notified() => {
                    watcher.stop();
                    continue;
                }
            };
            match next {
                None => return Ok(()),
                Some(Err(error)) => return Err(error.what),
                Some(Ok(event)) => {
                    if let Some(progress) = self.note(key, &event) {
                        events.tell(key, What::Progress(progress));
                        // What comes meanwhile is told in one.
                        tokio::time::sleep(super::PROGRESS_STEP).await;
                    }
                }
            }
        }
    }
}
