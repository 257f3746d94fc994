//! wire message
