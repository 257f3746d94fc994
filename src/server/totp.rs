//! One-time codes of an authenticator app, after RFC 6238: what a client's `totp` line asks for.
//!
//! ```text
//! step  = Unix time / 30                       (RFC 6238, 4.2)
//! code  = Truncate(HMAC-SHA-1(secret, step))   6 digits (RFC 4226, 5.3)
//! ```
//!
//! A code is good for its own step and the one beside it on either side, as clocks differ, and once
//! only. Who guesses is stopped after a few tries, which does not need to be secret: whoever gets
//! here has shown the client's certificate already. The answer comes with the password:
//!
//! ```text
//! SCRV1:base64(password):base64(code)   `static-challenge` in the client's profile
//! CRV1::state::code                     the answer to our AUTH_FAILED,CRV1:R,E:state:base64(user):text
//! code                                  typed as the password
//! ```
//!
//! `state` is a token (see `token`) under a name that no user can have: what it says is that the rest
//! of the login was all right, and so it is not checked a second time.

use core::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use zeroize::Zeroizing;

use crate::config::totp::TotpSecret;
use crate::server::token::TokenSession;
use crate::sorted::SortedMap;
use crate::time::{Instant, UnixTime};

/// A time step in seconds (RFC 6238, 4.1).
const STEP: u64 = 30;
/// Digits of a code.
const DIGITS: usize = 6;
/// Steps on either side that are accepted, too (RFC 6238, 5.2).
const TOLERANCE: u64 = 1;
/// Wrong codes of one client within [`TRIES_TIME`], after which none is looked at.
const TRIES: u32 = 5;
const TRIES_TIME: Duration = Duration::from_secs(300);

/// The code of a step.
fn code(secret: &TotpSecret, step: u64) -> Zeroizing<String> {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret.as_bytes()) else {
        return Zeroizing::default();
    };
    mac.update(&step.to_be_bytes());
    let digest = mac.finalize().into_bytes();
    let offset = usize::from(digest.last().copied().unwrap_or(0) & 0x0f);
    let word =
        digest.iter().skip(offset).take(4).fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
    Zeroizing::new(format!("{:0DIGITS$}", (word & 0x7fff_ffff) % 10u32.pow(DIGITS as u32)))
}

/// What is known of one client's codes.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// The step of the last code that was accepted: neither it nor an earlier one counts again.
    used: u64,
    wrong: u32,
    /// When the first of the wrong ones came.
    since: Instant,
    /// The login that its last code has begun.
    session: Option<TokenSession>,
}

/// Why a client is not let in by its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It has sent none.
    Missing,
    /// It is not one of this time.
    Wrong,
    /// It has been used.
    Used,
    /// Too many wrong ones: wait.
    TooMany,
    /// Our clock is not set.
    NoClock,
}

impl Fault {
    /// For the log, and for the client's user.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "a one-time code is needed",
            Self::Wrong => "the one-time code is wrong",
            Self::Used => "the one-time code has been used; wait for the next one",
            Self::TooMany => "too many wrong one-time codes; try again in five minutes",
            Self::NoClock => {
                "one-time codes cannot be checked: the server's clock is not set yet; try again later"
            }
        }
    }
}

/// The codes of all clients; only those that need one have an entry.
#[derive(Debug, Default)]
pub struct Codes(SortedMap<String, Known>);

impl Codes {
    /// Checks a client's code, which is used up then.
    pub fn check(
        &mut self,
        (mono, unix): (Instant, UnixTime),
        name: &str,
        secret: &TotpSecret,
        given: &str,
    ) -> Result<(), Fault> {
        if unix < UnixTime::EARLIEST {
            return Err(Fault::NoClock);
        }
        let now = unix.0 / STEP;
        let known = self.0.get_or_default(name.to_owned());
        if mono.since(known.since) >= TRIES_TIME {
            known.wrong = 0;
        }
        if known.wrong >= TRIES {
            return Err(Fault::TooMany);
        }
        let steps = now.saturating_sub(TOLERANCE)..=now + TOLERANCE;
        match steps.into_iter().find(|step| same(&code(secret, *step), given.trim())) {
            Some(step) if step <= known.used => Err(Fault::Used),
            Some(step) => {
                known.used = step;
                known.wrong = 0;
                Ok(())
            }
            None => {
                if known.wrong == 0 {
                    known.since = mono;
                }
                known.wrong += 1;
                Err(Fault::Wrong)
            }
        }
    }
}

impl Codes {
    /// A client's code has begun this login.
    pub fn begin(&mut self, name: &str, session: TokenSession) {
        self.0.get_or_default(name.to_owned()).session = Some(session);
    }

    /// Whether this login is the one that the client's last code has begun. Tokens alone do not tell,
    /// as they are for a user name, and for clients that needed no code, too.
    pub fn is_of(&self, name: &str, session: TokenSession) -> bool {
        self.0.get(&name.to_owned()).is_some_and(|known| known.session == Some(session))
    }
}

/// Compares without telling by the time it takes where the difference is.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// How the code came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Beside the password.
    Code(Zeroizing<String>),
    /// A password that looks like one.
    Bare(Zeroizing<String>),
    /// As the answer to our question; the state says who was asked.
    Challenge {
        /// What we sent along.
        state: String,
        /// The code.
        code: Zeroizing<String>,
    },
    /// There is none.
    None,
}

impl Answer {
    /// Takes a password apart.
    pub fn read(password: &str) -> Self {
        let decode = |text: &str| {
            let bytes = Zeroizing::new(BASE64_STANDARD.decode(text).ok()?);
            Some(Zeroizing::new(core::str::from_utf8(&bytes).ok()?.to_owned()))
        };
        if let Some(rest) = password.strip_prefix("SCRV1:") {
            let code = rest.split_once(':').and_then(|(_, code)| decode(code));
            return code.filter(|code| !code.is_empty()).map_or(Self::None, Self::Code);
        }
        if let Some(rest) = password.strip_prefix("CRV1::") {
            return match rest.split_once("::") {
                Some((state, code)) => {
                    let code = Zeroizing::new(code.to_owned());
                    Self::Challenge { state: state.to_owned(), code }
                }
                None => Self::None,
            };
        }
        let trimmed = password.trim();
        if trimmed.len() == DIGITS && trimmed.bytes().all(|byte| byte.is_ascii_digit()) {
            return Self::Bare(Zeroizing::new(trimmed.to_owned()));
        }
        Self::None
    }
}

/// The text that follows AUTH_FAILED, and asks for the code.
pub fn challenge(state: &str, username: &str) -> String {
    let user = BASE64_STANDARD.encode(username);
    format!("CRV1:R,E:{state}:{user}:Code of the authenticator app")
}

/// The name under which a challenge's state is signed. Control characters in what peers send are
/// replaced before anybody looks at it, so that no user has this name.
pub fn state_name(name: &str) -> String {
    format!("\u{1}challenge\u{1}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> TotpSecret {
        TotpSecret::parse(text).unwrap()
    }

    /// "12345678901234567890", the secret of the RFCs' test vectors.
    const RFC: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    #[test]
    fn the_vectors_of_the_rfcs() {
        // RFC 4226, appendix D.
        let hotp = [
            "755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583",
            "399871", "520489",
        ];
        for (count, expected) in (0..).zip(hotp) {
            assert_eq!(*code(&secret(RFC), count), expected);
        }
        // RFC 6238, appendix B, SHA-1; the last six of its eight digits.
        for (time, expected) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(*code(&secret(RFC), time / STEP), expected, "{time}");
        }
    }

    const NOW: u64 = 2_000_000_010;

    fn at(seconds: u64) -> (Instant, UnixTime) {
        (Instant::from_millis((seconds + 1000) * 1000), UnixTime(NOW + seconds))
    }

    fn of(seconds: u64) -> Zeroizing<String> {
        code(&secret(RFC), (NOW + seconds) / STEP)
    }

    #[test]
    fn one_step_of_tolerance_and_no_code_twice() {
        let mut codes = Codes::default();
        let key = secret(RFC);
        let mut check =
            |seconds, name: &str, text: &str| codes.check(at(seconds), name, &key, text);
        assert_eq!(check(0, "a", &of(0)), Ok(()));
        assert_eq!(check(0, "a", &of(0)), Err(Fault::Used), "a replay");
        assert_eq!(check(0, "b", &of(0)), Ok(()), "somebody else's");
        assert_eq!(check(29, "a", &of(0)), Err(Fault::Used));
        assert_eq!(check(30, "c", &of(0)), Ok(()), "one step late");
        assert_eq!(check(60, "d", &of(0)), Err(Fault::Wrong), "two steps late");
        assert_eq!(check(60, "e", &of(90)), Ok(()), "one step early");
        assert_eq!(check(90, "e", &of(90)), Err(Fault::Used));
        assert_eq!(check(90, "e", &of(60)), Err(Fault::Used), "older than the last one");
        assert_eq!(check(90, "f", &of(150)), Err(Fault::Wrong));
        for bad in ["", "1", "abcdef", "0000000"] {
            assert_eq!(check(100, bad, bad), Err(Fault::Wrong));
        }
    }

    #[test]
    fn guessing_is_stopped_for_a_while() {
        let mut codes = Codes::default();
        let key = secret(RFC);
        for _ in 0..TRIES {
            assert_eq!(codes.check(at(0), "a", &key, "000000"), Err(Fault::Wrong));
        }
        assert_eq!(codes.check(at(1), "a", &key, &of(0)), Err(Fault::TooMany));
        assert_eq!(codes.check(at(1), "b", &key, &of(0)), Ok(()));
        assert_eq!(codes.check(at(299), "a", &key, &of(299)), Err(Fault::TooMany));
        assert_eq!(codes.check(at(300), "a", &key, &of(300)), Ok(()));
    }

    #[test]
    fn a_clock_that_is_not_set_is_said_to_be() {
        let now = (Instant::ZERO, UnixTime(1000));
        let given = code(&secret(RFC), 1000 / STEP);
        assert_eq!(Codes::default().check(now, "a", &secret(RFC), &given), Err(Fault::NoClock));
    }

    #[test]
    fn answers_are_taken_apart() {
        let code = |text: &str| Answer::Code(Zeroizing::new(text.to_owned()));
        assert_eq!(Answer::read("SCRV1:c2VjcmV0:MTIzNDU2"), code("123456"));
        let bare = Answer::Bare(Zeroizing::new("123456".to_owned()));
        assert_eq!(Answer::read("123456"), bare);
        assert_eq!(Answer::read(" 123456_"), Answer::None);
        assert_eq!(Answer::read(" 123456 "), bare);
        let challenge =
            Answer::Challenge { state: "S+/=".into(), code: Zeroizing::new("123456".into()) };
        assert_eq!(Answer::read("CRV1::S+/=::123456"), challenge);
        for none in
            ["", "secret", "12345", "1234567", "SCRV1:", "SCRV1:c2VjcmV0:", "SCRV1:a:!", "CRV1::x"]
        {
            assert_eq!(Answer::read(none), Answer::None, "{none}");
        }
        let asked = super::challenge("STATE", "anna");
        assert_eq!(asked, "CRV1:R,E:STATE:YW5uYQ==:Code of the authenticator app");
    }
}
