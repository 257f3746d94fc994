//! What `sixgate selftest` is made of: certificates and configurations that live in memory
//! ([`site`]), and IP hosts in place of TUN devices ([`host`]).
//!
//! Nothing here knows how the two ends reach each other: `sys::selftest` gives them sockets and a
//! clock.

pub mod host;
mod link;
pub mod site;
