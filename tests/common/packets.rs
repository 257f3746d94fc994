//! IP packets made by hand for the tests: echo requests and UDP datagrams, both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv4Packet, Ipv4Repr,
    Ipv6Packet, Ipv6Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

/// An echo request with `data` as its payload.
pub fn echo(from: IpAddr, to: IpAddr, data: &[u8]) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let icmp = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 1, data };
            let mut out = v4(from, to, IpProtocol::Icmp, icmp.buffer_len());
            icmp.emit(&mut Icmpv4Packet::new_unchecked(&mut out[20..]), &checksums);
            out
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let icmp = Icmpv6Repr::EchoRequest { ident: 7, seq_no: 1, data };
            let mut out = v6(from, to, IpProtocol::Icmpv6, icmp.buffer_len());
            let mut packet = Icmpv6Packet::new_unchecked(&mut out[40..]);
            icmp.emit(&from, &to, &mut packet, &checksums);
            out
        }
        _ => panic!("families differ"),
    }
}

/// A TCP SYN that offers this segment size.
pub fn syn(from: Ipv4Addr, to: Ipv4Addr, mss: u16) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port: 40000,
        dst_port: 80,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(1),
        ack_number: None,
        window_len: 1000,
        window_scale: None,
        max_seg_size: Some(mss),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let mut out = v4(from, to, IpProtocol::Tcp, tcp.buffer_len());
    let mut packet = TcpPacket::new_unchecked(&mut out[20..]);
    tcp.emit(&mut packet, &from.into(), &to.into(), &ChecksumCapabilities::default());
    out
}

fn v4(from: Ipv4Addr, to: Ipv4Addr, next_header: IpProtocol, payload_len: usize) -> Vec<u8> {
    let repr = Ipv4Repr { src_addr: from, dst_addr: to, next_header, payload_len, hop_limit: 64 };
    let mut out = vec![0; 20 + payload_len];
    repr.emit(&mut Ipv4Packet::new_unchecked(&mut out), &ChecksumCapabilities::default());
    out
}

fn v6(from: Ipv6Addr, to: Ipv6Addr, next_header: IpProtocol, payload_len: usize) -> Vec<u8> {
    let repr = Ipv6Repr { src_addr: from, dst_addr: to, next_header, payload_len, hop_limit: 64 };
    let mut out = vec![0; 40 + payload_len];
    repr.emit(&mut Ipv6Packet::new_unchecked(&mut out));
    out
}
