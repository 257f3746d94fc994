//! What is known of a peer while it is being decided on, and how far the decision has come.
//!
//! ```text
//! Metadata ─> Certificate(n)…(0) ─> Login ─> Approval ─> Decision
//! Decision ─┬─> Place ─> Connect ─> Learn(0)… ─> Enter
//!           └─> (renegotiation) the key is approved
//! ```
//!
//! Every step has to succeed before the next begins, and all of them before PUSH_REPLY: there is no
//! other way to the end (CVE-2020-15078, CVE-2022-0547). A step that nothing is configured for
//! succeeds. What the steps do is the business of `steps`, `login` and `arrival`.

use ipnet::IpNet;
use zeroize::Zeroizing;

use crate::engine::Environment;
use crate::server::negotiate::Terms;
use crate::server::peer::Who;
use crate::server::pool::Lease;
use crate::server::token::TokenSession;
#[cfg(feature = "totp")]
use crate::server::{token::Tokens, totp::Answer};
use crate::session::Authentication;
use crate::wire::key_method::CredentialError;
use crate::wire::opcode::KeyId;

/// What is being decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `tls-crypt-v2-verify`: the metadata of the client's own key.
    Metadata,
    /// `tls-verify`: the certificate at this depth; the peer's own, at 0, comes last.
    Certificate(usize),
    /// User name and password, or a token.
    Login,
    /// `management-client-auth`: the management program's word.
    Approval,
    /// What the outside world knows: revocation, the client's own file.
    Decision,
    /// Addresses, so that scripts can be told of them.
    Place,
    /// `client-connect`.
    Connect,
    /// `learn-address`: the address or network of this number.
    Learn(usize),
    /// It is in.
    Enter,
}

impl Step {
    /// What it is about, in words.
    pub const fn subject(self) -> &'static str {
        match self {
            Self::Metadata => "tls-crypt-v2-verify",
            Self::Certificate(_) => "tls-verify",
            Self::Login => "auth-user-pass-verify",
            Self::Approval => "management-client-auth",
            Self::Decision => "admission",
            Self::Place => "addresses",
            Self::Connect => "client-connect",
            Self::Learn(_) => "learn-address",
            Self::Enter => "arrival",
        }
    }
}

/// A peer's case: opened when it has proven who it is, closed with the decision.
pub struct Case {
    /// Names the open question; an answer with another ticket is too late.
    pub ticket: u64,
    /// What the question is about.
    pub step: Step,
    /// The client's number, which nobody else ever has.
    pub number: u64,
    /// The management program has been asked about it.
    pub asked: bool,
    /// What the management program has said about it, as in a per-client file.
    pub given: String,
    /// The key that this is about.
    pub key: KeyId,
    /// Whether the peer is a client already.
    pub renegotiation: bool,
    /// Who it says to be.
    pub who: Who,
    /// Its certificates, DER, by depth.
    pub chain: Vec<Vec<u8>>,
    /// Its peer info, as it came.
    pub peer_info: String,
    /// Its password; wiped once it has been looked at.
    pub password: Zeroizing<String>,
    /// The one-time code that came with it.
    #[cfg(feature = "totp")]
    pub answer: Answer,
    /// Its password was a token.
    #[cfg(feature = "totp")]
    pub showed_token: bool,
    /// The code is the answer to our question, which had been asked when all else was right.
    #[cfg(feature = "totp")]
    pub was_asked: bool,
    /// User name and password came but were not readable.
    pub credential_error: Option<CredentialError>,
    /// What scripts are told; empty if there are none.
    pub environment: Environment,
    /// The login that tokens are given for.
    pub token: Option<TokenSession>,
}

impl Case {
    /// A new case of client `number`. `environment` is what scripts were told of the client before.
    pub fn open(number: u64, proof: Authentication, who: Who, environment: Environment) -> Self {
        Self {
            ticket: 0,
            step: Step::Metadata,
            number,
            asked: false,
            given: String::new(),
            key: proof.key_id,
            renegotiation: proof.renegotiation,
            who,
            chain: proof.chain,
            peer_info: proof.peer_info,
            #[cfg(feature = "totp")]
            answer: Answer::read(&proof.password),
            #[cfg(feature = "totp")]
            showed_token: Tokens::is_token(&proof.password),
            #[cfg(feature = "totp")]
            was_asked: false,
            password: proof.password,
            credential_error: proof.credential_error,
            environment,
            token: None,
        }
    }
}

/// What an applicant has been given before it is in.
pub struct Place {
    /// What was agreed.
    pub terms: Terms,
    /// Its addresses.
    pub lease: Lease,
    /// Those of them that its own file gave it.
    pub fixed: Lease,
    /// What it may send from, as far as `learn-address` agreed.
    pub prefixes: Vec<IpNet>,
}
