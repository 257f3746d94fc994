//! A cursor over received bytes that cannot run past their end.
//!
//! All variable parts of packets go through it, so that no parser slices by hand. Integers are
//! big-endian, as everywhere in the protocol.

use core::fmt;

/// The bytes end before what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated;

impl fmt::Display for Truncated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ends too early")
    }
}

impl core::error::Error for Truncated {}

/// Bytes are left over behind what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailing;

impl fmt::Display for Trailing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("has bytes behind its end")
    }
}

impl core::error::Error for Trailing {}

/// Takes values off the front of a byte slice. A failed take leaves the cursor where it was.
#[derive(Debug, Clone)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Starts at the first of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Truncated> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    /// The next `N` bytes as an array, by reference.
    pub fn array_ref<const N: usize>(&mut self) -> Result<&'a [u8; N], Truncated> {
        let (head, tail) = self.0.split_first_chunk().ok_or(Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        self.array_ref().copied()
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        self.array().map(u8::from_be_bytes)
    }

    /// The next two bytes as a number.
    pub fn u16(&mut self) -> Result<u16, Truncated> {
        self.array().map(u16::from_be_bytes)
    }

    /// The next four bytes as a number.
    pub fn u32(&mut self) -> Result<u32, Truncated> {
        self.array().map(u32::from_be_bytes)
    }

    /// Everything that is left; the cursor is at the end afterwards.
    pub fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }

    /// How many bytes are left.
    pub const fn remaining(&self) -> usize {
        self.0.len()
    }

    /// Checks that nothing is left.
    pub const fn finish(self) -> Result<(), Trailing> {
        if self.0.is_empty() { Ok(()) } else { Err(Trailing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_values_in_order() {
        let mut reader = Reader::new(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(0x0203));
        assert_eq!(reader.u32(), Ok(0x0405_0607));
        assert_eq!(reader.array(), Ok([8]));
        assert_eq!(reader.take(1), Ok(&[9][..]));
        assert_eq!(reader.remaining(), 2);
        assert_eq!(reader.clone().finish(), Err(Trailing));
        assert_eq!(reader.rest(), [10, 11]);
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_failed_take_consumes_nothing() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u32(), Err(Truncated));
        assert_eq!(reader.take(usize::MAX), Err(Truncated));
        assert_eq!(reader.array_ref::<4>(), Err(Truncated));
        assert_eq!(reader.take(3), Ok(&[1, 2, 3][..]));
        assert_eq!(reader.u8(), Err(Truncated));
        assert_eq!(reader.take(0), Ok(&[][..]));
    }
}
