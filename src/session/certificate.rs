//! Certificates as scripts are told about them, and the chain from a peer's up to its authority [9.12].
//!
//! Everything here comes after the check in `verify`: it describes, and trusts nothing.

use rustls::pki_types::CertificateDer;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::session::identity;

/// Longest chain that is described (stock: depth 16).
const MAX_DEPTH: usize = 16;

/// One certificate in words. Texts hold no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The whole subject on one line.
    pub subject: String,
    /// The subject's parts that have a short name, in order: `("CN", "laptop")`.
    pub fields: Vec<(&'static str, String)>,
    /// Serial number, big-endian without leading zeros.
    pub serial: Vec<u8>,
    /// SHA-1 of the certificate: no proof of anything, scripts know it as a name.
    pub sha1: [u8; 20],
    /// SHA-256 of the certificate.
    pub sha256: [u8; 32],
}

impl CertificateInfo {
    /// Reads a DER certificate; `None` when it is not one.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let tbs = &certificate.tbs_certificate;
        Some(Self {
            subject: identity::one_line(&tbs.subject),
            fields: identity::fields(&tbs.subject).collect(),
            serial: identity::serial(&certificate),
            sha1: Sha1::digest(der).into(),
            sha256: Sha256::digest(der).into(),
        })
    }

    /// The serial number in decimal digits.
    pub fn serial_decimal(&self) -> String {
        // Least significant digit first.
        let mut digits = vec![0_u8];
        for byte in &self.serial {
            let mut carry = u16::from(*byte);
            for digit in &mut digits {
                carry += u16::from(*digit) << 8;
                *digit = (carry % 10) as u8;
                carry /= 10;
            }
            while carry > 0 {
                digits.push((carry % 10) as u8);
                carry /= 10;
            }
        }
        digits.iter().rev().map(|digit| char::from(b'0' + digit)).collect()
    }
}

/// Orders certificates from `presented`'s first up to an authority: index is depth. Who has signed
/// what was checked in the handshake; here names suffice to put them in order.
pub(super) fn chain<'a>(
    presented: &'a [CertificateDer<'_>],
    authorities: impl Iterator<Item = &'a [u8]> + Clone,
) -> Vec<Vec<u8>> {
    let mut chain: Vec<Vec<u8>> = Vec::new();
    let mut next = presented.first().map(|leaf| leaf.as_ref());
    while let Some(der) = next.filter(|_| chain.len() < MAX_DEPTH) {
        chain.push(der.to_vec());
        let Ok(certificate) = Certificate::from_der(der) else { break };
        let tbs = certificate.tbs_certificate;
        if tbs.issuer == tbs.subject {
            break;
        }
        let issued = |der: &&[u8]| {
            Certificate::from_der(der)
                .is_ok_and(|other| other.tbs_certificate.subject == tbs.issuer)
        };
        let others = presented.iter().map(|der| der.as_ref());
        next = authorities.clone().chain(others).find(issued);
    }
    chain
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SerialNumber};

    use super::*;

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    #[test]
    fn serial_numbers_in_decimal() {
        let certificate = params("x").self_signed(&KeyPair::generate().unwrap()).unwrap();
        let mut info = CertificateInfo::from_der(certificate.der()).unwrap();
        for (serial, decimal) in [
            (&[][..], "0"),
            (&[9], "9"),
            (&[0x10, 0x01], "4097"),
            // As stock OpenVPN prints it.
            (
                &[
                    0x1d, 0xf9, 0x58, 0x8f, 0xbe, 0xea, 0xb9, 0x9b, 0x45, 0x89, 0x6e, 0x0b, 0x32,
                    0x40, 0xc3, 0x70, 0x28, 0xa5, 0x2c, 0xff,
                ],
                "171121332703638017172602383440364621685227597055",
            ),
        ] {
            info.serial = serial.to_vec();
            assert_eq!(info.serial_decimal(), decimal);
        }
    }

    #[test]
    fn fields_are_in_order_and_without_control_characters() {
        let mut params = params("laptop\n");
        params.serial_number = Some(SerialNumber::from_slice(&[0x80, 1]));
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        params.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 3, 4]), "nameless");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let info = CertificateInfo::from_der(certificate.der()).unwrap();
        assert_eq!(info.fields, [("CN", "laptop_".to_owned()), ("O", "Example".to_owned())]);
        assert_eq!(info.serial, [0x80, 1]);
    }

    #[test]
    fn a_chain_goes_from_the_peer_to_the_authority() {
        let key = || KeyPair::generate().unwrap();
        let authority = |name: &str| {
            let mut params = params(name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
        };
        let root_key = key();
        let root_params = authority("root");
        let root = root_params.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(root_params, root_key);
        let middle_key = key();
        let middle_params = authority("middle");
        let middle = middle_params.signed_by(&middle_key, &root_issuer).unwrap();
        let middle_issuer = Issuer::new(middle_params, middle_key);
        let leaf = params("leaf").signed_by(&key(), &middle_issuer).unwrap();
        let other = params("other").self_signed(&key()).unwrap();

        let presented = [leaf.der().clone(), other.der().clone(), middle.der().clone()];
        let roots = [other.der().to_vec(), root.der().to_vec()];
        let found = chain(&presented, roots.iter().map(Vec::as_slice));
        assert_eq!(found, [leaf.der().to_vec(), middle.der().to_vec(), root.der().to_vec()]);
        // Nobody has sent the one in the middle.
        let found = chain(&presented[..2], roots.iter().map(Vec::as_slice));
        assert_eq!(found, [leaf.der().to_vec()]);
        assert_eq!(chain(&[], core::iter::empty()), Vec::<Vec<u8>>::new());
    }
}
