//! Who a certificate says its holder is: subject, common name, serial number, fingerprint [4.3].
//!
//! Whether to believe it is `verify`'s business.

use core::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, Tag, Tagged as _};
use x509_cert::name::Name;

use crate::time::UnixTime;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Attribute types by the short names that OpenSSL prints; others appear as dotted numbers.
const SHORT_NAMES: [(ObjectIdentifier, &str); 17] = [
    (COMMON_NAME, "CN"),
    (ObjectIdentifier::new_unwrap("2.5.4.4"), "SN"),
    (ObjectIdentifier::new_unwrap("2.5.4.5"), "serialNumber"),
    (ObjectIdentifier::new_unwrap("2.5.4.6"), "C"),
    (ObjectIdentifier::new_unwrap("2.5.4.7"), "L"),
    (ObjectIdentifier::new_unwrap("2.5.4.8"), "ST"),
    (ObjectIdentifier::new_unwrap("2.5.4.9"), "street"),
    (ObjectIdentifier::new_unwrap("2.5.4.10"), "O"),
    (ObjectIdentifier::new_unwrap("2.5.4.11"), "OU"),
    (ObjectIdentifier::new_unwrap("2.5.4.12"), "title"),
    (ObjectIdentifier::new_unwrap("2.5.4.13"), "description"),
    (ObjectIdentifier::new_unwrap("2.5.4.41"), "name"),
    (ObjectIdentifier::new_unwrap("2.5.4.42"), "GN"),
    (ObjectIdentifier::new_unwrap("2.5.4.43"), "initials"),
    (ObjectIdentifier::new_unwrap("2.5.4.46"), "dnQualifier"),
    (ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.25"), "DC"),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1"), "emailAddress"),
];

/// A peer as its certificate describes it. Texts hold no control characters. The default is a peer
/// that has shown none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The last common name of the subject; empty when there is none.
    pub common_name: String,
    /// The whole subject on one line: `C=DE, O=Example, CN=laptop`.
    pub subject: String,
    /// Serial number, big-endian without leading zeros.
    pub serial: Vec<u8>,
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
    /// When it ends.
    pub expires: Option<UnixTime>,
}

impl PeerIdentity {
    /// Reads a DER certificate; `None` when it is not one.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        Certificate::from_der(der).ok().map(|certificate| Self::new(&certificate, der))
    }

    /// The identity in a certificate that has been parsed from `der`.
    pub(super) fn new(certificate: &Certificate, der: &[u8]) -> Self {
        let tbs = &certificate.tbs_certificate;
        let common_name = attributes(&tbs.subject).filter(|attribute| attribute.oid == COMMON_NAME);
        let common_name = common_name.last().map(text).unwrap_or_default();
        let subject = one_line(&tbs.subject);
        Self {
            common_name,
            subject,
            serial: serial(certificate),
            fingerprint: Sha256::digest(der).into(),
            expires: Some(UnixTime(tbs.validity.not_after.to_unix_duration().as_secs())),
        }
    }
}

/// The serial number, big-endian without leading zeros.
pub(super) fn serial(certificate: &Certificate) -> Vec<u8> {
    let bytes = certificate.tbs_certificate.serial_number.as_bytes();
    bytes.iter().copied().skip_while(|byte| *byte == 0).collect()
}

/// The parts of a name that have a short name.
pub(super) fn fields(name: &Name) -> impl Iterator<Item = (&'static str, String)> + '_ {
    attributes(name).filter_map(|attribute| {
        let (_, short) = SHORT_NAMES.iter().find(|(oid, _)| *oid == attribute.oid)?;
        Some((*short, text(attribute)))
    })
}

fn attributes(name: &Name) -> impl Iterator<Item = &AttributeTypeAndValue> {
    name.0.iter().flat_map(|relative| relative.0.iter())
}

/// A name as OpenVPN prints it: `C=DE, O=Example, CN=laptop`.
pub(super) fn one_line(name: &Name) -> String {
    let mut line = String::new();
    for relative in &name.0 {
        for (at, attribute) in relative.0.iter().enumerate() {
            line.push_str(match at {
                0 if line.is_empty() => "",
                0 => ", ",
                _ => " + ",
            });
            let value = text(attribute);
            let known = SHORT_NAMES.iter().find(|(oid, _)| *oid == attribute.oid);
            // Writing to a String cannot fail.
            let _ok = match known {
                Some((_, name)) => write!(line, "{name}={value}"),
                None => write!(line, "{}={value}", attribute.oid),
            };
        }
    }
    line
}

/// The attribute as text. Control characters, an embedded NUL above all (CVE-2017-7522), become
/// `_`: they must not reach logs, hooks or file names.
fn text(attribute: &AttributeTypeAndValue) -> String {
    let bytes = attribute.value.value();
    let text: String = match attribute.value.tag() {
        // BMPString is UTF-16; old Microsoft tools write it.
        Tag::BmpString => {
            let (pairs, _) = bytes.as_chunks();
            let units: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
            String::from_utf16_lossy(&units)
        }
        // TeletexString is read as Latin-1, as everybody does.
        Tag::TeletexString => bytes.iter().copied().map(char::from).collect(),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    };
    text.chars().map(|c| if c.is_control() { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SerialNumber};

    use super::*;

    #[test]
    fn reads_subject_name_and_serial() {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&[0x80, 0x01]));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "DE");
        params.distinguished_name.push(DnType::OrganizationName, "A\0B\r\n");
        params.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 3, 4]), "x");
        let bmp = rcgen::string::BmpString::try_from("Küche").unwrap();
        params.distinguished_name.push(DnType::CommonName, DnValue::BmpString(bmp));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let identity = PeerIdentity::from_der(certificate.der()).unwrap();
        assert_eq!(identity.subject, "C=DE, O=A_B__, 1.2.3.4=x, CN=Küche");
        assert_eq!(identity.common_name, "Küche");
        assert_eq!(identity.serial, [0x80, 0x01]);
        assert_eq!(identity.fingerprint.as_slice(), Sha256::digest(certificate.der()).as_slice());
    }

    #[test]
    fn anything_that_is_not_a_certificate_is_none() {
        let params = CertificateParams::default();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        for len in 0..certificate.der().len() {
            assert_eq!(PeerIdentity::from_der(&certificate.der()[..len]), None);
        }
    }
}
