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
        for route in &settings.routes {
            self.route(*route);
        }
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

impl Drop for TunnelConfig {
    fn drop(&mut self) {
        self.revert();
    }
}
