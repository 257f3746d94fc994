//! A server that the network drives while the test can get at it, and can tell what it does from what
//! everybody else does.

use std::cell::RefCell;
use std::rc::Rc;

use sixgate::buf::PacketMut;
use sixgate::engine::{ClientInfo, Command, DropCounters, Endpoint, Engine, Reply, Verdict};
use sixgate::server::Server;
use sixgate::time::{Instant, Now};

/// The server, and what is told when it begins (`true`) and ceases to work.
#[derive(Clone)]
pub struct Shared {
    pub server: Rc<RefCell<Server>>,
    around: fn(bool),
}

impl Shared {
    pub fn new(server: Server, around: fn(bool)) -> Self {
        Self { server: Rc::new(RefCell::new(server)), around }
    }

    fn work<T>(&self, work: impl FnOnce(&mut Server) -> T) -> T {
        (self.around)(true);
        let result = work(&mut self.server.borrow_mut());
        (self.around)(false);
        result
    }
}

impl Engine for Shared {
    fn handle_udp(&mut self, now: Now, from: Endpoint, packet: &mut PacketMut<'_>) -> Verdict {
        self.work(|server| server.handle_udp(now, from, packet))
    }
    fn handle_tun(&mut self, now: Now, packet: &mut PacketMut<'_>) -> Verdict {
        self.work(|server| server.handle_tun(now, packet))
    }
    fn handle_timeout(&mut self, now: Now) {
        self.work(|server| server.handle_timeout(now));
    }
    fn handle_reply(&mut self, now: Now, reply: Reply) {
        self.work(|server| server.handle_reply(now, reply));
    }
    fn poll_transmit(&mut self, now: Now, out: &mut PacketMut<'_>) -> Option<Endpoint> {
        self.work(|server| server.poll_transmit(now, out))
    }
    fn poll_broadcast(&mut self, now: Now, p: &[u8], out: &mut PacketMut<'_>) -> Option<Endpoint> {
        self.work(|server| server.poll_broadcast(now, p, out))
    }
    fn poll_command(&mut self) -> Option<Command> {
        self.work(Server::poll_command)
    }
    fn poll_timeout(&self) -> Option<Instant> {
        self.server.borrow().poll_timeout()
    }
    fn drops(&self) -> &DropCounters {
        unimplemented!("asked of the server itself")
    }
    fn clients(&self) -> Vec<ClientInfo> {
        self.server.borrow().clients()
    }
}
