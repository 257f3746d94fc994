//! The options (OCC) string that both ends send in key method 2 [5.2].
//!
//! Peers compare it with their own and at most warn; they act on `cipher` only when no cipher is
//! pushed, and on `comp-lzo`. So it says what a stock peer expects to read, not what will be used.

use super::Role;
use crate::config::{CipherName, Config, Digest, Framing};

/// Our own string.
pub fn options_string(config: &Config, role: Role) -> String {
    let mtu = config.device.mtu;
    // The fallback is described, too, but named only where it is one of `data-ciphers`.
    let described = config.occ_cipher.or(config.fallback_cipher);
    let link_mtu = link_mtu(mtu, described, config.auth, config.framing);
    let mut text = format!("V4,dev-type tun,link-mtu {link_mtu},tun-mtu {mtu},proto UDPv4");
    match config.framing {
        Framing::None => {}
        // It only says that there is a framing, not which.
        Framing::Lzo | Framing::Swap | Framing::StubV2 => text.push_str(",comp-lzo"),
    }
    let tls_auth = config.wrap.tls_auth.as_ref();
    if let Some(direction) = tls_auth.and_then(|(_, direction)| *direction) {
        text.push_str(&format!(",keydir {direction}"));
    }
    if let Some(cipher) = described.filter(|cipher| config.data_ciphers.contains(cipher)) {
        text.push_str(&format!(",cipher {}", cipher.as_str()));
    }
    let auth = match described {
        Some(cipher) if cipher.is_aead() => "[null-digest]",
        Some(_) | None => config.auth.as_str(),
    };
    // Without a cipher stock peers describe the BF-CBC that they do not use either.
    let bits = described.map_or(128, CipherName::key_bits);
    text.push_str(&format!(",auth {auth},keysize {bits}"));
    if tls_auth.is_some() {
        text.push_str(",tls-auth");
    }
    text.push_str(",key-method 2,");
    text.push_str(match role {
        Role::Client => "tls-client",
        Role::Server => "tls-server",
    });
    text
}

/// The largest datagram, as peers of old counted it: one byte of header, and some things twice.
fn link_mtu(mtu: u16, cipher: Option<CipherName>, auth: Digest, framing: Framing) -> usize {
    const HEADER_AND_ID: usize = 1 + 4;
    let cipher = match cipher {
        // BF-CBC: an IV and padding of 8 each.
        None => auth.size() + 8 + 8,
        // Tag, nonce, and a block that neither needs.
        Some(CipherName::ChaCha20Poly1305) => 16 + 12 + 1,
        Some(CipherName::Aes256Gcm | CipherName::Aes128Gcm) => 16 + 12 + 16,
        // IV and padding.
        #[cfg(feature = "cbc")]
        Some(CipherName::Cbc(_)) => auth.size() + 16 + 16,
    };
    usize::from(mtu) + HEADER_AND_ID + cipher + framing.overhead()
}

/// Whether the peer frames its packets as for compression.
pub fn is_framed(options: &str) -> bool {
    crate::wire::key_method::occ_option(options, "comp-lzo").is_some()
}

/// Our string as a peer expects it that frames its packets, and is about to be told not to: as if
/// we did so, too [5.2, 6.5].
pub fn framed(options: &str) -> String {
    let mut entries: Vec<String> = options.split(',').map(str::to_owned).collect();
    for entry in &mut entries {
        let mtu = entry.strip_prefix("link-mtu ").and_then(|mtu| mtu.parse::<u32>().ok());
        if let Some(mtu) = mtu {
            *entry = format!("link-mtu {}", mtu + 1);
        }
    }
    entries.push("comp-lzo".to_owned());
    entries.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [5.2, 13.6]
    #[test]
    fn link_mtu_as_stock_peers_have_it() {
        let of = |cipher, auth, framing| link_mtu(1500, cipher, auth, framing);
        assert_eq!(of(None, Digest::Sha1, Framing::None), 1541);
        assert_eq!(of(None, Digest::Sha1, Framing::Lzo), 1542);
        assert_eq!(of(None, Digest::Sha1, Framing::StubV2), 1541);
        assert_eq!(of(Some(CipherName::Aes256Gcm), Digest::Sha512, Framing::None), 1549);
        assert_eq!(of(Some(CipherName::ChaCha20Poly1305), Digest::Sha1, Framing::None), 1534);
        let gcm = link_mtu(1400, Some(CipherName::Aes256Gcm), Digest::Sha1, Framing::None);
        assert_eq!(gcm, 1449);
    }

    #[cfg(feature = "cbc")]
    #[test]
    fn link_mtu_of_cbc() {
        use crate::config::AesSize;
        let cipher = Some(CipherName::Cbc(AesSize::Aes128));
        assert_eq!(link_mtu(1500, cipher, Digest::Sha1, Framing::None), 1557);
        assert_eq!(link_mtu(1400, cipher, Digest::Sha1, Framing::None), 1457);
        assert_eq!(link_mtu(1500, cipher, Digest::Sha256, Framing::Swap), 1570);
    }

    fn own(role: Role, lines: &str) -> String {
        use crate::config::tests::{client, server};
        let loaded = match role {
            Role::Client => client(lines),
            Role::Server => server(lines),
        };
        options_string(&loaded.config, role)
    }

    /// What OpenVPN 2.6.14 says with these lines; a server says the same but for its role.
    #[test]
    fn the_whole_string_as_stock_peers_have_it() {
        let mtu = "link-mtu 1541,tun-mtu 1500,proto UDPv4";
        for (lines, text) in [
            ("", format!("{mtu},auth SHA1,keysize 128")),
            (
                "cipher AES-256-GCM",
                "link-mtu 1549,tun-mtu 1500,proto UDPv4,cipher AES-256-GCM,auth [null-digest],keysize 256"
                    .to_owned(),
            ),
            (
                "cipher CHACHA20-POLY1305\ntun-mtu 1400",
                "link-mtu 1434,tun-mtu 1400,proto UDPv4,cipher CHACHA20-POLY1305,auth [null-digest],\
                 keysize 256"
                    .to_owned(),
            ),
            ("tls-auth ta.key", format!("{mtu},auth SHA1,keysize 128,tls-auth")),
            ("tls-auth ta.key 0", format!("{mtu},keydir 0,auth SHA1,keysize 128,tls-auth")),
        ] {
            for (role, name) in [(Role::Client, "tls-client"), (Role::Server, "tls-server")] {
                let whole = format!("V4,dev-type tun,{text},key-method 2,{name}");
                assert_eq!(own(role, lines), whole, "{lines}");
            }
        }
        // A server frames nothing by itself.
        let framed = "V4,dev-type tun,link-mtu 1542,tun-mtu 1500,proto UDPv4,comp-lzo,auth SHA1,keysize 128,\
                      key-method 2,tls-client";
        assert_eq!(own(Role::Client, "comp-lzo no"), framed);
        assert_eq!(own(Role::Client, "compress stub-v2"), framed.replace("1542", "1541"));
    }

    #[cfg(feature = "cbc")]
    #[test]
    fn the_whole_string_with_cbc() {
        for (lines, text) in [
            (
                "cipher AES-256-CBC\nauth SHA512",
                "link-mtu 1601,tun-mtu 1500,proto UDPv4,cipher AES-256-CBC,auth SHA512,keysize 256",
            ),
            (
                "cipher AES-128-CBC\nauth SHA256\ntls-auth ta.key 0",
                "link-mtu 1569,tun-mtu 1500,proto UDPv4,keydir 0,cipher AES-128-CBC,auth SHA256,keysize 128,\
                 tls-auth",
            ),
            (
                "cipher AES-192-CBC\ntun-mtu 1400",
                "link-mtu 1457,tun-mtu 1400,proto UDPv4,cipher AES-192-CBC,auth SHA1,keysize 192",
            ),
            (
                "data-ciphers-fallback AES-128-CBC",
                "link-mtu 1557,tun-mtu 1500,proto UDPv4,auth SHA1,keysize 128",
            ),
        ] {
            let whole = format!("V4,dev-type tun,{text},key-method 2,tls-client");
            assert_eq!(own(Role::Client, lines), whole, "{lines}");
        }
    }

    /// The example in OpenVPN's `ssl_util.c`, where the added word is the last, too.
    #[test]
    fn the_string_for_a_peer_that_frames() {
        let plain = "V4,dev-type tun,link-mtu 1457,tun-mtu 1400,proto UDPv4,auth SHA1,tls-server";
        let changed = framed(plain);
        assert!(changed.starts_with("V4,dev-type tun,link-mtu 1458,tun-mtu 1400,proto UDPv4,auth"));
        assert!(is_framed(&changed) && !is_framed(plain));
    }
}
