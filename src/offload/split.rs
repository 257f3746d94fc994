//! One piece from the TUN device into the packets it stands for.
//!
//! The kernel sends TCP payload of many segments (and UDP payload of many datagrams) behind one set
//! of headers, with the checksum left half done. Here each segment gets its copy of the headers with
//! what differs: lengths, IPv4 identification, sequence number, flags, checksums. That is what the
//! kernel would have done itself for a device that asks for single packets.

use core::fmt;

use crate::buf::PacketMut;
use crate::offload::checksum;
use crate::offload::segment::{self, tcp, udp, v4, v6};
use crate::offload::vnet::{Segments, VnetHeader};
use crate::wire::ip::{V4_HEADER, V6_HEADER};

/// The header of the device contradicts the packet, or asks for something unknown: drop it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadSegments;

impl fmt::Display for BadSegments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a packet that contradicts its virtio-net header")
    }
}

impl core::error::Error for BadSegments {}

/// Completes the checksum of a single packet if the header asks for it.
pub fn complete(header: &VnetHeader, packet: &mut [u8]) -> Result<(), BadSegments> {
    if !header.needs_checksum {
        return Ok(());
    }
    let part = packet.get_mut(usize::from(header.checksum_start)..).ok_or(BadSegments)?;
    let mut value = !checksum::sum(part);
    let offset = usize::from(header.checksum_offset);
    // In UDP zero means "none" (RFC 768), and its other form is as good.
    if value == 0 && offset == udp::CHECKSUM {
        value = 0xffff;
    }
    segment::put(part, offset, value.to_be_bytes()).ok_or(BadSegments)
}

/// The state of a split: which segment is next. The packet itself stays with the caller.
#[derive(Debug, Clone, Copy)]
pub struct Splitter {
    /// Whether the IP header is version 4.
    v4: bool,
    /// Whether the segments are UDP datagrams and not TCP.
    udp: bool,
    /// Where the transport header starts.
    transport: usize,
    /// Where the payload starts.
    payload: usize,
    /// Length of the whole packet.
    end: usize,
    /// Bytes of payload per segment.
    segment: usize,
    /// The pseudo header's sum without the length.
    pseudo: u16,
    /// Where the next segment's payload starts.
    next: usize,
}

impl Splitter {
    /// Checks that `packet` can be split as `header` says; `None` when it is a single packet.
    pub fn new(header: &VnetHeader, packet: &[u8]) -> Result<Option<Self>, BadSegments> {
        let version = packet.first().ok_or(BadSegments)? >> 4;
        let udp = match (header.segments, version) {
            (Segments::None, _) => return Ok(None),
            (Segments::Tcp4, 4) | (Segments::Tcp6, 6) => false,
            (Segments::Udp, 4 | 6) => true,
            (Segments::Tcp4 | Segments::Tcp6 | Segments::Udp | Segments::Unknown(_), _) => {
                return Err(BadSegments);
            }
        };
        let v4 = version == 4;
        let transport = usize::from(header.checksum_start);
        let least = if v4 { V4_HEADER } else { V6_HEADER };
        let at = if udp { udp::CHECKSUM } else { tcp::CHECKSUM };
        let whole = segment::u16_at(packet, if v4 { v4::TOTAL_LENGTH } else { v6::PAYLOAD_LENGTH });
        let whole = usize::from(whole.ok_or(BadSegments)?) + if v4 { 0 } else { V6_HEADER };
        if !header.needs_checksum
            || usize::from(header.checksum_offset) != at
            || transport < least
            || header.segment == 0
            || whole != packet.len()
        {
            return Err(BadSegments);
        }
        let length = if udp {
            udp::HEADER
        } else {
            usize::from(packet.get(transport + tcp::OFFSET).ok_or(BadSegments)? >> 4) * 4
        };
        let payload = transport + length;
        if (!udp && length < tcp::HEADER) || payload >= packet.len() {
            return Err(BadSegments);
        }
        let partial = segment::u16_at(packet, transport + at).ok_or(BadSegments)?;
        // The sum that the kernel left is right whatever the headers in between say about the final
        // destination; only the length in it is the whole packet's.
        let pseudo = checksum::subtract(partial, (packet.len() - transport) as u16);
        let (end, segment) = (packet.len(), usize::from(header.segment));
        Ok(Some(Self { v4, udp, transport, payload, end, segment, pseudo, next: payload }))
    }

    /// Whether every segment has been made.
    pub const fn is_done(&self) -> bool {
        self.next >= self.end
    }

    /// Bytes that the next segment takes.
    pub fn next_len(&self) -> usize {
        self.payload + self.segment.min(self.end.saturating_sub(self.next))
    }

    /// Appends the next segment of `packet` to `out`, which is empty. `false` when there is none
    /// left, or no room for it (in which case it is still the next).
    pub fn next(&mut self, packet: &[u8], out: &mut PacketMut<'_>) -> bool {
        if self.is_done() {
            return false;
        }
        let to = self.next.saturating_add(self.segment).min(self.end);
        let parts = packet.get(..self.payload).zip(packet.get(self.next..to));
        let Some((headers, payload)) = parts else { return false };
        if out.tailroom() < headers.len() + payload.len() {
            return false;
        }
        if out.extend(headers).and_then(|()| out.extend(payload)).is_err() {
            return false;
        }
        let done = self.finish(out.as_mut_slice(), to == self.end).is_some();
        self.next = to;
        done
    }

    /// Writes what is different in this segment.
    fn finish(&self, bytes: &mut [u8], last: bool) -> Option<()> {
        let before = self.next - self.payload;
        let (ip, transport) = bytes.split_at_mut_checked(self.transport)?;
        let len = transport.len();
        if self.v4 {
            let id = segment::u16_at(ip, v4::ID)?.wrapping_add((before / self.segment) as u16);
            segment::put(ip, v4::ID, id.to_be_bytes())?;
            segment::put_v4_length(ip, self.transport + len)?;
        } else {
            segment::put(
                ip,
                v6::PAYLOAD_LENGTH,
                ((self.transport + len - V6_HEADER) as u16).to_be_bytes(),
            )?;
        }
        let at = if self.udp {
            segment::put(transport, udp::LENGTH, (len as u16).to_be_bytes())?;
            udp::CHECKSUM
        } else {
            let sequence = segment::u32_at(transport, tcp::SEQUENCE)?.wrapping_add(before as u32);
            segment::put(transport, tcp::SEQUENCE, sequence.to_be_bytes())?;
            let flags = transport.get_mut(tcp::FLAGS)?;
            if !last {
                *flags &= !(tcp::FIN | tcp::PSH);
            }
            // Whoever reduced the congestion window says so once (RFC 3168 6.1.2).
            if before > 0 {
                *flags &= !tcp::CWR;
            }
            tcp::CHECKSUM
        };
        segment::put(transport, at, [0, 0])?;
        let sum = checksum::add(self.pseudo, len as u16);
        let mut value = !checksum::add(sum, checksum::sum(transport));
        if self.udp && value == 0 {
            value = 0xffff;
        }
        segment::put(transport, at, value.to_be_bytes())
    }
}
