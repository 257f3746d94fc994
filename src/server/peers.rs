//! The table of peers: by peer id, and by transport address with session id.
//!
//! Each session has a place of its own, so a client that comes back from the same address and port
//! stands beside its old self until it has authenticated [3.4]. The table knows where a peer is;
//! what a peer is, is `peer`'s business. Its order never depends on hashes, so runs repeat.

use std::net::SocketAddr;

use crate::buf::Full;
use crate::engine::{Endpoint, PeerId};
use crate::sorted::SortedMap;
use crate::wire::control::SessionId;

/// One peer with its whereabouts, which only the table changes.
pub struct Entry<P> {
    endpoint: Endpoint,
    remote: SessionId,
    /// The peer itself.
    pub peer: P,
}

impl<P> Entry<P> {
    /// Where packets to this peer go.
    pub const fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// The session id of the peer's side.
    pub const fn remote(&self) -> SessionId {
        self.remote
    }

    /// Answers from now on from the local address that the peer addressed last.
    pub const fn follow(&mut self, from: Endpoint) {
        self.endpoint.local = from.local;
        self.endpoint.interface = from.interface;
    }
}

/// A table of fixed capacity.
pub struct Peers<P> {
    slots: Vec<Option<Box<Entry<P>>>>,
    by_session: SortedMap<(SocketAddr, SessionId), PeerId>,
}

impl<P> Peers<P> {
    /// Room for `capacity` peers, with ids below it.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut slots = Vec::new();
        slots.resize_with(capacity, || None);
        Self { slots, by_session: SortedMap::new() }
    }

    /// Room for as many peers at least.
    pub fn grow(&mut self, capacity: usize) {
        if capacity > self.slots.len() {
            self.slots.resize_with(capacity, || None);
        }
    }

    /// Adds a peer at the lowest free id [1.5]. Also full when there is this very session already.
    pub fn insert(
        &mut self,
        endpoint: Endpoint,
        remote: SessionId,
        peer: P,
    ) -> Result<PeerId, Full> {
        let key = (endpoint.peer, remote);
        if self.by_session.contains_key(&key) {
            return Err(Full);
        }
        let mut slots = self.slots.iter_mut().enumerate();
        let (at, slot) = slots.find(|(_, slot)| slot.is_none()).ok_or(Full)?;
        let id = PeerId(u32::try_from(at).map_err(|_| Full)?);
        *slot = Some(Box::new(Entry { endpoint, remote, peer }));
        self.by_session.insert(key, id);
        Ok(id)
    }

    /// Takes a peer out.
    pub fn remove(&mut self, id: PeerId) -> Option<Entry<P>> {
        let entry = self.slots.get_mut(id.0 as usize)?.take()?;
        self.by_session.remove(&(entry.endpoint.peer, entry.remote));
        Some(*entry)
    }

    /// The peer with this id.
    pub fn get(&self, id: PeerId) -> Option<&Entry<P>> {
        self.slots.get(id.0 as usize)?.as_deref()
    }

    /// The peer with this id.
    pub fn get_mut(&mut self, id: PeerId) -> Option<&mut Entry<P>> {
        self.slots.get_mut(id.0 as usize)?.as_deref_mut()
    }

    /// The peer whose session `remote` comes from `address`: control packets do not float [9.8].
    pub fn by_session(&self, address: SocketAddr, remote: SessionId) -> Option<PeerId> {
        self.by_session.get(&(address, remote)).copied()
    }

    /// All peers at an address; several while one replaces another.
    pub fn at_address(&self, address: SocketAddr) -> impl Iterator<Item = PeerId> + '_ {
        let first = (address, SessionId([0; 8]));
        let from = self.by_session.from(&first);
        from.take_while(move |((other, _), _)| *other == address).map(|(_, id)| *id)
    }

    /// The peer has proven that it is somewhere else now. Full when another session of the same
    /// name is there, or when there is no such peer; nothing changes then.
    pub fn relocate(&mut self, id: PeerId, to: Endpoint) -> Result<(), Full> {
        let slot = self.slots.get_mut(id.0 as usize).and_then(Option::as_deref_mut);
        let entry = slot.ok_or(Full)?;
        let key = (to.peer, entry.remote);
        if self.by_session.get(&key).is_some_and(|other| *other != id) {
            return Err(Full);
        }
        self.by_session.remove(&(entry.endpoint.peer, entry.remote));
        entry.endpoint = to;
        self.by_session.insert(key, id);
        Ok(())
    }

    /// All peers by id.
    pub fn iter(&self) -> impl Iterator<Item = (PeerId, &Entry<P>)> + '_ {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(at, slot)| Some((PeerId(at as u32), slot.as_deref()?)))
    }

    /// Ids below this one may be in use.
    pub const fn capacity(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Endpoint {
        Endpoint::new(SocketAddr::from(([192, 0, 2, 1], port)))
    }

    #[test]
    fn ids_are_dense_and_the_table_is_bounded() {
        let mut peers = Peers::with_capacity(2);
        assert_eq!(peers.insert(at(1), SessionId([1; 8]), 'a'), Ok(PeerId(0)));
        assert_eq!(peers.insert(at(1), SessionId([1; 8]), 'x'), Err(Full), "the same session");
        assert_eq!(peers.insert(at(1), SessionId([2; 8]), 'b'), Ok(PeerId(1)));
        assert_eq!(peers.insert(at(1), SessionId([3; 8]), 'c'), Err(Full));
        assert_eq!(peers.at_address(at(1).peer).count(), 2);
        assert!(peers.remove(PeerId(0)).is_some_and(|entry| entry.peer == 'a'));
        assert_eq!(peers.insert(at(2), SessionId([3; 8]), 'd'), Ok(PeerId(0)));
    }

    #[test]
    fn agrees_with_a_list_under_random_use() {
        let mut state = 7_u64;
        let mut next = move |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % bound
        };
        let mut peers = Peers::with_capacity(20);
        let mut model: Vec<(PeerId, SocketAddr, SessionId, u64)> = Vec::new();
        for round in 0..20_000 {
            let (endpoint, remote) = (at(next(5) as u16), SessionId([next(6) as u8; 8]));
            let known = model.iter().find(|e| (e.1, e.2) == (endpoint.peer, remote)).map(|e| e.0);
            assert_eq!(peers.by_session(endpoint.peer, remote), known);
            match next(3) {
                0 => {
                    let free = (0..20).map(PeerId).find(|id| model.iter().all(|e| e.0 != *id));
                    let expected = free.filter(|_| known.is_none()).ok_or(Full);
                    assert_eq!(peers.insert(endpoint, remote, round), expected);
                    model.extend(expected.ok().map(|id| (id, endpoint.peer, remote, round)));
                }
                1 => {
                    let id = PeerId(next(20) as u32);
                    let found = model.iter().position(|e| e.0 == id);
                    let gone = found.map(|at| model.swap_remove(at).3);
                    assert_eq!(peers.remove(id).map(|entry| entry.peer), gone);
                }
                _ => {
                    let id = PeerId(next(20) as u32);
                    let own = model.iter().find(|e| e.0 == id).map(|e| e.2);
                    let clash = |e: &&(PeerId, SocketAddr, SessionId, u64)| {
                        e.0 != id && e.1 == endpoint.peer && Some(e.2) == own
                    };
                    let good = own.is_some() && model.iter().find(clash).is_none();
                    assert_eq!(peers.relocate(id, endpoint).is_ok(), good);
                    let moved = model.iter_mut().filter(|e| good && e.0 == id);
                    moved.for_each(|e| e.1 = endpoint.peer);
                }
            }
            let here = model.iter().filter(|e| e.1 == endpoint.peer).count();
            assert_eq!(peers.at_address(endpoint.peer).count(), here);
            assert_eq!(peers.iter().count(), model.len());
        }
    }
}
