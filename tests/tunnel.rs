//! A server and its clients over a network that misbehaves: the tunnel comes up, carries both
//! families, renegotiates, moves and ends as it should.

use std::net::IpAddr;

use crate::common;
use crate::common::net::{Link, Net};
use crate::common::packets::echo;
use crate::common::pki::Site;
use sixgate::engine::{Command, DropReason, ExitReason, Reply};

const SERVER: &str = "192.0.2.1:1194";
const CLIENT: &str = "198.51.100.7:40000";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A network with a server (node 0) and one client (node 1).
fn pair(seed: u64, link: Link, server: &str, client: &str) -> Net {
    let mut net = site_pair(&Site::default(), "laptop", seed, server, client);
    net.link = link;
    net
}

/// A server of this site (node 0) and a client of this name (node 1).
fn site_pair(site: &Site, name: &str, seed: u64, server: &str, client: &str) -> Net {
    let mut net = Net::new(seed);
    let now = net.now;
    net.add(SERVER, site.server(now, server, seed));
    net.add(CLIENT, site.client(now, name, client, seed + 1));
    net
}

fn up(net: &mut Net, node: usize) -> bool {
    net.run_until(120_000, |net| net.nodes[node].settings.is_some())
}

/// Sends an echo request from `from`'s host and waits for it at `to`'s.
fn crosses(net: &mut Net, from: usize, to: usize, packet: &[u8]) -> bool {
    net.nodes[to].tun.clear();
    net.inject(from, packet);
    net.run_until(2_000, |net| net.nodes[to].tun.contains(&packet.to_vec()))
}

fn both_families_cross(net: &mut Net) {
    for (client, server) in [("10.8.0.2", "10.8.0.1"), ("fd00:6::1000", "fd00:6::1")] {
        let there = echo(ip(client), ip(server), &[0x5a; 1300]);
        assert!(crosses(net, 1, 0, &there), "{client} to {server}");
        let back = echo(ip(server), ip(client), b"short");
        assert!(crosses(net, 0, 1, &back), "{server} to {client}");
    }
}

#[test]
fn a_client_comes_up_and_both_families_cross() {
    let mut net = pair(1, Link::default(), "", "");
    assert!(up(&mut net, 1));
    let settings = net.nodes[1].settings.clone().unwrap();
    assert_eq!(settings.v4.unwrap().to_string(), "10.8.0.2/24");
    assert_eq!(settings.v6.unwrap().to_string(), "fd00:6::1000/64");
    assert_eq!(settings.mtu, 1500);
    assert!(net.nodes[0].commands.iter().any(|command| matches!(command, Command::ClientUp(info)
        if info.common_name == "laptop" && info.v6 == Some("fd00:6::1000".parse().unwrap()))));
    both_families_cross(&mut net);
}

#[test]
fn every_wrap_and_tls_version_comes_up_under_loss() {
    let key = common::pki::static_key();
    let (v2_server, v2_client) = common::pki::v2_keys();
    let wraps = [
        (String::new(), String::new()),
        (
            format!("key-direction 0\nauth SHA256\n<tls-auth>\n{key}</tls-auth>\n"),
            format!("key-direction 1\nauth SHA256\n<tls-auth>\n{key}</tls-auth>\n"),
        ),
        (format!("<tls-crypt>\n{key}</tls-crypt>\n"), format!("<tls-crypt>\n{key}</tls-crypt>\n")),
        (
            format!("<tls-crypt-v2>\n{v2_server}</tls-crypt-v2>\n"),
            format!("<tls-crypt-v2>\n{v2_client}</tls-crypt-v2>\n"),
        ),
    ];
    let link = Link { latency: (5, 80), loss: 150, duplicate: 100, ..Link::default() };
    for (index, (server, client)) in wraps.iter().enumerate() {
        for version in ["1.2", "1.3"] {
            let limit = format!("tls-version-min 1.2\ntls-version-max {version}\n");
            let mut net = pair(10 + index as u64, link, &format!("{limit}{server}"), client);
            assert!(up(&mut net, 1), "wrap {index}, TLS {version}");
            net.link.loss = 0;
            both_families_cross(&mut net);
        }
    }
}

#[test]
fn every_cipher_is_negotiated_as_the_server_prefers() {
    for cipher in ["CHACHA20-POLY1305", "AES-256-GCM", "AES-128-GCM"] {
        let mut net = pair(30, Link::default(), &format!("data-ciphers {cipher}\n"), "");
        assert!(up(&mut net, 1), "{cipher}");
        assert_eq!(net.nodes[0].engine.clients()[0].cipher, cipher);
        both_families_cross(&mut net);
    }
}

#[test]
fn renegotiation_by_either_side_loses_no_packet() {
    for (server, client) in
        [("reneg-sec 20\n", "reneg-sec 0\n"), ("reneg-sec 0\n", "reneg-sec 20\n")]
    {
        let mut net = pair(40, Link { latency: (1, 60), ..Link::default() }, server, client);
        assert!(up(&mut net, 1));
        let (a, b) = (ip("fd00:6::1000"), ip("fd00:6::1"));
        let mut sent = 0_u32;
        // Packet numbers travel in the payload; 180 s cover several renegotiations.
        for _ in 0..1800 {
            net.inject(1, &echo(a, b, &sent.to_be_bytes()));
            net.inject(0, &echo(b, a, &sent.to_be_bytes()));
            sent += 1;
            net.run(100);
        }
        net.run(1_000);
        let resets = net.trace.iter().filter(|packet| packet.bytes[0] >> 3 == 3).count();
        assert!(resets >= 6, "only {resets} soft resets for {server:?} {client:?}");
        for node in [0, 1] {
            assert_eq!(
                net.nodes[node].tun.len() as u32,
                sent,
                "at node {node}, {server:?} {client:?}"
            );
        }
    }
}

#[test]
fn a_client_that_moves_keeps_its_tunnel() {
    let mut net = pair(50, Link::default(), "", "");
    assert!(up(&mut net, 1));
    net.nodes[1].addr = "[2001:db8::9]:50000".parse().unwrap();
    both_families_cross(&mut net);
    // Control packets follow the data: a renegotiation works from the new address.
    let from = net.nodes[0].engine.clients()[0].from.peer;
    assert_eq!(from, net.nodes[1].addr);
}

#[test]
fn a_client_that_moves_with_each_packet_does_not_fill_the_log() {
    let mut net = site_pair(&Site::default(), "wanderer", 53, "", "");
    assert!(up(&mut net, 1));
    let ping = echo(ip("10.8.0.2"), ip("10.8.0.1"), b"here I am");
    let travel = |net: &mut Net, moves: u16| {
        for port in 0..moves {
            net.nodes[1].addr.set_port(50_000 + port);
            assert!(crosses(net, 1, 0, &ping));
        }
        common::news("wanderer: moved from")
    };
    assert_eq!(travel(&mut net, 100), 30);
    net.run(60_000);
    assert_eq!(travel(&mut net, 1), 31, "a minute later");
}

#[test]
fn a_captured_packet_from_elsewhere_moves_nobody() {
    let mut net = pair(51, Link::default(), "", "");
    assert!(up(&mut net, 1));
    let (a, b) = (ip("10.8.0.2"), ip("10.8.0.1"));
    net.inject(1, &echo(a, b, b"capture me"));
    net.run(100);
    let captured = net.trace.iter().rev().find(|packet| packet.bytes[0] >> 3 == 9).unwrap().clone();
    net.deliver(0, "203.0.113.66:6666".parse().unwrap(), &captured.bytes);
    assert_eq!(net.nodes[0].engine.drops().of(DropReason::Replay), 1);
    assert_eq!(net.nodes[0].engine.clients()[0].from.peer, net.nodes[1].addr);
}

#[test]
fn a_restarted_server_gets_its_client_back() {
    let site = Site::default();
    let mut net = site_pair(&site, "laptop", 60, "", "");
    assert!(up(&mut net, 1));
    net.nodes[0].off = true;
    net.run(5_000);
    net.nodes[0].engine = site.server(net.now, "", 62);
    net.nodes[0].off = false;
    net.nodes[0].commands.clear();
    let back = net.run_until(200_000, |net| !net.nodes[0].engine.clients().is_empty());
    assert!(back, "the client did not come back");
    net.run(1_000);
    both_families_cross(&mut net);
}

#[test]
fn a_client_that_leaves_is_noticed_at_once() {
    for extra in ["", "explicit-exit-notify 2\n"] {
        let mut net = pair(70, Link::default(), "", extra);
        assert!(up(&mut net, 1));
        net.reply(1, Reply::Shutdown);
        assert!(net.run_until(8_000, |net| net.nodes[0].engine.clients().is_empty()), "{extra:?}");
        assert!(net.run_until(8_000, |net| net.nodes[1].ended == Some(ExitReason::Requested)));
        assert!(net.nodes[1].settings.is_none(), "addresses are taken back");
    }
}

#[test]
fn a_server_that_leaves_tells_its_clients() {
    let mut net = pair(71, Link::default(), "explicit-exit-notify 1\n", "");
    assert!(up(&mut net, 1));
    net.reply(0, Reply::Shutdown);
    assert!(net.run_until(8_000, |net| net.nodes[0].ended.is_some()));
    let resets = |net: &Net| net.trace.iter().filter(|packet| packet.bytes[0] >> 3 == 7).count();
    let before = resets(&net);
    assert!(net.run_until(10_000, |net| resets(net) > before), "the client starts anew by itself");
}

#[test]
fn two_clients_reach_each_other_only_when_allowed() {
    for (extra, allowed) in [("client-to-client\n", true), ("", false)] {
        let site = Site::default();
        let mut net = Net::new(80);
        let now = net.now;
        net.add(SERVER, site.server(now, extra, 80));
        net.add(CLIENT, site.client(now, "laptop", "", 81));
        assert!(up(&mut net, 1));
        net.add("198.51.100.8:40001", site.client(now, "phone", "", 82));
        assert!(up(&mut net, 2));
        let packet = echo(ip("fd00:6::1000"), ip("fd00:6::1001"), b"neighbour");
        assert_eq!(crosses(&mut net, 1, 2, &packet), allowed);
        // Without client-to-client the host's firewall decides.
        assert_eq!(net.nodes[0].tun.contains(&packet), !allowed);
    }
}

#[test]
fn a_source_address_that_is_not_the_clients_is_dropped_and_counted() {
    let mut net = pair(90, Link::default(), "", "");
    assert!(up(&mut net, 1));
    for (from, to) in [("10.8.0.77", "10.8.0.1"), ("fd00:6::bad", "fd00:6::1")] {
        let spoofed = echo(ip(from), ip(to), b"spoof");
        assert!(!crosses(&mut net, 1, 0, &spoofed));
    }
    assert_eq!(net.nodes[0].engine.drops().of(DropReason::BadSource), 2);
    let noise = echo(ip("fe80::1"), ip("ff02::2"), b"router solicitation");
    assert!(!crosses(&mut net, 1, 0, &noise));
    assert_eq!(net.nodes[0].engine.drops().of(DropReason::BadSource), 2);
    assert_eq!(net.nodes[0].engine.drops().of(DropReason::LinkLocal), 1);
}

#[test]
fn a_refused_client_is_told_why() {
    let mut net = pair(100, Link::default(), "", "");
    net.nodes[0].admit = |_| Err("not on Sundays".into());
    assert!(net.run_until(60_000, |net| net.nodes[1].ended.is_some()));
    let Some(ExitReason::Fatal(text)) = &net.nodes[1].ended else { panic!("not refused") };
    assert!(text.contains("not on Sundays"), "{text}");
    net.run(10_000);
    assert!(net.nodes[0].engine.clients().is_empty());
}

#[test]
fn a_revoked_client_is_dropped_and_stays_out() {
    let mut net = pair(110, Link::default(), "", "");
    assert!(up(&mut net, 1));
    let serial = 2 + 111_u8;
    net.reply(0, Reply::Revoked(vec![vec![serial]]));
    assert!(net.run_until(8_000, |net| net.nodes[0].engine.clients().is_empty()));
    net.run(60_000);
    assert!(net.nodes[0].engine.clients().is_empty());
}

#[test]
fn an_ipv6_only_server_works() {
    let site = Site::default();
    let mut net = Net::new(120);
    let now = net.now;
    let text = "dev tun\nserver-ipv6 fd00:6::/64\ntopology subnet\nkeepalive 10 60\n";
    let config = common::pki::load(text, &site.ca.pem, &site.server);
    let rng = Box::new(common::Seeded(120));
    let server = sixgate::server::Server::new(config.into(), now, rng).unwrap();
    net.add(SERVER, Box::new(server));
    net.add(CLIENT, site.client(now, "laptop", "", 121));
    assert!(up(&mut net, 1));
    assert_eq!(net.nodes[1].settings.as_ref().unwrap().v4, None);
    let packet = echo(ip("fd00:6::1000"), ip("fd00:6::1"), b"six");
    assert!(crosses(&mut net, 1, 0, &packet));
}

#[test]
fn keepalive_finds_a_dead_peer_and_pings_keep_a_quiet_one() {
    let mut net = pair(130, Link::default(), "", "");
    assert!(up(&mut net, 1));
    net.run(600_000);
    assert_eq!(net.nodes[0].engine.clients().len(), 1, "a quiet tunnel stays");
    net.nodes[1].off = true;
    assert!(net.run_until(150_000, |net| net.nodes[0].engine.clients().is_empty()));
}

#[test]
fn strangers_leave_nothing_behind() {
    let site = Site::default();
    let mut net = Net::new(140);
    let now = net.now;
    net.add(SERVER, site.server(now, "", 140));
    let before = net.nodes[0].engine.poll_timeout();
    let mut rng = common::Seeded(141);
    for round in 0..20_000_u32 {
        let mut bytes = vec![0; (rng.next() % 200) as usize];
        sixgate::random::Random::fill(&mut rng, &mut bytes);
        if let (Some(first), true) = (bytes.first_mut(), round % 2 == 0) {
            // Half of them look like first packets.
            *first = 0x38;
        }
        let from = format!("203.0.113.{}:{}", round % 250, 1024 + round % 60_000).parse().unwrap();
        net.deliver(0, from, &bytes);
    }
    assert_eq!(net.nodes[0].engine.poll_timeout(), before, "a stranger started a timer");
    assert!(net.nodes[0].engine.clients().is_empty());
}

#[test]
fn the_same_seed_gives_the_same_traffic() {
    let run = |seed| {
        let link = Link { latency: (5, 60), loss: 100, duplicate: 50, ..Link::default() };
        let mut net = pair(seed, link, "", "");
        assert!(up(&mut net, 1));
        let shape = |packet: &common::pcap::Captured| (packet.at, packet.bytes.len(), packet.lost);
        net.trace.iter().map(shape).collect::<Vec<_>>()
    };
    assert_eq!(run(150), run(150));
}
