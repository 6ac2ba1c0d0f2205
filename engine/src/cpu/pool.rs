//! The thread pool: a fixed set of threads that run the numbered parts of one job at a time, the caller among them.
//! Workers wait by a bounded spin and then sleep. What the parts compute is not known here; WASM has a stand-in with
//! one thread.
#![allow(unsafe_code, reason = "a job borrows the caller's stack while other threads run it")]

use std::ops::Range;

pub use imp::Pool;

/// Splits `0..n` into `parts` ranges whose lengths differ by at most one `step`, each a multiple of `step` except the
/// last one. Ranges may be empty.
pub fn split(n: usize, parts: usize, step: usize, part: usize) -> Range<usize> {
    let units = n.div_ceil(step);
    let at = |p: usize| (units * p / parts * step).min(n);
    at(part)..at(part + 1)
}

impl Pool {
    /// Calls `f(i, chunk)` for each chunk of `chunk_len` elements of `out` (the last may be shorter), in parallel.
    pub fn chunks_mut<T: Send>(&self, out: &mut [T], chunk_len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        assert!(chunk_len > 0, "chunks of nothing");
        let (len, base) = (out.len(), Base(out.as_mut_ptr()));
        self.run(len.div_ceil(chunk_len), &|i| {
            let start = i * chunk_len;
            // SAFETY: chunk `i` lies inside `out`, chunks of different `i` are disjoint, each `i` runs once, and `run`
            // returns only when every part is done, so the borrow of `out` outlives the slice.
            let chunk = unsafe { std::slice::from_raw_parts_mut(base.get().add(start), chunk_len.min(len - start)) };
            f(i, chunk);
        });
    }

    /// Splits the columns of `out` (`rows` x `cols`, row-major) into `parts` contiguous ranges, multiples of `step`
    /// but for the last, and calls `f(range, view)` for each that is not empty, in parallel. The view reaches exactly
    /// those columns of every row.
    pub fn columns<T: Send>(
        &self,
        out: &mut [T],
        cols: usize,
        parts: usize,
        step: usize,
        f: impl Fn(Range<usize>, Columns<'_, T>) + Sync,
    ) {
        if cols == 0 {
            return;
        }
        let rows = out.len() / cols;
        assert_eq!(out.len(), rows * cols, "the output is no whole number of rows");
        let base = Base(out.as_mut_ptr());
        self.run(parts, &|part| {
            let range = split(cols, parts, step, part);
            if !range.is_empty() {
                let view = Columns {
                    // SAFETY: `range` lies inside a row of `out`.
                    base: unsafe { base.get().add(range.start) },
                    rows,
                    stride: cols,
                    width: range.len(),
                    life: std::marker::PhantomData,
                };
                f(range, view);
            }
        });
    }
}

/// A range of columns of a row-major matrix, writable by one part of a job.
pub struct Columns<'a, T> {
    base: *mut T,
    rows: usize,
    stride: usize,
    width: usize,
    life: std::marker::PhantomData<&'a mut [T]>,
}

impl<T> Columns<'_, T> {
    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The part's own columns of row `r`.
    pub fn row_mut(&mut self, r: usize) -> &mut [T] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        // SAFETY: the row exists, the columns `base..base + width` lie inside it, and no other view has any of them
        // (`columns` hands out disjoint ranges); the borrow of `self` keeps the slice unique within this view.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(r * self.stride), self.width) }
    }
}

/// A pointer that may be shared with the parts of a job; each part reaches only its own elements.
struct Base<T>(*mut T);
// SAFETY: the helpers above derive disjoint slices from it, one per part, and the elements are `Send`.
unsafe impl<T: Send> Sync for Base<T> {}
impl<T> Base<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod imp {
    use std::any::Any;
    use std::cell::{Cell, UnsafeCell};
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
    use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
    use std::thread::{JoinHandle, Thread};

    /// Looks at the state before a waiting thread sleeps; one look takes 10 to 40 ns, so 20 to 80 us in all.
    const SPINS: u32 = 2000;
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
        workers: Vec<JoinHandle<()>>,
        /// Held while a job runs: callers on different threads take turns.
        turn: Mutex<()>,
    }

    struct Shared {
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
                crowded: threads > cores,
            });
            let workers = (1..threads)
                .map_while(|i| {
                    let shared = Arc::clone(&shared);
                    let builder = std::thread::Builder::new().name(format!("ir-worker-{i}"));
                    builder.spawn(move || shared.work()).ok()
                })
                .collect();
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
            if parts <= 1 || self.workers.is_empty() || INSIDE.get() {
                return (0..parts).for_each(f);
            }
            assert!(parts <= MAX_PARTS, "a job of {parts} parts");
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
            for worker in self.workers.drain(..) {
                // A worker catches every panic of a job, so there is none to hand on.
                let _ = worker.join();
            }
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
                && let Some(caller) = lock(&self.caller).take()
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

        fn work(&self) {
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
}

#[cfg(target_arch = "wasm32")]
mod imp {
    /// The stand-in: one thread, the caller's.
    pub struct Pool(());

    impl Pool {
        /// A pool of the calling thread alone.
        pub fn new(_threads: usize) -> Pool {
            Pool(())
        }

        /// Always 1.
        pub fn threads(&self) -> usize {
            1
        }

        /// Calls `f(0)` to `f(parts - 1)` in order.
        pub fn run(&self, parts: usize, f: &(dyn Fn(usize) + Sync)) {
            (0..parts).for_each(f);
        }
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_part_runs_once() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for parts in [0, 1, 2, 7, 64, 1000] {
                let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                for _ in 0..20 {
                    pool.run(parts, &|i| {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    });
                }
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 20), "{threads} threads, {parts} parts");
            }
        }
    }

    #[test]
    fn works_after_sleep_nested_and_from_many_callers() {
        let pool = Pool::new(4);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for pause in [0, 0, 2, 0] {
                        std::thread::sleep(std::time::Duration::from_millis(pause));
                        pool.run(10, &|_| {
                            pool.run(5, &|_| {
                                total.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 3 * 4 * 10 * 5);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3);
        for bad in 0..6 {
            let ran = AtomicUsize::new(0);
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.run(6, &|i| {
                    ran.fetch_add(1, Ordering::Relaxed);
                    assert!(i != bad, "part {i} fails on purpose");
                });
            }));
            assert!(result.is_err());
            assert_eq!(ran.load(Ordering::Relaxed), 6);
        }
        let mut out = vec![0; 100];
        pool.chunks_mut(&mut out, 7, |i, chunk| chunk.fill(i));
        assert!(out.iter().enumerate().all(|(i, v)| *v == i / 7));
    }

    #[test]
    fn columns_cover_the_matrix() {
        let pool = Pool::new(3);
        for (rows, cols, parts, step) in [(1, 1, 4, 1), (3, 10, 4, 1), (5, 33, 7, 16), (2, 64, 3, 16)] {
            let mut out = vec![0_usize; rows * cols];
            pool.columns(&mut out, cols, parts, step, |range, mut view| {
                assert!(range.start % step == 0);
                for r in 0..view.rows() {
                    for (c, v) in range.clone().zip(view.row_mut(r)) {
                        *v += r * cols + c + 1;
                    }
                }
            });
            assert!(out.iter().enumerate().all(|(i, v)| *v == i + 1));
        }
    }
}
