//! Tunnels of IKEv1 with the same addresses, identities and key: told apart by the subnets of quick mode.

use std::{collections::BTreeSet, time::Duration};

use adit_ike::*;
use rand_chacha::rand_core::Rng;

use crate::{
    schedules::for_some,
    v1::{nothing_left, v1_tunnels},
    world::*,
};

const OTHER: TunnelId = TunnelId(8);
const THIRD: TunnelId = TunnelId(9);
const MODES: [Mode; 2] = [Mode::Main, Mode::Aggressive];
const BEHIND_B: [&str; 3] = ["10.2.0.0/16", "10.4.0.0/16", "10.6.0.0/16"];

fn sibling(tunnel: &TunnelConfig, id: TunnelId, local: &str, remote: &str) -> TunnelConfig {
    let (local_ts, remote_ts) = (vec![subnet(local)], vec![subnet(remote)]);
    TunnelConfig { id, local_ts, remote_ts, ..tunnel.clone() }
}

/// So many tunnels at each end, each between subnets of its own.
fn families(mode: Mode, count: usize) -> [Vec<TunnelConfig>; 2] {
    let [a, b] = v1_tunnels(mode);
    let [second, third] = [("10.3.0.0/16", "10.4.0.0/16"), ("10.5.0.0/16", "10.6.0.0/16")];
    let of = |tunnel: TunnelConfig, turned: bool| {
        let more = [(OTHER, second), (THIRD, third)].map(|(id, (a, b))| {
            let (local, remote) = if turned { (b, a) } else { (a, b) };
            sibling(&tunnel, id, local, remote)
        });
        [tunnel].into_iter().chain(more).take(count).collect()
    };
    [of(a, false), of(b, true)]
}

fn world_of(seed: u64, families: &[Vec<TunnelConfig>; 2]) -> World {
    let mut world = World::new(seed, [families[A][0].clone(), families[B][0].clone()]);
    for (end, tunnels) in world.ends.iter_mut().zip(families) {
        tunnels[1..].iter().for_each(|tunnel| end.endpoint.set_tunnel(world.now, tunnel.clone()));
    }
    world
}

/// B has two tunnels, and A has one with the subnets of both, as a peer that makes all its Child SAs on one ISAKMP SA.
fn two_at_b(mode: Mode) -> World {
    let [mut a, b] = v1_tunnels(mode);
    a.remote_ts.push(subnet("10.4.0.0/16"));
    let second = sibling(&b, OTHER, "10.4.0.0/16", "10.1.0.0/16");
    let mut world = World::new(1, [a, b]);
    world.ends[B].endpoint.set_tunnel(world.now, second);
    world
}

fn connect(world: &mut World, side: usize, id: TunnelId) {
    let (now, peer) = (world.now, world.ends[side].peer);
    world.ends[side].endpoint.connect(now, id, peer);
    world.settle(side);
}

fn close(world: &mut World, side: usize, id: TunnelId) {
    world.ends[side].endpoint.close(world.now, id);
    world.settle(side);
}

/// All tunnels, begun by one end at once.
fn up(seed: u64, families: &[Vec<TunnelConfig>; 2], side: usize) -> World {
    let mut world = world_of(seed, families);
    families[side].iter().for_each(|tunnel| connect(&mut world, side, tunnel.id));
    world.seconds(20);
    assert_served(&world, families[side].len());
    world
}

/// The subnets behind B that an end has pairs for; of a pair that is being replaced, once.
fn behind_b(world: &World, side: usize) -> Vec<String> {
    let ts = |child: &ChildSa| if side == A { child.remote_ts[0].clone() } else { child.local_ts[0].clone() };
    let subnets: BTreeSet<_> =
        world.ends[side].children.values().map(|child| ts(child).to_string()).collect();
    subnets.into_iter().collect()
}

/// Both ends have the same pairs for the first so many subnets, on one ISAKMP SA, and the callers know.
#[track_caller]
fn assert_served(world: &World, count: usize) {
    assert_subnets(world, &BEHIND_B[..count]);
}

#[track_caller]
fn assert_subnets(world: &World, subnets: &[&str]) {
    for side in [A, B] {
        let end = &world.ends[side];
        assert_eq!(behind_b(world, side), subnets, "{side}\n{}", world.story());
        assert_eq!(end.children.len(), subnets.len(), "{side}\n{}", world.story());
        assert_eq!(end.endpoint.counts().established, 1, "{side}\n{}", world.story());
        assert!(end.children.values().all(|child| child.switch_outbound), "{side}\n{}", world.story());
        let served: BTreeSet<_> = end.owners.values().copied().collect();
        assert_eq!(end.ikes, served, "{side}\n{}", world.story());
    }
    let pairs = |side: usize| -> BTreeSet<(u32, u32)> { world.ends[side].children.keys().copied().collect() };
    let turned: BTreeSet<_> = pairs(B).into_iter().map(|(inbound, outbound)| (outbound, inbound)).collect();
    assert_eq!(pairs(A), turned, "{}", world.story());
}

/// An ISAKMP SA that was closed is remembered for a while.
fn close_all(mut world: World) {
    for side in [A, B] {
        for id in [TUNNEL, OTHER, THIRD] {
            close(&mut world, side, id);
        }
    }
    world.seconds(120);
    nothing_left(&world);
    assert!(world.ends.iter().all(|end| end.ikes.is_empty()), "{}", world.story());
}

#[test]
fn one_isakmp_sa_serves_the_tunnels_that_a_peer_has_as_one() {
    for mode in MODES {
        let mut world = two_at_b(mode);
        world.connect(A);
        world.seconds(20);
        assert_served(&world, 2);
        assert_eq!(world.ends[B].owners.values().collect::<BTreeSet<_>>().len(), 2);
        assert!(world.ends[B].failures.is_empty(), "{}", world.story());
        close_all(world);
    }
}

#[test]
fn a_peer_from_anywhere_is_served_as_well() {
    for (initiates, served) in [(false, 2), (true, 1)] {
        let [mut a, mut b] = v1_tunnels(Mode::Main);
        a.remote_ts.push(subnet("10.4.0.0/16"));
        // With a name for a peer, each tunnel may be with another.
        (b.peer, b.initiates) = (None, initiates);
        let second = sibling(&b, OTHER, "10.4.0.0/16", "10.1.0.0/16");
        let mut world = World::new(1, [a, b]);
        world.ends[B].endpoint.set_tunnel(world.now, second);
        world.connect(A);
        world.seconds(20);
        assert_served(&world, served);
    }
}

#[test]
fn all_are_begun_on_one_isakmp_sa() {
    for mode in MODES {
        for side in [A, B] {
            let families = families(mode, 3);
            let world = up(2, &families, side);
            assert_eq!(world.ends[side].ups.len(), 3, "one for each\n{}", world.story());
            let owners = |side: usize| world.ends[side].owners.values().collect::<BTreeSet<_>>().len();
            assert_eq!([owners(A), owners(B)], [3, 3]);
            close_all(world);
        }
    }
}

#[test]
fn a_tunnel_joins_the_isakmp_sa_of_a_sibling() {
    let families = families(Mode::Main, 3);
    for (first, second) in [(A, A), (A, B), (B, A)] {
        let mut world = world_of(3, &families);
        connect(&mut world, first, OTHER);
        // The responder cannot know at first which of them is meant.
        world.seconds(12);
        assert_subnets(&world, &BEHIND_B[1..2]);
        connect(&mut world, second, THIRD);
        connect(&mut world, second, TUNNEL);
        world.seconds(2);
        assert_served(&world, 3);
        assert_eq!(
            world.ends[A].endpoint.counters().exchanges(ExchangeType::MainMode, ExchangeResult::Done),
            1
        );
        close_all(world);
    }
}

#[test]
fn a_new_isakmp_sa_keeps_the_pairs_of_all() {
    for mode in MODES {
        for (first, second) in [(A, A), (A, B)] {
            for id in [TUNNEL, THIRD] {
                let families = families(mode, 3);
                let mut world = up(4, &families, first);
                let before: BTreeSet<_> = world.ends[A].order.iter().copied().collect();
                world.ends[second].endpoint.rekey_ike(world.now, id);
                world.settle(second);
                world.seconds(60);
                assert_served(&world, 3);
                assert_eq!(before, world.ends[A].order.iter().copied().collect(), "{}", world.story());
                let done = world.ends[A].endpoint.counters().exchanges(
                    if mode == Mode::Main { ExchangeType::MainMode } else { ExchangeType::AggressiveMode },
                    ExchangeResult::Done,
                );
                assert_eq!(done, 2);
                // The peer may still end it through the new one.
                close(&mut world, first, id);
                world.seconds(2);
                assert_eq!(behind_b(&world, 1 - first).len(), 2, "{}", world.story());
                close_all(world);
            }
        }
    }
}

#[test]
fn each_is_rekeyed_by_itself() {
    for side in [A, B] {
        let mut world = up(5, &families(Mode::Main, 3), A);
        let before = world.ends[side].order.clone();
        let of_other = world.ends[side].owners.iter().find(|(_, owner)| **owner == OTHER);
        let spi = *of_other.unwrap().0;
        world.ends[side].endpoint.rekey_child(world.now, OTHER, spi);
        world.settle(side);
        world.seconds(60);
        assert_served(&world, 3);
        let left: Vec<_> = before.iter().filter(|spi| world.ends[side].order.contains(spi)).collect();
        assert_eq!(left.len(), 2, "{}", world.story());
        assert!(!world.ends[side].order.contains(&spi));
        close_all(world);
    }
}

#[test]
fn one_that_is_closed_leaves_the_others_whoever_the_isakmp_sa_is_of() {
    for mode in MODES {
        for first in [A, B] {
            for (number, id) in [TUNNEL, OTHER, THIRD].into_iter().enumerate() {
                for closing in [A, B] {
                    let mut world = up(6, &families(mode, 3), first);
                    close(&mut world, closing, id);
                    world.seconds(30);
                    let left: Vec<_> = (0..3).filter(|at| *at != number).map(|at| BEHIND_B[at]).collect();
                    assert_subnets(&world, &left);
                    let reason = world.ends[closing].downs.last();
                    assert_eq!(reason, Some(&DownReason::ClosedByUs), "{}", world.story());
                    // What is left is renewed, and the one that went comes again.
                    for id in [TUNNEL, OTHER, THIRD] {
                        world.ends[1 - closing].endpoint.rekey_ike(world.now, id);
                    }
                    world.settle(1 - closing);
                    world.seconds(60);
                    assert_subnets(&world, &left);
                    connect(&mut world, closing, id);
                    world.seconds(20);
                    assert_served(&world, 3);
                    close_all(world);
                }
            }
        }
    }
}

#[test]
fn one_that_is_configured_anew_leaves_the_others() {
    for (at, id) in [(0, TUNNEL), (1, OTHER)] {
        let mut families = families(Mode::Main, 3);
        let mut world = up(7, &families, A);
        let kept: Vec<u32> =
            world.ends[A].owners.iter().filter(|(_, owner)| **owner != id).map(|(spi, _)| *spi).collect();
        for (side, tunnels) in families.iter_mut().enumerate() {
            let ts = if side == A { &mut tunnels[at].remote_ts } else { &mut tunnels[at].local_ts };
            *ts = vec![subnet("10.8.0.0/16")];
            let now = world.now;
            world.ends[side].endpoint.remove_tunnel(now, id);
            world.ends[side].endpoint.set_tunnel(now, tunnels[at].clone());
            world.settle(side);
        }
        connect(&mut world, A, id);
        world.seconds(30);
        let mut subnets: Vec<_> = (0..3).filter(|other| *other != at).map(|other| BEHIND_B[other]).collect();
        subnets.push("10.8.0.0/16");
        assert_subnets(&world, &subnets);
        assert!(kept.iter().all(|spi| world.ends[A].order.contains(spi)), "{}", world.story());
        close_all(world);
    }
}

#[test]
fn an_attempt_goes_on_for_the_siblings_of_a_tunnel_that_is_closed() {
    for mode in MODES {
        for milliseconds in (0..40).step_by(4) {
            let families = families(mode, 3);
            let mut world = world_of(8, &families);
            [TUNNEL, OTHER, THIRD].into_iter().for_each(|id| connect(&mut world, A, id));
            world.run(Duration::from_millis(milliseconds));
            close(&mut world, A, TUNNEL);
            world.seconds(60);
            assert_subnets(&world, &BEHIND_B[1..]);
            close_all(world);
        }
    }
}

#[test]
fn a_failed_attempt_is_told_of_all_that_wait_for_it() {
    let families = families(Mode::Main, 3);
    let mut world = world_of(9, &families);
    world.faults.loss = 1000;
    families[A].iter().for_each(|tunnel| connect(&mut world, A, tunnel.id));
    world.seconds(60);
    assert_eq!(world.ends[A].failures.len(), 3, "{}", world.story());
    nothing_left(&world);
}

#[test]
fn another_process_goes_on_with_all() {
    for order in [[0, 1, 2], [2, 0, 1]] {
        for side in [A, B] {
            let families = families(Mode::Main, 3);
            let mut world = up(10, &families, A);
            let before = world.ends[side].order.clone();
            // The one that the ISAKMP SA is of is read first, or not.
            let tunnels = order.map(|at| families[side][at].clone()).to_vec();
            world.resume_all(side, tunnels);
            world.seconds(30);
            assert_served(&world, 3);
            assert_eq!(world.ends[side].order, before, "{}", world.story());
            for id in [TUNNEL, OTHER, THIRD] {
                world.ends[side].endpoint.rekey_ike(world.now, id);
            }
            world.settle(side);
            world.seconds(60);
            assert_served(&world, 3);
            close_all(world);
        }
    }
}

#[test]
fn another_process_that_lacks_one_goes_on_with_the_others() {
    for gone in 0..3 {
        let mut families = families(Mode::Main, 3);
        let mut world = up(11, &families, A);
        families[A].remove(gone);
        world.resume_all(A, families[A].clone());
        world.seconds(60);
        let left: Vec<_> = (0..3).filter(|at| *at != gone).map(|at| BEHIND_B[at]).collect();
        assert_subnets(&world, &left);
        close_all(world);
    }
}

#[test]
fn pairs_whose_isakmp_sa_is_lost_do_not_go_on() {
    let families = families(Mode::Main, 2);
    let mut world = up(12, &families, A);
    world.ends[A].record = None;
    world.resume_all(A, families[A].clone());
    world.seconds(1);
    assert!(world.ends[A].children.is_empty(), "{}", world.story());
    assert!(world.ends[A].ikes.is_empty(), "{}", world.story());
    assert_eq!(world.ends[A].downs.last(), Some(&DownReason::Broken));
    families[A].iter().for_each(|tunnel| connect(&mut world, A, tunnel.id));
    world.seconds(20);
    assert_served(&world, 2);
    close_all(world);
}

#[test]
fn all_go_with_a_peer_that_is_dead_and_come_again() {
    for mode in MODES {
        let mut families = families(mode, 3);
        for tunnel in families.iter_mut().flatten() {
            tunnel.dpd = Some(Dpd { delay: Duration::from_secs(5), timeout: Duration::from_secs(10) });
        }
        let mut world = up(13, &families, A);
        world.faults.loss = 1000;
        world.seconds(60);
        for end in &world.ends {
            assert!(end.children.is_empty() && end.ikes.is_empty(), "{}", world.story());
            let dead = end.downs.iter().filter(|reason| **reason == DownReason::PeerDead).count();
            assert_eq!(dead, 3, "{}", world.story());
        }
        world.faults.loss = 0;
        families[B].iter().for_each(|tunnel| connect(&mut world, B, tunnel.id));
        world.seconds(20);
        assert_served(&world, 3);
        close_all(world);
    }
}

#[test]
fn all_come_again_with_a_peer_that_has_begun_from_nothing() {
    for mode in MODES {
        let families = families(mode, 3);
        let mut world = up(14, &families, B);
        let before = world.ends[B].order.clone();
        world.restart(A, families[A][0].clone());
        for tunnel in &families[A][1..] {
            world.ends[A].endpoint.set_tunnel(world.now, tunnel.clone());
        }
        families[A].iter().for_each(|tunnel| connect(&mut world, A, tunnel.id));
        world.seconds(40);
        assert_served(&world, 3);
        assert!(before.iter().all(|spi| !world.ends[B].order.contains(spi)), "{}", world.story());
        close_all(world);
    }
}

#[test]
fn subnets_of_none_are_refused_with_those_of_all() {
    let [mut a, b] = v1_tunnels(Mode::Main);
    a.remote_ts = vec![subnet("10.9.0.0/16")];
    let second = sibling(&b, OTHER, "10.4.0.0/16", "10.3.0.0/16");
    let mut world = World::new(15, [a, b]);
    world.ends[B].endpoint.set_tunnel(world.now, second);
    world.connect(A);
    world.seconds(20);
    world.assert_down();
    let told = &world.ends[B].failures;
    assert_eq!(told.len(), 2, "each may be meant\n{}", world.story());
    for words in ["10.9.0.0/16", "10.2.0.0/16", "10.4.0.0/16", "10.1.0.0/16", "10.3.0.0/16"] {
        assert!(told.iter().all(|told| told.contains(words)), "{words} in {told:?}");
    }
}

#[test]
fn tunnels_with_other_keys_or_proposals_are_no_siblings() {
    for differs in [
        (|t: &mut TunnelConfig| t.ike.dh = vec![Group::P256]) as fn(&mut TunnelConfig),
        |t| t.ike.encryption = vec![Encryption::Aes256],
        |t| t.nat_t = NatT::Off,
    ] {
        let mut world = two_at_b(Mode::Main);
        let [_, b] = v1_tunnels(Mode::Main);
        let mut second = sibling(&b, OTHER, "10.4.0.0/16", "10.1.0.0/16");
        differs(&mut second);
        world.ends[B].endpoint.set_tunnel(world.now, second);
        world.connect(A);
        world.seconds(20);
        assert_eq!(behind_b(&world, B), BEHIND_B[..1], "{}", world.story());
    }
}

/// Both ends have all tunnels; now and then one begins, is closed, renewed, or a process ends.
#[test]
fn whatever_happens_both_ends_agree_in_the_end() {
    for_some(8, |seed| {
        let families = families(MODES[seed as usize % 2], 3).map(|mut tunnels| {
            for tunnel in &mut tunnels {
                tunnel.ipsec.lifetime = Duration::from_secs(60 + seed % 40);
                tunnel.ike.lifetime = Duration::from_secs(100 + seed % 70);
            }
            tunnels
        });
        let mut world = world_of(seed, &families);
        let draw = |world: &mut World, below: u32| world.rng.next_u32() % below;
        let slowest = u64::from(draw(&mut world, 500)) + 1;
        world.faults = Faults {
            loss: draw(&mut world, 200),
            duplication: draw(&mut world, 300),
            delay: (Duration::from_millis(1), Duration::from_millis(slowest)),
        };
        for _ in 0..4 + draw(&mut world, 12) {
            let side = draw(&mut world, 2) as usize;
            let id = [TUNNEL, OTHER, THIRD][draw(&mut world, 3) as usize];
            let now = world.now;
            match draw(&mut world, 8) {
                0..=3 => connect(&mut world, side, id),
                4 => close(&mut world, side, id),
                5 => {
                    world.ends[side].endpoint.rekey_ike(now, id);
                    world.settle(side);
                }
                6 => {
                    let of = world.ends[side].owners.iter().find(|(_, owner)| **owner == id);
                    if let Some(spi) = of.map(|(spi, _)| *spi) {
                        world.ends[side].endpoint.rekey_child(now, id, spi);
                        world.settle(side);
                    }
                }
                _ => world.resume_all(side, families[side].clone()),
            }
            let wait = u64::from(draw(&mut world, 3000));
            world.run(Duration::from_millis(wait));
        }
        world.faults = PERFECT;
        world.seconds(100);
        // Who began an attempt that came to nothing is told, and would begin again.
        for side in [A, B] {
            families[side].iter().for_each(|tunnel| connect(&mut world, side, tunnel.id));
        }
        world.seconds(10);
        for side in [A, B] {
            assert_eq!(behind_b(&world, side), BEHIND_B, "seed {seed}, {side}\n{}", world.story());
        }
        // A pair or an SA may be about to be replaced at any moment.
        let mut settled = false;
        for _ in 0..40 {
            world.seconds(3);
            let one = |end: &End| end.children.len() == 3 && end.endpoint.counts().established == 1;
            if world.ends.iter().all(one) {
                assert_served(&world, 3);
                settled = true;
                break;
            }
        }
        assert!(settled, "seed {seed}\n{}", world.story());
        close_all(world);
    });
}
