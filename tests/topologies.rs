//! The ways to give addresses: topologies, networks of every size, pools and own addresses one by
//! one. Each with clients that get them and packets that cross.

use std::net::IpAddr;

use crate::common::Seeded;
use crate::common::clients::{self, SERVER};
use crate::common::net::Net;
use crate::common::packets::echo;
use crate::common::pki::{Site, load};
use sixgate::engine::TunnelSettings;
use sixgate::server::Server;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A server (node 0) with just these lines about addresses.
fn serve(site: &Site, seed: u64, lines: &str) -> Net {
    let mut net = Net::new(seed);
    let text = format!("mode server\ntls-server\ndev tun\nkeepalive 10 60\n{lines}");
    let config = load(&text, &site.ca.pem, &site.server);
    let server = Server::new(config.into(), net.now, Box::new(Seeded(seed))).unwrap();
    net.add(SERVER, Box::new(server));
    net
}

fn join(net: &mut Net, site: &Site, name: &str, seed: u64) -> (usize, TunnelSettings) {
    let node = clients::join(net, site, name, "", seed);
    (node, net.nodes[node].settings.clone().unwrap())
}

fn both_ways(net: &mut Net, node: usize, client: &str, server: &str) {
    for (from, to, a, b) in [(node, 0, client, server), (0, node, server, client)] {
        let packet = echo(ip(a), ip(b), b"through");
        net.nodes[to].tun.clear();
        net.inject(from, &packet);
        let arrived = net.run_until(2_000, |net| net.nodes[to].tun.contains(&packet));
        assert!(arrived, "{a} to {b}");
    }
}

fn v4(settings: &TunnelSettings) -> (String, Option<String>) {
    let own = settings.v4.map_or("-".to_owned(), |net| net.to_string());
    (own, settings.v4_peer.map(|peer| peer.to_string()))
}

fn routes(settings: &TunnelSettings) -> Vec<String> {
    settings.routes.iter().map(|route| route.destination.to_string()).collect()
}

#[test]
fn each_topology_gives_the_addresses_of_stock_servers() {
    let site = Site::default();
    let network = "server 10.8.0.0 255.255.255.0\n";
    for (topology, clients, peers, pushed) in [
        ("subnet", ["10.8.0.2", "10.8.0.3"], [None, None], &[][..]),
        (
            "net30",
            ["10.8.0.6", "10.8.0.10"],
            [Some("10.8.0.5"), Some("10.8.0.9")],
            &["10.8.0.1/32"],
        ),
        ("p2p", ["10.8.0.4", "10.8.0.5"], [Some("10.8.0.1"), Some("10.8.0.1")], &[]),
    ] {
        let mut net = serve(&site, 500, &format!("{network}topology {topology}\n"));
        for (at, name) in ["one", "two"].into_iter().enumerate() {
            let (node, settings) = join(&mut net, &site, name, 501 + at as u64);
            let (own, peer) = v4(&settings);
            let bits = if peer.is_some() { 32 } else { 24 };
            assert_eq!(own, format!("{}/{bits}", clients[at]), "{topology}");
            assert_eq!(peer.as_deref(), peers[at], "{topology}");
            assert_eq!(routes(&settings), pushed, "{topology}");
            both_ways(&mut net, node, clients[at], "10.8.0.1");
        }
    }
    // With client-to-client the whole network is a route where it is not on the link.
    let mut net = serve(&site, 505, &format!("{network}topology net30\nclient-to-client\n"));
    let (_, settings) = join(&mut net, &site, "one", 506);
    assert_eq!(routes(&settings), ["10.8.0.0/24"]);
}

#[test]
fn ipv6_networks_of_every_size_work_with_what_clients_accept() {
    let site = Site::default();
    for (bits, first, told, pushed) in [
        (48, "fd00:6::1000", "fd00:6::1000/64", &["fd00:6::/48"][..]),
        (64, "fd00:6::1000", "fd00:6::1000/64", &[]),
        (112, "fd00:6::2", "fd00:6::2/112", &[]),
        (124, "fd00:6::2", "fd00:6::2/124", &[]),
    ] {
        let mut net = serve(&site, 510, &format!("server-ipv6 fd00:6::/{bits}\n"));
        let (node, settings) = join(&mut net, &site, "one", 511);
        assert_eq!(settings.v6.map(|net| net.to_string()).as_deref(), Some(told));
        assert_eq!(
            (settings.v4, routes(&settings)),
            (None, pushed.iter().map(|r| (*r).to_owned()).collect())
        );
        both_ways(&mut net, node, first, "fd00:6::1");
    }
}

#[test]
fn addresses_and_pools_one_by_one() {
    let site = Site::default();
    let lines = "ifconfig 10.9.0.1 255.255.255.0\nifconfig-pool 10.9.0.100 10.9.0.100\n\
        ifconfig-ipv6 fd00:9::77 fd00:9::78\nifconfig-ipv6-pool fd00:9::5000/64\n";
    let mut net = serve(&site, 520, lines);
    let (node, settings) = join(&mut net, &site, "one", 521);
    assert_eq!(v4(&settings).0, "10.9.0.100/24");
    assert_eq!(settings.v6.unwrap().to_string(), "fd00:9::5000/64");
    both_ways(&mut net, node, "10.9.0.100", "10.9.0.1");
    both_ways(&mut net, node, "fd00:9::5000", "fd00:9::77");
    // One pool is used up; the other has its own count.
    let (node, settings) = join(&mut net, &site, "two", 522);
    assert_eq!((settings.v4, settings.v6.unwrap().to_string().as_str()), (None, "fd00:9::5001/64"));
    both_ways(&mut net, node, "fd00:9::5001", "fd00:9::77");
}

#[test]
fn our_own_address_in_the_middle_of_a_pool_is_not_given_away() {
    let site = Site::default();
    let lines = "ifconfig 10.9.0.3 255.255.255.0\nifconfig-pool 10.9.0.2 10.9.0.4\n\
        ifconfig-ipv6 fd00:9::2/112 fd00:9::1\nifconfig-ipv6-pool fd00:9::/112\n";
    let mut net = serve(&site, 530, lines);
    for (at, expected) in
        [("10.9.0.2/24", "fd00:9::1/112"), ("10.9.0.4/24", "fd00:9::3/112")].into_iter().enumerate()
    {
        let (_, settings) = join(&mut net, &site, &format!("c{at}"), 531 + at as u64);
        assert_eq!((v4(&settings).0.as_str(), settings.v6.unwrap().to_string().as_str()), expected);
    }
}
