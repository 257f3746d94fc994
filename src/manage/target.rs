//! Whom a `kill` command means: a name, or an address in one of the forms that monitors send [9.14].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Whom `kill` means.
pub(super) enum Target {
    /// A common name.
    Name,
    /// One transport address.
    Socket(SocketAddr),
    /// Everybody at this address: the form in which the status shows IPv6.
    Address(IpAddr),
    /// Neither; why.
    Bad(String),
}

impl Target {
    /// `IP:port` of 2.6, `udp:IP:port` of 2.7, `[IPv6]:port` with or without `udp:`, bare IPv6.
    pub(super) fn parse(victim: &str) -> Self {
        if victim.is_empty() {
            return Self::Bad("kill parse".to_owned());
        }
        let address = ["udp:", "udp4:", "udp6:"].iter().find_map(|name| victim.strip_prefix(name));
        let address = address.unwrap_or(victim);
        if let Ok(socket) = address.parse::<SocketAddr>() {
            return Self::Socket(socket);
        }
        if let Ok(IpAddr::V6(v6)) = address.parse::<IpAddr>() {
            return Self::Address(IpAddr::V6(v6));
        }
        match address.split_once(':') {
            Some((ip, port)) if !ip.is_empty() && !port.is_empty() => {
                Self::Bad(match ip.parse::<Ipv4Addr>() {
                    Ok(_) => format!("port number is out of range: {port}"),
                    Err(_) => format!("error parsing IP address: {ip}"),
                })
            }
            Some(_) | None => Self::Name,
        }
    }
}
