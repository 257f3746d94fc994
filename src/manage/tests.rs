//! Known answers: what a real OpenVPN 2.6.14 server and client answered to the same lines, and
//! random input.

use core::time::Duration;

use super::console::{Console, Settings};
use super::*;
use crate::engine::Endpoint;
use crate::time::Instant;

/// Enough of a calendar for the few times used here.
fn date(time: UnixTime) -> String {
    let seconds = time.0 - 1_795_456_100;
    format!("2026-11-23 17:48:{:02}", seconds + 20)
}

fn client(id: u64, name: &str, from: &str, v4: &str, v6: &str) -> ClientInfo {
    ClientInfo {
        peer: PeerId(id as u32),
        id,
        common_name: name.into(),
        username: String::new(),
        from: Endpoint::new(from.parse().unwrap()),
        v4: v4.parse().ok(),
        also: Vec::new(),
        v6: v6.parse().ok(),
        networks: Vec::new(),
        since: 1_795_456_108,
        heard: Instant::from_millis(2_000),
        expires: Some(UnixTime(1_800_000_000)),
        bytes_in: 1758,
        bytes_out: 1861,
        cipher: "AES-256-GCM",
        version: "2.6.14".into(),
        platform: "linux".into(),
        reason: String::new(),
    }
}

pub(super) fn view(clients: Vec<ClientInfo>) -> View {
    let traffic = Traffic { link_in: 1838, link_out: 1967, tun_in: 4, tun_out: 5 };
    View {
        now: UnixTime(1_795_456_114),
        mono: Instant::from_millis(5_000),
        date,
        pid: 11_266,
        verb: 3,
        clients,
        traffic,
    }
}

pub(super) fn alice() -> Vec<ClientInfo> {
    vec![client(0, "alice", "[::1]:40568", "10.8.0.6", "fd00:10:8::1000")]
}

pub(super) fn settings(server: bool) -> Settings {
    Settings { server, password: None, log_lines: 250, hold: false, query: false }
}

pub(super) fn connected(settings: Settings) -> Console {
    let mut console = Console::new(settings);
    console.connect();
    take(&mut console);
    console
}

pub(super) fn take(console: &mut Console) -> String {
    let text = String::from_utf8(console.output().to_vec()).unwrap();
    console.sent(text.len());
    text.replace("\r\n", "\n")
}

/// Sends a line; the answer and what is to be done.
pub(super) fn ask(console: &mut Console, view: &View, line: &str) -> (String, Vec<Action>) {
    console.input(line.as_bytes());
    console.input(b"\n");
    let mut actions = Vec::new();
    while let Some(action) = console.next(Instant::ZERO, view) {
        actions.push(action);
    }
    (take(console), actions)
}

const STATUS_1: &str = "\
OpenVPN CLIENT LIST
Updated,2026-11-23 17:48:34
Common Name,Real Address,Bytes Received,Bytes Sent,Connected Since
alice,::1,1758,1861,2026-11-23 17:48:28
ROUTING TABLE
Virtual Address,Common Name,Real Address,Last Ref
10.8.0.6,alice,::1,2026-11-23 17:48:28
fd00:10:8::1000,alice,::1,2026-11-23 17:48:28
GLOBAL STATS
Max bcast/mcast queue length,0
END
";

const STATUS_2: &str = "\
TIME,2026-11-23 17:48:34,1795456114
HEADER,CLIENT_LIST,Common Name,Real Address,Virtual Address,Virtual IPv6 Address,Bytes Received,Bytes Sent,Connected Since,Connected Since (time_t),Username,Client ID,Peer ID,Data Channel Cipher
CLIENT_LIST,alice,::1,10.8.0.6,fd00:10:8::1000,1758,1861,2026-11-23 17:48:28,1795456108,UNDEF,0,0,AES-256-GCM
HEADER,ROUTING_TABLE,Virtual Address,Common Name,Real Address,Last Ref,Last Ref (time_t)
ROUTING_TABLE,10.8.0.6,alice,::1,2026-11-23 17:48:28,1795456108
ROUTING_TABLE,fd00:10:8::1000,alice,::1,2026-11-23 17:48:28,1795456108
GLOBAL_STATS,Max bcast/mcast queue length,0
GLOBAL_STATS,dco_enabled,0
END
";

#[test]
fn status_is_printed_as_by_a_stock_server() {
    let view = view(alice());
    assert_eq!(status::server(&view, status::Format::V1), STATUS_1);
    let title = format!("TITLE,{TITLE}\n");
    assert_eq!(status::server(&view, status::Format::V2), title.clone() + STATUS_2);
    let tabs = (title + STATUS_2).replace(',', "\t");
    assert_eq!(status::server(&view, status::Format::V3), tabs);
    let mut console = connected(settings(true));
    for (line, text) in [("status", STATUS_1), ("status 1", STATUS_1), ("status 3", &tabs)] {
        assert_eq!(ask(&mut console, &view, line), (text.to_owned(), vec![]));
    }
    let bad = "ERROR: bad status format version number\n".to_owned();
    assert_eq!(ask(&mut console, &view, "status 4").0, bad);
}

#[test]
fn names_cannot_break_a_format() {
    let mut clients = alice();
    clients[0].common_name = "a,b\tc\r\nEND\n".into();
    clients[0].username = "x,y".into();
    clients[0].from = Endpoint::new("203.0.113.7:40000".parse().unwrap());
    clients[0].networks.push("fd00:77::/48".parse().unwrap());
    let view = view(clients);
    let lines = |format| status::server(&view, format).lines().count();
    assert_eq!(lines(status::Format::V1), STATUS_1.lines().count() + 1);
    let v2 = status::server(&view, status::Format::V2);
    let row = v2.lines().find(|line| line.starts_with("CLIENT_LIST")).unwrap();
    assert!(row.starts_with("CLIENT_LIST,a_b_c__END_,203.0.113.7:40000,10.8.0.6,"), "{row}");
    assert_eq!(row.split(',').count(), 13);
    assert!(row.contains(",x_y,"));
    assert!(v2.contains("\nROUTING_TABLE,fd00:77::/48,a_b_c__END_,"));
    let v3 = status::server(&view, status::Format::V3);
    assert!(v3.contains("CLIENT_LIST\ta,b_c__END_\t"));
    let json =
        json::status(&view, &Overview { dropped: vec![("replay", 3)], ..Overview::default() });
    assert!(json.contains(r#""name":"a,b\u0009c\u000d\u000aEND\u000a""#), "{json}");
    assert!(json.ends_with("\"dropped\":{\"replay\":3}}\n"));
}

#[test]
fn a_client_has_a_status_of_its_own() {
    let mut console = connected(settings(false));
    let text = "OpenVPN STATISTICS\nUpdated,2026-11-23 17:48:34\nTUN/TAP read bytes,4\n\
                TUN/TAP write bytes,5\nTCP/UDP read bytes,1838\nTCP/UDP write bytes,1967\n\
                Auth read bytes,5\nEND\n";
    assert_eq!(ask(&mut console, &view(vec![]), "status 5").0, text);
}

/// Lines and the answers that OpenVPN 2.6.14 gave as a server with one client.
const SERVER_ANSWERS: &[(&str, &str)] = &[
    ("pid", "SUCCESS: pid=11266"),
    ("state x", "ERROR: state parameter must be 'on' or 'off' or some number n or 'all'"),
    ("state on", "SUCCESS: real-time state notification set to ON"),
    ("log", "ERROR: the 'log' command requires at least 1 parameter"),
    ("log x", "ERROR: log parameter must be 'on' or 'off' or some number n or 'all'"),
    ("log on", "SUCCESS: real-time log notification set to ON"),
    ("log off", "SUCCESS: real-time log notification set to OFF"),
    ("foo", "ERROR: unknown command, enter 'help' for more options"),
    ("echo", "ERROR: the 'echo' command requires at least 1 parameter"),
    ("echo on", "SUCCESS: real-time echo notification set to ON"),
    ("echo all", "END"),
    ("hold", "SUCCESS: hold=0"),
    ("hold on", "SUCCESS: hold flag set to ON"),
    ("hold off", "SUCCESS: hold flag set to OFF"),
    ("hold x", "ERROR: bad hold command parameter"),
    ("hold release", "SUCCESS: hold release succeeded"),
    ("bytecount", "ERROR: the 'bytecount' command requires 1 parameter"),
    ("bytecount 1", "SUCCESS: bytecount interval changed"),
    ("bytecount 0", "SUCCESS: bytecount interval changed"),
    ("kill", "ERROR: the 'kill' command requires 1 parameter"),
    ("kill 1.2.3.4:5", "ERROR: client at address 1.2.3.4:5 not found"),
    ("kill 1.2.3.4:99999", "ERROR: port number is out of range: 99999"),
    ("kill x:5", "ERROR: error parsing IP address: x"),
    ("kill \"nobody here\"", "ERROR: common name 'nobody here' not found"),
    ("kill \"\"", "ERROR: kill parse"),
    ("client-kill", "ERROR: the 'client-kill' command requires at least 1 parameter"),
    ("client-kill x", "ERROR: cannot parse CID"),
    ("client-kill 77", "ERROR: client-kill command failed"),
    ("signal", "ERROR: the 'signal' command requires 1 parameter"),
    ("signal SIGFOO", "ERROR: signal 'SIGFOO' is not a known signal type"),
    ("signal SIGUSR2", "SUCCESS: signal SIGUSR2 thrown"),
    ("verb", "SUCCESS: verb=3"),
    ("verb 4", "SUCCESS: verb level changed"),
    ("verb 99", "ERROR: verb level is out of range"),
    ("verb x", "SUCCESS: verb level changed"),
    ("mute", "SUCCESS: mute=0"),
    ("mute 5", "SUCCESS: mute level changed"),
    ("mute -1", "ERROR: mute level is out of range"),
    ("load-stats", "SUCCESS: nclients=1,bytesin=1838,bytesout=1967"),
    ("nclients", "SUCCESS: nclients=1"),
    ("env-filter 1", "SUCCESS: env_filter_level=1"),
    ("auth-retry", "SUCCESS: auth-retry=none"),
    ("net", "ERROR: Sorry, this command is currently only implemented on Windows"),
    ("remote ACCEPT", "ERROR: The 'remote' command is not supported by the current daemon mode"),
    (
        "remote-entry-count",
        "ERROR: The 'remote-entry-count' command is not supported by the current daemon mode",
    ),
    ("remote-entry-get", "ERROR: the 'remote-entry-get' command requires at least 1 parameter"),
    ("proxy", "ERROR: the 'proxy' command requires at least 1 parameter"),
    ("forget-passwords", "SUCCESS: Passwords were forgotten"),
    ("needok", "ERROR: the 'needok' command requires 2 parameters"),
    ("needok a b", "ERROR: no needok-confirmation is currently needed at this time"),
    ("username a b", "ERROR: no username is currently needed at this time"),
    ("password a b", "ERROR: no password is currently needed at this time"),
    ("pk-sig", "ERROR: The pk-sig command is not currently available"),
    ("version 3", ""),
    ("", ""),
    ("  ", ""),
    ("\"unterminated", "ERROR: Options error: No closing quotation (\") in TCP:0"),
];

#[test]
fn answers_are_those_of_a_stock_server() {
    let mut console = connected(settings(true));
    for (line, expected) in SERVER_ANSWERS {
        let (answer, _) = ask(&mut console, &view(alice()), line);
        assert_eq!(answer.trim_end(), *expected, "{line}");
    }
    let (version, _) = ask(&mut console, &view(vec![]), "version");
    assert_eq!(version, format!("OpenVPN Version: {TITLE}\nManagement Version: 5\nEND\n"));
    let (help, _) = ask(&mut console, &view(vec![]), "help");
    assert!(help.starts_with("Management Interface for OpenVPN 2.6") && help.ends_with("\nEND\n"));
}

#[test]
fn answers_are_those_of_a_stock_client() {
    let mut console = connected(settings(false));
    let unsupported = |name: &str| {
        format!("ERROR: The '{name}' command is not supported by the current daemon mode")
    };
    for line in ["kill x", "client-kill 0", "nclients"] {
        let name = line.split(' ').next().unwrap();
        let (answer, actions) = ask(&mut console, &view(vec![]), line);
        assert_eq!((answer.trim_end(), actions), (unsupported(name).as_str(), vec![]));
    }
    let remote = ask(&mut console, &view(vec![]), "remote ACCEPT").0;
    assert_eq!(remote, "ERROR: remote command failed\n");
}

#[test]
fn kill_takes_names_and_addresses() {
    let clients = vec![
        client(4, "a phone", "203.0.113.7:40000", "10.8.0.2", ""),
        client(5, "a phone", "[2001:db8::7]:40001", "10.8.0.3", ""),
        client(6, "x:5", "[2001:db8::7]:40002", "10.8.0.4", ""),
    ];
    let view = view(clients);
    let mut console = connected(settings(true));
    let mut kill = |what: &str| ask(&mut console, &view, &format!("kill {what}"));
    let kick = |ids: &[u32]| vec![Action::Kick(ids.iter().map(|id| PeerId(*id)).collect())];
    for (what, answer, ids) in [
        ("\"a phone\"", "SUCCESS: common name 'a phone' found, 2 client(s) killed\n", &[4, 5][..]),
        ("x:5", "SUCCESS: common name 'x:5' found, 1 client(s) killed\n", &[6]),
        ("203.0.113.7:40000", "SUCCESS: 1 client(s) at address 203.0.113.7:40000 killed\n", &[4]),
        (
            "udp:203.0.113.7:40000",
            "SUCCESS: 1 client(s) at address 203.0.113.7:40000 killed\n",
            &[4],
        ),
        (
            "udp6:[2001:db8::7]:40001",
            "SUCCESS: 1 client(s) at address [2001:db8::7]:40001 killed\n",
            &[5],
        ),
        ("2001:db8::7", "SUCCESS: 2 client(s) at address 2001:db8::7 killed\n", &[5, 6]),
    ] {
        assert_eq!(kill(what), (answer.to_owned(), kick(ids)), "{what}");
    }
    let gone = "ERROR: client at address [2001:db8::7]:1 not found\n".to_owned();
    assert_eq!(kill("[2001:db8::7]:1"), (gone, vec![]));
    let killed = "SUCCESS: client-kill command succeeded\n".to_owned();
    assert_eq!(ask(&mut console, &view, "client-kill 5"), (killed.clone(), kick(&[5])));
    let halt = vec![Action::Halt(PeerId(6))];
    assert_eq!(ask(&mut console, &view, "client-kill 6 HALT"), (killed, halt));
}

#[test]
fn states_and_log_lines_are_remembered_and_reported() {
    let mut console = connected(settings(true));
    let nowhere = [None; 2];
    console.state(UnixTime(5), TunnelState::Connecting, "", Addresses::default(), nowhere);
    let own = Addresses { v4: "10.8.0.1".parse().ok(), v6: "fd00:10:8::1".parse().ok() };
    console.state(UnixTime(5), TunnelState::Connected, "SUCCESS", own, nowhere);
    let view = view(vec![]);
    let both = "5,CONNECTING,,,,,,\n5,CONNECTED,SUCCESS,10.8.0.1,,,,,fd00:10:8::1\nEND\n";
    assert_eq!(ask(&mut console, &view, "state all").0, both);
    let last = "5,CONNECTED,SUCCESS,10.8.0.1,,,,,fd00:10:8::1\nEND\n";
    assert_eq!(ask(&mut console, &view, "state").0, last);
    let on = "SUCCESS: real-time state notification set to ON\n";
    assert_eq!(ask(&mut console, &view, "state on 1").0, on.to_owned() + last);
    let remote = ["[2001:db8::1]:1194".parse().ok(), None];
    console.state(UnixTime(7), TunnelState::Connected, "SUCCESS", own, remote);
    let line = ">STATE:7,CONNECTED,SUCCESS,10.8.0.1,2001:db8::1,1194,,,fd00:10:8::1\n";
    assert_eq!(take(&mut console), line);

    console.log_line(UnixTime(8), log::Level::Info, "one");
    console.log_line(UnixTime(9), log::Level::Warn, "two\nlines");
    assert_eq!(ask(&mut console, &view, "log 2").0, "8,I,one\n9,W,two_lines\nEND\n");
    assert_eq!(ask(&mut console, &view, "log 1").0, "9,W,two_lines\nEND\n");
    ask(&mut console, &view, "log on");
    console.log_line(UnixTime(9), log::Level::Debug, "x");
    console.log_line(UnixTime(9), log::Level::Error, "y");
    assert_eq!(take(&mut console), ">LOG:9,D,x\n>LOG:9,N,y\n");
}

#[test]
fn clients_are_reported_as_they_come_and_go() {
    let mut console = connected(settings(true));
    let mut clients = alice();
    console.client_up(&clients[0], 1);
    let environment = "\
>CLIENT:ENV,common_name=alice
>CLIENT:ENV,trusted_ip6=::1
>CLIENT:ENV,trusted_port=40568
>CLIENT:ENV,untrusted_ip6=::1
>CLIENT:ENV,untrusted_port=40568
>CLIENT:ENV,ifconfig_pool_remote_ip=10.8.0.6
>CLIENT:ENV,ifconfig_pool_remote_ip6=fd00:10:8::1000
>CLIENT:ENV,IV_VER=2.6.14
>CLIENT:ENV,IV_PLAT=linux
>CLIENT:ENV,time_unix=1795456108
>CLIENT:ENV,END
";
    let addresses = ">CLIENT:ADDRESS,0,10.8.0.6,1\n>CLIENT:ADDRESS,0,fd00:10:8::1000,1\n";
    let up = format!(">CLIENT:ESTABLISHED,0\n>CLIENT:ENV,n_clients=1\n{environment}{addresses}");
    assert_eq!(take(&mut console), up);

    ask(&mut console, &view(clients.clone()), "bytecount 2");
    let due = Instant::ZERO + Duration::from_secs(2);
    assert_eq!(console.poll_timeout(), Some(due));
    console.handle_timeout(due, &view(clients.clone()));
    assert_eq!(take(&mut console), ">BYTECOUNT_CLI:0,1758,1861\n");
    let next = due + Duration::from_secs(2);
    console.handle_timeout(next, &view(clients.clone()));
    assert_eq!(take(&mut console), "", "nothing has changed");
    clients[0].bytes_in = 1759;
    console.handle_timeout(next + Duration::from_secs(2), &view(clients.clone()));
    assert_eq!(take(&mut console), ">BYTECOUNT_CLI:0,1759,1861\n");

    console.client_down(UnixTime(1_795_456_110), &clients[0]);
    let down = ">CLIENT:DISCONNECT,0\n>CLIENT:ENV,bytes_received=1759\n\
                >CLIENT:ENV,bytes_sent=1861\n>CLIENT:ENV,time_duration=2\n";
    assert_eq!(take(&mut console), down.to_owned() + environment);

    let mut console = connected(settings(false));
    ask(&mut console, &view(vec![]), "bytecount 1");
    console.handle_timeout(Instant::from_millis(1500), &view(vec![]));
    assert_eq!(take(&mut console), ">BYTECOUNT:1838,1967\n");
}

#[test]
fn a_password_comes_first_and_then_the_hold() {
    let password = Some("secret".to_owned().into());
    let mut console = Console::new(Settings { password, hold: true, ..settings(false) });
    console.connect();
    let view = view(vec![]);
    assert_eq!(take(&mut console), "ENTER PASSWORD:");
    assert_eq!(ask(&mut console, &view, "wrong").0, "ENTER PASSWORD:");
    console.log_line(UnixTime(1), log::Level::Error, "not for strangers");
    let welcome = "SUCCESS: password is correct\n\
         >INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info\n\
         >HOLD:Waiting for hold release:0\n";
    assert_eq!(ask(&mut console, &view, "secret").0, welcome);
    let status = "ERROR: The 'status' command is not supported by the current daemon mode\n";
    assert_eq!(ask(&mut console, &view, "status").0, status);
    assert_eq!(ask(&mut console, &view, "hold").0, "SUCCESS: hold=1\n");
    let (ignored, actions) = ask(&mut console, &view, "signal SIGHUP");
    assert!(ignored.starts_with("ERROR: signal 'SIGHUP' is currently ignored\n>HOLD:"));
    assert_eq!(actions, []);
    let (_, actions) = ask(&mut console, &view, "signal SIGTERM");
    assert_eq!(actions, [Action::Signal(Signal::Term)]);
    assert!(console.is_holding());
    assert_eq!(ask(&mut console, &view, "hold release").0, "SUCCESS: hold release succeeded\n");
    assert!(!console.is_holding());
    ask(&mut console, &view, "quit");
    assert!(console.is_finished());
}

#[test]
fn lines_of_a_decision_are_no_commands() {
    let mut console = connected(settings(true));
    let view = view(alice());
    assert_eq!(ask(&mut console, &view, "client-auth 0 0"), (String::new(), vec![]));
    assert_eq!(ask(&mut console, &view, "signal SIGTERM"), (String::new(), vec![]));
    let failed = "ERROR: client-auth command failed\n".to_owned();
    assert_eq!(ask(&mut console, &view, "END"), (failed, vec![]));
}

/// What comes of these bytes in pieces of `sizes`, with their pseudo-random order repeatable.
fn outcome(bytes: &[u8], mut size: impl FnMut() -> usize) -> (String, Vec<Action>) {
    let mut console = connected(settings(true));
    let view = view(alice());
    let (mut rest, mut actions, mut text) = (bytes, Vec::new(), String::new());
    while !rest.is_empty() && console.room() > 0 {
        let (piece, tail) = rest.split_at(size().min(rest.len()).min(console.room()));
        rest = tail;
        console.input(piece);
        while let Some(action) = console.next(Instant::ZERO, &view) {
            actions.push(action);
        }
        text += &take(&mut console);
    }
    (text, actions)
}

#[test]
fn random_input_in_any_pieces_gives_the_same() {
    let mut state = 0x5eed_u64;
    let mut next = move |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % bound
    };
    for _ in 0..300 {
        let mut bytes = Vec::new();
        for _ in 0..next(40) {
            let (line, _) = SERVER_ANSWERS[next(SERVER_ANSWERS.len())];
            bytes.extend(line.bytes());
            if next(4) == 0 {
                bytes.extend((0..next(60)).map(|_| next(256) as u8));
            }
            if next(3) == 0 && !bytes.is_empty() {
                let at = next(bytes.len());
                bytes[at] = next(256) as u8;
            }
            bytes.push(b'\n');
        }
        let whole = outcome(&bytes, || 256);
        assert_eq!(outcome(&bytes, || 1), whole);
        assert_eq!(outcome(&bytes, || 1 + next(50)), whole);
    }
}
