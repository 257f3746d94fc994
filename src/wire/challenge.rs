//! A dynamic challenge: a refusal that asks for an answer (AUTH_FAILED with CRV1) \[7.5\].
//!
//! ```text
//! CRV1 : flags : state : base64(user name) : text      flags: R (an answer is wanted), E (it may be seen)
//! CRV1 : : state : : answer                            in place of the password, the next time
//! ```

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

/// What the server asks, and what it wants to see again beside the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Goes with the answer; empty where the server leaves it open.
    pub username: String,
    /// The question.
    pub text: String,
    /// Whether the answer may be seen while it is typed.
    pub shown: bool,
    state: String,
}

impl Challenge {
    /// Reads the reason of a refusal; `None` if it is no challenge.
    pub fn parse(reason: &str) -> Option<Self> {
        let mut fields = reason.strip_prefix("CRV1:")?.splitn(4, ':');
        let (flags, state, name, text) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let username = String::from_utf8(BASE64_STANDARD.decode(name).ok()?).ok()?;
        let shown = flags.split(',').any(|flag| flag == "E");
        Some(Self { username, text: text.to_owned(), shown, state: state.to_owned() })
    }

    /// What goes to the server in place of the password.
    pub fn answered(&self, answer: &str) -> Zeroizing<String> {
        Zeroizing::new(format!("CRV1::{}::{answer}", self.state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_taken_apart_and_answered() {
        let challenge =
            Challenge::parse("CRV1:R,E:Om01u7Fh4LrGBS7uh0SWmzwabUiGiW6l:Y3Ix:Please: enter");
        let challenge = challenge.unwrap();
        assert_eq!(
            (challenge.username.as_str(), challenge.text.as_str()),
            ("cr1", "Please: enter")
        );
        assert!(challenge.shown);
        let answer = challenge.answered("8675309");
        assert_eq!(*answer, "CRV1::Om01u7Fh4LrGBS7uh0SWmzwabUiGiW6l::8675309");
        assert!(!Challenge::parse("CRV1:R:x:Y3Ix:").unwrap().shown);
        for broken in
            ["", "CRV1:", "CRV1:R,E:state", "CRV1:R,E:state:Y3Ix", "CRV1:R:s:?:x", "crv1:R:s::x"]
        {
            assert_eq!(Challenge::parse(broken), None, "{broken}");
        }
    }
}
