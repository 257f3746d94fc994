//! Routes that are written for others to read: with a protocol number of our own, by which a routing
//! daemon knows them, and by which they are found again after a crash.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteMessageBuffer, RouteProtocol,
};

use super::answer::read_ip;
use super::{Netlink, Request, Route, route_message};
use crate::config::Export;

/// Such a route on one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Where it leads.
    pub net: IpNet,
    /// Where it stands, and whose it is.
    pub at: Export,
}

impl Netlink {
    /// Adds one; `AlreadyExists` when there is one with the same destination and metric.
    pub fn export(&mut self, interface: u32, route: Exported) -> io::Result<()> {
        let message = Request::NewRoute(message(interface, route));
        self.execute(message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes one.
    pub fn withdraw(&mut self, interface: u32, route: Exported) -> io::Result<()> {
        self.execute(Request::DelRoute(message(interface, route)), 0)
    }

    /// All there are on an interface with this protocol number, in every table.
    pub fn exported(&mut self, interface: u32, protocol: u8) -> io::Result<Vec<Exported>> {
        let mut found = Vec::new();
        for v6 in [false, true] {
            let mut query = RouteMessage::default();
            query.header.address_family =
                if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
            self.exchange(Request::GetRoute(query), NLM_F_DUMP, |kind, payload| {
                if kind == libc::RTM_NEWROUTE {
                    let ours = |(oif, route): &(u32, Exported)| {
                        *oif == interface && route.at.protocol == protocol
                    };
                    found.extend(read(payload, v6).filter(ours).map(|(_, route)| route));
                }
            })?;
        }
        Ok(found)
    }
}

fn message(interface: u32, Exported { net, at }: Exported) -> RouteMessage {
    let route = Route { destination: net, gateway: None, interface, metric: at.metric };
    let mut message = route_message(&route);
    message.header.protocol = RouteProtocol::Other(at.protocol);
    // The field in the header has eight bits.
    message.header.table = u8::try_from(at.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.attributes.push(RouteAttribute::Table(at.table));
    message
}

/// One route of a dump, with the index of its interface.
fn read(payload: &[u8], v6: bool) -> Option<(u32, Exported)> {
    let message = RouteMessageBuffer::new_checked(payload).ok()?;
    let unspecified: IpAddr =
        if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let (mut destination, mut interface) = (unspecified, None);
    let (mut metric, mut table) = (0, u32::from(message.table()));
    for attribute in message.attributes().flatten() {
        let number = || attribute.value().first_chunk().map(|b| u32::from_ne_bytes(*b));
        match attribute.kind() {
            libc::RTA_DST => destination = read_ip(attribute.value())?,
            libc::RTA_OIF => interface = number(),
            libc::RTA_PRIORITY => metric = number()?,
            libc::RTA_TABLE => table = number()?,
            _ => {}
        }
    }
    let net = IpNet::new(destination, message.destination_prefix_length()).ok()?;
    let at = Export { metric, table, protocol: message.protocol() };
    Some((interface?, Exported { net, at }))
}
