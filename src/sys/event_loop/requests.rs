//! What others ask of the loop and are told by it: signals, the control socket, the management
//! interface, the files for others to read.

use super::{DESCRIPTORS, GOODBYE, Turns, Upkeep};
use crate::engine::{Engine, Reply};
use crate::manage::{self, Action, Overview, View, json};
use crate::sys::ctl_socket::Request;
use crate::sys::poll::PollSet;
use crate::sys::reports::view;
use crate::sys::signal::Signal;
use crate::sys::{logger, process, status};
use crate::time::Now;

/// Without the keeper there are no leases, no clients' files, no reload.
const ORPHANED: &str = "the keeper, its other process, is gone; ending";

impl<E: Engine, U: Upkeep<E>> Turns<E, U> {
    pub(super) fn handle_signals(&mut self, now: Now) {
        while let Some(signal) = self.shell.signals.next() {
            self.handle_signal(now, signal);
            if signal == Signal::Orphaned {
                break;
            }
        }
        self.drain(now);
    }

    fn handle_signal(&mut self, now: Now, signal: Signal) {
        match signal {
            Signal::Shutdown if self.leave_at.is_some() => {
                log::info!("ending at once");
                self.next = None;
                self.end = Some(Ok(()));
            }
            Signal::Shutdown => {
                log::info!("ending");
                self.leave_at = Some(now.mono + GOODBYE);
                self.shell.reports.ending("SIGTERM");
                self.shell.engine.handle_reply(now, Reply::Shutdown);
            }
            Signal::Reload => _ = self.reload(now),
            Signal::Restart => {
                log::info!("dropping all connections and starting afresh");
                self.shell.engine.handle_reply(now, Reply::Restart);
            }
            Signal::Orphaned => {
                self.next = None;
                self.end = Some(Err(ORPHANED.to_owned()));
            }
            // Looked after in its turn.
            Signal::Child => self.child_ended = true,
            Signal::Status => {
                let text = self.status(now, status::render);
                text.lines().for_each(|line| log::info!("{line}"));
            }
        }
    }

    pub(super) fn handle_control(&mut self, now: Now, ready: &PollSet<DESCRIPTORS>) {
        let Some(mut control) = self.shell.control.take() else { return };
        let overdue = control.deadline().is_some_and(|due| due <= now.mono);
        if overdue || control.interests().any(|(fd, _)| ready.is_ready(fd)) {
            control.serve(now.mono, |request| self.answer(now, request));
        }
        self.shell.control = Some(control);
    }

    fn status(&self, now: Now, render: fn(&View, &Overview<'_>) -> String) -> String {
        let super::EventLoop { engine, upkeep, tun, udp, reports, filter, .. } = &self.shell;
        let overview = Overview {
            offload: [tun.offloads(), udp.offloads()],
            filter: filter.as_str(),
            own: reports.own(),
            prefixes: engine.prefixes(),
            certificates: upkeep.certificates(),
            dropped: status::counters(engine.drops(), self.counters),
        };
        render(&self.view(now), &overview)
    }

    fn answer(&mut self, now: Now, request: Request) -> String {
        let engine = &mut self.shell.engine;
        match request {
            Request::Status => self.status(now, status::render),
            Request::StatusJson => self.status(now, json::status),
            Request::Log { from, count } => logger::report(from, count),
            Request::Reload => {
                let taken = self.reload(now);
                if taken { "ok\n" } else { "refused: see the log\n" }.to_owned()
            }
            Request::Pid => format!("{}\n", process::id()),
            Request::Version => format!("{}\n", env!("CARGO_PKG_VERSION")),
            Request::Kill(name) => {
                let count = engine.clients().iter().filter(|c| c.common_name == name).count();
                engine.handle_reply(now, Reply::Kick(name));
                self.drain(now);
                format!("ok {count}\n")
            }
            Request::Revoke(serials) => {
                let before = engine.clients().len();
                self.shell.upkeep.revoke(&serials);
                engine.handle_reply(now, Reply::Revoked(serials));
                let after = engine.clients().len();
                self.drain(now);
                format!("ok {}\n", before.saturating_sub(after))
            }
        }
    }

    pub(super) fn view(&self, now: Now) -> View {
        view(now, self.shell.engine.clients(), self.counters.traffic)
    }

    /// What is due, then what the management program asks for.
    pub(super) fn handle_reports(&mut self, now: Now) {
        let (engine, traffic) = (&self.shell.engine, self.counters.traffic);
        self.shell.reports.tend(now, || view(now, engine.clients(), traffic));
        let Some(management) = &mut self.shell.reports.management else { return };
        management.receive(now.mono);
        // Each line sees what the ones before it have done.
        while let Some(management) = &mut self.shell.reports.management
            && management.console.has_line()
        {
            let view = view(now, self.shell.engine.clients(), self.counters.traffic);
            if let Some(action) = management.next(now.mono, &view) {
                self.act(now, action);
            }
        }
        if let Some(management) = &mut self.shell.reports.management {
            management.send();
        }
    }

    fn act(&mut self, now: Now, action: Action) {
        match action {
            Action::Kick(peers) => {
                for peer in peers {
                    let reply = Reply::Dismiss { peer, halt: false };
                    self.shell.engine.handle_reply(now, reply);
                }
            }
            Action::Halt(peer) => {
                self.shell.engine.handle_reply(now, Reply::Dismiss { peer, halt: true });
            }
            Action::Decide { ticket, outcome } => {
                self.shell.engine.handle_reply(now, Reply::HookDone { ticket, outcome });
            }
            Action::Pend { ticket, timeout, message } => {
                let reply = Reply::HookPending { ticket, timeout, method: String::new(), message };
                self.shell.engine.handle_reply(now, reply);
            }
            Action::Login { username, password } => {
                let login = Ok((username, password.0));
                self.shell.engine.handle_reply(now, Reply::Login(login));
            }
            Action::Verb(verb) => logger::set_verb(verb),
            Action::Signal(signal) => {
                let signal = match signal {
                    manage::Signal::Term | manage::Signal::Int => Signal::Shutdown,
                    manage::Signal::Hup => Signal::Reload,
                    manage::Signal::Usr1 => Signal::Restart,
                    manage::Signal::Usr2 => Signal::Status,
                };
                self.handle_signal(now, signal);
            }
        }
        self.drain(now);
    }

    /// The last words, before everything is closed.
    pub(super) fn last_reports(&mut self, end: &Result<(), String>) {
        let view = self.view(self.clock.now());
        self.shell.reports.close(&view);
        if let Err(error) = end
            && let Some(management) = &mut self.shell.reports.management
        {
            management.console.fatal(error);
        }
    }
}
