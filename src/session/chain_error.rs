//! What webpki says against a certificate or a revocation list, in words for a log.
//!
//! webpki's own text is the `Debug` form of the error, which builds for size do not have.

use webpki::Error;

/// What is wrong, to follow "is not acceptable: ", "cannot be used: " and the like.
pub(super) fn in_words(error: &Error) -> &'static str {
    match error {
        Error::BadDer | Error::TrailingData(_) => "it is not well-formed",
        Error::BadDerTime | Error::InvalidCertValidity => "its dates cannot be understood",
        Error::CaUsedAsEndEntity => "it is that of a CA",
        Error::EndEntityUsedAsCa => "its issuer is not a CA",
        Error::ExtensionValueInvalid | Error::MalformedExtensions | Error::EmptyEkuExtension => {
            "one of its extensions is not well-formed"
        }
        Error::InvalidSerialNumber => "its serial number is not valid (20 bytes at most)",
        Error::MalformedNameConstraint
        | Error::InvalidNetworkMaskConstraint
        | Error::UnsupportedNameType => "a name constraint of its CA cannot be understood",
        Error::NameConstraintViolation => "the name constraints of its CA exclude it",
        Error::PathLenConstraintViolated => "it is further below the CA than the CA allows",
        Error::MaximumNameConstraintComparisonsExceeded
        | Error::MaximumPathBuildCallsExceeded
        | Error::MaximumPathDepthExceeded
        | Error::MaximumSignatureChecksExceeded => "its chain is too long or too intricate",
        Error::SignatureAlgorithmMismatch => "it names two different signature algorithms",
        Error::UnknownRevocationStatus => "no revocation list speaks of it",
        Error::UnsupportedCertVersion => "only X.509 version 3 is supported",
        Error::UnsupportedCriticalExtension => "it has a critical extension we do not know",
        Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
        | Error::UnsupportedCrlSignatureAlgorithmContext(_)
        | Error::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => {
            "its signature is of a kind we do not accept"
        }
        Error::InvalidCrlNumber => "its CRL number is not valid",
        Error::UnsupportedCrlVersion => "it is not of version 2",
        Error::UnsupportedDeltaCrl => "it is a delta CRL",
        Error::UnsupportedIndirectCrl
        | Error::UnsupportedCrlIssuingDistributionPoint
        | Error::UnsupportedRevocationReasonsPartitioning => {
            "it is not the complete list of one CA"
        }
        Error::UnsupportedRevocationReason => "it revokes for a reason we do not know",
        // The others have a text of their own where they are met, or concern host names.
        _ => "the rules of X.509 (RFC 5280) do not allow it",
    }
}
