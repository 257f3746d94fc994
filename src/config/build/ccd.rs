//! The lines of a per-client file [9.5].

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Build, hooks, networks, push, timers};
use crate::config::ccd::{ClientFiles, ClientSettings, FixedV4, FixedV6, PushChange};
use crate::config::lex::Line;
#[cfg(feature = "totp")]
use crate::config::totp::TotpSecret;
use crate::config::{ServerRole, Topology, Via};

/// Folder of per-client files in a state folder.
const STATE_FILES: &str = "ccd";
/// `ifconfig-ipv6-push` without a length.
const USUAL_PREFIX: u8 = 64;

/// `client-config-dir` and `ccd-exclusive`.
pub(super) fn files(b: &mut Build<'_>) -> Option<ClientFiles> {
    let exclusive = b.has("ccd-exclusive");
    let Some(line) = b.line("client-config-dir") else {
        if let Some(state) = b.line("sixgate-state").and_then(|line| line.arg(0)) {
            let dir = b.source.path(state).join(STATE_FILES);
            let base = b.source.path("");
            return Some(ClientFiles { dir, base, exclusive, optional: !exclusive });
        }
        if let Some(line) = b.line("ccd-exclusive").filter(|_| exclusive) {
            b.error(line, "needs `client-config-dir`");
        }
        return None;
    };
    let dir = b.source.path(line.arg(0)?);
    Some(ClientFiles { dir, base: b.source.path(""), exclusive, optional: false })
}

/// All of [`ClientSettings`].
pub(super) fn settings(b: &mut Build<'_>, role: &ServerRole) -> ClientSettings {
    push::check(b, role);
    #[cfg(not(feature = "totp"))]
    if let Some(line) = b.line("totp") {
        b.error(line, "this sixgate was built without one-time codes");
    }
    let (ping, ping_restart) = timers::ping(b);
    let published = published(b);
    ClientSettings {
        disabled: b.has("disable"),
        v4: b.line("ifconfig-push").and_then(|line| fixed_v4(b, line, role)),
        v6: b.line("ifconfig-ipv6-push").and_then(|line| fixed_v6(b, line, role)),
        behind: behind(b, role, &published),
        published,
        delegated: None,
        push: pushes(b, role),
        ping,
        ping_restart,
        inactive: timers::inactive(b),
        session_timeout: timers::session_timeout(b),
        variables: hooks::variables(b),
        #[cfg(feature = "totp")]
        totp: totp(b),
    }
}

/// Not understood, it must not let anybody in without a code.
#[cfg(feature = "totp")]
fn totp(b: &mut Build<'_>) -> Option<TotpSecret> {
    let line = b.line("totp")?;
    let secret = line.arg(0).and_then(TotpSecret::parse);
    if secret.is_none() {
        b.error(line, "needs a secret in base32, as `sixgate client totp NAME` makes it");
    }
    secret
}

fn fixed_v4(b: &mut Build<'_>, line: &Line, role: &ServerRole) -> Option<FixedV4> {
    let address = |index| line.arg(index)?.parse::<Ipv4Addr>().ok();
    let (Some(own), Some(second)) = (address(0), address(1)) else {
        b.error(line, "needs two addresses: the client's, and the network mask or the other end");
        return None;
    };
    let alias = address(2);
    if line.arg(2).is_some() && alias.is_none() {
        b.error(line, "the third argument must be the address that the client is told");
    }
    let Some(server) = role.v4 else {
        b.warn(line, "has no effect: the server has no IPv4 in the tunnel");
        return None;
    };
    let is_mask = ipnet::ipv4_mask_to_prefix(second).is_ok();
    match role.topology {
        Topology::Subnet if !is_mask => {
            b.error(
                line,
                format!("{second} is not a network mask, which `topology subnet` needs here"),
            );
        }
        Topology::Net30 | Topology::P2p if is_mask => {
            let topology = role.topology.as_str();
            b.error(
                line,
                format!(
                    "{second} is a network mask; `topology {topology}` needs the other end here"
                ),
            );
        }
        Topology::Subnet | Topology::Net30 | Topology::P2p => {}
    }
    if let Some(allowed) = role.push_constraint.filter(|allowed| !allowed.contains(&own)) {
        b.error(line, format!("{own} is not of {allowed}, which `ifconfig-push-constraint` wants"));
    }
    let pool = role.v4_pool.is_some_and(|pool| pool.index(own).is_some());
    if own == server.addr() {
        b.error(line, format!("{own} is the server's own address"));
    } else if !pool
        && !server.contains(&own)
        && !is_routed(role, IpNet::from(std::net::IpAddr::V4(own)))
    {
        b.warn(
            line,
            format!(
                "{own} is outside of {}, and no `route` leads it into the tunnel",
                server.trunc()
            ),
        );
    }
    Some(FixedV4 { address: own, second, alias })
}

fn fixed_v6(b: &mut Build<'_>, line: &Line, role: &ServerRole) -> Option<FixedV6> {
    let text = line.arg(0)?;
    let usual = || Ipv6Net::new(text.parse().ok()?, USUAL_PREFIX).ok();
    let Some(net) = text.parse::<Ipv6Net>().ok().or_else(usual) else {
        b.error(
            line,
            "needs an address and its prefix length, as in `ifconfig-ipv6-push fd00:1234::50/64`, or a host part such as `::50`",
        );
        return None;
    };
    let remote = line.arg(1).map(str::parse::<Ipv6Addr>);
    if remote.as_ref().is_some_and(Result::is_err) {
        b.error(line, "the second argument must be an IPv6 address");
    }
    let Some(server) = role.v6 else {
        b.warn(line, "has no effect: the server has no IPv6 in the tunnel");
        return None;
    };
    let (own, follows) = (whole_address(b, line, net.addr(), server, role), role.follow.is_some());
    let net = Ipv6Net::new(own, net.prefix_len()).unwrap_or(net);
    if follows && remote.is_some() {
        b.error(line, "with `server-ipv6 auto` the other end is the server's own address; leave the second argument out");
    }
    if !(64..=124).contains(&net.prefix_len()) {
        b.error(line, "clients accept a prefix length from 64 to 124 only");
    } else if own == server.addr() {
        b.error(line, format!("{own} is the server's own address"));
    } else if !server.contains(&own) && !is_routed(role, IpNet::from(std::net::IpAddr::V6(own))) {
        b.warn(
            line,
            format!(
                "{own} is outside of {}, and no `route-ipv6` leads it into the tunnel",
                server.trunc()
            ),
        );
    }
    Some(FixedV6 { net, remote: remote.and_then(Result::ok) })
}

/// An address that is a host part alone, such as `::20`, lies in our prefix. Where that follows the
/// line, the host part of every address counts and nothing else, but where a route says otherwise.
fn whole_address(
    b: &mut Build<'_>,
    line: &Line,
    address: Ipv6Addr,
    server: Ipv6Net,
    role: &ServerRole,
) -> Ipv6Addr {
    let (bits, mask) = (address.to_bits(), server.netmask().to_bits());
    let elsewhere = bits & mask != 0 && !server.contains(&address);
    let routed = is_routed(role, IpNet::from(std::net::IpAddr::V6(address)));
    if elsewhere && (routed || role.follow.is_none()) {
        return address;
    }
    if elsewhere {
        b.warn(
            line,
            format!("the prefix follows the line, so only the host part of {address} counts"),
        );
    }
    Ipv6Addr::from_bits(server.network().to_bits() | bits & !mask)
}

/// The networks that lines of these two names give, with their lines.
fn networks_of<'a>(b: &mut Build<'a>, v4: &str, v6: &str) -> Vec<(&'a Line, IpNet)> {
    let mut found = Vec::new();
    for line in b.source.lines() {
        let net = match line.name.as_str() {
            name if name == v4 => network_v4(b, line).map(IpNet::V4),
            name if name == v6 => {
                let usage = format!("`{name} fd00:1234:0:7::/64`");
                networks::prefix(b, line, &usage).map(IpNet::V6)
            }
            _ => None,
        };
        found.extend(net.map(|net| (line, net)));
    }
    found
}

/// `iroute`, `iroute-ipv6`.
fn behind(b: &mut Build<'_>, role: &ServerRole, published: &[IpNet]) -> Vec<IpNet> {
    let found = networks_of(b, "iroute", "iroute-ipv6");
    for (line, net) in &found {
        // `route-export` has a route for each network while its client is there.
        if !is_routed(role, *net) && !published.contains(net) && role.export.is_none() {
            let wanted = match net {
                IpNet::V4(net) => format!("route {} {}", net.network(), net.netmask()),
                IpNet::V6(net) => format!("route-ipv6 {net}"),
            };
            b.warn(line, format!("nothing routes {net} into the tunnel; add `{wanted}` to the server's configuration"));
        }
    }
    found.into_iter().map(|(_, net)| net).collect()
}

/// `route`, `route-ipv6`: of the networks behind the client, which ones everybody knows of.
fn published(b: &mut Build<'_>) -> Vec<IpNet> {
    let found = networks_of(b, "route", "route-ipv6");
    for (line, net) in &found {
        let (plain, inward) = match net {
            IpNet::V4(_) => (2, "iroute"),
            IpNet::V6(_) => (1, "iroute-ipv6"),
        };
        let is_behind = b.source.all(inward).any(|other| other.args.first() == line.args.first());
        if line.args.len() > plain {
            b.error(line, "the way is this client; in its file there is no gateway and no metric");
        } else if !is_behind {
            b.error(line, format!("leads here only together with `{inward}` of the same network"));
        }
    }
    found.into_iter().map(|(_, net)| net).collect()
}

/// Whether the kernel hands packets for all of `net` to us.
fn is_routed(role: &ServerRole, net: IpNet) -> bool {
    let own = [role.v4.map(IpNet::V4), role.v6.map(IpNet::V6)];
    let on_link = own.into_iter().flatten().any(|own| own.contains(&net));
    let routes = role.routes.iter().filter(|route| route.via == Via::Tunnel);
    let mut routes = routes.map(|route| route.destination);
    on_link || routes.any(|route| route.contains(&net))
}

fn network_v4(b: &mut Build<'_>, line: &Line) -> Option<Ipv4Net> {
    let mask = line.arg(1).unwrap_or("255.255.255.255");
    let name = line.name.as_str();
    let net = networks::masked(b, line, mask, &format!("`{name} 192.168.1.0 255.255.255.0`"))?;
    if net.trunc() != net {
        let (address, network, mask) = (net.addr(), net.network(), net.netmask());
        b.error(
            line,
            format!("{address} is inside its network; did you mean `{name} {network} {mask}`?"),
        );
    }
    Some(net.trunc())
}

/// `push`, `push-remove`, `push-reset`, whose order matters.
fn pushes(b: &mut Build<'_>, role: &ServerRole) -> Vec<PushChange> {
    let mut changes = Vec::new();
    for line in b.source.lines() {
        let text = line.arg(0).unwrap_or_default();
        match line.name.as_str() {
            "push" => changes.push(PushChange::Add(text.to_owned())),
            "push-remove" => changes.push(PushChange::Remove(text.to_owned())),
            "push-reset" => changes.push(PushChange::Reset),
            _ => {}
        }
    }
    let reset = changes.iter().rposition(|change| *change == PushChange::Reset);
    let after = changes.iter().skip(reset.map_or(0, |at| at + 1));
    let topology = after.clone().any(|change| match change {
        PushChange::Add(option) => option.starts_with("topology"),
        PushChange::Remove(_) | PushChange::Reset => false,
    });
    // Clients assume net30 until they are told otherwise.
    if let (Some(line), false, Topology::Subnet) = (b.line("push-reset"), topology, role.topology)
        && role.v4.is_some()
    {
        b.warn(line, "also takes `topology subnet` and `route-gateway` from the client, which has no working IPv4 without them; push them again here");
    }
    changes
}
