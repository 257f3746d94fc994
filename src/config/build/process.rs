//! About the process: `user`, `group`, `verb`, log and files.

use super::{Build, manage};
use crate::config::Process;

/// All of `config::Process`.
pub(super) fn process(b: &mut Build<'_>) -> Process {
    let text = |b: &Build<'_>, name| b.line(name).and_then(|line| line.arg(0)).map(str::to_owned);
    let path = |b: &Build<'_>, name| text(b, name).map(|name| b.source.path(&name));
    let append = b.line("log-append");
    let log_file = match (append, path(b, "log-append"), path(b, "log")) {
        (_, Some(file), None) => Some((file, true)),
        (Some(line), Some(file), Some(_)) => {
            b.warn(line, "`log` is given too; this one counts");
            Some((file, true))
        }
        (_, _, file) => file.map(|file| (file, false)),
    };
    let daemon = b.line("daemon");
    Process {
        user: text(b, "user"),
        group: text(b, "group"),
        verb: b.value("verb", 0..=11).unwrap_or(1) as u8,
        daemon: daemon.is_some(),
        syslog: b.line("syslog").or(daemon).map(|line| line.arg(0).unwrap_or("sixgate").to_owned()),
        log_file,
        pid_file: path(b, "writepid"),
        status_file: manage::status_file(b),
        status_version: b.value("status-version", 1..=3).unwrap_or(1) as u8,
        management: manage::management(b),
        state: path(b, "sixgate-state"),
    }
}
