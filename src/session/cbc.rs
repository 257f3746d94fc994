//! AES-CBC with HMAC, the data channel's ciphers before AEAD: encrypt in place, then sign [6.3].
//!
//! ```text
//! HMAC(d) | IV(16) | ciphertext, whole blocks       the HMAC covers IV and ciphertext
//! ```
//!
//! The HMAC is checked, in constant time and over its whole length, before anything is decrypted:
//! padding is looked at only in packets that the peer has made. What is inside the blocks is the
//! business of `session::data::cbc`.

use core::fmt;

use aes::{Aes128Dec, Aes128Enc, Aes192Dec, Aes192Enc, Aes256Dec, Aes256Enc, Block};
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, SetIvState};
use cbc::{Decryptor, Encryptor};
use hmac::{Hmac, Mac as _};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use crate::config::{AesSize, Digest};
use crate::session::cipher::{BadKey, refuse_zero};
use crate::session::keys::{Half, ReceiveKeys, SendKeys, keyed};

/// Bytes of a block, and of an IV.
pub(super) const BLOCK: usize = 16;

/// The IV of the moment between two packets.
const BLANK: [u8; BLOCK] = [0; BLOCK];

/// A key that only seals; wiped on drop.
pub(super) struct SealKey {
    cipher: Encrypt,
    mac: HmacKey,
}

enum Encrypt {
    Aes128(Encryptor<Aes128Enc>),
    Aes192(Encryptor<Aes192Enc>),
    Aes256(Encryptor<Aes256Enc>),
}

impl SealKey {
    /// Takes the first key-length bytes of the cipher part and the first digest-length bytes of
    /// the HMAC part of the sending half [5.5].
    pub(super) fn new(
        size: AesSize,
        digest: Digest,
        SendKeys(half): &SendKeys<'_>,
    ) -> Result<Self, BadKey> {
        refuse_zero(&half.cipher::<16>()[..])?;
        let iv = &BLANK.into();
        let cipher = match size {
            AesSize::Aes128 => Encrypt::Aes128(KeyIvInit::new((&*half.cipher::<16>()).into(), iv)),
            AesSize::Aes192 => Encrypt::Aes192(KeyIvInit::new((&*half.cipher::<24>()).into(), iv)),
            AesSize::Aes256 => Encrypt::Aes256(KeyIvInit::new((&*half.cipher::<32>()).into(), iv)),
        };
        Ok(Self { cipher, mac: HmacKey::new(digest, *half) })
    }

    /// Bytes of the HMAC.
    pub(super) const fn mac_len(&self) -> usize {
        self.mac.len()
    }

    /// Encrypts and signs `packet`: room for the HMAC, a fresh unpredictable IV, then plaintext of
    /// whole blocks. `None` for any other length.
    pub(super) fn seal(&mut self, packet: &mut [u8]) -> Option<()> {
        let (mac, signed) = packet.split_at_mut_checked(self.mac.len())?;
        let (iv, text) = signed.split_first_chunk_mut::<BLOCK>()?;
        let blocks = blocks(text)?;
        let iv = &Block::from(*iv);
        match &mut self.cipher {
            Encrypt::Aes128(cipher) => encrypt(cipher, iv, blocks),
            Encrypt::Aes192(cipher) => encrypt(cipher, iv, blocks),
            Encrypt::Aes256(cipher) => encrypt(cipher, iv, blocks),
        }
        self.mac.sign(signed, mac);
        Some(())
    }
}

/// A key that only opens; wiped on drop.
pub(super) struct OpenKey {
    cipher: Decrypt,
    mac: HmacKey,
}

enum Decrypt {
    Aes128(Decryptor<Aes128Dec>),
    Aes192(Decryptor<Aes192Dec>),
    Aes256(Decryptor<Aes256Dec>),
}

/// Why nothing was decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unopened {
    /// Not whole blocks, or none.
    Malformed,
    /// The HMAC is wrong.
    BadAuth,
}

impl OpenKey {
    /// As [`SealKey::new`], from the receiving half.
    pub(super) fn new(
        size: AesSize,
        digest: Digest,
        ReceiveKeys(half): &ReceiveKeys<'_>,
    ) -> Result<Self, BadKey> {
        refuse_zero(&half.cipher::<16>()[..])?;
        let iv = &BLANK.into();
        let cipher = match size {
            AesSize::Aes128 => Decrypt::Aes128(KeyIvInit::new((&*half.cipher::<16>()).into(), iv)),
            AesSize::Aes192 => Decrypt::Aes192(KeyIvInit::new((&*half.cipher::<24>()).into(), iv)),
            AesSize::Aes256 => Decrypt::Aes256(KeyIvInit::new((&*half.cipher::<32>()).into(), iv)),
        };
        Ok(Self { cipher, mac: HmacKey::new(digest, *half) })
    }

    /// Bytes of the HMAC.
    pub(super) const fn mac_len(&self) -> usize {
        self.mac.len()
    }

    /// Checks and decrypts what [`SealKey::seal`] made; returns the plaintext blocks.
    pub(super) fn open<'p>(&mut self, packet: &'p mut [u8]) -> Result<&'p mut [u8], Unopened> {
        let (mac, signed) =
            packet.split_at_mut_checked(self.mac.len()).ok_or(Unopened::Malformed)?;
        let genuine = self.mac.verify(signed, mac);
        let (iv, text) = signed.split_first_chunk_mut::<BLOCK>().ok_or(Unopened::Malformed)?;
        let iv = &Block::from(*iv);
        let whole = blocks(text).ok_or(Unopened::Malformed)?;
        if !genuine {
            return Err(Unopened::BadAuth);
        }
        match &mut self.cipher {
            Decrypt::Aes128(cipher) => decrypt(cipher, iv, whole),
            Decrypt::Aes192(cipher) => decrypt(cipher, iv, whole),
            Decrypt::Aes256(cipher) => decrypt(cipher, iv, whole),
        }
        Ok(text)
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

impl fmt::Debug for OpenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenKey(..)")
    }
}

/// At least one block, and nothing left over.
fn blocks(text: &mut [u8]) -> Option<&mut [Block]> {
    let (blocks, rest) = Block::slice_as_chunks_mut(text);
    (rest.is_empty() && !blocks.is_empty()).then_some(blocks)
}

fn encrypt<C>(cipher: &mut Encryptor<C>, iv: &Block, blocks: &mut [Block])
where
    C: cbc::cipher::BlockCipherEncrypt<BlockSize = cbc::cipher::consts::U16>,
{
    cipher.set_iv(iv);
    cipher.encrypt_blocks(blocks);
}

fn decrypt<C>(cipher: &mut Decryptor<C>, iv: &Block, blocks: &mut [Block])
where
    C: cbc::cipher::BlockCipherDecrypt<BlockSize = cbc::cipher::consts::U16>,
{
    cipher.set_iv(iv);
    cipher.decrypt_blocks(blocks);
}

/// The HMAC key of one direction, ready for use; wiped on drop.
enum HmacKey {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl HmacKey {
    fn new(digest: Digest, half: Half<'_>) -> Self {
        match digest {
            Digest::Sha1 => Self::Sha1(keyed(&*half.hmac::<20>())),
            Digest::Sha256 => Self::Sha256(keyed(&*half.hmac::<32>())),
            Digest::Sha384 => Self::Sha384(keyed(&*half.hmac::<48>())),
            Digest::Sha512 => Self::Sha512(keyed(&*half.hmac::<64>())),
        }
    }

    const fn len(&self) -> usize {
        match self {
            Self::Sha1(_) => Digest::Sha1.size(),
            Self::Sha256(_) => Digest::Sha256.size(),
            Self::Sha384(_) => Digest::Sha384.size(),
            Self::Sha512(_) => Digest::Sha512.size(),
        }
    }

    /// Writes the HMAC of `text` to `out`, which has its length.
    fn sign(&self, text: &[u8], out: &mut [u8]) {
        fn write(tag: &[u8], out: &mut [u8]) {
            out.iter_mut().zip(tag).for_each(|(to, from)| *to = *from);
        }
        match self {
            Self::Sha1(key) => write(&key.clone().chain_update(text).finalize().into_bytes(), out),
            Self::Sha256(key) => {
                write(&key.clone().chain_update(text).finalize().into_bytes(), out)
            }
            Self::Sha384(key) => {
                write(&key.clone().chain_update(text).finalize().into_bytes(), out)
            }
            Self::Sha512(key) => {
                write(&key.clone().chain_update(text).finalize().into_bytes(), out)
            }
        }
    }

    /// Compares in constant time and over the whole length.
    fn verify(&self, text: &[u8], tag: &[u8]) -> bool {
        match self {
            Self::Sha1(key) => key.clone().chain_update(text).verify_slice(tag),
            Self::Sha256(key) => key.clone().chain_update(text).verify_slice(tag),
            Self::Sha384(key) => key.clone().chain_update(text).verify_slice(tag),
            Self::Sha512(key) => key.clone().chain_update(text).verify_slice(tag),
        }
        .is_ok()
    }
}
