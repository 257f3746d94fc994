//! Operations on a server engine with two clients, checked after each against a model of a few
//! lines: who is connected from where, and what a packet that somebody sends may lead to.
//!
//! The clients are bare sessions, so that the input can keep, repeat, damage, delay and redirect
//! whatever they send.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::OnceLock;

use sixgate::config::Config;
use sixgate::engine::Reply;

use super::net::{Net, START};
use super::packets::echo;
use super::pki::{CLIENT, Site, Usage, load};
use super::raw::{Raw, WAITS};

const SERVER: &str = "192.0.2.1:1194";
/// Operations of one input.
const MOST: usize = 60;

/// What never changes from run to run; certificates take long to make.
struct Fixture {
    site: Site,
    clients: [Config; 2],
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let site = Site::default();
        let client = |name, serial| {
            load(CLIENT, &site.ca.pem, &site.ca.issue(name, Usage::Client, 2050, serial))
        };
        let clients = [client("zero", 70), client("one", 71)];
        Fixture { site, clients }
    })
}

/// One client as the model knows it.
struct Known {
    raw: Raw,
    /// Where its last fresh data packet came from, while it is connected.
    home: Option<SocketAddr>,
    /// Datagrams that the input has kept.
    kept: Vec<Vec<u8>>,
    /// Number of the next payload.
    next: u32,
}

struct World {
    net: Net,
    known: [Known; 2],
    /// Payloads that the server may hand to its device, and how often it has.
    payloads: BTreeMap<Vec<u8>, usize>,
    /// Connections so far: no two of them begin with the same randomness, and so the same session id.
    connects: u64,
}

/// Runs one input.
pub fn server(bytes: &[u8]) {
    super::log_less();
    let mut world = World::new();
    for op in bytes.as_chunks::<2>().0.iter().take(MOST) {
        world.act(op[0], op[1]);
        world.check();
    }
    // Whoever asks properly gets in after all of that.
    world.net.run(70_000);
    world.net.forget();
    for which in 0..2 {
        world.connect(which, 200 + which as u8);
        assert!(world.known[which].home.is_some(), "client {which} does not get in any more");
        world.send(which, 0, false);
        world.check();
    }
}

impl World {
    fn new() -> Self {
        let fixture = fixture();
        let mut net = Net::new(START);
        let now = net.now;
        net.add(SERVER, fixture.site.server(now, "", 5));
        let known = [0, 1].map(|which| Known {
            raw: Raw::new(&net, &fixture.clients[which], WAITS),
            home: None,
            kept: Vec::new(),
            next: 0,
        });
        Self { net, known, payloads: BTreeMap::new(), connects: 0 }
    }

    fn address(which: usize, port: u8) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, which as u8 + 1], 5_000 + u16::from(port)))
    }

    fn act(&mut self, what: u8, value: u8) {
        let which = usize::from(what & 1);
        match what >> 1 & 15 {
            0 | 1 => self.connect(which, value),
            2..=4 => self.send(which, 0, value & 1 == 1),
            // From elsewhere: it moves, unless the other one is there.
            5 => self.send(which, 1 + value % 3, false),
            6 => self.replay(which, value, false),
            7 => self.replay(which, value, true),
            8 => self.foreign_source(which, value),
            9 => {
                self.kick(which);
            }
            10 => self.net.run(u64::from(value) * 20),
            11 => self.stranger(what, value),
            12 => self.say(which, value),
            13 => self.renegotiate(which),
            14 => self.downward(which),
            _ => self.other_certificate(which),
        }
        if self.net.trace.len() > 2_000 {
            self.net.forget();
        }
    }

    fn connect(&mut self, which: usize, port: u8) {
        let config = &fixture().clients[which];
        let mut raw = Raw::new(&self.net, config, WAITS);
        raw.addr = Self::address(which, port);
        raw.patient = true;
        self.connects += 1;
        raw.restart(&self.net, self.connects);
        raw.talk(&mut self.net);
        let connected = raw.pushed() > 0;
        if connected {
            self.known[which].home = Some(raw.addr);
            self.known[which].raw = raw;
        }
    }

    fn name(which: usize) -> &'static str {
        ["zero", "one"][which]
    }

    fn peer_id(&self, which: usize) -> Option<u32> {
        let clients = self.net.nodes[0].engine.clients();
        clients.iter().find(|c| c.common_name == Self::name(which)).map(|c| c.peer.0)
    }

    /// A fresh packet, sent or kept for later.
    fn send(&mut self, which: usize, port: u8, keep: bool) {
        let Some(home) = self.known[which].home else { return };
        let v4 = self.own_v4(which);
        let known = &mut self.known[which];
        let number = known.next;
        known.next += 1;
        let payload = echo(
            v4,
            "10.8.0.1".parse().unwrap(),
            &[&[which as u8][..], &number.to_be_bytes()].concat(),
        );
        let Some(datagram) = known.raw.sealed(&self.net, &payload) else { return };
        if keep {
            known.kept.push(datagram);
            self.payloads.insert(payload, 0);
            return;
        }
        let from = if port == 0 { home } else { Self::address(which, 100 + port) };
        known.kept.push(datagram.clone());
        self.payloads.insert(payload.clone(), 0);
        self.net.deliver(0, from, &datagram);
        assert_eq!(self.net.nodes[0].tun.back(), Some(&payload), "a good packet is lost");
        self.known[which].home = Some(from);
    }

    fn own_v4(&self, which: usize) -> std::net::IpAddr {
        let clients = self.net.nodes[0].engine.clients();
        let client = clients.iter().find(|c| c.common_name == Self::name(which));
        client.and_then(|client| client.v4).expect("it is connected").into()
    }

    /// Something that was sent or kept, again, from home or as the other one, perhaps damaged.
    fn replay(&mut self, which: usize, value: u8, damaged: bool) {
        let known = &self.known[which];
        if known.kept.is_empty() {
            return;
        }
        let mut datagram = known.kept[usize::from(value) % known.kept.len()].clone();
        if damaged {
            let at = 4 + usize::from(value) % (datagram.len() - 4);
            datagram[at] ^= 1 | value;
        }
        let from = known.home.unwrap_or_else(|| Self::address(which, 0));
        let before = self.net.nodes[0].tun.len();
        self.net.deliver(0, from, &datagram);
        assert!(!damaged || self.net.nodes[0].tun.len() == before, "a damaged packet is taken");
    }

    /// A genuine packet with an address inside that is somebody else's.
    fn foreign_source(&mut self, which: usize, value: u8) {
        let Some(home) = self.known[which].home else { return };
        let own = self.own_v4(which);
        let foreign = std::net::IpAddr::from([10, 8, 0, value]);
        if foreign == own {
            return;
        }
        let payload = echo(foreign, "10.8.0.1".parse().unwrap(), b"not mine");
        let Some(datagram) = self.known[which].raw.sealed(&self.net, &payload) else { return };
        let before = self.net.nodes[0].tun.len();
        self.net.deliver(0, home, &datagram);
        assert_eq!(self.net.nodes[0].tun.len(), before, "a foreign source is taken");
    }

    fn kick(&mut self, which: usize) {
        self.net.reply(0, Reply::Kick(Self::name(which).into()));
        self.known[which].home = None;
        assert_eq!(self.peer_id(which), None);
    }

    fn stranger(&mut self, first: u8, value: u8) {
        let mut bytes = vec![value; 30 + usize::from(value)];
        bytes[0] = first ^ value;
        self.net.deliver(0, "203.0.113.9:999".parse().unwrap(), &bytes);
    }

    fn say(&mut self, which: usize, value: u8) {
        if self.known[which].home.is_none() {
            return;
        }
        let message = ["PUSH_REQUEST", "EXIT", "INFO,x", "AUTH_FAILED", ""][usize::from(value) % 5];
        let known = &mut self.known[which];
        // Control packets come from where the session was made.
        if known.raw.session.send_message(message).is_ok() {
            known.raw.talk(&mut self.net);
        }
        if self.peer_id(which).is_none() {
            self.known[which].home = None;
        }
    }

    fn renegotiate(&mut self, which: usize) {
        let known = &mut self.known[which];
        if known.home.is_some()
            && known.raw.session.renegotiate(self.net.now, &mut known.raw.rng).is_ok()
        {
            known.raw.talk(&mut self.net);
        }
    }

    /// A packet from the network behind the server goes to the client's home and nowhere else.
    fn downward(&mut self, which: usize) {
        let Some(home) = self.known[which].home else { return };
        let packet = echo("10.8.0.1".parse().unwrap(), self.own_v4(which), b"down");
        let before = self.net.trace.len();
        self.net.inject(0, &packet);
        let sent: Vec<_> = self.net.trace[before..].iter().map(|packet| packet.to).collect();
        assert_eq!(sent, [home]);
    }

    /// Its key is void: it goes, and does not come back.
    fn other_certificate(&mut self, which: usize) {
        let void = vec![200 + which as u8];
        self.net.reply(0, Reply::Revoked(vec![void]));
        assert_eq!(self.peer_id(which).is_some(), self.known[which].home.is_some());
    }

    fn check(&mut self) {
        // Some may have timed out meanwhile; nobody has come that the model does not know.
        let clients = self.net.nodes[0].engine.clients();
        for which in 0..2 {
            let there: Vec<_> =
                clients.iter().filter(|c| c.common_name == Self::name(which)).collect();
            assert!(there.len() <= 1, "{} is there {} times", Self::name(which), there.len());
            match there.first() {
                Some(client) => assert_eq!(Some(client.from.peer), self.known[which].home),
                None => self.known[which].home = None,
            }
        }
        assert_eq!(
            clients.iter().filter(|c| !["zero", "one"].contains(&c.common_name.as_str())).count(),
            0
        );
        let mut addresses: Vec<_> = clients.iter().map(|client| (client.v4, client.v6)).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), clients.len(), "a shared address");
        // Each payload once at most, and nothing that nobody sent.
        while let Some(packet) = self.net.nodes[0].tun.pop_front() {
            let count = self.payloads.get_mut(&packet).expect("a packet that nobody sent");
            *count += 1;
            assert_eq!(*count, 1, "a packet came twice");
        }
        self.net.nodes[0].commands.clear();
    }
}
