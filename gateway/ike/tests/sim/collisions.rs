//! Exchanges that cross, each drawn above its test (RFC 7296 sections 2.8 and 2.25). `A` and `B` are the ends, time
//! runs downwards, and the nonces are forced to choose the winner.

use std::time::Duration;

use adit_ike::*;

use crate::{lifecycle::up, world::*};

/// A tunnel that is up, with every datagram from now on given on by hand.
fn held(seed: u64, tunnels: [TunnelConfig; 2]) -> World {
    let mut world = up(seed, tunnels);
    world.hold();
    world
}

/// First octets of Ni and Nr of A's exchange, then of B's: the lowest nonce is each of the four in turn.
const LOWEST: [[u8; 4]; 4] = [[0, 9, 9, 9], [9, 0, 9, 9], [9, 9, 0, 9], [9, 9, 9, 0]];

/// Both ends begin `what`, the requests cross, and so do the answers; all that comes after is let through.
fn crossing(world: &mut World, nonces: [u8; 4], what: impl Fn(&mut World, usize)) {
    let [ni_a, nr_a, ni_b, nr_b] = nonces;
    world.bias(A, ni_a);
    what(world, A);
    let request_a = world.take_held();
    world.bias(B, ni_b);
    what(world, B);
    let request_b = world.take_held();
    assert_eq!((request_a.len(), request_b.len()), (1, 1));
    world.bias(A, nr_b);
    let answer_to_b = world.give(&request_b);
    world.bias(B, nr_a);
    let answer_to_a = world.give(&request_a);
    assert_eq!((answer_to_a.len(), answer_to_b.len()), (1, 1));
    world.let_go([answer_to_a, answer_to_b].concat());
}

/// Sends packets both ways for a while, one every 10 ms.
fn traffic(world: &mut World, time: Duration) {
    for _ in 0..time.as_millis() / 10 {
        world.send_packet(A);
        world.send_packet(B);
        world.run(Duration::from_millis(10));
    }
}

fn assert_no_drop(world: &World) {
    assert!(world.ends.iter().all(|end| end.drops == 0 && end.failures.is_empty()), "{}", world.story());
}

fn with_pfs(pfs: bool) -> [TunnelConfig; 2] {
    let mut tunnels = plain_tunnels();
    if pfs {
        tunnels.iter_mut().for_each(|tunnel| tunnel.ipsec.pfs = vec![Group::X25519]);
    }
    tunnels
}

/// ```text
///      A                                            B
///   rekey ──REKEY_SA, Ni1──▶           ◀──REKEY_SA, Ni2── rekey
///         ◀──Nr1──                              ──Nr2──▶
///   the lowest of the four is in 1:                the lowest is in 2:
///   A deletes what 1 made                          A deletes the old pair
///   B deletes the old pair                         B deletes what 2 made
/// ```
#[test]
fn both_rekey_the_same_child_sa() {
    for nonces in LOWEST {
        for pfs in [false, true] {
            let mut world = held(1, with_pfs(pfs));
            let old = world.child(A).inbound.clone();
            crossing(&mut world, nonces, World::rekey_child);
            traffic(&mut world, Duration::from_secs(4));
            world.assert_up();
            assert_ne!(world.child(A).inbound, old);
            let winner = if nonces[0].min(nonces[1]) < nonces[2].min(nonces[3]) { B } else { A };
            assert!(world.child(winner).initiator, "{nonces:?}\n{}", world.story());
            assert_no_drop(&world);
            world.seconds(60);
            world.assert_no_leak();
        }
    }
}

/// ```text
///      A                                            B
///   rekey ──REKEY_SA──┐                ◀──REKEY_SA── rekey
///         ──answer──▶ │
///                     │                  ◀──DELETE── the old pair
///         ──answer──▶ │
///                     └──▶ CHILD_SA_NOT_FOUND
///   A knows of B's rekey, and passes over that
/// ```
#[test]
fn a_rekey_comes_when_the_peer_s_own_is_done() {
    for nonces in LOWEST {
        let mut world = held(2, plain_tunnels());
        world.bias(A, nonces[0]);
        world.rekey_child(A);
        let late = world.take_held();
        world.bias(B, nonces[2]);
        world.rekey_child(B);
        let request = world.take_held();
        let answer = world.give(&request);
        let delete = world.give(&answer);
        let answer = world.give(&delete);
        assert!(world.give(&answer).is_empty());
        // A copy sent again much later gets the same refusal.
        let refusal = world.give(&late);
        let copy = world.give(&late);
        assert_eq!((refusal.len(), copy.len()), (1, 1));
        world.let_go(refusal);
        traffic(&mut world, Duration::from_secs(4));
        world.assert_up();
        assert!(world.child(B).initiator);
        assert_no_drop(&world);
        world.seconds(60);
        world.assert_no_leak();
    }
}

/// ```text
///      A                                            B
///   rekey ──REKEY_SA──┐                ◀──REKEY_SA── rekey
///         ──answer──▶ │
///                     │         ┌────────DELETE── the old pair
///                     └──▶ TEMPORARY_FAILURE
///         ◀─────────────────────┘
/// ```
#[test]
fn a_rekey_comes_while_the_peer_deletes_the_old_pair() {
    for nonces in LOWEST {
        let mut world = held(3, plain_tunnels());
        world.bias(A, nonces[0]);
        world.rekey_child(A);
        let late = world.take_held();
        world.bias(B, nonces[2]);
        world.rekey_child(B);
        let request = world.take_held();
        let answer = world.give(&request);
        let delete = world.give(&answer);
        let refusal = world.give(&late);
        world.let_go([refusal, delete].concat());
        traffic(&mut world, Duration::from_secs(4));
        world.assert_up();
        assert!(world.child(B).initiator);
        assert_no_drop(&world);
        world.seconds(60);
        world.assert_no_leak();
    }
}

/// ```text
///      A                                            B
///   rekey ──REKEY_SA──▶                ┌──REKEY_SA── rekey
///         ◀──answer──                  │
///         ──DELETE──┐                  │
///   TEMPORARY_FAILURE ◀────────────────┘
///                   └──▶ answer
/// ```
#[test]
fn the_peer_s_rekey_comes_when_ours_is_done() {
    for nonces in LOWEST {
        let mut world = held(4, plain_tunnels());
        world.bias(B, nonces[2]);
        world.rekey_child(B);
        let late = world.take_held();
        world.bias(A, nonces[0]);
        world.rekey_child(A);
        let request = world.take_held();
        world.bias(B, nonces[1]);
        let answer = world.give(&request);
        let delete = world.give(&answer);
        let refusal = world.give(&late);
        world.let_go([delete, refusal].concat());
        traffic(&mut world, Duration::from_secs(4));
        world.assert_up();
        assert!(world.child(A).initiator);
        assert_no_drop(&world);
        world.seconds(60);
        world.assert_no_leak();
    }
}

/// ```text
///      A                                            B
///   rekey ──REKEY_SA──▶                    ◀──DELETE── close
///         ◀──TEMPORARY_FAILURE──        ──answer──▶
/// ```
#[test]
fn a_rekey_crosses_the_delete_of_the_same_child_sa() {
    for (rekeys, closes) in [(A, B), (B, A)] {
        let mut world = held(5, plain_tunnels());
        world.rekey_child(rekeys);
        let rekey = world.take_held();
        let (now, spi) = (world.now, world.child(closes).inbound.spi);
        world.ends[closes].endpoint.close_child(now, TUNNEL, spi);
        world.settle(closes);
        let delete = world.take_held();
        world.let_go([rekey, delete].concat());
        world.seconds(5);
        world.assert_down();
        world.seconds(60);
        assert!(world.ends.iter().all(|end| end.failures.is_empty()), "{}", world.story());
        world.assert_no_leak();
    }
}

/// ```text
///      A                                            B
///   rekey ──REKEY_SA──▶
///   close             ◀──answer──
///         ──DELETE old, DELETE new──▶
/// ```
#[test]
fn a_child_sa_is_closed_while_its_rekey_is_under_way() {
    for side in [A, B] {
        let mut world = held(6, plain_tunnels());
        let spi = world.child(side).inbound.spi;
        world.rekey_child(side);
        let rekey = world.take_held();
        let now = world.now;
        world.ends[side].endpoint.close_child(now, TUNNEL, spi);
        world.settle(side);
        world.let_go(rekey);
        world.seconds(5);
        world.assert_down();
        world.seconds(60);
        world.assert_no_leak();
    }
}

/// ```text
///      A                                            B
///   close ──DELETE──▶                      ◀──DELETE── close
///         ◀──nothing deleted──   ──nothing deleted──▶
/// ```
#[test]
fn both_delete_the_same_child_sa() {
    let mut world = held(7, plain_tunnels());
    for side in [A, B] {
        let (now, spi) = (world.now, world.child(side).inbound.spi);
        world.ends[side].endpoint.close_child(now, TUNNEL, spi);
        world.settle(side);
    }
    world.let_go(Vec::new());
    world.seconds(5);
    world.assert_down();
    world.seconds(60);
    world.assert_no_leak();
}

/// ```text
///      A                                            B
///         ──SA, Ni1, TSi, TSr──▶   ◀──SA, Ni2, TSi, TSr──
///         ◀──Nr1──                              ──Nr2──▶
///   the pair with the lowest of the four is deleted by who began
/// ```
#[test]
fn both_make_a_child_sa_for_the_same() {
    for nonces in LOWEST {
        let mut world = up(8, plain_tunnels());
        for side in [A, B] {
            let (now, spi) = (world.now, world.child(side).inbound.spi);
            world.ends[side].endpoint.close_child(now, TUNNEL, spi);
            world.settle(side);
        }
        world.seconds(1);
        world.assert_down();
        world.hold();
        crossing(&mut world, nonces, World::connect);
        world.seconds(1);
        traffic(&mut world, Duration::from_secs(40));
        world.assert_up();
        let winner = if nonces[0].min(nonces[1]) < nonces[2].min(nonces[3]) { B } else { A };
        assert!(world.child(winner).initiator, "{nonces:?}\n{}", world.story());
        assert_no_drop(&world);
        world.assert_no_leak();
    }
}

/// ```text
///      A                                            B
///         ──SA, Ni1, TSi, TSr──▶   ┌──SA, Ni2, TSi, TSr──
///         ◀──Nr1──                 │
///         ◀────────────────────────┘
///         ──Nr2──▶
///   the pair with the lowest of the four is deleted by who began
/// ```
#[test]
fn a_child_sa_for_the_same_comes_when_ours_is_made() {
    for nonces in LOWEST {
        let mut world = up(9, plain_tunnels());
        let (now, spi) = (world.now, world.child(A).inbound.spi);
        world.ends[A].endpoint.close_child(now, TUNNEL, spi);
        world.settle(A);
        world.seconds(1);
        world.hold();
        world.bias(B, nonces[2]);
        world.connect(B);
        let late = world.take_held();
        world.bias(A, nonces[0]);
        world.connect(A);
        let request = world.take_held();
        world.bias(B, nonces[1]);
        let answer = world.give(&request);
        world.give(&answer);
        world.bias(A, nonces[3]);
        world.let_go(late);
        traffic(&mut world, Duration::from_secs(60));
        world.assert_up();
        let winner = if nonces[0].min(nonces[1]) < nonces[2].min(nonces[3]) { B } else { A };
        assert!(world.child(winner).initiator, "{nonces:?}\n{}", world.story());
        assert_no_drop(&world);
        world.assert_no_leak();
    }
}

/// ```text
///      A                                            B
///   rekey ──SA, Ni1, KEi──▶           ◀──SA, Ni2, KEi── rekey
///         ◀──Nr1, KEr──                  ──Nr2, KEr──▶
///   the lowest of the four is in 1:                the lowest is in 2:
///   A closes the IKE SA that 1 made                A closes the old IKE SA
///   B closes the old IKE SA                        B closes the one that 2 made
/// ```
#[test]
fn both_rekey_the_ike_sa() {
    for nonces in LOWEST {
        let mut world = held(10, plain_tunnels());
        let before = world.child(A).inbound.clone();
        crossing(&mut world, nonces, World::rekey_ike);
        traffic(&mut world, Duration::from_secs(4));
        world.assert_up();
        assert_eq!(world.child(A).inbound, before, "Child SAs stay");
        world.seconds(60);
        world.assert_up();
        world.assert_no_leak();
        assert_no_drop(&world);
        assert!(world.ends.iter().all(|end| end.downs.iter().all(|reason| *reason == DownReason::Replaced)));
        // The one that is left serves.
        for side in [A, B] {
            world.rekey_child(side);
            traffic(&mut world, Duration::from_secs(4));
        }
        world.assert_up();
        assert_no_drop(&world);
    }
}

/// ```text
///      A                                            B
///   rekey ──SA, Ni1, KEi──┐           ◀──SA, Ni2, KEi── rekey
///         ──answer──▶     │
///                         │        ◀──DELETE── the old IKE SA
///         ──answer──▶     │
///                         └──▶ TEMPORARY_FAILURE, or nothing any more
/// ```
#[test]
fn a_rekey_of_the_ike_sa_comes_when_the_peer_s_own_is_done() {
    for (nonces, deleted) in LOWEST.into_iter().flat_map(|nonces| [(nonces, false), (nonces, true)]) {
        let mut world = held(11, plain_tunnels());
        world.bias(A, nonces[0]);
        world.rekey_ike(A);
        let late = world.take_held();
        world.bias(B, nonces[2]);
        world.rekey_ike(B);
        let request = world.take_held();
        let answer = world.give(&request);
        let delete = world.give(&answer);
        if deleted {
            let answer = world.give(&delete);
            world.give(&answer);
            assert!(world.give(&late).is_empty(), "the old IKE SA is gone");
            world.let_go(Vec::new());
        } else {
            let refusal = world.give(&late);
            world.let_go([refusal, delete].concat());
        }
        traffic(&mut world, Duration::from_secs(4));
        world.seconds(60);
        world.assert_up();
        assert_no_drop(&world);
        world.assert_no_leak();
    }
}

/// ```text
///      A                                            B
///   rekey ──SA, Ni, KEi──▶               ◀──REKEY_SA── rekey of the Child SA
///         ◀──TEMPORARY_FAILURE──   ──TEMPORARY_FAILURE──▶
///   both try again after waits that differ
/// ```
#[test]
fn a_rekey_of_the_ike_sa_crosses_one_of_a_child_sa() {
    for (ike, child) in [(A, B), (B, A)] {
        for seed in 0..20 {
            let mut world = held(seed, plain_tunnels());
            let old = world.child(A).inbound.clone();
            world.rekey_ike(ike);
            world.rekey_child(child);
            world.let_go(Vec::new());
            traffic(&mut world, Duration::from_secs(30));
            world.seconds(60);
            world.assert_up();
            assert_ne!(world.child(A).inbound, old, "{}", world.story());
            assert!(world.ends.iter().all(|end| end.ups.len() == 2), "{}", world.story());
            assert_no_drop(&world);
            world.assert_no_leak();
        }
    }
}

/// ```text
///      A                                            B
///   rekey ──SA, Ni, KEi──▶          ◀──SA, Ni, TSi, TSr── a flow without a Child SA
///                          ──TEMPORARY_FAILURE──▶
///                                     and again, on the new IKE SA
/// ```
#[test]
fn a_new_child_sa_crosses_a_rekey_of_the_ike_sa() {
    for (ike, child) in [(A, B), (B, A)] {
        let mut world = up(12, plain_tunnels());
        let (now, spi) = (world.now, world.child(ike).inbound.spi);
        world.ends[ike].endpoint.close_child(now, TUNNEL, spi);
        world.settle(ike);
        world.seconds(1);
        world.hold();
        world.rekey_ike(ike);
        world.connect(child);
        world.let_go(Vec::new());
        world.seconds(60);
        world.assert_up();
        world.assert_no_leak();
    }
}

/// ```text
///      A                                            B
///   rekey ──SA, Ni, KEi──▶                 ◀──DELETE── a Child SA
///         ◀──TEMPORARY_FAILURE──        ──answer──▶
///         ──SA, Ni, KEi──▶ later
/// ```
#[test]
fn a_rekey_of_the_ike_sa_crosses_the_delete_of_a_child_sa() {
    for (ike, child) in [(A, B), (B, A)] {
        let mut world = held(13, plain_tunnels());
        world.rekey_ike(ike);
        let (now, spi) = (world.now, world.child(child).inbound.spi);
        world.ends[child].endpoint.close_child(now, TUNNEL, spi);
        world.settle(child);
        world.let_go(Vec::new());
        world.seconds(5);
        world.assert_down();
        world.seconds(100);
        world.assert_no_leak();
    }
}

/// ```text
///      A                                            B
///   rekey ──SA, Ni, KEi──▶                 ◀──DELETE── close
///         ◀──TEMPORARY_FAILURE──        ──answer──▶
/// ```
#[test]
fn a_rekey_of_the_ike_sa_crosses_its_delete() {
    for (rekeys, closes) in [(A, B), (B, A)] {
        for delete_first in [false, true] {
            let mut world = held(14, plain_tunnels());
            world.rekey_ike(rekeys);
            let rekey = world.take_held();
            world.close(closes);
            let delete = world.take_held();
            world.let_go(if delete_first { [delete, rekey].concat() } else { [rekey, delete].concat() });
            world.seconds(5);
            world.assert_down();
            world.seconds(100);
            assert_eq!(world.ends[closes].downs, [DownReason::ClosedByUs]);
            assert_eq!(world.ends[rekeys].downs, [DownReason::ClosedByPeer]);
            world.assert_no_leak();
        }
    }
}

/// ```text
///      A                                            B
///   rekey ──SA, Ni, KEi──▶
///   close             ◀──Nr, KEr──
///         ──DELETE on the old one, DELETE on the new one──▶
/// ```
#[test]
fn a_tunnel_is_closed_while_the_rekey_of_its_ike_sa_is_under_way() {
    for side in [A, B] {
        for answered in [false, true] {
            let mut world = held(15, plain_tunnels());
            world.rekey_ike(side);
            let rekey = world.take_held();
            let rekey = if answered { world.give(&rekey) } else { rekey };
            world.close(side);
            assert!(world.ends[side].children.is_empty(), "at once");
            world.let_go(rekey);
            world.seconds(5);
            world.assert_down();
            assert_eq!(world.ends[side].downs, [DownReason::ClosedByUs]);
            world.seconds(100);
            world.assert_no_leak();
        }
    }
}

/// ```text
///      A                                            B
///   close ──DELETE──▶                      ◀──DELETE── close
///         ◀──answer──                    ──answer──▶
/// ```
#[test]
fn both_close_the_ike_sa() {
    let mut world = held(16, plain_tunnels());
    world.close(A);
    world.close(B);
    world.let_go(Vec::new());
    world.seconds(5);
    world.assert_down();
    world.seconds(60);
    world.assert_no_leak();
    assert!(world.ends.iter().all(|end| end.downs == [DownReason::ClosedByUs]));
}

/// ```text
///      A                                            B
///   rekey ──REKEY_SA──▶
///                     ╳──answer──
///         ──REKEY_SA──▶ again, a copy
///         ◀──the same answer──
/// ```
#[test]
fn an_answer_is_lost_and_given_again() {
    for side in [A, B] {
        for what in [World::rekey_child, World::rekey_ike] {
            let mut world = held(17, with_pfs(true));
            what(&mut world, side);
            let request = world.take_held();
            let lost = world.give(&request);
            let again = world.give(&request);
            assert_eq!((lost.len(), again.len()), (1, 1));
            world.let_go(again);
            traffic(&mut world, Duration::from_secs(5));
            world.let_go(lost);
            world.seconds(60);
            world.assert_up();
            assert_no_drop(&world);
            world.assert_no_leak();
        }
    }
}

/// ```text
///      A                                            B
///         ──REKEY_SA──┐
///         ──REKEY_SA──│─▶ a copy sent later, that comes first
///                  ◀──│── answer, then DELETE of the old pair
///                     └──▶ dropped: its ID is used up
/// ```
#[test]
fn a_request_comes_again_after_all_is_done() {
    let mut world = held(18, plain_tunnels());
    world.rekey_child(A);
    let request = world.take_held();
    world.let_go(request.clone());
    world.seconds(5);
    world.assert_up();
    let before = world.child(B).inbound.clone();
    world.hold();
    assert!(world.give(&request).is_empty());
    world.let_go(Vec::new());
    world.seconds(60);
    world.assert_up();
    assert_eq!(world.child(B).inbound, before);
    world.assert_no_leak();
}
