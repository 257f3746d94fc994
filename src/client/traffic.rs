//! The packets of a connection: tunnel packets in and out, and what watches them [6.4, 6.8].

use core::time::Duration;
use std::net::{IpAddr, SocketAddr};

use super::connection::{Connection, STALL};
use crate::buf::PacketMut;
use crate::engine::{DropReason, Endpoint, Verdict};
use crate::random::Random;
use crate::session::data::Payload;
use crate::time::{Instant, Now};
use crate::wire::control::Opcode;
use crate::wire::icmp::{self, Reason};
use crate::wire::ip::{IpPacket, Version};
use crate::wire::mss;

/// ICMPv6 answers per second; RFC 4443 2.4 (f) wants a limit.
pub(super) const ICMP_RATE: u32 = 50;

/// `inactive`: how much went through the tunnel, and since when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Idle {
    period: Duration,
    least: u64,
    since: Instant,
    bytes: u64,
}

impl Idle {
    pub(super) fn new(now: Instant, period: Duration, least: u64) -> Self {
        Self { period, least, since: now, bytes: 0 }
    }

    /// Enough bytes start the time anew.
    fn count(&mut self, now: Instant, len: usize) {
        self.bytes = self.bytes.saturating_add(len as u64);
        if self.bytes >= self.least {
            (self.since, self.bytes) = (now, 0);
        }
    }

    /// When the tunnel counts as unused.
    pub(super) fn due(&self) -> Instant {
        self.since + self.period
    }
}

impl Connection {
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
                self.silent_until = self.waits().then(|| now.mono + STALL);
                Ok(Verdict::Consumed)
            }
        }
    }

    fn data(&mut self, now: Now, packet: &mut PacketMut<'_>) -> Result<Verdict, DropReason> {
        match self.session.open(now, packet)? {
            Payload::Ping | Payload::Empty | Payload::OccOther | Payload::OccRequest(_) => {
                Ok(Verdict::Consumed)
            }
            Payload::ExitNotify => {
                self.retry("the server says goodbye", false, Duration::ZERO);
                Ok(Verdict::Consumed)
            }
            Payload::Ip => {
                if !self.is_up() {
                    return Err(DropReason::NotReady);
                }
                IpPacket::parse(packet.as_slice()).map_err(|_| DropReason::NotIp)?;
                self.watch(now, packet.len());
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
        let ip = IpPacket::parse(packet.as_slice()).map_err(|_| DropReason::NotIp)?;
        // The tunnel's own packets, sent into the tunnel by a route that covers the server [6.8].
        if ip.udp_destination() == Some(self.server) {
            return Err(DropReason::Recursive);
        }
        // Blocked while a connection is still being made, too: waiting is what it must not do.
        if let (Some(responder), Version::V6) = (self.block_ipv6, ip.version()) {
            if !self.icmp.allow(now.mono) {
                return Err(DropReason::NoRoute);
            }
            icmp::answer(packet, Reason::NoRoute, IpAddr::V6(responder))
                .map_err(|_| DropReason::NoRoute)?;
            return Ok(Verdict::ToTun);
        }
        if !self.is_up() {
            return Err(DropReason::NotReady);
        }
        self.watch(now, packet.len());
        self.clamp(packet);
        self.session.seal(now, packet)?;
        Ok(Verdict::ToUdp(Endpoint::new(self.server)))
    }

    fn watch(&mut self, now: Now, len: usize) {
        if let Some(idle) = &mut self.idle {
            idle.count(now.mono, len);
        }
    }

    fn clamp(&self, packet: &mut PacketMut<'_>) {
        if let Some(limits) = self.mss {
            mss::clamp(packet.as_mut_slice(), limits);
        }
    }
}
