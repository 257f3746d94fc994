//! Against the kernel, in network namespaces, but for what needs none.

use std::process::Command;

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
    let mut routes: Vec<_> =
        ["0.0.0.0/1", "128.0.0.0/1"].map(|net| TunnelRoute::tunnel(net.parse().unwrap())).to_vec();
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

/// The main table's routes, but for the link-local ones, which the kernel adds in its own time.
fn table(netlink: &mut Netlink) -> Vec<String> {
    let mut lines: Vec<String> = [false, true]
        .into_iter()
        .flat_map(|v6| netlink.main_routes(v6).unwrap())
        .map(|route| format!("{route:?}"))
        .filter(|line| !line.contains("fe80:"))
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
    assert!(!lines.iter().any(|line| line.contains("10.9.0.0") || line.contains("198.51.100.1")));
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

/// What `ip` shows of routes and addresses, but for what changes by itself.
fn shown() -> Vec<String> {
    let ask = |arguments: &str| {
        let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let text = ["-o addr", "route show table all", "-6 route show table all"].map(ask);
    let lines = text.iter().flat_map(|text| text.lines());
    // What the kernel adds to an IPv6 address comes in its own time, and a device has a carrier as
    // long as somebody has it open.
    let own =
        |line: &&str| !["fe80:", "multicast", "table local"].iter().any(|word| line.contains(word));
    lines.filter(own).map(|line| line.replace(" linkdown", "")).collect()
}

/// Opens a device that was just closed: programs that other tests start have copies of its descriptor between
/// `fork` and `exec`.
fn reopen(name: &str, offload: bool) -> TunDevice {
    let mut device = TunDevice::open(Some(name), offload);
    for _ in 0..200 {
        if device.is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        device = TunDevice::open(Some(name), offload);
    }
    device.unwrap()
}

fn ip_do(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

#[test]
#[ignore = "needs root: tests/run interop runs it"]
fn a_device_that_was_there_before_is_as_it_was() {
    for (state, address) in [("down", ""), ("up", ""), ("down", "fd00:77::1/64")] {
        alone();
        ip_do("tuntap add dev tun7 mode tun");
        ip_do("link set tun7 mtu 1333");
        ip_do(&format!("link set tun7 {state}"));
        if !address.is_empty() {
            ip_do(&format!("addr add {address} dev tun7 nodad"));
        }
        let before = shown();
        let netlink = Netlink::open().unwrap();
        let tun = TunDevice::open(Some("tun7"), false).unwrap();
        let mut tunnel = TunnelConfig::new(tun.name(), tun.index()).unwrap();
        tunnel.begin(tun.found());
        let index = tun.index();
        tunnel.apply(&everything(ip("192.0.2.1"))).unwrap();
        assert_eq!(netlink.link(index).unwrap(), Link { mtu: 1400, up: true });
        drop((tunnel, tun));
        // Going down would cost somebody's address.
        let up = state == "up" || !address.is_empty();
        assert_eq!(netlink.link(index).unwrap(), Link { mtu: 1333, up });
        let after = shown();
        assert!(before.iter().all(|line| after.contains(line)), "{before:?} {after:?}");
        assert!(after.len() == before.len() || !address.is_empty(), "{after:?}");
    }
}

#[test]
#[ignore = "needs root: tests/run interop runs it"]
fn pieces_are_limited_while_somebody_splits_them() {
    alone();
    ip_do("tuntap add dev tun7 mode tun");
    let limits = || {
        let shown = Command::new("ip").args(["-d", "-o", "link", "show", "tun7"]).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let after = |word: &str| shown.split(word).nth(1)?.split_whitespace().next()?.parse().ok();
        ["gso_max_size", "gso_max_segs"].map(after)
    };
    let before = limits();
    assert_eq!(before, [Some(65_536), Some(65_535_u32)]);
    let plain = TunDevice::open(Some("tun7"), false).unwrap();
    assert_eq!(limits(), before);
    drop(plain);
    let split = reopen("tun7", true);
    assert!(split.takes_segments());
    assert_eq!(limits(), [Some(61_100), Some(64)]);
    drop(split);
    assert_eq!(limits(), before);
}

#[test]
#[ignore = "needs root: tests/run interop runs it"]
fn what_a_killed_process_left_is_mended_by_the_next() {
    for persistent in [false, true] {
        alone();
        let (_card, _config) = card("card0", 3);
        if persistent {
            ip_do("tuntap add dev tun7 mode tun");
            ip_do("link set tun7 mtu 1400 up");
            ip_do("addr add 192.168.77.1/24 dev tun7");
        }
        let before = shown();
        let start = |server: &str| {
            let tun = TunDevice::open(Some("tun7"), false).unwrap();
            let mut tunnel = TunnelConfig::new(tun.name(), tun.index()).unwrap();
            tunnel.begin(None);
            let mut settings = everything(ip(server));
            // By a router of the host's own, and around the tunnel.
            settings.routes.push(TunnelRoute {
                destination: "10.7.0.0/16".parse().unwrap(),
                via: Via::Router(ip("192.0.3.9")),
                metric: 0,
            });
            settings.routes.push(TunnelRoute {
                destination: "10.6.0.0/16".parse().unwrap(),
                via: Via::Outside,
                metric: 0,
            });
            tunnel.apply(&settings).unwrap();
            (tunnel, tun)
        };
        let (tunnel, tun) = start("198.51.100.1");
        core::mem::forget(tunnel);
        drop(tun);
        let left = shown().join("\n");
        assert!(
            left.contains("198.51.100.1 via 192.0.3.1") && left.contains("10.7.0.0/16"),
            "{left}"
        );
        assert_eq!(persistent, left.contains("10.8.0.2/24"), "{left}");
        // The same once more, and another server.
        for server in ["198.51.100.1", "198.51.100.9"] {
            let (tunnel, tun) = start(server);
            let stale = server != "198.51.100.1" && shown().join("\n").contains("198.51.100.1 ");
            assert!(!stale, "{:?}", shown());
            core::mem::forget(tunnel);
            drop(tun);
        }
        drop(start("2001:db8:ffff::1"));
        assert_eq!(shown(), before);
    }
}

#[test]
#[ignore = "needs root: tests/run interop runs it"]
fn two_tunnels_to_one_server_leave_each_other_the_way() {
    alone();
    let (_card, _config) = card("card0", 3);
    let server = ip("198.51.100.1");
    let mut netlink = Netlink::open().unwrap();
    let start = |name: &str, settings: &TunnelSettings| {
        let tun = TunDevice::open(Some(name), false).unwrap();
        let mut tunnel = TunnelConfig::new(tun.name(), tun.index()).unwrap();
        tunnel.begin(None);
        tunnel.apply(settings).unwrap();
        (tunnel, tun)
    };
    let first = start("tun1", &everything(server));
    let mut second = everything(server);
    second.routes = vec![TunnelRoute::tunnel("198.51.0.0/16".parse().unwrap())];
    second.v4 = Some("10.99.0.2/24".parse().unwrap());
    second.v6 = None;
    let mut second = start("tun2", &second);
    let outside = Some(ip("192.0.3.1"));
    assert_eq!(netlink.route_to(server).unwrap().gateway, outside);
    drop(first);
    second.0.follow();
    assert_eq!(netlink.route_to(server).unwrap().gateway, outside);
    drop(second);
    assert!(
        netlink
            .own_routes(false)
            .unwrap()
            .iter()
            .all(|own| own.route.destination.prefix_len() < 32)
    );
}
