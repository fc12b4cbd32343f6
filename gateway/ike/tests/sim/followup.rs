//! Rekeys of IKE SAs that have an additional key exchange (RFC 9370 section 2.2.4).

use std::time::Duration;

use adit_ike::*;
use rand_chacha::rand_core::Rng;

use crate::{lifecycle::up, world::*};

fn with_additional() -> [TunnelConfig; 2] {
    let mut tunnels = plain_tunnels();
    tunnels.iter_mut().for_each(|tunnel| tunnel.ike.additional_ke = vec![Group::P256]);
    tunnels
}

#[test]
fn either_side_rekeys_with_both_key_exchanges() {
    for side in [A, B] {
        let mut world = up(1, with_additional());
        let before = world.wire.len();
        let child = world.child(A).inbound.clone();
        world.rekey_ike(side);
        world.seconds(5);
        world.assert_up();
        let exchanges: Vec<_> = world.wire[before..].iter().map(|(_, m)| m[18]).collect();
        assert_eq!(exchanges[..4], [36, 36, 44, 44], "{}", world.story());
        for end in &world.ends {
            assert_eq!(end.ups.len(), 2);
            assert!(end.ups[1].0.ends_with("-x25519-ecp256"), "{:?}", end.ups);
            assert!(
                end.downs.iter().all(|reason| *reason == DownReason::Replaced) && end.failures.is_empty()
            );
            assert_eq!(end.endpoint.counts().established, 1);
        }
        assert_eq!(world.child(A).inbound, child, "the Child SA is kept");
        // And what follows is by keys that both ends have.
        world.rekey_child(1 - side);
        world.rekey_ike(1 - side);
        world.seconds(5);
        world.assert_up();
        assert_eq!(world.ends[A].ups.len(), 3);
    }
}

#[test]
fn both_at_once_end_in_one() {
    for seed in 0..200 {
        let mut world = up(seed, with_additional());
        world.faults.delay = (Duration::from_millis(1), Duration::from_millis(200));
        world.faults.duplication = 200;
        world.rekey_ike(A);
        let wait = u64::from(world.rng.next_u32() % 300);
        world.run(Duration::from_millis(wait));
        world.rekey_ike(B);
        world.seconds(60);
        world.assert_up();
        assert!(world.ends.iter().all(|end| end.failures.is_empty()), "{}", world.story());
        assert!(world.ends.iter().all(|end| end.endpoint.counts().established == 1), "{}", world.story());
    }
}

/// ```text
///      A                                            B
///   rekey ──SA, Ni1, KEi──▶           ◀──SA, Ni2, KEi── rekey
///         ◀──TEMPORARY_FAILURE──   ──TEMPORARY_FAILURE──▶
///   waits 1 to 2 s                                 waits 3 to 5 s
///         ──SA, Ni, KEi──▶
///         ◀──Nr, KEr, link──
///         ──link, KEi(1)──▶
///         ◀──KEr(1)──                              has nothing left to wait for
/// ```
#[test]
fn two_that_cross_are_both_refused_and_the_initiator_s_retry_is_the_one_that_is_done() {
    for seed in 0..100 {
        let mut world = up(seed, with_additional());
        let before = world.wire.len();
        world.hold();
        world.rekey_ike(A);
        world.rekey_ike(B);
        world.let_go(Vec::new());
        world.faults.delay = (Duration::from_millis(1), Duration::from_millis(200));
        for _ in 0..100 {
            world.send_packet(A);
            world.send_packet(B);
            world.run(Duration::from_millis(100));
        }
        let exchanges: Vec<_> =
            world.wire[before..].iter().map(|(side, m)| (*side, m[18])).filter(|(_, e)| *e != 37).collect();
        let create = |side| (side, 36);
        let crossed = [create(A), create(B), create(B), create(A)];
        let retried = [create(A), create(B), (A, 44), (B, 44)];
        assert_eq!(exchanges[4..], retried, "{}", world.story());
        assert!(crossed.iter().all(|message| exchanges[..4].contains(message)), "{}", world.story());
        world.seconds(60);
        world.assert_up();
        world.assert_no_leak();
        for end in &world.ends {
            assert_eq!((end.ups.len(), end.drops, end.failures.len()), (2, 0, 0), "{}", world.story());
        }
    }
}

#[test]
fn whatever_comes_in_between_both_ends_agree() {
    for seed in 0..300 {
        let mut tunnels = with_additional();
        tunnels.iter_mut().for_each(|tunnel| tunnel.ipsec.pfs = vec![Group::X25519]);
        let mut world = up(seed, tunnels);
        world.faults = Faults {
            loss: 100,
            duplication: 200,
            delay: (Duration::from_millis(1), Duration::from_millis(300)),
        };
        world.ends.iter_mut().for_each(|end| end.keeps_trying = true);
        for _ in 0..6 {
            let side = (world.rng.next_u32() % 2) as usize;
            match world.rng.next_u32() % 4 {
                0 | 1 => world.rekey_ike(side),
                2 => world.rekey_child(side),
                _ => {
                    let now = world.now;
                    world.ends[side].endpoint.close(now, TUNNEL);
                    world.settle(side);
                    world.retry(side, Duration::from_secs(2));
                }
            }
            let wait = u64::from(world.rng.next_u32() % 700);
            world.run(Duration::from_millis(wait));
        }
        world.seconds(60);
        world.faults = PERFECT;
        world.seconds(120);
        world.assert_up();
        assert!(world.ends.iter().all(|end| end.endpoint.counts().established == 1), "{}", world.story());
    }
}

#[test]
fn closing_between_the_two_key_exchanges_closes_all() {
    for side in [A, B] {
        for wait in 0..25 {
            let mut world = up(2, with_additional());
            world.rekey_ike(A);
            world.run(Duration::from_millis(wait));
            world.close(side);
            world.seconds(60);
            world.assert_down();
            assert!(
                world.ends.iter().all(|end| end.endpoint.counts() == Counts::default()),
                "{wait} ms\n{}",
                world.story()
            );
        }
    }
}
