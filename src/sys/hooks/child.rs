//! One running script: its process, its output, its end.

use std::fs::File;
use std::io::{self, PipeReader, Read as _};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use crate::config::hooks::Program;
use crate::engine::{Environment, HookKind};
use crate::sys::check;
use crate::sys::keeper::KeptScript;

/// Lines of one script that reach the log.
const MAX_LINES: usize = 200;
/// Bytes of one line that do.
const MAX_LINE: usize = 512;

/// A process whose output goes to the log. Dropped, it and what it started are killed.
#[derive(Debug)]
pub(super) struct Script {
    kind: HookKind,
    child: Process,
    output: Option<PipeReader>,
    line: Vec<u8>,
    lines: usize,
}

/// Whose child it is.
#[derive(Debug)]
enum Process {
    Own(Child),
    Kept(KeptScript),
}

impl Script {
    /// One that the keeper has started.
    pub(super) fn kept(kind: HookKind, script: KeptScript, output: File) -> Self {
        let output = PipeReader::from(OwnedFd::from(output));
        Self::new(kind, Process::Kept(script), output)
    }

    fn new(kind: HookKind, child: Process, output: PipeReader) -> Self {
        Self { kind, child, output: Some(output), line: Vec::new(), lines: 0 }
    }

    /// The end of the pipe that its output comes out of, for somebody else to read.
    pub(super) fn take_output(&mut self) -> Option<File> {
        self.output.take().map(|output| File::from(OwnedFd::from(output)))
    }

    /// Starts `program` with nothing of our environment and no input, in a process group of its own.
    pub(super) fn start(
        kind: HookKind,
        program: &Program,
        arguments: &[String],
        environment: &Environment,
    ) -> io::Result<Self> {
        let (output, writer) = io::pipe()?;
        // SAFETY: no pointers are passed; the descriptor is ours.
        check(unsafe { libc::fcntl(output.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
        let child = Command::new(&program.path)
            .args(&program.arguments)
            .args(arguments)
            .env_clear()
            .envs(environment.iter())
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .spawn()?;
        Ok(Self::new(kind, Process::Own(child), output))
    }

    /// The end of the pipe that its output comes out of.
    pub(super) fn output(&self) -> Option<RawFd> {
        self.output.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Logs what it has written.
    pub(super) fn read(&mut self) {
        let mut buffer = [0; 4096];
        // Bounded: one that never stops writing has its turn like everybody else.
        for _ in 0..16 {
            let Some(output) = &mut self.output else { return };
            match output.read(&mut buffer) {
                Ok(0) => self.output = None,
                Ok(len) => self.digest(buffer.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.output = None,
            }
        }
    }

    fn digest(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.log_line(),
                _ if self.line.len() < MAX_LINE => self.line.push(*byte),
                _ => {}
            }
        }
    }

    fn log_line(&mut self) {
        let text = core::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&text);
        let text = text.trim_end();
        let name = self.kind.directive();
        self.lines += 1;
        match self.lines {
            _ if text.is_empty() => {}
            // `escape_debug` would make quotes unreadable; only control characters do harm.
            ..MAX_LINES => log::info!("{name}: {}", text.replace(char::is_control, " ")),
            MAX_LINES => {
                log::warn!("{name}: writes more than {MAX_LINES} lines; the rest is left out")
            }
            _ => {}
        }
    }

    /// Its exit status once it has ended; `Some(None)` when a signal ended it.
    pub(super) fn ended(&mut self) -> Option<Option<i32>> {
        let status = match &mut self.child {
            Process::Own(child) => match child.try_wait() {
                Ok(Some(status)) => status.code(),
                Ok(None) => return None,
                // Somebody else has waited for it: nothing is known, which is no success.
                Err(_) => None,
            },
            Process::Kept(script) => script.status()?,
        };
        self.read();
        if !self.line.is_empty() {
            self.log_line();
        }
        Some(status)
    }

    /// Ends it and what it has started. It still has to be waited for.
    pub(super) fn kill(&mut self) {
        let child = match &self.child {
            Process::Own(child) => child.id(),
            Process::Kept(script) => return script.end(),
        };
        if let Ok(group) = libc::pid_t::try_from(child) {
            // SAFETY: no pointers are passed. The group's id is not reused before its leader has
            // been waited for.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if let Process::Own(child) = &mut self.child
            && matches!(child.try_wait(), Ok(None))
        {
            self.kill();
            if let Process::Own(child) = &mut self.child {
                // It is dying: this does not take long.
                let _ = child.wait();
            }
        }
    }
}
