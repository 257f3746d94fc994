//! A prefix that the server has delegated to us: an address on the interface towards the network that it
//! is for (`delegate-ipv6-dev`), and taking it back.
//!
//! The interface gets the first address of the first /64. Who announces the prefix there (radvd,
//! odhcpd, …) sees it on the interface like any other. What is in no network of ours must not go back
//! into the tunnel (RFC 7084, WPD-5): an unreachable route holds the whole prefix.

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};

use super::netlink::{Netlink, interface_index};
use crate::engine::TunnelSettings;

/// What was set where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Handed {
    device: String,
    net: Ipv6Net,
    /// `None` where there is no such interface.
    address: Option<(u32, IpNet)>,
}

/// The delegated prefix of the moment.
#[derive(Debug, Default)]
pub struct Delegated(Option<Handed>);

impl Delegated {
    /// Puts what these settings say in place of what was before.
    pub fn apply(&mut self, netlink: &mut Netlink, settings: &TunnelSettings) {
        let wanted = settings.delegated.zip(settings.delegated_dev.as_ref());
        let same = |handed: &Handed| wanted == Some((handed.net, &handed.device));
        if self.0.as_ref().is_some_and(same) {
            return;
        }
        self.revert(netlink);
        let Some((net, device)) = wanted else { return };
        self.0 = Some(hand(netlink, net, device));
    }

    /// Takes everything back; what is gone already is no error.
    pub fn revert(&mut self, netlink: &mut Netlink) {
        let Some(Handed { device, net, address }) = self.0.take() else { return };
        if let Some((interface, address)) = address
            && let Err(error) = netlink.remove_address(interface, address, None)
        {
            log::debug!("{device}: taking back {address}: {error}");
        }
        if let Err(error) = netlink.remove_unreachable(net) {
            log::debug!("taking back the unreachable route for {net}: {error}");
        }
    }
}

fn hand(netlink: &mut Netlink, net: Ipv6Net, device: &str) -> Handed {
    let first = Ipv6Addr::from_bits(net.network().to_bits() | 1);
    let address = IpNet::V6(Ipv6Net::new_assert(first, 64));
    let result = interface_index(device).and_then(|interface| {
        match netlink.add_address(interface, address, None) {
            // Its owner has it there for good.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(None),
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
    Handed { device: device.to_owned(), net, address }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::alone;
    use crate::sys::tun::TunDevice;

    #[test]
    #[ignore = "needs root: tests/run interop runs it"]
    fn the_interface_has_the_prefix_for_as_long_as_it_is_ours() {
        alone();
        let lan = TunDevice::open(Some("lan0"), false).unwrap();
        let mut netlink = Netlink::open().unwrap();
        netlink.bring_up(lan.index(), 1500).unwrap();
        let mut delegated = Delegated::default();
        let settings = |net: Option<&str>| TunnelSettings {
            delegated: net.map(|net| net.parse().unwrap()),
            delegated_dev: Some("lan0".to_owned()),
            ..TunnelSettings::default()
        };
        let own = |netlink: &mut Netlink| -> Vec<String> {
            let all = netlink.assigned().unwrap().into_iter();
            let here = all.filter(|address| address.interface == lan.index());
            here.map(|address| address.net.to_string())
                .filter(|net| net.starts_with("fd"))
                .collect()
        };
        for net in ["fd00:d:0:10::/60", "fd00:d:0:10::/60", "fd00:d:0:20::/60"] {
            delegated.apply(&mut netlink, &settings(Some(net)));
            let address = net.replace("::/60", "::1/64");
            assert_eq!(own(&mut netlink), [address]);
            let beside: Ipv6Addr = net.replace("0::/60", "f::1").parse().unwrap();
            let error = netlink.route_to(beside.into()).unwrap_err();
            assert!(matches!(error.raw_os_error(), Some(libc::EHOSTUNREACH | libc::ENETUNREACH)));
        }
        delegated.apply(&mut netlink, &settings(None));
        assert!(own(&mut netlink).is_empty());
        let nowhere =
            TunnelSettings { delegated_dev: Some("none".into()), ..settings(Some("fd00:d::/60")) };
        delegated.apply(&mut netlink, &nowhere);
        delegated.revert(&mut netlink);
        let routes = netlink.main_routes(true).unwrap();
        assert!(
            routes.iter().all(|route| !route.destination.to_string().starts_with("fd00:d")),
            "{routes:?}"
        );
    }
}
