//! News of the host that matter at once: to a client, that addresses or routes have changed, or that
//! it has woken from sleep; to a server whose clients' addresses follow the line, that addresses have.
//!
//! What to do then is [`tunnel`](super::tunnel)'s, [`line`](super::line)'s and the engine's business; nothing is read out of
//! the messages, as many of them come at once and only the end result counts.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::clock::no_time;
use super::{check, check_len};

/// Sockets that become readable with such news.
#[derive(Debug)]
pub struct Watch {
    routes: OwnedFd,
    clock: Option<OwnedFd>,
}

impl Watch {
    /// For a client. Needs no privilege.
    pub fn open() -> io::Result<Self> {
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV6_ROUTE;
        Ok(Self { routes: open_groups(groups)?, clock: open_clock().ok() })
    }

    /// For a server: addresses alone. Needs no privilege.
    pub fn addresses() -> io::Result<Self> {
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        Ok(Self { routes: open_groups(groups)?, clock: None })
    }

    /// What to wait for.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        [Some(&self.routes), self.clock.as_ref()].into_iter().flatten().map(AsRawFd::as_raw_fd)
    }

    /// Takes everything that is waiting; whether there was anything.
    pub fn drain(&mut self) -> bool {
        let mut buffer = [0_u8; 8192];
        let mut any = false;
        // Bounded, as somebody may be changing routes all the time.
        for _ in 0..64 {
            // SAFETY: `buffer` is writable for its whole length.
            let got = check_len(unsafe {
                libc::recv(self.routes.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0)
            });
            match got {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Too much came at once (ENOBUFS): that is news, too.
                Ok(_) | Err(_) => any = true,
            }
        }
        if let Some(clock) = &self.clock {
            // SAFETY: `buffer` has room for the eight bytes of a timerfd.
            let read =
                check_len(unsafe { libc::read(clock.as_raw_fd(), buffer.as_mut_ptr().cast(), 8) });
            if read.is_err_and(|error| error.raw_os_error() == Some(libc::ECANCELED)) {
                any = true;
                if let Err(error) = arm(clock) {
                    log::debug!("the clock cannot be watched any more: {error}");
                    self.clock = None;
                }
            }
        }
        any
    }
}

fn open_groups(groups: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers are passed.
    let raw = check(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) })?;
    // SAFETY: the descriptor is new and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: all zero is a valid sockaddr_nl.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    address.nl_groups = groups as u32;
    let len = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    // SAFETY: `address` is a sockaddr_nl of the length given.
    check(unsafe { libc::bind(raw, (&raw const address).cast(), len) })?;
    Ok(fd)
}

/// A timer that never runs out but is cancelled when the wall clock jumps, which waking from sleep
/// counts as. (A timer on the clock that runs on in sleep would have to be set before each wait.)
fn open_clock() -> io::Result<OwnedFd> {
    let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
    // SAFETY: no pointers are passed.
    let raw = check(unsafe { libc::timerfd_create(libc::CLOCK_REALTIME, flags) })?;
    // SAFETY: the descriptor is new and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    arm(&fd)?;
    Ok(fd)
}

fn arm(clock: &OwnedFd) -> io::Result<()> {
    let mut when = libc::itimerspec { it_interval: no_time(), it_value: no_time() };
    #[allow(deprecated, reason = "with musl, the crate says that 64 bits are to come")]
    let never = libc::time_t::MAX;
    when.it_value.tv_sec = never;
    let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
    // SAFETY: `when` is an itimerspec that outlives the call; the old value is not asked for.
    check(unsafe {
        libc::timerfd_settime(clock.as_raw_fd(), flags, &raw const when, std::ptr::null_mut())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_no_news() {
        let mut watch = Watch::open().unwrap();
        // Other tests may change routes in their own namespaces only.
        assert_eq!(watch.descriptors().count(), 2);
        let _ = watch.drain();
    }

    /// Sets the wall clock to what it is: a jump of less than a millisecond, which is one all the same.
    fn jump() {
        let mut now = no_time();
        // SAFETY: `now` is a timespec that outlives both calls.
        let set = unsafe {
            libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now);
            libc::clock_settime(libc::CLOCK_REALTIME, &raw const now)
        };
        assert_eq!(set, 0, "setting the clock needs root (CAP_SYS_TIME)");
    }

    #[test]
    #[ignore = "needs root: tests/run interop runs it"]
    fn a_clock_that_jumps_is_news_every_time() {
        // Nobody changes routes here.
        crate::sys::testing::alone();
        let mut watch = Watch::open().unwrap();
        let clock = watch.descriptors().nth(1).unwrap();
        let waits = || {
            let mut poll = libc::pollfd { fd: clock, events: libc::POLLIN, revents: 0 };
            // SAFETY: `poll` is one pollfd.
            unsafe { libc::poll(&raw mut poll, 1, 1000) == 1 }
        };
        for _ in 0..3 {
            assert!(!watch.drain());
            jump();
            assert!(waits());
            assert!(watch.drain());
        }
        // A server wants to know about addresses alone.
        let mut addresses = Watch::addresses().unwrap();
        jump();
        assert!(!addresses.drain());
    }
}
