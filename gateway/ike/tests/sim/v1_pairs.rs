//! Pairs of subnets of IKEv1: a quick mode for each, that of a waiting packet first.

use adit_ike::*;

use crate::{v1::v1_tunnels, world::*};

type Pair = (TrafficSelector, TrafficSelector);

fn grid() -> World {
    let mut tunnels = v1_tunnels(Mode::Main);
    tunnels[A].local_ts = (0..3).map(|n| subnet(&format!("10.1.{n}.0/24"))).collect();
    tunnels[A].remote_ts = (0..3).map(|n| subnet(&format!("10.2.{n}.0/24"))).collect();
    (tunnels[B].local_ts, tunnels[B].remote_ts) = (tunnels[A].remote_ts.clone(), tunnels[A].local_ts.clone());
    World::new(1, tunnels)
}

/// A packet of A's that waits.
fn acquire(world: &mut World, local: &str, remote: &str) {
    let (now, peer) = (world.now, world.ends[A].peer);
    let flow = (subnet(local), subnet(remote));
    world.ends[A].endpoint.acquire(now, TUNNEL, peer, Some(flow));
    world.settle(A);
}

/// What A's pairs are for, in the order in which they came.
fn pairs(world: &World) -> Vec<Pair> {
    let end = &world.ends[A];
    let child = |spi: &u32| end.children.values().find(|c| c.inbound.spi == *spi).unwrap();
    end.order.iter().map(child).map(|c| (c.local_ts[0].clone(), c.remote_ts[0].clone())).collect()
}

fn pair(local: &str, remote: &str) -> Pair {
    (subnet(local), subnet(remote))
}

#[test]
fn a_waiting_packets_pair_comes_first() {
    let mut world = grid();
    acquire(&mut world, "10.1.2.7/32", "10.2.1.9/32");
    world.seconds(2);
    let made = pairs(&world);
    assert_eq!(made.len(), 9, "{}", world.story());
    assert_eq!(made[0], pair("10.1.2.0/24", "10.2.1.0/24"));
}

#[test]
fn a_packet_that_comes_while_phase_1_is_under_way_counts_too() {
    let mut world = grid();
    world.connect(A);
    acquire(&mut world, "10.1.1.7/32", "10.2.2.9/32");
    world.seconds(2);
    assert_eq!(pairs(&world)[0], pair("10.1.1.0/24", "10.2.2.0/24"));
    assert_eq!(pairs(&world).len(), 9);
}

#[test]
fn a_packet_that_comes_while_others_are_negotiated_goes_next() {
    let mut world = grid();
    world.connect(A);
    while world.ends[A].children.len() < 2 {
        world.run(std::time::Duration::from_millis(1));
    }
    acquire(&mut world, "10.1.2.7/32", "10.2.2.9/32");
    world.seconds(2);
    // One was under way.
    assert!(pairs(&world)[..4].contains(&pair("10.1.2.0/24", "10.2.2.0/24")), "{:?}", pairs(&world));
    assert_eq!(pairs(&world).len(), 9);
}

#[test]
fn a_packet_brings_back_its_pair_alone() {
    let mut world = grid();
    world.connect(A);
    world.seconds(2);
    let before = pairs(&world);
    let gone = pair("10.1.1.0/24", "10.2.1.0/24");
    let spi = world.ends[A].order[before.iter().position(|p| *p == gone).unwrap()];
    world.ends[A].endpoint.close_child(world.now, TUNNEL, spi);
    world.settle(A);
    world.seconds(2);
    assert_eq!([A, B].map(|side| world.ends[side].children.len()), [8, 8]);
    // One that has its pair asks for nothing; neither does one that is of no pair.
    let sent = world.wire.len();
    acquire(&mut world, "10.1.0.7/32", "10.2.0.7/32");
    assert!(world.wire.len() <= sent + 1, "the missing one at most");
    acquire(&mut world, "10.1.1.7/32", "10.2.1.7/32");
    world.seconds(2);
    assert_eq!([A, B].map(|side| world.ends[side].children.len()), [9, 9]);
    assert_eq!(pairs(&world).last(), Some(&gone));
}

/// Without dead peer detection nothing else would end it before its time.
#[test]
fn an_isakmp_sa_goes_with_its_only_pair_when_the_third_message_never_comes() {
    let mut tunnels = v1_tunnels(Mode::Main);
    tunnels.iter_mut().for_each(|tunnel| tunnel.dpd = None);
    let mut world = World::new(9, tunnels);
    world.hold();
    world.connect(A);
    let mut held = world.take_held();
    for _ in 0..7 {
        held = world.give(&held);
    }
    assert_eq!(world.ends[B].children.len(), 1, "{}", world.story());
    world.seconds(600);
    assert!(world.ends[B].children.is_empty() && world.ends[B].ikes.is_empty(), "{}", world.story());
}
