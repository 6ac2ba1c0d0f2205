//! Threads for a pool in a module with shared memory. WebAssembly cannot start threads, the page can:
//!
//! 1. The engine runs in a Web Worker (it waits, which the page's own thread may not).
//! 2. A pool of `n` threads (`CpuOptions::threads`, `Pool::new`) opens `n - 1` places.
//! 3. The page, or the engine's worker, starts `n - 1` more Web Workers. Each instantiates the same compiled module
//!    with the same memory (with a stack and thread-local storage of its own, which wasm-bindgen's start does) and calls
//!    one exported function that calls [`work`].
//!
//! Before, after or during step 2, in any order: [`work`] waits for a place, and a pool computes with the workers that
//! have come, alone if need be. The calls return when the pool is dropped; the page then ends the Web Workers, or calls
//! [`work`] again in them to serve the next pool.
//!
//! Waiting is a bounded spin and then the standard library's mutexes, conditions and parking, which are
//! `memory.atomic.wait32` and `notify` here.
//!
//! A panic in a part traps, and its Web Worker reports an error: the job will never be done, so the page has to end the
//! engine's worker too and say so.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::threads::Shared;

/// One entry for each open place.
static PLACES: Mutex<Vec<Arc<Shared>>> = Mutex::new(Vec::new());
static OPENED: Condvar = Condvar::new();

/// The places of a pool.
pub(super) struct Workers(usize);

impl Workers {
    /// Opens `n` places.
    pub(super) fn hire(n: usize, shared: &Arc<Shared>) -> Workers {
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        places.extend(std::iter::repeat_n(shared, n).cloned());
        OPENED.notify_all();
        Workers(n)
    }

    /// Places, taken or not.
    pub(super) fn len(&self) -> usize {
        self.0
    }

    /// Closes the places that no one took. Those at work leave by themselves: the pool has been told to stop.
    pub(super) fn dismiss(&mut self, shared: &Arc<Shared>) {
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|place| !Arc::ptr_eq(place, shared));
    }
}

/// Waits for a pool that has a place, and works for it until it is dropped. To be called in a Web Worker of its own.
pub fn work() {
    let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    let shared = loop {
        match places.pop() {
            Some(shared) => break shared,
            None => places = OPENED.wait(places).unwrap_or_else(PoisonError::into_inner),
        }
    };
    drop(places);
    shared.work();
}
