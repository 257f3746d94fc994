//! `sixgate client set`: writes a client's file, once it is clear that nobody else has what is wished,
//! and has the running server read it.
//!
//! The same command makes the files of an init system that has clients' settings in a place of its
//! own: `--config` and `--files` say for which server and where, and nobody is told. What the lines are is
//! `config::ccd::wish`'s business.

use std::fs;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::client_files::ClientFolder;
use super::commands::{ask, print, remark};
use super::netlink::Netlink;
use super::state;
use super::store::{Disk as _, DiskFiles, OsDisk, read_optional, write_private};
use crate::cli;
use crate::config::ccd::wish::Wish;
use crate::config::ccd::{self, ClientFiles, ClientSettings};
use crate::config::{self, Role, ServerRole};
use crate::pki::names::ClientName;

/// `sixgate client set`.
pub fn run(options: &cli::ClientSet) -> Result<(), String> {
    let name = ClientName::read(&options.name)?;
    set(options, &name).map_err(|error| format!("client {name}: {error}"))
}

fn set(options: &cli::ClientSet, name: &ClientName) -> Result<(), String> {
    apply(options, name, &Wish::parse(&options.settings)?)
}

/// Puts a wish in force.
pub(super) fn apply(
    options: &cli::ClientSet,
    name: &ClientName,
    wish: &Wish,
) -> Result<(), String> {
    let (role, mut files) = server(options)?;
    if options.config.is_none() {
        must_exist(options, name)?;
    }
    if let Some(dir) = &options.files {
        files.dir.clone_from(dir);
    }
    let role = ServerRole { client_files: Some(files.clone()), ..role };
    let path = files.dir.join(name.as_str());
    let old = read_optional(&path)?.unwrap_or_default();
    let old = core::str::from_utf8(&old).map_err(|_| format!("{}: not text", path.display()))?;
    let text = wish.text(old, &role)?;
    let settings = checked(&path, &text, &files, &role)?;
    refuse_conflicts(name.as_str(), &settings, &role)?;
    write(&path, &text, &files)?;
    match options.config {
        Some(_) => Ok(()),
        None => tell(options, &path, text.is_empty()),
    }
}

/// The server that this is about, and where its clients' files are.
fn server(options: &cli::ClientSet) -> Result<(ServerRole, ClientFiles), String> {
    let file = options.config.clone().unwrap_or_else(|| options.dir.join("server.conf"));
    let loaded = config::load_file(&file, &DiskFiles).map_err(|error| error.to_string())?;
    let Role::Server(role) = loaded.config.role else {
        return Err(format!("{} configures a client", file.display()));
    };
    let files = role.client_files.clone().or_else(|| {
        let dir = options.files.clone()?;
        Some(ClientFiles { dir, base: PathBuf::new(), exclusive: false, optional: true })
    });
    match files {
        Some(files) => Ok((role, files)),
        None => Err(format!(
            "{}: add `client-config-dir FOLDER`, or `sixgate-state {}`",
            file.display(),
            options.dir.display()
        )),
    }
}

/// A mistyped name would give somebody else an address one day.
fn must_exist(options: &cli::ClientSet, name: &ClientName) -> Result<(), String> {
    let list = state::client_list(&options.dir)?;
    let known = list.clients.iter().any(|c| c.name == name.as_str() && c.revoked.is_none());
    if known {
        return Ok(());
    }
    Err(format!("there is no client {name}: `sixgate client add {name}` makes it"))
}

/// What the server will make of the file.
fn checked(
    path: &Path,
    text: &str,
    files: &ClientFiles,
    role: &ServerRole,
) -> Result<ClientSettings, String> {
    let overlay = Overlay { path, text };
    let (settings, warnings) =
        ccd::load(path, &files.base, &overlay, role).map_err(|error| error.to_string())?;
    remark(&warnings.iter().map(ToString::to_string).collect::<Vec<_>>());
    Ok(settings)
}

/// The files on disk, and the one that is to be.
struct Overlay<'a> {
    path: &'a Path,
    text: &'a str,
}

impl config::Files for Overlay<'_> {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        if path == self.path {
            return Ok(self.text.as_bytes().to_vec());
        }
        DiskFiles.read(path)
    }

    fn has_aes(&self) -> bool {
        DiskFiles.has_aes()
    }
}

/// Other clients' files, and the host's own networks.
fn refuse_conflicts(
    name: &str,
    settings: &ClientSettings,
    role: &ServerRole,
) -> Result<(), String> {
    let survey =
        ClientFolder::new(role).map(|folder| folder.survey(&DiskFiles)).unwrap_or_default();
    if let Some((other, net)) = survey.rival(name, settings) {
        return Err(format!("{net} belongs to the client {other} already"));
    }
    let addresses = Netlink::open().and_then(|mut netlink| netlink.local_addresses());
    let ours = [role.v4.map(IpNet::V4), role.v6.map(IpNet::V6)];
    for (_, local) in addresses.unwrap_or_default() {
        let is_tunnel = ours.iter().flatten().any(|own| own.addr() == local.addr());
        let local = local.trunc();
        let hit = |net: &&IpNet| net.contains(&local) || local.contains(*net);
        let hit = settings.published.iter().find(hit);
        if let Some(net) = hit.filter(|_| !is_tunnel && local.prefix_len() > 0) {
            return Err(format!("{net} overlaps with {local}, which this host has itself"));
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str, files: &ClientFiles) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if text.is_empty() {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        };
    }
    if !files.dir.is_dir() {
        OsDisk.make_dir(&files.dir).map_err(failed)?;
    }
    write_private(&OsDisk, path, text.as_bytes())
}

/// Has the running server take it over.
fn tell(options: &cli::ClientSet, path: &Path, gone: bool) -> Result<(), String> {
    let (name, path) = (&options.name, path.display());
    let done =
        if gone { format!("nothing is particular to {name} any more") } else { format!("{path}") };
    match ask(&options.dir, "reload") {
        Ok(answer) if answer.trim() == "ok" => {
            print(&format!("{done}; the running server has taken it over\n"))
        }
        Ok(answer) => {
            Err(format!("{done}; but the running server has not taken it over: {}", answer.trim()))
        }
        Err(None) => print(&format!("{done}; no server is running\n")),
        Err(Some(error)) => {
            Err(format!("{done}; but the running server could not be told: {error}"))
        }
    }
}
