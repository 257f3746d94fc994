//! One tunnel with one peer, in either role: from the first packet to the last.
//!
//! [`Session`] ties the parts together: `wrap` and `reliable` carry the control channel, `tls` and
//! `negotiate` agree on keys over it, `data` uses them, `slots` replaces them in time. Who may come
//! in, which cipher is used, addresses and routes are the engines' business.
//!
//! # How to drive it
//!
//! In: [`Session::handle_control`], [`Session::open`], [`Session::seal`],
//! [`Session::handle_timeout`]. After any of them, drain [`Session::poll_event`] (answering what
//! asks for an answer), then [`Session::poll_transmit`], then read [`Session::poll_timeout`].
//!
//! # The life of a session
//!
//! ```text
//! client(..) / server(..)     resets, TLS handshake, key exchange               [3.3, 5.1]
//!   -> Judge                  only with `judges_peer`, at each handshake: before we say anything
//!   <- accept_peer
//!   -> Authenticate           who the peer is; the engine decides what to do
//!   <- install_keys           once cipher and derivation are agreed upon        [5.4, 8]
//!   -> KeysReady(0)           seal and open work
//!   ...
//!   -> RenegotiationStarted   by either side; the old key keeps working         [3.7]
//!   -> Authenticate           again: the engine compares identities
//!   <- approve_key / reject
//!   -> KeysReady(n)
//!   ...
//!   -> Failed                 the end; a TLS alert, if any, has been sent
//! ```

#[cfg(feature = "cbc")]
mod cbc;
mod certificate;
mod chain_error;
mod channel;
pub mod cipher;
mod credentials;
pub mod data;
pub mod describe;
mod event;
#[doc(hidden)]
pub mod fuzz;
mod identity;
mod input;
pub mod keys;
mod login;
mod negotiate;
pub mod occ;
mod output;
pub mod probe;
mod reliable;
pub mod replay;
mod slots;
mod timers;
pub mod tls;
mod tls_error;
mod traffic;
mod verify;
pub mod wrap;

use core::fmt;
use std::collections::VecDeque;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::buf::Full;
use crate::config::{self, CipherName, Digest, Framing};
use crate::limits::MAX_CONTROL_QUEUE;
use crate::random::Random;
use crate::time::{Instant, Now};
use crate::wire::control::{KeyId, Opcode, SessionId};
use crate::wire::mss::DataOverhead;

use channel::Channel;
use data::{DataKeys, Format};
use keys::Derivation;
use slots::Slot;
use timers::{Timer, Timers};
use wrap::{EARLY_NEGOTIATION_ID, Wrap};

pub use certificate::CertificateInfo;
pub use event::{Authentication, SessionError, SessionEvent, SessionFailure};
pub use identity::PeerIdentity;
pub use login::Login;
pub use tls::{SharedUnixTime, TlsContext};

/// Which end of a tunnel we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Opens the connection; TLS client.
    Client,
    /// Answers; TLS server; numbers the peers.
    Server,
}

impl Role {
    /// The other end.
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// What all sessions of an engine share.
#[derive(Debug)]
pub struct SessionConfig {
    /// Which end we are.
    pub role: Role,
    /// Our certificate and the checks on the peer's.
    pub tls: Arc<TlsContext>,
    /// Times.
    pub timers: config::Timers,
    /// Our OCC string [5.2]; see [`occ::options_string`].
    pub options: String,
    /// (Client) what we say about ourselves [5.3].
    pub peer_info: String,
    /// (Client) user name and password.
    pub credentials: Login,
    /// (Client) the engine judges the server's certificates before it is told anything: see
    /// [`SessionEvent::Judge`].
    pub judges_peer: bool,
    /// Largest control packet, outer IP and UDP headers included.
    pub control_mtu: usize,
    /// Unacknowledged control packets in flight; at most [`crate::limits::SEND_WINDOW`].
    pub send_window: usize,
}

/// How the data channel works, as negotiated; renegotiated keys keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataParams {
    /// The cipher.
    pub cipher: CipherName,
    /// The digest of a cipher without a tag; not negotiated, both ends configure it.
    pub digest: Digest,
    /// What surrounds each payload inside the encryption.
    pub framing: Framing,
    /// Where key blocks come from.
    pub derivation: Derivation,
    /// Packet format.
    pub format: Format,
    /// The client's number at the server; `None` sends packets without one.
    pub peer: Option<u32>,
    /// Whether renegotiations are wrapped with a key of their own [2.6].
    pub dynamic_tls_crypt: bool,
}

impl DataParams {
    /// What the data channel adds to a packet.
    pub const fn overhead(&self) -> DataOverhead {
        let peer_id = self.peer.is_some();
        let overhead = match self.cipher {
            CipherName::ChaCha20Poly1305 | CipherName::Aes256Gcm | CipherName::Aes128Gcm => {
                DataOverhead::aead(peer_id, matches!(self.format, Format::Epoch))
            }
            #[cfg(feature = "cbc")]
            CipherName::Cbc(_) => DataOverhead::cbc(peer_id, self.digest.size() as u16),
        };
        overhead.framed(self.framing.overhead() as u16)
    }
}

/// The client's wrapped key in the opening [2.5].
struct WrappedKey {
    wkc: Vec<u8>,
    /// The server kept no state and wants it again with message 1.
    resend: bool,
}

/// A session, any role, any state.
pub struct Session {
    config: Arc<SessionConfig>,
    local: SessionId,
    /// `None` at a client until the server has answered.
    remote: Option<SessionId>,
    wrap: Wrap,
    /// Takes over for key ids above 0 when negotiated.
    dynamic_wrap: Option<Wrap>,
    wrapped_key: Option<WrappedKey>,
    primary: Slot,
    retiring: Option<Slot>,
    params: Option<DataParams>,
    keepalive: traffic::Keepalive,
    probe: probe::Probe,
    timers: Timers,
    events: VecDeque<SessionEvent>,
    /// Control messages that wait for an established control channel.
    messages: VecDeque<Vec<u8>>,
    /// Set by a fatal error; the alert is still to be sent.
    failing: Option<SessionFailure>,
    failed: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Session");
        debug.field("local", &self.local).field("remote", &self.remote);
        debug.field("key_id", &self.primary.id).finish_non_exhaustive()
    }
}

impl Session {
    /// A client's session; its reset waits in `poll_transmit`. `wkc` is the wrapped client key when
    /// `wrap` is tls-crypt-v2; the packet id then says that we know early negotiation.
    pub fn client(
        now: Now,
        config: Arc<SessionConfig>,
        mut wrap: Wrap,
        wkc: Option<Vec<u8>>,
        rng: &mut dyn Random,
    ) -> Self {
        let reset = match wkc {
            Some(_) => Opcode::HardResetClientV3,
            None => Opcode::HardResetClientV2,
        };
        if wkc.is_some() {
            wrap.start_packet_id(EARLY_NEGOTIATION_ID);
        }
        let local = random_id(rng);
        let mut session = Self::new(now, config, wrap, local, None, Some(reset), rng);
        session.wrapped_key = wkc.map(|wkc| WrappedKey { wkc, resend: false });
        session
    }

    /// A server's session after the stateless opening [3.3]: the resets are exchanged, ours was
    /// wrapped with packet id 1, and `local` is the cookie the client has returned. Hand the
    /// client's packet in next.
    pub fn server(
        now: Now,
        config: Arc<SessionConfig>,
        mut wrap: Wrap,
        local: SessionId,
        remote: SessionId,
        rng: &mut dyn Random,
    ) -> Self {
        wrap.start_packet_id(2);
        Self::new(now, config, wrap, local, Some(remote), None, rng)
    }

    /// A server's session for a client that cannot do the stateless opening: our reset waits in
    /// `poll_transmit`. Hand the client's reset in next.
    pub fn server_stateful(
        now: Now,
        config: Arc<SessionConfig>,
        wrap: Wrap,
        remote: SessionId,
        rng: &mut dyn Random,
    ) -> Self {
        let reset = Some(Opcode::HardResetServerV2);
        let local = random_id(rng);
        Self::new(now, config, wrap, local, Some(remote), reset, rng)
    }

    fn new(
        now: Now,
        config: Arc<SessionConfig>,
        wrap: Wrap,
        local: SessionId,
        remote: Option<SessionId>,
        reset: Option<Opcode>,
        rng: &mut dyn Random,
    ) -> Self {
        let channel = Channel::new(&config, reset);
        let primary = Slot::new(KeyId::ZERO, channel, slots::lifetime(config.timers.reneg, rng));
        let mut timers = Timers::default();
        timers.set(Timer::Handshake, now.mono + config.timers.handshake);
        let keepalive = traffic::Keepalive::new(now.mono, &config.timers);
        Self {
            config,
            local,
            remote,
            wrap,
            dynamic_wrap: None,
            wrapped_key: None,
            primary,
            retiring: None,
            params: None,
            keepalive,
            probe: probe::Probe::default(),
            timers,
            events: VecDeque::new(),
            messages: VecDeque::new(),
            failing: None,
            failed: false,
        }
    }

    /// Our session id.
    pub fn local_id(&self) -> SessionId {
        self.local
    }

    /// The peer's session id; all zero at a client that has heard nothing yet.
    pub fn remote_id(&self) -> SessionId {
        self.remote.unwrap_or(SessionId([0; 8]))
    }

    /// When the last packet that proved to be the peer's came.
    pub fn last_heard(&self) -> Instant {
        self.keepalive.last_heard
    }

    /// Whether data can be sealed and opened.
    pub fn has_keys(&self) -> bool {
        self.primary.data.is_some() || self.retiring.as_ref().is_some_and(|old| old.data.is_some())
    }

    /// What the data channel adds to a packet; `None` before the first key.
    pub fn overhead(&self) -> Option<DataOverhead> {
        self.params.as_ref().map(DataParams::overhead)
    }

    /// TLS version and cipher suite, for logs; empty before the handshake is done.
    pub fn tls_description(&self) -> String {
        let channel = self.primary.channel.as_ref();
        channel.and_then(Channel::tls).map(tls::Tls::description).unwrap_or_default()
    }

    /// Whether every control message has reached the peer.
    pub fn is_quiet(&self) -> bool {
        let slots = [Some(&self.primary), self.retiring.as_ref()];
        let channels = slots.into_iter().flatten().filter_map(|slot| slot.channel.as_ref());
        self.messages.is_empty() && channels.into_iter().all(Channel::is_quiet)
    }

    /// What has happened, oldest first.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if self.failed || !self.alert_is_out() {
            return None;
        }
        let failure = self.failing.clone()?;
        self.failed = true;
        self.timers.clear_all();
        Some(SessionEvent::Failed(failure))
    }

    /// Whether a timer has run out: a packet that was sealed or opened can have that effect, and no other
    /// on [`poll_timeout`](Self::poll_timeout) than to put it off.
    pub fn is_due(&self, now: Instant) -> bool {
        self.timers.next().is_some_and(|due| due <= now)
    }

    /// When `handle_timeout` or `poll_transmit` has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.failed {
            return None;
        }
        let slots = [Some(&self.primary), self.retiring.as_ref()];
        let channels = slots.into_iter().flatten().filter_map(|slot| slot.channel.as_ref());
        let sends = channels.filter_map(|channel| channel.reliable.poll_timeout());
        sends.chain(self.timers.next()).min()
    }

    /// Queues a control message: it goes out as one TLS record with a NUL behind it [4.1]. During
    /// a renegotiation it waits for the new key.
    pub fn send_message(&mut self, message: &str) -> Result<(), Full> {
        if self.messages.len() >= MAX_CONTROL_QUEUE || self.failing.is_some() {
            return Err(Full);
        }
        let mut bytes = Vec::with_capacity(message.len() + 1);
        bytes.extend_from_slice(message.as_bytes());
        bytes.push(0);
        self.messages.push_back(bytes);
        self.send_waiting();
        Ok(())
    }

    /// The engine has nothing against the certificates of a [`SessionEvent::Judge`]: the key exchange
    /// goes on.
    pub fn accept_peer(&mut self, now: Now, key_id: KeyId, rng: &mut dyn Random) {
        if self.failing.is_some() || self.primary.id != key_id {
            return;
        }
        if let Some(channel) = &mut self.primary.channel {
            channel.exchange.release();
        }
        self.settle(now, rng);
    }

    /// Derives and installs the data keys of the first key.
    pub fn install_keys(&mut self, now: Now, params: DataParams) -> Result<(), SessionError> {
        if self.params.is_some() {
            return Err(SessionError::AlreadyInstalled);
        }
        let keys = self.derive(&params)?;
        if params.dynamic_tls_crypt {
            let tls = self.primary.channel.as_ref().and_then(Channel::tls);
            let exported = tls.and_then(|tls| tls.export(keys::DYNAMIC_TLS_CRYPT_LABEL));
            let exported = Zeroizing::new(exported.ok_or(SessionError::NotReady)?);
            self.dynamic_wrap = Some(self.wrap.dynamic(&exported, self.config.role));
        }
        self.params = Some(params);
        self.put_into_service(keys);
        self.keepalive.restart(now.mono, &mut self.timers);
        self.check_established(now);
        Ok(())
    }

    /// The engine has checked the peer's identity for a renegotiated key: put it into service.
    pub fn approve_key(&mut self, now: Now, key_id: KeyId) {
        let Some(params) = self.params.filter(|_| self.primary.id == key_id) else { return };
        if self.primary.data.is_some() {
            return;
        }
        match self.derive(&params) {
            Ok(keys) => {
                self.put_into_service(keys);
                self.check_established(now);
            }
            // The exchange was complete when the engine was asked.
            Err(error) => self.fail(now, SessionFailure::Tls(error.to_string())),
        }
    }

    /// The engine does not accept the identity behind a renegotiated key: the session ends.
    pub fn reject(&mut self, now: Now) {
        self.fail(now, SessionFailure::Rejected);
    }

    fn put_into_service(&mut self, keys: DataKeys) {
        self.primary.data = Some(keys);
        if let Some(channel) = &mut self.primary.channel {
            channel.exchange.forget();
        }
        self.push_event(SessionEvent::KeysReady(self.primary.id));
    }

    fn derive(&self, params: &DataParams) -> Result<DataKeys, SessionError> {
        let remote = self.remote.ok_or(SessionError::NotReady)?;
        let channel = self.primary.channel.as_ref().filter(|_| self.failing.is_none());
        let channel = channel.ok_or(SessionError::NotReady)?;
        let tls = channel.tls().ok_or(SessionError::NotReady)?;
        let block = channel.exchange.block(params.derivation, tls, self.local, remote);
        let block = block.ok_or(SessionError::NotReady)?;
        let (cipher, digest, format) = (params.cipher, params.digest, params.format);
        DataKeys::with_digest(cipher, digest, &block, self.config.role, format)
            .map_err(|_| SessionError::BadKey)
    }

    fn push_event(&mut self, event: SessionEvent) {
        // Only control messages can come in such numbers; the rest happens once per key.
        if self.events.len() < MAX_CONTROL_QUEUE {
            self.events.push_back(event);
        } else {
            log::warn!("dropped a session event: the peer sends messages faster than we read them");
        }
    }

    /// A fatal error. What waits to be sent, a TLS alert perhaps, still goes out, unless nobody is there
    /// to hear it.
    fn fail(&mut self, now: Now, failure: SessionFailure) {
        if self.failing.is_none() {
            self.messages.clear();
            self.timers.clear_all();
            if failure != SessionFailure::PingTimeout {
                self.timers.set(Timer::Linger, now.mono + output::LINGER);
            }
            self.failing = Some(failure);
        }
    }
}

/// A session id that is not zero, which would mean none.
fn random_id(rng: &mut dyn Random) -> SessionId {
    let mut id = [0; 8];
    rng.fill(&mut id);
    if id == [0; 8] {
        id = [1; 8];
    }
    SessionId(id)
}

#[cfg(test)]
mod tests;
