//! Data packets of the CBC ciphers: the packet id inside the encryption, an HMAC in front [6.3].
//!
//! ```text
//! wire     op|key(1) [peer(3)] | HMAC(d) | IV(16) | ciphertext
//! inside   pid(4) | payload | padding: n bytes of value n, 1..=16, up to a whole block
//! ```
//!
//! The header is not authenticated: its key id only selects the key, and a peer id that was
//! tampered with leads to another client's key, under which the HMAC is wrong. The packet id is
//! encrypted, so a replay is only seen after decryption.

use ring::rand::{SecureRandom, SystemRandom};

use super::{OpenError, SealError, Usage};
use crate::buf::PacketMut;
use crate::config::{AesSize, CipherName, Digest};
use crate::limits::PACKET_ID_TRIGGER;
use crate::session::cbc::{BLOCK, OpenKey, SealKey, Unopened};
use crate::session::cipher::BadKey;
use crate::session::keys::{ReceiveKeys, SendKeys};
use crate::session::replay::DataWindow;

/// Bytes of a packet id.
const PID: usize = 4;

/// The direction from us.
pub(super) struct Sender {
    key: SealKey,
    /// 0 once all ids are used up.
    next: u32,
    random: SystemRandom,
}

impl Sender {
    pub(super) fn new(size: AesSize, digest: Digest, keys: &SendKeys<'_>) -> Result<Self, BadKey> {
        let key = SealKey::new(size, digest, keys)?;
        Ok(Self { key, next: 1, random: SystemRandom::new() })
    }

    /// Seals `packet` behind `header` under a fresh random IV.
    pub(super) fn seal(
        &mut self,
        header: &[u8],
        packet: &mut PacketMut<'_>,
    ) -> Result<(), SealError> {
        let mut iv = [0; BLOCK];
        self.random.fill(&mut iv).map_err(|_| SealError::NoRandomness)?;
        self.seal_with(iv, header, packet)
    }

    fn seal_with(
        &mut self,
        iv: [u8; BLOCK],
        header: &[u8],
        packet: &mut PacketMut<'_>,
    ) -> Result<(), SealError> {
        // Ids never wrap: the receiver would take them for replays [6.6].
        if self.next == 0 {
            return Err(SealError::Exhausted);
        }
        // All room is asked for before the first change.
        let mac = self.key.mac_len();
        let padding = BLOCK - (PID + packet.len()) % BLOCK;
        if packet.tailroom() < padding {
            return Err(SealError::Full);
        }
        let front = packet.push_front(header.len() + mac + BLOCK + PID)?;
        let (to, rest) = front.split_at_mut_checked(header.len()).ok_or(SealError::Full)?;
        to.copy_from_slice(header);
        let (_, inner) = rest.split_at_mut_checked(mac).ok_or(SealError::Full)?;
        let (to, pid) = inner.split_first_chunk_mut().ok_or(SealError::Full)?;
        *to = iv;
        pid.copy_from_slice(&self.next.to_be_bytes());
        // At most a block, which is 16 bytes.
        packet.push_back(padding)?.fill(padding as u8);
        let body = packet.as_mut_slice().get_mut(header.len()..).ok_or(SealError::Full)?;
        self.key.seal(body).ok_or(SealError::Full)?;
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    pub(super) const fn wants_renegotiation(&self) -> bool {
        self.next >= PACKET_ID_TRIGGER || self.next == 0
    }
}

/// The direction to us.
pub(super) struct Receiver {
    key: OpenKey,
    window: DataWindow,
    usage: Usage,
}

impl Receiver {
    pub(super) fn new(
        size: AesSize,
        digest: Digest,
        keys: &ReceiveKeys<'_>,
    ) -> Result<Self, BadKey> {
        let key = OpenKey::new(size, digest, keys)?;
        let usage = Usage::new(CipherName::Cbc(size));
        Ok(Self { key, window: DataWindow::new(), usage })
    }

    /// Opens `packet`, whose header is `header_len` (1 or 4) bytes long.
    pub(super) fn open(
        &mut self,
        header_len: usize,
        packet: &mut PacketMut<'_>,
    ) -> Result<(), OpenError> {
        if self.usage.is_closed() {
            return Err(OpenError::BadAuth);
        }
        let body = packet.as_mut_slice().get_mut(header_len..).ok_or(OpenError::Malformed)?;
        let plain = self.key.open(body).map_err(|reason| match reason {
            Unopened::Malformed => OpenError::Malformed,
            Unopened::BadAuth => {
                self.usage.count_failure();
                OpenError::BadAuth
            }
        })?;
        // From here on the packet is genuine; a peer that pads wrongly is only broken.
        let len = unpadded(plain).ok_or(OpenError::Malformed)?;
        let pid = plain.first_chunk::<PID>().filter(|_| len >= PID).ok_or(OpenError::Malformed)?;
        let id = u64::from(u32::from_be_bytes(*pid));
        self.window.check(id).map_err(|_| OpenError::Replay)?;
        self.window.mark(id);
        let front = header_len + self.key.mac_len() + BLOCK;
        packet.truncate(front + len);
        packet.pull_front(front + PID).map_err(|_| OpenError::Malformed)
    }

    pub(super) const fn wants_renegotiation(&self) -> bool {
        self.usage.is_under_attack()
    }
}

/// How much of decrypted blocks is not padding.
fn unpadded(plain: &[u8]) -> Option<usize> {
    let count = *plain.last()?;
    let (text, padding) = plain.split_at_checked(plain.len().checked_sub(usize::from(count))?)?;
    let right = (1..=BLOCK).contains(&padding.len()) && padding.iter().all(|byte| *byte == count);
    right.then_some(text.len())
}

#[cfg(test)]
impl Sender {
    /// As after `next - 1` packets.
    pub(super) fn skip_to(&mut self, next: u32) {
        self.next = next;
    }
}

#[cfg(test)]
mod tests;
