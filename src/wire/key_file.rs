//! What the key files have in common: the lines around the key, base64, and what can be wrong [2.1, 2.5].
//!
//! Text around the block is ignored and white space within lines is tolerated, as are CRLF line
//! ends and line lengths other than the usual: people paste keys into profiles.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT as BASE64;
use zeroize::Zeroizing;

use crate::wire::wkc;

/// The kinds of key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFile {
    /// For `tls-auth` and `tls-crypt`.
    Static,
    /// For `tls-crypt-v2` on a server.
    V2Server,
    /// For `tls-crypt-v2` on a client.
    V2Client,
    /// For `auth-gen-token-secret`.
    Token,
}

impl KeyFile {
    const ALL: [Self; 4] = [Self::Static, Self::V2Server, Self::V2Client, Self::Token];

    /// The name between the dashes.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Static => "OpenVPN Static key V1",
            Self::V2Server => "OpenVPN tls-crypt-v2 server key",
            Self::V2Client => "OpenVPN tls-crypt-v2 client key",
            Self::Token => "OpenVPN auth-token server key",
        }
    }

    const fn size(self) -> &'static str {
        match self {
            Self::Static => "256",
            Self::V2Server | Self::Token => "128",
            Self::V2Client => "546 to 1280",
        }
    }

    /// The line in front of the key.
    pub fn begin(self) -> String {
        format!("-----BEGIN {}-----", self.label())
    }

    /// The line behind the key.
    pub fn end(self) -> String {
        format!("-----END {}-----", self.label())
    }
}

/// What is wrong with a key file. Lines count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFileError {
    /// No line starts a block of the wanted kind; perhaps one of another kind is there.
    Missing {
        /// What was looked for.
        wanted: KeyFile,
        /// What is there instead.
        found: Option<KeyFile>,
    },
    /// The block has no end line.
    Unterminated(KeyFile),
    /// Something that is neither white space nor a digit of the encoding.
    BadCharacter {
        /// Where.
        line: usize,
        /// The byte.
        byte: u8,
    },
    /// A line of hex digits is too short or too long, and so is the key.
    LineLength {
        /// Where.
        line: usize,
        /// How many digits it has.
        digits: usize,
    },
    /// The key has another size than its kind.
    Length {
        /// What it should be.
        kind: KeyFile,
        /// Its size.
        bytes: usize,
    },
    /// The base64 text ends in the middle of a byte or has `=` inside.
    Base64,
    /// The wrapped key behind the client key is damaged.
    Wrapped(wkc::WkcError),
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Missing { wanted, found: None } => {
                write!(f, "no line \"{}\"", wanted.begin())
            }
            Self::Missing { wanted, found: Some(found) } => {
                write!(
                    f,
                    "holds a key of the kind \"{}\" instead of \"{}\"",
                    found.label(),
                    wanted.label()
                )
            }
            Self::Unterminated(kind) => write!(f, "no line \"{}\"", kind.end()),
            Self::BadCharacter { line, byte } => {
                write!(f, "line {line}: '{}' does not belong into a key", byte.escape_ascii())
            }
            Self::LineLength { line, digits } => {
                write!(f, "line {line}: {digits} hex digits instead of {HEX_LINE}")
            }
            Self::Length { kind, bytes } => {
                write!(f, "{bytes} bytes of key instead of {}", kind.size())
            }
            Self::Base64 => f.write_str("damaged base64 text"),
            Self::Wrapped(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for KeyFileError {}

/// Hex digits in a line as everybody writes them.
pub(super) const HEX_LINE: usize = 32;
/// Base64 digits in a line, as PEM wants it.
const BASE64_LINE: usize = 64;

/// The numbered lines between the dashes.
pub(super) fn block(file: &[u8], kind: KeyFile) -> Result<Vec<(usize, &[u8])>, KeyFileError> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let lines = || (1..).zip(file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii));
    let (begin, end) = (kind.begin(), kind.end());
    let mut inside = lines().skip_while(|(_, text)| *text != begin.as_bytes());
    if inside.next().is_none() {
        let found = KeyFile::ALL
            .into_iter()
            .find(|kind| lines().any(|(_, text)| text == kind.begin().as_bytes()));
        return Err(KeyFileError::Missing { wanted: kind, found });
    }
    let mut content = Vec::new();
    for (line, text) in inside {
        if text == end.as_bytes() {
            return Ok(content);
        }
        content.push((line, text));
    }
    Err(KeyFileError::Unterminated(kind))
}

/// The bytes of a block in base64.
pub(super) fn decode_base64(
    file: &[u8],
    kind: KeyFile,
) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let mut digits = Zeroizing::new(Vec::with_capacity(file.len()));
    for (line, text) in block(file, kind)? {
        for &byte in text.iter().filter(|byte| !byte.is_ascii_whitespace()) {
            if !byte.is_ascii_alphanumeric() && !matches!(byte, b'+' | b'/' | b'=') {
                return Err(KeyFileError::BadCharacter { line, byte });
            }
            digits.push(byte);
        }
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len()));
    BASE64.decode_vec(&*digits, &mut bytes).map_err(|_| KeyFileError::Base64)?;
    Ok(bytes)
}

/// A whole file in base64.
pub(super) fn encode_base64(bytes: &[u8], kind: KeyFile) -> Zeroizing<String> {
    let digits = Zeroizing::new(BASE64.encode(bytes));
    let mut text =
        Zeroizing::new(String::with_capacity(digits.len() / BASE64_LINE * (BASE64_LINE + 1) + 200));
    text.push_str(&kind.begin());
    for (i, digit) in digits.chars().enumerate() {
        if i % BASE64_LINE == 0 {
            text.push('\n');
        }
        text.push(digit);
    }
    text.push('\n');
    text.push_str(&kind.end());
    text.push('\n');
    text
}
