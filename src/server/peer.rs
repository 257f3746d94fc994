//! One peer of a server: its session, and how far it has come [9.4].
//!
//! ```text
//! Handshake ─ Authenticate ─> Asking ─ Reply::Admit ─> Connected ─ leaves ─> Leaving ─> gone
//!     └──────────────────────────┴── refused: AUTH_FAILED ─────────────────────┘
//! ```
//!
//! Only a `Connected` peer owns addresses and has its data packets opened, so nothing that has to
//! do with tunnel traffic can happen to a peer that was not admitted.

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};

use crate::config::ClientSettings;
use crate::engine::{ClientInfo, Endpoint, Environment, PeerId};
use crate::server::case::{Case, Place};
use crate::server::lifetime::Lifetime;
use crate::server::negotiate::{Offer, Terms};
use crate::server::pool::Lease;
use crate::server::reload::Review;
use crate::server::token::TokenSession;
use crate::session::{PeerIdentity, Session};
use crate::time::{Instant, UnixTime};
use crate::wire::mss::MssLimits;

/// A session and what the server knows of its peer.
pub struct Peer {
    /// The tunnel itself.
    pub session: Session,
    /// How far the peer has come.
    pub stage: Stage,
    /// It asked for its configuration before there was any [7.2].
    pub push_requested: bool,
    /// It waits in the queue of peers that may have something to send.
    pub queued: bool,
    /// What its wrapped client key carried, if a script is to see it.
    pub metadata: Option<Vec<u8>>,
}

impl Peer {
    /// A peer whose address is proven (or that cannot prove it), and nothing else.
    pub const fn new(session: Session) -> Self {
        let (push_requested, queued, metadata) = (false, false, None);
        Self { session, stage: Stage::Handshake, push_requested, queued, metadata }
    }

    /// The admitted client, if it is one.
    pub const fn client(&self) -> Option<&Client> {
        match &self.stage {
            Stage::Connected(client) => Some(client),
            Stage::Handshake | Stage::Asking(_) | Stage::Leaving { .. } => None,
        }
    }

    /// Whether it is on its way out.
    pub const fn is_leaving(&self) -> bool {
        match &self.stage {
            Stage::Leaving { .. } => true,
            Stage::Handshake | Stage::Asking(_) | Stage::Connected(_) => false,
        }
    }

    /// The name it has proven to have.
    pub fn name(&self) -> Option<&str> {
        match &self.stage {
            Stage::Asking(applicant) => Some(applicant.case.who.name()),
            Stage::Connected(client) => Some(client.who.name()),
            Stage::Handshake | Stage::Leaving { .. } => None,
        }
    }

    /// Whether it has addresses, be it that it is a client or about to be one.
    pub fn has_place(&self) -> bool {
        self.lease().is_some()
    }

    /// Its addresses, and those of them that its own file gave it.
    pub fn lease(&self) -> Option<(Lease, Lease)> {
        match &self.stage {
            Stage::Asking(applicant) => {
                applicant.place.as_ref().map(|place| (place.lease, place.fixed))
            }
            Stage::Connected(client) => Some((client.lease, client.fixed)),
            Stage::Handshake | Stage::Leaving { .. } => None,
        }
    }

    /// When it wants attention at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let own = match &self.stage {
            Stage::Leaving { until } => Some(*until),
            Stage::Connected(client) => {
                let own = [client.token_due, client.restart_due, client.lifetime.deadline()];
                own.into_iter().flatten().min()
            }
            Stage::Handshake | Stage::Asking(_) => None,
        };
        [own, self.session.poll_timeout()].into_iter().flatten().min()
    }
}

/// How far a peer has come.
pub enum Stage {
    /// TLS and key exchange are under way.
    Handshake,
    /// It has proven who it is; the outside world decides.
    Asking(Box<Applicant>),
    /// It is in.
    Connected(Box<Client>),
    /// It was refused, or has said goodbye: acknowledgements still flow, nothing else does. Set
    /// once and never extended (CVE-2024-28882).
    Leaving {
        /// When its place becomes free.
        until: Instant,
    },
}

/// Who a peer has proven to be; the same for as long as it is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Its certificate.
    pub identity: PeerIdentity,
    /// User name, or empty.
    pub username: String,
    name: String,
}

impl Who {
    /// With `by_username`, the user name stands in for the common name.
    pub fn new(identity: PeerIdentity, username: String, by_username: bool) -> Self {
        let name = if by_username { &username } else { &identity.common_name }.clone();
        Self { identity, username, name }
    }

    /// The name that addresses, limits and logs go by.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A peer that waits to be admitted.
pub struct Applicant {
    /// How far the decision has come.
    pub case: Case,
    /// What it can do.
    pub offer: Offer,
    /// What is different for it.
    pub settings: Box<ClientSettings>,
    /// The part of that which a script has said.
    pub scripted: Option<Box<ClientSettings>>,
    /// What it has been given already.
    pub place: Option<Place>,
}

impl Applicant {
    /// Nothing is decided.
    pub fn new(case: Case, offer: Offer) -> Self {
        Self { case, offer, settings: Box::default(), scripted: None, place: None }
    }
}

/// An admitted client.
pub struct Client {
    /// How many clients came before it.
    pub number: u64,
    /// Who it is.
    pub who: Who,
    /// What it can do.
    pub offer: Offer,
    /// What was agreed.
    pub terms: Terms,
    /// Its addresses.
    pub lease: Lease,
    /// Those of them that its own file gave it.
    pub fixed: Lease,
    /// The IPv6 address it was told last: that of its lease, or one of `faces`.
    pub told: Option<Ipv6Addr>,
    /// The network that it was told last to be delegated to it.
    pub told_net: Option<Ipv6Net>,
    /// The addresses and networks in prefixes of the line that lead to it, too.
    pub faces: Vec<IpNet>,
    /// When it is told to connect again, as it cannot be told another address.
    pub restart_due: Option<Instant>,
    /// What it may send from: its addresses, and the networks behind it.
    pub prefixes: Vec<IpNet>,
    /// What is different for it.
    pub settings: Box<ClientSettings>,
    /// The part of that which a script has said.
    pub scripted: Option<Box<ClientSettings>>,
    /// The configuration has been read again, and it is not decided yet what that means for it.
    pub review: Option<Box<Review>>,
    /// PUSH_REPLY, in parts.
    pub push: Vec<String>,
    /// When it was sent last.
    pub pushed: Option<Instant>,
    /// The open case of a renegotiation.
    pub asking: Option<Box<Case>>,
    /// What scripts are told of it; empty if there are none.
    pub environment: Environment,
    /// The login that its tokens are for.
    pub token: Option<TokenSession>,
    /// When it is to get the next one.
    pub token_due: Option<Instant>,
    /// How long it may stay.
    pub lifetime: Lifetime,
    /// Since when it is in.
    pub since: UnixTime,
    /// Largest packet it can take.
    pub mtu: u16,
    /// Limits for TCP segments on their way.
    pub mss: Option<MssLimits>,
    /// Tunnel bytes from it.
    pub bytes_in: u64,
    /// Tunnel bytes to it.
    pub bytes_out: u64,
}

impl Client {
    /// The networks behind it.
    fn networks(&self) -> impl Iterator<Item = IpNet> + '_ {
        let own = |net: &&IpNet| self.lease.addresses().any(|own| IpNet::from(own) == **net);
        let behind = self.prefixes.iter().filter(move |net| !own(net));
        behind.chain(self.faces.iter().filter(|face| host(face).is_none())).copied()
    }

    /// Further addresses of its own, beside the one it was told.
    fn also(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        let all = self.lease.v6.into_iter().chain(self.faces.iter().filter_map(host));
        all.filter(|address| Some(*address) != self.told)
    }

    /// What status, hooks and logs are told.
    pub fn info(&self, peer: PeerId, from: Endpoint, heard: Instant, reason: &str) -> ClientInfo {
        ClientInfo {
            peer,
            id: self.number,
            common_name: self.who.name().to_owned(),
            username: self.who.username.clone(),
            from,
            v4: self.lease.v4,
            v6: self.told,
            also: self.also().collect(),
            networks: self.networks().collect(),
            since: self.since.0,
            heard,
            expires: self.who.identity.expires,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            cipher: self.terms.cipher.as_str(),
            version: self.offer.version.clone(),
            platform: self.offer.platform.clone(),
            reason: reason.to_owned(),
        }
    }
}

/// The address that this is, if it is a single one.
pub fn host(net: &IpNet) -> Option<Ipv6Addr> {
    match net {
        IpNet::V6(net) if net.prefix_len() == 128 => Some(net.addr()),
        IpNet::V6(_) | IpNet::V4(_) => None,
    }
}
