//! The keeper's side: waits for requests and signals, and for the end of the process it has forked.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::exit;
use std::rc::Rc;
use std::time::Duration;

use log::LevelFilter;

use super::script::{self, Scripts};
use super::talk::{self, Request};
use super::transcript::{self, Recorder};
use super::{Access, Link};
use crate::config::{Config, Files as _, Role, ServerRole};
use crate::limits::MAX_KEPT;
use crate::sys::client_files::ClientFolder;
use crate::sys::clock::{Clock, unix_time};
use crate::sys::output_file::OutputFile;
use crate::sys::poll::PollSet;
use crate::sys::process::{self, Background, Child, Ending, PidFile};
use crate::sys::reload::{self, Source};
use crate::sys::service::{self, Start};
use crate::sys::signal::{Signal, Signals};
use crate::sys::store::{OsDisk, Reading as _, write_private};
use crate::sys::{ctl_socket, hooks, management, state};
use crate::time::Instant;

/// How long the other side may take to end when it is asked to: longer than it waits for anything itself,
/// shorter than service managers wait for us.
const TERM: Duration = Duration::from_secs(8);
/// How long it may take to say what went wrong, once it is not connected any more.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Makes two processes of this one. Returns in the one that is to handle packets, with its configuration in
/// `config`; the other becomes the keeper, and ends the program when it has nobody to keep for.
/// There must be one thread only.
pub fn divide(source: &Source, config: &mut Config) -> Result<(Access, Start), String> {
    let failed = |error| format!("keeper: {error}");
    let mut background = match config.process.daemon {
        true => Some(process::to_background().map_err(failed)?),
        false => None,
    };
    let signals = Signals::open().map_err(failed)?;
    let mut start = Start::First;
    loop {
        let (stream, theirs) = UnixStream::pair().map_err(failed)?;
        let (bell, ear) = UnixStream::pair().map_err(failed)?;
        // Signals that nobody takes must not hold the keeper up.
        bell.set_nonblocking(true).and_then(|()| ear.set_nonblocking(true)).map_err(failed)?;
        let Some(child) = process::fork().map_err(failed)? else {
            let link = Link { stream: theirs, signals: ear, gone: false.into() };
            return Ok((Access(Some(Rc::new(link))), start));
        };
        drop((theirs, ear));
        let keeper = Keeper {
            source,
            config,
            background,
            pid_file: None,
            handed_over: None,
            chosen: None,
            leaving: None,
            scripts: Scripts::default(),
            opened: None,
        };
        let next = keeper.keep(&signals, &stream, &bell, child)?;
        *config = next;
        service::start_log_again(&config.process);
        (start, background) = (Start::Again, None);
    }
}

struct Keeper<'a> {
    source: &'a Source,
    /// In force.
    config: &'a mut Config,
    /// The way to the background, until everything is open.
    background: Option<Background>,
    pid_file: Option<PidFile>,
    /// What was read last, until something becomes of it.
    handed_over: Option<Box<Config>>,
    /// What to start over with.
    chosen: Option<Box<Config>>,
    /// How the other side says that it ends.
    leaving: Option<Request>,
    scripts: Scripts,
    /// To be sent behind the answer.
    opened: Option<File>,
}

impl Keeper<'_> {
    /// Answers until the other side is gone. Returns the configuration to start over with; otherwise the
    /// program ends here.
    fn keep(
        mut self,
        signals: &Signals,
        stream: &UnixStream,
        mut bell: &UnixStream,
        child: Child,
    ) -> Result<Config, String> {
        let mut descriptors = PollSet::<2>::new();
        let clock = Clock::new();
        let mut end_at = None;
        loop {
            descriptors.clear();
            descriptors.add(signals.as_raw_fd(), true, false);
            descriptors.add(stream.as_raw_fd(), true, false);
            descriptors.wait(end_at.map(|end: Instant| end.since(clock.now().mono)));
            if end_at.is_some_and(|end| end <= clock.now().mono) {
                child.kill();
            }
            while let Some(signal) = signals.next() {
                // Scripts take the time that they are given.
                if signal == Signal::Shutdown && !hooks::any(&self.config.hooks) {
                    end_at.get_or_insert(clock.now().mono + TERM);
                }
                // Full: it has enough of them.
                let _ = bell.write(&[signal.number()]);
            }
            if descriptors.is_ready(stream.as_raw_fd()) && !self.serve(stream) {
                break;
            }
        }
        // Should it only have misbehaved, it hears of the end that way.
        let _ = stream.shutdown(std::net::Shutdown::Both);
        let _ = bell.shutdown(std::net::Shutdown::Both);
        let ending = child.end_within(LAST_WORDS);
        self.clear_away();
        match (self.leaving, ending) {
            (Some(Request::Restart), _) => {
                Ok(self.chosen.map_or_else(|| self.config.clone(), |chosen| *chosen))
            }
            (Some(_), Ending::Status(code)) => exit(code),
            // A mistake that ended it before everything was open; it has said what it was.
            (None, Ending::Status(code)) if code != 0 => exit(code),
            (_, Ending::Status(code)) => {
                Err(format!("the process that handles packets ended unasked, with status {code}"))
            }
            (_, Ending::Signal(signal)) => {
                Err(format!("the process that handles packets was ended by signal {signal}"))
            }
        }
    }

    /// Removes what the other side has made as root and cannot remove.
    fn clear_away(&mut self) {
        self.pid_file = None;
        // Nobody waits for these any more.
        self.scripts = Scripts::default();
        if let Some(state) = &self.config.process.state {
            let _ = ctl_socket::remove_left_behind(state);
        }
        if let Some(config) = &self.config.process.management {
            management::remove_left_behind(config);
        }
    }

    /// Answers one request; false at the end.
    fn serve(&mut self, stream: &UnixStream) -> bool {
        let Ok((kind, body)) = talk::receive(stream, MAX_KEPT) else { return false };
        let Some(request) = Request::parse(kind) else { return false };
        // Both sides see the same; that there is something to say about it, the other one says.
        let level = log::max_level();
        log::set_max_level(LevelFilter::Off);
        let answer = self.answer(request, &body);
        log::set_max_level(level);
        let sent = match &answer {
            Ok(answer) => talk::send(stream, talk::GOOD, answer),
            Err(error) => talk::send(stream, talk::BAD, error.as_bytes()),
        };
        let sent = sent.and_then(|()| match self.opened.take() {
            Some(file) => talk::send_file(stream, &file),
            None => Ok(()),
        });
        sent.is_ok()
    }

    fn answer(&mut self, request: Request, body: &[u8]) -> Result<Vec<u8>, String> {
        let done = |()| Vec::new();
        match request {
            Request::Ready => self.ready(),
            Request::Configuration => Ok(self.read_configuration()),
            Request::InForce => {
                if let Some(next) = self.handed_over.take() {
                    let old = core::mem::replace(self.config, *next);
                    service::reopen_log(&old.process, &self.config.process, &Access::default());
                }
                Ok(Vec::new())
            }
            Request::Choose => {
                self.chosen = self.handed_over.take();
                Ok(Vec::new())
            }
            Request::Restart | Request::End => {
                self.leaving = Some(request);
                Ok(Vec::new())
            }
            Request::Survey => {
                let folder = self.folder()?;
                Ok(record(|disk| drop(folder.survey(disk))))
            }
            Request::Client => {
                let name = core::str::from_utf8(body).map_err(|_| NOT_CONFIGURED)?;
                let folder = self.folder()?;
                Ok(record(|disk| drop(folder.settings(name, disk))))
            }
            Request::CrlTime => {
                let crl = self.crl()?;
                Ok(record(|disk| drop(disk.modified(crl))))
            }
            Request::Crl => {
                let crl = self.crl()?;
                Ok(record(|disk| drop(disk.read(crl))))
            }
            Request::Revoked => {
                let state = self.state()?;
                Ok(record(|disk| drop(state::revoked(state, disk))))
            }
            Request::Renew => {
                state::renew_if_due(self.state()?, unix_time()).map(transcript::write_identity)
            }
            Request::SaveLeases => {
                let persist = self.server()?.pool_persist.as_ref();
                let persist = persist.filter(|persist| persist.every.is_some());
                write_private(&OsDisk, &persist.ok_or(NOT_CONFIGURED)?.file, body).map(done)
            }
            Request::SaveDelegations => {
                let delegate = self.server()?.delegate.as_ref();
                let file = delegate.and_then(|delegate| delegate.file.as_ref());
                write_private(&OsDisk, file.ok_or(NOT_CONFIGURED)?, body).map(done)
            }
            Request::OpenLog => {
                let (path, _) = self.config.process.log_file.as_ref().ok_or(NOT_CONFIGURED)?;
                self.opened = Some(service::open_log(path, true)?);
                Ok(Vec::new())
            }
            Request::OpenStatus => {
                let (path, _) = self.config.process.status_file.as_ref().ok_or(NOT_CONFIGURED)?;
                self.opened = Some(OutputFile::open("status", path)?.into_file());
                Ok(Vec::new())
            }
            Request::RunScript => {
                let (number, output) = self.scripts.run(&self.config.hooks, body)?;
                self.opened = Some(output);
                Ok(number)
            }
            Request::ScriptStatus => Ok(script::write_status(self.scripts.find(body)?.status())),
            Request::ScriptAnswer => Ok(script::write_answer(&self.scripts.find(body)?.answer())),
            Request::ScriptLater => {
                let outcome = self.scripts.find(body)?.later();
                Ok(outcome.as_ref().map(script::write_outcome).unwrap_or_default())
            }
            Request::ScriptOverdue => {
                Ok(script::write_outcome(&self.scripts.find(body)?.overdue()))
            }
            Request::EndScript => {
                self.scripts.find(body)?.end();
                Ok(Vec::new())
            }
            Request::ForgetScript => {
                self.scripts.forget(body);
                Ok(Vec::new())
            }
        }
    }

    fn ready(&mut self) -> Result<Vec<u8>, String> {
        let pid_file = self.config.process.pid_file.as_deref();
        self.pid_file = pid_file.map(PidFile::write).transpose()?;
        if let Some(background) = self.background.take() {
            background.enter().map_err(|error| format!("going to the background: {error}"))?;
        }
        Ok(process::id().to_be_bytes().to_vec())
    }

    /// As `Source::read_again` does on the other side.
    fn read_configuration(&mut self) -> Vec<u8> {
        self.handed_over = None;
        record(|disk| {
            let Ok(loaded) = self.source.load(disk) else { return };
            let mut config = Box::new(loaded.config);
            if reload::complete(&mut config, disk).is_ok() {
                self.handed_over = Some(config);
            }
        })
    }

    fn server(&self) -> Result<&ServerRole, &'static str> {
        match &self.config.role {
            Role::Server(role) => Ok(role),
            Role::Client(_) => Err(NOT_CONFIGURED),
        }
    }

    fn folder(&self) -> Result<ClientFolder, &'static str> {
        ClientFolder::new(self.server()?).ok_or(NOT_CONFIGURED)
    }

    fn crl(&self) -> Result<&Path, &'static str> {
        let (path, _) = self.config.tls.crl.as_ref().ok_or(NOT_CONFIGURED)?;
        Ok(path)
    }

    fn state(&self) -> Result<&Path, &'static str> {
        self.config.process.state.as_deref().ok_or(NOT_CONFIGURED)
    }
}

/// Looks at the disk as the other side will look at the record of it.
fn record(look: impl FnOnce(&Recorder)) -> Vec<u8> {
    let disk = Recorder::default();
    look(&disk);
    disk.finish()
}

/// Nobody asks for that who runs the same configuration.
const NOT_CONFIGURED: &str = "the keeper's configuration has no such thing";
