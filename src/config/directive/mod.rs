//! The one table of every directive that OpenVPN 2.4 to 2.7 knows, and what becomes of it here.
//!
//! The parser, `sixgate check` and the table in README.md all read this; there is no second list.
//! The rows are in one file per subject; what a [`Status::Done`] directive does is in `config::build`.

mod addresses;
mod crypto;
mod network;
mod other;
mod process;
mod tls;

use core::fmt::Write as _;

/// One directive.
#[derive(Debug, Clone, Copy)]
pub struct Directive {
    /// As written in a file, without dashes.
    pub name: &'static str,
    /// Fewest arguments.
    pub min: usize,
    /// Most arguments; [`ANY`] when there is no bound.
    pub max: usize,
    /// Where it may stand.
    pub places: Places,
    /// What becomes of it.
    pub status: Status,
    /// What it is for, in one line.
    pub help: &'static str,
}

/// No bound on the number of arguments but the reader's own.
pub const ANY: usize = 15;

/// A set of places where a directive may stand, and whether it may do so more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places(u8);

/// A server's configuration.
pub const SERVER: Places = Places(1);
/// A client's configuration.
pub const CLIENT: Places = Places(2);
/// Either role's configuration.
pub const BOTH: Places = Places(1 | 2);
/// A per-client file in `client-config-dir`.
pub const CCD: Places = Places(4);
/// What a server pushes.
pub const PUSHED: Places = Places(8);
/// A `<connection>` block.
pub const BLOCK: Places = Places(16);
/// Each further line adds to the ones before instead of replacing them.
pub const MANY: Places = Places(32);

impl Places {
    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What becomes of a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It does what it does in OpenVPN.
    Done,
    /// Accepted with a warning; the text says why nothing needs doing.
    Ignored(&'static str),
    /// An error; the text says why and what to do instead.
    Refused(&'static str),
}

/// Rows of one subject.
pub struct Group {
    /// The subject.
    pub title: &'static str,
    /// Sorted by name.
    pub rows: &'static [Directive],
}

/// Every row, subject by subject.
pub static GROUPS: [&Group; 6] = [
    &network::GROUP,
    &addresses::GROUP,
    &tls::GROUP,
    &crypto::GROUP,
    &process::GROUP,
    &other::GROUP,
];

/// All directives.
pub fn all() -> impl Iterator<Item = &'static Directive> {
    GROUPS.iter().flat_map(|group| group.rows)
}

/// The directive of this name.
pub fn find(name: &str) -> Option<&'static Directive> {
    all().find(|directive| directive.name == name)
}

/// The known name that is nearest to an unknown one, if any is near enough to be meant.
pub fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let limit = if name.len() < 5 { 1 } else { 3 };
    all()
        .map(|directive| (distance(&name, directive.name), directive.name))
        .min()
        .filter(|(distance, _)| *distance <= limit)
        .map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let width = b.len() + 1;
    // Row by row, all kept: names are short and this runs only to word an error.
    let mut cost = vec![0; (a.len() + 1) * width];
    let at =
        |cost: &[usize], i: usize, j: usize| cost.get(i * width + j).copied().unwrap_or(usize::MAX);
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            let best = if i == 0 || j == 0 {
                i + j
            } else {
                let same = a.get(i - 1) == b.get(j - 1);
                let mut best = at(&cost, i - 1, j - 1) + usize::from(!same);
                best = best.min(at(&cost, i - 1, j) + 1).min(at(&cost, i, j - 1) + 1);
                if i > 1 && j > 1 && a.get(i - 1) == b.get(j - 2) && a.get(i - 2) == b.get(j - 1) {
                    best = best.min(at(&cost, i - 2, j - 2) + 1);
                }
                best
            };
            if let Some(cell) = cost.get_mut(i * width + j) {
                *cell = best;
            }
        }
    }
    at(&cost, a.len(), b.len())
}

/// The directive table of README.md.
pub fn markdown_table() -> String {
    let count = |wanted: fn(&Status) -> bool| all().filter(|row| wanted(&row.status)).count();
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} directives: {} done, {} accepted without effect (each with a warning), {} refused (each with what to do instead).",
        all().count(),
        count(|status| matches!(status, Status::Done)),
        count(|status| matches!(status, Status::Ignored(_))),
        count(|status| matches!(status, Status::Refused(_))),
    );
    for group in GROUPS {
        let _ = writeln!(out, "\n### {}\n", group.title);
        out.push_str("| directive | where | status | what it is for |\n|---|---|---|---|\n");
        for row in group.rows {
            let status = match row.status {
                Status::Done => "**done**".to_owned(),
                Status::Ignored(why) => format!("no effect: {why}"),
                Status::Refused(why) => format!("refused: {why}"),
            };
            let cells =
                format!("| `{}` | {} | {status} | {} |", row.name, places(row.places), row.help);
            let _ = writeln!(out, "{cells}");
        }
    }
    out
}

/// The places as words, in a fixed order.
fn places(places: Places) -> String {
    let names = [(SERVER, "server"), (CLIENT, "client"), (CCD, "per client"), (PUSHED, "pushed")];
    let words: Vec<_> =
        names.iter().filter(|(place, _)| places.contains(*place)).map(|(_, word)| *word).collect();
    words.join(", ")
}

/// Rows written as `"name", min, max, places, status, "help";`.
macro_rules! rows {
    ($title:literal; $($name:literal, $min:expr, $max:expr, [$($place:ident)+], $status:expr, $help:literal;)+) => {
        use super::{Directive, Group, Status::*, *};

        /// This subject's rows.
        pub(super) static GROUP: Group = Group {
            title: $title,
            rows: &[$(Directive {
                name: $name,
                min: $min,
                max: $max,
                places: Places(0)$(.and($place))+,
                status: $status,
                help: $help,
            },)+],
        };
    };
}
use rows;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_sorted_in_their_group() {
        for group in GROUPS {
            assert!(group.rows.is_sorted_by_key(|row| row.name), "{}", group.title);
        }
        let mut names: Vec<_> = all().map(|row| row.name).collect();
        names.sort_unstable();
        let unique = names.windows(2).find(|pair| pair.first() == pair.last());
        assert_eq!(unique, None);
    }

    #[test]
    fn rows_are_sensible() {
        for row in all() {
            assert!(row.min <= row.max && row.max <= ANY, "{}", row.name);
            assert!(!row.help.is_empty() && !row.help.contains('|'), "{}", row.name);
            match row.status {
                Status::Done => {}
                Status::Ignored(why) | Status::Refused(why) => {
                    assert!(
                        why.len() > 10 && !why.contains('|') && !why.ends_with('.'),
                        "{}",
                        row.name
                    );
                }
            }
        }
    }

    #[test]
    fn near_names() {
        assert_eq!(nearest("sever"), Some("server"));
        assert_eq!(nearest("server_ipv6"), Some("server-ipv6"));
        assert_eq!(nearest("keepalvie"), Some("keepalive"));
        assert_eq!(nearest("tls-cyrpt"), Some("tls-crypt"));
        assert_eq!(nearest("Remote"), Some("remote"));
        assert_eq!(nearest("frobnicate-all"), None);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    /// The names that OpenVPN's option parser compares with, releases 2.4 to 2.7 together.
    #[test]
    fn every_openvpn_directive_is_known() {
        let names = include_str!("../../../tests/vectors/openvpn-directives.txt");
        for name in names.lines().filter(|line| !line.starts_with('#')) {
            assert!(find(name).is_some(), "{name}");
        }
    }
}
