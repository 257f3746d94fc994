//! What a client's event loop asks of the outside world: nothing. It is the server that is asked whom
//! it admits.

use core::time::Duration;

use super::event_loop::Upkeep;
use crate::client::Client;
use crate::config::ClientSettings;
use crate::engine::AdmitRequest;
use crate::time::{Instant, Now};

/// Upkeep of a process that is a client.
pub struct ClientUpkeep;

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

    fn tend(&mut self, _: &mut Client, now: Now) -> Instant {
        now.mono + Duration::MAX
    }
}
