//! auth-tokens: what a client shows in place of its password once that was right [7.5].
//!
//! ```text
//! SESS_ID_AT_ base64( session id 12 ‖ first login i64 ‖ renewal i64 ‖ HMAC-SHA256 32 )
//!                                                      over user name ‖ all before
//! ```
//!
//! The server remembers none of them: whoever shows one has been given it by a server with the same
//! key. Who is asked for one, and what follows, is `login`'s business.

use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::config::hooks::TokenPolicy;
use crate::random::Random;
use crate::time::{Now, UnixTime};
use crate::wire::reader::Reader;
use crate::wire::static_key::TokenKey;

/// What every token starts with.
const PREFIX: &str = "SESS_ID_AT_";
const SESSION: usize = 12;
const SIGNED: usize = SESSION + 8 + 8;
const TAG: usize = 32;

/// A login that tokens are given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenSession {
    /// Random; the same in all of its tokens.
    pub id: [u8; SESSION],
    /// When the password was right, Unix seconds.
    pub since: u64,
    /// Its token was given to somebody without a user name, so that it proves none.
    pub nameless: bool,
}

impl TokenSession {
    /// A login that happens now.
    pub fn begin(now: UnixTime, rng: &mut dyn Random) -> Self {
        let mut id = [0; SESSION];
        rng.fill(&mut id);
        Self { id, since: now.0, nameless: false }
    }

    /// The variable `session_id`.
    pub fn name(&self) -> String {
        BASE64.encode(self.id)
    }
}

/// What a password is that looks like a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// Ours, for this user name or for none, and not too old.
    Valid(TokenSession),
    /// The same, and too old.
    Expired(TokenSession),
    /// Not ours, or another user's.
    Invalid,
}

/// Makes and checks tokens.
pub struct Tokens {
    keyed: Hmac<Sha256>,
    start: Now,
    lifetime: Duration,
    renewal: Duration,
    external: bool,
}

impl Tokens {
    /// With the configured key or a fresh one.
    pub fn new(policy: &TokenPolicy, start: Now, rng: &mut dyn Random) -> Self {
        let key = policy.secret.clone().unwrap_or_else(|| TokenKey::generate(rng));
        let TokenPolicy { lifetime, renewal, external, secret: _ } = *policy;
        Self { keyed: keyed(&key), start, lifetime, renewal, external }
    }

    /// The time that tokens are made and judged at: the wall clock's at the start, and what has gone by
    /// since. A router learns the time long after it has started, and nobody is to log in again for
    /// that.
    pub fn time(&self, now: Now) -> UnixTime {
        UnixTime(self.start.unix.0.saturating_add(now.mono.since(self.start.mono).as_secs()))
    }

    /// Goes by another policy; a random key stays unless there is a configured one now.
    pub fn change(&mut self, policy: &TokenPolicy) {
        if let Some(key) = &policy.secret {
            self.keyed = keyed(key);
        }
        (self.lifetime, self.renewal) = (policy.lifetime, policy.renewal);
        self.external = policy.external;
    }

    /// Whether the script is asked about tokens, too.
    pub const fn external(&self) -> bool {
        self.external
    }

    /// How often a client is to get a new one.
    pub const fn renewal(&self) -> Duration {
        self.renewal
    }

    /// Whether a password claims to be a token. Nobody has such a password by chance.
    pub fn is_token(password: &str) -> bool {
        password.starts_with(PREFIX)
    }

    /// A token as of now.
    pub fn issue(&self, session: TokenSession, username: &str, now: UnixTime) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(SIGNED + TAG));
        bytes.extend_from_slice(&session.id);
        bytes.extend_from_slice(&session.since.to_be_bytes());
        bytes.extend_from_slice(&now.0.to_be_bytes());
        let username = if session.nameless { "" } else { username };
        let tag = self.mac(username, &bytes).finalize().into_bytes();
        bytes.extend_from_slice(&tag);
        Zeroizing::new(format!("{PREFIX}{}", BASE64.encode(&*bytes)))
    }

    /// Checks what a client has shown in place of its password.
    pub fn check(&self, token: &str, username: &str, now: UnixTime) -> TokenState {
        let decoded = token.strip_prefix(PREFIX).and_then(|text| BASE64.decode(text).ok());
        // The length is settled before any field is read (CVE-2026-13122).
        let Some(decoded) = decoded.filter(|bytes| bytes.len() == SIGNED + TAG) else {
            return TokenState::Invalid;
        };
        let Some((signed, tag)) = decoded.split_at_checked(SIGNED) else {
            return TokenState::Invalid;
        };
        // Both in constant time.
        let by_name = self.mac(username, signed).verify_slice(tag).is_ok();
        let nameless = self.mac("", signed).verify_slice(tag).is_ok();
        if !by_name && !nameless {
            return TokenState::Invalid;
        }
        let mut fields = Reader::new(signed);
        let (Ok(id), Ok(since), Ok(renewed)) =
            (fields.array(), fields.array::<8>(), fields.array::<8>())
        else {
            return TokenState::Invalid;
        };
        let (since, renewed) = (u64::from_be_bytes(since), u64::from_be_bytes(renewed));
        if renewed < since {
            return TokenState::Invalid;
        }
        // Twice, so that a client may miss one renewal.
        let stale = now.0 > renewed.saturating_add(self.renewal.as_secs().saturating_mul(2));
        let over =
            !self.lifetime.is_zero() && now.0 > since.saturating_add(self.lifetime.as_secs());
        let session = TokenSession { id, since, nameless: !by_name };
        if stale || over { TokenState::Expired(session) } else { TokenState::Valid(session) }
    }

    fn mac(&self, username: &str, signed: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(username.as_bytes());
        mac.update(signed);
        mac
    }
}

fn keyed(key: &TokenKey) -> Hmac<Sha256> {
    // As long as the hash's block, so that the HMAC takes it as it is.
    let mut padded = Zeroizing::new([0; 64]);
    padded.iter_mut().zip(key.hmac_key()).for_each(|(place, byte)| *place = *byte);
    Hmac::new(&(*padded).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const START: Now = Now { mono: Instant::ZERO, unix: NOW };

    fn count(out: &mut [u8]) {
        for (place, value) in out.iter_mut().zip(0..) {
            *place = value;
        }
    }

    fn tokens(lifetime: u64, renewal: u64) -> Tokens {
        let seconds = Duration::from_secs;
        let policy = TokenPolicy {
            lifetime: seconds(lifetime),
            renewal: seconds(renewal),
            external: false,
            secret: None,
        };
        Tokens::new(&policy, START, &mut count)
    }

    fn later(seconds: u64) -> UnixTime {
        UnixTime(NOW.0 + seconds)
    }

    #[test]
    fn a_token_byte_for_byte() {
        let session = TokenSession::begin(NOW, &mut count);
        assert_eq!(session.name(), "AAECAwQFBgcICQoL");
        let token = tokens(0, 3600).issue(session, "jo", later(5));
        assert_eq!(token.len(), 11 + 80);
        let bytes = BASE64.decode(&token[11..]).unwrap();
        assert_eq!(bytes[..12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(bytes[12..20], NOW.0.to_be_bytes());
        assert_eq!(bytes[20..28], (NOW.0 + 5).to_be_bytes());
        // From Python: hmac.new(bytes(range(64, 96)), b"jo" + bytes[:28], "sha256").
        let tag: String = bytes[28..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(tag, "48e97103bae85e9dc6ebe1b5467b2f55a21997e39812bbaa749ad944fb73c2b3");
    }

    #[test]
    fn valid_for_its_user_or_for_none_until_it_is_too_old() {
        let tokens = tokens(1000, 300);
        let session = TokenSession::begin(NOW, &mut count);
        let token = tokens.issue(session, "jo", NOW);
        let (valid, expired) = (TokenState::Valid(session), TokenState::Expired(session));
        assert!(Tokens::is_token(&token) && !Tokens::is_token("secret"));
        assert_eq!(tokens.check(&token, "jo", NOW), valid);
        assert_eq!(tokens.check(&token, "joe", NOW), TokenState::Invalid);
        assert_eq!(tokens.check(&token, "jo", later(600)), valid);
        assert_eq!(tokens.check(&token, "jo", later(601)), expired, "not renewed");
        let token = tokens.issue(session, "jo", later(900));
        assert_eq!(tokens.check(&token, "jo", later(1000)), valid);
        assert_eq!(tokens.check(&token, "jo", later(1001)), expired, "its lifetime");
        // What was given to nobody says nothing about who shows it, and neither does what follows it.
        let nameless = TokenSession { nameless: true, ..session };
        let given = tokens.issue(session, "", NOW);
        assert_eq!(tokens.check(&given, "", NOW), valid);
        assert_eq!(tokens.check(&given, "jo", NOW), TokenState::Valid(nameless));
        let next = tokens.issue(nameless, "jo", NOW);
        assert_eq!(tokens.check(&next, "jo", NOW), TokenState::Valid(nameless));
        assert_eq!(tokens.check(&next, "jo", later(601)), TokenState::Expired(nameless));
    }

    #[test]
    fn somebody_who_sets_the_clock_makes_no_token_old() {
        let tokens = tokens(0, 300);
        for unix in [0, NOW.0, NOW.0 * 2] {
            let now = Now { mono: Instant::from_millis(5000), unix: UnixTime(unix) };
            assert_eq!(tokens.time(now), later(5));
        }
    }

    #[test]
    fn every_change_and_every_length_is_refused() {
        let tokens = tokens(0, 300);
        let session = TokenSession::begin(NOW, &mut count);
        let token = tokens.issue(session, "jo", NOW);
        for len in 0..token.len() {
            assert_eq!(tokens.check(&token[..len], "jo", NOW), TokenState::Invalid, "{len}");
        }
        let bytes = BASE64.decode(&token[PREFIX.len()..]).unwrap();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            let changed = format!("{PREFIX}{}", BASE64.encode(bytes));
            assert_eq!(tokens.check(&changed, "jo", NOW), TokenState::Invalid, "{at}");
        }
        for extra in [1, 3, 200] {
            let longer = [bytes.clone(), vec![0; extra]].concat();
            let changed = format!("{PREFIX}{}", BASE64.encode(longer));
            assert_eq!(tokens.check(&changed, "jo", NOW), TokenState::Invalid);
        }
        // Renewed before it was made: signed, and yet nothing we would make.
        let backwards = tokens.issue(session, "jo", UnixTime(NOW.0 - 1));
        assert_eq!(tokens.check(&backwards, "jo", NOW), TokenState::Invalid);
        let other = Tokens::new(
            &TokenPolicy {
                lifetime: Duration::ZERO,
                renewal: Duration::from_secs(300),
                external: false,
                secret: None,
            },
            START,
            &mut |out: &mut [u8]| out.fill(7),
        );
        assert_eq!(other.check(&token, "jo", NOW), TokenState::Invalid);
    }
}
