//! A client's profile: one file with everything in it.
//!
//! Only directives that OpenVPN 2.5 and later, OpenVPN Connect (the OpenVPN 3 library) and
//! NetworkManager all import: OpenVPN 2 stops at a word it does not know, OpenVPN 3 at several that
//! OpenVPN 2 takes. tls-crypt-v2 is what asks for 2.5 [2.5].
//!
//! Until the server's address is known, a profile holds a placeholder that cannot resolve;
//! [`with_endpoint`] puts the address in later and leaves the rest as it is.

use zeroize::Zeroizing;

use crate::pki::endpoint::Endpoint;
use crate::pki::names::{ClientName, SERVER};

/// Stands for the server's address; the `invalid` domain never resolves (RFC 2606).
pub const PLACEHOLDER: &str = "your-server.invalid";

/// Starts the lines that explain the placeholder and go with it.
const FILL_IN: &str = "# FILL IN: ";

const HOW_TO_FILL_IN: &str = "\
# FILL IN: the server's address is not known yet. Put its host name or IP address in place of
# FILL IN: your-server.invalid, or run `sixgate up --endpoint HOST[:PORT]` on the server and
# FILL IN: take this file again.
";

/// What goes into a profile; all of it PEM or checked text.
pub struct Profile<'a> {
    /// The client.
    pub name: &'a ClientName,
    /// The server's address, when known.
    pub endpoint: Option<&'a Endpoint>,
    /// The server's own port, for an endpoint without one.
    pub port: u16,
    /// The CA's certificate.
    pub ca: &'a str,
    /// The client's certificate.
    pub certificate: &'a str,
    /// Its private key.
    pub key: &'a str,
    /// The client's tls-crypt-v2 key.
    pub tls_crypt_v2: &'a str,
}

impl Profile<'_> {
    /// The file's text.
    pub fn text(&self) -> Zeroizing<String> {
        let Self { name, endpoint, port, ca, certificate, key, tls_crypt_v2 } = self;
        // Sized at once: a string that grows leaves copies of the key behind.
        let blocks = ca.len() + certificate.len() + key.len() + tls_crypt_v2.len();
        let mut text = Zeroizing::new(String::with_capacity(blocks + 2048));
        let mut add = |parts: &[&str]| parts.iter().for_each(|part| text.push_str(part));

        add(&[
            "# sixgate: profile of client ",
            name.as_str(),
            ". It holds a private key: keep it secret.\n",
        ]);
        add(&["client\ndev tun\nproto udp\n"]);
        if endpoint.is_none() {
            add(&[HOW_TO_FILL_IN]);
        }
        add(&[&remote(*endpoint, *port), "\n"]);
        add(&["nobind\npersist-key\npersist-tun\n"]);
        add(&["remote-cert-tls server\nverify-x509-name ", SERVER, " name\n"]);
        add(&["data-ciphers AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305\n"]);
        add(&["explicit-exit-notify 1\nverb 3\n"]);
        for (tag, pem) in
            [("ca", ca), ("cert", certificate), ("key", key), ("tls-crypt-v2", tls_crypt_v2)]
        {
            add(&["<", tag, ">\n", pem.trim_ascii(), "\n</", tag, ">\n"]);
        }
        text
    }
}

fn remote(endpoint: Option<&Endpoint>, port: u16) -> String {
    match endpoint {
        Some(endpoint) => format!("remote {} {}", endpoint.host(), endpoint.port_or(port)),
        None => format!("remote {PLACEHOLDER} {port}"),
    }
}

/// Whether the profile still has the placeholder in its `remote`.
pub fn is_incomplete(text: &str) -> bool {
    text.lines().any(|line| remote_host(line) == Some(PLACEHOLDER))
}

/// The profile with `new` in the place of the placeholder, or of the `old` address that an earlier
/// run put there; `None` when there is nothing to change. A `remote` that a person wrote is theirs.
pub fn with_endpoint(
    text: &str,
    old: Option<&Endpoint>,
    new: &Endpoint,
    port: u16,
) -> Option<Zeroizing<String>> {
    let new = remote(Some(new), port);
    let old = old.map(|old| remote(Some(old), port)).filter(|old| *old != new);
    let is_ours = |line: &str| {
        remote_host(line) == Some(PLACEHOLDER) || old.as_deref() == Some(line.trim_ascii())
    };
    if !text.lines().any(is_ours) {
        return None;
    }
    let mut changed = Zeroizing::new(String::with_capacity(text.len() + new.len()));
    for line in text.lines().filter(|line| !line.starts_with(FILL_IN)) {
        changed.push_str(if is_ours(line) { &new } else { line });
        changed.push('\n');
    }
    Some(changed)
}

fn remote_host(line: &str) -> Option<&str> {
    let mut words = line.split_ascii_whitespace();
    words.next().filter(|word| *word == "remote")?;
    words.next()
}

/// What makes a client ask its user for a one-time code.
pub const CODE_LINES: &str = "\
auth-user-pass
auth-retry interact
static-challenge \"Code of the authenticator app\" 1
";

/// The profile with or without the lines that ask for a code.
pub fn with_code(text: &str, asks: bool) -> Zeroizing<String> {
    let mut changed = Zeroizing::new(String::with_capacity(text.len() + CODE_LINES.len()));
    let is_ours = |line: &str| CODE_LINES.lines().any(|ours| ours == line);
    let mut told = !asks;
    for line in text.lines().filter(|line| !is_ours(line)) {
        // Before the first block, where people look.
        if line.starts_with('<') && !core::mem::replace(&mut told, true) {
            changed.push_str(CODE_LINES);
        }
        changed.push_str(line);
        changed.push('\n');
    }
    changed
}

/// The text between `<cert>` and `</cert>`.
pub fn certificate(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<cert>\n")?;
    Some(rest.split_once("</cert>")?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(endpoint: Option<&Endpoint>) -> Zeroizing<String> {
        Profile {
            name: &"anna".parse().unwrap(),
            endpoint,
            port: 1195,
            ca: "CA\n",
            certificate: "CERT\n",
            key: "KEY\n",
            tls_crypt_v2: "V2\n",
        }
        .text()
    }

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::parse(text).unwrap()
    }

    #[test]
    fn a_profile_has_everything_inline() {
        let text = profile(Some(&endpoint("[2001:db8::1]:443")));
        assert!(text.contains("\nremote 2001:db8::1 443\n"));
        assert!(text.contains("\nverify-x509-name sixgate-server name\n"));
        assert!(text.ends_with(
            "<ca>\nCA\n</ca>\n<cert>\nCERT\n</cert>\n<key>\nKEY\n</key>\n\
             <tls-crypt-v2>\nV2\n</tls-crypt-v2>\n"
        ));
        assert_eq!(certificate(&text), Some("CERT\n"));
        assert!(!is_incomplete(&text) && !text.contains(FILL_IN));
        assert!(text.capacity() >= text.len() && text.len() < 2048);
    }

    #[test]
    fn the_placeholder_is_marked_and_gives_way() {
        let text = profile(None);
        assert!(is_incomplete(&text) && text.contains("\nremote your-server.invalid 1195\n"));
        let filled = with_endpoint(&text, None, &endpoint("vpn.example.org"), 1195).unwrap();
        assert_eq!(*filled, *profile(Some(&endpoint("vpn.example.org"))));
    }

    #[test]
    fn only_our_own_remote_line_changes() {
        let (a, b) = (endpoint("a.example"), endpoint("b.example:7"));
        let old = profile(Some(&a));
        assert!(with_endpoint(&old, None, &b, 1195).is_none());
        assert!(with_endpoint(&old, Some(&a), &a, 1195).is_none());
        assert_eq!(*with_endpoint(&old, Some(&a), &b, 1195).unwrap(), *profile(Some(&b)));
        let edited = old.replace("a.example", "c.example");
        assert!(with_endpoint(&edited, Some(&a), &b, 1195).is_none());
    }

    #[test]
    fn a_code_is_asked_for_or_not() {
        let text = profile(None);
        let asks = with_code(&text, true);
        assert_eq!(asks.replace(CODE_LINES, ""), *text);
        assert!(asks.contains(&format!("verb 3\n{CODE_LINES}<ca>\n")));
        assert_eq!(*with_code(&asks, true), *asks);
        assert_eq!(*with_code(&asks, false), *text);
    }

    #[test]
    fn a_profile_cut_short_has_no_certificate() {
        let text = profile(None);
        let end = text.find("</cert>").unwrap() + "</cert>".len();
        for cut in 0..end {
            assert_eq!(certificate(text.get(..cut).unwrap()), None);
        }
    }
}
