//! The first byte of every packet [1.1].
//!
//! ```text
//! 7 6 5 4 3   2 1 0
//! opcode      key id
//! ```

use core::fmt;

/// What kind of packet this is: the upper five bits of the first byte [1.1].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// Starts a renegotiation.
    SoftResetV1,
    /// Carries TLS bytes.
    ControlV1,
    /// Acknowledges, and nothing else.
    AckV1,
    /// A data packet with a one-byte header.
    DataV1,
    /// A client starts a session.
    HardResetClientV2,
    /// A server's answer to either client reset.
    HardResetServerV2,
    /// A data packet with a peer id.
    DataV2,
    /// A client starts a session and appends its wrapped key.
    HardResetClientV3,
    /// Carries TLS bytes and has the wrapped client key appended.
    WkcV1,
    /// Any other value, the obsolete 1 and 2 (key method 1) included.
    Unknown(u8),
}

impl Opcode {
    const SHIFT: u32 = 3;

    /// Takes the first byte of any packet apart.
    pub const fn from_first_byte(byte: u8) -> (Self, KeyId) {
        let opcode = match byte >> Self::SHIFT {
            3 => Self::SoftResetV1,
            4 => Self::ControlV1,
            5 => Self::AckV1,
            6 => Self::DataV1,
            7 => Self::HardResetClientV2,
            8 => Self::HardResetServerV2,
            9 => Self::DataV2,
            10 => Self::HardResetClientV3,
            11 => Self::WkcV1,
            other => Self::Unknown(other),
        };
        (opcode, KeyId(byte & KeyId::MASK))
    }

    /// The first byte of a packet of this kind under key `key_id`.
    pub const fn first_byte(self, key_id: KeyId) -> u8 {
        self.code() << Self::SHIFT | key_id.0
    }

    /// The value on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::SoftResetV1 => 3,
            Self::ControlV1 => 4,
            Self::AckV1 => 5,
            Self::DataV1 => 6,
            Self::HardResetClientV2 => 7,
            Self::HardResetServerV2 => 8,
            Self::DataV2 => 9,
            Self::HardResetClientV3 => 10,
            Self::WkcV1 => 11,
            Self::Unknown(code) => code & 0x1f,
        }
    }

    /// Whether this is a control packet that exists (3..=11 without the data packets).
    pub const fn is_control(self) -> bool {
        match self {
            Self::SoftResetV1 | Self::ControlV1 | Self::AckV1 | Self::WkcV1 => true,
            Self::HardResetClientV2 | Self::HardResetServerV2 | Self::HardResetClientV3 => true,
            Self::DataV1 | Self::DataV2 | Self::Unknown(_) => false,
        }
    }

    /// Whether the wrapped client key follows the packet [1.3].
    pub const fn has_wkc(self) -> bool {
        match self {
            Self::HardResetClientV3 | Self::WkcV1 => true,
            Self::SoftResetV1 | Self::ControlV1 | Self::AckV1 | Self::DataV1 | Self::DataV2 => {
                false
            }
            Self::HardResetClientV2 | Self::HardResetServerV2 | Self::Unknown(_) => false,
        }
    }
}

/// Which key of a session a packet belongs to, 0..=7 [1.1].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u8);

impl KeyId {
    /// The first key of a session, and only that.
    pub const ZERO: Self = Self(0);
    pub(super) const MASK: u8 = 0x07;

    /// `None` when `id` does not fit the three bits.
    pub const fn new(id: u8) -> Option<Self> {
        if id <= Self::MASK { Some(Self(id)) } else { None }
    }

    /// The key a renegotiation makes: after 7 comes 1, never 0 again.
    #[must_use]
    pub const fn next(self) -> Self {
        if self.0 == Self::MASK { Self(1) } else { Self(self.0 + 1) }
    }

    /// The number, 0..=7.
    pub const fn value(self) -> u8 {
        self.0
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({})", self.0)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte_survives_a_round_trip() {
        for byte in 0..=u8::MAX {
            let (opcode, key_id) = Opcode::from_first_byte(byte);
            assert_eq!(opcode.first_byte(key_id), byte);
        }
        for (byte, opcode, key_id) in [
            (0x38, Opcode::HardResetClientV2, 0),
            (0x40, Opcode::HardResetServerV2, 0),
            (0x20, Opcode::ControlV1, 0),
            (0x28, Opcode::AckV1, 0),
            (0x50, Opcode::HardResetClientV3, 0),
            (0x58, Opcode::WkcV1, 0),
            (0x30, Opcode::DataV1, 0),
            (0x48, Opcode::DataV2, 0),
            (0x19, Opcode::SoftResetV1, 1),
            (0x0f, Opcode::Unknown(1), 7),
        ] {
            assert_eq!(Opcode::from_first_byte(byte), (opcode, KeyId(key_id)));
        }
    }

    #[test]
    fn key_ids_wrap_to_one() {
        let ids: Vec<u8> = core::iter::successors(Some(KeyId::ZERO), |id| Some(id.next()))
            .map(KeyId::value)
            .take(10)
            .collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 5, 6, 7, 1, 2]);
        assert_eq!((KeyId::new(7), KeyId::new(8)), (Some(KeyId(7)), None));
    }
}
