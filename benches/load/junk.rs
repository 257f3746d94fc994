//! What strangers send without any key, by kind: for the measurements of floods.

use sixgate::random::Random;

/// What the server has that they are sent to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    None,
    Crypt,
    CryptV2,
}

/// A kind of datagram.
pub struct Junk {
    /// On the command line.
    pub kind: &'static str,
    /// In tables.
    pub name: &'static str,
    pub wrapping: Wrapping,
    first: &'static [u8],
    len: fn(usize) -> usize,
    rest: fn(&mut [u8]),
}

impl Junk {
    /// Datagram number `number`, random but for what makes it one of its kind.
    pub fn make(&self, rng: &mut dyn Random, number: usize) -> Vec<u8> {
        let mut bytes = vec![0; (self.len)(number)];
        rng.fill(&mut bytes);
        bytes[..self.first.len()].copy_from_slice(self.first);
        (self.rest)(&mut bytes);
        bytes
    }
}

const fn junk(
    kind: &'static str,
    name: &'static str,
    wrapping: Wrapping,
    first: &'static [u8],
    len: fn(usize) -> usize,
    rest: fn(&mut [u8]),
) -> Junk {
    Junk { kind, name, wrapping, first, len, rest }
}

pub const ALL: [Junk; 7] = [
    junk(
        "first",
        "first packets, plain",
        Wrapping::None,
        &[0x38],
        |_| 14,
        |bytes| bytes[9..].fill(0),
    ),
    junk("crypt", "first packets, tls-crypt", Wrapping::Crypt, &[0x38], |_| 54, |_| {}),
    junk(
        "wkc",
        "wrapped keys",
        Wrapping::CryptV2,
        &[0x50],
        |number| 54 + 290 + number % 735,
        |bytes| {
            let len = (bytes.len() - 54) as u16;
            *bytes.last_chunk_mut().expect("long enough") = len.to_be_bytes();
        },
    ),
    junk(
        "third",
        "third packets",
        Wrapping::None,
        &[0x28],
        |_| 22,
        |bytes| bytes[9..14].copy_from_slice(&[1, 0, 0, 0, 0]),
    ),
    junk(
        "unknown",
        "data for unknown clients",
        Wrapping::None,
        &[0x48, 0, 1, 1],
        |_| 1_400,
        |_| {},
    ),
    junk("named", "data in a client's name", Wrapping::None, &[0x48, 0, 0, 0], |_| 1_400, |_| {}),
    junk("rubbish", "rubbish", Wrapping::None, &[], |number| 1 + number % 1_400, |_| {}),
];
