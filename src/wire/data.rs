//! The header of data packets [1.5]. What stands behind it is `session::data`'s business.
//!
//! ```text
//! V1   0   1   6 << 3 | key id
//! V2   0   1   9 << 3 | key id
//!      1   3   peer id; ff ff ff means none: the receiver goes by the address
//! ```

use core::fmt;

use crate::buf::{Full, PacketMut};
use crate::wire::control::{KeyId, Opcode};

/// Why bytes do not start with a data header. Drop the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataError {
    /// It ends inside the header.
    Truncated,
    /// The opcode is not that of a data packet.
    NotData,
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "data packet too short",
            Self::NotData => "not a data packet",
        })
    }
}

impl core::error::Error for DataError {}

/// The header of a data packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataHeader {
    /// Key that protects the packet.
    pub key_id: KeyId,
    /// 24-bit peer id; `None` is the one-byte header V1. In a received V2 packet it may be
    /// [`NO_PEER_ID`](crate::limits::NO_PEER_ID).
    pub peer: Option<u32>,
}

impl DataHeader {
    /// Bytes of the longer header.
    pub const MAX_LEN: usize = 4;

    /// Reads the header at the start of `packet`; its length is [`DataHeader::len`].
    pub fn parse(packet: &[u8]) -> Result<Self, DataError> {
        let (first, rest) = packet.split_first().ok_or(DataError::Truncated)?;
        let (opcode, key_id) = Opcode::from_first_byte(*first);
        match opcode {
            Opcode::DataV1 => Ok(Self { key_id, peer: None }),
            Opcode::DataV2 => {
                let [a, b, c] = *rest.first_chunk().ok_or(DataError::Truncated)?;
                Ok(Self { key_id, peer: Some(u32::from_be_bytes([0, a, b, c])) })
            }
            Opcode::SoftResetV1 | Opcode::ControlV1 | Opcode::AckV1 | Opcode::WkcV1 => {
                Err(DataError::NotData)
            }
            Opcode::HardResetClientV2 | Opcode::HardResetServerV2 => Err(DataError::NotData),
            Opcode::HardResetClientV3 | Opcode::Unknown(_) => Err(DataError::NotData),
        }
    }

    /// The length of the header at the start of `packet`: all that is left to know for whoever was led
    /// to a key by what is in it.
    pub fn measure(packet: &[u8]) -> Result<usize, DataError> {
        const V1: u8 = Opcode::DataV1.first_byte(KeyId::ZERO);
        const V2: u8 = Opcode::DataV2.first_byte(KeyId::ZERO);
        let len = match *packet.first().ok_or(DataError::Truncated)? & !KeyId::MASK {
            V1 => 1,
            V2 => Self::MAX_LEN,
            _ => return Err(DataError::NotData),
        };
        if packet.len() < len { Err(DataError::Truncated) } else { Ok(len) }
    }

    /// Bytes on the wire: 1 or 4.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(self) -> usize {
        match self.peer {
            None => 1,
            Some(_) => Self::MAX_LEN,
        }
    }

    /// The header as it goes on the wire: the first [`DataHeader::len`] bytes. Only the lower 24
    /// bits of the peer id have a place.
    pub const fn to_bytes(self) -> [u8; Self::MAX_LEN] {
        match self.peer {
            None => [Opcode::DataV1.first_byte(self.key_id), 0, 0, 0],
            Some(peer) => {
                let [_, a, b, c] = peer.to_be_bytes();
                [Opcode::DataV2.first_byte(self.key_id), a, b, c]
            }
        }
    }

    /// Puts the header in front of `packet`.
    pub fn emit(self, packet: &mut PacketMut<'_>) -> Result<(), Full> {
        let bytes = self.to_bytes();
        let header = bytes.get(..self.len()).ok_or(Full)?;
        packet.push_front(header.len())?.copy_from_slice(header);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_survive_over_a_dirty_buffer() {
        for (bytes, peer, key) in [
            (&[0x30][..], None, 0),
            (&[0x37], None, 7),
            (&[0x48, 0, 0, 0], Some(0), 0),
            (&[0x4b, 0x12, 0x34, 0x56], Some(0x12_3456), 3),
            (&[0x48, 0xff, 0xff, 0xff], Some(crate::limits::NO_PEER_ID), 0),
        ] {
            let header = DataHeader { key_id: KeyId::new(key).unwrap(), peer };
            assert_eq!(header.len(), bytes.len());
            let mut memory = [0xa5; 16];
            let mut packet = PacketMut::new(&mut memory, 8, 12).unwrap();
            header.emit(&mut packet).unwrap();
            assert_eq!(packet.as_slice().split_at(bytes.len()), (bytes, &[0xa5; 4][..]));
            assert_eq!(DataHeader::parse(packet.as_slice()), Ok(header));
            assert_eq!(DataHeader::measure(packet.as_slice()), Ok(bytes.len()));
            for len in 0..bytes.len() {
                let short = bytes.get(..len).unwrap();
                assert_eq!(DataHeader::parse(short), Err(DataError::Truncated));
                assert_eq!(DataHeader::measure(short), Err(DataError::Truncated));
            }
        }
    }

    #[test]
    fn only_data_opcodes_are_data() {
        for byte in 0..=u8::MAX {
            let is_data = matches!(byte >> 3, 6 | 9);
            assert_eq!(DataHeader::parse(&[byte, 0, 0, 1]).is_ok(), is_data, "{byte:#x}");
            assert_eq!(DataHeader::measure(&[byte, 0, 0, 1]).is_ok(), is_data, "{byte:#x}");
        }
    }

    #[test]
    fn no_headroom_is_an_error() {
        let mut memory = [0; 4];
        let mut packet = PacketMut::new(&mut memory, 3, 4).unwrap();
        assert_eq!(DataHeader { key_id: KeyId::ZERO, peer: Some(1) }.emit(&mut packet), Err(Full));
        assert_eq!(packet.len(), 1);
    }
}
