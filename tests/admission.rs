//! A peer made of a bare session, which says what no client engine would: how the server deals with
//! requests at the wrong time, a change of identity and a goodbye.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::Seeded;
use common::net::Net;
use common::packets::echo;
use common::pki::{CLIENT, Identity, Site, Usage, load};
use sixgate::buf::PacketBuf;
use sixgate::config::{self, CipherName, Config, Digest, Framing};
use sixgate::engine::{Command, DropReason, Occasion, Reply};
use sixgate::limits::{CONTROL_MTU, SEND_WINDOW};
use sixgate::server::Server;
use sixgate::session::data::Format;
use sixgate::session::keys::Derivation;
use sixgate::session::wrap::{Wrap, WrapId, WrapKey};
use sixgate::session::{
    DataParams, Login, Role, Session, SessionConfig, SessionEvent, SharedUnixTime, TlsContext,
};
use sixgate::wire::control::{AckList, Body, Header, MessageId, SessionId};
use sixgate::wire::message::Message;
use sixgate::wire::opcode::{KeyId, Opcode};
use sixgate::wire::static_key::{StaticKey, V2ServerKey};

const SERVER: &str = "192.0.2.1:1194";
/// DATA_V2 alone, and with REQUEST_PUSH.
const ASKS: u32 = 2;
const WAITS: u32 = 6;

/// The bare session.
struct Raw {
    session: Session,
    config: Arc<SessionConfig>,
    addr: SocketAddr,
    rng: Seeded,
    seen: usize,
    messages: Vec<Message>,
}

impl Raw {
    fn new(net: &Net, config: &Config, proto: u32) -> Self {
        let time = SharedUnixTime::default();
        time.set(net.now.unix);
        let config = Arc::new(SessionConfig {
            role: Role::Client,
            tls: Arc::new(TlsContext::client(&config.tls, time).unwrap()),
            timers: config.timers,
            options: String::new(),
            peer_info: format!("IV_PROTO={proto}\nIV_CIPHERS=AES-256-GCM\n"),
            credentials: Login::default(),
            control_mtu: CONTROL_MTU,
            send_window: SEND_WINDOW,
        });
        let mut rng = Seeded(77);
        let session = Session::client(net.now, config.clone(), Wrap::none(), None, &mut rng);
        let addr = "198.51.100.50:5000".parse().unwrap();
        Self { session, config, addr, rng, seen: net.trace.len(), messages: Vec::new() }
    }

    /// Lets both ends talk until neither has anything to say. No time passes.
    fn talk(&mut self, net: &mut Net) {
        let mut memory = PacketBuf::new();
        loop {
            let mut quiet = true;
            loop {
                let mut out = memory.packet();
                if !self.session.poll_transmit(net.now, &mut out) {
                    break;
                }
                quiet = false;
                net.deliver(0, self.addr, out.as_slice());
            }
            while let Some(packet) = net.trace.get(self.seen) {
                self.seen += 1;
                if packet.to == self.addr {
                    quiet = false;
                    let mut bytes = packet.bytes.clone();
                    let _ = self.session.handle_control(net.now, &mut bytes, &mut self.rng);
                }
            }
            while let Some(event) = self.session.poll_event() {
                self.heed(net, event);
            }
            if quiet {
                return;
            }
        }
    }

    fn heed(&mut self, net: &Net, event: SessionEvent) {
        match event {
            SessionEvent::Message(message) => self.messages.push(message),
            SessionEvent::Authenticate(proof) if proof.renegotiation => {
                self.session.approve_key(net.now, proof.key_id);
            }
            SessionEvent::Authenticate(_) => {
                let params = DataParams {
                    cipher: CipherName::Aes256Gcm,
                    digest: Digest::Sha1,
                    framing: Framing::None,
                    derivation: Derivation::Prf,
                    format: Format::Classic,
                    peer: Some(0),
                    dynamic_tls_crypt: false,
                };
                self.session.install_keys(net.now, params).unwrap();
            }
            SessionEvent::KeysReady(_)
            | SessionEvent::RenegotiationStarted(_)
            | SessionEvent::Failed(_) => {}
        }
    }

    fn say(&mut self, net: &mut Net, message: &str) {
        self.session.send_message(message).unwrap();
        self.talk(net);
    }

    fn pushed(&self) -> usize {
        let push = |message: &&Message| matches!(message, Message::PushReply(_));
        self.messages.iter().filter(push).count()
    }

    fn denied(&self) -> bool {
        self.messages.iter().any(|message| matches!(message, Message::AuthFailed(_)))
    }

    /// Sends an IP packet through the tunnel.
    fn data(&mut self, net: &mut Net, packet: &[u8]) {
        let mut memory = PacketBuf::new();
        let mut packet = memory.packet_from(packet).unwrap();
        self.session.seal(net.now, &mut packet).unwrap();
        net.deliver(0, self.addr, packet.as_slice());
    }
}

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
fn nothing_is_pushed_or_carried_before_the_decision() {
    let site = Site::default();
    let (mut net, mut raw) = start(&site, 410, ASKS);
    // Nobody answers.
    net.nodes[0].decides = false;
    raw.talk(&mut net);
    raw.say(&mut net, "PUSH_REQUEST");
    let packet = echo("10.8.0.2".parse().unwrap(), "10.8.0.1".parse().unwrap(), b"early");
    raw.data(&mut net, &packet);
    assert_eq!((count(&net), raw.pushed()), (0, 0), "CVE-2020-15078");
    assert_eq!(net.nodes[0].engine.drops().of(DropReason::NotReady), 1);
    let request = net.nodes[0].commands.iter().find_map(|command| match command {
        Command::Admit(request) => Some(request.ticket),
        _ => None,
    });
    let ticket = request.unwrap();
    net.reply(0, Reply::Admit { ticket: ticket + 1, verdict: Ok(Box::default()) });
    assert_eq!(count(&net), 0, "an answer to another question");
    net.reply(0, Reply::Admit { ticket, verdict: Ok(Box::default()) });
    raw.talk(&mut net);
    assert_eq!((count(&net), raw.pushed()), (1, 1), "the early request is answered now");
    raw.data(&mut net, &packet);
    assert!(net.nodes[0].tun.contains(&packet));
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
fn a_goodbye_is_acknowledged_and_cannot_be_drawn_out() {
    let site = Site::default();
    let (mut net, mut raw) = start(&site, 440, WAITS);
    raw.talk(&mut net);
    raw.say(&mut net, "EXIT");
    assert!(count(&net) == 0 && raw.session.is_quiet(), "gone, and the goodbye acknowledged");
    let packet = echo("10.8.0.2".parse().unwrap(), "10.8.0.1".parse().unwrap(), b"late");
    raw.data(&mut net, &packet);
    assert_eq!(net.nodes[0].engine.drops().of(DropReason::NotReady), 1);
    for _ in 0..4 {
        net.run(1_000);
        raw.say(&mut net, "EXIT");
    }
    net.run(1_500);
    assert_eq!(net.nodes[0].engine.poll_timeout(), None, "CVE-2024-28882");
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
