//! The packet path takes no memory from the heap: a counting allocator proves it, per thread, so
//! that the tests do not disturb one another. First the parts, then both engines whole.

mod common;
#[allow(dead_code, reason = "the rest is for tests/offload.rs")]
#[path = "common/segments.rs"]
mod segments;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::net::Net;
use common::packets::echo;
use common::pki::Site;
use segments::{Dice, Flow};
use sixgate::buf::{PacketBuf, PacketMut};
use sixgate::config::{CipherName, Digest};
use sixgate::engine::{Endpoint, Verdict};
use sixgate::offload::coalesce::{Coalescer, Part};
use sixgate::offload::outbox::{Datagram, Outbox, first_run};
use sixgate::offload::split::Splitter;
use sixgate::offload::vnet::VnetHeader;
use sixgate::session::Role;
use sixgate::session::data::{DataKeys, Format};
use sixgate::session::keys::KeyBlock;
use sixgate::session::wrap::Wrap;
use sixgate::time::UnixTime;
use sixgate::wire::control::{AckList, Body, Header, KeyId, MessageId, Opcode, SessionId};
use sixgate::wire::static_key::StaticKey;

thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands everything to the system's allocator; counting allocates nothing, as the thread's
// counter needs no initialisation at run time.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = TAKEN.try_with(|taken| taken.set(taken.get() + 1));
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = TAKEN.try_with(|taken| taken.set(taken.get() + 1));
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `work` took memory.
fn taken_by(work: impl FnOnce()) -> usize {
    let before = TAKEN.get();
    work();
    TAKEN.get() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(taken_by(|| drop(std::hint::black_box(vec![0_u8; 10]))), 1);
    assert_eq!(taken_by(|| ()), 0);
}

#[test]
fn data_packets() {
    let block = KeyBlock::from_exporter_bytes(&[7; 256]);
    for cipher in [CipherName::ChaCha20Poly1305, CipherName::Aes256Gcm, CipherName::Aes128Gcm] {
        for format in [Format::Classic, Format::Epoch] {
            let mut client = DataKeys::new(cipher, &block, Role::Client, format).unwrap();
            let mut server = DataKeys::new(cipher, &block, Role::Server, format).unwrap();
            let mut buf = PacketBuf::new();
            let mut forged = PacketBuf::new();
            let taken = taken_by(|| {
                for _ in 0..100 {
                    let mut packet = buf.packet_from(&[0x45; 1400]).unwrap();
                    client.seal(KeyId::ZERO, Some(1), &mut packet).unwrap();
                    let mut other = forged.packet_from(packet.as_slice()).unwrap();
                    other.as_mut_slice()[700] ^= 1;
                    assert!(server.open(&mut other).is_err());
                    server.open(&mut packet).unwrap();
                    assert_eq!(packet.as_slice(), [0x45; 1400]);
                }
            });
            assert_eq!(taken, 0, "{cipher:?} {format:?}");
        }
    }
}

/// A piece of 40 segments: split, sealed, in runs, opened, put together, all in memory taken before.
#[test]
fn pieces_of_many_packets() {
    for udp in [false, true] {
        pieces(udp);
    }
}

fn pieces(udp: bool) {
    let block = KeyBlock::from_exporter_bytes(&[7; 256]);
    let cipher = CipherName::ChaCha20Poly1305;
    let mut client = DataKeys::new(cipher, &block, Role::Client, Format::Classic).unwrap();
    let mut server = DataKeys::new(cipher, &block, Role::Server, Format::Classic).unwrap();
    let mut flow = Flow::random(&mut Dice::new(1));
    flow.udp = udp;
    let (header, piece) = flow.next(&mut Dice::new(2), 40 * 1300).piece(1300);
    let to = Endpoint::new("192.0.2.1:1194".parse().unwrap());
    let mut memory = vec![0; 40 * 2048];
    let (mut outbox, mut coalescer) = (Outbox::new(), Coalescer::new(true));
    let taken = taken_by(|| {
        for _ in 0..10 {
            let mut splitter = Splitter::new(&header, &piece).unwrap().unwrap();
            let mut slots = memory.as_chunks_mut::<2048>().0.iter_mut().enumerate();
            while !splitter.is_done() {
                let (at, slot) = slots.next().unwrap();
                let mut packet = PacketMut::new(slot, 128, 128).unwrap();
                assert!(splitter.next(&piece, &mut packet));
                client.seal(KeyId::ZERO, Some(1), &mut packet).unwrap();
                let start = at * 2048 + packet.start();
                assert!(outbox.push(to, Part { start, len: packet.len() }));
            }
            assert_eq!(first_run(outbox.waiting(), 1500), 40);
            let mut writes = 0;
            let mut write = |header: &VnetHeader, _: &[u8], parts: &[Part]| {
                writes += 1;
                assert_eq!((header.segment, parts.len()), (1300, 40));
            };
            for Datagram { part, .. } in outbox.waiting() {
                let datagram = &mut memory[part.start..part.start + part.len];
                let mut packet = PacketMut::new(datagram, 0, part.len).unwrap();
                server.open(&mut packet).unwrap();
                let opened = Part { start: part.start + packet.start(), len: packet.len() };
                coalescer.push(&mut memory, opened, &mut write);
            }
            coalescer.flush(&mut memory, &mut write);
            outbox.sent(40);
            assert_eq!(writes, 1);
        }
    });
    assert_eq!(taken, 0);
}

#[test]
fn control_packets() {
    let key = StaticKey::new([9; 256]);
    let auth = |direction| Wrap::tls_auth(&key, Some(direction), Digest::Sha512);
    for (mut client, mut server) in [
        (Wrap::none(), Wrap::none()),
        (Wrap::tls_crypt(&key, Role::Client), Wrap::tls_crypt(&key, Role::Server)),
        (auth(1), auth(0)),
    ] {
        let session = SessionId([1; 8]);
        let header = Header { opcode: Opcode::ControlV1, key_id: KeyId::ZERO, session };
        let acks: AckList = [1, 2].map(MessageId).into_iter().collect();
        let (remote, id) = (Some(SessionId([2; 8])), Some(MessageId(3)));
        let body = Body { acks, remote, id, payload: &[4; 1000] };
        let mut buf = PacketBuf::new();
        let taken = taken_by(|| {
            for _ in 0..10 {
                let mut packet = buf.packet();
                client.seal(UnixTime(1), header, &body, &[], &mut packet).unwrap();
                let opened = server.open(packet.as_mut_slice()).unwrap();
                assert_eq!(opened.body, body);
            }
        });
        assert_eq!(taken, 0);
    }
}

/// A packet into `from`'s TUN, over the wire, out of `to`'s TUN; returns the allocations.
fn cross(net: &mut Net, buf: &mut PacketBuf, from: usize, to: usize, packet: &[u8]) -> usize {
    let now = net.now;
    let sender = net.nodes[from].addr;
    let before = TAKEN.get();
    let mut window = buf.packet_from(packet).unwrap();
    let verdict = net.nodes[from].engine.handle_tun(now, &mut window);
    assert!(matches!(verdict, Verdict::ToUdp(_)), "{verdict:?}");
    let verdict = net.nodes[to].engine.handle_udp(now, Endpoint::new(sender), &mut window);
    assert!(matches!(verdict, Verdict::ToTun), "{verdict:?}");
    let after = TAKEN.get();
    assert_eq!(window.as_slice(), packet);
    after - before
}

#[test]
fn no_allocation_per_data_packet() {
    for cipher in CipherName::ALL {
        let cipher = cipher.as_str();
        let site = Site::default();
        let mut net = Net::new(1);
        let now = net.now;
        let lines = format!("data-ciphers {cipher}\n");
        net.add("192.0.2.1:1194", site.server(now, &lines, 1));
        net.add("198.51.100.7:40000", site.client(now, "laptop", &lines, 2));
        assert!(net.run_until(60_000, |net| net.nodes[1].settings.is_some()));
        net.run(1_000);
        let mut buf = PacketBuf::new();
        for (client, server) in [("10.8.0.2", "10.8.0.1"), ("fd00:6::1000", "fd00:6::1")] {
            let (client, server) = (client.parse().unwrap(), server.parse().unwrap());
            for size in [0, 64, 1300] {
                for _ in 0..100 {
                    let there = echo(client, server, &vec![1; size]);
                    assert_eq!(cross(&mut net, &mut buf, 1, 0, &there), 0, "{cipher} up");
                    let back = echo(server, client, &vec![2; size]);
                    assert_eq!(cross(&mut net, &mut buf, 0, 1, &back), 0, "{cipher} down");
                }
            }
        }
    }
}

#[test]
fn no_allocation_for_dropped_strangers() {
    let site = Site::default();
    let mut net = Net::new(2);
    let now = net.now;
    net.add("192.0.2.1:1194", site.server(now, "", 1));
    // A router logs at this level; what the test's own logger would print, it would also buffer.
    log::set_max_level(log::LevelFilter::Info);
    let mut buf = PacketBuf::new();
    let from = Endpoint::new("203.0.113.9:9".parse().unwrap());
    // Unknown peer, garbage, a first packet and a third one with a wrong cookie.
    let third = [&[0x20][..], &[7; 8], &[1, 0, 0, 0, 0], &[9; 8], &[0, 0, 0, 1]].concat();
    let first = [&[0x38][..], &[7; 8], &[0, 0, 0, 0, 0]].concat();
    for bytes in [&[0x48, 0, 0, 5, 1, 2, 3][..], &[0xff; 40], &third, &first] {
        let before = TAKEN.get();
        for _ in 0..1000 {
            let mut window = buf.packet_from(bytes).unwrap();
            let _ = net.nodes[0].engine.handle_udp(now, from, &mut window);
            let mut out = [0; 256];
            let mut out = PacketMut::new(&mut out, 64, 64).unwrap();
            while net.nodes[0].engine.poll_transmit(now, &mut out).is_some() {}
        }
        assert_eq!(TAKEN.get() - before, 0, "{:#x}", bytes[0]);
    }
}
