//! Interfaces by name and number, and their state: what takes no message to find out.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::RawFd;

use crate::sys::check;

/// State of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// MTU in bytes.
    pub mtu: u16,
    /// Whether it is up.
    pub up: bool,
}

/// Asks over any socket.
pub(super) fn link(socket: RawFd, interface: u32) -> io::Result<Link> {
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = interface_name(interface);
    // One byte stays for the end.
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // C libraries differ in the type of the number; it fits into each.
    let [mtu, flags] = [libc::SIOCGIFMTU, libc::SIOCGIFFLAGS].map(|what| what as libc::Ioctl);
    // SAFETY: both calls read the name and write their own field, which is read afterwards.
    let (mtu, flags) = unsafe {
        check(libc::ioctl(socket, mtu, &raw mut request))?;
        let mtu = request.ifr_ifru.ifru_mtu;
        check(libc::ioctl(socket, flags, &raw mut request))?;
        (mtu, request.ifr_ifru.ifru_flags)
    };
    let up = libc::c_int::from(flags) & libc::IFF_UP != 0;
    Ok(Link { mtu: u16::try_from(mtu).unwrap_or(u16::MAX), up })
}

/// The index of a named interface.
pub fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// The name of an interface; empty when it is gone.
pub fn interface_name(index: u32) -> String {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: `name` has the size that the call asks for.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    let text = CStr::from_bytes_until_nul(&name).ok().filter(|_| !found.is_null());
    text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}
