//! Prefixes for whole networks: who gets one, that it leads there, and that it stays the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use crate::common::Seeded;
use crate::common::clients;
use crate::common::net::Net;
use crate::common::packets::echo;
use crate::common::pki::{Site, load};
use ipnet::{IpNet, Ipv6Net};
use sixgate::engine::{Command, LinePrefix, Reply};

const LINES: &str = "delegate-ipv6 fd00:d::/48 60 /f\n";
const WANTS: &str = "delegate-ipv6-dev br-lan\n";

/// A server (node 0) whose clients have these files, and which remembers `delegated`.
fn serve(site: &Site, seed: u64, files: &[(&str, &str)], delegated: &str) -> Net {
    clients::serve_with_files(site.server_config(LINES), seed, files, |server| {
        assert_eq!(server.restore_delegations(delegated.as_bytes()), [0; 0]);
    })
}

fn join(net: &mut Net, site: &Site, name: &str, extra: &str, seed: u64) -> usize {
    let node = clients::join(net, site, name, extra, seed);
    net.run(1_000);
    node
}

fn delegated(net: &Net, node: usize) -> Option<Ipv6Net> {
    net.nodes[node].settings.as_ref().expect("up").delegated
}

/// The text of the file at the moment.
fn saved(net: &Net) -> String {
    let text = net.nodes[0].commands.iter().rev().find_map(|command| match command {
        Command::SaveDelegations(text) => Some(text.clone()),
        _ => None,
    });
    text.unwrap_or_default()
}

fn crosses(net: &mut Net, from: usize, to: usize, packet: &[u8]) -> bool {
    net.nodes[to].tun.clear();
    net.inject(from, packet);
    net.run_until(500, |net| net.nodes[to].tun.contains(&packet.to_vec()))
}

#[test]
fn who_has_a_network_behind_it_gets_a_prefix_that_leads_there() {
    let site = Site::default();
    let files = [
        ("office", "iroute 192.168.50.0 255.255.255.0\nroute 192.168.50.0 255.255.255.0\n"),
        ("lab", "iroute-ipv6 fd00:d:0:10::/60\n"),
    ];
    let mut net = serve(&site, 820, &files, "");
    let phone = join(&mut net, &site, "phone", "", 821);
    let office = join(&mut net, &site, "office", "", 822);
    let router = join(&mut net, &site, "router", WANTS, 823);
    let lab = join(&mut net, &site, "lab", WANTS, 824);
    assert_eq!(
        (delegated(&net, phone), delegated(&net, lab)),
        (None, None),
        "no network, or its file's"
    );
    let own = [delegated(&net, office).unwrap(), delegated(&net, router).unwrap()];
    assert!(own[0] != own[1] && own.iter().all(|net| net.prefix_len() == 60));
    let server: IpAddr = "fd00:6::1".parse().unwrap();
    for (node, prefix) in [(office, own[0]), (router, own[1])] {
        let host = IpAddr::V6((prefix.network().to_bits() | 0x77).into());
        assert!(crosses(&mut net, 0, node, &echo(server, host, b"hello")));
        assert!(crosses(&mut net, node, 0, &echo(host, server, b"hello")));
        assert!(!crosses(&mut net, phone, 0, &echo(host, server, b"not mine")));
        // What it does not know in its own network is answered, not sent back.
        let astray = echo(host, IpAddr::V6((prefix.network().to_bits() | 0x78).into()), b"lost");
        assert!(!crosses(&mut net, node, 0, &astray));
        assert_eq!(net.nodes[node].tun.back().map(|packet| packet[40]), Some(1), "unreachable");
    }
    let routes = |node: usize| {
        let settings = net.nodes[node].settings.as_ref().unwrap();
        settings.routes.iter().any(|route| route.destination.to_string() == "fd00:d::/48")
    };
    assert!(routes(phone) && routes(office), "everybody knows the way to all of them");
    assert_eq!(saved(&net).lines().count(), 2);
}

#[test]
fn it_is_the_same_at_every_connect_and_after_a_new_start() {
    let site = Site::default();
    let mut net = serve(&site, 830, &[], "router,fd00:d:0:a0::/60\n");
    let first = join(&mut net, &site, "router", WANTS, 831);
    assert_eq!(delegated(&net, first), "fd00:d:0:a0::/60".parse().ok());
    assert_eq!(saved(&net), "", "nothing new");
    let other = join(&mut net, &site, "other", WANTS, 832);
    let before = delegated(&net, other);
    net.reply(other, Reply::Shutdown);
    net.run(10_000);
    let again = join(&mut net, &site, "other", WANTS, 833);
    assert_eq!(delegated(&net, again), before);
    let file = saved(&net);
    // A file that names it now has the last word.
    let files = [("lab", "iroute-ipv6 fd00:d:0:a0::/60\n")];
    let mut net = serve(&site, 840, &files, &file);
    let other = join(&mut net, &site, "other", WANTS, 841);
    assert_eq!(delegated(&net, other), before);
    let router = join(&mut net, &site, "router", WANTS, 842);
    assert!(delegated(&net, router).is_some_and(|net| net.to_string() != "fd00:d:0:a0::/60"));
}

// ---- The line's prefix is cut up ---------------------------------------------------------------------

const FOLLOWING: &str = "dev tun\nserver 10.8.0.0 255.255.255.0\nserver-ipv6 auto fd00:6::/64\n\
    topology subnet\nkeepalive 10 60\nclient-to-client\ndelegate-ipv6 auto 60 /f\n";

fn follow(site: &Site, seed: u64, extra: &str, files: &[(&str, &str)]) -> Net {
    let config = load(&format!("{FOLLOWING}{extra}"), &site.ca.pem, &site.server);
    clients::serve_with_files(config, seed, files, |_| {})
}

/// Some are a /64 and no more, some have room for three networks of clients, or for fifteen.
fn bits(number: u16) -> u8 {
    [64, 58, 56][usize::from(number % 3)]
}

fn prefix(number: u16, preferred: u32) -> LinePrefix {
    let own = Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 0, 1);
    let net = Ipv6Net::new(own, 64).unwrap().trunc();
    LinePrefix { net, bits: bits(number), own, preferred }
}

/// A network by its number in a prefix of the line, if there is room for it.
fn part(number: u16, of: u128) -> Option<Ipv6Net> {
    let bits = prefix(number, 0).net.network().to_bits() | of << 68;
    let count = 1 << 60_u8.saturating_sub(self::bits(number));
    // The first part is the server's own.
    (of > 0 && of < count).then(|| Ipv6Net::new(bits.into(), 60).unwrap())
}

/// Which part of its prefix this is.
fn number_of(net: Ipv6Net) -> u128 {
    net.network().to_bits() >> 68 & 0xfff
}

/// The kernel's routes as the shell was told them.
fn kernel(net: &Net) -> BTreeSet<IpNet> {
    clients::shown(net).1
}

fn arrivals(net: &Net) -> usize {
    net.nodes[0].commands.iter().filter(|c| matches!(c, Command::ClientUp(_))).count()
}

#[test]
fn a_network_follows_the_line_on_one_connection() {
    let site = Site::default();
    let mut net = follow(&site, 850, "", &[]);
    let router = join(&mut net, &site, "router", WANTS, 851);
    let private = delegated(&net, router).unwrap();
    assert!(private.to_string().starts_with("fd") && kernel(&net).is_empty());
    let server: IpAddr = "fd00:6::1".parse().unwrap();
    for (current, old) in [(1, None), (2, Some(1)), (4, Some(2))] {
        let mut all = vec![prefix(current, 100)];
        all.extend(old.map(|old| prefix(old, 0)));
        net.reply(0, Reply::Prefixes(all));
        net.run(1_000);
        let now = delegated(&net, router);
        assert_eq!(now, part(current, 1));
        let both: BTreeSet<IpNet> =
            [now, old.and_then(|old| part(old, 1))].into_iter().flatten().map(IpNet::V6).collect();
        assert_eq!(kernel(&net), both);
        for lan in both.iter().chain([&IpNet::V6(private)]) {
            let IpNet::V6(lan) = lan else { panic!("{lan}") };
            let host = IpAddr::V6((lan.network().to_bits() | 0x77).into());
            assert!(crosses(&mut net, 0, router, &echo(server, host, b"hello")), "{host}");
            assert!(crosses(&mut net, router, 0, &echo(host, server, b"hello")), "{host}");
        }
        let way = Ipv6Net::new(prefix(current, 0).net.network(), bits(current)).unwrap();
        let settings = net.nodes[router].settings.as_ref().unwrap();
        assert!(settings.routes.iter().any(|route| route.destination == IpNet::V6(way)), "{way}");
    }
    assert_eq!(arrivals(&net), 1);
    // Nothing but a /64, and nothing at all.
    for prefixes in [vec![prefix(3, 100)], Vec::new()] {
        net.reply(0, Reply::Prefixes(prefixes));
        net.run(20_000);
        assert_eq!((delegated(&net, router), kernel(&net).len()), (Some(private), 0));
    }
    net.reply(0, Reply::Prefixes(vec![prefix(1, 100)]));
    net.run(20_000);
    net.reply(router, Reply::Shutdown);
    net.run(10_000);
    assert!(kernel(&net).is_empty(), "gone with its client");
}

#[test]
fn other_clients_connect_again_for_another_network() {
    let site = Site::default();
    let files = [("office", "iroute 192.168.50.0 255.255.255.0\n")];
    let mut net = follow(&site, 860, "", &files);
    net.reply(0, Reply::Prefixes(vec![prefix(1, 100)]));
    let office = join(&mut net, &site, "office", "", 861);
    let phone = join(&mut net, &site, "phone", "", 862);
    assert_eq!((delegated(&net, office), delegated(&net, phone)), (part(1, 1), None));
    net.reply(0, Reply::Prefixes(vec![prefix(2, 100), prefix(1, 0)]));
    net.run(20_000);
    assert_eq!(delegated(&net, office), part(2, 1));
    assert_eq!(arrivals(&net), 3, "nobody else");
}

/// What is true of all clients' networks at once, said in the simplest way.
struct Model {
    valid: BTreeMap<u16, u32>,
    current: Option<u16>,
    connected: BTreeMap<String, usize>,
    ever: BTreeSet<u16>,
    exported: bool,
}

impl Model {
    /// Takes another one when the one in use is deprecated; says whether it did.
    fn choose(&mut self) -> bool {
        let good = |number: &u16| self.valid.get(number).is_some_and(|preferred| *preferred > 0);
        if self.current.as_ref().is_some_and(good) {
            return false;
        }
        let best = self.valid.iter().filter(|(number, _)| good(number));
        let best = best.max_by_key(|(number, left)| (**left, core::cmp::Reverse(**number)));
        let before = self.current;
        self.current = best.map(|(number, _)| *number);
        self.current != before
    }
}

fn check(net: &mut Net, model: &Model, settled: bool) {
    let mut numbers = BTreeMap::new();
    let mut routes = BTreeSet::new();
    for (name, node) in &model.connected {
        let told = delegated(net, *node).unwrap();
        let number = number_of(told);
        assert!(numbers.insert(number, *node).is_none(), "two clients share a network: {told}");
        assert_ne!(number, 0, "the server's own part");
        let global = model.current.and_then(|current| part(current, number));
        match global {
            Some(global) => assert_eq!(told, global, "{name}"),
            None => assert!(told.to_string().starts_with("fd"), "{name}: {told}"),
        }
        let faces: Vec<_> = model.valid.keys().filter_map(|of| part(*of, number)).collect();
        routes.extend(faces.iter().copied().map(IpNet::V6));
        let client = net.nodes[0].engine.clients();
        let client = client.into_iter().find(|client| client.common_name == *name).unwrap();
        let shown: BTreeSet<IpNet> = client.networks.iter().copied().collect();
        assert!(faces.iter().all(|face| shown.contains(&IpNet::V6(*face))), "{shown:?}");
        if model.exported {
            routes.extend(shown);
            let own = client.v6.into_iter().chain(client.also).map(IpAddr::V6);
            routes.extend(own.chain(client.v4.map(IpAddr::V4)).map(IpNet::from));
        }
    }
    assert_eq!(kernel(net), routes);
    // While there is room for one more, nobody goes without.
    if let Some(current) = model.current.filter(|_| settled) {
        let room: Vec<u128> = (1..16).filter(|number| part(current, *number).is_some()).collect();
        let with = numbers.keys().filter(|number| room.contains(number)).count();
        assert_eq!(with, room.len().min(numbers.len()), "{numbers:?} in {current}");
    }
    let server: IpAddr = "fd00:6::1".parse().unwrap();
    for (of, number) in model.ever.iter().flat_map(|of| (1..16).map(move |number| (of, number))) {
        let Some(lan) = part(*of, number) else { continue };
        let host = IpAddr::V6((lan.network().to_bits() | 0x77).into());
        let packet = echo(server, host, b"who is there?");
        net.nodes.iter_mut().for_each(|node| node.tun.clear());
        net.inject(0, &packet);
        net.run(50);
        let reached: Vec<usize> =
            (1..net.nodes.len()).filter(|node| net.nodes[*node].tun.contains(&packet)).collect();
        let owner = numbers.get(&number).filter(|_| model.valid.contains_key(of));
        assert_eq!(reached, owner.copied().into_iter().collect::<Vec<_>>(), "{lan}");
    }
}

#[test]
fn random_changes_leave_no_stale_network_and_never_two_clients_with_one() {
    let site = Site::default();
    let names = ["a", "b", "c", "d", "e"];
    for seed in 0..12 {
        let mut random = Seeded(19_000 + seed);
        let exported = seed % 2 == 1;
        let mut net = follow(&site, 870 + seed, if exported { "route-export\n" } else { "" }, &[]);
        let mut model = Model {
            valid: BTreeMap::new(),
            current: None,
            connected: BTreeMap::new(),
            ever: BTreeSet::new(),
            exported,
        };
        for step in 0..24 {
            let name = names[random.within(0, names.len() as u64 - 1) as usize];
            let mut settled = false;
            match (random.within(0, 4), model.connected.get(name).copied()) {
                (0..=2, None) => {
                    let node = join(&mut net, &site, name, WANTS, 1_000 * seed + step);
                    model.connected.insert(name.to_owned(), node);
                }
                (0, Some(node)) => {
                    clients::leave(&mut net, node);
                    model.connected.remove(name);
                }
                (1, Some(node)) => {
                    clients::vanish(&mut net, node);
                    model.connected.remove(name);
                }
                _ => {
                    let number = random.within(1, 6) as u16;
                    match random.within(0, 3) {
                        0 | 1 if model.valid.len() < 4 => {
                            model.ever.insert(number);
                            model.valid.insert(number, random.within(1, 9) as u32 * 100);
                        }
                        2 => _ = model.valid.remove(&number),
                        _ => _ = model.valid.get_mut(&number).map(|preferred| *preferred = 0),
                    }
                    settled = model.choose();
                    let all = model.valid.iter().map(|(number, left)| prefix(*number, *left));
                    net.reply(0, Reply::Prefixes(all.collect()));
                    net.run(40_000);
                }
            }
            net.run(1_000);
            check(&mut net, &model, settled);
        }
        net.reply(0, Reply::Shutdown);
        net.run(10_000);
        assert!(kernel(&net).is_empty());
    }
}
