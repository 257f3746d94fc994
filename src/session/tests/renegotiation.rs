//! New keys while data flows: nothing may be lost, whoever starts.

use super::*;
use crate::session::data::Format;
use crate::wire::static_key::StaticKey;

/// Only control packets suffer: what is lost then is our doing.
const BAD: Weather = Weather { loss: 20, duplicate: 10, jitter: 300, data_too: false };

fn with_reneg(mut configs: [SessionConfig; 2], client: u64, server: u64) -> [SessionConfig; 2] {
    for (config, secs) in configs.iter_mut().zip([client, server]) {
        let secs = Duration::from_secs(secs);
        config.timers.reneg = (secs, secs - secs / 10);
    }
    configs
}

fn wrapped(configs: [SessionConfig; 2], params: DataParams, seed: u32) -> Net {
    let key = StaticKey::generate(&mut Dice::new(99));
    let wraps = [Wrap::tls_crypt(&key, Role::Client), Wrap::tls_crypt(&key, Role::Server)];
    let mut net = stateful(configs, wraps, None, params, seed);
    // Long enough for the peer to follow a renegotiation at once.
    net.run(6_000);
    net.assert_tunnel();
    for end in &mut net.ends {
        end.data.clear();
    }
    net
}

impl Net {
    fn renegotiate(&mut self, side: usize) -> Result<(), SessionError> {
        self.ends[side].session.renegotiate(self.now, &mut self.dice)
    }

    /// Runs for `secs` with data both ways all the time, numbered on from `from`.
    fn flow(&mut self, secs: u32, from: u32) -> u32 {
        let to = from + secs * 10;
        for number in from..to {
            for side in 0..2 {
                assert!(self.send_data(side, number), "side {side} cannot send");
            }
            self.run(100);
        }
        to
    }

    fn assert_nothing_lost(&self, total: u32) {
        for end in &self.ends {
            assert_eq!(end.failure, None);
            assert!(end.data.iter().copied().eq(0..total), "lost some: {}", end.data.len());
        }
    }

    fn assert_key(&self, id: u8) {
        for end in &self.ends {
            assert_eq!(end.session.primary.id, KeyId::new(id).unwrap());
            assert!(end.session.primary.established.is_some());
            let last = end.opcodes.iter().rfind(|(opcode, _)| !opcode.is_control()).unwrap();
            assert_eq!(last.1, KeyId::new(id).unwrap(), "data still by another key");
        }
    }
}

#[test]
fn either_side_or_both_at_once_without_losing_a_packet() {
    let pki = Pki::new();
    for seed in 0..6 {
        for starters in [&[0][..], &[1], &[0, 1]] {
            for format in [Format::Classic, Format::Epoch] {
                let params = DataParams { format, ..PARAMS };
                let mut net = wrapped(pki.configs(), params, seed);
                net.weather = BAD;
                for side in starters {
                    net.renegotiate(*side).unwrap();
                }
                let total = net.flow(100, 0);
                net.assert_nothing_lost(total);
                net.assert_key(1);
                assert_eq!(net.ends[0].authentications.len(), 2);
                let again = &net.ends[1].authentications[1];
                assert!(again.renegotiation && again.key_id == KeyId::new(1).unwrap());
                assert_eq!(again.identity, net.ends[1].authentications[0].identity);
            }
        }
    }
}

#[test]
fn dynamic_tls_crypt_is_optional_and_works_over_every_wrap() {
    for dynamic_tls_crypt in [false, true] {
        let params = DataParams { dynamic_tls_crypt, derivation: Derivation::Prf, ..PARAMS };
        for wrapped_too in [false, true] {
            let pki = Pki::new();
            let mut net = if wrapped_too {
                wrapped(pki.configs(), params, 1)
            } else {
                plain(pki.configs(), params, 1)
            };
            net.run(2_000);
            net.renegotiate(0).unwrap();
            net.run(70_000);
            net.assert_tunnel();
            net.assert_key(1);
            let switched = net.ends[0].session.dynamic_wrap.is_some();
            assert_eq!(switched, dynamic_tls_crypt);
        }
    }
}

#[test]
fn timers_renegotiate_and_key_ids_skip_zero() {
    let mut net = wrapped(with_reneg(Pki::new().configs(), 100, 80), PARAMS, 2);
    net.weather = BAD;
    let total = net.flow(9 * 100, 0);
    net.assert_nothing_lost(total);
    let started: Vec<u8> =
        net.ends[1].authentications.iter().map(|auth| auth.key_id.value()).collect();
    assert!(started.len() > 9, "{started:?}");
    assert_eq!(started[..9], [0, 1, 2, 3, 4, 5, 6, 7, 1]);
}

#[test]
fn the_peer_cannot_renegotiate_all_the_time() {
    let mut net = wrapped(Pki::new().configs(), PARAMS, 3);
    net.run(10_000);
    net.renegotiate(0).unwrap();
    net.run(1_000);
    assert_eq!(net.ends[1].authentications.len(), 2);
    assert_eq!(net.renegotiate(0), Ok(()));
    assert_eq!(net.renegotiate(0), Err(SessionError::NotReady), "one is under way");
    net.run(1_000);
    assert_eq!(net.ends[1].authentications.len(), 2, "followed too soon");
    net.run(10_000);
    assert_eq!(net.ends[1].authentications.len(), 3, "the retransmitted reset is followed");
}

#[test]
fn no_renegotiation_before_the_first_key() {
    let mut net = plain(Pki::new().configs(), PARAMS, 3);
    assert_eq!(net.renegotiate(0), Err(SessionError::NotReady));
    net.run(2_000);
    assert_eq!(
        net.ends[0].session.install_keys(net.now, PARAMS),
        Err(SessionError::AlreadyInstalled)
    );
}

#[test]
fn a_server_keeps_the_old_key_when_the_client_does_not_answer() {
    let mut net = wrapped(Pki::new().configs(), PARAMS, 4);
    net.weather = Weather { loss: 100, ..BAD };
    net.renegotiate(1).unwrap();
    let mut total = net.flow(70, 0);
    net.assert_nothing_lost(total);
    assert_eq!(net.ends[1].session.primary.id, KeyId::ZERO);
    net.weather = BAD;
    total = net.flow(150, total);
    net.assert_nothing_lost(total);
    net.assert_key(1);
}

#[test]
fn a_client_starts_over_when_the_server_does_not_answer() {
    let mut net = wrapped(Pki::new().configs(), PARAMS, 4);
    net.weather = Weather { loss: 100, ..BAD };
    net.renegotiate(0).unwrap();
    net.flow(59, 0);
    net.run(2_000);
    assert_eq!(net.ends[0].failure, Some(SessionFailure::HandshakeTimeout));
}

#[test]
fn the_old_key_ends_with_the_transition_window() {
    let mut configs = Pki::new().configs();
    for config in &mut configs {
        config.timers.transition = Duration::from_secs(30);
    }
    let mut net = wrapped(configs, PARAMS, 5);
    net.renegotiate(0).unwrap();
    net.run(29_000);
    assert!(net.ends[0].session.retiring.is_some());
    net.run(2_000);
    assert!(net.ends[0].session.retiring.is_none());
    net.assert_tunnel();
}

#[test]
fn a_rejected_identity_ends_the_session() {
    let mut net = wrapped(Pki::new().configs(), PARAMS, 6);
    net.ends[1].approve = false;
    net.renegotiate(0).unwrap();
    net.run(2_000);
    assert_eq!(net.ends[1].failure, Some(SessionFailure::Rejected));
    assert_eq!(net.ends[1].ready, [KeyId::ZERO]);
}

#[test]
fn messages_sent_during_a_renegotiation_arrive() {
    let mut net = wrapped(Pki::new().configs(), PARAMS, 7);
    net.weather = BAD;
    net.ends[1].session.send_message("INFO,before").unwrap();
    net.renegotiate(0).unwrap();
    net.ends[1].session.send_message("INFO,meanwhile").unwrap();
    net.run(200);
    net.ends[1].session.send_message("INFO,later").unwrap();
    net.run(60_000);
    let infos = net.ends[0].messages.iter().filter(|message| matches!(message, Message::Info(_)));
    assert_eq!(infos.count(), 3);
}
