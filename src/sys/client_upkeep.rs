//! What a client's event loop asks of the outside world: its configuration again. It is the server
//! that is asked whom it admits.

use core::time::Duration;
use std::rc::Rc;
use std::sync::Arc;

use super::event_loop::{Reload, Upkeep};
use super::keeper::Request;
use super::reload::{self, Next, Source};
use crate::client::Client;
use crate::config::{ClientSettings, Config};
use crate::engine::{AdmitRequest, Engine, Reply};
use crate::time::{Instant, Now};

/// Upkeep of a process that is a client.
pub struct ClientUpkeep {
    /// Where the configuration comes from.
    pub source: Rc<Source>,
    /// What is in force.
    pub config: Arc<Config>,
}

impl Upkeep<Client> for ClientUpkeep {
    fn admit(
        &mut self,
        _: &mut Client,
        _: Now,
        _: &AdmitRequest,
    ) -> Result<Box<ClientSettings>, String> {
        Ok(Box::default())
    }

    fn revoke(&mut self, _: &[Vec<u8>]) {}

    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn tend(&mut self, _: &mut Client, now: Now) -> Instant {
        now.mono + Duration::MAX
    }

    /// There is one connection only, and it begins anew in any case.
    fn reload(&mut self, engine: &mut Client, now: Now) -> Reload {
        match self.source.read_again(&self.config) {
            Next::Old => Reload::Kept,
            Next::Restart(config) => Reload::Restart(config),
            Next::Change(config) => {
                match reload::may_restart(&self.config, &config, &self.source.access) {
                    Ok(()) => {
                        self.source.access.tell(Request::Choose);
                        Reload::Restart(config)
                    }
                    Err(why) => {
                        log::warn!("connecting again with the old configuration: {why}");
                        engine.handle_reply(now, Reply::Restart);
                        Reload::Kept
                    }
                }
            }
        }
    }
}
