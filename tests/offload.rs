//! Splitting and putting together against a slow, obvious model: every segment is built from its
//! fields anew, with checksums word by word. What the kernel makes of the same is tested where there
//! is a kernel to ask (`tests/kernel`).

use crate::segments;
use crate::segments::{Dice, Flow, Packet, model_split, random_batch};
use sixgate::buf::PacketMut;
use sixgate::offload::coalesce::{Coalescer, Part};
use sixgate::offload::outbox::{Outbox, first_run};
use sixgate::offload::split::{Splitter, complete};
use sixgate::offload::vnet::{Segments, VnetHeader};

/// What the splitter makes of it.
fn split(header: &VnetHeader, packet: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut splitter = Splitter::new(header, packet).ok()??;
    let mut memory = vec![0xee; 70_000];
    let mut all = Vec::new();
    while !splitter.is_done() {
        let mut out = PacketMut::new(&mut memory, 128, 128).unwrap();
        let len = splitter.next_len();
        assert!(splitter.next(packet, &mut out));
        assert_eq!(out.len(), len);
        all.push(out.as_slice().to_vec());
    }
    Some(all)
}

#[test]
fn pieces_are_split_as_the_model_does() {
    let mut dice = Dice::new(1);
    for round in 0..500 {
        let flow = Flow::random(&mut dice);
        let udp = dice.below(3) == 0;
        let mss = 1 + dice.below(1500);
        let payload = (1 + dice.below(40)) * mss + dice.below(mss);
        let payload = payload.min(65_000 - 200);
        let packet = flow.packet(&mut dice, udp, payload);
        let (header, bytes) = packet.piece(mss);
        let expected = model_split(&header, &bytes);
        assert_eq!(split(&header, &bytes).unwrap(), expected, "round {round}: {header:?}");
        assert!(expected.iter().all(|segment| segments::intact(segment)));
        // A piece without segments is a packet whose checksum is to be completed.
        let mut whole = bytes.clone();
        let single = VnetHeader { segments: Segments::None, segment: 0, ..header };
        complete(&single, &mut whole).unwrap();
        assert!(segments::intact(&whole));
        assert_eq!(whole, packet.bytes());
    }
}

#[test]
fn contradictions_are_refused_and_nothing_panics() {
    let mut dice = Dice::new(2);
    for _ in 0..5_000 {
        let flow = Flow::random(&mut dice);
        let udp = dice.below(2) == 0;
        let payload = 1 + dice.below(3000);
        let (header, mut bytes) = flow.packet(&mut dice, udp, payload).piece(1000);
        let mut raw = header.to_bytes();
        for _ in 0..dice.below(3) {
            raw[dice.below(10)] = dice.byte();
        }
        for _ in 0..dice.below(3) {
            let at = dice.below(bytes.len().min(80));
            bytes[at] = dice.byte();
        }
        if dice.below(4) == 0 {
            bytes.truncate(dice.below(bytes.len() + 1));
        }
        let header = VnetHeader::parse(&raw);
        if let Some(all) = split(&header, &bytes) {
            assert!(all.iter().map(Vec::len).sum::<usize>() >= bytes.len());
        }
        let _ = complete(&header, &mut bytes);
    }
}

fn coalesce(packets: &[Packet], datagrams: bool) -> Vec<(VnetHeader, Vec<u8>)> {
    let packets: Vec<Vec<u8>> = packets.iter().map(Packet::bytes).collect();
    coalesce_bytes(&packets, datagrams)
}

/// Feeds `packets` to a coalescer; returns what it writes, header and bytes.
fn coalesce_bytes(packets: &[Vec<u8>], datagrams: bool) -> Vec<(VnetHeader, Vec<u8>)> {
    let mut memory = Vec::new();
    let mut coalescer = Coalescer::new(datagrams);
    let parts: Vec<Part> = packets
        .iter()
        .map(|bytes| {
            // Junk in between must stay out of it.
            memory.extend([0xdd; 7]);
            memory.extend(bytes);
            Part { start: memory.len() - bytes.len(), len: bytes.len() }
        })
        .collect();
    let mut written = Vec::new();
    let mut write = |header: &VnetHeader, memory: &[u8], parts: &[Part]| {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.of(memory)).copied().collect();
        written.push((*header, bytes));
    };
    for part in parts {
        coalescer.push(&mut memory, part, &mut write);
    }
    coalescer.flush(&mut memory, &mut write);
    written
}

#[test]
fn what_is_put_together_comes_apart_byte_for_byte_and_in_order() {
    let (mut joined, mut datagrams) = (0, 0);
    for seed in 0..600 {
        let mut dice = Dice::new(seed);
        let packets = random_batch(&mut dice);
        let takes_datagrams = seed % 3 != 0;
        let written = coalesce(&packets, takes_datagrams);
        let mut out = Vec::new();
        for (header, bytes) in &written {
            if header.segments == Segments::None {
                assert_eq!(*header, VnetHeader::PLAIN);
                out.push(bytes.clone());
            } else {
                let apart = model_split(header, bytes);
                assert!(apart.len() > 1, "seed {seed}");
                joined += apart.len();
                if header.segments == Segments::Udp {
                    assert!(takes_datagrams, "seed {seed}");
                    datagrams += apart.len();
                }
                out.extend(apart);
            }
        }
        assert_eq!(out.len(), packets.len(), "seed {seed}");
        // Where each came out. Equal packets are the same flow's, and in any order the same.
        let mut place = vec![None; packets.len()];
        for (at, bytes) in out.iter().enumerate() {
            let from = packets
                .iter()
                .enumerate()
                .find(|(i, packet)| place[*i].is_none() && packet.bytes() == *bytes);
            let Some((from, _)) = from else { panic!("seed {seed}: output {at} was never put in") };
            place[from] = Some(at);
        }
        for (i, first) in packets.iter().enumerate() {
            for (j, second) in packets.iter().enumerate().skip(i + 1) {
                if first.must_precede(second) {
                    assert!(place[i] < place[j], "seed {seed}: {i} after {j}");
                }
            }
        }
    }
    assert!(joined > 3_000, "only {joined} packets were put together");
    assert!(datagrams > 500, "only {datagrams} datagrams were put together");
}

#[test]
fn a_bulk_transfer_becomes_few_writes() {
    let mut dice = Dice::new(5);
    for (v6, udp) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut flow = Flow::random(&mut dice);
        (flow.v6, flow.udp) = (v6, udp);
        let packets: Vec<Packet> = (0..45).map(|_| flow.next(&mut dice, 1300)).collect();
        assert_eq!(coalesce(&packets, false).len(), if udp { 45 } else { 1 });
        let written = coalesce(&packets, true);
        assert_eq!(written.len(), 1, "{written:?}");
        let (header, bytes) = &written[0];
        assert_eq!((header.segment, header.needs_checksum), (1300, true));
        assert_eq!(split(header, bytes).unwrap().len(), 45);
    }
}

/// Three packets of a flow; a checksum of the one in the middle is zero, in the form given: that of the
/// IPv4 header with `outer`, or else that of TCP or UDP. Returns how many writes they are.
fn writes_with_zero(v6: bool, udp: bool, outer: bool, form: u16) -> usize {
    let mut dice = Dice::new(7);
    let mut flow = Flow::random(&mut dice);
    (flow.v6, flow.udp) = (v6, udp);
    let mut packets: Vec<Packet> = (0..3).map(|_| flow.next(&mut dice, 100)).collect();
    let (header, _) = packets[1].piece(100);
    let at = match outer {
        true => 10,
        false => usize::from(header.checksum_start + header.checksum_offset),
    };
    if outer {
        let is_zero = |id: &u16| {
            packets[1].flow.id = *id;
            packets[1].bytes()[at..at + 2] == [0, 0]
        };
        let id = (0..=u16::MAX).find(is_zero).unwrap();
        (packets[0].flow.id, packets[2].flow.id) = (id.wrapping_sub(1), id.wrapping_add(1));
    } else {
        // What the sum over all the rest lacks.
        packets[1].payload[..2].fill(0);
        let lacking = packets[1].bytes()[at..at + 2].to_vec();
        packets[1].payload[..2].copy_from_slice(&lacking);
    }
    let mut all: Vec<Vec<u8>> = packets.iter().map(Packet::bytes).collect();
    all[1][at..at + 2].copy_from_slice(&form.to_be_bytes());
    // Whoever does not care for the form finds nothing wrong with it.
    assert!(all.iter().all(|packet| segments::intact(packet)));
    let written = coalesce_bytes(&all, true);
    let apart = written.iter().flat_map(|(header, bytes)| match header.segments {
        Segments::None => vec![bytes.clone()],
        _ => model_split(header, bytes),
    });
    assert!(apart.eq(all), "v6 {v6} UDP {udp} outer {outer} {form:04x}");
    written.len()
}

/// In ones' complement zero has two forms, and a checksum of either is right. One that the kernel would write
/// anew in the other form must not be part of a piece.
#[test]
fn a_checksum_of_zero_keeps_its_form() {
    for v6 in [false, true] {
        assert_eq!(writes_with_zero(v6, false, false, 0), 3);
        assert_eq!(writes_with_zero(v6, false, false, 0xffff), 3);
        assert_eq!(writes_with_zero(v6, true, false, 0xffff), 1);
    }
    for udp in [false, true] {
        assert_eq!(writes_with_zero(false, udp, true, 0), 1);
        assert_eq!(writes_with_zero(false, udp, true, 0xffff), 3);
    }
}

#[test]
fn runs_of_datagrams_are_what_the_kernel_takes() {
    use sixgate::engine::Endpoint;
    let to = |n: u16| Endpoint::new(([192, 0, 2, 1], n).into());
    let mut dice = Dice::new(6);
    for _ in 0..2000 {
        let mut outbox = Outbox::new();
        let mut start = 0;
        while dice.below(30) != 0 {
            let len = [1400, 1400, 1400, 1400, 700, 1500][dice.below(6)];
            if !outbox.push(to(dice.below(8) as u16 / 7), Part { start, len }) {
                assert!(outbox.is_full());
                break;
            }
            start += len;
        }
        let largest = [0, 1450, usize::MAX][dice.below(3)];
        let before = outbox.waiting().to_vec();
        let mut seen = 0;
        while !outbox.is_empty() {
            let count = first_run(outbox.waiting(), largest);
            let run = &outbox.waiting()[..count];
            let (first, last) = (run[0], run[count - 1]);
            assert!(run.iter().all(|d| d.to == first.to));
            assert!(run[..count - 1].iter().all(|d| d.part.len == first.part.len));
            assert!(last.part.len <= first.part.len && count <= 64);
            assert!(run.iter().map(|d| d.part.len).sum::<usize>() <= 65_507);
            assert!(count == 1 || first.part.len <= largest);
            assert_eq!(first.part.start, before[seen].part.start);
            // It could not have been longer.
            if let Some(next) = outbox.waiting().get(count)
                && first.part.len <= largest
                && last.part.len == first.part.len
                && next.to == first.to
                && next.part.len <= first.part.len
            {
                assert!((count + 1) * first.part.len > 65_000 - 1500);
            }
            seen += count;
            outbox.sent(count);
        }
        assert_eq!(seen, before.len());
    }
}
