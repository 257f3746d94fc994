//! Leases against the obvious model, in either topology, with reserved and fixed addresses.

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
                    let (held, ours) = (place.held, place.name == name);
                    match &mut model.0[at as usize] {
                        place if held => place.reserved |= ours,
                        _ => {
                            model.put(at as usize, &name, true);
                            model.0[at as usize].held = false;
                        }
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

#[test]
fn another_shape_keeps_who_fits_into_it() {
    let mut pools = pools("10.8.0.0/24", "2001:db8::/64");
    pools.reserve(IpAddr::V4([10, 8, 0, 1].into()), "");
    let held: Vec<Lease> = ["a", "b", "c", "d"].map(|name| lease(&mut pools, name)).to_vec();
    pools.release(held[1]);
    pools.release(held[3]);
    let smaller = PoolV4::range([10, 8, 0, 3].into(), [10, 8, 0, 5].into(), Topology::Subnet);
    pools.reshape(Some(smaller), None, 100);
    assert!(pools.contains(IpAddr::V4([10, 8, 0, 4].into())));
    assert!(!held[0].addresses().any(|gone| pools.contains(gone)), "out of the range");
    assert_eq!(lease(&mut pools, "e").v4, held[1].v4, "b was longest away, c is still here");
    assert_eq!(lease(&mut pools, "d").v4, held[3].v4, "and d comes back to its own");
    assert!(lease(&mut pools, "f").is_empty());
    // An address that becomes the server's is nobody's again, whoever has it now.
    pools.seize(IpAddr::V4([10, 8, 0, 4].into()), "");
    pools.release(held[2]);
    assert!(lease(&mut pools, "c").is_empty());
}
