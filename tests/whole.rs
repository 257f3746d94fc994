//! Whole engines, and what must hold of the parts together: one module for each subject, and what they share.
//! All are one program, as linking one for each would take longer than running them. What counts memory,
//! wants privileges or looks at the sources has a program of its own.

mod admission;
mod client;
mod client_files;
mod client_judge;
mod client_login;
mod client_profile;
mod clock;
mod common;
mod delegations;
mod fuzz_corpus;
mod hooks;
mod offload;
mod old_peers;
mod prefixes;
mod reload;
#[path = "common/segments.rs"]
mod segments;
mod server;
mod topologies;
mod tunnel;
mod tunnel_tcp;
