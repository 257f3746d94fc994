//! Floods from the Internet: what strangers send, in any amount, takes no memory, is counted by its
//! reason, and leaves the clients there are alone.

mod common;

use std::net::SocketAddr;

use common::heap::{self, Counted};
use common::net::Net;
use common::packets::echo;
use common::pki::{CLIENT, Site, Usage, load, static_key, v2_keys};
use common::raw::{Raw, WAITS};
use common::{Seeded, log_less};
use sixgate::engine::DropReason::{self, *};
use sixgate::random::Random;
use sixgate::sys::status::{ShellCounters, counters};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

const SERVER: &str = "192.0.2.1:1194";
/// Datagrams of one flood.
const MANY: u64 = 20_000;
/// What a server may take for queues and tables that a flood makes it use for the first time.
const SLACK: isize = 64 * 1024;

struct Target {
    net: Net,
    client: usize,
    site: Site,
    rng: Seeded,
}

impl Target {
    /// A server with one client.
    fn new(seed: u64, server: &str, client: &str) -> Self {
        let (mut net, site) = (Net::new(seed), Site::default());
        let now = net.now;
        net.add(SERVER, site.server(now, server, seed));
        let client = net.add("198.51.100.1:40000", site.client(now, "laptop", client, seed + 1));
        assert!(net.run_until(20_000, |net| net.nodes[client].settings.is_some()));
        net.run(1_000);
        log_less();
        Self { net, client, site, rng: Seeded(seed) }
    }

    fn spoofed(&mut self) -> SocketAddr {
        let [a, b, c, d, e, f, ..] = self.rng.next().to_be_bytes();
        match a & 1 {
            0 => SocketAddr::from(([203, 0, b, c], u16::from_be_bytes([e, f]) | 1)),
            _ => {
                let v6 =
                    [0x2001, 0xdb8, u16::from(a), u16::from(b), 0, 0, u16::from(c), u16::from(d)];
                SocketAddr::from((v6, u16::from_be_bytes([e, f]) | 1))
            }
        }
    }

    /// Dropped so far for any of these reasons.
    fn dropped(&self, reasons: &[DropReason]) -> u64 {
        reasons.iter().map(|reason| self.net.nodes[0].engine.drops().of(*reason)).sum()
    }

    fn all_dropped(&self) -> u64 {
        self.dropped(DropReason::ALL)
    }

    /// Sends a flood; a client's packet goes through now and then. Memory stays as it was, every
    /// datagram that is not answered is counted under `reasons`, and the status says so.
    fn flood(
        &mut self,
        name: &str,
        reasons: &[DropReason],
        answers: u64,
        mut next: impl FnMut(&mut Self, u64) -> (SocketAddr, Vec<u8>),
    ) {
        let (before, all) = (self.dropped(reasons), self.all_dropped());
        let mut held = None;
        let mut answered = 0;
        for number in 0..MANY {
            let (from, bytes) = next(self, number);
            let sent = self.net.trace.len();
            self.net.deliver(0, from, &bytes);
            answered += (self.net.trace.len() - sent) as u64;
            if number % 1_000 == 999 {
                self.crosses();
            }
            self.net.forget();
            if number == MANY / 10 {
                held = Some(heap::held());
            }
        }
        let grown = heap::held() - held.unwrap();
        assert!(grown < 4_096, "{name}: {grown} bytes more after the flood");
        let counted = self.dropped(reasons) - before;
        assert!(answered <= answers, "{name}: {answered} answers");
        assert!(counted + answers >= MANY, "{name}: {counted} counted");
        assert_eq!(self.all_dropped() - all, counted, "{name}: counted under other reasons");
        let engine = &self.net.nodes[0].engine;
        let told = counters(engine.drops(), ShellCounters::default());
        let told = |reason: &DropReason| told.iter().any(|(name, _)| *name == reason.as_str());
        assert!(reasons.iter().any(told), "{name}");
    }

    /// Both ways, and no time passes.
    fn crosses(&mut self) {
        let (a, b) = ("10.8.0.2".parse().unwrap(), "10.8.0.1".parse().unwrap());
        for (from, to, packet) in
            [(self.client, 0, echo(a, b, b"up")), (0, self.client, echo(b, a, b"down"))]
        {
            let seen = self.net.trace.len();
            self.net.inject(from, &packet);
            let datagram = self.net.trace[seen].bytes.clone();
            let source = self.net.nodes[from].addr;
            self.net.deliver(to, source, &datagram);
            assert_eq!(self.net.nodes[to].tun.pop_back(), Some(packet));
        }
    }
}

fn reset(rng: &mut Seeded) -> Vec<u8> {
    let mut bytes = vec![0; 14];
    rng.fill(&mut bytes[1..9]);
    bytes[0] = 0x38;
    bytes
}

#[test]
fn spoofed_first_packets() {
    let mut target = Target::new(1, "", "");
    target.flood("plain", &[RateLimited], 200, |target, _| {
        (target.spoofed(), reset(&mut target.rng))
    });
    // Behind a wrapping nothing is answered at all.
    let block = format!("<tls-crypt>\n{}</tls-crypt>\n", static_key());
    let mut target = Target::new(2, &block, &block);
    target.flood("tls-crypt", &[BadWrap, RateLimited], 0, |target, _| {
        let mut bytes = vec![0x38; 54];
        target.rng.fill(&mut bytes[1..]);
        (target.spoofed(), bytes)
    });
}

#[test]
fn valid_first_packets_from_one_address() {
    let block = format!("<tls-crypt>\n{}</tls-crypt>\n", static_key());
    let mut target = Target::new(3, &block, &block);
    let config = load(
        &format!("{CLIENT}{block}"),
        &target.site.ca.pem,
        &target.site.ca.issue("x", Usage::Client, 2050, 9),
    );
    let mut raw = Raw::new(&target.net, &config, WAITS);
    let genuine = raw.next(&target.net).unwrap();
    target.flood("one address", &[RateLimited], 200, |target, number| {
        let port = 1_024 + (number % 60_000) as u16;
        ("203.0.113.5".parse::<std::net::IpAddr>().map(|ip| (ip, port).into()).unwrap(), {
            let _ = target;
            genuine.clone()
        })
    });
}

#[test]
fn handshakes_that_nobody_finishes() {
    let mut target = Target::new(4, "connect-freq-initial 1000000 1\n", "");
    let open = |target: &mut Target, number: u64| {
        // As fast as strangers are listened to.
        target.net.now.mono = target.net.now.mono + core::time::Duration::from_millis(2);
        let from = SocketAddr::from(([203, (number >> 8) as u8, number as u8, 9], 5_000));
        let reset = reset(&mut target.rng);
        let sent = target.net.trace.len();
        target.net.deliver(0, from, &reset);
        let answer = target.net.trace.get(sent).map(|packet| packet.bytes.clone());
        target.net.forget();
        let Some(answer) = answer else { return };
        let mut third = vec![0x28];
        third.extend(&reset[1..9]);
        third.extend([1, 0, 0, 0, 0]);
        third.extend(&answer[1..9]);
        target.net.deliver(0, from, &third);
        target.net.forget();
    };
    let start = heap::held();
    (0..500).for_each(|number| open(&mut target, number));
    let full = heap::held();
    // 64 of them, and what a TLS connection in its first state takes.
    assert!(full - start < 64 * 24 * 1024 + SLACK, "{} bytes", full - start);
    (0..5_000).for_each(|number| open(&mut target, number));
    assert!(heap::held() - full < 4_096, "{} more", heap::held() - full);
    assert!(target.dropped(&[TooManyClients]) > 300);
    target.crosses();
    target.net.run(70_000);
    assert!(heap::held() - start < SLACK, "{} bytes stay", heap::held() - start);
    target.crosses();
}

#[test]
fn wrapped_keys() {
    let (server, client) = v2_keys();
    let mut target = Target::new(
        5,
        &format!("<tls-crypt-v2>\n{server}</tls-crypt-v2>\n"),
        &format!("<tls-crypt-v2>\n{client}</tls-crypt-v2>\n"),
    );
    target.flood("wrapped keys", &[BadClientKey, RateLimited], 0, |target, number| {
        let len = 290 + (number % 735) as usize;
        let mut bytes = vec![0; 54 + len];
        target.rng.fill(&mut bytes);
        bytes[0] = if number % 2 == 0 { 0x50 } else { 0x58 };
        *bytes.last_chunk_mut().unwrap() = (len as u16).to_be_bytes();
        (target.spoofed(), bytes)
    });
}

#[test]
fn replayed_captures() {
    let block = format!("<tls-crypt>\n{}</tls-crypt>\n", static_key());
    let (mut net, site) = (Net::new(6), Site::default());
    let now = net.now;
    net.add(SERVER, site.server(now, &block, 6));
    let client = net.add("198.51.100.1:40000", site.client(now, "laptop", &block, 7));
    assert!(net.run_until(20_000, |net| net.nodes[client].settings.is_some()));
    let home = net.nodes[client].addr;
    let captured: Vec<_> = net
        .trace
        .iter()
        .filter(|packet| packet.from == home)
        .map(|packet| packet.bytes.clone())
        .collect();
    net.run(1_000);
    log_less();
    let mut target = Target { net, client, site, rng: Seeded(6) };
    let reasons = [Replay, BadCookie, UnknownSession, RateLimited];
    target.flood("replays", &reasons, 200, |target, number| {
        let bytes = captured[(number % captured.len() as u64) as usize].clone();
        (if number % 3 == 0 { home } else { target.spoofed() }, bytes)
    });
}

#[test]
fn data_for_unknown_and_for_known_peers() {
    let mut target = Target::new(8, "", "");
    target.flood("unknown peers", &[UnknownPeer], 0, |target, number| {
        let mut bytes = vec![0; 100 + (number % 1_300) as usize];
        target.rng.fill(&mut bytes);
        bytes[..4].copy_from_slice(&[0x48, 0, 1, number as u8]);
        (target.spoofed(), bytes)
    });
    // The number of a client is no secret; who knows it and is elsewhere costs nothing, either.
    target.flood("a known number", &[BadAuth, RateLimited, Replay], 0, |target, number| {
        let mut bytes = vec![0; 100 + (number % 1_300) as usize];
        target.rng.fill(&mut bytes);
        bytes[..4].copy_from_slice(&[0x48, 0, 0, 0]);
        (target.spoofed(), bytes)
    });
    let home = target.net.nodes[target.client].addr;
    assert_eq!(target.net.nodes[0].engine.clients()[0].from.peer, home);
}
