//! What other programs see of a running sixgate, in OpenVPN's own forms: the status in its three
//! formats and the management line protocol, so that existing monitors and front ends work
//! [9.13, 9.14].
//!
//! ```text
//! bytes ─> session ─ line ─> protocol ─ Request ─> console ─ View ─> reply bytes
//!                                                     └─> Action (kick, signal, verbosity) for the caller
//! events (client up, log line, state) ─> console ─> histories and notifications
//! ```
//!
//! Everything here is text in and text out. Sockets, files, clocks and doing what an [`Action`]
//! says are the shell's business; which clients there are is the engine's.

mod approval;
pub mod console;
#[doc(hidden)]
pub mod fuzz;
pub mod history;
pub mod json;
mod login;
mod notify;
pub mod protocol;
pub mod session;
pub mod status;
mod target;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

use crate::config::Secret;
use crate::engine::{ClientInfo, HookOutcome, PeerId};
use crate::time::{Instant, UnixTime};

/// The program as the status and `version` name it. Monitors take the second word for OpenVPN's
/// version and choose their parser by it.
pub const TITLE: &str = concat!("OpenVPN 2.6.0 compatible: sixgate ", env!("CARGO_PKG_VERSION"));

/// The process at the moment when something is asked.
pub struct View {
    /// Wall-clock time.
    pub now: UnixTime,
    /// The same moment on the engine's time line.
    pub mono: Instant,
    /// Local date and time as `2026-01-31 12:00:00`.
    pub date: fn(UnixTime) -> String,
    /// Process id.
    pub pid: u32,
    /// Log verbosity, 0 to 11.
    pub verb: u8,
    /// Connected clients; empty when we are one.
    pub clients: Vec<ClientInfo>,
    /// Bytes through socket and device.
    pub traffic: Traffic,
}

/// What `sixgate status` tells beside the clients.
#[derive(Debug, Clone, Default)]
pub struct Overview<'a> {
    /// What the device and the socket do in one call, as they name it: TUN, UDP.
    pub offload: [&'a str; 2],
    /// Whether system calls are filtered.
    pub filter: &'a str,
    /// Our own addresses in the tunnel.
    pub own: Addresses,
    /// Global prefixes of the line that lead to clients; the one they use first.
    pub prefixes: Vec<Ipv6Net>,
    /// When certificates end: whose, and when.
    pub certificates: Vec<(&'static str, UnixTime)>,
    /// Packets that were dropped, by reason.
    pub dropped: Vec<(&'static str, u64)>,
}

impl ClientInfo {
    /// When it was heard of last, on the wall clock.
    fn last_seen(&self, view: &View) -> u64 {
        view.now.0.saturating_sub(view.mono.since(self.heard).as_secs())
    }
}

/// Bytes since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Read from the socket.
    pub link_in: u64,
    /// Written to the socket.
    pub link_out: u64,
    /// Read from the TUN device.
    pub tun_in: u64,
    /// Written to the TUN device.
    pub tun_out: u64,
}

/// Something the management client wants done beyond an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// End these clients' connections.
    Kick(Vec<PeerId>),
    /// End this client's connection for good: it is told not to come back.
    Halt(PeerId),
    /// Let a client in, or keep it out: the answer to the question with this ticket.
    Decide {
        /// The question's.
        ticket: u64,
        /// With what the client is given, or told.
        outcome: HookOutcome,
    },
    /// The answer will take so many seconds, and the client is told this message.
    Pend {
        /// The question's.
        ticket: u64,
        /// Seconds.
        timeout: u32,
        /// Such as `WEB_AUTH::https://…`.
        message: String,
    },
    /// A client's login, as asked for.
    Login {
        /// User name.
        username: String,
        /// Password, or what stands in its place.
        password: Secret,
    },
    /// As if the process had got this signal.
    Signal(Signal),
    /// Log at this verbosity from now on.
    Verb(u8),
}

/// Signals that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Drop every connection and start afresh.
    Hup,
    /// Like SIGTERM.
    Int,
    /// End.
    Term,
    /// Like SIGHUP, with the configuration as it is.
    Usr1,
    /// Write the status to the log.
    Usr2,
}

impl Signal {
    const ALL: [Self; 5] = [Self::Hup, Self::Int, Self::Term, Self::Usr1, Self::Usr2];

    /// The signal's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hup => "SIGHUP",
            Self::Int => "SIGINT",
            Self::Term => "SIGTERM",
            Self::Usr1 => "SIGUSR1",
            Self::Usr2 => "SIGUSR2",
        }
    }

    /// The signal of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.as_str() == name)
    }
}

/// How far a tunnel has come, as `state` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelState {
    /// At the start, before anything is sent.
    Connecting,
    /// (Client) looking up the server's name.
    Resolve,
    /// (Client) waiting for the server and its configuration.
    Wait,
    /// (Client) addresses are being set.
    AssignIp,
    /// Up.
    Connected,
    /// (Client) lost the server; trying again.
    Reconnecting,
    /// On the way out.
    Exiting,
}

impl TunnelState {
    /// The protocol's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "CONNECTING",
            Self::Resolve => "RESOLVE",
            Self::Wait => "WAIT",
            Self::AssignIp => "ASSIGN_IP",
            Self::Connected => "CONNECTED",
            Self::Reconnecting => "RECONNECTING",
            Self::Exiting => "EXITING",
        }
    }
}

/// Our own tunnel addresses, for `state`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6.
    pub v6: Option<Ipv6Addr>,
}

/// Text of a peer within a line: whatever could end the line, or the field, becomes `_`.
fn plain(text: &str, separator: Option<char>) -> String {
    text.chars().map(|c| if c.is_control() || Some(c) == separator { '_' } else { c }).collect()
}
