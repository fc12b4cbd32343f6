//! IKEv1 messages that are longer than a packet: the vendor extension "FRAGMENTATION".

use std::time::Duration;

use adit_ike::*;

use crate::{v1::v1_tunnels, world::*};

const MODES: [Mode; 2] = [Mode::Main, Mode::Aggressive];
/// Bytes of an IP packet: little enough that every message but the first of main mode is cut.
const PACKET: usize = 160;
/// Of IP, UDP and the marker that a message may have.
const OUTER: usize = 32;

/// Two ends whose identities alone fill a packet.
fn long(seed: u64, mode: Mode) -> World {
    let mut tunnels = v1_tunnels(mode);
    let names = ["a", "b"].map(|end| Id::Fqdn(format!("{}.example", end.repeat(200))));
    for (own, tunnel) in tunnels.iter_mut().enumerate() {
        (tunnel.local_id, tunnel.peer_id) = (names[own].clone(), names[1 - own].clone());
    }
    World::with_settings(seed, tunnels, EndpointConfig { fragment_size: PACKET, ..EndpointConfig::default() })
}

/// The number of a fragment, of a message without marker.
fn fragment(message: &[u8]) -> Option<u8> {
    (message.len() > 36 && message[16] == 132).then(|| message[34])
}

fn is_fragment(held: &Held) -> bool {
    fragment(&held.payload).is_some()
}

#[test]
fn no_packet_is_longer_than_configured_once_the_peer_is_known_to_take_fragments() {
    for mode in MODES {
        for side in [A, B] {
            let mut world = long(1, mode);
            world.connect(side);
            world.seconds(1);
            world.assert_up();
            for sender in [A, B] {
                // Of the first message nobody knows whether the other end can put it together.
                let sent = world.wire.iter().filter(|(from, _)| *from == sender);
                let sent: Vec<_> = sent.skip(usize::from(sender == side)).map(|(_, m)| m).collect();
                let whole = usize::from(sender != side && mode == Mode::Main);
                let longest = sent.iter().skip(whole).map(|m| m.len() + OUTER).max().unwrap();
                assert_eq!(longest, PACKET, "{mode} {side}");
                assert!(sent.iter().filter_map(|m| fragment(m)).any(|number| number >= 2), "{mode} {side}");
            }
            world.close(side);
            world.seconds(60);
            assert!(world.ends.iter().all(|end| end.endpoint.counts() == Counts::default()));
        }
    }
}

#[test]
fn a_peer_that_says_nothing_of_fragments_gets_none() {
    let mut world = long(2, Mode::Main);
    world.hold();
    world.connect(A);
    let mut held = world.take_held();
    // The vendor ID comes last: 16 octets, and 4 of capabilities.
    let first = &mut held[0].payload;
    let at = first.len() - 20;
    first[at] ^= 1;
    let answers = world.give(&held);
    let keys = world.give(&answers);
    assert!(keys.iter().any(is_fragment), "B has said that it takes them");
    let answers = world.give(&keys);
    assert!(!answers.is_empty() && !answers.iter().any(is_fragment), "A has not");
    world.let_go(answers);
    world.seconds(1);
    world.assert_up();
}

#[test]
fn a_lost_fragment_brings_them_all_again() {
    for lost in [0, 1, 2] {
        let mut world = long(3, Mode::Aggressive);
        world.hold();
        world.connect(A);
        let first = world.take_held();
        let mut answer = world.give(&first);
        assert!(answer.len() >= 4 && answer.iter().all(is_fragment));
        let whole = answer.clone();
        answer.remove(lost);
        assert!(world.give(&answer).is_empty(), "nothing is acted on before all is there");
        world.seconds(1);
        let again = world.take_held();
        assert_eq!(again.len(), 1, "A sends its own message again");
        let answers = world.give(&again);
        assert!(answers.iter().map(|h| &h.payload).eq(whole.iter().map(|h| &h.payload)), "the same octets");
        let proof = world.give(&answers);
        assert!(!proof.is_empty());
        world.let_go(proof);
        world.seconds(1);
        world.assert_up();
    }
}

#[test]
fn fragments_come_in_any_order_more_than_once_or_not() {
    for seed in 0..100 {
        let mut world = long(seed, MODES[(seed % 2) as usize]);
        world.faults = Faults {
            loss: 40,
            duplication: 300,
            delay: (Duration::from_millis(1), Duration::from_millis(300)),
        };
        world.ends.iter_mut().for_each(|end| end.keeps_trying = true);
        world.connect((seed / 2 % 2) as usize);
        world.seconds(30);
        world.faults = PERFECT;
        world.seconds(60);
        world.assert_up();
        assert!(world.wire.iter().filter(|(_, m)| fragment(m).is_some()).count() > 8, "seed {seed}");
    }
}

/// A message in fragments of this many octets, as another implementation would cut it.
fn cut(message: &[u8], octets: usize) -> Vec<Vec<u8>> {
    let count = message.len().div_ceil(octets);
    let pieces = message.chunks(octets).zip(1..);
    let cut = pieces.map(|(piece, number)| {
        let mut header = message[..28].to_vec();
        header[16] = 132;
        header[24..28].copy_from_slice(&(28 + 8 + piece.len() as u32).to_be_bytes());
        let length = (8 + piece.len() as u16).to_be_bytes();
        let fragment = [0, 0, length[0], length[1], 0, 1, number, u8::from(usize::from(number) == count)];
        [&header[..], &fragment, piece].concat()
    });
    cut.collect()
}

#[test]
fn a_first_message_may_come_in_fragments() {
    for mode in MODES {
        let mut world = long(4, mode);
        world.hold();
        world.connect(A);
        let [first] = &world.take_held()[..] else { panic!("one message") };
        let mut pieces: Vec<_> =
            cut(&first.payload, 70).into_iter().map(|payload| Held { payload, ..first.clone() }).collect();
        pieces.reverse();
        let answers = world.give(&pieces);
        assert!(!answers.is_empty(), "{mode}");
        // When they come again, the answer is what it was.
        let again = world.give(&pieces);
        assert!(again.iter().map(|h| &h.payload).eq(answers.iter().map(|h| &h.payload)), "{mode}");
        world.let_go(answers);
        world.seconds(1);
        world.assert_up();
    }
}
