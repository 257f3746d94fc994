//! One thing that is done with packets, so many times, for `benches/instructions` to count and for
//! `benches/clients` to time:
//!
//!     packets WHAT CIPHER BYTES COUNT [CLIENTS]
//!
//! `copy` is what comes before each: the packet into its place. `seal`, and `open` with what it opens, are the
//! data channel alone. `client` is a client's whole engine with packets of its
//! host, `down` a server's, `up` a client's followed by its server's with the datagrams. `split` makes
//! packets of BYTES out of pieces of 40, `coalesce` puts such packets together again. `route` is a
//! look-up in the server's table. With CLIENTS, so many are connected, each with a network behind it; `down`
//! and `up` are then each one's in turn, `down1` and `up1` the same with packets of one of them. Prints
//! the nanoseconds per packet, of the best of several rounds.

#[path = "../../tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the rest is for tests/offload.rs")]
#[path = "../../tests/common/segments.rs"]
mod segments;

use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use common::net::Net;
use common::packets::echo;
use common::pki::Site;
use segments::{Dice, Flow};
use sixgate::buf::{PacketBuf, PacketMut};
use sixgate::config::{CipherName, ClientSettings, Digest};
use sixgate::engine::{Endpoint, PeerId, Verdict};
use sixgate::offload::coalesce::{Coalescer, Part};
use sixgate::offload::split::Splitter;
use sixgate::offload::vnet::VnetHeader;
use sixgate::server::routes::Routes;
use sixgate::session::Role;
use sixgate::session::data::{DataKeys, Format};
use sixgate::session::keys::KeyBlock;
use sixgate::wire::control::KeyId;

/// Packets of a round.
const ROUND: usize = 256;
/// Clients that connect at the same time.
const AT_ONCE: usize = 8;
/// Packets of a piece.
const ROW: usize = 40;
/// Memory of one packet.
const SLOT: usize = 2048;
const SERVER: &str = "192.0.2.1:1194";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, cipher, bytes, count, clients @ ..] = arguments.as_slice() else {
        panic!("packets WHAT CIPHER BYTES COUNT [CLIENTS]");
    };
    let number = |text: &String| text.parse::<usize>().expect("a number");
    let (bytes, count) = (number(bytes), number(count));
    let clients = clients.first().map_or(1, number);
    let cipher = CipherName::ALL.iter().copied().find(|name| name.as_str() == cipher);
    let cipher = cipher.expect("a cipher of the data channel");
    let best = match what.as_str() {
        "copy" | "seal" | "open" => data(what, cipher, bytes, count),
        "split" | "coalesce" => offload(what == "coalesce", bytes, count),
        "route" => route(clients, count),
        _ => engines(what, cipher, bytes, count, clients),
    };
    // Not as a float: how long that takes to print depends on its digits, and would be counted.
    let tenths = (best * 10.0) as u64;
    println!("{}.{}", tenths / 10, tenths % 10);
}

/// Calls `round` for up to `most` packets until it has done `count`; nanoseconds for each in the best one.
fn best(count: usize, most: usize, mut round: impl FnMut(usize) -> Duration) -> f64 {
    let (mut left, mut best) = (count, f64::INFINITY);
    while left > 0 {
        let now = left.min(most);
        let spent = round(now);
        best = best.min(spent.as_nanos() as f64 / now as f64);
        left -= now;
    }
    best
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn data(what: &str, cipher: CipherName, bytes: usize, count: usize) -> f64 {
    let block = KeyBlock::from_exporter_bytes(&[7; 256]);
    let keys = |role| DataKeys::with_digest(cipher, Digest::Sha256, &block, role, Format::Classic);
    let (mut client, mut server) =
        (keys(Role::Client).expect("keys"), keys(Role::Server).expect("keys"));
    let (mut buffers, plain) = (buffers(), vec![0x45; bytes]);
    best(count, ROUND, |count| {
        let buffers = buffers.iter_mut().take(count);
        let mut packets: Vec<_> =
            buffers.map(|buffer| buffer.packet_from(&plain).expect("fits")).collect();
        if what == "copy" {
            return Duration::ZERO;
        }
        let seal = |packet| client.seal(KeyId::ZERO, Some(1), packet).expect("seals");
        let sealing = timed(|| packets.iter_mut().for_each(seal));
        if what == "seal" {
            return sealing;
        }
        timed(|| packets.iter_mut().for_each(|packet| server.open(packet).expect("opens")))
    })
}

fn buffers() -> Vec<PacketBuf> {
    (0..ROUND).map(|_| PacketBuf::new()).collect()
}

fn offload(coalesce: bool, bytes: usize, count: usize) -> f64 {
    let mut dice = Dice::new(2);
    let mut flow = Flow::random(&mut dice);
    (flow.v6, flow.udp) = (false, false);
    let headers = flow.next(&mut dice, 0).bytes().len();
    let (header, piece) = flow.next(&mut dice, ROW * (bytes - headers)).piece(bytes - headers);
    let mut memory = vec![0; ROW * SLOT];
    let mut parts = Vec::with_capacity(ROW);
    let mut coalescer = Coalescer::new(true);
    best(count.next_multiple_of(ROW), ROW, |_| {
        parts.clear();
        let splitting = timed(|| {
            let mut splitter = Splitter::new(&header, &piece).expect("fits").expect("a piece");
            for (at, slot) in memory.as_chunks_mut::<SLOT>().0.iter_mut().enumerate() {
                let mut packet = PacketMut::new(slot, 128, 128).expect("room");
                assert!(splitter.next(&piece, &mut packet));
                parts.push(Part { start: at * SLOT + packet.start(), len: packet.len() });
            }
        });
        if !coalesce {
            return splitting;
        }
        let mut write = |header: &VnetHeader, _: &[u8], parts: &[Part]| {
            black_box((header, parts));
        };
        timed(|| {
            for part in &parts {
                coalescer.push(&mut memory, *part, &mut write);
            }
            coalescer.flush(&mut memory, &mut write);
        })
    })
}

/// The table of a server with so many clients, each with both addresses and a network of each family.
fn route(clients: usize, count: usize) -> f64 {
    let mut routes = Routes::with_capacity(4 * clients);
    for at in 0..clients {
        let (high, low) = (at / 250, at % 250 + 2);
        for prefix in [
            format!("10.8.{high}.{low}/32"),
            format!("10.{}.{low}.0/24", 100 + high),
            format!("fd00:6::{at:x}/128"),
            format!("fd00:7:0:{at:x}::/64"),
        ] {
            routes.insert(prefix.parse().expect("a prefix"), PeerId(at as u32)).expect("room");
        }
    }
    let addresses: Vec<IpAddr> = (0..clients)
        .map(|at| format!("10.{}.{}.7", 100 + at / 250, at % 250 + 2).parse().expect("an address"))
        .collect();
    let mut next = addresses.iter().cycle();
    best(count, ROUND, |count| {
        timed(|| {
            for _ in 0..count {
                black_box(routes.lookup(*next.next().expect("endless")));
            }
        })
    })
}

/// The network behind client number `at`.
fn behind(at: usize) -> String {
    format!("10.{}.{}", 100 + at / 250, at % 250)
}

fn network(cipher: CipherName, clients: usize) -> Net {
    let (site, mut net) = (Site::default(), Net::new(1));
    // Of a thousand clients there would be much to read.
    log::set_max_level(log::LevelFilter::Off);
    let now = net.now;
    let cipher = format!("data-ciphers {}\n", cipher.as_str());
    let wide = "server 10.8.0.0 255.255.0.0\nmax-clients 1024\n";
    let server = net.add(SERVER, site.server(now, &[wide, &cipher].concat(), 1));
    for at in 0..clients {
        let name = format!("client{at}");
        let network = [behind(at), ".0/24".to_owned()].concat().parse().expect("a network");
        let settings = ClientSettings { behind: vec![network], ..ClientSettings::default() };
        net.nodes[server].client_files.insert(name.clone(), settings);
        let address = format!("198.51.{}.{}:40000", at / 250, at % 250 + 1);
        let now = net.now;
        net.add(&address, site.client(now, &name, &cipher, 2 + at as u64));
        if at % AT_ONCE == AT_ONCE - 1 || at + 1 == clients {
            let up = |net: &mut Net| net.nodes.iter().skip(1).all(|node| node.settings.is_some());
            assert!(net.run_until(60_000, up), "client {at} does not come up");
            net.forget();
        }
    }
    net.run(500);
    net
}

fn engines(what: &str, cipher: CipherName, bytes: usize, count: usize, clients: usize) -> f64 {
    let mut net = network(cipher, clients);
    let talking = if what.ends_with('1') { 1 } else { clients };
    let host: IpAddr = "10.8.0.1".parse().expect("an address");
    let payload = vec![1; bytes - 28];
    let packets: Vec<(usize, [Vec<u8>; 2])> = (0..talking)
        .map(|at| {
            let client = [behind(at), ".7".to_owned()].concat().parse().expect("an address");
            (at + 1, [echo(client, host, &payload), echo(host, client, &payload)])
        })
        .collect();
    let mut next = packets.iter().cycle();
    let (mut buffers, now) = (buffers(), net.now);
    let host = usize::from(!what.starts_with("down"));
    best(count, ROUND, |count| {
        let mut packets = Vec::with_capacity(count);
        for buffer in buffers.iter_mut().take(count) {
            let (node, bytes) = next.next().expect("endless");
            packets.push((*node, buffer.packet_from(&bytes[1 - host]).expect("fits")));
        }
        let sealing = timed(|| {
            for (node, packet) in &mut packets {
                let verdict = net.nodes[*node * host].engine.handle_tun(now, packet);
                assert!(matches!(verdict, Verdict::ToUdp(_)), "{verdict:?}");
            }
        });
        if !what.starts_with("up") {
            return sealing;
        }
        timed(|| {
            for (node, packet) in &mut packets {
                let from = Endpoint::new(net.nodes[*node].addr);
                let verdict = net.nodes[0].engine.handle_udp(now, from, packet);
                assert!(matches!(verdict, Verdict::ToTun), "{verdict:?}");
            }
        })
    })
}
