//! `management-query-passwords`: the management program is asked for a client's login [9.14].
//!
//! ```text
//! >PASSWORD:Need 'Auth' username/password             or just `password`; a static challenge follows
//!                                                     as ` SC:{1 shown, 2 appended},{text}`
//! username "Auth" {name}    password "Auth" {text}    in any order
//! >PASSWORD:Verification Failed: 'Auth' ['{reason}']  the server refuses it, or asks (CRV1:…)
//! ```
//!
//! Answers to challenges are put together by the program, which sends them in place of the password.

use zeroize::Zeroizing;

use super::console::Console;
use super::session::Session;
use super::{Action, plain};
use crate::config::Secret;
use crate::engine::LoginQuestion;

/// The only kind of login there is to ask for.
const KIND: &str = "Auth";

/// An open question, and what has been answered of it.
pub(super) struct Query {
    username: Option<String>,
    password: Option<Zeroizing<String>>,
    text: String,
}

impl core::fmt::Debug for Query {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Query")
    }
}

impl Query {
    /// Puts it to a program that has just come.
    pub(super) fn repeat(&self, session: &mut Session) {
        session.notify(&self.text);
    }
}

impl Console {
    /// Whether the program is who is asked for a login.
    pub fn queries(&self) -> bool {
        self.settings.query
    }

    /// Asks for a login.
    pub fn ask_login(&mut self, question: &LoginQuestion) {
        // To a challenge of the server, which has been shown, the program answers with both.
        let username = question.username.clone().filter(|_| question.dynamic.is_none());
        let what = if username.is_some() { "password" } else { "username/password" };
        let mut text = format!(">PASSWORD:Need '{KIND}' {what}");
        if let Some(challenge) = &question.challenge {
            let flags = u8::from(challenge.shown) | u8::from(challenge.appended) << 1;
            text.push_str(&format!(" SC:{flags},{}", plain(&challenge.text, None)));
        }
        let query = Query { username, password: None, text };
        match &mut self.session {
            Some(session) => query.repeat(session),
            None => log::info!("waiting for the management program to give user name and password"),
        }
        self.query = Some(query);
    }

    /// The server has refused the login, or asks something.
    pub fn login_refused(&mut self, reason: &str) {
        let mut text = format!(">PASSWORD:Verification Failed: '{KIND}'");
        if !reason.is_empty() {
            text.push_str(&format!(" ['{}']", plain(reason, None)));
        }
        self.session.iter_mut().for_each(|session| session.notify(&text));
    }

    /// `username` and `password`.
    pub(super) fn entered(
        &mut self,
        s: &mut Session,
        what: &str,
        [kind, value]: [String; 2],
    ) -> Option<Action> {
        let Some(query) = &mut self.query else {
            s.answer(&format!("ERROR: no {what} is currently needed at this time"));
            return None;
        };
        if kind != KIND {
            s.answer(&format!(
                "ERROR: {what} of type '{kind}' entered, but we need one of type '{KIND}'"
            ));
            return None;
        }
        match what {
            "username" => query.username = Some(value),
            _ => query.password = Some(Zeroizing::new(value)),
        }
        s.answer(&format!("SUCCESS: '{KIND}' {what} entered, but not yet verified"));
        let username = query.username.clone().filter(|_| query.password.is_some())?;
        let password = Secret(self.query.take()?.password?);
        Some(Action::Login { username, password })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StaticChallenge;
    use crate::manage::console::Settings;
    use crate::manage::tests::{ask, connected, settings, take, view};
    use crate::wire::challenge::Challenge;

    fn question(username: Option<&str>) -> LoginQuestion {
        let username = username.map(str::to_owned);
        LoginQuestion { username, password: None, challenge: None, dynamic: None }
    }

    fn login(username: &str, password: &str) -> Vec<Action> {
        let password = Secret(Zeroizing::new(password.to_owned()));
        vec![Action::Login { username: username.to_owned(), password }]
    }

    fn entered(what: &str) -> String {
        format!("SUCCESS: 'Auth' {what} entered, but not yet verified\n")
    }

    #[test]
    fn both_halves_make_a_login_in_either_order() {
        let mut console = connected(settings(false));
        let view = view(Vec::new());
        let nothing = "ERROR: no username is currently needed at this time\n";
        assert_eq!(ask(&mut console, &view, "username Auth jo"), (nothing.into(), vec![]));
        console.ask_login(&question(None));
        assert_eq!(take(&mut console), ">PASSWORD:Need 'Auth' username/password\n");
        let other =
            "ERROR: password of type 'Private Key' entered, but we need one of type 'Auth'\n";
        let said = ask(&mut console, &view, "password \"Private Key\" x");
        assert_eq!(said, (other.into(), vec![]));
        let said = ask(&mut console, &view, "password \"Auth\" \"se \\\"cret\"");
        assert_eq!(said, (entered("password"), vec![]));
        let said = ask(&mut console, &view, "username \"Auth\" jo");
        assert_eq!(said, (entered("username"), login("jo", "se \"cret")));
        assert!(ask(&mut console, &view, "password Auth x").0.starts_with("ERROR: no password"));
    }

    #[test]
    fn a_program_that_comes_late_is_asked_and_challenges_are_shown() {
        let mut console = Console::new(Settings { query: true, ..settings(false) });
        assert!(console.queries());
        let mut asked = question(Some("jo"));
        asked.challenge =
            Some(StaticChallenge { text: "Your PIN".into(), shown: true, appended: true });
        console.ask_login(&asked);
        console.connect();
        assert!(take(&mut console).ends_with("\n>PASSWORD:Need 'Auth' password SC:3,Your PIN\n"));
        let view = view(Vec::new());
        let said = ask(&mut console, &view, "password Auth secret1234");
        assert_eq!(said.1, login("jo", "secret1234"));
        console.login_refused("");
        console.login_refused("CRV1:R,E:s:Ym9i:Code");
        let mut dynamic = question(Some("jo"));
        dynamic.dynamic = Challenge::parse("CRV1:R,E:s:Ym9i:Code");
        console.ask_login(&dynamic);
        assert_eq!(
            take(&mut console),
            ">PASSWORD:Verification Failed: 'Auth'\n\
             >PASSWORD:Verification Failed: 'Auth' ['CRV1:R,E:s:Ym9i:Code']\n\
             >PASSWORD:Need 'Auth' username/password\n"
        );
        assert!(!format!("{console:?}").contains("jo"));
    }
}
