//! One line of the management protocol and what it asks for [9.14].
//!
//! Words are cut as in a configuration file (quotes, backslashes). The texts of errors are those
//! that OpenVPN 2.6 answers with; programs match them.

use crate::config::lex::{LexError, split};

/// What a line asks for. Parameters whose meaning depends on the state of things stay text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Nothing: an empty line or a comment.
    Nothing,
    /// End the session.
    Exit,
    /// The list of commands.
    Help,
    /// What we are.
    Version,
    /// What the other program understands; not answered.
    ClientVersion,
    /// Process id.
    Pid,
    /// Number of clients.
    ClientCount,
    /// How much of a client's environment to show.
    EnvFilter(i32),
    /// Raise a signal.
    Signal(String),
    /// Clients and bytes.
    LoadStats,
    /// The status; 0 is the default format.
    Status(i32),
    /// End the connections of a name or an address.
    Kill(String),
    /// End the connection of a client by its number.
    ClientKill(String, Option<String>),
    /// Show or set the verbosity.
    Verb(Option<i32>),
    /// Show or set the limit of repeated lines.
    Mute(Option<i32>),
    /// Show or set what happens after failed authentication.
    AuthRetry(Option<String>),
    /// Log lines: `on`, `off`, `all` or a number, up to two of them.
    Log(Vec<String>),
    /// States, likewise.
    State(Vec<String>),
    /// Echoes, likewise.
    Echo(Vec<String>),
    /// Show, set or release the hold.
    Hold(Option<String>),
    /// Report bytes every so many seconds; 0 never.
    Bytecount(i32),
    /// Drop passwords from memory; there are none.
    ForgetPasswords,
    /// Let this client in with this key; lines for it follow, up to `END`.
    ClientAuth([String; 2]),
    /// The same without lines.
    ClientAuthNt([String; 2]),
    /// Keep this client out: a reason for the log and one for the client, which may be empty.
    ClientDeny([String; 2], String, String),
    /// Let this client wait: its number, the key's, a message and seconds.
    ClientPendingAuth([String; 4]),
    /// User name or password, after what kind of login it is for.
    Entered(&'static str, [String; 2]),
    /// A command for clients only, and one that is not acted on.
    ClientOnly(&'static str),
    /// Already answered: the text of an error.
    Error(String),
}

/// Commands with the fewest parameters each takes, where that is checked, and whether more are fine.
const NEEDS: &[(&str, usize, bool)] = &[
    ("bytecount", 1, false),
    ("client-auth", 2, false),
    ("client-auth-nt", 2, false),
    ("client-deny", 3, true),
    ("client-kill", 1, true),
    ("client-pending-auth", 4, false),
    ("cr-response", 1, false),
    ("echo", 1, true),
    ("kill", 1, false),
    ("log", 1, true),
    ("needok", 2, false),
    ("needstr", 2, false),
    ("password", 2, false),
    ("proxy", 1, true),
    ("remote", 1, true),
    ("remote-entry-get", 1, true),
    ("signal", 1, false),
    ("username", 2, false),
];

/// Reads a line without its end. Every line is some request.
pub fn parse(line: &str) -> Request {
    let words = match split(line) {
        Ok(words) => words,
        Err(error) => return Request::Error(format!("ERROR: Options error: {}", reason(error))),
    };
    let mut words = words.into_iter();
    let Some(name) = words.next() else { return Request::Nothing };
    let mut args: Vec<String> = words.collect();
    let need = NEEDS.iter().find(|(command, needed, _)| *command == name && args.len() < *needed);
    if let Some((_, needed, more)) = need {
        let (least, s) = (if *more { "at least " } else { "" }, if *needed > 1 { "s" } else { "" });
        let text = format!("ERROR: the '{name}' command requires {least}{needed} parameter{s}");
        return Request::Error(text);
    }
    if let Some(request) = about_client(&name, &args) {
        return request;
    }
    args.truncate(2);
    let (first, second) = (args.first().cloned(), args.get(1).cloned());
    let error = |text: &str| Request::Error(format!("ERROR: {text}"));
    match name.as_str() {
        "exit" | "quit" => Request::Exit,
        "help" => Request::Help,
        "version" if first.is_some() => Request::ClientVersion,
        "version" => Request::Version,
        "pid" => Request::Pid,
        "nclients" => Request::ClientCount,
        "env-filter" => Request::EnvFilter(number(first)),
        "signal" => Request::Signal(first.unwrap_or_default()),
        "load-stats" => Request::LoadStats,
        "status" => Request::Status(number(first)),
        "kill" => Request::Kill(first.unwrap_or_default()),
        "client-kill" => Request::ClientKill(first.unwrap_or_default(), second),
        "verb" => Request::Verb(first.map(|text| number(Some(text)))),
        "mute" => Request::Mute(first.map(|text| number(Some(text)))),
        "auth-retry" => Request::AuthRetry(first),
        "log" => Request::Log(args),
        "state" if args.is_empty() => Request::State(vec!["1".to_owned()]),
        "state" => Request::State(args),
        "echo" => Request::Echo(args),
        "hold" => Request::Hold(first),
        "bytecount" => Request::Bytecount(number(first)),
        "forget-passwords" => Request::ForgetPasswords,
        "remote" => Request::ClientOnly("remote"),
        "remote-entry-count" => Request::ClientOnly("remote-entry-count"),
        "remote-entry-get" => Request::ClientOnly("remote-entry-get"),
        "proxy" => Request::ClientOnly("proxy"),
        // As OpenVPN spells it.
        "cr-response" => Request::ClientOnly("cr-repsonse"),
        "username" => Request::Entered("username", [first, second].map(Option::unwrap_or_default)),
        "password" => Request::Entered("password", [first, second].map(Option::unwrap_or_default)),
        "needok" => error("no needok-confirmation is currently needed at this time"),
        "needstr" => error("no needstr-string is currently needed at this time"),
        "rsa-sig" | "pk-sig" | "certificate" => {
            error(&format!("The {name} command is not currently available"))
        }
        "net" => error("Sorry, this command is currently only implemented on Windows"),
        _ => error("unknown command, enter 'help' for more options"),
    }
}

/// The decisions of `management-client-auth`.
fn about_client(name: &str, args: &[String]) -> Option<Request> {
    Some(match (name, args) {
        ("client-auth", [client, key, ..]) => Request::ClientAuth([client.clone(), key.clone()]),
        ("client-auth-nt", [client, key, ..]) => {
            Request::ClientAuthNt([client.clone(), key.clone()])
        }
        ("client-deny", [client, key, reason, told @ ..]) => {
            let told = told.first().cloned().unwrap_or_default();
            Request::ClientDeny([client.clone(), key.clone()], reason.clone(), told)
        }
        ("client-pending-auth", [client, key, message, seconds, ..]) => {
            let words = [client, key, message, seconds].map(String::clone);
            Request::ClientPendingAuth(words)
        }
        _ => return None,
    })
}

/// What stock software calls these mistakes.
fn reason(error: LexError) -> &'static str {
    match error {
        LexError::OpenQuote => "No closing quotation (\") in TCP:0",
        LexError::OpenSingleQuote => "No closing single quotation (') in TCP:0",
        LexError::BadBackslash => "Bad backslash ('\\') usage in TCP:0",
        LexError::TooManyWords => "Too many parameters in TCP:0",
        LexError::BadCharacter => "Bad character in TCP:0",
    }
}

/// C's `atoi`: digits as far as there are any, 0 without; where C overflows, the nearest number.
pub(super) fn number(text: Option<String>) -> i32 {
    let text = text.unwrap_or_default();
    let text = text.trim_start();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = digits.chars().map_while(|c| c.to_digit(10));
    let value = digits
        .fold(0_i32, |value, digit| value.saturating_mul(10).saturating_add(digit.cast_signed()));
    if negative { -value } else { value }
}

/// The answer to `help`: the commands that do something here.
pub const HELP: &str = "\
Commands:
auth-retry t           : Show the auth failure retry mode (none).
bytecount n            : Show bytes in/out, update every n secs (0=off).
client-auth CID KID    : Let a client in, with the lines up to END as its settings.
client-auth-nt CID KID : Let a client in.
client-deny CID KID R [CR] : Keep a client out, with log reason R and client reason CR.
client-pending-auth CID KID MSG timeout : Let a client wait for so many seconds, and send it MSG.
client-kill CID [M]    : Kill client instance CID with message M (RESTART or HALT, def=RESTART)
echo [on|off] [N|all]  : Like log, but only show messages in echo buffer.
env-filter [level]     : Set env-var filter level
exit|quit              : Close management session.
forget-passwords       : Forget passwords entered so far.
help                   : Print this message.
hold [on|off|release]  : Set/show hold flag to on/off state, or
                         release current hold and start tunnel.
kill cn                : Kill the client instance(s) having common name cn.
kill IP:port           : Kill the client instance connecting from IP:port;
                         also [IPv6]:port, udp:IP:port, and a bare IPv6 address.
load-stats             : Show global server load stats.
log [on|off] [N|all]   : Turn on/off realtime log display
                         + show last N lines or 'all' for entire history.
mute [n]               : Set log mute level to n, or show level if n is absent.
pid                    : Show process ID of the current process.
signal s               : Send signal s to daemon,
                         s = SIGHUP|SIGTERM|SIGUSR1|SIGUSR2.
state [on|off] [N|all] : Like log, but show state history.
status [n]             : Show current daemon status info using format #n.
verb [n]               : Set log verbosity level to n, or show if n is absent.
version [n]            : Set client's version to n or show current version of daemon.
END
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_in_c() {
        for (text, value) in [
            ("7", 7),
            (" +12x", 12),
            ("-3", -3),
            ("x", 0),
            ("", 0),
            ("99999999999", i32::MAX),
            ("-99999999999", -i32::MAX),
        ] {
            assert_eq!(number(Some(text.to_owned())), value, "{text:?}");
        }
        assert_eq!(number(None), 0);
    }

    #[test]
    fn lines_become_requests() {
        assert_eq!(parse(""), Request::Nothing);
        assert_eq!(parse(" # x"), Request::Nothing);
        assert_eq!(parse("kill \"a phone\""), Request::Kill("a phone".into()));
        assert_eq!(parse("state"), Request::State(vec!["1".into()]));
        assert_eq!(parse("state on all x"), Request::State(vec!["on".into(), "all".into()]));
        let kill = Request::ClientKill("3".into(), Some("HALT".into()));
        assert_eq!(parse("client-kill 3 HALT"), kill);
        assert_eq!(parse("version 3"), Request::ClientVersion);
        assert_eq!(parse("status 2 x"), Request::Status(2));
    }
}
