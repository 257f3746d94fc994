//! Data channel: ciphers [8], `auth`, and the framings of compression [6.5].

use super::Build;
use crate::config::lex::Line;
use crate::config::{CipherName, Digest, Framing};

/// What OpenVPN offers since 2.6, in its order [8.3].
const DEFAULT_CIPHERS: [CipherName; 3] =
    [CipherName::Aes256Gcm, CipherName::Aes128Gcm, CipherName::ChaCha20Poly1305];
/// The same for processors without instructions for AES, where ChaCha20 takes a tenth of the time (MIPS).
const WITHOUT_AES: [CipherName; 3] =
    [CipherName::ChaCha20Poly1305, CipherName::Aes256Gcm, CipherName::Aes128Gcm];
/// Longest list OpenVPN peers read.
const MAX_CIPHER_LIST: usize = 127;

/// The three cipher settings.
pub(super) struct Ciphers {
    /// In order of preference, never empty.
    pub(super) list: Vec<CipherName>,
    /// The list is not the user's.
    pub(super) fastest: bool,
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
        None if b.files.has_aes() => DEFAULT_CIPHERS.to_vec(),
        None => WITHOUT_AES.to_vec(),
    };
    let fallback = b.line("data-ciphers-fallback").and_then(|line| {
        let name = line.arg(0)?;
        let cipher = CipherName::from_name(name);
        if cipher.is_none() {
            let why = unsupported(name);
            b.warn(line, format!("{why}; a peer that names no cipher is refused"));
        }
        cipher
    });
    let occ = b.line("cipher").and_then(|line| {
        let name = line.arg(0)?;
        let Some(cipher) = CipherName::from_name(name) else {
            let (why, name) = (unsupported(name), name.escape_debug());
            b.warn(line, format!("{why}; peers choose from `data-ciphers`, and one that knows only {name} is refused"));
            return None;
        };
        if (given.is_none() || compat_before_2_5(b)) && !list.contains(&cipher) {
            list.push(cipher);
        }
        if !list.contains(&cipher) {
            let name = cipher.as_str();
            b.warn(line, format!("has no effect, as `data-ciphers` does not list {name}; add it there"));
            return None;
        }
        Some(cipher)
    });
    Ciphers { list, fastest: given.is_none(), fallback, occ }
}

/// `compat-mode` of a release that let `cipher` speak for itself [8.3].
fn compat_before_2_5(b: &Build<'_>) -> bool {
    let version = b.line("compat-mode").and_then(|line| line.arg(0)).unwrap_or_default();
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(u32::MAX));
    let version = (parts.next().unwrap_or(u32::MAX), parts.next().unwrap_or(0));
    version < (2, 5)
}

/// Why a cipher is not there, and which are.
fn unsupported(name: &str) -> String {
    let names: Vec<&str> = CipherName::ALL.iter().map(|cipher| cipher.as_str()).collect();
    let why = match name.to_ascii_uppercase().as_str() {
        "AES-192-GCM" => " (AES-256-GCM and AES-128-GCM are the ones every peer has)",
        "BF-CBC" | "DES-CBC" | "DES-EDE3-CBC" | "RC2-CBC" | "CAST5-CBC" => {
            " (its blocks of 64 bits can be broken: SWEET32)"
        }
        "NONE" => " (packets are always encrypted)",
        upper if upper.ends_with("-CBC") && !cfg!(feature = "cbc") => {
            " (this build is without the feature `cbc`)"
        }
        _ => "",
    };
    format!("{} is not supported{why}; {} are", name.escape_debug(), names.join(", "))
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
            None => unknown.push(name),
        }
    }
    let mut seen = Vec::new();
    list.retain(|cipher| {
        !seen.contains(cipher) && {
            seen.push(*cipher);
            true
        }
    });
    if text.len() > MAX_CIPHER_LIST {
        b.error(line, format!("the list is longer than {MAX_CIPHER_LIST} characters"));
    } else if list.is_empty() {
        let name = unknown.first().copied().unwrap_or(text);
        b.error(line, format!("no usable cipher: {}", unsupported(name)));
    } else {
        for name in unknown {
            b.warn(line, format!("left out: {}", unsupported(name)));
        }
    }
    list
}

/// `auth`: for tls-auth and the CBC ciphers; the others authenticate themselves.
pub(super) fn auth(b: &mut Build<'_>, ciphers: &Ciphers) -> Digest {
    let Some((line, name)) = b.line("auth").and_then(|line| Some((line, line.arg(0)?))) else {
        return Digest::Sha1;
    };
    if let Some(digest) = Digest::from_name(name) {
        return digest;
    }
    let name = name.escape_debug();
    let needs = ciphers.list.iter().chain(&ciphers.fallback).find(|cipher| !cipher.is_aead());
    if let Some(cipher) = needs {
        let cipher = cipher.as_str();
        b.error(line, format!("{name} is not supported; {cipher} needs SHA1, SHA256, SHA384 or SHA512 (the same on both ends)"));
    } else if b.source.mentions("tls-auth") {
        b.error(line, format!("{name} is not supported; SHA1, SHA256, SHA384 and SHA512 are (set the same on both ends)"));
    } else {
        b.warn(line, format!("{name} has no effect: there is no `tls-auth`, and the ciphers authenticate themselves"));
    }
    Digest::Sha1
}

/// `compress`, `comp-lzo`, `allow-compression`: what is left of them is how packets are framed,
/// and a server finds that out for each client.
pub(super) fn framing(b: &mut Build<'_>) -> Framing {
    if let Some(line) = b.line("allow-compression") {
        match line.arg(0) {
            Some("no" | "asym") => {}
            Some("yes") => {
                b.warn(line, "packets are never compressed; what a peer compresses is dropped")
            }
            _ => b.error(line, "must be `no`, `asym` or `yes`"),
        }
    }
    let mut framing = Framing::None;
    for line in ["comp-lzo", "compress"].map(|name| b.line(name)).into_iter().flatten() {
        let args = line.args.iter().map(String::as_str);
        let words: Vec<&str> = core::iter::once(line.name.as_str()).chain(args).collect();
        match Framing::from_words(&words) {
            Some(found) => framing = found,
            None => b.error(line, "the kinds are: `comp-lzo` [no|yes|adaptive]; `compress` [stub|stub-v2|lzo|lz4|lz4-v2|migrate]"),
        }
    }
    if b.server { Framing::None } else { framing }
}

/// `key-method`: one good value.
pub(super) fn key_method(b: &mut Build<'_>) {
    if let Some(line) = b.line("key-method").filter(|line| line.arg(0) != Some("2")) {
        b.error(line, "must be 2; method 1 is gone since OpenVPN 2.5");
    }
}
