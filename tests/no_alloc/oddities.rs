//! What only some peers send, or only some configurations make of a packet: framings, questions inside
//! the data channel, a server that moves, an IPv6 that is blocked, addresses that follow the line. None
//! of it takes memory.

use std::net::SocketAddr;

use sixgate::config::Framing;
use sixgate::engine::{DropReason, Endpoint, LinePrefix, Reply, Verdict};
use sixgate::session::DataParams;
use sixgate::session::data::{OCC_MAGIC, PING};

use super::common::clients::{join, serve_with_files};
use super::common::net::Net;
use super::common::packets::echo;
use super::common::pki::{CLIENT, Site, Usage, load};
use super::common::puppet::{self, PARAMS, Strings};
use super::common::raw::Raw;
use super::{ROUNDS, handed, handed_from, ip, party, sealed};

/// What a peer can ask: for the options string, for a datagram of 1000 bytes, for the largest sizes.
const QUESTIONS: [&[u8]; 3] = [&[0], &[2, 3, 232], &[4]];

/// What is inside a data packet of the kinds that go no further, and how many answers it gets.
fn private() -> Vec<(Vec<u8>, usize)> {
    let occ = |operation: &[u8]| [&OCC_MAGIC, operation].concat();
    let questions = QUESTIONS.iter().map(|question| (occ(question), 1));
    questions.chain([(occ(&[1]), 0), (PING.to_vec(), 0)]).collect()
}

#[test]
fn a_client_of_old() {
    let own = "V4,dev-type tun,comp-lzo,tls-client";
    for (info, options, framing) in [
        ("", "", Framing::None),
        ("IV_LZO=1\n", own, Framing::Lzo),
        ("IV_LZO=1\nIV_COMP_STUBv2=1\n", own, Framing::StubV2),
    ] {
        let site = Site::default();
        let mut net = Net::new(540);
        net.add("192.0.2.1:1194", site.server(net.now, "", 540));
        let config = load(CLIENT, &site.ca.pem, &site.ca.issue("old", Usage::Client, 2050, 9));
        let info = format!("IV_PROTO=6\nIV_CIPHERS=AES-256-GCM\n{info}");
        let mut raw = Raw::with_options(&net, &config, &info, options);
        (raw.patient, raw.framing) = (true, framing);
        raw.talk(&mut net);
        log::set_max_level(log::LevelFilter::Info);
        let sender = raw.addr;
        let there = echo(ip("10.8.0.2"), ip("10.8.0.1"), &[1; 64]);
        let back = echo(ip("10.8.0.1"), ip("10.8.0.2"), &[1; 64]);
        for _ in 0..ROUNDS {
            let datagram = raw.sealed(&net, &there).unwrap();
            assert_eq!(
                handed_from(&mut net, 0, Some(sender), &datagram),
                (Verdict::ToTun, 0),
                "{framing:?}"
            );
            let to = Verdict::ToUdp(Endpoint::new(sender));
            assert_eq!(handed(&mut net, 0, None, &back), (to, 0), "{framing:?}");
            for (inside, answers) in private() {
                let datagram = raw.sealed(&net, &inside).unwrap();
                let outcome = handed_from(&mut net, 0, Some(sender), &datagram);
                assert_eq!(outcome, (Verdict::Consumed, answers), "{inside:02x?}");
            }
        }
    }
}

#[test]
fn a_server_of_old() {
    for (lines, framing) in
        [("", Framing::None), ("comp-lzo\n", Framing::Lzo), ("compress\n", Framing::Swap)]
    {
        let push = "PUSH_REPLY,topology subnet,ifconfig 10.8.0.2 255.255.255.0".to_owned();
        let params = Some(DataParams { framing, ..PARAMS });
        let strings = Strings { greeting: vec![push], params, ..Strings::default() };
        let (mut net, _) = puppet::show(strings, &format!("{lines}float\n"));
        assert!(net.run_until(20_000, |net| net.nodes[1].settings.is_some()));
        log::set_max_level(log::LevelFilter::Info);
        let elsewhere: SocketAddr = "192.0.2.77:1194".parse().unwrap();
        let there = echo(ip("10.8.0.2"), ip("10.8.0.1"), &[1; 64]);
        let back = echo(ip("10.8.0.1"), ip("10.8.0.2"), &[1; 64]);
        for _ in 0..ROUNDS {
            // It moves, and the client follows.
            for server in [elsewhere, net.nodes[0].addr] {
                let datagram = sealed(&mut net, 0, &back);
                let outcome = handed_from(&mut net, 1, Some(server), &datagram);
                assert_eq!(outcome, (Verdict::ToTun, 0), "{framing:?}");
                let to = Verdict::ToUdp(Endpoint::new(server));
                assert_eq!(handed(&mut net, 1, None, &there), (to, 0), "{framing:?}");
                for (inside, answers) in private() {
                    let datagram = sealed(&mut net, 0, &inside);
                    let outcome = handed_from(&mut net, 1, Some(server), &datagram);
                    assert_eq!(outcome, (Verdict::Consumed, answers), "{inside:02x?}");
                }
            }
        }
    }
}

/// Who may not use IPv6 is told so, so often.
#[test]
fn blocked_ipv6() {
    let mut net = party("push \"block-ipv6\"\n");
    let packet = echo(ip("fd00:6::1000"), ip("2001:db8::1"), &[1; 64]);
    let outcomes: Vec<_> = (0..100).map(|_| handed(&mut net, 1, None, &packet)).collect();
    assert_eq!(outcomes[0], (Verdict::ToTun, 0));
    assert_eq!(outcomes[99], (Verdict::Drop(DropReason::NoRoute), 0));
}

/// A client's own addresses in the line's prefix and in the stable one, and the network behind it.
#[test]
fn addresses_that_follow_the_line() {
    let lines =
        "dev tun\nserver-ipv6 auto fd00:6::/64\nkeepalive 10 60\ndelegate-ipv6 auto 60 /f\n";
    let site = Site::default();
    let config = load(lines, &site.ca.pem, &site.server);
    let mut net = serve_with_files(config, 560, &[], |_| {});
    join(&mut net, &site, "router", "delegate-ipv6-dev br-lan\n", 561);
    let [line, own] =
        ["2001:db8:0:100::/64", "2001:db8:0:100::1/64"].map(|net| net.parse().unwrap());
    let prefix = LinePrefix { net: line, bits: 56, own: own.addr(), preferred: 100 };
    net.reply(0, Reply::Prefixes(vec![prefix]));
    net.run(1_000);
    log::set_max_level(log::LevelFilter::Info);
    let settings = net.nodes[1].settings.clone().unwrap();
    let [address, stable, delegated] =
        [settings.v6, settings.v6_stable, settings.delegated].map(|net| net.unwrap());
    assert!(line.contains(&address) && !line.contains(&delegated) && !line.contains(&stable));
    let to = Verdict::ToUdp(Endpoint::new(net.nodes[1].addr));
    for _ in 0..ROUNDS {
        for theirs in [address, stable, delegated] {
            let (theirs, ours) = (theirs.addr().into(), own.addr().into());
            let datagram = sealed(&mut net, 1, &echo(theirs, ours, &[1; 64]));
            assert_eq!(handed(&mut net, 0, Some(1), &datagram), (Verdict::ToTun, 0), "{theirs}");
            let back = echo(ours, theirs, &[1; 64]);
            assert_eq!(handed(&mut net, 0, None, &back), (to, 0), "{theirs}");
        }
    }
}
