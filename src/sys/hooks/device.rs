//! `up`, `route-up`, `route-pre-down` and `down`, and `dns-updown`: the scripts about the device itself.
//!
//! A server runs `up` before its loop and the last two after it. A client gets its addresses inside
//! the loop, so its `up` is a request like any other, and the engine hears that the device is
//! configured when the script has ended.

use super::{Hooks, surroundings};
use crate::engine::{Environment, HookInput, HookKind, HookOutcome, HookRequest, TunnelSettings};

/// The ticket of a client's `up`; no engine ever counts that far.
pub const DEVICE_TICKET: u64 = u64::MAX - 1;
/// Scripts about the device wait for each other.
const LANE: &str = "(device)";
const INIT: &str = "init";
const RESTART: &str = "restart";

/// The device's state as scripts know it.
#[derive(Debug, Default)]
pub(super) struct Device {
    name: String,
    /// What `up` was told.
    up: Option<TunnelSettings>,
}

impl Hooks {
    /// Names the device; see `surroundings` for the rest.
    pub fn set_device(&mut self, name: &str) {
        self.device.name = name.to_owned();
    }

    /// The device has its addresses and routes: runs `up` to its end, then `route-up`. An error
    /// means that the tunnel must not be used.
    pub fn bring_up(&mut self, tunnel: &TunnelSettings) -> Result<(), String> {
        self.arrive(tunnel, INIT);
        let up = self.device_request(HookKind::Up, tunnel, INIT);
        match self.run_to_end(up) {
            HookOutcome::Success { .. } => {
                surroundings::of_redirection(&mut self.surroundings, tunnel);
                let routes = self.device_request(HookKind::RouteUp, tunnel, INIT);
                // As in OpenVPN, that one's failure is only reported.
                let _ = self.run_to_end(routes);
                Ok(())
            }
            HookOutcome::Failure { .. } => Err(FAILED.to_owned()),
        }
    }

    /// The same inside the loop. `false` if there is nothing to wait for: the scripts have run and
    /// nothing is different, or there are none.
    pub fn request_up(&mut self, tunnel: &TunnelSettings) -> bool {
        let context = match self.device.up.take() {
            Some(before) if before == *tunnel && !self.config.at_restart => {
                self.device.up = Some(before);
                return false;
            }
            Some(before) => {
                let dns = self.dns_request(HookKind::DnsDown, &before);
                let down = self.device_request(HookKind::Down, &before, RESTART);
                let _ = (dns.map(|dns| self.request(dns)), self.request(down));
                RESTART
            }
            None => INIT,
        };
        self.arrive(tunnel, context);
        let up = self.device_request(HookKind::Up, tunnel, context);
        let waits = self.request(HookRequest { ticket: Some(DEVICE_TICKET), ..up }).is_none();
        if !waits {
            self.request_route_up();
        }
        waits
    }

    /// A client's `up` has ended: what the engine is to hear.
    pub fn up_done(&mut self, outcome: &HookOutcome) -> Result<(), String> {
        match outcome {
            HookOutcome::Failure { .. } => Err(FAILED.to_owned()),
            HookOutcome::Success { .. } => {
                self.request_route_up();
                Ok(())
            }
        }
    }

    /// Runs `route-up` without waiting.
    fn request_route_up(&mut self) {
        if let Some(tunnel) = self.device.up.clone() {
            surroundings::of_redirection(&mut self.surroundings, &tunnel);
            let routes = self.device_request(HookKind::RouteUp, &tunnel, INIT);
            let dns = self.dns_request(HookKind::DnsUp, &tunnel);
            // Nobody waits for them.
            let _ = (self.request(routes), dns.map(|dns| self.request(dns)));
        }
    }

    /// The end: lets what runs finish, runs `route-pre-down`, has `revert` take addresses and routes
    /// back, runs `down`.
    pub fn take_down(&mut self, revert: impl FnOnce()) {
        self.finish();
        let Some(tunnel) = self.device.up.take() else { return revert() };
        self.surroundings.set("signal", "sigterm");
        if let Some(dns) = self.dns_request(HookKind::DnsDown, &tunnel) {
            let _ = self.run_to_end(dns);
        }
        let before = self.device_request(HookKind::RoutePreDown, &tunnel, INIT);
        let _ = self.run_to_end(before);
        let down = self.device_request(HookKind::Down, &tunnel, INIT);
        if self.config.down_first {
            let _ = self.run_to_end(down);
            revert();
        } else {
            revert();
            let _ = self.run_to_end(down);
        }
    }

    fn arrive(&mut self, tunnel: &TunnelSettings, context: &str) {
        self.device.up = Some(tunnel.clone());
        surroundings::of_tunnel(&mut self.surroundings, tunnel);
        self.surroundings.set("script_context", context);
    }

    fn device_request(
        &self,
        kind: HookKind,
        tunnel: &TunnelSettings,
        context: &str,
    ) -> HookRequest {
        let arguments = match kind {
            HookKind::RouteUp => Vec::new(),
            _ => surroundings::device_arguments(&self.device.name, tunnel, context),
        };
        plain(kind, arguments)
    }

    /// A tunnel that brings no DNS server has nothing to apply.
    fn dns_request(&self, kind: HookKind, tunnel: &TunnelSettings) -> Option<HookRequest> {
        let mut request = plain(kind, Vec::new());
        // Those of this tunnel: what the surroundings tell may be of the next one already.
        surroundings::dns(&mut request.environment, &tunnel.dns);
        (!tunnel.dns.servers.is_empty()).then_some(request)
    }
}

fn plain(kind: HookKind, arguments: Vec<String>) -> HookRequest {
    HookRequest {
        ticket: None,
        kind,
        lane: LANE.to_owned(),
        arguments,
        environment: Environment::new(),
        input: HookInput::Nothing,
    }
}

const FAILED: &str = "the `up` script failed";
