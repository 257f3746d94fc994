//! What the line gives a server for its clients (`server-ipv6 auto`), and `ndp-proxy`.
//!
//! ```text
//! ip6assign 64   netifd ─ address ─> tun0 ─ read here ─> the engine ─> the clients' addresses
//! ndp-proxy DEV  router ─ address ─> DEV  ─ read here ─> the engine ─ Command::Neighbour ─> here:
//!                                                a proxy entry on DEV
//!                                                                    ─ Command::Route ─> client_routes
//! ```
//!
//! Addresses that the configuration gives our device are never taken for the line's. Entries are
//! removed at the end, and `proxy_ndp` is as it was before.

use std::fs;
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use super::netlink::{Assigned, Netlink, interface_index};
use crate::config::Follow;
use crate::engine::{LinePrefix, TunnelSettings};
use crate::sorted::SortedMap;

/// Global unicast (RFC 4291, 2.4, as far as it is given out).
pub const GLOBAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// No more of a prefix than this is cut up.
const LONGEST: u8 = 48;

/// Reads prefixes and shows clients' addresses to neighbours; `drop` takes that back.
#[derive(Debug)]
pub struct Line {
    netlink: Netlink,
    tunnel: u32,
    /// Ours on the device by configuration.
    own: Option<Ipv6Net>,
    neighbours: Option<Neighbours>,
}

/// `ndp-proxy`.
#[derive(Debug)]
struct Neighbours {
    device: String,
    shown: SortedMap<Ipv6Addr, ()>,
    /// `proxy_ndp` was off.
    switched_on: bool,
}

impl Line {
    /// For the device with the index `tunnel`, whose own addresses are in `settings`.
    pub fn open(follow: &Follow, tunnel: u32, settings: &TunnelSettings) -> Result<Self, String> {
        let neighbours = match follow {
            Follow::Tunnel => None,
            Follow::Neighbours(device) => Some(Neighbours::on(device)?),
        };
        let netlink = Netlink::open().map_err(|error| format!("netlink: {error}"))?;
        Ok(Self { netlink, tunnel, own: settings.v6, neighbours })
    }

    /// What the line gives at the moment; `None` when it cannot be told.
    pub fn prefixes(&mut self) -> Option<Vec<LinePrefix>> {
        self.reassert();
        let interface = match &self.neighbours {
            None => self.tunnel,
            // By name, as it may be another one by now.
            Some(neighbours) => interface_index(&neighbours.device).unwrap_or(0),
        };
        let all = self.netlink.assigned();
        let all = all.inspect_err(|error| log::warn!("addresses cannot be read: {error}")).ok()?;
        let here = all.into_iter().filter(|assigned| assigned.interface == interface);
        Some(prefixes(here, self.own))
    }

    /// A client's address comes or goes.
    pub fn show(&mut self, address: Ipv6Addr, up: bool) {
        let Some(neighbours) = &mut self.neighbours else { return };
        let device = interface_index(&neighbours.device);
        if up {
            neighbours.shown.insert(address, ());
            let done = device.and_then(|device| self.netlink.add_proxy(device, address));
            if let Err(error) = done {
                let device = &neighbours.device;
                log::warn!("ndp-proxy {device}: {address} is not reachable: {error}");
            }
        } else if neighbours.shown.remove(&address).is_some() {
            self.hide(address, device.unwrap_or(0));
        }
    }

    fn hide(&mut self, address: Ipv6Addr, device: u32) {
        // What is gone already is no error.
        if let Err(error) = self.netlink.remove_proxy(device, address) {
            log::debug!("ndp-proxy: taking back {address}: {error}");
        }
    }

    /// The kernel forgets entries when their interface goes down.
    fn reassert(&mut self) {
        let Some(neighbours) = &self.neighbours else { return };
        let shown: Vec<Ipv6Addr> = neighbours.shown.keys().copied().collect();
        shown.into_iter().for_each(|address| self.show(address, true));
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(neighbours) = self.neighbours.take() else { return };
        let device = interface_index(&neighbours.device).unwrap_or(0);
        neighbours.shown.keys().for_each(|address| self.hide(*address, device));
        if neighbours.switched_on
            && let Err(error) = neighbours.switch("0")
        {
            log::debug!("{error}");
        }
    }
}

impl Neighbours {
    fn on(device: &str) -> Result<Self, String> {
        let mut this =
            Self { device: device.to_owned(), shown: SortedMap::new(), switched_on: false };
        let path = this.path();
        let before = fs::read_to_string(&path).map_err(|error| {
            format!("ndp-proxy {device}: no such interface, or IPv6 is off there ({path}: {error})")
        })?;
        if before.trim() == "0" {
            this.switch("1")?;
            this.switched_on = true;
        }
        let forwarding = fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{device}/forwarding"));
        if forwarding.is_ok_and(|text| text.trim() == "0") {
            log::warn!(
                "ndp-proxy {device}: the kernel answers neighbours only while it forwards; \
                 'sysctl -w net.ipv6.conf.{device}.forwarding=1' switches that on"
            );
        }
        Ok(this)
    }

    fn path(&self) -> String {
        format!("/proc/sys/net/ipv6/conf/{}/proxy_ndp", self.device)
    }

    fn switch(&self, to: &str) -> Result<(), String> {
        let path = self.path();
        fs::write(&path, to).map_err(|error| format!("ndp-proxy {}: {path}: {error}", self.device))
    }
}

/// The /64s of the global addresses among these.
fn prefixes(assigned: impl Iterator<Item = Assigned>, own: Option<Ipv6Net>) -> Vec<LinePrefix> {
    let mut found: Vec<LinePrefix> = Vec::new();
    for Assigned { net, preferred, .. } in assigned {
        let address = net.addr();
        let ours = own.is_some_and(|own| own.addr() == address);
        if ours || !GLOBAL.contains(&address) {
            continue;
        }
        if net.prefix_len() > 64 {
            log::debug!("{net} has no room for clients");
            continue;
        }
        // Of a longer one, netifd's address is in the first /64. Where it is not, somebody has other
        // plans for the rest.
        let bits = if net.network() == Ipv6Net::new_assert(address, 64).network() {
            net.prefix_len().max(LONGEST)
        } else {
            64
        };
        let net = Ipv6Net::new_assert(address, 64).trunc();
        // Several addresses in one prefix count as one; the lowest is the most likely to last.
        match found.iter_mut().find(|prefix| prefix.net == net) {
            Some(prefix) => {
                prefix.own = prefix.own.min(address);
                prefix.preferred = prefix.preferred.max(preferred);
                prefix.bits = prefix.bits.min(bits);
            }
            None => found.push(LinePrefix { net, bits, own: address, preferred }),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::sys::testing::alone;
    use crate::sys::tun::TunDevice;
    use crate::sys::tunnel::TunnelConfig;

    #[test]
    fn only_global_prefixes_with_room_for_clients_count() {
        let own = "2001:db8:9::1/64".parse().unwrap();
        let assigned = [
            ("fe80::1/64", 9),
            ("fd00:1::1/64", 9),
            ("2001:db8:9::1/64", 9),
            ("2001:db8:1::abcd/64", 5),
            ("2001:db8:1::1/128", 5),
            ("2001:db8:1::1/64", 0),
            ("2001:db8:20:30::1/60", 7),
            ("2001:db8:40:5::1/60", 7),
            ("2001:db8:50::1/64", 7),
            ("2001:db8:50::2/56", 7),
        ];
        let assigned = assigned.map(|(net, preferred)| Assigned {
            interface: 1,
            net: net.parse().unwrap(),
            preferred,
        });
        let found = prefixes(assigned.into_iter(), Some(own));
        let prefix = |net: &str, bits, own: &str, preferred| LinePrefix {
            net: net.parse().unwrap(),
            bits,
            own: own.parse().unwrap(),
            preferred,
        };
        assert_eq!(
            found,
            [
                prefix("2001:db8:1::/64", 64, "2001:db8:1::1", 5),
                prefix("2001:db8:20:30::/64", 60, "2001:db8:20:30::1", 7),
                prefix("2001:db8:40:5::/64", 64, "2001:db8:40:5::1", 7),
                prefix("2001:db8:50::/64", 56, "2001:db8:50::1", 7)
            ]
        );
    }

    #[test]
    #[ignore = "needs root: tests/run interop runs it"]
    fn entries_come_and_go_with_clients() {
        alone();
        // Stands in for the local network.
        let lan = TunDevice::open(Some("lan0"), false).unwrap();
        let mut config = TunnelConfig::new(lan.name(), lan.index()).unwrap();
        let v6 = Some("2001:db8:5::1/64".parse().unwrap());
        config.apply(&TunnelSettings { v6, mtu: 1500, ..TunnelSettings::default() }).unwrap();
        let tun = TunDevice::open(Some("tun0"), false).unwrap();
        let mut tunnel = TunnelConfig::new(tun.name(), tun.index()).unwrap();
        let settings = TunnelSettings {
            v6: Some("fd00:6::1/64".parse().unwrap()),
            mtu: 1500,
            ..TunnelSettings::default()
        };
        tunnel.apply(&settings).unwrap();
        let follow = Follow::Neighbours("lan0".to_owned());
        let mut line = Line::open(&follow, tun.index(), &settings).unwrap();
        let found = line.prefixes().unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0].net.to_string().as_str(), found[0].preferred),
            ("2001:db8:5::/64", u32::MAX)
        );
        let client: Ipv6Addr = "2001:db8:5::77".parse().unwrap();
        let entries = || {
            let mut list = Command::new("ip");
            list.args(["-6", "neigh", "show", "proxy", "dev", "lan0"]);
            String::from_utf8(list.output().unwrap().stdout).unwrap()
        };
        line.show(client, true);
        line.show(client, true);
        assert_eq!(entries().trim(), "2001:db8:5::77 proxy");
        let proxies = || fs::read_to_string("/proc/sys/net/ipv6/conf/lan0/proxy_ndp").unwrap();
        assert_eq!(proxies().trim(), "1");
        line.show(client, false);
        assert_eq!(entries(), "");
        line.show(client, true);
        drop(line);
        assert_eq!(entries(), "");
        assert_eq!(proxies().trim(), "0");
        let error = Line::open(&Follow::Neighbours("nothing".into()), 1, &settings).unwrap_err();
        assert!(error.contains("no such interface"), "{error}");
    }
}
