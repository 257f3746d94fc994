//! What a client may be called.
//!
//! The name becomes the certificate's common name, a file name in the state folder, a word in the
//! lists and, on the server, the name of a per-client file; so it is narrow on purpose.

use core::fmt;
use core::str::FromStr;

use crate::limits::MAX_NAME;

/// Common name of the server's certificate, which every profile checks.
pub const SERVER: &str = "sixgate-server";

/// A checked client name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientName(String);

impl ClientName {
    /// Reads a name that a person has typed; the error repeats it.
    pub fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error| format!("'{}': {error}", text.escape_debug()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no client name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadName {
    /// Nothing at all.
    Empty,
    /// More than 64 characters, which is all that a common name and stock peers hold [4.3].
    TooLong,
    /// A leading `-` looks like an option, a leading `.` like a hidden file or `..`.
    FirstCharacter,
    /// Only letters and digits of ASCII, `.`, `_` and `-` pass every place a name goes to.
    Character,
    /// The server's own name.
    Reserved,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a client name must not be empty",
            Self::TooLong => "a client name has at most 64 characters",
            Self::FirstCharacter => "a client name must not start with '-' or '.'",
            Self::Character => {
                "a client name consists of letters (A-Z, a-z), digits, '.', '_' and '-'"
            }
            Self::Reserved => "this name is the server's own",
        })
    }
}

impl core::error::Error for BadName {}

impl FromStr for ClientName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if text.is_empty() {
            Err(BadName::Empty)
        } else if !text.chars().all(allowed) {
            Err(BadName::Character)
        } else if text.len() > MAX_NAME {
            Err(BadName::TooLong)
        } else if text.starts_with(['-', '.']) {
            Err(BadName::FirstCharacter)
        } else if text.eq_ignore_ascii_case(SERVER) {
            Err(BadName::Reserved)
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_narrow() {
        for good in ["a", "client1", "Anna.phone_2-b", "x.ovpn", &"n".repeat(64)] {
            assert_eq!(good.parse::<ClientName>().unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", BadName::Empty),
            (&*"n".repeat(65), BadName::TooLong),
            ("-a", BadName::FirstCharacter),
            ("..", BadName::FirstCharacter),
            ("a/b", BadName::Character),
            ("a b", BadName::Character),
            ("ä", BadName::Character),
            ("a\n", BadName::Character),
            ("a\0", BadName::Character),
            ("sixgate-server", BadName::Reserved),
        ] {
            assert_eq!(bad.parse::<ClientName>(), Err(why), "{bad:?}");
        }
    }
}
