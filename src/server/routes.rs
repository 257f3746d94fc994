//! Which client owns an address: longest-prefix match over IPv4 and IPv6 [9.6].
//!
//! Two path-compressed binary tries, one per family, whose nodes live in a vector and name each
//! other by index: one allocation each at start, no pointer chasing through the heap, no reference
//! cycles. A lookup touches one node per *branching* bit, so for host routes in a common prefix it
//! takes about log2(clients) steps. Host addresses and the prefixes behind a client (`iroute`) are
//! the same thing here. Whether a prefix may be claimed is the caller's decision.
//!
//! ```text
//!                 2001:db8::/64 (branch, nobody's)
//!                 /           \
//!     2001:db8::1000/128   2001:db8:0:0:8000::/65 -> peer 3
//! ```

use std::net::IpAddr;

use ipnet::IpNet;

use crate::buf::Full;
use crate::engine::PeerId;

/// The route table of a server.
pub struct Routes {
    v4: Trie,
    v6: Trie,
}

impl Routes {
    /// A table for `prefixes` prefixes in each family.
    pub fn with_capacity(prefixes: usize) -> Self {
        Self { v4: Trie::with_capacity(prefixes), v6: Trie::with_capacity(prefixes) }
    }

    /// Room for as many prefixes at least; the memory is taken as they come.
    pub fn grow(&mut self, prefixes: usize) {
        for trie in [&mut self.v4, &mut self.v6] {
            trie.capacity = trie.capacity.max(Trie::capacity_for(prefixes));
        }
    }

    /// Makes `peer` the owner of `net` (host bits are ignored) and returns who owned exactly this
    /// prefix before. When the table is full nothing changes.
    pub fn insert(&mut self, net: IpNet, peer: PeerId) -> Result<Option<PeerId>, Full> {
        let key = Key::of_net(net);
        self.family_mut(net.addr()).insert(key, peer)
    }

    /// Forgets exactly this prefix if `peer` owns it; says whether it did.
    pub fn remove(&mut self, net: IpNet, peer: PeerId) -> bool {
        let key = Key::of_net(net);
        self.family_mut(net.addr()).remove(key, peer)
    }

    /// The owner of the longest prefix that contains `address`.
    pub fn lookup(&self, address: IpAddr) -> Option<PeerId> {
        match address {
            IpAddr::V4(v4) => self.v4.lookup(u128::from(v4.to_bits()) << 96, 32),
            IpAddr::V6(v6) => self.v6.lookup(v6.to_bits(), 128),
        }
    }

    /// The owner of exactly this prefix.
    pub fn owner(&self, net: IpNet) -> Option<PeerId> {
        match net {
            IpNet::V4(_) => self.v4.owner(Key::of_net(net)),
            IpNet::V6(_) => self.v6.owner(Key::of_net(net)),
        }
    }

    fn family_mut(&mut self, address: IpAddr) -> &mut Trie {
        match address {
            IpAddr::V4(_) => &mut self.v4,
            IpAddr::V6(_) => &mut self.v6,
        }
    }
}

/// A prefix: its bits left-aligned in 128 (so that both families share the code), and their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    bits: u128,
    len: u8,
}

impl Key {
    fn of_net(net: IpNet) -> Self {
        let bits = match net.addr() {
            IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
            IpAddr::V6(v6) => v6.to_bits(),
        };
        Self { bits, len: net.prefix_len() }.cut(net.prefix_len())
    }

    /// The first `len` bits only.
    fn cut(self, len: u8) -> Self {
        let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
        Self { bits: self.bits & mask, len }
    }

    fn contains(self, bits: u128) -> bool {
        (self.bits ^ bits).leading_zeros() >= u32::from(self.len)
    }

    /// How many leading bits both have in common, at most the shorter length.
    fn common(self, other: Self) -> u8 {
        let same = (self.bits ^ other.bits).leading_zeros().min(128) as u8;
        same.min(self.len).min(other.len)
    }
}

/// Bit number `at` (from the left) of `bits`; the child a key goes to below a node of that length.
fn side(bits: u128, at: u8) -> usize {
    usize::from(bits.wrapping_shr(127_u32.saturating_sub(u32::from(at))) & 1 == 1)
}

/// "No node": also the end of the free list.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Node {
    key: Key,
    /// `None` for a node that only branches.
    owner: Option<PeerId>,
    /// Longer prefixes by their next bit; for a free node the first one links the free list.
    children: [u32; 2],
}

/// Where a link to a node is stored: at the root or in a parent.
#[derive(Clone, Copy)]
enum Slot {
    Root,
    Child(u32, usize),
}

struct Trie {
    nodes: Vec<Node>,
    /// n prefixes need at most n - 1 branching nodes.
    capacity: usize,
    used: usize,
    free: u32,
    root: u32,
}

impl Trie {
    fn with_capacity(prefixes: usize) -> Self {
        let capacity = Self::capacity_for(prefixes);
        Self { nodes: Vec::with_capacity(capacity), capacity, used: 0, free: NONE, root: NONE }
    }

    /// In nodes.
    const fn capacity_for(prefixes: usize) -> usize {
        let nodes = prefixes.saturating_mul(2);
        if nodes < NONE as usize { nodes } else { NONE as usize }
    }

    fn lookup(&self, bits: u128, width: u8) -> Option<PeerId> {
        let mut best = None;
        let mut at = self.root;
        while let Some(node) = self.node(at) {
            if !node.key.contains(bits) {
                break;
            }
            best = node.owner.or(best);
            if node.key.len >= width {
                break;
            }
            at = node.children[side(bits, node.key.len)];
        }
        best
    }

    fn owner(&self, key: Key) -> Option<PeerId> {
        let (_, found, _) = self.descend(key);
        found.filter(|node| node.key == key)?.owner
    }

    fn insert(&mut self, key: Key, peer: PeerId) -> Result<Option<PeerId>, Full> {
        let (slot, found, at) = self.descend(key);
        let Some(node) = found else {
            let leaf = self.allocate(key, Some(peer))?;
            self.link(slot, leaf);
            return Ok(None);
        };
        if node.key == key {
            let old = node.owner;
            if let Some(node) = self.node_mut(at) {
                node.owner = Some(peer);
            }
            return Ok(old);
        }
        // The node found disagrees with the key, or lies below it: something goes in between.
        let common = key.common(node.key);
        if common == key.len {
            let new = self.allocate(key, Some(peer))?;
            self.adopt(new, at, node.key);
            self.link(slot, new);
            return Ok(None);
        }
        if self.capacity - self.used < 2 {
            return Err(Full);
        }
        let branch = self.allocate(key.cut(common), None)?;
        let leaf = self.allocate(key, Some(peer))?;
        self.adopt(branch, at, node.key);
        self.adopt(branch, leaf, key);
        self.link(slot, branch);
        Ok(None)
    }

    fn remove(&mut self, key: Key, peer: PeerId) -> bool {
        let (slot, found, at) = self.descend(key);
        if found.is_none_or(|node| node.key != key || node.owner != Some(peer)) {
            return false;
        }
        if let Some(node) = self.node_mut(at) {
            node.owner = None;
        }
        self.collapse(slot, at);
        // A branching parent that lost a child is superfluous, too.
        if let Slot::Child(parent, _) = slot
            && let Some(key) = self.node(parent).filter(|node| node.owner.is_none()).map(|n| n.key)
        {
            let (slot, _, at) = self.descend(key);
            self.collapse(slot, at);
        }
        true
    }

    /// Takes a node without an owner out of the tree unless it still branches.
    fn collapse(&mut self, slot: Slot, at: u32) {
        let Some(node) = self.node(at) else { return };
        let only = match node.children {
            [NONE, other] | [other, NONE] => other,
            [_, _] => return,
        };
        self.link(slot, only);
        self.release(at);
    }

    /// Walks towards `key` and stops at the first node that is not a proper prefix of it. Returns
    /// the slot which holds that node (or would hold it), the node, and its index.
    fn descend(&self, key: Key) -> (Slot, Option<Node>, u32) {
        let mut slot = Slot::Root;
        let mut at = self.root;
        while let Some(node) = self.node(at) {
            if node.key.len >= key.len || !node.key.contains(key.bits) {
                return (slot, Some(*node), at);
            }
            let side = side(key.bits, node.key.len);
            slot = Slot::Child(at, side);
            at = node.children[side];
        }
        (slot, None, at)
    }

    fn node(&self, at: u32) -> Option<&Node> {
        self.nodes.get(at as usize)
    }

    fn node_mut(&mut self, at: u32) -> Option<&mut Node> {
        self.nodes.get_mut(at as usize)
    }

    fn link(&mut self, slot: Slot, to: u32) {
        match slot {
            Slot::Root => self.root = to,
            Slot::Child(parent, side) => {
                if let Some(node) = self.node_mut(parent) {
                    node.children[side] = to;
                }
            }
        }
    }

    /// Hangs the node `child`, whose key is `key`, below `parent`.
    fn adopt(&mut self, parent: u32, child: u32, key: Key) {
        if let Some(node) = self.node_mut(parent) {
            let side = side(key.bits, node.key.len);
            node.children[side] = child;
        }
    }

    fn allocate(&mut self, key: Key, owner: Option<PeerId>) -> Result<u32, Full> {
        let fresh = Node { key, owner, children: [NONE; 2] };
        let at = if let Some(node) = self.nodes.get_mut(self.free as usize) {
            let at = self.free;
            self.free = node.children[0];
            *node = fresh;
            at
        } else if self.nodes.len() < self.capacity {
            self.nodes.push(fresh);
            (self.nodes.len() - 1) as u32
        } else {
            return Err(Full);
        };
        self.used += 1;
        Ok(at)
    }

    fn release(&mut self, at: u32) {
        let free = self.free;
        if let Some(node) = self.node_mut(at) {
            node.children = [free, NONE];
            self.free = at;
            self.used -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_wins_in_each_family() {
        let mut routes = Routes::with_capacity(8);
        for (prefix, peer) in [
            ("10.0.0.0/8", 1),
            ("10.8.0.0/16", 2),
            ("10.8.0.2/32", 3),
            ("::/0", 4),
            ("2001:db8::/32", 5),
            ("2001:db8::1000/128", 6),
        ] {
            assert_eq!(routes.insert(net(prefix), PeerId(peer)), Ok(None));
        }
        for (to, peer) in [
            ("10.9.1.1", Some(1)),
            ("10.8.0.3", Some(2)),
            ("10.8.0.2", Some(3)),
            ("11.0.0.1", None),
            ("fd00::1", Some(4)),
            ("2001:db8::1001", Some(5)),
            ("2001:db8::1000", Some(6)),
        ] {
            assert_eq!(routes.lookup(address(to)), peer.map(PeerId), "{to}");
        }
    }

    #[test]
    fn only_the_owner_removes_and_a_new_owner_is_told_of_the_old() {
        let mut routes = Routes::with_capacity(2);
        let prefix = net("fd00::/64");
        assert_eq!(routes.insert(prefix, PeerId(1)), Ok(None));
        assert_eq!(routes.insert(prefix, PeerId(2)), Ok(Some(PeerId(1))));
        assert!(!routes.remove(prefix, PeerId(1)));
        assert_eq!(routes.owner(prefix), Some(PeerId(2)));
        assert!(routes.remove(prefix, PeerId(2)));
        assert_eq!(routes.lookup(address("fd00::1")), None);
    }

    #[test]
    fn full_is_an_error_that_changes_nothing() {
        let mut routes = Routes::with_capacity(2);
        for n in 0..2 {
            let host = IpNet::from(IpAddr::from(Ipv4Addr::new(10, 0, 0, n)));
            routes.insert(host, PeerId(u32::from(n))).unwrap();
        }
        let mut refused = 0;
        for n in 2..9 {
            let host = IpNet::from(IpAddr::from(Ipv4Addr::new(10, 0, 0, n)));
            refused += usize::from(routes.insert(host, PeerId(9)).is_err());
        }
        assert!(refused >= 6, "{refused}");
        assert_eq!(routes.lookup(address("10.0.0.1")), Some(PeerId(1)));
        let v6 = IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST));
        assert_eq!(routes.insert(v6, PeerId(3)), Ok(None), "the other family has its own room");
    }

    /// The obvious model: a list of prefixes, searched from end to end.
    #[derive(Default)]
    struct Slow(Vec<(IpNet, PeerId)>);

    impl Slow {
        fn insert(&mut self, net: IpNet, peer: PeerId) -> Option<PeerId> {
            let old = self.0.iter().position(|(n, _)| *n == net).map(|at| self.0.swap_remove(at).1);
            self.0.push((net, peer));
            old
        }

        fn remove(&mut self, net: IpNet, peer: PeerId) -> bool {
            let found = self.0.iter().position(|entry| *entry == (net, peer));
            found.map(|at| self.0.swap_remove(at)).is_some()
        }

        fn lookup(&self, address: IpAddr) -> Option<PeerId> {
            let holds = self.0.iter().filter(|(net, _)| net.contains(&address));
            holds.max_by_key(|(net, _)| net.prefix_len()).map(|(_, peer)| *peer)
        }
    }

    #[test]
    fn agrees_with_a_list_under_random_changes() {
        let mut state = 0x5166_a7e0_u64;
        let mut next = move |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % bound
        };
        let mut routes = Routes::with_capacity(300);
        let mut model = Slow::default();
        for round in 0..30_000 {
            // Few distinct bits at both ends, so that prefixes nest, collide and vanish again.
            let spread = u32::from_be_bytes([next(3) as u8, 0, next(2) as u8 * 255, next(8) as u8]);
            let wide = (u128::from(spread) << 96) | u128::from(spread ^ 5);
            let (address, len) = if next(2) == 0 {
                (IpAddr::from(Ipv4Addr::from_bits(spread)), next(33) as u8)
            } else {
                (IpAddr::from(Ipv6Addr::from_bits(wide)), next(129) as u8)
            };
            let prefix = IpNet::new(address, len).unwrap().trunc();
            let peer = PeerId(next(5) as u32);
            match next(5) {
                0 | 1 if model.0.len() < 300 => {
                    assert_eq!(routes.insert(prefix, peer), Ok(model.insert(prefix, peer)));
                }
                2 => assert_eq!(routes.remove(prefix, peer), model.remove(prefix, peer)),
                _ => assert_eq!(routes.lookup(address), model.lookup(address), "round {round}"),
            }
        }
        for (net, peer) in std::mem::take(&mut model.0) {
            assert!(routes.remove(net, peer));
        }
        assert_eq!((routes.v4.used, routes.v6.used), (0, 0), "every node is given back");
    }
}
