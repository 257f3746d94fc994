//! One connection attempt of the client, from the first packet to the last: handshake, pull, tunnel,
//! goodbye [7.2, 10.2].
//!
//! The protocol is `session`'s; what a push means is in `pull`, the packets are in `traffic`; which
//! server comes next is decided by the engine in `mod.rs` from the [`Outcome`].

use core::time::Duration;
use std::collections::VecDeque;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use log::{debug, info};
use zeroize::Zeroizing;

use super::judge::{self, Judge};
use super::offer;
use super::pushed::Collector;
use super::traffic::{ICMP_RATE, Idle};
use crate::buf::PacketMut;
use crate::config::option::TunnelOption;
use crate::config::{ClientRole, Config, Mssfix, Remote};
use crate::engine::{
    Command, Environment, ExitReason, HookInput, HookKind, HookRequest, TunnelSettings,
};
use crate::limits::HEADROOM;
use crate::random::Random;
use crate::rate::RateLimit;
use crate::session::{
    Authentication, PeerIdentity, Session, SessionConfig, SessionEvent, SessionFailure,
};
use crate::session::{CertificateInfo, data, describe};
use crate::time::{Instant, Now};
use crate::wire::control::SessionId;
use crate::wire::message::{AuthFailure, Message};
use crate::wire::mss::MssLimits;

/// First PUSH_REQUEST after the control channel is up; servers since 2.5 push without being asked.
const FIRST_REQUEST: Duration = Duration::from_millis(500);
/// Further ones.
const NEXT_REQUEST: Duration = Duration::from_secs(5);
/// Silence in a handshake that has begun, after which it begins anew: what we have sent is not even
/// acknowledged, as by a server that was just stopped.
pub(super) const STALL: Duration = Duration::from_secs(15);
/// Pause after a push that cannot be used: it will not be another one soon.
const BAD_PUSH: Duration = Duration::from_secs(5);
/// Time for goodbyes without acknowledgement to be handed to the socket.
const PARTING: Duration = Duration::from_millis(10);
/// How long a goodbye may take to be delivered.
const GOODBYE: Duration = Duration::from_secs(2);

/// Servers before 2.6 end a handshake that fails without a word to the client.
const FELL_SILENT: &str = "the server fell silent in the TLS handshake; its log says why. It may offer TLS 1.1 \
    at most (raise its tls-version-max to 1.2, or update it to OpenVPN 2.4 or newer), or not accept our \
    certificate";

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
    /// The server does not let us in.
    Refused(AuthFailure),
    /// Over for good.
    End(ExitReason),
}

/// Where a connection stands.
pub(super) enum Phase {
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
    pub(super) server: SocketAddr,
    pub(super) session: Session,
    pub(super) phase: Phase,
    pub(super) collector: Collector,
    identity: Option<PeerIdentity>,
    /// What scripts are told about the server.
    pub(super) about: Environment,
    /// Its certificates are being judged.
    pub(super) judge: Judge,
    pub(super) server_options: String,
    /// Tunnel options the server has pushed, for updates to work on.
    pub(super) pushed: Vec<TunnelOption>,
    /// What they have come to, together with the file's.
    pub(super) tunnel: Option<TunnelSettings>,
    pub(super) mssfix: Option<Mssfix>,
    pub(super) mss: Option<MssLimits>,
    /// `block-ipv6`: who answers.
    pub(super) block_ipv6: Option<Ipv6Addr>,
    pub(super) icmp: RateLimit,
    pub(super) idle: Option<Idle>,
    /// `session-timeout` ends.
    pub(super) session_end: Option<Instant>,
    pub(super) persist_tun: bool,
    /// `ping-exit` rather than `ping-restart`.
    pub(super) exits_on_silence: bool,
    /// A token and the name it goes with, not yet taken by the engine.
    pub(super) token: Option<(Option<String>, Zeroizing<String>)>,
    pub(super) cc_exit: bool,
    pub(super) exit_notify: u8,
    exit_packets: u8,
    /// The server must have answered by then: the first packet at all (`connect-timeout`), or what was
    /// sent since.
    pub(super) silent_until: Option<Instant>,
    /// Decided, not yet reported by `advance`.
    outcome: Option<Outcome>,
}

impl Connection {
    pub(super) fn new(
        now: Now,
        server: SocketAddr,
        remote: &Remote,
        patience: Option<Duration>,
        config: &Config,
        session: &Arc<SessionConfig>,
        rng: &mut dyn Random,
    ) -> Self {
        let wrapping = remote.wrap.as_ref().unwrap_or(&config.wrap);
        let (wrap, wkc) = offer::wrap(wrapping, config.auth);
        Self {
            server,
            session: Session::client(now, Arc::clone(session), wrap, wkc, rng),
            phase: Phase::Handshake,
            collector: Collector::default(),
            identity: None,
            about: Environment::new(),
            judge: Judge::default(),
            server_options: String::new(),
            pushed: Vec::new(),
            tunnel: None,
            mssfix: remote.mssfix,
            mss: None,
            block_ipv6: None,
            icmp: RateLimit::new(ICMP_RATE, Duration::from_secs(1)),
            idle: None,
            session_end: None,
            persist_tun: false,
            exits_on_silence: config.timers.ping_exit.is_some(),
            token: None,
            cc_exit: false,
            exit_notify: remote.exit_notify,
            exit_packets: 0,
            silent_until: patience.map(|patience| now.mono + patience),
            outcome: None,
        }
    }

    pub(super) fn server(&self) -> SocketAddr {
        self.server
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up)
    }

    /// Whether the server's answer is what comes next.
    pub(super) fn waits(&self) -> bool {
        matches!(self.phase, Phase::Handshake | Phase::Pull(_))
    }

    /// Digests what the session has to tell; returns the outcome once there is one.
    pub(super) fn advance(
        &mut self,
        now: Now,
        config: &Config,
        role: &ClientRole,
        commands: &mut VecDeque<Command>,
    ) -> Option<Outcome> {
        while let Some(event) = self.session.poll_event() {
            match event {
                SessionEvent::Judge { key_id, chain } => self.examine(key_id, chain, commands),
                SessionEvent::Authenticate(auth) => self.authenticated(now, *auth, commands),
                SessionEvent::Message(message) => {
                    self.message(now, message, config, role, commands);
                }
                SessionEvent::KeysReady(key_id) => debug!("data keys {key_id} are ready"),
                SessionEvent::RenegotiationStarted(key_id) => debug!("renegotiating: key {key_id}"),
                SessionEvent::Failed(SessionFailure::PingTimeout) if self.exits_on_silence => {
                    let text = "nothing heard from the server (ping-exit)".to_owned();
                    self.outcome = Some(Outcome::End(ExitReason::Fatal(text)));
                }
                SessionEvent::Failed(SessionFailure::HandshakeTimeout) if self.judge.is_busy() => {
                    self.retry(judge::NO_ANSWER, false, Duration::ZERO);
                }
                SessionEvent::Failed(SessionFailure::HandshakeTimeout) if self.has_answered() => {
                    self.retry(FELL_SILENT, false, Duration::ZERO);
                }
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

    fn has_answered(&self) -> bool {
        self.session.remote_id() != SessionId([0; 8])
    }

    /// The server proved who it is; at a renegotiation it must be the same one [4.3].
    fn authenticated(&mut self, now: Now, auth: Authentication, commands: &mut VecDeque<Command>) {
        if !auth.renegotiation {
            self.introduce(&auth);
            commands.push_back(Command::Introduce(self.about.clone()));
            commands.push_back(Command::RunHook(Box::new(self.ip_change())));
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

    /// Collects what scripts are told about the server.
    fn introduce(&mut self, auth: &Authentication) {
        describe::address(&mut self.about, "untrusted", self.server);
        describe::address(&mut self.about, "trusted", self.server);
        self.about.set("common_name", &auth.identity.common_name);
        for (depth, der) in auth.chain.iter().enumerate() {
            if let Some(info) = CertificateInfo::from_der(der) {
                describe::certificate(&mut self.about, depth, &info);
            }
        }
    }

    fn ip_change(&self) -> HookRequest {
        // As stock clients write it.
        let family = if self.server.is_ipv6() { "[AF_INET6]" } else { "[AF_INET]" };
        HookRequest {
            ticket: None,
            kind: HookKind::IpChange,
            lane: HookKind::IpChange.directive().to_owned(),
            arguments: vec![
                format!("{family}{}", self.server.ip()),
                self.server.port().to_string(),
            ],
            environment: Environment::new(),
            input: HookInput::Nothing,
        }
    }

    fn message(
        &mut self,
        now: Now,
        message: Message,
        config: &Config,
        role: &ClientRole,
        commands: &mut VecDeque<Command>,
    ) {
        let has_tunnel = matches!(self.phase, Phase::Configuring | Phase::Up);
        match message {
            Message::PushReply(part) if matches!(self.phase, Phase::Pull(_)) => {
                if let Err(reason) = self.push_reply(now, part, config, role, commands) {
                    self.retry(&reason, false, BAD_PUSH);
                }
            }
            Message::PushReply(part) if has_tunnel => self.later_reply(part, role),
            Message::PushUpdate(part) if has_tunnel => {
                if let Err(reason) = self.push_update(now, part, config, role, commands) {
                    self.retry(&reason, false, Duration::ZERO);
                }
            }
            Message::AuthFailed(failure) => {
                let leaving = matches!(self.phase, Phase::Leaving(_));
                let end = Outcome::End(ExitReason::Requested);
                let outcome = if leaving { end } else { Outcome::Refused(failure) };
                self.outcome.get_or_insert(outcome);
            }
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
            | Message::Unknown(_) => debug!("ignored a control message that is not for clients"),
        }
    }

    /// The attempt is over; another may do better.
    pub(super) fn retry(&mut self, reason: &str, next_name: bool, pause: Duration) {
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
            // Without a word in the file one loss must not keep the server waiting.
            self.exit_packets = if self.exit_notify == 0 { 3 } else { self.exit_notify };
            self.phase = Phase::Leaving(now.mono + PARTING);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Now, rng: &mut dyn Random) {
        self.session.handle_timeout(now, rng);
        if self.silent_until.take_if(|until| *until <= now.mono).is_some() && self.waits() {
            // Who has acknowledged everything may take its time to decide.
            if self.session.is_quiet() {
                self.silent_until = Some(now.mono + STALL);
            } else {
                self.retry("no answer", false, Duration::ZERO);
            }
        }
        if let Some(why) = self.is_over(now.mono).filter(|_| self.is_up()) {
            info!("{why}: ending");
            self.leave(now);
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

    /// Whether a limit of the configuration has been reached, and which.
    fn is_over(&self, now: Instant) -> Option<&'static str> {
        if self.session_end.is_some_and(|end| end <= now) {
            Some("the session has lasted its time (session-timeout)")
        } else if self.idle.is_some_and(|idle| idle.due() <= now) {
            Some("the tunnel is not used (inactive)")
        } else {
            None
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
        let limits = self.session_end.into_iter().chain(self.idle.map(|idle| idle.due()));
        own.into_iter()
            .chain(limits.filter(|_| self.is_up()))
            .chain(self.silent_until)
            .chain(self.session.poll_timeout())
            .min()
    }
}
