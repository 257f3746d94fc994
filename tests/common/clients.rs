//! A server as node 0 of a network, what it knows of its clients from their files, and clients that
//! join it.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::path::Path;

use ipnet::IpNet;
use sixgate::config::{ClientSettings, Config, Role, ccd};
use sixgate::engine::{Command, Reply};
use sixgate::server::Server;

use super::Seeded;
use super::net::Net;
use super::pki::{Memory, Site};

/// Where the server is.
pub const SERVER: &str = "192.0.2.1:1194";

/// A network with a server that has these further lines in its configuration.
pub fn serve(site: &Site, seed: u64, extra: &str) -> Net {
    let mut net = Net::new(seed);
    net.add(SERVER, site.server(net.now, extra, seed));
    net
}

/// A network with a server whose clients have these files; `prepare` is what else it is told first.
pub fn serve_with_files(
    config: Config,
    seed: u64,
    files: &[(&str, &str)],
    prepare: impl FnOnce(&mut Server),
) -> Net {
    let mut net = Net::new(seed);
    let Role::Server(role) = config.role.clone() else { panic!("a server") };
    let mut server = Server::new(config.into(), net.now, Box::new(Seeded(seed))).unwrap();
    let read = |text: &str| -> ClientSettings {
        let memory = Memory([("ccd".to_owned(), text.as_bytes().to_vec())].into());
        ccd::load(Path::new("ccd"), Path::new(""), &memory, &role).unwrap().0
    };
    let files: Vec<(String, ClientSettings)> =
        files.iter().map(|(name, text)| ((*name).to_owned(), read(text))).collect();
    files.iter().for_each(|(name, settings)| server.reserve(name, settings));
    prepare(&mut server);
    net.add(SERVER, Box::new(server));
    net.nodes[0].client_files = files.into_iter().collect();
    net
}

/// Adds a client, which need not come up.
pub fn add(net: &mut Net, site: &Site, name: &str, extra: &str, seed: u64) -> usize {
    let address = format!("198.51.100.{}:40000", net.nodes.len());
    net.add(&address, site.client(net.now, name, extra, seed))
}

/// Adds a client and waits until it is up.
pub fn join(net: &mut Net, site: &Site, name: &str, extra: &str, seed: u64) -> usize {
    let node = add(net, site, name, extra, seed);
    assert!(net.run_until(20_000, |net| net.nodes[node].settings.is_some()), "{name} is not up");
    node
}

/// Has a client say goodbye.
pub fn leave(net: &mut Net, node: usize) {
    net.reply(node, Reply::Shutdown);
    net.run(5_000);
    net.nodes[node].off = true;
}

/// Has a client vanish, and waits until that is noticed.
pub fn vanish(net: &mut Net, node: usize) {
    net.nodes[node].off = true;
    net.run(130_000);
}

/// What the server has asked the shell to show to neighbours, and to route, and not taken back.
pub fn shown(net: &Net) -> (BTreeSet<Ipv6Addr>, BTreeSet<IpNet>) {
    let (mut neighbours, mut routes) = (BTreeSet::new(), BTreeSet::new());
    for command in &net.nodes[0].commands {
        let news = match command {
            Command::Neighbour { address, up: true } => neighbours.insert(*address),
            Command::Neighbour { address, up: false } => neighbours.remove(address),
            Command::Route { net, up: true } => routes.insert(*net),
            Command::Route { net, up: false } => routes.remove(net),
            _ => true,
        };
        assert!(news, "comes or goes twice: {command:?}");
    }
    (neighbours, routes)
}
