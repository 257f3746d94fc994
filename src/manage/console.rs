//! The management interface across connections: answers requests, keeps histories and the hold,
//! and turns the answers' side effects into [`Action`]s [9.14].
//!
//! The caller connects and disconnects, moves bytes, and calls [`Console::next`] with a fresh
//! [`View`] while [`Console::has_line`]. One connection at a time, as in OpenVPN.

use core::fmt::Write as _;
use core::time::Duration;
use zeroize::Zeroizing;

use super::approval::Questions;
use super::history::History;
use super::login::Query;
use super::protocol::{HELP, Request, parse};
use super::session::Session;
use super::target::Target;
use super::{Action, Signal, TITLE, View, notify, status};
use crate::engine::{HookOutcome, PeerId};
use crate::limits::MANAGEMENT_HISTORY;
use crate::time::Instant;

/// Version of the protocol; 5 is OpenVPN 2.6's.
const PROTOCOL: u32 = 5;
/// Highest verbosity that `verb` takes.
const MAX_VERB: i32 = 15;

/// What the configuration says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether we are a server.
    pub server: bool,
    /// What a connection has to give first.
    pub password: Option<Zeroizing<String>>,
    /// Log lines kept.
    pub log_lines: usize,
    /// `management-hold`: nothing starts before it is released.
    pub hold: bool,
    /// `management-query-passwords`.
    pub query: bool,
}

/// The management interface.
#[derive(Debug)]
pub struct Console {
    pub(super) settings: Settings,
    pub(super) session: Option<Session>,
    pub(super) log: History<String>,
    pub(super) states: History<String>,
    /// Nothing has started yet, nor may it.
    holding: bool,
    mute: i32,
    pub(super) questions: Questions,
    /// (Client) the login that is asked for.
    pub(super) query: Option<Query>,
}

impl Console {
    /// An interface that nobody has connected to yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            session: None,
            log: History::new(settings.log_lines),
            states: History::new(MANAGEMENT_HISTORY),
            holding: settings.hold,
            mute: 0,
            questions: Questions::default(),
            query: None,
            settings,
        }
    }

    /// A new connection takes the place of an old one.
    pub fn connect(&mut self) {
        self.session = Some(Session::new(self.settings.password.is_some()));
        if self.settings.password.is_none() {
            self.welcome();
        }
    }

    /// The connection is gone.
    pub fn disconnect(&mut self) {
        self.session = None;
    }

    /// Whether there is a connection.
    pub const fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// Whether everything has been said and the connection is to be closed.
    pub fn is_finished(&self) -> bool {
        self.session.as_ref().is_some_and(|s| s.closing && s.output().is_empty())
    }

    /// How many bytes [`Self::input`] takes at the moment.
    pub fn room(&self) -> usize {
        self.session.as_ref().map_or(0, Session::room)
    }

    /// Bytes from the connection, at most [`Self::room`].
    pub fn input(&mut self, bytes: &[u8]) {
        if let Some(session) = &mut self.session {
            session.input(bytes);
        }
    }

    /// Bytes for the connection.
    pub fn output(&self) -> &[u8] {
        self.session.as_ref().map_or(&[], Session::output)
    }

    /// So many bytes of [`Self::output`] have been sent.
    pub fn sent(&mut self, count: usize) {
        if let Some(session) = &mut self.session {
            session.sent(count);
        }
    }

    /// Whether the start waits for `hold release`.
    pub const fn is_holding(&self) -> bool {
        self.holding
    }

    /// Whether a line waits to be answered.
    pub fn has_line(&self) -> bool {
        self.session.as_ref().is_some_and(Session::has_line)
    }

    /// Answers lines until one wants something done, or there is none left.
    pub fn next(&mut self, now: Instant, view: &View) -> Option<Action> {
        loop {
            let mut session = self.session.take()?;
            let action = session.next_line().map(|line| self.line(now, view, &mut session, &line));
            self.session = Some(session);
            match action {
                None => return None,
                Some(None) => {}
                Some(Some(action)) => return Some(action),
            }
        }
    }

    fn welcome(&mut self) {
        let Some(session) = &mut self.session else { return };
        greet(session, self.holding);
        self.questions.repeat(session);
        self.query.iter().for_each(|query| query.repeat(session));
    }

    fn line(&mut self, now: Instant, view: &View, s: &mut Session, line: &str) -> Option<Action> {
        if s.is_locked() {
            if s.unlock(line, self.settings.password.as_ref().map_or("", |p| p.as_str())) {
                s.answer("SUCCESS: password is correct");
                greet(s, self.holding);
                self.questions.repeat(s);
                self.query.iter().for_each(|query| query.repeat(s));
            }
            return None;
        }
        if let Some(mut given) = s.given.take() {
            if line == "END" {
                return self.give(s, given);
            }
            given.push(line);
            s.given = Some(given);
            return None;
        }
        if line.trim_start().starts_with("password") {
            log::debug!("MANAGEMENT: CMD 'password [...]'");
        } else if line != "load-stats" {
            log::debug!("MANAGEMENT: CMD '{line}'");
        }
        self.request(now, view, s, parse(line))
    }

    fn request(
        &mut self,
        now: Instant,
        view: &View,
        s: &mut Session,
        request: Request,
    ) -> Option<Action> {
        match request {
            Request::Nothing | Request::ClientVersion => {}
            Request::Exit => s.closing = true,
            Request::Help => s.answer(&format!("Management Interface for {TITLE}\n{HELP}")),
            Request::Version => {
                s.answer(&format!("OpenVPN Version: {TITLE}\nManagement Version: {PROTOCOL}\nEND"));
            }
            Request::Pid => s.answer(&format!("SUCCESS: pid={}", view.pid)),
            Request::ClientCount => s.answer(&match self.serves() {
                true => format!("SUCCESS: nclients={}", view.clients.len()),
                false => unsupported("nclients"),
            }),
            Request::EnvFilter(level) => s.answer(&format!("SUCCESS: env_filter_level={level}")),
            Request::Signal(name) => return self.signal(s, &name),
            Request::LoadStats => s.answer(&format!(
                "SUCCESS: nclients={},bytesin={},bytesout={}",
                view.clients.len(),
                view.traffic.link_in,
                view.traffic.link_out
            )),
            Request::Status(format) => s.answer(&self.status(view, format)),
            Request::Kill(victim) => return self.kill(s, view, &victim),
            Request::ClientKill(id, word) => {
                return self.client_kill(s, view, &id, word.as_deref());
            }
            Request::Verb(level) => return verb(s, view, level),
            Request::Mute(level) => self.mute(s, level),
            Request::AuthRetry(mode) => s.answer(match mode.as_deref() {
                None => "SUCCESS: auth-retry=none",
                Some("none") => "SUCCESS: auth-retry parameter changed",
                Some(_) => "ERROR: bad auth-retry parameter",
            }),
            Request::Log(args) => history(s, "log", &args, &self.log),
            Request::State(args) => history(s, "state", &args, &self.states),
            // Nothing is ever echoed: `echo` and `parameter` lines have no effect.
            Request::Echo(args) => history(s, "echo", &args, &History::new(0)),
            Request::Hold(word) => self.hold(s, word.as_deref()),
            Request::Bytecount(seconds) => {
                let seconds = u32::try_from(seconds).ok().filter(|seconds| *seconds > 0);
                s.bytecount = seconds.map(|n| (n, now + Duration::from_secs(n.into())));
                s.answer("SUCCESS: bytecount interval changed");
            }
            Request::ForgetPasswords => s.answer("SUCCESS: Passwords were forgotten"),
            Request::ClientAuth([client, key]) => self.begin(s, [&client, &key]),
            Request::ClientAuthNt([client, key]) => {
                let outcome = HookOutcome::Success { settings: String::new() };
                return self.verdict(s, "client-auth", [&client, &key], outcome);
            }
            Request::ClientDeny([client, key], reason, told) => {
                log::info!(
                    "management: client {client} is denied: {}",
                    super::plain(&reason, None)
                );
                let outcome = HookOutcome::Failure { reason: told };
                return self.verdict(s, "client-deny", [&client, &key], outcome);
            }
            Request::ClientPendingAuth([client, key, message, seconds]) => {
                return self.pend(s, [&client, &key, &message, &seconds]);
            }
            Request::Entered(what, words) => return self.entered(s, what, words),
            Request::ClientOnly(command) => s.answer(&match self.settings.server {
                true => unsupported(command),
                false => format!("ERROR: {command} command failed"),
            }),
            Request::Error(text) => s.answer(&text),
        }
        None
    }

    /// Whether there can be clients.
    const fn serves(&self) -> bool {
        self.settings.server && !self.holding
    }

    fn status(&self, view: &View, format: i32) -> String {
        // The number's default is the format that the status file has by default.
        let format =
            u32::try_from(format).ok().map(|n| n.max(1)).and_then(status::Format::from_number);
        match (self.holding, self.settings.server, format) {
            (true, _, _) => unsupported("status"),
            (false, true, Some(format)) => status::server(view, format),
            (false, true, None) => "ERROR: bad status format version number".to_owned(),
            (false, false, _) => status::client(view),
        }
    }

    fn signal(&self, s: &mut Session, name: &str) -> Option<Action> {
        let Some(signal) = Signal::from_name(name) else {
            s.answer(&format!("ERROR: signal '{name}' is not a known signal type"));
            return None;
        };
        if self.holding && matches!(signal, Signal::Hup | Signal::Usr1) {
            s.answer(&format!("ERROR: signal '{name}' is currently ignored\n{HOLD}"));
            return None;
        }
        s.answer(&format!("SUCCESS: signal {name} thrown"));
        Some(Action::Signal(signal))
    }

    fn kill(&self, s: &mut Session, view: &View, victim: &str) -> Option<Action> {
        if !self.serves() {
            s.answer(&unsupported("kill"));
            return None;
        }
        let peers = |wanted: &dyn Fn(&crate::engine::ClientInfo) -> bool| -> Vec<PeerId> {
            view.clients.iter().filter(|c| wanted(c)).map(|c| c.peer).collect()
        };
        let named = peers(&|c| c.common_name == victim);
        // A name that looks like an address is still a name when somebody has it.
        let target = if named.is_empty() { Target::parse(victim) } else { Target::Name };
        let (found, which) = match &target {
            Target::Name => (named, String::new()),
            Target::Socket(address) => (peers(&|c| c.from.peer == *address), address.to_string()),
            Target::Address(ip) => (peers(&|c| c.from.peer.ip() == *ip), ip.to_string()),
            Target::Bad(error) => (Vec::new(), error.clone()),
        };
        let count = found.len();
        s.answer(&match (&target, count) {
            (Target::Bad(_), _) => format!("ERROR: {which}"),
            (Target::Name, 0) => format!("ERROR: common name '{victim}' not found"),
            (Target::Name, _) => {
                format!("SUCCESS: common name '{victim}' found, {count} client(s) killed")
            }
            (Target::Socket(_) | Target::Address(_), 0) => {
                format!("ERROR: client at address {which} not found")
            }
            (Target::Socket(_) | Target::Address(_), _) => {
                format!("SUCCESS: {count} client(s) at address {which} killed")
            }
        });
        (count > 0).then_some(Action::Kick(found))
    }

    fn client_kill(
        &self,
        s: &mut Session,
        view: &View,
        id: &str,
        word: Option<&str>,
    ) -> Option<Action> {
        if !self.serves() {
            s.answer(&unsupported("client-kill"));
            return None;
        }
        let Some(id) = super::approval::number(id) else {
            s.answer("ERROR: cannot parse CID");
            return None;
        };
        let Some(client) = view.clients.iter().find(|client| client.id == id) else {
            s.answer("ERROR: client-kill command failed");
            return None;
        };
        s.answer("SUCCESS: client-kill command succeeded");
        match word {
            Some(word) if word.starts_with("HALT") => Some(Action::Halt(client.peer)),
            Some(_) | None => Some(Action::Kick(vec![client.peer])),
        }
    }

    fn mute(&mut self, s: &mut Session, level: Option<i32>) {
        match level {
            None => s.answer(&format!("SUCCESS: mute={}", self.mute)),
            Some(level) if level < 0 => s.answer("ERROR: mute level is out of range"),
            Some(level) => {
                self.mute = level;
                s.answer("SUCCESS: mute level changed");
            }
        }
    }

    fn hold(&mut self, s: &mut Session, word: Option<&str>) {
        match word {
            None => s.answer(&format!("SUCCESS: hold={}", u8::from(self.settings.hold))),
            Some("on") => {
                self.settings.hold = true;
                s.answer("SUCCESS: hold flag set to ON");
            }
            Some("off") => {
                self.settings.hold = false;
                s.answer("SUCCESS: hold flag set to OFF");
            }
            Some("release") => {
                self.holding = false;
                s.answer("SUCCESS: hold release succeeded");
            }
            Some(_) => s.answer("ERROR: bad hold command parameter"),
        }
    }

    /// Nobody waits for this decision.
    pub(super) fn decision(&self, command: &str) -> String {
        match self.settings.server {
            true => format!("ERROR: {command} command failed"),
            false => unsupported(command),
        }
    }

    /// When [`Self::handle_timeout`] wants to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.session.as_ref()?.bytecount.map(|(_, due)| due)
    }

    /// Reports bytes when that is due.
    pub fn handle_timeout(&mut self, now: Instant, view: &View) {
        let server = self.settings.server;
        let Some(session) = &mut self.session else { return };
        let Some((seconds, due)) = session.bytecount.filter(|(_, due)| *due <= now) else { return };
        // Late once does not mean early the next time, nor many at once after a suspend.
        let next = (due + Duration::from_secs(seconds.into())).max(now);
        session.bytecount = Some((seconds, next));
        notify::bytes(session, server, view);
    }
}

const HOLD: &str = ">HOLD:Waiting for hold release:0";

fn greet(session: &mut Session, holding: bool) {
    let mut text = format!(
        ">INFO:OpenVPN Management Interface Version {PROTOCOL} -- type 'help' for more info\n"
    );
    if holding {
        text.push_str(HOLD);
    }
    session.answer(&text);
}

fn unsupported(command: &str) -> String {
    format!("ERROR: The '{command}' command is not supported by the current daemon mode")
}

fn verb(s: &mut Session, view: &View, level: Option<i32>) -> Option<Action> {
    match level {
        None => s.answer(&format!("SUCCESS: verb={}", view.verb)),
        Some(level) if (0..=MAX_VERB).contains(&level) => {
            s.answer("SUCCESS: verb level changed");
            return u8::try_from(level).ok().map(Action::Verb);
        }
        Some(_) => s.answer("ERROR: verb level is out of range"),
    }
    None
}

/// `log`, `state` and `echo`: each parameter on its own.
fn history(s: &mut Session, kind: &'static str, args: &[String], entries: &History<String>) {
    for arg in args {
        let count = super::protocol::number(Some(arg.clone()));
        let count = match arg.as_str() {
            "on" | "off" => {
                let on = arg == "on";
                match kind {
                    "log" => s.log = on,
                    "state" => s.state = on,
                    _ => s.echo = on,
                }
                let word = if on { "ON" } else { "OFF" };
                s.answer(&format!("SUCCESS: real-time {kind} notification set to {word}"));
                continue;
            }
            "all" => usize::MAX,
            _ => usize::try_from(count).unwrap_or(0),
        };
        if count == 0 {
            s.answer(&format!(
                "ERROR: {kind} parameter must be 'on' or 'off' or some number n or 'all'"
            ));
            continue;
        }
        let mut text = String::new();
        for entry in entries.newest(count) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{entry}");
        }
        s.answer(&(text + "END"));
    }
}
