//! PUSH_REPLY: what a client is told to configure, cut into messages of the allowed size [7.2].
//!
//! The interface addresses go first and what was negotiated follows, so that clients which read only
//! the first message still get a working tunnel; what all clients have in common comes last, as
//! each client's own file changes it [9.5].

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::ccd::PushChange;
use crate::config::{ClientSettings, Config, Framing, ServerRole, Topology};
use crate::engine::PeerId;
use crate::limits::MAX_PUSH_MESSAGE;
use crate::server::negotiate::Terms;
use crate::server::pool::Lease;

/// Stock servers start a new message here (1024 - 84); older clients were tested with that.
const MESSAGE_BUDGET: usize = MAX_PUSH_MESSAGE - 84;
/// Longest option a client's parser takes (OPTION_LINE_SIZE less its NUL) [7.2].
const MAX_OPTION: usize = 255;
/// Prefix lengths that clients take [7.3].
const SHORTEST_PREFIX: u8 = 64;
const LONGEST_PREFIX: u8 = 124;
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
        "cipher" | "peer-id" | "protocol-flags" | "key-derivation" | "push-continuation"
        | "compress" | "comp-lzo" => Err(Unpushable::Generated),
        _ => Ok(()),
    }
}

/// What every client is pushed unless its own file says otherwise: what the server's addresses and
/// timers demand [9.1], then the `push` list without what cannot be pushed.
pub fn inherited(config: &Config, role: &ServerRole) -> Vec<String> {
    let mut list = Vec::new();
    if role.v6.is_some() {
        list.push("tun-ipv6".to_owned());
    }
    list.push(format!("topology {}", role.topology.as_str()));
    if let Some(own) = role.v4 {
        let (net, mask) = (own.network(), own.netmask());
        match (role.topology, own.prefix_len()) {
            (Topology::Subnet, _) => list.push(format!("route-gateway {}", own.addr())),
            // Without `server` there is only what `push` says.
            (Topology::Net30 | Topology::P2p, 32) => {}
            (Topology::Net30 | Topology::P2p, _) if role.client_to_client => {
                list.push(format!("route {net} {mask}"));
            }
            (Topology::Net30, _) => list.push(format!("route {}", own.addr())),
            (Topology::P2p, _) => {}
        }
    }
    // Clients take a prefix of 64 bits at least; the rest of a shorter one is a route for them.
    if let Some(own) = role.v6.filter(|own| own.prefix_len() < SHORTEST_PREFIX) {
        list.push(format!("route-ipv6 {}", own.trunc()));
    }
    if let Some((ping, restart)) = config.timers.push_keepalive {
        list.push(format!("ping {ping}"));
        list.push(format!("ping-restart {restart}"));
    }
    for option in &role.push {
        match check(option) {
            Ok(()) => list.push(option.clone()),
            Err(why) => log::warn!("push {option:?} is left out: {}", why.as_str()),
        }
    }
    list
}

/// The `inherited` list as a client's file changes it. A route to what is behind the client itself
/// would turn its own network round, so that is left out [9.5].
fn changed(inherited: &[String], settings: &ClientSettings) -> Vec<String> {
    let mut list = inherited.to_vec();
    for change in &settings.push {
        match change {
            PushChange::Add(option) => match check(option) {
                Ok(()) => list.push(option.clone()),
                Err(why) => log::warn!("push {option:?} is left out: {}", why.as_str()),
            },
            PushChange::Remove(start) => list.retain(|option| !option.starts_with(start.as_str())),
            PushChange::Reset => list.clear(),
        }
    }
    let own = |net: IpNet| settings.behind.iter().any(|behind| behind.contains(&net));
    list.retain(|option| !destination(option).is_some_and(own));
    list
}

/// Where a pushed route leads.
fn destination(option: &str) -> Option<IpNet> {
    let mut words = option.split_whitespace();
    match words.next()? {
        "route" => {
            let net = words.next()?.parse().ok()?;
            let mask = words.next().filter(|mask| *mask != "default");
            let mask = mask.unwrap_or("255.255.255.255").parse().ok()?;
            Some(Ipv4Net::with_netmask(net, mask).ok()?.into())
        }
        "route-ipv6" => Some(words.next()?.parse::<Ipv6Net>().ok()?.into()),
        _ => None,
    }
}

/// `ifconfig` and `ifconfig-ipv6` for a client [9.2].
pub(super) fn interface(
    role: &ServerRole,
    lease: Lease,
    fixed: Lease,
    settings: &ClientSettings,
) -> Vec<String> {
    let suppressed = |name: &str| settings.push.contains(&PushChange::Remove(name.to_owned()));
    let mut list = Vec::new();
    if let (Some(own), Some(address)) = (role.v4, lease.v4.filter(|_| !suppressed("ifconfig"))) {
        let (shown, second) = match settings.v4.filter(|_| fixed.v4.is_some()) {
            Some(fixed) => (fixed.alias.unwrap_or(address), fixed.second),
            None => match role.topology {
                Topology::Subnet => {
                    let mask = role.v4_pool.and_then(|pool| pool.netmask);
                    (address, mask.unwrap_or(own.netmask()))
                }
                Topology::P2p => (address, own.addr()),
                // The second of the client's block of four.
                Topology::Net30 => (address, (address.to_bits() - 1).into()),
            },
        };
        list.push(format!("ifconfig {shown} {second}"));
    }
    if let (Some(own), Some(address)) = (role.v6, lease.v6.filter(|_| !suppressed("ifconfig-ipv6")))
    {
        let settings = settings.v6.filter(|_| fixed.v6.is_some());
        // Clients insist on the length and on the remote address [7.3].
        let usual = own.prefix_len().clamp(SHORTEST_PREFIX, LONGEST_PREFIX);
        let bits = settings.map_or(usual, |fixed| fixed.net.prefix_len());
        let remote = settings.and_then(|fixed| fixed.remote).unwrap_or(own.addr());
        list.push(format!("ifconfig-ipv6 {address}/{bits} {remote}"));
    }
    list
}

/// All options for one client: its addresses, what was negotiated with it, and the `inherited`
/// list as its file changes it.
pub fn options(
    role: &ServerRole,
    inherited: &[String],
    (lease, fixed): (Lease, Lease),
    settings: &ClientSettings,
    peer: PeerId,
    terms: &Terms,
) -> Vec<String> {
    let mut list = interface(role, lease, fixed, settings);
    if terms.data_v2 {
        list.push(format!("peer-id {peer}"));
    }
    if terms.push_cipher {
        list.push(format!("cipher {}", terms.cipher.as_str()));
    }
    list.extend(framing(terms).map(str::to_owned));
    list.extend(protocol_flags(terms));
    if let Some(mtu) = terms.tun_mtu {
        list.push(format!("tun-mtu {mtu}"));
    }
    list.extend(changed(inherited, settings));
    list
}

/// How a client that frames its packets is to do it.
const fn framing(terms: &Terms) -> Option<&'static str> {
    match terms.framing {
        Framing::None => None,
        Framing::Lzo => Some("comp-lzo no"),
        Framing::Swap => Some("compress stub"),
        Framing::StubV2 => Some("compress stub-v2"),
    }
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
    use crate::config::ccd::{FixedV4, FixedV6};
    use crate::config::{CipherName, PoolV4, PoolV6};

    fn terms() -> Terms {
        Terms {
            cipher: CipherName::Aes256Gcm,
            framing: Framing::None,
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

    fn role(topology: Topology) -> ServerRole {
        let net = "10.8.0.0/24".parse().unwrap();
        ServerRole {
            topology,
            v4: "10.8.0.1/24".parse().ok(),
            v4_peer: (topology != Topology::Subnet).then(|| [10, 8, 0, 2].into()),
            v6: "fd00:6::1/64".parse().ok(),
            v4_pool: Some(PoolV4::of_network(net, topology)),
            v6_pool: "fd00:6::/64".parse().ok().map(PoolV6::of_prefix),
            routes: Vec::new(),
            push: Vec::new(),
            client_files: None,
            client_to_client: false,
            max_clients: 4,
            duplicate_cn: false,
            exit_notify: 0,
            inactive: None,
            session_timeout: None,
            initial_rate: (1, core::time::Duration::from_secs(1)),
            force_cookie: false,
            login: crate::config::hooks::Login::default(),
            pool_persist: None,
        }
    }

    fn lease(v4: &str, v6: &str) -> Lease {
        Lease { v4: v4.parse().ok(), v6: v6.parse().ok() }
    }

    #[test]
    fn addresses_are_told_as_the_topology_wants_them() {
        let none = Lease::default();
        let settings = ClientSettings::default();
        for (topology, address, expected) in [
            (Topology::Subnet, "10.8.0.2", "ifconfig 10.8.0.2 255.255.255.0"),
            (Topology::Net30, "10.8.0.6", "ifconfig 10.8.0.6 10.8.0.5"),
            (Topology::P2p, "10.8.0.4", "ifconfig 10.8.0.4 10.8.0.1"),
        ] {
            let given = lease(address, "fd00:6::1000");
            let told = interface(&role(topology), given, none, &settings);
            assert_eq!(told, [expected, "ifconfig-ipv6 fd00:6::1000/64 fd00:6::1"]);
        }
        let mut wide = role(Topology::Subnet);
        (wide.v6, wide.v4) = ("fd00:6::1/48".parse().ok(), None);
        let given = lease("", "fd00:6::1000");
        let told = interface(&wide, given, none, &settings);
        assert_eq!(told, ["ifconfig-ipv6 fd00:6::1000/64 fd00:6::1"]);
        wide.v4_pool = wide.v4_pool.map(|pool| PoolV4 { netmask: Some([255; 4].into()), ..pool });
        wide.v4 = "10.8.0.1/24".parse().ok();
        let told = interface(&wide, lease("10.8.0.9", ""), none, &settings);
        assert_eq!(told, ["ifconfig 10.8.0.9 255.255.255.255"]);
    }

    #[test]
    fn fixed_addresses_are_told_as_the_file_has_them() {
        let v4 = FixedV4 {
            address: [10, 8, 0, 9].into(),
            second: [255, 255, 0, 0].into(),
            alias: Some([10, 99, 0, 9].into()),
        };
        let remote = "fd00:6::2".parse().ok();
        let v6 = FixedV6 { net: "fd00:6::9/112".parse().unwrap(), remote };
        let mut settings = ClientSettings { v4: Some(v4), v6: Some(v6), ..Default::default() };
        let given = lease("10.8.0.9", "fd00:6::9");
        let told = interface(&role(Topology::Subnet), given, given, &settings);
        let expected = ["ifconfig 10.99.0.9 255.255.0.0", "ifconfig-ipv6 fd00:6::9/112 fd00:6::2"];
        assert_eq!(told, expected);
        settings.push = vec![PushChange::Remove("ifconfig-ipv6".to_owned())];
        assert_eq!(interface(&role(Topology::Subnet), given, given, &settings), expected[..1]);
        settings.push = vec![PushChange::Remove("ifconfig".to_owned())];
        assert_eq!(interface(&role(Topology::Subnet), given, given, &settings), expected[1..]);
    }

    #[test]
    fn a_clients_file_changes_the_list() {
        let inherited = [
            "topology subnet",
            "route-gateway 10.8.0.1",
            "route 10.1.0.0 255.255.0.0",
            "route 10.2.3.0 255.255.255.0",
            "route-ipv6 fd00:7::/64",
            "ping 10",
        ];
        let inherited = inherited.map(str::to_owned);
        let with = |push: Vec<PushChange>, behind: &[&str]| {
            let behind = behind.iter().map(|net| net.parse().unwrap()).collect();
            changed(&inherited, &ClientSettings { push, behind, ..Default::default() })
        };
        let add = |option: &str| PushChange::Add(option.to_owned());
        let remove = |option: &str| PushChange::Remove(option.to_owned());
        assert_eq!(with(vec![], &[]), inherited);
        let removed = with(vec![remove("route "), remove("ping")], &[]);
        assert_eq!(
            removed,
            ["topology subnet", "route-gateway 10.8.0.1", "route-ipv6 fd00:7::/64"]
        );
        assert_eq!(with(vec![remove("route")], &[]), ["topology subnet", "ping 10"]);
        let reset = vec![add("echo lost"), PushChange::Reset, add("echo kept")];
        assert_eq!(with(reset, &[]), ["echo kept"]);
        let own = with(vec![add("route 10.2.9.9")], &["10.2.0.0/16", "fd00:7::/64"]);
        let kept =
            ["topology subnet", "route-gateway 10.8.0.1", "route 10.1.0.0 255.255.0.0", "ping 10"];
        assert_eq!(own, kept, "what is behind the client itself is not pushed to it");
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
