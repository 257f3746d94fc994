//! What a server pushed, checked and typed: PUSH_REPLY text becomes [`Pushed`] [7.2, 7.3].
//!
//! The parts of a continued reply are collected here too. An option we do not know or cannot use is
//! kept for the log and harms nothing, as with stock clients; an option we need and cannot read
//! fails the connection. Applying the result is the engine's and the shell's business.

use core::fmt;
use core::time::Duration;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::{CipherName, Framing, lex};
use crate::engine::{TunnelRoute, TunnelSettings, Via};
use crate::limits::{MAX_PUSHED_OPTIONS, MAX_PUSHED_ROUTES, MAX_TUN_MTU, MIN_TUN_MTU, NO_PEER_ID};
use crate::wire::message::{Continuation, Options};

/// Why a push cannot be used; the text is for the user's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PushError(pub(super) String);

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Options of a reply that may come in several messages.
#[derive(Debug, Default)]
pub(super) struct Collector(Vec<String>);

impl Collector {
    /// Takes one message's options; true when the reply is complete.
    pub(super) fn add(&mut self, part: Options) -> Result<bool, PushError> {
        if self.0.len() + part.options.len() > MAX_PUSHED_OPTIONS {
            let limit = MAX_PUSHED_OPTIONS;
            return Err(PushError(format!("the server pushes more than {limit} options")));
        }
        self.0.extend(part.options);
        Ok(part.continuation != Continuation::More)
    }

    /// Hands over what was collected.
    pub(super) fn take(&mut self) -> Vec<String> {
        core::mem::take(&mut self.0)
    }
}

/// How `ifconfig`'s second argument reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topology {
    /// A netmask.
    Subnet,
    /// The other end's address (net30, p2p).
    PointToPoint,
}

/// A checked push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pushed {
    /// Addresses, routes, MTU, DNS.
    pub(super) tunnel: TunnelSettings,
    /// `cipher`, when pushed.
    pub(super) cipher: Option<CipherName>,
    /// `compress` or `comp-lzo`, when pushed.
    pub(super) framing: Option<Framing>,
    /// `peer-id`, when pushed and not "none".
    pub(super) peer: Option<u32>,
    /// `protocol-flags` and `key-derivation`.
    pub(super) flags: Flags,
    /// `ping`: `None` leaves the configured value.
    pub(super) ping: Option<Duration>,
    /// `ping-restart`.
    pub(super) ping_restart: Option<Duration>,
    /// Options without effect here, for the log.
    pub(super) unused: Vec<String>,
}

/// Protocol features the server chose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// Leave by a control message.
    pub(super) cc_exit: bool,
    /// Data keys from the TLS exporter.
    pub(super) exporter: bool,
    /// A fresh control wrapping for renegotiations.
    pub(super) dynamic_tls_crypt: bool,
    /// The epoch data format.
    pub(super) epoch: bool,
}

/// Options as they come, before their order is irrelevant.
#[derive(Default)]
struct Raw {
    topology: Option<Topology>,
    ifconfig: Option<(Ipv4Addr, Ipv4Addr)>,
    v6: Option<Ipv6Net>,
    routes: Vec<(IpNet, Option<u32>)>,
    metric: Option<u32>,
    mtu: Option<u16>,
    cipher: Option<CipherName>,
    framing: Option<Framing>,
    peer: Option<u32>,
    flags: Flags,
    ping: Option<Duration>,
    ping_restart: Option<Duration>,
    redirect: Option<Redirect>,
    unused: Vec<String>,
}

/// `redirect-gateway` flags.
#[derive(Clone, Copy)]
struct Redirect {
    v4: bool,
    v6: bool,
}

impl Pushed {
    /// Reads the options of a complete reply; `mtu` is the configured one.
    pub(super) fn parse(options: &[String], mtu: u16) -> Result<Self, PushError> {
        let mut raw = Raw::default();
        for option in options {
            let words = lex::split(option).map_err(|reason| {
                PushError(format!("pushed option '{}': {reason}", option.escape_debug()))
            })?;
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            raw.take(option, &words)?;
        }
        raw.finish(mtu)
    }
}

/// An option whose argument is unusable.
fn bad(option: &str) -> PushError {
    PushError(format!("the server pushes an unusable '{}'", option.escape_debug()))
}

impl Raw {
    fn take(&mut self, option: &str, words: &[&str]) -> Result<(), PushError> {
        match words {
            ["topology", "subnet"] => self.topology = Some(Topology::Subnet),
            ["topology", "net30" | "p2p"] => self.topology = Some(Topology::PointToPoint),
            ["ifconfig", rest @ ..] => {
                let [local, remote] = rest else { return Err(bad(option)) };
                let parse = |text: &str| text.parse().map_err(|_| bad(option));
                self.ifconfig = Some((parse(local)?, parse(remote)?));
            }
            ["ifconfig-ipv6", net, ..] => self.v6 = Some(net.parse().map_err(|_| bad(option))?),
            ["route", rest @ ..] => self.route4(option, rest),
            ["route-ipv6", rest @ ..] => self.route6(option, rest),
            ["route-metric", metric] => self.metric = metric.parse().ok(),
            // On a TUN device a gateway only names the device.
            ["route-gateway" | "route-ipv6-gateway", _] | ["tun-ipv6"] => {}
            ["redirect-gateway" | "redirect-private", flags @ ..] => self.redirect(option, flags),
            ["tun-mtu", mtu] => self.mtu = Some(mtu.parse().map_err(|_| bad(option))?),
            ["cipher", name] => {
                let cipher = CipherName::from_name(name);
                self.cipher = Some(cipher.ok_or_else(|| unsupported_cipher(name))?);
            }
            ["comp-lzo" | "compress", ..] => {
                self.framing = Some(Framing::from_words(words).ok_or_else(|| bad(option))?);
            }
            ["peer-id", id] => {
                let id: i64 = id.parse().map_err(|_| bad(option))?;
                self.peer = u32::try_from(id).ok().filter(|id| *id < NO_PEER_ID);
            }
            ["key-derivation", "tls-ekm"] => self.flags.exporter = true,
            ["protocol-flags", words @ ..] => self.protocol_flags(words)?,
            ["ping", secs] => self.ping = seconds(secs),
            ["ping-restart" | "ping-exit", secs] => self.ping_restart = seconds(secs),
            _ => self.unused.push(option.to_owned()),
        }
        Ok(())
    }

    /// An unknown word changes the wire format in a way we do not know: going on would only fail
    /// later and without a reason.
    fn protocol_flags(&mut self, words: &[&str]) -> Result<(), PushError> {
        for word in words {
            match *word {
                "cc-exit" => self.flags.cc_exit = true,
                "tls-ekm" => self.flags.exporter = true,
                "dyn-tls-crypt" => self.flags.dynamic_tls_crypt = true,
                "aead-epoch" => self.flags.epoch = true,
                other => {
                    return Err(PushError(format!(
                        "the server wants the unknown protocol flag '{}'",
                        other.escape_debug()
                    )));
                }
            }
        }
        Ok(())
    }

    /// `route net [mask [gateway [metric]]]`. Only routes into the tunnel are taken.
    fn route4(&mut self, option: &str, words: &[&str]) {
        let net = words.first().and_then(|net| net.parse::<Ipv4Addr>().ok());
        let mask = match words.get(1) {
            None | Some(&"default") => Some(Ipv4Addr::BROADCAST),
            Some(mask) => mask.parse().ok(),
        };
        let net = net.zip(mask).and_then(|(net, mask)| Ipv4Net::with_netmask(net, mask).ok());
        let outside = matches!(words.get(2), Some(&"net_gateway"));
        match net {
            Some(net) if !outside && self.routes.len() < MAX_PUSHED_ROUTES => {
                let metric = words.get(3).and_then(|metric| metric.parse().ok());
                self.routes.push((IpNet::V4(net.trunc()), metric));
            }
            Some(_) | None => self.unused.push(option.to_owned()),
        }
    }

    /// `route-ipv6 net/bits [gateway [metric]]`.
    fn route6(&mut self, option: &str, words: &[&str]) {
        match words.first().and_then(|net| net.parse::<Ipv6Net>().ok()) {
            Some(net) if self.routes.len() < MAX_PUSHED_ROUTES => {
                let metric = words.get(2).and_then(|metric| metric.parse().ok());
                self.routes.push((IpNet::V6(net.trunc()), metric));
            }
            Some(_) | None => self.unused.push(option.to_owned()),
        }
    }

    /// `redirect-gateway [def1] [ipv6] [!ipv4] …` [10.3].
    fn redirect(&mut self, option: &str, flags: &[&str]) {
        if !option.starts_with("redirect-gateway") {
            return;
        }
        self.redirect =
            Some(Redirect { v4: !flags.contains(&"!ipv4"), v6: flags.contains(&"ipv6") });
    }

    fn finish(mut self, mtu: u16) -> Result<Pushed, PushError> {
        let (v4, v4_peer) = self.v4()?;
        if v4.is_none() && self.v6.is_none() {
            return Err(PushError(
                "the server gives this client no address, neither IPv4 nor IPv6: its pools are full, \
                 or it has none"
                    .into(),
            ));
        }
        self.add_redirect(v4.is_some());
        let mtu = self.mtu.unwrap_or(mtu).clamp(MIN_TUN_MTU, MAX_TUN_MTU);
        let metric = self.metric.unwrap_or(0);
        let routes = self.routes.into_iter().map(|(net, own)| (net, own.unwrap_or(metric)));
        // A route of a family we have no address in would lead into a black hole.
        let usable = |net: &IpNet| match net {
            IpNet::V4(_) => v4.is_some(),
            IpNet::V6(_) => self.v6.is_some(),
        };
        let tunnel = TunnelSettings {
            v4,
            v4_peer,
            v6: self.v6,
            mtu,
            routes: routes
                .filter(|(net, _)| usable(net))
                .map(|(destination, metric)| TunnelRoute { destination, via: Via::Tunnel, metric })
                .collect(),
            ..TunnelSettings::default()
        };
        Ok(Pushed {
            tunnel,
            cipher: self.cipher,
            framing: self.framing,
            peer: self.peer,
            flags: self.flags,
            ping: self.ping,
            ping_restart: self.ping_restart,
            unused: self.unused,
        })
    }

    /// `ifconfig` under the pushed topology; clients assume net30 when none is pushed [7.3].
    fn v4(&self) -> Result<(Option<Ipv4Net>, Option<Ipv4Addr>), PushError> {
        let Some((local, remote)) = self.ifconfig else { return Ok((None, None)) };
        match self.topology.unwrap_or(Topology::PointToPoint) {
            Topology::Subnet => match Ipv4Net::with_netmask(local, remote) {
                Ok(net) => Ok((Some(net), None)),
                Err(_) => Err(PushError(format!("pushed ifconfig: {remote} is not a netmask"))),
            },
            Topology::PointToPoint => match Ipv4Net::new(local, 32) {
                Ok(net) => Ok((Some(net), Some(remote))),
                Err(_) => Ok((None, None)),
            },
        }
    }

    /// More specific halves win over the default routes without replacing them.
    fn add_redirect(&mut self, has_v4: bool) {
        let Some(redirect) = self.redirect else { return };
        let v4 = [(Ipv4Addr::UNSPECIFIED, 1), (Ipv4Addr::new(128, 0, 0, 0), 1)];
        if redirect.v4 && has_v4 {
            let nets = v4.iter().filter_map(|(net, bits)| Ipv4Net::new(*net, *bits).ok());
            self.routes.extend(nets.map(|net| (IpNet::V4(net), None)));
        }
        let v6 = [(0, 3), (0x2000, 4), (0x3000, 4), (0xfc00, 7)];
        if redirect.v6 && self.v6.is_some() {
            let nets = v6.iter().filter_map(|(first, bits)| {
                Ipv6Net::new(Ipv6Addr::new(*first, 0, 0, 0, 0, 0, 0, 0), *bits).ok()
            });
            self.routes.extend(nets.map(|net| (IpNet::V6(net), None)));
        }
    }
}

fn seconds(text: &str) -> Option<Duration> {
    text.parse().ok().filter(|secs| *secs > 0).map(Duration::from_secs)
}

pub(super) fn unsupported_cipher(name: &str) -> PushError {
    PushError(format!(
        "the server wants data cipher '{}', which is not supported here: set data-ciphers on the server to \
         include AES-256-GCM or CHACHA20-POLY1305",
        name.escape_debug()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::Message;

    /// The settings that matter here, as a configuration without any file would have them.
    const DEFAULT_MTU: u16 = 1500;

    fn parse(reply: &str) -> Result<Pushed, PushError> {
        let Message::PushReply(options) = Message::parse(reply) else { panic!("{reply}") };
        Pushed::parse(&options.options, DEFAULT_MTU)
    }

    fn routes(pushed: &Pushed) -> Vec<String> {
        pushed
            .tunnel
            .routes
            .iter()
            .map(|route| format!("{} {}", route.destination, route.metric))
            .collect()
    }

    #[test]
    fn the_typical_dual_stack_reply_of_a_2_6_server() {
        let pushed = parse(
            "PUSH_REPLY,route-gateway 10.8.0.1,topology subnet,ping 10,ping-restart 60,tun-ipv6,\
             ifconfig-ipv6 2001:db8::1000/64 2001:db8::1,ifconfig 10.8.0.2 255.255.255.0,peer-id 0,\
             cipher AES-256-GCM,protocol-flags cc-exit tls-ekm dyn-tls-crypt,tun-mtu 1400",
        )
        .unwrap();
        assert_eq!(pushed.tunnel.v4.unwrap().to_string(), "10.8.0.2/24");
        assert_eq!(pushed.tunnel.v6.unwrap().to_string(), "2001:db8::1000/64");
        assert_eq!((pushed.tunnel.mtu, pushed.tunnel.v4_peer), (1400, None));
        assert_eq!((pushed.peer, pushed.cipher), (Some(0), Some(CipherName::Aes256Gcm)));
        assert_eq!(pushed.ping, Some(Duration::from_secs(10)));
        assert_eq!(pushed.ping_restart, Some(Duration::from_secs(60)));
        let all = Flags { cc_exit: true, exporter: true, dynamic_tls_crypt: true, epoch: false };
        assert_eq!(pushed.flags, all);
        assert!(pushed.unused.is_empty(), "{:?}", pushed.unused);
    }

    #[test]
    fn without_a_topology_ifconfig_is_point_to_point() {
        let pushed = parse("PUSH_REPLY,ifconfig 10.8.0.6 10.8.0.5,peer-id 16777215").unwrap();
        assert_eq!(pushed.tunnel.v4.unwrap().to_string(), "10.8.0.6/32");
        assert_eq!(pushed.tunnel.v4_peer, Some(Ipv4Addr::new(10, 8, 0, 5)));
        assert_eq!(pushed.peer, None);
        assert_eq!(pushed.flags, Flags::default());
    }

    #[test]
    fn routes_take_masks_metrics_and_defaults() {
        let pushed = parse(
            "PUSH_REPLY,topology subnet,ifconfig 10.8.0.2 255.255.255.0,route-metric 50,\
             ifconfig-ipv6 fd00::2/64 fd00::1,route 192.168.1.7 255.255.255.0,route 10.9.0.1,\
             route 172.16.0.0 255.240.0.0 vpn_gateway 7,route 1.2.3.4 255.255.255.255 net_gateway,\
             route-ipv6 2001:db8:1::9/48,route-ipv6 fd01::/64 default 9,route bogus",
        )
        .unwrap();
        assert_eq!(
            routes(&pushed),
            [
                "192.168.1.0/24 50",
                "10.9.0.1/32 50",
                "172.16.0.0/12 7",
                "2001:db8:1::/48 50",
                "fd01::/64 9",
            ]
        );
        assert_eq!(pushed.unused, ["route 1.2.3.4 255.255.255.255 net_gateway", "route bogus"]);
    }

    #[test]
    fn redirect_gateway_takes_only_families_with_an_address() {
        let both = "PUSH_REPLY,redirect-gateway def1 ipv6,topology subnet,\
             ifconfig 10.8.0.2 255.255.255.0,ifconfig-ipv6 fd00::2/64 fd00::1";
        let all =
            ["0.0.0.0/1 0", "128.0.0.0/1 0", "::/3 0", "2000::/4 0", "3000::/4 0", "fc00::/7 0"];
        assert_eq!(routes(&parse(both).unwrap()), all);
        assert_eq!(routes(&parse(&both.replace("ipv6,", "ipv6 !ipv4,")).unwrap()), all[2..]);
        let v4 =
            "PUSH_REPLY,redirect-gateway def1 ipv6,ifconfig 10.8.0.6 10.8.0.5,route-ipv6 fd01::/64";
        assert_eq!(routes(&parse(v4).unwrap()), all[..2]);
    }

    #[test]
    fn what_cannot_work_fails_with_a_reason() {
        for (reply, reason) in [
            ("PUSH_REPLY,ping 10", "no address"),
            ("PUSH_REPLY,ifconfig 10.8.0.2", "unusable 'ifconfig"),
            ("PUSH_REPLY,ifconfig x y", "unusable 'ifconfig"),
            ("PUSH_REPLY,topology subnet,ifconfig 10.8.0.2 10.8.0.1", "not a netmask"),
            ("PUSH_REPLY,ifconfig 10.8.0.6 10.8.0.5,cipher BF-CBC", "BF-CBC"),
            ("PUSH_REPLY,ifconfig 10.8.0.6 10.8.0.5,protocol-flags warp", "warp"),
            ("PUSH_REPLY,ifconfig 10.8.0.6 10.8.0.5,echo \"open", "echo"),
        ] {
            let error = parse(reply).unwrap_err().0;
            assert!(error.contains(reason), "{reply}: {error}");
        }
    }

    #[test]
    fn a_continued_reply_is_complete_with_its_last_part() {
        let part = |text| match Message::parse(text) {
            Message::PushReply(options) => options,
            other => panic!("{other:?}"),
        };
        let mut collector = Collector::default();
        assert!(!collector.add(part("PUSH_REPLY,route 10.1.0.0,push-continuation 2")).unwrap());
        assert!(collector.add(part("PUSH_REPLY,route 10.2.0.0,push-continuation 1")).unwrap());
        assert_eq!(collector.take(), ["route 10.1.0.0", "route 10.2.0.0"]);
        let flood = format!("PUSH_REPLY{}", ",x".repeat(MAX_PUSHED_OPTIONS + 1));
        assert!(collector.add(part(&flood)).is_err());
    }
}
