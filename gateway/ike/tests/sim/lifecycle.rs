//! What happens to a tunnel that is up.

use std::time::Duration;

use adit_ike::*;

use crate::world::*;

pub(crate) fn up(seed: u64, tunnels: [TunnelConfig; 2]) -> World {
    let mut world = World::new(seed, tunnels);
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    world
}

/// Nothing gets through any more.
const CUT: Faults = Faults { loss: 1000, duplication: 0, delay: (Duration::ZERO, Duration::ZERO) };

#[test]
fn either_side_closes() {
    for side in [A, B] {
        let mut world = up(1, plain_tunnels());
        world.close(side);
        assert!(world.ends[side].children.is_empty(), "the closing side does not wait for the answer");
        world.seconds(1);
        world.assert_down();
        assert_eq!(world.ends[side].downs, [DownReason::ClosedByUs]);
        assert_eq!(world.ends[1 - side].downs, [DownReason::ClosedByPeer]);
        world.seconds(60);
        assert!(world.ends.iter().all(|end| end.endpoint.poll_timeout().is_none()), "nothing is left behind");
    }
}

#[test]
fn both_sides_close_at_once() {
    let mut world = up(2, plain_tunnels());
    world.close(A);
    world.close(B);
    world.seconds(60);
    world.assert_down();
    assert!(world.ends.iter().all(|end| end.downs == [DownReason::ClosedByUs]));
}

#[test]
fn a_delete_is_repeated_until_it_is_answered() {
    let mut world = up(3, plain_tunnels());
    world.faults = CUT;
    world.close(A);
    world.seconds(3);
    assert!(!world.ends[B].children.is_empty());
    world.faults = PERFECT;
    world.seconds(10);
    world.assert_down();
    assert_eq!(world.ends[B].downs, [DownReason::ClosedByPeer]);
}

#[test]
fn either_side_deletes_the_child_sa_and_the_ike_sa_follows() {
    for side in [A, B] {
        let mut world = up(4, plain_tunnels());
        let spi = world.child(side).inbound.spi;
        let now = world.now;
        world.ends[side].endpoint.close_child(now, TUNNEL, spi);
        world.settle(side);
        world.seconds(1);
        world.assert_down();
        assert!(world.ends.iter().all(|end| end.downs.is_empty()), "the IKE SA is still there");
        world.seconds(30);
        assert!(world.ends.iter().all(|end| end.downs.len() == 1), "{}", world.story());
    }
}

#[test]
fn a_tunnel_is_removed_with_a_delete() {
    let mut world = up(5, plain_tunnels());
    let now = world.now;
    world.ends[A].endpoint.remove_tunnel(now, TUNNEL);
    world.settle(A);
    world.seconds(1);
    world.assert_down();
    world.connect(A);
    world.seconds(20);
    world.assert_down();
}

#[test]
fn closing_an_attempt_under_way_leaves_nothing() {
    for after in [0, 3, 8, 13, 18, 23] {
        let mut world = World::new(6, plain_tunnels());
        world.connect(A);
        world.run(Duration::from_millis(after));
        world.close(A);
        world.seconds(60);
        world.assert_down();
        assert!(world.ends[A].endpoint.poll_timeout().is_none());
        assert!(world.ends[B].endpoint.poll_timeout().is_none());
    }
}

#[test]
fn a_silent_peer_is_probed_and_held_for_dead() {
    let mut world = up(7, plain_tunnels());
    let handshake = world.wire.len();
    world.seconds(30);
    world.assert_up();
    assert!(world.wire.len() > handshake, "probes and their answers");
    world.faults = CUT;
    world.seconds(8 + 13 + 9);
    world.assert_down();
    assert!(world.ends.iter().all(|end| end.downs == [DownReason::PeerDead]), "{}", world.story());
}

#[test]
fn a_probe_measures_the_round_trip_unless_it_was_sent_again() {
    let mut world = up(10, plain_tunnels());
    let delay = Duration::from_millis(70);
    world.faults.delay = (delay, delay);
    world.seconds(30);
    let measured: Vec<_> = world.ends.iter().flat_map(|end| &end.round_trips).copied().collect();
    assert!(measured.len() >= 3 && measured.iter().all(|time| *time == 2 * delay), "{measured:?}");
    // The answer comes after the question has been sent again.
    let delay = Duration::from_millis(700);
    world.faults.delay = (delay, delay);
    world.seconds(30);
    let more = world.ends.iter().map(|end| end.round_trips.len()).sum::<usize>();
    assert!(more <= measured.len() + 1, "{more}\n{}", world.story());
    world.assert_up();
}

#[test]
fn traffic_counts_as_life() {
    let mut world = up(8, plain_tunnels());
    world.faults = CUT;
    for _ in 0..60 {
        let now = world.now;
        for side in [A, B] {
            world.ends[side].endpoint.traffic_seen(now, TUNNEL, 0);
        }
        world.seconds(1);
    }
    world.assert_up();
    let probes = world.wire.len();
    assert_eq!(probes, 4, "no probe while traffic flows");
    world.seconds(40);
    world.assert_down();
}

#[test]
fn without_dead_peer_detection_nothing_is_sent() {
    let tunnels = plain_tunnels().map(|tunnel| TunnelConfig { dpd: None, ..tunnel });
    let mut world = up(9, tunnels);
    world.faults = CUT;
    world.seconds(600);
    world.assert_up();
    assert_eq!(world.wire.len(), 4);
}

#[test]
fn a_tunnel_is_renewed_before_it_expires_and_never_down() {
    for (seed, lifetimes) in [(10, [600, 600]), (11, [3600, 600]), (12, [600, 3600])] {
        let mut tunnels = plain_tunnels();
        for (tunnel, lifetime) in tunnels.iter_mut().zip(lifetimes) {
            tunnel.ike.lifetime = Duration::from_secs(lifetime);
            tunnel.ike.reauthenticate = true;
        }
        let mut world = up(seed, tunnels);
        for _ in 0..3600 {
            world.seconds(1);
            assert!(world.ends.iter().all(|end| !end.children.is_empty()), "{}", world.story());
            assert!(world.ends.iter().all(|end| end.children.len() <= 2), "{}", world.story());
        }
        world.seconds(5);
        world.assert_up();
        assert!(world.ends[A].ups.len() >= 7, "{}", world.story());
        assert!(
            world.ends[A].downs.iter().all(|reason| *reason == DownReason::Replaced),
            "{}",
            world.story()
        );
        assert!(world.ends.iter().all(|end| end.failures.is_empty()));
    }
}

#[test]
fn a_tunnel_behind_a_nat_is_renewed_from_either_side() {
    for shorter in [A, B] {
        let mut tunnels = tunnels(["10.0.0.1", "198.51.100.1"], ["198.51.100.1", "203.0.113.9"]);
        tunnels[B].peer = None;
        tunnels[shorter].ike.lifetime = Duration::from_secs(300);
        tunnels[shorter].ike.reauthenticate = true;
        let mut world = World::new(13, tunnels).behind_nat(A, "203.0.113.9", false);
        world.connect(A);
        for _ in 0..1000 {
            world.seconds(1);
            assert!(
                !world.ends[A].children.is_empty() && !world.ends[B].children.is_empty(),
                "{}",
                world.story()
            );
        }
        world.seconds(5);
        world.assert_up();
        assert!(world.ends[B].ups.len() >= 3);
    }
}

#[test]
fn a_renewal_that_fails_is_tried_again_and_then_the_tunnel_expires() {
    let mut tunnels = plain_tunnels().map(|tunnel| TunnelConfig { dpd: None, ..tunnel });
    tunnels[A].ike.lifetime = Duration::from_secs(600);
    tunnels[A].ike.reauthenticate = true;
    let mut world = up(14, tunnels);
    world.faults = CUT;
    world.seconds(580);
    assert!(!world.ends[A].children.is_empty());
    assert!(world.ends[A].failures.is_empty(), "the tunnel is up all the same");
    assert!(world.wire.len() > 12, "tried more than once");
    world.seconds(20);
    assert_eq!(world.ends[A].downs, [DownReason::Expired]);
    world.seconds(60);
    assert!(world.ends[A].children.is_empty() && world.ends[A].endpoint.poll_timeout().is_none());
    assert_eq!(world.ends[A].failures.len(), 1, "the attempt under way at the end is reported");
}

#[test]
fn a_peer_that_was_restarted_takes_the_place_of_its_old_self() {
    for side in [A, B] {
        let tunnels = plain_tunnels();
        let mut world = up(15, tunnels.clone());
        world.restart(side, tunnels[side].clone());
        world.connect(side);
        world.seconds(1);
        world.assert_up();
        assert_eq!(world.ends[1 - side].downs, [DownReason::Replaced], "by INITIAL_CONTACT, at once");
    }
}

#[test]
fn a_changed_configuration_is_negotiated_without_a_gap() {
    let mut tunnels = plain_tunnels();
    let mut world = up(16, tunnels.clone());
    for (side, tunnel) in tunnels.iter_mut().enumerate() {
        tunnel.ipsec.encryption = vec![Encryption::Aes128];
        let now = world.now;
        world.ends[side].endpoint.set_tunnel(now, tunnel.clone());
    }
    world.seconds(1);
    assert_eq!(world.child(A).encryption, Some(Encryption::Aes256Gcm16), "a running SA is not disturbed");
    let (now, peer) = (world.now, world.ends[A].peer);
    world.ends[A].endpoint.reconnect(now, TUNNEL, peer);
    world.settle(A);
    world.run(Duration::from_millis(100));
    assert!(world.ends.iter().all(|end| end.children.len() == 2), "both for a moment");
    world.seconds(5);
    world.assert_up();
    assert_eq!(world.child(B).encryption, Some(Encryption::Aes128));
    assert_eq!(world.ends[A].downs, [DownReason::Replaced]);
}

#[test]
fn connecting_what_is_up_or_under_way_does_nothing() {
    let mut world = World::new(17, plain_tunnels());
    world.connect(A);
    world.connect(A);
    world.seconds(1);
    world.connect(A);
    world.connect(B);
    world.seconds(5);
    world.assert_up();
    assert_eq!(world.wire.len(), 4);
}
