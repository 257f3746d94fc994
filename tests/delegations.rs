//! Prefixes for whole networks: who gets one, that it leads there, and that it stays the same.

mod common;

use std::net::IpAddr;

use common::clients;
use common::net::Net;
use common::packets::echo;
use common::pki::Site;
use ipnet::Ipv6Net;
use sixgate::engine::{Command, Reply};

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
