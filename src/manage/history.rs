//! The newest entries of something, up to a fixed number: what `log`, `state` and `echo` show.

use std::collections::VecDeque;

/// At most `capacity` entries; the oldest go first.
#[derive(Debug)]
pub struct History<T> {
    entries: VecDeque<T>,
    capacity: usize,
}

impl<T> History<T> {
    /// Room for so many entries. Memory is taken as they come.
    pub const fn new(capacity: usize) -> Self {
        Self { entries: VecDeque::new(), capacity }
    }

    /// Adds the newest.
    pub fn push(&mut self, entry: T) {
        while self.entries.len() >= self.capacity.max(1) {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// The newest `count` entries, the oldest of them first.
    pub fn newest(&self, count: usize) -> impl Iterator<Item = &T> {
        self.entries.iter().skip(self.entries.len().saturating_sub(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest() {
        let mut history = History::new(3);
        assert_eq!(history.newest(5).count(), 0);
        (0..10).for_each(|n| history.push(n));
        assert_eq!(history.newest(usize::MAX).copied().collect::<Vec<_>>(), [7, 8, 9]);
        assert_eq!(history.newest(2).copied().collect::<Vec<_>>(), [8, 9]);
        assert_eq!(history.newest(0).count(), 0);
    }
}
