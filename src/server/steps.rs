//! From one step of a decision to the next: questions go out, answers come in [9.4, 9.12].

use zeroize::Zeroizing;

use crate::config::ClientSettings;
use crate::config::hooks::Program;
use crate::engine::{
    AdmitRequest, ApprovalRequest, Command, HookInput, HookKind, HookOutcome, HookRequest,
    Occasion, PeerId,
};
use crate::server::Server;
use crate::server::auth::Refusal;
use crate::server::case::{Case, Step};
use crate::server::peer::Stage;
use crate::session::{CertificateInfo, describe};
use crate::time::Now;
use crate::wire::message::Message;

/// What a step has come to.
pub(super) enum Next {
    /// It has succeeded; this one is next.
    Go(Step),
    /// The answer will come.
    Wait,
    /// There are no more steps.
    Done,
}

impl Server {
    /// A peer's open case.
    pub(super) fn case(&self, id: PeerId) -> Option<&Case> {
        match &self.peers.get(id)?.peer.stage {
            Stage::Asking(applicant) => Some(&applicant.case),
            Stage::Connected(client) => client.asking.as_deref(),
            Stage::Handshake | Stage::Leaving { .. } => None,
        }
    }

    /// The same, to be worked on.
    pub(super) fn case_mut(&mut self, id: PeerId) -> Option<&mut Case> {
        match &mut self.peers.get_mut(id)?.peer.stage {
            Stage::Asking(applicant) => Some(&mut applicant.case),
            Stage::Connected(client) => client.asking.as_deref_mut(),
            Stage::Handshake | Stage::Leaving { .. } => None,
        }
    }

    /// Takes `step` and all that follow, until one has to wait for an answer.
    pub(super) fn proceed(&mut self, now: Now, id: PeerId, mut step: Step) {
        loop {
            let Some(case) = self.case_mut(id) else { return };
            case.step = step;
            let next = match step {
                Step::Metadata => self.check_metadata(id),
                Step::Certificate(depth) => self.check_certificate(id, depth),
                Step::Login => self.check_login(now, id),
                Step::Approval => self.ask_management(id),
                Step::Decision => self.ask(id),
                Step::Place => self.place(now, id),
                Step::Connect => self.run_connect(now, id),
                Step::Learn(number) => self.learn(id, number),
                Step::Enter => self.enter(now, id),
            };
            match next {
                Ok(Next::Go(next)) => step = next,
                Ok(Next::Wait | Next::Done) => return,
                Err(refusal) => return self.deny(now, id, refusal),
            }
        }
    }

    /// Asks for a script to be run; the answer belongs to the current step.
    pub(super) fn run(
        &mut self,
        id: PeerId,
        kind: HookKind,
        arguments: Vec<String>,
        input: HookInput,
    ) -> Next {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let Some(case) = self.case_mut(id) else { return Next::Done };
        case.ticket = ticket;
        // A client that is known by name waits for what its last connection has left to do.
        let lane = match kind {
            HookKind::ClientConnect => lane(case.who.name()),
            HookKind::LearnAddress => ADDRESSES.to_owned(),
            _ => format!("(peer {id})"),
        };
        let environment = case.environment.clone();
        let ticket = Some(ticket);
        let request = HookRequest { ticket, kind, lane, arguments, environment, input };
        self.commands.push_back(Command::RunHook(Box::new(request)));
        Next::Wait
    }

    fn check_metadata(&mut self, id: PeerId) -> Result<Next, Refusal> {
        let Some(entry) = self.peers.get_mut(id) else { return Ok(Next::Done) };
        // Taken at the first key; a renegotiation does not bring it again.
        let metadata = entry.peer.metadata.take();
        let depth = self.case(id).map_or(0, |case| case.chain.len());
        let next = match depth.checked_sub(1) {
            Some(top) => Step::Certificate(top),
            None => Step::Login,
        };
        let (Some(bytes), Some(_)) = (metadata, &self.config.hooks.tls_crypt_v2_verify) else {
            return Ok(Next::Go(next));
        };
        let Some((kind, bytes)) = bytes.split_first() else {
            return Err(Refusal::Denied("its client key has no metadata".to_owned()));
        };
        let input = HookInput::Metadata { kind: *kind, bytes: bytes.to_vec() };
        Ok(self.run(id, HookKind::TlsCryptV2Verify, Vec::new(), input))
    }

    fn check_certificate(&mut self, id: PeerId, depth: usize) -> Result<Next, Refusal> {
        if !self.scripts {
            return Ok(Next::Go(Step::Login));
        }
        let Some(case) = self.case_mut(id) else { return Ok(Next::Done) };
        let info = case.chain.get(depth).and_then(|der| CertificateInfo::from_der(der));
        let Some(info) = info else {
            return Err(Refusal::Denied("its certificate cannot be read".to_owned()));
        };
        describe::certificate(&mut case.environment, depth, &info);
        if depth == 0 {
            let name = case.who.identity.common_name.clone();
            case.environment.set("common_name", name);
        }
        if self.config.hooks.tls_verify.is_none() {
            return Ok(Next::Go(below(depth)));
        }
        let arguments = vec![depth.to_string(), info.subject];
        Ok(self.run(id, HookKind::TlsVerify, arguments, HookInput::Nothing))
    }

    /// Asks the management program.
    fn ask_management(&mut self, id: PeerId) -> Result<Next, Refusal> {
        if !self.role.login.by_management {
            return Ok(Next::Go(Step::Decision));
        }
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let Some(case) = self.case_mut(id) else { return Ok(Next::Done) };
        case.ticket = ticket;
        case.asked = true;
        let password = core::mem::take(&mut case.password);
        let question = question(case, password);
        self.commands.push_back(Command::AskManagement(Box::new(question)));
        Ok(Next::Wait)
    }

    /// A client answers the challenge of the management program.
    pub(super) fn challenge_answered(&mut self, id: PeerId, answer: String) {
        let Some(case) = self.case(id).filter(|case| case.step == Step::Approval) else { return };
        let question = question(case, Zeroizing::default());
        self.commands.push_back(Command::ChallengeAnswer(Box::new(question), answer));
    }

    /// Asks the outside world.
    fn ask(&mut self, id: PeerId) -> Result<Next, Refusal> {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let Some(from) = self.peers.get(id).map(|entry| entry.endpoint()) else {
            return Ok(Next::Done);
        };
        let Some(case) = self.case_mut(id) else { return Ok(Next::Done) };
        case.ticket = ticket;
        let request = AdmitRequest {
            ticket,
            peer: id,
            common_name: case.who.name().to_owned(),
            serial: case.who.identity.serial.clone(),
            from,
            occasion: match case.renegotiation {
                true => Occasion::Renegotiation,
                false => Occasion::Arrival,
            },
        };
        self.commands.push_back(Command::Admit(Box::new(request)));
        Ok(Next::Wait)
    }

    /// The peer whose case waits for this answer; `None` when it has gone meanwhile.
    fn whose(&self, ticket: u64) -> Option<(PeerId, Step)> {
        self.peers.iter().find_map(|(id, _)| {
            let case = self.case(id).filter(|case| case.ticket == ticket)?;
            Some((id, case.step))
        })
    }

    /// The outside world has decided.
    pub(super) fn decided(
        &mut self,
        now: Now,
        ticket: u64,
        verdict: Result<Box<ClientSettings>, String>,
    ) {
        if let Some(id) = self.reviewed_by(ticket) {
            return self.review(now, id, ticket, verdict);
        }
        let Some((id, Step::Decision)) = self.whose(ticket) else { return };
        let settings = match verdict {
            Ok(settings) => settings,
            Err(reason) => {
                self.deny(now, id, Refusal::Denied(reason));
                return self.settle(now, id);
            }
        };
        #[cfg(feature = "totp")]
        if let Err(refusal) = self.second_factor(now, id, &settings) {
            self.deny(now, id, refusal);
            return self.settle(now, id);
        }
        let Some(entry) = self.peers.get_mut(id) else { return };
        match &mut entry.peer.stage {
            Stage::Asking(applicant) => {
                applicant.case.ticket = 0;
                applicant.settings = settings;
                self.proceed(now, id, Step::Place);
            }
            Stage::Connected(_) => self.approve(now, id),
            Stage::Handshake | Stage::Leaving { .. } => {}
        }
        self.settle(now, id);
    }

    /// A renegotiation has passed every step.
    fn approve(&mut self, now: Now, id: PeerId) {
        let Some(entry) = self.peers.get_mut(id) else { return };
        let Stage::Connected(client) = &mut entry.peer.stage else { return };
        let Some(case) = client.asking.take() else { return };
        client.environment = case.environment;
        client.token = case.token.or(client.token);
        entry.peer.session.approve_key(now, case.key);
        self.renew_token(now, id);
    }

    /// A script has ended.
    pub(super) fn hook_done(&mut self, now: Now, ticket: u64, outcome: HookOutcome) {
        let Some((id, step)) = self.whose(ticket) else { return };
        // Two answers to one question are one too many.
        if let Some(case) = self.case_mut(id) {
            case.ticket = 0;
        }
        let next = match (step, outcome) {
            (Step::Learn(number), outcome) => Ok(self.learnt(id, number, &outcome)),
            (_, HookOutcome::Failure { reason }) => Err(Refusal::Script { step, reason }),
            (Step::Connect, HookOutcome::Success { settings }) => {
                self.settings_from_script(now, id, &settings)
            }
            (Step::Metadata, HookOutcome::Success { .. }) => {
                let depth = self.case(id).map_or(0, |case| case.chain.len());
                Ok(depth.checked_sub(1).map_or(Step::Login, Step::Certificate))
            }
            (Step::Certificate(depth), HookOutcome::Success { .. }) => Ok(below(depth)),
            (Step::Login, HookOutcome::Success { .. }) => Ok(self.logged_in(id)),
            (Step::Approval, HookOutcome::Success { settings }) => {
                self.case_mut(id).into_iter().for_each(|case| case.given.clone_from(&settings));
                Ok(Step::Decision)
            }
            // No script belongs to these.
            (Step::Decision | Step::Place | Step::Enter, HookOutcome::Success { .. }) => return,
        };
        match next {
            Ok(step) => self.proceed(now, id, step),
            Err(refusal) => self.deny(now, id, refusal),
        }
        self.settle(now, id);
    }

    /// The answer will come later: the client is told to wait [7.1].
    pub(super) fn hook_pending(
        &mut self,
        now: Now,
        ticket: u64,
        (timeout, method, message): (u32, &str, String),
    ) {
        let Some((id, Step::Login | Step::Approval)) = self.whose(ticket) else { return };
        let able = self.case(id).and_then(|case| case.environment.value("IV_SSO"));
        let able = able.unwrap_or_default().split(',').any(|known| known == method);
        if !method.is_empty() && !able {
            // As in OpenVPN: it would wait for something that its user never gets to see.
            let reason = format!("the client does not support the authentication by '{method}'");
            self.deny(now, id, Refusal::Denied(reason));
            return self.settle(now, id);
        }
        let Some(entry) = self.peers.get_mut(id) else { return };
        let Stage::Asking(applicant) = &entry.peer.stage else { return };
        let keyword = applicant.offer.auth_pending_keywords();
        let session = &mut entry.peer.session;
        session.wait_for_authentication(now, Some(timeout));
        let pending = Message::AuthPending { timeout: keyword.then_some(timeout) };
        // A client that is not told waits for as long as it does anyway.
        let _sent = session.send_message(&pending.to_string());
        if !message.is_empty() {
            let _sent = session.send_message(&Message::InfoPre(message).to_string());
        }
        self.settle(now, id);
    }
}

/// The lane of scripts about addresses: they see each address go before it comes again.
pub(super) const ADDRESSES: &str = "(addresses)";

/// The lane of scripts about a client's coming and going.
pub(super) fn lane(name: &str) -> String {
    format!("client {name}")
}

/// What the management program is told when it is asked.
fn question(case: &Case, password: Zeroizing<String>) -> ApprovalRequest {
    ApprovalRequest {
        ticket: case.ticket,
        client: case.number,
        renegotiation: case.renegotiation,
        environment: case.environment.clone(),
        input: HookInput::Credentials { username: case.who.username.clone(), password },
    }
}

/// The step after the certificate at this depth.
const fn below(depth: usize) -> Step {
    match depth.checked_sub(1) {
        Some(depth) => Step::Certificate(depth),
        None => Step::Login,
    }
}

/// Whether any script is about clients.
pub(super) fn any(hooks: &crate::config::hooks::Hooks) -> bool {
    let programs: [&Option<Program>; 6] = [
        &hooks.tls_verify,
        &hooks.tls_crypt_v2_verify,
        &hooks.auth_user_pass_verify,
        &hooks.client_connect,
        &hooks.client_disconnect,
        &hooks.learn_address,
    ];
    programs.into_iter().any(Option::is_some)
}
