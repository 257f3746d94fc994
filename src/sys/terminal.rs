//! Asking the user on the terminal: user name, password, second factor, what the server wants to know.
//! Before anything runs that waits for the answers; inside the loop it takes what has been typed.
//!
//! Nothing is asked on standard input, which may be a file or nothing at all. A process without a
//! terminal, such as a service, is told what to configure instead.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::mem;
use std::os::fd::{AsRawFd, RawFd};

use zeroize::Zeroizing;

use super::check;
use crate::config::ClientRole;
use crate::engine::{Login, LoginQuestion};

/// Longest line that is taken.
const MAX_LINE: usize = 4096;

/// Asks for what the configuration leaves out of a login.
pub fn complete(role: &mut ClientRole) -> Result<(), String> {
    let Some(question) = LoginQuestion::of(role) else { return Ok(()) };
    let mut prompt = Prompt::open(question)?;
    let (name, password) = loop {
        if let Some(login) = prompt.read()? {
            break login;
        }
    };
    role.entered = Some((name, password.to_string()));
    Ok(())
}

/// Questions on the terminal that the process was started from, one after the other.
pub struct Prompt {
    terminal: File,
    question: LoginQuestion,
    line: Zeroizing<Vec<u8>>,
    /// While nobody is to see what is typed.
    hidden: Option<Hidden>,
}

impl Prompt {
    /// Puts the first question.
    pub fn open(question: LoginQuestion) -> Result<Self, String> {
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
        let terminal = terminal.map_err(|_| {
            let text = question.next().map_or("user name and password", |(text, _)| text);
            format!(
                "auth-user-pass: there is no terminal to ask for \"{}\" on; put user name and password \
                 into a file of two lines and name it, or have a management program answer \
                 (management-query-passwords)",
                text.escape_debug()
            )
        })?;
        let line = Zeroizing::new(Vec::with_capacity(MAX_LINE));
        let mut prompt = Self { terminal, question, line, hidden: None };
        prompt.put().map_err(explain)?;
        Ok(prompt)
    }

    /// Takes what has been typed, waiting if there is nothing; the login once it is complete.
    pub fn read(&mut self) -> Result<Option<Login>, String> {
        let mut chunk = Zeroizing::new([0; 256]);
        let got = match self.terminal.read(chunk.as_mut()) {
            Ok(0) => return Err("nobody answers on the terminal".to_owned()),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(error) => return Err(explain(error)),
        };
        for byte in chunk.iter().take(got) {
            if *byte != b'\n' {
                if self.line.len() == MAX_LINE {
                    return Err("the answer on the terminal is too long".to_owned());
                }
                self.line.push(*byte);
                continue;
            }
            let text = core::str::from_utf8(&self.line);
            let text = text.map_err(|_| "the answer on the terminal is not UTF-8".to_owned())?;
            self.question.answer(text.trim_end_matches('\r'));
            self.line.clear();
            self.put().map_err(explain)?;
        }
        match self.question.next() {
            Some(_) => Ok(None),
            None => self.question.clone().finish().map(Some),
        }
    }

    /// Shows the next question, if there is one.
    fn put(&mut self) -> io::Result<()> {
        if self.hidden.take().is_some() {
            writeln!(self.terminal)?;
        }
        let Some((text, shown)) = self.question.next() else { return Ok(()) };
        if !shown {
            self.hidden = Some(Hidden::new(self.terminal.as_raw_fd())?);
        }
        write!(self.terminal, "{}: ", text.replace(char::is_control, " "))
    }
}

impl AsRawFd for Prompt {
    fn as_raw_fd(&self) -> RawFd {
        self.terminal.as_raw_fd()
    }
}

fn explain(error: io::Error) -> String {
    format!("asking on the terminal: {error}")
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
