//! The commands that do their work and end: clients of the state folder, and the status.
//!
//! What they print on standard output is their result; remarks for the user go to standard error,
//! so that `client add NAME --out -` can be piped. Certificates and files are `state`'s business.

use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::clock::{OsRandom, unix_time};
use super::ctl_socket::{self, AskError};
use super::state;
use crate::cli;
use crate::pki::certificate::date;

/// How often `sixgate log -f` asks for new lines.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// `sixgate client add`.
pub fn client_add(options: &cli::ClientAdd) -> Result<(), String> {
    let out = options.out.as_deref();
    let mut random = OsRandom::new();
    let added = state::client_add(&options.dir, &options.name, out, unix_time(), &mut random)?;
    match &added.path {
        Some(path) => print(&format!("{}\n", path.display()))?,
        None => print(&added.profile)?,
    }
    remark(&added.notes);
    Ok(())
}

/// `sixgate client list`.
pub fn client_list(options: &cli::ClientList) -> Result<(), String> {
    let list = state::client_list(&options.dir)?;
    let width = list.clients.iter().map(|client| client.name.len()).max().unwrap_or(0).max(4);
    let mut text = format!("{:width$}  {:8}  {:20}  SERIAL\n", "NAME", "STATE", "EXPIRES");
    let now = unix_time();
    for client in &list.clients {
        let state = match client.revoked {
            Some(_) => "revoked",
            None if client.expires <= now => "expired",
            None => "valid",
        };
        let (name, expires) = (&client.name, date(client.expires));
        text += &format!("{name:width$}  {state:8}  {expires:20}  {}\n", client.serial);
    }
    print(&text)?;
    remark(&list.notes);
    Ok(())
}

/// `sixgate client revoke`.
pub fn client_revoke(options: &cli::ClientRevoke) -> Result<(), String> {
    let revoked = state::client_revoke(&options.dir, &options.name, unix_time())?;
    remark(&revoked.notes);
    let name = &options.name;
    let mut dropped = 0;
    // One request has room for about a hundred serial numbers.
    for some in revoked.entries.chunks(64) {
        let serials: Vec<String> = some.iter().map(|entry| entry.serial.to_string()).collect();
        match ask(&options.dir, &format!("revoke {}", serials.join(" "))) {
            Ok(answer) => {
                let count = answer.trim().strip_prefix("ok ").and_then(|n| n.parse::<u32>().ok());
                dropped += count.ok_or_else(|| {
                    format!("{name} is revoked, but the running server says: {}", answer.trim())
                })?;
            }
            Err(None) => {
                return print(&format!("{name} is revoked; no server is running\n"));
            }
            Err(Some(error)) => {
                return Err(format!(
                    "{name} is revoked, but the running server could not be told: {error}"
                ));
            }
        }
    }
    print(&format!("{name} is revoked; {dropped} {} ended\n", connections(dropped)))
}

/// `sixgate status`.
pub fn status(options: &cli::Status) -> Result<(), String> {
    print(&ask_running(&options.dir, if options.json { "status json" } else { "status" })?)
}

/// `sixgate kick`.
pub fn kick(options: &cli::Kick) -> Result<(), String> {
    let name = &options.name;
    let answer = ask_running(&options.dir, &format!("kill {name}"))?;
    match answer.trim().strip_prefix("ok ").map(str::parse::<u32>) {
        Some(Ok(0)) => Err(format!("no client named '{name}' is connected")),
        Some(Ok(count)) => print(&format!("{name}: {count} {} ended\n", connections(count))),
        Some(Err(_)) | None => Err(format!("the server says: {}", answer.trim())),
    }
}

/// `sixgate log`.
pub fn log(options: &cli::Log) -> Result<(), String> {
    let mut request = format!("log {}", options.lines);
    loop {
        let answer = ask_running(&options.dir, &request)?;
        let (first, lines) = answer.split_once('\n').unwrap_or((&answer, ""));
        let next = first.strip_prefix("next ").and_then(|number| number.parse::<u64>().ok());
        let Some(next) = next else { return Err(format!("the server says: {first}")) };
        if !print_on(lines)? || !options.follow {
            return Ok(());
        }
        thread::sleep(FOLLOW_EVERY);
        request = format!("log from {next}");
    }
}

fn ask_running(dir: &Path, request: &str) -> Result<String, String> {
    ask(dir, request).map_err(|error| match error {
        None => format!("no server is running with {}", dir.display()),
        Some(error) => format!("the server does not answer: {error}"),
    })
}

const fn connections(count: u32) -> &'static str {
    if count == 1 { "connection" } else { "connections" }
}

/// The answer of the process that serves `dir`; `Err(None)` when there is no such process.
pub fn ask(dir: &Path, request: &str) -> Result<String, Option<String>> {
    ctl_socket::ask(dir, request).map_err(|error| match error {
        AskError::NotRunning => None,
        AskError::Io(error) => Some(error.to_string()),
    })
}

/// Prints a result. A reader that has gone away (`| head`) is no failure.
pub fn print(text: &str) -> Result<(), String> {
    print_on(text).map(drop)
}

/// The same, and says whether there is still a reader.
fn print_on(text: &str) -> Result<bool, String> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(format!("standard output: {error}")),
    }
}

/// Prints what the user should know or do.
pub fn remark(notes: &[String]) {
    for note in notes {
        eprintln!("note: {note}");
    }
}
