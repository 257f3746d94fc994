//! The loop with real devices in a network namespace of the test thread's own. That needs root, so
//! these tests run only when asked for, as `tests/run interop` does.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket as StdSocket};
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;

use super::*;
use crate::buf::PacketMut;
use crate::config::ClientSettings;
use crate::config::Transport;
use crate::engine::{ClientInfo, DropCounters, DropReason, Endpoint, TunnelSettings, Verdict};
use crate::sys::keeper::Access;
use crate::sys::netlink::{Netlink, interface_index};
use crate::sys::testing::alone;

/// Carries packets between the TUN device and one peer as they are.
struct Pipe {
    peer: SocketAddr,
    drops: DropCounters,
    commands: Vec<Command>,
    sayings: Vec<&'static [u8]>,
}

impl Engine for Pipe {
    fn handle_udp(&mut self, _: Now, from: Endpoint, packet: &mut PacketMut<'_>) -> Verdict {
        match packet.as_slice() {
            b"hello" => {
                self.sayings.push(b"hello yourself");
                Verdict::Consumed
            }
            b"all" => Verdict::Broadcast { to_tun: false },
            b"back" => Verdict::ToUdp(from),
            bytes if bytes.len() < 20 => {
                self.drops.count(DropReason::Malformed);
                Verdict::Drop(DropReason::Malformed)
            }
            _ => Verdict::ToTun,
        }
    }

    fn handle_tun(&mut self, _: Now, _: &mut PacketMut<'_>) -> Verdict {
        Verdict::ToUdp(Endpoint::new(self.peer))
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn handle_reply(&mut self, _: Now, reply: Reply) {
        match reply {
            Reply::Shutdown => {
                self.sayings.push(b"bye");
                self.commands.push(Command::Exit(ExitReason::Requested));
            }
            Reply::Configured(result) => assert_eq!(result, Ok(())),
            other => panic!("{other:?}"),
        }
    }

    fn poll_transmit(&mut self, _: Now, out: &mut PacketMut<'_>) -> Option<Endpoint> {
        out.extend(self.sayings.pop()?).unwrap();
        Some(Endpoint::new(self.peer))
    }

    fn poll_broadcast(&mut self, _: Now, p: &[u8], out: &mut PacketMut<'_>) -> Option<Endpoint> {
        // One copy per broadcast, told from the next by the counter of something else.
        self.drops.count(DropReason::NotIp);
        (self.drops.of(DropReason::NotIp) % 2 == 1).then(|| {
            out.extend(p).unwrap();
            Endpoint::new(self.peer)
        })
    }

    fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn drops(&self) -> &DropCounters {
        &self.drops
    }

    fn clients(&self) -> Vec<ClientInfo> {
        Vec::new()
    }
}

struct NoUpkeep;

impl Upkeep<Pipe> for NoUpkeep {
    fn admit(
        &mut self,
        _: &mut Pipe,
        _: Now,
        _: &AdmitRequest,
    ) -> Result<Box<ClientSettings>, String> {
        Ok(Box::default())
    }
    fn revoke(&mut self, _: &[Vec<u8>]) {}
    fn tend(&mut self, _: &mut Pipe, now: Now) -> Instant {
        now.mono + Duration::from_secs(3600)
    }
    fn reload(&mut self, _: &mut Pipe, _: Now) -> Reload {
        Reload::Kept
    }
}

/// A running loop on 10.9.0.1/24 over "pipe0" and the peer's end of it.
fn start() -> (JoinHandle<Result<(), String>>, StdSocket, SocketAddr) {
    let peer = StdSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let transport = Transport { local: None, port: 0, family: None };
    let udp = UdpSocket::bind(&transport).unwrap();
    let port = udp.local().port();
    let tun = TunDevice::open(Some("pipe0"), true).unwrap();
    let settings = TunnelSettings {
        v4: Some("10.9.0.1/24".parse().unwrap()),
        mtu: 1500,
        ..TunnelSettings::default()
    };
    let engine = Pipe {
        peer: peer.local_addr().unwrap(),
        drops: DropCounters::default(),
        commands: vec![Command::Configure(Box::new(settings))],
        sayings: Vec::new(),
    };
    let tunnel = TunnelConfig::new(tun.name(), tun.index()).unwrap();
    let thread = std::thread::spawn(move || {
        let shell = EventLoop {
            engine,
            upkeep: NoUpkeep,
            udp,
            tun,
            tunnel,
            signals: Signals::open().unwrap(),
            control: None,
            resolver: Resolver::new().unwrap(),
            hooks: Hooks::new(
                crate::config::hooks::Hooks::default(),
                Duration::from_secs(60),
                Access::default(),
            ),
            reports: Reports::default(),
            watch: None,
            line: None,
            routes: None,
            filter: crate::sys::sandbox::Filter::Unknown,
        };
        shell.run().map(|next| assert!(next.is_none()))
    });
    (thread, peer, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
}

/// The next datagram, passing over what the host itself sends into a new interface.
fn next(peer: &StdSocket, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut buffer = [0; 2048];
    loop {
        let len = peer.recv(&mut buffer).unwrap();
        if wanted(&buffer[..len]) {
            return buffer[..len].to_vec();
        }
    }
}

#[test]
#[ignore = "needs root: tests/run interop runs it"]
fn packets_take_every_way_and_a_signal_ends_it() {
    alone();
    let (thread, peer, shell) = start();
    for (question, answer) in
        [(&b"hello"[..], &b"hello yourself"[..]), (b"all", b"all"), (b"back", b"back")]
    {
        peer.send_to(question, shell).unwrap();
        assert_eq!(next(&peer, |bytes| bytes.len() < 20), answer);
    }
    // From the host into the tunnel, and the same packet back with the addresses exchanged.
    let host = StdSocket::bind("10.9.0.1:0").unwrap();
    host.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    host.send_to(b"over the tunnel", "10.9.0.2:9").unwrap();
    let mut packet = next(&peer, |bytes| bytes.ends_with(b"over the tunnel"));
    assert_eq!(packet.len(), 20 + 8 + 15);
    packet[12..20].rotate_left(4);
    packet[20..24].rotate_left(2);
    peer.send_to(&packet, shell).unwrap();
    let mut buffer = [0; 64];
    let (len, from) = host.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], from), (&b"over the tunnel"[..], "10.9.0.2:9".parse().unwrap()));
    // SAFETY: the thread has blocked the signal and reads it from its signalfd.
    // The standard library and the libc crate disagree about the type on musl.
    unsafe { libc::pthread_kill(thread.as_pthread_t() as usize as libc::pthread_t, libc::SIGTERM) };
    assert_eq!(next(&peer, |bytes| bytes.len() < 20), b"bye");
    assert_eq!(thread.join().unwrap(), Ok(()));
    let gone = interface_index("pipe0").unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::ENODEV));
}

#[test]
#[ignore = "needs root: tests/run interop runs it"]
fn the_end_of_the_device_is_one_clear_line() {
    alone();
    let (thread, peer, shell) = start();
    peer.send_to(b"back", shell).unwrap();
    next(&peer, |bytes| bytes == b"back");
    Netlink::open().unwrap().remove_link(interface_index("pipe0").unwrap()).unwrap();
    let error = thread.join().unwrap().unwrap_err();
    assert!(error.contains("pipe0 was removed"), "{error}");
}
