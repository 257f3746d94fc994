//! Lowering the MSS option of TCP SYNs to what fits the tunnel, `mssfix` [6.8].
//!
//! ```text
//! TCP   0  2  source port            options   0          end
//!       ..                                     1          padding
//!      12  1  header length << 2               2 4 MSS(2) largest segment, at any byte
//!      13  1  flags, SYN = 2                   k n ...    anything else, n bytes in all
//!      16  2  checksum
//!      20  *  options
//! ```
//!
//! Every check comes before the first change (CVE-2017-7508 came from doing less). The checksum is
//! patched, so it must have been complete: finishing checksums that the kernel left to the device
//! is `offload`'s business.

use crate::config::Mssfix;
use crate::wire::ip::{IpPacket, Version, protocol};

/// What the data channel adds to a packet, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataOverhead {
    /// In front of and behind the ciphertext: header, packet id, tag or HMAC, IV.
    pub outside: u16,
    /// Inside the ciphertext: the packet id of the old ciphers, a marker of v1 compression framing.
    pub inside: u16,
    /// Block size when the ciphertext is padded to whole blocks.
    pub block: Option<u16>,
}

impl DataOverhead {
    /// Of the AEAD ciphers: header 4 (1 without peer id), packet id 4 (8 in epoch format), tag 16.
    pub const fn aead(peer_id: bool, epoch: bool) -> Self {
        let header = if peer_id { 4 } else { 1 };
        let packet_id = if epoch { 8 } else { 4 };
        Self { outside: header + packet_id + 16, inside: 0, block: None }
    }

    /// Of the CBC ciphers: header as above, HMAC, and an IV of one AES block outside; packet id 4
    /// inside [6.3].
    pub const fn cbc(peer_id: bool, hmac: u16) -> Self {
        let header = if peer_id { 4 } else { 1 };
        Self { outside: header + hmac + 16, inside: 4, block: Some(16) }
    }

    /// With the marker of a v1 compression framing, if any [6.5].
    pub const fn framed(self, marker: u16) -> Self {
        Self { inside: self.inside + marker, ..self }
    }
}

/// Largest MSS for either IP version inside the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MssLimits {
    /// In IPv4.
    pub v4: u16,
    /// In IPv6.
    pub v6: u16,
}

impl MssLimits {
    /// IPv4 and TCP headers without options; those of IPv6 are 20 bytes longer.
    const HEADERS: u16 = 40;
    /// Below this, a limit would do more harm than fragments do: the least MTU of IPv4 less headers.
    const LEAST: u16 = 68 - 40;

    /// The limits for a peer reached over `outer`.
    pub fn new(mssfix: Mssfix, overhead: DataOverhead, outer: Version) -> Self {
        let udp = match outer {
            Version::V4 => 20 + 8,
            Version::V6 => 40 + 8,
        };
        let inner = match mssfix {
            Mssfix::Fixed(size) => size,
            Mssfix::Outer(size) => Self::inner(size.saturating_sub(udp), overhead),
            Mssfix::Payload(size) => Self::inner(size, overhead),
        };
        let v4 = inner.saturating_sub(Self::HEADERS);
        Self { v4: v4.max(Self::LEAST), v6: v4.saturating_sub(20).max(Self::LEAST) }
    }

    /// The largest packet that fits `size` bytes of UDP payload. Padding takes at least one byte.
    pub fn inner(size: u16, overhead: DataOverhead) -> u16 {
        let text = size.saturating_sub(overhead.outside);
        let text = match overhead.block {
            Some(block) => {
                text.checked_rem(block).map_or(text, |rest| text - rest).saturating_sub(1)
            }
            None => text,
        };
        text.saturating_sub(overhead.inside)
    }
}

/// Lowers the MSS option when `packet` is a TCP SYN that asks for more than the limit; leaves
/// everything else alone. Says whether it changed the packet.
pub fn clamp(packet: &mut [u8], limits: MssLimits) -> bool {
    let Some((offset, limit)) = tcp(packet, limits) else { return false };
    packet.get_mut(offset..).and_then(|segment| clamp_segment(segment, limit)).is_some()
}

/// Where the TCP header starts and which limit applies. The stated length must be the real one, and
/// IPv6 must name TCP itself: extension headers on a SYN are left to their fate.
fn tcp(packet: &[u8], limits: MssLimits) -> Option<(usize, u16)> {
    let view = IpPacket::parse(packet).ok().filter(|view| view.total_len() == packet.len())?;
    if view.next_header() != protocol::TCP {
        return None;
    }
    let limit = match view.version() {
        Version::V4 => limits.v4,
        Version::V6 => limits.v6,
    };
    Some((view.transport()?.offset, limit))
}

const HEADER_LEN: usize = 12;
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;
const OPTIONS: usize = 20;
const SYN: u8 = 0x02;
const OPTION_END: u8 = 0;
const OPTION_PADDING: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_MSS_LEN: u8 = 4;

fn clamp_segment(segment: &mut [u8], limit: u16) -> Option<()> {
    if segment.get(FLAGS)? & SYN == 0 {
        return None;
    }
    let header = usize::from(segment.get(HEADER_LEN)? >> 4) * 4;
    let value = OPTIONS + find_mss(segment.get(OPTIONS..header)?)?;
    let old = segment.get(value..)?.first_chunk::<2>()?;
    if u16::from_be_bytes(*old) <= limit {
        return None;
    }
    // An option may start at an odd byte; the checksum then sees the two bytes in two words, which
    // amounts to one word with its bytes swapped.
    let word = |bytes: [u8; 2]| {
        let word = u16::from_be_bytes(bytes);
        if value.is_multiple_of(2) { word } else { word.swap_bytes() }
    };
    let (old, new) = (word(*old), word(limit.to_be_bytes()));
    *segment.get_mut(value..)?.first_chunk_mut()? = limit.to_be_bytes();
    let checksum = segment.get_mut(CHECKSUM..)?.first_chunk_mut()?;
    *checksum = patch(u16::from_be_bytes(*checksum), old, new).to_be_bytes();
    Some(())
}

/// The offset of the MSS value among the options.
fn find_mss(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *options.get(at)? {
            OPTION_END => return None,
            OPTION_PADDING => at += 1,
            kind => {
                let len = *options.get(at + 1)?;
                if kind == OPTION_MSS {
                    return (len == OPTION_MSS_LEN && at + 4 <= options.len()).then_some(at + 2);
                }
                // Kind and length count; less would never end.
                if len < 2 {
                    return None;
                }
                at += usize::from(len);
            }
        }
    }
}

/// RFC 1624: HC' = ~(~HC + ~m + m').
fn patch(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::tests::{v4, v6};

    const LIMITS: MssLimits = MssLimits { v4: 1300, v6: 1280 };
    const MSS_1460: [u8; 4] = [2, 4, 0x05, 0xb4];

    /// A SYN with these options, filled up with ends, and a checksum over the segment alone: what
    /// is patched must not depend on the pseudo header.
    fn syn(options: &[u8]) -> Vec<u8> {
        let mut segment =
            vec![0x12, 0x34, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0, 0, SYN, 0xff, 0xff, 0, 0, 0, 0];
        segment.extend(options);
        segment.resize(segment.len().next_multiple_of(4), 0);
        segment[HEADER_LEN] = (segment.len() as u8 / 4) << 4;
        let checksum = !sum(&segment);
        segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
        segment
    }

    /// The one's complement sum; 0xffff when the checksum in `segment` is right.
    fn sum(segment: &[u8]) -> u16 {
        let mut sum: u32 = segment
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// [13.6]
    #[test]
    fn known_answers() {
        let payload =
            |size, overhead| MssLimits::new(Mssfix::Payload(size), overhead, Version::V4).v4;
        for n in 900..=1200 {
            assert_eq!(payload(n, DataOverhead::aead(true, false)), n - 64);
        }
        let none = DataOverhead { outside: 0, inside: 8, block: None };
        assert_eq!(payload(1000, none), 952);
        // AES-128-CBC without HMAC: the IV outside, an 8-byte packet id inside.
        let mut cbc = DataOverhead { outside: 16, inside: 8, block: Some(16) };
        for (range, mss) in [(990..=991, 911), (992..=1007, 927), (1008..=1010, 943)] {
            for n in range {
                assert_eq!(payload(n, cbc), mss, "{n}");
            }
        }
        cbc.inside += 1;
        assert_eq!(payload(1000, cbc), 926);
    }

    #[test]
    fn limits_by_kind_of_mssfix() {
        let aead = DataOverhead::aead(true, false);
        let limits = |mssfix, outer| {
            let limits = MssLimits::new(mssfix, aead, outer);
            (limits.v4, limits.v6)
        };
        assert_eq!(limits(Mssfix::Outer(1492), Version::V4), (1400, 1380));
        assert_eq!(limits(Mssfix::Outer(1492), Version::V6), (1380, 1360));
        assert_eq!(limits(Mssfix::Payload(1450), Version::V6), (1386, 1366));
        assert_eq!(limits(Mssfix::Fixed(1400), Version::V6), (1360, 1340));
        for tiny in [0, 1, 20, 68] {
            assert_eq!(limits(Mssfix::Outer(tiny), Version::V6), (28, 28));
        }
        assert_eq!(DataOverhead::aead(true, true).outside, 28);
        assert_eq!(DataOverhead::aead(false, false).outside, 21);
    }

    #[test]
    fn lowers_the_option_and_keeps_the_checksum_right() {
        let long = [&[8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 4, 2][..], &MSS_1460].concat();
        let odd = [&[1][..], &MSS_1460, &[3, 3, 7]].concat();
        for options in [&MSS_1460[..], &odd, &long, &[&MSS_1460[..], &[0, 9]].concat()] {
            for (ip, limit) in [
                (v4(false, 0x4000, protocol::TCP, &syn(options)), LIMITS.v4),
                (v4(true, 0, protocol::TCP, &syn(options)), LIMITS.v4),
                (v6(protocol::TCP, &syn(options)), LIMITS.v6),
            ] {
                let mut packet = ip.clone();
                assert!(clamp(&mut packet, LIMITS));
                let offset = IpPacket::parse(&packet).unwrap().transport().unwrap().offset;
                let segment = &packet[offset..];
                assert_eq!(sum(segment), 0xffff);
                let at = 20 + find_mss(&segment[20..]).unwrap();
                assert_eq!(segment[at..at + 2], limit.to_be_bytes());
                let changed = ip.iter().zip(&packet).filter(|(old, new)| old != new).count();
                assert!((1..=4).contains(&changed));
                assert!(!clamp(&mut packet, LIMITS), "once is enough");
            }
        }
    }

    #[test]
    fn every_value_is_patched_right() {
        for mss in (1281..=u16::MAX).step_by(7) {
            for pad in [&[][..], &[1], &[1, 1], &[1, 1, 1]] {
                let [high, low] = mss.to_be_bytes();
                let mut packet = v6(protocol::TCP, &syn(&[pad, &[2, 4, high, low]].concat()));
                assert!(clamp(&mut packet, LIMITS));
                assert_eq!(sum(&packet[40..]), 0xffff, "{mss}");
            }
        }
    }

    #[test]
    fn leaves_everything_else_alone() {
        let mut no_syn = syn(&MSS_1460);
        no_syn[FLAGS] = 0x10;
        let mut short_header = syn(&MSS_1460);
        short_header[HEADER_LEN] = 0x40;
        let mut long_header = syn(&MSS_1460);
        long_header[HEADER_LEN] = 0xf0;
        let mut trailing = v6(protocol::TCP, &syn(&MSS_1460));
        trailing.push(0);
        let fragment = [&[6, 0, 0, 0, 0, 0, 0, 0][..], &syn(&MSS_1460)].concat();
        for mut packet in [
            v4(false, 0, protocol::TCP, &no_syn),
            v4(false, 0, protocol::TCP, &short_header),
            v6(protocol::TCP, &long_header),
            v4(false, 0, protocol::TCP, &syn(&[2, 4, 0x05, 0x00])),
            v4(false, 0, protocol::TCP, &syn(&[])),
            v4(false, 0, protocol::TCP, &syn(&[0, 2, 4, 0x05, 0xb4])),
            v4(false, 0, protocol::TCP, &syn(&[3, 0, 2, 4, 0x05, 0xb4])),
            v4(false, 0, protocol::TCP, &syn(&[3, 1, 2, 4, 0x05, 0xb4])),
            v4(false, 0, protocol::TCP, &syn(&[3, 200, 2, 4, 0x05, 0xb4])),
            v4(false, 0, protocol::TCP, &syn(&[2, 3, 0x05, 0xb4])),
            v4(false, 0, protocol::TCP, &syn(&[2, 6, 0x05, 0xb4, 0, 0])),
            v4(false, 0, protocol::TCP, &syn(&[1, 1, 1, 2])),
            v4(false, 0, protocol::TCP, &syn(&[1, 1, 2, 4])),
            v4(false, 0, protocol::TCP, &syn(&[1, 2, 4, 0xff])),
            v4(false, 1, protocol::TCP, &syn(&MSS_1460)),
            v4(false, 0, protocol::UDP, &syn(&MSS_1460)),
            v6(44, &fragment),
            v6(59, &syn(&MSS_1460)),
            trailing,
            vec![],
            vec![0x45],
        ] {
            let before = packet.clone();
            assert!(!clamp(&mut packet, LIMITS), "{before:02x?}");
            assert_eq!(packet, before);
        }
    }

    #[test]
    fn truncations_and_garbage_never_panic() {
        for whole in
            [v4(true, 0, protocol::TCP, &syn(&MSS_1460)), v6(protocol::TCP, &syn(&MSS_1460))]
        {
            for len in 0..whole.len() {
                let mut cut = whole.get(..len).unwrap().to_vec();
                assert!(!clamp(&mut cut, LIMITS), "{len}");
            }
        }
        let mut state = 42_u32;
        for _ in 0..20_000 {
            let options: Vec<u8> = core::iter::repeat_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 16) as u8 % 7
            })
            .take(24)
            .collect();
            let mut packet = v6(protocol::TCP, &syn(&options));
            clamp(&mut packet, MssLimits { v4: 0, v6: 0 });
            assert_eq!(sum(&packet[40..]), 0xffff, "{options:?}");
        }
    }
}
