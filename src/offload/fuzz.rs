//! Bodies of the fuzz targets of this ring; see `wire::fuzz`.

use crate::buf::PacketMut;
use crate::offload::checksum;
use crate::offload::coalesce::{Coalescer, Part};
use crate::offload::segment::{self, tcp, udp, v4};
use crate::offload::split::{Splitter, complete};
use crate::offload::vnet::{self, Segments, VnetHeader};
use crate::wire::ip::{V4_HEADER, V6_HEADER, protocol};

/// Any piece from the device under any header: refused, or as many segments as it says.
pub fn split(bytes: &[u8]) {
    let Some((header, packet)) = bytes.split_first_chunk::<{ vnet::LEN }>() else { return };
    let header = VnetHeader::parse(header);
    let mut copy = packet.to_vec();
    let _ = complete(&header, &mut copy);
    assert_eq!(copy.len(), packet.len());
    let Some(all) = segments(&header, packet) else { return };
    let payload: usize = all.iter().map(Vec::len).sum();
    assert!(payload >= packet.len() && all.len() <= packet.len());
}

fn segments(header: &VnetHeader, packet: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut splitter = Splitter::new(header, packet).ok()??;
    let mut memory = vec![0xee; packet.len() + 128];
    let mut all = Vec::new();
    while !splitter.is_done() {
        let mut out = PacketMut::new(&mut memory, 64, 64)?;
        let len = splitter.next_len();
        if !splitter.next(packet, &mut out) {
            return None;
        }
        assert_eq!(out.len(), len);
        all.push(out.as_slice().to_vec());
    }
    Some(all)
}

/// A batch of packets of a few flows, some damaged: put together and taken apart again they are the
/// same ones, and those of a flow in their order.
pub fn coalesce(bytes: &[u8]) {
    let packets = batch(bytes);
    let mut memory = Vec::new();
    let mut parts = Vec::new();
    for packet in &packets {
        parts.push(Part { start: memory.len(), len: packet.len() });
        memory.extend_from_slice(packet);
    }
    let mut written: Vec<Vec<u8>> = Vec::new();
    let mut write = |header: &VnetHeader, memory: &[u8], parts: &[Part]| {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.of(memory)).copied().collect();
        if header.segments == Segments::None {
            written.push(bytes);
        } else {
            let apart = segments(header, &bytes);
            assert!(apart.as_ref().is_some_and(|apart| apart.len() > 1));
            written.extend(apart.unwrap_or_default());
        }
    };
    let mut coalescer = Coalescer::new(true);
    for part in parts {
        coalescer.push(&mut memory, part, &mut write);
    }
    coalescer.flush(&mut memory, &mut write);
    assert_eq!(written.len(), packets.len());
    // Protocol, addresses and ports, as damaged as they may be; what is neither IPv4 nor IPv6 has no flow.
    let flow = |packet: &[u8]| match packet.first() {
        Some(0x45) => Some((packet.get(9).copied(), packet.get(12..24)?.to_vec())),
        Some(0x40..0x50 | 0x60..0x70) => {
            Some((packet.get(6).copied(), packet.get(8..44)?.to_vec()))
        }
        _ => Some((None, packet.to_vec())),
    };
    for packet in &packets {
        let same = |other: &&Vec<u8>| flow(other) == flow(packet);
        let before: Vec<&Vec<u8>> = packets.iter().filter(same).collect();
        let after: Vec<&Vec<u8>> = written.iter().filter(same).collect();
        assert_eq!(before, after, "of {packet:?}");
    }
    let mut packets = packets;
    packets.sort();
    written.sort();
    assert!(packets == written, "a packet has changed");
}

/// Segments and datagrams as the input says: flow, family, size, flags, a jump in the sequence, damage.
fn batch(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut sequences = [1_000_u32, u32::MAX - 2_000, 7, 1 << 31];
    let mut ids = [1_u16, u16::MAX - 2, 9, 0x8000];
    let mut packets = Vec::new();
    for op in bytes.as_chunks::<4>().0.iter().take(60) {
        let [what, size, flags, damage] = *op;
        let flow = usize::from(what & 3);
        let (Some(sequence), Some(id)) = (sequences.get_mut(flow), ids.get_mut(flow)) else {
            continue;
        };
        if what & 0x30 == 0x30 {
            *sequence = sequence.wrapping_add(u32::from(size));
        }
        let payload = vec![what; usize::from(size) * 4];
        let mut tcp =
            vec![0, 80, 0, what & 3, 0, 0, 0, 0, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0];
        let _ = segment::put(&mut tcp, tcp::SEQUENCE, sequence.to_be_bytes());
        if flags & 0xc0 == 0xc0
            && let Some(place) = tcp.get_mut(tcp::FLAGS)
        {
            *place |= flags & 0x3f;
        }
        *sequence = sequence.wrapping_add(payload.len() as u32);
        *id = id.wrapping_add(1);
        let datagram = what & 0x48 == 0x48;
        let (protocol, at) =
            if datagram { (protocol::UDP, udp::CHECKSUM) } else { (protocol::TCP, tcp::CHECKSUM) };
        if datagram {
            tcp.truncate(udp::HEADER);
            let len = (udp::HEADER + payload.len()) as u16;
            let _ = segment::put(&mut tcp, udp::LENGTH, len.to_be_bytes());
            let _ = segment::put(&mut tcp, udp::CHECKSUM, [0, 0]);
        }
        tcp.extend_from_slice(&payload);
        let mut packet = if what & 4 == 0 {
            v4_header(flow as u8, *id, tcp.len(), protocol)
        } else {
            v6_header(flow as u8, tcp.len(), protocol)
        };
        let addresses = if what & 4 == 0 { packet.get(12..20) } else { packet.get(8..40) };
        let pseudo = checksum::pseudo(addresses.unwrap_or_default(), protocol, tcp.len());
        let sum = !checksum::add(pseudo, checksum::sum(&tcp));
        // Zero stays zero, which a datagram without a checksum has.
        let _ = segment::put(&mut tcp, at, sum.to_be_bytes());
        packet.extend_from_slice(&tcp);
        let at = usize::from(damage) % packet.len();
        if damage > 0 && damage < 100 {
            packet.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (damage & 7));
        }
        packets.push(packet);
    }
    packets
}

fn v4_header(flow: u8, id: u16, len: usize, protocol: u8) -> Vec<u8> {
    let mut header =
        vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 8, 0, 2, 10, 9, 9, flow];
    let _ = segment::put(&mut header, v4::ID, id.to_be_bytes());
    let _ = segment::put_v4_length(&mut header, V4_HEADER + len);
    header
}

fn v6_header(flow: u8, len: usize, protocol: u8) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
    let _ = segment::put(&mut header, 4, (len as u16).to_be_bytes());
    header.extend_from_slice(&[0xfd; 31]);
    header.push(flow);
    debug_assert_eq!(header.len(), V6_HEADER);
    header
}
