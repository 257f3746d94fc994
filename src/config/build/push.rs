//! A look at what is pushed: text for the clients, but a mistake in it shows only there.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::Build;
use crate::config::ServerRole;
use crate::config::directive::{self, PUSHED};
use crate::config::lex::{self, Line};

/// OpenVPN clients read one pushed directive into 256 bytes.
const MAX_PUSHED: usize = 255;

/// All `push` lines.
pub(super) fn check(b: &mut Build<'_>, role: &ServerRole) {
    for line in b.source.all("push") {
        let Some(text) = line.arg(0) else { continue };
        if text.contains(',') {
            b.error(line, "a pushed directive cannot contain a comma: it would end there");
        } else if text.len() > MAX_PUSHED {
            b.error(line, format!("longer than the {MAX_PUSHED} bytes that clients read"));
        } else {
            match lex::split(text) {
                Ok(words) => pushed(b, line, role, &words),
                Err(why) => b.error(line, why),
            }
        }
    }
}

fn pushed(b: &mut Build<'_>, line: &Line, role: &ServerRole, words: &[String]) {
    let mut args = words.iter().map(String::as_str);
    let Some(name) = args.next() else { return b.error(line, "is empty") };
    let args: Vec<&str> = args.collect();
    match (name, args.as_slice()) {
        ("comp-lzo" | "compress", _) => {
            b.warn(line, "is not pushed: the server tells each client that frames packets for compression how to do it");
        }
        ("topology", [name]) if *name == role.topology.as_str() => {}
        ("topology", _) => b.error(
            line,
            format!(
                "contradicts `topology {}`, which is pushed anyway; remove the line",
                role.topology.as_str()
            ),
        ),
        ("redirect-gateway", flags) => redirect(b, line, role, flags),
        ("route", args) => route_v4(b, line, role, args),
        ("route-ipv6", args) => route_v6(b, line, role, args),
        ("dhcp-option", ["DNS" | "DNS6" | "WINS" | "NTP", address])
            if address.parse::<IpAddr>().is_err() =>
        {
            b.error(line, format!("`{}` is not an address", address.escape_debug()));
        }
        (
            "ifconfig" | "ifconfig-ipv6" | "peer-id" | "cipher" | "protocol-flags"
            | "key-derivation" | "auth-token",
            _,
        ) => {
            b.error(
                line,
                format!("`{name}` is made for each client by the server itself; remove the line"),
            );
        }
        _ => {
            match directive::find(name) {
                None => {
                    let hint = directive::nearest(name)
                        .map(|near| format!("; did you mean `{near}`?"))
                        .unwrap_or_default();
                    b.warn(line, format!("no client knows `{}`{hint}", name.escape_debug()));
                }
                Some(known) if !known.places.contains(PUSHED) => {
                    b.warn(line, format!("clients do not take `{name}` from a server; write it in their own files"));
                }
                Some(known) if !(known.min..=known.max).contains(&args.len()) => {
                    b.warn(
                        line,
                        format!(
                            "`{name}` has the wrong number of arguments, so clients leave it out"
                        ),
                    );
                }
                Some(_) => {}
            }
        }
    }
}

/// Flags add up over several lines, so the families are looked at over all of them, once.
fn redirect(b: &mut Build<'_>, line: &Line, role: &ServerRole, flags: &[&str]) {
    let known =
        ["local", "autolocal", "def1", "bypass-dhcp", "bypass-dns", "block-local", "ipv6", "!ipv4"];
    if let Some(other) = flags.iter().find(|flag| !known.contains(flag)) {
        b.warn(line, format!("clients do not know the flag `{}`", other.escape_debug()));
    }
    let redirects = |push: &&String| push.split_whitespace().next() == Some("redirect-gateway");
    let has = |wanted| {
        role.push
            .iter()
            .filter(redirects)
            .any(|push| push.split_whitespace().any(|flag| flag == wanted))
    };
    if role.push.iter().find(redirects).map(String::as_str) != line.arg(0) {
        return;
    }
    if role.v4.is_none() && !has("!ipv4") {
        b.warn(line, "the VPN has no IPv4; add the flag `!ipv4`, or clients complain about a missing gateway");
    }
}

/// Keywords that clients replace by an address.
const KEYWORDS: [&str; 4] = ["vpn_gateway", "net_gateway", "remote_host", "default"];

fn route_v4(b: &mut Build<'_>, line: &Line, role: &ServerRole, args: &[&str]) {
    let (Some(target), mask) = (args.first(), args.get(1).unwrap_or(&"255.255.255.255")) else {
        return b.error(
            line,
            "a route needs a network, as in `push \"route 192.168.1.0 255.255.255.0\"`",
        );
    };
    if KEYWORDS.contains(target) {
        return;
    }
    let mask = if *mask == "default" { "255.255.255.255" } else { mask };
    let (Ok(address), Ok(mask)) = (target.parse::<Ipv4Addr>(), mask.parse::<Ipv4Addr>()) else {
        return b.error(line, "a route needs a network and its mask, as in `push \"route 192.168.1.0 255.255.255.0\"`");
    };
    let Ok(net) = Ipv4Net::with_netmask(address, mask) else {
        return b.error(line, format!("{mask} is not a network mask"));
    };
    if net.network() != address {
        b.error(line, format!("{address} is inside its network, and clients refuse that; did you mean `route {} {mask}`?", net.network()));
    } else if role.v4.is_some_and(|own| own.trunc() == net) {
        b.warn(line, "is the tunnel's own network, which clients have anyway; remove the line");
    }
}

fn route_v6(b: &mut Build<'_>, line: &Line, role: &ServerRole, args: &[&str]) {
    let Some(Ok(net)) = args.first().map(|target| target.parse::<Ipv6Net>()) else {
        return b.error(line, "a route needs a prefix, as in `push \"route-ipv6 fd00:1234::/64\"`");
    };
    if net.trunc() != net {
        b.warn(
            line,
            format!(
                "{net} has bits set behind its prefix; did you mean `route-ipv6 {}`?",
                net.trunc()
            ),
        );
    } else if role.v6.is_some_and(|own| own.trunc() == net) {
        b.warn(line, "is the tunnel's own prefix, which clients have anyway; remove the line");
    }
    if role.v6.is_none() {
        b.warn(
            line,
            "clients get no IPv6 address without `server-ipv6`, so they cannot use the route",
        );
    }
}
