//! The opening under every wrapping, TLS version, key type and derivation.

use super::*;

#[test]
fn plain_handshake_brings_up_a_tunnel() {
    let mut net = plain(Pki::new().configs(), PARAMS, 1);
    net.run(2_000);
    assert_eq!(net.ends[0].failure, None);
    assert_eq!(net.ends[1].failure, None);
    net.assert_tunnel();
}
