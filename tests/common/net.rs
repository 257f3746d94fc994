//! The simulated network: engines exchange datagrams over a link that loses, duplicates, delays and
//! reorders them, under a virtual clock that jumps from event to event.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;

use sixgate::buf::PacketBuf;
use sixgate::config::ClientSettings;
use sixgate::engine::{
    AdmitRequest, Command, Endpoint, Engine, ExitReason, HookOutcome, HookRequest, Reply,
    TunnelSettings, Verdict,
};
use sixgate::time::{Instant, Now, UnixTime};

use super::Seeded;
use super::host::Host;
use super::pcap::{self, Captured};

/// 2026-11-23: inside the validity of the test certificates.
pub const START: u64 = 1_795_392_000;

/// What the link does to datagrams; probabilities per mille.
#[derive(Clone, Copy)]
pub struct Link {
    /// One-way delay bounds in milliseconds: a spread reorders.
    pub latency: (u64, u64),
    pub loss: u32,
    pub duplicate: u32,
    /// Larger datagrams (UDP payload) vanish.
    pub mtu: usize,
}

impl Default for Link {
    fn default() -> Self {
        Self { latency: (10, 10), loss: 0, duplicate: 0, mtu: 1472 }
    }
}

/// One engine with the world around it.
pub struct Node {
    pub engine: Box<dyn Engine>,
    pub addr: SocketAddr,
    /// IP packets the engine handed to its TUN device while no `host` was there to take them.
    pub tun: VecDeque<Vec<u8>>,
    pub host: Option<Host>,
    /// The last `Configure`.
    pub settings: Option<TunnelSettings>,
    /// Everything else the engine asked for.
    pub commands: Vec<Command>,
    /// Decides on `Admit`.
    pub admit: fn(&AdmitRequest) -> Result<(), String>,
    /// What is different for clients, by name.
    pub client_files: HashMap<String, ClientSettings>,
    /// Whether `Admit` and `Configure` are answered at all.
    pub decides: bool,
    /// Answers `RunHook`; `None` is no answer yet.
    pub hook: fn(&HookRequest) -> Option<HookOutcome>,
    /// Answers `Resolve`.
    pub names: HashMap<String, Vec<SocketAddr>>,
    pub ended: Option<ExitReason>,
    /// A node that is switched off neither receives nor acts.
    pub off: bool,
}

/// The network and its clock.
pub struct Net {
    pub now: Now,
    /// By how many seconds somebody has set everybody's wall clock forwards, or back.
    pub wall: i64,
    pub nodes: Vec<Node>,
    pub link: Link,
    pub trace: Vec<Captured>,
    seed: u64,
    rng: Seeded,
    wire: BTreeMap<(u64, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sequence: u64,
}

impl Net {
    pub fn new(seed: u64) -> Self {
        super::log_to_output();
        let now = Now { mono: Instant::from_millis(1_000_000), unix: UnixTime(START) };
        Self {
            now,
            wall: 0,
            nodes: Vec::new(),
            link: Link::default(),
            trace: Vec::new(),
            seed,
            rng: Seeded(seed),
            wire: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// Adds an engine at `addr` and returns its index.
    pub fn add(&mut self, addr: &str, engine: Box<dyn Engine>) -> usize {
        self.nodes.push(Node {
            engine,
            addr: addr.parse().expect("socket address"),
            tun: VecDeque::new(),
            host: None,
            settings: None,
            commands: Vec::new(),
            admit: |_| Ok(()),
            client_files: HashMap::new(),
            decides: true,
            hook: |_| Some(HookOutcome::Success { settings: String::new() }),
            names: HashMap::new(),
            ended: None,
            off: false,
        });
        let index = self.nodes.len() - 1;
        self.settle(index);
        index
    }

    /// Puts a datagram on the wire, subject to the link's conditions.
    pub fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let lost = bytes.len() > self.link.mtu || self.rng.chance(self.link.loss);
        let at = self.millis();
        self.trace.push(Captured { at, from, to, bytes: bytes.to_vec(), lost });
        let copies = if lost { 0 } else { 1 + u32::from(self.rng.chance(self.link.duplicate)) };
        for _ in 0..copies {
            let due = at + self.rng.within(self.link.latency.0, self.link.latency.1);
            self.sequence += 1;
            self.wire.insert((due, self.sequence), (from, to, bytes.to_vec()));
        }
    }

    /// Hands an IP packet to a node's TUN side, as its kernel would.
    pub fn inject(&mut self, index: usize, ip: &[u8]) {
        let mut buf = PacketBuf::new();
        let mut packet = buf.packet_from(ip).expect("packet fits");
        let verdict = self.nodes[index].engine.handle_tun(self.now, &mut packet);
        let bytes = packet.as_slice().to_vec();
        self.carry_out(index, verdict, &bytes);
        self.settle(index);
    }

    /// Gives the node an answer from outside.
    pub fn reply(&mut self, index: usize, reply: Reply) {
        self.nodes[index].engine.handle_reply(self.now, reply);
        self.settle(index);
    }

    /// Runs until `done` or until `millis` have passed; says whether `done` was reached.
    pub fn run_until(&mut self, millis: u64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.millis() + millis;
        loop {
            if done(self) {
                return true;
            }
            let Some(next) = self.next_event().filter(|at| *at <= end) else {
                self.advance_to(end);
                return done(self);
            };
            self.advance_to(next);
            self.turn();
        }
    }

    /// Drops what is under way and what is known of the past.
    pub fn forget(&mut self) {
        self.wire = BTreeMap::new();
        self.trace = Vec::new();
    }

    /// Lets `millis` pass.
    pub fn run(&mut self, millis: u64) {
        self.run_until(millis, |_| false);
    }

    fn millis(&self) -> u64 {
        self.now.mono.as_millis()
    }

    fn advance_to(&mut self, millis: u64) {
        let millis = millis.max(self.millis());
        self.now.mono = Instant::from_millis(millis);
        let unix = START + (millis - 1_000_000) / 1000;
        self.now.unix = UnixTime(unix.saturating_add_signed(self.wall));
    }

    fn next_event(&mut self) -> Option<u64> {
        let now = self.millis();
        let mut next = self.wire.keys().next().map(|key| key.0);
        for node in self.nodes.iter_mut().filter(|node| !node.off) {
            let timer = node.engine.poll_timeout().map(Instant::as_millis);
            let host = node.host.as_mut().and_then(|host| host.poll_at(now));
            next = next.into_iter().chain(timer).chain(host).min();
        }
        next
    }

    /// Delivers what is due and lets everyone act.
    fn turn(&mut self) {
        let now = self.millis();
        while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= now) {
            let (from, to, bytes) = entry.remove();
            if let Some(index) = self.nodes.iter().position(|node| node.addr == to && !node.off) {
                self.deliver(index, from, &bytes);
            }
        }
        for index in 0..self.nodes.len() {
            if self.nodes[index].off {
                continue;
            }
            let due = self.nodes[index].engine.poll_timeout();
            if due.is_some_and(|at| at <= self.now.mono) {
                self.nodes[index].engine.handle_timeout(self.now);
                self.settle(index);
                let again = self.nodes[index].engine.poll_timeout();
                assert!(
                    again.is_none_or(|at| at > self.now.mono),
                    "node {index} asks for the same timeout again: {again:?}"
                );
            }
            self.poll_host(index);
        }
    }

    /// Feeds one datagram to a node.
    pub fn deliver(&mut self, index: usize, from: SocketAddr, bytes: &[u8]) {
        let mut buf = PacketBuf::new();
        let mut packet = buf.packet_from(bytes).expect("packet fits");
        let from = Endpoint { peer: from, local: Some(self.nodes[index].addr.ip()), interface: 1 };
        let verdict = self.nodes[index].engine.handle_udp(self.now, from, &mut packet);
        let bytes = packet.as_slice().to_vec();
        self.carry_out(index, verdict, &bytes);
        self.settle(index);
    }

    fn carry_out(&mut self, index: usize, verdict: Verdict, bytes: &[u8]) {
        match verdict {
            Verdict::Consumed | Verdict::Drop(_) => {}
            Verdict::ToTun => self.write_tun(index, bytes),
            Verdict::ToUdp(to) => self.send(self.nodes[index].addr, to.peer, bytes),
            Verdict::Broadcast { to_tun } => {
                let mut buf = PacketBuf::new();
                loop {
                    let mut out = buf.packet();
                    let engine = &mut self.nodes[index].engine;
                    let Some(to) = engine.poll_broadcast(self.now, bytes, &mut out) else { break };
                    let sealed = out.as_slice().to_vec();
                    self.send(self.nodes[index].addr, to.peer, &sealed);
                }
                if to_tun {
                    self.write_tun(index, bytes);
                }
            }
        }
    }

    fn write_tun(&mut self, index: usize, bytes: &[u8]) {
        let node = &mut self.nodes[index];
        match &mut node.host {
            Some(host) => host.link.inbound.push_back(bytes.to_vec()),
            None => node.tun.push_back(bytes.to_vec()),
        }
        self.poll_host(index);
    }

    fn poll_host(&mut self, index: usize) {
        let millis = self.millis();
        let Some(host) = &mut self.nodes[index].host else { return };
        host.poll(millis);
        while let Some(ip) =
            self.nodes[index].host.as_mut().and_then(|host| host.link.outbound.pop_front())
        {
            self.inject(index, &ip);
        }
    }

    /// Drains an engine after a `handle_*`, as the contract demands.
    pub fn settle(&mut self, index: usize) {
        let mut buf = PacketBuf::new();
        loop {
            let mut out = buf.packet();
            let Some(to) = self.nodes[index].engine.poll_transmit(self.now, &mut out) else {
                break;
            };
            let bytes = out.as_slice().to_vec();
            self.send(self.nodes[index].addr, to.peer, &bytes);
        }
        while let Some(command) = self.nodes[index].engine.poll_command() {
            let node = &mut self.nodes[index];
            let reply = match &command {
                Command::Admit(_) if !node.decides => None,
                Command::Admit(request) => {
                    let settings = node.client_files.get(&request.common_name).cloned();
                    let settings = Box::new(settings.unwrap_or_default());
                    let verdict = (node.admit)(request).map(|()| settings);
                    Some(Reply::Admit { ticket: request.ticket, verdict })
                }
                Command::Resolve { host, .. } => {
                    Some(Reply::Resolved(node.names.get(host).cloned().unwrap_or_default()))
                }
                Command::Configure(_) if !node.decides => None,
                Command::Configure(settings) => {
                    node.settings = Some((**settings).clone());
                    Some(Reply::Configured(Ok(())))
                }
                Command::Deconfigure => {
                    node.settings = None;
                    None
                }
                Command::Exit(reason) => {
                    node.ended = Some(reason.clone());
                    None
                }
                Command::RunHook(request) => request.ticket.and_then(|ticket| {
                    let outcome = (node.hook)(request)?;
                    Some(Reply::HookDone { ticket, outcome })
                }),
                Command::ClientUp(_)
                | Command::ClientDown(_)
                | Command::AskManagement(_)
                | Command::ChallengeAnswer(..)
                | Command::NeverMind(_)
                | Command::SavePool(_)
                | Command::SaveDelegations(_)
                | Command::Route { .. }
                | Command::Neighbour { .. }
                | Command::Introduce(_)
                | Command::AskLogin(_)
                | Command::NewPort
                | Command::LoginRefused(_)
                | Command::KeepReachable(_) => None,
            };
            node.commands.push(command);
            if let Some(reply) = reply {
                node.engine.handle_reply(self.now, reply);
                self.settle(index);
            }
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let name = std::thread::current().name().unwrap_or("test").replace("::", "-");
            // Cargo has such a folder for tests and benches only.
            let folder = option_env!("CARGO_TARGET_TMPDIR").unwrap_or("/tmp");
            let path = std::path::Path::new(folder).join(name + ".pcap");
            let written = pcap::write(&path, &self.trace);
            eprintln!("seed {:#x}; traffic in {} ({written:?})", self.seed, path.display());
        }
    }
}
