//! `tls-verify` at a client: the server is told nothing before a script has agreed with each of its
//! certificates, at the first key and at every later one.

use std::cell::RefCell;
use std::rc::Rc;

use crate::common::net::Net;
use crate::common::packets::echo;
use crate::common::pki::Site;
use crate::common::puppet::{self, Strings};
use sixgate::engine::{Command, HookKind, HookOutcome, HookRequest, Reply};

const PUSH: &str = "PUSH_REPLY,topology subnet,ifconfig 10.8.0.2 255.255.255.0";
const LINES: &str = "script-security 2\ntls-verify /v\n\
    <auth-user-pass>\njo\nsecret\n</auth-user-pass>\n";

/// Nobody answers: the test does.
const LATER: fn(&HookRequest) -> Option<HookOutcome> = |_| None;
const AGREES: fn(&HookRequest) -> Option<HookOutcome> = |_| Some(success());

fn success() -> HookOutcome {
    HookOutcome::Success { settings: String::new() }
}

fn failure() -> HookOutcome {
    HookOutcome::Failure { reason: String::new() }
}

/// A puppet (node 0) and a client (node 1) whose script answers like this.
fn show(lines: &str, hook: fn(&HookRequest) -> Option<HookOutcome>) -> (Net, Rc<RefCell<Strings>>) {
    let strings = Strings { greeting: vec![PUSH.to_owned()], ..Strings::default() };
    let (mut net, strings) = puppet::show(strings, &format!("{LINES}{lines}"));
    net.nodes[1].hook = hook;
    (net, strings)
}

fn judgements(net: &Net) -> Vec<HookRequest> {
    let commands = net.nodes[1].commands.iter();
    let requests = commands.filter_map(|command| match command {
        Command::RunHook(request) => Some((**request).clone()),
        _ => None,
    });
    requests.filter(|request| request.kind == HookKind::TlsVerify).collect()
}

/// Waits for judgement number `count`.
fn asked(net: &mut Net, count: usize) -> HookRequest {
    assert!(net.run_until(90_000, |net| judgements(net).len() >= count), "not asked {count} times");
    let mut all = judgements(net);
    assert_eq!(all.len(), count);
    all.pop().unwrap()
}

fn answer(net: &mut Net, request: &HookRequest, outcome: HookOutcome) {
    net.reply(1, Reply::HookDone { ticket: request.ticket.unwrap(), outcome });
}

fn is_up(net: &mut Net) -> bool {
    net.nodes[1].settings.is_some()
}

/// First packets that the client has sent so far.
fn attempts(net: &Net) -> usize {
    net.trace.iter().filter(|packet| packet.bytes[0] >> 3 == 7).count()
}

#[test]
fn each_certificate_is_judged_before_anything_is_said() {
    let (mut net, strings) = show("", LATER);
    let first = asked(&mut net, 1);
    assert_eq!(first.arguments, ["1", "CN=Test CA"]);
    net.run(20_000);
    assert_eq!(judgements(&net).len(), 1, "one after the other");
    answer(&mut net, &first, success());
    let second = asked(&mut net, 2);
    assert_eq!(second.arguments[0], "0");
    assert_eq!(Some(second.arguments[1].as_str()), second.environment.value("tls_id_0"));
    net.run(20_000);
    assert!(strings.borrow().logins.is_empty() && !is_up(&mut net));
    // An answer to a question that is no longer asked is none.
    answer(&mut net, &first, success());
    answer(&mut net, &first, failure());
    net.run(1_000);
    assert!(strings.borrow().logins.is_empty() && attempts(&net) == 1);
    answer(&mut net, &second, success());
    assert!(net.run_until(5_000, is_up));
    assert_eq!(strings.borrow().logins, [("jo".to_owned(), "secret".to_owned())]);
    assert_eq!((judgements(&net).len(), attempts(&net)), (2, 1));
    let value =
        |request: &HookRequest, name: &str| request.environment.value(name).map(str::to_owned);
    assert_eq!(value(&first, "untrusted_ip").as_deref(), Some("192.0.2.1"));
    assert_eq!(value(&first, "tls_id_1").as_deref(), Some("CN=Test CA"));
    assert_eq!((value(&first, "tls_id_0"), value(&first, "trusted_ip")), (None, None));
    assert_eq!(value(&second, "X509_1_CN").as_deref(), Some("Test CA"));
    assert!(value(&second, "tls_serial_0").is_some());
}

#[test]
fn who_is_refused_is_told_nothing_and_tried_again() {
    for depth in ["1", "0"] {
        let hook: fn(&HookRequest) -> Option<HookOutcome> = match depth {
            "1" => |_| Some(failure()),
            _ => |request| Some(if request.arguments[0] == "0" { failure() } else { success() }),
        };
        let (mut net, strings) = show("", hook);
        assert!(net.run_until(60_000, |net| attempts(net) == 3), "{depth}: it is tried again");
        assert!(strings.borrow().logins.is_empty() && !is_up(&mut net), "{depth}");
        assert_eq!(judgements(&net).last().unwrap().arguments[0], depth);
        assert_eq!(net.nodes[1].ended, None);
        net.nodes[1].hook = AGREES;
        assert!(net.run_until(60_000, is_up), "{depth}");
        assert_eq!(strings.borrow().logins.len(), 1);
    }
}

#[test]
fn the_next_remote_follows_one_that_is_refused() {
    let (site, mut net) = (Site::default(), Net::new(7));
    let servers: Vec<_> = ["192.0.2.1:1194", "192.0.2.2:1194"]
        .iter()
        .map(|address| {
            let greeting = vec![PUSH.to_owned()];
            let strings = Rc::new(RefCell::new(Strings { greeting, ..Strings::default() }));
            let puppet = puppet::Puppet::new(net.now, &site.server_config(""), &strings);
            net.add(address, Box::new(puppet));
            strings
        })
        .collect();
    let lines = format!("{LINES}remote 192.0.2.2 1194\n");
    let client = site.client(net.now, "laptop", &lines, 8);
    let client = net.add("198.51.100.7:40000", client);
    net.nodes[client].hook = |request| {
        let good = request.environment.value("untrusted_ip") == Some("192.0.2.2");
        Some(if good { success() } else { failure() })
    };
    assert!(net.run_until(60_000, |net| net.nodes[client].settings.is_some()));
    let logins: Vec<_> = servers.iter().map(|strings| strings.borrow().logins.len()).collect();
    assert_eq!(logins, [0, 1]);
}

#[test]
fn a_judge_has_as_long_as_the_handshake() {
    let (mut net, strings) = show("hand-window 10\n", LATER);
    let slow = asked(&mut net, 1);
    net.run(5_000);
    assert_eq!(attempts(&net), 1);
    let next = asked(&mut net, 2);
    assert_eq!((next.arguments[0].as_str(), attempts(&net)), ("1", 2));
    // Too late is too late, whatever it says.
    answer(&mut net, &slow, failure());
    answer(&mut net, &slow, success());
    net.run(1_000);
    assert_eq!((judgements(&net).len(), attempts(&net)), (2, 2));
    answer(&mut net, &next, success());
    let last = asked(&mut net, 3);
    answer(&mut net, &last, success());
    assert!(net.run_until(5_000, is_up));
    assert_eq!(strings.borrow().logins.len(), 1);
}

/// Whoever starts it, a new key is judged like the first; the tunnel works meanwhile.
#[test]
fn renegotiations_are_judged() {
    for (server, client) in
        [("reneg-sec 60 60\n", "reneg-sec 0\n"), ("reneg-sec 0\n", "reneg-sec 60 60\n")]
    {
        let (mut net, site) = (Net::new(9), Site::default());
        net.add("192.0.2.1:1194", site.server(net.now, server, 9));
        let engine = site.client(net.now, "laptop", &format!("{LINES}{client}"), 10);
        net.add("198.51.100.7:40000", engine);
        assert!(net.run_until(20_000, is_up), "{client}");
        assert_eq!(judgements(&net).len(), 2);
        net.nodes[1].hook = LATER;
        for (depth, count) in ["1", "0"].into_iter().zip(3..) {
            let request = asked(&mut net, count);
            assert_eq!(request.arguments[0], depth, "{client}");
            assert_eq!(request.environment.value("trusted_ip"), Some("192.0.2.1"));
            assert_eq!(request.environment.value("X509_0_CN").is_some(), depth == "0");
            let ping = echo("10.8.0.2".parse().unwrap(), "10.8.0.1".parse().unwrap(), b"meanwhile");
            net.nodes[0].tun.clear();
            net.inject(1, &ping);
            net.run(1_000);
            assert_eq!(net.nodes[0].tun, [ping], "{client}");
            answer(&mut net, &request, success());
        }
        net.run(5_000);
        assert!(is_up(&mut net) && attempts(&net) == 1, "{client}");
        let refused = asked(&mut net, 5);
        answer(&mut net, &refused, failure());
        assert!(!is_up(&mut net), "{client}: the tunnel ends");
        net.nodes[1].hook = AGREES;
        assert!(net.run_until(60_000, is_up), "{client}: and comes again");
        assert_eq!(attempts(&net), 2);
    }
}
