//! How other programs look at the process: `status`, `management` and what belongs to it [9.13, 9.14].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::Build;
use crate::config::lex::Line;
use crate::config::{Management, ManagementAddress, Secret};

/// Seconds between two writes of the status file by default.
const STATUS_INTERVAL: u32 = 60;
/// Log lines kept for the management interface by default.
const LOG_LINES: u32 = 250;

/// `status`: the file and its interval.
pub(super) fn status_file(b: &mut Build<'_>) -> Option<(PathBuf, Duration)> {
    let line = b.line("status")?;
    let file = b.source.path(line.arg(0)?);
    let seconds = match line.arg(1) {
        Some(_) => b.number(line, 1, 0..=86_400)?,
        None => STATUS_INTERVAL,
    };
    // Zero would write it all the time; OpenVPN never writes it then.
    Some((file, Duration::from_secs(seconds.into()))).filter(|(_, every)| !every.is_zero())
}

/// `management` with its password, hold, log lines and who may connect.
pub(super) fn management(b: &mut Build<'_>) -> Option<Management> {
    let text = |b: &Build<'_>, name| b.line(name).and_then(|line| line.arg(0)).map(str::to_owned);
    let log_lines = b.value("management-log-cache", 1..=100_000).unwrap_or(LOG_LINES) as usize;
    let client = (text(b, "management-client-user"), text(b, "management-client-group"));
    let hold = b.line("management-hold");
    let Some(line) = b.line("management") else {
        if let Some(hold) = hold {
            b.error(hold, "needs `management`, or nobody could release the hold");
        }
        if let Some(line) = b.line("management-query-passwords") {
            b.error(line, "needs `management`, or nobody could be asked");
        }
        return None;
    };
    let listen = listen(b, line)?;
    let password = match line.arg(2) {
        Some(file) => Some(password(b, line, file)?),
        None => None,
    };
    if let (None, ManagementAddress::Tcp(address)) = (&password, &listen) {
        let who = if address.ip().is_loopback() { "every user of this host" } else { "everybody" };
        b.warn(line, format!("{who} may connect; name a file with a password after the port"));
    }
    let (hold, query) = (hold.is_some(), b.has("management-query-passwords"));
    Some(Management { listen, password, hold, query, log_lines, client })
}

fn listen(b: &mut Build<'_>, line: &Line) -> Option<ManagementAddress> {
    let (address, port) = (line.arg(0)?, line.arg(1)?);
    if port == "unix" {
        return Some(ManagementAddress::Unix(b.source.path(address)));
    }
    let port = u16::try_from(b.number(line, 1, 1..=65_535)?).ok()?;
    let ip = match address {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => address.parse().ok(),
    };
    if ip.is_none() {
        b.error(line, "needs an IP address and a port, or the path of a socket and `unix`");
    }
    ip.map(|ip| ManagementAddress::Tcp(SocketAddr::new(ip, port)))
}

/// The first line of a file.
fn password(b: &mut Build<'_>, line: &Line, file: &str) -> Option<Secret> {
    if file == "stdin" {
        b.error(line, "nobody can be asked for the password here; put it into a file");
        return None;
    }
    let bytes = match b.files.read(&b.source.path(file)) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(why) => {
            b.error(line, format!("cannot read {}: {why}", file.escape_debug()));
            return None;
        }
    };
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let first = core::str::from_utf8(first).ok().map(|text| text.trim_end_matches('\r'));
    match first.filter(|text| !text.is_empty()) {
        Some(text) => Some(Secret(Zeroizing::new(text.to_owned()))),
        None => {
            b.error(line, format!("there is no password in {}", file.escape_debug()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::files;
    use crate::config::{ConfigError, Loaded, PoolPersist, Role, ServerRole, load_file};

    fn load(lines: &str) -> Result<Loaded, ConfigError> {
        let rest = "server 10.8.0.0 255.255.255.0\nca ca.crt\ncert server.crt\nkey server.key\n";
        load_file("main.conf", &files(&format!("{lines}\n{rest}")))
    }

    fn server(lines: &str) -> Loaded {
        load(lines).unwrap_or_else(|error| panic!("{error}"))
    }

    fn server_error(lines: &str) -> String {
        load(lines).unwrap_err().to_string()
    }

    fn role(loaded: &Loaded) -> &ServerRole {
        match &loaded.config.role {
            Role::Server(role) => role,
            Role::Client(_) => panic!("a client"),
        }
    }

    #[test]
    fn management_status_and_leases() {
        let loaded = server(
            "management ::1 7505 pass.txt\nmanagement-hold\nmanagement-log-cache 7\n\
             status s.txt 5\nstatus-version 3\nifconfig-pool-persist p.txt",
        );
        let process = &loaded.config.process;
        let management = process.management.as_ref().unwrap();
        assert_eq!(management.listen, ManagementAddress::Tcp("[::1]:7505".parse().unwrap()));
        assert_eq!(management.password.as_ref().unwrap().0.as_str(), "alice");
        assert!(management.hold && management.log_lines == 7);
        assert!(!format!("{process:?}").contains("alice"));
        assert_eq!(process.status_file, Some(("s.txt".into(), Duration::from_secs(5))));
        assert_eq!(process.status_version, 3);
        let every = Some(Duration::from_secs(600));
        let persist = PoolPersist { file: "p.txt".into(), every };
        assert_eq!(role(&loaded).pool_persist, Some(persist));
        assert_eq!(loaded.warnings.len(), 0);
        let plan = loaded.plan().join("\n");
        assert!(
            plan.contains("serve a management program on TCP [::1]:7505, which has to release")
        );

        let fixed = server("ifconfig-pool-persist p.txt 0\nmanagement /run/m unix");
        assert_eq!(role(&fixed).pool_persist.as_ref().unwrap().every, None);
        let listen = fixed.config.process.management.unwrap().listen;
        assert_eq!(listen, ManagementAddress::Unix("/run/m".into()));
        assert!(server("management localhost 7505").warnings[0].to_string().contains("every user"));
        for (lines, why) in [
            ("management-hold", "nobody could release"),
            ("management-query-passwords", "nobody could be asked"),
            ("management example.net 7505", "needs an IP address"),
            ("management ::1 0", "needs a number"),
            ("management ::1 7505 stdin", "nobody can be asked"),
            ("management ::1 7505 missing", "cannot read missing"),
            ("status-version 4", "needs a number"),
        ] {
            assert!(server_error(lines).contains(why), "{lines}: {}", server_error(lines));
        }
    }
}
