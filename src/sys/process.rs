//! About the process as such: its id, making two of it, going to the background, the pid file.

use std::fs;
use std::io::{self, PipeWriter, Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::check;

/// The id that others know the program by, once it is another one than this process's.
static ID: AtomicU32 = AtomicU32::new(0);

/// The id that others know this program by: to be sent signals, for one.
pub fn id() -> u32 {
    match ID.load(Ordering::Relaxed) {
        0 => std::process::id(),
        id => id,
    }
}

/// Others know this program by this id.
pub fn set_id(id: u32) {
    ID.store(id, Ordering::Relaxed);
}

/// A process in the background whose standard streams are still those of the one in the foreground, which
/// ends once all went well.
#[derive(Debug)]
pub struct Background(PipeWriter);

/// Puts the process into the background, but for its standard streams: no terminal, its own session.
/// The caller's descriptors stay open, and the working directory stays, too: relative names of files
/// that are read again (a revocation list) keep their meaning.
///
/// Must be called before any thread is started: only the calling thread survives.
pub fn to_background() -> io::Result<Background> {
    let (mut word, writer) = io::pipe()?;
    if fork()?.is_some() {
        drop(writer);
        let failed = word.read(&mut [0]).is_ok_and(|len| len == 0);
        leave(failed.into());
    }
    // SAFETY: no pointers are passed. It cannot fail: a forked child leads no process group.
    check(unsafe { libc::setsid() })?;
    // Not being a session leader, the grandchild never gets a controlling terminal.
    if fork()?.is_some() {
        leave(0);
    }
    Ok(Background(writer))
}

impl Background {
    /// All went well: lets go of the standard streams and lets the one in the foreground end.
    pub fn enter(mut self) -> io::Result<()> {
        silence()?;
        self.0.write_all(&[1])
    }
}

/// Gives the standard streams up.
pub fn silence() -> io::Result<()> {
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for stream in 0..3 {
        // SAFETY: no pointers are passed; the standard streams are nobody's OwnedFd.
        check(unsafe { libc::dup2(null.as_raw_fd(), stream) })?;
    }
    Ok(())
}

/// Ends this process at once; destructors (taking back addresses and routes, removing the control
/// socket) must run in its child only.
fn leave(code: libc::c_int) -> ! {
    // SAFETY: has no conditions.
    unsafe { libc::_exit(code) }
}

/// A process that was forked off.
#[derive(Debug)]
pub struct Child(libc::pid_t);

/// How often it is looked whether a process has ended that is about to.
const NAP: Duration = Duration::from_millis(5);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this status.
    Status(i32),
    /// By a signal.
    Signal(i32),
}

/// Makes two of this process; returns nothing in the new one. There must be one thread only.
pub fn fork() -> io::Result<Option<Child>> {
    // SAFETY: there is one thread only, so the child may do whatever the parent might.
    match check(unsafe { libc::fork() })? {
        0 => Ok(None),
        child => Ok(Some(Child(child))),
    }
}

impl Child {
    /// Waits for its end, and sees to it when that takes longer.
    pub fn end_within(self, limit: Duration) -> Ending {
        let mut waited = Duration::ZERO;
        loop {
            let mut status = 0;
            // SAFETY: the pointer is to a local that outlives the call.
            match check(unsafe { libc::waitpid(self.0, &raw mut status, libc::WNOHANG) }) {
                Ok(0) if waited >= limit => self.kill(),
                Ok(0) => {}
                Ok(_) if libc::WIFSIGNALED(status) => {
                    return Ending::Signal(libc::WTERMSIG(status));
                }
                Ok(_) => return Ending::Status(libc::WEXITSTATUS(status)),
                Err(_) => return Ending::Status(1),
            }
            std::thread::sleep(NAP);
            waited += NAP;
        }
    }

    /// Ends it at once. It still has to be waited for.
    pub fn kill(&self) {
        // SAFETY: no pointers are passed. The id is not reused before it has been waited for.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }
}

/// A pid file; removed again when dropped, as far as privileges allow.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes this process's id.
    pub fn write(path: &Path) -> Result<Self, String> {
        fs::write(path, format!("{}\n", id()))
            .map_err(|error| format!("writepid {}: {error}", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
