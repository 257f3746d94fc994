//! A peer made of a bare session, which says what no client engine would.

use std::net::SocketAddr;
use std::sync::Arc;

use sixgate::buf::PacketBuf;
use sixgate::config::{CipherName, Config, Digest, Framing, Role as ConfigRole};
use sixgate::limits::{CONTROL_MTU, SEND_WINDOW};
use sixgate::session::data::Format;
use sixgate::session::keys::Derivation;
use sixgate::session::wrap::Wrap;
use sixgate::session::{
    DataParams, Login, Role, Session, SessionConfig, SessionEvent, SharedUnixTime, TlsContext,
};
use sixgate::wire::message::Message;
use sixgate::wire::opcode::Opcode;

use super::Seeded;
use super::net::Net;

/// DATA_V2 alone, and with REQUEST_PUSH.
pub const ASKS: u32 = 2;
pub const WAITS: u32 = 6;

/// The bare session.
pub struct Raw {
    /// Of a client.
    pub session: Session,
    pub config: Arc<SessionConfig>,
    pub addr: SocketAddr,
    pub rng: Seeded,
    /// Packets of the trace that it has looked at.
    seen: usize,
    /// Takes its number from the push, as it should; else it has keys at once, and number 0.
    pub patient: bool,
    /// How it frames its packets.
    pub framing: Framing,
    /// What the server has said.
    pub messages: Vec<Message>,
    /// The server's OCC string.
    pub options: String,
    /// What was in the server's data packets.
    pub payloads: Vec<Vec<u8>>,
}

impl Raw {
    /// With the wrapping and the login of `config`.
    pub fn new(net: &Net, config: &Config, proto: u32) -> Self {
        Self::saying(net, config, &format!("IV_PROTO={proto}\nIV_CIPHERS=AES-256-GCM\n"))
    }

    /// The same with any peer information.
    pub fn saying(net: &Net, config: &Config, peer_info: &str) -> Self {
        Self::with_options(net, config, peer_info, "")
    }

    /// And with any OCC string.
    pub fn with_options(net: &Net, config: &Config, peer_info: &str, options: &str) -> Self {
        let time = SharedUnixTime::default();
        time.set(net.now.unix);
        let (wrap, wkc) = wrap(config);
        let config = Arc::new(SessionConfig {
            role: Role::Client,
            tls: Arc::new(TlsContext::client(&config.tls, time).unwrap()),
            timers: config.timers,
            options: options.to_owned(),
            peer_info: peer_info.to_owned(),
            credentials: login(config),
            judges_peer: false,
            control_mtu: CONTROL_MTU,
            send_window: SEND_WINDOW,
        });
        let mut rng = Seeded(77);
        let session = Session::client(net.now, Arc::clone(&config), wrap, wkc, &mut rng);
        let addr = "198.51.100.50:5000".parse().unwrap();
        Self {
            session,
            config,
            addr,
            rng,
            seen: net.trace.len(),
            patient: false,
            framing: Framing::None,
            messages: Vec::new(),
            options: String::new(),
            payloads: Vec::new(),
        }
    }

    /// The same with another session id, as after a restart.
    pub fn restart(&mut self, net: &Net, seed: u64) {
        self.rng = Seeded(seed);
        let config = Arc::clone(&self.config);
        self.session = Session::client(net.now, config, Wrap::none(), None, &mut self.rng);
    }

    /// Its next datagram.
    pub fn next(&mut self, net: &Net) -> Option<Vec<u8>> {
        let mut memory = PacketBuf::new();
        let mut out = memory.packet();
        self.session.poll_transmit(net.now, &mut out).then(|| out.as_slice().to_vec())
    }

    /// Takes what has been sent to it.
    pub fn hear(&mut self, net: &Net) -> bool {
        let mut heard = false;
        while let Some(packet) = net.trace.get(self.seen) {
            self.seen += 1;
            if packet.to == self.addr {
                heard = true;
                let mut bytes = packet.bytes.clone();
                if Opcode::from_first_byte(bytes[0]).0.is_control() {
                    let _ = self.session.handle_control(net.now, &mut bytes, &mut self.rng);
                    continue;
                }
                let mut memory = PacketBuf::new();
                let mut window = memory.packet_from(&bytes).unwrap();
                if self.session.open(net.now, &mut window).is_ok() {
                    self.payloads.push(window.as_slice().to_vec());
                }
            }
        }
        while let Some(event) = self.session.poll_event() {
            self.heed(net, event);
        }
        heard
    }

    /// Lets both ends talk until neither has anything to say. No time passes.
    pub fn talk(&mut self, net: &mut Net) {
        loop {
            let mut quiet = true;
            while let Some(datagram) = self.next(net) {
                quiet = false;
                net.deliver(0, self.addr, &datagram);
            }
            if !self.hear(net) && quiet {
                return;
            }
        }
    }

    fn heed(&mut self, net: &Net, event: SessionEvent) {
        match event {
            SessionEvent::Message(message) => {
                if let (Message::PushReply(options), true) = (&message, self.patient) {
                    let id =
                        options.options.iter().find_map(|option| option.strip_prefix("peer-id "));
                    self.install(net, id.and_then(|id| id.parse().ok()).unwrap_or(0));
                }
                self.messages.push(message);
            }
            SessionEvent::Authenticate(proof) if proof.renegotiation => {
                self.session.approve_key(net.now, proof.key_id);
            }
            SessionEvent::Authenticate(proof) => {
                self.options = proof.options;
                if !self.patient {
                    self.install(net, 0);
                }
            }
            SessionEvent::KeysReady(_)
            | SessionEvent::RenegotiationStarted(_)
            | SessionEvent::Judge { .. }
            | SessionEvent::Failed(_) => {}
        }
    }

    fn install(&mut self, net: &Net, peer: u32) {
        let params = DataParams {
            cipher: CipherName::Aes256Gcm,
            digest: Digest::Sha1,
            framing: self.framing,
            derivation: Derivation::Prf,
            format: Format::Classic,
            peer: Some(peer),
            dynamic_tls_crypt: false,
        };
        // A repeated push finds them there.
        let _ = self.session.install_keys(net.now, params);
    }

    pub fn say(&mut self, net: &mut Net, message: &str) {
        self.session.send_message(message).unwrap();
        self.talk(net);
    }

    pub fn pushed(&self) -> usize {
        let push = |message: &&Message| matches!(message, Message::PushReply(_));
        self.messages.iter().filter(push).count()
    }

    pub fn denied(&self) -> bool {
        self.messages.iter().any(|message| matches!(message, Message::AuthFailed(_)))
    }

    /// An IP packet as it goes through the tunnel.
    pub fn sealed(&mut self, net: &Net, packet: &[u8]) -> Option<Vec<u8>> {
        let mut memory = PacketBuf::new();
        let mut packet = memory.packet_from(packet).unwrap();
        self.session.seal(net.now, &mut packet).ok()?;
        Some(packet.as_slice().to_vec())
    }

    /// Sends an IP packet through the tunnel.
    pub fn data(&mut self, net: &mut Net, packet: &[u8]) {
        let datagram = self.sealed(net, packet).expect("keys");
        net.deliver(0, self.addr, &datagram);
    }
}

/// The wrapping that a client's configuration names, and its wrapped key.
fn wrap(config: &Config) -> (Wrap, Option<Vec<u8>>) {
    let wrap = &config.wrap;
    match (&wrap.v2_client, &wrap.tls_crypt, &wrap.tls_auth) {
        (Some(v2), _, _) => (Wrap::tls_crypt(&v2.key, Role::Client), Some(v2.wrapped.clone())),
        (None, Some(key), _) => (Wrap::tls_crypt(key, Role::Client), None),
        (None, None, Some((key, way))) => (Wrap::tls_auth(key, *way, config.auth), None),
        (None, None, None) => (Wrap::none(), None),
    }
}

fn login(config: &Config) -> Login {
    match &config.role {
        ConfigRole::Client(role) => {
            Login::new(role.credentials.clone().map(|(name, text)| (name, text.into())))
        }
        ConfigRole::Server(_) => Login::default(),
    }
}
