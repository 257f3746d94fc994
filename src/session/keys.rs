//! Key material: how a session's 256 bytes come about and which part belongs to which direction
//! [2.1, 5.4, 5.5].
//!
//! ```text
//!   0         64        128       192       256
//!   | cipher  |  hmac   | cipher  |  hmac   |
//!   '---- keys[0] ------'---- keys[1] ------'
//! ```
//!
//! Which half one end sends with differs: on the data channel the *client* sends with `keys[0]`
//! [5.5], under tls-crypt the *server* does [2.1]. Both rules live here and nowhere else; what
//! leaves this file is [`SendKeys`] and [`ReceiveKeys`], and no cipher takes one for the other:
//!
//! ```
//! use sixgate::config::CipherName;
//! use sixgate::session::{Role, cipher::{OpenKey, SealKey}, keys::KeyBlock};
//! let block = KeyBlock::from_exporter_bytes(&[7; 256]);
//! let (send, receive) = block.split(Role::Client);
//! SealKey::new(CipherName::Aes256Gcm, &send).unwrap();
//! OpenKey::new(CipherName::Aes256Gcm, &receive).unwrap();
//! ```
//! ```compile_fail
//! # use sixgate::config::CipherName;
//! # use sixgate::session::{Role, cipher::{OpenKey, SealKey}, keys::KeyBlock};
//! # let block = KeyBlock::from_exporter_bytes(&[7; 256]);
//! # let (send, receive) = block.split(Role::Client);
//! SealKey::new(CipherName::Aes256Gcm, &receive).unwrap();
//! ```
//! ```compile_fail
//! # use sixgate::config::CipherName;
//! # use sixgate::session::{Role, cipher::{OpenKey, SealKey}, keys::KeyBlock};
//! # let block = KeyBlock::from_exporter_bytes(&[7; 256]);
//! # let (send, receive) = block.split(Role::Client);
//! OpenKey::new(CipherName::Aes256Gcm, &send).unwrap();
//! ```
//!
//! The exporter itself is TLS's business (`session::tls`); the epoch keys made from a block are in
//! `session::epoch`.

use core::fmt;

use hmac::digest::block_api::EagerHash;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::session::Role;
use crate::wire::control::SessionId;
use crate::wire::static_key::StaticKey;

/// Label of the TLS exporter for data channel keys, used without a context [5.4].
pub const DATA_KEYS_LABEL: &[u8] = b"EXPORTER-OpenVPN-datakeys";
/// Label of the TLS exporter for dynamic tls-crypt, used without a context [2.6].
pub const DYNAMIC_TLS_CRYPT_LABEL: &[u8] = b"EXPORTER-OpenVPN-dynamic-tls-crypt";

/// How the data channel's key block is derived [5.4].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Derivation {
    /// The TLS 1.0 pseudo-random function over the randoms of key method 2: every version knows it.
    Prf,
    /// The TLS exporter (`tls-ekm`): 2.6 and newer.
    Exporter,
}

/// What both ends put into the TLS 1.0 derivation [5.1, 5.4].
#[derive(Clone, Copy)]
pub struct PrfInput<'a> {
    /// The client's pre-master secret.
    pub pre_master: &'a [u8; 48],
    /// The client's first and second random.
    pub client: (&'a [u8; 32], &'a [u8; 32]),
    /// The server's first and second random.
    pub server: (&'a [u8; 32], &'a [u8; 32]),
    /// The client's session id.
    pub client_session: SessionId,
    /// The server's session id.
    pub server_session: SessionId,
}

impl fmt::Debug for PrfInput<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrfInput(..)")
    }
}

/// The 256 bytes of one key generation of the data channel; wiped on drop.
pub struct KeyBlock(Halves);

impl KeyBlock {
    /// Derives the block as every OpenVPN since 2.0 can [5.4 (a)].
    pub fn from_prf(input: &PrfInput<'_>) -> Self {
        let mut master = Zeroizing::new([0; 48]);
        prf(
            input.pre_master,
            &[b"OpenVPN master secret", input.client.0, input.server.0],
            &mut *master,
        );
        let mut block = Zeroizing::new([0; 256]);
        prf(
            &*master,
            &[
                b"OpenVPN key expansion",
                input.client.1,
                input.server.1,
                &input.client_session.0,
                &input.server_session.0,
            ],
            &mut *block,
        );
        Self(Halves::new(&block))
    }

    /// Takes the block from the TLS exporter with [`DATA_KEYS_LABEL`] [5.4 (b)].
    pub fn from_exporter_bytes(bytes: &[u8; 256]) -> Self {
        Self(Halves::new(bytes))
    }

    /// The parts this end sends and receives with: client to server uses `keys[0]` [5.5].
    pub fn split(&self, role: Role) -> (SendKeys<'_>, ReceiveKeys<'_>) {
        self.0.split(match role {
            Role::Client => Direction::Normal,
            Role::Server => Direction::Inverse,
        })
    }
}

impl fmt::Debug for KeyBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyBlock(..)")
    }
}

/// Which half of a two-way key an end sends with [2.1].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// `keys[0]` both ways (tls-auth without `key-direction`).
    Bidirectional,
    /// Sends with `keys[0]`, receives with `keys[1]` (`key-direction 0`).
    Normal,
    /// Sends with `keys[1]`, receives with `keys[0]` (`key-direction 1`).
    Inverse,
}

/// Any 256-byte two-way key: `[half][cipher or hmac]`; wiped on drop.
#[derive(Clone, ZeroizeOnDrop)]
pub(super) struct Halves([[[u8; 64]; 2]; 2]);

impl Halves {
    /// Takes the 256 bytes apart.
    pub(super) fn new(bytes: &[u8; 256]) -> Self {
        let mut halves = [[[0; 64]; 2]; 2];
        halves.as_flattened_mut().as_flattened_mut().copy_from_slice(bytes);
        let taken = Self(halves);
        halves.zeroize();
        taken
    }

    /// The same for a key file.
    pub(super) fn of_static(key: &StaticKey) -> Self {
        Self::new(&key.0)
    }

    /// This key with every byte XORed with `other`'s [2.6].
    pub(super) fn xor(mut self, other: &Self) -> Self {
        let bytes = self.0.as_flattened_mut().as_flattened_mut();
        for (byte, with) in bytes.iter_mut().zip(other.0.as_flattened().as_flattened()) {
            *byte ^= with;
        }
        self
    }

    /// Deals the halves out.
    pub(super) fn split(&self, direction: Direction) -> (SendKeys<'_>, ReceiveKeys<'_>) {
        let [first, second] = &self.0;
        let (send, receive) = match direction {
            Direction::Bidirectional => (first, first),
            Direction::Normal => (first, second),
            Direction::Inverse => (second, first),
        };
        (SendKeys(Half::of(send)), ReceiveKeys(Half::of(receive)))
    }
}

/// Cipher and HMAC key of one direction, whichever it is.
#[derive(Clone, Copy)]
pub(super) struct Half<'a> {
    cipher: &'a [u8; 64],
    hmac: &'a [u8; 64],
}

impl<'a> Half<'a> {
    pub(super) const fn of(half: &'a [[u8; 64]; 2]) -> Self {
        let [cipher, hmac] = half;
        Self { cipher, hmac }
    }

    /// The first `N` bytes of the cipher part.
    pub(super) fn cipher<const N: usize>(&self) -> Zeroizing<[u8; N]> {
        head(self.cipher)
    }

    /// The first `N` bytes of the HMAC part.
    pub(super) fn hmac<const N: usize>(&self) -> Zeroizing<[u8; N]> {
        head(self.hmac)
    }
}

/// A copy of the first `N` bytes.
fn head<const N: usize>(part: &[u8; 64]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 64) }
    let mut out = Zeroizing::new([0; N]);
    for (to, from) in out.iter_mut().zip(part) {
        *to = *from;
    }
    out
}

/// The half of a key that this end seals with.
pub struct SendKeys<'a>(pub(super) Half<'a>);

/// The half of a key that this end opens with.
pub struct ReceiveKeys<'a>(pub(super) Half<'a>);

impl fmt::Debug for SendKeys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendKeys(..)")
    }
}

impl fmt::Debug for ReceiveKeys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReceiveKeys(..)")
    }
}

/// The PRF of TLS 1.0 and 1.1 (RFC 2246 section 5), whatever TLS version carried the randoms:
/// `P_MD5(first half of the secret, seed) XOR P_SHA1(second half, seed)`. An odd secret's middle
/// byte belongs to both halves. `seed` starts with the label.
fn prf(secret: &[u8], seed: &[&[u8]], out: &mut [u8]) {
    let half = secret.len().div_ceil(2);
    let first = secret.get(..half).unwrap_or_default();
    let second = secret.get(secret.len() - half..).unwrap_or_default();
    out.fill(0);
    xor_p_hash::<Md5>(first, seed, out);
    xor_p_hash::<Sha1>(second, seed, out);
}

/// XORs `P_hash(secret, seed)` onto `out`: `A(1) = HMAC(seed)`, `A(i+1) = HMAC(A(i))`, and the
/// output is `HMAC(A(1) ‖ seed) ‖ HMAC(A(2) ‖ seed) ‖ …`.
fn xor_p_hash<D: EagerHash>(secret: &[u8], seed: &[&[u8]], out: &mut [u8])
where
    Hmac<D>: Mac + KeyInit + Clone,
{
    let keyed = keyed::<D>(secret);
    let mut first = keyed.clone();
    seed.iter().for_each(|part| first.update(part));
    let mut a = first.finalize().into_bytes();
    for chunk in out.chunks_mut(a.len()) {
        let mut mac = keyed.clone();
        mac.update(&a);
        seed.iter().for_each(|part| mac.update(part));
        let mut block = mac.finalize().into_bytes();
        for (byte, with) in chunk.iter_mut().zip(&block) {
            *byte ^= with;
        }
        block.as_mut_slice().zeroize();
        let mut next = keyed.clone();
        next.update(&a);
        a = next.finalize().into_bytes();
    }
    a.as_mut_slice().zeroize();
}

/// An HMAC under `key`, which must not be longer than the digest's block (64 bytes and more).
///
/// HMAC pads a short key with zeros; doing that here makes the constructor one that cannot fail.
pub(super) fn keyed<D: EagerHash>(key: &[u8]) -> Hmac<D>
where
    Hmac<D>: Mac + KeyInit,
{
    let mut padded = hmac::digest::Key::<Hmac<D>>::default();
    debug_assert!(key.len() <= padded.len(), "HMAC key longer than a block");
    for (to, from) in padded.iter_mut().zip(key) {
        *to = *from;
    }
    let keyed = <Hmac<D> as KeyInit>::new(&padded);
    padded.as_mut_slice().zeroize();
    keyed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }

    const LOREM: &[u8] = b"Lorem ipsum dolor sit amet, consectetur adipisici elit, sed eiusmod \
        tempor incidunt ut labore et dolore magna aliqua.";
    const QUIS: &[u8] = b"Quis aute iure reprehenderit in voluptate velit esse cillum dolore";

    /// [13.2], from OpenVPN's `test_crypto.c`; an odd secret, so that the halves overlap.
    #[test]
    fn prf_known_answer() {
        assert_eq!((LOREM.len(), QUIS.len()), (117, 66));
        let expected = hex("d98c8518c85e946927916acfc2d592fbb1567e4b4b1459e6a904ac2ddab72d67");
        let mut out = [0x55; 32];
        prf(LOREM, &[QUIS], &mut out);
        assert_eq!(out, *expected);
        // Label and seed are one string wherever they are cut, and a longer output only continues.
        let mut longer = [0; 256];
        prf(LOREM, &[&QUIS[..21], &[], &QUIS[21..]], &mut longer);
        assert_eq!(longer[..32], expected);
    }

    /// [13.2], from OpenVPN's `test_crypto.c`.
    #[test]
    fn hmac_sha1_known_answer() {
        let mut key = [0; 20];
        key[0] = 0x0b;
        let mut mac = keyed::<Sha1>(&key);
        mac.update(LOREM);
        mac.update(LOREM);
        let expected = hex("58ea5af04294e917ed84b9f0833023ae8ba77eb8");
        assert_eq!(mac.finalize().into_bytes()[..], expected);
    }

    fn prf_block() -> KeyBlock {
        KeyBlock::from_prf(&PrfInput {
            pre_master: &[1; 48],
            client: (&[2; 32], &[3; 32]),
            server: (&[4; 32], &[5; 32]),
            client_session: SessionId([6; 8]),
            server_session: SessionId([7; 8]),
        })
    }

    /// Made with Python's `hmac` and `hashlib` from the formulas of section 5.4 (a).
    #[test]
    fn key_block_by_prf() {
        let block = prf_block();
        let bytes = block.0.0.as_flattened().as_flattened();
        assert_eq!(
            bytes[..32],
            hex("df52f010932d0764260f7117f367cf5db8be673c44d375c93cf4f84586955473")
        );
        assert_eq!(
            bytes[224..],
            hex("58ea829cb95ced60cb012151cc311c49a65f1dde5828e807caa311a2f031ad3c")
        );
    }

    /// [5.5] for the data channel, [2.1] for the wraps.
    #[test]
    fn halves_go_the_right_way() {
        let bytes: [u8; 256] = core::array::from_fn(|i| i as u8);
        let block = KeyBlock::from_exporter_bytes(&bytes);
        let (send, receive) = block.split(Role::Client);
        assert_eq!((*send.0.cipher::<2>(), *send.0.hmac::<2>()), ([0, 1], [64, 65]));
        assert_eq!((*receive.0.cipher::<2>(), *receive.0.hmac::<2>()), ([128, 129], [192, 193]));
        let (send, receive) = block.split(Role::Server);
        assert_eq!((send.0.cipher::<1>()[0], receive.0.cipher::<1>()[0]), (128, 0));
        for (direction, send_at, receive_at) in [
            (Direction::Bidirectional, 0, 0),
            (Direction::Normal, 0, 128),
            (Direction::Inverse, 128, 0),
        ] {
            let (send, receive) = block.0.split(direction);
            assert_eq!(*send.0.cipher::<64>(), bytes[send_at..send_at + 64]);
            assert_eq!(*receive.0.hmac::<64>(), bytes[receive_at + 64..receive_at + 128]);
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let block = KeyBlock::from_exporter_bytes(&[0xa7; 256]);
        let text = format!("{block:?} {:?}", block.split(Role::Client));
        assert_eq!(text, "KeyBlock(..) (SendKeys(..), ReceiveKeys(..))");
    }
}
