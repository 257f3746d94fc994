//! The server engine.

pub mod admit;
pub mod cookie;
pub mod negotiate;
pub mod peers;
pub mod pool;
pub mod push;
pub mod rate;
pub mod routes;
