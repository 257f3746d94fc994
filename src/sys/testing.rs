//! For tests that change the network: a namespace that nobody else sees.

use super::netlink::{Link, Netlink, interface_index};

/// Gives this thread, and those it starts, a network namespace of their own with `lo` up.
pub fn alone() {
    // SAFETY: affects this thread only.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
    assert!(unshared, "network namespaces need root");
    let lo = interface_index("lo").unwrap();
    Netlink::open().unwrap().set_link(lo, Link { mtu: 32767, up: true }).unwrap();
}
