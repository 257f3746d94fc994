//! Device and socket: `dev`, `tun-mtu`, `mssfix`, `local`, `port`, `proto`.

use std::net::IpAddr;

use super::Build;
use crate::config::lex::Line;
use crate::config::{Device, Mssfix, Transport};
use crate::limits::MAX_MTU;

/// The port that is registered for OpenVPN.
const DEFAULT_PORT: u16 = 1194;
/// IPv6 does not work on a link that carries less (RFC 8200 section 5).
const MIN_MTU_V6: u32 = 1280;
/// Every IPv4 host must take this much (RFC 791); less is a mistake.
const MIN_MTU_V4: u32 = 576;
/// Longest name of a network interface, without its NUL (IFNAMSIZ).
const MAX_DEVICE_NAME: usize = 15;

/// `dev`, `dev-type`, `tun-mtu`, `sixgate-offload`.
pub(super) fn device(b: &mut Build<'_>, v6: bool) -> Device {
    let mtu = match b.line("tun-mtu") {
        Some(line) => tun_mtu(b, line, v6),
        None => 1500,
    };
    let offload = match b.line("sixgate-offload").and_then(|line| Some((line, line.arg(0)?))) {
        None | Some((_, "auto")) => true,
        Some((_, "off")) => false,
        Some((line, _)) => {
            b.error(line, "must be `auto` or `off`");
            true
        }
    };
    let kind = b.line("dev-type");
    match kind.and_then(|line| Some((line, line.arg(0)?))) {
        Some((line, "tap")) => {
            b.error(line, "TAP devices and bridging are not supported; use `dev tun`")
        }
        Some((line, other)) if other != "tun" => b.error(line, "must be `tun`"),
        _ => {}
    }
    let Some((line, name)) = b.line("dev").and_then(|line| Some((line, line.arg(0)?))) else {
        return Device { name: None, mtu, offload };
    };
    let usable = name.len() <= MAX_DEVICE_NAME
        && !matches!(name, "" | "." | "..")
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || !c.is_ascii());
    if !usable {
        b.error(line, "an interface name has 1 to 15 characters, no space, `/` or `:`");
    } else if kind.is_none() && name.starts_with("tap") {
        b.error(line, "TAP devices and bridging are not supported; use `dev tun`");
    } else if kind.is_none() && name == "null" {
        b.error(line, "there is no VPN without a device; use `dev tun`");
    } else if kind.is_none() && !name.starts_with("tun") {
        b.error(line, "a name that does not start with `tun` also needs `dev-type tun`");
    }
    Device { name: (name != "tun").then(|| name.to_owned()), mtu, offload }
}

fn tun_mtu(b: &mut Build<'_>, line: &Line, v6: bool) -> u16 {
    // The second argument is what the options string claims; nobody compares it.
    if line.args.len() > 1 {
        b.warn(line, "the second argument has no effect: options strings are never enforced");
    }
    let low = if v6 { MIN_MTU_V6 } else { MIN_MTU_V4 };
    let given = line.arg(0).and_then(|text| text.parse::<u32>().ok());
    match given {
        Some(mtu @ MIN_MTU_V4..MIN_MTU_V6) if v6 => {
            b.error(line, format!("{mtu} is too small: with less than 1280 the system switches IPv6 off on the device"));
            1500
        }
        Some(mtu @ MIN_MTU_V4..MIN_MTU_V6) => {
            b.warn(
                line,
                format!("with {mtu} there can be no IPv6 in the tunnel, which needs 1280"),
            );
            mtu as u16
        }
        _ => b.number(line, 0, low..=MAX_MTU as u32).unwrap_or(1500) as u16,
    }
}

/// `mssfix` [6.8].
pub(super) fn mssfix(b: &mut Build<'_>, mtu: u16) -> Option<Mssfix> {
    let default = Some(if mtu == 1500 { Mssfix::Outer(1492) } else { Mssfix::Fixed(mtu) });
    let Some(line) = b.line("mssfix").filter(|line| !line.args.is_empty()) else { return default };
    let size = b.number(line, 0, 0..=65535)? as u16;
    let form = match line.arg(1) {
        None => Mssfix::Payload(size),
        Some("mtu") => Mssfix::Outer(size),
        Some("fixed") => Mssfix::Fixed(size),
        Some(other) => {
            b.error(
                line,
                format!("`{}` is not known; use `mtu`, `fixed` or nothing", other.escape_debug()),
            );
            return default;
        }
    };
    (size > 0).then_some(form)
}

/// `local`, `port`, `lport`, `proto`, `bind`, `nobind`.
pub(super) fn transport(b: &mut Build<'_>) -> Transport {
    let mut family =
        b.line("proto").and_then(|line| protocol(b, line, line.arg(0).unwrap_or_default()));
    if let Some(line) = b.line("bind").filter(|line| !line.args.is_empty()) {
        if line.arg(0) != Some("ipv6only") {
            b.error(line, "the only argument is `ipv6only`");
        }
    } else if b.server && family == Some(true) {
        // OpenVPN opens an IPv6 socket for udp6, and that takes IPv4 too unless told not to.
        family = None;
    }
    if b.has("bind") && b.line("bind").is_some_and(|line| line.arg(0) == Some("ipv6only")) {
        family = family.or(Some(true));
    }
    let common = b.value("port", 0..=65535);
    let port = b.value("lport", 0..=65535).or(common).map(|port| port as u16);
    let local = local(b, &mut family);
    // A client binds only if it says so, as in OpenVPN since 2.6 [10.1].
    let binds = b.server || b.has("lport") || b.has("bind") || local.is_some();
    if let Some(line) = b.line("nobind") {
        if b.server {
            b.error(line, "a server needs a port that clients know; remove the line");
        } else if b.has("lport") || b.has("bind") {
            b.error(line, "contradicts `lport` and `bind`; keep one of them");
        }
    }
    let port = if binds && !b.has("nobind") { port.unwrap_or(DEFAULT_PORT) } else { 0 };
    if b.server && port == 0 {
        let line = b.line("lport").or(b.line("port"));
        if let Some(line) = line {
            b.error(line, "a server needs a port that clients know");
        }
    }
    Transport { local: local.filter(|address| !address.is_unspecified()), port, family }
}

/// A protocol name as a family; anything but UDP is reported.
pub(super) fn protocol(b: &mut Build<'_>, line: &Line, name: &str) -> Option<bool> {
    match name {
        "udp" => {}
        "udp4" => return Some(false),
        "udp6" => return Some(true),
        _ if is_tcp(name) => {
            b.error(line, format!("`{name}`: sixgate speaks UDP only; use `udp` on both ends"));
        }
        _ => b.error(
            line,
            format!("`{}` is not known; use `udp`, `udp4` or `udp6`", name.escape_debug()),
        ),
    }
    None
}

/// Whether this is one of OpenVPN's names for TCP.
pub(super) fn is_tcp(name: &str) -> bool {
    matches!(
        name,
        "tcp"
            | "tcp4"
            | "tcp6"
            | "tcp-client"
            | "tcp4-client"
            | "tcp6-client"
            | "tcp-server"
            | "tcp4-server"
            | "tcp6-server"
    )
}

fn local(b: &mut Build<'_>, family: &mut Option<bool>) -> Option<IpAddr> {
    let line = b.line("local")?;
    if b.source.all("local").count() > 1 {
        b.error(line, "one socket only; leave `local` out to listen on all addresses");
    }
    if line.args.len() > 1 {
        b.error(
            line,
            "takes only the address here; set the port with `port`, the protocol with `proto`",
        );
    }
    let text = line.arg(0)?;
    let address = if text == "*" { None } else { Some(text.parse::<IpAddr>()) };
    match address {
        None => None,
        Some(Err(_)) => {
            b.error(
                line,
                format!(
                    "`{}` is not an address; names are not looked up here",
                    text.escape_debug()
                ),
            );
            None
        }
        Some(Ok(address)) => {
            let given = b.line("proto").and_then(|line| line.arg(0));
            match (given, address.is_ipv6()) {
                (Some("udp4"), true) => b.error(line, "is an IPv6 address, but `proto` says udp4"),
                (Some("udp6"), false) => b.error(line, "is an IPv4 address, but `proto` says udp6"),
                _ => {}
            }
            // `::` takes IPv4 too, like any IPv6 socket; every other address is of one family.
            if !(address.is_ipv6() && address.is_unspecified()) {
                *family = Some(address.is_ipv6());
            }
            Some(address)
        }
    }
}
