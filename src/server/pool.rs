//! Tunnel addresses: leases of IPv4 and IPv6, each family on its own [9.1, 9.3].
//!
//! One family running out (or not being configured) never costs a client the other; stock servers
//! tie both to one index. A name gets the address back that it had last, and an address that a
//! per-client file names is nobody else's [9.5]. Where the prefix follows the line, `hosts` gives out
//! host parts instead. Writing the leases to a file and reading them back
//! is `pool_file`'s, through [`Pools::export`] and [`Pools::import`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::{PoolV4, PoolV6};
use crate::server::hosts::Hosts;
use crate::sorted::SortedMap;

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
#[derive(Default)]
pub struct Pools {
    v4: Option<(PoolV4, Slots)>,
    v6: Option<(PoolV6, Slots)>,
    /// In place of `v6` where only the host part of an address is given out.
    hosts: Option<Hosts>,
    changed: bool,
}

impl Pools {
    /// All addresses free. `remember` bounds how many names of gone clients are kept.
    pub fn new(v4: Option<PoolV4>, v6: Option<PoolV6>, remember: usize) -> Self {
        Self {
            v4: v4.map(|pool| (pool, Slots::new(pool.count, remember))),
            v6: v6.map(|pool| (pool, Slots::new(pool.count, remember))),
            hosts: None,
            changed: false,
        }
    }

    /// Pools of another shape: who has or had an address that is in them still has it.
    pub fn reshape(&mut self, v4: Option<PoolV4>, v6: Option<PoolV6>, remember: usize) {
        let mut next = Self::new(v4, v6, remember);
        (next.changed, next.hosts) = (self.changed, self.hosts.take());
        if let Some((pool, slots)) = self.v4.take() {
            for (at, slot) in slots.used {
                let place = next.at_v4(Some(pool.address(at).0));
                if let Some((at, new)) = place {
                    new.adopt(at, slot, slots.releases);
                }
            }
        }
        if let Some((pool, slots)) = self.v6.take() {
            for (at, slot) in slots.used {
                let place = next.at_v6(Some(pool.address(at)));
                if let Some((at, new)) = place {
                    new.adopt(at, slot, slots.releases);
                }
            }
        }
        *self = next;
    }

    /// Whether an address is one of a pool.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.v4.as_ref().is_some_and(|(pool, _)| pool.index(v4).is_some()),
            IpAddr::V6(v6) => {
                let host = self.hosts.as_ref().and_then(|hosts| hosts.part(v6)).is_some();
                host || self.v6.as_ref().is_some_and(|(pool, _)| pool.index(v6).is_some())
            }
        }
    }

    /// Gives out host parts instead of addresses of an IPv6 pool.
    #[must_use]
    pub fn with_hosts(self, hosts: Option<Hosts>) -> Self {
        Self { hosts, ..self }
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
                if let Some((part, hosts)) = self.at_host(Some(v6)) {
                    hosts.reserve(part, name);
                }
            }
        }
    }

    /// Keeps an address for `name` even if somebody has it, who has to go then.
    pub fn seize(&mut self, address: IpAddr, name: &str) {
        let place = match address {
            IpAddr::V4(v4) => self.at_v4(Some(v4)),
            IpAddr::V6(v6) => self.at_v6(Some(v6)),
        };
        if let Some((at, slots)) = place {
            slots.put(at, name, Some(0), true);
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
        if let Some((part, hosts)) = self.at_host(fixed.v6) {
            hosts.hold(part, name);
        }
        let from_v4 = self.v4.as_mut().filter(|_| fixed.v4.is_none());
        let from_v6 = self.v6.as_mut().filter(|_| fixed.v6.is_none());
        let v4 = from_v4.and_then(|(pool, slots)| Some(pool.address(slots.take(name, sticky)?).0));
        let v6 = from_v6.and_then(|(pool, slots)| Some(pool.address(slots.take(name, sticky)?)));
        let hosts = self.hosts.as_mut().filter(|_| fixed.v6.is_none());
        let v6 = v6.or_else(|| hosts?.take(name));
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
        if let Some((part, hosts)) = self.at_host(lease.v6) {
            hosts.release(part);
        }
    }

    /// All names with the addresses they had from the pools, by name.
    pub fn export(&self) -> Vec<Remembered> {
        let mut names: SortedMap<&str, Vec<Lease>> = SortedMap::new();
        if let Some((pool, slots)) = &self.v4 {
            for (at, slot) in slots.dynamic() {
                let v4 = Some(pool.address(at).1);
                names.get_or_default(&slot.name).push(Lease { v4, v6: None });
            }
        }
        if let Some((pool, slots)) = &self.v6 {
            for (at, slot) in slots.dynamic() {
                let v6 = Some(pool.address(at));
                let leases = names.get_or_default(&slot.name);
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

    fn at_host(&mut self, address: Option<Ipv6Addr>) -> Option<(u64, &mut Hosts)> {
        let hosts = self.hosts.as_mut()?;
        Some((hosts.part(address?)?, hosts))
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
    used: SortedMap<u32, Slot>,
    remember: usize,
    releases: u32,
}

impl Slots {
    const fn new(size: u32, remember: usize) -> Self {
        Self { size, used: SortedMap::new(), remember, releases: 0 }
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

    /// Keeps an address for `name`; one that somebody else holds stays with its holder until then.
    fn reserve(&mut self, at: u32, name: &str) {
        match self.used.get_mut(&at).filter(|slot| slot.released.is_none()) {
            Some(held) => held.reserved |= held.name == name,
            None => self.put(at, name, Some(0), true),
        }
    }

    /// Takes an address over from slots that have counted so many releases; what the server had for
    /// itself stays behind.
    fn adopt(&mut self, at: u32, slot: Slot, releases: u32) {
        if !slot.name.is_empty() {
            self.releases = releases;
            self.used.insert(at, slot);
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
mod tests;
