//! Control packets out: retransmissions, acknowledgements, pings, and time [3.1].

use core::time::Duration;

use crate::buf::{Full, PacketMut};
use crate::limits::{CONTROL_MTU, HEADROOM, MAX_ACKS, MAX_PIGGYBACK_ACKS};
use crate::random::Random;
use crate::session::channel::{Channel, Room};
use crate::session::data::PING;
use crate::session::timers::Timer;
use crate::session::{Role, Session, SessionFailure};
use crate::time::Now;
use crate::wire::control::{Body, Header, KeyId, MessageId, Opcode};

/// How long a failed session goes on trying to deliver its TLS alert.
pub(super) const LINGER: Duration = Duration::from_secs(5);
/// Outer IPv6 and UDP headers, which `control_mtu` includes.
const OUTER: usize = 48;
/// Reserved in each packet: header, ack count, four acks, receiver, message id [3.2].
const FIXED: usize = Header::LEN + 1 + 4 * MAX_PIGGYBACK_ACKS + 8 + 4;
/// Carried in each packet at least, however small `control_mtu` is.
const MIN_PAYLOAD: usize = 64;

impl Session {
    /// Writes the next control packet, ping or answer into `out` (emptied first); `false` when nothing
    /// is due.
    pub fn poll_transmit(&mut self, now: Now, out: &mut PacketMut<'_>) -> bool {
        out.reset(HEADROOM);
        if self.failed {
            return false;
        }
        let old = self.retiring.as_ref().map(|slot| slot.id);
        for key_id in [Some(self.primary.id), old].into_iter().flatten() {
            if self.transmit(now, key_id, out) {
                self.keepalive.sent(now.mono);
                return true;
            }
        }
        self.transmit_ping(now, out) || self.transmit_answer(now, out)
    }

    fn transmit(&mut self, now: Now, key_id: KeyId, out: &mut PacketMut<'_>) -> bool {
        let (role, remote, session) = (self.config.role, self.remote, self.local);
        let resend = self.resends_wkc(key_id);
        let Self { wrap, dynamic_wrap, wrapped_key, primary, retiring, .. } = self;
        let slot = if primary.id == key_id { Some(primary) } else { retiring.as_mut() };
        let Some(Channel { reliable, .. }) = slot.and_then(|slot| slot.channel.as_mut()) else {
            return false;
        };
        if resend && reliable.owes_acks() && reliable.next_id() == MessageId(1) {
            // No bare ACK before the wrapped key has been sent again: it must be reliable [2.5].
            let _room = reliable.push(Opcode::WkcV1, Vec::new());
        }
        let (opcode, body) = if reliable.is_due(now.mono) {
            let acks = reliable.acks(MAX_PIGGYBACK_ACKS);
            let Some(due) = reliable.poll(now.mono) else { return false };
            (due.opcode, Body { acks, remote, id: Some(due.id), payload: due.payload })
        } else if reliable.owes_acks() {
            // Some servers take no more than four from a client [1.2].
            let acks = reliable.acks(match role {
                Role::Client => MAX_PIGGYBACK_ACKS,
                Role::Server => MAX_ACKS,
            });
            (Opcode::AckV1, Body { acks, remote, id: None, payload: &[] })
        } else {
            return false;
        };
        let trailer = match wrapped_key {
            Some(key) if opcode.has_wkc() => key.wkc.as_slice(),
            Some(_) | None => &[],
        };
        let wrap = match dynamic_wrap {
            Some(wrap) if key_id != KeyId::ZERO => wrap,
            Some(_) | None => wrap,
        };
        let header = Header { opcode, key_id, session };
        // A buffer that is too small is as good as a lost packet.
        wrap.seal(now.unix, header, &body, trailer, out).is_ok()
    }

    /// Whether message 1 of this key carries the wrapped client key again.
    fn resends_wkc(&self, key_id: KeyId) -> bool {
        key_id == KeyId::ZERO && self.wrapped_key.as_ref().is_some_and(|key| key.resend)
    }

    fn transmit_ping(&mut self, now: Now, out: &mut PacketMut<'_>) -> bool {
        if self.failing.is_some() || !self.keepalive.take_ping() {
            return false;
        }
        out.extend(&PING).is_ok() && self.seal(now, out).is_ok()
    }

    fn transmit_answer(&mut self, now: Now, out: &mut PacketMut<'_>) -> bool {
        let Some(overhead) = self.overhead().filter(|_| self.failing.is_none()) else {
            return false;
        };
        let answer = self.probe.answer(&self.config.options, overhead, out);
        answer.is_some_and(|written| written.is_ok() && self.seal(now, out).is_ok())
    }

    /// Writes waiting messages, and what TLS makes of them, as far as there is room.
    pub(super) fn send_waiting(&mut self) {
        let main = Room { plain: self.room(KeyId::ZERO), with_wkc: self.room_beside_wkc() };
        let later = Room { plain: self.room(KeyId::ZERO.next()), with_wkc: None };
        let Self { primary, retiring, messages, .. } = self;
        if let Some(channel) = &mut primary.channel {
            while let Some(message) = messages.front() {
                match channel.write(message) {
                    Ok(()) => drop(messages.pop_front()),
                    Err(Full) => break,
                }
            }
        }
        for slot in [Some(primary), retiring.as_mut()].into_iter().flatten() {
            if let Some(channel) = &mut slot.channel {
                channel.fill(if slot.id == KeyId::ZERO { main } else { later });
            }
        }
    }

    /// TLS bytes per packet for this key's wrapping.
    fn room(&self, key_id: KeyId) -> usize {
        let overhead = match &self.dynamic_wrap {
            Some(wrap) if key_id != KeyId::ZERO => wrap.overhead(),
            Some(_) | None => self.wrap.overhead(),
        };
        let mtu = self.config.control_mtu.min(CONTROL_MTU);
        mtu.saturating_sub(OUTER + FIXED + overhead).max(MIN_PAYLOAD)
    }

    fn room_beside_wkc(&self) -> Option<usize> {
        let key = self.wrapped_key.as_ref().filter(|key| key.resend)?;
        Some(self.room(KeyId::ZERO).saturating_sub(key.wkc.len()).max(MIN_PAYLOAD))
    }

    /// Whether a failed session has nothing left to say.
    pub(super) fn alert_is_out(&self) -> bool {
        let lingers = self.timers.next().is_some();
        !lingers || self.primary.channel.as_ref().is_none_or(Channel::all_sent)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now, rng: &mut dyn Random) {
        while let Some(timer) = self.timers.expired(now.mono) {
            match timer {
                Timer::Handshake => self.handshake_timeout(now),
                // A key under negotiation has its own timer, and sets this one when it is done.
                Timer::Renegotiate => {
                    let _under_way = self.renegotiate(now, rng);
                }
                Timer::Retire => self.retire(now),
                Timer::Ping => self.keepalive.ping_timeout(now.mono, &mut self.timers),
                Timer::Silence => {
                    if self.keepalive.is_silent(now.mono, &mut self.timers) {
                        self.fail(now, SessionFailure::PingTimeout);
                    }
                }
                // `poll_event` sees that the timer is gone.
                Timer::Linger => {}
            }
        }
        self.send_waiting();
    }
}
