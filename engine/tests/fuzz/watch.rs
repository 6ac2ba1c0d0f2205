//! An allocator that remembers the largest single allocation of each thread, and how many there were.

#![allow(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, watched.
pub(crate) struct Watch;

/// Forgets what this thread allocated.
pub(crate) fn reset() {
    LARGEST.set(0);
    COUNT.set(0);
}

/// Bytes of this thread's largest allocation since [`reset`].
pub(crate) fn largest() -> usize {
    LARGEST.get()
}

/// This thread's allocations since [`reset`].
#[cfg(feature = "gpu")]
pub(crate) fn count() -> usize {
    COUNT.get()
}

fn note(size: usize) {
    // At a thread's end the cell may be gone; nothing is watched then.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Watch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}
