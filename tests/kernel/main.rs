//! What the kernel makes of pieces, against the model and against what was put in: two TUN devices in
//! a network namespace of their own, and the kernel routing from one to the other. That needs root,
//! so these tests run only when asked for, as `tests/run interop` does.
//!
//! Here is what senders mean to send; `damage` is what may be left of it, `sockets` what a kernel sends itself.

#[allow(dead_code, reason = "the rest is for tests/offload.rs")]
#[path = "../common/segments.rs"]
mod segments;

mod damage;
mod sockets;

use std::fs;
use std::time::{Duration, Instant};

use segments::{Dice, Flow, model_split, random_batch};
use sixgate::buf::PacketMut;
use sixgate::offload::coalesce::{Coalescer, Part};
use sixgate::offload::split::{Splitter, complete};
use sixgate::offload::vnet::VnetHeader;
use sixgate::sys::netlink::{Link, Netlink, Route};
use sixgate::sys::tun::{TunDevice, TunFailure};

/// Puts this thread into a network namespace of its own.
fn leave() {
    // SAFETY: affects this thread only.
    #[allow(unsafe_code)]
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
    assert!(unshared, "network namespaces need root");
}

/// The way in with offload, and the way out with or without.
fn router(offload: bool) -> (TunDevice, TunDevice) {
    leave();
    // This folder is the writing thread's own namespace.
    let set = |name: &str, value: &str| fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
    for which in ["all", "default"] {
        set(&format!("ipv4/conf/{which}/rp_filter"), "0");
        set(&format!("ipv6/conf/{which}/forwarding"), "1");
    }
    set("ipv4/ip_forward", "1");
    let (inside, outside) = (
        TunDevice::open(Some("in0"), true).unwrap(),
        TunDevice::open(Some("out0"), offload).unwrap(),
    );
    let mut netlink = Netlink::open().unwrap();
    for device in [&inside, &outside] {
        netlink.set_link(device.index(), Link { mtu: 1500, up: true }).unwrap();
    }
    for (destination, device) in [
        ("10.0.0.0/14", &inside),
        ("fd00::/22", &inside),
        ("10.9.0.0/16", &outside),
        ("fd00:900::/32", &outside),
    ] {
        let destination = destination.parse().unwrap();
        netlink
            .add_route(&Route { destination, gateway: None, interface: device.index(), metric: 0 })
            .unwrap();
    }
    (inside, outside)
}

/// A packet as it is one hop later.
fn forwarded(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
    } else {
        packet[8] -= 1;
        let sum = u32::from(u16::from_be_bytes([packet[10], packet[11]])) + 0x100;
        let sum = (sum & 0xffff) + (sum >> 16);
        packet[10..12].copy_from_slice(&(sum as u16).to_be_bytes());
    }
    packet
}

/// Reads `wanted` packets for our destinations, pieces taken apart; also how many reads that took.
fn drain(device: &TunDevice, wanted: usize) -> (Vec<Vec<u8>>, usize) {
    let mut buffer = vec![0; 70_000];
    let (mut packets, mut reads) = (Vec::new(), 0);
    let deadline = Instant::now() + Duration::from_secs(2);
    while packets.len() < wanted && Instant::now() < deadline {
        let (header, len) = match device.read(&mut buffer) {
            Ok(read) => read,
            Err(TunFailure::Empty) => {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            Err(failure) => panic!("{failure:?}"),
        };
        let ours = match buffer[0] >> 4 {
            4 => buffer[16..18] == [10, 9],
            _ => buffer[24..27] == [0xfd, 0, 9],
        };
        if !ours {
            continue;
        }
        reads += 1;
        let piece = &mut buffer[..len];
        take_apart(&header, piece, |packet| packets.push(packet.to_vec()));
    }
    (packets, reads)
}

/// Hands the packets of a piece to `put`.
fn take_apart(header: &VnetHeader, piece: &mut [u8], mut put: impl FnMut(&[u8])) {
    let Some(mut splitter) = Splitter::new(header, piece).unwrap() else {
        complete(header, piece).unwrap();
        return put(piece);
    };
    let mut memory = vec![0; 2_000];
    while !splitter.is_done() {
        let mut out = PacketMut::new(&mut memory, 0, 0).unwrap();
        assert!(splitter.next(piece, &mut out));
        put(out.as_slice());
    }
}

/// Puts a batch together as the device takes it.
fn put_together(
    device: &TunDevice,
    memory: &mut [u8],
    parts: &[Part],
    write: &mut impl FnMut(&VnetHeader, &[u8], &[Part]),
) {
    let mut coalescer = Coalescer::new(device.takes_datagrams());
    parts.iter().for_each(|part| coalescer.push(memory, *part, write));
    coalescer.flush(memory, write);
}

/// A packet on its own.
fn write_plain(device: &TunDevice, packet: &[u8]) -> Result<(), TunFailure> {
    device.write(&VnetHeader::PLAIN, packet, &[Part { start: 0, len: packet.len() }])
}

fn write(device: &TunDevice, header: &VnetHeader, memory: &[u8], parts: &[Part]) {
    device.write(header, memory, parts).unwrap();
}

#[test]
#[ignore = "needs root: tests/run interop runs it"]
fn what_is_put_together_leaves_the_kernel_byte_for_byte() {
    for offload in [false, true] {
        let (inside, outside) = router(offload);
        let (mut put_in, mut reads) = (0, 0);
        for seed in 0..300 {
            let mut packets = random_batch(&mut Dice::new(seed));
            for packet in &mut packets {
                // A router drops what is damaged in the IP header; the payload is none of its business.
                let headers = packet.bytes().len() - packet.payload.len();
                packet.damage = packet.damage.filter(|bit| bit / 8 >= headers);
            }
            let mut memory = Vec::new();
            let parts: Vec<Part> = packets
                .iter()
                .map(|packet| {
                    let bytes = packet.bytes();
                    memory.extend(&bytes);
                    Part { start: memory.len() - bytes.len(), len: bytes.len() }
                })
                .collect();
            let mut to_kernel = |header: &VnetHeader, memory: &[u8], parts: &[Part]| {
                write(&inside, header, memory, parts)
            };
            put_together(&inside, &mut memory, &parts, &mut to_kernel);
            let mut expected: Vec<_> =
                packets.iter().map(|packet| forwarded(packet.bytes())).collect();
            let (mut found, count) = drain(&outside, expected.len());
            (put_in, reads) = (put_in + packets.len(), reads + count);
            expected.sort();
            found.sort();
            assert_eq!(found.len(), expected.len(), "seed {seed} offload {offload}");
            assert!(found == expected, "seed {seed} offload {offload}");
        }
        if outside.takes_segments() {
            assert!(reads * 2 < put_in, "{reads} reads for {put_in} packets");
        }
    }
}

#[test]
#[ignore = "needs root: tests/run interop runs it"]
fn pieces_are_split_as_the_kernel_does() {
    let (inside, outside) = router(false);
    assert_eq!(outside.offloads(), "off");
    let mut dice = Dice::new(9);
    for round in 0..500 {
        let mut flow = Flow::random(&mut dice);
        let udp = inside.offloads().contains("uso") && dice.below(3) == 0;
        let mss = 100 + dice.below(1200);
        // A single datagram makes no piece.
        let payload = mss + 1 + dice.below(20 * mss);
        flow.ends.1 = 9;
        let packet = flow.packet(&mut dice, udp, payload);
        let (header, bytes) = packet.piece(mss);
        let part = Part { start: 0, len: bytes.len() };
        write(&inside, &header, &bytes, &[part]);
        let expected: Vec<_> = model_split(&header, &bytes).into_iter().map(forwarded).collect();
        let (found, _) = drain(&outside, expected.len());
        assert_eq!(found.len(), expected.len(), "round {round} {header:?}");
        assert!(found == expected, "round {round} {header:?}");
    }
}
