//! The loop's dealings with scripts: when to look after them, and who gets to hear of their end.

use super::{DESCRIPTORS, Turns, Upkeep};
use crate::engine::{Engine, Reply};
use crate::sys::hooks::device::DEVICE_TICKET;
use crate::sys::poll::PollSet;
use crate::time::Now;

impl<E: Engine, U: Upkeep<E>> Turns<E, U> {
    pub(super) fn handle_hooks(&mut self, now: Now, ready: &PollSet<DESCRIPTORS>) {
        let hooks = &self.shell.hooks;
        let due = hooks.deadline(now.mono).is_some_and(|due| due <= now.mono);
        if core::mem::take(&mut self.child_ended)
            || due
            || hooks.outputs().any(|fd| ready.is_ready(fd))
        {
            self.serve_hooks(now);
            self.drain(now);
        }
    }

    pub(super) fn serve_hooks(&mut self, now: Now) {
        for reply in self.shell.hooks.serve(now.mono) {
            let reply = match reply {
                Reply::HookDone { ticket: DEVICE_TICKET, outcome } => {
                    Reply::Configured(self.shell.hooks.up_done(&outcome))
                }
                reply => reply,
            };
            self.shell.engine.handle_reply(now, reply);
        }
    }
}
