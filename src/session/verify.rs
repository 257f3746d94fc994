//! Is the peer's certificate good? Chain, validity, purpose, name and revocation [4.3].
//!
//! webpki walks the chain; this adds what OpenVPN asks for beyond it, and says in words what is
//! wrong with whose certificate. No name is checked against a host: VPN certificates carry none.

use core::cell::Cell;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, SignatureScheme,
};
use webpki::{CertRevocationList, EndEntityCert, KeyUsage as Purpose};
use x509_cert::Certificate;
use x509_cert::der::{DateTime, Decode as _};
use x509_cert::ext::pkix::{ExtendedKeyUsage, KeyUsage};

use crate::config::VerifyName;
use crate::config::hooks::ClientCertificate;
use crate::limits::MAX_NAME;
use crate::session::Role;
use crate::session::chain_error;
use crate::session::describe::hex;
use crate::session::identity::{PeerIdentity, one_line};

/// Before this moment (2024-01-01) a clock has not been set: routers boot in 1970 or at the time of
/// their firmware.
const CLOCK_UNSET: Duration = Duration::from_secs(1_704_067_200);
/// Longest chain that is looked at (stock: depth 16).
const MAX_CHAIN: usize = 16;

/// Serial numbers refused whatever the certificate says: big-endian, without leading zeros.
pub(super) type Revoked = Arc<RwLock<BTreeSet<Vec<u8>>>>;

/// A CA certificate that chains may end in.
pub(super) struct Authority {
    pub(super) name: String,
    pub(super) not_after: Duration,
    pub(super) der: Vec<u8>,
}

/// A certificate revocation list, and until when its issuer vouches for it.
pub(super) struct RevocationList {
    pub(super) list: CertRevocationList<'static>,
    pub(super) next_update: Option<Duration>,
}

/// What is asked of the peer's certificate. rustls calls it in the middle of a handshake.
pub(super) struct PeerVerifier {
    /// The peer's role: what its certificate must be meant for.
    pub(super) peer: Role,
    pub(super) require_usage: bool,
    /// Whether a client may, or must, show a certificate.
    pub(super) certificate: ClientCertificate,
    pub(super) name: Option<VerifyName>,
    /// Of the certificates that are accepted, if not any. Without authorities these alone tell who is
    /// trusted: nobody vouches for a certificate then, nor for how long it is good [4.3].
    pub(super) fingerprints: Vec<[u8; 32]>,
    /// In step with `authorities`.
    pub(super) anchors: Vec<TrustAnchor<'static>>,
    pub(super) authorities: Vec<Authority>,
    pub(super) hints: Vec<DistinguishedName>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    pub(super) crls: Vec<RevocationList>,
    pub(super) revoked: Revoked,
    /// Why the certificate seen last was refused, in words. The handshake's caller takes it right
    /// after the failure, in the same thread.
    pub(super) refusal: Mutex<Option<String>>,
    /// Said once, not at each handshake, which strangers can start as often as they like.
    pub(super) warned_clock: AtomicBool,
    /// Likewise.
    pub(super) warned_crl: AtomicBool,
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerVerifier").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A refusal: the error decides which TLS alert the peer gets, the text is for our log.
type Refusal = (CertificateError, String);

impl PeerVerifier {
    /// The reason of the refusal that has just happened.
    pub(super) fn take_refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), TlsError> {
        self.check(leaf, intermediates, now.as_secs()).map_err(|(error, text)| {
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
            TlsError::InvalidCertificate(error)
        })
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        unix: u64,
    ) -> Result<(), Refusal> {
        let unreadable =
            || (CertificateError::BadEncoding, "its certificate cannot be read".to_owned());
        let certificate = Certificate::from_der(leaf).map_err(|_| unreadable())?;
        let end_entity = EndEntityCert::try_from(leaf).map_err(|_| unreadable())?;
        let identity = PeerIdentity::new(&certificate, leaf);
        let whose = whose(&identity);
        if intermediates.len() >= MAX_CHAIN {
            let text = format!("{whose} comes with too many others");
            return Err((CertificateError::UnknownIssuer, text));
        }
        self.check_fingerprint(&identity, &whose)?;
        if self.fingerprints.is_empty() || !self.authorities.is_empty() {
            let time = self.moment(&certificate, intermediates, unix);
            self.check_chain(&end_entity, intermediates, time)
                .map_err(|reason| reason.explain(&certificate, &whose, self.peer))?;
        }
        if self.require_usage {
            self.check_usage(&certificate, &whose)?;
        }
        self.check_name(&identity, &whose)?;
        let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        if revoked.contains(&identity.serial) {
            return Err((CertificateError::Revoked, format!("{whose} is revoked")));
        }
        Ok(())
    }

    fn check_fingerprint(&self, identity: &PeerIdentity, whose: &str) -> Result<(), Refusal> {
        if self.fingerprints.is_empty() || self.fingerprints.contains(&identity.fingerprint) {
            return Ok(());
        }
        let shown = hex(&identity.fingerprint);
        let text =
            format!("{whose} has the fingerprint {shown}, which peer-fingerprint does not list");
        Err((CertificateError::UnknownIssuer, text))
    }

    /// The time to judge by. Without a clock, the latest "not before" of the chain: nothing is
    /// refused for being too new, or else a router could not connect to learn the time.
    fn moment(&self, leaf: &Certificate, others: &[CertificateDer<'_>], unix: u64) -> Duration {
        let unix = Duration::from_secs(unix);
        if unix >= CLOCK_UNSET {
            return unix;
        }
        if !self.warned_clock.swap(true, Ordering::Relaxed) {
            log::warn!("the clock is not set: not checking when certificates begin to be valid");
        }
        let start = |certificate: &Certificate| {
            certificate.tbs_certificate.validity.not_before.to_unix_duration()
        };
        let others = others.iter().filter_map(|der| Certificate::from_der(der).ok());
        others.map(|other| start(&other)).chain([start(leaf), unix]).max().unwrap_or(unix)
    }

    fn check_chain(
        &self,
        leaf: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        time: Duration,
    ) -> Result<(), ChainFault> {
        let purpose = match self.peer {
            Role::Client => Purpose::client_auth(),
            Role::Server => Purpose::server_auth(),
        };
        let lists: Vec<&CertRevocationList<'_>> = self.crls.iter().map(|crl| &crl.list).collect();
        // A certificate no list speaks of is good, and so is a list past its date: refusing would
        // lock everybody out because a renewal was forgotten.
        let revocation = webpki::RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_status_policy(webpki::UnknownStatusPolicy::Allow)
                .with_expiration_policy(webpki::ExpirationPolicy::Ignore)
                .build()
        });
        let outdated = self.crls.iter().filter_map(|crl| crl.next_update).any(|until| until < time);
        if outdated && !self.warned_crl.swap(true, Ordering::Relaxed) {
            log::warn!("crl-verify: the revocation list is past its date; it is used all the same");
        }
        // webpki does not look at the validity of trust anchors.
        let stale = Cell::new(None);
        let anchor_in_date = |path: &webpki::VerifiedPath<'_>| {
            let anchors = self.anchors.iter().zip(&self.authorities);
            let found =
                anchors.into_iter().find(|(anchor, _)| core::ptr::eq(*anchor, path.anchor()));
            match found {
                Some((_, authority)) if authority.not_after < time => {
                    stale.set(Some((authority.name.as_str(), authority.not_after)));
                    Err(webpki::Error::UnknownIssuer)
                }
                _ => Ok(()),
            }
        };
        let now = UnixTime::since_unix_epoch(time);
        let path = leaf.verify_for_usage(
            self.algorithms.all,
            &self.anchors,
            intermediates,
            now,
            purpose,
            revocation,
            Some(&anchor_in_date),
        );
        match (path, stale.get()) {
            (Ok(_), _) => Ok(()),
            (Err(_), Some((name, until))) => {
                Err(ChainFault::StaleAuthority(name.to_owned(), until))
            }
            (Err(error), None) => Err(ChainFault::Path(error)),
        }
    }

    /// `remote-cert-tls`: key usage present, whatever it says, and the right extended key usage.
    fn check_usage(&self, certificate: &Certificate, whose: &str) -> Result<(), Refusal> {
        let refuse = |text| Err((CertificateError::InvalidPurpose, format!("{whose} {text}")));
        let tbs = &certificate.tbs_certificate;
        if !matches!(tbs.get::<KeyUsage>(), Ok(Some(_))) {
            return refuse("has no key usage, which remote-cert-tls asks for");
        }
        // webpki has checked that one which is present includes our purpose.
        if !matches!(tbs.get::<ExtendedKeyUsage>(), Ok(Some(_))) {
            return refuse("has no extended key usage, which remote-cert-tls asks for");
        }
        Ok(())
    }

    fn check_name(&self, identity: &PeerIdentity, whose: &str) -> Result<(), Refusal> {
        let refuse = |text: String| Err((CertificateError::ApplicationVerificationFailure, text));
        // The common name is the client's name everywhere: pool, ccd, status.
        if self.peer == Role::Client && identity.common_name.is_empty() {
            return refuse(format!("{whose} has no common name"));
        }
        if identity.common_name.len() > MAX_NAME {
            return refuse(format!("{whose} has a common name longer than {MAX_NAME} bytes"));
        }
        let (good, wanted) = match &self.name {
            None => return Ok(()),
            Some(VerifyName::Subject(subject)) => (identity.subject == *subject, subject),
            Some(VerifyName::Name(name)) => (identity.common_name == *name, name),
            Some(VerifyName::NamePrefix(prefix)) => {
                (identity.common_name.starts_with(prefix.as_str()), prefix)
            }
        };
        if good {
            return Ok(());
        }
        let subject = &identity.subject;
        refuse(format!("{whose} ({subject}) is not the '{wanted}' that verify-x509-name asks for"))
    }
}

/// Why no good path was found.
enum ChainFault {
    Path(webpki::Error),
    StaleAuthority(String, Duration),
}

impl ChainFault {
    fn explain(self, leaf: &Certificate, whose: &str, peer: Role) -> Refusal {
        use CertificateError as Alert;
        let error = match self {
            Self::Path(error) => error,
            Self::StaleAuthority(name, until) => {
                let text =
                    format!("{whose} was issued by '{name}', which expired on {}", date(until));
                return (Alert::Expired, text);
            }
        };
        let tbs = &leaf.tbs_certificate;
        let of_leaf = |unix: UnixTime, limit: x509_cert::time::Time| {
            limit.to_unix_duration().as_secs() == unix.as_secs()
        };
        let link = |is_leaf: bool| if is_leaf { "" } else { "was issued by a CA that " };
        let day = |unix: UnixTime| date(Duration::from_secs(unix.as_secs()));
        let (alert, what) = match error {
            webpki::Error::CertExpired { not_after, .. } => {
                let whose_link = link(of_leaf(not_after, tbs.validity.not_after));
                (Alert::Expired, format!("{whose_link}expired on {}", day(not_after)))
            }
            webpki::Error::CertNotValidYet { not_before, .. } => {
                let verb = match of_leaf(not_before, tbs.validity.not_before) {
                    true => "is not valid yet: it begins on ",
                    false => "was issued by a CA that is not valid yet: it begins on ",
                };
                let what = format!("{verb}{}; is our clock right?", day(not_before));
                (Alert::NotValidYet, what)
            }
            webpki::Error::UnknownIssuer => {
                let issuer = one_line(&tbs.issuer);
                (Alert::UnknownIssuer, format!("was issued by an unknown CA ('{issuer}')"))
            }
            webpki::Error::CertRevoked => (Alert::Revoked, "is revoked".to_owned()),
            webpki::Error::RequiredEkuNotFoundContext(_) | webpki::Error::EmptyEkuExtension => {
                (Alert::InvalidPurpose, wrong_purpose(leaf, peer))
            }
            webpki::Error::CaUsedAsEndEntity => {
                (Alert::InvalidPurpose, "is that of a CA and cannot stand for a peer".to_owned())
            }
            webpki::Error::InvalidSignatureForPublicKey => (
                Alert::BadSignature,
                "was issued by an unknown CA that has the name of ours".to_owned(),
            ),
            webpki::Error::InvalidCrlSignatureForPublicKey | webpki::Error::IssuerNotCrlSigner => (
                Alert::UnknownRevocationStatus,
                "cannot be checked: the crl-verify list is not signed by the CA".to_owned(),
            ),
            webpki::Error::UnsupportedSignatureAlgorithmContext(_)
            | webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
                let oid = leaf.signature_algorithm.oid;
                let what = format!("is signed in a way we do not accept (SHA-1, P-521? {oid})");
                (Alert::BadSignature, what)
            }
            webpki::Error::UnsupportedCriticalExtension => {
                let what = "has a critical extension we do not know".to_owned();
                (Alert::UnhandledCriticalExtension, what)
            }
            other => {
                let why = chain_error::in_words(&other);
                (Alert::BadEncoding, format!("is not acceptable: {why}"))
            }
        };
        (alert, format!("{whose} {what}"))
    }
}

/// "certificate of 'laptop'", by its subject where it has no common name.
fn whose(identity: &PeerIdentity) -> String {
    let name = match identity.common_name.as_str() {
        "" => &identity.subject,
        name => name,
    };
    format!("certificate of '{name}'")
}

fn wrong_purpose(leaf: &Certificate, peer: Role) -> String {
    let has = |purpose| match leaf.tbs_certificate.get::<ExtendedKeyUsage>() {
        Ok(Some((_, usage))) => usage.0.contains(&purpose),
        Ok(None) | Err(_) => false,
    };
    use x509_cert::der::oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH};
    let (ours, other) = match peer {
        Role::Client => ("clients", "servers"),
        Role::Server => ("servers", "clients"),
    };
    if has(ID_KP_CLIENT_AUTH) || has(ID_KP_SERVER_AUTH) {
        format!("is for {other}, not {ours} (extended key usage)")
    } else {
        format!("is not for {ours} (extended key usage)")
    }
}

/// `2026-01-01`, in UTC.
fn date(unix: Duration) -> String {
    match DateTime::from_unix_duration(unix) {
        Ok(at) => format!("{:04}-{:02}-{:02}", at.year(), at.month(), at.day()),
        Err(_) => format!("second {}", unix.as_secs()),
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        self.verify(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        self.certificate != ClientCertificate::None
    }

    fn client_auth_mandatory(&self) -> bool {
        self.certificate == ClientCertificate::Require
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        self.verify(end_entity, intermediates, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
