//! When each peer wants attention: a heap of their deadlines, in which every peer has its place.
//!
//! ```text
//! heap     peer ids; none is due before the one at half its place
//! entries  by peer id: its deadline, and where it is in the heap
//! ```
//!
//! The next deadline is at the top, and moving one costs as many steps as the number of peers has bits.
//! What a peer waits for, and whether it is really due, is the peer's business.

use crate::engine::PeerId;
use crate::time::Instant;

/// Of a peer that waits for nothing.
const NOWHERE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Entry {
    due: Instant,
    place: u32,
}

/// Of a peer that there is nothing to note of.
const NOTHING: Entry = Entry { due: Instant::ZERO, place: NOWHERE };

/// The deadlines of all peers; 20 bytes for each that there may be.
#[derive(Debug)]
pub(super) struct Agenda {
    heap: Vec<u32>,
    entries: Vec<Entry>,
}

impl Agenda {
    /// For ids below `peers`; more make it grow.
    pub(super) fn with_capacity(peers: usize) -> Self {
        Self { heap: Vec::with_capacity(peers), entries: vec![NOTHING; peers] }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.first().map(|_| self.due(0))
    }

    /// What is noted of a peer.
    pub(super) fn noted(&self, id: PeerId) -> Option<Instant> {
        let entry = self.entries.get(id.0 as usize).filter(|entry| entry.place != NOWHERE);
        entry.map(|entry| entry.due)
    }

    /// Notes when a peer wants attention, in place of what was noted before.
    pub(super) fn set(&mut self, id: PeerId, due: Option<Instant>) {
        let at = id.0 as usize;
        if at >= self.entries.len() {
            self.entries.resize(at.saturating_add(1), NOTHING);
        }
        let Some(entry) = self.entries.get_mut(at) else { return };
        match (due, entry.place) {
            (None, NOWHERE) => {}
            (None, place) => self.remove(place as usize),
            (Some(due), NOWHERE) => {
                entry.due = due;
                self.heap.push(id.0);
                self.rise(self.heap.len() - 1);
            }
            (Some(due), place) => {
                entry.due = due;
                let place = self.rise(place as usize);
                self.sink(place);
            }
        }
    }

    /// Takes out a peer that is due by now, the earliest one first.
    pub(super) fn pop(&mut self, now: Instant) -> Option<PeerId> {
        let id = *self.heap.first().filter(|_| self.due(0) <= now)?;
        self.remove(0);
        Some(PeerId(id))
    }

    fn remove(&mut self, place: usize) {
        if place >= self.heap.len() {
            return;
        }
        let gone = self.heap.swap_remove(place);
        if let Some(entry) = self.entries.get_mut(gone as usize) {
            entry.place = NOWHERE;
        }
        if place < self.heap.len() {
            let place = self.rise(place);
            self.sink(place);
        }
    }

    /// The deadline at a place, or never.
    fn due(&self, place: usize) -> Instant {
        let entry = self.heap.get(place).and_then(|id| self.entries.get(*id as usize));
        entry.map_or(Instant::from_millis(u64::MAX), |entry| entry.due)
    }

    /// Moves what is at `place` to where nothing above is later; returns where that is.
    fn rise(&mut self, mut place: usize) -> usize {
        while place > 0 && self.due(place) < self.due((place - 1) / 2) {
            self.heap.swap(place, (place - 1) / 2);
            self.note(place);
            place = (place - 1) / 2;
        }
        self.note(place);
        place
    }

    /// Moves what is at `place` to where nothing below is earlier.
    fn sink(&mut self, mut place: usize) {
        loop {
            let mut least = place;
            for below in [2 * place + 1, 2 * place + 2] {
                if below < self.heap.len() && self.due(below) < self.due(least) {
                    least = below;
                }
            }
            if least == place {
                return self.note(place);
            }
            self.heap.swap(place, least);
            self.note(place);
            place = least;
        }
    }

    /// Notes the place of what is there now.
    fn note(&mut self, place: usize) {
        let id = self.heap.get(place).copied();
        if let Some(entry) = id.and_then(|id| self.entries.get_mut(id as usize)) {
            entry.place = place as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a list that is searched from end to end.
    #[test]
    fn agrees_with_a_list_under_random_use() {
        for seed in 1..20_u64 {
            let mut state = seed;
            let mut next = move |bound: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) % bound
            };
            let peers = 1 + next(70) as usize;
            let mut agenda = Agenda::with_capacity(peers / 2);
            let mut model: Vec<Option<Instant>> = vec![None; peers];
            let mut now = 0;
            for step in 0..4000 {
                let id = next(peers as u64) as usize;
                match next(8) {
                    0 => {
                        agenda.set(PeerId(id as u32), None);
                        model[id] = None;
                    }
                    1 => {
                        now += next(30);
                        let now = Instant::from_millis(now);
                        while let Some(PeerId(id)) = agenda.pop(now) {
                            let due = model[id as usize].take();
                            assert!(due.is_some_and(|due| due <= now), "seed {seed} step {step}");
                            let earliest = model.iter().flatten().min();
                            assert!(earliest.is_none_or(|other| due.unwrap() <= *other));
                        }
                        assert!(model.iter().flatten().all(|due| *due > now));
                    }
                    _ => {
                        // Many are due at the same time.
                        let due = Instant::from_millis(now + next(40));
                        agenda.set(PeerId(id as u32), Some(due));
                        model[id] = Some(due);
                    }
                }
                assert_eq!(agenda.noted(PeerId(id as u32)), model[id]);
                let earliest = model.iter().flatten().min().copied();
                assert_eq!(agenda.next(), earliest, "seed {seed} step {step}");
            }
        }
    }
}
