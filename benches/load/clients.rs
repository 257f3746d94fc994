//! Many clients in one process, for measurements of a server: each has an engine, a socket and a port
//! of its own, and no TUN device.
//!
//!     cargo run --example clients -- PROFILE ADDRESS:PORT COUNT
//!
//! PROFILE is a client's configuration; all clients use it, so the server needs `duplicate-cn`. Towards a
//! server on an IPv4 loopback address each has an address of its own, as clients at home have. Prints
//! `up N` once all of them are, and keeps them connected. For each line on its standard input, the first
//! client then sends 50 MB by TCP to port 5001 of 10.8.0.1 and says `sent`; with its end all ends.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use sixgate::client::Client;
use sixgate::config::{self, Transport};
use sixgate::sys::clock::{Clock, OsRandom};
use sixgate::sys::selftest::end::End;
use sixgate::sys::store::DiskFiles;
use sixgate::sys::udp::UdpSocket;
use sixgate::time::Instant;

/// Connecting at the same time: a server lets only so many half-open ones in.
const AT_ONCE: usize = 32;
/// How often those are looked after for which nothing has come.
const ROUND: Duration = Duration::from_millis(200);
/// Bytes of a transfer.
const LOAD: u64 = 50_000_000;

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [profile, server, count] = arguments.as_slice() else {
        return Err("clients PROFILE ADDRESS:PORT COUNT".into());
    };
    let server: SocketAddr = server.parse().map_err(|error| format!("{server}: {error}"))?;
    let count: usize = count.parse().map_err(|error| format!("{count}: {error}"))?;
    let loaded = config::load_file(profile, &DiskFiles).map_err(|error| error.to_string())?;
    let config = Arc::new(loaded.config);
    let (clock, mut clients) = (Clock::new(), Vec::new());
    let (mut ready, mut round) = (Vec::new(), Instant::ZERO);
    let (mut announced, mut loading) = (false, false);
    loop {
        let now = clock.now();
        let up = clients.iter().filter(|client: &&End| client.host.is_some()).count();
        if clients.len() < count && clients.len() - up < AT_ONCE {
            let transport =
                Transport { local: place(server, clients.len()), port: 0, family: None };
            let socket = UdpSocket::bind(&transport)?;
            let client = Client::new(Arc::clone(&config), now, Box::new(OsRandom::new()))?;
            clients.push(End::new(Box::new(client), socket, server));
        }
        let all = now.mono.since(round) >= ROUND || clients.len() < count;
        if all {
            round = now.mono;
        }
        for (client, ready) in clients.iter_mut().zip(ready.iter().chain(std::iter::repeat(&true)))
        {
            if !all && !ready {
                continue;
            }
            client.turn(now);
            if let Some(failure) = client.failure.take() {
                return Err(failure);
            }
        }
        if up == count && !announced {
            println!("up {count}");
            announced = true;
        }
        let mut line = String::new();
        if wait(&clients, &mut ready)
            && std::io::stdin().read_line(&mut line).is_ok_and(|len| len == 0)
        {
            return Ok(());
        }
        let host = clients.first_mut().and_then(|client| client.host.as_mut());
        let Some(host) = host else { continue };
        if !line.is_empty() {
            host.connect([10, 8, 0, 1].into(), 40_000, LOAD);
            loading = true;
        }
        if loading && host.unsent() == 0 {
            println!("sent");
            loading = false;
        }
    }
}

/// An address of the loopback interface for each client.
fn place(server: SocketAddr, number: usize) -> Option<IpAddr> {
    let number = u16::try_from(number).unwrap_or(0);
    let [high, low] = (number / 250 * 256 + number % 250 + 1).to_be_bytes();
    (server.is_ipv4() && server.ip().is_loopback()).then(|| [127, 9, high, low].into())
}

/// Waits until there is something to do, and says for whom; whether it is on the standard input.
fn wait(clients: &[End], ready: &mut Vec<bool>) -> bool {
    let read = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let sockets = clients.iter().map(|client| read(client.as_raw_fd()));
    let mut descriptors: Vec<libc::pollfd> =
        [read(std::io::stdin().as_raw_fd())].into_iter().chain(sockets).collect();
    // SAFETY: the vector holds as many as it says.
    #[allow(unsafe_code)]
    unsafe {
        libc::poll(descriptors.as_mut_ptr(), descriptors.len() as libc::nfds_t, 10)
    };
    ready.clear();
    ready.extend(descriptors.iter().skip(1).map(|descriptor| descriptor.revents != 0));
    descriptors[0].revents != 0
}
