//! Handshakes that come to an end.

use std::{net::IpAddr, time::Duration};

use adit_ike::*;

use crate::{v1::v1_tunnels, world::*};

fn comes_up(ike: IkePolicy, encryption: Encryption, integrity: Integrity, initiator: usize) {
    let mut tunnels = plain_tunnels();
    for tunnel in &mut tunnels {
        tunnel.ike = ike.clone();
        tunnel.ipsec.encryption = vec![encryption];
        tunnel.ipsec.integrity = vec![integrity];
    }
    let mut world = World::new(1, tunnels);
    world.connect(initiator);
    world.seconds(1);
    world.assert_up();
    let child = world.child(A);
    assert_eq!(child.encryption, Some(encryption));
    assert_eq!(child.inbound.encryption_key.len(), encryption.key_len());
    assert_eq!(child.inbound.integrity_key.is_empty(), encryption.is_aead());
    assert_eq!(child.inbound.salt == [0; 4], !encryption.is_aead());
    assert!(child.esn && child.encapsulation.is_none());
}

#[test]
fn every_cipher_comes_up_with_every_integrity_and_prf_from_either_side() {
    for encryption in Encryption::ALL {
        let phase_1 = if encryption == Encryption::Null { Encryption::Aes128 } else { encryption };
        for integrity in Integrity::ALL {
            for prf in Prf::ALL {
                let initiator = usize::from(integrity == Integrity::Sha1);
                let ike = ike_policy(phase_1, integrity, prf, Group::X25519);
                comes_up(ike, encryption, integrity, initiator);
            }
        }
    }
}

#[test]
fn every_group_comes_up_from_either_side() {
    for (dh, initiator) in Group::ALL.into_iter().flat_map(|dh| [(dh, A), (dh, B)]) {
        let ike = ike_policy(Encryption::Aes128, Integrity::Sha256, Prf::Sha256, dh);
        comes_up(ike, Encryption::Aes256Gcm16, Integrity::Sha256, initiator);
    }
}

#[test]
fn a_handshake_is_two_round_trips() {
    let mut world = World::new(2, plain_tunnels());
    world.connect(A);
    world.run(Duration::from_millis(30));
    world.assert_up();
    assert_eq!(world.wire.len(), 4);
    assert_eq!(world.ends[A].ups[0].0, "aes256gcm16-prfsha256-x25519");
}

#[test]
fn over_ipv6() {
    let mut world = World::new(3, tunnels(["2001:db8::1", "2001:db8::2"], ["2001:db8::2", "2001:db8::1"]));
    world.connect(B);
    world.seconds(1);
    world.assert_up();
}

#[test]
fn another_group_is_asked_for_and_given() {
    let mut tunnels = plain_tunnels();
    tunnels[A].ike.dh = vec![Group::X25519, Group::P256, Group::Modp2048];
    tunnels[B].ike.dh = vec![Group::P256, Group::X25519];
    let mut world = World::new(4, tunnels);
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    assert_eq!(world.wire.len(), 6);
    assert_eq!(world.ends[A].ups[0].0, "aes256gcm16-prfsha256-ecp256");
}

#[test]
fn under_load_a_cookie_is_demanded_and_given() {
    let settings = EndpointConfig { cookie_threshold: 0, ..EndpointConfig::default() };
    let mut tunnels = plain_tunnels();
    tunnels[A].ike.dh = vec![Group::X25519, Group::P256];
    tunnels[B].ike.dh = vec![Group::P256];
    let mut world = World::with_settings(5, tunnels, settings);
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    let counters = world.ends[B].endpoint.counters();
    assert_eq!(counters.cookie_demanded, 1, "the cookie holds for the second group too");
    assert_eq!(world.wire.len(), 8);
}

#[test]
fn half_open_attempts_are_bounded_and_pass() {
    let settings = EndpointConfig { cookie_threshold: 3, half_open_limit: 5, ..EndpointConfig::default() };
    let mut world = World::with_settings(6, plain_tunnels(), settings);
    world.connect(A);
    let first = world.wire[0].1.clone();
    let path = Path { local: "198.51.100.1:500".parse().unwrap(), remote: "192.0.2.1:500".parse().unwrap() };
    for spi in 1..=9u8 {
        let mut forged = first.clone();
        forged[..8].fill(spi);
        world.deliver(B, path, &forged);
    }
    assert_eq!(world.ends[B].endpoint.counters().cookie_demanded, 6);
    world.seconds(40);
    world.assert_up();
}

#[test]
fn behind_a_nat_the_initiator_floats() {
    let [mut a, mut b] = tunnels(["10.0.0.1", "198.51.100.1"], ["198.51.100.1", "203.0.113.9"]);
    for peer in [Some("203.0.113.9".parse().unwrap()), None] {
        b.peer = peer;
        a.local_id = "a.example".parse().unwrap();
        let mut world = World::new(7, [a.clone(), b.clone()]).behind_nat(A, "203.0.113.9", false);
        world.connect(A);
        world.seconds(1);
        world.assert_up();
        assert_eq!(world.child(A).encapsulation, Some((4500, 4500)));
        assert_eq!(world.child(B).encapsulation, Some((4500, 40_001)));
        assert_eq!(world.child(B).peer.to_string(), "203.0.113.9");
        world.seconds(21);
        assert!(world.wire.iter().any(|(side, payload)| *side == A && *payload == [0xff]), "keepalive");
        assert!(!world.wire.iter().any(|(side, payload)| *side == B && *payload == [0xff]));
    }
}

#[test]
fn other_settings_are_followed_by_what_is_under_way() {
    let retransmission = Retransmission { initial: Duration::from_millis(100), ..Retransmission::default() };
    let keepalive = Duration::from_secs(3);
    let settings = EndpointConfig { port: 1, retransmission, keepalive, ..EndpointConfig::default() };
    let sent = |world: &World| world.wire.len();

    let mut world = World::new(9, plain_tunnels());
    world.faults.loss = 1000;
    world.connect(A);
    world.seconds(1);
    assert_eq!(sent(&world), 2, "after 0.5 s, and then after 1.5 s");
    world.ends[A].endpoint.set_config(world.now, settings.clone());
    // The deadline that is set stays; the waits behind it are of 400, 800 and 1,600 ms.
    world.run(Duration::from_millis(500 + 400 + 800));
    assert_eq!(sent(&world), 5);
    world.faults = PERFECT;
    let fewer = Retransmission { attempts: 2, ..retransmission };
    world.ends[A]
        .endpoint
        .set_config(world.now, EndpointConfig { retransmission: fewer, ..settings.clone() });
    world.seconds(2);
    assert_eq!((sent(&world), world.ends[A].failures.len()), (5, 1));
    world.connect(A);
    world.seconds(1);
    world.assert_up();

    let [mut a, b] = tunnels(["10.0.0.1", "198.51.100.1"], ["198.51.100.1", "203.0.113.9"]);
    a.local_id = "a.example".parse().unwrap();
    let mut world = World::new(7, [a, b]).behind_nat(A, "203.0.113.9", false);
    world.connect(A);
    world.seconds(2);
    world.assert_up();
    let keepalives = |world: &World| world.wire.iter().filter(|(_, payload)| *payload == [0xff]).count();
    assert_eq!(keepalives(&world), 0);
    world.ends[A].endpoint.set_config(world.now, settings);
    world.seconds(7);
    assert_eq!(keepalives(&world), 2);
    world.assert_up();
}

#[test]
fn a_responder_behind_a_nat_is_reached_and_floats() {
    let tunnels = tunnels(["192.0.2.1", "10.0.0.1"], ["203.0.113.9", "192.0.2.1"]);
    let mut world = World::new(8, tunnels).behind_nat(B, "203.0.113.9", true);
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    assert_eq!(world.child(A).encapsulation, Some((4500, 4500)));
    assert_eq!(world.child(A).peer.to_string(), "203.0.113.9");
}

#[test]
fn nat_traversal_is_forced_or_off_as_configured() {
    for forced in [A, B] {
        for initiator in [A, B] {
            let mut tunnels = plain_tunnels();
            tunnels[forced].nat_t = NatT::Force;
            let mut world = World::new(9, tunnels);
            world.connect(initiator);
            world.seconds(1);
            world.assert_up();
            assert_eq!(world.child(A).encapsulation, Some((4500, 4500)));
        }
    }
    let tunnels = tunnels(["10.0.0.1", "198.51.100.1"], ["198.51.100.1", "203.0.113.9"]);
    let off = tunnels.map(|tunnel| TunnelConfig { nat_t: NatT::Off, ..tunnel });
    let mut world = World::new(10, off).behind_nat(A, "203.0.113.9", false);
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    assert_eq!(world.child(A).encapsulation, None);
}

#[test]
fn a_new_nat_mapping_moves_the_child_sa() {
    let tunnels = tunnels(["10.0.0.1", "198.51.100.1"], ["198.51.100.1", "203.0.113.9"]);
    for nat_t in [NatT::Auto, NatT::Force] {
        let [a, b] = tunnels.clone();
        let b = TunnelConfig { nat_t, ..b };
        let mut world = World::new(11, [a, b]).behind_nat(A, "203.0.113.9", false);
        world.connect(A);
        world.seconds(1);
        world.remap();
        world.seconds(60);
        world.assert_up();
        assert_eq!(world.child(B).encapsulation, Some((4500, 41_001)));
    }
}

#[test]
fn selectors_are_narrowed_to_what_both_protect() {
    let mut tunnels = plain_tunnels();
    tunnels[A].local_ts = vec![subnet("10.1.0.0/16"), subnet("10.9.0.0/16")];
    tunnels[A].remote_ts = vec![subnet("0.0.0.0/0")];
    tunnels[B].local_ts = vec![subnet("10.2.0.0/24"), subnet("10.3.0.0/24")];
    tunnels[B].remote_ts = vec![subnet("10.1.4.0/24"), subnet("10.9.0.0/16")];
    let mut world = World::new(12, tunnels);
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    let words = |selectors: &[TrafficSelector]| selectors.iter().map(|ts| ts.to_string()).collect::<Vec<_>>();
    assert_eq!(words(&world.child(A).local_ts), ["10.1.4.0/24", "10.9.0.0/16"]);
    assert_eq!(words(&world.child(A).remote_ts), ["10.2.0.0/24", "10.3.0.0/24"]);
}

#[test]
fn tunnels_to_one_peer_are_told_apart_by_id_and_by_subnets() {
    let [a, b] = plain_tunnels();
    let other_id = TunnelConfig {
        id: TunnelId(1),
        peer_id: "c.example".parse().unwrap(),
        psk: Psk::new("another"),
        ..b.clone()
    };
    let other_subnets = TunnelConfig { id: TunnelId(2), local_ts: vec![subnet("10.77.0.0/16")], ..b.clone() };
    let mut world = World::new(13, [a, b]);
    let now = world.now;
    world.ends[B].endpoint.set_tunnel(now, other_id);
    world.ends[B].endpoint.set_tunnel(now, other_subnets);
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    assert_eq!(world.child(B).local_ts, [subnet("10.2.0.0/16")]);
}

#[test]
fn both_at_once_end_in_one() {
    for seed in 0..20 {
        let mut world = World::new(seed, plain_tunnels());
        world.connect(A);
        world.connect(B);
        world.seconds(60);
        world.assert_up();
        assert!(world.ends.iter().all(|end| end.failures.is_empty()), "{}", world.story());
    }
}

#[test]
fn a_lost_answer_is_given_again() {
    for lost in [1, 3] {
        let mut world = World::new(14, plain_tunnels());
        world.connect(A);
        while world.wire.len() < lost {
            world.run(Duration::from_millis(1));
        }
        world.faults.loss = 1000;
        world.run(Duration::from_millis(10));
        assert_eq!(world.wire.len(), lost + 1);
        world.faults = PERFECT;
        world.seconds(1);
        world.assert_up();
        assert_eq!(world.ends[A].endpoint.counters().retransmissions, 1);
        assert_eq!(world.ends[B].endpoint.counters().repeated_answers, 1);
        assert_eq!(world.ends[A].ups.len(), 1);
    }
}

/// A by a name of B, which takes a peer from anywhere; both have IPv4 first. They meet by one family or the other, whoever
/// renews the IKE SA.
#[test]
fn tunnels_of_two_families_meet_by_either_and_stay_there() {
    let v4 = ["192.0.2.1", "198.51.100.1"].map(|ip| ip.parse::<IpAddr>().unwrap());
    let v6 = ["2001:db8:a::1", "2001:db8:b::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
    for tunnels in [plain_tunnels(), v1_tunnels(Mode::Main), v1_tunnels(Mode::Aggressive)] {
        for (met, renews) in [(v4, A), (v6, A), (v6, B)] {
            let mut tunnels = tunnels.clone();
            for (side, tunnel) in tunnels.iter_mut().enumerate() {
                (tunnel.other_local, tunnel.peer) = (Some(v6[side]), None);
                tunnel.initiates = side == renews;
                tunnel.ike.reauthenticate = true;
                tunnel.ike.lifetime = Duration::from_secs(if side == renews { 300 } else { 3600 });
            }
            let mut world = World::new(11, tunnels);
            for side in [A, B] {
                (world.ends[side].address, world.ends[side].peer) = (met[side], met[1 - side]);
            }
            world.connect(A);
            world.seconds(700);
            world.assert_up();
            assert!(world.ends[renews].ups.len() > 1, "{}", world.story());
            for side in [A, B] {
                let child = world.ends[side].newest();
                assert_eq!((child.local, child.peer), (met[side], met[1 - side]), "{}", world.story());
            }
        }
    }
}

#[test]
fn at_an_address_that_the_tunnel_does_not_have_nobody_is_taken() {
    let mut tunnels = plain_tunnels();
    tunnels[B].peer = None;
    let v6 = ["2001:db8:a::1", "2001:db8:b::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
    (tunnels[A].other_local, tunnels[A].peer) = (Some(v6[A]), None);
    let mut world = World::new(12, tunnels);
    for side in [A, B] {
        (world.ends[side].address, world.ends[side].peer) = (v6[side], v6[1 - side]);
    }
    world.connect(A);
    world.seconds(60);
    world.assert_down();
}
