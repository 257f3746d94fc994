//! The second factor: a client whose file has `totp` brings a one-time code, or the token that it was
//! given for one [7.5].
//!
//! ```text
//! SCRV1 password ─> Login ─> Decision: the code is checked ─> in, with a token for the next times
//! bare password  ─> Login ─> Decision: AUTH_FAILED,CRV1 ─> it comes again with the answer ─> Decision
//! token          ─> Login: checked ─> Decision: of a login with a code? ─> in
//! ```
//!
//! At a renegotiation nobody is asked: the client has been let in, and no code is good for long.

use core::time::Duration;

use crate::config::ClientSettings;
use crate::config::hooks::TokenPolicy;
use crate::engine::PeerId;
use crate::server::Server;
use crate::server::auth::Refusal;
use crate::server::case::Step;
use crate::server::peer::Stage;
use crate::server::steps::Next;
use crate::server::token::{TokenSession, TokenState, Tokens};
use crate::server::totp::{Answer, Fault, challenge, state_name};
use crate::time::Now;

/// Tokens for clients with codes where `auth-gen-token` does not say otherwise: a new code is needed
/// after a day.
const POLICY: TokenPolicy = TokenPolicy {
    lifetime: Duration::from_secs(24 * 3600),
    renewal: Duration::from_secs(3600),
    external: false,
    secret: None,
};

/// A client whose profile asks its user for nothing.
const NO_LOGIN: &str =
    "a one-time code is needed, and its profile does not ask for one: see `sixgate client totp`";

impl Server {
    /// What of the step `Login` has to do with codes: tokens where nobody checks passwords, and
    /// answers to questions, which are asked when all else was right.
    pub(super) fn before_login(
        &mut self,
        now: Now,
        id: PeerId,
        password: &str,
    ) -> Result<Option<Next>, Refusal> {
        let checked = self.is_login_checked();
        let (Some(case), Some(tokens)) = (self.case(id), &self.tokens) else { return Ok(None) };
        if let Answer::Challenge { state, .. } = &case.answer {
            let asked = tokens.check(state, &state_name(case.who.name()), tokens.time(now));
            if matches!(asked, TokenState::Valid(session) if !session.nameless)
                && let Some(case) = self.case_mut(id)
            {
                case.was_asked = true;
                return Ok(Some(Next::Go(Step::Decision)));
            }
        } else if case.showed_token && !checked {
            let username = case.who.username.clone();
            return self.check_token(now, id, &username, password);
        }
        Ok(None)
    }

    /// Whether somebody checks user names and passwords.
    fn is_login_checked(&self) -> bool {
        self.config.hooks.auth_user_pass_verify.is_some() || self.role.login.by_management
    }

    /// After the step `Decision`, which says whether the client needs a code.
    pub(super) fn second_factor(
        &mut self,
        now: Now,
        id: PeerId,
        settings: &ClientSettings,
    ) -> Result<(), Refusal> {
        let Some(secret) = &settings.totp else { return Ok(()) };
        let checked = self.is_login_checked();
        let Some(entry) = self.peers.get_mut(id) else { return Ok(()) };
        let Stage::Asking(applicant) = &mut entry.peer.stage else { return Ok(()) };
        let offer = applicant.offer.clone();
        let case = &mut applicant.case;
        let name = case.who.name().to_owned();
        if case.token.is_some_and(|session| self.codes.is_of(&name, session)) {
            return Ok(());
        }
        if case.showed_token {
            return Err(Refusal::Token(
                "its token is of no use any more: a one-time code is needed",
            ));
        }
        let (asked, username) = (case.was_asked, case.who.username.clone());
        let code = match core::mem::replace(&mut case.answer, Answer::None) {
            Answer::Code(code) => Some(code),
            // Where passwords are checked, this is one.
            Answer::Bare(code) => (!checked).then_some(code),
            Answer::Challenge { code, .. } => asked.then_some(code),
            Answer::None => None,
        };
        let Some(code) = code else { return Err(self.question(now, &name, &username)) };
        match self.codes.check((now.mono, now.unix), &name, secret, &code) {
            Ok(()) => {}
            Err(fault @ Fault::NoClock) => {
                log::error!("{}: {}", name.escape_debug(), fault.as_str());
                return Err(Refusal::for_now(&offer, fault.as_str()));
            }
            Err(fault) => return Err(Refusal::Denied(fault.as_str().to_owned())),
        }
        log::info!("{}: its one-time code is accepted", name.escape_debug());
        let time = self.make_tokens(now).time(now);
        let fresh = || TokenSession::begin(time, &mut *self.rng);
        let Some(entry) = self.peers.get_mut(id) else { return Ok(()) };
        let Stage::Asking(applicant) = &mut entry.peer.stage else { return Ok(()) };
        let session = applicant.case.token.unwrap_or_else(fresh);
        applicant.case.token = Some(session);
        self.codes.begin(&name, session);
        Ok(())
    }

    fn make_tokens(&mut self, now: Now) -> &Tokens {
        self.tokens.get_or_insert_with(|| Tokens::new(&POLICY, now, &mut *self.rng))
    }

    /// Asks for a code if there is somebody to be asked.
    fn question(&mut self, now: Now, name: &str, username: &str) -> Refusal {
        if username.is_empty() {
            return Refusal::Denied(NO_LOGIN.to_owned());
        }
        let time = self.make_tokens(now).time(now);
        let session = TokenSession::begin(time, &mut *self.rng);
        let state = self.make_tokens(now).issue(session, &state_name(name), time);
        Refusal::Question(challenge(&state, username))
    }
}
