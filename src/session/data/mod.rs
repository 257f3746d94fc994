//! The data channel's packets: ids, nonces, replay protection and how much a key may do \[6\].
//!
//! ```text
//! classic  op(1) [peer(3)] | pid(4) | tag(16) | ciphertext               [6.1]
//! epoch    op(1) peer(3) | epoch(2) counter(6) | ciphertext | tag(16)    [6.2]
//! cbc      op(1) [peer(3)] | HMAC | IV(16) | ciphertext, pid(4) inside   [6.3]
//! ```
//!
//! [`DataKeys`] is one key generation of a session, both directions. Packets are sealed and opened
//! where they are, without allocation. Which generation a packet belongs to is decided by the
//! session from the key id; what is inside the plaintext is told by [`Payload::classify`].

#[cfg(feature = "cbc")]
mod cbc;
mod classic;
mod epoch;
pub(super) mod framing;
mod payload;

use core::fmt;

use crate::buf::{Full, PacketMut};
use crate::config::{CipherName, Digest};
use crate::limits::NO_PEER_ID;
use crate::session::Role;
use crate::session::cipher::BadKey;
use crate::session::keys::KeyBlock;
use crate::wire::control::KeyId;
use crate::wire::data::DataHeader;

pub use payload::{EXIT_NOTIFY, OCC_MAGIC, PING, Payload};

/// How packets are laid out and keys evolve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 32-bit packet ids under one key [6.1, 6.3].
    Classic,
    /// 48-bit counters under keys that follow one another (`aead-epoch`: 2.7, OpenVPN 3.11) [6.2].
    Epoch,
}

/// Why a packet was not sealed. It is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealError {
    /// The key has no packet ids left; our fault for not renegotiating in time.
    Exhausted,
    /// No room around the packet for header and tag; our fault.
    Full,
    /// The operating system gives no random bytes.
    NoRandomness,
}

impl From<Full> for SealError {
    fn from(Full: Full) -> Self {
        Self::Full
    }
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exhausted => "data key used up",
            Self::Full => "no room for header and tag",
            Self::NoRandomness => "no random bytes to be had",
        })
    }
}

impl core::error::Error for SealError {}

/// Why a packet was not opened. Its bytes are worthless afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// Too short, or not the negotiated format.
    Malformed,
    /// The packet id was seen before or is too old.
    Replay,
    /// Not made with our key, or damaged, or too many of those have come.
    BadAuth,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed data packet",
            Self::Replay => "data packet seen before",
            Self::BadAuth => "data packet does not authenticate",
        })
    }
}

impl core::error::Error for OpenError {}

/// One key generation of a session: keys, packet ids, replay windows and usage of both directions.
/// Wiped on drop.
pub struct DataKeys {
    cipher: CipherName,
    state: State,
}

/// Boxed, once per key generation: 1.3 or 2.4 KB on 64 bits, which a session's empty key slots need
/// not set aside, and which wiping keys would lose sight of if it moved about.
enum State {
    Classic(Box<Both<classic::Sender, classic::Receiver>>),
    Epoch(Box<Both<epoch::Sender, epoch::Receiver>>),
    #[cfg(feature = "cbc")]
    Cbc(Box<Both<cbc::Sender, cbc::Receiver>>),
}

struct Both<S, R> {
    send: S,
    receive: R,
}

impl DataKeys {
    /// Sets both directions up for a cipher that authenticates by itself. Fails on an all-zero key
    /// [5.5], and for a cipher that needs a digest.
    pub fn new(
        cipher: CipherName,
        block: &KeyBlock,
        role: Role,
        format: Format,
    ) -> Result<Self, BadKey> {
        let (send, receive) = block.split(role);
        let state = match format {
            Format::Classic => State::Classic(Box::new(Both {
                send: classic::Sender::new(cipher, &send)?,
                receive: classic::Receiver::new(cipher, &receive)?,
            })),
            Format::Epoch => State::Epoch(Box::new(Both {
                send: epoch::Sender::new(cipher, &send)?,
                receive: epoch::Receiver::new(cipher, &receive)?,
            })),
        };
        Ok(Self { cipher, state })
    }

    /// The same for any cipher: one without a tag takes `digest`, and its packets are always
    /// [`Format::Classic`].
    pub fn with_digest(
        cipher: CipherName,
        digest: Digest,
        block: &KeyBlock,
        role: Role,
        format: Format,
    ) -> Result<Self, BadKey> {
        match cipher {
            CipherName::ChaCha20Poly1305 | CipherName::Aes256Gcm | CipherName::Aes128Gcm => {
                let _ = digest;
                Self::new(cipher, block, role, format)
            }
            #[cfg(feature = "cbc")]
            CipherName::Cbc(size) => {
                let (send, receive) = block.split(role);
                let send = cbc::Sender::new(size, digest, &send)?;
                let receive = cbc::Receiver::new(size, digest, &receive)?;
                Ok(Self { cipher, state: State::Cbc(Box::new(Both { send, receive })) })
            }
        }
    }

    /// The cipher these keys are for.
    pub const fn cipher(&self) -> CipherName {
        self.cipher
    }

    /// The format of the packets.
    pub const fn format(&self) -> Format {
        match self.state {
            State::Classic(_) => Format::Classic,
            #[cfg(feature = "cbc")]
            State::Cbc(_) => Format::Classic,
            State::Epoch(_) => Format::Epoch,
        }
    }

    /// Turns the plaintext in `packet` into a datagram, in place. `peer` is the 24-bit peer id;
    /// `None` sends the one-byte header, or "no peer id" in the epoch format, which has no such.
    pub fn seal(
        &mut self,
        key_id: KeyId,
        peer: Option<u32>,
        packet: &mut PacketMut<'_>,
    ) -> Result<(), SealError> {
        match &mut self.state {
            State::Classic(both) => {
                let header = DataHeader { key_id, peer };
                both.send.seal(header.to_bytes().get(..header.len()).unwrap_or_default(), packet)
            }
            State::Epoch(both) => {
                let header = DataHeader { key_id, peer: Some(peer.unwrap_or(NO_PEER_ID)) };
                let nudge = both.receive.wants_successor(both.send.epoch());
                both.send.seal(header.to_bytes(), nudge, packet)
            }
            #[cfg(feature = "cbc")]
            State::Cbc(both) => {
                let header = DataHeader { key_id, peer };
                both.send.seal(header.to_bytes().get(..header.len()).unwrap_or_default(), packet)
            }
        }
    }

    /// Turns the datagram in `packet` into its plaintext, in place: checks the packet id, then
    /// authenticates, then remembers the id. The header's key id has led the caller here; its peer
    /// id is authenticated (by the AEAD ciphers), but whose it is remains to be checked.
    pub fn open(&mut self, packet: &mut PacketMut<'_>) -> Result<(), OpenError> {
        let bytes = packet.as_mut_slice();
        let header = DataHeader::measure(bytes).map_err(|_| OpenError::Malformed)?;
        match &mut self.state {
            State::Classic(both) => {
                let front = both.receive.open(header, bytes)?;
                packet.pull_front(front).map_err(|_| OpenError::Malformed)
            }
            #[cfg(feature = "cbc")]
            State::Cbc(both) => both.receive.open(header, packet),
            State::Epoch(_) if header < DataHeader::MAX_LEN => Err(OpenError::Malformed),
            State::Epoch(both) => {
                both.receive.open(packet)?;
                both.send.catch_up(both.receive.epoch());
                Ok(())
            }
        }
    }

    /// Whether it is time for a new key generation [3.6]: ids run short, or the cipher's usage
    /// limits come near.
    pub fn wants_renegotiation(&self) -> bool {
        match &self.state {
            State::Classic(both) => {
                both.send.wants_renegotiation() || both.receive.wants_renegotiation()
            }
            State::Epoch(both) => both.send.wants_renegotiation(),
            #[cfg(feature = "cbc")]
            State::Cbc(both) => {
                both.send.wants_renegotiation() || both.receive.wants_renegotiation()
            }
        }
    }
}

impl fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKeys")
            .field("cipher", &self.cipher)
            .field("format", &self.format())
            .finish_non_exhaustive()
    }
}

/// What one key has done in one direction, and how much of it is good for the cipher [3.6, 6.2].
#[derive(Debug, Clone, Copy)]
struct Usage {
    cipher: CipherName,
    /// Plaintext blocks of 16 bytes plus packets.
    spent: u64,
    /// Packets that did not authenticate.
    failed: u64,
}

impl Usage {
    /// Blocks and packets after which AES-GCM's confidentiality margin is used up.
    const LIMIT: u64 = (1 << 36) - 1;
    /// Failed decryptions after which the key should be replaced.
    const FAILED: u64 = 1 << 35;
    /// Failed decryptions after which the key opens nothing any more.
    const FAILED_MAX: u64 = 1 << 36;

    const fn new(cipher: CipherName) -> Self {
        Self { cipher, spent: 0, failed: 0 }
    }

    /// Counts one packet of `len` bytes of plaintext.
    #[inline(always)]
    const fn count(&mut self, len: usize) {
        self.spent = self.spent.saturating_add(1 + len.div_ceil(16) as u64);
    }

    /// Counts one packet that did not authenticate.
    const fn count_failure(&mut self) {
        self.failed = self.failed.saturating_add(1);
    }

    /// ChaCha20-Poly1305 and AES-CBC have no limit that packets could reach.
    const fn limit(&self) -> u64 {
        match self.cipher {
            CipherName::ChaCha20Poly1305 => u64::MAX,
            #[cfg(feature = "cbc")]
            CipherName::Cbc(_) => u64::MAX,
            CipherName::Aes256Gcm | CipherName::Aes128Gcm => Self::LIMIT,
        }
    }

    /// Past the limit: no epoch key does more than this.
    const fn is_over(&self) -> bool {
        self.spent > self.limit()
    }

    /// At seven eighths of the limit: a classic key is to be replaced while it still works.
    const fn is_near(&self) -> bool {
        self.spent > self.limit() / 8 * 7
    }

    /// Somebody is trying tags.
    const fn is_under_attack(&self) -> bool {
        self.failed > Self::FAILED
    }

    /// Enough tags have been tried.
    const fn is_closed(&self) -> bool {
        self.failed > Self::FAILED_MAX
    }
}

#[cfg(test)]
mod tests;
