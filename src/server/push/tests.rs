//! What clients are told, word by word.

use super::*;
use crate::config::ccd::{FixedV4, FixedV6};
use crate::config::{CipherName, PoolV4, PoolV6};

fn terms() -> Terms {
    Terms {
        cipher: CipherName::Aes256Gcm,
        framing: Framing::None,
        push_cipher: true,
        exporter: true,
        cc_exit: true,
        dynamic_tls_crypt: true,
        epoch: false,
        data_v2: true,
        tun_mtu: Some(1500),
    }
}

#[test]
fn flags_hold_only_the_words_the_client_knows() {
    let flags = |change: fn(&mut Terms)| {
        let mut terms = terms();
        change(&mut terms);
        protocol_flags(&terms)
    };
    let all = Some("protocol-flags cc-exit tls-ekm dyn-tls-crypt".to_owned());
    assert_eq!(flags(|_| ()), all);
    let plain = Some("protocol-flags cc-exit".to_owned());
    assert_eq!(flags(|t| (t.exporter, t.dynamic_tls_crypt) = (false, false)), plain);
    assert_eq!(flags(|t| t.cc_exit = false), Some("key-derivation tls-ekm".to_owned()));
    assert_eq!(flags(|t| (t.cc_exit, t.exporter) = (false, false)), None);
}

fn role(topology: Topology) -> ServerRole {
    let net = "10.8.0.0/24".parse().unwrap();
    ServerRole {
        connect_rate: None,
        push_constraint: None,
        topology,
        v4: "10.8.0.1/24".parse().ok(),
        v4_peer: (topology != Topology::Subnet).then(|| [10, 8, 0, 2].into()),
        v6: "fd00:6::1/64".parse().ok(),
        v4_pool: Some(PoolV4::of_network(net, topology)),
        v6_pool: "fd00:6::/64".parse().ok().map(PoolV6::of_prefix),
        follow: None,
        delegate: None,
        routes: Vec::new(),
        export: None,
        push: Vec::new(),
        client_files: None,
        client_to_client: false,
        max_clients: 4,
        duplicate_cn: false,
        exit_notify: 0,
        inactive: None,
        session_timeout: None,
        initial_rate: (1, core::time::Duration::from_secs(1)),
        force_cookie: false,
        login: crate::config::hooks::Login::default(),
        pool_persist: None,
    }
}

fn lease(v4: &str, v6: &str) -> Lease {
    Lease { v4: v4.parse().ok(), v6: v6.parse().ok() }
}

#[test]
fn addresses_are_told_as_the_topology_wants_them() {
    let none = Lease::default();
    let settings = ClientSettings::default();
    for (topology, address, expected) in [
        (Topology::Subnet, "10.8.0.2", "ifconfig 10.8.0.2 255.255.255.0"),
        (Topology::Net30, "10.8.0.6", "ifconfig 10.8.0.6 10.8.0.5"),
        (Topology::P2p, "10.8.0.4", "ifconfig 10.8.0.4 10.8.0.1"),
    ] {
        let given = lease(address, "fd00:6::1000");
        let told = interface(&role(topology), None, given, none, &settings);
        assert_eq!(told, [expected, "ifconfig-ipv6 fd00:6::1000/64 fd00:6::1"]);
    }
    let mut wide = role(Topology::Subnet);
    (wide.v6, wide.v4) = ("fd00:6::1/48".parse().ok(), None);
    let given = lease("", "fd00:6::1000");
    let told = interface(&wide, None, given, none, &settings);
    assert_eq!(told, ["ifconfig-ipv6 fd00:6::1000/64 fd00:6::1"]);
    wide.v4_pool = wide.v4_pool.map(|pool| PoolV4 { netmask: Some([255; 4].into()), ..pool });
    wide.v4 = "10.8.0.1/24".parse().ok();
    let told = interface(&wide, None, lease("10.8.0.9", ""), none, &settings);
    assert_eq!(told, ["ifconfig 10.8.0.9 255.255.255.255"]);
}

#[test]
fn fixed_addresses_are_told_as_the_file_has_them() {
    let v4 = FixedV4 {
        address: [10, 8, 0, 9].into(),
        second: [255, 255, 0, 0].into(),
        alias: Some([10, 99, 0, 9].into()),
    };
    let remote = "fd00:6::2".parse().ok();
    let v6 = FixedV6 { net: "fd00:6::9/112".parse().unwrap(), remote };
    let mut settings = ClientSettings { v4: Some(v4), v6: Some(v6), ..Default::default() };
    let given = lease("10.8.0.9", "fd00:6::9");
    let told = interface(&role(Topology::Subnet), None, given, given, &settings);
    let expected = ["ifconfig 10.99.0.9 255.255.0.0", "ifconfig-ipv6 fd00:6::9/112 fd00:6::2"];
    assert_eq!(told, expected);
    settings.push = vec![PushChange::Remove("ifconfig-ipv6".to_owned())];
    assert_eq!(interface(&role(Topology::Subnet), None, given, given, &settings), expected[..1]);
    settings.push = vec![PushChange::Remove("ifconfig".to_owned())];
    assert_eq!(interface(&role(Topology::Subnet), None, given, given, &settings), expected[1..]);
}

#[test]
fn a_clients_file_changes_the_list() {
    let inherited = [
        "topology subnet",
        "route-gateway 10.8.0.1",
        "route 10.1.0.0 255.255.0.0",
        "route 10.2.3.0 255.255.255.0",
        "route-ipv6 fd00:7::/64",
        "ping 10",
    ];
    let inherited = inherited.map(str::to_owned);
    let with = |push: Vec<PushChange>, behind: &[&str]| {
        let behind = behind.iter().map(|net| net.parse().unwrap()).collect();
        changed(&inherited, &ClientSettings { push, behind, ..Default::default() })
    };
    let add = |option: &str| PushChange::Add(option.to_owned());
    let remove = |option: &str| PushChange::Remove(option.to_owned());
    assert_eq!(with(vec![], &[]), inherited);
    let removed = with(vec![remove("route "), remove("ping")], &[]);
    assert_eq!(removed, ["topology subnet", "route-gateway 10.8.0.1", "route-ipv6 fd00:7::/64"]);
    assert_eq!(with(vec![remove("route")], &[]), ["topology subnet", "ping 10"]);
    let reset = vec![add("echo lost"), PushChange::Reset, add("echo kept")];
    assert_eq!(with(reset, &[]), ["echo kept"]);
    let own = with(vec![add("route 10.2.9.9")], &["10.2.0.0/16", "fd00:7::/64"]);
    let kept =
        ["topology subnet", "route-gateway 10.8.0.1", "route 10.1.0.0 255.255.0.0", "ping 10"];
    assert_eq!(own, kept, "what is behind the client itself is not pushed to it");
}

#[test]
fn who_sends_everything_through_the_tunnel_sends_no_ipv6_beside_it() {
    let with = |list: &[&str]| {
        let mut list: Vec<String> = list.iter().map(|option| (*option).to_owned()).collect();
        capture_ipv6(&mut list);
        list
    };
    let own = "ifconfig-ipv6 fd00:6::1000/64 fd00:6::1";
    assert_eq!(with(&[own, "redirect-gateway def1"]), [own, "redirect-gateway def1 ipv6"]);
    for same in [
        &[own, "redirect-gateway def1", "redirect-gateway ipv6 !ipv4"][..],
        &[own, "redirect-private def1"],
        &["route 10.1.0.0 255.255.0.0", "ping 10"],
    ] {
        assert_eq!(with(same), same);
    }
    let blocked = ["redirect-gateway ipv6", "ifconfig-ipv6 100::2/64 100::1", "block-ipv6"];
    assert_eq!(with(&["redirect-gateway"]), blocked);
    assert_eq!(with(&["block-ipv6", "redirect-gateway def1 ipv6"]).len(), 3);
}

#[test]
fn lists_change_on_a_connection_that_is_up_and_nothing_else_does() {
    let list = |options: &[&str]| -> Vec<String> {
        options.iter().map(|option| (*option).to_owned()).collect()
    };
    let before = list(&["ifconfig 10.8.0.2 255.255.255.0", "route 10.1.0.0", "ping 10", "dns x"]);
    let to = |after: &[&str]| difference(&before, &list(after));
    let other =
        to(&["ifconfig 10.8.0.2 255.255.255.0", "route 10.1.0.0", "route 10.2.0.0", "ping 10"]);
    assert_eq!(other, Some(list(&["PUSH_UPDATE,route 10.1.0.0,route 10.2.0.0,-dns"])));
    let order = to(&["ifconfig 10.8.0.2 255.255.255.0", "ping 10", "dns x", "route 10.1.0.0"]);
    assert_eq!(order, Some(Vec::new()), "nothing to say");
    assert_eq!(
        to(&["ifconfig 10.8.0.3 255.255.255.0", "route 10.1.0.0", "ping 10", "dns x"]),
        None
    );
    assert_eq!(to(&["route 10.1.0.0", "ping 10", "dns x"]), None);
}

#[test]
fn short_lists_are_one_message_and_long_ones_are_continued() {
    let options: Vec<_> = (0..200).map(|n| format!("route 10.{n}.0.0 255.255.0.0")).collect();
    assert_eq!(messages(&options[..1]), ["PUSH_REPLY,route 10.0.0.0 255.255.0.0"]);
    let parts = messages(&options);
    assert!(parts.len() > 2);
    let mut joined = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        assert!(part.len() < MAX_PUSH_MESSAGE, "its NUL fits, too");
        let more = if at + 1 < parts.len() { 2 } else { 1 };
        let body = part.strip_suffix(&format!(",push-continuation {more}")).unwrap();
        joined.extend(body.strip_prefix("PUSH_REPLY,").unwrap().split(',').map(str::to_owned));
    }
    assert_eq!(joined, options, "nothing is lost, doubled or reordered");
    let longest = vec!["x".repeat(MAX_OPTION); 9];
    assert!(messages(&longest).iter().all(|part| part.len() < MAX_PUSH_MESSAGE));
}

#[test]
fn names_what_cannot_be_pushed() {
    assert_eq!(check("route 10.0.0.0 255.0.0.0"), Ok(()));
    assert_eq!(check("dhcp-option DNS a,b"), Err(Unpushable::Comma));
    assert_eq!(check("cipher AES-256-GCM"), Err(Unpushable::Generated));
    assert_eq!(check("echo \u{1}"), Err(Unpushable::Control));
    assert_eq!(check(&"x".repeat(256)), Err(Unpushable::TooLong));
}

/// What a stock 2.6 server pushes for the same lines.
#[test]
fn quotes_inside_a_push_stay() {
    let lines = r#"
push "setenv-safe A \"1 2\""
push 'setenv-safe B "3 4"'
push "setenv-safe C '5 6'"
push setenv-safe\ D\ 7
push "setenv-safe E \"8\\\\9\""
push "setenv-safe F   1"
push "dhcp-option DOMAIN \"lan.example\""
"#;
    let config = crate::config::tests::server(lines).config;
    let crate::config::Role::Server(role) = &config.role else { panic!("a client") };
    let list = inherited(&config, role);
    let pushed = list.iter().filter(|option| option.starts_with(['s', 'd'])).map(String::as_str);
    assert_eq!(
        pushed.collect::<Vec<_>>(),
        [
            r#"setenv-safe A "1 2""#,
            r#"setenv-safe B "3 4""#,
            "setenv-safe C '5 6'",
            "setenv-safe D 7",
            r#"setenv-safe E "8\\9""#,
            "setenv-safe F   1",
            r#"dhcp-option DOMAIN "lan.example""#,
        ]
    );
}
