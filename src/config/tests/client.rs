//! What only clients configure: ways to the server, tunnel options, what to take from the server.

use super::*;
use crate::config::option::{Gateway, TunnelOption};

/// The problems of a client with these lines behind `client`.
fn problems(lines: &str) -> String {
    load(&format!("client\n{lines}\n{IDENTITY}")).unwrap_err().to_string()
}

#[test]
fn blocks_are_read_with_what_the_file_says_around_them() {
    let loaded = client(
        "mssfix 1300\ntls-crypt ta.key\n\
         <connection>\nremote a.example 1195 udp6\nfloat\nconnect-timeout 9\n</connection>\n\
         <connection>\nremote b.example\nrport 7000\nproto udp4\nmssfix 1200\ntls-auth ta.key 1\n\
         explicit-exit-notify 3\nconnect-retry 4 8\n</connection>\n",
    );
    // `client()` has a `remote` line of its own.
    assert!(loaded.warnings.iter().any(|warning| warning.text.contains("beside <connection>")));
    let role = client_role(&loaded);
    let [a, b] = role.remotes.as_slice() else { panic!("two remotes: {:?}", role.remotes) };
    assert_eq!((a.host.as_str(), a.port, a.family, a.float), ("a.example", 1195, Some(true), true));
    assert_eq!((a.connect_timeout, a.mssfix), (Some(secs(9)), Some(Mssfix::Payload(1300))));
    assert!(a.wrap.is_none() && loaded.config.wrap.tls_crypt.is_some());
    let own = b.wrap.as_ref().unwrap();
    assert!(own.tls_auth.is_some() && own.tls_crypt.is_none());
    assert_eq!((b.host.as_str(), b.port, b.family), ("b.example", 7000, Some(false)));
    assert_eq!((b.exit_notify, b.mssfix), (3, Some(Mssfix::Payload(1200))));
    assert_eq!(b.retry_pause, Some((secs(4), secs(8))));
}

#[test]
fn what_is_wrong_with_a_block_is_told_where_it_stands() {
    for (lines, wanted) in [
        ("connection a\nremote x", "main.conf:2: `connection` is a block"),
        ("<connection>\nfloat\n</connection>", "main.conf:2: `connection`: has no `remote` line"),
        ("<connection>\nremote x\nverb 3\n</connection>", "main.conf:4: `verb` cannot stand in a"),
        ("<connection>\nremote x\nfrob\n</connection>", "main.conf:4: unknown directive `frob`"),
        (
            "<connection>\nremote x\nlport 99\n</connection>",
            "main.conf:2: `connection`: one socket",
        ),
        ("<connection>\nremote x 1 tcp\n</connection>", "main.conf:3: `remote`: asks for TCP"),
        ("<connection>\nremote x 99999\n</connection>", "main.conf:3: `remote`: needs a number"),
    ] {
        let told = problems(lines);
        assert!(told.contains(wanted), "{lines}\n{told}");
    }
    // One that asks for TCP is left out when there is another.
    let loaded = load(&format!(
        "client\n<connection>\nremote x 443 tcp\n</connection>\n<connection>\nremote y\n</connection>\n{IDENTITY}"
    ));
    let loaded = loaded.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(client_role(&loaded).remotes.len(), 1);
}

#[test]
fn ways_to_keep_trying() {
    let role = |lines: &str| client_role(&client(lines)).clone();
    let usual = role("");
    assert_eq!((usual.retry_max, usual.resolve_retry), (None, None));
    assert!(usual.auth_retry == AuthRetry::No && !usual.forgets);
    let other = role(
        "connect-retry-max 5\nresolv-retry 60\nauth-retry nointeract\nremote-random-hostname\nremote-random",
    );
    assert_eq!((other.retry_max, other.resolve_retry), (Some(5), Some(secs(60))));
    assert_eq!(other.auth_retry, AuthRetry::Again);
    assert!(other.random_hostname && other.remote_random);
    assert_eq!(role("connect-retry-max unlimited\nresolv-retry infinite").retry_max, None);
    let asking = role("auth-retry interact\nauth-nocache");
    assert!(asking.auth_retry == AuthRetry::Interact && asking.forgets);
    assert_eq!(role("auth-retry none").auth_retry, AuthRetry::No);
    assert!(problems("remote x\nauth-retry maybe").contains("`none`, `nointeract` or"));
    assert!(problems("remote x\nresolv-retry soon").contains("`resolv-retry`: needs a number"));
}

#[test]
fn tunnel_options_keep_their_order_and_are_checked_at_start() {
    let loaded = client(
        "route 10.0.0.0 255.0.0.0 net_gateway 3\nroute-ipv6 fd00::/8\nredirect-gateway def1 ipv6\n\
         dhcp-option DNS 10.8.0.1\ndns server 1 address 10.8.0.1\nblock-ipv6\npersist-tun\n\
         ifconfig 10.8.0.2 10.8.0.1\nifconfig-ipv6 fd00::2/64 fd00::1\ninactive 60\n\
         session-timeout 9\nroute-metric 7\nroute-gateway 10.8.0.1\ntopology p2p",
    );
    let role = client_role(&loaded);
    assert_eq!(role.options.len(), 14, "{:?}", role.options);
    let Some(TunnelOption::Route(route)) = role.options.first() else { panic!("a route") };
    assert_eq!((route.gateway, route.metric), (Gateway::Outside, Some(3)));
    for (line, wanted) in [
        ("route nowhere", "`route`: an address is expected"),
        ("route 10.0.0.0 255.0.255.0", "`route`: a network mask"),
        ("redirect-gateway sideways", "`redirect-gateway`: an unknown keyword"),
        ("dns server one address 10.0.0.1", "`dns`: a number is expected"),
        ("inactive soon", "`inactive`: a number"),
        ("ifconfig 10.8.0.1 10.8.0.1", "`ifconfig`: both ends"),
        ("ifconfig-ipv6 fd00::1/64 fd00::2\ntun-mtu 1000", "`ifconfig-ipv6` needs 1280"),
        ("ping-exit 10\nping-restart 20", "`ping-exit` is given too"),
    ] {
        let told = problems(&format!("remote x\n{line}"));
        assert!(told.contains(wanted), "{line}\n{told}");
    }
}

#[test]
fn what_to_take_from_the_server() {
    let loaded = client(
        "pull-filter accept \"route 10.\"\npull-filter ignore route\npull-filter reject \"dns \"\n\
         route-nopull\nroute-noexec\nifconfig-noexec",
    );
    let role = client_role(&loaded);
    let filter = |action, text: &str| (action, text.to_owned());
    assert_eq!(
        role.filters,
        [
            filter(FilterAction::Accept, "route 10."),
            filter(FilterAction::Ignore, "route"),
            filter(FilterAction::Reject, "dns "),
        ]
    );
    assert!(role.no_pull && role.route_noexec && role.ifconfig_noexec);
    assert!(problems("remote x\npull-filter maybe x").contains("the first argument"));
    assert!(problems("remote x\npull-filter reject \"\"").contains("no server would ever do"));
    let exit = client("ping-exit 30").config.timers;
    assert_eq!((exit.ping_exit, exit.ping_restart), (Some(secs(30)), Some(secs(30))));
}

#[test]
fn a_login_may_be_left_to_the_user() {
    let load = |lines: &str| {
        load_file("main.conf", &files(&format!("client\nremote a.example\nca ca.crt\n{lines}\n")))
    };
    for (lines, why) in [
        ("static-challenge PIN 1", "needs `auth-user-pass`"),
        ("auth-user-pass\nstatic-challenge PIN 2", "needs a number"),
        ("auth-user-pass\nstatic-challenge PIN 1 sha1", "`scrv1` or `concat`"),
    ] {
        let error = load(lines).unwrap_err().to_string();
        assert!(error.contains(why), "{lines}: {error}");
    }
}

#[test]
fn a_script_may_judge_the_server() {
    let loaded = client("script-security 2\ntls-verify \"/judge --strict\"");
    let judge = loaded.config.hooks.tls_verify.unwrap();
    assert_eq!(
        (judge.path.to_str(), judge.arguments.as_slice()),
        (Some("/judge"), &["--strict".to_owned()][..])
    );
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert!(
        problems("remote x\ntls-verify /judge").contains("`tls-verify`: a script runs only with")
    );
}
