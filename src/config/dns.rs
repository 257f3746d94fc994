//! DNS for the tunnel: `dhcp-option` and `dns` lines, from a file or pushed, become one [`Dns`] [7.3].
//!
//! The old way names servers and domains one by one; the new one (2.6) groups them by server with a
//! priority. Where a single `dns server` is given it counts alone, as in OpenVPN. Nothing is applied
//! here: there are too many resolvers, so that is for scripts.

use std::net::{IpAddr, SocketAddr};

use super::option::OptionError;

/// Addresses one `dns server` may have.
const MAX_ADDRESSES: usize = 8;

/// Everything about DNS that a tunnel brings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// In order of priority, the lowest number first; without addresses until they have been given.
    pub servers: Vec<DnsServer>,
    /// Domains to be tried for short names.
    pub search: Vec<String>,
    /// `dhcp-option` lines as they came, for scripts that read `foreign_option_N`.
    pub foreign: Vec<String>,
    /// Servers of `dhcp-option`.
    plain: Vec<IpAddr>,
    /// Domains of `dhcp-option`.
    domains: Vec<String>,
}

/// One `dns server`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsServer {
    /// -128 to 127; the lowest that can be reached is the one to use.
    pub priority: i8,
    /// Where it is; `None` is the transport's usual port.
    pub addresses: Vec<(IpAddr, Option<u16>)>,
    /// Only names in these domains are asked of it; empty means all.
    pub domains: Vec<String>,
    /// `yes`, `optional` or `no`; empty when not given.
    pub dnssec: String,
    /// `DoH`, `DoT` or `plain`; empty when not given.
    pub transport: String,
    /// Server name for the transport's TLS; empty when not given.
    pub sni: String,
}

impl Dns {
    /// Takes the arguments of one `dns`.
    pub(super) fn add(&mut self, words: &[&str]) -> Result<(), OptionError> {
        match words {
            ["search-domains", domains @ ..] if !domains.is_empty() => {
                self.search.extend(domains.iter().map(|domain| (*domain).to_owned()));
                Ok(())
            }
            ["server", priority, rest @ ..] => {
                let priority = priority.parse().map_err(|_| OptionError::Number)?;
                let mut server = match self.servers.iter().find(|s| s.priority == priority) {
                    Some(known) => known.clone(),
                    None => DnsServer { priority, ..DnsServer::default() },
                };
                server.add(rest)?;
                self.servers.retain(|other| other.priority != priority);
                self.servers.push(server);
                self.servers.sort_by_key(|server| server.priority);
                Ok(())
            }
            _ => Err(OptionError::Form),
        }
    }

    /// Takes the arguments of one `dhcp-option`. Kinds without a use here are kept for scripts only.
    pub(super) fn add_dhcp(&mut self, words: &[&str]) -> Result<(), OptionError> {
        match words {
            ["DNS" | "DNS6", server] => {
                self.plain.push(server.parse().map_err(|_| OptionError::Address)?);
            }
            ["DOMAIN" | "DOMAIN-SEARCH" | "ADAPTER_DOMAIN_SUFFIX", domain] => {
                self.domains.push((*domain).to_owned());
            }
            [_, ..] => {}
            [] => return Err(OptionError::Form),
        }
        self.foreign.push(format!("dhcp-option {}", words.join(" ")));
        Ok(())
    }

    /// Settles which of the two ways counts. Servers without an address are left out.
    pub(crate) fn settle(mut self) -> Self {
        self.servers.retain(|server| !server.addresses.is_empty());
        // Scripts that know only the old way get the best server's in it.
        if let (Some(best), true) = (self.servers.first(), self.foreign.is_empty()) {
            let kind = |address: &IpAddr| if address.is_ipv6() { "DNS6" } else { "DNS" };
            let addresses = best.addresses.iter().map(|(address, _)| address);
            let addresses =
                addresses.map(|address| format!("dhcp-option {} {address}", kind(address)));
            let search = self.search.iter();
            let search = search.map(|domain| format!("dhcp-option DOMAIN-SEARCH {domain}"));
            self.foreign = addresses.chain(search).collect();
        }
        let (plain, domains) =
            (core::mem::take(&mut self.plain), core::mem::take(&mut self.domains));
        if self.servers.is_empty() && !plain.is_empty() {
            let addresses = plain.into_iter().map(|address| (address, None)).collect();
            self.servers.push(DnsServer { addresses, ..DnsServer::default() });
        }
        if self.search.is_empty() {
            self.search = domains;
        }
        self
    }
}

impl DnsServer {
    fn add(&mut self, words: &[&str]) -> Result<(), OptionError> {
        let owned =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match words {
            ["address", addresses @ ..] if !addresses.is_empty() => {
                for text in addresses {
                    self.addresses.push(address(text).ok_or(OptionError::Address)?);
                }
                if self.addresses.len() > MAX_ADDRESSES {
                    return Err(OptionError::TooMany);
                }
            }
            ["resolve-domains", domains @ ..] if !domains.is_empty() => {
                self.domains.extend(owned(domains));
            }
            ["dnssec", "yes" | "optional" | "no"] => self.dnssec = words.concat().split_off(6),
            ["transport", "DoH" | "DoT" | "plain"] => self.transport = words.concat().split_off(9),
            ["sni", name] => self.sni = (*name).to_owned(),
            _ => return Err(OptionError::Form),
        }
        Ok(())
    }
}

/// `192.0.2.1`, `192.0.2.1:53`, `2001:db8::1` or `[2001:db8::1]:53`.
fn address(text: &str) -> Option<(IpAddr, Option<u16>)> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(text).parse() {
        return Some((address, None));
    }
    let both: SocketAddr = text.parse().ok()?;
    Some((both.ip(), Some(both.port())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(lines: &[&str]) -> Result<Dns, OptionError> {
        let mut dns = Dns::default();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words.split_first() {
                Some((&"dhcp-option", rest)) => dns.add_dhcp(rest)?,
                Some((_, rest)) => dns.add(rest)?,
                None => {}
            }
        }
        Ok(dns.settle())
    }

    #[test]
    fn the_old_way_alone() {
        let dns = dns(&[
            "dhcp-option DNS 10.8.0.1",
            "dhcp-option DNS6 fd00::1",
            "dhcp-option DOMAIN example.org",
            "dhcp-option NTP 10.8.0.3",
        ])
        .unwrap();
        let addresses: Vec<String> =
            dns.servers[0].addresses.iter().map(|(ip, _)| ip.to_string()).collect();
        assert_eq!(addresses, ["10.8.0.1", "fd00::1"]);
        assert_eq!(dns.search, ["example.org"]);
        assert_eq!(dns.foreign.len(), 4);
        assert_eq!(dns.foreign.last().unwrap(), "dhcp-option NTP 10.8.0.3");
    }

    #[test]
    fn the_new_way_wins_and_is_sorted() {
        let dns = dns(&[
            "dhcp-option DNS 10.8.0.1",
            "dns server 5 address 192.0.2.1:5353 [2001:db8::5]:53",
            "dns server -3 address 2001:db8::1 [2001:db8::2]",
            "dns server -3 resolve-domains example.org example.com",
            "dns server -3 dnssec optional",
            "dns server -3 transport DoT",
            "dns server -3 sni dns.example.org",
            "dns server 9 dnssec no",
            "dns search-domains example.net",
        ])
        .unwrap();
        let order: Vec<i8> = dns.servers.iter().map(|server| server.priority).collect();
        assert_eq!(order, [-3, 5]);
        let first = &dns.servers[0];
        assert_eq!((first.domains.len(), first.dnssec.as_str()), (2, "optional"));
        assert_eq!((first.transport.as_str(), first.sni.as_str()), ("DoT", "dns.example.org"));
        assert_eq!(dns.servers[1].addresses[1], ("2001:db8::5".parse().unwrap(), Some(53)));
        assert_eq!(dns.search, ["example.net"]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "dns server x address 10.0.0.1",
            "dns server 1 address nowhere",
            "dns server 1 address",
            "dns server 1 dnssec perhaps",
            "dns server 1 address 1.1.1.1 1.1.1.2 1.1.1.3 1.1.1.4 1.1.1.5 1.1.1.6 1.1.1.7 1.1.1.8 1.1.1.9",
            "dns server",
            "dns search-domains",
            "dhcp-option DNS nowhere",
        ] {
            assert!(dns(&[line]).is_err(), "{line}");
        }
    }
}
