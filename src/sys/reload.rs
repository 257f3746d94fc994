//! Where a configuration comes from, so that it can be read again while it is in force.
//!
//! By then the process is another user's. Where a keeper reads for it, everything is as it was at the
//! start. Else (`user`, `group`) a key that only root may read is taken as it was at the start, and a
//! warning says so; the configuration file itself has to be readable, for what stands in it would be
//! missed.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::keeper::{Access, Request};
use super::store::{DiskFiles, Reading};
use super::udp::UdpSocket;
use super::{client_files, hooks, state};
use crate::config::{self, Config, ConfigError, Files, Loaded, difference};
use crate::sorted::SortedMap;

/// A configuration's origin.
pub struct Source {
    from: From,
    /// Log to the system's log whatever the file says.
    syslog: bool,
    files: Remembered,
    /// The way to the files once the process is another user's.
    pub access: Access,
}

enum From {
    File(PathBuf),
    Arguments(Vec<String>),
}

/// What becomes of a configuration that has been read again.
pub enum Next {
    /// It cannot be used, or not by this process; why has been logged.
    Old,
    /// It can be put in force as things are.
    Change(Box<Config>),
    /// Everything has to be closed and opened again for it.
    Restart(Box<Config>),
}

impl Source {
    /// A file.
    pub fn file(path: &Path) -> Self {
        let files = Remembered { main: Some(path.to_owned()), ..Remembered::default() };
        let from = From::File(path.to_owned());
        Self { from, syslog: false, files, access: Access::default() }
    }

    /// OpenVPN's kind of arguments.
    pub fn arguments(arguments: Vec<String>) -> Self {
        let files = Remembered::default();
        Self { from: From::Arguments(arguments), syslog: false, files, access: Access::default() }
    }

    /// The same, but the log goes to the system's.
    pub fn with_syslog(mut self, syslog: bool) -> Self {
        self.syslog = syslog;
        self
    }

    /// Reads the configuration.
    pub fn read(&self) -> Result<Loaded, ConfigError> {
        self.load(&self.files)
    }

    /// Reads the configuration from these files.
    pub fn load(&self, files: &dyn Files) -> Result<Loaded, ConfigError> {
        let mut loaded = match &self.from {
            From::File(path) => config::load_file(path, files),
            From::Arguments(arguments) => config::load_args(arguments, files),
        }?;
        if self.syslog {
            loaded.config.process.syslog = Some("sixgate".into());
        }
        Ok(loaded)
    }

    /// The configuration is in force: what only another user could read later is remembered.
    pub fn settle(&self, config: &Config) {
        if config.process.user.is_none() && config.process.group.is_none() {
            self.files.kept.take();
        }
        self.files.settled.set(true);
    }

    /// Reads the configuration again and decides what can be done with it. `old` is in force.
    pub fn read_again(&self, old: &Config) -> Next {
        self.access.reading(Request::Configuration, "", |disk| match self.access.is_kept() {
            true => self.take(old, self.load(disk), disk),
            false => self.take(old, self.read(), disk),
        })
    }

    fn take(&self, old: &Config, loaded: Result<Loaded, ConfigError>, disk: &dyn Reading) -> Next {
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                error.warnings.iter().for_each(|warning| log::warn!("{warning}"));
                error.problems.iter().for_each(|problem| log::error!("{problem}"));
                if old.process.user.is_some() || old.process.group.is_some() {
                    log::error!("(read as the user and group that this process runs as by now)");
                }
                return refuse("it has mistakes");
            }
        };
        loaded.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        let mut config = Box::new(loaded.config);
        if let Err(error) = complete(&mut config, disk) {
            return refuse(&error);
        }
        if let Err(why) = may_run_scripts(old, &config, &self.access) {
            return refuse(&format!("{why}; restart the service"));
        }
        let names = difference::needs_restart(old, &config);
        if names.is_empty() {
            return Next::Change(config);
        }
        let names = names.join(", ");
        match may_restart(old, &config, &self.access) {
            Ok(()) => {
                self.access.tell(Request::Choose);
                log::info!("{names}: changed, so everything is closed and opened again");
                Next::Restart(config)
            }
            Err(why) => refuse(&format!("{names}: cannot change now: {why}; restart the service")),
        }
    }
}

/// Adds what other files than the configuration's own say: the serial numbers that the state folder knows to
/// be void, and clients' networks.
pub fn complete(config: &mut Config, disk: &dyn Reading) -> Result<(), String> {
    if let Some(state) = &config.process.state {
        let revoked = state::revoked(state, disk)?;
        revoked.notes.iter().for_each(|note| log::warn!("{note}"));
        config.tls.revoked.extend(revoked.serials());
    }
    client_files::publish(config, disk);
    Ok(())
}

fn refuse(why: &str) -> Next {
    log::error!("the configuration is not taken, the old one stays in force: {why}");
    Next::Old
}

/// The filter of system calls that there is without scripts stays for good. The keeper has none.
fn may_run_scripts(old: &Config, new: &Config, access: &Access) -> Result<(), String> {
    match !access.is_kept() && hooks::any(&new.hooks) && !hooks::any(&old.hooks) {
        true => Err("a process that was started without scripts may not run any".to_owned()),
        false => Ok(()),
    }
}

/// The first port that not only root may have.
const UNPRIVILEGED_PORT: u16 = 1024;

/// Whether this process could open everything again, with what privileges it has left.
pub fn may_restart(old: &Config, new: &Config, access: &Access) -> Result<(), String> {
    may_run_scripts(old, new, access)?;
    // With a keeper it will be another process, with all privileges.
    let same = !access.is_kept();
    if same && (old.process.user.is_some() || old.process.group.is_some()) {
        return Err("the privileges for that were given up for `user` or `group`".to_owned());
    }
    if same && (new.process.user.is_some() || new.process.group.is_some()) {
        return Err("`user` and `group` can be changed to at the start only".to_owned());
    }
    let may_try = same || new.transport.port >= UNPRIVILEGED_PORT;
    if new.transport.port != old.transport.port && may_try {
        // Better to know before everything is closed.
        UdpSocket::bind(&new.transport)?;
    }
    Ok(())
}

/// Files as they are on disk, and as they were at the start where they cannot be read any more.
#[derive(Default)]
struct Remembered {
    /// Is never what it was.
    main: Option<PathBuf>,
    kept: RefCell<SortedMap<PathBuf, Zeroizing<Vec<u8>>>>,
    /// The time of remembering is over.
    settled: Cell<bool>,
}

impl Files for Remembered {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        let result = DiskFiles.read(path);
        let mut kept = self.kept.borrow_mut();
        match (&result, self.settled.get()) {
            (Ok(bytes), false) => {
                kept.insert(path.to_owned(), Zeroizing::new(bytes.clone()));
            }
            (Err(why), true) if self.main.as_deref() != Some(path) => {
                let denied = |error: std::io::Error| error.kind() == ErrorKind::PermissionDenied;
                let old = kept
                    .iter()
                    .find(|(kept, _)| kept.as_path() == path)
                    .map(|(_, bytes)| bytes)
                    .filter(|_| File::open(path).err().is_some_and(denied));
                if let Some(old) = old {
                    let path = path.display();
                    log::warn!("{path}: {why}; going on with what it held at the start");
                    return Ok(old.to_vec());
                }
            }
            (Ok(_), true) | (Err(_), _) => {}
        }
        result
    }

    fn is_executable(&self, path: &Path) -> Result<(), String> {
        DiskFiles.is_executable(path)
    }

    fn has_aes(&self) -> bool {
        DiskFiles.has_aes()
    }
}
