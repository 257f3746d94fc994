//! What scripts are told about a peer in either role: its transport address and its certificates
//! [9.12]. Every IPv4 variable has its IPv6 twin.

use core::fmt::Write as _;
use std::net::SocketAddr;

use crate::engine::Environment;
use crate::session::CertificateInfo;

/// `untrusted_ip` or `untrusted_ip6`, and the port; `trusted_…` once the peer is known.
pub fn address(environment: &mut Environment, prefix: &str, from: SocketAddr) {
    let family = if from.is_ipv6() { "ip6" } else { "ip" };
    environment.set(&format!("{prefix}_{family}"), from.ip());
    environment.set(&format!("{prefix}_port"), from.port());
}

/// One certificate of the peer's chain.
pub fn certificate(environment: &mut Environment, depth: usize, info: &CertificateInfo) {
    environment.set(&format!("tls_id_{depth}"), &info.subject);
    environment.set(&format!("tls_digest_{depth}"), hex(&info.sha1));
    environment.set(&format!("tls_digest_sha256_{depth}"), hex(&info.sha256));
    environment.set(&format!("tls_serial_{depth}"), info.serial_decimal());
    environment.set(&format!("tls_serial_hex_{depth}"), hex(&info.serial));
    let mut seen: Vec<&str> = Vec::new();
    for (field, value) in &info.fields {
        // A field that comes again is numbered.
        let again = seen.iter().filter(|known| *known == field).count();
        let name = match again {
            0 => format!("X509_{depth}_{field}"),
            again => format!("X509_{depth}_{field}_{again}"),
        };
        environment.set(&name, value);
        seen.push(field);
    }
}

/// Bytes as certificates' fingerprints are written: pairs of digits between colons.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        let colon = if at == 0 { "" } else { ":" };
        // Writing to a String cannot fail.
        let _ok = write!(text, "{colon}{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_come_again_are_numbered() {
        let text = |field, value: &str| (field, value.to_owned());
        let info = CertificateInfo {
            subject: "OU=a, OU=b, CN=c".into(),
            fields: vec![text("OU", "a"), text("OU", "b"), text("CN", "c"), text("OU", "d")],
            serial: vec![0x10, 0x01],
            sha1: [1; 20],
            sha256: [2; 32],
        };
        let mut environment = Environment::new();
        certificate(&mut environment, 0, &info);
        for (name, value) in [
            ("tls_id_0", "OU=a, OU=b, CN=c"),
            ("tls_serial_0", "4097"),
            ("tls_serial_hex_0", "10:01"),
            ("X509_0_OU", "a"),
            ("X509_0_OU_1", "b"),
            ("X509_0_OU_2", "d"),
            ("X509_0_CN", "c"),
        ] {
            assert_eq!(environment.value(name), Some(value), "{name}");
        }
    }
}
