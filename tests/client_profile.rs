//! What single lines of a profile make the client do, as a server sees it that says what it is told
//! to: where it connects, what it says about itself, how it works the data channel, how it leaves.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use crate::common;
use crate::common::net::Net;
use crate::common::packets::{echo, syn};
use crate::common::pki::{Site, static_key};
use crate::common::puppet::{self, PARAMS, Strings};
use sixgate::config::{CipherName, Framing};
use sixgate::engine::{Command, Reply};
use sixgate::session::DataParams;

const PUSH: &str = "PUSH_REPLY,topology subnet,ifconfig 10.8.0.2 255.255.255.0,\
     ifconfig-ipv6 fd00:6::2/64 fd00:6::1";
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);

/// A puppet that works the data channel like this, and a client.
fn show(params: DataParams, push: &str, lines: &str) -> (Net, Rc<RefCell<Strings>>) {
    let greeting = vec![format!("{PUSH}{push}")];
    puppet::show(Strings { greeting, params: Some(params), ..Strings::default() }, lines)
}

fn up(net: &mut Net) -> bool {
    net.run_until(20_000, |net| net.nodes[1].settings.is_some())
}

/// Whether a packet crosses the tunnel in each direction.
fn crosses(net: &mut Net, strings: &Rc<RefCell<Strings>>) -> [bool; 2] {
    let (there, back) =
        (echo(LOCAL.into(), REMOTE.into(), b"there"), echo(REMOTE.into(), LOCAL.into(), b"back"));
    net.inject(1, &there);
    net.inject(0, &back);
    net.run(200);
    [strings.borrow().packets.contains(&there), net.nodes[1].tun.contains(&back)]
}

/// Where the client sends its first packets, in order.
fn tried(net: &Net) -> Vec<IpAddr> {
    let first = net.trace.iter().filter(|packet| packet.bytes[0] >> 3 == 7);
    first.map(|packet| packet.to.ip()).collect()
}

#[test]
fn remote_random_mixes_the_remotes() {
    let others = "remote 192.0.2.2\nremote 192.0.2.3\nremote 192.0.2.4\nconnect-timeout 2\n";
    let first = |lines: &str| -> HashSet<IpAddr> {
        let site = Site::default();
        (0..12)
            .map(|seed| {
                let mut net = Net::new(seed);
                net.add("198.51.100.7:40000", site.client(net.now, "laptop", lines, seed));
                tried(&net)[0]
            })
            .collect()
    };
    assert_eq!(first(others), HashSet::from(["192.0.2.1".parse().unwrap()]));
    assert!(first(&format!("{others}remote-random\n")).len() > 1);
}

#[test]
fn a_name_is_asked_for_with_its_port_and_family() {
    let lines = "<connection>\nremote vpn.example.net 1195 udp6\n</connection>\n\
         <connection>\nremote home.example.net\nproto udp4\n</connection>\n";
    let (mut net, _) = show(PARAMS, "", lines);
    net.run(5_000);
    let asked: Vec<_> = net.nodes[1]
        .commands
        .iter()
        .filter_map(|command| match command {
            Command::Resolve { host, port, family } => Some((host.as_str(), *port, *family)),
            _ => None,
        })
        .collect();
    let wanted = [("vpn.example.net", 1195, Some(true)), ("home.example.net", 1194, Some(false))];
    assert_eq!(asked[..2], wanted);
}

#[test]
fn a_server_that_moves_is_followed_only_with_float() {
    for float in [false, true] {
        let (mut net, strings) = show(PARAMS, "", if float { "float\n" } else { "" });
        assert!(up(&mut net));
        net.nodes[0].addr = SocketAddr::from(([192, 0, 2, 77], 1194));
        net.inject(0, &echo(REMOTE.into(), LOCAL.into(), b"from elsewhere"));
        net.run(100);
        assert_eq!(net.nodes[1].tun.len(), usize::from(float));
        assert_eq!(crosses(&mut net, &strings), [float, float]);
    }
}

#[test]
fn a_block_has_its_own_segment_size() {
    let block =
        |lines: &str| format!("mssfix 0\n<connection>\nremote 192.0.2.1\n{lines}\n</connection>\n");
    let offered = |lines: &str| {
        let (mut net, strings) = show(PARAMS, "", &block(lines));
        assert!(up(&mut net));
        net.inject(1, &syn(LOCAL, REMOTE, 1460));
        net.run(100);
        let packet = strings.borrow().packets[0].clone();
        // The option is the first behind the two headers.
        assert_eq!(packet[40..42], [2, 4]);
        u16::from_be_bytes([packet[42], packet[43]])
    };
    assert_eq!(offered(""), 1460);
    assert!((900..1200).contains(&offered("mssfix 1200")));
}

#[test]
fn the_name_that_comes_with_a_token_is_used_with_it() {
    let lines = "<auth-user-pass>\nalice\nsecret\n</auth-user-pass>\nreneg-sec 20\n";
    let (mut net, strings) = show(PARAMS, ",auth-token word,auth-token-user Ym9i", lines);
    assert!(up(&mut net));
    net.run(21_000);
    let logins: Vec<_> =
        strings.borrow().logins.iter().map(|(name, word)| format!("{name} {word}")).collect();
    assert_eq!(logins, ["alice secret", "bob word"]);
}

#[test]
fn an_update_may_change_how_long_silence_is_borne() {
    let (mut net, strings) = show(PARAMS, ",ping 60,ping-restart 600", "");
    assert!(up(&mut net));
    strings.borrow_mut().say.push_back("PUSH_UPDATE,keepalive 1 4".to_owned());
    net.run(1_000);
    let (pings, before) = (strings.borrow().pings, tried(&net).len());
    net.run(3_000);
    assert!(strings.borrow().pings > pings + 1);
    net.nodes[0].off = true;
    net.run(10_000);
    assert!(tried(&net).len() > before);
}

#[test]
fn a_server_may_send_the_client_to_the_next_remote() {
    for (line, next) in [("RESTART", "192.0.2.1"), ("RESTART,[N]", "192.0.2.9")] {
        let (mut net, strings) = show(PARAMS, "", "remote 192.0.2.9\n");
        assert!(up(&mut net));
        strings.borrow_mut().say.push_back(line.to_owned());
        net.run(3_000);
        let wanted: IpAddr = next.parse().unwrap();
        assert_eq!(tried(&net)[1], wanted, "{line}");
    }
}

#[test]
fn goodbyes_in_the_data_channel_are_repeated_as_told() {
    for (lines, push, count) in [
        ("", "", 3),
        ("explicit-exit-notify 2\n", "", 2),
        ("explicit-exit-notify 2\n", ",explicit-exit-notify 5", 5),
    ] {
        let (mut net, strings) = show(PARAMS, push, lines);
        assert!(up(&mut net));
        net.reply(1, Reply::Shutdown);
        net.run(5_000);
        assert_eq!(strings.borrow().goodbyes, count, "{lines}{push}");
        assert!(net.nodes[1].ended.is_some());
    }
}

#[test]
fn what_the_client_says_about_itself() {
    let about = |lines: &str| {
        let (mut net, strings) = show(PARAMS, "", lines);
        assert!(up(&mut net), "{lines}");
        strings.take().about
    };
    let (options, info) = about("data-ciphers AES-256-GCM:AES-128-GCM\n");
    // As a stock client with these lines has it [5.2].
    assert_eq!(
        options,
        "V4,dev-type tun,link-mtu 1541,tun-mtu 1500,proto UDPv4,auth SHA1,keysize 128,\
         key-method 2,tls-client"
    );
    // All that is done: bits 1 to 4, 7 to 12 [5.3].
    for line in [
        "IV_PLAT=linux",
        "IV_TCPNL=1",
        "IV_NCP=2",
        "IV_CIPHERS=AES-256-GCM:AES-128-GCM",
        "IV_LZO_STUB=1",
        "IV_COMP_STUB=1",
        "IV_COMP_STUBv2=1",
        "IV_MTU=1600",
        "IV_PROTO=8094",
    ] {
        assert!(info.lines().any(|told| told == line), "{line} in\n{info}");
    }
    let (options, info) = about("cipher AES-256-GCM\ncomp-lzo no\n");
    assert_eq!(
        options,
        "V4,dev-type tun,link-mtu 1550,tun-mtu 1500,proto UDPv4,comp-lzo,cipher AES-256-GCM,\
         auth [null-digest],keysize 256,key-method 2,tls-client"
    );
    assert!(info.contains("IV_PROTO="));
}

#[test]
fn the_options_string_names_the_wrapping() {
    use sixgate::session::Role;
    use sixgate::session::occ::options_string;
    let key = static_key();
    let site = Site::default();
    let lines =
        format!("client\nremote 192.0.2.1\nkey-direction 1\n<tls-auth>\n{key}</tls-auth>\n");
    let config = common::pki::load(&lines, &site.ca.pem, &site.server);
    let text = options_string(&config, Role::Client);
    assert!(text.contains(",keydir 1") && text.contains(",tls-auth,"), "{text}");
}

#[test]
fn ciphers_that_the_file_does_not_allow_are_not_used() {
    let (mut net, _) = show(
        DataParams { cipher: CipherName::Aes128Gcm, ..PARAMS },
        ",cipher AES-128-GCM",
        "data-ciphers AES-256-GCM\n",
    );
    assert!(!up(&mut net));
    assert!(common::warned(&["wants AES-128-GCM, which data-ciphers does not allow"]));
}

#[test]
fn a_server_that_names_no_cipher_gets_the_fallback() {
    let strings = || Strings {
        greeting: vec![PUSH.to_owned()],
        options: Some("V4,dev-type tun".to_owned()),
        params: Some(DataParams { cipher: CipherName::Aes128Gcm, ..PARAMS }),
        ..Strings::default()
    };
    let (mut net, said) = puppet::show(strings(), "data-ciphers-fallback AES-128-GCM\n");
    assert!(up(&mut net));
    assert_eq!(crosses(&mut net, &said), [true, true]);
    let (mut net, _) = puppet::show(strings(), "");
    assert!(!up(&mut net));
    assert!(common::warned(&[
        "names no data cipher: give the one it uses as data-ciphers-fallback"
    ]));
    let old = Some("V4,dev-type tun,cipher BF-CBC,auth SHA1".to_owned());
    let (mut net, _) = puppet::show(Strings { options: old, ..strings() }, "");
    assert!(!up(&mut net));
    assert!(common::warned(&[
        "the server wants data cipher 'BF-CBC', which is not supported here: set data-ciphers on the server"
    ]));
}

#[test]
fn a_server_that_falls_silent_in_the_handshake_is_told_from_one_that_is_not_there() {
    for answers in [false, true] {
        let (mut net, _) = puppet::show(Strings::default(), "hand-window 9\nconnect-timeout 30\n");
        let answered =
            |net: &mut Net| net.trace.iter().any(|packet| packet.to == net.nodes[1].addr);
        if answers {
            assert!(net.run_until(5_000, answered));
        }
        net.nodes[0].off = true;
        net.run(15_000);
        let hints = ["fell silent in the TLS handshake", "raise its tls-version-max to 1.2"];
        assert_eq!(common::warned(&hints), answers);
    }
}

#[test]
fn the_framing_of_the_file_counts_until_the_server_names_one() {
    for (lines, framing) in [("comp-lzo\n", Framing::Lzo), ("compress\n", Framing::Swap)] {
        let (mut net, strings) = show(DataParams { framing, ..PARAMS }, "", lines);
        assert!(up(&mut net));
        assert_eq!(crosses(&mut net, &strings), [true, true], "{lines}");
        let (mut net, strings) = show(PARAMS, ",compress migrate", lines);
        assert!(up(&mut net));
        assert_eq!(crosses(&mut net, &strings), [true, true], "{lines}");
    }
}
