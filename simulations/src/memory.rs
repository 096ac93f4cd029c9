//! How much memory a world's thread asks for at once: no message of a peer may
//! make an agent ask for much (S4).

#![allow(unsafe_code, reason = "an allocator is unsafe by its trait")]

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
};

use mimalloc::MiMalloc;

/// A run asks for memory all the time, in all sizes; glibc's allocator took a
/// third of it.
const SOURCE: MiMalloc = MiMalloc;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// An allocator that remembers the largest request.
pub struct Watched;

/// The largest request of this thread so far, in bytes; it is zero again then.
pub fn take_largest() -> usize {
    LARGEST.replace(0)
}

fn note(size: usize) {
    // A thread that is being torn down has no such value any more.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: all of it is mimalloc's.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise is mimalloc's condition.
        unsafe { SOURCE.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as above.
        unsafe { SOURCE.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { SOURCE.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above.
        unsafe { SOURCE.realloc(memory, layout, size) }
    }
}
