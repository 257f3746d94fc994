//! IP packets from the TUN device, and copies for everybody [9.6].

use crate::buf::PacketMut;
use crate::engine::{DropReason, Endpoint, PeerId, Verdict};
use crate::limits::HEADROOM;
use crate::server::Server;
use crate::server::forward::Origin;
use crate::server::peer::Stage;
use crate::time::Now;

/// Who still gets a copy of the packet that is being broadcast.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Broadcast {
    next: Option<u32>,
    except: Option<PeerId>,
}

impl Broadcast {
    /// Everybody but `except`, which sent it.
    pub(super) const fn start(&mut self, except: Option<PeerId>) {
        *self = Self { next: Some(0), except };
    }
}

impl Server {
    /// One packet from the host.
    pub(super) fn outbound(
        &mut self,
        now: Now,
        packet: &mut PacketMut<'_>,
    ) -> Result<Verdict, DropReason> {
        let (_, destination) = self.addresses(packet)?;
        if self.is_for_all(destination) {
            self.broadcast.start(None);
            return Ok(Verdict::Broadcast { to_tun: false });
        }
        match self.owner(destination) {
            None => self.unreachable(now, Origin::Host, packet),
            Some(id) => self.deliver(now, Origin::Host, id, packet),
        }
    }

    /// The next copy of a broadcast packet.
    pub(super) fn next_copy(
        &mut self,
        now: Now,
        packet: &[u8],
        out: &mut PacketMut<'_>,
    ) -> Option<Endpoint> {
        while let Some(next) = self.broadcast.next {
            if next as usize >= self.peers.capacity() {
                break;
            }
            self.broadcast.next = Some(next + 1);
            let id = PeerId(next);
            let Some(entry) = self.peers.get_mut(id).filter(|_| self.broadcast.except != Some(id))
            else {
                continue;
            };
            let to = entry.endpoint();
            let Stage::Connected(client) = &mut entry.peer.stage else { continue };
            out.reset(HEADROOM);
            if packet.len() > usize::from(client.mtu) || out.extend(packet).is_err() {
                self.drops.count(DropReason::TooBig);
                continue;
            }
            match entry.peer.session.seal(now, out) {
                Ok(()) => {
                    client.bytes_out += packet.len() as u64;
                    return Some(to);
                }
                Err(reason) => self.drops.count(reason),
            }
        }
        self.broadcast.next = None;
        None
    }
}
