//! Data channel: ciphers [8], `auth`, and the refusal of compression.

use super::Build;
use crate::config::lex::Line;
use crate::config::{CipherName, Digest};

/// What OpenVPN offers since 2.6 [8.3].
const DEFAULT_CIPHERS: [CipherName; 3] =
    [CipherName::Aes256Gcm, CipherName::Aes128Gcm, CipherName::ChaCha20Poly1305];
/// Named in refusals.
const SUPPORTED_CIPHERS: &str = "AES-256-GCM, AES-128-GCM and CHACHA20-POLY1305";
/// Longest list OpenVPN peers read.
const MAX_CIPHER_LIST: usize = 127;

/// The three cipher settings.
pub(super) struct Ciphers {
    /// In order of preference, never empty.
    pub(super) list: Vec<CipherName>,
    /// `data-ciphers-fallback`.
    pub(super) fallback: Option<CipherName>,
    /// `cipher`, if it is in the list.
    pub(super) occ: Option<CipherName>,
}

/// `data-ciphers` (or `ncp-ciphers`), `data-ciphers-fallback`, `cipher`.
pub(super) fn ciphers(b: &mut Build<'_>) -> Ciphers {
    let given = b.line("data-ciphers").or(b.line("ncp-ciphers"));
    if let (Some(_), Some(old)) = (b.line("data-ciphers"), b.line("ncp-ciphers")) {
        b.warn(old, "is the old name of `data-ciphers`, which is given too and counts");
    }
    let mut list = match given {
        Some(line) => cipher_list(b, line),
        None => DEFAULT_CIPHERS.to_vec(),
    };
    let fallback = b.line("data-ciphers-fallback").and_then(|line| {
        let cipher = CipherName::from_name(line.arg(0)?);
        if cipher.is_none() {
            b.warn(line, format!("is not supported here ({SUPPORTED_CIPHERS} are), so a peer that names no cipher is refused"));
        }
        cipher
    });
    let occ = b.line("cipher").and_then(|line| {
        let name = line.arg(0)?.escape_debug().to_string();
        let Some(cipher) = CipherName::from_name(&name) else {
            b.warn(line, format!("{name} is not supported; peers choose from `data-ciphers`, and one that knows only {name} is refused"));
            return None;
        };
        if given.is_none() && !list.contains(&cipher) {
            list.push(cipher);
        }
        if !list.contains(&cipher) {
            b.warn(line, format!("has no effect, as `data-ciphers` does not list {name}; add it there"));
            return None;
        }
        Some(cipher)
    });
    Ciphers { list, fallback, occ }
}

fn cipher_list(b: &mut Build<'_>, line: &Line) -> Vec<CipherName> {
    let text = line.arg(0).unwrap_or_default();
    let mut list = Vec::new();
    let mut unknown = Vec::new();
    for entry in text.split(':') {
        let name = entry.strip_prefix('?').unwrap_or(entry);
        match CipherName::from_name(name) {
            _ if name == "DEFAULT" => list.extend(DEFAULT_CIPHERS),
            Some(cipher) => list.push(cipher),
            None if entry.starts_with('?') => {}
            None => unknown.push(name.escape_debug().to_string()),
        }
    }
    let mut seen = Vec::new();
    list.retain(|cipher| {
        !seen.contains(cipher) && {
            seen.push(*cipher);
            true
        }
    });
    let unknown = unknown.join(", ");
    if text.len() > MAX_CIPHER_LIST {
        b.error(line, format!("the list is longer than {MAX_CIPHER_LIST} characters"));
    } else if list.is_empty() {
        b.error(line, format!("none of these is supported; {SUPPORTED_CIPHERS} are"));
    } else if !unknown.is_empty() {
        b.warn(
            line,
            format!("not supported and left out: {unknown} ({SUPPORTED_CIPHERS} are supported)"),
        );
    }
    list
}

/// `auth`: with AEAD ciphers it is only about tls-auth.
pub(super) fn auth(b: &mut Build<'_>) -> Digest {
    let Some((line, name)) = b.line("auth").and_then(|line| Some((line, line.arg(0)?))) else {
        return Digest::Sha1;
    };
    if let Some(digest) = Digest::from_name(name) {
        return digest;
    }
    let name = name.escape_debug();
    if b.source.mentions("tls-auth") {
        b.error(line, format!("{name} is not supported; SHA1, SHA256, SHA384 and SHA512 are (set the same on both ends)"));
    } else {
        b.warn(line, format!("{name} has no effect: there is no `tls-auth`, and the ciphers authenticate themselves"));
    }
    Digest::Sha1
}

/// `allow-compression`, `key-method`: one good value each.
pub(super) fn compression(b: &mut Build<'_>) {
    if let Some(line) = b.line("allow-compression") {
        match line.arg(0) {
            Some("no") => {}
            Some("yes" | "asym") => {
                b.warn(line, "has no effect: packets are never compressed, nor accepted compressed")
            }
            _ => b.error(line, "must be `no`"),
        }
    }
    if let Some(line) = b.line("key-method").filter(|line| line.arg(0) != Some("2")) {
        b.error(line, "must be 2; method 1 is gone since OpenVPN 2.5");
    }
}
