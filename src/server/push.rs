//! PUSH_REPLY: what a client is told to configure, cut into messages of the allowed size [7.2].
//!
//! The interface addresses go first and what everybody needs follows, so that clients which read
//! only the first message still get a working tunnel; the configured `push` list comes last.

use ipnet::{Ipv4Net, Ipv6Net};

use crate::config::Config;
use crate::engine::PeerId;
use crate::limits::MAX_PUSH_MESSAGE;
use crate::server::negotiate::Terms;
use crate::server::pool::Lease;

/// Stock servers start a new message here (1024 - 84); older clients were tested with that.
const MESSAGE_BUDGET: usize = MAX_PUSH_MESSAGE - 84;
/// Longest option a client's parser takes (OPTION_LINE_SIZE less its NUL) [7.2].
const MAX_OPTION: usize = 255;
const VERB: &str = "PUSH_REPLY";

/// Why a configured `push` is left out; the configuration's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpushable {
    /// A comma separates options on the wire and cannot be escaped.
    Comma,
    /// Longer than clients read.
    TooLong,
    /// A control character, which clients reject the whole message for.
    Control,
    /// The server decides this for each client itself.
    Generated,
}

impl Unpushable {
    /// The reason in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Comma => "it contains a comma, which separates options on the wire",
            Self::TooLong => "it is longer than the 255 bytes clients read",
            Self::Control => "it contains a control character",
            Self::Generated => "the server negotiates this with each client",
        }
    }
}

/// Whether clients can be sent this option.
pub fn check(option: &str) -> Result<(), Unpushable> {
    if option.contains(',') {
        return Err(Unpushable::Comma);
    }
    if option.len() > MAX_OPTION {
        return Err(Unpushable::TooLong);
    }
    if option.chars().any(char::is_control) {
        return Err(Unpushable::Control);
    }
    let word = option.split_whitespace().next().unwrap_or_default();
    match word {
        "cipher" | "peer-id" | "protocol-flags" | "key-derivation" | "push-continuation" => {
            Err(Unpushable::Generated)
        }
        _ => Ok(()),
    }
}

/// The server's own side of the tunnel, as clients are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Local {
    /// Our address in the IPv4 network.
    pub v4: Option<Ipv4Net>,
    /// Our address in the IPv6 network.
    pub v6: Option<Ipv6Net>,
}

impl Local {
    /// The first host of `server`, `::1` of `server-ipv6` [9.1].
    pub fn new(v4: Option<Ipv4Net>, v6: Option<Ipv6Net>) -> Self {
        let v4 = v4.and_then(|net| {
            let first = net.network().to_bits().checked_add(1)?;
            Ipv4Net::new(first.into(), net.prefix_len()).ok()
        });
        let v6 = v6.and_then(|net| {
            let first = net.network().to_bits().checked_add(1)?;
            Ipv6Net::new(first.into(), net.prefix_len()).ok()
        });
        Self { v4, v6 }
    }
}

/// All options for one client; `configured` has passed [`check`].
pub fn options(
    config: &Config,
    configured: &[String],
    local: Local,
    lease: Lease,
    peer: PeerId,
    terms: &Terms,
) -> Vec<String> {
    let mut list = Vec::new();
    if let (Some(own), Some(address)) = (local.v4, lease.v4) {
        list.push(format!("ifconfig {address} {}", own.netmask()));
    }
    if let (Some(own), Some(address)) = (local.v6, lease.v6) {
        // Clients insist on 64..=124 and on the remote address [7.3].
        let bits = own.prefix_len().clamp(64, 124);
        list.push(format!("ifconfig-ipv6 {address}/{bits} {}", own.addr()));
        list.push("tun-ipv6".to_owned());
    }
    list.push("topology subnet".to_owned());
    if let (Some(own), Some(_)) = (local.v4, lease.v4) {
        list.push(format!("route-gateway {}", own.addr()));
    }
    if let Some((ping, restart)) = config.timers.push_keepalive {
        list.push(format!("ping {ping}"));
        list.push(format!("ping-restart {restart}"));
    }
    if terms.data_v2 {
        list.push(format!("peer-id {peer}"));
    }
    if terms.push_cipher {
        list.push(format!("cipher {}", terms.cipher.as_str()));
    }
    list.extend(protocol_flags(terms));
    if let Some(mtu) = terms.tun_mtu {
        list.push(format!("tun-mtu {mtu}"));
    }
    list.extend(configured.iter().cloned());
    list
}

/// `protocol-flags` with just the words this client knows: an unknown one is fatal in OpenVPN 3.
/// A client with exported keys but without that option is told by `key-derivation` [7.2].
fn protocol_flags(terms: &Terms) -> Option<String> {
    if !terms.cc_exit {
        return terms.exporter.then(|| "key-derivation tls-ekm".to_owned());
    }
    let mut text = "protocol-flags cc-exit".to_owned();
    for (given, word) in [
        (terms.exporter, " tls-ekm"),
        (terms.dynamic_tls_crypt, " dyn-tls-crypt"),
        (terms.epoch, " aead-epoch"),
    ] {
        if given {
            text.push_str(word);
        }
    }
    Some(text)
}

/// Cuts the options into messages. All but the last of several end in `push-continuation 2`, the
/// last in `push-continuation 1`; a single one has neither.
pub fn messages(options: &[String]) -> Vec<String> {
    let mut parts = vec![VERB.to_owned()];
    for option in options {
        let last = parts.last_mut();
        match last {
            Some(part) if part.len() + 1 + option.len() < MESSAGE_BUDGET => {
                part.push(',');
                part.push_str(option);
            }
            Some(_) | None => parts.push(format!("{VERB},{option}")),
        }
    }
    let count = parts.len();
    if count > 1 {
        for (at, part) in parts.iter_mut().enumerate() {
            let more = if at + 1 < count { 2 } else { 1 };
            part.push_str(&format!(",push-continuation {more}"));
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CipherName;

    fn terms() -> Terms {
        Terms {
            cipher: CipherName::Aes256Gcm,
            push_cipher: true,
            exporter: true,
            cc_exit: true,
            dynamic_tls_crypt: true,
            epoch: false,
            data_v2: true,
            tun_mtu: Some(1500),
        }
    }

    #[test]
    fn flags_hold_only_the_words_the_client_knows() {
        let flags = |change: fn(&mut Terms)| {
            let mut terms = terms();
            change(&mut terms);
            protocol_flags(&terms)
        };
        let all = Some("protocol-flags cc-exit tls-ekm dyn-tls-crypt".to_owned());
        assert_eq!(flags(|_| ()), all);
        let plain = Some("protocol-flags cc-exit".to_owned());
        assert_eq!(flags(|t| (t.exporter, t.dynamic_tls_crypt) = (false, false)), plain);
        assert_eq!(flags(|t| t.cc_exit = false), Some("key-derivation tls-ekm".to_owned()));
        assert_eq!(flags(|t| (t.cc_exit, t.exporter) = (false, false)), None);
    }

    #[test]
    fn our_own_addresses_are_the_first_of_each_network() {
        let local = Local::new("10.8.0.0/24".parse().ok(), "fd00:6::/64".parse().ok());
        assert_eq!(local.v4, "10.8.0.1/24".parse().ok());
        assert_eq!(local.v6, "fd00:6::1/64".parse().ok());
    }

    #[test]
    fn short_lists_are_one_message_and_long_ones_are_continued() {
        let options: Vec<_> = (0..200).map(|n| format!("route 10.{n}.0.0 255.255.0.0")).collect();
        assert_eq!(messages(&options[..1]), ["PUSH_REPLY,route 10.0.0.0 255.255.0.0"]);
        let parts = messages(&options);
        assert!(parts.len() > 2);
        let mut joined = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            assert!(part.len() < MAX_PUSH_MESSAGE, "its NUL fits, too");
            let more = if at + 1 < parts.len() { 2 } else { 1 };
            let body = part.strip_suffix(&format!(",push-continuation {more}")).unwrap();
            joined.extend(body.strip_prefix("PUSH_REPLY,").unwrap().split(',').map(str::to_owned));
        }
        assert_eq!(joined, options, "nothing is lost, doubled or reordered");
        let longest = vec!["x".repeat(MAX_OPTION); 9];
        assert!(messages(&longest).iter().all(|part| part.len() < MAX_PUSH_MESSAGE));
    }

    #[test]
    fn names_what_cannot_be_pushed() {
        assert_eq!(check("route 10.0.0.0 255.0.0.0"), Ok(()));
        assert_eq!(check("dhcp-option DNS a,b"), Err(Unpushable::Comma));
        assert_eq!(check("cipher AES-256-GCM"), Err(Unpushable::Generated));
        assert_eq!(check("echo \u{1}"), Err(Unpushable::Control));
        assert_eq!(check(&"x".repeat(256)), Err(Unpushable::TooLong));
    }
}
