//! IKE SAs that begin without a Child SA (RFC 6023).

use adit_ike::*;

use crate::world::*;

#[test]
fn the_first_child_sa_comes_by_its_own_exchange_and_has_pfs() {
    for initiator in [A, B] {
        let mut tunnels = plain_tunnels();
        tunnels[initiator].childless = true;
        tunnels.iter_mut().for_each(|tunnel| tunnel.ipsec.pfs = vec![Group::P256]);
        let mut world = World::new(1, tunnels);
        world.connect(initiator);
        world.seconds(1);
        world.assert_up();
        assert_eq!(world.child(A).pfs, Some(Group::P256));
        assert_eq!(world.wire.iter().map(|(_, m)| m[18]).collect::<Vec<_>>(), [34, 34, 35, 35, 36, 36]);
        world.seconds(60);
        world.assert_up();
        assert!(world.ends.iter().all(|end| end.downs.is_empty() && end.failures.is_empty()));
    }
}

#[test]
fn a_first_child_sa_that_is_refused_is_told() {
    let mut tunnels = plain_tunnels();
    tunnels[A].childless = true;
    tunnels[B].local_ts = vec![subnet("172.16.0.0/12")];
    let mut world = World::new(2, tunnels);
    world.connect(A);
    world.seconds(60);
    world.assert_down();
    assert!(
        world.ends[A].failures[0].starts_with("Two CREATE_CHILD_SA: subnets do not match"),
        "{}",
        world.story()
    );
}
