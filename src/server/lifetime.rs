//! How long a client may stay: `session-timeout` and `inactive` [9.9].
//!
//! Both end the connection of a client that is well otherwise, so it is told to connect again. What
//! silence means is the session's business (`ping-restart`).

use core::time::Duration;

use crate::time::Instant;

/// One client's time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lifetime {
    begins: Instant,
    /// `session-timeout` is over then.
    ends: Option<Instant>,
    idle: Option<Idle>,
}

/// `inactive`: enough tunnel bytes, in both directions together, start its time anew.
#[derive(Debug, Clone, Copy)]
struct Idle {
    period: Duration,
    enough: u64,
    since: Instant,
    bytes: u64,
}

impl Lifetime {
    /// Time that begins now; zero is no limit.
    pub fn new(now: Instant, session: Option<Duration>, inactive: Option<(Duration, u64)>) -> Self {
        let idle = inactive.filter(|(period, _)| !period.is_zero());
        Self {
            begins: now,
            ends: session.filter(|time| !time.is_zero()).map(|time| now + time),
            idle: idle.map(|(period, enough)| Idle { period, enough, since: now, bytes: 0 }),
        }
    }

    /// Other limits for the time that has begun already.
    pub fn change(&mut self, to: Self) {
        let ends = to.ends.map(|end| self.begins + end.since(to.begins));
        let idle = match (self.idle, to.idle) {
            (Some(old), Some(new)) => Some(Idle { since: old.since, bytes: old.bytes, ..new }),
            (None | Some(_), new) => new,
        };
        *self = Self { begins: self.begins, ends, idle };
    }

    /// A packet of this length has passed.
    pub fn count(&mut self, now: Instant, len: u64) {
        let Some(idle) = &mut self.idle else { return };
        idle.bytes = idle.bytes.saturating_add(len);
        if idle.bytes >= idle.enough {
            (idle.since, idle.bytes) = (now, 0);
        }
    }

    /// When to look again at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        [self.ends, self.idle.map(|idle| idle.since + idle.period)].into_iter().flatten().min()
    }

    /// Whether time is up, and which.
    pub fn over(&self, now: Instant) -> Option<&'static str> {
        if self.ends.is_some_and(|ends| ends <= now) {
            return Some("its session has lasted as long as it may (session-timeout)");
        }
        let idle = self.idle.is_some_and(|idle| idle.since + idle.period <= now);
        idle.then_some("its tunnel is not in use (inactive)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn without_limits_it_never_ends() {
        for none in
            [Lifetime::default(), Lifetime::new(at(1), Some(seconds(0)), Some((seconds(0), 9)))]
        {
            assert_eq!((none.deadline(), none.over(at(1 << 40))), (None, None));
        }
    }

    #[test]
    fn only_enough_traffic_starts_the_idle_time_anew() {
        let mut time = Lifetime::new(at(0), None, Some((seconds(60), 100)));
        time.count(at(50), 99);
        assert_eq!(time.deadline(), Some(at(60)));
        time.count(at(55), 1);
        assert_eq!((time.deadline(), time.over(at(60))), (Some(at(115)), None));
        time.count(at(56), 99);
        assert!(time.over(at(115)).is_some_and(|text| text.contains("inactive")));
        let mut any = Lifetime::new(at(0), None, Some((seconds(60), 0)));
        any.count(at(30), 1);
        assert_eq!(any.deadline(), Some(at(90)));
    }

    #[test]
    fn other_limits_count_from_the_beginning() {
        let mut time = Lifetime::new(at(10), Some(seconds(100)), Some((seconds(60), 100)));
        time.count(at(30), 60);
        time.change(Lifetime::new(at(40), Some(seconds(50)), Some((seconds(30), 100))));
        assert_eq!(time.deadline(), Some(at(40)), "idle since 10");
        time.count(at(39), 40);
        assert_eq!(time.deadline(), Some(at(60)), "its session, by then 50 s old");
        time.change(Lifetime::new(at(50), None, None));
        assert_eq!((time.deadline(), time.over(at(1000))), (None, None));
        time.change(Lifetime::new(at(50), None, Some((seconds(5), 1))));
        assert_eq!(time.deadline(), Some(at(55)), "a limit that is new begins now");
    }

    #[test]
    fn a_session_ends_however_busy_it_is() {
        let mut time = Lifetime::new(at(0), Some(seconds(100)), Some((seconds(60), 0)));
        time.count(at(59), 1500);
        assert_eq!(time.deadline(), Some(at(100)));
        time.count(at(99), 1500);
        assert!(time.over(at(100)).is_some_and(|text| text.contains("session-timeout")));
    }
}
