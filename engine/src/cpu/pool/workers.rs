//! Threads of the operating system for a pool.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use super::threads::Shared;

pub(super) struct Workers(Vec<JoinHandle<()>>);

impl Workers {
    /// Starts up to `n` threads; fewer where the system refuses one.
    pub(super) fn hire(n: usize, shared: &Arc<Shared>) -> Workers {
        let start = |i| {
            let shared = Arc::clone(shared);
            Builder::new().name(format!("ir-worker-{i}")).spawn(move || shared.work()).ok()
        };
        Workers((1..=n).map_while(start).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Waits for all to end; the pool has been told to stop.
    pub(super) fn dismiss(&mut self, _shared: &Arc<Shared>) {
        for worker in self.0.drain(..) {
            // A worker catches every panic of a job, so there is none to hand on.
            let _ = worker.join();
        }
    }
}
