//! wire reader
