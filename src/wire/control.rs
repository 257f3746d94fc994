//! Control packets [1.1, 1.2] and the flags in the server's reset [1.4].
//!
//! A control packet is a fixed header, whatever the wrapping puts behind it (nothing, tls-auth or
//! tls-crypt fields; `session::wrap` deals with those), and a body:
//!
//! ```text
//! header   0     1   opcode << 3 | key id
//!          1     8   session id of the sender, never all zero
//! body     0     1   n, how many acknowledgements (0..=8)
//!          1   4*n   message ids acknowledged
//!          ..    8   session id of the receiver     only when n > 0
//!          ..    4   message id                     not in an ACK
//!          ..    *   payload: TLS bytes, reset TLVs or nothing; not in an ACK
//! ```

use core::fmt;

use crate::buf::{Full, PacketMut};
use crate::limits::MAX_ACKS;
use crate::wire::reader::{Reader, Truncated};

pub use crate::wire::opcode::{KeyId, Opcode};

/// A session's name, chosen at random by each end; all zero means none and is refused [1.2].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 8]);

impl SessionId {
    /// Whether this is the value that no session may have.
    pub fn is_zero(self) -> bool {
        self.0 == [0; 8]
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// Number of a packet in the reliability layer: per key and direction, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u32);

/// Message ids acknowledged by one packet.
pub type AckList = heapless::Vec<MessageId, MAX_ACKS>;

/// Why bytes are not a control packet; the sender's fault or a stranger's. Drop the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlError {
    /// It ends inside a field.
    Truncated,
    /// The opcode is not that of a control packet.
    NotControl,
    /// The sender's session id is all zero.
    ZeroSession,
    /// More than eight acknowledgements.
    TooManyAcks,
    /// An ACK has bytes behind its last field.
    Trailing,
    /// The TLVs of a server reset do not add up.
    BadTlv,
}

impl From<Truncated> for ControlError {
    fn from(Truncated: Truncated) -> Self {
        Self::Truncated
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "control packet too short",
            Self::NotControl => "not a control packet",
            Self::ZeroSession => "all-zero session id",
            Self::TooManyAcks => "too many acknowledgements",
            Self::Trailing => "bytes behind an ACK",
            Self::BadTlv => "malformed reset TLVs",
        })
    }
}

impl core::error::Error for ControlError {}

/// The first nine bytes of every control packet, never encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Kind of packet.
    pub opcode: Opcode,
    /// Key it belongs to.
    pub key_id: KeyId,
    /// The sender's session id.
    pub session: SessionId,
}

impl Header {
    /// Bytes on the wire.
    pub const LEN: usize = 9;

    /// Reads the header and returns what stands behind it.
    pub fn parse(packet: &[u8]) -> Result<(Self, &[u8]), ControlError> {
        let mut reader = Reader::new(packet);
        let (opcode, key_id) = Opcode::from_first_byte(reader.u8()?);
        if !opcode.is_control() {
            return Err(ControlError::NotControl);
        }
        let session = SessionId(reader.array()?);
        if session.is_zero() {
            return Err(ControlError::ZeroSession);
        }
        Ok((Self { opcode, key_id, session }, reader.rest()))
    }

    /// The header as it goes on the wire.
    pub const fn to_bytes(&self) -> [u8; Self::LEN] {
        let [a, b, c, d, e, f, g, h] = self.session.0;
        [self.opcode.first_byte(self.key_id), a, b, c, d, e, f, g, h]
    }
}

/// What follows the header once the wrapping is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body<'a> {
    /// Message ids of the receiver's packets that have arrived.
    pub acks: AckList,
    /// The receiver's session id, there whenever `acks` is not empty.
    pub remote: Option<SessionId>,
    /// This packet's own number; `None` in an ACK.
    pub id: Option<MessageId>,
    /// TLS bytes, or TLVs in a server reset; empty in an ACK.
    pub payload: &'a [u8],
}

impl<'a> Body<'a> {
    /// Reads the whole of `bytes` as the body of a packet of kind `opcode`.
    pub fn parse(opcode: Opcode, bytes: &'a [u8]) -> Result<Self, ControlError> {
        let mut reader = Reader::new(bytes);
        let count = usize::from(reader.u8()?);
        let mut acks = AckList::new();
        for _ in 0..count {
            let id = MessageId(reader.u32()?);
            acks.push(id).map_err(|_| ControlError::TooManyAcks)?;
        }
        let remote = if acks.is_empty() { None } else { Some(SessionId(reader.array()?)) };
        if opcode == Opcode::AckV1 {
            reader.finish().map_err(|_| ControlError::Trailing)?;
            return Ok(Self { acks, remote, id: None, payload: &[] });
        }
        let id = Some(MessageId(reader.u32()?));
        Ok(Self { acks, remote, id, payload: reader.rest() })
    }

    /// Acknowledgements can only go out addressed: without `remote` none are sent.
    fn addressed(&self) -> Option<(&[MessageId], SessionId)> {
        self.remote.filter(|_| !self.acks.is_empty()).map(|remote| (self.acks.as_slice(), remote))
    }

    /// How many bytes `emit` appends.
    pub fn buffer_len(&self) -> usize {
        let acks = self.addressed().map_or(0, |(acks, _)| 4 * acks.len() + 8);
        let id = if self.id.is_some() { 4 + self.payload.len() } else { 0 };
        1 + acks + id
    }

    /// Appends the body to `out`; when it does not fit, nothing is appended.
    pub fn emit(&self, out: &mut PacketMut<'_>) -> Result<(), Full> {
        if self.buffer_len() > out.tailroom() {
            return Err(Full);
        }
        match self.addressed() {
            None => out.extend(&[0])?,
            Some((acks, remote)) => {
                // At most MAX_ACKS (8) fit the list.
                out.extend(&[acks.len() as u8])?;
                for ack in acks {
                    out.extend(&ack.0.to_be_bytes())?;
                }
                out.extend(&remote.0)?;
            }
        }
        if let Some(id) = self.id {
            out.extend(&id.0.to_be_bytes())?;
            out.extend(self.payload)?;
        }
        Ok(())
    }
}

/// What a server's reset asks of the client [1.4]:
///
/// ```text
/// zero or more of   type(2) len(2) value(len)
///                   0001    0002   0001          early negotiation flags: RESEND_WKC
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResetFlags {
    /// The server kept no state: the client's message 1 must bring the wrapped key again.
    pub resend_wkc: bool,
}

impl ResetFlags {
    const EARLY_NEGOTIATION: u16 = 0x0001;
    const RESEND_WKC: u16 = 0x0001;

    /// Reads the payload of a server reset. Unknown types and flags are skipped.
    pub fn parse(payload: &[u8]) -> Result<Self, ControlError> {
        let mut reader = Reader::new(payload);
        let mut flags = Self::default();
        while reader.remaining() > 0 {
            let bad = |_| ControlError::BadTlv;
            let kind = reader.u16().map_err(bad)?;
            let len = reader.u16().map_err(bad)?;
            let value = reader.take(usize::from(len)).map_err(bad)?;
            if kind == Self::EARLY_NEGOTIATION {
                let bits = <[u8; 2]>::try_from(value).map_err(|_| ControlError::BadTlv)?;
                flags.resend_wkc |= u16::from_be_bytes(bits) & Self::RESEND_WKC != 0;
            }
        }
        Ok(flags)
    }

    /// The payload that says the same; empty when there is nothing to ask.
    pub const fn as_bytes(self) -> &'static [u8] {
        if self.resend_wkc { &[0x00, 0x01, 0x00, 0x02, 0x00, 0x01] } else { &[] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: SessionId = SessionId([0xae, 0xb9, 0xaf, 0xe1, 0xf0, 0x1d, 0x79, 0xc8]);
    const REMOTE: SessionId = SessionId([0xdd, 0x85, 0xdb, 0x53, 0x56, 0x23, 0xb0, 0x2e]);

    fn emit(header: Header, body: &Body<'_>) -> Vec<u8> {
        let mut memory = [0x5a; 256];
        let mut out = PacketMut::new(&mut memory, 7, 7).unwrap();
        out.extend(&header.to_bytes()).unwrap();
        body.emit(&mut out).unwrap();
        assert_eq!(out.len(), Header::LEN + body.buffer_len());
        out.as_slice().to_vec()
    }

    fn parse(packet: &[u8]) -> Result<(Header, Body<'_>), ControlError> {
        let (header, rest) = Header::parse(packet)?;
        Ok((header, Body::parse(header.opcode, rest)?))
    }

    /// [13.5] "plain client reset".
    #[test]
    fn plain_client_reset() {
        let packet = [0x38, 0x68, 0x91, 0x92, 0x3f, 0xa3, 0x10, 0x34, 0x37, 0, 0, 0, 0, 0];
        let (header, body) = parse(&packet).unwrap();
        assert_eq!(header.opcode, Opcode::HardResetClientV2);
        assert_eq!(header.session.to_string(), "6891923fa3103437");
        let expected =
            Body { acks: AckList::new(), remote: None, id: Some(MessageId(0)), payload: &[] };
        assert_eq!(body, expected);
        assert_eq!(emit(header, &body), packet);
    }

    /// [13.5] "plain ACK".
    #[test]
    fn plain_ack() {
        let mut packet = vec![0x28];
        packet.extend(LOCAL.0);
        packet.extend([1, 0, 0, 0, 0]);
        packet.extend(REMOTE.0);
        let (header, body) = parse(&packet).unwrap();
        assert_eq!((header.opcode, header.session), (Opcode::AckV1, LOCAL));
        assert_eq!(
            (body.acks.as_slice(), body.remote, body.id),
            (&[MessageId(0)][..], Some(REMOTE), None)
        );
        assert_eq!(emit(header, &body), packet);
        packet.push(0);
        assert_eq!(parse(&packet), Err(ControlError::Trailing));
    }

    fn full() -> (Header, Body<'static>) {
        let acks = (0x0102_0300..0x0102_0308).map(MessageId).collect();
        let header =
            Header { opcode: Opcode::ControlV1, key_id: KeyId::new(5).unwrap(), session: LOCAL };
        (
            header,
            Body { acks, remote: Some(REMOTE), id: Some(MessageId(u32::MAX)), payload: b"tls" },
        )
    }

    #[test]
    fn a_full_packet_survives_and_no_shorter_one_is_misread() {
        let (header, body) = full();
        let packet = emit(header, &body);
        assert_eq!(parse(&packet), Ok((header, body)));
        let without_payload = packet.len() - 3;
        for len in 0..without_payload {
            assert_eq!(parse(packet.get(..len).unwrap()), Err(ControlError::Truncated), "{len}");
        }
        for len in without_payload..packet.len() {
            assert!(parse(packet.get(..len).unwrap()).is_ok(), "{len}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_control_packet() {
        let (header, body) = full();
        let mut packet = emit(header, &body);
        packet[9] = 9;
        packet.extend([0; 64]);
        assert_eq!(parse(&packet), Err(ControlError::TooManyAcks));
        packet[1..9].fill(0);
        assert_eq!(parse(&packet), Err(ControlError::ZeroSession));
        for opcode in [0, 1, 2, 6, 9, 12, 31] {
            packet[0] = opcode << 3;
            assert_eq!(parse(&packet), Err(ControlError::NotControl));
        }
    }

    #[test]
    fn appends_all_or_nothing() {
        let (_, body) = full();
        let mut memory = [0; 64];
        let mut out = PacketMut::new(&mut memory, 0, 64 - body.buffer_len() + 1).unwrap();
        let before = out.len();
        assert_eq!(body.emit(&mut out), Err(Full));
        assert_eq!(out.len(), before);
        out.truncate(before - 1);
        assert_eq!(body.emit(&mut out), Ok(()));
        assert_eq!(out.tailroom(), 0);
    }

    #[test]
    fn acknowledgements_without_an_addressee_stay_home() {
        let (header, mut body) = full();
        body.remote = None;
        let packet = emit(header, &body);
        assert_eq!(parse(&packet).unwrap().1.acks, AckList::new());
    }

    #[test]
    fn reset_flags() {
        let resend = ResetFlags { resend_wkc: true };
        assert_eq!(ResetFlags::parse(&[]), Ok(ResetFlags::default()));
        assert_eq!(ResetFlags::parse(resend.as_bytes()), Ok(resend));
        assert_eq!(ResetFlags::default().as_bytes(), []);
        // An unknown type in front, unknown flags beside ours.
        assert_eq!(
            ResetFlags::parse(&[0x12, 0x34, 0, 1, 0xff, 0, 1, 0, 2, 0x80, 0x01]),
            Ok(resend)
        );
        assert_eq!(ResetFlags::parse(&[0, 1, 0, 2, 0xff, 0xfe]), Ok(ResetFlags::default()));
        for bad in [
            &[0u8][..],
            &[0, 1, 0],
            &[0, 1, 0, 2, 0],
            &[0, 1, 0, 1, 1],
            &[0, 1, 0, 3, 0, 1, 0],
            &[9, 9, 0xff, 0xff],
        ] {
            assert_eq!(ResetFlags::parse(bad), Err(ControlError::BadTlv), "{bad:?}");
        }
    }
}
