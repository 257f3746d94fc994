//! Options about the tunnel that a client's file may hold and a server may push: one parser for both
//! [7.3, 10.3].
//!
//! What several of them come to together is decided by the client engine, which knows both lists.

use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::dns::Dns;
use super::{DELEGATED_PREFIX, STABLE_ADDRESS};

/// Why an option is unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionError {
    /// Something that must be an address, or one of its keywords, is not.
    Address,
    /// Not a network mask.
    Mask,
    /// Not a number, or out of range.
    Number,
    /// An unknown flag or keyword.
    Keyword,
    /// Too few or too many arguments, or an unknown form.
    Form,
    /// More of them than anybody needs.
    TooMany,
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "an address is expected (names are not looked up)",
            Self::Mask => "a network mask is expected",
            Self::Number => "a number is expected, or it is out of range",
            Self::Keyword => "an unknown keyword",
            Self::Form => "the arguments do not have the form that this directive takes",
            Self::TooMany => "too many of them",
        })
    }
}

impl core::error::Error for OptionError {}

/// How `ifconfig`'s second argument reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// `subnet`: a netmask.
    Subnet,
    /// `net30`, `p2p`: the other end's address.
    PointToPoint,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// A network, host bits cleared.
    Net(IpNet),
    /// `vpn_gateway` with this prefix length.
    VpnGateway(u8),
    /// `remote_host` with this prefix length.
    RemoteHost(u8),
}

/// By which next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// Not given, `default` or `vpn_gateway`: into the tunnel.
    Tunnel,
    /// `net_gateway`: where it went before there was a tunnel.
    Outside,
    /// `remote_host`: the server's own address.
    RemoteHost,
    /// This router.
    Address(IpAddr),
}

/// One `route` or `route-ipv6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteOption {
    /// Where it leads.
    pub destination: Destination,
    /// By which next hop.
    pub gateway: Gateway,
    /// `None` takes `route-metric`.
    pub metric: Option<u32>,
}

/// `redirect-gateway` and `redirect-private`; several lines add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Redirect {
    /// The default route goes into the tunnel (`redirect-gateway`).
    pub default_route: bool,
    /// By two halves that leave the default route as it is.
    pub def1: bool,
    /// IPv6, too.
    pub ipv6: bool,
    /// `!ipv4`: not IPv4.
    pub not_ipv4: bool,
    /// The server is on the same network: no host route for it.
    pub local: bool,
    /// Find out whether it is; a host route that is not needed does no harm, so this changes nothing.
    pub autolocal: bool,
    /// Keep reaching the host's own DNS servers outside the tunnel.
    pub bypass_dns: bool,
    /// The same for its DHCP server.
    pub bypass_dhcp: bool,
    /// No traffic to the local network while the tunnel is up.
    pub block_local: bool,
}

/// One option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelOption {
    /// `topology`.
    Topology(Addressing),
    /// `ifconfig`.
    Ifconfig(Ipv4Addr, Ipv4Addr),
    /// `ifconfig-ipv6`.
    IfconfigV6(Ipv6Net, Option<Ipv6Addr>),
    /// `setenv-safe` with [`STABLE_ADDRESS`]: an IPv6 address beside the other one.
    StableV6(Ipv6Net),
    /// `setenv-safe` with [`DELEGATED_PREFIX`]: a prefix for the network behind the client.
    Delegated(Ipv6Net),
    /// `route`.
    Route(RouteOption),
    /// `route-ipv6`.
    RouteV6(RouteOption),
    /// `route-gateway`; `None` for `dhcp`, which means nothing to a TUN device.
    RouteGateway(Option<Ipv4Addr>),
    /// `route-ipv6-gateway`.
    RouteGatewayV6(Ipv6Addr),
    /// `route-metric`.
    RouteMetric(u32),
    /// `redirect-gateway`, `redirect-private`.
    Redirect(Redirect),
    /// `block-ipv6`.
    BlockIpv6,
    /// `dhcp-option`, its arguments.
    Dhcp(Vec<String>),
    /// `dns`, its arguments.
    Dns(Vec<String>),
    /// `tun-mtu`.
    TunMtu(u16),
    /// `persist-tun`.
    PersistTun,
    /// `inactive`: seconds, and the tunnel bytes in them that count as activity.
    Inactive(u32, u64),
    /// `session-timeout`: seconds.
    SessionTimeout(u32),
}

impl TunnelOption {
    /// Reads one option; `Ok(None)` when it is none of these.
    pub fn parse(words: &[&str]) -> Result<Option<Self>, OptionError> {
        let option = match words {
            ["topology", "subnet"] => Self::Topology(Addressing::Subnet),
            ["topology", "net30" | "p2p"] => Self::Topology(Addressing::PointToPoint),
            ["topology", ..] => return Err(OptionError::Keyword),
            ["ifconfig", local, remote] => Self::Ifconfig(v4(local)?, v4(remote)?),
            ["ifconfig-ipv6", net] => Self::IfconfigV6(v6_net(net)?, None),
            ["ifconfig-ipv6", net, remote] => Self::IfconfigV6(
                v6_net(net)?,
                Some(remote.parse().map_err(|_| OptionError::Address)?),
            ),
            ["setenv-safe", STABLE_ADDRESS, net] => Self::StableV6(v6_net(net)?),
            ["setenv-safe", DELEGATED_PREFIX, net] => Self::Delegated(v6_net(net)?.trunc()),
            ["route", arguments @ ..] => Self::Route(route_v4(arguments)?),
            ["route-ipv6", arguments @ ..] => Self::RouteV6(route_v6(arguments)?),
            ["route-gateway", "dhcp"] => Self::RouteGateway(None),
            ["route-gateway", address] => Self::RouteGateway(Some(v4(address)?)),
            ["route-ipv6-gateway", address] => {
                Self::RouteGatewayV6(address.parse().map_err(|_| OptionError::Address)?)
            }
            ["route-metric", metric] => Self::RouteMetric(number(metric)?),
            ["redirect-gateway", flags @ ..] => Self::Redirect(redirect(true, flags)?),
            ["redirect-private", flags @ ..] => Self::Redirect(redirect(false, flags)?),
            ["block-ipv6"] => Self::BlockIpv6,
            ["dhcp-option", arguments @ ..] => {
                Dns::default().add_dhcp(arguments)?;
                Self::Dhcp(owned(arguments))
            }
            ["dns", arguments @ ..] => {
                Dns::default().add(arguments)?;
                Self::Dns(owned(arguments))
            }
            ["tun-mtu", mtu] | ["tun-mtu", mtu, _] => Self::TunMtu(number(mtu)?),
            ["persist-tun"] => Self::PersistTun,
            ["inactive", seconds] => Self::Inactive(number(seconds)?, 0),
            ["inactive", seconds, bytes] => Self::Inactive(number(seconds)?, number(bytes)?),
            ["session-timeout", seconds] => Self::SessionTimeout(number(seconds)?),
            [name, ..] if Self::NAMES.contains(name) => return Err(OptionError::Form),
            _ => return Ok(None),
        };
        Ok(Some(option))
    }

    /// What these options are called.
    pub const NAMES: [&str; 17] = [
        "topology",
        "ifconfig",
        "ifconfig-ipv6",
        "route",
        "route-ipv6",
        "route-gateway",
        "route-ipv6-gateway",
        "route-metric",
        "redirect-gateway",
        "redirect-private",
        "block-ipv6",
        "dhcp-option",
        "dns",
        "tun-mtu",
        "persist-tun",
        "inactive",
        "session-timeout",
    ];

    /// The name of the directive; both kinds of redirection share one.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Topology(_) => "topology",
            Self::Ifconfig(..) => "ifconfig",
            Self::IfconfigV6(..) => "ifconfig-ipv6",
            Self::StableV6(_) | Self::Delegated(_) => "setenv-safe",
            Self::Route(_) => "route",
            Self::RouteV6(_) => "route-ipv6",
            Self::RouteGateway(_) => "route-gateway",
            Self::RouteGatewayV6(_) => "route-ipv6-gateway",
            Self::RouteMetric(_) => "route-metric",
            Self::Redirect(_) => "redirect-gateway",
            Self::BlockIpv6 => "block-ipv6",
            Self::Dhcp(_) => "dhcp-option",
            Self::Dns(_) => "dns",
            Self::TunMtu(_) => "tun-mtu",
            Self::PersistTun => "persist-tun",
            Self::Inactive(..) => "inactive",
            Self::SessionTimeout(_) => "session-timeout",
        }
    }

    /// Whether `route-nopull` keeps this one out when it is pushed.
    pub const fn is_routing(&self) -> bool {
        match self {
            Self::Route(_)
            | Self::RouteV6(_)
            | Self::RouteMetric(_)
            | Self::Redirect(_)
            | Self::BlockIpv6
            | Self::Dhcp(_)
            | Self::Dns(_) => true,
            Self::Topology(_)
            | Self::Ifconfig(..)
            | Self::IfconfigV6(..)
            | Self::StableV6(_)
            | Self::Delegated(_)
            | Self::RouteGateway(_)
            | Self::RouteGatewayV6(_)
            | Self::TunMtu(_)
            | Self::PersistTun
            | Self::Inactive(..)
            | Self::SessionTimeout(_) => false,
        }
    }
}

impl Redirect {
    /// Both lines together.
    pub const fn and(self, other: Self) -> Self {
        Self {
            default_route: self.default_route | other.default_route,
            def1: self.def1 | other.def1,
            ipv6: self.ipv6 | other.ipv6,
            not_ipv4: self.not_ipv4 | other.not_ipv4,
            local: self.local | other.local,
            autolocal: self.autolocal | other.autolocal,
            bypass_dns: self.bypass_dns | other.bypass_dns,
            bypass_dhcp: self.bypass_dhcp | other.bypass_dhcp,
            block_local: self.block_local | other.block_local,
        }
    }
}

/// All DNS lines of a list together.
pub fn dns<'a>(options: impl IntoIterator<Item = &'a TunnelOption>) -> Dns {
    let mut dns = Dns::default();
    for option in options {
        // What does not parse never became an option; a tenth address of a server is left out.
        let _ = match option {
            TunnelOption::Dhcp(words) => dns.add_dhcp(&borrowed(words)),
            TunnelOption::Dns(words) => dns.add(&borrowed(words)),
            _ => Ok(()),
        };
    }
    dns.settle()
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn borrowed(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn number<T: core::str::FromStr>(text: &str) -> Result<T, OptionError> {
    text.parse().map_err(|_| OptionError::Number)
}

fn v4(text: &str) -> Result<Ipv4Addr, OptionError> {
    text.parse().map_err(|_| OptionError::Address)
}

/// Without bits it is a /64, as in OpenVPN.
fn v6_net(text: &str) -> Result<Ipv6Net, OptionError> {
    match text.parse::<Ipv6Addr>() {
        Ok(address) => Ipv6Net::new(address, 64).map_err(|_| OptionError::Address),
        Err(_) => text.parse().map_err(|_| OptionError::Address),
    }
}

/// `net [mask [gateway [metric]]]`, `default` standing for what would be without.
fn route_v4(words: &[&str]) -> Result<RouteOption, OptionError> {
    let (target, rest) = words.split_first().ok_or(OptionError::Form)?;
    if rest.len() > 3 {
        return Err(OptionError::Form);
    }
    let mask = match rest.first() {
        None | Some(&"default") => Ipv4Addr::BROADCAST,
        Some(mask) => mask.parse().map_err(|_| OptionError::Mask)?,
    };
    let bits = ipnet::ipv4_mask_to_prefix(mask).map_err(|_| OptionError::Mask)?;
    let destination = match *target {
        "vpn_gateway" => Destination::VpnGateway(bits),
        "remote_host" => Destination::RemoteHost(bits),
        address => {
            let net = Ipv4Net::new(v4(address)?, bits).map_err(|_| OptionError::Mask)?;
            Destination::Net(IpNet::V4(net.trunc()))
        }
    };
    let gateway = match rest.get(1) {
        None | Some(&"default" | &"vpn_gateway") => Gateway::Tunnel,
        Some(&"net_gateway") => Gateway::Outside,
        Some(&"remote_host") => Gateway::RemoteHost,
        Some(address) => Gateway::Address(v4(address)?.into()),
    };
    Ok(RouteOption { destination, gateway, metric: metric(rest.get(2))? })
}

/// `net/bits [gateway [metric]]`.
fn route_v6(words: &[&str]) -> Result<RouteOption, OptionError> {
    let (target, rest) = words.split_first().ok_or(OptionError::Form)?;
    if rest.len() > 2 {
        return Err(OptionError::Form);
    }
    let net = match target.parse::<Ipv6Addr>() {
        Ok(host) => Ipv6Net::from(host),
        Err(_) => target.parse::<Ipv6Net>().map_err(|_| OptionError::Address)?,
    };
    let gateway = match rest.first() {
        None | Some(&"default" | &"vpn_gateway") => Gateway::Tunnel,
        Some(&"net_gateway" | &"net_gateway_ipv6") => Gateway::Outside,
        Some(address) => {
            Gateway::Address(IpAddr::V6(address.parse().map_err(|_| OptionError::Address)?))
        }
    };
    let destination = Destination::Net(IpNet::V6(net.trunc()));
    Ok(RouteOption { destination, gateway, metric: metric(rest.get(1))? })
}

fn metric(word: Option<&&str>) -> Result<Option<u32>, OptionError> {
    match word {
        None | Some(&"default") => Ok(None),
        Some(text) => number(text).map(Some),
    }
}

fn redirect(default_route: bool, flags: &[&str]) -> Result<Redirect, OptionError> {
    let mut redirect = Redirect { default_route, ..Redirect::default() };
    for flag in flags {
        match *flag {
            "def1" => redirect.def1 = true,
            "ipv6" => redirect.ipv6 = true,
            "!ipv4" => redirect.not_ipv4 = true,
            "local" => redirect.local = true,
            "autolocal" => redirect.autolocal = true,
            "bypass-dns" => redirect.bypass_dns = true,
            "bypass-dhcp" => redirect.bypass_dhcp = true,
            "block-local" => redirect.block_local = true,
            _ => return Err(OptionError::Keyword),
        }
    }
    Ok(redirect)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<TunnelOption>, OptionError> {
        TunnelOption::parse(&line.split(' ').collect::<Vec<_>>())
    }

    fn route(line: &str) -> RouteOption {
        match parse(line) {
            Ok(Some(TunnelOption::Route(route) | TunnelOption::RouteV6(route))) => route,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn routes_in_every_form() {
        let net = |text: &str| Destination::Net(text.parse().unwrap());
        for (line, destination, gateway, metric) in [
            ("route 10.1.2.3", net("10.1.2.3/32"), Gateway::Tunnel, None),
            ("route 10.1.2.3 default default 7", net("10.1.2.3/32"), Gateway::Tunnel, Some(7)),
            ("route 10.1.2.3 255.255.0.0", net("10.1.0.0/16"), Gateway::Tunnel, None),
            ("route 10.0.0.0 255.0.0.0 net_gateway", net("10.0.0.0/8"), Gateway::Outside, None),
            (
                "route remote_host 255.255.255.255 net_gateway 1",
                Destination::RemoteHost(32),
                Gateway::Outside,
                Some(1),
            ),
            ("route vpn_gateway", Destination::VpnGateway(32), Gateway::Tunnel, None),
            ("route 10.0.0.0 255.0.0.0 remote_host", net("10.0.0.0/8"), Gateway::RemoteHost, None),
            (
                "route 10.0.0.0 255.0.0.0 192.0.2.1",
                net("10.0.0.0/8"),
                Gateway::Address("192.0.2.1".parse().unwrap()),
                None,
            ),
            ("route-ipv6 fd00::1/64", net("fd00::/64"), Gateway::Tunnel, None),
            ("route-ipv6 fd00::1", net("fd00::1/128"), Gateway::Tunnel, None),
            ("route-ipv6 ::/0 default 3", net("::/0"), Gateway::Tunnel, Some(3)),
            (
                "route-ipv6 fd00::/8 fe80::1 3",
                net("fd00::/8"),
                Gateway::Address("fe80::1".parse().unwrap()),
                Some(3),
            ),
        ] {
            assert_eq!(route(line), RouteOption { destination, gateway, metric }, "{line}");
        }
    }

    #[test]
    fn what_is_no_option_and_what_is_a_bad_one() {
        for line in ["ping 10", "peer-id 3", "", "routes 1"] {
            assert_eq!(parse(line), Ok(None), "{line}");
        }
        for line in [
            "route",
            "route x",
            "route 10.0.0.0 255.0.255.0",
            "route 10.0.0.0 255.0.0.0 a 1",
            "route 10.0.0.0 255.0.0.0 default -1",
            "route 1.2.3.4 255.255.255.255 default 1 2",
            "route-ipv6 fd00::/129",
            "route-ipv6 10.0.0.0/8",
            "ifconfig 10.8.0.1",
            "ifconfig-ipv6 x y",
            "redirect-gateway sideways",
            "topology ring",
            "tun-mtu 70000",
            "inactive soon",
            "block-ipv6 please",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn every_name_is_recognised() {
        for name in TunnelOption::NAMES {
            assert_ne!(parse(&format!("{name} a b c d e")), Ok(None), "{name}");
        }
    }

    #[test]
    fn redirections_add_up() {
        let Ok(Some(TunnelOption::Redirect(first))) = parse("redirect-private def1 local") else {
            panic!()
        };
        let Ok(Some(TunnelOption::Redirect(second))) = parse("redirect-gateway ipv6 !ipv4") else {
            panic!()
        };
        let both = first.and(second);
        assert!(both.default_route && both.def1 && both.ipv6 && both.not_ipv4 && both.local);
        assert!(!both.block_local);
    }
}
