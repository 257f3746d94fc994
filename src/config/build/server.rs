//! What only a server has: limits, and where its parts come from.

use std::net::IpAddr;
use std::time::Duration;

use super::{Build, addresses, ccd, follow, hooks, networks, routes, timers};
use crate::config::lex::Line;
use crate::config::{PoolPersist, ServerRole, Timers, Transport};
use crate::limits::MAX_CLIENTS;

/// All of `config::ServerRole`.
pub(super) fn role(b: &mut Build<'_>, timers: &Timers) -> ServerRole {
    let mut own = addresses::addresses(b);
    let sources = ["server", "server-ipv6", "ifconfig", "ifconfig-ipv6", "server-bridge"];
    if !sources.iter().any(|name| b.source.mentions(name)) {
        let text = "the VPN has no addresses: `server NETWORK MASK`, `server-ipv6 PREFIX/BITS` or both are needed";
        b.problems.error_whole(text);
    }
    let initial_rate = rate(b, "connect-freq-initial").unwrap_or((100, Duration::from_secs(10)));
    let delegate = follow::delegate(b, &own).map(Box::new);
    ServerRole {
        topology: own.topology,
        v4: own.v4,
        v4_peer: own.v4_peer,
        v6: own.v6,
        v4_pool: own.v4_pool,
        v6_pool: own.v6_pool,
        follow: own.follow.take(),
        routes: routes::routes(b, &own, delegate.as_deref()),
        export: routes::export(b),
        delegate,
        push: b.source.all("push").filter_map(|line| line.arg(0)).map(str::to_owned).collect(),
        client_files: ccd::files(b),
        client_to_client: b.has("client-to-client"),
        max_clients: b
            .value("max-clients", 1..=MAX_CLIENTS as u32)
            .map_or(MAX_CLIENTS, |n| n as usize),
        duplicate_cn: b.has("duplicate-cn"),
        exit_notify: match b.line("explicit-exit-notify") {
            Some(line) if line.args.is_empty() => 1,
            Some(line) => b.number(line, 0, 0..=2).unwrap_or(0) as u8,
            None => 0,
        },
        inactive: timers::inactive(b),
        session_timeout: timers::session_timeout(b),
        connect_rate: rate(b, "connect-freq"),
        push_constraint: b.line("ifconfig-push-constraint").and_then(|line| {
            let usage = "`ifconfig-push-constraint 10.8.0.0 255.255.255.0`";
            networks::masked(b, line, line.arg(1)?, usage).map(|net| net.trunc())
        }),
        initial_rate,
        force_cookie: b
            .line("tls-crypt-v2")
            .is_some_and(|line| line.arg(1) == Some("force-cookie")),
        login: hooks::login(b, timers),
        pool_persist: b.line("ifconfig-pool-persist").and_then(|line| pool_persist(b, line)),
    }
}

/// `ifconfig-pool-persist FILE [SECONDS]`; with 0 the file is only read [9.3].
/// So many in so much time.
fn rate(b: &mut Build<'_>, name: &str) -> Option<(u32, Duration)> {
    let line = b.line(name)?;
    let (count, seconds) = (b.number(line, 0, 1..=1_000_000)?, b.number(line, 1, 1..=86_400)?);
    Some((count, Duration::from_secs(seconds.into())))
}

fn pool_persist(b: &mut Build<'_>, line: &Line) -> Option<PoolPersist> {
    let seconds = match line.arg(1) {
        Some(_) => b.number(line, 1, 0..=86_400)?,
        None => 600,
    };
    let every = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
    Some(PoolPersist { file: b.source.path(line.arg(0)?), every })
}

/// Whether the address we listen on lies inside the tunnel's own network.
pub(super) fn check_overlap(b: &mut Build<'_>, role: &ServerRole, transport: &Transport) {
    let inside = match transport.local {
        Some(IpAddr::V4(v4)) => role.v4.is_some_and(|net| net.contains(&v4)),
        Some(IpAddr::V6(v6)) => role.v6.is_some_and(|net| net.contains(&v6)),
        None => false,
    };
    if let (true, Some(line)) = (inside, b.line("local")) {
        b.error(
            line,
            "lies inside the tunnel's own network, where no client can reach it from outside",
        );
    }
}
