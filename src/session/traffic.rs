//! Data packets in and out by the right key, and keeping the path alive with pings [3.7, 6.4].

use core::time::Duration;
use std::sync::Arc;

use crate::buf::PacketMut;
use crate::config;
use crate::engine::DropReason;
use crate::session::data::{OpenError, Payload, SealError, framing};
use crate::session::timers::{Timer, Timers};
use crate::session::{DataParams, Session, SessionConfig};
use crate::time::{Instant, Now};
use crate::wire::control::{KeyId, Opcode};

/// When we last sent and heard something, and what follows from silence.
pub(super) struct Keepalive {
    ping: Option<Duration>,
    restart: Option<Duration>,
    last_sent: Instant,
    pub(super) last_heard: Instant,
    ping_due: bool,
}

impl Keepalive {
    pub(super) fn new(now: Instant, timers: &config::Timers) -> Self {
        Self {
            ping: timers.ping,
            restart: timers.ping_restart,
            last_sent: now,
            last_heard: now,
            ping_due: false,
        }
    }

    /// Starts both timers afresh.
    pub(super) fn restart(&mut self, now: Instant, timers: &mut Timers) {
        (self.last_sent, self.last_heard) = (now, now);
        let set = |timers: &mut Timers, timer, after: Option<Duration>| match after {
            Some(after) => timers.set(timer, now + after),
            None => timers.clear(timer),
        };
        set(timers, Timer::Ping, self.ping);
        set(timers, Timer::Silence, self.restart);
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// The timers are not moved for every packet: when they run out, they look when the last was.
    pub(super) fn ping_timeout(&mut self, now: Instant, timers: &mut Timers) {
        let Some(ping) = self.ping else { return };
        let due = self.last_sent + ping;
        if due <= now {
            self.ping_due = true;
            timers.set(Timer::Ping, now + ping);
        } else {
            timers.set(Timer::Ping, due);
        }
    }

    /// Whether a ping is to be sent now; asked once.
    pub(super) fn take_ping(&mut self) -> bool {
        core::mem::take(&mut self.ping_due)
    }

    pub(super) fn is_silent(&self, now: Instant, timers: &mut Timers) -> bool {
        let Some(restart) = self.restart else { return false };
        let due = self.last_heard + restart;
        timers.set(Timer::Silence, due);
        due <= now
    }
}

impl Session {
    /// Changes `ping` and `ping-restart`, as a server pushes them; `None` is off.
    pub fn set_keepalive(
        &mut self,
        now: Now,
        ping: Option<Duration>,
        ping_restart: Option<Duration>,
    ) {
        (self.keepalive.ping, self.keepalive.restart) = (ping, ping_restart);
        if self.has_keys() && self.failing.is_none() {
            self.keepalive.restart(now.mono, &mut self.timers);
        }
    }

    /// Goes by other settings of the same role; the key in use keeps its lifetime.
    pub fn reconfigure(
        &mut self,
        now: Now,
        config: Arc<SessionConfig>,
        ping: Option<Duration>,
        ping_restart: Option<Duration>,
    ) {
        self.config = config;
        if (self.keepalive.ping, self.keepalive.restart) != (ping, ping_restart) {
            self.set_keepalive(now, ping, ping_restart);
        }
    }

    /// Sends a ping as soon as `poll_transmit` is asked: the peer should hear from where we are now.
    pub fn ping_now(&mut self) {
        self.keepalive.ping_due = true;
    }

    /// Seals a packet in place with the key that is to be used now.
    pub fn seal(&mut self, now: Now, packet: &mut PacketMut<'_>) -> Result<(), DropReason> {
        let DataParams { peer, framing, .. } = self.params.ok_or(DropReason::NoKey)?;
        let slot = self.sending_slot(now.mono).ok_or(DropReason::NoKey)?;
        let id = slot.id;
        let keys = slot.data.as_mut().ok_or(DropReason::NoKey)?;
        let sealed = framing::add(framing, packet).and_then(|()| keys.seal(id, peer, packet));
        if keys.wants_renegotiation() {
            self.renegotiate_soon(now, id);
        }
        sealed.map_err(|error| match error {
            SealError::Exhausted | SealError::NoRandomness => DropReason::NoKey,
            SealError::Full => DropReason::TooBig,
        })?;
        self.keepalive.sent(now.mono);
        self.probe.sent(packet.len());
        Ok(())
    }

    /// Opens a data packet in place; the window then holds the plaintext.
    pub fn open(&mut self, now: Now, packet: &mut PacketMut<'_>) -> Result<Payload, DropReason> {
        let first = packet.as_slice().first().ok_or(DropReason::Malformed)?;
        let (_, key_id) = Opcode::from_first_byte(*first);
        let framing = self.params.ok_or(DropReason::NoKey)?.framing;
        let slot = self.receiving_slot(key_id).ok_or(DropReason::NoKey)?;
        let keys = slot.data.as_mut().ok_or(DropReason::NoKey)?;
        let len = packet.len();
        let opened = keys.open(packet);
        let worn = keys.wants_renegotiation();
        slot.peer_uses |= opened.is_ok();
        if worn {
            self.renegotiate_soon(now, key_id);
        }
        opened.map_err(|error| match error {
            OpenError::Malformed => DropReason::Malformed,
            OpenError::Replay => DropReason::Replay,
            OpenError::BadAuth => DropReason::BadAuth,
        })?;
        self.keepalive.heard(now.mono);
        self.probe.received(len);
        if framing::remove(framing, packet).is_err() {
            return Ok(Payload::Compressed);
        }
        let payload = Payload::classify(packet.as_slice());
        if let Payload::OccRequest(question) = payload {
            self.probe.ask(question);
        }
        Ok(payload)
    }

    /// A key has reached one of its limits: `handle_timeout` is due at once, unless the key has
    /// its successor or that is under way.
    fn renegotiate_soon(&mut self, now: Now, key_id: KeyId) {
        let newest = self.primary.id == key_id && self.primary.established.is_some();
        if newest && self.failing.is_none() {
            self.timers.set(Timer::Renegotiate, now.mono);
        }
    }
}
