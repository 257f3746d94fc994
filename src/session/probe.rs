//! What a peer asks inside the data channel: our options string and, when it measures the way with
//! `mtu-test`, packets of a size and the sizes of what came and went [6.4].
//!
//! ```text
//! magic(16) op(1)   0 options?          -> 1 options string, NUL
//!                   2 size(2)?          -> 3 filling, a datagram of that size
//!                   4 largest?          -> 5 received(2) sent(2)
//! ```
//!
//! An answer waits for `poll_transmit`; the latest question counts, as in OpenVPN.

use crate::buf::{Full, PacketMut};
use crate::session::data::OCC_MAGIC;
use crate::wire::mss::{DataOverhead, MssLimits};
use crate::wire::reader::Reader;

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// For our options string.
    Options,
    /// For a datagram of this size.
    Packet(u16),
    /// For the sizes of the largest datagrams.
    Largest,
}

impl Question {
    /// Reads what follows the magic; `None` for anything that is not a question.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Reader::new(bytes);
        match fields.array().ok()? {
            [0] => Some(Self::Options),
            [2] => fields.array().ok().map(u16::from_be_bytes).map(Self::Packet),
            [4] => Some(Self::Largest),
            [_] => None,
        }
    }
}

/// What there is to answer, and with what.
#[derive(Debug, Default)]
pub(super) struct Probe {
    question: Option<Question>,
    received: u16,
    sent: u16,
}

impl Probe {
    /// A genuine datagram came, of this size.
    pub(super) fn received(&mut self, len: usize) {
        self.received = self.received.max(u16::try_from(len).unwrap_or(u16::MAX));
    }

    /// One goes out.
    pub(super) fn sent(&mut self, len: usize) {
        self.sent = self.sent.max(u16::try_from(len).unwrap_or(u16::MAX));
    }

    pub(super) fn ask(&mut self, question: Question) {
        self.question = Some(question);
    }

    /// Appends the answer that is due; `None` if there is none.
    pub(super) fn answer(
        &mut self,
        options: &str,
        overhead: DataOverhead,
        out: &mut PacketMut<'_>,
    ) -> Option<Result<(), Full>> {
        let question = self.question.take()?;
        Some(self.write(question, options, overhead, out))
    }

    fn write(
        &self,
        question: Question,
        options: &str,
        overhead: DataOverhead,
        out: &mut PacketMut<'_>,
    ) -> Result<(), Full> {
        out.extend(&OCC_MAGIC)?;
        match question {
            Question::Options => {
                out.extend(&[1])?;
                out.extend(options.as_bytes())?;
                out.extend(&[0])
            }
            Question::Packet(size) => {
                out.extend(&[3])?;
                let len = usize::from(MssLimits::inner(size, overhead));
                out.push_back(len.saturating_sub(out.len())).map(|filling| filling.fill(0))
            }
            Question::Largest => {
                out.extend(&[5])?;
                out.extend(&self.received.to_be_bytes())?;
                out.extend(&self.sent.to_be_bytes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::PacketBuf;

    #[test]
    fn questions_and_what_is_none() {
        for (bytes, question) in [
            (&[0][..], Some(Question::Options)),
            (&[0, 9], Some(Question::Options)),
            (&[2, 5, 0xdc], Some(Question::Packet(1500))),
            (&[2, 5], None),
            (&[4], Some(Question::Largest)),
            (&[1, b'V'], None),
            (&[3, 0], None),
            (&[5, 0, 0, 0, 0], None),
            (&[6], None),
            (&[7], None),
            (&[], None),
        ] {
            assert_eq!(Question::parse(bytes), question, "{bytes:?}");
        }
    }

    #[test]
    fn each_question_is_answered_once() {
        let mut probe = Probe::default();
        let overhead = DataOverhead::aead(true, false);
        let answer = |probe: &mut Probe| {
            let mut buf = PacketBuf::new();
            let mut out = buf.packet();
            probe.answer("V4,x", overhead, &mut out)?.unwrap();
            assert_eq!(out.as_slice()[..16], OCC_MAGIC);
            Some(out.as_slice()[16..].to_vec())
        };
        assert_eq!(answer(&mut probe), None);
        probe.ask(Question::Options);
        assert_eq!(answer(&mut probe).unwrap(), b"\x01V4,x\0");
        assert_eq!(answer(&mut probe), None);
        for (received, sent) in [(1300, 90), (1400, 70_000), (70, 80)] {
            probe.received(received);
            probe.sent(sent);
        }
        probe.ask(Question::Largest);
        assert_eq!(answer(&mut probe).unwrap(), [5, 0x05, 0x78, 0xff, 0xff]);
        // Header, packet id and tag are added outside.
        probe.ask(Question::Packet(500));
        assert_eq!(answer(&mut probe).unwrap().len(), 500 - 24 - 16);
        probe.ask(Question::Packet(3));
        assert_eq!(answer(&mut probe).unwrap(), [3]);
        let mut memory = [0; 40];
        let mut small = PacketMut::new(&mut memory, 0, 0).unwrap();
        probe.ask(Question::Packet(500));
        assert_eq!(probe.answer("", overhead, &mut small), Some(Err(Full)));
    }
}
