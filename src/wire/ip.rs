//! The IP packet inside the tunnel: as much of it as a router needs [6.4, 9.6].
//!
//! ```text
//! IPv4   0  1  version 4, header length in words       IPv6   0  4  version 6, class, flow
//!        2  2  total length                                   4  2  payload length
//!        6  2  flags, fragment offset                         6  1  next header
//!        9  1  protocol                                       7  1  hop limit
//!       12  4  source                                         8 16  source
//!       16  4  destination                                   24 16  destination
//!       20  *  options                                       40  *  extension headers
//! ```
//!
//! Packets come from anyone on either side, so nothing here trusts a length. Answers to packets are
//! made in `wire::icmp`, MSS options lowered in `wire::mss`; routing is `server::routes`' business.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Byte offsets in the fixed headers.
mod field {
    pub const V4_TOTAL_LENGTH: usize = 2;
    pub const V4_FLAGS: usize = 6;
    pub const V4_PROTOCOL: usize = 9;
    pub const V4_SOURCE: usize = 12;
    pub const V4_DESTINATION: usize = 16;
    pub const V6_PAYLOAD_LENGTH: usize = 4;
    pub const V6_NEXT_HEADER: usize = 6;
    pub const V6_SOURCE: usize = 8;
    pub const V6_DESTINATION: usize = 24;
}

/// Protocol numbers that matter here.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// Bytes of an IPv4 header without options.
pub const V4_HEADER: usize = 20;
/// Bytes of an IPv6 header without extension headers.
pub const V6_HEADER: usize = 40;
/// Extension headers looked through before giving up; nobody sends more than two or three.
const MAX_EXTENSIONS: usize = 8;

/// Why bytes are not an IP packet that can be forwarded. Drop it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpError {
    /// Neither version 4 nor 6, or no bytes at all.
    Version,
    /// It ends within the fixed header.
    Truncated,
    /// The stated lengths contradict each other or exceed the bytes there are.
    Length,
}

impl fmt::Display for IpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "neither IPv4 nor IPv6",
            Self::Truncated => "IP packet too short",
            Self::Length => "IP packet with a wrong length",
        })
    }
}

impl core::error::Error for IpError {}

/// Which IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A view of a whole IP packet whose fixed header is there and whose lengths hold.
#[derive(Debug, Clone, Copy)]
pub struct IpPacket<'a> {
    version: Version,
    /// Exactly the stated length, at least the fixed header.
    bytes: &'a [u8],
}

/// Where the transport header starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// Protocol number.
    pub protocol: u8,
    /// First byte of its header, counted from the start of the packet; may be the packet's end.
    pub offset: usize,
    /// Whether this is the first of several fragments.
    pub fragmented: bool,
}

impl<'a> IpPacket<'a> {
    /// Checks version and lengths. Bytes behind the stated length are not part of the packet.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, IpError> {
        let first = *bytes.first().ok_or(IpError::Version)?;
        let (version, header, total) = match first >> 4 {
            4 => {
                let header = usize::from(first & 0x0f) * 4;
                (Version::V4, header.max(V4_HEADER), array(bytes, field::V4_TOTAL_LENGTH))
            }
            6 => (Version::V6, V6_HEADER, array(bytes, field::V6_PAYLOAD_LENGTH)),
            _ => return Err(IpError::Version),
        };
        if bytes.len() < header {
            return Err(IpError::Truncated);
        }
        let stated = usize::from(u16::from_be_bytes(total.unwrap_or_default()));
        let total = match version {
            Version::V4 if usize::from(first & 0x0f) * 4 < V4_HEADER => {
                return Err(IpError::Length);
            }
            Version::V4 if stated < header => return Err(IpError::Length),
            Version::V4 => stated,
            Version::V6 => V6_HEADER + stated,
        };
        Ok(Self { version, bytes: bytes.get(..total).ok_or(IpError::Length)? })
    }

    /// Which IP.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The packet's bytes, as many as it states.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The length it states, which the bytes reach.
    pub const fn total_len(&self) -> usize {
        self.bytes.len()
    }

    /// Source address.
    pub fn source(&self) -> IpAddr {
        match self.version {
            Version::V4 => Ipv4Addr::from(self.fixed::<4>(field::V4_SOURCE)).into(),
            Version::V6 => Ipv6Addr::from(self.fixed::<16>(field::V6_SOURCE)).into(),
        }
    }

    /// Destination address.
    pub fn destination(&self) -> IpAddr {
        match self.version {
            Version::V4 => Ipv4Addr::from(self.fixed::<4>(field::V4_DESTINATION)).into(),
            Version::V6 => Ipv6Addr::from(self.fixed::<16>(field::V6_DESTINATION)).into(),
        }
    }

    /// Whether a router may not cut it up: IPv4 with "don't fragment", and all of IPv6.
    pub fn dont_fragment(&self) -> bool {
        match self.version {
            Version::V4 => u16::from_be_bytes(self.fixed(field::V4_FLAGS)) & 0x4000 != 0,
            Version::V6 => true,
        }
    }

    /// The protocol field of the fixed header; for IPv6 it may name an extension header.
    pub fn next_header(&self) -> u8 {
        let [next] = match self.version {
            Version::V4 => self.fixed(field::V4_PROTOCOL),
            Version::V6 => self.fixed(field::V6_NEXT_HEADER),
        };
        next
    }

    /// Address and port this packet is for, if it is an unfragmented UDP datagram or the first
    /// fragment of one.
    pub fn udp_destination(&self) -> Option<SocketAddr> {
        let transport = self.transport().filter(|header| header.protocol == protocol::UDP)?;
        let port = self.bytes.get(transport.offset + 2..)?.first_chunk()?;
        Some(SocketAddr::new(self.destination(), u16::from_be_bytes(*port)))
    }

    /// Finds the transport header behind options or extension headers. `None` when there is none
    /// to be found: in any fragment but the first, and when the chain is broken or too long.
    pub fn transport(&self) -> Option<Transport> {
        match self.version {
            Version::V4 => {
                let flags = u16::from_be_bytes(self.fixed(field::V4_FLAGS));
                let [first] = self.fixed(0);
                (flags & 0x1fff == 0).then(|| Transport {
                    protocol: self.next_header(),
                    offset: usize::from(first & 0x0f) * 4,
                    fragmented: flags & 0x2000 != 0,
                })
            }
            Version::V6 => self.walk_extensions(),
        }
    }

    /// RFC 8200 4: each extension header starts with the number of the next; lengths count in units
    /// of eight bytes, the first eight left out (of four and eight in AH).
    fn walk_extensions(&self) -> Option<Transport> {
        let mut found =
            Transport { protocol: self.next_header(), offset: V6_HEADER, fragmented: false };
        for _ in 0..MAX_EXTENSIONS {
            let len = match found.protocol {
                // Hop-by-hop, routing, destination options, mobility, HIP, shim6.
                0 | 43 | 60 | 135 | 139 | 140 => 8 + 8 * usize::from(self.u8_at(found.offset + 1)?),
                // Authentication header.
                51 => 8 + 4 * usize::from(self.u8_at(found.offset + 1)?),
                // Fragment.
                44 => {
                    let bits = u16::from_be_bytes(array(self.bytes, found.offset + 2)?);
                    if bits & 0xfff8 != 0 {
                        return None;
                    }
                    found.fragmented |= bits & 1 != 0;
                    8
                }
                _ => return Some(found),
            };
            found.protocol = self.u8_at(found.offset)?;
            found.offset += len;
            if found.offset > self.bytes.len() {
                return None;
            }
        }
        None
    }

    fn u8_at(&self, offset: usize) -> Option<u8> {
        self.bytes.get(offset).copied()
    }

    /// `N` bytes of the fixed header; `parse` made sure that it is there.
    fn fixed<const N: usize>(&self, offset: usize) -> [u8; N] {
        array(self.bytes, offset).unwrap_or([0; N])
    }
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// Whether `address` is only good on its own link: fe80::/10 or 169.254.0.0/16.
pub const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Whether `address` can name one host: not unspecified, multicast, broadcast or reserved.
pub const fn is_host(address: IpAddr) -> bool {
    match address {
        // "This network" is 0/8; 240/4 is reserved and includes the broadcast address.
        IpAddr::V4(address) => !address.is_multicast() && !matches!(address.octets()[0], 0 | 240..),
        IpAddr::V6(address) => !address.is_multicast() && !address.is_unspecified(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An IPv4 packet with four bytes of options when `options`.
    pub(crate) fn v4(options: bool, flags: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let header = if options { 24 } else { 20 };
        let mut bytes = vec![0x40 | (header / 4), 0];
        bytes.extend((u16::from(header) + payload.len() as u16).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(flags.to_be_bytes());
        bytes.extend([64, protocol, 0, 0]);
        bytes.extend([10, 8, 0, 2, 192, 0, 2, 1]);
        if options {
            bytes.extend([1, 1, 1, 0]);
        }
        bytes.extend(payload);
        bytes
    }

    /// An IPv6 packet from 2001:db8::2 to 2001:db8:1::1.
    pub(crate) fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend((payload.len() as u16).to_be_bytes());
        bytes.extend([next, 64]);
        bytes.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend("2001:db8:1::1".parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend(payload);
        bytes
    }

    fn transport(bytes: &[u8]) -> Option<(u8, usize, bool)> {
        let found = IpPacket::parse(bytes).unwrap().transport();
        found.map(|found| (found.protocol, found.offset, found.fragmented))
    }

    #[test]
    fn reads_both_versions() {
        let bytes = v4(true, 0x4000, protocol::UDP, &[9; 8]);
        let packet = IpPacket::parse(&bytes).unwrap();
        assert_eq!(
            (packet.version(), packet.total_len(), packet.dont_fragment()),
            (Version::V4, 32, true)
        );
        assert_eq!(
            (packet.source(), packet.destination()),
            ([10, 8, 0, 2].into(), [192, 0, 2, 1].into())
        );
        assert_eq!(transport(&bytes), Some((17, 24, false)));
        let bytes = v6(protocol::TCP, &[9; 20]);
        let packet = IpPacket::parse(&bytes).unwrap();
        assert_eq!(
            (packet.version(), packet.total_len(), packet.dont_fragment()),
            (Version::V6, 60, true)
        );
        assert_eq!(packet.source().to_string(), "2001:db8::2");
        assert_eq!(packet.destination().to_string(), "2001:db8:1::1");
        assert_eq!(transport(&bytes), Some((6, 40, false)));
    }

    #[test]
    fn bytes_behind_the_stated_length_are_not_the_packet() {
        for mut bytes in [v4(false, 0, 17, b"data"), v6(17, b"data")] {
            let len = bytes.len();
            bytes.extend(b"padding");
            let packet = IpPacket::parse(&bytes).unwrap();
            assert_eq!((packet.total_len(), packet.bytes().ends_with(b"data")), (len, true));
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        for (bytes, header) in [(v4(true, 0, 6, &[0; 20]), 24), (v6(6, &[0; 20]), 40)] {
            assert_eq!(IpPacket::parse(&[]).unwrap_err(), IpError::Version);
            for len in 1..bytes.len() {
                let expected = if len < header { IpError::Truncated } else { IpError::Length };
                assert_eq!(
                    IpPacket::parse(bytes.get(..len).unwrap()).unwrap_err(),
                    expected,
                    "{len}"
                );
            }
        }
    }

    #[test]
    fn lengths_that_contradict_each_other() {
        let mut bytes = v4(false, 0, 6, &[0; 40]);
        bytes[0] = 0x44;
        assert_eq!(IpPacket::parse(&bytes).unwrap_err(), IpError::Length);
        bytes[0] = 0x4f;
        assert!(IpPacket::parse(&bytes).is_ok());
        bytes[3] = 59;
        assert_eq!(IpPacket::parse(&bytes).unwrap_err(), IpError::Length);
        for version in [0, 3, 5, 7, 15] {
            bytes[0] = (version << 4) | 5;
            assert_eq!(IpPacket::parse(&bytes).unwrap_err(), IpError::Version);
        }
    }

    #[test]
    fn fragments_of_ipv4() {
        assert_eq!(transport(&v4(false, 0x2000, 6, &[0; 8])), Some((6, 20, true)));
        assert_eq!(transport(&v4(false, 0x2001, 6, &[0; 8])), None);
        assert_eq!(transport(&v4(false, 0x1fff, 6, &[])), None);
    }

    #[test]
    fn extension_headers() {
        let hop = [43, 0, 0, 0, 0, 0, 0, 0];
        let routing = [44, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let fragment = |bits: u8| [51, 0, 0, bits, 0, 0, 0, 7];
        let ah = [17, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let chain = |bits| [&hop[..], &routing, &fragment(bits), &ah, &[1, 2, 3, 4]].concat();
        assert_eq!(transport(&v6(0, &chain(0))), Some((17, 40 + 8 + 16 + 8 + 24, false)));
        assert_eq!(transport(&v6(0, &chain(1))), Some((17, 96, true)));
        assert_eq!(transport(&v6(0, &chain(8))), None);
        for len in 0..chain(0).len() {
            let found = transport(&v6(0, chain(0).get(..len).unwrap()));
            assert_eq!(found, (len >= 56).then_some((17, 96, false)), "{len}");
        }
        // ESP and "no next header" end the walk; so does a chain without end.
        assert_eq!(transport(&v6(50, &[0; 8])), Some((50, 40, false)));
        assert_eq!(transport(&v6(59, &[])), Some((59, 40, false)));
        assert_eq!(transport(&v6(0, &[0; 1000])), None);
        assert_eq!(transport(&v6(60, &[6, 255, 0, 0, 0, 0, 0, 0])), None);
    }

    #[test]
    fn kinds_of_addresses() {
        let kinds = |text: &str| {
            let address = text.parse().unwrap();
            (is_link_local(address), is_host(address))
        };
        for (text, link_local, host) in [
            ("169.254.1.1", true, true),
            ("10.0.0.1", false, true),
            ("0.0.0.0", false, false),
            ("0.1.2.3", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("fe80::1", true, true),
            ("febf::1", true, true),
            ("fec0::1", false, true),
            ("2001:db8::1", false, true),
            ("::", false, false),
            ("ff02::1", false, false),
        ] {
            assert_eq!(kinds(text), (link_local, host), "{text}");
        }
    }

    #[test]
    fn garbage_never_panics() {
        let mut state = 0x1234_5678_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as u8
        };
        for round in 0..20_000 {
            let len = usize::from(random()) % 128;
            let mut bytes: Vec<u8> = (0..len).map(|_| random()).collect();
            if let Some(first) = bytes.first_mut() {
                *first = if round % 2 == 0 { 0x40 | (*first & 0xf) } else { 0x60 };
            }
            // Lengths that are nearly right let the deeper parts run.
            for (offset, value) in
                [(2, 0), (3, len as u8), (4, 0), (5, (len as u8).saturating_sub(40))]
            {
                if let Some(slot) = bytes.get_mut(offset) {
                    *slot = value;
                }
            }
            if let Ok(packet) = IpPacket::parse(&bytes) {
                let _ = (packet.source(), packet.destination(), packet.dont_fragment());
                if let Some(found) = packet.transport() {
                    assert!(found.offset <= packet.total_len());
                }
            }
        }
    }

    #[test]
    fn udp_destinations_are_told_in_both_families_and_for_nothing_else() {
        let mut v4 = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        v4.extend([0, 1, 0x04, 0xaa, 0, 8, 0, 0]);
        let destination = |bytes: &[u8]| IpPacket::parse(bytes).unwrap().udp_destination();
        assert_eq!(destination(&v4), Some("10.0.0.2:1194".parse().unwrap()));
        v4[9] = 6;
        assert_eq!(destination(&v4), None);
        let mut v6 = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
        v6.extend(Ipv6Addr::LOCALHOST.octets());
        v6.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
        v6.extend([0, 1, 0x04, 0xaa, 0, 8, 0, 0]);
        assert_eq!(destination(&v6), Some("[fd00::2]:1194".parse().unwrap()));
        // Too short for ports.
        let short = [&v6[..4], &[0, 2], &v6[6..42]].concat();
        assert_eq!(destination(&short), None);
    }
}
