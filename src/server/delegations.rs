//! Prefixes for whole networks (`delegate-ipv6`): each client with a network behind it has one of its
//! own, the same at every connect.
//!
//! ```text
//! delegate-ipv6 fd00:d::/48 60      4096 parts; the first stays with the server
//! office,fd00:d:0:30::/60           one line of the file for each name
//! ```
//!
//! A name starts looking at a place of its own, so that even without the file it mostly finds the
//! same part again. In another prefix of the same size everybody keeps the number of its part. What
//! a client's file says (`iroute-ipv6`) is nobody else's. When all parts are taken, one of a client
//! that is not connected is given away.
//!
//! With `auto`, the pool is a private one, and the prefix of the line may have room for a few parts
//! only (three, say): numbers are given out from the lowest, and one that the line has no room for is
//! exchanged at the next connect.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use sha2::{Digest as _, Sha256};

use crate::config::Delegate;
use crate::sorted::SortedMap;

/// The parts of a prefix, and whose they are.
pub(super) struct Delegations {
    pool: Ipv6Net,
    bits: u8,
    /// `auto`.
    follows: bool,
    /// How many parts can be used at the moment.
    room: u32,
    taken: SortedMap<u32, String>,
    /// Networks of per-client files.
    fixed: Vec<Ipv6Net>,
}

impl Delegations {
    /// Nobody has any.
    pub(super) fn new(delegate: &Delegate) -> Self {
        let Delegate { pool, follows, bits, .. } = *delegate;
        let (taken, fixed) = (SortedMap::new(), Vec::new());
        Self { pool, bits, follows, room: count(pool, bits), taken, fixed }
    }

    /// The prefix that is cut up has this length from now on; `None` if there is no such.
    pub(super) fn set_room(&mut self, room: Option<Ipv6Net>) {
        self.room = count(room.unwrap_or(self.pool), self.bits);
    }

    fn part(&self, number: u32) -> Option<Ipv6Net> {
        let shift = 128_u32.checked_sub(self.bits.into())?;
        let bits = self.pool.network().to_bits() | u128::from(number).checked_shl(shift)?;
        Ipv6Net::new(Ipv6Addr::from_bits(bits), self.bits).ok()
    }

    /// A network that a per-client file names: no part of it is given to anybody.
    pub(super) fn keep_clear(&mut self, net: Ipv6Net) {
        if self.overlaps(net, self.pool) && !self.fixed.contains(&net) {
            self.fixed.push(net);
        }
    }

    /// Forgets what files have said, before they say it again.
    pub(super) fn forget_files(&mut self) {
        self.fixed.clear();
    }

    fn overlaps(&self, a: Ipv6Net, b: Ipv6Net) -> bool {
        a.contains(&b) || b.contains(&a)
    }

    fn usable(&self, number: u32) -> Option<Ipv6Net> {
        let part = self.part(number)?;
        self.fixed.iter().all(|fixed| !self.overlaps(*fixed, part)).then_some(part)
    }

    fn number_of(&self, name: &str) -> Option<u32> {
        self.taken.iter().find(|(_, owner)| *owner == name).map(|(number, _)| *number)
    }

    /// The number that `name` is to have in place of its own, if that is none or not a good one.
    /// `busy` says who is connected.
    pub(super) fn better(&self, name: &str, busy: &dyn Fn(&str) -> bool) -> Option<u32> {
        let own = self.number_of(name).filter(|number| self.usable(*number).is_some());
        if own.is_some_and(|number| number < self.room) {
            return None;
        }
        let all = count(self.pool, self.bits);
        // Better one without room than none.
        let within = |most: u32| self.choose(name, most, busy);
        within(self.room).or_else(|| within(all).filter(|_| own.is_none()))
    }

    fn choose(&self, name: &str, most: u32, busy: &dyn Fn(&str) -> bool) -> Option<u32> {
        let others = most.checked_sub(1).filter(|others| *others > 0)?;
        let digest = Sha256::digest(name);
        let start = match digest.first_chunk() {
            Some(bytes) if !self.follows => u32::from_be_bytes(*bytes) % others,
            Some(_) | None => 0,
        };
        let mut usable = (start..others)
            .chain(0..start)
            .map(|number| number + 1)
            .filter(|number| self.usable(*number).is_some());
        let free = usable.clone().find(|number| !self.taken.contains_key(number));
        free.or_else(|| usable.find(|number| self.taken.get(number).is_some_and(|o| !busy(o))))
    }

    /// The part of `name`, and whether it is a new one; `None` when all are taken.
    pub(super) fn give(
        &mut self,
        name: &str,
        busy: &dyn Fn(&str) -> bool,
    ) -> Option<(Ipv6Net, bool)> {
        let own = self.number_of(name);
        let Some(number) = self.better(name, busy) else {
            return Some((self.usable(own?)?, false));
        };
        let part = self.usable(number)?;
        // A file has it by now, or there is no room for it.
        own.into_iter().for_each(|own| _ = self.taken.remove(&own));
        if let Some(before) = self.taken.insert(number, name.to_owned()) {
            let (before, name) = (before.escape_debug(), name.escape_debug());
            log::info!("{part} was kept for '{before}' and is {name}'s now: all parts are taken");
        }
        Some((part, true))
    }

    /// The text of the file.
    pub(super) fn export(&self) -> String {
        let fits = |name: &str| !name.contains(char::is_control) && !name.starts_with('#');
        let rows = self.taken.iter().filter(|(_, name)| fits(name));
        let lines =
            rows.filter_map(|(number, name)| Some(format!("{name},{}\n", self.part(*number)?)));
        lines.collect()
    }

    /// Takes over what the file says; the lines that it could not use come back by number.
    pub(super) fn import(&mut self, file: &[u8]) -> Vec<usize> {
        let mut bad = Vec::new();
        for (at, line) in (1..).zip(file.split(|byte| *byte == b'\n')) {
            let text = core::str::from_utf8(line).unwrap_or(",").trim_end_matches('\r');
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            if self.import_line(text).is_none() {
                bad.push(at);
            }
        }
        bad
    }

    fn import_line(&mut self, line: &str) -> Option<()> {
        let (name, net) = line.rsplit_once(',').filter(|(name, _)| !name.is_empty())?;
        let net: Ipv6Net =
            net.parse().ok().filter(|net: &Ipv6Net| net.prefix_len() == self.bits)?;
        let shift = 128_u32.checked_sub(self.bits.into())?;
        let all = count(self.pool, self.bits);
        let number = (net.network().to_bits().checked_shr(shift)? % u128::from(all)) as u32;
        let known = number == 0
            || self.taken.contains_key(&number)
            || self.taken.values().any(|owner| owner == name);
        if known {
            return None;
        }
        self.taken.insert(number, name.to_owned());
        Some(())
    }
}

/// How many parts of this length a prefix has, as far as they are counted.
fn count(pool: Ipv6Net, bits: u8) -> u32 {
    1 << bits.saturating_sub(pool.prefix_len()).min(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(pool: &str, bits: u8) -> Delegations {
        let (pool, follows) = (pool.parse().unwrap(), false);
        Delegations::new(&Delegate { pool, follows, bits, file: None })
    }

    impl Delegations {
        /// While everybody is connected.
        fn give_one(&mut self, name: &str) -> Option<(Ipv6Net, bool)> {
            self.give(name, &|_| true)
        }
    }

    fn net(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_keeps_its_part_and_nobody_shares_one() {
        let mut all = new("fd00:d::/48", 60);
        let (office, fresh) = all.give_one("office").unwrap();
        assert!(fresh && office.prefix_len() == 60 && net("fd00:d::/48").contains(&office));
        assert_eq!(all.give_one("office"), Some((office, false)));
        let mut seen = vec![office];
        for n in 0..300 {
            let (part, _) = all.give_one(&format!("c{n}")).unwrap();
            assert!(!seen.contains(&part) && part != net("fd00:d::/60"));
            seen.push(part);
        }
        // By the file, and without it.
        let mut again = new("fd00:d::/48", 60);
        assert_eq!(again.import(all.export().as_bytes()), [0; 0]);
        assert_eq!(again.give_one("c299"), Some((*seen.last().unwrap(), false)));
        assert_eq!(new("fd00:d::/48", 60).give_one("office").unwrap().0, office);
        // In another prefix: the same number.
        let mut moved = new("2001:db8:d::/48", 60);
        moved.import(all.export().as_bytes());
        let (part, _) = moved.give_one("office").unwrap();
        assert!(net("2001:db8:d::/48").contains(&part));
        assert_eq!(part.network().to_bits() << 48, office.network().to_bits() << 48);
    }

    #[test]
    fn files_come_first_and_full_is_full() {
        let mut few = new("fd00:d::/62", 64);
        let names = ["a", "b", "c"];
        let parts: Vec<_> = names.iter().filter_map(|name| few.give_one(name)).collect();
        assert_eq!((parts.len(), few.give_one("d")), (3, None));
        few.keep_clear(parts[0].0);
        few.keep_clear(net("fd00:ffff::/64"));
        assert_eq!(few.give_one("a"), None, "a file has it now");
        few.forget_files();
        assert_eq!(few.give_one("a"), Some((parts[0].0, false)));
        assert_eq!(new("fd00:d::/64", 64).give_one("a"), None);
        // Who is not connected makes room.
        let (c, _) = few.give_one("c").unwrap();
        assert_eq!(few.give("d", &|name| name != "c"), Some((c, true)));
        assert_eq!(few.give_one("c"), None);
    }

    #[test]
    fn a_line_with_little_room_has_the_lowest_numbers() {
        let pool = net("fd9a::/48");
        let delegate = Delegate { pool, follows: true, bits: 60, file: None };
        let mut all = Delegations::new(&delegate);
        let part = |number: u128| {
            let bits = pool.network().to_bits() | number << 68;
            Some((Ipv6Net::new(Ipv6Addr::from_bits(bits), 60).unwrap(), true))
        };
        let same = |part: Option<(Ipv6Net, bool)>| part.map(|(net, _)| (net, false));
        for (number, name) in (1..).zip(["a", "b", "c", "d"]) {
            assert_eq!(all.give_one(name), part(number), "no line yet");
        }
        // A /58 has three beside the server's own.
        all.set_room(Some(net("2001:db8:a::/58")));
        assert_eq!(all.give_one("c"), same(part(3)));
        assert_eq!((all.better("d", &|_| true), all.give_one("d")), (None, same(part(4))));
        assert_eq!(all.better("d", &|name| name != "b"), Some(2));
        assert_eq!(all.give("d", &|name| name != "b"), part(2));
        assert_eq!(all.give_one("b"), part(4), "the private one alone");
        all.set_room(None);
        assert_eq!(all.give_one("b"), same(part(4)));
        assert_eq!(all.give_one("e"), part(5));
    }

    #[test]
    fn damaged_lines_cost_nobody_else() {
        let mut all = new("fd00:d::/48", 60);
        let file = b"# comment\na,fd00:d:0:10::/60\n\nb\nc,fd00:d:0:20::/64\n,fd00:d:0:30::/60\n\xff\nd,fd00:d:0:10::/60\na,fd00:d:0:50::/60\ne,fd00:d::/60\nf,g,fd00:d:0:40::/60";
        assert_eq!(all.import(file), [4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(all.export(), "a,fd00:d:0:10::/60\nf,g,fd00:d:0:40::/60\n");
    }
}
