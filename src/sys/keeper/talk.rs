//! What goes between the two processes: frames of a kind, a length and that many bytes.
//!
//! ```text
//! +------+----------+=========
//! | kind | length   | body      kind: a request, or GOOD or BAD with the reason as text
//! +------+----------+=========
//! ```
//!
//! A descriptor comes behind its answer, with a byte of its own.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::mem;
use std::os::fd::{AsRawFd as _, FromRawFd as _, RawFd};
use std::os::unix::net::UnixStream;

use crate::sys::check_len;

/// The kind of an answer with what was asked for.
pub(super) const GOOD: u8 = 0;
/// The kind of an answer that says why not.
pub(super) const BAD: u8 = 1;
/// What never comes from the other side as it is.
pub(super) const GARBLED: &str = "the keeper's answer is garbled";

/// What the keeper can be asked for. None names a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Request {
    /// Everything is open: write the pid file, go to the background, say the process's id.
    Ready,
    /// The configuration again, with what clients' files and the list of revoked certificates say.
    Configuration,
    /// What was handed over last is in force from now on.
    InForce,
    /// What was handed over last is what to start over with.
    Choose,
    /// The process is about to end, and wants to be started over.
    Restart,
    /// The process is about to end.
    End,
    /// All clients' files.
    Survey,
    /// The files of the client with the common name that follows.
    Client,
    /// When the revocation list was changed.
    CrlTime,
    /// The revocation list.
    Crl,
    /// The state folder's list of revoked certificates.
    Revoked,
    /// Renew the server's certificate if that is due.
    Renew,
    /// Write the leases, which follow.
    SaveLeases,
    /// Write the delegated prefixes, which follow.
    SaveDelegations,
    /// Open the log.
    OpenLog,
    /// Open the status file.
    OpenStatus,
    /// Run the script that is configured for an occasion, with what follows.
    RunScript,
    /// How far a script is. From here on, its number follows.
    ScriptStatus,
    /// What a script that has ended answers.
    ScriptAnswer,
    /// What a script has answered that has put it off.
    ScriptLater,
    /// What follows from a script's taking too long.
    ScriptOverdue,
    /// End a script.
    EndScript,
    /// Nobody wants to know more of a script.
    ForgetScript,
}

impl Request {
    const ALL: [Self; 23] = [
        Self::Ready,
        Self::Configuration,
        Self::InForce,
        Self::Choose,
        Self::Restart,
        Self::End,
        Self::Survey,
        Self::Client,
        Self::CrlTime,
        Self::Crl,
        Self::Revoked,
        Self::Renew,
        Self::SaveLeases,
        Self::SaveDelegations,
        Self::OpenLog,
        Self::OpenStatus,
        Self::RunScript,
        Self::ScriptStatus,
        Self::ScriptAnswer,
        Self::ScriptLater,
        Self::ScriptOverdue,
        Self::EndScript,
        Self::ForgetScript,
    ];

    /// The request of this number.
    pub(super) fn parse(kind: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|request| *request as u8 == kind)
    }
}

/// Sends one frame.
pub(super) fn send(mut stream: &UnixStream, kind: u8, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).map_err(|_| ErrorKind::FileTooLarge)?;
    let [a, b, c, d] = length.to_be_bytes();
    stream.write_all(&[kind, a, b, c, d])?;
    stream.write_all(body)
}

/// Waits for one frame with at most `limit` bytes.
pub(super) fn receive(mut stream: &UnixStream, limit: usize) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > limit {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((kind, body))
}

/// Room for the header of a control message and one descriptor, aligned as the header has to be.
#[repr(C, align(8))]
struct Control([u8; 32]);

/// A message of one byte and one descriptor, handed to `call`.
fn with_message<T>(control: &mut Control, call: impl FnOnce(&mut libc::msghdr) -> T) -> T {
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: all-zero is a valid msghdr: no name, nothing to send.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: computes a length.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(mem::size_of::<RawFd>() as u32) } as _;
    call(&mut message)
}

/// Hands an open file over.
pub(super) fn send_file(stream: &UnixStream, file: &File) -> io::Result<()> {
    let mut control = Control([0; 32]);
    let sent = with_message(&mut control, |message| {
        // SAFETY: the control memory has room for a header and a descriptor (CMSG_SPACE is at most 24),
        // so the header is not null; the byte, its iovec and the memory outlive the call.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(mem::size_of::<RawFd>() as u32) as _;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(file.as_raw_fd());
            libc::sendmsg(stream.as_raw_fd(), message, libc::MSG_NOSIGNAL)
        }
    });
    check_len(sent).map(drop)
}

/// Takes over a file that the other side has opened; nothing if there is no descriptor left for it.
pub(super) fn receive_file(stream: &UnixStream) -> io::Result<Option<File>> {
    let mut control = Control([0; 32]);
    with_message(&mut control, |message| {
        // SAFETY: all memory that the message names outlives the call and is of the length given.
        let read = unsafe { libc::recvmsg(stream.as_raw_fd(), message, libc::MSG_CMSG_CLOEXEC) };
        if check_len(read)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: recvmsg has filled the control memory in as far as msg_controllen says.
        let header = unsafe { libc::CMSG_FIRSTHDR(message) };
        if header.is_null() {
            return Ok(None);
        }
        // SAFETY: a whole header; the kernel puts a descriptor, new and nobody else's, behind one
        // that says so.
        unsafe {
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    let fd = libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned();
                    Ok(Some(File::from_raw_fd(fd)))
                }
                _ => Ok(None),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use super::*;

    #[test]
    fn every_request_has_its_number() {
        for (number, request) in Request::ALL.into_iter().enumerate() {
            assert_eq!(request as usize, number);
            assert_eq!(Request::parse(number as u8), Some(request));
        }
        assert_eq!(Request::parse(Request::ALL.len() as u8), None);
    }

    #[test]
    fn frames_arrive_whole_and_within_bounds() {
        let (a, b) = UnixStream::pair().unwrap();
        send(&a, Request::Client as u8, b"laptop").unwrap();
        send(&a, GOOD, b"").unwrap();
        send(&a, BAD, b"12345").unwrap();
        assert_eq!(receive(&b, 6).unwrap(), (Request::Client as u8, b"laptop".to_vec()));
        assert_eq!(receive(&b, 0).unwrap(), (GOOD, Vec::new()));
        assert_eq!(receive(&b, 4).unwrap_err().kind(), ErrorKind::InvalidData);
        drop(a);
        assert!(receive(&b, 4).is_err());
    }

    #[test]
    fn an_open_file_is_the_same_on_the_other_side() {
        let (a, b) = UnixStream::pair().unwrap();
        let path = std::env::temp_dir().join(format!("sixgate-fd-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let mut file = file.unwrap();
        send_file(&a, &file).unwrap();
        receive_file(&b).unwrap().unwrap().write_all(b"seen").unwrap();
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "seen");
        // A byte without one is no file.
        (&a).write_all(b"x").unwrap();
        assert!(receive_file(&b).unwrap().is_none());
        drop(a);
        assert_eq!(receive_file(&b).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        std::fs::remove_file(path).unwrap();
    }
}
