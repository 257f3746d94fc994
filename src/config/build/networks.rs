//! Networks as lines of a configuration write them: address and mask, or prefix and length.
//!
//! Whether host bits in an IPv4 network are a mistake that ends the line is left to the caller.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::Build;
use crate::config::lex::Line;

/// The IPv4 network of the first argument and `mask`, with its host bits. `usage` completes the
/// sentence of the error.
pub(super) fn masked(b: &mut Build<'_>, line: &Line, mask: &str, usage: &str) -> Option<Ipv4Net> {
    let (Ok(address), Ok(mask)) = (line.arg(0)?.parse::<Ipv4Addr>(), mask.parse::<Ipv4Addr>())
    else {
        b.error(line, format!("needs a network and its mask, as in {usage}"));
        return None;
    };
    let Ok(net) = Ipv4Net::with_netmask(address, mask) else {
        b.error(line, format!("{mask} is not a network mask"));
        return None;
    };
    Some(net)
}

/// The IPv6 prefix of the first argument without its host bits, which are remarked on. `usage`
/// completes the sentence of the error.
pub(super) fn prefix(b: &mut Build<'_>, line: &Line, usage: &str) -> Option<Ipv6Net> {
    let Ok(net) = line.arg(0)?.parse::<Ipv6Net>() else {
        b.error(line, format!("needs a prefix and its length, as in {usage}"));
        return None;
    };
    if net.trunc() != net {
        b.warn(line, format!("the host bits of {net} count as zero: {}", net.trunc()));
    }
    Some(net.trunc())
}
