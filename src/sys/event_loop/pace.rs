//! When to wait a little for more packets before looking: where they come one by one and fast, a
//! processor that is woken for each spends more on waking than on the packet.
//!
//! That is what network cards do when they hold their interrupt back, for about as long. It costs such
//! a stream a fraction of a millisecond, and a quiet tunnel nothing: a lone packet is never held up.
//! Nor is a stream that comes many packets at a time, in rows and pieces, which is fast by itself and
//! would only be slowed down.

use std::time::Duration;

use crate::time::Instant;

/// Packets in one millisecond that make the tunnel a busy one.
const BUSY: usize = 10;
/// How long to wait then: for three packets at least. The kernel adds 50 µs of its own.
pub(super) const PAUSE: Duration = Duration::from_micros(250);

/// How packets come.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The millisecond that is being counted.
    at: Instant,
    /// Packets in it so far that came alone, and in company.
    alone: usize,
    together: usize,
    /// Whether the last one had many that came alone.
    busy: bool,
}

impl Pace {
    /// Begins a turn.
    pub(super) fn turn(&mut self, now: Instant) {
        if now == self.at {
            return;
        }
        // After a time without any the last count says nothing.
        let fresh = now.since(self.at) <= Duration::from_millis(2);
        self.busy = fresh && self.alone >= BUSY && self.alone > self.together;
        *self = Self { at: now, busy: self.busy, ..Self::default() };
    }

    /// Takes note of packets that came in one piece.
    pub(super) fn count(&mut self, packets: usize) {
        match packets {
            1 => self.alone += 1,
            _ => self.together += packets,
        }
    }

    /// Whether waiting for more pays.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a millisecond with these packets makes the next one wait.
    fn busy_after(alone: usize, pieces: &[usize]) -> bool {
        let mut pace = Pace::default();
        pace.turn(Instant::from_millis(7));
        (0..alone).for_each(|_| pace.count(1));
        pieces.iter().for_each(|packets| pace.count(*packets));
        assert!(!pace.is_busy(), "the first millisecond is not over");
        pace.turn(Instant::from_millis(8));
        let busy = pace.is_busy();
        pace.turn(Instant::from_millis(8));
        assert_eq!(pace.is_busy(), busy, "the same millisecond, another turn");
        pace.turn(Instant::from_millis(9));
        assert!(!pace.is_busy(), "nothing came since");
        busy
    }

    #[test]
    fn only_many_packets_that_come_alone_are_waited_for() {
        assert!(!busy_after(0, &[]) && !busy_after(1, &[]) && !busy_after(BUSY - 1, &[]));
        assert!(busy_after(BUSY, &[]) && busy_after(500, &[]));
        assert!(!busy_after(0, &[40; 5]), "pieces");
        assert!(!busy_after(20, &[40]), "acknowledgements of a stream that goes in pieces");
        assert!(busy_after(50, &[40]), "a few that met by chance");
    }

    #[test]
    fn after_a_silence_the_first_packet_is_a_lone_one() {
        let mut pace = Pace::default();
        pace.turn(Instant::from_millis(7));
        (0..100).for_each(|_| pace.count(1));
        pace.turn(Instant::from_millis(100));
        assert!(!pace.is_busy());
    }
}
