//! The UDP socket: one for both families by default, with the local address of every datagram.
//!
//! Datagrams come with the address they were sent to (`IPV6_PKTINFO`/`IP_PKTINFO`) and answers
//! leave from it, so multi-homed hosts and IPv6 privacy addresses work without configuration. On a
//! dual-stack socket the kernel shows IPv4 as `::ffff:a.b.c.d`; here and only here the two forms
//! are translated, everybody else sees plain IPv4.
//!
//! Packet memory and what to do about a full socket are the event loop's business. Batched calls
//! and segmentation offload are in [`batch`].

pub mod batch;
mod control;

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use self::control::{Control, interface, received, set_control};
use super::sockaddr::{self, Storage};
use super::{check, check_len};
use crate::config::Transport;
use crate::engine::Endpoint;

/// Receive buffer asked for: at 100 Mbit/s it rides out 160 ms in which the process does not run.
/// The kernel halves nothing and charges memory only for what is queued.
const RECEIVE_BUFFER: libc::c_int = 2 * 1024 * 1024;
/// Send buffer asked for; larger ones only add latency.
const SEND_BUFFER: libc::c_int = 512 * 1024;
/// A bound, non-blocking UDP socket.
#[derive(Debug)]
pub struct UdpSocket {
    fd: OwnedFd,
    /// Whether the socket is of the IPv6 family, and IPv4 peers take their mapped form.
    v6: bool,
    local: SocketAddr,
    /// The kernel has chosen the port.
    any_port: bool,
    offload: batch::Offload,
}

/// What [`UdpSocket::receive`] found.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Bytes written to the buffer.
    pub len: usize,
    /// Who sent it, and to which of our addresses.
    pub from: Endpoint,
    /// Bytes of each datagram but the last, when several came in a row; otherwise `len`.
    pub segment: usize,
    /// The datagram was larger than the buffer; its tail is lost.
    pub truncated: bool,
}

impl UdpSocket {
    /// Opens and binds as `local`, `port` and `proto` ask; an error is one line for the user.
    pub fn bind(transport: &Transport) -> Result<Self, String> {
        let wanted = match (transport.local, transport.family) {
            (Some(IpAddr::V4(_)), Some(true)) | (Some(IpAddr::V6(_)), Some(false)) => {
                return Err("local: the address is not of the family that proto asks for".into());
            }
            (Some(address), _) => address,
            (None, Some(false)) => Ipv4Addr::UNSPECIFIED.into(),
            (None, _) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let only_v6 = transport.family == Some(true);
        match Self::open(SocketAddr::new(wanted, transport.port), only_v6) {
            // A kernel without IPv6 (or with ipv6.disable=1) still serves IPv4.
            Err(error) if has_no_v6(&error) && transport.local.is_none() && !only_v6 => {
                log::warn!("the kernel has no IPv6: listening on IPv4 only");
                let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), transport.port);
                Self::open(any, false).map_err(|error| explain_bind(any, &error))
            }
            result => result.map_err(|e| explain_bind(SocketAddr::new(wanted, transport.port), &e)),
        }
    }

    fn open(address: SocketAddr, only_v6: bool) -> io::Result<Self> {
        let v6 = address.is_ipv6();
        let domain = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers are passed.
        let raw = check(unsafe { libc::socket(domain, kind, 0) })?;
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        if v6 {
            set(raw, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only_v6.into())?;
            set(raw, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        } else {
            set(raw, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        }
        Self::tune(raw, v6);
        let name = Storage::from(address);
        // SAFETY: `name` holds an address of the length given.
        check(unsafe { libc::bind(raw, name.as_ptr(), name.len()) })?;
        let local = sockaddr::local_name(raw)?;
        let any_port = address.port() == 0;
        Ok(Self { fd, v6, local, any_port, offload: batch::Offload::off() })
    }

    /// Takes another port, if the kernel has chosen this one; what waits to be read is lost.
    pub fn renew(&mut self) {
        if !self.any_port {
            return;
        }
        let only_v6 = self.v6 && !self.is_dual_stack();
        match Self::open(SocketAddr::new(self.local.ip(), 0), only_v6) {
            Ok(mut new) => {
                if self.offloads() != "off" {
                    new.probe();
                }
                *self = new;
            }
            Err(error) => log::debug!("another UDP port: {error}"),
        }
    }

    /// What makes the socket better but need not succeed.
    fn tune(raw: RawFd, v6: bool) {
        // Beyond net.core.rmem_max only CAP_NET_ADMIN may go, by the FORCE variants.
        let sizes = [
            (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER),
            (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER),
        ];
        for (force, ordinary, size) in sizes {
            let set = set(raw, libc::SOL_SOCKET, force, size)
                .or_else(|_| set(raw, libc::SOL_SOCKET, ordinary, size));
            if let Err(error) = set {
                log::debug!("socket buffer of {size} bytes: {error}");
            }
        }
        // IPv4 datagrams leave without DF: where ICMP is filtered, a path smaller than ours would
        // otherwise swallow every large packet. IPv6 routers never fragment, so there the host
        // does, to the path MTU it has learned. Both are second best to a fitting mssfix.
        let result = if v6 {
            set(raw, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT)
                .and(set(raw, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT))
        } else {
            set(raw, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)
        };
        if let Err(error) = result {
            log::debug!("path MTU discovery: {error}");
        }
    }

    /// The address and port the kernel gave us.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether IPv4 peers can be reached as well as IPv6 ones.
    pub fn is_dual_stack(&self) -> bool {
        self.v6
            && self.local.ip().is_unspecified()
            && get(self.fd.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY).ok() == Some(0)
    }

    /// Takes the next datagram; `WouldBlock` when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut name = Storage::empty();
        let mut control = Control::EMPTY;
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: all-zero is a valid msghdr (its padding differs between targets).
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_name = name.as_mut_ptr().cast();
        message.msg_namelen = Storage::CAPACITY;
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len() as _;
        // SAFETY: every pointer in `message` is to memory of the stated size that outlives the call.
        let len = check_len(unsafe { libc::recvmsg(self.fd.as_raw_fd(), &mut message, 0) })?;
        // SAFETY: recvmsg filled in the control messages that `message` points to.
        Ok(unsafe { received(&message, &name, len) })
    }

    /// Sends one datagram from the address that `to` names; `WouldBlock` when the socket is full.
    pub fn send(&self, to: Endpoint, datagram: &[u8]) -> io::Result<()> {
        match self.send_from(to, to.local, datagram) {
            // The address is no longer ours (a prefix changed), or never was one to send from (a
            // broadcast address). The kernel's choice is better than silence.
            Err(error)
                if to.local.is_some()
                    && matches!(
                        error.raw_os_error(),
                        Some(libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENODEV | libc::ENETUNREACH)
                    ) =>
            {
                self.send_from(to, None, datagram)
            }
            result => result,
        }
    }

    fn send_from(&self, to: Endpoint, from: Option<IpAddr>, datagram: &[u8]) -> io::Result<()> {
        let mut name = Storage::from(if self.v6 { map(to.peer) } else { to.peer });
        let mut control = Control::EMPTY;
        let mut part =
            libc::iovec { iov_base: datagram.as_ptr().cast_mut().cast(), iov_len: datagram.len() };
        // SAFETY: all-zero is a valid msghdr.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_name = name.as_mut_ptr().cast();
        message.msg_namelen = name.len();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        if from.is_some() {
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = control.0.len() as _;
            let source = from.map(|from| (from, interface(to)));
            // SAFETY: msg_control points to a whole Control of zeroes.
            unsafe { set_control(&mut message, self.v6, source, None) };
        }
        // SAFETY: every pointer in `message` is to memory of the stated size that outlives the
        // call; sendmsg does not write through iov_base.
        check_len(unsafe { libc::sendmsg(self.fd.as_raw_fd(), &message, libc::MSG_NOSIGNAL) })?;
        Ok(())
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// IPv4-mapped addresses as IPv4, and no flow label: one peer is one value.
fn unmap(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
        },
        SocketAddr::V4(_) => address,
    }
}

fn map(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        SocketAddr::V6(_) => address,
    }
}

fn has_no_v6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn explain_bind(address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => format!(
            "UDP port {port} is in use by another program; 'ss -ulpn sport = :{port}' or \
             'netstat -ulpn' shows which"
        ),
        Some(libc::EACCES) => format!("UDP port {port}: only root may use ports below 1024"),
        Some(libc::EADDRNOTAVAIL) => {
            format!("cannot listen on {}: this host does not have that address", address.ip())
        }
        _ => format!("cannot open a UDP socket on {address}: {error}"),
    }
}

fn set(fd: RawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is an int of the length given.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) }).map(|_| ())
}

fn get(fd: RawFd, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is an int of the length given, and both outlive the call.
    check(unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &mut len) })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transport(local: Option<&str>, family: Option<bool>) -> Transport {
        Transport { local: local.map(|a| a.parse().unwrap()), port: 0, family }
    }

    /// Waits for the datagram: loopback is quick but not synchronous.
    fn receive(socket: &UdpSocket) -> (Received, Vec<u8>) {
        let mut buffer = [0; 2048];
        for _ in 0..200 {
            match socket.receive(&mut buffer) {
                Ok(got) => return (got, buffer[..got.len].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("nothing came");
    }

    fn exchange(server: &UdpSocket, client: &UdpSocket, server_address: IpAddr) {
        let to = SocketAddr::new(server_address, server.local().port());
        client.send(Endpoint::new(to), b"question").unwrap();
        let (got, bytes) = receive(server);
        assert_eq!(bytes, b"question");
        assert_eq!(got.from.peer.is_ipv4(), server_address.is_ipv4());
        assert_eq!(got.from.local, Some(server_address));
        server.send(got.from, b"answer").unwrap();
        let (back, bytes) = receive(client);
        assert_eq!(bytes, b"answer");
        assert_eq!(back.from.peer, to, "the answer comes from the address that was asked");
    }

    #[test]
    fn one_socket_serves_both_families_from_the_address_hit() {
        let server = UdpSocket::bind(&transport(None, None)).unwrap();
        let v4 = UdpSocket::bind(&transport(None, Some(false))).unwrap();
        exchange(&server, &v4, "127.0.0.1".parse().unwrap());
        // Another loopback address than the one the kernel would choose.
        exchange(&server, &v4, "127.0.0.77".parse().unwrap());
        if server.is_dual_stack() {
            let v6 = UdpSocket::bind(&transport(None, Some(true))).unwrap();
            exchange(&server, &v6, "::1".parse().unwrap());
            assert!(!v6.is_dual_stack());
        }
        exchange(&v4, &server, "127.0.0.78".parse().unwrap());
    }

    #[test]
    fn a_taken_port_is_named_and_an_odd_family_refused() {
        let first = UdpSocket::bind(&transport(Some("127.0.0.1"), None)).unwrap();
        let again = Transport { port: first.local().port(), ..transport(Some("127.0.0.1"), None) };
        let error = UdpSocket::bind(&again).unwrap_err();
        assert!(error.contains(&format!("port {} is in use", again.port)), "{error}");
        assert!(UdpSocket::bind(&transport(Some("127.0.0.1"), Some(true))).is_err());
    }

    #[test]
    fn an_answer_from_an_address_that_is_gone_is_sent_all_the_same() {
        let server = UdpSocket::bind(&transport(None, None)).unwrap();
        let client = UdpSocket::bind(&transport(Some("127.0.0.1"), None)).unwrap();
        let gone = Some("192.0.2.1".parse().unwrap());
        server.send(Endpoint { local: gone, ..Endpoint::new(client.local()) }, b"x").unwrap();
        assert_eq!(receive(&client).1, b"x");
    }

    #[test]
    fn a_datagram_beyond_the_buffer_is_marked() {
        let server = UdpSocket::bind(&transport(Some("127.0.0.1"), None)).unwrap();
        server.send(Endpoint::new(server.local()), &[7; 100]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let got = server.receive(&mut [0; 10]).unwrap();
        assert!(got.truncated && got.len == 10);
    }
}
