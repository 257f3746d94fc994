//! Every capacity and fixed size in one place: what the protocol dictates first, our own choices
//! with what each costs in memory second.
//!
//! # What a server holds
//!
//! ```text
//! resident memory <= 4 MiB + 24 KiB x clients
//! ```
//!
//! The first part is mostly the program itself. Packet memory (2.5 MB of addresses) is resident only
//! as far as bursts have reached into it, and is given back when there is no traffic. Each client is,
//! on 64 bits:
//!
//! ```text
//! peer and session       3.3 KB   in one block, the windows of its control channel included
//! data keys          1.3 or 2.4   classic or epoch format; twice while a key follows another
//! TLS connection         7 KB     of which 4 are a buffer for the record under way
//! settings, push, names  1 KB     more with a long `push` list
//! ```
//!
//! `tests/memory.rs` counts what engines hold, `benches/memory` what the kernel makes of it.

// ---- Protocol constants (shared/openvpn-protocol.md sections in brackets) ------------------------

/// Acknowledgements one packet can carry (RELIABLE_ACK_SIZE) [1.2].
pub const MAX_ACKS: usize = 8;
/// Acknowledgements that ride on a packet that is not a bare ACK (CONTROL_SEND_ACK_MAX) [1.2].
pub const MAX_PIGGYBACK_ACKS: usize = 4;
/// Largest wrapped client key of tls-crypt-v2, its length field included [2.5].
pub const MAX_WKC: usize = 1024;
/// Largest control channel TLS plaintext that stock peers read at once (TLS_CHANNEL_BUF_SIZE) [3.2].
pub const MAX_PLAINTEXT: usize = 2048;
/// Largest PUSH message, its NUL included (PUSH_BUNDLE_SIZE) [7.2].
pub const MAX_PUSH_MESSAGE: usize = 1024;
/// Largest options (OCC) string, its NUL included [5.1].
pub const MAX_OPTIONS_STRING: usize = 512;
/// Largest user name or password, its NUL included [5.1].
pub const MAX_CREDENTIAL: usize = 128;
/// Largest control packet with outer IP and UDP headers (TLS_MTU_DEFAULT) [3.2].
pub const CONTROL_MTU: usize = 1250;
/// Peer ids are 24 bits; this one means "none" [1.5].
pub const NO_PEER_ID: u32 = 0xff_ffff;
/// A sender renegotiates when a 32-bit data packet id gets here [3.6].
pub const PACKET_ID_TRIGGER: u32 = 0xff00_0000;
/// Smallest MTU an IPv6 link may have (RFC 8200 section 5); below it Linux switches IPv6 off.
pub const MIN_TUN_MTU: u16 = 1280;
/// Largest common name or user name [4.3].
pub const MAX_NAME: usize = 64;

// ---- Our choices ---------------------------------------------------------------------------------

/// Headroom before a packet read from the TUN device: a virtio-net header (12) and the largest data
/// header, 4 + 4 + 16 (classic AEAD) or 4 + HMAC 64 + IV 16 + 4 (CBC), rounded up to a cache line.
pub const HEADROOM: usize = 128;
/// Largest IP packet carried; the TUN MTU must not exceed it.
pub const MAX_MTU: usize = 9000;
/// What we tell a server as the largest MTU it may push (stock clients' tun-mtu-max) [6.8].
pub const MAX_TUN_MTU: u16 = 1600;
/// Options a server may push in one reply, all parts together: some 40 bytes each, while connecting.
pub const MAX_PUSHED_OPTIONS: usize = 2048;
/// Routes taken from a push; 24 bytes each.
pub const MAX_PUSHED_ROUTES: usize = 1024;
/// Room behind a packet: epoch tag (16), CBC padding (16), a framing's byte; and, as a datagram is
/// read behind the headroom, all that a data packet has more than the IP packet in it (105 with
/// CBC and SHA512).
pub const TAILROOM: usize = 128;
/// One packet's memory. The loop holds a handful of them for its whole life.
pub const PACKET_BUF: usize = HEADROOM + MAX_MTU + TAILROOM;
/// Largest control packet kept for retransmission; 6 of them per half-open or live session.
pub const MAX_CONTROL_PACKET: usize = CONTROL_MTU;
/// Un-acknowledged control packets in flight [3.1: 6 in 2.6+, at most 4 for comfort towards <= 2.5].
pub const SEND_WINDOW: usize = 4;
/// Out-of-order control packets kept per key [3.1: 12 in 2.6+].
pub const RECEIVE_WINDOW: usize = 12;
/// Control messages a session holds in each direction, unsent or unread; a PUSH_REPLY of 1000 routes
/// takes about 40. Up to 2 KB each, in practice none.
pub const MAX_CONTROL_QUEUE: usize = 64;
/// Replay window of the data channel in packets (stock: 64); one bit each, three keys per client.
pub const REPLAY_WINDOW: usize = 1024;
/// Clients a server holds at most unless `max-clients` says less.
pub const MAX_CLIENTS: usize = 1024;
/// Prefixes of the line that are routed at once, old ones among them; 36 bytes each, and each is
/// looked at for every IPv6 packet.
pub const MAX_LINE_PREFIXES: usize = 4;
/// Datagrams of strangers per second that cryptography is spent on, an HMAC over some 50 bytes each; longer
/// ones count as several ([`stranger_cost`]). What comes beyond waits for its retransmission, a genuine first
/// packet too: a lower number spares clients there are, a higher one lets new clients in under a heavier
/// flood. `benches/floods` measures what is left for clients. On MIPS each takes 63 000 instructions
/// (`benches/instructions --strangers --mips`): 3000 would be a third of such a router's time, 500 a twentieth.
pub const STRANGERS_PER_SECOND: u32 = if cfg!(target_arch = "mips") { 500 } else { 3000 };
/// Bytes that cost about as much as looking at a datagram at all.
const STRANGER_UNIT: usize = 128;

/// What a datagram counts in [`STRANGERS_PER_SECOND`]: wrapped client keys are long, and so is an HMAC over them.
pub const fn stranger_cost(len: usize) -> u32 {
    len.div_ceil(STRANGER_UNIT) as u32
}
/// Sessions that have not authenticated yet, in all.
pub const MAX_HALF_OPEN: usize = 64;
/// States that the management interface remembers; up to 150 bytes each.
pub const MANAGEMENT_HISTORY: usize = 100;
/// Longest request to the keeper: a file of leases, of which it holds one at a time.
pub const MAX_KEPT: usize = 4 << 20;
/// Log lines that `sixgate log` can still show; some 100 bytes each.
pub const LOG_LINES: usize = 100;
/// Scripts that run at once; further ones wait. Each is a process of its own, a shell perhaps: some
/// 1 MB on a router while it runs.
pub const MAX_HOOKS: usize = 8;
/// Scripts that wait to be run; up to 4 KB each, mostly their environment.
pub const MAX_HOOK_QUEUE: usize = 2048;
/// What a script may write for a client (`client-connect`), in bytes.
pub const MAX_HOOK_SETTINGS: u64 = 64 * 1024;
