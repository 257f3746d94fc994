//! What the outside is told while the loop runs: the management program, the status file, the file
//! with the leases. The texts are [`manage`](crate::manage)'s and the engine's; when they change
//! hands is decided here.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::time::Duration;

use super::clock::{Clock, unix_time};
use super::keeper::{Access, Request};
use super::management::ManagementSocket;
use super::output_file::OutputFile;
use super::poll::PollSet;
use super::signal::Signal;
use super::store::read_optional;
use super::{logger, process};
use crate::config::{Config, PoolPersist, Process, Role};
use crate::engine::{ClientInfo, TunnelSettings};
use crate::manage::console::Console;
use crate::manage::status::{self, Format};
use crate::manage::{Action, Addresses, Traffic, TunnelState, View};
use crate::time::{Instant, Now};

/// Everybody who is told.
#[derive(Debug, Default)]
pub struct Reports {
    /// The management interface.
    pub management: Option<ManagementSocket>,
    status: Option<StatusFile>,
    leases: Option<Leases>,
    delegations: Option<Leases>,
    access: Access,
    server: bool,
    /// Our own addresses in the tunnel, once known.
    own: Addresses,
    /// The server's port, for the state.
    port: u16,
    /// (Client) it was connected before.
    was_up: bool,
}

#[derive(Debug)]
struct StatusFile {
    file: OutputFile,
    every: Duration,
    due: Instant,
    format: Format,
}

#[derive(Debug)]
struct Leases {
    /// What the file holds.
    text: Vec<u8>,
    /// Absent when it is only read.
    file: Option<OutputFile>,
}

impl Reports {
    /// Opens what the configuration names, which may need privileges.
    pub fn open(config: &Config, access: &Access) -> Result<Self, String> {
        let process = &config.process;
        let (server, persist) = match &config.role {
            Role::Server(role) => (true, role.pool_persist.as_ref()),
            Role::Client(_) => (false, None),
        };
        let delegations = match &config.role {
            Role::Server(role) => role.delegate.as_ref().and_then(|delegate| {
                Some(PoolPersist { file: delegate.file.clone()?, every: Some(Duration::ZERO) })
            }),
            Role::Client(_) => None,
        };
        let management =
            process.management.as_ref().map(|config| ManagementSocket::bind(config, server));
        let mut reports = Self {
            management: management.transpose()?,
            status: StatusFile::open(process, &Access::default())?,
            leases: persist.map(|p| Leases::open("ifconfig-pool-persist", p)).transpose()?,
            delegations: delegations.map(|p| Leases::open("delegate-ipv6", &p)).transpose()?,
            access: access.clone(),
            server,
            ..Self::default()
        };
        reports.state(TunnelState::Connecting, "", None);
        Ok(reports)
    }

    /// The way to what only root may do.
    pub const fn access(&self) -> &Access {
        &self.access
    }

    /// What the file with the leases holds.
    pub fn leases(&self) -> Option<&[u8]> {
        self.leases.as_ref().map(|leases| leases.text.as_slice())
    }

    /// What the file with the delegated prefixes holds.
    pub fn delegations(&self) -> Option<&[u8]> {
        self.delegations.as_ref().map(|leases| leases.text.as_slice())
    }

    /// Waits until the management program lets us start; false when we are to end instead.
    pub fn hold(&mut self) -> Result<bool, String> {
        let Some(management) = self.management.as_mut().filter(|m| m.console.is_holding()) else {
            return Ok(true);
        };
        log::info!("waiting for the management program to release the hold");
        let signals = self.access.signals().map_err(|error| format!("signals: {error}"))?;
        let mut descriptors = PollSet::<2>::new();
        let clock = Clock::new();
        while management.console.is_holding() {
            let (fd, read, write) = management.interest();
            descriptors.clear();
            descriptors.add(fd, read, write);
            descriptors.add(signals.as_raw_fd(), true, false);
            let now = clock.now().mono;
            descriptors.wait(management.deadline().map(|due| due.since(now)));
            while let Some(signal) = signals.next() {
                if let Signal::Shutdown | Signal::Orphaned = signal {
                    return Ok(false);
                }
            }
            let now = clock.now();
            management.receive(now.mono);
            let view = view(now, Vec::new(), Traffic::default());
            management.console.handle_timeout(now.mono, &view);
            while let Some(action) = management.next(now.mono, &view) {
                match action {
                    Action::Signal(crate::manage::Signal::Term | crate::manage::Signal::Int) => {
                        management.send();
                        return Ok(false);
                    }
                    Action::Verb(verb) => logger::set_verb(verb),
                    // There is nothing yet to kick or to restart.
                    Action::Signal(_)
                    | Action::Kick(_)
                    | Action::Halt(_)
                    | Action::Decide { .. }
                    | Action::Login { .. }
                    | Action::Pend { .. } => {}
                }
            }
            management.send();
        }
        Ok(true)
    }

    /// The loop starts; a server is up from here on.
    pub fn started(&mut self, settings: Option<&TunnelSettings>) {
        if let Some(settings) = settings {
            self.own = addresses(settings);
            self.state(TunnelState::Connected, "SUCCESS", None);
        }
    }

    /// A name is looked up: the beginning of each attempt to connect.
    pub fn resolving(&mut self, port: u16) {
        self.port = port;
        self.state(TunnelState::Resolve, "", None);
    }

    /// Addresses are known: packets go out.
    pub fn resolved(&mut self) {
        self.state(TunnelState::Wait, "", None);
    }

    /// Addresses are being set, or have been.
    pub fn configured(&mut self, settings: &TunnelSettings, done: bool) {
        self.own = addresses(settings);
        self.was_up |= done;
        match done {
            false => self.state(TunnelState::AssignIp, "", None),
            true => self.state(TunnelState::Connected, "SUCCESS", settings.server),
        }
    }

    /// The connection to the server is gone.
    pub fn deconfigured(&mut self) {
        self.own = Addresses::default();
        if core::mem::take(&mut self.was_up) {
            self.state(TunnelState::Reconnecting, "", None);
        }
    }

    /// Everything is about to be opened anew.
    pub fn restarting(&mut self) {
        self.own = Addresses::default();
        self.state(TunnelState::Reconnecting, "SIGHUP", None);
    }

    /// Another configuration is in force.
    pub fn change(&mut self, old: &Process, new: &Process) {
        let status = |process: &Process| (process.status_file.clone(), process.status_version);
        if status(old) == status(new) {
            return;
        }
        match StatusFile::open(new, &self.access) {
            Ok(status) => self.status = status,
            Err(error) => log::error!("{error}; the old status file stays in use"),
        }
    }

    /// The end has come, because of this.
    pub fn ending(&mut self, reason: &str) {
        self.own = Addresses::default();
        self.state(TunnelState::Exiting, reason, None);
    }

    /// Our own addresses in the tunnel.
    pub const fn own(&self) -> Addresses {
        self.own
    }

    /// What the management program is talked to with.
    pub fn console(&mut self) -> Option<&mut Console> {
        self.management.as_mut().map(|management| &mut management.console)
    }

    /// A client came in.
    pub fn client_up(&mut self, client: &ClientInfo, count: usize) {
        if let Some(management) = &mut self.management {
            management.console.client_up(client, count);
        }
    }

    /// A client is gone.
    pub fn client_down(&mut self, client: &ClientInfo) {
        if let Some(management) = &mut self.management {
            management.console.client_down(unix_time(), client);
        }
    }

    /// Writes the leases.
    pub fn save_leases(&mut self, text: &str) {
        let save = |path: &Path, bytes: &[u8]| self.access.save(Request::SaveLeases, path, bytes);
        self.leases.iter_mut().for_each(|leases| leases.save(text, save));
    }

    /// Writes the delegated prefixes.
    pub fn save_delegations(&mut self, text: &str) {
        let save =
            |path: &Path, bytes: &[u8]| self.access.save(Request::SaveDelegations, path, bytes);
        self.delegations.iter_mut().for_each(|leases| leases.save(text, save));
    }

    /// What to wait for: descriptor, for reading, for writing.
    pub fn interest(&self) -> Option<(RawFd, bool, bool)> {
        self.management.as_ref().map(ManagementSocket::interest)
    }

    /// When it wants attention at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let status = self.status.as_ref().map(|status| status.due);
        let management = self.management.as_ref().and_then(ManagementSocket::deadline);
        [status, management].into_iter().flatten().min()
    }

    /// Does what is due at this time.
    pub fn tend(&mut self, now: Now, view: impl Fn() -> View) {
        if let Some(management) = &mut self.management
            && management.console.poll_timeout().is_some_and(|due| due <= now.mono)
        {
            management.console.handle_timeout(now.mono, &view());
        }
        if let Some(status) = self.status.as_mut().filter(|status| status.due <= now.mono) {
            status.due = now.mono + status.every;
            status.write(self.server, &view());
        }
    }

    /// Writes the status for the last time.
    pub fn close(&mut self, view: &View) {
        if let Some(status) = &mut self.status {
            status.write(self.server, view);
        }
    }

    fn state(&mut self, state: TunnelState, detail: &str, remote: Option<IpAddr>) {
        let Some(management) = &mut self.management else { return };
        let remote = remote.map(|ip| SocketAddr::new(ip, self.port));
        management.console.state(unix_time(), state, detail, self.own, [remote, None]);
    }
}

impl StatusFile {
    fn open(process: &Process, access: &Access) -> Result<Option<Self>, String> {
        let Some((path, every)) = &process.status_file else { return Ok(None) };
        let open = || Ok(OutputFile::open("status", path)?.into_file());
        let file = OutputFile::new(path, access.open(Request::OpenStatus, open)?);
        let format = Format::from_number(process.status_version.into()).unwrap_or_default();
        Ok(Some(Self { file, every: *every, due: Instant::ZERO, format }))
    }

    fn write(&mut self, server: bool, view: &View) {
        self.file.overwrite(&match server {
            true => status::server(view, self.format),
            false => status::client(view),
        });
    }
}

impl Leases {
    fn open(directive: &str, persist: &PoolPersist) -> Result<Self, String> {
        let open = |path: &Path| OutputFile::open(directive, path);
        let text = read_optional(&persist.file)?.map_or_else(Vec::new, |text| text.to_vec());
        let file = persist.every.map(|_| open(&persist.file)).transpose()?;
        Ok(Self { text, file })
    }

    /// Unless the file holds it already: flash wears.
    fn save(&mut self, text: &str, write: impl FnOnce(&Path, &[u8]) -> Result<(), String>) {
        if let Some(file) = self.file.as_mut().filter(|_| self.text != text.as_bytes()) {
            file.replace(text, write);
            self.text = text.as_bytes().to_vec();
        }
    }
}

fn addresses(settings: &TunnelSettings) -> Addresses {
    Addresses { v4: settings.v4.map(|net| net.addr()), v6: settings.v6.map(|net| net.addr()) }
}

/// The process as it is now.
pub fn view(now: Now, clients: Vec<ClientInfo>, traffic: Traffic) -> View {
    let date = logger::local_date;
    View {
        now: now.unix,
        mono: now.mono,
        date,
        pid: process::id(),
        verb: logger::verb(),
        clients,
        traffic,
    }
}
