//! The filter in force, in processes of their own: what works, what is refused, and what is the end.

use super::*;

#[test]
fn none_with_scripts() {
    assert_eq!(enter(true), Ok(Filter::Scripts));
}

/// In a process of its own, as it would be for all tests. Builds with musl are for other machines: their tests run
/// under emulators of a single program, which have no filter.
#[cfg(all(target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod inside {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Output};
    use std::{fs, io, thread};

    use super::super::*;

    /// Set in such a process.
    const INSIDE: &str = "SIXGATE_TEST_INSIDE";

    /// Runs the test of that name once more, there.
    fn alone(name: &str) -> Option<Output> {
        if std::env::var_os(INSIDE).is_some() {
            return None;
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(INSIDE, "1").args(["--exact", "--nocapture"]);
        command.arg(format!("sys::sandbox::tests::inside::{name}"));
        Some(command.output().unwrap())
    }

    fn entered() {
        // SAFETY: no pointers are passed.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
        assert_eq!(enter(false), Ok(Filter::On));
        // A fresh start.
        assert_eq!(enter(false), Ok(Filter::On));
    }

    /// The error of a call without pointers.
    fn refusal(number: libc::c_long, args: [libc::c_long; 6]) -> Option<i32> {
        let [a, b, c, d, e, f] = args;
        // SAFETY: the kernel refuses it before it looks at anything.
        let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
        if result == -1 { io::Error::last_os_error().raw_os_error() } else { None }
    }

    #[test]
    fn what_is_not_allowed_fails_and_the_rest_works() {
        if let Some(done) = alone("what_is_not_allowed_fails_and_the_rest_works") {
            let text = String::from_utf8_lossy(&done.stdout);
            assert!(done.status.success() && text.contains("1 passed"), "{text}");
            return;
        }
        let folder = std::env::temp_dir().join(format!("sixgate-sandbox-{}", std::process::id()));
        entered();
        // What a server does all day.
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("new"), "text").unwrap();
        fs::rename(folder.join("new"), folder.join("old")).unwrap();
        assert_eq!(fs::read_to_string(folder.join("old")).unwrap(), "text");
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(thread::spawn(|| 7).join().unwrap(), 7);
        let udp = std::net::UdpSocket::bind("[::1]:0").unwrap();
        udp.send_to(b"x", udp.local_addr().unwrap()).unwrap();
        assert_eq!(udp.recv(&mut [0; 8]).unwrap(), 1);
        let stack = vec![0_u8; 8 << 20];
        assert_eq!(stack.iter().filter(|byte| **byte != 0).count(), 0);
        // With other arguments.
        let (exec, shared) = (libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let prot = libc::c_long::from(exec | libc::PROT_READ | libc::PROT_WRITE);
        let packet = [libc::AF_PACKET.into(), libc::SOCK_RAW.into(), 0, 0, 0, 0];
        let firewall = [
            libc::AF_NETLINK.into(),
            libc::SOCK_RAW.into(),
            libc::NETLINK_NETFILTER.into(),
            0,
            0,
            0,
        ];
        for (number, args) in [
            (libc::SYS_socket, packet),
            (libc::SYS_socket, firewall),
            (libc::SYS_mmap, [0, 4096, prot, shared.into(), -1, 0]),
            (libc::SYS_mprotect, [0, 4096, prot, 0, 0, 0]),
            (libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0]),
            (libc::SYS_setsockopt, [0, libc::SOL_IP.into(), 64, 0, 0, 0]),
            (libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 1, 0, 0, 0, 0]),
            (libc::SYS_ioctl, [0, libc::TIOCSTI as libc::c_long, 0, 0, 0, 0]),
            (libc::SYS_tgkill, [1, 1, 0, 0, 0, 0]),
        ] {
            assert_eq!(refusal(number, args), Some(libc::EPERM), "call {number} {args:x?}");
        }
        assert!(Command::new("/bin/true").spawn().is_err());
        // As on a kernel without them.
        for number in [
            libc::SYS_kill,
            libc::SYS_io_uring_setup,
            libc::SYS_clone3,
            libc::SYS_keyctl,
            libc::SYS_setresuid,
        ] {
            assert_eq!(refusal(number, [0; 6]), Some(libc::ENOSYS), "call {number}");
        }
    }

    #[test]
    fn an_intruders_call_ends_the_process() {
        if let Some(done) = alone("an_intruders_call_ends_the_process") {
            assert_eq!(done.status.signal(), Some(libc::SIGSYS), "{done:?}");
            return;
        }
        entered();
        refusal(libc::SYS_execve, [0; 6]);
    }

    /// Its end by its own hand is still told by the signal.
    #[test]
    fn giving_up_is_allowed() {
        if let Some(done) = alone("giving_up_is_allowed") {
            assert_eq!(done.status.signal(), Some(libc::SIGABRT), "{done:?}");
            return;
        }
        entered();
        std::process::abort();
    }
}
