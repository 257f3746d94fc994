//! Bodies of the fuzz targets of this ring; see `wire::fuzz`.

use core::time::Duration;

use crate::buf::PacketBuf;
use crate::config::{CipherName, Digest};
use crate::session::data::{DataKeys, Format, OpenError};
use crate::session::identity::PeerIdentity;
use crate::session::keys::KeyBlock;
use crate::session::reliable::{Receipt, Reliable};
use crate::session::wrap::{Wrap, WrapError, WrapKey};
use crate::session::{CertificateInfo, Role};
use crate::time::{Instant, UnixTime};
use crate::wire::control::{AckList, Body, Header, KeyId, MessageId, Opcode, SessionId};
use crate::wire::static_key::{StaticKey, V2ServerKey};
use crate::wire::wkc::{self, Metadata};

fn key() -> StaticKey {
    StaticKey::new(core::array::from_fn(|i| i as u8 ^ 0x5a))
}

fn server_key() -> V2ServerKey {
    V2ServerKey::new(core::array::from_fn(|i| i as u8 ^ 0xa5))
}

/// The wrappings, both ends of each.
fn wraps() -> [(WrapKey, WrapKey); 4] {
    let auth = |way| WrapKey::tls_auth(&key(), way, Digest::Sha1);
    [
        (WrapKey::none(), WrapKey::none()),
        (auth(Some(1)), auth(Some(0))),
        (
            WrapKey::tls_auth(&key(), None, Digest::Sha512),
            WrapKey::tls_auth(&key(), None, Digest::Sha512),
        ),
        (WrapKey::tls_crypt(&key(), Role::Client), WrapKey::tls_crypt(&key(), Role::Server)),
    ]
}

/// A datagram as a stranger sends it, against every wrapping: only what we made ourselves opens.
/// Then the input is the payload of a packet that we make, and the place where it is damaged.
pub fn wrap(bytes: &[u8]) {
    for (number, (client, server)) in wraps().into_iter().enumerate() {
        let mut copy = bytes.to_vec();
        let opened = server.open(&mut copy);
        // Nobody guesses an HMAC; without a wrapping, whatever parses is taken.
        assert!(opened.is_err() || number == 0);
        let (Some((at, rest)), session) = (bytes.split_first(), SessionId([7; 8])) else {
            continue;
        };
        let payload = rest.get(..rest.len().min(1_200)).unwrap_or_default();
        let header = Header { opcode: Opcode::ControlV1, key_id: KeyId::ZERO, session };
        let body = Body { acks: AckList::new(), remote: None, id: Some(MessageId(1)), payload };
        let mut memory = PacketBuf::new();
        let mut out = memory.packet();
        let mut sender = Wrap::from(client);
        let mut receiver = Wrap::from(server);
        sender.seal(UnixTime(5), header, &body, &[], &mut out).unwrap();
        let sealed = out.as_slice().to_vec();
        if number != 0 {
            let mut damaged = sealed.clone();
            let at = usize::from(*at) % damaged.len();
            damaged[at] ^= 1;
            assert!(receiver.open(&mut damaged).is_err(), "byte {at} is not protected");
        }
        let mut good = sealed.clone();
        assert_eq!(receiver.open(&mut good).map(|opened| opened.body), Ok(body));
        let mut again = sealed;
        let replayed = receiver.open(&mut again).map(|_| ());
        assert_eq!(replayed, if number == 0 { Ok(()) } else { Err(WrapError::Replay) });
    }
}

/// Wrapped client keys: a stranger's, and one of ours with the input as its metadata.
pub fn client_key(bytes: &[u8]) {
    assert!(server_key().unwrap_client_key(bytes).is_err());
    let metadata = bytes.get(..bytes.len().min(wkc::MAX_METADATA)).unwrap_or_default();
    let mut wrapped = server_key().wrap_client_key(&key(), metadata).unwrap();
    let (found, kept) = server_key().unwrap_client_key(&wrapped).unwrap();
    assert!(found.as_bytes() == key().as_bytes() && kept == metadata);
    assert_eq!(Metadata::parse(&kept).to_vec(), metadata);
    let at = bytes.iter().fold(0, |sum: usize, byte| sum.wrapping_mul(31) ^ usize::from(*byte))
        % wrapped.len();
    wrapped[at] ^= 0x10;
    assert!(server_key().unwrap_client_key(&wrapped).is_err());
}

/// A packet under way: acknowledgements, number, payload.
type Flying = (AckList, Option<MessageId>, Vec<u8>);

/// Two reliability layers on a link that the input commands: what arrives is what was sent, in
/// order, once; and once the link is good, all of it arrives.
pub fn reliable(bytes: &[u8]) {
    let layer = || Reliable::new(0, 4, Duration::from_secs(1));
    let mut ends = [layer(), layer()];
    let mut links: [Vec<Flying>; 2] = Default::default();
    let (mut sent, mut got) = ([0_u32; 2], [0_u32; 2]);
    let mut now = Instant::from_millis(1);
    let good_link = core::iter::repeat_n(0, 4_000);
    let script = bytes.iter().copied().take(2_000).chain(good_link);
    for (step, command) in script.enumerate() {
        let side = if step < bytes.len().min(2_000) { usize::from(command & 1) } else { step % 2 };
        let commanded = step < bytes.len().min(2_000);
        let end = &mut ends[side];
        match (commanded, command >> 1 & 7) {
            (true, 0) | (true, 1) => {
                let pushed = end.push(Opcode::ControlV1, sent[side].to_be_bytes().to_vec());
                assert_eq!(pushed.is_ok(), pushed.is_ok_and(|id| id.0 == sent[side]));
                sent[side] += u32::from(pushed.is_ok());
            }
            // What nobody sent: any acknowledgement, any number.
            (true, 2) => end.acknowledge(&[MessageId(sent[side] + u32::from(command >> 4))]),
            (true, 3) => {
                let id = MessageId(u32::from(command).wrapping_mul(0x0101_0101));
                let beyond = id.0 >= got[side] + 64;
                if beyond {
                    assert_eq!(end.receive(id, Opcode::ControlV1, b"far"), Receipt::Refused);
                }
            }
            (true, 4) => drop(links[side].pop()),
            (true, 5) => {
                if let Some(copy) = links[side].last().cloned() {
                    links[side].insert(0, copy);
                }
            }
            _ => {
                while let Some(due) = end.poll(now) {
                    let (id, payload) = (Some(due.id), due.payload.to_vec());
                    links[side].push((end.acks(4), id, payload));
                }
                if end.owes_acks() {
                    links[side].push((end.acks(8), None, Vec::new()));
                }
                // Overtaking, as the input says.
                let other = &mut links[1 - side];
                let at = if commanded { usize::from(command >> 4) } else { 0 };
                if at < other.len() {
                    let (acks, id, payload) = other.remove(at);
                    let end = &mut ends[side];
                    end.acknowledge(&acks);
                    if let Some(id) = id {
                        let _ = end.receive(id, Opcode::ControlV1, &payload);
                    }
                    while let Some((_, payload)) = end.take() {
                        assert_eq!(payload, got[side].to_be_bytes());
                        got[side] += 1;
                    }
                }
                now = now + Duration::from_millis(u64::from(command) * 10 + 1);
                if !commanded {
                    now = now + Duration::from_secs(1);
                }
            }
        }
        assert!(links.iter().all(|link| link.len() < 20_000));
    }
    assert_eq!(got, [sent[1], sent[0]], "something never arrived");
}

/// Data packets: the input opens as nothing; sealed as a payload it comes back once, and not with
/// any bit turned.
pub fn data_open(bytes: &[u8]) {
    let block = KeyBlock::from_exporter_bytes(&core::array::from_fn(|i| i as u8 ^ 0x33));
    let Some((choice, rest)) = bytes.split_first() else { return };
    let (cipher, format) = match choice % 6 {
        0 => (CipherName::ChaCha20Poly1305, Format::Classic),
        1 => (CipherName::Aes256Gcm, Format::Classic),
        2 => (CipherName::Aes128Gcm, Format::Epoch),
        3 => (CipherName::ChaCha20Poly1305, Format::Epoch),
        #[cfg(feature = "cbc")]
        4 => (CipherName::Cbc(crate::config::AesSize::Aes256), Format::Classic),
        _ => (CipherName::Aes256Gcm, Format::Epoch),
    };
    let keys = |role| DataKeys::with_digest(cipher, Digest::Sha256, &block, role, format).unwrap();
    let (mut client, mut server) = (keys(Role::Client), keys(Role::Server));
    let mut memory = PacketBuf::new();
    let open = |keys: &mut DataKeys, datagram: &[u8]| {
        let mut memory = PacketBuf::new();
        let mut packet = memory.packet_from(datagram).ok()?;
        Some(keys.open(&mut packet).map(|()| packet.as_slice().to_vec()))
    };
    if let Some(opened) = open(&mut server, rest) {
        assert!(opened.is_err(), "a forgery");
    }
    let payload = rest.get(..rest.len().min(1_500)).unwrap_or_default();
    // No packet is empty.
    let rounds = if payload.is_empty() { 0 } else { 3 };
    for round in 0..rounds {
        let Ok(mut packet) = memory.packet_from(payload) else { return };
        let peer = (choice & 0x40 == 0).then_some(0x00ab_cdef);
        client.seal(KeyId::ZERO, peer, &mut packet).unwrap();
        let sealed = packet.as_slice().to_vec();
        let mut damaged = sealed.clone();
        let at = (round * 977 + usize::from(*choice)) % damaged.len();
        // The header of one byte is not under the tag [6.1], and CBC's is under none.
        let header = matches!(
            cipher,
            CipherName::ChaCha20Poly1305 | CipherName::Aes256Gcm | CipherName::Aes128Gcm
        );
        damaged[at] ^= 1 << (round % 3);
        if (header && (at > 0 || peer.is_some())) || at >= 4 {
            assert!(open(&mut server, &damaged).is_none_or(|opened| opened.is_err()), "byte {at}");
        }
        assert_eq!(open(&mut server, &sealed), Some(Ok(payload.to_vec())));
        assert_eq!(open(&mut server, &sealed), Some(Err(OpenError::Replay)));
    }
}

/// Certificates, as a peer sends them.
pub fn certificate(bytes: &[u8]) {
    let Some(identity) = PeerIdentity::from_der(bytes) else { return };
    assert!(!identity.common_name.contains(char::is_control));
    assert!(!identity.subject.contains(char::is_control));
    let _ = CertificateInfo::from_der(bytes).map(|info| info.serial_decimal());
}
