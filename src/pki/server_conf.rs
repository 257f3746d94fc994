//! The server configuration of a new state folder, and the choice of its networks.
//!
//! Written once, in OpenVPN's own directives, and the owner's from then on: the networks chosen
//! here are kept for the next start by standing in this file. What the directives mean is
//! `config`'s business.

use core::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::pki::endpoint::DEFAULT_PORT;
use crate::random::Random;

/// Names of files in the state folder that the configuration mentions.
pub mod file {
    /// The CA's certificate.
    pub const CA_CERTIFICATE: &str = "ca.crt";
    /// The server's certificate and its private key: one file, so that they change together.
    pub const SERVER: &str = "server.pem";
    /// The server's tls-crypt-v2 key.
    pub const TLS_CRYPT_V2: &str = "tls-crypt-v2.key";
}

/// How often `pick_v4` guesses before it takes what it has.
const GUESSES: usize = 64;

/// The IPv4 network for the tunnel: 10.8.0.0/24, or another /24 of 10.0.0.0/8 when that one overlaps
/// with one of the `local` networks. With all of 10.0.0.0/8 in local use, 10.8.0.0/24 all the same:
/// it is the more specific route.
pub fn pick_v4(local: &[Ipv4Net], rng: &mut dyn Random) -> Ipv4Net {
    let usual = v4(8, 0);
    let is_free = |net: &Ipv4Net| {
        // A default route overlaps with everything and says nothing about what is in use.
        let overlaps = |l: &&Ipv4Net| l.prefix_len() > 0 && (l.contains(net) || net.contains(*l));
        local.iter().find(overlaps).is_none()
    };
    let guesses = (0..GUESSES).map(|_| v4(rng.below(256) as u8, rng.below(256) as u8));
    core::iter::once(usual).chain(guesses).find(is_free).unwrap_or(usual)
}

fn v4(x: u8, y: u8) -> Ipv4Net {
    // 24 is a valid prefix length, and so this never takes the other way.
    Ipv4Net::new(Ipv4Addr::new(10, x, y, 0), 24).unwrap_or_default()
}

/// A unique local /64 as RFC 4193, 3.2 makes them: fd, 40 random bits, subnet 0.
pub fn random_ula(rng: &mut dyn Random) -> Ipv6Net {
    let mut global_id = [0; 5];
    rng.fill(&mut global_id);
    let mut bytes = [0; 16];
    let [prefix, id @ .., _, _, _, _, _, _, _, _, _, _] = &mut bytes;
    *prefix = 0xfd;
    *id = global_id;
    Ipv6Net::new(Ipv6Addr::from(bytes), 64).unwrap_or_default()
}

/// The text of a new `server.conf` for the state folder `dir` (an absolute path).
pub fn text(dir: &str, v4: Ipv4Net, v6: Ipv6Net) -> String {
    let path = |file: &str| quoted(&format!("{}/{file}", dir.trim_end_matches('/')));
    let state = quoted(dir);
    let (ca, server) = (path(file::CA_CERTIFICATE), path(file::SERVER));
    let tls_crypt_v2 = path(file::TLS_CRYPT_V2);
    let (network, netmask) = (v4.network(), v4.netmask());
    format!(
        "\
# Made by `sixgate up`, once. It is yours to edit and is never overwritten; delete it to get a
# new one. The directives are OpenVPN's; `sixgate check FILE` says what each of them does.

# Where this server keeps its certificates, clients and revocations.
sixgate-state {state}

port {DEFAULT_PORT}
proto udp
dev tun
topology subnet

# Tunnel networks. The IPv6 prefix is random (RFC 4193), so that it clashes with nobody's, and it
# stays; with `auto`, clients also have addresses in the global prefix that the line gives to the
# tunnel device, as long as there is one (OpenWrt: `ip6assign 64` of an interface with this device).
server {network} {netmask}
server-ipv6 auto {v6}

ca {ca}
cert {server}
key {server}
tls-crypt-v2 {tls_crypt_v2}
remote-cert-tls client

# Without this line the cipher is AES-256-GCM where this machine has instructions for AES, unless the client
# says that it has none, as sixgate does; ChaCha20 elsewhere. The first one that a client has, too, is taken:
# this order suits other programs on clients without such instructions, such as cheap routers.
#data-ciphers CHACHA20-POLY1305:AES-256-GCM:AES-128-GCM

keepalive 10 60
explicit-exit-notify 1
verb 3

# Often wanted: all traffic of the clients through the tunnel, a network behind this server, clients
# that see each other.
#push \"redirect-gateway def1 ipv6\"
#push \"route 192.168.1.0 255.255.255.0\"
#client-to-client
"
    )
}

/// A word as OpenVPN's parser reads it back: quoted where it has to be.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
    if word.chars().all(plain) {
        return word.to_owned();
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The port that an edited `server.conf` listens on. Anything that makes no sense here is reported
/// by the real parser when the server starts.
pub fn port(text: &str) -> u16 {
    let port = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        words.next().filter(|word| matches!(*word, "port" | "lport"))?;
        words.next()?.parse().ok()
    };
    text.lines().filter_map(port).next_back().unwrap_or(DEFAULT_PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<Ipv4Net> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_ipv4_network_avoids_local_ones() {
        let mut next = 0u8;
        let mut rng = move |out: &mut [u8]| {
            next = next.wrapping_add(37);
            out.fill(next);
        };
        let usual: Ipv4Net = "10.8.0.0/24".parse().unwrap();
        assert_eq!(pick_v4(&nets(&["192.168.1.0/24", "0.0.0.0/0"]), &mut rng), usual);
        for local in [&["10.8.0.0/24"][..], &["10.8.0.0/16"], &["10.8.0.128/25", "10.0.0.0/9"]] {
            let local = nets(local);
            let net = pick_v4(&local, &mut rng);
            assert!(local.iter().all(|l| !l.contains(&net) && !net.contains(l)), "{net}");
            assert!(net.to_string().starts_with("10.") && net.prefix_len() == 24);
        }
        assert_eq!(pick_v4(&nets(&["10.0.0.0/8"]), &mut rng), usual);
    }

    #[test]
    fn the_ipv6_network_is_a_ula() {
        let ula = random_ula(&mut |out: &mut [u8]| out.copy_from_slice(&[1, 2, 3, 4, 5]));
        assert_eq!(ula.to_string(), "fd01:203:405::/64");
    }

    #[test]
    fn the_file_names_everything_and_quotes_what_needs_it() {
        let (v4, v6) = ("10.8.0.0/24".parse().unwrap(), "fd01:203:405::/64".parse().unwrap());
        let conf = text("/etc/sixgate", v4, v6);
        for line in [
            "sixgate-state /etc/sixgate",
            "server 10.8.0.0 255.255.255.0",
            "server-ipv6 auto fd01:203:405::/64",
            "key /etc/sixgate/server.pem",
        ] {
            assert!(conf.lines().any(|l| l == line), "{line}");
        }
        let conf = text("/my \"vpn\"\\", v4, v6);
        assert!(conf.contains("\nca \"/my \\\"vpn\\\"\\\\/ca.crt\"\n"));
    }

    #[test]
    fn the_port_is_what_the_owner_set() {
        assert_eq!(port("dev tun\n  port 443\n"), 443);
        assert_eq!(port("#port 443\nportx 1\nport none\n"), DEFAULT_PORT);
        assert_eq!(port("port 1\nlport 2\n"), 2);
    }
}
