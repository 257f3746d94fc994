//! The kernel's routes to clients' addresses and networks (`route-export`, `ndp-proxy`), kept in step
//! with who is connected.
//!
//! They carry a protocol number of our own. A routing daemon tells them by it from all others and
//! spreads them; and what a server that was killed has left on a device that outlived it is known by
//! it, too, and removed at the next start. Routes of others are never touched.

use std::io::{self, ErrorKind};

use ipnet::IpNet;

use super::netlink::{Exported, Netlink};
use crate::config::Export;
use crate::sorted::SortedMap;

/// The routes; `drop` removes them.
#[derive(Debug)]
pub struct ClientRoutes {
    netlink: Netlink,
    interface: u32,
    at: Export,
    wanted: SortedMap<IpNet, ()>,
}

impl ClientRoutes {
    /// Routes into the interface with this index; what an earlier server has left there goes.
    pub fn open(at: Export, interface: u32) -> Result<Self, String> {
        let netlink = Netlink::open().map_err(|error| format!("netlink: {error}"))?;
        let mut this = Self { netlink, interface, at, wanted: SortedMap::new() };
        for route in this.present() {
            log::info!("{}: removing the route that an earlier server has left", route.net);
            this.withdraw(route);
        }
        Ok(this)
    }

    /// A client has this network from now on, or no longer.
    pub fn set(&mut self, net: IpNet, up: bool) {
        if up {
            self.wanted.insert(net, ());
            self.export(net);
        } else if self.wanted.remove(&net).is_some() {
            self.withdraw(Exported { net, at: self.at });
        }
    }

    /// Puts back what is gone: the kernel drops routes when their interface goes down.
    pub fn restore(&mut self) {
        let mut present = SortedMap::new();
        for route in self.present().into_iter().filter(|route| route.at == self.at) {
            present.insert(route.net, ());
        }
        let missing: Vec<IpNet> =
            self.wanted.keys().filter(|net| !present.contains_key(net)).copied().collect();
        missing.into_iter().for_each(|net| self.export(net));
    }

    fn present(&mut self) -> Vec<Exported> {
        let found = self.netlink.exported(self.interface, self.at.protocol);
        found.unwrap_or_else(|error| {
            log::warn!("the kernel's routes cannot be read: {error}");
            Vec::new()
        })
    }

    fn export(&mut self, net: IpNet) {
        let result: io::Result<()> =
            self.netlink.export(self.interface, Exported { net, at: self.at });
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => log::warn!(
                "{net}: this host has another route there with metric {}, which stays",
                self.at.metric
            ),
            Err(error) => log::warn!("{net}: no route for others: {error}"),
        }
    }

    fn withdraw(&mut self, route: Exported) {
        // What is gone already is no error.
        if let Err(error) = self.netlink.withdraw(self.interface, route) {
            log::debug!("{}: taking back the route: {error}", route.net);
        }
    }
}

impl Drop for ClientRoutes {
    fn drop(&mut self) {
        for (net, ()) in std::mem::take(&mut self.wanted) {
            self.withdraw(Exported { net, at: self.at });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::engine::TunnelSettings;
    use crate::sys::netlink::Route;
    use crate::sys::testing::alone;
    use crate::sys::tun::TunDevice;
    use crate::sys::tunnel::TunnelConfig;

    fn device(name: &str) -> (TunDevice, TunnelConfig) {
        let tun = TunDevice::open(Some(name), false).unwrap();
        let mut tunnel = TunnelConfig::new(tun.name(), tun.index()).unwrap();
        let settings = TunnelSettings {
            v4: Some("10.8.0.1/24".parse().unwrap()),
            v6: Some("fd00:6::1/64".parse().unwrap()),
            mtu: 1500,
            ..TunnelSettings::default()
        };
        tunnel.apply(&settings).unwrap();
        (tun, tunnel)
    }

    /// What a routing daemon finds.
    fn table(netlink: &mut Netlink, interface: u32, at: Export) -> BTreeSet<IpNet> {
        let all = netlink.exported(interface, at.protocol).unwrap();
        assert!(all.iter().all(|route| route.at == at), "{all:?}");
        all.into_iter().map(|route| route.net).collect()
    }

    #[test]
    #[ignore = "needs root: tests/run interop runs it"]
    fn the_kernel_has_at_each_moment_what_clients_have() {
        for at in [Export::USUAL, Export { metric: 7, table: 4000, protocol: 99 }] {
            alone();
            let (tun, _tunnel) = device("tun0");
            let mut netlink = Netlink::open().unwrap();
            let mut routes = ClientRoutes::open(at, tun.index()).unwrap();
            let mut model = BTreeSet::new();
            let nets: Vec<IpNet> = [
                "10.8.0.2/32",
                "10.8.0.3/32",
                "192.168.50.0/24",
                "fd00:6::2/128",
                "fd00:d:0:10::/60",
                "2001:db8:a::2/128",
                "2001:db8:a:10::/60",
            ]
            .map(|net| net.parse().unwrap())
            .to_vec();
            // A step of a generator with a full period.
            let mut dice = 7_usize;
            for step in 0..300 {
                dice = dice.wrapping_mul(1_103_515_245).wrapping_add(12_345) & 0xffff;
                let net = nets[dice / 8 % nets.len()];
                if model.remove(&net) {
                    routes.set(net, false);
                } else {
                    model.insert(net);
                    routes.set(net, true);
                }
                if step % 50 == 49 {
                    // Somebody takes one away.
                    if let Some(net) = model.iter().next() {
                        netlink.withdraw(tun.index(), Exported { net: *net, at }).unwrap();
                    }
                    routes.restore();
                }
                assert_eq!(table(&mut netlink, tun.index(), at), model);
            }
            assert!(!model.is_empty());
            drop(routes);
            assert!(table(&mut netlink, tun.index(), at).is_empty());
        }
    }

    #[test]
    #[ignore = "needs root: tests/run interop runs it"]
    fn what_a_killed_server_left_goes_and_nothing_else() {
        alone();
        let (tun, _tunnel) = device("tun0");
        let (other, _other) = device("tun1");
        let mut netlink = Netlink::open().unwrap();
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let usual = Export::USUAL;
        for (interface, text, at) in [
            (tun.index(), "10.8.0.9/32", usual),
            (tun.index(), "fd00:6::9/128", Export { table: 77, metric: 3, ..usual }),
            (tun.index(), "10.8.0.10/32", Export { protocol: 12, ..usual }),
            (other.index(), "10.8.0.11/32", usual),
        ] {
            netlink.export(interface, Exported { net: net(text), at }).unwrap();
        }
        let by_hand = Route {
            destination: net("10.8.0.12/32"),
            gateway: None,
            interface: tun.index(),
            metric: 0,
        };
        netlink.add_route(&by_hand).unwrap();
        let routes = ClientRoutes::open(usual, tun.index()).unwrap();
        assert!(table(&mut netlink, tun.index(), usual).is_empty());
        drop(routes);
        assert_eq!(netlink.exported(tun.index(), 12).unwrap().len(), 1);
        assert_eq!(table(&mut netlink, other.index(), usual).len(), 1);
        assert!(
            netlink
                .main_routes(false)
                .unwrap()
                .iter()
                .any(|route| route.destination == by_hand.destination)
        );
    }
}
