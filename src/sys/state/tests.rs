//! State folders in temporary directories, among them some whose making was cut short everywhere.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::atomic::{AtomicU32, Ordering};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::config;
use crate::pki::profile;
use crate::sys::store::DiskFiles;
use crate::wire::static_key::V2ClientKey;

const NOW: UnixTime = UnixTime(1_790_000_000);
const TWO_YEARS: u64 = 2 * 365 * 86400;

/// A folder that goes away with the value.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sixgate-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A disk that dies at the n-th change: with half a file written, or before the change.
struct DyingDisk {
    left: Cell<u32>,
    torn: bool,
}

impl DyingDisk {
    fn after(changes: u32, torn: bool) -> Self {
        Self { left: Cell::new(changes), torn }
    }

    fn step(&self) -> io::Result<()> {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        if left == 0 { Err(io::Error::other("killed")) } else { Ok(()) }
    }
}

impl Disk for DyingDisk {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        OsDisk.make_dir(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step().or_else(|error| {
            if self.torn {
                OsDisk.write(path, bytes.get(..bytes.len() * 3 / 4).unwrap())?;
            }
            Err(error)
        })?;
        OsDisk.write(path, bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        OsDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        // The dead remove nothing, and what is not there needs no removing.
        if self.left.get() == 0 { Err(io::Error::other("killed")) } else { OsDisk.remove(path) }
    }
}

fn up(dir: &Path, endpoint: Option<&str>) -> Ensured {
    let endpoint = endpoint.map(|text| Endpoint::parse(text).unwrap());
    let options = Options { endpoint, ..Options::default() };
    ensure(dir, &options, NOW, &mut OsRandom::new()).unwrap()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// Every file with its contents and inode.
fn snapshot(dir: &Path) -> Vec<(PathBuf, u64, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.metadata().unwrap().is_dir() {
            found.extend(snapshot(&entry.path()));
        } else {
            let ino = entry.metadata().unwrap().ino();
            found.push((entry.path(), ino, fs::read(entry.path()).unwrap()));
        }
    }
    found.sort();
    found
}

/// What makes a state folder consistent, however it came about.
fn check(dir: &Path) {
    let in_dir = |name: &str| fs::read(dir.join(name)).unwrap();
    let ca = in_dir("ca.crt");
    Authority::load(&ca, &in_dir("ca.key")).unwrap();
    let server = in_dir("server.pem");
    let identity = Authority::load(&server, &server).map(|_| ()).unwrap_err();
    // Not a CA, but certificate and key do belong together.
    assert_eq!(identity, crate::pki::PkiError::NotAnAuthority);
    let wrap = V2ServerKey::parse(in_dir("tls-crypt-v2.key")).unwrap();
    assert!(read(&dir.join("server.conf")).contains("\nserver-ipv6 auto fd"));

    let issued = index::parse_issued(&in_dir("issued"));
    assert_eq!(issued.damaged, []);
    let clients: Vec<&Issued> = issued.entries.iter().filter(|e| e.kind == Kind::Client).collect();
    assert_eq!(clients.len(), 1);
    let text = read(&dir.join("clients/client1.ovpn"));
    assert!(text.ends_with("</tls-crypt-v2>\n"));
    let certificate = profile::certificate(&text).unwrap();
    let certificate = Certificate::from_pem(certificate.as_bytes()).unwrap();
    assert_eq!(certificate.serial, clients.first().unwrap().serial);
    let (_, block) = text.split_once("<tls-crypt-v2>").unwrap();
    let key = V2ClientKey::parse(block).unwrap();
    let (unwrapped, _) = wrap.unwrap_client_key(&key.wrapped).unwrap();
    assert_eq!(unwrapped.as_bytes(), key.key.as_bytes());

    for (path, _, _) in snapshot(dir) {
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "{}", path.display());
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(!name.starts_with('.') || name == ".lock", "{name}");
    }
}

#[test]
fn starting_again_changes_nothing() {
    let temp = TempDir::new();
    let dir = temp.path().join("state");
    let first = up(&dir, None);
    assert_eq!(first.config, dir.join("server.conf"));
    assert_eq!(first.first_profile, Some(dir.join("clients/client1.ovpn")));
    assert_eq!(first.created.len(), 5);
    check(&dir);
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);

    let before = snapshot(&dir);
    // A disk that can do nothing is enough.
    let dead = DyingDisk::after(0, false);
    let options = Options::default();
    let again = ensure_on(&dead, &dir, &options, NOW, &mut OsRandom::new()).unwrap();
    assert!(again.created.is_empty() && again.first_profile.is_none());
    assert_eq!(snapshot(&dir), before);
}

#[test]
fn a_folder_that_was_cut_short_anywhere_is_completed() {
    let endpoint = Endpoint::parse("vpn.example.org").unwrap();
    let options = Options { endpoint: Some(endpoint), ..Options::default() };
    for torn in [false, true] {
        let mut changes = 0;
        loop {
            let temp = TempDir::new();
            let dir = temp.path().join("state");
            let disk = DyingDisk::after(changes, torn);
            let died = ensure_on(&disk, &dir, &options, NOW, &mut OsRandom::new());
            let at = format!("change {changes}, torn {torn}");
            if died.is_ok() {
                assert!(changes > 15, "{at}");
                break;
            }
            let done = ensure(&dir, &options, NOW, &mut OsRandom::new());
            assert!(done.is_ok(), "{at}: {done:?}");
            check(&dir);
            changes += 1;
        }
    }
}

#[test]
fn the_owner_may_edit_and_remove() {
    let temp = TempDir::new();
    up(temp.path(), Some("a.example"));
    let conf = temp.path().join("server.conf");
    fs::write(&conf, "port 443\n").unwrap();
    fs::remove_file(temp.path().join("clients/client1.ovpn")).unwrap();
    fs::rename(temp.path().join("ca.key"), temp.path().join("elsewhere")).unwrap();
    let again = up(temp.path(), None);
    assert_eq!(again.created, [""; 0]);
    assert_eq!(read(&conf), "port 443\n");

    let add = |name| client_add(temp.path(), name, None, NOW, &mut OsRandom::new());
    let error = add("b").map(|_| ()).unwrap_err();
    assert!(error.starts_with("cannot add a client without "), "{error}");
    fs::rename(temp.path().join("elsewhere"), temp.path().join("ca.key")).unwrap();
    assert!(add("b").unwrap().profile.contains("\nremote a.example 443\n"));
}

#[test]
fn what_others_depend_on_is_never_made_again() {
    let temp = TempDir::new();
    up(temp.path(), None);
    let again = |gone: &[&str]| {
        let kept: Vec<_> = gone.iter().map(|n| fs::read(temp.path().join(n)).unwrap()).collect();
        gone.iter().for_each(|name| fs::remove_file(temp.path().join(name)).unwrap());
        let result = ensure(temp.path(), &Options::default(), NOW, &mut OsRandom::new());
        for (name, bytes) in gone.iter().zip(kept) {
            fs::write(temp.path().join(name), bytes).unwrap();
        }
        result
    };
    assert!(again(&["ca.key", "ca.crt"]).unwrap_err().contains("restore them from a backup"));
    assert!(again(&["tls-crypt-v2.key"]).unwrap_err().contains("restore it from a backup"));
    assert!(again(&["ca.key", "server.pem"]).unwrap_err().contains("cannot make"));
    // These can be made again without anybody noticing.
    assert_eq!(again(&["server.pem"]).unwrap().created.len(), 1);
    assert_eq!(again(&["ca.crt"]).unwrap().created.len(), 1);
}

#[test]
fn damaged_and_exposed_files_are_named() {
    let temp = TempDir::new();
    up(temp.path(), None);
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(temp.path().join("ca.key"), open).unwrap();
    let mut issued = fs::read(temp.path().join("issued")).unwrap();
    issued.extend_from_slice(b"\xff\xff\n");
    fs::write(temp.path().join("issued"), issued).unwrap();
    let notes = up(temp.path(), None).notes.join("\n");
    assert!(notes.contains("chmod 600 "), "{notes}");
    assert!(notes.contains("issued:3: this line is damaged"), "{notes}");
    assert_eq!(client_list(temp.path()).unwrap().clients.len(), 1);

    fs::write(temp.path().join("server.pem"), "").unwrap();
    let error = ensure(temp.path(), &Options::default(), NOW, &mut OsRandom::new()).unwrap_err();
    assert!(error.ends_with("server.pem: no PEM certificate found"), "{error}");
}

#[test]
fn an_endpoint_completes_profiles_and_is_remembered() {
    let temp = TempDir::new();
    let profile = temp.path().join("clients/client1.ovpn");
    let first = up(temp.path(), None);
    assert!(first.notes.join("\n").contains("sixgate up --endpoint HOST[:PORT]"));
    assert!(profile::is_incomplete(&read(&profile)));

    let known = up(temp.path(), Some("[2001:db8::1]:443"));
    assert!(known.notes.is_empty());
    assert!(read(&profile).contains("\nremote 2001:db8::1 443\n"));
    let again = up(temp.path(), None);
    assert_eq!(again.endpoint.unwrap().to_string(), "[2001:db8::1]:443");
    up(temp.path(), Some("vpn.example.org"));
    assert!(read(&profile).contains("\nremote vpn.example.org 1194\n"));
}

#[test]
fn clients_come_and_go() {
    let temp = TempDir::new();
    let dir = temp.path();
    let rng = &mut OsRandom::new();
    let missing = client_add(&dir.join("none"), "x", None, NOW, rng).map(|_| ()).unwrap_err();
    assert!(missing.contains("is not a state folder") && !dir.join("none").exists());
    up(dir, Some("a.example"));

    let added = client_add(dir, "anna", None, NOW, rng).unwrap();
    assert_eq!(read(added.path.as_deref().unwrap()), *added.profile);
    let taken = client_add(dir, "anna", None, NOW, rng).map(|_| ()).unwrap_err();
    assert!(taken.contains("already, since 2026-"), "{taken}");
    assert!(client_add(dir, "../anna", None, NOW, rng).is_err());

    let gone = client_revoke(dir, "anna", NOW).unwrap();
    assert_eq!(gone.serials(), [added.serial.as_bytes()]);
    assert_eq!(revoked(dir, &DiskFiles).unwrap().entries, gone.entries);
    assert!(!dir.join("clients/anna.ovpn").exists());
    // Once more does no harm, and a running server is told again.
    assert_eq!(client_revoke(dir, "anna", NOW).unwrap().entries, gone.entries);
    assert_eq!(read(&dir.join("revoked")).lines().count(), 1);
    assert!(client_revoke(dir, "bert", NOW).unwrap_err().contains("there is no client bert"));

    let second = client_add(dir, "anna", None, NOW, rng).unwrap();
    assert_ne!(second.serial, added.serial);
    assert_eq!(client_revoke(dir, "anna", NOW).unwrap().serials().len(), 2);
    let list: Vec<_> = client_list(dir).unwrap().clients;
    let shown: Vec<_> = list.iter().map(|c| (c.name.as_str(), c.revoked.is_some())).collect();
    assert_eq!(shown, [("client1", false), ("anna", true), ("anna", true)]);

    // The list is damaged, the profile still names the certificate.
    fs::write(dir.join("issued"), "?\n").unwrap();
    assert_eq!(client_revoke(dir, "client1", NOW).unwrap().entries.len(), 1);
    assert_eq!(up(dir, None).first_profile, None);
}

#[test]
fn a_profile_goes_where_it_is_wanted_and_nowhere_else() {
    let temp = TempDir::new();
    let rng = &mut OsRandom::new();
    up(&temp.path().join("state"), None);
    let dir = temp.path().join("state");
    let out = temp.path().join("anna.ovpn");
    let added = client_add(&dir, "anna", Some(&out), NOW, rng).unwrap();
    assert_eq!(read(&out), *added.profile);
    assert_eq!(fs::metadata(&out).unwrap().mode() & 0o777, 0o600);
    assert!(added.notes.join("\n").contains("anna.ovpn"));
    assert!(client_add(&dir, "b", Some(&out), NOW, rng).is_err());
    assert_eq!(client_add(&dir, "b", Some(Path::new("-")), NOW, rng).unwrap().path, None);
    let files = || fs::read_dir(dir.join("clients")).unwrap().count();
    assert_eq!(files(), 1);

    // A profile that cannot be written where it was wanted is not lost.
    let error = client_add(&dir, "c", Some(&out.join("x")), NOW, rng).map(|_| ()).unwrap_err();
    assert!(error.contains("clients/c.ovpn instead"), "{error}");
    assert_eq!(files(), 2);
}

#[test]
fn server_certificates_renew_themselves() {
    let temp = TempDir::new();
    let dir = temp.path();
    assert!(renew_if_due(dir, NOW).unwrap().is_none());
    up(dir, None);
    let old = fs::read(dir.join("server.pem")).unwrap();
    for now in [NOW, UnixTime(0), UnixTime(NOW.0 + TWO_YEARS / 2)] {
        assert!(renew_if_due(dir, now).unwrap().is_none());
    }
    let late = UnixTime(NOW.0 + TWO_YEARS - 86400);
    let new = renew_if_due(dir, late).unwrap().unwrap();
    assert_eq!(new.expires, UnixTime(late.0 + TWO_YEARS));
    assert_eq!(*new.replaces, old);
    let both = [&*new.certificate, &**new.key].concat();
    assert_eq!(fs::read(dir.join("server.pem")).unwrap(), both);
    check(dir);
    assert!(renew_if_due(dir, late).unwrap().is_none());

    // The same at start, and a word of warning where the CA's key is not at hand.
    let later = UnixTime(late.0 + TWO_YEARS + 1);
    let start = || ensure(dir, &Options::default(), later, &mut OsRandom::new()).unwrap();
    fs::rename(dir.join("ca.key"), dir.join("x")).unwrap();
    assert!(renew_if_due(dir, later).map(|_| ()).unwrap_err().contains("without "));
    assert!(start().notes.join("\n").contains("cannot be renewed"));
    fs::rename(dir.join("x"), dir.join("ca.key")).unwrap();
    assert_eq!(start().created.len(), 1);
}

#[test]
fn a_clock_that_starts_in_1970_makes_certificates_that_last() {
    let temp = TempDir::new();
    let options = Options::default();
    ensure(temp.path(), &options, UnixTime(30), &mut OsRandom::new()).unwrap();
    let server = fs::read(temp.path().join("server.pem")).unwrap();
    let server = Certificate::from_pem(&server).unwrap();
    assert_eq!(server.not_before, UnixTime(0));
    assert!(server.not_after > UnixTime(NOW.0 + 10 * TWO_YEARS));
    let again = ensure(temp.path(), &options, NOW, &mut OsRandom::new()).unwrap();
    assert!(again.created.is_empty());
}

#[test]
fn a_tls_library_reads_certificate_and_key_from_the_one_file() {
    let temp = TempDir::new();
    up(temp.path(), None);
    let pem = fs::read(temp.path().join("server.pem")).unwrap();
    assert_eq!(CertificateDer::pem_slice_iter(&pem).count(), 1);
    let key = PrivateKeyDer::from_pem_slice(&pem).unwrap();
    rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
}

#[test]
fn both_configurations_load() {
    let temp = TempDir::new();
    // A folder name that has to be quoted in the file.
    let dir = temp.path().join("my \"vpn\"");
    up(&dir, Some("[2a00::1]:443"));
    let server = config::load_file(dir.join("server.conf"), &DiskFiles).unwrap();
    assert!(server.warnings.is_empty(), "{:?}", server.warnings);
    let server = server.config;
    assert_eq!(server.process.state.as_deref(), Some(&*dir));
    assert_eq!(server.tls.cert, fs::read(dir.join("server.pem")).unwrap());
    assert!(server.wrap.v2_server.is_some() && server.tls.require_usage);
    assert_eq!((server.data_ciphers.len(), server.fastest_cipher), (3, true));

    let client = config::load_file(dir.join("clients/client1.ovpn"), &DiskFiles).unwrap();
    // What stock clients need and we do not; nothing else.
    let idle = |text: &str| text.contains("`persist-key`") || text.contains("`persist-tun`");
    assert!(client.warnings.iter().all(|w| idle(&w.text)), "{:?}", client.warnings);
    let config::Role::Client(role) = client.config.role else { panic!("a client's") };
    let remote = role.remotes.first().unwrap();
    assert_eq!((remote.host.as_str(), remote.port), ("2a00::1", 443));
    assert!(client.config.wrap.v2_client.is_some() && client.config.tls.require_usage);
}
