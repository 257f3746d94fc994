//! One tunnel with one peer, in either role.

pub mod cipher;
pub mod data;
pub mod keys;
pub mod occ;
pub mod replay;
pub mod wrap;

/// Which end of a tunnel we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Opens the connection; TLS client.
    Client,
    /// Answers; TLS server; numbers the peers.
    Server,
}

impl Role {
    /// The other end.
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}
