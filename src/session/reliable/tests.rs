//! Known answers for the acknowledgement list, and random runs of two ends over a bad link.

use std::collections::VecDeque;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn ids(list: &[u32]) -> Vec<MessageId> {
    list.iter().copied().map(MessageId).collect()
}

fn layer() -> Reliable {
    Reliable::new(0, SEND_WINDOW, 2 * SECOND)
}

#[test]
fn recent_acks_follow_the_known_answers() {
    // openvpn-protocol.md 13.5, from t:test_packet_id.c.
    let mut layer = layer();
    layer.due = AckList::from_slice(&ids(&[2, 1, 3, 2])).unwrap();
    layer.acks(4);
    assert_eq!(layer.recent.as_slice(), ids(&[2, 1, 3]));
    layer.due = AckList::from_slice(&ids(&[3, 2, 42])).unwrap();
    layer.acks(2);
    assert_eq!(layer.recent.as_slice(), ids(&[3, 2, 1]));
    layer.recent = AckList::from_slice(&ids(&[2, 1, 3])).unwrap();
    layer.due = AckList::from_slice(&ids(&[5, 6, 7, 8, 9, 10, 11])).unwrap();
    layer.acks(8);
    assert_eq!(layer.recent.as_slice(), ids(&[5, 6, 7, 8, 9, 10, 11, 2]));
}

#[test]
fn a_packet_repeats_recent_acks_as_far_as_there_is_room() {
    let mut layer = layer();
    for id in 0..5 {
        assert_eq!(layer.receive(MessageId(id), Opcode::ControlV1, b"x"), Receipt::New);
    }
    assert_eq!(layer.acks(4).as_slice(), ids(&[0, 1, 2, 3]));
    assert!(layer.owes_acks());
    assert_eq!(layer.acks(4).as_slice(), ids(&[4, 0, 1, 2]));
    assert!(!layer.owes_acks());
}

#[test]
fn back_off_doubles_up_to_its_cap() {
    let mut layer = layer();
    layer.push(Opcode::ControlV1, vec![1]).unwrap();
    let mut at = Instant::from_millis(500);
    for wait in [2, 4, 8, 8] {
        assert_eq!(layer.poll(at).unwrap().id, MessageId(0));
        assert!(layer.poll(at).is_none());
        assert_eq!(layer.poll_timeout(), Some(at + wait * SECOND));
        at = at + wait * SECOND;
    }
}

#[test]
fn three_later_acks_bring_a_lost_packet_back_at_once() {
    let now = Instant::from_millis(1000);
    let mut layer = layer();
    for _ in 0..4 {
        layer.push(Opcode::ControlV1, vec![1]).unwrap();
    }
    assert_eq!(layer.push(Opcode::ControlV1, vec![1]), Err(Full));
    while layer.poll(now).is_some() {}
    layer.acknowledge(&ids(&[1, 1, 2]));
    assert!(layer.poll(now).is_none());
    layer.acknowledge(&ids(&[3]));
    assert!(!layer.has_room(), "the span from id 0 fills the peer's window");
    assert_eq!(layer.poll(now).unwrap().id, MessageId(0));
    assert!(layer.poll(now).is_none());
    layer.acknowledge(&ids(&[0]));
    assert!(layer.is_idle());
    assert_eq!(layer.next_id(), MessageId(4));
}

#[test]
fn acks_for_what_was_never_sent_change_nothing() {
    let mut layer = layer();
    layer.push(Opcode::ControlV1, vec![1]).unwrap();
    layer.acknowledge(&ids(&[0, 1, u32::MAX]));
    assert!(!layer.is_idle());
}

#[test]
fn window_edges() {
    let mut layer = Reliable::new(1, 4, SECOND);
    let window = RECEIVE_WINDOW as u32;
    assert_eq!(layer.receive(MessageId(0), Opcode::ControlV1, b""), Receipt::Duplicate);
    assert_eq!(layer.receive(MessageId(1 + window), Opcode::ControlV1, b""), Receipt::Refused);
    assert_eq!(layer.receive(MessageId(window), Opcode::ControlV1, b""), Receipt::New);
    assert_eq!(layer.receive(MessageId(window), Opcode::ControlV1, b""), Receipt::Duplicate);
    let large = [0; MAX_PAYLOAD + 1];
    assert_eq!(layer.receive(MessageId(1), Opcode::ControlV1, &large), Receipt::Refused);
    assert!(layer.take().is_none());
    assert_eq!(layer.acks(8).as_slice(), ids(&[0, window]));
}

/// xorshift, so that a failure repeats from its seed.
struct Dice(u32);

impl Dice {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % bound
    }
}

struct Flying {
    acks: AckList,
    id: Option<MessageId>,
    payload: Vec<u8>,
}

#[test]
fn everything_arrives_once_and_in_order_over_a_bad_link() {
    for seed in 1..60_u32 {
        let mut dice = Dice(seed.wrapping_mul(2_654_435_761) | 1);
        let mut ends = [layer(), layer()];
        let mut links: [VecDeque<Flying>; 2] = Default::default();
        let (mut sent, mut got) = ([0_u32; 2], [0_u32; 2]);
        let mut now = Instant::from_millis(1);
        let total = 60;
        while got.iter().any(|got| *got < total) || ends.iter().any(|end| !end.is_idle()) {
            assert!(now.as_millis() < 3_600_000, "seed {seed}: stuck at {got:?}");
            for side in 0..2 {
                let end = &mut ends[side];
                while sent[side] < total && end.has_room() {
                    end.push(Opcode::ControlV1, sent[side].to_be_bytes().to_vec()).unwrap();
                    sent[side] += 1;
                }
                while let Some(due) = end.poll(now) {
                    let (id, payload) = (Some(due.id), due.payload.to_vec());
                    links[side].push_back(Flying { acks: end.acks(4), id, payload });
                }
                if end.owes_acks() {
                    let payload = Vec::new();
                    links[side].push_back(Flying { acks: end.acks(8), id: None, payload });
                }
            }
            for side in 0..2 {
                let Some(at) = u32::try_from(links[side].len()).ok().filter(|n| *n > 0) else {
                    continue;
                };
                let at = dice.below(at) as usize;
                let lost = dice.below(4) == 0;
                let packet = if dice.below(8) == 0 {
                    let copy = &links[side][at];
                    Flying { acks: copy.acks.clone(), id: copy.id, payload: copy.payload.clone() }
                } else {
                    links[side].remove(at).unwrap()
                };
                if lost {
                    continue;
                }
                let end = &mut ends[1 - side];
                end.acknowledge(&packet.acks);
                if let Some(id) = packet.id {
                    end.receive(id, Opcode::ControlV1, &packet.payload);
                }
                while let Some((_, payload)) = end.take() {
                    assert_eq!(payload, got[1 - side].to_be_bytes(), "seed {seed}");
                    got[1 - side] += 1;
                }
            }
            now = now + Duration::from_millis(u64::from(dice.below(400)));
        }
    }
}
