//! What has to be asked before a client can log in, one thing after the other.
//!
//! Whether that happens on a terminal or in a management program is the shell's business, when it is
//! necessary the engine's.

use core::fmt;

use zeroize::Zeroizing;

use crate::config::{ClientRole, StaticChallenge};
use crate::limits::MAX_CREDENTIAL;
use crate::wire::challenge::Challenge;

/// User name and password as the server is to see them.
pub type Login = (String, Zeroizing<String>);

/// What is known of a login, and what is not. Shows none of it in logs.
#[derive(Clone)]
pub struct LoginQuestion {
    /// The user name, once known.
    pub username: Option<String>,
    /// The password, once known.
    pub password: Option<Zeroizing<String>>,
    /// A second factor that goes with it (`static-challenge`).
    pub challenge: Option<StaticChallenge>,
    /// What the server has asked, which is all there is to answer.
    pub dynamic: Option<Challenge>,
}

impl fmt::Debug for LoginQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginQuestion")
    }
}

impl LoginQuestion {
    /// What a configuration leaves to be asked for; `None` if that is nothing.
    pub fn of(role: &ClientRole) -> Option<Self> {
        let (name, password) = role.credentials.as_ref()?;
        let known = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let question = Self {
            username: known(name),
            password: known(password).map(Zeroizing::new),
            challenge: role.challenge.clone(),
            dynamic: None,
        };
        question.next().is_some().then_some(question)
    }

    /// The next question, and whether the answer may be seen while it is typed.
    pub fn next(&self) -> Option<(&str, bool)> {
        match self {
            Self { dynamic: Some(challenge), .. } => Some((&challenge.text, challenge.shown)),
            Self { username: None, .. } => Some(("User name", true)),
            Self { password: None, .. } => Some(("Password", false)),
            Self { challenge: Some(challenge), .. } => Some((&challenge.text, challenge.shown)),
            Self { challenge: None, .. } => None,
        }
    }

    /// The answer to it.
    pub fn answer(&mut self, text: &str) {
        if let Some(challenge) = self.dynamic.take() {
            self.password = Some(challenge.answered(text));
            if !challenge.username.is_empty() {
                self.username = Some(challenge.username);
            }
            self.challenge = None;
        } else if self.username.is_none() {
            self.username = Some(text.to_owned());
        } else if self.password.is_none() {
            self.password = Some(Zeroizing::new(text.to_owned()));
        } else if let (Some(challenge), Some(password)) = (self.challenge.take(), &self.password) {
            self.password = Some(Zeroizing::new(challenge.answered(password, text)));
        }
    }

    /// The login, once nothing is left to ask.
    pub fn finish(self) -> Result<Login, String> {
        let (name, password) =
            (self.username.unwrap_or_default(), self.password.unwrap_or_default());
        if name.is_empty() || name.len() >= MAX_CREDENTIAL || password.len() >= MAX_CREDENTIAL {
            let most = MAX_CREDENTIAL - 1;
            return Err(format!("user name and password may have 1 to {most} bytes each"));
        }
        Ok((name, password))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str, password: &str, second: bool) -> ClientRole {
        let challenge = StaticChallenge { text: "PIN".to_owned(), shown: true, appended: true };
        ClientRole {
            credentials: Some((name.to_owned(), password.to_owned())),
            challenge: second.then_some(challenge),
            ..ClientRole::default()
        }
    }

    /// The questions, and what answering each with "x" comes to.
    fn asked(mut question: LoginQuestion) -> (Vec<String>, String, String) {
        let mut questions = Vec::new();
        while let Some((text, shown)) = question.next() {
            questions.push(format!("{text} {shown}"));
            question.answer("x");
        }
        let (name, password) = question.finish().unwrap();
        (questions, name, password.to_string())
    }

    #[test]
    fn only_what_is_missing_is_asked() {
        assert!(LoginQuestion::of(&ClientRole::default()).is_none());
        assert!(LoginQuestion::of(&role("jo", "secret", false)).is_none());
        for (role, questions, name, password) in [
            (role("", "", false), &["User name true", "Password false"][..], "x", "x"),
            (role("jo", "", false), &["Password false"], "jo", "x"),
            (role("jo", "secret", true), &["PIN true"], "jo", "secretx"),
            (role("jo", "", true), &["Password false", "PIN true"], "jo", "xx"),
        ] {
            let question = LoginQuestion::of(&role).unwrap();
            assert!(!format!("{question:?}").contains("jo"));
            let (told, as_name, as_password) = asked(question);
            assert_eq!(told, questions);
            assert_eq!((as_name.as_str(), as_password.as_str()), (name, password));
        }
    }

    #[test]
    fn a_challenge_is_all_there_is_to_answer() {
        let mut question = LoginQuestion::of(&role("jo", "", true)).unwrap();
        question.dynamic = Challenge::parse("CRV1:R:s1:Ym9i:Code");
        let expected = (vec!["Code false".to_owned()], "bob".into(), "CRV1::s1::x".into());
        assert_eq!(asked(question), expected);
    }

    #[test]
    fn what_no_server_takes_is_refused_here() {
        for (name, password) in [("", "x"), (&*"n".repeat(128), "x"), ("jo", &*"p".repeat(128))] {
            let mut question = LoginQuestion::of(&role("", "", false)).unwrap();
            question.answer(name);
            question.answer(password);
            assert!(question.finish().unwrap_err().contains("1 to 127"));
        }
    }
}
