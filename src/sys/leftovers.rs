//! What a process that was killed could not take back: found by the mark that routes and addresses of
//! ours have, and removed before anything new is set.
//!
//! Most of it goes with the device. Left are the ways around the tunnel, which are wrong as soon as the
//! host is in another network, and everything on a device that is persistent. What another process of
//! ours uses stays: its way around a tunnel is covered by a route into that tunnel.

use super::netlink::{Listed, Netlink};

/// Removes what is of no use to anybody, of routes and of the addresses on `interface`, which is ours
/// alone.
pub fn remove(netlink: &mut Netlink, interface: u32) {
    for v6 in [false, true] {
        let listed = netlink.own_routes(v6).unwrap_or_default();
        for stale in listed.iter().filter(|own| is_stale(own, &listed, interface)) {
            let destination = stale.route.destination;
            match netlink.remove_route(&stale.route) {
                Ok(()) => log::info!("removed a route to {destination} that was left behind"),
                Err(error) => log::debug!("the route to {destination} left behind: {error}"),
            }
        }
    }
    for (net, peer) in netlink.own_addresses(interface).unwrap_or_default() {
        match netlink.remove_address(interface, net, peer) {
            Ok(()) => log::info!("removed the address {net} that was left behind"),
            Err(error) => log::debug!("the address {net} left behind: {error}"),
        }
    }
}

fn is_stale(own: &Listed, all: &[Listed], interface: u32) -> bool {
    let destination = own.route.destination;
    let covers = |other: &Listed| {
        let wider = other.route.destination;
        other.usable
            && ![interface, own.route.interface].contains(&other.route.interface)
            && wider.prefix_len() < destination.prefix_len()
            && wider.contains(&destination)
    };
    let is_host = destination.prefix_len() == destination.max_prefix_len();
    own.route.interface == interface || (is_host && !all.iter().any(covers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::Route;

    #[test]
    fn stale_is_what_leads_around_no_tunnel() {
        let listed = |destination: &str, interface: u32, usable: bool| {
            let destination = destination.parse().unwrap();
            let route = Route { destination, gateway: None, interface, metric: 0 };
            Listed { route, usable, protocol: 66 }
        };
        // Interface 1 is the network card, 7 the device that is about to be used, 8 another tunnel's.
        let server = listed("192.0.2.1/32", 1, true);
        let stale = |others: &[Listed]| is_stale(&server, others, 7);
        assert!(stale(&[server]));
        assert!(!stale(&[server, listed("0.0.0.0/1", 1, true), listed("128.0.0.0/1", 8, true)]));
        assert!(stale(&[server, listed("128.0.0.0/1", 8, false)]), "nobody serves that device");
        assert!(stale(&[server, listed("128.0.0.0/1", 7, true)]), "nor this one");
        assert!(stale(&[server, listed("0.0.0.0/1", 8, true)]), "it leads elsewhere");
        assert!(!is_stale(&listed("10.0.0.0/8", 1, true), &[], 7), "somebody may want that");
        assert!(is_stale(&listed("10.0.0.0/8", 7, false), &[], 7));
    }
}
