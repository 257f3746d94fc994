//! wire wkc
