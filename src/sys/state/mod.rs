//! The state folder of a server that configures itself: what is in it and how it comes into being.
//!
//! ```text
//! /etc/sixgate/            0700; every file 0600
//!   server.conf            ordinary directives, written once, the owner's to edit
//!   ca.key  ca.crt         the CA; ca.key may live elsewhere once clients and server have theirs
//!   server.pem             the server's certificate and key, in one file so that they change together
//!   tls-crypt-v2.key       wraps the key of each client [2.5]
//!   issued  revoked        the lists, see `pki::index`
//!   endpoint               what `--endpoint` said last
//!   clients/NAME.ovpn      the profiles; may be removed once handed out
//! ```
//!
//! [`ensure`] makes what is missing, in an order in which every file only needs those before it, so
//! that a run that was cut short is completed by the next one and a complete folder stays as it
//! is. It never makes a part again that existing certificates or profiles depend on.
//!
//! Certificates and texts are made by `pki`; files are written by [`store`](crate::sys::store).
//! Listening, logging and printing are left to the caller.

pub mod clients;

use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use zeroize::Zeroizing;

use crate::pki::authority::{self, Authority, Signed};
use crate::pki::certificate::{Certificate, date};
use crate::pki::endpoint::Endpoint;
use crate::pki::index::{self, Issued, Kind, Parsed};
use crate::pki::names::{ClientName, SERVER};
use crate::pki::server_conf;
use crate::random::Random;
use crate::sys::clock::OsRandom;
use crate::sys::store::{Disk, OsDisk, Store, read_optional};
use crate::time::UnixTime;
use crate::wire::static_key::V2ServerKey;

#[cfg(feature = "totp")]
pub use clients::client_asks_code;
pub use clients::{Added, Client, ClientList, Revocation};
pub use clients::{client_add, client_list, client_revoke, revoked};

/// Where the state folder is unless `--dir` says otherwise.
pub const DEFAULT_DIR: &str = "/etc/sixgate";

/// The first client's name.
const FIRST_CLIENT: &str = "client1";

/// Names of files in the state folder, beside those that `server.conf` mentions.
mod file {
    pub use crate::pki::server_conf::file::{CA_CERTIFICATE, SERVER, TLS_CRYPT_V2};
    pub const SERVER_CONF: &str = "server.conf";
    pub const CA_KEY: &str = "ca.key";
    pub const ISSUED: &str = "issued";
    pub const REVOKED: &str = "revoked";
    pub const ENDPOINT: &str = "endpoint";
    pub const CLIENTS: &str = "clients";
}

/// What the caller knows that the state folder cannot.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--endpoint`.
    pub endpoint: Option<Endpoint>,
    /// Networks of this machine, which the tunnel's should not overlap.
    pub local_networks: Vec<Ipv4Net>,
}

/// A complete state folder.
#[derive(Debug, Clone)]
pub struct Ensured {
    /// The server configuration to run.
    pub config: PathBuf,
    /// What was made or changed, one line each; empty when everything was there.
    pub created: Vec<String>,
    /// What the owner should know or do, one line each.
    pub notes: Vec<String>,
    /// The server's address as clients know it, when known.
    pub endpoint: Option<Endpoint>,
    /// The profile of the first client, when this run made it.
    pub first_profile: Option<PathBuf>,
}

/// Completes the state folder `dir`, which is made when it is missing. The error is one line.
pub fn ensure(
    dir: &Path,
    options: &Options,
    now: UnixTime,
    rng: &mut dyn Random,
) -> Result<Ensured, String> {
    ensure_on(&OsDisk, dir, options, now, rng)
}

fn ensure_on(
    disk: &dyn Disk,
    dir: &Path,
    options: &Options,
    now: UnixTime,
    rng: &mut dyn Random,
) -> Result<Ensured, String> {
    let dir = absolute(dir)?;
    let mut work = Work::open(disk, &dir, now, rng)?;
    let authority = work.authority()?;
    work.server_identity(authority.as_ref())?;
    let wrap = work.tls_crypt_v2()?;
    work.server_conf(&dir, &options.local_networks)?;
    work.store.make_dir(file::CLIENTS)?;
    let endpoint = work.endpoint(options.endpoint.as_ref())?;
    let first_profile = match &authority {
        Some(authority) => work.first_client(authority, &wrap, endpoint.as_ref())?,
        None => None,
    };
    work.final_notes(endpoint.as_ref())?;
    let config = work.store.path(file::SERVER_CONF);
    Ok(Ensured { config, created: work.created, notes: work.notes, endpoint, first_profile })
}

/// The host name or address that clients find this server at, if it is known.
#[cfg(feature = "totp")]
pub fn endpoint_host(dir: &Path) -> Option<String> {
    let text = read_optional(&dir.join(file::ENDPOINT)).ok()??;
    let endpoint = Endpoint::parse(core::str::from_utf8(&text).ok()?.trim_ascii()).ok()?;
    Some(endpoint.host().to_string())
}

/// A server certificate that takes the place of the one in use.
pub struct NewIdentity {
    /// The certificate, PEM.
    pub certificate: Vec<u8>,
    /// Its private key, PEM, PKCS#8.
    pub key: Zeroizing<Vec<u8>>,
    /// Its end.
    pub expires: UnixTime,
    /// Contents of `server.pem` before. A server whose `cert` had other contents uses a certificate
    /// of its owner's, and must keep it.
    pub replaces: Zeroizing<Vec<u8>>,
}

/// Renews the server's certificate when less than a third of its life is left. Cheap, and free of
/// writes, when there is nothing to do; meant to be called at start and once a day.
pub fn renew_if_due(dir: &Path, now: UnixTime) -> Result<Option<NewIdentity>, String> {
    let old = read_optional(&dir.join(file::SERVER))?;
    let Some(old) = old.filter(|_| now >= UnixTime::EARLIEST) else { return Ok(None) };
    let certificate = Certificate::from_pem(&old)
        .map_err(|error| format!("{}: {error}", dir.join(file::SERVER).display()))?;
    if !authority::renewal_due(certificate.not_after, now) {
        return Ok(None);
    }
    let mut rng = OsRandom::new();
    let mut work = Work::open(&OsDisk, dir, now, &mut rng)?;
    let Some(authority) = work.authority()? else {
        let expires = date(certificate.not_after);
        return Err(format!(
            "the server's certificate ends at {expires} and cannot be renewed without {}",
            work.store.path(file::CA_KEY).display()
        ));
    };
    if !authority.renewal_gains(certificate.not_after, now) {
        return Ok(None);
    }
    let signed = work.new_identity(&authority)?;
    Ok(Some(NewIdentity {
        certificate: signed.certificate.into_bytes(),
        key: Zeroizing::new(signed.key.as_bytes().to_vec()),
        expires: signed.entry.expires,
        replaces: old,
    }))
}

/// The path from the root, as it will stand in `server.conf`.
fn absolute(dir: &Path) -> Result<PathBuf, String> {
    let path = std::path::absolute(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    match path.to_str() {
        Some(text) if !text.contains(char::is_control) => Ok(path),
        _ => Err(format!("{}: the folder's name must be printable text", dir.display())),
    }
}

/// A locked state folder and what has been done to it so far.
struct Work<'a> {
    store: Store<'a>,
    now: UnixTime,
    rng: &'a mut dyn Random,
    created: Vec<String>,
    notes: Vec<String>,
}

impl<'a> Work<'a> {
    fn open(
        disk: &'a dyn Disk,
        dir: &Path,
        now: UnixTime,
        rng: &'a mut dyn Random,
    ) -> Result<Self, String> {
        let store = Store::open(dir, disk)?;
        let mut work = Self { store, now, rng, created: Vec::new(), notes: Vec::new() };
        work.finish_staged_profiles()?;
        Ok(work)
    }

    fn in_file<E: core::fmt::Display>(&self, name: &str) -> impl Fn(E) -> String {
        let path = self.store.path(name);
        move |error| format!("{}: {error}", path.display())
    }

    /// The CA; `None` when its key is kept elsewhere.
    fn authority(&mut self) -> Result<Option<Authority>, String> {
        let key = self.store.read(file::CA_KEY)?;
        let certificate = self.store.read(file::CA_CERTIFICATE)?;
        let (key, certificate) = match (key, certificate) {
            (None, Some(certificate)) => {
                Certificate::from_pem(&certificate).map_err(self.in_file(file::CA_CERTIFICATE))?;
                return Ok(None);
            }
            (Some(key), Some(certificate)) => (key, certificate),
            (Some(key), None) => {
                let certificate = self.ca_certificate(&key)?;
                (key, certificate)
            }
            (None, None) => {
                self.refuse_to_lose_the_ca()?;
                let key = authority::new_key().map_err(self.in_file(file::CA_KEY))?;
                self.store.replace(file::CA_KEY, key.as_bytes())?;
                let key = Zeroizing::new(key.as_bytes().to_vec());
                let certificate = self.ca_certificate(&key)?;
                (key, certificate)
            }
        };
        Authority::load(&certificate, &key).map(Some).map_err(self.in_file(file::CA_CERTIFICATE))
    }

    /// What an old CA signed would be worthless with a new one: that needs a decision.
    fn refuse_to_lose_the_ca(&self) -> Result<(), String> {
        for name in [file::SERVER, file::ISSUED] {
            if self.store.read(name)?.is_some() {
                return Err(format!(
                    "{} and {} are gone, but {name} is there: restore them from a backup, or \
                     remove the folder to start with new clients",
                    self.store.path(file::CA_CERTIFICATE).display(),
                    file::CA_KEY,
                ));
            }
        }
        Ok(())
    }

    fn ca_certificate(&mut self, key: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        let pem = authority::self_sign(key, self.now, self.rng)
            .map_err(self.in_file(file::CA_KEY))?
            .into_bytes();
        self.store.replace(file::CA_CERTIFICATE, &pem)?;
        self.made(file::CA_CERTIFICATE, "the certificate authority");
        Ok(Zeroizing::new(pem))
    }

    fn made(&mut self, name: &str, what: &str) {
        self.created.push(format!("{}: {what}", self.store.path(name).display()));
    }

    fn server_identity(&mut self, authority: Option<&Authority>) -> Result<(), String> {
        let Some(old) = self.store.read(file::SERVER)? else {
            let authority = authority.ok_or_else(|| {
                let (server, key) = (self.store.path(file::SERVER), self.store.path(file::CA_KEY));
                format!("cannot make {} without {}", server.display(), key.display())
            })?;
            let signed = self.new_identity(authority)?;
            let what = format!("the server's certificate, until {}", date(signed.entry.expires));
            self.made(file::SERVER, &what);
            return Ok(());
        };
        let old = Certificate::from_pem(&old).map_err(self.in_file(file::SERVER))?;
        if self.now < UnixTime::EARLIEST || !authority::renewal_due(old.not_after, self.now) {
            return Ok(());
        }
        match authority.filter(|a| a.renewal_gains(old.not_after, self.now)) {
            Some(authority) => {
                let signed = self.new_identity(authority)?;
                let what = format!("renewed, now until {}", date(signed.entry.expires));
                self.made(file::SERVER, &what);
            }
            None => self.notes.push(format!(
                "the server's certificate ends at {} and cannot be renewed with the CA at hand",
                date(old.not_after)
            )),
        }
        Ok(())
    }

    /// Signs a new server certificate and puts it and its key in place in one step.
    fn new_identity(&mut self, authority: &Authority) -> Result<Signed, String> {
        let signed = authority
            .issue(Kind::Server, SERVER, self.now, self.rng)
            .map_err(self.in_file(file::SERVER))?;
        self.record(&signed.entry)?;
        // Sized at once: a string that grows leaves copies of the key behind.
        let size = signed.certificate.len() + signed.key.len();
        let mut pem = Zeroizing::new(String::with_capacity(size));
        pem.push_str(&signed.certificate);
        pem.push_str(&signed.key);
        self.store.replace(file::SERVER, pem.as_bytes())?;
        Ok(signed)
    }

    /// Enters a certificate in the list. Always before it can get out: one that is not in the list
    /// could not be revoked.
    fn record(&self, entry: &Issued) -> Result<(), String> {
        let text = self.store.read(file::ISSUED)?.map(|text| text.to_vec()).unwrap_or_default();
        self.store.replace(file::ISSUED, &index::append_issued(text, entry))
    }

    fn issued(&self) -> Result<Parsed<Issued>, String> {
        Ok(index::parse_issued(&self.store.read(file::ISSUED)?.unwrap_or_default()))
    }

    fn has_clients(&self) -> Result<bool, String> {
        let issued = self.issued()?;
        // A damaged line may have been a client's.
        Ok(!issued.damaged.is_empty() || issued.entries.iter().any(|e| e.kind == Kind::Client))
    }

    fn tls_crypt_v2(&mut self) -> Result<V2ServerKey, String> {
        if let Some(text) = self.store.read(file::TLS_CRYPT_V2)? {
            return V2ServerKey::parse(&*text).map_err(self.in_file(file::TLS_CRYPT_V2));
        }
        if self.has_clients()? {
            return Err(format!(
                "{} is gone, and without it no client that has a profile gets in: restore it from \
                 a backup, or remove the folder to start with new clients",
                self.store.path(file::TLS_CRYPT_V2).display()
            ));
        }
        let key = V2ServerKey::generate(self.rng);
        self.store.replace(file::TLS_CRYPT_V2, key.to_text().as_bytes())?;
        self.made(file::TLS_CRYPT_V2, "the key that wraps the clients' tls-crypt-v2 keys");
        Ok(key)
    }

    fn server_conf(&mut self, dir: &Path, local: &[Ipv4Net]) -> Result<(), String> {
        if self.store.read(file::SERVER_CONF)?.is_some() {
            return Ok(());
        }
        let (v4, v6) = (server_conf::pick_v4(local, self.rng), server_conf::random_ula(self.rng));
        let text = server_conf::text(&dir.to_string_lossy(), v4, v6);
        self.store.replace(file::SERVER_CONF, text.as_bytes())?;
        self.made(file::SERVER_CONF, &format!("the server's configuration, with {v4} and {v6}"));
        Ok(())
    }

    /// The port in `server.conf`.
    fn port(&self) -> Result<u16, String> {
        let text = self.store.read(file::SERVER_CONF)?.unwrap_or_default();
        Ok(server_conf::port(&String::from_utf8_lossy(&text)))
    }

    /// Remembers a new endpoint, and puts the one that is known into profiles that lack it.
    fn endpoint(&mut self, given: Option<&Endpoint>) -> Result<Option<Endpoint>, String> {
        let old = self.known_endpoint()?;
        let Some(endpoint) = given.or(old.as_ref()) else { return Ok(None) };
        // Profiles first: after a crash, the old endpoint still tells which lines are to change.
        self.complete_profiles(old.as_ref(), endpoint)?;
        if old.as_ref() != Some(endpoint) {
            self.store.replace(file::ENDPOINT, format!("{endpoint}\n").as_bytes())?;
            self.made(file::ENDPOINT, &format!("clients find this server at {endpoint}"));
        }
        Ok(Some(endpoint.clone()))
    }

    fn known_endpoint(&mut self) -> Result<Option<Endpoint>, String> {
        let Some(text) = self.store.read(file::ENDPOINT)? else { return Ok(None) };
        let endpoint = Endpoint::parse(String::from_utf8_lossy(&text).trim_ascii());
        if let Err(error) = &endpoint {
            let note = self.in_file(file::ENDPOINT)(error);
            self.notes.push(note);
        }
        Ok(endpoint.ok())
    }

    fn first_client(
        &mut self,
        authority: &Authority,
        wrap: &V2ServerKey,
        endpoint: Option<&Endpoint>,
    ) -> Result<Option<PathBuf>, String> {
        if self.has_clients()? {
            return Ok(None);
        }
        let name: ClientName = FIRST_CLIENT.parse().map_err(self.in_file(file::CLIENTS))?;
        let profile = self.new_client(authority, wrap, endpoint, &name)?;
        self.store.commit(&profile.file)?;
        self.made(&profile.file, "the first client's profile");
        Ok(Some(self.store.path(&profile.file)))
    }

    fn final_notes(&mut self, endpoint: Option<&Endpoint>) -> Result<(), String> {
        for name in [file::CA_KEY, file::SERVER, file::TLS_CRYPT_V2] {
            if self.store.is_exposed(name) {
                let path = self.store.path(name);
                self.notes.push(format!("others can read {0}: chmod 600 {0}", path.display()));
            }
        }
        self.note_damage()?;
        if endpoint.is_none() {
            self.note_placeholders()?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
