//! PUSH_REPLY: what a client is told to configure, cut into messages of the allowed size [7.2].
//!
//! The interface addresses go first and what was negotiated follows, so that clients which read only
//! the first message still get a working tunnel; what all clients have in common comes last, as
//! each client's own file changes it [9.5].

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::ccd::PushChange;
use crate::config::{ClientSettings, Config, Framing, ServerRole, Topology};
use crate::config::{DELEGATED_PREFIX, STABLE_ADDRESS};
use crate::engine::PeerId;
use crate::limits::MAX_PUSH_MESSAGE;
use crate::server::line::Line;
use crate::server::negotiate::Terms;
use crate::server::pool::Lease;

/// Stock servers start a new message here (1024 - 84); older clients were tested with that.
const MESSAGE_BUDGET: usize = MAX_PUSH_MESSAGE - 84;
/// Longest option a client's parser takes (OPTION_LINE_SIZE less its NUL) [7.2].
const MAX_OPTION: usize = 255;
/// Prefix lengths that clients take [7.3].
const SHORTEST_PREFIX: u8 = 64;
const LONGEST_PREFIX: u8 = 124;
const REPLY: &str = "PUSH_REPLY";
const UPDATE: &str = "PUSH_UPDATE";
/// Lists that can be replaced on a connection that is up [7.4].
const LISTS: [&str; 5] = ["route", "route-ipv6", "redirect-gateway", "dns", "dhcp-option"];
/// What changes with the prefix of the line, and what a client that sets its device up again for it
/// might lose otherwise.
const RENUMBERED: [&str; 5] =
    ["ifconfig-ipv6", "route-ipv6", "redirect-gateway", "dns", "dhcp-option"];

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

fn left_out(option: &str, why: Unpushable) {
    log::warn!("push '{}' is left out: {}", option.escape_debug(), why.as_str());
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
    // Networks behind other clients; a client's own part is the more exact one.
    list.extend(role.delegate.as_ref().map(|delegate| format!("route-ipv6 {}", delegate.pool)));
    if let Some((ping, restart)) = config.timers.push_keepalive {
        list.push(format!("ping {ping}"));
        list.push(format!("ping-restart {restart}"));
    }
    for option in &role.push {
        match check(option) {
            Ok(()) => list.push(option.clone()),
            Err(why) => left_out(option, why),
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
                Err(why) => left_out(option, why),
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
    line: Option<&Line>,
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
        let (told, own) = line.map_or((address, own.addr()), |line| line.told(address));
        let remote = settings.and_then(|fixed| fixed.remote).unwrap_or(own);
        list.push(format!("ifconfig-ipv6 {told}/{bits} {remote}"));
    }
    list
}

/// What a client whose address follows the line needs beside it: the way to the stable prefix, and
/// its own address there. OpenVPN sets one IPv6 address only; there, a script may set this one, so
/// that connections between stable addresses outlive a change of the line's prefix.
fn stable(role: &ServerRole, line: Option<&Line>, address: Option<Ipv6Addr>) -> Vec<String> {
    let (Some(own), Some(line), Some(address)) = (role.v6, line, address) else {
        return Vec::new();
    };
    if !own.contains(&address) {
        return Vec::new();
    }
    let variable = format!("setenv-safe {STABLE_ADDRESS} {address}/{}", own.prefix_len());
    let route = format!("route-ipv6 {}", own.trunc());
    let is_told = line.told(address).0 == address;
    [Some(variable), (!is_told).then_some(route)].into_iter().flatten().collect()
}

/// All options for one client: its addresses, what was negotiated with it, and the `inherited`
/// list as its file changes it.
pub(super) fn options(
    role: &ServerRole,
    line: Option<&Line>,
    inherited: &[String],
    (lease, fixed): (Lease, Lease),
    settings: &ClientSettings,
    peer: PeerId,
    terms: &Terms,
) -> Vec<String> {
    let mut list = interface(role, line, lease, fixed, settings);
    if list.iter().any(|option| option.starts_with("ifconfig-ipv6 ")) {
        list.extend(stable(role, line, lease.v6));
    }
    if let Some(net) = settings.delegated {
        list.push(delegated(line.map_or(net, |line| line.told_net(net))));
    }
    // The way to all of them, as to those of the private prefix.
    list.extend(line.and_then(Line::room).map(|room| format!("route-ipv6 {room}")));
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
    capture_ipv6(&mut list);
    list
}

/// Names the network that is delegated to a client.
pub(super) fn delegated(net: Ipv6Net) -> String {
    format!("setenv-safe {DELEGATED_PREFIX} {net}")
}

/// A client that sends all of its traffic through the tunnel sends none beside it: IPv6 goes the same
/// way, and is answered as unreachable by the client itself where the tunnel has none. It takes an
/// address to lead it there, which is out of the prefix for what is discarded (RFC 6666).
fn capture_ipv6(list: &mut Vec<String>) {
    let is_redirect = |option: &String| option.split(' ').next() == Some("redirect-gateway");
    let has_flag = |option: &String| option.split_whitespace().any(|flag| flag == "ipv6");
    let captured = list.iter().any(|option| is_redirect(option) && has_flag(option));
    let Some(redirect) = list.iter_mut().find(|option| is_redirect(option)) else { return };
    if !captured {
        redirect.push_str(" ipv6");
    }
    let has = |list: &[String], name: &str| {
        list.iter().any(|option| option.split(' ').next() == Some(name))
    };
    if !has(list, "ifconfig-ipv6") {
        list.push("ifconfig-ipv6 100::2/64 100::1".to_owned());
        if !has(list, "block-ipv6") {
            list.push("block-ipv6".to_owned());
        }
    }
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
    parts(REPLY, options)
}

/// The change of a client's address, and of what goes with it, out of the options it is to have.
/// `with_net`: also that of the network delegated to it.
pub(super) fn update(options: &[String], with_net: bool) -> Vec<String> {
    let name = |option: &str| option.split(' ').next().unwrap_or_default().to_owned();
    let is_net = |option: &str| {
        let mut words = option.split(' ');
        (words.next(), words.next()) == (Some("setenv-safe"), Some(DELEGATED_PREFIX))
    };
    let concerns = |option: &&String| {
        RENUMBERED.contains(&name(option).as_str()) || with_net && is_net(option)
    };
    let mut list: Vec<String> = options.iter().filter(concerns).cloned().collect();
    // The way to the stable prefix is of no use to a client whose address is in it.
    if !list.iter().any(|option| name(option) == "route-ipv6") {
        list.push("-route-ipv6".to_owned());
    }
    parts(UPDATE, &list)
}

/// What turns the options `before` into `after` on a connection that is up; `None` when it takes a
/// new one.
pub(super) fn difference(before: &[String], after: &[String]) -> Option<Vec<String>> {
    let name = |option: &String| option.split(' ').next().unwrap_or_default().to_owned();
    let fixed = |list: &[String]| -> Vec<String> {
        list.iter().filter(|option| !LISTS.contains(&name(option).as_str())).cloned().collect()
    };
    if fixed(before) != fixed(after) {
        return None;
    }
    let mut changes = Vec::new();
    for kind in LISTS {
        let of_kind = |list: &[String]| -> Vec<String> {
            list.iter().filter(|option| name(option) == kind).cloned().collect()
        };
        let (old, new) = (of_kind(before), of_kind(after));
        if new.is_empty() && !old.is_empty() {
            changes.push(format!("-{kind}"));
        } else if new != old {
            changes.extend(new);
        }
    }
    if changes.is_empty() {
        return Some(Vec::new());
    }
    Some(parts(UPDATE, &changes))
}

fn parts(verb: &str, options: &[String]) -> Vec<String> {
    let mut parts = vec![verb.to_owned()];
    for option in options {
        let last = parts.last_mut();
        match last {
            Some(part) if part.len() + 1 + option.len() < MESSAGE_BUDGET => {
                part.push(',');
                part.push_str(option);
            }
            Some(_) | None => parts.push(format!("{verb},{option}")),
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
mod tests;
