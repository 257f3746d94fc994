//! What goes with a client's user name and password: `static-challenge`, a second factor that is asked for
//! together with them, and `auth-retry` [7.5, 10.1].

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// What a client does when the server refuses it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AuthRetry {
    /// It ends.
    #[default]
    No,
    /// It tries again.
    Again,
    /// It asks for user name and password again, if they were asked for.
    Interact,
}

/// `static-challenge`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticChallenge {
    /// The question.
    pub text: String,
    /// Whether the answer may be seen while it is typed.
    pub shown: bool,
    /// `concat`: it follows the password as it is.
    pub appended: bool,
}

impl StaticChallenge {
    /// What goes to the server in place of the password [7.5].
    pub fn answered(&self, password: &str, answer: &str) -> String {
        match self.appended {
            true => format!("{password}{answer}"),
            false => {
                let encode = |text: &str| BASE64_STANDARD.encode(text);
                format!("SCRV1:{}:{}", encode(password), encode(answer))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_goes_with_the_password() {
        let mut challenge =
            StaticChallenge { text: "PIN".to_owned(), shown: false, appended: false };
        assert_eq!(challenge.answered("se cret", "1234"), "SCRV1:c2UgY3JldA==:MTIzNA==");
        challenge.appended = true;
        assert_eq!(challenge.answered("se cret", "1234"), "se cret1234");
    }
}
