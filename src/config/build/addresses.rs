//! A server's networks, own addresses and pools [9.1], and the look at how they fit together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::{Build, follow, networks};
use crate::config::lex::Line;
use crate::config::{Follow, PoolV4, PoolV6, Topology, TunnelRoute, Via};

/// What a client accepts as the length of its prefix; a shorter one is ours alone [7.3].
const LONGEST_PREFIX: u8 = 124;
/// Shortest prefix for a VPN: what a provider gives to a site.
const SHORTEST_PREFIX: u8 = 48;
/// `ifconfig-ipv6` without a length.
const USUAL_PREFIX: u8 = 64;

/// All that a server knows about its addresses.
#[derive(Default)]
pub(super) struct Addresses {
    pub(super) topology: Topology,
    pub(super) v4: Option<Ipv4Net>,
    pub(super) v4_peer: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Net>,
    pub(super) v4_pool: Option<PoolV4>,
    pub(super) v6_pool: Option<PoolV6>,
    pub(super) follow: Option<Follow>,
    /// The network of the tunnel where no address of ours covers it (`net30`, `p2p`).
    pub(super) route: Option<TunnelRoute>,
}

/// `topology`, `server`, `server-ipv6`, `ifconfig`, `ifconfig-ipv6` and both pools.
pub(super) fn addresses(b: &mut Build<'_>) -> Addresses {
    let mut found = Addresses { topology: topology(b), ..Addresses::default() };
    found.server(b);
    found.server_ipv6(b);
    found.ifconfig(b);
    found.ifconfig_ipv6(b);
    found.pool(b);
    found.pool_ipv6(b);
    found
}

/// `topology`; `subnet` is the default of OpenVPN 2.7, and what every client understands.
fn topology(b: &mut Build<'_>) -> Topology {
    let Some(line) = b.line("topology") else { return Topology::default() };
    let all = [Topology::Subnet, Topology::Net30, Topology::P2p];
    let found = all.into_iter().find(|topology| line.arg(0) == Some(topology.as_str()));
    if found.is_none() {
        b.error(line, "must be `subnet`, `net30` or `p2p`");
    }
    found.unwrap_or_default()
}

impl Addresses {
    fn server(&mut self, b: &mut Build<'_>) {
        let Some(line) = b.line("server") else { return };
        let Some(net) = network_v4(b, line) else { return };
        let host = |n: u32| Ipv4Addr::from_bits(net.network().to_bits() + n);
        self.v4 = Ipv4Net::new(host(1), net.prefix_len()).ok();
        match line.arg(2) {
            None => self.v4_pool = Some(PoolV4::of_network(net, self.topology)),
            Some("nopool") => {}
            Some(_) => b.error(line, "the third argument can only be `nopool`"),
        }
        match self.topology {
            Topology::Subnet => {}
            Topology::Net30 | Topology::P2p => {
                self.v4_peer = Some(host(2));
                self.route =
                    Some(TunnelRoute { destination: net.into(), via: Via::Tunnel, metric: 0 });
            }
        }
    }

    fn server_ipv6(&mut self, b: &mut Build<'_>) {
        let Some(line) = b.line("server-ipv6") else { return follow::device_alone(b) };
        if line.arg(0) == Some("auto") {
            self.follow = follow::follow(b);
            self.v6 = follow::own_prefix(b, line).and_then(first_host);
            return;
        }
        follow::device_alone(b);
        if line.arg(1).is_some() {
            return b.error(line, "a second prefix goes only with `auto`");
        }
        let Some(net) = network_v6(b, line) else { return };
        self.v6 = first_host(net);
        self.v6_pool = Some(PoolV6::of_prefix(net));
    }

    fn ifconfig(&mut self, b: &mut Build<'_>) {
        let Some(line) = b.line("ifconfig") else { return };
        if b.source.mentions("server") {
            return b.error(line, "`server` sets our address already; keep one of them");
        }
        let address = |index| line.arg(index)?.parse::<Ipv4Addr>().ok();
        let (Some(own), Some(second)) = (address(0), address(1)) else {
            return b
                .error(line, "needs two addresses: ours, and the network mask or the other end");
        };
        match (self.topology, Ipv4Net::with_netmask(own, second)) {
            (Topology::Subnet, Ok(net)) if net.prefix_len() < 31 => {
                check_range(b, line, own.into());
                self.v4 = Some(net);
            }
            (Topology::Subnet, _) => {
                let text = "is not a network mask, which `topology subnet` needs here";
                b.error(line, format!("{second} {text}"));
            }
            (Topology::Net30 | Topology::P2p, Ok(_)) if second.octets()[0] == 255 => {
                b.error(
                    line,
                    format!("{second} is a network mask; `topology {}` needs the address of the other end here", self.topology.as_str()),
                );
            }
            (Topology::Net30 | Topology::P2p, _) => {
                check_range(b, line, own.into());
                self.v4 = Some(own.into());
                self.v4_peer = Some(second);
            }
        }
    }

    fn ifconfig_ipv6(&mut self, b: &mut Build<'_>) {
        let Some(line) = b.line("ifconfig-ipv6") else { return };
        if b.source.mentions("server-ipv6") {
            return b.error(line, "`server-ipv6` sets our address already; keep one of them");
        }
        let text = line.arg(0).unwrap_or_default();
        let usual = || Ipv6Net::new(text.parse().ok()?, USUAL_PREFIX).ok();
        let Some(net) = text.parse::<Ipv6Net>().ok().or_else(usual) else {
            return b.error(line, "needs our address with its prefix length, as in `ifconfig-ipv6 fd00:1234::1/64 fd00:1234::2`");
        };
        if line.arg(1).is_none_or(|peer| peer.parse::<Ipv6Addr>().is_err()) {
            return b.error(
                line,
                "the second argument must be an IPv6 address; a TUN device takes any",
            );
        }
        if check_prefix(b, line, net) && check_range(b, line, net.addr().into()) {
            self.v6 = Some(net);
        }
    }

    fn pool(&mut self, b: &mut Build<'_>) {
        let Some(line) = b.line("ifconfig-pool") else { return };
        let address = |index| line.arg(index)?.parse::<Ipv4Addr>().ok();
        let (Some(start), Some(end)) = (address(0), address(1)) else {
            return b.error(line, "needs its first and its last address");
        };
        let netmask = address(2);
        if line.arg(2).is_some()
            && netmask.is_none_or(|mask| ipnet::ipv4_mask_to_prefix(mask).is_err())
        {
            return b.error(line, "the third argument must be a network mask");
        }
        let mut pool = PoolV4::range(start, end, self.topology);
        pool.netmask = netmask;
        if start > end {
            return b.error(line, format!("{end} comes before {start}"));
        }
        if end.to_bits() - start.to_bits() >= 65_536 {
            return b.error(line, "a pool has room for 65536 addresses at most");
        }
        let Some(own) = self.v4 else {
            return b.error(line, "a server that gives IPv4 addresses needs one of its own; add `ifconfig` (or use `server` instead)");
        };
        let (first, last) = pool.bounds();
        let outside = !own.contains(&first) || !own.contains(&last);
        if self.topology == Topology::Subnet && outside && !is_routed(b, first.into()) {
            b.warn(line, format!("reaches beyond our network {}; packets for those clients need a `route` into the tunnel", own.trunc()));
        }
        self.v4_pool = Some(pool);
    }

    fn pool_ipv6(&mut self, b: &mut Build<'_>) {
        let Some(line) = b.line("ifconfig-ipv6-pool") else { return };
        let Some(Ok(start)) = line.arg(0).map(str::parse::<Ipv6Net>) else {
            return b.error(line, "needs its first address with the prefix length, as in `ifconfig-ipv6-pool fd00:1234::1000/64`");
        };
        let Some(own) = self.v6 else {
            return b.error(line, "a server that gives IPv6 addresses needs one of its own; add `ifconfig-ipv6` (or use `server-ipv6` instead)");
        };
        if self.follow.is_some() {
            return b.error(
                line,
                "with `server-ipv6 auto` a client's name decides on its address; remove the line",
            );
        }
        let pool = PoolV6::from_start(start);
        let (first, last) = pool.bounds();
        if pool.count == 0 {
            return b.error(line, "holds no address");
        }
        let outside = !own.contains(&first) || !own.contains(&last);
        if outside && !is_routed(b, first.into()) {
            b.warn(line, format!("reaches beyond our prefix {}; packets for those clients need a `route-ipv6` into the tunnel", own.trunc()));
        }
        self.v6_pool = Some(pool);
    }
}

/// Our own address in a prefix.
fn first_host(net: Ipv6Net) -> Option<Ipv6Net> {
    let first = Ipv6Addr::from_bits(net.network().to_bits() | 1);
    Ipv6Net::new(first, net.prefix_len()).ok()
}

/// Whether a `route` or `route-ipv6` line covers this address.
fn is_routed(b: &Build<'_>, address: IpAddr) -> bool {
    let v4 = b.source.all("route").filter_map(|line| {
        let mask = line.arg(1).unwrap_or("255.255.255.255");
        Ipv4Net::with_netmask(line.arg(0)?.parse().ok()?, mask.parse().ok()?).ok()
    });
    let v6 = b.source.all("route-ipv6").filter_map(|line| line.arg(0)?.parse::<Ipv6Net>().ok());
    match address {
        IpAddr::V4(address) => v4.into_iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => v6.into_iter().any(|net| net.contains(&address)),
    }
}

fn network_v4(b: &mut Build<'_>, line: &Line) -> Option<Ipv4Net> {
    let net = networks::masked(b, line, line.arg(1)?, "`server 10.8.0.0 255.255.255.0`")?;
    let (address, mask) = (net.addr(), net.netmask());
    if !(16..=29).contains(&net.prefix_len()) {
        b.error(
            line,
            format!(
                "the mask must be between 255.255.0.0 (/16) and 255.255.255.248 (/29), not /{}",
                net.prefix_len()
            ),
        );
        return None;
    }
    if net.addr() != net.network() {
        b.error(
            line,
            format!(
                "{address} is inside the network; did you mean `server {} {mask}`?",
                net.network()
            ),
        );
        return None;
    }
    check_range(b, line, address.into()).then_some(net)
}

pub(super) fn network_v6(b: &mut Build<'_>, line: &Line) -> Option<Ipv6Net> {
    let Ok(net) = line.arg(usize::from(line.arg(0)? == "auto"))?.parse::<Ipv6Net>() else {
        b.error(line, "needs a prefix and its length, as in `server-ipv6 fd00:1234:5678::/64`");
        return None;
    };
    if !check_prefix(b, line, net) {
        return None;
    }
    if net.addr() != net.network() {
        b.error(
            line,
            format!(
                "{} is inside the prefix; did you mean `server-ipv6 {}`?",
                net.addr(),
                net.trunc()
            ),
        );
        return None;
    }
    check_range(b, line, net.addr().into()).then_some(net)
}

/// Whether a VPN can have a prefix of this length.
fn check_prefix(b: &mut Build<'_>, line: &Line, net: Ipv6Net) -> bool {
    let good = (SHORTEST_PREFIX..=LONGEST_PREFIX).contains(&net.prefix_len());
    if !good {
        b.error(
            line,
            format!(
                "the prefix length must be between {SHORTEST_PREFIX} and {LONGEST_PREFIX}, not {}; clients accept nothing longer",
                net.prefix_len()
            ),
        );
    }
    good
}

/// Whether an address is for use in networks; doubtful ones get a warning.
fn check_range(b: &mut Build<'_>, line: &Line, address: IpAddr) -> bool {
    let (never, advice) = match address {
        IpAddr::V4(v4) => (
            v4.is_loopback() || v4.is_multicast() || v4.is_link_local() || v4.is_unspecified(),
            "take one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
        ),
        IpAddr::V6(v6) => (
            v6.is_multicast()
                || v6.is_unicast_link_local()
                || v6.is_loopback()
                || v6.is_unspecified(),
            "take a part of your own prefix, or a random one of fd00::/8",
        ),
    };
    if never {
        b.error(line, format!("{address} is not for use in a network; {advice}"));
        return false;
    }
    let public = match address {
        IpAddr::V4(v4) => !v4.is_private() && !is_shared(v4),
        IpAddr::V6(_) => false,
    };
    if is_documentation(address) {
        b.warn(line, format!("{address} is reserved for documents; {advice}"));
    } else if public {
        b.warn(line, format!("{address} is public address space; if it is not yours, clients cannot reach its owner any more"));
    }
    true
}

/// Whether an address is of a range for documents (RFC 5737, RFC 3849, RFC 9637).
pub(super) fn is_documentation(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_documentation(),
        IpAddr::V6(v6) => {
            let old = Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32);
            let new = Ipv6Net::new_assert(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20);
            old.contains(&v6) || new.contains(&v6)
        }
    }
}

/// Carrier-grade NAT space (RFC 6598), which people use for VPNs too.
fn is_shared(address: Ipv4Addr) -> bool {
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10).contains(&address)
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{error_of, loaded, server_role};
    use crate::config::{PoolV4, PoolV6, Topology};

    /// A server without `server`, with these lines.
    fn manual(lines: &str) -> (crate::config::ServerRole, Vec<String>) {
        let loaded = loaded(&format!("mode server\ntls-server\n{lines}\n"));
        let warnings = loaded.warnings.iter().map(ToString::to_string).collect();
        (server_role(&loaded).clone(), warnings)
    }

    #[test]
    fn topologies_make_the_addresses_of_stock_servers() {
        let (role, _) = manual("server 10.8.0.0 255.255.255.0\ntopology net30");
        assert_eq!(role.v4, "10.8.0.1/24".parse().ok());
        assert_eq!(role.v4_peer, Some([10, 8, 0, 2].into()));
        let routes: Vec<_> = role.routes.iter().map(|r| r.destination.to_string()).collect();
        assert_eq!(routes, ["10.8.0.0/24"]);
        let net = "10.8.0.0/24".parse().unwrap();
        assert_eq!(role.v4_pool, Some(PoolV4::of_network(net, Topology::Net30)));
        let (role, _) = manual("server 10.8.0.0 255.255.255.0 nopool\ntopology p2p");
        assert_eq!((role.v4_pool, role.v4_peer), (None, Some([10, 8, 0, 2].into())));
        let (role, _) = manual("server 10.8.0.0 255.255.255.0");
        assert_eq!((role.v4_peer, role.routes.len()), (None, 0));
    }

    #[test]
    fn without_the_helpers_each_address_is_given_by_itself() {
        let (role, warnings) = manual(
            "ifconfig 10.9.0.1 255.255.255.0\nifconfig-pool 10.9.0.100 10.9.0.199 255.255.0.0\n\
             ifconfig-ipv6 fd00:9::1 fd00:9::2\nifconfig-ipv6-pool fd00:9::5000/64",
        );
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!((role.v4, role.v6), ("10.9.0.1/24".parse().ok(), "fd00:9::1/64".parse().ok()));
        let pool = role.v4_pool.unwrap();
        assert_eq!((pool.first, pool.count), ([10, 9, 0, 100].into(), 100));
        assert_eq!(pool.netmask, Some([255, 255, 0, 0].into()));
        let first = "fd00:9::5000".parse().unwrap();
        assert_eq!(role.v6_pool, Some(PoolV6 { first, count: 65_536 }));
        let (role, _) =
            manual("topology p2p\nifconfig 10.9.0.1 10.9.0.2\nifconfig-pool 10.9.0.4 10.9.0.9");
        assert_eq!(role.v4, "10.9.0.1/32".parse().ok());
        assert_eq!(role.v4_peer, Some([10, 9, 0, 2].into()));
        let (role, _) = manual("ifconfig-ipv6 fd00:9::1/112 fd00:9::2");
        assert_eq!((role.v4, role.v6.map(|own| own.prefix_len())), (None, Some(112)));
        // A pool of one's own choice in place of the usual one.
        let (role, _) = manual("server-ipv6 fd00:9::/48\nifconfig-ipv6-pool fd00:9::9000/64");
        assert_eq!(
            role.v6_pool.unwrap().first,
            "fd00:9::9000".parse::<std::net::Ipv6Addr>().unwrap()
        );
    }

    #[test]
    fn pools_outside_of_our_networks_are_remarked_unless_routed() {
        let v4 = "ifconfig 10.9.0.1 255.255.255.0\nifconfig-pool 10.9.1.2 10.9.1.9\n";
        let v6 = "ifconfig-ipv6 fd00:9::1/64 fd00:9::2\nifconfig-ipv6-pool fd00:8::5/64\n";
        let (_, warnings) = manual(&format!("{v4}{v6}"));
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings.iter().all(|text| text.contains("reaches beyond our")), "{warnings:?}");
        let routes = "route 10.9.1.0 255.255.255.0\nroute-ipv6 fd00:8::/64\n";
        let (_, warnings) = manual(&format!("{v4}{v6}{routes}"));
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn contradictions_are_errors() {
        for (lines, expected) in [
            (
                "server 10.8.0.0 255.255.255.0\nifconfig 10.8.0.1 255.255.255.0",
                "sets our address already",
            ),
            ("server-ipv6 fd00::/64\nifconfig-ipv6 fd00::1/64 fd00::2", "sets our address already"),
            ("ifconfig 10.8.0.1 10.8.0.2", "is not a network mask, which `topology subnet` needs"),
            ("topology p2p\nifconfig 10.8.0.1 255.255.255.0", "needs the address of the other end"),
            ("ifconfig here there", "needs two addresses"),
            ("ifconfig-ipv6 fd00::1/128 fd00::2", "between 48 and 124"),
            ("ifconfig-ipv6 fd00::1/64 there", "must be an IPv6 address"),
            ("ifconfig-ipv6 10.8.0.1 fd00::2", "needs our address"),
            ("server-ipv6 fd00::/64\nifconfig-pool 10.8.0.2 10.8.0.9", "needs one of its own"),
            (
                "server 10.8.0.0 255.255.255.0\nifconfig-ipv6-pool fd00::5/64",
                "needs one of its own",
            ),
            ("server 10.8.0.0 255.255.255.0\nifconfig-pool 10.8.0.9 10.8.0.2", "comes before"),
            (
                "server 10.8.0.0 255.255.255.0\nifconfig-pool 10.0.0.9 10.8.0.2",
                "65536 addresses at most",
            ),
            (
                "server 10.8.0.0 255.255.255.0\nifconfig-pool 10.8.0.2 10.8.0.9 10.8.0.0",
                "network mask",
            ),
            ("server-ipv6 fd00::/40", "between 48 and 124"),
            ("server-ipv6 ff02::/64", "not for use in a network"),
            ("", "the VPN has no addresses"),
        ] {
            let error = error_of(&format!("mode server\ntls-server\n{lines}\n"));
            assert!(error.contains(expected), "{error}\nfor {lines}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
