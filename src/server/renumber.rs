//! What becomes of the clients when the prefix of the line changes (`server-ipv6 auto`) [7.4].
//!
//! One that can be told gets PUSH_UPDATE with its new address; any other is told to connect again,
//! not all at once. Until then, and for as long as the old prefix is valid, its old address leads
//! to it, too. OpenVPN clients have one IPv6 address, the global one if there is one; connections
//! that use it cannot outlive it. The stable address, which a sixgate client has beside it (and a
//! script can set for another), never changes.

use core::time::Duration;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::config::Follow;
use crate::engine::{Command, Environment, LinePrefix, PeerId};
use crate::server::peer::Stage;
use crate::server::{Server, push};
use crate::time::Now;
use crate::wire::message::{Ending, Message};

/// Clients that are told to connect again come back within this time, and for more of them in so
/// much more time each: a handshake is hard work for a router.
const SPREAD: Duration = Duration::from_secs(3);
const SPREAD_PER_CLIENT: Duration = Duration::from_millis(200);

impl Server {
    /// The prefixes of the line are others.
    pub(super) fn prefixes_changed(&mut self, now: Now, prefixes: Vec<LinePrefix>) {
        let Some(line) = &mut self.line else { return };
        let moved = line.update(now.mono, prefixes);
        for id in self.connected() {
            self.face(id);
        }
        if moved {
            self.renumber(now);
        }
    }

    /// Gives up a global prefix that did not come back.
    pub(super) fn line_expired(&mut self, now: Now) {
        if self.line.as_mut().is_some_and(|line| line.expire(now.mono)) {
            self.renumber(now);
        }
    }

    fn renumber(&mut self, now: Now) {
        let Some(line) = &self.line else { return };
        match line.current() {
            Some(net) => log::info!("clients have addresses in {net} from now on"),
            None => {
                log::info!("the line has no global prefix: clients keep their stable addresses")
            }
        }
        let clients = self.connected();
        let spread = SPREAD.max(SPREAD_PER_CLIENT * clients.len() as u32);
        for id in clients {
            let wait = self.rng.below(spread.as_millis() as u32);
            self.move_client(now, id, Duration::from_millis(wait.into()));
        }
    }

    /// Tells one client its address if it is another than it was.
    fn move_client(&mut self, now: Now, id: PeerId, wait: Duration) {
        let Some(line) = &self.line else { return };
        let Some(entry) = self.peers.get_mut(id) else { return };
        let Stage::Connected(client) = &mut entry.peer.stage else { return };
        let Some(lease) = client.lease.v6 else { return };
        let told = Some(line.told(lease).0);
        if client.told == told {
            // Back before it was told to connect again.
            client.restart_due = None;
            return;
        }
        let places = (client.lease, client.fixed);
        let (settings, terms) = (&client.settings, &client.terms);
        let options =
            push::options(&self.role, Some(line), &self.push, places, settings, id, terms);
        let own = format!("ifconfig-ipv6 {}/", line.told(lease).0);
        let reaches_it = options.iter().any(|option| option.starts_with(&own));
        let (can, asked) = (client.offer.push_update(), client.pushed.is_some());
        let update = push::update(&options);
        self.set_reply(now, id, options);
        let Some(entry) = self.peers.get_mut(id) else { return };
        let Stage::Connected(client) = &mut entry.peer.stage else { return };
        if !asked || !reaches_it {
            // It will hear it in its first reply, or never does.
            client.told = told;
            return;
        }
        let session = &mut entry.peer.session;
        if can && update.iter().all(|part| session.send_message(part).is_ok()) {
            (client.told, client.restart_due) = (told, None);
            self.touch(id);
        } else {
            client.restart_due = Some(now.mono + wait);
            self.watch(id);
        }
    }

    /// Sets what a client is told when it asks for its configuration, be it again.
    pub(super) fn set_reply(&mut self, now: Now, id: PeerId, mut options: Vec<String>) {
        let Some(client) = self.peers.get(id).and_then(|entry| entry.peer.client()) else { return };
        let (token, username) = (client.token, client.who.username.clone());
        if let Some(option) = self.token_option(now, token, &username) {
            options.push((*option).clone());
        }
        let Some(entry) = self.peers.get_mut(id) else { return };
        let Stage::Connected(client) = &mut entry.peer.stage else { return };
        client.push = push::messages(&options);
    }

    /// Tells a client to connect again if it is its turn.
    pub(super) fn restart_if_due(&mut self, now: Now, id: PeerId) {
        let client = self.peers.get(id).and_then(|entry| entry.peer.client());
        let due = client.and_then(|client| client.restart_due);
        if due.is_some_and(|due| due <= now.mono) {
            let keep_credentials = true;
            let word = Message::Restart(Ending { keep_credentials, ..Ending::default() });
            self.dismiss(now, id, &word, "it has to connect again for its new address");
        }
    }

    /// Lets the world know by which addresses of the line a client is reached at the moment.
    pub(super) fn face(&mut self, id: PeerId) {
        let Some(line) = &self.line else { return };
        let Some(entry) = self.peers.get_mut(id) else { return };
        let Stage::Connected(client) = &mut entry.peer.stage else { return };
        let faces = client.lease.v6.map(|v6| line.faces(v6).collect()).unwrap_or_default();
        let old = core::mem::replace(&mut client.faces, faces);
        let (new, name) = (client.faces.clone(), client.who.name().to_owned());
        let environment = client.environment.clone();
        old.iter()
            .filter(|face| !new.contains(face))
            .for_each(|face| self.show(*face, &name, None));
        new.iter()
            .filter(|face| !old.contains(face))
            .for_each(|face| self.show(*face, &name, Some(environment.clone())));
    }

    /// An address in a prefix of the line leads to the client of this name from now on, which scripts
    /// know by this environment; without one, to nobody.
    pub(super) fn show(&mut self, address: Ipv6Addr, name: &str, environment: Option<Environment>) {
        let (net, up) = (IpNet::from(IpAddr::V6(address)), environment.is_some());
        let borrowed = matches!(self.role.follow, Some(Follow::Neighbours(_)));
        if borrowed {
            self.commands.push_back(Command::Neighbour { address, up });
        }
        // Of a prefix that is another interface's, the host knows another way.
        if borrowed || self.role.export.is_some() {
            self.commands.push_back(Command::Route { net, up });
        }
        self.learnt_by_line(net, name, environment);
    }
}
