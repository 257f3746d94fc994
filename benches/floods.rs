//! What a flood costs a server, by kind, and what it leaves of a client's speed: `cargo bench --bench floods [-- KIND...]`, with the
//! kinds of `load/junk.rs`.
//!
//! Each kind of datagram is measured as long as there is time for strangers (`STRANGERS_PER_SECOND`), and beyond,
//! against a data packet of a client. From that follows the share of the processor that is left for clients while
//! so many of these datagrams come in a second; less than 90 % at the largest number is a failure. What the kernel
//! does before a datagram gets here is left out: it depends on driver and firewall.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "load/junk.rs"]
mod junk;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::net::Net;
use common::packets::echo;
use common::pki::{CLIENT, Site, Usage, load, static_key, v2_keys};
use common::raw::{Raw, WAITS};
use common::{Seeded, log_less};
use junk::{Junk, Wrapping};
use sixgate::buf::PacketBuf;
use sixgate::engine::{Endpoint, Verdict};
use sixgate::limits::{STRANGERS_PER_SECOND, stranger_cost};

const ROUNDS: usize = 9;
/// Datagrams of a round.
const COUNT: usize = 4_000;
/// An ordinary size of data packets.
const SIZE: usize = 1_400;
/// Datagrams of a flood in a second. The last is what a line of 100 Mbit/s carries of the smallest.
const RATES: [u32; 3] = [3_000, 30_000, 150_000];
const LEAST: f64 = 0.9;
/// Time between datagrams in which there is time for each.
const PAUSE: Duration = Duration::from_millis(10);

struct Bench {
    net: Net,
    raw: Raw,
    rng: Seeded,
}

impl Bench {
    fn new(server: &str, client: &str) -> Self {
        let (mut net, site) = (Net::new(9), Site::default());
        let now = net.now;
        net.add("192.0.2.1:1194", site.server(now, server, 9));
        let identity = site.ca.issue("laptop", Usage::Client, 2050, 70);
        let config = load(&format!("{CLIENT}{client}"), &site.ca.pem, &identity);
        let mut raw = Raw::new(&net, &config, WAITS);
        raw.talk(&mut net);
        assert_eq!(raw.pushed(), 1);
        log_less();
        Self { net, raw, rng: Seeded(10) }
    }

    /// Nanoseconds for each of these datagrams, if `pause` goes by before each.
    fn time(
        &mut self,
        datagrams: &[Vec<u8>],
        from: impl Fn(usize) -> SocketAddr,
        pause: Duration,
        tunnel: bool,
    ) -> f64 {
        let (mut memory, mut answer) = (PacketBuf::new(), PacketBuf::new());
        let engine = &mut self.net.nodes[0].engine;
        let start = Instant::now();
        for (number, datagram) in datagrams.iter().enumerate() {
            self.net.now.mono = self.net.now.mono + pause;
            let mut window = memory.packet_from(datagram).unwrap();
            let verdict = engine.handle_udp(self.net.now, Endpoint::new(from(number)), &mut window);
            assert_eq!(matches!(verdict, Verdict::ToTun), tunnel, "{verdict:?}");
            if !tunnel {
                let mut out = answer.packet();
                while engine.poll_transmit(self.net.now, &mut out).is_some() {}
            }
        }
        start.elapsed().as_nanos() as f64 / datagrams.len() as f64
    }

    /// The client's data packets.
    fn data(&mut self) -> f64 {
        let payload = vec![0x5a; SIZE - 28];
        let packet = echo("10.8.0.2".parse().unwrap(), "10.8.0.1".parse().unwrap(), &payload);
        let sealed: Vec<_> =
            (0..COUNT).map(|_| self.raw.sealed(&self.net, &packet).unwrap()).collect();
        let home = self.raw.addr;
        self.time(&sealed, |_| home, Duration::ZERO, true)
    }

    /// A flood, with or without time for all of it.
    fn flood(&mut self, junk: &Junk, looked_at: bool) -> f64 {
        let junk: Vec<_> = (0..COUNT).map(|number| junk.make(&mut self.rng, number)).collect();
        let from =
            |number: usize| SocketAddr::from(([203, 0, 113, number as u8], 1_024 + number as u16));
        let pause = if looked_at { PAUSE } else { Duration::ZERO };
        if !looked_at {
            // The second's ration goes first.
            self.time(&junk, from, pause, false);
        }
        self.time(&junk, from, pause, false)
    }
}

/// The server's lines and the client's.
fn lines(wrapping: Wrapping) -> (String, String) {
    match wrapping {
        Wrapping::None => (String::new(), String::new()),
        Wrapping::Crypt => {
            let crypt = format!("<tls-crypt>\n{}</tls-crypt>\n", static_key());
            (crypt.clone(), crypt)
        }
        Wrapping::CryptV2 => {
            let (server, client) = v2_keys();
            let v2 = |key: &str| format!("<tls-crypt-v2>\n{key}</tls-crypt-v2>\n");
            (v2(&server), v2(&client))
        }
    }
}

fn main() {
    // cargo adds an option of its own.
    let only: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let mut worst = f64::INFINITY;
    println!(
        "{:<26}{:>10}{:>10}{:>12}   left of the speed at {RATES:?} a second",
        "ns each", "data", "looked at", "beyond that"
    );
    let chosen = |junk: &&Junk| only.is_empty() || only.iter().any(|kind| kind == junk.kind);
    for junk in junk::ALL.iter().filter(chosen) {
        let (server, client) = lines(junk.wrapping);
        let mut bench = Bench::new(&server, &client);
        let [mut data, mut near, mut beyond] = [f64::INFINITY; 3];
        for _ in 0..ROUNDS {
            data = data.min(bench.data());
            near = near.min(bench.flood(junk, true));
            beyond = beyond.min(bench.flood(junk, false));
        }
        let length: usize = (0..COUNT).map(|number| junk.make(&mut bench.rng, number).len()).sum();
        let affordable = STRANGERS_PER_SECOND / stranger_cost(length / COUNT);
        let left = RATES.map(|rate| {
            let first = rate.min(affordable);
            1.0 - (f64::from(first) * near.max(beyond) + f64::from(rate - first) * beyond) / 1e9
        });
        worst = left.into_iter().fold(worst, f64::min);
        let left: String = left.iter().map(|left| format!("{:>9.1} %", left * 100.0)).collect();
        println!("{:<26}{data:>10.0}{near:>10.0}{beyond:>12.0}   {left}", junk.name);
    }
    assert!(worst >= LEAST, "a flood leaves {:.1} %", worst * 100.0);
}
