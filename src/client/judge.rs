//! `tls-verify` at a client: a script looks at the server's certificates, from the authority down,
//! before the server is told anything [9.12].
//!
//! The session holds its key exchange back meanwhile, within `hand-window`. Whether certificates are
//! valid at all is TLS's business.

use core::time::Duration;
use std::collections::VecDeque;

use super::connection::Connection;
use crate::engine::{Command, Environment, HookInput, HookKind, HookOutcome, HookRequest};
use crate::random::Random;
use crate::session::{CertificateInfo, PeerIdentity, describe};
use crate::time::Now;
use crate::wire::control::KeyId;

/// Why a handshake with a server that is being judged ends.
pub(super) const NO_ANSWER: &str =
    "tls-verify has not judged the server's certificates in time (hand-window)";

/// What is being judged, if anything.
#[derive(Default)]
pub(super) struct Judge {
    last_ticket: u64,
    case: Option<Case>,
}

/// The certificates of one handshake.
struct Case {
    /// Names the open question.
    ticket: u64,
    key_id: KeyId,
    /// DER; index is depth.
    chain: Vec<Vec<u8>>,
    /// What is being judged now; all above it is good.
    depth: usize,
    /// As in the certificate.
    subject: String,
    environment: Environment,
}

impl Judge {
    /// For the connection of this number: the answer to a question of another one is for nobody.
    pub(super) fn new(connection: u32) -> Self {
        Self { last_ticket: u64::from(connection) << 32, case: None }
    }

    /// Whether there is a question open.
    pub(super) fn is_busy(&self) -> bool {
        self.case.is_some()
    }
}

impl Connection {
    /// The server has shown its certificates.
    pub(super) fn examine(
        &mut self,
        key_id: KeyId,
        chain: Vec<Vec<u8>>,
        commands: &mut VecDeque<Command>,
    ) {
        describe::address(&mut self.about, "untrusted", self.server);
        let Some(depth) = chain.len().checked_sub(1) else { return self.unreadable() };
        let (mut environment, subject) = (self.about.clone(), String::new());
        // Those are of the last handshake.
        environment.unset_all("X509_");
        let case = Case { ticket: 0, key_id, chain, depth, subject, environment };
        self.ask(case, commands);
    }

    /// Has the script look at the certificate whose turn it is.
    fn ask(&mut self, mut case: Case, commands: &mut VecDeque<Command>) {
        let der = case.chain.get(case.depth);
        let Some(info) = der.and_then(|der| CertificateInfo::from_der(der)) else {
            return self.unreadable();
        };
        describe::certificate(&mut case.environment, case.depth, &info);
        if case.depth == 0 {
            let identity = case.chain.first().and_then(|der| PeerIdentity::from_der(der));
            let name = identity.unwrap_or_default().common_name;
            case.environment.set("common_name", name);
        }
        self.judge.last_ticket += 1;
        case.ticket = self.judge.last_ticket;
        commands.push_back(Command::RunHook(Box::new(HookRequest {
            ticket: Some(case.ticket),
            kind: HookKind::TlsVerify,
            // One that nobody waits for any more delays nobody.
            lane: format!("judge {}", case.ticket),
            arguments: vec![case.depth.to_string(), info.subject.clone()],
            environment: case.environment.clone(),
            input: HookInput::Nothing,
        })));
        case.subject = info.subject;
        self.judge.case = Some(case);
    }

    /// A script has ended.
    pub(super) fn hook_done(
        &mut self,
        now: Now,
        ticket: u64,
        outcome: &HookOutcome,
        commands: &mut VecDeque<Command>,
        rng: &mut dyn Random,
    ) {
        let Some(mut case) = self.judge.case.take_if(|case| case.ticket == ticket) else { return };
        match (outcome, case.depth.checked_sub(1)) {
            (HookOutcome::Failure { .. }, _) => {
                let (depth, subject) = (case.depth, &case.subject);
                let reason = format!(
                    "tls-verify refused the server's certificate (depth {depth}, {subject})"
                );
                self.retry(&reason, false, Duration::ZERO);
            }
            (HookOutcome::Success { .. }, Some(below)) => {
                case.depth = below;
                self.ask(case, commands);
            }
            (HookOutcome::Success { .. }, None) => self.session.accept_peer(now, case.key_id, rng),
        }
    }

    fn unreadable(&mut self) {
        self.retry("the server's certificate cannot be read", false, Duration::ZERO);
    }
}
