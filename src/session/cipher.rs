//! The AEAD ciphers of the data channel: seal and open in place, tag apart [6.1].
//!
//! Two implementations stand behind one type. ring has assembly for x86, x86_64, ARM and AArch64
//! and is the fastest there, and it is on MIPS, where programs are built for size; everywhere else
//! (RISC-V) its ChaCha20-Poly1305 is portable code, and the `chacha20poly1305` crate is as fast and
//! wipes its keys by itself. AES-GCM is ring's everywhere. The tests hold the two against each other.
//!
//! Nonces, packet ids and the layout of packets are the business of `session::data`.

use core::fmt;
use core::hint::black_box;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::config::CipherName;
use crate::session::keys::{ReceiveKeys, SendKeys};

/// Bytes of a nonce.
pub const NONCE: usize = 12;
/// Bytes of a tag.
pub const TAG: usize = 16;

/// The cipher does not take this key: it is all zero, the mark of a key exchange that went wrong
/// and never a real key [5.5]; or the cipher is not of the kind that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadKey;

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all-zero data channel key")
    }
}

impl core::error::Error for BadKey {}

/// A key that only seals; wiped on drop.
pub struct SealKey(AeadKey);

impl SealKey {
    /// Takes the first key-length bytes of the sending half's cipher part [5.5].
    pub fn new(cipher: CipherName, keys: &SendKeys<'_>) -> Result<Self, BadKey> {
        Self::from_bytes(cipher, &keys.0.cipher())
    }

    /// The same from derived bytes, of which a 128-bit cipher uses the first half.
    pub(super) fn from_bytes(cipher: CipherName, key: &[u8; 32]) -> Result<Self, BadKey> {
        AeadKey::new(cipher, key).map(Self)
    }

    /// Encrypts `data` in place and returns its tag; `None` if it is too long for the cipher
    /// (gigabytes). A nonce must never be used twice.
    pub fn seal(&self, nonce: &[u8; NONCE], aad: &[u8], data: &mut [u8]) -> Option<[u8; TAG]> {
        match &self.0 {
            AeadKey::ChaCha(key) => key.seal(nonce, aad, data),
            AeadKey::AesGcm(key) => key.seal(nonce, aad, data),
        }
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

/// A key that only opens; wiped on drop.
pub struct OpenKey(AeadKey);

impl OpenKey {
    /// Takes the first key-length bytes of the receiving half's cipher part [5.5].
    pub fn new(cipher: CipherName, keys: &ReceiveKeys<'_>) -> Result<Self, BadKey> {
        Self::from_bytes(cipher, &keys.0.cipher())
    }

    /// The same from derived bytes, of which a 128-bit cipher uses the first half.
    pub(super) fn from_bytes(cipher: CipherName, key: &[u8; 32]) -> Result<Self, BadKey> {
        AeadKey::new(cipher, key).map(Self)
    }

    /// Decrypts `data` in place if `tag` is right (compared in constant time); otherwise `false`,
    /// and `data` is worthless.
    #[must_use]
    pub fn open(&self, nonce: &[u8; NONCE], aad: &[u8], data: &mut [u8], tag: &[u8; TAG]) -> bool {
        match &self.0 {
            AeadKey::ChaCha(key) => key.open(nonce, aad, data, tag),
            AeadKey::AesGcm(key) => key.open(nonce, aad, data, tag),
        }
    }
}

impl fmt::Debug for OpenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenKey(..)")
    }
}

/// ring has ChaCha20-Poly1305 in assembly here. On MIPS it has not, but a build for size still compiles
/// ring for speed; the generic code of the other crate would become as small, and slow, as this one
/// (57 700 against 146 000 instructions for a packet of 1400 bytes).
#[cfg(any(
    target_arch = "x86",
    target_arch = "x86_64",
    target_arch = "arm",
    target_arch = "aarch64",
    target_arch = "mips"
))]
type ChaCha = RingKey;
/// ring's ChaCha20-Poly1305 is portable code here.
#[cfg(not(any(
    target_arch = "x86",
    target_arch = "x86_64",
    target_arch = "arm",
    target_arch = "aarch64",
    target_arch = "mips"
)))]
type ChaCha = PortableKey;

/// Either cipher, whichever direction.
enum AeadKey {
    ChaCha(ChaCha),
    AesGcm(RingKey),
}

impl AeadKey {
    fn new(cipher: CipherName, key: &[u8; 32]) -> Result<Self, BadKey> {
        let (half, _) = key.split_first_chunk::<16>().ok_or(BadKey)?;
        match cipher {
            CipherName::ChaCha20Poly1305 => ChaCha::chacha(key).map(Self::ChaCha),
            CipherName::Aes256Gcm => RingKey::new(&aead::AES_256_GCM, key).map(Self::AesGcm),
            CipherName::Aes128Gcm => RingKey::new(&aead::AES_128_GCM, half).map(Self::AesGcm),
            // `session::cbc` has those.
            #[cfg(feature = "cbc")]
            CipherName::Cbc(_) => Err(BadKey),
        }
    }
}

/// In constant time as far as the bytes go: this is a key.
pub(super) fn refuse_zero(key: &[u8]) -> Result<(), BadKey> {
    let any = key.iter().fold(0, |any, byte| any | black_box(*byte));
    if any == 0 { Err(BadKey) } else { Ok(()) }
}

/// A key in ring's hands.
struct RingKey(LessSafeKey);

impl RingKey {
    #[allow(dead_code, reason = "the other implementation is used on this target")]
    fn chacha(key: &[u8; 32]) -> Result<Self, BadKey> {
        Self::new(&aead::CHACHA20_POLY1305, key)
    }

    /// `key` has the length that `algorithm` wants.
    fn new(algorithm: &'static aead::Algorithm, key: &[u8]) -> Result<Self, BadKey> {
        refuse_zero(key)?;
        UnboundKey::new(algorithm, key).map(|key| Self(LessSafeKey::new(key))).map_err(|_| BadKey)
    }

    fn seal(&self, nonce: &[u8; NONCE], aad: &[u8], data: &mut [u8]) -> Option<[u8; TAG]> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), data).ok()?;
        tag.as_ref().try_into().ok()
    }

    fn open(&self, nonce: &[u8; NONCE], aad: &[u8], data: &mut [u8], tag: &[u8; TAG]) -> bool {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = aead::Tag::from(*tag);
        self.0.open_in_place_separate_tag(nonce, Aad::from(aad), tag, data, 0..).is_ok()
    }
}

impl Drop for RingKey {
    /// ring does not wipe its keys: write the expansion of a blank one over them, and let the
    /// compiler believe that somebody reads it.
    fn drop(&mut self) {
        let algorithm = self.0.algorithm();
        let blank = [0; 32];
        if let Some(Ok(key)) =
            blank.get(..algorithm.key_len()).map(|k| UnboundKey::new(algorithm, k))
        {
            self.0 = LessSafeKey::new(key);
            black_box(&mut self.0);
        }
    }
}

/// A ChaCha20-Poly1305 key in the hands of the crate of that name, which wipes it on drop.
#[allow(dead_code, reason = "the other implementation is used on this target")]
struct PortableKey(ChaCha20Poly1305);

#[allow(dead_code, reason = "the other implementation is used on this target")]
impl PortableKey {
    fn chacha(key: &[u8; 32]) -> Result<Self, BadKey> {
        refuse_zero(key)?;
        Ok(Self(ChaCha20Poly1305::new(key.into())))
    }

    fn seal(&self, nonce: &[u8; NONCE], aad: &[u8], data: &mut [u8]) -> Option<[u8; TAG]> {
        self.0.encrypt_inout_detached(nonce.into(), aad, data.into()).ok().map(Into::into)
    }

    fn open(&self, nonce: &[u8; NONCE], aad: &[u8], data: &mut [u8], tag: &[u8; TAG]) -> bool {
        self.0.decrypt_inout_detached(nonce.into(), aad, data.into(), tag.into()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Role;
    use crate::session::keys::KeyBlock;

    const ALL: [CipherName; 3] =
        [CipherName::ChaCha20Poly1305, CipherName::Aes256Gcm, CipherName::Aes128Gcm];

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }

    /// RFC 8439 section 2.8.2, through both implementations.
    #[test]
    fn chacha_known_answer() {
        let key: [u8; 32] = core::array::from_fn(|i| 0x80 + i as u8);
        let nonce: [u8; 12] = hex("070000004041424344454647").try_into().unwrap();
        let aad = hex("50515253c0c1c2c3c4c5c6c7");
        let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
            for the future, sunscreen would be it.";
        let tag = hex("1ae10b594f09e26a7e902ecbd0600691");
        let mut data = plain.to_vec();
        let ring = RingKey::chacha(&key).unwrap();
        assert_eq!(ring.seal(&nonce, &aad, &mut data).unwrap()[..], tag);
        assert_eq!(data[..16], hex("d31a8d34648e60db7b86afbc53ef7ec2"));
        let portable = PortableKey::chacha(&key).unwrap();
        assert!(portable.open(&nonce, &aad, &mut data, &tag.clone().try_into().unwrap()));
        assert_eq!(data, plain);
        assert_eq!(portable.seal(&nonce, &aad, &mut data).unwrap()[..], tag);
        assert!(ring.open(&nonce, &aad, &mut data, &tag.try_into().unwrap()));
        assert_eq!(data, plain);
    }

    /// Both implementations on random input of every length around the block sizes.
    #[test]
    fn the_two_chachas_agree() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut fill = |bytes: &mut [u8]| {
            for byte in bytes {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = state as u8;
            }
        };
        for len in (0..300).chain([511, 512, 513, 1400, 1500, 8999]) {
            let (mut key, mut nonce, mut aad) = ([0; 32], [0; 12], [0; 20]);
            fill(&mut key);
            fill(&mut nonce);
            fill(&mut aad);
            let aad = &aad[..len % 21];
            let mut plain = vec![0; len];
            fill(&mut plain);
            let ring = RingKey::chacha(&key).unwrap();
            let portable = PortableKey::chacha(&key).unwrap();
            let (mut by_ring, mut by_crate) = (plain.clone(), plain.clone());
            let tag = ring.seal(&nonce, aad, &mut by_ring).unwrap();
            assert_eq!(portable.seal(&nonce, aad, &mut by_crate), Some(tag));
            assert_eq!(by_ring, by_crate);
            assert!(portable.open(&nonce, aad, &mut by_ring, &tag) && by_ring == plain);
            assert!(ring.open(&nonce, aad, &mut by_crate, &tag) && by_crate == plain);
            let mut wrong = tag;
            wrong[len % 16] ^= 0x10;
            assert!(!portable.open(&nonce, aad, &mut by_ring, &wrong));
            assert!(!ring.open(&nonce, aad, &mut by_crate, &wrong));
        }
    }

    #[test]
    fn key_lengths_are_the_ciphers_own() {
        // Bytes 16.. of the cipher half differ: AES-128 must not care, the others must.
        let mut other = [1; 256];
        other[16..64].fill(2);
        for cipher in ALL {
            let tag = |bytes: &[u8; 256]| {
                let block = KeyBlock::from_exporter_bytes(bytes);
                let key = SealKey::new(cipher, &block.split(Role::Client).0).unwrap();
                key.seal(&[0; 12], &[], &mut [9; 40]).unwrap()
            };
            assert_eq!(tag(&[1; 256]) == tag(&other), cipher == CipherName::Aes128Gcm);
        }
    }

    #[test]
    fn an_all_zero_key_is_refused() {
        for cipher in ALL {
            let mut bytes = [0; 256];
            bytes[64..].fill(1);
            let block = KeyBlock::from_exporter_bytes(&bytes);
            assert!(SealKey::new(cipher, &block.split(Role::Client).0).is_err());
            assert!(OpenKey::new(cipher, &block.split(Role::Client).1).is_ok());
            assert!(OpenKey::new(cipher, &block.split(Role::Server).1).is_err());
        }
        assert!(PortableKey::chacha(&[0; 32]).is_err());
    }

    #[test]
    fn debug_shows_no_key() {
        let block = KeyBlock::from_exporter_bytes(&[7; 256]);
        let (send, receive) = block.split(Role::Client);
        let seal = SealKey::new(CipherName::Aes256Gcm, &send).unwrap();
        let open = OpenKey::new(CipherName::Aes256Gcm, &receive).unwrap();
        assert_eq!(format!("{seal:?} {open:?}"), "SealKey(..) OpenKey(..)");
    }
}
