//! Running scripts beside the tunnel: queued, a few at once, each with an end [9.12].
//!
//! ```text
//! RunHook -> waiting -> running (a process) -> HookDone
//!                          └> deferred (its answer comes by a file) -> HookDone
//! ```
//!
//! Nothing here waits but [`Hooks::run_to_end`], which is for the time before and after the loop.
//! The files that go with a script are `exchange`'s business, its process is `child`'s, both together are a
//! `task`; where there is a keeper (`sys::keeper`) it has them, and what is here asks it. The
//! variables that tell about ourselves come from `surroundings`. What a result means is the
//! engine's business.

mod child;
pub mod device;
mod exchange;
pub mod surroundings;
mod task;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::time::Duration;

use self::child::Script;
use self::exchange::Exchange;
pub use self::exchange::{Answer, Pending};
pub use self::task::Task;
use super::clock::Clock;
use super::keeper::Access;
use super::logger::local_date;
use crate::config::dns::Dns;
use crate::config::hooks::{self as config, Program};
use crate::engine::{Environment, HookKind, HookOutcome, HookRequest, Reply};
use crate::limits::{MAX_HOOK_QUEUE, MAX_HOOKS};
use crate::time::{Instant, UnixTime};

/// How often files of scripts that answer later are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often [`Hooks::run_to_end`] looks whether there is something to do.
const NAP: Duration = Duration::from_millis(5);
/// How long scripts may take once everything else has ended.
const FAREWELL: Duration = Duration::from_secs(5);

/// Every script of a process.
#[derive(Debug)]
pub struct Hooks {
    config: config::Hooks,
    access: Access,
    /// What every script gets to see.
    surroundings: Environment,
    /// What every script of a client, but the one that judges it, gets to see of its server.
    peer: Environment,
    /// How long a script may take.
    limit: Duration,
    waiting: VecDeque<HookRequest>,
    jobs: Vec<Job>,
    device: device::Device,
}

/// A request that has been begun.
#[derive(Debug)]
struct Job {
    ticket: Option<u64>,
    kind: HookKind,
    lane: String,
    exchange: Exchange,
    stage: Stage,
    /// When its time is over.
    end: Instant,
    /// It was: the request has its answer, only the process is not gone yet.
    killed: bool,
}

#[derive(Debug)]
enum Stage {
    /// The process runs.
    Running(Script),
    /// The process has ended and left word that the answer comes later.
    Deferred {
        /// When to look for it next.
        look: Instant,
    },
}

impl Hooks {
    /// Scripts as configured, each with `limit` to come to an end.
    pub fn new(config: config::Hooks, limit: Duration, access: Access) -> Self {
        let mut surroundings = Environment::new();
        for (name, value) in &config.variables {
            surroundings.set(name, value);
        }
        let (waiting, jobs, device) = (VecDeque::new(), Vec::new(), device::Device::default());
        Self {
            config,
            access,
            surroundings,
            peer: Environment::new(),
            limit,
            waiting,
            jobs,
            device,
        }
    }

    /// Goes by another configuration from now on; scripts that run already are not concerned.
    pub fn change(&mut self, config: config::Hooks, limit: Duration) {
        for (name, _) in &self.config.variables {
            self.surroundings.unset(name);
        }
        for (name, value) in &config.variables {
            self.surroundings.set(name, value);
        }
        (self.config, self.limit) = (config, limit);
    }

    /// What every script gets to see; see [`surroundings`].
    pub fn surroundings(&mut self) -> &mut Environment {
        &mut self.surroundings
    }

    /// A client's server, in place of the one before it.
    pub fn introduce(&mut self, peer: Environment) {
        self.peer = peer;
    }

    fn program(&self, kind: HookKind) -> Option<&Program> {
        program(&self.config, kind)
    }

    /// Takes a request in. There is an answer at once if no script is configured, or no room.
    pub fn request(&mut self, request: HookRequest) -> Option<Reply> {
        let outcome = if self.program(request.kind).is_none() {
            HookOutcome::Success { settings: String::new() }
        } else if self.waiting.len() < MAX_HOOK_QUEUE {
            self.waiting.push_back(request);
            return None;
        } else {
            log::error!("{}: too many scripts wait; not run", request.kind.directive());
            HookOutcome::Failure { reason: String::new() }
        };
        request.ticket.map(|ticket| Reply::HookDone { ticket, outcome })
    }

    /// Whether nothing is left to do.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.jobs.is_empty()
    }

    /// What to wait for: output of scripts. Their end is told by SIGCHLD.
    pub fn outputs(&self) -> impl Iterator<Item = RawFd> {
        self.jobs.iter().filter_map(|job| match &job.stage {
            Stage::Running(script) => script.output(),
            Stage::Deferred { .. } => None,
        })
    }

    /// When [`Hooks::serve`] wants to be called at the latest.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let due = self.jobs.iter().filter_map(|job| match job.stage {
            Stage::Running(_) => (!job.killed).then_some(job.end),
            Stage::Deferred { look } => Some(job.end.min(look)),
        });
        let startable = self.next_startable().map(|_| now);
        due.chain(startable).min()
    }

    /// Moves everything on as far as it goes without waiting; the answers that came of it.
    pub fn serve(&mut self, now: Instant) -> Vec<Reply> {
        let mut replies = Vec::new();
        let mut at = 0;
        while let Some(job) = self.jobs.get_mut(at) {
            if job.advance(now, self.limit, &mut replies) {
                self.jobs.swap_remove(at);
            } else {
                at += 1;
            }
        }
        while let Some(request) = self.next_startable().and_then(|at| self.waiting.remove(at)) {
            replies.extend(self.start(now, request));
        }
        replies
    }

    /// The first request in line whose lane is free, if another process may be started.
    fn next_startable(&self) -> Option<usize> {
        let processes = self.jobs.iter().filter(|job| !matches!(job.stage, Stage::Deferred { .. }));
        if processes.count() >= MAX_HOOKS {
            return None;
        }
        let free = |at: &usize| {
            let lane = self.waiting.get(*at).map(|request| request.lane.as_str());
            let ahead = self.waiting.iter().take(*at).map(|request| request.lane.as_str());
            let busy = self.jobs.iter().map(|job| job.lane.as_str());
            !ahead.chain(busy).any(|other| Some(other) == lane)
        };
        // Further back it is not worth looking: those ahead will be done soon.
        (0..self.waiting.len().min(2 * MAX_HOOKS)).find(free)
    }

    /// Starts a script; the answer is here already if that fails.
    fn start(&mut self, now: Instant, request: HookRequest) -> Option<Reply> {
        let mut environment = self.surroundings.clone();
        // A server that is still being judged is not the one that was introduced last.
        if request.kind != HookKind::TlsVerify {
            environment.extend(&self.peer);
        }
        if let HookKind::DnsUp | HookKind::DnsDown = request.kind {
            // It brings the settings that it is about; there may be others by now.
            surroundings::dns(&mut environment, &Dns::default());
        }
        environment.extend(&request.environment);
        environment.set("script_type", request.kind.script_type());
        if let Some(arrival) = environment.value("time_unix").and_then(|unix| unix.parse().ok()) {
            environment.set("time_ascii", local_date(UnixTime(arrival)));
        }
        let HookRequest { ticket, kind, lane, .. } = request;
        let request = HookRequest { environment, lane: String::new(), ..request };
        if let Some(program) = self.program(kind) {
            let arguments = request.arguments.join(" ");
            log::debug!("{}: {} {arguments}", kind.directive(), program.path.display());
        }
        let started = match self.access.is_kept() {
            true => self.access.run_script(&request).map(|(script, output)| {
                (Exchange::kept(kind, script.clone()), Script::kept(kind, script, output))
            }),
            false => Task::begin(&self.config, request).map(Task::into_parts),
        };
        match started {
            Ok((exchange, script)) => {
                let (stage, end) = (Stage::Running(script), now + self.limit);
                let killed = false;
                self.jobs.push(Job { ticket, kind, lane, exchange, stage, end, killed });
                None
            }
            Err(error) => {
                log::error!("{}: cannot be run: {error}", kind.directive());
                let outcome = HookOutcome::Failure { reason: String::new() };
                ticket.map(|ticket| Reply::HookDone { ticket, outcome })
            }
        }
    }

    /// Runs one script and waits for its end. Only where nothing else is to be done meanwhile.
    pub fn run_to_end(&mut self, request: HookRequest) -> HookOutcome {
        // No engine ever counts that far.
        const TICKET: u64 = u64::MAX;
        let clock = Clock::new();
        let mut news: Vec<_> =
            self.request(HookRequest { ticket: Some(TICKET), ..request }).into_iter().collect();
        loop {
            for reply in news {
                if let Reply::HookDone { ticket: TICKET, outcome } = reply {
                    return outcome;
                }
            }
            news = self.serve(clock.now().mono);
            if news.is_empty() {
                std::thread::sleep(NAP);
            }
        }
    }

    /// Lets everything that has been requested come to its end, within reason; then it is ended.
    pub fn finish(&mut self) {
        let clock = Clock::new();
        let end = clock.now().mono + FAREWELL;
        while !self.is_idle() && clock.now().mono < end {
            // Nobody is left who would want to know.
            let _ = self.serve(clock.now().mono);
            std::thread::sleep(NAP);
        }
        for job in self.jobs.drain(..) {
            log::error!("{}: still running at the end; ended", job.kind.directive());
        }
        self.waiting.clear();
    }
}

impl Job {
    /// Does what can be done; whether that was all.
    fn advance(&mut self, now: Instant, limit: Duration, replies: &mut Vec<Reply>) -> bool {
        let overdue = self.end <= now;
        match &mut self.stage {
            Stage::Running(script) => {
                script.read();
                let Some(status) = script.ended() else {
                    if overdue && !self.killed {
                        log::error!(
                            "{}: still running after {} s; ended",
                            self.kind.directive(),
                            limit.as_secs()
                        );
                        script.kill();
                        self.killed = true;
                        self.conclude(self.exchange.overdue(), replies);
                    }
                    return false;
                };
                self.killed || self.ended(now, limit, status, replies)
            }
            Stage::Deferred { look } if *look > now && !overdue => false,
            Stage::Deferred { look } => match self.exchange.later() {
                Some(outcome) => self.conclude(outcome, replies),
                None if overdue => {
                    log::warn!("{}: no answer came in time", self.kind.directive());
                    self.conclude(self.exchange.overdue(), replies)
                }
                None => {
                    *look = now + LOOK;
                    false
                }
            },
        }
    }

    /// The process has ended.
    fn ended(
        &mut self,
        now: Instant,
        limit: Duration,
        status: Option<i32>,
        replies: &mut Vec<Reply>,
    ) -> bool {
        match self.exchange.finished(status) {
            Answer::Now(outcome) => {
                if let HookOutcome::Failure { .. } = outcome {
                    let how = status.map_or("a signal".into(), |status| format!("status {status}"));
                    log::warn!("{}: refused or failed: ended with {how}", self.kind.directive());
                }
                self.conclude(outcome, replies)
            }
            Answer::Later { pending } => {
                let seconds = |pending: &Pending| Duration::from_secs(pending.timeout.into());
                let wait = pending.as_ref().map_or(limit, seconds);
                if let (Some(ticket), Some(pending)) = (self.ticket, pending) {
                    let Pending { timeout, method, message } = pending;
                    replies.push(Reply::HookPending { ticket, timeout, method, message });
                }
                self.end = now + wait;
                self.stage = Stage::Deferred { look: now + LOOK };
                false
            }
        }
    }

    fn conclude(&self, outcome: HookOutcome, replies: &mut Vec<Reply>) -> bool {
        replies.extend(self.ticket.map(|ticket| Reply::HookDone { ticket, outcome }));
        true
    }
}

/// Whether any script is configured. A process without may not run any program (`sys::sandbox`).
pub fn any(config: &config::Hooks) -> bool {
    HookKind::ALL.iter().any(|kind| program(config, *kind).is_some())
}

/// What is to run on this occasion.
fn program(config: &config::Hooks, kind: HookKind) -> Option<&Program> {
    let program = match kind {
        HookKind::Up => &config.up,
        HookKind::Down => &config.down,
        HookKind::RouteUp => &config.route_up,
        HookKind::RoutePreDown => &config.route_pre_down,
        HookKind::DnsUp | HookKind::DnsDown => &config.dns_updown,
        HookKind::IpChange => &config.ipchange,
        HookKind::TlsVerify => &config.tls_verify,
        HookKind::TlsCryptV2Verify => &config.tls_crypt_v2_verify,
        HookKind::AuthUserPassVerify => &config.auth_user_pass_verify,
        HookKind::ClientConnect => &config.client_connect,
        HookKind::ClientDisconnect => &config.client_disconnect,
        HookKind::LearnAddress => &config.learn_address,
    };
    program.as_ref()
}
