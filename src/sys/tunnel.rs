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
use super::leftovers;
use super::netlink::{Address, Link, Netlink, Route};
use super::outside::{self, Outside};
use crate::engine::{TunnelRoute, TunnelSettings, Via};

/// Below this MTU the kernel silently takes IPv6 off an interface.
const MIN_V6_MTU: u16 = 1280;

/// The configuration of one TUN interface; `drop` takes it back.
#[derive(Debug)]
pub struct TunnelConfig {
    netlink: Netlink,
    name: String,
    interface: u32,
    /// How the device was found, if it was there before us.
    found: Option<Link>,
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
            found: None,
            addresses: Vec::new(),
            routes: Vec::new(),
            outside: Outside::new(interface),
            delegated: Delegated::default(),
        })
    }

    /// Removes what a process that was killed has left behind. If the device was there before us, it is to
    /// be again as it was `found`, at the end.
    pub fn begin(&mut self, found: Option<Link>) {
        leftovers::remove(&mut self.netlink, self.interface);
        self.found = found;
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
        let link = Link { mtu: settings.mtu, up: true };
        self.netlink.set_link(self.interface, link).map_err(|error| {
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
        let Some(mut found) = self.found else { return };
        // An interface that goes down loses its IPv6 addresses: those that are left are somebody's.
        let left = self.netlink.local_addresses().unwrap_or_default();
        found.up |= left.iter().any(|(at, net)| match net {
            IpNet::V6(net) => *at == self.interface && !net.addr().is_unicast_link_local(),
            IpNet::V4(_) => false,
        });
        if let Err(error) = self.netlink.set_link(self.interface, found) {
            log::debug!("{}: restoring MTU and state: {error}", self.name);
        }
    }
}

#[cfg(test)]
mod tests;
