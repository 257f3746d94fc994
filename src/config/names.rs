//! Names of ciphers and digests as OpenVPN spells them, in configurations and on the wire [8.1].

#[cfg(feature = "cbc")]
use super::AesSize;
use super::{CipherName, Digest, Framing};

impl CipherName {
    /// Every cipher there is, strongest claim on a modern router first.
    pub const ALL: &'static [Self] = &[
        Self::ChaCha20Poly1305,
        Self::Aes256Gcm,
        Self::Aes128Gcm,
        #[cfg(feature = "cbc")]
        Self::Cbc(AesSize::Aes256),
        #[cfg(feature = "cbc")]
        Self::Cbc(AesSize::Aes192),
        #[cfg(feature = "cbc")]
        Self::Cbc(AesSize::Aes128),
    ];

    /// The canonical name, which peers compare byte by byte.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => "CHACHA20-POLY1305",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::Aes128Gcm => "AES-128-GCM",
            #[cfg(feature = "cbc")]
            Self::Cbc(AesSize::Aes256) => "AES-256-CBC",
            #[cfg(feature = "cbc")]
            Self::Cbc(AesSize::Aes192) => "AES-192-CBC",
            #[cfg(feature = "cbc")]
            Self::Cbc(AesSize::Aes128) => "AES-128-CBC",
        }
    }

    /// The cipher of this name in any case; `None` when there is none such here.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|cipher| cipher.as_str().eq_ignore_ascii_case(name))
    }

    /// Length of the key in bits.
    pub const fn key_bits(self) -> usize {
        match self {
            Self::ChaCha20Poly1305 | Self::Aes256Gcm => 256,
            Self::Aes128Gcm => 128,
            #[cfg(feature = "cbc")]
            Self::Cbc(AesSize::Aes256) => 256,
            #[cfg(feature = "cbc")]
            Self::Cbc(AesSize::Aes192) => 192,
            #[cfg(feature = "cbc")]
            Self::Cbc(AesSize::Aes128) => 128,
        }
    }

    /// Whether the cipher authenticates by itself; `auth` does not matter then.
    pub const fn is_aead(self) -> bool {
        match self {
            Self::ChaCha20Poly1305 | Self::Aes256Gcm | Self::Aes128Gcm => true,
            #[cfg(feature = "cbc")]
            Self::Cbc(_) => false,
        }
    }
}

impl Framing {
    /// What the words of a `comp-lzo` or `compress` line ask for, the option's name first; `None`
    /// for anything else. Whether packets should be compressed makes no difference here.
    pub fn from_words(words: &[&str]) -> Option<Self> {
        match words {
            ["comp-lzo"] | ["comp-lzo", "no" | "yes" | "adaptive"] | ["compress", "lzo"] => {
                Some(Self::Lzo)
            }
            ["compress"] | ["compress", "stub" | "lz4"] => Some(Self::Swap),
            ["compress", "stub-v2" | "lz4-v2"] => Some(Self::StubV2),
            ["compress", "migrate"] => Some(Self::None),
            _ => None,
        }
    }

    /// Bytes it adds to a packet.
    pub const fn overhead(self) -> usize {
        match self {
            Self::None | Self::StubV2 => 0,
            Self::Lzo | Self::Swap => 1,
        }
    }
}

impl Digest {
    /// Every digest there is, the default first.
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// Bytes of its output.
    pub const fn size(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

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
            assert_eq!(CipherName::from_name(&cipher.as_str().to_lowercase()), Some(*cipher));
        }
        for digest in Digest::ALL {
            assert_eq!(Digest::from_name(digest.as_str()), Some(digest));
            assert_eq!(Digest::from_name(&format!("rsa-{}", digest.as_str())), Some(digest));
        }
        assert_eq!(CipherName::from_name("BF-CBC"), None);
        assert_eq!(CipherName::from_name("AES-256-CBC").is_some(), cfg!(feature = "cbc"));
        assert_eq!(Digest::from_name("MD5"), None);
        assert_eq!(Digest::from_name("é"), None);
    }

    #[test]
    fn framings_of_every_spelling() {
        for (line, framing) in [
            ("comp-lzo", Some(Framing::Lzo)),
            ("comp-lzo no", Some(Framing::Lzo)),
            ("comp-lzo adaptive", Some(Framing::Lzo)),
            ("comp-lzo maybe", None),
            ("compress", Some(Framing::Swap)),
            ("compress stub", Some(Framing::Swap)),
            ("compress lz4", Some(Framing::Swap)),
            ("compress lzo", Some(Framing::Lzo)),
            ("compress stub-v2", Some(Framing::StubV2)),
            ("compress lz4-v2", Some(Framing::StubV2)),
            ("compress migrate", Some(Framing::None)),
            ("compress zstd", None),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(Framing::from_words(&words), framing, "{line}");
        }
    }
}
