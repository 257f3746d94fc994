//! Damage anywhere: headers, lengths, options, checksums, ends that are missing. What the kernel makes of
//! packets that were put together is what it makes of the same packets written one by one, whatever it
//! forwards, drops or refuses. What the packets should look like is nobody's business here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sixgate::offload::coalesce::Part;
use sixgate::offload::vnet::{Segments, VnetHeader};
use sixgate::sys::netlink::{Link, Netlink};
use sixgate::sys::tun::{TunDevice, TunFailure};

use crate::segments::{Dice, Flow, random_batch, sum};
use crate::{put_together, router, write_plain};

/// Batches for each MTU.
const SEEDS: u64 = 700;

/// A batch as it is written, and which packets of it are not as their sender made them.
struct Batch {
    packets: Vec<Vec<u8>>,
    damaged: Vec<bool>,
}

impl Batch {
    /// With `small`, the packets must get through an MTU of 1280 bytes: in fragments if need be.
    fn random(dice: &mut Dice, small: bool) -> Self {
        let mut packets = random_batch(dice);
        for packet in &mut packets {
            packet.damage = None;
            if small {
                packet.flow.v6 = false;
                packet.fragment &= !0x4000;
            }
        }
        let mut packets: Vec<Vec<u8>> = packets.iter().map(|packet| packet.bytes()).collect();
        let mut damaged = vec![false; packets.len()];
        for _ in 0..dice.below(2 + packets.len() / 4) {
            // The same in a few packets in a row may agree with what the first of them says.
            let run = if dice.below(2) == 0 { 1 } else { 2 + dice.below(8) };
            let first = dice.below(packets.len());
            let harm = Harm::random(dice);
            for at in (first..packets.len()).take(run) {
                let mut after = packets[at].clone();
                harm.inflict(&mut after);
                // Too large, and not to be fragmented: that costs a shorter last segment its way, too.
                if !small || after.get(6).is_some_and(|flags| flags & 0x40 == 0) {
                    damaged[at] = damaged[at] || after != packets[at];
                    packets[at] = after;
                }
            }
        }
        Self { packets, damaged }
    }
}

/// What happens to one packet or to several.
struct Harm {
    kind: Kind,
    /// Whether the checksums agree with the packet afterwards, as if its sender had meant it.
    mends: (bool, bool),
}

enum Kind {
    Flip(usize),
    /// Bytes from there on.
    Write(usize, Vec<u8>),
    /// The same, counted from the transport header.
    Transport(usize, Vec<u8>),
    /// 16 bits that state a length, in the IP header or (`true`) the UDP header: by how much they are off.
    Length(bool, u16),
    /// A transport checksum that differs from the right one by so much.
    Checksum(u16),
    /// A right checksum of zero, in this of its two forms.
    Zero(u16),
    Cut(usize),
    Grow(Vec<u8>),
    /// An option in the IPv4 header, or an extension header of this kind.
    Extend(Vec<u8>, u8),
}

impl Harm {
    fn random(dice: &mut Dice) -> Self {
        let off = [1, 2, 8, 0xffff, 0xfffe, 0xfff8, 0x0100, 0x8000][dice.below(8)];
        let mut bytes = |most| (0..1 + dice.below(most)).map(|_| dice.byte()).collect::<Vec<u8>>();
        let (few, tail) = (bytes(4), bytes(20));
        let kind = match dice.below(13) {
            0 => Kind::Flip(dice.below(80 * 8)),
            1 => Kind::Flip(dice.below(1400 * 8)),
            2 => Kind::Write(dice.below(60), few),
            3 => Kind::Transport(dice.below(40), few),
            // Version and header length, class, fragment, TTL and protocol of IPv4; next header of IPv6.
            4 => Kind::Write([0, 1, 6, 7, 8, 9, 4][dice.below(7)], vec![few[0]]),
            // Data offset, flags, window, urgent pointer, options.
            5 => Kind::Transport([12, 13, 14, 18, 20, 21][dice.below(6)], vec![few[0]]),
            6 => Kind::Length(dice.below(2) == 0, off),
            7 => Kind::Checksum(off),
            8 => Kind::Zero([0, 0xffff][dice.below(2)]),
            9 => Kind::Cut(dice.below(1400)),
            10 => Kind::Cut(dice.below(80)),
            11 => Kind::Grow(tail),
            // Padding, a router alert, the way taken, nonsense; hop by hop, routing, fragment, destination.
            _ => Kind::Extend(
                [&[1, 1, 1, 0][..], &[148, 4, 0, 0], &[7, 7, 4, 0, 0, 0, 0, 0], &few]
                    [dice.below(4)]
                .to_vec(),
                [0, 43, 44, 60][dice.below(4)],
            ),
        };
        Self { kind, mends: (dice.below(4) != 0, dice.below(2) == 0) }
    }

    fn inflict(&self, packet: &mut Vec<u8>) {
        let mut transport = transport(packet);
        let write = |packet: &mut Vec<u8>, at: usize, bytes: &[u8]| {
            packet.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
        };
        let add = |packet: &mut Vec<u8>, at: usize, off: u16| {
            if let Some(field) = packet.get(at..at + 2) {
                let value = u16::from_be_bytes([field[0], field[1]]).wrapping_add(off);
                write(packet, at, &value.to_be_bytes());
            }
        };
        let v4 = is_v4(packet);
        match &self.kind {
            Kind::Flip(bit) => {
                packet.iter_mut().skip(bit / 8).take(1).for_each(|byte| *byte ^= 1 << (bit % 8));
            }
            Kind::Write(at, bytes) => write(packet, *at, bytes),
            Kind::Transport(at, bytes) => write(packet, transport + at, bytes),
            Kind::Length(false, off) => add(packet, if v4 { 2 } else { 4 }, *off),
            Kind::Length(true, off) => add(packet, transport + 4, *off),
            Kind::Checksum(off) => return add(packet, checksum_at(packet), *off),
            Kind::Zero(form) => {
                let at = checksum_at(packet);
                write(packet, at, &[0, 0]);
                // Two bytes of payload are what the sum still lacks.
                let free = transport + 60;
                write(packet, free, &[0, 0]);
                write(packet, free, &transport_checksum(packet).to_be_bytes());
                return write(packet, at, &form.to_be_bytes());
            }
            Kind::Cut(len) => packet.truncate(*len),
            Kind::Grow(tail) => packet.extend(tail),
            Kind::Extend(option, _) if v4 && packet.len() >= 20 => {
                let option: Vec<u8> = option.iter().copied().chain([0; 3]).collect();
                let words = option.len() / 4;
                packet.splice(20..20, option.into_iter().take(words * 4));
                packet[0] = packet[0].wrapping_add(words as u8);
                add(packet, 2, 4 * words as u16);
                transport += 4 * words;
            }
            Kind::Extend(option, kind) if !v4 && packet.len() >= 40 => {
                let start = [packet[6], 0, 1, 4, 0, 0, 0, 0];
                packet.splice(40..40, start);
                write(packet, 44, &option[..option.len().min(4)]);
                packet[6] = *kind;
                add(packet, 4, 8);
            }
            Kind::Extend(..) => {}
        }
        if self.mends.0 && v4 {
            write(packet, 10, &[0, 0]);
            let checksum = !sum(&[&packet[..transport.min(packet.len())]]);
            write(packet, 10, &checksum.to_be_bytes());
        }
        if self.mends.1 {
            let at = checksum_at(packet);
            write(packet, at, &[0, 0]);
            let checksum = transport_checksum(packet);
            write(packet, at, &checksum.to_be_bytes());
        }
    }
}

fn is_v4(packet: &[u8]) -> bool {
    packet.first().is_some_and(|byte| byte >> 4 == 4)
}

/// Where the transport header seems to start.
fn transport(packet: &[u8]) -> usize {
    match packet.first().copied().unwrap_or(0) {
        byte if byte >> 4 == 4 => usize::from(byte & 15) * 4,
        _ if packet.get(6) == Some(&60) => 48,
        _ => 40,
    }
}

fn protocol(packet: &[u8]) -> u8 {
    let at = match is_v4(packet) {
        true => 9,
        false if transport(packet) == 48 => 40,
        false => 6,
    };
    packet.get(at).copied().unwrap_or(0)
}

fn addresses(packet: &[u8]) -> &[u8] {
    packet.get(if is_v4(packet) { 12..20 } else { 8..40 }).unwrap_or_default()
}

fn checksum_at(packet: &[u8]) -> usize {
    transport(packet) + if protocol(packet) == 17 { 6 } else { 16 }
}

/// The checksum over what is there, if the field itself is zero.
fn transport_checksum(packet: &[u8]) -> u16 {
    let rest = packet.get(transport(packet)..).unwrap_or_default();
    let pseudo = [0, protocol(packet), (rest.len() >> 8) as u8, rest.len() as u8];
    !sum(&[addresses(packet), &pseudo, rest])
}

/// Whether it goes alone, and in its turn among all packets of its two hosts.
fn is_alone(packet: &[u8]) -> bool {
    let odd = match packet[0] {
        0x45 => u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0,
        first => first >> 4 == 4,
    };
    odd || !matches!(protocol(packet), 6 | 17) || transport(packet) == 48
}

/// The order in which each flow arrived, with what belongs to no flow between the same hosts.
fn in_order(all: &[Vec<u8>], fragmented: bool) -> BTreeMap<Vec<u8>, Vec<&Vec<u8>>> {
    let key = |packet: &[u8]| {
        let at = transport(packet);
        let ports = packet.get(at..at + 4).unwrap_or_default();
        [addresses(packet), &[protocol(packet)], ports].concat()
    };
    let mut flows: BTreeMap<Vec<u8>, Vec<&Vec<u8>>> =
        all.iter().filter(|p| !is_alone(p)).map(|p| (key(p), Vec::new())).collect();
    for packet in all {
        if !is_alone(packet) {
            flows.entry(key(packet)).or_default().push(packet);
        } else if !fragmented {
            let hosts = addresses(packet);
            let same = flows.iter_mut().filter(|(key, _)| key.starts_with(hosts));
            same.for_each(|(_, packets)| packets.push(packet));
        }
    }
    flows
}

/// What became of a batch.
#[derive(Default)]
struct Outcome {
    delivered: Vec<Vec<u8>>,
    refused: Vec<Vec<u8>>,
    /// Packets that were part of a piece, and how many of them were damaged.
    joined: (usize, usize),
}

/// Writes the batch, put together or one by one, and waits for what comes out.
fn pass(devices: &(TunDevice, TunDevice), batch: &Batch, join: bool) -> Outcome {
    let (inside, outside) = devices;
    let mut outcome = Outcome::default();
    let mut memory = batch.packets.concat();
    let mut start = 0;
    let parts: Vec<Part> = batch
        .packets
        .iter()
        .map(|packet| {
            start += packet.len();
            Part { start: start - packet.len(), len: packet.len() }
        })
        .collect();
    let mut write = |header: &VnetHeader, memory: &[u8], pieces: &[Part]| {
        match inside.write(header, memory, pieces) {
            Ok(()) => {}
            Err(TunFailure::Refused) if header.segments == Segments::None => {
                outcome.refused.push(pieces[0].of(memory).to_vec());
            }
            Err(failure) => panic!("{failure:?}: {header:?} {pieces:?}"),
        }
        if header.segments != Segments::None {
            let whole = |piece: &Part| {
                parts.iter().position(|p| (p.start..p.start + p.len).contains(&piece.start))
            };
            let damaged = |piece: &&Part| whole(piece).is_some_and(|at| batch.damaged[at]);
            outcome.joined.0 += pieces.len();
            outcome.joined.1 += pieces.iter().filter(damaged).count();
        }
    };
    if join {
        put_together(inside, &mut memory, &parts, &mut write);
    } else {
        parts.iter().for_each(|part| write(&VnetHeader::PLAIN, &memory, &[*part]));
    }
    let mut sentinel = Flow::random(&mut Dice::new(0));
    sentinel.ends = (3, 9);
    let sentinel = sentinel.packet(&mut Dice::new(1), true, 16).bytes();
    write_plain(inside, &sentinel).unwrap();
    outcome.delivered = until(outside, &sentinel);
    outcome
}

/// Everything that was forwarded before the sentinel.
fn until(device: &TunDevice, sentinel: &[u8]) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; 70_000];
    let mut packets = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match device.read(&mut buffer) {
            Ok((_, len)) => {
                let packet = &buffer[..len];
                // The kernel's own have its address, which is none or link-local.
                let own = match is_v4(packet) {
                    true => packet[12..16] == [0; 4],
                    false => packet[8..24] == [0; 16] || packet[8..10] == [0xfe, 0x80],
                };
                if packet.ends_with(&sentinel[sentinel.len() - 24..]) {
                    return packets;
                }
                if !own {
                    packets.push(packet.to_vec());
                }
            }
            Err(TunFailure::Empty) => {
                assert!(Instant::now() < deadline, "the sentinel was lost");
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(failure) => panic!("{failure:?}"),
        }
    }
}

/// A packet that is in `all` more often than in `others`.
fn only_in<'a>(all: &'a [Vec<u8>], others: &[Vec<u8>]) -> Option<&'a Vec<u8>> {
    let mut counts = BTreeMap::new();
    others.iter().for_each(|packet| *counts.entry(packet).or_insert(0) += 1);
    all.iter().find(|packet| match counts.get_mut(packet) {
        None | Some(0) => true,
        Some(count) => {
            *count -= 1;
            false
        }
    })
}

#[test]
#[ignore = "needs root: tests/run interop runs it"]
fn damaged_packets_fare_no_better_or_worse_put_together() {
    let devices = router(false);
    let (mut joined, mut damaged, mut lost, mut refused) = (0, 0, 0, 0);
    for mtu in [1500, 1280] {
        let small = mtu < 1500;
        let link = Link { mtu, up: true };
        Netlink::open().unwrap().set_link(devices.1.index(), link).unwrap();
        for seed in 0..SEEDS {
            let case = format!("seed {seed} MTU {mtu}");
            let batch = Batch::random(&mut Dice::new(seed), small);
            let single = pass(&devices, &batch, false);
            let together = pass(&devices, &batch, true);
            assert_eq!(single.joined.0, 0, "{case}");
            let same = in_order(&single.delivered, small) == in_order(&together.delivered, small);
            for (name, one, other) in [
                ("lost", &single.delivered, &together.delivered),
                ("new", &together.delivered, &single.delivered),
                ("refused", &single.refused, &together.refused),
                ("not refused", &together.refused, &single.refused),
            ] {
                let only = only_in(one, other);
                let start = only.map(|packet| &packet[..packet.len().min(80)]);
                assert!(only.is_none(), "{case}: {name}: {start:02x?}");
            }
            assert!(same, "{case}: another order");
            joined += together.joined.0;
            damaged += together.joined.1;
            // In the other round, fragments make up for what is lost.
            lost += if small { 0 } else { batch.packets.len() - single.delivered.len() };
            refused += single.refused.len();
        }
    }
    // Or else nothing was tried.
    assert!(joined > 20_000, "only {joined} packets were put together");
    assert!(damaged > 1_000, "only {damaged} of them were damaged");
    assert!(lost > 1_000 && refused > 100, "{lost} lost, {refused} refused");
}
