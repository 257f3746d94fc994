//! `route` and `route-ipv6` of a server: entries for the kernel's table [9.11].
//!
//! On a TUN device a router inside the tunnel only names the device, so such a route leads into
//! the tunnel; which client gets its packets is decided by `iroute`.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::addresses::Addresses;
use super::{Build, networks};
use crate::config::lex::Line;
use crate::config::{Delegate, Export, TunnelRoute, Via};

/// Largest metric the kernel takes as a signed number.
const MAX_METRIC: u32 = i32::MAX as u32;

/// All routes, and `route-gateway`, `route-ipv6-gateway`, `route-metric`, which they fall back on.
pub(super) fn routes(
    b: &mut Build<'_>,
    own: &Addresses,
    delegate: Option<&Delegate>,
) -> Vec<TunnelRoute> {
    let metric = b.value("route-metric", 0..=MAX_METRIC).unwrap_or(0);
    let mut gateways = [None; 2];
    for (gateway, name) in gateways.iter_mut().zip(["route-gateway", "route-ipv6-gateway"]) {
        *gateway = b.line(name).and_then(|line| gateway_line(b, line, own));
    }
    let [v4, v6] = gateways;
    let mut routes: Vec<TunnelRoute> = own.route.into_iter().collect();
    routes.extend(delegate.map(|delegate| TunnelRoute::tunnel(delegate.pool.into())));
    for line in b.source.all("route") {
        let net = network_v4(b, line);
        routes.extend(net.and_then(|net| route(b, line, own, net.into(), (2, 3), v4, metric)));
    }
    for line in b.source.all("route-ipv6") {
        let net = networks::prefix(b, line, "`route-ipv6 fd00:1234::/64`");
        routes.extend(net.and_then(|net| route(b, line, own, net.into(), (1, 2), v6, metric)));
    }
    routes
}

/// `route-export [metric N] [table N] [protocol N]`.
pub(super) fn export(b: &mut Build<'_>) -> Option<Export> {
    let line = b.line("route-export")?;
    let mut export = Export::USUAL;
    for at in (0..line.args.len()).step_by(2) {
        match (line.arg(at)?, line.arg(at + 1)) {
            ("metric", Some(_)) => export.metric = b.number(line, at + 1, 1..=MAX_METRIC)?,
            ("table", Some(_)) => export.table = b.number(line, at + 1, 1..=u32::MAX)?,
            ("protocol", Some("66")) => {
                b.error(line, "66 is the protocol number of all other routes of sixgate's");
                return None;
            }
            // Those below are the kernel's and the administrator's.
            ("protocol", Some(_)) => export.protocol = b.number(line, at + 1, 5..=255)? as u8,
            (word, _) => {
                let usage = "`metric`, `table` or `protocol` and a number";
                b.error(line, format!("{usage} are expected, not `{}` alone", word.escape_debug()));
                return None;
            }
        }
    }
    Some(export)
}

fn gateway_line(b: &mut Build<'_>, line: &Line, own: &Addresses) -> Option<Via> {
    let text = line.arg(0)?;
    let address = text.parse().ok().filter(|address| is_family(line, *address));
    if address.is_none() {
        b.error(line, format!("`{}` is not an address of its family", text.escape_debug()));
    }
    address.map(|address| way(own, address))
}

/// Whether an address is of the family that the directive is about.
fn is_family(line: &Line, address: IpAddr) -> bool {
    address.is_ipv6() == line.name.starts_with("route-ipv6")
}

/// A router with an address in the tunnel is a client; every other one is reached outside.
fn way(own: &Addresses, router: IpAddr) -> Via {
    let inside = match router {
        IpAddr::V4(v4) => {
            own.v4.is_some_and(|net| net.contains(&v4))
                || own.v4_peer == Some(v4)
                || own.v4_pool.is_some_and(|pool| pool.index(v4).is_some())
        }
        IpAddr::V6(v6) => {
            // Without an interface a link-local address can only be meant on the tunnel's link.
            v6.is_unicast_link_local()
                || own.v6.is_some_and(|net| net.contains(&v6))
                || own.v6_pool.is_some_and(|pool| pool.index(v6).is_some())
        }
    };
    if inside { Via::Tunnel } else { Via::Router(router) }
}

/// One route whose gateway and metric are at these places of the line.
fn route(
    b: &mut Build<'_>,
    line: &Line,
    own: &Addresses,
    destination: IpNet,
    (gateway, metric): (usize, usize),
    usual: Option<Via>,
    usual_metric: u32,
) -> Option<TunnelRoute> {
    let via = match line.arg(gateway) {
        None | Some("default") => usual.unwrap_or(Via::Tunnel),
        Some("vpn_gateway") => Via::Tunnel,
        Some("net_gateway" | "net_gateway_ipv6") => Via::Outside,
        Some(text) => {
            let router = text.parse().ok().filter(|address| is_family(line, *address));
            let Some(router) = router else {
                b.error(
                    line,
                    format!(
                        "`{}` is not a router: give its address, `vpn_gateway` or `net_gateway`",
                        text.escape_debug()
                    ),
                );
                return None;
            };
            way(own, router)
        }
    };
    let metric = match line.arg(metric) {
        None | Some("default") => usual_metric,
        Some(_) => b.number(line, metric, 0..=MAX_METRIC)?,
    };
    let without = match destination {
        IpNet::V4(_) => own.v4.is_none().then_some(("IPv4", "server")),
        IpNet::V6(_) => own.v6.is_none().then_some(("IPv6", "server-ipv6")),
    };
    if let (Some((family, name)), Via::Tunnel) = (without, via) {
        b.warn(line, format!("the server has no {family} in the tunnel, so that packets from here have no good source address; add `{name}`"));
    }
    Some(TunnelRoute { destination, via, metric })
}

fn network_v4(b: &mut Build<'_>, line: &Line) -> Option<Ipv4Net> {
    let mask = line.arg(1).filter(|mask| *mask != "default").unwrap_or("255.255.255.255");
    let usage = "`route 192.168.1.0 255.255.255.0`; names are not looked up";
    let net = networks::masked(b, line, mask, usage)?;
    if net.trunc() != net {
        let (address, network, mask) = (net.addr(), net.network(), net.netmask());
        b.error(line, format!("{address} is inside its network, which the kernel refuses; did you mean `route {network} {mask}`?"));
        return None;
    }
    Some(net)
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{error_of, loaded, server_role};
    use crate::config::{Export, Via};

    const OWN: &str = "server 10.8.0.0 255.255.255.0\nserver-ipv6 fd00:8::/64\n";

    #[test]
    fn destinations_gateways_and_metrics() {
        let lines = "route 192.168.1.0 255.255.255.0\nroute 192.0.2.9\n\
            route 10.1.0.0 255.255.0.0 10.8.0.7 50\nroute 10.2.0.0 255.255.0.0 192.168.0.1\n\
            route 10.3.0.0 255.255.0.0 net_gateway default\nroute-metric 7\n\
            route-ipv6 fd00:1::/48\nroute-ipv6 fd00:2::/48 fd00:8::77 9\nroute-ipv6 fd00:3::/48 fd00:4::1\n\
            route-ipv6 2000::/3 fe80::1\n";
        let loaded = loaded(&format!("{OWN}{lines}"));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let router = |text: &str| Via::Router(text.parse().unwrap());
        let routes = server_role(&loaded).routes.iter();
        let seen: Vec<_> =
            routes.map(|route| (route.destination.to_string(), route.via, route.metric)).collect();
        let expected = [
            ("192.168.1.0/24", Via::Tunnel, 7),
            ("192.0.2.9/32", Via::Tunnel, 7),
            ("10.1.0.0/16", Via::Tunnel, 50),
            ("10.2.0.0/16", router("192.168.0.1"), 7),
            ("10.3.0.0/16", Via::Outside, 7),
            ("fd00:1::/48", Via::Tunnel, 7),
            ("fd00:2::/48", Via::Tunnel, 9),
            ("fd00:3::/48", router("fd00:4::1"), 7),
            ("2000::/3", Via::Tunnel, 7),
        ];
        assert_eq!(seen, expected.map(|(net, via, metric)| (net.to_owned(), via, metric)));
    }

    #[test]
    fn gateways_for_all_that_have_none() {
        let lines = "route-gateway 192.168.0.1\nroute-ipv6-gateway fd00:8::2\n\
            route 10.1.0.0 255.255.0.0\nroute 10.2.0.0 255.255.0.0 vpn_gateway\nroute-ipv6 fd00:1::/48\n";
        let loaded = loaded(&format!("{OWN}{lines}"));
        let seen: Vec<_> = server_role(&loaded).routes.iter().map(|route| route.via).collect();
        assert_eq!(seen, [Via::Router("192.168.0.1".parse().unwrap()), Via::Tunnel, Via::Tunnel]);
    }

    #[test]
    fn where_routes_are_exported_to() {
        let export = |line: &str| server_role(&loaded(&format!("{OWN}{line}\n"))).export;
        assert_eq!(export(""), None);
        assert_eq!(export("route-export"), Some(Export::USUAL));
        let all = export("route-export table 4000 protocol 99 metric 5");
        assert_eq!(all, Some(Export { metric: 5, table: 4000, protocol: 99 }));
        for (line, expected) in [
            ("route-export bird", "not `bird` alone"),
            ("route-export metric", "not `metric` alone"),
            ("route-export protocol 4", "a number from 5 to 255"),
            ("route-export protocol 66", "all other routes"),
            ("route-export table main", "needs a number"),
        ] {
            let error = error_of(&format!("{OWN}{line}\n"));
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_the_kernel_would_refuse_is_found_before() {
        for (line, expected) in [
            ("route 10.1.0.1 255.255.0.0", "did you mean `route 10.1.0.0 255.255.0.0`?"),
            ("route vpn.example.net", "names are not looked up"),
            ("route 10.1.0.0 255.0.255.0", "is not a network mask"),
            ("route 10.1.0.0 255.255.0.0 fd00::1", "is not a router"),
            ("route 10.1.0.0 255.255.0.0 10.8.0.2 x", "needs a number"),
            ("route-ipv6 fd00::1", "needs a prefix"),
            ("route-ipv6 fd00::/48 10.8.0.2", "is not a router"),
            ("route-gateway fd00::1", "not an address of its family"),
        ] {
            let error = error_of(&format!("{OWN}{line}\n"));
            assert!(error.contains(expected), "{error}\nfor {line}");
        }
        let remarks = loaded("server 10.8.0.0 255.255.255.0\nroute-ipv6 fd00:1::/48\n").warnings;
        assert!(remarks.iter().any(|remark| remark.text.contains("add `server-ipv6`")));
    }
}
