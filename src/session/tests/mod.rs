//! Two sessions back to back over a simulated link: lossy, duplicating, reordering, with a virtual
//! clock and seeded dice. Only TLS draws real randomness.

mod handshake;
mod hostile;
mod refusals;
mod renegotiation;

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use zeroize::Zeroizing;

use super::data::Payload;
use super::*;
use crate::buf::PacketBuf;
use crate::config::{Timers as ConfigTimers, Tls};
use crate::limits::{CONTROL_MTU, SEND_WINDOW};
use crate::time::UnixTime;
use crate::wire::message::Message;

/// 2026-06-01 00:00:00 UTC.
const TODAY: u64 = 1_780_272_000;

/// xorshift32, so that a failure repeats from its seed.
pub(super) struct Dice(u32);

impl Dice {
    fn new(seed: u32) -> Self {
        Self(seed.wrapping_mul(2_654_435_761) | 1)
    }

    fn roll(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % bound
    }
}

impl Random for Dice {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill_with(|| self.roll(256) as u8);
    }
}

/// A certificate authority for tests.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key.
#[derive(Clone)]
pub(super) struct Holder {
    cert: String,
    key: String,
}

/// What a test wants to be different about a certificate.
pub(super) struct Wanted {
    pub(super) name: &'static str,
    pub(super) purpose: Option<ExtendedKeyUsagePurpose>,
    pub(super) usage: bool,
    pub(super) years: (i32, i32),
    pub(super) serial: u8,
    pub(super) key: KeyPair,
}

impl Wanted {
    pub(super) fn new(name: &'static str, role: Role) -> Self {
        let purpose = match role {
            Role::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Role::Server => ExtendedKeyUsagePurpose::ServerAuth,
        };
        let key = KeyPair::generate().unwrap();
        let purpose = Some(purpose);
        Self { name, purpose, usage: true, years: (2025, 2035), serial: 7, key }
    }
}

impl Authority {
    pub(super) fn new(name: &str, until: i32) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2025, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(super) fn issue(&self, wanted: Wanted) -> Holder {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Home");
        if !wanted.name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, wanted.name);
        }
        params.serial_number = Some(SerialNumber::from_slice(&[wanted.serial]));
        params.not_before = date_time_ymd(wanted.years.0, 1, 1);
        params.not_after = date_time_ymd(wanted.years.1, 1, 1);
        params.extended_key_usages.extend(wanted.purpose);
        if wanted.usage {
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        }
        let cert = params.signed_by(&wanted.key, &self.issuer).unwrap().pem();
        Holder { cert, key: wanted.key.serialize_pem() }
    }
}

/// The TLS part of a configuration.
pub(super) fn tls(ca: &Authority, holder: &Holder) -> Tls {
    Tls {
        ca: ca.pem.clone().into_bytes(),
        fingerprints: Vec::new(),
        cert: holder.cert.clone().into_bytes(),
        key: Zeroizing::new(holder.key.clone().into_bytes()),
        only_tls13: false,
        only_tls12: false,
        require_usage: true,
        verify_name: None,
        crl: None,
        revoked: Vec::new(),
        client_certificate: config::hooks::ClientCertificate::Require,
    }
}

pub(super) fn timers() -> ConfigTimers {
    let secs = Duration::from_secs;
    ConfigTimers {
        ping: Some(secs(10)),
        ping_restart: Some(secs(60)),
        push_keepalive: None,
        reneg: (Duration::ZERO, Duration::ZERO),
        handshake: secs(60),
        transition: secs(3600),
        retransmit: secs(2),
        ping_exit: None,
    }
}

pub(super) fn session_config(role: Role, tls: &Tls) -> SessionConfig {
    let time = SharedUnixTime::default();
    time.set(UnixTime(TODAY));
    let tls = match role {
        Role::Client => TlsContext::client(tls, time),
        Role::Server => TlsContext::server(tls, time),
    };
    SessionConfig {
        role,
        tls: Arc::new(tls.unwrap()),
        timers: timers(),
        options: "V4,dev-type tun".to_owned(),
        peer_info: "IV_VER=test\nIV_PROTO=990\n".to_owned(),
        credentials: Login::new(Some(("user".to_owned(), "secret".to_owned().into()))),
        judges_peer: false,
        control_mtu: CONTROL_MTU,
        send_window: SEND_WINDOW,
    }
}

pub(super) const PARAMS: DataParams = DataParams {
    cipher: CipherName::Aes256Gcm,
    digest: Digest::Sha1,
    framing: Framing::None,
    derivation: Derivation::Exporter,
    format: Format::Classic,
    peer: Some(5),
    dynamic_tls_crypt: true,
};

/// One end: a session and the least of an engine around it.
pub(super) struct End {
    pub(super) session: Session,
    pub(super) params: DataParams,
    pub(super) approve: bool,
    /// (Server) says this instead of letting the client in.
    pub(super) admit: Option<&'static str>,
    pub(super) authentications: Vec<Authentication>,
    pub(super) messages: Vec<Message>,
    pub(super) ready: Vec<KeyId>,
    pub(super) failure: Option<SessionFailure>,
    /// Payloads of the data packets that arrived.
    pub(super) data: Vec<u32>,
    pub(super) pings: usize,
    pub(super) opcodes: Vec<(Opcode, KeyId)>,
}

impl End {
    pub(super) fn new(session: Session, params: DataParams) -> Self {
        Self {
            session,
            params,
            approve: true,
            admit: None,
            authentications: Vec::new(),
            messages: Vec::new(),
            ready: Vec::new(),
            failure: None,
            data: Vec::new(),
            pings: 0,
            opcodes: Vec::new(),
        }
    }

    fn role(&self) -> Role {
        self.session.config.role
    }

    fn digest_events(&mut self, now: Now) {
        while let Some(event) = self.session.poll_event() {
            match event {
                SessionEvent::Authenticate(auth) => {
                    let key_id = auth.key_id;
                    let first = !auth.renegotiation;
                    self.authentications.push(*auth);
                    if !first && self.approve {
                        self.session.approve_key(now, key_id);
                    } else if !first {
                        self.session.reject(now);
                    } else if self.role() == Role::Client {
                        self.session.send_message("PUSH_REQUEST").unwrap();
                    } else if let Some(other) = self.admit {
                        self.session.send_message(other).unwrap();
                    } else {
                        self.session.install_keys(now, self.params).unwrap();
                        self.session.send_message("PUSH_REPLY,ping 10").unwrap();
                    }
                }
                SessionEvent::Message(message) => {
                    if matches!(message, Message::PushReply(_)) {
                        self.session.install_keys(now, self.params).unwrap();
                    }
                    self.messages.push(message);
                }
                SessionEvent::KeysReady(key_id) => self.ready.push(key_id),
                SessionEvent::RenegotiationStarted(_) | SessionEvent::Judge { .. } => {}
                SessionEvent::Failed(failure) => self.failure = Some(failure),
            }
        }
    }

    fn take_datagram(&mut self, now: Now, bytes: &[u8], dice: &mut Dice) {
        let mut memory = PacketBuf::new();
        let mut packet = memory.packet_from(bytes).unwrap();
        let (opcode, key_id) = Opcode::from_first_byte(bytes[0]);
        self.opcodes.push((opcode, key_id));
        if opcode.is_control() {
            let _dropped = self.session.handle_control(now, packet.as_mut_slice(), dice);
            return;
        }
        match self.session.open(now, &mut packet) {
            Ok(Payload::Ip) => {
                let number = packet.as_slice()[1..5].try_into().unwrap();
                self.data.push(u32::from_be_bytes(number));
            }
            Ok(Payload::Ping) => self.pings += 1,
            Ok(other) => panic!("unexpected payload {other:?}"),
            Err(_) => {}
        }
    }
}

/// How bad the link is, in percent.
#[derive(Clone, Copy, Default)]
pub(super) struct Weather {
    pub(super) loss: u32,
    pub(super) duplicate: u32,
    /// Latency is up to so many milliseconds, so packets overtake each other.
    pub(super) jitter: u32,
    /// Whether data packets suffer too.
    pub(super) data_too: bool,
}

/// The link and its two ends: 0 is the client.
pub(super) struct Net {
    pub(super) now: Now,
    pub(super) ends: [End; 2],
    pub(super) dice: Dice,
    pub(super) weather: Weather,
    /// Datagrams under way by arrival time.
    flying: BTreeMap<(u64, u64), (usize, Vec<u8>)>,
    count: u64,
    /// Cuts the link altogether.
    pub(super) cut: bool,
    /// Unix time at the start.
    pub(super) epoch: u64,
}

pub(super) fn start() -> Now {
    Now { mono: Instant::from_millis(1_000), unix: UnixTime(TODAY) }
}

impl Net {
    pub(super) fn new(client: End, server: End, seed: u32) -> Self {
        Self {
            now: start(),
            ends: [client, server],
            dice: Dice::new(seed),
            weather: Weather::default(),
            flying: BTreeMap::new(),
            count: 0,
            cut: false,
            epoch: TODAY,
        }
    }

    fn launch(&mut self, from: usize, bytes: &[u8]) {
        let control = Opcode::from_first_byte(bytes[0]).0.is_control();
        let weather =
            if control || self.weather.data_too { self.weather } else { Weather::default() };
        if self.cut || self.dice.roll(100) < weather.loss {
            return;
        }
        let copies = if self.dice.roll(100) < weather.duplicate { 2 } else { 1 };
        for _ in 0..copies {
            let delay = 5 + u64::from(self.dice.roll(weather.jitter + 1));
            self.count += 1;
            let at = (self.now.mono.as_millis() + delay, self.count);
            self.flying.insert(at, (1 - from, bytes.to_vec()));
        }
    }

    fn drain(&mut self) {
        let mut memory = PacketBuf::new();
        for side in 0..2 {
            loop {
                self.ends[side].digest_events(self.now);
                let mut out = memory.packet();
                if !self.ends[side].session.poll_transmit(self.now, &mut out) {
                    break;
                }
                assert!(out.len() + 48 <= CONTROL_MTU, "control packet of {} bytes", out.len());
                let bytes = out.as_slice().to_vec();
                self.launch(side, &bytes);
            }
            self.ends[side].digest_events(self.now);
        }
    }

    /// Runs for `millis` of virtual time.
    pub(super) fn run(&mut self, millis: u64) {
        let end = self.now.mono + Duration::from_millis(millis);
        self.drain();
        loop {
            let timers = self.ends.iter().filter_map(|end| end.session.poll_timeout());
            let arrival = self.flying.keys().next().map(|(at, _)| Instant::from_millis(*at));
            let next = timers.chain(arrival).min().unwrap_or(end);
            if next > end {
                break;
            }
            self.set_time(next.max(self.now.mono));
            while let Some(entry) = self.flying.first_entry() {
                if entry.key().0 > self.now.mono.as_millis() {
                    break;
                }
                let (to, bytes) = entry.remove();
                self.ends[to].take_datagram(self.now, &bytes, &mut self.dice);
            }
            for end in &mut self.ends {
                if end.session.poll_timeout().is_some_and(|at| at <= self.now.mono) {
                    end.session.handle_timeout(self.now, &mut self.dice);
                }
            }
            self.drain();
            if next == end {
                break;
            }
        }
        self.set_time(end);
    }

    fn set_time(&mut self, mono: Instant) {
        self.now.mono = mono;
        self.now.unix = UnixTime(self.epoch + mono.as_millis() / 1000);
    }

    /// Seals an IP-like packet with a number in it and sends it.
    pub(super) fn send_data(&mut self, from: usize, number: u32) -> bool {
        let mut memory = PacketBuf::new();
        let mut packet = memory.packet_from(&[0x60]).unwrap();
        packet.extend(&number.to_be_bytes()).unwrap();
        if self.ends[from].session.seal(self.now, &mut packet).is_err() {
            return false;
        }
        let bytes = packet.as_slice().to_vec();
        self.launch(from, &bytes);
        true
    }

    /// Both ends can send data to each other.
    pub(super) fn assert_tunnel(&mut self) {
        let before = [self.ends[0].data.len(), self.ends[1].data.len()];
        assert!(self.send_data(0, 1) && self.send_data(1, 2), "no keys");
        self.run(50);
        assert_eq!(self.ends[1].data.get(before[1]..), Some([1].as_slice()));
        assert_eq!(self.ends[0].data.get(before[0]..), Some([2].as_slice()));
    }
}

/// A pair of ordinary certificates under one CA.
pub(super) struct Pki {
    pub(super) ca: Authority,
    pub(super) client: Holder,
    pub(super) server: Holder,
}

impl Pki {
    pub(super) fn new() -> Self {
        let ca = Authority::new("Home CA", 2035);
        let client = ca.issue(Wanted::new("laptop", Role::Client));
        let server = ca.issue(Wanted::new("router", Role::Server));
        Self { ca, client, server }
    }

    pub(super) fn configs(&self) -> [SessionConfig; 2] {
        [
            session_config(Role::Client, &tls(&self.ca, &self.client)),
            session_config(Role::Server, &tls(&self.ca, &self.server)),
        ]
    }
}

/// A client and a stateful server without wrapping.
pub(super) fn plain(configs: [SessionConfig; 2], params: DataParams, seed: u32) -> Net {
    let wraps = [Wrap::none(), Wrap::none()];
    stateful(configs, wraps, None, params, seed)
}

/// A client and a server that is made for the client's reset.
pub(super) fn stateful(
    configs: [SessionConfig; 2],
    [client_wrap, server_wrap]: [Wrap; 2],
    wkc: Option<Vec<u8>>,
    params: DataParams,
    seed: u32,
) -> Net {
    let mut dice = Dice::new(seed ^ 0x5555);
    let [client, server] = configs.map(Arc::new);
    let mut client = Session::client(start(), client, client_wrap, wkc, &mut dice);
    let remote = client.local_id();
    let mut server = Session::server_stateful(start(), server, server_wrap, remote, &mut dice);
    let mut memory = PacketBuf::new();
    let mut reset = memory.packet();
    assert!(client.poll_transmit(start(), &mut reset));
    server.handle_control(start(), reset.as_mut_slice(), &mut dice).unwrap();
    Net::new(End::new(client, params), End::new(server, params), seed)
}
