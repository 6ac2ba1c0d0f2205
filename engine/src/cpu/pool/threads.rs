//! The pool's threads: handing out the parts of a job, waiting, sleeping, and panics on their way to the caller. Where
//! the threads come from is in `workers`.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

use super::workers::Workers;

/// Looks at the state before a waiting thread sleeps; one look takes 10 to 40 ns, so 20 to 80 us in all. WebAssembly has
/// no instruction that pauses: there a look takes about 2 ns, and going to sleep and waking up take longer.
const SPINS: u32 = if cfg!(target_arch = "wasm32") { 40_000 } else { 2000 };
/// With more threads than cores, a waiting thread gives its core away after this many looks, each time.
const SPINS_CROWDED: u32 = 64;
/// Most parts of one job.
const MAX_PARTS: usize = (1 << 24) - 1;

type Job = dyn Fn(usize) + Sync;

thread_local! {
    /// Whether this thread is inside a job: a nested run is then done inline.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// A fixed set of threads. One per process is meant to be shared by all models.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Workers,
    /// Held while a job runs: callers on different threads take turns.
    turn: Mutex<()>,
}

pub(super) struct Shared {
    /// `generation (16 bits) | parts (24) | next part (24)`. Taking a part is a compare-and-swap on the whole, so
    /// a part can only be taken from the job that is current.
    state: AtomicU64,
    /// The current job. Written only while no part is outstanding; read only by the taker of a part.
    job: UnsafeCell<Option<*const Job>>,
    /// Parts of the current job that are finished.
    done: AtomicUsize,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    /// The caller, where it sleeps until the last part is done.
    caller_sleeps: AtomicBool,
    caller: Mutex<Option<Thread>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
    crowded: bool,
}
// SAFETY: `job` is the only part that is not `Sync` by itself; see its own comment for who may touch it when.
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer in `job` is to a `Sync` closure; sending it between threads is what the pool does.
unsafe impl Send for Shared {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const fn parts_of(state: u64) -> usize {
    (state >> 24) as usize & MAX_PARTS
}
const fn next_of(state: u64) -> usize {
    state as usize & MAX_PARTS
}

impl Pool {
    /// A pool of `threads` threads, the caller's included; 0 means as many as the machine offers. Where the
    /// system refuses a thread the pool is smaller.
    pub fn new(threads: usize) -> Pool {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = if threads == 0 { cores } else { threads.min(1024) };
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            done: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            caller_sleeps: AtomicBool::new(false),
            caller: Mutex::new(None),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            crowded: threads > cores && cfg!(not(target_arch = "wasm32")),
        });
        let workers = Workers::hire(threads - 1, &shared);
        Pool { shared, workers, turn: Mutex::new(()) }
    }

    /// Threads that take part in a job, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f(0)` to `f(parts - 1)`, each once, spread over the threads, and returns when all are done. Called
    /// from inside a job, or with one thread, it runs them in order on the spot.
    ///
    /// # Panics
    /// Where a part panics, after the other parts are done.
    pub fn run(&self, parts: usize, f: &(dyn Fn(usize) + Sync)) {
        if parts <= 1 || self.workers.len() == 0 || INSIDE.get() {
            return (0..parts).for_each(f);
        }
        if parts > MAX_PARTS {
            for start in (0..parts).step_by(MAX_PARTS) {
                self.run(MAX_PARTS.min(parts - start), &|i| f(start + i));
            }
            return;
        }
        let turn = lock(&self.turn);
        // SAFETY: only the lifetime is erased. The pointer is used by takers of parts of this job alone, and this
        // function does not return before the last of those is done.
        let job: *const Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static Job>(f) };
        let panic = self.shared.run(parts, job);
        drop(turn);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        self.workers.dismiss(&self.shared);
    }
}

impl Shared {
    fn run(&self, parts: usize, job: *const Job) -> Option<Box<dyn Any + Send>> {
        // SAFETY: the caller holds the turn and the former job's parts are all done, so no one reads `job`.
        unsafe { *self.job.get() = Some(job) };
        self.done.store(0, Ordering::Relaxed);
        let generation = (self.state.load(Ordering::Relaxed) >> 48).wrapping_add(1);
        self.state.store(generation << 48 | (parts as u64) << 24, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.sleep));
            self.wake.notify_all();
        }
        INSIDE.set(true);
        while self.take_part() {}
        INSIDE.set(false);
        self.wait_done(parts);
        lock(&self.panic).take()
    }

    /// Takes and runs one part of the current job; `false` where none is left.
    fn take_part(&self) -> bool {
        let mut state = self.state.load(Ordering::SeqCst);
        loop {
            if next_of(state) >= parts_of(state) {
                return false;
            }
            match self.state.compare_exchange_weak(state, state + 1, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => break,
                Err(seen) => state = seen,
            }
        }
        // SAFETY: a part of the current job is ours and not done, so its caller waits in `run`: `job` was written
        // before the state that we took the part from, is not written again, and points to a live closure.
        let result = unsafe {
            let job = *self.job.get();
            catch_unwind(AssertUnwindSafe(|| {
                if let Some(job) = job {
                    (*job)(next_of(state));
                }
            }))
        };
        if let Err(payload) = result {
            lock(&self.panic).get_or_insert(payload);
        }
        if self.done.fetch_add(1, Ordering::SeqCst) + 1 == parts_of(state)
            && self.caller_sleeps.load(Ordering::SeqCst)
            // Left where it is: this may be the last part of an earlier job, whose caller has begun the next and sleeps again.
            && let Some(caller) = lock(&self.caller).as_ref()
        {
            caller.unpark();
        }
        true
    }

    fn wait_done(&self, parts: usize) {
        let all_done = || self.done.load(Ordering::SeqCst) == parts;
        if self.spin_until(all_done) {
            return;
        }
        *lock(&self.caller) = Some(std::thread::current());
        self.caller_sleeps.store(true, Ordering::SeqCst);
        while !all_done() {
            std::thread::park();
        }
        self.caller_sleeps.store(false, Ordering::SeqCst);
        *lock(&self.caller) = None;
    }

    /// Whether `ready` came true within the bounded spin.
    fn spin_until(&self, ready: impl Fn() -> bool) -> bool {
        for spin in 0..SPINS {
            if ready() {
                return true;
            }
            if self.crowded && spin % SPINS_CROWDED == SPINS_CROWDED - 1 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        false
    }

    /// What a worker does until the pool is dropped.
    pub(super) fn work(&self) {
        INSIDE.set(true);
        let has_work = || {
            let state = self.state.load(Ordering::SeqCst);
            next_of(state) < parts_of(state) || self.stop.load(Ordering::Relaxed)
        };
        loop {
            while self.take_part() {}
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            if !self.spin_until(has_work) {
                let mut guard = lock(&self.sleep);
                self.sleepers.fetch_add(1, Ordering::SeqCst);
                while !has_work() {
                    guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
                }
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last part of a job may end late, when its caller has begun the next one and sleeps: that wakeup must not be the only one.
    #[test]
    fn a_late_worker_leaves_the_caller_to_be_woken() {
        let pool = Pool::new(1);
        let shared = &pool.shared;
        *lock(&shared.caller) = Some(std::thread::current());
        shared.caller_sleeps.store(true, Ordering::SeqCst);
        let job: &'static Job = &|_| {};
        // SAFETY: the pool has no workers, so no one reads `job`.
        unsafe { *shared.job.get() = Some(job) };
        shared.state.store(1 << 24, Ordering::SeqCst);
        assert!(shared.take_part());
        // It returns at once: the caller was woken.
        std::thread::park();
        assert!(lock(&shared.caller).is_some());
    }
}
