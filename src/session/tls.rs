//! The control channel's TLS: rustls fed with slices [4.1].
//!
//! `TlsContext` holds what all connections share: our certificate, the checks on the peer's, the
//! time. `Tls` is one connection: ciphertext in and out, the plaintext of each record, the peer's
//! identity, keying material. It knows nothing of packets or of what the plaintext means.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{ServerName, UnixTime as TlsTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    ClientConfig, ClientConnection, Connection, Error as TlsError, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};

use zeroize::Zeroizing;

use crate::buf::Full;
use crate::config;
use crate::limits::MAX_PLAINTEXT;
use crate::session::Role;
use crate::session::identity::PeerIdentity;
use crate::session::tls_error::in_words;
use crate::session::verify::{PeerVerifier, Revoked};
use crate::session::{certificate, credentials};
use crate::time::UnixTime;

/// The wall clock as the engine last heard it; certificates are judged by it.
#[derive(Debug, Clone, Default)]
pub struct SharedUnixTime(Arc<AtomicU32>);

impl SharedUnixTime {
    /// Sets the clock. 32 bits, which every target can share, last until 2106.
    pub fn set(&self, now: UnixTime) {
        self.0.store(u32::try_from(now.0).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    fn load(&self) -> u64 {
        u64::from(self.0.load(Ordering::Relaxed))
    }
}

impl TimeProvider for SharedUnixTime {
    fn current_time(&self) -> Option<TlsTime> {
        Some(TlsTime::since_unix_epoch(Duration::from_secs(self.load())))
    }
}

/// Our identity and the checks on the peer's, shared by every connection of an engine. What it
/// holds can be replaced at any time; connections that are under way keep what they began with.
pub struct TlsContext {
    role: Role,
    configure: Configure,
    time: SharedUnixTime,
    revoked: Revoked,
    current: RwLock<Generation>,
}

impl core::fmt::Debug for TlsContext {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TlsContext").field("role", &self.role).finish_non_exhaustive()
    }
}

/// What one reading of the files gave.
#[derive(Clone)]
struct Generation {
    side: Arc<dyn Side>,
    verifier: Arc<PeerVerifier>,
}

/// A client's or a server's settings for rustls. Behind a trait and a `Configure`, so that a
/// program which is never a client does not contain rustls' half for clients.
trait Side: Send + Sync {
    /// Starts a connection. `None` only when the machine has no randomness.
    fn connect(self: Arc<Self>) -> Option<Connection>;
}

impl Side for ServerConfig {
    fn connect(self: Arc<Self>) -> Option<Connection> {
        Some(ServerConnection::new(self).ok()?.into())
    }
}

impl Side for ClientConfig {
    fn connect(self: Arc<Self>) -> Option<Connection> {
        // rustls wants a name; it is neither sent (no SNI) nor compared.
        let name = ServerName::try_from("vpn").ok()?;
        Some(ClientConnection::new(self, name).ok()?.into())
    }
}

/// Makes a side of what both have.
type Configure = fn(Parts) -> Result<Arc<dyn Side>, String>;

struct Parts {
    provider: Arc<CryptoProvider>,
    time: Arc<SharedUnixTime>,
    versions: &'static [&'static SupportedProtocolVersion],
    verifier: Arc<PeerVerifier>,
    identity: Option<CertifiedKey>,
}

fn server_side(parts: Parts) -> Result<Arc<dyn Side>, String> {
    let Parts { provider, time, versions, verifier, identity } = parts;
    let builder = ServerConfig::builder_with_details(provider, time);
    let builder = builder.with_protocol_versions(versions).map_err(wrong_versions)?;
    let checked = builder.with_client_cert_verifier(verifier);
    let identity = identity.ok_or("cert: a server needs one")?;
    let mut config = checked.with_cert_resolver(credentials::resolver(identity));
    // Every renegotiation is a full handshake: nothing is resumed, no ticket sent [4.1].
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

fn client_side(parts: Parts) -> Result<Arc<dyn Side>, String> {
    let Parts { provider, time, versions, verifier, identity } = parts;
    let builder = ClientConfig::builder_with_details(provider, time);
    let builder = builder.with_protocol_versions(versions).map_err(wrong_versions)?;
    let checked = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(own) => checked.with_client_cert_resolver(credentials::resolver(own)),
        None => checked.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

fn wrong_versions(error: TlsError) -> String {
    format!("tls-version-min/max: {error}")
}

impl TlsContext {
    /// For a server. The error names the directive and what to change.
    pub fn server(tls: &config::Tls, time: SharedUnixTime) -> Result<Self, String> {
        Self::new(Role::Server, server_side, tls, time)
    }

    /// For a client. The error names the directive and what to change.
    pub fn client(tls: &config::Tls, time: SharedUnixTime) -> Result<Self, String> {
        Self::new(Role::Client, client_side, tls, time)
    }

    fn new(
        role: Role,
        configure: Configure,
        tls: &config::Tls,
        time: SharedUnixTime,
    ) -> Result<Self, String> {
        let revoked = Revoked::default();
        let current = RwLock::new(Generation::load(role, configure, tls, &time, &revoked)?);
        let context = Self { role, configure, time, revoked, current };
        context.revoke(tls.revoked.iter().cloned());
        Ok(context)
    }

    /// Takes certificates, key, checks and revocation list from `tls` for all handshakes from now
    /// on; on error everything stays as it was. Serial numbers revoked before stay revoked.
    pub fn replace(&self, tls: &config::Tls) -> Result<(), String> {
        let next = Generation::load(self.role, self.configure, tls, &self.time, &self.revoked)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        self.revoke(tls.revoked.iter().cloned());
        Ok(())
    }

    /// Refuses certificates with these serial numbers (big-endian, no leading zeros) from now on.
    pub fn revoke(&self, serials: impl IntoIterator<Item = Vec<u8>>) {
        self.revoked.write().unwrap_or_else(PoisonError::into_inner).extend(serials);
    }

    /// Tells the time by which certificates are judged.
    pub fn set_time(&self, now: UnixTime) {
        self.time.set(now);
    }

    /// Starts a connection. `None` only when the machine has no randomness.
    pub(super) fn connect(&self) -> Option<Tls> {
        let now = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let connection = now.side.connect()?;
        Some(Tls { connection, verifier: now.verifier, record: RecordCutter::default() })
    }
}

impl Generation {
    fn load(
        role: Role,
        configure: Configure,
        tls: &config::Tls,
        time: &SharedUnixTime,
        revoked: &Revoked,
    ) -> Result<Self, String> {
        let provider = Arc::new(default_provider());
        // A client may be known by user name and password alone.
        let anonymous = role == Role::Client && tls.cert.is_empty() && tls.key.is_empty();
        let identity = match anonymous {
            true => None,
            false => Some(credentials::identity(&provider, &tls.cert, &tls.key)?),
        };
        let end = identity.as_ref().and_then(credentials::not_after);
        if end.is_some_and(|end| end.as_secs() < time.load()) {
            log::warn!("cert: our own certificate has expired; peers will refuse it");
        }
        let by_fingerprint = tls.ca.is_empty() && !tls.fingerprints.is_empty();
        let credentials::Authorities { anchors, authorities, hints } = match by_fingerprint {
            true => credentials::Authorities::default(),
            false => credentials::authorities(&tls.ca)?,
        };
        let crls = match &tls.crl {
            None => Vec::new(),
            Some((path, bytes)) => credentials::revocation_lists(bytes)
                .map_err(|error| format!("crl-verify {}: {error}", path.display()))?,
        };
        let verifier = Arc::new(PeerVerifier {
            peer: role.other(),
            require_usage: tls.require_usage,
            certificate: tls.client_certificate,
            name: tls.verify_name.clone(),
            fingerprints: tls.fingerprints.clone(),
            anchors,
            authorities,
            hints,
            algorithms: provider.signature_verification_algorithms,
            crls,
            revoked: Arc::clone(revoked),
            refusal: Mutex::new(None),
            warned_clock: AtomicBool::new(false),
            warned_crl: AtomicBool::new(false),
        });
        let versions = versions(tls);
        let time = Arc::new(time.clone());
        let parts = Parts { provider, time, versions, verifier: Arc::clone(&verifier), identity };
        Ok(Self { side: configure(parts)?, verifier })
    }
}

fn versions(tls: &config::Tls) -> &'static [&'static SupportedProtocolVersion] {
    use rustls::version::{TLS12, TLS13};
    static NEW: [&SupportedProtocolVersion; 1] = [&TLS13];
    static OLD: [&SupportedProtocolVersion; 1] = [&TLS12];
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match (tls.only_tls13, tls.only_tls12) {
        (true, _) => &NEW,
        (false, true) => &OLD,
        (false, false) => &BOTH,
    }
}

/// One TLS connection.
pub(super) struct Tls {
    connection: Connection,
    verifier: Arc<PeerVerifier>,
    record: RecordCutter,
}

/// A plaintext record larger than anything we accept; the rest of it was thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Oversize;

impl Tls {
    /// Whether the handshake is complete on our side.
    pub(super) fn is_up(&self) -> bool {
        !self.connection.is_handshaking()
    }

    /// Takes TLS bytes in. `sink` gets the plaintext of each record in turn: peers up to 2.5 mean
    /// one message by one record [4.1]. After an error, which comes in words, there may be an
    /// alert to send, and the connection is of no more use.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut sink: impl FnMut(Result<&[u8], Oversize>),
    ) -> Result<(), String> {
        while !bytes.is_empty() {
            let (mut part, rest) =
                bytes.split_at_checked(self.record.advance(bytes)).unwrap_or((bytes, &[]));
            bytes = rest;
            while !part.is_empty() {
                match self.connection.read_tls(&mut part) {
                    Ok(0) => return Err("TLS: bytes after the end of the connection".to_owned()),
                    Ok(_) => {}
                    Err(error) => return Err(format!("TLS: {error}")),
                }
                self.connection.process_new_packets().map_err(|error| {
                    self.verifier.take_refusal().unwrap_or_else(|| in_words(&error))
                })?;
            }
            let mut plaintext = Zeroizing::new([0; MAX_PLAINTEXT]);
            let len = self.connection.reader().read(&mut *plaintext).unwrap_or(0);
            let mut spill = [0; 64];
            let mut oversize = false;
            while len > 0 && self.connection.reader().read(&mut spill).is_ok_and(|more| more > 0) {
                oversize = true;
            }
            match plaintext.get(..len) {
                Some([]) | None => {}
                Some(_) if oversize => sink(Err(Oversize)),
                Some(record) => sink(Ok(record)),
            }
        }
        Ok(())
    }

    /// Appends the TLS bytes that wait to be sent.
    pub(super) fn take_output(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // Writing to a Vec does not fail.
            if !self.connection.write_tls(out).is_ok_and(|written| written > 0) {
                break;
            }
        }
    }

    /// Encrypts `message` as one record.
    pub(super) fn write(&mut self, message: &[u8]) -> Result<(), Full> {
        match self.connection.writer().write(message) {
            Ok(written) if written == message.len() => Ok(()),
            Ok(_) | Err(_) => Err(Full),
        }
    }

    /// Who the peer is; `None` before the handshake is complete.
    pub(super) fn identity(&self) -> Option<PeerIdentity> {
        PeerIdentity::from_der(self.connection.peer_certificates()?.first()?)
    }

    /// The peer's certificate and those above it up to an authority, DER; empty if it has shown none.
    pub(super) fn chain(&self) -> Vec<Vec<u8>> {
        let authorities =
            self.verifier.authorities.iter().map(|authority| authority.der.as_slice());
        certificate::chain(self.connection.peer_certificates().unwrap_or_default(), authorities)
    }

    /// Keying material without a context, which under TLS 1.2 differs from an empty one [5.4].
    pub(super) fn export(&self, label: &[u8]) -> Option<[u8; 256]> {
        self.connection.export_keying_material([0; 256], label, None).ok()
    }

    /// Version and suite, for the log.
    pub(super) fn description(&self) -> String {
        let version = self.connection.protocol_version();
        let suite = self.connection.negotiated_cipher_suite();
        match (version, suite) {
            (Some(version), Some(suite)) => {
                let suite = suite.suite();
                let names = [version.as_str(), suite.as_str()].map(Option::unwrap_or_default);
                names.join(" ")
            }
            _ => String::new(),
        }
    }
}

/// Finds where TLS records end in the byte stream, so that each is decrypted by itself:
///
/// ```text
/// 0  1   type
/// 1  2   version
/// 3  2   length n
/// 5  n   body
/// ```
#[derive(Default)]
struct RecordCutter {
    header: [u8; 5],
    have: usize,
    body: usize,
}

impl RecordCutter {
    /// How many of `bytes` belong to the record that is under way or begins here.
    fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        let mut rest = bytes.iter();
        while self.have < self.header.len() {
            let Some(byte) = rest.next() else { return used };
            used += 1;
            if let Some(place) = self.header.get_mut(self.have) {
                *place = *byte;
            }
            self.have += 1;
            if self.have == self.header.len() {
                let [_, _, _, high, low] = self.header;
                self.body = usize::from(u16::from_be_bytes([high, low]));
            }
        }
        let body = self.body.min(rest.len());
        self.body -= body;
        if self.body == 0 {
            self.have = 0;
        }
        used + body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_cut_apart_wherever_the_packets_end() {
        let bodies = [0_usize, 1, 5, 300, 0];
        let mut stream = Vec::new();
        let mut ends = Vec::new();
        for body in bodies {
            stream.extend([0x17, 3, 3]);
            stream.extend((body as u16).to_be_bytes());
            stream.resize(stream.len() + body, 0x5a);
            ends.push(stream.len());
        }
        for size in 1..stream.len() {
            let mut cutter = RecordCutter::default();
            let mut at = 0;
            let mut found = Vec::new();
            for mut packet in stream.chunks(size) {
                while !packet.is_empty() {
                    let used = cutter.advance(packet);
                    assert!(used > 0 && used <= packet.len());
                    at += used;
                    packet = &packet[used..];
                    if cutter.have == 0 {
                        found.push(at);
                    }
                }
            }
            assert_eq!(found, ends, "packets of {size} bytes");
        }
    }
}
