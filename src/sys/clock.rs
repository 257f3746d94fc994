//! The real clocks and the real randomness, in the forms that the engines take.
//!
//! Leaves their use to others: the event loop reads [`Clock`] once per turn.

use std::mem;
use std::time::{Duration, SystemTime};

use ring::rand::{SecureRandom, SystemRandom};

use crate::random::Random;
use crate::time::{Instant, Now, UnixTime};

/// Reads the monotonic and the wall clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock(libc::clockid_t);

impl Clock {
    /// Chooses the clock that keeps counting while the machine is suspended, so that a peer which
    /// slept for an hour is given up at once; the ordinary monotonic clock on kernels before 2.6.39.
    pub fn new() -> Self {
        match read(libc::CLOCK_BOOTTIME) {
            Some(_) => Self(libc::CLOCK_BOOTTIME),
            None => Self(libc::CLOCK_MONOTONIC),
        }
    }

    /// Both clocks.
    pub fn now(self) -> Now {
        Now { mono: read(self.0).unwrap_or_default(), unix: unix_time() }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Wall-clock time; the epoch when the clock is set before it.
pub fn unix_time() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()))
}

/// Waits without looking at anything; a signal ends it.
pub fn pause(duration: Duration) {
    // Less than a second: the field is wide enough everywhere.
    let mut wanted = no_time();
    wanted.tv_nsec = duration.subsec_nanos() as _;
    // SAFETY: `wanted` is a timespec that outlives the call; what was left is not asked for.
    unsafe { libc::nanosleep(&raw const wanted, std::ptr::null_mut()) };
}

/// A `timespec` of zero, to be filled: where it is padded, none can be written down.
pub(super) fn no_time() -> libc::timespec {
    // SAFETY: all zero is a valid timespec.
    unsafe { mem::zeroed() }
}

fn read(id: libc::clockid_t) -> Option<Instant> {
    let mut spec = no_time();
    // SAFETY: `spec` is a valid timespec that outlives the call, which writes nothing else.
    let result = unsafe { libc::clock_gettime(id, &mut spec) };
    if result != 0 {
        return None;
    }
    let seconds = u64::try_from(spec.tv_sec).ok()?;
    let millis = u64::try_from(spec.tv_nsec).ok()? / 1_000_000;
    Some(Instant::from_millis(seconds.saturating_mul(1000).saturating_add(millis)))
}

/// The operating system's random generator.
#[derive(Debug, Clone)]
pub struct OsRandom(SystemRandom);

impl OsRandom {
    /// Needs nothing and cannot fail; the first `fill` may wait for the kernel's pool after boot.
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for OsRandom {
    fn default() -> Self {
        Self::new()
    }
}

impl Random for OsRandom {
    fn fill(&mut self, out: &mut [u8]) {
        if self.0.fill(out).is_err() {
            // Going on with predictable session ids and keys would be worse than ending.
            eprintln!("sixgate: the operating system gives no random numbers");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward_and_is_after_this_was_written() {
        let clock = Clock::new();
        let first = clock.now();
        let second = clock.now();
        assert!(second.mono >= first.mono && first.mono > Instant::ZERO);
        assert!(first.unix > UnixTime(1_700_000_000));
    }

    #[test]
    fn random_bytes_differ() {
        let mut random = OsRandom::new();
        let (mut a, mut b) = ([0; 16], [0; 16]);
        random.fill(&mut a);
        random.fill(&mut b);
        assert_ne!(a, b);
    }
}
