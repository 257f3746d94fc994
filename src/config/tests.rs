//! Loading whole configurations: what real ones look like, and each way they can be wrong.

use std::collections::HashMap;
use std::path::Path;

use super::*;

mod client;
mod data;

/// Files in memory.
pub(super) struct Memory {
    files: HashMap<String, Vec<u8>>,
    has_aes: bool,
}

impl Memory {
    /// Adds a file.
    pub(super) fn insert(&mut self, name: &str, text: &str) {
        self.files.insert(name.to_owned(), text.as_bytes().to_vec());
    }
}

impl Files for Memory {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        self.files.get(&*path.to_string_lossy()).cloned().ok_or_else(|| "no such file".to_owned())
    }

    fn has_aes(&self) -> bool {
        self.has_aes
    }
}

const CERT: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";

/// What every test may refer to.
pub(super) fn files(main: &str) -> Memory {
    let mut static_key = "-----BEGIN OpenVPN Static key V1-----\n".to_owned();
    for _ in 0..16 {
        static_key.push_str("000102030405060708090a0b0c0d0e0f\n");
    }
    static_key.push_str("-----END OpenVPN Static key V1-----\n");
    let mut memory = Memory { files: HashMap::new(), has_aes: true };
    for (name, text) in [
        ("main.conf", main),
        ("ca.crt", CERT),
        ("server.crt", CERT),
        ("server.key", KEY),
        ("ta.key", &static_key),
        ("crl.pem", "-----BEGIN X509 CRL-----\nAA==\n-----END X509 CRL-----\n"),
        ("pass.txt", "alice\nsecret\n"),
    ] {
        memory.files.insert(name.to_owned(), text.as_bytes().to_vec());
    }
    memory
}

const SERVER: &str = "server 10.8.0.0 255.255.255.0\nca ca.crt\ncert server.crt\nkey server.key\n";
const IDENTITY: &str = "ca ca.crt\ncert server.crt\nkey server.key\n";
const CLIENT: &str = "client\nremote vpn.example.net\nremote-cert-tls server\nca ca.crt\ncert server.crt\nkey server.key\n";

pub(super) fn load(text: &str) -> Result<Loaded, ConfigError> {
    load_file("main.conf", &files(text))
}

/// What these lines come to, with the certificates that everybody needs.
pub(super) fn loaded(lines: &str) -> Loaded {
    load(&format!("{lines}{IDENTITY}")).unwrap_or_else(|error| panic!("{error}"))
}

/// And why they come to nothing.
pub(super) fn error_of(lines: &str) -> String {
    load(&format!("{lines}{IDENTITY}")).unwrap_err().to_string()
}

/// A server with these lines in front of what every server needs.
pub(crate) fn server(lines: &str) -> Loaded {
    load(&format!("{lines}\n{SERVER}")).unwrap_or_else(|error| panic!("{error}"))
}

/// A server with these lines on a processor with instructions for AES or without.
pub(crate) fn on_processor(lines: &str, has_aes: bool) -> Config {
    let mut files = files(&format!("{lines}\n{SERVER}"));
    files.has_aes = has_aes;
    load_file("main.conf", &files).unwrap_or_else(|error| panic!("{error}")).config
}

pub(crate) fn client(lines: &str) -> Loaded {
    load(&format!("{lines}\n{CLIENT}")).unwrap_or_else(|error| panic!("{error}"))
}

/// The first problem of a server with these lines.
fn server_error(lines: &str) -> String {
    let error = load(&format!("{lines}\n{SERVER}")).unwrap_err();
    assert_eq!(error.problems.len(), 1, "{error}");
    error.to_string()
}

pub(super) fn server_role(loaded: &Loaded) -> &ServerRole {
    match &loaded.config.role {
        Role::Server(role) => role,
        Role::Client(_) => panic!("a client"),
    }
}

fn client_role(loaded: &Loaded) -> &ClientRole {
    match &loaded.config.role {
        Role::Client(role) => role,
        Role::Server(_) => panic!("a server"),
    }
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn a_small_server_has_openvpns_defaults() {
    let loaded = server("");
    assert_eq!(loaded.warnings, []);
    let config = &loaded.config;
    let role = server_role(&loaded);
    assert_eq!(role.v4, Some("10.8.0.1/24".parse().unwrap()));
    assert_eq!((role.v6, role.max_clients, role.exit_notify), (None, 1024, 0));
    assert_eq!(role.initial_rate, (100, secs(10)));
    assert_eq!(
        (config.transport.port, config.transport.family, config.transport.local),
        (1194, None, None)
    );
    assert_eq!((config.device.name.as_deref(), config.device.mtu), (None, 1500));
    assert_eq!(config.mssfix, Some(Mssfix::Outer(1492)));
    let ciphers: Vec<_> = config.data_ciphers.iter().map(|cipher| cipher.as_str()).collect();
    assert_eq!(ciphers, ["AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305"]);
    let timers = config.timers;
    assert_eq!((timers.ping, timers.ping_restart, timers.push_keepalive), (None, None, None));
    assert_eq!(timers.reneg, (secs(3600), secs(3240)));
    assert_eq!(
        (timers.handshake, timers.transition, timers.retransmit),
        (secs(60), secs(3600), secs(2))
    );
    assert_eq!((config.auth, config.process.verb), (Digest::Sha1, 1));
}

#[test]
fn a_small_client_has_openvpns_defaults() {
    let loaded = client("");
    assert_eq!(loaded.warnings, []);
    let [remote] = client_role(&loaded).remotes.as_slice() else { panic!("one remote") };
    assert_eq!((remote.host.as_str(), remote.port, remote.family), ("vpn.example.net", 1194, None));
    assert_eq!(loaded.config.transport.port, 0);
    assert_eq!(loaded.config.timers.ping_restart, Some(secs(120)));
    assert_eq!(loaded.config.timers.reneg, (secs(3600), secs(3600)));
}

#[test]
fn all_problems_are_told_with_their_lines() {
    let text = "server 10.8.0.1 255.255.255.0\nsever-ipv6 fd00::/64\nport 70000\nproto tcp\npush route 1.2.3.4\n\
                cipher \"AES\ndev tap0\nsecret x\nca nowhere.crt\ncert server.crt\n";
    let error = load(text).unwrap_err();
    let seen: Vec<String> = error.problems.iter().map(Diagnostic::to_string).collect();
    for expected in [
        "main.conf:6: a double quote (\") is opened but not closed on this line",
        "main.conf:2: unknown directive `sever-ipv6`; did you mean `server-ipv6`?",
        "main.conf:5: `push` takes 1 argument, not 2: put quotes around what is pushed, as in push \"route 10.0.0.0 255.0.0.0\"",
        "main.conf:1: `server`: 10.8.0.1 is inside the network; did you mean `server 10.8.0.0 255.255.255.0`?",
        "main.conf:3: `port`: needs a number from 0 to 65535, not `70000`",
        "main.conf:4: `proto`: `tcp`: sixgate speaks UDP only; use `udp` on both ends",
        "main.conf:7: `dev`: TAP devices and bridging are not supported; use `dev tun`",
        "main.conf:9: `ca`: cannot read nowhere.crt: no such file",
        "main.conf: `key` is missing: our private key, not encrypted",
    ] {
        assert!(seen.iter().any(|line| line == expected), "{expected}\nnot in\n{error}");
    }
    assert!(
        seen.iter().any(|line| line.starts_with("main.conf:8: `secret` is refused: static keys"))
    );
    assert_eq!(seen.len(), 10, "{error}");
}

#[test]
fn roles() {
    let whole = |text: &str| load(text).unwrap_err().to_string();
    assert!(
        whole("verb 3\n").contains(
            "main.conf: neither a server (`server`, `server-ipv6`) nor a client (`client`)"
        )
    );
    assert!(
        whole(&format!("client\nremote x\n{SERVER}"))
            .contains("`client` is for a client, and this configures a server")
    );
    assert!(whole("mode p2p\n").contains("`mode` must be `server`"));
    assert!(whole("tls-client\nremote x\nca ca.crt\n").contains("point-to-point"));
    assert!(
        whole(&format!("push \"x\"\n{CLIENT}")).contains("main.conf:1: `push` is for a server")
    );
    assert_eq!(load("nonsense\n").unwrap_err().problems.len(), 1);
    assert_eq!(
        load_file("none.conf", &files("")).unwrap_err().to_string(),
        "none.conf: cannot read configuration file none.conf: no such file"
    );
    server("mode server\ntls-server");
    client("tls-client\npull");
}

#[test]
fn addresses() {
    let loaded = server("server-ipv6 fd12:3456:789a::/64\ntopology subnet");
    assert_eq!(server_role(&loaded).v6, Some("fd12:3456:789a::1/64".parse().unwrap()));
    let only6 =
        load("server-ipv6 fd12::/112\nca ca.crt\ncert server.crt\nkey server.key\n").unwrap();
    assert_eq!(server_role(&only6).v4, None);
    assert!(
        server_error("server-ipv6 fd12::1/64").contains("did you mean `server-ipv6 fd12::/64`?")
    );
    assert!(server_error("server-ipv6 fd12::/125").contains("between 48 and 124"));
    assert!(server_error("server-ipv6 fe80::/64").contains("not for use in a network"));
    assert!(server_error("topology star").contains("must be `subnet`, `net30` or `p2p`"));
    assert!(server_error("local 10.8.0.1").contains("inside the tunnel's own network"));
    let documentation = server("server-ipv6 2001:db8:1::/64");
    assert!(documentation.warnings.iter().any(|w| w.text.contains("reserved for documents")));
    for (line, expected) in [
        ("server 10.8.0.0 255.255.255.252", "(/29), not /30"),
        ("server 10.0.0.0 255.0.0.0", "(/29), not /8"),
        ("server 10.8.0.0 255.255.0.255", "not a network mask"),
        ("server 10.8.0.0/24 x", "needs a network and its mask"),
        ("server 10.8.0.0 255.255.255.0 pool", "can only be `nopool`"),
    ] {
        let text = format!("{line}\nca ca.crt\ncert server.crt\nkey server.key\n");
        let error = load(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn sockets() {
    let socket = |lines: &str| server(lines).config.transport;
    assert_eq!(socket("proto udp4").family, Some(false));
    // OpenVPN's udp6 server takes IPv4 as well unless told otherwise.
    assert_eq!(socket("proto udp6").family, None);
    assert_eq!(socket("proto udp6\nbind ipv6only").family, Some(true));
    assert_eq!(socket("port 443").port, 443);
    assert_eq!(socket("port 443\nlport 444").port, 444);
    assert_eq!(socket("local 192.0.2.1").family, Some(false));
    assert_eq!(socket("local fd00::1").local, Some("fd00::1".parse().unwrap()));
    assert_eq!(
        (socket("local 0.0.0.0").local, socket("local 0.0.0.0").family),
        (None, Some(false))
    );
    assert_eq!((socket("local ::").local, socket("local ::").family), (None, None));
    assert!(server_error("proto udp6\nlocal 192.0.2.1").contains("IPv4 address"));
    assert!(server_error("local eth0").contains("not an address"));
    assert!(server_error("nobind").contains("needs a port"));
    assert_eq!(client("lport 5000").config.transport.port, 5000);
    assert_eq!(client("port 443").config.transport.port, 0);
    assert_eq!(client("local 192.0.2.1").config.transport.port, 1194);
    assert_eq!(client("local 192.0.2.1\nnobind").config.transport.port, 0);
    let remotes = client(
        "proto udp4\nrport 443\nremote a\nremote b 5000 udp6\nremote c 80 tcp\nremote ::1 1 udp",
    );
    let seen: Vec<_> =
        client_role(&remotes).remotes.iter().map(|r| (r.host.as_str(), r.port, r.family)).collect();
    assert_eq!(
        seen,
        [
            ("a", 443, Some(false)),
            ("b", 5000, Some(true)),
            ("::1", 1, None),
            ("vpn.example.net", 443, Some(false))
        ]
    );
    assert!(remotes.warnings.iter().any(|w| w.line == 5 && w.text.contains("asks for TCP")));
}

#[test]
fn mtu_and_mssfix() {
    assert_eq!(server("mssfix").config.mssfix, Some(Mssfix::Outer(1492)));
    assert_eq!(server("mssfix 0").config.mssfix, None);
    assert_eq!(server("mssfix 1400").config.mssfix, Some(Mssfix::Payload(1400)));
    assert_eq!(server("mssfix 1400 mtu").config.mssfix, Some(Mssfix::Outer(1400)));
    assert_eq!(server("mssfix 1400 fixed").config.mssfix, Some(Mssfix::Fixed(1400)));
    assert_eq!(server("tun-mtu 1400").config.mssfix, Some(Mssfix::Fixed(1400)));
    assert!(server("tun-mtu 1200").warnings.iter().any(|w| w.text.contains("no IPv6")));
    assert!(server_error("tun-mtu 1200\nserver-ipv6 fd00:1::/64").contains("switches IPv6 off"));
    assert!(server_error("tun-mtu 9001").contains("to 9000"));
}

#[test]
fn keepalive_and_times() {
    let timers = server(
        "keepalive 10 60\nreneg-sec 600 500\nhand-window 30\ntran-window 100\ntls-timeout 1",
    )
    .config
    .timers;
    assert_eq!(
        (timers.ping, timers.ping_restart, timers.push_keepalive),
        (Some(secs(10)), Some(secs(120)), Some((10, 60)))
    );
    assert_eq!(timers.reneg, (secs(600), secs(500)));
    assert_eq!(
        (timers.handshake, timers.transition, timers.retransmit),
        (secs(30), secs(100), secs(1))
    );
    let timers = client("keepalive 10 60").config.timers;
    assert_eq!(
        (timers.ping, timers.ping_restart, timers.push_keepalive),
        (Some(secs(10)), Some(secs(60)), None)
    );
    assert!(server_error("keepalive 10 19").contains("at least twice"));
    assert!(server_error("keepalive 10 60\nping 5").contains("`ping`"));
    assert_eq!(client("ping-restart 0").config.timers.ping_restart, None);
    assert_eq!(server("reneg-sec 0").config.timers.reneg, (secs(0), secs(0)));
}

#[test]
fn wrapping() {
    let direction =
        |lines: &str| server(lines).config.wrap.tls_auth.map(|(_, direction)| direction);
    assert_eq!(direction("tls-auth ta.key 0"), Some(Some(0)));
    assert_eq!(direction("tls-auth ta.key\nkey-direction 1"), Some(Some(1)));
    assert_eq!(direction("tls-auth ta.key"), Some(None));
    assert!(server("tls-crypt ta.key").config.wrap.tls_crypt.is_some());
    assert!(server_error("tls-auth ta.key 2").contains("0 or 1"));
    assert!(server_error("tls-auth ta.key\ntls-crypt ta.key").contains("keep one"));
    assert!(server_error("tls-crypt ca.crt").starts_with("main.conf:1: `tls-crypt`: ca.crt: "));
    assert!(
        server_error("tls-crypt-v2 ta.key").starts_with("main.conf:1: `tls-crypt-v2`: ta.key: ")
    );
    let block = String::from_utf8(files("").read(Path::new("ta.key")).unwrap()).unwrap();
    let inline = format!("tls-auth [inline] 1\n<tls-auth>\n{block}</tls-auth>");
    assert_eq!(direction(&inline), Some(Some(1)));
}

#[test]
fn certificates() {
    let loaded = server(
        "extra-certs ca.crt\nremote-cert-tls client\ntls-version-min 1.3\ncrl-verify crl.pem\nverify-x509-name phone- name-prefix",
    );
    let tls = &loaded.config.tls;
    assert!(tls.require_usage && tls.only_tls13 && !tls.only_tls12);
    assert_eq!(tls.verify_name, Some(VerifyName::NamePrefix("phone-".to_owned())));
    assert_eq!(tls.crl.as_ref().map(|(path, _)| path.as_path()), Some(Path::new("crl.pem")));
    assert_eq!(tls.cert.windows(5).filter(|w| *w == b"BEGIN").count(), 2);
    assert!(server_error("remote-cert-tls server").contains("must be `client`"));
    assert!(
        server_error("tls-version-min 1.3\ntls-version-max 1.2").contains("no version is left")
    );
    assert!(server_error("crl-verify crls dir").contains("folder"));
    assert!(server_error("verify-client-cert none").contains("anybody could come in"));
    assert_eq!(server("tls-version-min 1.0").warnings.len(), 1);
    let retry = load(&format!("auth-retry maybe\n{CLIENT}")).unwrap_err().to_string();
    assert!(retry.starts_with("main.conf:1: `auth-retry`: must be `none`"));
    let naked = load("client\nremote x\nca ca.crt\nauth-user-pass pass.txt\n").unwrap();
    assert!(naked.config.tls.cert.is_empty() && naked.warnings.len() == 1);
    assert_eq!(client_role(&naked).credentials, Some(("alice".to_owned(), "secret".to_owned())));
}

#[test]
fn pushes() {
    assert!(server_error("push \"route 10.0.0.0,x\"").contains("comma"));
    assert!(server("push \"compress lz4-v2\"").warnings[0].text.contains("is not pushed"));
    assert!(
        server_error("push \"route 192.168.1.1 255.255.255.0\"")
            .contains("`route 192.168.1.0 255.255.255.0`")
    );
    assert!(server_error("push \"dhcp-option DNS dns.example\"").contains("not an address"));
    assert!(server_error("push \"cipher AES-256-GCM\"").contains("by the server itself"));
    let loaded = server(
        "push \"redirect-gateway def1 bypass-dhcp\"\npush \"dhcp-option DNS 9.9.9.9\"\npush 'dhcp-option DOMAIN x'",
    );
    assert_eq!(loaded.warnings, []);
    assert_eq!(
        server_role(&loaded).push,
        ["redirect-gateway def1 bypass-dhcp", "dhcp-option DNS 9.9.9.9", "dhcp-option DOMAIN x"]
    );
    let half = server(
        "server-ipv6 fd00:1::/64\npush \"redirect-gateway def1\"\npush \"frob 1\"\npush \"remote x\"",
    );
    assert_eq!(half.warnings.len(), 2);
}

#[test]
fn includes_folders_and_arguments() {
    let mut memory = files("cd /etc/vpn\nconfig more.conf\nverb 4\n");
    memory.files.insert("/etc/vpn/more.conf".to_owned(), SERVER.as_bytes().to_vec());
    for name in ["ca.crt", "server.crt", "server.key"] {
        let bytes = memory.files.get(name).cloned().unwrap();
        memory.files.insert(format!("/etc/vpn/{name}"), bytes);
        memory.files.remove(name);
    }
    let args: Vec<_> =
        "--config main.conf --verb 5 --writepid x.pid".split(' ').map(str::to_owned).collect();
    let loaded = load_args(&args, &memory).unwrap();
    assert_eq!(loaded.config.process.verb, 5);
    assert_eq!(loaded.config.process.pid_file.as_deref(), Some(Path::new("/etc/vpn/x.pid")));
    assert_eq!(loaded.warnings, []);
    let twice = server("verb 3\nverb 4");
    let expected = "main.conf:2: `verb` replaces the one at main.conf:1";
    assert_eq!(twice.warnings.first().map(ToString::to_string).as_deref(), Some(expected));
    let looped = load("config main.conf\n").unwrap_err();
    assert!(looped.to_string().contains("include each other"));
}

#[test]
fn optional_and_ignored_directives_leave_a_warning() {
    let lines = "ignore-unknown-option frobnicate dhcp-option\nfrobnicate 1\nsetenv opt tls-frob x\nsetenv opt block-outside-dns\n\
                 setenv opt plugin x.so\npersist-key\ndh none";
    let loaded = client(lines);
    let warned: Vec<_> = loaded.warnings.iter().map(|w| w.line).collect();
    assert_eq!(warned, [2, 3, 4, 5, 6, 7]);
    assert!(
        load(&format!("<verb>\n3\n</verb>\n{SERVER}"))
            .unwrap_err()
            .to_string()
            .contains("cannot be written as a block")
    );
}

/// A row that says "done" must be read by somebody.
#[test]
fn every_done_directive_is_used() {
    let sources = [
        include_str!("read.rs"),
        include_str!("build/mod.rs"),
        include_str!("build/addresses.rs"),
        include_str!("build/ccd.rs"),
        include_str!("build/client.rs"),
        include_str!("build/data.rs"),
        include_str!("build/follow.rs"),
        include_str!("build/hooks.rs"),
        include_str!("build/manage.rs"),
        include_str!("build/process.rs"),
        include_str!("build/push.rs"),
        include_str!("build/routes.rs"),
        include_str!("build/server.rs"),
        include_str!("build/timers.rs"),
        include_str!("build/tls.rs"),
        include_str!("build/transport.rs"),
        include_str!("build/tunnel.rs"),
        include_str!("option.rs"),
        include_str!("build/wrap.rs"),
    ];
    for row in directive::all().filter(|row| row.status == directive::Status::Done) {
        let quoted = format!("\"{}\"", row.name);
        assert!(sources.iter().any(|text| text.contains(&quoted)), "{} is marked done", row.name);
    }
}

#[test]
fn the_plan_is_readable() {
    let plan = server("server-ipv6 fd00:1::/64\nkeepalive 10 60\nuser nobody\ntls-crypt ta.key")
        .plan()
        .join("\n");
    for part in [
        "listening on UDP port 1194 over IPv4 and IPv6",
        "10.8.0.1 is the server's",
        "fd00:1::1 is the server's",
        "tls-crypt",
        "ping-restart 60",
        "run as user nobody",
    ] {
        assert!(plan.contains(part), "{part}\n{plan}");
    }
    assert!(client("").plan().join("\n").contains("connect to vpn.example.net port 1194"));
}
