//! Letting clients in: what is asked, and what follows from the answer [9.4].
//!
//! The session has verified the certificate; here it is held against what is revoked and against
//! what the client said before. Everything that costs an older client its place happens after the
//! outside world has said yes, never before.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::ClientSettings;
use crate::engine::{AdmitRequest, Command, DropReason, PeerId};
use crate::limits::{MAX_MTU, MAX_NAME};
use crate::server::Server;
use crate::server::negotiate::{NO_SHARED_CIPHER, Offer, Terms};
use crate::server::peer::{Applicant, Client, Stage, Who};
use crate::server::push;
use crate::session::data::Format;
use crate::session::keys::Derivation;
use crate::session::{Authentication, DataParams};
use crate::time::Now;
use crate::wire::message::{AuthFailure, Ending, Message};

/// Why a client is refused.
enum Refusal {
    /// It has no data cipher that we have; what to do about it, for our log.
    NoCipher(String),
    /// For good, as far as we can tell.
    Denied(String),
    /// There may be room later.
    NotNow(&'static str),
    /// The same for clients that do not know "not now" and would give up for good: they are told
    /// to start again.
    StartAgain(&'static str),
}

impl Refusal {
    const fn for_now(offer: &Offer, reason: &'static str) -> Self {
        if offer.auth_fail_temp() { Self::NotNow(reason) } else { Self::StartAgain(reason) }
    }
}

impl Server {
    /// A peer has proven who it is, at first or again.
    pub(super) fn authenticate(&mut self, now: Now, id: PeerId, proof: Authentication) {
        let Authentication { key_id, renegotiation, identity, username, .. } = proof;
        let who = Who { identity, username };
        let Some(entry) = self.peers.get_mut(id) else { return };
        let verdict = match &entry.peer.stage {
            Stage::Handshake if !renegotiation => acceptable(&self.revoked, &who),
            // One who changes identity at a renegotiation is not who was let in [4.3].
            Stage::Connected(client) if client.who != who => {
                Err("it renegotiated with another identity".to_owned())
            }
            Stage::Connected(_) => acceptable(&self.revoked, &who),
            Stage::Handshake | Stage::Asking(_) | Stage::Leaving { .. } => return,
        };
        if let Err(reason) = verdict {
            self.deny(now, id, who.name(), Refusal::Denied(reason));
            return;
        }
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        self.commands.push_back(Command::Admit(Box::new(AdmitRequest {
            ticket,
            peer: id,
            common_name: who.name().to_owned(),
            serial: who.identity.serial.clone(),
            from: entry.endpoint(),
            renegotiation,
        })));
        match &mut entry.peer.stage {
            Stage::Connected(client) => client.asking = Some((ticket, key_id)),
            stage @ (Stage::Handshake | Stage::Asking(_) | Stage::Leaving { .. }) => {
                let offer = Offer::read(&proof.peer_info, &proof.options);
                *stage = Stage::Asking(Box::new(Applicant { ticket, who, offer }));
            }
        }
    }

    /// The outside world has decided.
    pub(super) fn decided(
        &mut self,
        now: Now,
        ticket: u64,
        verdict: Result<Box<ClientSettings>, String>,
    ) {
        let open = self.peers.iter().find(|(_, entry)| entry.peer.awaits(ticket));
        // Without one the peer has gone meanwhile.
        let Some(id) = open.map(|(id, _)| id) else { return };
        let Some(entry) = self.peers.get_mut(id) else { return };
        let name = entry.peer.name().unwrap_or_default().to_owned();
        let outcome = match &mut entry.peer.stage {
            Stage::Asking(applicant) => {
                let (who, offer) = (applicant.who.clone(), applicant.offer.clone());
                match verdict {
                    Ok(settings) => self.admit(now, id, who, offer, &settings),
                    Err(reason) => Err(Refusal::Denied(reason)),
                }
            }
            Stage::Connected(client) => match (verdict, client.asking.take()) {
                (Ok(_), Some((_, key))) => {
                    entry.peer.session.approve_key(now, key);
                    Ok(())
                }
                (Ok(_), None) => Ok(()),
                (Err(reason), _) => Err(Refusal::Denied(reason)),
            },
            Stage::Handshake | Stage::Leaving { .. } => Ok(()),
        };
        if let Err(refusal) = outcome {
            self.deny(now, id, &name, refusal);
        }
        self.settle(now, id);
    }

    /// Makes an applicant a client.
    fn admit(
        &mut self,
        now: Now,
        id: PeerId,
        who: Who,
        offer: Offer,
        settings: &ClientSettings,
    ) -> Result<(), Refusal> {
        if settings.disabled {
            return Err(Refusal::Denied("this client is disabled".to_owned()));
        }
        let Some(terms) = Terms::negotiate(&offer, &self.config) else {
            return Err(Refusal::NoCipher(offer.advice(&self.config.data_ciphers)));
        };
        self.supersede(id, who.name());
        let connected = self.peers.iter().filter(|(_, entry)| entry.peer.client().is_some());
        if connected.count() >= self.role.max_clients {
            self.drops.count(DropReason::TooManyClients);
            return Err(Refusal::for_now(&offer, "the server has as many clients as it may"));
        }
        let claimed = |_| Refusal::for_now(&offer, "its address belongs to another client, too");
        let (lease, fixed) = self.assign(now, id, who.name(), settings).map_err(claimed)?;
        if lease.is_empty() {
            return Err(Refusal::for_now(&offer, "no free address"));
        }
        for (missing, family) in [
            (self.role.v4_pool.is_some() && lease.v4.is_none(), "IPv4"),
            (self.role.v6_pool.is_some() && lease.v6.is_none(), "IPv6"),
        ] {
            if missing {
                log::warn!("{}: no free {family} address", who.name().escape_debug());
            }
        }
        let mut prefixes: Vec<IpNet> = lease.addresses().map(IpNet::from).collect();
        prefixes.extend(&settings.behind);
        let outcome = self.connect(id, &prefixes, settings, &terms, now);
        if outcome.is_err() {
            self.unroute(id, &prefixes);
            self.pools.release(lease);
            return outcome;
        }
        let options = push::options(&self.role, &self.push, (lease, fixed), settings, id, &terms);
        let mtu = terms.tun_mtu.unwrap_or(self.config.device.mtu).min(MAX_MTU as u16);
        let at_once = offer.request_push();
        let client = Client {
            number: self.admitted,
            push: push::messages(&options),
            who,
            offer,
            terms,
            lease,
            fixed,
            prefixes,
            pushed: None,
            asking: None,
            lifetime: self.lifetime(now, settings),
            since: now.unix,
            mtu,
            mss: None,
            bytes_in: 0,
            bytes_out: 0,
        };
        let Some(entry) = self.peers.get_mut(id) else { return Ok(()) };
        self.admitted += 1;
        let info = client.info(id, entry.endpoint(), "");
        let at_once = at_once || entry.peer.push_requested;
        entry.peer.stage = Stage::Connected(Box::new(client));
        log_arrival(&info);
        self.commands.push_back(Command::ClientUp(Box::new(info)));
        self.fit(id);
        if at_once {
            self.push(now, id);
        }
        Ok(())
    }

    /// Data keys first, for the client may send as soon as it has its PUSH_REPLY; then addresses.
    fn connect(
        &mut self,
        id: PeerId,
        prefixes: &[IpNet],
        settings: &ClientSettings,
        terms: &Terms,
        now: Now,
    ) -> Result<(), Refusal> {
        let failed = |what: String| Refusal::Denied(what);
        let (ping, ping_restart) = self.keepalive(settings);
        let Some(entry) = self.peers.get_mut(id) else { return Ok(()) };
        let params = DataParams {
            cipher: terms.cipher,
            digest: self.config.auth,
            framing: terms.framing,
            derivation: if terms.exporter { Derivation::Exporter } else { Derivation::Prf },
            format: if terms.epoch { Format::Epoch } else { Format::Classic },
            peer: terms.data_v2.then_some(id.0),
            dynamic_tls_crypt: terms.dynamic_tls_crypt,
        };
        entry.peer.session.install_keys(now, params).map_err(|error| failed(error.to_string()))?;
        entry.peer.session.set_keepalive(now, ping, ping_restart);
        self.route(id, prefixes).map_err(|_| Refusal::NotNow("the route table is full"))
    }

    /// Ends older connections of the client that has just been let in: those of its name unless
    /// several may share it, and always its own old self at the same address and port [3.4, 9.4].
    fn supersede(&mut self, id: PeerId, name: &str) {
        let here = self.peers.get(id).map(|entry| entry.endpoint().peer);
        let older = self.peers.iter().filter(|(other, entry)| {
            let same_place = Some(entry.endpoint().peer) == here;
            let same_name = entry.peer.client().is_some_and(|client| client.who.name() == name);
            *other != id && same_name && (same_place || !self.role.duplicate_cn)
        });
        let older: Vec<PeerId> = older.map(|(other, _)| other).collect();
        for other in older {
            self.depart(other, "replaced by a newer connection of the same name");
            self.peers.remove(other);
        }
    }

    /// Turns a peer away and tells it why.
    fn deny(&mut self, now: Now, id: PeerId, name: &str, refusal: Refusal) {
        let Some(entry) = self.peers.get(id) else { return };
        let (reason, message) = match refusal {
            Refusal::NoCipher(advice) => {
                (format!("{NO_SHARED_CIPHER}: {advice}"), denied(NO_SHARED_CIPHER.to_owned()))
            }
            Refusal::Denied(reason) => (reason.clone(), denied(reason)),
            Refusal::NotNow(reason) => {
                let text = reason.to_owned();
                let later = AuthFailure::Temporary { backoff: None, advance: None, text };
                (reason.to_owned(), Message::AuthFailed(later))
            }
            Refusal::StartAgain(reason) => (reason.to_owned(), Message::Restart(Ending::default())),
        };
        let from = entry.endpoint().peer;
        log::log!(self.complaint(now), "{} ({from}): refused: {reason}", name.escape_debug());
        self.dismiss(now, id, &message, &reason);
    }
}

/// AUTH_FAILED. The reason reaches the user, so nothing of ours may break the message.
pub(super) fn denied(reason: String) -> Message {
    Message::AuthFailed(AuthFailure::Denied(reason.replace(char::is_control, " ")))
}

/// Whether one may ask for this peer at all.
fn acceptable(revoked: &[Vec<u8>], who: &Who) -> Result<(), String> {
    if who.name().is_empty() {
        return Err("its certificate has no common name".to_owned());
    }
    if who.name().len() > MAX_NAME {
        return Err(format!("its common name is longer than {MAX_NAME} bytes"));
    }
    if revoked.contains(&who.identity.serial) {
        return Err("its certificate is revoked".to_owned());
    }
    Ok(())
}

fn log_arrival(info: &crate::engine::ClientInfo) {
    let text = |address: Option<IpAddr>| address.map_or("-".to_owned(), |a| a.to_string());
    log::info!(
        "{} ({}): connected as peer {}, {} and {}, {}, version {} on {}",
        info.common_name.escape_debug(),
        info.from.peer,
        info.peer,
        text(info.v4.map(IpAddr::V4)),
        text(info.v6.map(IpAddr::V6)),
        info.cipher,
        if info.version.is_empty() { "?" } else { &info.version },
        if info.platform.is_empty() { "?" } else { &info.platform },
    );
}
