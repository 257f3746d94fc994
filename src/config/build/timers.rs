//! Everything with seconds: keepalive [9.9], key lifetimes [3.6], retransmission [3.1].

use std::time::Duration;

use super::Build;
use crate::config::Timers;

/// Longest time that makes sense in a ping directive: a day.
const DAY: u32 = 86_400;
/// Bound of other times, far beyond use and far from overflow.
const YEAR: u32 = 366 * DAY;
/// A client gives a silent server up after this, until it has been told otherwise [9.9].
const CLIENT_RESTART: Duration = Duration::from_secs(120);

/// `keepalive`, `ping*`, `reneg-sec`, `hand-window`, `tran-window`, `tls-timeout`.
pub(super) fn timers(b: &mut Build<'_>) -> Timers {
    let handshake = b.seconds("hand-window", 1..=YEAR).unwrap_or(Duration::from_secs(60));
    let (ping, ping_restart) = ping(b);
    let mut timers = Timers {
        ping: ping.filter(|time| !time.is_zero()),
        ping_restart,
        ping_exit: b.seconds("ping-exit", 0..=DAY).filter(|time| !time.is_zero() && !b.server),
        push_keepalive: None,
        reneg: renegotiation(b),
        handshake,
        transition: b.seconds("tran-window", 1..=YEAR).unwrap_or(Duration::from_secs(3600)),
        retransmit: b.seconds("tls-timeout", 1..=DAY).unwrap_or(Duration::from_secs(2)),
    };
    if timers.ping_restart.is_none() && !b.server {
        timers.ping_restart = Some(CLIENT_RESTART);
    }
    if let Some(line) = b.line("ping-restart").filter(|_| timers.ping_exit.is_some()) {
        b.error(line, "`ping-exit` is given too; a silent server either ends the client or not");
    }
    timers.ping_restart = timers.ping_exit.or(timers.ping_restart).filter(|time| !time.is_zero());
    keepalive(b, &mut timers);
    timers
}

/// `ping` and `ping-restart` as given; zero is never. On a server either end of silence ends just
/// that client, so `ping-exit` is the same there.
pub(super) fn ping(b: &mut Build<'_>) -> (Option<Duration>, Option<Duration>) {
    let restart = b.seconds("ping-restart", 0..=DAY);
    let exit = if b.server { b.seconds("ping-exit", 0..=DAY) } else { None };
    (b.seconds("ping", 0..=DAY), restart.or(exit))
}

/// `inactive`: seconds, and the tunnel bytes in them that count as use; zero is never.
pub(super) fn inactive(b: &mut Build<'_>) -> Option<(Duration, u64)> {
    let line = b.line("inactive")?;
    let period = b.number(line, 0, 0..=YEAR)?;
    let enough = match line.arg(1).map(str::parse) {
        None => 0,
        Some(Ok(bytes)) => bytes,
        Some(Err(_)) => {
            b.error(line, "the second argument is a number of bytes");
            0
        }
    };
    Some((Duration::from_secs(period.into()), enough))
}

/// `session-timeout`; zero is never.
pub(super) fn session_timeout(b: &mut Build<'_>) -> Option<Duration> {
    b.seconds("session-timeout", 0..=YEAR)
}

fn keepalive(b: &mut Build<'_>, timers: &mut Timers) {
    let Some(line) = b.line("keepalive") else { return };
    // The server waits twice as long, and that must stay within a day too.
    let high = if b.server { DAY / 2 } else { DAY };
    let (Some(ping), Some(restart)) = (b.number(line, 0, 1..=DAY / 2), b.number(line, 1, 1..=high))
    else {
        return;
    };
    if restart < 2 * ping {
        let text = format!(
            "the second number must be at least twice the first ({}), or one lost ping ends the session",
            2 * ping
        );
        b.error(line, text);
    }
    for other in ["ping", "ping-restart", "ping-exit"] {
        if b.has(other) {
            b.error(line, format!("includes `{other}`, which is given too; keep one of them"));
        }
    }
    let seconds = |n: u32| Some(Duration::from_secs(n.into()));
    timers.ping = seconds(ping);
    timers.ping_restart = if b.server { seconds(2 * restart) } else { seconds(restart) };
    timers.push_keepalive = b.server.then_some((ping, restart));
}

/// `reneg-sec max [min]`: a server's keys live a random time between the two, so that not all
/// clients renew at once; the smaller is 90 % of the larger unless given [3.6].
fn renegotiation(b: &mut Build<'_>) -> (Duration, Duration) {
    let line = b.line("reneg-sec");
    let most = line.and_then(|line| b.number(line, 0, 0..=YEAR)).unwrap_or(3600);
    let least = line.and_then(|line| b.number(line, 1, 0..=YEAR));
    if let (Some(line), Some(least)) = (line, least.filter(|least| *least > most)) {
        b.error(
            line,
            format!("the second number is the smaller lifetime, but {least} is more than {most}"),
        );
    }
    let usual = if b.server { most - most / 10 } else { most };
    let seconds = |n: u32| Duration::from_secs(n.into());
    (seconds(most), seconds(least.unwrap_or(usual).min(most)))
}
