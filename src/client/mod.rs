//! The client engine: finds a server, opens one [`Session`](crate::session::Session) to it, takes what it pushes, and keeps
//! trying when the session ends \[10\].
//!
//! It leaves name lookups, addresses and routes to the shell (as [`Command`]s), the protocol of one
//! session to `session`, the choice of the next address to `remotes` and the reading of what was
//! pushed to `pushed`.

mod connection;
mod offer;
mod pushed;
mod remotes;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use log::{info, warn};

use self::connection::{Connection, Outcome};
use self::remotes::{Next, Remotes};
use crate::buf::PacketMut;
use crate::config::{Config, Role};
use crate::engine::{
    ClientInfo, Command, DropCounters, DropReason, Endpoint, Engine, ExitReason, Reply, Verdict,
};
use crate::random::Random;
use crate::session::SessionConfig;
use crate::time::{Instant, Now};

/// The engine.
pub struct Client {
    config: Arc<Config>,
    session: Arc<SessionConfig>,
    remotes: Remotes,
    state: State,
    rng: Box<dyn Random>,
    commands: VecDeque<Command>,
    drops: DropCounters,
    /// The TUN device carries addresses and routes of an earlier connection.
    configured: bool,
    /// `float`: the server may change its address.
    float: bool,
}

/// What the client is about.
enum State {
    /// Waiting to try again.
    Pause(Instant),
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
        let Role::Client(role) = &config.role else {
            return Err("this is a server's configuration".into());
        };
        if role.remotes.is_empty() {
            return Err("no 'remote' names the server".into());
        }
        let session = offer::session_config(&config, role, now)?;
        let mut remotes = Remotes::new(role.remotes.clone(), role.retry_pause);
        if role.remote_random {
            remotes.shuffle(rng.as_mut());
        }
        let float = role.float;
        let mut client = Self {
            config,
            session: Arc::new(session),
            remotes,
            state: State::Pause(now.mono),
            rng,
            commands: VecDeque::new(),
            drops: DropCounters::default(),
            configured: false,
            float,
        };
        client.attempt(now);
        Ok(client)
    }

    /// Whether the tunnel carries traffic.
    pub fn is_up(&self) -> bool {
        matches!(&self.state, State::Connected(connection) if connection.is_up())
    }

    fn attempt(&mut self, now: Now) {
        self.state = match self.remotes.next() {
            Some(Next::Resolve(remote)) => {
                // A literal address needs no look-up.
                if let Ok(ip) = remote.host.parse::<IpAddr>() {
                    self.remotes.resolved(vec![SocketAddr::new(ip, remote.port)]);
                    return self.attempt(now);
                }
                let (host, port, family) = (remote.host, remote.port, remote.family);
                self.commands.push_back(Command::Resolve { host, port, family });
                State::Resolving
            }
            Some(Next::Connect(address)) => self.connect(now, address),
            None => State::Ended,
        };
    }

    fn connect(&mut self, now: Now, server: SocketAddr) -> State {
        info!("connecting to {server}");
        let connection =
            Connection::new(now, server, &self.config, &self.session, self.rng.as_mut());
        State::Connected(Box::new(connection))
    }

    /// Acts on what a connection came to.
    fn settle(&mut self, now: Now) {
        let State::Connected(connection) = &mut self.state else { return };
        let outcome = connection.advance(now, &self.config, &mut self.commands);
        let server = connection.server();
        match outcome {
            None => {}
            Some(Outcome::Up) => {
                self.configured = true;
                self.remotes.succeeded(server);
            }
            Some(Outcome::Retry { reason, next_name, pause }) => {
                warn!("connection to {server}: {reason}; trying again");
                if next_name {
                    self.remotes.skip_name();
                }
                let wait = self.remotes.failed().max(pause);
                self.state = State::Pause(now.mono + wait);
            }
            Some(Outcome::End(reason)) => self.end(reason),
        }
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
            State::Pause(until) if *until <= now.mono => self.attempt(now),
            State::Connected(connection) => connection.handle_timeout(now, self.rng.as_mut()),
            State::Pause(_) | State::Resolving | State::Ended => {}
        }
        self.settle(now);
    }

    fn handle_reply(&mut self, now: Now, reply: Reply) {
        match (reply, &mut self.state) {
            (Reply::Resolved(addresses), State::Resolving) => {
                if addresses.is_empty() {
                    warn!("the server's name has no address; trying again");
                    self.remotes.resolved(addresses);
                    self.state = State::Pause(now.mono + self.remotes.failed());
                } else {
                    self.remotes.resolved(addresses);
                    self.attempt(now);
                }
            }
            (Reply::Configured(result), State::Connected(connection)) => {
                connection.configured(result);
            }
            (Reply::Restart, State::Connected(connection)) => connection.restart(),
            (Reply::Shutdown, State::Connected(connection)) if connection.is_up() => {
                connection.leave(now);
            }
            (Reply::Shutdown, _) => self.end(ExitReason::Requested),
            (Reply::Restart, State::Pause(until)) => *until = now.mono,
            // Answers to questions that are no longer asked, and a server's business.
            (
                Reply::Resolved(_)
                | Reply::Configured(_)
                | Reply::Restart
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
            State::Pause(until) => Some(*until),
            State::Connected(connection) => connection.poll_timeout(),
            State::Resolving | State::Ended => None,
        }
    }

    fn drops(&self) -> &DropCounters {
        &self.drops
    }

    fn clients(&self) -> Vec<ClientInfo> {
        Vec::new()
    }
}
