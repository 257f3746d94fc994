//! Time as the engines see it: values handed in by the shell, never read from a clock.
//!
//! `Instant` is monotonic and only good for differences; `UnixTime` is wall-clock time, which may
//! jump (routers boot without a clock) and is used only where the protocol or a certificate needs
//! it. Reading the real clocks is `sys::clock`'s business.

use core::ops::Add;
use core::time::Duration;

/// A point on a monotonic time line with millisecond resolution and an arbitrary origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The origin of the time line.
    pub const ZERO: Self = Self(0);

    /// The instant `millis` milliseconds after the origin.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the origin.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero when `earlier` lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the far end of the time line, so that "never" can be a very long duration.
    fn add(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

/// Seconds since 1970-01-01 00:00:00 UTC, as far as the host knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// A clock that shows less has not been set: this program is younger.
    pub const EARLIEST: Self = Self(1_767_225_600);
}

/// Both clocks, read once per turn of the event loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// For timers.
    pub mono: Instant,
    /// For packet-id times, tokens and certificates.
    pub unix: UnixTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_saturate() {
        let early = Instant::from_millis(5);
        let late = early + Duration::from_secs(1);
        assert_eq!(late.since(early), Duration::from_secs(1));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(late + Duration::MAX, Instant::from_millis(u64::MAX));
    }
}
