//! wire mss
