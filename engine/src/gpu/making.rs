//! Pipelines made while a model loads, in the order in which steps will want them: by threads beside the loading, or a few for
//! each piece of weights if there are none, as in a page. A step that wants one that is not made yet makes it itself.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::Gpu;
use super::dispatch::Dispatch;
use super::kernels::Kernel;
use super::lower::FEW;

/// Threads that make pipelines, at most: drivers gain little by more.
#[cfg(not(target_arch = "wasm32"))]
const MOST_THREADS: usize = 4;

/// How many threads make pipelines beside the loading: half of the processor's, up to four. None in a page.
pub fn threads_of_pipelines() -> usize {
    #[cfg(target_arch = "wasm32")]
    return 0;
    #[cfg(not(target_arch = "wasm32"))]
    (std::thread::available_parallelism().map_or(1, |n| n.get()) / 2).clamp(1, MOST_THREADS)
}

/// Kernels whose pipelines are still to be made.
#[derive(Debug, Default)]
struct Left {
    kernels: Mutex<VecDeque<Arc<Kernel>>>,
    /// Those, and those that are being made.
    n: AtomicUsize,
}

impl Left {
    fn next(&self) -> Option<Arc<Kernel>> {
        self.kernels.lock().ok()?.pop_front()
    }

    /// Makes the next pipeline; false if there is none.
    fn make(&self, gpu: &Gpu) -> bool {
        let Some(kernel) = self.next() else { return false };
        // A device that failed makes nothing.
        if gpu.check().is_ok() {
            kernel.pipeline(gpu);
        }
        self.n.fetch_sub(1, Ordering::Release);
        true
    }
}

/// The pipelines of a runner.
#[derive(Debug, Default)]
pub(super) struct Making {
    left: Arc<Left>,
    #[cfg(not(target_arch = "wasm32"))]
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// When steps will want a dispatch: a prompt first, then single rows, then all else.
fn turn(dispatch: &Dispatch) -> u8 {
    let rows = &dispatch.when.1;
    match (rows.contains(&(64 * FEW)), rows.contains(&1)) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => 2,
    }
}

impl Making {
    /// Begins to make the pipelines of these dispatches and kernels.
    pub(super) fn start<'a>(
        gpu: &Arc<Gpu>,
        all: impl Iterator<Item = (&'a Dispatch, &'a Arc<Kernel>)>,
        n_threads: usize,
    ) -> Making {
        let mut kernels: Vec<_> = all.map(|(dispatch, kernel)| (turn(dispatch), Arc::clone(kernel))).collect();
        kernels.sort_by_key(|(turn, _)| *turn);
        let mut seen = HashSet::new();
        let kernels: VecDeque<_> =
            kernels.into_iter().map(|(_, kernel)| kernel).filter(|kernel| seen.insert(Arc::as_ptr(kernel))).collect();
        let n = AtomicUsize::new(kernels.len());
        let left = Arc::new(Left { kernels: Mutex::new(kernels), n });
        #[cfg(target_arch = "wasm32")]
        {
            let _ = (gpu, n_threads);
            Making { left }
        }
        #[cfg(not(target_arch = "wasm32"))]
        {
            let work = |_| {
                let (left, gpu) = (Arc::clone(&left), Arc::clone(gpu));
                let named = std::thread::Builder::new().name("pipelines".into());
                // Without a thread steps make what they want.
                named.spawn(move || while left.make(&gpu) {}).ok()
            };
            let threads = (0..n_threads).filter_map(work).collect();
            Making { left, threads }
        }
    }

    /// Makes the next pipeline, if no threads do.
    pub(super) fn step(&self, gpu: &Gpu) {
        if !self.has_threads() {
            self.left.make(gpu);
        }
    }

    /// Makes the rest, if no threads do.
    pub(super) fn rest(&self, gpu: &Gpu) {
        while !self.has_threads() && self.left.make(gpu) {}
    }

    /// Whether all are made.
    pub(super) fn is_done(&self) -> bool {
        self.left.n.load(Ordering::Acquire) == 0
    }

    /// Waits until all are made.
    pub(super) fn wait(&mut self, gpu: &Gpu) {
        while self.left.make(gpu) {}
        self.join();
    }

    fn has_threads(&self) -> bool {
        #[cfg(target_arch = "wasm32")]
        return false;
        #[cfg(not(target_arch = "wasm32"))]
        !self.threads.is_empty()
    }

    fn join(&mut self) {
        #[cfg(not(target_arch = "wasm32"))]
        for thread in self.threads.drain(..) {
            // One that died made less than it could have.
            let _ = thread.join();
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Ok(mut kernels) = self.left.kernels.lock() {
            kernels.clear();
        }
        self.join();
    }
}
