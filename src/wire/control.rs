//! wire control
