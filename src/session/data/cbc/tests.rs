//! CBC packets: captured ones, every length, every truncation, what only a broken peer sends.

use super::*;
use crate::buf::PacketBuf;
use crate::config::Framing;
use crate::session::Role;
use crate::session::data::{DataKeys, Format, framing};
use crate::session::keys::KeyBlock;
use crate::wire::control::KeyId;

const SIZES: [AesSize; 3] = [AesSize::Aes128, AesSize::Aes192, AesSize::Aes256];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// A block whose client sends with these keys.
fn block(cipher: &[u8], hmac: &[u8]) -> KeyBlock {
    let mut bytes = [0x11; 256];
    bytes[..cipher.len()].copy_from_slice(cipher);
    bytes[64..64 + hmac.len()].copy_from_slice(hmac);
    KeyBlock::from_exporter_bytes(&bytes)
}

fn pair(size: AesSize, digest: Digest) -> (DataKeys, DataKeys) {
    let block = KeyBlock::from_exporter_bytes(&[7; 256]);
    let keys = |role| {
        DataKeys::with_digest(CipherName::Cbc(size), digest, &block, role, Format::Classic).unwrap()
    };
    (keys(Role::Client), keys(Role::Server))
}

/// Packets of a real OpenVPN: opened, and made again bit for bit.
#[test]
fn captured_packets() {
    let vectors = include_str!("../../../../tests/vectors/cbc.txt");
    let lines = vectors.lines().filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let [cipher, digest, kind, _sender, key, hmac, packet, plain] = words[..] else {
            panic!("{line}")
        };
        let Some(CipherName::Cbc(size)) = CipherName::from_name(cipher) else { panic!("{cipher}") };
        let digest = Digest::from_name(digest).unwrap();
        let option = kind.replace('_', " ");
        let kind = Framing::from_words(&option.split(' ').collect::<Vec<_>>()).unwrap_or_default();
        let (wire, plain) = (hex(packet), hex(plain));
        let block = block(&hex(key), &hex(hmac));

        let mut buf = PacketBuf::new();
        let mut packet = buf.packet_from(&wire).unwrap();
        let (_, receive) = block.split(Role::Server);
        let mut receiver = Receiver::new(size, digest, &receive).unwrap();
        receiver.open(4, &mut packet).unwrap();
        assert_eq!(packet.as_slice(), &plain[PID..], "{cipher} {digest:?}");
        framing::remove(kind, &mut packet).unwrap();
        assert_eq!((packet.as_slice()[0], packet.len()), (0x45, 48), "an IPv4 packet");

        let (send, _) = block.split(Role::Client);
        let mut sender = Sender::new(size, digest, &send).unwrap();
        sender.skip_to(u32::from_be_bytes(plain[..PID].try_into().unwrap()));
        framing::add(kind, &mut packet).unwrap();
        let iv = wire[4 + digest.size()..][..BLOCK].try_into().unwrap();
        sender.seal_with(iv, &wire[..4], &mut packet).unwrap();
        assert_eq!(packet.as_slice(), wire, "{cipher} {digest:?}");
        count += 1;
    }
    assert_eq!(count, 12);
}

#[test]
fn every_length_round_trips_with_every_digest_and_both_headers() {
    for (size, digest) in SIZES.into_iter().flat_map(|size| Digest::ALL.map(|d| (size, d))) {
        let (mut client, mut server) = pair(size, digest);
        for len in (0..50).chain([1399, 1400, 1500, 9000]) {
            let plain: Vec<u8> = (0..len).map(|i| i as u8).collect();
            for peer in [Some(9), None] {
                let mut buf = PacketBuf::new();
                let mut packet = buf.packet_from(&plain).unwrap();
                client.seal(KeyId::ZERO, peer, &mut packet).unwrap();
                let header = if peer.is_some() { 4 } else { 1 };
                let padded = (PID + len) / BLOCK * BLOCK + BLOCK;
                assert_eq!(packet.len(), header + digest.size() + BLOCK + padded);
                let sealed = packet.as_slice().to_vec();
                server.open(&mut packet).unwrap();
                assert_eq!(packet.as_slice(), plain);
                let mut again = buf.packet_from(&sealed).unwrap();
                assert_eq!(server.open(&mut again), Err(OpenError::Replay));
            }
        }
    }
}

#[test]
fn every_truncation_and_every_changed_byte_is_refused() {
    let (mut client, mut server) = pair(AesSize::Aes256, Digest::Sha256);
    let mut buf = PacketBuf::new();
    let mut packet = buf.packet_from(&[0x45; 40]).unwrap();
    client.seal(KeyId::ZERO, Some(1), &mut packet).unwrap();
    let sealed = packet.as_slice().to_vec();
    for len in 0..sealed.len() {
        let mut packet = buf.packet_from(&sealed[..len]).unwrap();
        assert!(server.open(&mut packet).is_err(), "{len}");
    }
    // The header is not authenticated [6.3].
    for at in 4..sealed.len() {
        let mut packet = buf.packet_from(&sealed).unwrap();
        packet.as_mut_slice()[at] ^= 0x40;
        assert_eq!(server.open(&mut packet), Err(OpenError::BadAuth), "{at}");
    }
    let mut packet = buf.packet_from(&sealed).unwrap();
    server.open(&mut packet).unwrap();
}

/// What only a broken peer that has the key can send.
#[test]
fn padding_is_checked() {
    for (text, len) in [
        (&[3, 3, 3][..], None),
        (&[9, 1], Some(1)),
        (&[0], None),
        (&[16; 15], None),
        (&[16; 16], Some(0)),
        (&[17; 32], None),
        (&[9, 2, 3, 3], None),
        (&[], None),
    ] {
        let mut whole = [9; 32];
        let whole = match text.len() {
            16 | 32 | 0 | 15 => text,
            n => {
                whole[32 - n..].copy_from_slice(text);
                &whole[..]
            }
        };
        let expected = match len {
            Some(0) => Some(0),
            Some(cut) => Some(whole.len() - cut),
            None if text == [3, 3, 3] => Some(29),
            None => None,
        };
        assert_eq!(unpadded(whole), expected, "{text:?}");
    }
}

#[test]
fn ids_end_before_they_repeat() {
    let block = KeyBlock::from_exporter_bytes(&[7; 256]);
    let mut sender =
        Sender::new(AesSize::Aes128, Digest::Sha1, &block.split(Role::Client).0).unwrap();
    sender.skip_to(PACKET_ID_TRIGGER - 1);
    assert!(!sender.wants_renegotiation());
    let mut buf = PacketBuf::new();
    sender.seal(&[0x30], &mut buf.packet_from(b"x").unwrap()).unwrap();
    assert!(sender.wants_renegotiation());
    sender.skip_to(u32::MAX);
    sender.seal(&[0x30], &mut buf.packet_from(b"x").unwrap()).unwrap();
    let mut packet = buf.packet_from(b"x").unwrap();
    assert_eq!(sender.seal(&[0x30], &mut packet), Err(SealError::Exhausted));
    assert_eq!(packet.as_slice(), b"x", "unchanged");
}

#[test]
fn without_room_nothing_changes() {
    let block = KeyBlock::from_exporter_bytes(&[7; 256]);
    let mut sender =
        Sender::new(AesSize::Aes128, Digest::Sha512, &block.split(Role::Client).0).unwrap();
    for (front, back) in [(0, 64), (84, 64), (128, 0), (128, 10)] {
        let mut memory = [5; 300];
        let mut packet = PacketMut::new(&mut memory[..front + 1 + back], front, front + 1).unwrap();
        assert_eq!(sender.seal(&[0x30], &mut packet), Err(SealError::Full), "{front} {back}");
        assert_eq!(packet.as_slice(), [5]);
    }
}

#[test]
fn the_iv_is_fresh_each_time_and_an_all_zero_key_is_refused() {
    let (mut client, _) = pair(AesSize::Aes128, Digest::Sha1);
    let mut iv = || {
        let mut buf = PacketBuf::new();
        let mut packet = buf.packet_from(b"x").unwrap();
        client.seal(KeyId::ZERO, None, &mut packet).unwrap();
        packet.as_slice()[21..37].to_vec()
    };
    assert_ne!(iv(), iv());
    for size in SIZES {
        let block = block(&[0; 64], &[1; 64]);
        assert!(Sender::new(size, Digest::Sha1, &block.split(Role::Client).0).is_err());
        assert!(Receiver::new(size, Digest::Sha1, &block.split(Role::Server).1).is_err());
    }
}
