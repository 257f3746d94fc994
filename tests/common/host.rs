//! An IP host behind a tunnel: a smoltcp stack where a real system has its kernel and TUN device.
//! It answers pings by itself and can carry one TCP transfer at a time in each direction.

use ipnet::{Ipv4Net, Ipv6Net};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use link::Link;

#[path = "../../src/selftest/link.rs"]
mod link;

/// The host.
pub struct Host {
    /// What connects it to the tunnel.
    pub link: Link,
    interface: Interface,
    sockets: SocketSet<'static>,
    tcp: SocketHandle,
    to_send: Vec<u8>,
    sent: usize,
    /// What the TCP peer sent so far.
    pub received: Vec<u8>,
}

impl Host {
    /// A host with these addresses whose default routes lead into the tunnel.
    pub fn new(v4: Option<Ipv4Net>, v6: Option<Ipv6Net>, mtu: usize, seed: u64) -> Self {
        let mut link = Link::new(mtu);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut link, Instant::ZERO);
        interface.update_ip_addrs(|list| {
            if let Some(net) = v4 {
                list.push(IpCidr::new(IpAddress::Ipv4(net.addr()), net.prefix_len())).unwrap();
            }
            if let Some(net) = v6 {
                list.push(IpCidr::new(IpAddress::Ipv6(net.addr()), net.prefix_len())).unwrap();
            }
        });
        if let Some(net) = v4 {
            interface.routes_mut().add_default_ipv4_route(net.addr()).unwrap();
        }
        if let Some(net) = v6 {
            interface.routes_mut().add_default_ipv6_route(net.addr()).unwrap();
        }
        let buffer = || tcp::SocketBuffer::new(vec![0; 65_535]);
        let mut sockets = SocketSet::new(Vec::new());
        let tcp = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Self { link, interface, sockets, tcp, to_send: Vec::new(), sent: 0, received: Vec::new() }
    }

    /// Waits for a TCP connection on `port`.
    pub fn listen(&mut self, port: u16) {
        self.received.clear();
        self.sockets.get_mut::<tcp::Socket>(self.tcp).listen(port).expect("socket is closed");
    }

    /// Connects to `to` and sends `data`, then closes its direction.
    pub fn connect_and_send(&mut self, to: (IpAddress, u16), local_port: u16, data: Vec<u8>) {
        (self.to_send, self.sent) = (data, 0);
        let socket = self.sockets.get_mut::<tcp::Socket>(self.tcp);
        socket.connect(self.interface.context(), to, local_port).expect("socket is closed");
    }

    /// Whether the connection is over on both sides.
    pub fn is_closed(&self) -> bool {
        let state = self.sockets.get::<tcp::Socket>(self.tcp).state();
        matches!(state, tcp::State::Closed | tcp::State::TimeWait)
    }

    /// Gives the TCP socket up, for another transfer.
    pub fn abort(&mut self) {
        self.sockets.get_mut::<tcp::Socket>(self.tcp).abort();
    }

    /// Lets the stack work at `millis`.
    pub fn poll(&mut self, millis: u64) {
        let now = Instant::from_millis(millis as i64);
        self.interface.poll(now, &mut self.link, &mut self.sockets);
        let socket = self.sockets.get_mut::<tcp::Socket>(self.tcp);
        while socket.can_recv() {
            let chunk = socket.recv(|bytes| (bytes.len(), bytes.to_vec())).expect("can_recv");
            self.received.extend(chunk);
        }
        if socket.can_send() && self.sent < self.to_send.len() {
            self.sent += socket.send_slice(&self.to_send[self.sent..]).expect("can_send");
            if self.sent == self.to_send.len() {
                socket.close();
            }
        }
        // The peer has closed its direction: nothing more will come, close ours.
        if socket.state() == tcp::State::CloseWait {
            socket.close();
        }
        self.interface.poll(now, &mut self.link, &mut self.sockets);
    }

    /// When the stack wants to work again, in milliseconds.
    pub fn poll_at(&mut self, millis: u64) -> Option<u64> {
        let now = Instant::from_millis(millis as i64);
        let at = self.interface.poll_at(now, &self.sockets)?;
        Some(u64::try_from(at.total_millis()).unwrap_or(0).max(millis))
    }
}
