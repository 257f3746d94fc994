//! The command line: what was typed becomes a [`Command`], which `main` carries out.
//!
//! Subcommands are argh's. OpenVPN's own way of calling (`--config FILE --dev tun0 …`, or just a
//! file name) is told apart before, since argh refuses options it does not know; those arguments
//! go to `config::load_args` as they are.

use std::path::PathBuf;

use argh::FromArgs;

use crate::pki::endpoint::Endpoint;

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// `up`.
    Up(Up),
    /// `init`.
    Init(Init),
    /// `run FILE`.
    Run(Run),
    /// `check FILE`.
    Check(Check),
    /// `client add`.
    ClientAdd(ClientAdd),
    /// `client list`.
    ClientList(ClientList),
    /// `client revoke`.
    ClientRevoke(ClientRevoke),
    /// `client set`.
    ClientSet(ClientSet),
    /// `client totp`.
    #[cfg(feature = "totp")]
    ClientTotp(ClientTotp),
    /// `status`.
    Status(Status),
    /// `kick`.
    Kick(Kick),
    /// `log`.
    Log(Log),
    /// `selftest`.
    #[cfg(feature = "selftest")]
    Selftest,
    /// `doctor`.
    Doctor(Doctor),
    /// OpenVPN's way: these arguments are its directives.
    OpenVpn(Vec<String>),
    /// Print this text and be done.
    Print(String),
}

/// A VPN server and client for routers that speaks OpenVPN's protocol, over IPv6 and IPv4.
///
/// The arguments of OpenVPN itself work, too: sixgate --config FILE --dev tun0 ...
#[derive(FromArgs, Debug, PartialEq)]
struct Sixgate {
    /// print the version
    #[argh(switch)]
    version: bool,

    #[argh(subcommand)]
    command: Option<Subcommand>,
}

#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand)]
enum Subcommand {
    Up(Up),
    Init(Init),
    Run(Run),
    Check(Check),
    Client(Client),
    Status(Status),
    Kick(Kick),
    Log(Log),
    #[cfg(feature = "selftest")]
    Selftest(Selftest),
    Doctor(Doctor),
}

/// Start a server that needs no configuration. The first start makes certificates, networks and a
/// client profile in the state folder; later starts use them.
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "up")]
pub struct Up {
    /// state folder (default: /etc/sixgate)
    #[argh(option, default = "default_dir()", arg_name = "dir")]
    pub dir: PathBuf,

    /// how clients reach this server, HOST or HOST:PORT; goes into their profiles and is remembered
    #[argh(option, from_str_fn(endpoint), arg_name = "host[:port]")]
    pub endpoint: Option<Endpoint>,

    /// log to the system's log instead of standard error
    #[argh(switch)]
    pub syslog: bool,
}

/// Make what `up` would make and start nothing: for init systems that write the configuration
/// themselves and run it with `run`.
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "init")]
pub struct Init {
    /// state folder (default: /etc/sixgate)
    #[argh(option, default = "default_dir()", arg_name = "dir")]
    pub dir: PathBuf,

    /// how clients reach this server, HOST or HOST:PORT; goes into their profiles and is remembered
    #[argh(option, from_str_fn(endpoint), arg_name = "host[:port]")]
    pub endpoint: Option<Endpoint>,
}

/// Run a server or client from an OpenVPN configuration file.
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "run")]
pub struct Run {
    /// the configuration file
    #[argh(positional)]
    pub file: PathBuf,
}

/// Say what an OpenVPN configuration file would do here, and what it would not. Changes nothing.
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "check")]
pub struct Check {
    /// the configuration file
    #[argh(positional)]
    pub file: PathBuf,
}

/// Add, list, set up and revoke the clients of the server that `up` runs.
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "client")]
struct Client {
    #[argh(subcommand)]
    command: ClientCommand,
}

#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand)]
enum ClientCommand {
    Add(ClientAdd),
    List(ClientList),
    Revoke(ClientRevoke),
    Set(ClientSet),
    #[cfg(feature = "totp")]
    Totp(ClientTotp),
}

/// Make a client: a complete profile for OpenVPN, OpenVPN Connect and NetworkManager.
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "add")]
pub struct ClientAdd {
    /// the client's name
    #[argh(positional)]
    pub name: String,

    /// write the profile there ("-" is standard output) instead of into the state folder
    #[argh(option, arg_name = "file")]
    pub out: Option<PathBuf>,

    /// state folder (default: /etc/sixgate)
    #[argh(option, default = "default_dir()", arg_name = "dir")]
    pub dir: PathBuf,
}

/// List all clients.
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "list")]
pub struct ClientList {
    /// state folder (default: /etc/sixgate)
    #[argh(option, default = "default_dir()", arg_name = "dir")]
    pub dir: PathBuf,
}

/// Shut a client out for good, at once.
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "revoke")]
pub struct ClientRevoke {
    /// the client's name
    #[argh(positional)]
    pub name: String,

    /// state folder (default: /etc/sixgate)
    #[argh(option, default = "default_dir()", arg_name = "dir")]
    pub dir: PathBuf,
}

/// Give a client fixed addresses, and networks behind it: ipv4=10.8.0.20 ip6-host=::20
/// networks=192.168.50.0/24,fd00:50::/64. An empty value takes away. A running server takes it over at
/// once; whoever is not concerned stays connected.
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "set")]
pub struct ClientSet {
    /// the client's name
    #[argh(positional)]
    pub name: String,

    /// what to set: ipv4=, ip6-host=, networks=
    #[argh(positional)]
    pub settings: Vec<String>,

    /// state folder (default: /etc/sixgate)
    #[argh(option, default = "default_dir()", arg_name = "dir")]
    pub dir: PathBuf,

    /// configuration of the server, if it is not server.conf in the state folder; no running server
    /// is told then
    #[argh(option, arg_name = "file")]
    pub config: Option<PathBuf>,

    /// folder of per-client files, if it is not the configuration's
    #[argh(option, arg_name = "dir")]
    pub files: Option<PathBuf>,
}

/// Ask a client for a one-time code of an authenticator app beside its certificate: makes a new secret,
/// shows it as a QR code for the app, and has the client's profile ask for codes.
#[cfg(feature = "totp")]
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "totp")]
pub struct ClientTotp {
    /// the client's name
    #[argh(positional)]
    pub name: String,

    /// do not ask it any more
    #[argh(switch)]
    pub remove: bool,

    /// state folder (default: /etc/sixgate)
    #[argh(option, default = "default_dir()", arg_name = "dir")]
    pub dir: PathBuf,
}

/// Show the clients that are connected and what was dropped.
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "status")]
pub struct Status {
    /// state folder of the server (default: /etc/sixgate)
    #[argh(option, default = "default_dir()", arg_name = "dir")]
    pub dir: PathBuf,

    /// as JSON, for programs
    #[argh(switch)]
    pub json: bool,
}

/// End a client's connections. It may come back; `client revoke` shuts it out.
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "kick")]
pub struct Kick {
    /// the client's name, as `status` shows it
    #[argh(positional)]
    pub name: String,

    /// state folder of the server (default: /etc/sixgate)
    #[argh(option, default = "default_dir()", arg_name = "dir")]
    pub dir: PathBuf,
}

/// Show what the running server has logged last, wherever its log goes.
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "log")]
pub struct Log {
    /// go on with what is logged from now on
    #[argh(switch, short = 'f')]
    pub follow: bool,

    /// so many lines at most (default: all that are kept)
    #[argh(option, short = 'n', default = "usize::MAX", arg_name = "count")]
    pub lines: usize,

    /// state folder of the server (default: /etc/sixgate)
    #[argh(option, default = "default_dir()", arg_name = "dir")]
    pub dir: PathBuf,
}

/// Try a server and a client against each other on this machine, without privileges and without
/// changing anything: certificates, handshake, IPv4 and IPv6, and how fast each cipher is here.
#[cfg(feature = "selftest")]
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "selftest")]
struct Selftest {}

/// Find what stands between this server and its clients, and how to mend it. Changes nothing.
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "doctor")]
pub struct Doctor {
    /// state folder of the server (default: /etc/sixgate)
    #[argh(option, default = "default_dir()", arg_name = "dir")]
    pub dir: PathBuf,

    /// configuration, if it is not that of OpenWrt's service or in the state folder
    #[argh(option, arg_name = "file")]
    pub config: Option<PathBuf>,
}

fn default_dir() -> PathBuf {
    PathBuf::from(crate::sys::state::DEFAULT_DIR)
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    Endpoint::parse(text).map_err(|error| error.to_string())
}

/// Reads the arguments that follow the program's name; the error is text for the user.
pub fn parse(arguments: &[String]) -> Result<Command, String> {
    if is_openvpn(arguments) {
        return Ok(Command::OpenVpn(arguments.to_vec()));
    }
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let parsed = match Sixgate::from_args(&["sixgate"], &words) {
        Ok(parsed) => parsed,
        Err(exit) if exit.status.is_ok() => return Ok(Command::Print(exit.output)),
        Err(exit) => return Err(exit.output.trim_end().to_owned()),
    };
    Ok(match parsed {
        Sixgate { version: true, .. } => {
            Command::Print(format!("sixgate {}\n", env!("CARGO_PKG_VERSION")))
        }
        Sixgate { command: None, .. } => {
            return Err("nothing to do: try 'sixgate up' or 'sixgate --help'".into());
        }
        Sixgate { command: Some(command), .. } => match command {
            Subcommand::Up(up) => Command::Up(up),
            Subcommand::Init(init) => Command::Init(init),
            Subcommand::Run(run) => Command::Run(run),
            Subcommand::Check(check) => Command::Check(check),
            Subcommand::Status(status) => Command::Status(status),
            Subcommand::Kick(kick) => Command::Kick(kick),
            Subcommand::Log(log) => Command::Log(log),
            #[cfg(feature = "selftest")]
            Subcommand::Selftest(_) => Command::Selftest,
            Subcommand::Doctor(doctor) => Command::Doctor(doctor),
            Subcommand::Client(Client { command }) => match command {
                ClientCommand::Add(add) => Command::ClientAdd(add),
                ClientCommand::List(list) => Command::ClientList(list),
                ClientCommand::Revoke(revoke) => Command::ClientRevoke(revoke),
                ClientCommand::Set(set) => Command::ClientSet(set),
                #[cfg(feature = "totp")]
                ClientCommand::Totp(totp) => Command::ClientTotp(totp),
            },
        },
    })
}

/// Whether these are OpenVPN's arguments: an option that is not ours comes first, or a file alone.
fn is_openvpn(arguments: &[String]) -> bool {
    match arguments {
        [first, ..] if first.starts_with("--") => !matches!(first.as_str(), "--help" | "--version"),
        [only] => [".conf", ".ovpn"].iter().any(|end| only.ends_with(end)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Command, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn both_ways_of_calling_are_told_apart() {
        for line in ["--config a.conf --dev tun7", "--genkey secret x", "dir/server.conf"] {
            let words = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(parse_line(line), Ok(Command::OpenVpn(words)), "{line}");
        }
        let run = Command::Run(Run { file: "server.conf".into() });
        assert_eq!(parse_line("run server.conf"), Ok(run));
        assert!(matches!(parse_line("--version"), Ok(Command::Print(text)) if text.contains("0.")));
    }

    #[test]
    fn options_are_read() {
        let Ok(Command::Up(up)) = parse_line("up --endpoint [2001:db8::1]:443") else { panic!() };
        assert_eq!(up.endpoint.unwrap().to_string(), "[2001:db8::1]:443");
        assert_eq!(up.dir, PathBuf::from("/etc/sixgate"));
        let Ok(Command::Init(init)) = parse_line("init --dir /tmp/x") else { panic!() };
        assert_eq!(init, Init { dir: "/tmp/x".into(), endpoint: None });
        let Ok(Command::ClientAdd(add)) = parse_line("client add phone --out - --dir /tmp/x")
        else {
            panic!()
        };
        assert_eq!((add.name.as_str(), add.out), ("phone", Some("-".into())));
        let Ok(Command::Log(log)) = parse_line("log -f -n 5") else { panic!() };
        assert_eq!((log.follow, log.lines), (true, 5));
        let Ok(Command::ClientSet(set)) = parse_line("client set tv ipv4=10.8.0.2 networks=")
        else {
            panic!()
        };
        assert_eq!((set.name.as_str(), set.settings.len()), ("tv", 2));
    }

    #[test]
    fn mistakes_are_explained() {
        assert!(parse_line("").unwrap_err().contains("sixgate up"));
        assert!(parse_line("up --endpoint host:0").unwrap_err().contains("port must be"));
        assert!(parse_line("frobnicate").is_err());
        assert!(parse_line("client").is_err());
        for line in ["--help", "up --help", "client add --help"] {
            assert!(matches!(parse_line(line), Ok(Command::Print(_))), "{line}");
        }
    }
}
