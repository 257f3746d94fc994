//! Bodies of the fuzz targets of this ring: every parser takes any bytes, none panics, none runs past
//! its input, and what parses says the same when written and read again.
//!
//! `fuzz/` runs them under libFuzzer, `tests/fuzz_corpus.rs` over the kept inputs and damaged copies.
//! Nothing in the product calls them.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::buf::PacketMut;
use crate::wire::control::{Body, Header, ResetFlags};
use crate::wire::data::DataHeader;
use crate::wire::icmp::{self, Reason};
use crate::wire::ip::IpPacket;
use crate::wire::key_method::KeyMethod2;
use crate::wire::message::{Message, messages};
use crate::wire::mss::{self, MssLimits};
use crate::wire::peer_info::PeerInfo;
use crate::wire::static_key::{StaticKey, V2ClientKey, V2ServerKey};
use crate::wire::wkc;

/// Control packets without their wrapping, and the flags of a reset.
pub fn control(bytes: &[u8]) {
    let _ = ResetFlags::parse(bytes);
    let Ok((header, rest)) = Header::parse(bytes) else { return };
    let Ok(body) = Body::parse(header.opcode, rest) else { return };
    let mut memory = vec![0xa5; bytes.len()];
    let mut out = PacketMut::new(&mut memory, 0, 0).unwrap();
    out.extend(&header.to_bytes()).unwrap();
    body.emit(&mut out).unwrap();
    assert_eq!(out.as_slice(), bytes);
}

/// Data packet headers.
pub fn data(bytes: &[u8]) {
    assert_eq!(DataHeader::measure(bytes), DataHeader::parse(bytes).map(DataHeader::len));
    let Ok(header) = DataHeader::parse(bytes) else { return };
    assert_eq!(bytes.get(..header.len()), header.to_bytes().get(..header.len()));
}

/// Datagrams that end in a wrapped client key.
pub fn wrapped_key(bytes: &[u8]) {
    assert_eq!(wkc::Metadata::parse(bytes).to_vec(), bytes);
    let mut copy = bytes.to_vec();
    if let Ok((packet, blob)) = wkc::split_mut(&mut copy) {
        assert!(packet.len() >= 50 && (290..=1024).contains(&blob.len()));
        assert_eq!((wkc::check(blob), packet.len() + blob.len()), (Ok(()), bytes.len()));
    }
}

/// Key method 2 messages, either side's, and the peer information in them.
pub fn key_method(bytes: &[u8]) {
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

/// Peer information on its own.
pub fn peer_info(bytes: &[u8]) {
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

/// Control messages, several in a record.
pub fn message(bytes: &[u8]) {
    for message in messages(bytes).flatten() {
        let written = message.to_string();
        assert!(!written.contains(char::is_control));
        assert_eq!(Message::parse(&written), message);
    }
}

/// Key files of every kind.
pub fn key_file(bytes: &[u8]) {
    if let Ok(key) = StaticKey::parse(bytes) {
        assert_eq!(StaticKey::parse(key.to_text().as_bytes()).unwrap().as_bytes(), key.as_bytes());
    }
    if let Err(error) = V2ServerKey::parse(bytes) {
        assert!(!error.to_string().contains(char::is_control));
    }
    let _ = V2ClientKey::parse(bytes);
}

/// IP packets: addresses, transport header, segment size, ICMP answers.
pub fn ip(bytes: &[u8]) {
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
