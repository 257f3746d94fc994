//! Host parts: the last 64 bits of a client's IPv6 address, which stay when the prefix in front of
//! them changes (`server-ipv6 auto`).
//!
//! A host part is a keyed hash of the client's name: nothing has to be stored for it to be the same
//! at every connect, and from outside it tells nothing about the name (as RFC 7217 has it for
//! interfaces). A per-client file may name one instead. Two clients never share one: where a hash
//! meets somebody else's host part, the next hash of the same name is taken.

use std::net::Ipv6Addr;

use hmac::{Hmac, KeyInit, Mac};
use ipnet::Ipv6Net;
use sha2::Sha256;

use crate::config::Config;
use crate::sorted::SortedMap;

/// Below this are the numbers that people choose; hashes stay clear of them.
const CHOSEN: u64 = 0x1_0000;
/// Hashes tried before a client goes without an address: with room for 2^64 the second one is free.
const TRIES: u32 = 4096;

/// Who has a host part.
#[derive(Debug)]
struct Holder {
    name: String,
    held: bool,
    /// For this name only, also while it is not connected.
    reserved: bool,
}

/// The host parts that are taken.
pub struct Hosts {
    keyed: Hmac<Sha256>,
    prefix: Ipv6Net,
    taken: SortedMap<u64, Holder>,
}

impl Hosts {
    /// For addresses in the stable `prefix`, a /64.
    pub fn new(config: &Config, prefix: Ipv6Net) -> Self {
        // The most secret thing that outlives certificates: whoever has the key can compute the
        // addresses of names.
        let wrap = &config.wrap;
        let secret: &[u8] = match (&wrap.v2_server, &wrap.tls_crypt, &wrap.tls_auth) {
            (Some(key), ..) => key.as_bytes(),
            (None, Some(key), _) | (None, None, Some((key, _))) => key.as_bytes(),
            (None, None, None) if config.tls.ca.is_empty() => &config.tls.cert,
            (None, None, None) => &config.tls.ca,
        };
        let mut keyed = <Hmac<Sha256> as KeyInit>::new_from_slice(secret)
            .unwrap_or_else(|_| Hmac::new(&[0; 64].into()));
        keyed.update(b"sixgate host part\0");
        Self { keyed, prefix: prefix.trunc(), taken: SortedMap::new() }
    }

    /// The host part of an address in the stable prefix.
    pub fn part(&self, address: Ipv6Addr) -> Option<u64> {
        self.prefix.contains(&address).then(|| address.to_bits() as u64)
    }

    fn address(&self, part: u64) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.prefix.network().to_bits() | u128::from(part))
    }

    /// Keeps a host part for `name`; one that somebody holds stays with its holder until then.
    pub fn reserve(&mut self, part: u64, name: &str) {
        if !self.taken.get(&part).is_some_and(|holder| holder.held) {
            let holder = Holder { name: name.to_owned(), held: false, reserved: true };
            self.taken.insert(part, holder);
        }
    }

    /// Takes this very host part, and keeps it for `name` afterwards.
    pub fn hold(&mut self, part: u64, name: &str) {
        self.taken.insert(part, Holder { name: name.to_owned(), held: true, reserved: true });
    }

    /// The address of `name`; a further connection of the same name gets another.
    pub fn take(&mut self, name: &str) -> Option<Ipv6Addr> {
        let part = (0..TRIES).map(|number| self.hash(name, number)).find(|part| {
            let free = |holder: &Holder| !holder.held && holder.name == name;
            is_suitable(*part) && self.taken.get(part).is_none_or(free)
        })?;
        let holder = Holder { name: name.to_owned(), held: true, reserved: false };
        self.taken.insert(part, holder);
        Some(self.address(part))
    }

    /// Gives one back.
    pub fn release(&mut self, part: u64) {
        if let Some(holder) = self.taken.get_mut(&part) {
            holder.held = false;
            if !holder.reserved {
                self.taken.remove(&part);
            }
        }
    }

    fn hash(&self, name: &str, number: u32) -> u64 {
        let mac = self.keyed.clone().chain_update(number.to_be_bytes()).chain_update(name);
        let bytes = mac.finalize().into_bytes();
        u64::from_be_bytes(bytes.first_chunk().copied().unwrap_or_default())
    }
}

/// Reserved interface identifiers (RFC 5453) and people's numbers are none of ours.
const fn is_suitable(part: u64) -> bool {
    let anycast = part >= 0xfdff_ffff_ffff_ff80 && part <= 0xfdff_ffff_ffff_ffff;
    let registered = part >> 24 == 0x02_005e_fffe;
    part >= CHOSEN && !anycast && !registered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(key: u8) -> Hosts {
        Hosts {
            keyed: <Hmac<Sha256> as KeyInit>::new_from_slice(&[key]).unwrap(),
            prefix: "fd00:6::/64".parse().unwrap(),
            taken: SortedMap::new(),
        }
    }

    #[test]
    fn a_name_has_the_same_address_whoever_came_before() {
        let (mut a, mut b) = (hosts(1), hosts(1));
        let laptop = a.take("laptop").unwrap();
        b.take("phone").unwrap();
        assert_eq!(b.take("laptop"), Some(laptop));
        assert_ne!(hosts(2).take("laptop"), Some(laptop), "the key counts");
        assert!(a.part(laptop).unwrap() >= CHOSEN);
        let second = a.take("laptop").unwrap();
        assert_ne!(second, laptop, "two connections of a name");
        a.release(a.part(laptop).unwrap());
        assert_eq!(a.take("laptop"), Some(laptop));
    }

    #[test]
    fn what_is_kept_for_one_is_nobody_elses() {
        let mut hosts = hosts(1);
        let usual = hosts.hash("laptop", 0);
        hosts.reserve(usual, "phone");
        let other = hosts.take("laptop").unwrap();
        assert_eq!(hosts.part(other), Some(hosts.hash("laptop", 1)));
        hosts.hold(0x20, "tv");
        hosts.release(0x20);
        assert_eq!(hosts.taken.len(), 3, "a fixed one is kept");
        hosts.release(hosts.part(other).unwrap());
        assert_eq!(hosts.taken.len(), 2, "nothing else is");
        hosts.reserve(0x20, "radio");
        assert_eq!(hosts.taken.get(&0x20).unwrap().name, "radio");
    }

    #[test]
    fn some_numbers_are_left_alone() {
        for (part, suitable) in [
            (0, false),
            (0xffff, false),
            (0x1_0000, true),
            (0xfdff_ffff_ffff_ff7f, true),
            (0xfdff_ffff_ffff_ff80, false),
            (0xfdff_ffff_ffff_ffff, false),
            (0x0200_5eff_fe00_0000, false),
            (0x0200_5eff_ff00_0000, true),
        ] {
            assert_eq!(is_suitable(part), suitable, "{part:x}");
        }
    }
}
