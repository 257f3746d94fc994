//! For tests that change the network: a namespace that nobody else sees.

use super::netlink::{Netlink, interface_index};
use super::privilege::may_administer;

/// Gives this thread, and those it starts, a network namespace of their own with `lo` up; false
/// when that is not allowed, and the test has to pass without.
pub fn alone() -> bool {
    // SAFETY: affects this thread only.
    if !may_administer() || unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        eprintln!("skipped: network namespaces need root");
        return false;
    }
    Netlink::open().unwrap().bring_up(interface_index("lo").unwrap(), 32767).unwrap();
    true
}
