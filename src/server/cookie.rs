//! The stateless cookie: a session id that proves that the peer receives at its address [3.3].
//!
//! The server's session id of the first answer is a MAC over the time slot, the peer's transport
//! address and the peer's session id. Whoever echoes it has seen our answer; until then the server
//! remembers nothing. Parsing the packets that carry it is `admit`'s business.

use core::time::Duration;
use std::net::{IpAddr, SocketAddr};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::random::Random;
use crate::time::Instant;
use crate::wire::control::SessionId;

/// Past slots whose cookies are still good, beside the current one.
const PAST_SLOTS: u64 = 2;

/// Makes and checks cookies; the key lives as long as the process.
pub struct Cookies {
    keyed: Hmac<Sha256>,
    slot: Duration,
}

impl Cookies {
    /// A fresh key; a slot is half the handshake window, rounded up.
    pub fn new(handshake: Duration, rng: &mut dyn Random) -> Self {
        // As long as the hash's block, so that the HMAC takes it as it is.
        let mut key = zeroize::Zeroizing::new([0; 64]);
        rng.fill(key.as_mut_slice());
        let slot = Duration::from_secs(handshake.as_secs().saturating_add(1) / 2);
        Self { keyed: Hmac::new(&(*key).into()), slot: slot.max(Duration::from_secs(1)) }
    }

    /// The session id to answer the peer's `theirs` with.
    pub fn make(&self, now: Instant, from: SocketAddr, theirs: SessionId) -> SessionId {
        let mac = self.mac(self.slot_of(now), from, theirs).finalize().into_bytes();
        SessionId(mac.first_chunk().copied().unwrap_or_default())
    }

    /// Whether `ours` is a cookie made for this peer in this slot or one of the two before.
    pub fn check(
        &self,
        now: Instant,
        from: SocketAddr,
        theirs: SessionId,
        ours: SessionId,
    ) -> bool {
        let current = self.slot_of(now);
        (0..=PAST_SLOTS).filter_map(|ago| current.checked_sub(ago)).any(|slot| {
            // Compares in constant time; `Ok` is the only good outcome (CVE-2025-13086).
            self.mac(slot, from, theirs).verify_truncated_left(&ours.0).is_ok()
        })
    }

    fn slot_of(&self, now: Instant) -> u64 {
        (u128::from(now.as_millis()) / self.slot.as_millis()) as u64
    }

    fn mac(&self, slot: u64, from: SocketAddr, theirs: SessionId) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(&slot.to_be_bytes());
        // A canonical encoding: family, address, port. No field is left to padding or scope.
        match from.ip() {
            IpAddr::V4(v4) => {
                mac.update(&[4]);
                mac.update(&v4.octets());
            }
            IpAddr::V6(v6) => {
                mac.update(&[6]);
                mac.update(&v6.octets());
            }
        }
        mac.update(&from.port().to_be_bytes());
        mac.update(&theirs.0);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: SessionId = SessionId([1, 2, 3, 4, 5, 6, 7, 8]);

    fn cookies(seed: u8) -> Cookies {
        Cookies::new(Duration::from_secs(60), &mut |out: &mut [u8]| out.fill(seed))
    }

    fn from(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn holds_for_its_slot_and_the_two_after_it() {
        let cookies = cookies(7);
        let peer = from("[2001:db8::1]:40000");
        let ours = cookies.make(Instant::from_millis(300_000), peer, CLIENT);
        for (millis, good) in [(300_000, true), (329_999, true), (389_999, true), (390_000, false)]
        {
            let now = Instant::from_millis(millis);
            assert_eq!(cookies.check(now, peer, CLIENT, ours), good, "{millis}");
        }
        assert!(!cookies.check(Instant::from_millis(299_999), peer, CLIENT, ours), "from ahead");
    }

    #[test]
    fn refuses_every_other_value() {
        let now = Instant::from_millis(1_000);
        let peer = from("192.0.2.1:1194");
        let ours = cookies(7).make(now, peer, CLIENT);
        assert!(cookies(7).check(now, peer, CLIENT, ours));
        for bit in 0..64 {
            let mut wrong = ours;
            wrong.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!cookies(7).check(now, peer, CLIENT, wrong), "bit {bit}");
            let mut other = CLIENT;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!cookies(7).check(now, peer, other, ours), "bit {bit} of the client's");
        }
        assert!(!cookies(7).check(now, peer, CLIENT, SessionId([0; 8])));
        assert!(!cookies(8).check(now, peer, CLIENT, ours), "another process");
        for elsewhere in ["192.0.2.2:1194", "192.0.2.1:1195", "[::ffff:192.0.2.1]:1194"] {
            assert!(!cookies(7).check(now, from(elsewhere), CLIENT, ours), "{elsewhere}");
        }
    }
}
