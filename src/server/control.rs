//! Control packets, and what the sessions have to say about them [3.4, 7.1].

use core::net::IpAddr;
use core::time::Duration;

use crate::buf::PacketMut;
use crate::engine::{DropReason, Endpoint, PeerId, Verdict};
use crate::limits::MAX_HALF_OPEN;
use crate::server::Server;
use crate::server::admit::Knock;
use crate::server::leave::restart;
use crate::server::peer::{Peer, Stage};
use crate::session::{Session, SessionEvent};
use crate::time::Now;
use crate::wire::control::{Header, SessionId};
use crate::wire::message::Message;
use crate::wire::opcode::Opcode;

/// Half-open sessions from one IPv4 address or one IPv6 /64: enough for a household behind a NAT,
/// too few for one host to use up all there are.
const MAX_HALF_OPEN_PER_SITE: usize = 16;
/// A PUSH_REQUEST so soon after a reply is a crossing one and needs no answer [7.2].
const PUSH_INTERVAL: Duration = Duration::from_secs(30);

impl Server {
    /// A control packet: for a session of that very address, or a stranger's.
    pub(super) fn control(
        &mut self,
        now: Now,
        from: Endpoint,
        packet: &mut PacketMut<'_>,
    ) -> Result<Verdict, DropReason> {
        self.session.tls.set_time(now.unix);
        let (header, _) = Header::parse(packet.as_slice()).map_err(|_| DropReason::Malformed)?;
        if let Some(id) = self.peers.by_session(from.peer, header.session) {
            self.feed(now, id, from, packet)?;
            return Ok(Verdict::Consumed);
        }
        if self.closing.is_some() {
            return Err(DropReason::NotReady);
        }
        let knock = self.gate.knock(now, from, packet.as_slice());
        match knock.inspect_err(|why| self.turned_away(now, from, header.opcode, *why))? {
            Knock::Answered => {}
            Knock::Proven { wrap, local, remote, metadata } => {
                let (config, rng) = (self.session.clone(), &mut *self.rng);
                let session = Session::server(now, config, wrap, local, remote, rng);
                let id = self.open(now, from, remote, session, metadata)?;
                self.feed(now, id, from, packet)?;
            }
            Knock::Unproven { wrap, remote, metadata } => {
                let (config, rng) = (self.session.clone(), &mut *self.rng);
                let session = Session::server_stateful(now, config, wrap, remote, rng);
                let id = self.open(now, from, remote, session, metadata)?;
                self.feed(now, id, from, packet)?;
            }
        }
        Ok(Verdict::Consumed)
    }

    fn feed(
        &mut self,
        now: Now,
        id: PeerId,
        from: Endpoint,
        packet: &mut PacketMut<'_>,
    ) -> Result<(), DropReason> {
        let entry = self.peers.get_mut(id).ok_or(DropReason::UnknownSession)?;
        entry.peer.session.handle_control(now, packet.as_mut_slice(), &mut *self.rng)?;
        entry.follow(from);
        self.settle(now, id);
        Ok(())
    }

    /// A stranger's packet that gets no answer. A first packet that our key does not open comes most
    /// often from a profile with another key, whose owner wonders: that is said aloud, but seldom, as
    /// everybody can send rubbish.
    fn turned_away(&mut self, now: Now, from: Endpoint, opcode: Opcode, why: DropReason) {
        let first = matches!(opcode, Opcode::HardResetClientV2 | Opcode::HardResetClientV3);
        let key = matches!(why, DropReason::BadWrap | DropReason::BadClientKey);
        if first && key && self.mismatches.allow(now.mono) {
            log::warn!(
                "{}: its first packet does not fit our tls-auth, tls-crypt or tls-crypt-v2 key: \
                 a profile with another key or none, or a scanner (of many only some are logged)",
                from.peer
            );
        } else {
            log::debug!("{}: {}", from.peer, why.as_str());
        }
    }

    /// Makes room for a new session. Established clients never stand in its way: whether there are
    /// too many of them is decided when it has proven who it is.
    fn open(
        &mut self,
        now: Now,
        from: Endpoint,
        remote: SessionId,
        session: Session,
        metadata: Option<Vec<u8>>,
    ) -> Result<PeerId, DropReason> {
        let site = site(from.peer.ip());
        let half_open = self.peers.iter().filter(|(_, entry)| entry.peer.client().is_none());
        let (mut all, mut here) = (0, 0);
        for (_, entry) in half_open {
            all += 1;
            here += usize::from(self::site(entry.endpoint().peer.ip()) == site);
        }
        if all >= MAX_HALF_OPEN || here >= MAX_HALF_OPEN_PER_SITE {
            return Err(DropReason::TooManyClients);
        }
        if self.newcomers.as_mut().is_some_and(|limit| !limit.allow(now.mono)) {
            return Err(DropReason::RateLimited);
        }
        let mut peer = Peer::new(session);
        peer.metadata = metadata;
        self.peers.insert(from, remote, peer).map_err(|_| DropReason::TooManyClients)
    }

    /// Time has come for one peer.
    pub(super) fn peer_timeout(&mut self, now: Now, id: PeerId) {
        let Some(entry) = self.peers.get_mut(id) else { return };
        if let Stage::Leaving { until } = entry.peer.stage
            && until <= now.mono
        {
            self.peers.remove(id);
            return;
        }
        let over = entry.peer.client().and_then(|client| client.lifetime.over(now.mono));
        entry.peer.session.handle_timeout(now, &mut *self.rng);
        let due = entry.peer.client().and_then(|client| client.token_due);
        if due.is_some_and(|due| due <= now.mono) {
            self.renew_token(now, id);
        }
        self.restart_if_due(now, id);
        if let Some(why) = over {
            self.dismiss(now, id, &restart(false), why);
        }
        self.settle(now, id);
    }

    /// Deals with all that a session reports, then lets it send.
    pub(super) fn settle(&mut self, now: Now, id: PeerId) {
        self.events(now, id);
        self.touch(id);
    }

    /// Deals with all that a session reports; says whether there was anything.
    pub(super) fn events(&mut self, now: Now, id: PeerId) -> bool {
        let mut any = false;
        while let Some(event) = self.peers.get_mut(id).and_then(|e| e.peer.session.poll_event()) {
            any = true;
            match event {
                SessionEvent::Authenticate(who) => self.authenticate(now, id, *who),
                SessionEvent::Message(message) => self.message(now, id, message),
                SessionEvent::Failed(failure) => self.failed(now, id, &failure.to_string()),
                SessionEvent::KeysReady(key) => log::debug!("peer {id}: key {key} is in use"),
                SessionEvent::RenegotiationStarted(key) => {
                    log::debug!("peer {id}: negotiating key {key}");
                }
                // A server's judges have time after the key exchange.
                SessionEvent::Judge { .. } => {}
            }
        }
        any
    }

    /// A session is over; its TLS alert has been sent.
    fn failed(&mut self, now: Now, id: PeerId, reason: &str) {
        let Some(entry) = self.peers.get(id) else { return };
        match &entry.peer.stage {
            Stage::Connected(_) => self.depart(now, id, reason),
            Stage::Handshake | Stage::Asking(_) => {
                let from = entry.endpoint().peer;
                self.depart(now, id, reason);
                log::log!(self.complaint(now), "{from}: no connection: {reason}");
            }
            Stage::Leaving { .. } => {}
        }
        self.peers.remove(id);
    }

    /// How loudly to speak of a peer that did not get in.
    pub(super) fn complaint(&mut self, now: Now) -> log::Level {
        self.complaints.level(now.mono, log::Level::Warn)
    }

    fn message(&mut self, now: Now, id: PeerId, message: Message) {
        match message {
            Message::PushRequest => self.push_request(now, id),
            Message::CrResponse(answer) => self.challenge_answered(id, answer),
            Message::Exit => self.leave(now, id, "the client has left"),
            // What only servers say is ignored, as is what needs features we do not offer.
            Message::PushReply(_)
            | Message::PushUpdate(_)
            | Message::AuthFailed(_)
            | Message::AuthPending { .. }
            | Message::InfoPre(_)
            | Message::Info(_)
            | Message::Restart(_)
            | Message::Halt(_)
            | Message::Unknown(_) => log::debug!("peer {id}: ignored a control message"),
        }
    }

    fn push_request(&mut self, now: Now, id: PeerId) {
        let Some(entry) = self.peers.get_mut(id) else { return };
        match &entry.peer.stage {
            // Remembered, and answered when there is an answer.
            Stage::Handshake | Stage::Asking(_) => entry.peer.push_requested = true,
            Stage::Connected(client) => {
                let answered = client.pushed.is_some_and(|at| now.mono.since(at) < PUSH_INTERVAL);
                if !answered {
                    self.push(now, id);
                }
            }
            // AUTH_FAILED or RESTART is on its way already.
            Stage::Leaving { .. } => {}
        }
    }

    /// Sends PUSH_REPLY.
    pub(super) fn push(&mut self, now: Now, id: PeerId) {
        let Some(entry) = self.peers.get_mut(id) else { return };
        let Stage::Connected(client) = &mut entry.peer.stage else { return };
        client.pushed = Some(now.mono);
        let session = &mut entry.peer.session;
        if client.push.iter().any(|part| session.send_message(part).is_err()) {
            self.depart(now, id, "it does not acknowledge control messages");
            self.peers.remove(id);
        }
    }
}

/// What counts as one place on the network when half-open sessions are limited.
const fn site(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits() as u128,
        IpAddr::V6(v6) => v6.to_bits() & (u128::MAX << 64),
    }
}
