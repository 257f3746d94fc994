//! Datagrams that are ready to go, and which of them the kernel takes in one call.
//!
//! A run is what one `UDP_SEGMENT` send carries: datagrams in a row for one endpoint, all of one size
//! but for the last, which may be shorter. The bytes stay where they were sealed.

use heapless::Vec;

use crate::engine::Endpoint;
use crate::offload::coalesce::Part;

/// Datagrams that wait together; one segmented send carries no more (`UDP_MAX_SEGMENTS`).
pub const DATAGRAMS: usize = 64;
/// Bytes of one segmented send: what IPv4 can state, less the headers, rounded down.
pub const LARGEST: usize = 65_000;

/// One datagram.
#[derive(Debug, Clone, Copy)]
pub struct Datagram {
    /// Who gets it.
    pub to: Endpoint,
    /// Where its bytes are.
    pub part: Part,
}

/// What waits to be sent, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Vec<Datagram, DATAGRAMS>,
}

impl Outbox {
    /// Nothing waits.
    pub const fn new() -> Self {
        Self { waiting: Vec::new() }
    }

    /// Adds a datagram; `false` when there is no room.
    pub fn push(&mut self, to: Endpoint, part: Part) -> bool {
        self.waiting.push(Datagram { to, part }).is_ok()
    }

    /// Whether another datagram would find no room.
    pub fn is_full(&self) -> bool {
        self.waiting.is_full()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What waits.
    pub fn waiting(&self) -> &[Datagram] {
        &self.waiting
    }

    /// Forgets the first `count`, which are on their way.
    pub fn sent(&mut self, count: usize) {
        let count = count.min(self.waiting.len());
        self.waiting.rotate_left(count);
        self.waiting.truncate(self.waiting.len() - count);
    }
}

/// How many of `waiting` make the first run, if single datagrams may be up to `largest` bytes.
pub fn first_run(waiting: &[Datagram], largest: usize) -> usize {
    let Some(first) = waiting.first().filter(|first| first.part.len <= largest) else {
        return waiting.len().min(1);
    };
    let (mut count, mut total, mut open) = (0, 0, true);
    for next in waiting {
        total += next.part.len;
        if !open || next.to != first.to || next.part.len > first.part.len || total > LARGEST {
            break;
        }
        open = next.part.len == first.part.len;
        count += 1;
    }
    count.max(1)
}
