//! The two lists beside the CA: `issued` and `revoked`, one line per certificate.
//!
//! ```text
//! issued    SERIAL KIND NAME CREATED EXPIRES       5f0c… client client1 2026-11-02T09:30:00Z 2036-…
//! revoked   SERIAL NAME DATE                       5f0c… client1 2027-03-01T18:00:00Z
//! ```
//!
//! SERIAL is in hex; empty lines and lines that start with `#` do not count. A line that flash or an
//! editor has damaged is reported and costs only itself; in `revoked` the serial alone is enough,
//! since a revocation must not be lost to a bad date.

use core::fmt::{self, Write as _};
use core::str::FromStr;

use crate::pki::certificate::{date, parse_date};
use crate::random::Random;
use crate::time::UnixTime;

/// A certificate's serial number: big-endian, without leading zeros.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Vec<u8>);

impl Serial {
    /// Longest serial number that certificates may have, in bytes (RFC 5280, 4.1.2.2).
    const MAX_LEN: usize = 20;

    /// Strips leading zeros, so that equal numbers are equal.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Self(bytes.iter().skip(zeros).copied().collect())
    }

    /// 126 random bits: positive in DER without a padding byte, and never a leading zero.
    pub fn random(rng: &mut dyn Random) -> Self {
        let mut bytes = vec![0; 16];
        rng.fill(&mut bytes);
        if let Some(first) = bytes.first_mut() {
            *first = (*first & 0x3f) | 0x40;
        }
        Self(bytes)
    }

    /// The number's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The text is no serial number: two hex digits per byte, 1 to 20 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadSerial;

impl FromStr for Serial {
    type Err = BadSerial;

    fn from_str(text: &str) -> Result<Self, BadSerial> {
        let digits: Option<Vec<u8>> =
            text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
        let digits = digits.ok_or(BadSerial)?;
        let (pairs, rest) = digits.as_chunks::<2>();
        if pairs.is_empty() || !rest.is_empty() || pairs.len() > Self::MAX_LEN {
            return Err(BadSerial);
        }
        let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        Ok(Self::from_bytes(&bytes))
    }
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `remote-cert-tls server` passes.
    Server,
    /// `remote-cert-tls client` passes.
    Client,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// A line of `issued`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Serial number.
    pub serial: Serial,
    /// Server or client.
    pub kind: Kind,
    /// Common name.
    pub name: String,
    /// When it was signed, as far as the clock knew.
    pub created: UnixTime,
    /// End of validity.
    pub expires: UnixTime,
}

/// A line of `revoked`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Serial number.
    pub serial: Serial,
    /// Common name; empty where the line is damaged.
    pub name: String,
    /// When it was revoked; the epoch where the line is damaged.
    pub date: UnixTime,
}

/// What could be read of a list, and the numbers (from 1) of the lines that are damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<T> {
    /// The good lines.
    pub entries: Vec<T>,
    /// The bad lines.
    pub damaged: Vec<usize>,
}

/// Reads `issued`.
pub fn parse_issued(text: &[u8]) -> Parsed<Issued> {
    parse(text, |words| {
        let [serial, kind, name, created, expires] = words else { return None };
        let kind = [Kind::Server, Kind::Client].into_iter().find(|k| k.as_str() == *kind)?;
        Some((
            Issued {
                serial: serial.parse().ok()?,
                kind,
                name: (*name).to_owned(),
                created: parse_date(created)?,
                expires: parse_date(expires)?,
            },
            true,
        ))
    })
}

/// Reads `revoked`.
pub fn parse_revoked(text: &[u8]) -> Parsed<Revoked> {
    parse(text, |words| {
        let serial = words.first()?.parse().ok()?;
        let date = words.get(2).and_then(|word| parse_date(word));
        let name = words.get(1).map(|name| (*name).to_owned()).unwrap_or_default();
        let whole = words.len() == 3 && date.is_some();
        Some((Revoked { serial, name, date: date.unwrap_or_default() }, whole))
    })
}

/// `line` gives the entry, and whether the line is undamaged.
fn parse<T>(text: &[u8], line: impl Fn(&[&str]) -> Option<(T, bool)>) -> Parsed<T> {
    let mut parsed = Parsed { entries: Vec::new(), damaged: Vec::new() };
    for (number, text) in String::from_utf8_lossy(text).lines().enumerate() {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        if words.first().is_none_or(|word| word.starts_with('#')) {
            continue;
        }
        let entry = line(&words);
        if !entry.as_ref().is_some_and(|(_, whole)| *whole) {
            parsed.damaged.push(number + 1);
        }
        parsed.entries.extend(entry.map(|(entry, _)| entry));
    }
    parsed
}

/// The contents of `issued` with one more line; what is there stays as it is, damaged or not.
pub fn append_issued(mut text: Vec<u8>, entry: &Issued) -> Vec<u8> {
    let Issued { serial, kind, name, created, expires } = entry;
    let (kind, created, expires) = (kind.as_str(), date(*created), date(*expires));
    append(&mut text, format_args!("{serial} {kind} {name} {created} {expires}"));
    text
}

/// The contents of `revoked` with one more line; what is there stays as it is, damaged or not.
pub fn append_revoked(mut text: Vec<u8>, entry: &Revoked) -> Vec<u8> {
    append(&mut text, format_args!("{} {} {}", entry.serial, entry.name, date(entry.date)));
    text
}

fn append(text: &mut Vec<u8>, line: fmt::Arguments<'_>) {
    // A last line without its end would swallow the new one.
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    let mut new = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(new, "{line}");
    text.extend_from_slice(new.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(serial: &str, name: &str) -> Issued {
        Issued {
            serial: serial.parse().unwrap(),
            kind: Kind::Client,
            name: name.to_owned(),
            created: UnixTime(1_790_000_000),
            expires: UnixTime(2_100_000_000),
        }
    }

    #[test]
    fn lists_go_there_and_back() {
        let (a, b) = (issued("0102", "anna"), issued("ff", "b.b"));
        let text = append_issued(append_issued(b"# made by hand".to_vec(), &a), &b);
        assert_eq!(parse_issued(&text), Parsed { entries: vec![a, b], damaged: vec![] });

        let gone = Revoked {
            serial: "a0".parse().unwrap(),
            name: "anna".to_owned(),
            date: UnixTime(1_800_000_000),
        };
        let text = append_revoked(Vec::new(), &gone);
        assert_eq!(text, b"a0 anna 2027-01-15T08:00:00Z\n");
        assert_eq!(parse_revoked(&text), Parsed { entries: vec![gone], damaged: vec![] });
    }

    #[test]
    fn damage_costs_one_line_each() {
        let good = issued("0102", "anna");
        let mut text = append_issued(Vec::new(), &good);
        text.extend_from_slice(b"\n\xff\xfe\x00 client x\n0102 cli");
        let text = append_issued(text, &issued("03", "c"));
        let parsed = parse_issued(&text);
        assert_eq!(parsed.entries, [good, issued("03", "c")]);
        assert_eq!(parsed.damaged, [3, 4]);
    }

    #[test]
    fn every_truncation_keeps_the_lines_before_it() {
        let one = append_issued(Vec::new(), &issued("0102", "anna"));
        let two = append_issued(one.clone(), &issued("0304", "bert"));
        for cut in one.len()..two.len() - 1 {
            let parsed = parse_issued(two.get(..cut).unwrap());
            assert_eq!(parsed.entries, [issued("0102", "anna")]);
        }
    }

    #[test]
    fn a_revocation_needs_no_more_than_the_serial() {
        let parsed = parse_revoked(b"0a\n0b anna 20\xff7\nzz anna 2027-01-15T08:00:00Z\n");
        let serials: Vec<String> = parsed.entries.iter().map(|e| e.serial.to_string()).collect();
        assert_eq!(serials, ["0a", "0b"]);
        assert_eq!(parsed.damaged, [1, 2, 3]);
    }

    #[test]
    fn serials_are_canonical() {
        assert_eq!("000102".parse::<Serial>().unwrap().as_bytes(), [1, 2]);
        for bad in ["", "0", "0g", "+1", &"00".repeat(21)] {
            assert_eq!(bad.parse::<Serial>(), Err(BadSerial));
        }
        for byte in [0, 0xff] {
            let serial = Serial::random(&mut |out: &mut [u8]| out.fill(byte));
            assert_eq!(serial.as_bytes().len(), 16);
            assert!((0x40..0x80).contains(serial.as_bytes().first().unwrap()));
        }
    }
}
