//! What only a server has: its networks [9.1], limits, and the look at how they fit together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};

use super::Build;
use crate::config::lex::Line;
use crate::config::{ServerRole, Transport};
use crate::limits::MAX_CLIENTS;

/// All of `config::ServerRole`.
pub(super) fn role(b: &mut Build<'_>) -> ServerRole {
    topology(b);
    let v4 = b.line("server").and_then(|line| network_v4(b, line));
    let v6 = b.line("server-ipv6").and_then(|line| network_v6(b, line));
    if !b.has("server") && !b.has("server-ipv6") && !b.source.mentions("server-bridge") {
        let text = "the VPN has no addresses: `server NETWORK MASK`, `server-ipv6 PREFIX/BITS` or both are needed";
        b.problems.error_whole(text);
    }
    let rate = b.line("connect-freq-initial");
    let rate = rate
        .and_then(|line| Some((b.number(line, 0, 1..=1_000_000)?, b.number(line, 1, 1..=86_400)?)));
    let (answers, period) = rate.unwrap_or((100, 10));
    ServerRole {
        v4,
        v6,
        push: b.source.all("push").filter_map(|line| line.arg(0)).map(str::to_owned).collect(),
        client_to_client: b.has("client-to-client"),
        max_clients: b
            .value("max-clients", 1..=MAX_CLIENTS as u32)
            .map_or(MAX_CLIENTS, |n| n as usize),
        duplicate_cn: b.has("duplicate-cn"),
        exit_notify: match b.line("explicit-exit-notify") {
            Some(line) if line.args.is_empty() => 1,
            Some(line) => b.number(line, 0, 0..=2).unwrap_or(0) as u8,
            None => 0,
        },
        initial_rate: (answers, Duration::from_secs(period.into())),
        force_cookie: b
            .line("tls-crypt-v2")
            .is_some_and(|line| line.arg(1) == Some("force-cookie")),
    }
}

fn topology(b: &mut Build<'_>) {
    let Some(line) = b.line("topology") else { return };
    match line.arg(0) {
        Some("subnet") => {}
        Some("net30" | "p2p") => {
            b.error(line, "not supported yet; use `topology subnet`, which every client since OpenVPN 2.1 understands");
        }
        _ => b.error(line, "must be `subnet`"),
    }
}

fn network_v4(b: &mut Build<'_>, line: &Line) -> Option<Ipv4Net> {
    match line.arg(2) {
        None => {}
        Some("nopool") => b.error(
            line,
            "`nopool` is not supported yet; without a pool no client would get an address",
        ),
        Some(_) => b.error(line, "the third argument can only be `nopool`"),
    }
    let (Ok(address), Ok(mask)) =
        (line.arg(0)?.parse::<Ipv4Addr>(), line.arg(1)?.parse::<Ipv4Addr>())
    else {
        b.error(line, "needs a network and its mask, as in `server 10.8.0.0 255.255.255.0`");
        return None;
    };
    let Ok(net) = Ipv4Net::with_netmask(address, mask) else {
        b.error(line, format!("{mask} is not a network mask"));
        return None;
    };
    if !(16..=29).contains(&net.prefix_len()) {
        b.error(
            line,
            format!(
                "the mask must be between 255.255.0.0 (/16) and 255.255.255.248 (/29), not /{}",
                net.prefix_len()
            ),
        );
    } else if net.addr() != net.network() {
        b.error(
            line,
            format!(
                "{address} is inside the network; did you mean `server {} {mask}`?",
                net.network()
            ),
        );
    } else if address.is_loopback()
        || address.is_multicast()
        || address.is_link_local()
        || address.is_unspecified()
    {
        b.error(line, format!("{net} is not for use in a network; take one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"));
    } else if is_documentation(address.into()) {
        b.warn(line, format!("{net} is reserved for documents; take one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"));
    } else if !address.is_private() && !is_shared(address) {
        b.warn(line, format!("{net} is public address space; if it is not yours, clients cannot reach its owner any more"));
    }
    Some(net)
}

fn network_v6(b: &mut Build<'_>, line: &Line) -> Option<Ipv6Net> {
    let text = line.arg(0)?;
    let Ok(net) = text.parse::<Ipv6Net>() else {
        b.error(line, "needs a prefix and its length, as in `server-ipv6 fd00:1234:5678::/64`");
        return None;
    };
    let address = net.addr();
    if !(64..=124).contains(&net.prefix_len()) {
        b.error(
            line,
            format!(
                "the prefix length must be between 64 and 124, not {}; clients accept no other",
                net.prefix_len()
            ),
        );
    } else if address != net.network() {
        b.error(
            line,
            format!("{address} is inside the prefix; did you mean `server-ipv6 {}`?", net.trunc()),
        );
    } else if address.is_multicast()
        || address.is_unicast_link_local()
        || address.is_loopback()
        || address.is_unspecified()
    {
        b.error(line, format!("{net} is not for use in a network; take a part of your own prefix, or a random one of fd00::/8"));
    } else if is_documentation(address.into()) {
        b.warn(line, format!("{net} is reserved for documents; take a part of your own prefix, or a random one of fd00::/8"));
    }
    Some(net)
}

/// Whether an address is of a range for documents (RFC 5737, RFC 3849, RFC 9637).
pub(super) fn is_documentation(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_documentation(),
        IpAddr::V6(v6) => {
            let old = Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32);
            let new = Ipv6Net::new_assert(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20);
            old.contains(&v6) || new.contains(&v6)
        }
    }
}

/// Carrier-grade NAT space (RFC 6598), which people use for VPNs too.
fn is_shared(address: Ipv4Addr) -> bool {
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10).contains(&address)
}

/// Whether the address we listen on lies inside the tunnel's own network.
pub(super) fn check_overlap(b: &mut Build<'_>, role: &ServerRole, transport: &Transport) {
    let inside = match transport.local {
        Some(IpAddr::V4(v4)) => role.v4.is_some_and(|net| net.contains(&v4)),
        Some(IpAddr::V6(v6)) => role.v6.is_some_and(|net| net.contains(&v6)),
        None => false,
    };
    if let (true, Some(line)) = (inside, b.line("local")) {
        b.error(
            line,
            "lies inside the tunnel's own network, where no client can reach it from outside",
        );
    }
}
