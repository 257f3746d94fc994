//! The wrapped client key of tls-crypt-v2, WKc: finding it behind a packet and what is in it [1.3, 2.5].
//!
//! ```text
//! datagram   op(1) sid(8) id(4) time(4) tag(32) ciphertext(1..)   tls-crypt, under the client's key
//!            T(32) AES-CTR( Kc(256) metadata(0..=734) ) len(2)    WKc, under the server's key
//!                                                                 len counts all of this line
//! ```
//!
//! Only `HARD_RESET_CLIENT_V3` and `WKC_V1` have it. The length at the very end is a stranger's
//! word: it is checked against both its own bounds and the packet in front before it is used
//! (CVE-2026-35058 and its relatives came from doing less). Opening it is `session::wrap`'s business.

use core::fmt;

use crate::limits::MAX_WKC;

/// Bytes of the tag T in front.
pub const TAG_LEN: usize = 32;
/// Bytes of the client key inside.
pub const KEY_LEN: usize = 256;
/// Bytes of the length field at the end.
pub const LEN_LEN: usize = 2;
/// The smallest WKc: tag, key, no metadata, length field.
pub const MIN_WKC: usize = TAG_LEN + KEY_LEN + LEN_LEN;
/// The largest metadata, type byte included: what is left of [`MAX_WKC`].
pub const MAX_METADATA: usize = MAX_WKC - MIN_WKC;
/// The smallest tls-crypt packet: 49 bytes before the ciphertext, one byte in it.
const MIN_PACKET: usize = 50;

/// Why bytes do not end in a WKc; the sender's or a stranger's fault. Drop the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WkcError {
    /// The stated length, or the blob itself, is below the fixed parts.
    TooSmall,
    /// The stated length is above [`MAX_WKC`].
    TooLarge,
    /// The WKc would reach into the packet in front of it.
    Overlap,
    /// The length at the end is not the length of the blob.
    LengthMismatch,
}

impl fmt::Display for WkcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooSmall => "wrapped client key too small",
            Self::TooLarge => "wrapped client key too large",
            Self::Overlap => "wrapped client key overlaps its packet",
            Self::LengthMismatch => "wrapped client key states another length than it has",
        })
    }
}

impl core::error::Error for WkcError {}

/// Where the WKc starts, which is also the length of the packet in front of it.
pub fn locate(datagram: &[u8]) -> Result<usize, WkcError> {
    let start = datagram.len().checked_sub(stated_len(datagram)?).ok_or(WkcError::Overlap)?;
    if start < MIN_PACKET { Err(WkcError::Overlap) } else { Ok(start) }
}

/// Cuts a datagram into the tls-crypt packet, to be decrypted in place, and the WKc.
pub fn split_mut(datagram: &mut [u8]) -> Result<(&mut [u8], &[u8]), WkcError> {
    let start = locate(datagram)?;
    let (packet, wkc) = datagram.split_at_mut_checked(start).ok_or(WkcError::Overlap)?;
    Ok((packet, wkc))
}

/// Checks that `wkc` is one whole blob as far as its lengths tell.
pub fn check(wkc: &[u8]) -> Result<(), WkcError> {
    if stated_len(wkc)? == wkc.len() { Ok(()) } else { Err(WkcError::LengthMismatch) }
}

fn stated_len(bytes: &[u8]) -> Result<usize, WkcError> {
    let len = usize::from(u16::from_be_bytes(*bytes.last_chunk().ok_or(WkcError::TooSmall)?));
    match len {
        0..MIN_WKC => Err(WkcError::TooSmall),
        MIN_WKC..=MAX_WKC => Ok(len),
        _ => Err(WkcError::TooLarge),
    }
}

/// A note in a client key, chosen by whoever made the key: `type(1) ‖ data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metadata<'a> {
    /// Not even a type byte; tolerated.
    None,
    /// Type 0: bytes of the administrator's choice.
    User(&'a [u8]),
    /// Type 1: when the key was made, in Unix seconds.
    Created(i64),
    /// Another type, or a type 1 that is not 8 bytes.
    Unknown(u8, &'a [u8]),
}

impl<'a> Metadata<'a> {
    /// Reads metadata, its type byte in front. Everything is some metadata.
    pub fn parse(bytes: &'a [u8]) -> Self {
        let Some((&kind, data)) = bytes.split_first() else { return Self::None };
        match (kind, <[u8; 8]>::try_from(data)) {
            (0, _) => Self::User(data),
            (1, Ok(seconds)) => Self::Created(i64::from_be_bytes(seconds)),
            (kind, _) => Self::Unknown(kind, data),
        }
    }

    /// The bytes that say the same; at most [`MAX_METADATA`] of them fit into a WKc.
    pub fn to_vec(self) -> Vec<u8> {
        let (kind, data): (u8, &[u8]) = match &self {
            Self::None => return Vec::new(),
            Self::User(data) => (0, data),
            Self::Created(seconds) => (1, &seconds.to_be_bytes()),
            Self::Unknown(kind, data) => (*kind, data),
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(data);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(packet: usize, wkc: usize, stated: u16) -> Vec<u8> {
        let mut bytes = vec![0x50; packet];
        bytes.extend(vec![0xaa; wkc - LEN_LEN]);
        bytes.extend(stated.to_be_bytes());
        bytes
    }

    #[test]
    fn cuts_where_the_length_says() {
        for (packet, wkc) in [(50, 290), (54, 299), (1000, 1024)] {
            let mut bytes = datagram(packet, wkc, wkc as u16);
            let (front, blob) = split_mut(&mut bytes).unwrap();
            assert_eq!((front.len(), blob.len()), (packet, wkc));
            assert_eq!(check(blob), Ok(()));
        }
    }

    #[test]
    fn refuses_lengths_out_of_bounds() {
        for (stated, error) in [
            (0, WkcError::TooSmall),
            (1, WkcError::TooSmall),
            (289, WkcError::TooSmall),
            (1025, WkcError::TooLarge),
            (u16::MAX, WkcError::TooLarge),
            (1024, WkcError::Overlap),
        ] {
            assert_eq!(locate(&datagram(60, 290, stated)), Err(error), "{stated}");
        }
        // The packet in front would be shorter than any tls-crypt packet, down to nothing.
        for packet in 0..50 {
            assert_eq!(locate(&datagram(packet, 290, 290)), Err(WkcError::Overlap), "{packet}");
        }
        assert_eq!(check(&datagram(0, 300, 299)), Err(WkcError::LengthMismatch));
    }

    #[test]
    fn every_truncation_and_every_stated_length_is_survived() {
        let bytes = datagram(60, 320, 320);
        for len in 0..bytes.len() {
            let cut = bytes.get(..len).unwrap();
            assert!(locate(cut).is_err(), "{len}");
        }
        for stated in 0..=u16::MAX {
            match locate(&datagram(100, 400, stated)) {
                Ok(start) => assert!(start >= 50 && start + usize::from(stated) == 500),
                Err(_) => assert!(!(290..=450).contains(&stated)),
            }
        }
    }

    #[test]
    fn metadata_survives() {
        // The first two are those of the known answers [13.5].
        for (bytes, metadata) in [
            (&[1, 0, 0, 0, 0, 0, 0, 0, 0][..], Metadata::Created(0)),
            (&[0, 0, 0, 0x41, 8, 0x20, 0xc3], Metadata::User(&[0, 0, 0x41, 8, 0x20, 0xc3])),
            (&[], Metadata::None),
            (&[0], Metadata::User(&[])),
            (&[1, 2], Metadata::Unknown(1, &[2])),
            (&[7, 1, 2, 3, 4, 5, 6, 7, 8], Metadata::Unknown(7, &[1, 2, 3, 4, 5, 6, 7, 8])),
        ] {
            assert_eq!(Metadata::parse(bytes), metadata);
            assert_eq!(metadata.to_vec(), bytes);
        }
    }
}
