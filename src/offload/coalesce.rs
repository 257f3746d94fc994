//! Packets for the TUN device, put together where the kernel would take them apart the same way.
//!
//! A packet joins the group of its flow when the group's headers with the next sequence number (and
//! IPv4 identification) are exactly its own, and its checksums are right: the kernel will not look at
//! them again, and a damaged packet must arrive as damaged as it was. All segments but the last are
//! of one size; PSH ends a group, as the kernel gives it to the last segment only. UDP datagrams of a flow
//! are put together in the same way where the kernel takes them, unless they have no checksum: it
//! would give them one. Options in the IP header, extension headers, fragments and every flag but ACK
//! and PSH let a packet pass alone, and whatever waits between the same two addresses goes before it.
//!
//! The packets of a group share their fate: where the host has to send them on and they are too large for that,
//! and may not be fragmented, a shorter last one is lost with the others, as with the kernel's own GRO.
//!
//! Nothing is copied. A group is its first packet and the payloads of the others, wherever they lie
//! in the receive memory, which must stay as it is until [`Coalescer::flush`].

use heapless::Vec;

use crate::offload::checksum;
use crate::offload::segment::{self, tcp, udp, v4, v6};
use crate::offload::vnet::{Segments, VnetHeader};
use crate::wire::ip::{V4_HEADER, V6_HEADER, protocol};

/// Flows that are put together at the same time. More of them in one batch of datagrams are rare,
/// and only keep the oldest from growing further. About a kilobyte each.
const FLOWS: usize = 8;
/// Segments of one group.
pub const SEGMENTS: usize = 64;
/// The largest length that either IP version can state.
const LARGEST: usize = 65_535;

/// A stretch of the receive memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its first byte.
    pub start: usize,
    /// Bytes.
    pub len: usize,
}

impl Part {
    /// Its bytes.
    pub fn of(self, memory: &[u8]) -> &[u8] {
        memory.get(self.start..).and_then(|rest| rest.get(..self.len)).unwrap_or_default()
    }

    fn of_mut(self, memory: &mut [u8]) -> &mut [u8] {
        memory.get_mut(self.start..).and_then(|rest| rest.get_mut(..self.len)).unwrap_or_default()
    }
}

/// The groups under way, in the order of their first packets.
#[derive(Default)]
pub struct Coalescer {
    groups: Vec<Group, FLOWS>,
    /// Whether UDP datagrams are put together, too.
    datagrams: bool,
}

impl Coalescer {
    /// Nothing under way. With `datagrams`, UDP is put together as well as TCP.
    pub const fn new(datagrams: bool) -> Self {
        Self { groups: Vec::new(), datagrams }
    }

    /// Takes the packet at `packet` in `memory`. What can wait no longer goes to `write`: a header
    /// and the parts that follow it in a row.
    pub fn push(
        &mut self,
        memory: &mut [u8],
        packet: Part,
        write: &mut impl FnMut(&VnetHeader, &[u8], &[Part]),
    ) {
        let parsed = Segment::parse(packet.of(memory), self.datagrams);
        let Some(segment) = parsed else {
            while let Some(at) = self.position(|g| g.shares_addresses(memory, packet)) {
                self.release(at, memory, write);
            }
            return write(&VnetHeader::PLAIN, memory, &[packet]);
        };
        let mut group = self.position(|g| g.is_flow_of(memory, packet, &segment));
        if let Some(at) = group
            && !self.groups.get_mut(at).is_some_and(|g| g.take(memory, packet, &segment))
        {
            self.release(at, memory, write);
            group = None;
        }
        let at = group.unwrap_or_else(|| {
            if self.groups.is_full() {
                self.release(0, memory, write);
            }
            // There is room now.
            let _ = self.groups.push(Group::new(packet, segment));
            self.groups.len().saturating_sub(1)
        });
        if self.groups.get(at).is_some_and(|g| g.is_complete(&segment)) {
            self.release(at, memory, write);
        }
    }

    /// Writes everything: the memory is about to be used again.
    pub fn flush(
        &mut self,
        memory: &mut [u8],
        write: &mut impl FnMut(&VnetHeader, &[u8], &[Part]),
    ) {
        self.groups.iter_mut().for_each(|group| group.write(memory, write));
        self.groups.clear();
    }

    fn position(&self, matches: impl FnMut(&Group) -> bool) -> Option<usize> {
        self.groups.iter().position(matches)
    }

    fn release(
        &mut self,
        at: usize,
        memory: &mut [u8],
        write: &mut impl FnMut(&VnetHeader, &[u8], &[Part]),
    ) {
        if let Some(group) = self.groups.get_mut(at) {
            group.write(memory, write);
            self.groups.remove(at);
        }
    }
}

/// A TCP segment or UDP datagram with payload, as far as its headers decide where it belongs.
#[derive(Debug, Clone, Copy)]
struct Segment {
    v4: bool,
    udp: bool,
    /// Length of both headers.
    headers: usize,
    payload: usize,
    /// Zero in UDP.
    sequence: u32,
    /// IPv4 identification.
    id: u16,
    push: bool,
}

impl Segment {
    /// `None` for everything that must go alone.
    fn parse(bytes: &[u8], datagrams: bool) -> Option<Self> {
        let (v4, ip, stated, next) = match bytes.first()? {
            0x45 => (true, V4_HEADER, segment::u16_at(bytes, v4::TOTAL_LENGTH)?, v4::PROTOCOL),
            0x60..=0x6f => {
                (false, V6_HEADER, segment::u16_at(bytes, v6::PAYLOAD_LENGTH)?, v6::NEXT_HEADER)
            }
            _ => return None,
        };
        let total = usize::from(stated) + if v4 { 0 } else { V6_HEADER };
        if total != bytes.len() {
            return None;
        }
        let udp = match *bytes.get(next)? {
            protocol::TCP => false,
            protocol::UDP if datagrams => true,
            _ => return None,
        };
        // Fragments: more to come, or not the first.
        if v4 && segment::u16_at(bytes, v4::FRAGMENT)? & 0x3fff != 0 {
            return None;
        }
        let transport = bytes.get(ip..)?;
        let id = if v4 { segment::u16_at(bytes, v4::ID)? } else { 0 };
        let (header, sequence, push) =
            if udp { Self::datagram(transport)? } else { Self::tcp(transport)? };
        let payload = transport.len().checked_sub(header).filter(|payload| *payload > 0)?;
        Some(Self { v4, udp, headers: ip + header, payload, sequence, id, push })
    }

    /// Length of the header, sequence number, PSH.
    fn tcp(transport: &[u8]) -> Option<(usize, u32, bool)> {
        let (offset, flags) = (*transport.get(tcp::OFFSET)?, *transport.get(tcp::FLAGS)?);
        let length = usize::from(offset >> 4) * 4;
        // The low half is reserved, but for a flag of ECN.
        if length < tcp::HEADER || offset & 0x0f != 0 || flags & !tcp::PSH != tcp::ACK {
            return None;
        }
        Some((length, segment::u32_at(transport, tcp::SEQUENCE)?, flags & tcp::PSH != 0))
    }

    /// The same for UDP, which has neither of the latter two.
    fn datagram(transport: &[u8]) -> Option<(usize, u32, bool)> {
        let whole = usize::from(segment::u16_at(transport, udp::LENGTH)?) == transport.len();
        let summed = segment::u16_at(transport, udp::CHECKSUM)? != 0;
        (whole && summed).then_some((udp::HEADER, 0, false))
    }

    const fn ip(&self) -> usize {
        if self.v4 { V4_HEADER } else { V6_HEADER }
    }

    const fn protocol(&self) -> u8 {
        if self.udp { protocol::UDP } else { protocol::TCP }
    }

    /// Whether both checksums are right, and in the form in which the kernel will write them anew: zero has
    /// two (RFC 1624 3). An IPv4 header gets 0, UDP 0xffff, and TCP either, depending on which part of
    /// the kernel completes it.
    fn is_intact(&self, bytes: &[u8]) -> bool {
        let Some((ip, transport)) = bytes.split_at_checked(self.ip()) else { return false };
        let Some(addresses) = addresses(bytes) else { return false };
        let pseudo = checksum::pseudo(addresses, self.protocol(), transport.len());
        let ip_right = !self.v4
            || segment::u16_at(ip, v4::CHECKSUM) != Some(0xffff) && checksum::sum(ip) == 0xffff;
        let has_one_form =
            self.udp || !matches!(segment::u16_at(transport, tcp::CHECKSUM), Some(0 | 0xffff));
        ip_right && has_one_form && checksum::add(pseudo, checksum::sum(transport)) == 0xffff
    }
}

/// Source and destination, as they are in the header.
fn addresses(bytes: &[u8]) -> Option<&[u8]> {
    match bytes.first()? >> 4 {
        4 => bytes.get(12..20),
        6 => bytes.get(8..40),
        _ => None,
    }
}

struct Group {
    first: Segment,
    /// The first packet whole, then payloads.
    parts: Vec<Part, SEGMENTS>,
    /// Payload so far.
    payload: usize,
    /// Whether the first packet's checksums have been found right.
    verified: bool,
    /// Whether the last segment has PSH.
    push: bool,
}

impl Group {
    fn new(packet: Part, segment: Segment) -> Self {
        let mut parts = Vec::new();
        // Its capacity is more than one.
        let _ = parts.push(packet);
        Self { first: segment, parts, payload: segment.payload, verified: false, push: false }
    }

    fn bytes<'m>(&self, memory: &'m [u8]) -> &'m [u8] {
        self.parts.first().map(|part| part.of(memory)).unwrap_or_default()
    }

    fn shares_addresses(&self, memory: &[u8], packet: Part) -> bool {
        addresses(self.bytes(memory)) == addresses(packet.of(memory))
    }

    fn is_flow_of(&self, memory: &[u8], packet: Part, segment: &Segment) -> bool {
        let ports = |bytes: &[u8]| segment::u32_at(bytes, segment.ip());
        (self.first.v4, self.first.udp) == (segment.v4, segment.udp)
            && ports(self.bytes(memory)) == ports(packet.of(memory))
            && self.shares_addresses(memory, packet)
    }

    /// Adds a packet of the same flow if it is the very next.
    fn take(&mut self, memory: &[u8], packet: Part, segment: &Segment) -> bool {
        let count = self.parts.len();
        let (ours, theirs) = (self.bytes(memory), packet.of(memory));
        let due = self.first.sequence.wrapping_add(self.payload as u32);
        if (segment.sequence != due && !segment.udp)
            || segment.headers != self.first.headers
            || (segment.v4 && segment.id != self.first.id.wrapping_add(count as u16))
            || segment.payload > self.first.payload
            || self.first.headers + self.payload + segment.payload > LARGEST
            || self.parts.is_full()
            || !same_headers(ours, theirs, segment)
        {
            return false;
        }
        self.verified = self.verified || self.first.is_intact(ours);
        if !self.verified || !segment.is_intact(theirs) {
            return false;
        }
        let payload =
            Part { start: packet.start + segment.headers, len: packet.len - segment.headers };
        self.payload += segment.payload;
        self.push = segment.push;
        self.parts.push(payload).is_ok()
    }

    /// Whether nothing can follow `last`.
    fn is_complete(&self, last: &Segment) -> bool {
        last.push || last.payload < self.first.payload || self.parts.is_full()
    }

    fn write(&mut self, memory: &mut [u8], write: &mut impl FnMut(&VnetHeader, &[u8], &[Part])) {
        let header = match self.parts.as_slice() {
            [_] => VnetHeader::PLAIN,
            _ => self.finish(memory).unwrap_or(VnetHeader::PLAIN),
        };
        write(&header, memory, &self.parts);
    }

    /// Makes the first packet's headers those of the whole, the checksum half done.
    fn finish(&self, memory: &mut [u8]) -> Option<VnetHeader> {
        let Segment { v4, udp, headers, payload, .. } = self.first;
        let ip_len = self.first.ip();
        let total = headers + self.payload;
        let bytes = self.parts.first()?.of_mut(memory);
        let pseudo = checksum::pseudo(addresses(bytes)?, self.first.protocol(), total - ip_len);
        let (ip, transport) = bytes.split_at_mut_checked(ip_len)?;
        if v4 {
            segment::put_v4_length(ip, total)?;
        } else {
            segment::put(ip, v6::PAYLOAD_LENGTH, ((total - V6_HEADER) as u16).to_be_bytes())?;
        }
        if self.push {
            *transport.get_mut(tcp::FLAGS)? |= tcp::PSH;
        }
        let at = if udp {
            segment::put(transport, udp::LENGTH, ((total - ip_len) as u16).to_be_bytes())?;
            udp::CHECKSUM
        } else {
            tcp::CHECKSUM
        };
        segment::put(transport, at, pseudo.to_be_bytes())?;
        Some(VnetHeader {
            needs_checksum: true,
            segments: match (udp, v4) {
                (true, _) => Segments::Udp,
                (false, true) => Segments::Tcp4,
                (false, false) => Segments::Tcp6,
            },
            header_len: headers as u16,
            segment: payload as u16,
            checksum_start: ip_len as u16,
            checksum_offset: at as u16,
        })
    }
}

/// Whether the headers agree in all that the kernel copies from one segment to the next.
fn same_headers(a: &[u8], b: &[u8], segment: &Segment) -> bool {
    let ip = segment.ip();
    let same = |from: usize, to: usize| a.get(from..to) == b.get(from..to);
    let ip_same = if segment.v4 {
        // Not the length, the identification, the checksum.
        same(0, v4::TOTAL_LENGTH) && same(v4::FRAGMENT, v4::CHECKSUM)
    } else {
        same(0, v6::PAYLOAD_LENGTH) && same(v6::NEXT_HEADER, V6_HEADER)
    };
    // Not a datagram's length and checksum. Of TCP not the sequence number, the flags (ACK, and PSH in the last), the checksum. Addresses and
    // ports are the flow's.
    ip_same && segment.udp
        || ip_same
            && same(ip + tcp::ACKNOWLEDGEMENT, ip + tcp::FLAGS)
            && same(ip + tcp::WINDOW, ip + tcp::CHECKSUM)
            && same(ip + tcp::URGENT, segment.headers)
}
