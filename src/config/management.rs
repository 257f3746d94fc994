//! `management`: where other programs may look at the process and tell it what to do.

use std::path::PathBuf;

use super::Secret;

/// `management` and what belongs to it.
#[derive(Debug, Clone)]
pub struct Management {
    /// Where to listen.
    pub listen: ManagementAddress,
    /// The first line of the password file.
    pub password: Option<Secret>,
    /// `management-hold`.
    pub hold: bool,
    /// `management-query-passwords`: a client's login is asked for there.
    pub query: bool,
    /// `management-log-cache`: log lines kept.
    pub log_lines: usize,
    /// `management-client-user`, `management-client-group`: who may open the Unix socket.
    pub client: (Option<String>, Option<String>),
}

/// Where the management interface listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManagementAddress {
    /// TCP.
    Tcp(std::net::SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}
