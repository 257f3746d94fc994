//! A server that gets datagrams of strangers, so many of one kind, for `benches/instructions` to count:
//!
//!     strangers CONFIGURATION KIND looked-at|beyond COUNT
//!
//! CONFIGURATION is a server's, with the wrapping that KIND (`junk.rs`) is for. `looked-at` are those that there is time for,
//! `beyond` those that come when the second's share of time for strangers is spent.

#[allow(dead_code, reason = "names and wrappings are for benches/floods.rs")]
#[path = "junk.rs"]
mod junk;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sixgate::buf::PacketBuf;
use sixgate::config;
use sixgate::engine::{Endpoint, Engine};
use sixgate::limits::STRANGERS_PER_SECOND;
use sixgate::random::Random;
use sixgate::server::Server;
use sixgate::sys::clock::{Clock, OsRandom};
use sixgate::sys::store::DiskFiles;

/// Time between two that are looked at: each may be answered (`connect-freq-initial`).
const PAUSE: Duration = Duration::from_millis(150);

/// Datagrams after which there is no time left for more, if they are of a kind that takes any.
const LIMIT: usize = STRANGERS_PER_SECOND as usize / 10;

/// Numbers that are cheap to make and the same each time.
struct Counting(u64);

impl Random for Counting {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            *byte = (self.0 >> 56) as u8;
        }
    }
}

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, kind, when, count] = arguments.as_slice() else {
        return Err("strangers CONFIGURATION KIND looked-at|beyond COUNT".into());
    };
    let count: usize = count.parse().map_err(|error| format!("{count}: {error}"))?;
    let junk = junk::ALL.iter().find(|junk| junk.kind == *kind).ok_or("no such kind")?;
    let loaded = config::load_file(file, &DiskFiles).map_err(|error| error.to_string())?;
    let mut now = Clock::new().now();
    let mut server = Server::new(Arc::new(loaded.config), now, Box::new(OsRandom::new()))?;
    let (mut memory, mut answer) = (PacketBuf::new(), PacketBuf::new());
    let beyond = when == "beyond";
    // Made once, so that making it is no part of the difference between two runs.
    let (mut rng, mut number) = (Counting(1), 0);
    let datagrams: Vec<_> = (0..16).map(|number| junk.make(&mut rng, number * 47)).collect();
    let mut left = count;
    while left > 0 {
        let port = 1024 + number as u16;
        let from = Endpoint::new(SocketAddr::from(([203, 0, 113, number as u8], port)));
        let mut packet = memory.packet_from(&datagrams[number % datagrams.len()]).expect("room");
        let _ = server.handle_udp(now, from, &mut packet);
        while server.poll_transmit(now, &mut answer.packet()).is_some() {}
        number += 1;
        if !beyond {
            now.mono = now.mono + PAUSE;
            left -= 1;
        } else if number > LIMIT {
            left -= 1;
        }
    }
    Ok(())
}
