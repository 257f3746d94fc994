//! Epoch keys: known answers, key changes and what they refuse.

use super::super::tests::{CIPHERS, FOX, hex, test_block};
use super::*;
use crate::buf::PacketBuf;
use crate::session::Role;

/// As in the reference's test; opaque here.
const HEADER: [u8; 4] = [0x07, 0, 0, 0x17];

fn sender(cipher: CipherName) -> Sender {
    Sender::new(cipher, &test_block().split(Role::Client).0).unwrap()
}

fn receiver(cipher: CipherName) -> Receiver {
    Receiver::new(cipher, &test_block().split(Role::Server).1).unwrap()
}

fn secret(bytes: &str) -> Secret {
    Secret(Zeroizing::new(hex(bytes).try_into().unwrap()))
}

fn seal(sender: &mut Sender, nudge: bool) -> Vec<u8> {
    let mut buf = PacketBuf::new();
    let mut packet = buf.packet_from(FOX).unwrap();
    sender.seal(HEADER, nudge, &mut packet).unwrap();
    packet.as_slice().to_vec()
}

fn open(receiver: &mut Receiver, datagram: &[u8]) -> Result<(), OpenError> {
    let mut buf = PacketBuf::new();
    let mut packet = buf.packet_from(datagram).unwrap();
    receiver.open(&mut packet)?;
    assert_eq!(packet.as_slice(), FOX);
    Ok(())
}

fn id(datagram: &[u8]) -> (u16, u64) {
    let id = PacketId::from_bytes(datagram[4..12].try_into().unwrap());
    (id.epoch, id.counter)
}

/// RFC 5869 appendix A, the expand step of cases 1 and 2 (A.3 is case 1 with an empty info).
#[test]
fn hkdf_expand_known_answers() {
    let a2_info: Vec<u8> = (0xb0..=0xff).collect();
    for (prk, info, okm) in [
        (
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
            hex("f0f1f2f3f4f5f6f7f8f9"),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
            a2_info,
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c
             59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71
             cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
            Vec::new(),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ] {
        let okm = hex(okm);
        let mut out = vec![0; okm.len()];
        Hkdf::<Sha256>::from_prk(&hex(prk)).unwrap().expand(&info, &mut out).unwrap();
        assert_eq!(out, okm);
    }
}

/// [13.3], from OpenVPN's `test_crypto.c`; recomputed independently.
#[test]
fn expand_label_known_answers() {
    let prk = secret("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
    let out = expand_label::<16>(&prk.0, b"unit test").unwrap();
    assert_eq!(*out, *hex("185eaa1c7f228ab8eb29773214d92046"));
    // The info that the label turns into, for an output of 27 bytes.
    let out = expand_label::<27>(&prk.0, b"unit test").unwrap();
    assert_eq!(*out, *hex("875a8eec18556380b8d933ed323c2df8e8eccf4972e683f06a83ac"));
    // Epoch 17 of AES-192-GCM: a key length that no cipher of ours has.
    let e17 = secret("130c000000000000000000000000000000000000000000000000000000000000");
    let key = expand_label::<24>(&e17.0, b"data_key").unwrap();
    assert_eq!(*key, *hex("ed8533db1c28ace418e9006ab29c17417d60ebe6cd90bf0a"));
    assert_eq!(*e17.material(CipherName::Aes256Gcm).unwrap().iv, *hex("86890aabf032cb59f4cfa34e"));
}

/// [13.4] "epoch format … advanced to epoch 4", from OpenVPN 3's and 2.7's tests.
#[test]
fn epoch_4_known_answer() {
    let mut sender = sender(CipherName::Aes256Gcm);
    sender.catch_up(4);
    let e4 = hex("10f7f2bf8543e6492f6915fa82457fae6144709679d5dfbd219c495f75e717b5");
    assert_eq!(*sender.secret.0, *e4);
    let material = sender.secret.material(CipherName::Aes256Gcm).unwrap();
    let k4 = hex("137f8871a9f6a8b1688128ac5e82f2d87d611e4b3aab98180bb9fcdd9e2a223b");
    assert_eq!(*material.key, *k4);
    assert_eq!(*material.iv, *hex("b2e7dce36da8d32f22b97da8"));
    let id = PacketId { epoch: 4, counter: 1 }.to_bytes();
    assert_eq!(nonce(id, &material.iv), *hex("b2e3dce36da8d32e22b97da8"));
    let packet = seal(&mut sender, false);
    let expected = hex("07000017 0004000000000001
        6eacea349ca836aab4d49ce685399a9bab964526e9cd11ece8cb7d77bdbc5c6a
        c4f49f36ea02e9c1f5d97644afa9118ba9f9a892623f1a13
        0ffff5913d39d75b18573b5748589a7d");
    assert_eq!(packet, expected);
    open(&mut receiver(CipherName::Aes256Gcm), &packet).unwrap();
}

/// [13.4] "epoch 1 tag", from OpenVPN 3's test.
#[test]
fn epoch_1_known_answer() {
    let packet = seal(&mut sender(CipherName::Aes256Gcm), false);
    assert_eq!(id(&packet), (1, 1));
    assert_eq!(packet[packet.len() - 16..], hex("a0b54cdd93ff0b01a3265ecf19d56a06"));
}

/// [13.4] "id packing".
#[test]
fn id_packing() {
    for (id, bytes) in [
        (PacketId { epoch: 0x23, counter: 1 }, "0023000000000001"),
        (PacketId { epoch: 0xfffe, counter: 0xfa07_9ab9_d2e9 }, "fffefa079ab9d2e9"),
    ] {
        assert_eq!(id.to_bytes(), *hex(bytes));
        assert_eq!(PacketId::from_bytes(id.to_bytes()), id);
    }
}

#[test]
fn a_sender_moves_on_when_its_key_has_done_enough() {
    for cipher in CIPHERS {
        let mut sender = sender(cipher);
        let mut receiver = receiver(cipher);
        sender.usage.spent = Usage::LIMIT + 1;
        let limited = cipher != CipherName::ChaCha20Poly1305;
        let packet = seal(&mut sender, false);
        assert_eq!(id(&packet), if limited { (2, 1) } else { (1, 1) });
        assert_eq!(sender.usage.spent <= 5, limited);
        open(&mut receiver, &packet).unwrap();
        let epoch = sender.epoch;
        sender.next = COUNTER_MAX;
        let last = seal(&mut sender, false);
        assert_eq!(id(&last), (epoch, COUNTER_MAX));
        let first = seal(&mut sender, false);
        assert_eq!(id(&first), (epoch + 1, 1));
        open(&mut receiver, &first).unwrap();
        open(&mut receiver, &last).unwrap();
        assert_eq!(receiver.epoch(), epoch + 1);
    }
}

#[test]
fn both_directions_stay_together() {
    use super::super::{DataKeys, Format, State};
    use crate::wire::control::KeyId;
    let keys =
        |role| DataKeys::new(CipherName::Aes128Gcm, &test_block(), role, Format::Epoch).unwrap();
    let (mut client, mut server) = (keys(Role::Client), keys(Role::Server));
    fn epochs(keys: &mut DataKeys) -> (u16, u16) {
        let State::Epoch(state) = &keys.state else { panic!("not epoch") };
        (state.send.epoch(), state.receive.epoch())
    }
    let pass = |from: &mut DataKeys, to: &mut DataKeys| {
        let mut buf = PacketBuf::new();
        let mut packet = buf.packet_from(FOX).unwrap();
        from.seal(KeyId::ZERO, None, &mut packet).unwrap();
        to.open(&mut packet).unwrap();
    };
    pass(&mut client, &mut server);
    pass(&mut server, &mut client);
    assert_eq!((epochs(&mut client), epochs(&mut server)), ((1, 1), (1, 1)));
    // The client's key has done too much; the server sees it and goes ahead, once.
    let State::Epoch(state) = &mut server.state else { panic!("not epoch") };
    state.receive.current.usage.spent = Usage::LIMIT + 1;
    pass(&mut server, &mut client);
    assert_eq!((epochs(&mut client), epochs(&mut server)), ((2, 2), (2, 1)));
    pass(&mut server, &mut client);
    assert_eq!(epochs(&mut server), (2, 1));
    pass(&mut client, &mut server);
    assert_eq!((epochs(&mut client), epochs(&mut server)), ((2, 2), (2, 2)));
    // The same when somebody tries tags.
    let State::Epoch(state) = &mut client.state else { panic!("not epoch") };
    state.receive.current.usage.failed = Usage::FAILED + 1;
    pass(&mut client, &mut server);
    assert_eq!((epochs(&mut client), epochs(&mut server)), ((3, 2), (3, 3)));
    assert!(!client.wants_renegotiation());
}

#[test]
fn previous_and_four_future_epochs_are_accepted() {
    let packet_of = |epoch| {
        let mut sender = sender(CipherName::ChaCha20Poly1305);
        sender.catch_up(epoch);
        seal(&mut sender, false)
    };
    for ahead in 1..=4 {
        let mut receiver = receiver(CipherName::ChaCha20Poly1305);
        open(&mut receiver, &packet_of(1 + ahead)).unwrap();
        assert_eq!(receiver.epoch(), 1 + ahead);
        open(&mut receiver, &packet_of(1)).unwrap();
        assert_eq!(open(&mut receiver, &packet_of(1)), Err(OpenError::Replay));
        // Those skipped over are gone.
        for skipped in 2..=ahead {
            assert_eq!(open(&mut receiver, &packet_of(skipped)), Err(OpenError::Replay));
        }
        assert_eq!(open(&mut receiver, &packet_of(1 + ahead + 5)), Err(OpenError::BadAuth));
        open(&mut receiver, &packet_of(1 + ahead + 4)).unwrap();
        assert_eq!(open(&mut receiver, &packet_of(1)), Err(OpenError::Replay));
        open(&mut receiver, &packet_of(2 + ahead)).unwrap_err();
    }
}

#[test]
fn a_forged_future_epoch_moves_nothing() {
    let mut sender = sender(CipherName::Aes256Gcm);
    let mut receiver = receiver(CipherName::Aes256Gcm);
    let genuine = seal(&mut sender, false);
    for epoch in 0..=u16::MAX {
        let mut forged = genuine.clone();
        forged[4..6].copy_from_slice(&epoch.to_be_bytes());
        if epoch != 1 {
            assert!(open(&mut receiver, &forged).is_err(), "{epoch}");
        }
    }
    assert_eq!((receiver.epoch(), receiver.future.len()), (1, FUTURE));
    assert_eq!(receiver.current.usage.failed, 4);
    open(&mut receiver, &genuine).unwrap();
}

#[test]
fn the_last_epochs() {
    let block = test_block();
    let first = || Secret::first(block.split(Role::Client).0.0.cipher()).unwrap();
    // As if both were at the end of a very long life; which secret does not matter.
    let cipher = CipherName::Aes256Gcm;
    let mut sender = Sender::at(cipher, first(), RENEGOTIATE - 1).unwrap();
    assert!(!sender.wants_renegotiation());
    assert_eq!(id(&seal(&mut sender, true)).0, RENEGOTIATE);
    assert!(sender.wants_renegotiation());

    let mut sender = Sender::at(cipher, first(), LAST_RECEIVED - 2).unwrap();
    let mut receiver = Receiver::at(cipher, first(), LAST_RECEIVED - 2).unwrap();
    assert_eq!(receiver.future.len(), 2);
    open(&mut receiver, &seal(&mut sender, false)).unwrap();
    open(&mut receiver, &seal(&mut sender, true)).unwrap();
    assert_eq!(receiver.future.len(), 1);
    open(&mut receiver, &seal(&mut sender, true)).unwrap();
    assert_eq!((receiver.epoch(), receiver.future.len()), (LAST_RECEIVED, 0));
    assert_eq!(open(&mut receiver, &seal(&mut sender, true)), Err(OpenError::BadAuth));

    let mut sender = Sender::at(cipher, first(), u16::MAX).unwrap();
    // A nudge cannot be followed, the key goes on; at its own limit it ends.
    assert_eq!(id(&seal(&mut sender, true)), (u16::MAX, 1));
    sender.usage.spent = Usage::LIMIT + 1;
    let mut buf = PacketBuf::new();
    let mut packet = buf.packet_from(FOX).unwrap();
    assert_eq!(sender.seal(HEADER, false, &mut packet), Err(SealError::Exhausted));
    assert_eq!(packet.as_slice(), FOX);
}

/// Packets of a sender that moves on now and then, through a network that loses, repeats and
/// reorders, against a model that knows each packet's epoch and counter.
#[test]
fn agrees_with_a_model_over_a_bad_network() {
    let mut state = 88_172_645_463_325_252_u64;
    let mut roll = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    let mut sender = sender(CipherName::ChaCha20Poly1305);
    let mut receiver = receiver(CipherName::ChaCha20Poly1305);
    let mut sent = Vec::new();
    let (mut seen, mut current, mut retiring) = (std::collections::BTreeSet::new(), 1, None);
    for _ in 0..6_000 {
        for _ in 0..roll(3) {
            let moves = if roll(60) == 0 { 1 + roll(3) as u16 } else { 0 };
            sender.catch_up(sender.epoch() + moves);
            sent.push(seal(&mut sender, false));
        }
        let Some(back) = sent.len().checked_sub(1 + roll(30) as usize) else { continue };
        let packet = &sent[back];
        let (epoch, counter) = id(packet);
        let known = epoch == current
            || Some(epoch) == retiring
            || (current + 1..=current + 4).contains(&epoch);
        // No epoch gets long enough here for a counter to fall out of its window.
        let expected = known && !seen.contains(&(epoch, counter));
        assert_eq!(open(&mut receiver, packet).is_ok(), expected, "{epoch} {counter}");
        if expected {
            seen.insert((epoch, counter));
            if epoch > current {
                retiring = Some(current);
                current = epoch;
            }
        }
        assert_eq!(receiver.epoch(), current);
    }
    assert!(current > 50);
}
