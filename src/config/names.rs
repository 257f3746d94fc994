//! Names of ciphers and digests as OpenVPN spells them, in configurations and on the wire [8.1].

use super::{CipherName, Digest};

impl CipherName {
    /// Every cipher there is, strongest claim on a modern router first.
    pub const ALL: [Self; 3] = [Self::ChaCha20Poly1305, Self::Aes256Gcm, Self::Aes128Gcm];

    /// The canonical name, which peers compare byte by byte.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => "CHACHA20-POLY1305",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::Aes128Gcm => "AES-128-GCM",
        }
    }

    /// The cipher of this name in any case; `None` when there is none such here.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cipher| cipher.as_str().eq_ignore_ascii_case(name))
    }

    /// Length of the key in bits.
    pub const fn key_bits(self) -> usize {
        match self {
            Self::ChaCha20Poly1305 | Self::Aes256Gcm => 256,
            Self::Aes128Gcm => 128,
        }
    }
}

impl Digest {
    /// Every digest there is, the default first.
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The canonical name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }

    /// The digest of this name in any case, with or without OpenSSL's older `RSA-` in front.
    pub fn from_name(name: &str) -> Option<Self> {
        let plain = name.get(..4).filter(|head| head.eq_ignore_ascii_case("RSA-"));
        let name = plain.and_then(|_| name.get(4..)).unwrap_or(name);
        Self::ALL.into_iter().find(|digest| digest.as_str().eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways_in_any_case() {
        for cipher in CipherName::ALL {
            assert_eq!(CipherName::from_name(&cipher.as_str().to_lowercase()), Some(cipher));
        }
        for digest in Digest::ALL {
            assert_eq!(Digest::from_name(digest.as_str()), Some(digest));
            assert_eq!(Digest::from_name(&format!("rsa-{}", digest.as_str())), Some(digest));
        }
        assert_eq!(CipherName::from_name("BF-CBC"), None);
        assert_eq!(Digest::from_name("MD5"), None);
        assert_eq!(Digest::from_name("é"), None);
    }
}
