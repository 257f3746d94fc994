//! What a client brings to a session: its side of the configuration, what it tells the server about
//! itself, and the wrapping of its control packets [2, 5.2, 5.3].
//!
//! What the server makes of it comes back as a push, which `pushed` reads.

use std::sync::Arc;

use crate::config::{CipherName, ClientRole, Config, Digest, Wrapping};
use crate::limits::{CONTROL_MTU, MAX_TUN_MTU, SEND_WINDOW};
use crate::session::occ::options_string;
use crate::session::wrap::Wrap;
use crate::session::{Login, Role, SessionConfig, SharedUnixTime, TlsContext};
use crate::time::Now;
use crate::wire::peer_info::{HAS_AES, IvProto, WANTS_PREFIX};

/// What all sessions of this client share.
pub(super) fn session_config(
    config: &Config,
    role: &ClientRole,
    login: Option<crate::engine::Login>,
    now: Now,
) -> Result<SessionConfig, String> {
    let time = SharedUnixTime::default();
    time.set(now.unix);
    Ok(SessionConfig {
        role: Role::Client,
        tls: Arc::new(TlsContext::client(&config.tls, time)?),
        timers: config.timers,
        options: options_string(config, Role::Client),
        peer_info: peer_info(config, role),
        credentials: Login::new(login),
        judges_peer: config.hooks.tls_verify.is_some(),
        control_mtu: CONTROL_MTU,
        send_window: SEND_WINDOW,
    })
}

/// What we tell a server about ourselves [5.3].
fn peer_info(config: &Config, role: &ClientRole) -> String {
    const PROTO: IvProto = IvProto::DATA_V2
        .with(IvProto::REQUEST_PUSH)
        .with(IvProto::TLS_KEY_EXPORT)
        .with(IvProto::AUTH_PENDING_KEYWORDS)
        .with(IvProto::CC_EXIT_NOTIFY)
        .with(IvProto::AUTH_FAIL_TEMP)
        .with(IvProto::DYN_TLS_CRYPT)
        .with(IvProto::DATA_EPOCH)
        .with(IvProto::DNS_OPTION_V2)
        .with(IvProto::PUSH_UPDATE);
    let ciphers: Vec<&str> = config.data_ciphers.iter().map(|cipher| cipher.as_str()).collect();
    let gcm = [CipherName::Aes128Gcm, CipherName::Aes256Gcm];
    let ncp = if gcm.iter().all(|cipher| config.data_ciphers.contains(cipher)) {
        "IV_NCP=2\n"
    } else {
        ""
    };
    let prefix = if role.wants_prefix { format!("{WANTS_PREFIX}=1\n") } else { String::new() };
    format!(
        "IV_VER=sixgate_{}\nIV_PLAT=linux\nIV_TCPNL=1\nIV_MTU={}\n{ncp}IV_CIPHERS={}\n\
         IV_LZO_STUB=1\nIV_COMP_STUB=1\nIV_COMP_STUBv2=1\nIV_PROTO={}\n{HAS_AES}={}\n{prefix}",
        env!("CARGO_PKG_VERSION"),
        MAX_TUN_MTU,
        ciphers.join(":"),
        PROTO.0,
        u8::from(config.has_aes),
    )
}

/// The control channel wrapping a remote is configured for, and its WKc for tls-crypt-v2.
pub(super) fn wrap(wrapping: &Wrapping, auth: Digest) -> (Wrap, Option<Vec<u8>>) {
    let Wrapping { tls_auth, tls_crypt, v2_client, v2_server: _ } = wrapping;
    if let Some(v2) = v2_client {
        return (Wrap::tls_crypt(&v2.key, Role::Client), Some(v2.wrapped.clone()));
    }
    if let Some(key) = tls_crypt {
        return (Wrap::tls_crypt(key, Role::Client), None);
    }
    match tls_auth {
        Some((key, direction)) => (Wrap::tls_auth(key, *direction, auth), None),
        None => (Wrap::none(), None),
    }
}
