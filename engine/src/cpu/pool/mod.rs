//! The thread pool: a fixed set of threads that run the numbered parts of one job at a time, the caller among them.
//! Workers wait by a bounded spin and then sleep. What the parts compute is not known here. On WebAssembly the page
//! brings the threads (`web_workers`); a module without atomics has a stand-in with one thread.
#![allow(unsafe_code, reason = "a job borrows the caller's stack while other threads run it")]

use std::ops::Range;

#[cfg_attr(all(target_arch = "wasm32", not(target_feature = "atomics")), path = "single.rs")]
mod threads;
#[cfg(any(not(target_arch = "wasm32"), target_feature = "atomics"))]
#[cfg_attr(target_arch = "wasm32", path = "web_workers.rs")]
mod workers;

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;

pub use threads::Pool;
#[cfg(all(target_arch = "wasm32", target_feature = "atomics"))]
pub use workers::work;

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

    /// Calls `f(r, row)` for each row of `cols` elements of `out`, in parallel; neighbours stay together as long as there
    /// is a part for every thread, and short ones until they outweigh handing them out.
    pub fn rows_mut<T: Send>(&self, out: &mut [T], cols: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        let rows = (out.len() / cols).div_ceil(self.threads() * PARTS_PER_THREAD).max(PART / cols).max(1);
        self.chunks_mut(out, rows * cols, |i, part| {
            part.chunks_mut(cols).enumerate().for_each(|(r, row)| f(i * rows + r, row));
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

/// Parts of a job for each thread: more than one, so that a thread that lost its core holds up less.
pub const PARTS_PER_THREAD: usize = 4;

/// Elements of a part at least, in jobs that do little with each: enough to outweigh handing it out.
const PART: usize = 4096;

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
