//! An IP host at the end of a tunnel: a smoltcp stack where a real system has its kernel and its TUN
//! device. It answers echo requests by itself and carries one TCP transfer at a time.
//!
//! What is transferred is a pattern that the receiver knows, so nobody has to keep a copy of it.

use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    HardwareAddress, Icmpv4Message, Icmpv4Packet, Icmpv4Repr, Icmpv6Message, Icmpv6Packet,
    Icmpv6Repr, IpAddress, IpCidr, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr,
};

use crate::selftest::link::Link;

/// Where transfers go.
pub const PORT: u16 = 5001;
/// Both buffers of the TCP socket.
const WINDOW: usize = 256 * 1024;
/// Bytes of an echo request.
const ECHO: &[u8] = b"sixgate selftest";
/// The time to live of an echo request.
const HOPS: u8 = 64;

/// The host.
pub struct Host {
    link: Link,
    interface: Interface,
    sockets: SocketSet<'static>,
    tcp: SocketHandle,
    /// Bytes still to be sent, and bytes sent.
    to_send: u64,
    sent: u64,
    /// Bytes received, and whether all of them were as they should be.
    received: u64,
    intact: bool,
    /// Echo replies.
    answers: u32,
}

impl Host {
    /// A host with these addresses whose default routes lead into the tunnel.
    pub fn new(v4: Option<Ipv4Net>, v6: Option<Ipv6Net>, mtu: u16, seed: u64) -> Self {
        let mut link = Link::new(mtu.into());
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut link, Instant::ZERO);
        interface.update_ip_addrs(|list| {
            // There is room for two at least.
            if let Some(net) = v4 {
                let _ = list.push(IpCidr::new(IpAddress::Ipv4(net.addr()), net.prefix_len()));
            }
            if let Some(net) = v6 {
                let _ = list.push(IpCidr::new(IpAddress::Ipv6(net.addr()), net.prefix_len()));
            }
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; WINDOW]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        // It would only add a clock to what is to be measured.
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        let mut sockets = SocketSet::new(Vec::new());
        let tcp = sockets.add(socket);
        let (to_send, sent, received, intact, answers) = (0, 0, 0, true, 0);
        Self { link, interface, sockets, tcp, to_send, sent, received, intact, answers }
    }

    /// Begins a transfer: waits for the other end's connection.
    pub fn listen(&mut self) {
        (self.received, self.intact) = (0, true);
        let socket = self.sockets.get_mut::<tcp::Socket>(self.tcp);
        socket.abort();
        let _ = socket.listen(PORT);
    }

    /// Begins a transfer of so many bytes; `local` is a port that was not used before.
    pub fn connect(&mut self, to: IpAddr, local: u16, bytes: u64) {
        (self.to_send, self.sent) = (bytes, 0);
        let socket = self.sockets.get_mut::<tcp::Socket>(self.tcp);
        socket.abort();
        let _ = socket.connect(self.interface.context(), (IpAddress::from(to), PORT), local);
    }

    /// Gives a transfer up.
    pub fn abort(&mut self) {
        self.to_send = 0;
        self.sockets.get_mut::<tcp::Socket>(self.tcp).abort();
    }

    /// What the other end has not acknowledged yet.
    pub fn unsent(&self) -> u64 {
        let waiting = self.sockets.get::<tcp::Socket>(self.tcp).send_queue();
        self.to_send + waiting as u64
    }

    /// How much has arrived; `None` when it is not what was sent.
    pub fn received(&self) -> Option<u64> {
        self.intact.then_some(self.received)
    }

    /// Echo replies so far.
    pub fn answers(&self) -> u32 {
        self.answers
    }

    /// A packet from the tunnel.
    pub fn give(&mut self, packet: &[u8]) {
        match is_echo_reply(packet) {
            true => self.answers += 1,
            false => self.link.inbound.push_back(packet.to_vec()),
        }
    }

    /// A packet for the tunnel.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        self.link.outbound.pop_front()
    }

    /// Lets the stack work; the time is in microseconds.
    pub fn poll(&mut self, micros: u64) {
        let now = Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX));
        self.interface.poll(now, &mut self.link, &mut self.sockets);
        let socket = self.sockets.get_mut::<tcp::Socket>(self.tcp);
        while socket.can_recv() {
            let at = self.received;
            let taken = socket.recv(|bytes| {
                let good = (at..).zip(bytes.iter()).all(|(at, byte)| *byte == pattern(at));
                (bytes.len(), (bytes.len() as u64, good))
            });
            let Ok((len, good)) = taken else { break };
            self.received += len;
            self.intact &= good;
        }
        while self.to_send > 0 && socket.can_send() {
            let (at, most) = (self.sent, usize::try_from(self.to_send).unwrap_or(usize::MAX));
            let given = socket.send(|room| {
                let len = room.len().min(most);
                (at..).zip(room.iter_mut().take(len)).for_each(|(at, byte)| *byte = pattern(at));
                (len, len as u64)
            });
            let Ok(len) = given else { break };
            self.sent += len;
            self.to_send -= len;
        }
        self.interface.poll(now, &mut self.link, &mut self.sockets);
    }

    /// How long it can wait, in microseconds, if nothing comes; `None` is for ever.
    pub fn patience(&mut self, micros: u64) -> Option<u64> {
        let now = Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX));
        self.interface.poll_delay(now, &self.sockets).map(|delay: Duration| delay.total_micros())
    }
}

/// Byte number `at` of a transfer.
const fn pattern(at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

/// An echo request; `None` when the families differ.
pub fn echo(from: IpAddr, to: IpAddr) -> Option<Vec<u8>> {
    let checksums = ChecksumCapabilities::default();
    let (ident, seq_no, data) = (0x5347, 1, ECHO);
    match (from, to) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
            let echo = Icmpv4Repr::EchoRequest { ident, seq_no, data };
            let (payload_len, next_header) = (echo.buffer_len(), IpProtocol::Icmp);
            let ip = Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: HOPS };
            let mut out = vec![0; ip.buffer_len() + payload_len];
            ip.emit(&mut Ipv4Packet::new_unchecked(&mut out), &checksums);
            let payload = out.get_mut(ip.buffer_len()..)?;
            echo.emit(&mut Icmpv4Packet::new_unchecked(payload), &checksums);
            Some(out)
        }
        (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
            let echo = Icmpv6Repr::EchoRequest { ident, seq_no, data };
            let (payload_len, next_header) = (echo.buffer_len(), IpProtocol::Icmpv6);
            let ip = Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: HOPS };
            let mut out = vec![0; ip.buffer_len() + payload_len];
            ip.emit(&mut Ipv6Packet::new_unchecked(&mut out));
            let payload = out.get_mut(ip.buffer_len()..)?;
            let mut packet = Icmpv6Packet::new_unchecked(payload);
            echo.emit(&src_addr, &dst_addr, &mut packet, &checksums);
            Some(out)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

fn is_echo_reply(packet: &[u8]) -> bool {
    if let Ok(ip) = Ipv4Packet::new_checked(packet)
        && ip.version() == 4
    {
        let icmp = Icmpv4Packet::new_checked(ip.payload());
        return ip.next_header() == IpProtocol::Icmp
            && icmp.is_ok_and(|icmp| {
                icmp.msg_type() == Icmpv4Message::EchoReply
                    && icmp.verify_checksum()
                    && icmp.data() == ECHO
            });
    }
    let Ok(ip) = Ipv6Packet::new_checked(packet) else { return false };
    let icmp = Icmpv6Packet::new_checked(ip.payload());
    ip.next_header() == IpProtocol::Icmpv6
        && icmp.is_ok_and(|icmp| {
            icmp.msg_type() == Icmpv6Message::EchoReply
                && icmp.verify_checksum(&ip.src_addr(), &ip.dst_addr())
                && icmp.payload() == ECHO
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Two hosts on a wire that changes a byte of every packet longer than that.
    fn pair(damage: usize) -> (Host, Host, impl FnMut(&mut Host, &mut Host)) {
        let host = |last: u8, seed| {
            let v4 = format!("10.8.0.{last}/24").parse().ok();
            Host::new(v4, format!("fd00::{last}/64").parse().ok(), 1500, seed)
        };
        let mut now = 0;
        let wire = move |a: &mut Host, b: &mut Host| {
            now += 1000;
            a.poll(now);
            b.poll(now);
            while let Some(packet) = a.take() {
                b.give(&packet);
            }
            while let Some(mut packet) = b.take() {
                if packet.len() > damage {
                    packet[damage] ^= 1;
                }
                a.give(&packet);
            }
        };
        (host(1, 1), host(2, 2), wire)
    }

    #[test]
    fn it_answers_pings_of_both_families() {
        let (mut a, mut b, mut wire) = pair(usize::MAX);
        for (from, to) in [("10.8.0.1", "10.8.0.2"), ("fd00::1", "fd00::2")] {
            let before = a.answers();
            b.give(&echo(ip(from), ip(to)).unwrap());
            (0..3).for_each(|_| wire(&mut a, &mut b));
            assert_eq!(a.answers(), before + 1, "{to}");
        }
        assert_eq!(echo(ip("10.8.0.1"), ip("fd00::2")), None);
    }

    #[test]
    fn a_damaged_answer_is_none() {
        let (mut a, mut b, mut wire) = pair(40);
        b.give(&echo(ip("10.8.0.1"), ip("10.8.0.2")).unwrap_or_default());
        b.give(&echo(ip("fd00::1"), ip("fd00::2")).unwrap_or_default());
        (0..3).for_each(|_| wire(&mut a, &mut b));
        assert_eq!(a.answers(), 0);
    }

    #[test]
    fn transfers_follow_each_other_and_are_checked() {
        let (mut a, mut b, mut wire) = pair(usize::MAX);
        for (port, to) in [(40_000, "10.8.0.2"), (40_001, "fd00::2")] {
            b.listen();
            a.connect(ip(to), port, 300_000);
            (0..2000).for_each(|_| wire(&mut a, &mut b));
            assert_eq!(b.received(), Some(300_000), "{to}");
        }
        b.intact = false;
        assert_eq!(b.received(), None);
    }
}
