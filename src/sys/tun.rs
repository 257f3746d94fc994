//! The TUN device: opened by the `tun` crate, read and written here.
//!
//! Addresses, MTU and routes are `netlink`'s business. Reads and writes go to the descriptor
//! itself: one system call and no copy (the crate's own clear a buffer each time). Where the kernel has
//! it, each call carries many packets of a flow behind a virtio-net header; taking them apart and
//! putting them together is `offload`'s business.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use heapless::Vec;
use tun::AbstractDevice as _;

use super::check_len;
use super::netlink::{self, Link, Netlink};
use crate::offload::coalesce::{Part, SEGMENTS};
use crate::offload::outbox;
use crate::offload::vnet::{self, VnetHeader};

/// The limits on a piece, its bytes with all headers and its segments, while we read the device: what comes of
/// a piece of 64 KiB would not fit into one segmented send, and the few packets that are over would cost
/// nearly as much as all the others. Of 1400 bytes with 28 around each, 45 fit into [`outbox::LARGEST`], with
/// 60 660 bytes of payload at most, and the kernel keeps some 320 for headers.
const OUR_PIECES: (u32, u32) = (61_100, outbox::DATAGRAMS as u32);
/// A kernel's own limits.
const DEFAULT_PIECES: (u32, u32) = (65_536, 65_535);

/// An open TUN device in non-blocking mode; the interface is gone when this is dropped, unless it was
/// there before.
pub struct TunDevice {
    device: tun::Device,
    name: String,
    index: u32,
    offload: Offload,
    found: Option<Link>,
}

/// What the device hands over and takes in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offload {
    /// Single packets without a header.
    Off,
    /// A virtio-net header and TCP segments.
    Tcp,
    /// The same, and UDP datagrams (Linux 6.2).
    TcpUdp,
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
    /// Opens `name`, or the first free `tunN`, with segmentation offload where that is wanted and
    /// works; an error is one line for the user.
    pub fn open(name: Option<&str>, offload: bool) -> Result<Self, String> {
        let found = name.and_then(state);
        if offload {
            let device = Self::create(name, true)?;
            let offload = enable(device.as_raw_fd());
            if offload != Offload::Off {
                return Self::finish(device, offload, found);
            }
            // The header comes with the descriptor: without use for it, start again.
        }
        let device = Self::create(name, false)?;
        // Somebody may have left a persistent device with offload on.
        set_offload(device.as_raw_fd(), 0);
        Self::finish(device, Offload::Off, found)
    }

    fn create(name: Option<&str>, vnet_header: bool) -> Result<tun::Device, String> {
        let mut configuration = tun::Configuration::default();
        configuration.platform_config(|platform| {
            // Keeps the crate from configuring the interface by ioctl.
            platform.ensure_root_privileges(false);
            platform.vnet_hdr(vnet_header);
        });
        // The kernel fills in the number for a %d.
        configuration.tun_name(name.unwrap_or("tun%d"));
        tun::create(&configuration).map_err(|error| explain(name, &error.into()))
    }

    fn finish(device: tun::Device, offload: Offload, found: Option<Link>) -> Result<Self, String> {
        device.set_nonblock().map_err(|error| format!("TUN device: {error}"))?;
        let name = device.tun_name().map_err(|error| format!("TUN device: {error}"))?;
        let index = netlink::interface_index(&name)
            .map_err(|error| format!("TUN device {name}: {error}"))?;
        let tun = Self { device, name, index, offload, found };
        if tun.takes_segments() {
            tun.limit_pieces(OUR_PIECES);
        }
        Ok(tun)
    }

    /// A kernel that has no such limits (before 4.16) sends a little more for each piece: no reason to stop.
    fn limit_pieces(&self, (bytes, segments): (u32, u32)) {
        let result = Netlink::open()
            .and_then(|mut netlink| netlink.limit_pieces(self.index, bytes, segments));
        if let Err(error) = result {
            log::debug!("{}: pieces stay as large as they are: {error}", self.name);
        }
    }

    /// The offloads in use, for status.
    pub fn offloads(&self) -> &'static str {
        match self.offload {
            Offload::Off => "off",
            Offload::Tcp => "tso4 tso6",
            Offload::TcpUdp => "tso4 tso6 uso",
        }
    }

    /// Whether that goes for UDP datagrams, too: a kernel that makes such pieces takes them.
    pub fn takes_datagrams(&self) -> bool {
        self.offload == Offload::TcpUdp
    }

    /// Whether packets of one TCP flow may be written in one piece.
    pub fn takes_segments(&self) -> bool {
        self.offload != Offload::Off
    }

    /// The state in which a persistent device was found.
    pub fn found(&self) -> Option<Link> {
        self.found
    }

    /// Interface name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Interface index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Takes what the host sends into the tunnel next: an IP packet, or what stands for several.
    pub fn read(&self, buffer: &mut [u8]) -> Result<(VnetHeader, usize), TunFailure> {
        let mut header = [0; vnet::LEN];
        let front = if self.takes_segments() { header.len() } else { 0 };
        let parts = [
            libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: front },
            libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() },
        ];
        // SAFETY: both parts are writable for the whole length stated.
        let result = unsafe { libc::readv(self.as_raw_fd(), parts.as_ptr(), 2) };
        let len = check_len(result).map_err(|error| judge(&error))?;
        Ok((VnetHeader::parse(&header), len.saturating_sub(front)))
    }

    /// Hands an IP packet to the host, or what stands for several: `parts` of `memory` in a row.
    /// Without offload the header must be a plain one.
    pub fn write(
        &self,
        header: &VnetHeader,
        memory: &[u8],
        parts: &[Part],
    ) -> Result<(), TunFailure> {
        let mut header = header.to_bytes();
        let mut pieces: Vec<libc::iovec, { SEGMENTS + 1 }> = Vec::new();
        if self.takes_segments() {
            let _ = pieces
                .push(libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: header.len() });
        }
        for part in parts {
            let bytes = part.of(memory);
            let base = bytes.as_ptr().cast_mut().cast();
            // No group has more parts than there is room for.
            let _ = pieces.push(libc::iovec { iov_base: base, iov_len: bytes.len() });
        }
        let count = pieces.len() as libc::c_int;
        // SAFETY: every piece is readable for its whole length; writev does not write to them.
        let result = unsafe { libc::writev(self.as_raw_fd(), pieces.as_ptr(), count) };
        check_len(result).map(|_| ()).map_err(|error| judge(&error))
    }
}

impl Drop for TunDevice {
    /// A persistent device goes to somebody who may not expect segments.
    fn drop(&mut self) {
        if self.takes_segments() {
            set_offload(self.as_raw_fd(), 0);
            if self.found.is_some() {
                self.limit_pieces(DEFAULT_PIECES);
            }
        }
    }
}

impl AsRawFd for TunDevice {
    fn as_raw_fd(&self) -> RawFd {
        self.device.as_raw_fd()
    }
}

/// State of an interface; `None` if there is none of this name.
fn state(name: &str) -> Option<Link> {
    let interface = netlink::interface_index(name).ok()?;
    Netlink::open().ok()?.link(interface).ok()
}

/// Asks for as much offload as the kernel has.
fn enable(fd: RawFd) -> Offload {
    let little_endian: libc::c_int = 1;
    // SAFETY: the call reads one int.
    if unsafe { libc::ioctl(fd, libc::TUNSETVNETLE, &raw const little_endian) } < 0 {
        return Offload::Off;
    }
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    if set_offload(fd, tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6) {
        Offload::TcpUdp
    } else if set_offload(fd, tcp) {
        Offload::Tcp
    } else {
        Offload::Off
    }
}

fn set_offload(fd: RawFd, flags: libc::c_uint) -> bool {
    // SAFETY: the flags go by value.
    unsafe { libc::ioctl(fd, libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) >= 0 }
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
