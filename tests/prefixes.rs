//! Clients whose addresses follow the prefix of the line: random sequences of prefix changes, connects
//! and disconnects against a slow model, and what one client sees of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use crate::common::Seeded;
use crate::common::clients::{self, SERVER, shown};
use crate::common::net::Net;
use crate::common::packets::echo;
use crate::common::pki::{Site, load};
use ipnet::{IpNet, Ipv6Net};
use sixgate::config::Config;
use sixgate::engine::{Command, LinePrefix, Reply, TunnelSettings};

const STABLE: &str = "fd00:6::/64";
const LINES: &str = "dev tun\nserver 10.8.0.0 255.255.255.0\nserver-ipv6 auto fd00:6::/64\n\
    topology subnet\nkeepalive 10 60\nclient-to-client\n";

fn config(site: &Site, extra: &str) -> Config {
    load(&format!("{LINES}{extra}"), &site.ca.pem, &site.server)
}

/// A server (node 0) whose clients have these files.
fn serve(site: &Site, seed: u64, extra: &str, files: &[(&str, &str)]) -> Net {
    clients::serve_with_files(config(site, extra), seed, files, |_| {})
}

fn join(net: &mut Net, site: &Site, name: &str, seed: u64) -> usize {
    let node = clients::join(net, site, name, "", seed);
    // Its server has heard so, too.
    net.run(1_000);
    node
}

fn settings(net: &Net, node: usize) -> &TunnelSettings {
    net.nodes[node].settings.as_ref().expect("up")
}

fn prefix(number: u16, preferred: u32) -> LinePrefix {
    let own = Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 0, 1);
    LinePrefix { net: Ipv6Net::new(own, 64).unwrap().trunc(), bits: 64, own, preferred }
}

fn within(net: Ipv6Net, host: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits(net.network().to_bits() | u128::from(host))
}

fn host_of(address: Ipv6Addr) -> u64 {
    address.to_bits() as u64
}

fn stable() -> Ipv6Net {
    STABLE.parse().unwrap()
}

/// Who a packet of the host for this address reaches.
fn reached(net: &mut Net, address: Ipv6Addr) -> Vec<usize> {
    let packet = echo("fd00:6::1".parse().unwrap(), IpAddr::V6(address), b"who is there?");
    net.nodes.iter_mut().for_each(|node| node.tun.clear());
    net.inject(0, &packet);
    net.run(50);
    (1..net.nodes.len()).filter(|node| net.nodes[*node].tun.contains(&packet)).collect()
}

/// Whether the server takes a packet with this source from a client.
fn may_send(net: &mut Net, node: usize, source: Ipv6Addr) -> bool {
    let packet = echo(IpAddr::V6(source), "fd00:6::1".parse().unwrap(), b"it is me");
    net.nodes[0].tun.clear();
    net.inject(node, &packet);
    net.run(50);
    net.nodes[0].tun.contains(&packet)
}

// ---- The model ----------------------------------------------------------------------------------

/// What must be true after each step, said in the simplest way.
#[derive(Default)]
struct Model {
    valid: BTreeMap<u16, u32>,
    current: Option<u16>,
    /// Names to nodes.
    connected: BTreeMap<String, usize>,
    /// Each name's host part, from the first time it was seen.
    hosts: BTreeMap<String, u64>,
    /// Every prefix there ever was.
    ever: BTreeSet<u16>,
    /// `ndp-proxy`.
    borrowed: bool,
    /// `route-export`.
    exported: bool,
}

impl Model {
    fn preferred(&self, number: u16) -> u32 {
        self.valid.get(&number).copied().unwrap_or(0)
    }

    /// The one in use stays while it can; else the most durable one comes in its place.
    fn choose(&mut self) {
        if self.current.is_some_and(|current| self.preferred(current) > 0) {
            return;
        }
        let best = self.valid.iter().filter(|(_, preferred)| **preferred > 0);
        let best =
            best.max_by_key(|(number, preferred)| (**preferred, core::cmp::Reverse(**number)));
        self.current = best.map(|(number, _)| *number).or(self.current);
    }

    fn expire(&mut self) {
        if self.current.is_some_and(|current| self.preferred(current) == 0) {
            self.current = None;
        }
    }

    fn told(&self, host: u64) -> Ipv6Addr {
        self.current.map_or(within(stable(), host), |number| within(prefix(number, 0).net, host))
    }

    /// All addresses in prefixes of the line by which clients are reached.
    fn faces(&self) -> BTreeSet<Ipv6Addr> {
        let hosts: Vec<u64> = self.connected.keys().map(|name| self.hosts[name]).collect();
        let nets: Vec<Ipv6Net> = self.valid.keys().map(|number| prefix(*number, 0).net).collect();
        nets.iter().flat_map(|net| hosts.iter().map(|host| within(*net, *host))).collect()
    }
}

fn check(net: &mut Net, model: &mut Model) {
    for (name, node) in &model.connected {
        let own = settings(net, *node).clone();
        let told = own.v6.expect("IPv6").addr();
        let host = *model.hosts.entry(name.clone()).or_insert(host_of(told));
        assert_eq!(told, model.told(host), "{name}");
        let second = own.v6_stable.map(|net| net.addr());
        assert_eq!(second, model.current.map(|_| within(stable(), host)), "{name}");
    }
    let hosts: BTreeSet<u64> = model.connected.keys().map(|name| model.hosts[name]).collect();
    assert_eq!(hosts.len(), model.connected.len(), "two clients share an address");
    let clients = net.nodes[0].engine.clients();
    assert_eq!(clients.len(), model.connected.len());
    let mut all = BTreeSet::new();
    for client in &clients {
        let host = model.hosts[&client.common_name];
        let own: BTreeSet<Ipv6Addr> = client.v6.into_iter().chain(client.also.clone()).collect();
        let nets = model.valid.keys().map(|number| prefix(*number, 0).net).chain([stable()]);
        let expected: BTreeSet<Ipv6Addr> = nets.map(|net| within(net, host)).collect();
        assert_eq!(own, expected, "{}", client.common_name);
        assert_eq!(client.v6, Some(model.told(host)));
        assert!(own.into_iter().all(|address| all.insert(address)), "an address of two clients");
    }
    let (neighbours, routes) = shown(net);
    assert_eq!(neighbours, if model.borrowed { model.faces() } else { BTreeSet::new() });
    let v4 = clients.iter().filter_map(|client| client.v4).map(|v4| IpNet::from(IpAddr::V4(v4)));
    let own = hosts.iter().map(|host| within(stable(), *host)).chain(model.faces());
    let all: BTreeSet<IpNet> = own.map(|v6| IpNet::from(IpAddr::V6(v6))).chain(v4).collect();
    let here: BTreeSet<IpNet> = model.faces().into_iter().map(|v6| IpAddr::V6(v6).into()).collect();
    match (model.exported, model.borrowed) {
        (true, _) => assert_eq!(routes, all),
        (false, true) => assert_eq!(routes, here, "out of the other interface's prefix"),
        (false, false) => assert_eq!(routes, BTreeSet::new()),
    }
    // Every address that any client ever had leads where the model says, and to nobody else.
    for (name, host) in model.hosts.clone() {
        let owner = model.connected.get(&name).copied();
        let nets = model
            .ever
            .iter()
            .map(|number| (prefix(*number, 0).net, model.valid.contains_key(number)));
        for (range, valid) in nets.chain([(stable(), true)]) {
            let address = within(range, host);
            let expected: Vec<usize> = owner.into_iter().filter(|_| valid).collect();
            assert_eq!(reached(net, address), expected, "{name} at {address}");
            for (other, node) in &model.connected {
                assert_eq!(
                    may_send(net, *node, address),
                    valid && *other == name,
                    "{other} as {address}"
                );
            }
        }
    }
}

fn tell(net: &mut Net, model: &mut Model) {
    model.choose();
    let prefixes = model.valid.iter().map(|(number, preferred)| prefix(*number, *preferred));
    net.reply(0, Reply::Prefixes(prefixes.collect()));
}

fn change_prefixes(net: &mut Net, model: &mut Model, random: &mut Seeded) {
    for _ in 0..random.within(1, 4) {
        let number = random.within(1, 6) as u16;
        match random.within(0, 3) {
            0 | 1 if model.valid.len() < 4 => {
                model.ever.insert(number);
                model.valid.insert(number, random.within(1, 9) as u32 * 100);
            }
            2 => _ = model.valid.remove(&number),
            _ => _ = model.valid.get_mut(&number).map(|preferred| *preferred = 0),
        }
        tell(net, model);
        net.run(random.within(0, 2_000));
    }
    net.run(20_000);
    model.expire();
}

#[test]
fn random_changes_leave_no_stale_route_and_never_two_clients_with_one_address() {
    let site = Site::default();
    let files = [("tv", "ifconfig-ipv6-push ::20\n"), ("nas", "ifconfig-ipv6-push fd00:6::30\n")];
    let names = ["laptop", "phone", "tv", "nas", "tablet"];
    for seed in 0..20 {
        let mut random = Seeded(9_000 + seed);
        let (borrowed, exported) = (seed % 2 == 1, seed % 4 < 2);
        let lines = [(borrowed, "ndp-proxy br-lan\n"), (exported, "route-export\n")];
        let lines: String = lines.iter().filter(|(on, _)| *on).map(|(_, line)| *line).collect();
        let mut net = serve(&site, 700 + seed, &lines, &files);
        let mut model = Model { borrowed, exported, ..Model::default() };
        for step in 0..24 {
            let name = names[random.within(0, names.len() as u64 - 1) as usize];
            match (random.within(0, 5), model.connected.get(name).copied()) {
                (0 | 1, None) => {
                    let node = join(&mut net, &site, name, 1_000 * seed + step);
                    model.connected.insert(name.to_owned(), node);
                }
                // It says goodbye.
                (0, Some(node)) => {
                    clients::leave(&mut net, node);
                    model.connected.remove(name);
                }
                // It vanishes, which is noticed after a while.
                (1, Some(node)) => {
                    clients::vanish(&mut net, node);
                    model.connected.remove(name);
                }
                _ => change_prefixes(&mut net, &mut model, &mut random),
            }
            net.run(1_000);
            check(&mut net, &mut model);
        }
        assert_eq!(model.hosts.get("tv").copied().unwrap_or(0x20), 0x20);
        assert_eq!(model.hosts.get("nas").copied().unwrap_or(0x30), 0x30);
        // The end takes everything back.
        net.reply(0, Reply::Shutdown);
        net.run(10_000);
        assert_eq!(shown(&net), Default::default());
    }
}

#[test]
fn an_address_is_the_names_own_at_every_server_with_the_same_keys() {
    let site = Site::default();
    let mut seen = Vec::new();
    for names in [["laptop", "phone"], ["phone", "laptop"]] {
        let mut net = serve(&site, 760, "", &[]);
        let mut found: Vec<_> = names
            .map(|name| {
                let node = join(&mut net, &site, name, 761);
                (name, settings(&net, node).v6)
            })
            .to_vec();
        found.sort_unstable();
        seen.push(found);
    }
    assert_eq!(seen[0], seen[1], "whoever comes first, and after a new start");
}

#[test]
fn a_client_is_told_where_the_stable_prefix_and_dns_are() {
    let site = Site::default();
    let extra = "push \"dhcp-option DNS fd00:6::1\"\npush \"route-ipv6 fd00:7::/64\"\n";
    let mut net = serve(&site, 770, extra, &[]);
    let node = join(&mut net, &site, "laptop", 771);
    let routes = |net: &Net| -> Vec<String> {
        settings(net, node).routes.iter().map(|route| route.destination.to_string()).collect()
    };
    assert_eq!(routes(&net), ["fd00:7::/64"]);
    let before = settings(&net, node).clone();
    net.reply(0, Reply::Prefixes(vec![prefix(1, 100)]));
    net.run(1_000);
    assert_eq!(routes(&net), ["fd00:6::/64", "fd00:7::/64"]);
    let after = settings(&net, node).clone();
    assert_eq!(after.v6_stable, before.v6);
    let far_end: IpAddr = "2001:db8:1::1".parse().unwrap();
    assert_eq!(after.v6_peer.map(IpAddr::V6), Some(far_end), "the server's, in the new prefix");
    assert_eq!((after.v4, after.dns), (before.v4, before.dns.clone()));
    net.reply(0, Reply::Prefixes(Vec::new()));
    net.run(20_000);
    let last = settings(&net, node).clone();
    assert_eq!(
        (routes(&net), last.v6, last.v6_stable),
        (vec!["fd00:7::/64".to_owned()], before.v6, None)
    );
    let arrivals = net.nodes[0].commands.iter().filter(|c| matches!(c, Command::ClientUp(_)));
    assert_eq!(arrivals.count(), 1, "all of that on one connection");
}

#[test]
fn scripts_are_told_of_every_address_that_comes_and_goes() {
    let site = Site::default();
    let mut net = serve(&site, 790, "script-security 2\nlearn-address /learn\n", &[]);
    net.reply(0, Reply::Prefixes(vec![prefix(1, 100)]));
    let node = join(&mut net, &site, "laptop", 791);
    let told = settings(&net, node).v6.unwrap().addr();
    net.reply(0, Reply::Prefixes(vec![prefix(1, 0), prefix(2, 100)]));
    net.run(1_000);
    net.reply(0, Reply::Prefixes(vec![prefix(2, 100)]));
    net.reply(node, Reply::Shutdown);
    net.run(10_000);
    let calls: Vec<Vec<String>> = net.nodes[0]
        .commands
        .iter()
        .filter_map(|command| match command {
            Command::RunHook(request) => Some(request.arguments.clone()),
            _ => None,
        })
        .filter(|arguments| arguments[1].contains(':'))
        .collect();
    let [one, two, own] = [prefix(1, 0).net, prefix(2, 0).net, stable()]
        .map(|net| within(net, host_of(told)).to_string());
    let add = |address: &String| vec!["add".to_owned(), address.clone(), "laptop".to_owned()];
    let delete = |address: &String| vec!["delete".to_owned(), address.clone()];
    let expected = [add(&own), add(&one), add(&two), delete(&one), delete(&two), delete(&own)];
    assert_eq!(calls, expected);
}

#[test]
fn clients_of_prefixes_that_are_given_by_hand_are_left_alone() {
    let site = Site::default();
    let mut net = Net::new(780);
    net.add(SERVER, site.server(net.now, "", 780));
    let node = join(&mut net, &site, "laptop", 781);
    let before = settings(&net, node).clone();
    net.reply(0, Reply::Prefixes(vec![prefix(1, 100)]));
    net.run(30_000);
    assert_eq!(*settings(&net, node), before);
    assert_eq!(shown(&net), Default::default());
}
