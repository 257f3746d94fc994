//! The CA itself: makes its key and certificate, and signs those of servers and clients.
//!
//! Everything is ECDSA on P-256, which every peer since OpenVPN 2.4 takes and which a small MIPS
//! router signs in milliseconds. Encoding is rcgen's; key generation and signing draw their
//! randomness from ring, not from [`Random`], so only serial numbers repeat in tests.
//!
//! Validity starts at the epoch: a router without a clock battery boots in 1970 or at some old
//! date, and "not yet valid" would lock its owner out until NTP works, perhaps over this tunnel.

use core::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_cert::der::pem::{LineEnding, encode_string};
use zeroize::Zeroizing;

use crate::pki::PkiError;
use crate::pki::certificate::Certificate;
use crate::pki::index::{Issued, Kind, Serial};
use crate::random::Random;
use crate::time::UnixTime;

/// End of the CA: 2049-12-31 23:59:59, the last second that certificates encode with a two-digit
/// year (RFC 5280, 4.1.2.5) and so the last that old decoders are sure to read.
const CA_END: UnixTime = UnixTime(2_524_607_999);

/// A new CA lives so long when `CA_END` has come too near.
const CA_LIFE: u64 = 30 * YEAR;

/// Life of a server certificate. It renews itself, see [`renewal_due`].
const SERVER_LIFE: u64 = 2 * YEAR;

/// Life of a client certificate: somebody has to carry a new one to the device.
const CLIENT_LIFE: u64 = 10 * YEAR;

/// Seconds.
const YEAR: u64 = 365 * 86400;

/// Makes a private key; as PEM, PKCS#8.
pub fn new_key() -> Result<Zeroizing<String>, PkiError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| PkiError::Crypto)?;
    key_pem(&Zeroizing::new(key))
}

/// The CA's own certificate for its key, as PEM.
///
/// Its name derives from the key: when only the certificate was lost (or never got written) the new
/// one stands for the same CA, and what was issued before still verifies.
pub fn self_sign(key: &[u8], now: UnixTime, rng: &mut dyn Random) -> Result<String, PkiError> {
    let key = load_key(key)?;
    let end = if CA_END.0 < now.0.saturating_add(CLIENT_LIFE) {
        UnixTime(now.0.saturating_add(CA_LIFE))
    } else {
        CA_END
    };
    let digest = Sha256::digest(key.public_key_raw());
    let mut name = String::from("sixgate CA ");
    name.push_str(&Serial::from_bytes(digest.first_chunk::<4>().unwrap_or(&[1; 4])).to_string());

    let mut params = blank(&name, end);
    params.serial_number = Some(SerialNumber::from(Serial::random(rng).as_bytes().to_vec()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&*key).map_err(|_| PkiError::Crypto)?;
    certificate_pem(certificate.der())
}

/// A certificate that was just signed.
pub struct Signed {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM, PKCS#8.
    pub key: Zeroizing<String>,
    /// Its line for the list.
    pub entry: Issued,
}

/// A CA that is ready to sign.
pub struct Authority {
    /// Name and key identifier as the CA's certificate has them; the rest is unused.
    params: CertificateParams,
    key: Zeroizing<KeyPair>,
    not_after: UnixTime,
}

impl Authority {
    /// Takes up a CA that [`self_sign`] made. Both arguments are PEM.
    pub fn load(certificate: &[u8], key: &[u8]) -> Result<Self, PkiError> {
        let certificate = Certificate::from_pem(certificate)?;
        let key = load_key(key)?;
        if certificate.public_key != key.public_key_raw() {
            return Err(PkiError::Mismatch);
        }
        let key_id = certificate.key_id.filter(|_| certificate.is_ca && certificate.plain_subject);
        let key_id = key_id.ok_or(PkiError::NotAnAuthority)?;
        let mut params = blank(&certificate.common_name, certificate.not_after);
        params.key_identifier_method = KeyIdMethod::PreSpecified(key_id);
        Ok(Self { params, key, not_after: certificate.not_after })
    }

    /// Makes a key and a certificate for `name`, which must have been checked.
    pub fn issue(
        &self,
        kind: Kind,
        name: &str,
        now: UnixTime,
        rng: &mut dyn Random,
    ) -> Result<Signed, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| PkiError::Crypto)?;
        let key = Zeroizing::new(key);
        let serial = Serial::random(rng);
        let expires = self.end_of_life(kind, now);

        let mut params = blank(name, expires);
        params.serial_number = Some(SerialNumber::from(serial.as_bytes().to_vec()));
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        let (usage, purpose) = usages(kind);
        params.key_usages = usage.to_vec();
        params.extended_key_usages = vec![purpose];

        let issuer = Issuer::from_params(&self.params, &*self.key);
        let certificate = params.signed_by(&*key, &issuer).map_err(|_| PkiError::Crypto)?;
        Ok(Signed {
            certificate: certificate_pem(certificate.der())?,
            key: key_pem(&key)?,
            entry: Issued { serial, kind, name: name.to_owned(), created: now, expires },
        })
    }

    /// A certificate outlives neither its kind nor the CA. When the clock is plainly wrong, only
    /// the CA's end is known to lie in the future.
    fn end_of_life(&self, kind: Kind, now: UnixTime) -> UnixTime {
        if now < UnixTime::EARLIEST {
            return self.not_after;
        }
        let life = match kind {
            Kind::Server => SERVER_LIFE,
            Kind::Client => CLIENT_LIFE,
        };
        UnixTime(now.0.saturating_add(life)).min(self.not_after)
    }

    /// Whether a server certificate made now would end well after `not_after`. At the CA's own end it
    /// would not, and renewing every day would only wear the flash.
    pub fn renewal_gains(&self, not_after: UnixTime, now: UnixTime) -> bool {
        let gain = self.end_of_life(Kind::Server, now).0.saturating_sub(not_after.0);
        gain > SERVER_LIFE / 3
    }
}

/// Whether a server certificate that ends at `not_after` should make room for a new one: less than
/// a third of its life is left, as far as a clock that works can tell.
pub fn renewal_due(not_after: UnixTime, now: UnixTime) -> bool {
    now >= UnixTime::EARLIEST && not_after.0.saturating_sub(now.0) < SERVER_LIFE / 3
}

/// Key usage and extended key usage as stock peers check them with `remote-cert-tls` [4.3].
///
/// OpenVPN 3 compares the whole key usage with a list: a server's must be exactly digitalSignature
/// with keyEncipherment (RSA) or with keyAgreement (EC), a client's may be digitalSignature alone.
fn usages(kind: Kind) -> (&'static [KeyUsagePurpose], ExtendedKeyUsagePurpose) {
    match kind {
        Kind::Server => (
            &[KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyAgreement],
            ExtendedKeyUsagePurpose::ServerAuth,
        ),
        Kind::Client => (&[KeyUsagePurpose::DigitalSignature], ExtendedKeyUsagePurpose::ClientAuth),
    }
}

fn blank(name: &str, end: UnixTime) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = epoch;
    // The largest time that ASN.1 can write is the end of the year 9999.
    params.not_after = epoch + Duration::from_secs(end.0.min(253_402_300_799));
    params
}

fn load_key(pem: &[u8]) -> Result<Zeroizing<KeyPair>, PkiError> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| PkiError::NoKey)?;
    let der = Zeroizing::new(der);
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)
        .map(Zeroizing::new)
        .map_err(|_| PkiError::BadKey)
}

fn key_pem(key: &KeyPair) -> Result<Zeroizing<String>, PkiError> {
    encode_string("PRIVATE KEY", LineEnding::LF, key.serialized_der())
        .map(Zeroizing::new)
        .map_err(|_| PkiError::Crypto)
}

fn certificate_pem(der: &[u8]) -> Result<String, PkiError> {
    encode_string("CERTIFICATE", LineEnding::LF, der).map_err(|_| PkiError::Crypto)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_790_000_000);

    fn seeded() -> impl FnMut(&mut [u8]) {
        let mut next = 0u8;
        move |out: &mut [u8]| {
            for byte in out {
                next = next.wrapping_mul(5).wrapping_add(113);
                *byte = next;
            }
        }
    }

    fn authority(now: UnixTime) -> (String, Zeroizing<String>, Authority) {
        let key = new_key().unwrap();
        let certificate = self_sign(key.as_bytes(), now, &mut seeded()).unwrap();
        let authority = Authority::load(certificate.as_bytes(), key.as_bytes()).unwrap();
        (certificate, key, authority)
    }

    #[test]
    fn certificates_say_what_they_should() {
        let (pem, _, ca) = authority(NOW);
        let own = Certificate::from_pem(pem.as_bytes()).unwrap();
        assert!(own.is_ca && own.plain_subject && own.common_name.starts_with("sixgate CA "));
        assert_eq!((own.not_before, own.not_after), (UnixTime(0), CA_END));

        for (kind, life) in [(Kind::Server, SERVER_LIFE), (Kind::Client, CLIENT_LIFE)] {
            let signed = ca.issue(kind, "anna", NOW, &mut seeded()).unwrap();
            let leaf = Certificate::from_pem(signed.certificate.as_bytes()).unwrap();
            assert_eq!(leaf.common_name, "anna");
            assert_eq!(leaf.serial, signed.entry.serial);
            assert_eq!((leaf.not_before, leaf.not_after), (UnixTime(0), signed.entry.expires));
            assert_eq!(leaf.not_after, UnixTime(NOW.0 + life));
            assert!(!leaf.is_ca);
            let key = load_key(signed.key.as_bytes()).unwrap();
            assert_eq!(leaf.public_key, key.public_key_raw());
        }
    }

    #[test]
    fn chains_verify_for_their_purpose_only_even_in_1970() {
        let (pem, _, ca) = authority(NOW);
        let root = rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let anchors = [webpki::anchor_from_trusted_cert(&root).unwrap()];
        let signed = ca.issue(Kind::Server, "s", NOW, &mut seeded()).unwrap();
        let leaf = rustls::pki_types::CertificateDer::from_pem_slice(signed.certificate.as_bytes())
            .unwrap();
        let leaf = webpki::EndEntityCert::try_from(&leaf).unwrap();
        let verify = |seconds, usage| {
            let time = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            let algorithms = &[webpki::ring::ECDSA_P256_SHA256];
            leaf.verify_for_usage(algorithms, &anchors, &[], time, usage, None, None).is_ok()
        };
        assert!(verify(0, webpki::KeyUsage::server_auth()));
        assert!(verify(NOW.0 + SERVER_LIFE, webpki::KeyUsage::server_auth()));
        assert!(!verify(NOW.0 + SERVER_LIFE + 1, webpki::KeyUsage::server_auth()));
        assert!(!verify(NOW.0, webpki::KeyUsage::client_auth()));
    }

    #[test]
    fn a_lost_ca_certificate_comes_back_with_the_same_name_and_key() {
        let (pem, key, _) = authority(NOW);
        let again = self_sign(key.as_bytes(), UnixTime(NOW.0 + 9), &mut seeded()).unwrap();
        let (old, new) = (
            Certificate::from_pem(pem.as_bytes()).unwrap(),
            Certificate::from_pem(again.as_bytes()).unwrap(),
        );
        assert_eq!((old.common_name, old.key_id), (new.common_name, new.key_id));
    }

    #[test]
    fn foreign_and_mixed_up_files_are_refused() {
        let (pem, key, ca) = authority(NOW);
        let other = new_key().unwrap();
        let load = |cert: &str, key: &str| {
            Authority::load(cert.as_bytes(), key.as_bytes()).map(|_| ()).unwrap_err()
        };
        assert_eq!(load(&pem, &other), PkiError::Mismatch);
        assert_eq!(load(&pem, &pem), PkiError::NoKey);
        assert_eq!(load(&key, &key), PkiError::NoCertificate);
        let bad = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
        assert_eq!(load(&pem, bad), PkiError::BadKey);
        let leaf = ca.issue(Kind::Client, "c", NOW, &mut seeded()).unwrap();
        assert_eq!(load(&leaf.certificate, &leaf.key), PkiError::NotAnAuthority);
    }

    #[test]
    fn lifetimes_follow_clock_and_ca() {
        let (_, _, ca) = authority(NOW);
        // A machine in 1970 cannot know when two years are over.
        assert_eq!(ca.end_of_life(Kind::Server, UnixTime(5)), CA_END);
        assert_eq!(ca.end_of_life(Kind::Client, UnixTime(CA_END.0 - 9)), CA_END);

        let end = ca.end_of_life(Kind::Server, NOW);
        let third = SERVER_LIFE / 3;
        assert!(!renewal_due(end, NOW));
        assert!(!renewal_due(end, UnixTime(end.0 - third)));
        assert!(renewal_due(end, UnixTime(end.0 - third + 1)));
        assert!(renewal_due(end, UnixTime(end.0 + 1)), "expired");
        assert!(!renewal_due(end, UnixTime(5)), "no clock");
        assert!(ca.renewal_gains(end, UnixTime(end.0 - third + 1)));
        assert!(!ca.renewal_gains(CA_END, UnixTime(CA_END.0 - 9)), "the CA ends, too");

        // Founded late, the CA still lives.
        let late = UnixTime(CA_END.0 - YEAR);
        assert_eq!(authority(late).2.not_after, UnixTime(late.0 + CA_LIFE));
    }
}
