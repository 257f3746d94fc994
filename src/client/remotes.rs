//! Which server address is tried next, and after which pause [10.1].
//!
//! Every resolved address of a `remote` is tried before the next `remote`; names are resolved anew
//! each time their turn comes, as home servers move. The pause between attempts starts at one
//! second and doubles, after five rounds over all remotes, up to five minutes. Resolving is
//! the shell's business.

use core::time::Duration;
use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::config::Remote;
use crate::random::Random;

/// First and largest pause between attempts (`connect-retry 1 300`), unless configured.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Rounds over all remotes before the pause starts to double.
const PATIENT_ROUNDS: u32 = 5;
/// Addresses of one name that are tried at most.
const MAX_ADDRESSES: usize = 16;

/// What to do for the next attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Look this remote up.
    Resolve(Remote),
    /// Connect to this address.
    Connect(SocketAddr),
}

/// The list and the place in it.
#[derive(Debug)]
pub(super) struct Remotes {
    list: Vec<Remote>,
    current: usize,
    addresses: VecDeque<SocketAddr>,
    failures: u32,
    pause: (Duration, Duration),
    /// A connection that worked is tried once more at the same address before moving on.
    last_good: Option<SocketAddr>,
}

impl Remotes {
    /// `list` must not be empty: the configuration checks that. `pause` is `connect-retry`.
    pub(super) fn new(list: Vec<Remote>, pause: Option<(Duration, Duration)>) -> Self {
        let pause = pause.unwrap_or(PAUSE);
        let (addresses, last_good) = (VecDeque::new(), None);
        Self { list, current: 0, addresses, failures: 0, pause, last_good }
    }

    /// `remote-random`: any order is as likely as any other (Fisher and Yates).
    pub(super) fn shuffle(&mut self, rng: &mut dyn Random) {
        for last in (1..self.list.len()).rev() {
            let bound = u32::try_from(last + 1).unwrap_or(u32::MAX);
            self.list.swap(last, rng.below(bound) as usize);
        }
    }

    /// The next thing to try; `None` only for an empty list.
    pub(super) fn next(&mut self) -> Option<Next> {
        if let Some(address) = self.last_good.take().or_else(|| self.addresses.pop_front()) {
            return Some(Next::Connect(address));
        }
        self.list.get(self.current).cloned().map(Next::Resolve)
    }

    /// The answer to [`Next::Resolve`]. Without addresses the turn passes to the next remote.
    pub(super) fn resolved(&mut self, addresses: Vec<SocketAddr>) {
        self.addresses = addresses.into_iter().take(MAX_ADDRESSES).collect();
        self.advance();
    }

    /// Leaves the addresses of the current name (server said so: `RESTART,[N]`).
    pub(super) fn skip_name(&mut self) {
        self.addresses.clear();
        self.last_good = None;
    }

    /// A connection to `address` came up.
    pub(super) fn succeeded(&mut self, address: SocketAddr) {
        self.failures = 0;
        self.last_good = Some(address);
    }

    /// An attempt failed or a connection ended; returns the pause before the next attempt.
    pub(super) fn failed(&mut self) -> Duration {
        let round = self.failures / u32::try_from(self.list.len().max(1)).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let doublings = round.saturating_sub(PATIENT_ROUNDS - 1).min(16);
        (self.pause.0 * (1 << doublings)).min(self.pause.1.max(self.pause.0))
    }

    fn advance(&mut self) {
        self.current = (self.current + 1).checked_rem(self.list.len()).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(host: &str) -> Remote {
        Remote { host: host.into(), port: 1194, family: None }
    }

    #[test]
    fn tries_every_address_of_a_name_before_the_next_name() {
        let mut remotes = Remotes::new(vec![remote("a"), remote("b")], None);
        let (one, two): (SocketAddr, SocketAddr) =
            ("192.0.2.1:1194".parse().unwrap(), "[2001:db8::1]:1194".parse().unwrap());
        assert_eq!(remotes.next(), Some(Next::Resolve(remote("a"))));
        remotes.resolved(vec![one, two]);
        assert_eq!(remotes.next(), Some(Next::Connect(one)));
        assert_eq!(remotes.next(), Some(Next::Connect(two)));
        assert_eq!(remotes.next(), Some(Next::Resolve(remote("b"))));
        remotes.resolved(Vec::new());
        assert_eq!(remotes.next(), Some(Next::Resolve(remote("a"))));
    }

    #[test]
    fn a_connection_that_worked_is_retried_once_at_the_same_address() {
        let mut remotes = Remotes::new(vec![remote("a"), remote("b")], None);
        let one: SocketAddr = "192.0.2.1:1194".parse().unwrap();
        remotes.resolved(vec![one]);
        assert_eq!(remotes.next(), Some(Next::Connect(one)));
        remotes.succeeded(one);
        assert_eq!(remotes.next(), Some(Next::Connect(one)));
        assert_eq!(remotes.next(), Some(Next::Resolve(remote("b"))));
    }

    #[test]
    fn the_pause_doubles_only_after_patient_rounds_and_is_capped() {
        let mut remotes = Remotes::new(vec![remote("a"), remote("b")], None);
        let pauses: Vec<u64> = (0..40).map(|_| remotes.failed().as_secs()).collect();
        assert!(pauses[..10].iter().all(|pause| *pause == 1), "{pauses:?}");
        assert_eq!(pauses[10], 2);
        assert_eq!(pauses[39], 300);
        remotes.succeeded("192.0.2.1:1194".parse().unwrap());
        assert_eq!(remotes.failed().as_secs(), 1);
    }

    #[test]
    fn shuffling_keeps_every_remote() {
        let names = ["a", "b", "c", "d", "e"];
        let mut remotes = Remotes::new(names.map(remote).to_vec(), None);
        let mut state = 1_u8;
        remotes.shuffle(&mut |out: &mut [u8]| {
            state = state.wrapping_mul(29).wrapping_add(7);
            out.fill(state);
        });
        let mut hosts: Vec<String> = remotes.list.iter().map(|r| r.host.clone()).collect();
        assert_ne!(hosts, names);
        hosts.sort();
        assert_eq!(hosts, names);
    }
}
