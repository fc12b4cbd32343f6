//! Rekeys of IKEv1's Child SAs: the initiator goes on with the old pair until the peer has the new one.

use std::time::Duration;

use adit_ike::*;

use crate::{
    schedules::{for_all, rekeys_lose_nothing},
    v1::v1_tunnels,
    world::*,
};

/// A tunnel that A has begun to rekey, whose third message has not been given on; and the pair that is replaced.
fn third_message_held() -> (World, Vec<Held>, Option<u32>) {
    let mut world = World::new(5, v1_tunnels(Mode::Main));
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    let old = world.ends[A].sending;
    world.hold();
    world.rekey_child(A);
    let offer = world.take_held();
    let answer = world.give(&offer);
    let third = world.give(&answer);
    assert_eq!((answer.len(), third.len(), world.ends[A].children.len()), (1, 1, 2), "{}", world.story());
    assert_eq!(world.ends[A].sending, old);
    (world, third, old)
}

#[test]
fn packets_of_the_peers_say_that_it_has_the_new_pair() {
    let (mut world, third, old) = third_message_held();
    world.give(&third);
    assert_eq!(world.ends[A].sending, old);
    world.send_packet(B);
    world.run(Duration::from_millis(100));
    assert_ne!(world.ends[A].sending, old, "{}", world.story());
    world.let_go(Vec::new());
    world.seconds(10);
    world.assert_up();
}

#[test]
fn without_packets_of_the_peers_the_new_pair_has_its_turn_after_a_while() {
    let (mut world, third, old) = third_message_held();
    world.let_go(third);
    world.run(Duration::from_millis(4900));
    assert_eq!(world.ends[A].sending, old);
    world.run(Duration::from_millis(200));
    assert_ne!(world.ends[A].sending, old, "{}", world.story());
    world.seconds(10);
    world.assert_up();
}

#[test]
fn a_peer_that_asks_again_for_the_third_message_is_waited_for() {
    let (mut world, _lost, old) = third_message_held();
    world.run(Duration::from_millis(4500));
    let again: Vec<Held> = world.take_held().into_iter().filter(|held| held.to == A).collect();
    assert!(!again.is_empty(), "{}", world.story());
    let third = world.give(&again[..1]);
    world.seconds(4);
    assert_eq!(world.ends[A].sending, old);
    world.take_held();
    world.let_go(third);
    world.seconds(2);
    assert_ne!(world.ends[A].sending, old, "{}", world.story());
    world.seconds(10);
    world.assert_up();
}

/// A peer that ends the old pair at once has the new one.
#[test]
fn the_new_pair_is_sent_with_when_the_peer_deletes_the_old() {
    let (mut world, third, old) = third_message_held();
    world.give(&third);
    let (now, spi) =
        (world.now, world.ends[B].children.values().map(|child| child.inbound.spi).collect::<Vec<_>>());
    let of_old = *spi.iter().find(|spi| world.ends[B].order[0] == **spi).unwrap();
    world.ends[B].endpoint.close_child(now, TUNNEL, of_old);
    world.settle(B);
    let delete = world.take_held();
    world.give(&delete);
    assert_ne!(world.ends[A].sending, old, "{}", world.story());
    assert_eq!(world.ends[A].children.len(), 1);
    world.let_go(Vec::new());
    world.seconds(10);
    world.assert_up();
}

/// A pair that the peer has been told of stays for what was on its way.
#[test]
fn a_pair_that_is_said_to_go_is_not_said_again_with_the_end_of_the_tunnel() {
    let mut world = World::new(6, v1_tunnels(Mode::Main));
    world.connect(A);
    world.seconds(1);
    world.rekey_child(A);
    world.run(Duration::from_millis(7500));
    assert_eq!([A, B].map(|side| world.ends[side].children.len()), [2, 1], "{}", world.story());
    world.ends[A].endpoint.close(world.now, TUNNEL);
    assert_eq!(world.settle(A).len(), 2, "of the new pair, and of the ISAKMP SA\n{}", world.story());
    assert!(world.ends[A].children.is_empty());
}

#[test]
fn rekeys_from_both_ends_lose_no_packet_with_peers_that_install_last() {
    for_all(|seed| {
        let world = rekeys_lose_nothing(seed, v1_tunnels(Mode::Main), (1, 300, 400), |_, _| ());
        world.ends[A].log.iter().filter(|line| line.contains("Child up ")).count() as u64
    });
}
