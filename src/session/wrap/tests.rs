//! Known answers, every truncation and replay for all four wraps.

use super::tls_crypt_v2::ClientKeyError;
use super::*;
use crate::wire::control::{AckList, KeyId, MessageId, Opcode, SessionId};
use crate::wire::static_key::V2ServerKey;
use crate::wire::wkc::{MAX_METADATA, Metadata, WkcError};

/// The static key of OpenVPN's `tests/unit_tests/openvpn/test_pkt.c` [13.5].
const TEST_PKT_KEY: &str = "
    37268ea8f95d7f71f9fb8fc03770c460 daf714a483d815c013ce0a537efc18f2
    8f4f172669d9e6a413bac6741d8ea054 00f49b7fd6326470f23798c606bf53d4
    de63ebc64ec59d57ce5d04d5b62e68b5 3ca6e5354351097fa370446c4d269f18
    7bb6ae54af2dc70ff7317fe2f8754b82 82aad4202f9fa42c8640245d883e2c54
    a0c1c489a036cf3a8964d8d289c1583b 9447c262b1da5fd167a5d27bd5ac5143
    17bc2343a31a2efc38dd920d910375f5 1c2e27f3afd36c49269da079f7ce466e
    bb0f9ad13e9bbb4665974e6bc24b513c 5700393bf4a3e7f967e2f384069ac8a8
    e78b18b15604993fd16515cce9c0f3e4 2b4126b999005ade802797b0eeb8b9e6";

const ALL_DIGESTS: [Digest; 4] = [Digest::Sha1, Digest::Sha256, Digest::Sha384, Digest::Sha512];
const NOW: UnixTime = UnixTime(0x61d3_bf6c);

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn test_pkt_key() -> StaticKey {
    StaticKey::new(hex(TEST_PKT_KEY).try_into().unwrap())
}

fn client_reset(session: &str) -> (Header, Body<'static>) {
    let session = SessionId(hex(session).try_into().unwrap());
    let header = Header { opcode: Opcode::HardResetClientV2, key_id: KeyId::ZERO, session };
    let body = Body { acks: AckList::new(), remote: None, id: Some(MessageId(0)), payload: &[] };
    (header, body)
}

fn control() -> (Header, Body<'static>) {
    let header = Header {
        opcode: Opcode::ControlV1,
        key_id: KeyId::new(3).unwrap(),
        session: SessionId([7; 8]),
    };
    let acks = [1, 2, 9].map(MessageId).into_iter().collect();
    let payload = b"some TLS records";
    (header, Body { acks, remote: Some(SessionId([9; 8])), id: Some(MessageId(4)), payload })
}

fn sealed(key: &WrapKey, id: WrapId, (header, body): &(Header, Body<'_>)) -> Vec<u8> {
    let mut memory = [0x5a; 2048];
    let mut out = PacketMut::new(&mut memory, 3, 3).unwrap();
    key.seal(id, *header, body, &[], &mut out).unwrap();
    assert_eq!(out.len(), Header::LEN + key.overhead() + body.buffer_len());
    out.as_slice().to_vec()
}

fn seal_next(wrap: &mut Wrap, now: UnixTime) -> Vec<u8> {
    let (header, body) = control();
    let mut memory = [0; 2048];
    let mut out = PacketMut::new(&mut memory, 0, 0).unwrap();
    wrap.seal(now, header, &body, &[], &mut out).unwrap();
    out.as_slice().to_vec()
}

/// One key of each kind as a client and as a server hold it.
fn pairs() -> Vec<(WrapKey, WrapKey)> {
    let key = test_pkt_key();
    let mut pairs =
        vec![(WrapKey::tls_crypt(&key, Role::Client), WrapKey::tls_crypt(&key, Role::Server))];
    for digest in ALL_DIGESTS {
        for (client, server) in [(Some(1), Some(0)), (Some(0), Some(1)), (None, None)] {
            pairs.push((
                WrapKey::tls_auth(&key, client, digest),
                WrapKey::tls_auth(&key, server, digest),
            ));
        }
    }
    pairs
}

/// [13.5] "tls-auth SHA1 client reset", from `test_pkt.c`; recomputed independently.
#[test]
fn tls_auth_known_answer() {
    let packet = hex("38 de694c5c7bfba274 93537c1ded4e781529ae7cfe4b8c6d6b2b51f05a
                      00000001 61d3bf6c 00 00000000");
    let reset = client_reset("de694c5c7bfba274");
    let id = WrapId { id: 1, time: 0x61d3_bf6c };
    let server = WrapKey::tls_auth(&test_pkt_key(), Some(0), Digest::Sha1);
    let client = WrapKey::tls_auth(&test_pkt_key(), Some(1), Digest::Sha1);
    assert_eq!(sealed(&client, id, &reset), packet);
    let mut received = packet.clone();
    let opened = server.open(&mut received).unwrap();
    assert_eq!((opened.header, opened.wrap_id, opened.body), (reset.0, Some(id), reset.1));
    // Not its own direction, not another digest.
    assert_eq!(client.open(&mut packet.clone()), Err(WrapError::BadAuth));
    let other = WrapKey::tls_auth(&test_pkt_key(), Some(0), Digest::Sha256);
    assert!(other.open(&mut packet.clone()).is_err());
}

/// [13.5] "tls-crypt client reset", from `test_pkt.c`; recomputed independently.
#[test]
fn tls_crypt_known_answer() {
    let packet = hex("38 f419cb12d1f9e48f 00000001 61d3f8e1
                      330206f56802be44fbed905064e3db43416bec5e526719462b7eb90c96defc9b
                      05c44879f7");
    let reset = client_reset("f419cb12d1f9e48f");
    let id = WrapId { id: 1, time: 0x61d3_f8e1 };
    let client = WrapKey::tls_crypt(&test_pkt_key(), Role::Client);
    let server = WrapKey::tls_crypt(&test_pkt_key(), Role::Server);
    assert_eq!(sealed(&client, id, &reset), packet);
    let mut received = packet.clone();
    let opened = server.open(&mut received).unwrap();
    assert_eq!((opened.header, opened.wrap_id, opened.body), (reset.0, Some(id), reset.1));
    assert_eq!(client.open(&mut packet.clone()), Err(WrapError::BadAuth));
}

/// [13.5] "dynamic tls-crypt", from `test_tls_crypt.c`; the reference wraps without a header there,
/// so this goes below the packet level.
#[test]
fn dynamic_tls_crypt_known_answer() {
    let mut packet = [&[0; WrapId::LEN + tls_crypt::TAG], b"1234567890".as_slice()].concat();
    let key = WrapKey::none().dynamic(&[0xba; 256], Role::Client);
    let Kind::TlsCrypt(client) = &key.0 else { panic!("not tls-crypt") };
    client.seal(&[], WrapId { id: 1, time: 0 }, &mut packet);
    let expected = hex("0000000100000000
        e319277f1c8d6e6a7796a855337b9cfb56e1f13a870e6647dfa195c92c17a015
        ba4967a11d55ea1a06a7");
    assert_eq!(packet, expected);
}

/// Any configured key is mixed in, and both ends agree [2.6].
#[test]
fn dynamic_tls_crypt_mixes_the_configured_key_in() {
    let exported: [u8; 256] = core::array::from_fn(|i| i as u8);
    let id = WrapId { id: 1, time: 1 };
    let alone = WrapKey::none().dynamic(&exported, Role::Server);
    for (client, server) in pairs() {
        let client = client.dynamic(&exported, Role::Client);
        let server = server.dynamic(&exported, Role::Server);
        let packet = sealed(&client, id, &control());
        assert!(server.open(&mut packet.clone()).is_ok());
        assert_eq!(alone.open(&mut packet.clone()), Err(WrapError::BadAuth));
    }
    // XOR, byte for byte: mixing the static key into its complement leaves all ones.
    let complement = test_pkt_key().as_bytes().map(|byte| !byte);
    let mixed =
        WrapKey::tls_crypt(&test_pkt_key(), Role::Client).dynamic(&complement, Role::Client);
    let ones = WrapKey::tls_crypt(&StaticKey::new([0xff; 256]), Role::Client);
    assert_eq!(sealed(&mixed, id, &control()), sealed(&ones, id, &control()));
}

/// [13.5] tls-crypt-v2, from `test_tls_crypt.c`: length and tag T of two wrapped keys.
#[test]
fn tls_crypt_v2_known_answers() {
    let server = V2ServerKey::new(core::array::from_fn(|i| i as u8));
    let client = StaticKey::new(core::array::from_fn(|i| i as u8));
    for (metadata, len, tag) in [
        (
            Metadata::Created(0),
            299,
            "177da5c074a94619b16be4acb71f1a6ccf24f33c6bbaf498459d5f06c369d495",
        ),
        (
            Metadata::User(&[0x00, 0x00, 0x41, 0x08, 0x20, 0xc3]),
            297,
            "69eda75582aa170b8c9418fe28248cdb7761bea2d277aa1647eb3a9d94083733",
        ),
    ] {
        let wkc = server.wrap_client_key(&client, &metadata.to_vec()).unwrap();
        assert_eq!(wkc.len(), len);
        assert_eq!(wkc[..32], hex(tag));
        let (key, bytes) = server.unwrap_client_key(&wkc).unwrap();
        assert_eq!(key.as_bytes(), client.as_bytes());
        assert_eq!(Metadata::parse(&bytes), metadata);
    }
}

#[test]
fn tls_crypt_v2_refuses_everything_else() {
    let server = V2ServerKey::new(core::array::from_fn(|i| i as u8));
    let client = test_pkt_key();
    let wkc = server.wrap_client_key(&client, &[0, 1, 2]).unwrap();
    for bit in 0..wkc.len() * 8 {
        let mut flipped = wkc.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = server.unwrap_client_key(&flipped).map(|_| ()).unwrap_err();
        match error {
            ClientKeyError::BadAuth => assert!(bit / 8 < wkc.len() - 2, "bit {bit}"),
            ClientKeyError::Malformed(_) => assert!(bit / 8 >= wkc.len() - 2, "bit {bit}"),
        }
    }
    for len in 0..wkc.len() {
        assert!(server.unwrap_client_key(&wkc[..len]).is_err(), "{len}");
    }
    let stranger = V2ServerKey::new([1; 128]);
    assert_eq!(stranger.unwrap_client_key(&wkc).map(|_| ()), Err(ClientKeyError::BadAuth));
    let largest = server.wrap_client_key(&client, &[b'A'; MAX_METADATA]).unwrap();
    assert_eq!(largest.len(), crate::limits::MAX_WKC);
    assert_eq!(server.unwrap_client_key(&largest).unwrap().1.len(), MAX_METADATA);
    assert!(server.wrap_client_key(&client, &[b'A'; MAX_METADATA + 1]).is_err());
    let bare = server.wrap_client_key(&client, &[]).unwrap();
    assert_eq!((bare.len(), server.unwrap_client_key(&bare).unwrap().1.len()), (290, 0));
    let too_large = ClientKeyError::Malformed(WkcError::TooLarge);
    assert_eq!(server.unwrap_client_key(&[0xff; 2000]).map(|_| ()), Err(too_large));
}

#[test]
fn overhead_is_what_section_2_7_says() {
    let key = test_pkt_key();
    assert_eq!(WrapKey::none().overhead(), 0);
    assert_eq!(WrapKey::tls_crypt(&key, Role::Client).overhead(), 40);
    let auth = ALL_DIGESTS.map(|digest| WrapKey::tls_auth(&key, None, digest).overhead());
    assert_eq!(auth, [28, 40, 56, 72]);
}

#[test]
fn both_directions_of_every_wrapping() {
    let id = WrapId { id: 77, time: 0x8000_0000 };
    for (client, server) in pairs() {
        for (from, to) in [(&client, &server), (&server, &client)] {
            for packet in [control(), client_reset("0102030405060708")] {
                let mut bytes = sealed(from, id, &packet);
                let opened = to.open(&mut bytes).unwrap();
                assert_eq!((opened.header, opened.wrap_id), (packet.0, Some(id)));
                assert_eq!(opened.body, packet.1);
            }
        }
    }
    let mut plain = sealed(&WrapKey::none(), id, &control());
    let opened = WrapKey::none().open(&mut plain).unwrap();
    assert_eq!((opened.header, opened.wrap_id, opened.body), (control().0, None, control().1));
}

#[test]
fn no_flipped_bit_and_no_truncation_gets_through() {
    for (client, server) in pairs() {
        let packet = sealed(&client, WrapId { id: 1, time: 1 }, &control());
        for bit in 0..packet.len() * 8 {
            let mut flipped = packet.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = server.open(&mut flipped).unwrap_err();
            // Only the opcode can make a packet another thing than a forgery.
            assert!(error == WrapError::BadAuth || bit < 8, "bit {bit}: {error}");
        }
        for len in 0..packet.len() {
            assert!(server.open(&mut packet[..len].to_vec()).is_err(), "{len}");
        }
        let longer = [packet.as_slice(), &[0]].concat();
        assert_eq!(server.open(&mut longer.clone()), Err(WrapError::BadAuth));
    }
}

#[test]
fn a_session_refuses_replays_and_survives_reordering() {
    for (client, server) in pairs() {
        let (mut client, mut server) = (Wrap::from(client), Wrap::from(server));
        let packets: Vec<_> = (0..70).map(|_| seal_next(&mut client, NOW)).collect();
        let mut open = |index: usize| {
            server.open(&mut packets[index].clone()).map(|opened| opened.wrap_id.unwrap().id)
        };
        assert_eq!(open(1), Ok(2));
        assert_eq!(open(1), Err(WrapError::Replay));
        assert_eq!(open(0), Ok(1));
        assert_eq!(open(0), Err(WrapError::Replay));
        assert_eq!(open(69), Ok(70));
        assert_eq!(open(2), Err(WrapError::Replay));
        assert_eq!(open(6), Ok(7));
    }
}

/// Check, authenticate, mark: an old id is refused whatever else is wrong with the packet, and
/// before its bytes are touched.
#[test]
fn a_replay_is_refused_before_it_is_decrypted() {
    for (client, server) in pairs() {
        let (mut client, mut server) = (Wrap::from(client), Wrap::from(server));
        let packet = seal_next(&mut client, NOW);
        assert!(server.open(&mut packet.clone()).is_ok());
        let mut again = packet.clone();
        *again.last_mut().unwrap() ^= 1;
        let before = again.clone();
        assert_eq!(server.open(&mut again), Err(WrapError::Replay));
        assert_eq!(again, before);
    }
}

#[test]
fn garbage_is_refused() {
    let mut state = 0x0123_4567_89ab_cdef_u64;
    let mut roll = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    let v2 = V2ServerKey::new([3; 128]);
    let servers: Vec<_> = pairs().into_iter().map(|(_, server)| server).collect();
    for len in (0..120).chain([289, 290, 1024, 1500]) {
        for first in [0x38, 0x20, 0x28, 0x50, 0x58, 0x40, 0x19, 0x00, 0xff] {
            let mut packet: Vec<u8> = (0..len).map(|_| roll()).collect();
            if let Some(byte) = packet.first_mut() {
                *byte = first;
            }
            let _ = WrapKey::none().open(&mut packet.clone());
            for server in &servers {
                assert!(server.open(&mut packet.clone()).is_err());
                assert!(Wrap::from(server.clone()).open(&mut packet.clone()).is_err());
            }
            if let Some(length) = packet.last_chunk_mut() {
                *length = (len as u16).to_be_bytes();
            }
            assert!(v2.unwrap_client_key(&packet).is_err());
        }
    }
}

#[test]
fn a_forgery_does_not_move_the_window() {
    for (client, server) in pairs() {
        let far = WrapId { id: 1000, time: u32::MAX };
        let mut forged = sealed(&client, far, &control());
        *forged.last_mut().unwrap() ^= 1;
        let (mut client, mut server) = (Wrap::from(client), Wrap::from(server));
        assert_eq!(server.open(&mut forged), Err(WrapError::BadAuth));
        assert!(server.open(&mut seal_next(&mut client, NOW)).is_ok());
    }
}

#[test]
fn the_time_stays_until_the_counter_has_run_through() {
    let key = WrapKey::tls_crypt(&test_pkt_key(), Role::Client);
    let server = WrapKey::tls_crypt(&test_pkt_key(), Role::Server);
    let mut wrap = Wrap::from(key);
    let next = |wrap: &mut Wrap, now| {
        let mut packet = seal_next(wrap, UnixTime(now));
        let id = server.open(&mut packet).unwrap().wrap_id.unwrap();
        (id.id, id.time)
    };
    assert_eq!(next(&mut wrap, 100), (1, 100));
    assert_eq!(next(&mut wrap, 200), (2, 100));
    assert_eq!(next(&mut wrap, 50), (3, 100));
    wrap.start_packet_id(u32::MAX);
    assert_eq!(next(&mut wrap, 100), (u32::MAX, 100));
    assert_eq!(next(&mut wrap, 60), (1, 101));
    assert_eq!(next(&mut wrap, 300), (2, 101));
}

/// [2.5]: such a client's first id is 0x0f000001.
#[test]
fn early_negotiation_shows_in_the_first_id() {
    let mut wrap = Wrap::tls_crypt(&test_pkt_key(), Role::Client);
    wrap.start_packet_id(EARLY_NEGOTIATION_ID);
    let server = WrapKey::tls_crypt(&test_pkt_key(), Role::Server);
    let first = server.open(&mut seal_next(&mut wrap, NOW)).unwrap().wrap_id.unwrap().id;
    assert_eq!(first, EARLY_NEGOTIATION_ID);
    assert!(knows_early_negotiation(first));
    assert!(!knows_early_negotiation(1) && !knows_early_negotiation(0x0100_0001));
}

#[test]
fn what_does_not_fit_leaves_everything_as_it_was() {
    let (header, body) = control();
    for (client, _) in pairs() {
        let needed = Header::LEN + client.overhead() + body.buffer_len() + 3;
        let mut wrap = Wrap::from(client);
        let mut memory = vec![0; needed + 4];
        let mut out = PacketMut::new(&mut memory, 0, 5).unwrap();
        assert_eq!(wrap.seal(NOW, header, &body, b"wkc", &mut out), Err(Full));
        assert_eq!((out.len(), wrap.next, wrap.time), (5, 1, None));
        out.truncate(4);
        assert_eq!(wrap.seal(NOW, header, &body, b"wkc", &mut out), Ok(()));
        assert_eq!((out.len(), out.tailroom(), wrap.next), (needed + 4, 0, 2));
        assert!(out.as_slice().ends_with(b"wkc"));
    }
}

#[test]
fn debug_shows_no_key() {
    let texts: Vec<_> = pairs()
        .into_iter()
        .map(|(client, _)| format!("{:?} {:?}", client.clone(), Wrap::from(client)))
        .collect();
    for text in texts {
        // 0x37 and 0xa0 start the two halves of the key.
        assert!(!text.contains("55") && !text.contains("160") && text.contains(".."), "{text}");
    }
}
