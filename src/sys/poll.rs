//! poll(2) over a fixed number of descriptors.
//!
//! What the descriptors are is the event loop's business. poll(2) rather than epoll: there are
//! five descriptors, and the set changes with what the loop is ready to take.

use std::os::fd::RawFd;
use std::time::Duration;

/// Descriptors to wait for, at most `N`.
#[derive(Debug)]
pub struct PollSet<const N: usize> {
    entries: [libc::pollfd; N],
    len: usize,
}

impl<const N: usize> PollSet<N> {
    /// Waits for nothing yet.
    pub const fn new() -> Self {
        Self { entries: [libc::pollfd { fd: -1, events: 0, revents: 0 }; N], len: 0 }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Waits for `fd`, too. Without room it is left out and served a turn later.
    pub fn add(&mut self, fd: RawFd, read: bool, write: bool) {
        let mut events = 0;
        if read {
            events |= libc::POLLIN;
        }
        if write {
            events |= libc::POLLOUT;
        }
        if let Some(entry) = self.entries.get_mut(self.len) {
            *entry = libc::pollfd { fd, events, revents: 0 };
            self.len += 1;
        }
    }

    /// Waits until something is ready or `timeout` (rounded up to milliseconds) has passed; `None`
    /// has no end. A signal or an error is nothing ready.
    pub fn wait(&mut self, timeout: Option<Duration>) {
        let timeout = match timeout {
            None => -1,
            Some(timeout) => {
                let millis = timeout.as_nanos().div_ceil(1_000_000);
                libc::c_int::try_from(millis).unwrap_or(libc::c_int::MAX)
            }
        };
        // SAFETY: the first `len` entries exist, as `add` counts only those it wrote.
        let result =
            unsafe { libc::poll(self.entries.as_mut_ptr(), self.len as libc::nfds_t, timeout) };
        if result < 0 {
            for entry in &mut self.entries {
                entry.revents = 0;
            }
        }
    }

    /// Whether reading from or writing to `fd` makes sense now; errors count, as the call shows them.
    pub fn is_ready(&self, fd: RawFd) -> bool {
        self.entries.iter().take(self.len).any(|entry| entry.fd == fd && entry.revents != 0)
    }
}
