//! ICMP errors for packets that cannot be delivered, made in the packet's own memory [6.8].
//!
//! ```text
//! before   ...headroom...                             | packet                         |
//! after    | IP header | type code checksum word(4)   | packet, cut                    |
//!            20 or 40    8                              to 576 or 1280 bytes in all
//! ```
//!
//! When not to answer is decided here, after RFC 4443 2.4 and RFC 1122 3.2.2; how often is the
//! caller's business, and RFC 4443 wants it limited.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, Icmpv6DstUnreachable, Icmpv6Message,
    Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6Packet,
};

use crate::buf::PacketMut;
use crate::wire::ip::{IpPacket, V4_HEADER, V6_HEADER, Version, is_host, protocol};

/// Largest answer in IPv4, RFC 1122 3.3.2: what every host can reassemble.
const MAX_V4: usize = 576;
/// Largest answer in IPv6, RFC 4443 2.4 (c): the least MTU.
const MAX_V6: usize = 1280;
/// Bytes of ICMP before the quoted packet.
const ICMP_HEADER: usize = 8;
/// Hops an answer may take.
const HOP_LIMIT: u8 = 64;

/// Why a packet cannot be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No route covers the destination.
    NoRoute,
    /// There is a route, but nobody behind it.
    AddressUnreachable,
    /// Not allowed.
    Prohibited,
    /// Longer than the next hop takes, which is this many bytes.
    TooBig(u16),
}

/// Why a packet gets no answer. The packet is unchanged and should be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAnswered {
    /// It is no IP packet with a transport header that can be found.
    Malformed,
    /// It is an ICMP error itself, or a fragment but the first.
    NeverAnswered,
    /// It comes from or goes to something that is not one host.
    NotOneHost,
    /// It is too big, but may be cut up: no reason to complain to its source.
    MayFragment,
    /// Our address is of the other IP version.
    WrongVersion,
    /// There is not enough headroom.
    Full,
}

impl fmt::Display for NotAnswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed packet",
            Self::NeverAnswered => "ICMP error or later fragment",
            Self::NotOneHost => "source or destination is not one host",
            Self::MayFragment => "packet may be fragmented",
            Self::WrongVersion => "no address of this IP version",
            Self::Full => "no room for an ICMP error",
        })
    }
}

impl core::error::Error for NotAnswered {}

/// Turns `packet` into the ICMP error that `from` sends back to its source.
pub fn answer(packet: &mut PacketMut<'_>, reason: Reason, from: IpAddr) -> Result<(), NotAnswered> {
    let view = IpPacket::parse(packet.as_slice()).map_err(|_| NotAnswered::Malformed)?;
    may_answer(&view, reason)?;
    let (source, total) = (view.source(), view.total_len());
    match (from, source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            enclose(packet, total, V4_HEADER, MAX_V4, reason)?;
            emit_v4(packet.as_mut_slice(), reason, from, to);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            enclose(packet, total, V6_HEADER, MAX_V6, reason)?;
            emit_v6(packet.as_mut_slice(), reason, from, to);
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            return Err(NotAnswered::WrongVersion);
        }
    }
    Ok(())
}

fn may_answer(view: &IpPacket<'_>, reason: Reason) -> Result<(), NotAnswered> {
    if matches!(reason, Reason::TooBig(_)) && !view.dont_fragment() {
        return Err(NotAnswered::MayFragment);
    }
    // RFC 4443 2.4 (e.3) would allow "too big" to multicast, for path MTU discovery; no multicast
    // is routed through the tunnel, so there is no path to discover.
    let loopback = view.source().is_loopback();
    if !is_host(view.source()) || !is_host(view.destination()) || loopback {
        return Err(NotAnswered::NotOneHost);
    }
    let transport = view.transport().ok_or(NotAnswered::NeverAnswered)?;
    let kind = view.bytes().get(transport.offset).copied();
    let error = match (view.version(), transport.protocol) {
        (Version::V4, protocol::ICMP) => !kind.is_some_and(is_v4_query),
        // RFC 4443 2.1: errors are below 128; (e.2): nor in answer to a redirect.
        (Version::V6, protocol::ICMPV6) => !kind.is_some_and(|kind| kind >= 128 && kind != 137),
        (Version::V4 | Version::V6, _) => false,
    };
    if error { Err(NotAnswered::NeverAnswered) } else { Ok(()) }
}

/// RFC 1122 3.2.2 and RFC 950, 1256: echo, router discovery, timestamp, information, address mask.
/// Whatever else there is might be an error.
const fn is_v4_query(kind: u8) -> bool {
    matches!(kind, 0 | 8 | 9 | 10 | 13..=18)
}

/// Cuts the packet to what may be quoted and puts headers in front that are zero but for the MTU.
fn enclose(
    packet: &mut PacketMut<'_>,
    total: usize,
    header: usize,
    largest: usize,
    reason: Reason,
) -> Result<(), NotAnswered> {
    let headers = header + ICMP_HEADER;
    let front = packet.push_front(headers).map_err(|_| NotAnswered::Full)?;
    front.fill(0);
    // The last word of the ICMP header, the lower half of it in IPv4 (RFC 4443 3.2, RFC 1191 4).
    if let (Some(word), Reason::TooBig(mtu)) = (front.last_chunk_mut(), reason) {
        *word = u32::from(mtu).to_be_bytes();
    }
    packet.truncate(largest.min(headers + total));
    Ok(())
}

/// Fills in the headers of a whole answer.
fn emit_v4(answer: &mut [u8], reason: Reason, from: Ipv4Addr, to: Ipv4Addr) {
    // At most MAX_V4.
    let total = answer.len() as u16;
    let Some((header, message)) = answer.split_at_mut_checked(V4_HEADER) else { return };
    let mut ip = Ipv4Packet::new_unchecked(header);
    ip.set_version(4);
    ip.set_header_len(V4_HEADER as u8);
    ip.set_total_len(total);
    // RFC 6864 4.1: without an identification it must not be fragmented.
    ip.set_dont_frag(true);
    ip.set_hop_limit(HOP_LIMIT);
    ip.set_next_header(IpProtocol::Icmp);
    ip.set_src_addr(from);
    ip.set_dst_addr(to);
    ip.fill_checksum();
    let mut icmp = Icmpv4Packet::new_unchecked(message);
    icmp.set_msg_type(Icmpv4Message::DstUnreachable);
    let code = match reason {
        Reason::NoRoute => Icmpv4DstUnreachable::NetUnreachable,
        Reason::AddressUnreachable => Icmpv4DstUnreachable::HostUnreachable,
        Reason::Prohibited => Icmpv4DstUnreachable::CommProhibited,
        Reason::TooBig(_) => Icmpv4DstUnreachable::FragRequired,
    };
    icmp.set_msg_code(code.into());
    icmp.fill_checksum();
}

/// Fills in the headers of a whole answer.
fn emit_v6(answer: &mut [u8], reason: Reason, from: Ipv6Addr, to: Ipv6Addr) {
    let Some((header, message)) = answer.split_at_mut_checked(V6_HEADER) else { return };
    let mut ip = Ipv6Packet::new_unchecked(header);
    ip.set_version(6);
    // At most MAX_V6.
    ip.set_payload_len(message.len() as u16);
    ip.set_next_header(IpProtocol::Icmpv6);
    ip.set_hop_limit(HOP_LIMIT);
    ip.set_src_addr(from);
    ip.set_dst_addr(to);
    let mut icmp = Icmpv6Packet::new_unchecked(message);
    let (kind, code) = match reason {
        Reason::NoRoute => (Icmpv6Message::DstUnreachable, Icmpv6DstUnreachable::NoRoute.into()),
        Reason::AddressUnreachable => {
            (Icmpv6Message::DstUnreachable, Icmpv6DstUnreachable::AddrUnreachable.into())
        }
        Reason::Prohibited => {
            (Icmpv6Message::DstUnreachable, Icmpv6DstUnreachable::AdminProhibit.into())
        }
        Reason::TooBig(_) => (Icmpv6Message::PktTooBig, 0),
    };
    icmp.set_msg_type(kind);
    icmp.set_msg_code(code);
    icmp.fill_checksum(&from, &to);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::tests::{v4, v6};

    const US_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 8, 0, 1));
    const US_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

    /// Answers `bytes` in a dirty buffer.
    fn ask(bytes: &[u8], reason: Reason, from: IpAddr) -> Result<Vec<u8>, NotAnswered> {
        let mut memory = vec![0xa5; 64 + bytes.len()];
        memory[64..].copy_from_slice(bytes);
        let len = memory.len();
        let mut packet = PacketMut::new(&mut memory, 64, len).unwrap();
        let result = answer(&mut packet, reason, from);
        if result.is_err() {
            assert_eq!(packet.as_slice(), bytes);
        }
        result.map(|()| packet.as_slice().to_vec())
    }

    fn refused(bytes: &[u8]) -> NotAnswered {
        let from = if bytes.first().is_some_and(|first| first >> 4 == 4) { US_V4 } else { US_V6 };
        ask(bytes, Reason::NoRoute, from).unwrap_err()
    }

    #[test]
    fn answers_in_ipv6() {
        for (reason, kind, code, word) in [
            (Reason::NoRoute, 1, 0, 0),
            (Reason::Prohibited, 1, 1, 0),
            (Reason::AddressUnreachable, 1, 3, 0),
            (Reason::TooBig(1400), 2, 0, 1400),
        ] {
            for size in [0, 1, 100, 1184, 1185, 1192, 1193, 5000] {
                let offending = v6(protocol::UDP, &vec![7; size]);
                let bytes = ask(&offending, reason, US_V6).unwrap();
                assert_eq!(bytes.len(), (offending.len() + 48).min(1280));
                let ip = Ipv6Packet::new_checked(&bytes[..]).unwrap();
                assert_eq!(
                    (IpAddr::V6(ip.src_addr()), ip.dst_addr().to_string()),
                    (US_V6, "2001:db8::2".into())
                );
                assert_eq!(
                    (ip.total_len(), ip.next_header(), ip.hop_limit()),
                    (bytes.len(), IpProtocol::Icmpv6, 64)
                );
                let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
                assert!(icmp.verify_checksum(&ip.src_addr(), &ip.dst_addr()));
                assert_eq!((u8::from(icmp.msg_type()), icmp.msg_code()), (kind, code));
                assert_eq!(bytes[44..48], u32::to_be_bytes(word));
                assert!(offending.starts_with(&bytes[48..]));
            }
        }
    }

    #[test]
    fn answers_in_ipv4() {
        for (reason, code, mtu) in [
            (Reason::NoRoute, 0, 0),
            (Reason::AddressUnreachable, 1, 0),
            (Reason::TooBig(1400), 4, 1400),
            (Reason::Prohibited, 13, 0),
        ] {
            for size in [0, 8, 528, 529, 1472] {
                let offending = v4(true, 0x4000, protocol::UDP, &vec![7; size]);
                let bytes = ask(&offending, reason, US_V4).unwrap();
                assert_eq!(bytes.len(), (offending.len() + 28).min(576));
                let ip = Ipv4Packet::new_checked(&bytes[..]).unwrap();
                assert!(ip.verify_checksum() && ip.dont_frag() && !ip.more_frags());
                assert_eq!(
                    (IpAddr::V4(ip.src_addr()), ip.dst_addr()),
                    (US_V4, Ipv4Addr::new(10, 8, 0, 2))
                );
                assert_eq!(
                    (usize::from(ip.total_len()), ip.next_header()),
                    (bytes.len(), IpProtocol::Icmp)
                );
                let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
                assert!(icmp.verify_checksum());
                assert_eq!(
                    (icmp.msg_type(), icmp.msg_code()),
                    (Icmpv4Message::DstUnreachable, code)
                );
                assert_eq!(bytes[24..28], u32::to_be_bytes(mtu));
                assert!(offending.starts_with(&bytes[28..]));
            }
        }
    }

    #[test]
    fn never_answers_an_icmp_error() {
        for kind in 0..=255 {
            let v4 = ask(&v4(true, 0, protocol::ICMP, &[kind, 0, 0, 0]), Reason::NoRoute, US_V4);
            assert_eq!(v4.is_ok(), matches!(kind, 0 | 8 | 9 | 10 | 13..=18), "{kind}");
            let v6 = ask(&v6(protocol::ICMPV6, &[kind, 0, 0, 0]), Reason::NoRoute, US_V6);
            assert_eq!(v6.is_ok(), kind >= 128 && kind != 137, "{kind}");
        }
        let hidden = [&[58, 0, 0, 0, 0, 0, 0, 0][..], &[1, 0, 0, 0]].concat();
        assert_eq!(refused(&v6(60, &hidden)), NotAnswered::NeverAnswered);
        assert_eq!(refused(&v6(protocol::ICMPV6, &[])), NotAnswered::NeverAnswered);
        assert_eq!(refused(&v4(false, 0, protocol::ICMP, &[])), NotAnswered::NeverAnswered);
    }

    #[test]
    fn never_answers_later_fragments_or_what_is_not_one_host() {
        assert!(ask(&v4(false, 0x2000, 17, &[0; 8]), Reason::NoRoute, US_V4).is_ok());
        assert_eq!(refused(&v4(false, 0x2001, 17, &[0; 8])), NotAnswered::NeverAnswered);
        assert_eq!(refused(&v6(44, &[17, 0, 0, 9, 0, 0, 0, 0, 1, 2])), NotAnswered::NeverAnswered);
        let with = |mut bytes: Vec<u8>, at: usize, address: &[u8]| {
            bytes[at..at + address.len()].copy_from_slice(address);
            bytes
        };
        let (loopback, group) = (Ipv6Addr::LOCALHOST.octets(), [0xff; 16]);
        for (at, address) in [(8, [0; 16]), (8, loopback), (8, group), (24, [0; 16]), (24, group)] {
            assert_eq!(refused(&with(v6(17, &[0; 8]), at, &address)), NotAnswered::NotOneHost);
        }
        for address in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]] {
            assert_eq!(
                refused(&with(v4(false, 0, 17, &[0; 8]), 12, &address)),
                NotAnswered::NotOneHost
            );
        }
        assert_eq!(
            refused(&with(v4(false, 0, 17, &[0; 8]), 16, &[224, 0, 0, 251])),
            NotAnswered::NotOneHost
        );
    }

    #[test]
    fn other_reasons_for_silence() {
        let packet = v4(false, 0, 17, &[0; 8]);
        assert_eq!(
            ask(&packet, Reason::TooBig(1000), US_V4).unwrap_err(),
            NotAnswered::MayFragment
        );
        assert_eq!(ask(&packet, Reason::NoRoute, US_V6).unwrap_err(), NotAnswered::WrongVersion);
        assert_eq!(
            ask(&v6(17, &[]), Reason::NoRoute, US_V4).unwrap_err(),
            NotAnswered::WrongVersion
        );
        let mut memory = [0; 100];
        memory[47..95].copy_from_slice(&v6(17, &[1; 8]));
        let mut tight = PacketMut::new(&mut memory, 47, 95).unwrap();
        assert_eq!(answer(&mut tight, Reason::NoRoute, US_V6), Err(NotAnswered::Full));
        assert_eq!(tight.as_slice(), v6(17, &[1; 8]));
    }

    #[test]
    fn truncations_and_padding() {
        for whole in [v4(true, 0, 17, &[0; 8]), v6(17, &[0; 8])] {
            for len in 0..whole.len() {
                assert_eq!(refused(whole.get(..len).unwrap()), NotAnswered::Malformed, "{len}");
            }
        }
        let padded = [v6(17, &[1; 8]), vec![9; 5]].concat();
        let bytes = ask(&padded, Reason::NoRoute, US_V6).unwrap();
        assert_eq!(bytes.len(), 48 + 48);
    }
}
