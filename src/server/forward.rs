//! IP packets on their way to a client, and what their sender hears when they cannot go there
//! [6.8, 9.6].

use std::net::IpAddr;

use crate::buf::PacketMut;
use crate::engine::{DropReason, Endpoint, PeerId, Verdict};
use crate::server::Server;
use crate::server::peer::{Client, Stage};
use crate::time::Now;
use crate::wire::icmp::{self, Reason};
use crate::wire::ip::{IpPacket, Version, is_link_local};
use crate::wire::mss::{self, MssLimits};

/// Where a packet came from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// The TUN device.
    Host,
    /// A client.
    Peer(PeerId),
}

impl Server {
    /// Source and destination. Noise of neighbour discovery, which nobody could answer through a
    /// tunnel, ends here.
    pub(super) fn addresses(&self, packet: &PacketMut<'_>) -> Result<(IpAddr, IpAddr), DropReason> {
        let view = IpPacket::parse(packet.as_slice()).map_err(|_| DropReason::NotIp)?;
        let (source, destination) = (view.source(), view.destination());
        let only_on_link = |address| is_link_local(address) && address.is_ipv6();
        let nobody = source.is_ipv6() && source.is_unspecified();
        if only_on_link(source) || only_on_link(destination) || nobody {
            return Err(DropReason::LinkLocal);
        }
        Ok((source, destination))
    }

    /// Multicast and broadcast.
    pub(super) fn is_for_all(&self, destination: IpAddr) -> bool {
        match destination {
            IpAddr::V4(v4) => {
                // The ends of a link have no broadcast address.
                let network = self.role.v4.filter(|_| self.role.v4_peer.is_none());
                let all_here = network.is_some_and(|net| net.broadcast() == v4);
                v4.is_multicast() || v4.is_broadcast() || all_here
            }
            IpAddr::V6(v6) => v6.is_multicast(),
        }
    }

    /// Seals a packet for the client that owns its destination.
    pub(super) fn deliver(
        &mut self,
        now: Now,
        origin: Origin,
        to: PeerId,
        packet: &mut PacketMut<'_>,
    ) -> Result<Verdict, DropReason> {
        let entry = self.peers.get_mut(to).ok_or(DropReason::NoRoute)?;
        let endpoint = entry.endpoint();
        let Stage::Connected(client) = &mut entry.peer.stage else {
            return Err(DropReason::NotReady);
        };
        if is_recursive(packet.as_slice(), endpoint) {
            return Err(DropReason::Recursive);
        }
        let len = packet.len();
        if len > usize::from(client.mtu) {
            let reason = Reason::TooBig(client.mtu);
            return self.reject(now, origin, packet, reason, DropReason::TooBig);
        }
        client.clamp(packet);
        entry.peer.session.seal(now, packet)?;
        client.bytes_out += len as u64;
        client.lifetime.count(now.mono, len as u64);
        self.passed(now, to);
        Ok(Verdict::ToUdp(endpoint))
    }

    /// Nobody holds the destination.
    pub(super) fn unreachable(
        &mut self,
        now: Now,
        origin: Origin,
        packet: &mut PacketMut<'_>,
    ) -> Result<Verdict, DropReason> {
        self.reject(now, origin, packet, Reason::AddressUnreachable, DropReason::NoRoute)
    }

    /// Turns the packet into an ICMP error for its sender, or drops it when the rate is used up or
    /// the packet must not be answered. It counts as dropped either way.
    fn reject(
        &mut self,
        now: Now,
        origin: Origin,
        packet: &mut PacketMut<'_>,
        reason: Reason,
        dropped: DropReason,
    ) -> Result<Verdict, DropReason> {
        let from = match origin {
            // A host takes its own address as a source for a forgery (Linux: martian source), so
            // the destination speaks for itself; it is routed here, so the reverse path holds.
            Origin::Host => IpPacket::parse(packet.as_slice()).ok().map(|view| view.destination()),
            Origin::Peer(_) if is_v6(packet) => self.role.v6.map(|net| net.addr().into()),
            Origin::Peer(_) => self.role.v4.map(|net| net.addr().into()),
        };
        let from = from.ok_or(dropped)?;
        if !self.icmp.allow(now.mono) {
            return Err(dropped);
        }
        icmp::answer(packet, reason, from).map_err(|_| dropped)?;
        self.drops.count(dropped);
        match origin {
            Origin::Host => Ok(Verdict::ToTun),
            Origin::Peer(id) => {
                let entry = self.peers.get_mut(id).ok_or(DropReason::NotReady)?;
                entry.peer.session.seal(now, packet)?;
                Ok(Verdict::ToUdp(entry.endpoint()))
            }
        }
    }

    /// Works out the limits for TCP segments: they depend on the transport's IP version, which
    /// changes when a client moves.
    pub(super) fn fit(&mut self, id: PeerId) {
        let mssfix = self.config.mssfix;
        let Some(entry) = self.peers.get_mut(id) else { return };
        let outer = if entry.endpoint().peer.is_ipv6() { Version::V6 } else { Version::V4 };
        if let Stage::Connected(client) = &mut entry.peer.stage {
            let limits = |(mssfix, overhead)| MssLimits::new(mssfix, overhead, outer);
            client.mss = mssfix.zip(entry.peer.session.overhead()).map(limits);
        }
    }
}

impl Client {
    /// Lowers the MSS of a TCP connection request [6.8].
    pub(super) fn clamp(&self, packet: &mut PacketMut<'_>) {
        if let Some(limits) = self.mss {
            mss::clamp(packet.as_mut_slice(), limits);
        }
    }
}

fn is_v6(packet: &PacketMut<'_>) -> bool {
    packet.as_slice().first().is_some_and(|first| first >> 4 == 6)
}

/// Whether this is one of our own datagrams to that client: a route into the tunnel covers the
/// client's real address, and sealing it again would never end.
fn is_recursive(packet: &[u8], to: Endpoint) -> bool {
    IpPacket::parse(packet).is_ok_and(|view| view.udp_destination() == Some(to.peer))
}
