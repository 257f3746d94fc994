//! Asking the user on the terminal before anything runs: user name, password, second factor.
//!
//! Nothing is asked on standard input, which may be a file or nothing at all. A process without a
//! terminal, such as a service, is told what to configure instead.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::mem;
use std::os::fd::{AsRawFd as _, RawFd};

use zeroize::Zeroizing;

use super::check;
use crate::config::ClientRole;
use crate::limits::MAX_CREDENTIAL;

/// Longest line that is taken.
const MAX_LINE: usize = 4096;

/// Asks for what the configuration leaves out of a login.
pub fn complete(role: &mut ClientRole) -> Result<(), String> {
    let Some((name, password)) = &mut role.credentials else { return Ok(()) };
    if !name.is_empty() && !password.is_empty() && role.challenge.is_none() {
        return Ok(());
    }
    let mut terminal = Terminal::open().map_err(|_| {
        "auth-user-pass: there is no terminal to ask for user name and password on; put them into \
         a file of two lines and name it"
            .to_owned()
    })?;
    let explain = |error: io::Error| format!("asking on the terminal: {error}");
    if name.is_empty() {
        *name = terminal.ask("User name", true).map_err(explain)?.to_string();
    }
    if password.is_empty() {
        *password = terminal.ask("Password", false).map_err(explain)?.to_string();
    }
    if let Some(challenge) = &role.challenge {
        let answer = terminal.ask(&challenge.text, challenge.shown).map_err(explain)?;
        *password = challenge.answered(password, &answer);
    }
    if name.is_empty() || name.len() >= MAX_CREDENTIAL || password.len() >= MAX_CREDENTIAL {
        let most = MAX_CREDENTIAL - 1;
        return Err(format!("user name and password may have 1 to {most} bytes each"));
    }
    Ok(())
}

/// The terminal that the process was started from.
struct Terminal(File);

impl Terminal {
    fn open() -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).open("/dev/tty").map(Self)
    }

    /// One line without its end. Unless it is `shown`, nobody sees what is typed.
    fn ask(&mut self, prompt: &str, shown: bool) -> io::Result<Zeroizing<String>> {
        let hidden = if shown { None } else { Some(Hidden::new(self.0.as_raw_fd())?) };
        write!(self.0, "{}: ", prompt.replace(char::is_control, " "))?;
        let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE));
        let mut byte = [0];
        while self.0.read(&mut byte)? == 1 && byte != *b"\n" {
            if line.len() == MAX_LINE {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            line.extend(byte);
        }
        if hidden.is_some() {
            writeln!(self.0)?;
        }
        let text = core::str::from_utf8(&line).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Zeroizing::new(text.trim_end_matches('\r').to_owned()))
    }
}

/// A terminal that does not show what is typed; it does again when this is dropped.
struct Hidden {
    fd: RawFd,
    before: libc::termios,
}

impl Hidden {
    fn new(fd: RawFd) -> io::Result<Self> {
        // SAFETY: all-zero is a valid termios, and it is written for its whole length.
        let before = unsafe {
            let mut before: libc::termios = mem::zeroed();
            check(libc::tcgetattr(fd, &raw mut before))?;
            before
        };
        let mut quiet = before;
        quiet.c_lflag &= !libc::ECHO;
        // SAFETY: `quiet` is a termios that outlives the call.
        check(unsafe { libc::tcsetattr(fd, libc::TCSAFLUSH, &raw const quiet) })?;
        Ok(Self { fd, before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // SAFETY: `before` is a termios that outlives the call. The terminal may be gone by now.
        let _ = check(unsafe { libc::tcsetattr(self.fd, libc::TCSANOW, &raw const self.before) });
    }
}
