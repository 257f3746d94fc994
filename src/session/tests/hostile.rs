//! Whatever arrives, nothing panics, nothing grows without bound and a running tunnel goes on.

use super::*;
use crate::engine::DropReason;
use crate::session::reliable::Receipt;
use crate::wire::control::{AckList, Body, Header, MessageId};
use crate::wire::static_key::StaticKey;

/// Damages a datagram in one of several ways.
fn damage(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let len = bytes.len() as u32;
    match dice.roll(6) {
        0 => bytes.truncate(dice.roll(len + 1) as usize),
        1 => bytes[dice.roll(len) as usize] ^= 1 << dice.roll(8),
        2 => bytes.extend((0..dice.roll(1500)).map(|at| at as u8)),
        3 => bytes[0] = dice.roll(256) as u8,
        4 => {
            let at = dice.roll(len) as usize;
            bytes[at..].fill_with(|| dice.roll(256) as u8);
        }
        _ => {
            bytes.clear();
            let len = dice.roll(200);
            bytes.extend((0..len).map(|_| dice.roll(256) as u8));
        }
    }
}

/// Sends every datagram of a handshake and of a renegotiation also in damaged copies.
fn storm(mut net: Net, genuine: bool) -> Net {
    let mut dice = Dice::new(1);
    for turn in 0..400 {
        net.run(50);
        if turn == 200 {
            let _refused = net.ends[0].session.renegotiate(net.now, &mut net.dice);
        }
        let flying: Vec<(usize, Vec<u8>)> = net.flying.values().cloned().collect();
        for (to, bytes) in flying {
            for _ in 0..4 {
                let mut copy = bytes.clone();
                damage(&mut copy, &mut dice);
                if copy.is_empty() {
                    continue;
                }
                net.ends[to].take_datagram(net.now, &copy, &mut dice);
            }
        }
        for side in 0..2 {
            net.send_data(side, turn);
        }
        if !genuine && net.ends.iter().any(|end| end.failure.is_some()) {
            break;
        }
    }
    net
}

#[test]
fn damaged_packets_do_no_harm_behind_a_wrap() {
    let key = StaticKey::generate(&mut Dice::new(99));
    for seed in 0..4 {
        let wraps = [Wrap::tls_crypt(&key, Role::Client), Wrap::tls_crypt(&key, Role::Server)];
        let mut net = stateful(Pki::new().configs(), wraps, None, PARAMS, seed);
        net.weather = Weather { loss: 5, duplicate: 5, jitter: 200, data_too: true };
        let mut net = storm(net, true);
        net.weather = Weather::default();
        net.run(1_000);
        assert_eq!(net.ends[0].failure, None);
        assert_eq!(net.ends[1].failure, None);
        net.assert_tunnel();
    }
}

#[test]
fn damaged_packets_without_a_wrap_end_the_session_at_worst() {
    for seed in 0..20 {
        let mut net = plain(Pki::new().configs(), PARAMS, seed);
        net.weather = Weather { loss: 5, duplicate: 5, jitter: 200, data_too: true };
        storm(net, false);
    }
}

#[test]
fn random_datagrams_are_dropped() {
    let mut net = plain(Pki::new().configs(), PARAMS, 1);
    let mut dice = Dice::new(2);
    let remote = net.ends.each_ref().map(|end| end.session.remote_id());
    for turn in 0..20_000 {
        let len = 1 + dice.roll(300) as usize;
        let mut bytes = vec![0; len];
        dice.fill(&mut bytes);
        bytes[0] =
            (3 + dice.roll(9) as u8) << 3 | if turn % 3 == 0 { 0 } else { dice.roll(8) as u8 };
        // Half of them bear the peer's session id and so get as far as a stranger's can.
        if turn % 2 == 0 && len > 9 {
            bytes[1..9].copy_from_slice(&remote[turn % 4 / 2].0);
        }
        for end in &mut net.ends {
            end.take_datagram(net.now, &bytes, &mut dice);
        }
    }
}

/// A control packet from the client to the server of an unwrapped session.
fn forge(net: &Net, opcode: Opcode, id: Option<u32>, acks: &[u32], payload: &[u8]) -> Vec<u8> {
    let client = &net.ends[0].session;
    let header = Header { opcode, key_id: KeyId::ZERO, session: client.local_id() };
    let acks: AckList = acks.iter().copied().map(MessageId).collect();
    let remote = Some(net.ends[1].session.local_id());
    let body = Body { acks, remote, id: id.map(MessageId), payload };
    let mut memory = PacketBuf::new();
    let mut out = memory.packet();
    Wrap::none().seal(net.now.unix, header, &body, &[], &mut out).unwrap();
    out.as_slice().to_vec()
}

fn handle(net: &mut Net, mut packet: Vec<u8>) -> Result<(), DropReason> {
    let (now, dice) = (net.now, &mut net.dice);
    net.ends[1].session.handle_control(now, &mut packet, dice)
}

#[test]
fn packets_that_do_not_belong_are_named() {
    let params = DataParams { dynamic_tls_crypt: false, ..PARAMS };
    let mut net = plain(Pki::new().configs(), params, 1);
    net.run(2_000);
    let reset = forge(&net, Opcode::HardResetClientV2, Some(1), &[], &[]);
    assert_eq!(handle(&mut net, reset), Err(DropReason::Malformed));
    let reset = forge(&net, Opcode::HardResetServerV2, Some(0), &[], &[]);
    assert_eq!(handle(&mut net, reset), Err(DropReason::BadOpcode));
    let reset = forge(&net, Opcode::SoftResetV1, Some(0), &[], &[]);
    assert_eq!(handle(&mut net, reset), Err(DropReason::BadOpcode));
    let mut stranger = forge(&net, Opcode::ControlV1, Some(1), &[], b"x");
    stranger[1] ^= 1;
    assert_eq!(handle(&mut net, stranger), Err(DropReason::UnknownSession));
    let mut to_another = forge(&net, Opcode::AckV1, None, &[1], &[]);
    to_another[14] ^= 1;
    assert_eq!(handle(&mut net, to_another), Err(DropReason::UnknownSession));
    let mut other_key = forge(&net, Opcode::ControlV1, Some(1), &[], b"x");
    other_key[0] |= 3;
    assert_eq!(handle(&mut net, other_key), Err(DropReason::NoKey));
    let wkc = forge(&net, Opcode::WkcV1, Some(1), &[], b"");
    assert_eq!(handle(&mut net, wkc), Err(DropReason::Malformed));
    let repeated = forge(&net, Opcode::HardResetClientV2, Some(0), &[], &[]);
    assert_eq!(handle(&mut net, repeated), Ok(()));
    net.run(100);
    net.assert_tunnel();
}

#[test]
fn a_stranger_fills_no_more_than_the_window() {
    let mut net = plain(Pki::new().configs(), PARAMS, 1);
    for id in 2..2_000 {
        let packet = forge(&net, Opcode::ControlV1, Some(id), &[], &[0x16; 1_400]);
        handle(&mut net, packet).unwrap();
    }
    let channel = net.ends[1].session.primary.channel.as_mut().unwrap();
    assert_eq!(channel.reliable.receive(MessageId(13), Opcode::ControlV1, &[]), Receipt::Refused);
}

#[test]
fn a_tls_alert_goes_out_before_the_failure() {
    let mut net = plain(Pki::new().configs(), PARAMS, 1);
    let packet = forge(&net, Opcode::ControlV1, Some(1), &[0], b"GET / HTTP/1.0\r\n\r\n");
    handle(&mut net, packet).unwrap();
    let (now, session) = (net.now, &mut net.ends[1].session);
    assert!(session.poll_event().is_none(), "the alert comes first");
    assert!(session.poll_timeout().is_some());
    let mut memory = PacketBuf::new();
    let mut out = memory.packet();
    let mut control = 0;
    while session.poll_transmit(now, &mut out) {
        control += u32::from(out.as_slice()[0] == 0x20);
    }
    assert_eq!(control, 1);
    assert!(matches!(session.poll_event(), Some(SessionEvent::Failed(SessionFailure::Tls(_)))));
    assert!(session.poll_event().is_none());
    assert!(!session.poll_transmit(now, &mut out));
}

#[test]
fn a_flood_of_messages_is_bounded() {
    let mut net = plain(Pki::new().configs(), PARAMS, 1);
    net.run(2_000);
    let tls = net.ends[0].session.primary.channel.as_mut().unwrap();
    tls.write(&b"INFO,x\0".repeat(290)).unwrap();
    net.ends[0].session.send_waiting();
    let mut memory = PacketBuf::new();
    let mut out = memory.packet();
    while net.ends[0].session.poll_transmit(net.now, &mut out) {
        let (now, dice) = (net.now, &mut net.dice);
        let _dropped = net.ends[1].session.handle_control(now, out.as_mut_slice(), dice);
    }
    assert_eq!(net.ends[1].session.events.len(), MAX_CONTROL_QUEUE);
    net.run(1_000);
    net.assert_tunnel();
}
