//! tls-crypt-v2: a key of its own for every client, which the client brings along wrapped [2.5].
//!
//! ```text
//! WKc   T(32) | AES-256-CTR(Ke, IV = T[0..16], Kc(256) ‖ metadata) | len(2)
//! T     HMAC-SHA256(Ka, len ‖ Kc ‖ metadata)        len: all of WKc, itself included
//! ```
//!
//! The server keeps no client keys, only the one that wraps them. Once Kc is out, the session is
//! ordinary tls-crypt under Kc. Finding WKc at the end of a datagram is `wire::wkc`'s business.

use core::fmt;

use zeroize::Zeroizing;

use super::tls_crypt::{SivKeys, TAG};
use crate::limits::MAX_WKC;
use crate::session::keys::Half;
use crate::wire::static_key::{StaticKey, V2ServerKey};
use crate::wire::wkc::{self, KEY_LEN, LEN_LEN, MAX_METADATA, MIN_WKC, WkcError};

/// What a wrapped client key carries besides the key, to be read by
/// [`Metadata::parse`](wkc::Metadata::parse).
pub type MetadataBytes = heapless::Vec<u8, MAX_METADATA>;

/// Why a wrapped client key was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientKeyError {
    /// Its lengths do not add up.
    Malformed(WkcError),
    /// This server's key did not wrap it.
    BadAuth,
}

impl From<WkcError> for ClientKeyError {
    fn from(error: WkcError) -> Self {
        Self::Malformed(error)
    }
}

impl fmt::Display for ClientKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => error.fmt(f),
            Self::BadAuth => f.write_str("wrapped client key was not wrapped by this server"),
        }
    }
}

impl core::error::Error for ClientKeyError {}

/// The metadata is longer than [`MAX_METADATA`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataTooLong;

impl fmt::Display for MetadataTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client key metadata is longer than {MAX_METADATA} bytes")
    }
}

impl core::error::Error for MetadataTooLong {}

impl V2ServerKey {
    fn siv_keys(&self) -> SivKeys {
        let mut half = Zeroizing::new([[0; 64]; 2]);
        half.as_flattened_mut().copy_from_slice(&self.0);
        SivKeys::of(Half::of(&half))
    }

    /// Unwraps a client's key and the metadata it was made with. `wkc` is the whole WKc with its
    /// length field.
    pub fn unwrap_client_key(
        &self,
        wkc: &[u8],
    ) -> Result<(StaticKey, MetadataBytes), ClientKeyError> {
        wkc::check(wkc)?;
        let (wrapped, len) = wkc.split_last_chunk::<LEN_LEN>().ok_or(WkcError::TooSmall)?;
        let (tag, encrypted) = wrapped.split_first_chunk::<TAG>().ok_or(WkcError::TooSmall)?;
        let mut plain = Zeroizing::new([0; MAX_WKC]);
        let plain = plain.get_mut(..encrypted.len()).ok_or(WkcError::TooLarge)?;
        plain.copy_from_slice(encrypted);
        let keys = self.siv_keys();
        keys.apply_keystream(tag, plain);
        if !keys.verify(&[len, plain], tag) {
            return Err(ClientKeyError::BadAuth);
        }
        let (key, metadata) = plain.split_first_chunk::<KEY_LEN>().ok_or(WkcError::TooSmall)?;
        let metadata = MetadataBytes::from_slice(metadata).map_err(|_| WkcError::TooLarge)?;
        Ok((StaticKey(*key), metadata))
    }

    /// Wraps a client's key for its key file: the WKc that `unwrap_client_key` takes. `metadata` is
    /// what [`Metadata::to_vec`](wkc::Metadata::to_vec) makes, or empty.
    pub fn wrap_client_key(
        &self,
        key: &StaticKey,
        metadata: &[u8],
    ) -> Result<Vec<u8>, MetadataTooLong> {
        if metadata.len() > MAX_METADATA {
            return Err(MetadataTooLong);
        }
        // At most MAX_WKC (1024), which fits the field.
        let len = ((MIN_WKC + metadata.len()) as u16).to_be_bytes();
        let keys = self.siv_keys();
        let tag = keys.tag(&[&len, &key.0, metadata]);
        // Reserved at once: growing would leave the key behind in freed memory.
        let mut body = Vec::with_capacity(KEY_LEN + metadata.len());
        body.extend_from_slice(&key.0);
        body.extend_from_slice(metadata);
        keys.apply_keystream(&tag, &mut body);
        Ok([tag.as_slice(), &body, &len].concat())
    }
}
