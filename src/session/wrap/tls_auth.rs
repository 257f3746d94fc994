//! tls-auth: an HMAC in front of the body, nothing hidden [2.3].
//!
//! ```text
//! wire     op(1) sid(8) | HMAC(d) | id(4) net_time(4) | body
//! hashed   id(4) net_time(4) | op(1) sid(8) | body
//! ```

use hmac::digest::block_api::EagerHash;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use super::{WrapError, WrapId};
use crate::config::Digest;
use crate::session::keys::{Direction, Half, Halves, keyed};
use crate::wire::control::Header;

/// Keys and digest of one end.
#[derive(Clone)]
pub(super) struct TlsAuth {
    halves: Halves,
    direction: Direction,
    digest: Digest,
}

impl TlsAuth {
    pub(super) const fn new(halves: Halves, direction: Direction, digest: Digest) -> Self {
        Self { halves, direction, digest }
    }

    pub(super) const fn halves(&self) -> &Halves {
        &self.halves
    }

    /// Bytes added to the plain packet.
    pub(super) const fn overhead(&self) -> usize {
        self.digest_len() + WrapId::LEN
    }

    /// Bytes of the HMAC.
    pub(super) const fn digest_len(&self) -> usize {
        self.digest.size()
    }

    /// Fills in the wrapping. `packet` is everything behind the header: room for HMAC, id and time,
    /// then the body.
    pub(super) fn seal(&self, header: &[u8; Header::LEN], id: WrapId, packet: &mut [u8]) {
        let Some((hmac, rest)) = packet.split_at_mut_checked(self.digest_len()) else { return };
        let Some((id_field, body)) = rest.split_first_chunk_mut() else { return };
        *id_field = id.to_bytes();
        let (send, _) = self.halves.split(self.direction);
        let parts: [&[u8]; 3] = [id_field, header, body];
        match self.digest {
            Digest::Sha1 => write::<Sha1, 20>(send.0, parts, hmac),
            Digest::Sha256 => write::<Sha256, 32>(send.0, parts, hmac),
            Digest::Sha384 => write::<Sha384, 48>(send.0, parts, hmac),
            Digest::Sha512 => write::<Sha512, 64>(send.0, parts, hmac),
        }
    }

    /// Checks the HMAC of `packet`, which is everything behind the header, and returns the body.
    pub(super) fn open<'p>(
        &self,
        header: &[u8; Header::LEN],
        packet: &'p [u8],
    ) -> Result<(WrapId, &'p [u8]), WrapError> {
        let (hmac, rest) =
            packet.split_at_checked(self.digest_len()).ok_or(WrapError::Malformed)?;
        let (id_field, body) = rest.split_first_chunk().ok_or(WrapError::Malformed)?;
        let (_, receive) = self.halves.split(self.direction);
        let parts: [&[u8]; 3] = [id_field, header, body];
        let genuine = match self.digest {
            Digest::Sha1 => verify::<Sha1, 20>(receive.0, parts, hmac),
            Digest::Sha256 => verify::<Sha256, 32>(receive.0, parts, hmac),
            Digest::Sha384 => verify::<Sha384, 48>(receive.0, parts, hmac),
            Digest::Sha512 => verify::<Sha512, 64>(receive.0, parts, hmac),
        };
        if genuine { Ok((WrapId::from_bytes(*id_field), body)) } else { Err(WrapError::BadAuth) }
    }
}

/// HMAC over `parts`, keyed with the first `N` bytes, `N` being the digest's size [2.1].
fn hash<D: EagerHash, const N: usize>(key: Half<'_>, parts: [&[u8]; 3]) -> Hmac<D>
where
    Hmac<D>: Mac + KeyInit,
{
    let mut mac = keyed::<D>(&*key.hmac::<N>());
    parts.iter().for_each(|part| mac.update(part));
    mac
}

fn write<D: EagerHash, const N: usize>(key: Half<'_>, parts: [&[u8]; 3], out: &mut [u8])
where
    Hmac<D>: Mac + KeyInit,
{
    let tag = hash::<D, N>(key, parts).finalize().into_bytes();
    for (to, from) in out.iter_mut().zip(&tag) {
        *to = *from;
    }
}

/// Compares in constant time and over the whole length.
fn verify<D: EagerHash, const N: usize>(key: Half<'_>, parts: [&[u8]; 3], tag: &[u8]) -> bool
where
    Hmac<D>: Mac + KeyInit,
{
    hash::<D, N>(key, parts).verify_slice(tag).is_ok()
}
