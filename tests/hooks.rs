//! Scripts and logins with whole engines: nobody is in before every step has succeeded, whoever
//! answers late answers nobody, and what a script says about a client holds.

use std::net::IpAddr;
use std::time::Duration;

use crate::common::Seeded;
use crate::common::net::Net;
use crate::common::packets::echo;
use crate::common::pki::{CLIENT, Memory, Site};
use base64::Engine as _;
use sixgate::client::Client;
use sixgate::config;
use sixgate::config::hooks::TokenPolicy;
use sixgate::engine::{
    ApprovalRequest, Command, DropReason, ExitReason, HookInput, HookKind, HookOutcome,
    HookRequest, Reply,
};
use sixgate::server::token::{TokenSession, Tokens};
use sixgate::wire::static_key::TokenKey;

const SERVER: &str = "192.0.2.1:1194";
const SCRIPTS: &str = "script-security 3\ntls-verify /v\nauth-user-pass-verify /p via-env\n\
    client-connect /c\nclient-disconnect /d\nlearn-address /l\n";
const LOGIN: &str = "<auth-user-pass>\njo\nsecret\n</auth-user-pass>\n";

/// Nobody answers: the test does.
const LATER: fn(&HookRequest) -> Option<HookOutcome> = |_| None;

fn success(settings: &str) -> HookOutcome {
    HookOutcome::Success { settings: settings.into() }
}

fn failure(reason: &str) -> HookOutcome {
    HookOutcome::Failure { reason: reason.into() }
}

/// A network with a server as node 0 and a client as node 1.
fn net(seed: u64, server: &str, client: &str) -> (Net, Site) {
    let (mut net, site) = (Net::new(seed), Site::default());
    let now = net.now;
    net.add(SERVER, site.server(now, server, seed));
    net.add("198.51.100.1:40000", site.client(now, "laptop", client, seed + 1));
    (net, site)
}

fn scripts(net: &Net) -> Vec<&HookRequest> {
    let mut requests = Vec::new();
    for command in &net.nodes[0].commands {
        if let Command::RunHook(request) = command {
            requests.push(&**request);
        }
    }
    requests
}

/// Kind and arguments of every script, in order.
fn calls(net: &Net) -> Vec<String> {
    let line = |request: &&HookRequest| {
        let words = [request.kind.directive()].into_iter();
        words.chain(request.arguments.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
    };
    scripts(net).iter().map(line).collect()
}

fn is_up(net: &Net) -> bool {
    net.nodes[1].settings.is_some()
}

/// Runs until the server asks for one more script than `seen`, and answers it.
fn answer(net: &mut Net, seen: usize, outcome: HookOutcome) -> HookRequest {
    assert!(
        net.run_until(30_000, |net| scripts(net).len() > seen),
        "script {seen} is not asked for"
    );
    let request = scripts(net)[seen].clone();
    let ticket = request.ticket.expect("somebody waits");
    net.reply(0, Reply::HookDone { ticket, outcome });
    request
}

fn refusal(net: &mut Net) -> String {
    assert!(net.run_until(30_000, |net| net.nodes[1].ended.is_some()), "the client goes on");
    match net.nodes[1].ended.clone() {
        Some(ExitReason::Fatal(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_script_is_asked_in_order_and_sees_what_is_known_by_then() {
    let (mut net, _site) = net(700, SCRIPTS, LOGIN);
    assert!(net.run_until(10_000, is_up_in));
    net.run(1_000);
    assert_eq!(
        calls(&net),
        [
            "tls-verify 1 CN=Test CA",
            "tls-verify 0 CN=laptop",
            "auth-user-pass-verify",
            "client-connect",
            "learn-address add 10.8.0.2 laptop",
            "learn-address add fd00:6::1000 laptop",
        ]
    );
    let all = scripts(&net);
    let value = |at: usize, name: &str| all[at].environment.value(name).map(str::to_owned);
    assert_eq!(value(0, "untrusted_ip").as_deref(), Some("198.51.100.1"));
    assert_eq!(value(0, "X509_1_CN").as_deref(), Some("Test CA"));
    assert_eq!((value(0, "common_name"), value(0, "X509_0_CN")), (None, None));
    assert_eq!(value(1, "common_name").as_deref(), Some("laptop"));
    assert_eq!((value(1, "username"), value(2, "username")), (None, Some("jo".into())));
    assert!(matches!(&all[2].input, HookInput::Credentials { username, password }
        if username == "jo" && **password == "secret"));
    assert_eq!((value(2, "trusted_ip"), value(2, "IV_PROTO").is_some()), (None, true));
    for (name, expected) in [
        ("trusted_ip", "198.51.100.1"),
        ("ifconfig_pool_remote_ip", "10.8.0.2"),
        ("ifconfig_pool_netmask", "255.255.255.0"),
        ("ifconfig_pool_remote_ip6", "fd00:6::1000"),
        ("ifconfig_pool_local_ip6", "fd00:6::1"),
        ("ifconfig_pool_ip6_netbits", "64"),
    ] {
        assert_eq!(value(3, name).as_deref(), Some(expected), "{name}");
    }
    // The password is in none of them.
    assert!(all.iter().all(|one| one.environment.iter().all(|(_, value)| value != "secret")));

    net.reply(0, Reply::Kick("laptop".into()));
    let gone = calls(&net);
    assert_eq!(
        gone[6..],
        ["client-disconnect", "learn-address delete 10.8.0.2", "learn-address delete fd00:6::1000"]
    );
    let last = scripts(&net)[6];
    assert!(last.ticket.is_none() && last.environment.value("time_duration").is_some());
    assert_eq!(last.environment.value("bytes_received"), Some("0"));
}

fn is_up_in(net: &mut Net) -> bool {
    is_up(net)
}

#[test]
fn nobody_is_in_before_every_script_has_agreed() {
    let (mut net, _site) = net(710, SCRIPTS, LOGIN);
    net.nodes[0].hook = LATER;
    for seen in 0..6 {
        net.run(2_000);
        let up = net.nodes[0].engine.clients().len() + usize::from(is_up(&net));
        assert_eq!(up, 0, "in before script {seen}");
        answer(&mut net, seen, success(""));
    }
    assert!(net.run_until(5_000, is_up_in));
}

#[test]
fn any_script_keeps_a_client_out_and_what_it_had_is_free_again() {
    for (fail, told) in [(0, "no"), (1, "no"), (2, "come back on monday"), (3, "no")] {
        let (mut net, site) = net(720 + fail, SCRIPTS, LOGIN);
        net.nodes[0].hook = LATER;
        for seen in 0..fail as usize {
            answer(&mut net, seen, success(""));
        }
        answer(&mut net, fail as usize, failure(told));
        let text = refusal(&mut net);
        assert!(text.contains(told), "{text}");
        assert_eq!(net.nodes[0].engine.clients().len(), 0);
        // Not even an answer that comes twice changes that.
        let ticket = scripts(&net)[fail as usize].ticket.unwrap();
        net.reply(0, Reply::HookDone { ticket, outcome: success("") });
        net.run(10_000);
        assert_eq!(net.nodes[0].engine.clients().len(), 0);
        assert!(!calls(&net).iter().any(|call| call.starts_with("client-disconnect")));
        // Its addresses are free: it gets them when it comes again.
        net.nodes[0].hook = |_| Some(HookOutcome::Success { settings: String::new() });
        let now = net.now;
        let next = net.add("198.51.100.2:40000", site.client(now, "laptop", LOGIN, 800));
        assert!(net.run_until(10_000, |net| net.nodes[next].settings.is_some()));
        let settings = net.nodes[next].settings.clone().unwrap();
        assert_eq!(settings.v4.unwrap().addr().to_string(), "10.8.0.2");
    }
}

#[test]
fn a_client_that_goes_while_a_script_runs_leaves_nothing_behind() {
    let (mut net, _site) = net(730, SCRIPTS, LOGIN);
    net.nodes[0].hook = LATER;
    for seen in 0..5 {
        answer(&mut net, seen, success(""));
    }
    // One address is learnt, the other one's script runs.
    net.nodes[1].off = true;
    assert!(net.run_until(200_000, |net| calls(net).len() > 6));
    assert_eq!(calls(&net)[6..], ["learn-address delete 10.8.0.2"]);
    let late = scripts(&net)[5].ticket.unwrap();
    net.reply(0, Reply::HookDone { ticket: late, outcome: success("") });
    net.run(20_000);
    assert_eq!(net.nodes[0].engine.clients().len(), 0);
    assert_eq!(net.nodes[0].engine.poll_timeout(), None, "something stayed behind");
}

#[test]
fn an_address_that_a_script_refuses_is_not_learnt() {
    let (mut net, _site) = net(740, "script-security 2\nlearn-address /l\n", "");
    net.nodes[0].hook = |request| {
        let veto = request.arguments.get(1).is_some_and(|address| address == "10.8.0.2");
        Some(if veto {
            HookOutcome::Failure { reason: String::new() }
        } else {
            HookOutcome::Success { settings: String::new() }
        })
    };
    assert!(net.run_until(10_000, is_up_in));
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    net.inject(1, &echo(ip("10.8.0.2"), ip("10.8.0.1"), b"x"));
    net.inject(1, &echo(ip("fd00:6::1000"), ip("fd00:6::1"), b"x"));
    net.run(1_000);
    assert_eq!(net.nodes[0].tun.len(), 1);
    assert_eq!(net.nodes[0].engine.drops().of(DropReason::BadSource), 1);
}

#[test]
fn what_client_connect_writes_is_merged_with_the_clients_own_file() {
    let (mut net, _site) = net(
        750,
        "script-security 2\nclient-connect /c\nlearn-address /l\nroute-ipv6 fd66::/48\n",
        "",
    );
    net.nodes[0].hook = LATER;
    let settings = "ifconfig-ipv6-push fd00:6::77/64\niroute-ipv6 fd66::/48\npush \"route 10.55.0.0 255.255.0.0\"\n";
    let asked = answer(&mut net, 0, success(settings));
    assert_eq!(asked.environment.value("ifconfig_pool_remote_ip6"), Some("fd00:6::1000"));
    let learnt: Vec<_> =
        (1..4).map(|seen| answer(&mut net, seen, success("")).arguments.join(" ")).collect();
    assert_eq!(learnt, ["add 10.8.0.2 laptop", "add fd00:6::77 laptop", "add fd66::/48 laptop"]);
    let told = scripts(&net)[1].environment.value("ifconfig_pool_remote_ip6").map(str::to_owned);
    assert_eq!(told.as_deref(), Some("fd00:6::77"));
    assert!(net.run_until(5_000, is_up_in));
    let settings = net.nodes[1].settings.clone().unwrap();
    assert_eq!(settings.v6.unwrap().addr().to_string(), "fd00:6::77");
    assert!(settings.routes.iter().any(|route| route.destination.to_string() == "10.55.0.0/16"));
}

#[test]
fn settings_that_make_no_sense_or_say_no_keep_a_client_out() {
    for (settings, text) in [
        ("disable\n", "disabled"),
        ("frobnicate 1\n", "not usable"),
        ("config /etc/passwd\n", "not usable"),
    ] {
        let (mut net, _site) = net(760, "script-security 2\nclient-connect /c\n", "");
        net.nodes[0].hook = LATER;
        answer(&mut net, 0, success(settings));
        let told = refusal(&mut net);
        assert!(told.contains(text), "{settings}: {told}");
    }
}

#[test]
fn passwords_are_checked_again_at_a_renegotiation_and_tokens_spare_the_script() {
    for (server, checks) in [("", 3), ("auth-gen-token 0 60\n", 1)] {
        let lines = format!(
            "script-security 2\nauth-user-pass-verify /p via-file\nreneg-sec 60 60\n{server}"
        );
        let (mut net, _site) = net(770, &lines, &format!("{LOGIN}reneg-sec 0\n"));
        assert!(net.run_until(10_000, is_up_in));
        net.run(130_000);
        assert_eq!(net.nodes[0].engine.clients().len(), 1, "{server:?}");
        assert_eq!(scripts(&net).len(), checks, "{server:?}");
    }
}

const TOKENS: &str = "script-security 2\nauth-user-pass-verify /p via-file\nreneg-sec 60 60\n";

/// The state of the session and the password that the script is asked about, time after time.
fn logins(net: &Net) -> Vec<(String, String)> {
    let login = |request: &&HookRequest| {
        let HookInput::Credentials { password, .. } = &request.input else { panic!("{request:?}") };
        let state = request.environment.value("session_state").unwrap_or_default();
        (state.to_owned(), password.to_string())
    };
    scripts(net).iter().map(login).collect()
}

#[test]
fn with_external_auth_the_script_is_asked_about_tokens_too() {
    let lines = format!("{TOKENS}auth-gen-token 100 external-auth\n");
    let (mut net, _site) = net(772, &lines, &format!("{LOGIN}reneg-sec 0\n"));
    assert!(net.run_until(10_000, is_up_in));
    net.run(190_000);
    let all = logins(&net);
    let states: Vec<&str> = all.iter().map(|(state, _)| state.as_str()).collect();
    // What a token is worth is for the script to judge, and it says yes each time.
    assert_eq!(states, ["Initial", "Authenticated", "Expired", "Expired"]);
    assert_eq!(all[0].1, "secret");
    assert!(all[1..].iter().all(|(_, password)| password.starts_with("SESS_ID_AT_")));
    let session = |at: usize| scripts(&net)[at].environment.value("session_id").map(str::to_owned);
    assert!(session(0).is_some() && (1..4).all(|at| session(at) == session(0)));
    net.nodes[0].hook = |_| Some(failure("too old"));
    net.run(60_000);
    assert!(refusal(&mut net).contains("too old"));
}

/// Where a user name is optional, tokens are given to those without one as well.
#[test]
fn the_token_of_nobody_in_particular_is_not_good_for_a_name() {
    let bytes = base64::engine::general_purpose::STANDARD.encode([0x5a; 128]);
    let label = "OpenVPN auth-token server key";
    let secret = format!("-----BEGIN {label}-----\n{bytes}\n-----END {label}-----\n");
    let policy = TokenPolicy {
        lifetime: Duration::ZERO,
        renewal: Duration::from_secs(60),
        external: false,
        secret: Some(TokenKey::parse(&secret).unwrap()),
    };
    let start = Net::new(0).now;
    let tokens = Tokens::new(&policy, start, &mut Seeded(1));
    let start = start.unix;
    let given = |name| tokens.issue(TokenSession::begin(start, &mut Seeded(2)), name, start);
    let login = |token: &str| format!("<auth-user-pass>\njo\n{token}\n</auth-user-pass>\n");
    let lines = format!(
        "{TOKENS}auth-user-pass-optional\n<auth-gen-token-secret>\n{secret}</auth-gen-token-secret>\n"
    );
    let plain = format!("{lines}auth-gen-token 0 60\n");
    let (mut own, _site) = net(773, &plain, &login(&given("jo")));
    assert!(own.run_until(10_000, is_up_in) && scripts(&own).is_empty());
    let (mut nobodys, _site) = net(774, &plain, &login(&given("")));
    assert!(refusal(&mut nobodys).contains("token"));
    let (mut asked, _site) =
        net(775, &format!("{lines}auth-gen-token 0 60 external-auth\n"), &login(&given("")));
    assert!(asked.run_until(10_000, is_up_in));
    assert_eq!(logins(&asked)[0].0, "AuthenticatedEmptyUser");
    // Nor is it the state of a question about a code, whose answer would spare the script.
    let answer = format!("CRV1::{}::123456", *given(""));
    let (mut answers, _site) = net(777, &plain, &login(&answer));
    assert!(answers.run_until(10_000, is_up_in));
    assert_eq!(logins(&answers)[0].1, answer);
    let (mut forged, _site) =
        net(776, &format!("{lines}auth-gen-token 0 external-auth\n"), &login("SESS_ID_AT_x"));
    assert!(forged.run_until(10_000, is_up_in));
    assert_eq!(logins(&forged)[0].0, "Invalid");
}

#[test]
fn who_has_forgotten_the_password_at_a_renegotiation_is_out() {
    let lines = "script-security 2\nauth-user-pass-verify /p via-file\nreneg-sec 60 60\n";
    let (mut net, _site) = net(780, lines, &format!("{LOGIN}reneg-sec 0\n"));
    assert!(net.run_until(10_000, is_up_in));
    net.nodes[0].hook = |_| Some(HookOutcome::Failure { reason: "changed".into() });
    net.run(60_000);
    assert!(refusal(&mut net).contains("changed"));
    assert_eq!(net.nodes[0].engine.clients().len(), 0);
}

#[test]
fn without_a_user_name_there_is_no_way_in_unless_it_is_optional() {
    let lines = "script-security 2\nauth-user-pass-verify /p via-file\n";
    let (mut out, _site) = net(790, lines, "");
    assert!(refusal(&mut out).contains("user name"));
    assert!(scripts(&out).is_empty());
    let (mut in_, _site) = net(791, &format!("{lines}auth-user-pass-optional\n"), "");
    assert!(in_.run_until(10_000, is_up_in));
    assert_eq!(scripts(&in_).len(), 1, "the script is asked about nobody, too");
}

#[test]
fn a_user_name_can_stand_in_for_the_common_name() {
    let lines = "script-security 2\nauth-user-pass-verify /p via-file\nclient-connect /c\nusername-as-common-name\n";
    let (mut net, _site) = net(795, lines, LOGIN);
    assert!(net.run_until(10_000, is_up_in));
    assert_eq!(net.nodes[0].engine.clients()[0].common_name, "jo");
    let all = scripts(&net);
    let name = |kind| {
        let request = all.iter().find(|request| request.kind == kind).unwrap();
        request.environment.value("common_name").unwrap().to_owned()
    };
    assert_eq!(name(HookKind::AuthUserPassVerify), "laptop");
    assert_eq!(name(HookKind::ClientConnect), "jo");
}

#[test]
fn a_newer_connection_ends_the_older_one_before_its_script_is_told() {
    let (mut net, site) =
        net(798, "script-security 2\nclient-connect /c\nclient-disconnect /d\n", "");
    assert!(net.run_until(10_000, is_up_in));
    let now = net.now;
    net.nodes[1].off = true;
    let again = net.add("198.51.100.9:40000", site.client(now, "laptop", "", 799));
    assert!(net.run_until(10_000, |net| net.nodes[again].settings.is_some()));
    assert_eq!(calls(&net), ["client-connect", "client-disconnect", "client-connect"]);
    let lanes: Vec<_> = scripts(&net).iter().map(|request| request.lane.clone()).collect();
    assert!(lanes.iter().all(|lane| *lane == lanes[0]), "one waits for the other: {lanes:?}");
}

#[test]
fn a_client_without_a_certificate_comes_in_by_user_name_where_that_is_allowed() {
    let lines = "script-security 2\nauth-user-pass-verify /p via-file\n";
    for (extra, comes_in) in
        [("", false), ("verify-client-cert none\n", true), ("verify-client-cert optional\n", true)]
    {
        let (mut net, site) = (Net::new(801), Site::default());
        let by_name = format!("{lines}{extra}username-as-common-name\n");
        net.add(SERVER, site.server(net.now, &by_name, 801));
        let text = format!("{CLIENT}{LOGIN}<ca>\n{}</ca>\n", site.ca.pem);
        let files = Memory([("jo.conf".to_owned(), text.into_bytes())].into());
        let config = config::load_file("jo.conf", &files).unwrap().config;
        let client = Client::new(config.into(), net.now, Box::new(Seeded(802))).unwrap();
        net.add("198.51.100.1:40000", Box::new(client));
        assert_eq!(net.run_until(20_000, is_up_in), comes_in, "{extra:?}");
        let names: Vec<_> =
            net.nodes[0].engine.clients().into_iter().map(|c| c.common_name).collect();
        assert_eq!(names, if comes_in { vec!["jo"] } else { vec![] });
    }
}

const BY_MANAGEMENT: &str = "management /m unix\nmanagement-client-auth\nreneg-sec 60 60\n";

fn questions(net: &Net) -> Vec<&ApprovalRequest> {
    let commands = net.nodes[0].commands.iter();
    let asked = commands.filter_map(|command| match command {
        Command::AskManagement(request) => Some(&**request),
        _ => None,
    });
    asked.collect()
}

/// Runs until the management program is asked once more than `seen` times, and answers it.
fn decide(net: &mut Net, seen: usize, outcome: HookOutcome) -> ApprovalRequest {
    assert!(net.run_until(90_000, |net| questions(net).len() > seen), "question {seen} is missing");
    let question = questions(net)[seen].clone();
    net.reply(0, Reply::HookDone { ticket: question.ticket, outcome });
    question
}

fn never_minds(net: &Net) -> Vec<u64> {
    let gone = net.nodes[0].commands.iter().filter_map(|command| match command {
        Command::NeverMind(client) => Some(*client),
        _ => None,
    });
    gone.collect()
}

#[test]
fn the_management_program_lets_clients_in_and_may_change_its_mind() {
    let (mut net, site) = net(810, BY_MANAGEMENT, &format!("{LOGIN}reneg-sec 0\n"));
    net.run(5_000);
    assert!(!is_up(&net) && net.nodes[0].engine.clients().is_empty());
    let given = "ifconfig-push 10.8.0.77 255.255.255.0\npush \"route 10.55.0.0 255.255.0.0\"\n";
    let asked = decide(&mut net, 0, success(given));
    assert!(!asked.renegotiation);
    assert_eq!(asked.environment.value("common_name"), Some("laptop"));
    assert_eq!(asked.environment.value("username"), Some("jo"));
    assert!(
        matches!(&asked.input, HookInput::Credentials { password, .. } if **password == "secret")
    );
    assert!(net.run_until(5_000, is_up_in));
    let settings = net.nodes[1].settings.clone().unwrap();
    assert_eq!(settings.v4.unwrap().addr().to_string(), "10.8.0.77");
    assert!(settings.routes.iter().any(|route| route.destination.to_string() == "10.55.0.0/16"));
    assert_eq!(net.nodes[0].engine.clients()[0].id, asked.client);
    // A renegotiation is decided on, too.
    let again = decide(&mut net, 1, success(""));
    assert!(again.renegotiation && again.client == asked.client && again.ticket != asked.ticket);
    net.run(10_000);
    assert_eq!(net.nodes[0].engine.clients().len(), 1);
    decide(&mut net, 2, failure("your time is over"));
    assert!(refusal(&mut net).contains("your time is over"));
    assert_eq!(never_minds(&net), [0; 0], "it was in, so that its end is told otherwise");
    // One that is refused at once is told about, so that the program can forget it.
    net.add("198.51.100.2:40000", site.client(net.now, "phone", LOGIN, 811));
    let other = decide(&mut net, 3, failure("CRV1:R,E:b3Rw:am8=:Code, please"));
    assert_eq!(never_minds(&net), [other.client]);
    assert!(other.client != asked.client);
    net.run(5_000);
    let is_asked = |command: &Command| matches!(command, Command::AskLogin(_));
    assert!(net.nodes[2].settings.is_none() && net.nodes[2].commands.iter().any(is_asked));
}

#[test]
fn a_script_and_the_management_program_both_have_to_agree() {
    let lines = format!("script-security 2\nauth-user-pass-verify /p via-file\n{BY_MANAGEMENT}");
    let (mut net, _site) = net(820, &lines, LOGIN);
    net.nodes[0].hook = LATER;
    assert!(net.run_until(10_000, |net| scripts(net).len() == 1));
    assert!(questions(&net).is_empty(), "the script comes first");
    answer(&mut net, 0, success(""));
    decide(&mut net, 0, failure("no"));
    assert!(refusal(&mut net).contains("no"));
}

#[test]
fn a_client_without_a_password_is_not_asked_about() {
    let (mut net, _site) = net(830, BY_MANAGEMENT, "");
    assert!(refusal(&mut net).contains("user name"));
    assert!(questions(&net).is_empty());
}
