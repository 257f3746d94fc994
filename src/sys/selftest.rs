//! `sixgate selftest`: a server and a client in this process, over real UDP on the loopback
//! interface. It shows that handshake, both IP families and every data cipher work on this machine,
//! and how fast; it needs no privileges and changes nothing.
//!
//! What is real: both engines, certificates and profile as `sixgate up` makes them, sockets and
//! clock. What is not: the hosts, which are smoltcp stacks in place of TUN devices. One thread does
//! the work of both ends and both hosts, so a router alone does better than what is measured.

pub mod end;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant as Stopwatch};

use self::end::End;
use super::clock::{Clock, OsRandom};
use super::commands::print;
use super::poll::PollSet;
use super::udp::UdpSocket;
use crate::client::Client;
use crate::config::{CipherName, Config, Role, Transport};
use crate::engine::TunnelSettings;
use crate::selftest::host::{self, Host};
use crate::selftest::site::Site;
use crate::server::Server;

/// Ciphers in the order in which they are tried.
const CIPHERS: &[CipherName] = &[
    CipherName::ChaCha20Poly1305,
    CipherName::Aes256Gcm,
    CipherName::Aes128Gcm,
    #[cfg(feature = "cbc")]
    CipherName::Cbc(crate::config::AesSize::Aes256),
];
/// Bytes of one transfer; there is one in each direction for each cipher, 10 MB together.
const TRANSFER: u64 = 5_000_000;
/// A transfer that is under way for so long is stopped and still tells the speed.
const ENOUGH: Duration = Duration::from_secs(10);
/// The first ones have to arrive in full, and may take so long.
const PATIENCE: Duration = Duration::from_secs(120);
/// For a handshake, or an answer to a ping.
const SOON: Duration = Duration::from_secs(60);

/// Runs all of it; an error is one line for the user.
pub fn run() -> Result<(), String> {
    all().map_err(|error| format!("selftest: {error}"))
}

fn all() -> Result<(), String> {
    let (clock, started) = (Clock::new(), Stopwatch::now());
    let site = Site::new(clock.now().unix, &mut OsRandom::new())
        .map_err(|error| format!("certificates: {error}"))?;
    let took = started.elapsed();
    print(&format!("certificates        made in {} ms\n", took.as_millis()))?;
    for (number, cipher) in CIPHERS.iter().enumerate() {
        let name = cipher.as_str();
        one(&site, clock, *cipher, number == 0).map_err(|error| format!("{name}: {error}"))?;
    }
    print("passed\n")
}

/// One cipher: handshake, pings, a transfer each way.
fn one(site: &Site, clock: Clock, cipher: CipherName, first: bool) -> Result<(), String> {
    let mut pair = Pair::new(site, clock, cipher)?;
    let server = pair.server.local();
    let took = pair.until(SOON, |pair| pair.client.host.is_some());
    let took = took.ok_or("no tunnel after 60 s")??;
    let (ours, theirs) = pair.addresses()?;
    if first {
        print(&format!("handshake           over {server} in {} ms\n", took.as_millis()))?;
    }
    for (from, to) in ours.into_iter().zip(theirs).flat_map(|(a, b)| [(a, b), (b, a)]) {
        let took = pair.ping(from, to)?;
        if first {
            let micros = took.as_micros();
            print(&format!("ping                {from} to {to} {micros} us\n"))?;
        }
    }
    let limit = if first { PATIENCE } else { ENOUGH };
    // The client sends over IPv6, and the server over IPv4.
    let [(up, up_time), (down, down_time)] =
        [pair.transfer(false, ours[1], limit)?, pair.transfer(true, theirs[0], limit)?];
    if first && up + down < 2 * TRANSFER {
        return Err(format!(
            "{} of {} bytes in {} s each way",
            up + down,
            2 * TRANSFER,
            limit.as_secs()
        ));
    }
    let rate = |bytes: u64, time: Duration| {
        bytes * 8 / u64::try_from(time.as_micros()).unwrap_or(1).max(1)
    };
    print(&format!(
        "{:19} {} KB of TCP: {} Mbit/s up, {} Mbit/s down\n",
        cipher.as_str(),
        (up + down) / 1000,
        rate(up, up_time),
        rate(down, down_time)
    ))
}

/// Both ends.
struct Pair {
    clock: Clock,
    server: End,
    client: End,
    /// The server's own tunnel addresses.
    ours: [Option<IpAddr>; 2],
    port: u16,
}

impl Pair {
    fn new(site: &Site, clock: Clock, cipher: CipherName) -> Result<Self, String> {
        let now = clock.now();
        let udp = bind(Ipv6Addr::LOCALHOST.into()).or_else(|_| bind(Ipv4Addr::LOCALHOST.into()))?;
        let address = udp.local();
        let config = site.server(cipher)?;
        let Role::Server(role) = &config.role else { return Err("not a server".to_owned()) };
        let ours = [role.v4.map(|v4| v4.addr().into()), role.v6.map(|v6| v6.addr().into())];
        let settings = TunnelSettings {
            v4: role.v4,
            v6: role.v6,
            mtu: config.device.mtu,
            ..TunnelSettings::default()
        };
        let engine = Server::new(Arc::new(config), now, Box::new(OsRandom::new()))?;
        let mut server = End::new(Box::new(engine), udp, address);
        server.host = Some(server.host_of(&settings));
        let config: Config = site.client(cipher, &address.to_string())?;
        let engine = Client::new(Arc::new(config), now, Box::new(OsRandom::new()))?;
        let client = End::new(Box::new(engine), bind(address.ip())?, address);
        Ok(Self { clock, server, client, ours, port: 40_000 })
    }

    /// IPv4 and IPv6 addresses of the server, and of the client.
    fn addresses(&self) -> Result<([IpAddr; 2], [IpAddr; 2]), String> {
        let settings = &self.client.settings;
        let theirs =
            [settings.v4.map(|v4| v4.addr().into()), settings.v6.map(|v6| v6.addr().into())];
        match (self.ours, theirs) {
            ([Some(a), Some(b)], [Some(c), Some(d)]) => Ok(([a, b], [c, d])),
            _ => Err("the client has not got an address of each family".to_owned()),
        }
    }

    /// Lets both ends work until `done`, and says how long that took; `None` after `limit`.
    fn until(
        &mut self,
        limit: Duration,
        done: impl Fn(&Self) -> bool,
    ) -> Option<Result<Duration, String>> {
        let start = Stopwatch::now();
        let mut descriptors = PollSet::<2>::new();
        loop {
            let now = self.clock.now();
            let busy = self.server.turn(now) | self.client.turn(now);
            let failure = self.client.failure.take().or_else(|| self.server.failure.take());
            if let Some(failure) = failure {
                return Some(Err(failure));
            }
            let spent = start.elapsed();
            if done(self) {
                return Some(Ok(spent));
            }
            if spent > limit {
                return None;
            }
            if !busy {
                let wait = self.server.patience(now).min(self.client.patience(now));
                descriptors.clear();
                descriptors.add(self.server.as_raw_fd(), true, false);
                descriptors.add(self.client.as_raw_fd(), true, false);
                descriptors.wait(Some(wait));
            }
        }
    }

    fn end_of(&mut self, address: IpAddr) -> &mut End {
        if self.ours.contains(&Some(address)) { &mut self.server } else { &mut self.client }
    }

    fn ping(&mut self, from: IpAddr, to: IpAddr) -> Result<Duration, String> {
        let answers = |pair: &Self| {
            let ends = [&pair.server, &pair.client].into_iter();
            ends.filter_map(|end| end.host.as_ref()).map(Host::answers).sum::<u32>()
        };
        let before = answers(self);
        let now = self.clock.now();
        let packet = host::echo(from, to).unwrap_or_default();
        self.end_of(from).send_ip(now, &packet);
        self.end_of(from).flush();
        let took = self.until(SOON, |pair| answers(pair) > before);
        took.unwrap_or_else(|| Err(format!("ping from {from} to {to}: no answer")))
    }

    /// TCP to an address, from the other end; how much arrived in which time.
    fn transfer(
        &mut self,
        from_server: bool,
        to: IpAddr,
        limit: Duration,
    ) -> Result<(u64, Duration), String> {
        self.port += 1;
        let port = self.port;
        let (sender, receiver) = match from_server {
            true => (&mut self.server, &mut self.client),
            false => (&mut self.client, &mut self.server),
        };
        if let (Some(sender), Some(receiver)) = (&mut sender.host, &mut receiver.host) {
            receiver.listen();
            sender.connect(to, port, TRANSFER);
        }
        let received = move |pair: &Self| {
            let end = if from_server { &pair.client } else { &pair.server };
            end.host.as_ref().and_then(Host::received)
        };
        let start = Stopwatch::now();
        let done = |pair: &Self| received(pair).is_none_or(|bytes| bytes >= TRANSFER);
        self.until(limit, done).unwrap_or(Ok(limit))?;
        let took = start.elapsed();
        let bytes =
            received(self).ok_or_else(|| format!("TCP to {to}: the bytes changed on the way"))?;
        if bytes == 0 {
            return Err(format!("TCP to {to}: nothing arrives"));
        }
        for end in [&mut self.server, &mut self.client] {
            end.host.iter_mut().for_each(Host::abort);
        }
        Ok((bytes, took))
    }
}

fn bind(address: IpAddr) -> Result<UdpSocket, String> {
    let mut udp = UdpSocket::bind(&Transport { local: Some(address), port: 0, family: None })?;
    udp.probe();
    Ok(udp)
}
