//! Certificates and what is asked of the peer's: `ca`, `cert`, `key`, `crl-verify`, `verify-x509-name`,
//! `peer-fingerprint`…
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
    let fingerprints = fingerprints(b);
    let ca = required(b, "ca", &["pkcs12", "capath", "peer-fingerprint"]);
    if let (Some(line), None) = (b.line("crl-verify"), ca) {
        b.warn(line, "has no effect without `ca`: take the line of a lost certificate out of `peer-fingerprint`");
    }
    let ca = ca.and_then(|line| certificates(b, line)).unwrap_or_default();
    let (cert, key) = own_identity(b);
    let (only_tls12, only_tls13) = versions(b);
    Tls {
        ca,
        fingerprints,
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

/// All `peer-fingerprint` lines, and what stands in their blocks.
fn fingerprints(b: &mut Build<'_>) -> Vec<[u8; 32]> {
    let mut all = Vec::new();
    for line in b.source.all("peer-fingerprint") {
        let text = line.inline.as_ref().map_or(line.arg(0), |block| Some(block.as_str()));
        let entries = text.unwrap_or_default().lines().map(str::trim);
        let entries: Vec<&str> =
            entries.filter(|entry| !entry.is_empty() && !entry.starts_with(['#', ';'])).collect();
        if entries.is_empty() {
            b.error(line, "names no fingerprint");
        }
        for entry in entries {
            match fingerprint(entry) {
                Some(bytes) => all.push(bytes),
                None => b.error(
                    line,
                    format!(
                        "`{}` is not a SHA-256 fingerprint: 32 bytes with colons between, as \
                         `openssl x509 -in CERT -noout -fingerprint -sha256` prints it after the `=`",
                        entry.escape_debug()
                    ),
                ),
            }
        }
    }
    all
}

/// 32 pairs of hex digits between colons.
fn fingerprint(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let mut pairs = text.split(':');
    for byte in &mut bytes {
        let pair = pairs.next().filter(|pair| pair.len() == 2 && !pair.starts_with('+'))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    pairs.next().is_none().then_some(bytes)
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
            && !b.source.mentions("peer-fingerprint")
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

#[cfg(test)]
mod tests {
    use crate::config::tests::{load, server};

    const OWN: &str = "cert server.crt\nkey server.key\n";

    fn print(pair: &str) -> String {
        [pair; 32].join(":")
    }

    #[test]
    fn fingerprints_from_lines_and_blocks() {
        let text = format!(
            "server-ipv6 fd00:1::/64\n{OWN}peer-fingerprint {}\n<peer-fingerprint>\n\n# laptop\n {}\n; phone\n\
             {}\n</peer-fingerprint>\n",
            print("0a"),
            print("FF"),
            print("1c"),
        );
        let loaded = load(&text).unwrap();
        let tls = &loaded.config.tls;
        assert_eq!(tls.fingerprints, [[0x0a; 32], [0xff; 32], [0x1c; 32]]);
        assert!(tls.ca.is_empty() && loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let plan = loaded.plan().join("\n");
        assert!(plan.contains("certificate against `peer-fingerprint`"), "{plan}");
        // A client knows its server by that.
        let client = format!("client\nremote a\n{OWN}peer-fingerprint {}\n", print("00"));
        assert_eq!(load(&client).unwrap().warnings, []);
        let both = server(&format!("peer-fingerprint {}", print("00"))).config.tls;
        assert!(both.fingerprints.len() == 1 && !both.ca.is_empty());
    }

    #[test]
    fn what_is_no_fingerprint_is_named() {
        let whole = print("00");
        let (short, long) = (&whole[..92], format!("{whole}:00"));
        let others = [print("0"), print("0g"), print("+1"), "00".repeat(32)];
        let others = others.iter().map(String::as_str);
        for text in [short, &long].into_iter().chain(others) {
            let lines = format!("server-ipv6 fd00:1::/64\n{OWN}peer-fingerprint {text}\n");
            let error = load(&lines).unwrap_err().to_string();
            assert!(error.contains("is not a SHA-256 fingerprint"), "{error}");
        }
        let empty = "server-ipv6 fd00:1::/64\n<peer-fingerprint>\n# none\n</peer-fingerprint>\n";
        let error = load(&format!("{OWN}{empty}")).unwrap_err().to_string();
        assert!(error.contains("names no fingerprint"), "{error}");
        let neither = load(&format!("server-ipv6 fd00:1::/64\n{OWN}")).unwrap_err().to_string();
        assert!(neither.contains("`ca` is missing"), "{neither}");
        let crl = format!("crl-verify crl.pem\npeer-fingerprint {}\n", print("00"));
        let warnings = load(&format!("server-ipv6 fd00:1::/64\n{OWN}{crl}")).unwrap().warnings;
        assert!(warnings[0].to_string().contains("no effect without `ca`"), "{warnings:?}");
    }
}
