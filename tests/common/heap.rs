//! How much memory this thread holds, and how often it has asked for some: a test binary that wants to
//! know says `#[global_allocator]`. Other threads' tests do not disturb the counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator with a count per thread.
pub struct Counted;

// SAFETY: hands everything to the system's allocator; counting allocates nothing, as the thread's
// counters need no initialisation at run time.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize, 1);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as isize), 0);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize, 1);
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(memory, layout, size) }
    }
}

fn count(change: isize, times: usize) {
    let _ = HELD.try_with(|held| held.set(held.get() + change));
    let _ = TAKEN.try_with(|taken| taken.set(taken.get() + times));
}

/// Bytes that this thread took and has not given back.
pub fn held() -> isize {
    HELD.get()
}

/// How often `work` asks for memory, be it for more of what it has.
pub fn taken_by(work: impl FnOnce()) -> usize {
    let before = TAKEN.get();
    work();
    TAKEN.get() - before
}
