//! Files on disk: reading what a configuration names, and the state folder with its guarantees.
//!
//! A file of the state folder is either the old one or the new one, whatever happens in between:
//! it is written beside its place, flushed and renamed. It is readable by its owner only, and is not
//! touched when its contents would stay the same (flash wears). One process writes at a time.
//!
//! What the files mean, and in which order they come into being, is [`state`](crate::sys::state)'s
//! business.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use super::processor;
use crate::config::Files;

/// Largest file that is read: far more than any key, certificate bundle or configuration, far less
/// than the memory of a router.
const MAX_FILE: u64 = 4 << 20;

/// How long to wait for another process that changes the same state folder.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(50);

/// The lock file of a state folder. It stays, as removing it would race.
const LOCK: &str = ".lock";

/// What is looked at while a process runs: files, and whether they are there.
pub trait Reading: Files {
    /// When a file or folder was changed last; `None` when there is none.
    fn modified(&self, path: &Path) -> Result<Option<SystemTime>, String>;
    /// The names of the files in a folder, sorted.
    fn list(&self, folder: &Path) -> Result<Vec<String>, String>;
}

/// Reads the files that a configuration names.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskFiles;

impl Reading for DiskFiles {
    fn modified(&self, path: &Path) -> Result<Option<SystemTime>, String> {
        match fs::metadata(path).and_then(|meta| meta.modified()) {
            Ok(time) => Ok(Some(time)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(reason(&error)),
        }
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(|error| reason(&error))? {
            let entry = entry.map_err(|error| reason(&error))?;
            if fs::metadata(entry.path()).is_ok_and(|meta| meta.is_file()) {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

impl Files for DiskFiles {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        read(path).map_err(|error| reason(&error))
    }

    fn is_executable(&self, path: &Path) -> Result<(), String> {
        let meta = fs::metadata(path).map_err(|error| reason(&error))?;
        match meta.is_file() && meta.permissions().mode() & 0o111 != 0 {
            true => Ok(()),
            false => Err("not an executable file".into()),
        }
    }

    fn has_aes(&self) -> bool {
        processor::has_aes()
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // Sized at once: a vector that grows leaves copies of a private key behind.
    let size = file.metadata()?.len().min(MAX_FILE);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "larger than 4 MiB"));
    }
    Ok(bytes)
}

/// An error of the operating system as a person reads it, without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(text, _)| text).to_owned()
}

fn failed(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {}", path.display(), reason(error))
}

/// The ways in which a state folder is changed. Tests put one here that dies at any of them.
pub trait Disk {
    /// Makes a folder that only its owner can enter, and the folders above it.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a file that only its owner can read. Its contents are on disk on return; its name
    /// need not be.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Gives a file a new name within its folder, in one step and for good.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; that there is none is no error.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The disk itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        sync_folder_of(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // A leftover might have other permissions, or be a link: never write into it.
        self.remove(path)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        sync_folder_of(to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all()) {
        // Some file systems cannot flush a folder; they lose a new name at a power cut, not a file.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(())
        }
        result => result,
    }
}

/// Where a file is written before it takes its place.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{suffix}"))
}

/// Writes a file that only its owner can read, all of it or nothing.
pub fn write_private(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), String> {
    let new = beside(path, NEW);
    let result = disk.write(&new, bytes).and_then(|()| disk.rename(&new, path));
    result.map_err(|error| {
        // On a full disk the half-written file must not keep the little room there is.
        let _ = disk.remove(&new);
        failed("write", path, &error)
    })
}

/// Ends the name of a file on its way to replace another.
const NEW: &str = ".new";
/// Ends the name of a file that takes its place once something else is on disk, too.
const STAGED: &str = ".staged";

/// A state folder, locked against other writers until dropped. Names are relative to it.
pub struct Store<'d> {
    dir: PathBuf,
    disk: &'d dyn Disk,
    _lock: File,
}

impl<'d> Store<'d> {
    /// Locks the folder, which is made when it is missing, and clears away half-written files.
    pub fn open(dir: &Path, disk: &'d dyn Disk) -> Result<Self, String> {
        if !dir.is_dir() {
            disk.make_dir(dir).map_err(|error| failed("make the folder", dir, &error))?;
        }
        let store = Self { dir: dir.to_owned(), disk, _lock: lock(dir)? };
        store.sweep("")?;
        Ok(store)
    }

    /// Where a file is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The disk, for a file elsewhere.
    pub fn disk(&self) -> &'d dyn Disk {
        self.disk
    }

    /// The whole file; `None` when there is none.
    pub fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        read_optional(&self.path(name))
    }

    /// Gives the file these contents, unless it has them already.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        if self.read(name)?.is_some_and(|old| old.as_slice() == bytes) {
            return Ok(());
        }
        write_private(self.disk, &self.path(name), bytes)
    }

    /// Puts the contents of a file on disk without giving it its name yet.
    pub fn stage(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let path = beside(&self.path(name), STAGED);
        self.disk.write(&path, bytes).map_err(|error| failed("write", &path, &error))
    }

    /// Gives a staged file its name.
    pub fn commit(&self, name: &str) -> Result<(), String> {
        let path = self.path(name);
        let result = self.disk.rename(&beside(&path, STAGED), &path);
        result.map_err(|error| failed("write", &path, &error))
    }

    /// Drops a staged file.
    pub fn unstage(&self, name: &str) -> Result<(), String> {
        let path = beside(&self.path(name), STAGED);
        self.disk.remove(&path).map_err(|error| failed("remove", &path, &error))
    }

    /// The names that the staged files of a folder are to get.
    pub fn staged(&self, folder: &str) -> Result<Vec<String>, String> {
        let files = self.list(folder)?;
        let names = files.iter().filter_map(|file| file.strip_prefix('.')?.strip_suffix(STAGED));
        Ok(names.map(|name| join(folder, name)).collect())
    }

    /// What is staged for a file.
    pub fn read_staged(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        read_optional(&beside(&self.path(name), STAGED))
    }

    /// Removes a file; that there is none is no error.
    pub fn remove(&self, name: &str) -> Result<(), String> {
        let path = self.path(name);
        self.disk.remove(&path).map_err(|error| failed("remove", &path, &error))
    }

    /// Makes a folder in the folder, if there is none, and clears away half-written files in it.
    pub fn make_dir(&self, name: &str) -> Result<(), String> {
        let path = self.path(name);
        if !path.is_dir() {
            self.disk.make_dir(&path).map_err(|error| failed("make the folder", &path, &error))?;
        }
        self.sweep(name)
    }

    /// The names in a folder, sorted; none when there is no such folder.
    pub fn list(&self, folder: &str) -> Result<Vec<String>, String> {
        let path = self.path(folder);
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.map_err(|error| failed("read", &path, &error))?,
        };
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Whether others than the owner can read the file.
    pub fn is_exposed(&self, name: &str) -> bool {
        fs::metadata(self.path(name)).is_ok_and(|meta| meta.mode() & 0o077 != 0)
    }

    fn sweep(&self, folder: &str) -> Result<(), String> {
        for file in self.list(folder)? {
            if file.starts_with('.') && file.ends_with(NEW) {
                self.remove(&join(folder, &file))?;
            }
        }
        Ok(())
    }
}

/// The whole file; `None` when there is none. Needs no lock: files change in one step.
pub fn read_optional(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    match read(path) {
        Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, &error)),
    }
}

fn join(folder: &str, file: &str) -> String {
    if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") }
}

fn lock(dir: &Path) -> Result<File, String> {
    let path = dir.join(LOCK);
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    // A folder on a read-only file system can still be complete.
    let open = open.or_else(|error| File::open(&path).map_err(|_| error));
    let file = open.map_err(|error| failed("write", &path, &error))?;
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if waited < LOCK_WAIT => {
                std::thread::sleep(LOCK_POLL);
                waited += LOCK_POLL;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(format!("another sixgate is changing {}", dir.display()));
            }
            // A file system without locks; then its owner has to be careful alone.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                return Ok(file);
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path, &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::state::tests::TempDir;

    #[test]
    fn files_are_private_and_written_only_when_they_change() {
        let temp = TempDir::new();
        let dir = temp.path().join("a/b");
        let store = Store::open(&dir, &OsDisk).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        assert!(store.read("key").unwrap().is_none());
        store.replace("key", b"one").unwrap();
        let before = fs::metadata(dir.join("key")).unwrap();
        assert_eq!(before.mode() & 0o777, 0o600);
        assert!(!store.is_exposed("key"));
        store.replace("key", b"one").unwrap();
        assert_eq!(fs::metadata(dir.join("key")).unwrap().ino(), before.ino());
        store.replace("key", b"two").unwrap();
        assert_ne!(fs::metadata(dir.join("key")).unwrap().ino(), before.ino());
        assert_eq!(store.read("key").unwrap().unwrap().as_slice(), b"two");
        assert_eq!(store.list("").unwrap(), [LOCK, "key"]);
    }

    #[test]
    fn leftovers_go_and_staged_files_wait() {
        let temp = TempDir::new();
        fs::write(temp.path().join(".key.new"), b"half").unwrap();
        let store = Store::open(temp.path(), &OsDisk).unwrap();
        store.stage("x", b"1").unwrap();
        store.stage("y", b"2").unwrap();
        assert_eq!(store.list("").unwrap(), [LOCK, ".x.staged", ".y.staged"]);
        assert_eq!(store.staged("").unwrap(), ["x", "y"]);
        assert_eq!(store.read_staged("y").unwrap().unwrap().as_slice(), b"2");
        store.commit("x").unwrap();
        store.unstage("y").unwrap();
        assert_eq!(store.list("").unwrap(), [LOCK, "x"]);
    }

    #[test]
    fn a_second_writer_waits() {
        let temp = TempDir::new();
        let first = Store::open(temp.path(), &OsDisk).unwrap();
        let dir = temp.path().to_owned();
        let second = std::thread::spawn(move || {
            Store::open(&dir, &OsDisk).unwrap().replace("order", b"second").unwrap();
        });
        std::thread::sleep(LOCK_POLL);
        first.replace("order", b"first").unwrap();
        drop(first);
        second.join().unwrap();
        assert_eq!(fs::read(temp.path().join("order")).unwrap(), b"second");
    }

    #[test]
    fn reasons_are_one_line_without_path_or_number() {
        let temp = TempDir::new();
        let missing = DiskFiles.read(&temp.path().join("none"));
        assert_eq!(missing, Err("No such file or directory".to_owned()));
        assert_eq!(DiskFiles.read(temp.path()), Err("Is a directory".to_owned()));
        let endless = DiskFiles.read(Path::new("/dev/zero"));
        assert_eq!(endless, Err("larger than 4 MiB".to_owned()));
    }
}
