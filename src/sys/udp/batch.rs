//! Many datagrams per system call: `recvmmsg` with `UDP_GRO`, `sendmmsg` with `UDP_SEGMENT`.
//!
//! Both offloads are tried once, when the socket is opened, between two sockets on the loopback
//! interface: that finds old kernels, and emulators that take the option and garble its values. What
//! a device or a path refuses later is remembered, too, and the datagrams go one by one.

use std::cell::Cell;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use heapless::Vec;

use super::control::{Control, interface, received, set_control};
use super::{Received, UdpSocket, map, set};
use crate::config::Transport;
use crate::limits::{HEADROOM, MAX_MTU};
use crate::offload::outbox::{Outbox, first_run};
use crate::sys::check;
use crate::sys::pages::Pages;
use crate::sys::poll::PollSet;
use crate::sys::sockaddr::Storage;

/// Datagrams (or rows of them) taken by one call, at most.
const MESSAGES: usize = 32;
/// The same while rows of datagrams come: each is up to 64 packets, and the TUN device wants its turn.
const ROWS: usize = 2;
/// Fewest that are asked for: what is prepared for nothing costs time, too.
const FEW: usize = 4;
/// A datagram or a row of them.
const LARGEST: usize = 65_536;
/// Room to move the datagrams of a row apart.
const SPREAD: usize = MAX_ROW * GAP;
/// Datagrams in a row, as far as the kernel makes them (`UDP_GRO_CNT_MAX`).
const MAX_ROW: usize = 64;
/// Headroom of each datagram of a row that was spread: for an ICMP answer behind the old header.
const GAP: usize = 64;
/// One message's memory. Not a power of two: messages would share cache lines' places.
const SLOT: usize = HEADROOM + LARGEST + SPREAD + 5 * 64;
/// Messages in one `sendmmsg`.
const SENT_AT_ONCE: usize = 16;
/// Datagrams that go one by one before a size that was refused is tried again: paths change.
const PATIENCE: u32 = 20_000;

/// How the socket sends and receives.
#[derive(Debug)]
pub(super) struct Offload {
    /// Rows of datagrams are received.
    gro: Cell<bool>,
    /// Datagrams up to this size are sent in rows; 0 when none are.
    largest: Cell<usize>,
    /// Datagrams left until a smaller `largest` is forgotten.
    patience: Cell<u32>,
}

impl Offload {
    pub(super) const fn off() -> Self {
        Self { gro: Cell::new(false), largest: Cell::new(0), patience: Cell::new(0) }
    }
}

/// Memory for received datagrams, and how many the last call brought.
pub struct Inbox {
    memory: Pages,
    received: Vec<Received, MESSAGES>,
    /// Messages to ask for.
    limit: usize,
    /// The last call brought as many as it was asked for.
    full: bool,
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Inbox {
    /// Takes address space for all messages; memory only as far as they are used.
    pub fn new() -> Self {
        let memory = Pages::new(MESSAGES * SLOT);
        Self { memory, received: Vec::new(), limit: FEW, full: false }
    }

    /// Gives back all memory but that of a few single datagrams; what it held is lost.
    pub fn rest(&mut self) {
        self.received.clear();
        self.memory.release_behind(HEADROOM + MAX_MTU);
    }

    /// Messages that the last call brought.
    pub fn len(&self) -> usize {
        self.received.len()
    }

    /// Whether the last call brought nothing.
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// Whether the last call may have left something behind.
    pub fn was_full(&self) -> bool {
        self.full
    }

    /// What the last call found, and where in the memory it starts.
    pub fn message(&self, at: usize) -> Option<(Received, usize)> {
        Some((*self.received.get(at)?, at * SLOT + HEADROOM))
    }

    /// Where the memory of the message at `start` begins and ends.
    pub fn slot(start: usize) -> (usize, usize) {
        let first = start - start % SLOT;
        (first, first + SLOT)
    }

    /// All of the memory.
    pub fn memory(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// Moves the `count` datagrams of `size` bytes at `start` apart, so that each has headroom.
    /// Returns the distance from one to the next.
    pub fn spread(&mut self, start: usize, size: usize, len: usize) -> usize {
        let count = len.div_ceil(size.max(1));
        if count > MAX_ROW {
            return size;
        }
        for at in (1..count).rev() {
            let from = start + at * size;
            let to = (start + len).min(from + size);
            self.memory.copy_within(from..to, from + at * GAP);
        }
        size + GAP
    }
}

/// What became of an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Bytes that went out.
    pub bytes: usize,
    /// Datagrams that the kernel did not take and never will.
    pub lost: usize,
    /// The socket is full; the rest waits in the outbox.
    pub blocked: bool,
}

impl UdpSocket {
    /// Turns on what works here.
    pub fn probe(&mut self) {
        let (gro, segment) = match try_offload() {
            Ok(found) => found,
            Err(error) => {
                log::debug!("UDP offload: {error}");
                (false, false)
            }
        };
        let fd = self.fd.as_raw_fd();
        let gro = gro && set(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        self.offload.gro.set(gro);
        self.offload.largest.set(if segment { usize::MAX } else { 0 });
    }

    /// The offloads in use, for status.
    pub fn offloads(&self) -> &'static str {
        match (self.offload.largest.get() > 0, self.offload.gro.get()) {
            (true, true) => "segment gro",
            (true, false) => "segment",
            (false, true) => "gro",
            (false, false) => "off",
        }
    }

    /// Takes what waits; an empty inbox when there is nothing.
    pub fn receive_batch(&self, inbox: &mut Inbox) -> io::Result<()> {
        inbox.received.clear();
        inbox.full = false;
        let mut names: Vec<Storage, MESSAGES> = Vec::new();
        let mut controls: Vec<Control, MESSAGES> = Vec::new();
        let mut parts: Vec<libc::iovec, MESSAGES> = Vec::new();
        let mut messages: Vec<libc::mmsghdr, MESSAGES> = Vec::new();
        for slot in inbox.memory.as_chunks_mut::<SLOT>().0.iter_mut().take(inbox.limit) {
            let space = slot.get_mut(HEADROOM..HEADROOM + LARGEST).unwrap_or_default();
            let part = libc::iovec { iov_base: space.as_mut_ptr().cast(), iov_len: space.len() };
            // All four have room for as many as the inbox has slots.
            let _ = parts.push(part);
            let _ = names.push(Storage::empty());
            let _ = controls.push(Control::EMPTY);
        }
        for ((name, control), part) in names.iter_mut().zip(&mut controls).zip(&mut parts) {
            // SAFETY: all-zero is a valid mmsghdr (its padding differs between targets).
            let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
            message.msg_hdr.msg_name = name.as_mut_ptr().cast();
            message.msg_hdr.msg_namelen = Storage::CAPACITY;
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = control.0.len() as _;
            let _ = messages.push(message);
        }
        let count = messages.len() as libc::c_uint;
        // SAFETY: every pointer in `messages` is to memory of the stated size that outlives the
        // call and that nothing else refers to meanwhile.
        let got = check(unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                messages.as_mut_ptr(),
                count,
                0,
                std::ptr::null_mut(),
            )
        });
        let got = match got {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            got => got? as usize,
        };
        let mut rows = false;
        for (message, name) in messages.iter().zip(&names).take(got) {
            // SAFETY: recvmmsg filled in this message and its control messages.
            let received = unsafe { received(&message.msg_hdr, name, message.msg_len as usize) };
            rows |= received.segment < received.len;
            let _ = inbox.received.push(received);
        }
        inbox.full = got >= inbox.limit;
        inbox.limit = match inbox.limit {
            _ if rows => ROWS,
            limit if got >= limit => (limit * 2).min(MESSAGES),
            limit if got < limit / 4 => (limit / 2).max(FEW),
            limit => limit,
        };
        Ok(())
    }

    /// Sends as much of `outbox` as goes; the datagrams are in `memory`.
    pub fn send_batch(&self, memory: &[u8], outbox: &mut Outbox) -> Sent {
        let mut sent = Sent { bytes: 0, lost: 0, blocked: false };
        while !outbox.is_empty() && !sent.blocked {
            match self.send_runs(memory, outbox) {
                Ok(count) => {
                    let gone = outbox.waiting().iter().take(count);
                    sent.bytes += gone.map(|datagram| datagram.part.len).sum::<usize>();
                    self.wait_patiently(count);
                    outbox.sent(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sent.blocked = true,
                Err(error) => self.send_first_run_singly(memory, outbox, &error, &mut sent),
            }
        }
        sent
    }

    /// One `sendmmsg`; returns how many datagrams went out. An error is about the first run.
    fn send_runs(&self, memory: &[u8], outbox: &Outbox) -> io::Result<usize> {
        let mut names: Vec<Storage, SENT_AT_ONCE> = Vec::new();
        let mut controls: Vec<Control, SENT_AT_ONCE> = Vec::new();
        let mut parts: Vec<libc::iovec, { crate::offload::outbox::DATAGRAMS }> = Vec::new();
        let mut runs: Vec<usize, SENT_AT_ONCE> = Vec::new();
        let mut waiting = outbox.waiting();
        while !waiting.is_empty() && !runs.is_full() {
            let count = first_run(waiting, self.offload.largest.get());
            let Some((run, rest)) = waiting.split_at_checked(count) else { break };
            let Some(to) = run.first().map(|datagram| datagram.to) else { break };
            for datagram in run {
                let bytes = datagram.part.of(memory);
                let base = bytes.as_ptr().cast_mut().cast();
                // There is room for all datagrams of an outbox, and for a name of each run.
                let _ = parts.push(libc::iovec { iov_base: base, iov_len: bytes.len() });
            }
            let _ = names.push(Storage::from(if self.v6 { map(to.peer) } else { to.peer }));
            let _ = controls.push(Control::EMPTY);
            let _ = runs.push(count);
            waiting = rest;
        }
        let mut messages: Vec<libc::mmsghdr, SENT_AT_ONCE> = Vec::new();
        let (mut datagrams, mut first) = (outbox.waiting(), parts.as_mut_ptr());
        for ((name, control), count) in names.iter_mut().zip(&mut controls).zip(&runs) {
            let Some((run, rest)) = datagrams.split_at_checked(*count) else { break };
            datagrams = rest;
            // SAFETY: all-zero is a valid mmsghdr.
            let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
            message.msg_hdr.msg_name = name.as_mut_ptr().cast();
            message.msg_hdr.msg_namelen = name.len();
            message.msg_hdr.msg_iov = first;
            message.msg_hdr.msg_iovlen = *count as _;
            // SAFETY: as many parts were pushed as all runs have datagrams.
            first = unsafe { first.add(*count) };
            let size = run.first().map(|datagram| datagram.part.len).filter(|_| *count > 1);
            let to = run.first().map(|datagram| datagram.to);
            let from = to.and_then(|to| Some((to.local?, interface(to))));
            if from.is_some() || size.is_some() {
                message.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
                message.msg_hdr.msg_controllen = control.0.len() as _;
                // SAFETY: msg_control points to zeroed bytes, aligned, as many as stated.
                unsafe { set_control(&mut message.msg_hdr, self.v6, from, size) };
            }
            let _ = messages.push(message);
        }
        // SAFETY: every pointer in `messages` is to memory of the stated size that outlives the
        // call; sendmmsg does not write through iov_base.
        let sent = check(unsafe {
            libc::sendmmsg(
                self.fd.as_raw_fd(),
                messages.as_mut_ptr(),
                messages.len() as libc::c_uint,
                libc::MSG_NOSIGNAL as _,
            )
        })?;
        Ok(runs.iter().take(sent as usize).sum())
    }

    /// The first run was refused: its datagrams one by one, which also finds another source address
    /// where that was the trouble.
    fn send_first_run_singly(
        &self,
        memory: &[u8],
        outbox: &mut Outbox,
        error: &io::Error,
        sent: &mut Sent,
    ) {
        let count = first_run(outbox.waiting(), self.offload.largest.get());
        for _ in 0..count {
            let Some(datagram) = outbox.waiting().first().copied() else { break };
            match self.send(datagram.to, datagram.part.of(memory)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sent.blocked = true;
                    return;
                }
                // Unreachable peers, firewalls (EPERM), datagrams beyond the path (EMSGSIZE), no
                // memory (ENOBUFS): the network would have lost them, too.
                Err(error) => {
                    log::trace!("datagram not sent: {error}");
                    sent.lost += 1;
                }
                Ok(()) => {
                    sent.bytes += datagram.part.len;
                    if count > 1 {
                        self.limit(error, datagram.part.len);
                    }
                }
            }
            outbox.sent(1);
        }
    }

    /// A row was refused with `error` of which a single datagram of `size` bytes was not.
    fn limit(&self, error: &io::Error, size: usize) {
        let largest = match error.raw_os_error() {
            // Beyond the path's MTU, where single datagrams are fragmented.
            Some(libc::EINVAL | libc::EMSGSIZE) => size.saturating_sub(1),
            // The device cannot do checksums.
            Some(libc::EIO) => 0,
            _ => return,
        };
        if largest < self.offload.largest.get() {
            log::debug!("rows of datagrams of {size} bytes: {error}; they go one by one");
            self.offload.largest.set(largest);
            self.offload.patience.set(PATIENCE);
        }
    }

    /// Counts datagrams that may have been too large for a row.
    fn wait_patiently(&self, count: usize) {
        let largest = self.offload.largest.get();
        if largest == 0 || largest == usize::MAX {
            return;
        }
        let left = self.offload.patience.get().saturating_sub(count as u32);
        self.offload.patience.set(left);
        if left == 0 {
            self.offload.largest.set(usize::MAX);
        }
    }
}

/// Two datagrams in a row over the loopback interface: whether they arrive as a row, and as two.
fn try_offload() -> io::Result<(bool, bool)> {
    let transport =
        Transport { local: Some(Ipv4Addr::LOCALHOST.into()), port: 0, family: Some(false) };
    let open = || UdpSocket::bind(&transport).map_err(io::Error::other);
    let (sender, receiver) = (open()?, open()?);
    sender.offload.largest.set(usize::MAX);
    let to = crate::engine::Endpoint::new(SocketAddr::new(
        Ipv4Addr::LOCALHOST.into(),
        receiver.local().port(),
    ));
    let row = *b"sixgate?sixgate?!";
    let mut outbox = Outbox::new();
    let part = |start, len| crate::offload::coalesce::Part { start, len };
    for (start, len) in [(0, 8), (8, 8), (16, 1)] {
        outbox.push(to, part(start, len));
    }
    let row_sent = sender.send_runs(&row, &outbox).is_ok_and(|count| count == 3);
    let mut buffer = [0; 64];
    let mut segment = row_sent;
    for expected in [8, 8, 1] {
        segment &= row_sent
            && wait(&receiver)
            && receiver.receive(&mut buffer).is_ok_and(|got| got.len == expected);
    }
    let gro = segment
        && set(receiver.fd.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).is_ok()
        && sender.send_runs(&row, &outbox).is_ok()
        && wait(&receiver)
        && receiver
            .receive(&mut buffer)
            .is_ok_and(|got| got.len == row.len() && got.segment == 8 || got.len == 8);
    Ok((gro, segment))
}

/// Waits for what is on its way to the socket.
fn wait(socket: &UdpSocket) -> bool {
    let mut descriptors = PollSet::<1>::new();
    descriptors.add(socket.as_raw_fd(), true, false);
    descriptors.wait(Some(Duration::from_millis(200)));
    descriptors.is_ready(socket.as_raw_fd())
}
