//! Files that are written again and again: the status and the leases.
//!
//! They are opened before privileges are given up and written in place, as OpenVPN does: who tails
//! one keeps it. Leases are replaced in one step instead, so that there is a whole file at any
//! time; only where `user` may not write the folder are they written in place, too.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// An open file and its name.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    file: File,
    /// An error has been reported already; it is not repeated at every interval.
    failing: bool,
}

impl OutputFile {
    /// Opens a file that only its owner can read, or makes it. What it holds is kept.
    pub fn open(what: &str, path: &Path) -> Result<Self, String> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file =
            options.open(path).map_err(|error| format!("{what} {}: {error}", path.display()))?;
        Ok(Self::new(path, file))
    }

    /// A file that is open already.
    pub fn new(path: &Path, file: File) -> Self {
        Self { path: path.to_owned(), file, failing: false }
    }

    /// The open file.
    pub fn into_file(self) -> File {
        self.file
    }

    /// Gives the file this text, in place.
    pub fn overwrite(&mut self, text: &str) {
        let result = self.write_in_place(text);
        self.report(result.map_err(|error| error.to_string()));
    }

    /// Gives the file this text by `write`, all of it or nothing; in place where that fails, as
    /// the folder may not allow it.
    pub fn replace(&mut self, text: &str, write: impl FnOnce(&Path, &[u8]) -> Result<(), String>) {
        let result = write(&self.path, text.as_bytes()).or_else(|error| {
            log::debug!("{error}; writing in place");
            self.write_in_place(text).map_err(|error| error.to_string())
        });
        self.report(result);
    }

    fn write_in_place(&mut self, text: &str) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(text.as_bytes())?;
        self.file.set_len(text.len() as u64)
    }

    fn report(&mut self, result: Result<(), String>) {
        let failed = result.is_err();
        if let Err(error) = result
            && !self.failing
        {
            log::error!("cannot write {}: {error}", self.path.display());
        }
        self.failing = failed;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::sys::state::tests::TempDir;
    use crate::sys::store::{OsDisk, write_private};

    fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
        write_private(&OsDisk, path, bytes)
    }

    #[test]
    fn readers_keep_the_file_or_get_a_whole_one() {
        let temp = TempDir::new();
        let path = temp.path().join("status");
        let mut file = OutputFile::open("status", &path).unwrap();
        let before = fs::metadata(&path).unwrap();
        assert_eq!(before.mode() & 0o777, 0o600);
        file.overwrite("a long text");
        file.overwrite("short");
        assert_eq!(fs::read_to_string(&path).unwrap(), "short");
        assert_eq!(fs::metadata(&path).unwrap().ino(), before.ino());
        file.replace("new", write);
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_ne!(fs::metadata(&path).unwrap().ino(), before.ino());
        // The folder is gone: there is nothing left but the open file.
        fs::remove_dir_all(temp.path()).unwrap();
        file.replace("again", write);
        assert!(!file.failing);
        assert!(OutputFile::open("status", &path).unwrap_err().starts_with("status /"));
    }
}
