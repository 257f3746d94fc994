//! The sockets of the management interface: TCP or Unix, one connection at a time; others wait in
//! the kernel until it ends. What is said is [`manage`](crate::manage)'s business, doing what is
//! asked the event loop's.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::logger;
use super::privilege::Identity;
use crate::config::{Management, ManagementAddress};
use crate::manage::console::{Console, Settings};
use crate::manage::{Action, View};
use crate::time::Instant;

/// The listener stays readable when there is no descriptor for a connection: it is looked at again
/// after so long.
const REST: Duration = Duration::from_secs(1);

/// The listening socket, the connection if there is one, and what they are talked to with.
#[derive(Debug)]
pub struct ManagementSocket {
    /// Histories and answers.
    pub console: Console,
    /// The number of the next log line to take in.
    log_seen: u64,
    listener: Listener,
    /// Nobody is let in before, as there was no descriptor for the last one.
    rest_until: Option<Instant>,
    /// Read and written like a file, whichever family the socket has.
    stream: Option<File>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl ManagementSocket {
    /// Starts to listen, and to keep log lines.
    pub fn bind(config: &Management, server: bool) -> Result<Self, String> {
        let listener = match &config.listen {
            ManagementAddress::Tcp(address) => TcpListener::bind(address)
                .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
                .map(Listener::Tcp)
                .map_err(|error| format!("management {address}: {error}"))?,
            ManagementAddress::Unix(path) => bind_unix(path, config)?,
        };
        logger::keep_lines(config.log_lines);
        let settings = Settings {
            server,
            password: config.password.as_ref().map(|secret| secret.0.clone()),
            log_lines: config.log_lines,
            hold: config.hold,
            query: config.query,
        };
        let log_seen = logger::next_number();
        Ok(Self {
            console: Console::new(settings),
            log_seen,
            listener,
            rest_until: None,
            stream: None,
        })
    }

    /// What to wait for: descriptor, for reading, for writing.
    pub fn interest(&self) -> (RawFd, bool, bool) {
        match (&self.stream, &self.listener) {
            (Some(stream), _) => {
                let write = !self.console.output().is_empty();
                (stream.as_raw_fd(), self.console.room() > 0, write)
            }
            (None, Listener::Tcp(listener)) => (listener.as_raw_fd(), self.is_open(), false),
            (None, Listener::Unix(listener, _)) => (listener.as_raw_fd(), self.is_open(), false),
        }
    }

    const fn is_open(&self) -> bool {
        self.rest_until.is_none()
    }

    /// When it wants attention at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        if logger::next_number() > self.log_seen || self.console.has_line() {
            return Some(Instant::ZERO);
        }
        [self.console.poll_timeout(), self.rest_until].into_iter().flatten().min()
    }

    /// Accepts and reads as far as possible without waiting.
    pub fn receive(&mut self, now: Instant) {
        self.take_log();
        self.rest_until.take_if(|until| *until <= now);
        if self.stream.is_none() && self.is_open() {
            match self.listener.accept() {
                Ok(stream) => {
                    log::info!("management: a program has connected");
                    self.stream = Some(stream);
                    self.console.connect();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    log::error!("management: {error}");
                    self.rest_until = Some(now + REST);
                }
            }
        }
        let mut chunk = [0; 256];
        while let Some(stream) = &mut self.stream {
            let room = self.console.room().min(chunk.len());
            let Some(space) = chunk.get_mut(..room).filter(|space| !space.is_empty()) else {
                break;
            };
            match stream.read(space) {
                Ok(0) => self.close(),
                Ok(len) => self.console.input(chunk.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.close(),
            }
        }
    }

    /// Answers lines until one wants something done.
    pub fn next(&mut self, now: Instant, view: &View) -> Option<Action> {
        self.console.next(now, view)
    }

    /// Sends as far as possible without waiting.
    pub fn send(&mut self) {
        while let Some(stream) = self.stream.as_mut().filter(|_| !self.console.output().is_empty())
        {
            match stream.write(self.console.output()) {
                Ok(0) => self.close(),
                Ok(len) => self.console.sent(len),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.close(),
            }
        }
        if self.console.is_finished() {
            self.close();
        }
    }

    /// Hands over what was logged since the last time.
    pub fn take_log(&mut self) {
        let (lines, next) = logger::lines_from(self.log_seen);
        self.log_seen = next;
        lines.iter().for_each(|line| self.console.log_line(line.time, line.level, &line.text));
    }

    fn close(&mut self) {
        log::info!("management: the connection has ended");
        self.stream = None;
        self.console.disconnect();
    }
}

impl Listener {
    fn accept(&self) -> io::Result<File> {
        let stream: OwnedFd = match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                stream.into()
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                stream.into()
            }
        };
        Ok(stream.into())
    }
}

fn bind_unix(path: &Path, config: &Management) -> Result<Listener, String> {
    let explain = |error: std::io::Error| format!("management {}: {error}", path.display());
    remove(path)?;
    let listener = UnixListener::bind(path).map_err(explain)?;
    let (user, group) = &config.client;
    let who = Identity::find(user.as_deref(), group.as_deref())?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(explain)?;
    if user.is_some() || group.is_some() {
        chown(path, who.uid(), who.gid()).map_err(explain)?;
    }
    listener.set_nonblocking(true).map_err(explain)?;
    Ok(Listener::Unix(listener, path.to_owned()))
}

/// Removes the socket of a process that was killed, or may not remove it itself.
pub fn remove_left_behind(config: &Management) {
    if let ManagementAddress::Unix(path) = &config.listen {
        // Somebody else's stays.
        let _ = remove(path);
    }
}

fn remove(path: &Path) -> Result<(), String> {
    match UnixStream::connect(path) {
        Ok(_) => Err(format!("management {}: another program serves it", path.display())),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| format!("management {}: {error}", path.display()))
        }
        Err(_) => Ok(()),
    }
}

impl Drop for ManagementSocket {
    fn drop(&mut self) {
        self.take_log();
        self.send();
        if let Listener::Unix(_, path) = &self.listener {
            // As another user it may be impossible; the keeper or the next start removes it.
            let _ = fs::remove_file(path);
        }
    }
}
