//! Tunnel addresses: leases of IPv4 and IPv6, each family on its own [9.1, 9.3].
//!
//! One family running out (or not being configured) never costs a client the other; stock servers
//! tie both to one index. A name gets the address back that it had last. Writing the leases to a
//! file and reading them back is the caller's business, through [`Pools::export`] and
//! [`Pools::import`].

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// Most addresses in an IPv6 pool [9.1].
const MAX_V6_POOL: u32 = 65_536;
/// Host part of the first IPv6 lease in a prefix with room to spare, and in a narrow one [9.1].
const WIDE_START: u128 = 0x1000;
const NARROW_START: u128 = 2;
/// Prefixes of this length and longer are narrow.
const NARROW: u8 = 112;

/// What a client got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lease {
    /// IPv4 address, unless there is no such pool or it is full.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 address, unless there is no such pool or it is full.
    pub v6: Option<Ipv6Addr>,
}

impl Lease {
    /// Whether the client got nothing at all.
    pub const fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }
}

/// The addresses a name had last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Common name.
    pub name: String,
    /// What it had or has.
    pub lease: Lease,
}

/// Why a remembered address was not taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportError {
    /// It lies outside of the pool, or there is no pool of that family.
    OutOfRange,
    /// Somebody else has it.
    Taken,
}

/// Both pools of a server.
#[derive(Debug, Default)]
pub struct Pools {
    v4: Option<(Ipv4Addr, Slots)>,
    v6: Option<(Ipv6Addr, Slots)>,
    changed: bool,
}

impl Pools {
    /// The pools that `server` and `server-ipv6` stand for in `topology subnet`: everything behind
    /// the server's own address. `remember` bounds how many names of gone clients are kept.
    pub fn new(v4: Option<Ipv4Net>, v6: Option<Ipv6Net>, remember: usize) -> Self {
        let v4 = v4.map(|net| {
            let first = net.network().to_bits().saturating_add(2);
            let size = net.broadcast().to_bits().saturating_sub(first);
            (Ipv4Addr::from_bits(first), Slots::new(size, remember))
        });
        let v6 = v6.map(|net| {
            let start = if net.prefix_len() < NARROW { WIDE_START } else { NARROW_START };
            let first = net.network().to_bits().saturating_add(start);
            let room = (net.broadcast().to_bits().saturating_sub(first)).saturating_add(1);
            let size = u32::try_from(room).unwrap_or(MAX_V6_POOL).min(MAX_V6_POOL);
            (Ipv6Addr::from_bits(first), Slots::new(size, remember))
        });
        Self { v4, v6, changed: false }
    }

    /// Leases an address of each family to `name`; `sticky` prefers what it had last (not with
    /// `duplicate-cn`, where a name is not one client).
    pub fn lease(&mut self, name: &str, sticky: bool) -> Lease {
        self.changed = true;
        let v4 = self.v4.as_mut().and_then(|(first, slots)| {
            let at = slots.take(name, sticky)?;
            Some(Ipv4Addr::from_bits(first.to_bits() + at))
        });
        let v6 = self.v6.as_mut().and_then(|(first, slots)| {
            let at = slots.take(name, sticky)?;
            Some(Ipv6Addr::from_bits(first.to_bits() + u128::from(at)))
        });
        Lease { v4, v6 }
    }

    /// Gives a lease back; its name stays with it until somebody else needs the address.
    pub fn release(&mut self, lease: Lease) {
        if let Some((at, slots)) = self.at_v4(lease.v4) {
            slots.release(at);
        }
        if let Some((at, slots)) = self.at_v6(lease.v6) {
            slots.release(at);
        }
    }

    /// All names with their addresses, by name.
    pub fn export(&self) -> Vec<Remembered> {
        let mut names: BTreeMap<&str, Vec<Lease>> = BTreeMap::new();
        if let Some((first, slots)) = &self.v4 {
            for (at, slot) in &slots.used {
                let v4 = Some(Ipv4Addr::from_bits(first.to_bits() + at));
                names.entry(&slot.name).or_default().push(Lease { v4, v6: None });
            }
        }
        if let Some((first, slots)) = &self.v6 {
            for (at, slot) in &slots.used {
                let v6 = Some(Ipv6Addr::from_bits(first.to_bits() + u128::from(*at)));
                let leases = names.entry(&slot.name).or_default();
                match leases.iter_mut().find(|lease| lease.v6.is_none()) {
                    Some(lease) => lease.v6 = v6,
                    None => leases.push(Lease { v4: None, v6 }),
                }
            }
        }
        let rows = names.into_iter().flat_map(|(name, leases)| {
            leases.into_iter().map(|lease| Remembered { name: name.to_owned(), lease })
        });
        rows.collect()
    }

    /// Takes over an address from an earlier run as released; each family stands on its own.
    pub fn import(
        &mut self,
        entry: &Remembered,
    ) -> (Result<(), ImportError>, Result<(), ImportError>) {
        let v4 = entry.lease.v4.map_or(Ok(()), |_| {
            let (at, slots) = self.at_v4(entry.lease.v4).ok_or(ImportError::OutOfRange)?;
            slots.import(at, &entry.name)
        });
        let v6 = entry.lease.v6.map_or(Ok(()), |_| {
            let (at, slots) = self.at_v6(entry.lease.v6).ok_or(ImportError::OutOfRange)?;
            slots.import(at, &entry.name)
        });
        (v4, v6)
    }

    /// Whether leases were made since the last call: only then is there anything to write.
    pub fn take_changed(&mut self) -> bool {
        core::mem::take(&mut self.changed)
    }

    fn at_v4(&mut self, address: Option<Ipv4Addr>) -> Option<(u32, &mut Slots)> {
        let (first, slots) = self.v4.as_mut()?;
        let at = address?.to_bits().checked_sub(first.to_bits())?;
        (at < slots.size).then_some((at, slots))
    }

    fn at_v6(&mut self, address: Option<Ipv6Addr>) -> Option<(u32, &mut Slots)> {
        let (first, slots) = self.v6.as_mut()?;
        let at = u32::try_from(address?.to_bits().checked_sub(first.to_bits())?).ok()?;
        (at < slots.size).then_some((at, slots))
    }
}

#[derive(Debug)]
struct Slot {
    name: String,
    /// `None` while it is held; else a count that is lower the longer ago it was released.
    released: Option<u32>,
}

/// One family's addresses by index; only those that were ever used take memory.
#[derive(Debug)]
struct Slots {
    size: u32,
    used: BTreeMap<u32, Slot>,
    remember: usize,
    releases: u32,
}

impl Slots {
    const fn new(size: u32, remember: usize) -> Self {
        Self { size, used: BTreeMap::new(), remember, releases: 0 }
    }

    /// The name's last address; else one never used; else the one released longest ago [9.3].
    /// Not sticky: the lowest free one.
    fn take(&mut self, name: &str, sticky: bool) -> Option<u32> {
        let unused = self.first_unused();
        let at = if sticky {
            let fresh = unused.filter(|_| self.used.len() < self.remember);
            self.last_of(name).or(fresh).or_else(|| self.oldest()).or(unused)
        } else {
            let free = self.used.iter().find(|(_, slot)| slot.released.is_some());
            [free.map(|(at, _)| *at), unused].into_iter().flatten().min()
        }?;
        self.used.insert(at, Slot { name: name.to_owned(), released: None });
        Some(at)
    }

    fn release(&mut self, at: u32) {
        self.releases = self.releases.saturating_add(1);
        let count = self.releases;
        if let Some(slot) = self.used.get_mut(&at) {
            slot.released = Some(count);
        }
    }

    fn import(&mut self, at: u32, name: &str) -> Result<(), ImportError> {
        if self.used.contains_key(&at) || self.last_of(name).is_some() {
            return Err(ImportError::Taken);
        }
        self.used.insert(at, Slot { name: name.to_owned(), released: Some(0) });
        Ok(())
    }

    fn last_of(&self, name: &str) -> Option<u32> {
        let mut own = self.used.iter().filter(|(_, slot)| slot.name == name);
        own.find(|(_, slot)| slot.released.is_some()).map(|(at, _)| *at)
    }

    fn oldest(&self) -> Option<u32> {
        let free = self.used.iter().filter_map(|(at, slot)| Some((slot.released?, *at)));
        free.min().map(|(_, at)| at)
    }

    fn first_unused(&self) -> Option<u32> {
        let gap = (0..self.size).zip(self.used.keys()).find(|(at, used)| at != *used);
        let at = gap.map_or(self.used.len() as u32, |(at, _)| at);
        (at < self.size).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(v4: &str, v6: &str) -> Pools {
        Pools::new(v4.parse().ok(), v6.parse().ok(), 100)
    }

    #[test]
    fn leases_start_where_stock_servers_start_them() {
        let first = |v4: &str, v6: &str| pools(v4, v6).lease("a", true);
        let lease = first("10.8.0.0/24", "2001:db8::/64");
        assert_eq!(lease.v4, Some(Ipv4Addr::new(10, 8, 0, 2)));
        assert_eq!(lease.v6, "2001:db8::1000".parse().ok());
        assert_eq!(first("", "2001:db8::/112").v6, "2001:db8::2".parse().ok());
        assert_eq!(first("", "2001:db8::/111").v6, "2001:db8::1000".parse().ok());
    }

    #[test]
    fn a_full_family_does_not_cost_the_other() {
        let mut pools = pools("10.8.0.0/29", "2001:db8::/124");
        let leases: Vec<_> = (0..16).map(|n| pools.lease(&format!("c{n}"), true)).collect();
        assert_eq!(leases[4].v4, Some(Ipv4Addr::new(10, 8, 0, 6)), "the last before broadcast");
        assert_eq!(leases.iter().filter(|lease| lease.v4.is_some()).count(), 5);
        assert_eq!(leases[13].v6, "2001:db8::f".parse().ok(), "IPv6 has no broadcast address");
        assert_eq!(leases.iter().filter(|lease| lease.v6.is_some()).count(), 14);
        assert!(leases[15].is_empty());
        let only_v6 = Pools::new(None, "fd00::/64".parse().ok(), 10).lease("a", true);
        assert!(only_v6.v4.is_none() && only_v6.v6.is_some());
    }

    #[test]
    fn a_name_comes_back_to_its_addresses() {
        let mut pools = pools("10.8.0.0/29", "fd00::/64");
        let first = pools.lease("one", true);
        let second = pools.lease("two", true);
        pools.release(first);
        pools.release(second);
        assert_eq!(pools.lease("three", true).v4, Some(Ipv4Addr::new(10, 8, 0, 4)));
        assert_eq!(pools.lease("two", true), second);
        assert_eq!(pools.lease("one", true), first);
    }

    #[test]
    fn what_was_exported_is_what_the_next_run_leases() {
        let mut before = pools("10.8.0.0/24", "fd00::/64");
        let a = before.lease("a", true);
        let b = before.lease("b", true);
        before.release(a);
        let rows = before.export();
        assert_eq!(rows.len(), 2);
        let mut after = pools("10.8.0.0/24", "fd00::/64");
        for row in &rows {
            assert_eq!(after.import(row), (Ok(()), Ok(())));
        }
        assert_eq!(after.lease("b", true), b);
        assert_eq!(after.export(), rows);
        let taken = Remembered { name: "c".into(), lease: b };
        assert_eq!(after.import(&taken).0, Err(ImportError::Taken));
        let v4 = Some(Ipv4Addr::new(10, 8, 0, 1));
        let outside = Remembered { name: "c".into(), lease: Lease { v4, v6: None } };
        assert_eq!(after.import(&outside), (Err(ImportError::OutOfRange), Ok(())));
        assert!(after.take_changed() && !after.take_changed());
    }

    #[test]
    fn names_of_gone_clients_are_bounded() {
        let mut pools = Pools::new(None, "fd00::/64".parse().ok(), 8);
        for n in 0..100 {
            let lease = pools.lease(&format!("c{n}"), true);
            pools.release(lease);
        }
        assert_eq!(pools.export().len(), 8);
    }

    /// The obvious model: every address with its holder, last name and time of release.
    struct Slow(Vec<(bool, String, u32)>);

    impl Slow {
        fn take(&mut self, name: &str, sticky: bool) -> Option<usize> {
            let free = |entry: &&(usize, &(bool, String, u32))| !entry.1.0;
            let all: Vec<_> = self.0.iter().enumerate().collect();
            let own = all.iter().filter(free).find(|(_, e)| sticky && e.1 == name);
            let oldest = all.iter().filter(free).min_by_key(|(_, e)| if sticky { e.2 } else { 0 });
            let at = own.or(oldest)?.0;
            self.0[at] = (true, name.to_owned(), 0);
            Some(at)
        }
    }

    #[test]
    fn agrees_with_a_plain_list_under_random_use() {
        let mut state = 0x900d_5eed_u64;
        let mut next = move |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % bound
        };
        for sticky in [true, false] {
            let mut slots = Slots::new(12, 100);
            let mut model = Slow(vec![(false, String::new(), 0); 12]);
            let mut held = Vec::new();
            for round in 1..20_000 {
                if next(2) == 0 {
                    let name = format!("n{}", next(20));
                    let got = slots.take(&name, sticky);
                    assert_eq!(got.map(|at| at as usize), model.take(&name, sticky));
                    held.extend(got);
                } else if !held.is_empty() {
                    let at = held.swap_remove(next(held.len() as u64) as usize);
                    slots.release(at);
                    let entry = &mut model.0[at as usize];
                    (entry.0, entry.2) = (false, round);
                }
            }
        }
    }
}
