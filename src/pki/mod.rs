//! The certificate authority that `sixgate up` keeps, as pure functions from bytes to bytes.
//!
//! * [`authority`] makes keys and signs certificates (with rcgen), [`certificate`] reads them back
//!   (with x509-cert); neither encodes a byte of ASN.1 itself.
//! * [`names`] is what a client may be called, [`endpoint`] where clients find the server.
//! * [`index`] is the text of the two lists beside the CA: what was issued and what is revoked.
//! * [`profile`] and [`server_conf`] write the configuration of both ends.
//!
//! Left to others: files, locks and the order in which a state folder comes into being
//! (`sys::state`), checking a peer's certificate (`session::tls`), and the wrapping of
//! tls-crypt-v2 client keys [2.5] (`session::wrap`).
//!
//! Revocation is a list of serial numbers. A CRL would expire, and lock everybody out when it does.

pub mod authority;
pub mod certificate;
pub mod endpoint;
pub mod index;
pub mod names;
pub mod profile;
#[cfg(feature = "totp")]
pub mod qr;
pub mod server_conf;

use core::fmt;

/// Why a certificate could not be read or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PkiError {
    /// There is no certificate in PEM form in the text; the file is somebody else's or damaged.
    NoCertificate,
    /// There is a certificate, but its contents cannot be decoded.
    BadCertificate,
    /// There is no PKCS#8 private key in PEM form in the text.
    NoKey,
    /// The private key is not one for ECDSA on P-256, the only kind this CA uses.
    BadKey,
    /// Certificate and private key do not belong together.
    Mismatch,
    /// The certificate is not one that this program's CA could have made for itself.
    NotAnAuthority,
    /// Signing or key generation failed: the random source of the operating system does not work.
    Crypto,
}

impl fmt::Display for PkiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCertificate => "no PEM certificate found",
            Self::BadCertificate => "the certificate cannot be decoded",
            Self::NoKey => "no PEM private key (PKCS#8) found",
            Self::BadKey => "the private key is not an ECDSA key on P-256",
            Self::Mismatch => "the private key does not belong to the certificate",
            Self::NotAnAuthority => "the certificate is not a CA made by sixgate",
            Self::Crypto => "the cryptographic library failed",
        })
    }
}

impl core::error::Error for PkiError {}
