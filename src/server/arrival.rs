//! The last steps of an applicant's way in: its place, what scripts say to that, its arrival [9.4].
//!
//! It costs older connections of the same client their place here, after everything that proves
//! who it is, and before scripts are told of its addresses.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use crate::config::{Files, Topology, ccd};
use crate::engine::{
    ClientInfo, Command, DropReason, Environment, HookInput, HookKind, HookOutcome, HookRequest,
    PeerId,
};
use crate::limits::MAX_MTU;
use crate::server::auth::Refusal;
use crate::server::case::{Place, Step};
use crate::server::negotiate::Terms;
use crate::server::peer::{Applicant, Client, Stage};
use crate::server::steps::{ADDRESSES, Next};
use crate::server::{Server, environment, push};
use crate::session::DataParams;
use crate::session::data::Format;
use crate::session::describe;
use crate::session::keys::Derivation;
use crate::time::{Now, UnixTime};

/// What a client is told when the script's settings for it are not usable; the log has the rest.
const UNUSABLE: &str = "the server's settings for this client are not usable";

impl Server {
    fn applicant(&mut self, id: PeerId) -> Option<&mut Applicant> {
        match &mut self.peers.get_mut(id)?.peer.stage {
            Stage::Asking(applicant) => Some(applicant),
            Stage::Handshake | Stage::Connected(_) | Stage::Leaving { .. } => None,
        }
    }

    /// The step `Place`.
    pub(super) fn place(&mut self, now: Now, id: PeerId) -> Result<Next, Refusal> {
        let config = self.config.clone();
        let Some(applicant) = self.applicant(id) else { return Ok(Next::Done) };
        if applicant.settings.disabled {
            return Err(disabled());
        }
        let offer = applicant.offer.clone();
        let name = applicant.case.who.name().to_owned();
        let Some(terms) = Terms::negotiate(&offer, &config) else {
            return Err(Refusal::NoCipher(offer.advice(&config.data_ciphers)));
        };
        self.supersede(now, id, &name);
        let placed =
            self.peers.iter().filter(|(other, entry)| *other != id && entry.peer.has_place());
        if placed.count() >= self.role.max_clients {
            self.drops.count(DropReason::TooManyClients);
            return Err(Refusal::for_now(&offer, "the server has as many clients as it may"));
        }
        let Some(applicant) = self.applicant(id) else { return Ok(Next::Done) };
        let mut settings = core::mem::take(&mut applicant.settings);
        self.delegate(&name, offer.wants_prefix, &mut settings);
        let assigned = self.assign(now, id, &name, &settings);
        let Some(applicant) = self.applicant(id) else { return Ok(Next::Done) };
        applicant.settings = settings;
        let claimed = |_| Refusal::for_now(&offer, "its address belongs to another client, too");
        let (lease, fixed) = assigned.map_err(claimed)?;
        if lease.is_empty() {
            return Err(Refusal::for_now(&offer, "no free address"));
        }
        applicant.place = Some(Place { terms, lease, fixed, prefixes: Vec::new() });
        for (missing, family) in [
            (self.role.v4_pool.is_some() && lease.v4.is_none(), "IPv4"),
            (self.role.v6_pool.is_some() && lease.v6.is_none(), "IPv6"),
        ] {
            if missing {
                log::warn!("{}: no free {family} address", name.escape_debug());
            }
        }
        self.tell_place(now, id);
        Ok(Next::Go(Step::Connect))
    }

    /// Lets scripts see who it is, where it comes from and which addresses it has.
    fn tell_place(&mut self, now: Now, id: PeerId) {
        if !self.scripts {
            return;
        }
        let role = self.role.clone();
        let line = self.line.as_ref();
        let Some(entry) = self.peers.get_mut(id) else { return };
        let from = entry.endpoint().peer;
        let Stage::Asking(applicant) = &mut entry.peer.stage else { return };
        let Some(place) = &applicant.place else { return };
        let told = push::interface(&role, line, place.lease, place.fixed, &applicant.settings);
        let environment = &mut applicant.case.environment;
        environment.set("common_name", applicant.case.who.name());
        describe::address(environment, "trusted", from);
        environment::arrival(environment, now.unix);
        environment::addresses(environment, &told, role.topology == Topology::Subnet);
        for (name, value) in &applicant.settings.variables {
            environment.set(name, value);
        }
    }

    /// The step `Connect`.
    pub(super) fn run_connect(&mut self, now: Now, id: PeerId) -> Result<Next, Refusal> {
        if self.config.hooks.client_connect.is_none() {
            return self.settings_from_script(now, id, "").map(Next::Go);
        }
        Ok(self.run(id, HookKind::ClientConnect, Vec::new(), HookInput::Nothing))
    }

    /// What the script has written counts like the client's own file, and more; what the management
    /// program has said counts last [9.4].
    pub(super) fn settings_from_script(
        &mut self,
        now: Now,
        id: PeerId,
        text: &str,
    ) -> Result<Step, Refusal> {
        let given = self.case_mut(id).map(|case| core::mem::take(&mut case.given));
        let text = format!("{text}\n{}", given.unwrap_or_default());
        if text.trim().is_empty() {
            return Ok(Step::Learn(0));
        }
        let path = Path::new("client-connect");
        let (settings, warnings) = ccd::load(path, Path::new(""), &OneFile(&text), &self.role)
            .map_err(|error| {
                error.problems.iter().for_each(|problem| log::error!("{problem}"));
                Refusal::Denied(UNUSABLE.to_owned())
            })?;
        warnings.iter().for_each(|warning| log::warn!("{warning}"));
        if settings.disabled {
            return Err(disabled());
        }
        #[cfg(feature = "totp")]
        if settings.totp.is_some() {
            log::error!(
                "client-connect: `totp` comes too late here; put it into the client's file"
            );
            return Err(Refusal::Denied(UNUSABLE.to_owned()));
        }
        let moves = settings.v4.is_some() || settings.v6.is_some();
        let Some(applicant) = self.applicant(id) else { return Ok(Step::Learn(0)) };
        if settings.behind.iter().any(|net| net.addr().is_ipv6())
            && let Some(net) = applicant.settings.delegated.take()
        {
            applicant.settings.behind.retain(|behind| *behind != IpNet::V6(net));
        }
        applicant.settings.merge(settings.clone());
        applicant.scripted = Some(Box::new(settings));
        if moves {
            // The place it has is not the one it is to have.
            let place = applicant.place.take();
            place.into_iter().for_each(|place| self.pools.release(place.lease));
            self.place(now, id)?;
            return Ok(Step::Learn(0));
        }
        self.tell_place(now, id);
        Ok(Step::Learn(0))
    }

    /// Address or network number `number` of an applicant.
    fn prefix(&mut self, id: PeerId, number: usize) -> Option<IpNet> {
        let applicant = self.applicant(id)?;
        let addresses = applicant.place.as_ref()?.lease.addresses().map(IpNet::from);
        addresses.chain(applicant.settings.behind.iter().copied()).nth(number)
    }

    /// The step `Learn`.
    pub(super) fn learn(&mut self, id: PeerId, number: usize) -> Result<Next, Refusal> {
        let Some(net) = self.prefix(id, number) else { return Ok(Next::Go(Step::Enter)) };
        if self.config.hooks.learn_address.is_none() {
            self.learnt(id, number, &HookOutcome::Success { settings: String::new() });
            return Ok(Next::Go(Step::Learn(number + 1)));
        }
        let known = self.routes.owner(net).is_some();
        let Some(case) = self.case(id) else { return Ok(Next::Done) };
        let operation = if known { "update" } else { "add" };
        let arguments = vec![operation.to_owned(), describe(net), case.who.name().to_owned()];
        Ok(self.run(id, HookKind::LearnAddress, arguments, HookInput::Nothing))
    }

    /// The script's word on an address: one it refuses is not the client's.
    pub(super) fn learnt(&mut self, id: PeerId, number: usize, outcome: &HookOutcome) -> Step {
        if let Some(net) = self.prefix(id, number)
            && let Some(applicant) = self.applicant(id)
        {
            match outcome {
                HookOutcome::Success { .. } => {
                    applicant.place.iter_mut().for_each(|place| place.prefixes.push(net));
                }
                HookOutcome::Failure { .. } => {
                    let name = applicant.case.who.name().escape_debug();
                    log::warn!("{name}: `learn-address` refuses {net}: it is not learnt");
                }
            }
        }
        Step::Learn(number + 1)
    }

    /// Tells the script that an address is nobody's any more, or somebody else's again.
    pub(super) fn unlearn(&mut self, net: IpNet, heir: Option<PeerId>) {
        if self.config.hooks.learn_address.is_none() {
            return;
        }
        let mut request = HookRequest {
            ticket: None,
            kind: HookKind::LearnAddress,
            lane: ADDRESSES.to_owned(),
            arguments: vec!["delete".to_owned(), describe(net)],
            environment: crate::engine::Environment::new(),
            input: HookInput::Nothing,
        };
        let heir = heir.and_then(|heir| self.peers.get(heir)?.peer.client());
        if let Some(client) = heir {
            let name = client.who.name().to_owned();
            request.arguments = vec!["update".to_owned(), describe(net), name];
            request.environment = client.environment.clone();
        }
        self.commands.push_back(Command::RunHook(Box::new(request)));
    }

    /// Tells the script of an address that came or went with a prefix of the line. Its word on the
    /// client's own address has decided on this one, too.
    pub(super) fn learnt_by_line(
        &mut self,
        net: IpNet,
        name: &str,
        environment: Option<Environment>,
    ) {
        let Some(environment) = environment else { return self.unlearn(net, None) };
        if self.config.hooks.learn_address.is_none() {
            return;
        }
        self.commands.push_back(Command::RunHook(Box::new(HookRequest {
            ticket: None,
            kind: HookKind::LearnAddress,
            lane: ADDRESSES.to_owned(),
            arguments: vec!["add".to_owned(), describe(net), name.to_owned()],
            environment,
            input: HookInput::Nothing,
        })));
    }

    /// The step `Enter`: makes an applicant a client.
    pub(super) fn enter(&mut self, now: Now, id: PeerId) -> Result<Next, Refusal> {
        // Another connection of the same client may have come this far at the same time.
        if let Some(name) = self.case(id).map(|case| case.who.name().to_owned()) {
            self.supersede(now, id, &name);
        }
        self.install(now, id)?;
        let Some(entry) = self.peers.get_mut(id) else { return Ok(Next::Done) };
        let Stage::Asking(applicant) = &mut entry.peer.stage else { return Ok(Next::Done) };
        let Some(place) = applicant.place.take() else { return Ok(Next::Done) };
        let Place { terms, lease, fixed, prefixes } = place;
        let settings = core::mem::take(&mut applicant.settings);
        let scripted = applicant.scripted.take();
        let (who, offer) = (applicant.case.who.clone(), applicant.offer.clone());
        let environment = core::mem::take(&mut applicant.case.environment);
        let (token, number) = (applicant.case.token, applicant.case.number);
        let line = self.line.as_ref();
        let told = lease.v6.map(|v6| line.map_or(v6, |line| line.told(v6).0));
        let told_net = settings.delegated.map(|net| line.map_or(net, |line| line.told_net(net)));
        let mut options =
            push::options(&self.role, line, &self.push, (lease, fixed), &settings, id, &terms);
        if let Some(option) = self.token_option(now, token, &who.username) {
            options.push((*option).clone());
        }
        let mtu = terms.tun_mtu.unwrap_or(self.config.device.mtu).min(MAX_MTU as u16);
        let due = self.tokens.as_ref().filter(|_| token.is_some());
        let client = Client {
            number,
            push: push::messages(&options),
            who,
            offer,
            terms,
            lease,
            fixed,
            told,
            told_net,
            faces: Vec::new(),
            restart_due: None,
            prefixes,
            lifetime: self.lifetime(now, &settings),
            settings,
            scripted,
            review: None,
            pushed: None,
            asking: None,
            environment,
            token,
            token_due: due.map(|tokens| now.mono + tokens.renewal()),
            since: now.unix,
            mtu,
            mss: None,
            bytes_in: 0,
            bytes_out: 0,
        };
        let Some(entry) = self.peers.get_mut(id) else { return Ok(Next::Done) };
        let at_once = client.offer.request_push() || entry.peer.push_requested;
        entry.peer.stage = Stage::Connected(Box::new(client));
        self.face(id);
        let Some(entry) = self.peers.get(id) else { return Ok(Next::Done) };
        let Some(client) = entry.peer.client() else { return Ok(Next::Done) };
        let info = client.info(id, entry.endpoint(), now.mono, "");
        log_arrival(&info, now.unix);
        self.commands.push_back(Command::ClientUp(Box::new(info)));
        self.fit(id);
        if at_once {
            self.push(now, id);
        }
        Ok(Next::Done)
    }

    /// Data keys first, for the client may send as soon as it has its PUSH_REPLY; then addresses.
    fn install(&mut self, now: Now, id: PeerId) -> Result<(), Refusal> {
        let Some(applicant) = self.applicant(id) else { return Ok(()) };
        let Some(place) = &applicant.place else { return Ok(()) };
        let (terms, prefixes) = (place.terms, place.prefixes.clone());
        let settings = core::mem::take(&mut applicant.settings);
        let (ping, ping_restart) = self.keepalive(&settings);
        let digest = self.config.auth;
        let Some(applicant) = self.applicant(id) else { return Ok(()) };
        applicant.settings = settings;
        let Some(entry) = self.peers.get_mut(id) else { return Ok(()) };
        let params = DataParams {
            cipher: terms.cipher,
            digest,
            framing: terms.framing,
            derivation: if terms.exporter { Derivation::Exporter } else { Derivation::Prf },
            format: if terms.epoch { Format::Epoch } else { Format::Classic },
            peer: terms.data_v2.then_some(id.0),
            dynamic_tls_crypt: terms.dynamic_tls_crypt,
        };
        let installed = entry.peer.session.install_keys(now, params);
        installed.map_err(|error| Refusal::Denied(error.to_string()))?;
        entry.peer.session.set_keepalive(now, ping, ping_restart);
        self.route(id, &prefixes).map_err(|_| Refusal::NotNow("the route table is full"))
    }

    /// Ends older connections of a client that has just proven who it is: those of its name unless
    /// several may share it, and always its own old self at the same address and port [3.4, 9.4].
    fn supersede(&mut self, now: Now, id: PeerId, name: &str) {
        let here = self.peers.get(id).map(|entry| entry.endpoint().peer);
        let older = self.peers.iter().filter(|(other, entry)| {
            let same_place = Some(entry.endpoint().peer) == here;
            let same_name = entry.peer.has_place() && entry.peer.name() == Some(name);
            *other != id && same_name && (same_place || !self.role.duplicate_cn)
        });
        let older: Vec<PeerId> = older.map(|(other, _)| other).collect();
        for other in older {
            self.depart(now, other, "replaced by a newer connection of the same name");
            self.peers.remove(other);
        }
    }
}

fn disabled() -> Refusal {
    Refusal::Denied("this client is disabled".to_owned())
}

/// As scripts know addresses: a single one without its length.
fn describe(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

/// What a script has written, read like a file; there are no others.
struct OneFile<'a>(&'a str);

impl Files for OneFile<'_> {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        match path.to_str() {
            Some("client-connect") => Ok(self.0.as_bytes().to_vec()),
            Some(_) | None => Err("a script's settings cannot include files".to_owned()),
        }
    }

    /// No setting of a script depends on it.
    fn has_aes(&self) -> bool {
        true
    }
}

/// A client whose certificate ends within this time is warned of.
const EXPIRY_NOTICE: u64 = 30 * 24 * 3600;

fn log_arrival(info: &ClientInfo, now: UnixTime) {
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
    let left = info.expires.map(|until| until.0.saturating_sub(now.0));
    if let Some(left) = left.filter(|left| *left < EXPIRY_NOTICE) {
        let days = left / (24 * 3600);
        log::warn!(
            "{}: its certificate ends in {days} days; it needs a new profile before that",
            info.common_name.escape_debug()
        );
    }
}
