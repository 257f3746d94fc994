//! The source of randomness as the engines see it: an argument, so that a test repeats from a seed.
//!
//! The operating system's generator is behind `sys::clock::OsRandom`; TLS draws its own from ring.

/// Something that fills buffers with unpredictable bytes.
pub trait Random {
    /// Overwrites all of `out`.
    fn fill(&mut self, out: &mut [u8]);

    /// A uniformly distributed value in `0..bound` (bias below 2^-32); 0 when `bound` is 0.
    fn below(&mut self, bound: u32) -> u32 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_be_bytes(bytes).checked_rem(u64::from(bound)).unwrap_or(0) as u32
    }
}

impl<F: FnMut(&mut [u8])> Random for F {
    fn fill(&mut self, out: &mut [u8]) {
        self(out);
    }
}
