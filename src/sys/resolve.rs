//! Looking up host names without stopping the event loop.
//!
//! The C library's resolver blocks, for many seconds when a name server is away, so each look-up
//! gets a thread; the loop hears of the result through a socket that becomes readable.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Stack of a look-up thread. musl needs 10 KiB; glibc's name service modules a good deal more.
const STACK: usize = 256 * 1024;

/// Runs look-ups; only the answer to the latest one is reported.
#[derive(Debug)]
pub struct Resolver {
    latest: Arc<Mutex<Latest>>,
    bell: UnixStream,
    rope: UnixStream,
}

/// The look-up whose answer is waited for, and its answer once it is there. A channel would be
/// more code, and keep answers that nobody wants.
#[derive(Debug, Default)]
struct Latest {
    ticket: u32,
    found: Option<Vec<SocketAddr>>,
}

fn answer(latest: &Mutex<Latest>, ticket: u32, found: Vec<SocketAddr>) {
    let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
    if latest.ticket == ticket {
        latest.found = Some(found);
    }
}

impl Resolver {
    /// Starts nothing yet.
    pub fn new() -> io::Result<Self> {
        let (bell, rope) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        Ok(Self { latest: Arc::default(), bell, rope })
    }

    /// Begins a look-up; an earlier one that is still under way is forgotten.
    pub fn start(&mut self, host: String, port: u16, family: Option<bool>) {
        let ticket = {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            *latest = Latest { ticket: latest.ticket.wrapping_add(1), found: None };
            latest.ticket
        };
        let latest = Arc::clone(&self.latest);
        let rope = self.rope.try_clone();
        let work = move || {
            answer(&latest, ticket, look_up(&host, port, family));
            // Fails only when the loop has ended.
            let _ = rope.and_then(|mut rope| rope.write_all(&[0]));
        };
        if let Err(error) = thread::Builder::new().stack_size(STACK).spawn(work) {
            log::warn!("cannot start a name look-up: {error}");
            answer(&self.latest, ticket, Vec::new());
            let _ = self.rope.write_all(&[0]);
        }
    }

    /// The result of the latest look-up, once.
    pub fn poll(&mut self) -> Option<Vec<SocketAddr>> {
        while matches!(self.bell.read(&mut [0; 16]), Ok(n) if n > 0) {}
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).found.take()
    }
}

impl AsRawFd for Resolver {
    fn as_raw_fd(&self) -> RawFd {
        self.bell.as_raw_fd()
    }
}

fn look_up(host: &str, port: u16, family: Option<bool>) -> Vec<SocketAddr> {
    let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => match (host, port).to_socket_addrs() {
            Ok(found) => found.collect(),
            Err(error) => {
                log::warn!("cannot look up {}: {error}", host.escape_debug());
                Vec::new()
            }
        },
    };
    addresses
        .into_iter()
        .filter(|address| family.is_none_or(|only_v6| address.is_ipv6() == only_v6))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_answer_arrives_and_the_family_is_kept_to() {
        let mut resolver = Resolver::new().unwrap();
        resolver.start("127.0.0.1".into(), 1, None);
        resolver.start("::1".into(), 2, None);
        let found = (0..200)
            .find_map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(5));
                resolver.poll()
            })
            .unwrap();
        assert_eq!(found, ["[::1]:2".parse().unwrap()]);
        assert_eq!(resolver.poll(), None);
        assert!(look_up("127.0.0.1", 1, Some(true)).is_empty());
    }
}
