//! The client engine: finds a server, opens one [`Session`](crate::session::Session) to it, takes what
//! it pushes, and keeps trying when the session ends \[10\].
//!
//! It leaves name lookups, addresses and routes to the shell (as [`Command`]s), the protocol of one
//! session to `session`, the choice of the next address to `remotes`, user name and password to `login`. One attempt is a `connection`:
//! `pull` makes tunnel settings of what was pushed (read by `pushed`, changed by `update`, settled by
//! `settings`), `traffic` carries packets, `judge` has a script look at the server's certificates.

mod connection;
#[doc(hidden)]
pub mod fuzz;
mod judge;
mod login;
mod offer;
mod pull;
mod pushed;
mod remotes;
mod settings;
mod traffic;
mod update;

use core::time::Duration;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use self::connection::{Connection, Outcome};
use self::judge::Judge;
use self::login::Account;
use self::remotes::{Next, Remotes};
use crate::buf::PacketMut;
use crate::config::{ClientRole, Config, Role};
use crate::engine::{
    ClientInfo, Command, DropCounters, DropReason, Endpoint, Engine, ExitReason, Reply, Verdict,
};
use crate::random::Random;
use crate::session::SessionConfig;
use crate::time::{Instant, Now};
use log::{info, warn};

/// The engine.
pub struct Client {
    config: Arc<Config>,
    session: Arc<SessionConfig>,
    remotes: Remotes,
    state: State,
    rng: Box<dyn Random>,
    commands: VecDeque<Command>,
    drops: DropCounters,
    /// The TUN device carries addresses and routes of this or an earlier connection.
    configured: bool,
    /// `persist-tun` of the latest connection: keep them while connecting again.
    persist_tun: bool,
    account: Account,
    /// `float` of the current remote: the server may change its address.
    float: bool,
    /// Connections begun so far.
    attempts: u32,
}

/// What the client is about.
enum State {
    /// Waiting to try again.
    Pause {
        /// Until then.
        until: Instant,
        /// Whatever happens: the server has said so, or would say the same again.
        firm: bool,
    },
    /// Somebody is being asked for a login.
    Asking,
    /// A name is being looked up.
    Resolving,
    /// A session, from its first packet to its last.
    Connected(Box<Connection>),
    /// Ended; nothing will happen any more.
    Ended,
}

impl Client {
    /// A client that starts to connect at once. The text of an error names what to change.
    pub fn new(config: Arc<Config>, now: Now, mut rng: Box<dyn Random>) -> Result<Self, String> {
        let role = role(&config).ok_or("this is a server's configuration")?;
        if role.remotes.is_empty() {
            return Err("no 'remote' names the server".into());
        }
        let account = Account::new(role);
        let session = offer::session_config(&config, role, account.own(), now)?;
        let mut remotes = Remotes::new(role);
        if role.remote_random {
            remotes.shuffle(rng.as_mut());
        }
        let mut client = Self {
            config,
            session: Arc::new(session),
            remotes,
            state: State::Pause { until: now.mono, firm: false },
            rng,
            commands: VecDeque::new(),
            drops: DropCounters::default(),
            configured: false,
            persist_tun: false,
            account,
            float: false,
            attempts: 0,
        };
        client.attempt(now);
        Ok(client)
    }

    /// Whether the tunnel carries traffic.
    pub fn is_up(&self) -> bool {
        matches!(&self.state, State::Connected(connection) if connection.is_up())
    }

    fn attempt(&mut self, now: Now) {
        if self.ask_first() {
            return;
        }
        match self.remotes.next() {
            Next::Connect(address) => self.connect(now, address),
            Next::Resolve => self.resolve(now),
        }
    }

    fn resolve(&mut self, now: Now) {
        let Some(remote) = self.remotes.current() else { return self.state = State::Ended };
        // A literal address needs no look-up.
        if let Ok(ip) = remote.host.parse::<IpAddr>() {
            let address = SocketAddr::new(ip, remote.port);
            return self.resolved(now, vec![address]);
        }
        let (mut host, port, family) = (remote.host.clone(), remote.port, remote.family);
        if role(&self.config).is_some_and(|role| role.random_hostname) {
            let mut label = [0; 6];
            self.rng.fill(&mut label);
            let label: String = label.iter().map(|byte| format!("{byte:02x}")).collect();
            host = format!("{label}.{host}");
        }
        self.commands.push_back(Command::Resolve { host, port, family });
        self.state = State::Resolving;
    }

    fn resolved(&mut self, now: Now, addresses: Vec<SocketAddr>) {
        if self.remotes.resolved(now.mono, addresses) {
            self.attempt(now);
        } else {
            warn!("the server's name has no address; trying again");
            self.pause(now, Duration::ZERO);
        }
    }

    fn connect(&mut self, now: Now, server: SocketAddr) {
        let Some(remote) = self.remotes.current() else { return self.state = State::Ended };
        info!("connecting to {server}");
        if self.configured {
            // What is left of the last tunnel must not swallow the way to this server.
            self.commands.push_back(Command::KeepReachable(server.ip()));
        }
        self.float = remote.float;
        let rng = self.rng.as_mut();
        let (config, session) = (&self.config, &self.session);
        let patience = self.remotes.patience();
        let mut connection = Connection::new(now, server, remote, patience, config, session, rng);
        self.attempts = self.attempts.wrapping_add(1);
        connection.judge = Judge::new(self.attempts);
        self.state = State::Connected(Box::new(connection));
    }

    /// Waits before the next attempt, at least so long, unless there have been enough.
    fn pause(&mut self, now: Now, least: Duration) {
        let wait = self.remotes.failed().max(least);
        if self.remotes.is_exhausted() {
            let text = "no server could be reached in as many rounds as connect-retry-max allows";
            return self.end(ExitReason::Fatal(text.to_owned()));
        }
        self.state = State::Pause { until: now.mono + wait, firm: !least.is_zero() };
    }

    /// Acts on what a connection came to.
    fn settle(&mut self, now: Now) {
        let (State::Connected(connection), Some(role)) = (&mut self.state, role(&self.config))
        else {
            return;
        };
        let outcome = connection.advance(now, &self.config, role, &mut self.commands);
        let server = connection.server();
        let persist_tun = connection.persist_tun;
        if let Some((name, token)) = connection.token.take() {
            self.take_token(name, token);
        }
        match outcome {
            None => {}
            Some(Outcome::Up) => {
                info!("the tunnel to {server} is up");
                self.persist_tun = persist_tun;
                self.configured = true;
                self.remotes.succeeded(server);
            }
            Some(Outcome::Retry { reason, next_name, pause }) => {
                warn!("connection to {server}: {reason}; trying again");
                if next_name {
                    self.remotes.skip_name();
                }
                self.retry(now, pause);
            }
            Some(Outcome::Refused(failure)) => self.refused(now, server, failure),
            Some(Outcome::End(reason)) => self.end(reason),
        }
    }

    /// Connects again after a pause; without `persist-tun` the system is as before meanwhile.
    fn retry(&mut self, now: Now, least: Duration) {
        if self.configured && !self.persist_tun {
            self.configured = false;
            self.commands.push_back(Command::Deconfigure);
        }
        self.login_over();
        // The server may know the old port for some seconds more, as that of a session that is gone.
        self.commands.push_back(Command::NewPort);
        self.pause(now, least);
    }

    fn end(&mut self, reason: ExitReason) {
        if core::mem::take(&mut self.configured) {
            self.commands.push_back(Command::Deconfigure);
        }
        self.commands.push_back(Command::Exit(reason));
        self.state = State::Ended;
    }

    fn drop(&mut self, reason: DropReason) -> Verdict {
        self.drops.count(reason);
        Verdict::Drop(reason)
    }
}

/// What the configuration says about a client.
fn role(config: &Config) -> Option<&ClientRole> {
    match &config.role {
        Role::Client(role) => Some(role),
        Role::Server(_) => None,
    }
}

impl Engine for Client {
    fn handle_udp(&mut self, now: Now, from: Endpoint, packet: &mut PacketMut<'_>) -> Verdict {
        self.session.tls.set_time(now.unix);
        let State::Connected(connection) = &mut self.state else {
            return self.drop(DropReason::NotReady);
        };
        if from.peer != connection.server() && !self.float {
            return self.drop(DropReason::UnknownPeer);
        }
        let result = connection.handle_udp(now, from.peer, packet, self.rng.as_mut());
        self.settle(now);
        match result {
            Ok(verdict) => verdict,
            Err(reason) => self.drop(reason),
        }
    }

    fn handle_tun(&mut self, now: Now, packet: &mut PacketMut<'_>) -> Verdict {
        let State::Connected(connection) = &mut self.state else {
            return self.drop(DropReason::NotReady);
        };
        match connection.handle_tun(now, packet) {
            Ok(verdict) => verdict,
            Err(reason) => self.drop(reason),
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        match &mut self.state {
            State::Pause { until, .. } if *until <= now.mono => self.attempt(now),
            State::Connected(connection) => connection.handle_timeout(now, self.rng.as_mut()),
            State::Pause { .. } | State::Asking | State::Resolving | State::Ended => {}
        }
        self.settle(now);
    }

    fn handle_reply(&mut self, now: Now, reply: Reply) {
        match (reply, &mut self.state) {
            (Reply::Resolved(addresses), State::Resolving) => self.resolved(now, addresses),
            (Reply::Login(answer), State::Asking) => self.login_given(now, answer),
            (Reply::Configured(result), State::Connected(connection)) => {
                connection.configured(result);
            }
            (Reply::HookDone { ticket, outcome }, State::Connected(connection)) => {
                let rng = self.rng.as_mut();
                connection.hook_done(now, ticket, &outcome, &mut self.commands, rng);
            }
            (Reply::Restart, State::Connected(connection)) => connection.restart(),
            // The server should hear from where we are now.
            (Reply::NetworkChanged, State::Connected(connection)) => connection.session.ping_now(),
            (Reply::Shutdown, State::Connected(connection)) if connection.is_up() => {
                connection.leave(now);
            }
            (Reply::Shutdown, _) => self.end(ExitReason::Requested),
            (Reply::Restart, State::Pause { until, .. })
            | (Reply::NetworkChanged, State::Pause { until, firm: false }) => *until = now.mono,
            // Answers to questions that are no longer asked, and a server's business.
            (
                Reply::Resolved(_)
                | Reply::Login(_)
                | Reply::Configured(_)
                | Reply::Restart
                | Reply::NetworkChanged
                | Reply::Prefixes(_)
                | Reply::Admit { .. }
                | Reply::HookDone { .. }
                | Reply::HookPending { .. }
                | Reply::Revoked(_)
                | Reply::Kick(_)
                | Reply::Dismiss { .. },
                _,
            ) => {}
        }
        self.settle(now);
    }

    fn poll_transmit(&mut self, now: Now, out: &mut PacketMut<'_>) -> Option<Endpoint> {
        let State::Connected(connection) = &mut self.state else { return None };
        connection.poll_transmit(now, out).then(|| Endpoint::new(connection.server()))
    }

    /// A client has one peer: nothing to spread.
    fn poll_broadcast(&mut self, _: Now, _: &[u8], _: &mut PacketMut<'_>) -> Option<Endpoint> {
        None
    }

    fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Pause { until, .. } => Some(*until),
            State::Connected(connection) => connection.poll_timeout(),
            State::Asking | State::Resolving | State::Ended => None,
        }
    }

    fn drops(&self) -> &DropCounters {
        &self.drops
    }

    fn clients(&self) -> Vec<ClientInfo> {
        Vec::new()
    }
}
