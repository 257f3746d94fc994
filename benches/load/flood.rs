//! Floods against a server, for `benches/flood`: of the kinds that strangers can make, from spoofed addresses
//! where that is part of it. Needs CAP_NET_RAW.
//!
//!     flood KIND ADDRESS:PORT RATE SECONDS PROFILE
//!
//! PROFILE is a client's configuration, from which those kinds are made that begin as a client does. Datagrams leave
//! evenly, RATE in a second; prints how many that were. Sources of spoofed ones are in 198.18.0.0/15. Kinds:
//!
//!     valid       a client's genuine first packet again and again, from its own address
//!     unfinished  handshakes that end after the client's first TLS message, each from a port of its own: RATE of them
//!     replayed    all that a client has sent from its first packet until its tunnel was up, spoofed
//!
//! and those of `junk.rs`, spoofed.
#![allow(unsafe_code)]

#[allow(dead_code, reason = "names and wrappings are for benches/floods.rs")]
mod junk;

use std::io::Error;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sixgate::buf::PacketBuf;
use sixgate::client::Client;
use sixgate::config::{self, Config};
use sixgate::engine::{Command, Endpoint, Engine, Reply};
use sixgate::random::Random as _;
use sixgate::sys::clock::{Clock, OsRandom};
use sixgate::sys::store::DiskFiles;

/// Header of IP and UDP.
const HEADER: usize = 28;
/// Time between two bursts.
const TICK: Duration = Duration::from_millis(2);
/// Datagrams of which a flood is made; they take turns, each with fresh random parts where it has some.
const STOCK: usize = 4096;
/// Longest handshake.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, server, rate, seconds, profile] = arguments.as_slice() else {
        return Err("flood KIND ADDRESS:PORT RATE SECONDS PROFILE".into());
    };
    let server: SocketAddrV4 = server.parse().map_err(|error| format!("{server}: {error}"))?;
    let number = |text: &String| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    let (rate, seconds) = (number(rate)?, number(seconds)?);
    let loaded = config::load_file(profile, &DiskFiles).map_err(|error| error.to_string())?;
    let config = Arc::new(loaded.config);
    let failed = |error: Error| error.to_string();
    if kind == "unfinished" {
        println!("{}", unfinished(&config, server, rate, seconds).map_err(failed)?);
        return Ok(());
    }
    let mut rng = OsRandom::new();
    let payloads = match kind.as_str() {
        "valid" => vec![Attempt::begin(&config, server).map_err(failed)?.sent.remove(0)],
        "replayed" => Attempt::begin(&config, server).map_err(failed)?.finish().map_err(failed)?,
        _ => {
            let junk = junk::ALL.iter().find(|junk| junk.kind == *kind);
            let junk = junk.ok_or_else(|| format!("no such kind: {kind}"))?;
            (0..STOCK).map(|number| junk.make(&mut rng, number)).collect()
        }
    };
    let own = (kind == "valid").then(|| own_address(server)).transpose().map_err(failed)?;
    let packets: Vec<_> = (0..STOCK)
        .map(|number| {
            let source = own.unwrap_or_else(|| spoofed(&mut rng));
            headed(source, server, &payloads[number % payloads.len()])
        })
        .collect();
    println!("{}", send(&packets, server, rate, seconds).map_err(failed)?);
    Ok(())
}

fn spoofed(rng: &mut OsRandom) -> SocketAddrV4 {
    let mut bytes = [0; 5];
    rng.fill(&mut bytes);
    let [a, b, c, d, e] = bytes;
    SocketAddrV4::new(Ipv4Addr::new(198, 18 | a & 1, b, c), u16::from_be_bytes([d, e]) | 1024)
}

/// The address that is used towards the server, and a port.
fn own_address(server: SocketAddrV4) -> Result<SocketAddrV4, Error> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    match socket.local_addr()? {
        SocketAddr::V4(own) => Ok(own),
        SocketAddr::V6(_) => Err(Error::other("no IPv4 address")),
    }
}

/// With headers for a raw socket: the kernel fills in lengths and the checksum; UDP's may be left out.
fn headed(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[0] = 0x45;
    bytes[8] = 64;
    bytes[9] = 17;
    bytes[12..16].copy_from_slice(&from.ip().octets());
    bytes[16..20].copy_from_slice(&to.ip().octets());
    bytes[20..22].copy_from_slice(&from.port().to_be_bytes());
    bytes[22..24].copy_from_slice(&to.port().to_be_bytes());
    bytes[24..26].copy_from_slice(&((payload.len() + 8) as u16).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Sends them in turn; how many left.
fn send(packets: &[Vec<u8>], to: SocketAddrV4, rate: u64, seconds: u64) -> Result<u64, Error> {
    // SAFETY: no pointers are passed.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW) };
    if socket < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: all zero is a valid sockaddr_in.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    address.sin_family = libc::AF_INET as libc::sa_family_t;
    address.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
    let (start, mut sent) = (Instant::now(), 0_u64);
    loop {
        let passed = start.elapsed();
        if passed >= Duration::from_secs(seconds) {
            return Ok(sent);
        }
        let due =
            (passed.as_micros() as u64 * rate / 1_000_000).saturating_sub(sent).min(rate / 20);
        let next =
            (0..due).map(|number| &packets[((sent + number) % packets.len() as u64) as usize]);
        let mut pieces: Vec<libc::iovec> = next
            .map(|packet| libc::iovec {
                iov_base: packet.as_ptr() as *mut _,
                iov_len: packet.len(),
            })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = pieces
            .iter_mut()
            .map(|piece| {
                // SAFETY: all zero is a valid mmsghdr.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = piece;
                message.msg_hdr.msg_iovlen = 1;
                message.msg_hdr.msg_name = (&raw mut address).cast();
                message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
                message
            })
            .collect();
        let len = messages.len() as libc::c_uint;
        // SAFETY: each message points to a piece and an address that outlive the call; nothing is written to them.
        let done = unsafe { libc::sendmmsg(socket, messages.as_mut_ptr(), len, 0) };
        sent += u64::try_from(done).map_err(|_| Error::last_os_error())?;
        std::thread::sleep(TICK);
    }
}

/// A client that connects, with all that it has sent.
struct Attempt {
    engine: Client,
    socket: UdpSocket,
    clock: Clock,
    server: SocketAddrV4,
    sent: Vec<Vec<u8>>,
    up: bool,
}

impl Attempt {
    /// Has sent its first packet.
    fn begin(config: &Arc<Config>, server: SocketAddrV4) -> Result<Self, Error> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        let clock = Clock::new();
        let engine = Client::new(Arc::clone(config), clock.now(), Box::new(OsRandom::new()))
            .map_err(Error::other)?;
        let mut attempt = Self { engine, socket, clock, server, sent: Vec::new(), up: false };
        attempt.turn()?;
        match attempt.sent.is_empty() {
            true => Err(Error::other("the client says nothing")),
            false => Ok(attempt),
        }
    }

    fn turn(&mut self) -> Result<(), Error> {
        let (now, mut buffer) = (self.clock.now(), [0; 2048]);
        let from = Endpoint::new(self.server.into());
        let (mut received, mut memory) = (PacketBuf::new(), PacketBuf::new());
        // What it hears when nobody listens is no matter here.
        while let Ok(len) = self.socket.recv(&mut buffer) {
            if let Ok(mut packet) = received.packet_from(&buffer[..len]) {
                let _ = self.engine.handle_udp(now, from, &mut packet);
            }
        }
        if self.engine.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.engine.handle_timeout(now);
        }
        loop {
            loop {
                let mut packet = memory.packet();
                if self.engine.poll_transmit(now, &mut packet).is_none() {
                    break;
                }
                let _ = self.socket.send(packet.as_slice());
                self.sent.push(packet.as_slice().to_vec());
            }
            match self.engine.poll_command() {
                None => return Ok(()),
                Some(Command::Resolve { .. }) => {
                    self.engine.handle_reply(now, Reply::Resolved(vec![self.server.into()]));
                }
                Some(Command::Configure(_)) => {
                    self.up = true;
                    self.engine.handle_reply(now, Reply::Configured(Ok(())));
                }
                Some(Command::Exit(_)) => return Err(Error::other("the client gives up")),
                Some(_) => {}
            }
        }
    }

    /// Goes on until the tunnel is up.
    fn finish(mut self) -> Result<Vec<Vec<u8>>, Error> {
        let start = Instant::now();
        while !self.up {
            if start.elapsed() > PATIENCE {
                return Err(Error::other("the client does not get in"));
            }
            std::thread::sleep(TICK);
            self.turn()?;
        }
        Ok(self.sent)
    }
}

/// Begins so many handshakes in a second; how many got as far as TLS.
fn unfinished(
    config: &Arc<Config>,
    server: SocketAddrV4,
    rate: u64,
    seconds: u64,
) -> Result<u64, Error> {
    let (start, mut begun, mut done) = (Instant::now(), 0, 0);
    let mut waiting: Vec<(Instant, Attempt)> = Vec::new();
    while start.elapsed() < Duration::from_secs(seconds) {
        let due = start.elapsed().as_millis() as u64 * rate / 1000;
        while begun < due {
            waiting.push((Instant::now(), Attempt::begin(config, server)?));
            begun += 1;
        }
        let before = waiting.len();
        let mut kept = Vec::with_capacity(before);
        for (since, mut attempt) in waiting.drain(..) {
            attempt.turn()?;
            // The second packet carries the cookie and the first TLS message.
            if attempt.sent.len() > 1 {
                done += 1;
            } else if since.elapsed() < Duration::from_secs(1) {
                kept.push((since, attempt));
            }
        }
        waiting = kept;
        std::thread::sleep(TICK);
    }
    Ok(done)
}
