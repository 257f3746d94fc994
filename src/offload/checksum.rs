//! The Internet checksum (RFC 1071): sums in ones' complement, folded to 16 bits.

/// The folded sum over `bytes`, which start at an even offset of what is summed; an odd last byte
/// counts as if a zero followed.
pub fn sum(bytes: &[u8]) -> u16 {
    // Any word size and byte order gives the same sum (RFC 1071 2); 32 bits at a time into 64 is what
    // compilers turn into vector code. No packet is long enough to overflow.
    let (words, tail) = bytes.as_chunks();
    let total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(tail) {
        *to = *from;
    }
    u16::from_be(fold(total + u64::from(u32::from_ne_bytes(last))))
}

/// Two sums as one.
pub const fn add(a: u16, b: u16) -> u16 {
    let sum = a as u32 + b as u32;
    (sum & 0xffff) as u16 + (sum >> 16) as u16
}

/// `a` without `b`, which is in it.
pub const fn subtract(a: u16, b: u16) -> u16 {
    add(a, !b)
}

/// The sum over the pseudo header: addresses as they are in the packet (either family), protocol,
/// and the length of what follows the IP header.
pub fn pseudo(addresses: &[u8], protocol: u8, len: usize) -> u16 {
    // The length takes 32 bits in IPv6 and never more than 17 here.
    let len = add((len >> 16) as u16, len as u16);
    add(add(sum(addresses), u16::from(protocol)), len)
}

const fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Word by word, as RFC 1071 says it.
    fn model(bytes: &[u8]) -> u16 {
        let mut total: u32 = 0;
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            total += u32::from(u16::from_be_bytes([pair[0], low]));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    #[test]
    fn agrees_with_the_definition_at_every_length() {
        let bytes: Vec<u8> = (0..4000_u32).map(|i| (i * i / 7 + i) as u8).collect();
        for len in (0..200).chain([1399, 1400, 1401, 4000]) {
            assert_eq!(sum(&bytes[..len]), model(&bytes[..len]), "{len}");
        }
        assert_eq!(sum(&[0xff; 65_536]), 0xffff);
        // The example of RFC 1071 section 3.
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn sums_add_and_subtract() {
        let (a, b) = (b"some even".as_slice(), b"odd".as_slice());
        let whole = [&a[..8], b].concat();
        assert_eq!(add(sum(&a[..8]), sum(b)), sum(&whole));
        assert_eq!(subtract(sum(&whole), sum(b)), sum(&a[..8]));
        let mut header = vec![10, 0, 0, 1, 10, 0, 0, 2, 0, 6, 0, 99];
        assert_eq!(pseudo(&header[..8], 6, 99), sum(&header));
        header.splice(8.., [0, 0, 0, 6, 0, 1, 0, 0]);
        assert_eq!(pseudo(&header[..8], 6, 65_536), sum(&header));
    }
}
