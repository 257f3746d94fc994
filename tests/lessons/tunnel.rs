//! Data packets, and what is under way when its sender or receiver goes.

use sixgate::buf::PacketBuf;
use sixgate::engine::{DropReason, Engine, Reply};
use sixgate::wire::message::Message;

use crate::common::packets::echo;
use crate::common::pki::{CLIENT, Site, load};
use crate::common::raw::{Raw, WAITS};
use crate::{all_drops, count, drops, identity, join, serve};

#[test]
fn cve_2017_7508_malformed_packets_inside_the_tunnel_are_harmless() {
    let site = Site::default();
    let mut net = serve(&site, 700, "mssfix 1200\nclient-to-client\n");
    let config = load(CLIENT, &site.ca.pem, &identity(&site, "laptop"));
    let mut raw = Raw::new(&net, &config, WAITS);
    raw.talk(&mut net);
    let own: std::net::Ipv6Addr = net.nodes[0].engine.clients()[0].v6.unwrap();
    let syn = |next: u8, extensions: &[u8]| {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        packet.extend(own.octets());
        packet.extend("fd00:6::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        packet.extend(extensions);
        // A SYN whose options begin in it and end behind it.
        packet.extend([
            0, 80, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0xf0, 2, 0, 0, 0, 0, 0, 0, 2, 4, 5, 180, 1, 3, 3,
        ]);
        let len = (packet.len() - 40) as u16;
        packet[4..6].copy_from_slice(&len.to_be_bytes());
        packet
    };
    let chain = [60, 0, 0, 0, 0, 0, 0, 0, 6, 255, 0, 0, 0, 0, 0, 0];
    let mut sent = 0;
    for packet in [syn(6, &[]), syn(0, &chain), syn(44, &[6, 0, 0, 1, 0, 0, 0, 0])] {
        for len in 0..packet.len() {
            for lie in [None, Some(0_u16), Some(0xffff)] {
                let mut packet = packet[..len].to_vec();
                if let (Some(lie), Some(field)) = (lie, packet.get_mut(4..6)) {
                    field.copy_from_slice(&lie.to_be_bytes());
                }
                if !packet.is_empty() {
                    raw.data(&mut net, &packet);
                    sent += 1;
                }
            }
        }
        raw.data(&mut net, &packet);
    }
    assert!(sent > 500 && drops(&net, DropReason::NotIp) > 300);
    assert_eq!(count(&net), 1);
    let good = echo("10.8.0.2".parse().unwrap(), "10.8.0.1".parse().unwrap(), b"still here");
    raw.data(&mut net, &good);
    assert!(net.nodes[0].tun.contains(&good));
}

/// VORACLE (2018): what is never compressed tells nothing by its length, and what arrives
/// compressed is not unpacked.
#[test]
fn voracle_nothing_is_compressed_and_nothing_unpacked() {
    for lines in ["", "comp-lzo\n", "compress\n", "compress stub-v2\n"] {
        let site = Site::default();
        let mut net = serve(&site, 710, "");
        let node = join(&mut net, &site, "laptop", lines, 711);
        let mut lengths = Vec::new();
        for fill in [b"a".repeat(1_000), (0..1_000_u32).map(|n| ((n * 7_919) >> 3) as u8).collect()]
        {
            let packet = echo("10.8.0.2".parse().unwrap(), "10.8.0.1".parse().unwrap(), &fill);
            net.inject(node, &packet);
            lengths.push(net.trace.last().unwrap().bytes.len());
        }
        assert!(lengths[0] == lengths[1] && lengths[0] > 1_000, "{lines:?}: {lengths:?}");
    }
    let site = Site::default();
    let mut net = serve(&site, 712, "");
    let config = load(CLIENT, &site.ca.pem, &identity(&site, "laptop"));
    let mut raw = Raw::new(&net, &config, WAITS);
    raw.talk(&mut net);
    // The first bytes of LZO, LZ4 and LZ4v2 payloads.
    for begin in [&[0x66_u8][..], &[0x69], &[0x50, 1]] {
        let mut payload = begin.to_vec();
        payload.extend([0; 64]);
        raw.data(&mut net, &payload);
    }
    assert!(net.nodes[0].tun.is_empty());
    assert_eq!(all_drops(&net), 3);
}

#[test]
fn cve_2023_46850_2026_40215_2026_12996_2026_13117_what_waits_to_be_sent_goes_with_its_session() {
    let reasons: [fn(&mut dyn Engine, sixgate::time::Now); 4] = [
        |engine, now| engine.handle_reply(now, Reply::Kick("laptop".into())),
        |engine, now| engine.handle_reply(now, Reply::Revoked(vec![vec![70]])),
        |engine, now| engine.handle_reply(now, Reply::Restart),
        |engine, now| engine.handle_reply(now, Reply::Shutdown),
    ];
    for end in reasons {
        let site = Site::default();
        let mut net = serve(&site, 720, "");
        let config = load(CLIENT, &site.ca.pem, &identity(&site, "laptop"));
        let mut raw = Raw::new(&net, &config, WAITS);
        raw.talk(&mut net);
        net.run(10_000);
        raw.talk(&mut net);
        // A renegotiation under way, acknowledgements owed, a push asked for, and nothing drained.
        raw.session.renegotiate(net.now, &mut raw.rng).unwrap();
        raw.session.send_message("PUSH_REQUEST").unwrap();
        let mut memory = PacketBuf::new();
        let from = sixgate::engine::Endpoint::new(raw.addr);
        while let Some(datagram) = raw.next(&net) {
            let mut packet = memory.packet_from(&datagram).unwrap();
            let _ = net.nodes[0].engine.handle_udp(net.now, from, &mut packet);
        }
        end(&mut *net.nodes[0].engine, net.now);
        let now = net.now;
        let mut sent = 0;
        loop {
            let mut out = memory.packet();
            let Some(to) = net.nodes[0].engine.poll_transmit(now, &mut out) else { break };
            assert_eq!(to.peer, raw.addr);
            assert!(out.len() > 9, "a packet of nothing");
            sent += 1;
            assert!(sent < 20, "no end");
        }
        assert_eq!(count(&net), 0);
        net.run(30_000);
        assert!(net.nodes[0].engine.poll_timeout().is_none());
    }
}

/// A new session of the same client replaces the old one in the middle of what that one has to say.
#[test]
fn cve_2023_46850_a_replaced_session_says_nothing_more() {
    let site = Site::default();
    let mut net = serve(&site, 730, "");
    let config = load(CLIENT, &site.ca.pem, &identity(&site, "laptop"));
    let mut old = Raw::new(&net, &config, WAITS);
    old.talk(&mut net);
    net.run(10_000);
    old.talk(&mut net);
    old.session.renegotiate(net.now, &mut old.rng).unwrap();
    let reset = old.next(&net).unwrap();
    net.deliver(0, old.addr, &reset);
    let mut new = Raw::new(&net, &config, WAITS);
    new.addr = "198.51.100.51:5000".parse().unwrap();
    new.session = {
        let mut rng = crate::common::Seeded(78);
        let wrap = sixgate::session::wrap::Wrap::none();
        sixgate::session::Session::client(net.now, new.config.clone(), wrap, None, &mut rng)
    };
    new.talk(&mut net);
    assert_eq!((count(&net), new.pushed()), (1, 1));
    let before = net.trace.len();
    net.run(20_000);
    let late = net.trace[before..].iter().filter(|packet| packet.to == old.addr).count();
    assert_eq!(late, 0, "the old session is still talking");
    assert!(!new.messages.iter().any(|message| matches!(message, Message::Halt(_))));
}
