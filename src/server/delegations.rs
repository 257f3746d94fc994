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
//! a client's file says (`iroute-ipv6`) is nobody else's.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use sha2::{Digest as _, Sha256};

use crate::config::Delegate;

/// The parts of a prefix, and whose they are.
pub(super) struct Delegations {
    pool: Ipv6Net,
    bits: u8,
    taken: BTreeMap<u32, String>,
    /// Networks of per-client files.
    fixed: Vec<Ipv6Net>,
}

impl Delegations {
    /// Nobody has any.
    pub(super) fn new(delegate: &Delegate) -> Self {
        let Delegate { pool, bits, .. } = *delegate;
        Self { pool, bits, taken: BTreeMap::new(), fixed: Vec::new() }
    }

    /// How many parts there are.
    fn count(&self) -> u32 {
        1 << self.bits.saturating_sub(self.pool.prefix_len()).min(16)
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

    /// The part of `name`, and whether it is a new one; `None` when all are taken.
    pub(super) fn give(&mut self, name: &str) -> Option<(Ipv6Net, bool)> {
        let own = self.taken.iter().find(|(_, owner)| *owner == name).map(|(number, _)| *number);
        if let Some(number) = own {
            if let Some(part) = self.usable(number) {
                return Some((part, false));
            }
            // A file has it by now.
            self.taken.remove(&number);
        }
        let others = self.count().checked_sub(1).filter(|others| *others > 0)?;
        let digest = Sha256::digest(name);
        let start = digest.first_chunk().map_or(0, |b| u32::from_be_bytes(*b)) % others;
        let numbers = (start..others).chain(0..start).map(|number| number + 1);
        let (number, part) = numbers
            .filter(|number| !self.taken.contains_key(number))
            .find_map(|number| Some((number, self.usable(number)?)))?;
        self.taken.insert(number, name.to_owned());
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
        let number =
            (net.network().to_bits().checked_shr(shift)? % u128::from(self.count())) as u32;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn new(pool: &str, bits: u8) -> Delegations {
        Delegations::new(&Delegate { pool: pool.parse().unwrap(), bits, file: None })
    }

    fn net(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_keeps_its_part_and_nobody_shares_one() {
        let mut all = new("fd00:d::/48", 60);
        let (office, fresh) = all.give("office").unwrap();
        assert!(fresh && office.prefix_len() == 60 && net("fd00:d::/48").contains(&office));
        assert_eq!(all.give("office"), Some((office, false)));
        let mut seen = vec![office];
        for n in 0..300 {
            let (part, _) = all.give(&format!("c{n}")).unwrap();
            assert!(!seen.contains(&part) && part != net("fd00:d::/60"));
            seen.push(part);
        }
        // By the file, and without it.
        let mut again = new("fd00:d::/48", 60);
        assert_eq!(again.import(all.export().as_bytes()), [0; 0]);
        assert_eq!(again.give("c299"), Some((*seen.last().unwrap(), false)));
        assert_eq!(new("fd00:d::/48", 60).give("office").unwrap().0, office);
        // In another prefix: the same number.
        let mut moved = new("2001:db8:d::/48", 60);
        moved.import(all.export().as_bytes());
        let (part, _) = moved.give("office").unwrap();
        assert!(net("2001:db8:d::/48").contains(&part));
        assert_eq!(part.network().to_bits() << 48, office.network().to_bits() << 48);
    }

    #[test]
    fn files_come_first_and_full_is_full() {
        let mut few = new("fd00:d::/62", 64);
        let names = ["a", "b", "c"];
        let parts: Vec<_> = names.iter().filter_map(|name| few.give(name)).collect();
        assert_eq!((parts.len(), few.give("d")), (3, None));
        few.keep_clear(parts[0].0);
        few.keep_clear(net("fd00:ffff::/64"));
        assert_eq!(few.give("a"), None, "a file has it now");
        few.forget_files();
        assert_eq!(few.give("a"), Some((parts[0].0, true)));
        assert_eq!(new("fd00:d::/64", 64).give("a"), None);
    }

    #[test]
    fn damaged_lines_cost_nobody_else() {
        let mut all = new("fd00:d::/48", 60);
        let file = b"# comment\na,fd00:d:0:10::/60\n\nb\nc,fd00:d:0:20::/64\n,fd00:d:0:30::/60\n\xff\nd,fd00:d:0:10::/60\na,fd00:d:0:50::/60\ne,fd00:d::/60\nf,g,fd00:d:0:40::/60";
        assert_eq!(all.import(file), [4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(all.export(), "a,fd00:d:0:10::/60\nf,g,fd00:d:0:40::/60\n");
    }
}
