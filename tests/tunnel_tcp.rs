//! Whole IP hosts in place of the TUN devices: TCP over the tunnel, both families and directions,
//! survives loss, reordering, a renegotiation and a client that moves.

use crate::common::Seeded;
use crate::common::host::Host;
use crate::common::net::{Link, Net};
use crate::common::pki::Site;
use smoltcp::wire::{IpAddress, Ipv4Address, Ipv6Address};

/// A server and a client with hosts behind both.
fn hosts(seed: u64, link: Link, server: &str) -> Net {
    let site = Site::default();
    let mut net = Net::new(seed);
    let now = net.now;
    net.add("192.0.2.1:1194", site.server(now, server, seed));
    net.add("198.51.100.7:40000", site.client(now, "laptop", "", seed + 1));
    assert!(net.run_until(120_000, |net| net.nodes[1].settings.is_some()));
    let settings = net.nodes[1].settings.clone().unwrap();
    let (v4, v6) = ("10.8.0.1/24".parse().unwrap(), "fd00:6::1/64".parse().unwrap());
    net.nodes[0].host = Some(Host::new(Some(v4), Some(v6), 1500, seed));
    net.nodes[1].host = Some(Host::new(settings.v4, settings.v6, settings.mtu.into(), seed + 1));
    net.link = link;
    net
}

fn data(len: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; len];
    sixgate::random::Random::fill(&mut Seeded(seed), &mut out);
    out
}

/// Sends `len` bytes from one host to the other and checks that they arrive as they were.
fn transfer(net: &mut Net, from: usize, to: usize, address: IpAddress, len: usize) {
    let bytes = data(len, len as u64);
    net.nodes[to].host.as_mut().unwrap().listen(5001);
    let port = 40_000 + (net.trace.len() % 20_000) as u16;
    let sender = net.nodes[from].host.as_mut().unwrap();
    sender.connect_and_send((address, 5001), port, bytes.clone());
    let arrived =
        net.run_until(600_000, |net| net.nodes[to].host.as_ref().unwrap().received.len() >= len);
    let received = &net.nodes[to].host.as_ref().unwrap().received;
    assert!(arrived, "{} of {len} bytes arrived", received.len());
    assert!(*received == bytes, "the bytes changed on the way");
    for node in [from, to] {
        net.nodes[node].host.as_mut().unwrap().abort();
    }
    net.run(1_000);
}

fn both_ways(net: &mut Net, len: usize) {
    let v4 = |last| IpAddress::Ipv4(Ipv4Address::new(10, 8, 0, last));
    let v6 = |last| IpAddress::Ipv6(Ipv6Address::new(0xfd00, 6, 0, 0, 0, 0, 0, last));
    transfer(net, 1, 0, v4(1), len);
    transfer(net, 0, 1, v4(2), len);
    transfer(net, 1, 0, v6(1), len);
    transfer(net, 0, 1, v6(0x1000), len);
}

#[test]
fn tcp_crosses_a_clean_link() {
    both_ways(&mut hosts(1, Link::default(), ""), 1_000_000);
}

#[test]
fn tcp_survives_loss_and_reordering() {
    let link = Link { latency: (5, 40), loss: 20, duplicate: 20, ..Link::default() };
    both_ways(&mut hosts(2, link, ""), 60_000);
}

#[test]
fn the_clamped_mss_keeps_datagrams_within_the_path() {
    // mssfix 1492 is the default: nothing larger than 1492 - 28 may leave, or the link eats it.
    let link = Link { mtu: 1492 - 28, ..Link::default() };
    let mut net = hosts(3, link, "");
    both_ways(&mut net, 200_000);
    let lost = net.trace.iter().filter(|packet| packet.lost).count();
    assert_eq!(lost, 0, "datagrams were larger than the path");
}

#[test]
fn tcp_survives_a_renegotiation_and_a_move() {
    let mut net = hosts(4, Link { latency: (20, 20), ..Link::default() }, "reneg-sec 15\n");
    let bytes = data(30_000_000, 4);
    net.nodes[0].host.as_mut().unwrap().listen(5001);
    let to = (IpAddress::Ipv4(Ipv4Address::new(10, 8, 0, 1)), 5001);
    net.nodes[1].host.as_mut().unwrap().connect_and_send(to, 40_001, bytes.clone());
    net.run(3_000);
    net.nodes[1].addr = "203.0.113.5:50001".parse().unwrap();
    let arrived = net.run_until(600_000, |net| {
        net.nodes[0].host.as_ref().unwrap().received.len() >= bytes.len()
    });
    let received = &net.nodes[0].host.as_ref().unwrap().received;
    assert!(arrived, "{} of {} bytes arrived", received.len(), bytes.len());
    assert!(*received == bytes, "the bytes changed on the way");
    let resets = net.trace.iter().filter(|packet| packet.bytes[0] >> 3 == 3).count();
    assert!(resets >= 2, "no renegotiation happened");
}
