//! `totp`: the secret that a client's authenticator app shares with the server, in base32.

use core::fmt;

use data_encoding::BASE32_NOPAD;
use zeroize::Zeroizing;

/// Bytes of a secret that we make: as long as the hash (RFC 4226, 4, R6).
pub const SECRET: usize = 20;
/// Bytes of one that somebody else has made.
const ACCEPTED: core::ops::RangeInclusive<usize> = 10..=64;

/// A shared secret, wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct TotpSecret(Zeroizing<Vec<u8>>);

impl TotpSecret {
    /// One of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// Reads base32 as apps show it: in groups, in small letters, with or without padding.
    pub fn parse(text: &str) -> Option<Self> {
        let mut plain = Zeroizing::new(String::with_capacity(text.len()));
        let kept = text.trim_end_matches('=').chars().filter(|c| !matches!(c, ' ' | '-'));
        plain.extend(kept.map(|c| c.to_ascii_uppercase()));
        let bytes = Zeroizing::new(BASE32_NOPAD.decode(plain.as_bytes()).ok()?);
        ACCEPTED.contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// In base32.
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE32_NOPAD.encode(&self.0))
    }

    /// What authenticator apps read from a QR code: `account` within `issuer`.
    pub fn uri(&self, issuer: &str, account: &str) -> Zeroizing<String> {
        let (issuer, account) = (escaped(issuer), escaped(account));
        let text = self.text();
        Zeroizing::new(format!(
            "otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}",
            *text
        ))
    }
}

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpSecret(..)")
    }
}

/// Percent-encodes what has a meaning in a URI (RFC 3986, 2.3).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_as_people_type_them() {
        let plain = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
        let secret = TotpSecret::parse(plain).unwrap();
        assert_eq!(secret.as_bytes(), b"12345678901234567890");
        assert_eq!(*secret.text(), plain);
        for same in [
            "gezd gnbv gy3t qojq gezd gnbv gy3t qojq",
            "GEZD-GNBV-GY3T-QOJQ-GEZD-GNBV-GY3T-QOJQ",
            "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ======",
        ] {
            assert_eq!(TotpSecret::parse(same), Some(secret.clone()), "{same}");
        }
        for bad in ["", "GEZDGNBV", "GEZDGNBVGY3TQOJ1GEZDGNBVGY3TQOJ1", &plain.repeat(4)] {
            assert_eq!(TotpSecret::parse(bad), None, "{bad}");
        }
        assert!(!format!("{secret:?}").contains("GEZD"));
    }

    #[test]
    fn the_uri_of_apps() {
        let secret = TotpSecret::new(b"12345678901234567890");
        assert_eq!(
            *secret.uri("vpn.example.org", "Ann's phone"),
            "otpauth://totp/vpn.example.org:Ann%27s%20phone?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=vpn.example.org"
        );
    }
}
