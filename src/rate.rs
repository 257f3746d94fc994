//! A limit of so many events per period: answers to strangers [3.3], ICMP errors.

use core::time::Duration;

use crate::time::Instant;

/// At most `most` events in each `period`; a period starts with its first event.
#[derive(Debug, Clone, Copy)]
pub struct RateLimit {
    most: u32,
    period: Duration,
    since: Instant,
    count: u32,
}

impl RateLimit {
    /// A fresh limit.
    pub const fn new(most: u32, period: Duration) -> Self {
        Self { most, period, since: Instant::ZERO, count: 0 }
    }

    /// Counts one event if it is within the limit; says whether it is.
    pub fn allow(&mut self, now: Instant) -> bool {
        self.spend(now, 1)
    }

    /// Counts an event that is worth several, of which the last may be beyond the limit.
    pub fn spend(&mut self, now: Instant, cost: u32) -> bool {
        if now.since(self.since) >= self.period {
            self.since = now;
            self.count = 0;
        }
        let within = self.count < self.most;
        self.count = self.count.saturating_add(if within { cost } else { 0 });
        within
    }

    /// How loudly to speak of an event: as `usual` within the limit, and for debugging only beyond it.
    pub fn level(&mut self, now: Instant, usual: log::Level) -> log::Level {
        if self.allow(now) { usual } else { log::Level::Debug }
    }

    /// Takes one event back: it turned out to be welcome.
    pub fn refund(&mut self) {
        self.count = self.count.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_so_many_per_period_and_forgives_refunds() {
        let mut limit = RateLimit::new(2, Duration::from_secs(10));
        let at = |secs: u64| Instant::from_millis(secs * 1000);
        assert!(limit.allow(at(1)) && limit.allow(at(2)));
        assert!(!limit.allow(at(3)));
        limit.refund();
        assert!(limit.allow(at(4)));
        assert!(!limit.allow(at(9)));
        assert!(limit.allow(at(11)), "a new period");
    }

    #[test]
    fn dear_events_use_it_up_faster() {
        let mut limit = RateLimit::new(5, Duration::from_secs(10));
        let now = Instant::from_millis(1000);
        assert!(limit.spend(now, 3) && limit.spend(now, 3), "a beginning is enough");
        assert!(!limit.spend(now, 1));
    }

    #[test]
    fn zero_allows_nothing() {
        let mut limit = RateLimit::new(0, Duration::from_secs(1));
        assert!(!limit.allow(Instant::from_millis(5000)));
    }
}
