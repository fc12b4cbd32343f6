//! What a peer of IKEv1 may have, by the key and the identity that it proved in phase 1, when the configuration changes
//! meanwhile or many tunnels are its.

use adit_ike::*;

use crate::{v1::v1_tunnels, world::*};

const OTHER: TunnelId = TunnelId(8);
const THIRD: TunnelId = TunnelId(9);

fn with_subnets(tunnel: &TunnelConfig, id: TunnelId, local: &str, remote: &str) -> TunnelConfig {
    TunnelConfig { id, local_ts: vec![subnet(local)], remote_ts: vec![subnet(remote)], ..tunnel.clone() }
}

#[test]
fn an_isakmp_sa_of_an_old_key_gets_no_pair_of_a_tunnel_with_the_new_one() {
    let [mut a, b] = v1_tunnels(Mode::Main);
    a.remote_ts.push(subnet("10.4.0.0/16"));
    let with_new = |tunnel: TunnelConfig| TunnelConfig { psk: Psk::new("new"), ..tunnel };
    let second = with_new(with_subnets(&b, OTHER, "10.4.0.0/16", "10.1.0.0/16"));
    let mut world = World::new(1, [a, b.clone()]);
    world.ends[B].endpoint.set_tunnel(world.now, second);
    world.connect(A);
    world.seconds(20);
    assert_eq!(world.ends[B].children.len(), 1, "{}", world.story());
    world.ends[B].endpoint.set_tunnel(world.now, with_new(b));
    world.connect(A);
    world.seconds(20);
    assert!(world.ends[B].owners.values().all(|id| *id == TUNNEL), "{}", world.story());
    assert_eq!(world.ends[B].children.len(), 1, "{}", world.story());
}

#[test]
fn phase_one_comes_to_nothing_for_a_tunnel_that_is_closed_or_gets_another_key_meanwhile() {
    for (mode, messages) in [(Mode::Main, 4), (Mode::Aggressive, 2)] {
        for new in [None, Some("new")] {
            let [a, b] = v1_tunnels(mode);
            let mut world = World::new(2, [a, b.clone()]);
            world.hold();
            world.connect(A);
            let mut held = world.take_held();
            for _ in 0..messages {
                held = world.give(&held);
            }
            let now = world.now;
            world.ends[B].endpoint.remove_tunnel(now, TUNNEL);
            if let Some(new) = new {
                world.ends[B].endpoint.set_tunnel(now, TunnelConfig { psk: Psk::new(new), ..b });
            }
            world.settle(B);
            world.let_go(held);
            world.seconds(5);
            let end = &world.ends[B];
            assert!(end.ikes.is_empty() && end.children.is_empty(), "{mode:?} {new:?}\n{}", world.story());
        }
    }
}

#[test]
fn what_is_told_of_refused_subnets_does_not_grow_with_the_tunnels() {
    let [mut a, b] = v1_tunnels(Mode::Main);
    a.remote_ts = vec![subnet("10.9.0.0/16")];
    let mut world = World::new(3, [a, b.clone()]);
    for number in 0..200u32 {
        let (local, remote) = (format!("172.16.{number}.0/24"), format!("172.17.{number}.0/24"));
        let id = TunnelId(100 + number);
        world.ends[B].endpoint.set_tunnel(world.now, with_subnets(&b, id, &local, &remote));
    }
    world.connect(A);
    world.seconds(20);
    let told = &world.ends[B].failures;
    assert_eq!(told.len(), 201, "each may be meant");
    let longest = told.iter().map(|told| told.matches("172.1").count()).max();
    assert!(longest < Some(40), "{longest:?}");
    assert!(told.iter().all(|told| told.contains("10.9.0.0/16")));
}

#[test]
fn a_rekey_does_not_wait_for_pairs_that_are_not_there_yet() {
    let [a, b] = v1_tunnels(Mode::Main);
    let mut world = World::new(4, [a.clone(), b.clone()]);
    for (id, of_a, of_b) in [(OTHER, "10.3.0.0/16", "10.4.0.0/16"), (THIRD, "10.5.0.0/16", "10.6.0.0/16")] {
        world.ends[A].endpoint.set_tunnel(world.now, with_subnets(&a, id, of_a, of_b));
        world.ends[B].endpoint.set_tunnel(world.now, with_subnets(&b, id, of_b, of_a));
    }
    world.connect(A);
    world.seconds(10);
    world.hold();
    let (now, peer) = (world.now, world.ends[A].peer);
    // The first is not answered; the peer may have no such tunnel.
    world.ends[A].endpoint.connect(now, OTHER, peer);
    world.ends[A].endpoint.connect(now, THIRD, peer);
    world.rekey_child(A);
    world.take_held();
    world.ends[A].endpoint.close(now, OTHER);
    world.settle(A);
    let next = world.take_held();
    world.give(&next);
    let owners: Vec<_> = world.ends[B].owners.values().copied().collect();
    assert_eq!(owners, [TUNNEL, TUNNEL], "{}", world.story());
}
