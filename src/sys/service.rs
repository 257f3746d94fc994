//! Running a server or a client: opens everything in the order that privileges demand, then loops.
//!
//! What can fail because of the configuration comes first and changes nothing; then sockets and
//! the device; then privileges are given up for good. What is read or written later, as a revocation
//! list or leases, is the keeper's business (`sys::keeper`), and so are scripts; where `user` is configured
//! there is none, and such files must be open to `user`.
//!
//! A configuration that was changed so much that all this has to be opened again ends the loop, and
//! everything is done once more for the new one: by a new process of the keeper's, or with the
//! privileges that are left.

use std::fs::{File, OpenOptions};
use std::net::Ipv6Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use super::admission::ServerUpkeep;
use super::client_files::{self, ClientFolder};
use super::client_routes::ClientRoutes;
#[cfg(feature = "client")]
use super::client_upkeep::ClientUpkeep;
use super::clock::{Clock, OsRandom, unix_time};
use super::ctl_socket::ControlSocket;
use super::event_loop::{EventLoop, Upkeep};
use super::hooks::{self, Hooks, surroundings};
use super::keeper::{self, Access, Request};
use super::line::Line;
use super::logger::{self, Target};
use super::netlink::Netlink;
use super::privilege::{self, Identity};
use super::process::{self, Background, PidFile};
use super::reload::{self, Source};
use super::reports::Reports;
use super::resolve::Resolver;
use super::state::Ensured;
use super::store::DiskFiles;
#[cfg(feature = "client")]
use super::terminal;
use super::tun::TunDevice;
use super::tunnel::TunnelConfig;
use super::udp::UdpSocket;
use super::watch::Watch;
use super::{commands, remarks, sandbox, state};
use crate::cli;
#[cfg(feature = "client")]
use crate::client::Client;
use crate::config::{self, Config, ConfigError, Export, Loaded, Process, Role, ServerRole};
use crate::engine::{Engine, TunnelSettings};
use crate::limits::LOG_LINES;
use crate::server::Server;

/// Runs what the configuration describes until it ends; an error is one line for the user.
pub fn run(source: Source) -> Result<(), String> {
    let config = load(source.read())?;
    run_loaded(source, config)
}

fn run_loaded(mut source: Source, mut config: Config) -> Result<(), String> {
    start_log(&config.process)?;
    #[cfg(feature = "client")]
    if let Role::Client(role) = &mut config.role {
        let management = config.process.management.as_ref();
        if !management.is_some_and(|management| management.query) {
            terminal::complete(role)?;
        }
    }
    reload::complete(&mut config, &DiskFiles)?;
    source.settle(&config);
    let mut start = Start::First;
    if keeper::is_wanted(&config) {
        (source.access, start) = keeper::divide(&source, &mut config)?;
    }
    let source = Rc::new(source);
    let result = run_on(&source, config, start);
    let next = result.as_ref().is_ok_and(Option::is_some);
    source.access.tell(if next { Request::Restart } else { Request::End });
    result.map(drop)
}

/// Runs until the end, or until the keeper is to start over with the configuration returned.
fn run_on(
    source: &Rc<Source>,
    mut config: Config,
    mut start: Start,
) -> Result<Option<Box<Config>>, String> {
    while let Some(next) = run_once(source, config, start)? {
        if source.access.is_kept() {
            return Ok(Some(next));
        }
        config = *next;
        start = Start::Again;
        start_log_again(&config.process);
    }
    Ok(None)
}

/// Whether the process is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It is.
    First,
    /// It was closed and is opened again.
    Again,
}

/// Runs until the end, or until everything has to be opened anew for the configuration returned.
fn run_once(
    source: &Rc<Source>,
    config: Config,
    start: Start,
) -> Result<Option<Box<Config>>, String> {
    let mut reports = Reports::open(&config, &source.access)?;
    if !reports.hold()? {
        return Ok(None);
    }
    let config = Arc::new(config);
    let now = Clock::new().now();
    let random = Box::new(OsRandom::new());
    match &config.role {
        Role::Server(role) => {
            let mut engine = Server::new(Arc::clone(&config), now, random)?;
            let upkeep = ServerUpkeep::new(Rc::clone(source), Arc::clone(&config));
            upkeep.survey(&mut engine);
            if let (Some(persist), Some(file)) = (&role.pool_persist, reports.leases()) {
                for (line, fault) in engine.restore_pool(file) {
                    log::warn!("{}:{line}: {fault}", persist.file.display());
                }
            }
            if let (Some(delegate), Some(file)) = (&role.delegate, reports.delegations()) {
                let path = delegate.file.as_deref().unwrap_or(Path::new("")).display();
                for line in engine.restore_delegations(file) {
                    log::warn!("{path}:{line}: not a client and its part of {}", delegate.pool);
                }
            }
            let settings = server_settings(role, config.device.mtu);
            serve(&config, engine, upkeep, Some(settings), reports, start)
        }
        #[cfg(feature = "client")]
        Role::Client(_) => {
            let engine = Client::new(Arc::clone(&config), now, random)?;
            let upkeep = ClientUpkeep { source: Rc::clone(source), config: Arc::clone(&config) };
            serve(&config, engine, upkeep, None, reports, start)
        }
        #[cfg(not(feature = "client"))]
        Role::Client(_) => Err("this sixgate was built without the client role".into()),
    }
}

/// `sixgate init`: completes the state folder and says what it did.
pub fn init(options: &cli::Init) -> Result<Ensured, String> {
    let wanted =
        state::Options { endpoint: options.endpoint.clone(), local_networks: local_networks() };
    let ensured = state::ensure(&options.dir, &wanted, unix_time(), &mut OsRandom::new())?;
    for line in &ensured.created {
        commands::print(&format!("made {line}\n"))?;
    }
    if let Some(profile) = &ensured.first_profile {
        let profile = profile.display();
        commands::print(&format!("give this profile to the first client: {profile}\n"))?;
    }
    commands::remark(&ensured.notes);
    Ok(ensured)
}

/// `sixgate up`: `init`, and runs the server in the state folder.
pub fn up(options: &cli::Up) -> Result<(), String> {
    require_privilege()?;
    let ensured =
        init(&cli::Init { dir: options.dir.clone(), endpoint: options.endpoint.clone() })?;
    let source = Source::file(&ensured.config).with_syslog(options.syslog);
    let config = load(source.read())?;
    if let Role::Server(role) = &config.role {
        for (name, net) in [("IPv4", role.v4.map(IpNet::V4)), ("IPv6", role.v6.map(IpNet::V6))] {
            if let Some(net) = net.map(|own| own.trunc()) {
                commands::print(&format!("{name} network of the tunnel: {net}\n"))?;
            }
        }
    }
    run_loaded(source, config)
}

/// `sixgate check`: says what a configuration file would do, and fails where `run` would.
pub fn check(file: &Path) -> Result<(), String> {
    let loaded = config::load_file(file, &DiskFiles);
    if let Ok(loaded) = &loaded {
        commands::print(&loaded.plan().into_iter().map(|line| line + "\n").collect::<String>())?;
    }
    let mut config = load(loaded)?;
    client_files::publish(&mut config, &DiskFiles);
    if let Role::Server(role) = &config.role {
        let survey =
            ClientFolder::new(role).map(|folder| folder.survey(&DiskFiles)).unwrap_or_default();
        remarks::server(role, &survey).iter().for_each(|remark| eprintln!("warning: {remark}"));
    }
    Ok(())
}

/// Writes why the program ends to its log, unless that is standard error, where `main` says it.
pub fn log_failure(error: &str) {
    if !logger::is_stderr() {
        error.lines().for_each(|line| log::error!("{line}"));
    }
}

/// Prints the warnings of a configuration, and its problems as the error.
pub fn load(loaded: Result<Loaded, ConfigError>) -> Result<Config, String> {
    let (result, warnings) = match loaded {
        Ok(Loaded { config, warnings }) => (Ok(config), warnings),
        Err(error) => (Err(error.to_string()), error.warnings),
    };
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    result
}

fn serve<E: Engine, U: Upkeep<E>>(
    config: &Config,
    engine: E,
    upkeep: U,
    settings: Option<TunnelSettings>,
    mut reports: Reports,
    start: Start,
) -> Result<Option<Box<Config>>, String> {
    let process = &config.process;
    let access = reports.access().clone();
    let user = process.user.as_deref().or(access.is_kept().then(privilege::unprivileged));
    let identity = Identity::find(user, process.group.as_deref())?;
    let signals = access.signals().map_err(|error| format!("signals: {error}"))?;
    let control = process.state.as_deref().map(ControlSocket::bind).transpose()?;
    let mut udp = UdpSocket::bind(&config.transport)?;
    if config.device.offload {
        udp.probe();
    }
    let tun = TunDevice::open(config.device.name.as_deref(), config.device.offload)?;
    let mut tunnel = TunnelConfig::new(tun.name(), tun.index())?;
    tunnel.begin(tun.found());
    let mut hooks = Hooks::new(config.hooks.clone(), config.timers.handshake, access.clone());
    hooks.set_device(tun.name());
    if let Some(settings) = &settings {
        tunnel.apply(settings)?;
    }
    let resolver = Resolver::new().map_err(|error| format!("socket pair: {error}"))?;
    let (follow, export) = match &config.role {
        Role::Server(role) => (role.follow.as_ref(), role.export),
        Role::Client(_) => (None, None),
    };
    // The line wants some, too.
    let routes = export.or(follow.map(|_| Export::USUAL));
    let routes = routes.map(|at| ClientRoutes::open(at, tun.index())).transpose()?;
    let line = follow.zip(settings.as_ref());
    let line =
        line.map(|(follow, settings)| Line::open(follow, tun.index(), settings)).transpose()?;
    let watch = match &config.role {
        Role::Client(_) => Some(Watch::open()),
        Role::Server(_) => routes.as_ref().map(|_| Watch::addresses()),
    };
    let watch = watch.transpose().map_err(|error| format!("netlink: {error}"))?;
    let _pid_file = go_on_alone(process, &access, start)?;
    surroundings::of_process(hooks.surroundings(), config, tun.name(), unix_time());
    if let Some(settings) = &settings {
        // With all privileges still, as in OpenVPN.
        hooks.bring_up(settings)?;
    }
    identity.assume()?;
    let filter = sandbox::enter(!access.is_kept() && hooks::any(&config.hooks))?;
    announce(&udp, &tun, settings.as_ref());
    reports.started(settings.as_ref());
    EventLoop {
        engine,
        upkeep,
        udp,
        tun,
        tunnel,
        signals,
        control,
        resolver,
        hooks,
        reports,
        watch,
        line,
        routes,
        filter,
    }
    .run()
}

/// Everything is open: goes to the background if that is wanted, and says who is there.
fn go_on_alone(
    process: &Process,
    access: &Access,
    start: Start,
) -> Result<Option<PidFile>, String> {
    let background = process.daemon && start == Start::First;
    let failed = |error| format!("going to the background: {error}");
    if access.is_kept() {
        access.ready()?;
        if background {
            process::silence().map_err(failed)?;
        }
        return Ok(None);
    }
    if background {
        process::to_background().and_then(Background::enter).map_err(failed)?;
    }
    // After that, as the process id is another one in the background.
    process.pid_file.as_deref().map(PidFile::write).transpose()
}

fn announce(udp: &UdpSocket, tun: &TunDevice, settings: Option<&TunnelSettings>) {
    let families = match (udp.is_dual_stack(), udp.local().is_ipv6()) {
        (true, _) => "IPv4 and IPv6",
        (false, true) => "IPv6",
        (false, false) => "IPv4",
    };
    let (port, name) = (udp.local().port(), tun.name());
    let own = settings.map(|s| [s.v4.map(IpNet::V4), s.v6.map(IpNet::V6)]).unwrap_or_default();
    let own: String = own.iter().flatten().map(|net| format!(" {net}")).collect();
    log::info!("running: {name}{own}, UDP port {port} over {families}");
}

/// Fails with one line for those who may not change addresses and routes. Asked before anything is
/// read: to them, files that only root may read would look like the trouble.
pub fn require_privilege() -> Result<(), String> {
    if privilege::may_administer() {
        return Ok(());
    }
    Err(if privilege::is_root() {
        "CAP_NET_ADMIN is missing: in a container, allow it there".into()
    } else {
        "not root: a VPN changes addresses and routes; start as root or with CAP_NET_ADMIN".into()
    })
}

fn start_log(process: &Process) -> Result<(), String> {
    start_log_with(process, open_log)
}

fn start_log_with(
    process: &Process,
    open: impl FnOnce(&Path, bool) -> Result<File, String>,
) -> Result<(), String> {
    let target = match (&process.log_file, &process.syslog) {
        (Some((path, append)), _) => Target::File(open(path, *append)?),
        (None, Some(name)) => {
            logger::open_syslog(name);
            Target::Syslog
        }
        (None, None) => Target::stderr(),
    };
    if process.state.is_some() {
        logger::keep_lines(LOG_LINES);
    }
    logger::start(target, process.verb);
    Ok(())
}

/// Goes on in the log of another configuration. A file is opened anew in any case: somebody may have
/// moved it away to have a fresh one. What cannot be opened is not gone over to.
pub fn reopen_log(old: &Process, new: &Process, access: &Access) {
    let target = |process: &Process| (process.log_file.clone(), process.syslog.clone());
    if target(old) != target(new) || new.log_file.is_some() {
        let open = |path: &Path, _| access.open(Request::OpenLog, || open_log(path, true));
        go_over(start_log_with(new, open));
    }
    logger::set_verb(new.verb);
}

/// Goes on in the log of this configuration.
pub fn start_log_again(process: &Process) {
    go_over(start_log_with(process, |path, _| open_log(path, true)));
}

fn go_over(result: Result<(), String>) {
    if let Err(error) = result {
        log::error!("{error}; the log goes on where it was");
    }
}

/// Opens the file that is logged to.
pub fn open_log(path: &Path, append: bool) -> Result<File, String> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .append(append)
        .truncate(!append)
        .mode(0o600)
        .open(path)
        .map_err(|error| format!("log {}: {error}", path.display()))
}

/// The server's own addresses, and what it routes into the tunnel.
pub fn server_settings(role: &ServerRole, mtu: u16) -> TunnelSettings {
    // With a peer there is no network on the link, only the other end.
    let v4 = match role.v4_peer {
        Some(_) => role.v4.map(|own| own.addr().into()),
        None => role.v4,
    };
    TunnelSettings {
        v4,
        v4_peer: role.v4_peer,
        v6: role.v6,
        // The name that stock servers have for the other end [9.1].
        v6_peer: role.v6.map(|own| Ipv6Addr::from_bits(own.network().to_bits() | 2)),
        gateway: role.v4.and_then(|own| own.hosts().nth(1)),
        mtu,
        routes: role.routes.clone(),
        ..TunnelSettings::default()
    }
}

/// The IPv4 networks of this host, for the choice of one that is free.
fn local_networks() -> Vec<Ipv4Net> {
    let addresses = Netlink::open().and_then(|mut netlink| netlink.local_addresses());
    addresses
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(_, net)| match net.trunc() {
            IpNet::V4(v4) => Some(v4),
            IpNet::V6(_) => None,
        })
        .collect()
}
