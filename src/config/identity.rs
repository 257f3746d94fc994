//! Who we are and whom we trust: certificates, and what is asked of the peer's [4.3].

use std::path::PathBuf;

use super::hooks::ClientCertificate;

/// Certificates, as PEM text (several per file allowed), and what is asked of the peer's.
#[derive(Clone)]
pub struct Tls {
    /// `ca`; empty where only `fingerprints` tell who is trusted.
    pub ca: Vec<u8>,
    /// `peer-fingerprint`: the SHA-256 of each certificate that a peer may have; empty for any.
    pub fingerprints: Vec<[u8; 32]>,
    /// `cert` and what follows it in the file or `extra-certs`.
    pub cert: Vec<u8>,
    /// `key`.
    pub key: zeroize::Zeroizing<Vec<u8>>,
    /// `tls-version-min`: 1.3 only when set so.
    pub only_tls13: bool,
    /// `tls-version-max 1.2`.
    pub only_tls12: bool,
    /// `remote-cert-tls`: key usage present and the extended key usage of the other role.
    pub require_usage: bool,
    /// `verify-x509-name`.
    pub verify_name: Option<VerifyName>,
    /// `crl-verify` file contents (PEM or DER); the path is kept so that it can be read again.
    pub crl: Option<(PathBuf, Vec<u8>)>,
    /// Serial numbers that are refused, big-endian without leading zeros.
    pub revoked: Vec<Vec<u8>>,
    /// (Server) whether clients must show a certificate at all.
    pub client_certificate: ClientCertificate,
}

/// `verify-x509-name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyName {
    /// The whole subject in OpenVPN's one-line form.
    Subject(String),
    /// The exact common name.
    Name(String),
    /// How the common name starts.
    NamePrefix(String),
}

impl core::fmt::Debug for Tls {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Tls").field("require_usage", &self.require_usage).finish_non_exhaustive()
    }
}
