//! The backend of the `log` crate: standard error with time stamps, a file, or syslog.
//!
//! A stranger can make a server write lines by sending packets. So a line that repeats is counted
//! instead of written, and above a rate the rest is counted, too; both counts are reported. What is
//! worth a line, and at which level, is everybody else's business.

mod kept;

use std::ffi::{CString, c_char};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::mem;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::clock::{Clock, unix_time};
use crate::time::{Instant, UnixTime};

pub use kept::{keep_lines, lines_from, next_number, report};

/// Lines that may come at once.
const BURST: u32 = 200;
/// Lines per second after that.
const RATE: u32 = 20;
/// How long a repeated line is held back before its count is written.
const REPEAT_SECONDS: u64 = 60;

/// Where lines go.
#[derive(Debug)]
pub enum Target {
    /// Standard error, with a time stamp unless the reader adds its own.
    Stderr {
        /// Whether to put the time before each line.
        stamps: bool,
    },
    /// A file, with time stamps.
    File(File),
    /// The system's log.
    Syslog,
}

impl Target {
    /// Standard error; without time stamps when the systemd journal reads it.
    pub fn stderr() -> Self {
        Self::Stderr { stamps: std::env::var_os("JOURNAL_STREAM").is_none() }
    }
}

struct State {
    target: Target,
    clock: Clock,
    /// The last line written, and how often it came again since.
    last: String,
    repeats: u32,
    since: Instant,
    /// Lines that may be written now, and when that was worked out.
    allowance: u32,
    refilled: Instant,
    withheld: u32,
}

struct Logger(Mutex<Option<State>>);

static LOGGER: Logger = Logger(Mutex::new(None));

/// The verbosity in force.
static VERB: AtomicU8 = AtomicU8::new(1);

/// Starts logging to `target`, or moves it there.
pub fn start(target: Target, verb: u8) {
    let clock = Clock::new();
    let now = clock.now().mono;
    *LOGGER.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(State {
        target,
        clock,
        last: String::new(),
        repeats: 0,
        since: now,
        allowance: BURST,
        refilled: now,
        withheld: 0,
    });
    // Fails only when it was set before, to the same logger.
    let _ = log::set_logger(&LOGGER);
    set_verb(verb);
}

/// Changes the verbosity.
pub fn set_verb(verb: u8) {
    VERB.store(verb, Ordering::Relaxed);
    log::set_max_level(level(verb));
}

/// The verbosity in force.
pub fn verb() -> u8 {
    VERB.load(Ordering::Relaxed)
}

/// Whether lines go to standard error, or nowhere yet.
pub fn is_stderr() -> bool {
    let guard = LOGGER.0.lock().unwrap_or_else(PoisonError::into_inner);
    guard.as_ref().is_none_or(|state| matches!(state.target, Target::Stderr { .. }))
}

/// Prepares syslog under `name`; the name is kept for the life of the process.
pub fn open_syslog(name: &str) {
    let name = CString::new(name).unwrap_or_else(|_| c"sixgate".to_owned());
    // SAFETY: openlog keeps the pointer; into_raw gives the memory away for good.
    unsafe { libc::openlog(name.into_raw(), libc::LOG_PID | libc::LOG_NDELAY, libc::LOG_DAEMON) };
}

/// What `verb` shows: 0 errors only, 1-3 normal operation, 4-6 details, 7 and more packets.
fn level(verb: u8) -> LevelFilter {
    match verb {
        0 => LevelFilter::Error,
        1..=3 => LevelFilter::Info,
        4..=6 => LevelFilter::Debug,
        7.. => LevelFilter::Trace,
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Other crates' details (rustls logs each handshake) are nobody's business below TRACE.
        metadata.target().starts_with("sixgate")
            || metadata.level() <= Level::Warn
            || log::max_level() == LevelFilter::Trace
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = guard.as_mut() {
            state.log(record.level(), &record.args().to_string());
        }
    }

    fn flush(&self) {}
}

impl State {
    fn log(&mut self, level: Level, text: &str) {
        let now = self.clock.now().mono;
        if text == self.last && now.since(self.since).as_secs() < REPEAT_SECONDS {
            self.repeats += 1;
            return;
        }
        let repeats = mem::take(&mut self.repeats);
        if repeats > 0 {
            self.write(Level::Info, &format!("(the last line came {repeats} more times)"));
        }
        self.since = now;
        if !self.admit(level, now) {
            self.withheld += 1;
            return;
        }
        let withheld = mem::take(&mut self.withheld);
        if withheld > 0 {
            self.write(Level::Warn, &format!("({withheld} lines were left out)"));
        }
        self.write(level, text);
        text.clone_into(&mut self.last);
    }

    /// A token bucket for what peers can cause; who asked for details gets them all.
    fn admit(&mut self, level: Level, now: Instant) -> bool {
        if level == Level::Error || level > Level::Info {
            return true;
        }
        let seconds = u32::try_from(now.since(self.refilled).as_secs()).unwrap_or(u32::MAX);
        if seconds > 0 {
            self.refilled = now;
            self.allowance = self.allowance.saturating_add(seconds.saturating_mul(RATE)).min(BURST);
        }
        let left = self.allowance.checked_sub(1);
        self.allowance = left.unwrap_or(0);
        left.is_some()
    }

    fn write(&mut self, level: Level, text: &str) {
        let now = unix_time();
        kept::keep(now, level, text);
        // Nothing can be done about a log that cannot be written.
        match &mut self.target {
            Target::Stderr { stamps } => {
                let line = line(stamps.then_some(now), level, text);
                let _ = std::io::stderr().write_all(line.as_bytes());
            }
            Target::File(file) => {
                let _ = file.write_all(line(Some(now), level, text).as_bytes());
            }
            Target::Syslog => syslog(level, text),
        }
    }
}

/// One whole line in one piece, so that lines of several programs do not mix.
fn line(stamp: Option<UnixTime>, level: Level, text: &str) -> String {
    let mut line = String::with_capacity(text.len() + 32);
    stamp.into_iter().for_each(|time| push_time(&mut line, time));
    line.push_str(match level {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        Level::Info | Level::Debug | Level::Trace => "",
    });
    line.push_str(text);
    line.push('\n');
    line
}

/// Local date and time as `2026-01-31 12:00:00`.
pub fn local_date(time: UnixTime) -> String {
    let mut text = String::new();
    push_time(&mut text, time);
    text.pop();
    text
}

/// Local date and time with a blank behind.
fn push_time(line: &mut String, time: UnixTime) {
    // SAFETY: all-zero is a valid tm.
    let mut parts: libc::tm = unsafe { mem::zeroed() };
    // Where time_t has 32 bits (cross/env sees to 64), it ends in 2038.
    #[allow(deprecated, reason = "with musl, the crate says that 64 bits are to come")]
    let time = libc::time_t::try_from(time.0).unwrap_or(libc::time_t::MAX);
    // SAFETY: both pointers are to locals. localtime_r reads TZ, which nothing here writes.
    if unsafe { libc::localtime_r(&time, &mut parts) }.is_null() {
        return;
    }
    // Writing to a String cannot fail.
    let _ = write!(
        line,
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02} ",
        parts.tm_year + 1900,
        parts.tm_mon + 1,
        parts.tm_mday,
        parts.tm_hour,
        parts.tm_min,
        parts.tm_sec
    );
}

fn syslog(level: Level, text: &str) {
    let priority = match level {
        Level::Error => libc::LOG_ERR,
        Level::Warn => libc::LOG_WARNING,
        Level::Info => libc::LOG_NOTICE,
        Level::Debug | Level::Trace => libc::LOG_DEBUG,
    };
    let Ok(text) = CString::new(text.replace('\0', "")) else { return };
    let format: *const c_char = c"%s".as_ptr();
    // SAFETY: the format takes exactly one string, and both are NUL-terminated.
    unsafe { libc::syslog(priority, format, text.as_ptr()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(file: File) -> State {
        let clock = Clock::new();
        let now = clock.now().mono;
        State {
            target: Target::File(file),
            clock,
            last: String::new(),
            repeats: 0,
            since: now,
            allowance: 3,
            refilled: now,
            withheld: 0,
        }
    }

    #[test]
    fn repetitions_and_floods_become_counts() {
        let path = std::env::temp_dir().join(format!("sixgate-log-{}", std::process::id()));
        let mut state = state(File::create(&path).unwrap());
        for _ in 0..5 {
            state.log(Level::Info, "again");
        }
        for n in 0..5 {
            state.log(Level::Warn, &format!("other {n}"));
        }
        state.log(Level::Error, "always");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let lines: Vec<_> = text.lines().map(|line| line.splitn(3, ' ').nth(2).unwrap()).collect();
        assert_eq!(
            lines,
            [
                "again",
                "(the last line came 4 more times)",
                "warning: other 0",
                "warning: other 1",
                "warning: (3 lines were left out)",
                "error: always"
            ]
        );
    }

    #[test]
    fn stamps_look_like_dates() {
        let mut line = String::new();
        push_time(&mut line, UnixTime(1_700_000_000));
        assert!(line.starts_with("2023-11-1") && line.len() == "2023-11-14 22:13:20 ".len());
    }
}
