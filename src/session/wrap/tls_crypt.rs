//! tls-crypt: body authenticated, then encrypted with the tag as IV (like SIV) [2.4].
//!
//! ```text
//! wire   op(1) sid(8) | id(4) net_time(4) | tag(32) | AES-256-CTR(Ke, IV = tag[0..16], body)
//! tag    HMAC-SHA256(Ka, op ‖ sid ‖ id ‖ net_time ‖ body)
//! ```
//!
//! The receiver has to decrypt before it can authenticate; nothing looks at the plaintext until
//! the tag has been compared.

use aes::Aes256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{WrapError, WrapId};
use crate::session::Role;
use crate::session::keys::{Direction, Half, Halves, keyed};

/// Bytes of a tag.
pub(super) const TAG: usize = 32;

/// Keys of one end.
#[derive(Clone)]
pub(super) struct TlsCrypt {
    halves: Halves,
    role: Role,
}

impl TlsCrypt {
    /// Bytes added to the plain packet.
    pub(super) const OVERHEAD: usize = WrapId::LEN + TAG;

    pub(super) const fn new(halves: Halves, role: Role) -> Self {
        Self { halves, role }
    }

    pub(super) const fn halves(&self) -> &Halves {
        &self.halves
    }

    /// Fixed by role, and the other way round than on the data channel [2.1].
    const fn direction(&self) -> Direction {
        match self.role {
            Role::Server => Direction::Normal,
            Role::Client => Direction::Inverse,
        }
    }

    /// Fills in the wrapping. `packet` is everything behind the header: room for id, time and tag,
    /// then the body, which is encrypted.
    pub(super) fn seal(&self, header: &[u8], id: WrapId, packet: &mut [u8]) {
        let Some((id_field, rest)) = packet.split_first_chunk_mut() else { return };
        let Some((tag, body)) = rest.split_first_chunk_mut::<TAG>() else { return };
        *id_field = id.to_bytes();
        let (send, _) = self.halves.split(self.direction());
        let keys = SivKeys::of(send.0);
        *tag = keys.tag(&[header, id_field, body]);
        keys.apply_keystream(tag, body);
    }

    /// Decrypts and checks `packet`, which is everything behind the header; returns the body.
    pub(super) fn open<'p>(
        &self,
        header: &[u8],
        packet: &'p mut [u8],
    ) -> Result<(WrapId, &'p [u8]), WrapError> {
        let (id_field, rest) = packet.split_first_chunk_mut().ok_or(WrapError::Malformed)?;
        let (tag, body) = rest.split_first_chunk_mut::<TAG>().ok_or(WrapError::Malformed)?;
        if body.is_empty() {
            return Err(WrapError::Malformed);
        }
        let (_, receive) = self.halves.split(self.direction());
        let keys = SivKeys::of(receive.0);
        keys.apply_keystream(tag, body);
        if keys.verify(&[header, id_field, body], tag) {
            Ok((WrapId::from_bytes(*id_field), body))
        } else {
            Err(WrapError::BadAuth)
        }
    }
}

/// Ke and Ka: the pair of keys that tls-crypt and the wrapped client keys of tls-crypt-v2 share.
pub(super) struct SivKeys {
    cipher: Zeroizing<[u8; 32]>,
    hmac: Zeroizing<[u8; 32]>,
}

impl SivKeys {
    /// The first 32 bytes of both parts [2.1, 2.5].
    pub(super) fn of(half: Half<'_>) -> Self {
        Self { cipher: half.cipher(), hmac: half.hmac() }
    }

    fn hash(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = keyed::<Sha256>(&*self.hmac);
        parts.iter().for_each(|part| mac.update(part));
        mac
    }

    /// The tag over `parts` in order.
    pub(super) fn tag(&self, parts: &[&[u8]]) -> [u8; TAG] {
        self.hash(parts).finalize().into_bytes().into()
    }

    /// Whether `tag` is the one over `parts`, in constant time.
    pub(super) fn verify(&self, parts: &[&[u8]], tag: &[u8; TAG]) -> bool {
        self.hash(parts).verify_slice(tag).is_ok()
    }

    /// Encrypts or decrypts `data`: AES-256-CTR from the first half of the tag.
    pub(super) fn apply_keystream(&self, tag: &[u8; TAG], data: &mut [u8]) {
        let mut iv = [0; 16];
        for (to, from) in iv.iter_mut().zip(tag) {
            *to = *from;
        }
        Ctr128BE::<Aes256>::new((&*self.cipher).into(), &iv.into()).apply_keystream(data);
    }
}
