//! The framings that compression once came in, around every payload; nothing is ever compressed,
//! and what a peer compresses is not opened [6.5].
//!
//! ```text
//! Lzo      fa ‖ packet                       66 ‖ … is compressed
//! Swap     fb ‖ packet[1..] ‖ packet[0]      69 ‖ … is compressed
//! StubV2   packet                            50 00 ‖ packet, too; other 50 … are compressed
//! ```

use super::SealError;
use crate::buf::PacketMut;
use crate::config::Framing;

const LZO_PLAIN: u8 = 0xfa;
const SWAP_PLAIN: u8 = 0xfb;
const V2_ESCAPE: u8 = 0x50;
const V2_PLAIN: u8 = 0x00;

/// The framing is wrong, or what is in it is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) struct Compressed;

/// Puts the framing around a payload.
pub(in crate::session) fn add(
    framing: Framing,
    packet: &mut PacketMut<'_>,
) -> Result<(), SealError> {
    match framing {
        // No IP packet, ping or exit notification starts with the escape byte.
        Framing::None | Framing::StubV2 => Ok(()),
        Framing::Lzo => {
            packet.push_front(1)?.fill(LZO_PLAIN);
            Ok(())
        }
        Framing::Swap => {
            let Some(first) = packet.as_mut_slice().first_mut() else { return Ok(()) };
            let moved = core::mem::replace(first, SWAP_PLAIN);
            match packet.push_back(1) {
                Ok(last) => last.fill(moved),
                Err(full) => {
                    packet.as_mut_slice().first_mut().into_iter().for_each(|first| *first = moved);
                    return Err(full.into());
                }
            }
            Ok(())
        }
    }
}

/// Takes the framing off a payload.
pub(in crate::session) fn remove(
    framing: Framing,
    packet: &mut PacketMut<'_>,
) -> Result<(), Compressed> {
    let bytes = packet.as_mut_slice();
    match (framing, &mut *bytes) {
        (Framing::None, _) | (_, []) => Ok(()),
        (Framing::Lzo, [LZO_PLAIN, ..]) => packet.pull_front(1).map_err(|_| Compressed),
        (Framing::Swap, [first, .., last]) if *first == SWAP_PLAIN => {
            *first = *last;
            packet.truncate(packet.len() - 1);
            Ok(())
        }
        (Framing::StubV2, [V2_ESCAPE, V2_PLAIN, ..]) => {
            packet.pull_front(2).map_err(|_| Compressed)
        }
        (Framing::StubV2, [first, ..]) if *first != V2_ESCAPE => Ok(()),
        (Framing::Lzo | Framing::Swap | Framing::StubV2, _) => Err(Compressed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::PacketBuf;

    const KINDS: [Framing; 4] = [Framing::None, Framing::Lzo, Framing::Swap, Framing::StubV2];

    /// [6.5], byte for byte.
    #[test]
    fn the_bytes_on_the_wire() {
        let plain = [0x45, 1, 2, 3];
        for (framing, wire) in [
            (Framing::None, &[0x45, 1, 2, 3][..]),
            (Framing::Lzo, &[0xfa, 0x45, 1, 2, 3]),
            (Framing::Swap, &[0xfb, 1, 2, 3, 0x45]),
            (Framing::StubV2, &[0x45, 1, 2, 3]),
        ] {
            let mut buf = PacketBuf::new();
            let mut packet = buf.packet_from(&plain).unwrap();
            add(framing, &mut packet).unwrap();
            assert_eq!(packet.as_slice(), wire, "{framing:?}");
            assert_eq!(packet.len(), plain.len() + framing.overhead());
            remove(framing, &mut packet).unwrap();
            assert_eq!(packet.as_slice(), plain, "{framing:?}");
        }
    }

    #[test]
    fn what_is_compressed_or_framed_otherwise_is_told_apart() {
        for (framing, wire, opens) in [
            (Framing::None, &[0xfa, 0x45][..], true),
            (Framing::Lzo, &[0x66, 0x45], false),
            (Framing::Lzo, &[0x45, 0], false),
            (Framing::Swap, &[0x69, 0, 0x45], false),
            (Framing::Swap, &[0xfa, 0x45], false),
            (Framing::Swap, &[0xfb], false),
            (Framing::StubV2, &[0x50, 0x01, 0x45], false),
            (Framing::StubV2, &[0x50], false),
            (Framing::StubV2, &[0x50, 0x00, 0x50], true),
        ] {
            let mut buf = PacketBuf::new();
            let mut packet = buf.packet_from(wire).unwrap();
            assert_eq!(remove(framing, &mut packet).is_ok(), opens, "{framing:?} {wire:02x?}");
        }
    }

    #[test]
    fn empty_and_full_packets() {
        for framing in KINDS {
            let mut buf = PacketBuf::new();
            let mut packet = buf.packet();
            remove(framing, &mut packet).unwrap();
            add(framing, &mut packet).unwrap();
            // No room on either side: refused, and the packet is as it was.
            let mut memory = [0x45, 7];
            let mut packet = PacketMut::new(&mut memory, 0, 2).unwrap();
            assert_eq!(add(framing, &mut packet).is_err(), framing.overhead() > 0);
            assert_eq!(packet.as_slice(), [0x45, 7]);
        }
    }
}
