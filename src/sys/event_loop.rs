//! The loop that drives an engine: poll(2) over TUN, UDP, signals, control socket, look-ups and
//! scripts and changes of the host's network.
//!
//! Each turn reads the clock once and goes through the same steps in the same order, each bounded:
//!
//! 1. signals, control socket, look-ups, scripts: rare and cheap, and a busy tunnel must not delay the end;
//! 2. timers: retransmissions and pings are late already when they are due;
//! 3. the datagram that found the socket full last time: it is the oldest;
//! 4. datagrams: the network loses what it cannot hand over, so it is emptied first;
//! 5. packets from the TUN device: its queue pushes back on the host's own senders;
//! 6. what is left of the above in the engine's queues.
//!
//! Steps 3 to 5 are in `packets`, with all packet memory, which is taken before the first turn. What
//! commands mean beyond the loop (may this client in? is a certificate to be renewed?) is the
//! [`Upkeep`]'s business.

mod pace;
mod packets;
mod reload;

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use self::pace::{PAUSE, Pace};
use self::packets::{Inbound, Outgoing};
use super::client_routes::ClientRoutes;
use super::clock::{self, Clock};
use super::ctl_socket::{ControlSocket, MAX_CONNECTIONS};
use super::hooks::{Hooks, surroundings};
use super::line::Line;
use super::poll::PollSet;
use super::reports::Reports;
use super::resolve::Resolver;
use super::sandbox::Filter;
use super::signal::Signals;
use super::status::{self, ShellCounters};
#[cfg(feature = "client")]
use super::terminal::Prompt;
use super::tun::TunDevice;
use super::tunnel::TunnelConfig;
use super::udp::UdpSocket;
use super::watch::Watch;
use crate::buf::PacketBuf;
use crate::config::{ClientSettings, Config};
use crate::engine::{AdmitRequest, Command, Engine, ExitReason, Reply};
use crate::limits::MAX_HOOKS;
use crate::time::{Instant, Now, UnixTime};

/// Control packets sent in one go.
const TRANSMIT_BATCH: usize = 256;
/// How long the engine may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);
/// Shortest wait while a timer that was just served still claims to be due.
const BREATH: Duration = Duration::from_millis(1);
/// So often, while there are packets, their memory is given back but for what single ones need: it comes again
/// by itself, and pings that keep a quiet tunnel open need no more.
const REST: Duration = Duration::from_secs(15);
/// A change of routes seldom comes alone: what follows from it waits for the rest.
const SETTLING: Duration = Duration::from_millis(500);
/// UDP, TUN, signals, look-ups, management, the terminal, two of the watch, the control socket and its
/// connections, scripts.
const DESCRIPTORS: usize = 9 + MAX_CONNECTIONS + MAX_HOOKS;

/// What has to be decided or done beside the traffic, different for each role.
pub trait Upkeep<E> {
    /// May this client in, and what is different for it? `Err` is told to it. `engine` is there for what was found on the way.
    fn admit(
        &mut self,
        engine: &mut E,
        now: Now,
        request: &AdmitRequest,
    ) -> Result<Box<ClientSettings>, String>;
    /// Certificates with these serial numbers are void from now on.
    fn revoke(&mut self, serials: &[Vec<u8>]);
    /// The configuration in force, for a fresh start with it.
    fn config(&self) -> Option<&Config> {
        None
    }
    /// Does what is due, and says when to be called again.
    fn tend(&mut self, engine: &mut E, now: Now) -> Instant;
    /// When our certificates end: whose, and when.
    fn certificates(&self) -> Vec<(&'static str, UnixTime)> {
        Vec::new()
    }
    /// Reads the configuration again, and puts it in force as far as the engine is concerned.
    fn reload(&mut self, engine: &mut E, now: Now) -> Reload;
}

/// What a configuration that was read again means for the loop.
pub enum Reload {
    /// Nothing: the old one stays in force, or there is nothing but the engine to change.
    Kept,
    /// The engine has the new one.
    Changed {
        /// In force until now.
        old: Arc<Config>,
        /// In force from now on.
        new: Arc<Config>,
    },
    /// The loop is to end, and everything to be opened anew for this one.
    Restart(Box<Config>),
}

/// Everything open, ready to run.
pub struct EventLoop<E, U> {
    /// The server or client.
    pub engine: E,
    /// Its decisions and chores.
    pub upkeep: U,
    /// Towards the peers.
    pub udp: UdpSocket,
    /// Towards the host.
    pub tun: TunDevice,
    /// The interface's addresses and routes.
    pub tunnel: TunnelConfig,
    /// Pending signals.
    pub signals: Signals,
    /// Towards other `sixgate` commands.
    pub control: Option<ControlSocket>,
    /// Name look-ups.
    pub resolver: Resolver,
    /// Scripts.
    pub hooks: Hooks,
    /// Management interface and files for others to read.
    pub reports: Reports,
    /// (Client, or with `routes`) changes of the host's network.
    pub watch: Option<Watch>,
    /// (Server) what the line gives its clients.
    pub line: Option<Line>,
    /// The filter of system calls.
    pub filter: Filter,
    /// (Server) the kernel's routes to what clients have.
    pub routes: Option<ClientRoutes>,
}

impl<E: Engine, U: Upkeep<E>> EventLoop<E, U> {
    /// Runs until the engine ends, or until everything has to be opened anew for another
    /// configuration, which is returned then; an error is one line for the user.
    pub fn run(self) -> Result<Option<Box<Config>>, String> {
        let clock = Clock::new();
        let mut turns = Turns {
            begun: clock.now().mono,
            deviceless: false,
            clock,
            inbound: Some(Box::new(Inbound::new(&self.tun))),
            outgoing: Some(Box::default()),
            outbound: Some(PacketBuf::new()),
            counters: ShellCounters::default(),
            upkeep_due: Instant::ZERO,
            // What there is at the start is news, too.
            follow_at: self.line.is_some().then_some(Instant::ZERO),
            rest_at: None,
            leave_at: None,
            next: None,
            child_ended: false,
            unfinished: false,
            pace: Pace::default(),
            backlog: false,
            end: None,
            #[cfg(feature = "client")]
            prompt: None,
            shell: self,
        };
        let mut descriptors = PollSet::new();
        // Commands that the engine had from the start, such as the first look-up.
        turns.drain(turns.clock.now());
        loop {
            if let Some(end) = turns.end.take() {
                turns.last_reports(&end);
                let EventLoop { hooks, tunnel, .. } = &mut turns.shell;
                hooks.take_down(|| tunnel.revert());
                return end.map(|()| turns.next.take());
            }
            turns.wait(&mut descriptors);
            turns.turn(&descriptors);
        }
    }
}

/// The state of a running loop.
struct Turns<E, U> {
    shell: EventLoop<E, U>,
    clock: Clock,
    /// What came from the network; absent while it is handled.
    inbound: Option<Box<Inbound>>,
    /// What came from the host and is on its way to the network; absent while it is handled.
    outgoing: Option<Box<Outgoing>>,
    /// The control packet or copy being made; absent while it is.
    outbound: Option<PacketBuf>,
    counters: ShellCounters,
    upkeep_due: Instant,
    /// When to act on a change of the host's network.
    follow_at: Option<Instant>,
    /// When packet memory is to be given back.
    rest_at: Option<Instant>,
    /// When to end without the engine's consent.
    leave_at: Option<Instant>,
    /// What to start over with after the end.
    next: Option<Box<Config>>,
    /// The TUN device is gone: nothing is read from it any more.
    deviceless: bool,
    /// When the loop began.
    begun: Instant,
    /// A script may have ended.
    child_ended: bool,
    /// A bounded step stopped before its end: do not sleep.
    unfinished: bool,
    pace: Pace,
    /// More packets wait than this turn could take.
    backlog: bool,
    /// (Client) questions on the terminal.
    #[cfg(feature = "client")]
    prompt: Option<Prompt>,
    /// Set once the loop is to be left.
    end: Option<Result<(), String>>,
}

impl<E: Engine, U: Upkeep<E>> Turns<E, U> {
    fn wait(&mut self, descriptors: &mut PollSet<DESCRIPTORS>) {
        if self.pace.is_busy() && !self.backlog && !self.unfinished && self.end.is_none() {
            clock::pause(PAUSE);
        }
        let shell = &self.shell;
        descriptors.clear();
        let blocked = self.is_blocked();
        descriptors.add(shell.udp.as_raw_fd(), true, blocked);
        descriptors.add(shell.signals.as_raw_fd(), true, false);
        descriptors.add(shell.resolver.as_raw_fd(), true, false);
        // A full UDP socket makes the host's packets wait where the host can see it.
        if !blocked && !self.deviceless {
            descriptors.add(shell.tun.as_raw_fd(), true, false);
        }
        if let Some((fd, read, write)) = shell.reports.interest() {
            descriptors.add(fd, read, write);
        }
        for fd in shell.watch.iter().flat_map(Watch::descriptors) {
            descriptors.add(fd, true, false);
        }
        for (fd, write) in shell.control.iter().flat_map(ControlSocket::interests) {
            descriptors.add(fd, !write, write);
        }
        for fd in shell.hooks.outputs() {
            descriptors.add(fd, true, false);
        }
        #[cfg(feature = "client")]
        if let Some(prompt) = &self.prompt {
            descriptors.add(prompt.as_raw_fd(), true, false);
        }
        let now = self.clock.now().mono;
        let due = [
            shell.hooks.deadline(now),
            shell.engine.poll_timeout(),
            shell.control.as_ref().and_then(ControlSocket::deadline),
            shell.reports.deadline(),
            self.leave_at,
            self.follow_at,
            self.rest_at,
            Some(self.upkeep_due),
        ];
        let timeout = match due.into_iter().flatten().min() {
            _ if self.unfinished => Some(Duration::ZERO),
            // Timers were served less than a turn ago. Should one of them be due for good, this
            // keeps the mistake from taking the whole processor.
            Some(due) => Some(due.since(now).max(BREATH)),
            None => None,
        };
        self.unfinished = false;
        descriptors.wait(timeout);
    }

    fn turn(&mut self, ready: &PollSet<DESCRIPTORS>) {
        let now = self.clock.now();
        if ready.is_ready(self.shell.signals.as_raw_fd()) {
            self.handle_signals(now);
        }
        self.handle_control(now, ready);
        self.handle_reports(now);
        if ready.is_ready(self.shell.resolver.as_raw_fd())
            && let Some(addresses) = self.shell.resolver.poll()
        {
            if !addresses.is_empty() {
                self.shell.reports.resolved();
            }
            self.shell.engine.handle_reply(now, Reply::Resolved(addresses));
            self.drain(now);
        }
        self.handle_hooks(now, ready);
        #[cfg(feature = "client")]
        self.handle_prompt(now, ready);
        self.handle_watch(now, ready);
        self.handle_timers(now);
        self.send_blocked(now);
        let (udp, tun) = (self.shell.udp.as_raw_fd(), self.shell.tun.as_raw_fd());
        self.pace.turn(now.mono);
        self.backlog = self.is_blocked();
        let delivered = self.counters.traffic.tun_out;
        if ready.is_ready(udp) {
            self.handle_udp(now);
        }
        // The host answers what it is handed at once, and looking is cheaper than asking whether to.
        let answers = self.counters.traffic.tun_out != delivered;
        if !self.is_blocked() && (answers || ready.is_ready(tun)) {
            self.handle_tun(now);
        }
        if ready.is_ready(udp) || ready.is_ready(tun) {
            self.rest_at.get_or_insert(now.mono + REST);
        }
        if self.rest_at.take_if(|due| *due <= now.mono).is_some() {
            self.rest();
        }
        self.drain(now);
    }

    fn handle_watch(&mut self, now: Now, ready: &PollSet<DESCRIPTORS>) {
        let Some(watch) = &mut self.shell.watch else { return };
        if watch.descriptors().any(|fd| ready.is_ready(fd)) && watch.drain() {
            self.follow_at.get_or_insert(now.mono + SETTLING);
        }
        if self.follow_at.take_if(|due| *due <= now.mono).is_some() {
            let shell = &mut self.shell;
            let news = match &mut shell.routes {
                Some(routes) => {
                    shell.tunnel.restore();
                    routes.restore();
                    shell.line.as_mut().and_then(Line::prefixes).map(Reply::Prefixes)
                }
                None => {
                    shell.tunnel.follow();
                    Some(Reply::NetworkChanged)
                }
            };
            news.into_iter().for_each(|news| self.shell.engine.handle_reply(now, news));
            self.drain(now);
        }
    }

    fn handle_timers(&mut self, now: Now) {
        if self.upkeep_due <= now.mono {
            self.upkeep_due = self.shell.upkeep.tend(&mut self.shell.engine, now);
        }
        if self.shell.engine.poll_timeout().is_some_and(|due| due <= now.mono) {
            self.shell.engine.handle_timeout(now);
        }
        self.drain(now);
        if self.leave_at.is_some_and(|due| due <= now.mono) {
            self.end.get_or_insert(Ok(()));
        }
    }

    fn drain(&mut self, now: Now) {
        self.drain_transmit(now);
        while let Some(command) = self.shell.engine.poll_command() {
            self.execute(now, command);
            // The engine may have an answer to send before its next command makes sense.
            self.drain_transmit(now);
        }
    }

    fn drain_transmit(&mut self, now: Now) {
        let Some(mut memory) = self.outbound.take() else { return };
        // Assumed until the engine has nothing more to say.
        let mut unfinished = true;
        for _ in 0..TRANSMIT_BATCH {
            let mut packet = memory.packet();
            let Some(to) = self.shell.engine.poll_transmit(now, &mut packet) else {
                unfinished = false;
                break;
            };
            self.send(to, packet.as_slice());
        }
        self.outbound = Some(memory);
        self.unfinished |= unfinished;
    }

    fn execute(&mut self, now: Now, command: Command) {
        let shell = &mut self.shell;
        match command {
            Command::Admit(request) => {
                let verdict = shell.upkeep.admit(&mut shell.engine, now, &request);
                let ticket = request.ticket;
                shell.engine.handle_reply(now, Reply::Admit { ticket, verdict });
            }
            // The engine has logged both in its own words; hooks will want them.
            Command::ClientUp(client) => {
                log::debug!("client up: {}", status::describe(&client));
                // Counting takes long with many, and hardly anybody wants to know.
                if shell.reports.console().is_some() {
                    shell.reports.client_up(&client, shell.engine.clients().len());
                }
            }
            Command::ClientDown(client) => {
                log::debug!("client down: {}", status::describe(&client));
                shell.reports.client_down(&client);
            }
            Command::AskManagement(request) => {
                let count = shell.engine.clients().len();
                shell.reports.console().into_iter().for_each(|c| c.ask(&request, count));
            }
            Command::ChallengeAnswer(request, answer) => {
                let count = shell.engine.clients().len();
                let console = shell.reports.console();
                console.into_iter().for_each(|c| c.challenge_answered(&request, &answer, count));
            }
            Command::NeverMind(client) => {
                shell.reports.console().into_iter().for_each(|c| c.never_mind(client));
            }
            Command::SavePool(text) => shell.reports.save_leases(&text),
            Command::SaveDelegations(text) => shell.reports.save_delegations(&text),
            Command::Resolve { host, port, family } => {
                shell.reports.resolving(port);
                shell.resolver.start(host, port, family);
            }
            Command::Configure(settings) => {
                shell.reports.configured(&settings, false);
                let gateways = shell.tunnel.default_gateways();
                surroundings::of_host(shell.hooks.surroundings(), gateways);
                let result = shell.tunnel.apply(&settings);
                // With an `up` script, the answer comes when that has ended.
                if result.is_ok() {
                    shell.reports.configured(&settings, true);
                }
                if result.is_err() || !shell.hooks.request_up(&settings) {
                    shell.engine.handle_reply(now, Reply::Configured(result));
                }
                self.serve_hooks(now);
            }
            Command::Introduce(server) => shell.hooks.introduce(server),
            Command::Deconfigure => {
                shell.reports.deconfigured();
                shell.hooks.take_down(|| shell.tunnel.revert());
            }
            Command::RunHook(request) => {
                if let Some(reply) = shell.hooks.request(*request) {
                    shell.engine.handle_reply(now, reply);
                }
                self.serve_hooks(now);
            }
            Command::Route { net, up } => {
                if let Some(routes) = &mut shell.routes {
                    routes.set(net, up);
                }
            }
            Command::Neighbour { address, up } => {
                if let Some(line) = &mut shell.line {
                    line.show(address, up);
                }
            }
            #[cfg(feature = "client")]
            Command::AskLogin(question) => self.ask_login(now, *question),
            #[cfg(not(feature = "client"))]
            Command::AskLogin(_) => {}
            Command::NewPort => shell.udp.renew(),
            Command::LoginRefused(reason) => {
                shell.reports.console().into_iter().for_each(|c| c.login_refused(&reason));
            }
            Command::KeepReachable(server) => shell.tunnel.keep_reachable(server),
            Command::Exit(reason) => {
                self.end.get_or_insert(match reason {
                    ExitReason::Requested => Ok(()),
                    ExitReason::Fatal(text) => Err(text),
                });
            }
        }
    }
}

#[cfg(feature = "client")]
mod login;
mod requests;
mod scripts;
#[cfg(test)]
mod tests;
