//! What a connection makes of pushes: the first one sets the tunnel up, later ones change it
//! [7.2, 7.4, 8.2, 10.2].

use core::time::Duration;
use std::collections::VecDeque;
use std::net::IpAddr;

use log::{debug, info, warn};

use super::connection::{Connection, Phase};
use super::pushed::{self, Keepalive, Pushed};
use super::settings::{self, Settled};
use super::traffic::Idle;
use super::update;
use crate::config::option::TunnelOption;
use crate::config::{CipherName, ClientRole, Config};
use crate::engine::{Command, TunnelSettings};
use crate::session::DataParams;
use crate::session::data::Format;
use crate::session::keys::Derivation;
use crate::time::Now;
use crate::wire::ip::Version;
use crate::wire::key_method::occ_option;
use crate::wire::message::Options;
use crate::wire::mss::MssLimits;

impl Connection {
    /// One part of a push; with the last one the tunnel is set up.
    pub(super) fn push_reply(
        &mut self,
        now: Now,
        part: Options,
        config: &Config,
        role: &ClientRole,
        commands: &mut VecDeque<Command>,
    ) -> Result<(), String> {
        if !self.collector.add(part).map_err(|error| error.0)? {
            return Ok(());
        }
        let options = self.collector.take();
        let mut pushed = Pushed::parse(&options, role).map_err(|error| error.0)?;
        self.take_token(&mut pushed);
        for option in &pushed.unused {
            warn!("pushed option without effect here: {}", option.escape_debug());
        }
        let cipher = self.choose_cipher(&pushed, config)?;
        let flags = pushed.flags;
        let params = DataParams {
            cipher,
            digest: config.auth,
            framing: pushed.framing.unwrap_or(config.framing),
            derivation: if flags.exporter { Derivation::Exporter } else { Derivation::Prf },
            format: if flags.epoch && cipher.is_aead() { Format::Epoch } else { Format::Classic },
            peer: pushed.peer,
            dynamic_tls_crypt: flags.dynamic_tls_crypt,
        };
        let settled = self.settle(config, role, &pushed.options)?;
        self.session.install_keys(now, params).map_err(|error| error.to_string())?;
        self.set_keepalive(now, pushed.keepalive, config);
        self.cc_exit = flags.cc_exit;
        self.exit_notify = pushed.exit_notify.unwrap_or(self.exit_notify);
        let outer = if self.server.is_ipv6() { Version::V6 } else { Version::V4 };
        self.mss = self.mssfix.map(|mssfix| MssLimits::new(mssfix, params.overhead(), outer));
        info!("connected to {} with {}", self.server, cipher.as_str());
        self.pushed = pushed.options;
        for (name, value) in &pushed.variables {
            self.about.set(name, value);
        }
        commands.push_back(Command::Introduce(self.about.clone()));
        self.put_into_force(now, settled, commands);
        self.phase = Phase::Configuring;
        Ok(())
    }

    fn settle(
        &self,
        config: &Config,
        role: &ClientRole,
        pushed: &[TunnelOption],
    ) -> Result<Settled, String> {
        let mut settled = settings::settle(role, config.device.mtu, pushed, self.server.ip())
            .map_err(|error| error.0)?;
        let hooks = &config.hooks;
        let scripts = [&hooks.dns_updown, &hooks.up, &hooks.route_up];
        if !settled.tunnel.dns.servers.is_empty() && scripts.iter().all(|script| script.is_none()) {
            let note = "the server's DNS settings are not applied: that is for a script given by \
                        `dns-updown` or `up`, which finds them in `dns_*` and `foreign_option_*`";
            settled.notes.push(note.to_owned());
        }
        Ok(settled)
    }

    /// One part of a change; with the last one it is made.
    pub(super) fn push_update(
        &mut self,
        now: Now,
        part: Options,
        config: &Config,
        role: &ClientRole,
        commands: &mut VecDeque<Command>,
    ) -> Result<(), String> {
        if !self.collector.add(part).map_err(|error| error.0)? {
            return Ok(());
        }
        let options = self.collector.take();
        let updated = update::apply(&self.pushed, &options, role).map_err(|error| error.0)?;
        for option in &updated.unused {
            info!("left out of the server's update: {}", option.escape_debug());
        }
        let settled = self.settle(config, role, &updated.options)?;
        if let Some(keepalive) = updated.keepalive {
            self.set_keepalive(now, keepalive, config);
        }
        info!("the server has changed the tunnel's settings");
        self.pushed = updated.options;
        self.put_into_force(now, settled, commands);
        Ok(())
    }

    /// A reply on a connection that is up brings a new token at most [7.5, 10.2].
    pub(super) fn later_reply(&mut self, part: Options, role: &ClientRole) {
        match Pushed::parse(&part.options, role) {
            Ok(mut pushed) => self.take_token(&mut pushed),
            Err(error) => debug!("{error}"),
        }
    }

    fn take_token(&mut self, pushed: &mut Pushed) {
        if let Some(token) = pushed.token.take() {
            self.token = Some((pushed.token_user.take(), token));
        }
    }

    /// Silence: what was pushed, else the file's.
    fn set_keepalive(&mut self, now: Now, pushed: Keepalive, config: &Config) {
        let timers = &config.timers;
        let some = |time: Option<Duration>| time.filter(|time| !time.is_zero());
        self.exits_on_silence = match pushed.silence {
            Some(_) => pushed.exit,
            None => timers.ping_exit.is_some(),
        };
        let ping = some(pushed.ping.or(timers.ping));
        let silence = some(pushed.silence.or(timers.ping_restart));
        self.session.set_keepalive(now, ping, silence);
    }

    /// Takes what the options have come to, and has the system changed where it differs.
    fn put_into_force(&mut self, now: Now, settled: Settled, commands: &mut VecDeque<Command>) {
        settled.notes.iter().for_each(|note| warn!("{note}"));
        let Settled { tunnel, block_ipv6, inactive, session_timeout, persist_tun, notes: _ } =
            settled;
        self.block_ipv6 = block_ipv6;
        self.idle = inactive.map(|(period, least)| Idle::new(now.mono, period, least));
        self.session_end = match (session_timeout, self.session_end) {
            (Some(limit), None) => Some(now.mono + limit),
            (Some(_), known) => known,
            (None, _) => None,
        };
        self.persist_tun = persist_tun;
        if self.tunnel.as_ref() != Some(&tunnel) {
            info!("tunnel settings: {}", describe(&tunnel));
            self.tunnel = Some(tunnel.clone());
            commands.push_back(Command::Configure(Box::new(tunnel)));
        }
    }

    /// The pushed cipher, else the one in the server's options string, else, for a server that
    /// names none at all, the fallback [8.2].
    fn choose_cipher(&self, pushed: &Pushed, config: &Config) -> Result<CipherName, String> {
        let occ = occ_option(&self.server_options, "cipher");
        let fallback = || config.fallback_cipher.filter(|_| occ.is_none());
        let cipher = pushed.cipher.or_else(|| occ.and_then(CipherName::from_name));
        let cipher = cipher.or_else(fallback).ok_or_else(|| match occ {
            Some(name) => pushed::unsupported_cipher(name).0,
            None => {
                "the server names no data cipher: give the one it uses as data-ciphers-fallback, \
                 or set data-ciphers on the server to include AES-256-GCM"
                    .to_owned()
            }
        })?;
        if config.data_ciphers.contains(&cipher) || config.fallback_cipher == Some(cipher) {
            Ok(cipher)
        } else {
            Err(format!("the server wants {}, which data-ciphers does not allow", cipher.as_str()))
        }
    }
}

/// One line for the log.
fn describe(tunnel: &TunnelSettings) -> String {
    let v4 = tunnel.v4.map(|net| IpAddr::V4(net.addr()));
    let v6 = tunnel.v6.map(|net| IpAddr::V6(net.addr()));
    let addresses: Vec<String> = v4.iter().chain(&v6).map(IpAddr::to_string).collect();
    let mut text =
        if addresses.is_empty() { "no addresses".to_owned() } else { addresses.join(" and ") };
    text.push_str(&format!(", MTU {}, {} routes", tunnel.mtu, tunnel.routes.len()));
    let servers = tunnel.dns.servers.iter().flat_map(|server| &server.addresses);
    let dns: Vec<String> = servers.map(|(address, _)| address.to_string()).collect();
    for (what, list) in [("DNS", &dns), ("domains", &tunnel.dns.search)] {
        if !list.is_empty() {
            text.push_str(&format!(", {what} {}", list.join(" ").escape_debug()));
        }
    }
    text
}
