//! What the tunnel changes in the host's network configuration, and taking it back.
//!
//! Everything goes through [`Netlink`]; what was added is remembered and removed in reverse, even
//! where the end of the device would remove it anyway: the device may be persistent, and the routes
//! that lead around the tunnel are not on it. New settings change only what differs from the old.
//! What has to stay reachable outside the tunnel is worked out in [`super::outside`].

use std::io;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::delegated::Delegated;
use super::netlink::{Netlink, Route};
use super::outside::{self, Outside};
use crate::engine::{TunnelRoute, TunnelSettings, Via};

/// Below this MTU the kernel silently takes IPv6 off an interface.
const MIN_V6_MTU: u16 = 1280;

/// An address, with the other end of a point-to-point link.
type Address = (IpNet, Option<IpAddr>);

/// The configuration of one TUN interface; `drop` takes it back.
#[derive(Debug)]
pub struct TunnelConfig {
    netlink: Netlink,
    name: String,
    interface: u32,
    addresses: Vec<Address>,
    /// Into the tunnel, or by another router.
    routes: Vec<Route>,
    outside: Outside,
    delegated: Delegated,
}

impl TunnelConfig {
    /// Changes nothing yet.
    pub fn new(name: &str, interface: u32) -> Result<Self, String> {
        let netlink = Netlink::open().map_err(|error| format!("netlink: {error}"))?;
        Ok(Self {
            netlink,
            name: name.to_owned(),
            interface,
            addresses: Vec::new(),
            routes: Vec::new(),
            outside: Outside::new(interface),
            delegated: Delegated::default(),
        })
    }

    /// Puts `settings` in place of what was applied before; on error nothing stays behind.
    pub fn apply(&mut self, settings: &TunnelSettings) -> Result<(), String> {
        let result = self.try_apply(settings);
        if result.is_err() {
            self.revert();
        }
        result
    }

    fn try_apply(&mut self, settings: &TunnelSettings) -> Result<(), String> {
        let name = &self.name;
        if settings.v6.is_some() && settings.mtu < MIN_V6_MTU {
            return Err(format!(
                "{name}: an MTU of {} switches IPv6 off; it must be {MIN_V6_MTU} or more",
                settings.mtu
            ));
        }
        self.netlink.bring_up(self.interface, settings.mtu).map_err(|error| {
            format!("{name}: cannot set the MTU {} and bring it up: {error}", settings.mtu)
        })?;
        let wanted = addresses(settings);
        if self.addresses.iter().any(|address| !wanted.contains(address)) {
            // The kernel drops routes together with addresses they may use.
            self.remove_routes(|_| true);
            self.remove_addresses(&wanted);
        }
        self.add_addresses(&wanted, settings)?;
        let mut routes = settings.routes.clone();
        if settings.block_local
            && let Some(server) = settings.server
        {
            let local = self.outside.local_networks(&mut self.netlink, server);
            routes.extend(local.into_iter().map(TunnelRoute::tunnel));
        }
        let wanted: Vec<Route> =
            routes.iter().filter_map(|route| inside(route, self.interface)).collect();
        self.remove_routes(|route| !wanted.contains(route));
        // Around the tunnel first: what carries it must not be swallowed for a moment.
        self.outside.apply(&mut self.netlink, settings, &routes);
        for route in wanted {
            if !self.routes.contains(&route) {
                self.add_route(route);
            }
        }
        self.delegated.apply(&mut self.netlink, self.interface, settings);
        Ok(())
    }

    /// Takes everything back; what is gone already is no error.
    pub fn revert(&mut self) {
        self.delegated.revert(&mut self.netlink);
        self.remove_routes(|_| true);
        self.outside.revert(&mut self.netlink);
        self.remove_addresses(&[]);
    }

    /// The host's own routers to everywhere, IPv4 and IPv6: what there would be without the tunnel.
    pub fn default_gateways(&mut self) -> [Option<IpAddr>; 2] {
        let anywhere = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        anywhere.map(|net| self.outside.gateway(&mut self.netlink, net))
    }

    /// The next server: its packets must find the way while routes of the last tunnel remain.
    pub fn keep_reachable(&mut self, server: IpAddr) {
        if self.routes.iter().any(|route| route.destination.contains(&server)) {
            self.outside.keep_reachable(&mut self.netlink, server);
        }
    }

    /// The host's own routes have changed: leads around the tunnel by the new ones.
    pub fn follow(&mut self) {
        self.outside.follow(&mut self.netlink);
    }

    /// Puts addresses and routes back that somebody has taken away, such as a network daemon that
    /// clears the device when it takes charge of it.
    pub fn restore(&mut self) {
        let Ok(present) = self.netlink.local_addresses() else { return };
        let is_there = |(net, peer): &Address| {
            let shown = IpNet::new(peer.unwrap_or(net.addr()), net.prefix_len());
            shown.is_ok_and(|shown| present.contains(&(self.interface, shown)))
        };
        let missing: Vec<Address> =
            self.addresses.iter().copied().filter(|address| !is_there(address)).collect();
        if missing.is_empty() {
            return;
        }
        for (net, peer) in missing {
            match self.netlink.add_address(self.interface, net, peer) {
                Ok(()) => log::info!("{}: {net} was taken away; it is there again", self.name),
                Err(error) => log::warn!("{}", self.explain(net, &error)),
            }
        }
        let Self { netlink, routes, .. } = self;
        // Those that are still there stay as they are.
        routes.iter().for_each(|route| _ = netlink.add_route(route));
    }

    fn add_addresses(
        &mut self,
        wanted: &[Address],
        settings: &TunnelSettings,
    ) -> Result<(), String> {
        for (net, peer) in wanted {
            if self.addresses.contains(&(*net, *peer)) {
                continue;
            }
            match self.netlink.add_address(self.interface, *net, *peer) {
                Ok(()) => self.addresses.push((*net, *peer)),
                // A persistent device that somebody has configured: leave it so at the end, too.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // A host without IPv6 still gets its IPv4.
                Err(error)
                    if net.addr().is_ipv6() && settings.v4.is_some() && has_no_v6(&error) =>
                {
                    log::warn!("{}; going on with IPv4 alone", self.explain(*net, &error));
                }
                Err(error) => return Err(self.explain(*net, &error)),
            }
        }
        Ok(())
    }

    fn remove_addresses(&mut self, but: &[Address]) {
        let Self { netlink, name, interface, addresses, .. } = self;
        addresses.retain(|(net, peer)| {
            let keep = but.contains(&(*net, *peer));
            if !keep && let Err(error) = netlink.remove_address(*interface, *net, *peer) {
                log::debug!("{name}: taking back the address {net}: {error}");
            }
            keep
        });
    }

    /// A route that fails costs its destination, not the connection.
    fn add_route(&mut self, route: Route) {
        match self.netlink.add_route(&route) {
            Ok(()) => self.routes.push(route),
            Err(error) => {
                let (name, destination) = (&self.name, route.destination);
                let why = if error.kind() == io::ErrorKind::AlreadyExists {
                    "this host has a route to exactly that already, which stays".to_owned()
                } else {
                    error.to_string()
                };
                log::warn!("{name}: cannot add the route {destination}: {why}");
            }
        }
    }

    fn remove_routes(&mut self, which: impl Fn(&Route) -> bool) {
        let Self { netlink, name, routes, .. } = self;
        // In reverse, so that the least specific ones, which came last, go first.
        for route in routes.iter().rev().filter(|route| which(route)) {
            if let Err(error) = netlink.remove_route(route) {
                log::debug!("{name}: taking back the route {}: {error}", route.destination);
            }
        }
        routes.retain(|route| !which(route));
    }

    fn explain(&self, net: IpNet, error: &io::Error) -> String {
        let name = &self.name;
        match error.raw_os_error() {
            Some(libc::EACCES) if net.addr().is_ipv6() => format!(
                "{name}: cannot add the address {net}: IPv6 is switched off there; set the sysctl \
                 net.ipv6.conf.default.disable_ipv6 (and net.ipv6.conf.all.disable_ipv6) to 0"
            ),
            Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP) if net.addr().is_ipv6() => {
                format!("{name}: cannot add the address {net}: the kernel has no IPv6")
            }
            _ => format!("{name}: cannot add the address {net}: {error}"),
        }
    }
}

fn addresses(settings: &TunnelSettings) -> Vec<Address> {
    let v4 = settings.v4.map(|net| (net.into(), settings.v4_peer.map(IpAddr::V4)));
    let v6 = settings.v6.into_iter().chain(settings.v6_stable).map(|net| (net.into(), None));
    v4.into_iter().chain(v6).collect()
}

/// A route that is not to be worked out first.
fn inside(route: &TunnelRoute, interface: u32) -> Option<Route> {
    let TunnelRoute { destination, via, metric } = *route;
    match via {
        Via::Tunnel => {
            let metric = outside::tunnel_metric(destination, metric);
            Some(Route { destination, gateway: None, interface, metric })
        }
        // The kernel finds the interface.
        Via::Router(router) => {
            Some(Route { destination, gateway: Some(router), interface: 0, metric })
        }
        Via::Outside => None,
    }
}

/// Switched off by sysctl, or not in the kernel.
fn has_no_v6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
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
    #[ignore = "needs root: tests/run interop runs it"]
    fn routes_go_into_the_tunnel_and_around_it_and_are_taken_back() {
        alone();
        // Stands in for the network card.
        let card = TunDevice::open(Some("card0"), false).unwrap();
        let mut outside = TunnelConfig::new(card.name(), card.index()).unwrap();
        let settings = TunnelSettings {
            v4: Some("192.0.2.2/24".parse().unwrap()),
            mtu: 1500,
            ..TunnelSettings::default()
        };
        outside.apply(&settings).unwrap();
        outside.add_route(Route {
            destination: "0.0.0.0/0".parse().unwrap(),
            gateway: Some(ip("192.0.2.1")),
            interface: 0,
            metric: 0,
        });

        let tun = TunDevice::open(Some("tun0"), false).unwrap();
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

    /// A network card with an address of each kind and a router to everywhere.
    fn card(name: &str, number: u8) -> (TunDevice, TunnelConfig) {
        let card = TunDevice::open(Some(name), false).unwrap();
        let mut config = TunnelConfig::new(card.name(), card.index()).unwrap();
        let settings = TunnelSettings {
            v4: Some(format!("192.0.{number}.2/24").parse().unwrap()),
            v6: Some(format!("2001:db8:{number}::2/64").parse().unwrap()),
            mtu: 1500,
            ..TunnelSettings::default()
        };
        config.apply(&settings).unwrap();
        for (net, router) in
            [("0.0.0.0/0", format!("192.0.{number}.1")), ("::/0", format!("2001:db8:{number}::1"))]
        {
            config.add_route(Route {
                destination: net.parse().unwrap(),
                gateway: Some(ip(&router)),
                interface: 0,
                metric: 600,
            });
        }
        (card, config)
    }

    fn table(netlink: &mut Netlink) -> Vec<String> {
        let mut lines: Vec<String> = [false, true]
            .into_iter()
            .flat_map(|v6| netlink.main_routes(v6).unwrap())
            .map(|route| format!("{route:?}"))
            .collect();
        lines.sort();
        lines
    }

    /// Everything into the tunnel, in the way of `redirect-gateway ipv6`.
    fn everything(server: IpAddr) -> TunnelSettings {
        let nets = ["0.0.0.0/0", "::/3", "2000::/4", "10.9.0.0/16"];
        TunnelSettings {
            v4: Some("10.8.0.2/24".parse().unwrap()),
            v6: Some("fd00:8::2/64".parse().unwrap()),
            mtu: 1400,
            routes: nets.map(|net| TunnelRoute::tunnel(net.parse().unwrap())).to_vec(),
            server: Some(server),
            ..TunnelSettings::default()
        }
    }

    #[test]
    #[ignore = "needs root: tests/run interop runs it"]
    fn the_way_to_the_server_follows_the_hosts_network() {
        for server in [ip("198.51.100.1"), ip("2001:db8:ffff::1")] {
            alone();
            let mut netlink = Netlink::open().unwrap();
            let (_first, mut wifi) = card("wifi0", 3);
            let before = table(&mut netlink);
            let tun = TunDevice::open(Some("tun0"), false).unwrap();
            let mut tunnel = TunnelConfig::new(tun.name(), tun.index()).unwrap();
            tunnel.apply(&everything(server)).unwrap();
            assert!(netlink.route_to(ip("8.8.8.8")).unwrap().interface == tun.index());
            let router = |number: u8| match server {
                IpAddr::V4(_) => Some(ip(&format!("192.0.{number}.1"))),
                IpAddr::V6(_) => Some(ip(&format!("2001:db8:{number}::1"))),
            };
            assert_eq!(netlink.route_to(server).unwrap().gateway, router(3));
            // The cable is better than the air; then there is only the cable.
            let (_second, cable) = card("cable0", 4);
            wifi.revert();
            tunnel.follow();
            assert_eq!(netlink.route_to(server).unwrap().gateway, router(4));
            // Nothing at all for a while, and back.
            drop(cable);
            tunnel.follow();
            let (_first, wifi) = card("wifi1", 3);
            tunnel.follow();
            assert_eq!(netlink.route_to(server).unwrap().gateway, router(3));
            drop(tunnel);
            drop((wifi, before));
            assert!(!table(&mut netlink).iter().any(|line| line.contains(&server.to_string())));
        }
    }

    #[test]
    #[ignore = "needs root: tests/run interop runs it"]
    fn new_settings_change_only_what_differs_and_the_next_server_is_reachable() {
        alone();
        let mut netlink = Netlink::open().unwrap();
        let (_card, _config) = card("card0", 3);
        let before = table(&mut netlink);
        let tun = TunDevice::open(Some("tun0"), false).unwrap();
        let mut tunnel = TunnelConfig::new(tun.name(), tun.index()).unwrap();
        let old = everything(ip("198.51.100.1"));
        tunnel.apply(&old).unwrap();
        let full = table(&mut netlink);
        tunnel.apply(&old).unwrap();
        assert_eq!(table(&mut netlink), full);
        // The tunnel is dead, and another server comes next.
        let next = ip("2001:db8:ffff::2");
        assert_eq!(netlink.route_to(next).unwrap().interface, tun.index());
        tunnel.keep_reachable(next);
        assert_eq!(netlink.route_to(next).unwrap().gateway, Some(ip("2001:db8:3::1")));
        // Its push differs in an address and a route.
        let mut new = TunnelSettings { server: Some(next), ..old.clone() };
        new.v4 = Some("10.8.0.7/24".parse().unwrap());
        new.routes.pop();
        tunnel.apply(&new).unwrap();
        let lines = table(&mut netlink);
        assert!(
            !lines.iter().any(|line| line.contains("10.9.0.0") || line.contains("198.51.100.1"))
        );
        assert_eq!(netlink.route_to(next).unwrap().gateway, Some(ip("2001:db8:3::1")));
        let addresses = netlink.local_addresses().unwrap();
        let own: Vec<String> = addresses
            .iter()
            .filter(|(at, net)| *at == tun.index() && !net.to_string().starts_with("fe80"))
            .map(|(_, net)| net.to_string())
            .collect();
        assert_eq!(own, ["10.8.0.7/24", "fd00:8::2/64"]);
        tunnel.revert();
        drop((tunnel, tun));
        assert_eq!(table(&mut netlink), before);
    }

    #[test]
    fn an_mtu_that_switches_ipv6_off_is_refused() {
        let mut tunnel = TunnelConfig::new("tun0", 1).unwrap();
        let v6 = Some("fd00::1/64".parse().unwrap());
        let error = tunnel.apply(&TunnelSettings { v6, mtu: 1279, ..TunnelSettings::default() });
        assert!(error.unwrap_err().contains("1280"));
    }
}
