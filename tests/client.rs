//! The client engine against servers that push, change their minds, refuse, move and die.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use crate::common;
use crate::common::net::Net;
use crate::common::packets::echo;
use crate::common::pki::Site;
use crate::common::puppet::{self, Strings};
use crate::common::{Seeded, net::Link};
use sixgate::engine::{Command, DropReason, ExitReason, Reply, TunnelSettings};
use sixgate::session::data::EXIT_NOTIFY;
use sixgate::wire::message::Message;

const SERVER: &str = "192.0.2.1:1194";
const CLIENT: &str = "198.51.100.7:40000";
const PUSH: &str = "PUSH_REPLY,topology subnet,ifconfig 10.8.0.2 255.255.255.0,\
     ifconfig-ipv6 fd00:6::2/64 fd00:6::1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A puppet (node 0) that greets with these lines, and a client (node 1).
fn show(greeting: &[&str], client: &str) -> (Net, Rc<RefCell<Strings>>) {
    let greeting = greeting.iter().map(|line| (*line).to_owned()).collect();
    puppet::show(Strings { greeting, ..Strings::default() }, client)
}

fn up(net: &mut Net) -> bool {
    net.run_until(60_000, |net| net.nodes[1].settings.is_some())
}

fn say(net: &mut Net, strings: &Rc<RefCell<Strings>>, line: &str) {
    strings.borrow_mut().say.push_back(line.to_owned());
    net.run(1_000);
}

fn settings(net: &Net) -> TunnelSettings {
    net.nodes[1].settings.clone().expect("configured")
}

fn routes(net: &Net) -> Vec<String> {
    settings(net).routes.iter().map(|route| route.destination.to_string()).collect()
}

/// First packets that the client has sent so far.
fn attempts(net: &Net) -> usize {
    net.trace.iter().filter(|packet| packet.bytes[0] >> 3 == 7).count()
}

fn configures(net: &Net) -> usize {
    let commands = &net.nodes[1].commands;
    commands.iter().filter(|command| matches!(command, Command::Configure(_))).count()
}

fn fatal(net: &Net) -> &str {
    match &net.nodes[1].ended {
        Some(ExitReason::Fatal(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_update_changes_a_running_tunnel_without_a_new_connection() {
    let (mut net, strings) = show(&[&format!("{PUSH},route 10.1.0.0 255.255.0.0")], "");
    assert!(up(&mut net));
    let before = attempts(&net);
    say(&mut net, &strings, "PUSH_UPDATE,route 10.2.0.0 255.255.0.0,push-continuation 2");
    assert_eq!(routes(&net), ["10.1.0.0/16"], "not before its last part");
    say(
        &mut net,
        &strings,
        "PUSH_UPDATE,route 10.3.0.0 255.255.0.0,?frobnicate 1,tun-mtu 1400,\
         dns server 1 address fd00:6::1,push-continuation 1",
    );
    assert_eq!(routes(&net), ["10.2.0.0/16", "10.3.0.0/16"]);
    assert_eq!((settings(&net).mtu, settings(&net).dns.servers.len()), (1400, 1));
    say(
        &mut net,
        &strings,
        "PUSH_UPDATE,-route,-tun-mtu,-dns,-?cipher,ifconfig 10.8.0.9 255.255.255.0",
    );
    assert_eq!(routes(&net), [""; 0]);
    assert_eq!(settings(&net).mtu, 1500);
    assert_eq!(settings(&net).v4.unwrap().to_string(), "10.8.0.9/24");
    assert!(settings(&net).v6.is_some());
    let packet = echo(ip("10.8.0.9"), ip("10.8.0.1"), b"still here");
    net.inject(1, &packet);
    net.run(100);
    assert_eq!(strings.borrow().packets, [packet]);
    assert_eq!(attempts(&net), before);
    // One that changes nothing leaves the system alone.
    let count = configures(&net);
    say(&mut net, &strings, "PUSH_UPDATE,-route");
    assert_eq!(configures(&net), count);
}

#[test]
fn an_update_that_cannot_be_followed_means_a_new_connection() {
    for update in
        ["cipher AES-128-GCM", "?-route", "-", "ifconfig here there", "-ifconfig,-ifconfig-ipv6"]
    {
        let (mut net, strings) = show(&[PUSH], "");
        assert!(up(&mut net));
        let before = attempts(&net);
        say(&mut net, &strings, &format!("PUSH_UPDATE,{update}"));
        net.run(3_000);
        assert!(attempts(&net) > before, "{update}");
        assert!(up(&mut net), "{update}");
    }
}

#[test]
fn rubbish_in_pushes_and_updates_never_panics() {
    let words = [
        "route",
        "route-ipv6",
        "ifconfig",
        "ifconfig-ipv6",
        "dns",
        "server",
        "-",
        "?",
        "\"",
        "\\",
        "10.0.0.0",
        "255.0.0.0",
        "fd00::/8",
        "::",
        "4294967296",
        "-1",
        "redirect-gateway",
        "def1",
        "tun-mtu",
        "ping",
        "inactive",
        "peer-id",
        "protocol-flags",
        "topology",
        "subnet",
        "dhcp-option",
        "DNS",
        "keepalive",
        "auth-token",
        "session-timeout",
        "\u{fffd}",
        "compress",
        "push-continuation",
        "1",
        "2",
        "block-ipv6",
    ];
    let mut dice = Seeded(0xf00d);
    for round in 0..150 {
        let mut line = |start: &str| {
            let mut line = start.to_owned();
            for _ in 0..dice.within(0, 12) {
                line.push_str(if dice.chance(400) { "," } else { " " });
                line.push_str(words[dice.within(0, words.len() as u64 - 1) as usize]);
            }
            line
        };
        let greeting = if round % 2 == 0 { line("PUSH_REPLY") } else { PUSH.to_owned() };
        let updates: Vec<String> = (0..10).map(|_| line("PUSH_UPDATE")).collect();
        let (mut net, strings) = show(&[&greeting], "");
        net.run(1_000);
        strings.borrow_mut().say.extend(updates);
        net.run(10_000);
    }
}

#[test]
fn a_token_takes_the_passwords_place_and_gives_it_back() {
    let login = "<auth-user-pass>\nalice\nsecret\n</auth-user-pass>\nreneg-sec 20\n";
    let (mut net, strings) =
        show(&[&format!("{PUSH},auth-token first,ping 5,ping-restart 30")], login);
    assert!(up(&mut net));
    net.run(21_000);
    // A later reply with only a token, as at renegotiations.
    say(&mut net, &strings, "PUSH_REPLY,auth-token second");
    net.run(21_000);
    let logins = |strings: &Rc<RefCell<Strings>>| -> Vec<String> {
        strings.borrow().logins.iter().map(|(name, word)| format!("{name} {word}")).collect()
    };
    assert_eq!(logins(&strings), ["alice secret", "alice first", "alice second"]);
    strings.borrow_mut().logins.clear();
    strings.borrow_mut().greeting = vec![PUSH.to_owned()];
    // Refused: the password again, without asking anybody.
    say(&mut net, &strings, "AUTH_FAILED,SESSION:token expired");
    net.run(5_000);
    assert_eq!(logins(&strings), ["alice secret"]);
    assert!(net.nodes[1].ended.is_none());
}

#[test]
fn a_refusal_is_final_unless_told_otherwise() {
    let (mut net, _) = show(&["AUTH_FAILED,go away"], "");
    net.run(5_000);
    assert!(fatal(&net).contains("go away"));
    let (mut net, strings) = show(&["AUTH_FAILED,go away"], "auth-retry nointeract\n");
    net.run(5_000);
    assert_eq!((attempts(&net), &net.nodes[1].ended), (1, &None));
    strings.borrow_mut().greeting = vec![PUSH.to_owned()];
    net.run(10_000);
    assert!(net.nodes[1].settings.is_some());
}

#[test]
fn temporary_refusals_wait_and_go_where_they_say() {
    let two = "remote 192.0.2.9 1194\n";
    for (advance, elsewhere) in [("no", false), ("remote", true), ("addr", true)] {
        let (mut net, strings) =
            show(&[&format!("AUTH_FAILED,TEMP[backoff 20,advance {advance}]:busy")], two);
        net.run(15_000);
        assert_eq!(attempts(&net), 1, "{advance}");
        strings.borrow_mut().greeting = vec![PUSH.to_owned()];
        net.run(10_000);
        let second = net.trace.iter().filter(|packet| packet.bytes[0] >> 3 == 7).nth(1).unwrap();
        assert_eq!(second.to.ip() == ip("192.0.2.9"), elsewhere, "{advance}");
    }
}

#[test]
fn the_first_remote_is_dead_and_the_second_has_a_name() {
    let site = Site::default();
    let mut net = Net::new(11);
    let now = net.now;
    net.add("[2001:db8::1]:1195", site.server(now, "", 11));
    // 192.0.2.1 is first and nobody is there; the name's IPv4 address is dead, too.
    let extra = "remote vpn.example.net 1195\nconnect-timeout 5\n";
    net.nodes.push(net_node(&site, &net, extra));
    let found = ["192.0.2.7:1195", "[2001:db8::1]:1195"].map(|text| text.parse().unwrap()).to_vec();
    net.nodes[1].names.insert("vpn.example.net".to_owned(), found);
    assert!(up(&mut net));
    assert_eq!(settings(&net).server, Some(ip("2001:db8::1")));
}

/// A client node that has not been asked for commands yet, so that names can be given to it.
fn net_node(site: &Site, net: &Net, extra: &str) -> common::net::Node {
    let mut other = Net::new(12);
    other.add(CLIENT, site.client(net.now, "laptop", extra, 12));
    other.nodes.pop().expect("just added")
}

#[test]
fn names_are_looked_up_again_and_old_addresses_serve_when_they_do_not_resolve() {
    let site = Site::default();
    let mut net = Net::new(13);
    let now = net.now;
    net.add("192.0.2.20:1194", site.server(now, "keepalive 2 10\n", 13));
    // The literal remote of all test clients comes first and is dead.
    net.nodes.push(net_node(&site, &net, "remote home.example.net\nconnect-timeout 2\n"));
    let name = "home.example.net".to_owned();
    net.nodes[1].names.insert(name.clone(), vec!["192.0.2.20:1194".parse().unwrap()]);
    assert!(up(&mut net));
    // The server moves, and the name follows after a while.
    net.nodes[0].addr = "192.0.2.21:1194".parse().unwrap();
    net.nodes[0].engine = site.server(net.now, "keepalive 2 10\n", 14);
    net.nodes[1].settings = None;
    net.nodes[1].names.insert(name.clone(), vec!["192.0.2.21:1194".parse().unwrap()]);
    assert!(net.run_until(60_000, |net| !net.nodes[0].engine.clients().is_empty()));
    // No resolver any more: the last known address is as good.
    net.nodes[1].names.clear();
    net.nodes[0].engine = site.server(net.now, "keepalive 2 10\n", 15);
    assert!(net.run_until(60_000, |net| !net.nodes[0].engine.clients().is_empty()));
}

#[test]
fn connect_retry_max_ends_it() {
    let site = Site::default();
    let mut net = Net::new(16);
    let text = "connect-timeout 2\nconnect-retry-max 3\n";
    let client = site.client(net.now, "laptop", text, 16);
    net.add("192.0.2.99:1", site.server(net.now, "", 16));
    net.add(CLIENT, client);
    net.run(60_000);
    assert!(fatal(&net).contains("connect-retry-max"));
    // A first packet is repeated while nobody answers; each attempt has its own session id.
    let ids: std::collections::HashSet<_> =
        net.trace.iter().map(|packet| &packet.bytes[1..9]).collect();
    assert_eq!(ids.len(), 3);
}

#[test]
fn blocks_have_their_own_key_and_timeout() {
    let key = common::pki::static_key();
    let site = Site::default();
    let mut net = Net::new(17);
    net.add(SERVER, site.server(net.now, &format!("<tls-crypt>\n{key}</tls-crypt>\n"), 17));
    let blocks = format!(
        "<connection>\nremote 192.0.2.50 1194\nconnect-timeout 3\n</connection>\n\
         <connection>\nremote 192.0.2.1 1194\n<tls-crypt>\n{key}</tls-crypt>\n</connection>\n"
    );
    let client = site.client(net.now, "laptop", &blocks, 17);
    net.add(CLIENT, client);
    assert!(up(&mut net));
    let first = &net.trace[0];
    assert_eq!((first.to.ip(), first.bytes.len()), (ip("192.0.2.50"), 14), "bare");
    let second = net.trace.iter().find(|packet| packet.to.ip() == ip("192.0.2.1")).unwrap();
    assert!(second.bytes.len() > 40, "wrapped");
}

#[test]
fn without_persist_tun_the_system_is_as_before_while_reconnecting() {
    for persist in [false, true] {
        let extra = if persist { "persist-tun\n" } else { "" };
        let (mut net, _strings) = show(&[&format!("{PUSH},ping 2,ping-restart 6")], extra);
        assert!(up(&mut net));
        net.nodes[0].off = true;
        net.run(20_000);
        assert_eq!(net.nodes[1].settings.is_some(), persist);
        let pinned = |command: &Command| matches!(command, Command::KeepReachable(server) if *server == ip("192.0.2.1"));
        assert_eq!(net.nodes[1].commands.iter().any(pinned), persist);
        net.nodes[0].off = false;
        net.nodes[1].settings = None;
        assert!(up(&mut net), "{persist}");
    }
}

#[test]
fn ping_exit_inactive_and_session_timeout_end_the_client() {
    let (mut net, _) = show(&[&format!("{PUSH},ping 2,ping-exit 6")], "");
    assert!(up(&mut net));
    net.nodes[0].off = true;
    net.run(10_000);
    assert!(fatal(&net).contains("ping-exit"));

    let (mut net, strings) =
        show(&[&format!("{PUSH},ping 2,ping-restart 60")], "inactive 20 200\n");
    assert!(up(&mut net));
    for _ in 0..20 {
        net.inject(1, &echo(ip("10.8.0.2"), ip("10.8.0.1"), &[0; 300]));
        net.run(3_000);
    }
    assert!(net.nodes[1].ended.is_none(), "in use");
    for _ in 0..8 {
        net.inject(1, &echo(ip("10.8.0.2"), ip("10.8.0.1"), b"few"));
        net.run(3_000);
    }
    assert_eq!(net.nodes[1].ended, Some(ExitReason::Requested), "hardly in use");
    assert!(strings.borrow().packets.len() > 20 && net.nodes[1].settings.is_none());

    let (mut net, _) = show(&[&format!("{PUSH},session-timeout 30")], "");
    assert!(up(&mut net));
    net.run(29_000);
    assert!(net.nodes[1].ended.is_none());
    net.run(5_000);
    assert_eq!(net.nodes[1].ended, Some(ExitReason::Requested));
}

#[test]
fn blocked_ipv6_is_answered_at_a_limited_rate_and_never_sent() {
    let push = format!("{PUSH},redirect-gateway def1 ipv6,block-ipv6");
    let (mut net, strings) = show(&[&push], "");
    assert!(up(&mut net));
    for _ in 0..200 {
        net.inject(1, &echo(ip("fd00:6::2"), ip("2001:db8::99"), b"anyone?"));
    }
    net.inject(1, &echo(ip("10.8.0.2"), ip("10.8.0.1"), b"four"));
    net.run(100);
    assert_eq!(strings.borrow().packets.len(), 1, "IPv4 only");
    let answers = net.nodes[1].tun.len();
    assert!((1..=50).contains(&answers), "{answers}");
    // ICMPv6, destination unreachable, no route; from the server's address to the sender.
    let answer = &net.nodes[1].tun[0];
    assert_eq!((answer[6], answer[40], answer[41]), (58, 1, 0));
    assert_eq!(answer[8..24], "fd00:6::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    assert_eq!(net.nodes[1].engine.drops().of(DropReason::NoRoute), 200 - answers as u64);
}

#[test]
fn a_changed_network_is_told_to_the_server_at_once() {
    let (mut net, strings) = show(&[&format!("{PUSH},ping 60,ping-restart 180")], "");
    assert!(up(&mut net));
    net.run(1_000);
    let before = strings.borrow().pings;
    net.reply(1, Reply::NetworkChanged);
    net.run(100);
    assert_eq!(strings.borrow().pings, before + 1);
}

#[test]
fn after_a_long_sleep_the_connection_is_made_anew_at_once() {
    let (mut net, _) = show(&[&format!("{PUSH},ping 10,ping-restart 60")], "");
    assert!(up(&mut net));
    let before = attempts(&net);
    // Nobody is awake for an hour; then all timers are late at the same moment.
    let asleep = net.now.mono.as_millis() + 3_600_000;
    net.now.mono = sixgate::time::Instant::from_millis(asleep);
    net.run(2_000);
    assert!(attempts(&net) > before);
    net.run(5_000);
    let packet = echo(ip("10.8.0.2"), ip("10.8.0.1"), b"awake");
    net.inject(1, &packet);
    net.run(100);
    assert!(net.nodes[1].settings.is_some());
}

#[test]
fn restart_and_halt() {
    let (mut net, strings) = show(&[PUSH], "");
    assert!(up(&mut net));
    // The last is the way of old.
    for word in ["RESTART", "EXIT", ""] {
        let before = attempts(&net);
        match word {
            "" => net.inject(0, &EXIT_NOTIFY),
            word => say(&mut net, &strings, word),
        }
        net.run(3_000);
        assert!(attempts(&net) > before, "{word}");
        assert!(up(&mut net));
    }
    say(&mut net, &strings, "HALT,closed on Sundays");
    assert!(fatal(&net).contains("closed on Sundays"));
}

#[test]
fn a_goodbye_is_said_in_the_way_the_server_knows() {
    let (mut net, strings) = show(&[&format!("{PUSH},protocol-flags cc-exit")], "");
    assert!(up(&mut net));
    net.reply(1, Reply::Shutdown);
    net.run(3_000);
    assert!(strings.borrow().heard.contains(&Message::Exit));
    assert_eq!(net.nodes[1].ended, Some(ExitReason::Requested));
}

#[test]
fn the_push_comes_through_a_bad_link_in_many_parts() {
    let mut greeting = vec![format!("{PUSH},push-continuation 2")];
    greeting.extend((0..20).map(|part| {
        let routes: String =
            (0..20).map(|n| format!("route 10.{part}.{n}.0 255.255.255.0,")).collect();
        format!("PUSH_REPLY,{routes}push-continuation {}", if part == 19 { 1 } else { 2 })
    }));
    let lines: Vec<&str> = greeting.iter().map(String::as_str).collect();
    let (mut net, _) = show(&lines, "");
    net.link = Link { latency: (5, 80), loss: 150, duplicate: 100, ..Link::default() };
    assert!(up(&mut net));
    assert_eq!(routes(&net).len(), 400);
}
