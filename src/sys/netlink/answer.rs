//! What is taken out of the kernel's answers: the few attributes that matter here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::address::AddressMessageBuffer;
use netlink_packet_route::route::{RouteHeader, RouteMessageBuffer};

use super::{Address, Assigned, Route};

/// What the kernel notes as the origin of an address (since 5.18).
const IFA_PROTO: u16 = 11;

/// A route of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// The route.
    pub route: Route,
    /// Whether its next hop works at the moment.
    pub usable: bool,
    /// Who set it.
    pub protocol: u8,
}

/// Flags of a next hop whose interface is down (RTNH_F_DEAD, RTNH_F_LINKDOWN).
const UNUSABLE: u32 = 1 | 16;
/// Flags of an address that another host has, or that is only for a while (RFC 8981).
const NOT_OURS: u32 = libc::IFA_F_DADFAILED | libc::IFA_F_TEMPORARY;

/// An IPv6 address and its remaining time out of an RTM_NEWADDR.
pub(super) fn read_assigned(payload: &[u8]) -> Option<Assigned> {
    let message = AddressMessageBuffer::new_checked(payload).ok()?;
    let mut flags = u32::from(message.flags());
    let mut preferred = u32::MAX;
    for attribute in message.attributes().flatten() {
        let number = || attribute.value().first_chunk().map(|b| u32::from_ne_bytes(*b));
        match attribute.kind() {
            libc::IFA_FLAGS => flags = number()?,
            // ifa_cacheinfo begins with the preferred lifetime in seconds.
            libc::IFA_CACHEINFO => preferred = number()?,
            _ => {}
        }
    }
    if flags & NOT_OURS != 0 {
        return None;
    }
    if flags & libc::IFA_F_DEPRECATED != 0 {
        preferred = 0;
    }
    let (interface, IpNet::V6(net)) = read_address(payload)? else { return None };
    Some(Assigned { interface, net, preferred })
}

/// Interface index, address and prefix length of an RTM_NEWADDR.
pub(super) fn read_address(payload: &[u8]) -> Option<(u32, IpNet)> {
    let message = AddressMessageBuffer::new_checked(payload).ok()?;
    let (mut local, mut address) = (None, None);
    for attribute in message.attributes().flatten() {
        match attribute.kind() {
            libc::IFA_LOCAL => local = read_ip(attribute.value()),
            libc::IFA_ADDRESS => address = read_ip(attribute.value()),
            _ => {}
        }
    }
    // With a peer, IFA_ADDRESS is the peer's, whose network it is that the prefix describes.
    Some((message.index(), IpNet::new(address.or(local)?, message.prefix_len()).ok()?))
}

/// An address on this interface that this origin is noted for.
pub(super) fn read_own_address(payload: &[u8], interface: u32, origin: u8) -> Option<Address> {
    let message = AddressMessageBuffer::new_checked(payload).ok()?;
    let (mut local, mut address, mut ours) = (None, None, false);
    for attribute in message.attributes().flatten() {
        match attribute.kind() {
            libc::IFA_LOCAL => local = read_ip(attribute.value()),
            libc::IFA_ADDRESS => address = read_ip(attribute.value()),
            IFA_PROTO => ours = attribute.value() == [origin],
            _ => {}
        }
    }
    let own = IpNet::new(local.or(address)?, message.prefix_len()).ok()?;
    let peer = address.filter(|peer| *peer != own.addr());
    (ours && message.index() == interface).then_some((own, peer))
}

/// Next router and interface of an RTM_NEWROUTE that answers a query for one destination.
pub(super) fn read_route(payload: &[u8], destination: IpNet) -> Option<Route> {
    let message = RouteMessageBuffer::new_checked(payload).ok()?;
    let (mut gateway, mut interface) = (None, None);
    for attribute in message.attributes().flatten() {
        match attribute.kind() {
            libc::RTA_GATEWAY => gateway = read_ip(attribute.value()),
            libc::RTA_OIF => {
                interface = attribute.value().first_chunk().map(|b| u32::from_ne_bytes(*b));
            }
            _ => {}
        }
    }
    Some(Route { destination, gateway, interface: interface?, metric: 0 })
}

/// One unicast route of a dump of the main table.
pub(super) fn read_table_route(payload: &[u8], v6: bool) -> Option<Listed> {
    let message = RouteMessageBuffer::new_checked(payload).ok()?;
    if message.table() != RouteHeader::RT_TABLE_MAIN || message.kind() != libc::RTN_UNICAST {
        return None;
    }
    let unspecified: IpAddr =
        if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let (mut destination, mut metric) = (unspecified, 0);
    for attribute in message.attributes().flatten() {
        match attribute.kind() {
            libc::RTA_DST => destination = read_ip(attribute.value())?,
            libc::RTA_PRIORITY => {
                metric = attribute.value().first_chunk().map(|b| u32::from_ne_bytes(*b))?;
            }
            _ => {}
        }
    }
    let destination = IpNet::new(destination, message.destination_prefix_length()).ok()?;
    let route = Route { metric, ..read_route(payload, destination)? };
    let usable = message.flags() & UNUSABLE == 0;
    Some(Listed { route, usable, protocol: message.protocol() })
}

pub(super) fn read_ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|b| Ipv4Addr::from(*b).into()),
        16 => bytes.first_chunk::<16>().map(|b| Ipv6Addr::from(*b).into()),
        _ => None,
    }
}
