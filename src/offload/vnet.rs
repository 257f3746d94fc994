//! The virtio-net header in front of each packet of a TUN device that was opened with it.
//!
//! ```text
//! 0 1  flags: 1 the checksum is to be completed      4 2  bytes of payload per segment
//! 1 1  segments: 0 none, 1 TCP over IPv4,            6 2  where the checksum starts to count
//!      4 TCP over IPv6, 5 UDP, 0x80 with ECN         8 2  where it is stored, from there
//! 2 2  length of all headers
//! ```
//!
//! Little-endian, as the device is told to do it on every machine.

/// Bytes of the header.
pub const LEN: usize = 10;

const NEEDS_CHECKSUM: u8 = 0x01;

/// What the packet behind the header is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segments {
    /// One packet.
    None,
    /// TCP segments over IPv4.
    Tcp4,
    /// TCP segments over IPv6.
    Tcp6,
    /// UDP datagrams of the same length but for the last, over either.
    Udp,
    /// Anything else, which nobody asked for.
    Unknown(u8),
}

impl Segments {
    const fn from_wire(value: u8) -> Self {
        match value {
            0x00 => Self::None,
            0x01 => Self::Tcp4,
            0x04 => Self::Tcp6,
            0x05 => Self::Udp,
            other => Self::Unknown(other),
        }
    }

    const fn to_wire(self) -> u8 {
        match self {
            Self::None => 0x00,
            Self::Tcp4 => 0x01,
            Self::Tcp6 => 0x04,
            Self::Udp => 0x05,
            Self::Unknown(other) => other,
        }
    }
}

/// The header's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VnetHeader {
    /// The checksum holds the sum over the pseudo header only, and is to be completed.
    pub needs_checksum: bool,
    /// What is behind the header.
    pub segments: Segments,
    /// Length of the IP and transport headers. A hint: those who read it must not trust it.
    pub header_len: u16,
    /// Payload per segment.
    pub segment: u16,
    /// Where the checksum starts to count, and the transport header with it.
    pub checksum_start: u16,
    /// Where the checksum is stored, counted from its start.
    pub checksum_offset: u16,
}

impl VnetHeader {
    /// In front of a complete packet.
    pub const PLAIN: Self = Self {
        needs_checksum: false,
        segments: Segments::None,
        header_len: 0,
        segment: 0,
        checksum_start: 0,
        checksum_offset: 0,
    };

    /// Reads the header.
    pub const fn parse(bytes: &[u8; LEN]) -> Self {
        let [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1] = *bytes;
        Self {
            needs_checksum: flags & NEEDS_CHECKSUM != 0,
            segments: Segments::from_wire(kind),
            header_len: u16::from_le_bytes([h0, h1]),
            segment: u16::from_le_bytes([s0, s1]),
            checksum_start: u16::from_le_bytes([c0, c1]),
            checksum_offset: u16::from_le_bytes([o0, o1]),
        }
    }

    /// The header's bytes.
    pub const fn to_bytes(self) -> [u8; LEN] {
        let flags = if self.needs_checksum { NEEDS_CHECKSUM } else { 0 };
        let [h0, h1] = self.header_len.to_le_bytes();
        let [s0, s1] = self.segment.to_le_bytes();
        let [c0, c1] = self.checksum_start.to_le_bytes();
        let [o0, o1] = self.checksum_offset.to_le_bytes();
        [flags, self.segments.to_wire(), h0, h1, s0, s1, c0, c1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_to_fields_and_back() {
        let bytes = [1, 4, 0x3c, 0, 0xdc, 0x05, 40, 0, 16, 0];
        let header = VnetHeader::parse(&bytes);
        let expected = VnetHeader {
            needs_checksum: true,
            segments: Segments::Tcp6,
            header_len: 60,
            segment: 1500,
            checksum_start: 40,
            checksum_offset: 16,
        };
        assert_eq!(header, expected);
        assert_eq!(header.to_bytes(), bytes);
        assert_eq!(VnetHeader::PLAIN.to_bytes(), [0; LEN]);
        for kind in 0..=255 {
            assert_eq!(VnetHeader::parse(&[0, kind, 0, 0, 0, 0, 0, 0, 0, 0]).to_bytes()[1], kind);
        }
    }
}
