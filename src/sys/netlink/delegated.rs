//! Routes for a prefix that was delegated to this host: what is in no network of ours is unreachable,
//! and hosts with an address of it reach the rest of the world through the tunnel alone.

use std::io;
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

use super::{Netlink, Request, Route, route_message};

impl Netlink {
    /// Packets for what is in `net` and nowhere more exactly are answered as unreachable.
    pub fn add_unreachable(&mut self, net: Ipv6Net) -> io::Result<()> {
        self.execute(Request::NewRoute(unreachable(net)), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Ends that.
    pub fn remove_unreachable(&mut self, net: Ipv6Net) -> io::Result<()> {
        self.execute(Request::DelRoute(unreachable(net)), 0)
    }

    /// Everything from `net` that has no better way goes to an interface; needs a kernel with
    /// IPV6_SUBTREES, as distributions and OpenWrt have it.
    pub fn add_way_out(&mut self, net: Ipv6Net, interface: u32) -> io::Result<()> {
        self.execute(Request::NewRoute(way_out(net, interface)), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Ends that.
    pub fn remove_way_out(&mut self, net: Ipv6Net, interface: u32) -> io::Result<()> {
        self.execute(Request::DelRoute(way_out(net, interface)), 0)
    }
}

fn unreachable(net: Ipv6Net) -> RouteMessage {
    let route = Route { destination: net.into(), gateway: None, interface: 0, metric: 0 };
    let mut message = route_message(&route);
    message.header.kind = RouteType::Unreachable;
    message
}

fn way_out(net: Ipv6Net, interface: u32) -> RouteMessage {
    let anywhere = Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0).into();
    let mut message =
        route_message(&Route { destination: anywhere, gateway: None, interface, metric: 0 });
    message.header.source_prefix_length = net.prefix_len();
    message.attributes.push(RouteAttribute::Source(RouteAddress::Inet6(net.network())));
    message
}
