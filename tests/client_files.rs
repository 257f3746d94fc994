//! What a per-client file changes for its client and for the others: fixed addresses, networks
//! behind it, what it is pushed, and whether it comes in at all.

use std::net::IpAddr;

use crate::common::clients;
use crate::common::net::Net;
use crate::common::packets::echo;
use crate::common::pki::Site;
use crate::common::warned;
use sixgate::config::{ClientSettings, ccd};
use sixgate::engine::{Command, DropReason, ExitReason, TunnelSettings};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A server (node 0) with these lines in its configuration, and its clients' files.
fn serve(site: &Site, seed: u64, extra: &str, files: &[(&str, &str)]) -> Net {
    clients::serve_with_files(site.server_config(extra), seed, files, |_| {})
}

/// Adds a client, which need not come up.
fn add(net: &mut Net, site: &Site, name: &str, seed: u64) -> usize {
    clients::add(net, site, name, "", seed)
}

/// Adds a client and waits until it is up.
fn join(net: &mut Net, site: &Site, name: &str, seed: u64) -> usize {
    clients::join(net, site, name, "", seed)
}

fn settings(net: &Net, node: usize) -> &TunnelSettings {
    net.nodes[node].settings.as_ref().expect("up")
}

/// Its tunnel addresses as text, `-` where there is none.
fn addresses(net: &Net, node: usize) -> (String, String) {
    let own = settings(net, node);
    let text = |address: Option<IpAddr>| address.map_or("-".to_owned(), |a| a.to_string());
    (text(own.v4.map(|v4| v4.addr().into())), text(own.v6.map(|v6| v6.addr().into())))
}

fn pair(v4: &str, v6: &str) -> (String, String) {
    (v4.to_owned(), v6.to_owned())
}

fn routes(net: &Net, node: usize) -> Vec<String> {
    settings(net, node).routes.iter().map(|route| route.destination.to_string()).collect()
}

fn crosses(net: &mut Net, from: usize, to: usize, packet: &[u8]) -> bool {
    net.nodes[to].tun.clear();
    net.inject(from, packet);
    net.run_until(2_000, |net| net.nodes[to].tun.contains(&packet.to_vec()))
}

#[test]
fn fixed_addresses_are_its_own_and_each_family_stands_alone() {
    let site = Site::default();
    let files = [
        ("both", "ifconfig-push 10.8.0.50 255.255.255.0\nifconfig-ipv6-push fd00:6::50/64\n"),
        ("four", "ifconfig-push 10.8.0.2 255.255.255.0\n"),
        ("six", "ifconfig-ipv6-push fd00:6::1000/64\n"),
    ];
    let mut net = serve(&site, 400, "", &files);
    // What is kept for others is not given away, even before these have ever been here.
    let plain = join(&mut net, &site, "plain", 401);
    assert_eq!(addresses(&net, plain), pair("10.8.0.3", "fd00:6::1001"));
    for (name, seed, expected) in [
        ("both", 402, pair("10.8.0.50", "fd00:6::50")),
        ("four", 403, pair("10.8.0.2", "fd00:6::1002")),
        ("six", 404, pair("10.8.0.4", "fd00:6::1000")),
    ] {
        let node = join(&mut net, &site, name, seed);
        assert_eq!(addresses(&net, node), expected, "{name}");
        let (v4, v6) = addresses(&net, node);
        for (own, server) in [(v4, "10.8.0.1"), (v6, "fd00:6::1")] {
            assert!(crosses(&mut net, node, 0, &echo(ip(&own), ip(server), b"out")), "{own}");
            assert!(crosses(&mut net, 0, node, &echo(ip(server), ip(&own), b"in")), "{own}");
        }
    }
}

#[test]
fn whoever_has_an_address_that_is_kept_for_another_gives_it_up() {
    let site = Site::default();
    let mut net = serve(&site, 410, "", &[]);
    let first = join(&mut net, &site, "holder-411", 411);
    assert_eq!(addresses(&net, first).0, "10.8.0.2");
    // The file came into being while the server was running.
    let fixed = ccd::FixedV4 {
        address: [10, 8, 0, 2].into(),
        second: [255, 255, 255, 0].into(),
        alias: None,
    };
    let file = ClientSettings { v4: Some(fixed), ..ClientSettings::default() };
    net.nodes[0].client_files.insert("owner-412".to_owned(), file);
    let owner = join(&mut net, &site, "owner-412", 412);
    assert_eq!(addresses(&net, owner).0, "10.8.0.2");
    assert!(warned(&["'holder-411' has 10.8.0.2, which is kept for 'owner-412'"]));
    net.nodes[first].settings = None;
    assert!(net.run_until(60_000, |net| net.nodes[first].settings.is_some()), "it comes back");
    assert_eq!(addresses(&net, first).0, "10.8.0.3");
    net.run(60_000);
    assert_eq!(net.nodes[0].engine.clients().len(), 2, "and nobody takes turns");
    assert!(crosses(&mut net, 0, owner, &echo(ip("10.8.0.1"), ip("10.8.0.2"), b"mine")));
}

#[test]
fn two_files_with_one_address_are_a_mistake_that_the_log_names() {
    let site = Site::default();
    let line = "ifconfig-ipv6-push fd00:6::77/64\n";
    let mut net = serve(&site, 420, "", &[("one-420", line), ("two-420", line)]);
    let one = join(&mut net, &site, "one-420", 421);
    let two = add(&mut net, &site, "two-420", 422);
    net.run(20_000);
    assert!(net.nodes[two].settings.is_none(), "the later one waits outside");
    assert!(warned(&["fd00:6::77", "both 'one-420' and 'two-420'"]));
    assert!(crosses(&mut net, 0, one, &echo(ip("fd00:6::1"), ip("fd00:6::77"), b"still")));
}

#[test]
fn one_name_twice_has_its_fixed_address_once() {
    let site = Site::default();
    let files = [("twin", "ifconfig-push 10.8.0.9 255.255.255.0\n")];
    let mut net = serve(&site, 430, "duplicate-cn\n", &files);
    let one = join(&mut net, &site, "twin", 431);
    let two = join(&mut net, &site, "twin", 432);
    assert_eq!(addresses(&net, one).0, "10.8.0.9");
    assert_eq!(addresses(&net, two).0, "10.8.0.2");
    net.run(60_000);
    assert_eq!(net.nodes[0].engine.clients().len(), 2);
}

#[test]
fn networks_behind_a_client_are_reached_through_it_and_may_send() {
    let site = Site::default();
    let extra = "client-to-client\nroute 192.168.0.0 255.255.0.0\nroute-ipv6 fd00:a::/32\n\
        push \"route 192.168.0.0 255.255.0.0\"\npush \"route 192.168.7.0 255.255.255.0\"\n\
        push \"route-ipv6 fd00:a:7::/64\"\n";
    let files = [
        ("office", "iroute 192.168.0.0 255.255.0.0\niroute-ipv6 fd00:a::/32\n"),
        ("shop", "iroute 192.168.7.0 255.255.255.0\niroute-ipv6 fd00:a:7::/64\n"),
    ];
    let mut net = serve(&site, 440, extra, &files);
    let office = join(&mut net, &site, "office", 441);
    let shop = join(&mut net, &site, "shop", 442);
    let plain = join(&mut net, &site, "plain", 443);
    // The longest prefix decides, from the host and from other clients.
    for (to, node) in [
        ("192.168.9.9", office),
        ("192.168.7.9", shop),
        ("fd00:a:8::9", office),
        ("fd00:a:7::9", shop),
    ] {
        let v6 = ip(to).is_ipv6();
        let host = if v6 { "fd00:6::1" } else { "10.8.0.1" };
        assert!(crosses(&mut net, 0, node, &echo(ip(host), ip(to), b"host")), "{to}");
        let other = if v6 { "fd00:6::1002" } else { "10.8.0.4" };
        assert!(crosses(&mut net, plain, node, &echo(ip(other), ip(to), b"client")), "{to}");
        assert!(crosses(&mut net, node, 0, &echo(ip(to), ip(host), b"back")), "{to}");
    }
    // The source check covers them: what is behind one client is not behind another.
    let before = net.nodes[0].engine.drops().of(DropReason::BadSource);
    for (node, from, to) in [
        (office, "192.168.7.9", "10.8.0.1"),
        (shop, "192.168.9.9", "10.8.0.1"),
        (plain, "fd00:a:7::9", "fd00:6::1"),
        // Nor are the server's own addresses behind anybody.
        (office, "10.8.0.1", "10.8.0.9"),
    ] {
        assert!(!crosses(&mut net, node, 0, &echo(ip(from), ip(to), b"spoofed")), "{from}");
    }
    assert_eq!(net.nodes[0].engine.drops().of(DropReason::BadSource), before + 4);
    // What comes back to where it came from is answered, or it would do so until it dies.
    for (own, behind) in [("10.8.0.2", "192.168.9.9"), ("fd00:6::1000", "fd00:a:8::9")] {
        net.nodes[office].tun.clear();
        net.inject(office, &echo(ip(own), ip(behind), b"loop"));
        net.run(1_000);
        let answer = net.nodes[office].tun.pop_front().expect("an answer");
        let v6 = answer[0] >> 4 == 6;
        let (protocol, kind) = if v6 { (answer[6], answer[40]) } else { (answer[9], answer[20]) };
        assert_eq!((protocol, kind), if v6 { (58, 1) } else { (1, 3) }, "{behind}");
    }
    // Nobody is told to send its own network into the tunnel.
    assert_eq!(routes(&net, office), [""; 0]);
    assert_eq!(routes(&net, shop), ["192.168.0.0/16"]);
    assert_eq!(routes(&net, plain), ["192.168.0.0/16", "192.168.7.0/24", "fd00:a:7::/64"]);
    let clients = net.nodes[0].engine.clients();
    let shown: Vec<_> = clients.iter().map(|client| client.networks.len()).collect();
    assert_eq!(shown, [2, 2, 0], "status shows them");
}

#[test]
fn a_client_may_lead_to_everything_else() {
    let site = Site::default();
    let extra = "client-to-client\nroute-ipv6 2000::/3\n";
    let mut net =
        serve(&site, 450, extra, &[("exit", "iroute-ipv6 ::/0\niroute 0.0.0.0 0.0.0.0\n")]);
    let exit = join(&mut net, &site, "exit", 451);
    let user = join(&mut net, &site, "user", 452);
    let out = echo(ip("fd00:6::1001"), ip("2001:4860::8888"), b"out");
    assert!(crosses(&mut net, user, exit, &out));
    // All addresses are behind it, but not those of others, of the server, or of nobody.
    for (from, to) in
        [("fd00:6::1001", "fd00:6::1"), ("fd00:6::1", "fd00:6::1001"), ("::", "ff02::1")]
    {
        assert!(!crosses(&mut net, exit, user, &echo(ip(from), ip(to), b"spoofed")), "{from}");
    }
    let hello = echo(ip("fd00:6::1001"), ip("fd00:6::1"), b"hello");
    assert!(crosses(&mut net, user, 0, &hello), "the server itself is reached all the same");
    assert!(!net.nodes[exit].tun.contains(&hello));
}

#[test]
fn a_network_that_two_claim_is_the_later_ones_while_it_is_there() {
    let site = Site::default();
    let line = "iroute-ipv6 fd00:b::/64\n";
    let extra = "route-ipv6 fd00:b::/64\n";
    let mut net = serve(&site, 460, extra, &[("east-460", line), ("west-460", line)]);
    let east = join(&mut net, &site, "east-460", 461);
    let packet = echo(ip("fd00:6::1"), ip("fd00:b::9"), b"whose");
    assert!(crosses(&mut net, 0, east, &packet));
    let west = join(&mut net, &site, "west-460", 462);
    assert!(warned(&["fd00:b::/64 is claimed by 'east-460' and by 'west-460'"]));
    assert!(crosses(&mut net, 0, west, &packet));
    net.reply(west, sixgate::engine::Reply::Shutdown);
    assert!(net.run_until(10_000, |net| net.nodes[0].engine.clients().len() == 1));
    assert!(crosses(&mut net, 0, east, &packet), "it falls back to who still claims it");
}

#[test]
fn what_is_pushed_can_be_changed_for_one_client() {
    let site = Site::default();
    let extra = "push \"route 10.1.0.0 255.255.0.0\"\npush \"route-ipv6 fd00:c::/64\"\n";
    let files = [
        ("more", "push \"route 10.2.0.0 255.255.0.0\"\n"),
        ("less", "push-remove \"route 10.1\"\n"),
        ("other", "push-reset\npush \"topology subnet\"\npush \"route 10.3.0.0 255.255.0.0\"\n"),
        ("six", "push-remove ifconfig\n"),
    ];
    let mut net = serve(&site, 470, extra, &files);
    for (name, seed, expected) in [
        ("more", 471, &["10.1.0.0/16", "fd00:c::/64", "10.2.0.0/16"][..]),
        ("less", 472, &["fd00:c::/64"]),
        ("other", 473, &["10.3.0.0/16"]),
        ("six", 474, &["fd00:c::/64"]),
    ] {
        let node = join(&mut net, &site, name, seed);
        assert_eq!(routes(&net, node), expected, "{name}");
        assert_eq!(settings(&net, node).v4.is_none(), name == "six");
        assert!(settings(&net, node).v6.is_some(), "what is made for each client is not inherited");
    }
}

#[test]
fn a_disabled_client_is_refused_and_told() {
    let site = Site::default();
    let mut net = serve(&site, 480, "", &[("lost", "disable\n")]);
    let node = add(&mut net, &site, "lost", 481);
    assert!(net.run_until(60_000, |net| net.nodes[node].ended.is_some()));
    let Some(ExitReason::Fatal(text)) = &net.nodes[node].ended else { panic!("not refused") };
    assert!(text.contains("disabled"), "{text}");
    assert!(net.nodes[0].engine.clients().is_empty());
}

#[test]
fn silence_may_last_longer_for_one_client_than_for_others() {
    let site = Site::default();
    let files = [("sleepy", "ping-restart 600\n"), ("eager", "ping-restart 15\n")];
    let mut net = serve(&site, 490, "", &files);
    let sleepy = join(&mut net, &site, "sleepy", 491);
    let eager = join(&mut net, &site, "eager", 492);
    net.nodes[sleepy].off = true;
    net.nodes[eager].off = true;
    let names = |net: &Net| -> Vec<String> {
        net.nodes[0].engine.clients().into_iter().map(|client| client.common_name).collect()
    };
    net.run(40_000);
    assert_eq!(names(&net), ["sleepy"]);
    net.run(400_000);
    assert_eq!(names(&net), ["sleepy"], "120 s for everybody else");
    net.run(200_000);
    assert_eq!(names(&net), [""; 0]);
}

#[test]
fn a_client_that_is_idle_or_has_had_its_time_makes_room() {
    let site = Site::default();
    let files = [("idle", "inactive 120 500\n"), ("short", "session-timeout 90\ninactive 0\n")];
    let mut net = serve(&site, 700, "inactive 3600\n", &files);
    let idle = join(&mut net, &site, "idle", 701);
    let short = join(&mut net, &site, "short", 702);
    let ends = |net: &mut Net, node: usize, name: &str| {
        let before = net.now.mono;
        // They are told, and come back; what is watched is that they go.
        let down = |net: &Net| {
            let down = net.nodes[0].commands.iter().filter(
                |command| matches!(command, Command::ClientDown(info) if info.common_name == name),
            );
            down.count()
        };
        assert!(net.run_until(600_000, |net| down(net) > 0), "{name} stays");
        net.nodes[node].settings = None;
        assert!(net.run_until(30_000, |net| net.nodes[node].settings.is_some()), "{name} is back");
        net.now.mono.since(before).as_secs()
    };
    // Pings are no use of the tunnel, and neither is too little.
    net.run(60_000);
    net.inject(idle, &echo(ip("fd00:6::1000"), ip("fd00:6::1"), &[0; 100]));
    let after = ends(&mut net, short, "short");
    assert!((25..45).contains(&after), "{after}");
    net.inject(idle, &echo(ip("fd00:6::1000"), ip("fd00:6::1"), &[0; 900]));
    let after = ends(&mut net, idle, "idle");
    assert!((115..135).contains(&after), "{after}");
}
