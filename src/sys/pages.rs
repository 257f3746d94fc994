//! Large memory of which only what is used is to become resident: zeroed pages straight from the
//! kernel. An allocator may write the zeroes itself (the one of static builds for routers does), and
//! then all of it is in use from the start.

use std::alloc::{self, Layout};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::slice;

/// So many bytes, all zero at first.
pub struct Pages {
    start: NonNull<u8>,
    len: usize,
}

impl Pages {
    /// Takes address space for `len` bytes, which must not be zero. Where there is none the process
    /// ends, as with any allocation.
    pub fn new(len: usize) -> Self {
        let (protection, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, kind, -1, 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Self { start, len },
            Some(_) | None => {
                let layout = Layout::array::<u8>(len).unwrap_or(Layout::new::<u8>());
                alloc::handle_alloc_error(layout)
            }
        }
    }

    /// Gives the memory behind the first `kept` bytes back to the system; it reads as zero again.
    pub fn release_behind(&mut self, kept: usize) {
        // SAFETY: no pointers are passed.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let from = kept.next_multiple_of(page.max(1));
        if from < self.len {
            // SAFETY: the range is a part of our own mapping, to which nobody else has a reference
            // while we are borrowed mutably.
            unsafe {
                let start = self.start.as_ptr().add(from);
                libc::madvise(start.cast(), self.len - from, libc::MADV_DONTNEED);
            }
        }
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is ours alone, readable, initialised by the kernel and `len` long.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and we are borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody has a reference to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages of the mapping that have memory, as the kernel sees it.
    fn resident(pages: &Pages) -> usize {
        // SAFETY: no pointers are passed.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let mut present = vec![0_u8; pages.len.div_ceil(page)];
        // SAFETY: the vector has a byte for each page of the mapping.
        let result = unsafe {
            libc::mincore(pages.start.as_ptr().cast(), pages.len, present.as_mut_ptr().cast())
        };
        assert_eq!(result, 0);
        present.iter().filter(|byte| **byte & 1 == 1).count()
    }

    #[test]
    fn only_what_is_written_takes_memory_and_can_be_given_back() {
        let mut pages = Pages::new(1 << 20);
        assert_eq!(resident(&pages), 0);
        for at in [0, 1 << 19, (1 << 20) - 1] {
            pages[at] = 7;
        }
        assert_eq!((resident(&pages), pages[1 << 19]), (3, 7));
        pages.release_behind(1);
        assert_eq!((resident(&pages), pages[0], pages[1 << 19]), (1, 7, 0));
        pages.release_behind(1 << 20);
        assert_eq!(pages.iter().filter(|byte| **byte != 0).count(), 1);
    }
}
