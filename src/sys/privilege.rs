//! Giving up what is no longer needed: another user, one capability, no way back.
//!
//! After [`Identity::assume`] the process holds CAP_NET_ADMIN and nothing else: clients' routes
//! and the tunnel's addresses still change while it runs. Root that stays root by name keeps its own files
//! without any capability, but loses the power over everybody else's.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use super::check;

const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_NET_ADMIN: u32 = 12;
/// Capabilities beyond this one do not exist on any kernel yet; the bounding set ends with EINVAL.
const CAP_LAST: libc::c_ulong = 63;
/// Two 32-bit words per set.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Who to be, looked up while the user database can still be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    user: Option<(libc::uid_t, libc::gid_t)>,
    group: Option<libc::gid_t>,
}

/// Whether this process may open TUN devices and change routes.
pub fn may_administer() -> bool {
    has(&[CAP_NET_ADMIN])
}

/// Whether this is root, and may become the user that [`unprivileged`] names. In a container it may
/// be that there is no other user.
pub fn may_change_user() -> bool {
    let file = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}"));
    let knows = |map: &str, id: u32| {
        // Without /proc there is nothing to go by; then the attempt will show.
        file(map).map_or(true, |text| text.lines().any(|line| in_range(line, id)))
    };
    let Ok((uid, gid)) = find_user(unprivileged()) else { return false };
    is_root()
        && has(&[CAP_SETGID, CAP_SETUID])
        && knows("uid_map", uid)
        && knows("gid_map", gid)
        && file("setgroups").map_or(true, |text| text.trim() != "deny")
}

/// The user for those who may be anybody but root: one of our own, or nobody.
pub fn unprivileged() -> &'static str {
    // The number is that of nobody everywhere.
    ["sixgate", "nobody"].into_iter().find(|name| find_user(name).is_ok()).unwrap_or("65534")
}

/// Whether a line of `uid_map` (first inside, first outside, how many) has this number inside.
fn in_range(line: &str, id: u32) -> bool {
    let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
    match (numbers.next(), numbers.nth(1)) {
        (Some(Ok(first)), Some(Ok(count))) => {
            id.checked_sub(first).is_some_and(|offset| offset < count)
        }
        _ => false,
    }
}

/// Whether these capabilities are in force.
fn has(capabilities: &[u32]) -> bool {
    let mut data = [CapData::default(); 2];
    let mut header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    // SAFETY: version 3 reads the header and writes two data structures.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    let [low, _] = data;
    result == 0 && capabilities.iter().all(|bit| low.effective & (1 << bit) != 0)
}

impl Identity {
    /// Looks up `user` and `group` as configured.
    pub fn find(user: Option<&str>, group: Option<&str>) -> Result<Self, String> {
        Ok(Self {
            user: user.map(find_user).transpose()?,
            group: group.map(find_group).transpose()?,
        })
    }

    /// The user's id, if one is named.
    pub fn uid(self) -> Option<u32> {
        self.user.map(|(uid, _)| uid)
    }

    /// The group's id, if one is named.
    pub const fn gid(self) -> Option<u32> {
        self.group
    }

    /// Becomes that user with CAP_NET_ADMIN only, and can never get more again.
    pub fn assume(self) -> Result<(), String> {
        self.try_assume().map_err(|error| format!("cannot give up privileges: {error}"))
    }

    fn try_assume(self) -> io::Result<()> {
        prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
        drop_bounding_set()?;
        if self.user.is_some() {
            // Else the change of the user id would clear the permitted set.
            prctl(libc::PR_SET_KEEPCAPS, 1)?;
        }
        let primary = self.group.or(self.user.map(|(_, gid)| gid));
        if let Some(gid) = primary {
            // SAFETY: an empty list needs no memory.
            check(unsafe { libc::setgroups(0, ptr::null()) })?;
            // SAFETY: no pointers are passed.
            check(unsafe { libc::setresgid(gid, gid, gid) })?;
        }
        if let Some((uid, _)) = self.user {
            // SAFETY: no pointers are passed.
            check(unsafe { libc::setresuid(uid, uid, uid) })?;
        }
        keep_only_net_admin()
    }
}

/// Takes all but CAP_NET_ADMIN from what a program started from here could ever gain.
fn drop_bounding_set() -> io::Result<()> {
    for capability in 0..=CAP_LAST {
        if capability == libc::c_ulong::from(CAP_NET_ADMIN) {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            Ok(()) => {}
            // The first number that this kernel does not know.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            // Started without CAP_SETPCAP, as a service with CAP_NET_ADMIN alone: there is
            // nothing to drop, and no_new_privs keeps it so.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The options used here take one number and insist that the rest is zero. All are `long`: an
/// `int` passed to a variadic function may leave rubbish in the upper half.
fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: no pointers are passed.
    check(unsafe { libc::prctl(option, argument, zero, zero, zero) }).map(|_| ())
}

fn keep_only_net_admin() -> io::Result<()> {
    let bit = 1 << CAP_NET_ADMIN;
    let data = [CapData { effective: bit, permitted: bit, inheritable: 0 }, CapData::default()];
    let header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    // SAFETY: version 3 reads the header and two data structures.
    match unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A number is taken as it is; the user's group is then the same number.
fn find_user(name: &str) -> Result<(libc::uid_t, libc::gid_t), String> {
    if let Ok(id) = name.parse() {
        return Ok((id, id));
    }
    let text = to_c(name)?;
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let found = with_buffer(|buffer, result: *mut *mut libc::passwd| {
        // SAFETY: all pointers are to memory that outlives the call, of the length given.
        unsafe {
            libc::getpwnam_r(
                text.as_ptr(),
                entry.as_mut_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                result,
            )
        }
    });
    match found {
        // SAFETY: getpwnam_r reported an entry, so it filled the structure in.
        Ok(true) => Ok(unsafe {
            let entry = entry.assume_init_ref();
            (entry.pw_uid, entry.pw_gid)
        }),
        Ok(false) => Err(format!("user: there is no user '{name}'")),
        Err(error) => Err(format!("user '{name}': {error}")),
    }
}

fn find_group(name: &str) -> Result<libc::gid_t, String> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let text = to_c(name)?;
    let mut entry = MaybeUninit::<libc::group>::uninit();
    let found = with_buffer(|buffer, result: *mut *mut libc::group| {
        // SAFETY: all pointers are to memory that outlives the call, of the length given.
        unsafe {
            libc::getgrnam_r(
                text.as_ptr(),
                entry.as_mut_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                result,
            )
        }
    });
    match found {
        // SAFETY: getgrnam_r reported an entry, so it filled the structure in.
        Ok(true) => Ok(unsafe { entry.assume_init_ref() }.gr_gid),
        Ok(false) => Err(format!("group: there is no group '{name}'")),
        Err(error) => Err(format!("group '{name}': {error}")),
    }
}

/// Calls a `get…_r` function with a buffer and tells whether it found something.
fn with_buffer<T>(call: impl FnOnce(&mut [u8], *mut *mut T) -> libc::c_int) -> io::Result<bool> {
    let mut buffer = vec![0; 16 * 1024];
    let mut result: *mut T = ptr::null_mut();
    match call(&mut buffer, &mut result) {
        // Some C libraries report "no such entry" as an error of these kinds.
        0 | libc::ENOENT | libc::ESRCH => Ok(!result.is_null()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

fn to_c(name: &str) -> Result<CString, String> {
    CString::new(name).map_err(|_| "user/group: a name contains a NUL byte".to_owned())
}

/// The name of this process's user id, as far as messages need it.
pub fn is_root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_of_users_has_some() {
        for (line, id, inside) in [
            ("         0          0 4294967295", 65534, true),
            ("         0       1000          1", 0, true),
            ("         0       1000          1", 65534, false),
            ("    100000          0      65536", 99999, false),
            ("    100000          0      65536", 165_535, true),
            ("", 0, false),
        ] {
            assert_eq!(in_range(line, id), inside, "{line} {id}");
        }
    }

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        assert_eq!(Identity::find(Some("root"), Some("root")).unwrap().user, Some((0, 0)));
        assert_eq!(Identity::find(Some("1234"), None).unwrap().user, Some((1234, 1234)));
        let error = Identity::find(Some("nobody-of-that-name"), None).unwrap_err();
        assert!(error.contains("no user 'nobody-of-that-name'"), "{error}");
        assert!(Identity::find(None, Some("no-such-group")).is_err());
    }
}
