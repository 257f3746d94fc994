//! The packets of a turn: datagrams to the TUN device, packets of the host to the network, each in
//! batches that the engine handles one by one and in place.

use std::time::Duration;

use super::{Turns, Upkeep};
use crate::buf::PacketMut;
use crate::engine::{Endpoint, Engine, Verdict};
use crate::limits::{HEADROOM, MAX_MTU, TAILROOM};
use crate::offload::coalesce::{Coalescer, Part};
use crate::offload::outbox::Outbox;
use crate::offload::split::{self, Splitter};
use crate::offload::vnet::VnetHeader;
use crate::sys::pages::Pages;
use crate::sys::reload;
use crate::sys::status::ShellCounters;
use crate::sys::tun::{TunDevice, TunFailure};
use crate::sys::udp::batch::Inbox;
use crate::time::Now;

/// Packets taken from one side before the other gets its turn, give or take one row of datagrams or
/// one piece of the TUN device.
const BATCH: usize = 64;
/// What the TUN device hands over in one piece.
const PIECE: usize = 65_536;
/// Room for the packets that a piece is split into (more of them are sent in several goes), and for
/// single ones before it.
const OUTGOING: usize = HEADROOM + PIECE + 96 * 1024;
/// A piece is read only while so much is left behind it.
const FOR_SEGMENTS: usize = 72 * 1024;
/// A device that is gone again so soon is not replaced once more.
const PATIENCE: Duration = Duration::from_secs(1);
/// Packets start where a cache line does.
const LINE: usize = 64;

/// What came from the network in one go, and what it becomes.
pub(super) struct Inbound {
    inbox: Inbox,
    /// Packets for the TUN device, where they lie in the inbox.
    coalescer: Coalescer,
    /// Datagrams for other peers, where they lie in the inbox.
    relayed: Outbox,
}

/// What came from the host and is on its way to the network.
pub(super) struct Outgoing {
    memory: Pages,
    /// Bytes of `memory` that the outbox and the piece being split refer to.
    used: usize,
    /// What the socket has not taken yet; the TUN device waits until it has.
    outbox: Outbox,
    /// A piece that is being split, and where it lies.
    piece: Option<(Splitter, Part)>,
}

impl Inbound {
    /// For this device.
    pub(super) fn new(tun: &TunDevice) -> Self {
        let coalescer = Coalescer::new(tun.takes_datagrams());
        Self { inbox: Inbox::new(), coalescer, relayed: Outbox::new() }
    }
}

impl Default for Outgoing {
    fn default() -> Self {
        Self { memory: Pages::new(OUTGOING), used: 0, outbox: Outbox::new(), piece: None }
    }
}

impl Outgoing {
    /// The room for a packet of up to `len` bytes with what belongs before and behind it, and where
    /// that starts.
    fn room(&mut self, len: usize) -> Option<(PacketMut<'_>, usize)> {
        let start = self.used.next_multiple_of(LINE);
        let memory = self.memory.get_mut(start..start + HEADROOM + len + TAILROOM)?;
        Some((PacketMut::new(memory, HEADROOM, HEADROOM)?, start))
    }

    /// Whether there may not be room for another piece and what it is split into.
    fn is_short(&self) -> bool {
        self.outbox.is_full() || self.used + HEADROOM + PIECE + FOR_SEGMENTS > OUTGOING
    }

    /// Everything in the outbox has been sent: its memory is free again.
    fn recycle(&mut self) {
        self.used = self.piece.map_or(0, |(_, piece)| piece.start + piece.len);
    }
}

impl<E: Engine, U: Upkeep<E>> Turns<E, U> {
    /// Whether the socket was full last time.
    pub(super) fn is_blocked(&self) -> bool {
        self.outgoing.as_ref().is_some_and(|outgoing| !outgoing.outbox.is_empty())
    }

    /// Sends what found the socket full, and what is left of the piece it came from.
    pub(super) fn send_blocked(&mut self, now: Now) {
        if !self.is_blocked() {
            return;
        }
        let Some(mut outgoing) = self.outgoing.take() else { return };
        if self.send_out(&mut outgoing) {
            self.split(now, &mut outgoing);
            self.send_out(&mut outgoing);
        }
        self.outgoing = Some(outgoing);
    }

    /// Now and then: what a burst has needed is the system's again.
    pub(super) fn rest(&mut self) {
        if let Some(inbound) = &mut self.inbound {
            inbound.inbox.rest();
        }
        if let Some(outgoing) = self.outgoing.as_mut().filter(|outgoing| outgoing.used == 0) {
            outgoing.memory.release_behind(HEADROOM + MAX_MTU);
        }
    }

    pub(super) fn handle_udp(&mut self, now: Now) {
        let Some(mut inbound) = self.inbound.take() else { return };
        let (mut taken, mut more) = (0, true);
        while taken < BATCH {
            if let Err(error) = self.shell.udp.receive_batch(&mut inbound.inbox) {
                // An ICMP error for an earlier datagram; reading it has cleared it.
                log::trace!("UDP socket: {error}");
                taken += 1;
                continue;
            }
            more = inbound.inbox.was_full();
            for at in 0..inbound.inbox.len() {
                let count = self.handle_message(now, &mut inbound, at);
                self.pace.count(count);
                taken += count;
            }
            // The memory is about to be used again.
            let Inbound { inbox, coalescer, relayed } = &mut *inbound;
            let mut gone = false;
            let (tun, counters) = (&self.shell.tun, &mut self.counters);
            coalescer.flush(inbox.memory(), &mut deliver(tun, counters, &mut gone));
            // Another client's packets are not held back for: they would hold up the rest.
            let sent = self.shell.udp.send_batch(inbox.memory(), relayed);
            self.counters.unsent += (sent.lost + relayed.waiting().len()) as u64;
            self.counters.traffic.link_out += sent.bytes as u64;
            relayed.sent(relayed.waiting().len());
            if gone {
                self.tun_gone();
            }
            if !more {
                break;
            }
        }
        self.backlog |= more;
        self.inbound = Some(inbound);
    }

    /// One datagram, or several in a row; returns how many.
    fn handle_message(&mut self, now: Now, inbound: &mut Inbound, at: usize) -> usize {
        let Some((message, start)) = inbound.inbox.message(at) else { return 1 };
        if message.truncated {
            self.counters.oversized += 1;
            return 1;
        }
        self.counters.traffic.link_in += message.len as u64;
        let (slot, slot_end) = Inbox::slot(start);
        let (segment, len) = (message.segment.max(1), message.len);
        if segment >= len {
            self.handle_datagram(now, inbound, message.from, (slot, slot_end), Part { start, len });
            return 1;
        }
        // What is opened may be sealed again for another peer, which takes more room than opening
        // set free.
        let stride = match self.shell.engine.forwards_between_peers() {
            true => inbound.inbox.spread(start, segment, len),
            false => segment,
        };
        let count = len.div_ceil(segment);
        for index in 0..count {
            let start = start + index * stride;
            let len = segment.min(len - index * segment);
            let room = (start - (stride - segment), start + len);
            self.handle_datagram(now, inbound, message.from, room, Part { start, len });
        }
        count
    }

    /// The datagram at `part` of the inbox, which may grow within `room`.
    fn handle_datagram(
        &mut self,
        now: Now,
        inbound: &mut Inbound,
        from: Endpoint,
        (first, end): (usize, usize),
        part: Part,
    ) {
        let memory = inbound.inbox.memory().get_mut(first..end).unwrap_or_default();
        let start = part.start - first;
        let Some(mut packet) = PacketMut::new(memory, start, start + part.len) else { return };
        let verdict = self.shell.engine.handle_udp(now, from, &mut packet);
        let part = Part { start: first + packet.start(), len: packet.len() };
        let to_tun = match verdict {
            Verdict::Drop(_) => false,
            // Something may wait to be answered; in the other cases the end of the batch does.
            Verdict::Consumed => {
                self.drain_transmit(now);
                false
            }
            Verdict::ToTun => true,
            Verdict::ToUdp(to) => {
                if !inbound.relayed.push(to, part) {
                    self.send(to, part.of(inbound.inbox.memory()));
                }
                false
            }
            Verdict::Broadcast { to_tun } => {
                self.broadcast(now, part.of(inbound.inbox.memory()));
                to_tun
            }
        };
        if to_tun {
            let Inbound { inbox, coalescer, .. } = inbound;
            let mut gone = false;
            let tun = &self.shell.tun;
            if tun.takes_segments() {
                let mut write = deliver(tun, &mut self.counters, &mut gone);
                coalescer.push(inbox.memory(), part, &mut write);
            } else {
                let mut write = deliver(tun, &mut self.counters, &mut gone);
                write(&VnetHeader::PLAIN, inbox.memory(), &[part]);
            }
            if gone {
                self.tun_gone();
            }
        }
    }

    pub(super) fn handle_tun(&mut self, now: Now) {
        let Some(mut outgoing) = self.outgoing.take() else { return };
        let (mut taken, mut more) = (0, true);
        while taken < BATCH {
            if outgoing.is_short() && !self.send_out(&mut outgoing) {
                break;
            }
            match self.read_tun(now, &mut outgoing) {
                Ok(count) => {
                    self.pace.count(count);
                    taken += count;
                }
                Err(TunFailure::Empty | TunFailure::Refused) => {
                    more = false;
                    break;
                }
                Err(TunFailure::Gone) => {
                    self.tun_gone();
                    break;
                }
            }
            if outgoing.piece.is_some() {
                break;
            }
        }
        self.send_out(&mut outgoing);
        self.backlog |= more;
        self.outgoing = Some(outgoing);
    }

    /// Reads and handles one piece; returns how many packets that were.
    fn read_tun(&mut self, now: Now, outgoing: &mut Outgoing) -> Result<usize, TunFailure> {
        let most = if self.shell.tun.takes_segments() { PIECE } else { MAX_MTU };
        let Some((mut packet, start)) = outgoing.room(most) else { return Ok(1) };
        let Ok(space) = packet.push_back(most) else { return Ok(1) };
        let (header, len) = self.shell.tun.read(space)?;
        self.counters.traffic.tun_in += len as u64;
        packet.truncate(len);
        match Splitter::new(&header, packet.as_slice()) {
            Ok(None) if split::complete(&header, packet.as_mut_slice()).is_ok() => {
                let verdict = self.shell.engine.handle_tun(now, &mut packet);
                let part = Part { start: start + packet.start(), len: packet.len() };
                self.carry_out(now, outgoing, verdict, part);
                Ok(1)
            }
            Ok(Some(splitter)) => {
                let piece = Part { start: start + HEADROOM, len };
                outgoing.used = piece.start + piece.len;
                outgoing.piece = Some((splitter, piece));
                Ok(self.split(now, outgoing))
            }
            Ok(None) | Err(_) => {
                self.counters.unsent += 1;
                Ok(1)
            }
        }
    }

    /// Handles the packets of the piece at hand, until the socket is full; returns how many.
    fn split(&mut self, now: Now, outgoing: &mut Outgoing) -> usize {
        let mut count = 0;
        while let Some((mut splitter, piece)) = outgoing.piece.filter(|(s, _)| !s.is_done()) {
            let len = splitter.next_len();
            if outgoing.outbox.is_full() || outgoing.room(len).is_none() {
                if outgoing.outbox.is_empty() || !self.send_out(outgoing) {
                    break;
                }
                continue;
            }
            let start = outgoing.used.next_multiple_of(LINE);
            let Some((before, behind)) = outgoing.memory.split_at_mut_checked(start) else { break };
            let behind = behind.get_mut(..HEADROOM + len + TAILROOM).unwrap_or_default();
            let Some(mut packet) = PacketMut::new(behind, HEADROOM, HEADROOM) else { break };
            if !splitter.next(piece.of(before), &mut packet) {
                break;
            }
            outgoing.piece = Some((splitter, piece));
            let verdict = self.shell.engine.handle_tun(now, &mut packet);
            let part = Part { start: start + packet.start(), len: packet.len() };
            self.carry_out(now, outgoing, verdict, part);
            count += 1;
        }
        if outgoing.outbox.is_empty() || outgoing.piece.is_some_and(|(s, _)| s.is_done()) {
            outgoing.piece = None;
        }
        count
    }

    /// Puts a packet of the host where the engine wants it.
    fn carry_out(&mut self, now: Now, outgoing: &mut Outgoing, verdict: Verdict, part: Part) {
        match verdict {
            Verdict::Drop(_) => {}
            Verdict::Consumed => self.drain_transmit(now),
            Verdict::ToTun => {
                let mut gone = false;
                let header = VnetHeader::PLAIN;
                deliver(&self.shell.tun, &mut self.counters, &mut gone)(
                    &header,
                    &outgoing.memory,
                    &[part],
                );
                if gone {
                    self.tun_gone();
                }
            }
            Verdict::ToUdp(to) => {
                // The caller made sure that there is room.
                if outgoing.outbox.push(to, part) {
                    outgoing.used = part.start + part.len;
                }
            }
            Verdict::Broadcast { .. } => self.broadcast(now, part.of(&outgoing.memory)),
        }
    }

    /// Sends what waits; says whether all of it is gone.
    fn send_out(&mut self, outgoing: &mut Outgoing) -> bool {
        let sent = self.shell.udp.send_batch(&outgoing.memory, &mut outgoing.outbox);
        self.counters.unsent += sent.lost as u64;
        self.counters.traffic.link_out += sent.bytes as u64;
        if !sent.blocked {
            outgoing.recycle();
        }
        !sent.blocked
    }

    fn broadcast(&mut self, now: Now, packet: &[u8]) {
        let Some(mut memory) = self.outbound.take() else { return };
        loop {
            let mut copy = memory.packet();
            let Some(to) = self.shell.engine.poll_broadcast(now, packet, &mut copy) else { break };
            self.send(to, copy.as_slice());
        }
        self.outbound = Some(memory);
    }

    /// With CAP_NET_ADMIN another one can be made, but all else depends on this one: a fresh start.
    fn tun_gone(&mut self) {
        self.deviceless = true;
        if self.leave_at.is_some() {
            return;
        }
        let name = self.shell.tun.name();
        let gone = format!("the TUN device {name} was removed by another program");
        match self.shell.upkeep.config() {
            // Removed again at once, it is not by mistake.
            Some(config)
                if self.clock.now().mono.since(self.begun) > PATIENCE
                    && reload::may_restart(config, config, self.shell.reports.access()).is_ok() =>
            {
                log::error!("{gone}; starting over");
                self.start_over(Box::new(config.clone()));
            }
            Some(_) | None => _ = self.end.get_or_insert(Err(gone)),
        }
    }

    /// Sends what is sent again when it is lost, or what nobody misses.
    pub(super) fn send(&mut self, to: Endpoint, datagram: &[u8]) {
        match self.shell.udp.send(to, datagram) {
            Ok(()) => self.counters.traffic.link_out += datagram.len() as u64,
            Err(error) => {
                log::trace!("datagram not sent: {error}");
                self.counters.unsent += 1;
            }
        }
    }
}

/// Writes to the TUN device and counts what it does not take.
fn deliver<'a>(
    tun: &'a TunDevice,
    counters: &'a mut ShellCounters,
    gone: &'a mut bool,
) -> impl FnMut(&VnetHeader, &[u8], &[Part]) + 'a {
    move |header, memory, parts| match tun.write(header, memory, parts) {
        Ok(()) => {
            let bytes: usize = parts.iter().map(|part| part.len).sum();
            counters.traffic.tun_out += bytes as u64;
        }
        Err(TunFailure::Empty | TunFailure::Refused) => counters.undelivered += 1,
        Err(TunFailure::Gone) => *gone = true,
    }
}
