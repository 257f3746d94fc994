//! The server engine.

pub mod cookie;
pub mod pool;
pub mod rate;
pub mod routes;
