//! Datagrams from the network: which peer they belong to, and what they carry [1.1, 9.6, 9.8].

use std::net::SocketAddr;

use crate::buf::PacketMut;
use crate::engine::{DropReason, Endpoint, PeerId, Verdict};
use crate::limits::NO_PEER_ID;
use crate::server::Server;
use crate::server::forward::Origin;
use crate::server::peer::Stage;
use crate::session::data::Payload;
use crate::time::Now;
use crate::wire::data::DataHeader;
use crate::wire::opcode::Opcode;

impl Server {
    /// One datagram.
    pub(super) fn inbound(
        &mut self,
        now: Now,
        from: Endpoint,
        packet: &mut PacketMut<'_>,
    ) -> Result<Verdict, DropReason> {
        let first = packet.as_slice().first().ok_or(DropReason::Malformed)?;
        match Opcode::from_first_byte(*first).0 {
            Opcode::DataV1 | Opcode::DataV2 => self.data(now, from, packet),
            Opcode::SoftResetV1 | Opcode::ControlV1 | Opcode::AckV1 | Opcode::WkcV1 => {
                self.control(now, from, packet)
            }
            Opcode::HardResetClientV2 | Opcode::HardResetClientV3 => {
                self.control(now, from, packet)
            }
            // A server's reset is for clients; nobody should send the others.
            Opcode::HardResetServerV2 | Opcode::Unknown(_) => Err(DropReason::BadOpcode),
        }
    }

    fn data(
        &mut self,
        now: Now,
        from: Endpoint,
        packet: &mut PacketMut<'_>,
    ) -> Result<Verdict, DropReason> {
        let header = DataHeader::parse(packet.as_slice()).map_err(|_| DropReason::Malformed)?;
        let id = self.addressee(header, from).ok_or(DropReason::UnknownPeer)?;
        let entry = self.peers.get_mut(id).ok_or(DropReason::UnknownPeer)?;
        if entry.peer.client().is_none() {
            return Err(DropReason::NotReady);
        }
        // A client that moves is rare, and its number no secret: whoever uses it from elsewhere has
        // no more of our time than a stranger.
        if entry.endpoint().peer != from.peer && !self.gate.affords(now, packet.len()) {
            return Err(DropReason::RateLimited);
        }
        let payload = entry.peer.session.open(now, packet)?;
        // From here on the packet is genuine and new.
        self.passed(now, id);
        let entry = self.peers.get_mut(id).ok_or(DropReason::UnknownPeer)?;
        if entry.endpoint().peer == from.peer {
            entry.follow(from);
        } else {
            self.float(now, id, from)?;
        }
        match payload {
            Payload::Ip => self.upward(now, id, packet),
            Payload::Ping | Payload::OccOther | Payload::Empty => Ok(Verdict::Consumed),
            // The answer is on its way out.
            Payload::OccRequest(_) => {
                self.touch(id);
                Ok(Verdict::Consumed)
            }
            Payload::ExitNotify => {
                self.depart(now, id, "the client has left");
                self.peers.remove(id);
                Ok(Verdict::Consumed)
            }
            Payload::Compressed => Err(DropReason::Compressed),
            Payload::Unknown => Err(DropReason::NotIp),
        }
    }

    /// Data packets go by peer id, and only those without one by address [9.8].
    fn addressee(&self, header: DataHeader, from: Endpoint) -> Option<PeerId> {
        match header.peer {
            Some(id) if id != NO_PEER_ID => Some(PeerId(id)),
            Some(_) | None => self.connected_at(from.peer).next(),
        }
    }

    /// An authentic packet came from elsewhere: the client has moved [9.8]. Not to where another
    /// client is, lest somebody in the path moves one onto the other; a refusal takes no memory, as
    /// a client may bring one about with each of its packets.
    fn float(&mut self, now: Now, id: PeerId, from: Endpoint) -> Result<(), DropReason> {
        let Some(name) = self.name_of(id) else { return Ok(()) };
        if self.connected_at(from.peer).any(|other| self.name_of(other) != Some(name)) {
            return Err(DropReason::UnknownPeer);
        }
        let older = |server: &Self| server.connected_at(from.peer).find(|other| *other != id);
        while let Some(other) = older(self) {
            self.depart(now, other, "the same client has moved to its address");
            self.peers.remove(other);
        }
        let old = self.peers.get(id).map(|entry| entry.endpoint().peer);
        self.peers.relocate(id, from).map_err(|_| DropReason::UnknownPeer)?;
        let level = self.moves.level(now.mono, log::Level::Info);
        if let (Some(old), Some(name)) = (old, self.name_of(id)) {
            log::log!(level, "{}: moved from {old} to {}", name.escape_debug(), from.peer);
        }
        self.fit(id);
        Ok(())
    }

    /// The clients at an address: several while one connection takes another's place.
    fn connected_at(&self, address: SocketAddr) -> impl Iterator<Item = PeerId> + '_ {
        self.peers.at_address(address).filter(|id| self.name_of(*id).is_some())
    }

    /// The name of a connected client.
    pub(super) fn name_of(&self, id: PeerId) -> Option<&str> {
        self.peers.get(id)?.peer.client().map(|client| client.who.name())
    }

    /// An IP packet from a client: it must come from an address of its own [9.6].
    fn upward(
        &mut self,
        now: Now,
        id: PeerId,
        packet: &mut PacketMut<'_>,
    ) -> Result<Verdict, DropReason> {
        let (source, destination) = self.addresses(packet)?;
        if self.owner(source) != Some(id) {
            return Err(DropReason::BadSource);
        }
        let mut has_networks = false;
        if let Some(Stage::Connected(client)) = self.peers.get_mut(id).map(|e| &mut e.peer.stage) {
            has_networks = !client.settings.behind.is_empty();
            client.bytes_in += packet.len() as u64;
            client.lifetime.count(now.mono, packet.len() as u64);
            client.clamp(packet);
        }
        if self.is_for_all(destination) {
            if !self.role.client_to_client {
                return Ok(Verdict::ToTun);
            }
            self.broadcast.start(Some(id));
            return Ok(Verdict::Broadcast { to_tun: true });
        }
        if !self.role.client_to_client {
            // What a client does not know in its own network would go round and round.
            if has_networks && self.owner(destination) == Some(id) {
                return self.unreachable(now, Origin::Peer(id), packet);
            }
            return Ok(Verdict::ToTun);
        }
        match self.owner(destination) {
            None => Ok(Verdict::ToTun),
            // It would only come back, as often as its hop limit allows.
            Some(own) if own == id => self.unreachable(now, Origin::Peer(id), packet),
            Some(other) => self.deliver(now, Origin::Peer(id), other, packet),
        }
    }
}
