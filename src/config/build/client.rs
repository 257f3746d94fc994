//! What only a client has: `remote` and how to go about them, `auth-user-pass`.

use std::net::IpAddr;
use std::time::Duration;

use super::{Build, follow, transport, tunnel, wrap};
use crate::config::lex::Line;
use crate::config::{AuthRetry, ClientRole, Remote, StaticChallenge};
use crate::limits::MAX_CREDENTIAL;

/// The port that is registered for OpenVPN.
const DEFAULT_PORT: u16 = 1194;

/// All of `config::ClientRole`.
pub(super) fn role(b: &mut Build<'_>) -> ClientRole {
    ClientRole {
        remotes: remotes(b),
        credentials: b.line("auth-user-pass").and_then(|line| credentials(b, line)),
        challenge: challenge(b),
        entered: None,
        auth_retry: auth_retry(b),
        forgets: b.has("auth-nocache"),
        remote_random: b.has("remote-random"),
        random_hostname: b.has("remote-random-hostname"),
        retry_max: retry_max(b),
        resolve_retry: resolve_retry(b),
        options: tunnel::options(b),
        filters: tunnel::filters(b),
        no_pull: b.has("route-nopull"),
        route_noexec: b.has("route-noexec"),
        ifconfig_noexec: b.has("ifconfig-noexec"),
        wants_prefix: b.has("delegate-ipv6-dev"),
        delegate_dev: b.line("delegate-ipv6-dev").and_then(|line| follow::device(b, line)),
    }
}

/// `<connection>` blocks; without any, the `remote` lines.
fn remotes(b: &mut Build<'_>) -> Vec<Remote> {
    let blocks = b.source.blocks();
    if blocks.is_empty() {
        let found = listed(b);
        if found.is_empty() && !b.source.mentions("remote") {
            b.problems.error_whole("`remote` is missing: name or address of the server");
        }
        return found;
    }
    if let Some(line) = b.line("remote") {
        b.warn(line, "has no effect beside <connection> blocks; put it into a block of its own");
    }
    let outside = transport::transport(b);
    let mut all = Vec::new();
    let count = blocks.len();
    for (open, lines) in blocks {
        let source = b.source.with_block(lines);
        let mut inner = Build {
            source: &source,
            files: b.files,
            problems: b.problems,
            server: false,
            block: true,
        };
        let socket = ["local", "lport", "port", "bind", "nobind"];
        if lines.iter().any(|line| socket.contains(&line.name.as_str()))
            && transport::transport(&mut inner) != outside
        {
            inner.error(open, "one socket serves all remotes; write `local`, `lport` and `bind` outside the blocks");
        }
        if !source.mentions("remote") {
            inner.error(open, "has no `remote` line");
        }
        let tcp_only = |line: &Line| line.arg(2).is_some_and(transport::is_tcp);
        let tcp = source.all("remote").all(tcp_only)
            || source.last("proto").and_then(|line| line.arg(0)).is_some_and(transport::is_tcp);
        if tcp && count > 1 && source.has("remote") {
            inner.warn(
                open,
                "asks for TCP, and sixgate speaks UDP only; left out, as there is another block",
            );
            continue;
        }
        all.extend(listed(&mut inner));
    }
    if all.is_empty() && !b.problems.any() {
        b.problems.error_whole("no <connection> block offers UDP; the server must offer it");
    }
    all
}

/// The `remote` lines, with what the other lines say about them.
fn listed(b: &mut Build<'_>) -> Vec<Remote> {
    let common = b.line("proto").and_then(|line| line.arg(0));
    let shared = b.value("port", 1..=65535);
    let port = b.value("rport", 1..=65535).or(shared).map_or(DEFAULT_PORT, |port| port as u16);
    let pattern = pattern(b);
    let mut remotes = Vec::new();
    let mut tcp = Vec::new();
    for line in b.source.all("remote") {
        let protocol = line.arg(2).or(common).unwrap_or("udp");
        if transport::is_tcp(protocol) {
            tcp.push(line);
            continue;
        }
        // A bad `proto` line is reported once, where it stands.
        let family = match line.arg(2) {
            Some(name) => transport::protocol(b, line, name),
            None => family(protocol),
        };
        let Some(host) = line.arg(0) else { continue };
        let port = match line.arg(1) {
            Some(_) => b.number(line, 1, 1..=65535).map_or(port, |port| port as u16),
            None => port,
        };
        check_host(b, line, host, family);
        remotes.push(Remote { host: host.to_owned(), port, family, ..pattern.clone() });
    }
    for line in tcp {
        let text = "asks for TCP, and sixgate speaks UDP only";
        if remotes.is_empty() {
            b.error(line, format!("{text}; the server must offer UDP"));
        } else {
            b.warn(line, format!("{text}; left out, as there is another remote"));
        }
    }
    remotes
}

/// What the remotes here have in common.
fn pattern(b: &mut Build<'_>) -> Remote {
    let mtu = b.line("tun-mtu").and_then(|line| line.arg(0)?.parse().ok()).unwrap_or(1500);
    let keys = ["tls-auth", "tls-crypt", "tls-crypt-v2"];
    // The file's key is `Config::wrap`.
    let own_key = b.block && keys.iter().any(|name| b.has(name));
    Remote {
        host: String::new(),
        port: 0,
        family: None,
        float: b.has("float"),
        exit_notify: match b.line("explicit-exit-notify") {
            Some(line) if line.args.is_empty() => 1,
            Some(line) => b.number(line, 0, 0..=255).unwrap_or(0) as u8,
            None => 0,
        },
        retry_pause: b.line("connect-retry").and_then(|line| retry_pause(b, line)),
        connect_timeout: b
            .seconds("connect-timeout", 1..=86_400)
            .or_else(|| b.seconds("server-poll-timeout", 1..=86_400)),
        mssfix: transport::mssfix(b, mtu),
        wrap: own_key.then(|| wrap::wrapping(b)),
    }
}

fn auth_retry(b: &mut Build<'_>) -> AuthRetry {
    let Some(line) = b.line("auth-retry") else { return AuthRetry::No };
    match line.arg(0) {
        Some("none") => AuthRetry::No,
        Some("nointeract") => AuthRetry::Again,
        Some("interact") => AuthRetry::Interact,
        _ => {
            b.error(line, "must be `none`, `nointeract` or `interact`");
            AuthRetry::No
        }
    }
}

fn retry_max(b: &mut Build<'_>) -> Option<u32> {
    let line = b.line("connect-retry-max")?;
    if line.arg(0) == Some("unlimited") {
        return None;
    }
    b.number(line, 0, 1..=u32::MAX)
}

fn resolve_retry(b: &mut Build<'_>) -> Option<Duration> {
    let line = b.line("resolv-retry")?;
    if line.arg(0) == Some("infinite") {
        return None;
    }
    b.number(line, 0, 0..=86_400).map(|seconds| Duration::from_secs(seconds.into()))
}

fn family(protocol: &str) -> Option<bool> {
    match protocol {
        "udp4" => Some(false),
        "udp6" => Some(true),
        _ => None,
    }
}

fn check_host(b: &mut Build<'_>, line: &Line, host: &str, family: Option<bool>) {
    let plain = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if plain.is_some() {
        b.error(line, "write an IPv6 address without brackets; the port is the next argument");
    } else if let Ok(address) = host.parse::<IpAddr>() {
        if family.is_some_and(|v6| v6 != address.is_ipv6()) {
            b.error(line, format!("{host} is not of the family that the protocol asks for"));
        } else if super::addresses::is_documentation(address) {
            b.warn(
                line,
                format!("{host} is an address for use in documents; put the server's own there"),
            );
        }
    } else if host.is_empty() || host.contains(|c: char| c == ':' || c == '/' || c.is_whitespace())
    {
        b.error(
            line,
            format!(
                "`{}` is neither a name nor an address; the port is the next argument",
                host.escape_debug()
            ),
        );
    }
}

fn retry_pause(b: &mut Build<'_>, line: &Line) -> Option<(Duration, Duration)> {
    let first = b.number(line, 0, 1..=86_400)?;
    let longest = if line.args.len() > 1 { b.number(line, 1, 1..=86_400)? } else { 300 };
    let seconds = |n: u32| Duration::from_secs(n.into());
    Some((seconds(first), seconds(longest.max(first))))
}

/// `static-challenge TEXT ECHO [FORMAT]`.
fn challenge(b: &mut Build<'_>) -> Option<StaticChallenge> {
    let line = b.line("static-challenge")?;
    if !b.has("auth-user-pass") {
        b.error(line, "needs `auth-user-pass`: the answer goes with the password");
    }
    let shown = b.number(line, 1, 0..=1)? == 1;
    let appended = match line.arg(2) {
        None | Some("scrv1") => false,
        Some("concat") => true,
        Some(_) => {
            b.error(line, "the third argument is `scrv1` or `concat`");
            return None;
        }
    };
    Some(StaticChallenge { text: line.arg(0)?.to_owned(), shown, appended })
}

/// `auth-user-pass`: a file or block of two lines. What is left out is asked for.
fn credentials(b: &mut Build<'_>, line: &Line) -> Option<(String, String)> {
    if line.inline.is_none() && line.args.is_empty() {
        return Some(<(String, String)>::default());
    }
    let bytes = b.content(line)?;
    let Ok(text) = core::str::from_utf8(&bytes) else {
        b.error(line, "is not UTF-8 text");
        return None;
    };
    let mut lines = text.lines();
    let (name, password) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    if name.is_empty() {
        b.error(line, "needs two lines: the user name, then the password, which is asked for if it is missing");
    } else if name.len() >= MAX_CREDENTIAL || password.len() >= MAX_CREDENTIAL {
        b.error(line, format!("user name and password may have {} bytes each", MAX_CREDENTIAL - 1));
    }
    Some((name.to_owned(), password.to_owned()))
}
