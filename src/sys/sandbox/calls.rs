//! The system calls that a running server or client makes, on every processor and with each C library.
//!
//! What it opens and looks up before the filter is in force is not here. The numbers are those of `libc`, but for
//! what is too new for it: from 403 on they are the same on all processors, and 64-bit time on 32-bit ones is
//! among them, which musl asks for first and does without on older kernels.

use super::program::Rule;
use super::program::Test::{Any, Below, None, NotAll, OneOf, OwnProcess};

/// Whose numbers these are, as the kernel says it: ELF's number of the machine, 64 bits, little-endian.
pub const ARCH: u32 = {
    let machine = if cfg!(target_arch = "x86_64") {
        62
    } else if cfg!(target_arch = "aarch64") {
        183
    } else if cfg!(target_arch = "arm") {
        40
    } else {
        8
    };
    let wide = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
    let little = cfg!(target_endian = "little");
    machine | if wide { 0x8000_0000 } else { 0 } | if little { 0x4000_0000 } else { 0 }
};

/// All that may be done, the most frequent first.
pub const ALLOWED: [&[Rule]; 4] = [PACKETS, OLD, NARROW, REST];

const fn call(number: libc::c_long) -> Rule {
    Rule { call: number as u32, when: &[] }
}

const fn when(number: libc::c_long, when: &'static [super::program::Test]) -> Rule {
    Rule { call: number as u32, when }
}

/// A call by its number of all processors.
#[cfg(target_pointer_width = "32")]
const fn new_call(number: libc::c_long) -> Rule {
    // The 32-bit calls of MIPS begin there.
    call(number + if cfg!(target_arch = "mips") { 4000 } else { 0 })
}

/// What a turn of the event loop makes.
const PACKETS: &[Rule] = &[
    #[cfg(not(target_arch = "aarch64"))]
    call(libc::SYS_poll),
    #[cfg(target_arch = "aarch64")]
    call(libc::SYS_ppoll),
    #[cfg(target_pointer_width = "32")]
    new_call(417), // recvmmsg_time64
    call(libc::SYS_recvmmsg),
    call(libc::SYS_sendmmsg),
    call(libc::SYS_readv),
    call(libc::SYS_writev),
    call(libc::SYS_read),
    call(libc::SYS_write),
    call(libc::SYS_recvmsg),
    call(libc::SYS_sendmsg),
    #[cfg(target_pointer_width = "32")]
    new_call(403), // clock_gettime64
    call(libc::SYS_clock_gettime),
];

/// What newer processors have in one form only.
#[cfg(not(target_arch = "aarch64"))]
const OLD: &[Rule] = &[
    call(libc::SYS_open),
    call(libc::SYS_access),
    call(libc::SYS_readlink),
    call(libc::SYS_unlink),
    call(libc::SYS_rename),
    call(libc::SYS_mkdir),
    call(libc::SYS_rmdir),
    call(libc::SYS_chmod),
    call(libc::SYS_chown),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_stat),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_lstat),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_time),
    call(libc::SYS_ppoll),
];
#[cfg(target_arch = "aarch64")]
const OLD: &[Rule] = &[];

/// What 32-bit processors have for files and times of 64 bits, and more of that kind.
#[cfg(target_pointer_width = "32")]
const NARROW: &[Rule] = &[
    when(libc::SYS_mmap2, &[MAPPED]),
    when(libc::SYS_fcntl64, DESCRIPTOR),
    call(libc::SYS__llseek),
    call(libc::SYS_stat64),
    call(libc::SYS_lstat64),
    call(libc::SYS_fstat64),
    #[cfg(target_arch = "arm")]
    call(libc::SYS_fstatat64),
    #[cfg(target_arch = "mips")]
    call(4293), // fstatat64
    call(libc::SYS_ftruncate64),
    call(libc::SYS_sigreturn),
    call(libc::SYS_recv),
    call(libc::SYS_send),
    #[cfg(target_arch = "arm")]
    call(libc::SYS_chown32),
    #[cfg(target_arch = "arm")]
    call(libc::SYS_fchown32),
    #[cfg(target_arch = "arm")]
    call(libc::SYS_getuid32),
    #[cfg(target_arch = "arm")]
    call(libc::SYS_geteuid32),
    #[cfg(target_arch = "arm")]
    call(libc::SYS_getgid32),
    #[cfg(target_arch = "arm")]
    call(libc::SYS_getegid32),
    new_call(406), // clock_getres_time64
    new_call(407), // clock_nanosleep_time64
    new_call(411), // timerfd_settime64
    new_call(414), // ppoll_time64
    new_call(422), // futex_time64
];
#[cfg(not(target_pointer_width = "32"))]
const NARROW: &[Rule] = &[];

const REST: &[Rule] = &[
    // Memory. What can be written cannot be run.
    call(libc::SYS_brk),
    #[cfg(not(target_pointer_width = "32"))]
    when(libc::SYS_mmap, &[MAPPED]),
    call(libc::SYS_munmap),
    call(libc::SYS_mremap),
    call(libc::SYS_madvise),
    when(libc::SYS_mprotect, &[None(2, libc::PROT_EXEC as u32)]),
    // Threads: one for each look-up of a name. Other processes are refused.
    call(libc::SYS_futex),
    when(libc::SYS_clone, &[Any(0, libc::CLONE_THREAD as u32)]),
    call(libc::SYS_set_robust_list),
    // glibc ends the process if a new thread cannot have it.
    #[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
    call(libc::SYS_rseq),
    #[cfg(all(target_env = "gnu", target_arch = "arm"))]
    call(398),
    call(libc::SYS_gettid),
    call(libc::SYS_sched_yield),
    call(libc::SYS_sched_getaffinity),
    call(libc::SYS_sigaltstack),
    call(libc::SYS_exit),
    call(libc::SYS_exit_group),
    // Signals. Only to itself, when it gives up.
    call(libc::SYS_rt_sigprocmask),
    call(libc::SYS_rt_sigaction),
    call(libc::SYS_rt_sigreturn),
    call(libc::SYS_restart_syscall),
    call(libc::SYS_signalfd4),
    when(libc::SYS_tgkill, &[OwnProcess(0)]),
    // Time.
    call(libc::SYS_nanosleep),
    call(libc::SYS_clock_nanosleep),
    call(libc::SYS_clock_getres),
    call(libc::SYS_gettimeofday),
    call(libc::SYS_timerfd_create),
    call(libc::SYS_timerfd_settime),
    // Randomness, and who and where it is.
    call(libc::SYS_getrandom),
    call(libc::SYS_getpid),
    call(libc::SYS_getuid),
    call(libc::SYS_geteuid),
    call(libc::SYS_getgid),
    call(libc::SYS_getegid),
    call(libc::SYS_uname),
    call(libc::SYS_sysinfo),
    when(libc::SYS_prlimit64, &[OneOf(0, &[0])]),
    #[cfg(not(target_arch = "arm"))]
    call(libc::SYS_getrlimit),
    #[cfg(target_arch = "arm")]
    call(libc::SYS_ugetrlimit),
    // Giving up privileges once more, at a fresh start: none can be gained.
    call(libc::SYS_capget),
    call(libc::SYS_capset),
    when(
        libc::SYS_prctl,
        &[OneOf(
            0,
            &[
                libc::PR_SET_NO_NEW_PRIVS as u32,
                libc::PR_CAPBSET_DROP as u32,
                libc::PR_SET_KEEPCAPS as u32,
            ],
        )],
    ),
    // Sockets: of the internet, of this machine, and the part of netlink that is about addresses and routes.
    when(libc::SYS_socket, &[OneOf(0, FAMILIES)]),
    when(
        libc::SYS_socket,
        &[OneOf(0, &[libc::AF_NETLINK as u32]), OneOf(2, &[libc::NETLINK_ROUTE as u32])],
    ),
    when(libc::SYS_socketpair, &[OneOf(0, &[libc::AF_UNIX as u32])]),
    call(libc::SYS_bind),
    call(libc::SYS_connect),
    call(libc::SYS_listen),
    call(libc::SYS_accept4),
    call(libc::SYS_accept),
    call(libc::SYS_getsockname),
    call(libc::SYS_getpeername),
    call(libc::SYS_sendto),
    call(libc::SYS_recvfrom),
    call(libc::SYS_shutdown),
    call(libc::SYS_getsockopt),
    // The firewall's options begin with 64, on IPv6 beside others that nobody here uses.
    when(
        libc::SYS_setsockopt,
        &[OneOf(1, &[libc::IPPROTO_IP as u32, libc::IPPROTO_IPV6 as u32]), Below(2, 64)],
    ),
    when(
        libc::SYS_setsockopt,
        &[OneOf(1, &[libc::SOL_UDP as u32, libc::SOL_TCP as u32, libc::SOL_NETLINK as u32])],
    ),
    when(libc::SYS_setsockopt, &[OneOf(1, &[libc::SOL_SOCKET as u32]), OneOf(2, SOCKET_OPTIONS)]),
    when(libc::SYS_ioctl, &[OneOf(1, REQUESTS)]),
    // Files.
    call(libc::SYS_openat),
    call(libc::SYS_close),
    when(libc::SYS_fcntl, DESCRIPTOR),
    call(libc::SYS_lseek),
    // How glibc reads what it loads.
    #[cfg(target_env = "gnu")]
    call(libc::SYS_pread64),
    call(libc::SYS_statx),
    call(libc::SYS_fstat),
    #[cfg(not(target_pointer_width = "32"))]
    call(libc::SYS_newfstatat),
    call(libc::SYS_getdents64),
    call(libc::SYS_readlinkat),
    call(libc::SYS_faccessat),
    call(libc::SYS_faccessat2),
    call(libc::SYS_getcwd),
    call(libc::SYS_flock),
    call(libc::SYS_fsync),
    call(libc::SYS_fdatasync),
    call(libc::SYS_ftruncate),
    call(libc::SYS_unlinkat),
    call(libc::SYS_renameat),
    call(libc::SYS_renameat2),
    call(libc::SYS_mkdirat),
    call(libc::SYS_fchmod),
    call(libc::SYS_fchmodat),
    call(libc::SYS_fchown),
    call(libc::SYS_fchownat),
];

/// A static program never maps anything to run it. glibc loads parts of its resolver when a name is looked
/// up, from files: never what can be written, too.
const MAPPED: super::program::Test = if cfg!(target_env = "gnu") {
    NotAll(2, (libc::PROT_WRITE | libc::PROT_EXEC) as u32)
} else {
    None(2, libc::PROT_EXEC as u32)
};

/// What is asked of a descriptor: no signals to others.
const DESCRIPTOR: &[super::program::Test] = &[OneOf(
    1,
    &[
        libc::F_GETFD as u32,
        libc::F_SETFD as u32,
        libc::F_GETFL as u32,
        libc::F_SETFL as u32,
        libc::F_DUPFD_CLOEXEC as u32,
    ],
)];

const FAMILIES: &[u32] = &[libc::AF_INET6 as u32, libc::AF_INET as u32, libc::AF_UNIX as u32];

const SOCKET_OPTIONS: &[u32] = &[
    libc::SO_RCVBUF as u32,
    libc::SO_RCVBUFFORCE as u32,
    libc::SO_SNDBUF as u32,
    libc::SO_SNDBUFFORCE as u32,
    libc::SO_RCVTIMEO as u32,
    libc::SO_SNDTIMEO as u32,
    // The same two in 32-bit time, which musl falls back on: kernels before 5.1 have no other.
    #[cfg(target_pointer_width = "32")]
    if cfg!(target_arch = "mips") { 0x1006 } else { 20 },
    #[cfg(target_pointer_width = "32")]
    if cfg!(target_arch = "mips") { 0x1005 } else { 21 },
    libc::SO_REUSEADDR as u32,
    libc::SO_PASSCRED as u32,
];

/// Of an interface, the TUN device, a descriptor, a resolver's socket, and the terminal on which a client asks
/// once more for a password.
const REQUESTS: &[u32] = &[
    libc::SIOCGIFMTU as u32,
    libc::SIOCGIFFLAGS as u32,
    libc::SIOCGIFINDEX as u32,
    libc::SIOCGIFNAME as u32,
    libc::TUNSETIFF as u32,
    libc::TUNSETOFFLOAD as u32,
    libc::TUNSETVNETLE as u32,
    libc::FIONBIO as u32,
    libc::FIONREAD as u32,
    libc::TCGETS as u32,
    libc::TCSETS as u32,
    libc::TCSETSF as u32,
];

/// Nothing here makes these, even by mistake: whoever does is an intruder. They run other programs, reach into other
/// processes, leave this one's place, or change the kernel.
pub const DEADLY: &[u32] = &[
    libc::SYS_execve as u32,
    libc::SYS_execveat as u32,
    libc::SYS_ptrace as u32,
    libc::SYS_process_vm_readv as u32,
    libc::SYS_process_vm_writev as u32,
    libc::SYS_unshare as u32,
    libc::SYS_setns as u32,
    libc::SYS_mount as u32,
    libc::SYS_pivot_root as u32,
    libc::SYS_init_module as u32,
    libc::SYS_finit_module as u32,
    libc::SYS_kexec_load as u32,
    libc::SYS_bpf as u32,
];
