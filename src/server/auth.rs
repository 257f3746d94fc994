//! Letting clients in: where a case begins, and where it ends badly [9.4].
//!
//! The session has verified the certificate; here it is held against what is revoked and against
//! what the client said before. Everything else is `steps`' business.

use crate::config::hooks::ClientCertificate;
use crate::engine::{Environment, PeerId};
use crate::limits::MAX_NAME;
use crate::server::Server;
use crate::server::case::{Case, Step};
use crate::server::negotiate::{NO_SHARED_CIPHER, Offer};
use crate::server::peer::{Applicant, Stage, Who};
use crate::server::token::Tokens;
use crate::session::{Authentication, describe};
use crate::time::Now;
use crate::wire::message::{AuthFailure, Ending, Message};

/// Why a client is refused.
pub(super) enum Refusal {
    /// It has no data cipher that we have; what to do about it, for our log.
    NoCipher(String),
    /// For good, as far as we can tell.
    Denied(String),
    /// There may be room later.
    NotNow(&'static str),
    /// The same for clients that do not know "not now" and would give up for good: they are told
    /// to start again.
    StartAgain(&'static str),
    /// The token it has shown is no good; it is to ask its user for the password again.
    Token(&'static str),
    /// It is to answer this question, and to come again.
    #[cfg(feature = "totp")]
    Question(String),
    /// A script says no.
    Script {
        /// What it was asked about.
        step: Step,
        /// What it wants the client to be told.
        reason: String,
    },
}

impl Refusal {
    pub(super) const fn for_now(offer: &Offer, reason: &'static str) -> Self {
        if offer.auth_fail_temp() { Self::NotNow(reason) } else { Self::StartAgain(reason) }
    }
}

impl Server {
    /// A peer has proven who it is, at first or again: its case is opened.
    pub(super) fn authenticate(&mut self, now: Now, id: PeerId, mut proof: Authentication) {
        let nameless = self.config.tls.client_certificate == ClientCertificate::None;
        let by_username = self.role.login.name_is_username;
        let identity = core::mem::take(&mut proof.identity);
        let username = printable(&core::mem::take(&mut proof.username));
        *proof.password = printable(&proof.password);
        let mut who = Who::new(identity, username, by_username || nameless);
        let Some(entry) = self.peers.get_mut(id) else { return };
        let from = entry.endpoint().peer;
        let verdict = match &entry.peer.stage {
            Stage::Handshake if !proof.renegotiation => acceptable(&self.revoked, &who),
            Stage::Connected(client) => {
                // Some clients lose their user name once they have a token.
                if who.username.is_empty() && Tokens::is_token(&proof.password) {
                    who = client.who.clone();
                }
                // One who changes identity at a renegotiation is not who was let in [4.3].
                match client.who == who {
                    true => acceptable(&self.revoked, &who),
                    false => Err("it renegotiated with another identity".to_owned()),
                }
            }
            Stage::Handshake | Stage::Asking(_) | Stage::Leaving { .. } => return,
        };
        let offer = Offer::read(&proof.peer_info, &proof.options);
        let environment = match &entry.peer.stage {
            Stage::Connected(client) => client.environment.clone(),
            Stage::Handshake | Stage::Asking(_) | Stage::Leaving { .. } => {
                let mut environment = Environment::new();
                if self.scripts {
                    describe::address(&mut environment, "untrusted", from);
                }
                environment
            }
        };
        let number = match &entry.peer.stage {
            Stage::Connected(client) => client.number,
            Stage::Handshake | Stage::Asking(_) | Stage::Leaving { .. } => {
                self.known += 1;
                self.known - 1
            }
        };
        let case = Case::open(number, proof, who, environment);
        match &mut entry.peer.stage {
            Stage::Connected(client) => client.asking = Some(Box::new(case)),
            stage @ (Stage::Handshake | Stage::Asking(_) | Stage::Leaving { .. }) => {
                *stage = Stage::Asking(Box::new(Applicant::new(case, offer)));
            }
        }
        match verdict {
            Ok(()) => self.proceed(now, id, Step::Metadata),
            Err(reason) => self.deny(now, id, Refusal::Denied(reason)),
        }
    }

    /// Turns a peer away and tells it why.
    pub(super) fn deny(&mut self, now: Now, id: PeerId, refusal: Refusal) {
        let Some(entry) = self.peers.get(id) else { return };
        let name = self.case(id).map(|case| case.who.name()).or(entry.peer.name());
        let name = name.unwrap_or_default().to_owned();
        let (reason, message) = match refusal {
            Refusal::NoCipher(advice) => {
                (format!("{NO_SHARED_CIPHER}: {advice}"), denied(NO_SHARED_CIPHER.to_owned()))
            }
            Refusal::Denied(reason) => (reason.clone(), denied(reason)),
            Refusal::NotNow(reason) => {
                let text = reason.to_owned();
                let later = AuthFailure::Temporary { backoff: None, advance: None, text };
                (reason.to_owned(), Message::AuthFailed(later))
            }
            Refusal::Token(reason) => {
                let told = Message::AuthFailed(AuthFailure::Session(reason.to_owned()));
                (reason.to_owned(), told)
            }
            #[cfg(feature = "totp")]
            Refusal::Question(text) => {
                let told = Message::AuthFailed(AuthFailure::Challenge(text));
                ("it is asked for a one-time code".to_owned(), told)
            }
            Refusal::Script { step, reason } => {
                let told = if reason.is_empty() { "no reason".to_owned() } else { reason.clone() };
                let by = if step == Step::Approval { "" } else { "the script for " };
                (format!("by {by}{}: {told}", step.subject()), denied(reason))
            }
            Refusal::StartAgain(reason) => (reason.to_owned(), Message::Restart(Ending::default())),
        };
        let from = entry.endpoint().peer;
        log::log!(self.complaint(now), "{} ({from}): refused: {reason}", name.escape_debug());
        self.dismiss(now, id, &message, &reason);
    }
}

/// AUTH_FAILED. The reason reaches the user, so nothing of ours may break the message.
pub(super) fn denied(reason: String) -> Message {
    Message::AuthFailed(AuthFailure::Denied(reason.replace(char::is_control, " ")))
}

/// Control characters replaced as stock servers do, before anybody looks at the text.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "_")
}

/// Whether one may ask for this peer at all.
fn acceptable(revoked: &[Vec<u8>], who: &Who) -> Result<(), String> {
    if who.name().is_empty() {
        return Err("it has no name: no common name in a certificate, no user name".to_owned());
    }
    if who.name().len() > MAX_NAME {
        return Err(format!("its name is longer than {MAX_NAME} bytes"));
    }
    if revoked.contains(&who.identity.serial) {
        return Err("its certificate is revoked".to_owned());
    }
    Ok(())
}
