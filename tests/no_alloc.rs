//! The packet path takes no memory from the heap: a counting allocator proves it. First the parts, then
//! both engines whole; every way in which a packet is dropped is in `drops`, what only some peers send
//! in `oddities`.

mod common;
#[path = "no_alloc/drops.rs"]
mod drops;
#[path = "no_alloc/oddities.rs"]
mod oddities;
#[allow(dead_code, reason = "the rest is for tests/offload.rs")]
#[path = "common/segments.rs"]
mod segments;

use std::net::{IpAddr, SocketAddr};

use common::heap::{Counted, taken_by};
use common::net::Net;
use common::packets::{echo, syn};
use common::pki::Site;
use segments::{Dice, Flow};
use sixgate::buf::{PacketBuf, PacketMut};
use sixgate::config::{CipherName, Digest};
use sixgate::engine::{DropReason, Endpoint, Verdict};
use sixgate::offload::coalesce::{Coalescer, Part};
use sixgate::offload::outbox::{Datagram, Outbox, first_run};
use sixgate::offload::split::Splitter;
use sixgate::offload::vnet::VnetHeader;
use sixgate::session::Role;
use sixgate::session::data::{DataKeys, Format, OpenError, SealError};
use sixgate::session::keys::KeyBlock;
use sixgate::session::wrap::Wrap;
use sixgate::time::UnixTime;
use sixgate::wire::control::{AckList, Body, Header, KeyId, MessageId, Opcode, SessionId};
use sixgate::wire::static_key::StaticKey;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// How often each packet is sent: memory may be taken the first time, or when something is full.
const ROUNDS: usize = 20;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_counter_counts() {
    assert_eq!(taken_by(|| drop(std::hint::black_box(vec![0_u8; 10]))), 1);
    assert_eq!(taken_by(|| ()), 0);
}

/// Sealed, opened, and refused for each reason that keys have.
#[test]
fn data_packets() {
    let block = KeyBlock::from_exporter_bytes(&[7; 256]);
    for (cipher, format) in CipherName::ALL
        .iter()
        .flat_map(|cipher| [Format::Classic, Format::Epoch].map(|format| (*cipher, format)))
    {
        let keys =
            |role| DataKeys::with_digest(cipher, Digest::Sha256, &block, role, format).unwrap();
        let (mut client, mut server) = (keys(Role::Client), keys(Role::Server));
        let [mut buf, mut copy] = [PacketBuf::new(), PacketBuf::new()];
        let mut no_room = [0x45; 1400];
        let taken = taken_by(|| {
            for _ in 0..100 {
                let mut packet = buf.packet_from(&[0x45; 1400]).unwrap();
                client.seal(KeyId::ZERO, Some(1), &mut packet).unwrap();
                let mut forged = copy.packet_from(packet.as_slice()).unwrap();
                forged.as_mut_slice()[700] ^= 1;
                assert_eq!(server.open(&mut forged), Err(OpenError::BadAuth));
                let mut short = copy.packet_from(&packet.as_slice()[..10]).unwrap();
                assert_eq!(server.open(&mut short), Err(OpenError::Malformed));
                let mut again = copy.packet_from(packet.as_slice()).unwrap();
                server.open(&mut packet).unwrap();
                assert_eq!(packet.as_slice(), [0x45; 1400]);
                assert_eq!(server.open(&mut again), Err(OpenError::Replay));
                let mut tight = PacketMut::new(&mut no_room, 0, 1400).unwrap();
                assert_eq!(client.seal(KeyId::ZERO, Some(1), &mut tight), Err(SealError::Full));
            }
        });
        assert_eq!(taken, 0, "{cipher:?} {format:?}");
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
    let mut window = buf.packet_from(packet).unwrap();
    let taken = taken_by(|| {
        let verdict = net.nodes[from].engine.handle_tun(now, &mut window);
        assert!(matches!(verdict, Verdict::ToUdp(_)), "{verdict:?}");
        let verdict = net.nodes[to].engine.handle_udp(now, Endpoint::new(sender), &mut window);
        assert!(matches!(verdict, Verdict::ToTun), "{verdict:?}");
    });
    assert_eq!(window.as_slice(), packet);
    taken
}

#[test]
fn no_allocation_per_data_packet() {
    for cipher in CipherName::ALL {
        let cipher = cipher.as_str();
        let site = Site::default();
        let mut net = Net::new(1);
        let now = net.now;
        let lines = format!("data-ciphers {cipher}\nreneg-sec 60\n");
        net.add("192.0.2.1:1194", site.server(now, &lines, 1));
        net.add("198.51.100.7:40000", site.client(now, "laptop", &lines, 2));
        assert!(net.run_until(60_000, |net| net.nodes[1].settings.is_some()));
        net.run(1_000);
        let mut buf = PacketBuf::new();
        // Under the first key, while another one follows it, and under that.
        for _ in 0..40 {
            for (client, server) in [("10.8.0.2", "10.8.0.1"), ("fd00:6::1000", "fd00:6::1")] {
                let (client, server) = (client.parse().unwrap(), server.parse().unwrap());
                for size in [0, 64, 1300] {
                    for _ in 0..3 {
                        let there = echo(client, server, &vec![1; size]);
                        assert_eq!(cross(&mut net, &mut buf, 1, 0, &there), 0, "{cipher} up");
                        let back = echo(server, client, &vec![2; size]);
                        assert_eq!(cross(&mut net, &mut buf, 0, 1, &back), 0, "{cipher} down");
                    }
                }
            }
            net.run(2_000);
        }
        let soft_reset = Opcode::SoftResetV1.first_byte(KeyId::ZERO.next());
        assert!(net.trace.iter().any(|sent| sent.bytes[0] == soft_reset), "{cipher}");
    }
}

/// A server and two clients that see each other, with a log as on a router.
fn party(lines: &str) -> Net {
    let site = Site::default();
    let mut net = Net::new(3);
    let now = net.now;
    net.add("192.0.2.1:1194", site.server(now, lines, 1));
    net.add("198.51.100.7:40000", site.client(now, "laptop", "", 2));
    assert!(net.run_until(60_000, |net| net.nodes[1].settings.is_some()));
    net.add("198.51.100.8:40000", site.client(net.now, "phone", "", 3));
    assert!(net.run_until(60_000, |net| net.nodes[2].settings.is_some()));
    net.run(1_000);
    log::set_max_level(log::LevelFilter::Info);
    net
}

/// What a client makes of a packet of its host; not counted.
fn sealed(net: &mut Net, client: usize, packet: &[u8]) -> Vec<u8> {
    let mut buf = PacketBuf::new();
    let mut window = buf.packet_from(packet).unwrap();
    let verdict = net.nodes[client].engine.handle_tun(net.now, &mut window);
    assert!(matches!(verdict, Verdict::ToUdp(_)), "{verdict:?}");
    window.as_slice().to_vec()
}

/// Hands a packet to an engine, as a datagram from there or as a packet of its host, and has it make all
/// the copies of a broadcast and all answers, whose number is returned, too; nothing of that may take
/// memory.
fn hand(
    net: &mut Net,
    to: usize,
    from: Option<SocketAddr>,
    window: &mut PacketMut<'_>,
) -> (Verdict, usize) {
    let mut copy = PacketBuf::new();
    let (now, from) = (net.now, from.map(Endpoint::new));
    let engine = &mut net.nodes[to].engine;
    let (mut verdict, mut others) = (Verdict::Consumed, 0);
    let taken = taken_by(|| {
        verdict = match from {
            Some(from) => engine.handle_udp(now, from, window),
            None => engine.handle_tun(now, window),
        };
        if let Verdict::Broadcast { .. } = verdict {
            let mut copy = copy.packet();
            while engine.poll_broadcast(now, window.as_slice(), &mut copy).is_some() {
                others += 1;
            }
        }
        let mut out = [0; 2048];
        let mut out = PacketMut::new(&mut out, 128, 128).unwrap();
        while engine.poll_transmit(now, &mut out).is_some() {
            others += 1;
        }
    });
    let what = window.as_slice();
    assert_eq!(taken, 0, "{verdict:?} of {:02x?}", &what[..what.len().min(24)]);
    // From which of its addresses is of no interest here.
    if let Verdict::ToUdp(to) = &mut verdict {
        *to = Endpoint::new(to.peer);
    }
    (verdict, others)
}

/// The same with `bytes`, which come from a node or from the host.
fn handed(net: &mut Net, to: usize, from: Option<usize>, bytes: &[u8]) -> (Verdict, usize) {
    let from = from.map(|from| net.nodes[from].addr);
    handed_from(net, to, from, bytes)
}

/// The same with `bytes`, which come from that address or from the host.
fn handed_from(
    net: &mut Net,
    to: usize,
    from: Option<SocketAddr>,
    bytes: &[u8],
) -> (Verdict, usize) {
    let mut buf = PacketBuf::new();
    let mut window = buf.packet_from(bytes).unwrap();
    hand(net, to, from, &mut window)
}

/// Whatever a client sends through the server: to others, to itself, to all, and what is refused.
#[test]
fn no_allocation_on_the_way_from_a_client() {
    let mut net = party("client-to-client\nmssfix 1200\n");
    let (one, two) = (net.nodes[1].addr, net.nodes[2].addr);
    let v4 = |text: &str| text.parse().unwrap();
    let families = [
        ["10.8.0.2", "10.8.0.3", "10.8.0.1", "224.0.0.251", "10.9.9.9"],
        ["fd00:6::1000", "fd00:6::1001", "fd00:6::1", "ff05::fb", "fd00:9::9"],
    ];
    for [own, other, host, all, stranger] in families {
        let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
        let mut send = |from: &str, to: &str| {
            let datagram = sealed(&mut net, 1, &echo(ip(from), ip(to), &[1; 200]));
            handed(&mut net, 0, Some(1), &datagram)
        };
        for _ in 0..20 {
            assert_eq!(send(own, host), (Verdict::ToTun, 0));
            assert_eq!(send(own, stranger), (Verdict::ToTun, 0));
            assert_eq!(
                send(own, other),
                (Verdict::ToUdp(Endpoint::new(two)), 0),
                "to another client"
            );
            assert_eq!(send(own, own), (Verdict::ToUdp(Endpoint::new(one)), 0), "it is told");
            assert_eq!(send(own, all), (Verdict::Broadcast { to_tun: true }, 1));
            assert_eq!(send(stranger, host), (Verdict::Drop(DropReason::BadSource), 0));
        }
    }
    let connect = syn(v4("10.8.0.2"), v4("10.8.0.1"), 1460);
    let datagram = sealed(&mut net, 1, &connect);
    assert_eq!(handed(&mut net, 0, Some(1), &datagram).0, Verdict::ToTun, "its MSS is lowered");
    assert_eq!(handed(&mut net, 0, Some(1), &datagram).0, Verdict::Drop(DropReason::Replay));
    let mut forged = sealed(&mut net, 1, &connect);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(handed(&mut net, 0, Some(1), &forged).0, Verdict::Drop(DropReason::BadAuth));
    let short = handed(&mut net, 0, Some(1), &forged[..8]).0;
    assert_eq!(short, Verdict::Drop(DropReason::Malformed));
    let link = echo("fe80::1".parse().unwrap(), "fd00:6::1".parse().unwrap(), &[]);
    let datagram = sealed(&mut net, 1, &link);
    assert_eq!(handed(&mut net, 0, Some(1), &datagram).0, Verdict::Drop(DropReason::LinkLocal));
}

/// Whatever the server's host sends, and what a client makes of what comes.
#[test]
fn no_allocation_on_the_way_to_a_client() {
    let mut net = party("mssfix 1200\n");
    let one = Endpoint::new(net.nodes[1].addr);
    let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    let mut replayed = None;
    for _ in 0..20 {
        for [host, client, nobody, all] in [
            ["10.8.0.1", "10.8.0.2", "10.8.0.77", "224.0.0.251"],
            ["fd00:6::1", "fd00:6::1000", "fd00:6::7777", "ff05::fb"],
        ] {
            let mut send =
                |to: &str, size| handed(&mut net, 0, None, &echo(ip(host), ip(to), &vec![1; size]));
            assert_eq!(send(client, 100), (Verdict::ToUdp(one), 0));
            assert_eq!(send(nobody, 100), (Verdict::ToTun, 0), "the host is told");
            assert_eq!(send(client, 2000), (Verdict::ToTun, 0), "the host is told");
            assert_eq!(send(all, 100), (Verdict::Broadcast { to_tun: false }, 2));
        }
        let connect = syn("10.8.0.1".parse().unwrap(), "10.8.0.2".parse().unwrap(), 1460);
        assert_eq!(
            handed(&mut net, 0, None, &connect).0,
            Verdict::ToUdp(one),
            "its MSS is lowered"
        );
        // The first of two fragments is a packet like any other.
        let mut fragment = echo(ip("10.8.0.1"), ip("10.8.0.2"), &[1; 64]);
        fragment[6] |= 0x20;
        assert_eq!(handed(&mut net, 0, None, &fragment).0, Verdict::ToUdp(one));
        assert_eq!(handed(&mut net, 0, None, &[0x45; 12]).0, Verdict::Drop(DropReason::NotIp));
        assert_eq!(handed(&mut net, 0, None, &[0x15; 40]).0, Verdict::Drop(DropReason::NotIp));
        let link = echo(ip("fe80::1"), ip("ff02::1"), &[]);
        assert_eq!(handed(&mut net, 0, None, &link).0, Verdict::Drop(DropReason::LinkLocal));

        let datagram = sealed(&mut net, 0, &connect);
        assert_eq!(handed(&mut net, 1, Some(0), &datagram).0, Verdict::ToTun);
        let old = replayed.get_or_insert(datagram).clone();
        assert_eq!(handed(&mut net, 1, Some(0), &old).0, Verdict::Drop(DropReason::Replay));
        let mut forged = sealed(&mut net, 0, &connect);
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(handed(&mut net, 1, Some(0), &forged).0, Verdict::Drop(DropReason::BadAuth));
    }
    // More than there are answers for in a second.
    let lost = echo(ip("10.8.0.1"), ip("10.8.0.77"), &[]);
    let verdicts: Vec<_> = (0..200).map(|_| handed(&mut net, 0, None, &lost).0).collect();
    assert!(verdicts.contains(&Verdict::Drop(DropReason::NoRoute)));
}

/// Time that passes: pings out, and what becomes of them at the other end.
#[test]
fn no_allocation_for_pings() {
    let mut net = party("keepalive 10 60\n");
    let mut pings = 0;
    for _ in 0..50 {
        net.now.mono = net.now.mono + std::time::Duration::from_secs(1);
        for (from, to) in [(0, 1), (1, 0), (2, 0)] {
            let (now, mut sent) = (net.now, Vec::with_capacity(64));
            let mut buf = PacketBuf::new();
            let taken = taken_by(|| {
                let engine = &mut net.nodes[from].engine;
                if engine.poll_timeout().is_some_and(|due| due <= now.mono) {
                    engine.handle_timeout(now);
                }
                let mut out = buf.packet();
                while let Some(at) = net.nodes[from].engine.poll_transmit(now, &mut out) {
                    sent.push((at.peer, out.len()));
                    if at.peer == net.nodes[to].addr {
                        let sender = Endpoint::new(net.nodes[from].addr);
                        let verdict = net.nodes[to].engine.handle_udp(now, sender, &mut out);
                        assert_eq!(verdict, Verdict::Consumed);
                    }
                }
            });
            pings += sent.len();
            assert_eq!(taken, 0, "node {from}");
        }
    }
    assert!(pings >= 3 * 4, "{pings} pings");
}

#[test]
fn no_allocation_for_dropped_strangers() {
    let site = Site::default();
    let mut net = Net::new(2);
    let now = net.now;
    net.add("192.0.2.1:1194", site.server(now, "", 1));
    // A router logs at this level; what the test's own logger would print, it would also buffer.
    log::set_max_level(log::LevelFilter::Info);
    let from: SocketAddr = "203.0.113.9:9".parse().unwrap();
    // Unknown peer, garbage, a third packet with a wrong cookie and a first one: of these some are
    // answered, and of both only so many are looked at.
    let third = [&[0x20][..], &[7; 8], &[1, 0, 0, 0, 0], &[9; 8], &[0, 0, 0, 1]].concat();
    let first = [&[0x38][..], &[7; 8], &[0, 0, 0, 0, 0]].concat();
    let dropped = |reason| Some(Verdict::Drop(reason));
    for (bytes, early, late) in [
        (&[0x48, 0, 0, 5, 1, 2, 3][..], None, dropped(DropReason::UnknownPeer)),
        (&[0xff; 40], None, dropped(DropReason::BadOpcode)),
        (&third, dropped(DropReason::BadCookie), dropped(DropReason::RateLimited)),
        (&first, Some(Verdict::Consumed), dropped(DropReason::RateLimited)),
    ] {
        let mut verdicts = Vec::new();
        for _ in 0..1000 {
            let (verdict, _) = handed_from(&mut net, 0, Some(from), bytes);
            if verdicts.last() != Some(&verdict) {
                verdicts.push(verdict);
            }
        }
        let expected: Vec<_> = early.into_iter().chain(late).collect();
        assert_eq!(verdicts, expected, "{:#x}", bytes[0]);
        net.now.mono = net.now.mono + std::time::Duration::from_secs(1);
    }
}
