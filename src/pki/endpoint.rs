//! Where clients find the server: `HOST[:PORT]`, with brackets around an IPv6 address that a port follows.
//!
//! Leaves looking a name up to the clients; a host name stays a name, as home addresses change.

use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// OpenVPN's registered port.
pub const DEFAULT_PORT: u16 = 1194;

/// A server's public name or address, and the port where it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: Option<u16>,
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadEndpoint {
    /// No host before the port, or nothing at all.
    NoHost,
    /// The port is not a number from 1 to 65535.
    Port,
    /// A bracket without its partner, or something between the bracket and the port.
    Bracket,
    /// What is in brackets, or has several colons, is not an IPv6 address (a zone is not allowed:
    /// it means nothing on another machine).
    V6,
    /// Digits and dots that are not an IPv4 address.
    V4,
    /// Neither an address nor a host name.
    Name,
}

impl fmt::Display for BadEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHost => "the host is missing",
            Self::Port => "the port must be a number from 1 to 65535",
            Self::Bracket => "brackets enclose an IPv6 address: [2001:db8::1]:1194",
            Self::V6 => "not an IPv6 address",
            Self::V4 => "not an IPv4 address",
            Self::Name => "not a host name: letters, digits, '-', '_' and dots between them",
        })
    }
}

impl core::error::Error for BadEndpoint {}

impl Endpoint {
    /// Reads `HOST`, `HOST:PORT`, `V6`, `[V6]` or `[V6]:PORT`.
    pub fn parse(text: &str) -> Result<Self, BadEndpoint> {
        if let Some(rest) = text.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or(BadEndpoint::Bracket)?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(parse_port(port)?),
                None if after.is_empty() => None,
                None => return Err(BadEndpoint::Bracket),
            };
            return Ok(Self { host: parse_v6(host)?, port });
        }
        match text.split_once(':') {
            // More than one colon: an address without a port, as there would be brackets otherwise.
            Some((_, rest)) if rest.contains(':') => Ok(Self { host: parse_v6(text)?, port: None }),
            Some((host, port)) => {
                Ok(Self { host: parse_host(host)?, port: Some(parse_port(port)?) })
            }
            None => Ok(Self { host: parse_host(text)?, port: None }),
        }
    }

    /// Name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, or the server's own when none was given.
    pub fn port_or(&self, servers: u16) -> u16 {
        self.port.unwrap_or(servers)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port) {
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (_, None) => f.write_str(&self.host),
        }
    }
}

fn parse_port(text: &str) -> Result<u16, BadEndpoint> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0).ok_or(BadEndpoint::Port)
}

fn parse_v6(text: &str) -> Result<String, BadEndpoint> {
    text.parse::<Ipv6Addr>()
        .map(|address| IpAddr::V6(address).to_string())
        .map_err(|_| BadEndpoint::V6)
}

fn parse_host(text: &str) -> Result<String, BadEndpoint> {
    if text.is_empty() {
        return Err(BadEndpoint::NoHost);
    }
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return text.parse::<Ipv4Addr>().map(|a| a.to_string()).map_err(|_| BadEndpoint::V4);
    }
    // Underscores are no host names by the book and common in dynamic DNS all the same.
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() <= 253 && name.split('.').all(label) {
        Ok(name.to_owned())
    } else {
        Err(BadEndpoint::Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_goes_there_and_back() {
        for (text, host, port, shown) in [
            ("vpn.example.org", "vpn.example.org", 7, "vpn.example.org"),
            ("vpn.example.org.:443", "vpn.example.org", 443, "vpn.example.org:443"),
            ("192.0.2.1:1195", "192.0.2.1", 1195, "192.0.2.1:1195"),
            ("2001:DB8::1", "2001:db8::1", 7, "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1", 7, "2001:db8::1"),
            ("[2001:db8::1]:65535", "2001:db8::1", 65535, "[2001:db8::1]:65535"),
            ("router", "router", 7, "router"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!((endpoint.host(), endpoint.port_or(7)), (host, port));
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(Endpoint::parse(shown).unwrap(), endpoint);
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (text, why) in [
            ("", BadEndpoint::NoHost),
            (":1194", BadEndpoint::NoHost),
            ("a:0", BadEndpoint::Port),
            ("a:65536", BadEndpoint::Port),
            ("a:", BadEndpoint::Port),
            ("a:+1", BadEndpoint::Port),
            ("[2001:db8::1", BadEndpoint::Bracket),
            ("[2001:db8::1]1194", BadEndpoint::Bracket),
            ("[a]:1", BadEndpoint::V6),
            ("fe80::1%eth0", BadEndpoint::V6),
            ("1.2.3", BadEndpoint::V4),
            ("1.2.3.4.5", BadEndpoint::V4),
            ("a b", BadEndpoint::Name),
            ("a\nremote b", BadEndpoint::Name),
            ("a..b", BadEndpoint::Name),
            ("-a", BadEndpoint::Name),
            ("http://a", BadEndpoint::Port),
        ] {
            assert_eq!(Endpoint::parse(text), Err(why), "{text:?}");
        }
        assert_eq!(Endpoint::parse(&"a.".repeat(127)).map(|_| ()), Ok(()));
        assert_eq!(Endpoint::parse(&"a.".repeat(128)), Err(BadEndpoint::Name));
    }
}
