//! A filter of system calls (seccomp): a server or client may make those it needs, and no others, from the
//! start on.
//!
//! `calls` is the list, `program` makes of it what the kernel runs before each call. What is not on it
//! fails as on a kernel that lacks it, so that a newer C library goes back to an older call, which is; an
//! allowed one with arguments that nobody here uses is not permitted; and what only an intruder would do ends
//! the process at once. Scripts would inherit the filter, so there is none in a process that runs any itself.

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "arm",
    target_arch = "mips"
))]
mod calls;
mod program;

/// Whether a filter is in force, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// It is.
    On,
    /// Scripts may need what it refuses.
    Scripts,
    /// The kernel has none.
    Kernel,
    /// There is no list for this processor.
    Unknown,
}

impl Filter {
    /// For status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Scripts => "off: there are scripts",
            Self::Kernel => "off: not in this kernel",
            Self::Unknown => "off: not for this processor",
        }
    }
}

/// Puts the filter in force, for good, unless this process has to run scripts. Needs a process that can gain
/// no privileges any more.
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "arm",
    target_arch = "mips"
))]
pub fn enter(scripts: bool) -> Result<Filter, String> {
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Filters pile up; the first one stays in force at every fresh start within the process.
    static ENTERED: AtomicBool = AtomicBool::new(false);

    if ENTERED.load(Ordering::Relaxed) {
        return Ok(Filter::On);
    }
    if scripts {
        return Ok(Filter::Scripts);
    }
    let order = program::Order { big_endian: cfg!(target_endian = "big") };
    let rules = calls::ALLOWED.iter().copied().flatten();
    match apply(&mut program::assemble(
        calls::ARCH,
        rules,
        calls::DEADLY,
        std::process::id(),
        order,
    )) {
        Ok(()) => {
            ENTERED.store(true, Ordering::Relaxed);
            Ok(Filter::On)
        }
        Err(error) if lacks(&error) => Ok(Filter::Kernel),
        Err(error) => Err(format!("the system call filter is not taken: {error}")),
    }
}

/// There is none to put in force.
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "arm",
    target_arch = "mips"
)))]
pub fn enter(scripts: bool) -> Result<Filter, String> {
    Ok(if scripts { Filter::Scripts } else { Filter::Unknown })
}

/// Hands the program to the kernel, for all threads.
fn apply(program: &mut [libc::sock_filter]) -> std::io::Result<()> {
    let len = u16::try_from(program.len()).unwrap_or(u16::MAX);
    let fprog = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: `fprog` says where `len` instructions are; the kernel copies them and writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const fprog,
        )
    };
    match result {
        0 => Ok(()),
        // The thread that cannot have it.
        1.. => Err(std::io::Error::other(format!("thread {result} has another one"))),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// How a kernel, or an emulator, answers that has no such thing.
fn lacks(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL))
}

#[cfg(test)]
mod tests;
