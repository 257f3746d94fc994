//! Interface addresses, MTU, link state and routes over rtnetlink, without external programs.
//!
//! The messages are encoded by `netlink-packet-core` and `-route`; this module owns the socket,
//! checks every acknowledgement, and picks out of the answers the few attributes it needs (whole
//! parsers would link code for every kind of tunnel and label there is). What to configure, and
//! taking it back, is [`tunnel`](super::tunnel)'s business.

mod answer;
mod delegated;
mod exported;
mod interface;
mod own;

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use ipnet::{IpNet, Ipv6Net};
use netlink_packet_core::{
    DefaultNla, Emitable, ErrorBuffer, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL,
    NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol, CacheInfo,
};
use netlink_packet_route::link::{LinkFlags, LinkHeader};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use self::answer::{read_address, read_assigned, read_route, read_table_route};

pub use self::answer::Listed;
pub use self::exported::Exported;
pub use self::interface::{Link, interface_index, interface_name};

use super::{check, check_len};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// What the kernel notes as the origin of our routes and addresses (`proto 66` in what `ip` shows):
/// they are known again after a process that could not take them back. No other program is known to
/// use the number. Kernels before 5.18 note it with routes only.
const OURS: u8 = 66;

/// One answer datagram; the kernel fills at most 32 KiB of a larger buffer per dump step.
const ANSWER_BUFFER: usize = 32 * 1024;

/// A route to be added or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub destination: IpNet,
    /// The next router, or `None` for what is on the link.
    pub gateway: Option<IpAddr>,
    /// Interface index; 0 leaves it to the kernel, which knows where the next router is.
    pub interface: u32,
    /// Metric; 0 leaves it to the kernel.
    pub metric: u32,
}

/// An address of an interface, with the other end of a point-to-point link.
pub type Address = (IpNet, Option<IpAddr>);

/// An IPv6 address on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    /// Whose it is.
    pub interface: u32,
    /// The address with the length of its prefix.
    pub net: Ipv6Net,
    /// How long new connections may use it, in seconds.
    pub preferred: u32,
}

/// A request, in the few forms that sixgate sends.
#[derive(Debug)]
enum Request {
    SetLink(LinkHeader, Vec<DefaultNla>),
    #[cfg(test)]
    DelLink(LinkHeader),
    NewAddress(AddressMessage),
    DelAddress(AddressMessage),
    GetAddress(AddressMessage),
    NewRoute(RouteMessage),
    DelRoute(RouteMessage),
    GetRoute(RouteMessage),
    NewNeighbour(NeighbourMessage),
    DelNeighbour(NeighbourMessage),
}

impl NetlinkSerializable for Request {
    fn message_type(&self) -> u16 {
        match self {
            Self::SetLink(..) => libc::RTM_SETLINK,
            #[cfg(test)]
            Self::DelLink(_) => libc::RTM_DELLINK,
            Self::NewAddress(_) => libc::RTM_NEWADDR,
            Self::DelAddress(_) => libc::RTM_DELADDR,
            Self::GetAddress(_) => libc::RTM_GETADDR,
            Self::NewRoute(_) => libc::RTM_NEWROUTE,
            Self::DelRoute(_) => libc::RTM_DELROUTE,
            Self::GetRoute(_) => libc::RTM_GETROUTE,
            Self::NewNeighbour(_) => libc::RTM_NEWNEIGH,
            Self::DelNeighbour(_) => libc::RTM_DELNEIGH,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::SetLink(header, attributes) => {
                header.buffer_len() + attributes.as_slice().buffer_len()
            }
            #[cfg(test)]
            Self::DelLink(header) => header.buffer_len(),
            Self::NewAddress(m) | Self::DelAddress(m) | Self::GetAddress(m) => m.buffer_len(),
            Self::NewRoute(m) | Self::DelRoute(m) | Self::GetRoute(m) => m.buffer_len(),
            Self::NewNeighbour(m) | Self::DelNeighbour(m) => m.buffer_len(),
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        match self {
            Self::SetLink(header, attributes) => {
                header.emit(buffer);
                // The buffer is `buffer_len` long, so there is room for both.
                if let Some(rest) = buffer.get_mut(header.buffer_len()..) {
                    attributes.as_slice().emit(rest);
                }
            }
            #[cfg(test)]
            Self::DelLink(header) => header.emit(buffer),
            Self::NewAddress(m) | Self::DelAddress(m) | Self::GetAddress(m) => m.emit(buffer),
            Self::NewRoute(m) | Self::DelRoute(m) | Self::GetRoute(m) => m.emit(buffer),
            Self::NewNeighbour(m) | Self::DelNeighbour(m) => m.emit(buffer),
        }
    }
}

/// A connection to the kernel's routing subsystem.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens the socket; needs no privilege until something is to be changed.
    pub fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers are passed.
        let raw = check(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) })?;
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // The kernel answers at once; the limit keeps a lost answer from stopping the process.
        let limit = libc::timeval { tv_sec: 5, tv_usec: 0 };
        // SAFETY: `limit` is a timeval of the length given.
        check(unsafe {
            libc::setsockopt(
                raw,
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const limit).cast(),
                size_of::<libc::timeval>() as libc::socklen_t,
            )
        })?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Sets the MTU in bytes and brings the interface up, or down. An MTU that is right already stays:
    /// there is nothing to change, and qemu-user garbles the attribute where byte orders differ.
    pub fn set_link(&mut self, interface: u32, link: Link) -> io::Result<()> {
        let flags = if link.up { LinkFlags::Up } else { LinkFlags::empty() };
        let change_mask = LinkFlags::Up;
        let header = LinkHeader { index: interface, flags, change_mask, ..LinkHeader::default() };
        let new = self.link(interface).map_or(true, |now| now.mtu != link.mtu);
        let mtu = DefaultNla::new(libc::IFLA_MTU, u32::from(link.mtu).to_ne_bytes().to_vec());
        self.execute(Request::SetLink(header, new.then_some(mtu).into_iter().collect()), 0)
    }

    /// Limits what the host's own senders hand to the interface in one piece: bytes with all headers, and
    /// segments. `InvalidInput` from a kernel or device that cannot have it.
    pub fn limit_pieces(&mut self, interface: u32, bytes: u32, segments: u32) -> io::Result<()> {
        let header = LinkHeader { index: interface, ..LinkHeader::default() };
        let limits = [(libc::IFLA_GSO_MAX_SIZE, bytes), (libc::IFLA_GSO_MAX_SEGS, segments)];
        let attribute =
            |(kind, limit): (_, u32)| DefaultNla::new(kind, limit.to_ne_bytes().to_vec());
        self.execute(Request::SetLink(header, limits.map(attribute).into()), 0)
    }

    /// How the interface is now.
    pub fn link(&self, interface: u32) -> io::Result<Link> {
        interface::link(self.fd.as_raw_fd(), interface)
    }

    /// Deletes an interface under the hands of its user.
    #[cfg(test)]
    pub fn remove_link(&mut self, interface: u32) -> io::Result<()> {
        let header = LinkHeader { index: interface, ..LinkHeader::default() };
        self.execute(Request::DelLink(header), 0)
    }

    /// Gives the interface an address; `peer` is the other end of a point-to-point link.
    pub fn add_address(
        &mut self,
        interface: u32,
        net: IpNet,
        peer: Option<IpAddr>,
    ) -> io::Result<()> {
        let message = Request::NewAddress(address_message(interface, net, peer));
        self.execute(message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Gives an IPv6 address another future: in use (`u32::MAX`), or deprecated and gone after so many
    /// seconds.
    pub fn limit_address(&mut self, interface: u32, net: IpNet, valid: u32) -> io::Result<()> {
        let mut message = address_message(interface, net, None);
        let mut times = CacheInfo::default();
        times.ifa_valid = valid;
        times.ifa_preferred = if valid == u32::MAX { u32::MAX } else { 0 };
        message.attributes.push(AddressAttribute::CacheInfo(times));
        let request = || Request::NewAddress(message.clone());
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.execute(request(), flags)?;
        // Of an address that had no limit yet, the kernel (6.18) ends the route to its network at once;
        // with the second request it is back, until the time given.
        if valid == u32::MAX { Ok(()) } else { self.execute(request(), flags) }
    }

    /// Takes an address from the interface.
    pub fn remove_address(
        &mut self,
        interface: u32,
        net: IpNet,
        peer: Option<IpAddr>,
    ) -> io::Result<()> {
        self.execute(Request::DelAddress(address_message(interface, net, peer)), 0)
    }

    /// Adds a route; `AlreadyExists` when there is one with the same destination and metric, unless it
    /// is the same and ours, left by a process that was killed. Only a default route goes in front of
    /// another one like it, which is as it was when ours is gone.
    pub fn add_route(&mut self, route: &Route) -> io::Result<()> {
        let exclusive = if route.destination.prefix_len() == 0 { 0 } else { NLM_F_EXCL };
        let result =
            self.execute(Request::NewRoute(route_message(route)), NLM_F_CREATE | exclusive);
        let exists = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
        if result.as_ref().is_err_and(exists) && self.has_own(route) {
            return Ok(());
        }
        result
    }

    /// Removes a route.
    pub fn remove_route(&mut self, route: &Route) -> io::Result<()> {
        self.execute(Request::DelRoute(route_message(route)), 0)
    }

    /// How the kernel would reach `destination` now, as a host route of its own.
    pub fn route_to(&mut self, destination: IpAddr) -> io::Result<Route> {
        let host = IpNet::from(destination);
        let query = route_query(host);
        let mut found = None;
        self.exchange(Request::GetRoute(query), 0, |kind, payload| {
            if kind == libc::RTM_NEWROUTE {
                found = read_route(payload, host);
            }
        })?;
        found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENETUNREACH))
    }

    /// The unicast routes of the main table that work at the moment and have one next hop.
    pub fn main_routes(&mut self, v6: bool) -> io::Result<Vec<Route>> {
        let listed = self.table(v6)?.into_iter();
        Ok(listed.filter(|listed| listed.usable).map(|listed| listed.route).collect())
    }

    fn table(&mut self, v6: bool) -> io::Result<Vec<Listed>> {
        let mut query = RouteMessage::default();
        query.header.address_family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let mut routes = Vec::new();
        self.exchange(Request::GetRoute(query), NLM_F_DUMP, |kind, payload| {
            if kind == libc::RTM_NEWROUTE {
                routes.extend(read_table_route(payload, v6));
            }
        })?;
        Ok(routes)
    }

    /// All interface addresses with the prefix length of their network, and whose they are.
    pub fn local_addresses(&mut self) -> io::Result<Vec<(u32, IpNet)>> {
        let mut addresses = Vec::new();
        self.exchange(
            Request::GetAddress(AddressMessage::default()),
            NLM_F_DUMP,
            |kind, payload| {
                if kind == libc::RTM_NEWADDR {
                    addresses.extend(read_address(payload));
                }
            },
        )?;
        Ok(addresses)
    }

    /// All IPv6 addresses of lasting worth, with the time that is left to them.
    pub fn assigned(&mut self) -> io::Result<Vec<Assigned>> {
        let mut query = AddressMessage::default();
        query.header.family = AddressFamily::Inet6;
        let mut addresses = Vec::new();
        self.exchange(Request::GetAddress(query), NLM_F_DUMP, |kind, payload| {
            if kind == libc::RTM_NEWADDR {
                addresses.extend(read_assigned(payload));
            }
        })?;
        Ok(addresses)
    }

    /// Has the kernel answer the neighbours on an interface for this address (RFC 4861, 7.2.8).
    pub fn add_proxy(&mut self, interface: u32, address: Ipv6Addr) -> io::Result<()> {
        let message = Request::NewNeighbour(proxy_message(interface, address));
        self.execute(message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Ends that.
    pub fn remove_proxy(&mut self, interface: u32, address: Ipv6Addr) -> io::Result<()> {
        self.execute(Request::DelNeighbour(proxy_message(interface, address)), 0)
    }

    /// Sends a request that has no answer but the acknowledgement.
    fn execute(&mut self, request: Request, flags: u16) -> io::Result<()> {
        self.exchange(request, flags | NLM_F_ACK, |_, _| {})
    }

    /// Sends a request and hands every answer to `each` until the kernel says that it is done.
    fn exchange(
        &mut self,
        request: Request,
        flags: u16,
        mut each: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let single = flags & (NLM_F_DUMP | NLM_F_ACK) == 0;
        let mut header = NetlinkHeader::default();
        header.flags = flags | NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        // SAFETY: `bytes` is readable for its whole length.
        check_len(unsafe {
            libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0)
        })?;
        let mut buffer = vec![0; ANSWER_BUFFER];
        loop {
            let len = self.receive(&mut buffer)?;
            if read_answers(
                buffer.get(..len).unwrap_or_default(),
                self.sequence,
                single,
                &mut each,
            )? {
                return Ok(());
            }
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // SAFETY: `buffer` is writable for its whole length.
            let result = check_len(unsafe {
                libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0)
            });
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// Goes through one datagram of answers; true when the exchange is complete.
fn read_answers(
    mut bytes: &[u8],
    sequence: u32,
    single: bool,
    each: &mut impl FnMut(u16, &[u8]),
) -> io::Result<bool> {
    while let Ok(message) = NetlinkBuffer::new_checked(bytes) {
        let (kind, payload) = (message.message_type(), message.payload());
        if message.sequence_number() == sequence {
            match kind {
                NLMSG_DONE => return Ok(true),
                NLMSG_ERROR => {
                    let error = ErrorBuffer::new_checked(&payload)
                        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                    return match error.code() {
                        Some(code) => Err(io::Error::from_raw_os_error(code.get().wrapping_neg())),
                        None => Ok(true),
                    };
                }
                kind => each(kind, payload),
            }
            if single {
                return Ok(true);
            }
        }
        // Messages are aligned to four bytes; the last one's padding may be missing.
        let step = (message.length() as usize).next_multiple_of(4);
        bytes = bytes.get(step..).unwrap_or_default();
    }
    Ok(false)
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn address_message(interface: u32, net: IpNet, peer: Option<IpAddr>) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(net.addr());
    message.header.prefix_len = net.prefix_len();
    message.header.index = interface;
    if net.addr().is_ipv6() {
        // Nobody else is on the link: no need to ask, and the address works at once.
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.attributes.push(AddressAttribute::Local(net.addr()));
    message.attributes.push(AddressAttribute::Address(peer.unwrap_or(net.addr())));
    message.attributes.push(AddressAttribute::Protocol(AddressProtocol::from(OURS)));
    message
}

fn proxy_message(interface: u32, address: Ipv6Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.ifindex = interface;
    message.header.flags = NeighbourFlags::Proxy;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = route_query(route.destination.trunc());
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(OURS);
    message.header.kind = RouteType::Unicast;
    // IPv6 knows no scopes and ignores it.
    message.header.scope = match route.gateway {
        Some(_) => RouteScope::Universe,
        None => RouteScope::Link,
    };
    if route.interface != 0 {
        message.attributes.push(RouteAttribute::Oif(route.interface));
    }
    message.attributes.extend(route.gateway.map(|a| RouteAttribute::Gateway(a.into())));
    if route.metric != 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}

fn route_query(destination: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination.addr());
    message.header.destination_prefix_length = destination.prefix_len();
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(destination.addr())));
    message
}

#[cfg(test)]
mod tests;
