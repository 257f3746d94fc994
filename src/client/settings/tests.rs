//! Pushes and files, and what they come to.

use super::*;
use crate::client::pushed::Pushed;
use crate::wire::message::Message;

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A role whose file holds these lines.
fn role(lines: &[&str]) -> ClientRole {
    let parse = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        TunnelOption::parse(&words).unwrap().unwrap()
    };
    ClientRole { options: lines.iter().map(parse).collect(), ..ClientRole::default() }
}

fn settle_for(role: &ClientRole, push: &str) -> Result<Settled, PushError> {
    let Message::PushReply(options) = Message::parse(&format!("PUSH_REPLY,{push}")) else {
        panic!("{push}")
    };
    let pushed = Pushed::parse(&options.options, role)?;
    settle(role, 1500, &pushed.options, SERVER)
}

fn settled(push: &str) -> Settled {
    settle_for(&ClientRole::default(), push).unwrap()
}

fn routes(settled: &Settled) -> Vec<String> {
    let show = |route: &TunnelRoute| {
        let way = match route.via {
            Via::Tunnel => String::new(),
            Via::Outside => " outside".to_owned(),
            Via::Router(router) => format!(" by {router}"),
        };
        format!("{} {}{way}", route.destination, route.metric)
    };
    settled.tunnel.routes.iter().map(show).collect()
}

const BOTH: &str =
    "topology subnet,ifconfig 10.8.0.2 255.255.255.0,ifconfig-ipv6 fd00::2/64 fd00::1";

#[test]
fn addresses_under_each_topology() {
    let subnet = settled(&format!("{BOTH},tun-mtu 1400"));
    assert_eq!(subnet.tunnel.v4.unwrap().to_string(), "10.8.0.2/24");
    assert_eq!(subnet.tunnel.v6.unwrap().to_string(), "fd00::2/64");
    assert_eq!((subnet.tunnel.mtu, subnet.tunnel.v4_peer), (1400, None));
    for topology in ["", "topology net30,", "topology p2p,"] {
        let point = settled(&format!("{topology}ifconfig 10.8.0.6 10.8.0.5"));
        assert_eq!(point.tunnel.v4.unwrap().to_string(), "10.8.0.6/32");
        assert_eq!(point.tunnel.v4_peer, Some(Ipv4Addr::new(10, 8, 0, 5)));
    }
    let forgotten = settled("ifconfig 10.8.0.6 255.255.255.0");
    assert_eq!(forgotten.tunnel.v4.unwrap().to_string(), "10.8.0.6/24");
    assert!(forgotten.notes[0].contains("topology"), "{:?}", forgotten.notes);
}

#[test]
fn the_file_gives_what_the_server_does_not() {
    let role = role(&["ifconfig 10.8.0.9 10.8.0.1", "ifconfig-ipv6 fd00::9/64 fd00::1"]);
    let own = settle_for(&role, "ping 10").unwrap();
    assert_eq!(own.tunnel.v4.unwrap().to_string(), "10.8.0.9/32");
    let pushed = settle_for(&role, "topology subnet,ifconfig 10.8.0.2 255.255.255.0").unwrap();
    assert_eq!(pushed.tunnel.v4.unwrap().to_string(), "10.8.0.2/24");
    assert_eq!(pushed.tunnel.v6.unwrap().to_string(), "fd00::9/64");
}

#[test]
fn ipv6_of_the_file_and_of_the_server() {
    let role = role(&["ifconfig-ipv6 fd00::9 fd00::1", "route-ipv6 fd09::/48", "topology subnet"]);
    // Without a length it is a /64; the topology of the file says how an address is meant.
    let own = settle_for(&role, "ifconfig 10.8.0.2 255.255.255.0").unwrap();
    assert_eq!(own.tunnel.v6.unwrap().to_string(), "fd00::9/64");
    assert_eq!(own.tunnel.v6_peer, Some("fd00::1".parse().unwrap()));
    assert_eq!(own.tunnel.v4.unwrap().to_string(), "10.8.0.2/24");
    assert_eq!((routes(&own), own.notes.len()), (vec!["fd09::/48 0".to_owned()], 0));
    let pushed = settle_for(&role, "ifconfig-ipv6 fd00::2/80 fd00::7").unwrap();
    assert_eq!(pushed.tunnel.v6.unwrap().to_string(), "fd00::2/80");
    assert_eq!(pushed.tunnel.v6_peer, Some("fd00::7".parse().unwrap()));
}

#[test]
fn gateways_outside_the_tunnels_own_network() {
    let push = "ifconfig 10.8.0.6 10.8.0.5,route-gateway 10.99.0.1,route-ipv6-gateway fd00::1,\
                route 10.9.0.0 255.255.0.0 10.99.0.1";
    let settled = settled(push);
    assert_eq!(settled.tunnel.gateway, Some(Ipv4Addr::new(10, 99, 0, 1)));
    assert_eq!(routes(&settled), ["10.9.0.0/16 0"], "not by a router outside");
}

#[test]
fn routes_of_both_with_every_gateway() {
    let role = role(&["route 10.77.0.0 255.255.0.0", "route-metric 5"]);
    let settled = settle_for(
        &role,
        &format!(
            "{BOTH},route-gateway 10.8.0.1,route-metric 50,route 192.168.1.7 255.255.255.0,\
             route 172.16.0.0 255.240.0.0 vpn_gateway 7,route 1.2.3.4 255.255.255.255 net_gateway,\
             route 10.9.0.1 default 10.8.0.1,route 10.10.0.0 255.255.0.0 192.168.0.1 3,\
             route remote_host 255.255.255.255 net_gateway 1,route vpn_gateway,\
             route-ipv6 2001:db8:1::9/48,route-ipv6 fd01::/64 default 9,route-ipv6 fd02::/64 fe80::1"
        ),
    )
    .unwrap();
    assert_eq!(
        routes(&settled),
        [
            "10.77.0.0/16 50",
            "192.168.1.0/24 50",
            "172.16.0.0/12 7",
            "1.2.3.4/32 50 outside",
            "10.9.0.1/32 50",
            "10.10.0.0/16 3 by 192.168.0.1",
            "192.0.2.1/32 1 outside",
            "10.8.0.1/32 50",
            "2001:db8:1::/48 50",
            "fd01::/64 9",
            "fd02::/64 50",
        ]
    );
    assert_eq!(settled.notes, [""; 0]);
    assert_eq!(settled.tunnel.server, Some(SERVER));
}

#[test]
fn redirect_gateway_in_every_form() {
    let halves = ["0.0.0.0/1 0", "128.0.0.0/1 0"];
    let v6 = ["::/3 0", "2000::/4 0", "3000::/4 0", "fc00::/7 0"];
    let redirect = |flags: &str| settled(&format!("{BOTH},redirect-gateway {flags}"));
    for flags in ["def1", "def1 ipv6"] {
        assert_eq!(routes(&redirect(flags)), [&halves[..], &v6].concat(), "{flags}");
    }
    assert_eq!(routes(&redirect("ipv6 !ipv4")), v6);
    assert_eq!(routes(&redirect("autolocal")), [&["0.0.0.0/0 0"][..], &v6].concat());
    assert_eq!(redirect("local").tunnel.server, None);
    assert!(redirect("bypass-dns").tunnel.bypass_dns);
    let private = settled(&format!("{BOTH},redirect-private def1 ipv6 block-local"));
    assert!(routes(&private).is_empty() && private.tunnel.block_local);
}

#[test]
fn scripts_are_told_what_is_redirected() {
    for (flags, told) in
        [("def1", [true, false]), ("def1 ipv6", [true, true]), ("ipv6 !ipv4", [false, true])]
    {
        let settled = settled(&format!("{BOTH},redirect-gateway {flags}"));
        assert_eq!(settled.tunnel.redirected, told, "{flags}");
    }
}

#[test]
fn half_a_tunnel_is_put_in_words() {
    let v4 = "redirect-gateway def1 ipv6,ifconfig 10.8.0.6 10.8.0.5,route-ipv6 fd01::/64";
    let only_v4 = settled(v4);
    assert_eq!(only_v4.tunnel.routes.len(), 6, "nothing goes beside the tunnel");
    assert_eq!(only_v4.block_ipv6, Some(NOBODY));
    assert!(only_v4.notes.iter().any(|note| note.contains("routes to fd01::/64")));
    assert!(only_v4.notes.iter().any(|note| note.contains("answered as unreachable")));
    let only_v6 = settled("redirect-gateway def1 ipv6,ifconfig-ipv6 fd00::2/64 fd00::1");
    assert_eq!(only_v6.tunnel.routes.len(), 4);
    assert!(only_v6.notes.iter().any(|note| note.starts_with("IPv4 traffic")));
    let whole = settled(&format!("{BOTH},redirect-gateway def1 ipv6"));
    assert!(whole.notes.is_empty(), "{:?}", whole.notes);
}

#[test]
fn block_ipv6_catches_it_even_without_an_address() {
    let blocked = settled("redirect-gateway def1 ipv6,ifconfig 10.8.0.6 10.8.0.5,block-ipv6");
    assert_eq!(blocked.tunnel.routes.len(), 6);
    assert_eq!(blocked.block_ipv6, Some(NOBODY));
    assert!(blocked.notes.is_empty(), "{:?}", blocked.notes);
    let with = settled(&format!("{BOTH},block-ipv6"));
    assert_eq!(with.block_ipv6, Some("fd00::1".parse().unwrap()));
}

#[test]
fn mtu_within_what_works() {
    for (push, mtu) in [
        (format!("{BOTH},tun-mtu 1000"), 1280),
        ("ifconfig 10.8.0.6 10.8.0.5,tun-mtu 1000".to_owned(), 1000),
        ("ifconfig 10.8.0.6 10.8.0.5,redirect-gateway,block-ipv6,tun-mtu 1000".to_owned(), 1280),
        (format!("{BOTH},tun-mtu 9000"), 1600),
    ] {
        let settled = settled(&push);
        assert_eq!(settled.tunnel.mtu, mtu, "{push}");
        assert_eq!(settled.notes.len(), usize::from(mtu != 1000), "{:?}", settled.notes);
    }
}

#[test]
fn times_dns_and_persistence() {
    let settled = settled(&format!(
        "{BOTH},inactive 60 1000,session-timeout 0,persist-tun,dhcp-option DNS 10.8.0.1"
    ));
    assert_eq!(settled.inactive, Some((Duration::from_secs(60), 1000)));
    assert_eq!((settled.session_timeout, settled.persist_tun), (None, true));
    assert_eq!(settled.tunnel.dns.servers.len(), 1);
    let own = role(&["dhcp-option DNS 10.8.0.7", "dhcp-option DOMAIN example.org"]);
    let both = settle_for(&own, &format!("{BOTH},dhcp-option DNS6 fd00::1")).unwrap().tunnel.dns;
    let addresses: Vec<_> =
        both.servers[0].addresses.iter().map(|(ip, _)| ip.to_string()).collect();
    assert_eq!(addresses, ["10.8.0.7", "fd00::1"]);
    assert_eq!(both.search, ["example.org"]);
}

#[test]
fn noexec_leaves_the_system_alone() {
    let role = ClientRole { route_noexec: true, ifconfig_noexec: true, ..ClientRole::default() };
    let push = format!("{BOTH},redirect-gateway def1 block-local,route 10.1.0.0");
    let tunnel = settle_for(&role, &push).unwrap().tunnel;
    assert_eq!((tunnel.v4, tunnel.v6, tunnel.routes.len()), (None, None, 0));
    assert!(!tunnel.block_local);
}

#[test]
fn no_address_and_contradictions_fail() {
    for (push, reason) in
        [("ping 10", "no address"), ("topology subnet,ifconfig 10.8.0.2 10.8.0.1", "not a netmask")]
    {
        let error = settle_for(&ClientRole::default(), push).unwrap_err().0;
        assert!(error.contains(reason), "{push}: {error}");
    }
}
