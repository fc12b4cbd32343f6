//! Additional key exchanges (RFC 9370) in IKE_INTERMEDIATE (RFC 9242).

use std::time::Duration;

use adit_ike::*;

use crate::world::*;

fn with_additional(groups: [&[Group]; 2]) -> [TunnelConfig; 2] {
    let mut tunnels = plain_tunnels();
    for (tunnel, groups) in tunnels.iter_mut().zip(groups) {
        tunnel.ike.additional_ke = groups.to_vec();
    }
    tunnels
}

#[test]
fn an_additional_key_exchange_takes_one_round_trip_more() {
    for initiator in [A, B] {
        for encryption in [Encryption::Aes256Gcm16, Encryption::Aes128] {
            let mut tunnels = with_additional([&[Group::P256], &[Group::P256]]);
            tunnels.iter_mut().for_each(|tunnel| tunnel.ike.encryption = vec![encryption]);
            let mut world = World::new(1, tunnels);
            world.connect(initiator);
            world.run(Duration::from_millis(40));
            world.assert_up();
            assert!(world.ends[A].ups[0].0.ends_with("-x25519-ecp256"), "{:?}", world.ends[A].ups);
            assert_eq!(world.wire.iter().map(|(_, m)| m[18]).collect::<Vec<_>>(), [34, 34, 43, 43, 35, 35]);
            world.seconds(60);
            world.assert_up();
        }
    }
}

#[test]
fn the_groups_are_chosen_by_the_responder() {
    let groups: [&[Group]; 2] = [&[Group::Modp2048, Group::P256], &[Group::P256, Group::Modp2048]];
    let mut world = World::new(2, with_additional(groups));
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    assert!(world.ends[A].ups[0].0.ends_with("-ecp256"));
}

#[test]
fn it_is_fragmented_where_it_must_be() {
    let settings = EndpointConfig { fragment_size: 300, ..EndpointConfig::default() };
    let group: &[Group] = &[Group::Modp2048];
    let mut world = World::with_settings(3, with_additional([group, group]), settings);
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    assert!(world.wire.iter().any(|(_, m)| m[16] == 53 && m[18] == 43));
    assert!(world.wire.iter().filter(|(_, m)| m[18] != 34).all(|(_, m)| m.len() <= 272));
}

#[test]
fn it_survives_a_bad_network() {
    let group: &[Group] = &[Group::P256];
    for seed in 0..100 {
        let mut world = World::new(seed, with_additional([group, group]));
        world.faults = Faults {
            loss: 150,
            duplication: 300,
            delay: (Duration::from_millis(1), Duration::from_millis(400)),
        };
        world.ends[A].keeps_trying = true;
        world.connect(A);
        world.seconds(30);
        world.faults = PERFECT;
        world.seconds(60);
        world.assert_up();
    }
}

#[test]
fn a_lost_answer_is_given_again_by_the_keys_of_before() {
    for fragment_size in [300, 1280] {
        let settings = EndpointConfig { fragment_size, ..EndpointConfig::default() };
        let group: &[Group] = &[Group::Modp2048];
        let mut world = World::with_settings(6, with_additional([group, group]), settings);
        world.connect(A);
        world.run(Duration::from_millis(12));
        world.faults.loss = 1000;
        world.run(Duration::from_millis(10));
        assert!(world.wire.iter().any(|(side, m)| *side == B && m[18] == 43));
        world.faults = PERFECT;
        world.seconds(2);
        world.assert_up();
        assert_eq!(world.ends[A].endpoint.counters().retransmissions, 1);
        assert_eq!(world.ends[B].endpoint.counters().repeated_answers, 1);
    }
}

#[test]
fn behind_a_nat_it_goes_by_the_nat_traversal_port() {
    let mut tunnels = tunnels(["10.0.0.1", "198.51.100.1"], ["198.51.100.1", "203.0.113.9"]);
    tunnels.iter_mut().for_each(|tunnel| tunnel.ike.additional_ke = vec![Group::P256]);
    let mut world = World::new(4, tunnels).behind_nat(A, "203.0.113.9", false);
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    assert!(world.wire.iter().any(|(_, m)| m[..4] == [0; 4] && m.get(22) == Some(&43)));
    assert!(!world.wire.iter().any(|(_, m)| m[18] == 43));
}

#[test]
fn one_side_alone_does_not_make_it() {
    for (groups, words) in [
        ([&[Group::P256][..], &[]], "first difference: additional key exchange: none here, ecp256 there"),
        ([&[][..], &[Group::P256]], "first difference: additional key exchange: ecp256 here, none there"),
        ([&[Group::P256][..], &[Group::Modp2048]], "additional key exchange: modp2048 here, ecp256 there"),
    ] {
        let mut world = World::new(5, with_additional(groups));
        world.connect(A);
        world.seconds(60);
        world.assert_down();
        assert!(world.ends[B].failures[0].contains(words), "{:?}", world.ends[B].failures);
    }
}

#[test]
fn simultaneous_initiations_with_it_end_in_one() {
    let group: &[Group] = &[Group::P256];
    for seed in 0..50 {
        let mut world = World::new(seed, with_additional([group, group]));
        world.faults.delay = (Duration::from_millis(1), Duration::from_millis(200));
        world.connect(A);
        world.run(Duration::from_millis(seed * 5));
        world.connect(B);
        world.seconds(60);
        world.assert_up();
    }
}
