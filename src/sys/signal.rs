//! Signals as readable events: blocked for the whole process and read from a signalfd.
//!
//! Nothing runs in signal context, so there is nothing that must not. What a signal means to the
//! engine is the event loop's business.

use std::io::{self, Read as _};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
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
    /// Who passes signals on is gone.
    Orphaned,
}

const WATCHED: [(libc::c_int, Signal); 6] = [
    (libc::SIGTERM, Signal::Shutdown),
    (libc::SIGINT, Signal::Shutdown),
    (libc::SIGHUP, Signal::Reload),
    (libc::SIGUSR1, Signal::Restart),
    (libc::SIGUSR2, Signal::Status),
    (libc::SIGCHLD, Signal::Child),
];

impl Signal {
    /// Its number; none has zero.
    pub fn number(self) -> u8 {
        let same = WATCHED.iter().find(|(_, signal)| *signal == self);
        same.and_then(|(number, _)| u8::try_from(*number).ok()).unwrap_or(0)
    }
}

/// Where signals are read.
#[derive(Debug)]
pub enum Signals {
    /// The kernel's, by an open signalfd.
    Own(OwnedFd),
    /// Those that another process passes on, a byte each; those to this process are not looked at.
    Forwarded(UnixStream),
}

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
        Ok(Self::Own(unsafe { OwnedFd::from_raw_fd(raw) }))
    }

    /// The next pending signal.
    pub fn next(&self) -> Option<Signal> {
        let number = match self {
            Self::Own(fd) => read_signal(fd),
            Self::Forwarded(stream) => {
                let mut number = [0];
                match (&*stream).read(&mut number) {
                    Ok(0) => return Some(Signal::Orphaned),
                    Ok(_) => Some(u32::from(number[0])),
                    Err(_) => None,
                }
            }
        }?;
        WATCHED
            .iter()
            .find(|(watched, _)| u32::try_from(*watched) == Ok(number))
            .map(|(_, signal)| *signal)
    }
}

/// The number of the next pending signal.
fn read_signal(fd: &OwnedFd) -> Option<u32> {
    // SAFETY: all-zero is a valid signalfd_siginfo.
    let mut info: libc::signalfd_siginfo = unsafe { mem::zeroed() };
    let size = mem::size_of_val(&info);
    // SAFETY: `info` is writable for `size` bytes.
    let read = unsafe { libc::read(fd.as_raw_fd(), (&raw mut info).cast(), size) };
    (check_len(read).ok()? == size).then_some(info.ssi_signo)
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Own(fd) => fd.as_raw_fd(),
            Self::Forwarded(stream) => stream.as_raw_fd(),
        }
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

    #[test]
    fn what_is_passed_on_is_read_until_the_end() {
        let (mut bell, ear) = UnixStream::pair().unwrap();
        ear.set_nonblocking(true).unwrap();
        let signals = Signals::Forwarded(ear);
        assert_eq!(signals.next(), None);
        for (_, signal) in WATCHED {
            io::Write::write_all(&mut bell, &[signal.number()]).unwrap();
            assert_eq!(signals.next(), Some(signal));
        }
        drop(bell);
        assert_eq!(signals.next(), Some(Signal::Orphaned));
    }
}
