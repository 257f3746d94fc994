//! wire data
