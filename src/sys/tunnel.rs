//! What the tunnel changes in the host's network configuration, and taking it back.
//!
//! Everything goes through [`Netlink`]; what was added is remembered and removed in reverse, even
//! where the end of the device would remove it anyway: the device may be persistent, and the route
//! that keeps the server reachable is not on it.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use super::netlink::{Netlink, Route};
use crate::engine::{TunnelRoute, TunnelSettings, Via};

/// Below this MTU the kernel silently takes IPv6 off an interface.
const MIN_V6_MTU: u16 = 1280;

/// One thing to take back.
#[derive(Debug, Clone, Copy)]
enum Done {
    Address(IpNet, Option<IpAddr>),
    Route(Route),
}

/// The configuration of one TUN interface; `drop` takes it back.
#[derive(Debug)]
pub struct TunnelConfig {
    netlink: Netlink,
    name: String,
    interface: u32,
    done: Vec<Done>,
}

impl TunnelConfig {
    /// Changes nothing yet.
    pub fn new(name: &str, interface: u32) -> Result<Self, String> {
        let netlink = Netlink::open().map_err(|error| format!("netlink: {error}"))?;
        Ok(Self { netlink, name: name.to_owned(), interface, done: Vec::new() })
    }

    /// Applies `settings` in place of what was applied before; on error nothing stays behind.
    pub fn apply(&mut self, settings: &TunnelSettings) -> Result<(), String> {
        self.revert();
        let result = self.try_apply(settings);
        if result.is_err() {
            self.revert();
        }
        result
    }

    fn try_apply(&mut self, settings: &TunnelSettings) -> Result<(), String> {
        let name = self.name.clone();
        if settings.v6.is_some() && settings.mtu < MIN_V6_MTU {
            return Err(format!(
                "{name}: an MTU of {} switches IPv6 off; it must be {MIN_V6_MTU} or more",
                settings.mtu
            ));
        }
        self.netlink.bring_up(self.interface, settings.mtu).map_err(|error| {
            format!("{name}: cannot set the MTU {} and bring it up: {error}", settings.mtu)
        })?;
        if let Some(v4) = settings.v4 {
            self.address(v4.into(), settings.v4_peer.map(IpAddr::V4))
                .map_err(|error| format!("{name}: cannot add the address {v4}: {error}"))?;
        }
        if let Some(v6) = settings.v6 {
            match self.address(v6.into(), None) {
                // A host without IPv6 still gets its IPv4.
                Err(error) if settings.v4.is_some() && has_no_v6(&error) => {
                    log::warn!("{}; going on with IPv4 alone", self.explain_v6(v6, &error));
                }
                result => result.map_err(|error| self.explain_v6(v6, &error))?,
            }
        }
        if let Some(server) = settings.server
            && settings.routes.iter().any(|route| route.destination.contains(&server))
        {
            self.keep_reachable(server);
        }
        if settings.bypass_dns {
            let covered = |address: &IpAddr| {
                settings.routes.iter().any(|route| route.destination.contains(address))
            };
            let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            name_servers(&resolv_conf).filter(covered).for_each(|a| self.keep_reachable(a));
        }
        // A way outside can be asked for only as long as the tunnel does not cover it.
        let (outside, inside): (Vec<&TunnelRoute>, Vec<&TunnelRoute>) =
            settings.routes.iter().partition(|route| route.via == Via::Outside);
        outside.into_iter().for_each(|route| self.route(*route));
        if let Some(server) = settings.server.filter(|_| settings.block_local) {
            self.block_local(server);
        }
        inside.into_iter().for_each(|route| self.route(*route));
        Ok(())
    }

    /// Takes everything back; what is gone already is no error.
    pub fn revert(&mut self) {
        while let Some(step) = self.done.pop() {
            let result = match step {
                Done::Address(net, peer) => self.netlink.remove_address(self.interface, net, peer),
                Done::Route(route) => self.netlink.remove_route(&route),
            };
            if let Err(error) = result {
                log::debug!("{}: taking back {step:?}: {error}", self.name);
            }
        }
    }

    fn address(&mut self, net: IpNet, peer: Option<IpAddr>) -> io::Result<()> {
        match self.netlink.add_address(self.interface, net, peer) {
            // A persistent device that somebody has configured: leave it so at the end, too.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Ok(()) => {
                self.done.push(Done::Address(net, peer));
                Ok(())
            }
            result => result,
        }
    }

    /// A route into the tunnel. One that fails costs its destination, not the connection.
    fn route(&mut self, wanted: TunnelRoute) {
        let TunnelRoute { destination, via, metric } = wanted;
        let route = match via {
            Via::Tunnel => Route { destination, gateway: None, interface: self.interface, metric },
            // The kernel finds the interface.
            Via::Router(router) => {
                Route { destination, gateway: Some(router), interface: 0, metric }
            }
            Via::Outside => match self.netlink.route_to(destination.addr()) {
                Ok(outside) => Route { destination, metric, ..outside },
                Err(error) => {
                    log::warn!("{}: no gateway for the route {destination}: {error}", self.name);
                    return;
                }
            },
        };
        self.add_route(route);
    }

    fn add_route(&mut self, route: Route) {
        match self.netlink.add_route(&route) {
            Ok(()) => self.done.push(Done::Route(route)),
            Err(error) => {
                log::warn!("{}: cannot add the route {}: {error}", self.name, route.destination);
            }
        }
    }

    /// Pins the way to the VPN server before a route of the tunnel covers it.
    fn keep_reachable(&mut self, server: IpAddr) {
        match self.netlink.route_to(server) {
            Ok(route) => self.add_route(route),
            Err(error) => log::warn!("no route to the server {server} to keep: {error}"),
        }
    }

    /// Takes the networks around the interface that leads to the server into the tunnel: each as
    /// two halves, which are preferred to the route of the whole [10.3].
    fn block_local(&mut self, server: IpAddr) {
        let outside = self.netlink.route_to(server);
        let networks = outside.and_then(|way| Ok((way, self.netlink.local_addresses()?)));
        let (way, networks) = match networks {
            Ok(found) => found,
            Err(error) => {
                log::warn!("{}: cannot block local networks: {error}", self.name);
                return;
            }
        };
        // What carries the tunnel itself: the server on the link, or the router to it.
        let next = way.gateway.unwrap_or(server);
        self.add_route(Route { destination: next.into(), gateway: None, ..way });
        for (_, address) in networks.into_iter().filter(|(at, _)| *at == way.interface) {
            let net = address.trunc();
            let local = matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local());
            if !local && let Ok(halves) = net.subnets(net.prefix_len().saturating_add(1)) {
                halves.for_each(|half| self.route(TunnelRoute::tunnel(half)));
            }
        }
    }

    fn explain_v6(&self, v6: ipnet::Ipv6Net, error: &io::Error) -> String {
        let name = &self.name;
        match error.raw_os_error() {
            Some(libc::EACCES) => format!(
                "{name}: cannot add the address {v6}: IPv6 is switched off there; set the sysctl \
                 net.ipv6.conf.default.disable_ipv6 (and net.ipv6.conf.all.disable_ipv6) to 0"
            ),
            Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP) => {
                format!("{name}: cannot add the address {v6}: the kernel has no IPv6")
            }
            _ => format!("{name}: cannot add the address {v6}: {error}"),
        }
    }
}

/// Switched off by sysctl, or not in the kernel.
fn has_no_v6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
}

/// The host's name servers that are not on the host itself.
fn name_servers(resolv_conf: &str) -> impl Iterator<Item = IpAddr> + '_ {
    let address = |line: &str| line.trim().strip_prefix("nameserver")?.trim().parse().ok();
    resolv_conf.lines().filter_map(address).filter(|address: &IpAddr| !address.is_loopback())
}

impl Drop for TunnelConfig {
    fn drop(&mut self) {
        self.revert();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::alone;
    use crate::sys::tun::TunDevice;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn name_servers_are_found() {
        let text = "# nameserver 9.9.9.9\nnameserver 192.0.2.53\nnameserver\t2001:db8::53\n\
                    nameserver 127.0.0.53\nsearch lan\n";
        let found: Vec<_> = name_servers(text).collect();
        assert_eq!(found, [ip("192.0.2.53"), ip("2001:db8::53")]);
    }

    #[test]
    #[ignore = "needs root: tests/run interop runs it"]
    fn routes_go_into_the_tunnel_and_around_it_and_are_taken_back() {
        alone();
        // Stands in for the network card.
        let card = TunDevice::open(Some("card0")).unwrap();
        let mut outside = TunnelConfig::new(card.name(), card.index()).unwrap();
        let settings = TunnelSettings {
            v4: Some("192.0.2.2/24".parse().unwrap()),
            mtu: 1500,
            ..TunnelSettings::default()
        };
        outside.apply(&settings).unwrap();
        outside.route(TunnelRoute {
            destination: "0.0.0.0/0".parse().unwrap(),
            via: Via::Router(ip("192.0.2.1")),
            metric: 0,
        });

        let tun = TunDevice::open(Some("tun0")).unwrap();
        let mut tunnel = TunnelConfig::new(tun.name(), tun.index()).unwrap();
        let server = ip("198.51.100.1");
        let mut routes: Vec<_> = ["0.0.0.0/1", "128.0.0.0/1"]
            .map(|net| TunnelRoute::tunnel(net.parse().unwrap()))
            .to_vec();
        routes.push(TunnelRoute {
            destination: "203.0.113.0/24".parse().unwrap(),
            via: Via::Outside,
            metric: 7,
        });
        let settings = TunnelSettings {
            v4: Some("10.8.0.2/24".parse().unwrap()),
            mtu: 1400,
            routes,
            server: Some(server),
            block_local: true,
            ..TunnelSettings::default()
        };
        tunnel.apply(&settings).unwrap();
        let mut netlink = Netlink::open().unwrap();
        let mut way = |text| {
            let route = netlink.route_to(ip(text)).unwrap();
            (route.interface == tun.index(), route.gateway)
        };
        assert_eq!(way("8.8.8.8"), (true, None));
        assert_eq!(way("192.0.2.77"), (true, None), "the local network is blocked");
        assert_eq!(way("192.0.2.1"), (false, None), "but not the router");
        assert_eq!(way("198.51.100.1"), (false, Some(ip("192.0.2.1"))), "the server");
        assert_eq!(way("203.0.113.9"), (false, Some(ip("192.0.2.1"))));
        drop(tunnel);
        assert_eq!(way("8.8.8.8"), (false, Some(ip("192.0.2.1"))));
        assert_eq!(way("192.0.2.77"), (false, None));
    }

    #[test]
    fn an_mtu_that_switches_ipv6_off_is_refused() {
        let mut tunnel = TunnelConfig::new("tun0", 1).unwrap();
        let v6 = Some("fd00::1/64".parse().unwrap());
        let error = tunnel.apply(&TunnelSettings { v6, mtu: 1279, ..TunnelSettings::default() });
        assert!(error.unwrap_err().contains("1280"));
    }
}
