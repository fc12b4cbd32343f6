//! IKEv1: modes, roles, PFS, NAT, subnets, rekeys, mismatches.

use std::time::Duration;

use adit_ike::*;

use crate::{
    schedules::{for_all, seeds},
    world::*,
};

/// Both ends' view of a tunnel of IKEv1, between fixed addresses.
pub(crate) fn v1_tunnels(mode: Mode) -> [TunnelConfig; 2] {
    as_v1(plain_tunnels(), mode)
}

fn as_v1(mut tunnels: [TunnelConfig; 2], mode: Mode) -> [TunnelConfig; 2] {
    for tunnel in &mut tunnels {
        tunnel.ike = IkePolicy {
            version: Version::Ikev1,
            mode,
            ..ike_policy(Encryption::Aes128, Integrity::Sha1, Prf::Sha1, Group::X25519)
        };
        tunnel.ipsec.esn = false;
        tunnel.ipsec.encryption = vec![Encryption::Aes128Gcm16];
    }
    tunnels
}

pub(crate) fn nothing_left(world: &World) {
    for end in &world.ends {
        assert_eq!(end.endpoint.counts(), Counts::default(), "{}", world.story());
    }
}

const MODES: [Mode; 2] = [Mode::Main, Mode::Aggressive];

#[test]
fn every_mode_role_and_pfs_connects() {
    for mode in MODES {
        for side in [A, B] {
            for pfs in [vec![], vec![Group::X25519]] {
                let mut tunnels = v1_tunnels(mode);
                tunnels.iter_mut().for_each(|t| t.ipsec.pfs = pfs.clone());
                let mut world = World::new(1, tunnels);
                world.connect(side);
                world.seconds(1);
                world.assert_up();
                assert_eq!(world.child(A).pfs, pfs.first().copied());
                assert!(world.child(1 - side).switch_outbound, "the third message has come");
                assert_eq!(world.ends[A].ups[0].0, "aes128-sha1-x25519");
                world.close(side);
                world.seconds(60);
                world.assert_down();
                nothing_left(&world);
            }
        }
    }
}

#[test]
fn a_nat_on_either_side_puts_packets_into_udp() {
    for mode in MODES {
        for (side, forward) in [(A, false), (B, true)] {
            let [mut a, mut b] = v1_tunnels(mode);
            let public = "203.0.113.9";
            if side == A {
                b.peer = Some(public.parse().unwrap());
            } else {
                a.peer = Some(public.parse().unwrap());
            }
            let mut world = World::new(2, [a, b]).behind_nat(side, public, forward);
            world.connect(A);
            world.seconds(2);
            world.assert_up();
            assert!(world.child(A).encapsulation.is_some() && world.child(B).encapsulation.is_some());
            world.seconds(60);
            world.assert_up();
        }
    }
    let mut tunnels = v1_tunnels(Mode::Main);
    tunnels[A].nat_t = NatT::Force;
    let mut world = World::new(3, tunnels.clone());
    world.connect(A);
    world.seconds(2);
    world.assert_up();
    assert!(world.child(A).encapsulation.is_some());
    tunnels[A].nat_t = NatT::Off;
    let mut world = World::new(3, tunnels);
    world.connect(A);
    world.seconds(2);
    world.assert_up();
    assert!(world.child(A).encapsulation.is_none());
}

#[test]
fn lifetimes_are_the_shorter_of_both_sides() {
    for side in [A, B] {
        let mut tunnels = v1_tunnels(Mode::Main);
        tunnels[A].ipsec.lifetime = Duration::from_secs(600);
        tunnels[A].ipsec.lifetime_bytes = Some(1 << 30);
        let mut world = World::new(4, tunnels);
        world.connect(side);
        world.seconds(1);
        for side in [A, B] {
            assert_eq!(world.child(side).lifetime, Duration::from_secs(600));
            assert_eq!(world.child(side).lifetime_bytes, Some(1 << 30));
        }
    }
}

#[test]
fn every_pair_of_subnets_has_a_quick_mode_of_its_own() {
    let mut tunnels = v1_tunnels(Mode::Main);
    tunnels[A].local_ts = (0..4).map(|n| subnet(&format!("10.1.{n}.0/24"))).collect();
    tunnels[A].remote_ts = (0..3).map(|n| subnet(&format!("10.2.{n}.0/24"))).collect();
    (tunnels[B].local_ts, tunnels[B].remote_ts) = (tunnels[A].remote_ts.clone(), tunnels[A].local_ts.clone());
    let mut world = World::new(5, tunnels);
    world.connect(A);
    world.seconds(2);
    for end in &world.ends {
        let pairs: std::collections::HashSet<_> =
            end.children.values().map(|c| (c.local_ts.clone(), c.remote_ts.clone())).collect();
        assert_eq!((end.children.len(), pairs.len()), (12, 12), "{}", world.story());
    }
    world.close(B);
    world.seconds(60);
    nothing_left(&world);
}

#[test]
fn both_phases_are_renewed_without_a_gap() {
    for mode in MODES {
        for pfs in [vec![], vec![Group::X25519]] {
            let mut tunnels = v1_tunnels(mode);
            for tunnel in &mut tunnels {
                tunnel.ipsec.pfs = pfs.clone();
                tunnel.ipsec.lifetime = Duration::from_secs(100);
                tunnel.ike.lifetime = Duration::from_secs(300);
            }
            let mut world = World::new(6, tunnels);
            world.connect(A);
            world.seconds(1);
            for _ in 0..1500 {
                world.seconds(1);
                assert!(world.ends.iter().all(|end| !end.children.is_empty()), "{}", world.story());
            }
            let ups = world.ends[A].ups.len();
            assert!((5..=8).contains(&ups), "{ups} ISAKMP SAs in 1500 s\n{}", world.story());
            assert!(world.ends.iter().all(|end| end.failures.is_empty()), "{}", world.story());
            world.seconds(20);
            while world.ends.iter().any(|end| end.children.len() > 1) {
                world.seconds(3);
            }
            world.assert_up();
        }
    }
}

#[test]
fn simultaneous_initiations_end_in_one_pair() {
    for mode in MODES {
        for seed in 0..60 {
            let mut world = World::new(seed, v1_tunnels(mode));
            world.faults.delay = (Duration::from_millis(1), Duration::from_millis(150));
            world.connect(A);
            world.run(Duration::from_millis(seed * 5));
            world.connect(B);
            world.seconds(60);
            world.assert_up();
            let counts = world.ends.iter().map(|end| end.endpoint.counts().established).collect::<Vec<_>>();
            assert_eq!(counts, [1, 1], "seed {seed}\n{}", world.story());
        }
    }
}

#[test]
fn a_dead_peer_is_found_out() {
    let tunnels = v1_tunnels(Mode::Main);
    let mut world = World::new(7, tunnels.clone());
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    world.restart(B, tunnels[B].clone());
    world.seconds(60);
    assert_eq!(world.ends[A].downs, [DownReason::PeerDead]);
    world.seconds(60);
    nothing_left(&world);
}

#[test]
fn a_probe_measures_the_round_trip() {
    let mut world = World::new(9, v1_tunnels(Mode::Main));
    world.connect(A);
    world.seconds(1);
    // Each question has a number: also the answer to one that came again tells how long it took.
    for delay in [70, 700].map(Duration::from_millis) {
        world.faults.delay = (delay, delay);
        world.seconds(5);
        world.ends.iter_mut().for_each(|end| end.round_trips.clear());
        world.seconds(30);
        let measured: Vec<_> = world.ends.iter().flat_map(|end| &end.round_trips).copied().collect();
        assert!(measured.len() >= 3 && measured.iter().all(|time| *time == 2 * delay), "{measured:?}");
    }
}

#[test]
fn initial_contact_takes_the_place_of_what_was() {
    let tunnels = v1_tunnels(Mode::Main);
    let mut world = World::new(8, tunnels.clone());
    world.connect(A);
    world.seconds(1);
    world.restart(A, tunnels[A].clone());
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    assert_eq!(world.ends[B].downs, [DownReason::Replaced]);
}

/// What both ends say of an attempt of A's that fails, after `change` to B's side of the tunnel.
fn failure(mode: Mode, change: impl Fn(&mut TunnelConfig)) -> [String; 2] {
    let mut tunnels = v1_tunnels(mode);
    change(&mut tunnels[B]);
    let mut world = World::new(9, tunnels);
    world.connect(A);
    world.seconds(70);
    world.assert_down();
    nothing_left(&world);
    [A, B].map(|side| world.ends[side].failures.join("; "))
}

#[test]
fn mismatches_are_told_in_words() {
    type Change = fn(&mut TunnelConfig);
    let cases: [(Mode, Change, &str, &str); 11] = [
        (
            Mode::Main,
            |t| t.psk = Psk::new("another"),
            "pre-shared keys differ",
            "most likely the pre-shared keys differ",
        ),
        (Mode::Aggressive, |t| t.psk = Psk::new("another"), "pre-shared keys differ", ""),
        (
            Mode::Main,
            |t| t.peer_id = Id::Fqdn("c.example".into()),
            "did not",
            "we expect c.example, a.example came",
        ),
        (
            Mode::Aggressive,
            |t| t.peer_id = Id::Fqdn("c.example".into()),
            "does not know the IDs",
            "we expect c.example, a.example came",
        ),
        (
            Mode::Main,
            |t| t.ike.mode = Mode::Aggressive,
            "UNSUPPORTED-EXCHANGE-TYPE",
            "configured for aggressive mode, the peer speaks main mode",
        ),
        (
            Mode::Aggressive,
            |t| t.ike.mode = Mode::Main,
            "UNSUPPORTED-EXCHANGE-TYPE",
            "configured for main mode, the peer speaks aggressive mode",
        ),
        (
            Mode::Main,
            |t| t.ike.version = Version::Ikev2,
            "configured for IKEv1, the peer speaks IKEv2",
            "configured for IKEv2, the peer speaks IKEv1",
        ),
        (
            Mode::Main,
            |t| t.ike.dh = vec![Group::Modp1024],
            "no proposal in common",
            "dh: modp1024 here, x25519 there",
        ),
        (Mode::Main, |t| t.ipsec.pfs = vec![Group::X25519], "refused", "PFS"),
        (
            Mode::Main,
            |t| t.remote_ts = vec![subnet("10.9.0.0/16")],
            "subnets do not match",
            "ours: local 10.2.0.0/16, remote 10.9.0.0/16; the peer's, seen from here: local 10.2.0.0/16, remote 10.1.0.0/16",
        ),
        (Mode::Main, |t| t.ipsec.protocol = Protocol::Ah, "refused", "we use AH, the peer offers ESP alone"),
    ];
    for (at, (mode, change, ours, theirs)) in cases.into_iter().enumerate() {
        let [a, b] = failure(mode, change);
        assert!(a.contains(ours), "case {at}: {a}");
        assert!(b.contains(theirs), "case {at}: {b}");
    }
}

#[test]
fn nobody_there_is_told_as_such() {
    let mut world = World::new(10, v1_tunnels(Mode::Main));
    world.faults.loss = 1000;
    world.connect(A);
    world.seconds(60);
    assert!(world.ends[A].failures[0].contains("nothing ever came back"), "{}", world.story());
    nothing_left(&world);
}

/// One schedule: who connects, rekeys and closes when, over which network, is drawn from the seed.
fn schedule(seed: u64) -> World {
    use rand_chacha::rand_core::Rng;
    let mode = MODES[(seed % 2) as usize];
    let mut tunnels = v1_tunnels(mode);
    let draw = |world: &mut World, below: u32| world.rng.next_u32() % below;
    let mut world = World::new(seed, tunnels.clone());
    let pfs = if draw(&mut world, 3) == 0 { vec![Group::X25519] } else { vec![] };
    let lifetimes = [(20, 50), (60, 70), (3600, 3600)][draw(&mut world, 3) as usize];
    for tunnel in &mut tunnels {
        tunnel.ipsec.pfs = pfs.clone();
        tunnel.ipsec.lifetime = Duration::from_secs(lifetimes.0);
        tunnel.ike.lifetime = Duration::from_secs(lifetimes.1);
    }
    let mut world = World::new(seed, tunnels.clone());
    world.faults = Faults {
        loss: draw(&mut world, 300),
        duplication: draw(&mut world, 500),
        delay: (Duration::from_millis(1), Duration::from_millis(u64::from(draw(&mut world, 800)) + 1)),
    };
    let persistent = draw(&mut world, 3) != 0;
    world.ends.iter_mut().for_each(|end| end.keeps_trying = persistent);
    world.connect(A);
    for _ in 0..draw(&mut world, 6) {
        let wait = u64::from(draw(&mut world, 4000));
        world.run(Duration::from_millis(wait));
        let side = draw(&mut world, 2) as usize;
        let (now, peer) = (world.now, world.ends[side].peer);
        match draw(&mut world, 9) {
            0..=2 => world.connect(side),
            3 => {
                world.ends[side].endpoint.reconnect(now, TUNNEL, peer);
                world.settle(side);
            }
            4 => {
                world.ends[side].endpoint.close(now, TUNNEL);
                world.settle(side);
                world.retry(side, Duration::from_secs(2));
            }
            5 => {
                world.ends[side].endpoint.rekey_ike(now, TUNNEL);
                world.settle(side);
            }
            6 => {
                let spi = world.ends[side].children.values().next().map(|c| c.inbound.spi);
                if let Some(spi) = spi {
                    world.ends[side].endpoint.rekey_child(now, TUNNEL, spi);
                    world.settle(side);
                }
            }
            7 => {
                world.restart(side, tunnels[side].clone());
                world.retry(side, Duration::from_secs(1));
            }
            _ => world.connect(1 - side),
        }
    }
    world.seconds(40);
    world
}

/// `ADIT_SEEDS` and `ADIT_SEED` choose the schedules, as in `schedules`.
#[test]
fn both_ends_agree_in_the_end_whatever_happens() {
    let up = for_all(|seed| {
        let mut world = schedule(seed);
        world.faults = PERFECT;
        world.seconds(150);
        // One end may be at the moment between an old pair and a new one, or be about to see that its last has expired.
        for _ in 0..100 {
            let [a, b] = [A, B].map(|side| world.ends[side].children.len());
            if a == b && a < 2 {
                break;
            }
            world.run(Duration::from_millis(700));
        }
        let is_up = world.check();
        world.ends.iter_mut().for_each(|end| end.keeps_trying = false);
        for side in [A, B] {
            world.close(side);
        }
        world.seconds(120);
        nothing_left(&world);
        u64::from(is_up)
    });
    let all = seeds().count() as u64;
    assert!(all == 1 || up * 2 > all, "only {up} of {all} schedules ended with a tunnel");
}

/// ```text
/// A                                    B
/// QM1 ──────────────────────────────▶
///      ◀──────────────────── QM2, QM2
/// (the secret is being computed)
///      ✗ QM1: B would answer with QM2, and that be answered with QM1
/// QM3 ──────────────────────────────▶
/// ```
#[test]
fn an_answer_that_comes_twice_while_it_is_worked_on_breeds_nothing() {
    for mode in [Mode::Main, Mode::Aggressive] {
        let mut tunnels = v1_tunnels(mode);
        tunnels.iter_mut().for_each(|tunnel| tunnel.ipsec.pfs = vec![Group::X25519]);
        let mut world = World::new(5, tunnels);
        let delay = (Duration::from_millis(1), Duration::from_millis(2));
        world.faults = Faults { loss: 0, duplication: 1000, delay };
        world.job_delay = Duration::from_millis(300);
        world.connect(A);
        for _ in 0..5000 {
            world.run(Duration::from_millis(1));
            assert!(world.wire.len() < 100, "{}", world.story());
        }
        world.assert_up();
    }
}

#[test]
fn octets_that_were_changed_on_the_way_change_nothing() {
    use rand_chacha::rand_core::Rng;
    let mut world = World::new(11, v1_tunnels(Mode::Main));
    world.connect(A);
    world.seconds(20);
    world.assert_up();
    let wire = world.wire.clone();
    let before = [A, B].map(|side| world.ends[side].endpoint.counts());
    for (from, datagram) in &wire {
        for _ in 0..40 {
            let mut datagram = datagram.clone();
            let at =
                28.min(datagram.len() - 1) + world.rng.next_u32() as usize % (datagram.len().max(29) - 28);
            let at = at.min(datagram.len() - 1);
            datagram[at] ^= 1 << (world.rng.next_u32() % 8);
            let (local, remote) = (world.ends[1 - from].address, world.ends[*from].address);
            let path = Path {
                local: std::net::SocketAddr::new(local, 500),
                remote: std::net::SocketAddr::new(remote, 500),
            };
            world.deliver(1 - from, path, &datagram);
        }
    }
    for side in [A, B] {
        let after = world.ends[side].endpoint.counts();
        assert_eq!((after.established, after.child_sas), (before[side].established, before[side].child_sas));
    }
    world.assert_up();
}
