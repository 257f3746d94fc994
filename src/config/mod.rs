//! Configuration: an OpenVPN configuration file (or command line) becomes a checked, typed `Config`.
//!
//! `lex` cuts text into directives, `directive` is the one table of all of them, `read` follows
//! includes and holds each line against the table, `build` gives the lines meaning, `plan` says in
//! words what came of it. Reading files is the caller's business, through [`Files`].

mod addresses;
mod build;
pub mod ccd;
pub mod difference;
pub mod directive;
pub mod dns;
#[doc(hidden)]
pub mod fuzz;
pub mod hooks;
mod identity;
pub mod lex;
mod login;
mod management;
mod names;
pub mod option;
mod plan;
mod problem;
mod read;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(feature = "totp")]
pub mod totp;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::wire::static_key::StaticKey;
use problem::Problems;
use read::Source;

pub use addresses::{DELEGATED_PREFIX, STABLE_ADDRESS};
pub use addresses::{Delegate, Export, Follow, PoolPersist, PoolV4, PoolV6};
pub use addresses::{Topology, TunnelRoute, Via};
pub use ccd::{ClientFiles, ClientSettings};
pub use identity::{Tls, VerifyName};
pub use login::{AuthRetry, StaticChallenge};
pub use management::{Management, ManagementAddress};
pub use problem::{ConfigError, Diagnostic, Origin};

/// A configuration that can be used, and what there is to say about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// What has no effect or looks like a mistake, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

impl Loaded {
    /// What would be done, line by line, for `sixgate check`.
    pub fn plan(&self) -> Vec<String> {
        plan::lines(&self.config)
    }
}

/// Loads a configuration file.
pub fn load_file(path: impl AsRef<Path>, files: &dyn Files) -> Result<Loaded, ConfigError> {
    let path = path.as_ref();
    let mut problems = Problems::new(&path.to_string_lossy());
    let source = Source::from_file(path, files, &mut problems);
    let mut loaded = load(&source, files, problems)?;
    loaded.config.hooks.tell_file(&path.to_string_lossy());
    Ok(loaded)
}

/// Loads what OpenVPN would make of these arguments: a file, or `--option argument…`.
pub fn load_args(args: &[String], files: &dyn Files) -> Result<Loaded, ConfigError> {
    let mut problems = Problems::new(Origin::COMMAND_LINE);
    let source = Source::from_args(args, files, &mut problems);
    let mut loaded = load(&source, files, problems)?;
    let file = match args {
        [file] => Some(file),
        _ => args.iter().skip_while(|arg| *arg != "--config").nth(1),
    };
    file.into_iter().for_each(|file| loaded.config.hooks.tell_file(file));
    Ok(loaded)
}

fn load(source: &Source, files: &dyn Files, mut problems: Problems) -> Result<Loaded, ConfigError> {
    // Without a single line there is nothing to ask more questions about.
    if source.is_empty() && problems.any() {
        problems.finish()?;
        problems = Problems::new("");
    }
    let config = build::build(source, files, &mut problems);
    Ok(Loaded { config, warnings: problems.finish()? })
}

/// Reads the files a configuration names; `sys::store` and the tests implement it.
pub trait Files {
    /// The whole file, or why not, as one line of text without the path.
    fn read(&self, path: &Path) -> Result<Vec<u8>, String>;

    /// Whether this can be executed, or why not. Only whoever knows the file system can tell.
    fn is_executable(&self, _: &Path) -> Result<(), String> {
        Ok(())
    }

    /// Whether the processor has instructions for AES. Asked here, as only whoever knows the machine can tell.
    fn has_aes(&self) -> bool;
}

/// A whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Server or client.
    pub role: Role,
    /// TUN device.
    pub device: Device,
    /// Socket.
    pub transport: Transport,
    /// Certificates and their checks.
    pub tls: Tls,
    /// Control channel wrapping.
    pub wrap: Wrapping,
    /// `data-ciphers`: in order of preference.
    pub data_ciphers: Vec<CipherName>,
    /// `data-ciphers` is not given: what is fastest for both ends comes first.
    pub fastest_cipher: bool,
    /// The processor has instructions for AES.
    pub has_aes: bool,
    /// `data-ciphers-fallback`: for a peer that names no cipher at all [8.1, 8.2].
    pub fallback_cipher: Option<CipherName>,
    /// `cipher`, as far as it is one of `data_ciphers`: what our options string names [5.2].
    pub occ_cipher: Option<CipherName>,
    /// Digest of `auth`, for tls-auth and the CBC ciphers.
    pub auth: Digest,
    /// (Client) `compress`, `comp-lzo`: the framing of packets unless the server pushes another. A
    /// server finds out what each client needs.
    pub framing: Framing,
    /// `mssfix`: `None` is off.
    pub mssfix: Option<Mssfix>,
    /// Seconds and such.
    pub timers: Timers,
    /// `user`, `group`, `verb`, state folder.
    pub process: Process,
    /// Scripts.
    pub hooks: hooks::Hooks,
}

/// Which end we are.
#[derive(Debug, Clone)]
pub enum Role {
    /// `server` and/or `server-ipv6`.
    Server(ServerRole),
    /// `client` / `pull`.
    Client(ClientRole),
}

/// Settings only a server has.
#[derive(Debug, Clone)]
pub struct ServerRole {
    /// `topology`.
    pub topology: Topology,
    /// Our own IPv4 address in the network of `server` or `ifconfig`; /32 when there is only a peer.
    pub v4: Option<Ipv4Net>,
    /// The other end of the device in `net30` and `p2p`.
    pub v4_peer: Option<Ipv4Addr>,
    /// Our own IPv6 address in the prefix of `server-ipv6` or `ifconfig-ipv6`.
    pub v6: Option<Ipv6Net>,
    /// `server` or `ifconfig-pool`.
    pub v4_pool: Option<PoolV4>,
    /// `server-ipv6` or `ifconfig-ipv6-pool`.
    pub v6_pool: Option<PoolV6>,
    /// `server-ipv6 auto`: clients' addresses follow the prefix of the line; `v6` is the stable one
    /// beside it, a /64.
    pub follow: Option<Follow>,
    /// `delegate-ipv6`.
    pub delegate: Option<Box<Delegate>>,
    /// `route`, `route-ipv6`, and what the topology needs.
    pub routes: Vec<TunnelRoute>,
    /// `route-export`.
    pub export: Option<Export>,
    /// `push` arguments in order, as text the client parses.
    pub push: Vec<String>,
    /// `client-config-dir`.
    pub client_files: Option<ClientFiles>,
    /// Forward between clients ourselves.
    pub client_to_client: bool,
    /// `max-clients`.
    pub max_clients: usize,
    /// Same name may connect more than once.
    pub duplicate_cn: bool,
    /// `explicit-exit-notify`: 0 off, 1 clients reconnect to us, 2 to the next server.
    pub exit_notify: u8,
    /// `inactive`: a client goes when fewer tunnel bytes than this pass in so much time.
    pub inactive: Option<(Duration, u64)>,
    /// `session-timeout`: a client goes after so much time.
    pub session_timeout: Option<Duration>,
    /// `connect-freq`: new sessions per period.
    pub connect_rate: Option<(u32, Duration)>,
    /// `ifconfig-push-constraint`: `ifconfig-push` only gives addresses of this network.
    pub push_constraint: Option<Ipv4Net>,
    /// `connect-freq-initial`: answers per period.
    pub initial_rate: (u32, Duration),
    /// `tls-crypt-v2 … force-cookie`: ignore clients that cannot do the stateless opening.
    pub force_cookie: bool,
    /// What clients need beside a certificate, or instead of one.
    pub login: hooks::Login,
    /// `ifconfig-pool-persist`.
    pub pool_persist: Option<PoolPersist>,
}

/// Settings only a client has.
#[derive(Debug, Clone, Default)]
pub struct ClientRole {
    /// `<connection>` blocks, else `remote` lines, in order.
    pub remotes: Vec<Remote>,
    /// `auth-user-pass` from a file or inline; what is empty has to be asked for.
    pub credentials: Option<(String, String)>,
    /// `static-challenge`: a second factor to be asked for.
    pub challenge: Option<StaticChallenge>,
    /// User name and password that were asked for before the start, with the answer to the challenge.
    pub entered: Option<(String, String)>,
    /// `auth-retry`: what a refusal means.
    pub auth_retry: AuthRetry,
    /// `auth-nocache`: what was entered is forgotten when a connection ends or a token stands in for it.
    pub forgets: bool,
    /// `remote-random`: shuffle `remotes` once at start.
    pub remote_random: bool,
    /// `remote-random-hostname`: a random label in front of each name.
    pub random_hostname: bool,
    /// `connect-retry-max`: give up after so many rounds over all remotes.
    pub retry_max: Option<u32>,
    /// `resolv-retry`: stay with a name that does not resolve for so long; `None` goes to the next
    /// remote at once and comes back for ever (`infinite`).
    pub resolve_retry: Option<Duration>,
    /// Tunnel options of the file, which a push adds to.
    pub options: Vec<option::TunnelOption>,
    /// `pull-filter`, in order: the first whose text begins a pushed option decides.
    pub filters: Vec<(FilterAction, String)>,
    /// `route-nopull`: no routes and no DNS from the server.
    pub no_pull: bool,
    /// `route-noexec`: set no routes.
    pub route_noexec: bool,
    /// `ifconfig-noexec`: set no addresses.
    pub ifconfig_noexec: bool,
    /// `delegate-ipv6-dev`: the server is asked for a prefix.
    pub wants_prefix: bool,
    /// The interface that it is for; `None` leaves that to `up`.
    pub delegate_dev: Option<String>,
}

/// One `remote`, with what its `<connection>` block says or else the file.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Name or literal address.
    pub host: String,
    /// UDP port.
    pub port: u16,
    /// `Some(true)`: IPv6 only; `Some(false)`: IPv4 only.
    pub family: Option<bool>,
    /// `float`: packets of the server may come from another address than the one we send to.
    pub float: bool,
    /// `explicit-exit-notify`: goodbyes to send.
    pub exit_notify: u8,
    /// `connect-retry`: first and longest pause between rounds; `None` is OpenVPN's 1 and 300 s.
    pub retry_pause: Option<(Duration, Duration)>,
    /// `connect-timeout`/`server-poll-timeout`: wait so long for the first packet.
    pub connect_timeout: Option<Duration>,
    /// `mssfix`.
    pub mssfix: Option<Mssfix>,
    /// The block's own control channel key, if it has one.
    pub wrap: Option<Wrapping>,
}

/// What `pull-filter` does with an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterAction {
    /// Take it.
    Accept,
    /// Leave it out.
    Ignore,
    /// Take nothing from this server: connect again.
    Reject,
}

/// The TUN device.
#[derive(Debug, Clone)]
pub struct Device {
    /// `None` lets the kernel choose (`dev tun`).
    pub name: Option<String>,
    /// `tun-mtu`, 1500 by default.
    pub mtu: u16,
    /// `sixgate-offload`: many packets per system call where the kernel can do that, on the device
    /// and on the socket.
    pub offload: bool,
}

/// The UDP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// `local`.
    pub local: Option<IpAddr>,
    /// `port`/`lport`; 0 lets the kernel choose (`nobind`).
    pub port: u16,
    /// `Some(true)`: IPv6 only; `Some(false)`: IPv4 only; `None`: one socket for both.
    pub family: Option<bool>,
}

/// Control channel wrapping as configured. A server may have a v2 key beside another kind.
#[derive(Debug, Clone, Default)]
pub struct Wrapping {
    /// `tls-auth` with its direction (`None`: both directions share a key).
    pub tls_auth: Option<(StaticKey, Option<u8>)>,
    /// `tls-crypt`.
    pub tls_crypt: Option<StaticKey>,
    /// `tls-crypt-v2` on a server: the 128-byte server key.
    pub v2_server: Option<crate::wire::static_key::V2ServerKey>,
    /// `tls-crypt-v2` on a client: client key and its wrapped form.
    pub v2_client: Option<crate::wire::static_key::V2ClientKey>,
}

/// A cipher of the data channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CipherName {
    /// `CHACHA20-POLY1305`.
    ChaCha20Poly1305,
    /// `AES-256-GCM`.
    Aes256Gcm,
    /// `AES-128-GCM`.
    Aes128Gcm,
    /// `AES-…-CBC` with the HMAC of `auth`, for peers without AEAD ciphers.
    #[cfg(feature = "cbc")]
    Cbc(AesSize),
}

/// Key sizes of AES.
#[cfg(feature = "cbc")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AesSize {
    /// 16 bytes.
    Aes128,
    /// 24 bytes.
    Aes192,
    /// 32 bytes.
    Aes256,
}

/// What surrounds a packet inside the encryption where compression was configured once; nothing is
/// ever compressed [6.5].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Nothing.
    #[default]
    None,
    /// A byte in front (`comp-lzo`, `compress lzo`).
    Lzo,
    /// A marker takes the place of the first byte, which goes to the end (`compress`,
    /// `compress stub`, `compress lz4`).
    Swap,
    /// Nothing, as far as IP goes (`compress stub-v2`, `compress lz4-v2`).
    StubV2,
}

/// A digest for tls-auth and the CBC ciphers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    /// The default.
    Sha1,
    /// 32 bytes.
    Sha256,
    /// 48 bytes.
    Sha384,
    /// 64 bytes.
    Sha512,
}

/// `mssfix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mssfix {
    /// Largest outer packet, IP and UDP headers included (`mtu`).
    Outer(u16),
    /// Largest UDP payload (a bare number).
    Payload(u16),
    /// Largest inner packet (`fixed`).
    Fixed(u16),
}

/// Times.
#[derive(Debug, Clone, Copy)]
pub struct Timers {
    /// Send a ping after so much silence; `None` never.
    pub ping: Option<Duration>,
    /// Give the peer up after so much silence; `None` never.
    pub ping_restart: Option<Duration>,
    /// (Client) the same, but it ends instead of trying again (`ping-exit`).
    pub ping_exit: Option<Duration>,
    /// (Server) what `keepalive` pushes: ping and ping-restart in seconds.
    pub push_keepalive: Option<(u32, u32)>,
    /// `reneg-sec`: largest and smallest lifetime of a key; zero never.
    pub reneg: (Duration, Duration),
    /// `hand-window`.
    pub handshake: Duration,
    /// `tran-window`.
    pub transition: Duration,
    /// `tls-timeout`: first retransmission.
    pub retransmit: Duration,
}

/// About the process.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// `user`.
    pub user: Option<String>,
    /// `group`.
    pub group: Option<String>,
    /// `verb` 0..11.
    pub verb: u8,
    /// `daemon`: go to the background once everything is open.
    pub daemon: bool,
    /// `syslog`/`daemon` name: log to the system's log under this name.
    pub syslog: Option<String>,
    /// `log`, `log-append`: the file and whether what it holds is kept.
    pub log_file: Option<(PathBuf, bool)>,
    /// `writepid`.
    pub pid_file: Option<PathBuf>,
    /// `status`: the file, and how often it is written.
    pub status_file: Option<(PathBuf, Duration)>,
    /// `status-version`: 1, 2 or 3.
    pub status_version: u8,
    /// `management`.
    pub management: Option<Management>,
    /// `sixgate-state DIR`: the PKI to renew certificates from, revocations and control socket.
    pub state: Option<PathBuf>,
}

/// Text that must not show up anywhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub zeroize::Zeroizing<String>);

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret")
    }
}
