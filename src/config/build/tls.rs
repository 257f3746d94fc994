//! Certificates and what is asked of the peer's: `ca`, `cert`, `key`, `crl-verify`, `verify-x509-name`…
//!
//! Here only the PEM frames are looked at, so that a file in the wrong place is noticed with its
//! line; the certificates themselves are judged by `session::tls`.

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::Build;
use crate::config::lex::Line;
use crate::config::{Tls, VerifyName};

/// All of `config::Tls`.
pub(super) fn tls(b: &mut Build<'_>) -> Tls {
    let ca = required(b, "ca", &["pkcs12", "capath", "peer-fingerprint"]);
    let ca = ca.and_then(|line| certificates(b, line)).unwrap_or_default();
    let (cert, key) = own_identity(b);
    let (only_tls12, only_tls13) = versions(b);
    Tls {
        ca,
        cert,
        key,
        only_tls13,
        only_tls12,
        require_usage: require_usage(b),
        verify_name: verify_name(b),
        crl: crl(b),
        revoked: Vec::new(),
        client_certificate: super::hooks::certificate(b),
    }
}

/// The line of this name; missing is a problem unless a refused one stood in its place.
fn required<'a>(b: &mut Build<'a>, name: &str, instead: &[&str]) -> Option<&'a Line> {
    let line = b.line(name);
    if line.is_none() && !instead.iter().any(|other| b.source.mentions(other)) {
        b.problems.error_whole(format!(
            "`{name}` is missing: {}",
            crate::config::directive::find(name)?.help
        ));
    }
    line
}

fn own_identity(b: &mut Build<'_>) -> (Vec<u8>, Zeroizing<Vec<u8>>) {
    let instead = [
        "pkcs12",
        "cryptoapicert",
        "pkcs11-id",
        "management-external-cert",
        "management-external-key",
    ];
    // A client may be known by user name and password alone.
    let optional = !b.server && b.has("auth-user-pass") && !b.has("cert") && !b.has("key");
    if optional {
        return (Vec::new(), Zeroizing::new(Vec::new()));
    }
    let mut cert =
        required(b, "cert", &instead).and_then(|line| certificates(b, line)).unwrap_or_default();
    if let Some(more) = b.line("extra-certs").and_then(|line| certificates(b, line)) {
        cert.push(b'\n');
        cert.extend_from_slice(&more);
    }
    let key = required(b, "key", &instead).and_then(|line| private_key(b, line));
    (cert, key.unwrap_or_default())
}

fn certificates(b: &mut Build<'_>, line: &Line) -> Option<Vec<u8>> {
    let bytes = b.content(line)?;
    if contains(&bytes, b"-----BEGIN CERTIFICATE-----") {
        return Some(bytes.to_vec());
    }
    b.error(line, "holds no certificate (-----BEGIN CERTIFICATE-----)");
    None
}

fn private_key(b: &mut Build<'_>, line: &Line) -> Option<Zeroizing<Vec<u8>>> {
    let bytes = b.content(line)?;
    if contains(&bytes, b"ENCRYPTED") {
        b.error(line, "is encrypted, and nobody can be asked for its password; decrypt it once: openssl pkey -in OLD -out NEW");
    } else if !contains(&bytes, b"PRIVATE KEY-----") {
        b.error(line, "holds no private key (-----BEGIN PRIVATE KEY-----)");
    }
    Some(bytes)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// `tls-version-min`, `tls-version-max`: whether only 1.2 or only 1.3 remains.
fn versions(b: &mut Build<'_>) -> (bool, bool) {
    let min = b.line("tls-version-min");
    let max = b.line("tls-version-max");
    if let Some(line) = min {
        match (line.arg(0), line.arg(1)) {
            (Some("1.0" | "1.1"), None | Some("or-highest")) => {
                b.warn(line, "has no effect: TLS is always 1.2 at least");
            }
            (Some("1.2" | "1.3"), None | Some("or-highest")) => {}
            _ => b.error(line, "must be 1.2 or 1.3, optionally followed by `or-highest`"),
        }
    }
    if let Some(line) = max {
        match line.arg(0) {
            Some("1.2" | "1.3") => {}
            Some("1.0" | "1.1") => {
                b.error(line, "TLS 1.0 and 1.1 are broken and not supported; use 1.2 or 1.3")
            }
            _ => b.error(line, "must be 1.2 or 1.3"),
        }
    }
    let only12 = max.is_some_and(|line| line.arg(0) == Some("1.2"));
    let only13 = min.is_some_and(|line| line.arg(0) == Some("1.3"));
    if let (Some(line), true, true) = (max, only12, only13) {
        b.error(line, "no version is left, as `tls-version-min` is 1.3");
    }
    (only12, only13)
}

/// `remote-cert-tls`.
fn require_usage(b: &mut Build<'_>) -> bool {
    let Some(line) = b.line("remote-cert-tls") else {
        if !b.server
            && !b.has("verify-x509-name")
            && !b.source.mentions("remote-cert-eku")
            && !b.source.mentions("ns-cert-type")
        {
            let text = "neither `remote-cert-tls server` nor `verify-x509-name`: any client of the same authority could pose as the server";
            b.problems.warn_whole(text);
        }
        return false;
    };
    let (wanted, other) = if b.server { ("client", "clients") } else { ("server", "servers") };
    if line.arg(0) != Some(wanted) {
        b.error(line, format!("must be `{wanted}` here: it says what the *other* end is, and the other ends are {other}"));
    }
    true
}

fn verify_name(b: &mut Build<'_>) -> Option<VerifyName> {
    let line = b.line("verify-x509-name")?;
    let name = line.arg(0)?.to_owned();
    if name.is_empty() {
        b.error(line, "the name is empty");
    }
    match line.arg(1) {
        None | Some("subject") => {
            if !name.contains('=') {
                let text = "without a second argument the whole subject is compared (`C=…, CN=…`); for the common name add `name`";
                b.warn(line, text);
            }
            Some(VerifyName::Subject(name))
        }
        Some("name") => Some(VerifyName::Name(name)),
        Some("name-prefix") => Some(VerifyName::NamePrefix(name)),
        Some(_) => {
            b.error(line, "the second argument is `subject`, `name` or `name-prefix`");
            None
        }
    }
}

/// `crl-verify`: the path goes along, as the file is read again at run time.
fn crl(b: &mut Build<'_>) -> Option<(PathBuf, Vec<u8>)> {
    let line = b.line("crl-verify")?;
    match line.arg(1) {
        None => {}
        Some("dir") => {
            b.error(line, "a folder of serial numbers is not supported; give a revocation list (easy-rsa: `gen-crl`)");
            return None;
        }
        Some(_) => b.error(line, "takes a file"),
    }
    let bytes = b.content(line)?;
    let path = if line.inline.is_some() { PathBuf::new() } else { b.source.path(line.arg(0)?) };
    Some((path, bytes.to_vec()))
}
