//! Strangers' first packets: proving an address before anything is remembered [2.5, 3.3].
//!
//! ```text
//! client                                     server
//! RESET_CLIENT_V2/V3  sid C               →            nothing kept
//!                                         ←  RESET_SERVER_V2  sid S = cookie(time, address, C)
//! CONTROL_V1, ACK_V1 or WKC_V1, acks S    →            S checks out: a session begins
//! ```
//!
//! Every packet is opened with the key that its kind calls for and refused when it does not
//! authenticate; answers are limited in rate and hardly larger than the question, and so is the work
//! that strangers can make us do: the clients there are come first. Two kinds of
//! client need more: tls-crypt-v2 clients without early negotiation (2.5) get a session for their
//! first packet, unless `force-cookie` shuts them out; and clients that acknowledge our reset only
//! once (≤ 2.5) get it again when that one packet was lost.

use core::time::Duration;

use crate::buf::PacketMut;
use crate::config::{Config, ServerRole};
use crate::engine::{DropReason, Endpoint};
use crate::limits::{CONTROL_MTU, STRANGERS_PER_SECOND, stranger_cost};
use crate::random::Random;
use crate::rate::RateLimit;
use crate::server::cookie::Cookies;
use crate::session::Role;
use crate::session::wrap::{Opened, Wrap, WrapError, WrapId, WrapKey, knows_early_negotiation};
use crate::time::Now;
use crate::wire::control::{AckList, Body, Header, MessageId, ResetFlags, SessionId};
use crate::wire::opcode::{KeyId, Opcode};
use crate::wire::static_key::V2ServerKey;
use crate::wire::wkc;

/// Largest answer: header 9, tls-auth with SHA-512 72, acks and ids 17, TLV 6.
const MAX_ANSWER: usize = 128;
/// Largest first packet that is looked at; no client sends more (its control MTU and a WKc).
const MAX_KNOCK: usize = 2 * CONTROL_MTU;

/// What a stranger's packet came to.
pub enum Knock {
    /// It was answered; the answer waits in [`Gate::poll_answer`].
    Answered,
    /// The stranger echoed our cookie: a session may begin, with this packet.
    Proven {
        /// Wrapping for the session; its first packet id is spent.
        wrap: Wrap,
        /// Our session id.
        local: SessionId,
        /// Theirs.
        remote: SessionId,
        /// What its wrapped key carried, if that is to be kept.
        metadata: Option<Vec<u8>>,
    },
    /// A client that cannot do the above: a session may begin with this reset.
    Unproven {
        /// Wrapping for the session.
        wrap: Wrap,
        /// Their session id.
        remote: SessionId,
        /// What its wrapped key carried, if that is to be kept.
        metadata: Option<Vec<u8>>,
    },
}

impl Knock {
    fn with_metadata(self, carried: Option<Vec<u8>>) -> Self {
        match self {
            Self::Answered => Self::Answered,
            Self::Proven { wrap, local, remote, .. } => {
                Self::Proven { wrap, local, remote, metadata: carried }
            }
            Self::Unproven { wrap, remote, .. } => {
                Self::Unproven { wrap, remote, metadata: carried }
            }
        }
    }
}

/// Which clients may knock at all.
struct Rules {
    /// The wrapping of clients without a key of their own; `None` when all must have one.
    shared: Option<WrapKey>,
    v2: Option<V2ServerKey>,
    force_cookie: bool,
    /// A script wants to see the metadata of wrapped keys.
    keep_metadata: bool,
}

impl Rules {
    fn new(config: &Config, role: &ServerRole) -> Self {
        let wrap = &config.wrap;
        Self {
            shared: match (&wrap.tls_auth, &wrap.tls_crypt) {
                (Some((key, way)), _) => Some(WrapKey::tls_auth(key, *way, config.auth)),
                (None, Some(key)) => Some(WrapKey::tls_crypt(key, Role::Server)),
                // With tls-crypt-v2 alone, a packet without wrapping would be a way around it.
                (None, None) => wrap.v2_server.is_none().then(WrapKey::none),
            },
            v2: wrap.v2_server.clone(),
            force_cookie: role.force_cookie,
            keep_metadata: config.hooks.tls_crypt_v2_verify.is_some(),
        }
    }
}

/// The only place that talks to strangers. What it keeps does not grow with their number.
pub struct Gate {
    rules: Rules,
    cookies: Cookies,
    limit: RateLimit,
    work: RateLimit,
    /// Packets are opened in place, but a session wants them as they came.
    scratch: Vec<u8>,
    answer: Option<(Endpoint, heapless::Vec<u8, MAX_ANSWER>)>,
}

impl Gate {
    /// A gate with a fresh cookie key.
    pub fn new(config: &Config, role: &ServerRole, rng: &mut dyn Random) -> Self {
        let (answers, period) = role.initial_rate;
        let cookies = Cookies::new(config.timers.handshake, rng);
        Self::with(Rules::new(config, role), cookies, RateLimit::new(answers, period))
    }

    /// Goes by another configuration from now on; who has a cookie already is as welcome as before.
    pub fn change(&mut self, config: &Config, role: &ServerRole) {
        let (answers, period) = role.initial_rate;
        self.rules = Rules::new(config, role);
        self.limit = RateLimit::new(answers, period);
    }

    fn with(rules: Rules, cookies: Cookies, limit: RateLimit) -> Self {
        let work = RateLimit::new(STRANGERS_PER_SECOND / 10, Duration::from_millis(100));
        Self { rules, cookies, limit, work, scratch: Vec::with_capacity(MAX_KNOCK), answer: None }
    }

    /// Looks at a control packet that belongs to no session.
    pub fn knock(
        &mut self,
        now: Now,
        from: Endpoint,
        datagram: &[u8],
    ) -> Result<Knock, DropReason> {
        let (header, _) = Header::parse(datagram).map_err(|_| DropReason::Malformed)?;
        let packet = match header.opcode.has_wkc() {
            true => wkc::locate(datagram).map_err(|_| DropReason::Malformed)?,
            false => datagram.len(),
        };
        let (packet, trailer) = datagram.split_at_checked(packet).unwrap_or((datagram, &[]));
        if !self.affords(now, datagram.len()) {
            return Err(DropReason::RateLimited);
        }
        let (key, carried) = self.key_for(header.opcode, trailer)?;
        if header.key_id != KeyId::ZERO {
            return Err(DropReason::UnknownSession);
        }
        if packet.len() > MAX_KNOCK {
            return Err(DropReason::Malformed);
        }
        let mut scratch = core::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.extend_from_slice(packet);
        let knock = match key.open(&mut scratch) {
            Ok(opened) => self.judge(now, from, &key, &opened),
            Err(WrapError::Malformed) => Err(DropReason::Malformed),
            Err(WrapError::BadAuth | WrapError::Replay) => Err(DropReason::BadWrap),
        };
        self.scratch = scratch;
        knock.map(|knock| knock.with_metadata(carried))
    }

    /// Whether there is time for the cryptography of one more packet that nobody has vouched for.
    pub fn affords(&mut self, now: Now, len: usize) -> bool {
        self.work.spend(now.mono, stranger_cost(len))
    }

    /// The answer to the last knock, appended to `out`.
    pub fn poll_answer(&mut self, out: &mut PacketMut<'_>) -> Option<Endpoint> {
        let (to, bytes) = self.answer.take()?;
        out.extend(&bytes).ok()?;
        Some(to)
    }

    /// The key that opens packets of this kind [2], and what came with it.
    fn key_for(
        &self,
        opcode: Opcode,
        trailer: &[u8],
    ) -> Result<(WrapKey, Option<Vec<u8>>), DropReason> {
        match opcode {
            Opcode::HardResetClientV2 | Opcode::ControlV1 | Opcode::AckV1 => {
                Ok((self.rules.shared.clone().ok_or(DropReason::BadWrap)?, None))
            }
            Opcode::HardResetClientV3 | Opcode::WkcV1 => {
                let server = self.rules.v2.as_ref().ok_or(DropReason::BadWrap)?;
                let (key, metadata) =
                    server.unwrap_client_key(trailer).map_err(|_| DropReason::BadClientKey)?;
                let keep = self.rules.keep_metadata;
                Ok((WrapKey::tls_crypt(&key, Role::Server), keep.then(|| metadata.to_vec())))
            }
            Opcode::SoftResetV1 => Err(DropReason::UnknownSession),
            Opcode::HardResetServerV2 | Opcode::Unknown(_) => Err(DropReason::BadOpcode),
            Opcode::DataV1 | Opcode::DataV2 => Err(DropReason::UnknownPeer),
        }
    }

    fn judge(
        &mut self,
        now: Now,
        from: Endpoint,
        key: &WrapKey,
        opened: &Opened<'_>,
    ) -> Result<Knock, DropReason> {
        let Opened { header, wrap_id, body } = opened;
        match header.opcode {
            Opcode::HardResetClientV2 => self.reset(now, from, key, header.session, body, false),
            Opcode::HardResetClientV3 => {
                if wrap_id.is_some_and(|wrap| knows_early_negotiation(wrap.id)) {
                    return self.reset(now, from, key, header.session, body, true);
                }
                if self.rules.force_cookie || body.id != Some(MessageId(0)) {
                    return Err(DropReason::BadCookie);
                }
                if !self.limit.allow(now.mono) {
                    return Err(DropReason::RateLimited);
                }
                Ok(Knock::Unproven {
                    wrap: key.clone().into(),
                    remote: header.session,
                    metadata: None,
                })
            }
            Opcode::ControlV1 | Opcode::AckV1 | Opcode::WkcV1 => {
                self.third(now, from, key, header, body)
            }
            // `key_for` has refused these.
            Opcode::SoftResetV1 | Opcode::HardResetServerV2 | Opcode::Unknown(_) => {
                Err(DropReason::BadOpcode)
            }
            Opcode::DataV1 | Opcode::DataV2 => Err(DropReason::BadOpcode),
        }
    }

    /// A client's hard reset: answer with a cookie and forget it. One whose message id is not 0 is
    /// no first packet.
    fn reset(
        &mut self,
        now: Now,
        from: Endpoint,
        key: &WrapKey,
        remote: SessionId,
        body: &Body<'_>,
        resend_wkc: bool,
    ) -> Result<Knock, DropReason> {
        if body.id != Some(MessageId(0)) {
            return Err(DropReason::UnknownSession);
        }
        self.respond(now, from, key, remote, resend_wkc)
    }

    /// The packet that should carry the cookie back: the first acknowledgement of our reset.
    fn third(
        &mut self,
        now: Now,
        from: Endpoint,
        key: &WrapKey,
        header: &Header,
        body: &Body<'_>,
    ) -> Result<Knock, DropReason> {
        let remote = header.session;
        let early = |id: &MessageId| id.0 <= 1;
        if !body.acks.iter().all(early) || !body.id.iter().all(early) {
            return Err(DropReason::UnknownSession);
        }
        let Some(local) = body.remote else {
            // An orphan: it follows an acknowledgement that was lost and that a client ≤ 2.5 will
            // not repeat. Another reset makes it acknowledge again [3.3]. By now the time in the
            // wrapping is a later one, so that the client does not take it for a replay.
            return match (header.opcode, body.id) {
                (Opcode::ControlV1 | Opcode::WkcV1, Some(MessageId(1))) => {
                    self.respond(now, from, key, remote, header.opcode.has_wkc())
                }
                (_, _) => Err(DropReason::UnknownSession),
            };
        };
        if !self.cookies.check(now.mono, from.peer, remote, local) {
            return Err(DropReason::BadCookie);
        }
        self.limit.refund();
        let mut wrap = Wrap::from(key.clone());
        wrap.start_packet_id(2);
        Ok(Knock::Proven { wrap, local, remote, metadata: None })
    }

    fn respond(
        &mut self,
        now: Now,
        from: Endpoint,
        key: &WrapKey,
        remote: SessionId,
        resend_wkc: bool,
    ) -> Result<Knock, DropReason> {
        if !self.limit.allow(now.mono) {
            return Err(DropReason::RateLimited);
        }
        let header = Header {
            opcode: Opcode::HardResetServerV2,
            key_id: KeyId::ZERO,
            session: self.cookies.make(now.mono, from.peer, remote),
        };
        let acks = AckList::from_slice(&[MessageId(0)]).unwrap_or_default();
        let flags = ResetFlags { resend_wkc };
        let remote = Some(remote);
        let body = Body { acks, remote, id: Some(MessageId(0)), payload: flags.as_bytes() };
        let wrap_id = WrapId { id: 1, time: now.unix.0 as u32 };
        let mut memory = [0; MAX_ANSWER];
        let mut out = PacketMut::new(&mut memory, 0, 0).ok_or(DropReason::Malformed)?;
        // MAX_ANSWER holds the largest answer, so nothing is ever lost here.
        key.seal(wrap_id, header, &body, &[], &mut out).map_err(|_| DropReason::TooBig)?;
        let bytes = heapless::Vec::from_slice(out.as_slice()).map_err(|_| DropReason::TooBig)?;
        self.answer = Some((from, bytes));
        Ok(Knock::Answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::PacketBuf;
    use crate::session::wrap::EARLY_NEGOTIATION_ID;
    use crate::time::{Instant, UnixTime};
    use crate::wire::static_key::StaticKey;

    const CLIENT: SessionId = SessionId([0xc1; 8]);

    fn now(millis: u64) -> Now {
        Now { mono: Instant::from_millis(millis), unix: UnixTime(1_700_000_000 + millis / 1000) }
    }

    fn from() -> Endpoint {
        Endpoint::new("[2001:db8::7]:40000".parse().unwrap())
    }

    fn gate(shared: Option<WrapKey>, v2: Option<V2ServerKey>) -> Gate {
        let rules = Rules { shared, v2, force_cookie: false, keep_metadata: true };
        let cookies = Cookies::new(Duration::from_secs(60), &mut |out: &mut [u8]| out.fill(9));
        Gate::with(rules, cookies, RateLimit::new(5, Duration::from_secs(10)))
    }

    /// A client's packet: kind, wrap id, acknowledged reset of which session, message id.
    fn packet(
        key: &WrapKey,
        opcode: Opcode,
        id: u32,
        acks: Option<SessionId>,
        message: u32,
        wkc: &[u8],
    ) -> Vec<u8> {
        let mut memory = PacketBuf::new();
        let mut out = memory.packet();
        let header = Header { opcode, key_id: KeyId::ZERO, session: CLIENT };
        let list = AckList::from_slice(&[MessageId(0)]).unwrap();
        let acked = if acks.is_some() { list } else { AckList::new() };
        let own = (opcode != Opcode::AckV1).then_some(MessageId(message));
        let body = Body { acks: acked, remote: acks, id: own, payload: &[] };
        key.seal(WrapId { id, time: 1 }, header, &body, wkc, &mut out).unwrap();
        out.as_slice().to_vec()
    }

    /// The server's session id in its answer, and whether the wrapped key is wanted again.
    fn answer(gate: &mut Gate, key: &WrapKey) -> (SessionId, bool) {
        let mut memory = PacketBuf::new();
        let mut out = memory.packet();
        assert_eq!(gate.poll_answer(&mut out).map(|to| to.peer), Some(from().peer));
        let opened = key.open(out.as_mut_slice()).unwrap();
        assert_eq!(opened.header.opcode, Opcode::HardResetServerV2);
        assert_eq!((opened.body.remote, opened.body.id), (Some(CLIENT), Some(MessageId(0))));
        let flags = ResetFlags::parse(opened.body.payload).unwrap();
        (opened.header.session, flags.resend_wkc)
    }

    fn keys() -> (WrapKey, WrapKey) {
        let key = StaticKey::generate(&mut |out: &mut [u8]| out.fill(0x35));
        (WrapKey::tls_crypt(&key, Role::Server), WrapKey::tls_crypt(&key, Role::Client))
    }

    #[test]
    fn three_packets_make_a_session_and_the_first_two_leave_nothing() {
        let (server, client) = keys();
        for (ours, theirs) in [(WrapKey::none(), WrapKey::none()), (server, client)] {
            let mut gate = gate(Some(ours), None);
            let reset = packet(&theirs, Opcode::HardResetClientV2, 1, None, 0, &[]);
            assert!(matches!(gate.knock(now(0), from(), &reset), Ok(Knock::Answered)));
            let (cookie, resend) = answer(&mut gate, &theirs);
            assert!(!resend);
            for opcode in [Opcode::ControlV1, Opcode::AckV1] {
                let third = packet(&theirs, opcode, 2, Some(cookie), 1, &[]);
                let knock = gate.knock(now(900), from(), &third);
                let Ok(Knock::Proven { local, remote, .. }) = knock else { panic!("refused") };
                assert_eq!((local, remote), (cookie, CLIENT));
                let elsewhere = Endpoint::new("[2001:db8::8]:40000".parse().unwrap());
                let spoofed = gate.knock(now(900), elsewhere, &third);
                assert_eq!(spoofed.err(), Some(DropReason::BadCookie));
            }
        }
    }

    #[test]
    fn any_other_cookie_and_any_later_message_is_refused() {
        let key = WrapKey::none();
        let mut gate = gate(Some(key.clone()), None);
        let wrong = packet(&key, Opcode::ControlV1, 2, Some(SessionId([5; 8])), 1, &[]);
        let knock = gate.knock(now(0), from(), &wrong);
        assert_eq!(knock.err(), Some(DropReason::BadCookie), "CVE-2025-13086");
        let cookie = gate.cookies.make(now(0).mono, from().peer, CLIENT);
        let late = packet(&key, Opcode::ControlV1, 2, Some(cookie), 2, &[]);
        assert_eq!(gate.knock(now(0), from(), &late).err(), Some(DropReason::UnknownSession));
        let reset = packet(&key, Opcode::HardResetClientV2, 1, None, 1, &[]);
        assert_eq!(gate.knock(now(0), from(), &reset).err(), Some(DropReason::UnknownSession));
        assert!(gate.answer.is_none());
    }

    #[test]
    fn an_orphan_gets_the_reset_again() {
        let key = WrapKey::none();
        let mut gate = gate(Some(key.clone()), None);
        let orphan = packet(&key, Opcode::ControlV1, 3, None, 1, &[]);
        assert!(matches!(gate.knock(now(0), from(), &orphan), Ok(Knock::Answered)));
        answer(&mut gate, &key);
        let later = packet(&key, Opcode::ControlV1, 3, None, 2, &[]);
        assert_eq!(gate.knock(now(0), from(), &later).err(), Some(DropReason::UnknownSession));
    }

    #[test]
    fn answers_are_limited_and_proven_clients_give_theirs_back() {
        let key = WrapKey::none();
        let mut gate = gate(Some(key.clone()), None);
        let reset = packet(&key, Opcode::HardResetClientV2, 1, None, 0, &[]);
        for _ in 0..5 {
            assert!(gate.knock(now(0), from(), &reset).is_ok());
        }
        assert_eq!(gate.knock(now(0), from(), &reset).err(), Some(DropReason::RateLimited));
        let (cookie, _) = answer(&mut gate, &key);
        let third = packet(&key, Opcode::AckV1, 2, Some(cookie), 0, &[]);
        assert!(gate.knock(now(0), from(), &third).is_ok());
        assert!(gate.knock(now(0), from(), &reset).is_ok());
    }

    #[test]
    fn clients_with_a_key_of_their_own() {
        let server = V2ServerKey::generate(&mut |out: &mut [u8]| out.fill(0x77));
        let key = StaticKey::generate(&mut |out: &mut [u8]| out.fill(0x35));
        let client = WrapKey::tls_crypt(&key, Role::Client);
        let wkc = server.wrap_client_key(&key, &[]).unwrap();
        let mut gate = gate(None, Some(server));
        let reset = |id| packet(&client, Opcode::HardResetClientV3, id, None, 0, &wkc);
        let early = gate.knock(now(0), from(), &reset(EARLY_NEGOTIATION_ID));
        assert!(matches!(early, Ok(Knock::Answered)));
        let (cookie, resend) = answer(&mut gate, &client);
        assert!(resend);
        let third = packet(&client, Opcode::WkcV1, 2, Some(cookie), 1, &wkc);
        assert!(matches!(gate.knock(now(0), from(), &third), Ok(Knock::Proven { .. })));
        // A client that cannot send its key twice, where allowed.
        assert!(matches!(gate.knock(now(0), from(), &reset(1)), Ok(Knock::Unproven { .. })));
        gate.rules.force_cookie = true;
        assert_eq!(gate.knock(now(0), from(), &reset(1)).err(), Some(DropReason::BadCookie));
        // A key of somebody else, and no wrapping at all.
        let mut foreign = reset(1);
        if let Some(byte) = foreign.get_mut(60) {
            *byte ^= 1;
        }
        assert_eq!(gate.knock(now(0), from(), &foreign).err(), Some(DropReason::BadClientKey));
        let plain = packet(&WrapKey::none(), Opcode::HardResetClientV2, 1, None, 0, &[]);
        assert_eq!(gate.knock(now(0), from(), &plain).err(), Some(DropReason::BadWrap));
    }

    #[test]
    fn no_truncation_is_answered() {
        let (server, client) = keys();
        let mut gate = gate(Some(server), None);
        let reset = packet(&client, Opcode::HardResetClientV2, 1, None, 0, &[]);
        for len in 0..reset.len() {
            assert!(gate.knock(now(0), from(), &reset[..len]).is_err(), "{len}");
        }
        assert!(gate.answer.is_none());
    }
}
