//! The options (OCC) string that both ends send in key method 2 [5.2].
//!
//! Peers compare it with their own and at most warn; they act on `cipher` only when no cipher is
//! pushed. So it says what a stock peer expects to read, not what will be used.

use super::Role;
use crate::config::{CipherName, Config};

/// Our own string.
pub fn options_string(config: &Config, role: Role) -> String {
    let mut text = format!("V4,dev-type tun,link-mtu 1549,tun-mtu {}", config.device.mtu);
    text.push_str(",proto UDPv4");
    let tls_auth = config.wrap.tls_auth.as_ref();
    if let Some(direction) = tls_auth.and_then(|(_, direction)| *direction) {
        text.push_str(&format!(",keydir {direction}"));
    }
    match config.occ_cipher {
        Some(cipher) => text.push_str(&format!(",cipher {},auth [null-digest]", cipher.as_str())),
        None => text.push_str(&format!(",auth {}", config.auth.as_str())),
    }
    let bits = config.occ_cipher.map_or(256, CipherName::key_bits);
    text.push_str(&format!(",keysize {bits}"));
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
