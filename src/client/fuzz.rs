//! Bodies of the fuzz targets of this ring; see `wire::fuzz`.

use std::net::IpAddr;

use crate::client::pushed::{Collector, Pushed};
use crate::client::{settings, update};
use crate::config::ClientRole;
use crate::limits::MAX_PUSHED_OPTIONS;
use crate::wire::message::{Message, messages};

/// What a server pushes and how it changes that, in control messages that follow each other.
pub fn push(bytes: &[u8]) {
    let role = ClientRole::default();
    let server = IpAddr::from([192, 0, 2, 1]);
    let mut replies = Collector::default();
    let mut updates = Collector::default();
    let mut options = Vec::new();
    for message in messages(bytes).flatten() {
        match message {
            Message::PushReply(part) => {
                if replies.add(part) != Ok(true) {
                    continue;
                }
                let parts = replies.take();
                assert!(parts.len() <= MAX_PUSHED_OPTIONS);
                match Pushed::parse(&parts, &role) {
                    Ok(pushed) => options = pushed.options,
                    Err(error) => assert!(is_clean(&error.to_string())),
                }
            }
            Message::PushUpdate(part) => {
                if updates.add(part) != Ok(true) {
                    continue;
                }
                match update::apply(&options, &updates.take(), &role) {
                    Ok(updated) => options = updated.options,
                    Err(error) => assert!(is_clean(&error.to_string())),
                }
            }
            _ => continue,
        }
        match settings::settle(&role, 1500, &options, server) {
            Ok(settled) => {
                let tunnel = settled.tunnel;
                assert!(tunnel.v4.is_some() || tunnel.v6.is_some());
                assert!(tunnel.v6.is_none() || tunnel.mtu >= 1280, "IPv6 needs 1280");
                assert!(settled.notes.iter().all(|note| is_clean(note)));
                // The same once more, as after a reconnection.
                let again = settings::settle(&role, 1500, &options, server);
                assert!(again.is_ok_and(|again| again.tunnel == tunnel));
            }
            Err(error) => assert!(is_clean(&error.to_string())),
        }
    }
}

/// Fit for a log.
fn is_clean(text: &str) -> bool {
    !text.contains(char::is_control)
}
