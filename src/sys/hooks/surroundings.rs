//! What every script gets to see of this process and its tunnel [9.12].

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::config::dns::Dns;
use crate::config::{Config, Role};
use crate::config::{DELEGATED_PREFIX, STABLE_ADDRESS};
use crate::engine::{Environment, TunnelRoute, TunnelSettings, Via};
use crate::sys::process;
use crate::time::UnixTime;

/// About the process: set once.
pub fn of_process(environment: &mut Environment, config: &Config, device: &str, started: UnixTime) {
    let process = &config.process;
    environment.set("dev", device);
    environment.set("dev_type", "tun");
    environment.set("verb", process.verb);
    environment.set("daemon", u8::from(process.daemon));
    environment.set("daemon_log_redirect", u8::from(process.log_file.is_some()));
    environment.set("daemon_pid", process::id());
    environment.set("daemon_start_time", started.0);
    environment.set("script_context", "init");
    let transport = &config.transport;
    let protocol = |family| match family {
        None => "udp",
        Some(false) => "udp4",
        Some(true) => "udp6",
    };
    match &config.role {
        Role::Server(_) => {
            environment.set("proto_1", protocol(transport.family));
            environment.set("remote_port_1", transport.port);
        }
        Role::Client(role) => {
            for (number, remote) in (1..).zip(&role.remotes) {
                environment.set(&format!("proto_{number}"), protocol(remote.family));
                environment.set(&format!("remote_{number}"), &remote.host);
                environment.set(&format!("remote_port_{number}"), remote.port);
            }
        }
    }
    if let Some(local) = transport.local {
        environment.set("local_1", local);
    }
    if transport.port != 0 {
        environment.set("local_port_1", transport.port);
    }
}

/// About the host: its routers to everywhere, by IPv4 and by IPv6.
pub fn of_host(environment: &mut Environment, gateways: [Option<IpAddr>; 2]) {
    for (name, gateway) in ["route_net_gateway", "net_gateway_ipv6"].into_iter().zip(gateways) {
        if let Some(gateway) = gateway {
            environment.set(name, gateway);
        }
    }
}

/// About the tunnel: set again whenever its addresses and routes change. What an IPv4 variable
/// says, its IPv6 twin says, too.
pub fn of_tunnel(environment: &mut Environment, tunnel: &TunnelSettings) {
    environment.set("tun_mtu", tunnel.mtu);
    if let Some(v4) = tunnel.v4 {
        environment.set("ifconfig_local", v4.addr());
        match tunnel.v4_peer {
            Some(peer) => environment.set("ifconfig_remote", peer),
            None => environment.set("ifconfig_netmask", v4.netmask()),
        }
    }
    if let Some(v6) = tunnel.v6 {
        environment.set("ifconfig_ipv6_local", v6.addr());
        environment.set("ifconfig_ipv6_netbits", v6.prefix_len());
    }
    for (name, net) in [(STABLE_ADDRESS, tunnel.v6_stable), (DELEGATED_PREFIX, tunnel.delegated)] {
        let name = format!("OPENVPN_{name}");
        match net {
            Some(net) => environment.set(&name, net),
            None => environment.unset(&name),
        }
    }
    if let Some(peer) = tunnel.v6_peer {
        environment.set("ifconfig_ipv6_remote", peer);
    }
    if let Some(gateway) = tunnel.gateway.or(tunnel.v4_peer) {
        environment.set("route_vpn_gateway", gateway);
    }
    routes(environment, tunnel);
    dns(environment, &tunnel.dns);
}

/// What is known once `up` has run: whether everything goes into the tunnel.
pub fn of_redirection(environment: &mut Environment, tunnel: &TunnelSettings) {
    let [v4, v6] = tunnel.redirected;
    environment.set("redirect_gateway", u8::from(v4));
    for (redirected, name) in
        [(v4, "route_redirect_gateway_ipv4"), (v6, "route_redirect_gateway_ipv6")]
    {
        if redirected {
            environment.set(name, 1);
        }
    }
}

fn routes(environment: &mut Environment, tunnel: &TunnelSettings) {
    let outside = |v6| environment.value(if v6 { "net_gateway_ipv6" } else { "route_net_gateway" });
    let outside = [false, true].map(|v6| outside(v6).and_then(|text| text.parse().ok()));
    let (mut v4, mut v6) = (0, 0);
    // What takes the place of the IPv4 default route has a variable of its own.
    let is_listed = |route: &&TunnelRoute| match route.destination {
        IpNet::V4(net) => !tunnel.redirected[0] || net.prefix_len() > 1,
        IpNet::V6(_) => true,
    };
    for route in tunnel.routes.iter().filter(is_listed) {
        let (prefix, number) = match route.destination {
            IpNet::V4(net) => {
                v4 += 1;
                environment.set(&format!("route_network_{v4}"), net.network());
                environment.set(&format!("route_netmask_{v4}"), net.netmask());
                ("route", v4)
            }
            IpNet::V6(net) => {
                v6 += 1;
                environment.set(&format!("route_ipv6_network_{v6}"), net.trunc());
                ("route_ipv6", v6)
            }
        };
        let gateway = match (route.via, route.destination) {
            (Via::Router(router), _) => Some(router),
            (Via::Tunnel, IpNet::V4(_)) => tunnel.gateway.or(tunnel.v4_peer).map(IpAddr::V4),
            (Via::Tunnel, IpNet::V6(_)) => tunnel.v6_peer.map(IpAddr::V6),
            (Via::Outside, IpNet::V4(_)) => outside[0],
            (Via::Outside, IpNet::V6(_)) => outside[1],
        };
        if let Some(gateway) = gateway {
            environment.set(&format!("{prefix}_gateway_{number}"), gateway);
        }
        if route.metric != 0 {
            environment.set(&format!("{prefix}_metric_{number}"), route.metric);
        }
    }
}

/// DNS, in both of OpenVPN's ways to tell scripts of it, in place of what was told before.
pub(super) fn dns(environment: &mut Environment, dns: &Dns) {
    for start in ["dns_", "foreign_option_"] {
        environment.unset_all(start);
    }
    for (number, option) in (1..).zip(&dns.foreign) {
        environment.set(&format!("foreign_option_{number}"), option);
    }
    for (number, domain) in (1..).zip(&dns.search) {
        environment.set(&format!("dns_search_domain_{number}"), domain);
    }
    for (number, server) in (1..).zip(&dns.servers) {
        let name = |what: &str| format!("dns_server_{number}_{what}");
        for (at, (address, port)) in (1..).zip(&server.addresses) {
            environment.set(&name(&format!("address_{at}")), address);
            if let Some(port) = port {
                environment.set(&name(&format!("port_{at}")), port);
            }
        }
        for (at, domain) in (1..).zip(&server.domains) {
            environment.set(&name(&format!("resolve_domain_{at}")), domain);
        }
        let rest =
            [("dnssec", &server.dnssec), ("transport", &server.transport), ("sni", &server.sni)];
        for (what, value) in rest.into_iter().filter(|(_, value)| !value.is_empty()) {
            environment.set(&name(what), value);
        }
    }
}

/// What `up` and its relatives get as arguments: device, MTU, 0, our address, the other end's or
/// the mask. Empty where there is no IPv4.
pub fn device_arguments(device: &str, tunnel: &TunnelSettings, context: &str) -> Vec<String> {
    let text = |address: Option<Ipv4Addr>| address.map_or_else(String::new, |a| a.to_string());
    let second = tunnel.v4_peer.or(tunnel.v4.map(|net| net.netmask()));
    let local = text(tunnel.v4.map(|net| net.addr()));
    [device, &tunnel.mtu.to_string(), "0", &local, &text(second), context]
        .map(str::to_owned)
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(environment: &'a Environment, name: &str) -> &'a str {
        environment.value(name).unwrap_or("(unset)")
    }

    #[test]
    fn every_ipv4_variable_has_its_ipv6_twin() {
        let route =
            |net: &str, via, metric| TunnelRoute { destination: net.parse().unwrap(), via, metric };
        let router = "192.0.2.1".parse().unwrap();
        let tunnel = TunnelSettings {
            v4: Some("10.8.0.2/24".parse().unwrap()),
            gateway: Some("10.8.0.1".parse().unwrap()),
            v6: Some("fd00::1000/64".parse().unwrap()),
            v6_peer: Some("fd00::1".parse().unwrap()),
            mtu: 1400,
            routes: vec![
                route("10.99.0.0/16", Via::Tunnel, 0),
                route("fd99::/48", Via::Tunnel, 7),
                route("10.98.0.0/16", Via::Router(router), 3),
                route("2000::/3", Via::Tunnel, 0),
                route("::/0", Via::Tunnel, 0),
            ],
            redirected: [false, true],
            ..TunnelSettings::default()
        };
        let mut environment = Environment::new();
        of_tunnel(&mut environment, &tunnel);
        of_redirection(&mut environment, &tunnel);
        for (name, wanted) in [
            ("tun_mtu", "1400"),
            ("ifconfig_local", "10.8.0.2"),
            ("ifconfig_netmask", "255.255.255.0"),
            ("ifconfig_ipv6_local", "fd00::1000"),
            ("ifconfig_ipv6_netbits", "64"),
            ("ifconfig_ipv6_remote", "fd00::1"),
            ("route_vpn_gateway", "10.8.0.1"),
            ("route_network_1", "10.99.0.0"),
            ("route_netmask_1", "255.255.0.0"),
            ("route_gateway_1", "10.8.0.1"),
            ("route_metric_1", "(unset)"),
            ("route_gateway_2", "192.0.2.1"),
            ("route_metric_2", "3"),
            ("route_ipv6_network_1", "fd99::/48"),
            ("route_ipv6_gateway_1", "fd00::1"),
            ("route_ipv6_metric_1", "7"),
            ("route_ipv6_network_2", "2000::/3"),
            ("redirect_gateway", "0"),
            ("route_redirect_gateway_ipv4", "(unset)"),
            ("route_redirect_gateway_ipv6", "1"),
        ] {
            assert_eq!(value(&environment, name), wanted, "{name}");
        }
        let arguments = device_arguments("tun0", &tunnel, "init");
        assert_eq!(arguments, ["tun0", "1400", "0", "10.8.0.2", "255.255.255.0", "init"]);
    }

    #[test]
    fn a_link_has_a_remote_end_and_a_tunnel_without_ipv4_empty_arguments() {
        let link = TunnelSettings {
            v4: Some("10.8.0.6/32".parse().unwrap()),
            v4_peer: "10.8.0.5".parse().ok(),
            mtu: 1500,
            ..TunnelSettings::default()
        };
        let mut environment = Environment::new();
        of_tunnel(&mut environment, &link);
        assert_eq!(value(&environment, "ifconfig_remote"), "10.8.0.5");
        assert_eq!(value(&environment, "ifconfig_netmask"), "(unset)");
        assert_eq!(device_arguments("t", &link, "x")[3..], ["10.8.0.6", "10.8.0.5", "x"]);
        let none = TunnelSettings { mtu: 1500, ..TunnelSettings::default() };
        assert_eq!(device_arguments("t", &none, "x"), ["t", "1500", "0", "", "", "x"]);
    }
}
