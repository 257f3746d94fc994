//! What scripts are told about a client [9.12]. Every IPv4 variable has its IPv6 twin.

use core::fmt::Write as _;
use std::net::SocketAddr;

use crate::engine::{ClientInfo, Environment};
use crate::session::CertificateInfo;
use crate::time::UnixTime;
use crate::wire::peer_info::PeerInfo;

/// `untrusted_ip` or `untrusted_ip6`, and the port; `trusted_…` once the client is known.
pub(super) fn address(environment: &mut Environment, prefix: &str, from: SocketAddr) {
    let family = if from.is_ipv6() { "ip6" } else { "ip" };
    environment.set(&format!("{prefix}_{family}"), from.ip());
    environment.set(&format!("{prefix}_port"), from.port());
}

/// One certificate of the client's chain.
pub(super) fn certificate(environment: &mut Environment, depth: usize, info: &CertificateInfo) {
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

/// What the client says about itself.
pub(super) fn peer_info(environment: &mut Environment, text: &str) {
    for (name, value) in PeerInfo::new(text).exported() {
        environment.set(name, value);
    }
}

/// When it came; the readable form is added where the time zone is known.
pub(super) fn arrival(environment: &mut Environment, now: UnixTime) {
    environment.set("time_unix", now.0);
}

/// Its tunnel addresses, taken from the options that tell them to the client.
pub(super) fn addresses(environment: &mut Environment, options: &[String], netmask: bool) {
    for option in options {
        let words: Vec<&str> = option.split(' ').collect();
        match words.as_slice() {
            ["ifconfig", own, second] => {
                environment.set("ifconfig_pool_remote_ip", own);
                let name = if netmask { "ifconfig_pool_netmask" } else { "ifconfig_pool_local_ip" };
                environment.set(name, second);
            }
            ["ifconfig-ipv6", own, remote] => {
                let (own, bits) = own.split_once('/').unwrap_or((own, ""));
                environment.set("ifconfig_pool_remote_ip6", own);
                environment.set("ifconfig_pool_local_ip6", remote);
                environment.set("ifconfig_pool_ip6_netbits", bits);
            }
            _ => {}
        }
    }
}

/// What it came to.
pub(super) fn departure(environment: &mut Environment, info: &ClientInfo, now: UnixTime) {
    environment.set("bytes_received", info.bytes_in);
    environment.set("bytes_sent", info.bytes_out);
    environment.set("time_duration", now.0.saturating_sub(info.since));
}

fn hex(bytes: &[u8]) -> String {
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
    fn addresses_of_both_families() {
        let mut environment = Environment::new();
        address(&mut environment, "untrusted", "192.0.2.1:5".parse().unwrap());
        address(&mut environment, "trusted", "[2001:db8::1]:6".parse().unwrap());
        let options = [
            "ifconfig 10.8.0.2 255.255.255.0",
            "ifconfig-ipv6 fd00::1000/64 fd00::1",
            "topology subnet",
        ];
        addresses(&mut environment, &options.map(str::to_owned), true);
        let all: Vec<_> = environment.iter().collect();
        assert_eq!(
            all,
            [
                ("untrusted_ip", "192.0.2.1"),
                ("untrusted_port", "5"),
                ("trusted_ip6", "2001:db8::1"),
                ("trusted_port", "6"),
                ("ifconfig_pool_remote_ip", "10.8.0.2"),
                ("ifconfig_pool_netmask", "255.255.255.0"),
                ("ifconfig_pool_remote_ip6", "fd00::1000"),
                ("ifconfig_pool_local_ip6", "fd00::1"),
                ("ifconfig_pool_ip6_netbits", "64"),
            ]
        );
    }

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
