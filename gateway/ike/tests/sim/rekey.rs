//! CREATE_CHILD_SA without collisions: rekeys of Child SAs and of IKE SAs, more Child SAs, lifetimes.

use std::time::Duration;

use adit_ike::*;

use crate::{lifecycle::up, world::*};

fn with_pfs(pfs: [&[Group]; 2]) -> [TunnelConfig; 2] {
    let mut tunnels = plain_tunnels();
    tunnels.iter_mut().zip(pfs).for_each(|(tunnel, pfs)| tunnel.ipsec.pfs = pfs.to_vec());
    tunnels
}

#[test]
fn either_side_rekeys_a_child_sa_with_pfs_or_without() {
    use Group::{P256, X25519};
    let cases: [([&[Group]; 2], Option<Group>); 3] = [
        ([&[], &[]], None),
        ([&[X25519], &[X25519]], Some(X25519)),
        ([&[X25519, P256], &[P256]], Some(P256)),
    ];
    for (seed, (pfs, group)) in cases.into_iter().enumerate() {
        for side in [A, B] {
            let mut world = up(seed as u64, with_pfs(pfs));
            assert_eq!(world.child(A).pfs, None, "IKE_AUTH has no key exchange of its own");
            let old = world.child(side).inbound.clone();
            let other_old = world.child(1 - side).inbound.spi;
            world.rekey_child(side);
            world.run(Duration::from_millis(100));
            assert!(world.ends.iter().all(|end| end.children.len() == 2), "the old one overlaps");
            let new = |side: usize| world.ends[side].newest();
            assert_eq!((new(side).replaces, new(1 - side).replaces), (Some(old.spi), Some(other_old)));
            assert_eq!((new(side).initiator, new(1 - side).initiator), (true, false));
            world.seconds(5);
            world.assert_up();
            assert_ne!(world.child(side).inbound, old);
            assert_eq!([A, B].map(|side| world.child(side).pfs), [group; 2], "{}", world.story());
            assert!(world.ends.iter().all(|end| end.downs.is_empty() && end.failures.is_empty()));
            assert_eq!([A, B].map(|side| world.ends[side].endpoint.counts().spis), [1; 2]);
        }
    }
}

#[test]
fn a_responder_sends_with_the_new_pair_when_the_old_one_is_deleted() {
    let mut world = up(1, plain_tunnels());
    world.rekey_child(A);
    // The request arrives after 5 ms, the answer after 10, the DELETE after 15.
    world.run(Duration::from_millis(7));
    let new = world.ends[B].newest();
    assert!(!new.switch_outbound);
    world.run(Duration::from_millis(5));
    assert!(world.ends[A].newest().switch_outbound && !world.ends[B].newest().switch_outbound);
    world.run(Duration::from_millis(5));
    assert!(world.ends[B].newest().switch_outbound);
}

#[test]
fn a_responder_sends_with_the_new_pair_when_traffic_comes_with_it() {
    let mut world = up(2, plain_tunnels());
    world.rekey_child(A);
    world.run(Duration::from_millis(12));
    let (now, spi) = (world.now, world.ends[B].newest().inbound.spi);
    world.ends[B].endpoint.traffic_seen(now, TUNNEL, spi);
    world.settle(B);
    assert!(world.ends[B].newest().switch_outbound);
    world.seconds(5);
    world.assert_up();
}

#[test]
fn either_side_rekeys_the_ike_sa_and_the_child_sas_stay() {
    for side in [A, B] {
        let mut world = up(3, plain_tunnels());
        let before = [A, B].map(|side| world.child(side).inbound.clone());
        world.rekey_ike(side);
        world.seconds(1);
        world.assert_up();
        assert_eq!([A, B].map(|side| world.child(side).inbound.clone()), before);
        assert!(world.ends.iter().all(|end| end.ups.len() == 2 && end.downs == [DownReason::Replaced]));
        // What was said on the old one is said on the new one from now on.
        for rekeying in [A, B] {
            world.rekey_child(rekeying);
            world.seconds(5);
            world.rekey_ike(rekeying);
            world.seconds(5);
            world.assert_up();
        }
        world.seconds(60);
        let counts = world.ends[A].endpoint.counts();
        assert_eq!((counts.ike_sas, counts.child_sas, counts.spis, counts.of_tunnels), (1, 1, 1, 1));
        world.close(1 - side);
        world.seconds(60);
        assert!(world.ends.iter().all(|end| end.endpoint.counts() == Counts::default()));
    }
}

#[test]
fn lifetimes_of_child_and_ike_sas_end_in_rekeys_and_the_tunnel_is_never_down() {
    for (seed, child, ike) in
        [(4, [600, 600], [86400; 2]), (5, [86400; 2], [600, 700]), (6, [500, 600], [700, 600])]
    {
        let mut tunnels = with_pfs([&[Group::X25519]; 2]);
        for (side, tunnel) in tunnels.iter_mut().enumerate() {
            tunnel.ipsec.lifetime = Duration::from_secs(child[side]);
            tunnel.ike.lifetime = Duration::from_secs(ike[side]);
            tunnel.initiates = side == A;
        }
        let mut world = up(seed, tunnels);
        for _ in 0..3600 {
            world.seconds(1);
            assert!(world.ends.iter().all(|end| (1..=2).contains(&end.children.len())), "{}", world.story());
        }
        world.seconds(5);
        world.assert_up();
        for end in &world.ends {
            assert!(end.downs.iter().all(|reason| *reason == DownReason::Replaced), "{}", world.story());
            assert!(end.failures.is_empty(), "{}", world.story());
            let rekeys = end.log.iter().filter(|line| line.contains("Child up")).count();
            assert!((child[0] == 86400) == (rekeys == 1) && (ike[0] == 86400) == (end.ups.len() == 1));
        }
    }
}

#[test]
fn a_flow_that_the_peer_does_not_protect_is_told_and_gets_nothing() {
    let mut tunnels = plain_tunnels();
    tunnels[A].local_ts = vec![subnet("10.1.0.0/16"), subnet("10.9.0.0/16")];
    let mut world = up(8, tunnels);
    assert_eq!(world.child(A).local_ts, [subnet("10.1.0.0/16")], "narrowed by the responder");
    let (now, peer) = (world.now, world.ends[A].peer);
    for (flow, failures) in [("10.1.2.3/32", 0), ("10.9.2.3/32", 1)] {
        let flow = (subnet(flow), subnet("10.2.0.1/32"));
        world.ends[A].endpoint.acquire(now, TUNNEL, peer, Some(flow));
        world.settle(A);
        world.seconds(3);
        world.assert_up();
        assert_eq!(world.ends[A].failures.len(), failures, "{}", world.story());
    }
    assert_eq!(
        world.ends[A].failures,
        [
            "Two CREATE_CHILD_SA: subnets do not match; ours: local 10.9.2.3/32, remote 10.2.0.1/32; the peer's, seen \
          from here: local 10.1.0.0/16, remote 10.2.0.0/16"
        ]
    );
    assert_eq!([A, B].map(|side| world.ends[side].endpoint.counts().spis), [1; 2]);
}

#[test]
fn an_ike_sa_without_a_child_sa_gets_one_when_a_packet_asks_for_it() {
    for side in [A, B] {
        let mut world = up(9, plain_tunnels());
        let (now, spi, peer) = (world.now, world.child(side).inbound.spi, world.ends[1 - side].peer);
        world.ends[side].endpoint.close_child(now, TUNNEL, spi);
        world.settle(side);
        world.seconds(1);
        world.assert_down();
        world.ends[1 - side].endpoint.connect(now, TUNNEL, peer);
        world.settle(1 - side);
        world.seconds(60);
        world.assert_up();
        assert!(world.ends.iter().all(|end| end.downs.is_empty() && end.ups.len() == 1), "{}", world.story());
    }
}

#[test]
fn groups_that_differ_are_told_and_the_tunnel_is_renewed_from_scratch() {
    use Group::{P256, X25519};
    for (pfs, words) in [
        (
            [&[X25519][..], &[]],
            "the groups of perfect forward secrecy (PFS) do not match: ours 31; the peer refused",
        ),
        (
            [&[], &[P256][..]],
            "the groups of perfect forward secrecy (PFS) do not match: ours none; the peer refused",
        ),
        (
            [&[X25519], &[P256]],
            "the groups of perfect forward secrecy (PFS) do not match: ours 31; the peer refused",
        ),
    ] {
        let mut world = up(10, with_pfs(pfs));
        world.rekey_child(A);
        world.seconds(5);
        world.assert_up();
        assert!(world.ends[A].failures[0].contains(words), "{}", world.story());
        let theirs = pfs[0].first().map_or("none".to_owned(), |group| group.number().to_string());
        assert!(world.ends[B].failures[0].ends_with(&format!("the peer's {theirs}")), "{}", world.story());
        assert_eq!(world.ends.each_ref().map(|end| end.ups.len()), [2, 2]);
    }
}

#[test]
fn a_pair_that_is_used_up_ends_and_one_that_is_soon_used_up_is_rekeyed() {
    let mut world = up(11, plain_tunnels());
    world.rekey_child(B);
    world.seconds(5);
    world.assert_up();
    let (now, spi) = (world.now, world.child(A).inbound.spi);
    world.ends[A].endpoint.expire_child(now, TUNNEL, spi);
    world.settle(A);
    assert!(world.ends[A].children.is_empty());
    assert_eq!(world.ends[A].downs, [DownReason::Expired]);
    world.seconds(60);
    assert!(world.ends.iter().all(|end| end.endpoint.counts() == Counts::default()));
}
