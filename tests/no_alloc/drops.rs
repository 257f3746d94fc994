//! Every way in which a packet of the data path is dropped: each takes no memory and counts once, under
//! its own reason, and each reason that an engine can have for one is brought about.
//!
//! What becomes of packets that go on their way, and of strangers' control packets, is in `no_alloc.rs`.

use std::net::SocketAddr;

use sixgate::buf::{PacketBuf, PacketMut};
use sixgate::engine::{Command, DropReason, Reply, Verdict};

use super::common::clients::{join, serve_with_files};
use super::common::net::Net;
use super::common::packets::echo;
use super::common::pki::{CLIENT, Site, Usage, load};
use super::common::puppet::{self, Strings};
use super::common::raw::Raw;
use super::{ROUNDS, hand, handed, handed_from, ip, sealed};

/// Where nobody is.
const ELSEWHERE: &str = "203.0.113.9:9";

/// Which engine a packet is handed to, and from which side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ServerUdp,
    ServerTun,
    ClientUdp,
    ClientTun,
}

/// The ways on which a packet can be dropped for this reason.
const fn ways(reason: DropReason) -> &'static [Way] {
    match reason {
        DropReason::Malformed
        | DropReason::BadOpcode
        | DropReason::UnknownPeer
        | DropReason::Replay
        | DropReason::BadAuth
        | DropReason::Compressed => &[Way::ServerUdp, Way::ClientUdp],
        // Who is in has a key to send with, until all its packet ids are used up.
        DropReason::NoKey => &[Way::ServerUdp, Way::ClientUdp],
        DropReason::NotIp => &[Way::ServerUdp, Way::ServerTun, Way::ClientUdp, Way::ClientTun],
        DropReason::RateLimited | DropReason::BadSource => &[Way::ServerUdp],
        // A client hands over what comes from its server, and its host's packets are its host's.
        DropReason::LinkLocal => &[Way::ServerUdp, Way::ServerTun],
        DropReason::NoRoute | DropReason::TooBig | DropReason::Recursive => {
            &[Way::ServerUdp, Way::ServerTun, Way::ClientTun]
        }
        // At a server, no address leads to anybody before he is in, or once he is on his way out.
        DropReason::NotReady => &[Way::ServerUdp, Way::ClientUdp, Way::ClientTun],
        // Of control packets.
        DropReason::BadWrap
        | DropReason::BadClientKey
        | DropReason::BadCookie
        | DropReason::UnknownSession
        | DropReason::TooManyClients => &[],
    }
}

/// What packets on one way were dropped for.
struct Drops {
    way: Way,
    counts: [u64; DropReason::ALL.len()],
}

impl Drops {
    fn new(way: Way) -> Self {
        Self { way, counts: [0; DropReason::ALL.len()] }
    }

    /// Servers are node 0, clients node 1.
    fn node(&self) -> usize {
        match self.way {
            Way::ServerUdp | Way::ServerTun => 0,
            Way::ClientUdp | Way::ClientTun => 1,
        }
    }

    /// Hands in what is in `window`, which comes from the host if there is no `from`. Its verdict is
    /// returned, and the engine has counted `count` drops for `reason`, and none else.
    fn counted(
        &mut self,
        net: &mut Net,
        from: Option<SocketAddr>,
        window: &mut PacketMut<'_>,
        (reason, count): (DropReason, u64),
    ) -> Verdict {
        let node = self.node();
        assert_eq!(from.is_some(), matches!(self.way, Way::ServerUdp | Way::ClientUdp));
        let before = net.nodes[node].engine.drops().clone();
        let (verdict, _) = hand(net, node, from, window);
        for other in DropReason::ALL {
            let grown = net.nodes[node].engine.drops().of(*other) - before.of(*other);
            let expected = if *other == reason { count } else { 0 };
            assert_eq!(grown, expected, "{other:?} while {reason:?} is expected; {verdict:?}");
            self.counts[*other as usize] += grown;
        }
        verdict
    }

    /// A packet that has to be dropped for this reason, with as much room around it as usual.
    fn drops(&mut self, net: &mut Net, from: Option<SocketAddr>, bytes: &[u8], why: DropReason) {
        let mut memory = PacketBuf::new();
        let mut window = memory.packet_from(bytes).unwrap();
        let verdict = self.counted(net, from, &mut window, (why, 1));
        assert_eq!(verdict, Verdict::Drop(why), "{:02x?}", &bytes[..bytes.len().min(24)]);
    }

    /// The same without any room around it.
    fn drops_tight(&mut self, net: &mut Net, from: Option<SocketAddr>, bytes: &[u8]) {
        let (mut memory, len) = (bytes.to_vec(), bytes.len());
        let mut window = PacketMut::new(&mut memory, 0, len).unwrap();
        let verdict = self.counted(net, from, &mut window, (DropReason::TooBig, 1));
        assert_eq!(verdict, Verdict::Drop(DropReason::TooBig));
    }

    /// A packet for all that is too large for any of the `receivers`.
    fn too_big_for_all(
        &mut self,
        net: &mut Net,
        from: Option<SocketAddr>,
        bytes: &[u8],
        receivers: u64,
    ) {
        let mut memory = PacketBuf::new();
        let mut window = memory.packet_from(bytes).unwrap();
        let verdict = self.counted(net, from, &mut window, (DropReason::TooBig, receivers));
        assert!(matches!(verdict, Verdict::Broadcast { .. }), "{verdict:?}");
    }

    /// Every reason that there can be on this way has been there, and no other.
    fn finish(&self) {
        for reason in DropReason::ALL {
            let seen = self.counts[*reason as usize] > 0;
            assert_eq!(seen, ways(*reason).contains(&self.way), "{reason:?}: {:?}", self.way);
        }
    }
}

/// An IPv4 packet between these, and what can be wrong with it.
fn v4(from: &str, to: &str, size: usize) -> Vec<u8> {
    echo(ip(from), ip(to), &vec![1; size])
}

/// It may be cut up, so that its source is not told that it is too big.
fn may_fragment(mut packet: Vec<u8>) -> Vec<u8> {
    packet[6] &= !0x40;
    packet
}

/// The second part of a packet that was cut up, which is never answered.
fn later_fragment(mut packet: Vec<u8>) -> Vec<u8> {
    packet[7] |= 1;
    packet
}

/// A UDP datagram to there.
fn udp(from: &str, to: SocketAddr) -> Vec<u8> {
    let mut packet = echo(ip(from), to.ip(), &[0; 32]);
    packet[9] = 17;
    packet[22..24].copy_from_slice(&to.port().to_be_bytes());
    packet
}

/// What no engine takes for an IP packet.
const NOT_IP: [&[u8]; 3] = [&[0x45; 12], &[0x15; 40], &[0x65, 0, 0, 0]];

/// A server (node 0) with the clients `laptop` (node 1) and `phone` (node 2). The network that their
/// real addresses are of is behind the latter: `route` lines like that are a mistake that is made.
fn house(lines: &str, seed: u64) -> (Net, Site) {
    let site = Site::default();
    let files = [
        ("phone", "iroute 198.51.100.0 255.255.255.0\n"),
        ("guest", "iroute 192.168.9.0 255.255.255.0\n"),
    ];
    let mut net = serve_with_files(site.server_config(lines), seed, &files, |_| ());
    join(&mut net, &site, "laptop", "", seed + 1);
    join(&mut net, &site, "phone", "", seed + 2);
    net.run(1_000);
    (net, site)
}

/// A client that can say anything inside its tunnel: by what it says of itself it uses LZO's framing if
/// `frames`, which it does not. It has the classic format, laptop and phone have the epoch format.
fn visit(net: &mut Net, site: &Site, name: &str, frames: bool) -> Raw {
    let config = load(CLIENT, &site.ca.pem, &site.ca.issue(name, Usage::Client, 2050, 90));
    let info = "IV_PROTO=6\nIV_CIPHERS=AES-256-GCM\nIV_LZO=1\n";
    let options = if frames { "V4,dev-type tun,comp-lzo,tls-client" } else { "" };
    let mut raw = Raw::with_options(net, &config, info, options);
    raw.addr = SocketAddr::new(raw.addr.ip(), if frames { 5001 } else { 5000 });
    raw.patient = true;
    raw.talk(net);
    raw
}

#[test]
fn from_a_client_to_a_server() {
    let (mut net, site) = house("client-to-client\n", 500);
    let mut guest = visit(&mut net, &site, "guest", false);
    let mut framed = visit(&mut net, &site, "framed", true);
    net.nodes[0].decides = false;
    let applicant = net.add("198.51.100.77:7", site.client(net.now, "applicant", "", 509));
    net.run(2_000);
    log::set_max_level(log::LevelFilter::Info);
    assert_eq!((guest.pushed(), framed.pushed()), (1, 1));
    let (laptop, phone) = (net.nodes[1].addr, net.nodes[2].addr);
    let (home, elsewhere) = (Some(guest.addr), Some(ELSEWHERE.parse().unwrap()));
    let mut drops = Drops::new(Way::ServerUdp);
    let own = "10.8.0.4";
    for _ in 0..ROUNDS {
        // There is time for strangers again, of which a router has little.
        net.run(100);
        // What can be told without a key. Peer ids are given out from 0.
        for bytes in [&[][..], &[0x48, 0, 0], &[0x48, 0, 0, 2, 1, 2, 3], &[0x30]] {
            drops.drops(&mut net, home, bytes, DropReason::Malformed);
        }
        for opcode in [0x08, 0x40, 0xf8] {
            drops.drops(&mut net, home, &[opcode; 60], DropReason::BadOpcode);
        }
        let number = |id: u8| [&[0x48, 0, 0, id][..], &[0x55; 60]].concat();
        drops.drops(&mut net, home, &number(99), DropReason::UnknownPeer);
        drops.drops(&mut net, elsewhere, &[0x30; 60], DropReason::UnknownPeer);
        let waiting = Some(net.nodes[applicant].addr);
        drops.drops(&mut net, waiting, &number(4), DropReason::NotReady);
        drops.drops(&mut net, elsewhere, &number(4), DropReason::NotReady);

        // What the keys tell, in both formats.
        let mut send = |drops: &mut Drops, net: &mut Net, inside: &[u8], why| {
            let datagram = guest.sealed(net, inside).unwrap();
            drops.drops(net, home, &datagram, why);
        };
        let there = v4("10.8.0.2", "10.8.0.1", 100);
        let datagram = sealed(&mut net, 1, &there);
        assert_eq!(handed(&mut net, 0, Some(1), &datagram).0, Verdict::ToTun);
        drops.drops(&mut net, Some(laptop), &datagram, DropReason::Replay);
        let mut forged = sealed(&mut net, 1, &there);
        forged[50] ^= 1;
        drops.drops(&mut net, Some(laptop), &forged, DropReason::BadAuth);
        forged[0] |= 3;
        drops.drops(&mut net, Some(laptop), &forged, DropReason::NoKey);
        drops.drops(&mut net, home, &number(2), DropReason::BadAuth);

        // What the tunnel does not carry.
        for inside in NOT_IP {
            send(&mut drops, &mut net, inside, DropReason::NotIp);
        }
        send(&mut drops, &mut net, &[0xfa, 0x45, 0], DropReason::Compressed);
        let datagram = framed.sealed(&net, &[0x66, 0x45, 0]).unwrap();
        drops.drops(&mut net, Some(framed.addr), &datagram, DropReason::Compressed);
        for (from, to) in [("fe80::1", "ff02::1"), ("fd00:6::1002", "fe80::2"), ("::", "ff02::2")] {
            send(&mut drops, &mut net, &echo(ip(from), ip(to), &[]), DropReason::LinkLocal);
        }
        send(&mut drops, &mut net, &v4("10.8.0.2", "10.8.0.1", 9), DropReason::BadSource);
        for to in [own, "192.168.9.9"] {
            let inside = later_fragment(v4(own, to, 64));
            send(&mut drops, &mut net, &inside, DropReason::NoRoute);
        }
        send(&mut drops, &mut net, &udp(own, phone), DropReason::Recursive);
        let inside = may_fragment(v4(own, "10.8.0.2", 2000));
        send(&mut drops, &mut net, &inside, DropReason::TooBig);
        let datagram = guest.sealed(&net, &v4(own, "10.8.0.2", 100)).unwrap();
        drops.drops_tight(&mut net, home, &datagram);
        let datagram = guest.sealed(&net, &v4(own, "224.0.0.251", 2000)).unwrap();
        drops.too_big_for_all(&mut net, home, &datagram, 3);

        // A client that moves onto another one.
        for taken in [Some(phone), home] {
            let datagram = sealed(&mut net, 1, &there);
            drops.drops(&mut net, taken, &datagram, DropReason::UnknownPeer);
        }
    }
    assert_eq!(net.nodes[0].engine.clients()[0].from.peer, laptop);

    // Somebody tries a client's number, until there is no more time for him.
    let trial = [&[0x48, 0, 0, 1][..], &[9; 90]].concat();
    let limited = Verdict::Drop(DropReason::RateLimited);
    let tired = (0..5_000).any(|_| handed_from(&mut net, 0, elsewhere, &trial).0 == limited);
    assert!(tired);
    for _ in 0..ROUNDS {
        drops.drops(&mut net, elsewhere, &trial, DropReason::RateLimited);
    }

    // It has said goodbye, and is not quite gone.
    guest.say(&mut net, "EXIT");
    for _ in 0..ROUNDS {
        let datagram = guest.sealed(&net, &v4(own, "10.8.0.1", 9)).unwrap();
        drops.drops(&mut net, home, &datagram, DropReason::NotReady);
    }
    drops.finish();
}

/// Where clients do not see each other, packets for the network behind their own sender come back.
#[test]
fn from_a_client_to_its_own_network() {
    let (mut net, site) = house("", 510);
    let mut guest = visit(&mut net, &site, "guest", false);
    log::set_max_level(log::LevelFilter::Info);
    let mut drops = Drops::new(Way::ServerUdp);
    for _ in 0..ROUNDS {
        let inside = later_fragment(v4("10.8.0.4", "192.168.9.9", 64));
        let datagram = guest.sealed(&net, &inside).unwrap();
        drops.drops(&mut net, Some(guest.addr), &datagram, DropReason::NoRoute);
    }
}

#[test]
fn from_a_servers_host() {
    let (mut net, _site) = house("", 520);
    log::set_max_level(log::LevelFilter::Info);
    let phone = net.nodes[2].addr;
    let mut drops = Drops::new(Way::ServerTun);
    let own = "10.8.0.1";
    for _ in 0..ROUNDS {
        for bytes in NOT_IP.into_iter().chain([&[][..]]) {
            drops.drops(&mut net, None, bytes, DropReason::NotIp);
        }
        for (from, to) in [("fe80::1", "ff02::1"), ("fd00:6::1", "fe80::2"), ("::", "ff02::2")] {
            drops.drops(&mut net, None, &echo(ip(from), ip(to), &[]), DropReason::LinkLocal);
        }
        let nobody = later_fragment(v4(own, "10.8.0.77", 64));
        drops.drops(&mut net, None, &nobody, DropReason::NoRoute);
        drops.drops(&mut net, None, &udp(own, phone), DropReason::Recursive);
        let large = may_fragment(v4(own, "10.8.0.2", 2000));
        drops.drops(&mut net, None, &large, DropReason::TooBig);
        drops.drops_tight(&mut net, None, &v4(own, "10.8.0.2", 100));
        drops.too_big_for_all(&mut net, None, &v4(own, "224.0.0.251", 2000), 2);
    }
    drops.finish();
}

/// A client, and a server that seals whatever it is given: before the tunnel is up, while it is, and once
/// the server has ended it.
#[test]
fn at_a_client() {
    let mut drops = [Drops::new(Way::ClientUdp), Drops::new(Way::ClientTun)];
    for (push, lines, compressed) in
        [("", "", &[0xfa, 0x45, 0][..]), (",compress stub-v2", "float\n", &[0x50, 1, 0x45])]
    {
        let greeting = "PUSH_REPLY,topology subnet,ifconfig 10.8.0.2 255.255.255.0,block-ipv6";
        let greeting = vec![format!("{greeting}{push}")];
        let (mut net, strings) = puppet::show(Strings { greeting, ..Strings::default() }, lines);
        net.nodes[1].decides = false;
        let asked = |command: &Command| matches!(command, Command::Configure(_));
        assert!(net.run_until(20_000, |net| net.nodes[1].commands.iter().any(asked)));
        log::set_max_level(log::LevelFilter::Info);
        not_ready(&mut drops, &mut net);
        net.reply(1, Reply::Configured(Ok(())));
        for _ in 0..ROUNDS {
            from_its_server(&mut drops[0], &mut net, compressed, !lines.is_empty());
            from_its_host(&mut drops[1], &mut net);
        }
        strings.borrow_mut().say.push_back("RESTART".to_owned());
        let over = |command: &Command| matches!(command, Command::NewPort);
        assert!(net.run_until(20_000, |net| net.nodes[1].commands.iter().any(over)));
        not_ready(&mut drops, &mut net);
    }
    drops.iter().for_each(Drops::finish);
}

/// There is no tunnel, be it yet or any more.
fn not_ready([udp, tun]: &mut [Drops; 2], net: &mut Net) {
    let server = Some(net.nodes[0].addr);
    for _ in 0..ROUNDS {
        let datagram = sealed(net, 0, &v4("10.8.0.1", "10.8.0.2", 9));
        udp.drops(net, server, &datagram, DropReason::NotReady);
        tun.drops(net, None, &v4("10.8.0.2", "10.8.0.1", 9), DropReason::NotReady);
    }
}

fn from_its_server(drops: &mut Drops, net: &mut Net, compressed: &[u8], floats: bool) {
    let (server, elsewhere) = (Some(net.nodes[0].addr), Some(ELSEWHERE.parse().unwrap()));
    for bytes in [&[][..], &[0x48, 0, 0], &[0x30, 1, 2, 3], &[0xff; 40]] {
        drops.drops(net, server, bytes, DropReason::Malformed);
    }
    for opcode in [0x38, 0x50, 0x58] {
        drops.drops(net, server, &[opcode; 60], DropReason::BadOpcode);
    }
    // With `float` only data packets may come from elsewhere, and have to prove it.
    drops.drops(net, elsewhere, &[0x28; 60], DropReason::UnknownPeer);

    let there = v4("10.8.0.1", "10.8.0.2", 100);
    let datagram = sealed(net, 0, &there);
    assert_eq!(handed(net, 1, Some(0), &datagram).0, Verdict::ToTun);
    drops.drops(net, server, &datagram, DropReason::Replay);
    if !floats {
        let datagram = sealed(net, 0, &there);
        drops.drops(net, elsewhere, &datagram, DropReason::UnknownPeer);
    }
    let mut forged = sealed(net, 0, &there);
    forged[50] ^= 1;
    drops.drops(net, server, &forged, DropReason::BadAuth);
    forged[0] |= 3;
    drops.drops(net, server, &forged, DropReason::NoKey);
    for inside in NOT_IP {
        let datagram = sealed(net, 0, inside);
        drops.drops(net, server, &datagram, DropReason::NotIp);
    }
    let datagram = sealed(net, 0, compressed);
    drops.drops(net, server, &datagram, DropReason::Compressed);
}

fn from_its_host(drops: &mut Drops, net: &mut Net) {
    let server = net.nodes[0].addr;
    for bytes in NOT_IP.into_iter().chain([&[][..]]) {
        drops.drops(net, None, bytes, DropReason::NotIp);
    }
    drops.drops(net, None, &udp("10.8.0.2", server), DropReason::Recursive);
    drops.drops_tight(net, None, &v4("10.8.0.2", "10.8.0.1", 100));
    // With `block-ipv6`: an error message, which is not answered with another.
    let mut blocked = echo(ip("fd00:6::2"), ip("fd00:6::1"), &[1; 48]);
    blocked[40] = 1;
    drops.drops(net, None, &blocked, DropReason::NoRoute);
}
