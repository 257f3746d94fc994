//! What connects a smoltcp stack to a tunnel where a real system has a TUN device: two queues.
//!
//! The whole-engine tests have their hosts on it, too, and compile this file by themselves: they are built
//! without the feature `selftest` as well.

use std::collections::VecDeque;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// Packets that wait for the tunnel at most; the stack holds back what has no room.
const QUEUE: usize = 64;

/// Queues in place of a TUN device.
pub struct Link {
    /// Packets for the stack.
    pub inbound: VecDeque<Vec<u8>>,
    /// Packets from the stack.
    pub outbound: VecDeque<Vec<u8>>,
    mtu: usize,
}

impl Link {
    /// Nothing is under way, and packets of so many bytes fit.
    pub const fn new(mtu: usize) -> Self {
        Self { inbound: VecDeque::new(), outbound: VecDeque::new(), mtu }
    }
}

/// A packet that the stack takes.
pub struct Received(Vec<u8>);

/// Room for a packet that the stack makes.
pub struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Link {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let packet = self.inbound.pop_front()?;
        Some((Received(packet), Sending(&mut self.outbound)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        (self.outbound.len() < QUEUE).then_some(Sending(&mut self.outbound))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}
