//! `server-ipv6 auto`: addresses that follow the prefix of the line, and where that is looked for.
//!
//! The prefix of our own beside it is the stable one: it is given on the line, or made out of the
//! certificate authority's certificate, which is the same for as long as its clients are.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use sha2::{Digest as _, Sha256};

use super::addresses::Addresses;
use super::{Build, addresses};
use crate::config::lex::Line;
use crate::config::{Delegate, Follow};

/// A host part has 64 bits.
const BITS: u8 = 64;
/// What follows the 40 random bits of a unique local prefix is ours to cut up.
const POOL_BITS: u8 = 48;

/// Where the prefix of the line is to be found: on our own device, or on that of `ndp-proxy`.
pub(super) fn follow(b: &mut Build<'_>) -> Option<Follow> {
    match b.line("ndp-proxy") {
        None => Some(Follow::Tunnel),
        Some(line) => device(b, line).map(Follow::Neighbours),
    }
}

/// The interface towards the local network that a line names.
pub(super) fn device(b: &mut Build<'_>, line: &Line) -> Option<String> {
    let name = line.arg(0)?;
    // IFNAMSIZ, its NUL included.
    if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
        b.error(
            line,
            format!(
                "needs the name of the interface towards the local network, as in `{} br-lan`",
                line.name
            ),
        );
        return None;
    }
    Some(name.to_owned())
}

/// `delegate-ipv6 PREFIX/BITS|auto LENGTH [FILE]`.
pub(super) fn delegate(b: &mut Build<'_>, own: &Addresses) -> Option<Delegate> {
    let line = b.line("delegate-ipv6")?;
    let follows = line.arg(0) == Some("auto");
    let pool = match (follows, own.v6, &own.follow) {
        (false, ..) => line.arg(0)?.parse().ok(),
        (true, Some(own), Some(Follow::Tunnel)) => Some(beside(own)),
        (true, ..) => {
            b.error(line, "`auto` cuts up the prefix that the tunnel device is given, which needs `server-ipv6 auto` without `ndp-proxy`");
            return None;
        }
    };
    let Some(pool) = pool else {
        b.error(line, "needs a prefix to cut up (or `auto`) and the length of the parts, as in `delegate-ipv6 fd00:1234::/48 60`");
        return None;
    };
    let bits = b.number(line, 1, 16..=BITS.into())? as u8;
    let (least, most) =
        (pool.prefix_len().saturating_add(1), pool.prefix_len().saturating_add(16).min(BITS));
    if pool.trunc() != pool {
        b.error(
            line,
            format!("{} is inside the prefix; did you mean {}?", pool.addr(), pool.trunc()),
        );
    }
    if !(least..=most).contains(&bits) {
        b.error(
            line,
            format!("the parts of a /{} have a length from {least} to {most}", pool.prefix_len()),
        );
    }
    let state = b.line("sixgate-state").and_then(|line| line.arg(0));
    let file = match (line.arg(2), state) {
        (Some(file), _) => Some(b.source.path(file)),
        (None, Some(state)) => Some(b.source.path(state).join("delegated")),
        (None, None) => {
            b.warn(
                line,
                "who has which part is forgotten at the end; give a file as the third argument",
            );
            None
        }
    };
    Some(Delegate { pool: pool.trunc(), follows, bits, file })
}

/// `ndp-proxy` without a prefix that follows the line.
pub(super) fn device_alone(b: &mut Build<'_>) {
    if let Some(line) = b.line("ndp-proxy") {
        b.error(line, "takes the clients' addresses out of the local network's prefix, which needs `server-ipv6 auto`");
    }
}

/// The prefix that stays.
pub(super) fn own_prefix(b: &mut Build<'_>, line: &Line) -> Option<Ipv6Net> {
    if line.arg(1).is_none() {
        return Some(of_authority(b));
    }
    let net = addresses::network_v6(b, line)?;
    if net.prefix_len() != BITS {
        b.error(
            line,
            "the prefix beside `auto` must be a /64: the rest of an address is the client's own",
        );
        return None;
    }
    Some(net)
}

/// A missing or unreadable `ca` is reported where its content matters.
fn of_authority(b: &Build<'_>) -> Ipv6Net {
    let mut hash = Sha256::new_with_prefix(b"sixgate unique local prefix\0");
    if let Some(line) = b.line("ca") {
        match (&line.inline, line.arg(0)) {
            (Some(block), _) => hash.update(block.as_bytes()),
            (None, Some(name)) => {
                hash.update(b.files.read(&b.source.path(name)).unwrap_or_default())
            }
            (None, None) => {}
        }
    }
    unique_local(hash, BITS)
}

/// The private prefix for whole networks that goes with the stable one of clients' addresses. It is
/// another one, as the rest of that one's /48 may well be in use in the local network.
fn beside(stable: Ipv6Net) -> Ipv6Net {
    let hash = Sha256::new_with_prefix(b"sixgate delegated prefixes\0");
    unique_local(hash.chain_update(stable.network().octets()), POOL_BITS)
}

/// A unique local prefix as RFC 4193, 3.2 wants them, with a hash in place of the random number.
fn unique_local(hash: Sha256, bits: u8) -> Ipv6Net {
    let mut bytes = [0; 16];
    let [first, global_id @ .., _, _, _, _, _, _, _, _, _, _] = &mut bytes;
    *first = 0xfd;
    global_id.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    Ipv6Net::new_assert(Ipv6Addr::from(bytes), bits)
}

#[cfg(test)]
mod tests {
    use crate::config::Follow;
    use crate::config::tests::{error_of, loaded, server_role};

    #[test]
    fn auto_has_a_prefix_of_its_own_and_no_pool() {
        let given = loaded("server-ipv6 auto fd00:1:2:3::/64\n");
        let role = server_role(&given);
        assert_eq!((role.v6, role.v6_pool), ("fd00:1:2:3::1/64".parse().ok(), None));
        assert_eq!(role.follow, Some(Follow::Tunnel));
        let made = loaded("server-ipv6 auto\nndp-proxy br-lan\n");
        let role = server_role(&made);
        assert_eq!(role.follow, Some(Follow::Neighbours("br-lan".to_owned())));
        let own = role.v6.unwrap();
        assert!(own.to_string().starts_with("fd") && own.prefix_len() == 64, "{own}");
        assert_eq!(own, server_role(&loaded("server-ipv6 auto\n")).v6.unwrap(), "always the same");
        assert_eq!(server_role(&loaded("server-ipv6 fd00:1::/64\n")).follow, None);
    }

    #[test]
    fn prefixes_to_be_cut_up() {
        let given =
            loaded("server-ipv6 fd00:1::/64\nsixgate-state /s\ndelegate-ipv6 fd00:d::/48 60\n");
        let role = server_role(&given);
        let delegate = role.delegate.clone().unwrap();
        assert_eq!((delegate.pool.to_string().as_str(), delegate.bits), ("fd00:d::/48", 60));
        assert_eq!(delegate.file, Some("/s/delegated".into()));
        let routes: Vec<_> =
            role.routes.iter().map(|route| route.destination.to_string()).collect();
        assert_eq!(routes, ["fd00:d::/48"]);
        let alone = loaded("server-ipv6 fd00:1::/64\ndelegate-ipv6 fd00:d::/48 60\n");
        assert!(alone.warnings.iter().any(|warning| warning.text.contains("forgotten at the end")));
        for (line, expected) in [
            ("delegate-ipv6 fd00:d::1/48 60", "did you mean fd00:d::/48?"),
            ("delegate-ipv6 fd00:d::/48 48", "length from 49 to 64"),
            ("delegate-ipv6 fd00::/40 60", "length from 41 to 56"),
            ("delegate-ipv6 fd00:d::/64 64", "length from 65 to 64"),
            ("delegate-ipv6 fd00:d::/48 65", "needs a number"),
            ("delegate-ipv6 there 60", "needs a prefix"),
            ("delegate-ipv6 auto 60", "needs `server-ipv6 auto`"),
        ] {
            let error = error_of(&format!("server-ipv6 fd00:1::/64\n{line}\n"));
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_prefix_of_the_line_is_cut_up_beside_a_private_one() {
        let lines = |stable| format!("server-ipv6 auto {stable}\ndelegate-ipv6 auto 60 /f\n");
        let given = loaded(&lines("fd00:1:2:3::/64"));
        let delegate = server_role(&given).delegate.clone().unwrap();
        assert!(delegate.follows && delegate.pool.prefix_len() == 48);
        let own: ipnet::Ipv6Net = "fd00:1:2::/48".parse().unwrap();
        assert!(delegate.pool.to_string().starts_with("fd") && delegate.pool != own);
        let again = |stable| server_role(&loaded(&lines(stable))).delegate.clone().unwrap();
        assert_eq!(again("fd00:1:2:3::/64"), delegate);
        assert_ne!(again("fd00:1:2:4::/64"), delegate);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (lines, expected) in [
            ("server-ipv6 auto fd00:1::/48", "must be a /64"),
            ("server-ipv6 auto here", "needs a prefix"),
            ("server-ipv6 fd00:1::/64 fd00:2::/64", "only with `auto`"),
            ("server-ipv6 fd00:1::/64\nndp-proxy br-lan", "needs `server-ipv6 auto`"),
            ("server 10.8.0.0 255.255.255.0\nndp-proxy br-lan", "needs `server-ipv6 auto`"),
            ("server-ipv6 auto\nndp-proxy a/b", "needs the name"),
            ("server-ipv6 auto\nndp-proxy br-lan\ndelegate-ipv6 auto 60", "without `ndp-proxy`"),
            ("server-ipv6 auto\ndelegate-ipv6 auto 48", "length from 49 to 64"),
            ("server-ipv6 auto\nifconfig-ipv6-pool fd00:1::5/64", "a client's name decides"),
        ] {
            let error = error_of(&format!("{lines}\n"));
            assert!(error.contains(expected), "{error}\nfor {lines}");
        }
    }
}
