//! What older peers bring, engine against engine: CBC ciphers, compression framings, fallbacks,
//! options strings. Real old peers are in `tests/interop/old.py`.

use std::net::IpAddr;

use crate::common::net::{Link, Net};
use crate::common::packets::echo;
use crate::common::pki::{CLIENT, Site, Usage, load};
use crate::common::raw::Raw;
use sixgate::config::Framing;
use sixgate::session::data::{EXIT_NOTIFY, OCC_MAGIC};
use sixgate::wire::message::Message;

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

/// A server with these lines, and a client that says this about itself, once it has been let in.
fn let_in(lines: &str, info: &str, options: &str, framing: Framing) -> (Net, Raw) {
    let site = Site::default();
    let mut net = Net::new(40);
    net.add("192.0.2.1:1194", site.server(net.now, lines, 40));
    let identity = site.ca.issue("laptop", Usage::Client, 2050, 9);
    let config = load(CLIENT, &site.ca.pem, &identity);
    let info = format!("IV_PROTO=6\nIV_CIPHERS=AES-256-GCM\n{info}");
    let mut raw = Raw::with_options(&net, &config, &info, options);
    (raw.patient, raw.framing) = (true, framing);
    raw.talk(&mut net);
    assert_eq!(raw.pushed(), 1, "{info}");
    (net, raw)
}

fn was_pushed(raw: &Raw, option: &str) -> bool {
    let is = |message: &Message| match message {
        Message::PushReply(push) => push.options.iter().any(|pushed| pushed == option),
        _ => false,
    };
    raw.messages.iter().any(is)
}

/// The client compares the server's options string with its own, so the server tells it what it
/// expects; it says what the framing is to be, and then uses that.
#[test]
fn a_client_that_frames_is_met_in_its_own_way() {
    let own = "V4,dev-type tun,link-mtu 1542,tun-mtu 1500,proto UDPv4,comp-lzo,auth SHA1,keysize 128,\
               key-method 2,tls-client";
    let (_, plain) = let_in("", "", &own.replace(",comp-lzo", ""), Framing::None);
    assert!(plain.options.contains("link-mtu 1541,") && !plain.options.contains("comp-lzo"));
    assert!(!was_pushed(&plain, "comp-lzo no") && !was_pushed(&plain, "compress stub-v2"));
    for (info, framing, told) in [
        ("IV_LZO=1\n", Framing::Lzo, "comp-lzo no"),
        ("IV_LZO=1\nIV_COMP_STUBv2=1\n", Framing::StubV2, "compress stub-v2"),
    ] {
        let (mut net, mut raw) = let_in("", info, own, framing);
        let expected = plain.options.replace("link-mtu 1541", "link-mtu 1542");
        assert_eq!(raw.options, format!("{expected},comp-lzo"));
        assert!(was_pushed(&raw, told), "{told}: {:?}", raw.messages);
        let (client, server) = (ip("10.8.0.2"), ip("10.8.0.1"));
        let (there, back) = (echo(client, server, b"there"), echo(server, client, b"back"));
        raw.data(&mut net, &there);
        net.inject(0, &back);
        net.run(1_000);
        raw.hear(&net);
        assert_eq!(net.nodes[0].tun, [there], "{told}");
        assert_eq!(raw.payloads, [back], "{told}");
    }
}

/// Before control channel exit, and twice by those who fear that one is lost.
#[test]
fn a_goodbye_in_the_data_channel_is_understood() {
    let (mut net, mut raw) = let_in("", "", "", Framing::None);
    assert_eq!(net.nodes[0].engine.clients().len(), 1);
    raw.data(&mut net, &EXIT_NOTIFY);
    raw.data(&mut net, &EXIT_NOTIFY);
    assert_eq!(net.nodes[0].engine.clients().len(), 0);
}

/// A client with `mtu-test` asks for datagrams of many sizes, then for what has come.
#[test]
fn a_client_that_measures_the_way_gets_its_answers() {
    let (mut net, mut raw) = let_in("", "", "", Framing::None);
    let ask = |question: &[u8]| [&OCC_MAGIC, question].concat();
    raw.data(&mut net, &ask(&[2, 1400_u16.to_be_bytes()[0], 1400_u16.to_be_bytes()[1]]));
    raw.talk(&mut net);
    assert!(raw.payloads[0].starts_with(&ask(&[3])));
    // Header, packet id and tag come to 24 bytes.
    assert_eq!(raw.payloads[0].len(), 1400 - 24);
    raw.data(&mut net, &ask(&[4]));
    raw.data(&mut net, &ask(&[0]));
    raw.talk(&mut net);
    // A question is no larger than this; the answer was.
    let received = 24 + 16 + 3;
    let sizes = [&[5, 0, received][..], &1400_u16.to_be_bytes()].concat();
    assert_eq!(raw.payloads[1], ask(&sizes));
    let options = [&[1], raw.options.as_bytes(), &[0]].concat();
    assert_eq!(raw.payloads[2], ask(&options));
    assert_eq!(net.nodes[0].tun, Vec::<Vec<u8>>::new());
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
