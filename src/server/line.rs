//! The prefixes of clients' addresses where they follow the line (`server-ipv6 auto`).
//!
//! ```text
//! fd12:…:34::/64      ours, always there            a client's lease names this address of it
//! 2001:db8:1:2::/64   the line's, preferred         what it is told: the same host part in here
//! 2001:db8:7:8::/64   the line's until yesterday    still routed while it is valid
//!
//! fd9a:…:40::/60      a part of `delegate-ipv6 auto 60`, always there: a client's network
//! 2001:db8:1:40::/60  the same part of 2001:db8:1::/56, which is what the client is told
//! ```
//!
//! Tables, leases and fixed addresses know clients by their address in the stable prefix alone;
//! each packet's address is brought into that form. So nothing in the tables has to change with
//! the line, nothing stale can stay in them, and no prefix leads to two clients.
//!
//! Whose is what on the device: the configured addresses are ours; we put them there, and again if
//! somebody takes them away. Every other global address is somebody's (netifd's, mostly) who was
//! given its prefix for us, and is left alone. What that looks like at the moment is the shell's
//! news ([`Reply::Prefixes`](crate::engine::Reply)).

use core::time::Duration;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::Ipv6Net;

use crate::config::Delegate;
use crate::engine::LinePrefix;
use crate::limits::MAX_LINE_PREFIXES;
use crate::time::Instant;

/// A prefix that is gone while there is no other in its place mostly comes back, or another one
/// does, when the line is up again: clients are not renumbered twice for that.
const PATIENCE: Duration = Duration::from_secs(15);

/// The prefixes of the moment.
pub(super) struct Line {
    stable: Ipv6Net,
    /// `delegate-ipv6 auto`: what is cut up where nothing changes, and the length of the parts.
    parts: Option<(Ipv6Net, u8)>,
    /// What clients are told to use.
    current: Option<LinePrefix>,
    /// All that are valid, at most [`MAX_LINE_PREFIXES`].
    valid: Vec<LinePrefix>,
    /// When clients go without a global prefix.
    due: Option<Instant>,
}

impl Line {
    /// With the stable prefixes alone; `own` is our address in that of clients' addresses.
    pub(super) fn new(own: Ipv6Net, delegate: Option<&Delegate>) -> Self {
        let valid = Vec::with_capacity(MAX_LINE_PREFIXES);
        let parts = delegate.filter(|delegate| delegate.follows);
        let parts = parts.map(|delegate| (delegate.pool, delegate.bits));
        Self { stable: own, parts, current: None, valid, due: None }
    }

    /// Takes the news in; true when clients have another address from now on.
    pub(super) fn update(&mut self, now: Instant, mut prefixes: Vec<LinePrefix>) -> bool {
        prefixes.retain(|prefix| prefix.net != self.stable.trunc());
        // The most durable first, which decides when there are several; the rest by number, so that
        // the order of the news does not.
        prefixes.sort_by_key(|p| (core::cmp::Reverse(p.preferred), p.net, p.bits));
        prefixes.dedup_by_key(|prefix| prefix.net);
        let before = self.current;
        let found = |net| prefixes.iter().find(|prefix| prefix.net == net).copied();
        let stays = before.and_then(|current| found(current.net)).filter(LinePrefix::is_preferred);
        let best = prefixes.first().copied().filter(LinePrefix::is_preferred);
        match stays.or(best) {
            Some(prefix) => (self.current, self.due) = (Some(prefix), None),
            None if before.is_some() => _ = self.due.get_or_insert(now + PATIENCE),
            None => {}
        }
        let current = self.current.map(|current| current.net);
        // The current one is never among those that there is no room for.
        prefixes.sort_by_key(|prefix| Some(prefix.net) != current);
        if prefixes.len() > MAX_LINE_PREFIXES {
            log::warn!("more than {MAX_LINE_PREFIXES} prefixes at once: the rest is not routed");
            prefixes.truncate(MAX_LINE_PREFIXES);
        }
        // What is part of two prefixes would lead to two clients: the better one has it.
        for at in 1..prefixes.len() {
            let (better, rest) = prefixes.split_at_mut(at);
            if let Some(prefix) = rest.first_mut()
                && better.iter().any(|other| {
                    whole(other).contains(&prefix.net) || whole(prefix).contains(&other.net)
                })
            {
                prefix.bits = 64;
            }
        }
        self.valid = prefixes;
        let shape = |prefix: LinePrefix| (prefix.net, prefix.bits);
        before.map(shape) != self.current.map(shape)
    }

    /// When `expire` wants to be called.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Gives up a prefix that did not come back; true when clients have another address from now on.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let over = self.due.take_if(|due| *due <= now).is_some();
        over && self.current.take().is_some()
    }

    /// The global prefix that clients use, for the log.
    pub(super) fn current(&self) -> Option<Ipv6Net> {
        self.current.map(|prefix| prefix.net)
    }

    /// All global prefixes that lead to clients, the one they use first.
    pub(super) fn nets(&self) -> impl Iterator<Item = Ipv6Net> {
        let current = self.current();
        let others = self.valid.iter().map(|prefix| prefix.net);
        current.into_iter().chain(others.filter(move |net| Some(*net) != current))
    }

    /// An address as the tables have it: in the stable prefix if it is in any of ours.
    pub(super) fn canonical(&self, address: IpAddr) -> IpAddr {
        let IpAddr::V6(v6) = address else { return address };
        if self.valid.iter().any(|prefix| half(prefix.net.addr()) == half(v6)) {
            return join(self.stable, v6).into();
        }
        let Some((pool, _)) = self.parts else { return address };
        let inside = |prefix: &&LinePrefix| {
            let front = prefix.net.addr().to_bits() ^ v6.to_bits();
            self.has_parts(prefix) && front & !rest(prefix.bits) == 0
        };
        match self.valid.iter().find(inside) {
            Some(prefix) => {
                let bits = pool.network().to_bits() | v6.to_bits() & rest(prefix.bits);
                Ipv6Addr::from_bits(bits).into()
            }
            None => address,
        }
    }

    /// Whether there is more than one part of a prefix.
    fn has_parts(&self, prefix: &LinePrefix) -> bool {
        self.parts.is_some_and(|(pool, bits)| (pool.prefix_len()..bits).contains(&prefix.bits))
    }

    /// The prefix of the moment that parts are cut out of, if it is large enough for that.
    pub(super) fn room(&self) -> Option<Ipv6Net> {
        self.current.filter(|prefix| self.has_parts(prefix)).map(|prefix| whole(&prefix))
    }

    /// Whether the prefix of the moment should have parts and has none.
    pub(super) fn lacks_room(&self) -> bool {
        self.parts.is_some() && self.current.is_some() && self.room().is_none()
    }

    /// A client's part in a prefix of the line, unless that is too small for its number.
    fn part(&self, prefix: &LinePrefix, net: Ipv6Net) -> Option<Ipv6Net> {
        let (pool, _) = self.parts.filter(|(pool, _)| pool.contains(&net))?;
        let number = net.network().to_bits() ^ pool.network().to_bits();
        let fits = self.has_parts(prefix) && number & !rest(prefix.bits) == 0;
        let bits = prefix.net.network().to_bits() | number;
        let part = Ipv6Net::new(Ipv6Addr::from_bits(bits), net.prefix_len()).ok()?;
        // Clients' addresses are nobody's network.
        let free = !self.valid.iter().any(|other| part.contains(&other.net));
        (fits && free).then_some(part)
    }

    /// The network that a client with this one in the tables is told.
    pub(super) fn told_net(&self, net: Ipv6Net) -> Ipv6Net {
        self.current.and_then(|prefix| self.part(&prefix, net)).unwrap_or(net)
    }

    /// Every network in a prefix of the line that leads to the client with this one in the tables.
    pub(super) fn parts(&self, net: Ipv6Net) -> impl Iterator<Item = Ipv6Net> + use<'_> {
        self.valid.iter().filter_map(move |prefix| self.part(prefix, net))
    }

    /// The address that a client with this one in the tables is told, and our own beside it.
    pub(super) fn told(&self, address: Ipv6Addr) -> (Ipv6Addr, Ipv6Addr) {
        match self.current.filter(|_| self.stable.contains(&address)) {
            Some(prefix) => (join(prefix.net, address), prefix.own),
            None => (address, self.stable.addr()),
        }
    }

    /// Every address in a prefix of the line that leads to the client with this one in the tables.
    pub(super) fn faces(&self, address: Ipv6Addr) -> impl Iterator<Item = Ipv6Addr> + use<'_> {
        let ours = self.stable.contains(&address);
        let valid = self.valid.iter().filter(move |_| ours);
        valid.map(move |prefix| join(prefix.net, address))
    }

    /// Whether this is an address of ours in a prefix of the line.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.valid.iter().any(|prefix| address == prefix.own)
    }
}

const fn half(address: Ipv6Addr) -> u64 {
    (address.to_bits() >> 64) as u64
}

/// All of a prefix.
fn whole(prefix: &LinePrefix) -> Ipv6Net {
    Ipv6Net::new(prefix.net.addr(), prefix.bits).unwrap_or(prefix.net)
}

/// The bits behind a prefix of this length.
const fn rest(bits: u8) -> u128 {
    match u128::MAX.checked_shr(bits as u32) {
        Some(rest) => rest,
        None => 0,
    }
}

/// The host part of `address` in another /64.
const fn join(net: Ipv6Net, address: Ipv6Addr) -> Ipv6Addr {
    let (front, host) = (net.addr().to_bits() >> 64 << 64, address.to_bits() as u64 as u128);
    Ipv6Addr::from_bits(front | host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(net: &str, preferred: u32) -> LinePrefix {
        let net: Ipv6Net = net.parse().unwrap();
        let own = Ipv6Addr::from_bits(net.addr().to_bits() | 1);
        LinePrefix {
            net: Ipv6Net::new(net.addr(), 64).unwrap(),
            bits: net.prefix_len(),
            own,
            preferred,
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn line() -> Line {
        Line::new("fd00:6::1/64".parse().unwrap(), None)
    }

    const A: &str = "2001:db8:a::/64";
    const B: &str = "2001:db8:b::/64";

    #[test]
    fn old_and_new_prefix_lead_to_the_same_client() {
        let mut line = line();
        assert_eq!(line.told(ip("fd00:6::77")), (ip("fd00:6::77"), ip("fd00:6::1")));
        assert!(line.update(at(0), vec![prefix(A, 100)]));
        assert!(!line.update(at(0), vec![prefix(A, 50)]), "time alone changes nothing");
        assert_eq!(line.told(ip("fd00:6::77")), (ip("2001:db8:a::77"), ip("2001:db8:a::1")));
        assert!(!line.update(at(1), vec![prefix(A, 50), prefix(B, 100)]), "it stays while it can");
        assert!(line.update(at(1), vec![prefix(A, 0), prefix(B, 100)]));
        assert_eq!(line.told(ip("fd00:6::77")), (ip("2001:db8:b::77"), ip("2001:db8:b::1")));
        for address in ["fd00:6::77", "2001:db8:a::77", "2001:db8:b::77"] {
            assert_eq!(line.canonical(ip(address).into()), ip("fd00:6::77"), "{address}");
        }
        assert!(!line.update(at(2), vec![prefix(B, 100)]), "the old one's time is over");
        assert_eq!(line.canonical(ip("2001:db8:a::77").into()), ip("2001:db8:a::77"));
        assert_eq!(line.faces(ip("fd00:6::77")).collect::<Vec<_>>(), [ip("2001:db8:b::77")]);
        assert_eq!(line.faces(ip("fd00:7::77")).count(), 0, "an address from elsewhere");
        assert_eq!(line.told(ip("fd00:7::77")).0, ip("fd00:7::77"));
        assert!(
            line.is_own(ip("2001:db8:b::1").into()) && !line.is_own(ip("2001:db8:a::1").into())
        );
    }

    #[test]
    fn parts_of_longer_prefixes_have_a_stable_form() {
        let net = |text: &str| -> Ipv6Net { text.parse().unwrap() };
        let delegate = Delegate { pool: net("fd9a::/48"), follows: true, bits: 60, file: None };
        let mut line = Line::new("fd00:6::1/64".parse().unwrap(), Some(&delegate));
        let (second, tenth) = (net("fd9a:0:0:20::/60"), net("fd9a:0:0:a0::/60"));
        assert_eq!((line.told_net(second), line.room()), (second, None));
        assert!(!line.lacks_room(), "there is no line yet");
        assert!(line.update(at(0), vec![prefix("2001:db8:a::/56", 100)]));
        assert_eq!((line.room(), line.lacks_room()), (Some(net("2001:db8:a::/56")), false));
        assert_eq!(line.told_net(second), net("2001:db8:a:20::/60"));
        assert_eq!(line.told_net(tenth), net("2001:db8:a:a0::/60"));
        let canonical = |line: &Line, text: &str| line.canonical(ip(text).into());
        assert_eq!(canonical(&line, "2001:db8:a:2f::77"), ip("fd9a:0:0:2f::77"));
        assert_eq!(canonical(&line, "2001:db8:a::77"), ip("fd00:6::77"), "an address");
        assert_eq!(canonical(&line, "2001:db8:a:100::77"), ip("2001:db8:a:100::77"), "beyond");
        // A smaller one has no tenth part; the old one stays valid for a while.
        assert!(
            line.update(at(0), vec![prefix("2001:db8:a::/56", 0), prefix("2001:db8:b::/58", 9)])
        );
        assert_eq!(
            (line.told_net(second), line.told_net(tenth)),
            (net("2001:db8:b:20::/60"), tenth)
        );
        assert_eq!(line.parts(second).count(), 2);
        assert_eq!(line.parts(tenth).collect::<Vec<_>>(), [net("2001:db8:a:a0::/60")]);
        assert_eq!(canonical(&line, "2001:db8:b:20::1"), canonical(&line, "2001:db8:a:20::1"));
        // The same prefix, cut otherwise; and one without parts.
        assert!(line.update(at(0), vec![prefix("2001:db8:b::/56", 9)]));
        assert_eq!(line.told_net(tenth), net("2001:db8:b:a0::/60"));
        assert!(line.update(at(0), vec![prefix("2001:db8:c::/64", 9)]));
        assert_eq!((line.told_net(second), line.parts(second).count()), (second, 0));
        assert!(line.lacks_room());
        assert_eq!(line.told_net(net("fd00:77::/60")), net("fd00:77::/60"), "not one of ours");
        // Of two that overlap, one is cut up, around the addresses in the other.
        line.update(at(0), vec![prefix("2001:db8:d::/56", 9), prefix("2001:db8:d:20::/58", 0)]);
        assert_eq!(line.parts(tenth).collect::<Vec<_>>(), [net("2001:db8:d:a0::/60")]);
        assert_eq!((line.parts(second).count(), line.told_net(second)), (0, second));
        assert_eq!(canonical(&line, "2001:db8:d:20::77"), ip("fd00:6::77"));
        assert_eq!(canonical(&line, "2001:db8:d:30::77"), ip("fd9a:0:0:30::77"));
    }

    #[test]
    fn a_line_that_comes_back_renumbers_once() {
        let mut line = line();
        line.update(at(0), vec![prefix(A, 100)]);
        assert!(!line.update(at(1), vec![prefix(A, 0)]));
        assert!(!line.update(at(5), Vec::new()));
        assert_eq!(line.deadline(), Some(at(16)));
        assert!(!line.expire(at(15)));
        assert!(line.update(at(15), vec![prefix(B, 100)]));
        assert_eq!(line.deadline(), None);
        line.update(at(20), Vec::new());
        assert!(!line.update(at(21), vec![prefix(B, 9)]), "the same one again");
        line.update(at(30), vec![prefix(B, 0)]);
        assert!(line.expire(at(45)) && !line.expire(at(46)));
        assert_eq!(line.told(ip("fd00:6::77")).0, ip("fd00:6::77"));
        assert_eq!(line.canonical(ip("2001:db8:b::77").into()), ip("fd00:6::77"), "valid still");
    }

    #[test]
    fn too_many_prefixes_cost_the_oldest() {
        let mut line = line();
        let many: Vec<_> = (0..9).map(|n| prefix(&format!("2001:db8:{n}::/64"), n)).collect();
        line.update(at(0), many.clone());
        assert_eq!(line.current(), Some("2001:db8:8::/64".parse().unwrap()));
        let mut many = many;
        many.iter_mut().for_each(|prefix| prefix.preferred = 0);
        line.update(at(0), many);
        assert_eq!(line.valid.len(), MAX_LINE_PREFIXES);
        assert_eq!(line.told(ip("fd00:6::77")).0, ip("2001:db8:8::77"));
        assert_eq!(line.canonical(ip("2001:db8:8::77").into()), ip("fd00:6::77"));
        // Ours is never taken for one of the line.
        assert!(!line.update(at(0), vec![prefix("fd00:6::/64", 9)]));
    }
}
