//! What the whole-engine tests stand on: a simulated network with a virtual clock (`net`), IP hosts
//! behind the tunnels (`host`), certificates and configurations (`pki`), and a trace of the traffic
//! that a failing test leaves behind (`pcap`).
//!
//! Everything repeats from a seed: engines get their randomness from it, and the network takes its
//! decisions (loss, duplication, reordering, latency) from it. TLS draws its own ephemeral keys, so
//! the bytes differ from run to run, but not their number: the certificates are Ed25519.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod clients;
pub mod heap;
pub mod host;
pub mod model;
pub mod net;
pub mod packets;
pub mod pcap;
pub mod pki;
pub mod puppet;
pub mod raw;
pub mod shared;

use std::cell::Cell;
use std::sync::Mutex;

use sixgate::random::Random;

/// SplitMix64: small, seedable, good enough for decisions of a test.
#[derive(Clone)]
pub struct Seeded(pub u64);

impl Seeded {
    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Whether an event of `per_mille` probability happens.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.next() % 1000 < u64::from(per_mille)
    }

    /// A value in `low..=high`.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }
}

impl Random for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.next().to_be_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// What all tests of this binary have logged so far at the usual verbosity.
static LINES: Mutex<Vec<(log::Level, String)>> = Mutex::new(Vec::new());

/// Whether a warning or an error has been logged that contains all of these.
pub fn warned(parts: &[&str]) -> bool {
    !logged(|level| level <= log::Level::Warn, parts).is_empty()
}

/// Warnings and errors so far that contain `part`.
pub fn remarks(part: &str) -> Vec<String> {
    logged(|level| level <= log::Level::Warn, &[part])
}

/// How many lines without anything to complain of contain `part`, so far.
pub fn news(part: &str) -> usize {
    logged(|level| level == log::Level::Info, &[part]).len()
}

fn logged(is_meant: impl Fn(log::Level) -> bool, parts: &[&str]) -> Vec<String> {
    let lines = LINES.lock().expect("no test dies while it holds this");
    let lines = lines.iter().filter(|(level, _)| is_meant(*level)).map(|(_, line)| line);
    lines.filter(|line| parts.iter().all(|part| line.contains(part))).cloned().collect()
}

thread_local! {
    static LESS: Cell<bool> = const { Cell::new(false) };
}

/// Keeps all but warnings and errors out of this test's output, which is memory.
pub fn log_less() {
    LESS.set(true);
}

/// Sends the engines' log lines to the test's output, which is shown when it fails.
pub fn log_to_output() {
    struct Output;
    impl log::Log for Output {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            if record.level() > log::Level::Warn && LESS.get() {
                return;
            }
            let line = format!("{} {}: {}", record.level(), record.target(), record.args());
            println!("{line}");
            if record.level() <= log::Level::Info {
                let mut lines = LINES.lock().expect("no test dies while it holds this");
                lines.push((record.level(), line));
            }
        }
        fn flush(&self) {}
    }
    if log::set_logger(&Output).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
}
