//! What was seen on the disk, written down by who may look and gone by by who may not.
//!
//! ```text
//! kind (1)  length (4) path  good (1)  length (4) what was seen, or why nothing was      and so on
//! ```

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

use super::talk::GARBLED;
use crate::config::Files;
use crate::sys::state::NewIdentity;
use crate::sys::store::{DiskFiles, Reading};
use crate::time::UnixTime;
use crate::wire::reader::Reader;

/// Ways to look.
const READ: u8 = 0;
const EXECUTABLE: u8 = 1;
const MODIFIED: u8 = 2;
const LIST: u8 = 3;

/// Looks at the disk and writes down what it sees.
#[derive(Default)]
pub(super) struct Recorder(RefCell<Vec<u8>>);

impl Recorder {
    /// All that was seen.
    pub(super) fn finish(self) -> Vec<u8> {
        self.0.into_inner()
    }

    fn note(&self, kind: u8, path: &Path, seen: Result<&[u8], &String>) {
        let mut record = self.0.borrow_mut();
        let bytes = seen.unwrap_or_else(|error| error.as_bytes());
        // At once: a vector that grows step by step copies keys again and again.
        record.reserve(path.as_os_str().len() + bytes.len() + 10);
        record.push(kind);
        put(&mut record, path.as_os_str().as_bytes());
        record.push(seen.is_ok().into());
        put(&mut record, bytes);
    }
}

impl Files for Recorder {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        let seen = DiskFiles.read(path);
        self.note(READ, path, seen.as_deref());
        seen
    }

    fn is_executable(&self, path: &Path) -> Result<(), String> {
        let seen = DiskFiles.is_executable(path);
        self.note(EXECUTABLE, path, seen.as_ref().map(|()| [].as_slice()));
        seen
    }

    fn has_aes(&self) -> bool {
        DiskFiles.has_aes()
    }
}

impl Reading for Recorder {
    fn modified(&self, path: &Path) -> Result<Option<SystemTime>, String> {
        let seen = DiskFiles.modified(path);
        let bytes = seen.as_ref().map(|time| time.map(time_to_bytes).unwrap_or_default());
        self.note(MODIFIED, path, bytes.as_deref().map_err(|error| *error));
        seen
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, String> {
        let seen = DiskFiles.list(folder);
        let bytes = seen.as_ref().map(|names| names.join("\0").into_bytes());
        self.note(LIST, folder, bytes.as_deref().map_err(|error| *error));
        seen
    }
}

/// What somebody else has seen.
pub(super) struct Transcript(Vec<(u8, PathBuf, Result<Vec<u8>, String>)>);

impl Transcript {
    /// Reads what a [`Recorder`] has written.
    pub(super) fn parse(record: &[u8]) -> Self {
        let (mut entries, mut from) = (Vec::new(), Reader::new(record));
        while let Some(entry) = entry(&mut from) {
            entries.push(entry);
        }
        Self(entries)
    }

    fn look(&self, kind: u8, path: &Path) -> Result<Vec<u8>, String> {
        let same = |entry: &&(u8, PathBuf, _)| entry.0 == kind && entry.1 == path;
        match self.0.iter().find(same) {
            Some((_, _, seen)) => seen.clone(),
            None => Err("the keeper has not looked there".to_owned()),
        }
    }
}

impl Files for Transcript {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        self.look(READ, path)
    }

    fn is_executable(&self, path: &Path) -> Result<(), String> {
        self.look(EXECUTABLE, path).map(drop)
    }

    /// Both are on the same machine.
    fn has_aes(&self) -> bool {
        DiskFiles.has_aes()
    }
}

impl Reading for Transcript {
    fn modified(&self, path: &Path) -> Result<Option<SystemTime>, String> {
        self.look(MODIFIED, path).map(|bytes| time_from_bytes(&bytes))
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, String> {
        let names = self.look(LIST, folder)?;
        let names = String::from_utf8_lossy(&names);
        Ok(names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }
}

fn entry(from: &mut Reader<'_>) -> Option<(u8, PathBuf, Result<Vec<u8>, String>)> {
    let kind = from.u8().ok()?;
    let path = PathBuf::from(OsStr::from_bytes(take(from)?));
    let good = from.u8().ok()? != 0;
    let seen = take(from)?;
    let seen = match good {
        true => Ok(seen.to_vec()),
        false => Err(String::from_utf8_lossy(seen).into_owned()),
    };
    Some((kind, path, seen))
}

/// A renewed certificate as an answer; nothing when none was due.
pub(super) fn write_identity(new: Option<NewIdentity>) -> Vec<u8> {
    let Some(new) = new else { return Vec::new() };
    let parts = [&new.certificate, &*new.key, &*new.replaces];
    let mut out = Vec::with_capacity(20 + parts.iter().map(|part| part.len()).sum::<usize>());
    out.extend(new.expires.0.to_be_bytes());
    parts.iter().for_each(|part| put(&mut out, part));
    out
}

/// The same on the other side.
pub(super) fn parse_identity(answer: &[u8]) -> Result<Option<NewIdentity>, String> {
    if answer.is_empty() {
        return Ok(None);
    }
    let parse = || {
        let from = &mut Reader::new(answer);
        let expires = from.array().ok()?;
        let mut part = || take(from).map(<[u8]>::to_vec);
        Some(NewIdentity {
            expires: UnixTime(u64::from_be_bytes(expires)),
            certificate: part()?,
            key: Zeroizing::new(part()?),
            replaces: Zeroizing::new(part()?),
        })
    };
    parse().map(Some).ok_or_else(|| GARBLED.to_owned())
}

/// Appends bytes with their length before them.
pub(super) fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    // Nothing that is read is larger than a few MiB (`sys::store`).
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Takes off what [`put`] has appended.
pub(super) fn take<'a>(from: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = from.u32().ok()?;
    from.take(length as usize).ok()
}

fn time_to_bytes(time: SystemTime) -> Vec<u8> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    [&since.as_secs().to_be_bytes()[..], &since.subsec_nanos().to_be_bytes()].concat()
}

fn time_from_bytes(bytes: &[u8]) -> Option<SystemTime> {
    let (seconds, rest) = bytes.split_first_chunk()?;
    let nanos = u32::from_be_bytes(rest.try_into().ok()?);
    UNIX_EPOCH.checked_add(Duration::new(u64::from_be_bytes(*seconds), nanos))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sys::state::tests::TempDir;

    /// Everything that can be looked at, as text.
    fn looks(dir: &Path, disk: &dyn Reading) -> Vec<String> {
        let mut found = Vec::new();
        for name in ["key", "script", "none", "folder", ""] {
            let path = dir.join(name);
            found.push(format!("{:?}", disk.read(&path)));
            found.push(format!("{:?}", disk.is_executable(&path)));
            found.push(format!("{:?}", disk.modified(&path)));
            found.push(format!("{:?}", disk.list(&path)));
        }
        found
    }

    #[test]
    fn who_goes_by_the_record_sees_the_same() {
        use std::os::unix::fs::PermissionsExt as _;
        let temp = TempDir::new();
        let dir = temp.path();
        fs::create_dir(dir.join("folder")).unwrap();
        fs::write(dir.join("key"), b"\0\xffbytes").unwrap();
        fs::write(dir.join("script"), b"#!/bin/sh\n").unwrap();
        fs::set_permissions(dir.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
        let recorder = Recorder::default();
        let seen = looks(dir, &recorder);
        assert_eq!(seen, looks(dir, &DiskFiles));
        let record = recorder.finish();
        let transcript = Transcript::parse(&record);
        assert_eq!(looks(dir, &transcript), seen);
        // What was not looked at cannot be read, even if it is there.
        fs::write(dir.join("other"), b"secret").unwrap();
        assert!(transcript.read(&dir.join("other")).is_err());
        for len in 0..record.len() {
            let cut = Transcript::parse(&record[..len]);
            assert!(cut.0.len() < 20, "{len}");
        }
    }

    #[test]
    fn a_renewed_certificate_arrives_as_it_was_sent() {
        assert!(parse_identity(&write_identity(None)).unwrap().is_none());
        let new = NewIdentity {
            certificate: b"certificate".to_vec(),
            key: Zeroizing::new(b"key".to_vec()),
            expires: UnixTime(0x0102_0304_0506_0708),
            replaces: Zeroizing::new(Vec::new()),
        };
        let bytes = write_identity(Some(new));
        let read = parse_identity(&bytes).unwrap().unwrap();
        assert_eq!(
            (read.certificate.as_slice(), read.key.as_slice()),
            (&b"certificate"[..], &b"key"[..])
        );
        assert_eq!((read.expires, read.replaces.len()), (UnixTime(0x0102_0304_0506_0708), 0));
        for len in 1..bytes.len() {
            assert!(parse_identity(&bytes[..len]).is_err(), "{len}");
        }
    }
}
