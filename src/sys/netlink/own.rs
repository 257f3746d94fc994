//! What is ours in the kernel's tables, by the mark that it has: what this process has set, and what one
//! that was killed has left.

use std::io;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::address::AddressMessage;

use super::answer::read_own_address;
use super::{Address, Listed, Netlink, OURS, Request, Route};

impl Netlink {
    /// The routes there that have our mark, whether they work or not.
    pub fn own_routes(&mut self, v6: bool) -> io::Result<Vec<Listed>> {
        let mut listed = self.table(v6)?;
        listed.retain(|listed| listed.protocol == OURS);
        Ok(listed)
    }

    /// The addresses of an interface that have our mark.
    pub fn own_addresses(&mut self, interface: u32) -> io::Result<Vec<Address>> {
        let mut addresses = Vec::new();
        let query = Request::GetAddress(AddressMessage::default());
        self.exchange(query, NLM_F_DUMP, |kind, payload| {
            if kind == libc::RTM_NEWADDR {
                addresses.extend(read_own_address(payload, interface, OURS));
            }
        })?;
        Ok(addresses)
    }

    /// Whether this very route is there.
    pub(super) fn has_own(&mut self, route: &Route) -> bool {
        let same = |own: &Route| {
            (own.destination, own.gateway) == (route.destination.trunc(), route.gateway)
                && (route.interface == 0 || own.interface == route.interface)
        };
        let own = self.own_routes(route.destination.addr().is_ipv6()).unwrap_or_default();
        own.iter().any(|listed| same(&listed.route))
    }
}
