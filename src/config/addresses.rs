//! Address plans as plain values: topologies, pools of addresses for clients, routes [9.1, 9.2, 9.11].
//!
//! Which directives lead to them is `build`'s business; who holds which address, the server's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Most clients a pool has room for [9.1].
const MAX_POOL: u32 = 65_536;
/// Host part of the first IPv6 lease in a prefix with room to spare, and in a narrow one [9.1].
const WIDE_START: u128 = 0x1000;
const NARROW_START: u128 = 2;
/// Prefixes of this length and longer are narrow.
const NARROW: u8 = 112;

/// `topology`: how the IPv4 addresses of server and clients belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Topology {
    /// One address per client, all in one network.
    #[default]
    Subnet,
    /// A block of four addresses per client, whose middle two are the ends of a link.
    Net30,
    /// One address per client, with the server's own as the other end of a link.
    P2p,
}

impl Topology {
    /// As written in a configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subnet => "subnet",
            Self::Net30 => "net30",
            Self::P2p => "p2p",
        }
    }
}

/// `server-ipv6 auto`: which interface has the prefix that clients' addresses are taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Follow {
    /// Our own device, whose prefix somebody else assigns (netifd's `ip6assign`).
    Tunnel,
    /// `ndp-proxy`: this one, whose neighbours we answer for our clients.
    Neighbours(String),
}

/// The variable in which a server names the stable one of a client's IPv6 addresses. Scripts of
/// OpenVPN see it as `OPENVPN_ifconfig_ipv6_stable`; sixgate sets it by itself.
pub const STABLE_ADDRESS: &str = "ifconfig_ipv6_stable";

/// The variable in which a server names the prefix that is delegated to a client's network. Scripts
/// of OpenVPN see it as `OPENVPN_delegated_ipv6`.
pub const DELEGATED_PREFIX: &str = "delegated_ipv6";

/// `ifconfig-pool-persist`: where the addresses of clients outlive the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolPersist {
    /// The file.
    pub file: PathBuf,
    /// Written at most this often; `None`: never, and its addresses are for their names only.
    pub every: Option<Duration>,
}

/// `delegate-ipv6`: prefixes for networks behind clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegate {
    /// What is cut up; with `follows`, the private prefix that stays.
    pub pool: Ipv6Net,
    /// `auto`: the parts are told as those of the prefix that the line has at the moment.
    pub follows: bool,
    /// The length of the parts.
    pub bits: u8,
    /// Where it is remembered who has which.
    pub file: Option<PathBuf>,
}

/// `route-export`: kernel routes to what clients have, for others to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Export {
    /// Better than what routing daemons write themselves, so that a client that is here is found here.
    pub metric: u32,
    /// The kernel's routing table.
    pub table: u32,
    /// Whose routes they are, for the kernel and those who read them (RTPROT_…).
    pub protocol: u8,
}

impl Export {
    /// Where nothing else is said; the number of the protocol is nobody else's, neither in iproute2's list nor in FRR.
    pub const USUAL: Self = Self { metric: 10, table: 254, protocol: 67 };
}

/// IPv4 addresses for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolV4 {
    /// The first address; in `net30` that of the first block of four.
    pub first: Ipv4Addr,
    /// Clients it has room for.
    pub count: u32,
    /// `net30`: each client takes a block of four and uses the third address of it.
    pub blocks: bool,
    /// The mask that clients are told instead of ours.
    pub netmask: Option<Ipv4Addr>,
}

impl PoolV4 {
    /// What `server` stands for: everything behind the server's own address.
    pub fn of_network(net: Ipv4Net, topology: Topology) -> Self {
        let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
        let (start, end) = match topology {
            Topology::Subnet => (first + 2, last - 1),
            Topology::Net30 | Topology::P2p if net.prefix_len() == 29 => (first + 4, last),
            Topology::Net30 | Topology::P2p => (first + 4, last - 4),
        };
        Self::range(start.into(), end.into(), topology)
    }

    /// `ifconfig-pool`: both ends included; none at all when they are the wrong way round.
    pub fn range(start: Ipv4Addr, end: Ipv4Addr, topology: Topology) -> Self {
        let (start, end) = (start.to_bits(), end.to_bits());
        let blocks = topology == Topology::Net30;
        let first = if blocks { start & !3 } else { start };
        let room = u64::from(end).checked_sub(first.into()).map_or(0, |last| last + 1);
        let clients = if blocks { room.div_ceil(4) } else { room };
        let count = u32::try_from(clients).unwrap_or(MAX_POOL).min(MAX_POOL);
        Self { first: first.into(), count, blocks, netmask: None }
    }

    /// A client's address, and the one that names it in lists of leases (in `net30` its block's).
    pub fn address(&self, index: u32) -> (Ipv4Addr, Ipv4Addr) {
        let step = if self.blocks { 4 } else { 1 };
        let base = self.first.to_bits().saturating_add(index.saturating_mul(step));
        let own = if self.blocks { base.saturating_add(2) } else { base };
        (own.into(), base.into())
    }

    /// The client that an address belongs to.
    pub fn index(&self, address: Ipv4Addr) -> Option<u32> {
        let offset = address.to_bits().checked_sub(self.first.to_bits())?;
        let index = if self.blocks { offset / 4 } else { offset };
        (index < self.count).then_some(index)
    }

    /// The first and the last address that belong to clients.
    pub fn bounds(&self) -> (Ipv4Addr, Ipv4Addr) {
        let last = self.address(self.count.saturating_sub(1));
        (self.address(0).0, last.0)
    }
}

/// IPv6 addresses for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolV6 {
    /// The first address; nobody gets one below it.
    pub first: Ipv6Addr,
    /// Clients it has room for.
    pub count: u32,
}

impl PoolV6 {
    /// What `server-ipv6` stands for.
    pub fn of_prefix(net: Ipv6Net) -> Self {
        let start = if net.prefix_len() < NARROW { WIDE_START } else { NARROW_START };
        Self::between(net.network().to_bits() + start, net)
    }

    /// `ifconfig-ipv6-pool`: from the address itself to the end of its prefix. The address of the
    /// prefix as a whole belongs to routers (RFC 4291 section 2.6.1), so that one is left out.
    pub fn from_start(start: Ipv6Net) -> Self {
        let bare = start.addr() == start.network() && start.prefix_len() < 127;
        Self::between(start.addr().to_bits() + u128::from(bare), start)
    }

    fn between(first: u128, net: Ipv6Net) -> Self {
        let last = net.broadcast().to_bits();
        let room = last.checked_sub(first).map_or(0, |last| last.saturating_add(1));
        let count = u32::try_from(room).unwrap_or(MAX_POOL).min(MAX_POOL);
        Self { first: first.into(), count }
    }

    /// A client's address.
    pub fn address(&self, index: u32) -> Ipv6Addr {
        self.first.to_bits().saturating_add(index.into()).into()
    }

    /// The client that an address belongs to.
    pub fn index(&self, address: Ipv6Addr) -> Option<u32> {
        let index = address.to_bits().checked_sub(self.first.to_bits())?;
        u32::try_from(index).ok().filter(|index| *index < self.count)
    }

    /// The first and the last address that belong to clients.
    pub fn bounds(&self) -> (Ipv6Addr, Ipv6Addr) {
        (self.first, self.address(self.count.saturating_sub(1)))
    }
}

/// A route to be set in the kernel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelRoute {
    /// Where it leads.
    pub destination: IpNet,
    /// Which way.
    pub via: Via,
    /// Metric; 0 is the kernel's default.
    pub metric: u32,
}

impl TunnelRoute {
    /// A route into the tunnel with the kernel's default metric.
    pub const fn tunnel(destination: IpNet) -> Self {
        Self { destination, via: Via::Tunnel, metric: 0 }
    }
}

/// The way a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Into the TUN device; there is nobody but the peer to be a next hop.
    Tunnel,
    /// By the router that the destination is reached through without the tunnel.
    Outside,
    /// By this router.
    Router(IpAddr),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(net: &str, topology: Topology) -> (String, u32, String) {
        let pool = PoolV4::of_network(net.parse().unwrap(), topology);
        let (first, last) = pool.bounds();
        (first.to_string(), pool.count, last.to_string())
    }

    fn expected(first: &str, count: u32, last: &str) -> (String, u32, String) {
        (first.to_owned(), count, last.to_owned())
    }

    #[test]
    fn pools_are_those_of_stock_servers() {
        use Topology::{Net30, P2p, Subnet};
        assert_eq!(v4("10.8.0.0/24", Subnet), expected("10.8.0.2", 253, "10.8.0.254"));
        assert_eq!(v4("10.8.0.0/29", Subnet), expected("10.8.0.2", 5, "10.8.0.6"));
        assert_eq!(v4("10.8.0.0/24", P2p), expected("10.8.0.4", 248, "10.8.0.251"));
        assert_eq!(v4("10.8.0.0/24", Net30), expected("10.8.0.6", 62, "10.8.0.250"));
        assert_eq!(v4("10.8.0.0/29", Net30), expected("10.8.0.6", 1, "10.8.0.6"));
        let v6 = |net: &str| PoolV6::of_prefix(net.parse().unwrap());
        let start = |net: &str| PoolV6::from_start(net.parse().unwrap());
        let pool = |first: &str, count| PoolV6 { first: first.parse().unwrap(), count };
        assert_eq!(v6("fd00::/48"), pool("fd00::1000", 65_536));
        assert_eq!(v6("fd00::/111"), pool("fd00::1000", 65_536));
        assert_eq!(v6("fd00::/112"), pool("fd00::2", 65_534));
        assert_eq!(v6("fd00::/124"), pool("fd00::2", 14));
        assert_eq!(start("fd00::8000/112"), pool("fd00::8000", 0x8000));
        assert_eq!(start("fd00::/124"), pool("fd00::1", 15));
        assert_eq!(start("fd00::5000/64"), pool("fd00::5000", 65_536));
        assert_eq!(start("fd00::ffff:ffff:ffff:fff0/64").count, 16, "not beyond the prefix");
    }

    #[test]
    fn ranges_and_indexes_go_both_ways() {
        let range = |a: &str, b: &str, topology| {
            PoolV4::range(a.parse().unwrap(), b.parse().unwrap(), topology)
        };
        let all = range("0.0.0.0", "255.255.255.255", Topology::Subnet);
        assert_eq!(all.count, 65_536);
        assert_eq!(range("10.0.0.9", "10.0.0.8", Topology::Subnet).count, 0);
        let blocks = range("10.0.0.5", "10.0.0.13", Topology::Net30);
        assert_eq!((blocks.first, blocks.count), (Ipv4Addr::new(10, 0, 0, 4), 3));
        assert_eq!(blocks.address(2), (Ipv4Addr::new(10, 0, 0, 14), Ipv4Addr::new(10, 0, 0, 12)));
        for (address, index) in [(3, None), (4, Some(0)), (14, Some(2)), (15, Some(2)), (16, None)]
        {
            assert_eq!(blocks.index(Ipv4Addr::new(10, 0, 0, address)), index);
        }
    }
}
