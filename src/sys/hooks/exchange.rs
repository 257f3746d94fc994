//! The files that a script and we tell each other something by [9.12].
//!
//! All are made by us, for us alone (0600, names that cannot be guessed, never an existing file),
//! and removed when the exchange is dropped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::hooks::PasswordBy;
use crate::engine::{Environment, HookInput, HookKind, HookOutcome, HookRequest};
use crate::limits::MAX_HOOK_SETTINGS;
use crate::random::Random as _;
use crate::sys::clock::OsRandom;
use crate::sys::keeper::KeptScript;

/// Exit status by which `auth-user-pass-verify` says that it will answer later.
const LATER: i32 = 2;
/// Longest text that a script may have for a client.
const MAX_TEXT: u64 = 1024;

/// A file that goes with its owner.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Temporary {
    /// A new file with this content.
    fn new(folder: &Path, what: &str, content: &[u8]) -> io::Result<Self> {
        let mut random = [0; 16];
        OsRandom::new().fill(&mut random);
        let path = folder.join(format!("sixgate_{what}_{:032x}.tmp", u128::from_be_bytes(random)));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let temporary = Self(path);
        file.write_all(content)?;
        Ok(temporary)
    }

    /// What the script has written; empty when it has removed the file.
    fn text(&self, limit: u64) -> String {
        let mut bytes = Vec::new();
        // What cannot be read says nothing.
        let _ = File::open(&self.0).and_then(|file| file.take(limit).read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A script's answer as far as it has given one.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is decided.
    Now(HookOutcome),
    /// It is to be looked for again.
    Later {
        /// What the client is to be told meanwhile, if the script says so.
        pending: Option<Pending>,
    },
}

/// `auth_pending_file`.
#[derive(Debug, PartialEq, Eq)]
pub struct Pending {
    /// Seconds until the answer is there at the latest.
    pub timeout: u32,
    /// What the client has to be able to do.
    pub method: String,
    /// What it is told.
    pub message: String,
}

/// One request's files.
#[derive(Debug)]
pub(super) struct Exchange {
    kind: HookKind,
    /// `auth_control_file` or `client_connect_deferred_file`.
    verdict: Option<Temporary>,
    /// `auth_pending_file`.
    pending: Option<Temporary>,
    /// `auth_failed_reason_file`.
    reason: Option<Temporary>,
    /// `client_connect_config_file`.
    settings: Option<Temporary>,
    /// What the script reads; the password, perhaps.
    input: Option<Temporary>,
    /// The keeper has the files.
    kept: Option<KeptScript>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(script) = &self.kept {
            script.forget();
        }
    }
}

impl Exchange {
    /// With files that the keeper has made.
    pub(super) fn kept(kind: HookKind, script: KeptScript) -> Self {
        let mut exchange = Self::without_files(kind);
        exchange.kept = Some(script);
        exchange
    }

    fn without_files(kind: HookKind) -> Self {
        Self {
            kind,
            verdict: None,
            pending: None,
            reason: None,
            settings: None,
            input: None,
            kept: None,
        }
    }

    /// Makes the files that this request needs, and names them in `environment` and `arguments`.
    pub(super) fn new(
        request: &HookRequest,
        password_by: PasswordBy,
        folder: &Path,
        environment: &mut Environment,
        arguments: &mut Vec<String>,
    ) -> io::Result<Self> {
        let mut exchange = Self::without_files(request.kind);
        let mut file = |variable: &str, what: &str| {
            let file = Temporary::new(folder, what, b"")?;
            environment.set(variable, file.0.display());
            Ok::<_, io::Error>(Some(file))
        };
        match request.kind {
            HookKind::AuthUserPassVerify => {
                exchange.verdict = file("auth_control_file", "acf")?;
                exchange.pending = file("auth_pending_file", "apf")?;
                exchange.reason = file("auth_failed_reason_file", "afr")?;
            }
            HookKind::ClientConnect => {
                exchange.verdict = file("client_connect_deferred_file", "ccr")?;
                exchange.settings = file("client_connect_config_file", "cc")?;
                arguments.extend(exchange.settings.iter().map(|file| name(&file.0)));
            }
            HookKind::Up
            | HookKind::Down
            | HookKind::RouteUp
            | HookKind::RoutePreDown
            | HookKind::DnsUp
            | HookKind::DnsDown
            | HookKind::IpChange
            | HookKind::TlsVerify
            | HookKind::TlsCryptV2Verify
            | HookKind::ClientDisconnect
            | HookKind::LearnAddress => {}
        }
        match &request.input {
            HookInput::Nothing => {}
            HookInput::Credentials { username, password } => match password_by {
                PasswordBy::File => {
                    let text = zeroize::Zeroizing::new(format!("{username}\n{}\n", **password));
                    let file = Temporary::new(folder, "up", text.as_bytes())?;
                    arguments.push(name(&file.0));
                    exchange.input = Some(file);
                }
                PasswordBy::Variable => environment.set("password", &**password),
                PasswordBy::Nothing => {}
            },
            HookInput::Metadata { kind, bytes } => {
                let file = Temporary::new(folder, "tcm", bytes)?;
                environment.set("metadata_type", kind);
                environment.set("metadata_file", file.0.display());
                exchange.input = Some(file);
            }
        }
        Ok(exchange)
    }

    /// What follows from the script's end; `None` is an end by a signal.
    pub(super) fn finished(&mut self, status: Option<i32>) -> Answer {
        if let Some(script) = &self.kept {
            return script.answer();
        }
        // The password is needed no longer.
        self.input = None;
        let later = Answer::Later { pending: None };
        match (self.kind, status) {
            (HookKind::AuthUserPassVerify, Some(LATER)) => match self.verdict() {
                Some(outcome) => Answer::Now(outcome),
                None => self.pending(),
            },
            (HookKind::ClientConnect, Some(0)) => {
                let verdict = self.verdict.as_ref().map(|file| file.text(1));
                match verdict.as_deref() {
                    Some("2") => later,
                    Some("0") => Answer::Now(self.failure()),
                    Some(_) | None => Answer::Now(self.success()),
                }
            }
            (_, Some(0)) => Answer::Now(self.success()),
            (_, _) => Answer::Now(self.failure()),
        }
    }

    /// The answer of a script that has put it off, if it is there.
    pub(super) fn later(&self) -> Option<HookOutcome> {
        if let Some(script) = &self.kept {
            return script.later();
        }
        self.verdict()
    }

    /// The answer of a script that has put it off and did not give it in time.
    pub(super) fn overdue(&self) -> HookOutcome {
        if let Some(script) = &self.kept {
            return script.overdue();
        }
        self.failure()
    }

    fn verdict(&self) -> Option<HookOutcome> {
        match self.verdict.as_ref()?.text(1).as_str() {
            "1" => Some(self.success()),
            "0" => Some(self.failure()),
            _ => None,
        }
    }

    /// Three lines: seconds, method, message.
    fn pending(&self) -> Answer {
        let text = self.pending.as_ref().map(|file| file.text(MAX_TEXT)).unwrap_or_default();
        let mut lines = text.lines().map(printable);
        let timeout = lines.next().and_then(|line| line.trim().parse().ok());
        let (method, message) = (lines.next(), lines.next());
        let pending = timeout.map(|timeout| Pending {
            timeout,
            method: method.unwrap_or_default(),
            message: message.unwrap_or_default(),
        });
        Answer::Later { pending }
    }

    fn success(&self) -> HookOutcome {
        let settings = self.settings.as_ref().map(|file| file.text(MAX_HOOK_SETTINGS));
        HookOutcome::Success { settings: settings.unwrap_or_default() }
    }

    fn failure(&self) -> HookOutcome {
        let text = self.reason.as_ref().map(|file| file.text(MAX_TEXT)).unwrap_or_default();
        HookOutcome::Failure { reason: printable(text.lines().next().unwrap_or_default()) }
    }
}

fn printable(line: &str) -> String {
    line.chars().filter(|c| !c.is_control()).collect()
}

fn name(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
