//! The status as text, for `sixgate status` and the log.
//!
//! One fact per line, the kind first; the values of a client in a fixed order.

use std::fmt::Write as _;

use crate::engine::{ClientInfo, DropCounters, DropReason};
use crate::manage::Traffic;

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
///
/// `offload` is what the device and the socket do in one call, as they name it.
pub fn render(
    clients: &[ClientInfo],
    drops: &DropCounters,
    shell: ShellCounters,
    offload: [&str; 2],
) -> String {
    let mut text = format!(
        "sixgate {} pid {} clients {}\n",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        clients.len()
    );
    let [tun, udp] = offload;
    // Writing to a String cannot fail.
    let _ = writeln!(text, "offload tun {tun} udp {udp}");
    for client in clients {
        let _ = writeln!(text, "client {}", describe(client));
    }
    for (name, count) in counters(drops, shell) {
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
