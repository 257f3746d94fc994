//! Bodies of the fuzz targets of this ring; see `wire::fuzz`.

use core::time::Duration;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::hooks::TokenPolicy;
use crate::config::{PoolV4, PoolV6};
use crate::engine::PeerId;
use crate::server::pool::{Lease, Pools};
use crate::server::pool_file;
use crate::server::routes::Routes;
use crate::server::token::{TokenState, Tokens};
use crate::time::{Instant, Now, UnixTime};

fn pools() -> Pools {
    let v4 = PoolV4 { first: Ipv4Addr::new(10, 8, 0, 2), count: 20, blocks: false, netmask: None };
    let v6 = PoolV6 { first: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x1000), count: 20 };
    Pools::new(Some(v4), Some(v6), 80)
}

/// The file of the leases: whatever it says, nobody shares an address, and what is written of it is
/// read as the same.
pub fn pool_file(bytes: &[u8]) {
    for fixed in [false, true] {
        let mut read = pools();
        let faults = pool_file::import(&mut read, bytes, fixed);
        assert!(faults.iter().all(|(line, _)| *line > 0));
        let written = pool_file::export(&read);
        let mut again = pools();
        let faults = pool_file::import(&mut again, written.as_bytes(), fixed);
        assert!(faults.is_empty(), "{faults:?} in {written:?}");
        assert_eq!(pool_file::export(&again), written);
        let mut seen = BTreeSet::new();
        for number in 0..30 {
            let lease = read.lease(&format!("client {number}"), true, Lease { v4: None, v6: None });
            for address in lease.addresses() {
                assert!(seen.insert(address), "{address} is leased twice");
            }
        }
    }
}

/// Route changes as the input says, against a list that is searched from end to end.
pub fn routes(bytes: &[u8]) {
    const CAPACITY: usize = 24;
    let mut routes = Routes::with_capacity(CAPACITY);
    let mut model: Vec<(IpNet, PeerId)> = Vec::new();
    for op in bytes.as_chunks::<4>().0.iter().take(400) {
        let [what, a, b, len] = *op;
        let v6 = what & 1 == 1;
        let address: IpAddr = if v6 {
            Ipv6Addr::new(0xfd00 | u16::from(a & 1), 0, 0, u16::from(a), 0, 0, u16::from(b), 1)
                .into()
        } else {
            Ipv4Addr::new(10, a & 3, a, b).into()
        };
        let len = len % if v6 { 129 } else { 33 };
        let net = match address {
            IpAddr::V4(v4) => Ipv4Net::new(v4, len).map(IpNet::V4),
            IpAddr::V6(v6) => Ipv6Net::new(v6, len).map(IpNet::V6),
        };
        let Ok(net) = net.map(|net| net.trunc()) else { continue };
        let peer = PeerId(u32::from(what >> 4));
        let known = model.iter().position(|(other, _)| *other == net);
        match what >> 1 & 3 {
            0 | 1 => match routes.insert(net, peer) {
                Ok(before) => {
                    assert_eq!(before, known.map(|at| model.swap_remove(at).1));
                    model.push((net, peer));
                }
                Err(_) => {
                    let same = model.iter().filter(|(other, _)| other.addr().is_ipv6() == v6);
                    assert!(known.is_none() && same.count() >= CAPACITY, "there is room");
                }
            },
            2 => {
                let owned = known.filter(|at| model.get(*at).is_some_and(|(_, own)| *own == peer));
                assert_eq!(routes.remove(net, peer), owned.is_some());
                owned.map(|at| model.swap_remove(at));
            }
            _ => {}
        }
        let holds = model.iter().filter(|(net, _)| net.contains(&address));
        let longest = holds.max_by_key(|(net, _)| net.prefix_len()).map(|(_, peer)| *peer);
        assert_eq!(routes.lookup(address), longest);
        let exact = model.iter().find(|(other, _)| *other == net).map(|(_, peer)| *peer);
        assert_eq!(routes.owner(net), exact);
    }
}

/// A password that may claim to be a token.
pub fn token(bytes: &[u8]) {
    let seconds = Duration::from_secs;
    let policy = TokenPolicy {
        lifetime: seconds(900),
        renewal: seconds(300),
        external: false,
        secret: None,
    };
    let start = Now { mono: Instant::ZERO, unix: UnixTime(1_800_000_000) };
    let tokens = Tokens::new(&policy, start, &mut |out: &mut [u8]| out.fill(9));
    let text = String::from_utf8_lossy(bytes);
    for token in [text.as_ref(), &format!("SESS_ID_AT_{text}")] {
        assert_eq!(tokens.check(token, "jo", UnixTime(1_800_000_000)), TokenState::Invalid);
    }
}
