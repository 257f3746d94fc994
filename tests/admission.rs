//! A peer made of a bare session, which says what no client engine would: how the server deals with
//! requests at the wrong time, a change of identity and words that are a server's.

use std::net::SocketAddr;

use crate::common::Seeded;
use crate::common::net::Net;
use crate::common::pki::{CLIENT, Identity, Site, Usage, load};
use crate::common::raw::{ASKS, Raw, WAITS};
use sixgate::buf::PacketBuf;
use sixgate::config;
use sixgate::engine::{DropReason, Occasion};
use sixgate::server::Server;
use sixgate::session::Role;
use sixgate::session::wrap::{WrapId, WrapKey};
use sixgate::wire::control::{AckList, Body, Header, MessageId, SessionId};
use sixgate::wire::opcode::{KeyId, Opcode};
use sixgate::wire::static_key::{StaticKey, V2ServerKey};

const SERVER: &str = "192.0.2.1:1194";
fn identity(site: &Site, name: &str, serial: u8) -> Identity {
    site.ca.issue(name, Usage::Client, 2050, serial)
}

fn start(site: &Site, seed: u64, proto: u32) -> (Net, Raw) {
    let mut net = Net::new(seed);
    let now = net.now;
    net.add(SERVER, site.server(now, "", seed));
    let config = load(CLIENT, &site.ca.pem, &identity(site, "laptop", 70));
    let raw = Raw::new(&net, &config, proto);
    (net, raw)
}

fn count(net: &Net) -> usize {
    net.nodes[0].engine.clients().len()
}

#[test]
fn configuration_is_pushed_when_wanted_and_not_too_often() {
    let site = Site::default();
    let (mut net, mut raw) = start(&site, 400, WAITS);
    raw.talk(&mut net);
    assert_eq!((count(&net), raw.pushed()), (1, 1), "unasked");
    raw.say(&mut net, "PUSH_REQUEST");
    assert_eq!(raw.pushed(), 1, "a crossing request");
    net.run(31_000);
    raw.say(&mut net, "PUSH_REQUEST");
    assert_eq!(raw.pushed(), 2);

    let (mut net, mut raw) = start(&site, 401, ASKS);
    raw.talk(&mut net);
    assert_eq!((count(&net), raw.pushed()), (1, 0), "an older client asks");
    raw.say(&mut net, "PUSH_REQUEST");
    assert_eq!(raw.pushed(), 1);
}

#[test]
fn addresses_come_first_and_then_what_every_client_needs() {
    let site = Site::default();
    let (mut net, mut raw) = start(&site, 405, WAITS);
    raw.talk(&mut net);
    let text = raw.messages.iter().map(ToString::to_string).collect::<String>();
    let options: Vec<&str> = text.split(',').skip(1).collect();
    assert_eq!(options[0], "ifconfig 10.8.0.2 255.255.255.0", "{text}");
    assert_eq!(options[1], "ifconfig-ipv6 fd00:6::1000/64 fd00:6::1", "{text}");
    // Without `tun-ipv6`, clients older than 2.4 take no IPv6; without `topology`, all take net30.
    for option in ["topology subnet", "route-gateway 10.8.0.1", "tun-ipv6", "ping 10"] {
        assert!(options.contains(&option), "{option} is missing in {text}");
    }
}

#[test]
fn a_renegotiation_must_show_the_same_certificate() {
    let site = Site::default();
    for (name, serial, stays) in [("laptop", 70, true), ("laptop", 71, false), ("admin", 72, false)]
    {
        let (mut net, mut raw) = start(&site, 420, WAITS);
        raw.talk(&mut net);
        net.run(10_000);
        raw.talk(&mut net);
        if !stays {
            let other = load(CLIENT, &site.ca.pem, &identity(&site, name, serial));
            raw.config.tls.replace(&other.tls).unwrap();
        }
        raw.session.renegotiate(net.now, &mut raw.rng).unwrap();
        raw.talk(&mut net);
        assert_eq!((count(&net) == 1, raw.denied()), (stays, !stays), "{name} {serial}");
    }
}

#[test]
fn a_refusal_at_a_renegotiation_ends_the_connection() {
    let site = Site::default();
    let (mut net, mut raw) = start(&site, 430, WAITS);
    raw.talk(&mut net);
    net.run(10_000);
    raw.talk(&mut net);
    net.nodes[0].admit = |request| {
        assert_eq!(request.occasion, Occasion::Renegotiation);
        Err("no longer".into())
    };
    raw.session.renegotiate(net.now, &mut raw.rng).unwrap();
    raw.talk(&mut net);
    assert!(count(&net) == 0 && raw.denied());
}

#[test]
fn what_only_servers_say_is_ignored() {
    let site = Site::default();
    let (mut net, mut raw) = start(&site, 450, WAITS);
    raw.talk(&mut net);
    for message in ["AUTH_FAILED", "PUSH_REPLY,ifconfig 10.8.0.9 255.255.255.0", "RESTART", "HALT"]
    {
        raw.say(&mut net, message);
    }
    assert_eq!((count(&net), raw.pushed()), (1, 1));
}

/// The first packet of an OpenVPN 2.5 client with a key of its own: wrap ids count from 1.
fn old_v2_reset(client: &WrapKey, id: u32, wkc: &[u8]) -> Vec<u8> {
    let mut memory = PacketBuf::new();
    let mut out = memory.packet();
    let header = Header {
        opcode: Opcode::HardResetClientV3,
        key_id: KeyId::ZERO,
        session: SessionId([0xc5; 8]),
    };
    let body = Body { acks: AckList::new(), remote: None, id: Some(MessageId(0)), payload: &[] };
    client.seal(WrapId { id, time: 1 }, header, &body, wkc, &mut out).unwrap();
    out.as_slice().to_vec()
}

#[test]
fn a_client_that_cannot_send_its_key_twice_gets_a_session_at_once_or_not_at_all() {
    let site = Site::default();
    let server_key = V2ServerKey::generate(&mut Seeded(5));
    let key = StaticKey::generate(&mut Seeded(6));
    let wkc = server_key.wrap_client_key(&key, &[]).unwrap();
    let client = WrapKey::tls_crypt(&key, Role::Client);
    let text = server_key.to_text();
    for (force_cookie, answers) in [(false, 1), (true, 0)] {
        let mut net = Net::new(460);
        let extra = format!("<tls-crypt-v2>\n{}</tls-crypt-v2>\n", *text);
        let mut config = site.server_config(&extra);
        if let config::Role::Server(role) = &mut config.role {
            role.force_cookie = force_cookie;
        }
        let server = Server::new(config.into(), net.now, Box::new(Seeded(460))).unwrap();
        net.add(SERVER, Box::new(server));
        let from: SocketAddr = "198.51.100.50:5000".parse().unwrap();
        net.deliver(0, from, &old_v2_reset(&client, 1, &wkc));
        assert_eq!(net.trace.len(), answers, "force-cookie {force_cookie}");
        let Some(mut answer) = net.trace.first().map(|packet| packet.bytes.clone()) else {
            assert_eq!(net.nodes[0].engine.drops().of(DropReason::BadCookie), 1);
            continue;
        };
        let opened = client.open(&mut answer).unwrap();
        assert_eq!(opened.header.opcode, Opcode::HardResetServerV2);
        assert_eq!(opened.body.acks.as_slice(), [MessageId(0)]);
        assert!(opened.body.payload.is_empty(), "nothing that a 2.5 client would not know");
        // Its retransmission belongs to the same session and is only acknowledged.
        net.deliver(0, from, &old_v2_reset(&client, 2, &wkc));
        let mut again = net.trace[1].bytes.clone();
        let opened = client.open(&mut again).unwrap();
        assert_eq!(opened.header.opcode, Opcode::AckV1);
        // Nobody goes on: it does not stay for ever.
        net.run(70_000);
        assert_eq!(net.nodes[0].engine.poll_timeout(), None);
    }
}
