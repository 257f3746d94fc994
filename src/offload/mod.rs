//! Many packets for the price of one: what the kernel hands over in one piece is split, and what it
//! can take in one piece is put together. Pure; the system calls are `sys`'s business.
//!
//! ```text
//! TUN -> UDP   vnet header, up to 64 KiB of one flow ─ Splitter ─> packets of the tunnel's MTU
//!              ─ engine seals each in place ─> Outbox ─ runs of one peer and size ─> UDP_SEGMENT
//! UDP -> TUN   datagrams of one peer in a row (UDP_GRO) ─ engine opens each in place ─> Coalescer
//!              ─ vnet header and the parts of one TCP flow ─> one write
//! ```
//!
//! What goes in comes out byte for byte: segments are put together only when the kernel, asked to
//! take them apart again, would make the very same packets. Everything else passes as it is, and
//! never overtakes a packet of its own flow.

pub mod checksum;
pub mod coalesce;
#[doc(hidden)]
pub mod fuzz;
pub mod outbox;
mod segment;
pub mod split;
pub mod vnet;
