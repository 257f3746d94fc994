//! What went wrong in a TLS handshake, in words for a log. Certificates are `verify`'s business.

use rustls::{AlertDescription, Error as TlsError, PeerIncompatible};

/// The error as one line of text that says whose fault it is.
pub(super) fn in_words(error: &TlsError) -> String {
    let alert = match error {
        TlsError::AlertReceived(alert) => alert,
        TlsError::NoCertificatesPresented => return "the peer shows no certificate".to_owned(),
        TlsError::PeerIncompatible(what) => {
            use PeerIncompatible as What;
            return match what {
                What::ServerDoesNotSupportTls12Or13
                | What::ServerTlsVersionIsDisabledByOurConfig
                | What::SupportedVersionsExtensionRequired
                | What::Tls12NotOffered
                // Older versions have no such extension.
                | What::SignatureAlgorithmsExtensionRequired
                | What::Tls12NotOfferedOrEnabled => {
                    "no TLS protocol version in common: the peer offers TLS 1.1 at most, or not what \
                     tls-version-min and tls-version-max here allow; raise its tls-version-max to \
                     1.2 or update it to OpenVPN 2.4 or newer"
                        .to_owned()
                }
                What::NoCipherSuitesInCommon => "no TLS cipher suite in common".to_owned(),
                What::NoKxGroupsInCommon | What::NoEcPointFormatsInCommon => {
                    "no elliptic curve in common for the TLS key exchange".to_owned()
                }
                What::NoSignatureSchemesInCommon
                | What::NoCertificateRequestSignatureSchemesInCommon => {
                    "no TLS signature scheme in common".to_owned()
                }
                What::ExtendedMasterSecretExtensionRequired => {
                    "the peer's TLS lacks the extended master secret (RFC 7627)".to_owned()
                }
                _ => "the peer's TLS is not compatible: it lacks what TLS 1.2 or 1.3 requires"
                    .to_owned(),
            };
        }
        TlsError::PeerMisbehaved(_) => return "TLS: the peer breaks the protocol".to_owned(),
        TlsError::InvalidMessage(_) => return "TLS: the peer's message is malformed".to_owned(),
        TlsError::InappropriateMessage { .. } | TlsError::InappropriateHandshakeMessage { .. } => {
            return "TLS: the peer's message is not the one that is due".to_owned();
        }
        TlsError::DecryptError => return "TLS: the peer's message cannot be decrypted".to_owned(),
        TlsError::InvalidCertificate(_) => {
            return "TLS: the peer's certificate or signature is not valid".to_owned();
        }
        other => return format!("TLS: {other}"),
    };
    let what = match alert {
        AlertDescription::CertificateExpired => "our certificate has expired or is not valid yet",
        AlertDescription::CertificateRevoked => "our certificate is revoked",
        AlertDescription::UnknownCA => {
            "it knows neither the CA of our certificate nor its fingerprint"
        }
        AlertDescription::UnsupportedCertificate => "our certificate is for another purpose",
        AlertDescription::AccessDenied => "our certificate has a name it does not want",
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            "it does not accept our certificate"
        }
        AlertDescription::DecryptError => {
            "our certificate is not signed by the CA it knows under that name"
        }
        AlertDescription::ProtocolVersion => {
            "we have no TLS version in common; ours is 1.2 or 1.3, so raise its tls-version-max or \
             update it to OpenVPN 2.4 or newer"
        }
        AlertDescription::HandshakeFailure => "we have no TLS cipher suite in common",
        other => {
            let what = other.as_str().unwrap_or("unknown");
            let code = u8::from(*other);
            return format!("the peer ended the TLS handshake: {what} (alert {code})");
        }
    };
    format!("the peer refused: {what}")
}
