//! Control messages of a datagram: our own address, and how a row of datagrams is divided.

use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Received, unmap};
use crate::engine::Endpoint;
use crate::sys::sockaddr::Storage;

/// Room for a packet-info message of either family and one of segmentation offload.
const LEN: usize = 96;

/// Control message memory with the alignment that `cmsghdr` needs.
#[repr(C, align(8))]
pub(super) struct Control(pub(super) [u8; LEN]);

impl Control {
    pub(super) const EMPTY: Self = Self([0; LEN]);
}

/// The interface to send from: only a link-local address needs one; elsewhere the routing table decides.
pub(super) fn interface(to: Endpoint) -> u32 {
    match to.peer {
        SocketAddr::V6(peer) if peer.ip().is_unicast_link_local() => to.interface,
        SocketAddr::V4(_) | SocketAddr::V6(_) => 0,
    }
}

/// What is known about a received message of `len` bytes.
///
/// # Safety
/// `message` was filled in by recvmsg and its memory is still there.
pub(super) unsafe fn received(message: &libc::msghdr, name: &Storage, len: usize) -> Received {
    // The kernel always names the sender of a datagram.
    let nobody = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let peer = unmap(name.to_address().unwrap_or(nobody));
    let mut from = Endpoint::new(peer);
    let mut segment = len;
    // SAFETY: see above; the CMSG functions stay within msg_controllen.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a whole header, and the kernel puts
        // behind it what level and type say; that need not be aligned.
        unsafe {
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo =
                        libc::CMSG_DATA(header).cast::<libc::in6_pktinfo>().read_unaligned();
                    let local = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    from.local = Some(IpAddr::V6(local).to_canonical());
                    from.interface = info.ipi6_ifindex as u32;
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo =
                        libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().read_unaligned();
                    from.local = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
                    from.interface = info.ipi_ifindex as u32;
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size = libc::CMSG_DATA(header).cast::<libc::c_int>().read_unaligned();
                    segment = usize::try_from(size).unwrap_or(0).clamp(1, len.max(1));
                }
                _ => {}
            }
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    Received { len, from, segment, truncated: message.msg_flags & libc::MSG_TRUNC != 0 }
}

/// Writes the source address with its interface, and the size of datagrams in a row; sets
/// `msg_controllen` to what that takes.
///
/// # Safety
/// `message.msg_control` points to a whole [`Control`] of zeroes, and `msg_controllen` says so.
pub(super) unsafe fn set_control(
    message: &mut libc::msghdr,
    v6: bool,
    source: Option<(IpAddr, u32)>,
    segment: Option<usize>,
) {
    let mut used = 0;
    // SAFETY: there is room for a header, so this is not null.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // An IPv4 socket cannot send from an IPv6 address: there the choice is left to the kernel.
    if let Some((from, interface)) = source.filter(|(from, _)| v6 || from.is_ipv4()) {
        let (level, kind, len) = if v6 {
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, mem::size_of::<libc::in6_pktinfo>())
        } else {
            (libc::IPPROTO_IP, libc::IP_PKTINFO, mem::size_of::<libc::in_pktinfo>())
        };
        let len = len as u32;
        // SAFETY: LEN exceeds CMSG_SPACE of either structure and of the one below together;
        // CMSG_DATA needs no alignment for the unaligned writes.
        unsafe {
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = libc::CMSG_LEN(len) as _;
            let data = libc::CMSG_DATA(header);
            match from {
                IpAddr::V4(v4) if !v6 => {
                    let mut info: libc::in_pktinfo = mem::zeroed();
                    info.ipi_spec_dst.s_addr = u32::from_ne_bytes(v4.octets());
                    data.cast::<libc::in_pktinfo>().write_unaligned(info);
                }
                from => {
                    let address = match from {
                        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                        IpAddr::V6(v6) => v6,
                    };
                    let mut info: libc::in6_pktinfo = mem::zeroed();
                    info.ipi6_addr.s6_addr = address.octets();
                    info.ipi6_ifindex = interface as _;
                    data.cast::<libc::in6_pktinfo>().write_unaligned(info);
                }
            }
            used += libc::CMSG_SPACE(len) as usize;
            header = header.cast::<u8>().add(used).cast();
        }
    }
    if let Some(size) = segment {
        let len = mem::size_of::<u16>() as u32;
        // SAFETY: as above; the second message starts where CMSG_SPACE says that the first ends.
        unsafe {
            (*header).cmsg_level = libc::SOL_UDP;
            (*header).cmsg_type = libc::UDP_SEGMENT;
            (*header).cmsg_len = libc::CMSG_LEN(len) as _;
            libc::CMSG_DATA(header).cast::<u16>().write_unaligned(size as u16);
            used += libc::CMSG_SPACE(len) as usize;
        }
    }
    message.msg_controllen = used as _;
}
