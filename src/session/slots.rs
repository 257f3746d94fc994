//! Keys and how one follows another: renegotiation and the choice of the key to send with [3.4, 3.7].
//!
//! ```text
//! primary    the newest key, possibly still under negotiation
//! retiring   the one before it; good in both directions until `tran-window` is over
//! ```
//!
//! Either side starts a renegotiation by a soft reset with the next key id; when both do so at
//! once, both mean the same key and each other's reset is simply the answer.

use core::time::Duration;

use crate::random::Random;
use crate::session::channel::Channel;
use crate::session::data::DataKeys;
use crate::session::timers::Timer;
use crate::session::{Role, Session, SessionError, SessionEvent, SessionFailure};
use crate::time::{Instant, Now};
use crate::wire::control::{KeyId, Opcode};

/// A peer may start a renegotiation so long after the last one was finished: each costs a TLS
/// handshake. An earlier soft reset is dropped and succeeds when it is retransmitted.
const PEER_INTERVAL: Duration = Duration::from_secs(5);

/// One key: its control channel and, in the end, its data keys.
pub(super) struct Slot {
    pub(super) id: KeyId,
    /// `None` once a successor is established.
    pub(super) channel: Option<Channel>,
    pub(super) data: Option<DataKeys>,
    /// Whether the exchange has been seen to be done and acknowledged.
    active: bool,
    /// Since when the exchange is done, acknowledged, and the data keys are there.
    pub(super) established: Option<Instant>,
    /// Whether the peer has sent data with this key.
    pub(super) peer_uses: bool,
    /// When the key ends; only retired keys do.
    pub(super) expires: Option<Instant>,
    /// How long it lives before we renegotiate; zero for ever.
    lifetime: Duration,
}

impl Slot {
    pub(super) fn new(id: KeyId, channel: Channel, lifetime: Duration) -> Self {
        Self {
            id,
            channel: Some(channel),
            data: None,
            active: false,
            established: None,
            peer_uses: false,
            expires: None,
            lifetime,
        }
    }
}

/// A key's lifetime: `reneg-sec` less a random part, so that a server's clients, all connected at
/// its start, do not all renegotiate in the same second [3.6].
pub(super) fn lifetime((max, min): (Duration, Duration), rng: &mut dyn Random) -> Duration {
    let spread = max.saturating_sub(min).as_millis();
    let spread = u32::try_from(spread).unwrap_or(u32::MAX);
    max.saturating_sub(Duration::from_millis(u64::from(rng.below(spread))))
}

impl Session {
    /// Starts a renegotiation: fresh handshake, next key. The old key stays in use meanwhile.
    pub fn renegotiate(&mut self, now: Now, rng: &mut dyn Random) -> Result<(), SessionError> {
        if self.primary.established.is_none() || self.failing.is_some() {
            return Err(SessionError::NotReady);
        }
        self.rotate(now, rng);
        self.settle(now, rng);
        Ok(())
    }

    /// The peer's soft reset names a key we do not have: whether to follow.
    pub(super) fn may_follow(&self, now: Now, key_id: KeyId) -> bool {
        let established = self.primary.established;
        key_id == self.primary.id.next()
            && established.is_some_and(|since| now.mono.since(since) >= PEER_INTERVAL)
    }

    /// Retires the primary key and begins its successor with a soft reset.
    pub(super) fn rotate(&mut self, now: Now, rng: &mut dyn Random) {
        let timers = &self.config.timers;
        let id = self.primary.id.next();
        let channel = Channel::new(&self.config, Some(Opcode::SoftResetV1));
        let next = Slot::new(id, channel, lifetime(timers.reneg, rng));
        let mut old = core::mem::replace(&mut self.primary, next);
        // A key whose successor failed once does not live longer for the next attempt.
        let expires = *old.expires.get_or_insert(now.mono + timers.transition);
        self.retiring = Some(old);
        self.timers.set(Timer::Retire, expires);
        self.timers.set(Timer::Handshake, now.mono + timers.handshake);
        self.timers.clear(Timer::Renegotiate);
        self.push_event(SessionEvent::RenegotiationStarted(id));
    }

    /// Notices when the primary key's control channel is up, and when its data keys are there too.
    pub(super) fn check_established(&mut self, now: Now) {
        let slot = &mut self.primary;
        let active = slot.channel.as_ref().is_some_and(Channel::is_active);
        if slot.established.is_some() || !active {
            return;
        }
        if slot.data.is_some() {
            self.establish(now);
        } else if slot.id == KeyId::ZERO && !slot.active {
            // What follows on the first key, authentication and push, has as much time again.
            slot.active = true;
            self.timers.set(Timer::Handshake, now.mono + self.config.timers.handshake);
        }
    }

    fn establish(&mut self, now: Now) {
        let slot = &mut self.primary;
        slot.established = Some(now.mono);
        self.timers.clear(Timer::Handshake);
        if !slot.lifetime.is_zero() {
            self.timers.set(Timer::Renegotiate, now.mono + slot.lifetime);
        }
        // From here on control messages go by the new key.
        if let Some(old) = &mut self.retiring {
            old.channel = None;
        }
    }

    /// Authentication takes longer, as one end has told the other: so does the first key, within
    /// what a key renegotiation leaves room for [7.1].
    pub fn wait_for_authentication(&mut self, now: Now, timeout: Option<u32>) {
        let timers = &self.config.timers;
        let limit = timers.handshake.max(timers.reneg.0 / 2);
        let wait = timeout.map_or(limit, |secs| Duration::from_secs(u64::from(secs)).min(limit));
        if !self.has_keys() && self.failing.is_none() {
            self.timers.set(Timer::Handshake, now.mono + wait);
        }
    }

    /// `hand-window` is over and the key is not established.
    pub(super) fn handshake_timeout(&mut self, now: Now) {
        // Both ends have the new key, and a tunnel; all that is missing is an acknowledgement.
        if self.primary.data.is_some() && self.primary.id != KeyId::ZERO {
            return self.establish(now);
        }
        let retry = now.mono + self.config.timers.handshake;
        match self.retiring.take() {
            // A client that lost touch connects anew; until then the server serves it with the old
            // key. A client itself is better off connecting anew.
            Some(old) if self.config.role == Role::Server && old.data.is_some() => {
                log::warn!("renegotiation timed out; the old key stays in use");
                self.primary = old;
                self.timers.set(Timer::Renegotiate, retry);
            }
            Some(_) | None => self.fail(now, SessionFailure::HandshakeTimeout),
        }
    }

    /// `tran-window` is over: the retired key ends.
    pub(super) fn retire(&mut self, now: Now) {
        self.retiring = None;
        // After a failed renegotiation the old key had become the primary one again.
        let over = self.primary.expires.is_some_and(|end| end <= now.mono);
        if over || self.primary.data.is_none() {
            self.fail(now, SessionFailure::KeyExpired);
        }
    }

    /// The key to send data with: the new one once the peer has used it or has had ample time to
    /// get it ready [3.7], else the old one while it lasts.
    pub(super) fn sending_slot(&mut self, now: Instant) -> Option<&mut Slot> {
        let timers = &self.config.timers;
        let grace = match timers.reneg.0 {
            Duration::ZERO => timers.handshake,
            reneg => timers.handshake.min(reneg / 2),
        };
        // Well before the old key ends at the peer, whose `tran-window` may have begun earlier.
        let grace = grace.min(timers.transition / 2);
        let primary = &self.primary;
        let settled = primary.established.is_some_and(|since| now.since(since) >= grace);
        let prefer_new = primary.data.is_some() && (primary.peer_uses || settled);
        let old = self.retiring.as_mut().filter(|old| old.data.is_some());
        match old {
            Some(old) if !prefer_new => Some(old),
            Some(_) | None => Some(&mut self.primary).filter(|slot| slot.data.is_some()),
        }
    }

    /// The slot of `key_id` that can open data.
    pub(super) fn receiving_slot(&mut self, key_id: KeyId) -> Option<&mut Slot> {
        let slots = [Some(&mut self.primary), self.retiring.as_mut()];
        slots.into_iter().flatten().find(|slot| slot.id == key_id && slot.data.is_some())
    }

    /// The control channel of `key_id`.
    pub(super) fn channel(&mut self, key_id: KeyId) -> Option<&mut Channel> {
        let slots = [Some(&mut self.primary), self.retiring.as_mut()];
        let slot = slots.into_iter().flatten().find(|slot| slot.id == key_id);
        slot.and_then(|slot| slot.channel.as_mut())
    }
}
