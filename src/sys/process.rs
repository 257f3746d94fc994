//! About the process as such: going to the background, the pid file.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::check;

/// This process's id.
pub fn id() -> u32 {
    std::process::id()
}

/// Puts the process into the background: no terminal, no standard streams, its own session. The
/// caller's descriptors stay open, and the working directory stays, too: relative names of files
/// that are read again (a revocation list) keep their meaning.
///
/// Must be called before any thread is started: only the calling thread survives.
pub fn detach() -> io::Result<()> {
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    fork_and_leave_parent()?;
    // SAFETY: no pointers are passed. It cannot fail: a forked child leads no process group.
    check(unsafe { libc::setsid() })?;
    // Not being a session leader, the grandchild never gets a controlling terminal.
    fork_and_leave_parent()?;
    for stream in 0..3 {
        // SAFETY: no pointers are passed; the standard streams are nobody's OwnedFd.
        check(unsafe { libc::dup2(null.as_raw_fd(), stream) })?;
    }
    Ok(())
}

fn fork_and_leave_parent() -> io::Result<()> {
    // SAFETY: there is one thread only, so the child may do whatever the parent might.
    match check(unsafe { libc::fork() })? {
        0 => Ok(()),
        // SAFETY: ends the parent at once; destructors (taking back addresses and routes, removing
        // the control socket) must run in the child only.
        _ => unsafe { libc::_exit(0) },
    }
}

/// A pid file; removed again when dropped, as far as privileges allow.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes this process's id.
    pub fn write(path: &Path) -> Result<Self, String> {
        fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|error| format!("writepid {}: {error}", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
