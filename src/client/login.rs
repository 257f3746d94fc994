//! What the client logs in with over time: user name and password, the token that stands in for the
//! password, answers to challenges; and what becomes of a refusal [7.1, 7.5].
//!
//! Who is asked for what is missing is the shell's business ([`Command::AskLogin`]).

use core::mem;
use core::time::Duration;
use std::net::SocketAddr;

use log::warn;
use zeroize::Zeroizing;

use super::{Client, State, role};
use crate::config::{AuthRetry, ClientRole};
use crate::engine::{Command, ExitReason, Login, LoginQuestion};
use crate::time::Now;
use crate::wire::challenge::Challenge;
use crate::wire::message::{Advance, AuthFailure};

/// Shortest pause after a refusal with `auth-retry nointeract` [10.1].
const REFUSED_PAUSE: Duration = Duration::from_secs(10);

/// The login of an engine, beside what its session shows at the moment.
#[derive(Default)]
pub(super) struct Account {
    /// As configured or entered; `None` where there is none, or none is known any more.
    own: Option<Login>,
    /// Somebody has entered it.
    entered: bool,
    /// A token stands in for the password.
    token: bool,
    /// What is shown answers a challenge and is good for one connection.
    answer: bool,
    /// To be asked before the next attempt.
    question: Option<Box<LoginQuestion>>,
}

impl Account {
    /// What the configuration says, and what was entered before the start.
    pub(super) fn new(role: &ClientRole) -> Self {
        let question = LoginQuestion::of(role).filter(|_| role.entered.is_none());
        let known = role.entered.as_ref().or(role.credentials.as_ref());
        let known = known.filter(|_| question.is_none());
        Self {
            own: known.map(|(name, text)| (name.clone(), Zeroizing::new(text.clone()))),
            entered: role.entered.is_some(),
            question: question.map(Box::new),
            ..Self::default()
        }
    }

    /// What key exchanges say until a server gives a token.
    pub(super) fn own(&self) -> Option<Login> {
        self.own.clone()
    }
}

impl Client {
    /// Asks what has to be known before another attempt; whether there is anything.
    pub(super) fn ask_first(&mut self) -> bool {
        let Some(question) = self.account.question.take() else { return false };
        self.account.answer = question.dynamic.is_some();
        self.commands.push_back(Command::AskLogin(question));
        self.state = State::Asking;
        true
    }

    /// The answer.
    pub(super) fn login_given(&mut self, now: Now, answer: Result<Login, String>) {
        match answer {
            Ok(login) => {
                if !self.account.answer {
                    self.account.own = Some(login.clone());
                    self.account.entered = true;
                }
                self.session.credentials.set(Some(login));
                self.attempt(now);
            }
            Err(text) => self.end(ExitReason::Fatal(text)),
        }
    }

    /// The server has given a token.
    pub(super) fn take_token(&mut self, name: Option<String>, token: Zeroizing<String>) {
        let name = name.or_else(|| self.session.credentials.name()).unwrap_or_default();
        self.session.credentials.set(Some((name, token)));
        self.account.token = true;
        self.account.answer = false;
        self.forget();
    }

    /// A connection is over: what is shown at the next one.
    pub(super) fn login_over(&mut self) {
        if self.account.token {
            return;
        }
        let changed = mem::take(&mut self.account.answer) | self.forget();
        if changed {
            self.show_own();
        }
    }

    /// `auth-nocache`: what was entered is not kept; whether it was.
    fn forget(&mut self) -> bool {
        let forgets = role(&self.config).is_some_and(|role| role.forgets) && self.account.entered;
        forgets && self.account.own.take().is_some()
    }

    /// Without any, somebody is asked again.
    fn show_own(&mut self) {
        self.session.credentials.set(self.account.own.clone());
        if self.account.own.is_none() {
            self.account.question = role(&self.config).and_then(LoginQuestion::of).map(Box::new);
        }
    }

    /// AUTH_FAILED: final, unless the server calls it temporary or wants an answer, it was about a token,
    /// or the configuration says to try again.
    pub(super) fn refused(&mut self, now: Now, server: SocketAddr, failure: AuthFailure) {
        let text = match failure {
            AuthFailure::Temporary { backoff, advance, text } => {
                let text = text.escape_debug();
                warn!("connection to {server}: refused for now: {text}; trying again");
                match advance {
                    None | Some(Advance::No) => self.remotes.stay(server),
                    Some(Advance::Address) => {}
                    Some(Advance::Remote) => self.remotes.skip_name(),
                }
                return self.retry(now, Duration::from_secs(backoff.unwrap_or(1).into()));
            }
            AuthFailure::Challenge(reason) => return self.challenged(now, server, reason),
            AuthFailure::Session(text) => {
                format!("the server ended this login: {}", text.escape_debug())
            }
            AuthFailure::Denied(text) => {
                if !self.account.token {
                    self.commands.push_back(Command::LoginRefused(text.clone()));
                }
                match text.is_empty() {
                    true => "the server refused us and gave no reason: its log has it".to_owned(),
                    false => format!("the server refused us: {}", text.escape_debug()),
                }
            }
        };
        let Some(role) = role(&self.config) else { return };
        let question = LoginQuestion::of(role).filter(|_| role.auth_retry == AuthRetry::Interact);
        let again = role.auth_retry != AuthRetry::No;
        if mem::take(&mut self.account.token) {
            warn!("connection to {server}: {text}; trying again without its token");
            self.show_own();
            self.remotes.stay(server);
            self.retry(now, Duration::ZERO);
        } else if let Some(question) = question {
            warn!("connection to {server}: {text}; asking again (auth-retry)");
            self.remotes.stay(server);
            self.retry(now, Duration::ZERO);
            self.account.question = Some(Box::new(question));
        } else if again {
            warn!("connection to {server}: {text}; trying again (auth-retry)");
            self.retry(now, REFUSED_PAUSE);
        } else {
            self.end(ExitReason::Fatal(text));
        }
    }

    /// The server lets us in if somebody answers its question.
    fn challenged(&mut self, now: Now, server: SocketAddr, reason: String) {
        let Some(challenge) = Challenge::parse(&reason) else {
            let text = "the server asks for an answer in a form that nobody understands";
            return self.end(ExitReason::Fatal(text.to_owned()));
        };
        warn!("connection to {server}: the server asks: {}", challenge.text.escape_debug());
        let username = self.session.credentials.name();
        self.account.token = false;
        self.commands.push_back(Command::LoginRefused(reason));
        self.remotes.stay(server);
        self.retry(now, Duration::ZERO);
        let (password, dynamic) = (None, Some(challenge));
        let question = LoginQuestion { username, password, challenge: None, dynamic };
        self.account.question = Some(Box::new(question));
    }
}
