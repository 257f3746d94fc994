//! Each finding appears with its cause, alone, and is gone without it.

use super::*;

/// A router on which nothing stands in the way.
fn healthy(openwrt: bool) -> Facts {
    let uplink = |mtu| Some(Uplink { name: "wan".into(), mtu });
    let address = |name: &str, net: &str| (name.to_owned(), net.parse().unwrap());
    Facts {
        openwrt,
        now: UnixTime(1_800_000_000),
        youngest: Some(UnixTime(1_799_000_000)),
        tun: Ok(()),
        dir: "/etc/sixgate".into(),
        room: Ok(1 << 20),
        config: None,
        port: 1194,
        transport: [true, true],
        inside: [true, true],
        tunnel_mtu: 1500,
        port_taken: None,
        running: true,
        forwarding: [Some(true), Some(true)],
        uplinks: [uplink(1500), uplink(1492)],
        addresses: vec![
            address("wan", "198.51.100.7/24"),
            address("br-lan", "192.168.1.1/24"),
            address("br-lan", "2001:db8:0:1::1/64"),
        ],
        delegated: vec!["2001:db8::/56".parse().unwrap()],
        follows_line: true,
        endpoint: Some("home.example.org".into()),
        resolved: vec!["198.51.100.7".parse().unwrap(), "2001:db8:0:1::1".parse().unwrap()],
        open: Some(true),
        certificates: vec![("phone".into(), UnixTime(1_900_000_000), "renew phone".into())],
    }
}

type Change = fn(&mut Facts);

/// What is changed; the weight; words of the finding; words of its cure on OpenWrt.
const CAUSES: &[(Change, Weight, &str, &str)] = &[
    (
        |f| f.tun = Err("no such device".into()),
        Weight::Mend,
        "no tunnel device can be made: no such device",
        "opkg install kmod-tun",
    ),
    (|f| f.now = UnixTime(1_000_000), Weight::Mend, "the clock is not set", "sysntpd"),
    (
        |f| f.youngest = Some(UnixTime(f.now.0 + 90_000)),
        Weight::Mend,
        "the clock is not set",
        "sysntpd",
    ),
    (
        |f| f.room = Err("Read-only file system".into()),
        Weight::Mend,
        "/etc/sixgate cannot be written: Read-only",
        "mount -o remount,rw /etc/sixgate",
    ),
    (|f| f.room = Ok(9000), Weight::Mend, "/etc/sixgate is full: 8 KiB are left", "opkg remove"),
    (
        |f| f.config = Some("none there".into()),
        Weight::Mend,
        "no configuration: none there",
        "service sixgate start",
    ),
    (
        |f| f.port_taken = Some("openvpn".into()),
        Weight::Mend,
        "UDP port 1194 belongs to openvpn",
        "service openvpn stop; service openvpn disable",
    ),
    (|f| f.running = false, Weight::Mend, "the server is not running", "service sixgate start"),
    (
        |f| f.open = Some(false),
        Weight::Mend,
        "the firewall drops UDP port 1194",
        "service firewall reload",
    ),
    (|f| f.uplinks = [None, None], Weight::Mend, "the internet side has no address", "ifup wan"),
    (
        |f| {
            f.addresses = vec![
                ("wan".into(), "100.72.3.4/10".parse().unwrap()),
                ("wan".into(), "2001:db8:0:1::1/64".parse().unwrap()),
            ]
        },
        Weight::Note,
        "(CGNAT, 100.72.3.4)",
        "AAAA record",
    ),
    (
        |f| {
            f.addresses = vec![("wan".into(), "100.72.3.4/10".parse().unwrap())];
            f.uplinks[1] = None;
            f.resolved.truncate(1);
        },
        Weight::Mend,
        "(CGNAT, 100.72.3.4)",
        "ask the provider for IPv6",
    ),
    (
        |f| {
            f.addresses = vec![("wan".into(), "192.168.178.20/24".parse().unwrap())];
            f.uplinks[1] = None;
            f.resolved.truncate(1);
        },
        Weight::Mend,
        "another router is in front of this one (192.168.178.20",
        "forward UDP port 1194 to 192.168.178.20",
    ),
    (
        |f| f.uplinks[0].as_mut().unwrap().mtu = 1200,
        Weight::Mend,
        "wan has an MTU of 1200",
        "network.wan.mtu",
    ),
    (
        |f| {
            f.delegated = vec!["2001:db8::/60".parse().unwrap()];
            f.addresses[2].1 = "2001:db8::1/60".parse().unwrap();
            f.resolved.truncate(1);
        },
        Weight::Note,
        "the LAN takes all of 2001:db8::/60",
        "uci set network.lan.ip6assign=64",
    ),
    (
        |f| {
            f.delegated = vec!["2001:db8:0:1::/64".parse().unwrap()];
        },
        Weight::Note,
        "the line gives one /64, 2001:db8:0:1::/64",
        "ndp-proxy br-lan",
    ),
    (
        |f| f.endpoint = None,
        Weight::Mend,
        "profiles do not say where this server is",
        "uci set sixgate.server.endpoint=NAME",
    ),
    (
        |f| f.resolved.clear(),
        Weight::Mend,
        "home.example.org does not resolve",
        "service ddns restart",
    ),
    (
        |f| f.resolved[0] = "198.51.100.8".parse().unwrap(),
        Weight::Mend,
        "home.example.org leads to 198.51.100.8, which is not",
        "ddns",
    ),
    (
        |f| f.resolved[1] = "2001:db8:9::1".parse().unwrap(),
        Weight::Mend,
        "home.example.org leads to 2001:db8:9::1, which is not",
        "ddns",
    ),
    (
        |f| f.forwarding[0] = Some(false),
        Weight::Mend,
        "IPv4 forwarding is off",
        "sysctl -w net.ipv4.ip_forward=1",
    ),
    (
        |f| f.forwarding[1] = Some(false),
        Weight::Mend,
        "IPv6 forwarding is off",
        "sysctl -w net.ipv6.conf.all.forwarding=1",
    ),
    (|f| f.tunnel_mtu = 1200, Weight::Mend, "tun-mtu 1200 is too small for IPv6", "1280"),
    (
        |f| f.certificates[0].1 = f.now,
        Weight::Mend,
        "the certificate of phone has expired",
        "renew phone",
    ),
    (
        |f| f.certificates[0].1 = UnixTime(f.now.0 + 10 * 86_400 + 5),
        Weight::Note,
        "the certificate of phone ends in 10 days",
        "renew phone",
    ),
];

#[test]
fn each_cause_has_its_finding_and_no_other() {
    for (change, weight, text, cure) in CAUSES {
        let mut facts = healthy(true);
        change(&mut facts);
        let findings = examine(&facts);
        let [finding] = findings.as_slice() else { panic!("{text}: {findings:?}") };
        assert_eq!(finding.weight, *weight, "{text}");
        assert!(finding.text.contains(text), "{text}: {finding:?}");
        assert!(finding.cure.contains(cure), "{cure}: {finding:?}");
        // Elsewhere the same is wrong, and nothing of OpenWrt's is told.
        facts.openwrt = false;
        let elsewhere = examine(&facts);
        assert!(matches!(elsewhere.as_slice(), [one] if one.text == finding.text), "{elsewhere:?}");
        for word in ["uci ", "opkg", "service ", "ifup"] {
            assert!(!elsewhere[0].cure.contains(word), "{elsewhere:?}");
        }
    }
}

#[test]
fn where_nothing_is_wrong_nothing_is_found() {
    for openwrt in [true, false] {
        assert_eq!(examine(&healthy(openwrt)), []);
    }
    assert_eq!(render(&[]), "nothing stands in the way\n");
}

#[test]
fn what_does_not_concern_the_server_is_left_out() {
    let changes: [Change; 5] = [
        // IPv4 alone in the tunnel.
        |f| (f.inside, f.forwarding[1]) = ([true, false], Some(false)),
        |f| (f.inside, f.tunnel_mtu) = ([true, false], 1200),
        // A prefix of the line is not asked for.
        |f| (f.follows_line, f.delegated) = (false, vec!["2001:db8:0:1::/64".parse().unwrap()]),
        // Behind a NAT, the name leads to the router in front.
        |f| {
            f.addresses[0].1 = "192.168.178.20/24".parse().unwrap();
            f.resolved[0] = "203.0.113.9".parse().unwrap();
            f.transport = [false, true];
        },
        |f| f.open = None,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut facts = healthy(true);
        change(&mut facts);
        assert_eq!(examine(&facts), [], "change {number}");
    }
}

#[test]
fn findings_are_text_with_their_cure_below() {
    let mut facts = healthy(false);
    facts.tun = Err("x".into());
    facts.certificates[0].1 = UnixTime(facts.now.0 + 86_400);
    assert_eq!(
        render(&examine(&facts)),
        "mend: no tunnel device can be made: x\n      -> modprobe tun\n\
         note: the certificate of phone ends in 1 days\n      -> renew phone\n"
    );
}
