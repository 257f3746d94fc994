//! Texts: control messages, names, addresses, configuration.

use std::path::Path;

use sixgate::client::Client;
use sixgate::config;
use sixgate::engine::{Command, ExitReason};

use crate::common::pki::{CLIENT, Memory, SERVER, Site, load};
use crate::common::puppet::{Puppet, Strings};
use crate::common::raw::{Raw, WAITS};
use crate::common::{net::Net, remarks};
use crate::{SERVER as ADDRESS, count, identity, serve};

/// What is wrong with a configuration that has its certificates: errors first, or else warnings.
fn complaint(lines: &str) -> Result<String, String> {
    let site = Site::default();
    let text = format!(
        "{lines}\n<ca>\n{}</ca>\n<cert>\n{}</cert>\n<key>\n{}</key>\n",
        site.ca.pem, site.server.cert, site.server.key
    );
    let files = Memory([("test.conf".to_owned(), text.into_bytes())].into());
    match config::load_file(Path::new("test.conf"), &files) {
        Ok(loaded) => {
            Ok(loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn refusal(lines: &str) -> String {
    complaint(lines).expect_err(lines)
}

#[test]
fn cve_2016_6329_ciphers_of_64_bit_blocks_are_refused() {
    for cipher in ["BF-CBC", "DES-EDE3-CBC", "CAST5-CBC", "DES-CBC", "RC2-CBC", "IDEA-CBC"] {
        let alone = format!("{SERVER}data-ciphers {cipher}\n");
        assert!(refusal(&alone).contains(cipher));
        // Beside one that is good, or as the fallback, it is left out, and that is said.
        for line in ["data-ciphers AES-256-GCM:", "data-ciphers-fallback "] {
            let text =
                complaint(&format!("{SERVER}{line}{cipher}\n")).unwrap_or_else(|error| error);
            assert!(text.contains(cipher), "{text}");
        }
    }
    // A client that knows no other is told so.
    let site = Site::default();
    let mut net = serve(&site, 800, "");
    let config = load(CLIENT, &site.ca.pem, &identity(&site, "laptop"));
    let mut raw = Raw::saying(&net, &config, "IV_PROTO=2\nIV_CIPHERS=BF-CBC:DES-EDE3-CBC\n");
    raw.talk(&mut net);
    assert!(raw.denied() && count(&net) == 0);
}

#[test]
fn cve_2023_46849_there_is_no_fragment() {
    assert!(refusal(&format!("{SERVER}fragment 1300\n")).contains("fragment"));
}

#[test]
fn cve_2018_9336_2024_4877_2024_24974_2024_27459_2024_27903_2025_13751_2026_63649_no_service_and_no_plugins()
 {
    for line in ["plugin /usr/lib/auth-pam.so", "service exit_event", "cryptoapicert SUBJ:x"] {
        let text = refusal(&format!("{SERVER}{line}\n"));
        assert!(text.contains(line.split(' ').next().unwrap()), "{text}");
    }
}

#[test]
fn cve_2017_7520_2026_11771_2026_63650_no_proxies_and_no_other_names_of_clients() {
    for line in ["http-proxy 192.0.2.9 3128 auto ntlm", "socks-proxy 192.0.2.9 1080"] {
        assert!(refusal(&format!("{CLIENT}{line}\n")).contains("proxy"));
    }
    for field in ["ext:subjectAltName", "serialNumber", "CN,emailAddress"] {
        let text = refusal(&format!("{SERVER}x509-username-field {field}\n"));
        assert!(text.contains("x509-username-field"), "{text}");
    }
}

/// Strings that no control message, name or variable may hold.
const DIRTY: [&str; 6] = ["\n", "\r", "\u{1b}[2J", "\u{7}", "\u{7f}", "\u{0}"];

#[test]
fn cve_2024_5594_control_characters_reach_neither_logs_nor_scripts() {
    let site = Site::default();
    for dirty in DIRTY {
        let lines = "script-security 3\nclient-connect /c\ntls-verify /v\n";
        let mut net = serve(&site, 810, lines);
        let config = load(CLIENT, &site.ca.pem, &identity(&site, &format!("cve5594{dirty}x")));
        let clean = dirty.replace('\n', "");
        let info = format!(
            "IV_PROTO=6\nIV_CIPHERS=AES-256-GCM\nIV_VER=2{clean}6\nIV_PLAT=li{clean}nux\nUV_A=b{clean}c\n"
        );
        let mut raw = Raw::saying(&net, &config, &info);
        raw.talk(&mut net);
        for message in ["PUSH_REQUEST", "EXIT_NOT", "INFO,cve5594", "cve5594"] {
            if raw.session.send_message(&format!("{message}{clean}x")).is_ok() {
                raw.talk(&mut net);
            }
        }
        for command in &net.nodes[0].commands {
            let Command::RunHook(request) = command else { continue };
            let words = request.arguments.iter().map(String::as_str);
            let values = request.environment.iter().map(|(_, value)| value);
            for text in words.chain(values) {
                assert!(!text.contains(char::is_control), "{text:?}");
            }
        }
        for client in net.nodes[0].engine.clients() {
            for text in [client.common_name, client.version, client.platform] {
                assert!(!text.contains(char::is_control), "{text:?}");
            }
        }
    }
    for line in remarks("cve5594") {
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

#[test]
fn cve_2024_5594_only_an_end_of_line_is_cut_from_a_message() {
    let site = Site::default();
    for (message, pushed) in [
        ("PUSH_REQUEST\r\n", 2),
        ("PUSH_REQUEST\n", 2),
        ("PUSH\nREQUEST", 1),
        ("PUSH_REQUEST\u{7}", 1),
    ] {
        let mut net = serve(&site, 820, "");
        let config = load(CLIENT, &site.ca.pem, &identity(&site, "laptop"));
        let mut raw = Raw::new(&net, &config, WAITS);
        raw.talk(&mut net);
        net.run(31_000);
        raw.talk(&mut net);
        raw.say(&mut net, message);
        assert_eq!((count(&net), raw.pushed()), (1, pushed), "{message:?}");
    }
}

/// A client to which a server pushes `option`, and whether it comes up.
fn pushed(option: &str) -> (Net, bool) {
    let site = Site::default();
    let mut net = Net::new(830);
    let now = net.now;
    let strings = std::rc::Rc::new(std::cell::RefCell::new(Strings::default()));
    strings.borrow_mut().greeting =
        vec![format!("PUSH_REPLY,ifconfig 10.8.0.2 255.255.255.0,topology subnet,{option}")];
    net.add(ADDRESS, Box::new(Puppet::new(now, &site.server_config(""), &strings)));
    let client: Box<Client> = site.client(now, "laptop", "", 831);
    let node = net.add("198.51.100.1:40000", client);
    net.run(5_000);
    let up = net.nodes[node].settings.is_some();
    (net, up)
}

#[test]
fn cve_2025_12106_addresses_are_read_whole_or_refused() {
    let long = "1:".repeat(200);
    let wrong = [
        "::1::2",
        "fd00::%eth0",
        "fd00:",
        ":",
        "::ffff:1.2.3",
        "fd00::g",
        "1",
        "",
        &long,
        "fd00::1/64/64",
        "[fd00::1]",
    ];
    for address in wrong {
        for line in [
            "ifconfig-ipv6 A/64 fd00::1",
            "ifconfig-ipv6 fd00::2/64 A",
            "route-ipv6 A/64",
            "route-ipv6 fd01::/64 A",
        ] {
            let (net, _) = pushed(&line.replace('A', address));
            assert!(!matches!(net.nodes[1].ended, Some(ExitReason::Requested)));
            let settings = net.nodes[1].settings.as_ref();
            assert!(settings.is_none_or(
                |settings| settings.v6.is_none() || line.starts_with("ifconfig-ipv6 fd00")
            ));
        }
        assert!(refusal(&format!("dev tun\nserver-ipv6 {address}/64\n")).contains("server-ipv6"));
    }
    let (net, up) = pushed("ifconfig-ipv6 fd00::2/64 fd00::1");
    assert!(up && net.nodes[1].settings.as_ref().unwrap().v6.is_some());
}

#[test]
fn cve_2026_13379_dns_options_of_any_length() {
    let name = "a".repeat(900);
    let many = vec!["d.example"; 80].join(" ");
    for option in [
        format!("dhcp-option DOMAIN {name}"),
        format!("dhcp-option DNS {name}"),
        format!("dns search-domains {many}"),
        format!("dns server 0 address {name}"),
        "dns server -129 address 192.0.2.1".to_owned(),
        "dns server 99999999999 address 192.0.2.1".to_owned(),
        "dns server 0 address 192.0.2.1:99999".to_owned(),
        "dns server 0 address [fd00::1".to_owned(),
        "dns server 0".to_owned(),
        "dns".to_owned(),
        format!("dns server 0 resolve-domains {many}"),
    ] {
        let (net, up) = pushed(&option);
        // Refused or left out: never a panic, never a server or domain that nobody wrote.
        let servers =
            net.nodes[1].settings.as_ref().map_or(0, |settings| settings.dns.servers.len());
        assert!(!up || servers == 0 || option.contains("resolve"), "{option}: {servers}");
    }
}
