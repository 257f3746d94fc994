//! A configuration that is read again while clients are connected: what it changes, and for whom.
//!
//! ```text
//! reload ─> (for each client) Command::Admit, Occasion::Review ─> Reply::Admit ─> review
//! ```
//!
//! What a client's configuration amounts to is worked out by the old settings and by the new ones.
//! Whoever comes out the same keeps its tunnel and never notices; one that can be told new routes and
//! DNS servers is told them [7.4]; the others are told to connect again. What cannot change without
//! opening sockets and devices again is not asked of the engine: see
//! [`config::difference`](crate::config::difference).

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::hooks::{ClientCertificate, Hooks};
use crate::config::{self, CipherName, ClientSettings, Config, Digest, ServerRole};
use crate::engine::{AdmitRequest, Command, Occasion, PeerId};
use crate::limits::{MAX_HALF_OPEN, MAX_MTU};
use crate::rate::RateLimit;
use crate::server::auth::denied;
use crate::server::leave::restart;
use crate::server::negotiate::Terms;
use crate::server::peer::{Client, Stage};
use crate::server::pool::Lease;
use crate::server::token::Tokens;
use crate::server::{OURSELVES, Server, prefixes, push, remembered, steps};
use crate::session::occ::options_string;
use crate::session::{Login, SessionConfig};
use crate::time::Now;
use crate::wire::message::Message;

/// What a client has to have again, or it has to connect again.
struct Effective {
    /// What it is pushed.
    options: Vec<String>,
    terms: Terms,
    /// For a cipher without a tag of its own.
    digest: Option<Digest>,
    behind: Vec<IpNet>,
}

impl Effective {
    /// The messages that change it to `after`, none if it is the same; `None` when that takes a new
    /// connection.
    fn becomes(&self, after: &Self) -> Option<Vec<String>> {
        let Self { options, terms, digest, behind } = self;
        let rest = (terms, digest, behind) == (&after.terms, &after.digest, &after.behind);
        if !rest {
            return None;
        }
        if *options == after.options {
            return Some(Vec::new());
        }
        push::difference(options, &after.options)
    }
}

/// The open question about one client.
pub struct Review {
    ticket: u64,
    /// What it had; `None`: whatever it gets now, it has to connect again.
    before: Option<Effective>,
    /// The addresses that its file gave it.
    wanted: Lease,
    /// It has to prove anew who it is.
    prove: bool,
}

/// How many clients stay as they are, and how many do not.
#[derive(Default)]
pub struct Tally {
    stay: usize,
    go: usize,
    /// The questions that are open, by ascending ticket, with the clients they are about.
    open: VecDeque<(u64, PeerId)>,
}

impl Server {
    /// Puts another configuration in force, which differs from the one before only in what can
    /// change while sockets and device stay open. On error, which says what to change, everything
    /// is as it was.
    pub fn reload(&mut self, now: Now, config: Arc<Config>) -> Result<(), String> {
        let role = super::role(&config)?;
        self.session.tls.set_time(now.unix);
        self.session.tls.replace(&config.tls)?;
        let all = decides_otherwise(&self.config, &config);
        let prove = proves_otherwise(&self.config.tls, &config.tls);
        let mut reviews = Vec::new();
        for (id, client) in self.peers.iter().filter_map(|(id, e)| Some((id, e.peer.client()?))) {
            let fixed = client.fixed;
            let before = self.effective(id, client, fixed, &client.settings).filter(|_| !all);
            reviews.push((
                id,
                Review { ticket: 0, before, wanted: self.fixed(&client.settings), prove },
            ));
        }
        // Who is half in has been promised things that may not be so any more.
        let half: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, entry)| entry.peer.has_place() && entry.peer.client().is_none())
            .map(|(id, _)| id)
            .collect();
        for id in half {
            self.dismiss(now, id, &restart(false), "the configuration has changed");
        }
        self.put_in_force(now, config, role);
        self.tally = Tally::default();
        for (id, review) in reviews {
            self.ask_again(id, review);
        }
        let revoked = self.config.tls.revoked.clone();
        self.revoke(now, revoked);
        Ok(())
    }

    fn put_in_force(&mut self, now: Now, config: Arc<Config>, role: ServerRole) {
        self.gate.change(&config, &role);
        self.push = push::inherited(&config, &role);
        self.scripts = steps::any(&config.hooks) || role.login.by_management;
        self.newcomers = role.connect_rate.map(|(count, period)| RateLimit::new(count, period));
        self.session = Arc::new(SessionConfig {
            tls: Arc::clone(&self.session.tls),
            timers: config.timers,
            options: options_string(&config, self.session.role),
            peer_info: String::new(),
            credentials: Login::default(),
            ..*self.session
        });
        match (&role.login.token, &mut self.tokens) {
            (Some(policy), Some(tokens)) => tokens.change(policy),
            // Those of one-time codes, which no line of the configuration asks for.
            #[cfg(feature = "totp")]
            (None, Some(_)) if self.role.login.token.is_none() => {}
            (policy, tokens) => {
                *tokens = policy.as_ref().map(|policy| Tokens::new(policy, now, &mut *self.rng));
            }
        }
        self.peers.grow(role.max_clients.saturating_add(MAX_HALF_OPEN));
        self.routes.grow(prefixes(role.max_clients));
        let own = |role: &ServerRole| {
            [role.v4.map(|own| own.addr().into()), role.v6.map(|own| own.addr().into())]
        };
        let pools = |role: &ServerRole| (role.v4_pool, role.v6_pool, role.max_clients, own(role));
        if pools(&self.role) != pools(&role) {
            self.pools.reshape(role.v4_pool, role.v6_pool, remembered(role.max_clients));
            let own: [Option<IpAddr>; 2] = own(&role);
            own.into_iter().flatten().for_each(|own| self.pools.seize(own, OURSELVES));
        }
        if let Some(delegations) = &mut self.delegations {
            delegations.forget_files();
        }
        (self.role, self.config) = (role, config);
    }

    /// Whether a client may still be in, and what is different for it, is asked outside.
    fn ask_again(&mut self, id: PeerId, review: Review) {
        let Some(entry) = self.peers.get_mut(id) else { return };
        let from = entry.endpoint();
        let Stage::Connected(client) = &mut entry.peer.stage else { return };
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        client.review = Some(Box::new(Review { ticket, ..review }));
        self.tally.open.push_back((ticket, id));
        self.commands.push_back(Command::Admit(Box::new(AdmitRequest {
            ticket,
            peer: id,
            common_name: client.who.name().to_owned(),
            serial: client.who.identity.serial.clone(),
            from,
            occasion: Occasion::Review,
        })));
    }

    /// The client whose review this ticket belongs to. Each ticket is good for one answer.
    pub(super) fn reviewed_by(&mut self, ticket: u64) -> Option<PeerId> {
        let open = &mut self.tally.open;
        let at = open.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()?;
        open.remove(at).map(|(_, id)| id)
    }

    /// The outside world has answered.
    pub(super) fn review(
        &mut self,
        now: Now,
        id: PeerId,
        ticket: u64,
        verdict: Result<Box<ClientSettings>, String>,
    ) {
        let client = self.peers.get(id).and_then(|entry| entry.peer.client());
        // It may have left meanwhile, and another one come.
        let review = client.and_then(|client| client.review.as_ref());
        if review.is_some_and(|review| review.ticket == ticket) {
            match self.stays(now, id, verdict) {
                Ok(()) => self.tally.stay += 1,
                Err((word, reason)) => {
                    self.tally.go += 1;
                    self.dismiss(now, id, &word, &reason);
                }
            }
            self.settle(now, id);
        }
        if self.tally.open.is_empty() {
            let Tally { stay, go, .. } = core::mem::take(&mut self.tally);
            log::info!("clients that keep their tunnel: {stay}; that have to connect again: {go}");
        }
    }

    /// Lets a client stay if nothing changes for it, or says what it is told and why.
    fn stays(
        &mut self,
        now: Now,
        id: PeerId,
        verdict: Result<Box<ClientSettings>, String>,
    ) -> Result<(), (Message, String)> {
        let again = |reason: &str| (restart(false), reason.to_owned());
        let Some(entry) = self.peers.get_mut(id) else { return Ok(()) };
        let Stage::Connected(client) = &mut entry.peer.stage else { return Ok(()) };
        let Some(review) = client.review.take() else { return Ok(()) };
        let mut settings = verdict.map_err(|reason| (denied(reason.clone()), reason))?;
        if let Some(scripted) = &client.scripted {
            settings.merge((**scripted).clone());
        }
        if settings.disabled {
            let reason = "this client is disabled".to_owned();
            return Err((denied(reason.clone()), reason));
        }
        let (wants, name) = (client.offer.wants_prefix, client.who.name().to_owned());
        self.delegate(&name, wants, &mut settings);
        let Some(client) = self.peers.get(id).and_then(|entry| entry.peer.client()) else {
            return Ok(());
        };
        let fixed = self
            .still_fixed(client, review.wanted, &settings)
            .ok_or_else(|| again("its addresses have changed"))?;
        let after = self.effective(id, client, fixed, &settings);
        let can = client.offer.push_update();
        let update = after.zip(review.before).and_then(|(after, before)| {
            let update = before.becomes(&after)?;
            (update.is_empty() || can).then_some((update, after.options))
        });
        let (update, options) = update.ok_or_else(|| again("its settings have changed"))?;
        self.carry_on(now, id, fixed, settings);
        if !update.is_empty() {
            self.set_reply(now, id, options);
            self.update(id, &update).map_err(|()| again("its settings have changed"))?;
        }
        if review.prove
            && let Some(entry) = self.peers.get_mut(id)
        {
            // One that is just proving itself does so by the old rules.
            let begun = entry.peer.session.renegotiate(now, &mut *self.rng);
            begun.map_err(|_| again("it has to prove who it is by other rules"))?;
        }
        Ok(())
    }

    /// Tells a client what is pushed to it from now on.
    fn update(&mut self, id: PeerId, update: &[String]) -> Result<(), ()> {
        let Some(entry) = self.peers.get_mut(id) else { return Ok(()) };
        let Stage::Connected(client) = &mut entry.peer.stage else { return Ok(()) };
        // One that has not heard its first reply will hear this in it.
        let parts = update.iter().filter(|_| client.pushed.is_some());
        let session = &mut entry.peer.session;
        for part in parts {
            session.send_message(part).map_err(|_| ())?;
        }
        self.touch(id);
        Ok(())
    }

    /// What does not concern the client itself changes under it.
    fn carry_on(&mut self, now: Now, id: PeerId, fixed: Lease, settings: Box<ClientSettings>) {
        let (ping, ping_restart) = self.keepalive(&settings);
        let lifetime = self.lifetime(now, &settings);
        let mtu = self.config.device.mtu;
        let session = Arc::clone(&self.session);
        let Some(entry) = self.peers.get_mut(id) else { return };
        entry.peer.session.reconfigure(now, session, ping, ping_restart);
        let Stage::Connected(client) = &mut entry.peer.stage else { return };
        client.lifetime.change(lifetime);
        client.mtu = client.terms.tun_mtu.unwrap_or(mtu).min(MAX_MTU as u16);
        client.fixed = fixed;
        if self.scripts {
            settings.variables.iter().for_each(|(name, value)| client.environment.set(name, value));
        }
        client.settings = settings;
        self.fit(id);
    }

    /// Those of a client's addresses that its file gives it; `None` when it cannot keep them all.
    fn still_fixed(
        &self,
        client: &Client,
        before: Lease,
        settings: &ClientSettings,
    ) -> Option<Lease> {
        let wanted = self.fixed(settings);
        let ours =
            [self.role.v4.map(|own| own.addr().into()), self.role.v6.map(|own| own.addr().into())];
        let taken = client.lease.addresses().any(|held| {
            ours.into_iter().flatten().any(|own: IpAddr| self.pools.is_same_place(own, held))
        });
        let family = |has: Option<IpAddr>, was: Option<IpAddr>, [old, new]: [Option<IpAddr>; 2]| {
            let from_pool = has.is_none_or(|held| self.pools.contains(held));
            match (old == new, was) {
                (true, Some(_)) => Some(was),
                (true, None) => from_pool.then_some(None),
                // It happens to have the address that is its own from now on.
                (false, _) => (new.is_some() && new == has).then_some(new),
            }
        };
        let (has, was) = (client.lease, client.fixed);
        let v4 = family(
            has.v4.map(IpAddr::V4),
            was.v4.map(IpAddr::V4),
            [before.v4, wanted.v4].map(|address| address.map(IpAddr::V4)),
        )?;
        let v6 = family(
            has.v6.map(IpAddr::V6),
            was.v6.map(IpAddr::V6),
            [before.v6, wanted.v6].map(|address| address.map(IpAddr::V6)),
        )?;
        let fixed =
            Lease { v4: has.v4.filter(|_| v4.is_some()), v6: has.v6.filter(|_| v6.is_some()) };
        (!taken).then_some(fixed)
    }

    /// What a client's configuration amounts to; `None` when there is no cipher for it.
    fn effective(
        &self,
        id: PeerId,
        client: &Client,
        fixed: Lease,
        settings: &ClientSettings,
    ) -> Option<Effective> {
        let terms = Terms::negotiate(&client.offer, &self.config)?;
        let place = (client.lease, fixed);
        let line = self.line.as_ref();
        let options = push::options(&self.role, line, &self.push, place, settings, id, &terms);
        let digest = uses_digest(terms.cipher).then_some(self.config.auth);
        Some(Effective { options, terms, digest, behind: settings.behind.clone() })
    }
}

const fn uses_digest(cipher: CipherName) -> bool {
    match cipher {
        CipherName::ChaCha20Poly1305 | CipherName::Aes256Gcm | CipherName::Aes128Gcm => false,
        #[cfg(feature = "cbc")]
        CipherName::Cbc(_) => true,
    }
}

/// Whether clients go by other names, or others decide on them: each has to be decided on
/// again then.
fn decides_otherwise(old: &Config, new: &Config) -> bool {
    let by = |config: &Config| match &config.role {
        config::Role::Server(role) => {
            let nameless = config.tls.client_certificate == ClientCertificate::None;
            (role.login.name_is_username || nameless, role.login.by_management)
        }
        config::Role::Client(_) => (false, false),
    };
    let scripts = |hooks: &Hooks| {
        [
            &hooks.tls_verify,
            &hooks.tls_crypt_v2_verify,
            &hooks.auth_user_pass_verify,
            &hooks.client_connect,
            &hooks.learn_address,
        ]
        .map(Clone::clone)
    };
    by(old) != by(new)
        || scripts(&old.hooks) != scripts(&new.hooks)
        || steps::any(&old.hooks) != steps::any(&new.hooks)
}

/// Whether a certificate that was good may not be so any more.
fn proves_otherwise(old: &config::Tls, new: &config::Tls) -> bool {
    let rules = |tls: &config::Tls| {
        (tls.only_tls12, tls.only_tls13, tls.require_usage, tls.client_certificate)
    };
    old.ca != new.ca
        || old.fingerprints != new.fingerprints
        || old.verify_name != new.verify_name
        || rules(old) != rules(new)
}
