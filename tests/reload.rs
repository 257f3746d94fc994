//! A server's configuration is read again while clients are connected: whom that touches, and that
//! nobody else notices.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use crate::common::Seeded;
use crate::common::host::Host;
use crate::common::net::Net;
use crate::common::packets::echo;
use crate::common::pki::{self, Authority, Identity, Memory, SERVER, Site, Usage};
use crate::common::shared::Shared;
use sixgate::config::{ClientSettings, Config, Role, ccd};
use sixgate::engine::{Command, ExitReason, Occasion};
use sixgate::server::Server;
use smoltcp::wire::{IpAddress, Ipv4Address};

const ADDRESS: &str = "192.0.2.1:1194";

/// A server (node 0) and its clients, which are up: node 1 is "one", node 2 is "two", and so on.
struct World {
    net: Net,
    server: Shared,
    site: Site,
    seed: u64,
}

const NAMES: [&str; 3] = ["one", "two", "three"];

impl World {
    fn new(seed: u64, extra: &str, clients: usize) -> Self {
        let site = Site::default();
        let mut net = Net::new(seed);
        let config = Arc::new(site.server_config(extra));
        let server = Server::new(config, net.now, Box::new(Seeded(seed))).unwrap();
        let server = Shared::new(server, |_| ());
        net.add(ADDRESS, Box::new(server.clone()));
        let mut world = Self { net, server, site, seed };
        for name in NAMES.iter().take(clients) {
            world.join(name);
        }
        world
    }

    fn join(&mut self, name: &str) -> usize {
        let number = self.net.nodes.len();
        let client = self.site.client(self.net.now, name, "", self.seed + number as u64);
        let node = self.net.add(&format!("198.51.100.{number}:40000"), client);
        assert!(self.up(node), "{name} does not come up");
        node
    }

    fn up(&mut self, node: usize) -> bool {
        self.net.run_until(60_000, |net| net.nodes[node].settings.is_some())
    }

    fn config(&self, extra: &str) -> Config {
        self.site.server_config(extra)
    }

    fn try_reload(&mut self, config: Config) -> Result<(), String> {
        let result = self.server.server.borrow_mut().reload(self.net.now, Arc::new(config));
        self.net.settle(0);
        result
    }

    /// Reads this configuration, and says which clients have been sent away after a while.
    fn reload(&mut self, extra: &str) -> Vec<String> {
        let config = self.config(extra);
        self.reload_config(config)
    }

    fn reload_config(&mut self, config: Config) -> Vec<String> {
        let before = self.connections();
        self.try_reload(config).unwrap();
        self.net.run(20_000);
        let after = self.connections();
        before.into_iter().filter(|one| !after.contains(one)).map(|(name, _)| name).collect()
    }

    /// Names and numbers of the clients that are in; a client that comes back has another number.
    fn connections(&self) -> Vec<(String, u64)> {
        let clients = self.net.nodes[0].engine.clients();
        clients.into_iter().map(|client| (client.common_name, client.id)).collect()
    }

    fn file(&mut self, name: &str, text: &str) {
        let config = self.config("");
        let Role::Server(role) = &config.role else { panic!("a server") };
        let memory = Memory([("ccd".to_owned(), text.as_bytes().to_vec())].into());
        let (settings, _) = ccd::load(Path::new("ccd"), Path::new(""), &memory, role).unwrap();
        self.net.nodes[0].client_files.insert(name.to_owned(), settings);
    }

    fn v4(&self, node: usize) -> String {
        self.net.nodes[node].settings.as_ref().unwrap().v4.unwrap().addr().to_string()
    }

    fn ping(&mut self, node: usize) {
        let own: IpAddr = self.v4(node).parse().unwrap();
        let packet = echo("10.8.0.1".parse().unwrap(), own, b"there?");
        self.net.nodes[node].tun.clear();
        self.net.inject(0, &packet);
        assert!(self.net.run_until(2_000, |net| net.nodes[node].tun.contains(&packet)));
    }
}

#[test]
fn nothing_changed_and_nobody_notices() {
    let mut world = World::new(900, "", 2);
    world.net.run(1_000);
    let before = world.net.trace.len();
    world.try_reload(world.config("")).unwrap();
    world.net.run(900);
    assert_eq!(world.net.trace.len(), before, "not one packet");
    let reviews = world.net.nodes[0].commands.iter().filter(|command| {
        matches!(command, Command::Admit(request) if request.occasion == Occasion::Review)
    });
    assert_eq!(reviews.count(), 2);
    world.ping(1);
    world.ping(2);
}

#[test]
fn a_file_touches_its_client_and_the_others_transfer_goes_on() {
    let mut world = World::new(910, "", 2);
    let own = world.net.nodes[1].settings.clone().unwrap();
    let server = Host::new("10.8.0.1/24".parse().ok(), "fd00:6::1/64".parse().ok(), 1500, 1);
    world.net.nodes[0].host = Some(server);
    world.net.nodes[1].host = Some(Host::new(own.v4, own.v6, own.mtu.into(), 2));
    let mut bytes = vec![0; 3_000_000];
    sixgate::random::Random::fill(&mut Seeded(9), &mut bytes);
    world.net.nodes[0].host.as_mut().unwrap().listen(5001);
    let to = (IpAddress::Ipv4(Ipv4Address::new(10, 8, 0, 1)), 5001);
    world.net.nodes[1].host.as_mut().unwrap().connect_and_send(to, 40_001, bytes.clone());
    let received = |net: &Net| net.nodes[0].host.as_ref().unwrap().received.len();
    assert!(world.net.run_until(60_000, |net| received(net) > 500_000));
    assert!(received(&world.net) < 2_000_000, "the transfer is under way");

    world.file("two", "push \"route 10.77.0.0 255.255.0.0\"\n");
    let before = world.connections();
    world.try_reload(world.config("")).unwrap();
    assert!(world.net.run_until(60_000, |net| received(net) == bytes.len()), "TCP goes on");
    assert!(world.net.nodes[0].host.as_ref().unwrap().received == bytes);
    assert!(world.net.run_until(30_000, |net| {
        let settings = net.nodes[2].settings.as_ref();
        settings.is_some_and(|s| {
            s.routes.iter().any(|route| route.destination.to_string() == "10.77.0.0/16")
        })
    }));
    let after = world.connections();
    let same: Vec<&str> =
        after.iter().filter(|c| before.contains(c)).map(|(name, _)| name.as_str()).collect();
    assert_eq!((same, after.len()), (vec!["one", "two"], 2), "told without a new connection");
}

#[test]
fn what_all_are_pushed_is_told_to_all() {
    let mut world = World::new(920, "", 2);
    let routes = |world: &World| world.net.nodes[1].settings.as_ref().unwrap().routes.len();
    for (lines, count) in [
        ("push \"route 10.66.0.0 255.255.0.0\"\npush \"route-ipv6 fd66::/48\"\n", 2),
        ("", 0),
        ("push \"route 10.66.0.0 255.255.0.0\"\n", 1),
    ] {
        assert_eq!(world.reload(lines), Vec::<String>::new(), "without a new connection");
        assert_eq!(routes(&world), count);
    }
    // What is no list takes a new connection.
    let other = "push \"route 10.66.0.0 255.255.0.0\"\npush \"echo hello\"\n";
    assert_eq!(world.reload(other), ["one", "two"]);
    assert!(world.up(1) && world.up(2));
    assert_eq!(routes(&world), 1);
    // A cipher that only one of two ends may use is negotiated anew.
    assert_eq!(
        world.reload("push \"route 10.66.0.0 255.255.0.0\"\ndata-ciphers CHACHA20-POLY1305\n"),
        ["one", "two"]
    );
}

#[test]
fn a_delegated_prefix_is_no_difference() {
    let lines = "delegate-ipv6 fd00:d::/48 60 /f\n";
    let mut world = World::new(925, lines, 0);
    world.file("one", "iroute 192.168.50.0 255.255.255.0\n");
    let node = world.join("one");
    let before = world.net.nodes[node].settings.as_ref().unwrap().delegated;
    assert!(before.is_some());
    assert_eq!(world.reload(&format!("{lines}verb 4\n")), Vec::<String>::new());
    // A prefix of its own in its file takes the place of the other one.
    world.file("one", "iroute-ipv6 fd00:77::/64\n");
    assert_eq!(world.reload(lines), ["one"]);
    assert!(world.up(node));
    assert_eq!(world.net.nodes[node].settings.as_ref().unwrap().delegated, None);
}

#[test]
fn what_clients_are_not_told_touches_nobody() {
    let mut world = World::new(930, "", 2);
    let secret = pki::static_key();
    let changes = format!(
        "max-clients 3\nreneg-sec 30\nhand-window 20\nmssfix 1300\nclient-to-client\nverb 4\n\
         route 10.99.0.0 255.255.0.0\nsession-timeout 7200\nexplicit-exit-notify 1\n\
         <tls-crypt>\n{secret}</tls-crypt>\n"
    );
    assert_eq!(world.reload(&changes), Vec::<String>::new());
    world.ping(1);
    // Each of them holds: strangers need the key now, and clients reach each other.
    let (one, two) = (world.v4(1).parse().unwrap(), world.v4(2).parse().unwrap());
    let packet = echo(one, two, b"neighbour");
    world.net.inject(1, &packet);
    assert!(world.net.run_until(2_000, |net| net.nodes[2].tun.contains(&packet)));
    let client = world.site.client(world.net.now, "three", "", 940);
    let node = world.net.add("198.51.100.9:40000", client);
    world.net.run(20_000);
    assert!(world.net.nodes[node].settings.is_none(), "no key, no way in");
    world.net.nodes[node].off = true;
    let keyed = format!("<tls-crypt>\n{secret}</tls-crypt>\n");
    let client = world.site.client(world.net.now, "three", &keyed, 941);
    let node = world.net.add("198.51.100.10:40000", client);
    assert!(world.up(node));
    // The two that were in before are still the same, and over when their session is.
    assert_eq!(world.connections().iter().filter(|(_, id)| *id < 2).count(), 2);
    let ended = world.net.run_until(7_300_000, |net| {
        net.nodes[0].engine.clients().iter().all(|client| client.id >= 2)
    });
    assert!(ended, "session-timeout holds for those who were in before");
}

#[test]
fn disabled_revoked_and_unlisted_clients_go_and_are_told_why() {
    for (seed, word) in [(950_u64, "disabled"), (960, "revoked"), (970, "not on the list")] {
        let mut world = World::new(seed, "", 2);
        let mut config = world.config("");
        match word {
            "disabled" => world.file("two", "disable\n"),
            "revoked" => config.tls.revoked = vec![vec![2 + (seed as u8 + 2) % 200]],
            _ => {
                world.net.nodes[0].admit = |request| match request.common_name.as_str() {
                    "two" => Err("not on the list".to_owned()),
                    _ => Ok(()),
                }
            }
        }
        if word == "revoked" {
            config.tls.revoked = vec![vec![2 + ((seed + 2) % 200) as u8]];
        }
        assert_eq!(world.reload_config(config), ["two"], "{word}");
        let Some(ExitReason::Fatal(text)) = &world.net.nodes[2].ended else { panic!("{word}") };
        assert!(text.contains(word), "{text}");
        world.ping(1);
    }
}

#[test]
fn addresses_that_stay_good_are_kept() {
    let mut world = World::new(980, "", 3);
    assert_eq!([1, 2, 3].map(|node| world.v4(node)), ["10.8.0.2", "10.8.0.3", "10.8.0.4"]);
    // One gets by its file what it has anyway, the other something else.
    world.file("one", "ifconfig-push 10.8.0.2 255.255.255.0\n");
    world.file("two", "ifconfig-push 10.8.0.99 255.255.255.0\n");
    assert_eq!(world.reload(""), ["two"]);
    assert!(world.up(2));
    assert_eq!(world.v4(2), "10.8.0.99");
    // A smaller pool without the address of the third.
    let smaller = "ifconfig-pool 10.8.0.5 10.8.0.20\n";
    let server = SERVER.replace(
        "server 10.8.0.0 255.255.255.0",
        "mode server\ntls-server\nifconfig 10.8.0.1 255.255.255.0",
    );
    let config = |world: &World| {
        pki::load(&format!("{server}{smaller}"), &world.site.ca.pem, &world.site.server)
    };
    let gone = world.reload_config(config(&world));
    assert_eq!(gone, ["three"]);
    assert!(world.up(3));
    assert_eq!(world.v4(3), "10.8.0.5");
    for node in [1, 2, 3] {
        world.ping(node);
    }
    // And the server moves to where the third client is.
    let server = server.replace("ifconfig 10.8.0.1 ", "ifconfig 10.8.0.5 ");
    let moved = pki::load(&format!("{server}{smaller}"), &world.site.ca.pem, &world.site.server);
    assert!(world.reload_config(moved).contains(&"three".to_owned()));
    assert!(world.up(3));
    assert_eq!(world.v4(3), "10.8.0.6");
}

#[test]
fn another_authority_is_asked_about_everybody() {
    let mut world = World::new(1000, "", 1);
    world.net.run(1_000);
    let other = Authority::new("Other CA");
    let both = format!("{}{}", world.site.ca.pem, other.pem);
    let load = |ca: &str, identity: &Identity| pki::load(SERVER, ca, identity);
    let identity = world.site.server.clone();
    assert_eq!(world.reload_config(load(&both, &identity)), Vec::<String>::new());
    let hellos = |net: &Net| net.trace.iter().filter(|p| p.bytes[0] >> 3 == 3).count();
    assert!(hellos(&world.net) > 0, "it had to prove itself again");
    world.ping(1);
    // Now only certificates of the other authority are good, and the client has none.
    let gone =
        world.reload_config(load(&other.pem, &other.issue("server", Usage::Server, 2050, 1)));
    assert_eq!(gone, ["one"]);
}

#[test]
fn fingerprints_are_asked_about_everybody() {
    let mut world = World::new(1005, "", 1);
    world.net.run(1_000);
    let mut config = world.config("");
    config.tls.fingerprints = vec![[7; 32]];
    assert_eq!(world.reload_config(config), ["one"]);
}

#[test]
fn what_cannot_be_used_changes_nothing() {
    let mut world = World::new(1010, "push \"route 10.66.0.0 255.255.0.0\"\n", 1);
    let mut config = world.config("");
    config.tls.key = zeroize_of(&world.site.ca.issue("x", Usage::Server, 2050, 9).key);
    let error = world.try_reload(config).unwrap_err();
    assert!(error.contains("key"), "{error}");
    world.net.run(10_000);
    assert_eq!(world.connections().len(), 1);
    let node = world.join("late");
    assert_eq!(world.net.nodes[node].settings.as_ref().unwrap().routes.len(), 1, "still pushed");
}

fn zeroize_of(text: &str) -> zeroize::Zeroizing<Vec<u8>> {
    zeroize::Zeroizing::new(text.as_bytes().to_vec())
}

#[test]
fn who_is_half_in_starts_again_with_the_new_settings() {
    let mut world = World::new(1020, "client-connect /c\nscript-security 2\n", 0);
    world.net.nodes[0].hook = |_| None;
    let client = world.site.client(world.net.now, "slow", "", 1021);
    let node = world.net.add("198.51.100.7:40000", client);
    world.net.run(5_000);
    assert!(world.net.nodes[node].settings.is_none());
    world.reload("push \"route 10.66.0.0 255.255.0.0\"\n");
    assert!(world.up(node));
    assert_eq!(world.net.nodes[node].settings.as_ref().unwrap().routes.len(), 1);
    // A script that is new has not seen those who are in.
    world.net.nodes[0].hook =
        |_| Some(sixgate::engine::HookOutcome::Success { settings: String::new() });
    let with = "push \"route 10.66.0.0 255.255.0.0\"\nclient-connect /c\nscript-security 2\n";
    assert_eq!(world.reload(with), ["slow"]);
}

#[test]
fn what_a_script_said_still_counts() {
    let mut world = World::new(1030, "client-connect /c\nscript-security 2\n", 0);
    world.net.nodes[0].hook = |_| {
        let settings = "push \"route 10.55.0.0 255.255.0.0\"\n".to_owned();
        Some(sixgate::engine::HookOutcome::Success { settings })
    };
    let node = world.join("one");
    assert_eq!(world.net.nodes[node].settings.as_ref().unwrap().routes.len(), 1);
    let same = "client-connect /c\nscript-security 2\nverb 4\n";
    assert_eq!(world.reload(same), Vec::<String>::new());
    let settings = ClientSettings { disabled: true, ..ClientSettings::default() };
    world.net.nodes[0].client_files.insert("one".to_owned(), settings);
    assert_eq!(world.reload(same), ["one"]);
}
