//! sixgate: an IPv6-first VPN server and client that speaks OpenVPN's wire protocol.

// What is banned, and why, is in clippy.toml; `sys` alone may use it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod buf;
pub mod cli;
pub mod config;
pub mod engine;
pub mod limits;
pub mod pki;
pub mod random;
pub mod server;
pub mod session;
pub mod sys;
pub mod time;
pub mod wire;
