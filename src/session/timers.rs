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
pub(super) struct Timers([Option<Instant>; Timer::ALL.len()]);

impl Timers {
    /// Starts a timer or moves it.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        if let Some(slot) = self.0.get_mut(timer as usize) {
            *slot = Some(at);
        }
    }

    /// Stops a timer.
    pub(super) fn clear(&mut self, timer: Timer) {
        if let Some(slot) = self.0.get_mut(timer as usize) {
            *slot = None;
        }
    }

    /// Stops all of them.
    pub(super) fn clear_all(&mut self) {
        *self = Self::default();
    }

    /// A timer that has run out; it is stopped.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Timer> {
        let timers = Timer::ALL.iter().zip(&mut self.0);
        timers.into_iter().find_map(|(timer, slot)| slot.take_if(|at| *at <= now).map(|_| *timer))
    }

    /// When the next timer runs out.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
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
        }
    }
}
