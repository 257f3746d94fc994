//! Another configuration while the loop runs: addresses and routes change where they differ, scripts,
//! log and status file go by the new one. What clients it touches is the engine's business.

use super::{GOODBYE, Reload, Turns, Upkeep};
use crate::config::{Config, Role};
use crate::engine::{Engine, Reply};
use crate::sys::service::{reopen_log, server_settings};
use crate::time::Now;

impl<E: Engine, U: Upkeep<E>> Turns<E, U> {
    /// Says whether the configuration was taken.
    pub(super) fn reload(&mut self, now: Now) -> bool {
        if self.leave_at.is_some() {
            log::info!("ending already: the configuration is not read again");
            return false;
        }
        log::info!("reading the configuration again");
        match self.shell.upkeep.reload(&mut self.shell.engine, now) {
            Reload::Kept => return false,
            Reload::Changed { old, new } => self.change(now, &old, &new),
            Reload::Restart(next) => self.start_over(next),
        }
        true
    }

    /// Says goodbye to all peers, and opens everything anew for this configuration.
    pub(super) fn start_over(&mut self, next: Box<Config>) {
        let now = self.clock.now();
        self.next = Some(next);
        self.leave_at = Some(now.mono + GOODBYE);
        self.shell.reports.restarting();
        self.shell.engine.handle_reply(now, Reply::Shutdown);
    }

    fn change(&mut self, now: Now, old: &Config, new: &Config) {
        reopen_log(&old.process, &new.process, self.shell.reports.access());
        let shell = &mut self.shell;
        shell.hooks.change(new.hooks.clone(), new.timers.handshake);
        shell.reports.change(&old.process, &new.process);
        if let (Role::Server(was), Role::Server(is)) = (&old.role, &new.role) {
            let settings = server_settings(is, new.device.mtu);
            let result = shell.tunnel.apply(&settings).or_else(|error| {
                log::error!("{error}; going back to the old addresses and routes");
                shell.tunnel.apply(&server_settings(was, old.device.mtu))
            });
            match result {
                Ok(()) => shell.reports.configured(&settings, true),
                Err(error) => self.end = Some(Err(error)),
            }
        }
        self.drain(now);
        log::info!("the new configuration is in force");
    }
}
