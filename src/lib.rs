//! sixgate: an IPv6-first VPN server and client that speaks OpenVPN's wire protocol, small enough
//! for a home router.
//!
//! This is the map. One crate, a library and a thin binary; dependencies point inward only:
//!
//! ```text
//! main.rs ─> sys/ ─> server/ | client/ ─> session/ ─> wire/
//!                 leaves, pure: config/ doctor/ manage/ offload/ pki/ selftest/ buf limits random sorted time engine
//! ```
//!
//! # The rings, and what each does not do
//!
//! * [`wire`] turns bytes into meaning and back: packets, key files, control messages, IP headers.
//!   It holds no state and no keys.
//! * [`session`] is one tunnel with one peer, in either role: control channel wrapping, reliability,
//!   TLS, key exchange, data keys, replay protection, renegotiation. It knows nothing of addresses,
//!   routes or other peers.
//! * [`server`] and [`client`] are the two engines. The server admits strangers without remembering
//!   them, gives out addresses, routes packets between the TUN device and its clients; the client
//!   finds a server and takes what it pushes. Both implement [`engine::Engine`] and touch nothing
//!   outside: what they want done leaves as [`engine::Command`]s.
//! * [`config`] reads OpenVPN configuration files into one checked, typed value; [`pki`] issues the
//!   certificates and profiles of the built-in certificate authority; [`manage`] speaks OpenVPN's
//!   management protocol and prints its status formats; [`doctor`] judges what stands between a
//!   server and its clients.
//! * [`offload`] takes pieces of many packets apart and puts them together, so that one system call
//!   moves many packets; it knows headers and checksums, no devices.
//! * `selftest` has hosts and a whole site in memory, with which `sixgate selftest` tries both engines
//!   on the machine at hand.
//! * [`sys`] is the outside world: sockets, the TUN device, netlink, signals, files, clocks,
//!   privileges. Only here is there `unsafe`; only here is a clock read. Started as root, the program is
//!   two processes: one that handles packets and may next to nothing, and its keeper (`sys::keeper`).
//!
//! Time and randomness are arguments ([`time::Now`], [`random::Random`]), so a server and its
//! clients run in one test process over a simulated network and repeat from a seed.
//!
//! # The way of a packet
//!
//! ```text
//! TUN -> UDP   sys::tun read (up to 64 KiB of one flow) -> offload::split -> Server::handle_tun
//!              -> destination -> routes::lookup -> Session::seal (header, id and tag go into the
//!              headroom) -> Verdict::ToUdp -> offload::outbox -> sys::udp::batch send
//! UDP -> TUN   sys::udp::batch receive (rows of datagrams) -> Server::handle_udp -> opcode
//!     data     peer by peer-id -> Session::open: key slot, replay check, cipher, replay mark -> float?
//!              -> source address owned by the peer? -> Verdict::ToTun -> offload::coalesce
//!              -> sys::tun write | ToUdp (another client) | Drop
//!     control  peer by endpoint and session id, else admission (stateless) -> Session::handle_control:
//!              unwrap, replay, reliability, TLS, key method 2 -> Authenticate -> server::steps:
//!              scripts (Command::RunHook), login, Command::Admit, pool, routes, one after the other
//!              and each must succeed -> push -> poll_transmit
//! TIME         poll_timeout() bounds poll(2); handle_timeout(now) retransmits, pings, expires
//! ```
//!
//! A packet stays in one buffer from read to write, but for the one copy that splits a piece; nothing
//! is allocated for it (`tests/no_alloc.rs`).
//!
//! # Words
//!
//! *wrap*: what protects control packets before TLS does (tls-auth, tls-crypt, tls-crypt-v2).
//! *WKc*: a client's wrapped tls-crypt-v2 key, which only the server can unwrap. *Key method 2*: the
//! exchange of randoms, options and credentials inside TLS that precedes data keys. *Key id*: which
//! of the overlapping data keys a packet uses. *Peer-id*: the number by which a server knows a
//! client's data packets wherever they come from. *Float*: a client's change of address. *Line*: the
//! server's connection to its provider, whose global IPv6 prefix clients' addresses follow; beside it is
//! the *stable prefix*, in which tables know every client (`server::line`). *Push*: the
//! configuration a server sends a client. Section numbers in brackets, such as \[2.4\], refer to the
//! project's protocol reference.

// What is banned, and why, is in clippy.toml; `sys` alone may use it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod buf;
pub mod cli;
pub mod client;
pub mod config;
pub mod doctor;
pub mod engine;
pub mod limits;
pub mod manage;
pub mod offload;
pub mod pki;
pub mod random;
pub mod rate;
#[cfg(feature = "selftest")]
pub mod selftest;
pub mod server;
pub mod session;
pub mod sorted;
pub mod sys;
pub mod time;
pub mod wire;
