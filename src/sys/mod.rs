//! The shell: everything that touches the outside world, on Linux. The only place with `unsafe`,
//! clocks, files, sockets and threads.
//!
//! [`event_loop`] drives an [`Engine`](crate::engine::Engine) with what [`udp`], [`tun`],
//! [`signal`], [`ctl_socket`] and [`resolve`] bring, and carries its commands out with
//! [`netlink`] and [`admission`]. [`service`] puts all of it together in the order that privileges
//! demand: open everything, give privileges up ([`privilege`]), then loop. What root alone may do after
//! that is asked of `keeper`, the other process. [`commands`] do without a loop.
//!
//! What the parts leave to others: no module here knows the wire protocol, certificates or the
//! meaning of a directive.

#![allow(unsafe_code, clippy::disallowed_methods, clippy::disallowed_types)]

pub mod admission;
pub mod client_files;
pub mod client_routes;
pub mod client_set;
#[cfg(feature = "totp")]
pub mod client_totp;
#[cfg(feature = "client")]
mod client_upkeep;
pub mod clock;
pub mod commands;
pub mod ctl_socket;
pub mod delegated;
pub mod doctor;
pub mod event_loop;
pub mod hooks;
mod keeper;
mod leftovers;
pub mod line;
pub mod logger;
pub mod management;
pub mod netlink;
mod output_file;
pub mod outside;
mod pages;
mod poll;
pub mod privilege;
pub mod process;
mod processor;
pub mod reload;
pub mod remarks;
pub mod reports;
pub mod resolve;
pub mod sandbox;
#[cfg(feature = "selftest")]
pub mod selftest;
pub mod service;
pub mod signal;
mod sockaddr;
pub mod state;
pub mod status;
pub mod store;
#[cfg(feature = "client")]
mod terminal;
#[cfg(test)]
mod testing;
pub mod tun;
pub mod tunnel;
pub mod udp;
pub mod watch;
pub mod wipe;

use std::io;

/// Turns the -1 of a system call into the error that `errno` holds.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same for calls that return a byte count.
fn check_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
