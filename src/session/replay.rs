//! Replay protection: which packet ids have been seen [2.2, 6.6].
//!
//! A ring of bit blocks after RFC 6479: moving forward clears whole blocks instead of shifting the
//! bitmap. The order is the caller's duty and the same everywhere: a cheap [`ReplayWindow::check`]
//! first, then authentication, and only then [`ReplayWindow::mark`], so that a forged id can never
//! push genuine packets out of the window.
//!
//! Stock OpenVPN also expires ids that are older than 15 seconds; a packet that late and still
//! inside the window is delivered here, as IP allows.

use crate::limits::REPLAY_WINDOW;

/// The window of a data channel key: `REPLAY_WINDOW` ids.
pub type DataWindow = ReplayWindow<{ REPLAY_WINDOW / BLOCK as usize + 1 }>;

/// Bits in one block. 32, so that routers without 64-bit registers work in their own word size.
const BLOCK: u64 = u32::BITS as u64;

/// The packet id is zero, was seen before, or has fallen out of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed;

/// Remembers the last `(BLOCKS - 1) * 32` packet ids below the highest one seen, in some `4 * BLOCKS`
/// bytes: one block is always partly ahead of the highest id and cannot be counted on.
#[derive(Debug, Clone)]
pub struct ReplayWindow<const BLOCKS: usize> {
    highest: u64,
    /// Where the block of `highest` is. Kept, as finding it would be a division of 64 bits for each packet.
    newest: u32,
    seen: [u32; BLOCKS],
}

impl<const BLOCKS: usize> Default for ReplayWindow<BLOCKS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const BLOCKS: usize> ReplayWindow<BLOCKS> {
    /// How many ids below and including the highest are told apart.
    pub const SIZE: u64 = (BLOCKS as u64 - 1) * BLOCK;

    /// A window that has seen nothing.
    pub const fn new() -> Self {
        const { assert!(BLOCKS >= 2) }
        Self { highest: 0, newest: 0, seen: [0; BLOCKS] }
    }

    /// The highest id marked so far; 0 when none was.
    pub const fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether `id` may be new. Changes nothing: the packet is not authenticated yet.
    #[inline(always)]
    pub fn check(&self, id: u64) -> Result<(), Replayed> {
        if id > self.highest {
            return Ok(());
        }
        if id == 0 || self.highest - id >= Self::SIZE {
            return Err(Replayed);
        }
        match self.seen.get(self.block(id)) {
            Some(block) if block & Self::bit(id) == 0 => Ok(()),
            Some(_) | None => Err(Replayed),
        }
    }

    /// Records `id`, which `check` let pass and whose packet has authenticated since.
    #[inline(always)]
    pub fn mark(&mut self, id: u64) {
        let mut at = self.newest as usize;
        if id > self.highest {
            // Blocks between the old and the new highest id hold stale bits of one turn before. After a
            // whole turn all of them are clear, and it does not matter which one comes next.
            for _ in 0..(id / BLOCK - self.highest / BLOCK).min(BLOCKS as u64) {
                at = if at + 1 < BLOCKS { at + 1 } else { 0 };
                if let Some(block) = self.seen.get_mut(at) {
                    *block = 0;
                }
            }
            (self.highest, self.newest) = (id, at as u32);
        } else {
            at = self.block(id);
        }
        if let Some(block) = self.seen.get_mut(at) {
            *block |= Self::bit(id);
        }
    }

    /// Where the block of an `id` within the window is.
    const fn block(&self, id: u64) -> usize {
        let back = (self.highest / BLOCK - id / BLOCK) as usize;
        match (self.newest as usize).checked_sub(back) {
            Some(at) => at,
            None => (self.newest as usize + BLOCKS).saturating_sub(back),
        }
    }

    const fn bit(id: u64) -> u32 {
        1 << (id as u32 % u32::BITS)
    }
}

/// The window of a control channel wrap: 64 ids at one time, a newer time starts afresh [2.2].
#[derive(Debug, Clone, Default)]
pub struct ControlWindow {
    time: Option<u32>,
    ids: ReplayWindow<3>,
}

impl ControlWindow {
    /// Whether a packet with this id and sender's time may be new. Changes nothing.
    pub fn check(&self, time: u32, id: u32) -> Result<(), Replayed> {
        match self.time {
            Some(newest) if time < newest => Err(Replayed),
            Some(newest) if time == newest => self.ids.check(u64::from(id)),
            Some(_) | None if id == 0 => Err(Replayed),
            Some(_) | None => Ok(()),
        }
    }

    /// Records a packet that `check` let pass and that has authenticated since.
    pub fn mark(&mut self, time: u32, id: u32) {
        if self.time != Some(time) {
            *self = Self { time: Some(time), ids: ReplayWindow::new() };
        }
        self.ids.mark(u64::from(id));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// xorshift64*: repeatable, good enough to pick test ids.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
        }
    }

    /// Every id ever marked, and the rule of section 6.6 word for word.
    #[derive(Default)]
    struct Model(BTreeSet<u64>);

    impl Model {
        fn check(&self, id: u64, size: u64) -> bool {
            let highest = self.0.last().copied().unwrap_or(0);
            id != 0 && !self.0.contains(&id) && (id > highest || highest - id < size)
        }
    }

    fn agrees_with_model<const BLOCKS: usize>(start: u64, seed: u64) {
        let mut window = ReplayWindow::<BLOCKS>::new();
        let size = ReplayWindow::<BLOCKS>::SIZE;
        let mut model = Model::default();
        let mut dice = Dice(seed);
        let mut around = start;
        for step in 0..30_000 {
            let id = match dice.roll(100) {
                0 => around + dice.roll(3 * size + 64),
                1..=9 => around + dice.roll(40),
                10..=30 => around + 1,
                _ => around.saturating_sub(dice.roll(size + size / 8)),
            };
            let fresh = window.check(id).is_ok();
            assert_eq!(fresh, model.check(id, size), "seed {seed} step {step} id {id}");
            if fresh && dice.roll(10) != 0 {
                window.mark(id);
                model.0.insert(id);
                around = around.max(id);
            }
        }
        assert_eq!(window.highest(), model.0.last().copied().unwrap_or(0));
    }

    #[test]
    fn agrees_with_a_model_that_remembers_everything() {
        for seed in 1..4 {
            agrees_with_model::<2>(0, seed);
            agrees_with_model::<3>(0, seed);
            agrees_with_model::<33>(0, seed);
            agrees_with_model::<33>(u64::from(u32::MAX) - 500, seed);
        }
    }

    #[test]
    fn data_window_is_as_long_as_the_limit_says() {
        assert_eq!(DataWindow::SIZE, REPLAY_WINDOW as u64);
        assert_eq!(ReplayWindow::<3>::SIZE, 64);
    }

    #[test]
    fn refuses_zero_duplicates_and_what_fell_out() {
        let mut window = ReplayWindow::<3>::new();
        assert_eq!(window.check(0), Err(Replayed));
        window.mark(1);
        assert_eq!(window.check(1), Err(Replayed));
        window.mark(65);
        assert_eq!(window.check(1), Err(Replayed));
        assert_eq!(window.check(2), Ok(()));
        window.mark(66);
        assert_eq!(window.check(2), Err(Replayed));
    }

    #[test]
    fn checking_does_not_move_the_window() {
        let mut window = ReplayWindow::<3>::new();
        window.mark(5);
        assert_eq!(window.check(u64::MAX), Ok(()));
        assert_eq!(window.check(4), Ok(()));
        window.mark(u64::MAX);
        assert_eq!(window.check(u64::MAX), Err(Replayed));
        assert_eq!(window.check(u64::MAX - 63), Ok(()));
        assert_eq!(window.check(u64::MAX - 64), Err(Replayed));
    }

    /// The cases of the reference's `test_packet_id.c` for the long form: ids 1 apart are taken
    /// once, a newer time starts over, an older time is refused.
    #[test]
    fn control_window_orders_by_time_then_id() {
        let mut window = ControlWindow::default();
        assert_eq!(window.check(0, 0), Err(Replayed));
        assert_eq!(window.check(0, 1), Ok(()));
        window.mark(0, 1);
        assert_eq!(window.check(0, 1), Err(Replayed));
        assert_eq!(window.check(100, 0), Err(Replayed));
        window.mark(100, 0x0f00_0001);
        assert_eq!(window.check(100, 0x0f00_0001), Err(Replayed));
        assert_eq!(window.check(100, 0x0f00_0000), Ok(()));
        assert_eq!(window.check(99, 0x0f00_0002), Err(Replayed));
        assert_eq!(window.check(101, 1), Ok(()));
        window.mark(101, 1);
        assert_eq!(window.check(100, 0x0f00_0002), Err(Replayed));
        assert_eq!(window.check(101, 1), Err(Replayed));
    }
}
