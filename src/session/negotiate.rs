//! The key exchange inside TLS: key method 2 both ways, and what the two ends tell each other along
//! with it [5.1].
//!
//! The client speaks first. Which cipher and derivation result from it is the engines' decision;
//! this keeps the key material until they have made it.

use zeroize::Zeroizing;

use crate::limits::MAX_PLAINTEXT;
use crate::random::Random;
use crate::session::keys::{DATA_KEYS_LABEL, Derivation, KeyBlock, PrfInput};
use crate::session::occ::{framed, is_framed};
use crate::session::tls::{Oversize, Tls};
use crate::session::{Role, SessionConfig};
use crate::wire::control::SessionId;
use crate::wire::key_method::{Credentials, KeyMethod2, KeyMethodError, KeySource};

/// Whether our message waits for a judgement on the peer's certificates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// It does, and nobody has been asked yet.
    Due,
    /// It does, and the answer will come.
    Asked,
    /// It does not, or not any more.
    Off,
}

/// The exchange of one key.
pub(super) struct Exchange {
    role: Role,
    hold: Hold,
    spoken: bool,
    heard: bool,
    ours: Option<KeySource>,
    theirs: Option<KeySource>,
    /// (Server) the client frames its packets as for compression.
    framed: bool,
    /// A message that came in more than one record.
    partial: Zeroizing<Vec<u8>>,
}

impl Exchange {
    pub(super) fn new(role: Role, judged: bool) -> Self {
        Self {
            role,
            hold: if judged { Hold::Due } else { Hold::Off },
            spoken: false,
            heard: false,
            ours: None,
            theirs: None,
            framed: false,
            partial: Zeroizing::default(),
        }
    }

    /// Whether our message is due: the client's at once, the server's as an answer.
    pub(super) fn should_speak(&self) -> bool {
        let turn = match self.role {
            Role::Client => true,
            Role::Server => self.has_theirs(),
        };
        turn && !self.spoken && self.hold == Hold::Off
    }

    /// Whether the peer's certificates are to be judged now; asked once.
    pub(super) fn asks_for_judgement(&mut self) -> bool {
        let asks = self.hold == Hold::Due;
        if asks {
            self.hold = Hold::Asked;
        }
        asks
    }

    /// The peer's certificates have been judged good: our message need not wait.
    pub(super) fn release(&mut self) {
        self.hold = Hold::Off;
    }

    /// Whether the peer's message has come.
    pub(super) fn has_theirs(&self) -> bool {
        self.heard
    }

    /// Whether both messages are exchanged.
    pub(super) fn is_complete(&self) -> bool {
        self.spoken && self.heard
    }

    /// Our message, to be written as one record. The randoms are fresh for each key.
    pub(super) fn speak(
        &mut self,
        config: &SessionConfig,
        rng: &mut dyn Random,
    ) -> Result<Zeroizing<Vec<u8>>, String> {
        let (source, credentials, peer_info) = match self.role {
            Role::Client => {
                (KeySource::client(rng), config.credentials.credentials(), config.peer_info.clone())
            }
            // A server says nothing about itself [5.1].
            Role::Server => (KeySource::server(rng), Credentials::default(), String::new()),
        };
        // Told what it expects, the client does not warn.
        let options = if self.framed { framed(&config.options) } else { config.options.clone() };
        let message = KeyMethod2 { source, options, credentials: Ok(credentials), peer_info };
        let bytes = message.to_bytes().map_err(|error| error.to_string())?;
        if bytes.len() > MAX_PLAINTEXT {
            return Err("our own key exchange message is too long".to_owned());
        }
        self.ours = Some(message.source.clone());
        self.spoken = true;
        Ok(bytes)
    }

    /// One record of the peer's message; the message once it is whole. Some TLS stacks cut it into
    /// several records, so what is only too short may go on, within what stock peers accept.
    pub(super) fn listen(
        &mut self,
        record: Result<&[u8], Oversize>,
    ) -> Result<Option<KeyMethod2>, String> {
        let too_long = || "key exchange message too long".to_owned();
        let record = record.map_err(|Oversize| too_long())?;
        // The server answers the client; one that speaks first is not let past its judges.
        if self.hold != Hold::Off {
            return Err("key exchange message before its turn".to_owned());
        }
        if self.partial.len() + record.len() > MAX_PLAINTEXT {
            return Err(too_long());
        }
        let whole = if self.partial.is_empty() {
            record
        } else {
            self.partial.extend_from_slice(record);
            self.partial.as_slice()
        };
        let parsed = match self.role {
            Role::Client => KeyMethod2::from_server(whole),
            Role::Server => KeyMethod2::from_client(whole),
        };
        match parsed {
            Ok(message) => {
                self.theirs = Some(message.source.clone());
                self.framed = self.role == Role::Server && is_framed(&message.options);
                self.heard = true;
                self.partial = Zeroizing::default();
                Ok(Some(message))
            }
            Err(KeyMethodError::Truncated) => {
                if self.partial.is_empty() {
                    // Reserved at once: growing would leave copies of secrets behind.
                    self.partial = Zeroizing::new(Vec::with_capacity(MAX_PLAINTEXT));
                    self.partial.extend_from_slice(record);
                }
                Ok(None)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Wipes the key material: the data keys have been derived and nobody must do it again.
    pub(super) fn forget(&mut self) {
        (self.ours, self.theirs) = (None, None);
    }

    /// Derives the data channel's key block [5.4]; `None` before the exchange is complete.
    pub(super) fn block(
        &self,
        derivation: Derivation,
        tls: &Tls,
        local: SessionId,
        remote: SessionId,
    ) -> Option<KeyBlock> {
        let (Some(ours), Some(theirs)) = (&self.ours, &self.theirs) else { return None };
        match derivation {
            Derivation::Exporter => {
                let bytes = Zeroizing::new(tls.export(DATA_KEYS_LABEL)?);
                Some(KeyBlock::from_exporter_bytes(&bytes))
            }
            Derivation::Prf => {
                let (client, server, client_session, server_session) = match self.role {
                    Role::Client => (ours, theirs, local, remote),
                    Role::Server => (theirs, ours, remote, local),
                };
                Some(KeyBlock::from_prf(&PrfInput {
                    pre_master: client.pre_master.as_ref()?,
                    client: (&client.random1, &client.random2),
                    server: (&server.random1, &server.random2),
                    client_session,
                    server_session,
                }))
            }
        }
    }
}
