//! The header fields that differ from one segment of a flow to the next.

use crate::offload::checksum;

/// IPv4 header.
pub(super) mod v4 {
    pub const TOTAL_LENGTH: usize = 2;
    pub const ID: usize = 4;
    pub const FRAGMENT: usize = 6;
    pub const PROTOCOL: usize = 9;
    pub const CHECKSUM: usize = 10;
}

/// IPv6 header.
pub(super) mod v6 {
    pub const PAYLOAD_LENGTH: usize = 4;
    pub const NEXT_HEADER: usize = 6;
}

/// TCP header.
pub(super) mod tcp {
    pub const SEQUENCE: usize = 4;
    pub const ACKNOWLEDGEMENT: usize = 8;
    pub const OFFSET: usize = 12;
    pub const FLAGS: usize = 13;
    pub const WINDOW: usize = 14;
    pub const CHECKSUM: usize = 16;
    pub const URGENT: usize = 18;
    /// Bytes without options.
    pub const HEADER: usize = 20;

    pub const FIN: u8 = 0x01;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const CWR: u8 = 0x80;
}

/// UDP header.
pub(super) mod udp {
    pub const LENGTH: usize = 4;
    pub const CHECKSUM: usize = 6;
    /// Bytes of it.
    pub const HEADER: usize = 8;
}

/// The 16 bits at `at`.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

/// The 32 bits at `at`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

/// Writes `value` at `at`; `None` when it lies outside.
pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value;
    Some(())
}

/// Gives an IPv4 header (options and all) this total length and a checksum that agrees.
pub(super) fn put_v4_length(header: &mut [u8], len: usize) -> Option<()> {
    put(header, v4::TOTAL_LENGTH, (len as u16).to_be_bytes())?;
    put(header, v4::CHECKSUM, [0, 0])?;
    let sum = !checksum::sum(header);
    put(header, v4::CHECKSUM, sum.to_be_bytes())
}
