//! Control packets in: from the datagram to the slot's channel, and what follows from it [3].

use crate::engine::DropReason;
use crate::random::Random;
use crate::session::channel::Heard;
use crate::session::reliable::Receipt;
use crate::session::slots::Slot;
use crate::session::wrap::{Opened, Wrap, WrapError};
use crate::session::{Authentication, PeerIdentity, Role, Session, SessionEvent, SessionFailure};
use crate::time::Now;
use crate::wire::control::{Header, KeyId, MessageId, Opcode};
use crate::wire::key_method::KeyMethod2;
use crate::wire::message::Message;
use crate::wire::wkc;

impl From<WrapError> for DropReason {
    fn from(error: WrapError) -> Self {
        match error {
            WrapError::Malformed => Self::Malformed,
            WrapError::BadAuth => Self::BadWrap,
            WrapError::Replay => Self::Replay,
        }
    }
}

impl Session {
    /// A control packet for this session; decrypted in place. On error nothing has changed.
    pub fn handle_control(
        &mut self,
        now: Now,
        packet: &mut [u8],
        rng: &mut dyn Random,
    ) -> Result<(), DropReason> {
        if self.failing.is_some() {
            return Err(DropReason::NotReady);
        }
        let (header, _) = Header::parse(packet).map_err(|_| DropReason::Malformed)?;
        self.check_header(&header)?;
        // The wrapped key was processed when the session was made, and never again (CVE-2025-2704).
        let packet = match header.opcode.has_wkc() {
            true => wkc::split_mut(packet).map_err(|_| DropReason::Malformed)?.0,
            false => packet,
        };
        let Opened { body, .. } = self.wrap_for(header.key_id).open(packet)?;
        // A server's reset acknowledges the client's and so names it: others answer somebody else.
        let addressed = body.remote.unwrap_or(self.local);
        if addressed != self.local || (self.remote.is_none() && body.remote.is_none()) {
            return Err(DropReason::UnknownSession);
        }
        // A reset under another number than 0 is nobody's (2.7.6).
        let is_reset = header.opcode != Opcode::ControlV1 && header.opcode != Opcode::WkcV1;
        if is_reset && body.id.is_some_and(|id| id != MessageId(0)) {
            return Err(DropReason::Malformed);
        }
        if header.opcode == Opcode::SoftResetV1 && self.may_follow(now, header.key_id) {
            self.rotate(now, rng);
        }
        let channel = self.channel(header.key_id).ok_or(DropReason::NoKey)?;
        channel.reliable.acknowledge(&body.acks);
        if let Some(id) = body.id {
            let receipt = channel.reliable.receive(id, header.opcode, body.payload);
            if receipt == Receipt::Refused {
                log::trace!("control packet {} is beyond the window", id.0);
            }
        }
        self.remote = Some(header.session);
        self.keepalive.heard(now.mono);
        self.config.tls.set_time(now.unix);
        self.settle(now, rng);
        Ok(())
    }

    /// What can be refused before any cryptography.
    fn check_header(&self, header: &Header) -> Result<(), DropReason> {
        let wrong_role = match header.opcode {
            Opcode::HardResetServerV2 => self.config.role == Role::Server,
            Opcode::HardResetClientV2 | Opcode::HardResetClientV3 | Opcode::WkcV1 => {
                self.config.role == Role::Client
            }
            Opcode::SoftResetV1 | Opcode::ControlV1 | Opcode::AckV1 => false,
            Opcode::DataV1 | Opcode::DataV2 | Opcode::Unknown(_) => true,
        };
        // Key 0 begins with a hard reset, all others with a soft one.
        let soft = header.opcode == Opcode::SoftResetV1;
        let hard = matches!(
            header.opcode,
            Opcode::HardResetServerV2 | Opcode::HardResetClientV2 | Opcode::HardResetClientV3
        );
        let first = header.key_id == KeyId::ZERO;
        if wrong_role || (soft && first) || (hard && !first) {
            return Err(DropReason::BadOpcode);
        }
        match self.remote {
            Some(remote) if remote != header.session => Err(DropReason::UnknownSession),
            // A client locks on the first server reset it sees; anything else comes too early.
            None if !hard => Err(DropReason::UnknownSession),
            Some(_) | None => Ok(()),
        }
    }

    /// The wrapping of a key's control packets: the negotiated one for keys after the first [2.6].
    pub(super) fn wrap_for(&mut self, key_id: KeyId) -> &mut Wrap {
        match &mut self.dynamic_wrap {
            Some(wrap) if key_id != KeyId::ZERO => wrap,
            Some(_) | None => &mut self.wrap,
        }
    }

    /// Works off everything that follows from an input, until there is nothing left to do.
    pub(super) fn settle(&mut self, now: Now, rng: &mut dyn Random) {
        for retiring in [true, false] {
            let slot = if retiring { self.retiring.as_mut() } else { Some(&mut self.primary) };
            let Some(Slot { id, channel: Some(channel), .. }) = slot else { continue };
            let (id, mut heard) = (*id, Vec::new());
            let result = channel.advance(&self.config, rng, &mut heard);
            for heard in heard {
                self.interpret(now, id, heard);
            }
            let mut slot_closed = false;
            match result {
                Ok(()) => {}
                // The old control channel is not needed any more: the data keys live on.
                Err(reason) if retiring => {
                    log::debug!("old key {id}: {reason}");
                    slot_closed = true;
                }
                Err(reason) => self.fail(now, SessionFailure::Tls(reason)),
            }
            if let Some(old) = self.retiring.as_mut().filter(|_| slot_closed) {
                old.channel = None;
            }
        }
        self.check_established(now);
        self.send_waiting();
    }

    fn interpret(&mut self, now: Now, key_id: KeyId, heard: Heard) {
        match heard {
            Heard::Flags(flags) => {
                if let Some(key) = &mut self.wrapped_key {
                    key.resend = flags.resend_wkc;
                }
            }
            Heard::Certificates(chain) => self.push_event(SessionEvent::Judge { key_id, chain }),
            Heard::Exchange(message) => self.authenticate(now, key_id, message),
            Heard::Message(message) => {
                if let Message::AuthPending { timeout } = &message
                    && self.config.role == Role::Client
                {
                    self.wait_for_authentication(now, *timeout);
                }
                self.push_event(SessionEvent::Message(message));
            }
        }
    }

    fn authenticate(&mut self, now: Now, key_id: KeyId, message: KeyMethod2) {
        // A server that wants to see a certificate has refused in the handshake.
        let anonymous = (self.config.role == Role::Server).then(PeerIdentity::default);
        let tls = self.channel(key_id).and_then(|channel| channel.tls());
        let chain = tls.map(|tls| tls.chain()).unwrap_or_default();
        let Some(identity) = tls.and_then(|tls| tls.identity()).or(anonymous) else {
            let reason = "the peer showed no certificate".to_owned();
            return self.fail(now, SessionFailure::Tls(reason));
        };
        let KeyMethod2 { source: _, options, credentials, peer_info } = message;
        let credential_error = credentials.as_ref().err().copied();
        let credentials = credentials.unwrap_or_default();
        let authentication = Authentication {
            key_id,
            renegotiation: key_id != KeyId::ZERO,
            identity,
            chain,
            peer_info,
            options,
            username: credentials.username,
            password: credentials.password,
            credential_error,
        };
        self.push_event(SessionEvent::Authenticate(Box::new(authentication)));
    }
}
