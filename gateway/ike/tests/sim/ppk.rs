//! Post-quantum pre-shared keys (RFC 8784).

use adit_ike::*;

use crate::world::*;

fn ppk(id: &str, key: &str, required: bool) -> Option<Ppk> {
    Some(Ppk { id: id.into(), key: Psk::new(key), required })
}

/// Connects two ends with these PPKs.
fn with(ppks: [Option<Ppk>; 2]) -> World {
    let mut tunnels = plain_tunnels();
    for (tunnel, ppk) in tunnels.iter_mut().zip(ppks) {
        tunnel.ppk = ppk;
    }
    let mut world = World::new(1, tunnels);
    world.connect(A);
    world.seconds(60);
    world
}

#[test]
fn the_same_ppk_comes_up_required_or_not() {
    let mut keys = Vec::new();
    for required in [[true, true], [true, false], [false, true], [false, false]] {
        let world = with(required.map(|required| ppk("alpha", "quantum", required)));
        world.assert_up();
        keys.push(world.child(A).inbound.encryption_key.to_vec());
    }
    // Everything is drawn from the same seed, so only the PPK can make a difference.
    assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
    let without = with([None, None]);
    without.assert_up();
    assert_ne!(keys[0], without.child(A).inbound.encryption_key.to_vec());
}

#[test]
fn an_optional_ppk_of_one_side_or_of_another_id_is_gone_without() {
    let plain = with([None, None]).child(A).inbound.encryption_key.clone();
    for ppks in [
        [ppk("alpha", "quantum", false), None],
        [None, ppk("alpha", "quantum", false)],
        [ppk("alpha", "quantum", false), ppk("beta", "quantum", false)],
    ] {
        let world = with(ppks);
        world.assert_up();
        assert_eq!(world.child(A).inbound.encryption_key, plain);
    }
}

#[test]
fn what_is_missing_or_differs_is_said() {
    let (alpha, beta) = (ppk("alpha", "quantum", true), ppk("beta", "quantum", true));
    for (ppks, side, words) in [
        (
            [alpha.clone(), None],
            A,
            "One IKE_SA_INIT: we require a post-quantum pre-shared key (PPK), \"alpha\"",
        ),
        ([None, alpha.clone()], B, "One IKE_AUTH: we require a post-quantum pre-shared key (PPK), \"alpha\""),
        ([alpha.clone(), beta.clone()], B, "ours has the ID \"beta\", the peer names \"alpha\""),
        (
            [alpha.clone(), ppk("beta", "quantum", false)],
            B,
            "ours has the ID \"beta\", the peer names \"alpha\"",
        ),
        (
            [ppk("beta", "quantum", false), alpha.clone()],
            B,
            "ours has the ID \"alpha\", the peer names \"beta\"",
        ),
        (
            [ppk("alpha", "quantum", false), ppk("alpha", "other", false)],
            B,
            "(PPK) with the ID \"alpha\" differ; the pre-shared keys are the same",
        ),
        ([alpha.clone(), ppk("alpha", "other", true)], B, "authentication failed after a good key exchange"),
    ] {
        let world = with(ppks);
        world.assert_down();
        assert!(world.ends[side].failures[0].contains(words), "{:?}", world.ends[side].failures);
        assert!(!world.ends[1 - side].failures.is_empty() || side == A);
        assert!(world.ends.iter().all(|end| end.endpoint.poll_timeout().is_none()), "nothing is left behind");
    }
}

#[test]
fn with_an_additional_key_exchange_too() {
    let mut tunnels = plain_tunnels();
    for tunnel in &mut tunnels {
        tunnel.ppk = ppk("alpha", "quantum", true);
        tunnel.ike.additional_ke = vec![Group::P256];
    }
    let mut world = World::new(2, tunnels);
    world.connect(A);
    world.seconds(1);
    world.assert_up();
}

#[test]
fn a_ppk_is_not_printed() {
    assert!(!format!("{:?}", ppk("alpha", "quantum", true)).contains("quantum"));
}
