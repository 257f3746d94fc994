//! One script that was started: its process and its files together.

use std::fs::File;

use super::child::Script;
use super::exchange::{Answer, Exchange};
use super::program;
use crate::config::hooks::Hooks;
use crate::engine::{HookOutcome, HookRequest};

/// A script that runs, or has ended and still has files.
#[derive(Debug)]
pub struct Task {
    script: Script,
    exchange: Exchange,
    /// How it ended.
    status: Option<Option<i32>>,
}

impl Task {
    /// Makes the files that go with a script, and starts it.
    pub fn begin(config: &Hooks, request: HookRequest) -> Result<Self, String> {
        let program = program(config, request.kind).ok_or("no script is configured")?;
        let folder = config.folder.clone().unwrap_or_else(std::env::temp_dir);
        let HookRequest { mut environment, mut arguments, .. } = request.clone();
        let by = config.password_by;
        let exchange = Exchange::new(&request, by, &folder, &mut environment, &mut arguments)
            .map_err(|error| format!("a file in {}: {error}", folder.display()))?;
        let script = Script::start(request.kind, program, &arguments, &environment)
            .map_err(|error| format!("{}: {error}", program.path.display()))?;
        Ok(Self { script, exchange, status: None })
    }

    /// Its files, and its process.
    pub(super) fn into_parts(self) -> (Exchange, Script) {
        (self.exchange, self.script)
    }

    /// What its output comes out of.
    pub fn take_output(&mut self) -> Option<File> {
        self.script.take_output()
    }

    /// Its exit status once it has ended; `Some(None)` when a signal ended it.
    pub fn status(&mut self) -> Option<Option<i32>> {
        if self.status.is_none() {
            self.status = self.script.ended();
        }
        self.status
    }

    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> bool {
        self.status().is_none()
    }

    /// What follows from its end.
    pub fn answer(&mut self) -> Answer {
        let status = self.status().flatten();
        self.exchange.finished(status)
    }

    /// What it has answered after its end.
    pub fn later(&self) -> Option<HookOutcome> {
        self.exchange.later()
    }

    /// What follows from its taking too long.
    pub fn overdue(&self) -> HookOutcome {
        self.exchange.overdue()
    }

    /// Ends it.
    pub fn end(&mut self) {
        if self.runs() {
            self.script.kill();
        }
    }
}
