//! An allocator that wipes memory before it is given back.
//!
//! Types of our own that hold secrets wipe themselves; what other crates do on the way (lines of a PEM
//! file, decrypted TLS records, strings that grow and leave a copy behind) they do not. Nothing is
//! allocated for a data packet, so this costs something during handshakes only.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::atomic::{Ordering, compiler_fence};

/// Another allocator, and wiping.
pub struct Wiping<A>(pub A);

// SAFETY: every block comes from the inner allocator and goes back to it with the layout it came with;
// growing and shrinking take the way through a new block that the trait provides.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Wiping<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the same.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the same.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is as long as its layout says, and nobody uses it any more.
        unsafe {
            wipe(block, layout);
            self.0.dealloc(block, layout);
        }
    }
}

/// Writes that the compiler must not leave out, though nobody reads what they write.
///
/// # Safety
///
/// `block` must be writable for the size of `layout`, and aligned as it says.
unsafe fn wipe(block: *mut u8, layout: Layout) {
    let (mut at, size) = (0, layout.size());
    if layout.align() >= align_of::<usize>() {
        while at + size_of::<usize>() <= size {
            // SAFETY: within the block; every step is a whole word from its aligned beginning.
            unsafe { ptr::write_volatile(block.add(at).cast::<usize>(), 0) };
            at += size_of::<usize>();
        }
    }
    while at < size {
        // SAFETY: within the block.
        unsafe { ptr::write_volatile(block.add(at), 0) };
        at += 1;
    }
    compiler_fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use std::alloc::System;
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        static GIVEN_BACK: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }

    /// Looks at what comes back.
    struct Witness;

    // SAFETY: everything is the system's allocator's.
    unsafe impl GlobalAlloc for Witness {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's promises are the same.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: the block is ours until the system has it.
            unsafe {
                let bytes = std::slice::from_raw_parts(block, layout.size());
                GIVEN_BACK.with_borrow_mut(|all| all.extend_from_slice(bytes));
                System.dealloc(block, layout);
            }
        }
    }

    #[test]
    fn nothing_comes_back_as_it_was() {
        let allocator = Wiping(Witness);
        for (size, align) in [(1, 1), (7, 1), (64, 8), (67, 8), (4097, 16)] {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the block is used within its layout, and given back once.
            unsafe {
                let block = allocator.alloc(layout);
                ptr::write_bytes(block, 0xa5, size);
                let larger = allocator.realloc(block, layout, size + 9);
                assert_eq!(*larger.add(size - 1), 0xa5);
                let layout = Layout::from_size_align(size + 9, align).unwrap();
                ptr::write_bytes(larger, 0xa5, size + 9);
                allocator.dealloc(larger, layout);
            }
            let seen = GIVEN_BACK.take();
            assert_eq!(seen.len(), 2 * size + 9);
            assert!(seen.iter().all(|byte| *byte == 0), "{size} {align}");
        }
    }
}
