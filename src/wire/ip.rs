//! wire ip
