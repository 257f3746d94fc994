//! Common mistakes that show only on the host: what a server's configuration does not go with.

use std::fs;

use ipnet::IpNet;

use super::client_files::Survey;
use super::netlink::Netlink;
use crate::config::{ServerRole, Via};

/// All there is to say about a server, before its device is opened.
pub fn server(role: &ServerRole, survey: &Survey) -> Vec<String> {
    let mut remarks = forwarding(role, survey);
    let addresses = Netlink::open().and_then(|mut netlink| netlink.local_addresses());
    let local: Vec<(u32, IpNet)> = addresses.unwrap_or_default();
    remarks.extend(overlaps(role, &local, is_tunnel));
    remarks.extend(survey.remarks.iter().cloned());
    remarks
}

/// Whether the kernel passes packets on between interfaces.
fn forwarding(role: &ServerRole, survey: &Survey) -> Vec<String> {
    let behind = |v6| {
        let mut nets = survey.settings.iter().flat_map(|(_, settings)| &settings.behind);
        nets.any(|net| net.addr().is_ipv6() == v6)
    };
    let switches = [
        (role.v4.is_some() || behind(false), "net.ipv4.ip_forward", "IPv4"),
        (role.v6.is_some() || behind(true), "net.ipv6.conf.all.forwarding", "IPv6"),
    ];
    let is_off = |name: &str| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::read_to_string(path).is_ok_and(|text| text.trim() == "0")
    };
    let off = switches.into_iter().filter(|(wanted, name, _)| *wanted && is_off(name));
    off.map(|(_, name, family)| {
        format!(
            "{family} forwarding is off: clients reach this host but nothing behind it; \
             'sysctl -w {name}=1' switches it on"
        )
    })
    .collect()
}

/// Networks of the tunnel that are also on another interface of this host: one of the two would be
/// out of reach.
fn overlaps(
    role: &ServerRole,
    local: &[(u32, IpNet)],
    is_tunnel: impl Fn(u32) -> bool,
) -> Vec<String> {
    let own = [role.v4.map(IpNet::V4), role.v6.map(IpNet::V6)];
    let routes = role.routes.iter().filter(|route| route.via == Via::Tunnel);
    let wanted: Vec<IpNet> = own
        .iter()
        .flatten()
        .map(IpNet::trunc)
        .chain(routes.map(|route| route.destination))
        .collect();
    let mut remarks = Vec::new();
    for (interface, address) in local {
        // The tunnel of this very server, when it is running already.
        let ours = own.iter().flatten().any(|own| own.addr() == address.addr())
            || role.v4_peer.is_some_and(|peer| address.addr() == peer);
        let irrelevant = address.addr().is_loopback() || (ours && is_tunnel(*interface));
        let net = address.trunc();
        let hit = wanted.iter().find(|wanted| {
            // A wide route does no harm: the interface's own network is the more specific one.
            !irrelevant
                && (wanted.contains(&net) && !is_wide(role, wanted) || net.contains(*wanted))
        });
        if let Some(hit) = hit.filter(|_| !is_link_local(&net)) {
            let text = format!(
                "{hit} of the tunnel overlaps with {net}, which an interface of this host has; \
                 one of them will be out of reach"
            );
            if !remarks.contains(&text) {
                remarks.push(text);
            }
        }
    }
    remarks
}

/// A route, as opposed to the tunnel's own network.
fn is_wide(role: &ServerRole, net: &IpNet) -> bool {
    let own = [role.v4.map(IpNet::V4), role.v6.map(IpNet::V6)];
    !own.iter().flatten().any(|own| own.trunc() == *net)
}

fn is_link_local(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.network().is_link_local(),
        IpNet::V6(net) => net.network().is_unicast_link_local(),
    }
}

/// Whether this is a TUN device.
fn is_tunnel(interface: u32) -> bool {
    let Ok(devices) = fs::read_dir("/sys/class/net") else { return false };
    devices.flatten().any(|device| {
        let index = fs::read_to_string(device.path().join("ifindex"));
        index.is_ok_and(|text| text.trim() == interface.to_string())
            && device.path().join("tun_flags").exists()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Files, Role, load_file};

    struct Main(&'static str);

    impl Files for Main {
        fn read(&self, path: &std::path::Path) -> Result<Vec<u8>, String> {
            let pem = |kind: &str| format!("-----BEGIN {kind}-----\nAA==\n-----END {kind}-----\n");
            let own = format!("{}\nca ca\ncert cert\nkey key\n", self.0);
            Ok(match path.to_str() {
                Some("main.conf") => own,
                Some("key") => pem("PRIVATE KEY"),
                _ => pem("CERTIFICATE"),
            }
            .into_bytes())
        }

        fn has_aes(&self) -> bool {
            true
        }
    }

    fn role(text: &'static str) -> ServerRole {
        match load_file("main.conf", &Main(text)).unwrap().config.role {
            Role::Server(role) => role,
            Role::Client(_) => panic!("a client"),
        }
    }

    #[test]
    fn networks_that_are_there_already_are_named() {
        let role = role(
            "server 192.168.1.0 255.255.255.0\nserver-ipv6 fd00:1::/64\n\
             route 10.0.0.0 255.0.0.0\nroute 172.16.5.0 255.255.255.0",
        );
        let found = |address: &str, tunnel: bool| {
            let local = [(7, address.parse().unwrap())];
            overlaps(&role, &local, |_| tunnel).len()
        };
        assert_eq!(found("192.168.1.77/24", false), 1);
        assert_eq!(found("192.168.0.1/16", false), 1);
        assert_eq!(found("192.168.1.1/24", false), 1, "a LAN with our very address");
        assert_eq!(found("192.168.1.1/24", true), 0, "that is us");
        assert_eq!(found("192.168.1.9/24", true), 1, "another VPN");
        assert_eq!(found("192.168.2.1/24", false), 0);
        assert_eq!(found("fd00:1::1:5/112", false), 1);
        assert_eq!(found("10.3.0.1/24", false), 0, "more specific than the route");
        assert_eq!(found("172.16.5.1/24", false), 1);
        assert_eq!(found("172.16.0.1/16", false), 1);
        assert_eq!(found("127.0.0.1/8", false) + found("fe80::1/64", false), 0);
    }
}
