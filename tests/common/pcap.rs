//! Writes captured datagrams as a pcap file that Wireshark opens; used when a test fails.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// One datagram on the simulated wire.
#[derive(Clone)]
pub struct Captured {
    /// When it was sent, virtual milliseconds.
    pub at: u64,
    /// Sender.
    pub from: SocketAddr,
    /// Receiver.
    pub to: SocketAddr,
    /// UDP payload.
    pub bytes: Vec<u8>,
    /// Whether the network lost it (it is in the file all the same).
    pub lost: bool,
}

/// Writes `packets` to `path` with made-up IP and UDP headers (LINKTYPE_RAW).
pub fn write(path: &Path, packets: &[Captured]) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for word in [0xa1b2_c3d4_u32, 0x0002_0004, 0, 0, 65535, 101] {
        file.write_all(&word.to_be_bytes())?;
    }
    for packet in packets {
        let ip = datagram(packet);
        let (secs, micros) = (packet.at / 1000, packet.at % 1000 * 1000);
        for word in [secs as u32, micros as u32, ip.len() as u32, ip.len() as u32] {
            file.write_all(&word.to_be_bytes())?;
        }
        file.write_all(&ip)?;
    }
    file.flush()
}

fn datagram(packet: &Captured) -> Vec<u8> {
    let udp_len = (packet.bytes.len() + 8) as u16;
    let mut out = Vec::with_capacity(packet.bytes.len() + 48);
    match (packet.from.ip(), packet.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend([0x45, 0]);
            out.extend((udp_len + 20).to_be_bytes());
            out.extend([0, 0, 0, 0, 64, 17, 0, 0]);
            out.extend(from.octets());
            out.extend(to.octets());
        }
        (from, to) => {
            let v6 = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            out.extend([0x60, 0, 0, 0]);
            out.extend(udp_len.to_be_bytes());
            out.extend([17, 64]);
            out.extend(v6(from).octets());
            out.extend(v6(to).octets());
        }
    }
    out.extend(packet.from.port().to_be_bytes());
    out.extend(packet.to.port().to_be_bytes());
    out.extend(udp_len.to_be_bytes());
    out.extend([0, 0]);
    out.extend(&packet.bytes);
    out
}
