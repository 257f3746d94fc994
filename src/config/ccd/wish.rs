//! `sixgate client set`: what is wished for a client, as the lines of its file.
//!
//! ```text
//! ipv4=10.8.0.20 ip6-host=::20 networks=192.168.50.0/24,fd00:50::/64
//!
//! ifconfig-push 10.8.0.20 255.255.255.0     what `topology` makes of the address
//! ifconfig-ipv6-push ::20                   the prefix is the server's, whatever it is
//! iroute 192.168.50.0 255.255.255.0         the network is behind this client …
//! route 192.168.50.0 255.255.255.0          … and this server and all other clients know so
//! ```
//!
//! Lines of a file that are about something else stay as they are. Whether somebody else has the
//! addresses or networks is for those to find out who know the other files and the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

#[cfg(feature = "totp")]
use crate::config::totp::TotpSecret;
use crate::config::{ServerRole, Topology};

/// What the file begins with when it is new.
const HEADER: &str = "# Made by `sixgate client set`, which changes its own kinds of lines only.\n";

/// What is to change; `None` leaves it as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    v4: Option<Option<Ipv4Addr>>,
    host: Option<Option<Ipv6Addr>>,
    networks: Option<Vec<IpNet>>,
    #[cfg(feature = "totp")]
    totp: Option<Option<TotpSecret>>,
}

impl Wish {
    /// A secret for one-time codes, or none any more.
    #[cfg(feature = "totp")]
    pub fn totp(secret: Option<TotpSecret>) -> Self {
        Self { totp: Some(secret), ..Self::default() }
    }

    /// Reads `ipv4=`, `ip6-host=` and `networks=`; an empty value takes away what there is.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let mut wish = Self::default();
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let given = (!value.is_empty()).then_some(value);
            let twice = match name {
                _ if !word.contains('=') => return Err(usage(word)),
                "ipv4" => wish.v4.replace(given.map(v4).transpose()?).is_some(),
                "ip6-host" => wish.host.replace(given.map(host).transpose()?).is_some(),
                "networks" => {
                    let nets = value.split(',').filter(|text| !text.is_empty()).map(network);
                    wish.networks.replace(nets.collect::<Result<_, _>>()?).is_some()
                }
                _ => return Err(usage(word)),
            };
            if twice {
                return Err(format!("{name} is given twice"));
            }
        }
        if wish == Self::default() {
            return Err(usage(""));
        }
        Ok(wish)
    }

    /// The file that has `old` in it so far; empty when nothing is different for this client.
    pub fn text(&self, old: &str, role: &ServerRole) -> Result<String, String> {
        let mut gone: Vec<&str> = Vec::new();
        let mut new = Vec::new();
        if let Some(v4) = self.v4 {
            gone.push("ifconfig-push");
            new.extend(v4.map(|v4| v4_line(v4, role)).transpose()?);
        }
        if let Some(host) = self.host {
            gone.push("ifconfig-ipv6-push");
            new.extend(host.map(|host| v6_line(host, role)).transpose()?);
        }
        if let Some(networks) = &self.networks {
            gone.extend(["iroute", "iroute-ipv6", "route", "route-ipv6"]);
            for net in networks {
                check_network(*net, role)?;
                let (suffix, arguments) = match net {
                    IpNet::V4(net) => ("", format!("{} {}", net.network(), net.netmask())),
                    IpNet::V6(net) => ("-ipv6", net.to_string()),
                };
                new.push(format!("iroute{suffix} {arguments}"));
                new.push(format!("route{suffix} {arguments}"));
            }
        }
        #[cfg(feature = "totp")]
        if let Some(secret) = &self.totp {
            gone.push("totp");
            new.extend(secret.as_ref().map(|secret| format!("totp {}", *secret.text())));
        }
        let stays = |line: &&str| {
            let word = line.split_ascii_whitespace().next().unwrap_or_default();
            !gone.contains(&word) && format!("{line}\n") != HEADER
        };
        let kept: Vec<&str> = old.lines().filter(stays).collect();
        if new.is_empty() && kept.iter().all(|line| line.trim().is_empty()) {
            return Ok(String::new());
        }
        let lines = kept.into_iter().chain(new.iter().map(String::as_str));
        Ok(lines.fold(HEADER.to_owned(), |text, line| text + line + "\n"))
    }
}

fn usage(word: &str) -> String {
    let what = if word.is_empty() { "nothing to set" } else { word };
    format!(
        "{what}: give one or more of ipv4=ADDRESS, ip6-host=::20, networks=NETWORK/BITS,…; an empty value takes away"
    )
}

fn v4(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("ipv4={text}: not an IPv4 address"))
}

/// `::20`, or just `20`.
fn host(text: &str) -> Result<Ipv6Addr, String> {
    let whole = if text.contains(':') { text.to_owned() } else { format!("::{text}") };
    let address: Ipv6Addr = whole
        .parse()
        .map_err(|_| format!("ip6-host={text}: not the end of an IPv6 address, such as ::20"))?;
    if address.to_bits() >> 64 != 0 {
        return Err(format!(
            "ip6-host={text}: the first half of an address is the server's prefix; give the end alone, such as ::20"
        ));
    }
    Ok(address)
}

fn network(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text
        .parse()
        .map_err(|_| format!("networks={text}: not a network, such as 192.168.50.0/24"))?;
    match net.trunc() {
        whole if whole == net => Ok(net),
        whole => Err(format!(
            "networks={text}: {} is inside its network; did you mean {whole}?",
            net.addr()
        )),
    }
}

fn v4_line(address: Ipv4Addr, role: &ServerRole) -> Result<String, String> {
    let Some(own) = role.v4 else {
        return Err(format!("ipv4={address}: the server has no IPv4 in the tunnel"));
    };
    let refuse = |why: &str| Err(format!("ipv4={address}: {why}"));
    let whole = own.trunc();
    let pool = role.v4_pool.is_some_and(|pool| pool.index(address).is_some());
    if address == own.addr() || role.v4_peer == Some(address) {
        return refuse("this is the server's own address");
    }
    if !pool
        && (!whole.contains(&address) || address == whole.network() || address == whole.broadcast())
    {
        return refuse(&format!("not an address for a client in {whole}"));
    }
    let second = match role.topology {
        Topology::Subnet => role.v4_pool.and_then(|pool| pool.netmask).unwrap_or(own.netmask()),
        Topology::P2p => own.addr(),
        // The client's is the third of a block of four, the other end the second.
        Topology::Net30 if address.to_bits() & 3 != 2 => {
            let usual = address.to_bits() & !3 | 2;
            return refuse(&format!(
                "with `topology net30` it is the third of a block of four, such as {}",
                Ipv4Addr::from(usual)
            ));
        }
        Topology::Net30 => (address.to_bits() - 1).into(),
    };
    Ok(format!("ifconfig-push {address} {second}"))
}

fn v6_line(host: Ipv6Addr, role: &ServerRole) -> Result<String, String> {
    let Some(own) = role.v6 else {
        return Err(format!("ip6-host={host}: the server has no IPv6 in the tunnel"));
    };
    let bits = host.to_bits();
    if bits == 0 || bits & own.netmask().to_bits() != 0 {
        return Err(format!("ip6-host={host}: no address for a client in {}", own.trunc()));
    }
    if own.network().to_bits() | bits == own.addr().to_bits() {
        return Err(format!("ip6-host={host}: this is the server's own address"));
    }
    Ok(format!("ifconfig-ipv6-push {host}/{}", own.prefix_len().clamp(64, 124)))
}

fn check_network(net: IpNet, role: &ServerRole) -> Result<(), String> {
    let own = [role.v4.map(IpNet::V4), role.v6.map(IpNet::V6)];
    for own in own.into_iter().flatten().map(|own| own.trunc()) {
        if own.contains(&net) || net.contains(&own) {
            return Err(format!("networks={net}: overlaps with the tunnel's own {own}"));
        }
    }
    let never = match net.addr() {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_loopback() || v6.is_unicast_link_local(),
    };
    if never || net.prefix_len() == 0 {
        return Err(format!("networks={net}: not a network that can be behind a client"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{server, server_role};

    fn wish(words: &str) -> Result<Wish, String> {
        Wish::parse(&words.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    fn text(networks: &str, old: &str, words: &str) -> Result<String, String> {
        let loaded = server(networks);
        wish(words)?.text(old, server_role(&loaded))
    }

    const NETWORKS: &str = "server-ipv6 auto fd00:1::/64";

    #[test]
    fn all_lines_in_one_go() {
        let all = "ipv4=10.8.0.20 ip6-host=20 networks=192.168.50.0/24,fd00:50::/64";
        let made = text(NETWORKS, "", all).unwrap();
        let lines: Vec<&str> = made.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "ifconfig-push 10.8.0.20 255.255.255.0",
                "ifconfig-ipv6-push ::20/64",
                "iroute 192.168.50.0 255.255.255.0",
                "route 192.168.50.0 255.255.255.0",
                "iroute-ipv6 fd00:50::/64",
                "route-ipv6 fd00:50::/64",
            ]
        );
        assert_eq!(text(NETWORKS, &made, all).unwrap(), made, "again changes nothing");
        let fewer = text(NETWORKS, &made, "networks= ipv4=10.8.0.21").unwrap();
        let lines: Vec<&str> = fewer.lines().skip(1).collect();
        assert_eq!(lines, ["ifconfig-ipv6-push ::20/64", "ifconfig-push 10.8.0.21 255.255.255.0"]);
        assert_eq!(text(NETWORKS, &fewer, "ipv4= ip6-host=").unwrap(), "");
    }

    #[test]
    fn what_the_owner_wrote_stays() {
        let old =
            "# my own\nifconfig-push 10.8.0.9 255.255.255.0\npush \"route 10.1.0.0 255.255.0.0\"\n";
        let new = text(NETWORKS, old, "ipv4=").unwrap();
        assert_eq!(new, format!("{HEADER}# my own\npush \"route 10.1.0.0 255.255.0.0\"\n"));
    }

    #[test]
    fn topologies_decide_on_the_second_address() {
        let line = |networks: &str, address: &str| {
            let made = text(networks, "", &format!("ipv4={address}"))?;
            Ok::<_, String>(made.lines().nth(1).unwrap_or_default().to_owned())
        };
        let net30 = line("topology net30", "10.8.0.22");
        assert_eq!(net30.as_deref(), Ok("ifconfig-push 10.8.0.22 10.8.0.21"));
        assert!(line("topology net30", "10.8.0.23").unwrap_err().contains("such as 10.8.0.22"));
        let p2p = line("topology p2p", "10.8.0.22");
        assert_eq!(p2p.as_deref(), Ok("ifconfig-push 10.8.0.22 10.8.0.1"));
    }

    #[test]
    fn mistakes_say_what_to_change() {
        for (words, expected) in [
            ("", "nothing to set"),
            ("ipv4", "give one or more of"),
            ("colour=red", "colour=red: give one or more"),
            ("ipv4=10.8.0.2 ipv4=10.8.0.3", "given twice"),
            ("ipv4=fd00::1", "not an IPv4 address"),
            ("ipv4=10.8.0.1", "the server's own"),
            ("ipv4=10.8.0.255", "not an address for a client in 10.8.0.0/24"),
            ("ipv4=10.9.0.2", "not an address for a client in 10.8.0.0/24"),
            ("ip6-host=fd00::20", "give the end alone"),
            ("ip6-host=xyz", "not the end of an IPv6 address"),
            ("ip6-host=::1", "the server's own"),
            ("ip6-host=::", "no address for a client"),
            ("networks=192.168.50.1/24", "did you mean 192.168.50.0/24?"),
            ("networks=192.168.50.0", "not a network"),
            ("networks=10.8.0.0/16", "overlaps with the tunnel's own 10.8.0.0/24"),
            ("networks=fd00:1::/80", "overlaps with the tunnel's own fd00:1::/64"),
            ("networks=0.0.0.0/0", "overlaps"),
            ("networks=ff00::/8", "not a network that can be behind"),
        ] {
            let error = text(NETWORKS, "", words).unwrap_err();
            assert!(error.contains(expected), "{words}: {error}");
        }
        assert!(text("", "", "ip6-host=::20").unwrap_err().contains("no IPv6 in the tunnel"));
        let narrow = text("server-ipv6 fd00:1::/112", "", "ip6-host=::2:0");
        assert!(narrow.unwrap_err().contains("no address for a client"));
    }
}
