//! The least that a tunnel through a TUN device and a UDP socket can cost, for `benches/tunnel`: what the
//! device hands over in one piece goes out in one send with `UDP_SEGMENT`, and what `UDP_GRO` puts
//! together again goes into the device in one write. No cryptography, no look at any packet.
//!
//!     floor DEVICE LOCAL:PORT REMOTE:PORT
//!
//! Works on a path that keeps the datagrams of a send together, as a veth pair does.
#![allow(unsafe_code)]

use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;

use sixgate::offload::coalesce::Part;
use sixgate::offload::vnet::{LEN, VnetHeader};
use sixgate::sys::tun::{TunDevice, TunFailure};

/// Bytes of a datagram.
const SEGMENT: u16 = 1400;
const PIECE: usize = 65_536;

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, local, remote] = arguments.as_slice() else {
        return Err("floor DEVICE LOCAL:PORT REMOTE:PORT".into());
    };
    let tun = TunDevice::open(Some(device), true)?;
    if !tun.takes_segments() {
        return Err("the kernel's TUN device has no segmentation offload".into());
    }
    let socket = connect(local, remote).map_err(|error| format!("UDP socket: {error}"))?;
    let mut memory = vec![0; LEN + PIECE];
    loop {
        wait(&[tun.as_raw_fd(), socket.as_raw_fd()]);
        while let Some(len) = receive(&socket, &mut memory)? {
            let Some((header, piece)) = memory[..len].split_first_chunk::<LEN>() else { continue };
            let part = Part { start: 0, len: piece.len() };
            let written = tun.write(&VnetHeader::parse(header), piece, &[part]);
            if let Err(failure @ TunFailure::Gone) = written {
                return Err(format!("TUN device: {failure:?}"));
            }
        }
        while let Ok((header, len)) = tun.read(&mut memory[LEN..]) {
            memory[..LEN].copy_from_slice(&header.to_bytes());
            send(&socket, &memory[..LEN + len]);
        }
    }
}

fn connect(local: &str, remote: &str) -> Result<UdpSocket, Error> {
    let socket = UdpSocket::bind(local)?;
    socket.connect(remote.parse::<SocketAddr>().map_err(Error::other)?)?;
    socket.set_nonblocking(true)?;
    let set = |level, name, value: libc::c_int| {
        // SAFETY: `value` is an int of the length given.
        unsafe {
            let value: *const libc::c_int = &value;
            libc::setsockopt(socket.as_raw_fd(), level, name, value.cast(), 4)
        }
    };
    for name in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
        set(libc::SOL_SOCKET, name, 4 << 20);
    }
    if set(libc::SOL_UDP, libc::UDP_GRO, 1) < 0
        || set(libc::SOL_UDP, libc::UDP_SEGMENT, SEGMENT.into()) < 0
    {
        return Err(Error::last_os_error());
    }
    Ok(socket)
}

/// The length of what came in one piece; `None` when nothing did.
fn receive(socket: &UdpSocket, memory: &mut [u8]) -> Result<Option<usize>, String> {
    match socket.recv(memory) {
        Ok(len) => Ok(Some(len)),
        // The other end may not be there yet.
        Err(error)
            if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) =>
        {
            Ok(None)
        }
        Err(error) => Err(format!("UDP socket: {error}")),
    }
}

/// Sends a piece; what the socket does not take is lost.
fn send(socket: &UdpSocket, piece: &[u8]) {
    let _ = socket.send(piece);
}

fn wait(descriptors: &[i32]) {
    let mut set: Vec<libc::pollfd> = descriptors
        .iter()
        .map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 })
        .collect();
    // SAFETY: the vector holds as many as it says.
    unsafe { libc::ppoll(set.as_mut_ptr(), set.len() as libc::nfds_t, ptr::null(), ptr::null()) };
}
