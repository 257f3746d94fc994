//! `management-client-auth`: what the management program is asked about clients, and what it
//! decides [9.14].
//!
//! ```text
//! >CLIENT:CONNECT,{CID},{KID}      a client wants to come in (REAUTH: to stay)
//! >CLIENT:ENV,name=value …         >CLIENT:ENV,END
//! client-auth {CID} {KID}          yes, with the lines that follow up to END as for a client's file
//! client-auth-nt {CID} {KID}       yes
//! client-deny {CID} {KID} "reason for the log" ["reason for the client"]
//! client-pending-auth {CID} {KID} {message} {seconds}
//! ```
//!
//! Unlike with OpenVPN, questions that are open when a program connects are put to it: one that was
//! started again does not cost the clients a timeout.

use core::fmt::Write as _;

use zeroize::Zeroizing;

use super::console::Console;
use super::session::Session;
use super::{Action, plain};
use crate::engine::{ApprovalRequest, HookInput, HookOutcome};

/// Bytes of directives that a program can give one client.
const MAX_GIVEN: usize = 16 << 10;

/// An open question. Its text holds a password.
#[derive(Debug)]
struct Question {
    client: u64,
    ticket: u64,
    text: Secret,
}

/// Text that is wiped, and that nothing prints.
struct Secret(Zeroizing<String>);

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret")
    }
}

/// All open questions: of each client the last.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: Vec<Question>,
    /// That nobody is there to answer has been said.
    lonely: bool,
}

/// A `client-auth` whose lines are still coming.
#[derive(Debug)]
pub(super) struct Given {
    /// Which question it answers, if there is one.
    ticket: Option<u64>,
    lines: String,
}

impl Given {
    /// Takes one line; what is too much makes the whole answer void.
    pub(super) fn push(&mut self, line: &str) {
        if self.lines.len() + line.len() > MAX_GIVEN {
            self.ticket = None;
            return;
        }
        self.lines.push_str(line);
        self.lines.push('\n');
    }
}

impl Questions {
    fn forget(&mut self, client: u64) {
        self.open.retain(|question| question.client != client);
    }

    /// The ticket of the question that this client and key name.
    fn find(&self, client: u64, key: u64) -> Option<u64> {
        let named = |question: &&Question| (question.client, question.ticket) == (client, key);
        self.open.iter().find(named).map(|question| question.ticket)
    }

    /// Puts all of them to a program that has just come.
    pub(super) fn repeat(&mut self, session: &mut Session) {
        self.lonely = false;
        self.open.iter().for_each(|question| session.notify(&question.text.0));
    }
}

impl Console {
    /// A client wants to come in, or to stay.
    pub fn ask(&mut self, request: &ApprovalRequest, count: usize) {
        let mode = if request.renegotiation { "REAUTH" } else { "CONNECT" };
        let text = describe(mode, request, "", count);
        self.questions.forget(request.client);
        match &mut self.session {
            Some(session) => session.notify(&text),
            None if !self.questions.lonely => {
                self.questions.lonely = true;
                log::warn!(
                    "management-client-auth: no program is connected that could let clients in"
                );
            }
            None => {}
        }
        let (client, ticket) = (request.client, request.ticket);
        self.questions.open.push(Question { client, ticket, text: Secret(text) });
    }

    /// A client answers the program's challenge.
    pub fn challenge_answered(&mut self, request: &ApprovalRequest, answer: &str, count: usize) {
        let answer = format!(",{}", plain(answer, None));
        let text = describe("CR_RESPONSE", request, &answer, count);
        self.session.iter_mut().for_each(|session| session.notify(&text));
    }

    /// A client that was asked about is gone without having come in.
    pub fn never_mind(&mut self, client: u64) {
        self.settled(client);
        let text = format!(">CLIENT:DISCONNECT,{client}\n>CLIENT:ENV,END");
        self.session.iter_mut().for_each(|session| session.notify(&text));
    }

    /// There is nothing left to decide about a client.
    pub(super) fn settled(&mut self, client: u64) {
        self.questions.forget(client);
    }

    /// The beginning of `client-auth`.
    pub(super) fn begin(&mut self, s: &mut Session, [client, key]: [&str; 2]) {
        match self.ticket(client, key) {
            Ok(ticket) => s.given = Some(Given { ticket, lines: String::new() }),
            Err(error) => s.answer(error),
        }
    }

    /// The end of `client-auth`.
    pub(super) fn give(&mut self, s: &mut Session, given: Given) -> Option<Action> {
        let outcome = HookOutcome::Success { settings: given.lines };
        self.decide(s, "client-auth", given.ticket, outcome)
    }

    /// `client-auth-nt`, `client-deny`.
    pub(super) fn verdict(
        &mut self,
        s: &mut Session,
        command: &str,
        [client, key]: [&str; 2],
        outcome: HookOutcome,
    ) -> Option<Action> {
        match self.ticket(client, key) {
            Ok(ticket) => self.decide(s, command, ticket, outcome),
            Err(error) => {
                s.answer(error);
                None
            }
        }
    }

    /// `client-pending-auth`.
    pub(super) fn pend(
        &mut self,
        s: &mut Session,
        [client, key, message, seconds]: [&str; 4],
    ) -> Option<Action> {
        let ticket = match self.ticket(client, key) {
            Ok(ticket) => ticket,
            Err(error) => {
                s.answer(error);
                return None;
            }
        };
        let (Some(ticket), Ok(timeout)) = (ticket, seconds.parse()) else {
            let text = "client-pending-auth command failed. Extra parameter might be too long";
            s.answer(&format!("ERROR: {text}"));
            return None;
        };
        s.answer("SUCCESS: client-pending-auth command succeeded");
        Some(Action::Pend { ticket, timeout, message: message.to_owned() })
    }

    fn decide(
        &mut self,
        s: &mut Session,
        command: &str,
        ticket: Option<u64>,
        outcome: HookOutcome,
    ) -> Option<Action> {
        // It may have been settled while the lines came.
        let open = self.questions.open.iter().position(|q| Some(q.ticket) == ticket);
        let (Some(at), Some(ticket)) = (open, ticket) else {
            s.answer(&self.decision(command));
            return None;
        };
        self.questions.open.remove(at);
        s.answer(&format!("SUCCESS: {command} command succeeded"));
        Some(Action::Decide { ticket, outcome })
    }

    fn ticket(&self, client: &str, key: &str) -> Result<Option<u64>, &'static str> {
        let client = number(client).ok_or("ERROR: cannot parse CID")?;
        let key = number(key).ok_or("ERROR: cannot parse KID")?;
        Ok(self.questions.find(client, key))
    }
}

/// As `sscanf` reads it: whatever follows the digits does not count.
pub(super) fn number(text: &str) -> Option<u64> {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

/// A question with all that is known of the client.
fn describe(what: &str, request: &ApprovalRequest, more: &str, count: usize) -> Zeroizing<String> {
    let ApprovalRequest { ticket, client, environment, input, .. } = request;
    let password = match input {
        HookInput::Credentials { password, .. } => password.as_str(),
        HookInput::Nothing | HookInput::Metadata { .. } => "",
    };
    // Reserved at once: growing would leave copies of the password behind.
    let length: usize = environment.iter().map(|(name, value)| name.len() + value.len() + 16).sum();
    let mut text =
        Zeroizing::new(String::with_capacity(length + password.len() + more.len() + 200));
    // Writing to a String cannot fail.
    let _ = writeln!(text, ">CLIENT:{what},{client},{ticket}{more}");
    let _ = writeln!(text, ">CLIENT:ENV,n_clients={count}");
    for (name, value) in environment.iter() {
        let _ = writeln!(text, ">CLIENT:ENV,{name}={}", plain(value, None));
    }
    if !password.is_empty() {
        let _ = writeln!(text, ">CLIENT:ENV,password={password}");
    }
    text.push_str(">CLIENT:ENV,END\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Environment;
    use crate::manage::tests::{alice, ask, connected, settings, take, view};

    fn question(client: u64, ticket: u64, renegotiation: bool) -> ApprovalRequest {
        let mut environment = Environment::new();
        environment.set("username", "jo");
        let password = "se\u{e9} cret".to_owned().into();
        let input = HookInput::Credentials { username: "jo".into(), password };
        ApprovalRequest { ticket, client, renegotiation, environment, input }
    }

    #[test]
    fn clients_are_decided_on() {
        let mut console = connected(settings(true));
        let view = view(alice());
        console.ask(&question(7, 3, false), 1);
        let text = ">CLIENT:CONNECT,7,3\n>CLIENT:ENV,n_clients=1\n>CLIENT:ENV,username=jo\n\
                    >CLIENT:ENV,password=se\u{e9} cret\n>CLIENT:ENV,END\n";
        assert_eq!(take(&mut console), text);
        let failed = |command: &str| (format!("ERROR: {command} command failed\n"), vec![]);
        let error = |text: &str| (format!("ERROR: {text}\n"), vec![]);
        // Only who is asked about can be decided on, and only by the last key.
        for (line, answer) in [
            ("client-auth-nt 7 2", failed("client-auth")),
            ("client-auth-nt 8 3", failed("client-auth")),
            ("client-deny 8 3 x", failed("client-deny")),
            ("client-auth-nt x 3", error("cannot parse CID")),
            ("client-auth 7 x", error("cannot parse KID")),
            ("client-pending-auth 7 3 x soon", failed("client-pending-auth")),
        ] {
            let said = ask(&mut console, &view, line);
            let same = said.0.starts_with(answer.0.trim_end()) && said.1 == answer.1;
            assert!(same, "{line}: {said:?}");
        }
        let pend = Action::Pend { ticket: 3, timeout: 60, message: "CR_TEXT:E,R:Code".into() };
        let succeeded = |command: &str| format!("SUCCESS: {command} command succeeded\n");
        let said = ask(&mut console, &view, "client-pending-auth 7 3 CR_TEXT:E,R:Code 60");
        assert_eq!(said, (succeeded("client-pending-auth"), vec![pend]));
        console.challenge_answered(&question(7, 3, false), "MTIz", 1);
        assert!(take(&mut console).starts_with(">CLIENT:CR_RESPONSE,7,3,MTIz\n>CLIENT:ENV,"));
        for line in ["client-auth 7 3", "push \"route 10.1.0.0 255.255.0.0\"", "  # kill alice"] {
            assert_eq!(ask(&mut console, &view, line), (String::new(), vec![]));
        }
        let settings = "push \"route 10.1.0.0 255.255.0.0\"\n  # kill alice\n".to_owned();
        let outcome = HookOutcome::Success { settings };
        let decided = vec![Action::Decide { ticket: 3, outcome }];
        assert_eq!(ask(&mut console, &view, "END"), (succeeded("client-auth"), decided));
        assert_eq!(ask(&mut console, &view, "client-auth-nt 7 3"), failed("client-auth"), "once");

        console.ask(&question(7, 4, true), 1);
        assert!(take(&mut console).starts_with(">CLIENT:REAUTH,7,4\n"));
        let outcome = HookOutcome::Failure { reason: "come back, on monday".into() };
        let said = ask(&mut console, &view, "client-deny 7 4 log \"come back, on monday\"");
        assert_eq!(said, (succeeded("client-deny"), vec![Action::Decide { ticket: 4, outcome }]));
        // What nobody waits for any more cannot be decided.
        console.ask(&question(8, 5, false), 1);
        console.never_mind(8);
        assert!(take(&mut console).ends_with(">CLIENT:DISCONNECT,8\n>CLIENT:ENV,END\n"));
        assert_eq!(ask(&mut console, &view, "client-auth-nt 8 5"), failed("client-auth"));
    }

    #[test]
    fn who_comes_late_is_asked_what_is_still_open() {
        let mut secret = settings(true);
        secret.password = Some("x".to_owned().into());
        let mut console = Console::new(secret);
        console.ask(&question(1, 1, false), 0);
        console.ask(&question(2, 2, false), 0);
        console.never_mind(1);
        console.connect();
        assert_eq!(take(&mut console), "ENTER PASSWORD:", "not before the password");
        let text = ask(&mut console, &view(Vec::new()), "x").0;
        assert!(text.contains(">CLIENT:CONNECT,2,2\n") && !text.contains("CONNECT,1,1"), "{text}");
        assert!(!format!("{console:?}").contains("username"));
    }

    #[test]
    fn a_program_cannot_give_a_client_without_end() {
        let mut console = connected(settings(true));
        let view = view(Vec::new());
        console.ask(&question(1, 1, false), 0);
        take(&mut console);
        ask(&mut console, &view, "client-auth 1 1");
        (0..40).for_each(|_| drop(ask(&mut console, &view, &"x".repeat(1000))));
        assert_eq!(ask(&mut console, &view, "END").1, vec![]);
        assert_eq!(ask(&mut console, &view, "client-auth-nt 1 1").1.len(), 1, "it is still open");
    }
}
