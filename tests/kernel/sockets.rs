//! Real senders and real receivers: two hosts, each in a namespace of its own, and the wire between
//! their TUN devices in the hands of this test. What the first host hands over in pieces is split and given
//! to the other packet by packet; what that one answers is put together. Sockets with options in the IP
//! header, extension headers, fragments: each stream arrives byte for byte, and no kernel counts
//! an error or has to send much again. What the packets look like on their way is left to the other tests.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sixgate::offload::coalesce::Part;
use sixgate::offload::vnet::{Segments, VnetHeader};
use sixgate::sys::netlink::{Link, Netlink};
use sixgate::sys::tun::{TunDevice, TunFailure};

use crate::segments::Dice;
use crate::{leave, put_together, take_apart, write_plain};

/// A host and its end of the wire.
struct Host {
    namespace: File,
    device: TunDevice,
    number: u8,
}

impl Host {
    fn new(number: u8, offload: bool) -> Self {
        leave();
        let namespace = File::open("/proc/thread-self/ns/net").unwrap();
        let device = TunDevice::open(Some("wire0"), offload).unwrap();
        let mut netlink = Netlink::open().unwrap();
        netlink.set_link(device.index(), Link { mtu: 1500, up: true }).unwrap();
        let host = Self { namespace, device, number };
        for (v6, length) in [(false, 24), (true, 64)] {
            let net = format!("{}/{length}", host.address(v6)).parse().unwrap();
            netlink.add_address(host.device.index(), net, None).unwrap();
        }
        // The kernel makes an IPv6 address its own a little later.
        let own = format!("fd01{:028x} 80 ", number);
        let is_there = || {
            let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
            routes.lines().any(|line| line.starts_with(&own))
        };
        let deadline = Instant::now() + PATIENCE;
        while !is_there() {
            assert!(Instant::now() < deadline, "no {own}");
            thread::sleep(Duration::from_millis(1));
        }
        host
    }

    fn address(&self, v6: bool) -> IpAddr {
        let number = self.number;
        let text = if v6 { format!("fd01::{number}") } else { format!("10.1.0.{number}") };
        text.parse().unwrap()
    }

    /// Puts this thread into the host.
    fn enter(&self) {
        // SAFETY: affects this thread only.
        #[allow(unsafe_code)]
        let entered = unsafe { libc::setns(self.namespace.as_raw_fd(), libc::CLONE_NEWNET) } == 0;
        assert!(entered, "{}", std::io::Error::last_os_error());
    }

    fn udp(&self, v6: bool) -> UdpSocket {
        self.enter();
        let socket = UdpSocket::bind((self.address(v6), 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// What the kernel has counted, as `TcpInErrs` or `Ip6InReceives`.
    fn counters(&self) -> BTreeMap<String, u64> {
        self.enter();
        let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap();
        let (old, new) = (read("snmp"), read("snmp6"));
        let mut counters = BTreeMap::new();
        let mut add = |name: String, value: &str| {
            // Of all of them, one can be negative.
            counters.insert(name, value.parse().unwrap_or(0));
        };
        // A line with names, and one with values.
        for pair in old.lines().collect::<Vec<_>>().chunks(2) {
            let (layer, names) = pair[0].split_once(": ").unwrap();
            let values = pair[1].split_whitespace().skip(1);
            names
                .split(' ')
                .zip(values)
                .for_each(|(name, value)| add(layer.to_owned() + name, value));
        }
        for line in new.lines() {
            let (name, value) = line.split_once(char::is_whitespace).unwrap();
            add(name.to_owned(), value.trim());
        }
        counters
    }

    /// What the kernel found fault with: errors in what it received, or more to be sent again than waits of
    /// a busy machine explain. TCP would hide the loss of every segment but the first of a piece.
    fn complaints(&self) -> Vec<String> {
        let counters = self.counters();
        let errors = ["InErrs", "InErrors", "CsumErrors", "InHdrErrors", "ReasmFails"];
        assert!(errors.iter().all(|end| counters.keys().any(|name| name.ends_with(end))));
        let (sent, again) = (counters["TcpOutSegs"], counters["TcpRetransSegs"]);
        let is_bad = |name: &str, value| match name {
            "TcpRetransSegs" => again * 20 > sent,
            _ => value != 0 && errors.iter().any(|end| name.ends_with(end)),
        };
        let bad = counters.iter().filter(|(name, value)| is_bad(name, **value));
        bad.map(|(name, value)| format!("{name} {value}")).collect()
    }
}

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was seen on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// Pieces that the first host handed over: UDP or TCP, with anything between the headers.
    Split { udp: bool, options: bool },
    /// Pieces that were put together for it.
    Joined { udp: bool },
    /// Fragments, to the first host or from it.
    Fragment { to_first: bool },
}

type Tally = BTreeMap<Seen, usize>;

/// The wire between the first host, whose device has offload, and the second, whose device has none.
struct Wire<'a> {
    hosts: [&'a Host; 2],
    tally: &'a Mutex<Tally>,
}

impl Wire<'_> {
    fn count(&self, seen: Seen) {
        *self.tally.lock().unwrap().entry(seen).or_default() += 1;
    }

    fn run(&self, stop: &AtomicBool) {
        let mut buffer = vec![0; 70_000];
        while !stop.load(Ordering::Relaxed) {
            let (there, back) = (self.carry(&mut buffer), self.carry_back());
            if !there && !back {
                thread::sleep(Duration::from_micros(100));
            }
        }
    }

    /// One piece from the first host to the second; `false` when there was none.
    fn carry(&self, buffer: &mut [u8]) -> bool {
        let [first, second] = self.hosts.map(|host| &host.device);
        let (header, len) = match first.read(buffer) {
            Ok(read) => read,
            Err(TunFailure::Empty) => return false,
            Err(failure) => panic!("{failure:?}"),
        };
        let piece = &mut buffer[..len];
        if is_fragment(piece) {
            self.count(Seen::Fragment { to_first: false });
        }
        if header.segments != Segments::None {
            let least = if piece[0] >> 4 == 6 { 40 } else { 20 };
            let options = usize::from(header.checksum_start) > least;
            self.count(Seen::Split { udp: header.segments == Segments::Udp, options });
        }
        take_apart(&header, piece, |packet| write_plain(second, packet).unwrap());
        true
    }

    /// A batch from the second host to the first; `false` when there was none.
    fn carry_back(&self) -> bool {
        let [first, second] = self.hosts.map(|host| &host.device);
        let mut memory = vec![0; 64 * 2_000];
        let mut parts = Vec::new();
        for (at, slot) in memory.chunks_mut(2_000).enumerate() {
            match second.read(slot) {
                Ok((_, len)) => {
                    if is_fragment(&slot[..len]) {
                        self.count(Seen::Fragment { to_first: true });
                    }
                    parts.push(Part { start: at * 2_000, len });
                }
                Err(TunFailure::Empty) => break,
                Err(failure) => panic!("{failure:?}"),
            }
        }
        let mut write = |header: &VnetHeader, memory: &[u8], parts: &[Part]| {
            if header.segments != Segments::None {
                self.count(Seen::Joined { udp: header.segments == Segments::Udp });
            }
            first.write(header, memory, parts).unwrap();
        };
        put_together(first, &mut memory, &parts, &mut write);
        !parts.is_empty()
    }
}

/// Also behind options.
fn is_fragment(packet: &[u8]) -> bool {
    if packet[0] >> 4 == 4 {
        return u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
    }
    let (mut next, mut at) = (packet[6], 40);
    while matches!(next, 0 | 60) {
        (next, at) = (packet[at], at + 8 * (1 + usize::from(packet[at + 1])));
    }
    next == 44
}

/// What stands between the IP header and the next, as a socket asks for it.
#[derive(Debug)]
struct Between {
    v6: bool,
    options: &'static [(libc::c_int, &'static [u8])],
}

const HOP: &[u8] = &[0, 0, 0x1e, 4, 1, 2, 3, 4];
const DESTINATION: &[u8] = &[0, 1, 0x1e, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

const CASES: &[Between] = &[
    Between { v6: false, options: &[] },
    Between { v6: false, options: &[(libc::IP_OPTIONS, &[1, 1, 1, 1])] },
    // A router alert.
    Between { v6: false, options: &[(libc::IP_OPTIONS, &[148, 4, 0, 0])] },
    // The way taken, which both kernels write into it: as long as options can be.
    Between {
        v6: false,
        options: &[(
            libc::IP_OPTIONS,
            &[
                1, 7, 39, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ],
        )],
    },
    Between { v6: true, options: &[] },
    Between { v6: true, options: &[(libc::IPV6_HOPOPTS, HOP)] },
    Between { v6: true, options: &[(libc::IPV6_DSTOPTS, DESTINATION)] },
    Between { v6: true, options: &[(libc::IPV6_HOPOPTS, HOP), (libc::IPV6_DSTOPTS, DESTINATION)] },
];

impl Between {
    /// Whether there are extension headers.
    fn is_extended(&self) -> bool {
        self.v6 && !self.options.is_empty()
    }

    fn apply(&self, socket: RawFd) {
        let level = if self.v6 { libc::IPPROTO_IPV6 } else { libc::IPPROTO_IP };
        for (name, value) in self.options {
            set(socket, level, *name, value);
        }
    }
}

fn set(socket: RawFd, level: libc::c_int, name: libc::c_int, value: &[u8]) {
    // SAFETY: `value` is as long as stated.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::setsockopt(socket, level, name, value.as_ptr().cast(), value.len() as libc::socklen_t)
    };
    assert_eq!(result, 0, "{level} {name}: {}", std::io::Error::last_os_error());
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    (0..len).map(|_| dice.byte()).collect()
}

/// Runs `traffic` over a wire; returns what was seen on it. No host may have complained.
fn over_a_wire(traffic: impl FnOnce([&Host; 2])) -> Tally {
    let hosts = [Host::new(1, true), Host::new(2, false)];
    let hosts = [&hosts[0], &hosts[1]];
    let (tally, stop) = (Mutex::new(Tally::new()), AtomicBool::new(false));
    thread::scope(|scope| {
        // However the traffic ends, the wire ends, too, and the scope with it.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let wire = Wire { hosts, tally: &tally };
        let stop = Stop(&stop);
        let flag = stop.0;
        scope.spawn(move || wire.run(flag));
        traffic(hosts);
    });
    for host in hosts {
        assert_eq!(host.complaints(), [""; 0], "host {}", host.number);
    }
    tally.into_inner().unwrap()
}

#[test]
#[ignore = "needs root: tests/run interop runs it"]
fn streams_arrive_whatever_is_in_their_headers() {
    for case in CASES {
        let tally = over_a_wire(|[first, second]| {
            second.enter();
            let listener = TcpListener::bind((second.address(case.v6), 0)).unwrap();
            let to = listener.local_addr().unwrap();
            let (there, back) = (noise(1, 1_500_001), noise(2, 1_500_003));
            // Of IPv6, what comes later does not make accepted sockets' segments smaller (Linux 6.18); of
            // IPv4, they have nothing from their listener.
            if case.v6 {
                case.apply(listener.as_raw_fd());
            }
            first.enter();
            let mut client = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            if !case.v6 {
                case.apply(server.as_raw_fd());
            }
            for stream in [&client, &server] {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
            }
            case.apply(client.as_raw_fd());
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut found = vec![0; there.len()];
                    server.read_exact(&mut found).unwrap();
                    assert!(found == there, "{case:?}");
                    server.write_all(&back).unwrap();
                });
                client.write_all(&there).unwrap();
                let mut found = vec![0; back.len()];
                client.read_exact(&mut found).unwrap();
                assert!(found == back, "{case:?}");
            });
        });
        let options = !case.options.is_empty();
        let count = |seen| tally.get(&seen).copied().unwrap_or(0);
        assert!(count(Seen::Split { udp: false, options }) > 20, "{case:?}: {tally:?}");
        let joined = count(Seen::Joined { udp: false });
        assert!(if options { joined == 0 } else { joined > 3 }, "{case:?}: {tally:?}");
    }
}

fn expect(socket: &UdpSocket, from: SocketAddr, datagrams: &[&[u8]], case: &Between) {
    let mut buffer = vec![0; 70_000];
    for (at, datagram) in datagrams.iter().enumerate() {
        let (len, source) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(source, from);
        assert!(buffer[..len] == **datagram, "{case:?}: datagram {at}");
    }
}

#[test]
#[ignore = "needs root: tests/run interop runs it"]
fn datagrams_arrive_whatever_is_in_their_headers() {
    const ROUNDS: usize = 20;
    for case in CASES {
        let mut in_pieces = false;
        let tally = over_a_wire(|[first, second]| {
            in_pieces = first.device.takes_datagrams();
            let (client, server) = (first.udp(case.v6), second.udp(case.v6));
            let ends = [&client, &server].map(|socket| socket.local_addr().unwrap());
            client.connect(ends[1]).unwrap();
            server.connect(ends[0]).unwrap();
            case.apply(client.as_raw_fd());
            for round in 0..ROUNDS {
                // Segments of one size and the rest.
                let size = 200 + 50 * round;
                let data = noise(round as u64, 30 * size + 1 + round);
                let datagrams: Vec<&[u8]> = data.chunks(size).collect();
                let segment = |size: usize| {
                    let size = (size as libc::c_int).to_ne_bytes();
                    set(client.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, &size);
                };
                segment(size);
                match client.send(&data) {
                    Ok(_) => expect(&server, ends[0], &datagrams, case),
                    // Before 6.11, not with extension headers.
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{case:?}");
                        assert!(case.is_extended(), "{case:?}");
                    }
                }
                segment(0);
                // And back, where they are put together, and later may not be.
                if round == 15 {
                    case.apply(server.as_raw_fd());
                }
                for datagram in &datagrams {
                    server.send(datagram).unwrap();
                }
                expect(&client, ends[1], &datagrams, case);
                // In fragments.
                let large = &data[..data.len().min(5_000 + 100 * round)];
                for (sender, receiver, from) in
                    [(&client, &server, ends[0]), (&server, &client, ends[1])]
                {
                    sender.send(large).unwrap();
                    expect(receiver, from, &[large], case);
                }
            }
        });
        let options = !case.options.is_empty();
        let count = |seen| tally.get(&seen).copied().unwrap_or(0);
        // Datagrams with extension headers are made into single packets by the sender.
        if in_pieces && !case.is_extended() {
            assert_eq!(count(Seen::Split { udp: true, options }), ROUNDS, "{case:?}: {tally:?}");
        }
        if in_pieces {
            assert!(count(Seen::Joined { udp: true }) > 3, "{case:?}: {tally:?}");
        }
        for to_first in [false, true] {
            assert!(count(Seen::Fragment { to_first }) > 3 * ROUNDS, "{case:?}: {tally:?}");
        }
    }
}
