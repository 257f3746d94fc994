//! What a decrypted data packet contains, told by its first bytes [6.4, 6.5].

use crate::session::probe::Question;

/// A ping: answers nothing, keeps the peer's timer from running out. Matches a whole packet.
pub const PING: [u8; 16] = [
    0x2a, 0x18, 0x7b, 0xf3, 0x64, 0x1e, 0xb4, 0xcb, 0x07, 0xed, 0x2d, 0x0a, 0x98, 0x1f, 0xc7, 0x48,
];

/// What OCC operations begin with.
pub const OCC_MAGIC: [u8; 16] = [
    0x28, 0x7f, 0x34, 0x6b, 0xd4, 0xef, 0x7a, 0x81, 0x2d, 0x56, 0xb8, 0xd3, 0xaf, 0xc5, 0x45, 0x9c,
];

/// The old way of saying goodbye (`explicit-exit-notify`): the OCC magic and operation 6.
pub const EXIT_NOTIFY: [u8; 17] = [
    0x28, 0x7f, 0x34, 0x6b, 0xd4, 0xef, 0x7a, 0x81, 0x2d, 0x56, 0xb8, 0xd3, 0xaf, 0xc5, 0x45, 0x9c,
    OCC_EXIT,
];

const OCC_EXIT: u8 = 6;

/// What is inside a data packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// Looks like an IPv4 or IPv6 packet; not checked any further.
    Ip,
    /// [`PING`].
    Ping,
    /// [`EXIT_NOTIFY`]: the peer is leaving.
    ExitNotify,
    /// The peer wants to know something.
    OccRequest(Question),
    /// Another OCC operation; nothing to do.
    OccOther,
    /// Nothing at all.
    Empty,
    /// Has a compression framing, which was never negotiated.
    Compressed,
    /// Anything else.
    Unknown,
}

impl Payload {
    /// Tells what `plaintext` is. LZO's and LZ4's markers (66, 69) look like IPv6 and are left to
    /// the IP header's checks.
    pub fn classify(plaintext: &[u8]) -> Self {
        let Some(first) = plaintext.first() else { return Self::Empty };
        match first {
            0x40..=0x4f | 0x60..=0x6f => Self::Ip,
            0x2a if *plaintext == PING => Self::Ping,
            0x28 => Self::occ(plaintext),
            0x50 | 0xfa | 0xfb => Self::Compressed,
            _ => Self::Unknown,
        }
    }

    fn occ(plaintext: &[u8]) -> Self {
        let Some(operation) = plaintext.strip_prefix(&OCC_MAGIC) else { return Self::Unknown };
        match operation.first() {
            Some(&OCC_EXIT) => Self::ExitNotify,
            Some(_) | None => Question::parse(operation).map_or(Self::OccOther, Self::OccRequest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_every_kind() {
        let occ_request = [&EXIT_NOTIFY[..16], &[0]].concat();
        let occ_reply = [&EXIT_NOTIFY[..16], b"\x01V4,dev-type tun"].concat();
        let exit_with_tail = [&EXIT_NOTIFY[..], &[0; 4]].concat();
        let long_ping = [&PING[..], &[0]].concat();
        for (plaintext, kind) in [
            (&[][..], Payload::Empty),
            (&[0x45, 0], Payload::Ip),
            (&[0x60], Payload::Ip),
            (&[0x6f], Payload::Ip),
            (&PING, Payload::Ping),
            (&long_ping, Payload::Unknown),
            (&PING[..15], Payload::Unknown),
            (&EXIT_NOTIFY, Payload::ExitNotify),
            (&exit_with_tail, Payload::ExitNotify),
            (&EXIT_NOTIFY[..16], Payload::OccOther),
            (&EXIT_NOTIFY[..15], Payload::Unknown),
            (&occ_request, Payload::OccRequest(Question::Options)),
            (&occ_reply, Payload::OccOther),
            (&[0xfa, 0x45], Payload::Compressed),
            (&[0xfb, 0, 0x45], Payload::Compressed),
            (&[0x50, 0, 0x45], Payload::Compressed),
            (&[0], Payload::Unknown),
            (&[0x70], Payload::Unknown),
        ] {
            assert_eq!(Payload::classify(plaintext), kind, "{plaintext:02x?}");
        }
    }
}
