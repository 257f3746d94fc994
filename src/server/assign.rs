//! Which addresses and networks a client gets [9.2, 9.3, 9.5, 9.6].
//!
//! Its own file comes first, the pools second, each family on its own. Of two clients that claim
//! the same network the later one has it, and the earlier one gets it back when that one goes.

use core::time::Duration;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::buf::Full;
use crate::config::ClientSettings;
use crate::engine::{Command, PeerId};
use crate::server::Server;
use crate::server::leave::restart;
use crate::server::lifetime::Lifetime;
use crate::server::peer::Peer;
use crate::server::peers::Peers;
use crate::server::pool::Lease;
use crate::time::Now;

/// Whether a client of this name has a place, or is about to.
pub(super) fn is_placed(peers: &Peers<Peer>, name: &str) -> bool {
    peers.iter().any(|(_, entry)| entry.peer.has_place() && entry.peer.name() == Some(name))
}

/// An address from its file belongs to another client by that one's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claimed;

impl Server {
    /// Keeps the addresses of a per-client file for its client, which may never have connected.
    pub fn reserve(&mut self, name: &str, settings: &ClientSettings) {
        if let Some(delegations) = &mut self.delegations {
            let nets = settings.behind.iter().filter_map(|net| match net {
                IpNet::V6(net) => Some(*net),
                IpNet::V4(_) => None,
            });
            nets.for_each(|net| delegations.keep_clear(net));
        }
        for address in self.fixed(settings).addresses() {
            self.pools.reserve(address, name);
        }
    }

    /// Gives a client with a network behind it a prefix of its own, unless its file has one.
    pub(super) fn delegate(&mut self, name: &str, wants: bool, settings: &mut ClientSettings) {
        let Some(delegations) = &mut self.delegations else { return };
        let (mut v4, mut v6) = (false, false);
        for net in &settings.behind {
            match net {
                IpNet::V4(_) => v4 = true,
                IpNet::V6(_) => v6 = true,
            }
        }
        // Two connections of one name cannot share it.
        if v6 || !(v4 || wants) || self.role.duplicate_cn {
            return;
        }
        let peers = &self.peers;
        let Some((net, new)) = delegations.give(name, &|other| is_placed(peers, other)) else {
            return log::warn!("{}: no part is left of `delegate-ipv6`", name.escape_debug());
        };
        settings.behind.push(net.into());
        settings.delegated = Some(net);
        if new {
            self.commands.push_back(Command::SaveDelegations(delegations.export()));
        }
    }

    /// The addresses that a client's file gives it, in the families that we have.
    pub(super) fn fixed(&self, settings: &ClientSettings) -> Lease {
        let v4 = settings.v4.filter(|_| self.role.v4.is_some());
        let v6 = settings.v6.filter(|_| self.role.v6.is_some());
        Lease { v4: v4.map(|fixed| fixed.address), v6: v6.map(|fixed| fixed.net.addr()) }
    }

    /// Gives an applicant its addresses: nothing is leased on error.
    pub(super) fn assign(
        &mut self,
        now: Now,
        id: PeerId,
        name: &str,
        settings: &ClientSettings,
    ) -> Result<(Lease, Lease), Claimed> {
        let mut fixed = self.fixed(settings);
        for address in fixed.addresses() {
            if !self.vacate(now, id, name, address)? {
                match address {
                    IpAddr::V4(_) => fixed.v4 = None,
                    IpAddr::V6(_) => fixed.v6 = None,
                }
            }
        }
        Ok((self.pools.lease(name, !self.role.duplicate_cn, fixed), fixed))
    }

    /// Makes a client's own address free for it. False when another connection of the same name has
    /// it: taking it away would only make the two take turns.
    fn vacate(
        &mut self,
        now: Now,
        id: PeerId,
        name: &str,
        address: IpAddr,
    ) -> Result<bool, Claimed> {
        let has =
            |lease: Lease| lease.addresses().any(|held| self.pools.is_same_place(held, address));
        let holder = self.peers.iter().find_map(|(other, entry)| {
            let (_, fixed) = entry.peer.lease().filter(|(lease, _)| other != id && has(*lease))?;
            Some((other, entry.peer.name().unwrap_or_default(), fixed))
        });
        let Some((other, holder, fixed_there)) = holder else { return Ok(true) };
        let theirs = holder.escape_debug().to_string();
        let ours = name.escape_debug();
        if holder == name {
            log::warn!(
                "{ours}: {address} is in use by another connection of this name; this one gets \
                 another address"
            );
            return Ok(false);
        }
        if has(fixed_there) {
            log::error!("{address} is the fixed address of both '{theirs}' and '{ours}'");
            return Err(Claimed);
        }
        log::warn!("'{theirs}' has {address}, which is kept for '{ours}'; it is told to reconnect");
        let reason = "its address is kept for another client";
        self.dismiss(now, other, &restart(false), reason);
        Ok(true)
    }

    /// Makes a client the owner of its addresses and of the networks behind it.
    pub(super) fn route(&mut self, id: PeerId, prefixes: &[IpNet]) -> Result<(), Full> {
        for net in prefixes {
            let old = self.routes.insert(*net, id)?;
            if old.is_none() && self.role.export.is_some() {
                self.commands.push_back(Command::Route { net: *net, up: true });
            }
            let Some(old) = old.filter(|old| *old != id) else { continue };
            let name = |id| self.peers.get(id).and_then(|entry| entry.peer.name());
            log::warn!(
                "{net} is claimed by '{}' and by '{}', which gets its packets from now on",
                name(old).unwrap_or_default().escape_debug(),
                name(id).unwrap_or_default().escape_debug()
            );
        }
        Ok(())
    }

    /// Takes a client's prefixes out of the route table. One that somebody else claims too is that
    /// client's then.
    pub(super) fn unroute(&mut self, id: PeerId, prefixes: &[IpNet]) {
        for net in prefixes {
            if !self.routes.remove(*net, id) {
                // Learnt, and then the connection was lost before it began.
                if self.routes.owner(*net).is_none() {
                    self.unlearn(*net, None);
                }
                continue;
            }
            let claims = |(other, entry): (PeerId, &super::peers::Entry<super::peer::Peer>)| {
                let client = entry.peer.client().filter(|_| other != id)?;
                client.prefixes.contains(net).then(|| (other, client.who.name().to_owned()))
            };
            let heir = self.peers.iter().find_map(claims);
            if let Some((heir, name)) = &heir
                && self.routes.insert(*net, *heir).is_ok()
            {
                log::info!("{net} belongs to '{}' again", name.escape_debug());
            } else if self.role.export.is_some() {
                self.commands.push_back(Command::Route { net: *net, up: false });
            }
            self.unlearn(*net, heir.map(|(heir, _)| heir));
        }
    }

    /// The client that packets for an address go to, and that may send from it. Our own addresses
    /// are nobody's, nor is what no host can have, even if the network around them is [9.6].
    pub(super) fn owner(&self, address: IpAddr) -> Option<PeerId> {
        let address = match &self.line {
            Some(line) if line.is_own(address) => return None,
            Some(line) => line.canonical(address),
            None => address,
        };
        let (ours, usable) = match address {
            IpAddr::V4(v4) => (
                self.role.v4.is_some_and(|own| own.addr() == v4),
                !v4.is_broadcast() && !v4.is_multicast() && !v4.is_unspecified(),
            ),
            IpAddr::V6(v6) => (
                self.role.v6.is_some_and(|own| own.addr() == v6),
                !v6.is_multicast() && !v6.is_unspecified(),
            ),
        };
        if usable && !ours { self.routes.lookup(address) } else { None }
    }

    /// How long a client may stay: by its file, else as long as everybody.
    pub(super) fn lifetime(&self, now: Now, settings: &ClientSettings) -> Lifetime {
        let session = settings.session_timeout.or(self.role.session_timeout);
        Lifetime::new(now.mono, session, settings.inactive.or(self.role.inactive))
    }

    /// A client's `ping` and `ping-restart`: from its file, else everybody's.
    pub(super) fn keepalive(
        &self,
        settings: &ClientSettings,
    ) -> (Option<Duration>, Option<Duration>) {
        let timers = self.config.timers;
        let choose = |own: Option<Duration>, usual| match own {
            Some(time) => (!time.is_zero()).then_some(time),
            None => usual,
        };
        (choose(settings.ping, timers.ping), choose(settings.ping_restart, timers.ping_restart))
    }
}
