//! The server engine: many peers, one tunnel device.
//!
//! ```text
//! handle_udp   inbound ─ data ─────> peers ─> session.open ─> source check ─> forward
//!              inbound ─ control ──> peers by address and session id, else admit (strangers)
//!                                    └> control: session events ─> auth ─> Command::Admit
//! handle_reply steps ─> login, arrival: negotiate, pool.lease, scripts, routes.insert, push ─> Connected
//!              line, renumber ─> PUSH_UPDATE or RESTART when the line's prefix changes
//! handle_tun   outbound ─ routes.lookup ─> session.seal
//! ```
//!
//! Memory is taken when a peer proves its address, never for a stranger and never for a data
//! packet. All side effects are [`Command`]s. Sessions do the cryptography and the timers; what a
//! packet means for *other* clients is decided here.

pub mod admit;
mod agenda;
mod arrival;
mod assign;
mod auth;
mod case;
mod control;
pub mod cookie;
mod delegations;
mod environment;
mod forward;
#[doc(hidden)]
pub mod fuzz;
mod hosts;
mod inbound;
mod leave;
pub mod lifetime;
mod line;
mod login;
pub mod negotiate;
mod outbound;
pub mod peer;
pub mod peers;
pub mod pool;
pub mod pool_file;
pub mod push;
mod reload;
mod renumber;
pub mod routes;
#[cfg(feature = "totp")]
mod second_factor;
mod steps;
pub mod token;
#[cfg(feature = "totp")]
pub mod totp;

use core::time::Duration;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::Ipv6Net;

use crate::buf::PacketMut;
use crate::config::{self, Config, ServerRole};
use crate::engine::{
    ClientInfo, Command, DropCounters, DropReason, Endpoint, Engine, PeerId, Reply, Verdict,
};
use crate::limits::{CONTROL_MTU, HEADROOM, MAX_HALF_OPEN, SEND_WINDOW};
use crate::random::Random;
use crate::rate::RateLimit;
use crate::server::admit::Gate;
use crate::server::agenda::Agenda;
use crate::server::delegations::Delegations;
use crate::server::hosts::Hosts;
use crate::server::line::Line;
use crate::server::outbound::Broadcast;
use crate::server::peer::Peer;
use crate::server::peers::Peers;
use crate::server::pool::Pools;
use crate::server::routes::Routes;
use crate::server::token::Tokens;
use crate::session::occ::options_string;
use crate::session::{Login, Role, SessionConfig, SharedUnixTime, TlsContext};
use crate::time::{Instant, Now};

/// Prefixes per client and family that the route table has room for: its address and what is
/// behind it.
const PREFIXES_PER_CLIENT: usize = 4;
/// And for clients with many networks behind them, as many as stock servers allow each
/// (`max-routes-per-client`).
const SPARE_PREFIXES: usize = 256;
/// Names of gone clients whose addresses are remembered, per client that may be connected.
const REMEMBERED_PER_CLIENT: usize = 4;
/// Holds our own addresses in the pools; no client has this name.
const OURSELVES: &str = "";
/// ICMP errors per second, over all clients.
const ICMP_RATE: u32 = 100;
/// Warnings per minute about peers that did not get in: strangers must not fill the log.
const COMPLAINTS: u32 = 30;
/// The same about strangers' first packets that our key does not open.
const MISMATCHES: u32 = 3;
/// Lines per minute about clients that moved, which each packet of one can bring about.
const MOVES: u32 = 30;

/// A VPN server.
pub struct Server {
    config: Arc<Config>,
    role: ServerRole,
    /// What clients are pushed unless their own file says otherwise.
    push: Vec<String>,
    session: Arc<SessionConfig>,
    gate: Gate,
    peers: Peers<Peer>,
    routes: Routes,
    pools: Pools,
    /// Prefixes of the line, if clients' addresses follow it.
    line: Option<Line>,
    /// Prefixes for networks behind clients.
    delegations: Option<Delegations>,
    /// Serial numbers that are refused.
    revoked: Vec<Vec<u8>>,
    rng: Box<dyn Random>,
    drops: DropCounters,
    commands: VecDeque<Command>,
    /// Peers that may have something to send; each at most once.
    ready: VecDeque<PeerId>,
    broadcast: Broadcast,
    /// When each peer wants attention, or earlier: packets only ever move it away.
    agenda: Agenda,
    /// Peers whose time has come and that are looked at right now.
    due: Vec<PeerId>,
    last_ticket: u64,
    /// Clients that a case was opened for so far.
    known: u64,
    /// How the review after a reload goes.
    tally: reload::Tally,
    /// Whether scripts or the management program are told of clients.
    scripts: bool,
    tokens: Option<Tokens>,
    /// One-time codes that have been used.
    #[cfg(feature = "totp")]
    codes: totp::Codes,
    icmp: RateLimit,
    complaints: RateLimit,
    mismatches: RateLimit,
    /// Moves of clients that are told at the usual verbosity.
    moves: RateLimit,
    /// `connect-freq`.
    newcomers: Option<RateLimit>,
    /// When changed leases are to be written.
    save_due: Option<Instant>,
    /// Goodbyes are under way; then we end.
    closing: Option<Instant>,
}

impl Server {
    /// A server for this configuration. The error names what to change in it.
    pub fn new(config: Arc<Config>, now: Now, mut rng: Box<dyn Random>) -> Result<Self, String> {
        let role = role(&config)?;
        let time = SharedUnixTime::default();
        time.set(now.unix);
        let tls = TlsContext::server(&config.tls, time)?;
        let session = Arc::new(SessionConfig {
            role: Role::Server,
            tls: Arc::new(tls),
            timers: config.timers,
            options: options_string(&config, Role::Server),
            peer_info: String::new(),
            credentials: Login::default(),
            judges_peer: false,
            control_mtu: CONTROL_MTU,
            send_window: SEND_WINDOW,
        });
        let clients = role.max_clients;
        let follows = role.v6.filter(|_| role.follow.is_some());
        let hosts = follows.map(|own| Hosts::new(&config, own));
        let pools = Pools::new(role.v4_pool, role.v6_pool, remembered(clients));
        let mut pools = pools.with_hosts(hosts);
        let own = [role.v4.map(|own| own.addr().into()), role.v6.map(|own| own.addr().into())];
        own.into_iter().flatten().for_each(|address: IpAddr| pools.reserve(address, OURSELVES));
        let tokens = role.login.token.as_ref().map(|policy| Tokens::new(policy, now, &mut *rng));
        Ok(Self {
            scripts: steps::any(&config.hooks) || role.login.by_management,
            tokens,
            #[cfg(feature = "totp")]
            codes: totp::Codes::default(),
            gate: Gate::new(&config, &role, &mut *rng),
            push: push::inherited(&config, &role),
            session,
            peers: Peers::with_capacity(clients.saturating_add(MAX_HALF_OPEN)),
            routes: Routes::with_capacity(prefixes(clients)),
            pools,
            line: follows.map(|own| Line::new(own, role.delegate.as_deref())),
            delegations: role.delegate.as_deref().map(Delegations::new),
            revoked: config.tls.revoked.clone(),
            rng,
            drops: DropCounters::default(),
            commands: VecDeque::new(),
            ready: VecDeque::new(),
            broadcast: Broadcast::default(),
            agenda: Agenda::with_capacity(clients.saturating_add(MAX_HALF_OPEN)),
            due: Vec::with_capacity(clients.saturating_add(MAX_HALF_OPEN)),
            last_ticket: 0,
            known: 0,
            tally: reload::Tally::default(),
            icmp: RateLimit::new(ICMP_RATE, Duration::from_secs(1)),
            complaints: RateLimit::new(COMPLAINTS, Duration::from_secs(60)),
            mismatches: RateLimit::new(MISMATCHES, Duration::from_secs(60)),
            moves: RateLimit::new(MOVES, Duration::from_secs(60)),
            newcomers: role.connect_rate.map(|(count, period)| RateLimit::new(count, period)),
            save_due: None,
            closing: None,
            role,
            config,
        })
    }

    /// Uses another certificate for handshakes from now on; on error everything stays.
    pub fn replace_identity(&mut self, tls: &config::Tls) -> Result<(), String> {
        self.session.tls.replace(tls)
    }

    /// Takes over the addresses in an `ifconfig-pool-persist` file before there are clients, and
    /// says by line what is wrong with it.
    pub fn restore_pool(&mut self, file: &[u8]) -> Vec<(usize, pool_file::Fault)> {
        let fixed = self.role.pool_persist.as_ref().is_some_and(|persist| persist.every.is_none());
        pool_file::import(&mut self.pools, file, fixed)
    }

    /// Takes over who had which prefix before there are clients, and says which lines were no use.
    pub fn restore_delegations(&mut self, file: &[u8]) -> Vec<usize> {
        self.delegations.as_mut().map(|all| all.import(file)).unwrap_or_default()
    }

    /// Has the leases written when that is due: often enough to lose little, seldom enough for
    /// flash memory.
    fn save_pool(&mut self, now: Now) {
        let Some(every) = self.pool_interval() else { return };
        if self.save_due.is_none() && self.pools.take_changed() {
            self.save_due = Some(now.mono + every);
        }
        if self.save_due.is_some_and(|due| due <= now.mono) {
            self.save_pool_now();
        }
    }

    /// Has the leases written if they have changed since the last time.
    fn save_pool_now(&mut self) {
        let changed = self.pools.take_changed() | self.save_due.take().is_some();
        if changed && self.pool_interval().is_some() {
            self.commands.push_back(Command::SavePool(pool_file::export(&self.pools)));
        }
    }

    fn pool_interval(&self) -> Option<Duration> {
        self.role.pool_persist.as_ref().and_then(|persist| persist.every)
    }

    /// Counts what came of a packet.
    fn counted(&mut self, outcome: Result<Verdict, DropReason>) -> Verdict {
        match outcome {
            Ok(verdict) => verdict,
            Err(reason) => {
                self.drops.count(reason);
                Verdict::Drop(reason)
            }
        }
    }

    /// Queues a peer for transmission; its deadline is taken note of when it has nothing left.
    fn touch(&mut self, id: PeerId) {
        if let Some(entry) = self.peers.get_mut(id).filter(|entry| !entry.peer.queued) {
            entry.peer.queued = true;
            self.ready.push_back(id);
        }
    }

    /// Takes note of a peer's deadline.
    fn watch(&mut self, id: PeerId) {
        self.agenda.set(id, self.peers.get(id).and_then(|entry| entry.peer.deadline()));
    }

    /// Whether a peer's deadline is not missed, or is taken note of before long.
    fn is_noted(&self, id: PeerId, peer: &Peer) -> bool {
        let noted = self.agenda.noted(id);
        peer.queued || peer.deadline().is_none_or(|due| noted.is_some_and(|noted| noted <= due))
    }

    /// A packet has passed. What a session does about that has to be done at once, or it puts
    /// deadlines off, and what is noted of them stands until it is due.
    fn passed(&mut self, now: Now, id: PeerId) {
        if self.peers.get(id).is_some_and(|entry| entry.peer.session.is_due(now.mono)) {
            self.watch(id);
        }
    }
}

/// What a server is configured to be.
fn role(config: &Config) -> Result<ServerRole, String> {
    let config::Role::Server(role) = config.role.clone() else {
        return Err("this is the configuration of a client".into());
    };
    if role.v4.is_none() && role.v6.is_none() {
        return Err("neither `server` nor `server-ipv6` is set: no address to give out".into());
    }
    Ok(role)
}

/// The size of the route table for so many clients, in prefixes of each family.
const fn prefixes(clients: usize) -> usize {
    clients.saturating_mul(PREFIXES_PER_CLIENT).saturating_add(SPARE_PREFIXES)
}

/// Names with an address of their own, for so many clients.
const fn remembered(clients: usize) -> usize {
    clients.saturating_mul(REMEMBERED_PER_CLIENT)
}

impl Engine for Server {
    fn handle_udp(&mut self, now: Now, from: Endpoint, packet: &mut PacketMut<'_>) -> Verdict {
        let outcome = self.inbound(now, from, packet);
        self.counted(outcome)
    }

    fn handle_tun(&mut self, now: Now, packet: &mut PacketMut<'_>) -> Verdict {
        let outcome = self.outbound(now, packet);
        self.counted(outcome)
    }

    fn handle_timeout(&mut self, now: Now) {
        self.session.tls.set_time(now.unix);
        // All of them are taken out first: one that is still due afterwards waits for the next time, as
        // the others want their turn.
        let mut due = core::mem::take(&mut self.due);
        due.extend(core::iter::from_fn(|| self.agenda.pop(now.mono)));
        for id in due.drain(..) {
            // One peer's timeout may have ended another.
            let theirs = self.peers.get(id).and_then(|entry| entry.peer.deadline());
            if theirs.is_some_and(|due| due <= now.mono) {
                self.peer_timeout(now, id);
            }
            // Those that may have something to send now are watched again when it is sent.
            if self.peers.get(id).is_some_and(|entry| !entry.peer.queued) {
                self.watch(id);
            }
        }
        self.due = due;
        self.line_expired(now);
        self.save_pool(now);
        if self.closing.is_some_and(|at| at <= now.mono) {
            self.end();
        }
    }

    fn handle_reply(&mut self, now: Now, reply: Reply) {
        self.session.tls.set_time(now.unix);
        match reply {
            Reply::Admit { ticket, verdict } => self.decided(now, ticket, verdict),
            Reply::Revoked(serials) => self.revoke(now, serials),
            Reply::Kick(name) => self.kick(now, &name),
            Reply::Dismiss { peer, halt } => self.send_away(now, peer, halt),
            Reply::Shutdown => self.shutdown(now),
            Reply::Restart => self.restart(now),
            Reply::Prefixes(prefixes) => self.prefixes_changed(now, prefixes),
            // Answers to commands that only a client gives.
            Reply::Resolved(_) | Reply::Login(_) | Reply::Configured(_) | Reply::NetworkChanged => {
            }
            Reply::HookDone { ticket, outcome } => self.hook_done(now, ticket, outcome),
            Reply::HookPending { ticket, timeout, method, message } => {
                self.hook_pending(now, ticket, (timeout, &method, message));
            }
        }
        self.save_pool(now);
    }

    fn poll_transmit(&mut self, now: Now, out: &mut PacketMut<'_>) -> Option<Endpoint> {
        out.reset(HEADROOM);
        if let Some(to) = self.gate.poll_answer(out) {
            return Some(to);
        }
        while let Some(id) = self.ready.front().copied() {
            if let Some(entry) = self.peers.get_mut(id) {
                out.reset(HEADROOM);
                if entry.peer.session.poll_transmit(now, out) {
                    return Some(entry.endpoint());
                }
                entry.peer.queued = false;
            }
            self.ready.pop_front();
            // A failed session reports its end only when its TLS alert is out.
            match self.events(now, id) {
                true => self.touch(id),
                false => self.watch(id),
            }
        }
        self.end_when_quiet();
        None
    }

    fn poll_broadcast(
        &mut self,
        now: Now,
        packet: &[u8],
        out: &mut PacketMut<'_>,
    ) -> Option<Endpoint> {
        self.next_copy(now, packet, out)
    }

    fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        debug_assert!(self.peers.iter().all(|(id, entry)| self.is_noted(id, &entry.peer)));
        let line = self.line.as_ref().and_then(Line::deadline);
        [self.agenda.next(), self.save_due, self.closing, line].into_iter().flatten().min()
    }

    fn forwards_between_peers(&self) -> bool {
        self.role.client_to_client
    }

    fn drops(&self) -> &DropCounters {
        &self.drops
    }

    fn clients(&self) -> Vec<ClientInfo> {
        let info = |(id, entry): (PeerId, &peers::Entry<Peer>)| {
            let heard = entry.peer.session.last_heard();
            Some(entry.peer.client()?.info(id, entry.endpoint(), heard, ""))
        };
        self.peers.iter().filter_map(info).collect()
    }

    fn prefixes(&self) -> Vec<Ipv6Net> {
        self.line.as_ref().map(|line| line.nets().collect()).unwrap_or_default()
    }
}
