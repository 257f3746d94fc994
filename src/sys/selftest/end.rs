//! An engine with a socket and a host of its own, all in one place: what [`event_loop`](crate::sys::event_loop)
//! is to a process, for tests and measurements that have several of them in one.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use crate::buf::{PacketBuf, PacketMut};
use crate::engine::{
    Command, Endpoint, Engine, ExitReason, HookOutcome, Reply, TunnelSettings, Verdict,
};
use crate::limits::{HEADROOM, TAILROOM};
use crate::offload::coalesce::Part;
use crate::offload::outbox::{DATAGRAMS, Outbox};
use crate::selftest::host::Host;
use crate::sys::udp::UdpSocket;
use crate::sys::udp::batch::Inbox;
use crate::time::{Instant, Now};

/// Longest time without a look at the clock.
const NAP: Duration = Duration::from_millis(50);
/// Room for one sealed packet on its way out.
const ROOM: usize = HEADROOM + 2048 + TAILROOM;

/// An engine with its socket and its host.
pub struct End {
    engine: Box<dyn Engine>,
    udp: UdpSocket,
    /// What a client finds when it looks its server up.
    server: SocketAddr,
    /// What a client was told to configure.
    pub settings: TunnelSettings,
    /// There is one once the tunnel is up.
    pub host: Option<Host>,
    inbox: Option<Inbox>,
    /// Sealed packets that wait for `flush`, one in each `ROOM` of the memory.
    memory: Vec<u8>,
    outbox: Outbox,
    control: Option<PacketBuf>,
    /// The engine has ended.
    pub failure: Option<String>,
}

impl End {
    /// A client looks its server up and finds `server`; a server gets its host from the caller.
    pub fn new(engine: Box<dyn Engine>, udp: UdpSocket, server: SocketAddr) -> Self {
        let settings = TunnelSettings::default();
        let memory = vec![0; DATAGRAMS * ROOM];
        let (outbox, control, failure) = (Outbox::new(), Some(PacketBuf::new()), None);
        let (host, inbox) = (None, Some(Inbox::new()));
        Self { engine, udp, server, settings, host, inbox, memory, outbox, control, failure }
    }

    /// The descriptor to wait for.
    pub fn as_raw_fd(&self) -> RawFd {
        self.udp.as_raw_fd()
    }

    /// Where it can be reached.
    pub fn local(&self) -> SocketAddr {
        self.udp.local()
    }

    /// A host with these addresses.
    pub fn host_of(&self, settings: &TunnelSettings) -> Host {
        Host::new(settings.v4, settings.v6, settings.mtu, self.udp.local().port().into())
    }

    /// How long there is nothing to do.
    pub fn patience(&mut self, now: Now) -> Duration {
        let engine = self.engine.poll_timeout().map(|at| at.since(now.mono));
        let host = self.host.as_mut().and_then(|host| host.patience(micros(now.mono)));
        let host = host.map(Duration::from_micros);
        [engine, host].into_iter().flatten().min().unwrap_or(NAP).min(NAP)
    }

    /// Does all there is to do; whether there was any traffic.
    pub fn turn(&mut self, now: Now) -> bool {
        let mut busy = self.receive(now);
        if self.engine.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.engine.handle_timeout(now);
        }
        self.settle(now);
        if let Some(host) = &mut self.host {
            host.poll(micros(now.mono));
        }
        while let Some(packet) = self.host.as_mut().and_then(Host::take) {
            busy = true;
            self.send_ip(now, &packet);
        }
        self.flush();
        busy
    }

    fn receive(&mut self, now: Now) -> bool {
        let Some(mut inbox) = self.inbox.take() else { return false };
        // An error belongs to an earlier datagram, and reading it clears it.
        let _ = self.udp.receive_batch(&mut inbox);
        let any = !inbox.is_empty();
        for at in 0..inbox.len() {
            let Some((message, start)) = inbox.message(at) else { continue };
            let segment = message.segment.max(1);
            for offset in (0..message.len).step_by(segment) {
                let (first, end) = (start + offset, start + message.len.min(offset + segment));
                let Some(datagram) = inbox.memory().get_mut(first..end) else { continue };
                let len = datagram.len();
                let Some(mut packet) = PacketMut::new(datagram, 0, len) else { continue };
                let verdict = self.engine.handle_udp(now, message.from, &mut packet);
                match (verdict, &mut self.host) {
                    (Verdict::ToTun, Some(host)) => host.give(packet.as_slice()),
                    (
                        Verdict::ToTun
                        | Verdict::Consumed
                        | Verdict::Drop(_)
                        | Verdict::ToUdp(_)
                        | Verdict::Broadcast { .. },
                        _,
                    ) => {}
                }
            }
        }
        self.inbox = Some(inbox);
        any
    }

    /// A packet of the host on its way into the tunnel.
    pub fn send_ip(&mut self, now: Now, ip: &[u8]) {
        if self.outbox.is_full() {
            self.flush();
        }
        let start = self.outbox.waiting().len() * ROOM;
        let memory = self.memory.get_mut(start..start + ROOM).unwrap_or_default();
        let Some(mut packet) = PacketMut::new(memory, HEADROOM, HEADROOM) else { return };
        if packet.extend(ip).is_err() {
            return;
        }
        if let Verdict::ToUdp(to) = self.engine.handle_tun(now, &mut packet) {
            let part = Part { start: start + packet.start(), len: packet.len() };
            self.outbox.push(to, part);
        }
    }

    /// Sends what is sealed; what the socket does not take is lost, as it may be on any way.
    pub fn flush(&mut self) {
        if !self.outbox.is_empty() {
            self.udp.send_batch(&self.memory, &mut self.outbox);
            self.outbox.sent(self.outbox.waiting().len());
        }
    }

    /// Sends control packets and carries commands out, as the contract of [`Engine`] has it.
    fn settle(&mut self, now: Now) {
        loop {
            let Some(mut memory) = self.control.take() else { return };
            loop {
                let mut packet = memory.packet();
                let Some(to): Option<Endpoint> = self.engine.poll_transmit(now, &mut packet) else {
                    break;
                };
                // It is sent again if it is lost.
                let _ = self.udp.send(to, packet.as_slice());
            }
            self.control = Some(memory);
            let Some(command) = self.engine.poll_command() else { return };
            if let Some(reply) = self.carry_out(command) {
                self.engine.handle_reply(now, reply);
            }
        }
    }

    fn carry_out(&mut self, command: Command) -> Option<Reply> {
        match command {
            Command::Admit(request) => {
                Some(Reply::Admit { ticket: request.ticket, verdict: Ok(Box::default()) })
            }
            Command::Resolve { .. } => Some(Reply::Resolved(vec![self.server])),
            Command::Configure(settings) => {
                self.host = Some(self.host_of(&settings));
                self.settings = *settings;
                Some(Reply::Configured(Ok(())))
            }
            Command::RunHook(request) => {
                let outcome = HookOutcome::Success { settings: String::new() };
                request.ticket.map(|ticket| Reply::HookDone { ticket, outcome })
            }
            Command::AskManagement(request) => {
                let outcome = HookOutcome::Success { settings: String::new() };
                Some(Reply::HookDone { ticket: request.ticket, outcome })
            }
            Command::Deconfigure => {
                self.host = None;
                None
            }
            Command::Exit(reason) => {
                self.failure = Some(match reason {
                    ExitReason::Fatal(text) => text,
                    ExitReason::Requested => "an end ended by itself".to_owned(),
                });
                None
            }
            Command::ClientUp(_)
            | Command::ClientDown(_)
            | Command::ChallengeAnswer(..)
            | Command::NeverMind(_)
            | Command::SavePool(_)
            | Command::KeepReachable(_)
            | Command::AskLogin(_)
            | Command::NewPort
            | Command::LoginRefused(_)
            | Command::SaveDelegations(_)
            | Command::Introduce(_)
            | Command::Route { .. }
            | Command::Neighbour { .. } => None,
        }
    }
}

fn micros(now: Instant) -> u64 {
    now.as_millis().saturating_mul(1000)
}
