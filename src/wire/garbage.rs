//! Every parser against random bytes and against damaged good ones: none panics, none runs past its
//! input, and what parses says the same when written and read again.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::buf::PacketMut;
use crate::wire::control::{Body, Header, ResetFlags};
use crate::wire::data::DataHeader;
use crate::wire::icmp::{self, Reason};
use crate::wire::ip::{IpPacket, protocol, tests as packets};
use crate::wire::key_method::KeyMethod2;
use crate::wire::message::{Message, messages};
use crate::wire::mss::{self, MssLimits};
use crate::wire::peer_info::PeerInfo;
use crate::wire::static_key::{StaticKey, V2ClientKey, V2ServerKey, tests as keys};
use crate::wire::wkc;

/// A small generator, so that a failure repeats.
struct Lcg(u32);

impl Lcg {
    fn next(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as usize % bound.max(1)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next(256) as u8).collect()
    }

    /// Does one to four kinds of damage.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.next(4) {
            let at = self.next(bytes.len());
            match self.next(6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.next(256) as u8),
                2 => drop(bytes.splice(at.., self.bytes(8))),
                3 => bytes.extend_from_within(at..),
                _ => {
                    let special = [0, 1, 2, 0x7f, 0x80, 0xff, b'\n', b',', self.next(256) as u8];
                    let value = special[self.next(special.len())];
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = value;
                    }
                }
            }
        }
    }
}

fn control(bytes: &[u8]) {
    let _ = ResetFlags::parse(bytes);
    let Ok((header, rest)) = Header::parse(bytes) else { return };
    let Ok(body) = Body::parse(header.opcode, rest) else { return };
    let mut memory = vec![0xa5; bytes.len()];
    let mut out = PacketMut::new(&mut memory, 0, 0).unwrap();
    out.extend(&header.to_bytes()).unwrap();
    body.emit(&mut out).unwrap();
    assert_eq!(out.as_slice(), bytes);
}

fn data(bytes: &[u8]) {
    let Ok(header) = DataHeader::parse(bytes) else { return };
    assert_eq!(bytes.get(..header.len()), header.to_bytes().get(..header.len()));
}

fn wrapped_key(bytes: &[u8]) {
    assert_eq!(wkc::Metadata::parse(bytes).to_vec(), bytes);
    let mut copy = bytes.to_vec();
    if let Ok((packet, blob)) = wkc::split_mut(&mut copy) {
        assert!(packet.len() >= 50 && (290..=1024).contains(&blob.len()));
        assert_eq!((wkc::check(blob), packet.len() + blob.len()), (Ok(()), bytes.len()));
    }
}

fn key_method(bytes: &[u8]) {
    let parsers = [KeyMethod2::from_client, KeyMethod2::from_server];
    for parse in parsers {
        let Ok(first) = parse(bytes) else { continue };
        // Lossy conversion can make a text longer than the limit for our own.
        let Ok(written) = first.to_bytes() else { continue };
        let second = parse(&written).unwrap();
        assert_eq!((&first.options, &first.peer_info), (&second.options, &second.peer_info));
        assert_eq!(first.credentials.unwrap_or_default(), second.credentials.unwrap());
        peer_info(second.peer_info.as_bytes());
    }
}

fn peer_info(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let info = PeerInfo::new(&text);
    let _ = (
        info.proto(),
        info.ncp(),
        info.mtu(),
        info.platform(),
        info.ciphers().map(Iterator::count),
    );
    for (key, value) in info.exported() {
        assert!(key.len() + 1 + value.len() <= 255);
        assert!(value.bytes().all(|byte| byte.is_ascii_graphic() && !b"$(`".contains(&byte)));
    }
}

fn text(bytes: &[u8]) {
    for message in messages(bytes).flatten() {
        let written = message.to_string();
        assert!(!written.contains(char::is_control));
        assert_eq!(Message::parse(&written), message);
    }
}

fn key_file(bytes: &[u8]) {
    if let Ok(key) = StaticKey::parse(bytes) {
        assert_eq!(StaticKey::parse(key.to_text().as_bytes()).unwrap().as_bytes(), key.as_bytes());
    }
    if let Err(error) = V2ServerKey::parse(bytes) {
        assert!(!error.to_string().contains(char::is_control));
    }
    let _ = V2ClientKey::parse(bytes);
}

fn ip(bytes: &[u8]) {
    let mut copy = bytes.to_vec();
    mss::clamp(&mut copy, MssLimits { v4: 100, v6: 100 });
    assert_eq!(copy.len(), bytes.len());
    let Ok(packet) = IpPacket::parse(bytes) else { return };
    let from = match packet.source() {
        core::net::IpAddr::V4(_) => Ipv4Addr::new(10, 8, 0, 1).into(),
        core::net::IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let mut memory = [vec![0xa5; 48], bytes.to_vec()].concat();
    let end = memory.len();
    let mut window = PacketMut::new(&mut memory, 48, end).unwrap();
    if icmp::answer(&mut window, Reason::TooBig(1280), from).is_ok() {
        let answer = IpPacket::parse(window.as_slice()).unwrap();
        assert_eq!((answer.source(), answer.destination()), (from, packet.source()));
        assert_eq!(answer.total_len(), window.len());
    }
}

fn everything(bytes: &[u8]) {
    control(bytes);
    data(bytes);
    wrapped_key(bytes);
    key_method(bytes);
    peer_info(bytes);
    text(bytes);
    key_file(bytes);
    ip(bytes);
}

/// Good input of every kind.
fn seeds() -> Vec<Vec<u8>> {
    let mut ack = vec![
        0x20, 1, 2, 3, 4, 5, 6, 7, 8, 2, 0, 0, 0, 1, 0, 0, 0, 2, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 5,
    ];
    ack.extend(b"tls");
    let mut method = vec![0, 0, 0, 0, 2];
    method.extend([0xaa; 112]);
    method.extend(b"\0\x03V4\0\0\x02u\0\0\x02p\0\0\x15IV_PROTO=2\nIV_MTU=1\n\0");
    let mut with_wkc = vec![0x50; 54];
    with_wkc.extend([7; 297]);
    with_wkc.extend([1, 43]);
    let syn =
        [0, 80, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x70, 2, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7, 2, 4, 5, 180];
    let chain = [
        &[60, 0, 0, 0, 0, 0, 0, 0][..],
        &[44, 0, 0, 0, 0, 0, 0, 0],
        &[17, 0, 0, 1, 0, 0, 0, 0],
        &syn,
    ]
    .concat();
    vec![
        ack,
        vec![0x40, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 1],
        vec![0, 1, 0, 2, 0, 1, 0, 9, 0, 0],
        vec![0x48, 0, 0, 1, 0, 0, 0, 1],
        method,
        with_wkc,
        b"PUSH_REPLY,route 10.0.0.0 255.0.0.0,push-continuation 2\0".to_vec(),
        b"AUTH_FAILED,TEMP[backoff 42,advance addr]:later\0RESTART,[PN]now\0HALT\0AUTH_PENDING,timeout 3\0".to_vec(),
        b"IV_VER=2.6\nIV_CIPHERS=A:B\nIV_PROTO=990\nUV_X=$(y)\n".to_vec(),
        keys::KEY.into(),
        keys::STOCK_V2_CLIENT.into(),
        packets::v4(true, 0x4000, protocol::TCP, &syn),
        packets::v6(protocol::TCP, &syn),
        packets::v6(0, &chain),
    ]
}

#[test]
fn good_input_passes() {
    seeds().iter().for_each(|seed| everything(seed));
}

#[test]
fn every_prefix_of_good_input() {
    for seed in seeds() {
        (0..seed.len()).for_each(|len| everything(seed.get(..len).unwrap()));
    }
}

#[test]
fn damaged_input() {
    let mut rng = Lcg(1);
    let seeds = seeds();
    for _ in 0..6_000 {
        let mut bytes = seeds[rng.next(seeds.len())].clone();
        rng.damage(&mut bytes);
        everything(&bytes);
    }
}

#[test]
fn random_input() {
    let mut rng = Lcg(2);
    for _ in 0..6_000 {
        let len = rng.next(200);
        everything(&rng.bytes(len));
    }
}
