//! Certificates and keys from PEM text into what rustls wants, with errors that say what to change.
//!
//! Every message begins with the directive it is about.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, TrustAnchor};
use rustls::sign::CertifiedKey;
use rustls::{DistinguishedName, Error as TlsError};
use webpki::OwnedCertRevocationList;
use x509_cert::Certificate;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, UintRef};
use x509_cert::der::oid::db::rfc5912::{ID_EC_PUBLIC_KEY, RSA_ENCRYPTION, SECP_521_R_1};
use x509_cert::der::{Decode as _, Reader as _, SliceReader};
use x509_cert::time::Time;

use crate::session::chain_error;
use crate::session::verify::{Authority, RevocationList};

/// RSA keys of fewer bits are neither made nor accepted by ring.
const MIN_RSA_BITS: u32 = 2048;
/// RSA keys of more bits cannot sign with ring.
const MAX_SIGNING_BITS: u32 = 4096;
/// RSA keys of more bits cannot be checked with ring.
const MAX_CHECKING_BITS: u32 = 8192;

/// The CA certificates of `ca`.
#[derive(Default)]
pub(super) struct Authorities {
    pub(super) anchors: Vec<TrustAnchor<'static>>,
    pub(super) authorities: Vec<Authority>,
    pub(super) hints: Vec<DistinguishedName>,
}

/// Reads `ca`.
pub(super) fn authorities(pem: &[u8]) -> Result<Authorities, String> {
    let mut all = Authorities::default();
    for der in certificates("ca", pem)? {
        let certificate = Certificate::from_der(&der)
            .map_err(|error| format!("ca: a certificate cannot be read: {error}"))?;
        let name = super::identity::one_line(&certificate.tbs_certificate.subject);
        if let Some(what) = unusable_key(&certificate, MAX_CHECKING_BITS) {
            log::warn!("ca: the key of '{name}' {what}: what it has issued will be refused");
        }
        let anchor = webpki::anchor_from_trusted_cert(&der)
            .map_err(|error| {
                let why = chain_error::in_words(&error);
                format!("ca: certificate '{name}' cannot be used: {why}")
            })?
            .to_owned();
        all.hints.push(DistinguishedName::in_sequence(&anchor.subject));
        all.anchors.push(anchor);
        let validity = certificate.tbs_certificate.validity;
        let not_after = validity.not_after.to_unix_duration();
        all.authorities.push(Authority { name, not_after, der: der.to_vec() });
    }
    Ok(all)
}

/// Reads `cert` and `key` and checks that they belong together and can be used.
pub(super) fn identity(
    provider: &CryptoProvider,
    cert: &[u8],
    key: &[u8],
) -> Result<CertifiedKey, String> {
    let chain = certificates("cert", cert)?;
    let leaf = chain.first().ok_or("cert: there is no certificate in it")?;
    let parsed = Certificate::from_der(leaf)
        .map_err(|error| format!("cert: the certificate cannot be read: {error}"))?;
    if let Some(what) = unusable_key(&parsed, MAX_SIGNING_BITS) {
        return Err(format!(
            "cert: its key {what}; make a new key and certificate with P-256, P-384, Ed25519 or \
             RSA of 2048 to 4096 bits"
        ));
    }
    let key = private_key(key)?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| format!("key: the private key cannot be used: {error}"))?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Ok(()) => Ok(identity),
        Err(TlsError::InconsistentKeys(_)) => Err("key: this private key does not belong to the \
             certificate in `cert`; check that both files are of the same peer"
            .to_owned()),
        Err(error) => Err(format!("cert: the certificate cannot be used: {error}")),
    }
}

/// When the certificate in `chain` ends, Unix time.
pub(super) fn not_after(chain: &CertifiedKey) -> Option<Duration> {
    let leaf = Certificate::from_der(chain.cert.first()?).ok()?;
    Some(leaf.tbs_certificate.validity.not_after.to_unix_duration())
}

/// Reads `crl-verify`: PEM (several lists allowed) or one DER list.
pub(super) fn revocation_lists(bytes: &[u8]) -> Result<Vec<RevocationList>, String> {
    let ders: Vec<CertificateRevocationListDer<'_>> = if bytes.first() == Some(&0x30) {
        vec![CertificateRevocationListDer::from(bytes)]
    } else {
        let read: Result<_, _> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
        read.map_err(|error| format!("not a revocation list: {error}"))?
    };
    if ders.is_empty() {
        return Err("there is no revocation list in it".to_owned());
    }
    let lists = ders.iter().map(|der| {
        let list = OwnedCertRevocationList::from_der(der).map_err(|error| {
            format!("the revocation list cannot be used: {}", chain_error::in_words(&error))
        })?;
        Ok(RevocationList { list: list.into(), next_update: next_update(der) })
    });
    lists.collect()
}

/// `nextUpdate` of a list that webpki has read. All the entries need no reading again for that.
fn next_update(der: &[u8]) -> Option<Duration> {
    let mut reader = SliceReader::new(der).ok()?;
    let time = reader.sequence(|list| {
        let time = list.sequence(|fields| {
            let _version: Option<u8> = fields.decode()?;
            let _algorithm: AnyRef<'_> = fields.decode()?;
            let _issuer: AnyRef<'_> = fields.decode()?;
            let _this_update: Time = fields.decode()?;
            let time: Option<Time> = fields.decode()?;
            while !fields.is_finished() {
                let _others: AnyRef<'_> = fields.decode()?;
            }
            Ok(time)
        })?;
        let _algorithm: AnyRef<'_> = list.decode()?;
        let _signature: AnyRef<'_> = list.decode()?;
        Ok(time)
    });
    time.ok()?.map(|time| time.to_unix_duration())
}

fn certificates(directive: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let list = read.map_err(|error| format!("{directive}: not PEM text: {error}"))?;
    if list.is_empty() {
        return Err(format!("{directive}: there is no certificate in it (PEM is wanted)"));
    }
    Ok(list)
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let has = |needle: &[u8]| pem.windows(needle.len()).any(|part| part == needle);
    if has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") {
        return Err("key: the private key is protected by a pass phrase, and a router has nobody \
             to ask for it; store it in the clear: openssl pkey -in OLD -out NEW"
            .to_owned());
    }
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| format!("key: there is no private key in it (PEM is wanted): {error}"))
}

/// Says what is wrong with a certificate's key if ring refuses it, which by itself only says
/// "unsupported" or "bad signature". `max_bits` limits RSA keys.
fn unusable_key(certificate: &Certificate, max_bits: u32) -> Option<String> {
    let info = &certificate.tbs_certificate.subject_public_key_info;
    if info.algorithm.oid == ID_EC_PUBLIC_KEY {
        let curve = info.algorithm.parameters.as_ref();
        let curve = curve.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        if curve == Some(SECP_521_R_1) {
            return Some("is on the curve P-521, which is not supported".to_owned());
        }
    }
    if info.algorithm.oid == RSA_ENCRYPTION {
        match info.subject_public_key.as_bytes().and_then(rsa_bits) {
            Some(bits) if bits < MIN_RSA_BITS => {
                return Some(format!("is RSA with {bits} bits, too few to be safe"));
            }
            Some(bits) if bits > max_bits => {
                return Some(format!("is RSA with {bits} bits, too many"));
            }
            Some(_) | None => {}
        }
    }
    None
}

/// Length of the modulus in `SEQUENCE { modulus INTEGER, exponent INTEGER }`.
fn rsa_bits(der: &[u8]) -> Option<u32> {
    let mut reader = SliceReader::new(der).ok()?;
    let modulus = reader.sequence(|fields| {
        let modulus: UintRef<'_> = fields.decode()?;
        let _exponent: UintRef<'_> = fields.decode()?;
        Ok(modulus)
    });
    let bytes = modulus.ok()?.as_bytes();
    let first = bytes.first()?;
    u32::try_from(bytes.len()).ok()?.checked_mul(8)?.checked_sub(first.leading_zeros())
}

/// One identity for every connection.
pub(super) fn resolver(identity: CertifiedKey) -> Arc<rustls::sign::SingleCertAndKey> {
    Arc::new(rustls::sign::SingleCertAndKey::from(identity))
}
