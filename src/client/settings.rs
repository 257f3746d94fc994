//! What the options of the file and of the server come to together: addresses, routes, and what else
//! the tunnel does [7.3, 10.2, 10.3].
//!
//! Where only one can be right a pushed option wins over the file's; routes, DNS and redirections add
//! up. Whatever leaves one IP version half in the tunnel is put in words for the log.

use core::time::Duration;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::pushed::PushError;
use crate::config::ClientRole;
use crate::config::option::{
    self, Addressing, Destination, Gateway, Redirect, RouteOption, TunnelOption,
};
use crate::engine::{TunnelRoute, TunnelSettings, Via};
use crate::limits::{MAX_TUN_MTU, MIN_TUN_MTU};

/// Smallest MTU without IPv6: what every IPv4 host must take.
const MIN_MTU_V4: u16 = 576;
/// Source of our answers to blocked IPv6 when the server has no address there [6.8].
const NOBODY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);

/// The result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settled {
    /// For the device and the system.
    pub(super) tunnel: TunnelSettings,
    /// `block-ipv6`: who answers.
    pub(super) block_ipv6: Option<Ipv6Addr>,
    /// `inactive`: the time, and the bytes in it that count as activity.
    pub(super) inactive: Option<(Duration, u64)>,
    /// `session-timeout`.
    pub(super) session_timeout: Option<Duration>,
    /// `persist-tun`.
    pub(super) persist_tun: bool,
    /// What the user should know.
    pub(super) notes: Vec<String>,
}

/// Options as they come, before their order is irrelevant.
#[derive(Default)]
struct Fold {
    topology: Option<Addressing>,
    v4: Option<(Ipv4Addr, Ipv4Addr)>,
    v6: Option<(Ipv6Net, Option<Ipv6Addr>)>,
    v6_stable: Option<Ipv6Net>,
    delegated: Option<Ipv6Net>,
    routes: Vec<RouteOption>,
    gateway: Option<Ipv4Addr>,
    metric: u32,
    redirect: Redirect,
    block_ipv6: bool,
    mtu: Option<u16>,
    persist_tun: bool,
    inactive: Option<(u32, u64)>,
    session_timeout: Option<u32>,
    notes: Vec<String>,
}

/// Settles the file's options and the pushed ones; `mtu` is the configured one and `server` the
/// address that the tunnel runs to.
pub(super) fn settle(
    role: &ClientRole,
    mtu: u16,
    pushed: &[TunnelOption],
    server: IpAddr,
) -> Result<Settled, PushError> {
    let mut fold = Fold::default();
    role.options.iter().chain(pushed).for_each(|option| fold.take(option));
    let mut settled = fold.finish(mtu, server)?;
    settled.tunnel.delegated_dev.clone_from(&role.delegate_dev);
    settled.tunnel.dns = option::dns(role.options.iter().chain(pushed));
    if role.route_noexec {
        settled.tunnel.routes.clear();
        settled.tunnel.redirected = [false, false];
        (settled.tunnel.bypass_dns, settled.tunnel.block_local) = (false, false);
    }
    if role.ifconfig_noexec {
        (settled.tunnel.v4, settled.tunnel.v4_peer) = (None, None);
        (settled.tunnel.v6, settled.tunnel.v6_stable) = (None, None);
    }
    Ok(settled)
}

impl Fold {
    fn take(&mut self, option: &TunnelOption) {
        match option {
            TunnelOption::Topology(addressing) => self.topology = Some(*addressing),
            TunnelOption::Ifconfig(local, remote) => self.v4 = Some((*local, *remote)),
            TunnelOption::IfconfigV6(net, remote) => self.v6 = Some((*net, *remote)),
            TunnelOption::StableV6(net) => self.v6_stable = Some(*net),
            TunnelOption::Delegated(net) => self.delegated = Some(*net),
            TunnelOption::Route(route) | TunnelOption::RouteV6(route) => self.routes.push(*route),
            TunnelOption::RouteGateway(gateway) => self.gateway = *gateway,
            TunnelOption::RouteMetric(metric) => self.metric = *metric,
            TunnelOption::Redirect(redirect) => self.redirect = self.redirect.and(*redirect),
            TunnelOption::BlockIpv6 => self.block_ipv6 = true,
            TunnelOption::TunMtu(mtu) => self.mtu = Some(*mtu),
            TunnelOption::PersistTun => self.persist_tun = true,
            TunnelOption::Inactive(seconds, bytes) => self.inactive = Some((*seconds, *bytes)),
            TunnelOption::SessionTimeout(seconds) => self.session_timeout = Some(*seconds),
            // DNS is collected as a whole; on a TUN device an IPv6 gateway only names the device.
            TunnelOption::Dhcp(_) | TunnelOption::Dns(_) | TunnelOption::RouteGatewayV6(_) => {}
        }
    }

    fn finish(mut self, mtu: u16, server: IpAddr) -> Result<Settled, PushError> {
        let (v4, v4_peer) = self.addresses_v4()?;
        let v6 = self.v6.map(|(net, _)| net);
        if v4.is_none() && v6.is_none() {
            return Err(PushError(
                "the server gives this client no address, neither IPv4 nor IPv6: its pools are full, \
                 or it has none"
                    .into(),
            ));
        }
        let mut tunnel = TunnelSettings {
            v4,
            v4_peer,
            v6,
            v6_peer: self.v6.and_then(|(_, remote)| remote),
            gateway: self.gateway,
            // Until the line has a global prefix, the two are one.
            v6_stable: self.v6_stable.filter(|net| v6.is_some_and(|v6| v6.addr() != net.addr())),
            // What is captured needs a device that takes it.
            mtu: self.settle_mtu(mtu, v6.is_some() || self.redirect.default_route),
            delegated: self.delegated,
            bypass_dns: self.redirect.bypass_dns,
            block_local: self.redirect.block_local,
            server: (!self.redirect.local).then_some(server),
            ..TunnelSettings::default()
        };
        tunnel.routes = self.routes(&tunnel, server);
        self.redirect(&mut tunnel);
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let responder = self.v6.and_then(|(_, remote)| remote).unwrap_or(NOBODY);
        Ok(Settled {
            tunnel,
            block_ipv6: self.block_ipv6.then_some(responder),
            inactive: self
                .inactive
                .filter(|(period, _)| *period > 0)
                .map(|(period, bytes)| (seconds(period), bytes)),
            session_timeout: self.session_timeout.filter(|limit| *limit > 0).map(seconds),
            persist_tun: self.persist_tun,
            notes: self.notes,
        })
    }

    /// `ifconfig` under the topology; clients assume net30 when none is pushed [7.3].
    fn addresses_v4(&mut self) -> Result<(Option<Ipv4Net>, Option<Ipv4Addr>), PushError> {
        let Some((local, remote)) = self.v4 else { return Ok((None, None)) };
        let netmask = Ipv4Net::with_netmask(local, remote);
        match (self.topology, netmask) {
            (Some(Addressing::Subnet), Ok(net)) => Ok((Some(net), None)),
            (Some(Addressing::Subnet), Err(_)) => Err(PushError(format!(
                "ifconfig {local} {remote}: {remote} is not a netmask, but the topology is subnet"
            ))),
            // No peer has such an address.
            (None, Ok(net)) if remote.octets()[0] == 255 => {
                self.notes.push(format!("ifconfig {local} {remote} has a netmask, so the topology must be subnet; it should be pushed"));
                Ok((Some(net), None))
            }
            (Some(Addressing::PointToPoint) | None, _) => {
                Ok((Ipv4Net::new(local, 32).ok(), Some(remote)))
            }
        }
    }

    fn settle_mtu(&mut self, configured: u16, v6: bool) -> u16 {
        let wanted = self.mtu.unwrap_or(configured);
        let least = if v6 { MIN_TUN_MTU } else { MIN_MTU_V4 };
        let mtu = wanted.clamp(least, MAX_TUN_MTU.max(configured));
        if mtu < wanted {
            self.notes.push(format!("the pushed tun-mtu {wanted} is more than {mtu}, which is used; set tun-mtu in this file to allow more"));
        } else if mtu > wanted {
            self.notes.push(format!("the tun-mtu {wanted} is too small; {mtu} is used"));
        }
        mtu
    }

    /// The routes that can be set. One of an IP version we have no address in would lead into a
    /// black hole.
    fn routes(&mut self, tunnel: &TunnelSettings, server: IpAddr) -> Vec<TunnelRoute> {
        let mut useless = Vec::new();
        let mut routes = Vec::new();
        for route in &self.routes {
            let destination = match route.destination {
                Destination::Net(net) => Some(net),
                Destination::VpnGateway(bits) => {
                    let gateway = self.gateway.or(tunnel.v4_peer);
                    gateway
                        .and_then(|gateway| Some(Ipv4Net::new(gateway, bits).ok()?.trunc().into()))
                }
                Destination::RemoteHost(bits) => match server {
                    IpAddr::V4(server) => {
                        Ipv4Net::new(server, bits).ok().map(|net| net.trunc().into())
                    }
                    IpAddr::V6(_) => None,
                },
            };
            let Some(destination) = destination else {
                let text = "a route to vpn_gateway or remote_host has no meaning here: there is no such IPv4 address";
                self.notes.push(text.to_owned());
                continue;
            };
            let via = way(route.gateway, tunnel, self.gateway, server);
            let usable = match (via, destination) {
                (Via::Tunnel, IpNet::V4(_)) => tunnel.v4.is_some(),
                (Via::Tunnel, IpNet::V6(_)) => tunnel.v6.is_some() || self.block_ipv6,
                (Via::Router(router), _) => router.is_ipv4() == matches!(destination, IpNet::V4(_)),
                (Via::Outside, _) => true,
            };
            if usable {
                let metric = route.metric.unwrap_or(self.metric);
                routes.push(TunnelRoute { destination, via, metric });
            } else {
                useless.push(destination.to_string());
            }
        }
        if !useless.is_empty() {
            let list = useless.join(", ");
            self.notes.push(format!(
                "left out, as there is no address of their kind in the tunnel: routes to {list}"
            ));
        }
        routes
    }

    /// `redirect-gateway`: more specific halves win over a default route without replacing it [10.3].
    /// Without an address the IPv6 ones are set, too: what they catch is answered.
    fn redirect(&mut self, tunnel: &mut TunnelSettings) {
        if !self.redirect.default_route {
            return;
        }
        let v4 = !self.redirect.not_ipv4;
        tunnel.redirected = [
            v4 && tunnel.v4.is_some(),
            self.redirect.ipv6 && (tunnel.v6.is_some() || self.block_ipv6),
        ];
        match (v4, tunnel.v4.is_some()) {
            (true, true) if self.redirect.def1 => {
                let halves = [(Ipv4Addr::UNSPECIFIED, 1), (Ipv4Addr::new(128, 0, 0, 0), 1)];
                let nets = halves.iter().filter_map(|(net, bits)| Ipv4Net::new(*net, *bits).ok());
                tunnel.routes.extend(nets.map(|net| TunnelRoute::tunnel(net.into())));
            }
            (true, true) => tunnel.routes.push(TunnelRoute::tunnel(Ipv4Net::default().into())),
            (true, false) => self.notes.push(
                "IPv4 traffic stays outside the tunnel: redirect-gateway asks for it, but the server gives no IPv4 address"
                    .to_owned(),
            ),
            (false, _) => {}
        }
        // Whoever wants all traffic in the tunnel wants none beside it, whatever is said of IPv6.
        if tunnel.v6.is_none() && !self.block_ipv6 {
            self.block_ipv6 = true;
            self.notes.push("the server gives no IPv6 address: IPv6 traffic of this host is answered as unreachable, so that none goes beside the tunnel".to_owned());
        }
        let parts = [(0, 3), (0x2000, 4), (0x3000, 4), (0xfc00, 7)];
        let nets = parts.iter().filter_map(|(first, bits)| {
            Ipv6Net::new(Ipv6Addr::new(*first, 0, 0, 0, 0, 0, 0, 0), *bits).ok()
        });
        tunnel.routes.extend(nets.map(|net| TunnelRoute::tunnel(net.into())));
    }
}

/// Which way a gateway means. Inside the tunnel there is only one.
fn way(
    gateway: Gateway,
    tunnel: &TunnelSettings,
    route_gateway: Option<Ipv4Addr>,
    server: IpAddr,
) -> Via {
    match gateway {
        Gateway::Tunnel => Via::Tunnel,
        Gateway::Outside => Via::Outside,
        Gateway::RemoteHost => Via::Router(server),
        Gateway::Address(IpAddr::V4(router)) => {
            let inside = tunnel.v4.is_some_and(|net| net.contains(&router))
                || tunnel.v4_peer == Some(router)
                || route_gateway == Some(router);
            if inside { Via::Tunnel } else { Via::Router(router.into()) }
        }
        // A next hop in IPv6 only names the device, as in OpenVPN on TUN.
        Gateway::Address(IpAddr::V6(_)) => Via::Tunnel,
    }
}

#[cfg(test)]
mod tests;
