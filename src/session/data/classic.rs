//! Classic data packets: one key, 32-bit packet ids, the tag in front [6.1].
//!
//! ```text
//! V2      op|key(1) peer(3) | pid(4) | tag(16) | ciphertext       AD: op|key ‖ peer ‖ pid
//! V1      op|key(1)         | pid(4) | tag(16) | ciphertext       AD: pid
//! nonce   pid(4) ‖ implicit iv(8)
//! ```

use zeroize::Zeroizing;

use super::{OpenError, SealError, Usage};
use crate::buf::PacketMut;
use crate::config::CipherName;
use crate::limits::PACKET_ID_TRIGGER;
use crate::session::cipher::{BadKey, NONCE, OpenKey, SealKey, TAG};
use crate::session::keys::{ReceiveKeys, SendKeys};
use crate::session::replay::DataWindow;
use crate::wire::data::DataHeader;

/// Bytes of a packet id.
const PID: usize = 4;

/// The implicit part of the nonce: the first bytes of the HMAC half [5.5].
type Iv = Zeroizing<[u8; NONCE - PID]>;

#[inline(always)]
fn nonce(pid: [u8; PID], iv: &Iv) -> [u8; NONCE] {
    let [a, b, c, d] = pid;
    let [e, f, g, h, i, j, k, l] = **iv;
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

/// What a packet's tag covers besides the plaintext: with the long header everything in front of
/// the tag, with the short one only the id.
fn associated<'a>(header: &'a [u8], front: &'a [u8], pid: &'a [u8; PID]) -> &'a [u8] {
    if header.len() == DataHeader::MAX_LEN { front } else { pid }
}

/// The direction from us.
pub(super) struct Sender {
    key: SealKey,
    iv: Iv,
    /// 0 once all ids are used up.
    next: u32,
    usage: Usage,
}

impl Sender {
    pub(super) fn new(cipher: CipherName, keys: &SendKeys<'_>) -> Result<Self, BadKey> {
        let key = SealKey::new(cipher, keys)?;
        Ok(Self { key, iv: keys.0.hmac(), next: 1, usage: Usage::new(cipher) })
    }

    /// Seals `packet` behind `header`, which is 1 or 4 bytes long.
    pub(super) fn seal(
        &mut self,
        header: &[u8],
        packet: &mut PacketMut<'_>,
    ) -> Result<(), SealError> {
        // Ids never wrap: the nonce would repeat [6.6].
        if self.next == 0 {
            return Err(SealError::Exhausted);
        }
        let plaintext = packet.len();
        let front = packet.push_front(header.len() + PID + TAG)?;
        let (to, _) = front.split_at_mut_checked(header.len()).ok_or(SealError::Full)?;
        to.copy_from_slice(header);
        let (front, rest) = packet
            .as_mut_slice()
            .split_at_mut_checked(header.len() + PID)
            .ok_or(SealError::Full)?;
        let pid = self.next.to_be_bytes();
        *front.last_chunk_mut().ok_or(SealError::Full)? = pid;
        let (tag, data) = rest.split_first_chunk_mut().ok_or(SealError::Full)?;
        let associated = associated(header, front, &pid);
        *tag = self.key.seal(&nonce(pid, &self.iv), associated, data).ok_or(SealError::Full)?;
        self.next = self.next.wrapping_add(1);
        self.usage.count(plaintext);
        Ok(())
    }

    pub(super) const fn wants_renegotiation(&self) -> bool {
        self.next >= PACKET_ID_TRIGGER || self.next == 0 || self.usage.is_near()
    }
}

/// The direction to us.
pub(super) struct Receiver {
    key: OpenKey,
    iv: Iv,
    window: DataWindow,
    usage: Usage,
}

impl Receiver {
    pub(super) fn new(cipher: CipherName, keys: &ReceiveKeys<'_>) -> Result<Self, BadKey> {
        let key = OpenKey::new(cipher, keys)?;
        let window = DataWindow::new();
        Ok(Self { key, iv: keys.0.hmac(), window, usage: Usage::new(cipher) })
    }

    /// Opens the packet in `bytes`, whose header is `header_len` (1 or 4) bytes long, and returns how many
    /// bytes stand before the plaintext then.
    pub(super) fn open(&mut self, header_len: usize, bytes: &mut [u8]) -> Result<usize, OpenError> {
        let (front, rest) =
            bytes.split_at_mut_checked(header_len + PID).ok_or(OpenError::Malformed)?;
        let (header, pid) = front.split_last_chunk().ok_or(OpenError::Malformed)?;
        let (tag, data) = rest.split_first_chunk_mut().ok_or(OpenError::Malformed)?;
        if data.is_empty() {
            return Err(OpenError::Malformed);
        }
        let id = u64::from(u32::from_be_bytes(*pid));
        self.window.check(id).map_err(|_| OpenError::Replay)?;
        if self.usage.is_closed() {
            return Err(OpenError::BadAuth);
        }
        let associated = associated(header, front, pid);
        if !self.key.open(&nonce(*pid, &self.iv), associated, data, tag) {
            self.usage.count_failure();
            return Err(OpenError::BadAuth);
        }
        self.window.mark(id);
        self.usage.count(data.len());
        Ok(header_len + PID + TAG)
    }

    pub(super) const fn wants_renegotiation(&self) -> bool {
        self.usage.is_near() || self.usage.is_under_attack()
    }
}

#[cfg(test)]
impl Sender {
    /// As after `next - 1` packets that have cost `spent`.
    pub(super) fn skip_to(&mut self, next: u32, spent: u64) {
        (self.next, self.usage.spent) = (next, spent);
    }
}

#[cfg(test)]
impl Receiver {
    /// As after `failed` forgeries.
    pub(super) fn skip_to(&mut self, failed: u64) {
        self.usage.failed = failed;
    }
}
