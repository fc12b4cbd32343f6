//! A tunnel that is authenticated anew while it carries traffic: make before break (RFC 7296 section 2.8.3).

use std::time::Duration;

use adit_ike::*;

use crate::{lifecycle::up, world::*};

fn reconnect(world: &mut World, side: usize) {
    let (now, peer) = (world.now, world.ends[side].peer);
    world.ends[side].endpoint.reconnect(now, TUNNEL, peer);
    world.settle(side);
}

/// ```text
///      A                                            B
///   begin ──IKE_SA_INIT──▶ ◀──IKE_SA_INIT──
///         ──IKE_AUTH──▶                        has both pairs, sends with the old one
///         ◀──IKE_AUTH──
///         ──packet, with the new pair──▶       sends with the new one
/// ```
#[test]
fn the_responder_sends_with_the_new_pair_when_traffic_comes_with_it() {
    let mut world = up(1, plain_tunnels());
    let old = world.child(B).inbound.spi;
    reconnect(&mut world, A);
    world.run(Duration::from_millis(17));
    let new = world.ends[B].newest();
    assert!(new.inbound.spi != old && !new.switch_outbound, "{}", world.story());
    world.run(Duration::from_millis(4));
    assert!(world.ends[A].newest().switch_outbound && !world.ends[B].newest().switch_outbound);
    world.send_packet(A);
    world.run(Duration::from_millis(6));
    assert!(world.ends[B].newest().switch_outbound, "{}", world.story());
    world.seconds(60);
    world.assert_up();
    world.assert_no_leak();
}

/// ```text
///      A                                            B
///         ──IKE_AUTH──▶                        sends with the old pair
///         ◀──IKE_AUTH──
///         ──DELETE of the old pair──▶          sends with the new one
///         ──DELETE of the old IKE SA──▶
/// ```
#[test]
fn the_responder_sends_with_the_new_pair_when_the_old_one_is_deleted() {
    let mut world = up(2, plain_tunnels());
    reconnect(&mut world, A);
    world.run(Duration::from_millis(1900));
    assert!(!world.ends[B].newest().switch_outbound);
    world.run(Duration::from_millis(300));
    assert!(world.ends[B].newest().switch_outbound, "{}", world.story());
    assert_eq!(world.ends[B].children.len(), 2, "what is on its way with the old pair is still taken");
    world.seconds(60);
    world.assert_up();
    world.assert_no_leak();
}

/// ```text
///      A                                            B
///         ──IKE_AUTH──▶                        sends with the old pair
///         ◀──IKE_AUTH──
///         ──packet, with the old pair──┐
///         ──DELETE of the old IKE SA──▶│       sends with the new one
///                                      └──▶    takes it all the same
/// ```
#[test]
fn what_a_peer_sent_before_it_closed_the_old_ike_sa_is_still_taken() {
    let mut world = up(5, plain_tunnels());
    let [a, b] = [A, B].map(|side| world.child(side).inbound.spi);
    reconnect(&mut world, A);
    world.run(Duration::from_millis(25));
    let now = world.now;
    world.ends[A].endpoint.expire_child(now, TUNNEL, a);
    world.settle(A);
    world.run(Duration::from_millis(10));
    assert!(world.ends[B].newest().switch_outbound, "{}", world.story());
    assert!(world.ends[B].order.contains(&b), "{}", world.story());
    world.seconds(3);
    world.assert_up();
    assert!(!world.ends[B].order.contains(&b), "{}", world.story());
    world.seconds(60);
    world.assert_no_leak();
}

/// A peer may forget the old pair with the answer to its DELETE: what was sealed with it before has time to arrive.
///
/// ```text
///      A                                            B
///         ──DELETE of the old IKE SA──▶        sends with the new pair
///                    ◀──packet, with the old pair──
///         ◀──the answer──                      a tenth of a second later, or when it is asked again
/// ```
#[test]
fn the_answer_to_a_delete_comes_after_what_was_sent_with_the_old_pair() {
    for asks_again in [false, true] {
        let mut world = up(6, plain_tunnels());
        let old = world.child(A).inbound.spi;
        reconnect(&mut world, A);
        world.run(Duration::from_millis(25));
        world.hold();
        let now = world.now;
        world.ends[A].endpoint.expire_child(now, TUNNEL, old);
        world.settle(A);
        let delete = world.take_held();
        assert!(world.give(&delete).is_empty(), "{}", world.story());
        assert!(world.ends[B].newest().switch_outbound, "{}", world.story());
        let answer = if asks_again {
            world.give(&delete)
        } else {
            world.run(Duration::from_millis(99));
            assert!(world.take_held().is_empty(), "{}", world.story());
            world.run(Duration::from_millis(1));
            world.take_held()
        };
        assert_eq!(answer.len(), 1, "{}", world.story());
        world.run(Duration::from_millis(200));
        assert!(world.take_held().is_empty(), "{}", world.story());
    }
}

/// ```text
///      A                                            B
///         ──IKE_AUTH──▶                        sends with the old pair
///   ×     ◀──IKE_AUTH──
///                                              sends with the new one some seconds later
/// ```
#[test]
fn a_peer_of_which_nothing_more_is_heard_is_sent_to_with_the_new_pair_soon() {
    let mut world = up(3, plain_tunnels());
    world.hold();
    reconnect(&mut world, A);
    let request = world.take_held();
    let answer = world.give(&request);
    let request = world.give(&answer);
    world.give(&request);
    assert!(!world.ends[B].newest().switch_outbound, "{}", world.story());
    world.seconds(6);
    assert!(world.ends[B].newest().switch_outbound, "{}", world.story());
}

/// Packets one way or both, over a network that delays and reorders: none is lost.
#[test]
fn none_of_the_packets_is_lost() {
    for seed in 0..60 {
        for (side, senders) in [(A, &[A][..]), (A, &[B]), (A, &[A, B]), (B, &[A, B])] {
            let mut world = up(seed, plain_tunnels());
            world.faults.delay = (Duration::from_millis(1), Duration::from_millis(150));
            for _ in 0..2 {
                reconnect(&mut world, side);
                for _ in 0..120 {
                    senders.iter().for_each(|sender| world.send_packet(*sender));
                    world.run(Duration::from_millis(50));
                }
            }
            world.seconds(10);
            world.assert_up();
            let taken: usize = world.ends.iter().map(|end| end.taken).sum();
            assert_eq!((taken, world.ends[A].ups.len()), (240 * senders.len(), 3), "{}", world.story());
            assert!(world.ends.iter().all(|end| end.drops == 0), "{}", world.story());
            world.seconds(60);
            world.assert_no_leak();
        }
    }
}

/// Where a tunnel is renewed so, that is what a rekey of its IKE SA by hand comes to.
#[test]
fn a_rekey_by_hand_authenticates_anew_where_that_is_configured() {
    for side in [A, B] {
        let mut tunnels = plain_tunnels();
        tunnels.iter_mut().for_each(|tunnel| tunnel.ike.reauthenticate = true);
        let mut world = up(4, tunnels);
        let old = world.child(side).inbound.spi;
        let before = world.wire.len();
        world.rekey_ike(side);
        world.seconds(10);
        world.assert_up();
        let exchanges: Vec<u8> =
            world.wire[before..].iter().take(4).map(|(_, message)| message[18]).collect();
        assert_eq!(exchanges, [34, 34, 35, 35], "{}", world.story());
        assert_ne!(world.child(side).inbound.spi, old);
        assert!(world.ends.iter().all(|end| end.downs == [DownReason::Replaced]), "{}", world.story());
    }
}
