//! Two processes instead of one: the *keeper*, which stays root and hears nothing from the network,
//! and the one that handles packets, which is nobody in particular and asks the keeper for the few
//! things that only root can do. So who takes over the latter cannot read a key, nor any file.
//!
//! ```text
//!   keeper (root)       <── request ──  packets (user `sixgate`, CAP_NET_ADMIN, seccomp)
//!   the configuration   ── answer ──>   UDP, TUN, netlink, control socket, management
//!   the state folder    ── signals ──>
//! ```
//!
//! The keeper is the process that was started, which service managers and pid files know. It reads the
//! configuration and forks; what it forks opens everything with all privileges, as a process of its own
//! would, then gives them up. For a configuration that needs everything opened anew the keeper
//! forks afresh, with all privileges again: so there is no request for a socket or a device.
//!
//! Requests have a purpose and no path ([`Request`]): the keeper reads what its own configuration names.
//! Where files have to be understood, as with the configuration, both sides run the same code: the
//! keeper's on the disk, with each look recorded; ours on the record ([`transcript`]). The answer to
//! "the configuration again" therefore holds exactly the files that it names.
//!
//! Scripts expect root's rights; they are the keeper's children ([`script`]).
//!
//! There is a keeper where a process starts as root, may become another user, and does not name
//! `user` or `group`, whose meaning is OpenVPN's. Anywhere else [`Access`] does by itself what it is asked for.

mod keep;
mod script;
mod talk;
mod transcript;

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;

pub use self::keep::divide;
pub use self::talk::Request;
use self::transcript::Transcript;
use super::hooks::Answer;
use super::signal::Signals;
use super::state::{self, NewIdentity};
use super::store::{DiskFiles, OsDisk, Reading, write_private};
use super::{privilege, process};
use crate::config::{Config, Process};
use crate::engine::{HookOutcome, HookRequest};
use crate::time::UnixTime;

/// Whether this configuration is to be run by two processes.
pub fn is_wanted(config: &Config) -> bool {
    let Process { user, group, .. } = &config.process;
    user.is_none() && group.is_none() && privilege::may_change_user()
}

/// The way to what only root may do: through the keeper, or none in between.
#[derive(Debug, Clone, Default)]
pub struct Access(Option<Rc<Link>>);

/// The connection to the keeper.
#[derive(Debug)]
struct Link {
    stream: UnixStream,
    signals: UnixStream,
    /// Its end has been reported.
    gone: Cell<bool>,
}

impl Access {
    /// Whether there is a keeper.
    pub const fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// What the process is told from outside. The keeper passes on what it is sent itself.
    pub fn signals(&self) -> io::Result<Signals> {
        match &self.0 {
            Some(link) => Ok(Signals::Forwarded(link.signals.try_clone()?)),
            None => Signals::open(),
        }
    }

    /// Everything is open. Returns once the keeper has written the pid file, and has gone to the background
    /// if it is to.
    pub fn ready(&self) -> Result<(), String> {
        let answer = self.ask(Request::Ready, &[])?;
        let id = answer.as_slice().try_into().map_err(|_| talk::GARBLED)?;
        process::set_id(u32::from_be_bytes(id));
        Ok(())
    }

    /// Runs `look` on the disk, or on what the keeper saw there when it did the same.
    pub fn reading<T>(
        &self,
        purpose: Request,
        of: &str,
        look: impl FnOnce(&dyn Reading) -> T,
    ) -> T {
        if !self.is_kept() {
            return look(&DiskFiles);
        }
        let record = self.ask(purpose, of.as_bytes()).unwrap_or_default();
        look(&Transcript::parse(&record))
    }

    /// Gives a file of the state its new contents, all or nothing. `path` is for who has no keeper.
    pub fn save(&self, what: Request, path: &Path, bytes: &[u8]) -> Result<(), String> {
        match self.is_kept() {
            true => self.ask(what, bytes).map(drop),
            false => write_private(&OsDisk, path, bytes),
        }
    }

    /// See [`state::renew_if_due`].
    pub fn renew(&self, state: &Path, now: UnixTime) -> Result<Option<NewIdentity>, String> {
        match self.is_kept() {
            true => transcript::parse_identity(&self.ask(Request::Renew, &[])?),
            false => state::renew_if_due(state, now),
        }
    }

    /// A file that is written to, opened anew; `own` is for who has no keeper.
    pub fn open(
        &self,
        what: Request,
        own: impl FnOnce() -> Result<File, String>,
    ) -> Result<File, String> {
        let Some(link) = &self.0 else { return own() };
        self.ask(what, &[])?;
        self.take_file(link)
    }

    /// Has a script run. Returns its handle, and where its output comes from.
    pub fn run_script(&self, request: &HookRequest) -> Result<(KeptScript, File), String> {
        let Some(link) = &self.0 else { return Err("there is no keeper".to_owned()) };
        let number = self.ask(Request::RunScript, &script::write_request(request))?;
        let script = KeptScript { access: self.clone(), number };
        match self.take_file(link) {
            Ok(output) => Ok((script, output)),
            Err(error) => {
                script.forget();
                Err(error)
            }
        }
    }

    /// Tells the keeper something that has no answer worth knowing.
    pub fn tell(&self, what: Request) {
        let _ = self.ask(what, &[]);
    }

    /// Takes over the file that comes behind an answer.
    fn take_file(&self, link: &Link) -> Result<File, String> {
        match talk::receive_file(&link.stream) {
            Ok(Some(file)) => Ok(file),
            Ok(None) => Err("Too many open files".to_owned()),
            Err(error) => Err(self.lost(&error)),
        }
    }

    fn ask(&self, request: Request, body: &[u8]) -> Result<Vec<u8>, String> {
        let Some(link) = &self.0 else { return Ok(Vec::new()) };
        let answer = talk::send(&link.stream, request as u8, body)
            .and_then(|()| talk::receive(&link.stream, usize::MAX));
        match answer {
            Ok((talk::GOOD, answer)) => Ok(answer),
            Ok((_, error)) => Err(String::from_utf8_lossy(&error).into_owned()),
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// There is no going on after that; the event loop hears of it by the end of the signals.
    fn lost(&self, error: &io::Error) -> String {
        if let Some(link) = &self.0
            && !link.gone.replace(true)
        {
            log::debug!("the keeper does not answer: {error}");
            let _ = link.signals.shutdown(Shutdown::Read);
        }
        "the keeper does not answer".to_owned()
    }
}

/// A script that the keeper runs for us. It goes on when this is dropped.
#[derive(Debug, Clone)]
pub struct KeptScript {
    access: Access,
    number: Vec<u8>,
}

impl KeptScript {
    /// Its exit status once it has ended; `Some(None)` when a signal ended it, or nothing is known.
    pub fn status(&self) -> Option<Option<i32>> {
        script::parse_status(&self.ask(Request::ScriptStatus))
    }

    /// What it says, once it has ended.
    pub fn answer(&self) -> Answer {
        script::parse_answer(&self.ask(Request::ScriptAnswer)).unwrap_or(Answer::Now(failure()))
    }

    /// What it has answered since.
    pub fn later(&self) -> Option<HookOutcome> {
        script::parse_outcome(&self.ask(Request::ScriptLater))
    }

    /// What follows from its taking too long.
    pub fn overdue(&self) -> HookOutcome {
        script::parse_outcome(&self.ask(Request::ScriptOverdue)).unwrap_or_else(failure)
    }

    /// Ends it.
    pub fn end(&self) {
        self.ask(Request::EndScript);
    }

    /// Ends it, and removes its files.
    pub fn forget(&self) {
        self.ask(Request::ForgetScript);
    }

    fn ask(&self, request: Request) -> Vec<u8> {
        self.access.ask(request, &self.number).unwrap_or_default()
    }
}

fn failure() -> HookOutcome {
    HookOutcome::Failure { reason: String::new() }
}
