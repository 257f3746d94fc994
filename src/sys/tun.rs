//! The TUN device: opened by the `tun` crate, read and written here.
//!
//! Addresses, MTU and routes are `netlink`'s business. Reads and writes go to the descriptor
//! itself: one system call per packet and no copy (the crate's own clear a buffer each time).

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use tun::AbstractDevice as _;

use super::{check_len, netlink};

/// An open TUN device in non-blocking mode; the interface is gone when this is dropped.
pub struct TunDevice {
    device: tun::Device,
    name: String,
    index: u32,
}

/// What a failed read or write means for the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunFailure {
    /// No packet is waiting, or no room for one.
    Empty,
    /// The interface is down, or the kernel refuses this packet: go on.
    Refused,
    /// The interface was deleted: there is nothing left to serve.
    Gone,
}

impl TunDevice {
    /// Opens `name`, or the first free `tunN`; an error is one line for the user.
    pub fn open(name: Option<&str>) -> Result<Self, String> {
        let mut configuration = tun::Configuration::default();
        configuration.platform_config(|platform| {
            // Keeps the crate from configuring the interface by ioctl.
            platform.ensure_root_privileges(false);
        });
        // The kernel fills in the number for a %d.
        configuration.tun_name(name.unwrap_or("tun%d"));
        let device = tun::create(&configuration).map_err(|error| explain(name, &error.into()))?;
        device.set_nonblock().map_err(|error| format!("TUN device: {error}"))?;
        let name = device.tun_name().map_err(|error| format!("TUN device: {error}"))?;
        let index = netlink::interface_index(&name)
            .map_err(|error| format!("TUN device {name}: {error}"))?;
        Ok(Self { device, name, index })
    }

    /// Interface name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Interface index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Takes the next IP packet that the host sends into the tunnel.
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, TunFailure> {
        let fd = self.as_raw_fd();
        // SAFETY: `buffer` is writable for its whole length.
        let result = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
        check_len(result).map_err(|error| judge(&error))
    }

    /// Hands an IP packet to the host.
    pub fn write(&self, packet: &[u8]) -> Result<(), TunFailure> {
        // SAFETY: `packet` is readable for its whole length.
        let result = unsafe { libc::write(self.as_raw_fd(), packet.as_ptr().cast(), packet.len()) };
        check_len(result).map(|_| ()).map_err(|error| judge(&error))
    }
}

impl AsRawFd for TunDevice {
    fn as_raw_fd(&self) -> RawFd {
        self.device.as_raw_fd()
    }
}

fn judge(error: &io::Error) -> TunFailure {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM) => TunFailure::Empty,
        Some(libc::EBADFD | libc::EBADF | libc::ENODEV) => TunFailure::Gone,
        _ => TunFailure::Refused,
    }
}

fn explain(name: Option<&str>, error: &io::Error) -> String {
    let shown = name.unwrap_or("tun");
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "no /dev/net/tun: the kernel's TUN driver is missing (try 'modprobe tun', or on \
             OpenWrt install kmod-tun)"
                .into()
        }
        Some(libc::EPERM) => format!(
            "TUN device {shown}: not permitted; start as root or with CAP_NET_ADMIN (in a \
             container, allow it there)"
        ),
        Some(libc::EACCES) => "/dev/net/tun: not permitted; start as root".into(),
        Some(libc::EBUSY) => format!("TUN device {shown} is in use by another program"),
        Some(libc::EINVAL) => {
            format!("{shown} is not a name for a TUN device, or is another kind of interface")
        }
        _ => format!("TUN device {shown}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_line() {
        let line = |code| explain(Some("ovpn0"), &io::Error::from_raw_os_error(code));
        assert!(line(libc::ENOENT).starts_with("no /dev/net/tun"));
        assert!(line(libc::EBUSY).contains("ovpn0 is in use"));
        assert!(line(libc::EPERM).contains("start as root"));
        for code in [libc::ENOENT, libc::EPERM, libc::EACCES, libc::EBUSY, libc::EINVAL] {
            assert!(!line(code).contains('\n'));
        }
    }
}
