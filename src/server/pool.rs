//! Tunnel addresses: leases of IPv4 and IPv6, each family on its own [9.1, 9.3].
//!
//! One family running out (or not being configured) never costs a client the other; stock servers
//! tie both to one index. A name gets the address back that it had last, and an address that a
//! per-client file names is nobody else's [9.5]. Writing the leases to a file and reading them back
//! is `pool_file`'s, through [`Pools::export`] and [`Pools::import`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::{PoolV4, PoolV6};

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

    /// The addresses there are.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [self.v4.map(IpAddr::V4), self.v6.map(IpAddr::V6)].into_iter().flatten()
    }
}

/// The addresses a name had last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Common name.
    pub name: String,
    /// What it had or has; in `topology net30` the first address of its block [9.3].
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
    v4: Option<(PoolV4, Slots)>,
    v6: Option<(PoolV6, Slots)>,
    changed: bool,
}

impl Pools {
    /// All addresses free. `remember` bounds how many names of gone clients are kept.
    pub fn new(v4: Option<PoolV4>, v6: Option<PoolV6>, remember: usize) -> Self {
        Self {
            v4: v4.map(|pool| (pool, Slots::new(pool.count, remember))),
            v6: v6.map(|pool| (pool, Slots::new(pool.count, remember))),
            changed: false,
        }
    }

    /// Keeps an address for `name`: nobody else gets it from now on. What lies outside of the
    /// pools needs no keeping.
    pub fn reserve(&mut self, address: IpAddr, name: &str) {
        match address {
            IpAddr::V4(v4) => {
                if let Some((at, slots)) = self.at_v4(Some(v4)) {
                    slots.reserve(at, name);
                }
            }
            IpAddr::V6(v6) => {
                if let Some((at, slots)) = self.at_v6(Some(v6)) {
                    slots.reserve(at, name);
                }
            }
        }
    }

    /// Leases an address of each family to `name`: the one in `fixed`, which must not be leased to
    /// somebody else, or one of the pool. `sticky` prefers what it had last (not with
    /// `duplicate-cn`, where a name is not one client).
    pub fn lease(&mut self, name: &str, sticky: bool, fixed: Lease) -> Lease {
        self.changed = true;
        if let Some((at, slots)) = self.at_v4(fixed.v4) {
            slots.hold(at, name);
        }
        if let Some((at, slots)) = self.at_v6(fixed.v6) {
            slots.hold(at, name);
        }
        let from_v4 = self.v4.as_mut().filter(|_| fixed.v4.is_none());
        let from_v6 = self.v6.as_mut().filter(|_| fixed.v6.is_none());
        let v4 = from_v4.and_then(|(pool, slots)| Some(pool.address(slots.take(name, sticky)?).0));
        let v6 = from_v6.and_then(|(pool, slots)| Some(pool.address(slots.take(name, sticky)?)));
        Lease { v4: fixed.v4.or(v4), v6: fixed.v6.or(v6) }
    }

    /// Whether two addresses exclude each other: the same one, or of the same block of four.
    pub fn is_same_place(&self, a: IpAddr, b: IpAddr) -> bool {
        let index = |address| match (address, &self.v4) {
            (IpAddr::V4(v4), Some((pool, _))) => pool.index(v4),
            (IpAddr::V4(_), None) | (IpAddr::V6(_), _) => None,
        };
        a == b || index(a).is_some_and(|index_a| index(b) == Some(index_a))
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

    /// All names with the addresses they had from the pools, by name.
    pub fn export(&self) -> Vec<Remembered> {
        let mut names: BTreeMap<&str, Vec<Lease>> = BTreeMap::new();
        if let Some((pool, slots)) = &self.v4 {
            for (at, slot) in slots.dynamic() {
                let v4 = Some(pool.address(at).1);
                names.entry(&slot.name).or_default().push(Lease { v4, v6: None });
            }
        }
        if let Some((pool, slots)) = &self.v6 {
            for (at, slot) in slots.dynamic() {
                let v6 = Some(pool.address(at));
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

    /// Takes over an address from an earlier run as released; each family stands on its own. A
    /// `fixed` one is never given to anybody else.
    pub fn import(
        &mut self,
        entry: &Remembered,
        fixed: bool,
    ) -> (Result<(), ImportError>, Result<(), ImportError>) {
        let v4 = entry.lease.v4.map_or(Ok(()), |_| {
            let (at, slots) = self.at_v4(entry.lease.v4).ok_or(ImportError::OutOfRange)?;
            slots.import(at, &entry.name, fixed)
        });
        let v6 = entry.lease.v6.map_or(Ok(()), |_| {
            let (at, slots) = self.at_v6(entry.lease.v6).ok_or(ImportError::OutOfRange)?;
            slots.import(at, &entry.name, fixed)
        });
        (v4, v6)
    }

    /// Whether leases were made since the last call: only then is there anything to write.
    pub fn take_changed(&mut self) -> bool {
        core::mem::take(&mut self.changed)
    }

    fn at_v4(&mut self, address: Option<Ipv4Addr>) -> Option<(u32, &mut Slots)> {
        let (pool, slots) = self.v4.as_mut()?;
        Some((pool.index(address?)?, slots))
    }

    fn at_v6(&mut self, address: Option<Ipv6Addr>) -> Option<(u32, &mut Slots)> {
        let (pool, slots) = self.v6.as_mut()?;
        Some((pool.index(address?)?, slots))
    }
}

#[derive(Debug)]
struct Slot {
    name: String,
    /// `None` while it is held; else a count that is lower the longer ago it was released.
    released: Option<u32>,
    /// For this name only.
    reserved: bool,
    /// Nobody else gets it, by a file that is only read.
    fixed: bool,
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
        // Who asks for any address has none of its own any more, unless another connection of its
        // name is there right now.
        let own = self.used.values_mut().filter(|slot| slot.reserved && slot.name == name);
        own.filter(|slot| slot.released.is_some()).for_each(|slot| slot.reserved = false);
        let unused = self.first_unused();
        let at = if sticky {
            let fresh = unused.filter(|_| self.used.len() < self.remember);
            self.last_of(name).or(fresh).or_else(|| self.oldest()).or(unused)
        } else {
            let mut free =
                self.dynamic().filter(|(_, slot)| slot.released.is_some() && !slot.fixed);
            [free.next().map(|(at, _)| at), unused].into_iter().flatten().min()
        }?;
        self.put(at, name, None, false);
        Some(at)
    }

    /// Takes this very address, and keeps it for `name` afterwards.
    fn hold(&mut self, at: u32, name: &str) {
        self.put(at, name, None, true);
    }

    /// Whoever has an address, it stays fixed if it was.
    fn put(&mut self, at: u32, name: &str, released: Option<u32>, reserved: bool) {
        let fixed = self.used.get(&at).is_some_and(|slot| slot.fixed);
        self.used.insert(at, Slot { name: name.to_owned(), released, reserved, fixed });
    }

    /// Keeps an address for `name`; one that somebody holds stays with its holder until then.
    fn reserve(&mut self, at: u32, name: &str) {
        let held = self.used.get(&at).is_some_and(|slot| slot.released.is_none());
        if !held {
            self.put(at, name, Some(0), true);
        }
    }

    /// What is not reserved.
    fn dynamic(&self) -> impl Iterator<Item = (u32, &Slot)> {
        self.used.iter().filter(|(_, slot)| !slot.reserved).map(|(at, slot)| (*at, slot))
    }

    fn release(&mut self, at: u32) {
        self.releases = self.releases.saturating_add(1);
        let count = self.releases;
        if let Some(slot) = self.used.get_mut(&at) {
            slot.released = Some(count);
        }
    }

    fn import(&mut self, at: u32, name: &str, fixed: bool) -> Result<(), ImportError> {
        if self.used.contains_key(&at) || self.last_of(name).is_some() {
            return Err(ImportError::Taken);
        }
        let name = name.to_owned();
        self.used.insert(at, Slot { name, released: Some(0), reserved: false, fixed });
        Ok(())
    }

    fn last_of(&self, name: &str) -> Option<u32> {
        let mut own = self.dynamic().filter(|(_, slot)| slot.name == name);
        own.find(|(_, slot)| slot.released.is_some()).map(|(at, _)| at)
    }

    fn oldest(&self) -> Option<u32> {
        let free = self.dynamic().filter(|(_, slot)| !slot.fixed);
        let free = free.filter_map(|(at, slot)| Some((slot.released?, at)));
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
    use crate::config::Topology;

    fn pools(v4: &str, v6: &str) -> Pools {
        let v4 = v4.parse().ok().map(|net| PoolV4::of_network(net, Topology::Subnet));
        Pools::new(v4, v6.parse().ok().map(PoolV6::of_prefix), 100)
    }

    /// A lease of whatever is free.
    fn lease(pools: &mut Pools, name: &str) -> Lease {
        pools.lease(name, true, Lease::default())
    }

    #[test]
    fn leases_start_where_stock_servers_start_them() {
        let first = |v4: &str, v6: &str| lease(&mut pools(v4, v6), "a");
        let lease = first("10.8.0.0/24", "2001:db8::/64");
        assert_eq!(lease.v4, Some(Ipv4Addr::new(10, 8, 0, 2)));
        assert_eq!(lease.v6, "2001:db8::1000".parse().ok());
        assert_eq!(first("", "2001:db8::/112").v6, "2001:db8::2".parse().ok());
        assert_eq!(first("", "2001:db8::/111").v6, "2001:db8::1000".parse().ok());
    }

    #[test]
    fn a_full_family_does_not_cost_the_other() {
        let mut pools = pools("10.8.0.0/29", "2001:db8::/124");
        let leases: Vec<_> = (0..16).map(|n| lease(&mut pools, &format!("c{n}"))).collect();
        assert_eq!(leases[4].v4, Some(Ipv4Addr::new(10, 8, 0, 6)), "the last before broadcast");
        assert_eq!(leases.iter().filter(|lease| lease.v4.is_some()).count(), 5);
        assert_eq!(leases[13].v6, "2001:db8::f".parse().ok(), "IPv6 has no broadcast address");
        assert_eq!(leases.iter().filter(|lease| lease.v6.is_some()).count(), 14);
        assert!(leases[15].is_empty());
        let v6 = "fd00::/64".parse().ok().map(PoolV6::of_prefix);
        let only_v6 = lease(&mut Pools::new(None, v6, 10), "a");
        assert!(only_v6.v4.is_none() && only_v6.v6.is_some());
    }

    #[test]
    fn a_name_comes_back_to_its_addresses() {
        let mut pools = pools("10.8.0.0/29", "fd00::/64");
        let first = lease(&mut pools, "one");
        let second = lease(&mut pools, "two");
        pools.release(first);
        pools.release(second);
        assert_eq!(lease(&mut pools, "three").v4, Some(Ipv4Addr::new(10, 8, 0, 4)));
        assert_eq!(lease(&mut pools, "two"), second);
        assert_eq!(lease(&mut pools, "one"), first);
    }

    #[test]
    fn what_was_exported_is_what_the_next_run_leases() {
        let mut before = pools("10.8.0.0/24", "fd00::/64");
        let a = lease(&mut before, "a");
        let b = lease(&mut before, "b");
        before.release(a);
        let rows = before.export();
        assert_eq!(rows.len(), 2);
        let mut after = pools("10.8.0.0/24", "fd00::/64");
        for row in &rows {
            assert_eq!(after.import(row, false), (Ok(()), Ok(())));
        }
        assert_eq!(lease(&mut after, "b"), b);
        assert_eq!(after.export(), rows);
        let taken = Remembered { name: "c".into(), lease: b };
        assert_eq!(after.import(&taken, false).0, Err(ImportError::Taken));
        let v4 = Some(Ipv4Addr::new(10, 8, 0, 1));
        let outside = Remembered { name: "c".into(), lease: Lease { v4, v6: None } };
        assert_eq!(after.import(&outside, false), (Err(ImportError::OutOfRange), Ok(())));
        assert!(after.take_changed() && !after.take_changed());
    }

    #[test]
    fn a_reserved_address_is_nobody_elses() {
        let mut pools = pools("10.8.0.0/29", "fd00::/124");
        let v4 = |last| Some(Ipv4Addr::new(10, 8, 0, last));
        let own = Lease { v4: v4(3), v6: None };
        pools.reserve(IpAddr::V4(Ipv4Addr::new(10, 8, 0, 3)), "fixed");
        pools.reserve(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), "outside");
        let others: Vec<_> = (0..6).map(|n| lease(&mut pools, &format!("c{n}")).v4).collect();
        assert_eq!(others, [v4(2), v4(4), v4(5), v4(6), None, None]);
        let got = pools.lease("fixed", true, own);
        assert_eq!(got.v4, v4(3));
        assert!(got.v6.is_some(), "a fixed address of one family does not cost the other");
        pools.release(got);
        assert_eq!(lease(&mut pools, "c6").v4, None, "also not while its owner is away");
        assert!(pools.export().iter().all(|row| row.lease.v4 != v4(3)), "its file says so already");
        // Without its file it is a client like any other, and its address is free for all.
        assert_eq!(lease(&mut pools, "fixed").v4, v4(3));
        pools.release(own);
        assert_eq!(lease(&mut pools, "c7").v4, v4(3));
        let far = Lease { v4: Some(Ipv4Addr::new(192, 0, 2, 9)), v6: None };
        assert_eq!(pools.lease("far", true, far).v4, far.v4);
    }

    #[test]
    fn blocks_of_four_are_named_by_their_first_address() {
        let net = "10.8.0.0/24".parse().unwrap();
        let pool = Some(PoolV4::of_network(net, Topology::Net30));
        let mut before = Pools::new(pool, None, 100);
        assert_eq!(lease(&mut before, "a").v4, Some(Ipv4Addr::new(10, 8, 0, 6)));
        assert_eq!(lease(&mut before, "b").v4, Some(Ipv4Addr::new(10, 8, 0, 10)));
        let rows = before.export();
        let bases: Vec<_> = rows.iter().filter_map(|row| row.lease.v4).collect();
        assert_eq!(bases, [Ipv4Addr::new(10, 8, 0, 4), Ipv4Addr::new(10, 8, 0, 8)]);
        let mut after = Pools::new(pool, None, 100);
        rows.iter().for_each(|row| assert_eq!(after.import(row, false), (Ok(()), Ok(()))));
        assert_eq!(lease(&mut after, "b").v4, Some(Ipv4Addr::new(10, 8, 0, 10)));
    }

    #[test]
    fn fixed_addresses_wait_for_their_name() {
        for sticky in [true, false] {
            let mut pools = pools("10.8.0.0/29", "");
            let v4 = Some(Ipv4Addr::new(10, 8, 0, 3));
            let row = Remembered { name: "a".into(), lease: Lease { v4, v6: None } };
            assert_eq!(pools.import(&row, true), (Ok(()), Ok(())));
            let mut any = |name: &str| pools.lease(name, sticky, Lease::default()).v4;
            let others: Vec<_> = (0..5).filter_map(|_| any("b")).collect();
            assert_eq!(others.len(), 4);
            assert!(!others.contains(&Ipv4Addr::new(10, 8, 0, 3)));
            if sticky {
                assert_eq!(any("a"), v4);
                pools.release(Lease { v4, v6: None });
                assert!(lease(&mut pools, "c").is_empty(), "still fixed");
            }
        }
    }

    #[test]
    fn names_of_gone_clients_are_bounded() {
        let v6 = "fd00::/64".parse().ok().map(PoolV6::of_prefix);
        let mut pools = Pools::new(None, v6, 8);
        for n in 0..100 {
            let lease = lease(&mut pools, &format!("c{n}"));
            pools.release(lease);
        }
        assert_eq!(pools.export().len(), 8);
    }

    /// The obvious model: every address with its holder, last name, time of release, and whether it
    /// is kept for that name.
    #[derive(Clone, Default)]
    struct Place {
        held: bool,
        name: String,
        released: u32,
        reserved: bool,
    }

    struct Slow(Vec<Place>);

    impl Slow {
        fn take(&mut self, name: &str, sticky: bool) -> Option<usize> {
            let own = self.0.iter_mut().filter(|place| place.reserved && place.name == name);
            own.filter(|place| !place.held).for_each(|place| place.reserved = false);
            let free: Vec<(usize, &Place)> =
                self.0.iter().enumerate().filter(|(_, p)| !p.held && !p.reserved).collect();
            let last = free.iter().find(|(_, place)| sticky && place.name == name);
            let oldest = free.iter().min_by_key(|(_, p)| if sticky { p.released } else { 0 });
            let at = last.or(oldest)?.0;
            self.put(at, name, false);
            Some(at)
        }

        fn put(&mut self, at: usize, name: &str, reserved: bool) {
            self.0[at] = Place { held: true, name: name.to_owned(), released: 0, reserved };
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
            let mut model = Slow(vec![Place::default(); 12]);
            let mut held = Vec::new();
            for round in 1..20_000 {
                let name = format!("n{}", next(20));
                let at = next(12) as u32;
                let place = &model.0[at as usize];
                match next(8) {
                    0..=3 => {
                        let got = slots.take(&name, sticky);
                        assert_eq!(got.map(|at| at as usize), model.take(&name, sticky));
                        held.extend(got);
                    }
                    // Few, or nothing would be left.
                    4 if !place.held && next(10) == 0 => {
                        slots.hold(at, &name);
                        model.put(at as usize, &name, true);
                        held.push(at);
                    }
                    5 if next(10) == 0 => {
                        slots.reserve(at, &name);
                        if !place.held {
                            model.put(at as usize, &name, true);
                            model.0[at as usize].held = false;
                        }
                    }
                    _ if !held.is_empty() => {
                        let at = held.swap_remove(next(held.len() as u64) as usize);
                        slots.release(at);
                        let place = &mut model.0[at as usize];
                        (place.held, place.released) = (false, round);
                    }
                    _ => {}
                }
            }
        }
    }
}
