//! A server that says what it is told to: pushes, updates and refusals that no server engine would
//! send, and what the client makes of them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use sixgate::buf::PacketMut;
use sixgate::config::{CipherName, Config, Digest, Framing};
use sixgate::engine::{ClientInfo, Command, DropCounters, Endpoint, Engine, Reply, Verdict};
use sixgate::limits::{CONTROL_MTU, SEND_WINDOW};
use sixgate::session::data::{Format, Payload};
use sixgate::session::keys::Derivation;
use sixgate::session::wrap::Wrap;
use sixgate::session::{
    DataParams, Login, Role, Session, SessionConfig, SessionEvent, SharedUnixTime, TlsContext,
};
use sixgate::time::{Instant, Now};
use sixgate::wire::control::Header;
use sixgate::wire::message::Message;
use sixgate::wire::opcode::Opcode;

use super::Seeded;
use super::net::Net;
use super::pki::Site;

/// What passes between the test and its puppet.
#[derive(Default)]
pub struct Strings {
    /// To be sent to the client as soon as possible.
    pub say: VecDeque<String>,
    /// Said to each client when it has authenticated.
    pub greeting: Vec<String>,
    /// What the client said.
    pub heard: Vec<Message>,
    /// User names and passwords, one for each key exchange.
    pub logins: Vec<(String, String)>,
    /// IP packets from the client.
    pub packets: Vec<Vec<u8>>,
    /// Pings from the client.
    pub pings: usize,
    /// Goodbyes in the data channel.
    pub goodbyes: usize,
    /// What the client said about itself: its OCC string and its peer info.
    pub about: (String, String),
    /// The puppet's own OCC string, unless it is the usual one.
    pub options: Option<String>,
    /// How it works the data channel, unless it is the usual way.
    pub params: Option<DataParams>,
}

/// The usual way.
pub const PARAMS: DataParams = DataParams {
    cipher: CipherName::Aes256Gcm,
    digest: Digest::Sha1,
    framing: Framing::None,
    derivation: Derivation::Prf,
    format: Format::Classic,
    peer: None,
    dynamic_tls_crypt: false,
};

/// A puppet (node 0) with these strings, and a client (node 1) with these lines.
pub fn show(strings: Strings, client: &str) -> (Net, Rc<RefCell<Strings>>) {
    let site = Site::default();
    let mut net = Net::new(7);
    let strings = Rc::new(RefCell::new(strings));
    let puppet = Puppet::new(net.now, &site.server_config(""), &strings);
    net.add("192.0.2.1:1194", Box::new(puppet));
    let client = site.client(net.now, "laptop", client, 8);
    net.add("198.51.100.7:40000", client);
    (net, strings)
}

/// The engine.
pub struct Puppet {
    config: Arc<SessionConfig>,
    session: Option<(Session, Endpoint)>,
    strings: Rc<RefCell<Strings>>,
    rng: Seeded,
    drops: DropCounters,
}

impl Puppet {
    pub fn new(now: Now, config: &Config, strings: &Rc<RefCell<Strings>>) -> Self {
        let time = SharedUnixTime::default();
        time.set(now.unix);
        let options = strings.borrow().options.clone();
        let config = Arc::new(SessionConfig {
            role: Role::Server,
            tls: Arc::new(TlsContext::server(&config.tls, time).unwrap()),
            timers: config.timers,
            options: options.unwrap_or_else(|| "V4,dev-type tun,cipher AES-256-GCM".to_owned()),
            peer_info: String::new(),
            credentials: Login::default(),
            judges_peer: false,
            control_mtu: CONTROL_MTU,
            send_window: SEND_WINDOW,
        });
        let strings = Rc::clone(strings);
        Self { config, session: None, strings, rng: Seeded(99), drops: DropCounters::default() }
    }

    fn heed(&mut self, now: Now) {
        let Some((session, _)) = &mut self.session else { return };
        let mut strings = self.strings.borrow_mut();
        let mut failed = false;
        while let Some(event) = session.poll_event() {
            match event {
                SessionEvent::Authenticate(proof) => {
                    strings.about = (proof.options.clone(), proof.peer_info.clone());
                    strings.logins.push((proof.username.clone(), proof.password.to_string()));
                    if proof.renegotiation {
                        session.approve_key(now, proof.key_id);
                        continue;
                    }
                    let params = strings.params.unwrap_or(PARAMS);
                    session.install_keys(now, params).unwrap();
                    for line in &strings.greeting {
                        session.send_message(line).unwrap();
                    }
                }
                SessionEvent::Message(message) => strings.heard.push(message),
                SessionEvent::KeysReady(_)
                | SessionEvent::RenegotiationStarted(_)
                | SessionEvent::Judge { .. } => {}
                SessionEvent::Failed(_) => failed = true,
            }
        }
        if session.has_keys() {
            while let Some(line) = strings.say.pop_front() {
                session.send_message(&line).unwrap();
            }
        }
        if failed {
            self.session = None;
        }
    }
}

impl Engine for Puppet {
    fn handle_udp(&mut self, now: Now, from: Endpoint, packet: &mut PacketMut<'_>) -> Verdict {
        let Some(first) = packet.as_slice().first().copied() else { return Verdict::Consumed };
        match Opcode::from_first_byte(first).0 {
            Opcode::DataV1 | Opcode::DataV2 => {
                let Some((session, _)) = &mut self.session else { return Verdict::Consumed };
                let mut strings = self.strings.borrow_mut();
                match session.open(now, packet) {
                    Ok(Payload::Ip) => strings.packets.push(packet.as_slice().to_vec()),
                    Ok(Payload::Ping) => strings.pings += 1,
                    Ok(Payload::ExitNotify) => strings.goodbyes += 1,
                    Ok(_) | Err(_) => {}
                }
                return Verdict::Consumed;
            }
            Opcode::HardResetClientV2 => {
                let Ok((header, _)) = Header::parse(packet.as_slice()) else {
                    return Verdict::Consumed;
                };
                if self.session.as_ref().is_none_or(|(old, _)| old.remote_id() != header.session) {
                    let (config, wrap) = (Arc::clone(&self.config), Wrap::none());
                    let rng = &mut self.rng;
                    let session = Session::server_stateful(now, config, wrap, header.session, rng);
                    self.session = Some((session, from));
                }
            }
            _ => {}
        }
        if let Some((session, _)) = &mut self.session {
            let _ = session.handle_control(now, packet.as_mut_slice(), &mut self.rng);
        }
        self.heed(now);
        Verdict::Consumed
    }

    fn handle_tun(&mut self, now: Now, packet: &mut PacketMut<'_>) -> Verdict {
        let Some((session, peer)) = &mut self.session else { return Verdict::Consumed };
        let sealed = session.seal(now, packet);
        sealed.map_or_else(Verdict::Drop, |()| Verdict::ToUdp(*peer))
    }

    fn handle_timeout(&mut self, now: Now) {
        if let Some((session, _)) = &mut self.session {
            session.handle_timeout(now, &mut self.rng);
        }
        self.heed(now);
    }

    fn handle_reply(&mut self, _: Now, _: Reply) {}

    fn poll_transmit(&mut self, now: Now, out: &mut PacketMut<'_>) -> Option<Endpoint> {
        let (session, peer) = self.session.as_mut()?;
        let sent = session.poll_transmit(now, out).then_some(*peer);
        if sent.is_none() {
            self.heed(now);
        }
        sent
    }

    fn poll_broadcast(&mut self, _: Now, _: &[u8], _: &mut PacketMut<'_>) -> Option<Endpoint> {
        None
    }

    fn poll_command(&mut self) -> Option<Command> {
        None
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let (session, _) = self.session.as_ref()?;
        if session.has_keys() && !self.strings.borrow().say.is_empty() {
            return Some(Instant::ZERO);
        }
        session.poll_timeout()
    }

    fn drops(&self) -> &DropCounters {
        &self.drops
    }

    fn clients(&self) -> Vec<ClientInfo> {
        Vec::new()
    }
}
