//! User names and passwords: who checks them, and the tokens that stand in for them afterwards
//! [4.3, 5.1, 7.5].
//!
//! They are checked at every renegotiation again. A valid token makes it unnecessary to ask, unless
//! whoever is asked wants to know (`external-auth`).

use crate::engine::{HookInput, HookKind, PeerId};
use crate::server::Server;
use crate::server::auth::Refusal;
use crate::server::case::Step;
use crate::server::environment;
use crate::server::peer::Stage;
use crate::server::steps::Next;
use crate::server::token::{TokenSession, TokenState, Tokens};
use crate::time::Now;

impl Server {
    /// The step `Login`.
    pub(super) fn check_login(&mut self, now: Now, id: PeerId) -> Result<Next, Refusal> {
        let scripts = self.scripts;
        let Some(case) = self.case_mut(id) else { return Ok(Next::Done) };
        if scripts {
            let peer_info = core::mem::take(&mut case.peer_info);
            environment::peer_info(&mut case.environment, &peer_info);
        }
        let password = core::mem::take(&mut case.password);
        #[cfg(feature = "totp")]
        if let Some(next) = self.before_login(now, id, &password)? {
            return Ok(next);
        }
        let script = self.config.hooks.auth_user_pass_verify.is_some();
        let management = self.role.login.by_management;
        if !script && !management {
            return Ok(Next::Go(Step::Decision));
        }
        let Some(case) = self.case_mut(id) else { return Ok(Next::Done) };
        if let Some(error) = case.credential_error {
            return Err(Refusal::Denied(error.to_string()));
        }
        let username = case.who.username.clone();
        case.environment.set("username", &username);
        if (username.is_empty() || password.is_empty()) && !self.role.login.optional {
            return Err(Refusal::Denied("it has sent no user name or no password".to_owned()));
        }
        if let Some(next) = self.check_token(now, id, &username, &password)? {
            return Ok(next);
        }
        if management && let Some(case) = self.case_mut(id) {
            case.password.clone_from(&password);
        }
        if !script {
            return Ok(Next::Go(Step::Approval));
        }
        let input = HookInput::Credentials { username, password };
        Ok(self.run(id, HookKind::AuthUserPassVerify, Vec::new(), input))
    }

    /// What becomes of a password that is a token; `None` when somebody is to be asked, as about any
    /// other password.
    pub(super) fn check_token(
        &mut self,
        now: Now,
        id: PeerId,
        username: &str,
        password: &str,
    ) -> Result<Option<Next>, Refusal> {
        let Some(tokens) = &self.tokens else { return Ok(None) };
        let before = match self.peers.get(id).map(|entry| &entry.peer.stage) {
            Some(Stage::Connected(client)) => client.token,
            Some(Stage::Handshake | Stage::Asking(_) | Stage::Leaving { .. }) | None => None,
        };
        let (external, time) = (tokens.external(), tokens.time(now));
        // One login does not turn into another on the way.
        let same = |session: &TokenSession| before.is_none_or(|known| known.id == session.id);
        let shown = Tokens::is_token(password).then(|| tokens.check(password, username, time));
        let (session, state) = match shown {
            None => (None, "Initial"),
            Some(TokenState::Valid(session)) if same(&session) && !session.nameless => {
                (Some(session), "Authenticated")
            }
            // Who has one of these may call himself anything.
            Some(TokenState::Valid(session)) if same(&session) && external => {
                (Some(session), "AuthenticatedEmptyUser")
            }
            Some(TokenState::Expired(session)) if same(&session) && external => {
                (Some(session), if session.nameless { "ExpiredEmptyUser" } else { "Expired" })
            }
            Some(TokenState::Expired(_)) if !external => {
                return Err(Refusal::Token("its token has expired"));
            }
            Some(TokenState::Valid(_) | TokenState::Expired(_) | TokenState::Invalid) => {
                if !external {
                    return Err(Refusal::Token("its token is not valid"));
                }
                (None, "Invalid")
            }
        };
        let fresh = || TokenSession::begin(time, &mut *self.rng);
        let session = session.or(before).unwrap_or_else(fresh);
        let Some(case) = self.case_mut(id) else { return Ok(Some(Next::Done)) };
        case.token = Some(session);
        case.environment.set("session_id", session.name());
        case.environment.set("session_state", state);
        if state != "Authenticated" || external {
            return Ok(None);
        }
        log::info!("{}: its token is accepted", case.who.username.escape_debug());
        Ok(Some(Next::Go(Step::Decision)))
    }

    /// The script has accepted user name and password; the management program may not.
    pub(super) fn logged_in(&mut self, id: PeerId) -> Step {
        if let Some(case) = self.case(id) {
            log::debug!("{}: logged in", case.who.username.escape_debug());
        }
        Step::Approval
    }

    /// The option that gives a client its token, and the moment of the next one.
    pub(super) fn token_option(
        &self,
        now: Now,
        session: Option<TokenSession>,
        username: &str,
    ) -> Option<zeroize::Zeroizing<String>> {
        let (tokens, session) = (self.tokens.as_ref()?, session?);
        let token = tokens.issue(session, username, tokens.time(now));
        Some(zeroize::Zeroizing::new(format!("auth-token {}", *token)))
    }

    /// Gives a client its next token, if it has any.
    pub(super) fn renew_token(&mut self, now: Now, id: PeerId) {
        let Some(client) = self.peers.get(id).and_then(|entry| entry.peer.client()) else { return };
        let option = self.token_option(now, client.token, &client.who.username);
        let Some(option) = option else { return };
        let due = self.tokens.as_ref().map(|tokens| now.mono + tokens.renewal());
        let Some(entry) = self.peers.get_mut(id) else { return };
        if let Stage::Connected(client) = &mut entry.peer.stage {
            client.token_due = due;
        }
        let message = zeroize::Zeroizing::new(format!("PUSH_REPLY,{}", *option));
        // One that is not delivered is followed by the next.
        let _sent = entry.peer.session.send_message(&message);
    }
}
