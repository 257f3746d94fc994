//! A filter of system calls (seccomp): what a server or client never needs, the kernel refuses from the
//! start on.
//!
//! It names what is refused rather than what is allowed, as that depends on the C library; refused is
//! what reaches far into the kernel or other processes, and running programs. Scripts would inherit it,
//! so there is none where any are configured. Built for x86_64 and AArch64, as the crate that makes the
//! filter knows no others.

use super::hooks;
use crate::config::hooks::Hooks;

/// Whether a filter is in force, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// It is.
    On,
    /// Scripts may need what it refuses.
    Scripts,
    /// The kernel has none.
    Kernel,
    /// This program was built without it.
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

/// Puts the filter in force, for good.
#[cfg(all(feature = "seccomp", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn enter(hooks: &Hooks) -> Result<Filter, String> {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use seccompiler::{BpfProgram, Error, SeccompAction, SeccompFilter, TargetArch};

    /// Not permitted, as for those without the privilege.
    const REFUSED: SeccompAction = SeccompAction::Errno(libc::EPERM as u32);

    /// Filters pile up; the first one stays in force at every fresh start within the process.
    static ENTERED: AtomicBool = AtomicBool::new(false);

    if ENTERED.load(Ordering::Relaxed) {
        return Ok(Filter::On);
    }
    if hooks::any(hooks) {
        return Ok(Filter::Scripts);
    }
    let arch = match cfg!(target_arch = "x86_64") {
        true => TargetArch::x86_64,
        false => TargetArch::aarch64,
    };
    // No condition: whatever the arguments are.
    let rules: BTreeMap<i64, Vec<_>> = NEVER.iter().map(|call| (*call, Vec::new())).collect();
    let program = SeccompFilter::new(rules, SeccompAction::Allow, REFUSED, arch)
        .and_then(TryInto::<BpfProgram>::try_into)
        .map_err(|error| format!("system call filter: {error}"))?;
    match seccompiler::apply_filter_all_threads(&program) {
        Ok(()) => {
            ENTERED.store(true, Ordering::Relaxed);
            Ok(Filter::On)
        }
        Err(Error::Prctl(error) | Error::Seccomp(error)) if lacks(&error) => Ok(Filter::Kernel),
        Err(error) => Err(format!("the system call filter is not taken: {error}")),
    }
}

/// How a kernel, or an emulator, answers that has no such thing.
#[cfg(all(feature = "seccomp", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn lacks(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL))
}

/// There is none to put in force.
#[cfg(not(all(feature = "seccomp", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub fn enter(hooks: &Hooks) -> Result<Filter, String> {
    Ok(if hooks::any(hooks) { Filter::Scripts } else { Filter::Unknown })
}

/// `kexec_file_load`, which the crate `libc` does not know with musl on AArch64.
#[cfg(all(feature = "seccomp", target_arch = "x86_64"))]
const KEXEC_FILE_LOAD: libc::c_long = libc::SYS_kexec_file_load;
#[cfg(all(feature = "seccomp", target_arch = "aarch64"))]
const KEXEC_FILE_LOAD: libc::c_long = 294;

/// Calls that nothing here makes.
#[cfg(all(feature = "seccomp", any(target_arch = "x86_64", target_arch = "aarch64")))]
const NEVER: &[libc::c_long] = &[
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Other name spaces and file systems.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    KEXEC_FILE_LOAD,
    libc::SYS_reboot,
    libc::SYS_acct,
    // Large parts of it that have been ways in.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The clock.
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
];

#[cfg(all(test, feature = "seccomp", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use super::*;

    /// What it does once it is in force, `tests/interop/privileges.py` shows: here it would be for all tests.
    #[test]
    fn none_with_scripts_and_no_call_twice() {
        assert_eq!(enter(&hooks()), Ok(Filter::Scripts));
        let mut calls = NEVER.to_vec();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), NEVER.len(), "one is named twice");
    }

    fn hooks() -> Hooks {
        crate::config::tests::server("script-security 2\nup /bin/true").config.hooks
    }
}
