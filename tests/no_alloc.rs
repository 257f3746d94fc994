//! The packet path takes no memory from the heap: a counting allocator proves it, per thread, so
//! that the tests do not disturb one another.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use sixgate::buf::PacketBuf;
use sixgate::config::{CipherName, Digest};
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
