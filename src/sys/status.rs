//! The status as text, for `sixgate status` and the log.
//!
//! One fact per line, the kind first; the values of a client in a fixed order.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::engine::{ClientInfo, DropCounters, DropReason};
use crate::manage::{Overview, Traffic, View};
use crate::pki::certificate::date;
use crate::time::UnixTime;

/// What the shell itself could not deliver.
#[derive(Debug, Clone, Copy, Default)]
pub struct ShellCounters {
    /// Datagrams larger than the packet memory.
    pub oversized: u64,
    /// Datagrams the kernel did not take: no route, a firewall, a full queue.
    pub unsent: u64,
    /// Packets the TUN device did not take.
    pub undelivered: u64,
    /// Bytes that came and went.
    pub traffic: Traffic,
}

/// The whole status.
pub fn render(view: &View, overview: &Overview<'_>) -> String {
    let mut text = format!(
        "sixgate {} pid {} clients {}\n",
        env!("CARGO_PKG_VERSION"),
        view.pid,
        view.clients.len()
    );
    let [tun, udp] = overview.offload;
    // Writing to a String cannot fail.
    let _ = writeln!(text, "offload tun {tun} udp {udp}");
    let _ = writeln!(text, "system call filter {}", overview.filter);
    let own = [overview.own.v4.map(IpAddr::V4), overview.own.v6.map(IpAddr::V6)];
    for address in own.iter().flatten() {
        let _ = writeln!(text, "address {address}");
    }
    for (at, net) in overview.prefixes.iter().enumerate() {
        let _ = writeln!(text, "prefix {net}{}", if at == 0 { "" } else { " of before" });
    }
    for (whose, until) in &overview.certificates {
        let _ = writeln!(text, "certificate of the {whose} until {}", date(*until));
    }
    for client in &view.clients {
        let _ = write!(text, "client {}", describe(client));
        let silent = view.mono.since(client.heard).as_secs();
        let since = date(UnixTime(client.since));
        let _ = write!(text, " since {since} seen {silent} s ago");
        if let Some(until) = client.expires {
            let _ = write!(text, " certificate until {}", date(until));
        }
        text.push('\n');
    }
    for (name, count) in &overview.dropped {
        let _ = writeln!(text, "dropped {name} {count}");
    }
    text
}

/// What was dropped, by reason; reasons that never occurred are left out.
pub fn counters(drops: &DropCounters, shell: ShellCounters) -> Vec<(&'static str, u64)> {
    let own = [
        ("oversized", shell.oversized),
        ("unsent", shell.unsent),
        ("undelivered", shell.undelivered),
    ];
    let counted = DropReason::ALL.iter().map(|reason| (reason.as_str(), drops.of(*reason)));
    counted.chain(own).filter(|(_, count)| *count > 0).collect()
}

/// A client on one line. Name, version and platform are the peer's words.
pub fn describe(client: &ClientInfo) -> String {
    let mut line = format!("'{}' from {}", client.common_name.escape_debug(), client.from.peer);
    if let Some(v4) = client.v4 {
        let _ = write!(line, " {v4}");
    }
    if let Some(v6) = client.v6 {
        let _ = write!(line, " {v6}");
    }
    let _ = write!(line, " {} in {} out {}", client.cipher, client.bytes_in, client.bytes_out);
    for (name, text) in [("version", &client.version), ("platform", &client.platform)] {
        if !text.is_empty() {
            let _ = write!(line, " {name} {}", text.escape_debug());
        }
    }
    if !client.reason.is_empty() {
        let _ = write!(line, ": {}", client.reason.escape_debug());
    }
    line
}
