//! Directives to meaning: a flat list of known lines becomes a typed [`Config`].
//!
//! Each module takes the lines of one subject, parses their arguments into the types of `config`,
//! fills in OpenVPN's defaults and reports everything that does not fit. Parsing goes on after a
//! problem, so that all of them are told at once; values that stand in for bad ones never get out.

mod addresses;
mod ccd;
mod client;
mod data;
mod follow;
mod hooks;
mod manage;
mod networks;
mod process;
mod push;
mod routes;
mod server;
mod timers;
mod tls;
mod transport;
mod tunnel;
mod wrap;

use core::fmt::Display;
use core::ops::RangeInclusive;
use std::time::Duration;

use zeroize::Zeroizing;

use super::lex::Line;
use super::problem::Problems;
use super::read::Source;
use super::{ClientSettings, Config, Files, Role, ServerRole};

/// Directives of both roles that only a client acts on so far.
const CLIENT_ONLY: [&str; 3] = ["block-ipv6", "ifconfig-noexec", "route-noexec"];

/// What every module needs at hand.
struct Build<'a> {
    source: &'a Source,
    files: &'a dyn Files,
    problems: &'a mut Problems,
    /// Which role this configures.
    server: bool,
    /// Whether this is about one `<connection>` block.
    block: bool,
}

/// The configuration these lines describe. Meaningless if a problem was reported.
pub(super) fn build(source: &Source, files: &dyn Files, problems: &mut Problems) -> Config {
    let server = is_server(source, problems);
    source.check_places(server, problems);
    let mut b = Build { source, files, problems, server, block: false };
    let timers = timers::timers(&mut b);
    let role = if server {
        Role::Server(server::role(&mut b, &timers))
    } else {
        Role::Client(client::role(&mut b))
    };
    let v6 = match &role {
        Role::Server(role) => role.v6.is_some(),
        Role::Client(_) => false,
    };
    let device = transport::device(&mut b, v6);
    let ciphers = data::ciphers(&mut b);
    let wrap = wrap::wrapping(&mut b);
    let config = Config {
        transport: transport::transport(&mut b),
        tls: tls::tls(&mut b),
        mssfix: transport::mssfix(&mut b, device.mtu),
        auth: data::auth(&mut b, &ciphers),
        framing: data::framing(&mut b),
        data_ciphers: ciphers.list,
        fastest_cipher: ciphers.fastest,
        has_aes: files.has_aes(),
        fallback_cipher: ciphers.fallback,
        occ_cipher: ciphers.occ,
        hooks: hooks::hooks(&mut b, &wrap),
        wrap,
        timers,
        process: process::process(&mut b),
        role,
        device,
    };
    data::key_method(&mut b);
    if let Role::Server(role) = &config.role {
        for name in CLIENT_ONLY {
            if let Some(line) = b.line(name) {
                b.error(line, "is not supported on a server yet; remove the line");
            }
        }
        push::check(&mut b, role);
        server::check_overlap(&mut b, role, &config.transport);
    }
    config
}

/// What a per-client file of the server `role` says. Meaningless if a problem was reported.
pub(super) fn client_settings(
    source: &Source,
    files: &dyn Files,
    problems: &mut Problems,
    role: &ServerRole,
) -> ClientSettings {
    ccd::settings(&mut Build { source, files, problems, server: true, block: false }, role)
}

/// Decides the role, from whatever speaks for one.
fn is_server(source: &Source, problems: &mut Problems) -> bool {
    if let Some(mode) = source.last("mode").filter(|mode| mode.arg(0) != Some("server")) {
        let text = "`mode` must be `server`; point-to-point mode is not supported, use `client` or `server`";
        problems.error(&mode.origin, text);
    }
    let server =
        ["server", "server-ipv6", "mode", "server-bridge"].iter().any(|name| source.mentions(name));
    let client = ["client", "pull"].iter().any(|name| source.mentions(name));
    if !server && !client {
        let text = "neither a server (`server`, `server-ipv6`) nor a client (`client`); point-to-point mode is not supported";
        match source.last("tls-server").or(source.last("tls-client")) {
            Some(line) => {
                problems.error(&line.origin, format!("`{}` alone makes {text}", line.name))
            }
            None => problems.error_whole(text),
        }
    }
    server || (!client && !source.mentions("remote"))
}

impl<'a> Build<'a> {
    /// The line of this name that counts.
    fn line(&self, name: &str) -> Option<&'a Line> {
        self.source.last(name)
    }

    /// Whether there is such a line.
    fn has(&self, name: &str) -> bool {
        self.source.has(name)
    }

    /// Reports that a line is wrong.
    fn error(&mut self, line: &Line, text: impl Display) {
        self.problems.error(&line.origin, format!("`{}`: {text}", line.name));
    }

    /// Reports that a line is doubtful.
    fn warn(&mut self, line: &Line, text: impl Display) {
        self.problems.warn(&line.origin, format!("`{}`: {text}", line.name));
    }

    /// The argument at `index` as a number in `range`; any other is reported.
    fn number(&mut self, line: &Line, index: usize, range: RangeInclusive<u32>) -> Option<u32> {
        let text = line.arg(index)?;
        let number = text.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let (low, high) = (range.start(), range.end());
            self.error(
                line,
                format!("needs a number from {low} to {high}, not `{}`", text.escape_debug()),
            );
        }
        number
    }

    /// The only argument of the line of this name as a number in `range`.
    fn value(&mut self, name: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let line = self.line(name)?;
        self.number(line, 0, range)
    }

    /// The only argument of the line of this name as seconds.
    fn seconds(&mut self, name: &str, range: RangeInclusive<u32>) -> Option<Duration> {
        self.value(name, range).map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// An inline block, or what is in the file that the first argument names.
    fn content(&mut self, line: &Line) -> Option<Zeroizing<Vec<u8>>> {
        if let Some(block) = &line.inline {
            return Some(Zeroizing::new(block.as_bytes().to_vec()));
        }
        let name = line.arg(0)?;
        match self.files.read(&self.source.path(name)) {
            Ok(bytes) => Some(Zeroizing::new(bytes)),
            Err(why) => {
                self.error(line, format!("cannot read {}: {why}", name.escape_debug()));
                None
            }
        }
    }
}
