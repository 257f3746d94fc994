//! The way in: who is asked, who answers, and what happens meanwhile.

use sixgate::engine::{Command, DropReason, HookOutcome, HookRequest, Reply};
use sixgate::session::PeerIdentity;
use sixgate::wire::key_method::KeyMethod2;
use sixgate::wire::message::Message;

use crate::common::net::Net;
use crate::common::packets::echo;
use crate::common::pki::{CLIENT, Site, Usage, load};
use crate::common::raw::{ASKS, Raw, WAITS};
use crate::{STRANGER, count, drops, identity, join, serve};

const SCRIPTS: &str = "script-security 3\ntls-verify /v\nauth-user-pass-verify /p via-env\n\
    client-connect /c\n";
const LOGIN: &str = "<auth-user-pass>\njo\nsecret\n</auth-user-pass>\n";

fn start(site: &Site, seed: u64, server: &str, client: &str, proto: u32) -> (Net, Raw) {
    let net = serve(site, seed, server);
    let config = load(&format!("{CLIENT}{client}"), &site.ca.pem, &identity(site, "laptop"));
    let raw = Raw::new(&net, &config, proto);
    (net, raw)
}

fn early() -> Vec<u8> {
    echo("10.8.0.2".parse().unwrap(), "10.8.0.1".parse().unwrap(), b"early")
}

/// The ticket of the question that awaits an answer.
fn ticket(net: &Net) -> u64 {
    let request = net.nodes[0].commands.iter().rev().find_map(|command| match command {
        Command::Admit(request) => Some(request.ticket),
        Command::RunHook(request) => request.ticket,
        _ => None,
    });
    request.expect("nobody is asked")
}

#[test]
fn cve_2017_12166_key_method_1_is_not_spoken() {
    let site = Site::default();
    let mut net = serve(&site, 600, "");
    let node = join(&mut net, &site, "laptop", "", 601);
    let home = net.nodes[node].addr;
    // The resets and the data packets of key method 1 had opcodes of their own: 1 and 2.
    for opcode in [1_u8, 2] {
        for from in [home, STRANGER.parse().unwrap()] {
            let mut packet = vec![opcode << 3];
            packet.extend([7; 200]);
            net.deliver(0, from, &packet);
        }
    }
    assert_eq!(drops(&net, DropReason::BadOpcode), 4);
    let mut message = vec![0, 0, 0, 0, 1];
    message.extend([64; 600]);
    assert!(
        KeyMethod2::from_client(&message).is_err() && KeyMethod2::from_server(&message).is_err()
    );
    assert_eq!(count(&net), 1);
}

#[test]
fn cve_2020_15078_nothing_is_pushed_or_carried_before_the_decision() {
    let site = Site::default();
    let (mut net, mut raw) = start(&site, 410, "", "", ASKS);
    // Nobody answers.
    net.nodes[0].decides = false;
    raw.talk(&mut net);
    raw.say(&mut net, "PUSH_REQUEST");
    raw.data(&mut net, &early());
    assert_eq!((count(&net), raw.pushed()), (0, 0));
    assert_eq!(drops(&net, DropReason::NotReady), 1);
    let ticket = ticket(&net);
    net.reply(0, Reply::Admit { ticket: ticket + 1, verdict: Ok(Box::default()) });
    assert_eq!(count(&net), 0, "an answer to another question");
    net.reply(0, Reply::Admit { ticket, verdict: Ok(Box::default()) });
    raw.talk(&mut net);
    assert_eq!((count(&net), raw.pushed()), (1, 1), "the early request is answered now");
    raw.data(&mut net, &early());
    assert!(net.nodes[0].tun.contains(&early()));
}

#[test]
fn cve_2020_15078_a_renegotiation_is_not_over_before_the_decision_either() {
    let site = Site::default();
    let (mut net, mut raw) = start(&site, 411, "", "", WAITS);
    raw.talk(&mut net);
    net.run(10_000);
    net.nodes[0].decides = false;
    raw.session.renegotiate(net.now, &mut raw.rng).unwrap();
    raw.talk(&mut net);
    // Its own key is ready; the server has not agreed to it.
    let before = drops(&net, DropReason::NoKey) + drops(&net, DropReason::NotReady);
    net.run(1_000);
    raw.data(&mut net, &early());
    let after = drops(&net, DropReason::NoKey) + drops(&net, DropReason::NotReady);
    let through = net.nodes[0].tun.contains(&early());
    assert!(after == before + 1 || through, "the old key serves, the new one does not");
    let ticket = ticket(&net);
    net.reply(0, Reply::Admit { ticket, verdict: Err("no longer".into()) });
    raw.talk(&mut net);
    assert_eq!(count(&net), 0);
}

#[test]
fn cve_2022_0547_everybody_who_is_asked_must_agree() {
    let later: fn(&HookRequest) -> Option<HookOutcome> = |_| None;
    let yes = || HookOutcome::Success { settings: String::new() };
    let no = || HookOutcome::Failure { reason: "no".into() };
    for refuses in 0..4 {
        let site = Site::default();
        let (mut net, mut raw) = start(&site, 420 + refuses, SCRIPTS, LOGIN, WAITS);
        net.nodes[0].hook = later;
        net.nodes[0].decides = false;
        let mut asked = 0;
        while !raw.denied() && count(&net) == 0 {
            raw.talk(&mut net);
            assert_eq!(raw.pushed(), 0, "before all have agreed");
            let ticket = ticket(&net);
            let last = net.nodes[0]
                .commands
                .iter()
                .rfind(|command| matches!(command, Command::Admit(_) | Command::RunHook(_)));
            let admit = matches!(last, Some(Command::Admit(_)));
            let agrees = asked != refuses;
            let reply = |agrees: bool| match admit {
                true => {
                    let verdict = if agrees { Ok(Box::default()) } else { Err("no".into()) };
                    Reply::Admit { ticket, verdict }
                }
                false => Reply::HookDone { ticket, outcome: if agrees { yes() } else { no() } },
            };
            net.reply(0, reply(agrees));
            // A second answer is nobody's, and outvotes nobody.
            net.reply(0, reply(true));
            net.reply(0, reply(!agrees));
            asked += 1;
            raw.talk(&mut net);
        }
        assert_eq!((asked, count(&net), raw.pushed()), (refuses + 1, 0, 0), "refused by {refuses}");
    }
}

#[test]
fn cve_2020_11810_nobody_floats_before_there_are_keys() {
    let site = Site::default();
    let (mut net, mut raw) = start(&site, 430, "", "", WAITS);
    net.nodes[0].decides = false;
    raw.talk(&mut net);
    // The place is taken, its number is known, and no data key is there to prove anything.
    for first in [0x48_u8, 0x49, 0x30] {
        for len in [4, 5, 24, 60, 1_400] {
            let mut packet = vec![0; len];
            packet[0] = first;
            net.deliver(0, STRANGER.parse().unwrap(), &packet);
        }
    }
    assert!(drops(&net, DropReason::NotReady) >= 10);
    let ticket = ticket(&net);
    net.reply(0, Reply::Admit { ticket, verdict: Ok(Box::default()) });
    assert_eq!(net.nodes[0].engine.clients()[0].from.peer, raw.addr);
    raw.talk(&mut net);
    assert_eq!(raw.pushed(), 1);
    // With keys, too, only who has them moves.
    let mut forged = vec![0x48, 0, 0, 0];
    forged.extend([9; 100]);
    net.deliver(0, STRANGER.parse().unwrap(), &forged);
    assert_eq!(net.nodes[0].engine.clients()[0].from.peer, raw.addr);
    raw.data(&mut net, &early());
    assert!(net.nodes[0].tun.contains(&early()));
}

#[test]
fn cve_2024_28882_a_goodbye_cannot_be_drawn_out() {
    let site = Site::default();
    let (mut net, mut raw) = start(&site, 440, "", "", WAITS);
    raw.talk(&mut net);
    raw.say(&mut net, "EXIT");
    assert!(count(&net) == 0 && raw.session.is_quiet(), "gone, and the goodbye acknowledged");
    raw.data(&mut net, &early());
    assert_eq!(drops(&net, DropReason::NotReady), 1);
    for _ in 0..4 {
        net.run(1_000);
        raw.say(&mut net, "EXIT");
    }
    net.run(1_500);
    assert_eq!(net.nodes[0].engine.poll_timeout(), None);
}

#[test]
fn cve_2026_13122_a_token_of_any_length_is_only_a_wrong_password() {
    const LINES: &str =
        "script-security 3\nauth-user-pass-verify /p via-env\nauth-gen-token 3600\n";
    let token = "AAAA".repeat(30);
    for len in [0, 1, 2, 3, 15, 16, 40, 79, 80, 81, 100] {
        let site = Site::default();
        let login =
            format!("<auth-user-pass>\njo\nSESS_ID_AT_{}\n</auth-user-pass>\n", &token[..len]);
        let (mut net, mut raw) = start(&site, 450, LINES, &login, WAITS);
        net.nodes[0].hook = |_| panic!("a script is asked about a token");
        raw.talk(&mut net);
        assert_eq!((count(&net), raw.pushed()), (0, 0), "{len}");
        let refused = |message: &Message| matches!(message, Message::AuthFailed(_));
        assert!(raw.messages.iter().any(refused), "{len}: {:?}", raw.messages);
    }
}

#[test]
fn cve_2017_7522_a_nul_ends_no_name() {
    let site = Site::default();
    let mut net = serve(&site, 460, "");
    let config = load(CLIENT, &site.ca.pem, &identity(&site, "admin\0.example.org"));
    let mut raw = Raw::new(&net, &config, WAITS);
    raw.talk(&mut net);
    // Whatever becomes of it, it is not `admin`, and its name holds no control character.
    let clients = net.nodes[0].engine.clients();
    assert!(clients.iter().all(|client| client.common_name != "admin"));
    assert!(clients.iter().all(|client| !client.common_name.contains(char::is_control)));
    // The same with a server that a client takes for another.
    let mut site = Site::default();
    site.server = site.ca.issue("router\0.evil", Usage::Server, 2050, 1);
    let mut net = serve(&site, 461, "");
    let now = net.now;
    let lines = "verify-x509-name router name\n";
    let node = net.add("198.51.100.1:40000", site.client(now, "laptop", lines, 462));
    net.run(5_000);
    assert!(net.nodes[node].settings.is_none(), "a server of another name");
}

/// Extensions that no library of ours knows, twice and damaged.
#[test]
fn cve_2017_7521_2026_63650_certificates_of_any_bytes_are_read_or_refused() {
    let site = Site::default();
    let pem = identity(&site, "laptop").cert;
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    use base64::Engine as _;
    let der = base64::engine::general_purpose::STANDARD.decode(base64).unwrap();
    assert!(PeerIdentity::from_der(&der).is_some());
    for at in 0..der.len() {
        let _ = PeerIdentity::from_der(&der[..at]);
        for value in [0, 1, 0x7f, 0x80, 0x84, 0xff] {
            let mut changed = der.clone();
            changed[at] = value;
            if let Some(identity) = PeerIdentity::from_der(&changed) {
                assert!(!identity.common_name.contains(char::is_control));
            }
        }
    }
}
