//! Routes around the tunnel: to the VPN server itself, to DNS servers and networks that shall stay
//! outside [10.3].
//!
//! They go the way the host would go without the tunnel. When that way changes (another network, a
//! new lease) they follow. To know it while our own routes stand in front, the routing table is read
//! and our routes are thought away.

use std::net::IpAddr;

use ipnet::IpNet;

use super::netlink::{Netlink, Route};
use crate::engine::{TunnelRoute, TunnelSettings, Via};

/// Metric of a host route in IPv6, where 0 would mean the kernel's 1024, the same as of router
/// advertisements; OpenVPN's choice, too [10.3].
const HOST_METRIC_V6: u32 = 1;
/// Where the host's resolver keeps its servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What leads around one tunnel.
#[derive(Debug)]
pub struct Outside {
    /// The tunnel's interface.
    tunnel: u32,
    routes: Vec<Route>,
}

impl Outside {
    pub(super) fn new(tunnel: u32) -> Self {
        Self { tunnel, routes: Vec::new() }
    }

    /// Puts what `settings` want in place of what there was. `routes` are all routes to be set.
    pub(super) fn apply(
        &mut self,
        netlink: &mut Netlink,
        settings: &TunnelSettings,
        routes: &[TunnelRoute],
    ) {
        let mut wanted: Vec<(IpNet, u32)> = routes
            .iter()
            .filter(|route| route.via == Via::Outside)
            .map(|route| (route.destination, route.metric))
            .collect();
        let mut hosts: Vec<IpAddr> = settings.server.into_iter().collect();
        if settings.bypass_dns {
            hosts.extend(resolvers(&std::fs::read_to_string(RESOLV_CONF).unwrap_or_default()));
        }
        if settings.block_local
            && let Some(gateway) =
                settings.server.and_then(|server| self.way(netlink, server.into())?.gateway)
        {
            hosts.push(gateway);
        }
        for host in hosts {
            let covers = |route: &TunnelRoute| {
                route.via != Via::Outside && route.destination.contains(&host)
            };
            if routes.iter().any(covers) {
                wanted.push((host.into(), host_metric(host)));
            }
        }
        let is_wanted = |route: &Route| wanted.contains(&(route.destination, route.metric));
        self.remove(netlink, |route| !is_wanted(route));
        for (destination, metric) in wanted {
            self.add(netlink, destination, metric);
        }
    }

    /// Adds the way to a server that is about to be connected to.
    pub(super) fn keep_reachable(&mut self, netlink: &mut Netlink, server: IpAddr) {
        self.add(netlink, server.into(), host_metric(server));
    }

    pub(super) fn revert(&mut self, netlink: &mut Netlink) {
        self.remove(netlink, |_| true);
    }

    /// Takes the way that the host would take now.
    pub(super) fn follow(&mut self, netlink: &mut Netlink) {
        for index in 0..self.routes.len() {
            let Some(old) = self.routes.get(index).copied() else { return };
            let table = match netlink.main_routes(old.destination.addr().is_ipv6()) {
                Ok(table) => table,
                Err(error) => return log::debug!("reading the routing table: {error}"),
            };
            // Without any way (yet) the old one can stay.
            let Some(new) = self.best(&table, old.destination) else { continue };
            let new = Route { metric: old.metric, ..new };
            if new == old && table.iter().any(|route| same_way(route, &old)) {
                continue;
            }
            let _ = netlink.remove_route(&old);
            match netlink.add_route(&new) {
                Ok(()) => log::info!("{} is now reached {}", new.destination, describe(&new)),
                Err(error) => {
                    log::warn!("cannot lead {} around the tunnel: {error}", new.destination)
                }
            }
            if let Some(route) = self.routes.get_mut(index) {
                *route = new;
            }
        }
    }

    /// The networks of the interface that leads to `server`, cut in halves that win over them.
    pub(super) fn local_networks(&self, netlink: &mut Netlink, server: IpAddr) -> Vec<IpNet> {
        let Some(way) = self.way(netlink, server.into()) else { return Vec::new() };
        let addresses = netlink.local_addresses().unwrap_or_default();
        let networks = addresses.into_iter().filter(|(at, _)| *at == way.interface);
        let networks = networks.map(|(_, address)| address.trunc()).filter(|net| match net {
            IpNet::V4(net) => !net.addr().is_link_local(),
            IpNet::V6(net) => !net.addr().is_unicast_link_local(),
        });
        let halves = networks
            .flat_map(|net| net.subnets(net.prefix_len().saturating_add(1)).into_iter().flatten());
        halves.collect()
    }

    fn add(&mut self, netlink: &mut Netlink, destination: IpNet, metric: u32) {
        if self
            .routes
            .iter()
            .any(|route| (route.destination, route.metric) == (destination, metric))
        {
            return;
        }
        let Some(way) = self.way(netlink, destination) else {
            return log::warn!("no route to {destination} that could lead around the tunnel");
        };
        let route = Route { destination, metric, ..way };
        match netlink.add_route(&route) {
            Ok(()) => {
                log::debug!("{destination} is reached {}", describe(&route));
                self.routes.push(route);
            }
            // The host has its own, which does the same and stays.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => log::warn!("cannot lead {destination} around the tunnel: {error}"),
        }
    }

    fn remove(&mut self, netlink: &mut Netlink, which: impl Fn(&Route) -> bool) {
        for route in self.routes.iter().filter(|route| which(route)) {
            if let Err(error) = netlink.remove_route(route) {
                log::debug!("taking back the route {}: {error}", route.destination);
            }
        }
        self.routes.retain(|route| !which(route));
    }

    /// The way without the tunnel. The kernel knows it best (it may have rules beside the table)
    /// as long as none of our routes is its answer.
    fn way(&self, netlink: &mut Netlink, destination: IpNet) -> Option<Route> {
        let host = destination.addr();
        let pinned = self.routes.iter().any(|route| route.destination.contains(&host));
        match netlink.route_to(host) {
            Ok(route) if route.interface != self.tunnel && !pinned => Some(route),
            Ok(_) | Err(_) => {
                let table = netlink.main_routes(host.is_ipv6()).ok()?;
                self.best(&table, destination)
            }
        }
    }

    /// The next router that the host itself has for exactly this destination or a wider one.
    pub(super) fn gateway(&self, netlink: &mut Netlink, destination: IpNet) -> Option<IpAddr> {
        let table = netlink.main_routes(destination.addr().is_ipv6()).ok()?;
        self.best(&table, destination)?.gateway
    }

    /// Longest prefix, then smallest metric, of the routes that are not ours.
    fn best(&self, table: &[Route], destination: IpNet) -> Option<Route> {
        let ours = |route: &Route| {
            route.interface == self.tunnel
                || self.routes.iter().any(|pinned| same_way(pinned, route))
        };
        table
            .iter()
            .filter(|route| route.destination.contains(&destination) && !ours(route))
            .max_by_key(|route| (route.destination.prefix_len(), u32::MAX - route.metric))
            .map(|route| Route { destination, ..*route })
    }
}

/// The same route but for its metric, which the kernel may have filled in.
fn same_way(a: &Route, b: &Route) -> bool {
    (a.destination, a.gateway, a.interface) == (b.destination, b.gateway, b.interface)
}

fn host_metric(host: IpAddr) -> u32 {
    if host.is_ipv6() { HOST_METRIC_V6 } else { 0 }
}

/// The metric of a route into the tunnel: a default route in IPv6 must not tie with the one that
/// router advertisements bring.
pub(super) fn tunnel_metric(destination: IpNet, metric: u32) -> u32 {
    let v6_default = destination.prefix_len() == 0 && destination.addr().is_ipv6();
    if v6_default && metric == 0 { HOST_METRIC_V6 } else { metric }
}

fn describe(route: &Route) -> String {
    match route.gateway {
        Some(gateway) => format!("by {gateway} (interface {})", route.interface),
        None => format!("directly (interface {})", route.interface),
    }
}

/// The `nameserver` lines that are not the host itself.
fn resolvers(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok())?
    });
    servers.filter(|server| !server.is_loopback()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, gateway: Option<&str>, interface: u32, metric: u32) -> Route {
        let gateway = gateway.map(|gateway| gateway.parse().unwrap());
        Route { destination: destination.parse().unwrap(), gateway, interface, metric }
    }

    #[test]
    fn the_best_way_is_not_ours() {
        let mut outside = Outside::new(9);
        outside.routes.push(route("192.0.2.1/32", Some("10.0.0.1"), 2, 0));
        let mut table = vec![
            route("0.0.0.0/0", Some("10.0.0.1"), 2, 100),
            route("0.0.0.0/0", Some("10.1.0.1"), 3, 50),
            route("0.0.0.0/1", None, 9, 0),
            route("192.0.2.1/32", Some("10.0.0.1"), 2, 0),
            route("198.51.100.0/24", None, 4, 0),
        ];
        let server: IpNet = "192.0.2.1/32".parse().unwrap();
        let best = outside.best(&table, server).unwrap();
        assert_eq!((best.destination, best.interface), (server, 3));
        table.push(route("192.0.2.0/24", None, 5, 700));
        assert_eq!(outside.best(&table, server).unwrap().interface, 5);
        assert_eq!(outside.best(&table[2..4], server), None);
    }

    #[test]
    fn an_ipv6_default_route_wins_over_advertised_ones() {
        let net = |text: &str| text.parse().unwrap();
        assert_eq!(tunnel_metric(net("::/0"), 0), 1);
        assert_eq!(tunnel_metric(net("::/0"), 7), 7);
        assert_eq!(tunnel_metric(net("::/3"), 0), 0);
        assert_eq!(tunnel_metric(net("0.0.0.0/0"), 0), 0);
    }

    #[test]
    fn name_servers_of_the_host() {
        let text = "# x\nsearch a\nnameserver 127.0.0.53\nnameserver 192.0.2.53\n\
                    nameserver 2001:db8::53 # y\nnameserver fe80::1%eth0\noptions edns0\n";
        let expected: [IpAddr; 2] =
            ["192.0.2.53".parse().unwrap(), "2001:db8::53".parse().unwrap()];
        assert_eq!(resolvers(text), expected);
    }
}
