//! Bytes to meaning and back: no state, no keys, no allocation on the data path.
//!
//! Every parser here is total: whatever the bytes, it returns a value or a small error that says
//! what is wrong, and never panics. Deciding what a value means for a session is not done here.
//! Section numbers in brackets are those of the protocol reference.

pub mod challenge;
pub mod control;
pub mod data;
#[doc(hidden)]
pub mod fuzz;
pub mod icmp;
pub mod ip;
mod key_file;
pub mod key_method;
pub mod message;
pub mod mss;
pub mod opcode;
pub mod peer_info;
pub mod reader;
pub mod static_key;
pub mod wkc;
