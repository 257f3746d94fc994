//! The reliability layer of one key [3.1]: numbered packets out, acknowledged and retransmitted;
//! numbered packets in, put back in order.
//!
//! It knows nothing of headers, wrapping or TLS. A packet's header, acknowledgements and wrap are
//! made afresh by the session each time this layer says that a packet is due.

use core::time::Duration;

use heapless::{Deque, Vec as FixedVec};

use crate::buf::Full;
use crate::limits::{MAX_ACKS, RECEIVE_WINDOW, SEND_WINDOW};
use crate::time::Instant;
use crate::wire::control::{AckList, MessageId, Opcode};

/// Back-off doubles up to here. Stock has no cap; a key's whole negotiation must fit 60 seconds, so
/// longer pauses only lose it.
const MAX_INTERVAL: Duration = Duration::from_secs(8);
/// So many later packets acknowledged means that an earlier one is lost (N_ACK_RETRANSMIT).
const FAST_RETRANSMIT: u8 = 3;
/// Largest payload stored; stock's buffers hold about 1600 bytes of datagram [3.2].
const MAX_PAYLOAD: usize = 2048;

/// What became of a packet that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receipt {
    /// Stored; `take` hands it out when its turn comes.
    New,
    /// Had it before; acknowledged again, since the first acknowledgement may be lost.
    Duplicate,
    /// Beyond the window, or too large; not acknowledged.
    Refused,
}

/// One packet on its way out.
struct Outgoing {
    opcode: Opcode,
    payload: Vec<u8>,
    /// `None` once acknowledged: the entry only keeps the window's place.
    state: Option<Flight>,
}

/// The timing of a packet that is not acknowledged yet.
struct Flight {
    sent: bool,
    next: Instant,
    interval: Duration,
    overtaken: u8,
}

/// A packet that is due; the borrow ends before acknowledgements are collected.
pub(super) struct Due<'a> {
    /// Its number.
    pub(super) id: MessageId,
    /// Its kind.
    pub(super) opcode: Opcode,
    /// Its payload.
    pub(super) payload: &'a [u8],
}

/// Both directions of one key's control channel.
pub(super) struct Reliable {
    /// From the oldest unacknowledged packet to the newest: its length is the span of ids that the
    /// peer's receive window must hold.
    outgoing: Deque<Outgoing, SEND_WINDOW>,
    /// Number of the packet at the front of `outgoing`.
    first: u32,
    window: usize,
    interval: Duration,
    /// Packets that wait for their turn; the one numbered `i` is at `i % RECEIVE_WINDOW`.
    incoming: [Option<(Opcode, Vec<u8>)>; RECEIVE_WINDOW],
    expected: u32,
    due: AckList,
    recent: FixedVec<MessageId, MAX_ACKS>,
}

impl Reliable {
    /// Both directions start at `first`: 0, or 1 when the resets were exchanged elsewhere.
    pub(super) fn new(first: u32, window: usize, interval: Duration) -> Self {
        Self {
            outgoing: Deque::new(),
            first,
            window: window.clamp(1, SEND_WINDOW),
            interval: interval.clamp(Duration::from_millis(100), MAX_INTERVAL),
            incoming: [const { None }; RECEIVE_WINDOW],
            expected: first,
            due: AckList::new(),
            recent: FixedVec::new(),
        }
    }

    /// The number the next pushed packet gets.
    pub(super) fn next_id(&self) -> MessageId {
        // At most SEND_WINDOW entries.
        MessageId(self.first.wrapping_add(self.outgoing.len() as u32))
    }

    /// Whether `push` would succeed.
    pub(super) fn has_room(&self) -> bool {
        self.outgoing.len() < self.window
    }

    /// Whether everything pushed has been acknowledged.
    pub(super) fn is_idle(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Whether everything pushed has gone out at least once.
    pub(super) fn all_sent(&self) -> bool {
        self.outgoing.iter().all(|packet| packet.state.as_ref().is_none_or(|flight| flight.sent))
    }

    /// Queues a packet; it is due at once.
    pub(super) fn push(&mut self, opcode: Opcode, payload: Vec<u8>) -> Result<MessageId, Full> {
        if !self.has_room() {
            return Err(Full);
        }
        let id = self.next_id();
        let flight =
            Flight { sent: false, next: Instant::ZERO, interval: self.interval, overtaken: 0 };
        let packet = Outgoing { opcode, payload, state: Some(flight) };
        self.outgoing.push_back(packet).map_err(|_| Full)?;
        Ok(id)
    }

    /// Whether `poll` has something to say at `now`.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.poll_timeout().is_some_and(|at| at <= now)
    }

    /// The oldest packet that is due at `now`; counted as sent, its next turn is set.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Due<'_>> {
        let mut id = self.first;
        for packet in self.outgoing.iter_mut() {
            let due = packet.state.as_mut().filter(|flight| flight.next <= now);
            if let Some(flight) = due {
                flight.next = now + flight.interval;
                flight.interval = (flight.interval * 2).min(MAX_INTERVAL);
                flight.sent = true;
                flight.overtaken = 0;
                let (opcode, payload) = (packet.opcode, packet.payload.as_slice());
                return Some(Due { id: MessageId(id), opcode, payload });
            }
            id = id.wrapping_add(1);
        }
        None
    }

    /// When `poll` has something to say.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let flights = self.outgoing.iter().filter_map(|packet| packet.state.as_ref());
        flights.map(|flight| flight.next).min()
    }

    /// The peer has these packets. Acknowledgements are selective: nothing below them is implied.
    pub(super) fn acknowledge(&mut self, acks: &[MessageId]) {
        for ack in acks {
            let at = ack.0.wrapping_sub(self.first) as usize;
            let mut flights = self.outgoing.iter_mut();
            let Some(packet) = flights.nth(at) else { continue };
            if packet.state.take_if(|flight| flight.sent).is_none() {
                continue;
            }
            packet.payload = Vec::new();
            for earlier in self.outgoing.iter_mut().take(at) {
                let Some(flight) = &mut earlier.state else { continue };
                flight.overtaken = flight.overtaken.saturating_add(1);
                if flight.overtaken >= FAST_RETRANSMIT {
                    flight.next = Instant::ZERO;
                }
            }
        }
        while self.outgoing.front().is_some_and(|packet| packet.state.is_none()) {
            let _acknowledged = self.outgoing.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }

    /// A packet arrived, authenticated by the wrap.
    pub(super) fn receive(&mut self, id: MessageId, opcode: Opcode, payload: &[u8]) -> Receipt {
        if id.0 < self.expected {
            self.owe(id);
            return Receipt::Duplicate;
        }
        let ahead = id.0.wrapping_sub(self.expected) as usize;
        if ahead >= RECEIVE_WINDOW || payload.len() > MAX_PAYLOAD {
            return Receipt::Refused;
        }
        let Some(slot) = self.incoming.get_mut(id.0 as usize % RECEIVE_WINDOW) else {
            return Receipt::Refused;
        };
        let receipt = if slot.is_some() {
            Receipt::Duplicate
        } else {
            *slot = Some((opcode, payload.to_vec()));
            Receipt::New
        };
        self.owe(id);
        receipt
    }

    /// The next packet in order, if it is there.
    pub(super) fn take(&mut self) -> Option<(Opcode, Vec<u8>)> {
        let packet = self.incoming.get_mut(self.expected as usize % RECEIVE_WINDOW)?.take()?;
        self.expected = self.expected.wrapping_add(1);
        Some(packet)
    }

    /// Whether an acknowledgement waits to be sent.
    pub(super) fn owes_acks(&self) -> bool {
        !self.due.is_empty()
    }

    /// The acknowledgements for one packet: those that are due, then recent ones again as far as
    /// there is room, so that a lost packet does not cost its acknowledgements.
    pub(super) fn acks(&mut self, limit: usize) -> AckList {
        let limit = limit.min(MAX_ACKS);
        let fresh = self.due.len().min(limit);
        let mut acks = AckList::new();
        for id in self.due.drain(..fresh) {
            push_new(&mut acks, id, limit);
        }
        let mut recent = acks.clone();
        for id in &self.recent {
            push_new(&mut recent, *id, MAX_ACKS);
        }
        self.recent = recent;
        for id in &self.recent {
            push_new(&mut acks, *id, limit);
        }
        acks
    }

    fn owe(&mut self, id: MessageId) {
        // Full: the peer retransmits and is told then. The session drains the list per packet.
        push_new(&mut self.due, id, MAX_ACKS);
    }
}

/// Appends `id` unless it is there already or the list has `limit` entries.
fn push_new(list: &mut AckList, id: MessageId, limit: usize) {
    if list.len() < limit && !list.contains(&id) {
        let _full = list.push(id);
    }
}

#[cfg(test)]
mod tests;
