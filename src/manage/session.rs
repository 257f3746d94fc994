//! One connection to the management interface: bytes to lines, password, answers that wait to be
//! sent, and which notifications are wanted. What lines mean is the console's business.
//!
//! Everything is bounded. Of input there is at most [`MAX_INPUT`]; notifications that find
//! [`MAX_OUTPUT`] bytes waiting are left out, and as long as so much waits no further line is
//! looked at, so that memory ends at that and one answer.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::approval::Given;
use crate::time::Instant;

/// Longest line; of a longer one only the end remains, as in OpenVPN.
const MAX_LINE: usize = 1024;
/// Unread bytes held at most.
pub const MAX_INPUT: usize = 2048;
/// Unsent bytes at which nothing is added but the answer under way.
pub const MAX_OUTPUT: usize = 64 << 10;
/// Wrong passwords until the connection is closed.
const PASSWORD_TRIES: u8 = 3;

/// State of one connection.
#[derive(Debug, Default)]
pub struct Session {
    input: Vec<u8>,
    output: Vec<u8>,
    /// The password is still to be given.
    locked: bool,
    tries: u8,
    /// Nothing more is read; what waits is still sent.
    pub(super) closing: bool,
    /// `log on`.
    pub(super) log: bool,
    /// `state on`.
    pub(super) state: bool,
    /// `echo on`.
    pub(super) echo: bool,
    /// `bytecount`: seconds between reports and when the next is due.
    pub(super) bytecount: Option<(u32, Instant)>,
    /// What was reported for each client last.
    pub(super) counted: Vec<(u64, u64, u64)>,
    /// Inside the lines that follow `client-auth`, up to `END`.
    pub(super) given: Option<Given>,
}

impl Session {
    /// A connection that has to give a password first, or not.
    pub(super) fn new(locked: bool) -> Self {
        let mut session = Self { locked, ..Self::default() };
        session.prompt();
        session
    }

    /// How many bytes `input` takes at the moment.
    pub(super) const fn room(&self) -> usize {
        if self.closing { 0 } else { MAX_INPUT.saturating_sub(self.input.len()) }
    }

    /// Takes bytes, at most [`Self::room`]; others are lost. Only what can be printed counts.
    pub(super) fn input(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(..self.room()).unwrap_or(bytes);
        self.input.extend(bytes.iter().filter(|byte| matches!(byte, b' '..=b'~' | b'\n')));
        // A line that is too long is cut by whole buffers, whatever pieces it came in.
        while self.line_end().is_none() && self.input.len() > MAX_LINE {
            self.input.drain(..=MAX_LINE);
        }
    }

    fn line_end(&self) -> Option<usize> {
        self.input.iter().position(|byte| *byte == b'\n')
    }

    /// Whether there is a line to be answered.
    pub(super) fn has_line(&self) -> bool {
        !self.closing && self.output.len() < MAX_OUTPUT && self.line_end().is_some()
    }

    /// The next line without its end.
    pub(super) fn next_line(&mut self) -> Option<String> {
        if !self.has_line() {
            return None;
        }
        let line: Vec<u8> = self.input.drain(..=self.line_end()?).collect();
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let cut = line.len() - line.len() % (MAX_LINE + 1);
        let line = line.get(cut..).unwrap_or_default();
        Some(String::from_utf8_lossy(line).into_owned())
    }

    /// Whether the password is still to be given.
    pub(super) const fn is_locked(&self) -> bool {
        self.locked
    }

    /// Compares a password; true when it opens the connection.
    pub(super) fn unlock(&mut self, line: &str, password: &str) -> bool {
        if is_same(line, password) {
            self.locked = false;
            return true;
        }
        self.tries += 1;
        if self.tries >= PASSWORD_TRIES {
            log::warn!("management: connection closed after {PASSWORD_TRIES} wrong passwords");
            self.closing = true;
        } else {
            self.prompt();
        }
        false
    }

    /// Without an end of line. (OpenVPN keeps its `ERROR: bad password` to itself.)
    fn prompt(&mut self) {
        if self.locked {
            self.output.extend_from_slice(b"ENTER PASSWORD:");
        }
    }

    /// Adds lines to the answer.
    pub(super) fn answer(&mut self, text: &str) {
        for line in text.lines() {
            self.output.extend_from_slice(line.as_bytes());
            self.output.extend_from_slice(b"\r\n");
        }
    }

    /// Adds lines that nobody asked for, if there is room.
    pub(super) fn notify(&mut self, text: &str) {
        if !self.locked && !self.closing && self.output.len() < MAX_OUTPUT {
            self.answer(text);
        }
    }

    /// What is to be sent.
    pub(super) fn output(&self) -> &[u8] {
        &self.output
    }

    /// So many bytes have been sent.
    pub(super) fn sent(&mut self, count: usize) {
        self.output.drain(..count.min(self.output.len()));
    }
}

/// Compares in a time that depends on the lengths only.
fn is_same(a: &str, b: &str) -> bool {
    let tag = |text: &str| {
        let mac = Hmac::<Sha256>::new_from_slice(b"management password").ok()?;
        Some(mac.chain_update(text))
    };
    let (Some(a), Some(b)) = (tag(a), tag(b)) else { return false };
    a.verify(&b.finalize().into_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that come out of these bytes, given in pieces of this size.
    fn lines(bytes: &[u8], piece: usize) -> Vec<String> {
        let mut session = Session::new(false);
        let mut found = Vec::new();
        for chunk in bytes.chunks(piece) {
            session.input(chunk);
            while let Some(line) = session.next_line() {
                found.push(line);
            }
        }
        found
    }

    #[test]
    fn pieces_make_no_difference_and_memory_ends() {
        let mut bytes = b"one\r\n\n\x00two\xff\tx\n".to_vec();
        bytes.extend([b'x'; 1024]);
        bytes.extend(b"\n");
        bytes.extend([b'y'; 1025]);
        bytes.extend(b"end\n");
        bytes.extend([b'z'; 5000]);
        bytes.extend(b"\nlast\nopen");
        let whole = lines(&bytes, 500);
        assert_eq!(whole.first().map(String::as_str), Some("one"));
        assert_eq!(whole.get(1..3), Some(&["".to_owned(), "twox".to_owned()][..]));
        assert_eq!(whole.get(3).map(String::len), Some(1024));
        assert_eq!(whole.get(4).map(String::as_str), Some("end"));
        assert_eq!(whole.get(5).map(String::len), Some(5000 % 1025));
        assert_eq!(whole.get(6..), Some(&["last".to_owned()][..]));
        for piece in 1..500 {
            assert_eq!(lines(&bytes, piece), whole, "{piece}");
        }
        let mut session = Session::new(false);
        session.input(&[b'\n'; 10_000]);
        assert_eq!(session.room(), 0);
    }

    #[test]
    fn three_wrong_passwords_close() {
        let mut session = Session::new(true);
        assert!(!session.unlock("", "secret") && !session.unlock("secret2", "secret"));
        assert!(!session.closing);
        assert!(!session.unlock("x", "secret") && session.closing);
        assert_eq!(session.output(), b"ENTER PASSWORD:".repeat(3));
        session.notify("x");
        session.input(b"pid\n");
        assert_eq!((session.output().len(), session.next_line()), (45, None));
    }

    #[test]
    fn who_does_not_read_is_told_nothing_more() {
        let mut session = Session::new(false);
        session.input(b"pid\n");
        let line = "x".repeat(998);
        (0..1000).for_each(|_| session.notify(&line));
        assert_eq!(session.output().len(), MAX_OUTPUT.next_multiple_of(1000));
        assert_eq!(session.next_line(), None, "no answer either");
        session.sent(2000);
        assert_eq!(session.next_line().as_deref(), Some("pid"));
    }
}
