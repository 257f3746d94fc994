//! What the shell and the two engines say to each other: one trait, and the values that cross it.
//!
//! # The contract
//!
//! After any `handle_*`, drain `poll_transmit`, then `poll_command`, then read `poll_timeout`. A
//! `Verdict` says where the bytes of *that* packet go; everything else comes out of the polls.
//! Engines never touch the outside world: what they want done is a [`Command`], what came of it is
//! a [`Reply`].

mod hook;
mod login;

use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::buf::PacketMut;
use crate::config::ClientSettings;
use crate::config::dns::Dns;
use crate::time::{Instant, Now, UnixTime};

pub use crate::config::{TunnelRoute, Via};
pub use hook::{Environment, HookInput, HookKind, HookOutcome, HookRequest};
pub use login::{Login, LoginQuestion};

/// The far end of a datagram and the local address it was sent to, so that answers leave from
/// the address the peer knows (multi-homed hosts, IPv6 temporary addresses).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The peer; an IPv4-mapped address is given as IPv4, the flow label as 0.
    pub peer: SocketAddr,
    /// Our own address as the datagram named it, when known.
    pub local: Option<IpAddr>,
    /// The interface index that goes with `local`; 0 when unknown or irrelevant.
    pub interface: u32,
}

impl Endpoint {
    /// An endpoint whose local side is left to the kernel.
    pub const fn new(peer: SocketAddr) -> Self {
        Self { peer, local: None, interface: 0 }
    }
}

/// What becomes of the packet that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Nothing to forward: a control packet, a ping, an answer that waits in `poll_transmit`.
    Consumed,
    /// The window now holds an IP packet for the TUN device.
    ToTun,
    /// The window now holds a datagram for this endpoint.
    ToUdp(Endpoint),
    /// The window holds an IP packet for every client: call `poll_broadcast` until it returns
    /// `None`, then write the window to the TUN device if `to_tun` is set.
    Broadcast {
        /// Whether the host itself gets a copy.
        to_tun: bool,
    },
    /// Dropped and counted.
    Drop(DropReason),
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $text:literal,)+) => {
        /// Why a packet was dropped; each is counted on its own and shown in `status`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $name,)+ }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// A short lower-case name for status output.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

drop_reasons! {
    /// Too short, or its lengths contradict each other.
    Malformed => "malformed",
    /// An opcode that nobody sends today, or that does not belong to this role.
    BadOpcode => "bad-opcode",
    /// A control packet whose wrapping (tls-auth, tls-crypt) does not authenticate.
    BadWrap => "bad-wrap",
    /// A wrapped client key (tls-crypt-v2) that this server did not make.
    BadClientKey => "bad-client-key",
    /// A third packet whose session id is not the cookie we gave out.
    BadCookie => "bad-cookie",
    /// A control packet for no session we know.
    UnknownSession => "unknown-session",
    /// A data packet with a peer id or address nobody has.
    UnknownPeer => "unknown-peer",
    /// More from strangers than `connect-freq-initial` allows, or than there is time for.
    RateLimited => "rate-limited",
    /// No room for another half-open session or client.
    TooManyClients => "too-many-clients",
    /// A packet id that was seen before or is too old.
    Replay => "replay",
    /// A data packet that does not authenticate.
    BadAuth => "bad-auth",
    /// A data packet before there are keys, or for a key that is gone.
    NoKey => "no-key",
    /// Not an IP packet, or one whose header is damaged.
    NotIp => "not-ip",
    /// A client sent from an address that is not its own.
    BadSource => "bad-source",
    /// Link-local and unspecified sources: neighbour discovery noise, quietly dropped.
    LinkLocal => "link-local",
    /// Nobody holds the destination address.
    NoRoute => "no-route",
    /// The packet is larger than the tunnel carries.
    TooBig => "too-big",
    /// Compressed payload, which is never accepted.
    Compressed => "compressed",
    /// The peer is not admitted yet, or is on its way out.
    NotReady => "not-ready",
    /// A tunnel packet addressed to the VPN server's own real address (recursive routing).
    Recursive => "recursive",
}

/// Dropped packets by reason.
#[derive(Debug, Clone)]
pub struct DropCounters([u64; DropReason::ALL.len()]);

impl Default for DropCounters {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

impl DropCounters {
    /// Counts one packet.
    pub fn count(&mut self, reason: DropReason) {
        if let Some(counter) = self.0.get_mut(reason as usize) {
            *counter += 1;
        }
    }

    /// Packets dropped for `reason` so far.
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or(0)
    }
}

/// A client's place in the server's table; also its peer-id on the wire (24 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something the engine wants done in the outside world.
#[derive(Debug, Clone)]
pub enum Command {
    /// May this client come in? Wants [`Reply::Admit`] with the same ticket.
    Admit(Box<AdmitRequest>),
    /// A client is up; for status, hooks and logs.
    ClientUp(Box<ClientInfo>),
    /// A client is gone; for status, hooks and logs.
    ClientDown(Box<ClientInfo>),
    /// The addresses that clients have and had, as text for the `ifconfig-pool-persist` file.
    SavePool(String),
    /// Who has which delegated prefix, as text for the file of `delegate-ipv6`.
    SaveDelegations(String),
    /// (Client) look up a server's name. Wants [`Reply::Resolved`].
    Resolve {
        /// Host name or literal address.
        host: String,
        /// UDP port.
        port: u16,
        /// `Some(true)`: IPv6 only; `Some(false)`: IPv4 only.
        family: Option<bool>,
    },
    /// (Client) give the TUN device these addresses and routes. Wants [`Reply::Configured`].
    Configure(Box<TunnelSettings>),
    /// (Client) keep this address reachable outside the tunnel: the next server.
    KeepReachable(IpAddr),
    /// (Client) what scripts are told about the server from now on.
    Introduce(Environment),
    /// (Client) take back what `Configure` did.
    Deconfigure,
    /// (Client) another connection is to come from another port, if ours is of no importance.
    NewPort,
    /// (Client) ask somebody for what is missing of the login. Wants [`Reply::Login`].
    AskLogin(Box<LoginQuestion>),
    /// (Client) the server has refused the login, for this reason, or asks something.
    LoginRefused(String),
    /// With `ndp-proxy`: answer neighbours for this address, which is a client's; or no longer.
    Neighbour {
        /// The address.
        address: Ipv6Addr,
        /// Whether it is there.
        up: bool,
    },
    /// Have the kernel send packets for a network of a client's into the tunnel, or no longer.
    Route {
        /// The network.
        net: IpNet,
        /// Whether it is there.
        up: bool,
    },
    /// Run a script if one is configured for the occasion. Wants [`Reply::HookDone`] if the request
    /// has a ticket; none configured is a success.
    RunHook(Box<HookRequest>),
    /// Ask the management program whether a client may come in, or stay. Wants [`Reply::HookDone`],
    /// which [`Reply::HookPending`] may precede.
    AskManagement(Box<ApprovalRequest>),
    /// A client has answered a challenge ([`Reply::HookPending`]) of the management program.
    ChallengeAnswer(Box<ApprovalRequest>, String),
    /// A client that the management program was asked about has gone without having come in.
    NeverMind(u64),
    /// The engine has ended: leave the loop with this verdict.
    Exit(ExitReason),
}

/// Why an engine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// Asked to by [`Reply::Shutdown`]; everything that had to be said has been sent.
    Requested,
    /// The peer refused us, or a limit of the configuration was reached: the text says which.
    Fatal(String),
}

/// A client that proved who it is and waits for a decision.
#[derive(Debug, Clone)]
pub struct AdmitRequest {
    /// Names this request in the reply.
    pub ticket: u64,
    /// The client's place in the table.
    pub peer: PeerId,
    /// Common name of its certificate (or user name where that stands in for it).
    pub common_name: String,
    /// Certificate serial number, big-endian without leading zeros.
    pub serial: Vec<u8>,
    /// Where it comes from.
    pub from: Endpoint,
    /// What the decision is for.
    pub occasion: Occasion,
}

/// When it is asked whether a client may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// It wants to come in.
    Arrival,
    /// It is in and renegotiates.
    Renegotiation,
    /// It is in, and the configuration has been read again.
    Review,
}

/// What the management program is asked about a client.
#[derive(Debug, Clone)]
pub struct ApprovalRequest {
    /// Names this question in the reply.
    pub ticket: u64,
    /// The client's number: [`ClientInfo::id`], if it comes in.
    pub client: u64,
    /// Whether the client is in already and has made a new key.
    pub renegotiation: bool,
    /// What is known of the client.
    pub environment: Environment,
    /// Its user name and password.
    pub input: HookInput,
}

/// What there is to know about a client.
#[derive(Debug, Clone)]
pub struct ClientInfo {
    /// Place in the table, which somebody else may have later.
    pub peer: PeerId,
    /// How many clients were asked about before it: nobody else ever has this number (the
    /// management protocol's CID).
    pub id: u64,
    /// Common name.
    pub common_name: String,
    /// User name, or empty.
    pub username: String,
    /// Transport address.
    pub from: Endpoint,
    /// Tunnel addresses.
    pub v4: Option<Ipv4Addr>,
    /// Tunnel addresses.
    pub v6: Option<Ipv6Addr>,
    /// Further addresses that lead to it: the stable one, those in prefixes that are going.
    pub also: Vec<Ipv6Addr>,
    /// Networks behind it.
    pub networks: Vec<IpNet>,
    /// Since when it is connected, Unix seconds.
    pub since: u64,
    /// When the last packet that proved to be its own came.
    pub heard: Instant,
    /// When its certificate ends, if it has shown one.
    pub expires: Option<UnixTime>,
    /// Tunnel bytes from the client.
    pub bytes_in: u64,
    /// Tunnel bytes to the client.
    pub bytes_out: u64,
    /// Data channel cipher.
    pub cipher: &'static str,
    /// `IV_VER`, or empty.
    pub version: String,
    /// `IV_PLAT`, or empty.
    pub platform: String,
    /// Why it went, for `ClientDown`; empty otherwise.
    pub reason: String,
}

/// Addresses and routes for a TUN device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TunnelSettings {
    /// Our IPv4 address with the on-link prefix length.
    pub v4: Option<Ipv4Net>,
    /// The other end's address on a point-to-point device (net30, p2p).
    pub v4_peer: Option<Ipv4Addr>,
    /// Our IPv6 address with the on-link prefix length.
    pub v6: Option<Ipv6Net>,
    /// A second IPv6 address, which stays when the first one changes with the server's line.
    pub v6_stable: Option<Ipv6Net>,
    /// A prefix for the network behind this host.
    pub delegated: Option<Ipv6Net>,
    /// The interface towards that network, if it is to get an address of that prefix.
    pub delegated_dev: Option<String>,
    /// The other end's IPv6 address, as scripts are told; nothing else needs it on a TUN device.
    pub v6_peer: Option<Ipv6Addr>,
    /// The same for IPv4 where `v4_peer` is not set.
    pub gateway: Option<Ipv4Addr>,
    /// Interface MTU in bytes.
    pub mtu: u16,
    /// What to route where.
    pub routes: Vec<TunnelRoute>,
    /// Whether everything goes into the tunnel (`redirect-gateway`): IPv4, IPv6.
    pub redirected: [bool; 2],
    /// The VPN server's real address: keep reaching it outside the tunnel when a route covers it.
    pub server: Option<IpAddr>,
    /// Keep reaching the host's own DNS servers outside the tunnel.
    pub bypass_dns: bool,
    /// Take the networks of the interface that leads to the server into the tunnel.
    pub block_local: bool,
    /// DNS servers and domains pushed or configured; nothing in here applies them.
    pub dns: Dns,
}

/// A global prefix that the line gives us, as an address on an interface shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinePrefix {
    /// Its first /64, for clients' addresses.
    pub net: Ipv6Net,
    /// The length of all of it: 64 if there is no more.
    pub bits: u8,
    /// The host's address in it.
    pub own: Ipv6Addr,
    /// How long new connections may use it, in seconds; 0 once it is deprecated.
    pub preferred: u32,
}

impl LinePrefix {
    /// Whether new connections may use it.
    pub const fn is_preferred(&self) -> bool {
        self.preferred > 0
    }
}

/// What came of a [`Command`], or news from outside.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The decision on [`Command::Admit`].
    Admit {
        /// The request's ticket.
        ticket: u64,
        /// What is different for this client (of no interest at a renegotiation), or the reason why
        /// not, which it is told.
        verdict: Result<Box<ClientSettings>, String>,
    },
    /// What came of a [`Command::RunHook`] or [`Command::AskManagement`].
    HookDone {
        /// The request's ticket.
        ticket: u64,
        /// Whether the script agrees.
        outcome: HookOutcome,
    },
    /// A script or the management program will answer later: its client is to wait so long, and is told what to do.
    HookPending {
        /// The request's ticket.
        ticket: u64,
        /// Seconds.
        timeout: u32,
        /// The way to authenticate that the client has to know: `webauth`, `crtext`, …; empty if
        /// whoever asks has seen to that.
        method: String,
        /// A message such as `WEB_AUTH::https://…`; may be empty.
        message: String,
    },
    /// Addresses for [`Command::Resolve`]; empty when there are none.
    Resolved(Vec<SocketAddr>),
    /// The answer to [`Command::AskLogin`], or why there is none.
    Login(Result<Login, String>),
    /// The outcome of [`Command::Configure`].
    Configured(Result<(), String>),
    /// Certificates with these serial numbers are void from now on; clients that use one are dropped.
    Revoked(Vec<Vec<u8>>),
    /// End the connection of every client with this common name.
    Kick(String),
    /// End the connection of this client; it is told to connect again, or that it must not.
    Dismiss {
        /// The client.
        peer: PeerId,
        /// Whether it must not come back by itself.
        halt: bool,
    },
    /// Say goodbye to all peers, then [`Command::Exit`].
    Shutdown,
    /// Drop every connection and start afresh (SIGUSR1).
    Restart,
    /// Addresses or routes of the host have changed.
    NetworkChanged,
    /// The prefixes that are valid from now on where clients' addresses follow the line.
    Prefixes(Vec<LinePrefix>),
}

/// A server or a client, driven by `sys::event_loop` and by the tests' simulated network.
pub trait Engine {
    /// A datagram arrived.
    fn handle_udp(&mut self, now: Now, from: Endpoint, packet: &mut PacketMut<'_>) -> Verdict;
    /// The host sent an IP packet into the TUN device.
    fn handle_tun(&mut self, now: Now, packet: &mut PacketMut<'_>) -> Verdict;
    /// Time has passed `poll_timeout`.
    fn handle_timeout(&mut self, now: Now);
    /// The outside world answers.
    fn handle_reply(&mut self, now: Now, reply: Reply);
    /// Writes the next control packet into `out` (emptied first) and says where it goes.
    fn poll_transmit(&mut self, now: Now, out: &mut PacketMut<'_>) -> Option<Endpoint>;
    /// Seals a copy of `packet` for the next receiver of a [`Verdict::Broadcast`] into `out`.
    fn poll_broadcast(
        &mut self,
        now: Now,
        packet: &[u8],
        out: &mut PacketMut<'_>,
    ) -> Option<Endpoint>;
    /// The next thing to be done outside.
    fn poll_command(&mut self) -> Option<Command>;
    /// When `handle_timeout` wants to be called at the latest.
    fn poll_timeout(&self) -> Option<Instant>;
    /// Whether packets of one peer may be for another, which takes room around each of them.
    fn forwards_between_peers(&self) -> bool {
        false
    }
    /// Packets dropped so far.
    fn drops(&self) -> &DropCounters;
    /// Connected peers, for status.
    fn clients(&self) -> Vec<ClientInfo>;
    /// The line's prefixes that lead to clients, for status; what clients are told comes first.
    fn prefixes(&self) -> Vec<Ipv6Net> {
        Vec::new()
    }
}
