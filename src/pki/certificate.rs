//! What a certificate says, as far as the CA's own bookkeeping needs it.
//!
//! Leaves verification to `session::tls`, and ASN.1 to x509-cert.

use core::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::der::asn1::{PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{DateTime, Decode};
use x509_cert::ext::pkix::{BasicConstraints, SubjectKeyIdentifier};
use x509_cert::name::Name;

use crate::pki::PkiError;
use crate::pki::index::Serial;
use crate::time::UnixTime;

/// id-at-commonName.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The fields of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Serial number.
    pub serial: Serial,
    /// Common name of the subject; empty when there is none.
    pub common_name: String,
    /// Whether the subject consists of nothing but the common name, as in all certificates made here.
    pub plain_subject: bool,
    /// Start of validity.
    pub not_before: UnixTime,
    /// End of validity.
    pub not_after: UnixTime,
    /// The bits of the public key (for P-256 the uncompressed point, 65 bytes).
    pub public_key: Vec<u8>,
    /// The subject key identifier, which issued certificates name as their issuer's.
    pub key_id: Option<Vec<u8>>,
    /// Whether basic constraints allow it to sign certificates.
    pub is_ca: bool,
}

impl Certificate {
    /// Reads the first certificate of a PEM text; whatever stands around it is ignored.
    pub fn from_pem(pem: &[u8]) -> Result<Self, PkiError> {
        let der = CertificateDer::from_pem_slice(pem).map_err(|_| PkiError::NoCertificate)?;
        Self::from_der(&der).ok_or(PkiError::BadCertificate)
    }

    fn from_der(der: &[u8]) -> Option<Self> {
        let tbs = x509_cert::Certificate::from_der(der).ok()?.tbs_certificate;
        let constraints = tbs.get::<BasicConstraints>().ok()?;
        let key_id = tbs.get::<SubjectKeyIdentifier>().ok()?;
        let common_name = common_name(&tbs.subject);
        Some(Self {
            serial: Serial::from_bytes(tbs.serial_number.as_bytes()),
            plain_subject: common_name.is_some() && tbs.subject.0.len() == 1,
            common_name: common_name.unwrap_or_default(),
            not_before: UnixTime(tbs.validity.not_before.to_unix_duration().as_secs()),
            not_after: UnixTime(tbs.validity.not_after.to_unix_duration().as_secs()),
            public_key: tbs.subject_public_key_info.subject_public_key.raw_bytes().to_vec(),
            key_id: key_id.map(|(_, id)| id.0.as_bytes().to_vec()),
            is_ca: constraints.is_some_and(|(_, constraints)| constraints.ca),
        })
    }
}

fn common_name(subject: &Name) -> Option<String> {
    let value =
        &subject.0.iter().flat_map(|rdn| rdn.0.iter()).find(|a| a.oid == COMMON_NAME)?.value;
    let utf8 = value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
    utf8.or_else(|_| {
        value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned())
    })
    .ok()
}

/// A time as people and the lists write it: `2036-01-31T12:00:00Z`.
pub fn date(time: UnixTime) -> String {
    DateTime::from_unix_duration(Duration::from_secs(time.0))
        .unwrap_or(DateTime::INFINITY)
        .to_string()
}

/// The opposite of [`date`].
pub fn parse_date(text: &str) -> Option<UnixTime> {
    text.parse::<DateTime>().ok().map(|date| UnixTime(date.unix_duration().as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_go_there_and_back() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(date(UnixTime(seconds)), text);
            assert_eq!(parse_date(text), Some(UnixTime(seconds)));
        }
        assert_eq!(date(UnixTime(u64::MAX)), "9999-12-31T23:59:59Z");
        for bad in ["", "2036", "2036-13-01T00:00:00Z", "2036-01-31 12:00:00"] {
            assert_eq!(parse_date(bad), None);
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert_eq!(Certificate::from_pem(b""), Err(PkiError::NoCertificate));
        let empty = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        assert_eq!(Certificate::from_pem(empty), Err(PkiError::BadCertificate));
    }
}
