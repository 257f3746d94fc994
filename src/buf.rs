//! Packet memory: a window over a fixed slice, with headroom in front and tailroom behind.
//!
//! A packet is read once, then headers, tags and ids are pushed and pulled around it in place; the
//! bytes in the middle never move. Where the memory comes from is the shell's business.

use core::fmt;

use crate::limits::{HEADROOM, PACKET_BUF};

/// There is no room for what was to be added; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("buffer full")
    }
}

impl core::error::Error for Full {}

/// Memory for one packet of any supported size with headroom and tailroom.
pub struct PacketBuf(Box<[u8; PACKET_BUF]>);

impl Default for PacketBuf {
    fn default() -> Self {
        Self::new()
    }
}

impl PacketBuf {
    /// Takes `PACKET_BUF` bytes from the heap: once at start, never per packet.
    pub fn new() -> Self {
        Self(Box::new([0; PACKET_BUF]))
    }

    /// An empty window that has `HEADROOM` bytes in front.
    pub fn packet(&mut self) -> PacketMut<'_> {
        PacketMut { data: self.0.as_mut_slice(), start: HEADROOM, end: HEADROOM }
    }

    /// A window that starts behind the headroom and holds a copy of `bytes`.
    pub fn packet_from(&mut self, bytes: &[u8]) -> Result<PacketMut<'_>, Full> {
        let mut packet = self.packet();
        packet.extend(bytes)?;
        Ok(packet)
    }
}

/// A packet under way: `data[start..end]` is the packet, the rest is room to grow.
pub struct PacketMut<'a> {
    data: &'a mut [u8],
    start: usize,
    end: usize,
}

impl<'a> PacketMut<'a> {
    /// A window over `data[start..end]`; `None` when the range does not lie within `data`.
    pub fn new(data: &'a mut [u8], start: usize, end: usize) -> Option<Self> {
        (start <= end && end <= data.len()).then_some(Self { data, start, end })
    }

    /// Length of the packet in bytes.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether the packet has no bytes.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Where the packet starts in its memory.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Bytes that `push_front` can still add.
    pub fn headroom(&self) -> usize {
        self.start
    }

    /// Bytes that `push_back` can still add.
    pub fn tailroom(&self) -> usize {
        self.data.len() - self.end
    }

    /// The packet's bytes.
    pub fn as_slice(&self) -> &[u8] {
        // The constructor and every method keep start <= end <= data.len().
        self.data.get(self.start..self.end).unwrap_or_default()
    }

    /// The packet's bytes, to be changed in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.data.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Grows the packet by `n` bytes at its head and returns them, uninitialised in meaning.
    pub fn push_front(&mut self, n: usize) -> Result<&mut [u8], Full> {
        let start = self.start.checked_sub(n).ok_or(Full)?;
        self.start = start;
        self.data.get_mut(start..start + n).ok_or(Full)
    }

    /// Grows the packet by `n` bytes at its tail and returns them, uninitialised in meaning.
    pub fn push_back(&mut self, n: usize) -> Result<&mut [u8], Full> {
        let old = self.end;
        let end = old.checked_add(n).filter(|end| *end <= self.data.len()).ok_or(Full)?;
        self.end = end;
        self.data.get_mut(old..end).ok_or(Full)
    }

    /// Appends a copy of `bytes`.
    pub fn extend(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.push_back(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// Cuts `n` bytes off the head; `Full` when the packet is shorter.
    pub fn pull_front(&mut self, n: usize) -> Result<(), Full> {
        if n > self.len() {
            return Err(Full);
        }
        self.start += n;
        Ok(())
    }

    /// Shortens the packet to `len` bytes; no effect when it is shorter already.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.end = self.start + len;
        }
    }

    /// Empties the packet and leaves `headroom` bytes in front (at most all there are).
    pub fn reset(&mut self, headroom: usize) {
        self.start = headroom.min(self.data.len());
        self.end = self.start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_shrinks_at_both_ends_without_moving_bytes() {
        let mut buf = PacketBuf::new();
        let mut packet = buf.packet_from(b"payload").unwrap();
        packet.push_front(2).unwrap().copy_from_slice(b"h:");
        packet.push_back(1).unwrap().copy_from_slice(b"!");
        assert_eq!(packet.as_slice(), b"h:payload!");
        packet.pull_front(2).unwrap();
        packet.truncate(3);
        assert_eq!(packet.as_slice(), b"pay");
        assert_eq!(packet.pull_front(4), Err(Full));
        packet.reset(0);
        assert!(packet.is_empty());
        assert_eq!(packet.push_front(1), Err(Full));
    }

    #[test]
    fn refuses_what_does_not_fit_and_changes_nothing() {
        let mut memory = [0; 8];
        assert!(PacketMut::new(&mut memory, 5, 4).is_none());
        assert!(PacketMut::new(&mut memory, 5, 9).is_none());
        let mut packet = PacketMut::new(&mut memory, 2, 6).unwrap();
        assert_eq!(packet.push_front(3), Err(Full));
        assert_eq!(packet.push_back(usize::MAX), Err(Full));
        assert_eq!((packet.headroom(), packet.len(), packet.tailroom()), (2, 4, 2));
    }
}
