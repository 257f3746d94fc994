//! wire key_method
