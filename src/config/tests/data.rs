//! Ciphers, digests and framings of the data channel.

use super::*;

#[test]
fn ciphers() {
    let names = |lines: &str| -> Vec<&'static str> {
        server(lines).config.data_ciphers.iter().map(|c| c.as_str()).collect()
    };
    assert_eq!(
        names("data-ciphers chacha20-poly1305:AES-256-GCM"),
        ["CHACHA20-POLY1305", "AES-256-GCM"]
    );
    assert_eq!(names(""), ["AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305"]);
    let slow = on_processor("", false);
    let ours = slow.data_ciphers.first().copied();
    assert_eq!((ours, slow.fastest_cipher), (Some(CipherName::ChaCha20Poly1305), true));
    let theirs = on_processor("data-ciphers DEFAULT", false);
    assert_eq!(
        (theirs.data_ciphers.first(), theirs.fastest_cipher),
        (Some(&CipherName::Aes256Gcm), false)
    );
    assert_eq!(names("ncp-ciphers AES-128-GCM"), ["AES-128-GCM"]);
    assert_eq!(
        names("data-ciphers AES-128-GCM:DEFAULT"),
        ["AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305"]
    );
    assert_eq!(names("data-ciphers AES-256-GCM:?BF-CBC:AES-192-GCM"), ["AES-256-GCM"]);
    assert!(
        server_error("data-ciphers BF-CBC")
            .contains("SWEET32); CHACHA20-POLY1305, AES-256-GCM, AES-128-GCM")
    );
    assert!(server_error("data-ciphers aes-192-gcm").contains("every peer has"));
    let quiet = server("data-ciphers AES-256-GCM:?BF-CBC");
    assert_eq!(quiet.warnings, []);
    assert_eq!(server("cipher AES-128-GCM").config.occ_cipher, Some(CipherName::Aes128Gcm));
    let outside = server("cipher AES-128-GCM\ndata-ciphers AES-256-GCM");
    assert_eq!((outside.config.occ_cipher, outside.warnings.len()), (None, 1));
    assert_eq!(server("cipher BF-CBC\ndata-ciphers-fallback BF-CBC").warnings.len(), 2);
    assert_eq!(server("auth sha512\ntls-auth ta.key 0").config.auth, Digest::Sha512);
    assert!(server_error("auth MD5\ntls-auth ta.key 0").contains("SHA1, SHA256"));
    assert_eq!(server("auth none").warnings.len(), 1);
    let compat = "cipher AES-128-GCM\ndata-ciphers AES-256-GCM\ncompat-mode ";
    assert_eq!(names(&format!("{compat}2.4.9")), ["AES-256-GCM", "AES-128-GCM"]);
    assert_eq!(names(&format!("{compat}2.5.0")), ["AES-256-GCM"]);
}

/// What configurations of OpenVPN 2.4 and older have.
#[test]
#[cfg(feature = "cbc")]
fn cbc_ciphers() {
    let old = server("cipher AES-256-CBC\nauth SHA256").config;
    let cbc = CipherName::Cbc(AesSize::Aes256);
    assert_eq!((old.data_ciphers.last(), old.occ_cipher), (Some(&cbc), Some(cbc)));
    assert_eq!(old.auth, Digest::Sha256);
    let fallback = server("data-ciphers-fallback AES-128-CBC").config.fallback_cipher;
    assert_eq!(fallback, Some(CipherName::Cbc(AesSize::Aes128)));
    assert!(server_error("cipher AES-256-CBC\nauth none").contains("AES-256-CBC needs SHA1"));
    assert!(server_error("data-ciphers-fallback AES-256-CBC\nauth MD5").contains("needs SHA1"));
}

#[test]
fn framings() {
    assert_eq!(client("").config.framing, Framing::None);
    assert_eq!(client("comp-lzo no").config.framing, Framing::Lzo);
    assert_eq!(client("compress lz4-v2\nallow-compression yes").config.framing, Framing::StubV2);
    assert_eq!(server("compress migrate\nallow-compression asym").warnings, []);
    assert_eq!(server("comp-lzo").config.framing, Framing::None);
    assert!(server_error("compress zstd").contains("the kinds are"));
    assert!(server_error("allow-compression maybe").contains("must be"));
}
