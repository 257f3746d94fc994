//! Which server address is tried next, and after which pause [10.1].
//!
//! Every resolved address of a `remote` is tried before the next `remote`; names are resolved anew
//! each time their turn comes, as home servers move. A name that does not resolve keeps the
//! addresses it had last: the resolver may be behind the tunnel that is down. The pause between
//! attempts starts at one second and doubles, after five rounds over all remotes, up to five
//! minutes. Resolving is the shell's business.

use core::time::Duration;
use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::config::{ClientRole, Remote};
use crate::random::Random;
use crate::time::Instant;

/// First and largest pause between attempts (`connect-retry 1 300`), unless configured.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Silence after which another address is tried, if there is one and `connect-timeout` says nothing:
/// servers answer first packets at once.
const SILENCE: Duration = Duration::from_secs(10);
/// Rounds over all remotes before the pause starts to double.
const PATIENT_ROUNDS: u32 = 5;
/// Addresses of one name that are tried at most.
const MAX_ADDRESSES: usize = 16;

/// What to do for the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Look the current remote up.
    Resolve,
    /// Connect to this address of the current remote.
    Connect(SocketAddr),
}

/// A remote, and what its name resolved to last.
#[derive(Debug)]
struct Known {
    remote: Remote,
    addresses: Vec<SocketAddr>,
}

/// The list and the place in it.
#[derive(Debug)]
pub(super) struct Remotes {
    list: Vec<Known>,
    current: usize,
    /// Addresses of the current remote that have not been tried.
    untried: VecDeque<SocketAddr>,
    /// The current remote's name has been looked up in this turn.
    looked_up: bool,
    /// An address to be tried once more before anything else: it worked.
    again: Option<SocketAddr>,
    /// Completed rounds since the last success.
    rounds: u32,
    unresolved_since: Option<Instant>,
    resolve_retry: Option<Duration>,
    retry_max: Option<u32>,
}

impl Remotes {
    /// `role.remotes` must not be empty: the configuration checks that.
    pub(super) fn new(role: &ClientRole) -> Self {
        let known = |remote: &Remote| Known { remote: remote.clone(), addresses: Vec::new() };
        Self {
            list: role.remotes.iter().map(known).collect(),
            current: 0,
            untried: VecDeque::new(),
            looked_up: false,
            again: None,
            rounds: 0,
            unresolved_since: None,
            resolve_retry: role.resolve_retry,
            retry_max: role.retry_max,
        }
    }

    /// `remote-random`: any order is as likely as any other (Fisher and Yates).
    pub(super) fn shuffle(&mut self, rng: &mut dyn Random) {
        for last in (1..self.list.len()).rev() {
            let bound = u32::try_from(last + 1).unwrap_or(u32::MAX);
            self.list.swap(last, rng.below(bound) as usize);
        }
    }

    /// The remote whose turn it is.
    pub(super) fn current(&self) -> Option<&Remote> {
        self.list.get(self.current).map(|known| &known.remote)
    }

    /// How long to wait for a first packet: as configured, and not for long when there is somewhere
    /// else to go.
    pub(super) fn patience(&self) -> Option<Duration> {
        let other = self.list.len() > 1 || !self.untried.is_empty();
        let configured = self.current().and_then(|remote| remote.connect_timeout);
        configured.or(other.then_some(SILENCE))
    }

    /// The next thing to try.
    pub(super) fn next(&mut self) -> Next {
        match self.again.take().or_else(|| self.untried.pop_front()) {
            Some(address) => Next::Connect(address),
            None => Next::Resolve,
        }
    }

    /// The answer to [`Next::Resolve`]; says whether there is anything to connect to.
    pub(super) fn resolved(&mut self, now: Instant, found: Vec<SocketAddr>) -> bool {
        let Some(known) = self.list.get_mut(self.current) else { return false };
        if !found.is_empty() {
            known.addresses = found.into_iter().take(MAX_ADDRESSES).collect();
        } else if !known.addresses.is_empty() {
            log::warn!("{} does not resolve; trying the addresses it had", known.remote.host);
        }
        self.untried = known.addresses.iter().copied().collect();
        if self.untried.is_empty() {
            let since = *self.unresolved_since.get_or_insert(now);
            self.looked_up = self.resolve_retry.is_none_or(|limit| now.since(since) >= limit);
        } else {
            self.unresolved_since = None;
            self.looked_up = true;
        }
        !self.untried.is_empty()
    }

    /// Leaves the addresses of the current name (server said so: `RESTART,[N]`).
    pub(super) fn skip_name(&mut self) {
        self.untried.clear();
        self.again = None;
        self.looked_up = true;
    }

    /// The same address next (server said so: `advance no`, or its token ran out).
    pub(super) fn stay(&mut self, address: SocketAddr) {
        self.again = Some(address);
    }

    /// A connection to `address` came up: when it ends that is tried once more, then the name.
    pub(super) fn succeeded(&mut self, address: SocketAddr) {
        self.rounds = 0;
        self.again = Some(address);
        self.untried.clear();
        self.looked_up = false;
    }

    /// An attempt failed or a connection ended; returns the pause before the next attempt.
    pub(super) fn failed(&mut self) -> Duration {
        let pause = self.current().and_then(|remote| remote.retry_pause).unwrap_or(PAUSE);
        let doublings = self.rounds.saturating_sub(PATIENT_ROUNDS - 1).min(16);
        if self.again.is_none() && self.untried.is_empty() && self.looked_up {
            self.advance();
        }
        (pause.0 * (1 << doublings)).min(pause.1.max(pause.0))
    }

    /// `connect-retry-max`: whether all remotes have been tried that often.
    pub(super) fn is_exhausted(&self) -> bool {
        self.retry_max.is_some_and(|most| self.rounds >= most)
    }

    fn advance(&mut self) {
        self.current = (self.current + 1).checked_rem(self.list.len()).unwrap_or(0);
        self.looked_up = false;
        self.unresolved_since = None;
        self.rounds = self.rounds.saturating_add(u32::from(self.current == 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(hosts: &[&str]) -> ClientRole {
        let remote = |host: &&str| Remote {
            host: (*host).to_owned(),
            port: 1194,
            family: None,
            float: false,
            exit_notify: 0,
            retry_pause: None,
            connect_timeout: None,
            mssfix: None,
            wrap: None,
        };
        ClientRole { remotes: hosts.iter().map(remote).collect(), ..ClientRole::default() }
    }

    const NOW: Instant = Instant::ZERO;

    fn at(number: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, number], 1194))
    }

    fn host(remotes: &Remotes) -> &str {
        &remotes.current().unwrap().host
    }

    #[test]
    fn tries_every_address_of_a_name_before_the_next_name() {
        let mut remotes = Remotes::new(&role(&["a", "b"]));
        assert_eq!((remotes.next(), host(&remotes)), (Next::Resolve, "a"));
        assert!(remotes.resolved(NOW, vec![at(1), at(2)]));
        assert_eq!(remotes.next(), Next::Connect(at(1)));
        remotes.failed();
        assert_eq!(remotes.next(), Next::Connect(at(2)));
        remotes.failed();
        assert_eq!((remotes.next(), host(&remotes)), (Next::Resolve, "b"));
        assert!(!remotes.resolved(NOW, Vec::new()));
        remotes.failed();
        assert_eq!((remotes.next(), host(&remotes)), (Next::Resolve, "a"));
        assert!(remotes.resolved(NOW, Vec::new()), "the addresses it had");
        assert_eq!(remotes.next(), Next::Connect(at(1)));
    }

    #[test]
    fn a_connection_that_worked_is_retried_once_and_its_name_looked_up_again() {
        let mut remotes = Remotes::new(&role(&["a", "b"]));
        remotes.resolved(NOW, vec![at(1), at(2)]);
        assert_eq!(remotes.next(), Next::Connect(at(1)));
        remotes.succeeded(at(1));
        remotes.failed();
        assert_eq!(remotes.next(), Next::Connect(at(1)));
        remotes.failed();
        assert_eq!((remotes.next(), host(&remotes)), (Next::Resolve, "a"));
        remotes.resolved(NOW, vec![at(9)]);
        assert_eq!(remotes.next(), Next::Connect(at(9)));
        remotes.failed();
        assert_eq!((remotes.next(), host(&remotes)), (Next::Resolve, "b"));
    }

    #[test]
    fn nobody_waits_long_while_there_is_another_way() {
        let mut remotes = Remotes::new(&role(&["a"]));
        assert_eq!(remotes.patience(), None);
        remotes.resolved(NOW, vec![at(1), at(2)]);
        remotes.next();
        assert_eq!(remotes.patience(), Some(SILENCE));
        remotes.next();
        assert_eq!(remotes.patience(), None, "the last one");
        let mut two = role(&["a", "b"]);
        assert_eq!(Remotes::new(&two).patience(), Some(SILENCE));
        two.remotes[0].connect_timeout = Some(Duration::from_secs(99));
        assert_eq!(Remotes::new(&two).patience(), Some(Duration::from_secs(99)));
    }

    #[test]
    fn the_server_decides_where_to_go_on() {
        let mut remotes = Remotes::new(&role(&["a", "b"]));
        remotes.resolved(NOW, vec![at(1), at(2)]);
        assert_eq!(remotes.next(), Next::Connect(at(1)));
        remotes.stay(at(1));
        remotes.failed();
        assert_eq!(remotes.next(), Next::Connect(at(1)));
        remotes.skip_name();
        remotes.failed();
        assert_eq!((remotes.next(), host(&remotes)), (Next::Resolve, "b"));
    }

    #[test]
    fn resolv_retry_stays_with_a_name_for_its_time() {
        let mut role = role(&["a", "b"]);
        role.resolve_retry = Some(Duration::from_secs(10));
        let mut remotes = Remotes::new(&role);
        for second in [0, 5] {
            assert!(!remotes.resolved(Instant::from_millis(second * 1000), Vec::new()));
            remotes.failed();
            assert_eq!(host(&remotes), "a", "after {second} s");
        }
        remotes.resolved(Instant::from_millis(10_000), Vec::new());
        remotes.failed();
        assert_eq!(host(&remotes), "b");
    }

    #[test]
    fn the_pause_doubles_only_after_patient_rounds_and_is_capped() {
        let mut remotes = Remotes::new(&role(&["a", "b"]));
        let fail = |remotes: &mut Remotes| {
            remotes.resolved(NOW, Vec::new());
            remotes.failed().as_secs()
        };
        let pauses: Vec<u64> = (0..40).map(|_| fail(&mut remotes)).collect();
        assert!(pauses[..10].iter().all(|pause| *pause == 1), "{pauses:?}");
        assert_eq!(pauses[10], 2);
        assert_eq!(pauses[39], 300);
        remotes.succeeded(at(1));
        assert_eq!(fail(&mut remotes), 1);
    }

    #[test]
    fn the_configured_pause_and_its_limit() {
        let mut role = role(&["a"]);
        role.remotes[0].retry_pause = Some((Duration::from_secs(4), Duration::from_secs(9)));
        let mut remotes = Remotes::new(&role);
        let pauses: Vec<u64> = (0..8)
            .map(|_| {
                remotes.resolved(NOW, Vec::new());
                remotes.failed().as_secs()
            })
            .collect();
        assert_eq!(pauses, [4, 4, 4, 4, 4, 8, 9, 9]);
    }

    #[test]
    fn connect_retry_max_counts_rounds() {
        let mut role = role(&["a", "b"]);
        role.retry_max = Some(2);
        let mut remotes = Remotes::new(&role);
        for attempt in 0..4 {
            assert!(!remotes.is_exhausted(), "{attempt}");
            remotes.resolved(NOW, Vec::new());
            remotes.failed();
        }
        assert!(remotes.is_exhausted());
    }

    #[test]
    fn shuffling_keeps_every_remote() {
        let names = ["a", "b", "c", "d", "e"];
        let mut remotes = Remotes::new(&role(&names));
        let mut state = 1_u8;
        remotes.shuffle(&mut |out: &mut [u8]| {
            state = state.wrapping_mul(29).wrapping_add(7);
            out.fill(state);
        });
        let mut hosts: Vec<String> = remotes.list.iter().map(|k| k.remote.host.clone()).collect();
        assert_ne!(hosts, names);
        hosts.sort();
        assert_eq!(hosts, names);
    }
}
