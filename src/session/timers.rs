//! A session's timers: an enum and a table. Retransmission is `reliable`'s own.

use crate::time::Instant;

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// The key under negotiation must be established (`hand-window`).
    Handshake,
    /// The established key has reached its age (`reneg-sec`).
    Renegotiate,
    /// The retired key ends (`tran-window`).
    Retire,
    /// Nothing may have been sent for `ping` seconds.
    Ping,
    /// Nothing may have been received for `ping-restart` seconds.
    Silence,
    /// A failed session stops trying to deliver its TLS alert.
    Linger,
}

impl Timer {
    const ALL: [Self; 6] =
        [Self::Handshake, Self::Renegotiate, Self::Retire, Self::Ping, Self::Silence, Self::Linger];
}

/// When each timer runs out, if it runs.
#[derive(Debug, Default)]
pub(super) struct Timers {
    at: [Option<Instant>; Timer::ALL.len()],
    /// The earliest of them: looked at for each packet, and they hardly ever change.
    next: Option<Instant>,
}

impl Timers {
    /// Starts a timer or moves it.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.put(timer, Some(at));
    }

    /// Stops a timer.
    pub(super) fn clear(&mut self, timer: Timer) {
        self.put(timer, None);
    }

    fn put(&mut self, timer: Timer, at: Option<Instant>) {
        if let Some(slot) = self.at.get_mut(timer as usize) {
            *slot = at;
        }
        self.next = self.at.iter().flatten().min().copied();
    }

    /// Stops all of them.
    pub(super) fn clear_all(&mut self) {
        *self = Self::default();
    }

    /// A timer that has run out; it is stopped.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Timer> {
        let mut timers = Timer::ALL.iter().zip(&self.at);
        let (timer, _) = timers.find(|(_, at)| at.is_some_and(|at| at <= now))?;
        self.clear(*timer);
        Some(*timer)
    }

    /// When the next timer runs out.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_timer_fires_once_at_its_time() {
        let at = Instant::from_millis;
        let mut timers = Timers::default();
        assert_eq!(timers.next(), None);
        timers.set(Timer::Ping, at(20));
        timers.set(Timer::Handshake, at(10));
        timers.set(Timer::Retire, at(5));
        timers.clear(Timer::Retire);
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.expired(at(9)), None);
        assert_eq!(timers.expired(at(20)), Some(Timer::Handshake));
        assert_eq!(timers.expired(at(20)), Some(Timer::Ping));
        assert_eq!(timers.expired(at(99)), None);
        for timer in Timer::ALL {
            timers.set(timer, at(1));
            assert_eq!(timers.expired(at(1)), Some(timer));
            assert_eq!(timers.next(), None);
        }
        timers.set(Timer::Ping, at(3));
        timers.set(Timer::Silence, at(4));
        timers.set(Timer::Ping, at(9));
        assert_eq!(timers.next(), Some(at(4)), "the earlier one was moved");
        timers.clear_all();
        assert_eq!(timers.next(), None);
    }
}
