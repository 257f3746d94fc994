//! The loop's dealings with whoever is asked for a client's login: the management program if it is to
//! answer, else whoever sits at the terminal.

use std::os::fd::AsRawFd as _;

use super::{DESCRIPTORS, Turns, Upkeep};
use crate::engine::{Engine, LoginQuestion, Reply};
use crate::sys::poll::PollSet;
use crate::sys::terminal::Prompt;
use crate::time::Now;

impl<E: Engine, U: Upkeep<E>> Turns<E, U> {
    pub(super) fn ask_login(&mut self, now: Now, question: LoginQuestion) {
        let console = self.shell.reports.console();
        if let Some(console) = console.filter(|console| console.queries()) {
            return console.ask_login(&question);
        }
        match Prompt::open(question) {
            Ok(prompt) => self.prompt = Some(prompt),
            Err(error) => self.shell.engine.handle_reply(now, Reply::Login(Err(error))),
        }
    }

    pub(super) fn handle_prompt(&mut self, now: Now, ready: &PollSet<DESCRIPTORS>) {
        let Some(prompt) = self.prompt.as_mut().filter(|p| ready.is_ready(p.as_raw_fd())) else {
            return;
        };
        if let Some(answer) = prompt.read().transpose() {
            self.prompt = None;
            self.shell.engine.handle_reply(now, Reply::Login(answer));
            self.drain(now);
        }
    }
}
