//! Clocks that jump and machines that sleep: nobody is dropped for the one, and after the other nobody
//! waits longer than necessary.

use crate::common::clients::{add, join, serve};
use crate::common::net::Net;
use crate::common::pki::{Site, static_key};
use sixgate::engine::{Command, Reply};

const HOUR: i64 = 3600;

/// Connections that a client has begun.
fn attempts(net: &Net, node: usize) -> usize {
    let from = net.nodes[node].addr;
    net.trace.iter().filter(|packet| packet.from == from && packet.bytes[0] >> 3 == 7).count()
}

fn sent(net: &Net, node: usize) -> usize {
    net.trace.iter().filter(|packet| packet.from == net.nodes[node].addr).count()
}

fn clients(net: &Net) -> usize {
    net.nodes[0].engine.clients().len()
}

/// The client at `node` sleeps, and wakes to what its host tells it then; how many packets it sends at
/// once.
fn sleep(net: &mut Net, node: usize, seconds: u64) -> usize {
    net.nodes[node].off = true;
    net.run(seconds * 1000);
    net.nodes[node].off = false;
    let before = sent(net, node);
    net.reply(node, Reply::NetworkChanged);
    net.run(1);
    sent(net, node) - before
}

#[test]
fn who_has_slept_long_connects_again_at_once() {
    let site = Site::default();
    let mut net = serve(&site, 11, "");
    let node = join(&mut net, &site, "laptop", "", 12);
    sleep(&mut net, node, 8 * 3600);
    assert_eq!(clients(&net), 0, "the server has given up");
    assert_eq!(attempts(&net, node), 1);
    let back = |net: &mut Net| clients(net) == 1 && net.nodes[node].settings.is_some();
    assert!(net.run_until(1_200, back), "not after the shortest pause");
    assert_eq!(attempts(&net, node), 2);
}

#[test]
fn who_has_slept_while_waiting_to_try_again_tries_at_once() {
    let site = Site::default();
    let mut net = serve(&site, 21, "");
    let node = join(&mut net, &site, "laptop", "connect-retry 300\nconnect-timeout 5\n", 22);
    net.nodes[0].off = true;
    net.run(90_000);
    let before = attempts(&net, node);
    sleep(&mut net, node, 30);
    net.run(1);
    assert_eq!(attempts(&net, node), before + 1);
}

#[test]
fn a_nap_costs_nothing() {
    let site = Site::default();
    let mut net = serve(&site, 31, "");
    let node = join(&mut net, &site, "laptop", "", 32);
    assert!(sleep(&mut net, node, 30) > 0, "the server hears from where it is now");
    net.run(300_000);
    assert_eq!((attempts(&net, node), clients(&net)), (1, 1));
}

#[test]
fn nobody_is_dropped_because_somebody_sets_the_clock() {
    let site = Site::default();
    for seconds in [HOUR, -HOUR, 300 * 24 * HOUR, -300 * 24 * HOUR] {
        let key = format!("<tls-crypt>\n{}</tls-crypt>\n", static_key());
        let lines = "script-security 2\nauth-user-pass-verify /p via-file\nreneg-sec 60 60\n\
                     auth-gen-token 7200 600\n";
        let mut net = serve(&site, 41, &format!("{lines}{key}"));
        let login = "<auth-user-pass>\njo\nsecret\n</auth-user-pass>\nreneg-sec 0\n";
        let nodes = [("one", 42), ("two", 43)]
            .map(|(name, seed)| join(&mut net, &site, name, &format!("{login}{key}"), seed));
        net.run(30_000);
        net.wall = seconds;
        net.run(400_000);
        net.wall = 0;
        net.run(400_000);
        for node in nodes {
            assert_eq!(attempts(&net, node), 1, "{seconds}");
        }
        assert_eq!(clients(&net), 2, "{seconds}");
        let scripts = net.nodes[0].commands.iter();
        let checked = scripts.filter(|command| matches!(command, Command::RunHook(_))).count();
        assert_eq!(checked, 2, "{seconds}: tokens are as good as they were");
    }
}

#[test]
fn a_server_that_vanishes_in_the_handshake_is_not_waited_for_long() {
    let site = Site::default();
    let mut net = serve(&site, 51, "");
    let node = add(&mut net, &site, "laptop", "connect-retry 1\n", 52);
    let answered = |net: &mut Net| net.trace.iter().any(|packet| packet.bytes[0] >> 3 == 8);
    assert!(net.run_until(5_000, answered));
    // Another one in its place: it knows nothing of the first one's sessions.
    net.nodes[0].engine = site.server(net.now, "", 53);
    assert!(net.run_until(20_000, |net| net.nodes[node].settings.is_some()), "it begins anew");
    assert_eq!(attempts(&net, node), 2);
}

#[test]
fn a_server_that_thinks_is_waited_for() {
    let site = Site::default();
    let mut net = serve(&site, 61, "");
    net.nodes[0].decides = false;
    let node = add(&mut net, &site, "laptop", "hand-window 100\n", 62);
    net.run(50_000);
    assert_eq!(attempts(&net, node), 1);
}
