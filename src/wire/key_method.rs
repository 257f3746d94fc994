//! Key method 2: the first message in each direction inside TLS [5.1].
//!
//! ```text
//! 0    4   zero
//! 4    1   key method, low nibble 2
//! 5   48   pre-master secret         from the client only
//! ..  32   random 1
//! ..  32   random 2
//! ..   *   options (OCC) string
//! ..   *   user name
//! ..   *   password
//! ..   *   peer info                 see wire::peer_info
//!
//! string   len(2) bytes NUL          len counts the NUL; 00 00 is the empty string
//! ```
//!
//! The peer info may be missing: ancient clients do not know it; so may the three last strings of a
//! server's. What ends before has been cut, be it between two strings. What the strings mean is decided by the session and the engines.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::limits::{MAX_CREDENTIAL, MAX_OPTIONS_STRING};
use crate::random::Random;
use crate::wire::reader::{Reader, Truncated};

/// One side's share of the key material for the old key derivation; wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct KeySource {
    /// From the client only.
    pub pre_master: Option<[u8; 48]>,
    /// For the master secret.
    pub random1: [u8; 32],
    /// For the key expansion.
    pub random2: [u8; 32],
}

impl KeySource {
    /// A client's share, fresh for each key.
    pub fn client(rng: &mut dyn Random) -> Self {
        let mut source = Self::server(rng);
        rng.fill(source.pre_master.insert([0; 48]));
        source
    }

    /// A server's share, fresh for each key.
    pub fn server(rng: &mut dyn Random) -> Self {
        let mut source = Self { pre_master: None, random1: [0; 32], random2: [0; 32] };
        rng.fill(&mut source.random1);
        rng.fill(&mut source.random2);
        source
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySource(..)")
    }
}

/// User name and password; both empty when there are none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password, wiped on drop.
    pub password: Zeroizing<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// Why credentials cannot be right. An authentication failure that the client is told about, not
/// an error of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialError {
    /// User name or password exceeds [`MAX_CREDENTIAL`] bytes with its NUL.
    TooLong,
    /// User name or password is not UTF-8 or has a NUL inside: taking an approximation of a
    /// password for the password is out of the question.
    NotText,
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => {
                write!(f, "user name or password longer than {} bytes", MAX_CREDENTIAL - 1)
            }
            Self::NotText => f.write_str("user name or password is not UTF-8 text"),
        }
    }
}

impl core::error::Error for CredentialError {}

/// Why bytes are not a key method 2 message. The peer's fault; the key cannot be established.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyMethodError {
    /// It ends inside a field.
    Truncated,
    /// It does not start with four zero bytes.
    NoZero,
    /// Another key method than 2.
    Method(u8),
    /// The options string exceeds [`MAX_OPTIONS_STRING`].
    OptionsTooLong,
}

impl From<Truncated> for KeyMethodError {
    fn from(Truncated: Truncated) -> Self {
        Self::Truncated
    }
}

impl fmt::Display for KeyMethodError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("key exchange message too short"),
            Self::NoZero => f.write_str("key exchange message does not start with zeros"),
            Self::Method(method) => write!(f, "key method {method} instead of 2"),
            Self::OptionsTooLong => f.write_str("options string too long"),
        }
    }
}

impl core::error::Error for KeyMethodError {}

/// A string of ours exceeds what the receiver accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string is too long for the key exchange message")
    }
}

impl core::error::Error for TooLong {}

/// A key method 2 message.
#[derive(Debug, Clone)]
pub struct KeyMethod2 {
    /// Key material; with a pre-master secret from a client, without from a server.
    pub source: KeySource,
    /// The OCC string; never worth failing for [5.2].
    pub options: String,
    /// Empty from a server.
    pub credentials: Result<Credentials, CredentialError>,
    /// `KEY=value` lines; hostile text, to be read through `wire::peer_info`. Empty from a server.
    pub peer_info: String,
}

impl KeyMethod2 {
    const METHOD: u8 = 2;
    const METHOD_MASK: u8 = 0x0f;

    /// Reads what a client sent.
    pub fn from_client(bytes: &[u8]) -> Result<Self, KeyMethodError> {
        Self::parse(bytes, true)
    }

    /// Reads what a server sent.
    pub fn from_server(bytes: &[u8]) -> Result<Self, KeyMethodError> {
        Self::parse(bytes, false)
    }

    fn parse(bytes: &[u8], from_client: bool) -> Result<Self, KeyMethodError> {
        let mut reader = Reader::new(bytes);
        if reader.u32()? != 0 {
            return Err(KeyMethodError::NoZero);
        }
        let method = reader.u8()? & Self::METHOD_MASK;
        if method != Self::METHOD {
            return Err(KeyMethodError::Method(method));
        }
        let source = KeySource {
            pre_master: if from_client { Some(reader.array()?) } else { None },
            random1: reader.array()?,
            random2: reader.array()?,
        };
        if reader.remaining() == 0 {
            return Err(KeyMethodError::Truncated);
        }
        let options = string(&mut reader)?;
        if options.len() >= MAX_OPTIONS_STRING {
            return Err(KeyMethodError::OptionsTooLong);
        }
        if from_client && reader.remaining() == 0 {
            return Err(KeyMethodError::Truncated);
        }
        let username = string(&mut reader)?;
        if from_client && reader.remaining() == 0 {
            return Err(KeyMethodError::Truncated);
        }
        let password = string(&mut reader)?;
        let peer_info = string(&mut reader)?;
        // Stock peers ignore what may follow, so that the message can grow.
        Ok(Self {
            source,
            options: text(options),
            credentials: credentials(username, password),
            peer_info: text(peer_info),
        })
    }

    /// The message as it goes into one TLS record. Credentials that are an error go as none.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, TooLong> {
        let none = Credentials::default();
        let Credentials { username, password } = self.credentials.as_ref().unwrap_or(&none);
        if self.options.len() >= MAX_OPTIONS_STRING
            || username.len() >= MAX_CREDENTIAL
            || password.len() >= MAX_CREDENTIAL
        {
            return Err(TooLong);
        }
        // Reserved at once: growing would leave copies of the secrets behind.
        let strings = [&self.options, username, password, &self.peer_info];
        let len = 5 + 48 + 64 + strings.iter().map(|text| text.len() + 3).sum::<usize>();
        let mut bytes = Zeroizing::new(Vec::with_capacity(len));
        bytes.extend_from_slice(&[0, 0, 0, 0, Self::METHOD]);
        if let Some(pre_master) = &self.source.pre_master {
            bytes.extend_from_slice(pre_master);
        }
        bytes.extend_from_slice(&self.source.random1);
        bytes.extend_from_slice(&self.source.random2);
        for text in strings {
            if text.is_empty() {
                bytes.extend_from_slice(&[0, 0]);
                continue;
            }
            let len = u16::try_from(text.len() + 1).map_err(|_| TooLong)?;
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        }
        Ok(bytes)
    }
}

/// The next string without its terminator. The last byte counts as NUL whatever it is, as it does
/// with the reference; a string that is not there at all is empty.
fn string<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Truncated> {
    if reader.remaining() == 0 {
        return Ok(&[]);
    }
    let len = reader.u16()?;
    let bytes = reader.take(usize::from(len))?;
    Ok(bytes.split_last().map_or(&[], |(_nul, text)| text))
}

/// Text that ends at the first NUL, as it does for the reference.
fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn credentials(username: &[u8], password: &[u8]) -> Result<Credentials, CredentialError> {
    let exact = |bytes: &[u8]| {
        if bytes.len() >= MAX_CREDENTIAL {
            return Err(CredentialError::TooLong);
        }
        match core::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
            Ok(_) | Err(_) => Err(CredentialError::NotText),
        }
    };
    Ok(Credentials { username: exact(username)?, password: Zeroizing::new(exact(password)?) })
}

/// The value of `name` in an OCC string: the last word of its entry, as in `cipher AES-256-GCM`;
/// empty for an entry without one, as in `comp-lzo` [5.2].
pub fn occ_option<'a>(options: &'a str, name: &str) -> Option<&'a str> {
    options.split(',').find_map(|entry| match entry.strip_prefix(name)? {
        "" => Some(""),
        value => value.strip_prefix(' '),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRE_MASTER: [u8; 48] = [0xaa; 48];

    fn put(bytes: &mut Vec<u8>, text: &[u8]) {
        bytes.extend((text.len() as u16).to_be_bytes());
        bytes.extend(text);
    }

    /// A client's message up to the strings, then `strings` with their length in front.
    fn client(strings: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 0, 2];
        bytes.extend(PRE_MASTER);
        bytes.extend([0xbb; 32]);
        bytes.extend([0xcc; 32]);
        strings.iter().for_each(|text| put(&mut bytes, text));
        bytes
    }

    fn login(username: &str, password: &str) -> Result<Credentials, CredentialError> {
        Ok(Credentials { username: username.into(), password: Zeroizing::new(password.into()) })
    }

    #[test]
    fn a_client_message_byte_for_byte() {
        let bytes = client(&[
            b"V4,dev-type tun\0",
            b"user\0",
            b"pass word\0",
            b"IV_VER=2.6\nIV_PROTO=990\n\0",
        ]);
        let message = KeyMethod2::from_client(&bytes).unwrap();
        assert_eq!(message.source.pre_master, Some(PRE_MASTER));
        assert_eq!((message.source.random1, message.source.random2), ([0xbb; 32], [0xcc; 32]));
        assert_eq!(message.options, "V4,dev-type tun");
        assert_eq!(message.credentials, login("user", "pass word"));
        assert_eq!(message.peer_info, "IV_VER=2.6\nIV_PROTO=990\n");
        assert_eq!(*message.to_bytes().unwrap(), bytes);
        assert!(!format!("{message:?}").contains("pass"));
    }

    #[test]
    fn a_server_message_byte_for_byte() {
        let mut bytes = vec![0, 0, 0, 0, 2];
        bytes.extend([0xbb; 32]);
        bytes.extend([0xcc; 32]);
        bytes.extend(b"\0\x03V4\0\0\0\0\0\0\0");
        let message = KeyMethod2::from_server(&bytes).unwrap();
        assert!(message.source.pre_master.is_none());
        assert_eq!((message.options.as_str(), message.peer_info.as_str()), ("V4", ""));
        assert_eq!(message.credentials, login("", ""));
        assert_eq!(*message.to_bytes().unwrap(), bytes);
    }

    #[test]
    fn what_ends_too_early_is_cut_even_between_two_strings() {
        let whole = client(&[b"V4\0", b"u\0", b"p\0", b"IV_NCP=2\n\0"]);
        let ends = [130, whole.len()];
        for len in 0..=whole.len() {
            let result = KeyMethod2::from_client(whole.get(..len).unwrap());
            assert_eq!(result.is_ok(), ends.contains(&len), "{len}");
            if let Err(error) = result {
                assert_eq!(error, KeyMethodError::Truncated);
            }
        }
        let ancient = KeyMethod2::from_client(whole.get(..130).unwrap()).unwrap();
        assert_eq!((ancient.credentials, ancient.peer_info.as_str()), (login("u", "p"), ""));
    }

    #[test]
    fn the_last_byte_counts_as_nul() {
        let message =
            KeyMethod2::from_client(&client(&[b"V4!", b"userX", b"passX", b"IV_A=1\0IV_B=2X"]))
                .unwrap();
        assert_eq!((message.options.as_str(), message.peer_info.as_str()), ("V4", "IV_A=1"));
        assert_eq!(message.credentials, login("user", "pass"));
    }

    #[test]
    fn limits() {
        let options = |len: usize| [vec![b'x'; len - 1], vec![0]].concat();
        assert!(KeyMethod2::from_client(&client(&[&options(512), b"", b""])).is_ok());
        let error = KeyMethod2::from_client(&client(&[&options(513)])).unwrap_err();
        assert_eq!(error, KeyMethodError::OptionsTooLong);
        for (username, password, expected) in [
            (128, 128, Ok(())),
            (129, 5, Err(CredentialError::TooLong)),
            (5, 129, Err(CredentialError::TooLong)),
        ] {
            let bytes = client(&[b"V4\0", &options(username), &options(password), b"IV_VER=1\0"]);
            let message = KeyMethod2::from_client(&bytes).unwrap();
            assert_eq!(message.credentials.map(drop), expected);
            assert_eq!(message.peer_info, "IV_VER=1");
        }
        for hostile in [&b"a\0b\0"[..], &[0xff, 0xfe, 0]] {
            let message = KeyMethod2::from_client(&client(&[b"V4\0", b"u\0", hostile])).unwrap();
            assert_eq!(message.credentials, Err(CredentialError::NotText));
        }
        let mut ours = KeyMethod2::from_client(&client(&[b"V4\0", b"", b""])).unwrap();
        ours.credentials = login(&"u".repeat(127), &"p".repeat(127));
        assert!(ours.to_bytes().is_ok());
        ours.credentials = login("u", &"p".repeat(128));
        assert_eq!(ours.to_bytes().unwrap_err(), TooLong);
        ours.credentials = login("", "");
        ours.options = "x".repeat(512);
        assert_eq!(ours.to_bytes().unwrap_err(), TooLong);
        ours.options.clear();
        ours.peer_info = "x".repeat(65535);
        assert_eq!(ours.to_bytes().unwrap_err(), TooLong);
    }

    #[test]
    fn refuses_other_key_methods() {
        let mut bytes = client(&[b"V4\0", b"", b""]);
        bytes[4] = 0xf2;
        assert!(KeyMethod2::from_client(&bytes).is_ok());
        bytes[4] = 1;
        assert_eq!(KeyMethod2::from_client(&bytes).unwrap_err(), KeyMethodError::Method(1));
        bytes[3] = 1;
        assert_eq!(KeyMethod2::from_client(&bytes).unwrap_err(), KeyMethodError::NoZero);
    }

    #[test]
    fn randoms_are_drawn_for_each_field() {
        let mut next = 0;
        let mut rng = |out: &mut [u8]| {
            next += 1;
            out.fill(next);
        };
        let source = KeySource::client(&mut rng);
        assert_eq!(
            (source.random1[0], source.random2[31], source.pre_master),
            (1, 2, Some([3; 48]))
        );
        assert!(KeySource::server(&mut rng).pre_master.is_none());
    }

    #[test]
    fn occ_options() {
        let options = "V4,dev-type tun,link-mtu 1549,comp-lzo,cipher AES-256-GCM,auth [null-digest],tls-client";
        assert_eq!(occ_option(options, "cipher"), Some("AES-256-GCM"));
        assert_eq!(occ_option(options, "comp-lzo"), Some(""));
        assert_eq!(occ_option(options, "link"), None);
        assert_eq!(occ_option(options, "keydir"), None);
        assert_eq!(occ_option("", "cipher"), None);
    }
}
