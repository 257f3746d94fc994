//! What sealing and opening packets costs: `cargo bench --bench crypto`.
//!
//! A loop and a clock instead of a framework, whose forty crates would have to be built for every
//! `cargo clippy --all-targets`. Each figure is the best of several rounds: the machine's other work
//! only ever makes a round slower.

use std::hint::black_box;
use std::time::{Duration, Instant};

use sixgate::buf::PacketBuf;
use sixgate::config::{CipherName, Digest};
use sixgate::session::Role;
use sixgate::session::data::{DataKeys, Format};
use sixgate::session::keys::KeyBlock;
use sixgate::session::replay::DataWindow;
use sixgate::session::wrap::Wrap;
use sixgate::time::UnixTime;
use sixgate::wire::control::{AckList, Body, Header, KeyId, MessageId, Opcode, SessionId};
use sixgate::wire::static_key::StaticKey;

const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(20);

/// Nanoseconds per call of `work` in the best round.
fn measure(mut work: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let (start, mut calls) = (Instant::now(), 0_u32);
        while start.elapsed() < ROUND {
            for _ in 0..32 {
                work();
            }
            calls += 32;
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    best
}

fn report(what: &str, bytes: usize, nanos: f64) {
    println!("{what:<44} {bytes:>5} bytes {nanos:>10.1} ns {:>8.3} GB/s", bytes as f64 / nanos);
}

fn data(cipher: CipherName, format: Format, len: usize) {
    let block = KeyBlock::from_exporter_bytes(&[7; 256]);
    let mut client =
        DataKeys::with_digest(cipher, Digest::Sha1, &block, Role::Client, format).unwrap();
    let mut server =
        DataKeys::with_digest(cipher, Digest::Sha1, &block, Role::Server, format).unwrap();
    let plaintext = vec![0x45; len];
    let mut buf = PacketBuf::new();
    let seal = measure(|| {
        let mut packet = buf.packet_from(&plaintext).unwrap();
        client.seal(KeyId::ZERO, Some(1), &mut packet).unwrap();
        black_box(packet.as_slice());
    });
    report(&format!("seal {cipher:?} {format:?}"), len, seal);
    let both = measure(|| {
        let mut packet = buf.packet_from(&plaintext).unwrap();
        client.seal(KeyId::ZERO, Some(1), &mut packet).unwrap();
        server.open(&mut packet).unwrap();
        black_box(packet.as_slice());
    });
    report(&format!("seal and open {cipher:?} {format:?}"), len, both);
}

fn main() {
    for cipher in CipherName::ALL.iter().copied() {
        for len in [64, 1400] {
            data(cipher, Format::Classic, len);
        }
        if cipher.is_aead() {
            data(cipher, Format::Epoch, 1400);
        }
    }

    let mut window = DataWindow::new();
    let mut next = 0;
    let nanos = measure(|| {
        next += 1;
        black_box(window.check(black_box(next))).unwrap();
        window.mark(next);
    });
    println!("{:<44} {nanos:>22.1} ns", "replay window, in order");

    let key = StaticKey::new([9; 256]);
    let mut client = Wrap::tls_crypt(&key, Role::Client);
    let mut server = Wrap::tls_crypt(&key, Role::Server);
    let session = SessionId([1; 8]);
    let header = Header { opcode: Opcode::ControlV1, key_id: KeyId::ZERO, session };
    for len in [0, 1100] {
        let payload = vec![4; len];
        let (acks, id) = (AckList::new(), Some(MessageId(3)));
        let body = Body { acks, remote: None, id, payload: &payload };
        let mut buf = PacketBuf::new();
        let nanos = measure(|| {
            let mut packet = buf.packet();
            client.seal(UnixTime(1), header, &body, &[], &mut packet).unwrap();
            black_box(server.open(packet.as_mut_slice()).unwrap());
        });
        report("seal and open tls-crypt", len, nanos);
    }
}
