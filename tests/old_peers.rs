//! What older peers bring, engine against engine: CBC ciphers, compression framings, fallbacks. Real
//! old peers are in `tests/interop/old.py`.

mod common;

use std::net::IpAddr;

use common::net::{Link, Net};
use common::packets::echo;
use common::pki::Site;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A server (node 0) and a client (node 1) with these lines, connected.
fn connected(seed: u64, server: &str, client: &str) -> Net {
    let site = Site::default();
    let mut net = Net::new(seed);
    net.link = Link { loss: 5, mtu: 1600, ..Link::default() };
    let now = net.now;
    net.add("192.0.2.1:1194", site.server(now, server, seed));
    net.add("198.51.100.7:40000", site.client(now, "laptop", client, seed + 1));
    assert!(
        net.run_until(120_000, |net| net.nodes[1].settings.is_some()),
        "{server} and {client} do not connect"
    );
    net
}

/// Sends until it arrives: packets may be lost.
fn crosses(net: &mut Net, from: usize, to: usize, packet: &[u8]) {
    for _ in 0..20 {
        net.nodes[to].tun.clear();
        net.inject(from, packet);
        if net.run_until(2_000, |net| net.nodes[to].tun.contains(&packet.to_vec())) {
            return;
        }
    }
    panic!("nothing arrives");
}

fn both_families_cross(net: &mut Net) {
    for (client, server) in [("10.8.0.2", "10.8.0.1"), ("fd00:6::1000", "fd00:6::1")] {
        for size in [0, 1, 64, 1400] {
            crosses(net, 1, 0, &echo(ip(client), ip(server), &vec![0x5a; size]));
            crosses(net, 0, 1, &echo(ip(server), ip(client), &vec![0xa5; size]));
        }
    }
}

#[cfg(feature = "cbc")]
fn cipher_of(net: &Net) -> &'static str {
    net.nodes[0].engine.clients()[0].cipher
}

#[test]
#[cfg(feature = "cbc")]
fn every_cbc_cipher_with_every_digest() {
    for (seed, cipher) in (1..).zip(["AES-128-CBC", "AES-192-CBC", "AES-256-CBC"]) {
        for digest in ["SHA1", "SHA256", "SHA384", "SHA512"] {
            let lines = format!("data-ciphers {cipher}\nauth {digest}\n");
            let mut net = connected(seed, &format!("{lines}reneg-sec 30\n"), &lines);
            assert_eq!(cipher_of(&net), cipher);
            both_families_cross(&mut net);
            net.run(40_000);
            both_families_cross(&mut net);
        }
    }
}

#[test]
#[cfg(feature = "cbc")]
fn the_configurations_of_old() {
    let old = "cipher AES-256-CBC\nauth SHA256\n";
    let cbc_only = "data-ciphers AES-256-CBC\nauth SHA256\n";
    // AEAD wherever both have it; the cipher of the configuration only where it must be.
    assert_eq!(cipher_of(&connected(20, old, old)), "AES-256-GCM");
    assert_eq!(cipher_of(&connected(21, old, cbc_only)), "AES-256-CBC");
    assert_eq!(cipher_of(&connected(22, cbc_only, old)), "AES-256-CBC");
}

/// A client that frames its packets is told to use the framing that adds nothing; a server's own
/// lines about it change nothing.
#[test]
fn framings_in_every_spelling() {
    for (seed, server, client) in [
        (30, "", "comp-lzo no\n"),
        (31, "comp-lzo\n", "comp-lzo\n"),
        (32, "compress migrate\n", "compress\n"),
        (33, "compress\npush \"compress\"\n", ""),
        (34, "comp-lzo adaptive\n", "compress lz4-v2\n"),
        (35, "allow-compression no\n", "compress stub\n"),
    ] {
        let mut net = connected(seed, server, client);
        both_families_cross(&mut net);
    }
}

/// The other family's limit is 20 less [6.8].
#[test]
#[cfg(feature = "cbc")]
fn the_segment_size_leaves_room_for_cbc() {
    use sixgate::config::Mssfix;
    use sixgate::wire::ip::Version;
    use sixgate::wire::mss::{DataOverhead, MssLimits};
    let sha1 = DataOverhead::cbc(true, 20);
    // 1492 less 28 outside, 4 header, 20 HMAC, 16 IV: 1424, whole blocks, of which one byte is
    // padding and four are the packet id; then 40 of TCP/IPv4.
    let limits = MssLimits::new(Mssfix::Outer(1492), sha1, Version::V4);
    assert_eq!((limits.v4, limits.v6), (1424 - 1 - 4 - 40, 1424 - 1 - 4 - 60));
    let framed = MssLimits::new(Mssfix::Outer(1492), sha1.framed(1), Version::V4);
    assert_eq!(framed.v4, limits.v4 - 1);
}
