//! Signals as readable events: blocked for the whole process and read from a signalfd.
//!
//! Nothing runs in signal context, so there is nothing that must not. What a signal means to the
//! engine is the event loop's business.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::{check, check_len};

/// A signal that means something to sixgate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT: say goodbye and end.
    Shutdown,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: drop every connection and start afresh.
    Restart,
    /// SIGUSR2: write the status to the log.
    Status,
    /// SIGCHLD: a script may have ended.
    Child,
}

const WATCHED: [(libc::c_int, Signal); 6] = [
    (libc::SIGTERM, Signal::Shutdown),
    (libc::SIGINT, Signal::Shutdown),
    (libc::SIGHUP, Signal::Reload),
    (libc::SIGUSR1, Signal::Restart),
    (libc::SIGUSR2, Signal::Status),
    (libc::SIGCHLD, Signal::Child),
];

/// The open signalfd.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks the signals for this thread and those it starts, and opens the descriptor.
    pub fn open() -> io::Result<Self> {
        // SAFETY: all-zero is a valid sigset_t, sigemptyset makes it a defined one; the pointers
        // are to a local that outlives the calls; null is allowed for the old mask.
        let raw = unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            // Whoever started us may have told the kernel to forget about ended children.
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            libc::sigemptyset(&mut set);
            for (number, _) in WATCHED {
                libc::sigaddset(&mut set, number);
            }
            match libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) {
                0 => {}
                code => return Err(io::Error::from_raw_os_error(code)),
            }
            check(libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC))?
        };
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(raw) }))
    }

    /// The next pending signal.
    pub fn next(&self) -> Option<Signal> {
        // SAFETY: all-zero is a valid signalfd_siginfo.
        let mut info: libc::signalfd_siginfo = unsafe { mem::zeroed() };
        let size = mem::size_of_val(&info);
        // SAFETY: `info` is writable for `size` bytes.
        let read = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut info).cast(), size) };
        match check_len(read) {
            Ok(len) if len == size => {}
            Ok(_) | Err(_) => return None,
        }
        WATCHED
            .iter()
            .find(|(number, _)| u32::try_from(*number) == Ok(info.ssi_signo))
            .map(|(_, signal)| *signal)
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_to_this_thread_is_read_once() {
        let signals = Signals::open().unwrap();
        assert_eq!(signals.next(), None);
        // SAFETY: sends a signal that this thread has blocked to this thread alone.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR2) };
        assert_eq!(signals.next(), Some(Signal::Status));
        assert_eq!(signals.next(), None);
    }
}
