//! Key files: "OpenVPN Static key V1", the two tls-crypt-v2 kinds, the auth-token one [2.1, 2.5, 7.5].
//!
//! ```text
//! -----BEGIN OpenVPN Static key V1-----                  16 lines of 32 hex digits: 256 bytes
//! -----BEGIN OpenVPN tls-crypt-v2 server key-----        base64 of 128 bytes
//! -----BEGIN OpenVPN tls-crypt-v2 client key-----        base64 of Kc(256) ‖ WKc(290..=1024)
//! -----BEGIN OpenVPN auth-token server key-----          base64 of 128 bytes
//! ```
//!
//! What surrounds the keys is read by `wire::key_file`; which half of a key does what is
//! `session::wrap`'s business.

use zeroize::Zeroizing;

use crate::random::Random;
use crate::wire::key_file::{HEX_LINE, block, decode_base64, encode_base64};
use crate::wire::wkc;

pub use crate::wire::key_file::{KeyFile, KeyFileError};

/// 256 bytes shared by both ends; wiped on drop.
#[derive(Clone, zeroize::ZeroizeOnDrop)]
pub struct StaticKey(pub(crate) [u8; 256]);

/// The server's tls-crypt-v2 key: Ke in 0..32, Ka in 64..96.
#[derive(Clone, zeroize::ZeroizeOnDrop)]
pub struct V2ServerKey(pub(crate) [u8; 128]);

/// The server's key for auth-tokens: its HMAC key in 64..96.
#[derive(Clone, zeroize::ZeroizeOnDrop)]
pub struct TokenKey(pub(crate) [u8; 128]);

/// A client's tls-crypt-v2 key Kc and the wrapped form the server reads it from.
#[derive(Clone)]
pub struct V2ClientKey {
    /// Used as a tls-crypt key.
    pub key: StaticKey,
    /// WKc as it goes on the wire, length field included.
    pub wrapped: Vec<u8>,
}

impl StaticKey {
    /// A key with these bytes.
    pub const fn new(bytes: [u8; 256]) -> Self {
        Self(bytes)
    }

    /// A fresh key.
    pub fn generate(rng: &mut dyn Random) -> Self {
        let mut key = Self([0; 256]);
        rng.fill(&mut key.0);
        key
    }

    /// Reads a key file or an inline block.
    pub fn parse(file: impl AsRef<[u8]>) -> Result<Self, KeyFileError> {
        let mut key = Self([0; 256]);
        let mut digits = 0;
        let mut odd = None;
        for (line, text) in block(file.as_ref(), KeyFile::Static)? {
            let before = digits;
            for &byte in text.iter().filter(|byte| !byte.is_ascii_whitespace()) {
                let Some(nibble) = char::from(byte).to_digit(16) else {
                    return Err(KeyFileError::BadCharacter { line, byte });
                };
                if let Some(slot) = key.0.get_mut(digits / 2) {
                    *slot = *slot << 4 | nibble as u8;
                }
                digits += 1;
            }
            let here = digits - before;
            if here != HEX_LINE && here != 0 {
                odd = odd.or(Some(KeyFileError::LineLength { line, digits: here }));
            }
        }
        // Only the sum counts; the first unusual line tells where a wrong sum comes from.
        if digits != 2 * key.0.len() {
            return Err(
                odd.unwrap_or(KeyFileError::Length { kind: KeyFile::Static, bytes: digits / 2 })
            );
        }
        Ok(key)
    }

    /// The key file.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(700));
        text.push_str(&KeyFile::Static.begin());
        for (i, byte) in self.0.iter().enumerate() {
            if i % (HEX_LINE / 2) == 0 {
                text.push('\n');
            }
            for nibble in [byte >> 4, byte & 0xf] {
                text.extend(char::from_digit(nibble.into(), 16));
            }
        }
        text.push('\n');
        text.push_str(&KeyFile::Static.end());
        text.push('\n');
        text
    }

    /// All 256 bytes. Secret.
    pub const fn as_bytes(&self) -> &[u8; 256] {
        &self.0
    }
}

impl V2ServerKey {
    /// A key with these bytes.
    pub const fn new(bytes: [u8; 128]) -> Self {
        Self(bytes)
    }

    /// A fresh key.
    pub fn generate(rng: &mut dyn Random) -> Self {
        let mut key = Self([0; 128]);
        rng.fill(&mut key.0);
        key
    }

    /// Reads a key file or an inline block.
    pub fn parse(file: impl AsRef<[u8]>) -> Result<Self, KeyFileError> {
        parse_128(file.as_ref(), KeyFile::V2Server).map(Self)
    }

    /// The key file.
    pub fn to_text(&self) -> Zeroizing<String> {
        encode_base64(&self.0, KeyFile::V2Server)
    }

    /// All 128 bytes. Secret.
    pub const fn as_bytes(&self) -> &[u8; 128] {
        &self.0
    }
}

impl TokenKey {
    /// A fresh key.
    pub fn generate(rng: &mut dyn Random) -> Self {
        let mut key = Self([0; 128]);
        rng.fill(&mut key.0);
        key
    }

    /// Reads a key file or an inline block.
    pub fn parse(file: impl AsRef<[u8]>) -> Result<Self, KeyFileError> {
        parse_128(file.as_ref(), KeyFile::Token).map(Self)
    }

    /// The key of the HMAC. Secret.
    pub fn hmac_key(&self) -> &[u8] {
        self.0.get(64..96).unwrap_or_default()
    }
}

fn parse_128(file: &[u8], kind: KeyFile) -> Result<[u8; 128], KeyFileError> {
    let bytes = decode_base64(file, kind)?;
    bytes.as_slice().try_into().map_err(|_| KeyFileError::Length { kind, bytes: bytes.len() })
}

impl V2ClientKey {
    /// Reads a key file or an inline block.
    pub fn parse(file: impl AsRef<[u8]>) -> Result<Self, KeyFileError> {
        let kind = KeyFile::V2Client;
        let bytes = decode_base64(file.as_ref(), kind)?;
        let Some((key, wrapped)) = bytes.split_first_chunk() else {
            return Err(KeyFileError::Length { kind, bytes: bytes.len() });
        };
        wkc::check(wrapped).map_err(KeyFileError::Wrapped)?;
        Ok(Self { key: StaticKey(*key), wrapped: wrapped.to_vec() })
    }

    /// The key file.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(256 + self.wrapped.len()));
        bytes.extend_from_slice(&self.key.0);
        bytes.extend_from_slice(&self.wrapped);
        encode_base64(&bytes, KeyFile::V2Client)
    }
}

/// Debug shows no key bytes.
macro_rules! opaque { ($($t:ident),*) => { $(impl core::fmt::Debug for $t {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result { f.write_str(concat!(stringify!($t), "(..)")) }
})* } }
opaque!(StaticKey, V2ServerKey, V2ClientKey, TokenKey);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// [13.5], from the reference's `test_pkt.c`.
    pub(crate) const KEY: &str = "\
# 2048 bit OpenVPN static key
-----BEGIN OpenVPN Static key V1-----
37268ea8f95d7f71f9fb8fc03770c460
daf714a483d815c013ce0a537efc18f2
8f4f172669d9e6a413bac6741d8ea054
00f49b7fd6326470f23798c606bf53d4
de63ebc64ec59d57ce5d04d5b62e68b5
3ca6e5354351097fa370446c4d269f18
7bb6ae54af2dc70ff7317fe2f8754b82
82aad4202f9fa42c8640245d883e2c54
a0c1c489a036cf3a8964d8d289c1583b
9447c262b1da5fd167a5d27bd5ac5143
17bc2343a31a2efc38dd920d910375f5
1c2e27f3afd36c49269da079f7ce466e
bb0f9ad13e9bbb4665974e6bc24b513c
5700393bf4a3e7f967e2f384069ac8a8
e78b18b15604993fd16515cce9c0f3e4
2b4126b999005ade802797b0eeb8b9e6
-----END OpenVPN Static key V1-----
";

    /// Made by `openvpn --tls-crypt-v2 FILE --genkey tls-crypt-v2-client` of OpenVPN 2.6.14 where FILE
    /// holds the server key 00..7f; its metadata is the time it was made.
    pub(crate) const STOCK_V2_CLIENT: &str = "\
-----BEGIN OpenVPN tls-crypt-v2 client key-----
RFfuwsJuJ3xzxEfm4zxvMP18s9g2pkBtEwhU1M9qKtXZEUtTClKif8l/9jj7PZwz
z9NmMCCfIucUi0qrAjDSyho9lwlm1qor/EbkKio01U7QFC1fIlsrzVRl1VcUknbP
NWF719W8KEXrkCK+V7QP6tq22bQ65ACVE4Io/w7SbNwEygAEYp4ABkNlOAvyoHrC
kBaPP1XO/Ib99nOhk6V3FPM5NPMQ9x01hqSuke29yO/5drnNqPKL5N8umsLjOD6s
QN0WMZkD7A8/ypeKDpy6CYwpqeiHMTadJM/zXU35UcanPfUx/TGf+7ak0WLLeUCA
0MI7CW4/aoCReDpWE+u0K/lOzFwiNg09GX4wEG4R2ULsSxISaLhMFXNhlhK9/GG2
YR4X42vs+aaO+uGnEYN9ktIMG+tFfItN3aMWBBUV404nP2pqQjve8RkMfMnt6MQY
fXVYu3HmcurAtNA3MQHIppJapBDUddVmTciItzmBhEwqhDpHhV2TRWcaV1h8yu1V
eYwu7cXAK97Ft/Ai8riUYi0NyIV6+XXmN/luT/OZI9vHVst+rvZ3wLQVygQ9NWl6
aOcDZFc+UF2G2Jtr+JZgfXZUIbWT1eMkB0VJ3iALj/DXDNINFUw6hlVIHFz0KZKc
9lqiOJzB7EKIBCRkWiT0SQc9KGjm2FepgvR0zjfG3KMrfUL5NDt5HOFmN/9WSNr8
hf/2J3HMKL6iv1ZKiLtQ1OzejOkWlpLOVAEr
-----END OpenVPN tls-crypt-v2 client key-----
";

    fn count(out: &mut [u8]) {
        out.iter_mut().zip(0..).for_each(|(slot, i)| *slot = i as u8);
    }

    fn message(error: Result<StaticKey, KeyFileError>) -> String {
        error.unwrap_err().to_string()
    }

    #[test]
    fn reads_and_writes_a_static_key() {
        let key = StaticKey::parse(KEY).unwrap();
        assert_eq!(key.as_bytes()[..4], [0x37, 0x26, 0x8e, 0xa8]);
        assert_eq!(key.as_bytes()[252..], [0xee, 0xb8, 0xb9, 0xe6]);
        let (_, block) = KEY.split_once('\n').unwrap();
        assert_eq!(*key.to_text(), block);
        assert_eq!(format!("{key:?}"), "StaticKey(..)");
    }

    #[test]
    fn tolerates_what_people_do_to_keys() {
        let key = StaticKey::parse(KEY).unwrap();
        let (head, body) = KEY.split_once("V1-----\n").unwrap();
        let (body, _) = body.split_once("-----END").unwrap();
        for file in [
            KEY.replace('\n', "\r\n"),
            format!("\u{feff}{}trailing words", KEY),
            KEY.replace('\n', " \n\t"),
            KEY.to_uppercase().replace("OPENVPN STATIC KEY", "OpenVPN Static key"),
            format!(
                "{head}V1-----\n{}\n-----END OpenVPN Static key V1-----",
                body.replace('\n', "")
            ),
            format!(
                "{head}V1-----\n{}-----END OpenVPN Static key V1-----",
                body.replace('\n', "\n\n")
            ),
        ] {
            assert_eq!(StaticKey::parse(&file).unwrap().0, key.0, "{file}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_static_key() {
        assert_eq!(
            message(StaticKey::parse("")),
            "no line \"-----BEGIN OpenVPN Static key V1-----\""
        );
        let end = "-----END OpenVPN Static key V1-----";
        assert_eq!(message(StaticKey::parse(KEY.replace(end, ""))), format!("no line \"{end}\""));
        let short = KEY.replace("de63ebc64", "de63ebc6");
        assert_eq!(message(StaticKey::parse(short)), "line 7: 31 hex digits instead of 32");
        let long = KEY.replace("de63ebc64", "de63ebc644");
        assert_eq!(message(StaticKey::parse(long)), "line 7: 33 hex digits instead of 32");
        let missing = KEY.replace("3ca6e5354351097fa370446c4d269f18\n", "");
        assert_eq!(message(StaticKey::parse(missing)), "240 bytes of key instead of 256");
        let wrong = KEY.replace("de63ebc64", "de63ebg64");
        assert_eq!(message(StaticKey::parse(wrong)), "line 7: 'g' does not belong into a key");
        let server = V2ServerKey([0; 128]).to_text();
        assert_eq!(
            message(StaticKey::parse(server.as_bytes())),
            "holds a key of the kind \"OpenVPN tls-crypt-v2 server key\" instead of \"OpenVPN Static key V1\""
        );
    }

    #[test]
    fn reads_and_writes_a_server_key() {
        let key = V2ServerKey::generate(&mut count);
        let text = key.to_text();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("-----BEGIN OpenVPN tls-crypt-v2 server key-----"));
        assert_eq!(
            lines.next(),
            Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v")
        );
        assert_eq!(V2ServerKey::parse(text.replace('\n', "\r\n")).unwrap().0, key.0);
        // Without the padding, which some tools leave out.
        assert_eq!(V2ServerKey::parse(text.replace('=', "")).unwrap().0, key.0);
        let error = |text: String| V2ServerKey::parse(text).unwrap_err();
        assert_eq!(
            error(text.replace("AAEC", "")),
            KeyFileError::Length { kind: KeyFile::V2Server, bytes: 125 }
        );
        assert_eq!(
            error(text.replace("AAEC", "AA*C")),
            KeyFileError::BadCharacter { line: 2, byte: b'*' }
        );
        assert_eq!(error(text.replace("AAEC", "A=EC")), KeyFileError::Base64);
    }

    #[test]
    fn reads_and_writes_a_client_key() {
        let key = V2ClientKey {
            key: StaticKey::generate(&mut count),
            wrapped: [vec![0x77; 297], vec![0x01, 0x2b]].concat(),
        };
        let text = key.to_text();
        let again = V2ClientKey::parse(&*text).unwrap();
        assert_eq!((again.key.0, again.wrapped), (key.key.0, key.wrapped.clone()));
        for (wrapped, error) in [
            (vec![], wkc::WkcError::TooSmall),
            (key.wrapped[1..].to_vec(), wkc::WkcError::LengthMismatch),
            (key.wrapped[..298].to_vec(), wkc::WkcError::TooLarge),
        ] {
            let broken = V2ClientKey { wrapped, ..key.clone() };
            assert_eq!(
                V2ClientKey::parse(&*broken.to_text()).unwrap_err(),
                KeyFileError::Wrapped(error)
            );
        }
    }

    #[test]
    fn a_client_key_made_by_the_reference() {
        let key = V2ClientKey::parse(STOCK_V2_CLIENT).unwrap();
        assert_eq!(key.wrapped.len(), wkc::MIN_WKC + 9);
        assert_eq!(*key.to_text(), STOCK_V2_CLIENT);
    }

    #[test]
    fn every_truncation_is_an_error() {
        for len in 0..KEY.len() - 1 {
            assert!(StaticKey::parse(KEY.get(..len).unwrap()).is_err(), "{len}");
        }
    }
}
