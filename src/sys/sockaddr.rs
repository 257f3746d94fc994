//! Socket addresses between Rust's form and the kernel's.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::RawFd;

use super::check;

/// Memory for a kernel socket address of any family, and how much of it is meant.
pub struct Storage {
    memory: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl Storage {
    /// Bytes a system call may write.
    pub const CAPACITY: libc::socklen_t =
        mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;

    /// An address of no family.
    pub fn empty() -> Self {
        // SAFETY: all-zero is a valid sockaddr_storage.
        Self { memory: unsafe { mem::zeroed() }, len: 0 }
    }

    /// For system calls that read the address.
    pub fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.memory).cast()
    }

    /// For system calls that write an address of at most [`Self::CAPACITY`] bytes.
    pub fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        (&raw mut self.memory).cast()
    }

    /// Length of the address in bytes.
    pub fn len(&self) -> libc::socklen_t {
        self.len
    }

    /// The address as a system call left it, judged by its family.
    pub fn to_address(&self) -> Option<SocketAddr> {
        match libc::c_int::from(self.memory.ss_family) {
            libc::AF_INET => {
                // SAFETY: sockaddr_storage is larger than and at least as aligned as sockaddr_in,
                // any bytes are a valid value of it, and the family says that it is one.
                let name: libc::sockaddr_in =
                    unsafe { self.as_ptr().cast::<libc::sockaddr_in>().read() };
                let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above, for sockaddr_in6.
                let name: libc::sockaddr_in6 =
                    unsafe { self.as_ptr().cast::<libc::sockaddr_in6>().read() };
                let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
                let port = u16::from_be(name.sin6_port);
                Some(SocketAddrV6::new(ip, port, name.sin6_flowinfo, name.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

impl From<SocketAddr> for Storage {
    fn from(address: SocketAddr) -> Self {
        let mut storage = Self::empty();
        match address {
            SocketAddr::V4(v4) => {
                // SAFETY: all-zero is a valid sockaddr_in.
                let mut name: libc::sockaddr_in = unsafe { mem::zeroed() };
                name.sin_family = libc::AF_INET as libc::sa_family_t;
                name.sin_port = v4.port().to_be();
                name.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
                // SAFETY: sockaddr_storage is large and aligned enough for any socket address.
                unsafe { storage.as_mut_ptr().cast::<libc::sockaddr_in>().write(name) };
                storage.len = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
            }
            SocketAddr::V6(v6) => {
                // SAFETY: all-zero is a valid sockaddr_in6.
                let mut name: libc::sockaddr_in6 = unsafe { mem::zeroed() };
                name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                name.sin6_port = v6.port().to_be();
                name.sin6_addr.s6_addr = v6.ip().octets();
                name.sin6_flowinfo = v6.flowinfo();
                name.sin6_scope_id = v6.scope_id();
                // SAFETY: as above.
                unsafe { storage.as_mut_ptr().cast::<libc::sockaddr_in6>().write(name) };
                storage.len = mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            }
        }
        storage
    }
}

/// The address a socket is bound to.
pub fn local_name(fd: RawFd) -> io::Result<SocketAddr> {
    let mut name = Storage::empty();
    let mut len = Storage::CAPACITY;
    // SAFETY: `name` has room for `len` bytes, and both outlive the call.
    check(unsafe { libc::getsockname(fd, name.as_mut_ptr(), &mut len) })?;
    name.to_address().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_survive_the_round_trip() {
        for text in ["192.0.2.1:1194", "[2001:db8::1]:65535", "[fe80::1%7]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Storage::from(address).to_address(), Some(address));
        }
        assert_eq!(Storage::empty().to_address(), None);
    }
}
