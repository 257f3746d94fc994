//! A prefix that the server has delegated to us: an address on the interface towards the network that it
//! is for (`delegate-ipv6-dev`), and taking it back.
//!
//! The interface gets the first address of the first /64. Who announces the prefix there (radvd,
//! odhcpd, …) sees it on the interface like any other, and that it is deprecated when another one takes
//! its place. What is in no network of ours must not go back
//! into the tunnel (RFC 7084, WPD-5): an unreachable route holds the whole prefix. Whoever has an
//! address of a global one is answered by the world through the tunnel, and has to go there by it, too:
//! any other provider drops what comes from a prefix that is not its own.

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};

use super::line::GLOBAL;
use super::netlink::{Netlink, interface_index};
use crate::engine::TunnelSettings;
use crate::limits::MAX_LINE_PREFIXES;

/// How long a prefix that has gone is still served, in seconds (RFC 7084, L-14).
const FAREWELL: u32 = 7200;

/// What was set where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Handed {
    device: String,
    net: Ipv6Net,
    /// `None` where there is no such interface.
    address: Option<(u32, IpNet)>,
    /// The interface that everything from there leaves by.
    way_out: Option<u32>,
}

/// The delegated prefix of the moment, and those before it that connections may still use.
#[derive(Debug, Default)]
pub struct Delegated {
    now: Option<Handed>,
    before: Vec<Handed>,
}

impl Delegated {
    /// Puts what these settings say in place of what was before. Addresses of another prefix are
    /// deprecated: whoever announces it says so, and connections have time to end.
    pub fn apply(&mut self, netlink: &mut Netlink, tunnel: u32, settings: &TunnelSettings) {
        let wanted = settings.delegated.zip(settings.delegated_dev.as_ref());
        let same = |handed: &Handed| wanted == Some((handed.net, &handed.device));
        if self.now.as_ref().is_some_and(same) {
            return;
        }
        let Some((net, device)) = wanted else { return self.revert(netlink) };
        let known = self.before.iter().position(same).map(|at| self.before.remove(at));
        if let Some(old) = self.now.take() {
            deprecate(netlink, &old);
            self.before.push(old);
        }
        if self.before.len() > MAX_LINE_PREFIXES {
            let oldest = renew(netlink, self.before.remove(0));
            take_back(netlink, oldest);
        }
        self.now = Some(match known {
            Some(known) => renew(netlink, known),
            None => hand(netlink, tunnel, net, device),
        });
    }

    /// Takes everything back; what is gone already is no error.
    pub fn revert(&mut self, netlink: &mut Netlink) {
        for old in core::mem::take(&mut self.before) {
            // With one that is limited in time, the kernel would leave the route to its network.
            let old = renew(netlink, old);
            take_back(netlink, old);
        }
        self.now.take().into_iter().for_each(|handed| take_back(netlink, handed));
    }
}

fn deprecate(netlink: &mut Netlink, Handed { device, address, .. }: &Handed) {
    if let Some((interface, address)) = address
        && let Err(error) = netlink.limit_address(*interface, *address, FAREWELL)
    {
        log::debug!("{device}: deprecating {address}: {error}");
    }
}

/// One that has been deprecated comes back.
fn renew(netlink: &mut Netlink, handed: Handed) -> Handed {
    if let Some((interface, address)) = handed.address
        && let Err(error) = netlink.limit_address(interface, address, u32::MAX)
    {
        let device = &handed.device;
        log::warn!("delegate-ipv6-dev {device}: {address} cannot be set: {error}");
    }
    handed
}

fn take_back(netlink: &mut Netlink, Handed { device, net, address, way_out }: Handed) {
    if let Some((interface, address)) = address
        && let Err(error) = netlink.remove_address(interface, address, None)
    {
        log::debug!("{device}: taking back {address}: {error}");
    }
    if let Err(error) = netlink.remove_unreachable(net) {
        log::debug!("taking back the unreachable route for {net}: {error}");
    }
    if let Some(tunnel) = way_out
        && let Err(error) = netlink.remove_way_out(net, tunnel)
    {
        log::debug!("taking back the route from {net}: {error}");
    }
}

fn hand(netlink: &mut Netlink, tunnel: u32, net: Ipv6Net, device: &str) -> Handed {
    let first = Ipv6Addr::from_bits(net.network().to_bits() | 1);
    let address = IpNet::V6(Ipv6Net::new_assert(first, 64));
    let result = interface_index(device).and_then(|interface| {
        match netlink.add_address(interface, address, None) {
            // Its owner has it there for good, unless a process of ours was killed.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let ours = netlink.own_addresses(interface)?.contains(&(address, None));
                Ok(ours.then_some((interface, address)))
            }
            result => result.map(|()| Some((interface, address))),
        }
    });
    let address = match result {
        Ok(set) => {
            log::info!("{net} is ours for the network behind {device}, which has {address}");
            set
        }
        Err(error) => {
            log::warn!("delegate-ipv6-dev {device}: {address} cannot be set: {error}");
            None
        }
    };
    if let Err(error) = netlink.add_unreachable(net) {
        log::warn!("no unreachable route for {net}: {error}");
    }
    let mut way_out = None;
    if GLOBAL.contains(&net) {
        match netlink.add_way_out(net, tunnel) {
            Ok(()) => way_out = Some(tunnel),
            Err(error) => log::warn!(
                "no route from {net} into the tunnel: {error}; hosts there reach what the server pushes \
                 routes to, and no more"
            ),
        }
    }
    Handed { device: device.to_owned(), net, address, way_out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::Link;
    use crate::sys::testing::alone;
    use crate::sys::tun::TunDevice;

    #[test]
    #[ignore = "needs root: tests/run interop runs it"]
    fn the_interface_has_the_prefix_for_as_long_as_it_is_ours() {
        alone();
        let lan = TunDevice::open(Some("lan0"), false).unwrap();
        let mut netlink = Netlink::open().unwrap();
        let tun = TunDevice::open(Some("tun0"), false).unwrap();
        for device in [&lan, &tun] {
            netlink.set_link(device.index(), Link { mtu: 1500, up: true }).unwrap();
        }
        let mut delegated = Delegated::default();
        let settings = |net: Option<&str>| TunnelSettings {
            delegated: net.map(|net| net.parse().unwrap()),
            delegated_dev: Some("lan0".to_owned()),
            ..TunnelSettings::default()
        };
        // The addresses there, and those of them that new connections use.
        let own = |netlink: &mut Netlink| -> [Vec<String>; 2] {
            let all = netlink.assigned().unwrap().into_iter();
            let here = all.filter(|address| address.interface == lan.index());
            let mut here: Vec<_> =
                here.filter(|one| one.net.to_string().starts_with("fd")).collect();
            here.sort_by_key(|address| address.net);
            let preferred = here.iter().filter(|address| address.preferred > 0);
            [here.iter().collect(), preferred.collect::<Vec<_>>()]
                .map(|list| list.iter().map(|address| address.net.to_string()).collect())
        };
        let (first, second) = ("fd00:d:0:10::1/64", "fd00:d:0:20::1/64");
        for (net, all, preferred) in [
            ("fd00:d:0:10::/60", &[first][..], first),
            ("fd00:d:0:10::/60", &[first], first),
            ("fd00:d:0:20::/60", &[first, second], second),
            ("fd00:d:0:10::/60", &[first, second], first),
        ] {
            delegated.apply(&mut netlink, tun.index(), &settings(Some(net)));
            assert_eq!(own(&mut netlink), [all.to_vec(), vec![preferred]]);
            for net in all {
                let neighbour: Ipv6Addr = net.replace("1/64", "77").parse().unwrap();
                assert_eq!(netlink.route_to(neighbour.into()).unwrap().interface, lan.index());
                let beside: Ipv6Addr = net.replace("0::1/64", "f::1").parse().unwrap();
                let error = netlink.route_to(beside.into()).unwrap_err();
                let unreachable = [Some(libc::EHOSTUNREACH), Some(libc::ENETUNREACH)];
                assert!(unreachable.contains(&error.raw_os_error()), "{error}");
            }
        }
        // The process was killed: the next one has the address, and takes it back.
        delegated.revert(&mut netlink);
        delegated.apply(&mut netlink, tun.index(), &settings(Some("fd00:d:0:20::/60")));
        let mut delegated = Delegated::default();
        delegated.apply(&mut netlink, tun.index(), &settings(Some("fd00:d:0:20::/60")));
        delegated.apply(&mut netlink, tun.index(), &settings(None));
        assert_eq!(own(&mut netlink).concat(), [""; 0]);
        let nowhere =
            TunnelSettings { delegated_dev: Some("none".into()), ..settings(Some("fd00:d::/60")) };
        delegated.apply(&mut netlink, tun.index(), &nowhere);
        delegated.revert(&mut netlink);
        let routes = netlink.main_routes(true).unwrap();
        assert!(
            routes.iter().all(|route| !route.destination.to_string().starts_with("fd00:d")),
            "{routes:?}"
        );
    }
}
