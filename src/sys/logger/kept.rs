//! The newest log lines, kept for those who ask later: `sixgate log` and the management interface.
//!
//! Lines have numbers, so that each reader knows where it has got to, and none takes from another.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use log::Level;

use super::line;
use crate::time::UnixTime;

/// A line that was logged.
#[derive(Debug, Clone)]
pub struct Line {
    /// When.
    pub time: UnixTime,
    /// How grave.
    pub level: Level,
    /// What.
    pub text: String,
}

struct Kept {
    lines: VecDeque<Line>,
    /// How many there may be.
    room: usize,
    /// The number of the next line; the first of all has 0.
    next: u64,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { lines: VecDeque::new(), room: 0, next: 0 });

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps so many of the newest lines from now on, unless it is more already.
pub fn keep_lines(count: usize) {
    let mut kept = kept();
    kept.room = kept.room.max(count);
}

/// The number that the next line will have.
pub fn next_number() -> u64 {
    kept().next
}

/// The lines from that number on, as far as they are kept, and the number to go on with.
pub fn lines_from(number: u64) -> (Vec<Line>, u64) {
    let kept = kept();
    let skip = kept.lines.len().saturating_sub(behind(kept.next, number));
    (kept.lines.iter().skip(skip).cloned().collect(), kept.next)
}

/// The answer to `sixgate log`: the number to go on with on the first line, then log lines, the
/// newest `count` of them, or all from the number `from` on.
pub fn report(from: Option<u64>, count: usize) -> String {
    let first = from.unwrap_or_else(|| next_number().saturating_sub(count as u64));
    let (lines, next) = lines_from(first);
    let mut text = format!("next {next}\n");
    lines.iter().for_each(|kept| text += &line(Some(kept.time), kept.level, &kept.text));
    text
}

fn behind(next: u64, number: u64) -> usize {
    usize::try_from(next.saturating_sub(number)).unwrap_or(usize::MAX)
}

pub(super) fn keep(time: UnixTime, level: Level, text: &str) {
    let mut kept = kept();
    if kept.room == 0 {
        return;
    }
    while kept.lines.len() >= kept.room {
        kept.lines.pop_front();
    }
    kept.lines.push_back(Line { time, level, text: text.to_owned() });
    kept.next += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test alone, as there is one ring in the process.
    #[test]
    fn every_reader_sees_the_newest_lines_once() {
        let say = |text: &str| keep(UnixTime(1_700_000_000), Level::Info, text);
        say("nobody keeps this");
        assert_eq!(next_number(), 0);
        keep_lines(3);
        keep_lines(2);
        ["a", "b", "c", "d"].into_iter().for_each(say);
        let texts = |from| lines_from(from).0.into_iter().map(|line| line.text).collect::<Vec<_>>();
        assert_eq!(texts(0), ["b", "c", "d"], "what is lost is lost");
        assert_eq!(texts(3), ["d"]);
        assert_eq!((texts(4).len(), texts(9).len()), (0, 0));
        let report = report(None, 2);
        assert!(report.starts_with("next 4\n2023-11-1") && report.ends_with(" d\n"), "{report}");
        assert_eq!(report.lines().count(), 3);
        assert_eq!(super::report(Some(4), 2), "next 4\n");
    }
}
