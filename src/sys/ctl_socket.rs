//! The control socket: how `sixgate status` and `sixgate client revoke` talk to a running process.
//!
//! A Unix socket that only its owner may open, for each state folder one: in `/var/run/sixgate`, as
//! the folder itself is flash on a router; or in the folder, for those who may not write there. One
//! line asks, text answers, then the connection ends:
//!
//! ```text
//! status [json]          clients, counters
//! kill NAME              end the connections of that common name
//! log [COUNT]            the newest log lines; before them "next NUMBER"
//! log from NUMBER        those from that number on
//! revoke HEX [HEX ...]   these certificate serial numbers are void from now on
//! reload                 read the configuration and clients' files again
//! pid | version
//! ```
//!
//! Every size and the number of connections are bounded, and a connection that dawdles is closed:
//! whoever may open the socket can still make mistakes. Doing what is asked is the event loop's.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::limits::MAX_NAME;
use crate::pki::index::Serial;
use crate::time::Instant;

/// Where sockets are, in memory.
const RUNTIME_DIR: &str = "/var/run/sixgate";
/// Name of the socket within the state folder.
const FILE_NAME: &str = "control";
/// Connections served at once; more wait in the kernel.
pub const MAX_CONNECTIONS: usize = 4;
/// Longest request: `revoke` with about 100 serial numbers.
const MAX_REQUEST: usize = 4096;
/// How long a connection may take for its question and for reading the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The listener stays readable when there is no descriptor for a connection: it is looked at again
/// after so long.
const REST: Duration = Duration::from_secs(1);

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Clients and counters.
    Status,
    /// The same as JSON.
    StatusJson,
    /// Log lines.
    Log {
        /// All from this number on; otherwise the newest.
        from: Option<u64>,
        /// How many at most.
        count: usize,
    },
    /// End the connections of a common name.
    Kill(String),
    /// Certificates that are void from now on, by serial number.
    Revoke(Vec<Vec<u8>>),
    /// Read the configuration again.
    Reload,
    /// The process id.
    Pid,
    /// The program's version.
    Version,
}

impl Request {
    /// Reads one line; the error is text for the asker.
    pub fn parse(line: &str) -> Result<Self, &'static str> {
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let rest = rest.trim();
        match (word, rest) {
            ("status", "") => Ok(Self::Status),
            ("status", "json") => Ok(Self::StatusJson),
            ("pid", "") => Ok(Self::Pid),
            ("reload", "") => Ok(Self::Reload),
            ("version", "") => Ok(Self::Version),
            ("log", "") => Ok(Self::Log { from: None, count: usize::MAX }),
            ("log", rest) => {
                let (word, number) = rest.split_once(' ').unwrap_or(("", rest));
                match (word, number.parse()) {
                    ("", Ok(count)) => Ok(Self::Log { from: None, count }),
                    ("from", Ok(number)) => {
                        Ok(Self::Log { from: Some(number as u64), count: usize::MAX })
                    }
                    _ => Err("wrong arguments"),
                }
            }
            ("kill", name) if !name.is_empty() && name.len() <= MAX_NAME => {
                Ok(Self::Kill(name.to_owned()))
            }
            ("revoke", serials) if !serials.is_empty() => serials
                .split_whitespace()
                .map(|text| Some(text.parse::<Serial>().ok()?.as_bytes().to_vec()))
                .collect::<Option<_>>()
                .map(Self::Revoke)
                .ok_or("not a serial number"),
            ("status" | "pid" | "version" | "kill" | "revoke" | "reload", _) => {
                Err("wrong arguments")
            }
            _ => Err("unknown request"),
        }
    }
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    question: Vec<u8>,
    /// The answer and how much of it is sent, once the question is complete.
    answer: Option<(Vec<u8>, usize)>,
    deadline: Instant,
}

/// The listening side.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    connections: Vec<Connection>,
    /// Nobody is let in before, as there was no descriptor for the last one.
    rest_until: Option<Instant>,
}

impl ControlSocket {
    /// Opens the socket of `folder`; an error when another process serves that folder.
    pub fn bind(folder: &Path) -> Result<Self, String> {
        Self::bind_below(Path::new(RUNTIME_DIR), folder)
    }

    fn bind_below(runtime: &Path, folder: &Path) -> Result<Self, String> {
        let places = places(runtime, folder);
        remove(&places, folder)?;
        let _ = fs::DirBuilder::new().mode(0o700).create(runtime);
        let [memory, state] = places;
        let (listener, path) = match UnixListener::bind(&memory) {
            Ok(listener) => (listener, memory),
            Err(_) => match UnixListener::bind(&state) {
                Ok(listener) => (listener, state),
                Err(error) => return Err(format!("control socket {}: {error}", state.display())),
            },
        };
        // Until here the umask decides; the folders themselves are closed to others.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .and_then(|()| listener.set_nonblocking(true))
            .map_err(|error| format!("control socket {}: {error}", path.display()))?;
        let connections = Vec::with_capacity(MAX_CONNECTIONS);
        Ok(Self { listener, path, connections, rest_until: None })
    }

    /// Descriptors to wait for, and whether for writing.
    pub fn interests(&self) -> impl Iterator<Item = (RawFd, bool)> + '_ {
        let room = self.connections.len() < MAX_CONNECTIONS && self.rest_until.is_none();
        let listener = room.then(|| (self.listener.as_raw_fd(), false));
        let connections =
            self.connections.iter().map(|c| (c.stream.as_raw_fd(), c.answer.is_some()));
        listener.into_iter().chain(connections)
    }

    /// When the next connection runs out of time, or the next one may come.
    pub fn deadline(&self) -> Option<Instant> {
        self.connections.iter().map(|c| c.deadline).chain(self.rest_until).min()
    }

    /// Does everything that can be done without waiting; `answer` answers complete questions.
    pub fn serve(&mut self, now: Instant, mut answer: impl FnMut(Request) -> String) {
        self.rest_until.take_if(|until| *until <= now);
        while self.connections.len() < MAX_CONNECTIONS && self.rest_until.is_none() {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    log::error!("control socket: {error}");
                    self.rest_until = Some(now + REST);
                    break;
                }
            };
            if stream.set_nonblocking(true).is_ok() {
                let deadline = now + PATIENCE;
                let question = Vec::new();
                self.connections.push(Connection { stream, question, answer: None, deadline });
            }
        }
        self.connections.retain_mut(|connection| {
            let open = connection.advance(&mut answer).unwrap_or(false);
            open && now < connection.deadline
        });
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // As another user it may be impossible; the keeper or the next start removes it.
        let _ = fs::remove_file(&self.path);
    }
}

impl Connection {
    /// Reads or writes as far as possible; false when all is said.
    fn advance(&mut self, answer: &mut impl FnMut(Request) -> String) -> io::Result<bool> {
        if self.answer.is_none() && !self.read_question()? {
            return Ok(true);
        }
        let (text, sent) = self.answer.get_or_insert_with(|| {
            let line = String::from_utf8_lossy(&self.question);
            let text = match Request::parse(&line) {
                Ok(request) => answer(request),
                Err(reason) => format!("error: {reason}\n"),
            };
            (text.into_bytes(), 0)
        });
        while let Some(rest) = text.get(*sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return Ok(false),
                Ok(n) => *sent += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// True once a whole line is there.
    fn read_question(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 512];
        loop {
            match self.stream.read(&mut chunk) {
                // The end of the stream completes the line, too.
                Ok(0) => return Ok(true),
                Ok(n) => self.question.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            if let Some(end) = self.question.iter().position(|byte| *byte == b'\n') {
                self.question.truncate(end);
                return Ok(true);
            }
            if self.question.len() > MAX_REQUEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}

/// Removes what a process has left behind that was killed, or may not remove its own socket; an error
/// when it still runs.
pub fn remove_left_behind(folder: &Path) -> Result<(), String> {
    remove(&places(Path::new(RUNTIME_DIR), folder), folder)
}

fn remove(places: &[PathBuf], folder: &Path) -> Result<(), String> {
    for path in places {
        match UnixStream::connect(path) {
            Ok(_) => return Err(format!("sixgate is already running with {}", folder.display())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)
                    .map_err(|error| format!("control socket {}: {error}", path.display()))?;
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// Where the socket of a state folder may be. Paths of sockets are short: hence a digest of the
/// folder's.
fn places(runtime: &Path, folder: &Path) -> [PathBuf; 2] {
    let whole = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let digest = Sha256::digest(whole.as_os_str().as_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    [runtime.join(name), folder.join(FILE_NAME)]
}

/// Why no answer came.
#[derive(Debug)]
pub enum AskError {
    /// Nobody serves that folder.
    NotRunning,
    /// Somebody does, but talking to them failed.
    Io(io::Error),
}

/// Asks the process that serves `folder`, and waits for the answer.
pub fn ask(folder: &Path, request: &str) -> Result<String, AskError> {
    let [memory, state] = places(Path::new(RUNTIME_DIR), folder);
    let connected = UnixStream::connect(memory).or_else(|_| UnixStream::connect(state));
    let mut stream = connected.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning,
        _ => AskError::Io(error),
    })?;
    let mut answer = String::new();
    stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| writeln!(stream, "{request}"))
        .and_then(|()| stream.read_to_string(&mut answer))
        .map_err(AskError::Io)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_strictly() {
        assert_eq!(Request::parse("status\r"), Ok(Request::Status));
        assert_eq!(Request::parse("kill a phone"), Ok(Request::Kill("a phone".into())));
        assert_eq!(
            Request::parse("revoke ff 01a2B3"),
            Ok(Request::Revoke(vec![vec![0xff], vec![1, 0xa2, 0xb3]]))
        );
        assert_eq!(Request::parse("log 7"), Ok(Request::Log { from: None, count: 7 }));
        let all = usize::MAX;
        assert_eq!(Request::parse("log"), Ok(Request::Log { from: None, count: all }));
        assert_eq!(Request::parse("log from 7"), Ok(Request::Log { from: Some(7), count: all }));
        for bad in ["log x", "log from", "log from x", "log to 7", "log -1"] {
            assert!(Request::parse(bad).is_err(), "{bad:?}");
        }
        let long = format!("kill {}", "x".repeat(65));
        for bad in ["", "status now", "kill", &long, "revoke", "revoke 123", "revoke xyz", "quit"] {
            assert!(Request::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Request::parse(&format!("revoke {}", "11".repeat(21))).is_err());
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("sixgate-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        folder
    }

    #[test]
    fn a_question_is_answered_and_the_socket_is_private() {
        let folder = folder("ctl");
        let mut socket = ControlSocket::bind(&folder).unwrap();
        let mode = fs::metadata(&socket.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(ControlSocket::bind(&folder).unwrap_err().contains("already running"));
        let asker = std::thread::spawn({
            let folder = folder.clone();
            move || ask(&folder, "kill laptop").unwrap()
        });
        while !asker.is_finished() {
            socket.serve(Instant::ZERO, |request| format!("{request:?}\n"));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(asker.join().unwrap(), "Kill(\"laptop\")\n");
        drop(socket);
        assert!(matches!(ask(&folder, "pid"), Err(AskError::NotRunning)));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_socket_is_in_memory_where_that_is_possible() {
        let folder = folder("place");
        let runtime = folder.join("run");
        let socket = ControlSocket::bind_below(&runtime, &folder).unwrap();
        assert_eq!(socket.path.parent(), Some(runtime.as_path()));
        assert_eq!(fs::metadata(&runtime).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(!folder.join(FILE_NAME).exists());
        // Another way to write the same folder.
        let same = folder.join("run/..");
        let error = ControlSocket::bind_below(&runtime, &same).unwrap_err();
        assert!(error.contains("already running"), "{error}");
        drop(socket);
        let nowhere = folder.join("not/there");
        let socket = ControlSocket::bind_below(&nowhere, &folder).unwrap();
        assert_eq!(socket.path, folder.join(FILE_NAME));
        let error = ControlSocket::bind_below(&runtime, &folder).unwrap_err();
        assert!(error.contains("already running"), "{error}");
        drop(socket);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn dawdlers_and_babblers_are_cut_off() {
        let folder = folder("slow");
        let mut socket = ControlSocket::bind(&folder).unwrap();
        let silent = UnixStream::connect(&socket.path).unwrap();
        let mut babbler = UnixStream::connect(&socket.path).unwrap();
        babbler.write_all(&[b'x'; MAX_REQUEST + 600]).unwrap();
        socket.serve(Instant::ZERO, |_| String::new());
        assert_eq!(socket.connections.len(), 1, "the babbler is gone");
        assert_eq!(socket.deadline(), Some(Instant::ZERO + PATIENCE));
        socket.serve(Instant::ZERO + PATIENCE, |_| String::new());
        assert_eq!(socket.interests().count(), 1, "only the listener is left");
        drop(silent);
        fs::remove_dir_all(folder).unwrap();
    }
}
