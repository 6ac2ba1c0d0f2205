//! The stand-in for targets without threads.

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
