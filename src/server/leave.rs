//! The ways out: clients that go, are sent away, or are told that we go [6.9, 9.10].

use core::time::Duration;

use crate::engine::{Command, ExitReason, HookInput, HookKind, HookRequest, PeerId};
use crate::server::auth::denied;
use crate::server::peer::{Peer, Stage};
use crate::server::steps::lane;
use crate::server::{Server, environment};
use crate::time::Now;
use crate::wire::message::{Ending, Message};

/// How long a leaving peer's packets are still acknowledged. Until then its cookie cannot make a
/// new session of a retransmission [6.9].
const LINGER: Duration = Duration::from_secs(5);
/// How long our own goodbyes may take: a lost one has time for a second try [9.10].
const FAREWELL: Duration = Duration::from_secs(5);

impl Server {
    /// Takes from a client, or from one that was about to be one, what it had: addresses, routes. Its
    /// session is left to the caller.
    pub(super) fn depart(&mut self, now: Now, id: PeerId, reason: &str) {
        let Some(entry) = self.peers.get_mut(id) else { return };
        let (from, heard) = (entry.endpoint(), entry.peer.session.last_heard());
        let (lease, prefixes) = match &mut entry.peer.stage {
            Stage::Asking(applicant) => {
                if core::mem::take(&mut applicant.case.asked) {
                    self.commands.push_back(Command::NeverMind(applicant.case.number));
                }
                match applicant.place.take() {
                    Some(place) => (place.lease, place.prefixes),
                    None => return,
                }
            }
            Stage::Connected(client) => {
                let info = client.info(id, from, heard, reason);
                let (faces, name) = (core::mem::take(&mut client.faces), info.common_name.clone());
                let mut environment = core::mem::take(&mut client.environment);
                let (lease, prefixes) = (client.lease, core::mem::take(&mut client.prefixes));
                log::info!(
                    "{} ({}): gone: {reason}; {} bytes in, {} out",
                    info.common_name.escape_debug(),
                    info.from.peer,
                    info.bytes_in,
                    info.bytes_out
                );
                if self.config.hooks.client_disconnect.is_some() {
                    environment::departure(&mut environment, &info, now.unix);
                    self.commands.push_back(Command::RunHook(Box::new(HookRequest {
                        ticket: None,
                        kind: HookKind::ClientDisconnect,
                        lane: lane(&info.common_name),
                        arguments: Vec::new(),
                        environment,
                        input: HookInput::Nothing,
                    })));
                }
                self.commands.push_back(Command::ClientDown(Box::new(info)));
                faces.into_iter().for_each(|face| self.show(face, &name, None));
                (lease, prefixes)
            }
            Stage::Handshake | Stage::Leaving { .. } => return,
        };
        self.unroute(id, &prefixes);
        self.pools.release(lease);
    }

    /// A peer goes; its last packets are still acknowledged.
    pub(super) fn leave(&mut self, now: Now, id: PeerId, reason: &str) {
        self.depart(now, id, reason);
        let Some(entry) = self.peers.get_mut(id) else { return };
        match entry.peer.stage {
            Stage::Leaving { .. } => {}
            Stage::Handshake | Stage::Asking(_) | Stage::Connected(_) => {
                entry.peer.stage = Stage::Leaving { until: now.mono + LINGER };
            }
        }
        self.touch(id);
    }

    /// Sends a peer away with a last word.
    pub(super) fn dismiss(&mut self, now: Now, id: PeerId, word: &Message, reason: &str) {
        let Some(entry) = self.peers.get_mut(id) else { return };
        // That it cannot be told is no reason to let it stay.
        let _sent = entry.peer.session.send_message(&word.to_string());
        self.leave(now, id, reason);
    }

    pub(super) fn connected(&self) -> Vec<PeerId> {
        let connected = self.peers.iter().filter(|(_, entry)| entry.peer.client().is_some());
        connected.map(|(id, _)| id).collect()
    }

    /// These serial numbers are void: nobody comes in with one, and who is in, goes.
    pub(super) fn revoke(&mut self, now: Now, serials: Vec<Vec<u8>>) {
        self.session.tls.revoke(serials.iter().cloned());
        self.revoked.extend(serials);
        self.revoked.sort_unstable();
        self.revoked.dedup();
        let void = self.peers.iter().filter(|(_, entry)| {
            let who = match &entry.peer.stage {
                Stage::Asking(applicant) => Some(&applicant.case.who),
                Stage::Connected(client) => Some(&client.who),
                Stage::Handshake | Stage::Leaving { .. } => None,
            };
            who.is_some_and(|who| self.revoked.contains(&who.identity.serial))
        });
        let void: Vec<PeerId> = void.map(|(id, _)| id).collect();
        for id in void {
            let reason = "its certificate is revoked";
            self.dismiss(now, id, &denied("certificate revoked".to_owned()), reason);
        }
    }

    /// Ends the connections of one name.
    pub(super) fn kick(&mut self, now: Now, name: &str) {
        for id in self.connected() {
            if self.name_of(id) == Some(name) {
                self.dismiss(now, id, &restart(false), "ended by the administrator");
            }
        }
    }

    /// Ends the connection of one client.
    pub(super) fn send_away(&mut self, now: Now, id: PeerId, halt: bool) {
        if self.peers.get(id).is_none_or(|entry| entry.peer.client().is_none()) {
            return;
        }
        let word = if halt { Message::Halt(Ending::default()) } else { restart(false) };
        self.dismiss(now, id, &word, "ended by the administrator");
    }

    /// Says goodbye as configured, then ends.
    pub(super) fn shutdown(&mut self, now: Now) {
        if self.closing.is_some() {
            return;
        }
        let clients = self.connected();
        let tell = self.role.exit_notify > 0 && !clients.is_empty();
        for id in clients {
            if tell {
                let word = restart(self.role.exit_notify == 2);
                self.dismiss(now, id, &word, "the server ends");
            } else {
                self.leave(now, id, "the server ends");
            }
        }
        match tell {
            true => self.closing = Some(now.mono + FAREWELL),
            false => self.end(),
        }
    }

    /// Every goodbye has been acknowledged: no need to wait any longer.
    pub(super) fn end_when_quiet(&mut self) {
        let heard = |peer: &Peer| !peer.is_leaving() || peer.session.is_quiet();
        if self.closing.is_some() && self.peers.iter().all(|(_, entry)| heard(&entry.peer)) {
            self.end();
        }
    }

    /// All that had to be said has been sent.
    pub(super) fn end(&mut self) {
        self.closing = None;
        self.save_pool_now();
        self.commands.push_back(Command::Exit(ExitReason::Requested));
    }

    /// Drops every connection; with exit notification the clients learn of it.
    pub(super) fn restart(&mut self, now: Now) {
        let reason = "the server starts afresh";
        for id in self.connected() {
            match self.role.exit_notify {
                0 => self.leave(now, id, reason),
                notify => self.dismiss(now, id, &restart(notify == 2), reason),
            }
        }
    }
}

/// Tells a client to connect again: here, or to the next server of its list.
pub(super) fn restart(next_server: bool) -> Message {
    Message::Restart(Ending { next_server, ..Ending::default() })
}
