//! Epoch data packets: 48-bit counters under keys that follow one another, the tag behind [6.2].
//!
//! ```text
//! op|key(1) peer(3) | epoch(2) counter(6) | ciphertext | tag(16)     AD: the first 12 bytes
//! nonce    (epoch ‖ counter ‖ 00 00 00 00) XOR iv
//!
//! E_1      first 32 bytes of the direction's cipher half
//! E_n+1    Expand(E_n, "datakey upd", 32)
//! K_n      Expand(E_n, "data_key", cipher key length)
//! iv_n     Expand(E_n, "data_iv", 12)
//! ```
//!
//! A sender goes on to the next epoch when its key has done enough, or to tell its peer that the
//! peer's has. A receiver keeps the keys of the previous, the present and four future epochs; the
//! first genuine packet of a future one moves it there, and our own sender follows.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{OpenError, SealError, Usage};
use crate::buf::PacketMut;
use crate::config::CipherName;
use crate::session::cipher::{BadKey, NONCE, OpenKey, SealKey, TAG};
use crate::session::keys::{ReceiveKeys, SendKeys};
use crate::session::replay::DataWindow;
use crate::wire::data::DataHeader;

/// Bytes of epoch and counter.
const ID: usize = 8;
/// Bytes in front of the ciphertext.
const FRONT: usize = DataHeader::MAX_LEN + ID;
/// The last counter of an epoch.
const COUNTER_MAX: u64 = (1 << 48) - 1;
/// Future keys that a receiver holds ready.
const FUTURE: usize = 4;
/// No receiver goes beyond this epoch: its sender has long been told to renegotiate.
const LAST_RECEIVED: u16 = u16::MAX - 5;
/// A sender in this epoch wants a new key generation.
const RENEGOTIATE: u16 = 0xf000;

type Iv = Zeroizing<[u8; NONCE]>;

/// Where a packet stands in its direction's sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PacketId {
    epoch: u16,
    counter: u64,
}

impl PacketId {
    const fn to_bytes(self) -> [u8; ID] {
        ((self.epoch as u64) << 48 | self.counter & COUNTER_MAX).to_be_bytes()
    }

    const fn from_bytes(bytes: [u8; ID]) -> Self {
        let id = u64::from_be_bytes(bytes);
        Self { epoch: (id >> 48) as u16, counter: id & COUNTER_MAX }
    }
}

fn nonce(id: [u8; ID], iv: &Iv) -> [u8; NONCE] {
    let mut nonce = **iv;
    for (byte, with) in nonce.iter_mut().zip(id) {
        *byte ^= with;
    }
    nonce
}

/// OVPN-Expand-Label with an empty context: TLS 1.3's HkdfLabel with another prefix.
///
/// ```text
/// info   L(2) | len(1) | "ovpn " label | 00
/// ```
fn expand_label<const L: usize>(secret: &[u8; 32], label: &[u8]) -> Option<Zeroizing<[u8; L]>> {
    const PREFIX: &[u8] = b"ovpn ";
    let len = u16::try_from(L).ok()?.to_be_bytes();
    let label_len = u8::try_from(PREFIX.len() + label.len()).ok()?;
    let mut out = Zeroizing::new([0; L]);
    Hkdf::<Sha256>::from_prk(secret)
        .ok()?
        .expand_multi_info(&[&len, &[label_len], PREFIX, label, &[0]], &mut *out)
        .ok()?;
    Some(out)
}

/// E_n: what everything of an epoch, and the next one, is made from.
struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// E_1; an all-zero one is refused as a cipher key is [5.5].
    fn first(bytes: Zeroizing<[u8; 32]>) -> Result<Self, BadKey> {
        if *bytes == [0; 32] { Err(BadKey) } else { Ok(Self(bytes)) }
    }

    fn next(&self) -> Option<Self> {
        expand_label(&self.0, b"datakey upd").map(Self)
    }

    fn material(&self, cipher: CipherName) -> Option<Material> {
        let key = match cipher {
            CipherName::ChaCha20Poly1305 | CipherName::Aes256Gcm => {
                expand_label::<32>(&self.0, b"data_key")?
            }
            CipherName::Aes128Gcm => {
                // The length goes into the derivation: this is not the start of a longer key.
                let short = expand_label::<16>(&self.0, b"data_key")?;
                let mut key = Zeroizing::new([0; 32]);
                *key.first_chunk_mut()? = *short;
                key
            }
            // The format is for AEAD ciphers.
            #[cfg(feature = "cbc")]
            CipherName::Cbc(_) => return None,
        };
        Some(Material { key, iv: expand_label(&self.0, b"data_iv")? })
    }
}

/// K_n, in the first bytes of `key`, and iv_n.
struct Material {
    key: Zeroizing<[u8; 32]>,
    iv: Iv,
}

/// The direction from us.
pub(super) struct Sender {
    cipher: CipherName,
    secret: Secret,
    epoch: u16,
    key: SealKey,
    iv: Iv,
    next: u64,
    usage: Usage,
}

impl Sender {
    pub(super) fn new(cipher: CipherName, keys: &SendKeys<'_>) -> Result<Self, BadKey> {
        Self::at(cipher, Secret::first(keys.0.cipher())?, 1).ok_or(BadKey)
    }

    fn at(cipher: CipherName, secret: Secret, epoch: u16) -> Option<Self> {
        let Material { key, iv } = secret.material(cipher)?;
        let key = SealKey::from_bytes(cipher, &key).ok()?;
        Some(Self { cipher, secret, epoch, key, iv, next: 1, usage: Usage::new(cipher) })
    }

    pub(super) const fn epoch(&self) -> u16 {
        self.epoch
    }

    /// Goes on to the next epoch. The last one is never left: ids would repeat.
    fn advance(&mut self) -> Result<(), SealError> {
        let epoch = self.epoch.checked_add(1).ok_or(SealError::Exhausted)?;
        let next = self.secret.next().and_then(|secret| Self::at(self.cipher, secret, epoch));
        *self = next.ok_or(SealError::Exhausted)?;
        Ok(())
    }

    /// Follows the peer, which sends in `epoch` now.
    pub(super) fn catch_up(&mut self, epoch: u16) {
        while self.epoch < epoch && self.advance().is_ok() {}
    }

    /// Seals `packet` behind `header`; `nudge` asks the peer to go on to the next epoch.
    pub(super) fn seal(
        &mut self,
        header: [u8; DataHeader::MAX_LEN],
        nudge: bool,
        packet: &mut PacketMut<'_>,
    ) -> Result<(), SealError> {
        if packet.headroom() < FRONT || packet.tailroom() < TAG {
            return Err(SealError::Full);
        }
        if self.usage.is_over() || self.next > COUNTER_MAX {
            self.advance()?;
        } else if nudge {
            // When there is no next epoch, this key still works and the peer has to live with it.
            let _ = self.advance();
        }
        let plaintext = packet.len();
        let id = PacketId { epoch: self.epoch, counter: self.next }.to_bytes();
        packet.push_front(ID)?.copy_from_slice(&id);
        packet.push_front(header.len())?.copy_from_slice(&header);
        packet.push_back(TAG)?;
        let bytes = packet.as_mut_slice();
        let (front, rest) = bytes.split_first_chunk_mut::<FRONT>().ok_or(SealError::Full)?;
        let (data, tag) = rest.split_last_chunk_mut().ok_or(SealError::Full)?;
        *tag = self.key.seal(&nonce(id, &self.iv), front, data).ok_or(SealError::Full)?;
        self.next += 1;
        self.usage.count(plaintext);
        Ok(())
    }

    pub(super) const fn wants_renegotiation(&self) -> bool {
        self.epoch >= RENEGOTIATE
    }
}

/// The key of one epoch and what has come under it.
struct ReceiveKey {
    epoch: u16,
    key: OpenKey,
    iv: Iv,
    window: DataWindow,
    usage: Usage,
}

impl ReceiveKey {
    fn new(cipher: CipherName, epoch: u16, material: &Material) -> Option<Self> {
        let key = OpenKey::from_bytes(cipher, &material.key).ok()?;
        let (iv, window) = (material.iv.clone(), DataWindow::new());
        Some(Self { epoch, key, iv, window, usage: Usage::new(cipher) })
    }

    /// Opens the packet in place; `packet` still has header and tag afterwards.
    fn open(&mut self, packet: &mut [u8]) -> Result<(), OpenError> {
        let Parts { front, id, data, tag } = Parts::of(packet)?;
        let counter = PacketId::from_bytes(id).counter;
        self.window.check(counter).map_err(|_| OpenError::Replay)?;
        if self.usage.is_closed() {
            return Err(OpenError::BadAuth);
        }
        if !self.key.open(&nonce(id, &self.iv), front, data, tag) {
            self.usage.count_failure();
            return Err(OpenError::BadAuth);
        }
        self.window.mark(counter);
        self.usage.count(data.len());
        Ok(())
    }
}

/// A received packet taken apart.
struct Parts<'p> {
    front: &'p [u8; FRONT],
    id: [u8; ID],
    data: &'p mut [u8],
    tag: &'p [u8; TAG],
}

impl<'p> Parts<'p> {
    fn of(packet: &'p mut [u8]) -> Result<Self, OpenError> {
        let (front, rest) = packet.split_first_chunk_mut().ok_or(OpenError::Malformed)?;
        let (data, tag) = rest.split_last_chunk_mut().ok_or(OpenError::Malformed)?;
        if data.is_empty() {
            return Err(OpenError::Malformed);
        }
        let id = *front.last_chunk().ok_or(OpenError::Malformed)?;
        Ok(Self { front, id, data, tag })
    }
}

/// The direction to us.
pub(super) struct Receiver {
    cipher: CipherName,
    retiring: Option<ReceiveKey>,
    current: ReceiveKey,
    /// The epochs behind the current one, in order. Not expanded yet: they are rarely used.
    future: heapless::Deque<Material, FUTURE>,
    /// E of the last epoch in `future` (of the current one when that is empty).
    last: Secret,
}

impl Receiver {
    pub(super) fn new(cipher: CipherName, keys: &ReceiveKeys<'_>) -> Result<Self, BadKey> {
        Self::at(cipher, Secret::first(keys.0.cipher())?, 1).ok_or(BadKey)
    }

    fn at(cipher: CipherName, secret: Secret, epoch: u16) -> Option<Self> {
        let current = ReceiveKey::new(cipher, epoch, &secret.material(cipher)?)?;
        let future = heapless::Deque::new();
        let mut receiver = Self { cipher, retiring: None, current, future, last: secret };
        receiver.prepare();
        Some(receiver)
    }

    /// Holds as many future keys ready as there may be.
    fn prepare(&mut self) {
        while !self.future.is_full() {
            let ahead = self.future.len() as u16 + 1;
            if self.current.epoch.saturating_add(ahead) > LAST_RECEIVED {
                return;
            }
            let Some(next) = self.last.next() else { return };
            let Some(material) = next.material(self.cipher) else { return };
            if self.future.push_back(material).is_err() {
                return;
            }
            self.last = next;
        }
    }

    /// The epoch the peer is known to send in.
    pub(super) const fn epoch(&self) -> u16 {
        self.current.epoch
    }

    /// Whether the peer's key has done enough, and nobody has told the peer yet: our own sender, in
    /// `sending`, is in the same epoch.
    pub(super) const fn wants_successor(&self, sending: u16) -> bool {
        let usage = &self.current.usage;
        self.current.epoch == sending && (usage.is_over() || usage.is_under_attack())
    }

    /// Opens `packet`, which has a long header.
    pub(super) fn open(&mut self, packet: &mut PacketMut<'_>) -> Result<(), OpenError> {
        let bytes = packet.as_mut_slice();
        let epoch = PacketId::from_bytes(Parts::of(bytes)?.id).epoch;
        match epoch.checked_sub(self.current.epoch) {
            Some(0) => self.current.open(bytes)?,
            Some(ahead) => self.open_future(usize::from(ahead - 1), epoch, bytes)?,
            None => match &mut self.retiring {
                Some(key) if key.epoch == epoch => key.open(bytes)?,
                Some(_) | None => return Err(OpenError::Replay),
            },
        }
        packet.truncate(packet.len() - TAG);
        packet.pull_front(FRONT).map_err(|_| OpenError::Malformed)
    }

    /// Tries the key `index` places ahead of the next one, and moves there when it is right.
    fn open_future(
        &mut self,
        index: usize,
        epoch: u16,
        packet: &mut [u8],
    ) -> Result<(), OpenError> {
        let material = self.future.get(index).ok_or(OpenError::BadAuth)?;
        let mut key = ReceiveKey::new(self.cipher, epoch, material).ok_or(OpenError::BadAuth)?;
        if let Err(error) = key.open(packet) {
            // A stranger's guess counts against the key in use: the future one starts clean.
            self.current.usage.count_failure();
            return Err(error);
        }
        self.retiring = Some(core::mem::replace(&mut self.current, key));
        for _ in 0..=index {
            self.future.pop_front();
        }
        self.prepare();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
