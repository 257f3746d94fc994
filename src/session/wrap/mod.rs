//! Wrapping of control packets: one key for everybody who may knock at all \[2\].
//!
//! ```text
//! none        op(1) sid(8)                                 | body
//! tls-auth    op(1) sid(8) | HMAC(d) | id(4) net_time(4)   | body
//! tls-crypt   op(1) sid(8) | id(4) net_time(4) | tag(32)   | body, encrypted  [| WKc]
//! ```
//!
//! [`WrapKey`] holds the key and no state: it opens and seals one packet on its own, which is all a
//! server has before it knows whom it talks to. [`Wrap`] is what a session holds: a key, the packet
//! id it sends next, and the window of those it has received.
//!
//! A packet is opened in place; when it is refused, its bytes are worthless afterwards. Which
//! packets carry a trailing wrapped client key, and cutting it off, is the caller's business
//! (`wire::wkc`).

mod tls_auth;
mod tls_crypt;
pub mod tls_crypt_v2;

use core::fmt;

use crate::buf::{Full, PacketMut};
use crate::config::Digest;
use crate::session::Role;
use crate::session::keys::{Direction, Halves};
use crate::session::replay::ControlWindow;
use crate::time::UnixTime;
use crate::wire::control::{Body, ControlError, Header};
use crate::wire::static_key::StaticKey;

use tls_auth::TlsAuth;
use tls_crypt::TlsCrypt;

/// The first packet id of a tls-crypt-v2 client that knows early negotiation [2.5].
pub const EARLY_NEGOTIATION_ID: u32 = 0x0f00_0001;

/// Whether a client whose first packet has this id knows early negotiation, that is, will send its
/// wrapped key again when asked to [2.5].
pub const fn knows_early_negotiation(id: u32) -> bool {
    id & 0x0f00_0000 == 0x0f00_0000
}

/// Why a control packet was refused. Drop it and answer nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrapError {
    /// Too short, not a control packet, or its body contradicts itself.
    Malformed,
    /// Not made with our key: a stranger's, or damaged.
    BadAuth,
    /// Genuine, but its packet id was seen before or is too old.
    Replay,
}

impl fmt::Display for WrapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed control packet",
            Self::BadAuth => "control packet does not authenticate",
            Self::Replay => "control packet seen before",
        })
    }
}

impl core::error::Error for WrapError {}

impl From<ControlError> for WrapError {
    fn from(_: ControlError) -> Self {
        Self::Malformed
    }
}

/// The replay protection field, `id(4) ‖ net_time(4)` [2.2].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrapId {
    /// Counts from 1.
    pub id: u32,
    /// Unix time at which the sender's counter started.
    pub time: u32,
}

impl WrapId {
    const LEN: usize = 8;

    const fn to_bytes(self) -> [u8; Self::LEN] {
        let [a, b, c, d] = self.id.to_be_bytes();
        let [e, f, g, h] = self.time.to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }

    const fn from_bytes([a, b, c, d, e, f, g, h]: [u8; Self::LEN]) -> Self {
        Self { id: u32::from_be_bytes([a, b, c, d]), time: u32::from_be_bytes([e, f, g, h]) }
    }
}

/// A control packet with its wrapping taken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened<'p> {
    /// The part that is never encrypted.
    pub header: Header,
    /// Replay protection; `None` without a wrapping. [`WrapKey::open`] does not judge it.
    pub wrap_id: Option<WrapId>,
    /// What the wrapping protects.
    pub body: Body<'p>,
}

/// The key of a wrapping, without any state; wiped on drop.
#[derive(Clone)]
pub struct WrapKey(Kind);

#[derive(Clone)]
enum Kind {
    None,
    TlsAuth(TlsAuth),
    TlsCrypt(TlsCrypt),
}

impl fmt::Debug for WrapKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::None => "WrapKey(none)",
            Kind::TlsAuth(_) => "WrapKey(tls-auth ..)",
            Kind::TlsCrypt(_) => "WrapKey(tls-crypt ..)",
        })
    }
}

impl WrapKey {
    /// No wrapping.
    pub const fn none() -> Self {
        Self(Kind::None)
    }

    /// tls-auth; `direction` is `key-direction`: `Some(0)` sends with the first half, `Some(1)` (or
    /// any other number) with the second, `None` uses the first half both ways [2.1].
    pub fn tls_auth(key: &StaticKey, direction: Option<u8>, digest: Digest) -> Self {
        let direction = match direction {
            None => Direction::Bidirectional,
            Some(0) => Direction::Normal,
            Some(_) => Direction::Inverse,
        };
        Self(Kind::TlsAuth(TlsAuth::new(Halves::of_static(key), direction, digest)))
    }

    /// tls-crypt, and tls-crypt-v2 with the client's own key Kc.
    pub fn tls_crypt(key: &StaticKey, role: Role) -> Self {
        Self(Kind::TlsCrypt(TlsCrypt::new(Halves::of_static(key), role)))
    }

    /// The wrapping of renegotiations (key ids above 0) when dynamic tls-crypt was negotiated:
    /// tls-crypt under the exported bytes, XORed with this key where there is one [2.6].
    ///
    /// `exported` comes from the TLS session of key 0 with
    /// [`DYNAMIC_TLS_CRYPT_LABEL`](crate::session::keys::DYNAMIC_TLS_CRYPT_LABEL).
    pub fn dynamic(&self, exported: &[u8; 256], role: Role) -> Self {
        let exported = Halves::new(exported);
        let mixed = match &self.0 {
            Kind::None => exported,
            Kind::TlsAuth(auth) => exported.xor(auth.halves()),
            Kind::TlsCrypt(crypt) => exported.xor(crypt.halves()),
        };
        Self(Kind::TlsCrypt(TlsCrypt::new(mixed, role)))
    }

    /// Bytes the wrapping adds to the plain control packet [2.7]; a trailing WKc not counted.
    pub const fn overhead(&self) -> usize {
        match &self.0 {
            Kind::None => 0,
            Kind::TlsAuth(auth) => auth.overhead(),
            Kind::TlsCrypt(_) => TlsCrypt::OVERHEAD,
        }
    }

    /// Appends a whole packet to `out`: header, wrapping, body, `trailer` (a WKc or nothing).
    /// On `Full` nothing is appended. `id` must not repeat under the same key and time.
    pub fn seal(
        &self,
        id: WrapId,
        header: Header,
        body: &Body<'_>,
        trailer: &[u8],
        out: &mut PacketMut<'_>,
    ) -> Result<(), Full> {
        let needed = Header::LEN + self.overhead() + body.buffer_len() + trailer.len();
        if needed > out.tailroom() {
            return Err(Full);
        }
        let begin = out.len();
        let header = header.to_bytes();
        out.extend(&header)?;
        out.push_back(self.overhead())?;
        body.emit(out)?;
        if let Some(packet) = out.as_mut_slice().get_mut(begin + Header::LEN..) {
            match &self.0 {
                Kind::None => {}
                Kind::TlsAuth(auth) => auth.seal(&header, id, packet),
                Kind::TlsCrypt(crypt) => crypt.seal(&header, id, packet),
            }
        }
        out.extend(trailer)
    }

    /// The packet id that `packet` claims to have; `None` without a wrapping or in too short a
    /// packet. Not authenticated.
    fn claimed_id(&self, packet: &[u8]) -> Option<WrapId> {
        let at = match &self.0 {
            Kind::None => return None,
            Kind::TlsAuth(auth) => Header::LEN + auth.digest_len(),
            Kind::TlsCrypt(_) => Header::LEN,
        };
        packet.get(at..)?.first_chunk().copied().map(WrapId::from_bytes)
    }

    /// Takes the wrapping off and checks that our key made it, in place. Nothing is remembered: the
    /// packet may be a replay.
    pub fn open<'p>(&self, packet: &'p mut [u8]) -> Result<Opened<'p>, WrapError> {
        let (header, _) = Header::parse(packet)?;
        let (head, rest) =
            packet.split_first_chunk_mut::<{ Header::LEN }>().ok_or(WrapError::Malformed)?;
        let (wrap_id, body): (_, &'p [u8]) = match &self.0 {
            Kind::None => (None, rest),
            Kind::TlsAuth(auth) => {
                let (id, body) = auth.open(head, rest)?;
                (Some(id), body)
            }
            Kind::TlsCrypt(crypt) => {
                let (id, body) = crypt.open(head, rest)?;
                (Some(id), body)
            }
        };
        Ok(Opened { header, wrap_id, body: Body::parse(header.opcode, body)? })
    }
}

/// One session's wrapping: the key and where both directions' packet ids stand.
///
/// It lives as long as the session, across key ids, until dynamic tls-crypt takes over for the
/// keys after the first [2.2, 2.6].
#[derive(Debug)]
pub struct Wrap {
    key: WrapKey,
    next: u32,
    time: Option<u32>,
    received: ControlWindow,
}

impl From<WrapKey> for Wrap {
    fn from(key: WrapKey) -> Self {
        Self { key, next: 1, time: None, received: ControlWindow::default() }
    }
}

impl Wrap {
    /// No wrapping.
    pub fn none() -> Self {
        WrapKey::none().into()
    }

    /// See [`WrapKey::tls_auth`].
    pub fn tls_auth(key: &StaticKey, direction: Option<u8>, digest: Digest) -> Self {
        WrapKey::tls_auth(key, direction, digest).into()
    }

    /// See [`WrapKey::tls_crypt`].
    pub fn tls_crypt(key: &StaticKey, role: Role) -> Self {
        WrapKey::tls_crypt(key, role).into()
    }

    /// See [`WrapKey::dynamic`]; counters and window are fresh.
    pub fn dynamic(&self, exported: &[u8; 256], role: Role) -> Self {
        self.key.dynamic(exported, role).into()
    }

    /// The key, for sealing and opening without touching the session's state.
    pub const fn key(&self) -> &WrapKey {
        &self.key
    }

    /// Sets the packet id that the next sealed packet gets: [`EARLY_NEGOTIATION_ID`] for a
    /// tls-crypt-v2 client that knows early negotiation, 2 for a server whose reset went out
    /// before there was a session.
    pub const fn start_packet_id(&mut self, next: u32) {
        self.next = next;
    }

    /// Bytes the wrapping adds to the plain control packet [2.7]; a trailing WKc not counted.
    pub const fn overhead(&self) -> usize {
        self.key.overhead()
    }

    /// Appends a whole packet to `out` under the next packet id; see [`WrapKey::seal`].
    pub fn seal(
        &mut self,
        now: UnixTime,
        header: Header,
        body: &Body<'_>,
        trailer: &[u8],
        out: &mut PacketMut<'_>,
    ) -> Result<(), Full> {
        let id = self.next_id(now);
        self.key.seal(id, header, body, trailer, out)?;
        (self.next, self.time) = (id.id.wrapping_add(1), Some(id.time));
        Ok(())
    }

    /// The time is that of the first packet and stays until the counter has run through; then it
    /// has to be a newer one, or the receiver would take everything from there for a replay [2.2].
    fn next_id(&self, now: UnixTime) -> WrapId {
        // The field has 32 bits: it wraps in 2106, and so does every peer's.
        let now = now.0 as u32;
        match (self.next, self.time) {
            (0, None) => WrapId { id: 1, time: now },
            (0, Some(time)) => WrapId { id: 1, time: now.max(time.saturating_add(1)) },
            (id, None) => WrapId { id, time: now },
            (id, Some(time)) => WrapId { id, time },
        }
    }

    /// Takes the wrapping off in place, refuses replays and remembers the packet. What fails the
    /// cheap check of its packet id is not even decrypted; what fails to authenticate leaves no
    /// trace.
    pub fn open<'p>(&mut self, packet: &'p mut [u8]) -> Result<Opened<'p>, WrapError> {
        if let Some(WrapId { id, time }) = self.key.claimed_id(packet) {
            self.received.check(time, id).map_err(|_| WrapError::Replay)?;
        }
        let opened = self.key.open(packet)?;
        if let Some(WrapId { id, time }) = opened.wrap_id {
            self.received.mark(time, id);
        }
        Ok(opened)
    }
}

#[cfg(test)]
mod tests;
