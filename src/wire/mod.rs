//! Bytes to meaning and back: no state, no keys, no allocation on the data path.
pub mod control;
pub mod data;
pub mod ip;
pub mod key_method;
pub mod message;
pub mod mss;
pub mod reader;
pub mod static_key;
pub mod wkc;
