//! The first packets: what anybody on the Internet can send.

use std::net::SocketAddr;

use sixgate::engine::DropReason;
use sixgate::limits::PACKET_BUF;

use crate::common::net::Net;
use crate::common::packets::echo;
use crate::common::pki::{CLIENT, Site, load, static_key, v2_keys};
use crate::common::raw::{Raw, WAITS};
use crate::common::{heap, log_less};
use crate::{STRANGER, all_drops, count, drops, identity, join, serve};

/// Milliseconds in which a server has time for any datagram of a stranger's, on every machine.
const STRANGERS_TURN: u64 = 10;

/// Every wrapping: the server's lines and the client's.
fn wraps() -> [(String, String); 4] {
    let key = static_key();
    let (v2_server, v2_client) = v2_keys();
    let block = |name: &str, text: &str| format!("<{name}>\n{text}</{name}>\n");
    [
        (String::new(), String::new()),
        (
            format!("key-direction 0\n{}", block("tls-auth", &key)),
            format!("key-direction 1\n{}", block("tls-auth", &key)),
        ),
        (block("tls-crypt", &key), block("tls-crypt", &key)),
        (block("tls-crypt-v2", &v2_server), block("tls-crypt-v2", &v2_client)),
    ]
}

/// A bare session that wraps as `lines` say.
fn raw(net: &Net, site: &Site, lines: &str) -> Raw {
    Raw::new(net, &load(&format!("{CLIENT}{lines}"), &site.ca.pem, &identity(site, "raw")), WAITS)
}

/// Datagrams from a node so far.
fn sent(net: &Net, node: usize) -> Vec<Vec<u8>> {
    let from = net.nodes[node].addr;
    net.trace
        .iter()
        .filter(|packet| packet.from == from)
        .map(|packet| packet.bytes.clone())
        .collect()
}

fn stranger() -> SocketAddr {
    STRANGER.parse().unwrap()
}

/// The tunnel of the net's client works in both directions.
fn crosses(net: &mut Net, node: usize) {
    let (a, b) = ("10.8.0.2".parse().unwrap(), "10.8.0.1".parse().unwrap());
    for (from, to, packet) in [(node, 0, echo(a, b, b"up")), (0, node, echo(b, a, b"down"))] {
        net.inject(from, &packet);
        assert!(net.run_until(2_000, |net| net.nodes[to].tun.contains(&packet)));
        net.nodes[to].tun.clear();
    }
}

/// Where the tag of a wrapping's packets stands.
fn tag(wrap: usize) -> std::ops::Range<usize> {
    match wrap {
        1 => 9..29,
        _ => 17..49,
    }
}

#[test]
fn cve_2013_2061_a_nearly_right_tag_is_as_good_as_none() {
    for (number, (server, client)) in wraps().iter().enumerate().skip(1) {
        let site = Site::default();
        let mut net = serve(&site, 500, server);
        let mut raw = raw(&net, &site, client);
        let reset = raw.next(&net).unwrap();
        for at in tag(number) {
            let mut forged = reset.clone();
            forged[at] ^= 1;
            net.run(STRANGERS_TURN);
            net.deliver(0, stranger(), &forged);
        }
        assert_eq!(net.trace.len(), 0, "a forgery is answered");
        assert_eq!(drops(&net, DropReason::BadWrap), tag(number).len() as u64);
        net.deliver(0, stranger(), &reset);
        assert_eq!(net.trace.len(), 1, "and the genuine one is");
    }
}

#[test]
fn cve_2013_2061_tags_are_compared_in_constant_time() {
    let source = |name: &str| {
        let path = format!("{}/src/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
    };
    // `verify_*` of the hmac crate, and opening with ring and chacha20poly1305, take the same time
    // for every wrong tag; a comparison of slices does not.
    for name in [
        "session/wrap/tls_auth.rs",
        "session/wrap/tls_crypt.rs",
        "session/wrap/tls_crypt_v2.rs",
        "session/data/cbc.rs",
        "session/cbc.rs",
        "session/cipher.rs",
        "server/cookie.rs",
        "server/token.rs",
    ] {
        let text = source(name);
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let compares = line.contains("==") || line.contains("!=");
            let secret = ["tag", "mac", "digest", "expected"].iter().any(|word| {
                line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == *word)
            });
            let lengths = line.contains("len()") || line.contains("LEN");
            assert!(!compares || !secret || lengths, "{name}: {line}");
        }
    }
    for name in [
        "session/wrap/tls_auth.rs",
        "session/wrap/tls_crypt.rs",
        "server/cookie.rs",
        "server/token.rs",
    ] {
        assert!(source(name).contains("verify_"), "{name}");
    }
}

#[test]
fn cve_2014_8104_short_control_packets_are_dropped() {
    for (server, client) in &wraps() {
        let site = Site::default();
        let mut net = serve(&site, 510, server);
        let node = join(&mut net, &site, "laptop", client, 511);
        let home = net.nodes[node].addr;
        let genuine = sent(&net, node);
        let before = net.trace.len();
        let mut longest = 0;
        for from in [stranger(), home] {
            for packet in &genuine {
                for len in 0..packet.len().min(120) {
                    net.deliver(0, from, &packet[..len]);
                }
            }
            for first in 0..=255_u8 {
                for len in 0..60 {
                    let mut packet = vec![0; len];
                    packet.iter_mut().take(1).for_each(|byte| *byte = first);
                    net.deliver(0, from, &packet);
                    longest = len;
                }
            }
        }
        assert_eq!(longest, 59);
        let answers = net.trace[before..].iter().filter(|packet| packet.to == stranger()).count();
        // Without a wrapping, a few bytes are a whole first packet, and one is answered.
        assert!(answers <= 20, "{answers}");
        assert!(all_drops(&net) > 30_000);
        crosses(&mut net, node);
    }
}

#[test]
fn cve_2017_7478_oversize_control_packets_are_dropped() {
    for (server, client) in &wraps() {
        let site = Site::default();
        let mut net = serve(&site, 520, server);
        let node = join(&mut net, &site, "laptop", client, 521);
        let home = net.nodes[node].addr;
        let genuine = sent(&net, node);
        for len in [1_251, 1_600, 2_049, 2_500, 4_000, PACKET_BUF - 256] {
            for packet in &genuine {
                let mut packet = packet.clone();
                packet.resize(len, 0x5a);
                for from in [stranger(), home] {
                    net.deliver(0, from, &packet);
                }
            }
        }
        crosses(&mut net, node);
    }
}

#[test]
fn cve_2025_2704_a_wrapped_key_counts_only_at_the_beginning() {
    let [.., (server, client)] = &wraps();
    let site = Site::default();
    let mut net = serve(&site, 530, server);
    let node = join(&mut net, &site, "laptop", client, 531);
    let home = net.nodes[node].addr;
    let genuine = sent(&net, node);
    let knocks: Vec<&Vec<u8>> =
        genuine.iter().filter(|packet| [10, 11].contains(&(packet[0] >> 3))).collect();
    assert!(knocks.iter().any(|packet| packet[0] >> 3 == 11), "the key came twice");
    let other = sixgate::wire::static_key::V2ServerKey::generate(&mut crate::common::Seeded(9));
    let key = sixgate::wire::static_key::StaticKey::generate(&mut crate::common::Seeded(8));
    let foreign = other.wrap_client_key(&key, &[]).unwrap();
    for packet in &genuine {
        // As it came, under another opcode with the key, and with a key of another server's.
        let mut marked = packet.clone();
        let mut swapped = packet.clone();
        marked[0] = 11 << 3;
        swapped[0] = 10 << 3;
        swapped.extend_from_slice(&foreign);
        for bytes in [packet.clone(), marked, swapped] {
            net.deliver(0, home, &bytes);
        }
    }
    assert_eq!(count(&net), 1);
    crosses(&mut net, node);
}

#[test]
fn cve_2025_13086_only_the_cookie_that_was_given_is_taken() {
    for (server, client) in wraps().iter().take(3) {
        let site = Site::default();
        let mut net = serve(&site, 540, server);
        let mut raw = raw(&net, &site, client);
        let home = raw.addr;
        let reset = raw.next(&net).unwrap();
        net.deliver(0, home, &reset);
        raw.hear(&net);
        let third = raw.next(&net).unwrap();
        log_less();
        // From elsewhere, also from the next port; then too late; nothing is remembered of either.
        let held = heap::held();
        net.deliver(0, stranger(), &third);
        net.deliver(0, SocketAddr::new(home.ip(), home.port() + 1), &third);
        assert_eq!(drops(&net, DropReason::BadCookie), 2);
        if server.is_empty() {
            // Every other cookie; behind a wrapping, nobody gets as far as this.
            let at = third.len() - 8 - if third[0] >> 3 == 5 { 0 } else { third.len() - 22 };
            let range = if third[0] >> 3 == 5 { at..at + 8 } else { 14..22 };
            for byte in range {
                for bit in 0..8 {
                    let mut forged = third.clone();
                    forged[byte] ^= 1 << bit;
                    net.run(STRANGERS_TURN);
                    net.deliver(0, home, &forged);
                }
            }
            assert_eq!(drops(&net, DropReason::BadCookie), 2 + 64);
        }
        assert_eq!(net.nodes[0].engine.poll_timeout(), None, "somebody got in");
        assert!(heap::held() - held < 4_096);
        net.deliver(0, home, &third);
        assert!(net.nodes[0].engine.poll_timeout().is_some(), "the right one is refused");
        let mut late = serve(&site, 540, server);
        late.deliver(0, home, &reset);
        late.run(200_000);
        late.deliver(0, home, &third);
        assert_eq!(late.nodes[0].engine.poll_timeout(), None, "a cookie does not keep");
    }
}

/// First packets with every length that a wrapped key can state, and a few of every real length.
#[test]
fn cve_2026_35058_and_v3_2026_07_every_stated_length_of_a_wrapped_key() {
    let [.., (server, client)] = &wraps();
    let site = Site::default();
    let mut net = serve(&site, 550, server);
    let node = join(&mut net, &site, "laptop", client, 551);
    let home = net.nodes[node].addr;
    let reset = raw(&net, &site, client).next(&net).unwrap();
    assert_eq!(reset[0] >> 3, 10);
    let answers = net.trace.len();
    let genuine = u16::from_be_bytes(*reset.last_chunk().unwrap());
    for stated in (0..=u16::MAX).filter(|stated| *stated != genuine) {
        let mut packet = reset.clone();
        *packet.last_chunk_mut().unwrap() = stated.to_be_bytes();
        net.deliver(0, if stated % 2 == 0 { home } else { stranger() }, &packet);
    }
    for len in 0..reset.len() {
        let mut packet = reset[..len].to_vec();
        net.deliver(0, stranger(), &packet);
        // A key that would begin with the opcode, or in front of it.
        for stated in [len, len + 1, len.saturating_sub(1), len.saturating_sub(49)] {
            if let Some(end) = packet.last_chunk_mut() {
                *end = (stated as u16).to_be_bytes();
            }
            net.deliver(0, stranger(), &packet);
        }
    }
    assert_eq!(net.trace.len(), answers, "answered");
    assert!(all_drops(&net) >= u64::from(u16::MAX));
    crosses(&mut net, node);
}

#[test]
fn cve_2026_12932_2026_13698_repeated_handshake_packets_take_no_memory() {
    for (server, client) in &wraps() {
        let site = Site::default();
        let mut net = serve(&site, 560, server);
        let node = join(&mut net, &site, "laptop", client, 561);
        let home = net.nodes[node].addr;
        let genuine = sent(&net, node);
        let once = |net: &mut Net| {
            for packet in &genuine {
                for from in [home, stranger()] {
                    net.deliver(0, from, packet);
                }
            }
            net.forget();
        };
        // What a queue or a buffer grows to in the first rounds is no leak.
        log_less();
        (0..5).for_each(|_| once(&mut net));
        let held = heap::held();
        (0..500).for_each(|_| once(&mut net));
        let grown = heap::held() - held;
        assert!(grown < 1_024, "{grown} bytes after 500 replays of a handshake");
        crosses(&mut net, node);
    }
}
