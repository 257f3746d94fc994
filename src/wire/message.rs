//! Control messages: the text that follows the key exchange inside TLS [4.1, 7.1].
//!
//! ```text
//! record   PUSH_REPLY,ifconfig 10.8.0.2 255.255.255.0,peer-id 0 NUL
//!          name, then what follows the first comma; commas cannot be escaped
//! ```
//!
//! A message lies within one TLS record and ends in NUL; a record may hold several (2.6+). Which
//! messages a role heeds, and what a pushed option means, is decided elsewhere. The text comes from
//! the peer: free of control characters, but not to be trusted further.

use core::fmt;

/// A control message in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Client: send me my configuration.
    PushRequest,
    /// Server: (a part of) the configuration.
    PushReply(Options),
    /// Server: changes to the configuration; an option may have `-` and `?` in front.
    PushUpdate(Options),
    /// Server: no.
    AuthFailed(AuthFailure),
    /// Server: authentication goes on, wait for so many seconds.
    AuthPending {
        /// `timeout`, when given.
        timeout: Option<u32>,
    },
    /// Server: something for the user before the connection is up.
    InfoPre(String),
    /// Server: something for the user.
    Info(String),
    /// Client: the user's answer to a challenge, in base64.
    CrResponse(String),
    /// Server: connect again.
    Restart(Ending),
    /// Server: do not connect again.
    Halt(Ending),
    /// Either: I am leaving.
    Exit,
    /// Anything else, whole.
    Unknown(String),
}

/// What a PUSH_REPLY or PUSH_UPDATE carries.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Options in order, quoted as in a configuration file, without `push-continuation`.
    pub options: Vec<String>,
    /// Whether more messages of this kind belong to this one.
    pub continuation: Continuation,
}

/// Which part of a push this is [7.2].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Continuation {
    /// The only part.
    #[default]
    Single,
    /// More follow: `push-continuation 2`.
    More,
    /// The last of several: `push-continuation 1`.
    Last,
}

/// Why, or for how long, a client is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthFailure {
    /// For good, with a reason or an empty text.
    Denied(String),
    /// `SESSION:` the token used instead of the password is not valid any more.
    Session(String),
    /// `CRV1:` what the user must answer, as sent.
    Challenge(String),
    /// `TEMP`: not now.
    Temporary {
        /// Seconds to wait, when given.
        backoff: Option<u32>,
        /// Where to try next, when given.
        advance: Option<Advance>,
        /// For the user.
        text: String,
    },
}

/// Which server to try after a temporary failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advance {
    /// `no`: the same address.
    No,
    /// `addr`: the next address of the same name.
    Address,
    /// `remote`: the next `remote`.
    Remote,
}

/// What RESTART and HALT say besides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ending {
    /// `P`: cached credentials stay good.
    pub keep_credentials: bool,
    /// `N`: go to the next server.
    pub next_server: bool,
    /// For the user.
    pub text: String,
}

/// Why a string is not a control message. It is dropped; the session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageError {
    /// The record ends before the NUL.
    Unterminated,
    /// There is a control character inside (CVE-2024-5594).
    ControlCharacter,
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unterminated => "control message without its end",
            Self::ControlCharacter => "control character in a control message",
        })
    }
}

impl core::error::Error for MessageError {}

/// The messages in one TLS record. Trailing CR and LF of each are cut, empty ones skipped.
pub fn messages(record: &[u8]) -> impl Iterator<Item = Result<Message, MessageError>> {
    record.split_inclusive(|byte| *byte == 0).filter_map(|piece| {
        let Some(text) = piece.strip_suffix(&[0]) else {
            return Some(Err(MessageError::Unterminated));
        };
        let text = String::from_utf8_lossy(text);
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return None;
        }
        if text.contains(char::is_control) {
            return Some(Err(MessageError::ControlCharacter));
        }
        Some(Ok(Message::parse(text)))
    })
}

impl Message {
    /// Reads one message without its NUL; every text is some message.
    pub fn parse(message: &str) -> Self {
        let (name, text) = match message.split_once(',') {
            Some((name, text)) => (name, Some(text)),
            None => (message, None),
        };
        let rest = text.unwrap_or_default();
        match (name, text) {
            ("PUSH_REQUEST", None) => Self::PushRequest,
            ("PUSH_REPLY", _) => Self::PushReply(Options::parse(rest)),
            ("PUSH_UPDATE", _) => Self::PushUpdate(Options::parse(rest)),
            ("AUTH_FAILED", _) => Self::AuthFailed(AuthFailure::parse(rest)),
            ("AUTH_PENDING", _) => {
                Self::AuthPending { timeout: keyword(rest, "timeout").and_then(|n| n.parse().ok()) }
            }
            ("INFO_PRE", _) => Self::InfoPre(rest.to_owned()),
            ("INFO", _) => Self::Info(rest.to_owned()),
            ("CR_RESPONSE", _) => Self::CrResponse(rest.to_owned()),
            ("RESTART", _) => Self::Restart(Ending::parse(rest)),
            ("HALT", _) => Self::Halt(Ending::parse(rest)),
            ("EXIT", None) => Self::Exit,
            _ => Self::Unknown(message.to_owned()),
        }
    }
}

/// The message as it goes on the wire, without the NUL.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PushRequest => f.write_str("PUSH_REQUEST"),
            Self::PushReply(options) => write!(f, "PUSH_REPLY{options}"),
            Self::PushUpdate(options) => write!(f, "PUSH_UPDATE{options}"),
            Self::AuthFailed(failure) => write!(f, "AUTH_FAILED{failure}"),
            Self::AuthPending { timeout: None } => f.write_str("AUTH_PENDING"),
            Self::AuthPending { timeout: Some(seconds) } => {
                write!(f, "AUTH_PENDING,timeout {seconds}")
            }
            Self::InfoPre(text) => write!(f, "INFO_PRE,{text}"),
            Self::Info(text) => write!(f, "INFO,{text}"),
            Self::CrResponse(text) => write!(f, "CR_RESPONSE,{text}"),
            Self::Restart(ending) => write!(f, "RESTART{ending}"),
            Self::Halt(ending) => write!(f, "HALT{ending}"),
            Self::Exit => f.write_str("EXIT"),
            Self::Unknown(text) => f.write_str(text),
        }
    }
}

impl Options {
    fn parse(list: &str) -> Self {
        let mut parsed = Self::default();
        for option in list.split(',').filter(|option| !option.is_empty()) {
            match option {
                "push-continuation 1" => parsed.continuation = Continuation::Last,
                "push-continuation 2" => parsed.continuation = Continuation::More,
                _ => parsed.options.push(option.to_owned()),
            }
        }
        parsed
    }
}

/// Names only: a value may be a token that stands for a password.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.options.iter().filter_map(|option| option.split(' ').next());
        f.debug_list().entries(names).entry(&self.continuation).finish()
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for option in &self.options {
            write!(f, ",{option}")?;
        }
        match self.continuation {
            Continuation::Single => Ok(()),
            Continuation::More => f.write_str(",push-continuation 2"),
            Continuation::Last => f.write_str(",push-continuation 1"),
        }
    }
}

impl AuthFailure {
    fn parse(reason: &str) -> Self {
        if let Some(text) = reason.strip_prefix("SESSION:") {
            return Self::Session(text.to_owned());
        }
        if reason.starts_with("CRV1:") {
            return Self::Challenge(reason.to_owned());
        }
        // TEMP, TEMP:text, TEMP[flags], TEMP[flags]:text
        let temporary = reason.strip_prefix("TEMP").and_then(|rest| match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']'),
            None => Some(("", rest)),
        });
        match temporary {
            Some((flags, rest)) if rest.is_empty() || rest.starts_with(':') => Self::Temporary {
                backoff: keyword(flags, "backoff").and_then(|seconds| seconds.parse().ok()),
                advance: keyword(flags, "advance").and_then(Advance::parse),
                text: rest.get(1..).unwrap_or_default().to_owned(),
            },
            Some(_) | None => Self::Denied(reason.to_owned()),
        }
    }
}

impl fmt::Display for AuthFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(text) if text.is_empty() => Ok(()),
            Self::Denied(text) | Self::Challenge(text) => write!(f, ",{text}"),
            Self::Session(text) => write!(f, ",SESSION:{text}"),
            Self::Temporary { backoff, advance, text } => {
                f.write_str(",TEMP")?;
                match (backoff, advance) {
                    (None, None) => {}
                    (Some(seconds), None) => write!(f, "[backoff {seconds}]")?,
                    (None, Some(advance)) => write!(f, "[advance {}]", advance.word())?,
                    (Some(seconds), Some(advance)) => {
                        write!(f, "[backoff {seconds},advance {}]", advance.word())?
                    }
                }
                if text.is_empty() { Ok(()) } else { write!(f, ":{text}") }
            }
        }
    }
}

impl Advance {
    fn parse(word: &str) -> Option<Self> {
        [Self::No, Self::Address, Self::Remote].into_iter().find(|advance| advance.word() == word)
    }

    const fn word(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Address => "addr",
            Self::Remote => "remote",
        }
    }
}

impl Ending {
    fn parse(rest: &str) -> Self {
        let (flags, text) =
            rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).unwrap_or(("", rest));
        Self {
            keep_credentials: flags.contains('P'),
            next_server: flags.contains('N'),
            text: text.to_owned(),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = match (self.keep_credentials, self.next_server) {
            // A text may not pass for flags.
            (false, false) if self.text.starts_with('[') => "[]",
            (false, false) => "",
            (true, false) => "[P]",
            (false, true) => "[N]",
            (true, true) => "[PN]",
        };
        if flags.is_empty() && self.text.is_empty() {
            Ok(())
        } else {
            write!(f, ",{flags}{}", self.text)
        }
    }
}

/// The value of `name` in `name value,name value,…`.
fn keyword<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    list.split(',')
        .find_map(|entry| entry.trim().strip_prefix(name)?.strip_prefix(' '))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[&str], continuation: Continuation) -> Options {
        Options { options: list.iter().map(|&option| option.to_owned()).collect(), continuation }
    }

    #[test]
    fn every_message_survives_a_round_trip() {
        use Continuation::{Last, More, Single};
        let ending = |keep_credentials, next_server, text: &str| Ending {
            keep_credentials,
            next_server,
            text: text.into(),
        };
        let temporary = |backoff, advance, text: &str| {
            Message::AuthFailed(AuthFailure::Temporary { backoff, advance, text: text.into() })
        };
        for (text, message) in [
            ("PUSH_REQUEST", Message::PushRequest),
            ("PUSH_REPLY", Message::PushReply(Options::default())),
            (
                "PUSH_REPLY,ping 10,peer-id 0",
                Message::PushReply(options(&["ping 10", "peer-id 0"], Single)),
            ),
            (
                "PUSH_REPLY,ping 10,push-continuation 2",
                Message::PushReply(options(&["ping 10"], More)),
            ),
            ("PUSH_REPLY,push-continuation 1", Message::PushReply(options(&[], Last))),
            ("PUSH_UPDATE,-dns,?route", Message::PushUpdate(options(&["-dns", "?route"], Single))),
            ("AUTH_FAILED", Message::AuthFailed(AuthFailure::Denied(String::new()))),
            ("AUTH_FAILED,no, never", Message::AuthFailed(AuthFailure::Denied("no, never".into()))),
            ("AUTH_FAILED,SESSION:gone", Message::AuthFailed(AuthFailure::Session("gone".into()))),
            (
                "AUTH_FAILED,CRV1:R,E:Zm9v:dQ==:PIN?",
                Message::AuthFailed(AuthFailure::Challenge("CRV1:R,E:Zm9v:dQ==:PIN?".into())),
            ),
            ("AUTH_FAILED,TEMP", temporary(None, None, "")),
            ("AUTH_FAILED,TEMP:later, please", temporary(None, None, "later, please")),
            ("AUTH_FAILED,TEMP[backoff 42]", temporary(Some(42), None, "")),
            ("AUTH_FAILED,TEMP[advance addr]:x", temporary(None, Some(Advance::Address), "x")),
            (
                "AUTH_FAILED,TEMP[backoff 42,advance remote]:x",
                temporary(Some(42), Some(Advance::Remote), "x"),
            ),
            ("AUTH_PENDING", Message::AuthPending { timeout: None }),
            ("AUTH_PENDING,timeout 120", Message::AuthPending { timeout: Some(120) }),
            (
                "INFO_PRE,WEB_AUTH::https://a.example",
                Message::InfoPre("WEB_AUTH::https://a.example".into()),
            ),
            ("INFO,hello", Message::Info("hello".into())),
            ("CR_RESPONSE,Zm9v", Message::CrResponse("Zm9v".into())),
            ("RESTART", Message::Restart(Ending::default())),
            ("RESTART,[P]bye", Message::Restart(ending(true, false, "bye"))),
            ("RESTART,[][P]", Message::Restart(ending(false, false, "[P]"))),
            ("RESTART,[N]", Message::Restart(ending(false, true, ""))),
            ("HALT,[PN]closing, sorry", Message::Halt(ending(true, true, "closing, sorry"))),
            ("EXIT", Message::Exit),
            ("ACC,muon:1", Message::Unknown("ACC,muon:1".into())),
            ("PUSH_REQUEST,x", Message::Unknown("PUSH_REQUEST,x".into())),
            ("AUTH_FAILEDx", Message::Unknown("AUTH_FAILEDx".into())),
        ] {
            assert_eq!(Message::parse(text), message, "{text}");
            assert_eq!(message.to_string(), text);
        }
    }

    #[test]
    fn odd_spellings() {
        assert_eq!(Message::parse("PUSH_REPLY,"), Message::PushReply(Options::default()));
        assert_eq!(
            Message::parse("PUSH_REPLY,,a,,"),
            Message::PushReply(options(&["a"], Continuation::Single))
        );
        assert_eq!(
            Message::parse("AUTH_PENDING,later,timeout 5"),
            Message::AuthPending { timeout: Some(5) }
        );
        assert_eq!(
            Message::parse("AUTH_PENDING,timeout -5"),
            Message::AuthPending { timeout: None }
        );
        for denied in ["TEMP[backoff 1", "TEMPERATURE", "TEMP[backoff 1]x"] {
            let message = Message::parse(&format!("AUTH_FAILED,{denied}"));
            assert_eq!(message, Message::AuthFailed(AuthFailure::Denied(denied.to_owned())));
        }
        let unknown_flags = Message::parse("AUTH_FAILED,TEMP[x,backoff many,advance up]:t");
        let text = "t".to_owned();
        assert_eq!(
            unknown_flags,
            Message::AuthFailed(AuthFailure::Temporary { backoff: None, advance: None, text })
        );
        let open = Message::parse("RESTART,[P");
        assert_eq!(open.to_string(), "RESTART,[][P");
        assert_eq!(open, Message::Restart(Ending { text: "[P".to_owned(), ..Ending::default() }));
    }

    #[test]
    fn records() {
        let all = |record: &[u8]| messages(record).collect::<Vec<_>>();
        assert_eq!(all(b""), []);
        assert_eq!(all(b"PUSH_REQUEST\0"), [Ok(Message::PushRequest)]);
        assert_eq!(
            all(b"PUSH_REQUEST\r\n\n\0\0\r\n\0EXIT\0"),
            [Ok(Message::PushRequest), Ok(Message::Exit)]
        );
        assert_eq!(all(b"PUSH_REQUEST"), [Err(MessageError::Unterminated)]);
        assert_eq!(all(b"EXIT\0PUSH_REQ"), [Ok(Message::Exit), Err(MessageError::Unterminated)]);
        for bad in [
            &b"INFO,a\x1b[2J\0"[..],
            b"\nEXIT\0",
            b"EXIT\n \n\0",
            b"INFO,\x7f\0",
            "INFO,\u{9b}2J\0".as_bytes(),
        ] {
            assert_eq!(all(bad), [Err(MessageError::ControlCharacter)], "{bad:?}");
        }
        assert_eq!(all(b"INFO,\xff\0"), [Ok(Message::Info("\u{fffd}".to_owned()))]);
    }

    #[test]
    fn every_truncation_lacks_its_end() {
        let record = b"PUSH_REPLY,ping 10,ifconfig 10.8.0.2 255.255.255.0,peer-id 0\0";
        for len in 1..record.len() {
            let cut: Vec<_> = messages(record.get(..len).unwrap()).collect();
            assert_eq!(cut, [Err(MessageError::Unterminated)]);
        }
    }
}
