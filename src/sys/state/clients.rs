//! The clients of a state folder: add, list, revoke, and their profiles.
//!
//! A new client comes into being in three steps, so that none of them can be lost: the profile is
//! on disk under a hidden name, the certificate is in the list, the profile gets its name. A run
//! that was cut short after the second step is finished by the next one; before it, nobody has seen
//! the certificate, and the profile is dropped.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Work, file};
use crate::pki::authority::Authority;
use crate::pki::certificate::{Certificate, date};
use crate::pki::endpoint::Endpoint;
use crate::pki::index::{self, Kind, Revoked, Serial};
use crate::pki::names::ClientName;
use crate::pki::profile::{self, Profile};
use crate::random::Random;
use crate::sys::clock::OsRandom;
use crate::sys::store::{DiskFiles, OsDisk, Reading, Store, read_optional, write_private};
use crate::time::UnixTime;
use crate::wire::static_key::{StaticKey, V2ClientKey, V2ServerKey};
use crate::wire::wkc::Metadata;

/// A client that was added.
pub struct Added {
    /// Its certificate's serial number.
    pub serial: Serial,
    /// Its certificate's end.
    pub expires: UnixTime,
    /// Where the profile is; `None` when the caller asked for its text alone.
    pub path: Option<PathBuf>,
    /// The profile.
    pub profile: Zeroizing<String>,
    /// What the owner should know or do, one line each.
    pub notes: Vec<String>,
}

/// A profile that has been staged, its certificate recorded.
pub(super) struct NewClient {
    /// The name it is to get in the state folder.
    pub(super) file: String,
    serial: Serial,
    expires: UnixTime,
    text: Zeroizing<String>,
}

/// Makes a certificate for a new client and a profile with everything in it.
///
/// The profile stays in the state folder, or goes to the file `out` alone, which must not exist
/// yet. With `-` for `out` it is kept nowhere and the caller prints it. A name is free again once
/// all its certificates are revoked or expired.
pub fn client_add(
    dir: &Path,
    name: &str,
    out: Option<&Path>,
    now: UnixTime,
    rng: &mut dyn Random,
) -> Result<Added, String> {
    let name = ClientName::read(name)?;
    if let Some(out) = out.filter(|out| fs::metadata(out).is_ok_and(|meta| meta.is_file())) {
        return Err(format!("{} exists already", out.display()));
    }
    let mut work = open_existing(dir, now, rng)?;
    work.refuse_taken(&name)?;
    let authority = work.authority()?.ok_or_else(|| {
        format!("cannot add a client without {}", work.store.path(file::CA_KEY).display())
    })?;
    let wrap = work.tls_crypt_v2()?;
    work.store.make_dir(file::CLIENTS)?;
    let endpoint = work.known_endpoint()?;
    let client = work.new_client(&authority, &wrap, endpoint.as_ref(), &name)?;
    let path = match out {
        None => {
            work.store.commit(&client.file)?;
            Some(work.store.path(&client.file))
        }
        Some(out) if out == Path::new("-") => {
            work.store.unstage(&client.file)?;
            None
        }
        Some(out) => {
            if let Err(error) = hand_out(&work.store, out, client.text.as_bytes()) {
                work.store.commit(&client.file)?;
                let kept = work.store.path(&client.file);
                return Err(format!("{error}; the profile is in {} instead", kept.display()));
            }
            work.store.unstage(&client.file)?;
            Some(out.to_owned())
        }
    };
    if endpoint.is_none() {
        let file = path.as_deref().map_or("the profile".into(), |path| path.display().to_string());
        work.notes.push(how_to_fill_in(&file));
    }
    work.note_damage()?;
    let NewClient { serial, expires, text, .. } = client;
    Ok(Added { serial, expires, path, profile: text, notes: work.notes })
}

/// One certificate of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Common name.
    pub name: String,
    /// Serial number.
    pub serial: Serial,
    /// When it was made.
    pub created: UnixTime,
    /// Its end.
    pub expires: UnixTime,
    /// When it was revoked, if it was.
    pub revoked: Option<UnixTime>,
}

/// All clients.
#[derive(Debug, Clone)]
pub struct ClientList {
    /// In the order in which they were made.
    pub clients: Vec<Client>,
    /// What the owner should know, one line each.
    pub notes: Vec<String>,
}

/// Lists every client certificate that was ever made. Changes nothing and takes no lock.
pub fn client_list(dir: &Path) -> Result<ClientList, String> {
    let text = read_optional(&dir.join(file::ISSUED))?.ok_or_else(|| no_state(dir))?;
    let issued = index::parse_issued(&text);
    let mut notes = damage(&dir.join(file::ISSUED), &issued.damaged);
    let gone = revoked(dir, &DiskFiles)?;
    notes.extend(gone.notes);
    let gone: BTreeMap<&Serial, UnixTime> =
        gone.entries.iter().map(|entry| (&entry.serial, entry.date)).collect();
    let clients = issued.entries.into_iter().filter(|entry| entry.kind == Kind::Client);
    let clients = clients.map(|entry| Client {
        revoked: gone.get(&entry.serial).copied(),
        name: entry.name,
        serial: entry.serial,
        created: entry.created,
        expires: entry.expires,
    });
    Ok(ClientList { clients: clients.collect(), notes })
}

/// The revoked certificates.
#[derive(Debug, Clone)]
pub struct Revocation {
    /// Those that a server must refuse.
    pub entries: Vec<Revoked>,
    /// What the owner should know, one line each.
    pub notes: Vec<String>,
}

impl Revocation {
    /// The serial numbers, as the engines take them.
    pub fn serials(&self) -> Vec<Vec<u8>> {
        self.entries.iter().map(|entry| entry.serial.as_bytes().to_vec()).collect()
    }
}

/// Reads the list of revoked certificates; empty when there is none. Takes no lock.
pub fn revoked(dir: &Path, disk: &dyn Reading) -> Result<Revocation, String> {
    let path = dir.join(file::REVOKED);
    let text = match disk.modified(&path) {
        Ok(None) => Ok(Vec::new()),
        Ok(Some(_)) => disk.read(&path),
        Err(error) => Err(error),
    };
    let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let parsed = index::parse_revoked(&text);
    Ok(Revocation { entries: parsed.entries, notes: damage(&path, &parsed.damaged) })
}

/// Revokes every certificate of a client for good and removes its profile from the state folder.
/// A running server has to be told the serial numbers that this returns.
pub fn client_revoke(dir: &Path, name: &str, now: UnixTime) -> Result<Revocation, String> {
    let name = ClientName::read(name)?;
    let mut rng = OsRandom::new();
    let mut work = open_existing(dir, now, &mut rng)?;
    let of_name: Vec<Serial> = work.serials_of(&name)?;
    if of_name.is_empty() {
        let issued = work.store.path(file::ISSUED);
        return Err(format!("there is no client {name} in {}", issued.display()));
    }
    let mut text = work.store.read(file::REVOKED)?.map(|text| text.to_vec()).unwrap_or_default();
    let known = index::parse_revoked(&text).entries;
    let mut entries = Vec::new();
    for serial in of_name {
        if let Some(entry) = known.iter().find(|entry| entry.serial == serial) {
            entries.push(entry.clone());
            continue;
        }
        let entry = Revoked { serial, name: name.to_string(), date: now };
        text = index::append_revoked(text, &entry);
        entries.push(entry);
    }
    work.store.replace(file::REVOKED, &text)?;
    work.store.remove(&profile_file(&name))?;
    work.note_damage()?;
    Ok(Revocation { entries, notes: work.notes })
}

/// Makes a client's profile ask for a one-time code, or ask no more; where it is, or `None` when it is
/// not in the state folder.
#[cfg(feature = "totp")]
pub fn client_asks_code(dir: &Path, name: &str, asks: bool) -> Result<Option<PathBuf>, String> {
    let name = ClientName::read(name)?;
    let mut rng = OsRandom::new();
    let work = open_existing(dir, UnixTime(0), &mut rng)?;
    let file = profile_file(&name);
    let Some(bytes) = work.store.read(&file)? else { return Ok(None) };
    let path = work.store.path(&file);
    let text = core::str::from_utf8(&bytes).map_err(|_| format!("{}: not text", path.display()))?;
    work.store.replace(&file, profile::with_code(text, asks).as_bytes())?;
    Ok(Some(path))
}

fn open_existing<'a>(
    dir: &Path,
    now: UnixTime,
    rng: &'a mut dyn Random,
) -> Result<Work<'a>, String> {
    // Opening makes the folder; a mistyped `--dir` must not.
    match read_optional(&dir.join(file::CA_CERTIFICATE))? {
        Some(_) => Work::open(&OsDisk, dir, now, rng),
        None => Err(no_state(dir)),
    }
}

fn no_state(dir: &Path) -> String {
    format!("{} is not a state folder: `sixgate up` makes one", dir.display())
}

fn profile_file(name: &ClientName) -> String {
    format!("{}/{name}.ovpn", file::CLIENTS)
}

fn how_to_fill_in(file: &str) -> String {
    format!(
        "the server's address is not known: run `sixgate up --endpoint HOST[:PORT]` once, or put it \
         in place of {} in the line `remote` of {file}",
        profile::PLACEHOLDER
    )
}

fn damage(path: &Path, lines: &[usize]) -> Vec<String> {
    let note = |line| format!("{}:{line}: this line is damaged", path.display());
    lines.iter().map(note).collect()
}

/// Writes a profile where its owner wants it.
fn hand_out(store: &Store<'_>, out: &Path, bytes: &[u8]) -> Result<(), String> {
    if !out.exists() {
        return write_private(store.disk(), out, bytes);
    }
    // A pipe or terminal: renaming a file onto it would replace it.
    let result =
        OpenOptions::new().write(true).open(out).and_then(|mut file| file.write_all(bytes));
    result.map_err(|error| format!("cannot write {}: {error}", out.display()))
}

impl Work<'_> {
    /// Stages a profile and records its certificate; the caller decides where the profile goes.
    pub(super) fn new_client(
        &mut self,
        authority: &Authority,
        wrap: &V2ServerKey,
        endpoint: Option<&Endpoint>,
        name: &ClientName,
    ) -> Result<NewClient, String> {
        let file = profile_file(name);
        let port = self.port()?;
        let ca = self.store.read(file::CA_CERTIFICATE)?.unwrap_or_default();
        let signed = authority
            .issue(Kind::Client, name.as_str(), self.now, self.rng)
            .map_err(self.in_file(&file))?;

        let key = StaticKey::generate(self.rng);
        let created = Metadata::Created(i64::try_from(self.now.0).unwrap_or(i64::MAX)).to_vec();
        let wrapped = wrap.wrap_client_key(&key, &created).map_err(self.in_file(&file))?;
        let text = Profile {
            name,
            endpoint,
            port,
            ca: &String::from_utf8_lossy(&ca),
            certificate: &signed.certificate,
            key: &signed.key,
            tls_crypt_v2: &V2ClientKey { key, wrapped }.to_text(),
        }
        .text();
        self.store.stage(&file, text.as_bytes())?;
        self.record(&signed.entry)?;
        Ok(NewClient { file, serial: signed.entry.serial, expires: signed.entry.expires, text })
    }

    /// Finishes or drops what a run that was cut short has left.
    pub(super) fn finish_staged_profiles(&mut self) -> Result<(), String> {
        for name in self.store.staged(file::CLIENTS)? {
            let serial = profile_serial(&self.store.read_staged(&name)?.unwrap_or_default());
            let issued = self.issued()?.entries;
            if serial.is_some_and(|serial| issued.iter().any(|entry| entry.serial == serial)) {
                self.store.commit(&name)?;
                self.made(&name, "a profile that an earlier run did not finish");
            } else {
                self.store.unstage(&name)?;
            }
        }
        Ok(())
    }

    fn refuse_taken(&self, name: &ClientName) -> Result<(), String> {
        let gone = index::parse_revoked(&self.store.read(file::REVOKED)?.unwrap_or_default());
        let taken = self.issued()?.entries.into_iter().find(|entry| {
            entry.kind == Kind::Client
                && entry.name == name.as_str()
                && entry.expires > self.now
                && gone.entries.iter().all(|gone| gone.serial != entry.serial)
        });
        match taken {
            Some(entry) => Err(format!(
                "there is a client {name} already, since {}: choose another name, or revoke it first",
                date(entry.created)
            )),
            None => Ok(()),
        }
    }

    /// All serial numbers of a client: those in the list, and the one in its profile, in case the
    /// list has suffered.
    fn serials_of(&self, name: &ClientName) -> Result<Vec<Serial>, String> {
        let issued = self.issued()?.entries.into_iter();
        let mut serials: Vec<Serial> = issued
            .filter(|entry| entry.kind == Kind::Client && entry.name == name.as_str())
            .map(|entry| entry.serial)
            .collect();
        let profile = self.store.read(&profile_file(name))?.unwrap_or_default();
        serials.extend(profile_serial(&profile));
        serials.sort_unstable();
        serials.dedup();
        Ok(serials)
    }

    /// Puts the endpoint into profiles that have the placeholder or the old one.
    pub(super) fn complete_profiles(
        &mut self,
        old: Option<&Endpoint>,
        new: &Endpoint,
    ) -> Result<(), String> {
        let port = self.port()?;
        for (file, text) in self.profiles()? {
            if let Some(text) = profile::with_endpoint(&text, old, new, port) {
                self.store.replace(&file, text.as_bytes())?;
                self.made(&file, &format!("the profile now has {new}"));
            }
        }
        Ok(())
    }

    /// The profiles in the state folder.
    fn profiles(&self) -> Result<Vec<(String, Zeroizing<String>)>, String> {
        let mut profiles = Vec::new();
        for name in self.store.list(file::CLIENTS)? {
            let file = format!("{}/{name}", file::CLIENTS);
            if name.starts_with('.') || !name.ends_with(".ovpn") {
                continue;
            }
            // What is not text is none of ours.
            let bytes = self.store.read(&file)?.unwrap_or_default();
            if let Ok(text) = core::str::from_utf8(&bytes) {
                profiles.push((file, Zeroizing::new(text.to_owned())));
            }
        }
        Ok(profiles)
    }

    pub(super) fn note_placeholders(&mut self) -> Result<(), String> {
        for (file, text) in self.profiles()? {
            if profile::is_incomplete(&text) {
                let path = self.store.path(&file);
                self.notes.push(how_to_fill_in(&path.display().to_string()));
            }
        }
        Ok(())
    }

    pub(super) fn note_damage(&mut self) -> Result<(), String> {
        let issued = self.issued()?.damaged;
        self.notes.extend(damage(&self.store.path(file::ISSUED), &issued));
        let gone = index::parse_revoked(&self.store.read(file::REVOKED)?.unwrap_or_default());
        self.notes.extend(damage(&self.store.path(file::REVOKED), &gone.damaged));
        Ok(())
    }
}

fn profile_serial(text: &[u8]) -> Option<Serial> {
    let certificate = profile::certificate(core::str::from_utf8(text).ok()?)?;
    Some(Certificate::from_pem(certificate.as_bytes()).ok()?.serial)
}
