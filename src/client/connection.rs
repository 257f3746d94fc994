//! One connection attempt of the client, from the first packet to the last: handshake, pull, tunnel,
//! goodbye [7.2, 10.2].
//!
//! The protocol is `session`'s; which server comes next is decided by the engine in `mod.rs` from
//! the [`Outcome`].

use core::time::Duration;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use log::{debug, info, warn};

use super::offer;
use super::pushed::{self, Collector, Pushed};
use crate::buf::PacketMut;
use crate::config::{self, CipherName, Config};
use crate::engine::{Command, DropReason, ExitReason, TunnelSettings, Verdict};
use crate::limits::HEADROOM;
use crate::random::Random;
use crate::session::data::{self, Format, Payload};
use crate::session::keys::Derivation;
use crate::session::{
    Authentication, DataParams, PeerIdentity, Session, SessionConfig, SessionEvent,
};
use crate::time::{Instant, Now};
use crate::wire::control::Opcode;
use crate::wire::ip::{IpPacket, Version};
use crate::wire::key_method::occ_option;
use crate::wire::message::{Advance, AuthFailure, Message, Options};
use crate::wire::mss::{self, MssLimits};

/// First PUSH_REQUEST after the control channel is up; servers since 2.5 push without being asked.
const FIRST_REQUEST: Duration = Duration::from_millis(500);
/// Further ones.
const NEXT_REQUEST: Duration = Duration::from_secs(5);
/// How long a goodbye may take to be delivered.
const GOODBYE: Duration = Duration::from_secs(2);

/// What a connection came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The tunnel works.
    Up,
    /// Over; try again.
    Retry {
        /// For the log.
        reason: String,
        /// Leave the other addresses of this name alone.
        next_name: bool,
        /// At least so long from now.
        pause: Duration,
    },
    /// Over for good.
    End(ExitReason),
}

enum Phase {
    /// TLS and key exchange.
    Handshake,
    /// Waiting for the push; ask (again) at this time.
    Pull(Instant),
    /// The shell sets the device up.
    Configuring,
    /// Traffic flows.
    Up,
    /// Goodbye has been said; end at this time at the latest.
    Leaving(Instant),
}

/// The attempt.
pub(super) struct Connection {
    server: SocketAddr,
    session: Session,
    phase: Phase,
    collector: Collector,
    identity: Option<PeerIdentity>,
    server_options: String,
    mss: Option<MssLimits>,
    cc_exit: bool,
    exit_packets: u8,
    /// The first packet of the server must come by then (`connect-timeout`).
    silent_until: Option<Instant>,
    /// Decided, not yet reported by `advance`.
    outcome: Option<Outcome>,
}

impl Connection {
    pub(super) fn new(
        now: Now,
        server: SocketAddr,
        config: &Config,
        session: &Arc<SessionConfig>,
        rng: &mut dyn Random,
    ) -> Self {
        let (wrap, wkc) = offer::wrap(config);
        let timeout = match &config.role {
            config::Role::Client(role) => role.connect_timeout,
            config::Role::Server(_) => None,
        };
        Self {
            server,
            session: Session::client(now, Arc::clone(session), wrap, wkc, rng),
            phase: Phase::Handshake,
            collector: Collector::default(),
            identity: None,
            server_options: String::new(),
            mss: None,
            cc_exit: false,
            exit_packets: 0,
            silent_until: timeout.map(|timeout| now.mono + timeout),
            outcome: None,
        }
    }

    pub(super) fn server(&self) -> SocketAddr {
        self.server
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up)
    }

    pub(super) fn handle_udp(
        &mut self,
        now: Now,
        from: SocketAddr,
        packet: &mut PacketMut<'_>,
        rng: &mut dyn Random,
    ) -> Result<Verdict, DropReason> {
        let first = packet.as_slice().first().copied().ok_or(DropReason::Malformed)?;
        match Opcode::from_first_byte(first).0 {
            Opcode::DataV1 | Opcode::DataV2 => {
                let verdict = self.data(now, packet)?;
                // The packet was authentic: a server that floats is followed.
                self.server = from;
                Ok(verdict)
            }
            // A server's opcodes only [1.1].
            Opcode::HardResetClientV2 | Opcode::HardResetClientV3 | Opcode::WkcV1 => {
                Err(DropReason::BadOpcode)
            }
            Opcode::SoftResetV1
            | Opcode::ControlV1
            | Opcode::AckV1
            | Opcode::HardResetServerV2
            | Opcode::Unknown(_) => {
                if from != self.server {
                    return Err(DropReason::UnknownPeer);
                }
                self.session.handle_control(now, packet.as_mut_slice(), rng)?;
                self.silent_until = None;
                Ok(Verdict::Consumed)
            }
        }
    }

    fn data(&mut self, now: Now, packet: &mut PacketMut<'_>) -> Result<Verdict, DropReason> {
        match self.session.open(now, packet)? {
            Payload::Ping | Payload::Empty | Payload::OccOther => Ok(Verdict::Consumed),
            Payload::ExitNotify => {
                self.retry("the server says goodbye", false, Duration::ZERO);
                Ok(Verdict::Consumed)
            }
            Payload::Ip => {
                if !self.is_up() {
                    return Err(DropReason::NotReady);
                }
                IpPacket::parse(packet.as_slice()).map_err(|_| DropReason::NotIp)?;
                self.clamp(packet);
                Ok(Verdict::ToTun)
            }
            Payload::Compressed => Err(DropReason::Compressed),
            Payload::Unknown => Err(DropReason::NotIp),
        }
    }

    pub(super) fn handle_tun(
        &mut self,
        now: Now,
        packet: &mut PacketMut<'_>,
    ) -> Result<Verdict, DropReason> {
        if !self.is_up() {
            return Err(DropReason::NotReady);
        }
        let ip = IpPacket::parse(packet.as_slice()).map_err(|_| DropReason::NotIp)?;
        // The tunnel's own packets, sent into the tunnel by a route that covers the server [6.8].
        if ip.udp_destination() == Some(self.server) {
            return Err(DropReason::Recursive);
        }
        self.clamp(packet);
        self.session.seal(now, packet)?;
        Ok(Verdict::ToUdp(crate::engine::Endpoint::new(self.server)))
    }

    fn clamp(&self, packet: &mut PacketMut<'_>) {
        if let Some(limits) = self.mss {
            mss::clamp(packet.as_mut_slice(), limits);
        }
    }

    /// Digests what the session has to tell; returns the outcome once there is one.
    pub(super) fn advance(
        &mut self,
        now: Now,
        config: &Config,
        commands: &mut VecDeque<Command>,
    ) -> Option<Outcome> {
        while let Some(event) = self.session.poll_event() {
            match event {
                SessionEvent::Authenticate(auth) => self.authenticated(now, *auth),
                SessionEvent::Message(message) => self.message(now, message, config, commands),
                SessionEvent::KeysReady(key_id) => debug!("data keys {key_id:?} are ready"),
                SessionEvent::RenegotiationStarted(key_id) => debug!("renegotiating: {key_id:?}"),
                SessionEvent::Failed(failure) => {
                    self.retry(&failure.to_string(), false, Duration::ZERO);
                }
            }
        }
        if matches!(self.phase, Phase::Leaving(_))
            && self.exit_packets == 0
            && self.session.is_quiet()
        {
            self.outcome = Some(Outcome::End(ExitReason::Requested));
        }
        self.outcome.take()
    }

    /// The server proved who it is; at a renegotiation it must be the same one [4.3].
    fn authenticated(&mut self, now: Now, auth: Authentication) {
        if !auth.renegotiation {
            self.identity = Some(auth.identity);
            self.server_options = auth.options;
            self.phase = Phase::Pull(now.mono + FIRST_REQUEST);
        } else if self.identity.as_ref() == Some(&auth.identity) {
            self.session.approve_key(now, auth.key_id);
        } else {
            self.retry(
                "the server shows another certificate at a renegotiation",
                false,
                Duration::ZERO,
            );
        }
    }

    fn message(
        &mut self,
        now: Now,
        message: Message,
        config: &Config,
        commands: &mut VecDeque<Command>,
    ) {
        match message {
            Message::PushReply(part) if matches!(self.phase, Phase::Pull(_)) => {
                let result = self.push_reply(now, part, config, commands);
                if let Err(reason) = result {
                    self.retry(&reason, false, Duration::from_secs(5));
                }
            }
            Message::AuthFailed(failure) => self.refused(failure),
            Message::AuthPending { .. } => info!("the server has not decided yet"),
            Message::Restart(ending) => {
                self.retry("the server restarts", ending.next_server, Duration::ZERO);
            }
            Message::Halt(ending) => {
                let text = format!("the server ends the connection for good: {}", ending.text);
                self.outcome = Some(Outcome::End(ExitReason::Fatal(text)));
            }
            Message::Exit => self.retry("the server says goodbye", false, Duration::ZERO),
            Message::InfoPre(text) | Message::Info(text) => info!("the server says: {text}"),
            // A client's messages, and ones that change nothing here.
            Message::PushReply(_)
            | Message::PushUpdate(_)
            | Message::PushRequest
            | Message::CrResponse(_)
            | Message::Unknown(_) => debug!("ignored control message {message:?}"),
        }
    }

    /// One part of a push; with the last one the tunnel is set up.
    fn push_reply(
        &mut self,
        now: Now,
        part: Options,
        config: &Config,
        commands: &mut VecDeque<Command>,
    ) -> Result<(), String> {
        if !self.collector.add(part).map_err(|error| error.0)? {
            return Ok(());
        }
        let options = self.collector.take();
        let pushed = Pushed::parse(&options, config.device.mtu).map_err(|error| error.0)?;
        for option in &pushed.unused {
            warn!("pushed option without effect here: {}", option.escape_debug());
        }
        let cipher = self.choose_cipher(&pushed, config)?;
        let flags = pushed.flags;
        let framing = pushed.framing.unwrap_or(config.framing);
        let params = DataParams {
            cipher,
            digest: config.auth,
            framing,
            derivation: if flags.exporter { Derivation::Exporter } else { Derivation::Prf },
            format: if flags.epoch && cipher.is_aead() { Format::Epoch } else { Format::Classic },
            peer: pushed.peer,
            dynamic_tls_crypt: flags.dynamic_tls_crypt,
        };
        self.session.install_keys(now, params).map_err(|error| error.to_string())?;
        let ping = pushed.ping.or(config.timers.ping);
        let ping_restart = pushed.ping_restart.or(config.timers.ping_restart);
        self.session.set_keepalive(now, ping, ping_restart);
        self.cc_exit = flags.cc_exit;
        let outer = if self.server.is_ipv6() { Version::V6 } else { Version::V4 };
        self.mss = config.mssfix.map(|mssfix| MssLimits::new(mssfix, params.overhead(), outer));
        let settings = TunnelSettings { server: Some(self.server.ip()), ..pushed.tunnel };
        info!("connected to {}: {}", self.server, describe(&settings, cipher));
        commands.push_back(Command::Configure(Box::new(settings)));
        self.phase = Phase::Configuring;
        Ok(())
    }

    /// The pushed cipher, else the one in the server's options string, else, for a server that
    /// names none at all, the fallback [8.2].
    fn choose_cipher(&self, pushed: &Pushed, config: &Config) -> Result<CipherName, String> {
        let occ = occ_option(&self.server_options, "cipher");
        let fallback = || config.fallback_cipher.filter(|_| occ.is_none());
        let cipher = pushed.cipher.or_else(|| occ.and_then(CipherName::from_name));
        let cipher = cipher.or_else(fallback).ok_or_else(|| match occ {
            Some(name) => pushed::unsupported_cipher(name).0,
            None => {
                "the server names no data cipher: give the one it uses as data-ciphers-fallback, \
                     or set data-ciphers on the server to include AES-256-GCM"
                    .to_owned()
            }
        })?;
        if config.data_ciphers.contains(&cipher) || config.fallback_cipher == Some(cipher) {
            Ok(cipher)
        } else {
            Err(format!("the server wants {}, which data-ciphers does not allow", cipher.as_str()))
        }
    }

    /// AUTH_FAILED: final, unless the server calls it temporary [7.1].
    fn refused(&mut self, failure: AuthFailure) {
        let text = match failure {
            AuthFailure::Temporary { backoff, advance, text } => {
                let pause = Duration::from_secs(backoff.unwrap_or(1).into());
                let next_name = advance == Some(Advance::Remote);
                return self.retry(&format!("refused for now: {text}"), next_name, pause);
            }
            AuthFailure::Denied(text) if text.is_empty() => {
                "the server refused us and gave no reason: its log has it".to_owned()
            }
            AuthFailure::Denied(text) => format!("the server refused us: {text}"),
            AuthFailure::Session(text) => format!("the server ended this login: {text}"),
            AuthFailure::Challenge(_) => {
                "the server asks for a challenge response, which is not supported yet".to_owned()
            }
        };
        self.outcome = Some(Outcome::End(ExitReason::Fatal(text)));
    }

    fn retry(&mut self, reason: &str, next_name: bool, pause: Duration) {
        if matches!(self.phase, Phase::Leaving(_)) {
            self.outcome = Some(Outcome::End(ExitReason::Requested));
        } else if self.outcome.is_none() {
            self.outcome = Some(Outcome::Retry { reason: reason.to_owned(), next_name, pause });
        }
    }

    /// The shell has set the device up, or could not.
    pub(super) fn configured(&mut self, result: Result<(), String>) {
        match (result, &self.phase) {
            (Ok(()), Phase::Configuring) => {
                self.phase = Phase::Up;
                self.outcome = Some(Outcome::Up);
            }
            // Without a device there is no point in trying again [10.2].
            (Err(reason), _) => self.outcome = Some(Outcome::End(ExitReason::Fatal(reason))),
            (Ok(()), _) => {}
        }
    }

    /// Drops the connection and starts anew.
    pub(super) fn restart(&mut self) {
        self.retry("restart requested", false, Duration::ZERO);
    }

    /// Says goodbye: by a control message where the server understands it, else in the data channel,
    /// which has no acknowledgement and is therefore repeated [6.9].
    pub(super) fn leave(&mut self, now: Now) {
        if self.cc_exit && self.session.send_message(&Message::Exit.to_string()).is_ok() {
            self.phase = Phase::Leaving(now.mono + GOODBYE);
        } else {
            self.exit_packets = 3;
            self.phase = Phase::Leaving(now.mono);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Now, rng: &mut dyn Random) {
        self.session.handle_timeout(now, rng);
        if self.silent_until.is_some_and(|until| until <= now.mono) {
            self.retry("no answer (connect-timeout)", false, Duration::ZERO);
        }
        match &mut self.phase {
            Phase::Pull(next) if *next <= now.mono => {
                *next = now.mono + NEXT_REQUEST;
                // A full queue means that an earlier request is still on its way.
                let _ = self.session.send_message(&Message::PushRequest.to_string());
            }
            Phase::Leaving(until) if *until <= now.mono && self.exit_packets == 0 => {
                self.outcome = Some(Outcome::End(ExitReason::Requested));
            }
            Phase::Handshake
            | Phase::Pull(_)
            | Phase::Configuring
            | Phase::Up
            | Phase::Leaving(_) => {}
        }
    }

    pub(super) fn poll_transmit(&mut self, now: Now, out: &mut PacketMut<'_>) -> bool {
        if self.exit_packets > 0 {
            self.exit_packets -= 1;
            out.reset(HEADROOM.min(out.headroom()));
            if out.extend(&data::EXIT_NOTIFY).is_ok() && self.session.seal(now, out).is_ok() {
                return true;
            }
        }
        self.session.poll_transmit(now, out)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let own = match &self.phase {
            Phase::Pull(at) | Phase::Leaving(at) => Some(*at),
            Phase::Handshake | Phase::Configuring | Phase::Up => None,
        };
        own.into_iter().chain(self.silent_until).chain(self.session.poll_timeout()).min()
    }
}

fn describe(settings: &TunnelSettings, cipher: CipherName) -> String {
    let v4 = settings.v4.map(|net| IpAddr::V4(net.addr()));
    let v6 = settings.v6.map(|net| IpAddr::V6(net.addr()));
    let addresses: Vec<String> = v4.iter().chain(&v6).map(IpAddr::to_string).collect();
    format!(
        "{} with {}, {} routes",
        addresses.join(" and "),
        cipher.as_str(),
        settings.routes.len()
    )
}
