//! What a server owes to its clients and to itself: who gets in, who has to make room, what happens
//! to packets for nobody, and how much strangers can take from it.

use std::net::IpAddr;

use crate::common;
use crate::common::Seeded;
use crate::common::clients::{SERVER, join, serve};
use crate::common::net::{Link, Net};
use crate::common::packets::echo;
use crate::common::pki::{Authority, CLIENT as CLIENT_CONFIG, Site, Usage, load};
use sixgate::client::Client;
use sixgate::engine::{Command, DropReason, ExitReason, Reply};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn drops(net: &Net, reason: DropReason) -> u64 {
    net.nodes[0].engine.drops().of(reason)
}

fn count(net: &Net) -> usize {
    net.nodes[0].engine.clients().len()
}

#[test]
fn certificates_that_are_no_good_get_nobody_in() {
    let site = Site::default();
    let other = Authority::new("Another CA");
    for (what, identity) in [
        ("expired", site.ca.issue("old", Usage::Client, 2021, 50)),
        ("a server's", site.ca.issue("wrong", Usage::Server, 2050, 51)),
        ("of another CA", other.issue("foreign", Usage::Client, 2050, 52)),
    ] {
        let mut net = serve(&site, 200, "");
        let config = load(CLIENT_CONFIG, &site.ca.pem, &identity);
        let client = Client::new(config.into(), net.now, Box::new(Seeded(201))).unwrap();
        let node = net.add("198.51.100.1:40000", Box::new(client));
        net.run(10_000);
        assert!(net.nodes[node].settings.is_none() && count(&net) == 0, "{what}");
        let asked = |command: &Command| matches!(command, Command::Admit(_));
        assert!(!net.nodes[0].commands.iter().any(asked), "{what}: nobody needs to be asked");
        net.nodes[node].off = true;
        net.run(90_000);
        assert_eq!(net.nodes[0].engine.poll_timeout(), None, "{what}: something stayed behind");
    }
}

#[test]
fn a_newer_connection_replaces_the_older_of_the_same_name() {
    let site = Site::default();
    for (extra, stay) in [("", 1), ("duplicate-cn\n", 2)] {
        let mut net = serve(&site, 210, extra);
        let first = join(&mut net, &site, "twin", "", 211);
        let addresses = net.nodes[first].settings.clone().unwrap();
        net.nodes[first].off = true;
        let second = join(&mut net, &site, "twin", "", 212);
        assert_eq!(count(&net), stay, "{extra:?}");
        let same = net.nodes[second].settings.clone().unwrap().v6 == addresses.v6;
        assert_eq!(same, stay == 1, "a replaced connection leaves its addresses to the new one");
    }
}

#[test]
fn a_client_that_starts_again_from_its_port_replaces_only_itself() {
    let site = Site::default();
    for extra in ["", "duplicate-cn\n"] {
        let mut net = serve(&site, 220, extra);
        let node = join(&mut net, &site, "laptop", "", 221);
        let before = net.nodes[node].settings.take().unwrap();
        let asked = net.nodes[0].commands.len();
        // Somebody without a good certificate uses its address: the tunnel stays.
        let bad = site.ca.issue("laptop", Usage::Server, 2050, 60);
        let config = load(CLIENT_CONFIG, &site.ca.pem, &bad);
        let client = Client::new(config.into(), net.now, Box::new(Seeded(222))).unwrap();
        net.nodes[node].engine = Box::new(client);
        net.run(5_000);
        assert_eq!((count(&net), net.nodes[0].commands.len()), (1, asked));
        // The client itself does.
        net.nodes[node].engine = site.client(net.now, "laptop", "", 223);
        assert!(net.run_until(20_000, |net| net.nodes[node].settings.is_some()));
        assert_eq!(count(&net), 1, "{extra:?}");
        assert_eq!(net.nodes[node].settings.as_ref().unwrap().v6, before.v6);
    }
}

#[test]
fn a_full_server_sends_clients_away_until_there_is_room() {
    let site = Site::default();
    let mut net = serve(&site, 230, "max-clients 1\nexplicit-exit-notify 1\n");
    let first = join(&mut net, &site, "first", "", 231);
    let now = net.now;
    let second = net.add("198.51.100.99:40000", site.client(now, "second", "", 232));
    net.run(20_000);
    assert!(net.nodes[second].settings.is_none() && net.nodes[second].ended.is_none());
    assert!(drops(&net, DropReason::TooManyClients) > 0);
    net.reply(first, Reply::Shutdown);
    assert!(net.run_until(120_000, |net| net.nodes[second].settings.is_some()));
}

#[test]
fn a_full_pool_costs_only_its_own_family() {
    let site = Site::default();
    let mut net = Net::new(240);
    let text = "dev tun\nserver 10.8.0.0 255.255.255.248\nserver-ipv6 fd00:6::/64\n\
        topology subnet\nkeepalive 10 60\n";
    let config = common::pki::load(text, &site.ca.pem, &site.server);
    let rng = Box::new(Seeded(240));
    let server = sixgate::server::Server::new(config.into(), net.now, rng).unwrap();
    net.add(SERVER, Box::new(server));
    for n in 1..=6 {
        let node = join(&mut net, &site, &format!("c{n}"), "", 240 + n);
        let settings = net.nodes[node].settings.clone().unwrap();
        assert_eq!(settings.v4.is_some(), n <= 5, "client {n}");
        assert!(settings.v6.is_some());
    }
}

#[test]
fn a_long_push_list_arrives_whole() {
    let site = Site::default();
    let routes: String =
        (0..150).map(|n| format!("push \"route 172.16.{n}.0 255.255.255.0\"\n")).collect();
    let mut net = serve(&site, 250, &routes);
    net.link.loss = 100;
    let node = join(&mut net, &site, "laptop", "", 251);
    let settings = net.nodes[node].settings.clone().unwrap();
    let pushed =
        settings.routes.iter().filter(|route| route.destination.to_string().starts_with("172.16."));
    assert_eq!(pushed.count(), 150);
}

#[test]
fn a_client_without_a_common_cipher_is_told() {
    let site = Site::default();
    let mut net = serve(&site, 260, "data-ciphers AES-256-GCM\n");
    let extra = "data-ciphers CHACHA20-POLY1305\n";
    let now = net.now;
    let node = net.add("198.51.100.1:40000", site.client(now, "laptop", extra, 261));
    assert!(net.run_until(60_000, |net| net.nodes[node].ended.is_some()));
    let Some(ExitReason::Fatal(text)) = &net.nodes[node].ended else { panic!("not refused") };
    assert!(text.contains("no shared cipher"), "{text}");
}

#[test]
fn what_is_for_everybody_reaches_everybody_else() {
    let site = Site::default();
    let mut net = serve(&site, 270, "client-to-client\n");
    let a = join(&mut net, &site, "a", "", 271);
    let b = join(&mut net, &site, "b", "", 272);
    for (from, to) in [("10.8.0.2", "224.0.0.251"), ("fd00:6::1000", "ff05::fb")] {
        let packet = echo(ip(from), ip(to), b"to all");
        net.inject(a, &packet);
        net.run(100);
        for (node, gets) in [(0, true), (a, false), (b, true)] {
            assert_eq!(net.nodes[node].tun.contains(&packet), gets, "{to} at node {node}");
        }
    }
    let packet = echo(ip("10.8.0.1"), ip("10.8.0.255"), b"from the host");
    net.inject(0, &packet);
    net.run(100);
    assert!([a, b].iter().all(|node| net.nodes[*node].tun.contains(&packet)));
}

#[test]
fn packets_for_nobody_are_answered_but_not_without_limit() {
    let site = Site::default();
    let mut net = serve(&site, 280, "client-to-client\n");
    let a = join(&mut net, &site, "a", "", 281);
    for (from, to) in [("10.8.0.1", "10.8.0.77"), ("fd00:6::1", "fd00:6::77")] {
        let asked = echo(ip(from), ip(to), b"anybody?");
        for _ in 0..500 {
            net.inject(0, &asked);
        }
        let answers = net.nodes[0].tun.len();
        assert!((1..=100).contains(&answers), "{answers} answers");
        // Type 3 in an IPv4 packet of protocol 1; type 1 in an IPv6 packet of protocol 58.
        let answer = net.nodes[0].tun.pop_back().unwrap();
        let v6 = answer[0] >> 4 == 6;
        let (protocol, kind) = if v6 { (answer[6], answer[40]) } else { (answer[9], answer[20]) };
        assert_eq!((protocol, kind), if v6 { (58, 1) } else { (1, 3) });
        net.nodes[0].tun.clear();
        net.run(2_000);
    }
    assert_eq!(drops(&net, DropReason::NoRoute), 1000);
    // A client is told that its packet is too big for another one.
    join(&mut net, &site, "b", "", 282);
    net.link.mtu = 2000;
    let large = echo(ip("fd00:6::1000"), ip("fd00:6::1001"), &[0; 1500]);
    net.inject(a, &large);
    net.run(100);
    let answer = net.nodes[a].tun.pop_back().unwrap();
    assert_eq!((answer[6], answer[40]), (58, 2), "ICMPv6 packet too big");
    assert_eq!(drops(&net, DropReason::TooBig), 1);
}

#[test]
fn clients_that_are_kicked_or_see_a_restart_come_back() {
    let site = Site::default();
    let mut net = serve(&site, 290, "explicit-exit-notify 1\n");
    let node = join(&mut net, &site, "laptop", "", 291);
    for reply in [Reply::Kick("laptop".into()), Reply::Restart] {
        net.reply(0, Reply::Kick("somebody else".into()));
        assert_eq!(count(&net), 1);
        net.reply(0, reply);
        assert_eq!(count(&net), 0, "its addresses are free at once");
        assert!(net.run_until(30_000, |net| count(net) == 1));
        assert!(net.run_until(5_000, |net| net.nodes[node].settings.is_some()));
    }
}

/// A stranger who plays along until the session exists, with nothing but a few bytes.
fn knock(net: &mut Net, from: &str, session: u8) -> bool {
    let from = from.parse().unwrap();
    // As fast as strangers are listened to.
    net.now.mono = net.now.mono + core::time::Duration::from_millis(20);
    let mut reset = vec![0x38];
    reset.extend([session; 8]);
    reset.extend([0; 5]);
    let sent = net.trace.len();
    net.deliver(0, from, &reset);
    let Some(answer) = net.trace.get(sent).map(|packet| packet.bytes.clone()) else { return false };
    assert!(answer.len() <= 2 * reset.len(), "no amplifier");
    let mut ack = vec![0x28];
    ack.extend([session; 8]);
    ack.extend([1, 0, 0, 0, 0]);
    ack.extend(&answer[1..9]);
    let refused = drops(net, DropReason::TooManyClients);
    net.deliver(0, from, &ack);
    drops(net, DropReason::TooManyClients) == refused
}

#[test]
fn half_open_sessions_are_bounded_per_place_and_in_all() {
    let site = Site::default();
    let mut net = serve(&site, 300, "");
    let opened = |net: &mut Net, range: std::ops::Range<u16>, site: u16| {
        let from = |n| format!("[2001:db8:{site:x}::{n:x}]:{}", 1024 + n);
        range.filter(|n| knock(net, &from(*n), 1 + (n % 200) as u8)).count()
    };
    assert_eq!(opened(&mut net, 0..60, 1), 16, "one /64");
    let everywhere: usize = (2..12).map(|site| opened(&mut net, 0..30, site)).sum();
    assert_eq!(everywhere, 48, "64 in all");
    // A client of ours has to wait, but not for long: they all time out.
    net.run(70_000);
    assert_eq!(net.nodes[0].engine.poll_timeout(), None);
    join(&mut net, &site, "laptop", "", 301);
}

#[test]
fn answers_to_strangers_are_limited_in_rate() {
    let site = Site::default();
    let mut net = serve(&site, 310, "connect-freq-initial 10 10\n");
    for n in 0..50_u8 {
        let mut reset = vec![0x38];
        reset.extend([n + 1; 8]);
        reset.extend([0; 5]);
        net.deliver(0, format!("203.0.113.{n}:5000").parse().unwrap(), &reset);
    }
    assert_eq!(net.trace.len(), 10);
    assert_eq!(drops(&net, DropReason::RateLimited), 40);
}

#[test]
fn a_wrong_control_channel_key_is_told_but_cannot_fill_the_log() {
    let site = Site::default();
    let key = common::pki::static_key();
    let mut net = serve(&site, 311, &format!("<tls-crypt>\n{key}</tls-crypt>\n"));
    for n in 1..=50_u8 {
        let mut reset = vec![0x38];
        reset.extend([n; 8]);
        reset.extend([0; 45]);
        net.deliver(0, format!("203.0.113.{n}:5311").parse().unwrap(), &reset);
    }
    assert_eq!(drops(&net, DropReason::BadWrap), 50);
    let told =
        |n: u8| common::warned(&[&format!("203.0.113.{n}:5311"), "does not fit our tls-auth"]);
    assert!(told(1));
    assert!((1..=50).filter(|n| told(*n)).count() <= 5);
    assert!(net.trace.is_empty(), "no answer");
    // What is left of a session that has ended looks the same and is no news.
    net.run(120_000);
    let mut late = vec![0x20];
    late.extend([9; 53]);
    net.deliver(0, "203.0.113.60:5311".parse().unwrap(), &late);
    assert!(!told(60));
    let mut reset = vec![0x38];
    reset.extend([61; 53]);
    net.deliver(0, "203.0.113.61:5311".parse().unwrap(), &reset);
    assert!(told(61), "later ones are told again");
}

#[test]
fn sessions_begin_no_more_often_than_connect_freq_allows() {
    let site = Site::default();
    let mut net = serve(&site, 312, "connect-freq 2 30\n");
    join(&mut net, &site, "one", "", 313);
    join(&mut net, &site, "two", "", 314);
    let (now, began) = (net.now, net.now.mono);
    let third = net.add("198.51.100.9:40000", site.client(now, "three", "", 315));
    net.run(5_000);
    assert!(net.nodes[third].settings.is_none());
    assert!(drops(&net, DropReason::RateLimited) > 0);
    assert!(net.run_until(60_000, |net| net.nodes[third].settings.is_some()));
    assert!(net.now.mono.since(began).as_secs() >= 10);
}

#[test]
fn data_for_unknown_peers_is_dropped_and_counted() {
    let site = Site::default();
    let mut net = serve(&site, 320, "");
    let node = join(&mut net, &site, "laptop", "", 321);
    let home = net.nodes[node].addr;
    for (header, reason) in [
        (&[0x48, 0, 0, 9][..], DropReason::UnknownPeer),
        (&[0x48, 0xff, 0xff, 0xff], DropReason::BadAuth),
        // The client uses the epoch format, which needs the peer id.
        (&[0x30], DropReason::Malformed),
        (&[0x48, 0, 0, 0], DropReason::BadAuth),
    ] {
        let before = drops(&net, reason);
        let mut packet = header.to_vec();
        packet.extend([0x55; 60]);
        net.deliver(0, home, &packet);
        assert_eq!(drops(&net, reason), before + 1, "{header:02x?}");
    }
    assert_eq!(net.nodes[0].engine.clients()[0].from.peer, home);
}

/// What was to be written into the file of the leases, in order.
fn saved(net: &Net) -> Vec<String> {
    let commands = net.nodes[0].commands.iter();
    let texts = commands.filter_map(|command| match command {
        Command::SavePool(text) => Some(text.clone()),
        _ => None,
    });
    texts.collect()
}

#[test]
fn leases_are_saved_when_they_changed_and_found_again() {
    let site = Site::default();
    let mut net = serve(&site, 260, "ifconfig-pool-persist leases 60\n");
    let node = join(&mut net, &site, "laptop", "", 261);
    let settings = net.nodes[node].settings.clone().unwrap();
    assert_eq!(saved(&net), Vec::<String>::new(), "not at once");
    net.run(61_000);
    let (v4, v6) = (settings.v4.unwrap().addr(), settings.v6.unwrap().addr());
    assert_eq!(saved(&net), [format!("laptop,{v4},{v6}\n")]);
    net.run(300_000);
    assert_eq!(saved(&net).len(), 1, "nothing has changed");
    join(&mut net, &site, "phone", "", 262);
    net.reply(0, Reply::Shutdown);
    net.run(10_000);
    let text = saved(&net).pop().unwrap();
    assert_eq!(text.lines().count(), 2, "also at the end: {text}");

    // The next run, where the other client comes first.
    let mut net = Net::new(263);
    net.link = Link::default();
    let now = net.now;
    let mut server = site.server(now, "ifconfig-pool-persist leases 60\n", 263);
    assert_eq!(server.restore_pool(text.as_bytes()), []);
    net.add(SERVER, server);
    join(&mut net, &site, "tablet", "", 264);
    let node = join(&mut net, &site, "laptop", "", 265);
    assert_eq!(net.nodes[node].settings.clone().unwrap().v6, settings.v6);

    // Read only: nothing is written, and the addresses are for nobody else.
    let mut net = Net::new(266);
    net.link = Link::default();
    let now = net.now;
    let mut server = site.server(now, "ifconfig-pool-persist leases 0\n", 266);
    assert_eq!(server.restore_pool(text.as_bytes()), []);
    net.add(SERVER, server);
    join(&mut net, &site, "tablet", "", 267);
    net.run(700_000);
    net.reply(0, Reply::Shutdown);
    net.run(10_000);
    assert_eq!(saved(&net), Vec::<String>::new());
}

#[test]
fn one_client_can_be_sent_away() {
    let site = Site::default();
    let mut net = serve(&site, 270, "");
    let node = join(&mut net, &site, "laptop", "", 271);
    let first = net.nodes[0].engine.clients().pop().unwrap();
    net.reply(0, Reply::Dismiss { peer: first.peer, halt: false });
    assert!(net.run_until(60_000, |net| count(net) == 1 && net.nodes[node].settings.is_some()));
    let second = net.nodes[0].engine.clients().pop().unwrap();
    assert_eq!((first.id, second.id), (0, 1), "nobody gets a number twice");
    net.reply(0, Reply::Dismiss { peer: second.peer, halt: true });
    net.run(60_000);
    assert_eq!(count(&net), 0);
    assert!(matches!(net.nodes[node].ended, Some(ExitReason::Fatal(_))));
}

#[test]
fn nobody_floats_onto_another_client() {
    let site = Site::default();
    let mut net = serve(&site, 330, "");
    let a = join(&mut net, &site, "a", "", 331);
    let b = join(&mut net, &site, "b", "", 332);
    // A fresh packet of a's that never arrived, sent from where b is.
    net.link.loss = 1000;
    net.inject(a, &echo(ip("10.8.0.2"), ip("10.8.0.1"), b"stolen"));
    let stolen = net.trace.last().unwrap().bytes.clone();
    let homes = [net.nodes[a].addr, net.nodes[b].addr];
    net.deliver(0, homes[1], &stolen);
    assert_eq!(drops(&net, DropReason::UnknownPeer), 1);
    let clients = net.nodes[0].engine.clients();
    assert_eq!(clients.iter().map(|client| client.from.peer).collect::<Vec<_>>(), homes);
}
