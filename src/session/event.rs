//! What a session tells its engine: events, and why something failed.

use core::fmt;

use zeroize::Zeroizing;

use crate::session::PeerIdentity;
use crate::wire::control::KeyId;
use crate::wire::key_method::CredentialError;
use crate::wire::message::Message;

/// What happened.
#[derive(Debug)]
pub enum SessionEvent {
    /// The TLS handshake is done, and the peer's certificates wait for judgement: answer with
    /// `accept_peer`, or drop the session. Nothing has been said inside TLS yet. Comes only with
    /// [`SessionConfig::judges_peer`](crate::session::SessionConfig::judges_peer).
    Judge {
        /// The key this is about.
        key_id: KeyId,
        /// The certificate and those above it up to an authority, DER: index is depth.
        chain: Vec<Vec<u8>>,
    },
    /// The peer has proved who it is. Answer for the first key with `install_keys` when
    /// the parameters are known, for later ones with `approve_key` or
    /// `reject`. Control messages can be sent from here on.
    Authenticate(Box<Authentication>),
    /// Data can be opened with this key, and sealed in due time.
    KeysReady(KeyId),
    /// A renegotiation has begun, started by either side; this is the new key.
    RenegotiationStarted(KeyId),
    /// The peer sent a control message.
    Message(Message),
    /// It is over; drop the session. Comes last.
    Failed(SessionFailure),
}

/// Who the peer is, and what it said in the key exchange. From a stranger until approved.
#[derive(Debug)]
pub struct Authentication {
    /// The key this is about.
    pub key_id: KeyId,
    /// Whether there was another key before. Identities must not change then [4.3].
    pub renegotiation: bool,
    /// From the certificate, which has been checked; the default if a client may do without.
    pub identity: PeerIdentity,
    /// The certificate and those above it up to an authority, DER: index is depth.
    pub chain: Vec<Vec<u8>>,
    /// To be read through [`crate::wire::peer_info`].
    pub peer_info: String,
    /// The peer's OCC string.
    pub options: String,
    /// Empty when there is none.
    pub username: String,
    /// Empty when there is none.
    pub password: Zeroizing<String>,
    /// User name and password came but cannot be right; both are empty then.
    pub credential_error: Option<CredentialError>,
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionFailure {
    /// A key was not established within `hand-window`.
    HandshakeTimeout,
    /// TLS or the key exchange failed; the text says whose fault it is and is safe to log.
    Tls(String),
    /// Nothing was heard from the peer for `ping-restart` seconds.
    PingTimeout,
    /// The last key ended without a successor.
    KeyExpired,
    /// `Session::reject` was called.
    Rejected,
}

impl fmt::Display for SessionFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HandshakeTimeout => "the TLS handshake did not finish in time (hand-window)",
            Self::Tls(reason) => reason,
            Self::PingTimeout => "nothing heard from the peer (ping-restart)",
            Self::KeyExpired => "the key has expired and could not be renewed",
            Self::Rejected => "the peer's new key was rejected",
        })
    }
}

/// Why a call was refused; nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionError {
    /// The key exchange is not finished, or the session has failed.
    NotReady,
    /// The first key has been installed already.
    AlreadyInstalled,
    /// The derived key is one that must not be used.
    BadKey,
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "the key exchange is not finished",
            Self::AlreadyInstalled => "the data keys are there already",
            Self::BadKey => "the derived data key is unusable",
        })
    }
}

impl core::error::Error for SessionError {}
