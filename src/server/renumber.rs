//! What becomes of the clients when the prefix of the line changes (`server-ipv6 auto`) [7.4].
//!
//! One that can be told gets PUSH_UPDATE with its new address; any other is told to connect again,
//! not all at once. Until then, and for as long as the old prefix is valid, its old address leads
//! to it, too. OpenVPN clients have one IPv6 address, the global one if there is one; connections
//! that use it cannot outlive it. The stable address, which a sixgate client has beside it (and a
//! script can set for another), never changes.

use core::time::Duration;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::Follow;
use crate::engine::{Command, Environment, LinePrefix, PeerId};
use crate::server::assign::is_placed;
use crate::server::peer::{self, Stage};
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
        self.make_room();
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
            self.make_room();
            self.renumber(now);
        }
    }

    /// There are as many parts for clients' networks as the line has room for.
    fn make_room(&mut self) {
        if let (Some(line), Some(delegations)) = (&self.line, &mut self.delegations) {
            delegations.set_room(line.room());
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
        if line.lacks_room() {
            log::warn!(
                "`delegate-ipv6 auto` needs a prefix for the device that is shorter than its parts (of netifd by \
                 `ip6assign`); until then networks behind clients have their private ones alone"
            );
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
        let told = client.lease.v6.map(|lease| line.told(lease).0);
        let net = client.settings.delegated;
        let told_net = net.map(|net| line.told_net(net));
        // The line has no room for its part, but for another one that a new connection gets.
        let (name, misplaced) = (client.who.name().to_owned(), net.is_some() && net == told_net);
        let misplaced = misplaced && line.room().is_some() && self.would_be_placed(&name);
        let Some(entry) = self.peers.get_mut(id) else { return };
        let Stage::Connected(client) = &mut entry.peer.stage else { return };
        if (client.told, client.told_net) == (told, told_net) && !misplaced {
            // Back before it was told to connect again.
            client.restart_due = None;
            return;
        }
        let places = (client.lease, client.fixed);
        let (settings, terms) = (&client.settings, &client.terms);
        let options =
            push::options(&self.role, Some(line), &self.push, places, settings, id, terms);
        let news = told.map(|told| format!("ifconfig-ipv6 {told}/")).into_iter();
        let news: Vec<String> = news.chain(told_net.map(push::delegated)).collect();
        let reaches_it =
            |option: &String| news.iter().any(|news| option.starts_with(news.as_str()));
        let reaches_it = options.iter().any(reaches_it);
        // Only sixgate takes another network on a connection that is up.
        let takes_net = client.told_net == told_net || client.offer.wants_prefix;
        let can = client.offer.push_update() && takes_net && !misplaced;
        let asked = client.pushed.is_some();
        let update = push::update(&options, client.offer.wants_prefix);
        self.set_reply(now, id, options);
        let Some(entry) = self.peers.get_mut(id) else { return };
        let Stage::Connected(client) = &mut entry.peer.stage else { return };
        if !asked || !reaches_it {
            // It will hear it in its first reply, or never does.
            (client.told, client.told_net) = (told, told_net);
            return;
        }
        let session = &mut entry.peer.session;
        if can && update.iter().all(|part| session.send_message(part).is_ok()) {
            (client.told, client.told_net, client.restart_due) = (told, told_net, None);
            self.touch(id);
        } else {
            client.restart_due = Some(now.mono + wait);
            self.watch(id);
        }
    }

    /// Whether a client would have another part of the line's prefix at a new connection.
    fn would_be_placed(&self, name: &str) -> bool {
        let busy = |other: &str| is_placed(&self.peers, other);
        self.delegations.as_ref().is_some_and(|all| all.better(name, &busy).is_some())
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

    /// Lets the world know by which addresses and networks of the line a client is reached.
    pub(super) fn face(&mut self, id: PeerId) {
        let Some(line) = &self.line else { return };
        let Some(entry) = self.peers.get_mut(id) else { return };
        let Stage::Connected(client) = &mut entry.peer.stage else { return };
        let addresses = client.lease.v6.into_iter().flat_map(|v6| line.faces(v6));
        let addresses = addresses.map(|address| IpNet::from(IpAddr::V6(address)));
        let nets = client.settings.delegated.into_iter().flat_map(|net| line.parts(net));
        let faces = addresses.chain(nets.map(IpNet::V6)).collect();
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

    /// An address or a network in a prefix of the line leads to the client of this name from now on,
    /// which scripts know by this environment; without one, to nobody.
    pub(super) fn show(&mut self, net: IpNet, name: &str, environment: Option<Environment>) {
        let up = environment.is_some();
        let address = peer::host(&net);
        let borrowed = address.filter(|_| matches!(self.role.follow, Some(Follow::Neighbours(_))));
        if let Some(address) = borrowed {
            self.commands.push_back(Command::Neighbour { address, up });
        }
        // An address in the prefix of another interface, or a network that is not on the device's link:
        // the host knows another way, or none.
        if borrowed.is_some() || address.is_none() || self.role.export.is_some() {
            self.commands.push_back(Command::Route { net, up });
        }
        self.learnt_by_line(net, name, environment);
    }
}
